/* SPDX-License-Identifier: MIT */
/* test_manager.c - the manager over simulated time and disks.  The network is this file:
 * it hands requests to the manager's handler and keeps what is answered, through the
 * codec.  N=n runs n seeds of crashes, SEED=n just that one. */
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

static void
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

static void
three_nodes(unsigned disks, unsigned slots)
{
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(register_node(node(i, 1, disks, slots)), 0);
}

/* Beat for @ms on behalf of the nodes whose bit is set. */
static void
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
static const char *
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
static int
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
static int
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

/* ---- chains ---- */

START_TEST(three_nodes_make_chains)
{
	struct routing *r;
	const struct routing_target *tg;

	three_nodes(1, 3);
	ck_assert_str_eq(shape(), "1+ 2+ 3+");	/* waits for more */
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v1:2.3.1 3v1:3.1.2 t1v1:1.2.3 "
	    "1+ 2+ 3+");
	r = routing();
	for (unsigned i = 0; (tg = routing_target_at(r, i)) != NULL; i++) {
		struct net_addr a, want;

		ck_assert_uint_ne(tg->chain, 0);
		ck_assert(uid128_eq(&tg->disk, &nodes[tg->node - 1].disks[0].disk));
		net_addr_parse(nodes[tg->node - 1].addr,
		    strlen(nodes[tg->node - 1].addr), &want, NULL);
		ck_assert_int_eq(routing_target_addr(r, tg->id, &a), 0);
		ck_assert(net_addr_eq(&a, &want));
	}
	routing_close(r);
}
END_TEST

START_TEST(late_disks_make_a_new_table)
{
	three_nodes(1, 1);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
	for (unsigned i = 3; i < 6; i++)
		ck_assert_int_eq(register_node(node(i, 1, 1, 1)), 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v1:4.5.6 t1v2:1.2 "
	    "1+ 2+ 3+ 4+ 5+ 6+");
	/* the old version of the table stays: files lie on it */
	struct routing *r = routing();
	ck_assert_uint_eq(routing_table(r, 1, 1)->chain_n, 1);
	routing_close(r);
}
END_TEST

START_TEST(no_wait_when_told_so)
{
	t.conf.manager_form_delay = 0;
	three_nodes(1, 1);
	run_ms(20);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
}
END_TEST

START_TEST(failed_disks_are_left_out)
{
	node(0, 1, 1, 1)->disks[0].failed = 1;
	ck_assert_int_eq(register_node(&nodes[0]), 0);
	for (unsigned i = 1; i < 4; i++)
		ck_assert_int_eq(register_node(node(i, 1, 1, 1)), 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:2.3.4 t1v1:1 1+ 2+ 3+ 4+");
}
END_TEST

START_TEST(many_chains)
{
	three_nodes(4, 64);
	run_ms(2000);
	struct routing *r = routing();
	ck_assert_ptr_nonnull(routing_chain_at(r, 255));
	ck_assert_ptr_null(routing_chain_at(r, 256));
	ck_assert_uint_eq(routing_table(r, 1, 0)->chain_n, 256);
	ck_assert_uint_eq(routing_table(r, 1, 0)->version, 1);
	routing_close(r);
}
END_TEST

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
	ck_assert_int_eq(synced(1, 3, 2, &nodes[2]), 0);
	ck_assert_str_eq(shape(), "1v4:1.3.2 t1v1:1 1+ 2+ 3+");
	ck_assert_int_eq(synced(1, 3, 2, &nodes[2]), 0);	/* again */
	ck_assert_str_eq(shape(), "1v4:1.3.2 t1v1:1 1+ 2+ 3+");
}
END_TEST

