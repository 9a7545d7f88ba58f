/* SPDX-License-Identifier: MIT */
/* metadata_members.c - who is in the metadata group.
 *
 * The metadata nodes with the lowest ids are: as many as metadata.replicas allows, or the
 * next lower odd number while there are fewer.  Ids are given in the order of registration
 * and never again, so everybody sees the same, and a node that was wiped is a new one that
 * comes last.  The first of all founds the group, once it has seen itself in routing: then
 * nobody with a lower id is missing there.  The others wait until the leader, which drives
 * the members there, takes them in. */
#include <errno.h>

#include "roles/metadata_impl.h"

#define LOOK_NS		(20 * NS_PER_MS)

/* The nodes that are to be members, lowest id first. */
static unsigned
wanted(const struct metadata *m, const struct routing_node *out[META_MEMBERS_MAX])
{
	const struct routing *r = member_routing(m->member);
	unsigned most = (unsigned)m->env.conf->metadata_replicas, n = 0;
	const struct routing_node *node;

	if (most > META_MEMBERS_MAX)
		most = META_MEMBERS_MAX;
	for (unsigned i = 0; n < most &&
	    (node = routing_node_at(r, i)) != NULL; i++)
		if ((node->roles & NODE_METADATA) != 0 && node->addr_n > 0)
			out[n++] = node;
	return n == 0 ? 0 : (n - 1) | 1;
}

static void
look(struct clock_timer *t)
{
	struct metadata *m = container_of(t, struct metadata, members_timer);

	metadata_members_look(m);
	metadata_ready_check(m);
}

void
metadata_members_look(struct metadata *m)
{
	const struct routing_node *nodes[META_MEMBERS_MAX];
	node_id self = member_node(m->member);
	struct group_want want[META_MEMBERS_MAX];
	unsigned n;

	if (m->stopping || m->broken != 0 || self == 0 ||
	    routing_node(member_routing(m->member), self) == NULL)
		return;
	n = wanted(m, nodes);
	if (n > 0 && nodes[0]->id == self && group_blank(m->group) &&
	    group_found(m->group) == 0)
		log_info(m->log, "first metadata node", "node=%u", self);
	if (m->ready != NULL)		/* the group may still be opening */
		clock_timer_start(m->clock, &m->members_timer,
		    metadata_now(m) + LOOK_NS, look);
	if (!group_leads(m->group))
		return;
	for (unsigned i = 0; i < n; i++)
		want[i] = (struct group_want){ .addr = nodes[i]->addrs[0] };
	group_want(m->group, want, n);
}

bool
metadata_members_idle(const struct metadata *m)
{
	const struct routing_node *nodes[META_MEMBERS_MAX];
	node_id self = member_node(m->member);
	struct net_addr at, own;
	unsigned n;

	if (self == 0 ||
	    routing_node(member_routing(m->member), self) == NULL)
		return false;
	net_server_addr(m->server, &own);
	if (!group_blank(m->group))
		return group_leader(m->group, &at) && !net_addr_eq(&at, &own);
	n = wanted(m, nodes);
	return n > 0 && nodes[0]->id != self;
}
