/* SPDX-License-Identifier: MIT */
/* test_client_io.c - data of files: written, truncated, written back. */
#include "tests/client_rig.h"
#include "tests/suite.h"

/* ---- data ---- */

START_TEST(written_data_is_read)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, 300000, false), 0);
	expect(f, 0, 300000, pattern, 300000);		/* some of it in flight */
	expect(f, 299990, 100, pattern + 299990, 10);
	expect(f, 300000, 100, "", 0);
	ck_assert_uint_eq(size_of(client_file_ino(f)), 300000);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_uint_eq(saw.last_len, 300000);
	ck_assert_uint_eq(file_of(client_file_ino(f))->size, 300000);
	expect(f, 12345, 200000, pattern + 12345, 200000);
	/* Five chunks, one call each: nothing was written twice. */
	ck_assert_uint_eq(saw.calls[MSG_write], 5);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_uint_eq(saw.calls[MSG_sync], 1);	/* nothing new to settle */
}
END_TEST

START_TEST(small_appends_become_one_write)
{
	struct client_file *f = make("a");

	for (unsigned i = 0; i < 100; i++)
		ck_assert_int_eq(put(f, i * 100, pattern + i * 100, 100,
		    false), 0);
	ck_assert_uint_eq(saw.calls[MSG_write], 0);
	expect(f, 50, 9000, pattern + 50, 9000);
	ck_assert_uint_eq(saw.calls[MSG_read], 0);	/* all of it was ours */
	sim_clock_run(world, 6 * NS_PER_S);		/* client.write_back */
	ck_assert_uint_eq(saw.calls[MSG_write], 1);
	expect(f, 50, 9000, pattern + 50, 9000);
	ck_assert_uint_eq(saw.calls[MSG_read], 1);
}
END_TEST

START_TEST(holes_are_zeros)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 200000, pattern, 10, false), 0);
	expect(f, 0, 200000, zeros, 200000);
	ck_assert_int_eq(sync_file(f), 0);
	expect(f, 100000, 100000, zeros, 100000);
	client_read(f, &reqs[2].io, io_done, 199999, 100);
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	ck_assert_uint_eq(reqs[2].io.done, 11);
	ck_assert_mem_eq(reqs[2].io.iov[0].iov_base, zeros, 1);
	ck_assert_mem_eq((uint8_t *)reqs[2].io.iov[0].iov_base + 1, pattern,
	    10);
	client_read_done(c, &reqs[2].io);
}
END_TEST

START_TEST(overlapping_writes_keep_their_order)
{
	struct client_file *f = make("a");
	uint8_t want[CHUNK];

	memset(want, 0, sizeof(want));
	rand_seed(&rnd, 5);
	for (unsigned i = 0; i < 400; i++) {
		uint32_t off = (uint32_t)rand_below(&rnd, CHUNK - 3000);
		uint32_t len = 1 + (uint32_t)rand_below(&rnd, 3000);
		uint32_t from = (uint32_t)rand_below(&rnd, 1000);

		if (i == 0)
			off = CHUNK - 3000, len = 3000;
		memcpy(want + off, pattern + from, len);
		ck_assert_int_eq(put(f, off, pattern + from, len,
		    rand_chance(&rnd, 1, 8)), 0);
		if (i % 50 == 7)
			expect(f, 0, CHUNK, want, CHUNK);
	}
	expect(f, 0, CHUNK, want, CHUNK);
	ck_assert_int_eq(sync_file(f), 0);
	expect(f, 0, CHUNK, want, CHUNK);
}
END_TEST

START_TEST(one_write_a_chunk)
{
	struct client_file *f = make("a");

	for (unsigned i = 0; i < 10; i++)
		client_write(f, &reqs[i].io, io_done, i * 5000, pattern, 1000,
		    true);
	sim_clock_run(world, NS_PER_S);
	for (unsigned i = 0; i < 10; i++)
		ck_assert(reqs[i].done);
	ck_assert_uint_eq(saw.writes_at_once, 1);
}
END_TEST

