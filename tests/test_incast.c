/* SPDX-License-Identifier: MIT */
/* test_incast.c - 200 servers answer one client through a switch (tests/switch_rig.h), with
 * and without the client's window: how deep the queue in front of it gets, what is lost
 * there, and when all is done.  The calls, the servers and the window are what programs run;
 * time and network are simulated, so every run is the same. */
#include <check.h>
#include <stdio.h>

#include "conf/err.h"
#include "conf/rand.h"
#include "net/msg_all.h"
#include "net/serve.h"
#include "tests/suite.h"
#include "tests/switch_rig.h"

#define KIB		(1u << 10)
#define MIB		(1u << 20)
#define SERVERS		200u
#define CALLS		16u		/* to each, all at once */
#define BYTES		(128 * KIB)	/* of each reply */
#define RATE		12500u		/* bytes/us: 100 Gbit/s, all links */
#define DELAY_NS	12500u		/* a packet: 25 us, there and back 50 */
#define DISK_MIN_NS	(200 * NS_PER_US)
#define DISK_MORE_NS	(800 * NS_PER_US)

struct server {
	struct net_hub	  *hub;
	struct net_server *server;
	struct net_addr	   addr;
	uint64_t	   got;		/* bytes the client has of it */
	uint64_t	   before;	/* of those, by when a quarter of all was there */
};

struct reading {			/* of a server's disk */
	struct clock_timer t;
	struct net_req	  *req;
};

struct ask {
	struct net_call	   call;
	struct server	  *from;
	struct iovec	   room;
	uint64_t	   start_ns;
};

struct result {
	uint64_t ns, peak, drops, timeouts, packets, asks, charged;
	unsigned unfair_percent;	/* farthest from the mean, without the first and the
					 * last quarter: then not all have something */
	uint64_t p99_ns;
};

static struct sim_clock *world;
static struct swt swt;
static struct rand rnd;
static struct net_hub *client;
static struct server servers[SERVERS];
static struct ask asks[SERVERS * CALLS];
static uint8_t *shelf, *floor_of;
static unsigned done, failed;
static uint64_t times[SERVERS * CALLS];
static struct result *now;

/* ---- servers ---- */

static void
sent(void *arg)
{
	(void)arg;
}

static void
was_read(struct clock_timer *t)
{
	struct reading *rd = container_of(t, struct reading, t);
	struct msg_fetch_rep rep = { .len = BYTES };
	struct net_piece p = { shelf, BYTES, 0 };

	if (rd->req->recv_len == 0)		/* the first one, to be connected */
		net_reply(rd->req, 0, &rep, NULL, 0, NULL, NULL);
	else
		net_reply(rd->req, 0, &rep, &p, 1, sent, NULL);
	free(rd);
}

static void
handler(void *ctx, struct net_req *req)
{
	struct reading *rd = swt_must(calloc(1, sizeof(*rd)));

	(void)ctx;
	rd->req = req;
	clock_timer_start(swt.clock, &rd->t, clock_now(swt.clock) + DISK_MIN_NS +
	    rand_below(&rnd, DISK_MORE_NS), was_read);
}

/* ---- the client ---- */

static void
look_at_fairness(void)
{
	uint64_t sum = 0, mean;

	for (unsigned i = 0; i < SERVERS; i++)
		sum += servers[i].got - servers[i].before;
	mean = sum / SERVERS;
	for (unsigned i = 0; i < SERVERS; i++) {
		uint64_t got = servers[i].got - servers[i].before;
		uint64_t off = got > mean ? got - mean : mean - got;

		if (off * 100 / mean > now->unfair_percent)
			now->unfair_percent = (unsigned)(off * 100 / mean);
	}
}

static void
answered(struct net_call *c, int rc)
{
	struct ask *a = container_of(c, struct ask, call);
	const struct net_hub_stat *st = net_hub_stats(client);

	failed += rc != 0;
	times[done++] = clock_now(swt.clock) - a->start_ns;
	a->from->got += c->rep_bulk;
	if (st->granted > now->charged)
		now->charged = st->granted;
	if (done == SERVERS * CALLS / 4)
		for (unsigned i = 0; i < SERVERS; i++)
			servers[i].before = servers[i].got;
	if (done == SERVERS * CALLS / 4 * 3)
		look_at_fairness();
}

static void
ask_one(struct ask *a, struct server *from, uint32_t room)
{
	struct msg_fetch m = { .chain = 1 };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(swt.clock) + 600 * NS_PER_S,
		.recv = &a->room, .recv_n = room > 0 };

	a->from = from;
	a->start_ns = clock_now(swt.clock);
	a->room = (struct iovec){ floor_of, room };
	ck_assert_int_eq(net_call_start(&a->call, client, &from->addr, MSG_fetch, &m,
	    &opts, answered), 0);
}

static bool
all_done(void *ctx)
{
	return done >= *(unsigned *)ctx;
}

