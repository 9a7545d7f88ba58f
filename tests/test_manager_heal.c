/* SPDX-License-Identifier: MIT */
/* test_manager_heal.c - chains that lose and regain replicas, as the manager has it. */
#include "tests/manager_rig.h"

/* ---- chains that lose and regain replicas ---- */

START_TEST(a_dead_node_leaves_its_chains)
{
	three_nodes(1, 3);
	run_ms(1000);
	beat_ms(5000, 5);
	ck_assert_str_eq(shape(), "1v2:1.3.2o 2v2:3.1.2o 3v2:3.1.2o t1v1:1.2.3 "
	    "1+ 2- 3+");
	ck_assert_int_eq(register_node(node(1, 2, 1, 3)), 0);
	ck_assert_str_eq(shape(), "1v3:1.3.2y 2v3:3.1.2y 3v3:3.1.2y t1v1:1.2.3 "
	    "1+ 2+ 3+");
}
END_TEST

START_TEST(synced_replicas_serve)
{
	three_nodes(1, 1);
	run_ms(1000);
	ck_assert_int_eq(restart(node(1, 2, 1, 1), 5), 0);
	ck_assert_str_eq(shape(), "1v3:1.3.2y t1v1:1 1+ 2+ 3+");
	ck_assert_int_eq(synced(1, 1, 2, &nodes[2]), ERR_STALE_CHAIN);
	ck_assert_int_eq(synced(1, 4, 2, &nodes[2]), ERR_STALE_CHAIN);
	ck_assert_int_eq(synced(1, 3, 2, &nodes[0]), ERR_NOT_OWNER);
	ck_assert_int_eq(synced(2, 2, 2, &nodes[2]), -ENOENT);
	ck_assert_int_eq(synced(1, 3, 9, &nodes[2]), -ENOENT);
	nodes[2].boot = uid(2, 2, 7);
	ck_assert_int_eq(synced(1, 3, 2, &nodes[2]), ERR_STALE_NODE);
	nodes[2].boot = uid(2, 2, 1);
	ck_assert_uint_eq(t.said_n, 0);
	ck_assert_int_eq(synced(1, 3, 2, &nodes[2]), 0);
	ck_assert_str_eq(shape(), "1v4:1.3.2 t1v1:1 1+ 2+ 3+");
	ck_assert_str_eq(t.said, "replica up to date chain=1 target=2 version=3");
	ck_assert_int_eq(synced(1, 3, 2, &nodes[2]), 0);	/* again */
	ck_assert_str_eq(shape(), "1v4:1.3.2 t1v1:1 1+ 2+ 3+");
	ck_assert_uint_eq(t.said_n, 1);
}
END_TEST

static const struct msg_sync_status *
hold_row(void)
{
	const struct msg_status_rep *rep =
	    &call(MSG_status, &(struct msg_status){ 0 })->rep.status;

	for (uint32_t i = 0; i < rep->syncs.n; i++)
		if (rep->syncs.v[i].rc != 0)
			return &rep->syncs.v[i];
	return NULL;
}

/* A replica that does not take what it is sent leaves the chain at once, and is tried again
 * after pauses that grow; another manager knows it too. */
