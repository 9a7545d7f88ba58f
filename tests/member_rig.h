/* SPDX-License-Identifier: MIT */
/* member_rig.h - membership against scripted managers, on virtual time.
 *
 * The calls below replace net/call.c: each is answered after DELAY by what the script says,
 * or not at all, and then ends at its deadline. */
#ifndef TESTS_MEMBER_RIG_H
#define TESTS_MEMBER_RIG_H

#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "conf/err.h"
#include "net/member.h"
#include "net/msg_all.h"
#include "tests/sim/clock.h"
#include "tests/suite.h"

#define DELAY_NS (1 * NS_PER_MS)
#define MANAGERS 3

/* One manager as the script has it; the next answer to any call is made from this. */
static struct manager {
	int	 rc;			/* of every call; 0: serve */
	bool	 silent;		/* never answers */
	uint64_t hold_ms;		/* keeps registrations so long */
	unsigned calls;
} managers[MANAGERS];

/* What they all know. */
static struct {
	uint64_t routing;		/* newest version */
	uint32_t lease_ms, beat_ms;
	int	 beat_rc;		/* 0: take beats */
	unsigned registers, beats, goodbyes, polls, refreshes, client_beats;
	uint64_t refresh_ns[100], beat_ns;
	uint8_t	 leaving;
	uint32_t disks;			/* rows in the last register or beat */
	char	 said[300];		/* the last register or client_beat */
	uint64_t took_ns;		/* when a beat was last taken */
	unsigned at_once;		/* most calls of presence in flight */
	struct uid128 boot, cluster;
	bool	 hasty;			/* answers polls at once */
	bool	 no_routing;		/* calls for routing fail */
	uint64_t told_routing;		/* in the last beat */
	unsigned awaited;		/* nodes in beats, so far */
	unsigned heard_n;		/* nodes that we wait for */
} cluster;

static struct sim_clock *world;
static struct clock *clk;
static struct rand rnd;
static struct member *m;
static unsigned changes, left, told_heard;

/* What a manager says that other nodes have heard. */
static struct msg_heard heard_rows[MEMBER_AWAITED_MAX] = { { 3, 9 } };

/* ---- the calls ---- */

#define CALLS 8
static struct slot {
	struct net_call *c;
	struct clock_timer timer;
	uint16_t method;
	unsigned to;
	uint64_t have, deadline_ns;
	bool	 polling;
	int	 rc;
	union {
		struct msg_register_rep reg;
		struct msg_beat_rep beat;
		struct msg_routing_rep routing;
		struct msg_client_beat_rep client;
		struct msg_none none;
	} rep;
} slots[CALLS];

static struct msg_rt_node node_row;

static void
end_call(struct clock_timer *t)
{
	struct slot *s = container_of(t, struct slot, timer);
	struct net_call *c = s->c;
	struct slot was = *s;		/* fn may use the slot again */

	s->c = NULL;
	c->id = 0;
	c->rep = &was.rep;
	c->fn(c, was.rc);
}

static void
answer_at(struct slot *s, uint64_t at, int rc)
{
	s->rc = rc;
	if (at > s->deadline_ns || (rc == 0 && managers[s->to].silent)) {
		at = s->deadline_ns;
		s->rc = -ETIMEDOUT;
	}
	if (s->rc != 0)
		memset(&s->rep, 0, sizeof(s->rep));
	clock_timer_start(clk, &s->timer, at, end_call);
}

static void
answer_routing(struct slot *s)
{
	node_row = (struct msg_rt_node){ .id = 1, .changed = cluster.routing };
	s->rep.routing = (struct msg_routing_rep){ .cluster = cluster.cluster,
	    .version = cluster.routing };
	if (cluster.routing > s->have) {
		s->rep.routing.nodes.v = &node_row;
		s->rep.routing.nodes.n = 1;
	}
}

