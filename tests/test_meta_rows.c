/* SPDX-License-Identifier: MIT */
/* test_meta_rows.c - the file-system state machine as bytes: commands of others and of later, golden rows, rows
 * that do not fit together. */
#include "tests/meta_harness.h"

#include "meta/dirent.h"
#include "meta/once.h"
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

static void
close_only(void)
{
	h_close(h);
}

START_TEST(root)
{
	struct msg_entry_rep r;

	ck_assert_int_eq(h_getattr(h, INO_ROOT, &r), 0);
	ck_assert_uint_eq(r.attr.mode, S_IFDIR | 0755);
	ck_assert_uint_eq(r.attr.nlink, 2);
	ck_assert_int_eq(h_lookup(h, INO_ROOT, "..", &r), 0);
	ck_assert_uint_eq(r.attr.ino, INO_ROOT);
	ck_assert_int_eq(h_getattr(h, 99, &r), -ESTALE);
	ck_assert_int_eq(h_lookup(h, INO_ROOT, "x", &r), -ENOENT);
}
END_TEST

START_TEST(init_twice_changes_nothing)
{
	uint64_t before;

	h_create(h, INO_ROOT, "a", 0644, O_RDWR, NULL);
	before = h_digest(h);
	h->len = fs_cmd_init(h->wall + 5, h->bytes, sizeof(h->bytes));
	h_apply(h);
	ck_assert_uint_eq(h_digest(h), before);
}
END_TEST

static unsigned
once_rows(void)
{
	uint8_t key[KEY_ONCE_LEN] = { KEY_ONCE };
	const void *k, *v;
	size_t n = 1, k_len, v_len;
	unsigned rows = 0;

	while (table_seek(h->t, key, n, n > 1, 1, &k, &k_len, &v, &v_len) == 0) {
		memcpy(key, k, k_len);
		n = k_len;
		rows++;
	}
	return rows;
}

START_TEST(records_are_dropped)
{
	struct uid128 client = { { 7 } }, found;
	bool more;

	for (unsigned i = 0; i < 500; i++) {
		h_mkdir(h, INO_ROOT, "d", 0755, NULL);
		ck_assert_uint_le(once_rows(), 2 * ONCE_DROP_LAG + 2);
	}
	h->seq = 3;		/* a copy that was long on its way */
	ck_assert_int_eq(h_mkdir(h, INO_ROOT, "e", 0755, NULL), -ECANCELED);
	ck_assert_int_eq(once_next_client(h->t, NULL, &found), 0);
	ck_assert(uid128_eq(&found, &client));
	ck_assert_int_eq(once_next_client(h->t, &found, &found), -ENOENT);
	h->len = fs_cmd_client_end(&client, h->bytes, sizeof(h->bytes));
	h_apply(h);
	ck_assert_uint_eq(h->res.effects, 0);
	ck_assert_uint_eq(once_rows(), 0);
	/* Numbers may have holes and begin anywhere. */
	h->seq = 1ull << 40;
	for (unsigned i = 0; i < 100; i++, h->seq += 7)
		h_mkdir(h, INO_ROOT, "d", 0755, NULL);
	ck_assert_uint_le(once_rows(), 2 * ONCE_DROP_LAG + 2);
	ck_assert_int_eq(once_drop(h->t, &client, 1, &more), 0);
	ck_assert(more);
}
END_TEST

/* Entries that share a hash (made by hand: keys do not say how they were computed). */
START_TEST(same_hash)
{
	struct msg_str want = msg_str("want"), n;
	uint64_t hash = key_hash(want.p, want.n);
	uint8_t k[KEY_LEN_MAX], row[DIRENT_ROW_LEN] = { 1, S_IFREG >> 12, 5 };
	struct msg_readdir q = { .max_bytes = 10, .ino = INO_ROOT };
	struct msg_readdir_rep rep = { 0 };
	struct entry e;
	char name[8];

	ck_assert_int_eq(dirent_room(h->t, INO_ROOT, &want, &e), -ENOENT);
	for (unsigned i = 0; i < DIRENT_SAME_MAX; i++) {
		snprintf(name, sizeof(name), "a%02u", i);
		ck_assert_int_eq(table_put(h->t, k, key_dirent(k, INO_ROOT, hash,
		    name, 3), row, sizeof(row)), 0);
	}
	ck_assert_int_eq(dirent_room(h->t, INO_ROOT, &want, &e), -ENOSPC);
	ck_assert_int_eq(dirent_put(h->t, INO_ROOT, &want, 6, S_IFREG), 0);
	ck_assert_int_eq(dirent_room(h->t, INO_ROOT, &want, &e), 0);
	ck_assert_uint_eq(e.ino, 6);
	/* One page, though there is no room for two of them. */
	q.ctx = h_ctx(h, false);
	ck_assert_int_eq(fs_readdir(h->fs, &q, &rep), 0);
	ck_assert_uint_eq(rep.entries.n, DIRENT_SAME_MAX + 1);
	ck_assert(rep.eof);
	for (unsigned i = 0; i < DIRENT_SAME_MAX; i++) {
		snprintf(name, sizeof(name), "a%02u", i);
		table_del(h->t, k, key_dirent(k, INO_ROOT, hash, name, 3));
	}
	n = want;
	dirent_del(h->t, INO_ROOT, &n);
}
END_TEST

