/* SPDX-License-Identifier: MIT */
/* test_client_reads.c - reads of the client: replicas in trouble or late, read-ahead. */
#include "tests/client_rig.h"

/* ---- trouble ---- */

static const struct {
	const char *what;
	int rc;
	enum lie lie;
	unsigned times;
	int want;
	uint64_t within_ms;
} read_troubles[] = {
	{ "one replica has gone", -ECONNREFUSED, TRUE, 1, 0, 5 },
	{ "two have", -ECONNREFUSED, TRUE, 2, 0, 8 },
	{ "all had, and come back", -ECONNREFUSED, TRUE, 3, 0, 20 },
	{ "it holds no lease", ERR_NO_LEASE, TRUE, 2, 0, 3 },
	{ "it is moving", ERR_CHAIN_RECOVERING, TRUE, 2, 0, 3 },
	{ "it is stopping", ERR_STOPPING, TRUE, 2, 0, 3 },
	{ "not its target any more", ERR_NOT_OWNER, TRUE, 2, 0, 3 },
	{ "one is silent", -ETIMEDOUT, TRUE, 1, 0, 1100 },
	{ "damaged on disk", ERR_CORRUPT, TRUE, 2, 0, 8 },
	{ "damaged on the way", 0, WRONG_BYTES, 2, 0, 8 },
	{ "damaged everywhere", ERR_CORRUPT, TRUE, 3, ERR_CORRUPT, 8 },
	{ "an error of one disk", -EIO, TRUE, 1, 0, 5 },
	{ "an error of all", -EIO, TRUE, 3, -EIO, 8 },
	{ "stale routing", ERR_STALE_CHAIN, TRUE, 2, 0, 20 },
	{ "busy", ERR_BUSY, TRUE, 5, 0, 50 },
	{ "more bytes than it was asked for", 0, MORE_BYTES, 2, 0, 8 },
	{ "from all", 0, MORE_BYTES, 3, ERR_BAD_MESSAGE, 8 },
	{ "more answers than questions", 0, MORE_ITEMS, 2, 0, 8 },
	{ "fewer", 0, FEWER_ITEMS, 3, ERR_BAD_MESSAGE, 8 },
};

START_TEST(reads_find_a_replica)
{
	struct client_file *f = make("a");
	uint64_t begun;

	ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
	bad.method = MSG_read;
	bad.times = read_troubles[_i].times;
	bad.rc = read_troubles[_i].rc;
	bad.lie = read_troubles[_i].lie;
	begun = clock_now(clk);
	client_read(f, &reqs[2].io, io_done, 0, 1000);
	ck_assert_msg(wait_for(&reqs[2]) == read_troubles[_i].want, "%s: %d",
	    read_troubles[_i].what, reqs[2].rc);
	ck_assert_msg(clock_now(clk) - begun <=
	    read_troubles[_i].within_ms * NS_PER_MS, "%s took %llu us",
	    read_troubles[_i].what,
	    (unsigned long long)(clock_now(clk) - begun) / 1000);
	if (reqs[2].rc == 0)
		ck_assert_mem_eq(reqs[2].io.iov[0].iov_base, pattern, 1000);
	client_read_done(c, &reqs[2].io);
}
END_TEST

START_TEST(reads_are_batched)
{
	struct client_file *f = make("a");

	ck_assert_int_eq(put(f, 0, pattern, sizeof(pattern), true), 0);
	expect(f, 0, sizeof(pattern), pattern, sizeof(pattern));
	ck_assert_uint_eq(saw.calls[MSG_read], 2);	/* 16 chunks, 2 chains */
}
END_TEST

/* ---- late reads ---- */

static struct client_file *
hedge_file(void)
{
	struct client_file *f = make("a");

	conf.client_hedge = 50;
	ck_assert_int_eq(put(f, 0, pattern, sizeof(pattern), true), 0);
	ck_assert_int_eq(sync_file(f), 0);
	return f;
}

