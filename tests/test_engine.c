/* SPDX-License-Identifier: MIT */
/* test_engine.c - a disk of chunks, operation by operation. */
#include "tests/engine_rig.h"

/* One version of every size of chunk, the big ones with parts at both ends. */
START_TEST(every_shift)
{
	struct world w;
	uint8_t shift = (uint8_t)(16 + _i);
	uint32_t size = 1u << shift, sum = chunk_sum_bytes(shift);

	world_init(&w, 5);
	world_format(&w, 256 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, shift, 100, 50, 1, 1, true), 0);
	expect_fill(&w, one_id, 0, 0, 100, 0);
	expect_fill(&w, one_id, 0, 100, 50, 1);
	ck_assert_int_eq(put_fill(&w, one_id, shift, size - 5, 5, 2, 2, true), 0);
	expect_fill(&w, one_id, 0, 150, size - 155, 0);
	expect_fill(&w, one_id, 0, size - 5, 5, 2);
	ck_assert_uint_le(used(&w), 4 * (uint64_t)sum);
	ck_assert_int_eq(put_fill(&w, one_id, shift, 0, size, 3, 3, true), 0);
	run_for(&w, 200);
	ck_assert_uint_eq(used(&w), size);
	ck_assert_int_eq(put_fill(&w, one_id, shift, size / 2 + 1, 1, 4, 4, true), 0);
	expect_fill(&w, one_id, 0, 0, size / 2 + 1, 3);
	expect_fill(&w, one_id, 0, size / 2 + 1, 1, 4);
	expect_fill(&w, one_id, 0, size / 2 + 2, size / 2 - 2, 3);
	run_for(&w, 200);
	ck_assert_uint_eq(used(&w), size);	/* copied a block, gave one back */
	ck_assert_int_eq(do_kind(&w, one_id, UPDATE_TRUNCATE, shift, 77, 5, true), 0);
	expect_fill(&w, one_id, 0, 0, 77, 3);
	ck_assert_int_eq(put_fill(&w, one_id, shift, 200, 1, 9, 6, true), 0);
	expect_fill(&w, one_id, 0, 77, 123, 0);
	/* Who removes need not know how big chunks of that file are. */
	ck_assert_int_eq(do_kind(&w, one_id, UPDATE_REMOVE, 16, 0, 7, true), 0);
	run_for(&w, 200);
	ck_assert_uint_eq(used(&w), 0);
	chunk_engine_check(w.e);
	world_fini(&w);
}
END_TEST

