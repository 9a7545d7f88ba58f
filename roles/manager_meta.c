/* SPDX-License-Identifier: MIT */
/* manager_meta.c - who is in the metadata group.
 *
 *	no row -- the first metadata node is there --> one node is named, which founds it
 *	  -- it says that it leads, and which group --> founded: nobody founds it again
 *	  -- other metadata nodes come --> grows to the largest odd number that
 *	     metadata.replicas allows, until an operator says how many there are to be
 *
 * The row is what is wanted; the group's leader brings its members there one by one, and
 * only members say who leads.  A member is its node and the random id of its data: a node
 * that has lost its data is somebody else, and takes no part before it is named again.
 *
 * Nobody is served by a group whose id is not in the row.  So as long as there is none in
 * it another node may be named; should the first one have founded a group after all, then
 * nothing is in it that anybody was told of. */
#include "roles/manager_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "conf/err.h"

#define GROUP_ID	1u		/* there is one, for now */
#define WARN_NS		(10 * NS_PER_S)

/* ---- apply ---- */

/* A node that stays, or one that may come. */
static int
may_be_in(const struct manager_state *s, const struct routing_group *was, node_id node,
    uint64_t member)
{
	const struct routing_node *at = routing_node(s->routing, node);
	const struct manager_node *n = map_get(&s->nodes, node);
	unsigned k = was == NULL ? 0 : routing_group_find(was, node);

	if (was != NULL && k < was->n && was->members[k] == member)
		return 0;
	if (at == NULL || !(at->roles & NODE_METADATA) || at->addr_n == 0)
		return -ENOENT;
	return member == 0 || n->member != member ? -EAGAIN : 0;
}

static bool
has(const struct routing_group *row, node_id node, uint64_t member)
{
	for (unsigned i = 0; i < row->n; i++)
		if (row->nodes[i] == node || row->members[i] == member)
			return true;
	return false;
}

int
manager_apply_group(struct manager_state *s, struct bytes_reader *r)
{
	uint32_t id = bytes_get_u32(r);
	uint64_t have = bytes_get_u64(r);
	bool fixed = bytes_get_u8(r) != 0;
	const struct routing_group *was = routing_group(s->routing, id);
	struct routing_group row = { .id = id };
	unsigned n = bytes_get_u8(r);
	int rc;

	if (r->failed || id == 0 || n == 0 || n > ROUTING_MEMBERS_MAX ||
	    bytes_left(r) != 12ull * n)
		return ERR_BAD_MESSAGE;
	if (have != (was == NULL ? 0 : was->changed))
		return -EAGAIN;
	if (was != NULL)
		row = *was;
	row.n = 0;
	row.fixed = fixed;
	if (n > 1 && uid128_zero(&row.group))
		return ERR_BUSY;		/* one alone founds it */
	for (unsigned i = 0; i < n; i++) {
		node_id node = bytes_get_u32(r);
		uint64_t member = bytes_get_u64(r);

		if ((rc = may_be_in(s, was, node, member)) != 0)
			return rc;
		if (has(&row, node, member))
			return -EEXIST;
		row.nodes[row.n] = node;
		row.members[row.n++] = member;
	}
	manager_put_group(s, &row);
	return 0;
}

/* Only who was named founds; afterwards every member of that group may lead, also one that
 * is on its way out. */
int
manager_apply_group_leads(struct manager_state *s, struct bytes_reader *r)
{
	node_id node = bytes_get_u32(r);
	const void *boot = bytes_get_raw(r, 16);
	uint32_t id = bytes_get_u32(r);
	const void *group = bytes_get_raw(r, 16);
	uint64_t term = bytes_get_u64(r);
	const struct routing_node *n = routing_node(s->routing, node);
	const struct routing_group *was = routing_group(s->routing, id);
	const struct manager_node *told = map_get(&s->nodes, node);
	struct routing_group row;
	struct uid128 uid;

	if (!bytes_reader_done(r))
		return ERR_BAD_MESSAGE;
	memcpy(uid.b, group, sizeof(uid.b));
	if (n == NULL || memcmp(n->boot.b, boot, sizeof(n->boot.b)) != 0)
		return ERR_STALE_NODE;
	if (was == NULL || uid128_zero(&uid))
		return -ENOENT;
	row = *was;
	if (uid128_zero(&was->group)) {
		if (was->nodes[0] != node || was->members[0] != told->member)
			return ERR_NOT_OWNER;
		row.group = uid;
	} else if (!uid128_eq(&was->group, &uid))
		return ERR_NOT_OWNER;
	if (term < was->term || (term == was->term && was->leader == node))
		return 0;			/* late, or known */
	row.leader = node;
	row.term = term;
	manager_put_group(s, &row);
	return 0;
}

