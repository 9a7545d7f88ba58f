/* SPDX-License-Identifier: MIT */
/* manager_rig.h - the manager over simulated time and disks, for its tests.  The network is
 * this file: requests are handed to the handler, answers are kept as bytes. */
#ifndef TESTS_MANAGER_RIG_H
#define TESTS_MANAGER_RIG_H

#include "roles/manager.h"

#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "meta/group.h"
#include "net/msg_all.h"
#include "net/routing.h"
#include "net/serve.h"
#include "tests/sim/clock.h"
#include "tests/sim/disk.h"
#include "tests/suite.h"

#define ASKS_MAX 4096u

/* One request and its answer. */
struct ask {
	struct net_req	 req;
	bool		 done, dropped;
	int		 rc;
	uint8_t		*bytes;		/* of the reply */
	struct msg_arena arena;
	union {
		struct msg_register_rep reg;
		struct msg_beat_rep beat;
		struct msg_routing_rep routing;
		struct msg_client_beat_rep client_beat;
		struct msg_clients_rep clients;
		struct msg_status_rep status;
		struct msg_config_rep config;
	} rep;
};

static struct {
	struct rand	  rand, disk_rand;
	struct sim_clock *world;
	struct sim_box	 *box;
	struct clock	 *clock;
	struct conf	  conf;
	struct manager	 *m;
	net_serve_fn	 *serve;
	void		 *serve_ctx;
	bool		  drained, server_open;
	bool		  ready, stopped;
	int		  ready_rc;
	struct ask	 *asks[ASKS_MAX];
	unsigned	  ask_n;
	char		  said[256];	/* the last line about a replica */
	unsigned	  said_n;
} t;

#define NODES 8u

/* A storage node as the tests play it. */
static struct node {
	char		 name[16], addr[32];
	struct uid128	 uid, boot;
	struct msg_str	 addrs[1];
	struct msg_disk_info disks[4];
	struct msg_register reg;
	struct msg_beat	 beat;
	struct msg_goodbye bye;
	node_id		 id;
} nodes[NODES];

/* ---- the network ---- */

int
net_server_open(struct net_server **out, const struct net_server_conf *c)
{
	ck_assert_uint_gt(c->reqs_max, 0);
	*out = (struct net_server *)(void *)&t;
	t.server_open = true;
	t.drained = false;
	return 0;
}

void
net_server_handle(struct net_server *s, uint8_t service, net_serve_fn *fn, void *ctx)
{
	(void)s;
	if (service != 1) {
		ck_assert_uint_eq(service, GROUP_SERVICE);
		return;
	}
	t.serve = fn;
	t.serve_ctx = ctx;
}

void
net_server_addr(const struct net_server *s, struct net_addr *out)
{
	(void)s;
	ck_assert_int_eq(net_addr_parse("10.0.0.1:7700", 13, out, NULL), 0);
}

void
net_server_drain(struct net_server *s)
{
	(void)s;
	t.drained = true;
}

void
net_server_close(struct net_server *s)
{
	if (s != NULL)
		t.server_open = false;
	t.serve = NULL;
}

void
net_reply(struct net_req *req, int rc, const void *rep,
    const struct net_piece *pieces, unsigned n, net_sent_fn *sent, void *arg)
{
	static uint8_t buf[NET_MSG_MAX];
	struct ask *a = container_of(req, struct ask, req);
	const struct msg_type *type = msg_method(req->method)->reply;
	int len;

	ck_assert(!a->done && !a->dropped);
	ck_assert(pieces == NULL && n == 0 && sent == NULL && arg == NULL);
	a->done = true;
	a->rc = rc;
	if (rc != 0 || rep == NULL) {
		ck_assert_ptr_null(rep);
		return;
	}
	len = msg_encode(type, rep, buf, sizeof(buf));
	ck_assert_msg(len >= 0, "%s: answer too long", type->name);
	a->bytes = malloc((size_t)len + 1);
	memcpy(a->bytes, buf, (size_t)len);
	ck_assert_uint_le(type->size, sizeof(a->rep));
	ck_assert_int_eq(msg_decode(type, a->bytes, (size_t)len, &a->arena, &a->rep,
	    NULL), 0);
}

void
net_req_drop(struct net_req *req)
{
	struct ask *a = container_of(req, struct ask, req);

	ck_assert(!a->done && !a->dropped);
	a->dropped = true;
}

/* Hand a request to the manager; @msg must stay until it is answered. */
static struct ask *
ask(uint16_t method, const void *msg)
{
	struct ask *a = calloc(1, sizeof(*a));

	ck_assert_uint_lt(t.ask_n, ASKS_MAX);
	t.asks[t.ask_n++] = a;
	msg_arena_init(&a->arena, 64u << 20);
	a->req.method = method;
	a->req.msg = msg;
	a->req.deadline_ns = clock_now(t.clock) + 30 * NS_PER_S;
	t.serve(t.serve_ctx, &a->req);
	return a;
}