START_TEST(unfit_replicas_wait)
{
	struct msg_synced q = { .chain = 1, .target = 2, .rc = -ENOSPC };
	const struct msg_sync_status *row;
	uint64_t pause = 1000;

	three_nodes(1, 1);
	run_ms(1000);
	ck_assert_int_eq(restart(node(1, 2, 1, 1), 5), 0);
	ck_assert_str_eq(shape(), "1v3:1.3.2y t1v1:1 1+ 2+ 3+");
	q.node = nodes[2].id;
	q.boot = nodes[2].boot;
	q.version = 2;
	ck_assert_int_eq(call(MSG_synced, &q)->rc, ERR_STALE_CHAIN);
	q.version = 3;
	for (unsigned tries = 1; tries <= 9; tries++) {
		uint64_t began = sim_clock_now(t.world), waited = 0;
		char want[128];

		ck_assert_int_eq(call(MSG_synced, &q)->rc, 0);
		snprintf(want, sizeof(want), "replica cannot be brought up to date chain=1 "
		    "target=2 version=%u tries=%u error=ENOSPC", q.version, tries);
		ck_assert_str_eq(t.said, want);
		snprintf(want, sizeof(want), "1v%u:1.3.2o t1v1:1 1+ 2+ 3+",
		    ++q.version);
		ck_assert_str_eq(shape(), want);
		ck_assert_int_eq(call(MSG_synced, &q)->rc, ERR_STALE_CHAIN);
		ck_assert_ptr_nonnull(row = hold_row());
		ck_assert_int_eq(row->rc, -ENOSPC);
		ck_assert_uint_eq(row->target, 2);
		ck_assert_uint_eq(row->tries, tries);
		ck_assert_uint_le(row->again_ms, pause);
		if (tries == 4) {		/* a beat or two change nothing */
			crash();
			start();
			beat(7);
			ck_assert_uint_eq(hold_row()->tries, tries);
		}
		snprintf(want, sizeof(want), "1v%u:1.3.2y t1v1:1 1+ 2+ 3+",
		    ++q.version);
		while (strcmp(shape(), want) != 0) {
			beat_ms(250, 7);
			waited = (sim_clock_now(t.world) - began) / NS_PER_MS;
			ck_assert_uint_lt(waited, pause + 5000);
		}
		ck_assert_uint_ge(waited, pause);
		ck_assert_ptr_null(hold_row());
		pause = pause * 2 > 60000 ? 60000 : pause * 2;
	}
	/* it can after all, and all is forgotten */
	ck_assert_int_eq(synced(1, q.version, 2, &nodes[2]), 0);
	ck_assert_int_eq(restart(node(1, 3, 1, 1), 5), 0);
	q.version += 3;
	ck_assert_int_eq(call(MSG_synced, &q)->rc, 0);
	ck_assert_uint_eq(hold_row()->tries, 1);
}
END_TEST

/* One that serves lacks the space for what others have: it says so itself, leaves, and is
 * tried again after a pause; never the last one, and nobody says it of another. */
START_TEST(no_space_for_what_others_have)
{
	struct msg_synced q = { .chain = 1, .version = 1, .target = 1, .rc = -ENOSPC };

	three_nodes(1, 1);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
	q.node = nodes[1].id;
	q.boot = nodes[1].boot;
	ck_assert_int_eq(call(MSG_synced, &q)->rc, ERR_NOT_OWNER);
	q.node = nodes[2].id;		/* the tail */
	q.boot = nodes[2].boot;
	ck_assert_int_eq(call(MSG_synced, &q)->rc, ERR_NOT_OWNER);
	q.node = nodes[0].id;
	q.boot = nodes[0].boot;
	q.version = 2;
	ck_assert_int_eq(call(MSG_synced, &q)->rc, ERR_STALE_CHAIN);
	q.version = 1;
	ck_assert_uint_eq(t.said_n, 0);
	ck_assert_int_eq(call(MSG_synced, &q)->rc, 0);
	ck_assert_str_eq(shape(), "1v2:2.3.1o t1v1:1 1+ 2+ 3+");
	ck_assert_str_eq(t.said, "replica leaves, it does not take what others have chain=1 "
	    "target=1 version=1 tries=1 error=ENOSPC");
	ck_assert_int_eq(hold_row()->rc, -ENOSPC);
	q = (struct msg_synced){ .node = nodes[1].id, .boot = nodes[1].boot, .chain = 1,
	    .version = 2, .target = 2, .rc = -ENOSPC };
	ck_assert_int_eq(call(MSG_synced, &q)->rc, 0);
	ck_assert_str_eq(shape(), "1v3:3.2o.1o t1v1:1 1+ 2+ 3+");
	q = (struct msg_synced){ .node = nodes[2].id, .boot = nodes[2].boot, .chain = 1,
	    .version = 3, .target = 3, .rc = -ENOSPC };
	ck_assert_int_eq(call(MSG_synced, &q)->rc, ERR_STALE_CHAIN);
	beat_ms(3000, 7);
	ck_assert_ptr_nonnull(strstr(shape(), ":3.1y.2"));
}
END_TEST

