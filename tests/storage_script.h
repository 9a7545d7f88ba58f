/* SPDX-License-Identifier: MIT */
/* storage_script.h - hosts on simulated time, network and disks, and the manager of few words
 * that storage nodes have in their tests. */
#ifndef TESTS_STORAGE_SCRIPT_H
#define TESTS_STORAGE_SCRIPT_H

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/engine.h"
#include "conf/crc32c.h"
#include "conf/err.h"
#include "net/member.h"
#include "net/msg_all.h"
#include "net/serve.h"
#include "roles/storage.h"
#include "tests/sim/clock.h"
#include "tests/sim/disk.h"
#include "tests/sim/net.h"

#define NODES		3u		/* storage; the manager is 0, the client 9 */
#define CLIENT_NODE	9u
#define DISK_BYTES	(24u << 20)
#define SHIFT		16u		/* chunks of 64 KiB */
#define CHUNKS		6u
#define WRITERS		3u
#define REGION		(16u << 10)
#define INO		77u
#define LOOPS		2u
#define READERS		3u
#define LEASE_MS	1000u
#define BEAT_MS		100u
#define POLLS		64u

struct host {
	uint32_t	 id;
	struct sim_box	*box;
	struct clock	*clock;		/* of the first loop */
	struct clock	*clocks[LOOPS];
	struct net_hub	*hubs[LOOPS];
	struct role_env	 envs[LOOPS];
	unsigned	 loops;
	struct storage	*storage;
	bool		 up, ready, stopped;
	int		 rc;
	uint64_t	 back_at;
};

/* A manager of few words: it leases, spreads routing and, unless told not to, moves chains
 * as CHAINS prescribes.  Chain c has target 10 * c + n at node n, on disk (c - 1) % loops. */
struct script {
	struct net_server *server;
	struct routing	*routing;
	struct net_req	*polls[POLLS];
	unsigned	 poll_n;
	struct clock_timer tick;
	unsigned	 ticks;
	bool		 by_hand;	/* chains move only when the test says so */
	bool		 deaf;		/* beats are not answered */
	bool		 no_part;	/* nor acted upon what they say of neighbours */
	struct {
		bool	 known, up, failed[LOOPS];
		struct uid128 boot, next_boot;	/* next: asks to register */
		struct uid128 disks[LOOPS];
		uint64_t heard_ns;
		uint64_t routing;	/* it acts on nothing older */
		unsigned goodbyes;
	} nodes[NODES + 1];
	uint64_t	 batch_ns;	/* since when somebody is dying */
	unsigned	 synced;	/* messages */
	struct msg_synced last_synced;
	unsigned	 refused;	/* of them, with a reason why not */
	unsigned	 unfit;		/* of those, which served */
	uint64_t	 hold_ns;	/* then, how long it may not sync */
	uint64_t	 held_until_ns[NODES + 1];
	unsigned	 sync_rows;	/* in beats, so far */
	uint64_t	 cuts[NODES + 1][NODES + 1];	/* told last, by whom of whom */
	unsigned	 parted, joined;	/* replicas */
	unsigned	 awaited;	/* nodes in beats, so far */
};

static struct {
	struct sim_clock *world;
	struct sim_net	 *net;
	struct rand	  rand;		/* faults, roles, ids */
	struct conf	  conf;
	struct host	  manager, nodes[NODES], client;
	struct script	  m;
	struct member	 *member;
	struct net_addr	  manager_addr;
	bool		  verbose;
	unsigned	  loops;	/* of a storage node */
	unsigned	  chains;
	unsigned	  errors;	/* lines logged as errors */
} T;

/* ---- hosts ---- */

static void
sink(void *ctx, enum log_level level, const char *who, const char *what,
    const char *fields)
{
	(void)ctx;
	T.errors += level == LOG_ERROR;
	if (T.verbose)
		fprintf(stderr, "[%8.3f] %s: %s %s\n",
		    (double)sim_clock_now(T.world) / 1e6, who, what, fields);
}

static void
random_bytes(void *ctx, void *out, size_t n)
{
	(void)ctx;
	rand_bytes(&T.rand, out, n);
}

