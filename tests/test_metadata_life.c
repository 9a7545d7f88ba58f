/* SPDX-License-Identifier: MIT */
/* test_metadata_life.c - the metadata role begins, restarts, leads no more, stops. */
#include "meta/group_impl.h"
#include "tests/metadata_rig.h"

/* ---- the script's verbs ---- */

static void
stop_role(void)
{
	metadata_stop(W.m, is_stopped, NULL);
	ck_assert(sim_clock_run_until(W.world, stopped, NULL, 10 * NS_PER_S));
	metadata_close(W.m);
	W.m = NULL;
	sim_clock_node_close(W.clock);
}

/* After a restart removals wait until clients had time to tell their opens. */
START_TEST(opens_are_told_again)
{
	ino_id open_ino = entry(create(1, "f", 7))->attr.ino;
	struct msg_open_row row = { open_ino, 7 };
	struct msg_session_rep s, s2;
	struct inode in;
	ino_id ino;

	s = session(1, 0, NULL, 0, false);
	ino = entry(create(1, "g", 0))->attr.ino;
	W.mute = true;
	await(unlink_file(1, "f"));
	await(unlink_file(1, "g"));
	run_ms(100);
	kill_role();
	W.cuts = 0;
	W.mute = false;
	start();
	s2 = session(1, s.epoch, NULL, 0, false);
	ck_assert_uint_ne(s2.epoch, s.epoch);
	ck_assert_uint_eq(s2.ended, 0);		/* in time */
	s = session(1, s2.epoch, &row, 1, false);
	ck_assert_uint_eq(s.epoch, s2.epoch);
	for (unsigned i = 0; i < 14; i++) {
		run_ms(1000);
		session(1, s.epoch, NULL, 0, false);
	}
	ck_assert_uint_eq(W.cuts, 0);
	run_ms(2000);
	ck_assert_uint_eq(W.cuts, 3);
	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), -ENOENT);
	ck_assert_int_eq(fs_inode(W.m->fs, open_ino, &in), 0);
	/* Whoever comes only now, from the run before, comes too late. */
	s2 = session(2, s2.epoch - (1ull << 32), NULL, 0, false);
	ck_assert_uint_eq(s2.ended, 1);
	s2 = session(3, 0, NULL, 0, false);
	ck_assert_uint_eq(s2.ended, 0);
	/* Leaving ends all opens. */
	session(1, s.epoch, NULL, 0, true);
	run_ms(1000);
	ck_assert_int_eq(fs_inode(W.m->fs, open_ino, &in), -ENOENT);
}
END_TEST

/* The group ceases to lead, at any moment of this, and leads again later: whoever waits is
 * told at once to ask elsewhere, nothing is done meanwhile, and then it is as after a
 * restart. */
