/* SPDX-License-Identifier: MIT */
/* test_storage_relay.c - requests that a replica passes on to the head of its chain. */
#include "tests/storage_rig.h"

#define MANY	80u

static uint8_t data[1 << SHIFT], got[1 << SHIFT];

static target_id
replica(unsigned i)
{
	return chain_of(0)->targets[i];
}

static unsigned
node_at(unsigned i)
{
	return node_of(replica(i));
}

/* A write to the first chain by replica @via (0: none), sent to @to. */
static int
put_via(target_id to, target_id via, uint64_t seq)
{
	struct msg_write m = write_msg(0, 0, data, sizeof(data), seq, 0);

	m.via = via;
	return call(to, MSG_write, &m, data, sizeof(data), NULL, 0);
}

/* Calls that are not waited for. */
static struct {
	struct net_call call;
	struct iovec iov;
	bool	 done;
	int	 rc;
	uint64_t ended_ns;
} many[MANY + 4];

static void
one_done(struct net_call *c, int rc)
{
	unsigned i = (unsigned)(container_of(c, __typeof__(many[0]), call) - many);

	many[i].done = true;
	many[i].rc = rc;
	many[i].ended_ns = clock_now(T.client.clock);
}

static void
send_to(unsigned i, target_id at, target_id via, uint32_t index, uint64_t seq)
{
	struct net_call_opts o = { .deadline_ns = clock_now(T.client.clock) +
	    5 * NS_PER_S, .send = &many[i].iov, .send_n = 1 };
	struct msg_write m = write_msg(index, 0, data, sizeof(data), seq, 0);
	struct net_addr to;

	m.via = via;
	memset(&many[i], 0, sizeof(many[i]));
	many[i].iov = (struct iovec){ data, sizeof(data) };
	ck_assert_int_eq(routing_target_addr(member_routing(T.member), at, &to), 0);
	ck_assert_int_eq(net_call_start(&many[i].call, T.client.hubs[0], &to,
	    MSG_write, &m, &o, one_done), 0);
}

static void
send_via(unsigned i, target_id via, uint32_t index, uint64_t seq)
{
	send_to(i, via, via, index, seq);
}

static void
open_with_data(uint64_t seed)
{
	cluster_open(seed, 1);
	rand_bytes(&T.rand, data, sizeof(data));
}

static void
read_back(unsigned version)
{
	for (unsigned i = 0; i < NODES; i++) {
		ck_assert_int_eq(get(i, 0, 0, got, sizeof(got)), 0);
		ck_assert_uint_eq(R.len, sizeof(got));
		ck_assert_mem_eq(got, data, sizeof(got));
		ck_assert_uint_eq(R.version, version);
	}
}

/* The client reaches all but the head. */
START_TEST(passes_on)
{
	struct msg_cut cut_msg;
	struct msg_last last;

	open_with_data(1);
	sim_net_cut(T.net, CLIENT_NODE, node_at(0), SIM_NET_SILENT);
	for (unsigned i = 1; i < NODES; i++) {
		ck_assert_int_eq(put_via(replica(i), replica(i), i), 0);
		ck_assert_uint_eq(R.version, i);
		ck_assert_uint_eq(R.len, sizeof(data));
	}
	cut_msg = (struct msg_cut){ chain_of(0)->id, chain_of(0)->version,
	    replica(0), INO, 0, 100, 7, 10, replica(2), 0 };
	ck_assert_int_eq(call(replica(2), MSG_cut, &cut_msg, NULL, 0, NULL, 0), 0);
	ck_assert_uint_eq(R.chunks, 1);
	ck_assert_int_eq(get(1, 0, 0, got, sizeof(got)), 0);
	ck_assert_uint_eq(R.len, 100);
	/* To the tail likewise, by whoever is not cut from it. */
	last = (struct msg_last){ chain_of(0)->id, chain_of(0)->version, replica(2),
	    INO, replica(1) };
	ck_assert_int_eq(call(replica(1), MSG_last, &last, NULL, 0, NULL, 0), 0);
	ck_assert_uint_eq(R.found, 1);
	ck_assert_uint_eq(R.len, 100);
	/* What the head refuses is refused. */
	ck_assert_int_eq(put_via(replica(1), replica(1), 3), ERR_STALE_EPOCH);
	sim_net_heal(T.net);
	cluster_close();
}
END_TEST

