/* SPDX-License-Identifier: MIT */
/* test_client_relay.c - the client when a server does not answer it, though others reach it:
 * chain 1 is nodes 1, 2, 3 and chain 2 nodes 2, 3, 1. */
#include "tests/client_rig.h"

static uint64_t
relayed_n(void)
{
	return client_stats(c)->relayed;
}

/* Nodes of the chain that the first chunk is on: its head, and those behind it. */
static unsigned
node_at(unsigned place)
{
	struct layout l;
	const struct routing_chain *ch;

	layout_of_attr(&files[0], &l);
	ch = routing_chain(routing, layout_chain(routing, &l, 0));
	return ch->targets[place] % 10;
}

static unsigned
relayed(unsigned place)
{
	return saw.relayed_by[node_at(place)];
}

/* A client that is cut from one node alone goes on, within about a second. */
static const struct {
	const char *what;
	int	    cut;
	unsigned    node;
	uint64_t    most_ms;
} cuts[] = {
	{ "nothing comes from node 1", CUT_SILENT, 1, 1300 },
	{ "nothing comes from node 2", CUT_SILENT, 2, 1300 },
	{ "node 1 refuses",	       CUT_REFUSED, 1, 20 },
	{ "node 2 refuses",	       CUT_REFUSED, 2, 20 },
};

START_TEST(writes_go_round)
{
	struct client_file *f = make("a");
	uint64_t begun;

	cut[cuts[_i].node] = cuts[_i].cut;
	ck_assert_int_eq(put(f, 0, pattern, 300000, false), 0);
	begun = clock_now(clk);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_msg(clock_now(clk) - begun <= cuts[_i].most_ms * NS_PER_MS,
	    "%s: %u ms", cuts[_i].what,
	    (unsigned)((clock_now(clk) - begun) / NS_PER_MS));
	ck_assert_uint_ge(relayed_n(), 2);
	ck_assert_uint_eq(saw.acted, 5 + 2);	/* chunks, create and sync */
	/* The next ones do not ask the node at all, but for a question now and then. */
	saw.writes_of[cuts[_i].node] = 0;
	begun = clock_now(clk);
	ck_assert_int_eq(put(f, 0, pattern + 1, 300000, true), 0);
	ck_assert_uint_le(clock_now(clk) - begun, 20 * NS_PER_MS);
	/* It may well pass on what is for another. */
	ck_assert_uint_eq(saw.writes_of[cuts[_i].node], 0);
	cut[cuts[_i].node] = CUT_NONE;
	expect(f, 0, 300000, pattern + 1, 300000);
}
END_TEST

START_TEST(the_direct_way_comes_back)
{
	struct client_file *f = make("a");
	unsigned asked;
	uint64_t before;

	cut[node_at(0)] = CUT_REFUSED;
	ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
	ck_assert_uint_eq(relayed_n(), 1);
	/* One question a second, however much is written. */
	for (unsigned i = 0; i < 500; i++) {
		ck_assert_int_eq(put(f, 0, pattern + i, 1000, true), 0);
		sim_clock_run(world, 9 * NS_PER_MS);
	}
	asked = saw.calls[MSG_committed];
	ck_assert_uint_ge(asked, 4);
	ck_assert_uint_le(asked, 6);
	cut[node_at(0)] = CUT_NONE;
	before = relayed_n();
	sim_clock_run(world, NS_PER_S);
	ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
	sim_clock_run(world, 10 * NS_PER_MS);
	ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
	ck_assert_uint_le(relayed_n(), before + 1);
	ck_assert_uint_eq(saw.calls[MSG_committed], asked + 1);
	expect(f, 0, 1000, pattern, 1000);
}
END_TEST

/* Each time it comes and goes it is trusted a bit later. */
START_TEST(a_way_that_comes_and_goes)
{
	struct client_file *f = make("a");
	uint64_t away[5] = { 0 };

	for (unsigned k = 0; k < 5; k++) {
		uint64_t begun;

		cut[node_at(0)] = CUT_REFUSED;
		do {
			ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
		} while (relayed(1) + relayed(2) == 0);
		cut[node_at(0)] = CUT_NONE;
		begun = clock_now(clk);
		while (relayed(1) + relayed(2) > 0) {
			memset(saw.relayed_by, 0, sizeof(saw.relayed_by));
			ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
			sim_clock_run(world, 50 * NS_PER_MS);
		}
		away[k] = clock_now(clk) - begun;
	}
	ck_assert_uint_lt(away[0], 1300 * NS_PER_MS);
	ck_assert_uint_gt(away[1], 1800 * NS_PER_MS);
	ck_assert_uint_gt(away[2], 3500 * NS_PER_MS);
	ck_assert_uint_gt(away[4], 7000 * NS_PER_MS);
	ck_assert_uint_lt(away[4], 9000 * NS_PER_MS);
}
END_TEST

