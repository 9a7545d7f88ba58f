/* SPDX-License-Identifier: MIT */
/* test_storage.c - storage nodes, call by call. */
#include "roles/storage_impl.h"
#include "tests/storage_rig.h"

START_TEST(write_and_read)
{
	uint8_t a[9000], b[9000];

	cluster_open(1, 1);
	memset(a, 'a', sizeof(a));
	ck_assert_int_eq(put(0, 100, a, sizeof(a), 1, 0), 0);
	ck_assert_uint_eq(R.version, 1);
	ck_assert_uint_eq(R.len, 9100);
	for (unsigned i = 0; i < NODES; i++) {
		memset(b, 'x', sizeof(b));
		ck_assert_int_eq(get(i, 0, 50, b, sizeof(b)), 0);
		ck_assert_int_eq(R.item_rc, 0);
		ck_assert_uint_eq(R.len, 9000);
		ck_assert_uint_eq(R.version, 1);
		for (unsigned k = 0; k < 50; k++)
			ck_assert_uint_eq(b[k], 0);
		ck_assert_int_eq(memcmp(b + 50, a, 8950), 0);
		ck_assert_int_eq(get(i, 0, 9050, b, 4096), 0);
		ck_assert_uint_eq(R.len, 50);
		ck_assert_int_eq(get(i, 4, 0, b, 4096), 0);
		ck_assert_int_eq(R.item_rc, -ENOENT);
	}
	/* A retry is not a second write. */
	memset(a, 'b', sizeof(a));
	ck_assert_int_eq(put(0, 100, a, sizeof(a), 1, 0), 0);
	ck_assert_uint_eq(R.version, 1);
	ck_assert_int_eq(get(1, 0, 100, b, 1), 0);
	ck_assert_uint_eq(b[0], 'a');
	ck_assert_int_eq(put(0, 100, a, sizeof(a), 2, 0), 0);
	ck_assert_uint_eq(R.version, 2);
	ck_assert_uint_eq(T.errors, 0);
	cluster_close();
}
END_TEST

static struct msg_dedupe dedupes[CHUNK_DEDUPE_MAX + 1];

static void no_version(struct msg_update *u) { u->version = 0; }
static void no_news(struct msg_update *u) { u->base = u->version; }
static void no_attempt(struct msg_update *u) { u->attempt = 0; }
static void no_inode(struct msg_update *u) { u->chunk.ino = 0; }
static void other_len(struct msg_update *u) { u->len++; }
static void outside(struct msg_update *u) { u->offset = UINT32_MAX - 1; }
static void forced(struct msg_update *u) { u->force = 1; }
static void other_kind(struct msg_update *u) { u->kind = 99; }
static void small_shift(struct msg_update *u) { u->chunk_shift = 1; }
static void large_shift(struct msg_update *u) { u->chunk_shift = 99; }
static void kept_data(struct msg_update *u) { u->kind = UPDATE_TRUNCATE; }
static void removed_data(struct msg_update *u) { u->kind = UPDATE_REMOVE; }

static void
in_part(struct msg_update *u)
{
	u->kind = UPDATE_REPLACE;
	u->offset = 1;
}

static void
many_writers(struct msg_update *u)
{
	u->dedupe.v = dedupes;
	u->dedupe.n = CHUNK_DEDUPE_MAX + 1;
}

static const struct {
	const char *what;
	void (*change)(struct msg_update *u);
} wrong[] = {
	{ "no version", no_version },
	{ "not newer than its base", no_news },
	{ "no attempt", no_attempt },
	{ "no inode", no_inode },
	{ "not the payload's length", other_len },
	{ "outside the chunk", outside },
	{ "a forced part", forced },
	{ "another kind", other_kind },
	{ "small chunks", small_shift },
	{ "large chunks", large_shift },
	{ "truncation with bytes", kept_data },
	{ "removal with bytes", removed_data },
	{ "a whole chunk in part", in_part },
	{ "too many writers", many_writers },
};

