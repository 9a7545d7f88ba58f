/* SPDX-License-Identifier: MIT */
/* test_metadata_group.c - metadata nodes and a manager on simulated hosts: who founds the
 * group, how it grows, and that nothing acknowledged is lost, done twice or read stale,
 * whoever leads.  N=n runs n seeds of faults, SEED=n just that one. */
#include "tests/metadata_group_rig.h"

#ifdef __SANITIZE_ADDRESS__		/* which makes them long */
#define MOMENTS		6
#else
#define MOMENTS		20
#endif

static void
setup(void)
{
	setup_seed(1);
	begin();
}

/* ---- who is in it ---- */

/* One founds alone, the next two make it three, a fourth waits. */
START_TEST(grows)
{
	setup_seed(2);
	boot(META);
	ck_assert_uint_eq(leader(5000), META);
	ck_assert_int_eq(mkdir_as(0, "a"), 0);
	boot(META + 1);
	run_ms(3000);
	ck_assert(t.hosts[META + 1].ready);
	ck_assert_uint_eq(voters(), 1);
	boot(META + 2);
	ck_assert(settles(3, 10000));
	boot(META + 3);
	run_ms(3000);
	ck_assert(t.hosts[META + 3].ready);
	ck_assert(group_blank(t.hosts[META + 3].metadata->group));
	ck_assert_uint_eq(voters(), 3);
	one_group();
	die(leader(1000));
	ck_assert_int_eq(lookup(0, "a"), 0);
}
END_TEST

/* Whatever becomes of the data of the one that founded, nobody founds again. */
START_TEST(founded_once)
{
	node_id first;

	setup_seed(3);
	boot(META);
	ck_assert_uint_eq(leader(5000), META);
	ck_assert_int_eq(mkdir_as(0, "a"), 0);
	first = node(META);
	die(META);
	run_ms(5000);
	boot(META + 1);				/* comes first now */
	run_ms(10000);
	ck_assert_uint_eq(leader(0), 0);
	ck_assert(group_blank(t.hosts[META + 1].metadata->group));
	wipe(META);
	boot(META);				/* as another node, with the old address */
	run_ms(10000);
	ck_assert_uint_eq(leader(0), 0);
	ck_assert(group_blank(t.hosts[META].metadata->group));
	ck_assert_int_eq(change(MANAGER_REPLACE, first, node(META)), -EEXIST);
	run_ms(10000);
	ck_assert_uint_eq(leader(0), 0);
}
END_TEST

/* A named founder that never comes: another is named by the operator. */
START_TEST(founder_never_comes)
{
	struct host *m = &t.hosts[META];
	node_id first;

	setup_seed(4);
	boot(META);
	while (member_node(m->metadata->member) == 0)
		sim_clock_step(t.world);
	first = node(META);
	die(META);				/* it registered, that is all */
	run_ms(5000);
	boot(META + 1);
	run_ms(5000);
	ck_assert_uint_eq(leader(0), 0);
	ck_assert_int_eq(change(MANAGER_REPLACE, first, node(META + 1)), 0);
	ck_assert_uint_eq(leader(5000), META + 1);
	ck_assert_int_eq(mkdir_as(0, "a"), 0);
	boot(META);
	run_ms(5000);
	ck_assert_uint_eq(leader(1000), META + 1);
	ck_assert_int_eq(lookup(0, "a"), 0);
}
END_TEST

/* A node that lost its data is somebody else; it takes the place of the one before. */
START_TEST(replaced)
{
	unsigned lost = leader(1000);
	node_id was = node(lost);
	char name[16];

	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		ck_assert_int_eq(mkdir_as(0, name), 0);
	}
	die(lost);
	ck_assert_uint_ne(leader(5000), 0);
	wipe(lost);
	boot(lost);
	run_ms(5000);
	ck_assert(t.hosts[lost].ready);
	ck_assert_uint_ne(node(lost), was);
	ck_assert(group_blank(t.hosts[lost].metadata->group));
	ck_assert_int_eq(change(MANAGER_REPLACE, was, node(lost)), 0);
	ck_assert_int_eq(change(MANAGER_REPLACE, was, node(lost)), -ENOENT);
	run_ms(5000);
	ck_assert(settles(3, 20000));
	ck_assert(!group_blank(t.hosts[lost].metadata->group));
	one_group();
	/* it counts: with it alone besides one other the group goes on */
	for (unsigned i = META; i < META + 3; i++)
		if (i != lost) {
			die(i);
			break;
		}
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		ck_assert_int_eq(lookup(0, name), 0);
	}
	ck_assert_int_eq(mkdir_as(0, "x"), 0);
}
END_TEST

