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
	ck_assert_uint_eq(service, 1);
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
	ck_assert_int_eq(manager_open(&t.m, &env, "m", &addr, on_ready, NULL), 0);
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

/* "1v1R:1.5.9 ..." chains, "t1v1:1.2.3" newest table, "1+ 2-" nodes. */
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
		p += snprintf(p, (size_t)(end - p), "%uv%u%c:", c->id, c->version,
		    c->state == CHAIN_SERVING ? 'S' : 'R');
		for (unsigned k = 0; k < c->target_n; k++)
			p += snprintf(p, (size_t)(end - p), "%s%u",
			    k > 0 ? "." : "",
			    routing_target(r, c->targets[k])->node);
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

static int
ready(chain_id chain, uint32_t version, const struct node *head)
{
	struct msg_chain_ready q = { .node = head->id, .boot = head->boot,
		.chain = chain, .version = version };

	return call(MSG_chain_ready, &q)->rc;
}

/* ---- chains ---- */

START_TEST(three_nodes_make_chains)
{
	struct routing *r;
	const struct routing_target *tg;

	three_nodes(1, 3);
	ck_assert_str_eq(shape(), "1+ 2+ 3+");	/* waits for more */
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1R:1.2.3 2v1R:2.3.1 3v1R:3.1.2 t1v1:1.2.3 "
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
	ck_assert_str_eq(shape(), "1v1R:1.2.3 t1v1:1 1+ 2+ 3+");
	for (unsigned i = 3; i < 6; i++)
		ck_assert_int_eq(register_node(node(i, 1, 1, 1)), 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1R:1.2.3 2v1R:4.5.6 t1v2:1.2 "
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
	ck_assert_str_eq(shape(), "1v1R:1.2.3 t1v1:1 1+ 2+ 3+");
}
END_TEST

START_TEST(failed_disks_are_left_out)
{
	node(0, 1, 1, 1)->disks[0].failed = 1;
	ck_assert_int_eq(register_node(&nodes[0]), 0);
	for (unsigned i = 1; i < 4; i++)
		ck_assert_int_eq(register_node(node(i, 1, 1, 1)), 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1R:2.3.4 t1v1:1 1+ 2+ 3+ 4+");
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

START_TEST(reconciled_chains_serve)
{
	three_nodes(1, 3);
	run_ms(1000);
	ck_assert_int_eq(ready(1, 1, &nodes[0]), 0);
	ck_assert_int_eq(ready(1, 1, &nodes[0]), 0);		/* again */
	ck_assert_int_eq(ready(2, 2, &nodes[1]), ERR_STALE_CHAIN);
	ck_assert_int_eq(ready(3, 1, &nodes[0]), ERR_NOT_OWNER);
	ck_assert_int_eq(ready(9, 1, &nodes[0]), -ENOENT);
	nodes[1].boot = uid(2, 1, 7);
	ck_assert_int_eq(ready(2, 1, &nodes[1]), ERR_STALE_NODE);
	ck_assert_str_eq(shape(), "1v1S:1.2.3 2v1R:2.3.1 3v1R:3.1.2 t1v1:1.2.3 "
	    "1+ 2+ 3+");
}
END_TEST

/* Every chain of a node that starts again is reconciled before it serves, and nobody
 * hears of the new process before that is decided. */
START_TEST(a_new_boot_sends_chains_back)
{
	three_nodes(1, 1);
	ck_assert_int_eq(register_node(node(3, 1, 0, 0)), 0);
	run_ms(1000);
	ck_assert_int_eq(ready(1, 1, &nodes[0]), 0);
	ck_assert_int_eq(register_node(&nodes[1]), 0);		/* same boot */
	ck_assert_str_eq(shape(), "1v1S:1.2.3 t1v1:1 1+ 2+ 3+ 4+");
	struct msg_beat old = nodes[1].beat;
	ck_assert_int_eq(register_node(node(1, 2, 1, 1)), 0);
	ck_assert_str_eq(shape(), "1v2R:1.2.3 t1v1:1 1+ 2+ 3+ 4+");
	ck_assert_int_eq(call(MSG_beat, &old)->rc, ERR_STALE_NODE);
	ck_assert_int_eq(call(MSG_beat, &nodes[1].beat)->rc, 0);
	/* the old process does not get its node back, not after a restart either */
	nodes[1].reg.boot = old.boot;
	ck_assert_int_eq(register_node(&nodes[1]), ERR_STALE_NODE);
	crash();
	start();
	ck_assert_int_eq(register_node(&nodes[1]), ERR_STALE_NODE);
	ck_assert_int_eq(call(MSG_beat, &nodes[1].beat)->rc, 0);
	ck_assert_int_eq(ready(1, 1, &nodes[0]), ERR_STALE_CHAIN);
	ck_assert_int_eq(ready(1, 2, &nodes[0]), 0);
	ck_assert_int_eq(register_node(node(3, 2, 0, 0)), 0);	/* no chains of it */
	ck_assert_str_eq(shape(), "1v2S:1.2.3 t1v1:1 1+ 2+ 3+ 4+");
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
	ck_assert_int_eq(ready(1, 1, &nodes[0]), 0);
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

START_TEST(a_broken_disk_ends_it)
{
	sim_box_conf(t.box)->write_eio_ppm = 1000000;
	ck_assert_int_eq(call(MSG_register, &node(0, 1, 1, 1)->reg)->rc,
	    ERR_STOPPING);
	run_ms(10);
	ck_assert_int_eq(call(MSG_status, &(struct msg_none){ 0 })->rc,
	    ERR_STOPPING);
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
	ck_assert_str_eq(shape(), "1v1R:1.2.3 t1v1:1 1+ 2- 3+");
	ck_assert_int_eq(call(MSG_beat, &nodes[1].beat)->rc, 0);
	ck_assert_str_eq(shape(), "1v1R:1.2.3 t1v1:1 1+ 2+ 3+");
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
	ck_assert_str_eq(shape(), "1v1R:1.2.3 t1v1:1 1+ 2+ 3+");
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
	ck_assert_int_eq(register_node(node(1, 5, 1, 1)), 0);
	ck_assert_uint_eq(nodes[1].id, 2);
	crash();
	start();
	ck_assert_int_eq(register_node(node(1, 6, 1, 1)), 0);
	ck_assert_uint_eq(nodes[1].id, 2);
	ck_assert_int_eq(register_node(node(4, 1, 1, 1)), 0);
	ck_assert_uint_eq(nodes[4].id, 4);
}
END_TEST

START_TEST(a_disk_may_move)
{
	three_nodes(1, 1);
	run_ms(1000);
	ck_assert_int_eq(ready(1, 1, &nodes[0]), 0);
	node(3, 1, 1, 1)->disks[0].disk = nodes[2].disks[0].disk;
	/* while its old node may still serve it, it cannot */
	ck_assert_int_eq(register_node(&nodes[3]), ERR_BUSY);
	ck_assert_int_eq(call(MSG_goodbye, &nodes[2].bye)->rc, 0);
	ck_assert_int_eq(register_node(&nodes[3]), 0);
	ck_assert_str_eq(shape(), "1v2R:1.2.4 t1v1:1 1+ 2+ 3- 4+");
	crash();
	start();
	ck_assert_str_eq(shape(), "1v2R:1.2.4 t1v1:1 1+ 2+ 3- 4+");
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
 * go back, and a chain that was sent back is not serving. */
START_TEST(any_end)
{
	uint32_t version[64] = { 0 };
	bool serving[64] = { false };
	uint64_t routing_seen = 0;
	unsigned boots[NODES] = { 0 };

	setup_seed(getenv("SEED") != NULL && *getenv("SEED") != '\0' ?
	    strtoull(getenv("SEED"), NULL, 0) : (uint64_t)_i);
	sim_box_conf(t.box)->sync_max_ns = 3 * NS_PER_MS;
	sim_box_conf(t.box)->table.write_max_ns = 20 * NS_PER_MS;
	t.conf.cluster_replicas = 2;
	t.conf.manager_form_delay = rand_below(&t.rand, 50);
	for (unsigned round = 0; round < 8; round++) {
		struct routing *r;
		const struct routing_chain *c;

		start();
		r = routing();
		ck_assert_uint_ge(routing_version(r), routing_seen);
		for (unsigned i = 0; i < NODES; i++)
			if (nodes[i].id != 0 && boots[i] > 0)
				ck_assert(uid128_eq(&routing_node(r,
				    nodes[i].id)->boot, &nodes[i].boot));
		for (unsigned i = 0; i < 64; i++) {
			if (version[i] == 0)
				continue;
			c = routing_chain(r, i);
			ck_assert_ptr_nonnull(c);
			ck_assert_uint_ge(c->version, version[i]);
			if (c->version == version[i] && serving[i])
				ck_assert_uint_eq(c->state, CHAIN_SERVING);
		}
		routing_close(r);
		for (unsigned n = (unsigned)rand_below(&t.rand, 25); n > 0; n--) {
			unsigned i = (unsigned)rand_below(&t.rand, NODES);
			node_id was = nodes[i].id;

			if (boots[i] == 0 || rand_chance(&t.rand, 1, 4)) {
				node(i, ++boots[i], 2, 2);
				ck_assert_int_eq(register_node(&nodes[i]), 0);
				ck_assert(was == 0 || was == nodes[i].id);
			} else
				ck_assert_int_eq(call(MSG_beat,
				    &nodes[i].beat)->rc, 0);
			run_ms(rand_below(&t.rand, 60));
			r = routing();
			routing_seen = routing_version(r);
			for (unsigned k = 0; (c = routing_chain_at(r, k)) != NULL &&
			    c->id < 64; k++) {
				node_id head = routing_target(r,
				    c->targets[0])->node;

				ck_assert_uint_ge(c->version, version[c->id]);
				version[c->id] = c->version;
				serving[c->id] = c->state == CHAIN_SERVING;
				for (unsigned j = 0; j < NODES; j++)
					if (nodes[j].id == head && boots[j] > 0 &&
					    !serving[c->id] &&
					    rand_chance(&t.rand, 1, 3)) {
						ck_assert_int_eq(ready(c->id,
						    c->version, &nodes[j]), 0);
						serving[c->id] = true;
					}
			}
			routing_close(r);
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
	tcase_add_test(calm, reconciled_chains_serve);
	tcase_add_test(calm, a_new_boot_sends_chains_back);
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
