/* SPDX-License-Identifier: MIT */
/* test_log.c - the durable log while its disk is well: appends, cuts, votes, reads.  Damage
 * and crashes are in test_log_any.c, its bytes in test_log_bytes.c. */
#include "tests/log_rig.h"

START_TEST(a_new_log_is_empty)
{
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(t.first, 0);
	ck_assert_uint_eq(meta_log_first(t.log), 1);
	ck_assert_uint_eq(meta_log_last(t.log), 0);
	ck_assert_uint_eq(meta_log_run(t.log), 1);
	stop(CLEAN);
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(meta_log_run(t.log), 2);
	stop(CLEAN);
}
END_TEST

START_TEST(what_was_appended_comes_back)
{
	ck_assert_int_eq(start(), 0);
	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(append(), 0);
	ck_assert_uint_eq(t.acked, 0);		/* not before it has returned */
	settle();
	ck_assert_uint_eq(t.acked, 20);
	stop(CRASH);
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(t.first, 1);
	ck_assert_uint_eq(t.last, 20);
	stop(CLEAN);
}
END_TEST

START_TEST(appends_of_one_turn_are_one_batch)
{
	uint64_t before;

	ck_assert_int_eq(start(), 0);
	t.more = 100;			/* each entry() appends another */
	ck_assert_int_eq(append(), 0);
	settle();
	ck_assert_uint_eq(t.acked, 101);
	before = sim_clock_now(t.world);
	for (int i = 0; i < 100; i++)
		ck_assert_int_eq(append(), 0);
	settle();
	ck_assert_uint_eq(t.acked, 201);
	ck_assert_uint_lt(sim_clock_now(t.world) - before, 20 * NS_PER_MS);
	stop(CLEAN);
}
END_TEST

START_TEST(a_full_ring_is_busy_until_cut)
{
	int rc;

	ck_assert_int_eq(start(), 0);
	do {
		if ((rc = append()) == ERR_BUSY) {	/* the batch, or the ring */
			settle();
			rc = append();
		}
	} while (rc == 0);
	ck_assert_int_eq(rc, ERR_BUSY);
	ck_assert_uint_eq(t.acked, t.appended);
	ck_assert_uint_ge(meta_log_used_bytes(t.log),
	    meta_log_ring_bytes(t.log) / 10 * 8);
	meta_log_truncate(t.log, t.acked - 3);
	settle();
	ck_assert_uint_le(meta_log_first(t.log), t.acked - 2);
	ck_assert_uint_le(meta_log_used_bytes(t.log),
	    meta_log_ring_bytes(t.log) / 4);
	ck_assert_int_eq(append(), 0);
	settle();
	meta_log_truncate(t.log, t.acked);
	settle();
	ck_assert_uint_eq(meta_log_used_bytes(t.log), 0);
	ck_assert_uint_eq(meta_log_first(t.log), t.acked + 1);
	stop(CLEAN);
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(t.first, 0);
	ck_assert_uint_eq(meta_log_last(t.log), t.acked);
	stop(CLEAN);
}
END_TEST

START_TEST(too_long_is_refused)
{
	static uint8_t big[META_LOG_PAYLOAD_MAX + 1];
	uint64_t index;

	ck_assert_int_eq(start(), 0);
	ck_assert_int_eq(meta_log_append(t.log, 1, 1, big, sizeof(big), &index),
	    -EMSGSIZE);
	stop(CLEAN);
}
END_TEST

START_TEST(closed_inside_a_callback)
{
	ck_assert_int_eq(start(), 0);
	t.stop_at = 5;
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(append(), 0);
	settle();
	ck_assert_ptr_null(t.log);
	ck_assert_uint_eq(t.acked, 5);
	stop(CLEAN);
	ck_assert_int_eq(start(), 0);		/* and during the scan */
	ck_assert_ptr_null(t.log);
	ck_assert(!t.ready);
	stop(CLEAN);
	t.stop_at = 0;
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(t.last, 10);
	stop(CLEAN);
}
END_TEST

START_TEST(a_failed_write_breaks_it)
{
	ck_assert_int_eq(start(), 0);
	ck_assert_int_eq(append(), 0);
	settle();
	if (_i == 0)
		sim_box_conf(t.box)->write_eio_ppm = 1000000;
	else
		sim_box_conf(t.box)->sync_eio_ppm = 1000000;
	ck_assert_int_eq(append(), 0);
	settle();
	ck_assert(t.broken);
	ck_assert_int_eq(t.broken_rc, -EIO);
	ck_assert_uint_eq(t.acked, 1);
	t.appended = 2;
	ck_assert_int_eq(append(), -EIO);
	stop(CLEAN);
}
END_TEST

START_TEST(taken_back)
{
	static const struct { const char *what; unsigned n, turns, to; } cases[] = {
		{ "what was not written", 10, 0, 4 },
		{ "all that was not written", 10, 0, 0 },
		{ "what is being written", 10, 1, 4 },
		{ "what is durable", 10, 2, 4 },
		{ "all that is durable", 10, 2, 0 },
		{ "nothing", 10, 2, 10 },
	};
	unsigned n = cases[_i].n;

	ck_assert_int_eq(start(), 0);
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(append(), 0);
	if (cases[_i].turns > 0)
		sim_clock_run(t.world, 100 * NS_PER_US);
	if (cases[_i].turns > 1)
		settle();
	ck_assert_int_eq(meta_log_cut_back(t.log, n + 1), -EINVAL);
	cut_back(cases[_i].to);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(append(), 0);
	settle();
	ck_assert_uint_eq(t.acked, cases[_i].to + 5);
	cut_back(cases[_i].to + 3);		/* and again */
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(append(), 0);
	settle();
	stop(CRASH);
	ck_assert_msg(start() == 0, "%s: %s", cases[_i].what, err_name(t.ready_rc));
	ck_assert_uint_eq(t.last, cases[_i].to + 8);
	stop(CLEAN);
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(t.last, cases[_i].to + 8);
	stop(CLEAN);
}
END_TEST

