/* SPDX-License-Identifier: MIT */
/* test_meta_fs.c - the file-system state machine: rules one by one.  What they make together
 * is compared with a model in test_meta_model.c. */
#include "tests/meta_harness.h"

#include "meta/dirent.h"
#include "tests/suite.h"

static struct harness H, *h = &H;

static void
setup(void)
{
	h_open(h, 1);
}

static void
teardown(void)
{
	h_check(h);
	h_close(h);
}

static uint32_t
mode_of(ino_id ino)
{
	struct msg_entry_rep r;

	ck_assert_int_eq(h_getattr(h, ino, &r), 0);
	return r.attr.mode;
}

static const struct {
	const char *what, *name;
	int rc;
} names[] = {
	{ "empty", "", -EINVAL },
	{ "dot", ".", -EINVAL },
	{ "dot dot", "..", -EINVAL },
	{ "three dots", "...", 0 },
	{ "slash", "a/b", -EINVAL },
	{ "bytes", "\xff\x01 ", 0 },
};

START_TEST(name_rules)
{
	const char *name = names[_i].name;
	struct msg_str zero = { "a\0b", 3 };
	char longest[257];

	ck_assert_msg(h_mkdir(h, INO_ROOT, name, 0755, NULL) == names[_i].rc,
	    "%s: %d", names[_i].what, h->res.rc);
	ck_assert_int_eq(dirent_name_check(&zero), -EINVAL);
	memset(longest, 'x', sizeof(longest));
	longest[255] = '\0';
	ck_assert_int_eq(h_create(h, INO_ROOT, longest, 0644, 0, NULL), 0);
	longest[255] = 'x';
	longest[256] = '\0';
	ck_assert_int_eq(h_create(h, INO_ROOT, longest, 0644, 0, NULL),
	    -ENAMETOOLONG);
}
END_TEST

START_TEST(create_again)
{
	struct msg_entry_rep r, s;

	ck_assert_int_eq(h_create(h, INO_ROOT, "a", 0640, O_RDWR, &r), 0);
	ck_assert_uint_eq(r.created, 1);
	ck_assert_uint_eq(r.attr.seed, r.attr.ino);
	ck_assert_uint_eq(r.attr.stripe, 4);
	ck_assert_int_eq(h_create(h, INO_ROOT, "a", 0600, O_RDWR, &s), 0);
	ck_assert_uint_eq(s.created, 0);
	ck_assert_uint_eq(s.attr.ino, r.attr.ino);
	ck_assert_uint_eq(s.attr.mode, S_IFREG | 0640);
	ck_assert_int_eq(h_create(h, INO_ROOT, "a", 0600, O_EXCL, &s), -EEXIST);
	h_mkdir(h, INO_ROOT, "d", 0755, NULL);
	ck_assert_int_eq(h_create(h, INO_ROOT, "d", 0600, 0, &s), -EISDIR);
	h_symlink(h, INO_ROOT, "l", "a", NULL);
	ck_assert_int_eq(h_create(h, INO_ROOT, "l", 0600, 0, &s), -ESTALE);
	h_who(h, 5, 5);
	ck_assert_int_eq(h_create(h, INO_ROOT, "a", 0600, O_RDONLY, &s), -EACCES);
	ck_assert_int_eq(h_create(h, INO_ROOT, "b", 0600, 0, &s), -EACCES);
}
END_TEST

/* Without a chain table nothing is recorded: the same request succeeds later. */
START_TEST(no_layout_yet)
{
	struct msg_entry_rep r;

	h->cmd.flags = 0;
	ck_assert_int_eq(h_create(h, INO_ROOT, "a", 0640, 0, &r), ERR_NO_CHAINS);
	ck_assert_int_eq(h_mkdir(h, INO_ROOT, "d", 0755, &r), 0);
	h->cmd.flags = FS_LAYOUT;
	h->seq -= 2;
	ck_assert_int_eq(h_create(h, INO_ROOT, "a", 0640, 0, &r), 0);
	h->seq++;
}
END_TEST