static const struct msg_sync_status *
hold_row(void)
{
	const struct msg_status_rep *rep = &call(MSG_status, NULL)->rep.status;

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
		char want[64];

		ck_assert_int_eq(call(MSG_synced, &q)->rc, 0);
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

/* An operator, or fsd check, has a replica compared with the others again. */
START_TEST(a_replica_is_compared_again)
{
	struct msg_chain_resync q = { .chain = 9, .target = 1 };

	three_nodes(1, 1);
	run_ms(1000);
	ck_assert_int_eq(call(MSG_chain_resync, &q)->rc, -ENOENT);
	q.chain = 1;
	q.target = 9;
	ck_assert_int_eq(call(MSG_chain_resync, &q)->rc, -ENOENT);
	q.target = 2;
	q.version = 7;
	ck_assert_int_eq(call(MSG_chain_resync, &q)->rc, ERR_STALE_CHAIN);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
	q.version = 1;
	ck_assert_int_eq(call(MSG_chain_resync, &q)->rc, 0);
	ck_assert_str_eq(shape(), "1v2:1.3.2y t1v1:1 1+ 2+ 3+");
	q.version = 0;
	ck_assert_int_eq(call(MSG_chain_resync, &q)->rc, -EBUSY);
	q.target = 1;
	ck_assert_int_eq(call(MSG_chain_resync, &q)->rc, -EBUSY);
	ck_assert_int_eq(synced(1, 2, 2, &nodes[2]), 0);
	ck_assert_str_eq(shape(), "1v3:1.3.2 t1v1:1 1+ 2+ 3+");
}
END_TEST

static int
accept_loss(chain_id chain, target_id target)
{
	struct msg_chain_accept q = { .chain = chain, .target = target };

	return call(MSG_chain_accept, &q)->rc;
}

START_TEST(loss_is_accepted)
{
	three_nodes(1, 1);
	run_ms(1000);
	beat_ms(5000, 4);
	beat_ms(5000, 0);
	ck_assert_str_eq(shape(), "1v3:3l.1o.2o t1v1:1 1- 2- 3-");
	ck_assert_int_eq(accept_loss(1, 1), -EBUSY);	/* gone too */
	ck_assert_int_eq(register_node(node(0, 2, 1, 1)), 0);
	ck_assert_int_eq(register_node(node(1, 2, 1, 1)), 0);
	ck_assert_str_eq(shape(), "1v5:3l.1w.2w t1v1:1 1+ 2+ 3-");
	ck_assert_int_eq(accept_loss(1, 3), -EBUSY);
	ck_assert_int_eq(accept_loss(1, 9), -ENOENT);
	ck_assert_int_eq(accept_loss(9, 1), -ENOENT);
	ck_assert_int_eq(accept_loss(1, 2), 0);
	ck_assert_str_eq(shape(), "1v6:2.1y.3o t1v1:1 1+ 2+ 3-");
	ck_assert_int_eq(accept_loss(1, 2), -EBUSY);
	ck_assert_int_eq(register_node(node(2, 2, 1, 1)), 0);
	ck_assert_str_eq(shape(), "1v7:2.1y.3w t1v1:1 1+ 2+ 3+");
}
END_TEST

static int
replace(const struct uid128 *disk, const struct uid128 *with)
{
	struct msg_disk_replace q = { .disk = *disk, .with = *with };

	return call(MSG_disk_replace, &q)->rc;
}

static target_id
routing_target_on(chain_id chain, node_id node)
{
	struct routing *r = routing();
	const struct routing_chain *c = routing_chain(r, chain);
	target_id id = 0;

	for (unsigned i = 0; i < c->target_n; i++)
		if (routing_target(r, c->targets[i])->node == node)
			id = c->targets[i];
	routing_close(r);
	return id;
}

START_TEST(a_disk_is_replaced)
{
	struct uid128 none = uid(3, 7, 7);
	struct ask *a;

	three_nodes(1, 2);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v1:2.3.1 t1v1:1.2 1+ 2+ 3+");
	nodes[1].disks[0].failed = 1;
	beat(2);
	run_ms(50);
	/* a box comes with a new disk; one is too small, one is in use */
	node(3, 1, 3, 2)->disks[1].targets = 1;
	nodes[3].disks[2].failed = 1;
	ck_assert_int_eq(register_node(&nodes[3]), 0);
	run_ms(1000);
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &none), -ENOENT);
	ck_assert_int_eq(replace(&none, &nodes[3].disks[0].disk), -ENOENT);
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[1].disks[0].disk),
	    -EEXIST);
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[3].disks[1].disk),
	    -ENOSPC);
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[3].disks[2].disk),
	    -EIO);
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[0].disks[0].disk),
	    -ENOSPC);
	ck_assert_int_eq(replace(&nodes[3].disks[1].disk, &nodes[3].disks[0].disk),
	    -EALREADY);
	ck_assert_str_eq(shape(), "1v2:1.3.2o 2v2:3.1.2o t1v1:1.2 1+ 2+ 3+ 4+");
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[3].disks[0].disk),
	    0);
	ck_assert_str_eq(shape(), "1v3:1.3.4y 2v3:3.1.4y t1v1:1.2 1+ 2+ 3+ 4+");
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[3].disks[0].disk),
	    -EALREADY);
	/* what is on the old one counts for nothing, come what may */
	nodes[1].disks[0].failed = 0;
	beat(2);
	run_ms(50);
	ck_assert_int_eq(restart(node(1, 2, 1, 2), 13), 0);
	crash();
	start();
	a = call(MSG_status, &(struct msg_none){ 0 });
	ck_assert_uint_eq(a->rep.status.nodes.v[1].disks.v[0].failed, 3);
	ck_assert_uint_eq(a->rep.status.nodes.v[1].disks.v[0].capacity, 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v3:1.3.4y 2v3:3.1.4y t1v1:1.2 1+ 2+ 3+ 4+");
	ck_assert_int_eq(synced(1, 3, routing_target_on(1, 4), &nodes[2]), 0);
	ck_assert_str_eq(shape(), "1v4:1.3.4 2v3:3.1.4y t1v1:1.2 1+ 2+ 3+ 4+");
}
END_TEST

