/* SPDX-License-Identifier: MIT */
/* group_rig.h - nodes with a member of one replicated group each, on simulated hosts; commands and
 * reads of which is known what they must see. */
#ifndef TESTS_GROUP_RIG_H
#define TESTS_GROUP_RIG_H

#include "meta/group.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/err.h"
#include "net/msg_all.h"
#include "net/serve.h"
#include "tests/box_end.h"
#include "tests/sim/net.h"

#define NODES		6u
#define REQS		24u
#define INDEX_MAX	60000u
#define SERIALS		60000u
#define KEYS		8u

struct node;

struct req {
	struct group_req r;
	struct node	*n;
	bool		 out, read;
	uint64_t	 serial;
	unsigned	 key;
	uint64_t	 low;		/* index that its result must reach */
};

struct node {
	unsigned	 i;
	struct rand	 rand, nonces;
	struct sim_box	*box;
	struct clock	*clock;
	struct disk_dir	*dir;
	struct net_hub	*hub;
	struct net_server *server;
	struct group	*group;
	struct log	 log;
	bool		 up, leads, broken;
	int		 broken_rc;
	unsigned	 restores, told_members;
	uint64_t	 restored_at;	/* index of the last table that came */
	bool		 floor_kept;	/* and whether it still said: floor */
	struct req	 reqs[REQS];
};

static struct {
	struct rand	  rand;
	struct sim_clock *world;
	struct sim_net	 *net;
	struct node	  nodes[NODES];
	uint64_t	  log_bytes;
	uint32_t	  flush_bytes, flush_ms;
	uint64_t	  table_bytes;
	size_t		  pad;			/* bytes of a command, at most */
	/* what the world knows */
	uint64_t	  serial;
	uint64_t	 *at;			/* index -> serial, 0: none or not known */
	uint64_t	 *where;		/* serial -> index */
	uint64_t	 *hash;			/* after that index */
	bool		 *acked;		/* serial */
	uint64_t	  low[KEYS];		/* index that was written or read */
	uint64_t	  acks, reads, last_acked;
	bool		  verbose;
} t;

static void
sink(void *ctx, enum log_level level, const char *who, const char *what,
    const char *fields)
{
	(void)level;
	(void)ctx;
	if (t.verbose)
		printf("[%9lu] %s: %s %s\n",
		    (unsigned long)(sim_clock_now(t.world) / NS_PER_US), who, what,
		    fields);
}

static void
nonce(void *ctx, void *out, size_t n)
{
	rand_bytes(ctx, out, n);
}

static uint64_t
get(struct node *n, const void *key, size_t len)
{
	const void *value;
	size_t value_len;
	int rc = table_get(group_table(n->group), key, len, &value, &value_len);

	if (rc == -ENOENT)
		return 0;
	ck_assert_int_eq(rc, 0);
	ck_assert_uint_ge(value_len, 8);
	return bytes_from_be64(value);
}

static bool
floor_row(struct node *n)
{
	static const uint8_t key[] = { 0, 'f', 'l', 'o', 'o', 'r' };
	const void *value;
	size_t len;

	return table_get(group_table(n->group), key, sizeof(key), &value, &len) == 0;
}

static uint64_t
mix(uint64_t hash, uint64_t serial)
{
	return (hash ^ serial) * 0x9e3779b97f4a7c15ull + 1;
}

