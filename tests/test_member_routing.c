/* SPDX-License-Identifier: MIT */
/* test_member_routing.c - a member follows whichever manager leads, and its routing. */
#include "tests/member_rig.h"

/* ---- the calls ---- */

/* Manager @id dies: everything it was asked ends now. */
static void
reset(unsigned id)
{
	managers[id].rc = -ECONNRESET;
	for (unsigned i = 0; i < CALLS; i++)
		if (slots[i].c != NULL && slots[i].to == id)
			answer_at(&slots[i], clock_now(clk), -ECONNRESET);
}

/* ---- servers ---- */

START_TEST(finds_the_leader)
{
	struct net_addr at;

	managers[0].rc = -ECONNREFUSED;
	managers[1].rc = ERR_NOT_LEADER;
	join(NODE_METADATA, 3);
	run_ms(200);
	ck_assert_uint_eq(member_node(m), 7);
	ck_assert_uint_eq(routing_version(member_routing(m)), 1);
	member_manager(m, &at);
	ck_assert_uint_eq(at.id, 2);
	/* it dies, another leads */
	managers[2].rc = -ECONNRESET;
	managers[1].rc = 0;
	run_ms(1500);
	member_manager(m, &at);
	ck_assert_uint_eq(at.id, 1);
	ck_assert_uint_ge(lease_left_ms(), 2000);
	publish(2);		/* the poll has moved too */
	run_ms(50);
	ck_assert_uint_eq(routing_version(member_routing(m)), 2);
}
END_TEST

/* Poll and refresh fail together: that is one step to the next manager, not two, which
 * of two managers would be back to the dead one. */
START_TEST(moves_on_once)
{
	unsigned asked;

	managers[1].rc = ERR_NOT_LEADER;
	join(NODE_STORAGE, 2);
	run_ms(1000);
	managers[1].rc = 0;
	member_refresh(m);
	while (cluster.refreshes == 0)
		ck_assert(sim_clock_step(world));
	reset(0);
	asked = managers[0].calls;
	managers[1].calls = 0;
	run_ms(2000);
	ck_assert_uint_eq(managers[0].calls, asked);
	ck_assert_uint_ge(managers[1].calls, 5);
}
END_TEST

/* A manager that was away may have forgotten the poll that waits there. */
START_TEST(polls_again_after_silence)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	managers[0].silent = true;
	publish(2);
	run_ms(2500);
	managers[0].silent = false;
	for (int i = 0; i < 2000 && routing_version(member_routing(m)) < 2; i++)
		run_ms(1);
	ck_assert_uint_eq(routing_version(member_routing(m)), 2);
	ck_assert_uint_eq(cluster.refreshes, 0);
}
END_TEST

/* ---- several managers, one of which leads ---- */

/* Manager @who leads and the others say so; nobody: MANAGERS. */
static void
elect(unsigned who)
{
	for (unsigned i = 0; i < MANAGERS; i++)
		if (managers[i].rc == 0 || managers[i].rc == ERR_NOT_LEADER)
			managers[i].rc = i == who ? 0 : ERR_NOT_LEADER;
}

/* A member of three managers that has found the first. */
static void
join_three(void)
{
	elect(0);
	cluster.beat_ms = 300;
	join(NODE_STORAGE, MANAGERS);
	run_ms(1000);
	ck_assert_uint_ge(lease_left_ms(), 2600);
}

/* The least that is left of the lease within the next @ms. */
static uint64_t
least_lease_ms(uint64_t ms)
{
	uint64_t least = UINT64_MAX;

	for (uint64_t i = 0; i < ms; i++) {
		run_ms(1);
		if (lease_left_ms() < least)
			least = lease_left_ms();
	}
	return least;
}