/* The head is gone for everybody: one write at a time finds out, the others wait for
 * the manager. */
START_TEST(a_dead_head)
{
	static const uint32_t t1[] = { 12, 13 }, t2[] = { 23, 21 };
	struct client_file *f = make("a");
	unsigned tries;

	cut[node_at(0)] = CUT_REFUSED;
	dead[node_at(0)] = true;
	client_write(f, &reqs[1].io, io_done, 0, pattern, sizeof(pattern), true);
	sim_clock_run(world, 3 * NS_PER_S);
	ck_assert(!reqs[1].done);
	tries = relayed(1) + relayed(2);
	ck_assert_uint_ge(tries, 10);
	ck_assert_uint_le(tries, 40);
	ck_assert_uint_ge(relayed(1), tries / 3);	/* by turns */
	ck_assert_uint_ge(relayed(2), tries / 3);
	if (node_at(0) == 1)
		set_chain(1, 2, CHAIN_SERVING, t1, 2);
	else
		set_chain(2, 2, CHAIN_SERVING, t2, 2);
	routing_told();
	sim_clock_run(world, 50 * NS_PER_MS);
	ck_assert(reqs[1].done);
	ck_assert_int_eq(reqs[1].rc, 0);
	expect(f, 0, sizeof(pattern), pattern, sizeof(pattern));
}
END_TEST

/* The relay is not there either: another one is taken. */
START_TEST(a_dead_relay)
{
	struct client_file *f = make("a");
	uint64_t begun;

	cut[node_at(0)] = _i == 0 ? CUT_REFUSED : CUT_SILENT;
	cut[node_at(1)] = cut[node_at(0)];
	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	begun = clock_now(clk);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_uint_le(clock_now(clk) - begun, _i == 0 ? 20 * NS_PER_MS :
	    2500 * NS_PER_MS);
	ck_assert_uint_eq(relayed(2), 1);
}
END_TEST

/* The relay dies with the answer, and the head with an answer before: it acted once. */
START_TEST(acts_once)
{
	struct client_file *f = make("a");
	unsigned acted = saw.acted;

	bad.method = MSG_write;
	bad.times = 4;
	bad.rc = _i == 0 ? -ECONNREFUSED : _i == 1 ? -ECONNRESET : -ETIMEDOUT;
	bad.executed = true;
	ck_assert_int_eq(put(f, 0, pattern, 1000, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	ck_assert_uint_ge(relayed(1) + relayed(2), 1);
	ck_assert_uint_eq(saw.acted, acted + 2);
	expect(f, 0, 1000, pattern, 1000);
}
END_TEST

/* A replica that does nothing is still a way; nobody but the head is none. */
START_TEST(alone)
{
	static const uint32_t t1[] = { 11, 12, 13 }, t2[] = { 22, 23, 21 };
	struct client_file *f = make("a");

	set_chain_states(1, 2, t1, 3, 1);
	set_chain_states(2, 2, t2, 3, 1);
	routing_told();
	sim_clock_run(world, NS_PER_MS);
	cut[node_at(0)] = CUT_SILENT;
	client_write(f, &reqs[1].io, io_done, 0, pattern, 1000, true);
	sim_clock_run(world, 20 * NS_PER_S);
	ck_assert(!reqs[1].done);
	ck_assert_uint_eq(relayed_n(), 0);
	cut[node_at(0)] = CUT_NONE;
	ck_assert_int_eq(wait_for(&reqs[1]), 0);
}
END_TEST

/* The client goes away while all kinds of things are under way. */
START_TEST(closes)
{
	struct client_file *f = make("a");

	cut[node_at(0)] = CUT_SILENT;
	cut[node_at(1)] = CUT_REFUSED;
	client_write(f, &reqs[1].io, io_done, 0, pattern, sizeof(pattern), true);
	sim_clock_run(world, (uint64_t)_i * 117 * NS_PER_MS);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("client_relay");
	TCase *tc = tcase_create("all");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, writes_go_round, 0, sizeof(cuts) / sizeof(cuts[0]));
	tcase_add_test(tc, the_direct_way_comes_back);
	tcase_add_test(tc, a_way_that_comes_and_goes);
	tcase_add_test(tc, a_dead_head);
	tcase_add_loop_test(tc, a_dead_relay, 0, 2);
	tcase_add_loop_test(tc, acts_once, 0, 3);
	tcase_add_test(tc, alone);
	tcase_add_loop_test(tc, closes, 0, 30);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
