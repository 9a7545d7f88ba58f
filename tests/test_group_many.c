/* SPDX-License-Identifier: MIT */
/* test_group_many.c - groups of several members over the simulated network, disks and
 * clocks.  Every member applies the same commands in the same order, what was acknowledged
 * stays, and reads are linearizable, whatever is cut or loses power.  N=n runs n seeds,
 * SEED=n just that one. */
#include "tests/group_rig.h"
#include "tests/suite.h"

/* ---- calm ---- */

START_TEST(one_becomes_many)
{
	static const unsigned sizes[] = { 2, 3, 5 };
	unsigned n = sizes[_i];

	form(n);
	load(200);
	check_level();
	for (unsigned i = 0; i < n; i++) {
		struct uid128 a, b;

		group_id(t.nodes[0].group, &a);
		group_id(t.nodes[i].group, &b);
		ck_assert(uid128_eq(&a, &b) && !uid128_zero(&a));
		ck_assert(!group_blank(t.nodes[i].group));
		ck_assert_uint_gt(t.nodes[i].told_members, 0);
		ck_assert_uint_eq(group_members(t.nodes[i].group)->n, n);
		for (unsigned k = 0; k < 5; k++)
			ck_assert_int_eq(start_read(&t.nodes[i]), 0);
	}
	sim_clock_run(t.world, 100 * NS_PER_MS);
	ck_assert_uint_eq(t.reads, 5 * n);
	for (unsigned i = 1; i < n; i++)
		ck_assert_int_eq(propose(&t.nodes[i]), ERR_NOT_LEADER);
}
END_TEST

START_TEST(each_dies_and_returns)
{
	form(3);
	for (unsigned round = 0; round < 6; round++) {
		unsigned i = round % 3;
		uint64_t at = sim_clock_now(t.world);

		load(50);
		down(i, round < 3 ? KILL : CRASH);
		load(50);
		/* an election, and no more than that */
		ck_assert_uint_lt(sim_clock_now(t.world) - at, 5 * NS_PER_S);
		up(i, GROUP_JOIN);
		check_level();
	}
}
END_TEST

START_TEST(a_minority_does_not_lead)
{
	struct node *l, *other;
	uint64_t acks;

	form(3);
	load(20);
	l = leading();
	for (unsigned i = 0; i < 3; i++)
		if (i != l->i)
			sim_net_cut(t.net, l->i + 1, i + 1, SIM_NET_SILENT);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(propose(l), 0);
	acks = t.acks;
	sim_clock_run(t.world, 4 * NS_PER_S);
	ck_assert_uint_eq(t.acks, acks);
	ck_assert(!l->leads && !group_leads(l->group));
	for (unsigned i = 0; i < REQS; i++)
		ck_assert(!l->reqs[i].out);	/* told: nobody knows */
	ck_assert_int_eq(propose(l), ERR_NOT_LEADER);
	other = wait_leader();
	ck_assert(other != l);
	load(50);
	sim_net_heal(t.net);
	check_level();
}
END_TEST

/* Entries that only a cut-off leader has, durably, give way to those of the next. */
START_TEST(what_was_not_committed_gives_way)
{
	struct node *l;
	uint64_t acks;

	form(3);
	load(20);
	l = leading();
	for (unsigned i = 0; i < 3; i++)
		if (i != l->i)
			sim_net_cut(t.net, l->i + 1, i + 1, SIM_NET_SILENT);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(propose(l), 0);
	acks = t.acks;
	sim_clock_run(t.world, 50 * NS_PER_MS);	/* synced here */
	ck_assert_uint_eq(t.acks, acks);
	if (_i == 1) {
		down(l->i, CRASH);
		up(l->i, GROUP_JOIN);
	}
	sim_clock_run(t.world, 5 * NS_PER_S);
	load(50);
	if (_i == 2)
		down(l->i, CRASH);
	sim_net_heal(t.net);
	if (_i == 2)
		up(l->i, GROUP_JOIN);
	check_level();
	down(l->i, CRASH);
	up(l->i, GROUP_JOIN);
	load(5);
	check_level();
}
END_TEST

