/* SPDX-License-Identifier: MIT */
/* manager_part.c - storage nodes that we hear, but that do not reach each other.
 *
 *	SERVING or SYNCING --silent in two beats--> APART --reached, and the pause is over-->
 *	                                                              as if it were back
 *
 * A write waits for a successor that gives no sign of life, and the lease of neither ends.
 * So storage nodes tell who they wait for in vain.  One of the two leaves the chains where
 * they are neighbours: the successor, unless the other one is the one that more nodes do not
 * reach, or that reaches fewer.  Who leaves is alive and may not know: the reading tail sees
 * to it that it answers no reader before the chain goes on (storage_target.c).
 *
 * The reading tail asks those that are apart whether they are there, and a replica comes
 * back, behind the others, when it says they are; each time that this was not for long, later:
 * after 1 s, 2 s, ... 60 s.
 *
 * All of this is the leader's memory: who leads next is told again. */
#include "roles/manager_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

#define CUTS_MAX	1024u
#define CUT_BEATS	4u		/* what was said goes for so long */
#define PAUSE_MIN_MS	1000u
#define PAUSE_MAX_MS	60000u
#define FORGET_MS	600000u		/* the pause begins anew */
#define ORDER_MS	60000u		/* and chains are put in order again; times 2, 4, .. */

/* @from waits for @to in vain. */
struct manager_cut {
	struct list node;		/* manager.cuts, latest word last */
	node_id	    from, to;
	uint64_t    first_ns, heard_ns;
};

static uint64_t
now_of(const struct manager *m)
{
	return clock_fresh(m->env.clock);
}

static void
cut_free(struct manager *m, struct manager_cut *c)
{
	list_remove(&c->node);
	m->cut_n--;
	free(c);
}

static void
prune(struct manager *m)
{
	uint64_t keep = CUT_BEATS * m->env.conf->manager_beat * NS_PER_MS;

	while (!list_empty(&m->cuts)) {
		struct manager_cut *c = list_entry(m->cuts.next, struct manager_cut,
		    node);

		if (c->heard_ns + keep > now_of(m))
			break;
		cut_free(m, c);
	}
}

static struct manager_cut *
cut_get(struct manager *m, node_id from, node_id to)
{
	struct manager_cut *c;

	list_for_each(it, &m->cuts) {
		c = list_entry(it, struct manager_cut, node);
		if (c->from == from && c->to == to)
			return c;
	}
	if (m->cut_n >= CUTS_MAX || (c = calloc(1, sizeof(*c))) == NULL)
		return NULL;
	*c = (struct manager_cut){ .from = from, .to = to, .first_ns = now_of(m) };
	list_init(&c->node);
	m->cut_n++;
	return c;
}

/* How many nodes are cut from @id, whoever says so. */
static unsigned
degree(const struct manager *m, node_id id)
{
	unsigned n = 0;

	list_for_each(it, &m->cuts) {
		const struct manager_cut *c = list_entry(it, struct manager_cut, node);
		bool twice = false;

		if (c->from != id && c->to != id)
			continue;
		for (struct list *b = m->cuts.next; b != it && !twice; b = b->next) {
			const struct manager_cut *d = list_entry(b,
			    struct manager_cut, node);

			twice = d->from == c->to && d->to == c->from;
		}
		n += !twice;
	}
	return n;
}

static uint64_t
pause_ns(const struct manager_node *n)
{
	uint64_t ms = (uint64_t)PAUSE_MIN_MS << (n->part_tries < 8 ? n->part_tries : 8);

	return n->part_tries == 0 ? 0 :
	    (ms / 2 < PAUSE_MAX_MS ? ms / 2 : PAUSE_MAX_MS) * NS_PER_MS;
}

static void part(struct manager *m, const struct manager_cut *cut);

/* Once may be a hiccup, and others may know better by the next beat. */
static void
part_all(struct manager *m)
{
	prune(m);
	list_for_each(it, &m->cuts) {
		const struct manager_cut *c = list_entry(it, struct manager_cut, node);

		if (m->parting)
			return;			/* parted() looks again */
		if (c->heard_ns - c->first_ns >=
		    m->env.conf->manager_beat * NS_PER_MS / 2)
			part(m, c);
	}
}

