/* SPDX-License-Identifier: MIT */
/* test_client_session.c - sessions of the client: told again, ended, closed at any time. */
#include "tests/client_rig.h"
#include "tests/suite.h"

/* ---- several metadata servers ---- */

START_TEST(opens_are_told_again)
{
	(void)make("a");
	(void)make("b");
	ck_assert_uint_eq(saw.announced, 0);
	saw.server_run = 78;
	sim_clock_run(world, 3 * NS_PER_S);
	ck_assert_uint_eq(saw.announced, 2);
	sim_clock_run(world, 10 * NS_PER_S);
	ck_assert_uint_eq(saw.announced, 2);
	/* A server that has forgotten us is told at once. */
	saw.server_run = 79;
	bad.method = MSG_lookup;
	bad.times = 1;
	bad.rc = ERR_SESSION;
	client_lookup(c, &reqs[0].op, op_done, NULL, 1, "a");
	ck_assert_int_eq(wait_for(&reqs[0]), 0);
	ck_assert_uint_eq(saw.announced, 4);
}
END_TEST

static bool
session_calls(void *ctx)
{
	return saw.calls[MSG_session] >= *(const unsigned *)ctx;
}

/* The telling fails, and while it waits an answer of an older server says that we are not
 * known: it goes on all the same. */
START_TEST(telling_goes_on)
{
	unsigned calls = saw.calls[MSG_session] + 1;

	(void)make("a");
	(void)make("b");
	saw.server_run = 78;
	ck_assert(sim_clock_run_until(world, session_calls, &calls, 3 * NS_PER_S));
	bad.method = MSG_session;
	bad.times = 1;
	bad.rc = ERR_BUSY;
	calls++;
	ck_assert(sim_clock_run_until(world, session_calls, &calls, NS_PER_S));
	ck_assert_uint_eq(saw.announced, 0);
	bad.method = MSG_lookup;
	bad.times = 1;
	bad.rc = ERR_SESSION;
	client_lookup(c, &reqs[0].op, op_done, NULL, 1, "a");
	ck_assert_int_eq(wait_for(&reqs[0]), 0);
	sim_clock_run(world, 10 * NS_PER_S);
	ck_assert_uint_eq(saw.announced, 2);
}
END_TEST

/* ---- data ---- */

/* Nobody has heard of us for so long that a file we have open was removed. */
static void
lose_session(ino_id ino)
{
	files[ino - 10].ino = 0;
	for (unsigned i = 0; i < CHUNKS; i++)
		if (chunks[i].id.ino == ino)
			chunks[i].used = false;
	saw.server_run++;
	bad.method = MSG_session;
	bad.times = ~0u;
	bad.rc = -ETIMEDOUT;
	sim_clock_run(world, 5 * NS_PER_S);
}

START_TEST(removed_while_unheard)
{
	struct client_file *f = make("a"), *g, *h = make("b");
	ino_id ino = client_file_ino(f);

	g = open_ino(ino, O_RDWR);
	put(f, 0, pattern, 100000, false);
	put(h, CHUNK + 5000, pattern, 1000, false);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_int_eq(sync_file(h), 0);
	lose_session(ino);
	/* What is not there may be a hole or lost: neither is said before it is known. */
	client_read(f, &reqs[2].io, io_done, 0, 1000);
	client_read(h, &reqs[3].io, io_done, 0, 1000);
	sim_clock_run(world, NS_PER_S);
	ck_assert(!reqs[2].done && !reqs[3].done);
	bad.times = 0;
	sim_clock_run(world, 10 * NS_PER_S);
	ck_assert(reqs[2].done && reqs[3].done);
	ck_assert_int_eq(reqs[2].rc, -ESTALE);
	ck_assert_int_eq(reqs[3].rc, 0);
	client_read_done(c, &reqs[3].io);
	reqs[2].done = reqs[3].done = false;
	/* From now on it is known. */
	ck_assert_int_eq(put(g, 0, pattern, 10, false), -ESTALE);
	client_read(g, &reqs[2].io, io_done, 0, 1000);
	ck_assert_int_eq(wait_for(&reqs[2]), -ESTALE);
	ck_assert_int_eq(sync_file(f), 0);	/* nothing of it was unsaved */
	expect(h, CHUNK + 5000, 1000, pattern, 1000);
}
END_TEST

START_TEST(written_while_unheard)
{
	struct client_file *f = make("a"), *g;
	ino_id ino = client_file_ino(f);

	g = open_ino(ino, O_RDWR);
	put(f, 0, pattern, 100, true);	/* acknowledged, its length is not told */
	lose_session(ino);
	ck_assert_int_eq(put(f, 200000, pattern, 100, false), 0);
	bad.times = 0;
	ck_assert_int_eq(sync_file(f), -ESTALE);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_int_eq(sync_file(g), -ESTALE);
	ck_assert_int_eq(sync_file(g), 0);
}
END_TEST