/* A table that is nearly full takes what makes it smaller, and nothing else. */
START_TEST(a_full_table)
{
	struct req *q;
	uint8_t cmd[9] = { 0 };
	int rc = 0;

	t.table_bytes = 1u << 20;
	t.pad = 3000;
	up(0, GROUP_FOUND);
	wait_leader();
	for (unsigned i = 0; i < 20000 && rc != -ENOSPC; i++) {
		rc = propose(&t.nodes[0]);
		ck_assert(rc == 0 || rc == ERR_BUSY || rc == -ENOSPC);
		sim_clock_run(t.world, NS_PER_MS);
	}
	ck_assert_int_eq(rc, -ENOSPC);
	sim_clock_run(t.world, NS_PER_S);
	q = free_req(&t.nodes[0]);
	q->serial = ++t.serial;
	bytes_be64(cmd, q->serial);
	ck_assert_int_eq(group_propose_freeing(t.nodes[0].group, &q->r, cmd,
	    sizeof(cmd), answered), 0);
	q->out = true;
	sim_clock_run(t.world, NS_PER_S);
	ck_assert(t.acked[q->serial]);
}
END_TEST

START_TEST(handed_over)
{
	struct node *l;
	uint64_t at;

	form(3);
	load(20);
	l = leading();
	ck_assert_int_eq(group_transfer(l->group), 0);
	at = sim_clock_now(t.world);
	while (leading() == NULL || leading() == l)
		ck_assert(sim_clock_step(t.world));
	ck_assert_uint_lt(sim_clock_now(t.world) - at, 300 * NS_PER_MS);
	ck_assert(!l->leads);
	load(20);
	check_level();
}
END_TEST

/* The log is cut while one is away: it gets the table, while proposals go on; also when it
 * loses power in the middle of that. */
START_TEST(far_behind)
{
	struct node *far = &t.nodes[2];

	t.pad = 3000;
	form(3);
	load(20);
	if (leading() == far)
		ck_assert_int_eq(group_transfer(far->group), 0);
	down(2, KILL);
	load(1200);
	if (_i > 0)
		sim_box_conf(far->box)->table.write_max_ns =
		    sim_box_conf(far->box)->table.write_min_ns = 30 * NS_PER_MS;
	up(2, GROUP_JOIN);
	for (int k = 0; k < _i; k++) {
		/* dies while pieces come */
		for (unsigned n = 0; n < 40 + 40 * (unsigned)k; n++) {
			struct node *l = leading();

			if (l != NULL)
				(void)propose(l);
			sim_clock_run(t.world, 10 * NS_PER_MS);
		}
		down(2, k % 2 == 0 ? CRASH : KILL);
		sim_clock_run(t.world, NS_PER_S);
		up(2, GROUP_JOIN);
	}
	load(300);
	check_level();
	ck_assert_uint_ge(far->restores, 1);
	down(2, CRASH);
	up(2, GROUP_JOIN);
	load(10);
	check_level();
}
END_TEST

static bool
half(void *ctx)
{
	return group_applied(((struct node *)ctx)->group) == 0;
}

static bool
has_restored(void *ctx)
{
	return ((struct node *)ctx)->restores > 0;
}

/* What half a table has acknowledged before counts until its log reaches that far again,
 * also when the table that it gets does not. */
START_TEST(half_a_table_remembers)
{
	struct node *far = &t.nodes[1], *lazy = &t.nodes[2];
	uint64_t floor;

	form(2);
	load(3000);
	/* begins with a table, and writes no other for long */
	t.log_bytes = 8u << 20;
	t.flush_bytes = 1u << 30;
	t.flush_ms = 1000 * 1000;
	up(2, GROUP_JOIN);
	want(7);
	load(50);
	check_level();
	ck_assert_uint_eq(lazy->restores, 1);
	floor = group_applied(far->group);
	while (leading() != &t.nodes[0]) {
		(void)group_transfer(wait_leader()->group);
		sim_clock_run(t.world, 100 * NS_PER_MS);
	}
	down(1, CLEAN);
	load(3000);
	sim_box_conf(far->box)->table.write_max_ns =
	    sim_box_conf(far->box)->table.write_min_ns = 30 * NS_PER_MS;
	up(1, GROUP_JOIN);
	sim_clock_run(t.world, 10 * NS_PER_MS);
	ck_assert(sim_clock_run_until(t.world, half, far, 10 * NS_PER_S));
	sim_clock_run(t.world, 50 * NS_PER_MS);
	down(1, CRASH);
	ck_assert_int_eq(group_transfer(t.nodes[0].group), 0);
	sim_clock_run(t.world, NS_PER_S);
	up(1, GROUP_JOIN);
	ck_assert(sim_clock_run_until(t.world, has_restored, far, 30 * NS_PER_S));
	ck_assert(leading() == lazy);
	ck_assert_uint_lt(far->restored_at, floor);
	ck_assert(far->floor_kept);
	load(50);
	check_level();
	down(1, CLEAN);
	up(1, GROUP_JOIN);
	load(50);
	check_level();
	ck_assert(!floor_row(far));	/* what was reached is forgotten */
}
END_TEST

