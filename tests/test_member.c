/* SPDX-License-Identifier: MIT */
/* test_member.c - a member of the cluster: registers, beats, keeps its lease, leaves. */
#include "tests/member_rig.h"

/* ---- servers ---- */

START_TEST(registers_and_beats)
{
	struct net_addr at;
	uint64_t total, used;

	join(NODE_STORAGE, 1);
	ck_assert_uint_eq(member_node(m), 0);
	ck_assert_uint_eq(member_lease_until_ns(m), 0);
	member_manager(m, &at);
	ck_assert_uint_eq(at.kind, NET_ADDR_NONE);
	run_ms(10);
	ck_assert_uint_eq(member_node(m), 7);
	ck_assert_uint_eq(cluster.registers, 1);
	ck_assert_uint_eq(cluster.beats, 1);
	ck_assert_uint_eq(cluster.disks, 2);
	ck_assert_ptr_nonnull(strstr(cluster.said, "name=\"n1\""));
	ck_assert_ptr_nonnull(strstr(cluster.said,
	    "addrs=[\"sim:9:0\" \"sim:9:1\"]"));
	member_manager(m, &at);
	ck_assert_uint_eq(at.kind, NET_ADDR_SIM);
	member_space(m, &total, &used);
	ck_assert(total == 1000 && used == 10);
	/* from the sending of the beat, not from its answer */
	ck_assert_uint_eq(member_lease_until_ns(m),
	    cluster.beat_ns + 3000 * NS_PER_MS);
	ck_assert_uint_ge(changes, 1);
	run_ms(10000);
	ck_assert_uint_ge(cluster.beats, 20);
	ck_assert_uint_le(cluster.beats, 25);
	ck_assert_uint_ge(lease_left_ms(), 2400);
	ck_assert_uint_eq(cluster.registers, 1);
	ck_assert_uint_eq(cluster.refreshes, 0);
}
END_TEST

/* The manager falls silent: the lease ends when it said, and not a moment later. */
START_TEST(lease_runs_out)
{
	uint64_t until;

	join(NODE_STORAGE, 1);
	run_ms(1000);
	managers[0].silent = true;
	until = member_lease_until_ns(m);
	run_ms(20000);
	ck_assert_uint_le(member_lease_until_ns(m), until);
	ck_assert_uint_eq(lease_left_ms(), 0);
	changes = 0;
	managers[0].silent = false;
	run_ms(3000);
	ck_assert_uint_ge(lease_left_ms(), 2000);
	ck_assert_uint_ge(changes, 1);
	ck_assert_uint_eq(cluster.registers, 1);
}
END_TEST

/* What was ours before a lapse may be another's: the routing that one has to have is asked
 * for at once, and the lease that is won again names it. */
START_TEST(lease_after_a_lapse)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	publish(5);
	run_ms(1000);
	managers[0].silent = true;
	run_ms(20000);
	cluster.routing = 9;			/* no poll brings it */
	managers[0].silent = false;
	for (int i = 0; i < 5000 && lease_left_ms() == 0; i++)
		run_ms(1);
	ck_assert_uint_gt(lease_left_ms(), 0);
	ck_assert_uint_eq(member_lease_routing(m), 9);
	run_ms(100);
	ck_assert_uint_eq(routing_version(member_routing(m)), 9);
}
END_TEST

/* An answer late by most of a lease counts from when its beat was sent. */
START_TEST(silence_is_short_enough)
{
	join(NODE_STORAGE, 1);
	run_ms(100);
	managers[0].silent = true;
	run_ms(1300);		/* one beat is given up after a third of the lease */
	managers[0].silent = false;
	run_ms(700);
	ck_assert_uint_ge(lease_left_ms(), 2000);
}
END_TEST

START_TEST(stale_registers_again)
{
	join(NODE_STORAGE, 1);
	run_ms(100);
	cluster.beat_rc = ERR_STALE_NODE;
	changes = 0;
	for (int i = 0; i < 502 && member_lease_until_ns(m) != 0; i++)
		run_ms(1);
	ck_assert_uint_eq(member_lease_until_ns(m), 0);	/* at once */
	ck_assert_uint_ge(changes, 1);
	run_ms(5000);		/* another process fights for the node */
	ck_assert_uint_ge(cluster.registers, 5);
	ck_assert_uint_le(cluster.registers, 12);
	cluster.beat_rc = 0;
	run_ms(2100);
	ck_assert_uint_eq(cluster.boot.b[0], 3);	/* the same boot */
	ck_assert_uint_ge(lease_left_ms(), 2400);
	cluster.registers = 0;
	run_ms(5000);
	ck_assert_uint_eq(cluster.registers, 0);
}
END_TEST

/* The registration of a process before us came late, after ours. */
START_TEST(taken_for_late)
{
	static const struct uid128 first = { { 3 } };

	join(NODE_STORAGE, 1);
	run_ms(100);
	ck_assert(uid128_eq(member_boot(m), &first));
	managers[0].rc = ERR_STALE_NODE;
	run_ms(2000);
	ck_assert_uint_eq(member_lease_until_ns(m), 0);
	managers[0].rc = 0;
	run_ms(2000);
	ck_assert_uint_eq(member_lease_until_ns(m), 0);	/* not at once */
	run_ms(4000);
	ck_assert(!uid128_eq(member_boot(m), &first));
	ck_assert(uid128_eq(member_boot(m), &cluster.boot));
	ck_assert_uint_ge(lease_left_ms(), 2400);
}
END_TEST

