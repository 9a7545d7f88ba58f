/* SPDX-License-Identifier: MIT */
/* test_disk.c - real disks: both ways to do I/O, on both kinds of file system. */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "chunk/disk_io.h"
#include "chunk/disk_uring.h"
#include "conf/rand.h"
#include "conf/table.h"
#include "tests/suite.h"

#define BLOCKS	512u			/* of DISK_ALIGN, in the test file */
#define REQS	600u			/* more than the kernel gets at once */

/* Row _i of every test: where, and how. */
static const struct {
	const char *what, *root;
	bool threads;
} ways[] = {
	{ "io_uring, direct", ".",	  false },
	{ "threads, direct",  ".",	  true },
	{ "io_uring, tmpfs",  "/dev/shm", false },
	{ "threads, tmpfs",   "/dev/shm", true },
};
#define WAYS	4

static char root[128], path[160];
static struct loop *loop;
static struct disk_dir *dir;
static struct disk *disk;

static void
setup(int way)
{
	disk_uring_setup(NULL, ways[way].threads);
	snprintf(root, sizeof(root), "%s/fsd-test-disk-XXXXXX", ways[way].root);
	ck_assert_ptr_nonnull(mkdtemp(root));
	snprintf(path, sizeof(path), "%s/a/b", root);
	ck_assert_int_eq(loop_open(&loop), 0);
	ck_assert_int_eq(disk_uring_open_dir(&dir, loop, path, false), -ENOENT);
	ck_assert_int_eq(disk_uring_open_dir(&dir, loop, path, true), 0);
	ck_assert_int_eq(dir->ops->open(dir, "data", true, BLOCKS * DISK_ALIGN,
	    &disk), 0);
	ck_assert_uint_eq(disk->size, BLOCKS * DISK_ALIGN);
}

/* Remove the directory and all in it; nothing may be called *.new. */
static void
remove_all(const char *at)
{
	DIR *d = opendir(at);
	struct dirent *e;

	ck_assert_ptr_nonnull(d);
	while ((e = readdir(d)) != NULL) {
		char name[512];

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		ck_assert_ptr_null(strstr(e->d_name, ".new"));
		snprintf(name, sizeof(name), "%s/%s", at, e->d_name);
		if (unlink(name) != 0)
			remove_all(name);
	}
	closedir(d);
	ck_assert_int_eq(rmdir(at), 0);
}

static void
teardown(void)
{
	disk_close(disk);
	disk = NULL;
	dir->ops->close(dir);
	loop_close(loop);
	remove_all(root);
}

static unsigned left;

static void
done(struct disk_req *r)
{
	(void)r;
	left--;
}

static int
run_one(struct disk_req *r)
{
	left = 1;
	disk_start(disk, r, done);
	ck_assert_uint_eq(left, 1);
	while (left > 0)
		loop_turn(loop, true);
	return r->rc;
}

static uint8_t *
blocks(size_t n)
{
	uint8_t *p = aligned_alloc(DISK_ALIGN, n * DISK_ALIGN);

	ck_assert_ptr_nonnull(p);
	return p;
}

static int
sync_now(void)
{
	struct disk_req r = { .op = DISK_SYNC };

	return run_one(&r);
}