static unsigned
calls_now(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SLOTS; i++)
		n += slots[i].call != NULL && slots[i].method != MSG_session;
	return n;
}

/* Read @n times @len bytes; the longest took so many ms. */
static uint64_t
slowest_ms(struct client_file *f, unsigned n, uint32_t len)
{
	uint64_t worst = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t begun = clock_now(clk), off = (i % 16) * CHUNK;

		expect(f, off, len, pattern + off, len);
		if (clock_now(clk) - begun > worst)
			worst = clock_now(clk) - begun;
		/* nobody can write into what the reader was given */
		ck_assert_uint_eq(calls_now(), 0);
	}
	return worst / NS_PER_MS;
}

/* A storage process was stopped: its connections stay and nothing comes. */
START_TEST(a_stopped_replica_is_left_alone)
{
	struct client_file *f = hedge_file();
	uint32_t asked;

	(void)slowest_ms(f, 30, 1000);
	read_ns[1] = STOPPED;
	ck_assert_uint_le(slowest_ms(f, 30, 1000), 52);
	asked = saw.reads_of[1];
	ck_assert_uint_le(slowest_ms(f, 100, 1000), 2);
	ck_assert_uint_eq(saw.reads_of[1], asked);
	/* now and then one read finds out */
	sim_clock_run(world, 3 * NS_PER_S);
	for (unsigned i = 4; i < 12; i++)
		client_read(f, &reqs[i].io, io_done, i * CHUNK, 1000);
	sim_clock_run(world, 60 * NS_PER_MS);
	for (unsigned i = 4; i < 12; i++) {
		ck_assert(reqs[i].done && reqs[i].rc == 0);
		ck_assert_mem_eq(reqs[i].io.iov[0].iov_base,
		    pattern + i * CHUNK, 1000);
		client_read_done(c, &reqs[i].io);
	}
	ck_assert_uint_le(saw.reads_of[1], asked + 2);	/* one a target */
	/* and it is used again once it answers */
	read_ns[1] = 0;
	sim_clock_run(world, 20 * NS_PER_S);
	asked = saw.reads_of[1];
	ck_assert_uint_le(slowest_ms(f, 90, 1000), 2);
	ck_assert_uint_ge(saw.reads_of[1], asked + 20);
}
END_TEST

/* All that was under way when it stopped gets away, however much it is. */
START_TEST(reads_under_way_get_away)
{
	static struct req many[200];
	struct client_file *f = hedge_file();
	uint64_t off = 0;

	memset(many, 0, sizeof(many));
	read_ns[1] = read_ns[2] = STOPPED;
	for (unsigned i = 0; i < 200; i++)
		client_read(f, &many[i].io, io_done, (i * 7919ull) % 900000,
		    1000);
	sim_clock_run(world, 300 * NS_PER_MS);
	for (unsigned i = 0; i < 200; i++) {
		off = (i * 7919ull) % 900000;
		ck_assert_msg(many[i].done && many[i].rc == 0, "read %u", i);
		ck_assert_mem_eq(many[i].io.iov[0].iov_base, pattern + off,
		    many[i].io.iov[0].iov_len);
		client_read_done(c, &many[i].io);
	}
	ck_assert_uint_eq(calls_now(), 0);
}
END_TEST

/* A cluster that is slow as a whole is not asked for everything twice. */
START_TEST(few_reads_are_asked_twice)
{
	struct client_file *f = hedge_file();
	uint32_t asked;

	read_ns[1] = read_ns[2] = read_ns[3] = 200 * NS_PER_MS;
	(void)slowest_ms(f, 64, 1000);
	asked = saw.calls[MSG_read];
	(void)slowest_ms(f, 400, 1000);
	ck_assert_uint_le(saw.calls[MSG_read] - asked, 400 + 24);
	/* one that is slower than most pays */
	read_ns[1] = 600 * NS_PER_MS;
	ck_assert_uint_le(slowest_ms(f, 10, 1000), 500);
	conf.client_hedge = 0;
	asked = saw.calls[MSG_read];
	(void)slowest_ms(f, 10, 1000);
	ck_assert_uint_eq(saw.calls[MSG_read] - asked, 10);
}
END_TEST

