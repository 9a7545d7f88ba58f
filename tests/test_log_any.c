/* SPDX-License-Identifier: MIT */
/* test_log_any.c - the durable log over a disk that turns bits, tears and forgets.  N=n runs n
 * seeds of crashes, SEED=n just that one. */
#include "tests/log_rig.h"
#include "tests/suite.h"

/* ---- damage ---- */

/* Several batches of one entry each, a block apart; header synced up to some. */
static void
batches(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t index;

		ck_assert_int_eq(meta_log_append(t.log, 1, 1, "x", 1, &index), 0);
		settle();
	}
}

static const struct {
	const char *what;
	unsigned before, after;		/* batches in the first and second run */
	unsigned block;			/* of the ring: where a bit turns */
	int	 rc;
	uint64_t last;
} damages[] = {
	{ "the last batch, nothing behind: as if it was torn", 0, 5, 4, 0, 4 },
	{ "a batch before the last", 0, 5, 3, ERR_LOG_DAMAGED, 0 },
	{ "the first batch", 0, 5, 0, ERR_LOG_DAMAGED, 0 },
	{ "the last batch, but an open has seen it", 5, 0, 4, ERR_LOG_DAMAGED, 0 },
	{ "between runs", 3, 3, 2, ERR_LOG_DAMAGED, 0 },
};

START_TEST(damage)
{
	t.checked = false;
	ck_assert_int_eq(start(), 0);
	batches(damages[_i].before);
	stop(CLEAN);
	ck_assert_int_eq(start(), 0);
	batches(damages[_i].after);
	stop(CLEAN);
	ck_assert_int_eq(sim_disk_flip(t.box, "d", "log", META_LOG_HEADERS +
	    damages[_i].block * META_LOG_BLOCK + 20, 1), 0);
	ck_assert_msg(start() == damages[_i].rc, "%s: %s", damages[_i].what,
	    err_name(t.ready_rc));
	if (t.ready_rc == 0)
		ck_assert_msg(t.last == damages[_i].last, "%s", damages[_i].what);
	stop(CLEAN);
}
END_TEST

START_TEST(one_header_is_enough)
{
	ck_assert_int_eq(start(), 0);
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(append(), 0);
	settle();
	stop(CLEAN);
	/* The last open wrote block 1.  Without it the entries of that run do not count,
	 * but they are there: not a log that is shorter than what was acknowledged. */
	ck_assert_int_eq(sim_disk_flip(t.box, "d", "log", _i * META_LOG_BLOCK + 50,
	    2), 0);
	ck_assert_int_eq(start(), _i == 0 ? 0 : ERR_LOG_DAMAGED);
	ck_assert_uint_eq(t.last, _i == 0 ? 5 : 0);
	stop(CLEAN);
	ck_assert_int_eq(sim_disk_flip(t.box, "d", "log", 60, 2), 0);
	ck_assert_int_eq(sim_disk_flip(t.box, "d", "log", META_LOG_BLOCK + 60, 2),
	    0);
	t.checked = false;
	ck_assert_int_ne(start(), 0);
	stop(CLEAN);
}
END_TEST

/* ---- any weather ---- */

static void
weather(void)
{
	struct sim_disk_conf *c = sim_box_conf(t.box);

	c->write_min_ns = 20 * NS_PER_US;
	c->write_max_ns = 500 * NS_PER_US;
	c->sync_min_ns = 50 * NS_PER_US;
	c->sync_max_ns = 2 * NS_PER_MS;
	c->read_min_ns = 10 * NS_PER_US;
	c->read_max_ns = 100 * NS_PER_US;
}

static void
cut(void)
{
	uint64_t n = t.acked - t.cut;

	if (n == 0)
		return;
	t.cut += rand_chance(&t.rand, 1, 4) ? n :
	    1 + rand_below(&t.rand, t.brim ? (n + 7) / 8 : n);
	meta_log_truncate(t.log, t.cut);
}

