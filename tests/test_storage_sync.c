/* SPDX-License-Identifier: MIT */
/* test_storage_sync.c - replicas that come back: what they have then, and who is brought up to
 * date first. */
#include "roles/storage_impl.h"
#include "tests/storage_moves.h"

/* Node @n (1..) loses all it had: a new disk in its place. */
static void
replace_disk(unsigned n)
{
	sim_disk_wipe(T.nodes[n - 1].box, "/disk0");
	format(&T.nodes[n - 1], "/disk0");
}

/* A replica returns: with what it had, or with nothing. */
START_TEST(returns)
{
	bool blank = _i % 2 != 0;
	unsigned n;

	cluster_open(20 + (uint64_t)_i, 1);
	fill(0, 60, 'a');
	n = node_at(0, (unsigned)_i / 2);
	host_down(&T.nodes[n - 1], KILL);
	wait_serving(NODES - 1);
	fill(0, 20, 'b');
	ck_assert_int_eq(cut(0, 40, 0, 1, 1000), 0);
	if (blank)
		replace_disk(n);
	storage_up(&T.nodes[n - 1]);
	wait_serving(NODES);
	ck_assert_uint_eq(node_at(0, NODES - 1), n);	/* it comes last */
	for (unsigned r = 0; r < NODES; r++) {
		static uint8_t b[16];

		filled(r, 0, 20, 'b');
		filled(r, 20, 40, 'a');
		ck_assert_int_eq(get(r, 42, 0, b, sizeof(b)), 0);
		ck_assert_int_eq(R.item_rc, -ENOENT);
		ck_assert_int_eq(get(r, 43, 0, b, sizeof(b)), 0);
		ck_assert_int_eq(R.item_rc, 0);
	}
	ck_assert_uint_eq(T.errors, 0);
	cluster_close();
}
END_TEST

/* It lacks more chunks than are remembered at once, in one pass over the lists; an error now and
 * then does not hold the others up. */
START_TEST(returns_long)
{
	static uint8_t a[100], b[100];
	unsigned n, many = 2600;
	uint32_t i;

	cluster_open(28, 1);
	memset(a, 'a', sizeof(a));
	for (i = 0; i < many; i++)
		ck_assert_int_eq(put(i, 0, a, sizeof(a), i + 1, 0), 0);
	n = node_at(0, 1);
	host_down(&T.nodes[n - 1], KILL);
	wait_serving(NODES - 1);
	replace_disk(n);
	storage_up(&T.nodes[n - 1]);
	wait_state(TARGET_SYNCING);
	for (i = 0; i < 3; i++) {
		sim_net_path(T.net, node_at(0, NODES - 2), n, SIM_NET_RESET);
		sim_clock_run(T.world, 30 * NS_PER_MS);
		sim_net_heal(T.net);
		sim_clock_run(T.world, 100 * NS_PER_MS);
	}
	wait_serving(NODES);
	for (unsigned r = 0; r < NODES; r++) {
		for (i = 0; i < many; i++) {
			ck_assert_int_eq(get(r, i, 0, b, sizeof(b)), 0);
			ck_assert_int_eq(R.item_rc, 0);
			ck_assert(memcmp(a, b, sizeof(a)) == 0);
		}
	}
	ck_assert_uint_eq(T.errors, 0);
	cluster_close();
}
END_TEST

static uint64_t
compared(void)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < NODES; i++)
		if (T.nodes[i].up)
			n += T.nodes[i].storage->workers[0].stat.compared_chunks;
	return n;
}

/* It has nothing, so no call is waited for: our list is read over many turns of the loop all
 * the same, a page in each. */
START_TEST(lists_in_turns)
{
	static uint8_t a[100];
	unsigned n, many = 3000, all = NODES;
	uint64_t before, most = 0;

	cluster_open(28, 1);
	for (uint32_t i = 0; i < many; i++)
		ck_assert_int_eq(put(i, 0, a, sizeof(a), i + 1, 0), 0);
	n = node_at(0, 1);
	host_down(&T.nodes[n - 1], KILL);
	wait_serving(NODES - 1);
	replace_disk(n);
	storage_up(&T.nodes[n - 1]);
	while (!serving(&all)) {
		before = compared();
		ck_assert(sim_clock_step(T.world));
		if (compared() - before > most)
			most = compared() - before;
	}
	ck_assert_uint_ge(compared(), many);
	ck_assert_uint_le(most, 2 * STORAGE_LIST_PAGE);
	cluster_close();
}
END_TEST

/* A replica that returns does not take what it is sent: its disk is too small for it, or the
 * one before it does not reach it.  Writes wait a second at most; later it comes back. */