static void
part_note(struct manager *m, struct manager_node *n, uint64_t value)
{
	if (n->part_tries != 0 && now_of(m) - n->part_ns > FORGET_MS * NS_PER_MS)
		n->part_tries = 0;
	if (n->part_tries == 0 || now_of(m) - n->part_ns >= pause_ns(n))
		n->part_tries++;
	n->part_ns = now_of(m);
	log_warn(&m->env.log, "node is cut from its neighbours",
	    "node=%u chains=%llu pause_ms=%llu", n->id, (unsigned long long)value,
	    (unsigned long long)(pause_ns(n) / NS_PER_MS));
	stat_add(&m->stat.replicas_apart, value);
}

static void
parted(struct manager_call *c, int rc, uint64_t value)
{
	struct manager *m = c->m;
	struct manager_node *n = map_get(&m->state.nodes, c->id);

	m->parting = false;
	/* One that changed nothing is not repeated before a node says so again. */
	if (rc != 0 || value == 0 || m->phase != MANAGER_SERVING)
		return;
	if (n != NULL)
		part_note(m, n, value);
	part_all(m);
}

static void
part(struct manager *m, const struct manager_cut *cut)
{
	const struct routing_node *row = routing_node(m->state.routing, cut->from);
	struct bytes_writer w;
	uint8_t buf[32];
	node_id leaver;

	if (manager_heal_part(&m->state, cut->from, cut->to, 0, false) == 0)
		return;
	leaver = degree(m, cut->from) > degree(m, cut->to) ? cut->from : cut->to;
	bytes_writer_init(&w, buf, sizeof(buf));
	manager_cmd_part(&w, cut->from, &row->boot, cut->to, leaver);
	m->parting = manager_propose(m, NULL, leaver, &w, parted) == 0;
}

static void
silent(struct manager *m, struct manager_node *n, struct manager_node *other)
{
	struct manager_cut *c = cut_get(m, n->id, other->id);

	if (c == NULL)
		return;
	c->heard_ns = now_of(m);
	list_remove(&c->node);
	list_push_back(&m->cuts, &c->node);
}

static void
joined(struct manager_call *c, int rc, uint64_t value)
{
	struct manager *m = c->m;

	m->parting = false;
	if (rc == 0 && value > 0)
		log_info(&m->env.log, "node is reached again", "node=%u chains=%llu",
		    c->id, (unsigned long long)value);
}

static void
reached(struct manager *m, struct manager_node *n, struct manager_node *other)
{
	struct bytes_writer w;
	uint8_t buf[32];

	if (m->parting || (other->part_tries != 0 &&
	    now_of(m) - other->part_ns < pause_ns(other)) ||
	    manager_heal_join(&m->state, n->id, other->id, false) == 0)
		return;
	bytes_writer_init(&w, buf, sizeof(buf));
	manager_cmd_join(&w, n->id, &routing_node(m->state.routing, n->id)->boot,
	    other->id);
	m->parting = manager_propose(m, NULL, other->id, &w, joined) == 0;
}

void
manager_part_told(struct manager *m, struct manager_node *n,
    const msg_t_list_neighbour *rows)
{
	prune(m);
	for (uint32_t i = 0; i < rows->n; i++) {
		struct manager_node *other = map_get(&m->state.nodes,
		    rows->v[i].node);

		if (other == NULL || other == n || m->phase != MANAGER_SERVING)
			continue;
		if (rows->v[i].reached)
			reached(m, n, other);
		else
			silent(m, n, other);
	}
	if (rows->n > 0)
		part_all(m);
}

bool
manager_part_lately(const struct manager *m, const struct manager_node *n)
{
	uint64_t ms = (uint64_t)ORDER_MS << (n->part_tries < 6 ? n->part_tries : 6);

	return n->part_tries != 0 && now_of(m) - n->part_ns < ms / 2 * NS_PER_MS;
}

void
manager_part_stop(struct manager *m)
{
	const struct routing_node *row;

	while (!list_empty(&m->cuts))
		cut_free(m, list_entry(m->cuts.next, struct manager_cut, node));
	for (unsigned i = 0; m->loaded &&
	    (row = routing_node_at(m->state.routing, i)) != NULL; i++) {
		struct manager_node *n = map_get(&m->state.nodes, row->id);

		n->part_tries = 0;
	}
}