static void
ask_all(unsigned calls, uint32_t room)
{
	unsigned want = SERVERS * calls;

	done = 0;
	for (unsigned i = 0; i < want; i++)
		ask_one(&asks[i], &servers[i % SERVERS], room);
	ck_assert(sim_clock_run_until(world, all_done, &want, 600 * NS_PER_S));
	ck_assert_uint_eq(failed, 0);
}

static int
by_time(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void
run(struct result *r, uint64_t queue_max, uint64_t window)
{
	uint64_t begin;

	memset(r, 0, sizeof(*r));
	memset(servers, 0, sizeof(servers));
	memset(asks, 0, sizeof(asks));
	now = r;
	failed = 0;
	rand_seed(&rnd, 1);
	world = sim_clock_open();
	swt_init(&swt, sim_clock_world(world), RATE, DELAY_NS, queue_max);
	client = swt_hub(&swt, 0, &rnd, SERVERS * CALLS, window);
	for (unsigned i = 0; i < SERVERS; i++) {
		struct server *s = &servers[i];
		struct net_server_conf conf = {
			.listen = { .kind = NET_ADDR_SIM, .id = i + 1 },
			.conns_max = 8, .reqs_max = 64, .conn_reqs_max = 64,
			.hello_ms = 60000, .payload_ms = 60000 };

		conf.hub = s->hub = swt_hub(&swt, i + 1, &rnd, SERVERS * CALLS, 0);
		ck_assert_int_eq(net_server_open(&s->server, &conf), 0);
		net_server_handle(s->server, MSG_fetch >> 8, handler, NULL);
		s->addr = conf.listen;
	}
	ask_all(1, 0);
	swt.peak = swt.drops = swt.timeouts = swt.packets = 0;
	begin = clock_now(swt.clock);
	ask_all(CALLS, BYTES);
	r->ns = clock_now(swt.clock) - begin;
	r->peak = swt.peak;
	r->drops = swt.drops;
	r->timeouts = swt.timeouts;
	r->packets = swt.packets;
	r->asks = net_hub_stats(client)->asks;
	qsort(times, done, sizeof(times[0]), by_time);
	r->p99_ns = times[done * 99 / 100];
	net_hub_close(client);
	for (unsigned i = 0; i < SERVERS; i++) {
		net_server_close(servers[i].server);
		net_hub_close(servers[i].hub);
	}
	swt_fini(&swt);
	sim_clock_close(world);
}

static void
print(const char *what, uint64_t window, const struct result *r)
{
	printf("%-28s window %5llu KiB: %9.3f ms, p99 %9.3f ms, queue at most %7llu KiB, "
	    "lost %6llu of %llu packets, %5llu time-outs, %4llu asked, off by %u %%\n", what,
	    (unsigned long long)window / KIB, (double)r->ns / 1e6, (double)r->p99_ns / 1e6,
	    (unsigned long long)r->peak / KIB, (unsigned long long)r->drops,
	    (unsigned long long)r->packets, (unsigned long long)r->timeouts,
	    (unsigned long long)r->asks, r->unfair_percent);
	fflush(stdout);
}

static const struct {
	const char *what;
	uint64_t    queue_max, window;
	unsigned    faster;		/* at least so many times, with the window */
} cases[] = {
	{ "a port of 1 MiB", MIB, MIB, 2 },
	{ "a port of 4 MiB", 4 * MIB, 4 * MIB, 2 },
	{ "a port of 16 MiB", 16 * MIB, 16 * MIB, 1 },
	{ "lossless", 0, 4 * MIB, 0 }
};

START_TEST(two_hundred_to_one)
{
	uint64_t ideal = (uint64_t)SERVERS * CALLS * BYTES * 1000 / RATE;
	struct result without, with;

	run(&without, cases[_i].queue_max, 0);
	print(cases[_i].what, 0, &without);
	run(&with, cases[_i].queue_max, cases[_i].window);
	print(cases[_i].what, cases[_i].window, &with);
	/* What is under way is never more than the window, but for heads. */
	ck_assert_uint_le(with.charged, cases[_i].window);
	ck_assert_uint_le(with.peak, cases[_i].window + cases[_i].window / 64);
	ck_assert_uint_lt(with.peak, without.peak + 1);
	ck_assert_uint_eq(with.drops, 0);
	ck_assert_uint_eq(with.timeouts, 0);
	ck_assert_uint_le(with.unfair_percent, 20);
	/* And the link is kept busy by it. */
	ck_assert_uint_le(with.ns, ideal + ideal / 4);
	ck_assert_uint_gt(with.asks, 0);
	if (cases[_i].queue_max != 0)
		ck_assert_uint_gt(without.drops, 0);
	ck_assert_uint_ge(without.ns, cases[_i].faster * with.ns);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("all");
	int rc;

	shelf = swt_must(calloc(1, BYTES));
	floor_of = swt_must(calloc(1, BYTES));
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, two_hundred_to_one, 0, (int)(sizeof(cases) / sizeof(cases[0])));
	rc = suite_run("incast", t);
	free(shelf);
	free(floor_of);
	return rc;
}