/* Also when the log does not reach back that far: the table comes over. */
START_TEST(replaced_by_snapshot)
{
	unsigned lost = META + 1;
	node_id was = node(lost);
	char name[200];

	die(lost);
	wipe(lost);
	for (unsigned i = 0; i < 3000; i++) {
		memset(name, 'x', sizeof(name));
		snprintf(name + 150, 20, "%u", i);
		ck_assert_int_eq(mkdir_as(0, name), 0);
	}
	boot(lost);
	run_ms(2000);
	ck_assert_int_eq(change(MANAGER_REPLACE, was, node(lost)), 0);
	run_ms(1000);
	ck_assert(settles(3, 60000));
	ck_assert_uint_eq(t.hosts[lost].metadata->group->stat.snapshots_taken, 1);
	for (unsigned i = META; i < META + 3; i++)
		if (i != lost)
			die(i), boot(i);
	pause_host(leader(10000) == META ? META : META + 2, true);
	run_ms(3000);
	ck_assert_int_eq(lookup(0, name), 0);
}
END_TEST

START_TEST(added_and_removed)
{
	boot(META + 3);
	run_ms(3000);
	ck_assert_int_eq(change(MANAGER_ADD, node(META + 3), 0), 0);
	ck_assert_int_eq(change(MANAGER_ADD, node(META + 3), 0), -EEXIST);
	ck_assert_int_eq(change(MANAGER_ADD, 99, 0), -ENOENT);
	ck_assert_int_eq(change(MANAGER_ADD, member_node(
	    t.hosts[STORAGE].member), 0), -ENOENT);
	run_ms(1000);
	ck_assert(settles(4, 20000));
	for (unsigned left = 3; left > 0; left--) {
		unsigned id = leader(10000);

		ck_assert_int_eq(change(MANAGER_REMOVE, node(id), 0), 0);
		run_ms(3000);
		ck_assert(settles(left, 20000));
		ck_assert_uint_ne(leader(10000), id);
		ck_assert_int_eq(mkdir_as(0, left == 3 ? "a" : left == 2 ? "b" : "c"), 0);
	}
	ck_assert_int_eq(change(MANAGER_REMOVE, node(leader(1000)), 0), -EBUSY);
	/* it stays as it was told */
	run_ms(5000);
	ck_assert_uint_eq(voters(), 1);
}
END_TEST

/* ---- one fault at a time ---- */

/* Stopped for long and then not: it says nothing before it has found out. */
START_TEST(leader_is_stopped)
{
	struct msg_lookup q = { ctx(1, false), INO_ROOT, msg_str("b") };
	unsigned was = leader(1000);
	struct net_addr to = at(was);
	struct net_call_opts o = { .deadline_ns = 0 };
	struct ask a[8];

	ck_assert_int_eq(mkdir_as(0, "a"), 0);
	memset(a, 0, sizeof(a));
	pause_host(was, true);
	/* these wait at its door all the time */
	o.deadline_ns = clock_now(t.hosts[ASKER].clock) + 60 * NS_PER_S;
	for (unsigned i = 0; i < 8; i++) {
		msg_arena_init(&a[i].arena, 1 << 20);
		ck_assert_int_eq(net_call_start(&a[i].call, t.hosts[ASKER].hub, &to,
		    MSG_lookup, &q, &o, answered), 0);
	}
	run_ms(3000);
	ck_assert_uint_ne(leader(5000), was);
	ck_assert_int_eq(mkdir_as(0, "b"), 0);
	run_ms(27000);
	pause_host(was, false);
	run_ms(5000);
	for (unsigned i = 0; i < 8; i++) {
		ck_assert(a[i].done);
		ck_assert_int_ne(a[i].rc, -ENOENT);
		msg_arena_fini(&a[i].arena);
	}
	ck_assert_int_eq(lookup(1, "b"), 0);
}
END_TEST

/* Cut off with its clients: it knows in time that others may lead. */
START_TEST(leader_is_cut_off)
{
	struct msg_lookup q = { ctx(1, false), INO_ROOT, msg_str("b") };
	unsigned was = leader(1000);

	ck_assert_int_eq(mkdir_as(0, "a"), 0);
	for (unsigned i = META; i < META + METAS; i++)
		if (i != was)
			sim_net_cut(t.net, was, i, SIM_NET_SILENT);
	for (unsigned i = 0; i < 50 && (leader(0) == was || leader(0) == 0); i++) {
		int rc = ask(was, MSG_lookup, &q)->rc;

		ck_assert(rc == -ENOENT || !final(rc));
		run_ms(50);
	}
	ck_assert_int_eq(mkdir_as(0, "b"), 0);
	ck_assert(!final(ask(was, MSG_lookup, &q)->rc));
	sim_net_heal(t.net);
	run_ms(3000);
	ck_assert_int_eq(lookup(1, "b"), 0);
	ck_assert_uint_eq(voters(), 3);
}
END_TEST

