/* SPDX-License-Identifier: MIT */
/* test_sim_disk.c - what the simulated disk may and may not lose. */
#include "tests/sim/disk.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/clock.h"

#define PAGES	16u
#define SECTORS	(PAGES * 8u)
#define WRITES	64u

struct write {
	struct disk_req	req;
	struct iovec	iov;
	uint64_t	tag;
	bool		busy;
};

struct world {
	struct sim_clock *time;
	struct clock	 *clock;
	struct rand	  rand;
	struct sim_box	 *box;
	struct disk_dir	 *dir;
	struct disk	 *disk;
	struct write	  w[WRITES];
	uint64_t	  tags;
	/* Per sector: the tag that is surely durable, that of the newest ended write, and
	 * of the newest that was started. */
	uint64_t	  durable[SECTORS], ended[SECTORS], begun[SECTORS];
};

static _Alignas(4096) uint8_t buffers[WRITES][4 * 4096];
static struct world *the;

static void
open_disk(struct world *w, bool create)
{
	ck_assert_int_eq(sim_disk_dir(w->box, w->clock, "/d", create, &w->dir), 0);
	ck_assert_int_eq(w->dir->ops->open(w->dir, "data", create,
	    PAGES * 4096, &w->disk), 0);
}

static void
close_disk(struct world *w)
{
	disk_close(w->disk);
	w->dir->ops->close(w->dir);
	ck_assert_uint_eq(sim_clock_node_pending(w->clock), 0);
	ck_assert_uint_eq(sim_disk_inflight(w->box), 0);
}

static void
setup(struct world *w, uint64_t seed)
{
	struct sim_disk_conf *c;

	memset(w, 0, sizeof(*w));
	the = w;
	rand_seed(&w->rand, seed);
	w->time = sim_clock_open();
	w->clock = sim_clock_node(w->time, 0, 0);
	w->box = sim_box_open(&w->rand);
	c = sim_box_conf(w->box);
	c->write_max_ns = 200 * NS_PER_US;
	open_disk(w, true);
}

static void
teardown(struct world *w)
{
	close_disk(w);
	sim_box_close(w->box);
	sim_clock_close(w->time);
}

static void
ended(struct disk_req *r)
{
	struct write *k = (struct write *)(void *)r;

	ck_assert(k->busy);
	ck_assert_int_eq(r->rc, 0);
	k->busy = false;
	for (uint64_t s = r->off / 512; s < (r->off + r->len) / 512; s++)
		the->ended[s] = k->tag;
}

static bool
overlaps(const struct world *w, uint64_t off, uint64_t len)
{
	for (unsigned i = 0; i < WRITES; i++)
		if (w->w[i].busy && w->w[i].req.op == DISK_WRITE &&
		    off < w->w[i].req.off + w->w[i].req.len &&
		    w->w[i].req.off < off + len)
			return true;
	return false;
}

struct sync {
	struct disk_req req;
	uint64_t	snapshot[SECTORS];
	bool		busy;
};

static void
synced(struct disk_req *r)
{
	struct sync *k = (struct sync *)(void *)r;

	k->busy = false;
	if (r->rc == 0)
		for (unsigned s = 0; s < SECTORS; s++)
			if (k->snapshot[s] > the->durable[s])
				the->durable[s] = k->snapshot[s];
}

/* Every sector holds whole tags: fill with the tag. */
static void
write_random(struct world *w)
{
	unsigned i = (unsigned)rand_below(&w->rand, WRITES);
	struct write *k = &w->w[i];
	uint64_t len = (1 + rand_below(&w->rand, 4)) * 4096;
	uint64_t off = rand_below(&w->rand, PAGES - len / 4096 + 1) * 4096;

	if (k->busy || overlaps(w, off, len))
		return;
	k->tag = ++w->tags;
	for (size_t at = 0; at < len; at += 8)
		memcpy(buffers[i] + at, &k->tag, 8);
	k->iov = (struct iovec){ buffers[i], len };
	k->req = (struct disk_req){ .op = DISK_WRITE, .off = off, .len = len,
	    .iov = &k->iov, .iov_n = 1 };
	k->busy = true;
	for (uint64_t s = off / 512; s < (off + len) / 512; s++)
		w->begun[s] = k->tag;
	disk_start(w->disk, &k->req, ended);
}

static void
done(struct disk_req *r)
{
	(void)r;
}

