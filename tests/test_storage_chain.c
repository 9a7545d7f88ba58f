/* SPDX-License-Identifier: MIT */
/* test_storage_chain.c - writers and readers while replicas die, leave and come back.
 *
 * Writers own a region of every chunk each, so what a region must hold is known from its
 * writer alone: what was acknowledged, and perhaps the one write that was not.
 * SEED=n runs one seed, N=n so many, VERBOSE=1 tells the story. */
#include "tests/storage_rig.h"
#include "tests/suite.h"

struct writer {
	unsigned  id;
	struct net_call call;
	struct clock_timer pause;
	struct iovec iov;
	bool	  busy, reading, stop;
	uint64_t  seq, began_ns;
	uint32_t  index, off, len;
	uint8_t	  data[REGION], got[REGION];
	uint8_t	  fill;
	unsigned  replica, done, failed, reads;
	/* region of each chunk: acknowledged bytes, and the write that may be there */
	uint8_t	  acked[CHUNKS][REGION];
	uint32_t  acked_len[CHUNKS];
	bool	  maybe[CHUNKS];
	uint32_t  maybe_off[CHUNKS], maybe_len[CHUNKS];
	uint8_t	  maybe_fill[CHUNKS];
};
static struct writer W[WRITERS];
static uint64_t longest_ns;		/* that one write took, with its repeats */

/* Whoever looks, a chunk's version never goes back. */
static uint64_t seen[CHUNKS];

static void
saw(uint32_t index, uint64_t version)
{
	if (version > seen[index])
		seen[index] = version;
}

/* Reads two chunks at once, anywhere, for their versions alone. */
static struct reader {
	struct net_call call;
	struct clock_timer pause;
	struct iovec iov;
	bool	 busy, stop;
	uint32_t index;
	uint64_t least;
	uint8_t	 got[64];
	unsigned done;
} readers[READERS];

static void reader_go(struct reader *r);

static void
reader_pause_over(struct clock_timer *t)
{
	reader_go(container_of(t, struct reader, pause));
}

static void
reader_done(struct net_call *c, int rc)
{
	struct reader *r = container_of(c, struct reader, call);
	const struct msg_read_rep *rep = c->rep;

	r->busy = false;
	for (uint32_t i = 0; rc == 0 && i < rep->items.n; i++) {
		int item = rep->items.v[i].rc;
		uint64_t v = rep->items.v[i].version;

		ck_assert(item != ERR_CORRUPT && item != -EIO);
		if (i > 0 || (item != 0 && item != -ENOENT))
			continue;
		ck_assert_msg(v >= r->least, "chunk %u went back from %llu to "
		    "%llu", r->index, (unsigned long long)r->least,
		    (unsigned long long)v);
		saw(r->index, v);
		r->done++;
	}
	if (!r->stop)
		clock_timer_start(T.client.clock, &r->pause,
		    clock_now(T.client.clock) + rand_below(&T.rand, NS_PER_MS),
		    reader_pause_over);
}

static void writer_go(struct writer *w);

static void
writer_pause_over(struct clock_timer *t)
{
	writer_go(container_of(t, struct writer, pause));
}

static void
writer_pause(struct writer *w, uint64_t ns)
{
	clock_timer_start(T.client.clock, &w->pause,
	    clock_now(T.client.clock) + ns, writer_pause_over);
}

/* What the region may be: as acknowledged, or with the last write too. */
static bool
region_ok(const struct writer *w, uint32_t index, const uint8_t *got, uint32_t n)
{
	uint8_t want[REGION];

	memcpy(want, w->acked[index], REGION);
	if (n >= w->acked_len[index] && memcmp(want, got, n) == 0)
		return true;
	if (!w->maybe[index])
		return false;
	memset(want + w->maybe_off[index], w->maybe_fill[index],
	    w->maybe_len[index]);
	return memcmp(want, got, n) == 0;
}