/* Append and cut at random until some moment. */
static void
load(void)
{
	unsigned steps = (unsigned)rand_below(&t.rand, 100);

	for (unsigned i = 0; i < steps; i++) {
		unsigned n = rand_chance(&t.rand, 1, t.brim ? 3 : 8) ?
		    (unsigned)rand_below(&t.rand, 200) :
		    (unsigned)rand_below(&t.rand, 4);

		while (n-- > 0) {
			if (append() == 0)
				continue;
			if (!t.brim || meta_log_used_bytes(t.log) <
			    meta_log_ring_bytes(t.log) / 4 * 3)
				break;
			cut();			/* and at once fill it again */
			if (append() != 0)
				break;
		}
		if (!t.brim && rand_chance(&t.rand, 1, 6))
			cut();
		if (t.cuts_back && rand_chance(&t.rand, 1, 6)) {
			uint64_t low = t.appended > 80 ? t.appended - 80 : 0;
			struct meta_log_entry e;

			/* in memory, as the group sees to */
			low = low < meta_log_first(t.log) - 1 ?
			    meta_log_first(t.log) - 1 : low;
			low = low < t.cut ? t.cut : low;
			while (low < t.appended &&
			    (meta_log_get(t.log, low, &e) == -EAGAIN ||
			    meta_log_get(t.log, low + 1, &e) == -EAGAIN))
				low++;
			if (low < t.appended)
				cut_back(low + rand_below(&t.rand,
				    t.appended - low + 1));
		}
		sim_clock_run(t.world, rand_below(&t.rand, 3 * NS_PER_MS));
	}
}

/* However it ends, the next process finds every entry that was acknowledged and not cut,
 * in order, nothing that was never appended, and nothing that an earlier process had
 * already found missing. */
START_TEST(any_end)
{
	uint64_t seed = getenv("SEED") != NULL && *getenv("SEED") != '\0' ?
	    strtoull(getenv("SEED"), NULL, 0) : (uint64_t)_i;

	setup_seed(seed);
	weather();
	t.brim = rand_chance(&t.rand, 1, 2);
	t.cuts_back = rand_chance(&t.rand, 1, 2);
	for (unsigned run = 1; run <= 12; run++) {
		unsigned r = (unsigned)rand_below(&t.rand, 10);

		/* sometimes the process dies while it opens */
		if (r == 0) {
			t.clock = sim_clock_node(t.world, 0, 0);
			sim_disk_dir(t.box, t.clock, "d", true, &t.dir);
			t.ready = false;
			t.first = t.last = 0;
			ck_assert_int_eq(meta_log_open(&t.log,
			    &(struct meta_log_conf){ .clock = t.clock,
				.dir = t.dir, .name = "log",
				.bytes = t.log_bytes, .ops = &ops }), 0);
			sim_clock_run(t.world, rand_below(&t.rand,
			    12 * NS_PER_MS));
			if (t.ready) {
				ck_assert_int_eq(t.ready_rc, 0);
				t.run = meta_log_run(t.log);
				t.appended = meta_log_last(t.log);
					}
			stop(CRASH);
			continue;
		}
		ck_assert_msg(start() == 0, "seed %lu run %u: %s",
		    (unsigned long)seed, run, err_name(t.ready_rc));
		ck_assert_uint_gt(meta_log_run(t.log), t.run);
		t.run = meta_log_run(t.log);
		ck_assert_uint_ge(meta_log_last(t.log), t.acked);
		ck_assert_uint_le(meta_log_first(t.log), t.cut + 1);
		if (t.first != 0) {
			ck_assert_uint_eq(t.first, meta_log_first(t.log));
			ck_assert_uint_eq(t.last, meta_log_last(t.log));
		}
		t.appended = t.acked = meta_log_last(t.log);
		load();
		stop(rand_chance(&t.rand, 1, 10) ? CLEAN :
		    rand_chance(&t.rand, 1, 3) ? KILL : CRASH);
	}
	teardown();
}
END_TEST

int
main(void)
{
	TCase *damaged = tcase_create("damage"), *any = tcase_create("any");
	const char *n = getenv("N"), *seed = getenv("SEED");
	int seeds = n != NULL && atoi(n) > 0 ? atoi(n) : 120;

	tcase_add_checked_fixture(damaged, setup, teardown);
	tcase_add_loop_test(damaged, damage, 0,
	    (int)(sizeof(damages) / sizeof(damages[0])));
	tcase_add_loop_test(damaged, one_header_is_enough, 0, 2);
	tcase_add_loop_test(any, any_end, 0,
	    seed != NULL && *seed != '\0' ? 1 : seeds);
	return suite_run_all("log_any", damaged, any, NULL);
}