static int
open_dir(void *ctx, const char *path, bool create, struct disk_dir **out)
{
	struct host *h = ctx;

	/* The second disk is the second loop's. */
	return sim_disk_dir(h->box, h->clocks[strcmp(path, "/disk1") == 0],
	    path, create, out);
}

static void
host_up(struct host *h, const char *who, unsigned loops)
{
	uint64_t offset = NS_PER_S + rand_below(&T.rand, NS_PER_S);
	int32_t drift = (int32_t)rand_below(&T.rand, 200) - 100;

	h->loops = loops;
	for (unsigned i = 0; i < loops; i++) {
		struct role_env *env = &h->envs[i];
		struct net_hub_conf hc = { .rand = &T.rand, .log = &env->log,
		    .nonce = random_bytes, .calls_max = 4096,
		    .idle_ms = 60000 };

		h->clocks[i] = sim_clock_node(T.world, offset, drift);
		log_init(&env->log, who);
		env->log.sink = sink;
		env->log.level = T.verbose ? LOG_DEBUG : LOG_INFO;
		hc.clock = h->clocks[i];
		memset(hc.key, 7, sizeof(hc.key));
		ck_assert_int_eq(net_hub_open(&h->hubs[i], &hc), 0);
		net_hub_add(h->hubs[i], sim_net_transport(T.net, h->id,
		    (uint16_t)i, h->clocks[i]));
		env->clock = h->clocks[i];
		env->rand = &T.rand;
		env->hub = h->hubs[i];
		env->conf = &T.conf;
		env->random = random_bytes;
		env->dir = open_dir;
		env->ctx = h;
	}
	h->clock = h->clocks[0];
	h->up = true;
	h->ready = h->stopped = false;
}

static void
role_ready(void *ctx, int rc)
{
	struct host *h = ctx;

	ck_assert(!h->ready);
	h->ready = true;
	h->rc = rc;
}

static inline void
role_stopped(void *ctx, int rc)
{
	struct host *h = ctx;

	ck_assert_int_eq(rc, 0);
	h->stopped = true;
}

/* ---- the manager ---- */

/* Answer those that ask for what there is; @all: those that wait too. */
static void
answer_polls(bool all)
{
	struct script *m = &T.m;
	unsigned left = 0;

	for (unsigned i = 0; i < m->poll_n; i++) {
		struct net_req *req = m->polls[i];
		const struct msg_routing *q = req->msg;
		struct msg_routing_rep rep;
		struct msg_arena arena;

		if (!all && q->wait_ms != 0 && q->have >= routing_version(m->routing)) {
			m->polls[left++] = req;
			continue;
		}
		msg_arena_init(&arena, 1u << 20);
		ck_assert_int_eq(routing_delta(m->routing, q->have, &arena, &rep), 0);
		net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
		msg_arena_fini(&arena);
	}
	m->poll_n = left;
}

static void
publish(void)
{
	answer_polls(false);
}

static uint64_t
next_version(void)
{
	return routing_version(T.m.routing) + 1;
}

static unsigned
node_of(target_id t)
{
	return t % 10;
}

static bool
alive(target_id t)
{
	unsigned n = node_of(t);

	return T.m.nodes[n].up && !T.m.nodes[n].failed[(t / 10 - 1) % T.loops];
}

static bool
held(target_id t)
{
	return T.m.held_until_ns[node_of(t)] > clock_now(T.manager.clock);
}

static unsigned
count(const struct routing_chain *c, uint8_t state)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->target_n; i++)
		n += c->states[i] == state;
	return n;
}

static void
sort_chain(struct routing_chain *c)
{
	for (unsigned i = 1; i < c->target_n; i++) {
		for (unsigned k = i; k > 0 && c->states[k] < c->states[k - 1]; k--) {
			uint8_t s = c->states[k];
			target_id t = c->targets[k];

			c->states[k] = c->states[k - 1];
			c->targets[k] = c->targets[k - 1];
			c->states[k - 1] = s;
			c->targets[k - 1] = t;
		}
	}
	c->state = count(c, TARGET_SERVING) > 0 ? CHAIN_SERVING : CHAIN_RECOVERING;
}