START_TEST(direct_writes_are_stored_when_they_return)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(put(f, 500, pattern, 200000, true), 0);
	/* The buffered one went first, since they overlap. */
	ck_assert_uint_eq(saw.calls[MSG_write], 5);
	expect(f, 0, 500, pattern, 500);
	expect(f, 500, 200000, pattern, 200000);
}
END_TEST

/* What is written directly, and read, lies where it is sent from, or has come to. */
START_TEST(copies_are_counted)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, 200000, true), 0);
	expect(f, 0, 200000, pattern, 200000);
	ck_assert_uint_eq(c->stat.copied_bytes, 0);
	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	ck_assert_uint_eq(c->stat.copied_bytes, 1000);
	expect(f, 500, 1000, pattern + 500, 1000);
	ck_assert_uint_eq(c->stat.copied_bytes, 1500);
}
END_TEST

START_TEST(memory_holds_writers_up)
{
	struct client_file *f = make("a");
	unsigned returned = 0;

	client_close(c);
	c = NULL;
	(void)f;
	conf.client_memory = 8 << 20;
	ready = false;
	start();
	f = make("b");
	bad.method = MSG_write;
	bad.times = ~0u;
	bad.rc = ERR_BUSY;
	for (unsigned i = 0; i < 8; i++)
		client_write(f, &reqs[i].io, io_done, i * 700000ull, pattern,
		    700000, false);
	sim_clock_run(world, 2 * NS_PER_S);
	for (unsigned i = 0; i < 8; i++)
		returned += reqs[i].done;
	ck_assert_uint_lt(returned, 8);
	ck_assert_uint_gt(returned, 3);
	bad.times = 0;
	sim_clock_run(world, 2 * NS_PER_S);
	for (unsigned i = 0; i < 8; i++) {
		ck_assert(reqs[i].done);
		ck_assert_int_eq(reqs[i].rc, 0);
		reqs[i].done = false;
	}
	ck_assert_uint_eq(c->ext_bytes, c->dirty_bytes);
}
END_TEST

START_TEST(reads_wait_for_memory)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, sizeof(pattern), false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	client_close(c);
	c = NULL;
	conf.client_memory = 3 << 20;
	ready = false;
	start();
	f = open_ino(10, O_RDONLY);
	for (unsigned i = 4; i < 12; i++)
		client_read(f, &reqs[i].io, io_done, 0, sizeof(pattern));
	for (unsigned i = 4; i < 12; i++) {
		sim_clock_run(world, 100 * NS_PER_MS);
		ck_assert_msg(reqs[i].done, "read %u", i);
		ck_assert(i > 4 || !reqs[4 + 3].done);
		ck_assert_uint_eq(reqs[i].io.done, sizeof(pattern));
		reqs[i].done = false;
		client_read_done(c, &reqs[i].io);
	}
	ck_assert_uint_eq(mem_used_bytes(c->pool), 0);
}
END_TEST

/* ---- trouble ---- */