/* Hundreds of scattered writes at once, then reads of another shape. */
START_TEST(moves_bytes)
{
	static struct disk_req reqs[REQS];
	static struct iovec iovs[REQS][4];
	uint8_t *model, *out = blocks(REQS * 4);
	unsigned at = 0, n = 0;
	struct rand r;

	setup(_i);
	rand_seed(&r, 3);
	model = blocks(BLOCKS);
	rand_bytes(&r, model, BLOCKS * DISK_ALIGN);
	while (at < BLOCKS) {
		unsigned pieces = 1 + (unsigned)rand_below(&r, 4);

		reqs[n] = (struct disk_req){ .op = DISK_WRITE, .iov = iovs[n],
		    .off = at * DISK_ALIGN };
		for (unsigned k = 0; k < pieces && at < BLOCKS; k++, at++) {
			iovs[n][k] = (struct iovec){ model + at * DISK_ALIGN,
			    DISK_ALIGN };
			reqs[n].iov_n++;
			reqs[n].len += DISK_ALIGN;
		}
		n++;
	}
	left = n;
	for (unsigned i = 0; i < n; i++)
		disk_start(disk, &reqs[i], done);
	ck_assert_uint_eq(left, n);
	while (left > 0)
		loop_turn(loop, true);
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(reqs[i].rc, 0);
	ck_assert_int_eq(sync_now(), 0);

	left = REQS;
	for (unsigned i = 0; i < REQS; i++) {
		unsigned len = 1 + (unsigned)rand_below(&r, 4);
		uint64_t off = rand_below(&r, BLOCKS - len + 1);

		reqs[i] = (struct disk_req){ .op = DISK_READ,
		    .off = off * DISK_ALIGN, .len = len * DISK_ALIGN,
		    .iov = iovs[i], .iov_n = len > 1 ? 2 : 1 };
		iovs[i][0] = (struct iovec){ out + i * 4 * DISK_ALIGN, DISK_ALIGN };
		iovs[i][1] = (struct iovec){ out + (i * 4 + 1) * DISK_ALIGN,
		    (len - 1) * DISK_ALIGN };
		disk_start(disk, &reqs[i], done);
	}
	while (left > 0)
		loop_turn(loop, true);
	for (unsigned i = 0; i < REQS; i++) {
		ck_assert_int_eq(reqs[i].rc, 0);
		ck_assert_int_eq(memcmp(out + i * 4 * DISK_ALIGN,
		    model + reqs[i].off, reqs[i].len), 0);
	}
	/* And after the file has been opened again. */
	disk_close(disk);
	ck_assert_int_eq(dir->ops->open(dir, "data", false, 0, &disk), 0);
	ck_assert_uint_eq(disk->size, BLOCKS * DISK_ALIGN);
	reqs[0] = (struct disk_req){ .op = DISK_READ, .len = BLOCKS * DISK_ALIGN,
	    .iov = iovs[0], .iov_n = 1 };
	iovs[0][0] = (struct iovec){ out, BLOCKS * DISK_ALIGN };
	ck_assert_int_eq(run_one(&reqs[0]), 0);
	ck_assert_int_eq(memcmp(out, model, BLOCKS * DISK_ALIGN), 0);
	teardown();
	free(model);
	free(out);
}
END_TEST

START_TEST(discards)
{
	uint8_t *p = blocks(4);
	struct iovec iov = { p, 4 * DISK_ALIGN };
	struct disk_req r = { .op = DISK_WRITE, .len = 4 * DISK_ALIGN, .iov = &iov,
	    .iov_n = 1 };

	setup(_i);
	memset(p, 7, 4 * DISK_ALIGN);
	ck_assert_int_eq(run_one(&r), 0);
	r = (struct disk_req){ .op = DISK_DISCARD, .off = DISK_ALIGN,
	    .len = 2 * DISK_ALIGN };
	ck_assert_int_eq(run_one(&r), 0);
	r = (struct disk_req){ .op = DISK_READ, .len = 4 * DISK_ALIGN, .iov = &iov,
	    .iov_n = 1 };
	ck_assert_int_eq(run_one(&r), 0);
	ck_assert_uint_eq(p[0], 7);
	ck_assert_uint_eq(p[DISK_ALIGN], 0);
	ck_assert_uint_eq(p[3 * DISK_ALIGN], 7);
	teardown();
	free(p);
}
END_TEST

/* A file that was cut behind our back: an error, not silence, also when a part is there. */
START_TEST(short_file)
{
	uint8_t *p = blocks(8);
	struct iovec iov[2] = { { p, 3 * DISK_ALIGN }, { p + 3 * DISK_ALIGN,
	    5 * DISK_ALIGN } };
	struct disk_req r = { .op = DISK_READ, .len = 8 * DISK_ALIGN, .iov = iov,
	    .iov_n = 2 };
	char name[200];

	setup(_i);
	snprintf(name, sizeof(name), "%s/data", path);
	ck_assert_int_eq(truncate(name, 4 * DISK_ALIGN), 0);
	ck_assert_int_eq(run_one(&r), -EIO);
	teardown();
	free(p);
}
END_TEST

static void
never(struct disk_req *r)
{
	(void)r;
	ck_abort_msg("called back after close");
}

static unsigned others;

static void
other_done(struct disk_req *r)
{
	ck_assert_int_eq(r->rc, 0);
	others--;
}

