/* SPDX-License-Identifier: MIT */
/* client_relay.c - which way a write goes: to the head of its chain; or, while that does not
 * answer this client, to another replica that passes it on.
 *
 * A head that is gone for everybody is soon replaced by the manager.  Until then a relay is
 * tried with one write at a time, and none waits for it; when one has been of use, all that
 * wait for the head in vain follow.
 *
 * A client that is cut off sees nothing at all, not even a refusal: so who owes an answer
 * is pinged, and is lost when nothing has come from it for SILENT_NS.  A slow one answers
 * pings. */
#include "roles/client_impl.h"

#include <errno.h>

#define LOOK_NS		(100 * NS_PER_MS)
#define PING_NS		(200 * NS_PER_MS)
#define SILENT_NS	NS_PER_S
#define RESETS		2u		/* a connection may break once for other reasons */

static node_id
node_of(const struct routing *r, target_id target)
{
	const struct routing_target *t = routing_target(r, target);

	return t == NULL ? 0 : t->node;
}

/* The place in @chain of a replica that can pass on a write; 0: there is none. */
static unsigned
pick(struct client *c, const struct routing_chain *chain, node_id head)
{
	const struct routing *r = member_routing(c->member);
	unsigned n = routing_active_n(chain), turn = path_turn(&c->paths, head);
	struct net_addr addr;

	for (unsigned k = 0; k + 1 < n; k++) {
		unsigned i = 1 + (turn + k) % (n - 1);

		if (routing_target_addr(r, chain->targets[i], &addr) == 0 &&
		    !path_is_lost(&c->paths, node_of(r, chain->targets[i])))
			return i;
	}
	return 0;
}

int
client_relay_route(struct client_ext *e, const struct routing_chain *chain,
    struct net_addr *to)
{
	struct client *c = e->c;
	const struct routing *r = member_routing(c->member);
	unsigned at = 0;

	if (routing_serving_n(chain) == 0)
		return -EHOSTUNREACH;
	e->target = chain->targets[0];
	e->head_node = node_of(r, e->target);
	if (path_by_relay(&c->paths, e->head_node))
		at = pick(c, chain, e->head_node);
	e->via = at == 0 ? 0 : chain->targets[at];
	e->to_node = node_of(r, chain->targets[at]);
	return routing_target_addr(r, chain->targets[at], to) == 0 ? 0 :
	    -EHOSTUNREACH;
}

/* ---- who does not answer ---- */

static void
lost(struct client_ext *e)
{
	struct client *c = e->c;
	const struct routing *r = member_routing(c->member);
	const struct routing_chain *chain = routing_chain(r, e->chain);
	struct path_ask ask = { .method = MSG_committed };

	ask.committed = (struct msg_committed){ .chain = e->chain,
	    .chain_version = chain == NULL ? 0 : chain->version,
	    .target = e->via != 0 ? e->via : e->target, .chunk = { 1, 0 } };
	if (routing_target_addr(r, ask.committed.target, &ask.addr) == 0)
		path_lost(&c->paths, e->to_node, &ask);
}

/* Nothing has come from where @e was sent for too long. */
static bool
in_vain(struct client_ext *e, node_id *pinged)
{
	uint64_t now = clock_now(e->c->clock), heard = net_call_heard(&e->call);

	if (heard < e->sent_ns)
		heard = e->sent_ns;
	if (now - heard >= PING_NS && e->to_node != *pinged) {
		*pinged = e->to_node;
		net_call_ping(&e->call);
	}
	return now - heard >= SILENT_NS;
}

/* There is another way than the one @e went. */
static bool
other_way(struct client_ext *e)
{
	struct client *c = e->c;
	const struct routing_chain *chain = routing_chain(
	    member_routing(c->member), e->chain);

	return e->via != 0 || (path_by_relay(&c->paths, e->head_node) &&
	    chain != NULL && pick(c, chain, e->head_node) != 0);
}

static void
look(struct clock_timer *t)
{
	struct client *c = container_of(t, struct client, relay_watch);
	node_id pinged = 0;
	bool any = false;

	list_for_each(n, &c->sending) {
		struct client_ext *e = list_entry(n, struct client_ext, node);

		if (!net_call_active(&e->call))
			continue;
		any = true;
		if (!in_vain(e, &pinged))
			continue;
		if (e->via != 0 && !path_is_lost(&c->paths, e->to_node))
			path_relay_gone(&c->paths, e->head_node);
		lost(e);
		if (other_way(e))
			client_ext_resend(e);
	}
	if (any)
		clock_timer_start(c->clock, t, clock_now(c->clock) + LOOK_NS, look);
}

void
client_relay_sent(struct client_ext *e)
{
	struct client *c = e->c;

	e->sent_ns = clock_now(c->clock);
	if (e->via != 0) {
		path_relay_sent(&c->paths, e->head_node);
		stat_add(&c->stat.relayed, 1);
	}
	if (c->relay_watch.pos == 0)
		clock_timer_start(c->clock, &c->relay_watch, e->sent_ns + LOOK_NS,
		    look);
}

/* ---- answers ---- */

/* The relay works: what waits for the head in vain goes the same way. */
static void
follow(struct client *c, node_id head)
{
	list_for_each(n, &c->sending) {
		struct client_ext *e = list_entry(n, struct client_ext, node);

		if (net_call_active(&e->call) && e->via == 0 && e->head_node == head)
			client_ext_resend(e);
	}
}

static void
relay_ended(struct client_ext *e, int rc)
{
	struct client *c = e->c;
	bool worked = path_relay_works(&c->paths, e->head_node);

	switch (rc) {
	case ERR_STALE_CHAIN:
	case ERR_BUSY:
		return;			/* says nothing of the head */
	case ERR_CHAIN_RECOVERING:
	case ERR_NOT_OWNER:
	case ERR_NO_LEASE:
	case ERR_STOPPING:
		path_relay_ended(&c->paths, e->head_node, false);
		return;
	default:
		break;
	}
	if (path_answered(rc))
		path_relay_ended(&c->paths, e->head_node, true);
	else
		path_relay_gone(&c->paths, e->head_node);
	if (!worked && path_relay_works(&c->paths, e->head_node))
		follow(c, e->head_node);
}

bool
client_relay_ended(struct client_ext *e, int rc)
{
	struct client *c = e->c;

	if (!path_answered(rc)) {
		e->resets = rc == -ECONNRESET || rc == -ETIMEDOUT ?
		    e->resets + 1 : RESETS;
		if (e->resets >= RESETS)
			lost(e);
	} else {
		e->resets = 0;
		path_heard(&c->paths, e->to_node);
	}
	if (e->via != 0)
		relay_ended(e, rc);
	return !path_answered(rc) && e->resets >= RESETS && other_way(e);
}