START_TEST(retry_acts_once)
{
	struct msg_entry_rep r, again;
	uint64_t before;

	ck_assert_int_eq(h_create(h, INO_ROOT, "a", 0640, O_EXCL, &r), 0);
	before = h_digest(h);
	h->seq--;
	ck_assert_int_eq(h_create(h, INO_ROOT, "a", 0640, O_EXCL, &again), 0);
	ck_assert_uint_eq(again.created, 1);
	ck_assert_uint_eq(again.attr.ino, r.attr.ino);
	ck_assert_uint_eq(h_digest(h), before);
	/* Refusals are kept, too. */
	ck_assert_int_eq(h_remove(h, MSG_unlink, INO_ROOT, "b", NULL), -ENOENT);
	ck_assert_int_eq(h_create(h, INO_ROOT, "b", 0640, 0, &r), 0);
	h->seq -= 2;
	ck_assert_int_eq(h_remove(h, MSG_unlink, INO_ROOT, "b", NULL), -ENOENT);
	h->seq++;
}
END_TEST

START_TEST(links)
{
	struct msg_entry_rep r;
	struct msg_unlink_rep u;
	struct gc_row gc;
	ino_id ino, dir;

	h_create(h, INO_ROOT, "a", 0644, O_RDWR, &r);
	ino = r.attr.ino;
	h_mkdir(h, INO_ROOT, "d", 0755, &r);
	dir = r.attr.ino;
	ck_assert_int_eq(h_link(h, ino, dir, "b", &r), 0);
	ck_assert_uint_eq(r.attr.nlink, 2);
	ck_assert_int_eq(h_link(h, dir, INO_ROOT, "e", NULL), -EPERM);
	ck_assert_int_eq(h_link(h, ino, dir, "b", NULL), -EEXIST);
	ck_assert_int_eq(h_link(h, 77, dir, "c", NULL), -ESTALE);
	ck_assert_int_eq(h_remove(h, MSG_rmdir, INO_ROOT, "d", NULL), -ENOTEMPTY);
	ck_assert_int_eq(h_remove(h, MSG_unlink, INO_ROOT, "d", NULL), -EISDIR);
	ck_assert_int_eq(h_remove(h, MSG_rmdir, INO_ROOT, "a", NULL), -ENOTDIR);
	ck_assert_int_eq(h_remove(h, MSG_unlink, INO_ROOT, "a", &u), 0);
	ck_assert_uint_eq(u.nlink, 1);
	ck_assert_uint_eq(h->res.effects, 0);
	ck_assert_int_eq(h_remove(h, MSG_unlink, dir, "b", &u), 0);
	ck_assert_uint_eq(u.nlink, 0);
	ck_assert_uint_eq(h->res.effects, FS_REMOVES);
	ck_assert_uint_eq(h->res.ino, ino);
	/* Open files live on, and get no new name. */
	ck_assert_int_eq(h_getattr(h, ino, &r), 0);
	ck_assert_int_eq(h_link(h, ino, dir, "c", NULL), -ENOENT);
	ck_assert_int_eq(h_open_file(h, ino, O_RDWR, NULL), -ESTALE);
	h->cmd.flags |= FS_HANDLE;
	ck_assert_int_eq(h_open_file(h, ino, O_RDWR, NULL), 0);
	h_check(h);
	/* That its chunks are about to go is in the row, which stays. */
	h_gc_done(h, ino, GC_BEGUN, 7);
	ck_assert_int_eq(gc_get(h->t, ino, GC_REMOVE, &gc), 0);
	ck_assert_uint_eq(gc.at, 0);
	h_gc_done(h, ino, GC_BEGUN, GC_EPOCH_GONE);
	ck_assert_int_eq(gc_get(h->t, ino, GC_REMOVE, &gc), 0);
	ck_assert_uint_eq(gc.at, 1);
	ck_assert_int_eq(h_getattr(h, ino, &r), 0);
	h_check(h);
	h_gc_done(h, ino, GC_REMOVE, GC_EPOCH_GONE);
	ck_assert_int_eq(h_getattr(h, ino, &r), -ESTALE);
	h_gc_done(h, ino, GC_REMOVE, GC_EPOCH_GONE);
	h_gc_done(h, ino, GC_BEGUN, GC_EPOCH_GONE);
	ck_assert_int_eq(gc_get(h->t, ino, GC_REMOVE, &gc), -ENOENT);
}
END_TEST

