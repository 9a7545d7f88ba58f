/* SPDX-License-Identifier: MIT */
/* test_sim_full.c - the file system below a storage node's disks has no space for a while,
 * then has some again.  Writes may be refused with ENOSPC, and nothing else goes wrong: what
 * was acknowledged stays, a write that was refused is done or not, block by block; names
 * and reads go on; in the end all is written and all replicas are equal.  A write that the
 * tail had taken when a replica before it found no space can be refused no more: the chain
 * goes on without that one, and nothing waits for space.  With it, or not, their indexes are
 * full too. N=1000: 6 seeds of each kind, SEED=one. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_impl.h"
#include "tests/suite.h"

#define OPS	30u		/* of everybody in the load before that */
#define FILES	5u
#define BLOCK	4096u
#define BLOCKS	40u		/* of one: three chunks */
#define STEPS	150u		/* while it is full */
#define ENDS_S	5u		/* whatever is asked for while it is full */
#define AGAIN_S	30u		/* by then there is space for everybody */

static const struct client_cred root = { 0 };

static uint64_t
number(const char *name, uint64_t otherwise)
{
	const char *v = getenv(name);

	return v != NULL && *v != '\0' ? strtoull(v, NULL, 10) : otherwise;
}

struct file {
	struct client_file *h;
	uint32_t is[BLOCKS];		/* what was acknowledged; 0: nothing was written */
	uint32_t maybe[BLOCKS];		/* refused later; 0: none */
};

static struct {
	struct sim	*s;
	struct client	*c;
	struct client_op op;
	struct client_io io;
	bool		 busy;
	int		 rc;
	struct sim_node	*full;		/* NULL: none, any more */
	bool		 index;		/* so are its indexes */
	uint64_t	 longest_ns;	/* that anything took while it was full */
	uint32_t	 stamp;
	unsigned	 refused, done;	/* writes */
	struct file	 files[FILES];
	uint8_t		 data[BLOCKS * BLOCK];
} T;

/* ---- the disks ---- */

static void
set_full(struct sim_node *n)
{
	struct sim_node *of = n != NULL ? n : T.full;
	char path[] = "/disk0";

	for (unsigned k = 0; k < of->disk_n; k++) {
		struct sim_disk_faults *f;

		path[5] = (char)('0' + k);
		f = sim_disk_faults(of->box, path);
		f->full = n != NULL;
		f->table.full = n != NULL && T.index;
	}
	sim_trace(T.s, "node %u: full %d", of->id, n != NULL);
	T.full = n;
}

/* ---- one thing after the other ---- */

static void
op_done(struct client_op *op, int rc)
{
	(void)op;
	T.busy = false;
	T.rc = rc;
}

static void
io_done(struct client_io *io, int rc)
{
	(void)io;
	T.busy = false;
	T.rc = rc;
}

static bool
is_idle(void *ctx)
{
	(void)ctx;
	return !T.busy;
}

static int
ended(const char *what)
{
	uint64_t began = sim_now(T.s);

	sim_until(T.s, is_idle, NULL, T.full != NULL ? ENDS_S : 60, what);
	if (T.full != NULL && sim_now(T.s) - began > T.longest_ns)
		T.longest_ns = sim_now(T.s) - began;
	return T.rc;
}

static int
fsync_file(struct file *f)
{
	T.busy = true;
	client_fsync(f->h, &T.op, op_done);
	return ended("fsync");
}

static void
open_file(unsigned i)
{
	char name[] = "full0";

	name[4] = (char)('0' + i);
	T.busy = true;
	client_file_create(T.c, &T.op, op_done, &root, INO_ROOT, name, 0644,
	    O_RDWR | O_CREAT, &T.files[i].h);
	ck_assert_int_eq(ended("create"), 0);
}

/* A name needs no space of storage. */
static void
come_and_go(void)
{
	struct client_file *h;

	T.busy = true;
	client_file_create(T.c, &T.op, op_done, &root, INO_ROOT, "short", 0644,
	    O_RDWR | O_CREAT | O_EXCL, &h);
	ck_assert_int_eq(ended("create"), 0);
	client_release(h);
	T.busy = true;
	client_unlink(T.c, &T.op, op_done, &root, INO_ROOT, "short");
	ck_assert_int_eq(ended("unlink"), 0);
}

/* ---- writing and reading ---- */

