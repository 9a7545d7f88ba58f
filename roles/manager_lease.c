/* SPDX-License-Identifier: MIT */
/* manager_lease.c - which nodes are alive.
 *
 * A node fences itself when its lease, counted from the sending of its last answered
 * beat, has run out; we count from the receiving of it, and wait a margin longer, so the
 * node has always stopped before anyone hears that it is down.
 *
 *	LIVES ---- lease ended, or another process of it registers ----> DYING
 *	  ^  ^------------------ a beat after all ------------------------'|
 *	  |                                  the batch goes into the log   v
 *	  '------------- its row says what became of it --------------- EXPIRING
 *
 * Deaths are told in batches.  When the power of a room fails all nodes are dead, but
 * their leases end one after the other; who has everything that anybody has read is
 * known only when all of them are looked at together.  So a batch waits until every other
 * storage node was heard after the last one joined it, or has joined it too: with one dead
 * node that takes a beat.
 *
 * Invariants:
 *   1  A node is in m->leases exactly when its row says UP and it LIVES, in m->dying when
 *      it is DYING, in m->expiring when it is EXPIRING.
 *   2  m->leases is ordered by seen_ns.
 *   3  Who has a held registration is DYING or EXPIRING. */
#include "roles/manager_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

/* How long we wait for any node: the longest lease that one of them was told of.  Ours
 * may be shorter since a restart, but they have not heard of it.  Clocks may differ in
 * speed by a tenth, and answers are sent after we noted the time. */
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
	return (ms + ms / 10 + m->env.conf->manager_beat) * NS_PER_MS;
}

static void lease_due(struct clock_timer *t);
static void batch(struct manager *m);

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
put(struct manager *m, struct manager_node *n, enum manager_fate fate)
{
	struct list *to = fate == NODE_LIVES ? &m->leases :
	    fate == NODE_DYING ? &m->dying : &m->expiring;

	n->fate = fate;
	list_remove(&n->lease);
	list_push_back(to, &n->lease);
}

static void
retry_soon(struct manager *m)
{
	clock_timer_start(m->env.clock, &m->batch_timer, clock_fresh(m->env.clock) +
	    m->env.conf->manager_beat * NS_PER_MS, manager_lease_batch_due);
}

static void
join(struct manager *m, struct manager_node *n)
{
	put(m, n, NODE_DYING);
	m->batch_ns = clock_fresh(m->env.clock);
}

static void
lives(struct manager *m, struct manager_node *n)
{
	n->seen_ns = clock_fresh(m->env.clock);
	put(m, n, NODE_LIVES);
	arm(m);
}

void
manager_lease_renew(struct manager *m, struct manager_node *n)
{
	n->heard = true;
	lives(m, n);
	batch(m);
}

bool
manager_lease_lives(const struct manager *m, const struct manager_node *n)
{
	return n->fate != NODE_EXPIRING && n->held == NULL &&
	    routing_node(m->state.routing, n->id)->state == NODE_UP;
}

/* ---- the end ---- */

/* The registration of the process that comes after. */
static void
release_held(struct manager *m, struct manager_node *n, int rc)
{
	struct net_req *req = n->held;

	n->held = NULL;
	if (req == NULL)
		return;
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
	else
		manager_node_register(m, req);
}

void
manager_lease_down(struct manager *m, struct manager_node *n, const char *why)
{
	const struct routing_node *row = routing_node(m->state.routing, n->id);

	if (row->state != NODE_DOWN) {
		lives(m, n);			/* another process has it */
		release_held(m, n, 0);
		return;
	}
	n->fate = NODE_LIVES;
	list_remove(&n->lease);
	log_warn(&m->env.log, "node down", "node=%u name=%s reason=%s "
	    "chains_waiting=%u", n->id, row->name, why,
	    m->state.chain_n - m->state.serving_n);
	stat_add(&m->stat.nodes_down, 1);
	release_held(m, n, 0);
}

static void
downed(struct manager_call *c, int rc, uint64_t value)
{
	struct manager *m = c->m;
	struct list done;

	(void)value;
	m->downing = false;
	if (m->phase != MANAGER_SERVING)
		return;			/* manager_lease_stop() has seen to them */
	list_init(&done);
	list_splice_back(&done, &m->expiring);
	while (!list_empty(&done)) {
		struct manager_node *n = list_entry(done.next, struct manager_node,
		    lease);

		if (rc != 0) {
			join(m, n);		/* it was not ordered */
			continue;
		}
		manager_lease_down(m, n, n->held != NULL ? "restart" : "lease");
	}
	if (rc != 0)
		retry_soon(m);
	else
		batch(m);
}