START_TEST(link_limit)
{
	struct msg_entry_rep r;
	struct inode in;

	h_create(h, INO_ROOT, "a", 0644, O_RDWR, &r);
	ck_assert_int_eq(fs_inode(h->fs, r.attr.ino, &in), 0);
	in.nlink = META_LINK_MAX;
	ck_assert_int_eq(inode_put(h->t, &in), 0);
	ck_assert_int_eq(h_link(h, in.ino, INO_ROOT, "b", NULL), -EMLINK);
	in.nlink = 1;
	ck_assert_int_eq(inode_put(h->t, &in), 0);
}
END_TEST

START_TEST(renames)
{
	struct msg_entry_rep r;
	struct msg_unlink_rep u;
	ino_id a, b, f, g;

	h_mkdir(h, INO_ROOT, "a", 0755, &r);
	a = r.attr.ino;
	h_mkdir(h, a, "b", 0755, &r);
	b = r.attr.ino;
	h_create(h, b, "f", 0644, O_RDWR, &r);
	f = r.attr.ino;
	h_create(h, a, "g", 0644, O_RDWR, &r);
	g = r.attr.ino;
	ck_assert_int_eq(h_rename(h, INO_ROOT, "a", b, "x", 0, &u), -EINVAL);
	ck_assert_int_eq(h_rename(h, INO_ROOT, "a", a, "x", 0, &u), -EINVAL);
	ck_assert_int_eq(h_rename(h, b, "f", INO_ROOT, "a", 0, &u), -ENOTEMPTY);
	ck_assert_int_eq(h_rename(h, b, "f", a, "b", RENAME_EXCHANGE, &u), -EINVAL);
	ck_assert_int_eq(h_rename(h, b, "f", a, "g", RENAME_NOREPLACE, &u), -EEXIST);
	ck_assert_int_eq(h_rename(h, b, "f", a, "x", RENAME_EXCHANGE, &u), -ENOENT);
	ck_assert_int_eq(h_rename(h, b, "f", a, "x",
	    RENAME_EXCHANGE | RENAME_NOREPLACE, &u), -EINVAL);
	ck_assert_int_eq(h_rename(h, b, "f", a, "x", 8, &u), -EINVAL);
	/* Two names of one inode: nothing happens. */
	h_link(h, f, a, "f2", NULL);
	ck_assert_int_eq(h_rename(h, b, "f", a, "f2", 0, &u), 0);
	ck_assert_uint_eq(u.ino, 0);
	ck_assert_int_eq(h_lookup(h, b, "f", &r), 0);
	/* Replacing takes the last name of what was there. */
	ck_assert_int_eq(h_rename(h, b, "f", a, "g", 0, &u), 0);
	ck_assert_uint_eq(u.ino, g);
	ck_assert_uint_eq(u.nlink, 0);
	ck_assert_uint_eq(h->res.effects, FS_REMOVES);
	h_gc_done(h, g, GC_REMOVE, GC_EPOCH_GONE);
	/* A directory over an empty one. */
	h_mkdir(h, INO_ROOT, "e", 0755, &r);
	ck_assert_int_eq(h_rename(h, a, "b", INO_ROOT, "e", 0, &u), 0);
	ck_assert_uint_eq(u.ino, r.attr.ino);
	ck_assert_int_eq(h_getattr(h, r.attr.ino, &r), -ESTALE);
	ck_assert_int_eq(h_getattr(h, b, &r), 0);
	ck_assert_uint_eq(r.attr.parent, INO_ROOT);
	h_check(h);
	/* Exchange of a file and a directory. */
	ck_assert_int_eq(h_rename(h, a, "g", INO_ROOT, "e", RENAME_EXCHANGE, &u), 0);
	ck_assert_int_eq(h_lookup(h, a, "g", &r), 0);
	ck_assert_uint_eq(r.attr.ino, b);
	ck_assert_int_eq(h_rename(h, INO_ROOT, "e", a, "g", 0, &u), -EISDIR);
	ck_assert_int_eq(h_rename(h, a, "g", INO_ROOT, "e", 0, &u), -ENOTDIR);
}
END_TEST

