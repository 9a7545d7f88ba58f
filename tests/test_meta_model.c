/* SPDX-License-Identifier: MIT */
/* test_meta_model.c - random operations against a small model of what POSIX says: the same
 * codes and the same attributes; and against crashes: a replay gives the same bytes.
 *
 * The model is arrays and loops; it knows nothing of keys, rows or commands. */
#include "tests/meta_harness.h"

#define NODES	4096u
#define ENTRIES	24u

struct node;
struct ment {
	char	     name[8];
	struct node *to;
};
struct node {
	ino_id	ino;
	bool	there, written;
	unsigned mode, nlink, uid, gid, epoch, settled;
	unsigned long long size, rdev;
	long long atime, mtime, ctime, btime;
	struct ment ents[ENTRIES];
	unsigned n;
	struct node *parent;
	char	target[16];
};

static struct harness H, *h = &H;
static struct node nodes[NODES];
static unsigned made;		/* nodes[1..made] were used */
static unsigned rcs[200];	/* how often each errno was seen */

/* ---- the model: who may what ---- */

static bool
in_group(unsigned gid)
{
	bool in = gid == h->gid;

	for (unsigned i = 0; i < h->group_n; i++)
		in = in || h->groups[i] == gid;
	return in;
}

static bool
can(const struct node *n, unsigned want)
{
	unsigned bits = n->mode & 7;

	if (h->uid == 0)
		return true;
	if (n->uid == h->uid)
		bits = n->mode >> 6 & 7;
	else if (in_group(n->gid))
		bits = n->mode >> 3 & 7;
	return (bits & want) == want;
}

static struct node *
at(ino_id ino)
{
	return ino >= 1 && ino <= made && nodes[ino].there ? &nodes[ino] : NULL;
}

static struct ment *
ent(struct node *d, const char *name)
{
	for (unsigned i = 0; i < d->n; i++)
		if (strcmp(d->ents[i].name, name) == 0)
			return &d->ents[i];
	return NULL;
}

static int
bad_name(const char *name)
{
	if (strlen(name) > 255)
		return -ENAMETOOLONG;
	return *name == '\0' || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0 || strchr(name, '/') != NULL ? -EINVAL : 0;
}

/* A directory one may search. */
static int
dir_at(ino_id ino, struct node **out)
{
	*out = at(ino);
	if (*out == NULL)
		return -ENOENT;
	if (!S_ISDIR((*out)->mode))
		return -ENOTDIR;
	return can(*out, 1) ? 0 : -EACCES;
}

static void
add(struct node *d, const char *name, struct node *to)
{
	ck_assert_uint_lt(d->n, ENTRIES);
	strcpy(d->ents[d->n].name, name);
	d->ents[d->n++].to = to;
	d->mtime = d->ctime = h->wall;
	d->size = d->n;
}

static void
take(struct node *d, const char *name)
{
	struct ment *e = ent(d, name);

	*e = d->ents[--d->n];
	d->mtime = d->ctime = h->wall;
	d->size = d->n;
}

static void
unnamed(struct node *n)
{
	n->ctime = h->wall;
	if (S_ISDIR(n->mode))
		n->nlink = 0;
	else
		n->nlink--;
	if (n->nlink == 0 && !S_ISREG(n->mode))
		n->there = false;
}

static unsigned
stripped(const struct node *n, unsigned mode)
{
	if (S_ISDIR(n->mode))
		return mode;
	mode &= ~(unsigned)S_ISUID;
	if (mode & S_IXGRP)
		mode &= ~(unsigned)S_ISGID;
	else if (h->uid != 0 && !in_group(n->gid))
		mode &= ~(unsigned)S_ISGID;
	return mode;
}

/* ---- the model: operations ---- */

static int
m_free(ino_id dir, const char *name, struct node **d)
{
	int rc = dir_at(dir, d);

	if (rc == 0)
		rc = bad_name(name);
	if (rc != 0)
		return rc;
	if (ent(*d, name) != NULL)
		return -EEXIST;
	return can(*d, 2) ? 0 : -EACCES;
}