static void
read_all(struct world *w, uint64_t out[SECTORS])
{
	static _Alignas(4096) uint8_t all[PAGES * 4096];
	struct iovec iov = { all, sizeof(all) };
	struct disk_req r = { .op = DISK_READ, .len = sizeof(all), .iov = &iov,
	    .iov_n = 1, .rc = 1 };

	disk_start(w->disk, &r, done);
	ck_assert(sim_clock_run_idle(w->time, NS_PER_S));
	ck_assert_int_eq(r.rc, 0);
	for (unsigned s = 0; s < SECTORS; s++) {
		memcpy(&out[s], all + s * 512, 8);
		/* Torn between sectors, never inside one. */
		if (memcmp(all + s * 512, all + s * 512 + 8, 512 - 8) != 0)
			ck_abort_msg("sector %u is torn", s);
	}
}

static unsigned lost, kept;		/* not-synced writes, over all seeds */

START_TEST(crashes)
{
	static struct world w;
	static struct sync sync[3];
	uint64_t now[SECTORS];

	setup(&w, (uint64_t)_i + 1);
	for (unsigned round = 0; round < 10; round++) {
		bool power = rand_chance(&w.rand, 2, 3);

		memset(sync, 0, sizeof(sync));
		for (unsigned k = 0; k < 100; k++)
			switch (rand_below(&w.rand, 4)) {
			case 0: case 1:
				write_random(&w);
				break;
			case 2:
				sim_clock_step(w.time);
				break;
			default: {
				struct sync *s = &sync[rand_below(&w.rand, 3)];

				if (s->busy || !rand_chance(&w.rand, 1, 5))
					break;
				memcpy(s->snapshot, w.ended, sizeof(w.ended));
				s->req = (struct disk_req){ .op = DISK_SYNC };
				s->busy = true;
				disk_start(w.disk, &s->req, synced);
			}
			}
		if (power)
			sim_disk_crash(w.box);
		else
			sim_disk_kill(w.box);
		close_disk(&w);
		for (unsigned i = 0; i < WRITES; i++)
			w.w[i].busy = false;
		open_disk(&w, false);
		read_all(&w, now);
		for (unsigned s = 0; s < SECTORS; s++) {
			if (now[s] < (power ? w.durable[s] : w.ended[s]) ||
			    now[s] > w.begun[s])
				ck_abort_msg("round %u: sector %u is %lu, durable "
				    "%lu, ended %lu, begun %lu", round, s, now[s],
				    w.durable[s], w.ended[s], w.begun[s]);
			lost += now[s] < w.ended[s];
			kept += now[s] > w.durable[s];
			w.ended[s] = w.begun[s] = now[s];
			if (power)		/* else the cache is still there */
				w.durable[s] = now[s];
		}
	}
	teardown(&w);
}
END_TEST

/* The disk uses its licence: it loses some of what was not synced, and keeps some. */
START_TEST(crashes_hurt)
{
	ck_assert_uint_gt(lost, 100);
	ck_assert_uint_gt(kept, 100);
}
END_TEST

/* A write that ends while a sync is in flight is not covered by it. */
START_TEST(late_write_not_covered)
{
	unsigned gone[2] = { 0 };		/* on a clean page, on a dirty one */

	for (uint64_t seed = 1; seed < 40; seed++) {
		static struct world w;
		struct disk_req sync = { .op = DISK_SYNC, .rc = 1 };
		uint64_t now[SECTORS];

		setup(&w, seed);
		for (unsigned k = 0; seed % 2 == 1 && k < 200; k++) {
			write_random(&w);
			ck_assert(sim_clock_run_idle(w.time, NS_PER_S));
		}
		disk_start(w.disk, &sync, done);
		for (uint64_t tags = w.tags; w.tags == tags;)
			write_random(&w);
		ck_assert(sim_clock_run_idle(w.time, NS_PER_S));
		ck_assert_int_eq(sync.rc, 0);
		sim_disk_crash(w.box);
		close_disk(&w);
		open_disk(&w, false);
		read_all(&w, now);
		for (unsigned s = 0; s < SECTORS; s++)
			gone[seed % 2] += now[s] < w.begun[s];
		teardown(&w);
	}
	ck_assert_uint_gt(gone[0], 0);
	ck_assert_uint_gt(gone[1], 0);
}
END_TEST