START_TEST(backs_off)
{
	unsigned calls;

	managers[0].rc = -ECONNREFUSED;
	join(NODE_STORAGE, 1);
	run_ms(60000);
	calls = managers[0].calls;
	ck_assert_uint_ge(calls, 60);
	ck_assert_uint_le(calls, 160);
	managers[0].rc = 0;
	run_ms(2100);
	ck_assert_uint_ge(lease_left_ms(), 500);
}
END_TEST

START_TEST(nonsense_is_bounded)
{
	cluster.lease_ms = 0;
	join(NODE_STORAGE, 1);
	run_ms(1000);
	ck_assert_uint_eq(member_node(m), 0);	/* refused */
	cluster.lease_ms = 90;
	cluster.beat_ms = UINT32_MAX;
	run_ms(3000);
	ck_assert_uint_eq(member_node(m), 7);
	cluster.beats = 0;
	run_ms(300);
	ck_assert_uint_ge(cluster.beats, 9);	/* three in a lease */
	ck_assert_uint_ge(lease_left_ms(), 50);
}
END_TEST

/* ---- leaving and closing ---- */

START_TEST(leaves)
{
	unsigned calls;

	join(NODE_STORAGE, 1);
	run_ms(1000);
	member_leave(m, on_left, &world);
	ck_assert_uint_eq(member_lease_until_ns(m), 0);
	ck_assert_uint_eq(left, 0);
	run_ms(5);
	ck_assert_uint_eq(left, 1);
	ck_assert_uint_eq(cluster.goodbyes, 1);
	calls = managers[0].calls;
	member_refresh(m);
	run_ms(20000);
	ck_assert_uint_eq(managers[0].calls, calls);	/* silence */
	ck_assert_uint_eq(left, 1);
}
END_TEST

START_TEST(leaves_without_an_answer)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	managers[0].silent = true;
	member_leave(m, on_left, &world);
	run_ms(999);
	ck_assert_uint_eq(left, 0);
	run_ms(2);
	ck_assert_uint_eq(left, 1);
}
END_TEST

START_TEST(leaves_unregistered)
{
	managers[0].rc = -ECONNREFUSED;
	join(NODE_STORAGE, 1);
	run_ms(100);
	member_leave(m, on_left, &world);
	ck_assert_uint_eq(left, 0);
	run_ms(1);
	ck_assert_uint_eq(left, 1);
}
END_TEST

/* At any moment; teardown() looks for what is left behind. */
START_TEST(closes)
{
	join(_i % 2 ? NODE_STORAGE : 0, 2);
	if (_i % 3 == 0)
		managers[1].rc = ERR_NOT_LEADER;
	for (int i = 0; i < _i; i++)
		if (!sim_clock_step(world))
			break;
	if (_i % 5 == 0)
		member_refresh(m);
	if (_i % 7 == 0) {
		member_leave(m, on_left, &world);
		left = 100;
	}
	member_close(m);
	m = NULL;
	changes = left = 0;
	run_ms(5000);
	ck_assert_uint_eq(changes + left, 0);
}
END_TEST

static void
close_it(void *ctx)
{
	(void)ctx;
	member_close(m);
	m = NULL;
}

START_TEST(closes_from_its_callback)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	managers[0].rc = _i == 0 ? 0 : ERR_BUSY;
	member_leave(m, close_it, NULL);
	run_ms(10);
	ck_assert_ptr_null(m);
}
END_TEST

START_TEST(bounds)
{
	struct net_addr to = { .kind = NET_ADDR_SIM };
	char name[65] = "";
	struct member_conf c = { .clock = clk, .rand = &rnd, .managers = &to,
	    .manager_n = 0 };

	ck_assert_int_eq(member_open(&m, &c), -EINVAL);
	c.manager_n = 9;
	ck_assert_int_eq(member_open(&m, &c), -EINVAL);
	c.manager_n = 1;
	c.addr_n = 65;
	ck_assert_int_eq(member_open(&m, &c), -EINVAL);
	c.addr_n = 0;
	memset(name, 'x', 64);
	c.name = name;
	ck_assert_int_eq(member_open(&m, &c), -EINVAL);
	c.name = NULL;			/* all that may be left out */
	ck_assert_int_eq(member_open(&m, &c), 0);
	run_ms(1000);
	ck_assert_uint_ge(cluster.client_beats, 1);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, registers_and_beats);
	tcase_add_test(t, lease_runs_out);
	tcase_add_test(t, lease_after_a_lapse);
	tcase_add_test(t, silence_is_short_enough);
	tcase_add_test(t, stale_registers_again);
	tcase_add_test(t, taken_for_late);
	tcase_add_test(t, backs_off);
	tcase_add_test(t, nonsense_is_bounded);
	tcase_add_test(t, leaves);
	tcase_add_test(t, leaves_without_an_answer);
	tcase_add_test(t, leaves_unregistered);
	tcase_add_loop_test(t, closes, 0, 120);
	tcase_add_loop_test(t, closes_from_its_callback, 0, 2);
	tcase_add_test(t, bounds);
	return suite_run("member", t);
}