static struct node *
m_new(struct node *d, const char *name, unsigned mode)
{
	struct node *n = &nodes[++made];

	ck_assert_uint_lt(made, NODES);
	*n = (struct node){ .ino = made, .there = true, .mode = mode,
		.nlink = S_ISDIR(mode) ? 2 : 1, .uid = h->uid, .gid = h->gid,
		.atime = h->wall, .mtime = h->wall, .ctime = h->wall,
		.btime = h->wall };
	if (d->mode & S_ISGID) {
		n->gid = d->gid;
		if (S_ISDIR(mode))
			n->mode |= S_ISGID;
		else if ((mode & S_ISGID) && (mode & S_IXGRP) && h->uid != 0 &&
		    !in_group(d->gid))
			n->mode &= ~(unsigned)S_ISGID;
	}
	add(d, name, n);
	if (S_ISDIR(mode)) {
		n->parent = d;
		d->nlink++;
	}
	return n;
}

static void
m_truncate(struct node *n, unsigned long long size)
{
	if (n->written && (size < n->size || (h->cmd.flags & FS_UNSETTLED)))
		n->epoch++;
	n->size = size;
	n->mtime = n->ctime = h->wall;
	if (h->uid != 0)
		n->mode = stripped(n, n->mode);
}

static int
m_open(struct node *n, unsigned flags)
{
	static const unsigned wants[] = { 4, 2, 6, 6 };
	unsigned want = wants[flags & O_ACCMODE] | (flags & O_TRUNC ? 2 : 0);

	if (S_ISLNK(n->mode))
		return -ELOOP;
	if (S_ISDIR(n->mode) && (want & 2))
		return -EISDIR;
	if (!can(n, want))
		return -EACCES;
	if (!S_ISREG(n->mode))
		return 0;
	if (flags & O_TRUNC)
		m_truncate(n, 0);
	if (flags & O_ACCMODE)
		n->written = true;
	return 0;
}

static int
m_create(ino_id dir, const char *name, unsigned mode, unsigned flags,
    struct node **out)
{
	struct node *d;
	int rc = m_free(dir, name, &d);

	if (rc == 0) {
		*out = m_new(d, name, S_IFREG | mode);
		(*out)->written = (flags & O_ACCMODE) != 0;
		return 0;
	}
	if (rc != -EEXIST || (flags & O_EXCL))
		return rc;
	*out = ent(d, name)->to;
	if (S_ISDIR((*out)->mode))
		return -EISDIR;
	if (!S_ISREG((*out)->mode))
		return -ESTALE;
	return m_open(*out, flags);
}

static int
m_mknod(ino_id dir, const char *name, unsigned mode, unsigned rdev,
    struct node **out)
{
	struct node *d;
	int rc = m_free(dir, name, &d);

	if (rc != 0)
		return rc;
	if ((S_ISCHR(mode) || S_ISBLK(mode)) && h->uid != 0)
		return -EPERM;
	*out = m_new(d, name, mode);
	if (S_ISCHR(mode) || S_ISBLK(mode))
		(*out)->rdev = rdev;
	return 0;
}

static int
m_link(ino_id ino, ino_id dir, const char *name, struct node **out)
{
	struct node *d;
	int rc;

	if ((*out = at(ino)) == NULL)
		return -ESTALE;
	if ((rc = m_free(dir, name, &d)) != 0)
		return rc;
	if (S_ISDIR((*out)->mode))
		return -EPERM;
	if ((*out)->nlink == 0)
		return -ENOENT;
	(*out)->nlink++;
	(*out)->ctime = h->wall;
	add(d, name, *out);
	return 0;
}

static bool
stuck(const struct node *d, const struct node *n)
{
	return (d->mode & S_ISVTX) && h->uid != 0 && h->uid != n->uid &&
	    h->uid != d->uid;
}

static int
m_remove(ino_id dir, const char *name, bool rmdir, struct node **out)
{
	struct node *d, *n;
	int rc = dir_at(dir, &d);

	if (rc == 0)
		rc = bad_name(name);
	if (rc != 0)
		return rc;
	if (ent(d, name) == NULL)
		return -ENOENT;
	n = ent(d, name)->to;
	if (!can(d, 2))
		return -EACCES;
	if (stuck(d, n))
		return -EPERM;
	if (rmdir != S_ISDIR(n->mode))
		return rmdir ? -ENOTDIR : -EISDIR;
	if (rmdir && n->n > 0)
		return -ENOTEMPTY;
	take(d, name);
	if (rmdir)
		d->nlink--;
	unnamed(n);
	*out = n;
	return 0;
}

static bool
above(const struct node *n, const struct node *d)
{
	for (; d != &nodes[INO_ROOT]; d = d->parent)
		if (d == n)
			return true;
	return d == n;
}