static void
write_done(struct net_call *c, int rc)
{
	struct writer *w = container_of(c, struct writer, call);
	uint32_t k = w->index;

	if (rc == 0) {
		memset(w->acked[k] + w->off, w->fill, w->len);
		if (w->off + w->len > w->acked_len[k])
			w->acked_len[k] = w->off + w->len;
		w->maybe[k] = false;
		if (sim_clock_now(T.world) - w->began_ns > longest_ns)
			longest_ns = sim_clock_now(T.world) - w->began_ns;
		w->busy = false;
		w->done++;
		saw(k, ((const struct msg_write_rep *)c->rep)->version);
		writer_pause(w, rand_below(&T.rand, 2 * NS_PER_MS));
		return;
	}
	ck_assert_msg(rc != ERR_CORRUPT && rc != -EINVAL && rc != -EIO,
	    "write: %s", err_name(rc));
	member_refresh(T.member);
	w->failed++;
	writer_pause(w, NS_PER_MS + rand_below(&T.rand, 30 * NS_PER_MS));
}

static void
read_done(struct net_call *c, int rc)
{
	struct writer *w = container_of(c, struct writer, call);
	const struct msg_read_rep *rep = c->rep;
	uint32_t k = w->index;

	w->reading = false;
	writer_pause(w, rand_below(&T.rand, 2 * NS_PER_MS));
	if (rc != 0)
		return;
	ck_assert_uint_eq(rep->items.n, 1);
	rc = rep->items.v[0].rc;
	if (rc == ERR_BUSY || err_next(rc) == ERR_NEXT_REFRESH)
		return;
	if (rc == -ENOENT) {
		ck_assert_msg(w->acked_len[k] == 0, "chunk %u is gone", k);
		return;
	}
	ck_assert_msg(rc == 0, "read: %s", err_name(rc));
	ck_assert_uint_eq(crc32c(0, w->got, rep->items.v[0].len),
	    rep->items.v[0].crc);
	/* Shorter: nothing of this region was written behind that. */
	memset(w->got + rep->items.v[0].len, 0, REGION - rep->items.v[0].len);
	w->reads++;
	ck_assert_msg(region_ok(w, k, w->got, REGION),
	    "writer %u chunk %u replica %u version %llu: not what was written",
	    w->id, k, w->replica,
	    (unsigned long long)rep->items.v[0].version);
}

static bool
chain_up(uint32_t index)
{
	return chain_of(index) != NULL && routing_serving_n(chain_of(index)) > 0;
}

static unsigned
any_replica(const struct routing_chain *c)
{
	return (unsigned)rand_below(&T.rand, routing_serving_n(c));
}

static void
reader_go(struct reader *r)
{
	const struct routing_chain *c;
	uint32_t index = (uint32_t)rand_below(&T.rand, CHUNKS);
	struct msg_read_item items[2] = { { { INO, index }, 0, 32 },
	    { { INO, index + T.chains }, 0, 32 } };
	struct msg_read m = { .items = { items, 2 } };
	struct net_call_opts o = { .deadline_ns = clock_now(T.client.clock) +
	    NS_PER_S, .recv = &r->iov, .recv_n = 1 };
	struct net_addr to;

	if (r->stop)
		return;
	r->iov = (struct iovec){ r->got, sizeof(r->got) };
	r->index = index;
	r->least = seen[index];
	if (chain_up(index)) {
		c = chain_of(index);
		m.chain = c->id;
		m.chain_version = c->version;
		m.target = c->targets[any_replica(c)];
		if (routing_target_addr(member_routing(T.member), m.target,
		    &to) == 0 && net_call_start(&r->call, T.client.hubs[0], &to,
		    MSG_read, &m, &o, reader_done) == 0) {
			r->busy = true;
			return;
		}
	}
	clock_timer_start(T.client.clock, &r->pause,
	    clock_now(T.client.clock) + NS_PER_MS, reader_pause_over);
}