START_TEST(a_failed_write_is_told_once_to_each)
{
	struct client_file *f = make("a"), *g = open_ino(10, O_RDWR);

	bad.method = MSG_write;
	bad.times = 1;
	bad.rc = -ENOSPC;
	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(sync_file(f), -ENOSPC);
	ck_assert_int_eq(put(g, 0, pattern, 1000, false), -ENOSPC);
	ck_assert_int_eq(sync_file(g), -ENOSPC);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_int_eq(sync_file(g), 0);
	ck_assert_int_eq(put(g, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(sync_file(g), 0);
	ck_assert_int_eq(put(f, 5, pattern, 1000, true), 0);
	bad.times = 1;
	ck_assert_int_eq(put(f, 5, pattern, 1000, true), -ENOSPC);
	ck_assert_int_eq(sync_file(f), 0);
}
END_TEST

START_TEST(writes_survive_lost_answers)
{
	struct client_file *f = make("a");
	unsigned acted = saw.acted;

	bad.method = MSG_write;
	bad.times = 2;
	bad.rc = -ECONNRESET;
	bad.executed = true;
	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_uint_eq(saw.calls[MSG_write], 3);
	ck_assert_uint_eq(saw.acted, acted + 2);	/* one write, one sync */
}
END_TEST

START_TEST(a_new_head_gets_the_write)
{
	struct client_file *f = make("a");
	static const uint32_t t1[] = { 12, 13 }, t2[] = { 23, 21 };
	uint64_t begun;

	bad.method = MSG_write;
	bad.times = 1;
	bad.rc = -ETIMEDOUT;
	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	client_fsync(f, &reqs[3].op, op_done);
	sim_clock_run(world, 10 * NS_PER_MS);
	begun = clock_now(clk);
	set_chain(1, 2, CHAIN_SERVING, t1, 2);
	set_chain(2, 2, CHAIN_SERVING, t2, 2);
	routing_told();
	ck_assert_int_eq(wait_for(&reqs[3]), 0);
	/* It did not wait for the deadline of the call to the dead one. */
	ck_assert_uint_lt(clock_now(clk) - begun, 10 * NS_PER_MS);
	ck_assert_uint_eq(saw.calls[MSG_write], 2);
}
END_TEST

START_TEST(a_recovering_chain_is_waited_for)
{
	struct client_file *f = make("a");
	static const uint32_t t1[] = { 12, 13 }, t2[] = { 23, 21 };

	ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
	set_chain(1, 2, CHAIN_RECOVERING, t1, 2);
	set_chain(2, 2, CHAIN_RECOVERING, t2, 2);
	ck_assert_int_eq(put(f, 0, pattern + 1, 1000, false), 0);
	client_fsync(f, &reqs[3].op, op_done);
	client_read(f, &reqs[5].io, io_done, 0, 2000);
	sim_clock_run(world, 2 * NS_PER_S);
	ck_assert(!reqs[3].done);
	set_chain(1, 3, CHAIN_SERVING, t1, 2);
	set_chain(2, 3, CHAIN_SERVING, t2, 2);
	routing_told();
	ck_assert_int_eq(wait_for(&reqs[3]), 0);
	ck_assert(reqs[5].done);
	ck_assert_int_eq(reqs[5].rc, 0);
	client_read_done(c, &reqs[5].io);
}
END_TEST

START_TEST(truncated_elsewhere)
{
	struct client_file *f = make("a");
	struct msg_attr *a = file_of(10);

	ck_assert_int_eq(put(f, 0, pattern, 100000, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	truncate_file(a, 10);
	ck_assert_int_eq(put(f, 20, pattern, 100, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_uint_eq(a->size, 120);
	expect(f, 10, 10, zeros, 10);
	expect(f, 20, 200, pattern, 100);
	ck_assert_uint_eq(size_of(10), 120);
}
END_TEST

START_TEST(truncated_here)
{
	struct client_file *f = make("a"), *g;
	struct msg_setattr set = { .valid = META_SET_SIZE, .size = 50 };

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	client_setattr(c, &reqs[5].op, op_done, NULL, 10, &set);
	ck_assert_int_eq(wait_for(&reqs[5]), 0);
	ck_assert_uint_eq(reqs[5].entry.attr.size, 50);
	ck_assert_uint_eq(size_of(10), 50);
	expect(f, 0, 1000, pattern, 50);
	ck_assert_int_eq(put(f, 60, pattern, 10, false), 0);
	ck_assert_uint_eq(size_of(10), 70);
	g = open_ino(10, O_RDWR | O_TRUNC);
	ck_assert_uint_eq(size_of(10), 0);
	expect(g, 0, 100, "", 0);
	ck_assert_int_eq(put(g, 0, pattern, 10, false), 0);
	ck_assert_int_eq(sync_file(g), 0);
	ck_assert_uint_eq(file_of(10)->size, 10);
}
END_TEST

START_TEST(truncated_by_create)
{
	struct client_file *f = make("a"), *g = NULL;

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_int_eq(put(f, 1000, pattern, 1000, false), 0);
	client_file_create(c, &reqs[0].op, op_done, NULL, 1, "a", 0644,
	    O_RDWR | O_TRUNC, &g);
	ck_assert_int_eq(wait_for(&reqs[0]), 0);
	ck_assert_uint_eq(size_of(10), 0);
	ck_assert_int_eq(sync_file(g), 0);
	ck_assert_uint_eq(file_of(10)->size, 0);
	ck_assert_uint_eq(saw.calls[MSG_write], 1);	/* the rest is dropped */
}
END_TEST

START_TEST(times_that_were_set_stay)
{
	struct client_file *f = make("a");
	struct msg_setattr set = { .valid = META_SET_MTIME, .mtime = 5 };

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	client_setattr(c, &reqs[5].op, op_done, NULL, 10, &set);
	ck_assert_int_eq(wait_for(&reqs[5]), 0);
	ck_assert_int_eq(reqs[5].entry.attr.mtime, 5);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_int_eq(file_of(10)->mtime, 5);
}
END_TEST

/* ---- read-ahead ---- */

START_TEST(unchanged_content_is_known)
{
	struct client_file *f = make("a"), *g;

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	client_release(f);
	sim_clock_run(world, 10 * NS_PER_MS);
	g = open_ino(10, O_RDONLY);
	ck_assert(client_file_unchanged(g));	/* only we had changed it */
	client_release(g);
	sim_clock_run(world, 10 * NS_PER_MS);
	file_of(10)->change++;
	g = open_ino(10, O_RDONLY);
	ck_assert(!client_file_unchanged(g));
}
END_TEST

/* ---- the end ---- */

START_TEST(release_settles)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	client_release(f);
	sim_clock_run(world, 10 * NS_PER_MS);
	ck_assert_uint_eq(saw.calls[MSG_close], 1);
	ck_assert_uint_eq(file_of(10)->size, 1000);
	ck_assert_uint_eq(c->inodes.n, 0);
	f = open_ino(10, O_RDONLY);
	client_release(f);
	ck_assert_uint_eq(saw.calls[MSG_close], 2);
	sim_clock_run(world, 10 * NS_PER_MS);
	ck_assert_uint_eq(c->inodes.n, 0);
}
END_TEST

START_TEST(stop_writes_back)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	client_stop(c, on_stop, NULL);
	ck_assert(!stopped);
	ck_assert(sim_clock_run_until(world, is_true, &stopped, NS_PER_S));
	ck_assert_uint_eq(file_of(10)->size, 1000);
	ck_assert(saw.left);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("all");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, written_data_is_read);
	tcase_add_test(tc, small_appends_become_one_write);
	tcase_add_test(tc, holes_are_zeros);
	tcase_add_test(tc, overlapping_writes_keep_their_order);
	tcase_add_test(tc, one_write_a_chunk);
	tcase_add_test(tc, direct_writes_are_stored_when_they_return);
	tcase_add_test(tc, copies_are_counted);
	tcase_add_test(tc, memory_holds_writers_up);
	tcase_add_test(tc, reads_wait_for_memory);
	tcase_add_test(tc, a_failed_write_is_told_once_to_each);
	tcase_add_test(tc, writes_survive_lost_answers);
	tcase_add_test(tc, a_new_head_gets_the_write);
	tcase_add_test(tc, a_recovering_chain_is_waited_for);
	tcase_add_test(tc, truncated_elsewhere);
	tcase_add_test(tc, truncated_here);
	tcase_add_test(tc, truncated_by_create);
	tcase_add_test(tc, times_that_were_set_stay);
	tcase_add_test(tc, unchanged_content_is_known);
	tcase_add_test(tc, release_settles);
	tcase_add_test(tc, stop_writes_back);
	return suite_run("client_io", tc);
}