/* Nor is what only waits for room here: the answer would not come sooner. */
START_TEST(what_waits_for_us_is_not_asked_twice)
{
	struct client_file *f = hedge_file();
	uint32_t asked;

	(void)slowest_ms(f, 64, 1000);
	read_ns[1] = read_ns[2] = 200 * NS_PER_MS;
	replies_wait = true;
	asked = saw.calls[MSG_read];
	(void)slowest_ms(f, 10, 1000);
	ck_assert_uint_eq(saw.calls[MSG_read] - asked, 10);
	replies_wait = false;
	(void)slowest_ms(f, 10, 1000);
	ck_assert_uint_gt(saw.calls[MSG_read] - asked, 20);
}
END_TEST

static const struct {
	const char *what;
	uint64_t ns[4];			/* of the nodes */
	int	 rc;			/* of the second call */
	bool	 damage;
	uint64_t least_ms, most_ms;
} twins[] = {
	{ "the first one answers after all", { 0, 70 * NS_PER_MS, STOPPED,
	  STOPPED }, 0, false, 70, 71 },
	{ "the other one refuses", { 0, 70 * NS_PER_MS, 0, 0 }, ERR_BUSY, false,
	  70, 71 },
	{ "the other one is damaged", { 0, 70 * NS_PER_MS, 0, 0 }, 0, true, 70,
	  71 },
	{ "the first one times out, a third answers", { 0, STOPPED, STOPPED, 0 },
	  0, false, 50, 110 },
	{ "the other one has not got it", { 0, 70 * NS_PER_MS, 0, 0 },
	  ERR_STALE_CHAIN, false, 70, 71 },
};

START_TEST(the_first_good_answer_counts)
{
	struct client_file *f = hedge_file();
	const struct routing_chain *ch;
	uint64_t begun;

	/* every replica is the first one once */
	for (unsigned first = 1; first <= 3; first++) {
		client_close(c);
		ready = false;
		memset(read_ns, 0, sizeof(read_ns));
		start();
		f = open_ino(10, O_RDONLY);
		c->turn = first - 1;
		ch = routing_chain(routing, client_inode_chain(f->inode, 0));
		for (unsigned k = 0; k < 3; k++)
			read_ns[ch->targets[(first - 1 + k) % 3] % 10] =
			    twins[_i].ns[k + 1];
		client_read(f, &reqs[2].io, io_done, 0, 1000);
		begun = clock_now(clk);
		bad.method = MSG_read;
		bad.times = twins[_i].rc != 0 || twins[_i].damage ? 1 : 0;
		bad.rc = twins[_i].rc;
		bad.lie = twins[_i].damage ? WRONG_BYTES : TRUE;
		ck_assert_int_eq(wait_for(&reqs[2]), 0);
		ck_assert_mem_eq(reqs[2].io.iov[0].iov_base, pattern, 1000);
		client_read_done(c, &reqs[2].io);
		begun = (clock_now(clk) - begun) / NS_PER_MS;
		ck_assert_msg(begun >= twins[_i].least_ms &&
		    begun <= twins[_i].most_ms, "%s: %llu ms", twins[_i].what,
		    (unsigned long long)begun);
		ck_assert_uint_eq(calls_now(), 0);
	}
}
END_TEST

/* With verbs a call that was given up has its memory until the server lets go. */
static const struct {
	const char *what;
	uint64_t first_ns, second_ns;
	uint64_t least_ms, most_ms;
	unsigned left;			/* calls, when the read has ended */
} lenders[] = {
	{ "the first one has the reader's memory", STOPPED, 0, 80, 82, 0 },
	{ "the other one has memory of its own", 70 * NS_PER_MS, STOPPED, 70, 71, 1 },
};

