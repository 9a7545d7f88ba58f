/* SPDX-License-Identifier: MIT */
/* test_storage_moves.c - chains that change step by step, and what their replicas have. */
#include "roles/storage_impl.h"
#include "tests/storage_moves.h"

#define LEFT	4400u	/* more than roles/storage_left.c notes */

/* One is left of three and serves; the others come back. */
START_TEST(lone_survivor)
{
	unsigned left, a, b;

	cluster_open(40 + (uint64_t)_i, 1);
	fill(0, 20, 'a');
	left = node_at(0, (unsigned)_i);
	a = left % NODES + 1;
	b = a % NODES + 1;
	host_down(&T.nodes[a - 1], KILL);
	host_down(&T.nodes[b - 1], KILL);
	wait_serving(1);
	fill(0, 10, 'b');
	filled(0, 0, 10, 'b');
	filled(0, 10, 20, 'a');
	storage_up(&T.nodes[b - 1]);
	storage_up(&T.nodes[a - 1]);
	wait_serving(NODES);
	for (unsigned r = 0; r < NODES; r++) {
		filled(r, 0, 10, 'b');
		filled(r, 10, 20, 'a');
	}
	cluster_close();
}
END_TEST

/* The power fails everywhere: the tail has all that anybody was told, the others wait for
 * it, and it commits what a former reader may have seen. */
START_TEST(power_cut)
{
	unsigned tails[2];
	uint8_t b[16];

	cluster_open(50, 1);
	fill(0, 20, 'a');
	tails[0] = node_at(0, NODES - 1);
	tails[1] = node_at(1, NODES - 1);
	for (unsigned i = 0; i < NODES; i++)
		host_down(&T.nodes[i], POWER);
	for (unsigned n = 1; n <= NODES; n++)
		if (n != tails[0])
			storage_up(&T.nodes[n - 1]);
	sim_clock_run(T.world, 5 * NS_PER_S);
	ck_assert_uint_eq(routing_serving_n(chain_of(0)), 0);
	ck_assert_uint_eq(chain_of(0)->states[0], TARGET_LASTSRV);
	ck_assert_int_ne(get(1, 0, 0, b, sizeof(b)), 0);
	ck_assert_uint_eq(routing_serving_n(chain_of(1)), NODES - 1);
	storage_up(&T.nodes[tails[0] - 1]);
	wait_serving(NODES);
	ck_assert_uint_eq(node_at(0, 0), tails[0]);
	for (unsigned r = 0; r < NODES; r++)
		filled(r, 0, 20, 'a');
	cluster_close();
}
END_TEST

/* The manager takes a live replica out, which does not hear of it: it must have stopped
 * answering readers by the time that the others have acknowledged something newer. */
START_TEST(dropped_alive)
{
	static uint8_t a[64], b[64];
	struct msg_read_item item = { { INO, 0 }, 0, sizeof(b) };
	struct routing_chain old;
	struct msg_read m;
	unsigned n;

	cluster_open(60 + (uint64_t)_i, 1);
	T.m.by_hand = true;
	memset(a, 'a', sizeof(a));
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	old = *chain_of(0);
	n = node_of(old.targets[_i]);
	sim_net_cut(T.net, 0, n, SIM_NET_SILENT);
	by_hand(_i == 0 ? TARGET_OFFLINE : TARGET_SERVING,
	    _i == 1 ? TARGET_OFFLINE : TARGET_SERVING,
	    _i == 2 ? TARGET_OFFLINE : TARGET_SERVING);
	wait_state(TARGET_OFFLINE);
	memset(a, 'b', sizeof(a));
	for (unsigned tries = 0; put(0, 0, a, sizeof(a), 2, 0) != 0; tries++) {
		ck_assert_uint_lt(tries, 20);
		sim_clock_run(T.world, NS_PER_MS);
	}
	m = (struct msg_read){ old.id, old.version, old.targets[_i], { &item, 1 } };
	ck_assert_int_eq(call(m.target, MSG_read, &m, NULL, 0, b, sizeof(b)),
	    ERR_STALE_CHAIN);
	sim_net_heal(T.net);
	T.m.by_hand = false;
	heal(0);
	sim_clock_run(T.world, 2 * NS_PER_S);
	wait_serving(NODES);
	for (unsigned r = 0; r < NODES; r++) {
		ck_assert_int_eq(get(r, 0, 0, b, sizeof(b)), 0);
		ck_assert_uint_eq(b[0], 'b');
	}
	cluster_close();
}
END_TEST