START_TEST(leads_no_more_and_again)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	ino_id open_ino = entry(create(1, "g", 8))->attr.ino;
	struct msg_open_row rows[] = { { ino, 7 }, { open_ino, 8 } };
	struct msg_session_rep s, s2;
	struct ask *asks[6];
	struct inode in;
	unsigned cuts;

	s = session(1, 0, NULL, 0, false);
	session(1, s.epoch, NULL, 0, false);
	entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0));
	entry(settle(1, MSG_sync, open_ino, 0, 3 << 20, 0));
	await(unlink_file(1, "g"));
	entry(lookup(1, "f"));			/* which it may cache */
	W.mute = true;
	asks[0] = truncate_file(1, ino, 5);
	run_ms(5);
	asks[1] = getattr(1, ino);		/* waits for the truncation */
	asks[2] = lookup(2, "f");		/* for the copy to run out */
	asks[3] = settle(1, MSG_sync, ino, 0, 10, 0);
	asks[4] = create(1, "h", 9);
	asks[5] = unlink_file(1, "nothing");
	run_ms((uint64_t)_i);
	metadata_lead(W.m, false);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_msg(asks[i]->answered || i == 3, "request %u", i);
	ck_assert_int_eq(asks[0]->rc, ERR_NOT_LEADER);
	ck_assert_int_eq(asks[2]->rc, ERR_NOT_LEADER);
	ck_assert_uint_eq(W.m->sessions.n, 0);
	ck_assert(!metadata_session_is_open(W.m, open_ino));
	cuts = W.cuts;
	ck_assert_int_eq(await(lookup(1, "f")), ERR_NOT_LEADER);
	W.mute = false;
	run_ms(2 * W.conf.metadata_session);
	for (unsigned i = 0; i < 6; i++)
		ck_assert_msg(asks[i]->answered, "request %u", i);
	ck_assert_uint_eq(W.cuts, cuts);
	ck_assert(list_empty(&W.calls));
	ck_assert_int_eq(fs_inode(W.m->fs, open_ino, &in), 0);

	metadata_lead(W.m, true);
	s2 = session(1, s.epoch, NULL, 0, false);
	ck_assert_uint_ne(s2.epoch, s.epoch);
	ck_assert_uint_eq(s2.ended, 0);
	ck_assert_uint_eq(session(1, s2.epoch, rows, 2, false).gone.n, 0);
	run_ms(W.conf.metadata_session - 1000);
	ck_assert_uint_eq(entry(getattr(1, ino))->attr.epoch, 1);
	ck_assert_uint_eq(entry(getattr(1, ino))->attr.size, 5);
	session(1, s2.epoch, NULL, 0, false);
	run_ms(3000);
	ck_assert_int_eq(fs_inode(W.m->fs, open_ino, &in), 0);
	session(1, s2.epoch, NULL, 0, true);
	run_ms(1000);
	ck_assert_int_eq(fs_inode(W.m->fs, open_ino, &in), -ENOENT);
}
END_TEST

/* Who leads next may hear of an open file from a client that its removal did not wait for,
 * and has to know that it had begun: in the table before storage is asked. */
START_TEST(removal_outlives_who_began_it)
{
	ino_id ino = entry(create(1, "f", 0))->attr.ino;
	struct msg_open_row row = { ino, 70 };
	struct msg_session_rep s;
	struct gc_row gc;
	struct inode in;

	W.mute = true;
	await(unlink_file(1, "f"));
	run_ms(100);
	ck_assert_uint_eq(W.cuts, 3);
	ck_assert_int_eq(gc_get(group_table(W.m->group), ino, GC_REMOVE, &gc), 0);
	ck_assert_uint_eq(gc.at, 1);
	metadata_lead(W.m, false);
	run_ms(100);
	W.mute = false;
	metadata_lead(W.m, true);
	/* Early enough for any file that nobody has begun to remove. */
	s = session(1, 0, NULL, 0, false);
	s = session(1, s.epoch, &row, 1, false);
	ck_assert_uint_eq(s.gone.n, 1);
	ck_assert(!metadata_session_is_open(W.m, ino));
	ck_assert_int_eq(await(open_file(1, ino, O_RDONLY, 9)), -ESTALE);
	run_ms(W.conf.metadata_session + 1000);
	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), -ENOENT);
}
END_TEST

/* Who leads cannot hand that over to a member that is not there: what it ordered meanwhile is
 * answered as if it did not lead, and it leads on.  What storage has done is ordered again. */
START_TEST(leads_on)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct ask *a;

	entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0));
	W.mute = true;
	a = truncate_file(1, ino, 5);
	run_ms(20);
	W.mute = false;
	while (list_empty(&W.m->group->inflight))
		ck_assert(sim_clock_step(W.world));
	group_fail_all(W.m->group);
	run_ms(1000);
	ck_assert(a->answered);
	ck_assert_int_eq(a->rc, 0);
}
END_TEST

static void
wipe(void)
{
	kill_role();
	sim_box_close(W.box);
	W.box = sim_box_open(&W.rand);
}

static void
close_role(void)
{
	metadata_close(W.m);
	W.m = NULL;
	sim_clock_node_close(W.clock);
}

/* What a blank node does with a row of the manager. */
static const struct founding {
	const char *what;
	node_id	    node;
	bool	    ours, known;	/* the member is; a group's id is there */
	bool	    founds, ready;
} foundings[] = {
	{ "named: founds",			5, true,  false, true,  true },
	{ "another node is named",		3, false, false, false, true },
	{ "named with the data it had",		5, false, false, false, true },
	{ "there is a group: waits",		3, false, true,  false, true },
	{ "in the group, without its data",	5, false, true,  false, true },
	{ "in the group, its data is blank",	5, true,  true,  false, true },
};