static void
given_up(struct group_req *r, int rc, const void *result, size_t len)
{
	(void)r, (void)rc, (void)result, (void)len;
}

/* No more is proposed without being committed than can be taken back. */
START_TEST(much_gives_way)
{
	static struct group_req reqs[900];
	static uint8_t cmd[GROUP_CMD_MAX];
	unsigned out = 0;
	struct node *l;

	t.log_bytes = 128u << 20;
	form(3);
	load(20);
	l = leading();
	for (unsigned i = 0; i < 3; i++)
		if (i != l->i)
			sim_net_cut(t.net, l->i + 1, i + 1, SIM_NET_SILENT);
	for (unsigned ms = 0; ms < 400; ms++) {
		while (out < 900) {
			bytes_be64(cmd, t.serial + 1);
			cmd[8] = 0;
			if (group_propose(l->group, &reqs[out], cmd, _i == 0 ?
			    sizeof(cmd) : 60, given_up) != 0)
				break;
			t.serial++;
			out++;
		}
		sim_clock_run(t.world, NS_PER_MS);
	}
	ck_assert_uint_gt(out, 20);
	sim_clock_run(t.world, 5 * NS_PER_S);
	load(50);
	sim_net_heal(t.net);
	check_level();
	down(l->i, CRASH);
	up(l->i, GROUP_JOIN);
	load(5);
	check_level();
}
END_TEST

static void
slow_tables(uint64_t ns)
{
	for (unsigned i = 1; i < 3; i++)
		sim_box_conf(t.nodes[i].box)->table.write_max_ns =
		    sim_box_conf(t.nodes[i].box)->table.write_min_ns = ns;
}

/* Tables that take their time fill the logs; who has no room there does not try to lead. */
START_TEST(full_logs)
{
	form(3);
	load(20);
	while (leading() != &t.nodes[0]) {
		(void)group_transfer(wait_leader()->group);
		sim_clock_run(t.world, 100 * NS_PER_MS);
	}
	slow_tables(40 * NS_PER_S);
	for (unsigned ms = 0; ms < 10000; ms++) {
		while (t.nodes[0].leads && propose(&t.nodes[0]) == 0)
			;
		sim_clock_run(t.world, NS_PER_MS);
	}
	down(0, CRASH);
	for (unsigned k = 0; k < 4; k++) {
		struct node *n = &t.nodes[1 + k % 2];

		sim_clock_run(t.world, 4 * NS_PER_S);
		ck_assert(!t.nodes[1].broken && !t.nodes[2].broken);
		down(n->i, KILL);
		up(n->i, GROUP_JOIN);
	}
	slow_tables(NS_PER_MS);
	sim_clock_run(t.world, 40 * NS_PER_S);
	up(0, GROUP_JOIN);
	load(20);
	check_level();
}
END_TEST

/* One has to be brought what is not in memory any more: of unknown size before it is read,
 * and all of it long. */
START_TEST(far_behind_with_long_commands)
{
	rand_seed(&t.rand, (uint64_t)_i);
	t.log_bytes = 64u << 20;
	t.pad = GROUP_CMD_MAX - 9;
	form(3);
	load(20);
	down(2, KILL);
	load(400);
	up(2, GROUP_JOIN);
	check_level();
	ck_assert_uint_eq(t.nodes[2].restores, 0);
}
END_TEST

START_TEST(members_come_and_go)
{
	form(3);
	load(50);
	up(3, GROUP_JOIN);
	ck_assert(sim_clock_run_until(t.world, some_leads, NULL, NS_PER_S));
	down(1, CRASH);			/* for good */
	want(1u | 4u | 8u);
	load(50);
	check_level();
	down(0, CRASH);
	load(50);			/* the new one counts */
	up(0, GROUP_JOIN);
	check_level();
	/* one that was wiped is another member */
	down(0, CRASH);
	sim_disk_wipe(t.nodes[0].box, "d");
	want(4u | 8u);
	up(0, GROUP_JOIN);
	sim_clock_run(t.world, NS_PER_S);
	ck_assert(group_blank(t.nodes[0].group));
	want(1u | 4u | 8u);
	load(50);
	check_level();
}
END_TEST