static const struct failover {
	const char *what;
	int	 rc0;			/* what the first manager answers now */
	bool	 silent0;		/* stopped: connections stay, no answers */
	int	 rc1;
	bool	 silent1;
	unsigned next;			/* who leads now */
	uint64_t election_ms;		/* and how long nobody does */
	uint64_t least_ms;		/* of the lease */
} failovers[] = {
	{ "killed", -ECONNRESET, false, 0, false, 2, 0, 2600 },
	{ "killed, the next one leads", -ECONNRESET, false, 0, false, 1, 0, 2600 },
	{ "its host is gone", 0, true, 0, false, 2, 0, 2350 },
	{ "stopped, the next one leads", 0, true, 0, false, 1, 0, 2350 },
	{ "stopped, an election", 0, true, 0, false, 2, 1000, 1350 },
	{ "killed, an election", -ECONNREFUSED, false, 0, false, 1, 1500, 1100 },
	{ "gave up leading", ERR_NOT_LEADER, false, 0, false, 2, 0, 2600 },
	{ "gave up, an election", ERR_NOT_LEADER, false, 0, false, 2, 1200, 1350 },
	{ "stopped, the next one refuses", 0, true, -ECONNREFUSED, false, 2, 0,
	  2350 },
	{ "stopped, the next one too", 0, true, 0, true, 2, 0, 1650 },
	{ "busy", ERR_BUSY, false, 0, false, 0, 500, 1800 },
};

START_TEST(fails_over)
{
	const struct failover *f = &failovers[_i];
	struct net_addr at;
	uint64_t least;

	join_three();
	cluster.at_once = 0;
	elect(f->election_ms > 0 ? MANAGERS : f->next);
	managers[0].rc = f->rc0;
	managers[0].silent = f->silent0;
	if (f->rc1 != 0)
		managers[1].rc = f->rc1;
	managers[1].silent = f->silent1;
	if (f->rc0 == -ECONNRESET)
		reset(0);
	least = least_lease_ms(f->election_ms);
	if (f->rc0 == ERR_BUSY)
		managers[0].rc = 0;
	elect(f->next);
	managers[0].rc = f->next == 0 ? 0 : f->rc0;
	if (f->silent1)
		managers[1].rc = 0;
	publish(2);
	for (unsigned i = 0; i < 1500; i++) {
		uint64_t l = least_lease_ms(1);

		least = l < least ? l : least;
	}
	ck_assert_msg(least >= f->least_ms, "%s: %llu ms left", f->what,
	    (unsigned long long)least);
	member_manager(m, &at);
	ck_assert_msg(at.id == f->next, "%s", f->what);
	ck_assert_msg(routing_version(member_routing(m)) == 2, "%s", f->what);
	/* the poll waits at who leads now: nothing is asked for, nothing missed */
	for (uint64_t v = 3; v < 6; v++) {
		publish(v);
		run_ms(5);
		ck_assert_msg(routing_version(member_routing(m)) == v, "%s",
		    f->what);
	}
	ck_assert_uint_le(cluster.at_once, 2);
	ck_assert_uint_eq(cluster.registers, 1);
	ck_assert_uint_le(managers[1].calls, 400);
}
END_TEST

/* A leader that takes most of a second to answer is slow, not gone: the lease counts
 * from the sending of what it did answer. */
START_TEST(slow_leader_keeps_us)
{
	join_three();
	managers[0].silent = true;
	run_ms(310);			/* a beat is unanswered, another asked */
	managers[0].silent = false;
	ck_assert_uint_ge(least_lease_ms(5000), 1900);
}
END_TEST

/* The manager keeps a registration until our last process is dead.  Others are asked
 * meanwhile, ever more slowly; if it dies, whoever leads then is found at once. */
START_TEST(registration_is_held)
{
	bool dies = _i > 0;

	elect(0);
	managers[0].hold_ms = 5000;
	join(NODE_STORAGE, MANAGERS);
	run_ms(3000 + (unsigned)_i * 50);
	ck_assert_uint_eq(member_node(m), 0);
	ck_assert_uint_le(cluster.registers, 2);
	ck_assert_uint_le(managers[1].calls + managers[2].calls, 80);
	if (dies) {
		elect(1);
		reset(0);
		run_ms(2);
		for (unsigned i = 0; i < 30 && member_node(m) == 0; i++)
			run_ms(1);
		ck_assert_uint_eq(member_node(m), 7);
	} else {
		run_ms(2500);
		ck_assert_uint_eq(member_node(m), 7);
	}
	ck_assert_uint_ge(least_lease_ms(1000), 1900);
	ck_assert_uint_le(cluster.at_once, 2);
}
END_TEST

