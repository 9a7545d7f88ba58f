/* SPDX-License-Identifier: MIT */
/* test_crowd.c - 64 clients read from one server that has less memory than they ask for, through
 * a network that is simulated packet by packet (tests/switch_rig.h): how much each of them
 * gets when some ask for ten times more, for larger pieces, or take what they get slowly; and
 * how much memory replies hold.  The calls and the server are what programs run; time, disk
 * and network are simulated, so every run is the same. */
#include <check.h>
#include <stdio.h>

#include "conf/err.h"
#include "conf/rand.h"
#include "net/msg_all.h"
#include "net/serve.h"
#include "tests/suite.h"
#include "tests/switch_rig.h"

#define MIB		(1u << 20)
#define CLIENTS		64u
#define OTHERS		8u		/* of them, that are not as the rest */
#define DEPTH		16u		/* calls of each at once */
#define SERVER		1000u		/* its host */
#define REPLIES_MAX	(160u * MIB)	/* as with storage.memory = 256 MiB */
#define REQS_MAX	8192u		/* as net.requests_max has it */
#define CONN_REQS_MAX	1024u
#define RECEIVE_WINDOW	(32u * MIB)
#define RATE		12500u		/* bytes/us: 100 Gbit/s */
#define DELAY_NS	12500u
#define SEEK_NS		(100 * NS_PER_US)
#define PAUSE_NS	(5 * NS_PER_MS)	/* of who was told to come again */
#ifdef __SANITIZE_ADDRESS__		/* which makes it three times slower */
#define CASES		3
#else
#define CASES		(int)(sizeof(cases) / sizeof(cases[0]))
#endif

struct crowd_case {
	const char *what;
	unsigned    disk_rate;		/* bytes/us */
	unsigned    depth;		/* of the others */
	uint32_t    bytes;		/* of each of their calls */
	unsigned    rate;		/* bytes/us of their ports; 0: as all */
	unsigned    more, less;		/* percent: what they may have beside the rest */
};

struct asker;

struct ask {
	struct net_call	   call;
	struct asker	  *by;
	struct iovec	   room;
	struct clock_timer pause;
};

struct asker {
	struct net_hub *hub;
	struct ask     *asks;
	unsigned	depth;
	uint32_t	bytes;
	uint64_t	got, refused;	/* while it counts */
};

struct reading {
	struct clock_timer t;
	struct net_req	  *req;
	uint32_t	   bytes;
};

static struct sim_clock *world;
static struct swt swt;
static struct rand rnd;
static struct asker askers[CLIENTS];
static struct net_addr server_addr = { .kind = NET_ADDR_SIM, .id = SERVER };
static const struct crowd_case *now;
static uint8_t *shelf, *floor_of;
static uint64_t disk_free_ns, lent, lent_peak;
static bool counts, over;
static unsigned active;

/* ---- the server: one disk, requests in the order in which they come ---- */

static void
sent(void *arg)
{
	struct reading *rd = arg;

	lent -= rd->bytes;
	free(rd);
}

static void
was_read(struct clock_timer *t)
{
	struct reading *rd = container_of(t, struct reading, t);
	struct msg_fetch_rep rep = { .len = rd->bytes };
	struct net_piece p = { shelf, rd->bytes, 0 };

	net_reply(rd->req, 0, &rep, &p, 1, sent, rd);
}

static void
handler(void *ctx, struct net_req *req)
{
	struct reading *rd = swt_must(calloc(1, sizeof(*rd)));
	uint64_t begin = clock_now(swt.clock);

	(void)ctx;
	rd->req = req;
	rd->bytes = req->recv_len;
	if ((lent += rd->bytes) > lent_peak)
		lent_peak = lent;
	if (disk_free_ns < begin)
		disk_free_ns = begin;
	disk_free_ns += rd->bytes * 1000ull / now->disk_rate;
	clock_timer_start(swt.clock, &rd->t, disk_free_ns + SEEK_NS, was_read);
}

/* ---- clients ---- */

static void ask_one(struct ask *a);

static void
paused(struct clock_timer *t)
{
	ask_one(container_of(t, struct ask, pause));
}

static void
answered(struct net_call *c, int rc)
{
	struct ask *a = container_of(c, struct ask, call);
	struct asker *by = a->by;

	ck_assert(rc == 0 || rc == ERR_BUSY);
	if (over) {
		active--;
	} else if (rc == ERR_BUSY) {
		by->refused += counts;
		clock_timer_start(swt.clock, &a->pause, clock_now(swt.clock) + PAUSE_NS +
		    rand_below(&rnd, PAUSE_NS), paused);
	} else {
		by->got += counts ? c->rep_bulk : 0;
		ask_one(a);
	}
}

static void
ask_one(struct ask *a)
{
	struct msg_fetch m = { .chain = 1 };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(swt.clock) + 600 * NS_PER_S,
		.recv = &a->room, .recv_n = 1 };

	if (over) {
		active--;
		return;
	}
	a->room = (struct iovec){ floor_of, a->by->bytes };
	ck_assert_int_eq(net_call_start(&a->call, a->by->hub, &server_addr, MSG_fetch, &m,
	    &opts, answered), 0);
}

/* The farthest of askers from @first to @end from @mean, up and down, in percent. */
static void
look(unsigned first, unsigned end, uint64_t mean, unsigned *more, unsigned *less)
{
	*more = *less = 0;
	for (unsigned i = first; i < end; i++) {
		uint64_t got = askers[i].got;

		if (got > mean && (got - mean) * 100 / mean > *more)
			*more = (unsigned)((got - mean) * 100 / mean);
		if (got < mean && (mean - got) * 100 / mean > *less)
			*less = (unsigned)((mean - got) * 100 / mean);
	}
}