/* The manager has the tail come back behind the others, as the order was wrong, and the tail
 * does not hear of it: by the time that a write which never reached it is shown by the new
 * reading tail, it answers no more.  The two may reach each other (0), or not (1). */
START_TEST(rotated_alive)
{
	static uint8_t a[64], b[64];
	struct iovec send = { a, sizeof(a) };
	struct net_call_opts o = { .send = &send, .send_n = 1 };
	struct msg_read_item item = { { INO, 0 }, 0, sizeof(b) };
	struct routing_chain old;
	struct net_call lost = { 0 };
	struct net_addr to;
	struct msg_write w;
	struct msg_read m;
	unsigned n, before;

	cluster_open(80 + (uint64_t)_i, 1);
	T.m.by_hand = true;
	memset(a, 'a', sizeof(a));
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	old = *chain_of(0);
	before = node_of(old.targets[1]);
	n = node_of(old.targets[2]);
	sim_net_path(T.net, before, n, SIM_NET_SILENT);
	memset(a, 'b', sizeof(a));
	w = write_msg(0, 0, a, sizeof(a), 2, 0);
	o.deadline_ns = clock_now(T.client.clock) + NS_PER_S / 5;
	ck_assert_int_eq(routing_target_addr(member_routing(T.member), w.target, &to),
	    0);
	ck_assert_int_eq(net_call_start(&lost, T.client.hubs[0], &to, MSG_write, &w,
	    &o, call_done), 0);
	sim_clock_run(T.world, 100 * NS_PER_MS);	/* pending at two */
	sim_net_cut(T.net, 0, n, SIM_NET_SILENT);
	if (_i == 0) {
		sim_net_heal(T.net);
		sim_net_cut(T.net, 0, n, SIM_NET_SILENT);
	}
	by_hand(TARGET_SERVING, TARGET_SERVING, TARGET_SYNCING);
	wait_state(TARGET_SYNCING);
	for (unsigned tries = 0; get(1, 0, 0, b, sizeof(b)) != 0 || R.item_rc != 0;
	    tries++) {
		ck_assert_uint_lt(tries, 8000);
		sim_clock_run(T.world, NS_PER_MS);
	}
	ck_assert_uint_eq(b[0], 'b');
	m = (struct msg_read){ old.id, old.version, old.targets[2], { &item, 1 } };
	ck_assert_int_ne(call(m.target, MSG_read, &m, NULL, 0, b, sizeof(b)), 0);
	net_call_cancel(&lost);
	sim_net_heal(T.net);
	T.m.by_hand = false;
	heal(0);
	sim_clock_run(T.world, 2 * NS_PER_S);
	wait_serving(NODES);
	cluster_close();
}
END_TEST

/* A head that has just become one does not know what was cut before: who has not asked for
 * the epoch since must not bring a chunk back. */