static void
put_chain(struct routing_chain *c)
{
	c->version++;
	c->changed = next_version();
	sort_chain(c);
	ck_assert_int_eq(routing_put_chain(T.m.routing, c), 0);
}

/* One round of the rules; true: it has changed. @synced: target that has everything now. */
static bool
evaluate(struct routing_chain *c, target_id synced)
{
	struct routing_chain was = *c;
	unsigned staying = 0, last = UINT32_MAX;

	for (unsigned i = 0; i < c->target_n; i++) {
		if (c->states[i] != TARGET_SERVING)
			continue;
		if (alive(c->targets[i]))
			staying++;
		else
			last = i;
	}
	for (unsigned i = 0; i < c->target_n; i++)
		if (c->states[i] == TARGET_SERVING && !alive(c->targets[i]))
			c->states[i] = staying == 0 && i == last ? TARGET_LASTSRV :
			    TARGET_OFFLINE;
	for (unsigned i = 0; i < c->target_n; i++) {
		bool up = alive(c->targets[i]);

		switch (c->states[i]) {
		case TARGET_LASTSRV:
			if (up)
				c->states[i] = TARGET_SERVING;
			break;
		case TARGET_SYNCING:
			if (!up || held(c->targets[i]))
				c->states[i] = TARGET_OFFLINE;
			else if (count(c, TARGET_SERVING) == 0)
				c->states[i] = TARGET_WAITING;
			else if (c->targets[i] == synced)
				c->states[i] = TARGET_SERVING;
			break;
		case TARGET_APART:
			c->states[i] = !up ? TARGET_OFFLINE :
			    count(c, TARGET_SERVING) == 0 ? TARGET_WAITING :
			    TARGET_APART;
			break;
		case TARGET_WAITING:
		case TARGET_OFFLINE:
			c->states[i] = !up || held(c->targets[i]) ? TARGET_OFFLINE :
			    count(c, TARGET_SERVING) > 0 &&
			    count(c, TARGET_SYNCING) == 0 ? TARGET_SYNCING :
			    TARGET_WAITING;
			break;
		}
	}
	sort_chain(c);
	return memcmp(&was, c, sizeof(was)) != 0;
}

static void
heal(target_id synced)
{
	const struct routing_chain *at;
	bool any = false;

	for (unsigned i = 0; !T.m.by_hand &&
	    (at = routing_chain_at(T.m.routing, i)) != NULL; i++) {
		struct routing_chain c = *at;
		bool moved = false;

		for (unsigned round = 0; round < 4 && evaluate(&c, synced); round++)
			moved = true;
		if (moved)
			put_chain(&c);
		any |= moved;
	}
	if (any)
		publish();
}

static void
node_state(unsigned n, bool up, const struct uid128 *boot)
{
	struct routing_node row = *routing_node(T.m.routing, n);

	T.m.nodes[n].up = up;
	row.state = up ? NODE_UP : NODE_DOWN;
	row.boot = *boot;
	row.changed = next_version();
	ck_assert_int_eq(routing_put_node(T.m.routing, &row), 0);
}

static bool
dying(unsigned n, uint64_t now)
{
	return T.m.nodes[n].up && (!uid128_zero(&T.m.nodes[n].next_boot) ||
	    now >= T.m.nodes[n].heard_ns + (LEASE_MS + LEASE_MS / 10 + BEAT_MS) *
	    NS_PER_MS);
}

/* Those that die together die in one step: see that all others are well first. */
static void
deaths(void)
{
	uint64_t now = clock_now(T.manager.clock);
	unsigned n_dying = 0;

	for (unsigned n = 1; n <= NODES; n++)
		n_dying += dying(n, now);
	if (n_dying == 0) {
		T.m.batch_ns = 0;
		return;
	}
	if (T.m.batch_ns == 0)
		T.m.batch_ns = now;
	for (unsigned n = 1; n <= NODES; n++)
		if (T.m.nodes[n].up && !dying(n, now) &&
		    T.m.nodes[n].heard_ns <= T.m.batch_ns)
			return;
	for (unsigned n = 1; n <= NODES; n++) {
		if (!dying(n, now))
			continue;
		node_state(n, false, &T.m.nodes[n].boot);
		T.m.nodes[n].next_boot = (struct uid128){ { 0 } };
	}
	T.m.batch_ns = 0;
	heal(0);
	publish();
}