/* A disk has failed: the manager hears of it now, even while a beat is away. */
START_TEST(beats_on_demand)
{
	join_three();
	for (unsigned i = 0; i < 100; i++) {
		cluster.beats = 0;
		member_beat_now(m);
		ck_assert_uint_eq(cluster.beats, 0);	/* never within the call */
		run_ms(i % 3);
		if (i % 3 > 0)
			ck_assert_uint_ge(cluster.beats, 1);
	}
	managers[0].silent = true;
	member_beat_now(m);
	run_ms(1);
	managers[0].silent = false;
	cluster.beats = 0;
	member_beat_now(m);
	run_ms(1);
	ck_assert_uint_eq(cluster.beats, 1);
	ck_assert_uint_le(cluster.at_once, 2);
	ck_assert_uint_ge(least_lease_ms(2000), 2000);
}
END_TEST

/* The manager waits lease * 1.1 + beat on its clock from when it took a beat: with both
 * clocks wrong by 5 % in opposite ways our lease is over before that. */
START_TEST(drift_is_covered)
{
	uint64_t wait_ns;

	join_three();
	sim_clock_node_drift(clk, _i == 0 ? -50000 : 50000);
	wait_ns = (3000 * 11 / 10 + 300) * NS_PER_MS;
	/* a manager's clock that runs fast by 5 % gets there sooner */
	wait_ns = wait_ns * 100 / 105;
	run_ms(3000);
	for (unsigned i = 0; i < MANAGERS; i++)
		managers[i].silent = true;
	while (lease_left_ms() > 0)
		run_ms(1);
	ck_assert_uint_lt(sim_clock_now(world), cluster.took_ns + wait_ns);
}
END_TEST

/* The goodbye finds the leader, too. */
START_TEST(leaves_whoever_leads)
{
	join_three();
	elect(2);
	managers[0].silent = _i == 1;
	managers[0].rc = _i == 2 ? -ECONNREFUSED : managers[0].rc;
	member_leave(m, on_left, &world);
	run_ms(600);
	ck_assert_uint_eq(left, 1);
	ck_assert_uint_eq(cluster.goodbyes, 1);
}
END_TEST

/* A client follows routing to the new leader, though it beats seldom. */
START_TEST(client_fails_over)
{
	elect(0);
	cluster.beat_ms = 5000;
	join(0, MANAGERS);
	run_ms(1000);
	elect(1);
	managers[0].silent = true;
	managers[0].rc = 0;
	cluster.routing = 2;
	member_refresh(m);		/* some server had newer routing */
	run_ms(600);
	ck_assert_uint_eq(routing_version(member_routing(m)), 2);
	publish(3);
	run_ms(5);
	ck_assert_uint_eq(routing_version(member_routing(m)), 3);
}
END_TEST

/* ---- routing ---- */

START_TEST(follows_routing)
{
	join(NODE_STORAGE, 1);
	run_ms(100);
	changes = 0;
	for (uint64_t v = 2; v < 30; v++) {
		publish(v);
		run_ms(5);
		ck_assert_uint_eq(routing_version(member_routing(m)), v);
		ck_assert_uint_eq(changes, v - 1);
	}
	cluster.polls = 0;
	run_ms(60000);
	ck_assert_uint_le(cluster.polls, 7);
	ck_assert_uint_eq(cluster.refreshes, 0);
}
END_TEST

START_TEST(hasty_manager)
{
	join(NODE_STORAGE, 1);
	cluster.hasty = true;
	run_ms(10000);
	ck_assert_uint_le(cluster.polls, 101);
	ck_assert_uint_ge(cluster.polls, 50);
}
END_TEST