/* Close with requests in the list, in the kernel and ended: none calls back, and the
 * buffers may be freed at once.  Another file's requests go on. */
START_TEST(close_in_flight)
{
	static struct disk_req reqs[REQS], other[20];
	uint8_t *p = blocks(REQS), *q = blocks(20);
	static struct iovec iovs[REQS], other_iovs[20];
	struct disk *second;

	setup(_i);
	ck_assert_int_eq(dir->ops->open(dir, "second", true, 64 * DISK_ALIGN,
	    &second), 0);
	for (unsigned round = 0; round < 4; round++) {
		memset(p, (int)round, REQS * DISK_ALIGN);
		for (unsigned i = 0; i < REQS; i++) {
			iovs[i] = (struct iovec){ p + i * DISK_ALIGN, DISK_ALIGN };
			reqs[i] = (struct disk_req){ .op = i % 50 == 49 ? DISK_SYNC :
			    i % 2 == 0 ? DISK_WRITE : DISK_READ,
			    .off = i % BLOCKS * DISK_ALIGN, .len = DISK_ALIGN,
			    .iov = &iovs[i], .iov_n = 1 };
			disk_start(disk, &reqs[i], never);
		}
		others = 20;
		for (unsigned i = 0; i < 20; i++) {
			other_iovs[i] = (struct iovec){ q + i * DISK_ALIGN,
			    DISK_ALIGN };
			other[i] = (struct disk_req){ .op = DISK_READ,
			    .off = i * DISK_ALIGN, .len = DISK_ALIGN,
			    .iov = &other_iovs[i], .iov_n = 1 };
			disk_start(second, &other[i], other_done);
		}
		/* In every round but the first the kernel gets to see them. */
		if (round > 0) {
			for (unsigned i = 0; i < REQS; i++)
				reqs[i].fn = done;
			loop_turn(loop, false);
			for (unsigned i = 0; i < REQS; i++)
				reqs[i].fn = never;
		}
		disk_close(disk);
		free(p);
		p = blocks(REQS);
		while (others > 0)
			loop_turn(loop, true);
		loop_turn(loop, false);
		loop_turn(loop, false);
		ck_assert_int_eq(dir->ops->open(dir, "data", false, 0, &disk), 0);
	}
	disk_close(second);
	teardown();
	free(p);
	free(q);
}
END_TEST

/* The callback of one request closes the disk. */
static struct disk_req pair[2];

static void
closes(struct disk_req *r)
{
	(void)r;
	disk_close(disk);
	disk = NULL;
	pair[0].fn = pair[1].fn = never;
	left = 0;
}

START_TEST(close_in_callback)
{
	uint8_t *p = blocks(2);
	struct iovec iov[2] = { { p, DISK_ALIGN }, { p + DISK_ALIGN, DISK_ALIGN } };

	setup(_i);
	left = 1;
	for (unsigned i = 0; i < 2; i++) {
		pair[i] = (struct disk_req){ .op = DISK_READ, .len = DISK_ALIGN,
		    .iov = &iov[i], .iov_n = 1 };
		disk_start(disk, &pair[i], closes);
	}
	while (left > 0)
		loop_turn(loop, true);
	for (unsigned k = 0; k < 10; k++)
		loop_turn(loop, false);
	teardown();
	free(p);
}
END_TEST

START_TEST(directory)
{
	char id[8] = "abcdefg", back[16] = "", name[200];
	struct table_store *store;
	struct disk *d;

	setup(_i);
	ck_assert_int_eq(dir->ops->open(dir, "data", true, DISK_ALIGN, &d), -EEXIST);
	ck_assert_int_eq(dir->ops->open(dir, "none", false, 0, &d), -ENOENT);
	ck_assert_int_eq(dir->ops->blob(dir, "id", back, 8, false), -ENOENT);
	ck_assert_int_eq(dir->ops->blob(dir, "id", id, 8, true), 0);
	memset(back, 0, 8);
	ck_assert_int_eq(dir->ops->blob(dir, "id", back, 8, true), 0);
	ck_assert_str_eq(back, id);
	ck_assert_int_eq(dir->ops->blob(dir, "id", back, 7, false), -EIO);
	ck_assert_int_eq(dir->ops->table(dir, "index", 1 << 20, &store), 0);
	store->ops->close(store);
	/* What a crash left half made is no obstacle. */
	snprintf(name, sizeof(name), "%s/half.new", path);
	close(open(name, O_CREAT | O_WRONLY, 0600));
	ck_assert_int_eq(dir->ops->open(dir, "half", true, DISK_ALIGN, &d), 0);
	disk_close(d);
	/* No room: nothing is left behind. */
	ck_assert_int_lt(dir->ops->open(dir, "huge", true, 1ull << 50, &d), 0);
	ck_assert_int_eq(dir->ops->open(dir, "huge", false, 0, &d), -ENOENT);
	teardown();
}
END_TEST