/* Requests that are not to be served. */
START_TEST(refusals)
{
	struct msg_read_item many[STORAGE_BATCH_MAX + 1];
	uint8_t a[512] = { 1 };
	struct msg_write m;

	cluster_open(2, 1);
	m = write_msg(0, 0, a, sizeof(a), 1, 0);
	m.chain_version--;
	ck_assert_int_eq(call(m.target, MSG_write, &m, a, sizeof(a), NULL, 0),
	    ERR_STALE_CHAIN);
	m = write_msg(0, 0, a, sizeof(a), 1, 0);
	m.chain_version++;
	ck_assert_int_eq(call(m.target, MSG_write, &m, a, sizeof(a), NULL, 0),
	    ERR_STALE_CHAIN);
	m = write_msg(0, 0, a, sizeof(a), 1, 0);
	m.target = chain_of(0)->targets[1];
	ck_assert_int_eq(call(m.target, MSG_write, &m, a, sizeof(a), NULL, 0),
	    ERR_NOT_OWNER);
	m.target = chain_of(1)->targets[0];
	ck_assert_int_eq(call(m.target, MSG_write, &m, a, sizeof(a), NULL, 0),
	    ERR_NOT_OWNER);
	m = write_msg(0, 0, a, sizeof(a), 1, 0);
	m.crc++;
	ck_assert_int_eq(call(m.target, MSG_write, &m, a, sizeof(a), NULL, 0),
	    ERR_PAYLOAD_CRC);
	m = write_msg(0, 1u << SHIFT, a, sizeof(a), 1, 0);
	ck_assert_int_eq(call(m.target, MSG_write, &m, a, sizeof(a), NULL, 0),
	    -EINVAL);
	m = write_msg(0, 0, a, sizeof(a), 1, 0);
	m.len--;
	ck_assert_int_eq(call(m.target, MSG_write, &m, a, sizeof(a), NULL, 0),
	    -EINVAL);
	{
		struct msg_read_item item = { { INO, 0 }, 0, 1 };
		struct msg_read r = { m.chain, m.chain_version - 1, m.target,
		    { &item, 1 } };

		ck_assert_int_eq(call(r.target, MSG_read, &r, NULL, 0, a, 1),
		    ERR_STALE_CHAIN);
		r.chain_version++;
		item.len = 2;
		ck_assert_int_eq(call(r.target, MSG_read, &r, NULL, 0, a, 1),
		    -EINVAL);
		item.offset = UINT32_MAX;
		ck_assert_int_eq(call(r.target, MSG_read, &r, NULL, 0, a, 2),
		    -EINVAL);
		item.offset = item.len = 0;
		ck_assert_int_eq(call(r.target, MSG_read, &r, NULL, 0, a, 1),
		    -EINVAL);
		r.items.n = 0;
		ck_assert_int_eq(call(r.target, MSG_read, &r, NULL, 0, a, 1),
		    -EINVAL);
		for (uint32_t i = 0; i < STORAGE_BATCH_MAX + 1; i++)
			many[i] = (struct msg_read_item){ { INO, 0 }, i, 1 };
		r.items.v = many;
		r.items.n = STORAGE_BATCH_MAX + 1;
		ck_assert_int_eq(call(r.target, MSG_read, &r, NULL, 0, a, sizeof(a)),
		    -EINVAL);
	}
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct msg_update u = { .chain = m.chain,
		    .chain_version = m.chain_version,
		    .target = chain_of(0)->targets[1], .chunk = { INO, 0 },
		    .chunk_shift = SHIFT, .version = 1, .attempt = 1, .len = sizeof(a),
		    .crc = crc32c(0, a, sizeof(a)), .kind = UPDATE_WRITE };

		wrong[i].change(&u);
		ck_assert_msg(call(u.target, MSG_update, &u, a, sizeof(a), NULL, 0) ==
		    -EINVAL, "%s: %s", wrong[i].what, err_name(R.rc));
	}
	/* After all that the chunk is not there and can be written. */
	ck_assert_int_eq(get(2, 0, 0, a, 1), 0);
	ck_assert_int_eq(R.item_rc, -ENOENT);
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	cluster_close();
}
END_TEST

/* Somebody speaks of a version of the chain that never was: we answer for none until the
 * manager has had time to tell of it, and for ours after that.  Of another chain it says
 * nothing. */