static int
m_rename(ino_id from, const char *name, ino_id to, const char *to_name,
    unsigned flags, struct node **gone)
{
	bool swap = flags & RENAME_EXCHANGE;
	struct node *a, *b, *x, *y = NULL;
	int rc;

	*gone = NULL;
	if (flags > 2)
		return -EINVAL;
	if ((rc = dir_at(from, &a)) != 0 || (rc = dir_at(to, &b)) != 0 ||
	    (rc = bad_name(name)) != 0)
		return rc;
	if (ent(a, name) == NULL)
		return -ENOENT;
	if ((rc = bad_name(to_name)) != 0)
		return rc;
	x = ent(a, name)->to;
	if (ent(b, to_name) != NULL)
		y = ent(b, to_name)->to;
	if (y != NULL && (flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (y == NULL && swap)
		return -ENOENT;
	if (a != b && S_ISDIR(x->mode) && above(x, b))
		return -EINVAL;
	if (a != b && y != NULL && S_ISDIR(y->mode) && above(y, a))
		return swap ? -EINVAL : -ENOTEMPTY;
	if (x == y)
		return 0;
	if (!can(a, 2))
		return -EACCES;
	if (stuck(a, x))
		return -EPERM;
	if (!can(b, 2))
		return -EACCES;
	if (y != NULL && stuck(b, y))
		return -EPERM;
	if (y != NULL && !swap && S_ISDIR(x->mode) != S_ISDIR(y->mode))
		return S_ISDIR(x->mode) ? -ENOTDIR : -EISDIR;
	if (a != b && S_ISDIR(x->mode) && !can(x, 2))
		return -EACCES;
	if (a != b && swap && S_ISDIR(y->mode) && !can(y, 2))
		return -EACCES;
	if (y != NULL && !swap && S_ISDIR(y->mode) && y->n > 0)
		return -ENOTEMPTY;
	take(a, name);
	if (y != NULL)
		take(b, to_name);
	add(b, to_name, x);
	if (S_ISDIR(x->mode)) {
		x->parent = b;
		a->nlink--;
		b->nlink++;
	}
	x->ctime = h->wall;
	if (y != NULL && S_ISDIR(y->mode))
		b->nlink--;
	if (swap) {
		add(a, name, y);
		y->ctime = h->wall;
		if (S_ISDIR(y->mode)) {
			y->parent = a;
			a->nlink++;
		}
	} else if (y != NULL) {
		unnamed(y);
		*gone = y;
	}
	return 0;
}

static int
m_setattr(const struct msg_setattr *q, struct node **out)
{
	struct node *n = *out = at(q->ino);
	unsigned v = q->valid;
	bool root = h->uid == 0, mine;

	if (n == NULL)
		return -ESTALE;
	mine = n->uid == h->uid;
	if ((v & META_SET_SIZE) && S_ISDIR(n->mode))
		return -EISDIR;
	if ((v & META_SET_SIZE) && !S_ISREG(n->mode))
		return -EINVAL;
	if ((v & META_SET_SIZE) && !can(n, 2))
		return -EACCES;
	if ((v & META_SET_UID) && !root && !(mine && q->uid == n->uid))
		return -EPERM;
	if ((v & META_SET_GID) && !root &&
	    !(mine && (q->gid == n->gid || in_group(q->gid))))
		return -EPERM;
	if ((v & META_SET_MODE) && !root && !mine)
		return -EPERM;
	if ((v & META_SET_MODE) && S_ISLNK(n->mode))
		return -EOPNOTSUPP;
	if ((v & (META_SET_ATIME | META_SET_MTIME)) && !root && !mine)
		return -EPERM;
	if ((v & (META_SET_ATIME_NOW | META_SET_MTIME_NOW)) && !root && !mine &&
	    !can(n, 2))
		return -EACCES;
	if (v & META_SET_SIZE)
		m_truncate(n, q->size);
	if (v & (META_SET_UID | META_SET_GID))
		n->mode = stripped(n, n->mode);
	if (v & META_SET_UID)
		n->uid = q->uid;
	if (v & META_SET_GID)
		n->gid = q->gid;
	if (v & META_SET_MODE) {
		n->mode = (n->mode & S_IFMT) | q->mode;
		if (!root && !in_group(n->gid))
			n->mode &= ~(unsigned)S_ISGID;
	}
	if (v & META_SET_ATIME)
		n->atime = q->atime;
	if (v & META_SET_MTIME)
		n->mtime = q->mtime;
	if (v & META_SET_ATIME_NOW)
		n->atime = h->wall;
	if (v & META_SET_MTIME_NOW)
		n->mtime = h->wall;
	if (v != 0)
		n->ctime = h->wall;
	return 0;
}

static int
m_sync(ino_id ino, unsigned long long length, unsigned epoch, long long mtime,
    struct node **out)
{
	struct node *n = *out = at(ino);

	if (n == NULL)
		return -ESTALE;
	if (!S_ISREG(n->mode))
		return -EINVAL;
	if (n->epoch != n->settled || epoch != n->epoch)
		return -EAGAIN;
	n->size = length > n->size ? length : n->size;
	n->mtime = mtime > n->mtime ? mtime : n->mtime;
	n->ctime = h->wall;
	n->written = true;
	if (h->uid != 0)
		n->mode = stripped(n, n->mode);
	return 0;
}

/* ---- both together ---- */

static void
same(const struct node *n, const struct msg_attr *a, unsigned epoch)
{
	ck_assert_uint_eq(a->ino, n->ino);
	ck_assert_uint_eq(a->mode, n->mode);
	ck_assert_uint_eq(a->nlink, n->nlink);
	ck_assert_uint_eq(a->uid, n->uid);
	ck_assert_uint_eq(a->gid, n->gid);
	ck_assert_uint_eq(a->size, n->size);
	ck_assert_uint_eq(a->rdev, n->rdev);
	ck_assert_int_eq(a->atime, n->atime);
	ck_assert_int_eq(a->mtime, n->mtime);
	ck_assert_int_eq(a->ctime, n->ctime);
	ck_assert_int_eq(a->btime, n->btime);
	ck_assert_uint_eq(a->epoch, epoch);
	ck_assert_uint_eq(a->parent, S_ISDIR(n->mode) ? n->parent->ino : 0);
}

static void
same_all(void)
{
	uint32_t uid = h->uid;

	h->uid = 0;
	for (ino_id i = 1; i <= made; i++) {
		struct node *n = &nodes[i];
		struct msg_entry_rep r;

		if (!n->there) {
			ck_assert_int_eq(h_getattr(h, i, &r), -ESTALE);
			continue;
		}
		ck_assert_int_eq(h_getattr(h, i, &r), 0);
		same(n, &r.attr, n->settled);
		for (unsigned e = 0; e < n->n; e++) {
			ck_assert_int_eq(h_lookup(h, i, n->ents[e].name, &r), 0);
			ck_assert_uint_eq(r.attr.ino, n->ents[e].to->ino);
		}
	}
	h->uid = uid;
	h_check(h);
}

static unsigned
dice(unsigned n)
{
	return (unsigned)rand_below(&h->rand, n);
}

static const char *
any_name(void)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g",
		"h", "i", "j" };
	static const char *const bad[] = { "", ".", "..", "a/b" };

	return dice(60) == 0 ? bad[dice(4)] : names[dice(10)];
}

