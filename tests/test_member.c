/* SPDX-License-Identifier: MIT */
/* test_member.c - membership against scripted managers, on virtual time.
 *
 * The calls below replace net/call.c: each is answered after DELAY by what the script says,
 * or not at all, and then ends at its deadline. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "conf/err.h"
#include "net/member.h"
#include "net/msg_all.h"
#include "tests/sim/clock.h"

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
} cluster;

static struct sim_clock *world;
static struct clock *clk;
static struct rand rnd;
static struct member *m;
static unsigned changes, left;

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
		s->rep.beat = (struct msg_beat_rep){ cluster.routing, 1000, 10,
		    0 };
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

/* Manager @id dies: everything it was asked ends now. */
static void
reset(unsigned id)
{
	managers[id].rc = -ECONNRESET;
	for (unsigned i = 0; i < CALLS; i++)
		if (slots[i].c != NULL && slots[i].to == id)
			answer_at(&slots[i], clock_now(clk), -ECONNRESET);
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
	changes = left = 0;
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
	    .changed = on_changed, .ctx = &world, .pid = 77 };

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

/* ---- servers ---- */

START_TEST(registers_and_beats)
{
	struct net_addr at;
	uint64_t total, used;

	join(NODE_STORAGE, 1);
	ck_assert_uint_eq(member_node(m), 0);
	ck_assert_uint_eq(member_lease_until_ns(m), 0);
	member_manager(m, &at);
	ck_assert_uint_eq(at.kind, NET_ADDR_NONE);
	run_ms(10);
	ck_assert_uint_eq(member_node(m), 7);
	ck_assert_uint_eq(cluster.registers, 1);
	ck_assert_uint_eq(cluster.beats, 1);
	ck_assert_uint_eq(cluster.disks, 2);
	ck_assert_ptr_nonnull(strstr(cluster.said, "name=\"n1\""));
	ck_assert_ptr_nonnull(strstr(cluster.said,
	    "addrs=[\"sim:9:0\" \"sim:9:1\"]"));
	member_manager(m, &at);
	ck_assert_uint_eq(at.kind, NET_ADDR_SIM);
	member_space(m, &total, &used);
	ck_assert(total == 1000 && used == 10);
	/* from the sending of the beat, not from its answer */
	ck_assert_uint_eq(member_lease_until_ns(m),
	    cluster.beat_ns + 3000 * NS_PER_MS);
	ck_assert_uint_ge(changes, 1);
	run_ms(10000);
	ck_assert_uint_ge(cluster.beats, 20);
	ck_assert_uint_le(cluster.beats, 25);
	ck_assert_uint_ge(lease_left_ms(), 2400);
	ck_assert_uint_eq(cluster.registers, 1);
	ck_assert_uint_eq(cluster.refreshes, 0);
}
END_TEST

/* The manager falls silent: the lease ends when it said, and not a moment later. */
START_TEST(lease_runs_out)
{
	uint64_t until;

	join(NODE_STORAGE, 1);
	run_ms(1000);
	managers[0].silent = true;
	until = member_lease_until_ns(m);
	run_ms(20000);
	ck_assert_uint_le(member_lease_until_ns(m), until);
	ck_assert_uint_eq(lease_left_ms(), 0);
	changes = 0;
	managers[0].silent = false;
	run_ms(3000);
	ck_assert_uint_ge(lease_left_ms(), 2000);
	ck_assert_uint_ge(changes, 1);
	ck_assert_uint_eq(cluster.registers, 1);
}
END_TEST

/* What was ours before a lapse may be another's: the routing that one has to have is asked
 * for at once, and the lease that is won again names it. */
START_TEST(lease_after_a_lapse)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	publish(5);
	run_ms(1000);
	managers[0].silent = true;
	run_ms(20000);
	cluster.routing = 9;			/* no poll brings it */
	managers[0].silent = false;
	for (int i = 0; i < 5000 && lease_left_ms() == 0; i++)
		run_ms(1);
	ck_assert_uint_gt(lease_left_ms(), 0);
	ck_assert_uint_eq(member_lease_routing(m), 9);
	run_ms(100);
	ck_assert_uint_eq(routing_version(member_routing(m)), 9);
}
END_TEST