START_TEST(no_such_version)
{
	struct msg_committed m = { .chunk = { INO, 0 } };
	uint8_t a[512] = { 1 };
	unsigned ms = 0;

	cluster_open(5, 1);
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	m.chain = chain_of(0)->id;
	m.target = chain_of(0)->targets[2];
	m.chain_version = 1000000;
	ck_assert_int_eq(call(m.target, MSG_committed, &m, NULL, 0, NULL, 0),
	    ERR_STALE_CHAIN);
	ck_assert_int_eq(get(2, 0, 0, a, sizeof(a)), ERR_STALE_CHAIN);
	while (get(2, 0, 0, a, sizeof(a)) != 0) {
		ck_assert_uint_lt(ms, 2 * BEAT_MS + 50);
		sim_clock_run(T.world, NS_PER_MS);
		ms++;
	}
	ck_assert_uint_gt(T.errors, 0);
	/* not while no manager answers */
	T.m.deaf = true;
	m.chain_version++;
	ck_assert_int_eq(call(m.target, MSG_committed, &m, NULL, 0, NULL, 0),
	    ERR_STALE_CHAIN);
	sim_clock_run(T.world, LEASE_MS / 2 * NS_PER_MS);
	ck_assert_int_eq(get(2, 0, 0, a, sizeof(a)), ERR_STALE_CHAIN);
	T.m.deaf = false;
	sim_clock_run(T.world, LEASE_MS * NS_PER_MS);
	ck_assert_int_eq(get(2, 0, 0, a, sizeof(a)), 0);
	m.chain = chain_of(1)->id;
	ck_assert_int_eq(call(m.target, MSG_committed, &m, NULL, 0, NULL, 0),
	    ERR_NOT_OWNER);
	ck_assert_int_eq(get(2, 0, 0, a, sizeof(a)), 0);
	cluster_close();
}
END_TEST

static struct clock *turn_clock;
static uint64_t turn_ns;

static uint64_t
turn_now(struct clock *c)
{
	(void)c;
	return turn_ns;
}

static uint64_t
turn_fresh(struct clock *c)
{
	(void)c;
	return clock_fresh(turn_clock);
}

/* It is spoken of in a turn of the loop that takes so long that beats are answered meanwhile:
 * they may have been sent before there was such a version. */
START_TEST(heard_in_a_long_turn)
{
	static const struct clock_ops ops = { .now = turn_now, .fresh = turn_fresh };
	struct clock still = { &ops };
	uint8_t a[512] = { 1 };
	struct storage_worker *w;
	target_id tail;

	cluster_open(5, 1);
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	tail = chain_of(0)->targets[2];
	w = &T.nodes[node_of(tail) - 1].storage->workers[0];
	turn_ns = clock_now(w->clock);
	sim_clock_run(T.world, 3 * BEAT_MS * NS_PER_MS);
	turn_clock = w->clock;
	w->clock = &still;
	storage_heard(w, tail, chain_of(0)->id, chain_of(0)->version + 1);
	w->clock = turn_clock;
	ck_assert_int_eq(get(2, 0, 0, a, sizeof(a)), ERR_STALE_CHAIN);
	sim_clock_run(T.world, 3 * BEAT_MS * NS_PER_MS);
	ck_assert_int_eq(get(2, 0, 0, a, sizeof(a)), 0);
	cluster_close();
}
END_TEST

static int
last(uint32_t index)
{
	const struct routing_chain *c = chain_of(index);
	struct msg_last m = { c->id, c->version, c->targets[
	    routing_serving_n(c) - 1], INO, 0 };

	return call(m.target, MSG_last, &m, NULL, 0, NULL, 0);
}

