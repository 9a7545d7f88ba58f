/* SPDX-License-Identifier: MIT */
/* manager_node.c - registry, heartbeats, leases of nodes.
 *
 * A node fences itself when its lease, counted from the sending of its last answered
 * beat, has run out; we count from the receiving of it, and wait a margin longer, so the
 * node has always stopped before anyone hears that it is down.
 *
 * Invariants:
 *   1  A node is in m->leases exactly when its row says UP and no end is on its way.
 *   2  m->leases is ordered by seen_ns.
 *   3  A beat of a node that is down, or about to be, is answered after the row says UP. */
#include "roles/manager_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

/* How long we wait for any node: the longest lease that one of them was told of.  Ours
 * may be shorter since a restart, but they have not heard of it. */
static uint64_t
lease_ns(const struct manager *m)
{
	uint64_t ms = m->env.conf->manager_lease;

	list_for_each(it, &m->leases) {
		const struct manager_node *n = list_entry(it, struct manager_node,
		    lease);

		if (n->lease_ms > ms)
			ms = n->lease_ms;
	}
	/* clocks may differ in speed, and answers are sent after we noted the time */
	return (ms + ms / 4 + m->env.conf->manager_beat) * NS_PER_MS;
}

static void lease_due(struct clock_timer *t);

static void
arm(struct manager *m)
{
	struct manager_node *n;

	if (list_empty(&m->leases) || m->lease_timer.pos != 0)
		return;
	n = list_entry(m->leases.next, struct manager_node, lease);
	clock_timer_start(m->env.clock, &m->lease_timer, n->seen_ns + lease_ns(m),
	    lease_due);
}

static void
touch(struct manager *m, struct manager_node *n)
{
	n->seen_ns = clock_now(m->env.clock);
	list_remove(&n->lease);
	list_push_back(&m->leases, &n->lease);
	arm(m);
}

/* Who speaks: NULL unless it is the process that holds the node. */
static struct manager_node *
who(struct manager *m, node_id id, const struct uid128 *boot)
{
	const struct routing_node *row = routing_node(m->state.routing, id);

	if (row == NULL || !uid128_eq(&row->boot, boot))
		return NULL;
	return map_get(&m->state.nodes, id);
}

static bool
is_up(const struct manager *m, const struct manager_node *n)
{
	return !n->expiring &&
	    routing_node(m->state.routing, n->id)->state == NODE_UP;
}

static int
propose_state(struct manager *m, struct net_req *req, struct manager_node *n,
    enum node_state state, manager_call_fn *fn)
{
	struct bytes_writer w;
	uint8_t buf[32];

	bytes_writer_init(&w, buf, sizeof(buf));
	manager_cmd_node_state(&w, n->id,
	    &routing_node(m->state.routing, n->id)->boot, state);
	return manager_propose(m, req, n->id, &w, fn);
}

/* ---- the end of a lease ---- */

static void
went_down(struct manager *m, node_id id, const char *why)
{
	const struct routing_node *row = routing_node(m->state.routing, id);
	struct manager_node *n = map_get(&m->state.nodes, id);

	n->expiring = false;
	if (row->state != NODE_DOWN) {
		if (list_empty(&n->lease))
			touch(m, n);		/* a new process has it */
		return;
	}
	list_remove(&n->lease);
	log_warn(&m->env.log, "node down", "node=%u name=%s reason=%s", id,
	    row->name, why);
	stat_add(&m->stat.nodes_down, 1);
}

static void
expired(struct manager_call *c, int rc, uint64_t value)
{
	(void)rc, (void)value;		/* registered again meanwhile, or broken */
	went_down(c->m, c->id, "lease");
}

static void
lease_due(struct clock_timer *t)
{
	struct manager *m = container_of(t, struct manager, lease_timer);
	uint64_t now = clock_now(m->env.clock), lease = lease_ns(m);

	while (!list_empty(&m->leases)) {
		struct manager_node *n = list_entry(m->leases.next,
		    struct manager_node, lease);

		if (n->seen_ns + lease > now)
			break;
		if (propose_state(m, NULL, n, NODE_DOWN, expired) != 0) {
			/* busy: it stays the oldest, try again soon */
			clock_timer_start(m->env.clock, t, now +
			    m->env.conf->manager_beat * NS_PER_MS, lease_due);
			return;
		}
		n->expiring = true;
		list_remove(&n->lease);
	}
	arm(m);
}

/* Leases are learnt anew: nobody is down before a whole one has passed in silence. */
void
manager_node_start(struct manager *m)
{
	const struct routing_node *row;

	for (unsigned i = 0;
	    (row = routing_node_at(m->state.routing, i)) != NULL; i++)
		if (row->state == NODE_UP)
			touch(m, map_get(&m->state.nodes, row->id));
	manager_form_poke(m);
}

