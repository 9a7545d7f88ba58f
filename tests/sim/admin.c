/* SPDX-License-Identifier: MIT */
/* admin.c - an operator of the simulated cluster: replaces disks and managers, one after
 * the other, by the calls that fsd admin makes, until each has had its effect.
 *
 *	disk	  node is stopped -> its replicas there are out of their chains, others serve
 *		  -> the disk is empty -> node is started -> disk_replace answered
 *	another	  node is stopped -> started with one more disk -> disk_replace answered
 *	manager	  (its data is gone -> started ->) manager_change -> the group is as wanted
 *	metadata  the same by metadata_change; or removed -> not there -> added -> there */
#include "tests/sim/sim_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "meta/group.h"
#include "net/msg_all.h"
#include "net/routing.h"
#include "roles/manager.h"
#include "roles/metadata.h"

#define STEP_NS		(100 * NS_PER_MS)
#define PATIENCE	100u		/* steps until a disk is left as it is */

struct sim_admin {
	struct sim	*s;
	struct clock	*clock;
	struct rand	 rand;
	struct log	 log;
	struct net_hub	*hub;
	unsigned	 asked;		/* managers, in turn */
	/* a disk */
	struct sim_node *disk_node;	/* NULL: none */
	unsigned	 disk, steps;
	bool		 wiped;
	struct uid128	 old;
	struct clock_timer disk_timer;
	struct net_call	 disk_call;
	/* a manager */
	struct sim_node *manager;	/* NULL: none */
	enum manager_op	 op;
	uint64_t	 was;		/* member that lost its data */
	struct clock_timer manager_timer;
	struct net_call	 manager_call;
	/* a metadata node */
	struct sim_node *metadata;	/* NULL: none */
	enum manager_op	 meta_op;
	node_id		 meta_old;
	uint64_t	 meta_was;
	struct clock_timer meta_timer;
	struct net_call	 meta_call;
};

static void
random_bytes(void *ctx, void *out, size_t n)
{
	rand_bytes(ctx, out, n);
}

static void
no_log(void *ctx, enum log_level level, const char *who, const char *what,
    const char *fields)
{
	(void)ctx;
	(void)level;
	(void)who;
	(void)what;
	(void)fields;
}

void
sim_admin_open(struct sim *s)
{
	struct sim_admin *a = calloc(1, sizeof(*a));
	struct net_hub_conf hc = { .idle_ms = 60000, .calls_max = 16 };
	int rc;

	assert(a != NULL);
	s->admin = a;
	a->s = s;
	rand_seed(&a->rand, rand_u64(&s->rand));
	a->clock = sim_clock_node(s->clocks, 0, 0);
	a->log.sink = no_log;
	hc.rand = &a->rand;
	hc.clock = a->clock;
	hc.log = &a->log;
	hc.nonce = random_bytes;
	hc.nonce_ctx = &a->rand;
	memset(hc.key, 7, sizeof(hc.key));
	rc = net_hub_open(&a->hub, &hc);
	assert(rc == 0);
	net_hub_add(a->hub, sim_net_transport(s->net, SIM_ADMIN, 0, a->clock));
	sim_net_host_up(s->net, SIM_ADMIN);
}

void
sim_admin_close(struct sim *s)
{
	struct sim_admin *a = s->admin;

	clock_timer_stop(sim_clock(s), &a->disk_timer);
	clock_timer_stop(sim_clock(s), &a->manager_timer);
	net_call_cancel(&a->disk_call);
	clock_timer_stop(sim_clock(s), &a->meta_timer);
	net_call_cancel(&a->manager_call);
	net_call_cancel(&a->meta_call);
	net_hub_close(a->hub);
	sim_clock_node_close(a->clock);
	free(a);
}

struct net_hub *
sim_admin_hub(struct sim *s)
{
	return s->admin->hub;
}

struct clock *
sim_admin_clock(struct sim *s)
{
	return s->admin->clock;
}

bool
sim_admin_idle(const struct sim *s)
{
	return s->admin->disk_node == NULL && s->admin->manager == NULL &&
	    s->admin->metadata == NULL;
}

/* Ask one manager after the other; those that do not lead say so. */
static void
ask(struct sim_admin *a, struct net_call *c, uint16_t method, const void *req,
    net_call_fn *fn)
{
	struct sim *s = a->s;
	struct net_call_opts o = { .deadline_ns = clock_now(a->clock) + NS_PER_S };
	unsigned at = a->asked++ % (s->manager_n + (s->manager_n > 1));

	if (!net_call_active(c))
		(void)net_call_start(c, a->hub, &s->managers[at], method, req, &o, fn);
}

