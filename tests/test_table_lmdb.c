/* SPDX-License-Identifier: MIT */
/* test_table_lmdb.c - the real store: order, bounds, damage, kill -9. */
#include "conf/table_lmdb.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conf/bytes.h"
#include "conf/err.h"
#include "conf/rand.h"
#include "net/loop.h"

#define MIB	(1u << 20)

static char dir[64], path[96];
static struct loop *loop;
static struct table *table;

static void
setup(void)
{
	strcpy(dir, "/tmp/fsd-test-table-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/t", dir);
	ck_assert_int_eq(loop_open(&loop), 0);
}

static void
teardown(void)
{
	char name[128];

	table_close(table);
	table = NULL;
	loop_close(loop);
	unlink(path);
	snprintf(name, sizeof(name), "%s-lock", path);
	unlink(name);
	ck_assert_int_eq(rmdir(dir), 0);	/* nothing else is left there */
}

static int
open_table(uint64_t max_bytes)
{
	struct table_store *store;
	int rc = table_lmdb_open(&store, path, max_bytes);

	return rc != 0 ? rc : table_open(&table, store, loop_clock(loop));
}

struct wait {
	struct table_commit commit;
	unsigned called;
};

static void
called(struct table_commit *c)
{
	((struct wait *)(void *)c)->called++;
}

/* Check writes of what holds, too: a child that is killed at any moment would leave half of
 * that in the file that both have.  This one writes only of what does not. */
#define MUST(x)	do { if (!(x)) ck_abort_msg("%s", #x); } while (0)

static int
commit(void)
{
	struct wait w = { 0 };

	table_commit(table, &w.commit, called);
	MUST(w.called == 0);
	while (w.called == 0)
		loop_turn(loop, true);
	return w.commit.rc;
}

static void
put_number(uint32_t k, uint32_t v, size_t len)
{
	static uint8_t value[TABLE_VALUE_MAX];
	uint8_t key[4];

	bytes_be32(key, k);
	bytes_be32(value, v);
	memset(value + 4, (int)(v & 255), len - 4);
	MUST(table_put(table, key, 4, value, len) == 0);
}

static int64_t
number(uint32_t k)
{
	const void *v;
	uint8_t key[4];
	size_t n;

	bytes_be32(key, k);
	if (table_get(table, key, 4, &v, &n) != 0)
		return -1;
	for (size_t i = 4; i < n; i++)
		if (((const uint8_t *)v)[i] != ((const uint8_t *)v)[3])
			ck_abort_msg("torn value of %u", k);
	return bytes_from_be32(v);
}

/* A file that is cut behind our back is as a device that fails: its pages cannot be read.
 * That is an error, for whoever comes across it first, and not the end. */
static const struct {
	const char *what;
	bool punch, write_first;
	long keep;		/* pages */
} cuts[] = {
	{ "cut to its meta pages, then read",	false, false, 2 },
	{ "cut to its meta pages, then written", false, true, 2 },
	{ "cut in the middle, then read",	false, false, 100 },
	{ "cut in the middle, then written",	false, true, 100 },
	{ "zeros in the middle, then read",	true, false, 20 },
	{ "zeros in the middle, then written",	true, true, 20 },
};

