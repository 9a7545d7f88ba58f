/* SPDX-License-Identifier: MIT */
/* client_where.c - which of several metadata servers is asked.
 *
 * One of them leads and answers; it may change at any time.  Routing says who is in the
 * group, and who was the last to lead, somewhat later than we may find out.  All calls
 * go to the one that answered last.  When it refuses, or its connection breaks, the next
 * is asked at once, by each call, until all have been; then there is a pause.  When it says
 * nothing at all for PATIENCE_NS, to any call, every call that waits for it goes to the
 * next: a process that was stopped keeps its connections.  (Silence is what counts, not a
 * slow answer: some requests wait for other clients or for storage.)
 *
 * One that does not answer, or refuses connections, is lost (roles/path.h) and asked
 * last, or each round through the servers would wait for it.  It may be just us that do not
 * reach it, and it may lead: when none of the others does, they are asked to pass on what is
 * for the leader, until one that leads is found.
 *
 * Sending again is safe: reads change nothing, changes are recognised by (client, seq),
 * opens by their handle. */
#include "roles/client_impl.h"

#include <errno.h>

#define PATIENCE_NS	NS_PER_S
#define LOOK_NS		(200 * NS_PER_MS)
#define GROUP_ID	1u

/* Also one that is to leave the group may still lead it. */
static bool
serves(const struct routing_node *n, const struct routing_group *g)
{
	return (n->roles & NODE_METADATA) != 0 && n->addr_n > 0 &&
	    n->addrs[0].kind != NET_ADDR_NONE && (g == NULL || g->leader == n->id ||
	    routing_group_find(g, n->id) < g->n);
}

/* The managers may not hear one that the group hears well, and that leads. */
static bool
is_down(const struct routing_node *n, const struct routing_group *g)
{
	return n->state != NODE_UP && (g == NULL || g->leader != n->id);
}

/* The first server after @after in the circle of ids, among those that are up; when none
 * is, among all.  One that is lost is the last resort. */
static void
choose(struct client *c, node_id after)
{
	const struct routing *r = member_routing(c->member);
	const struct routing_group *g = routing_group(r, GROUP_ID);
	const struct routing_node *n, *first = NULL, *next = NULL, *mute = NULL;
	struct client_where *w = &c->where;
	bool any_up = false;

	w->n = w->open_n = 0;
	for (unsigned i = 0; (n = routing_node_at(r, i)) != NULL; i++)
		any_up |= serves(n, g) && !is_down(n, g);
	for (unsigned i = 0; (n = routing_node_at(r, i)) != NULL; i++) {
		if (!serves(n, g) || (any_up && is_down(n, g)))
			continue;
		w->n++;
		if (path_is_lost(&c->paths, n->id)) {
			if (mute == NULL || (mute->id <= after && n->id > after))
				mute = n;
			continue;
		}
		w->open_n++;
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
		w->relay = false;
	}
	choose(c, w->node == 0 ? 0 : w->node - 1);
}

/* Some server is lost, though it may lead.  Each is asked now and then whether it is there
 * again. */
static bool
some_lost(struct client *c)
{
	const struct routing *r = member_routing(c->member);
	const struct routing_group *g = routing_group(r, GROUP_ID);
	const struct routing_node *n;
	bool some = false;

	for (unsigned i = 0; (n = routing_node_at(r, i)) != NULL; i++)
		some |= serves(n, g) &&
		    !path_wanted(&c->paths, n->id, &n->addrs[0]);
	return some;
}

node_id
client_where(struct client *c, struct net_addr *out, node_id *via)
{
	struct client_where *w = &c->where;

	if (w->relay && !some_lost(c))
		w->relay = false;
	if (w->routing != routing_version(member_routing(c->member)))
		look_again(c);
	*out = w->addr;
	*via = w->relay && !path_is_lost(&c->paths, w->node) ? w->node : 0;
	stat_add(&c->stat.relayed, *via != 0);
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

static void
lost(struct client *c, node_id node)
{
	const struct routing_node *n = routing_node(member_routing(c->member), node);
	struct path_ask ask = { .method = MSG_who };

	if (n == NULL || n->addr_n == 0)
		return;
	ask.addr = n->addrs[0];
	ask.who.number = GROUP_ID;
	path_lost(&c->paths, node, &ask);
}

/* A call to @node took too long: it does not answer pings either. */
static bool
mute(const struct client *c, node_id node)
{
	const struct client_where *w = &c->where;

	return w->node == node && clock_now(c->clock) >= w->heard_ns + 2 * LOOK_NS;
}

bool
client_where_answered(struct client *c, node_id node, node_id via, int rc,
    unsigned *tries)
{
	struct client_where *w = &c->where;
	enum err_next next = err_next(rc);

	if (path_answered(rc))
		path_heard(&c->paths, node);
	else if (rc == -ETIMEDOUT ? mute(c, node) : rc != -ECONNRESET)
		lost(c, node);

	if (rc == 0 || (next != ERR_NEXT_REFRESH && next != ERR_NEXT_OTHER) ||
	    rc == ERR_SESSION) {
		if (via == 0)
			w->relay = false;
		if (w->node == node)
			w->heard_ns = clock_now(c->clock);
		*tries = 0;
		return false;
	}
	move_on(c, node);
	member_refresh(c->member);
	if (w->open_n > 0 && path_is_lost(&c->paths, node))
		return true;		/* the others are a round without it */
	if (++*tries < (w->open_n > 0 ? w->open_n : w->n))
		return true;
	*tries = 0;
	w->relay = via == 0 && w->open_n > 0 && some_lost(c);
	return w->relay;
}

/* Nothing comes from the one that is asked; who is slow answers pings. */
static bool
in_vain(struct client *c, struct net_call *call, uint64_t sent_ns)
{
	struct client_where *w = &c->where;
	uint64_t now = clock_now(c->clock), heard = net_call_heard(call);

	if (heard > w->heard_ns)
		w->heard_ns = heard;
	if (sent_ns < w->heard_ns)
		sent_ns = w->heard_ns;
	if (now >= sent_ns + LOOK_NS)
		net_call_ping(call);
	return now >= sent_ns + PATIENCE_NS;
}

static void
look(struct clock_timer *t)
{
	struct client *c = container_of(t, struct client, where.watch);
	struct client_where *w = &c->where;
	uint64_t sent_ns;
	struct net_call *oldest = client_mcall_oldest(c, w->node, &sent_ns);
	node_id node = w->node;

	if (oldest != NULL && w->n > 1 && in_vain(c, oldest, sent_ns)) {
		log_info(c->log, "metadata server is silent", "node=%u", node);
		lost(c, node);
		move_on(c, node);
		member_refresh(c->member);
		client_mcall_resend(c, node);
		client_session_resend(c, node);
		oldest = client_mcall_oldest(c, w->node, &sent_ns);
	}
	/* Routing may have moved us on while calls waited where we were. */
	if (client_mcall_leave(c, w->node, PATIENCE_NS) || oldest != NULL)
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