/* An answer late by most of a lease counts from when its beat was sent. */
START_TEST(silence_is_short_enough)
{
	join(NODE_STORAGE, 1);
	run_ms(100);
	managers[0].silent = true;
	run_ms(1300);		/* one beat is given up after a third of the lease */
	managers[0].silent = false;
	run_ms(700);
	ck_assert_uint_ge(lease_left_ms(), 2000);
}
END_TEST

START_TEST(stale_registers_again)
{
	join(NODE_STORAGE, 1);
	run_ms(100);
	cluster.beat_rc = ERR_STALE_NODE;
	changes = 0;
	for (int i = 0; i < 502 && member_lease_until_ns(m) != 0; i++)
		run_ms(1);
	ck_assert_uint_eq(member_lease_until_ns(m), 0);	/* at once */
	ck_assert_uint_ge(changes, 1);
	run_ms(5000);		/* another process fights for the node */
	ck_assert_uint_ge(cluster.registers, 5);
	ck_assert_uint_le(cluster.registers, 12);
	cluster.beat_rc = 0;
	run_ms(2100);
	ck_assert_uint_eq(cluster.boot.b[0], 3);	/* the same boot */
	ck_assert_uint_ge(lease_left_ms(), 2400);
	cluster.registers = 0;
	run_ms(5000);
	ck_assert_uint_eq(cluster.registers, 0);
}
END_TEST

/* The registration of a process before us came late, after ours. */
START_TEST(taken_for_late)
{
	static const struct uid128 first = { { 3 } };

	join(NODE_STORAGE, 1);
	run_ms(100);
	ck_assert(uid128_eq(member_boot(m), &first));
	managers[0].rc = ERR_STALE_NODE;
	run_ms(2000);
	ck_assert_uint_eq(member_lease_until_ns(m), 0);
	managers[0].rc = 0;
	run_ms(2000);
	ck_assert_uint_eq(member_lease_until_ns(m), 0);	/* not at once */
	run_ms(4000);
	ck_assert(!uid128_eq(member_boot(m), &first));
	ck_assert(uid128_eq(member_boot(m), &cluster.boot));
	ck_assert_uint_ge(lease_left_ms(), 2400);
}
END_TEST

START_TEST(finds_the_leader)
{
	struct net_addr at;

	managers[0].rc = -ECONNREFUSED;
	managers[1].rc = ERR_NOT_LEADER;
	join(NODE_METADATA, 3);
	run_ms(200);
	ck_assert_uint_eq(member_node(m), 7);
	ck_assert_uint_eq(routing_version(member_routing(m)), 1);
	member_manager(m, &at);
	ck_assert_uint_eq(at.id, 2);
	/* it dies, another leads */
	managers[2].rc = -ECONNRESET;
	managers[1].rc = 0;
	run_ms(1500);
	member_manager(m, &at);
	ck_assert_uint_eq(at.id, 1);
	ck_assert_uint_ge(lease_left_ms(), 2000);
	publish(2);		/* the poll has moved too */
	run_ms(50);
	ck_assert_uint_eq(routing_version(member_routing(m)), 2);
}
END_TEST

/* Poll and refresh fail together: that is one step to the next manager, not two, which
 * of two managers would be back to the dead one. */
START_TEST(moves_on_once)
{
	unsigned asked;

	managers[1].rc = ERR_NOT_LEADER;
	join(NODE_STORAGE, 2);
	run_ms(1000);
	managers[1].rc = 0;
	member_refresh(m);
	while (cluster.refreshes == 0)
		ck_assert(sim_clock_step(world));
	reset(0);
	asked = managers[0].calls;
	managers[1].calls = 0;
	run_ms(2000);
	ck_assert_uint_eq(managers[0].calls, asked);
	ck_assert_uint_ge(managers[1].calls, 5);
}
END_TEST

/* A manager that was away may have forgotten the poll that waits there. */
START_TEST(polls_again_after_silence)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	managers[0].silent = true;
	publish(2);
	run_ms(2500);
	managers[0].silent = false;
	for (int i = 0; i < 2000 && routing_version(member_routing(m)) < 2; i++)
		run_ms(1);
	ck_assert_uint_eq(routing_version(member_routing(m)), 2);
	ck_assert_uint_eq(cluster.refreshes, 0);
}
END_TEST