START_TEST(returns_in_vain)
{
	bool small = _i == 0;
	static uint8_t a[1 << SHIFT];
	uint64_t longest = 0;
	unsigned n, tail;
	int rc;

	cluster_open(27 + (uint64_t)_i, 1);
	T.m.hold_ns = 3 * NS_PER_S;
	fill(0, 120, 'a');
	n = node_at(0, 1);
	host_down(&T.nodes[n - 1], KILL);
	wait_serving(NODES - 1);
	tail = node_at(0, NODES - 2);
	if (small) {
		sim_disk_wipe(T.nodes[n - 1].box, "/disk0");
		format_size(&T.nodes[n - 1], "/disk0", DISK_BYTES / 6);
	} else {
		sim_net_path(T.net, tail, n, SIM_NET_RESET);
	}
	storage_up(&T.nodes[n - 1]);
	memset(a, 'b', sizeof(a));
	for (uint32_t i = 0; i < 400 || T.m.refused < 3; i++) {
		uint64_t began = sim_clock_now(T.world);

		ck_assert_uint_lt(i, 4000);
		while ((rc = put(i % 120, 0, a, i % 120 % 7 == 0 ? 100 : sizeof(a),
		    (uint64_t)1 << 40 | i, 0)) != 0) {
			ck_assert_msg(err_next(rc) == ERR_NEXT_REFRESH ||
			    err_next(rc) == ERR_NEXT_RETRY, "%s", err_name(rc));
			member_refresh(T.member);
			sim_clock_run(T.world, 10 * NS_PER_MS);
		}
		if (sim_clock_now(T.world) - began > longest)
			longest = sim_clock_now(T.world) - began;
		sim_clock_run(T.world, 5 * NS_PER_MS);
	}
	ck_assert_uint_lt(longest, 1500 * NS_PER_MS);
	if (small)
		ck_assert_int_eq(T.m.last_synced.rc, -ENOSPC);
	else
		ck_assert_int_ne(T.m.last_synced.rc, 0);
	sim_net_heal(T.net);
	if (small) {
		host_down(&T.nodes[n - 1], KILL);
		replace_disk(n);
		storage_up(&T.nodes[n - 1]);
	}
	wait_serving(NODES);
	for (unsigned r = 0; r < NODES; r++)
		filled(r, 0, 120, 'b');
	cluster_close();
}
END_TEST

/* What comes between: the one that returns dies again; the one that helps it does; the chain
 * gets a new version; the path between the two is cut; the manager does not hear of the end. */
START_TEST(interrupted)
{
	unsigned n, helper;

	cluster_open(30 + (uint64_t)_i, 1);
	fill(0, 320, 'a');
	n = node_at(0, 1);
	host_down(&T.nodes[n - 1], KILL);
	wait_serving(NODES - 1);
	helper = node_at(0, NODES - 2);
	replace_disk(n);
	storage_up(&T.nodes[n - 1]);
	sim_box_conf(T.nodes[n - 1].box)->write_min_ns = 40 * NS_PER_MS;
	sim_box_conf(T.nodes[n - 1].box)->write_max_ns = 80 * NS_PER_MS;
	wait_state(TARGET_SYNCING);
	sim_clock_run(T.world, 150 * NS_PER_MS);
	ck_assert_uint_eq(T.m.synced, 0);
	switch (_i) {
	case 0:
		host_down(&T.nodes[n - 1], POWER);
		storage_up(&T.nodes[n - 1]);
		break;
	case 1:
		host_down(&T.nodes[helper - 1], POWER);
		storage_up(&T.nodes[helper - 1]);
		break;
	case 2: {
		struct routing_chain c = *routing_chain_at(T.m.routing, 0);

		put_chain(&c);
		publish();
		break;
	}
	case 3:
		sim_net_cut(T.net, n, helper, SIM_NET_SILENT);
		sim_clock_run(T.world, 3 * NS_PER_S);
		sim_net_heal(T.net);
		break;
	case 4:
		sim_net_cut(T.net, 0, helper, SIM_NET_RESET);
		sim_clock_run(T.world, LEASE_MS / 2 * NS_PER_MS);
		sim_net_heal(T.net);
		break;
	}
	sim_clock_run(T.world, 200 * NS_PER_MS);
	sim_box_conf(T.nodes[n - 1].box)->write_min_ns = 0;
	sim_box_conf(T.nodes[n - 1].box)->write_max_ns = NS_PER_MS;
	wait_serving(NODES);
	ck_assert_uint_gt(T.m.sync_rows, 0);
	for (unsigned r = 0; r < NODES; r++)
		filled(r, 0, 320, 'a');
	ck_assert_uint_eq(T.errors, 0);
	cluster_close();
}
END_TEST

/* ---- whose turn it is ---- */

/* In @n chains whose tail would be node 3 the replica at node 1 gets @state. */
static void
node_1_is(uint8_t state, unsigned n)
{
	for (unsigned i = 0; i < T.chains && n > 0; i++) {
		struct routing_chain row = *routing_chain_at(T.m.routing, i);

		if (row.id % NODES == 2)
			continue;		/* the tail is node 2 */
		for (unsigned k = 0; k < NODES; k++)
			if (node_of(row.targets[k]) == 1)
				row.states[k] = state;
		put_chain(&row);
		n--;
	}
	publish();
}

static bool
two_synced(void *ctx)
{
	(void)ctx;
	return T.m.synced >= 2;
}