/* The leader's own entries come between commands of one turn: each command is answered
 * with its own result all the same. */
START_TEST(members_change_between_commands)
{
	struct group_want w[2];
	uint64_t to;

	form(1);
	up(1, GROUP_JOIN);
	sim_clock_run(t.world, NS_PER_S);
	to = t.acks + 6;
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(propose(&t.nodes[0]), 0);
	memset(w, 0, sizeof(w));
	w[0].addr = addr_of(0);
	w[0].id = group_member(t.nodes[0].group);
	w[1].addr = addr_of(1);
	w[1].id = group_member(t.nodes[1].group);
	group_want(t.nodes[0].group, w, 2);
	ck_assert_uint_eq(group_members(t.nodes[0].group)->n, 2);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(propose(&t.nodes[0]), 0);
	sim_clock_run(t.world, NS_PER_S);
	ck_assert_uint_eq(t.acks, to);
	check_level();
}
END_TEST

START_TEST(the_leader_leaves)
{
	struct node *l;

	form(3);
	load(20);
	l = leading();
	want(7u & ~(1u << l->i));
	ck_assert(leading() != l);
	down(l->i, CLEAN);
	load(20);
	check_level();
}
END_TEST

START_TEST(another_group_is_refused)
{
	form(1);
	load(5);
	up(1, GROUP_FOUND);
	sim_clock_run(t.world, 3 * NS_PER_S);
	down(1, CLEAN);
	up(1, GROUP_JOIN);
	sim_clock_run(t.world, NS_PER_S);
	group_want(t.nodes[0].group, (struct group_want[]){
		{ .addr = addr_of(0) }, { .addr = addr_of(1) } }, 2);
	sim_clock_run(t.world, 5 * NS_PER_S);
	ck_assert_uint_eq(group_members(t.nodes[0].group)->n, 1);
	ck_assert_uint_eq(group_members(t.nodes[1].group)->n, 1);
	/* said by id, it is asked, and says no */
	group_want(t.nodes[0].group, (struct group_want[]){
		{ .addr = addr_of(0) }, { .addr = addr_of(1),
		.id = group_member(t.nodes[1].group) } }, 2);
	sim_clock_run(t.world, 5 * NS_PER_S);
	ck_assert_uint_eq(group_members(t.nodes[1].group)->n, 1);
	ck_assert(!t.nodes[1].broken && !t.nodes[0].broken);
}
END_TEST

/* A blank member founds when it is told to, and only then. */
START_TEST(founds_when_told)
{
	up(0, GROUP_JOIN);
	sim_clock_run(t.world, 5 * NS_PER_S);
	ck_assert(group_blank(t.nodes[0].group) && leading() == NULL);
	ck_assert_int_eq(group_found(t.nodes[0].group), 0);
	ck_assert_int_eq(group_found(t.nodes[0].group), -EBUSY);
	wait_leader();
	load(10);
	down(0, CRASH);
	up(0, GROUP_JOIN);
	wait_leader();
	load(10);
}
END_TEST

/* ---- any weather ---- */

static void
weather(void)
{
	for (unsigned i = 0; i < NODES; i++) {
		struct sim_disk_conf *c = sim_box_conf(t.nodes[i].box);

		c->write_min_ns = 20 * NS_PER_US;
		c->write_max_ns = 500 * NS_PER_US;
		c->sync_min_ns = 50 * NS_PER_US;
		c->sync_max_ns = 4 * NS_PER_MS;
		c->table.write_min_ns = 100 * NS_PER_US;
		c->table.write_max_ns = 20 * NS_PER_MS;
	}
	sim_net_faults(t.net, &(struct sim_net_faults){ .delay_min_us = 20,
		.delay_max_us = 2000, .slow_ppm = 2000, .slow_us = 300000,
		.break_ppm = 300 });
	t.flush_bytes = 1u << (12 + rand_below(&t.rand, 6));
	t.flush_ms = 1 + (uint32_t)rand_below(&t.rand, 100);
	t.pad = rand_chance(&t.rand, 1, 2) ? 4000 : 200;
}