void
manager_node_stop(struct manager *m)
{
	clock_timer_stop(m->env.clock, &m->lease_timer);
	manager_form_stop(m);
}

/* ---- what nodes tell about their disks ---- */

static void
disk_told(struct manager *m, struct manager_node *n, const struct msg_disk_info *i)
{
	struct manager_disk *d = manager_uid_get(&m->state.disks, &i->disk);
	char text[UID128_TEXT];

	if (d == NULL || d->node != n->id || i->path.n > MANAGER_PATH_MAX ||
	    i->capacity > UINT64_MAX / MANAGER_TARGETS_MAX ||
	    i->used > UINT64_MAX / MANAGER_TARGETS_MAX)
		return;
	m->state.capacity_bytes += i->capacity - d->capacity;
	m->state.used_bytes += i->used - d->used;
	d->capacity = i->capacity;
	d->used = i->used;
	if (i->path.n > 0)
		memcpy(d->path, i->path.p, i->path.n);
	d->path[i->path.n] = '\0';
	if (d->failed == (i->failed != 0))
		return;
	d->failed = i->failed != 0;
	uid128_text(&d->u.uid, text);
	log_warn(&m->env.log, d->failed ? "disk failed" : "disk works again",
	    "disk=%s node=%u path=%s", text, n->id, d->path);
}

static void
disks_told(struct manager *m, struct manager_node *n,
    const msg_t_list_disk_info *disks)
{
	for (uint32_t i = 0; i < disks->n && i < MANAGER_DISKS_MAX; i++)
		disk_told(m, n, &disks->v[i]);
}

void
manager_node_space(const struct manager *m, uint64_t *total, uint64_t *used)
{
	uint64_t replicas = m->env.conf->cluster_replicas;

	*total = m->state.capacity_bytes / replicas;
	*used = m->state.used_bytes / replicas;
}

/* ---- register ---- */

static void
registered(struct manager_call *c, int rc, uint64_t value)
{
	struct manager *m = c->m;
	const struct msg_register *q = c->req->msg;
	struct msg_register_rep rep = { .node = (uint32_t)value,
		.lease_ms = (uint32_t)m->env.conf->manager_lease,
		.beat_ms = (uint32_t)m->env.conf->manager_beat,
		.cluster = *routing_cluster(m->state.routing) };
	struct manager_node *n;

	if (rc != 0) {
		log_warn(&m->env.log, "node refused", "name=%.*s error=%s",
		    (int)q->name.n, q->name.p, err_name(rc));
		net_reply(c->req, rc, NULL, NULL, 0, NULL, NULL);
		return;
	}
	n = map_get(&m->state.nodes, rep.node);
	if (is_up(m, n) && who(m, n->id, &q->boot) != NULL) {
		n->heard = true;
		touch(m, n);
		disks_told(m, n, &q->disks);
	}
	log_info(&m->env.log, "node registered", "node=%u name=%.*s roles=%u "
	    "disks=%u routing=%" PRIu64, n->id, (int)q->name.n, q->name.p,
	    q->roles, q->disks.n, routing_version(m->state.routing));
	manager_form_poke(m);
	net_reply(c->req, 0, &rep, NULL, 0, NULL, NULL);
}