START_TEST(cut_before_the_head_changed)
{
	static const struct {
		const char *what;
		uint32_t index, epoch, at;	/* 2: what the chain has now */
		int	 rc;
	} rows[] = {
		{ "chunk that was cut, epoch of before", 1, 0, 1, ERR_STALE_EPOCH },
		{ "chunk that is there, epoch of before", 0, 0, 1, 0 },
		{ "chunk that was cut, epoch of now", 1, 5, 2, 0 },
		{ "chunk that never was, epoch of before", 2, 0, 1, ERR_STALE_EPOCH },
		{ "chunk that never was, asked again", 2, 0, 2, 0 },
		{ "chunk that never was, by a client of the release before", 3, 0, 0, 0 },
	};
	static uint8_t a[64];
	const struct routing_chain *c;
	struct msg_cut cut;

	cluster_open(90, 1);
	c = chain_of(0);
	for (uint32_t i = 0; i < 2; i++) {
		struct msg_write w = write_msg(0, 0, a, sizeof(a), 1 + i, 0);

		w.chunk.index = i;
		w.epoch_at = 1;
		ck_assert_int_eq(call(w.target, MSG_write, &w, a, sizeof(a), NULL, 0),
		    0);
	}
	cut = (struct msg_cut){ c->id, c->version, c->targets[0], INO, 1, 0, 5, 10, 0, 0 };
	ck_assert_int_eq(call(cut.target, MSG_cut, &cut, NULL, 0, NULL, 0), 0);
	host_down(&T.nodes[node_at(0, 0) - 1], KILL);
	wait_serving(NODES - 1);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct msg_write w = write_msg(0, 0, a, sizeof(a), 100 + i, 0);
		int rc;

		w.chunk.index = rows[i].index;
		w.epoch = rows[i].epoch;
		w.epoch_at = rows[i].at == 2 ? w.chain_version : rows[i].at;
		rc = call(w.target, MSG_write, &w, a, sizeof(a), NULL, 0);
		ck_assert_msg(rc == rows[i].rc, "%s: %s", rows[i].what, err_name(rc));
	}
	cluster_close();
}
END_TEST

/* A clock that stands still, as that of a loop does in a turn, however long. */
static struct {
	struct clock c, *real;
	uint64_t at_ns;
} still;

static uint64_t
still_now(struct clock *c)
{
	(void)c;
	return still.at_ns;
}

static uint64_t
still_fresh(struct clock *c)
{
	(void)c;
	return clock_fresh(still.real);
}

static void
still_start(struct clock *c, struct clock_timer *t)
{
	(void)c;
	if (t->at_ns <= clock_now(still.real))
		t->at_ns = clock_now(still.real) + NS_PER_MS;
	still.real->ops->timer_start(still.real, t);
}

static void
still_stop(struct clock *c, struct clock_timer *t)
{
	(void)c;
	still.real->ops->timer_stop(still.real, t);
}

static void
still_defer(struct clock *c, struct clock_defer *d)
{
	(void)c;
	still.real->ops->defer(still.real, d);
}

static void
still_undefer(struct clock *c, struct clock_defer *d)
{
	(void)c;
	still.real->ops->undefer(still.real, d);
}

/* The new reading tail hears in such a turn that the old one was dropped, which nobody can
 * ask: its lease is waited for, all of it. */
START_TEST(dropped_in_a_long_turn)
{
	static const struct clock_ops ops = { .now = still_now, .fresh = still_fresh,
		.timer_start = still_start, .timer_stop = still_stop, .defer = still_defer,
		.undefer = still_undefer };
	static uint8_t a[64], b[64];
	struct msg_read_item item = { { INO, 0 }, 0, sizeof(b) };
	struct storage_worker *w;
	struct routing_chain old;
	struct msg_read m;
	unsigned n;

	cluster_open(63, 1);
	T.m.by_hand = true;
	memset(a, 'a', sizeof(a));
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	old = *chain_of(0);
	n = node_of(old.targets[2]);
	w = &T.nodes[node_of(old.targets[1]) - 1].storage->workers[0];
	still.real = w->clock;
	still.c.ops = &ops;
	still.at_ns = clock_now(w->clock) - LEASE_MS / 2 * NS_PER_MS;
	sim_net_cut(T.net, 0, n, SIM_NET_SILENT);
	sim_net_cut(T.net, node_of(old.targets[1]), n, SIM_NET_SILENT);
	w->clock = &still.c;
	by_hand(TARGET_SERVING, TARGET_SERVING, TARGET_OFFLINE);
	wait_state(TARGET_OFFLINE);
	w->clock = still.real;
	memset(a, 'b', sizeof(a));
	for (unsigned tries = 0; put(0, 0, a, sizeof(a), 2, 0) != 0; tries++) {
		ck_assert_uint_lt(tries, 3 * LEASE_MS);
		sim_clock_run(T.world, NS_PER_MS);
	}
	m = (struct msg_read){ old.id, old.version, old.targets[2], { &item, 1 } };
	ck_assert_int_ne(call(m.target, MSG_read, &m, NULL, 0, b, sizeof(b)), 0);
	cluster_close();
}
END_TEST