/* Commands that are cut short change nothing, and do not stop us. */
START_TEST(foreign_commands)
{
	struct msg_mknod q = { h_ctx(h, true), INO_ROOT, msg_str("d"), 0755, 0 };
	uint64_t before = h_digest(h);
	uint8_t good[512];
	int n;

	h->cmd.method = MSG_mkdir;
	n = fs_cmd_message(&h->cmd, &q, good, sizeof(good));
	ck_assert_int_gt(n, 0);
	for (int len = 0; len < n; len++) {
		memcpy(h->bytes, good, (size_t)len);
		h->result_len = fs_apply(h->fs, h->bytes, (size_t)len, h->result,
		    sizeof(h->result));
		ck_assert_int_eq(fs_failed(h->fs), 0);
		ck_assert_uint_eq(h_digest(h), before);
	}
	ck_assert_uint_eq(h_digest(h), before);
}
END_TEST

/* A leader of a later release has made them, and does what they say: who cannot must not go
 * on as if they said nothing. */
static const struct {
	const char *what;
	unsigned    at;
	uint8_t	    value;
} newer[] = {
	{ "another format",	 0, 2 },
	{ "another kind",	 1, 99 },
	{ "a method that changed nothing", 2, 0x01 },
	{ "another flag",	 4, 0x80 },
};

START_TEST(newer_commands)
{
	struct msg_mknod q = { h_ctx(h, true), INO_ROOT, msg_str("d"), 0755, 0 };
	uint64_t before = h_digest(h);

	h->cmd.method = MSG_mkdir;
	h->len = fs_cmd_message(&h->cmd, &q, h->bytes, sizeof(h->bytes));
	ck_assert_int_gt(h->len, 0);
	h->bytes[newer[_i].at] = newer[_i].value;
	ck_assert_uint_eq(fs_apply(h->fs, h->bytes, (size_t)h->len, h->result,
	    sizeof(h->result)), 0);
	ck_assert_msg(fs_failed(h->fs) == ERR_DISK_NEWER, "%s", newer[_i].what);
	ck_assert_uint_eq(h_digest(h), before);
	fs_close(h->fs);
	ck_assert_int_eq(fs_open(&h->fs, h->t, NULL), 0);
}
END_TEST

START_TEST(holder)
{
	struct uid128 who = { { 1, 2, 3 } }, got;
	uint32_t ttl;

	ck_assert_int_eq(fs_holder(h->fs, &got, &ttl), 0);
	ck_assert(uid128_zero(&got));
	h->len = fs_cmd_holder(&who, 250, h->bytes, sizeof(h->bytes));
	h_apply(h);
	ck_assert_int_eq(fs_holder(h->fs, &got, &ttl), 0);
	ck_assert(uid128_eq(&got, &who));
	ck_assert_uint_eq(ttl, 250);
}
END_TEST