START_TEST(directory)
{
	static struct world w;
	struct table_store *t, *t2;
	struct disk_dir *other;
	struct disk *d;
	char id[8] = "abcdefg", back[8] = "";

	setup(&w, 1);
	ck_assert_int_eq(sim_disk_dir(w.box, w.clock, "/e", false, &other), -ENOENT);
	ck_assert_int_eq(w.dir->ops->open(w.dir, "data", true, 4096, &d), -EEXIST);
	ck_assert_int_eq(w.dir->ops->open(w.dir, "none", false, 0, &d), -ENOENT);
	ck_assert_int_eq(w.dir->ops->blob(w.dir, "id", back, 8, false), -ENOENT);
	ck_assert_int_eq(w.dir->ops->blob(w.dir, "id", id, 8, true), 0);
	ck_assert_int_eq(w.dir->ops->blob(w.dir, "id", back, 8, true), 0);
	ck_assert_str_eq(back, id);
	ck_assert_int_eq(w.dir->ops->blob(w.dir, "id", back, 7, true), -EIO);
	ck_assert_int_eq(w.dir->ops->table(w.dir, "t", 1 << 20, &t), 0);
	ck_assert_int_eq(w.dir->ops->table(w.dir, "t", 1 << 20, &t2), -EBUSY);
	sim_disk_crash(w.box);
	t->ops->close(t);
	close_disk(&w);
	open_disk(&w, false);
	memset(back, 0, 8);
	ck_assert_int_eq(w.dir->ops->blob(w.dir, "id", back, 8, false), 0);
	ck_assert_str_eq(back, id);
	sim_box_conf(w.box)->full = true;
	ck_assert_int_eq(w.dir->ops->open(w.dir, "new", true, 4096, &d), -ENOSPC);
	teardown(&w);
}
END_TEST

START_TEST(faults)
{
	static const struct {
		const char *what;
		enum disk_op op;
		struct sim_disk_conf conf;
	} rows[] = {
		{ "read",  DISK_READ,  { .read_eio_ppm = 1000000 } },
		{ "write", DISK_WRITE, { .write_eio_ppm = 1000000 } },
		{ "sync",  DISK_SYNC,  { .sync_eio_ppm = 1000000 } },
	};
	static struct world w;
	struct iovec iov = { buffers[0], 4096 };
	struct disk_req r = { .op = rows[_i].op, .len = 4096, .iov = &iov,
	    .iov_n = 1 };

	setup(&w, 1);
	*sim_box_conf(w.box) = rows[_i].conf;
	disk_start(w.disk, &r, done);
	ck_assert(sim_clock_run_idle(w.time, NS_PER_S));
	ck_assert_msg(r.rc == -EIO, "%s: %d", rows[_i].what, r.rc);
	teardown(&w);
}
END_TEST

/* Faults of one disk: what they do to a request inside their range, to one outside, and
 * not at all to the other disk of the box. */
enum seen { FINE, EIO_, FULL, OLD, TURNED };

static const struct {
	const char *what;
	enum disk_op op;
	struct sim_disk_faults faults;
	enum seen inside, outside;
} kinds[] = {
	{ "none",	DISK_READ,  { 0 }, FINE, FINE },
	{ "read EIO",	DISK_READ,  { .from = 8192, .to = 8193, .read_eio_ppm = 1000000 },
	    EIO_, FINE },
	{ "write EIO",	DISK_WRITE, { .from = 8192, .to = 8193, .write_eio_ppm = 1000000 },
	    EIO_, FINE },
	{ "sync EIO",	DISK_SYNC,  { .from = 8192, .to = 8193, .sync_eio_ppm = 1000000 },
	    EIO_, EIO_ },
	{ "rot",	DISK_READ,  { .from = 8192, .to = 8193, .flip_ppm = 1000000 },
	    TURNED, FINE },
	{ "lost",	DISK_WRITE, { .from = 8192, .to = 8193, .lost_ppm = 1000000 },
	    OLD, FINE },
	{ "astray",	DISK_WRITE, { .from = 8192, .to = 8193, .astray_ppm = 1000000 },
	    OLD, FINE },
	{ "full",	DISK_WRITE, { .full = true }, FULL, FULL },
	{ "full, read",	DISK_READ,  { .full = true }, FINE, FINE },
	{ "dead",	DISK_READ,  { .dead = true }, EIO_, EIO_ },
	{ "gone",	DISK_WRITE, { .gone = true }, FINE, FINE },
};