/* Serial, key, filler.  The row of the key gets the index, "hash" that of all commands. */
static size_t
apply(void *ctx, uint64_t index, const void *cmd, size_t len, void *result,
    size_t cap)
{
	struct node *n = ctx;
	uint64_t serial, hash;
	static uint8_t value[GROUP_CMD_MAX];
	uint8_t key[3] = { 'k' };

	ck_assert_uint_ge(len, 9);
	ck_assert_uint_ge(cap, 8);
	ck_assert_uint_lt(index, INDEX_MAX);
	ck_assert_uint_eq(index, group_applied(n->group) + 1);
	serial = bytes_from_be64(cmd);
	if (t.at[index] == 0) {
		t.at[index] = serial;
		ck_assert_uint_eq(t.where[serial], 0);	/* applied once */
		t.where[serial] = index;
	}
	ck_assert_msg(t.at[index] == serial, "node %u index %lu: %lu, not %lu",
	    n->i, (unsigned long)index, (unsigned long)serial,
	    (unsigned long)t.at[index]);
	hash = mix(get(n, "hash", 4), serial);
	if (t.hash[index] == 0)
		t.hash[index] = hash;
	ck_assert_uint_eq(t.hash[index], hash);
	bytes_be64(value, hash);
	ck_assert_int_eq(table_put(group_table(n->group), "hash", 4, value, 8), 0);
	bytes_be64(value, index);
	memcpy(value + 8, (const uint8_t *)cmd + 8, len - 8);
	key[1] = ((const uint8_t *)cmd)[8];
	ck_assert_int_eq(table_put(group_table(n->group), key, 2, value, len), 0);
	key[0] = 'f';			/* and rows that fill the table */
	key[1] = (uint8_t)(serial >> 8 & 3);
	key[2] = (uint8_t)serial;
	ck_assert_int_eq(table_put(group_table(n->group), key, 3, value, len), 0);
	bytes_be64(result, index);
	return 8;
}

static void
leader(void *ctx, bool leads)
{
	struct node *n = ctx;

	ck_assert(leads != n->leads);
	n->leads = leads;
}

static void
broken(void *ctx, int rc)
{
	struct node *n = ctx;

	n->broken = true;
	n->broken_rc = rc;
}

static void
restored(void *ctx)
{
	struct node *n = ctx;

	n->restores++;
	n->restored_at = group_applied(n->group);
	n->floor_kept = floor_row(n);
}

static void
members(void *ctx)
{
	struct node *n = ctx;

	n->told_members++;
}

static const struct group_ops ops = {
	.apply = apply, .leader = leader, .broken = broken, .restored = restored,
	.members = members,
};

static void
serve(void *ctx, struct net_req *req)
{
	struct node *n = ctx;

	group_serve(n->group, req);
}

/* ---- requests ---- */

static void
answered(struct group_req *r, int rc, const void *result, size_t len)
{
	struct req *q = container_of(r, struct req, r);

	ck_assert(q->out);
	q->out = false;
	if (rc != 0)
		return;
	ck_assert_uint_eq(len, 8);
	ck_assert_uint_eq(bytes_from_be64(result), r->index);
	ck_assert_uint_eq(t.at[r->index], q->serial);
	ck_assert_uint_gt(r->index, q->low);	/* after what ended before it began */
	t.acked[q->serial] = true;
	t.acks++;
	t.last_acked = r->index;
	if (t.low[q->key] < r->index)
		t.low[q->key] = r->index;
}

static void
may_read(struct group_req *r, int rc, const void *result, size_t len)
{
	struct req *q = container_of(r, struct req, r);
	uint8_t key[2] = { 'k', (uint8_t)q->key };
	uint64_t index;

	(void)result;
	(void)len;
	ck_assert(q->out);
	q->out = false;
	if (rc != 0)
		return;
	index = get(q->n, key, 2);
	ck_assert_msg(index >= q->low, "node %u key %u: read %lu, but %lu was there",
	    q->n->i, q->key, (unsigned long)index, (unsigned long)q->low);
	if (t.low[q->key] < index)
		t.low[q->key] = index;
	t.reads++;
}

static struct req *
free_req(struct node *n)
{
	for (unsigned i = 0; i < REQS; i++)
		if (!n->reqs[i].out) {
			n->reqs[i] = (struct req){ .n = n };
			return &n->reqs[i];
		}
	return NULL;
}

static int
propose(struct node *n)
{
	static uint8_t cmd[GROUP_CMD_MAX];
	struct req *q = free_req(n);
	int rc;

	if (q == NULL)
		return ERR_BUSY;
	q->serial = ++t.serial;
	ck_assert_uint_lt(q->serial, SERIALS);
	q->key = (unsigned)rand_below(&t.rand, KEYS);
	q->low = t.low[q->key];
	bytes_be64(cmd, q->serial);
	cmd[8] = (uint8_t)q->key;
	rc = group_propose(n->group, &q->r, cmd, 9 + rand_below(&t.rand, t.pad + 1),
	    answered);
	q->out = rc == 0;
	return rc;
}