static int
write_some(struct file *f, unsigned at, unsigned n, bool direct)
{
	uint32_t stamp = ++T.stamp;
	int rc, flushed;

	for (unsigned i = 0; i < n * BLOCK; i += sizeof(stamp))
		memcpy(T.data + i, &stamp, sizeof(stamp));
	T.busy = true;
	client_write(f->h, &T.io, io_done, (uint64_t)at * BLOCK, T.data,
	    (uint64_t)n * BLOCK, direct);
	rc = ended("write");
	flushed = fsync_file(f);
	if (rc == 0)
		rc = flushed;
	ck_assert_msg(rc == 0 || rc == -ENOSPC, "write: %d", rc);
	T.refused += rc != 0;
	T.done += rc == 0;
	for (unsigned i = at; i < at + n; i++) {
		f->maybe[i] = rc == 0 ? 0 : stamp;
		if (rc == 0)
			f->is[i] = stamp;
	}
	return rc;
}

/* Only where nothing is in doubt: what was refused may be there in part. */
static void
read_all(struct file *f)
{
	size_t at = 0;

	memset(T.data, 0, sizeof(T.data));
	T.busy = true;
	client_read(f->h, &T.io, io_done, 0, sizeof(T.data));
	ck_assert_int_eq(ended("read"), 0);
	for (unsigned i = 0; i < T.io.iov_n; i++) {
		memcpy(T.data + at, T.io.iov[i].iov_base, T.io.iov[i].iov_len);
		at += T.io.iov[i].iov_len;
	}
	client_read_done(T.c, &T.io);
	for (unsigned b = 0; b < BLOCKS; b++) {
		uint32_t got;

		memcpy(&got, T.data + b * BLOCK, sizeof(got));
		if (f->maybe[b] == 0)
			ck_assert_msg(got == f->is[b], "block %u: %u, not %u", b, got,
			    f->is[b]);
	}
}

static void
use(struct rand *r)
{
	struct file *f = &T.files[rand_below(r, FILES)];
	unsigned n = 1 + (unsigned)rand_below(r, BLOCKS), at;

	if (rand_chance(r, 1, 8)) {
		come_and_go();
	} else if (rand_chance(r, 1, 3)) {
		read_all(f);
	} else {
		at = (unsigned)rand_below(r, BLOCKS - n + 1);
		(void)write_some(f, at, n, rand_chance(r, 1, 2));
	}
	sim_clock_run(T.s->clocks, rand_below(r, 100 * NS_PER_MS));
}

static void
run(uint64_t seed, bool index)
{
	struct sim *s = sim_open(seed, 0);
	struct sim_node *n = &s->nodes[SIM_STORAGE0 + seed % s->storage_n];
	uint64_t since;
	struct rand r;

	rand_seed(&r, seed);
	memset(&T, 0, sizeof(T));
	T.s = s;
	T.index = index;
	s->ops = OPS;
	sim_load(s);
	sim_heal(s);
	T.c = sim_client(s, 0);
	for (unsigned i = 0; i < FILES; i++) {
		open_file(i);
		if (i > 0)		/* to one of them nothing was written before */
			ck_assert_int_eq(write_some(&T.files[i], 0, BLOCKS, true), 0);
	}
	set_full(n);
	for (unsigned i = 0; i < STEPS && T.full != NULL; i++)
		use(&r);
	if (T.full != NULL)
		set_full(NULL);
	/* A disk whose index could not be changed for long enough is refused until then. */
	if (index) {
		sim_die(n, false);
		sim_boot(n);
		sim_until(s, sim_all_ready, s, 60, "starting again");
	}
	since = sim_now(s);
	for (unsigned i = 0; i < FILES; i++)
		while (write_some(&T.files[i], 0, BLOCKS, i % 2 == 0) != 0) {
			ck_assert_uint_lt(sim_now(s) - since, AGAIN_S * NS_PER_S);
			sim_clock_run(s->clocks, 500 * NS_PER_MS);
		}
	for (unsigned i = 0; i < FILES; i++) {
		read_all(&T.files[i]);
		client_release(T.files[i].h);
	}
	if (getenv("VERBOSE") != NULL)
		printf("seed %u: %u writes refused, %u done, longest %u ms\n",
		    (unsigned)seed, T.refused, T.done,
		    (unsigned)(T.longest_ns / NS_PER_MS));
	sim_check(s);
	sim_close(s);
}

START_TEST(no_space)
{
	uint64_t one = number("SEED", 0), n = number("N", 1000) * 6 / 1000;
	unsigned refused = 0;

	if (one != 0) {
		run(one, _i == 1);
		return;
	}
	for (uint64_t seed = 1; seed <= (n < 3 ? 3 : n > 100 ? 100 : n); seed++) {
		run(seed, _i == 1);
		refused += T.refused;
	}
	ck_assert_uint_gt(refused, 0);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 0);
	tcase_add_loop_test(tc, no_space, 0, 2);
	return suite_run("sim_full", tc);
}