/* The metadata nodes of the group but @leader, as nodes: META + k is nodes[k]. */
static node_id
node_of(unsigned id)
{
	return member_node(t.hosts[id].metadata->member);
}

static unsigned
follower(unsigned leads, unsigned skip)
{
	for (unsigned id = META; id < META + METAS; id++)
		if (id != leads && t.hosts[id].up && skip-- == 0)
			return id;
	ck_abort_msg("no such follower");
}

/* A client that is cut from the leader alone: followers pass its calls on, and what was done
 * is not done again. */
START_TEST(followers_pass_on)
{
	unsigned leads = leader(1000);
	unsigned by = follower(leads, 0), other = follower(leads, 1);
	struct msg_mknod q = { ctx(0, true), INO_ROOT, msg_str("a"), 0755, 0 };
	struct msg_session s = { .client = ctx(0, false).client };
	struct msg_lookup l = { ctx(0, false), INO_ROOT, msg_str("a") };
	struct ask *a;
	ino_id ino;

	sim_net_cut(t.net, ASKER, leads, SIM_NET_SILENT);
	/* Nobody asked them to. */
	ck_assert_int_eq(ask(by, MSG_mkdir, &q)->rc, ERR_NOT_LEADER);
	/* Somebody else was asked to. */
	q.ctx.via = node_of(other);
	ck_assert_int_eq(ask(by, MSG_mkdir, &q)->rc, ERR_NOT_LEADER);
	q.ctx.via = node_of(by);
	a = ask(by, MSG_mkdir, &q);
	ck_assert_int_eq(a->rc, 0);
	ino = a->rep.entry.attr.ino;
	/* The answer was lost, and it goes another way. */
	q.ctx.via = node_of(other);
	a = ask(other, MSG_mkdir, &q);
	ck_assert_int_eq(a->rc, 0);
	ck_assert_uint_eq(a->rep.entry.attr.ino, ino);
	l.ctx.via = s.via = node_of(by);
	a = ask(by, MSG_lookup, &l);
	ck_assert_int_eq(a->rc, 0);
	ck_assert_uint_eq(a->rep.entry.attr.ino, ino);
	a = ask(by, MSG_session, &s);
	ck_assert_int_eq(a->rc, 0);
	ck_assert_uint_ne(a->rep.session.epoch, 0);
	/* What the leader refuses is refused. */
	q.ctx = ctx(0, true);
	q.ctx.via = node_of(by);
	ck_assert_int_eq(ask(by, MSG_mkdir, &q)->rc, -EEXIST);
	sim_net_heal(t.net);
	run_ms(2000);
	/* To the leader itself, in the name of a member, of itself, and of others. */
	q.ctx.seq--;
	q.name = msg_str("x");
	q.ctx = ctx(0, true);
	q.ctx.via = node_of(by);
	leads = leader(5000);
	ck_assert_int_eq(ask(leads, MSG_mkdir, &q)->rc, 0);
	q.ctx.via = node_of(leads);
	ck_assert_int_eq(ask(leads, MSG_mkdir, &q)->rc, 0);
	q.ctx.via = 999;
	ck_assert_int_eq(ask(leads, MSG_mkdir, &q)->rc, ERR_NOT_OWNER);
}
END_TEST