START_TEST(backs_off)
{
	unsigned calls;

	managers[0].rc = -ECONNREFUSED;
	join(NODE_STORAGE, 1);
	run_ms(60000);
	calls = managers[0].calls;
	ck_assert_uint_ge(calls, 60);
	ck_assert_uint_le(calls, 160);
	managers[0].rc = 0;
	run_ms(2100);
	ck_assert_uint_ge(lease_left_ms(), 500);
}
END_TEST

START_TEST(nonsense_is_bounded)
{
	cluster.lease_ms = 0;
	join(NODE_STORAGE, 1);
	run_ms(1000);
	ck_assert_uint_eq(member_node(m), 0);	/* refused */
	cluster.lease_ms = 90;
	cluster.beat_ms = UINT32_MAX;
	run_ms(3000);
	ck_assert_uint_eq(member_node(m), 7);
	cluster.beats = 0;
	run_ms(300);
	ck_assert_uint_ge(cluster.beats, 9);	/* three in a lease */
	ck_assert_uint_ge(lease_left_ms(), 50);
}
END_TEST

/* ---- several managers, one of which leads ---- */

/* Manager @who leads and the others say so; nobody: MANAGERS. */
static void
elect(unsigned who)
{
	for (unsigned i = 0; i < MANAGERS; i++)
		if (managers[i].rc == 0 || managers[i].rc == ERR_NOT_LEADER)
			managers[i].rc = i == who ? 0 : ERR_NOT_LEADER;
}

/* A member of three managers that has found the first. */
static void
join_three(void)
{
	elect(0);
	cluster.beat_ms = 300;
	join(NODE_STORAGE, MANAGERS);
	run_ms(1000);
	ck_assert_uint_ge(lease_left_ms(), 2600);
}

/* The least that is left of the lease within the next @ms. */
static uint64_t
least_lease_ms(uint64_t ms)
{
	uint64_t least = UINT64_MAX;

	for (uint64_t i = 0; i < ms; i++) {
		run_ms(1);
		if (lease_left_ms() < least)
			least = lease_left_ms();
	}
	return least;
}

static const struct failover {
	const char *what;
	int	 rc0;			/* what the first manager answers now */
	bool	 silent0;		/* stopped: connections stay, no answers */
	int	 rc1;
	bool	 silent1;
	unsigned next;			/* who leads now */
	uint64_t election_ms;		/* and how long nobody does */
	uint64_t least_ms;		/* of the lease */
} failovers[] = {
	{ "killed", -ECONNRESET, false, 0, false, 2, 0, 2600 },
	{ "killed, the next one leads", -ECONNRESET, false, 0, false, 1, 0, 2600 },
	{ "its host is gone", 0, true, 0, false, 2, 0, 2350 },
	{ "stopped, the next one leads", 0, true, 0, false, 1, 0, 2350 },
	{ "stopped, an election", 0, true, 0, false, 2, 1000, 1350 },
	{ "killed, an election", -ECONNREFUSED, false, 0, false, 1, 1500, 1100 },
	{ "gave up leading", ERR_NOT_LEADER, false, 0, false, 2, 0, 2600 },
	{ "gave up, an election", ERR_NOT_LEADER, false, 0, false, 2, 1200, 1350 },
	{ "stopped, the next one refuses", 0, true, -ECONNREFUSED, false, 2, 0,
	  2350 },
	{ "stopped, the next one too", 0, true, 0, true, 2, 0, 1650 },
	{ "busy", ERR_BUSY, false, 0, false, 0, 500, 1800 },
};