START_TEST(sticky)
{
	struct msg_entry_rep r;
	ino_id tmp;

	h_mkdir(h, INO_ROOT, "tmp", 01777, &r);
	tmp = r.attr.ino;
	ck_assert_uint_eq(r.attr.mode, S_IFDIR | 01777);
	h_who(h, 10, 10);
	h_create(h, tmp, "mine", 0666, 0, &r);
	h_who(h, 11, 11);
	ck_assert_int_eq(h_remove(h, MSG_unlink, tmp, "mine", NULL), -EPERM);
	ck_assert_int_eq(h_rename(h, tmp, "mine", tmp, "x", 0, NULL), -EPERM);
	h_create(h, tmp, "other", 0666, 0, &r);
	ck_assert_int_eq(h_rename(h, tmp, "other", tmp, "mine", 0, NULL), -EPERM);
	h_who(h, 10, 10);
	ck_assert_int_eq(h_remove(h, MSG_unlink, tmp, "mine", NULL), 0);
}
END_TEST

START_TEST(setgid_directory)
{
	struct msg_entry_rep r;
	struct msg_setattr q = { .valid = META_SET_MODE | META_SET_GID,
		.mode = 02777, .gid = 50 };
	ino_id d;

	h_mkdir(h, INO_ROOT, "d", 0777, &r);
	d = q.ino = r.attr.ino;
	ck_assert_int_eq(h_setattr(h, &q, &r), 0);
	ck_assert_uint_eq(r.attr.mode, S_IFDIR | 02777);
	h_who(h, 10, 10);
	h_mkdir(h, d, "sub", 0755, &r);
	ck_assert_uint_eq(r.attr.gid, 50);
	ck_assert_uint_eq(r.attr.mode, S_IFDIR | 02755);
	h_create(h, d, "f", 02755, 0, &r);
	ck_assert_uint_eq(r.attr.gid, 50);
	ck_assert_uint_eq(r.attr.mode, S_IFREG | 0755);
	h->groups[0] = 50;
	h->group_n = 1;
	h_create(h, d, "g", 02755, 0, &r);
	ck_assert_uint_eq(r.attr.mode, S_IFREG | 02755);
}
END_TEST

/* rows: who asks for what of a file of 10:10 with mode 06755 */
static const struct {
	const char *what;
	uint32_t uid, gid, group, valid;
	struct msg_setattr set;
	int rc;
	uint32_t mode;
} chmods[] = {
	{ "owner chmod", 10, 10, 0, META_SET_MODE, { .mode = 0600 }, 0, 0600 },
	{ "other chmod", 11, 10, 0, META_SET_MODE, { .mode = 0600 }, -EPERM, 06755 },
	{ "root chmod", 0, 0, 0, META_SET_MODE, { .mode = 07777 }, 0, 07777 },
	{ "setgid, not in group", 10, 12, 0, META_SET_MODE, { .mode = 02755 }, 0, 0755 },
	{ "setgid, by other group", 10, 12, 10, META_SET_MODE, { .mode = 02755 }, 0, 02755 },
	{ "chown by owner", 10, 10, 0, META_SET_UID, { .uid = 11 }, -EPERM, 06755 },
	{ "chown to self", 10, 10, 0, META_SET_UID, { .uid = 10 }, 0, 0755 },
	{ "chgrp to own group", 10, 10, 13, META_SET_GID, { .gid = 13 }, 0, 0755 },
	{ "chgrp elsewhere", 10, 10, 0, META_SET_GID, { .gid = 13 }, -EPERM, 06755 },
	{ "chgrp by other", 11, 10, 13, META_SET_GID, { .gid = 13 }, -EPERM, 06755 },
	{ "root chown", 0, 0, 0, META_SET_UID, { .uid = 20 }, 0, 0755 },
	{ "chown and mode", 0, 0, 0, META_SET_UID | META_SET_MODE, { .uid = 20, .mode = 06755 }, 0, 06755 },
	{ "utimens by other", 11, 11, 0, META_SET_MTIME, { .mtime = 5 }, -EPERM, 06755 },
	{ "touch by other", 11, 11, 0, META_SET_MTIME_NOW, { .mtime = 5 }, -EACCES, 06755 },
	{ "truncate by other", 11, 11, 0, META_SET_SIZE, { .size = 5 }, -EACCES, 06755 },
	{ "truncate by owner", 10, 10, 0, META_SET_SIZE, { .size = 5 }, 0, 0755 },
	{ "truncate by root", 0, 0, 0, META_SET_SIZE, { .size = 5 }, 0, 06755 },
	{ "unknown bit", 0, 0, 0, 512, { .size = 5 }, -EINVAL, 06755 },
	{ "nothing", 11, 11, 0, 0, { .size = 5 }, 0, 06755 },
};

