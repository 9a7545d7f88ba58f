/* SPDX-License-Identifier: MIT */
/* test_client_relay.c - the client when a server does not answer it, though others reach it:
 * chain 1 is nodes 1, 2, 3 and chain 2 nodes 2, 3, 1. */
#include "tests/client_rig.h"
#include "tests/suite.h"

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

/* It comes back somewhere else: there it is asked. */
START_TEST(a_node_that_moved)
{
	struct client_file *f = make("a");
	struct msg_str addr = msg_str("sim:4:0");
	struct msg_rt_node node = { .id = node_at(0), .name = msg_str("n"),
		.roles = NODE_STORAGE, .state = NODE_UP };
	struct msg_routing_rep d = { .version = ++routing_v };
	uint64_t before;

	cut[node_at(0)] = CUT_REFUSED;
	ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
	ck_assert_uint_eq(relayed_n(), 1);
	d.cluster.b[0] = 1;
	node.changed = d.version;
	node.addrs.v = &addr;
	node.addrs.n = 1;
	d.nodes.v = &node;
	d.nodes.n = 1;
	ck_assert_int_eq(routing_apply(routing, &d), 0);
	routing_told();
	sim_clock_run(world, NS_PER_S);
	ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
	sim_clock_run(world, 10 * NS_PER_MS);
	before = relayed_n();
	ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
	ck_assert_uint_eq(relayed_n(), before);
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

/* It is there again when the other one has gone: it is asked whether it is. */
START_TEST(a_relay_that_was_dead)
{
	struct client_file *f = make("a");

	cut[node_at(0)] = CUT_REFUSED;
	cut[node_at(1)] = CUT_REFUSED;
	ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
	ck_assert_uint_eq(relayed(2), 1);
	cut[node_at(1)] = CUT_NONE;
	cut[node_at(2)] = CUT_REFUSED;
	client_write(f, &reqs[1].io, io_done, 0, pattern + 1, 1000, true);
	sim_clock_run(world, 3 * NS_PER_S);
	ck_assert(reqs[1].done);
	ck_assert_int_eq(reqs[1].rc, 0);
	ck_assert_uint_eq(relayed(1), 1);
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

static void
set_node_state(uint32_t id, uint8_t state)
{
	char text[] = "sim:0:0";
	struct msg_str addr = msg_str(text);
	struct msg_rt_node node = { .id = id, .name = msg_str("n"),
		.roles = NODE_STORAGE, .state = state };
	struct msg_routing_rep d = { .version = ++routing_v };

	text[4] = (char)('0' + id);
	d.cluster.b[0] = 1;
	node.changed = d.version;
	node.addrs.v = &addr;
	node.addrs.n = 1;
	d.nodes.v = &node;
	d.nodes.n = 1;
	ck_assert_int_eq(routing_apply(routing, &d), 0);
}

/* Another head: the old one lets go of the memory first, unless it is down. */
START_TEST(a_head_that_is_none_any_more)
{
	static const uint32_t t1[] = { 12, 13, 11 }, t2[] = { 23, 21, 22 };
	struct client_file *f = make("a");
	unsigned old = node_at(0), acted = saw.acted;

	lend_ns = 30 * NS_PER_MS;
	bad.method = MSG_write;
	bad.times = 1;
	bad.rc = -ETIMEDOUT;
	client_write(f, &reqs[1].io, io_done, 0, pattern, 1000, true);
	sim_clock_run(world, 5 * NS_PER_MS);
	ck_assert_uint_eq(saw.writes_now, 1);
	if (_i == 1)
		set_node_state(old, NODE_DOWN);
	set_chain(old, 2, CHAIN_SERVING, old == 1 ? t1 : t2, 3);
	routing_told();
	sim_clock_run(world, 10 * NS_PER_MS);
	ck_assert_int_eq(reqs[1].done, _i == 1);
	ck_assert_uint_eq(saw.writes_cut, _i == 1);
	routing_told();			/* it is not given up twice */
	sim_clock_run(world, 30 * NS_PER_MS);
	ck_assert(reqs[1].done);
	ck_assert_int_eq(reqs[1].rc, 0);
	ck_assert_uint_eq(saw.writes_cut, _i == 1);
	ck_assert_uint_eq(saw.acted, acted + 1);
	ck_assert_uint_eq(c->sending_n, 0);
	ck_assert_uint_eq(saw.writes_of[old], 1);
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

/* ---- metadata ---- */

static uint64_t
create_ms(const char *name)
{
	struct client_file *f = NULL;
	uint64_t begun = clock_now(clk);

	client_file_create(c, &reqs[0].op, op_done, NULL, 1, name, 0644, O_RDWR,
	    &f);
	ck_assert_int_eq(wait_for(&reqs[0]), 0);
	return (clock_now(clk) - begun) / NS_PER_MS;
}

/* The client is cut from the one that leads: the others pass its calls on. */
START_TEST(calls_go_round)
{
	unsigned acted;

	add_metas();
	routing_told();
	ck_assert_uint_le(create_ms("a"), 2);
	cut[META] = _i == 0 ? CUT_SILENT : CUT_REFUSED;
	acted = saw.acted;
	ck_assert_uint_le(create_ms("b"), _i == 0 ? 1300 : 10);
	ck_assert_uint_ge(relayed_n(), 1);
	metas.asked[META] = 0;
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_le(create_ms((const char *[]){ "c", "d", "e", "f" }[i]),
		    2);
	ck_assert_uint_eq(saw.acted, acted + 5);
	ck_assert_uint_le(metas.asked[META], 1);	/* is it there again? */
	/* Its session goes on. */
	saw.calls[MSG_session] = 0;
	sim_clock_run(world, 4 * NS_PER_S);
	ck_assert_uint_ge(saw.calls[MSG_session], 3);
	ck_assert(client_session_sure(c));
	cut[META] = CUT_NONE;
	sim_clock_run(world, 4 * NS_PER_S);
	ck_assert_uint_eq(saw.acted, acted + 5);
	memset(metas.asked, 0, sizeof(metas.asked));
	memset(saw.relayed_by, 0, sizeof(saw.relayed_by));
	(void)size_of(10);
	ck_assert_uint_eq(metas.asked[META], 1);
	ck_assert_uint_eq(metas.asked[7] + metas.asked[8], 0);
	ck_assert_uint_eq(saw.relayed_by[7] + saw.relayed_by[8], 0);
}
END_TEST

/* It acted, and the answer was lost: directly, at the relay, or at both. */
START_TEST(calls_act_once)
{
	unsigned acted;

	add_metas();
	routing_told();
	(void)create_ms("a");
	acted = saw.acted;
	bad.method = MSG_create;
	bad.times = 1 + _i;
	bad.rc = -EHOSTUNREACH;
	bad.executed = true;
	(void)create_ms("b");
	ck_assert_uint_eq(saw.acted, acted + 1);
}
END_TEST

/* Another one leads meanwhile: it is asked itself, not by the others for ever. */
START_TEST(a_relay_is_the_last_resort)
{
	add_metas();
	routing_told();
	(void)create_ms("a");
	cut[META] = CUT_REFUSED;
	metas.leads = 7 + _i;
	(void)create_ms("b");
	ck_assert_uint_eq(relayed_n(), 0);
	(void)create_ms("c");
	ck_assert_uint_eq(relayed_n(), 0);
}
END_TEST

/* The managers do not hear the one that leads, though the client does. */
START_TEST(a_leader_that_is_not_up)
{
	uint32_t nodes[] = { 7, 8, META };
	uint64_t members[] = { 1, 2, 3 };
	struct msg_str addr = msg_str("sim:9:0");
	struct msg_rt_node node = { .id = META, .changed = ++routing_v,
		.name = msg_str("n"), .roles = NODE_METADATA, .state = NODE_DOWN,
		.addrs = { &addr, 1 } };
	struct msg_rt_group group = { .id = 1, .changed = routing_v,
		.group = { { 1 } }, .nodes = { nodes, 3 }, .members = { members, 3 },
		.leader = META, .term = 5 };
	struct msg_routing_rep d = { .version = routing_v,
		.nodes = { &node, 1 }, .groups = { &group, 1 } };

	add_metas();
	routing_told();
	(void)create_ms("a");
	d.cluster.b[0] = 1;
	node.changed = group.changed = d.version = ++routing_v;
	ck_assert_int_eq(routing_apply(routing, &d), 0);
	routing_told();
	sim_clock_run(world, NS_PER_MS);
	ck_assert_uint_le(create_ms("b"), 2);
	ck_assert_uint_eq(metas.asked[7] + metas.asked[8], 0);
}
END_TEST

/* The leader is gone for everybody: nobody is asked more often than before. */
START_TEST(calls_wait_for_an_election)
{
	unsigned asked;
	struct client_file *f = NULL;

	add_metas();
	routing_told();
	(void)create_ms("a");
	cut[META] = CUT_REFUSED;
	dead[META] = true;
	client_file_create(c, &reqs[0].op, op_done, NULL, 1, "b", 0644, O_RDWR, &f);
	asked = metas.asked[7] + metas.asked[8];
	sim_clock_run(world, 2 * NS_PER_S);
	asked = metas.asked[7] + metas.asked[8] - asked;
	ck_assert_uint_ge(asked, 40);
	ck_assert_uint_le(asked, 250);
	metas.leads = 8;
	sim_clock_run(world, 110 * NS_PER_MS);
	ck_assert(reqs[0].done);
	ck_assert_int_eq(reqs[0].rc, 0);
}
END_TEST

/* The client goes away while all kinds of things are under way. */
START_TEST(closes)
{
	struct client_file *f = make("a");

	cut[node_at(0)] = CUT_SILENT;
	cut[node_at(1)] = CUT_REFUSED;
	cut[META] = _i % 3 == 0 ? CUT_SILENT : CUT_NONE;
	client_write(f, &reqs[1].io, io_done, 0, pattern, sizeof(pattern), true);
	sim_clock_run(world, (uint64_t)_i * 117 * NS_PER_MS);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("all");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, writes_go_round, 0, sizeof(cuts) / sizeof(cuts[0]));
	tcase_add_test(tc, the_direct_way_comes_back);
	tcase_add_test(tc, a_node_that_moved);
	tcase_add_test(tc, a_way_that_comes_and_goes);
	tcase_add_test(tc, a_dead_head);
	tcase_add_loop_test(tc, a_dead_relay, 0, 2);
	tcase_add_test(tc, a_relay_that_was_dead);
	tcase_add_loop_test(tc, acts_once, 0, 3);
	tcase_add_loop_test(tc, a_head_that_is_none_any_more, 0, 2);
	tcase_add_test(tc, alone);
	tcase_add_loop_test(tc, calls_go_round, 0, 2);
	tcase_add_loop_test(tc, calls_act_once, 0, 4);
	tcase_add_loop_test(tc, a_relay_is_the_last_resort, 0, 2);
	tcase_add_test(tc, a_leader_that_is_not_up);
	tcase_add_test(tc, calls_wait_for_an_election);
	tcase_add_loop_test(tc, closes, 0, 30);
	return suite_run("client_relay", tc);
}