START_TEST(fails_over)
{
	const struct failover *f = &failovers[_i];
	struct net_addr at;
	uint64_t least;

	join_three();
	cluster.at_once = 0;
	elect(f->election_ms > 0 ? MANAGERS : f->next);
	managers[0].rc = f->rc0;
	managers[0].silent = f->silent0;
	if (f->rc1 != 0)
		managers[1].rc = f->rc1;
	managers[1].silent = f->silent1;
	if (f->rc0 == -ECONNRESET)
		reset(0);
	least = least_lease_ms(f->election_ms);
	if (f->rc0 == ERR_BUSY)
		managers[0].rc = 0;
	elect(f->next);
	managers[0].rc = f->next == 0 ? 0 : f->rc0;
	if (f->silent1)
		managers[1].rc = 0;
	publish(2);
	for (unsigned i = 0; i < 1500; i++) {
		uint64_t l = least_lease_ms(1);

		least = l < least ? l : least;
	}
	ck_assert_msg(least >= f->least_ms, "%s: %llu ms left", f->what,
	    (unsigned long long)least);
	member_manager(m, &at);
	ck_assert_msg(at.id == f->next, "%s", f->what);
	ck_assert_msg(routing_version(member_routing(m)) == 2, "%s", f->what);
	/* the poll waits at who leads now: nothing is asked for, nothing missed */
	for (uint64_t v = 3; v < 6; v++) {
		publish(v);
		run_ms(5);
		ck_assert_msg(routing_version(member_routing(m)) == v, "%s",
		    f->what);
	}
	ck_assert_uint_le(cluster.at_once, 2);
	ck_assert_uint_eq(cluster.registers, 1);
	ck_assert_uint_le(managers[1].calls, 400);
}
END_TEST

/* A leader that takes most of a second to answer is slow, not gone: the lease counts
 * from the sending of what it did answer. */
START_TEST(slow_leader_keeps_us)
{
	join_three();
	managers[0].silent = true;
	run_ms(310);			/* a beat is unanswered, another asked */
	managers[0].silent = false;
	ck_assert_uint_ge(least_lease_ms(5000), 1900);
}
END_TEST

/* The manager keeps a registration until our last process is dead.  Others are asked
 * meanwhile, ever more slowly; if it dies, whoever leads then is found at once. */
START_TEST(registration_is_held)
{
	bool dies = _i > 0;

	elect(0);
	managers[0].hold_ms = 5000;
	join(NODE_STORAGE, MANAGERS);
	run_ms(3000 + (unsigned)_i * 50);
	ck_assert_uint_eq(member_node(m), 0);
	ck_assert_uint_le(cluster.registers, 2);
	ck_assert_uint_le(managers[1].calls + managers[2].calls, 80);
	if (dies) {
		elect(1);
		reset(0);
		run_ms(2);
		for (unsigned i = 0; i < 30 && member_node(m) == 0; i++)
			run_ms(1);
		ck_assert_uint_eq(member_node(m), 7);
	} else {
		run_ms(2500);
		ck_assert_uint_eq(member_node(m), 7);
	}
	ck_assert_uint_ge(least_lease_ms(1000), 1900);
	ck_assert_uint_le(cluster.at_once, 2);
}
END_TEST

/* A disk has failed: the manager hears of it now, even while a beat is away. */
START_TEST(beats_on_demand)
{
	join_three();
	for (unsigned i = 0; i < 100; i++) {
		cluster.beats = 0;
		member_beat_now(m);
		ck_assert_uint_eq(cluster.beats, 0);	/* never within the call */
		run_ms(i % 3);
		if (i % 3 > 0)
			ck_assert_uint_ge(cluster.beats, 1);
	}
	managers[0].silent = true;
	member_beat_now(m);
	run_ms(1);
	managers[0].silent = false;
	cluster.beats = 0;
	member_beat_now(m);
	run_ms(1);
	ck_assert_uint_eq(cluster.beats, 1);
	ck_assert_uint_le(cluster.at_once, 2);
	ck_assert_uint_ge(least_lease_ms(2000), 2000);
}
END_TEST

/* The manager waits lease * 1.1 + beat on its clock from when it took a beat: with both
 * clocks wrong by 5 % in opposite ways our lease is over before that. */
START_TEST(drift_is_covered)
{
	uint64_t wait_ns;

	join_three();
	sim_clock_node_drift(clk, _i == 0 ? -50000 : 50000);
	wait_ns = (3000 * 11 / 10 + 300) * NS_PER_MS;
	/* a manager's clock that runs fast by 5 % gets there sooner */
	wait_ns = wait_ns * 100 / 105;
	run_ms(3000);
	for (unsigned i = 0; i < MANAGERS; i++)
		managers[i].silent = true;
	while (lease_left_ms() > 0)
		run_ms(1);
	ck_assert_uint_lt(sim_clock_now(world), cluster.took_ns + wait_ns);
}
END_TEST

