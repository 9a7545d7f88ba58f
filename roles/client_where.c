/* SPDX-License-Identifier: MIT */
/* client_where.c - which of several metadata servers is asked.
 *
 * One of them leads and answers; it may change at any time.  Routing says who is in the
 * group, and who was the last to lead, somewhat later than we may find out.  All calls
 * go to the one that answered last.  When it refuses, or its connection breaks, the next
 * is asked at once, by each call, until all have been; then there is a pause.  When it says
 * nothing at all for PATIENCE_NS, to any call, every call that waits for it goes to the
 * next: a process that was stopped keeps its connections.  That one is left out for a while,
 * or each round through the servers would wait for it.  (Silence is what counts, not a
 * slow answer: some requests wait for other clients or for storage.)
 *
 * Sending again is safe: reads change nothing, changes are recognised by (client, seq),
 * opens by their handle. */
#include "roles/client_impl.h"

#include <errno.h>

#define PATIENCE_NS	NS_PER_S
#define LOOK_NS		(200 * NS_PER_MS)
#define SILENT_NS	(2 * NS_PER_S)	/* not asked for so long after that */
#define GROUP_ID	1u

/* Also one that is to leave the group may still lead it. */
static bool
serves(const struct routing_node *n, const struct routing_group *g)
{
	return (n->roles & NODE_METADATA) != 0 && n->addr_n > 0 &&
	    n->addrs[0].kind != NET_ADDR_NONE && (g == NULL || g->leader == n->id ||
	    routing_group_find(g, n->id) < g->n);
}

/* The first server after @after in the circle of ids, among those that are up; when none
 * is, among all.  One that was silent is the last resort. */
static void
choose(struct client *c, node_id after)
{
	const struct routing *r = member_routing(c->member);
	const struct routing_group *g = routing_group(r, GROUP_ID);
	const struct routing_node *n, *first = NULL, *next = NULL, *mute = NULL;
	struct client_where *w = &c->where;
	bool any_up = false;

	w->n = 0;
	for (unsigned i = 0; (n = routing_node_at(r, i)) != NULL; i++)
		any_up |= serves(n, g) && n->state == NODE_UP;
	for (unsigned i = 0; (n = routing_node_at(r, i)) != NULL; i++) {
		if (!serves(n, g) || (any_up && n->state != NODE_UP))
			continue;
		w->n++;
		if (n->id == w->silent && clock_now(c->clock) < w->silent_until_ns) {
			mute = n;
			continue;
		}
		if (first == NULL)
			first = n;
		if (next == NULL && n->id > after)
			next = n;
	}
	if (next == NULL)
		next = first != NULL ? first : mute;
	w->routing = routing_version(r);
	w->node = next == NULL ? 0 : next->id;
	if (next != NULL)
		w->addr = next->addrs[0];
}

/* Routing has changed: stay, unless somebody began to lead. */
static void
look_again(struct client *c)
{
	const struct routing_group *g = routing_group(member_routing(c->member),
	    GROUP_ID);
	struct client_where *w = &c->where;

	if (g != NULL && g->leader != 0 && g->term > w->term) {
		w->term = g->term;
		w->node = g->leader;
		if (w->silent == g->leader)
			w->silent = 0;
	}
	choose(c, w->node == 0 ? 0 : w->node - 1);
}

node_id
client_where(struct client *c, struct net_addr *out)
{
	struct client_where *w = &c->where;

	if (w->routing != routing_version(member_routing(c->member)))
		look_again(c);
	*out = w->addr;
	return w->node;
}

/* @node does not serve: whoever finds out first moves us on. */
static void
move_on(struct client *c, node_id node)
{
	struct client_where *w = &c->where;

	if (w->node == node)
		choose(c, node);
}

bool
client_where_answered(struct client *c, node_id node, int rc, unsigned *tries)
{
	struct client_where *w = &c->where;
	enum err_next next = err_next(rc);

	if (rc == 0 || (next != ERR_NEXT_REFRESH && next != ERR_NEXT_OTHER) ||
	    rc == ERR_SESSION) {
		if (w->silent == node)
			w->silent = 0;
		if (w->node == node)
			w->heard_ns = clock_now(c->clock);
		*tries = 0;
		return false;
	}
	move_on(c, node);
	member_refresh(c->member);
	if (++*tries < w->n)
		return true;
	*tries = 0;
	return false;
}

static void
look(struct clock_timer *t)
{
	struct client *c = container_of(t, struct client, where.watch);
	struct client_where *w = &c->where;
	uint64_t now = clock_now(c->clock);
	uint64_t oldest = client_mcall_oldest(c, w->node);
	node_id node = w->node;

	if (oldest != UINT64_MAX && w->n > 1 && w->heard_ns <= oldest &&
	    oldest + PATIENCE_NS <= now) {
		log_info(c->log, "metadata server is silent", "node=%u", node);
		w->silent = node;
		w->silent_until_ns = now + SILENT_NS;
		move_on(c, node);
		member_refresh(c->member);
		client_mcall_resend(c, node);
		client_session_resend(c, node);
		oldest = client_mcall_oldest(c, w->node);
	}
	if (oldest != UINT64_MAX)
		client_where_watch(c);
}

void
client_where_watch(struct client *c)
{
	struct client_where *w = &c->where;

	if (w->watch.pos == 0 && w->n > 1)
		clock_timer_start(c->clock, &w->watch,
		    clock_now(c->clock) + LOOK_NS, look);
}