/* However the attempts go, it is one write. */
START_TEST(acts_once)
{
	const struct { bool direct; unsigned by; } ways[] = { { true, 0 },
		{ false, 1 }, { false, 2 }, { true, 0 }, { false, 1 } };

	open_with_data(2);
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		ck_assert_int_eq(ways[i].direct ? put_via(replica(0), 0, 5) :
		    put_via(replica(ways[i].by), replica(ways[i].by), 5), 0);
		ck_assert_uint_eq(R.version, 1);
	}
	/* And all at once. */
	for (unsigned i = 0; i < 6; i++)
		send_via(i, replica(1 + i % 2), 0, 6);
	ck_assert_int_eq(put_via(replica(0), 0, 6), 0);
	sim_clock_run(T.world, NS_PER_S);
	for (unsigned i = 0; i < 6; i++) {
		ck_assert(many[i].done);
		ck_assert_int_eq(many[i].rc, 0);
	}
	read_back(2);
	cluster_close();
}
END_TEST

/* Only a replica of that chain passes on, only to its head, and only what came to it. */
START_TEST(refusals)
{
	struct msg_write m;
	target_id other;

	open_with_data(3);
	other = chain_of(1)->targets[0];
	/* It names another than who gets it: nobody passes it on to that one. */
	ck_assert_int_eq(put_via(replica(1), replica(2), 1), ERR_NOT_OWNER);
	ck_assert_int_eq(put_via(replica(0), other, 1), ERR_NOT_OWNER);
	ck_assert_int_eq(put_via(replica(0), 12345, 1), ERR_NOT_OWNER);
	/* The head itself; a replica of another chain. */
	ck_assert_int_eq(put_via(replica(0), replica(0), 1), ERR_NOT_OWNER);
	ck_assert_int_eq(put_via(other, other, 1), ERR_NOT_OWNER);
	/* To one that is not the head. */
	m = write_msg(0, 0, data, sizeof(data), 1, 0);
	m.via = replica(1);
	m.target = replica(2);
	ck_assert_int_eq(call(replica(1), MSG_write, &m, data, sizeof(data), NULL, 0),
	    ERR_NOT_OWNER);
	/* Of another version of the chain. */
	m.target = replica(0);
	m.chain_version++;
	ck_assert_int_eq(call(replica(1), MSG_write, &m, data, sizeof(data), NULL, 0),
	    ERR_STALE_CHAIN);
	/* What is not sound goes through to who says so. */
	m.chain_version--;
	m.len--;
	ck_assert_int_eq(call(replica(1), MSG_write, &m, data, sizeof(data), NULL, 0),
	    -EINVAL);
	ck_assert_int_eq(get(0, 0, 0, got, sizeof(got)), 0);
	ck_assert_int_eq(R.item_rc, -ENOENT);
	cluster_close();
}
END_TEST

/* The relay does not reach the head either, and says so soon. */
START_TEST(head_out_of_reach)
{
	uint64_t begun;

	open_with_data(4);
	T.m.no_part = true;
	sim_net_cut(T.net, node_at(0), node_at(2), _i == 0 ? SIM_NET_SILENT :
	    SIM_NET_RESET);
	begun = clock_now(T.client.clock);
	ck_assert_int_eq(put_via(replica(2), replica(2), 1), ERR_CHAIN_RECOVERING);
	ck_assert_uint_lt(clock_now(T.client.clock) - begun, 1300 * NS_PER_MS);
	if (_i == 0)			/* silence may pass */
		ck_assert_uint_gt(clock_now(T.client.clock) - begun, 850 * NS_PER_MS);
	ck_assert_int_eq(put_via(replica(1), replica(1), 1), 0);
	sim_net_heal(T.net);
	sim_clock_run(T.world, 2 * NS_PER_S);
	ck_assert_int_eq(put_via(replica(2), replica(2), 1), 0);
	ck_assert_uint_eq(R.version, 1);
	cluster_close();
}
END_TEST

/* A head that is slow answers pings: who passes on waits for it as long as who asked. */
START_TEST(slow_head)
{
	struct sim_disk_conf *x;
	uint64_t begun, was;

	open_with_data(8);
	T.m.no_part = true;
	x = sim_box_conf(T.nodes[node_at(0) - 1].box);
	was = x->sync_max_ns;
	x->sync_min_ns = x->sync_max_ns = 3 * NS_PER_S;
	begun = clock_now(T.client.clock);
	ck_assert_int_eq(put_via(replica(2), replica(2), 1), 0);
	ck_assert_uint_gt(clock_now(T.client.clock) - begun, 2 * NS_PER_S);
	ck_assert_uint_eq(R.version, 1);
	x->sync_min_ns = 0;
	x->sync_max_ns = was;
	cluster_close();
}
END_TEST

