/* SPDX-License-Identifier: MIT */
/* test_client_meta.c - metadata calls of the client: retries, and servers that change. */
#include "tests/client_rig.h"
#include "tests/suite.h"

/* ---- metadata calls ---- */

static const struct {
	const char *what;
	int rc;
	bool executed;
	unsigned times;
	int want;
	unsigned acted;
} retries[] = {
	{ "busy", ERR_BUSY, false, 3, 0, 1 },
	{ "connection lost before", -ECONNRESET, false, 2, 0, 1 },
	{ "connection lost after", -ECONNRESET, true, 2, 0, 1 },
	{ "silence after", -ETIMEDOUT, true, 1, 0, 1 },
	{ "not the leader", ERR_NOT_LEADER, false, 2, 0, 1 },
	{ "stopping", ERR_STOPPING, false, 2, 0, 1 },
	{ "session unknown", ERR_SESSION, false, 1, 0, 1 },
	{ "refused", -EACCES, false, 1, -EACCES, 0 },
};

START_TEST(changes_act_once)
{
	struct client_file *f = NULL;

	bad.method = MSG_create;
	bad.times = retries[_i].times;
	bad.rc = retries[_i].rc;
	bad.executed = retries[_i].executed;
	client_file_create(c, &reqs[0].op, op_done, NULL, 1, "a", 0644, O_RDWR,
	    &f);
	ck_assert_msg(wait_for(&reqs[0]) == retries[_i].want, "%s: %d",
	    retries[_i].what, reqs[0].rc);
	ck_assert_msg(saw.acted == retries[_i].acted, "%s: acted %u times",
	    retries[_i].what, saw.acted);
	ck_assert_uint_eq(saw.calls[MSG_create], retries[_i].want == 0 ?
	    retries[_i].times + 1 : 1);
	ck_assert_uint_eq(saw.last_seq, retries[_i].acted);
}
END_TEST

START_TEST(done_waits_for_the_oldest)
{
	struct client_file *f[3] = { NULL };

	bad.method = MSG_create;
	bad.times = 1;
	bad.rc = -ETIMEDOUT;
	client_file_create(c, &reqs[0].op, op_done, NULL, 1, "a", 0, O_RDWR,
	    &f[0]);
	client_file_create(c, &reqs[1].op, op_done, NULL, 1, "b", 0, O_RDWR,
	    &f[1]);
	ck_assert_int_eq(wait_for(&reqs[1]), 0);
	client_file_create(c, &reqs[2].op, op_done, NULL, 1, "c", 0, O_RDWR,
	    &f[2]);
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	ck_assert_uint_eq(saw.last_seq, 3);
	ck_assert_uint_eq(saw.last_done, 0);
	ck_assert_int_eq(wait_for(&reqs[0]), 0);
	(void)size_of(client_file_ino(f[0]));
	ck_assert_uint_eq(saw.last_done, 3);
}
END_TEST

/* ---- several metadata servers ---- */

static const struct {
	const char *what;
	int	 rc;			/* of the one that led; 0: silence */
	bool	 executed;		/* it had acted before that */
	uint32_t leads;		/* now */
	int	 other_rc;		/* of the third; 0: not the leader */
	bool	 other_silent;
	uint64_t most_ms;
} elections[] = {
	{ "gave up", ERR_NOT_LEADER, false, 7, 0, false, 4 },
	{ "gave up, the last one asked leads", ERR_NOT_LEADER, false, 8, 0,
	  false, 5 },
	{ "died", -ECONNRESET, false, 7, 0, false, 4 },
	{ "died after it had acted", -ECONNRESET, true, 8, 0, false, 5 },
	{ "stops", ERR_STOPPING, false, 8, 0, false, 5 },
	{ "lost its lease", ERR_NO_LEASE, false, 7, 0, false, 5 },
	{ "is silent", 0, false, 7, 0, false, 1300 },
	{ "is silent after it had acted", 0, true, 8, 0, false, 1300 },
	{ "died, and another with it", -ECONNREFUSED, false, 8, -ECONNREFUSED,
	  false, 5 },
	{ "died, and another is silent", -ECONNREFUSED, false, 8, 0, true, 1300 },
};