static void
tick(struct clock_timer *t)
{
	deaths();
	for (unsigned n = 1; n <= NODES; n++) {
		if (T.m.held_until_ns[n] == 0 || held(n))
			continue;
		T.m.held_until_ns[n] = 0;
		heal(0);
	}
	if (T.m.ticks++ % 400 == 399)
		answer_polls(true);
	clock_timer_start(T.manager.clock, t, clock_now(T.manager.clock) +
	    20 * NS_PER_MS, tick);
}

/* It has the chains with it from the beginning: they are made when all nodes are there. */
static void
form(void)
{
	for (unsigned n = 1; n <= NODES; n++)
		if (!T.m.nodes[n].known)
			return;
	for (unsigned c = 1; c <= T.chains; c++) {
		struct routing_chain row = { .id = c, .version = 0,
		    .target_n = NODES };

		if (routing_chain(T.m.routing, c) != NULL)
			return;
		for (unsigned i = 0; i < NODES; i++) {
			unsigned n = 1 + (c + i) % NODES;
			struct routing_target t = { .id = 10 * c + n,
			    .changed = next_version(), .node = n,
			    .loop = (c - 1) % T.loops, .chain = c,
			    .disk = T.m.nodes[n].disks[(c - 1) % T.loops] };

			ck_assert_int_eq(routing_put_target(T.m.routing, &t), 0);
			row.targets[i] = row.preferred[i] = t.id;
			row.states[i] = TARGET_SERVING;
		}
		put_chain(&row);
	}
}

static int
take_register(const struct msg_register *q, struct msg_register_rep *rep)
{
	unsigned n = (unsigned)(q->name.p[1] - '0');
	struct routing_node row = { .id = n, .roles = NODE_STORAGE };

	ck_assert(n >= 1 && n <= NODES);
	if (T.m.nodes[n].up && !uid128_eq(&T.m.nodes[n].boot, &q->boot)) {
		T.m.nodes[n].next_boot = q->boot;
		deaths();
		if (T.m.nodes[n].up)
			return ERR_BUSY;
	}
	snprintf(row.name, sizeof(row.name), "n%u", n);
	row.boot = q->boot;
	row.state = NODE_UP;
	row.addr_n = q->addrs.n;
	for (unsigned i = 0; i < q->addrs.n; i++)
		ck_assert_int_eq(net_addr_parse(q->addrs.v[i].p, q->addrs.v[i].n,
		    &row.addrs[i], NULL), 0);
	row.changed = next_version();
	ck_assert_int_eq(routing_put_node(T.m.routing, &row), 0);
	for (unsigned k = 0; k < LOOPS; k++)	/* those that are not named are gone */
		T.m.nodes[n].failed[k] = true;
	for (unsigned i = 0; i < q->disks.n; i++) {
		const struct routing_chain *c;
		uint32_t loop = q->disks.v[i].loop;

		T.m.nodes[n].disks[loop] = q->disks.v[i].disk;
		T.m.nodes[n].failed[loop] = q->disks.v[i].failed;
		/* Another disk in the same place: its targets are there now. */
		for (unsigned k = 0; (c = routing_chain_at(T.m.routing, k)) != NULL;
		    k++) {
			const struct routing_target *at = routing_target(
			    T.m.routing, 10 * c->id + n);
			struct routing_target t = *at;

			if (t.loop != loop || uid128_eq(&t.disk,
			    &q->disks.v[i].disk))
				continue;
			t.disk = q->disks.v[i].disk;
			t.changed = next_version();
			ck_assert_int_eq(routing_put_target(T.m.routing, &t), 0);
		}
	}
	T.m.nodes[n].known = T.m.nodes[n].up = true;
	T.m.nodes[n].boot = q->boot;
	T.m.nodes[n].next_boot = (struct uid128){ { 0 } };
	T.m.nodes[n].heard_ns = clock_now(T.manager.clock);
	form();
	heal(0);
	publish();
	*rep = (struct msg_register_rep){ .node = n, .lease_ms = LEASE_MS,
	    .beat_ms = BEAT_MS, .cluster = *routing_cluster(T.m.routing) };
	return 0;
}