/* What nodes have told of their routing is told to those that ask; nothing that is not. */
START_TEST(what_others_have_heard)
{
	uint32_t who[] = { 2, 9, 3 };
	const struct msg_beat_rep *rep;

	three_nodes(1, 1);
	run_ms(1000);
	nodes[1].beat.routing = 3;
	nodes[2].beat.routing = 1000000;	/* there is none such */
	beat(6);
	nodes[0].beat.awaited.v = who;
	nodes[0].beat.awaited.n = 3;
	rep = &call(MSG_beat, &nodes[0].beat)->rep.beat;
	ck_assert_uint_eq(rep->heard.n, 3);
	ck_assert_uint_eq(rep->heard.v[0].node, 2);
	ck_assert_uint_eq(rep->heard.v[0].routing, 3);
	ck_assert_uint_eq(rep->heard.v[1].node, 9);
	ck_assert_uint_eq(rep->heard.v[1].routing, 0);
	ck_assert_uint_eq(rep->heard.v[2].routing, 0);
	nodes[1].beat.routing = 2;		/* a beat that came late */
	beat(2);
	rep = &call(MSG_beat, &nodes[0].beat)->rep.beat;
	ck_assert_uint_eq(rep->heard.v[0].routing, 3);
	crash();				/* another manager has to be told */
	start();
	nodes[1].beat.routing = 4;
	rep = &call(MSG_beat, &nodes[0].beat)->rep.beat;
	ck_assert_uint_eq(rep->heard.v[0].routing, 0);
	beat(2);
	rep = &call(MSG_beat, &nodes[0].beat)->rep.beat;
	ck_assert_uint_eq(rep->heard.v[0].routing, 4);
	nodes[0].beat.awaited.n = 0;
}
END_TEST

/* Another process of a node takes over when the last one is known to be dead together
 * with all who died with it; the old one has lost the node from its registration on. */
START_TEST(a_new_boot)
{
	struct msg_beat old;

	three_nodes(1, 1);
	ck_assert_int_eq(register_node(node(3, 1, 0, 0)), 0);
	run_ms(1000);
	ck_assert_int_eq(register_node(&nodes[1]), 0);		/* same boot */
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+ 4+");
	old = nodes[1].beat;
	ck_assert_int_eq(restart(node(1, 2, 1, 1), 0), -1);	/* held */
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+ 4+");
	ck_assert_int_eq(call(MSG_beat, &old)->rc, ERR_STALE_NODE);
	beat(9);
	run_ms(100);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+ 4+");
	beat(4);
	run_ms(100);
	ck_assert_str_eq(shape(), "1v3:1.3.2y t1v1:1 1+ 2+ 3+ 4+");
	ck_assert_int_eq(register_node(&nodes[1]), 0);
	ck_assert_int_eq(call(MSG_beat, &old)->rc, ERR_STALE_NODE);
	ck_assert_int_eq(call(MSG_beat, &nodes[1].beat)->rc, 0);
	/* the old process does not get its node back, not after a restart either */
	nodes[1].reg.boot = old.boot;
	ck_assert_int_eq(register_node(&nodes[1]), ERR_STALE_NODE);
	crash();
	start();
	ck_assert_int_eq(register_node(&nodes[1]), ERR_STALE_NODE);
	ck_assert_int_eq(call(MSG_beat, &nodes[1].beat)->rc, 0);
	ck_assert_int_eq(restart(node(3, 2, 0, 0), 7), 0);	/* no chains of it */
	ck_assert_str_eq(shape(), "1v3:1.3.2y t1v1:1 1+ 2+ 3+ 4+");
}
END_TEST