START_TEST(the_last_replica_is_not_replaced)
{
	three_nodes(1, 1);
	ck_assert_int_eq(register_node(node(3, 1, 1, 1)), 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+ 4+");
	beat_ms(5000, 9);
	ck_assert_str_eq(shape(), "1v2:1.2o.3o t1v1:1 1+ 2- 3- 4+");
	ck_assert_int_eq(replace(&nodes[0].disks[0].disk, &nodes[3].disks[0].disk),
	    -EBUSY);
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[3].disks[0].disk),
	    0);
	ck_assert_str_eq(shape(), "1v3:1.4y.3o t1v1:1 1+ 2- 3- 4+");
	/* nor put where another one is: it has a free slot, on a disk of a box that has
	 * the chain already */
	ck_assert_int_eq(restart(node(3, 2, 2, 1), 1), 0);
	ck_assert_int_eq(replace(&nodes[2].disks[0].disk, &nodes[3].disks[1].disk),
	    -EEXIST);
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
	a = call(MSG_status, &(struct msg_none){ 0 });
	ck_assert_uint_eq(a->rep.status.syncs.n, 0);
	nodes[0].beat.syncs.n = 0;
	nodes[2].beat.syncs = (msg_t_list_sync_status){ y, 3 };
	beat(4);
	a = call(MSG_status, &(struct msg_none){ 0 });
	ck_assert_uint_eq(a->rep.status.syncs.n, 1);
	ck_assert_uint_eq(a->rep.status.syncs.v[0].done, 10);
	ck_assert_uint_eq(a->rep.status.syncs.v[0].total, 40);
	y[0].done = 20;
	beat(4);
	a = call(MSG_status, &(struct msg_none){ 0 });
	ck_assert_uint_eq(a->rep.status.syncs.v[0].done, 20);
	nodes[2].beat.syncs.n = 0;
	beat_ms(6000, 7);
	a = call(MSG_status, &(struct msg_none){ 0 });
	ck_assert_uint_eq(a->rep.status.syncs.n, 0);
	nodes[2].beat.syncs.n = 1;
	beat(4);
	ck_assert_int_eq(synced(1, 3, 2, &nodes[2]), 0);
	a = call(MSG_status, &(struct msg_none){ 0 });
	ck_assert_uint_eq(a->rep.status.syncs.n, 0);
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

/* ---- restart ---- */

START_TEST(a_restart_changes_nothing)
{
	char before[4096];
	struct routing *r;
	struct uid128 cluster;
	uint64_t version;

	three_nodes(2, 2);
	run_ms(1000);
	ck_assert_int_eq(restart(node(1, 2, 2, 2), 5), 0);
	nodes[1].disks[1].failed = 1;
	beat(2);
	run_ms(50);
	snprintf(before, sizeof(before), "%s", shape());
	r = routing();
	version = routing_version(r);
	cluster = *routing_cluster(r);
	routing_close(r);
	crash();
	start();
	ck_assert_str_eq(shape(), before);
	r = routing();
	ck_assert_uint_ge(routing_version(r), version);
	ck_assert(uid128_eq(routing_cluster(r), &cluster));
	routing_close(r);
	/* the same process goes on beating, without registering again */
	ck_assert_int_eq(call(MSG_beat, &nodes[0].beat)->rc, 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), before);
}
END_TEST

START_TEST(a_restart_gives_a_whole_lease)
{
	three_nodes(1, 1);
	run_ms(2900);
	crash();
	start();
	run_ms(3000);
	ck_assert_ptr_nonnull(strstr(shape(), "1+ 2+ 3+"));
	run_ms(3000);
	ck_assert_ptr_nonnull(strstr(shape(), "1- 2- 3-"));
}
END_TEST

START_TEST(busy_while_it_opens)
{
	static struct msg_routing q;

	crash();
	begin();
	ck_assert_int_eq(call(MSG_routing, &q)->rc, ERR_NOT_LEADER);
	ck_assert(sim_clock_run_until(t.world, is_ready, NULL, 60 * NS_PER_S));
	ck_assert_int_eq(call(MSG_routing, &q)->rc, 0);
}
END_TEST

START_TEST(stops_cleanly)
{
	static struct msg_routing q = { .have = 1000, .wait_ms = 20000 };
	struct ask *poll, *reg;

	three_nodes(1, 1);
	run_ms(1000);
	poll = ask(MSG_routing, &q);
	reg = ask(MSG_register, &node(5, 1, 1, 1)->reg);
	manager_stop(t.m, on_stopped, NULL);
	ck_assert(!t.stopped && t.drained);
	run_ms(100);
	ck_assert(t.stopped);
	ck_assert(poll->done && poll->rc == ERR_STOPPING);
	ck_assert(reg->done && reg->rc == 0);
	ck_assert_uint_eq(sim_clock_node_pending(t.clock), 0);
	sim_clock_node_close(t.clock);
	start();
	ck_assert_ptr_nonnull(strstr(shape(), "1+ 2+ 3+ 4+"));
}
END_TEST

static void
on_broken(void *ctx, int rc)
{
	int *told = ctx;

	ck_assert_int_eq(*told, 0);
	*told = rc;
}

/* Whoever runs it is told, once: it was ready long ago. */
START_TEST(a_broken_disk_ends_it)
{
	int told = 0;

	manager_watch(t.m, on_broken, &told);
	sim_box_conf(t.box)->write_eio_ppm = 1000000;
	ck_assert_int_eq(call(MSG_register, &node(0, 1, 1, 1)->reg)->rc,
	    ERR_STOPPING);
	run_ms(10);
	ck_assert_int_eq(call(MSG_status, &(struct msg_none){ 0 })->rc,
	    ERR_STOPPING);
	ck_assert_int_lt(told, 0);
}
END_TEST

/* ---- leases ---- */

START_TEST(silence_ends_a_lease)
{
	three_nodes(1, 1);
	beat_ms(5000, 7);
	ck_assert_ptr_nonnull(strstr(shape(), "1+ 2+ 3+"));
	beat_ms(3000, 5);		/* 2 is silent: a lease is not over yet */
	ck_assert_ptr_nonnull(strstr(shape(), "1+ 2+ 3+"));
	beat_ms(2500, 5);
	ck_assert_str_eq(shape(), "1v2:1.3.2o t1v1:1 1+ 2- 3+");
	ck_assert_int_eq(call(MSG_beat, &nodes[1].beat)->rc, 0);
	ck_assert_str_eq(shape(), "1v3:1.3.2y t1v1:1 1+ 2+ 3+");
}
END_TEST