START_TEST(cut_while_open)
{
	long page = sysconf(_SC_PAGESIZE);
	unsigned errors = 0;
	uint8_t key[4];
	const void *k, *v;
	size_t kn, vn;
	struct stat st;

	setup();
	ck_assert_int_eq(open_table(64 * MIB), 0);
	for (uint32_t i = 0; i < 3000; i++)
		put_number(i, i, 4 + i % 3000);
	ck_assert_int_eq(commit(), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_gt(st.st_size, 400 * page);
	if (cuts[_i].punch) {
		int fd = open(path, O_RDWR);

		ck_assert_int_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE |
		    FALLOC_FL_KEEP_SIZE, cuts[_i].keep * page,
		    st.st_size - cuts[_i].keep * page), 0);
		close(fd);
	} else
		ck_assert_int_eq(truncate(path, cuts[_i].keep * page), 0);
	if (cuts[_i].write_first) {
		for (uint32_t i = 0; i < 3000; i += 7)
			put_number(i, i, 500);
		if (commit() != 0) {
			errors++;
			ck_assert_int_ne(commit(), 0);
		}
	}
	for (uint32_t i = 0; i < 3000; i++) {
		int rc;

		bytes_be32(key, i);
		rc = table_get(table, key, 4, &v, &vn);
		ck_assert(rc == 0 || rc == -EIO || (cuts[_i].punch && rc == -ENOENT));
		errors += rc == -EIO;
		rc = table_seek(table, key, 4, true, 0, &k, &kn, &v, &vn);
		ck_assert(rc == 0 || rc == -EIO || rc == -ENOENT);
	}
	ck_assert_msg(errors > 0, "%s", cuts[_i].what);
	if (!cuts[_i].write_first) {
		put_number(1, 1, 500);
		(void)commit();
	}
	teardown();
}
END_TEST

START_TEST(keeps)
{
	const void *k, *v;
	size_t kn, vn;

	setup();
	ck_assert_int_eq(open_table(16 * MIB), 0);
	ck_assert_int_eq(number(1), -1);
	for (uint32_t i = 0; i < 1000; i++)
		put_number(i * 2, i, 4 + i * 7);	/* small and large values */
	ck_assert_int_eq(number(10), 5);
	ck_assert_int_eq(commit(), 0);
	ck_assert_uint_eq(table_dirty_bytes(table), 0);
	ck_assert_int_eq(number(10), 5);
	ck_assert_int_eq(table_del(table, "\0\0\0\12", 4), 0);
	ck_assert_int_eq(table_del(table, "nothing", 7), 0);
	ck_assert_int_eq(commit(), 0);
	put_number(3, 3, 4);				/* never committed */
	table_close(table);
	ck_assert_int_eq(open_table(16 * MIB), 0);
	ck_assert_int_eq(number(10), -1);
	ck_assert_int_eq(number(3), -1);
	ck_assert_int_eq(number(1998), 999);
	/* A walk, and a jump back in the middle of it. */
	ck_assert_int_eq(table_seek(table, "\0", 1, false, 1, &k, &kn, &v, &vn), 0);
	for (unsigned n = 1; n < 999; n++) {
		uint8_t key[4];

		memcpy(key, k, 4);
		ck_assert_int_eq(table_seek(table, key, 4, true, 1, &k, &kn, &v,
		    &vn), 0);
		if (memcmp(key, k, 4) >= 0)
			ck_abort_msg("walk does not rise");
		if (n == 500)
			ck_assert_int_eq(number(20), 10);
	}
	ck_assert_uint_eq(bytes_from_be32(k), 1998);
	ck_assert_int_eq(table_seek(table, "\0\0\7\316", 4, true, 0, &k, &kn, &v,
	    &vn), -ENOENT);
	ck_assert_int_eq(table_seek(table, "\0\0\0\11", 4, true, 0, &k, &kn, &v,
	    &vn), 0);
	ck_assert_uint_eq(bytes_from_be32(k), 12);
	teardown();
}
END_TEST

START_TEST(one_owner)
{
	struct table_store *second;

	setup();
	ck_assert_int_eq(open_table(MIB), 0);
	ck_assert_int_eq(table_lmdb_open(&second, path, MIB), -EBUSY);
	put_number(1, 1, 4);
	ck_assert_int_eq(commit(), 0);
	teardown();
}
END_TEST

/* Over its bound a batch fails as a whole; after a restart the rest is there. */
START_TEST(full)
{
	uint32_t n = 0;
	int rc;

	setup();
	ck_assert_int_eq(open_table(MIB), 0);
	do {
		for (unsigned i = 0; i < 10; i++)
			put_number(n * 10 + i, n, 10000);
		rc = commit();
	} while (rc == 0 && ++n < 100);
	ck_assert_int_eq(rc, -ENOSPC);
	ck_assert_uint_gt(n, 1);
	ck_assert_int_eq(commit(), -ENOSPC);		/* broken stays */
	table_close(table);
	ck_assert_int_eq(open_table(MIB), 0);
	ck_assert_int_eq(number(n * 10), -1);
	ck_assert_int_eq(number(n * 10 - 1), n - 1);
	ck_assert_int_eq(table_del(table, "\0\0\0\1", 4), 0);
	ck_assert_int_eq(commit(), 0);			/* room again */
	teardown();
}
END_TEST

