/* SPDX-License-Identifier: MIT */
/* metadata_relay.c - requests passed on to the leader, for clients that reach us but not it.
 *
 * The message goes on as it came, with the client and the number of its change: to the
 * leader it is one more attempt at the same request.
 *  1. Who passes on is named in the message (via): only that one does, and only while it does
 *     not lead; the leader finds another named and passes nothing on.
 *  2. A request ends here at its own deadline at the latest; sooner when nothing comes from the
 *     leader, when another one leads, or we do.  The client is told that we do not lead,
 *     and asks again: it may have been executed. */
#include <errno.h>
#include <stdlib.h>

#include "conf/err.h"
#include "roles/metadata_impl.h"

#define RELAYS_MAX	1024u
#define GROUP_ID	1u
#define LOOK_NS		(100 * NS_PER_MS)

struct metadata_relay {
	struct metadata	*m;
	struct list	 node;		/* m->relays */
	struct net_req	*req;
	struct net_addr	 to;
	struct net_call	 call;
	uint64_t	 sent_ns;
};

node_id
metadata_via(const struct net_req *req)
{
	switch (req->method) {
	case MSG_meta_stats:
	case MSG_image:
	case MSG_reload:
	case MSG_repair:
		return 0;		/* for operators */
	case MSG_session:
		return ((const struct msg_session *)req->msg)->via;
	default:
		return ((const struct msg_ctx *)req->msg)->via;
	}
}

bool
metadata_relay_from(const struct metadata *m, node_id via)
{
	const struct routing_group *g;

	if (via == 0 || via == member_node(m->member))
		return true;
	g = routing_group(member_routing(m->member), GROUP_ID);
	return g != NULL && routing_group_find(g, via) < g->n;
}

static void
finish(struct metadata_relay *r, int rc, const void *rep)
{
	struct metadata *m = r->m;

	net_call_cancel(&r->call);
	net_reply(r->req, rc, rep, NULL, 0, NULL, NULL);
	m->relays_n--;
	list_remove(&r->node);
	free(r);
}

static void
answered(struct net_call *c, int rc)
{
	struct metadata_relay *r = container_of(c, struct metadata_relay, call);

	finish(r, path_answered(rc) ? rc : ERR_NOT_LEADER, rc == 0 ? c->rep : NULL);
}

/* It has gone to who does not lead any more, or nothing comes from there. */
static bool
in_vain(struct metadata_relay *r)
{
	struct net_addr leader;

	return path_relay_in_vain(&r->call, r->sent_ns, metadata_now(r->m)) ||
	    !group_leader(r->m->group, &leader) || !net_addr_eq(&leader, &r->to);
}

static void
look(struct clock_timer *t)
{
	struct metadata *m = container_of(t, struct metadata, relay_timer);

	list_for_each_safe(it, next, &m->relays) {
		struct metadata_relay *r = list_entry(it, struct metadata_relay,
		    node);

		if (in_vain(r))
			finish(r, ERR_NOT_LEADER, NULL);
	}
	if (!list_empty(&m->relays))
		clock_timer_start(m->clock, t, metadata_now(m) + LOOK_NS, look);
}

static int
pass_on(struct metadata *m, struct net_req *req)
{
	struct net_call_opts opts = { .deadline_ns = req->deadline_ns };
	struct net_addr own;
	struct metadata_relay *r;
	int rc;

	if (m->relays_n >= RELAYS_MAX)
		return ERR_BUSY;
	if ((r = calloc(1, sizeof(*r))) == NULL)
		return -ENOMEM;
	net_server_addr(m->server, &own);
	rc = ERR_NOT_LEADER;
	if (group_leader(m->group, &r->to) && !net_addr_eq(&r->to, &own))
		rc = net_call_start(&r->call, m->env.hub, &r->to, req->method,
		    req->msg, &opts, answered);
	if (rc != 0) {
		free(r);
		return rc;
	}
	r->m = m;
	r->req = req;
	r->sent_ns = metadata_now(m);
	list_push_back(&m->relays, &r->node);
	m->relays_n++;
	stat_add(&m->stat.relayed, 1);
	if (m->relay_timer.pos == 0)
		clock_timer_start(m->clock, &m->relay_timer, r->sent_ns + LOOK_NS,
		    look);
	return 0;
}

void
metadata_relay_call(struct metadata *m, struct net_req *req)
{
	int rc = pass_on(m, req);

	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

void
metadata_relay_end(struct metadata *m, int rc)
{
	while (!list_empty(&m->relays))
		finish(list_entry(m->relays.next, struct metadata_relay, node), rc,
		    NULL);
}

void
metadata_relay_close(struct metadata *m)
{
	struct list *n;

	clock_timer_stop(m->clock, &m->relay_timer);
	while ((n = list_pop_front(&m->relays)) != NULL) {
		struct metadata_relay *r = list_entry(n, struct metadata_relay,
		    node);

		net_call_cancel(&r->call);
		net_req_drop(r->req);
		free(r);
	}
}