static bool
is_done(void *ctx)
{
	return ((struct ask *)ctx)->done;
}

/* The same, and wait for the answer. */
static struct ask *
call(uint16_t method, const void *msg)
{
	struct ask *a = ask(method, msg);

	ck_assert(sim_clock_run_until(t.world, is_done, a, 60 * NS_PER_S));
	return a;
}

static void
forget_asks(void)
{
	for (unsigned i = 0; i < t.ask_n; i++) {
		msg_arena_fini(&t.asks[i]->arena);
		free(t.asks[i]->bytes);
		free(t.asks[i]);
	}
	t.ask_n = 0;
}

/* ---- the world ---- */

static void
random_bytes(void *ctx, void *out, size_t n)
{
	(void)ctx;
	rand_bytes(&t.rand, out, n);
}

static int
dir(void *ctx, const char *path, bool create, struct disk_dir **out)
{
	(void)ctx;
	return sim_disk_dir(t.box, t.clock, path, create, out);
}

static void
on_ready(void *ctx, int rc)
{
	(void)ctx;
	ck_assert(!t.ready);
	t.ready = true;
	t.ready_rc = rc;
}

static inline void
on_stopped(void *ctx, int rc)
{
	(void)ctx;
	ck_assert_int_eq(rc, 0);
	manager_close(t.m);
	t.m = NULL;
	t.stopped = true;
}

static void
quiet(void *ctx, enum log_level level, const char *who, const char *what,
    const char *fields)
{
	(void)ctx, (void)level;
	if (strncmp(what, "replica ", 8) == 0) {
		snprintf(t.said, sizeof(t.said), "%s %s", what, fields);
		t.said_n++;
	}
	if (getenv("TRACE") != NULL)
		printf("[%6llu] %s: %s %s\n", (unsigned long long)
		    (sim_clock_now(t.world) / NS_PER_MS), who, what, fields);
}

static void
begin(void)
{
	struct role_env env = { .rand = &t.rand, .conf = &t.conf,
		.random = random_bytes, .dir = dir };
	struct net_addr addr;

	env.clock = t.clock = sim_clock_node(t.world, 0, 0);
	log_init(&env.log, "manager");
	env.log.sink = quiet;
	net_addr_parse("10.0.0.1:7700", 13, &addr, NULL);
	t.ready = t.stopped = false;
	ck_assert_int_eq(manager_open(&t.m, &env, "m", &addr, NULL, 0, on_ready,
	    NULL), 0);
	ck_assert(!t.ready);
}

static bool
is_ready(void *ctx)
{
	(void)ctx;
	return t.ready;
}

static void
start(void)
{
	begin();
	ck_assert(sim_clock_run_until(t.world, is_ready, NULL, 60 * NS_PER_S));
	ck_assert_int_eq(t.ready_rc, 0);
}

static void
crash(void)
{
	sim_clock_node_kill(t.clock);
	sim_disk_crash(t.box);
	manager_close(t.m);
	t.m = NULL;
	ck_assert(!t.server_open);
	sim_clock_node_close(t.clock);
	for (unsigned i = 0; i < t.ask_n; i++)
		ck_assert(t.asks[i]->done || t.asks[i]->dropped);
}

static void
setup_seed(uint64_t seed)
{
	memset(&t, 0, sizeof(t));
	memset(nodes, 0, sizeof(nodes));
	rand_seed(&t.rand, seed);
	rand_seed(&t.disk_rand, seed + 1000000);
	t.world = sim_clock_open();
	t.box = sim_box_open(&t.disk_rand);
	ck_assert_int_eq(conf_init(&t.conf), 0);
	t.conf.manager_log_size = 1u << 20;
	t.conf.manager_form_delay = 300;
	t.conf.manager_lease = 3000;
	t.conf.manager_beat = 500;
	t.conf.cluster_replicas = 3;
}

static void
setup(void)
{
	setup_seed(1);
	start();
}

static void
teardown(void)
{
	if (t.m != NULL)
		crash();
	forget_asks();
	sim_box_close(t.box);
	sim_clock_close(t.world);
	conf_fini(&t.conf);
}

static void
run_ms(uint64_t ms)
{
	sim_clock_run(t.world, ms * NS_PER_MS);
}

/* ---- nodes ---- */

static struct uid128
uid(unsigned kind, unsigned i, unsigned k)
{
	return (struct uid128){ { (uint8_t)kind, (uint8_t)(i + 1), (uint8_t)k } };
}

