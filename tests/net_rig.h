/* SPDX-License-Identifier: MIT */
/* net_rig.h - a client and a server hub over one of the transports, for tests that must
 * hold on all of them.  Static functions: each test is one program. */
#ifndef TESTS_NET_RIG_H
#define TESTS_NET_RIG_H

#ifdef RIG_NO_CHECK			/* fuzzers are not linked with it */
#include <assert.h>
#define ck_assert_int_eq(a, b)	assert((a) == (b))
#define ck_assert_uint_eq(a, b)	assert((a) == (b))
#define ck_assert_msg(c, ...)	assert(c)
#else
#include <check.h>
#endif
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/call.h"
#include "net/local.h"
#include "net/loop.h"
#include "net/msg_all.h"
#include "net/rdma.h"
#include "net/serve.h"
#include "net/tcp.h"
#include "tests/sim/clock.h"
#include "tests/sim/net.h"

/* The last two need a device: RDMA with payloads in memory that it does not know, which are
 * sent and copied, and in memory that it knows. */
enum rig_kind { RIG_SIM, RIG_SIM_ONE_SIDED, RIG_LOCAL, RIG_TCP, RIG_RDMA, RIG_ONE_SIDED,
	RIG_KINDS };

/* What rdma.devices says to the client, to the server. */
static const char *rig_devices[2];

static const char *const rig_names[] = { "sim", "sim one-sided", "local", "tcp", "rdma",
	"one-sided" };

static inline bool
rig_simulated(int kind)
{
	return kind <= RIG_SIM_ONE_SIDED;
}

/* Payloads go straight between the memories of both ends, but for a few when simulated. */
static inline bool
rig_one_sided(int kind)
{
	return kind == RIG_SIM_ONE_SIDED || kind == RIG_ONE_SIDED;
}

/* Those that can be tested here, from the first up to but not the end.  FSD_TEST_RDMA=1
 * says that there is a device, =only that nothing else is wanted. */
static inline int
rig_first(void)
{
	const char *rdma = getenv("FSD_TEST_RDMA");

	return rdma != NULL && strcmp(rdma, "only") == 0 ? RIG_RDMA : RIG_SIM;
}

static inline int
rig_kinds(void)
{
	return getenv("FSD_TEST_RDMA") != NULL ? RIG_KINDS : RIG_RDMA;
}

struct rig {
	enum rig_kind	  kind;
	struct sim_clock *world;
	struct sim_net	 *net;
	struct loop	 *loop;
	struct clock	 *cclock, *sclock;	/* the client's, the server's */
	struct rand	  rand, nonces;
	struct log	  log;
	struct net_hub_conf hub_conf;
	struct net_hub	 *chub, *shub;
	struct net_transport *rdma[2];	/* of the client, of the server */
	struct net_rdma_load *load;	/* of hubs to come; NULL: each has its own */
	struct net_server *server;
	struct net_server_conf conf;
	struct net_addr	  addr;
	char		  logged[4096];
};

static void
rig_log(void *ctx, enum log_level level, const char *who, const char *what,
    const char *fields)
{
	struct rig *r = ctx;
	size_t n = strlen(r->logged);

	(void)level;
	(void)who;
	snprintf(r->logged + n, sizeof(r->logged) - n, "%s %s\n", what, fields);
}

static void
rig_nonce(void *ctx, void *out, size_t n)
{
	rand_bytes(ctx, out, n);
}

static struct net_hub *
rig_hub(struct rig *r, struct clock *clock, uint32_t node)
{
	struct net_hub_conf conf = r->hub_conf;
	struct net_transport *t = NULL;
	struct net_hub *hub;

	conf.clock = clock;
	ck_assert_int_eq(net_hub_open(&hub, &conf), 0);
	if (rig_simulated(r->kind))
		t = sim_net_transport(r->net, node, 0, clock);
	else if (r->kind == RIG_LOCAL)
		ck_assert_int_eq(net_local_open(&t, clock), 0);
	else
		ck_assert_int_eq(net_tcp_open(&t, r->loop, &r->log, NULL), 0);
	net_hub_add(hub, t);
	if (r->kind >= RIG_RDMA) {
		struct net_rdma_conf rdma = { .credits = 16, .load = r->load,
		    .traffic_class = 104, .service_level = 3,
		    .devices = node <= 2 ? rig_devices[node - 1] : NULL,
		    .own_receives = getenv("FSD_TEST_OWN_RECEIVES") != NULL };

		ck_assert_int_eq(net_rdma_open(&t, r->loop, &r->log, &rdma), 0);
		net_hub_add(hub, t);
		if (node <= 2)
			r->rdma[node - 1] = t;
	}
	return hub;
}