static ino_id
any_ino(bool dir)
{
	if (dice(50) == 0)
		return dice(3) == 0 ? made + 5 : 1 + dice(made);
	for (unsigned tries = 0; tries < 30; tries++) {
		ino_id i = 1 + (made > 60 && dice(4) > 0 ?
		    made - 60 + dice(60) : dice(made));

		if (at(i) != NULL && (!dir || S_ISDIR(nodes[i].mode)))
			return i;
	}
	return INO_ROOT;
}

static void
any_user(void)
{
	static const uint32_t users[][4] = {	/* uid, gid, group, how many */
		{ 0, 0, 0, 0 }, { 1000, 100, 200, 1 }, { 1001, 100, 0, 0 },
		{ 1002, 300, 200, 1 },
	};
	const uint32_t *u = users[dice(4)];

	h_who(h, u[0], u[1]);
	h->groups[0] = u[2];
	h->group_n = u[3];
}

/* One operation on both; what effects ask for is done now or later. */
static void
step(void)
{
	static const uint32_t types[] = { S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR,
		S_IFBLK };
	static const unsigned modes[] = { 0777, 0755, 0644, 0600, 0700, 01777,
		02775, 04755, 06755, 0000, 02644 };
	const char *name = any_name(), *other = any_name();
	ino_id ino = any_ino(false), dir = any_ino(true), to = any_ino(true);
	unsigned mode = modes[dice(11)], flags = dice(4);
	struct msg_entry_rep r = { .ttl_ms = 0 };
	struct msg_unlink_rep u = { 0 };
	struct msg_setattr q = { .ino = ino };
	struct node *n = NULL;
	bool unlinks = false;
	int rc, want;

	any_user();
	h->cmd.flags = FS_LAYOUT | (dice(5) == 0 ? FS_UNSETTLED : 0);
	flags |= dice(4) == 0 ? O_EXCL : 0;
	flags |= dice(4) == 0 ? O_TRUNC : 0;
	switch (dice(13)) {
	case 0:
	case 1:
		rc = h_create(h, dir, name, mode, flags, &r);
		want = m_create(dir, name, mode, flags, &n);
		break;
	case 2:
		rc = h_mkdir(h, dir, name, mode, &r);
		want = m_mknod(dir, name, S_IFDIR | (mode & 01777), 0, &n);
		break;
	case 3:
		mode |= types[dice(5)];
		rc = h_mknod(h, dir, name, mode, 259, &r);
		want = m_mknod(dir, name, mode, 259, &n);
		break;
	case 4:
		rc = h_symlink(h, dir, name, "some/where", &r);
		want = m_mknod(dir, name, S_IFLNK | 0777, 0, &n);
		if (want == 0)
			n->size = 10;
		break;
	case 5:
		rc = h_link(h, ino, dir, name, &r);
		want = m_link(ino, dir, name, &n);
		break;
	case 6:
		unlinks = true;
		rc = h_remove(h, MSG_unlink, dir, name, &u);
		want = m_remove(dir, name, false, &n);
		break;
	case 7:
		unlinks = true;
		rc = h_remove(h, MSG_rmdir, dir, name, &u);
		want = m_remove(dir, name, true, &n);
		break;
	case 8:
	case 9:
		unlinks = true;
		flags = dice(9) < 6 ? 0 : dice(4);
		rc = h_rename(h, dir, name, to, other, flags, &u);
		want = m_rename(dir, name, to, other, flags, &n);
		break;
	case 10:
		q.valid = dice(3) == 0 ? META_SET_SIZE : dice(256);
		q.mode = modes[dice(11)];
		q.uid = 1000 + dice(3);
		q.gid = 100 * (1 + dice(3));
		q.size = dice(3) * 700000;
		q.atime = 5;
		q.mtime = 6;
		rc = h_setattr(h, &q, &r);
		want = m_setattr(&q, &n);
		break;
	case 11:
		flags &= ~(unsigned)O_EXCL;
		h->cmd.flags |= FS_HANDLE;
		rc = h_open_file(h, ino, flags, &r);
		n = at(ino);
		want = n == NULL ? -ESTALE : m_open(n, flags);
		break;
	default:
		n = at(ino);
		flags = n == NULL ? 0 : n->settled - (dice(8) == 0);
		q.size = dice(4) * 600000;
		q.mtime = h->wall - 500 + dice(600);
		rc = h_sync(h, ino, q.size, flags, q.mtime, &r);
		want = m_sync(ino, q.size, flags, q.mtime, &n);
		break;
	}
	ck_assert_msg(rc == want, "seq %llu: got %s, the model says %s",
	    (unsigned long long)h->seq, err_name(rc), err_name(want));
	rcs[-rc]++;
	if (rc != 0)
		return;
	if (unlinks) {
		ck_assert_uint_eq(u.ino, n == NULL ? 0 : n->ino);
		ck_assert_uint_eq(u.nlink, n == NULL ? 0 : n->nlink);
	} else {
		same(n, &r.attr, (h->res.effects & FS_TRUNCATES) != 0 ? n->epoch :
		    n->settled);
	}
}