static int
serve(struct slot *s, const void *req)
{
	switch (s->method) {
	case MSG_register: {
		const struct msg_register *r = req;

		cluster.registers++;
		cluster.disks = r->disks.n;
		msg_print(&msg_type_register, r, cluster.said,
		    sizeof(cluster.said));
		cluster.boot = r->boot;
		s->rep.reg = (struct msg_register_rep){ 7, cluster.lease_ms,
		    cluster.beat_ms, cluster.cluster };
		return 0;
	}
	case MSG_beat: {
		const struct msg_beat *b = req;

		ck_assert_uint_eq(b->node, 7);
		ck_assert(uid128_eq(&b->boot, &cluster.boot));
		cluster.beats++;
		cluster.disks = b->disks.n;
		cluster.beat_ns = clock_now(clk);
		cluster.took_ns = sim_clock_now(world);
		cluster.told_routing = b->routing;
		cluster.awaited += b->awaited.n;
		s->rep.beat = (struct msg_beat_rep){ cluster.routing, 1000, 10,
		    0, { heard_rows, b->awaited.n } };
		return cluster.beat_rc;
	}
	case MSG_routing: {
		const struct msg_routing *q = req;

		s->have = q->have;
		if (q->wait_ms == 0)
			cluster.refresh_ns[cluster.refreshes++ % 100] =
			    clock_now(clk);
		else {
			cluster.polls++;
			s->polling = q->have >= cluster.routing;
		}
		answer_routing(s);
		return 0;
	}
	case MSG_goodbye:
		cluster.goodbyes++;
		return 0;
	case MSG_client_beat: {
		const struct msg_client_beat *b = req;

		cluster.client_beats++;
		cluster.leaving = b->leaving;
		msg_print(&msg_type_client_beat, b, cluster.said,
		    sizeof(cluster.said));
		s->rep.client = (struct msg_client_beat_rep){ cluster.beat_ms,
		    cluster.routing, 0 };
		return cluster.beat_rc;
	}
	default:
		ck_abort_msg("method %u", s->method);
	}
	return 0;
}

static void
count_presence(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < CALLS; i++)
		n += slots[i].c != NULL && slots[i].method != MSG_routing;
	if (n > cluster.at_once)
		cluster.at_once = n;
}

int
net_call_start(struct net_call *c, struct net_hub *hub, const struct net_addr *to,
    uint16_t method, const void *req, const struct net_call_opts *opts,
    net_call_fn *fn)
{
	struct slot *s = slots;
	int rc;

	(void)hub;
	ck_assert(!net_call_active(c));
	while (s->c != NULL)
		ck_assert(++s < slots + CALLS);
	memset(&s->rep, 0, sizeof(s->rep));
	s->c = c;
	c->fn = fn;
	c->id = 1;
	s->method = method;
	s->to = to->id;
	s->polling = false;
	s->deadline_ns = opts->deadline_ns;
	managers[s->to].calls++;
	count_presence();
	rc = managers[s->to].rc;
	if (rc == 0 && method == MSG_routing && cluster.no_routing)
		rc = ERR_BUSY;
	if (rc == 0 && !managers[s->to].silent)
		rc = serve(s, req);
	if (s->polling && rc == 0 && !cluster.hasty)
		answer_at(s, clock_now(clk) + 10 * NS_PER_S, 0);
	else if (method == MSG_register && rc == 0)
		answer_at(s, clock_now(clk) + DELAY_NS +
		    managers[s->to].hold_ms * NS_PER_MS, rc);
	else
		answer_at(s, clock_now(clk) + DELAY_NS, rc);
	return 0;
}

void
net_call_cancel(struct net_call *c)
{
	for (unsigned i = 0; i < CALLS; i++)
		if (slots[i].c == c) {
			clock_timer_stop(clk, &slots[i].timer);
			slots[i].c = NULL;
		}
	c->id = 0;
}

bool
net_call_active(const struct net_call *c)
{
	return c->id != 0;
}