static node_id
node_of_row(target_id id)
{
	return routing_target(T.m.routing, id)->node;
}

/* Nodes that @n is cut from, as far as anybody says. */
static unsigned
cut_from(unsigned n)
{
	unsigned k = 0;

	for (unsigned i = 1; i <= NODES; i++)
		k += clock_now(T.manager.clock) < T.m.cuts[n][i] + 4 * BEAT_MS *
		    NS_PER_MS || clock_now(T.manager.clock) < T.m.cuts[i][n] +
		    4 * BEAT_MS * NS_PER_MS;
	return k;
}

/* @n hears nothing from @other: one of them leaves the chains where they are neighbours. */
static void
part(unsigned n, unsigned other)
{
	unsigned leaver = cut_from(n) > cut_from(other) ? n : other;
	const struct routing_chain *at;

	for (unsigned i = 0; (at = routing_chain_at(T.m.routing, i)) != NULL; i++) {
		struct routing_chain c = *at;
		unsigned active = routing_active_n(&c), k = 0;

		while (k + 1 < active && (node_of_row(c.targets[k]) != n ||
		    node_of_row(c.targets[k + 1]) != other))
			k++;
		if (k + 1 >= active)
			continue;
		c.states[leaver == n && c.states[k + 1] == TARGET_SERVING ? k :
		    k + 1] = TARGET_APART;
		put_chain(&c);
		T.m.parted++;
	}
}

static void
join(unsigned n, unsigned other)
{
	const struct routing_chain *at;

	for (unsigned i = 0; (at = routing_chain_at(T.m.routing, i)) != NULL; i++) {
		struct routing_chain c = *at;
		unsigned serving = routing_serving_n(&c);

		for (unsigned k = serving; serving > 0 && k < c.target_n; k++)
			if (node_of_row(c.targets[serving - 1]) == n &&
			    node_of_row(c.targets[k]) == other &&
			    c.states[k] == TARGET_APART) {
				c.states[k] = TARGET_WAITING;
				put_chain(&c);
				T.m.joined++;
				break;
			}
	}
}

/* True: chains have changed. */
static bool
take_neighbours(unsigned n, const msg_t_list_neighbour *rows)
{
	unsigned before = T.m.parted + T.m.joined;

	for (uint32_t i = 0; i < rows->n; i++) {
		unsigned other = rows->v[i].node;
		uint64_t was = T.m.cuts[n][other], now = clock_now(T.manager.clock);

		if (rows->v[i].reached) {
			join(n, other);
			continue;
		}
		T.m.cuts[n][other] = now;
		if (was != 0 && now - was <= 4 * BEAT_MS * NS_PER_MS &&
		    now - was >= BEAT_MS / 2 * NS_PER_MS)
			part(n, other);
	}
	return T.m.parted + T.m.joined != before;
}

/* @rows: room for what is said of those that are awaited. */
static int
take_beat(const struct msg_beat *q, struct msg_beat_rep *rep, struct msg_heard *rows)
{
	unsigned n = q->node;
	bool changed = false;

	if (n == 0 || n > NODES || !uid128_eq(&T.m.nodes[n].boot, &q->boot) ||
	    !T.m.nodes[n].known)
		return ERR_STALE_NODE;
	T.m.nodes[n].heard_ns = clock_now(T.manager.clock);
	if (!T.m.nodes[n].up) {
		node_state(n, true, &q->boot);
		changed = true;
	}
	for (unsigned i = 0; i < q->disks.n; i++) {
		uint32_t loop = q->disks.v[i].loop;

		changed |= T.m.nodes[n].failed[loop] != (q->disks.v[i].failed != 0);
		T.m.nodes[n].failed[loop] = q->disks.v[i].failed != 0;
	}
	T.m.sync_rows += q->syncs.n;
	if (!T.m.by_hand && !T.m.no_part)
		changed |= take_neighbours(n, &q->neighbours);
	if (changed) {
		heal(0);
		publish();
	}
	T.m.nodes[n].routing = q->routing;
	*rep = (struct msg_beat_rep){ .routing = routing_version(T.m.routing),
	    .heard = { rows, 0 } };
	for (uint32_t i = 0; i < q->awaited.n && i < NODES; i++) {
		node_id o = q->awaited.v[i];

		T.m.awaited++;
		rows[rep->heard.n++] = (struct msg_heard){ o, o <= NODES ?
		    T.m.nodes[o].routing : 0 };
	}
	return 0;
}