static void
rig_serve(struct rig *r, net_serve_fn *fn, void *ctx)
{
	struct net_server_conf conf = r->conf;

	conf.hub = r->shub;
	conf.listen = r->addr;
	ck_assert_int_eq(net_server_open(&r->server, &conf), 0);
	net_server_handle(r->server, 0x03, fn, ctx);
	net_server_addr(r->server, &r->addr);
}

/* Both hubs; no server yet. */
static void
rig_open(struct rig *r, enum rig_kind kind, uint64_t seed)
{
	memset(r, 0, sizeof(*r));
	r->kind = kind;
	rand_seed(&r->rand, seed);
	rand_seed(&r->nonces, seed + 1);
	log_init(&r->log, "rig");
	r->log.sink = rig_log;
	r->log.ctx = r;
	if (rig_simulated(kind)) {
		r->world = sim_clock_open();
		r->net = sim_net_open(sim_clock_world(r->world), seed);
		sim_net_device(r->net, 1, kind == RIG_SIM_ONE_SIDED);
		sim_net_device(r->net, 2, kind == RIG_SIM_ONE_SIDED);
		r->cclock = sim_clock_node(r->world, 5 * NS_PER_S, 50);
		r->sclock = sim_clock_node(r->world, 1 * NS_PER_S, -50);
		net_addr_parse("sim:2:0", 7, &r->addr, NULL);
	} else {
		ck_assert_int_eq(loop_open(&r->loop), 0);
		r->cclock = r->sclock = loop_clock(r->loop);
		if (kind == RIG_LOCAL)
			net_addr_parse("local:7", 7, &r->addr, NULL);
		else
			net_addr_parse("127.0.0.1:0", 11, &r->addr, NULL);
	}
	r->hub_conf = (struct net_hub_conf){
		.rand = &r->rand, .log = &r->log, .nonce = rig_nonce,
		.nonce_ctx = &r->nonces, .calls_max = 4096, .idle_ms = 60000
	};
	memset(r->hub_conf.key, 7, sizeof(r->hub_conf.key));
	r->conf = (struct net_server_conf){
		.conns_max = 100, .reqs_max = 2048, .conn_reqs_max = 2048,
		.hello_ms = 2000, .payload_ms = 5000
	};
	r->chub = rig_hub(r, r->cclock, 1);
	r->shub = rig_hub(r, r->sclock, 2);
}

static void
rig_close(struct rig *r)
{
	net_server_close(r->server);
	net_hub_close(r->chub);
	net_hub_close(r->shub);
	if (rig_simulated(r->kind)) {
		ck_assert_uint_eq(sim_clock_node_pending(r->cclock), 0);
		ck_assert_uint_eq(sim_clock_node_pending(r->sclock), 0);
		sim_net_close(r->net);
		sim_clock_close(r->world);
	} else {
		loop_close(r->loop);
	}
}

/* One small step; false: nothing is going on. */
static inline bool
rig_step(struct rig *r, bool wait)
{
	if (rig_simulated(r->kind))
		return sim_clock_step(r->world);
	loop_turn(r->loop, wait);
	return true;
}

struct rig_guard {
	struct clock_timer t;
	bool late;
};

static inline void
rig_late(struct clock_timer *t)
{
	container_of(t, struct rig_guard, t)->late = true;
}

/* Until *n reaches @at_least; fails the test after a while (20 s of the client's clock). */
static inline void
rig_until(struct rig *r, const unsigned *n, unsigned at_least)
{
	struct rig_guard g = { .late = false };

	clock_timer_start(r->cclock, &g.t, clock_now(r->cclock) + 20 * NS_PER_S,
	    rig_late);
	while (*n < at_least && !g.late)
		if (!rig_step(r, true))
			break;
	clock_timer_stop(r->cclock, &g.t);
	ck_assert_msg(*n >= at_least, "%s: %u of %u\n%s", rig_names[r->kind], *n,
	    at_least, r->logged);
}

/* Let @ms pass. */
static inline void
rig_pass(struct rig *r, unsigned ms)
{
	struct rig_guard g = { .late = false };

	if (rig_simulated(r->kind)) {
		sim_clock_run(r->world, ms * NS_PER_MS);
		return;
	}
	loop_turn(r->loop, false);
	clock_timer_start(r->cclock, &g.t, clock_now(r->cclock) + ms * NS_PER_MS,
	    rig_late);
	while (!g.late)
		loop_turn(r->loop, true);
}

#endif