/* We were not heard of for so long that the server gave our session up. */
static void
end_session(void)
{
	saw.server_run++;
	saw.ended = true;
	sim_clock_run(world, 2 * NS_PER_S);	/* the next beat tells */
}

static const struct {
	const char *what;
	bool	 acked, sync;	/* the write had reached storage; and was synced */
	bool	 gone;		/* and the file was removed meanwhile */
	char	 first;		/* what the application does next */
	int	 want, then;
	unsigned stored;	/* writes at storage after all */
} losses[] = {
	{ "unwritten, fsync", false, false, false, 's', -EIO, 0, 0 },
	{ "unwritten, write", false, false, false, 'w', -EIO, 0, 0 },
	{ "unwritten, direct write", false, false, false, 'd', -EIO, 0, 0 },
	{ "unsynced, fsync", true, false, false, 's', -EIO, 0, 1 },
	{ "unsynced, write", true, false, false, 'w', -EIO, 0, 1 },
	{ "synced, fsync", true, true, false, 's', 0, 0, 1 },
	{ "synced, write", true, true, false, 'w', 0, 0, 2 },
	{ "unwritten and removed", false, false, true, 's', -EIO, 0, 0 },
	{ "unsynced and removed", true, false, true, 'w', -EIO, 0, 1 },
	{ "synced and removed", true, true, true, 'w', -ESTALE, 0, 1 },
};