START_TEST(a_loser_lets_go_first)
{
	struct client_file *f = hedge_file();
	const struct routing_chain *ch = routing_chain(routing,
	    client_inode_chain(f->inode, 0));
	uint64_t begun = clock_now(clk);

	lend_ns = 30 * NS_PER_MS;
	c->turn = 0;
	for (unsigned k = 0; k < 3; k++)
		read_ns[ch->targets[k] % 10] = k == 0 ? lenders[_i].first_ns :
		    lenders[_i].second_ns;
	client_read(f, &reqs[2].io, io_done, 0, 1000);
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	begun = (clock_now(clk) - begun) / NS_PER_MS;
	ck_assert_msg(begun >= lenders[_i].least_ms && begun <= lenders[_i].most_ms,
	    "%s: %llu ms", lenders[_i].what, (unsigned long long)begun);
	ck_assert_uint_eq(calls_now(), lenders[_i].left);
	sim_clock_run(world, 31 * NS_PER_MS);
	ck_assert_uint_eq(calls_now(), 0);
	ck_assert_mem_eq(reqs[2].io.iov[0].iov_base, pattern, 1000);
	client_read_done(c, &reqs[2].io);
	memset(read_ns, 0, sizeof(read_ns));
	(void)slowest_ms(f, 20, 1000);
}
END_TEST

/* The client closes while a winner waits for its twin, and when the twin is alone. */
START_TEST(closed_before_a_loser_lets_go)
{
	struct client_file *f = hedge_file();
	const struct routing_chain *ch = routing_chain(routing,
	    client_inode_chain(f->inode, 0));

	lend_ns = 30 * NS_PER_MS;
	c->turn = 0;
	for (unsigned k = 0; k < 3; k++)
		read_ns[ch->targets[k] % 10] = k == 0 ? lenders[_i].first_ns :
		    lenders[_i].second_ns;
	client_read(f, &reqs[2].io, io_done, 0, 1000);
	sim_clock_run(world, 72 * NS_PER_MS);
	ck_assert_uint_eq(calls_now(), 1);
	ck_assert_int_eq(reqs[2].done, _i == 1);
	if (reqs[2].done)
		client_read_done(c, &reqs[2].io);
	client_close(c);
	ready = false;
	ck_assert_uint_eq(calls_now(), 0);
	start();
}
END_TEST

/* Routing changes: what was asked of a replica that serves no more is asked of another one,
 * when that one has let go. */
START_TEST(rerouted_when_it_lets_go)
{
	struct client_file *f = hedge_file();
	static const uint32_t t1[] = { 12, 13 }, t2[] = { 22, 23 };
	unsigned served = 0;

	conf.client_hedge = 0;
	lend_ns = _i == 0 ? 0 : 30 * NS_PER_MS;
	read_ns[1] = read_ns[2] = read_ns[3] = STOPPED;
	for (unsigned i = 0; i < 3; i++)
		client_read(f, &reqs[2 + i].io, io_done, i * CHUNK, 1000);
	sim_clock_run(world, 10 * NS_PER_MS);
	memset(read_ns, 0, sizeof(read_ns));
	set_chain(1, 2, CHAIN_SERVING, t1, 2);
	set_chain(2, 2, CHAIN_SERVING, t2, 2);
	routing_told();
	sim_clock_run(world, 2 * NS_PER_MS);
	routing_told();				/* once more, meanwhile */
	sim_clock_run(world, 40 * NS_PER_MS);
	for (unsigned i = 0; i < 3; i++)
		if (reqs[2 + i].done) {		/* others have asked who still serve */
			ck_assert_int_eq(reqs[2 + i].rc, 0);
			ck_assert_mem_eq(reqs[2 + i].io.iov[0].iov_base,
			    pattern + i * CHUNK, 1000);
			client_read_done(c, &reqs[2 + i].io);
			served++;
		}
	ck_assert_uint_gt(served, 0);
}
END_TEST