/* Short transfers, piece by piece. */
START_TEST(advance)
{
	static const struct {
		const char *what;
		unsigned moved[4];
		unsigned piece, inner;
		bool whole;
	} rows[] = {
		{ "nothing yet",	{ 0 },			0, 0,	 false },
		{ "inside the first",	{ 512 },		0, 512,	 false },
		{ "the first",		{ 4096 },		1, 0,	 false },
		{ "over a border",	{ 512, 4096 },		1, 512,	 false },
		{ "all in one",		{ 16384 },		3, 0,	 true },
		{ "all in three",	{ 512, 7680, 8192 },	3, 0,	 true },
		{ "almost all",		{ 512, 7680, 7680 },	2, 3584, false },
	};
	struct iovec iov[3] = { { NULL, 4096 }, { NULL, 8192 }, { NULL, 4096 } };
	struct disk_req r = { .op = DISK_READ, .len = 16384, .iov = iov,
	    .iov_n = 3 };
	bool whole = false;

	for (unsigned k = 0; k < 4 && rows[_i].moved[k] > 0; k++)
		whole = disk_io_advance(&r, rows[_i].moved[k]);
	ck_assert_msg(r.impl[DISK_IO_PIECE] == rows[_i].piece &&
	    r.impl[DISK_IO_INNER] == rows[_i].inner && whole == rows[_i].whole,
	    "%s: piece %lu inner %lu whole %d", rows[_i].what,
	    r.impl[DISK_IO_PIECE], r.impl[DISK_IO_INNER], whole);
}
END_TEST

/* ---- whether it is still there ---- */

static unsigned checked;

static void
check_done(struct disk_check *c)
{
	(void)c;
	checked++;
}

static int
check_now(struct disk_check *c)
{
	*c = (struct disk_check){ .fn = check_done };
	checked = 0;
	ck_assert_int_eq(dir->ops->check(dir, c), 0);
	ck_assert_uint_eq(checked, 0);
	while (checked == 0)
		loop_turn(loop, true);
	return c->rc;
}

/* Names that lead elsewhere are noticed, and so is it when they lead back. */
START_TEST(still_there)
{
	struct disk_check c;
	struct table_store *store;
	char aside[192], data[192], index[192], other[192];

	setup(_i);
	ck_assert_int_eq(dir->ops->table(dir, "index", 1 << 20, &store), 0);
	snprintf(aside, sizeof(aside), "%s-aside", path);
	snprintf(data, sizeof(data), "%s/data", path);
	snprintf(index, sizeof(index), "%s/index", path);
	snprintf(other, sizeof(other), "%s/other", path);
	ck_assert_int_eq(check_now(&c), 0);
	ck_assert_uint_gt(c.free_bytes, 0);
	ck_assert_uint_lt(c.free_bytes, UINT64_MAX);
	/* As when it was removed, and when something else is mounted there. */
	ck_assert_int_eq(rename(path, aside), 0);
	ck_assert_int_eq(check_now(&c), -ENOENT);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(check_now(&c), -ENODEV);
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert_int_eq(rename(aside, path), 0);
	ck_assert_int_eq(check_now(&c), 0);
	/* One of its files. */
	ck_assert_int_eq(rename(data, other), 0);
	ck_assert_int_eq(check_now(&c), -ENOENT);
	ck_assert_int_eq(link(index, data), 0);
	ck_assert_int_eq(check_now(&c), -ENODEV);
	ck_assert_int_eq(rename(other, data), 0);
	ck_assert_int_eq(check_now(&c), 0);
	ck_assert_int_eq(rename(index, other), 0);
	ck_assert_int_eq(check_now(&c), -ENOENT);
	ck_assert_int_eq(rename(other, index), 0);
	/* Nobody waits any more; the answer comes late, or not at all. */
	for (unsigned i = 0; i < 20; i++) {
		c = (struct disk_check){ .fn = check_done };
		checked = 0;
		ck_assert_int_eq(dir->ops->check(dir, &c), 0);
		if (i % 2 == 0)
			loop_turn(loop, false);
		if (checked == 0)
			dir->ops->uncheck(dir);
		checked = 0;
		for (unsigned k = 0; k < 5; k++)
			loop_turn(loop, false);
		ck_assert_uint_eq(checked, 0);
	}
	ck_assert_int_eq(check_now(&c), 0);
	store->ops->close(store);
	teardown();
}
END_TEST