static void
trouble(unsigned n)
{
	unsigned i = (unsigned)rand_below(&t.rand, n);

	switch (rand_below(&t.rand, 8)) {
	case 0:				/* all at once */
		for (unsigned k = 0; k < n; k++)
			down(k, CRASH);
		break;
	case 1:
	case 2:
		down(i, rand_chance(&t.rand, 1, 2) ? CRASH : KILL);
		break;
	case 3:
		sim_net_path(t.net, i + 1, 1 + (unsigned)rand_below(&t.rand, n),
		    SIM_NET_SILENT);
		break;
	case 4:
		for (unsigned k = 0; k < n; k++)
			if (k != i)
				sim_net_cut(t.net, i + 1, k + 1,
				    rand_chance(&t.rand, 1, 2) ?
				    SIM_NET_SILENT : SIM_NET_RESET);
		break;
	case 5:
		sim_net_heal(t.net);
		break;
	case 6:
		if (t.nodes[i].up)
			(void)group_transfer(t.nodes[i].group);
		break;
	default:
		for (unsigned k = 0; k < n; k++)
			if (!t.nodes[k].up && rand_chance(&t.rand, 2, 3))
				up(k, GROUP_JOIN);
	}
}

START_TEST(any_trouble)
{
	unsigned n;

	setup_seed(getenv("SEED") != NULL && *getenv("SEED") != '\0' ?
	    strtoull(getenv("SEED"), NULL, 0) : (uint64_t)_i);
	n = rand_chance(&t.rand, 1, 3) ? 5 : 3;
	form(n);
	weather();
	for (unsigned step = 0; step < 400; step++) {
		if (rand_chance(&t.rand, 1, 15))
			trouble(n);
		for (unsigned i = 0; i < n; i++) {
			struct node *x = &t.nodes[i];

			if (!x->up)
				continue;
			ck_assert_msg(!x->broken, "%u: %s", i,
			    err_name(x->broken_rc));
			for (unsigned k = (unsigned)rand_below(&t.rand, 12);
			    k > 0 && propose(x) == 0; k--)
				;
			(void)start_read(x);
		}
		sim_clock_run(t.world, rand_below(&t.rand, 60 * NS_PER_MS));
	}
	sim_net_heal(t.net);
	sim_net_faults(t.net, &(struct sim_net_faults){ .delay_min_us = 50,
		.delay_max_us = 150 });
	for (unsigned k = 0; k < n; k++)
		if (!t.nodes[k].up)
			up(k, GROUP_JOIN);
	sim_clock_run(t.world, 20 * NS_PER_S);
	load(20);
	check_level();
	teardown();
}
END_TEST

int
main(void)
{
	TCase *calm = tcase_create("calm"), *any = tcase_create("any");
	const char *n = getenv("N"), *seed = getenv("SEED");
	int seeds = n != NULL && atoi(n) > 0 ? atoi(n) : 12;

	tcase_set_timeout(calm, 120);
	tcase_set_timeout(any, 120);
	tcase_add_checked_fixture(calm, setup, teardown);
	tcase_add_loop_test(calm, one_becomes_many, 0, 3);
	tcase_add_test(calm, each_dies_and_returns);
	tcase_add_test(calm, a_minority_does_not_lead);
	tcase_add_loop_test(calm, what_was_not_committed_gives_way, 0, 3);
	tcase_add_test(calm, a_full_table);
	tcase_add_test(calm, handed_over);
	tcase_add_loop_test(calm, far_behind, 0, 4);
	tcase_add_test(calm, half_a_table_remembers);
	tcase_add_loop_test(calm, much_gives_way, 0, 2);
	tcase_add_test(calm, full_logs);
	tcase_add_loop_test(calm, far_behind_with_long_commands, 0, 8);
	tcase_add_test(calm, members_come_and_go);
	tcase_add_test(calm, members_change_between_commands);
	tcase_add_test(calm, the_leader_leaves);
	tcase_add_test(calm, another_group_is_refused);
	tcase_add_test(calm, founds_when_told);
	tcase_add_loop_test(any, any_trouble, 0,
	    seed != NULL && *seed != '\0' ? 1 : seeds);
	return suite_run_all("group_many", calm, any, NULL);
}
