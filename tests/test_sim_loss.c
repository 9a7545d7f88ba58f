/* SPDX-License-Identifier: MIT */
/* test_sim_loss.c - a storage node comes back with empty disks, or as another node on an
 * empty box, after it was the last one that served.  Its chains wait, until an operator says
 * from which replica they go on; here nothing was written since that one went away, so that
 * in the end everything is as the oracles of the load know it. N=1000: 6 seeds of each kind,
 * SEED=one. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/msg_all.h"
#include "net/routing.h"
#include "tests/sim/sim_impl.h"
#include "tests/suite.h"

#define OPS	40u		/* of everybody in the load */
#define QUIET_S	60u		/* what is unlinked is gone by then */

static uint64_t
number(const char *name, uint64_t otherwise)
{
	const char *v = getenv(name);

	return v != NULL && *v != '\0' ? strtoull(v, NULL, 10) : otherwise;
}

/* ---- the operator ---- */

static struct {
	struct net_call call;
	struct sim     *s;
	unsigned	manager;
	bool		over;
} op;

static void
answered(struct net_call *c, int rc)
{
	(void)c;
	sim_trace(op.s, "operator: %d", rc);
	op.over = rc == 0 || rc == -EALREADY;
	if (!op.over && rc != -ETIMEDOUT && err_next(rc) == ERR_NEXT_FAIL)
		sim_fail(op.s, "the operator is refused: %d", rc);
}

static bool
idle(void *ctx)
{
	(void)ctx;
	return !net_call_active(&op.call);
}

/* Ask the managers in turn until the one that leads has done it. */
static void
ask(struct sim *s, uint16_t method, const void *req)
{
	op.s = s;
	op.over = false;
	for (unsigned tries = 0; !op.over; tries++) {
		struct clock *c = sim_admin_clock(s);
		struct net_call_opts o = { .deadline_ns = clock_now(c) + NS_PER_S };
		unsigned at = op.manager++ % s->manager_n;

		ck_assert_uint_lt(tries, 200);
		ck_assert_int_eq(net_call_start(&op.call, sim_admin_hub(s),
		    &s->managers[at], method, req, &o, answered), 0);
		sim_until(s, idle, NULL, 10, "an answer to the operator");
		if (!op.over)
			sim_clock_run(s->clocks, 100 * NS_PER_MS);
	}
}

/* ---- chains ---- */

static unsigned
node_of(const struct routing *r, target_id target)
{
	const struct routing_node *n = routing_node(r, routing_target(r, target)->node);

	return SIM_STORAGE0 + (unsigned)atoi(n->name + 7) - 1;
}

/* Index of the replica of @c on @node; target_n: none. */
static unsigned
replica_on(const struct routing *r, const struct routing_chain *c, unsigned node)
{
	unsigned k = 0;

	while (k < c->target_n && node_of(r, c->targets[k]) != node)
		k++;
	return k;
}

struct want {
	struct sim *s;
	unsigned    node;
};

/* Chains with a replica on that node have no other that serves. */
static bool
serves_alone(void *ctx)
{
	const struct want *w = ctx;
	const struct routing *r = sim_routing(w->s);
	const struct routing_chain *c;

	for (unsigned i = 0; r != NULL && (c = routing_chain_at(r, i)) != NULL; i++)
		if (replica_on(r, c, w->node) < c->target_n &&
		    (routing_serving_n(c) != 1 || node_of(r, c->targets[0]) != w->node))
			return false;
	return r != NULL;
}

/* They wait for it, and all others are there. */
static bool
all_wait(void *ctx)
{
	const struct want *w = ctx;
	const struct routing *r = sim_routing(w->s);
	const struct routing_chain *c;

	for (unsigned i = 0; r != NULL && (c = routing_chain_at(r, i)) != NULL; i++) {
		unsigned at = replica_on(r, c, w->node);

		if (at == c->target_n)
			continue;
		if (c->states[at] != TARGET_LASTSRV)
			return false;
		for (unsigned k = 0; k < c->target_n; k++)
			if (k != at && c->states[k] != TARGET_WAITING)
				return false;
	}
	return r != NULL;
}