static inline int
start_read(struct node *n)
{
	struct req *q = free_req(n);
	int rc;

	if (q == NULL)
		return ERR_BUSY;
	q->read = true;
	q->key = (unsigned)rand_below(&t.rand, KEYS);
	q->low = t.low[q->key];
	rc = group_read(n->group, &q->r, may_read);
	q->out = rc == 0;
	return rc;
}

/* ---- nodes ---- */

static struct net_addr
addr_of(unsigned i)
{
	struct net_addr a;
	char text[32];

	snprintf(text, sizeof(text), "sim:%u:0", i + 1);
	ck_assert_int_eq(net_addr_parse(text, strlen(text), &a, NULL), 0);
	return a;
}

static void
up(unsigned i, enum group_start how)
{
	struct node *n = &t.nodes[i];
	struct net_hub_conf hc = { .rand = &n->rand, .nonce = nonce,
		.nonce_ctx = &n->nonces, .calls_max = 4096, .idle_ms = 60000,
		.log = &n->log };
	struct net_server_conf sc = { .conns_max = 100, .reqs_max = 2048,
		.conn_reqs_max = 2048, .hello_ms = 2000, .payload_ms = 5000 };

	ck_assert(!n->up);
	log_init(&n->log, (char[]){ (char)('A' + i), 0 });
	n->log.sink = sink;
	n->clock = sim_clock_node(t.world, i * NS_PER_S, (int32_t)(i * 50) - 100);
	sim_net_host_up(t.net, i + 1);
	hc.clock = n->clock;
	memset(hc.key, 7, sizeof(hc.key));
	ck_assert_int_eq(net_hub_open(&n->hub, &hc), 0);
	net_hub_add(n->hub, sim_net_transport(t.net, i + 1, 0, n->clock));
	sc.hub = n->hub;
	sc.listen = addr_of(i);
	ck_assert_int_eq(net_server_open(&n->server, &sc), 0);
	net_server_handle(n->server, GROUP_SERVICE, serve, n);
	ck_assert_int_eq(sim_disk_dir(n->box, n->clock, "d", true, &n->dir), 0);
	n->leads = n->broken = false;
	memset(n->reqs, 0, sizeof(n->reqs));
	n->up = true;
	ck_assert_int_eq(group_open(&n->group, &(struct group_conf){
		.clock = n->clock, .log = &n->log, .dir = n->dir,
		.log_bytes = t.log_bytes, .table_bytes = t.table_bytes,
		.inflight_max = 1000, .flush_bytes = t.flush_bytes,
		.flush_ms = t.flush_ms, .ops = &ops, .ctx = n, .rand = &n->rand,
		.hub = n->hub, .number = 1, .addr = addr_of(i), .start = how }), 0);
}

static void
down(unsigned i, enum end how)
{
	struct node *n = &t.nodes[i];

	if (!n->up)
		return;
	if (how == CRASH)
		sim_net_host_down(t.net, i + 1);
	box_ends(n->box, n->clock, how);
	net_server_close(n->server);
	group_close(n->group);
	net_hub_close(n->hub);
	n->group = NULL;
	box_ended(&n->dir, n->clock, how);
	n->up = n->leads = false;
}

static void
setup_seed(uint64_t seed)
{
	memset(&t, 0, sizeof(t));
	t.verbose = getenv("VERBOSE") != NULL;
	rand_seed(&t.rand, seed);
	t.world = sim_clock_open();
	t.net = sim_net_open(sim_clock_world(t.world), seed);
	t.log_bytes = 1u << 20;
	t.flush_bytes = 64u << 10;
	t.flush_ms = 200;
	t.table_bytes = 64u << 20;
	t.pad = 300;
	t.at = calloc(INDEX_MAX, sizeof(*t.at));
	t.hash = calloc(INDEX_MAX, sizeof(*t.hash));
	t.where = calloc(SERIALS, sizeof(*t.where));
	t.acked = calloc(SERIALS, sizeof(*t.acked));
	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &t.nodes[i];

		n->i = i;
		rand_seed(&n->rand, seed * 100 + i);
		rand_seed(&n->nonces, seed * 100 + i + 50);
		n->box = sim_box_open(&n->rand);
	}
}

static void
setup(void)
{
	setup_seed(1);
}

static void
teardown(void)
{
	for (unsigned i = 0; i < NODES; i++) {
		down(i, CLEAN);
		sim_box_close(t.nodes[i].box);
	}
	sim_net_close(t.net);
	sim_clock_close(t.world);
	free(t.at);
	free(t.hash);
	free(t.where);
	free(t.acked);
}