void
manager_node_register(struct manager *m, struct net_req *req)
{
	const struct msg_register *q = req->msg;
	struct bytes_writer w;
	const char *why;
	uint8_t *buf = NULL;
	int rc;

	if ((rc = manager_register_check(q, &why)) != 0) {
		log_warn(&m->env.log, "registration refused", "reason=\"%s\"", why);
		goto fail;
	}
	if ((buf = malloc(GROUP_CMD_MAX)) == NULL) {
		rc = ERR_BUSY;
		goto fail;
	}
	bytes_writer_init(&w, buf, GROUP_CMD_MAX);
	manager_cmd_register(&w, q, (uint32_t)m->env.conf->manager_lease);
	rc = manager_propose(m, req, 0, &w, registered);
fail:
	free(buf);
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

/* ---- beats ---- */

static void
answer_beat(struct manager *m, struct manager_node *n, struct net_req *req)
{
	struct msg_beat_rep rep = {
		.routing = routing_version(m->state.routing),
		.config_version = m->state.config_version };

	n->heard = true;
	touch(m, n);
	stat_add(&m->stat.beats, 1);
	manager_node_space(m, &rep.total_bytes, &rep.used_bytes);
	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
}

static void
came_up(struct manager_call *c, int rc, uint64_t value)
{
	struct manager *m = c->m;
	const struct msg_beat *q = c->req->msg;
	struct manager_node *n = who(m, q->node, &q->boot);

	(void)value;
	if (rc == 0 && (n == NULL || !is_up(m, n)))
		rc = ERR_STALE_NODE;	/* it has left or was replaced already */
	if (rc != 0) {
		net_reply(c->req, rc, NULL, NULL, 0, NULL, NULL);
		return;
	}
	log_info(&m->env.log, "node up", "node=%u", n->id);
	manager_form_poke(m);
	answer_beat(m, n, c->req);
}

void
manager_node_beat(struct manager *m, struct net_req *req)
{
	const struct msg_beat *q = req->msg;
	struct manager_node *n = who(m, q->node, &q->boot);
	int rc;

	if (n == NULL) {
		net_reply(req, ERR_STALE_NODE, NULL, NULL, 0, NULL, NULL);
		return;
	}
	disks_told(m, n, &q->disks);
	if (is_up(m, n)) {
		answer_beat(m, n, req);
		return;
	}
	rc = propose_state(m, req, n, NODE_UP, came_up);
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

/* ---- goodbye, chain ready ---- */

static void
left(struct manager_call *c, int rc, uint64_t value)
{
	if (rc == 0)
		went_down(c->m, c->id, "goodbye");
	manager_reply_rc(c, rc, value);
}

void
manager_node_goodbye(struct manager *m, struct net_req *req)
{
	const struct msg_goodbye *q = req->msg;
	struct manager_node *n = who(m, q->node, &q->boot);
	int rc = n == NULL ? ERR_STALE_NODE :
	    propose_state(m, req, n, NODE_DOWN, left);

	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

static void
chain_ready(struct manager_call *c, int rc, uint64_t value)
{
	const struct msg_chain_ready *q = c->req->msg;

	if (rc == 0)
		log_info(&c->m->env.log, "chain serves", "chain=%u version=%u",
		    q->chain, q->version);
	manager_reply_rc(c, rc, value);
}

void
manager_node_chain_ready(struct manager *m, struct net_req *req)
{
	const struct msg_chain_ready *q = req->msg;
	struct bytes_writer w;
	uint8_t buf[32];
	int rc;

	if (who(m, q->node, &q->boot) == NULL)
		rc = ERR_STALE_NODE;
	else {
		bytes_writer_init(&w, buf, sizeof(buf));
		manager_cmd_ready(&w, q);
		rc = manager_propose(m, req, q->node, &w, chain_ready);
	}
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

/* ---- status ---- */

static void
status_disks(const struct manager_node *n, struct msg_node_status *s,
    struct msg_disk_info *rows, size_t *bytes)
{
	s->disks.v = rows;
	list_for_each(it, &n->disks) {
		struct manager_disk *d = list_entry(it, struct manager_disk,
		    node_link);

		rows[s->disks.n++] = (struct msg_disk_info){ .disk = d->u.uid,
			.loop = d->loop, .path = msg_str(d->path),
			.capacity = d->capacity, .used = d->used,
			.targets = d->slots, .failed = d->failed };
		*bytes += 64 + strlen(d->path);
	}
}

/* Cut where it would be longer than a message may be. */
void
manager_node_status(struct manager *m, struct net_req *req)
{
	struct msg_status_rep rep = { .config_version = m->state.config_version };
	uint64_t now = clock_now(m->env.clock);
	const struct routing_node *row;
	struct msg_disk_info *disks;
	size_t disk_n = 0, bytes = 0;

	disks = calloc(m->state.disk_n + 1u, sizeof(*disks));
	rep.nodes.v = calloc(m->state.nodes.n + 1, sizeof(*rep.nodes.v));
	if (disks == NULL || rep.nodes.v == NULL) {
		net_reply(req, ERR_BUSY, NULL, NULL, 0, NULL, NULL);
		goto out;
	}
	manager_node_space(m, &rep.total_bytes, &rep.used_bytes);
	for (unsigned i = 0; (row = routing_node_at(m->state.routing, i)) != NULL &&
	    bytes < MANAGER_LIST_BYTES; i++) {
		struct manager_node *n = map_get(&m->state.nodes, row->id);
		struct msg_node_status *s = &rep.nodes.v[rep.nodes.n++];

		s->node = n->id;
		s->seen_ms = n->heard ? (now - n->seen_ns) / NS_PER_MS : UINT64_MAX;
		s->release = msg_str(n->release);
		status_disks(n, s, disks + disk_n, &bytes);
		disk_n += s->disks.n;
		bytes += 32 + strlen(n->release);
	}
	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
out:
	free(disks);
	free(rep.nodes.v);
}