/* The goodbye finds the leader, too. */
START_TEST(leaves_whoever_leads)
{
	join_three();
	elect(2);
	managers[0].silent = _i == 1;
	managers[0].rc = _i == 2 ? -ECONNREFUSED : managers[0].rc;
	member_leave(m, on_left, &world);
	run_ms(600);
	ck_assert_uint_eq(left, 1);
	ck_assert_uint_eq(cluster.goodbyes, 1);
}
END_TEST

/* A client follows routing to the new leader, though it beats seldom. */
START_TEST(client_fails_over)
{
	elect(0);
	cluster.beat_ms = 5000;
	join(0, MANAGERS);
	run_ms(1000);
	elect(1);
	managers[0].silent = true;
	managers[0].rc = 0;
	cluster.routing = 2;
	member_refresh(m);		/* some server had newer routing */
	run_ms(600);
	ck_assert_uint_eq(routing_version(member_routing(m)), 2);
	publish(3);
	run_ms(5);
	ck_assert_uint_eq(routing_version(member_routing(m)), 3);
}
END_TEST

/* ---- routing ---- */

START_TEST(follows_routing)
{
	join(NODE_STORAGE, 1);
	run_ms(100);
	changes = 0;
	for (uint64_t v = 2; v < 30; v++) {
		publish(v);
		run_ms(5);
		ck_assert_uint_eq(routing_version(member_routing(m)), v);
		ck_assert_uint_eq(changes, v - 1);
	}
	cluster.polls = 0;
	run_ms(60000);
	ck_assert_uint_le(cluster.polls, 7);
	ck_assert_uint_eq(cluster.refreshes, 0);
}
END_TEST

START_TEST(hasty_manager)
{
	join(NODE_STORAGE, 1);
	cluster.hasty = true;
	run_ms(10000);
	ck_assert_uint_le(cluster.polls, 101);
	ck_assert_uint_ge(cluster.polls, 50);
}
END_TEST

START_TEST(other_cluster)
{
	join(NODE_STORAGE, 1);
	run_ms(100);
	ck_assert_uint_eq(routing_version(member_routing(m)), 1);
	cluster.cluster.b[0] = 2;
	publish(9);
	run_ms(5000);
	ck_assert_uint_eq(routing_version(member_routing(m)), 1);
	ck_assert_uint_le(cluster.polls, 40);
	/* nor does it register there */
	cluster.beat_rc = ERR_STALE_NODE;
	run_ms(5000);
	ck_assert_uint_eq(lease_left_ms(), 0);
	cluster.beat_rc = 0;
	run_ms(5000);
	ck_assert_uint_eq(lease_left_ms(), 0);
}
END_TEST

START_TEST(refresh_is_paced_and_not_lost)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	for (unsigned i = 0; i < 1000; i++)
		member_refresh(m);
	ck_assert_uint_eq(cluster.refreshes, 0);	/* never within the call */
	run_ms(1);
	ck_assert_uint_eq(cluster.refreshes, 1);
	member_refresh(m);		/* while one is away or just was */
	run_ms(100);
	ck_assert_uint_eq(cluster.refreshes, 2);
	for (unsigned i = 0; i < 1000; i++) {
		member_refresh(m);
		run_ms(1);
	}
	ck_assert_uint_ge(cluster.refreshes, 48);
	ck_assert_uint_le(cluster.refreshes, 54);
	for (unsigned i = 1; i < cluster.refreshes; i++)
		ck_assert_uint_ge(cluster.refresh_ns[i] -
		    cluster.refresh_ns[i - 1], 20 * NS_PER_MS);
	/* an attempt that fails is made again */
	run_ms(100);
	cluster.refreshes = 0;
	managers[0].rc = -ECONNRESET;
	member_refresh(m);
	run_ms(300);
	managers[0].rc = 0;
	cluster.routing = 5;		/* the poll is not told */
	run_ms(2000);
	ck_assert_uint_ge(cluster.refreshes, 1);
	ck_assert_uint_eq(routing_version(member_routing(m)), 5);
}
END_TEST