/* Routing changes while a winner waits. */
START_TEST(rerouted_before_a_loser_lets_go)
{
	struct client_file *f = hedge_file();
	static const uint32_t t1[] = { 12, 13 }, t2[] = { 22, 23 };
	const struct routing_chain *ch = routing_chain(routing,
	    client_inode_chain(f->inode, 0));

	lend_ns = 100 * NS_PER_MS;
	c->turn = 0;
	read_ns[ch->targets[0] % 10] = STOPPED;
	client_read(f, &reqs[2].io, io_done, 0, 1000);
	sim_clock_run(world, 72 * NS_PER_MS);
	ck_assert(!reqs[2].done);
	ck_assert_uint_eq(calls_now(), 1);
	set_chain(1, 2, CHAIN_SERVING, t1, 2);
	set_chain(2, 2, CHAIN_SERVING, t2, 2);
	routing_told();
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	ck_assert_mem_eq(reqs[2].io.iov[0].iov_base, pattern, 1000);
	ck_assert_uint_eq(calls_now(), 0);
	client_read_done(c, &reqs[2].io);
}
END_TEST

/* Two say nothing: a third one is asked when the first has let go, and no connection is given
 * up for that. */
START_TEST(a_third_is_asked)
{
	struct client_file *f = hedge_file();
	const struct routing_chain *ch = routing_chain(routing,
	    client_inode_chain(f->inode, 0));

	lend_ns = 30 * NS_PER_MS;
	c->turn = 0;
	read_ns[ch->targets[0] % 10] = read_ns[ch->targets[1] % 10] = STOPPED;
	saw.cut_off = 0;
	client_read(f, &reqs[2].io, io_done, 0, 1000);
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	ck_assert_mem_eq(reqs[2].io.iov[0].iov_base, pattern, 1000);
	ck_assert_uint_eq(saw.cut_off, 0);
	client_read_done(c, &reqs[2].io);
	sim_clock_run(world, 31 * NS_PER_MS);
	ck_assert_uint_eq(calls_now(), 0);
	ck_assert_uint_eq(saw.cut_off, 0);
}
END_TEST

/* A read that fails in one chain while the other one's server has its memory. */
START_TEST(failed_when_it_lets_go)
{
	struct client_file *f = hedge_file();
	static const uint32_t t1[] = { 11 }, t2[] = { 22 };
	uint64_t begun;

	set_chain(1, 2, CHAIN_SERVING, t1, 1);
	set_chain(2, 2, CHAIN_SERVING, t2, 1);
	routing_told();
	sim_clock_run(world, NS_PER_MS);
	lend_ns = 30 * NS_PER_MS;
	read_ns[2] = STOPPED;
	bad.method = MSG_read;
	bad.node = 1;
	bad.times = 1;
	bad.rc = -EIO;
	saw.cut_off = 0;
	begun = clock_now(clk);
	client_read(f, &reqs[2].io, io_done, 0, sizeof(pattern));
	ck_assert_int_eq(wait_for(&reqs[2]), -EIO);
	ck_assert_uint_ge(clock_now(clk) - begun, lend_ns);
	ck_assert_uint_eq(calls_now(), 0);
	ck_assert_uint_eq(saw.cut_off, 0);
	client_read_done(c, &reqs[2].io);
}
END_TEST

/* Routing says which replicas serve; the others are not asked. */
START_TEST(only_serving_replicas_are_asked)
{
	struct client_file *f = hedge_file();
	static const uint32_t t1[] = { 12, 11, 13 }, t2[] = { 22, 23, 21 };

	set_chain_states(1, 2, t1, 3, 1);
	set_chain_states(2, 2, t2, 3, 1);
	routing_told();
	sim_clock_run(world, NS_PER_MS);
	memset(saw.reads_of, 0, sizeof(saw.reads_of));
	(void)slowest_ms(f, 50, 1000);
	ck_assert_uint_eq(saw.reads_of[1] + saw.reads_of[3], 0);
	ck_assert_uint_eq(saw.reads_of[2], 50);
	ck_assert_int_eq(put(f, 0, pattern, 1000, true), 0);
	ck_assert_uint_eq(saw.last_node, 2);
}
END_TEST