/* Asked again while it is held: only the last one is answered with a node. */
START_TEST(held_twice)
{
	struct ask *a, *b, *c;

	three_nodes(1, 1);
	run_ms(1000);
	a = ask(MSG_register, &node(1, 2, 1, 1)->reg);
	run_ms(100);
	b = ask(MSG_register, &nodes[1].reg);
	ck_assert(a->done && a->rc == ERR_BUSY);
	run_ms(10);
	nodes[1].boot = nodes[1].reg.boot = uid(2, 1, 3);	/* and a third */
	c = ask(MSG_register, &nodes[1].reg);
	ck_assert(b->done && b->rc == ERR_BUSY);
	ck_assert(!c->done);
	run_ms(10);
	beat(5);
	run_ms(100);
	ck_assert(c->done && c->rc == 0);
	ck_assert_str_eq(shape(), "1v3:1.3.2y t1v1:1 1+ 2+ 3+");
	nodes[1].reg.boot = uid(2, 1, 1);
	ck_assert_int_eq(register_node(&nodes[1]), ERR_STALE_NODE);
	/* held when the manager dies: no answer, no harm */
	a = ask(MSG_register, &node(1, 4, 1, 1)->reg);
	run_ms(10);
	ck_assert(!a->done);
	crash();
	ck_assert(a->dropped);
	start();
	a = ask(MSG_register, &nodes[1].reg);
	run_ms(10);
	manager_stop(t.m, on_stopped, NULL);
	run_ms(100);
	ck_assert(t.stopped && a->done && a->rc == ERR_STOPPING);
	sim_clock_node_close(t.clock);
	start();
}
END_TEST

/* The last process's goodbye is under way when the next one registers: who was held for
 * that serves. */
START_TEST(held_beside_a_goodbye)
{
	struct ask *bye, *a;

	three_nodes(1, 1);
	run_ms(1000);
	bye = ask(MSG_goodbye, &nodes[1].bye);
	a = ask(MSG_register, &node(1, 2, 1, 1)->reg);
	ck_assert(!bye->done && !a->done);
	run_ms(100);
	ck_assert(bye->done && bye->rc == 0);
	ck_assert(a->done && a->rc == 0);
	ck_assert_int_eq(register_node(&nodes[1]), 0);		/* same boot */
	ck_assert_int_eq(call(MSG_beat, &nodes[1].beat)->rc, 0);
}
END_TEST

/* The power of all goes: the tail of each chain is the one that has everything, however
 * the leases end one after the other, and whoever comes back first. */
START_TEST(all_die_at_once)
{
	three_nodes(1, 3);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v1:2.3.1 3v1:3.1.2 t1v1:1.2.3 "
	    "1+ 2+ 3+");
	for (unsigned i = 0; i < 3; i++) {
		beat(1u << (2 - i));
		run_ms(100);
	}
	run_ms(3500);
	ck_assert_ptr_nonnull(strstr(shape(), "1+ 2+ 3+"));
	run_ms(600);
	ck_assert_str_eq(shape(), "1v2:3l.1o.2o 2v2:1l.2o.3o 3v2:2l.3o.1o "
	    "t1v1:1.2.3 1- 2- 3-");
	ck_assert_int_eq(register_node(node(1, 2, 1, 3)), 0);
	ck_assert_str_eq(shape(), "1v3:3l.2w.1o 2v3:1l.2w.3o 3v3:2.3o.1o "
	    "t1v1:1.2.3 1- 2+ 3-");
	crash();
	start();
	ck_assert_int_eq(register_node(node(2, 2, 1, 3)), 0);
	ck_assert_str_eq(shape(), "1v4:3.2y.1o 2v4:1l.2w.3w 3v4:2.3y.1o "
	    "t1v1:1.2.3 1- 2+ 3+");
}
END_TEST