START_TEST(setattr_rules)
{
	struct msg_setattr q = { .valid = META_SET_UID | META_SET_GID |
		META_SET_MODE, .uid = 10, .gid = 10, .mode = 06755 };
	struct msg_entry_rep r;

	h_create(h, INO_ROOT, "f", 0755, 0, &r);
	q.ino = r.attr.ino;
	ck_assert_int_eq(h_setattr(h, &q, NULL), 0);
	q = chmods[_i].set;
	q.ino = r.attr.ino;
	q.valid = chmods[_i].valid;
	h_who(h, chmods[_i].uid, chmods[_i].gid);
	h->groups[0] = chmods[_i].group;
	h->group_n = chmods[_i].group != 0;
	ck_assert_msg(h_setattr(h, &q, NULL) == chmods[_i].rc, "%s: %d",
	    chmods[_i].what, h->res.rc);
	ck_assert_msg(mode_of(r.attr.ino) == (S_IFREG | chmods[_i].mode),
	    "%s: %o", chmods[_i].what, mode_of(r.attr.ino));
}
END_TEST

/* What the kernel of a writer asks before it writes to a file of 10:10 with mode 06775. */
static const struct {
	const char *what;
	uint32_t uid, gid, valid, mode;
	int rc;
	uint32_t then;
} drops[] = {
	{ "both", 11, 10, META_SET_MODE, 0775, 0, 0775 },
	{ "one", 11, 10, META_SET_MODE, 02775, 0, 02775 },
	{ "with the size", 11, 10, META_SET_MODE | META_SET_SIZE, 0775, 0, 0775 },
	{ "may not write", 11, 11, META_SET_MODE, 0775, -EPERM, 06775 },
	{ "a right more", 11, 10, META_SET_MODE, 0777, -EPERM, 06775 },
	{ "a right less", 11, 10, META_SET_MODE, 0774, -EPERM, 06775 },
	{ "sticky", 11, 10, META_SET_MODE, 01775, -EPERM, 06775 },
};

START_TEST(set_id_of_writers)
{
	struct msg_setattr q = { .valid = META_SET_UID | META_SET_GID |
		META_SET_MODE, .uid = 10, .gid = 10, .mode = 06775 };
	struct msg_entry_rep r;

	h_create(h, INO_ROOT, "f", 0755, 0, &r);
	q.ino = r.attr.ino;
	ck_assert_int_eq(h_setattr(h, &q, NULL), 0);
	q.valid = drops[_i].valid;
	q.mode = drops[_i].mode;
	h_who(h, drops[_i].uid, drops[_i].gid);
	ck_assert_msg(h_setattr(h, &q, NULL) == drops[_i].rc, "%s: %d",
	    drops[_i].what, h->res.rc);
	ck_assert_msg(mode_of(r.attr.ino) == (S_IFREG | drops[_i].then),
	    "%s: %o", drops[_i].what, mode_of(r.attr.ino));
}
END_TEST