/* The relay dies, with or without having passed it on. */
START_TEST(relay_dies)
{
	unsigned relay;
	int rc;

	open_with_data(5);
	relay = node_at(2);
	send_via(0, replica(2), 0, 9);
	sim_clock_run(T.world, (uint64_t)_i * 100 * NS_PER_US);
	host_down(&T.nodes[relay - 1], KILL);
	sim_clock_run(T.world, NS_PER_S);
	ck_assert(many[0].done);
	wait_serving(NODES - 1);
	while ((rc = put_via(replica(1), replica(1), 9)) == ERR_CHAIN_RECOVERING)
		sim_clock_run(T.world, 20 * NS_PER_MS);
	ck_assert_int_eq(rc, 0);
	ck_assert_uint_eq(R.version, 1);
	ck_assert_int_eq(put_via(replica(0), 0, 9), 0);
	ck_assert_uint_eq(R.version, 1);
	cluster_close();
}
END_TEST

/* Payload that waits for a head is bounded, and a head that is not waited for is
 * not bothered by it. */
START_TEST(bounds)
{
	unsigned busy = 0, taken = 0, heads = 0;

	open_with_data(6);
	T.m.no_part = true;
	sim_net_cut(T.net, node_at(0), node_at(1), SIM_NET_SILENT);
	for (unsigned i = 0; i < MANY; i++)
		send_via(i, replica(1), 4 * i, 100 + i);
	sim_clock_run(T.world, 500 * NS_PER_MS);
	for (unsigned i = 0; i < MANY; i++) {
		busy += many[i].done && many[i].rc == ERR_BUSY;
		taken += !many[i].done;
	}
	ck_assert_uint_eq(busy + taken, MANY);
	ck_assert_uint_eq(taken, (16u << 20) / 8 / sizeof(data));
	/* It is head of other chains, for which there is room. */
	for (uint32_t i = 0; i < 4; i++) {
		const struct routing_chain *c = chain_of(i);

		if (node_of(c->targets[0]) == node_at(1))
			send_via(MANY + heads++, c->targets[1 + (node_of(
			    c->targets[1]) == node_at(0))], i, 7);
	}
	ck_assert_uint_gt(heads, 0);
	sim_clock_run(T.world, 100 * NS_PER_MS);
	for (unsigned i = 0; i < heads; i++) {
		ck_assert(many[MANY + i].done);
		ck_assert_int_eq(many[MANY + i].rc, 0);
	}
	sim_clock_run(T.world, NS_PER_S);
	for (unsigned i = 0; i < MANY; i++)
		ck_assert(many[i].done);
	sim_net_heal(T.net);
	sim_clock_run(T.world, 3 * NS_PER_S);
	cluster_close();
}
END_TEST

/* The chain moves on under it: whoever asked hears at once, and asks the new head. */
START_TEST(chain_moves)
{
	struct routing_chain row;
	uint64_t begun;

	open_with_data(7);
	T.m.no_part = true;
	T.m.by_hand = true;
	sim_net_cut(T.net, node_at(0), node_at(1), SIM_NET_SILENT);
	send_via(0, replica(1), 0, 9);
	sim_clock_run(T.world, 100 * NS_PER_MS);
	ck_assert(!many[0].done);
	begun = clock_now(T.client.clock);
	row = *routing_chain(T.m.routing, chain_of(0)->id);
	row.states[0] = TARGET_OFFLINE;
	put_chain(&row);
	publish();
	sim_clock_run(T.world, 100 * NS_PER_MS);
	ck_assert(many[0].done);
	ck_assert_int_eq(many[0].rc, ERR_STALE_CHAIN);
	ck_assert_uint_lt(many[0].ended_ns - begun, 50 * NS_PER_MS);
	ck_assert_int_eq(put_via(replica(1), replica(1), 9), 0);
	ck_assert_uint_eq(R.version, 1);
	sim_net_heal(T.net);
	cluster_close();
}
END_TEST

/* With devices who passes on lends its memory to the head, and the head to its successor, until
 * they answer; when the chain moves on meanwhile they are asked to let go, and connections stay. */