/* The same, but all are started again before any lease ends. */
START_TEST(all_are_started_again)
{
	struct ask *a[3];

	three_nodes(1, 1);
	run_ms(1000);
	for (unsigned i = 0; i < 3; i++) {
		a[i] = ask(MSG_register, &node(i, 2, 1, 1)->reg);
		run_ms(100);
		if (i < 2)
			ck_assert(!a[i]->done);
	}
	for (unsigned i = 0; i < 3; i++)
		ck_assert(a[i]->done && a[i]->rc == 0);
	/* down in one version; then 1, 2 wait for 3 */
	ck_assert_ptr_nonnull(strstr(shape(), ":3.1y.2w t1v1:1 1+ 2+ 3+"));
}
END_TEST

/* One that is late with its lease is waited for: it may have died with the others. */
START_TEST(a_batch_waits_for_all)
{
	three_nodes(1, 1);
	run_ms(1000);
	beat(7);
	run_ms(1500);
	beat(4);			/* the tail lives on for a while */
	run_ms(2500);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
	run_ms(1600);			/* all leases are over */
	ck_assert_str_eq(shape(), "1v2:3l.1o.2o t1v1:1 1- 2- 3-");
}
END_TEST

/* Whoever beats before the batch has gone is not dead after all. */
START_TEST(a_late_beat_leaves_the_batch)
{
	three_nodes(1, 1);
	run_ms(1000);
	beat(7);
	run_ms(1500);
	beat(4);
	run_ms(2500);			/* 1 and 2 are dying */
	beat(1);
	run_ms(200);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
	beat(4);
	run_ms(200);
	ck_assert_str_eq(shape(), "1v2:1.3.2o t1v1:1 1+ 2- 3+");
	ck_assert_int_eq(call(MSG_beat, &nodes[1].beat)->rc, 0);
	ck_assert_str_eq(shape(), "1v3:1.3.2y t1v1:1 1+ 2+ 3+");
}
END_TEST

START_TEST(failed_disks)
{
	three_nodes(2, 1);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v1:2.3.1 t1v1:1.2 1+ 2+ 3+");
	nodes[1].disks[0].failed = 1;
	beat(2);
	run_ms(50);
	beat(2);
	run_ms(50);
	ck_assert_str_eq(shape(), "1v2:1.3.2o 2v1:2.3.1 t1v1:1.2 1+ 2+ 3+");
	crash();			/* it is known for good */
	start();
	ck_assert_str_eq(shape(), "1v2:1.3.2o 2v1:2.3.1 t1v1:1.2 1+ 2+ 3+");
	nodes[1].disks[0].failed = 0;
	beat(2);
	run_ms(50);
	ck_assert_str_eq(shape(), "1v3:1.3.2y 2v1:2.3.1 t1v1:1.2 1+ 2+ 3+");
	nodes[1].beat.disks.n = 1;	/* and one is pulled out */
	beat(2);
	run_ms(50);
	ck_assert_str_eq(shape(), "1v3:1.3.2y 2v2:3.1.2o t1v1:1.2 1+ 2+ 3+");
	/* which a registration tells as well */
	node(1, 2, 1, 1)->disks[0].failed = 1;
	ck_assert_int_eq(restart(&nodes[1], 5), 0);
	ck_assert_str_eq(shape(), "1v4:1.3.2o 2v2:3.1.2o t1v1:1.2 1+ 2+ 3+");
	ck_assert_int_eq(restart(node(1, 3, 2, 1), 5), 0);
	ck_assert_str_eq(shape(), "1v5:1.3.2y 2v3:3.1.2y t1v1:1.2 1+ 2+ 3+");
}
END_TEST