START_TEST(begun_again_elsewhere)
{
	ck_assert_int_eq(start(), 0);
	for (unsigned i = 0; i < 10; i++)
		ck_assert_int_eq(append(), 0);
	if (_i > 0)
		settle();
	ck_assert_uint_gt(meta_log_restart(t.log, 100, 7), 0);
	ck_assert_uint_eq(meta_log_first(t.log), 101);
	ck_assert_uint_eq(meta_log_end(t.log), 100);
	ck_assert_uint_eq(meta_log_end_term(t.log), 7);
	settle();
	ck_assert_uint_eq(meta_log_last(t.log), 100);
	stop(CRASH);
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(t.first, 0);
	ck_assert_uint_eq(meta_log_first(t.log), 101);
	ck_assert_uint_eq(meta_log_first_term(t.log), 7);
	stop(CLEAN);
}
END_TEST

START_TEST(a_vote_is_kept_twice)
{
	struct meta_log_hard h = { .term = 5, .vote = 77, .owner = { 1, 2 } };
	uint64_t ticket;

	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(meta_log_hard(t.log)->term, 0);
	ticket = meta_log_save(t.log, &h);
	ck_assert_uint_lt(meta_log_saved(t.log), ticket);
	settle();
	ck_assert_uint_eq(meta_log_saved(t.log), ticket);
	stop(CRASH);
	/* Either header may rot. */
	ck_assert_int_eq(sim_disk_flip(t.box, "d", "log", _i * META_LOG_BLOCK + 50,
	    2), 0);
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(meta_log_hard(t.log)->term, 5);
	ck_assert_uint_eq(meta_log_hard(t.log)->vote, 77);
	ck_assert_int_eq(meta_log_hard(t.log)->owner[1], 2);
	stop(CLEAN);
}
END_TEST

static uint64_t read_next;

static void
read_some(void *ctx, struct meta_log_reader *r, int rc)
{
	static uint8_t buf[META_LOG_PAYLOAD_MAX];
	struct meta_log_entry e;

	(void)ctx;
	ck_assert_int_eq(rc, 0);
	while (meta_log_reader_next(r, &e)) {
		ck_assert_uint_eq(e.index, read_next++);
		ck_assert_uint_eq(e.len, payload(t.content[e.index], buf));
		ck_assert(memcmp(e.payload, buf, e.len) == 0);
	}
	if (read_next <= t.acked)
		meta_log_reader_start(r, read_next, read_some, NULL);
}

static void
read_none(void *ctx, struct meta_log_reader *r, int rc)
{
	(void)r;
	*(int *)ctx = rc;
}

START_TEST(read_back)
{
	struct meta_log_reader *r;
	struct meta_log_entry e;
	int rc = 0;

	ck_assert_int_eq(start(), 0);
	for (unsigned i = 0; i < 40; i++) {
		for (unsigned k = 0; k < 15; k++)
			(void)append();
		settle();
		if (i == 20)
			cut_back(t.acked - 7);
	}
	ck_assert_int_eq(meta_log_get(t.log, t.acked + 1, &e), -ENOENT);
	ck_assert_int_eq(meta_log_get(t.log, t.acked, &e), 0);
	ck_assert_int_eq(meta_log_get(t.log, 1, &e), -EAGAIN);
	ck_assert_int_eq(meta_log_reader_open(&r, t.log), 0);
	for (uint64_t from = 1; from < t.acked; from += 100) {
		read_next = from;
		meta_log_reader_start(r, from, read_some, NULL);
		settle();
		ck_assert_uint_eq(read_next, t.acked + 1);
	}
	meta_log_truncate(t.log, 300);
	settle();
	meta_log_reader_start(r, meta_log_first(t.log) - 1, read_none, &rc);
	settle();
	ck_assert_int_eq(rc, -ENOENT);
	meta_log_reader_start(r, meta_log_first(t.log), read_none, &rc);
	sim_clock_run(t.world, NS_PER_US);
	meta_log_reader_close(r);		/* in flight */
	settle();
	ck_assert_int_eq(rc, -ENOENT);
	stop(CLEAN);
}
END_TEST

int
main(void)
{
	TCase *calm = tcase_create("calm");

	tcase_add_checked_fixture(calm, setup, teardown);
	tcase_add_test(calm, a_new_log_is_empty);
	tcase_add_test(calm, what_was_appended_comes_back);
	tcase_add_test(calm, appends_of_one_turn_are_one_batch);
	tcase_add_test(calm, a_full_ring_is_busy_until_cut);
	tcase_add_test(calm, too_long_is_refused);
	tcase_add_loop_test(calm, taken_back, 0, 6);
	tcase_add_loop_test(calm, begun_again_elsewhere, 0, 2);
	tcase_add_loop_test(calm, a_vote_is_kept_twice, 0, 2);
	tcase_add_test(calm, read_back);
	tcase_add_test(calm, closed_inside_a_callback);
	tcase_add_loop_test(calm, a_failed_write_breaks_it, 0, 2);
	return suite_run("log", calm);
}
