/* SPDX-License-Identifier: MIT */
/* manager_node.c - what nodes tell: registrations, beats, goodbyes, the state of their
 * disks; and what operators are told of them.
 *
 * A beat of a node that is down, or about to be, is answered after the row says UP. */
#include "roles/manager_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/member.h"

/* Who speaks: NULL unless it is the process that holds the node. */
static struct manager_node *
who(struct manager *m, node_id id, const struct uid128 *boot)
{
	const struct routing_node *row = routing_node(m->state.routing, id);

	if (row == NULL || !uid128_eq(&row->boot, boot))
		return NULL;
	return map_get(&m->state.nodes, id);
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

/* ---- what nodes tell about their disks ---- */

static void
health_told(struct manager_call *c, int rc, uint64_t value)
{
	struct manager *m = c->m;
	struct manager_node *n = map_get(&m->state.nodes, c->id);

	(void)rc, (void)value;		/* the next beat says it again */
	if (n == NULL)
		return;
	list_for_each(it, &n->disks)
		list_entry(it, struct manager_disk, node_link)->telling = false;
	manager_form_poke(m);
}

/* Targets of a disk live and die with it: that goes through the log. */
static void
health(struct manager *m, struct manager_node *n, struct manager_disk *d,
    enum manager_health to)
{
	static const char *const what[] = { "disk works again", "disk failed",
		"disk is gone" };
	struct bytes_writer w;
	char text[UID128_TEXT];
	uint8_t buf[64];

	if (d->health == to || d->health == DISK_REPLACED || d->telling)
		return;
	bytes_writer_init(&w, buf, sizeof(buf));
	manager_cmd_disk(&w, n->id, &routing_node(m->state.routing, n->id)->boot,
	    &d->u.uid, to);
	if (manager_propose(m, NULL, n->id, &w, health_told) != 0)
		return;
	d->telling = true;
	uid128_text(&d->u.uid, text);
	log_warn(&m->env.log, what[to], "disk=%s node=%u path=%s", text, n->id,
	    d->path);
}

static void
disk_told(struct manager *m, struct manager_node *n, const struct msg_disk_info *i)
{
	struct manager_disk *d = manager_uid_get(&m->state.disks, &i->disk);

	if (d == NULL || d->node != n->id || i->path.n > MANAGER_PATH_MAX ||
	    i->capacity > UINT64_MAX / MANAGER_TARGETS_MAX ||
	    i->used > UINT64_MAX / MANAGER_TARGETS_MAX)
		return;
	d->told = m->told;
	if (d->health != DISK_REPLACED) {
		m->state.capacity_bytes += i->capacity - d->capacity;
		m->state.used_bytes += i->used - d->used;
		d->capacity = i->capacity;
		d->used = i->used;
	}
	d->damaged = i->damaged;
	if (i->path.n > 0)
		memcpy(d->path, i->path.p, i->path.n);
	d->path[i->path.n] = '\0';
	health(m, n, d, i->failed ? DISK_FAILED : DISK_WORKS);
}

static void
disks_told(struct manager *m, struct manager_node *n,
    const msg_t_list_disk_info *disks)
{
	m->told++;
	for (uint32_t i = 0; i < disks->n && i < MANAGER_DISKS_MAX; i++)
		disk_told(m, n, &disks->v[i]);
	/* a beat names all that the node has */
	list_for_each(it, &n->disks) {
		struct manager_disk *d = list_entry(it, struct manager_disk,
		    node_link);

		if (d->told != m->told)
			health(m, n, d, DISK_ABSENT);
	}
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

	if (rc == 0 && m->phase != MANAGER_SERVING && m->phase != MANAGER_STOPPING)
		rc = ERR_NOT_LEADER;	/* and is it true any longer? */
	if (rc != 0) {
		log_warn(&m->env.log, "node refused", "name=%.*s error=%s",
		    (int)q->name.n, q->name.p, err_name(rc));
		net_reply(c->req, rc, NULL, NULL, 0, NULL, NULL);
		return;
	}
	n = map_get(&m->state.nodes, rep.node);
	if (m->phase == MANAGER_SERVING && manager_lease_lives(m, n) &&
	    who(m, n->id, &q->boot) != NULL) {
		manager_lease_renew(m, n);
		disks_told(m, n, &q->disks);
	}
	log_info(&m->env.log, "node registered", "node=%u name=%.*s roles=%u "
	    "disks=%u routing=%" PRIu64, n->id, (int)q->name.n, q->name.p,
	    q->roles, q->disks.n, routing_version(m->state.routing));
	manager_form_poke(m);
	manager_meta_poke(m);
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
	if (manager_lease_hold(m, req))
		return;			/* asked again when its last process is dead */
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

/* What those have told that @q waits for. */
static uint32_t
heard(const struct manager *m, const struct msg_beat *q, struct msg_heard *rows)
{
	uint32_t n = 0;

	for (; n < q->awaited.n && n < MEMBER_AWAITED_MAX; n++) {
		const struct manager_node *o = map_get(&m->state.nodes,
		    q->awaited.v[n]);

		rows[n] = (struct msg_heard){ q->awaited.v[n],
		    o == NULL ? 0 : o->routing };
	}
	return n;
}

static void
answer_beat(struct manager *m, struct manager_node *n, struct net_req *req)
{
	const struct msg_beat *q = req->msg;
	struct msg_heard rows[MEMBER_AWAITED_MAX];
	struct msg_beat_rep rep = {
		.routing = routing_version(m->state.routing),
		.config_version = m->state.config_version,
		.heard = { rows, heard(m, q, rows) } };

	/* nobody may extend a lease that another manager could be waiting for the end of */
	if (!group_lease(m->group)) {
		net_reply(req, ERR_NOT_LEADER, NULL, NULL, 0, NULL, NULL);
		return;
	}
	manager_lease_renew(m, n);
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
	if (rc == 0 && m->phase != MANAGER_SERVING)
		rc = ERR_NOT_LEADER;
	if (rc == 0 && (n == NULL || !manager_lease_lives(m, n)))
		rc = ERR_STALE_NODE;	/* it has left or was replaced already */
	if (rc != 0) {
		net_reply(c->req, rc, NULL, NULL, 0, NULL, NULL);
		return;
	}
	log_info(&m->env.log, "node up", "node=%u", n->id);
	manager_form_poke(m);
	manager_meta_poke(m);
	answer_beat(m, n, c->req);
}

void
manager_node_beat(struct manager *m, struct net_req *req)
{
	const struct msg_beat *q = req->msg;
	struct manager_node *n = who(m, q->node, &q->boot);
	int rc;

	if (n == NULL || n->held != NULL) {	/* another process is here already */
		net_reply(req, ERR_STALE_NODE, NULL, NULL, 0, NULL, NULL);
		return;
	}
	if (q->routing > n->routing && q->routing <= routing_version(m->state.routing))
		n->routing = q->routing;
	disks_told(m, n, &q->disks);
	manager_repair_told(m, n, &q->syncs);
	manager_meta_told(m, n, &q->groups);
	if (manager_lease_lives(m, n))
		manager_part_told(m, n, &q->neighbours);
	if (manager_lease_lives(m, n)) {
		answer_beat(m, n, req);
		return;
	}
	rc = propose_state(m, req, n, NODE_UP, came_up);
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

/* ---- goodbye ---- */

static void
left(struct manager_call *c, int rc, uint64_t value)
{
	if (rc == 0 && c->m->phase == MANAGER_SERVING)
		manager_lease_down(c->m, map_get(&c->m->state.nodes, c->id),
		    "goodbye");
	manager_reply_rc(c, rc, value);
}

/* Whoever says so has stopped serving: nobody else need be looked at. */
void
manager_node_goodbye(struct manager *m, struct net_req *req)
{
	const struct msg_goodbye *q = req->msg;
	struct manager_node *n = who(m, q->node, &q->boot);
	int rc = n == NULL || n->held != NULL ? ERR_STALE_NODE :
	    propose_state(m, req, n, NODE_DOWN, left);

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
			.targets = d->slots, .failed = (uint8_t)d->health,
			.damaged = d->damaged };
		*bytes += 64 + strlen(d->path);
	}
}

/* Cut where it would be longer than a message may be. */
void
manager_node_status(struct manager *m, struct net_req *req)
{
	const struct msg_status *q = req->msg;
	struct msg_status_rep rep = { .config_version = m->state.config_version };
	struct msg_group_status group;
	uint64_t now = clock_fresh(m->env.clock);
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
	manager_meta_rows(m, &group);
	rep.groups.v = &group;
	rep.groups.n = group.voters.n > 0;
	if (manager_repair_rows(m, q, &rep.syncs, &rep.syncs_left, &bytes) != 0) {
		net_reply(req, ERR_BUSY, NULL, NULL, 0, NULL, NULL);
		goto out;
	}
	for (unsigned i = 0; (row = routing_node_at(m->state.routing, i)) != NULL; i++) {
		struct manager_node *n = map_get(&m->state.nodes, row->id);
		struct msg_node_status *s;

		if (row->id <= q->after_node)
			continue;
		if (bytes >= MANAGER_LIST_BYTES) {
			rep.nodes_left++;
			continue;
		}
		s = &rep.nodes.v[rep.nodes.n++];
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
	free(rep.syncs.v);
}