static void
writer_read(struct writer *w)
{
	const struct routing_chain *c;
	struct msg_read_item item;
	struct msg_read m;
	struct net_call_opts o = { .deadline_ns = clock_now(T.client.clock) +
	    NS_PER_S, .recv = &w->iov, .recv_n = 1 };
	struct net_addr to;

	w->index = (uint32_t)rand_below(&T.rand, CHUNKS);
	w->iov = (struct iovec){ w->got, REGION };
	if (!chain_up(w->index)) {
		writer_pause(w, NS_PER_MS);
		return;
	}
	c = chain_of(w->index);
	w->replica = any_replica(c);
	item = (struct msg_read_item){ { INO, w->index }, w->id * REGION,
	    REGION };
	m = (struct msg_read){ c->id, c->version, c->targets[w->replica],
	    { &item, 1 } };
	if (routing_target_addr(member_routing(T.member), m.target, &to) != 0 ||
	    net_call_start(&w->call, T.client.hubs[0], &to, MSG_read, &m, &o,
	    read_done) != 0)
		writer_pause(w, NS_PER_MS);
	else
		w->reading = true;
}

static void
writer_go(struct writer *w)
{
	struct net_call_opts o = { .deadline_ns = clock_now(T.client.clock) +
	    NS_PER_S + rand_below(&T.rand, NS_PER_S), .send = &w->iov,
	    .send_n = 1 };
	struct msg_write m;
	struct net_addr to;

	if (!w->busy) {
		if (w->stop)
			return;
		if (rand_below(&T.rand, 3) == 0) {
			writer_read(w);
			return;
		}
		w->busy = true;
		w->began_ns = sim_clock_now(T.world);
		w->index = (uint32_t)rand_below(&T.rand, CHUNKS);
		w->seq++;
		w->fill = (uint8_t)(1 + rand_below(&T.rand, 255));
		w->off = (uint32_t)rand_below(&T.rand, REGION - 1);
		if (rand_below(&T.rand, 2) == 0)
			w->off &= ~4095u;
		w->len = 1 + (uint32_t)rand_below(&T.rand, REGION - w->off);
		memset(w->data, w->fill, w->len);
		w->maybe[w->index] = true;
		w->maybe_off[w->index] = w->off;
		w->maybe_len[w->index] = w->len;
		w->maybe_fill[w->index] = w->fill;
	}
	if (!chain_up(w->index)) {
		writer_pause(w, NS_PER_MS);
		return;
	}
	m = write_msg(w->index, w->id * REGION + w->off, w->data, w->len, w->seq,
	    0);
	m.client.b[1] = (uint8_t)w->id;
	w->iov = (struct iovec){ w->data, w->len };
	if (routing_target_addr(member_routing(T.member), m.target, &to) != 0 ||
	    net_call_start(&w->call, T.client.hubs[0], &to, MSG_write, &m, &o,
	    write_done) != 0)
		writer_pause(w, 5 * NS_PER_MS);
}

static void
fault(void)
{
	struct host *h = &T.nodes[rand_below(&T.rand, NODES)];
	enum down how = rand_below(&T.rand, 2) == 0 ? KILL : POWER;
	uint32_t a = 1 + (uint32_t)rand_below(&T.rand, NODES);
	uint32_t b = (uint32_t)rand_below(&T.rand, NODES + 1);

	switch (rand_below(&T.rand, 8)) {
	case 0:
	case 1:
		if (h->up)
			host_down(h, how);
		break;
	case 2:
		for (unsigned i = 0; i < NODES; i++)
			if (T.nodes[i].up)
				host_down(&T.nodes[i], how);
		break;
	case 3:
		sim_net_break(T.net, a, b);
		break;
	case 4:
		if (a != b)
			sim_net_path(T.net, a, b, rand_below(&T.rand, 2) == 0 ?
			    SIM_NET_SILENT : SIM_NET_RESET);
		break;
	case 5:
		sim_net_heal(T.net);
		break;
	case 6:
		if (h->up) {
			for (unsigned i = 0; i < h->loops; i++)
				sim_clock_node_pause(h->clocks[i], true);
			sim_clock_run(T.world, rand_below(&T.rand, 5 *
			    NS_PER_S));
			for (unsigned i = 0; i < h->loops; i++)
				sim_clock_node_pause(h->clocks[i], false);
		}
		break;
	default:
		break;
	}
}