START_TEST(setattr_types)
{
	struct msg_setattr q = { .valid = META_SET_SIZE };
	struct msg_entry_rep r;

	q.ino = INO_ROOT;
	ck_assert_int_eq(h_setattr(h, &q, NULL), -EISDIR);
	h_symlink(h, INO_ROOT, "l", "x", &r);
	q.ino = r.attr.ino;
	ck_assert_int_eq(h_setattr(h, &q, NULL), -EINVAL);
	q.valid = META_SET_MODE;
	ck_assert_int_eq(h_setattr(h, &q, NULL), -EOPNOTSUPP);
	q.ino = 55;
	ck_assert_int_eq(h_setattr(h, &q, NULL), -ESTALE);
	h_who(h, 9, 9);
	ck_assert_int_eq(h_mknod(h, INO_ROOT, "b", S_IFBLK | 0600, 3, NULL), -EACCES);
	h_who(h, 0, 0);
	h_mkdir(h, INO_ROOT, "d", 0777, &r);
	h_who(h, 9, 9);
	ck_assert_int_eq(h_mknod(h, r.attr.ino, "b", S_IFBLK, 3, NULL), -EPERM);
	ck_assert_int_eq(h_mknod(h, r.attr.ino, "d", S_IFDIR, 3, NULL), -EPERM);
	ck_assert_int_eq(h_mknod(h, r.attr.ino, "l", S_IFLNK, 3, NULL), -EINVAL);
	ck_assert_int_eq(h_mknod(h, r.attr.ino, "f", S_IFIFO | 0600, 3, &r), 0);
	ck_assert_uint_eq(r.attr.rdev, 0);
}
END_TEST

/* An epoch is told when its cut has reached storage, not before. */
START_TEST(truncation)
{
	struct msg_entry_rep r;
	struct gc_row row;
	ino_id f;

	h_create(h, INO_ROOT, "f", 0644, O_RDWR, &r);
	f = r.attr.ino;
	ck_assert_int_eq(h_truncate(h, f, 0, NULL), 0);
	ck_assert_uint_eq(h->res.effects, 0);
	ck_assert_int_eq(h_sync(h, f, 5000000, 0, 77, &r), 0);
	ck_assert_uint_eq(r.attr.size, 5000000);
	ck_assert_int_eq(h_sync(h, f, 100, 0, 1 << 20, &r), 0);
	ck_assert_uint_eq(r.attr.size, 5000000);
	ck_assert_int_eq(r.attr.mtime, 1 << 20);
	ck_assert_int_eq(h_truncate(h, f, 9000000, &r), 0);
	ck_assert_uint_eq(h->res.effects, 0);
	ck_assert_uint_eq(r.attr.epoch, 0);
	ck_assert_int_eq(h_truncate(h, f, 3000000, &r), 0);
	ck_assert_uint_eq(h->res.effects, FS_TRUNCATES);
	ck_assert_uint_eq(r.attr.epoch, 1);
	h_getattr(h, f, &r);
	ck_assert_uint_eq(r.attr.epoch, 0);
	ck_assert_uint_eq(r.attr.size, 3000000);
	ck_assert_int_eq(h_sync(h, f, 4000000, 0, 0, NULL), -EAGAIN);
	h->seq--;			/* nothing was recorded */
	/* Another one, longer: the cut stays at the shorter. */
	ck_assert_int_eq(h_truncate(h, f, 3500000, NULL), 0);
	ck_assert_int_eq(h_truncate(h, f, 3200000, NULL), 0);
	ck_assert_int_eq(gc_get(h->t, f, GC_TRUNCATE, &row), 0);
	ck_assert_uint_eq(row.at, 3000000);
	ck_assert_uint_eq(row.epoch, 2);
	h_gc_done(h, f, GC_TRUNCATE, 1);	/* overtaken */
	h_getattr(h, f, &r);
	ck_assert_uint_eq(r.attr.epoch, 0);
	h_check(h);
	h_gc_done(h, f, GC_TRUNCATE, 2);
	h_getattr(h, f, &r);
	ck_assert_uint_eq(r.attr.epoch, 2);
	ck_assert_uint_eq(r.attr.size, 3200000);
	/* A report of an older epoch counts by what storage says. */
	ck_assert_int_eq(h_sync(h, f, 9000000, 0, 0, NULL), -EAGAIN);
	h->cmd.flags |= FS_LAST;
	h->cmd.last_epoch = 1;
	h->cmd.last_end = 3300000;
	ck_assert_int_eq(h_sync(h, f, 9000000, 0, 0, NULL), -EAGAIN);
	h->cmd.last_epoch = 2;
	ck_assert_int_eq(h_sync(h, f, 9000000, 0, 0, &r), 0);
	ck_assert_uint_eq(r.attr.size, 3300000);
	ck_assert_uint_eq(r.attr.epoch, 2);
	ck_assert_int_eq(h_truncate(h, f, 1ull << 52, NULL), 0);
	ck_assert_int_eq(h_truncate(h, f, (1ull << 52) + 1, NULL), -EFBIG);
	h_open_file(h, f, O_RDWR | O_TRUNC, &r);
	ck_assert_uint_eq(h->res.effects, FS_TRUNCATES);
	ck_assert_uint_eq(r.attr.size, 0);
	/* Removal takes a pending truncation with it. */
	h_remove(h, MSG_unlink, INO_ROOT, "f", NULL);
	h_check(h);
	h_gc_done(h, f, GC_REMOVE, GC_EPOCH_GONE);
}
END_TEST