/* Bytes that must never change: they are on disks. */
START_TEST(golden)
{
	static const uint8_t want[INODE_ROW_LEN] = {
		1, 1, 20, 0,	0xa4, 0x81, 0, 0,	2, 0, 0, 0,
		0xe8, 3, 0, 0,	0xe9, 3, 0, 0,		3, 0, 0, 0,
		2, 0, 0, 0,	1, 0, 0, 0,		4, 0, 0, 0,
		8, 0, 0, 0,
		5, 0, 0, 0, 0, 0, 0, 0,		6, 0, 0, 0, 0, 0, 0, 0,
		7, 0, 0, 0, 0, 0, 0, 0,		8, 0, 0, 0, 0, 0, 0, 0,
		9, 0, 0, 0, 0, 0, 0, 0,		10, 0, 0, 0, 0, 0, 0, 0,
		11, 0, 0, 0, 0, 0, 0, 0,	12, 0, 0, 0, 0, 0, 0, 0,
		13, 0, 0, 0, 0, 0, 0, 0,
	};
	static const struct inode in = {
		.ino = 5, .flags = INODE_WRITTEN, .chunk_shift = 20,
		.mode = S_IFREG | 0644, .nlink = 2, .uid = 1000, .gid = 1001,
		.epoch = 3, .settled = 2, .table = 1, .table_version = 4,
		.stripe = 8, .seed = 5, .rdev = 6, .size = 7, .atime = 8,
		.mtime = 9, .ctime = 10, .btime = 11, .change = 12, .parent = 13,
	};
	static const uint8_t key[] = { 'D', 0, 0, 0, 0, 0, 0, 0, 1,
		0x61, 0x05, 0xbe, 0xa1, 0x50, 0x6c, 0xbc, 0x23, 'a' };
	uint8_t row[INODE_ROW_LEN], k[KEY_LEN_MAX];
	struct inode back;

	inode_encode(&in, row);
	ck_assert_mem_eq(row, want, sizeof(want));
	ck_assert_int_eq(inode_decode(&back, 5, row, sizeof(row)), 0);
	memset(row, 0, sizeof(row));
	inode_encode(&back, row);
	ck_assert_mem_eq(row, want, sizeof(want));
	ck_assert_int_eq(inode_decode(&back, 5, row, sizeof(row) - 1),
	    ERR_LOG_DAMAGED);
	row[0] = 2;
	ck_assert_int_eq(inode_decode(&back, 5, row, sizeof(row)),
	    ERR_LOG_DAMAGED);
	ck_assert_uint_eq(key_dirent(k, 1, key_hash("a", 1), "a", 1),
	    sizeof(key));
	ck_assert_mem_eq(k, key, sizeof(key));
}
END_TEST

/* Every kind of row, and a command of each kind, as the first release wrote them:
 * tests/golden/meta_rows.1.  ACCEPT=1 writes the file anew; that is only right before
 * anybody has data in the old form. */
static void
say(FILE *f, const char *what, const void *p, size_t n)
{
	fprintf(f, "%s ", what);
	for (size_t i = 0; i < n; i++)
		fprintf(f, "%02x", ((const uint8_t *)p)[i]);
	fprintf(f, "\n");
}

START_TEST(golden_rows)
{
	static const char path[] = "tests/golden/meta_rows.1";
	struct gc_row rows[2] = { { .ino = 2, .kind = GC_REMOVE,
		.epoch = GC_EPOCH_GONE }, { .ino = 3, .kind = GC_TRUNCATE,
		.epoch = 1 } };
	struct uid128 client = { { 7, 8 } };
	uint8_t key[TABLE_KEY_MAX] = { 1 };
	size_t n = 1, k_len, v_len, text_len, had_len = 0;
	char *text, had[16384];
	const char *accept = getenv("ACCEPT");
	const void *k, *v;
	struct msg_entry_rep r;
	bool after = false;
	FILE *f = open_memstream(&text, &text_len);

	h_create(h, INO_ROOT, "file", 0644, O_RDWR, &r);
	say(f, "message", h->bytes, (size_t)h->len);
	h_sync(h, r.attr.ino, 5000000, 0, 77, NULL);
	h_truncate(h, r.attr.ino, 1234567, NULL);
	h_mkdir(h, INO_ROOT, "dir", 0755, NULL);
	h_symlink(h, INO_ROOT, "link", "target", NULL);
	h_create(h, INO_ROOT, "gone", 0600, O_RDWR, NULL);
	h_remove(h, MSG_unlink, INO_ROOT, "gone", NULL);
	say(f, "result", h->result, h->result_len);
	for (unsigned i = 0; i < 10; i++)
		h_remove(h, MSG_unlink, INO_ROOT, "none", NULL);
	say(f, "init", key, (size_t)fs_cmd_init(5, key, sizeof(key)));
	say(f, "gc_done", key, (size_t)fs_cmd_gc_done(5, rows, 2, key,
	    sizeof(key)));
	say(f, "client_end", key, (size_t)fs_cmd_client_end(&client, key,
	    sizeof(key)));
	h->len = fs_cmd_holder(&client, 1000, h->bytes, sizeof(h->bytes));
	say(f, "holder", h->bytes, (size_t)h->len);
	h_apply(h);
	key[0] = 1;
	while (table_seek(h->t, key, n, after, 0, &k, &k_len, &v, &v_len) == 0) {
		say(f, "key", k, k_len);
		say(f, "row", v, v_len);
		memcpy(key, k, k_len);
		n = k_len;
		after = true;
	}
	fclose(f);
	if (accept != NULL && *accept != '\0') {
		f = fopen(path, "w");
		ck_assert_ptr_nonnull(f);
		fwrite(text, 1, text_len, f);
		fclose(f);
	}
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	had_len = fread(had, 1, sizeof(had) - 1, f);
	fclose(f);
	had[had_len] = '\0';
	ck_assert_str_eq(text, had);
	free(text);
}
END_TEST