START_TEST(other_cluster)
{
	join(NODE_STORAGE, 1);
	run_ms(100);
	ck_assert_uint_eq(routing_version(member_routing(m)), 1);
	cluster.cluster.b[0] = 2;
	publish(9);
	run_ms(5000);
	ck_assert_uint_eq(routing_version(member_routing(m)), 1);
	ck_assert_uint_le(cluster.polls, 40);
	/* nor does it register there */
	cluster.beat_rc = ERR_STALE_NODE;
	run_ms(5000);
	ck_assert_uint_eq(lease_left_ms(), 0);
	cluster.beat_rc = 0;
	cluster.beats = 0;
	run_ms(5000);
	ck_assert_uint_eq(lease_left_ms(), 0);
	ck_assert_uint_eq(cluster.beats, 0);
}
END_TEST

START_TEST(refresh_is_paced_and_not_lost)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	for (unsigned i = 0; i < 1000; i++)
		member_refresh(m);
	ck_assert_uint_eq(cluster.refreshes, 0);	/* never within the call */
	run_ms(1);
	ck_assert_uint_eq(cluster.refreshes, 1);
	member_refresh(m);		/* while one is away or just was */
	run_ms(100);
	ck_assert_uint_eq(cluster.refreshes, 2);
	for (unsigned i = 0; i < 1000; i++) {
		member_refresh(m);
		run_ms(1);
	}
	ck_assert_uint_ge(cluster.refreshes, 48);
	ck_assert_uint_le(cluster.refreshes, 54);
	for (unsigned i = 1; i < cluster.refreshes; i++)
		ck_assert_uint_ge(cluster.refresh_ns[i] -
		    cluster.refresh_ns[i - 1], 20 * NS_PER_MS);
	/* an attempt that fails is made again */
	run_ms(100);
	cluster.refreshes = 0;
	managers[0].rc = -ECONNRESET;
	member_refresh(m);
	run_ms(300);
	managers[0].rc = 0;
	cluster.routing = 5;		/* the poll is not told */
	run_ms(2000);
	ck_assert_uint_ge(cluster.refreshes, 1);
	ck_assert_uint_eq(routing_version(member_routing(m)), 5);
}
END_TEST

/* The poll's answer is lost; beats tell that there is something newer. */
START_TEST(beats_notice_lost_routing)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	cluster.routing = 5;
	run_ms(1600);
	ck_assert_uint_eq(routing_version(member_routing(m)), 5);
}
END_TEST

/* A node that was cut off, declared dead, and comes back: as long as its routing is from
 * before its end it has no lease, however many of its beats are answered. */
START_TEST(lease_waits_for_routing)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	managers[0].silent = true;
	run_ms(10000);
	ck_assert_uint_eq(lease_left_ms(), 0);
	cluster.routing = 5;
	cluster.no_routing = true;
	managers[0].silent = false;
	run_ms(5000);
	ck_assert_uint_gt(cluster.beats, 5);
	ck_assert_uint_eq(lease_left_ms(), 0);
	changes = 0;
	cluster.no_routing = false;
	run_ms(2500);
	ck_assert_uint_eq(routing_version(member_routing(m)), 5);
	ck_assert_uint_ge(lease_left_ms(), 2000);
	ck_assert_uint_eq(member_lease_routing(m), 5);
	ck_assert_uint_ge(changes, 1);
}
END_TEST

/* Likewise for a live one whose routing stays behind: it may have been taken out of a
 * chain, and others rely on it to notice within a lease. */
START_TEST(lease_ends_without_routing)
{
	uint64_t until;

	join(NODE_STORAGE, 1);
	run_ms(1000);
	cluster.no_routing = true;
	cluster.routing = 5;
	until = clock_now(clk) + cluster.lease_ms * NS_PER_MS;
	for (int i = 0; i < 100; i++) {
		run_ms(100);
		ck_assert_uint_le(member_lease_until_ns(m), until);
	}
	cluster.no_routing = false;
	run_ms(2500);
	ck_assert_uint_ge(lease_left_ms(), 2000);
}
END_TEST