/* Storage has worked on some file. */
static void
collect(void)
{
	ino_id ino = any_ino(false);
	struct node *n = at(ino);

	if (n == NULL || !S_ISREG(n->mode))
		return;
	if (n->nlink == 0) {
		h_gc_done(h, ino, GC_REMOVE, GC_EPOCH_GONE);
		n->there = false;
	} else if (n->settled != n->epoch) {
		h_gc_done(h, ino, GC_TRUNCATE, n->epoch);
		n->settled = n->epoch;
	}
}

static void
model_start(uint64_t seed)
{
	h_open(h, seed);
	memset(nodes, 0, sizeof(nodes));
	nodes[1] = (struct node){ .ino = 1, .there = true, .mode = S_IFDIR | 0755,
		.nlink = 2, .atime = h->wall, .mtime = h->wall,
		.ctime = h->wall, .btime = h->wall, .parent = &nodes[1] };
	made = 1;
	nodes[1].mode = S_IFDIR | 0777;
	h->uid = h->gid = h->group_n = 0;
	h_setattr(h, &(struct msg_setattr){ .ino = 1, .valid = META_SET_MODE,
	    .mode = 0777 }, NULL);
	nodes[1].ctime = h->wall;
}

START_TEST(like_the_model)
{
	model_start(h_seed() + 100 + (uint64_t)_i);
	for (unsigned i = 0; i < 6000; i++) {
		step();
		if (dice(3) == 0)
			collect();
		if (i % 500 == 0) {
			same_all();
			sim_clock_run(h->world, 1000000);
		}
	}
	same_all();
	h_close(h);
}
END_TEST