START_TEST(cut_and_last)
{
	uint8_t a[5000], b[5000];

	cluster_open(3, 1);
	memset(a, 'a', sizeof(a));
	ck_assert_int_eq(last(0), 0);
	ck_assert_uint_eq(R.found, 0);
	for (uint32_t i = 0; i < 20; i += 2)
		ck_assert_int_eq(put(i, 0, a, sizeof(a), 1 + i, 0), 0);
	ck_assert_int_eq(last(0), 0);
	ck_assert_uint_eq(R.found, 1);
	ck_assert_uint_eq(R.index, 18);
	ck_assert_uint_eq(R.len, 5000);
	/* Keep 1000 bytes of chunk 10: five chunks, three at a time. */
	ck_assert_int_eq(cut(0, 10, 1000, 1, 3), 0);
	ck_assert_uint_eq(R.chunks, 3);
	ck_assert_uint_eq(R.more, 1);
	ck_assert_int_eq(cut(0, 10, 1000, 1, 3), 0);
	ck_assert_uint_eq(R.chunks, 2);
	ck_assert_uint_eq(R.more, 0);
	ck_assert_int_eq(cut(0, 10, 1000, 1, 3), 0);
	ck_assert_uint_eq(R.chunks, 0);
	ck_assert_int_eq(last(0), 0);
	ck_assert_uint_eq(R.index, 10);
	ck_assert_uint_eq(R.len, 1000);
	for (unsigned i = 0; i < NODES; i++) {
		ck_assert_int_eq(get(i, 10, 0, b, 5000), 0);
		ck_assert_uint_eq(R.len, 1000);
		ck_assert_int_eq(get(i, 12, 0, b, 5000), 0);
		ck_assert_int_eq(R.item_rc, -ENOENT);
		ck_assert_int_eq(get(i, 8, 0, b, 5000), 0);
		ck_assert_uint_eq(R.len, 5000);
	}
	/* Who has not heard of it may not bring it back. */
	ck_assert_int_eq(put(10, 0, a, 100, 100, 0), ERR_STALE_EPOCH);
	ck_assert_int_eq(put(12, 0, a, 100, 101, 0), ERR_STALE_EPOCH);
	ck_assert_int_eq(put(8, 0, a, 100, 102, 0), 0);
	ck_assert_int_eq(put(12, 0, a, 100, 103, 1), 0);
	ck_assert_uint_eq(R.version, (1ull << 32) + 1);
	/* The inode goes. */
	ck_assert_int_eq(cut(0, 0, 0, UINT32_MAX, 100), 0);
	ck_assert_uint_eq(R.chunks, 7);
	ck_assert_int_eq(put(12, 0, a, 100, 104, 1), ERR_STALE_EPOCH);
	ck_assert_int_eq(last(0), 0);
	ck_assert_uint_eq(R.found, 0);
	cluster_close();
}
END_TEST

/* What was cut stays cut when cuts of other chunks of the inode follow: a write that was on
 * its way all the time makes none of it anew. */
START_TEST(cut_after_cut)
{
	static const struct {
		const char *what;
		uint32_t index, epoch;
		int	 rc;
	} rows[] = {
		{ "before both cuts",			0, 0, 0 },
		{ "cut by the first, of before",	4, 0, ERR_STALE_EPOCH },
		{ "cut by the first, of between",	4, 2, ERR_STALE_EPOCH },
		{ "cut by both, of between",		12, 2, ERR_STALE_EPOCH },
		{ "cut by the first, of now",		4, 3, 0 },
		{ "cut by both, of now",		12, 3, 0 },
	};
	uint8_t a[100];

	memset(a, 'a', sizeof(a));
	/* The later cut begins behind the first, before it, and comes first. */
	for (unsigned way = 0; way < 3; way++) {
		static const struct { uint32_t index, epoch; } order[3][2] = {
			{ { 2, 2 }, { 10, 3 } },
			{ { 10, 2 }, { 2, 3 } },
			{ { 10, 3 }, { 2, 2 } } };

		cluster_open(3, 1);
		for (uint32_t i = 0; i < 16; i += 4)
			ck_assert_int_eq(put(i, 0, a, sizeof(a), 1 + i, 0), 0);
		for (unsigned k = 0; k < 2; k++)
			ck_assert_int_eq(cut(0, order[way][k].index, 0,
			    order[way][k].epoch, 100), 0);
		for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
			int rc = put(rows[i].index, 0, a, sizeof(a), 100 + i,
			    rows[i].epoch);

			ck_assert_msg(rc == rows[i].rc, "way %u: %s: %s", way,
			    rows[i].what, err_name(rc));
		}
		cluster_close();
	}
}
END_TEST