/* The poll's answer is lost; beats tell that there is something newer. */
START_TEST(beats_notice_lost_routing)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	cluster.routing = 5;
	run_ms(1600);
	ck_assert_uint_eq(routing_version(member_routing(m)), 5);
}
END_TEST

/* A node that was cut off, declared dead, and comes back: as long as its routing is from
 * before its end it has no lease, however many of its beats are answered. */
START_TEST(lease_waits_for_routing)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	managers[0].silent = true;
	run_ms(10000);
	ck_assert_uint_eq(lease_left_ms(), 0);
	cluster.routing = 5;
	cluster.no_routing = true;
	managers[0].silent = false;
	run_ms(5000);
	ck_assert_uint_gt(cluster.beats, 5);
	ck_assert_uint_eq(lease_left_ms(), 0);
	changes = 0;
	cluster.no_routing = false;
	run_ms(2500);
	ck_assert_uint_eq(routing_version(member_routing(m)), 5);
	ck_assert_uint_ge(lease_left_ms(), 2000);
	ck_assert_uint_eq(member_lease_routing(m), 5);
	ck_assert_uint_ge(changes, 1);
}
END_TEST

/* Likewise for a live one whose routing stays behind: it may have been taken out of a
 * chain, and others rely on it to notice within a lease. */
START_TEST(lease_ends_without_routing)
{
	uint64_t until;

	join(NODE_STORAGE, 1);
	run_ms(1000);
	cluster.no_routing = true;
	cluster.routing = 5;
	until = clock_now(clk) + cluster.lease_ms * NS_PER_MS;
	for (int i = 0; i < 100; i++) {
		run_ms(100);
		ck_assert_uint_le(member_lease_until_ns(m), until);
	}
	cluster.no_routing = false;
	run_ms(2500);
	ck_assert_uint_ge(lease_left_ms(), 2000);
}
END_TEST

/* Routing that is never quite as new as the last beat says is new enough. */
START_TEST(lease_lasts_while_routing_changes)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	for (int i = 0; i < 400; i++) {
		cluster.routing++;	/* no poll is answered for that */
		run_ms(50);
		ck_assert_uint_ge(lease_left_ms(), 1000);
	}
}
END_TEST

/* ---- clients ---- */

START_TEST(client)
{
	join(0, 2);
	run_ms(5000);
	ck_assert_uint_eq(cluster.registers, 0);
	ck_assert_uint_eq(cluster.beats, 0);
	ck_assert_uint_ge(cluster.client_beats, 10);
	ck_assert_uint_le(cluster.client_beats, 13);
	ck_assert_ptr_nonnull(strstr(cluster.said,
	    "host=\"n1\" mount=\"/m\" pid=77"));
	ck_assert_uint_eq(routing_version(member_routing(m)), 1);
	ck_assert_uint_eq(member_lease_until_ns(m), 0);
	member_leave(m, on_left, &world);
	ck_assert_uint_eq(left, 0);
	run_ms(5);
	ck_assert_uint_eq(left, 1);
	ck_assert_uint_eq(cluster.leaving, 1);
}
END_TEST

/* ---- leaving and closing ---- */

START_TEST(leaves)
{
	unsigned calls;

	join(NODE_STORAGE, 1);
	run_ms(1000);
	member_leave(m, on_left, &world);
	ck_assert_uint_eq(member_lease_until_ns(m), 0);
	ck_assert_uint_eq(left, 0);
	run_ms(5);
	ck_assert_uint_eq(left, 1);
	ck_assert_uint_eq(cluster.goodbyes, 1);
	calls = managers[0].calls;
	member_refresh(m);
	run_ms(20000);
	ck_assert_uint_eq(managers[0].calls, calls);	/* silence */
	ck_assert_uint_eq(left, 1);
}
END_TEST

START_TEST(leaves_without_an_answer)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	managers[0].silent = true;
	member_leave(m, on_left, &world);
	run_ms(999);
	ck_assert_uint_eq(left, 0);
	run_ms(2);
	ck_assert_uint_eq(left, 1);
}
END_TEST