/* Every answer the model can give was given, or the test tests nothing. */
START_TEST(all_answers_seen)
{
	static const int want[] = { 0, ENOENT, EEXIST, EACCES, EPERM, EISDIR,
		ENOTDIR, ENOTEMPTY, EINVAL, ELOOP, ESTALE, EAGAIN, EOPNOTSUPP };

	for (unsigned i = 0; i < sizeof(want) / sizeof(*want); i++)
		ck_assert_msg(rcs[want[i]] > 0, "never saw %d", want[i]);
}
END_TEST

/* ---- crashes ---- */

static const uint8_t applied_key[] = { 0, 'a' };
static struct {
	uint8_t *bytes;
	int	 len;
} commands[3000];
static unsigned command_n;
static struct table_commit commits[3000];	/* some never call back */

static void
noted(unsigned index)
{
	ck_assert_int_eq(table_put(h->t, applied_key, sizeof(applied_key), &index,
	    sizeof(index)), 0);
}

static void
committed(struct table_commit *c)
{
	ck_assert_int_eq(c->rc, 0);
}

/* Play the log into a table that is made durable now and then and dies now and then;
 * return what is in it at the end. */
static uint64_t
play(uint64_t seed, unsigned crashes)
{
	unsigned i = 0, died = 0, commit_n = 0;
	uint64_t digest;

	h_open(h, seed);
	while (i < command_n) {
		h->len = commands[i].len;
		memcpy(h->bytes, commands[i].bytes, (size_t)h->len);
		h_apply(h);
		noted(++i);
		if (crashes > 0 && dice(20) == 0) {
			struct table_commit *c = &commits[commit_n++ % 3000];

			table_commit(h->t, c, committed);
			if (dice(2) == 0)
				sim_clock_run(h->world, dice(3000));
		}
		if (died < crashes && dice(command_n / crashes) == 0) {
			const void *v;
			size_t len;

			died++;
			sim_table_crash(h->disk);
			h_umount(h);
			h_mount(h);
			i = 0;
			if (table_get(h->t, applied_key, sizeof(applied_key), &v,
			    &len) == 0)
				memcpy(&i, v, sizeof(i));
			if (i == 0) {	/* not even the root was durable */
				h->len = fs_cmd_init(1000, h->bytes,
				    sizeof(h->bytes));
				h_apply(h);
			}
		}
	}
	h_check(h);
	digest = h_digest(h);
	sim_clock_run(h->world, 1000000);
	h_close(h);
	return digest;
}

START_TEST(replay_gives_the_same)
{
	uint64_t seed = h_seed() + 500 + (uint64_t)_i, want;

	model_start(seed);
	command_n = 0;
	/* The first one made by model_start() is left out: its table is its own. */
	while (command_n < 2000) {
		if (dice(3) == 0)
			collect();
		else
			step();
		commands[command_n].bytes = malloc((size_t)h->len);
		memcpy(commands[command_n].bytes, h->bytes, (size_t)h->len);
		commands[command_n++].len = h->len;
	}
	h_close(h);
	want = play(seed, 0);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(play(seed + i, 20), want);
	while (command_n > 0)
		free(commands[--command_n].bytes);
}
END_TEST

int
main(void)
{
	const char *n = getenv("N");
	int seeds = n != NULL && *n != '\0' ? atoi(n) : 4;
	Suite *s = suite_create("meta_model");
	TCase *t = tcase_create("model");
	SRunner *sr;
	int failed;

	tcase_set_timeout(t, 0);
	tcase_add_loop_test(t, like_the_model, 0, seeds);
	tcase_add_test(t, all_answers_seen);
	tcase_add_loop_test(t, replay_gives_the_same, 0, 2);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