static int
move(struct world *w, struct disk *d, enum disk_op op, uint64_t off, int byte)
{
	struct iovec iov = { buffers[1], 4096 };
	struct disk_req r = { .op = op, .off = off, .len = op == DISK_SYNC ? 0 : 4096,
	    .iov = &iov, .iov_n = op == DISK_SYNC ? 0 : 1 };

	memset(buffers[1], byte, 4096);
	disk_start(d, &r, done);
	ck_assert(sim_clock_run_idle(w->time, NS_PER_S));
	return r.rc;
}

static enum seen
try(struct world *w, const char *path, struct disk *d, enum disk_op op, uint64_t off)
{
	struct sim_disk_faults *x = sim_disk_faults(w->box, path);
	struct sim_disk_faults was = *x;
	unsigned wrong = 0;
	int rc;

	memset(x, 0, sizeof(*x));
	ck_assert_int_eq(move(w, d, DISK_WRITE, off, 1), 0);
	*x = was;
	rc = move(w, d, op, off, 2);
	memset(x, 0, sizeof(*x));
	if (rc == 0 && op == DISK_WRITE)
		ck_assert_int_eq(move(w, d, DISK_READ, off, 9), 0);
	*x = was;
	if (rc != 0 || op == DISK_SYNC)
		return rc == -EIO ? EIO_ : rc == -ENOSPC ? FULL : FINE;
	for (unsigned i = 0; i < 4096; i++)
		wrong += buffers[1][i] != (op == DISK_WRITE ? 2 : 1);
	return wrong == 0 ? FINE : wrong == 1 ? TURNED : OLD;
}

static void
checked(struct disk_check *c)
{
	c->fn = NULL;
}

START_TEST(one_disk)
{
	static struct world w;
	struct disk_dir *dirs[2];
	struct disk *d[2];

	setup(&w, 1);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(sim_disk_dir(w.box, w.clock, i == 0 ? "/x" : "/y", true,
		    &dirs[i]), 0);
		ck_assert_int_eq(dirs[i]->ops->open(dirs[i], "data", true, 4 << 20,
		    &d[i]), 0);
	}
	*sim_disk_faults(w.box, "/x") = kinds[_i].faults;
	for (unsigned k = 0; k < 20; k++) {
		ck_assert_msg(try(&w, "/x", d[0], kinds[_i].op, 8192) ==
		    kinds[_i].inside, "%s, inside", kinds[_i].what);
		ck_assert_msg(try(&w, "/x", d[0], kinds[_i].op, 4096) ==
		    kinds[_i].outside, "%s, outside", kinds[_i].what);
		ck_assert_msg(try(&w, "/y", d[1], kinds[_i].op, 8192) == FINE,
		    "%s, other", kinds[_i].what);
	}
	ck_assert_uint_eq(sim_disk_lies(w.box), kinds[_i].inside == OLD ? 20 : 0);
	for (int i = 0; i < 2; i++) {
		struct disk_check c = { .fn = checked, .rc = 1 };
		const struct sim_disk_faults *x = &kinds[_i].faults;

		ck_assert_int_eq(dirs[i]->ops->check(dirs[i], &c), 0);
		ck_assert(c.fn != NULL);
		ck_assert(sim_clock_run_idle(w.time, NS_PER_S));
		ck_assert(c.fn == NULL);
		ck_assert_int_eq(c.rc, i == 1 ? 0 : x->gone ? -ENODEV :
		    x->dead ? -EIO : 0);
		ck_assert((c.free_bytes == 0) == (i == 0 && x->full));
		disk_close(d[i]);
		dirs[i]->ops->close(dirs[i]);
	}
	teardown(&w);
}
END_TEST

int
main(void)
{
	const char *seed = getenv("SEED"), *more = getenv("N");
	int from = seed != NULL && *seed != '\0' ? atoi(seed) : 0;
	int n = from != 0 ? 1 : more != NULL && *more != '\0' ? atoi(more) : 100;
	Suite *s = suite_create("sim_disk");
	TCase *tc = tcase_create("sim_disk");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 0);
	tcase_add_loop_test(tc, crashes, from, from + n);
	if (n >= 10)
		tcase_add_test(tc, crashes_hurt);
	tcase_add_test(tc, late_write_not_covered);
	tcase_add_test(tc, directory);
	tcase_add_loop_test(tc, faults, 0, 3);
	tcase_add_loop_test(tc, one_disk, 0, sizeof(kinds) / sizeof(kinds[0]));
	suite_add_tcase(s, tc);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