/* Cut @ino, of which nothing is stored, by command @at of its group. */
static int
cut_ino(uint64_t ino, uint32_t epoch, uint64_t at)
{
	const struct routing_chain *c = chain_of(0);
	struct msg_cut q = { c->id, c->version, c->targets[0], ino, 0, 0, epoch, 100,
	    0, at };

	return call(q.target, MSG_cut, &q, NULL, 0, NULL, 0);
}

/* Write to it in epoch 1, which it had by command @at. */
static int
put_ino(uint64_t ino, uint64_t at)
{
	struct msg_write m = write_msg(0, 0, &ino, sizeof(ino), ino, 1);

	m.chunk.ino = ino;
	m.at = at;
	return call(m.target, MSG_write, &m, &ino, sizeof(ino), NULL, 0);
}

/* It stays cut when other files are, thousands of them, and when more are removed. */
START_TEST(many_cuts)
{
	cluster_open(3, 1);
	for (uint64_t ino = 10; ino < 10010; ino++)
		ck_assert_int_eq(cut_ino(ino, 2, 0), 0);
	for (uint64_t ino = 20000; ino < 24000; ino++)
		ck_assert_int_eq(cut_ino(ino, UINT32_MAX, 0), 0);
	for (uint64_t ino = 10; ino < 10010; ino++)
		ck_assert_int_eq(put_ino(ino, 0), ERR_STALE_EPOCH);
	cluster_close();
}
END_TEST

/* More than can be remembered: whoever has not asked for the epoch since what was forgotten
 * makes no chunk; who has, does.  Of other groups that says nothing. */
START_TEST(forgotten_cuts)
{
	const uint64_t n = 2 * STORAGE_CUTS, other = (uint64_t)7 << 48;
	uint64_t forgotten = 0;

	cluster_open(3, 1);
	ck_assert_int_eq(put_ino(5, 1), 0);		/* nothing was forgotten yet */
	for (uint64_t i = 0; i < n; i++)
		ck_assert_int_eq(cut_ino(100 + i, 2, 1000 + i), 0);
	/* A late write of before, wherever it goes. */
	for (uint64_t i = 0; i < n; i++)
		ck_assert_int_eq(put_ino(100 + i, 999 + i), ERR_STALE_EPOCH);
	ck_assert_int_eq(put_ino(6, 999), ERR_STALE_EPOCH);
	ck_assert_int_eq(put_ino(7, 1000 + n), 0);
	ck_assert_int_eq(put_ino(8, 0), 0);	/* by a client that cannot know */
	ck_assert_int_eq(put_ino(5, 1), 0);	/* that one is there */
	ck_assert_int_eq(put_ino(other | 9, 1), 0);
	/* Those that are not remembered: somebody who has asked since then. */
	for (uint64_t i = 0; i < 1000; i++)
		forgotten += put_ino(100 + i, 1000 + n) == 0;
	ck_assert_uint_gt(forgotten, 500);
	ck_assert_int_eq(put_ino(100 + n - 1, 1000 + n), ERR_STALE_EPOCH);
	cluster_close();
}
END_TEST

START_TEST(clean_stop)
{
	uint8_t a[4096] = { 3 };
	uint64_t began;

	cluster_open(4, 1);
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	began = sim_clock_now(T.world);
	storage_stop(T.nodes[0].storage, role_stopped, &T.nodes[0]);
	ck_assert(!T.nodes[0].stopped);
	while (!T.nodes[0].stopped)
		ck_assert(sim_clock_step(T.world));
	/* Idle: a goodbye, a flush. */
	ck_assert_uint_lt(sim_clock_now(T.world) - began, 20 * NS_PER_MS);
	ck_assert_uint_eq(T.m.nodes[1].goodbyes, 1);
	host_down(&T.nodes[0], CLEAN);
	storage_up(&T.nodes[0]);
	ck_assert(sim_clock_run_until(T.world, all_ready, NULL, 30 * NS_PER_S));
	sim_clock_run(T.world, NS_PER_S);
	wait_serving(NODES);
	for (unsigned i = 0; i < NODES; i++) {
		ck_assert_int_eq(get(i, 0, 0, a, 1), 0);
		ck_assert_int_eq(R.item_rc, 0);
		ck_assert_uint_eq(a[0], 3);
	}
	cluster_close();
}
END_TEST