/* Closing while a batch is in flight: it is written, and nobody is called. */
START_TEST(close_in_flight)
{
	struct wait w[2] = { 0 };

	setup();
	ck_assert_int_eq(open_table(MIB), 0);
	put_number(1, 7, 4);
	table_commit(table, &w[0].commit, called);
	put_number(2, 7, 4);
	table_commit(table, &w[1].commit, called);
	table_close(table);
	table = NULL;
	loop_turn(loop, false);
	loop_turn(loop, false);
	ck_assert_uint_eq(w[0].called + w[1].called, 0);
	ck_assert_int_eq(open_table(MIB), 0);
	ck_assert_int_eq(number(1), 7);
	ck_assert_int_eq(number(2), -1);
	teardown();
}
END_TEST

enum damage { CUT_ALL, CUT_META, CUT_TAIL, BAD_MAGIC, ZEROS, NEWER };

static atomic_bool hangs, was_let_go;
static sem_t hanging, let_go;

/* In place of the library's: a device that does not answer. */
int
fdatasync(int fd)
{
	bool mine = atomic_load(&hangs);
	int rc;

	if (mine) {
		sem_post(&hanging);
		sem_wait(&let_go);
	}
	rc = (int)syscall(SYS_fdatasync, fd);
	if (mine)
		atomic_store(&was_let_go, true);
	return rc;
}

/* Closing does not wait for it for ever; what it had stays where it is, and nothing happens when
 * it answers after all. */
START_TEST(never_answers)
{
	static struct table *left;	/* so that it is not taken for a leak */
	struct wait w = { 0 };

	sem_init(&hanging, 0, 0);
	sem_init(&let_go, 0, 0);
	setup();
	ck_assert_int_eq(open_table(MIB), 0);
	ck_assert_int_eq(table_put(table, "a", 1, "b", 1), 0);
	ck_assert_int_eq(commit(), 0);
	atomic_store(&hangs, true);
	ck_assert_int_eq(table_put(table, "a", 1, "c", 1), 0);
	table_commit(table, &w.commit, called);
	while (sem_trywait(&hanging) != 0)
		loop_turn(loop, false);
	atomic_store(&hangs, false);
	left = table;
	ck_assert(!table_close(table));
	ck_assert_ptr_nonnull(left);
	table = NULL;
	ck_assert(!atomic_load(&was_let_go));
	sem_post(&let_go);
	while (!atomic_load(&was_let_go))
		sched_yield();
	ck_assert_uint_eq(w.called, 0);
	teardown();
}
END_TEST

START_TEST(damaged)
{
	static const struct {
		const char *what;
		enum damage how;
		int rc;
	} rows[] = {
		{ "empty file",	      CUT_ALL,	 ERR_DISK_DAMAGED },
		{ "half a meta page", CUT_META,	 ERR_DISK_DAMAGED },
		{ "tail is missing",  CUT_TAIL,	 ERR_DISK_DAMAGED },
		{ "another magic",    BAD_MAGIC, ERR_DISK_DAMAGED },
		{ "zeros",	      ZEROS,	 ERR_DISK_DAMAGED },
		{ "newer format",     NEWER,	 ERR_DISK_NEWER },
	};
	static const char zero[8192];
	uint32_t x = 0x12345678;
	struct stat st;
	int fd, rc;

	setup();
	ck_assert_int_eq(open_table(16 * MIB), 0);
	for (uint32_t i = 0; i < 300; i++)
		put_number(i, i, 4 + i * 20);
	ck_assert_int_eq(commit(), 0);
	table_close(table);
	table = NULL;
	fd = open(path, O_RDWR);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	switch (rows[_i].how) {
	case CUT_ALL:
		ck_assert_int_eq(ftruncate(fd, 0), 0);
		break;
	case CUT_META:
		ck_assert_int_eq(ftruncate(fd, 6000), 0);
		break;
	case CUT_TAIL:
		ck_assert_int_eq(ftruncate(fd, st.st_size - 4 * 4096), 0);
		break;
	case BAD_MAGIC:
		for (int i = 0; i < 2; i++)
			ck_assert_int_eq(pwrite(fd, &x, 4, i * 4096 + 16), 4);
		break;
	case ZEROS:
		ck_assert_int_eq(pwrite(fd, zero, 8192, 0), 8192);
		break;
	case NEWER:
		x = 99;
		for (int i = 0; i < 2; i++)
			ck_assert_int_eq(pwrite(fd, &x, 4, i * 4096 + 20), 4);
		break;
	}
	close(fd);
	for (unsigned tries = 0; tries < 3; tries++) {	/* looking heals nothing */
		rc = open_table(16 * MIB);
		ck_assert_msg(rc == rows[_i].rc, "%s: %d", rows[_i].what, rc);
	}
	teardown();
}
END_TEST