/* The relay is cut from the leader, too, or the leader dies: soon told to ask again. */
START_TEST(passed_on_in_vain)
{
	unsigned leads = leader(1000);
	unsigned by = follower(leads, 0);
	struct msg_mknod q = { ctx(0, true), INO_ROOT, msg_str("a"), 0755, 0 };
	uint64_t begun;
	int rc;

	q.ctx.via = node_of(by);
	if (_i == 0)
		sim_net_cut(t.net, by, leads, SIM_NET_SILENT);
	else if (_i == 1)
		sim_net_cut(t.net, by, leads, SIM_NET_RESET);
	else if (_i == 2)
		pause_host(leads, true);
	else
		die(leads);
	begun = sim_clock_now(t.world);
	rc = ask(by, MSG_mkdir, &q)->rc;
	ck_assert_int_eq(rc, ERR_NOT_LEADER);
	ck_assert_uint_le(sim_clock_now(t.world) - begun, 999 * NS_PER_MS);
	/* In a while there is a leader that it reaches, or it is that. */
	for (unsigned i = 0; i < 100 && (rc = ask(by, MSG_mkdir, &q)->rc) != 0; i++) {
		ck_assert_int_ne(rc, -EEXIST);
		run_ms(50);
	}
	if (_i >= 2)
		ck_assert_int_eq(rc, 0);
	if (_i == 2)
		pause_host(leads, false);
	sim_net_heal(t.net);
	run_ms(2000);
	ck_assert_int_eq(insist(MSG_mkdir, &q)->rc, 0);
	ck_assert_int_eq(lookup(1, "a"), 0);
}
END_TEST

/* Whoever ends while requests are on their way through it. */
START_TEST(ends_while_passing_on)
{
	unsigned leads = leader(1000);
	unsigned by = follower(leads, 0);
	struct msg_lookup q = { ctx(0, false), INO_ROOT, msg_str("a") };
	struct net_call_opts o = { .deadline_ns = clock_now(t.hosts[ASKER].clock) +
		5 * NS_PER_S };
	struct net_addr to = at(by);
	struct ask a[4];

	q.ctx.via = node_of(by);
	memset(a, 0, sizeof(a));
	if (_i % 2 == 0)
		pause_host(leads, true);
	for (unsigned i = 0; i < 4; i++) {
		msg_arena_init(&a[i].arena, 1 << 20);
		ck_assert_int_eq(net_call_start(&a[i].call, t.hosts[ASKER].hub, &to,
		    MSG_lookup, &q, &o, answered), 0);
	}
	sim_clock_run(t.world, (uint64_t)_i * 50 * NS_PER_US);
	die(by);
	run_ms(6000);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert(a[i].done);
		msg_arena_fini(&a[i].arena);
	}
	if (_i % 2 == 0)
		pause_host(leads, false);
}
END_TEST

static ino_id
create_open(unsigned client, const char *name, uint64_t handle)
{
	struct msg_create q = { ctx(client, true), INO_ROOT, msg_str(name), 0644,
		O_RDWR, handle };
	struct ask *a = insist(MSG_create, &q);

	ck_assert_int_eq(a->rc, 0);
	return a->rep.entry.attr.ino;
}

static struct msg_session_rep
tell(unsigned client, uint64_t epoch, ino_id ino, uint64_t handle)
{
	struct msg_open_row row = { ino, handle };
	struct msg_session q = { .client = ctx(client, false).client,
		.epoch = epoch, .opens = { &row, ino != 0 } };
	struct ask *a = insist(MSG_session, &q);

	ck_assert_int_eq(a->rc, 0);
	return a->rep.session;
}

/* A file without a name stays as long as it is open, whoever leads. */
START_TEST(open_files_survive)
{
	struct msg_session_rep s;
	struct msg_name rm = { { { { 0 } }, 0, 0, 0, 0, { NULL, 0 }, 0 }, INO_ROOT,
		msg_str("f") };
	struct msg_ino q;
	uint64_t epoch;
	ino_id ino;

	run_ms(2000);				/* chains */
	epoch = tell(0, 0, 0, 0).epoch;
	ino = create_open(0, "f", 7);
	rm.ctx = ctx(0, true);
	ck_assert_int_eq(insist(MSG_unlink, &rm)->rc, 0);
	for (unsigned round = 0; round < 3; round++) {
		unsigned was = leader(5000);

		die(was);
		ck_assert_uint_ne(leader(10000), 0);
		s = tell(0, epoch, ino, 7);
		ck_assert_uint_ne(s.epoch, epoch);
		ck_assert_uint_eq(s.gone.n, 0);
		ck_assert_uint_eq(s.ended, 0);
		epoch = s.epoch;
		(void)tell(0, epoch, ino, 7);
		boot(was);
		for (unsigned i = 0; i < 10; i++) {	/* two sessions long */
			run_ms(1000);
			(void)tell(0, epoch, 0, 0);
		}
		q = (struct msg_ino){ ctx(0, false), ino };
		ck_assert_int_eq(insist(MSG_getattr, &q)->rc, 0);
	}
	/* and goes when its client does */
	run_ms(15000);
	q = (struct msg_ino){ ctx(1, false), ino };
	(void)insist(MSG_getattr, &q);
	ck_assert_int_eq(ask(leader(1000), MSG_session, &(struct msg_session){
		.client = ctx(0, false).client, .epoch = epoch })->rep.session.ended, 1);
}
END_TEST