/* Until alarm(0).  The handler of the test library would end whoever started us, too. */
static void
at_most_20_s(void)
{
	signal(SIGALRM, SIG_DFL);
	alarm(20);
}

static atomic_bool hangs, was_let_go;
static sem_t hanging, let_go;

/* In place of the library's, likewise. */
static atomic_bool sync_hangs;
static atomic_uint syncs_back;

int
fdatasync(int fd)
{
	bool mine = atomic_load(&sync_hangs);
	int rc;

	if (mine) {
		sem_post(&hanging);
		sem_wait(&let_go);
	}
	rc = (int)syscall(SYS_fdatasync, fd);
	if (mine)
		atomic_fetch_add(&syncs_back, 1);
	return rc;
}

/* A device that never answers: closing does not wait for it, nor does anything else; its thread
 * keeps what it has, and ends by itself when the device is there again. */
START_TEST(never_answers)
{
	struct disk_req *r;
	struct disk *other;
	struct disk_req w = { .op = DISK_WRITE, .len = DISK_ALIGN, .iov_n = 1 };
	struct iovec iov;

	if (!ways[_i].threads)
		return;			/* the next test */
	r = calloc(2, sizeof(*r));
	iov = (struct iovec){ blocks(1), DISK_ALIGN };
	setup(_i);
	ck_assert_int_eq(dir->ops->open(dir, "other", true, BLOCKS * DISK_ALIGN,
	    &other), 0);
	atomic_store(&syncs_back, 0);
	atomic_store(&sync_hangs, true);
	for (unsigned i = 0; i < 2; i++) {
		r[i].op = DISK_SYNC;
		disk_start(disk, &r[i], never);
	}
	loop_turn(loop, false);
	for (unsigned i = 0; i < 2; i++)
		sem_wait(&hanging);
	atomic_store(&sync_hangs, false);
	at_most_20_s();
	ck_assert(!disk_close(disk));
	alarm(0);
	memset(r, 0xff, 2 * sizeof(*r));	/* nobody looks at them any more */
	free(r);
	/* Another file of the same threads goes on. */
	disk = other;
	w.iov = &iov;
	memset(iov.iov_base, 7, DISK_ALIGN);
	ck_assert_int_eq(run_one(&w), 0);
	ck_assert_int_eq(sync_now(), 0);
	teardown();
	ck_assert_uint_eq(atomic_load(&syncs_back), 0);
	for (unsigned i = 0; i < 2; i++)
		sem_post(&let_go);
	while (atomic_load(&syncs_back) < 2)
		sched_yield();
	free(iov.iov_base);
}
END_TEST

/* The descriptor of the one ring there is; -1: this box has no io_uring. */
static int
ring_fd(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	int fd = -1;

	ck_assert_ptr_nonnull(d);
	while (fd < 0 && (e = readdir(d)) != NULL) {
		char to[64] = "";

		if (readlinkat(dirfd(d), e->d_name, to, sizeof(to) - 1) > 0 &&
		    strcmp(to, "anon_inode:[io_uring]") == 0)
			fd = atoi(e->d_name);
	}
	closedir(d);
	return fd;
}

/* Likewise of the kernel: it has a read of a pipe that nobody writes to, and is not reached
 * while that is closed.  What comes later goes where it was to go, and nobody is told. */
