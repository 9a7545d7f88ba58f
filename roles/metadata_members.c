/* SPDX-License-Identifier: MIT */
/* metadata_members.c - who is in the metadata group.
 *
 * The manager says it, in routing (roles/manager_meta.c): as long as the group is not
 * founded one node is named, by the random id of its data too, and that one founds it.  Who
 * leads tells the manager which group that is.  Nobody is served before the manager has
 * taken note of it: then there is no other, and never will be.  Afterwards the leader
 * brings the members to what the manager wants; blank ones wait to be taken in. */
#include <errno.h>
#include <inttypes.h>

#include "roles/metadata_impl.h"

#define GROUP_ID	1u
#define LOOK_NS		(20 * NS_PER_MS)

static const struct routing_group *
row_of(const struct metadata *m)
{
	return routing_group(member_routing(m->member), GROUP_ID);
}

/* We, with the data that we have, are the one to found it. */
static bool
is_founder(const struct metadata *m, const struct routing_group *row)
{
	return uid128_zero(&row->group) && row->nodes[0] == member_node(m->member) &&
	    row->members[0] == group_member(m->group);
}

static void
look(struct clock_timer *t)
{
	struct metadata *m = container_of(t, struct metadata, members_timer);

	metadata_members_look(m);
	metadata_ready_check(m);
}

/* A node that is to be a member, but not with the data that it has. */
static void
warn_lost(struct metadata *m, const struct routing_group *row)
{
	unsigned at = routing_group_find(row, member_node(m->member));

	if (m->told_lost || at == row->n ||
	    row->members[at] == group_member(m->group))
		return;
	m->told_lost = true;
	log_warn(m->log, "lost its data, takes no part before fsd admin metadata "
	    "replace", "node=%u", member_node(m->member));
}

static void
check_group(struct metadata *m, const struct routing_group *row)
{
	struct uid128 own;

	group_id(m->group, &own);
	m->known = !uid128_zero(&own) && uid128_eq(&own, &row->group);
	if (m->known || m->told_foreign || uid128_zero(&own) ||
	    uid128_zero(&row->group))
		return;
	m->told_foreign = true;
	log_error(m->log, "has data of a group that is not this cluster's: serves "
	    "nobody", "node=%u", member_node(m->member));
}

static void
drive(struct metadata *m, const struct routing_group *row)
{
	struct group_want want[ROUTING_MEMBERS_MAX];

	for (unsigned i = 0; i < row->n; i++) {
		const struct routing_node *n =
		    routing_node(member_routing(m->member), row->nodes[i]);

		if (n == NULL || n->addr_n == 0)
			return;			/* its row comes too */
		want[i] = (struct group_want){ row->members[i], n->addrs[0] };
	}
	group_want(m->group, want, row->n);
}

void
metadata_members_look(struct metadata *m)
{
	const struct routing_group *row = row_of(m);

	if (m->stopping || m->broken != 0)
		return;
	if (m->ready != NULL)		/* the group may still be opening */
		clock_timer_start(m->clock, &m->members_timer,
		    metadata_now(m) + LOOK_NS, look);
	if (row == NULL || member_node(m->member) == 0)
		return;
	if (is_founder(m, row) && group_blank(m->group) &&
	    group_found(m->group) == 0)
		log_info(m->log, "first metadata node", "node=%u",
		    member_node(m->member));
	warn_lost(m, row);
	check_group(m, row);
	if (m->known && group_leads(m->group))
		drive(m, row);
}

unsigned
metadata_members_told(void *ctx, struct msg_group_status *rows, unsigned max)
{
	struct metadata *m = ctx;
	const struct raft_members *r = group_members(m->group);
	struct msg_group_status *s = &rows[0];

	if (max == 0 || m->stopping || !group_lease(m->group))
		return 0;
	*s = (struct msg_group_status){ .id = GROUP_ID, .term = group_run(m->group),
		.voters.v = m->voters, .learners.v = m->learners };
	group_id(m->group, &s->group);
	for (unsigned i = 0; i < r->n; i++)
		if (r->m[i].voter)
			m->voters[s->voters.n++] = r->m[i].id;
		else
			m->learners[s->learners.n++] = r->m[i].id;
	return 1;
}

bool
metadata_members_idle(const struct metadata *m)
{
	const struct routing_group *row = row_of(m);
	struct net_addr at, own;

	if (row == NULL || member_node(m->member) == 0)
		return false;
	net_server_addr(m->server, &own);
	if (!group_blank(m->group))
		return group_leader(m->group, &at) && !net_addr_eq(&at, &own);
	return !is_founder(m, row);
}