/* The checker sees what it is there for. */
static const struct {
	const char *what;
	char	    number;
} faults[] = {
	{ "counter", '1' }, { "entry to nothing", '2' }, { "nlink", '3' },
	{ "directory size", '3' }, { "no name", '4' }, { "cycle", '5' },
	{ "symlink target", '6' }, { "gc row gone", '7' }, { "hash", '2' },
};

START_TEST(tree_faults)
{
	struct msg_entry_rep f, d, e, l, gone;
	uint8_t k[KEY_LEN_MAX], row[DIRENT_ROW_LEN] = { 1, S_IFREG >> 12, 99 };
	struct inode in;
	char why[256];
	int rc;

	h_create(h, INO_ROOT, "f", 0644, O_RDWR, &f);
	h_mkdir(h, INO_ROOT, "d", 0755, &d);
	h_mkdir(h, d.attr.ino, "e", 0755, &e);
	h_symlink(h, INO_ROOT, "l", "target", &l);
	h_create(h, INO_ROOT, "gone", 0644, O_RDWR, &gone);
	h_remove(h, MSG_unlink, INO_ROOT, "gone", NULL);
	h_check(h);
	fs_inode(h->fs, f.attr.ino, &in);
	switch (_i) {
	case 0:
		in.ino = 1000;
		inode_put(h->t, &in);
		break;
	case 1:
		table_put(h->t, k, key_dirent(k, INO_ROOT, key_hash("x", 1), "x", 1),
		    row, sizeof(row));
		break;
	case 2:
		in.nlink = 2;
		inode_put(h->t, &in);
		break;
	case 3:
		fs_inode(h->fs, d.attr.ino, &in);
		in.size++;
		inode_put(h->t, &in);
		break;
	case 4:
		table_del(h->t, k, key_dirent(k, INO_ROOT, key_hash("f", 1), "f", 1));
		in.nlink = 0;
		inode_put(h->t, &in);
		fs_inode(h->fs, INO_ROOT, &in);
		in.size--;
		inode_put(h->t, &in);
		break;
	case 5:	/* d and e in each other */
		table_del(h->t, k, key_dirent(k, INO_ROOT, key_hash("d", 1), "d", 1));
		dirent_put(h->t, e.attr.ino, &(struct msg_str){ "d", 1 }, d.attr.ino,
		    S_IFDIR);
		fs_inode(h->fs, INO_ROOT, &in);
		in.size--;
		in.nlink--;
		inode_put(h->t, &in);
		fs_inode(h->fs, e.attr.ino, &in);
		in.size++;
		in.nlink++;
		inode_put(h->t, &in);
		fs_inode(h->fs, d.attr.ino, &in);
		in.parent = e.attr.ino;
		inode_put(h->t, &in);
		break;
	case 6:
		table_del(h->t, k, key_ino(k, KEY_SYMLINK, l.attr.ino));
		break;
	case 7:
		in.epoch++;
		inode_put(h->t, &in);
		break;
	case 8:
		table_put(h->t, k, key_dirent(k, INO_ROOT, 55, "x", 1), row,
		    sizeof(row));
		row[2] = (uint8_t)f.attr.ino;
		table_put(h->t, k, key_dirent(k, INO_ROOT, 55, "x", 1), row,
		    sizeof(row));
		break;
	}
	rc = tree_check(h->t, why, sizeof(why));
	ck_assert_msg(rc == -EUCLEAN && why[0] == faults[_i].number, "%s: %d %s",
	    faults[_i].what, rc, why);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("rules"), *f = tcase_create("faults");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, root);
	tcase_add_test(t, init_twice_changes_nothing);
	tcase_add_test(t, records_are_dropped);
	tcase_add_test(t, same_hash);
	tcase_add_test(t, foreign_commands);
	tcase_add_loop_test(t, newer_commands, 0, sizeof(newer) / sizeof(newer[0]));
	tcase_add_test(t, holder);
	tcase_add_test(t, golden);
	tcase_add_test(t, golden_rows);
	tcase_add_checked_fixture(f, setup, close_only);
	tcase_add_loop_test(f, tree_faults, 0,
	    (int)(sizeof(faults) / sizeof(*faults)));
	return suite_run_all("meta_rows", t, f, NULL);
}