/* What does not fit into one message is told in several versions. */
START_TEST(thousands_of_chains_change_at_once)
{
	struct msg_routing q = { 0 };
	struct routing *r;
	static struct msg_disk_info disks[3][64];
	uint64_t version = 0;
	unsigned serving = 0, pieces = 0;

	for (unsigned i = 0; i < 3; i++) {
		node(i, 1, 0, 0);
		for (unsigned d = 0; d < 64; d++)
			disks[i][d] = (struct msg_disk_info){ .capacity = 1,
				.disk = uid(3, i, d + 1), .targets = 64 };
		nodes[i].reg.disks = (msg_t_list_disk_info){ disks[i], 64 };
		ck_assert_int_eq(register_node(&nodes[i]), 0);
	}
	run_ms(3000);
	beat(7);
	ck_assert_int_eq(routing_open(&r), 0);
	for (unsigned round = 0; round < 2; round++) {
		for (;;) {
			struct ask *a = call(MSG_routing, &q);

			ck_assert_int_eq(a->rc, 0);
			ck_assert_int_eq(routing_apply(r, &a->rep.routing), 0);
			if (a->rep.routing.version == q.have)
				break;
			q.have = a->rep.routing.version;
			pieces += round;
		}
		if (round == 0) {
			version = q.have;
			ck_assert_uint_eq(routing_table(r, 1, 0)->chain_n, 4096);
			run_ms(5000);
		}
	}
	ck_assert_uint_gt(q.have, version + 1);
	for (unsigned i = 0; i < 4096; i++) {
		const struct routing_chain *c = routing_chain_at(r, i);

		serving += routing_serving_n(c);
		ck_assert_uint_eq(c->version, 2);
		ck_assert_uint_eq(c->states[0], TARGET_LASTSRV);
		ck_assert_uint_eq(c->targets[0], c->preferred[2]);
	}
	ck_assert_uint_eq(serving, 0);
	routing_close(r);
}
END_TEST

START_TEST(order_is_restored)
{
	three_nodes(1, 2);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v1:2.3.1 t1v1:1.2 1+ 2+ 3+");
	ck_assert_int_eq(restart(node(0, 2, 1, 2), 6), 0);
	ck_assert_int_eq(synced(1, 3, 1, &nodes[2]), 0);
	ck_assert_int_eq(synced(2, 3, 2, &nodes[2]), 0);
	ck_assert_str_eq(shape(), "1v4:2.3.1 2v4:2.3.1 t1v1:1.2 1+ 2+ 3+");
	beat_ms(9000, 7);		/* not before it is quiet */
	ck_assert_str_eq(shape(), "1v4:2.3.1 2v4:2.3.1 t1v1:1.2 1+ 2+ 3+");
	beat_ms(3000, 7);
	ck_assert_str_eq(shape(), "1v5:3.1.2y 2v4:2.3.1 t1v1:1.2 1+ 2+ 3+");
	ck_assert_int_eq(synced(1, 5, 3, &nodes[0]), 0);
	beat_ms(13000, 7);
	ck_assert_str_eq(shape(), "1v7:1.2.3y 2v4:2.3.1 t1v1:1.2 1+ 2+ 3+");
	ck_assert_int_eq(synced(1, 7, 5, &nodes[1]), 0);
	beat_ms(20000, 7);
	ck_assert_str_eq(shape(), "1v8:1.2.3 2v4:2.3.1 t1v1:1.2 1+ 2+ 3+");
}
END_TEST

/* Words about what syncs come with beats, and are forgotten in time. */
START_TEST(sync_progress)
{
	struct msg_sync_status y[3] = {
		{ .chain = 1, .target = 2, .done = 10, .total = 40, .bytes = 7 },
		{ .chain = 9, .target = 2 },
		{ .chain = 1, .target = 3 },
	};
	struct ask *a;

	three_nodes(1, 1);
	run_ms(1000);
	ck_assert_int_eq(restart(node(1, 2, 1, 1), 5), 0);
	ck_assert_str_eq(shape(), "1v3:1.3.2y t1v1:1 1+ 2+ 3+");
	nodes[0].beat.syncs = (msg_t_list_sync_status){ y, 1 };
	beat(1);			/* not the tail */
	a = call(MSG_status, &(struct msg_status){ 0 });
	ck_assert_uint_eq(a->rep.status.syncs.n, 0);
	nodes[0].beat.syncs.n = 0;
	nodes[2].beat.syncs = (msg_t_list_sync_status){ y, 3 };
	beat(4);
	a = call(MSG_status, &(struct msg_status){ 0 });
	ck_assert_uint_eq(a->rep.status.syncs.n, 1);
	ck_assert_uint_eq(a->rep.status.syncs.v[0].done, 10);
	ck_assert_uint_eq(a->rep.status.syncs.v[0].total, 40);
	y[0].done = 20;
	beat(4);
	a = call(MSG_status, &(struct msg_status){ 0 });
	ck_assert_uint_eq(a->rep.status.syncs.v[0].done, 20);
	nodes[2].beat.syncs.n = 0;
	beat_ms(6000, 7);
	a = call(MSG_status, &(struct msg_status){ 0 });
	ck_assert_uint_eq(a->rep.status.syncs.n, 0);
	nodes[2].beat.syncs.n = 1;
	beat(4);
	ck_assert_int_eq(synced(1, 3, 2, &nodes[2]), 0);
	a = call(MSG_status, &(struct msg_status){ 0 });
	ck_assert_uint_eq(a->rep.status.syncs.n, 0);
}
END_TEST