/* Small appends use what is there: few runs, nothing copied. */
START_TEST(appends)
{
	struct world w;
	struct chunk_row row = { 0 };

	world_init(&w, 5);
	world_format(&w, 64 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	for (uint32_t i = 0; i < 1000; i++)
		ck_assert_int_eq(put_fill(&w, one_id, 20, i * 1000, 1000, (uint8_t)i, i + 1,
		    true), 0);
	for (uint32_t i = 0; i < 1000; i++)
		expect_fill(&w, one_id, 0, i * 1000, 1000, (uint8_t)i);
	ck_assert_int_eq(chunk_index_get(&w.e->index, 1, one_id, true, &row), 0);
	ck_assert_uint_le(row.extents.n, 9);
	chunk_row_fini(&row);
	run_for(&w, 200);
	ck_assert_uint_eq(used(&w), 1 << 20);
	world_fini(&w);
}
END_TEST

/* Where a walk over the pending ones begins and ends. */
START_TEST(pending_walk)
{
	static const struct {
		const char *what;
		target_id target;
		struct chunk_id from;
		bool after;
		uint32_t found;			/* index, 99: none */
	} rows[] = {
		{ "the first of all",		1, { 0, 0 }, false, 2 },
		{ "itself",			1, { 5, 2 }, false, 2 },
		{ "the one behind",		1, { 5, 2 }, true, 7 },
		{ "between two",		1, { 5, 3 }, false, 7 },
		{ "the last has none behind",	1, { 5, 7 }, true, 99 },
		{ "not another target's",	1, { 5, 8 }, false, 99 },
		{ "a target between",		2, { 0, 0 }, false, 99 },
		{ "a target behind",		3, { 5, 0 }, false, 0 },
	};
	struct world w;
	struct chunk_info i;
	struct chunk_write x = { .target = 3, .id = { 5, 0 },
	    .kind = UPDATE_TRUNCATE, .shift = 16, .version = 1 };
	uint64_t chunks, bytes;

	world_init(&w, 5);
	world_format(&w, 16 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	for (uint32_t k = 0; k < 8; k++)	/* 2 and 7 stay pending */
		ck_assert_int_eq(put_fill(&w, (struct chunk_id){ 5, k }, 16, 0,
		    100 + k, 1, 1, k % 5 != 2), 0);
	ck_assert_int_eq(do_write(&w, &x), 0);
	for (size_t k = 0; k < sizeof(rows) / sizeof(rows[0]); k++) {
		int rc = chunk_engine_next_pending(w.e, rows[k].target,
		    rows[k].from, rows[k].after, &i);

		ck_assert_msg(rows[k].found == 99 ? rc == -ENOENT :
		    rc == 0 && i.id.index == rows[k].found, "%s", rows[k].what);
	}
	chunk_engine_count(w.e, 1, &chunks, &bytes);
	ck_assert_uint_eq(chunks, 6);
	ck_assert_uint_eq(bytes, 100 + 101 + 103 + 104 + 105 + 106);
	chunk_engine_count(w.e, 3, &chunks, &bytes);
	ck_assert_uint_eq(chunks + bytes, 0);
	ck_assert_int_eq(chunk_engine_commit(w.e, 1, (struct chunk_id){ 5, 2 }, 1), 0);
	ck_assert_int_eq(chunk_engine_abort(w.e, 1, (struct chunk_id){ 5, 7 }, 1), 0);
	ck_assert_int_eq(chunk_engine_next_pending(w.e, 1, (struct chunk_id){ 0 },
	    false, &i), -ENOENT);
	chunk_engine_check(w.e);
	world_fini(&w);
}
END_TEST

START_TEST(full_disk)
{
	struct world w;
	uint64_t cap, n;
	uint32_t i;
	int rc = 0;

	world_init(&w, 5);
	w.full_percent = 90;
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	for (i = 0; rc == 0 && i < 100; i++)
		rc = put_fill(&w, (struct chunk_id){ 1, i }, 18, 0, 1 << 18, 5, 1, true);
	ck_assert_int_eq(rc, -ENOSPC);
	chunk_engine_space(w.e, &cap, &n);
	ck_assert_uint_eq(cap, 8 << 20);
	ck_assert_uint_le(n, cap * 9 / 10);
	ck_assert_uint_gt(n + (1 << 18), cap * 9 / 10);
	/* What needs no data works; what it frees can be used at once. */
	ck_assert_int_eq(do_kind(&w, (struct chunk_id){ 1, 0 }, UPDATE_TRUNCATE, 18, 5000, 2,
	    true), 0);
	ck_assert_int_eq(do_kind(&w, (struct chunk_id){ 1, 1 }, UPDATE_REMOVE, 18, 0, 2,
	    true), 0);
	ck_assert_int_eq(put_fill(&w, (struct chunk_id){ 1, 99 }, 18, 0, 1 << 18, 6, 1,
	    true), 0);
	expect_fill(&w, (struct chunk_id){ 1, 99 }, 0, 0, 1 << 18, 6);
	expect_fill(&w, (struct chunk_id){ 1, 0 }, 0, 0, 5000, 5);
	chunk_engine_check(w.e);
	world_fini(&w);
}
END_TEST

/* The bound of the index is met with an answer, long before the table fails. */
START_TEST(full_index)
{
	struct world w;
	uint32_t i;
	int rc = 0;

	world_init(&w, 5);
	w.index_bytes = 40000;
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	for (i = 0; rc == 0 && i < 1000; i++)
		rc = put_fill(&w, (struct chunk_id){ 1, i }, 16, 0, 1, 5, 1, true);
	ck_assert_int_eq(rc, -ENOSPC);
	ck_assert_uint_gt(i, 50);
	ck_assert_int_eq(do_kind(&w, (struct chunk_id){ 1, 0 }, UPDATE_REMOVE, 16, 0, 2,
	    true), 0);
	ck_assert_int_eq(put_fill(&w, (struct chunk_id){ 1, 9999 }, 16, 0, 1, 5, 1, true),
	    0);
	/* What is counted at open is the same. */
	{
		uint64_t cost = w.e->index.cost_bytes;

		run_for(&w, 500);
		world_shut(&w);
		ck_assert_int_eq(world_open(&w), 0);
		ck_assert_uint_eq(w.e->index.cost_bytes, cost);
	}
	world_fini(&w);
}
END_TEST

/* Answers to what makes no sense. */
START_TEST(refusals)
{
	struct world w;
	struct chunk_write x = { .target = 1, .id = one_id, .kind = UPDATE_WRITE,
	    .shift = 16, .version = 1, .len = 8 };
	struct chunk_read r;
	struct chunk_info i;

	world_init(&w, 5);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(chunk_engine_info(w.e, 1, one_id, &i), -ENOENT);
	ck_assert_int_eq(do_read(&w, one_id, 0, 0, 1, &r), -ENOENT);
	ck_assert_int_eq(chunk_engine_commit(w.e, 1, one_id, 1), -ENOENT);
	ck_assert_int_eq(chunk_engine_abort(w.e, 1, one_id, 1), -ENOENT);
	payload(&w, &x, "12345678");
	x.crc++;
	ck_assert_int_eq(do_write(&w, &x), ERR_PAYLOAD_CRC);
	ck_assert_uint_eq(used(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, 15, 0, 1, 1, 1, false), -EINVAL);
	ck_assert_int_eq(put_fill(&w, one_id, 27, 0, 1, 1, 1, false), -EINVAL);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 65535, 2, 1, 1, false), -EINVAL);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 65536, 1, 1, 1, false), -EINVAL);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 1, 1, 0, false), -EINVAL);
	ck_assert_int_eq(do_kind(&w, one_id, 5, 16, 0, 1, false), -EINVAL);
	ck_assert_int_eq(do_kind(&w, one_id, UPDATE_TRUNCATE, 16, 65537, 1, false), -EINVAL);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 9, 1, 5, true), 0);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 9, 1, 5, false), -EINVAL);
	ck_assert_int_eq(put_fill(&w, one_id, 17, 0, 9, 1, 6, false), -EINVAL);
	ck_assert_int_eq(do_read(&w, one_id, 4, 0, 1, &r), -ENOENT);
	ck_assert_int_eq(do_read(&w, one_id, 0, 9, 1, &r), 0);	/* at the end: nothing */
	ck_assert_uint_eq(r.got, 0);
	ck_assert_uint_eq(r.got_version, 5);
	/* Empty by truncation, and of nothing. */
	ck_assert_int_eq(do_kind(&w, (struct chunk_id){ 9, 9 }, UPDATE_TRUNCATE, 16, 5, 1,
	    true), 0);
	ck_assert_int_eq(chunk_engine_info(w.e, 1, (struct chunk_id){ 9, 9 }, &i), 0);
	ck_assert_uint_eq(i.committed_len, 0);
	ck_assert_int_eq(do_kind(&w, (struct chunk_id){ 9, 8 }, UPDATE_REMOVE, 16, 5, 1,
	    true), 0);
	ck_assert_int_eq(chunk_engine_info(w.e, 1, (struct chunk_id){ 9, 8 }, &i), -ENOENT);
	chunk_engine_check(w.e);
	world_fini(&w);
}
END_TEST