static struct clock_timer give_timer;

static void
give_away(struct clock_timer *timer)
{
	struct routing_target t = *routing_target(T.m.routing,
	    chain_of(0)->targets[0]);

	(void)timer;
	t.node = node_of(chain_of(0)->targets[1]);
	t.changed = next_version();
	ck_assert_int_eq(routing_put_target(T.m.routing, &t), 0);
	publish();
}

/* A replica's disk is another node's: what was under way here ends, and is not tried for
 * ever with nobody to stop it. */
START_TEST(given_away)
{
	static uint8_t a[64];
	struct msg_write w;
	uint64_t began;

	cluster_open(65, 1);
	T.m.by_hand = true;
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	w = write_msg(0, 0, a, sizeof(a), 2, 0);
	sim_net_cut(T.net, node_at(0, 0), node_at(0, 1), SIM_NET_SILENT);
	began = sim_clock_now(T.world);
	clock_timer_start(T.manager.clock, &give_timer, clock_now(T.manager.clock) +
	    100 * NS_PER_MS, give_away);
	ck_assert_int_eq(call(w.target, MSG_write, &w, a, sizeof(a), NULL, 0),
	    ERR_STALE_CHAIN);
	ck_assert_uint_lt(sim_clock_now(T.world) - began, 200 * NS_PER_MS);
	ck_assert_int_eq(call(w.target, MSG_write, &w, a, sizeof(a), NULL, 0),
	    ERR_NOT_OWNER);
	cluster_close();
}
END_TEST

/* A version of which nobody knows the end: a replica holds it pending when the chain moves.
 * Whoever is the last to serve then commits it, and all agree. */
START_TEST(pending_is_settled)
{
	static uint8_t a[64], b[64];
	struct msg_write w;
	struct chunk_info info;
	uint64_t version = 0;
	unsigned tail;

	cluster_open(70 + (uint64_t)_i, 1);
	memset(a, 'a', sizeof(a));
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	tail = node_at(0, NODES - 1);
	memset(a, 'b', sizeof(a));
	w = write_msg(0, 0, a, sizeof(a), 2, 0);
	/* The tail hears nothing more; the client gives up. */
	T.m.no_part = true;
	sim_net_cut(T.net, node_at(0, NODES - 2), tail, SIM_NET_SILENT);
	ck_assert_int_ne(call(w.target, MSG_write, &w, a, sizeof(a), NULL, 0), 0);
	if (_i == 0)
		host_down(&T.nodes[tail - 1], KILL);
	else
		sim_net_cut(T.net, 0, tail, SIM_NET_SILENT);
	wait_serving(NODES - 1);
	ck_assert_int_eq(chunk_engine_next_pending(storage_engine_at(
	    T.nodes[node_at(0, NODES - 2) - 1].storage, 0), chain_of(0)->targets[
	    NODES - 2], (struct chunk_id){ 0, 0 }, false, &info), -ENOENT);
	ck_assert_int_eq(get(0, 0, 0, b, sizeof(b)), 0);
	ck_assert_uint_eq(b[0], 'b');
	sim_net_heal(T.net);
	if (_i == 0)
		storage_up(&T.nodes[tail - 1]);
	sim_clock_run(T.world, 3 * NS_PER_S);
	wait_serving(NODES);
	for (unsigned r = 0; r < NODES; r++) {
		ck_assert_int_eq(get(r, 0, 0, b, sizeof(b)), 0);
		ck_assert_uint_eq(b[0], 'b');
		ck_assert(r == 0 || R.version == version);
		version = R.version;
	}
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_int_eq(chunk_engine_next_pending(storage_engine_at(
		    T.nodes[i].storage, 0), 10 + i + 1, (struct chunk_id){ 0, 0 },
		    false, &info), -ENOENT);
	cluster_close();
}
END_TEST