/* ---- a disk ---- */

/* Nobody needs what is on it: each chain has it out, and somebody serves. */
static bool
spared(struct sim_admin *a)
{
	const struct routing *r = sim_routing(a->s);
	const struct routing_target *t;

	for (unsigned i = 0; r != NULL && (t = routing_target_at(r, i)) != NULL; i++) {
		const struct routing_chain *c = routing_chain(r, t->chain);

		if (t->chain == 0 || c == NULL ||
		    memcmp(&t->disk, &a->old, sizeof(a->old)) != 0)
			continue;
		for (unsigned k = 0; k < c->target_n; k++)
			if (c->targets[k] == t->id && (c->states[k] != TARGET_OFFLINE ||
			    routing_serving_n(c) == 0))
				return false;
	}
	return r != NULL;
}

static void
disk_over(struct sim_admin *a)
{
	a->disk_node = NULL;
}

static void
disk_answered(struct net_call *c, int rc)
{
	struct sim_admin *a = container_of(c, struct sim_admin, disk_call);

	sim_trace(a->s, "disk of node %u replaced: %d", a->disk_node->id, rc);
	if (rc == 0 || rc == -EALREADY)
		disk_over(a);
	else if (rc == -ENOSPC || rc == -EEXIST || rc == -EINVAL)
		sim_fail(a->s, "disk of node %u cannot be replaced: %d",
		    a->disk_node->id, rc);
}

static void
disk_step(struct clock_timer *t)
{
	struct sim_admin *a = container_of(t, struct sim_admin, disk_timer);
	struct clock *w = sim_clock(a->s);
	struct sim_node *n = a->disk_node;
	struct msg_disk_replace q = { .disk = a->old };
	char path[] = "/disk0";

	if (n == NULL)
		return;
	if (!a->wiped && spared(a)) {
		path[5] = (char)('0' + a->disk);
		sim_trace(a->s, "node %u has an empty %s", n->id, path);
		sim_disk_wipe(n->box, path);
		sim_format(n, a->disk);
		a->wiped = true;
		n->held = false;
		sim_boot(n);
	} else if (!a->wiped && ++a->steps >= PATIENCE) {
		disk_over(a);
		n->held = false;
		sim_boot(n);
		return;
	} else if (a->wiped && n->up && n->ready) {
		q.with = n->disks[a->disk];
		ask(a, &a->disk_call, MSG_disk_replace, &q, disk_answered);
	}
	clock_timer_start(w, t, clock_now(w) + STEP_NS, disk_step);
}

void
sim_admin_disk(struct sim *s)
{
	struct sim_admin *a = s->admin;
	struct sim_node *n = &s->nodes[s->frail != SIM_NODES ? s->frail :
	    SIM_STORAGE0 + (unsigned)rand_below(&s->rand, s->storage_n)];
	struct clock *w = sim_clock(s);

	if (a->disk_node != NULL || !n->up || !n->ready || n->stopping)
		return;
	a->disk = (unsigned)rand_below(&s->rand, n->disk_n);
	a->old = n->disks[a->disk];
	a->disk_node = n;
	a->wiped = false;
	a->steps = 0;
	n->held = true;
	sim_trace(s, "node %u shall get a new disk %u", n->id, a->disk);
	clock_timer_stop(w, &n->again);
	sim_die(n, false);
	clock_timer_start(w, &a->disk_timer, clock_now(w) + STEP_NS, disk_step);
}

void
sim_admin_move(struct sim *s)
{
	struct sim_admin *a = s->admin;
	struct sim_node *n = &s->nodes[s->frail != SIM_NODES ? s->frail :
	    SIM_STORAGE0 + (unsigned)rand_below(&s->rand, s->storage_n)];
	struct clock *w = sim_clock(s);

	if (a->disk_node != NULL || !n->up || !n->ready || n->stopping ||
	    n->disk_n == SIM_DISKS)
		return;
	a->old = n->disks[rand_below(&s->rand, n->disk_n)];
	a->disk = n->disk_n;
	a->disk_node = n;
	a->wiped = true;
	sim_trace(s, "node %u shall get disk %u for another", n->id, a->disk);
	clock_timer_stop(w, &n->again);
	sim_die(n, false);
	sim_format(n, n->disk_n++);
	sim_boot(n);
	clock_timer_start(w, &a->disk_timer, clock_now(w) + STEP_NS, disk_step);
}