static void
restart(void)
{
	for (unsigned i = 0; i < NODES; i++)
		if (!T.nodes[i].up)
			storage_up(&T.nodes[i]);
}

static bool
writers_idle(void *ctx)
{
	(void)ctx;
	for (unsigned i = 0; i < WRITERS; i++)
		if (W[i].busy || W[i].reading)
			return false;
	for (unsigned i = 0; i < READERS; i++)
		if (readers[i].busy)
			return false;
	return true;
}

/* All replicas of a chunk, byte by byte, against all writers. */
static void
check_chunk(uint32_t index)
{
	static uint8_t first[1 << SHIFT], other[1 << SHIFT];
	uint32_t len = 0;
	uint64_t version = 0;
	int rc = 0;

	for (unsigned i = 0; i < NODES; i++) {
		uint8_t *to = i == 0 ? first : other;

		memset(to, 0, sizeof(first));
		/* Streams from before the healing may still have to break. */
		for (unsigned tries = 0; get(i, index, 0, to, sizeof(first)) != 0;
		    tries++) {
			ck_assert_msg(tries < 30, "%s", err_name(R.rc));
			member_refresh(T.member);
			sim_clock_run(T.world, NS_PER_S);
		}
		ck_assert(R.item_rc == 0 || R.item_rc == -ENOENT);
		if (i == 0) {
			len = R.len;
			rc = R.item_rc;
			version = R.version;
			continue;
		}
		ck_assert_int_eq(R.item_rc, rc);
		ck_assert_uint_eq(R.len, len);
		ck_assert_uint_eq(R.version, version);
		ck_assert_msg(memcmp(first, other, sizeof(first)) == 0,
		    "chunk %u differs at replica %u", index, i);
	}
	for (unsigned i = 0; i < WRITERS; i++)
		ck_assert_msg(region_ok(&W[i], index, first + i * REGION,
		    REGION), "chunk %u: writer %u lost", index, i);
}

static unsigned total_done, total_reads;

static void
writers_start(void)
{
	memset(W, 0, sizeof(W));
	memset(readers, 0, sizeof(readers));
	memset(seen, 0, sizeof(seen));
	for (unsigned i = 0; i < WRITERS; i++) {
		W[i].id = i;
		writer_go(&W[i]);
	}
	for (unsigned i = 0; i < READERS; i++)
		reader_go(&readers[i]);
}

/* Everything that waits must end, and all replicas must agree. */
static void
writers_stop(uint64_t seed)
{
	for (unsigned i = 0; i < WRITERS; i++)
		W[i].stop = true;
	for (unsigned i = 0; i < READERS; i++)
		readers[i].stop = true;
	ck_assert_msg(sim_clock_run_until(T.world, writers_idle, NULL,
	    120 * NS_PER_S), "seed %llu: a write never ends",
	    (unsigned long long)seed);
	wait_serving(NODES);
	for (uint32_t k = 0; k < CHUNKS; k++)
		check_chunk(k);
}

static void
writers_close(void)
{
	for (unsigned i = 0; i < READERS; i++) {
		total_reads += readers[i].done;
		net_call_cancel(&readers[i].call);
		clock_timer_stop(T.client.clock, &readers[i].pause);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		total_done += W[i].done;
		total_reads += W[i].reads;
		net_call_cancel(&W[i].call);
		clock_timer_stop(T.client.clock, &W[i].pause);
	}
}

static unsigned
writes_done(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < WRITERS; i++)
		n += W[i].done;
	return n;
}

/* A replica of the first chain dies under writes, at each place in it; or says goodbye.  The
 * others go on soon, and it comes back under writes. */
