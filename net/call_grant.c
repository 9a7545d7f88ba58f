/* SPDX-License-Identifier: MIT */
/* call_grant.c - what replies the servers of a hub may send, and when (net/grant.h).
 *
 *   request  ------------- free: all of the room, charged now; or a little -------->
 *            <-- ask: the reply is ready ----- when it is more than that was free --
 *            ------------- grant, when it is its turn ------------------------------>
 *            <-- reply with its payload --------------------------------------------
 *
 * 1. A server that has asked hears from us: a grant, or that nobody wants the reply any
 *    more.  It holds the reply until then, so calls that end meanwhile say so, and a
 *    question about a call that is not there is answered too.
 * 2. Grants are told from the loop, once all that came together has been seen, so that who
 *    is heard first has no advantage; and as what frees room may be in the midst of
 *    anything. */
#include <assert.h>
#include <errno.h>

#include "conf/err.h"
#include "net/peer.h"

/* Words for a server that does not read them; besides requests, calls_max. */
#define UNREAD_MAX	65536u

static void
told(struct net_hub *hub)
{
	stat_set(&hub->stat.granted, hub->window.charged);
	stat_set(&hub->stat.waiting, hub->window.waiting);
}

static void
grant_all(struct clock_defer *d)
{
	struct net_hub *hub = container_of(d, struct net_hub, grants);
	struct net_grant *g;

	while ((g = net_grant_next(&hub->window)) != NULL) {
		struct net_call *c = container_of(g, struct net_call, grant);

		stat_hist_add(&hub->stat.ask_ns, net_now(hub) - c->asked_ns);
		c->may = g->bytes;
		if (net_conn_word(&c->peer->conn, NET_FRAME_GRANT, c->id, 0) != 0)
			net_peer_failed(c->peer, -ECONNRESET);
	}
	told(hub);
}

/* Room or a question has come. */
static void
changed(struct net_hub *hub)
{
	told(hub);
	if (hub->window.waiting > 0)
		clock_defer(hub->conf.clock, &hub->grants, grant_all);
}

uint32_t
net_call_may(struct net_call *c, struct net_peer *p)
{
	struct net_hub *hub = c->hub;

	c->may = c->room;
	if (c->room <= NET_GRANT_SMALL || !net_conn_asks(&p->conn))
		return c->may;
	if (!net_grant_try(&hub->window, &p->grant, &c->grant, c->room))
		c->may = NET_GRANT_SMALL;
	told(hub);
	return c->may;
}

static int
not_wanted(struct net_peer *p, uint64_t id)
{
	return net_conn_word(&p->conn, NET_FRAME_GRANT, id, 1);
}

int
net_call_asked(struct net_call *c, uint32_t bytes)
{
	struct net_hub *hub = c->hub;

	if (c->grant.state != NET_GRANT_IDLE || bytes <= c->may || bytes > c->room)
		return ERR_BAD_MESSAGE;
	net_grant_wait(&hub->window, &c->peer->grant, &c->grant, bytes);
	c->asked_ns = net_now(hub);
	stat_add(&hub->stat.asks, 1);
	changed(hub);
	return 0;
}

int
net_call_asked_late(struct net_peer *p, uint64_t id)
{
	/* Ours cost it nothing: it may ask for ever, and hear none. */
	if (p->conn.outs_n > p->hub->conf.calls_max + UNREAD_MAX)
		return ERR_BAD_MESSAGE;
	return not_wanted(p, id);
}

int
net_call_came(struct net_call *c, uint32_t bytes)
{
	struct net_hub *hub = c->hub;

	if (bytes > c->may && net_conn_asks(&c->peer->conn))
		return ERR_BAD_MESSAGE;
	net_grant_came(&hub->window, &c->grant, bytes);
	changed(hub);
	return 0;
}

bool
net_call_waits(const struct net_call *c)
{
	return c->grant.state == NET_GRANT_WAITING;
}

void
net_call_give_up(struct net_call *c)
{
	if (c->grant.state != NET_GRANT_WAITING)
		return;
	/* Out of memory: it will not wait for ever. */
	(void)not_wanted(c->peer, c->id);
	net_call_grant_end(c);
}

void
net_call_grant_end(struct net_call *c)
{
	struct net_hub *hub = c->hub;

	net_grant_end(&hub->window, &c->grant);
	if (!hub->closed)
		changed(hub);
}