START_TEST(who_founds)
{
	const struct founding *f = &foundings[_i];
	struct routing_group row = { .id = 1, .n = 1, .nodes = { f->node },
		.members = { 77 } };

	wipe();
	row.changed = routing_version(W.routing) + 1;
	row.group.b[0] = f->known;
	open_role();
	if (f->ours)
		row.members[0] = W.member.conf.member;
	ck_assert_int_eq(routing_put_group(W.routing, &row), 0);
	W.member.conf.changed(W.member.conf.ctx);
	run_ms(5000);
	ck_assert_msg(group_blank(W.m->group) == !f->founds, "%s", f->what);
	ck_assert_msg(W.ready == f->ready, "%s", f->what);
	ck_assert_int_eq(await(create(1, "f", 7)),
	    f->founds ? 0 : ERR_NOT_LEADER);
	close_role();
}
END_TEST

/* Nobody is served before the manager has noted which group there is. */
START_TEST(unknown_groups_serve_nobody)
{
	wipe();
	put_group(W.self, 1);
	W.deaf = true;
	open_role();
	put_group(W.self, W.member.conf.member);
	W.member.conf.changed(W.member.conf.ctx);
	run_ms(5000);
	ck_assert(group_leads(W.m->group));
	ck_assert(!W.ready);
	ck_assert_int_eq(await(create(1, "f", 7)), ERR_NO_LEASE);
	W.deaf = false;
	member_beat_now(&W.member);
	run_ms(100);
	ck_assert(W.ready);
	entry(create(1, "f", 7));
	close_role();
}
END_TEST

/* What was founded stays so, but another cluster's group serves nobody. */
START_TEST(a_foreign_group_serves_nobody)
{
	struct routing_group row = *routing_group(W.routing, 1);

	kill_role();
	start();
	entry(create(1, "f", 7));
	kill_role();
	row.group.b[3] ^= 1;
	row.changed = routing_version(W.routing) + 1;
	ck_assert_int_eq(routing_put_group(W.routing, &row), 0);
	W.deaf = true;
	open_role();
	run_ms(5000);
	ck_assert_int_eq(await(create(1, "f", 7)), ERR_NO_LEASE);
	close_role();
}
END_TEST

/* The same across a restart: it knows who may have copies. */
START_TEST(holder_outlives_us)
{
	uint64_t ttl = W.conf.metadata_cache_ttl;
	struct ask *b;

	entry(create(1, "f", 0));
	run_ms(10);
	ck_assert_uint_eq(entry(lookup(1, "f"))->ttl_ms, ttl);
	kill_role();
	start();
	b = lookup(2, "f");
	run_ms(10);
	ck_assert_uint_eq(entry(lookup(1, "f"))->ttl_ms, 0);
	run_ms(ttl + ttl / 8 - 100);		/* clocks may differ */
	ck_assert(!b->answered);
	run_ms(200);
	ck_assert(b->answered);
	/* Two are there: nobody holds, nobody waits. */
	kill_role();
	start();
	b = lookup(2, "f");
	run_ms(10);
	ck_assert(b->answered);
}
END_TEST

START_TEST(no_chains_yet)
{
	struct routing *had = W.routing;
	struct msg_mknod q = { ctx(1, true), INO_ROOT, msg_str("d"), 0755, 0 };

	ck_assert_int_eq(routing_open(&W.routing), 0);
	ck_assert_int_eq(await(create(1, "f", 0)), ERR_NO_CHAINS);
	W.seq[1]--;
	entry(ask(MSG_mkdir, &q));
	routing_close(W.routing);
	W.routing = had;
	entry(create(1, "f", 0));
}
END_TEST

START_TEST(clean_stop)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct ask *t, *b, *s;

	entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0));
	run_ms(10);
	entry(lookup(1, "f"));
	W.mute = true;
	t = truncate_file(1, ino, 5);
	run_ms(10);
	b = lookup(2, "f");
	s = settle(1, MSG_sync, ino, 0, 9 << 20, 0);
	run_ms(10);
	stop_role();
	ck_assert_int_eq(t->rc, ERR_STOPPING);
	ck_assert_int_eq(b->rc, ERR_STOPPING);
	ck_assert_int_eq(s->rc, ERR_STOPPING);
	W.mute = false;
	start();
	W.seq[1] -= 2;
	ck_assert_uint_eq(entry(truncate_file(1, ino, 5))->attr.epoch, 1);
}
END_TEST