START_TEST(one_leaves)
{
	bool goodbye = _i >= 3;
	unsigned at = (unsigned)_i % 3, n, before;
	struct host *h;

	cluster_open(100 + (uint64_t)_i, 1);
	writers_start();
	sim_clock_run(T.world, 300 * NS_PER_MS);
	n = node_of(chain_of(0)->targets[at]);
	h = &T.nodes[n - 1];
	before = writes_done();
	ck_assert_uint_gt(before, 50);
	longest_ns = 0;
	if (goodbye) {
		storage_stop(h->storage, role_stopped, h);
		while (!h->stopped)
			ck_assert(sim_clock_step(T.world));
		host_down(h, CLEAN);
	} else {
		host_down(h, at % 2 == 0 ? KILL : POWER);
	}
	sim_clock_run(T.world, 2500 * NS_PER_MS);
	wait_serving(NODES - 1);
	ck_assert_uint_gt(writes_done(), before + 100);
	/* The lease and what the manager adds; a client asks again after 30 ms at most. */
	ck_assert_uint_lt(longest_ns, goodbye ? NS_PER_S / 4 : 2 * NS_PER_S);
	before = writes_done();
	longest_ns = 0;
	storage_up(h);
	wait_serving(NODES);
	sim_clock_run(T.world, 200 * NS_PER_MS);
	ck_assert_uint_gt(writes_done(), before + 50);
	ck_assert_uint_lt(longest_ns, NS_PER_S / 4);
	writers_stop(0);
	writers_close();
	cluster_close();
}
END_TEST

/* Storage nodes that the manager and the client hear, but that do not hear each other: one
 * leaves, writes go on, and it comes back when the cut has ended. */
static const struct {
	const char *what;
	int	    a, b, c;		/* places in the first chain; c: cut from a, too */
	enum sim_net_path path;
} cuts[] = {
	{ "head and middle, silence", 0, 1, -1, SIM_NET_SILENT },
	{ "head and middle, refused", 0, 1, -1, SIM_NET_RESET },
	{ "middle and tail, silence", 1, 2, -1, SIM_NET_SILENT },
	{ "head and tail, silence", 0, 2, -1, SIM_NET_SILENT },
	{ "the head from both", 0, 1, 2, SIM_NET_SILENT },
	{ "the middle from both", 1, 0, 2, SIM_NET_SILENT },
	{ "the tail from both", 2, 1, 0, SIM_NET_RESET },
};

START_TEST(neighbours_apart)
{
	unsigned at[3], before;

	cluster_open(300 + (uint64_t)_i, _i % 2 == 0 ? 1 : 2);
	writers_start();
	sim_clock_run(T.world, 300 * NS_PER_MS);
	for (unsigned i = 0; i < 3; i++)
		at[i] = node_of(chain_of(0)->targets[i]);
	longest_ns = 0;
	before = writes_done();
	sim_net_cut(T.net, at[cuts[_i].a], at[cuts[_i].b], cuts[_i].path);
	if (cuts[_i].c >= 0)
		sim_net_cut(T.net, at[cuts[_i].a], at[cuts[_i].c], cuts[_i].path);
	sim_clock_run(T.world, 6 * NS_PER_S);
	ck_assert_msg(writes_done() > before + 500, "%s: %u writes", cuts[_i].what,
	    writes_done() - before);
	/* Silence, two beats, and the managers hear that who left knows it: no lease has to
	 * end for that. */
	ck_assert_msg(longest_ns < NS_PER_S * 3 / 2, "%s: a write took %llu ms",
	    cuts[_i].what, (unsigned long long)(longest_ns / NS_PER_MS));
	if (getenv("VERBOSE") != NULL)
		printf("%s: %u ms\n", cuts[_i].what, (unsigned)(longest_ns / NS_PER_MS));
	ck_assert_msg(T.m.parted > 0, "%s", cuts[_i].what);
	longest_ns = 0;
	before = T.m.parted;
	sim_clock_run(T.world, 6 * NS_PER_S);
	ck_assert_uint_eq(T.m.parted, before);		/* it is quiet by now */
	ck_assert_uint_lt(longest_ns, NS_PER_S / 4);
	sim_net_heal(T.net);
	wait_serving(NODES);
	sim_clock_run(T.world, 200 * NS_PER_MS);
	ck_assert_uint_lt(longest_ns, NS_PER_S / 2);
	writers_stop(0);
	writers_close();
	cluster_close();
}
END_TEST