START_TEST(another_metadata_server_leads)
{
	struct client_file *f = NULL, *g = make("before");
	uint32_t other = 7 + 8 - elections[_i].leads;
	unsigned acted = saw.acted, asked;
	uint64_t begun;

	add_metas();
	routing_told();
	ck_assert_uint_eq(size_of(client_file_ino(g)), 0);
	ck_assert_uint_eq(metas.asked[7] + metas.asked[8], 0);
	metas.leads = elections[_i].leads;
	metas.rc[META] = elections[_i].rc;
	metas.silent[META] = elections[_i].rc == 0;
	metas.rc[other] = elections[_i].other_rc;
	metas.silent[other] = elections[_i].other_silent;
	if (elections[_i].executed) {	/* the answer of its last act is lost */
		metas.leads = META;
		metas.silent[META] = false;
		bad.method = MSG_create;
		bad.times = 1;
		bad.rc = elections[_i].rc != 0 ? elections[_i].rc : -ETIMEDOUT;
		bad.executed = true;
	}
	begun = clock_now(clk);
	client_file_create(c, &reqs[0].op, op_done, NULL, 1, "a", 0644, O_RDWR,
	    &f);
	metas.leads = elections[_i].leads;
	metas.silent[META] = elections[_i].rc == 0;
	ck_assert_msg(wait_for(&reqs[0]) == 0, "%s: %d", elections[_i].what,
	    reqs[0].rc);
	begun = (clock_now(clk) - begun) / NS_PER_MS;
	ck_assert_msg(begun <= elections[_i].most_ms, "%s: %llu ms",
	    elections[_i].what, (unsigned long long)begun);
	ck_assert_msg(saw.acted == acted + 1, "%s", elections[_i].what);
	/* it is remembered */
	asked = metas.asked[META] + metas.asked[other];
	for (unsigned i = 0; i < 10; i++)
		(void)size_of(client_file_ino(f));
	ck_assert_msg(metas.asked[META] + metas.asked[other] <= asked + 1, "%s",
	    elections[_i].what);
}
END_TEST

/* Nobody leads for a while: there are pauses, and all goes on when somebody does. */
START_TEST(an_election_takes_a_while)
{
	struct client_file *f = NULL;
	unsigned asked;

	add_metas();
	routing_told();
	metas.leads = 0;
	client_file_create(c, &reqs[0].op, op_done, NULL, 1, "a", 0644, O_RDWR,
	    &f);
	sim_clock_run(world, 2 * NS_PER_S);
	asked = metas.asked[7] + metas.asked[8] + metas.asked[9];
	ck_assert_uint_le(asked, 150);
	metas.leads = 8;
	sim_clock_run(world, 110 * NS_PER_MS);
	ck_assert(reqs[0].done && reqs[0].rc == 0);
	ck_assert_uint_eq(saw.acted, 1);
}
END_TEST

/* Who led is cut off, and the others need time to elect: they are asked again and again, and
 * the silent one is not waited for in between. */
START_TEST(an_election_without_the_silent_one)
{
	struct client_file *f = NULL;

	add_metas();
	routing_told();
	metas.leads = 0;
	metas.silent[META] = true;
	client_file_create(c, &reqs[0].op, op_done, NULL, 1, "a", 0644, O_RDWR,
	    &f);
	for (unsigned ms = 1300; ms < 3000; ms += 100) {
		unsigned asked = metas.asked[7] + metas.asked[8];

		sim_clock_run(world, ms == 1300 ? 1300 * NS_PER_MS : 100 * NS_PER_MS);
		ck_assert_uint_gt(metas.asked[7] + metas.asked[8], asked);
	}
	metas.leads = 8;
	sim_clock_run(world, 110 * NS_PER_MS);
	ck_assert(reqs[0].done && reqs[0].rc == 0);
}
END_TEST

/* Routing tells of the new leader before the silence of the old one is noticed: what waits
 * there does not wait until its connection is given up. */