/* A shorter lease is for who is told of it: others fence themselves as late as before. */
START_TEST(a_shorter_lease_comes_with_a_registration)
{
	struct ask *a;

	three_nodes(1, 1);
	crash();
	t.conf.manager_lease = 1000;
	t.conf.manager_beat = 200;
	start();
	ck_assert_int_eq(call(MSG_beat, &nodes[0].beat)->rc, 0);
	run_ms(3000);
	ck_assert_ptr_nonnull(strstr(shape(), "1+ 2+ 3+"));
	run_ms(3000);
	ck_assert_ptr_nonnull(strstr(shape(), "1- 2- 3-"));
	for (unsigned boot = 1; boot < 3; boot++) {
		a = call(MSG_register, &node(0, boot, 1, 1)->reg);
		ck_assert_int_eq(a->rc, 0);
		ck_assert_uint_eq(a->rep.reg.lease_ms, 1000);
		run_ms(1100);
		ck_assert_ptr_nonnull(strstr(shape(), "1+ 2- 3-"));
		run_ms(1000);
		ck_assert_ptr_nonnull(strstr(shape(), "1- 2- 3-"));
	}
}
END_TEST

START_TEST(goodbye_is_at_once)
{
	three_nodes(1, 1);
	ck_assert_int_eq(call(MSG_goodbye, &nodes[2].bye)->rc, 0);
	ck_assert_str_eq(shape(), "1+ 2+ 3-");
	ck_assert_int_eq(call(MSG_goodbye, &nodes[2].bye)->rc, 0);
	nodes[1].bye.boot = uid(2, 1, 9);
	ck_assert_int_eq(call(MSG_goodbye, &nodes[1].bye)->rc, ERR_STALE_NODE);
	run_ms(2000);			/* no slots on a node that is down */
	ck_assert_str_eq(shape(), "1+ 2+ 3-");
	ck_assert_int_eq(register_node(node(2, 2, 1, 1)), 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
}
END_TEST

/* ---- registration ---- */

START_TEST(names_are_unique)
{
	ck_assert_int_eq(register_node(node(0, 1, 1, 1)), 0);
	node(1, 1, 1, 1)->reg.name = msg_str("n1");
	ck_assert_int_eq(register_node(&nodes[1]), -EEXIST);
	nodes[1].reg.name = msg_str("n2");
	ck_assert_int_eq(register_node(&nodes[1]), 0);
	ck_assert_uint_eq(nodes[1].id, 2);
	nodes[1].reg.name = msg_str("n1");	/* nor by taking another */
	ck_assert_int_eq(register_node(&nodes[1]), -EEXIST);
	node(2, 1, 0, 0)->reg.name = msg_str("n1");
	nodes[2].reg.roles = NODE_METADATA;	/* another role of that box */
	ck_assert_int_eq(register_node(&nodes[2]), 0);
	ck_assert_uint_eq(nodes[2].id, 3);
}
END_TEST

START_TEST(ids_are_for_ever)
{
	three_nodes(1, 1);
	ck_assert_int_eq(restart(node(1, 5, 1, 1), 5), 0);
	ck_assert_uint_eq(nodes[1].id, 2);
	crash();
	start();
	ck_assert_int_eq(restart(node(1, 6, 1, 1), 5), 0);
	ck_assert_uint_eq(nodes[1].id, 2);
	ck_assert_int_eq(register_node(node(4, 1, 1, 1)), 0);
	ck_assert_uint_eq(nodes[4].id, 4);
}
END_TEST

START_TEST(a_disk_may_move)
{
	three_nodes(1, 1);
	run_ms(1000);
	node(3, 1, 1, 1)->disks[0].disk = nodes[2].disks[0].disk;
	/* while its old node may still serve it, it cannot */
	ck_assert_int_eq(register_node(&nodes[3]), ERR_BUSY);
	ck_assert_int_eq(call(MSG_goodbye, &nodes[2].bye)->rc, 0);
	ck_assert_str_eq(shape(), "1v2:1.2.3o t1v1:1 1+ 2+ 3-");
	ck_assert_int_eq(register_node(&nodes[3]), 0);
	ck_assert_str_eq(shape(), "1v3:1.2.4y t1v1:1 1+ 2+ 3- 4+");
	crash();
	start();
	ck_assert_str_eq(shape(), "1v3:1.2.4y t1v1:1 1+ 2+ 3- 4+");
}
END_TEST

/* Its old box stays up, without it. */
START_TEST(a_disk_may_move_from_a_live_node)
{
	three_nodes(2, 1);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v1:2.3.1 t1v1:1.2 1+ 2+ 3+");
	node(3, 1, 1, 1)->disks[0].disk = nodes[2].disks[1].disk;
	ck_assert_int_eq(register_node(&nodes[3]), ERR_BUSY);
	nodes[2].beat.disks.n = 1;
	beat(4);
	run_ms(50);
	ck_assert_int_eq(register_node(&nodes[3]), 0);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v3:2.1.4y t1v1:1.2 1+ 2+ 3+ 4+");
	nodes[2].beat.disks.n = 2;	/* an old beat of its old node says nothing */
	beat(4);
	run_ms(50);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v3:2.1.4y t1v1:1.2 1+ 2+ 3+ 4+");
}
END_TEST

/* A node that comes with new disks every time is told to stop. */
START_TEST(disks_are_bounded)
{
	int rc = 0;
	unsigned boot;

	for (boot = 1; boot < 100 && rc == 0; boot++) {
		node(0, boot, 4, 0);
		for (unsigned d = 0; d < 4; d++)
			nodes[0].disks[d].disk = uid(4, boot, d);
		rc = register_node(&nodes[0]);
	}
	ck_assert_int_eq(rc, -ENOSPC);
	ck_assert_uint_eq(boot, 256 / 4 + 2);
}
END_TEST

static void wrong_uid(struct msg_register *r) { memset(&r->node_uid, 0, 16); }
static void wrong_boot(struct msg_register *r) { memset(&r->boot, 0, 16); }
static void wrong_name(struct msg_register *r) { r->name.n = 0; }
static void wrong_space(struct msg_register *r) { r->name = msg_str("a b"); }
static void wrong_roles(struct msg_register *r) { r->roles = 0; }
static void wrong_role(struct msg_register *r) { r->roles = 128; }
static void wrong_addrs(struct msg_register *r) { r->addrs.n = 0; }
static void wrong_addr(struct msg_register *r) { r->addrs.v[0] = msg_str("x"); }
static void wrong_loop(struct msg_register *r) { r->disks.v[0].loop = 1; }
static void wrong_slots(struct msg_register *r) { r->disks.v[0].targets = 65; }
static void wrong_twice(struct msg_register *r) { r->disks.v[1] = r->disks.v[0]; }
static void wrong_disk(struct msg_register *r) { memset(&r->disks.v[0].disk, 0, 16); }
static void wrong_size(struct msg_register *r) { r->disks.v[0].capacity = ~0ull; }

static const struct {
	const char *what;
	void (*spoil)(struct msg_register *);
} wrongs[] = {
	{ "no node id", wrong_uid }, { "no boot", wrong_boot },
	{ "no name", wrong_name }, { "a blank in the name", wrong_space },
	{ "no role", wrong_roles }, { "unknown role", wrong_role },
	{ "no address", wrong_addrs }, { "bad address", wrong_addr },
	{ "a loop it has not", wrong_loop }, { "too many slots", wrong_slots },
	{ "a disk twice", wrong_twice }, { "a disk without id", wrong_disk },
	{ "a disk too large", wrong_size },
};

START_TEST(wrong_registrations)
{
	wrongs[_i].spoil(&node(0, 1, 2, 1)->reg);
	ck_assert_msg(register_node(&nodes[0]) == -EINVAL, "%s", wrongs[_i].what);
	ck_assert_str_eq(shape(), "");
}
END_TEST

/* ---- routing ---- */

START_TEST(long_poll)
{
	struct routing *r = routing();
	struct msg_routing q = { .have = routing_version(r), .wait_ms = 2000 };
	struct ask *a = ask(MSG_routing, &q), *b;
	uint64_t at = sim_clock_now(t.world);

	run_ms(1900);
	ck_assert(!a->done);
	run_ms(200);
	ck_assert(a->done && a->rc == 0);
	ck_assert_uint_eq(a->rep.routing.nodes.n, 0);
	ck_assert_uint_eq(a->rep.routing.version, q.have);

	a = ask(MSG_routing, &q);
	b = ask(MSG_routing, &q);
	at = sim_clock_now(t.world);
	ck_assert_int_eq(register_node(node(0, 1, 1, 2)), 0);
	ck_assert(sim_clock_run_until(t.world, is_done, b, NS_PER_S));
	ck_assert_uint_lt(sim_clock_now(t.world) - at, 100 * NS_PER_MS);
	ck_assert(a->done && a->rc == 0 && b->rc == 0);
	ck_assert_uint_eq(a->rep.routing.nodes.n, 1);
	ck_assert_uint_eq(a->rep.routing.targets.n, 2);
	ck_assert_int_eq(routing_apply(r, &b->rep.routing), 0);
	ck_assert_uint_eq(routing_version(r), a->rep.routing.version);

	/* no answer waits longer than the asker does */
	q.have = routing_version(r);
	q.wait_ms = 100000;
	a = ask(MSG_routing, &q);
	run_ms(29950);
	ck_assert(a->done);
	routing_close(r);
}
END_TEST

/* Many wait; who was answered first asks again while others have yet to be answered, and
 * waits for what comes after. */
START_TEST(long_polls_of_many)
{
	static struct msg_routing q;
	struct ask *first = NULL, *last = NULL, *again;
	struct routing *r = routing();

	q = (struct msg_routing){ .have = routing_version(r), .wait_ms = 20000 };
	routing_close(r);
	for (unsigned i = 0; i < 600; i++) {
		last = ask(MSG_routing, &q);
		first = first == NULL ? last : first;
	}
	ask(MSG_register, &node(0, 1, 1, 1)->reg);
	ck_assert(sim_clock_run_until(t.world, is_done, first, NS_PER_S));
	ck_assert(!last->done);
	q.have = first->rep.routing.version;
	again = ask(MSG_routing, &q);
	run_ms(100);
	ck_assert(last->done && last->rc == 0);
	ck_assert_uint_eq(last->rep.routing.version, q.have);
	ck_assert(!again->done);
	ask(MSG_register, &node(1, 1, 1, 1)->reg);
	run_ms(100);
	ck_assert(again->done && again->rep.routing.nodes.n == 1);
}
END_TEST

/* More than fits into one message comes in pieces. */
START_TEST(a_large_cluster_in_pieces)
{
	struct msg_routing q = { 0 };
	struct routing *r;
	unsigned pieces = 0, targets = 0;
	static struct msg_disk_info disks[64];

	for (unsigned i = 0; i < NODES; i++) {
		node(i, 1, 0, 0);
		for (unsigned d = 0; d < 64; d++)
			disks[d] = (struct msg_disk_info){ .disk = uid(3, i, d + 1),
				.capacity = 1, .targets = 64 };
		nodes[i].reg.disks = (msg_t_list_disk_info){ disks, 64 };
		ck_assert_int_eq(register_node(&nodes[i]), 0);
	}
	ck_assert_int_eq(routing_open(&r), 0);
	do {
		struct ask *a = call(MSG_routing, &q);

		ck_assert_int_eq(a->rc, 0);
		ck_assert_uint_gt(a->rep.routing.version, q.have);
		ck_assert_int_eq(routing_apply(r, &a->rep.routing), 0);
		q.have = a->rep.routing.version;
		pieces++;
		targets += a->rep.routing.targets.n;
	} while (targets < NODES * 4096);
	ck_assert_uint_eq(targets, NODES * 4096);
	ck_assert_uint_gt(pieces, 1);
	routing_close(r);
	run_ms(5000);			/* and thousands of chains are formed */
	r = NULL;
	ck_assert_int_eq(routing_open(&r), 0);
	q.have = 0;
	for (unsigned i = 0; i < 40; i++) {
		struct ask *a = call(MSG_routing, &q);

		ck_assert_int_eq(a->rc, 0);
		ck_assert_int_eq(routing_apply(r, &a->rep.routing), 0);
		q.have = a->rep.routing.version;
	}
	ck_assert_uint_eq(routing_table(r, 1, 0)->chain_n, NODES * 4096 / 3);
	ck_assert_uint_eq(routing_table(r, 1, 0)->version, 1);
	routing_close(r);
}
END_TEST

/* ---- space, status, clients, options ---- */

START_TEST(space)
{
	struct msg_none none = { 0 };
	struct ask *a;

	three_nodes(1, 1);
	a = call(MSG_beat, &nodes[0].beat);
	ck_assert_uint_eq(a->rep.beat.total_bytes, 3000000);
	ck_assert_uint_eq(a->rep.beat.used_bytes, 300);
	nodes[0].disks[0].used = 3000300;
	nodes[0].disks[0].capacity = 6000000;
	a = call(MSG_beat, &nodes[0].beat);
	ck_assert_uint_eq(a->rep.beat.total_bytes, 4000000);
	ck_assert_uint_eq(a->rep.beat.used_bytes, 1000300);
	a = call(MSG_status, &none);
	ck_assert_int_eq(a->rc, 0);
	ck_assert_uint_eq(a->rep.status.total_bytes, 4000000);
	ck_assert_uint_eq(a->rep.status.nodes.n, 3);
	ck_assert_uint_eq(a->rep.status.nodes.v[0].disks.n, 1);
	ck_assert_uint_eq(a->rep.status.nodes.v[0].disks.v[0].used, 3000300);
	ck_assert_uint_eq(a->rep.status.nodes.v[0].release.n, 3);
	crash();
	start();
	a = call(MSG_status, &none);
	ck_assert_uint_eq(a->rep.status.nodes.v[0].seen_ms, UINT64_MAX);
	ck_assert_uint_eq(a->rep.status.total_bytes, 3000000);
	call(MSG_beat, &nodes[0].beat);
	run_ms(700);
	a = call(MSG_status, &none);
	ck_assert_uint_ge(a->rep.status.nodes.v[0].seen_ms, 700);
	ck_assert_uint_lt(a->rep.status.nodes.v[0].seen_ms, 1000);
}
END_TEST

/* Ids are what nodes say: that they are alike in one way costs time, not memory. */
START_TEST(disks_of_one_fold)
{
	static struct msg_disk_info disks[64];
	struct ask *a;

	for (unsigned i = 0; i < NODES; i++) {
		node(i, 1, 0, 0);
		for (unsigned d = 0; d < 64; d++) {
			disks[d] = (struct msg_disk_info){ .disk = uid(3, i, d + 1),
				.capacity = 1 };
			memcpy(disks[d].disk.b + 8, disks[d].disk.b, 8);
		}
		nodes[i].reg.disks = (msg_t_list_disk_info){ disks, 64 };
		ck_assert_int_eq(register_node(&nodes[i]), 0);
	}
	a = call(MSG_status, &(struct msg_none){ 0 });
	ck_assert_int_eq(a->rc, 0);
	ck_assert_uint_eq(a->rep.status.nodes.n, NODES);
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_uint_eq(a->rep.status.nodes.v[i].disks.n, 64);
}
END_TEST

START_TEST(clients)
{
	struct msg_none none = { 0 };
	struct msg_client_beat q[3];
	struct ask *a;

	for (unsigned i = 0; i < 3; i++) {
		q[i] = (struct msg_client_beat){ .client = uid(9, i, 0),
			.host = msg_str("box"), .mount = msg_str("/mnt"),
			.pid = 100 + i, .release = msg_str("0.1") };
		/* same fold: must not be taken for one another */
		memset(q[i].client.b + 8, 0, 8);
		q[i].client.b[8 + 3] = (uint8_t)i;
		q[i].client.b[3] = (uint8_t)i;
		q[i].client.b[1] = 1;
		a = call(MSG_client_beat, &q[i]);
		ck_assert_int_eq(a->rc, 0);
		ck_assert_uint_gt(a->rep.client_beat.beat_ms, 0);
	}
	a = call(MSG_clients, &none);
	ck_assert_uint_eq(a->rep.clients.clients.n, 3);
	q[1].leaving = 1;
	ck_assert_int_eq(call(MSG_client_beat, &q[1])->rc, 0);
	ck_assert_int_eq(call(MSG_client_beat, &q[1])->rc, 0);
	run_ms(8000);
	call(MSG_client_beat, &q[0]);
	run_ms(8000);
	a = call(MSG_clients, &none);
	ck_assert_uint_eq(a->rep.clients.clients.n, 1);
	ck_assert_uint_eq(a->rep.clients.clients.v[0].pid, 100);
	ck_assert_uint_ge(a->rep.clients.clients.v[0].since_ms, 16000);
	ck_assert_uint_lt(a->rep.clients.clients.v[0].seen_ms, 9000);
	memset(&q[2].client, 0, 16);
	ck_assert_int_eq(call(MSG_client_beat, &q[2])->rc, -EINVAL);
}
END_TEST

START_TEST(option_sets)
{
	struct msg_config_get get = { .role = msg_str("storage") };
	struct msg_config_set set = { .role = msg_str("storage"),
		.text = msg_str("[storage]\nfull = 90\n") };
	struct ask *a = call(MSG_config_get, &get);

	ck_assert_int_eq(a->rc, 0);
	ck_assert_uint_eq(a->rep.config.version, 0);
	ck_assert_uint_eq(a->rep.config.text.n, 0);
	a = call(MSG_config_set, &set);
	ck_assert_int_eq(a->rc, 0);
	ck_assert_uint_eq(a->rep.config.version, 1);
	ck_assert_int_eq(call(MSG_config_set, &set)->rc, -EAGAIN);
	set.have = 1;
	set.text = msg_str("[storage]\nfull = lots\n");
	ck_assert_int_eq(call(MSG_config_set, &set)->rc, ERR_CONFIG);
	for (unsigned i = 0; i < 40; i++) {
		set.text = msg_str("[storage]\nfull = 80\n");
		a = call(MSG_config_set, &set);
		ck_assert_int_eq(a->rc, 0);
		set.have = a->rep.config.version;
	}
	set.role = msg_str("client");
	set.text = msg_str("");
	set.have = 0;
	a = call(MSG_config_set, &set);
	ck_assert_uint_eq(a->rep.config.version, 42);
	set.role = get.role = msg_str("cook");
	ck_assert_int_eq(call(MSG_config_set, &set)->rc, -ENOENT);
	ck_assert_int_eq(call(MSG_config_get, &get)->rc, -ENOENT);
	crash();
	start();
	get.role = msg_str("storage");
	a = call(MSG_config_get, &get);
	ck_assert_uint_eq(a->rep.config.version, 41);
	ck_assert_uint_eq(a->rep.config.text.n, strlen("[storage]\nfull = 80\n"));
	ck_assert_int_eq(register_node(node(0, 1, 1, 1)), 0);
	a = call(MSG_beat, &nodes[0].beat);
	ck_assert_uint_eq(a->rep.beat.config_version, 42);
}
END_TEST

/* ---- any weather ---- */

/* What was answered survives any crash: registrations, boots, chain states; versions never
 * go back, a version never means two things, and no replica serves that was away without
 * having been synced. */
static struct seen {
	uint32_t version;
	struct routing_chain row;
} seen[64];
static unsigned boots[NODES];

static void
look_at_chains(struct routing *r)
{
	const struct routing_chain *c;

	for (unsigned k = 0; (c = routing_chain_at(r, k)) != NULL && c->id < 64; k++) {
		struct seen *w = &seen[c->id];

		ck_assert_uint_ge(c->version, w->version);
		if (c->version == w->version) {
			ck_assert_mem_eq(c->targets, w->row.targets,
			    sizeof(c->targets));
			ck_assert_mem_eq(c->states, w->row.states,
			    sizeof(c->states));
		}
		w->version = c->version;
		w->row = *c;
	}
}

/* Sometimes what syncs is done. */
static void
sync_some(void)
{
	for (unsigned id = 0; id < 64; id++) {
		const struct routing_chain *c = &seen[id].row;
		unsigned n = routing_serving_n(c);
		struct routing *r;

		if (seen[id].version == 0 || routing_active_n(c) == n ||
		    !rand_chance(&t.rand, 1, 3))
			continue;
		r = routing();
		for (unsigned j = 0; j < NODES; j++)
			if (nodes[j].id == routing_target(r,
			    c->targets[n - 1])->node && boots[j] > 0) {
				int rc = synced(id, c->version, c->targets[n],
				    &nodes[j]);

				ck_assert(rc == 0 || rc == ERR_STALE_CHAIN ||
				    rc == ERR_STALE_NODE);
			}
		routing_close(r);
	}
}

START_TEST(any_end)
{
	uint64_t routing_seen = 0;

	memset(seen, 0, sizeof(seen));
	memset(boots, 0, sizeof(boots));
	setup_seed(getenv("SEED") != NULL && *getenv("SEED") != '\0' ?
	    strtoull(getenv("SEED"), NULL, 0) : (uint64_t)_i);
	sim_box_conf(t.box)->sync_max_ns = 3 * NS_PER_MS;
	sim_box_conf(t.box)->table.write_max_ns = 20 * NS_PER_MS;
	t.conf.cluster_replicas = 2 + rand_below(&t.rand, 2);
	t.conf.manager_form_delay = rand_below(&t.rand, 50);
	for (unsigned round = 0; round < 8; round++) {
		struct routing *r;

		start();
		r = routing();
		ck_assert_uint_ge(routing_version(r), routing_seen);
		for (unsigned i = 0; i < NODES; i++)
			if (nodes[i].id != 0 && boots[i] > 0)
				ck_assert(uid128_eq(&routing_node(r,
				    nodes[i].id)->boot, &nodes[i].boot));
		look_at_chains(r);
		routing_close(r);
		for (unsigned n = (unsigned)rand_below(&t.rand, 25); n > 0; n--) {
			unsigned i = (unsigned)rand_below(&t.rand, NODES);
			node_id was = nodes[i].id;

			if (boots[i] == 0 || rand_chance(&t.rand, 1, 4)) {
				struct ask *a;

				node(i, ++boots[i], 2, 2);
				a = ask(MSG_register, &nodes[i].reg);
				for (unsigned k = 0; k < 8 && !a->done; k++) {
					run_ms(30);
					for (unsigned j = 0; j < NODES; j++)
						if (j != i && boots[j] > 0 &&
						    nodes[j].id != 0)
							call(MSG_beat,
							    &nodes[j].beat);
				}
				ck_assert(a->done);
				ck_assert_int_eq(register_node(&nodes[i]), 0);
				ck_assert(was == 0 || was == nodes[i].id);
			} else
				ck_assert_int_eq(call(MSG_beat,
				    &nodes[i].beat)->rc, 0);
			run_ms(rand_chance(&t.rand, 1, 20) ? 4500 :
			    rand_below(&t.rand, 60));
			r = routing();
			routing_seen = routing_version(r);
			look_at_chains(r);
			routing_close(r);
			sync_some();
		}
		crash();
		forget_asks();
	}
}
END_TEST

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	Suite *s = suite_create("manager");
	TCase *calm = tcase_create("calm"), *any = tcase_create("any");
	SRunner *sr = srunner_create(s);
	const char *n = getenv("N"), *seed = getenv("SEED");
	int failed, seeds = n != NULL && atoi(n) > 0 ? atoi(n) : 60;

	tcase_add_checked_fixture(calm, setup, teardown);
	tcase_add_test(calm, three_nodes_make_chains);
	tcase_add_test(calm, late_disks_make_a_new_table);
	tcase_add_test(calm, no_wait_when_told_so);
	tcase_add_test(calm, failed_disks_are_left_out);
	tcase_add_test(calm, many_chains);
	tcase_add_test(calm, a_dead_node_leaves_its_chains);
	tcase_add_test(calm, synced_replicas_serve);
	tcase_add_test(calm, unfit_replicas_wait);
	tcase_add_test(calm, a_new_boot);
	tcase_add_test(calm, held_twice);
	tcase_add_test(calm, all_die_at_once);
	tcase_add_test(calm, all_are_started_again);
	tcase_add_test(calm, a_batch_waits_for_all);
	tcase_add_test(calm, a_late_beat_leaves_the_batch);
	tcase_add_test(calm, failed_disks);
	tcase_add_test(calm, thousands_of_chains_change_at_once);
	tcase_add_test(calm, order_is_restored);
	tcase_add_test(calm, loss_is_accepted);
	tcase_add_test(calm, a_replica_is_compared_again);
	tcase_add_test(calm, a_disk_is_replaced);
	tcase_add_test(calm, the_last_replica_is_not_replaced);
	tcase_add_test(calm, sync_progress);
	tcase_add_test(calm, neighbours_apart);
	tcase_add_test(calm, cut_from_all);
	tcase_add_test(calm, a_restart_changes_nothing);
	tcase_add_test(calm, a_restart_gives_a_whole_lease);
	tcase_add_test(calm, busy_while_it_opens);
	tcase_add_test(calm, stops_cleanly);
	tcase_add_test(calm, a_broken_disk_ends_it);
	tcase_add_test(calm, silence_ends_a_lease);
	tcase_add_test(calm, a_shorter_lease_comes_with_a_registration);
	tcase_add_test(calm, goodbye_is_at_once);
	tcase_add_test(calm, names_are_unique);
	tcase_add_test(calm, ids_are_for_ever);
	tcase_add_test(calm, a_disk_may_move);
	tcase_add_test(calm, a_disk_may_move_from_a_live_node);
	tcase_add_test(calm, disks_are_bounded);
	tcase_add_loop_test(calm, wrong_registrations, 0, N(wrongs));
	tcase_add_test(calm, long_poll);
	tcase_add_test(calm, long_polls_of_many);
	tcase_add_test(calm, a_large_cluster_in_pieces);
	tcase_add_test(calm, space);
	tcase_add_test(calm, disks_of_one_fold);
	tcase_add_test(calm, clients);
	tcase_add_test(calm, option_sets);
	suite_add_tcase(s, calm);
	tcase_set_timeout(calm, 60);
	tcase_add_checked_fixture(any, NULL, teardown);
	tcase_add_loop_test(any, any_end, 0,
	    seed != NULL && *seed != '\0' ? 1 : seeds);
	suite_add_tcase(s, any);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