START_TEST(memory_is_let_go_first)
{
	unsigned from = _i % 2, to = 1 - from;
	const struct net_hub_stat *hub;
	struct routing_chain row;
	uint64_t connects;

	with_devices = true;
	open_with_data(70 + (uint64_t)_i);
	with_devices = false;
	ck_assert_int_eq(put_via(replica(1), replica(1), 9), 0);
	hub = net_hub_stats(T.nodes[node_at(from) - 1].hubs[0]);
	connects = hub->connects;
	T.m.by_hand = true;
	sim_net_lag(T.net, node_at(to), node_at(from), 20000);
	send_to(0, replica(from), from == 1 ? replica(1) : 0, 0, 10);
	sim_clock_run(T.world, (1 + (uint64_t)_i / 2) * NS_PER_MS);
	ck_assert(!many[0].done);
	row = *routing_chain(T.m.routing, chain_of(0)->id);
	row.states[2] = TARGET_OFFLINE;
	put_chain(&row);
	publish();
	sim_clock_run(T.world, 5 * NS_PER_MS);
	ck_assert(many[0].done);
	ck_assert_int_eq(many[0].rc, ERR_STALE_CHAIN);
	ck_assert_uint_gt(hub->calls_now, 0);
	sim_clock_run(T.world, 100 * NS_PER_MS);
	ck_assert_uint_eq(hub->connects, connects);
	sim_net_lag(T.net, node_at(to), node_at(from), 0);
	ck_assert_int_eq(put_via(replica(1), replica(1), 11), 0);
	ck_assert_uint_eq(hub->connects, connects);
	cluster_close();
}
END_TEST

/* The chain moves on while who passes on still READs the payload: that ends first, for it cannot
 * be taken back without the connection. */
START_TEST(payload_is_taken_first)
{
	const struct net_hub_stat *hub;
	struct net_mem_set *known;
	struct routing_chain row;
	uint64_t connects;

	with_devices = client_with_device = true;
	open_with_data(90 + (uint64_t)_i);
	with_devices = client_with_device = false;
	ck_assert_int_eq(net_mem_add(T.client.hubs[0], data, sizeof(data), &known), 0);
	ck_assert_int_eq(put_via(replica(1), replica(1), 9), 0);
	hub = net_hub_stats(T.client.hubs[0]);
	connects = hub->connects;
	T.m.by_hand = true;
	sim_net_lag(T.net, CLIENT_NODE, node_at(1), 20000);
	send_via(0, replica(1), 0, 10);
	sim_clock_run(T.world, 21 * NS_PER_MS + (uint64_t)_i * 4 * NS_PER_MS);
	ck_assert(!many[0].done);
	row = *routing_chain(T.m.routing, chain_of(0)->id);
	row.states[2] = TARGET_OFFLINE;
	put_chain(&row);
	publish();
	sim_clock_run(T.world, 100 * NS_PER_MS);
	ck_assert(many[0].done);
	ck_assert_int_eq(many[0].rc, ERR_STALE_CHAIN);
	ck_assert_uint_eq(hub->connects, connects);
	sim_net_lag(T.net, CLIENT_NODE, node_at(1), 0);
	ck_assert_int_eq(put_via(replica(1), replica(1), 10), 0);
	ck_assert_uint_eq(hub->connects, connects);
	net_mem_del(T.client.hubs[0], known);
	cluster_close();
}
END_TEST

/* Any of the three ends at any moment. */
START_TEST(ends)
{
	unsigned who;

	open_with_data(8 + (uint64_t)_i);
	if (_i % 2 == 0) {
		T.m.no_part = true;
		sim_net_cut(T.net, node_at(0), node_at(1), SIM_NET_SILENT);
	}
	for (unsigned i = 0; i < 4; i++)
		send_via(i, replica(1), 0, 9 + i);
	sim_clock_run(T.world, (uint64_t)_i * 70 * NS_PER_US);
	who = node_at(_i % 3 == 0 ? 0 : 1);
	for (unsigned i = 0; i < 4 && _i % 3 == 2; i++)
		net_call_cancel(&many[i].call);
	host_down(&T.nodes[who - 1], _i % 4 < 2 ? KILL : CLEAN);
	sim_clock_run(T.world, 100 * NS_PER_MS);
	sim_net_heal(T.net);
	for (unsigned i = 0; i < 4; i++)
		net_call_cancel(&many[i].call);
	cluster_close();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("storage_relay");
	TCase *tc = tcase_create("all");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, passes_on);
	tcase_add_test(tc, acts_once);
	tcase_add_test(tc, refusals);
	tcase_add_loop_test(tc, head_out_of_reach, 0, 2);
	tcase_add_test(tc, slow_head);
	tcase_add_loop_test(tc, relay_dies, 0, 16);
	tcase_add_test(tc, bounds);
	tcase_add_test(tc, chain_moves);
	tcase_add_loop_test(tc, memory_is_let_go_first, 0, 10);
	tcase_add_loop_test(tc, payload_is_taken_first, 0, 5);
	tcase_add_loop_test(tc, ends, 0, 24);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