static bool
all_serve(void *ctx)
{
	struct sim *s = ctx;
	const struct routing *r = sim_routing(s);
	const struct routing_chain *c;

	for (unsigned i = 0; r != NULL && (c = routing_chain_at(r, i)) != NULL; i++)
		if (routing_serving_n(c) == 0)
			return false;
	return r != NULL;
}

/* ---- what happens ---- */

static void
die(struct sim *s, unsigned id, bool power)
{
	clock_timer_stop(sim_clock(s), &s->nodes[id].again);
	sim_die(&s->nodes[id], power);
}

/* A node that has replicas. */
static unsigned
pick(struct sim *s, unsigned k)
{
	const struct routing *r = sim_routing(s);
	const struct routing_chain *c = routing_chain_at(r, 0);

	return node_of(r, c->targets[k % c->target_n]);
}

/* All of them but @last go, one after the other, then @last loses its disks. */
static void
lose(struct sim *s, unsigned last, bool box)
{
	struct want w = { s, last };
	struct sim_node *n = &s->nodes[last];
	char path[] = "/disk0";

	for (unsigned i = SIM_STORAGE0; i < SIM_STORAGE0 + s->storage_n; i++)
		if (i != last) {
			die(s, i, i % 2 == 0);
			sim_clock_run(s->clocks, 2 * NS_PER_S);
		}
	sim_until(s, serves_alone, &w, 20, "one node to serve alone");
	die(s, last, true);
	for (unsigned k = 0; k < n->disk_n; k++) {
		path[5] = (char)('0' + k);
		sim_disk_wipe(n->box, path);
		sim_format(n, k);
	}
	if (box)
		sim_disk_wipe(n->box, "/node");
	sim_clock_run(s->clocks, 2 * NS_PER_S);
	for (unsigned i = SIM_STORAGE0; i < SIM_STORAGE0 + s->storage_n; i++)
		sim_boot(&s->nodes[i]);
	sim_until(s, sim_all_ready, s, 60, "starting again");
	sim_until(s, all_wait, &w, 20, "chains to wait for who is gone");
	sim_clock_run(s->clocks, 5 * NS_PER_S);
	ck_assert_msg(all_wait(&w), "a chain goes on without anybody's word");
}

/* Each chain goes on with the first that waits. */
static void
accept_loss(struct sim *s)
{
	const struct routing *r = sim_routing(s);
	const struct routing_chain *c;
	struct msg_chain_accept q[SIM_TARGETS];
	unsigned n = 0;

	for (unsigned i = 0; (c = routing_chain_at(r, i)) != NULL; i++)
		for (unsigned k = 0; k < c->target_n && routing_serving_n(c) == 0; k++)
			if (c->states[k] == TARGET_WAITING) {
				q[n++] = (struct msg_chain_accept){ c->id, c->targets[k] };
				break;
			}
	ck_assert_uint_gt(n, 0);
	for (unsigned i = 0; i < n; i++)
		ask(s, MSG_chain_accept, &q[i]);
	sim_until(s, all_serve, s, 20, "chains to serve again");
}

static void
run(uint64_t seed, bool box)
{
	struct sim *s = sim_open(seed, 0);
	struct uid128 old[SIM_DISKS];
	struct sim_node *n;
	unsigned last;

	s->ops = OPS;
	sim_load(s);
	sim_heal(s);
	sim_clock_run(s->clocks, QUIET_S * NS_PER_S);
	check_back(s);
	last = pick(s, (unsigned)seed);
	n = &s->nodes[last];
	memcpy(old, n->disks, sizeof(old));
	lose(s, last, box);
	accept_loss(s);
	for (unsigned k = 0; k < n->disk_n; k++) {
		struct msg_disk_replace q = { .disk = old[k], .with = n->disks[k] };

		ask(s, MSG_disk_replace, &q);
	}
	check_back(s);
	sim_check(s);
	sim_close(s);
}

START_TEST(last_disks_gone)
{
	uint64_t one = number("SEED", 0), n = number("N", 1000) * 6 / 1000;

	if (one != 0) {
		run(one, _i == 1);
		return;
	}
	for (uint64_t seed = 1; seed <= (n < 2 ? 2 : n > 100 ? 100 : n); seed++)
		run(seed, _i == 1);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 0);
	tcase_add_loop_test(tc, last_disks_gone, 0, 2);
	return suite_run("sim_loss", tc);
}