/* ---- managers ---- */

static bool
as_wanted(struct sim_admin *a)
{
	struct sim *s = a->s;
	const struct raft_members *r;
	unsigned n = 0;

	for (unsigned i = 0; i < SIM_MANAGERS; i++)
		n += !s->nodes[SIM_MANAGER0 + i].absent;
	if (a->op == MANAGER_REMOVE)
		n--;
	for (unsigned i = 0; i < SIM_MANAGERS; i++) {
		struct group *g = sim_manager_group(s, i);
		bool there = false;

		if (g == NULL || !group_lease(g))
			continue;
		r = group_members(g);
		for (unsigned k = 0; k < r->n; k++) {
			if (!r->m[k].voter || r->m[k].id == a->was)
				return false;
			there |= net_addr_eq(&r->m[k].addr,
			    &s->managers[a->manager->id - SIM_MANAGER0]);
		}
		return r->n == n && there == (a->op != MANAGER_REMOVE);
	}
	return false;
}

static void
manager_answered(struct net_call *c, int rc)
{
	struct sim_admin *a = container_of(c, struct sim_admin, manager_call);

	sim_trace(a->s, "manager op %u on node %u: %d", a->op, a->manager->id, rc);
}

static void
manager_step(struct clock_timer *t)
{
	struct sim_admin *a = container_of(t, struct sim_admin, manager_timer);
	struct clock *w = sim_clock(a->s);
	struct sim_node *n = a->manager;
	char text[NET_ADDR_TEXT];
	struct msg_manager_change q = { .op = a->op };

	if (as_wanted(a)) {
		sim_trace(a->s, "manager op %u on node %u is over", a->op, n->id);
		a->manager = NULL;
		net_call_cancel(&a->manager_call);
		if (a->op == MANAGER_REMOVE) {
			clock_timer_stop(w, &n->again);
			if (n->up)
				sim_die(n, false);
			sim_disk_wipe(n->box, "/manager");
			n->absent = true;
		}
		return;
	}
	net_addr_text(&a->s->managers[n->id - SIM_MANAGER0], text);
	q.addr = q.with = msg_str(text);
	ask(a, &a->manager_call, MSG_manager_change, &q, manager_answered);
	clock_timer_start(w, t, clock_now(w) + STEP_NS, manager_step);
}

/* All that are to be managers are, and vote. */
static bool
complete(struct sim *s)
{
	for (unsigned i = 0; i < SIM_MANAGERS; i++) {
		struct group *g = sim_manager_group(s, i);
		const struct raft_members *r;
		unsigned n = 0;

		if (g == NULL || !group_lease(g))
			continue;
		r = group_members(g);
		for (unsigned k = 0; k < SIM_MANAGERS; k++)
			n += !s->nodes[SIM_MANAGER0 + k].absent;
		for (unsigned k = 0; k < r->n; k++)
			n -= r->m[k].voter;
		return n == 0;
	}
	return false;
}

void
sim_admin_manager(struct sim *s)
{
	struct sim_admin *a = s->admin;
	struct clock *w = sim_clock(s);
	struct sim_node *n;
	unsigned all = 0;

	if (a->manager != NULL || s->manager_n == 1 || s->frail != SIM_NODES ||
	    !complete(s))
		return;
	n = &s->nodes[SIM_MANAGER0 + rand_below(&s->rand, SIM_MANAGERS)];
	for (unsigned i = 0; i < SIM_MANAGERS; i++)
		all += !s->nodes[SIM_MANAGER0 + i].absent;
	if (!n->absent && (!n->up || n->stopping))
		return;
	a->was = 0;
	a->op = n->absent ? MANAGER_ADD : all == SIM_MANAGERS &&
	    rand_chance(&s->rand, 1, 2) ? MANAGER_REMOVE : MANAGER_REPLACE;
	a->manager = n;
	sim_trace(s, "manager op %u on node %u", a->op, n->id);
	if (a->op == MANAGER_REPLACE) {
		a->was = group_member(manager_group(n->manager));
		clock_timer_stop(w, &n->again);
		sim_die(n, true);
		sim_disk_wipe(n->box, "/manager");
	}
	n->absent = false;
	if (!n->up)
		sim_boot(n);
	clock_timer_start(w, &a->manager_timer, clock_now(w) + STEP_NS, manager_step);
}

/* ---- metadata ---- */

static struct group *
meta_leader(struct sim *s)
{
	for (unsigned i = 0; i < SIM_METADATAS; i++) {
		struct group *g = sim_metadata_group(s, i);

		if (g != NULL && group_lease(g))
			return g;
	}
	return NULL;
}