/* A read that began before its version was removed and its space written again. */
START_TEST(reads_pin)
{
	struct world w;
	struct one o = { .r = { .target = 1, .id = one_id, .len = 1 << 20 } };
	struct sim_disk_conf *c;

	world_init(&w, 5);
	world_format(&w, 5 << 20);		/* room for four of them */
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, 20, 0, 1 << 20, 5, 1, true), 0);
	c = sim_box_conf(w.box);
	c->read_min_ns = c->read_max_ns = NS_PER_S;
	chunk_read_start(&o.r, w.e, one_read);
	run_for(&w, 1);
	c->read_min_ns = c->read_max_ns = 0;
	ck_assert_int_eq(do_kind(&w, one_id, UPDATE_REMOVE, 20, 0, 2, true), 0);
	run_for(&w, 200);
	ck_assert_uint_eq(used(&w), 1 << 20);
	for (uint32_t i = 0; i < 3; i++)
		ck_assert_int_eq(put_fill(&w, (struct chunk_id){ 1, i }, 20, 0, 1 << 20, 6,
		    1, true), 0);
	ck_assert(!o.done);
	/* This one has to wait for the reader. */
	ck_assert_int_eq(put_fill(&w, (struct chunk_id){ 1, 9 }, 20, 0, 1 << 20, 6, 1, true),
	    0);
	ck_assert(o.done);
	ck_assert_int_eq(o.rc, 0);
	for (uint32_t i = 0; i < 1 << 20; i++)
		if (o.r.data[i] != 5)
			ck_abort_msg("byte %u", i);
	mem_put(&o.r.buf);
	world_fini(&w);
}
END_TEST