/* Node @i in its @boot-th process, with so many disks of so many slots. */
static struct node *
node(unsigned i, unsigned boot, unsigned disks, unsigned slots)
{
	struct node *n = &nodes[i];

	memset(n, 0, sizeof(*n));
	snprintf(n->name, sizeof(n->name), "n%u", i + 1);
	snprintf(n->addr, sizeof(n->addr), "10.0.1.%u:7710", i + 1);
	n->uid = uid(1, i, 0);
	n->boot = uid(2, i, boot);
	n->addrs[0] = msg_str(n->addr);
	for (unsigned d = 0; d < disks; d++)
		n->disks[d] = (struct msg_disk_info){ .disk = uid(3, i, d + 1),
			.path = msg_str("/data"), .capacity = 3000000, .used = 300,
			.targets = slots };
	n->reg = (struct msg_register){ .node_uid = n->uid, .boot = n->boot,
		.name = msg_str(n->name), .roles = NODE_STORAGE,
		.addrs = { n->addrs, 1 }, .disks = { n->disks, disks },
		.release = msg_str("0.1") };
	return n;
}

static int
register_node(struct node *n)
{
	struct ask *a = call(MSG_register, &n->reg);

	if (a->rc != 0)
		return a->rc;
	ck_assert_uint_eq(a->rep.reg.lease_ms, 3000);
	ck_assert_uint_eq(a->rep.reg.beat_ms, 500);
	ck_assert(!uid128_zero(&a->rep.reg.cluster));
	n->id = a->rep.reg.node;
	n->beat = (struct msg_beat){ .node = n->id, .boot = n->boot,
		.disks = n->reg.disks };
	n->bye = (struct msg_goodbye){ .node = n->id, .boot = n->boot };
	return 0;
}

static inline void
three_nodes(unsigned disks, unsigned slots)
{
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(register_node(node(i, 1, disks, slots)), 0);
}

/* Beat for @ms on behalf of the nodes whose bit is set. */
static inline void
beat_ms(uint64_t ms, unsigned who)
{
	for (uint64_t at = 0; at < ms; at += 500) {
		for (unsigned i = 0; i < NODES; i++)
			if (who & 1u << i)
				ck_assert_int_eq(call(MSG_beat,
				    &nodes[i].beat)->rc, 0);
		run_ms(500);
	}
}

/* All of routing, as a client sees it. */
static struct routing *
routing(void)
{
	static struct msg_routing all;
	struct routing *r;
	struct ask *a = call(MSG_routing, &all);

	ck_assert_int_eq(a->rc, 0);
	ck_assert_int_eq(routing_open(&r), 0);
	ck_assert_int_eq(routing_apply(r, &a->rep.routing), 0);
	routing_check(r);
	return r;
}

/* "1v1:1.5y9o ..." chains by nodes (serving, Last, sYncing, Waiting, Offline), "t1v1:1.2.3"
 * newest table, "1+ 2-" nodes. */
static inline const char *
shape(void)
{
	static char out[4096];
	struct routing *r = routing();
	const struct routing_chain *c;
	const struct routing_table *tab;
	const struct routing_node *n;
	char *p = out, *end = out + sizeof(out);

	*p = '\0';
	for (unsigned i = 0; (c = routing_chain_at(r, i)) != NULL; i++) {
		p += snprintf(p, (size_t)(end - p), "%uv%u:", c->id, c->version);
		for (unsigned k = 0; k < c->target_n; k++)
			p += snprintf(p, (size_t)(end - p), "%s%u%.1s",
			    k > 0 ? "." : "",
			    routing_target(r, c->targets[k])->node,
			    &"\0lywoa"[c->states[k] - 1]);
		p += snprintf(p, (size_t)(end - p), " ");
	}
	if ((tab = routing_table(r, 1, 0)) != NULL) {
		p += snprintf(p, (size_t)(end - p), "t%uv%u:", tab->id,
		    tab->version);
		for (unsigned k = 0; k < tab->chain_n; k++)
			p += snprintf(p, (size_t)(end - p), "%s%u",
			    k > 0 ? "." : "", tab->chains[k]);
		p += snprintf(p, (size_t)(end - p), " ");
	}
	for (unsigned i = 0; (n = routing_node_at(r, i)) != NULL; i++)
		p += snprintf(p, (size_t)(end - p), "%s%u%c", i > 0 ? " " : "",
		    n->id, n->state == NODE_UP ? '+' : '-');
	routing_close(r);
	return out;
}

/* The node whose replica is the tail says so. */
static inline int
synced(chain_id chain, uint32_t version, target_id target, const struct node *tail)
{
	struct msg_synced q = { .node = tail->id, .boot = tail->boot,
		.chain = chain, .version = version, .target = target };

	return call(MSG_synced, &q)->rc;
}

/* The nodes whose bit is set beat once. */
static void
beat(unsigned who)
{
	for (unsigned i = 0; i < NODES; i++)
		if (who & 1u << i)
			ck_assert_int_eq(call(MSG_beat, &nodes[i].beat)->rc, 0);
}

/* Register another process of a node while the others beat; -1: not answered yet. */
static inline int
restart(struct node *n, unsigned others)
{
	struct ask *a = ask(MSG_register, &n->reg);

	run_ms(1);
	beat(others);
	run_ms(50);
	if (!a->done)
		return -1;
	return a->rc == 0 ? register_node(n) : a->rc;
}

#endif