/* A new version: polls that wait are answered. */
static void
publish(uint64_t version)
{
	cluster.routing = version;
	for (unsigned i = 0; i < CALLS; i++)
		if (slots[i].c != NULL && slots[i].polling &&
		    !managers[slots[i].to].silent) {
			slots[i].polling = false;
			answer_routing(&slots[i]);
			answer_at(&slots[i], clock_now(clk) + DELAY_NS, 0);
		}
}

/* ---- the test world ---- */

static void
on_changed(void *ctx)
{
	ck_assert_ptr_eq(ctx, &world);
	changes++;
}

static void
on_left(void *ctx)
{
	ck_assert_ptr_eq(ctx, &world);
	left++;
}

static unsigned
some_disks(void *ctx, struct msg_disk_info *rows, unsigned max)
{
	(void)ctx;
	ck_assert_uint_ge(max, 2);
	memset(rows, 0, 2 * sizeof(*rows));
	rows[0].path = rows[1].path = msg_str("/d");
	return 2;
}

static unsigned
some_awaited(void *ctx, uint32_t *rows, unsigned max)
{
	(void)ctx;
	ck_assert_uint_ge(max, cluster.heard_n);
	for (unsigned i = 0; i < cluster.heard_n; i++)
		rows[i] = 3 + i;
	return cluster.heard_n;
}

static void
on_heard(void *ctx, const struct msg_heard *rows, unsigned n)
{
	ck_assert_ptr_eq(ctx, &world);
	ck_assert_uint_eq(n, 1);
	ck_assert_uint_eq(rows[0].node, 3);
	ck_assert_uint_eq(rows[0].routing, 9);
	told_heard++;
}

static void
setup(void)
{
	memset(managers, 0, sizeof(managers));
	memset(&cluster, 0, sizeof(cluster));
	memset(slots, 0, sizeof(slots));
	cluster.lease_ms = 3000;
	cluster.beat_ms = 500;
	cluster.routing = 1;
	cluster.cluster.b[0] = 1;
	world = sim_clock_open();
	clk = sim_clock_node(world, 12345 * NS_PER_S, 0);
	rand_seed(&rnd, 1);
	changes = left = told_heard = 0;
	m = NULL;
}

static void
teardown(void)
{
	member_close(m);
	for (unsigned i = 0; i < CALLS; i++)
		ck_assert_ptr_null(slots[i].c);
	ck_assert_uint_eq(sim_clock_node_pending(clk), 0);
	sim_clock_close(world);
}

static void
join(uint32_t roles, unsigned manager_n)
{
	struct net_addr to[MANAGERS] = { { .kind = NET_ADDR_SIM, .id = 0 },
	    { .kind = NET_ADDR_SIM, .id = 1 }, { .kind = NET_ADDR_SIM, .id = 2 } };
	struct net_addr mine[2] = { { .kind = NET_ADDR_SIM, .id = 9 },
	    { .kind = NET_ADDR_SIM, .id = 9, .port = 1 } };
	struct member_conf c = { .clock = clk, .rand = &rnd, .managers = to,
	    .manager_n = manager_n, .roles = roles, .boot = { { 3 } },
	    .node_uid = { { 4 } }, .name = "n1", .addrs = mine, .addr_n = 2,
	    .client = { { 5 } }, .mount = "/m", .disks = some_disks,
	    .awaited = some_awaited, .heard = on_heard, .changed = on_changed,
	    .ctx = &world, .pid = 77 };

	ck_assert_int_eq(member_open(&m, &c), 0);
	ck_assert_uint_eq(managers[0].calls + managers[1].calls, 0);
}

static void
run_ms(uint64_t ms)
{
	sim_clock_run(world, ms * NS_PER_MS);
}

static uint64_t
lease_left_ms(void)
{
	uint64_t until = member_lease_until_ns(m), now = clock_now(clk);

	return until > now ? (until - now) / NS_PER_MS : 0;
}

#endif