/* Of an attempt that was broken off nothing is shown as of the next one. */
START_TEST(progress_begins_anew)
{
	struct msg_sync_status y = { .chain = 1, .target = 2, .done = 10, .total = 40 };
	struct msg_synced q = { .chain = 1, .target = 2, .version = 3, .rc = -EIO };
	struct ask *a;

	three_nodes(1, 1);
	run_ms(1000);
	ck_assert_int_eq(restart(node(1, 2, 1, 1), 5), 0);
	nodes[2].beat.syncs = (msg_t_list_sync_status){ &y, 1 };
	beat(4);
	nodes[2].beat.syncs.n = 0;
	q.node = nodes[2].id;
	q.boot = nodes[2].boot;
	ck_assert_int_eq(call(MSG_synced, &q)->rc, 0);
	beat_ms(2500, 7);
	ck_assert_str_eq(shape(), "1v5:1.3.2y t1v1:1 1+ 2+ 3+");
	a = call(MSG_status, &(struct msg_status){ 0 });
	ck_assert_uint_eq(a->rep.status.syncs.n, 0);
	y.done = 2;
	nodes[2].beat.syncs.n = 1;
	beat(4);
	a = call(MSG_status, &(struct msg_status){ 0 });
	ck_assert_uint_eq(a->rep.status.syncs.n, 1);
	ck_assert_uint_eq(a->rep.status.syncs.v[0].done, 2);
}
END_TEST

/* @n says that it waits for node @other in vain, or reaches it. */
static void
says(unsigned n, node_id other, uint8_t reached)
{
	static struct msg_neighbour rows[3][2];
	msg_t_list_neighbour *l = &nodes[n].beat.neighbours;

	l->v = rows[n];
	rows[n][l->n++] = (struct msg_neighbour){ .node = other, .reached = reached };
}

static void
quiet_all(void)
{
	for (unsigned i = 0; i < 3; i++)
		nodes[i].beat.neighbours.n = 0;
}

/* Neighbours that do not reach each other: the second leaves, when that was said twice, and
 * comes back when who brings it up to date reaches it. */