/* Ten replicas come back behind one node, which brings up eight at a time.  Those that have
 * the places leave again: the others get theirs. */
START_TEST(places_go_on)
{
	cluster_open_with(90, 1, 15);
	T.m.by_hand = true;
	sim_net_cut(T.net, 3, 1, SIM_NET_SILENT);
	node_1_is(TARGET_SYNCING, 10);
	/* Its lease has ended by then, and lists are asked for. */
	sim_clock_run(T.world, 1300 * NS_PER_MS);
	node_1_is(TARGET_OFFLINE, 8);
	sim_clock_run(T.world, 100 * NS_PER_MS);
	ck_assert_uint_eq(T.m.synced, 0);
	sim_net_heal(T.net);
	ck_assert(sim_clock_run_until(T.world, two_synced, NULL, 20 * NS_PER_S));
	cluster_close();
}
END_TEST

static unsigned
all_synced(unsigned n)
{
	const struct storage_worker *w = &T.nodes[2].storage->workers[0];
	unsigned most = 0;

	for (unsigned i = 0; T.m.synced < n; i++) {
		ck_assert_uint_lt(i, 200000);
		sim_clock_run(T.world, 100 * NS_PER_US);
		ck_assert_uint_le(w->syncing, STORAGE_SYNCS);
		if (w->syncing > most)
			most = w->syncing;
	}
	return most;
}

/* More replicas than places come back: those that wait get theirs as others end, all of them.
 * Likewise when everyone who gets a place gives it up at once, as there is no lease: they come
 * again until there is one. */
START_TEST(places_in_turn)
{
	static uint8_t a[1 << SHIFT];
	const struct storage_worker *w;

	cluster_open_with(91, 1, 15);
	w = &T.nodes[2].storage->workers[0];
	for (uint32_t i = 0; i < 90; i++)
		ck_assert_int_eq(put(i, 0, a, sizeof(a), i + 1, 0), 0);
	T.m.by_hand = true;
	node_1_is(TARGET_OFFLINE, 10);
	sim_clock_run(T.world, 100 * NS_PER_MS);
	node_1_is(TARGET_SYNCING, 10);
	ck_assert_uint_eq(all_synced(10), STORAGE_SYNCS);
	node_1_is(TARGET_OFFLINE, 10);
	T.m.deaf = true;
	sim_clock_run(T.world, 2 * LEASE_MS * NS_PER_MS);
	T.m.synced = 0;
	node_1_is(TARGET_SYNCING, 10);
	sim_clock_run(T.world, 300 * NS_PER_MS);
	ck_assert_uint_eq(T.m.synced, 0);
	ck_assert_uint_eq(w->syncing, 0);
	ck_assert(!w->sync_pumping);
	T.m.deaf = false;
	(void)all_synced(10);
	cluster_close();
}
END_TEST

/* Two chains that are copied from one node take turns: neither is done while the other has not
 * begun. */
START_TEST(chains_in_turn)
{
	static uint8_t a[1 << SHIFT];
	uint64_t done[2] = { 0 }, apart = 0;
	struct msg_sync_status rows[STORAGE_PROGRESS];
	struct storage_worker *w;

	cluster_open_with(92, 1, 6);
	w = &T.nodes[2].storage->workers[0];
	T.m.by_hand = true;
	node_1_is(TARGET_OFFLINE, 2);
	sim_clock_run(T.world, 100 * NS_PER_MS);
	sim_clock_run(T.world, 2 * LEASE_MS * NS_PER_MS);
	for (uint32_t i = 0; i < 6 * 40; i++)
		if (routing_serving_n(chain_of(i)) < NODES)
			ck_assert_int_eq(put(i, 0, a, sizeof(a), i + 1, 0), 0);
	node_1_is(TARGET_SYNCING, 2);
	for (unsigned i = 0; T.m.synced < 2; i++) {
		unsigned n = storage_sync_rows(w, rows, STORAGE_PROGRESS);

		ck_assert_uint_lt(i, 200000);
		for (unsigned k = 0; k < n && n == 2; k++)
			done[k] = rows[k].copied;
		if (n == 2 && done[0] + done[1] > 0 && (done[0] > done[1] ? done[0] -
		    done[1] : done[1] - done[0]) > apart)
			apart = done[0] > done[1] ? done[0] - done[1] :
			    done[1] - done[0];
		sim_clock_run(T.world, 100 * NS_PER_US);
	}
	ck_assert_uint_gt(done[0] + done[1], 20);
	ck_assert_uint_le(apart, 12);
	cluster_close();
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("chains");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, returns, 0, 6);
	tcase_add_test(tc, returns_long);
	tcase_add_test(tc, lists_in_turns);
	tcase_add_loop_test(tc, returns_in_vain, 0, 2);
	tcase_add_loop_test(tc, interrupted, 0, 5);
	tcase_add_test(tc, places_go_on);
	tcase_add_test(tc, places_in_turn);
	tcase_add_test(tc, chains_in_turn);
	return suite_run("storage_sync", tc);
}
