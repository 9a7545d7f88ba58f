/* SPDX-License-Identifier: MIT */
/* client_relay.c - which way a write goes: to the head of its chain; or, while that does not
 * answer this client, to another replica that passes it on.
 *
 * A head that is gone for everybody is soon replaced by the manager.  Until then a relay is
 * tried with one write at a time, and none waits for it; when one has been of use, all that
 * wait for the head in vain follow.
 *
 * A client that is cut off sees nothing at all, not even a refusal: so writes that have no
 * answer are looked at several times a second. */
#include "roles/client_impl.h"

#include <errno.h>

#define LOOK_NS		(100 * NS_PER_MS)

int
client_relay_route(struct client_ext *e, const struct routing_chain *chain)
{
	if (routing_serving_n(chain) == 0)
		return -EHOSTUNREACH;
	return path_choose(&e->c->paths, member_routing(e->c->member), chain, 0,
	    &e->way);
}

static void
look(struct clock_timer *t)
{
	struct client *c = container_of(t, struct client, relay_watch);
	const struct routing *r = member_routing(c->member);
	node_id pinged = 0;
	bool any = false;

	list_for_each(n, &c->sending) {
		struct client_ext *e = list_entry(n, struct client_ext, node);

		if (!client_ext_under_way(e))
			continue;
		any = true;
		if (path_in_vain(&c->paths, &e->way, &e->call, &pinged) &&
		    path_give_up(&c->paths, r, &e->way))
			client_ext_resend(e, true);
	}
	if (any)
		clock_timer_start(c->clock, t, clock_now(c->clock) + LOOK_NS, look);
}

void
client_relay_sent(struct client_ext *e)
{
	struct client *c = e->c;

	path_sent(&c->paths, &e->way);
	stat_add(&c->stat.relayed, e->way.via != 0);
	if (c->relay_watch.pos == 0)
		clock_timer_start(c->clock, &c->relay_watch, clock_now(c->clock) +
		    LOOK_NS, look);
}

/* The relay works: what waits for the head in vain goes the same way. */
static void
follow(struct client *c, node_id head)
{
	list_for_each(n, &c->sending) {
		struct client_ext *e = list_entry(n, struct client_ext, node);

		if (client_ext_under_way(e) && e->way.via == 0 &&
		    e->way.owner == head)
			client_ext_resend(e, true);
	}
}

bool
client_relay_ended(struct client_ext *e, int rc)
{
	struct client *c = e->c;
	bool worked = path_relay_works(&c->paths, e->way.owner);
	bool again = path_ended(&c->paths, member_routing(c->member), &e->way, rc);

	if (!worked && path_relay_works(&c->paths, e->way.owner))
		follow(c, e->way.owner);
	return again;
}