START_TEST(stop_asking_storage)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct ask *s;

	entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0));
	entry(truncate_file(1, ino, 5));
	W.mute = true;
	s = settle(1, MSG_sync, ino, 0, 9 << 20, 0);
	run_ms(20);
	stop_role();
	ck_assert_int_eq(s->rc, ERR_STOPPING);
	W.mute = false;
	start();
}
END_TEST

/* Any load, killed at any moment, again and again: no callback after close, nothing
 * leaks, and in the end the tree holds together and all garbage has gone. */
START_TEST(killed_at_any_time)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f" };
	uint64_t inodes, handle = 1;
	char why[256];

	rand_seed(&W.rand, (uint64_t)_i + 77);
	W.conf.metadata_session = 1000;
	W.conf.metadata_cache_ttl = 50;
	for (unsigned round = 0; round < 25; round++) {
		for (unsigned i = rand_below(&W.rand, 200) + 5; i > 0; i--) {
			unsigned c = 1 + (unsigned)rand_below(&W.rand, 3);
			const char *n = names[rand_below(&W.rand, 6)];
			ino_id ino = 2 + rand_below(&W.rand, W.seq[c] + 3);

			switch (rand_below(&W.rand, 9)) {
			case 0:
			case 1:
				create(c, n, handle++);
				break;
			case 2:
				unlink_file(c, n);
				break;
			case 3:
				truncate_file(c, ino, rand_below(&W.rand, 1 << 22));
				break;
			case 4:
				settle(c, MSG_sync, ino, 0, 1 + rand_below(&W.rand,
				    1 << 22), (uint32_t)rand_below(&W.rand, 3));
				break;
			case 5:
				settle(c, MSG_close, ino, rand_below(&W.rand,
				    handle), rand_below(&W.rand, 3) << 20, 0);
				break;
			case 6:
				open_file(c, ino, rand_chance(&W.rand, 1, 2) ?
				    O_RDWR : O_RDWR | O_TRUNC, handle++);
				break;
			case 7:
				lookup(c, n);
				break;
			default:
				W.mute = rand_chance(&W.rand, 1, 3);
				W.fail = (int)rand_below(&W.rand, 4);
				break;
			}
			if (rand_chance(&W.rand, 1, 3))
				sim_clock_run(W.world, rand_below(&W.rand,
				    10 * NS_PER_MS));
		}
		ck_assert_msg(tree_check(group_table(W.m->group), why,
		    sizeof(why)) == 0, "tree: %s", why);
		if (rand_chance(&W.rand, 1, 4))
			stop_role();
		else
			kill_role();
		drop_asks();
		W.mute = false;
		start();
	}
	W.fail = 0;
	for (unsigned i = 0; i < 6; i++)
		await(unlink_file(1, names[i]));
	run_ms(10000);
	ck_assert_int_eq(fs_inodes(W.m->fs, &inodes), 0);
	ck_assert_uint_eq(inodes, 1);
	ck_assert_uint_eq(W.m->settles, 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("metadata_life");
	TCase *t = tcase_create("role");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 0);
	tcase_add_test(t, opens_are_told_again);
	tcase_add_loop_test(t, leads_no_more_and_again, 0, 12);
	tcase_add_test(t, leads_on);
	tcase_add_loop_test(t, who_founds, 0,
	    sizeof(foundings) / sizeof(foundings[0]));
	tcase_add_test(t, unknown_groups_serve_nobody);
	tcase_add_test(t, a_foreign_group_serves_nobody);
	tcase_add_test(t, removal_outlives_who_began_it);
	tcase_add_test(t, holder_outlives_us);
	tcase_add_test(t, no_chains_yet);
	tcase_add_test(t, clean_stop);
	tcase_add_test(t, stop_asking_storage);
	tcase_add_loop_test(t, killed_at_any_time, 0, 4);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