START_TEST(two_loops)
{
	uint8_t a[4096] = { 3 };

	cluster_open(6, 2);
	for (uint32_t i = 0; i < 8; i++)
		ck_assert_int_eq(put(i, 0, a, sizeof(a), 1 + i, 0), 0);
	for (uint32_t i = 0; i < 8; i++) {
		for (unsigned k = 0; k < NODES; k++) {
			ck_assert_int_eq(get(k, i, 0, a, 1), 0);
			ck_assert_int_eq(R.item_rc, 0);
			ck_assert_uint_eq(a[0], 3);
		}
	}
	storage_stop(T.nodes[1].storage, role_stopped, &T.nodes[1]);
	while (!T.nodes[1].stopped)
		ck_assert(sim_clock_step(T.world));
	host_down(&T.nodes[1], CLEAN);
	storage_up(&T.nodes[1]);
	ck_assert(sim_clock_run_until(T.world, all_ready, NULL, 30 * NS_PER_S));
	sim_clock_run(T.world, NS_PER_S);
	wait_serving(NODES);
	ck_assert_int_eq(put(7, 0, a, sizeof(a), 20, 0), 0);
	cluster_close();
}
END_TEST

/* A node that the manager cannot hear stops serving by itself, and comes back. */
START_TEST(no_lease)
{
	uint8_t a[64] = { 3 };

	cluster_open(7, 1);
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	for (unsigned i = 1; i <= NODES; i++)
		sim_net_cut(T.net, 0, i, SIM_NET_SILENT);
	ck_assert_int_eq(get(0, 0, 0, a, 1), 0);
	sim_clock_run(T.world, 4 * NS_PER_S);
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_int_eq(get(i, 0, 0, a, 1), ERR_NO_LEASE);
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 2, 0), ERR_NO_LEASE);
	sim_net_heal(T.net);
	sim_clock_run(T.world, 8 * NS_PER_S);
	wait_serving(NODES);
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 2, 0), 0);
	cluster_close();
}
END_TEST

static int lost_rc;

static void
on_lost(void *ctx, int rc)
{
	ck_assert_ptr_eq(ctx, &lost_rc);
	ck_assert_int_eq(lost_rc, 0);
	lost_rc = rc;
}

/* The node has no disk left that works: whoever runs it is told, once. */
START_TEST(last_disk_fails)
{
	uint8_t a[4096] = { 0 };

	cluster_open(9, 1);
	lost_rc = 0;
	storage_watch(T.nodes[0].storage, on_lost, &lost_rc);
	sim_box_conf(T.nodes[0].box)->write_eio_ppm = 1000000;
	(void)put(0, 0, a, sizeof(a), 1, 0);
	sim_clock_run(T.world, NS_PER_S);
	ck_assert_int_eq(lost_rc, -EIO);
	cluster_close();
}
END_TEST