START_TEST(unsaved_data_of_an_ended_session)
{
	struct client_file *f = make("a"), *g, *h = make("b");
	ino_id ino = client_file_ino(f);

	g = open_ino(ino, O_RDONLY);
	ck_assert_int_eq(put(f, 0, pattern, 1000, losses[_i].acked), 0);
	if (losses[_i].sync)
		ck_assert_int_eq(sync_file(f), 0);
	if (losses[_i].gone)
		files[ino - 10].ino = 0;
	end_session();
	ck_assert_uint_eq(saw.announced, 3);
	if (losses[_i].first == 's')
		ck_assert_msg(sync_file(f) == losses[_i].want, "%s",
		    losses[_i].what);
	else {
		ck_assert_msg(put(f, 0, pattern + 1, 10,
		    losses[_i].first == 'd') == losses[_i].want, "%s",
		    losses[_i].what);
		/* a write tells, and so does the close that follows */
		if (losses[_i].want == -EIO)
			ck_assert_int_eq(sync_file(f), -EIO);
		else
			(void)sync_file(f);
	}
	ck_assert_msg(sync_file(f) == losses[_i].then, "%s", losses[_i].what);
	ck_assert_int_eq(sync_file(g), 0);		/* it wrote nothing */
	ck_assert_int_eq(sync_file(h), 0);
	ck_assert_msg(saw.calls[MSG_write] == losses[_i].stored, "%s: %u",
	    losses[_i].what, saw.calls[MSG_write]);
	ck_assert_int_eq(put(h, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(sync_file(h), 0);
	expect(h, 0, 1000, pattern, 1000);
	if (losses[_i].gone) {
		ck_assert_int_eq(put(f, 0, pattern, 1000, false), -ESTALE);
	} else {
		/* nothing dropped is read, nothing new is lost */
		ck_assert_int_eq(put(f, 0, pattern + 7, 100, false), 0);
		ck_assert_int_eq(sync_file(f), 0);
		expect(f, 0, 100, pattern + 7, 100);
	}
	client_release(f);
	client_release(g);
	client_release(h);
	sim_clock_run(world, NS_PER_S);
	ck_assert_uint_eq(c->inodes.n, 0);
	ck_assert_uint_eq(c->ext_n, 0);
}
END_TEST

/* Writes of every stage: none is stored any more, whoever waits is told; once servers have let go
 * of the memory, for which no connection is broken. */
START_TEST(writes_under_way_when_a_session_ends)
{
	struct client_file *f = make("a");

	lend_ns = _i == 2 ? 30 * NS_PER_MS : 0;
	bad.slow = _i == 2;
	bad.method = MSG_write;
	bad.times = ~0u;
	bad.rc = _i == 0 ? ERR_BUSY : -ETIMEDOUT;
	client_write(f, &reqs[1].io, io_done, 0, pattern, 300000, false);
	client_write(f, &reqs[2].io, io_done, 5000, pattern, 1000, true);
	client_write(f, &reqs[4].io, io_done, 400000, pattern, 1000, true);
	client_fsync(f, &reqs[5].op, op_done);
	sim_clock_run(world, 5 * NS_PER_MS);
	end_session();
	bad.times = 0;
	sim_clock_run(world, 100 * NS_PER_MS);
	ck_assert(reqs[1].done);
	ck_assert(reqs[2].done && reqs[2].rc == -EIO);
	reqs[1].done = reqs[2].done = false;
	ck_assert(reqs[4].done && reqs[4].rc == -EIO);
	ck_assert(reqs[5].done && reqs[5].rc == -EIO);
	ck_assert_uint_eq(c->ext_n, 0);
	ck_assert_uint_eq(c->dirty_bytes, 0);
	ck_assert_uint_eq(c->sending_n, 0);
	ck_assert(_i != 2 || saw.writes_cut == 0);
	ck_assert_int_eq(put(f, 0, pattern, 300000, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	expect(f, 0, 300000, pattern, 300000);
}
END_TEST

/* The server was away as long, but it is a new run: nothing has happened to our data. */
START_TEST(a_new_run_takes_nothing_away)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	bad.method = MSG_session;
	bad.times = ~0u;
	bad.rc = -ETIMEDOUT;
	sim_clock_run(world, 4 * NS_PER_S);
	bad.times = 0;
	saw.server_run++;
	sim_clock_run(world, 10 * NS_PER_S);
	ck_assert_int_eq(sync_file(f), 0);
	expect(f, 0, 1000, pattern, 1000);
}
END_TEST

/* ---- the end ---- */

/* Close at every moment of a busy life: nothing leaks, nothing runs afterwards. */
START_TEST(close_at_any_time)
{
	struct client_file *f = make("a"), *g = NULL;
	unsigned steps = (unsigned)_i;

	conf.client_read_ahead = 256 << 10;
	conf.client_hedge = 1;
	read_ns[1] = _i % 4 < 2 ? STOPPED : 0;
	bad.method = _i % 2 ? MSG_read : MSG_write;
	bad.times = 2;
	bad.rc = ERR_BUSY;
	client_write(f, &reqs[1].io, io_done, 0, pattern, 300000, false);
	client_write(f, &reqs[2].io, io_done, 1000, pattern, 200000, true);
	client_read(f, &reqs[3].io, io_done, 0, 300000);
	client_fsync(f, &reqs[4].op, op_done);
	client_file_open(c, &reqs[5].op, op_done, NULL, 10, O_RDWR | O_TRUNC,
	    &g);
	client_read(f, &reqs[6].io, io_done, 0, 65536);
	client_read(f, &reqs[7].io, io_done, 65536, 65536);
	client_read(f, &reqs[8].io, io_done, 131072, 65536);
	if (_i % 3 == 0)
		client_stop(c, on_stop, NULL);
	while (steps-- > 0 && sim_clock_step(world))
		continue;
}
END_TEST

static void
close_now(struct client_op *op, int rc)
{
	(void)op;
	(void)rc;
	client_close(c);
	c = NULL;
}

static void
close_now_io(struct client_io *io, int rc)
{
	close_now(NULL, rc);
	(void)io;
}

START_TEST(close_from_a_callback)
{
	struct client_file *f = make("a");

	client_write(f, &reqs[1].io, io_done, 0, pattern, 100, true);
	if (_i == 0)			/* from a reply */
		client_getattr(c, &reqs[0].op, close_now, NULL, 10);
	else if (_i == 1)		/* from the loop */
		client_lookup(c, &reqs[0].op, close_now, NULL, 1, "");
	else {
		client_read(f, &reqs[0].io, close_now_io, 1 << 20, 10);
		client_lookup(c, &reqs[2].op, op_done, NULL, 1, "");
	}
	sim_clock_run(world, NS_PER_S);
	ck_assert_ptr_null(c);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("all");

#define LOOP(t, rows) tcase_add_loop_test(tc, t, 0, sizeof(rows) / sizeof(rows[0]))
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, opens_are_told_again);
	tcase_add_test(tc, telling_goes_on);
	tcase_add_test(tc, removed_while_unheard);
	tcase_add_test(tc, written_while_unheard);
	LOOP(unsaved_data_of_an_ended_session, losses);
	tcase_add_loop_test(tc, writes_under_way_when_a_session_ends, 0, 3);
	tcase_add_test(tc, a_new_run_takes_nothing_away);
	tcase_add_loop_test(tc, close_at_any_time, 0, 60);
	tcase_add_loop_test(tc, close_from_a_callback, 0, 3);
	return suite_run("client_session", tc);
}