START_TEST(leaves_unregistered)
{
	managers[0].rc = -ECONNREFUSED;
	join(NODE_STORAGE, 1);
	run_ms(100);
	member_leave(m, on_left, &world);
	ck_assert_uint_eq(left, 0);
	run_ms(1);
	ck_assert_uint_eq(left, 1);
}
END_TEST

/* At any moment; teardown() looks for what is left behind. */
START_TEST(closes)
{
	join(_i % 2 ? NODE_STORAGE : 0, 2);
	if (_i % 3 == 0)
		managers[1].rc = ERR_NOT_LEADER;
	for (int i = 0; i < _i; i++)
		if (!sim_clock_step(world))
			break;
	if (_i % 5 == 0)
		member_refresh(m);
	if (_i % 7 == 0) {
		member_leave(m, on_left, &world);
		left = 100;
	}
	member_close(m);
	m = NULL;
	changes = left = 0;
	run_ms(5000);
	ck_assert_uint_eq(changes + left, 0);
}
END_TEST

static void
close_it(void *ctx)
{
	(void)ctx;
	member_close(m);
	m = NULL;
}

START_TEST(closes_from_its_callback)
{
	join(NODE_STORAGE, 1);
	run_ms(1000);
	managers[0].rc = _i == 0 ? 0 : ERR_BUSY;
	member_leave(m, close_it, NULL);
	run_ms(10);
	ck_assert_ptr_null(m);
}
END_TEST

START_TEST(bounds)
{
	struct net_addr to = { .kind = NET_ADDR_SIM };
	char name[65] = "";
	struct member_conf c = { .clock = clk, .rand = &rnd, .managers = &to,
	    .manager_n = 0 };

	ck_assert_int_eq(member_open(&m, &c), -EINVAL);
	c.manager_n = 9;
	ck_assert_int_eq(member_open(&m, &c), -EINVAL);
	c.manager_n = 1;
	c.addr_n = 65;
	ck_assert_int_eq(member_open(&m, &c), -EINVAL);
	c.addr_n = 0;
	memset(name, 'x', 64);
	c.name = name;
	ck_assert_int_eq(member_open(&m, &c), -EINVAL);
	c.name = NULL;			/* all that may be left out */
	ck_assert_int_eq(member_open(&m, &c), 0);
	run_ms(1000);
	ck_assert_uint_ge(cluster.client_beats, 1);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("member");
	TCase *t = tcase_create("all");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, registers_and_beats);
	tcase_add_test(t, lease_runs_out);
	tcase_add_test(t, lease_after_a_lapse);
	tcase_add_test(t, silence_is_short_enough);
	tcase_add_test(t, stale_registers_again);
	tcase_add_test(t, taken_for_late);
	tcase_add_test(t, finds_the_leader);
	tcase_add_test(t, moves_on_once);
	tcase_add_test(t, polls_again_after_silence);
	tcase_add_test(t, backs_off);
	tcase_add_test(t, nonsense_is_bounded);
	tcase_add_loop_test(t, fails_over, 0,
	    (int)(sizeof(failovers) / sizeof(failovers[0])));
	tcase_add_test(t, slow_leader_keeps_us);
	tcase_add_loop_test(t, registration_is_held, 0, 30);
	tcase_add_test(t, beats_on_demand);
	tcase_add_loop_test(t, drift_is_covered, 0, 2);
	tcase_add_loop_test(t, leaves_whoever_leads, 0, 3);
	tcase_add_test(t, client_fails_over);
	tcase_add_test(t, follows_routing);
	tcase_add_test(t, hasty_manager);
	tcase_add_test(t, other_cluster);
	tcase_add_test(t, refresh_is_paced_and_not_lost);
	tcase_add_test(t, beats_notice_lost_routing);
	tcase_add_test(t, lease_waits_for_routing);
	tcase_add_test(t, lease_ends_without_routing);
	tcase_add_test(t, lease_lasts_while_routing_changes);
	tcase_add_test(t, client);
	tcase_add_test(t, leaves);
	tcase_add_test(t, leaves_without_an_answer);
	tcase_add_test(t, leaves_unregistered);
	tcase_add_loop_test(t, closes, 0, 120);
	tcase_add_loop_test(t, closes_from_its_callback, 0, 2);
	tcase_add_test(t, bounds);
	suite_add_tcase(s, t);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