START_TEST(never_written)
{
	struct msg_entry_rep r;
	struct msg_open q = { .flags = O_WRONLY };
	struct inode in;

	h_mknod(h, INO_ROOT, "f", 0644, 0, &r);
	ck_assert_int_eq(h_truncate(h, r.attr.ino, 500, NULL), 0);
	ck_assert_int_eq(h_truncate(h, r.attr.ino, 100, NULL), 0);
	ck_assert_uint_eq(h->res.effects, 0);
	q.ino = r.attr.ino;
	ck_assert_int_eq(fs_open_check(h->fs, &q, &in), -EINPROGRESS);
	ck_assert_int_eq(h_open_file(h, q.ino, O_WRONLY, NULL), 0);
	ck_assert_int_eq(fs_open_check(h->fs, &q, &in), 0);
	ck_assert_int_eq(h_truncate(h, q.ino, 50, NULL), 0);
	ck_assert_uint_eq(h->res.effects, FS_TRUNCATES);
	q.ctx.uid = 4;
	ck_assert_int_eq(fs_open_check(h->fs, &q, &in), -EACCES);
	q.ino = INO_ROOT;
	ck_assert_int_eq(fs_open_check(h->fs, &q, &in), -EISDIR);
}
END_TEST

START_TEST(symlinks)
{
	char target[META_SYMLINK_MAX + 2];
	struct msg_readlink_rep l;
	struct msg_entry_rep r;
	struct msg_ino q = { .ino = INO_ROOT };

	memset(target, 't', sizeof(target));
	target[META_SYMLINK_MAX + 1] = '\0';
	ck_assert_int_eq(h_symlink(h, INO_ROOT, "l", target, NULL), -ENAMETOOLONG);
	target[META_SYMLINK_MAX] = '\0';
	ck_assert_int_eq(h_symlink(h, INO_ROOT, "l", target, &r), 0);
	ck_assert_uint_eq(r.attr.size, META_SYMLINK_MAX);
	ck_assert_int_eq(h_symlink(h, INO_ROOT, "m", "", NULL), -ENOENT);
	ck_assert_int_eq(fs_readlink(h->fs, &q, &l), -EINVAL);
	q.ino = r.attr.ino;
	ck_assert_int_eq(fs_readlink(h->fs, &q, &l), 0);
	ck_assert_uint_eq(l.target.n, META_SYMLINK_MAX);
	ck_assert_mem_eq(l.target.p, target, l.target.n);
	ck_assert_int_eq(h_open_file(h, q.ino, O_RDONLY, NULL), -ELOOP);
	h_remove(h, MSG_unlink, INO_ROOT, "l", NULL);
	ck_assert_int_eq(fs_readlink(h->fs, &q, &l), -ESTALE);
}
END_TEST