/* Routing that is never quite as new as the last beat says is new enough. */
START_TEST(lease_lasts_while_routing_changes)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	for (int i = 0; i < 400; i++) {
		cluster.routing++;	/* no poll is answered for that */
		run_ms(50);
		ck_assert_uint_ge(lease_left_ms(), 1000);
	}
}
END_TEST

/* A replica of ours was dropped: from then on nobody here acts on routing of before, and the
 * manager knows as soon as it can. */
START_TEST(promises)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	publish(5);
	run_ms(1);
	ck_assert_uint_eq(routing_version(member_routing(m)), 5);
	ck_assert_uint_lt(member_lease_routing(m), 5);
	member_promise(m);
	ck_assert_uint_eq(member_lease_routing(m), 5);
	run_ms(1);
	ck_assert_uint_eq(cluster.told_routing, 5);
	ck_assert_uint_ge(lease_left_ms(), 2000);
	cluster.routing = 4;			/* an answer from before does not undo it */
	run_ms(2000);
	ck_assert_uint_eq(member_lease_routing(m), 5);
	ck_assert_uint_eq(cluster.told_routing, 5);
}
END_TEST

/* What others have heard is asked for in beats, and told. */
START_TEST(awaits)
{
	cluster.heard_n = 1;
	join(NODE_STORAGE, 1);
	run_ms(1000);
	ck_assert_uint_gt(cluster.awaited, 0);
	ck_assert_uint_gt(told_heard, 0);
	cluster.heard_n = 0;
	told_heard = 0;
	run_ms(1000);
	ck_assert_uint_le(told_heard, 1);
}
END_TEST

/* ---- clients ---- */

START_TEST(client)
{
	join(0, 2);
	run_ms(5000);
	ck_assert_uint_eq(cluster.registers, 0);
	ck_assert_uint_eq(cluster.beats, 0);
	ck_assert_uint_ge(cluster.client_beats, 10);
	ck_assert_uint_le(cluster.client_beats, 13);
	ck_assert_ptr_nonnull(strstr(cluster.said,
	    "host=\"n1\" mount=\"/m\" pid=77"));
	ck_assert_uint_eq(routing_version(member_routing(m)), 1);
	ck_assert_uint_eq(member_lease_until_ns(m), 0);
	member_leave(m, on_left, &world);
	ck_assert_uint_eq(left, 0);
	run_ms(5);
	ck_assert_uint_eq(left, 1);
	ck_assert_uint_eq(cluster.leaving, 1);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, finds_the_leader);
	tcase_add_test(t, moves_on_once);
	tcase_add_test(t, polls_again_after_silence);
	tcase_add_loop_test(t, fails_over, 0,
	    (int)(sizeof(failovers) / sizeof(failovers[0])));
	tcase_add_test(t, slow_leader_keeps_us);
	tcase_add_loop_test(t, registration_is_held, 0, 30);
	tcase_add_test(t, beats_on_demand);
	tcase_add_loop_test(t, drift_is_covered, 0, 2);
	tcase_add_loop_test(t, leaves_whoever_leads, 0, 3);
	tcase_add_test(t, client_fails_over);
	tcase_add_test(t, follows_routing);
	tcase_add_test(t, hasty_manager);
	tcase_add_test(t, other_cluster);
	tcase_add_test(t, refresh_is_paced_and_not_lost);
	tcase_add_test(t, beats_notice_lost_routing);
	tcase_add_test(t, lease_waits_for_routing);
	tcase_add_test(t, lease_ends_without_routing);
	tcase_add_test(t, lease_lasts_while_routing_changes);
	tcase_add_test(t, promises);
	tcase_add_test(t, awaits);
	tcase_add_test(t, client);
	return suite_run("member_routing", t);
}