/* Wherever in the chain it fails, whoever writes has to come again, and nothing else. */
START_TEST(disk_fails_under_a_write)
{
	static const struct {
		const char *what;
		uint32_t write_ppm, sync_ppm;
		unsigned pos;
	} rows[] = {
		{ "write, head", 1000000, 0, 0 },
		{ "write, middle", 1000000, 0, 1 },
		{ "write, tail", 1000000, 0, 2 },
		{ "sync, head", 0, 1000000, 0 },
		{ "sync, middle", 0, 1000000, 1 },
		{ "sync, tail", 0, 1000000, 2 },
	};
	struct sim_disk_conf *x;
	uint8_t a[4096] = { 0 };
	int rc;

	cluster_open(12 + (uint64_t)_i, 1);
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	x = sim_box_conf(T.nodes[node_of(chain_of(0)->targets[rows[_i].pos]) - 1].box);
	x->write_eio_ppm = rows[_i].write_ppm;
	x->sync_eio_ppm = rows[_i].sync_ppm;
	memset(a, 'b', sizeof(a));
	T.m.by_hand = true;		/* the manager takes its time */
	for (unsigned tries = 0; (rc = put(0, 0, a, sizeof(a), 2, 0)) != 0; tries++) {
		ck_assert_msg(err_next(rc) == ERR_NEXT_REFRESH || err_next(rc) ==
		    ERR_NEXT_RETRY, "%s: %s", rows[_i].what, err_name(rc));
		ck_assert_uint_lt(tries, 100);
		sim_clock_run(T.world, 5 * NS_PER_MS);
		T.m.by_hand = tries < 2;
		heal(0);
	}
	ck_assert_uint_eq(routing_serving_n(chain_of(0)), NODES - 1);
	for (unsigned k = 0; k < NODES - 1; k++) {
		ck_assert_int_eq(get(k, 0, 0, a, sizeof(a)), 0);
		ck_assert_uint_eq(a[0], 'b');
	}
	cluster_close();
}
END_TEST

/* A disk comes from another cluster, and has chunks where a chain begins. */
START_TEST(disk_of_another_cluster)
{
	struct routing_chain c;
	uint8_t a[64] = { 0 };
	unsigned n;

	cluster_open(18, 1);
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	c = *chain_of(0);
	n = node_of(c.targets[0]);
	T.m.by_hand = true;
	host_down(&T.nodes[n - 1], KILL);
	c.version = 0;
	put_chain(&c);
	storage_up(&T.nodes[n - 1]);
	sim_clock_run(T.world, 3 * NS_PER_S);
	ck_assert(T.nodes[n - 1].ready && T.m.nodes[n].failed[0]);
	cluster_close();
}
END_TEST

/* A disk does not answer any more: its replica could not even go on into a chain version
 * without the writes it waits for.  After a while it counts as failed. */
START_TEST(disk_is_stuck)
{
	struct sim_disk_conf *x;
	uint8_t a[4096] = { 0 };
	struct host *h;
	uint64_t began;
	int rc;

	cluster_open(11, 1);
	ck_assert_int_eq(put(0, 0, a, sizeof(a), 1, 0), 0);
	h = &T.nodes[node_of(chain_of(0)->targets[1]) - 1];
	x = sim_box_conf(h->box);
	x->write_min_ns = x->write_max_ns = 1000 * NS_PER_S;
	began = sim_clock_now(T.world);
	while ((rc = put(0, 0, a, sizeof(a), 2, 0)) != 0) {
		ck_assert_uint_lt(sim_clock_now(T.world) - began, 40 * NS_PER_S);
		sim_clock_run(T.world, 100 * NS_PER_MS);
	}
	ck_assert_uint_gt(sim_clock_now(T.world) - began, 29 * NS_PER_S);
	ck_assert_uint_eq(routing_serving_n(chain_of(0)), NODES - 1);
	/* Who stops does not wait for it either. */
	began = sim_clock_now(T.world);
	storage_stop(h->storage, role_stopped, h);
	while (!h->stopped) {
		ck_assert_uint_lt(sim_clock_now(T.world) - began, 15 * NS_PER_S);
		sim_clock_run(T.world, 100 * NS_PER_MS);
	}
	cluster_close();
}
END_TEST

/* A disk returns errors: its replicas refuse everything, the chains go on without them, and
 * the other disk of that node with its own.  A restart over a good disk brings all back. */