static bool
all_idle(void *ctx)
{
	(void)ctx;
	return active == 0;
}

static void
begin(const struct crowd_case *c)
{
	now = c;
	counts = over = false;
	disk_free_ns = lent = lent_peak = 0;
	active = 0;
	memset(askers, 0, sizeof(askers));
	rand_seed(&rnd, 1);
	world = sim_clock_open();
	swt_init(&swt, sim_clock_world(world), RATE, DELAY_NS, 0);
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct asker *a = &askers[i];
		bool other = i < OTHERS;

		a->hub = swt_hub(&swt, i + 1, &rnd, REQS_MAX, RECEIVE_WINDOW);
		a->depth = other ? c->depth : DEPTH;
		a->bytes = other ? c->bytes : MIB;
		a->asks = swt_must(calloc(a->depth, sizeof(*a->asks)));
		if (other && c->rate != 0)
			swt.hosts[i + 1]->port_rate = c->rate;
	}
}

static void
ask_all(void)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		for (unsigned k = 0; k < askers[i].depth; k++) {
			askers[i].asks[k].by = &askers[i];
			active++;
			ask_one(&askers[i].asks[k]);
		}
}

static void
end(struct net_server *server, struct net_hub *hub)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		net_hub_close(askers[i].hub);
		free(askers[i].asks);
	}
	net_server_close(server);
	net_hub_close(hub);
	swt_fini(&swt);
	sim_clock_close(world);
}

/* A piece of 4 MiB is more than a part of the memory: who asks for such has a bit more.  Who
 * asks for more than his own window holds has less: one server keeps half of it at most, and
 * the calls that took their part when they were sent wait behind others.  Who asks for more
 * than the server lets him is told to come again, and waits. */
static const struct crowd_case cases[] = {
	{ "all alike",                    2 * RATE, DEPTH,      MIB,     0,          20, 20 },
	{ "all alike, a slow disk",       RATE / 4, DEPTH,      MIB,     0,          20, 20 },
	{ "some ask ten times as often",  2 * RATE, 10 * DEPTH, MIB,     0,          20, 20 },
	{ "the same, a slow disk",        RATE / 4, 10 * DEPTH, MIB,     0,          20, 20 },
	{ "some want four times as much", 2 * RATE, DEPTH,      4 * MIB, 0,          35, 20 },
	{ "some ask for more than all",   2 * RATE, 2048,       MIB,     0,          20, 80 },
	{ "some have slow links",         2 * RATE, DEPTH,      MIB,     RATE / 500, 20, 95 },
};

START_TEST(each_gets_as_much)
{
	const struct crowd_case *c = &cases[_i];
	struct net_server *server;
	struct net_server_conf conf = { .listen = server_addr, .conns_max = 2 * CLIENTS,
		.reqs_max = REQS_MAX, .conn_reqs_max = CONN_REQS_MAX,
		.replies_max = REPLIES_MAX, .hello_ms = 60000, .payload_ms = 60000 };
	unsigned more, less, their_more, their_less;
	uint64_t sum = 0, mean = 0, refused = 0, speed, ns = 200 * NS_PER_MS;

	begin(c);
	conf.hub = swt_hub(&swt, SERVER, &rnd, REQS_MAX, 0);
	ck_assert_int_eq(net_server_open(&server, &conf), 0);
	net_server_handle(server, MSG_fetch >> 8, handler, NULL);
	ask_all();
	sim_clock_run(world, 100 * NS_PER_MS);
	counts = true;
	if (c->disk_rate < RATE)
		ns *= RATE / c->disk_rate;
	sim_clock_run(world, ns);
	counts = false;
	over = true;
	for (unsigned i = 0; i < CLIENTS; i++)
		sum += askers[i].got;
	for (unsigned i = OTHERS; i < CLIENTS; i++) {
		mean += askers[i].got / (CLIENTS - OTHERS);
		refused += askers[i].refused;
	}
	speed = sum * 1000 / ns;
	ck_assert_uint_gt(mean, 0);
	look(OTHERS, CLIENTS, mean, &more, &less);
	look(0, OTHERS, mean, &their_more, &their_less);
	printf("%-29s %5llu MB/s, %3llu MiB lent, from -%u to +%u %%, the few from -%u to +%u %%\n",
	    c->what, (unsigned long long)speed, (unsigned long long)lent_peak / MIB,
	    less, more, their_less, their_more);
	fflush(stdout);
	ck_assert(less <= 20 && more <= 20);
	ck_assert(their_less <= c->less && their_more <= c->more);
	/* Who came first may have had most of what there is, until it was answered. */
	if (c->depth <= CONN_REQS_MAX)
		ck_assert_uint_eq(refused, 0);
	ck_assert_uint_le(lent_peak, REPLIES_MAX);
	/* And what is slowest is kept busy. */
	ck_assert_uint_ge(speed, (c->disk_rate < RATE ? c->disk_rate : RATE) / 10 * 9);
	ck_assert(sim_clock_run_until(world, all_idle, NULL, 600 * NS_PER_S));
	sim_clock_run(world, NS_PER_MS);	/* acknowledged, too */
	ck_assert_uint_eq(lent, 0);
	end(server, conf.hub);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("all");
	int rc;

	shelf = swt_must(calloc(1, 4 * MIB));
	floor_of = swt_must(calloc(1, 4 * MIB));
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, each_gets_as_much, 0, CASES);
	rc = suite_run("crowd", t);
	free(shelf);
	free(floor_of);
	return rc;
}