/* @n members, all of them vote; is the one at @addr there?  False while nobody leads. */
static bool
meta_is(struct sim_admin *a, unsigned n, bool there, uint64_t not)
{
	struct group *g = meta_leader(a->s);
	const struct raft_members *r = g == NULL ? NULL : group_members(g);
	struct net_addr addr = { .kind = NET_ADDR_SIM, .id = a->metadata->id };
	bool found = false;

	if (r == NULL || r->n != n)
		return false;
	for (unsigned i = 0; i < r->n; i++) {
		if (!r->m[i].voter || r->m[i].id == not)
			return false;
		found |= net_addr_eq(&r->m[i].addr, &addr);
	}
	return found == there;
}

static node_id
meta_node(struct sim *s, const struct sim_node *n)
{
	const struct routing *r = sim_routing(s);
	const struct routing_node *row;
	char name[48];

	snprintf(name, sizeof(name), n->wipes > 0 ? "metadata%u-%u" : "metadata%u",
	    n->id - SIM_METADATA0 + 1, n->wipes);
	for (unsigned i = 0; r != NULL && (row = routing_node_at(r, i)) != NULL; i++)
		if (strcmp(row->name, name) == 0)
			return row->id;
	return 0;
}

/* Do the managers want it so?  A leader may show members that it cannot commit. */
static bool
meta_wanted(struct sim_admin *a, bool there)
{
	const struct routing *r = sim_routing(a->s);
	const struct routing_group *g = r == NULL ? NULL : routing_group_at(r, 0);
	node_id node = meta_node(a->s, a->metadata);

	return g != NULL && node != 0 && (routing_group_find(g, node) < g->n) == there;
}

static void
meta_answered(struct net_call *c, int rc)
{
	struct sim_admin *a = container_of(c, struct sim_admin, meta_call);

	sim_trace(a->s, "metadata op %u on node %u: %d", a->meta_op, a->metadata->id, rc);
}

static void
meta_step(struct clock_timer *t)
{
	struct sim_admin *a = container_of(t, struct sim_admin, meta_timer);
	struct clock *w = sim_clock(a->s);
	struct sim_node *n = a->metadata;
	node_id now = meta_node(a->s, n);
	struct msg_metadata_change q = { .op = a->meta_op };
	bool there = a->meta_op != MANAGER_REMOVE;

	if (meta_wanted(a, there) && meta_is(a, there ? 3 : 2, there, a->meta_was)) {
		sim_trace(a->s, "metadata op %u on node %u is over", a->meta_op, n->id);
		net_call_cancel(&a->meta_call);
		if (a->meta_op != MANAGER_REMOVE) {
			a->metadata = NULL;
			return;
		}
		a->meta_op = MANAGER_ADD;
	} else if (now != 0) {
		q.node = a->meta_op == MANAGER_REPLACE ? a->meta_old : now;
		q.with = now;
		ask(a, &a->meta_call, MSG_metadata_change, &q, meta_answered);
	}
	clock_timer_start(w, t, clock_now(w) + STEP_NS, meta_step);
}

void
sim_admin_metadata(struct sim *s)
{
	struct sim_admin *a = s->admin;
	struct clock *w = sim_clock(s);
	struct sim_node *n;

	n = &s->nodes[SIM_METADATA0 + rand_below(&s->rand, SIM_METADATAS)];
	if (a->metadata != NULL || s->metadata_n == 1 || s->metadata_late > 0 || !n->up ||
	    n->stopping || s->frail != SIM_NODES)
		return;
	a->metadata = n;
	a->meta_was = 0;
	a->meta_old = meta_node(s, n);
	if (a->meta_old == 0 || !meta_is(a, SIM_METADATAS, true, 0)) {
		a->metadata = NULL;
		return;
	}
	a->meta_op = rand_chance(&s->rand, 1, 2) ? MANAGER_REMOVE : MANAGER_REPLACE;
	sim_trace(s, "metadata op %u on node %u", a->meta_op, n->id);
	if (a->meta_op == MANAGER_REPLACE) {
		a->meta_was = group_member(metadata_group(n->metadata));
		clock_timer_stop(w, &n->again);
		sim_die(n, true);
		sim_disk_wipe(n->box, "/metadata");
		n->wipes++;
		sim_boot(n);
	}
	clock_timer_start(w, &a->meta_timer, clock_now(w) + STEP_NS, meta_step);
}