/* More versions are left unfinished at once than the head notes: it finds the others later. */
START_TEST(many_left)
{
	static uint8_t a[64];
	struct iovec send = { a, sizeof(a) };
	struct net_call_opts o = { .send = &send, .send_n = 1 };
	struct chunk_info info;
	struct net_addr to;

	cluster_open_with(77, 1, 1);
	T.m.no_part = true;
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	ck_assert_int_eq(routing_target_addr(member_routing(T.member),
	    chain_of(0)->targets[0], &to), 0);
	sim_net_cut(T.net, node_at(0, 0), node_at(0, 1), SIM_NET_SILENT);
	for (uint32_t i = 1; i <= LEFT; i++) {
		struct msg_write w = write_msg(i, 0, a, sizeof(a), i + 1, 0);
		struct net_call lost = { 0 };

		memset(&R, 0, sizeof(R));
		R.method = MSG_write;
		o.deadline_ns = clock_now(T.client.clock) + 3 * NS_PER_MS;
		ck_assert_int_eq(net_call_start(&lost, T.client.hubs[0], &to, MSG_write,
		    &w, &o, call_done), 0);
		ck_assert(sim_clock_run_until(T.world, is_done, NULL, NS_PER_S));
		ck_assert_int_ne(R.rc, 0);
	}
	sim_net_heal(T.net);
	sim_clock_run(T.world, 60 * NS_PER_S);
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_int_eq(chunk_engine_next_pending(storage_engine_at(
		    T.nodes[i].storage, 0), 10 + i + 1, (struct chunk_id){ 0, 0 },
		    false, &info), -ENOENT);
	for (uint32_t i = 1; i <= LEFT; i += LEFT / 10) {
		ck_assert_int_eq(get(2, i, 0, a, sizeof(a)), 0);
		ck_assert_int_eq(R.item_rc, 0);
	}
	cluster_close();
}
END_TEST