/* ---- callbacks that close the engine ---- */

struct closer {
	struct world *w;
	struct chunk_write x[3];
	unsigned called;
};

static void
close_it(struct chunk_write *x, int rc)
{
	struct closer *c;

	memcpy(&c, x->who.client.b, sizeof(c));
	ck_assert_int_eq(rc, 0);
	c->called++;
	chunk_engine_close(c->w->e);
	c->w->e = NULL;
}

START_TEST(close_in_callback)
{
	struct world w;
	struct closer c = { .w = &w };
	struct closer *pc = &c;

	world_init(&w, 5);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	for (uint32_t i = 0; i < 3; i++) {
		c.x[i] = (struct chunk_write){ .target = 1, .id = { 1, i },
		    .kind = UPDATE_WRITE, .shift = 16, .version = 1, .len = 16 };
		memcpy(c.x[i].who.client.b, &pc, sizeof(pc));
		payload(&w, &c.x[i], disk_id.b);
		chunk_write_start(&c.x[i], w.e, close_it);
	}
	while (c.called == 0)
		turn(&w);
	run_for(&w, 1000);
	ck_assert_uint_eq(c.called, 1);
	for (uint32_t i = 0; i < 3; i++)
		mem_put(&c.x[i].buf);
	world_fini(&w);
}
END_TEST

/* A disk that does not answer has failed; while the process stands still it is not known. */
START_TEST(no_answer)
{
	bool stopped = _i == 1;
	struct world w;

	world_init(&w, 5);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	sim_box_conf(w.box)->read_min_ns = sim_box_conf(w.box)->read_max_ns =
	    90 * NS_PER_S;
	run_for(&w, CHUNK_CHECK_MS + 1000);
	sim_clock_node_pause(w.clock, stopped);
	sim_clock_run(w.time, 80 * NS_PER_S);
	sim_clock_node_pause(w.clock, false);
	run_for(&w, 20000);
	ck_assert_int_eq(chunk_engine_state(w.e), stopped ? 0 : -EIO);
	world_fini(&w);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("engine");

	tcase_set_timeout(tc, 0);
	tcase_add_loop_test(tc, every_shift, 0, 11);
	tcase_add_test(tc, appends);
	tcase_add_test(tc, pending_walk);
	tcase_add_test(tc, full_disk);
	tcase_add_test(tc, full_index);
	tcase_add_test(tc, refusals);
	tcase_add_test(tc, reads_pin);
	tcase_add_test(tc, close_in_callback);
	tcase_add_loop_test(tc, no_answer, 0, 2);
	return suite_run("engine", tc);
}