/* Big batches that come and go leave a file that opens, whatever LMDB thinks of its own
 * length. */
START_TEST(grows_and_shrinks)
{
	struct rand r;

	setup();
	rand_seed(&r, (uint64_t)_i);
	ck_assert_int_eq(open_table(64 * MIB), 0);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 200; i++) {
			uint32_t k = (uint32_t)rand_below(&r, 400);
			uint8_t key[4];

			bytes_be32(key, k);
			if (round % 2 == 0)
				put_number(k, k, 4 + rand_below(&r, 9000));
			else
				ck_assert_int_eq(table_del(table, key, 4), 0);
		}
		ck_assert_int_eq(commit(), 0);
		if (round % 3 != 0)
			continue;
		table_close(table);
		ck_assert_int_eq(open_table(64 * MIB), 0);
	}
	for (uint32_t k = 0; k < 400; k++)
		ck_assert(number(k) == -1 || number(k) == k);
	teardown();
}
END_TEST

/* The child writes batch n = {all keys := n} and says n when it is durable; it is killed
 * at any moment. What is found is one whole batch, not older than the last one said. */
static void
child(int out)
{
	struct loop *l;

	if (loop_open(&l) != 0)
		_exit(1);
	loop = l;
	if (open_table(16 * MIB) != 0)
		_exit(1);
	for (uint32_t n = 1;; n++) {
		for (uint32_t k = 0; k < 50; k++)
			put_number(k, n, 4 + (n * 131 + k * 977) % 3000);
		if (commit() != 0 || write(out, &n, sizeof(n)) != sizeof(n))
			_exit(1);
	}
}

/* How many keys an image has, each with the value @v. */
static int
image_count(struct table_image *m, uint32_t v, unsigned *n)
{
	const void *key, *value;
	uint8_t at[TABLE_KEY_MAX] = { 0 };
	size_t key_len, len, at_len = 1;
	int rc;

	for (*n = 0; (rc = table_image_seek(m, at, at_len, true, &key, &key_len,
	    &value, &len)) == 0; (*n)++) {
		ck_assert_uint_eq(bytes_from_be32(value), v);
		memcpy(at, key, key_len);
		at_len = key_len;
	}
	return rc;
}

START_TEST(images)
{
	struct table_image *m, *late;
	unsigned n;

	setup();
	ck_assert_int_eq(open_table(64 * MIB), 0);
	for (uint32_t k = 0; k < 1000; k++)
		put_number(k, 7, 100);
	ck_assert_int_eq(commit(), 0);
	ck_assert_int_eq(table_image_open(table, 16 * MIB, &m), 0);
	for (uint32_t k = 500; k < 1500; k++)
		put_number(k, 8, 100);
	ck_assert_int_eq(commit(), 0);
	ck_assert_int_eq(image_count(m, 7, &n), -ENOENT);
	ck_assert_uint_eq(n, 1000);
	ck_assert_int_eq(number(500), 8);
	/* one that costs too much goes stale, others do not */
	ck_assert_int_eq(table_image_open(table, 1 * MIB, &late), 0);
	for (uint32_t k = 0; k < 1500; k++)
		put_number(k, 9, 100);
	ck_assert_int_eq(commit(), 0);
	ck_assert_int_eq(image_count(late, 9, &n), -ESTALE);
	ck_assert_int_eq(image_count(m, 7, &n), -ENOENT);
	ck_assert_uint_eq(n, 1000);
	table_image_close(late);
	table_image_close(m);
	ck_assert_uint_gt(table_used_bytes(table), 1500 * 100);
	teardown();
}
END_TEST