/* A slow disk is not silence. */
START_TEST(slow_is_not_apart)
{
	uint64_t was;

	cluster_open(350, 1);
	writers_start();
	sim_clock_run(T.world, 300 * NS_PER_MS);
	was = sim_box_conf(T.nodes[1].box)->sync_max_ns;
	sim_box_conf(T.nodes[1].box)->sync_max_ns = 3 * NS_PER_S;
	sim_clock_run(T.world, 10 * NS_PER_S);
	ck_assert_uint_eq(T.m.parted, 0);
	sim_box_conf(T.nodes[1].box)->sync_max_ns = was;
	writers_stop(0);
	writers_close();
	cluster_close();
}
END_TEST

static void
any_seed_run(uint64_t seed)
{
	struct sim_net_faults faults = { .delay_min_us = 30,
	    .delay_max_us = 300, .slow_ppm = 2000, .slow_us = 50000,
	    .break_ppm = 300 };

	cluster_open(seed, seed % 4 == 3 ? 2 : 1);
	sim_net_faults(T.net, &faults);
	for (unsigned i = 0; i < NODES; i++) {
		struct sim_disk_conf *d = sim_box_conf(T.nodes[i].box);

		d->write_max_ns = NS_PER_MS;
		d->sync_max_ns = 3 * NS_PER_MS;
		d->table.write_max_ns = 3 * NS_PER_MS;
	}
	writers_start();
	for (unsigned k = 0; k < 25; k++) {
		sim_clock_run(T.world, rand_below(&T.rand, NS_PER_S));
		fault();
		sim_clock_run(T.world, rand_below(&T.rand, NS_PER_S / 2));
		restart();
	}
	memset(&faults, 0, sizeof(faults));
	faults.delay_min_us = 50;
	faults.delay_max_us = 100;
	sim_net_faults(T.net, &faults);
	sim_net_heal(T.net);
	restart();
	writers_stop(seed);
	/* And once more after the power has failed everywhere. */
	for (unsigned i = 0; i < NODES; i++)
		host_down(&T.nodes[i], POWER);
	restart();
	sim_clock_run(T.world, 10 * NS_PER_S);
	wait_serving(NODES);
	for (uint32_t k = 0; k < CHUNKS; k++)
		check_chunk(k);
	for (unsigned i = 0; i < NODES; i++)
		for (unsigned k = 0; k < T.loops; k++)
			chunk_engine_check(storage_engine_at(
			    T.nodes[i].storage, k));
	writers_close();
	cluster_close();
}

static uint64_t
env_number(const char *name, uint64_t other)
{
	const char *s = getenv(name);

	return s != NULL && *s != '\0' ? strtoull(s, NULL, 0) : other;
}

START_TEST(any_seed)
{
	uint64_t first = env_number("SEED", 0), n = env_number("N", 0);

	if (n == 0)
		n = first != 0 ? 1 : 8;
	if (first == 0)
		first = 1;
	for (uint64_t s = first; s < first + n; s++) {
		if (n > 20 || getenv("VERBOSE") != NULL)
			fprintf(stderr, "seed %llu\n", (unsigned long long)s);
		any_seed_run(s);
	}
	if (n > 20 || getenv("VERBOSE") != NULL)
		fprintf(stderr, "writes %u reads %u\n", total_done, total_reads);
	ck_assert_uint_gt(total_done, 10 * n);
	ck_assert_uint_gt(total_reads, 10 * n);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("faults");

	tcase_set_timeout(tc, 600);
	tcase_add_loop_test(tc, one_leaves, 0, 6);
	tcase_add_loop_test(tc, neighbours_apart, 0, sizeof(cuts) / sizeof(cuts[0]));
	tcase_add_test(tc, slow_is_not_apart);
	tcase_add_test(tc, any_seed);
	return suite_run("storage_chain", tc);
}