/* Who is asked what it is not for. */
START_TEST(wrong_place)
{
	static const struct {
		const char *what;
		uint16_t method;
		unsigned at;		/* in a chain of two that serve and one that syncs */
		int	 rc;
	} rows[] = {
		{ "read the first",	MSG_read, 0, 0 },
		{ "read the last that serves", MSG_read, 1, 0 },
		{ "read who syncs",	MSG_read, 2, ERR_NOT_OWNER },
		{ "write at the head",	MSG_write, 0, 0 },
		{ "write elsewhere",	MSG_write, 1, ERR_NOT_OWNER },
		{ "write who syncs",	MSG_write, 2, ERR_NOT_OWNER },
		{ "cut at the head",	MSG_cut, 0, 0 },
		{ "cut elsewhere",	MSG_cut, 1, ERR_NOT_OWNER },
		{ "last chunk, head",	MSG_last, 0, ERR_NOT_OWNER },
		/* It has told the manager that the one behind it may take over. */
		{ "last chunk",		MSG_last, 1, ERR_CHAIN_RECOVERING },
		{ "last chunk, who syncs", MSG_last, 2, ERR_NOT_OWNER },
		{ "committed, head",	MSG_committed, 0, ERR_NOT_OWNER },
		{ "committed",		MSG_committed, 1, 0 },
		{ "committed, who syncs", MSG_committed, 2, ERR_NOT_OWNER },
		{ "list, head",		MSG_list, 0, 0 },
		{ "list, last that serves", MSG_list, 1, 0 },
		{ "list, who syncs",	MSG_list, 2, 0 },
		{ "fetch, who syncs",	MSG_fetch, 2, ERR_NOT_OWNER },
		{ "fetch, any that serves", MSG_fetch, 0, 0 },
		{ "update at the head",	MSG_update, 0, ERR_NOT_OWNER },
		{ "update, forced, who serves", MSG_update, 1, -EINVAL },
		{ "update, forced, who syncs, wrong digest of the payload", MSG_update,
		  2, ERR_PAYLOAD_CRC },
	};
	static uint8_t a[64], b[4096];
	const struct routing_chain *c;
	struct msg_read_item item = { { INO, 0 }, 0, sizeof(b) };

	cluster_open(80, 1);
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	T.m.by_hand = true;
	/* Nobody says that it is up to date: it stays. */
	by_hand(TARGET_SERVING, TARGET_SERVING, TARGET_OFFLINE);
	wait_state(TARGET_OFFLINE);
	by_hand(TARGET_SERVING, TARGET_SERVING, TARGET_SYNCING);
	wait_state(TARGET_SYNCING);
	sim_clock_run(T.world, 100 * NS_PER_MS);
	c = chain_of(0);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		target_id t = c->targets[rows[i].at];
		uint32_t v = c->version;
		struct msg_read rd = { c->id, v, t, { &item, 1 } };
		struct msg_write wr = write_msg(0, 0, a, sizeof(a), 100 + i, 0);
		struct msg_cut ct = { c->id, v, t, INO, 1000, 0, 1, 10, 0, 0 };
		struct msg_last la = { c->id, v, t, INO, 0 };
		struct msg_committed co = { c->id, v, t, { INO, 0 } };
		struct msg_list li = { c->id, v, t, 1, { 0, 0 }, 100 };
		struct msg_fetch fe = { .chain = c->id, .chain_version = v,
		    .target = t, .chunk = { INO, 0 } };
		struct msg_update up = { .chain = c->id, .chain_version = v,
		    .target = t, .chunk = { INO, 500 }, .chunk_shift = SHIFT,
		    .kind = UPDATE_REPLACE, .version = 9, .len = sizeof(a),
		    .attempt = 1ull << 40, .force = 1 };
		const void *m = &rd;
		uint32_t send = 0, recv = 0;
		int rc;

		wr.target = t;
		ck_assert_int_eq(get(0, 0, 0, b, 64), 0);
		fe.version = R.version;
		switch (rows[i].method) {
		case MSG_read:
			recv = sizeof(b);
			break;
		case MSG_write:
			m = &wr;
			send = sizeof(a);
			break;
		case MSG_cut:
			m = &ct;
			break;
		case MSG_last:
			m = &la;
			break;
		case MSG_committed:
			m = &co;
			break;
		case MSG_list:
			m = &li;
			break;
		case MSG_fetch:
			m = &fe;
			recv = sizeof(b);
			break;
		case MSG_update:
			m = &up;
			send = sizeof(a);
			break;
		}
		rc = call(t, rows[i].method, m, a, send, b, recv);
		ck_assert_msg(rc == rows[i].rc, "%s: %s, not %s", rows[i].what,
		    err_name(rc), err_name(rows[i].rc));
	}
	T.m.by_hand = false;
	heal(0);
	T.m.synced = 0;
	{
		struct routing_chain row = *routing_chain_at(T.m.routing, 0);

		put_chain(&row);	/* and it is asked for once more */
		publish();
	}
	wait_serving(NODES);
	cluster_close();
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("chains");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, lone_survivor, 0, 3);
	tcase_add_test(tc, power_cut);
	tcase_add_loop_test(tc, dropped_alive, 0, 3);
	tcase_add_test(tc, dropped_in_a_long_turn);
	tcase_add_loop_test(tc, rotated_alive, 0, 2);
	tcase_add_test(tc, cut_before_the_head_changed);
	tcase_add_test(tc, given_away);
	tcase_add_test(tc, many_left);
	tcase_add_loop_test(tc, pending_is_settled, 0, 2);
	tcase_add_test(tc, wrong_place);
	return suite_run("storage_moves", tc);
}