/* A clean stop of the leader is no election. */
START_TEST(clean_stop)
{
	unsigned was = leader(1000);
	struct host *h = &t.hosts[was];
	uint64_t began;

	ck_assert_int_eq(mkdir_as(0, "a"), 0);
	began = sim_clock_now(t.world);
	metadata_stop(h->metadata, on_stopped, h);
	while (!h->stopped)
		run_ms(10);
	ck_assert_uint_le(sim_clock_now(t.world) - began, NS_PER_S);
	ck_assert_uint_ne(leader(1000), 0);
	ck_assert_uint_le(sim_clock_now(t.world) - began, NS_PER_S);
	die(was);
	ck_assert_int_eq(lookup(0, "a"), 0);
}
END_TEST

#include "tests/metadata_load.h"

static void
run_seed(uint64_t seed)
{
	uint64_t done[CLIENTS];

	setup_seed(seed);
	if (seed % 3 == 0)
		t.conf.metadata_cache_ttl = 200;
	begin();
	loads_start();
	for (unsigned i = 0; i < 60; i++) {
		run_ms(50 + rand_below(&t.rand, 1500));
		fault();
		one_group();
		(void)leader(0);
	}
	sim_net_heal(t.net);
	for (unsigned i = META; i < META + 3; i++) {
		if (t.hosts[i].paused)
			pause_host(i, false);
		if (!t.hosts[i].up)
			boot(i);
	}
	run_ms(10000);
	for (unsigned i = 0; i < CLIENTS; i++)
		done[i] = loads[i].done;
	run_ms(2000);
	for (unsigned i = 0; i < CLIENTS; i++)
		ck_assert_msg(loads[i].done > done[i], "client %u is stuck", i);
	if (getenv("TRACE") != NULL)
		printf("client 0 did %llu\n", (unsigned long long)loads[0].done);
	loads_stop();
	run_ms(2000);
	all_equal();
}

/* Nor is one under load, at any moment of it: others take over before it has ended. */
START_TEST(clean_stop_under_load)
{
	struct host *h;
	unsigned was;

	loads_start();
	run_ms(500 + (unsigned)_i);
	was = leader(1000);
	h = &t.hosts[was];
	metadata_stop(h->metadata, on_stopped, h);
	for (unsigned ms = 0; !h->stopped; ms++) {
		ck_assert_uint_lt(ms, 150);		/* less than any election time */
		run_ms(1);
	}
	die(was);
	run_ms(20);
	ck_assert_uint_ne(leader(0), 0);
	loads_stop();
}
END_TEST

START_TEST(any_seed)
{
	const char *seed = getenv("SEED");

	run_seed(seed != NULL && *seed != '\0' ? strtoull(seed, NULL, 0) :
	    (uint64_t)_i + 10);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("metadata_group");
	TCase *m = tcase_create("members"), *f = tcase_create("faults"),
	    *r = tcase_create("random");
	const char *n = getenv("N"), *seed = getenv("SEED");
	SRunner *sr;
	int failed;

	tcase_set_timeout(m, 120);
	tcase_set_timeout(f, 120);
	tcase_set_timeout(r, 0);
	tcase_add_checked_fixture(m, NULL, teardown);
	tcase_add_test(m, grows);
	tcase_add_test(m, founded_once);
	tcase_add_test(m, founder_never_comes);
	suite_add_tcase(s, m);
	tcase_add_checked_fixture(f, setup, teardown);
	tcase_add_test(f, replaced);
	tcase_add_test(f, replaced_by_snapshot);
	tcase_add_test(f, added_and_removed);
	tcase_add_test(f, leader_is_stopped);
	tcase_add_test(f, leader_is_cut_off);
	tcase_add_test(f, followers_pass_on);
	tcase_add_loop_test(f, passed_on_in_vain, 0, 4);
	tcase_add_loop_test(f, ends_while_passing_on, 0, 12);
	tcase_add_test(f, open_files_survive);
	tcase_add_test(f, clean_stop);
	tcase_add_loop_test(f, clean_stop_under_load, 0, MOMENTS);
	suite_add_tcase(s, f);
	tcase_add_checked_fixture(r, NULL, teardown);
	tcase_add_loop_test(r, any_seed, 0, seed != NULL && *seed != '\0' ? 1 :
	    n != NULL && *n != '\0' ? atoi(n) : 12);
	suite_add_tcase(s, r);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