/* ---- waiting ---- */

static struct node *
leading(void)
{
	for (unsigned i = 0; i < NODES; i++)
		if (t.nodes[i].up && group_lease(t.nodes[i].group))
			return &t.nodes[i];
	return NULL;
}

static bool
some_leads(void *ctx)
{
	(void)ctx;
	return leading() != NULL;
}

static struct node *
wait_leader(void)
{
	ck_assert_msg(sim_clock_run_until(t.world, some_leads, NULL, 10 * NS_PER_S),
	    "nobody leads");
	return leading();
}

/* The members are the nodes of these bits, all voters. */
static bool
settled(void *ctx)
{
	unsigned bits = *(unsigned *)ctx, have = 0;
	struct node *l = leading();
	const struct raft_members *m;

	if (l == NULL)
		return false;
	m = group_members(l->group);
	for (unsigned i = 0; i < m->n; i++)
		for (unsigned k = 0; k < NODES; k++) {
			struct net_addr a = addr_of(k);

			if (net_addr_eq(&m->m[i].addr, &a))
				have |= m->m[i].voter && (!t.nodes[k].up ||
				    m->m[i].id == group_member(t.nodes[k].group)) ?
				    1u << k : 1u << NODES;
		}
	return have == bits;
}

/* The group's members are to be the nodes whose bit is set. */
static void
want(unsigned bits)
{
	struct group_want w[NODES];
	unsigned n = 0;

	for (unsigned i = 0; i < NODES; i++)
		if (bits & 1u << i) {
			memset(&w[n], 0, sizeof(w[n]));
			w[n++].addr = addr_of(i);
		}
	for (unsigned i = 0; i < NODES; i++)
		if (t.nodes[i].up)
			group_want(t.nodes[i].group, w, n);
	ck_assert_msg(sim_clock_run_until(t.world, settled, &bits, 60 * NS_PER_S),
	    "members do not become %x", bits);
}

/* @n members, the first founds. */
static void
form(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		up(i, i == 0 ? GROUP_FOUND : GROUP_JOIN);
	wait_leader();
	want((1u << n) - 1);
}

static bool
level(void *ctx)
{
	uint64_t top = 0;

	(void)ctx;
	for (unsigned i = 0; i < NODES; i++)
		if (t.nodes[i].up && group_applied(t.nodes[i].group) > top)
			top = group_applied(t.nodes[i].group);
	for (unsigned i = 0; i < NODES; i++)
		if (t.nodes[i].up && (t.nodes[i].broken ||
		    group_applied(t.nodes[i].group) != top))
			return false;
	return leading() != NULL && top >= t.last_acked;
}

/* All that run have applied the same; nothing acknowledged is missing. */
static inline void
check_level(void)
{
	uint64_t hash = 0;

	if (!sim_clock_run_until(t.world, level, NULL, 60 * NS_PER_S)) {
		for (unsigned i = 0; i < NODES; i++)
			if (t.nodes[i].up)
				fprintf(stderr, "%u: applied %lu of %lu %s\n", i,
				    (unsigned long)group_applied(t.nodes[i].group),
				    (unsigned long)t.last_acked,
				    err_name(t.nodes[i].broken_rc));
		ck_abort_msg("they do not come level");
	}
	for (unsigned i = 0; i < NODES; i++) {
		if (!t.nodes[i].up)
			continue;
		if (hash == 0)
			hash = get(&t.nodes[i], "hash", 4);
		ck_assert_uint_eq(get(&t.nodes[i], "hash", 4), hash);
	}
	for (uint64_t s = 1; s <= t.serial; s++)
		ck_assert(!t.acked[s] || t.where[s] != 0);
}

/* Propose at whoever leads until @n more are acknowledged. */
static void
load(uint64_t n)
{
	uint64_t to = t.acks + n, until = sim_clock_now(t.world) + 60 * NS_PER_S;

	while (t.acks < to) {
		struct node *l = leading();

		ck_assert_msg(sim_clock_now(t.world) < until, "no progress");
		while (l != NULL && propose(l) == 0)
			;
		sim_clock_run(t.world, NS_PER_MS);
	}
}

#endif