START_TEST(disk_fails)
{
	uint8_t a[4096], b[4096];
	uint64_t began;
	int rc;

	cluster_open(8, 2);
	memset(a, 'a', sizeof(a));
	for (uint32_t i = 0; i < 8; i++)
		ck_assert_int_eq(put(i, 0, a, sizeof(a), 1 + i, 0), 0);
	lost_rc = 0;
	storage_watch(T.nodes[0].storage, on_lost, &lost_rc);
	sim_box_conf(T.nodes[0].box)->write_eio_ppm = 1000000;
	memset(b, 'b', sizeof(b));
	began = sim_clock_now(T.world);
	/* Chain 1 is on the first disk: its client has to come again, no more. */
	for (unsigned tries = 0; (rc = put(0, 0, b, sizeof(b), 20, 0)) != 0; tries++) {
		ck_assert_msg(err_next(rc) == ERR_NEXT_REFRESH || err_next(rc) ==
		    ERR_NEXT_RETRY, "%s", err_name(rc));
		ck_assert_uint_lt(tries, 100);
		sim_clock_run(T.world, 5 * NS_PER_MS);
	}
	ck_assert_uint_lt(sim_clock_now(T.world) - began, NS_PER_S / 2);
	ck_assert_int_eq(lost_rc, 0);		/* there is another */
	sim_box_conf(T.nodes[0].box)->write_eio_ppm = 0;
	ck_assert_uint_gt(T.errors, 0);
	ck_assert(T.m.nodes[1].failed[0] && !T.m.nodes[1].failed[1]);
	ck_assert_uint_eq(routing_serving_n(chain_of(0)), NODES - 1);
	ck_assert_uint_eq(routing_serving_n(chain_of(1)), NODES);
	for (uint32_t i = 0; i < 2; i++)
		for (unsigned k = 0; k < NODES - 1 + i; k++) {
			ck_assert_int_eq(get(k, i, 0, a, sizeof(a)), 0);
			ck_assert_int_eq(R.item_rc, 0);
			ck_assert_uint_eq(a[0], i == 0 ? 'b' : 'a');
		}
	host_down(&T.nodes[0], KILL);
	storage_up(&T.nodes[0]);
	ck_assert(sim_clock_run_until(T.world, all_ready, NULL, 30 * NS_PER_S));
	wait_serving(NODES);
	for (unsigned i = 0; i < NODES; i++) {
		memset(a, 'x', sizeof(a));
		ck_assert_int_eq(get(i, 0, 0, a, sizeof(a)), 0);
		ck_assert_int_eq(R.item_rc, 0);
		ck_assert_int_eq(memcmp(a, b, sizeof(a)), 0);
	}
	cluster_close();
}
END_TEST

/* The disk fills up: a clear answer everywhere, and cuts make room again. */
START_TEST(disk_full)
{
	static uint8_t a[1 << SHIFT];
	uint32_t n = 0;
	int rc;

	cluster_open(5, 1);
	memset(a, 'f', sizeof(a));
	while ((rc = put(n, 0, a, sizeof(a), n + 1, 0)) == 0)
		ck_assert_uint_lt(++n, 2 * DISK_BYTES >> SHIFT);
	ck_assert_int_eq(rc, -ENOSPC);
	ck_assert_uint_gt(n, (DISK_BYTES >> SHIFT) / 2);
	ck_assert_int_eq(put(n, 0, a, sizeof(a), n + 1, 0), -ENOSPC);
	ck_assert_int_eq(cut(0, 0, 0, 1, 1000), 0);
	ck_assert_int_eq(cut(1, 0, 0, 1, 1000), 0);
	sim_clock_run(T.world, NS_PER_S);
	ck_assert_int_eq(put(n, 0, a, sizeof(a), n + 1, 1), 0);
	cluster_close();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("storage");
	TCase *tc = tcase_create("calls");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, write_and_read);
	tcase_add_test(tc, refusals);
	tcase_add_test(tc, no_such_version);
	tcase_add_test(tc, heard_in_a_long_turn);
	tcase_add_test(tc, cut_and_last);
	tcase_add_test(tc, cut_after_cut);
	tcase_add_test(tc, many_cuts);
	tcase_add_test(tc, forgotten_cuts);
	tcase_add_test(tc, clean_stop);
	tcase_add_test(tc, two_loops);
	tcase_add_test(tc, no_lease);
	tcase_add_test(tc, disk_fails);
	tcase_add_test(tc, last_disk_fails);
	tcase_add_test(tc, disk_is_stuck);
	tcase_add_test(tc, disk_of_another_cluster);
	tcase_add_loop_test(tc, disk_fails_under_a_write, 0, 6);
	tcase_add_test(tc, disk_full);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
