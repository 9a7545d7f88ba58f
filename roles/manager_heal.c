/* SPDX-License-Identifier: MIT */
/* manager_heal.c - chains follow their nodes and disks: find out who is alive, hand the
 * chain to the table of manager_chain.c, keep what comes of it.  Part of apply: uses the
 * state and nothing else. */
#include "roles/manager_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

static const struct manager_disk *
disk_of(const struct manager_state *s, target_id id)
{
	const struct routing_target *t = routing_target(s->routing, id);

	return t == NULL ? NULL : manager_uid_get(&s->disks, &t->disk);
}

static bool
disk_alive(const struct manager_state *s, const struct manager_disk *d)
{
	const struct routing_node *n;

	return d != NULL && d->health == DISK_WORKS &&
	    (n = routing_node(s->routing, d->node)) != NULL && n->state == NODE_UP;
}

static void
look_around(const struct manager_state *s, const struct routing_chain *c,
    struct manager_chain_input *in)
{
	for (uint32_t i = 0; i < c->target_n; i++) {
		const struct manager_disk *d = disk_of(s, c->targets[i]);

		in->alive[i] = disk_alive(s, d);
		in->reborn[i] = d != NULL && d->reborn;
		in->held[i] = manager_held(s, c->targets[i]);
	}
}

static int
step(struct manager_state *s, const struct routing_chain *c,
    struct manager_chain_input *in)
{
	struct routing_chain row = *c;
	int rc;

	look_around(s, c, in);
	if ((rc = manager_chain_step(&row, in)) == 0)
		manager_put_chain(s, &row);
	return rc;
}

/* A second look within a command would find the same processes started again. */
static void
look(struct manager_state *s, chain_id id)
{
	const struct routing_chain *c = routing_chain(s->routing, id);
	struct manager_chain_input in = { .event = MANAGER_CHAIN_LOOK };

	if (s->rc == 0 && c != NULL && c->changed < s->first_version)
		(void)step(s, c, &in);
}

void
manager_heal_disk(struct manager_state *s, const struct manager_disk *d)
{
	for (uint32_t i = 0; i < d->target_n; i++) {
		const struct routing_target *t = routing_target(s->routing,
		    d->targets[i]);

		if (t != NULL && t->chain != 0)
			look(s, t->chain);
	}
}

void
manager_heal_node(struct manager_state *s, const struct manager_node *n)
{
	list_for_each(it, &n->disks)
		manager_heal_disk(s, list_entry(it, struct manager_disk, node_link));
}

void
manager_heal_all(struct manager_state *s)
{
	const struct routing_chain *c;

	for (unsigned i = 0; (c = routing_chain_at(s->routing, i)) != NULL; i++)
		look(s, c->id);
}

bool
manager_heal_needed(const struct manager_state *s)
{
	const struct routing_chain *c;

	for (unsigned i = 0; (c = routing_chain_at(s->routing, i)) != NULL; i++) {
		struct manager_chain_input in = { .event = MANAGER_CHAIN_LOOK };

		look_around(s, c, &in);
		if (manager_chain_check(c, &in) == 0)
			return true;
	}
	return false;
}

int
manager_heal_chain(struct manager_state *s, chain_id id, enum manager_chain_event ev,
    target_id target, target_id with)
{
	const struct routing_chain *c = routing_chain(s->routing, id);
	struct manager_chain_input in = { .event = ev, .target = target,
		.with = with };

	if (c == NULL)
		return -ENOENT;
	in.with_alive = with != 0 && disk_alive(s, disk_of(s, with));
	return step(s, c, &in);
}

/* ---- nodes that do not reach each other ---- */

static node_id
node_of(const struct manager_state *s, target_id id)
{
	const struct routing_target *t = routing_target(s->routing, id);

	return t == NULL ? 0 : t->node;
}

/* Who syncs has nothing that counts: it leaves, whoever was to. */
uint32_t
manager_heal_part(struct manager_state *s, node_id node, node_id silent,
    node_id leaver, bool apply)
{
	const struct routing_chain *c;
	uint32_t n = 0;

	for (unsigned i = 0; (c = routing_chain_at(s->routing, i)) != NULL; i++) {
		unsigned active = routing_active_n(c), k = 0;
		target_id leaves;

		while (k + 1 < active && (node_of(s, c->targets[k]) != node ||
		    node_of(s, c->targets[k + 1]) != silent))
			k++;
		if (k + 1 >= active)
			continue;
		leaves = c->targets[leaver == node &&
		    c->states[k + 1] == TARGET_SERVING ? k : k + 1];
		if (!apply || manager_heal_chain(s, c->id, MANAGER_CHAIN_PART, leaves,
		    0) == 0)
			n++;
	}
	return n;
}