START_TEST(cleared)
{
	struct wait w = { 0 };

	setup();
	ck_assert_int_eq(open_table(64 * MIB), 0);
	for (uint32_t k = 0; k < 1000; k++)
		put_number(k, 7, 100);
	ck_assert_int_eq(commit(), 0);
	if (_i == 1) {			/* a batch before it is on its way */
		put_number(2000, 7, 100);
		table_commit(table, &w.commit, called);
	}
	put_number(3000, 7, 100);
	table_clear(table);
	ck_assert_int_eq(number(1), -1);
	ck_assert_int_eq(number(2000), -1);
	ck_assert_int_eq(number(3000), -1);
	put_number(5, 8, 100);
	ck_assert_int_eq(number(5), 8);
	ck_assert_int_eq(commit(), 0);
	put_number(6, 8, 100);
	for (int again = 0; again < 2; again++) {
		ck_assert_int_eq(number(1), -1);
		ck_assert_int_eq(number(2000), -1);
		ck_assert_int_eq(number(5), 8);
		if (again == 0) {
			ck_assert_int_eq(number(6), 8);
			table_close(table);
			table = NULL;
			ck_assert_int_eq(open_table(64 * MIB), 0);
			ck_assert_int_eq(number(6), -1);
		}
	}
	ck_assert_uint_lt(table_used_bytes(table), 100 * 1000);
	teardown();
}
END_TEST

START_TEST(killed)
{
	uint32_t n, last = 0;
	struct rand r;
	int64_t first;
	int fds[2], status;
	pid_t pid;

	setup();
	rand_seed(&r, (uint64_t)_i + 1);
	for (unsigned round = 0; round < 3; round++) {
		uint64_t stop = 1 + rand_below(&r, 30);

		ck_assert_int_eq(pipe(fds), 0);
		if ((pid = fork()) == 0) {
			close(fds[0]);
			child(fds[1]);
		}
		close(fds[1]);
		for (last = 0; last < stop &&
		    read(fds[0], &n, sizeof(n)) == sizeof(n);)
			last = n;
		usleep((useconds_t)rand_below(&r, 3000));
		kill(pid, SIGKILL);
		while (read(fds[0], &n, sizeof(n)) == sizeof(n))
			last = n;
		close(fds[0]);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert(WIFSIGNALED(status));
		ck_assert_int_eq(open_table(16 * MIB), 0);
		first = number(0);
		ck_assert_int_ge(first, last);
		ck_assert_int_le(first, last + 1);
		for (uint32_t k = 1; k < 50; k++)
			ck_assert_int_eq(number(k), first);
		table_close(table);
		table = NULL;
	}
	teardown();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("table_lmdb");
	TCase *tc = tcase_create("table_lmdb");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 0);
	tcase_add_test(tc, keeps);
	tcase_add_loop_test(tc, cut_while_open, 0, sizeof(cuts) / sizeof(cuts[0]));
	tcase_add_test(tc, one_owner);
	tcase_add_test(tc, full);
	tcase_add_test(tc, close_in_flight);
	tcase_add_test(tc, never_answers);
	tcase_add_loop_test(tc, damaged, 0, 6);
	tcase_add_test(tc, images);
	tcase_add_loop_test(tc, cleared, 0, 2);
	tcase_add_loop_test(tc, grows_and_shrinks, 0, 3);
	tcase_add_loop_test(tc, killed, 0, 3);
	suite_add_tcase(s, tc);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