/* What waits for routing goes on when there is some, not when its pause is over. */
START_TEST(new_routing_ends_pauses)
{
	struct client_file *f = hedge_file();
	static const uint32_t t1[] = { 12, 13 }, t2[] = { 23, 21 };
	uint64_t begun, refreshes = saw.refreshes;

	bad.method = _i == 0 ? MSG_read : MSG_write;
	bad.times = ~0u;
	bad.rc = ERR_CHAIN_RECOVERING;
	if (_i == 0)
		client_read(f, &reqs[2].io, io_done, 0, 1000);
	else
		client_write(f, &reqs[2].io, io_done, 0, pattern, 1000, true);
	for (unsigned i = 0; i < 20; i++) {
		sim_clock_run(world, 101 * NS_PER_MS);
		ck_assert(!reqs[2].done);
		/* nor is it ever longer than a tenth of a second */
		ck_assert_uint_gt(saw.refreshes, refreshes);
		refreshes = saw.refreshes;
	}
	bad.times = 0;
	set_chain(1, 2, CHAIN_SERVING, t1, 2);
	set_chain(2, 2, CHAIN_SERVING, t2, 2);
	routing_told();
	begun = clock_now(clk);
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	ck_assert_uint_le(clock_now(clk) - begun, 2 * NS_PER_MS);
	if (_i == 0)
		client_read_done(c, &reqs[2].io);
}
END_TEST

/* ---- read-ahead ---- */

START_TEST(reads_ahead)
{
	struct client_file *f = make("a");
	unsigned calls;

	conf.client_read_ahead = 256 << 10;
	ck_assert_int_eq(put(f, 0, pattern, sizeof(pattern), true), 0);
	for (unsigned i = 0; i < 32; i++)
		expect(f, i * 32768u, 32768, pattern + i * 32768u, 32768);
	/* The first ones alone, then a chunk a call. */
	ck_assert_uint_lt(saw.calls[MSG_read], 22);
	calls = saw.calls[MSG_read];
	expect(f, sizeof(pattern) - 100, 200, pattern + sizeof(pattern) - 100,
	    100);
	ck_assert_uint_le(saw.calls[MSG_read], calls + 1);
}
END_TEST

/* What was being read ahead when the file was closed keeps its memory from others. */
START_TEST(read_ahead_lets_go_first)
{
	struct client_file *f = make("a"), *g;
	static struct req many[16];
	unsigned left = 0;

	conf.client_read_ahead = 256 << 10;
	memset(many, 0, sizeof(many));
	ck_assert_int_eq(put(f, 0, pattern, sizeof(pattern), true), 0);
	ck_assert_int_eq(sync_file(f), 0);
	g = open_ino(10, O_RDONLY);
	for (unsigned i = 0; i < 3; i++)
		expect(g, i * 32768u, 32768, pattern + i * 32768u, 32768);
	read_ns[1] = read_ns[2] = read_ns[3] = STOPPED;
	lend_ns = 30 * NS_PER_MS;
	client_read(g, &reqs[2].io, io_done, 3 * 32768u, 32768);
	sim_clock_run(world, NS_PER_MS);
	ck_assert(reqs[2].done && reqs[2].rc == 0);
	client_read_done(c, &reqs[2].io);
	memset(read_ns, 0, sizeof(read_ns));
	client_release(g);
	for (unsigned i = 0; i < SLOTS; i++)
		left += slots[i].call != NULL && slots[i].lent;
	ck_assert_uint_gt(left, 0);
	for (unsigned i = 0; i < 16; i++)
		client_read(f, &many[i].io, io_done, i * CHUNK, CHUNK);
	sim_clock_run(world, 40 * NS_PER_MS);
	for (unsigned i = 0; i < 16; i++) {
		ck_assert(many[i].done && many[i].rc == 0);
		ck_assert_mem_eq(many[i].io.iov[0].iov_base, pattern + i * CHUNK,
		    CHUNK);
		client_read_done(c, &many[i].io);
	}
}
END_TEST