uint32_t
manager_heal_join(struct manager_state *s, node_id node, node_id other, bool apply)
{
	const struct routing_chain *c;
	uint32_t n = 0;

	for (unsigned i = 0; (c = routing_chain_at(s->routing, i)) != NULL; i++) {
		unsigned serving = routing_serving_n(c), k = serving;

		if (serving == 0 || node_of(s, c->targets[serving - 1]) != node)
			continue;
		while (k < c->target_n && (c->states[k] != TARGET_APART ||
		    node_of(s, c->targets[k]) != other))
			k++;
		if (k < c->target_n && (!apply || manager_heal_chain(s, c->id,
		    MANAGER_CHAIN_JOIN, c->targets[k], 0) == 0))
			n++;
	}
	return n;
}

/* ---- a disk in the place of another ---- */

struct swap {
	chain_id  chain;
	target_id old, with;
};

/* May @with's node hold a replica of @c beside those that stay? */
static int
may_swap(const struct manager_state *s, const struct routing_chain *c,
    const struct swap *w, node_id node)
{
	struct manager_chain_input in = { .event = MANAGER_CHAIN_REPLACE,
		.target = w->old, .with = w->with };

	for (uint32_t i = 0; i < c->target_n; i++) {
		const struct routing_target *t = routing_target(s->routing,
		    c->targets[i]);

		if (c->targets[i] != w->old && t != NULL && t->node == node)
			return -EEXIST;
	}
	look_around(s, c, &in);
	return manager_chain_check(c, &in);
}

/* Pair what is on @old with what is free on @with; *n says how many. */
static int
plan_swaps(const struct manager_state *s, const struct manager_disk *old,
    const struct manager_disk *with, struct swap *out, uint32_t *n)
{
	uint32_t at = 0;
	int rc;

	for (uint32_t i = 0; i < old->target_n; i++) {
		const struct routing_target *t = routing_target(s->routing,
		    old->targets[i]), *free_one = NULL;
		struct swap *w = &out[*n];

		if (t->chain == 0)
			continue;
		while (at < with->target_n && free_one == NULL) {
			free_one = routing_target(s->routing, with->targets[at++]);
			if (free_one->chain != 0)
				free_one = NULL;
		}
		if (free_one == NULL)
			return -ENOSPC;
		*w = (struct swap){ t->chain, t->id, free_one->id };
		rc = may_swap(s, routing_chain(s->routing, w->chain), w, with->node);
		if (rc != 0)
			return rc;
		(*n)++;
	}
	return *n == 0 ? -EALREADY : 0;
}

int
manager_heal_replace(struct manager_state *s, struct manager_disk *old,
    struct manager_disk *with)
{
	struct swap swaps[MANAGER_SLOTS_MAX];
	uint32_t n = 0;
	int rc;

	if (old == NULL || with == NULL)
		return -ENOENT;
	if (old == with)
		return -EEXIST;
	if (with->health != DISK_WORKS)
		return -EIO;
	if ((rc = plan_swaps(s, old, with, swaps, &n)) != 0)
		return rc;
	old->health = DISK_REPLACED;
	s->capacity_bytes -= old->capacity;
	s->used_bytes -= old->used;
	old->capacity = old->used = 0;
	manager_put_disk(s, old);
	for (uint32_t i = 0; i < n && s->rc == 0; i++) {
		struct routing_target t = *routing_target(s->routing, swaps[i].old);
		struct routing_target w = *routing_target(s->routing, swaps[i].with);

		t.chain = 0;
		w.chain = swaps[i].chain;
		manager_put_target(s, &t);
		manager_put_target(s, &w);
		manager_hold_drop(s, t.id);
		(void)manager_heal_chain(s, swaps[i].chain, MANAGER_CHAIN_REPLACE,
		    swaps[i].old, swaps[i].with);
	}
	return 0;
}