/* ---- making and growing it ---- */

static bool
is_server(const struct manager *m, const struct routing_node *row)
{
	const struct manager_node *n = map_get(&m->state.nodes, row->id);

	return (row->roles & NODE_METADATA) != 0 && row->addr_n > 0 && n->member != 0;
}

static void
grouped(struct manager_call *c, int rc, uint64_t value)
{
	struct manager *m = c->m;
	const struct routing_group *g = routing_group(m->state.routing, GROUP_ID);

	(void)value;
	m->grouping = false;
	if (rc == 0 && g != NULL)
		log_info(&m->env.log, "metadata members", "group=%u n=%u fixed=%d",
		    g->id, g->n, g->fixed);
	if (c->req != NULL)
		net_reply(c->req, rc == -EAGAIN ? ERR_BUSY : rc, NULL, NULL, 0, NULL,
		    NULL);
	if (rc == 0)
		manager_meta_poke(m);
}

static int
propose_row(struct manager *m, struct net_req *req, const struct routing_group *row)
{
	struct bytes_writer w;
	uint8_t buf[256];
	int rc;

	bytes_writer_init(&w, buf, sizeof(buf));
	manager_cmd_group(&w, row);
	rc = manager_propose(m, req, 0, &w, grouped);
	m->grouping = rc == 0;
	return rc;
}

/* The first metadata node there ever was: with data of a release before this one it has a
 * group already.  It is named when it says which member it is. */
static void
name_founder(struct manager *m)
{
	struct routing_group row = { .id = GROUP_ID, .n = 1 };
	const struct routing_node *n;

	for (unsigned i = 0; (n = routing_node_at(m->state.routing, i)) != NULL; i++)
		if (n->roles & NODE_METADATA)
			break;
	if (n == NULL || !is_server(m, n))
		return;
	row.nodes[0] = n->id;
	row.members[0] = ((struct manager_node *)map_get(&m->state.nodes,
	    n->id))->member;
	(void)propose_row(m, NULL, &row);
}

static void
grow(struct manager *m, const struct routing_group *g)
{
	unsigned most = (unsigned)m->env.conf->metadata_replicas;
	struct routing_group row = *g;
	const struct routing_node *n;

	if (most > ROUTING_MEMBERS_MAX)
		most = ROUTING_MEMBERS_MAX;
	for (unsigned i = 0; row.n < most &&
	    (n = routing_node_at(m->state.routing, i)) != NULL; i++) {
		uint64_t member;

		if (n->state != NODE_UP || !is_server(m, n))
			continue;
		member = ((struct manager_node *)map_get(&m->state.nodes,
		    n->id))->member;
		if (has(&row, n->id, member))
			continue;
		row.nodes[row.n] = n->id;
		row.members[row.n++] = member;
	}
	if (row.n % 2 == 0)
		row.n--;
	if (row.n > g->n)
		(void)propose_row(m, NULL, &row);
}

/* What fails here is tried again by the next node that comes, or the next word of the
 * leader. */
void
manager_meta_poke(struct manager *m)
{
	const struct routing_group *g = routing_group(m->state.routing, GROUP_ID);

	if (m->phase != MANAGER_SERVING || m->grouping)
		return;
	if (g == NULL)
		name_founder(m);
	else if (!g->fixed && !uid128_zero(&g->group))
		grow(m, g);
}

/* ---- who leads ---- */

static void
led(struct manager_call *c, int rc, uint64_t value)
{
	struct manager *m = c->m;

	(void)value;
	m->leading = false;
	if (rc == 0)
		manager_meta_poke(m);
	if (rc != ERR_NOT_OWNER || clock_fresh(m->env.clock) < m->foreign_ns)
		return;
	m->foreign_ns = clock_fresh(m->env.clock) + WARN_NS;
	log_error(&m->env.log, "a metadata node leads a group that is not this "
	    "cluster's", "node=%u", c->id);
}