/* Has everyone who could be dead as well been heard, or joined? */
static bool
complete(const struct manager *m)
{
	bool storage = false;

	list_for_each(it, &m->dying)
		storage |= (routing_node(m->state.routing, list_entry(it,
		    struct manager_node, lease)->id)->roles & NODE_STORAGE) != 0;
	if (!storage)
		return true;
	list_for_each(it, &m->leases) {
		const struct manager_node *n = list_entry(it, struct manager_node,
		    lease);

		if (n->seen_ns > m->batch_ns)
			return true;		/* and all after it */
		if (routing_node(m->state.routing, n->id)->roles & NODE_STORAGE)
			return false;
	}
	return true;
}

static int
propose(struct manager *m)
{
	struct bytes_writer w;
	uint8_t *buf = malloc(GROUP_CMD_MAX);
	uint16_t n = 0;
	int rc;

	if (buf == NULL)
		return -ENOMEM;
	list_for_each(it, &m->dying)
		n++;
	bytes_writer_init(&w, buf, GROUP_CMD_MAX);
	manager_cmd_down(&w, n);
	list_for_each(it, &m->dying) {
		node_id id = list_entry(it, struct manager_node, lease)->id;

		manager_cmd_down_node(&w, id,
		    &routing_node(m->state.routing, id)->boot);
	}
	rc = manager_propose(m, NULL, 0, &w, downed);
	free(buf);
	return rc;
}
_Static_assert(3 + 12 * MANAGER_NODES_MAX <= GROUP_CMD_MAX, "all at once");

static void
batch(struct manager *m)
{
	if (m->downing || list_empty(&m->dying) || m->batch_timer.pos != 0 ||
	    !complete(m))
		return;
	if (propose(m) != 0) {
		retry_soon(m);
		return;
	}
	m->downing = true;
	while (!list_empty(&m->dying))
		put(m, list_entry(m->dying.next, struct manager_node, lease),
		    NODE_EXPIRING);
}

void
manager_lease_batch_due(struct clock_timer *t)
{
	batch(container_of(t, struct manager, batch_timer));
}

static void
lease_due(struct clock_timer *t)
{
	struct manager *m = container_of(t, struct manager, lease_timer);
	uint64_t now = clock_fresh(m->env.clock), lease = lease_ns(m);

	while (!list_empty(&m->leases)) {
		struct manager_node *n = list_entry(m->leases.next,
		    struct manager_node, lease);

		if (n->seen_ns + lease > now)
			break;
		join(m, n);
	}
	arm(m);
	batch(m);
}

/* ---- another process of a node ---- */

bool
manager_lease_hold(struct manager *m, struct net_req *req)
{
	const struct msg_register *q = req->msg;
	struct manager_node *n = manager_uid_get(&m->state.nodes_by_uid,
	    &q->node_uid);
	const struct routing_node *row;

	if (n == NULL)
		return false;
	row = routing_node(m->state.routing, n->id);
	if (row->state != NODE_UP || !(row->roles & NODE_STORAGE) ||
	    uid128_eq(&row->boot, &q->boot) || manager_was_boot(n, &q->boot))
		return false;
	release_held(m, n, ERR_BUSY);	/* it was asked again, or started again */
	n->held = req;
	if (n->fate == NODE_LIVES)
		join(m, n);
	batch(m);
	return true;
}

/* ---- begin and end of leading ---- */

/* Leases are learnt anew: nobody is down before a whole one has passed in silence. */
void
manager_lease_start(struct manager *m)
{
	const struct routing_node *row;

	for (unsigned i = 0;
	    (row = routing_node_at(m->state.routing, i)) != NULL; i++) {
		struct manager_node *n = map_get(&m->state.nodes, row->id);

		n->heard = false;
		n->routing = 0;
		if (row->state == NODE_UP)
			lives(m, n);
	}
}

static void
forget(struct manager *m, struct list *nodes, int rc)
{
	struct list *it;

	while ((it = list_pop_front(nodes)) != NULL) {
		struct manager_node *n = list_entry(it, struct manager_node, lease);

		n->fate = NODE_LIVES;
		if (rc == 0 && n->held != NULL) {
			net_req_drop(n->held);
			n->held = NULL;
		}
		release_held(m, n, rc);
	}
}

void
manager_lease_stop(struct manager *m, int rc)
{
	clock_timer_stop(m->env.clock, &m->lease_timer);
	clock_timer_stop(m->env.clock, &m->batch_timer);
	forget(m, &m->leases, rc);
	forget(m, &m->dying, rc);
	forget(m, &m->expiring, rc);
}