/* It lacks the space for what others have. */
static void
unfit(const struct routing_chain *at, target_id target)
{
	struct routing_chain c = *at;

	for (unsigned i = 0; i < c.target_n && routing_serving_n(&c) > 1; i++) {
		if (c.targets[i] != target || c.states[i] != TARGET_SERVING)
			continue;
		T.m.unfit++;
		c.states[i] = TARGET_OFFLINE;
		put_chain(&c);
		publish();
		return;
	}
}

static void
manager_serve(void *ctx, struct net_req *req)
{
	union {
		struct msg_register_rep reg;
		struct msg_beat_rep beat;
		struct msg_client_beat_rep client;
	} rep = { 0 };
	struct msg_heard heard[NODES];
	int rc = 0;

	(void)ctx;
	if (T.m.deaf && req->method != MSG_routing && req->method != MSG_client_beat) {
		net_req_drop(req);
		return;
	}
	switch (req->method) {
	case MSG_register:
		rc = take_register(req->msg, &rep.reg);
		break;
	case MSG_beat:
		rc = take_beat(req->msg, &rep.beat, heard);
		break;
	case MSG_client_beat:
		rep.client.beat_ms = BEAT_MS;
		rep.client.routing = routing_version(T.m.routing);
		break;
	case MSG_goodbye: {
		const struct msg_goodbye *q = req->msg;

		if (uid128_eq(&T.m.nodes[q->node].boot, &q->boot)) {
			T.m.nodes[q->node].goodbyes++;
			node_state(q->node, false, &q->boot);
			heal(0);
			publish();
		}
		net_reply(req, 0, NULL, NULL, 0, NULL, NULL);
		return;
	}
	case MSG_synced: {
		const struct msg_synced *q = req->msg;
		const struct routing_chain *c = routing_chain(T.m.routing, q->chain);

		T.m.synced++;
		T.m.last_synced = *q;
		if (c == NULL || c->version != q->version)
			rc = ERR_STALE_CHAIN;
		else if (q->rc == 0)
			heal(q->target);
		else {
			T.m.refused++;
			T.m.held_until_ns[node_of(q->target)] =
			    clock_now(T.manager.clock) + T.m.hold_ns;
			unfit(c, q->target);
			heal(0);
		}
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
		return;
	}
	case MSG_routing:
		ck_assert_uint_lt(T.m.poll_n, POLLS);
		T.m.polls[T.m.poll_n++] = req;
		publish();
		return;
	default:
		rc = ERR_BAD_METHOD;
	}
	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
}

static void
manager_up(void)
{
	struct host *h = &T.manager;
	struct net_server_conf sc = { .conns_max = 64, .reqs_max = 256,
	    .conn_reqs_max = 64, .hello_ms = 2000, .payload_ms = 2000 };
	struct uid128 cluster;

	host_up(h, "manager", 1);
	ck_assert_int_eq(routing_open(&T.m.routing), 0);
	random_bytes(NULL, &cluster, sizeof(cluster));
	routing_set_cluster(T.m.routing, &cluster);
	sc.hub = h->hubs[0];
	net_addr_parse("sim:0:0", 7, &sc.listen, NULL);
	ck_assert_int_eq(net_server_open(&T.m.server, &sc), 0);
	net_server_handle(T.m.server, 0x01, manager_serve, NULL);
	net_server_addr(T.m.server, &T.manager_addr);
	tick(&T.m.tick);
	h->ready = true;
}

static void
manager_down(void)
{
	clock_timer_stop(T.manager.clock, &T.m.tick);
	for (unsigned i = 0; i < T.m.poll_n; i++)
		net_req_drop(T.m.polls[i]);
	net_server_close(T.m.server);
	routing_close(T.m.routing);
}

#endif