static void
keep_told(struct manager *m, const struct msg_group_status *q)
{
	struct manager_group_told *t = &m->group_told;

	*t = (struct manager_group_told){ .term = q->term, .group = q->group,
		.voter_n = q->voters.n, .learner_n = q->learners.n };
	if (q->voters.n > 0)
		memcpy(t->voters, q->voters.v, q->voters.n * sizeof(*t->voters));
	if (q->learners.n > 0)
		memcpy(t->learners, q->learners.v,
		    q->learners.n * sizeof(*t->learners));
}

void
manager_meta_told(struct manager *m, struct manager_node *n,
    const msg_t_list_group_status *groups)
{
	const struct routing_group *g = routing_group(m->state.routing, GROUP_ID);
	const struct routing_node *row = routing_node(m->state.routing, n->id);
	const struct msg_group_status *q = groups->v;
	struct bytes_writer w;
	uint8_t buf[64];

	if (g == NULL)
		manager_meta_poke(m);
	if (groups->n == 0 || g == NULL || q->id != GROUP_ID ||
	    q->voters.n > RAFT_MEMBERS_MAX || q->learners.n > RAFT_MEMBERS_MAX)
		return;
	if (uid128_eq(&q->group, &g->group) && q->term >= m->group_told.term)
		keep_told(m, q);
	if (uid128_eq(&q->group, &g->group) && (q->term < g->term ||
	    (q->term == g->term && g->leader == n->id))) {
		manager_meta_poke(m);
		return;
	}
	if (m->leading)
		return;
	bytes_writer_init(&w, buf, sizeof(buf));
	manager_cmd_group_leads(&w, n->id, &row->boot, q);
	m->leading = manager_propose(m, NULL, n->id, &w, led) == 0;
}

void
manager_meta_rows(const struct manager *m, struct msg_group_status *out)
{
	const struct manager_group_told *t = &m->group_told;

	*out = (struct msg_group_status){ .id = GROUP_ID, .group = t->group,
		.term = t->term,
		.voters = { (uint64_t *)t->voters, t->voter_n },
		.learners = { (uint64_t *)t->learners, t->learner_n } };
}

void
manager_meta_stop(struct manager *m)
{
	m->group_told = (struct manager_group_told){ 0 };
}

/* ---- the operator ---- */

static int
change(const struct manager *m, const struct msg_metadata_change *q,
    struct routing_group *row)
{
	const struct routing_group *g = routing_group(m->state.routing, GROUP_ID);
	node_id coming = q->op == MANAGER_ADD ? q->node : q->with;
	const struct routing_node *n = routing_node(m->state.routing, coming);
	uint64_t member = 0;
	unsigned at;

	*row = (struct routing_group){ .id = GROUP_ID };
	if (g != NULL)
		*row = *g;
	at = routing_group_find(row, q->node);
	if (q->op != MANAGER_REMOVE) {
		if (n == NULL || !(n->roles & NODE_METADATA))
			return -ENOENT;
		if (n->state != NODE_UP || !is_server(m, n))
			return -EHOSTUNREACH;
		member = ((struct manager_node *)map_get(&m->state.nodes,
		    coming))->member;
	}
	switch (q->op) {
	case MANAGER_ADD:
		if (at < row->n)
			return -EEXIST;
		if (row->n == ROUTING_MEMBERS_MAX)
			return -ENOSPC;
		row->fixed = row->n > 0;
		at = row->n++;
		break;
	case MANAGER_REMOVE:
		if (at == row->n)
			return -ENOENT;
		if (row->n == 1)
			return -EBUSY;		/* the only one */
		row->fixed = true;
		row->n--;
		memmove(&row->nodes[at], &row->nodes[at + 1],
		    (row->n - at) * sizeof(row->nodes[0]));
		memmove(&row->members[at], &row->members[at + 1],
		    (row->n - at) * sizeof(row->members[0]));
		return 0;
	case MANAGER_REPLACE:
		if (at == row->n)
			return -ENOENT;
		for (unsigned i = 0; i < row->n; i++)
			if ((i != at && row->nodes[i] == coming) ||
			    row->members[i] == member)
				return -EEXIST;
		break;
	default:
		return -EINVAL;
	}
	row->nodes[at] = coming;
	row->members[at] = member;
	return 0;
}

void
manager_meta_change(struct manager *m, struct net_req *req)
{
	struct routing_group row;
	int rc = m->grouping ? ERR_BUSY : change(m, req->msg, &row);

	if (rc == 0)
		rc = propose_row(m, req, &row);
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}