START_TEST(neighbours_apart)
{
	three_nodes(1, 3);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v1:2.3.1 3v1:3.1.2 t1v1:1.2.3 1+ 2+ 3+");
	says(0, 2, 0);
	says(0, 9, 0);			/* no such node */
	beat(1);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v1:2.3.1 3v1:3.1.2 t1v1:1.2.3 1+ 2+ 3+");
	beat_ms(1000, 7);
	ck_assert_str_eq(shape(), "1v2:1.3.2a 2v1:2.3.1 3v2:3.1.2a t1v1:1.2.3 1+ 2+ 3+");
	/* the cut goes on, and nobody is its neighbour any more: nothing happens, neither
	 * when somebody reaches it whose business that is not */
	quiet_all();
	says(1, 1, 0);
	says(0, 2, 0);
	beat_ms(3000, 7);
	ck_assert_str_eq(shape(), "1v2:1.3.2a 2v1:2.3.1 3v2:3.1.2a t1v1:1.2.3 1+ 2+ 3+");
	quiet_all();
	says(2, 2, 1);
	beat_ms(1000, 7);
	ck_assert_str_eq(shape(), "1v3:1.3.2y 2v1:2.3.1 3v2:3.1.2a t1v1:1.2.3 1+ 2+ 3+");
	quiet_all();
	says(0, 2, 1);
	beat_ms(1000, 7);
	ck_assert_str_eq(shape(), "1v3:1.3.2y 2v1:2.3.1 3v3:3.1.2y t1v1:1.2.3 1+ 2+ 3+");
	/* who syncs leaves likewise, and comes back later than the first time */
	quiet_all();
	says(0, 2, 0);
	beat_ms(1000, 7);
	ck_assert_str_eq(shape(), "1v3:1.3.2y 2v1:2.3.1 3v4:3.1.2a t1v1:1.2.3 1+ 2+ 3+");
	quiet_all();
	says(0, 2, 1);
	beat_ms(1000, 7);
	ck_assert_str_eq(shape(), "1v3:1.3.2y 2v1:2.3.1 3v4:3.1.2a t1v1:1.2.3 1+ 2+ 3+");
	beat_ms(1500, 7);
	ck_assert_str_eq(shape(), "1v3:1.3.2y 2v1:2.3.1 3v5:3.1.2y t1v1:1.2.3 1+ 2+ 3+");
}
END_TEST

/* Who is cut from most is the one that leaves, whoever says so; and never the last. */
START_TEST(cut_from_all)
{
	three_nodes(1, 3);
	run_ms(1000);
	says(0, 2, 0);
	says(1, 3, 0);
	beat_ms(1000, 7);
	ck_assert_str_eq(shape(), "1v2:1.3.2a 2v2:3.1.2a 3v2:3.1.2a t1v1:1.2.3 1+ 2+ 3+");
	quiet_all();
	says(0, 3, 0);
	says(2, 1, 0);
	beat_ms(2000, 7);
	ck_assert_str_eq(shape(), "1v3:1.3a.2a 2v3:3.1a.2a 3v3:3.1a.2a t1v1:1.2.3 "
	    "1+ 2+ 3+");
	beat_ms(5000, 7);
	ck_assert_str_eq(shape(), "1v3:1.3a.2a 2v3:3.1a.2a 3v3:3.1a.2a t1v1:1.2.3 "
	    "1+ 2+ 3+");
	/* who serves alone dies: the others wait for it */
	beat_ms(5000, 3);
	ck_assert_str_eq(shape(), "1v4:1.3o.2a 2v4:3l.1w.2w 3v4:3l.1w.2w t1v1:1.2.3 "
	    "1+ 2+ 3-");
}
END_TEST

int
main(void)
{
	TCase *calm = tcase_create("calm");

	tcase_add_checked_fixture(calm, setup, teardown);
	tcase_add_test(calm, a_dead_node_leaves_its_chains);
	tcase_add_test(calm, synced_replicas_serve);
	tcase_add_test(calm, unfit_replicas_wait);
	tcase_add_test(calm, no_space_for_what_others_have);
	tcase_add_test(calm, what_others_have_heard);
	tcase_add_test(calm, a_new_boot);
	tcase_add_test(calm, held_twice);
	tcase_add_test(calm, held_beside_a_goodbye);
	tcase_add_test(calm, all_die_at_once);
	tcase_add_test(calm, all_are_started_again);
	tcase_add_test(calm, a_batch_waits_for_all);
	tcase_add_test(calm, a_late_beat_leaves_the_batch);
	tcase_add_test(calm, failed_disks);
	tcase_add_test(calm, thousands_of_chains_change_at_once);
	tcase_add_test(calm, order_is_restored);
	tcase_add_test(calm, sync_progress);
	tcase_add_test(calm, progress_begins_anew);
	tcase_add_test(calm, neighbours_apart);
	tcase_add_test(calm, cut_from_all);
	tcase_set_timeout(calm, 60);
	return suite_run("manager_heal", calm);
}