START_TEST(read_ahead_is_never_stale)
{
	struct client_file *f = make("a"), *g;

	conf.client_read_ahead = 256 << 10;
	ck_assert_int_eq(put(f, 0, pattern, sizeof(pattern), true), 0);
	for (unsigned i = 0; i < 4; i++)
		expect(f, i * 32768u, 32768, pattern + i * 32768u, 32768);
	/* Written here. */
	ck_assert_int_eq(put(f, 150000, zeros, 100, false), 0);
	ck_assert_int_eq(sync_file(f), 0);
	expect(f, 150000, 100, zeros, 100);
	for (unsigned i = 8; i < 12; i++)
		expect(f, i * 32768u, 32768, pattern + i * 32768u, 32768);
	ck_assert_int_eq(put(f, 12 * 32768u, zeros, 100, true), 0);
	expect(f, 12 * 32768u, 100, zeros, 100);
	/* Written elsewhere: seen after the next open. */
	for (unsigned i = 8; i < 12; i++)
		expect(f, i * 32768u, 32768, pattern + i * 32768u, 32768);
	memset(chunks[chunk_find((struct chunk_id){ 10, 7 }, false)].b, 7,
	    CHUNK);
	file_of(10)->change++;
	g = open_ino(10, O_RDONLY);
	ck_assert(!client_file_unchanged(g));
	client_read(g, &reqs[2].io, io_done, 7 * CHUNK, 10);
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	ck_assert_int_eq(((uint8_t *)reqs[2].io.iov[0].iov_base)[0], 7);
	client_read_done(c, &reqs[2].io);
	client_read(f, &reqs[2].io, io_done, 7 * CHUNK, 10);
	ck_assert_int_eq(wait_for(&reqs[2]), 0);
	ck_assert_int_eq(((uint8_t *)reqs[2].io.iov[0].iov_base)[0], 7);
	client_read_done(c, &reqs[2].io);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("client_reads");
	TCase *tc = tcase_create("all");
	SRunner *sr;
	int failed;

#define LOOP(t, rows) tcase_add_loop_test(tc, t, 0, sizeof(rows) / sizeof(rows[0]))
	tcase_add_checked_fixture(tc, setup, teardown);
	LOOP(reads_find_a_replica, read_troubles);
	tcase_add_test(tc, reads_are_batched);
	tcase_add_test(tc, a_stopped_replica_is_left_alone);
	tcase_add_test(tc, reads_under_way_get_away);
	tcase_add_test(tc, few_reads_are_asked_twice);
	tcase_add_test(tc, what_waits_for_us_is_not_asked_twice);
	LOOP(the_first_good_answer_counts, twins);
	LOOP(a_loser_lets_go_first, lenders);
	LOOP(closed_before_a_loser_lets_go, lenders);
	tcase_add_test(tc, rerouted_before_a_loser_lets_go);
	tcase_add_test(tc, a_third_is_asked);
	tcase_add_test(tc, failed_when_it_lets_go);
	tcase_add_loop_test(tc, rerouted_when_it_lets_go, 0, 2);
	tcase_add_test(tc, only_serving_replicas_are_asked);
	tcase_add_loop_test(tc, new_routing_ends_pauses, 0, 2);
	tcase_add_test(tc, reads_ahead);
	tcase_add_test(tc, read_ahead_lets_go_first);
	tcase_add_test(tc, read_ahead_is_never_stale);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