START_TEST(kernel_never_answers)
{
	uint8_t *late = blocks(1), *data = blocks(1);
	struct iovec iovs[2] = { { late, DISK_ALIGN }, { data, DISK_ALIGN } };
	struct disk_req *r = calloc(1, sizeof(*r));
	struct disk_req w = { .op = DISK_WRITE, .len = DISK_ALIGN, .iov = &iovs[1],
	    .iov_n = 1 };
	struct disk_io *io;
	struct disk *stuck;
	int ring, saved, nothing, ends[2];

	setup(_i);
	ring = ways[_i].threads ? -1 : ring_fd();
	if (ring < 0)
		goto out;
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(disk_io_get(&io, loop), 0);
	ck_assert_int_eq(disk_io_open(io, ends[0], DISK_ALIGN, &stuck), 0);
	disk_io_put(io);
	*r = (struct disk_req){ .op = DISK_READ, .len = DISK_ALIGN, .iov = &iovs[0],
	    .iov_n = 1 };
	disk_start(stuck, r, never);
	loop_turn(loop, false);
	ck_assert_int_ge(saved = dup(ring), 0);
	ck_assert_int_ge(nothing = open("/dev/null", O_RDWR), 0);
	ck_assert_int_eq(dup2(nothing, ring), ring);
	at_most_20_s();
	ck_assert(!disk_close(stuck));
	alarm(0);
	memset(r, 0xff, sizeof(*r));	/* nobody looks at it any more */
	memset(late, 0, DISK_ALIGN);
	memset(data, 7, DISK_ALIGN);
	ck_assert_int_eq(write(ends[1], data, DISK_ALIGN), DISK_ALIGN);
	ck_assert_int_eq(dup2(saved, ring), ring);
	/* Another file of the same ring goes on. */
	ck_assert_int_eq(run_one(&w), 0);
	ck_assert_int_eq(sync_now(), 0);
	ck_assert_mem_eq(late, data, DISK_ALIGN);
	close(saved);
	close(nothing);
	close(ends[0]);			/* was left open */
	close(ends[1]);
out:
	teardown();
	free(r);
	free(late);
	free(data);
}
END_TEST

/* In place of the library's: a dying device lets whoever asks wait. */
int
fstatvfs(int fd, struct statvfs *out)
{
	struct statfs fs;

	if (atomic_load(&hangs)) {
		sem_post(&hanging);
		sem_wait(&let_go);
		atomic_store(&was_let_go, true);
	}
	if (fstatfs(fd, &fs) != 0)
		return -1;
	*out = (struct statvfs){ .f_bavail = fs.f_bavail,
	    .f_frsize = (unsigned long)fs.f_bsize };
	return 0;
}

/* The thread that hangs is left behind: the disk closes, the loop ends, and nothing is called
 * when it returns. */
START_TEST(hangs_for_ever)
{
	struct disk_check c = { .fn = check_done };

	setup(_i);
	checked = 0;
	atomic_store(&was_let_go, false);
	atomic_store(&hangs, true);
	ck_assert_int_eq(dir->ops->check(dir, &c), 0);
	sem_wait(&hanging);
	at_most_20_s();			/* waited for, it would be so for ever */
	dir->ops->uncheck(dir);
	alarm(0);
	atomic_store(&hangs, false);
	/* The next to ask does not wait for it either. */
	ck_assert_int_eq(check_now(&c), 0);
	checked = 0;
	teardown();
	ck_assert(!atomic_load(&was_let_go));
	sem_post(&let_go);
	while (!atomic_load(&was_let_go))
		sched_yield();
	ck_assert_uint_eq(checked, 0);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("disk");

	tcase_set_timeout(tc, 0);
	tcase_add_loop_test(tc, moves_bytes, 0, WAYS);
	tcase_add_loop_test(tc, discards, 0, WAYS);
	tcase_add_loop_test(tc, short_file, 0, WAYS);
	tcase_add_loop_test(tc, close_in_flight, 0, WAYS);
	tcase_add_loop_test(tc, close_in_callback, 0, WAYS);
	tcase_add_loop_test(tc, directory, 0, WAYS);
	tcase_add_loop_test(tc, still_there, 0, WAYS);
	sem_init(&hanging, 0, 0);
	sem_init(&let_go, 0, 0);
	tcase_add_loop_test(tc, hangs_for_ever, 0, WAYS);
	tcase_add_loop_test(tc, never_answers, 0, WAYS);
	tcase_add_loop_test(tc, kernel_never_answers, 0, WAYS);
	tcase_add_loop_test(tc, advance, 0, 7);
	return suite_run("disk", tc);
}