START_TEST(a_leader_is_told_while_the_old_one_is_silent)
{
	ino_id ino = client_file_ino(make("a"));
	struct routing_group g = { .id = 1, .n = 3, .nodes = { 7, 8, META },
		.members = { 1, 2, 3 }, .leader = 8, .term = 2 };

	g.group.b[0] = 1;
	add_metas();
	routing_told();
	(void)size_of(ino);
	metas.leads = 8;
	metas.silent[META] = true;
	client_lookup(c, &reqs[0].op, op_done, NULL, 1, "a");
	sim_clock_run(world, 700 * NS_PER_MS);
	ck_assert(!reqs[0].done);
	g.changed = ++routing_v;
	ck_assert_int_eq(routing_put_group(routing, &g), 0);
	routing_told();
	(void)size_of(ino);
	ck_assert_uint_gt(metas.asked[8], 0);
	sim_clock_run(world, 600 * NS_PER_MS);
	ck_assert(reqs[0].done && reqs[0].rc == 0);
}
END_TEST

/* A request that waits for others at a server that is well is not sent elsewhere. */
START_TEST(slow_is_not_silent)
{
	struct client_file *f = make("a");
	ino_id ino = client_file_ino(f);

	add_metas();
	routing_told();
	bad.method = MSG_lookup;
	bad.times = 1;
	bad.rc = -ETIMEDOUT;
	client_lookup(c, &reqs[5].op, op_done, NULL, 1, "a");
	for (unsigned i = 0; i < 45; i++) {
		sim_clock_run(world, 100 * NS_PER_MS);
		(void)size_of(ino);
	}
	ck_assert(!reqs[5].done);
	ck_assert_uint_eq(metas.asked[7] + metas.asked[8], 0);
	ck_assert_int_eq(wait_for(&reqs[5]), 0);
}
END_TEST

START_TEST(gives_up_when_told_to)
{
	conf.client_retry = 2000;
	bad.method = MSG_lookup;
	bad.times = ~0u;
	bad.rc = ERR_BUSY;
	client_lookup(c, &reqs[0].op, op_done, NULL, 1, "a");
	ck_assert_int_eq(wait_for(&reqs[0]), ERR_BUSY);
	ck_assert_uint_lt(saw.calls[MSG_lookup], 40);	/* pauses grow */
}
END_TEST

START_TEST(names_are_checked)
{
	char name[300];

	memset(name, 'x', sizeof(name));
	name[256] = '\0';
	client_lookup(c, &reqs[0].op, op_done, NULL, 1, name);
	ck_assert_int_eq(wait_for(&reqs[0]), -ENAMETOOLONG);
	name[255] = '\0';
	client_rename(c, &reqs[0].op, op_done, NULL, 1, name, 1, "", 0);
	ck_assert_int_eq(wait_for(&reqs[0]), -ENOENT);
	client_lookup(c, &reqs[0].op, op_done, NULL, 1, name);
	ck_assert_int_eq(wait_for(&reqs[0]), -ENOENT);
	ck_assert_uint_eq(saw.calls[MSG_lookup], 1);
}
END_TEST

START_TEST(ttl_is_what_is_left)
{
	struct client_file *f = make("a");

	(void)size_of(client_file_ino(f));
	ck_assert_uint_eq(reqs[4].ttl_ns, 100 * NS_PER_MS - DELAY_NS);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("all");

#define LOOP(t, rows) tcase_add_loop_test(tc, t, 0, sizeof(rows) / sizeof(rows[0]))
	tcase_add_checked_fixture(tc, setup, teardown);
	LOOP(changes_act_once, retries);
	tcase_add_test(tc, done_waits_for_the_oldest);
	LOOP(another_metadata_server_leads, elections);
	tcase_add_test(tc, an_election_takes_a_while);
	tcase_add_test(tc, an_election_without_the_silent_one);
	tcase_add_test(tc, a_leader_is_told_while_the_old_one_is_silent);
	tcase_add_test(tc, slow_is_not_silent);
	tcase_add_test(tc, gives_up_when_told_to);
	tcase_add_test(tc, names_are_checked);
	tcase_add_test(tc, ttl_is_what_is_left);
	return suite_run("client_meta", tc);
}