/* Pages of any size list each entry once, whatever happens between them. */
START_TEST(listing)
{
	static uint8_t seen[2000];
	struct msg_readdir q = { .ino = INO_ROOT };
	struct msg_readdir_rep rep = { 0 };
	unsigned pages = 0, n = 0;
	char name[32];

	memset(seen, 0, sizeof(seen));
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		h_create(h, INO_ROOT, name, 0644, 0, NULL);
	}
	q.ctx = h_ctx(h, false);
	do {
		q.max_bytes = (uint32_t)rand_below(&h->rand, 5000);
		q.plus = rand_chance(&h->rand, 1, 2);
		ck_assert_int_eq(fs_readdir(h->fs, &q, &rep), 0);
		for (uint32_t i = 0; i < rep.entries.n; i++) {
			struct msg_dirent *d = &rep.entries.v[i];
			unsigned id;

			snprintf(name, sizeof(name), "%.*s", (int)d->name.n,
			    d->name.p);
			ck_assert_int_eq(sscanf(name, "file%u", &id), 1);
			ck_assert_uint_gt(d->cookie, q.cookie);
			ck_assert_uint_eq(d->attr.ino, q.plus ? d->ino : 0);
			ck_assert_uint_eq(d->type, S_IFREG);
			q.cookie = d->cookie;
			seen[id]++;
			n++;
		}
		/* Listed or not yet: these come and go without harm. */
		snprintf(name, sizeof(name), "file%u", 1000 + pages);
		h_create(h, INO_ROOT, name, 0644, 0, NULL);
		if (pages > 10) {
			snprintf(name, sizeof(name), "file%u", 1000 + pages - 10);
			h_remove(h, MSG_unlink, INO_ROOT, name, NULL);
		}
		ck_assert_uint_lt(pages++, 900);
	} while (!rep.eof);
	for (unsigned i = 0; i < 1000; i++)
		ck_assert_uint_eq(seen[i], 1);
	ck_assert_uint_ge(pages, 10);
	q.cookie = INT64_MAX;
	ck_assert_int_eq(fs_readdir(h->fs, &q, &rep), 0);
	ck_assert_uint_eq(rep.entries.n, 0);
	ck_assert(rep.eof);
}
END_TEST

START_TEST(listing_rights)
{
	struct msg_readdir q = { .max_bytes = 4096, .plus = 1 };
	struct msg_readdir_rep rep = { 0 };
	struct msg_entry_rep r;

	h_mkdir(h, INO_ROOT, "d", 0744, &r);
	q.ino = r.attr.ino;
	h_create(h, q.ino, "f", 0644, 0, NULL);
	h_who(h, 3, 3);
	q.ctx = h_ctx(h, false);
	ck_assert_int_eq(fs_readdir(h->fs, &q, &rep), 0);
	ck_assert_uint_eq(rep.entries.n, 1);
	ck_assert_uint_eq(rep.entries.v[0].attr.ino, 0);
	ck_assert_int_eq(h_lookup(h, q.ino, "f", &r), -EACCES);
	h_who(h, 0, 0);
	h_mkdir(h, INO_ROOT, "e", 0711, &r);
	q.ino = r.attr.ino;
	ck_assert_int_eq(fs_readdir(h->fs, &q, &rep), -EACCES);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("rules");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, name_rules, 0, (int)(sizeof(names) / sizeof(*names)));
	tcase_add_test(t, create_again);
	tcase_add_test(t, no_layout_yet);
	tcase_add_test(t, retry_acts_once);
	tcase_add_test(t, links);
	tcase_add_test(t, link_limit);
	tcase_add_test(t, renames);
	tcase_add_test(t, sticky);
	tcase_add_test(t, setgid_directory);
	tcase_add_loop_test(t, setattr_rules, 0,
	    (int)(sizeof(chmods) / sizeof(*chmods)));
	tcase_add_loop_test(t, set_id_of_writers, 0,
	    (int)(sizeof(drops) / sizeof(*drops)));
	tcase_add_test(t, setattr_types);
	tcase_add_test(t, truncation);
	tcase_add_test(t, never_written);
	tcase_add_test(t, symlinks);
	tcase_add_test(t, listing);
	tcase_add_test(t, listing_rights);
	return suite_run("meta_fs", t);
}
