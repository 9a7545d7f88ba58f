/* SPDX-License-Identifier: MIT */
/* manager_repair.c - replicas on their way back: how far they are, when they are done;
 * chains that are put back into their preferred order; what only the operator may decide.
 *
 * The order matters because every head and every tail has more to do than the others.
 * Putting a replica into its place takes it out of the chain and has it compared with the
 * tail, so that is done for one chain of a node at a time, and only of chains that nothing
 * has happened to for ten seconds. */
#include "roles/manager_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

#define SYNC_FORGET_MS	5000u		/* without word from who syncs it */
#define ROTATE_MAX	64u		/* in one second */
#define HOLD_MIN_NS	NS_PER_S	/* before a replica is tried again that could not */
#define HOLD_MAX_NS	(60 * NS_PER_S)
#define RELEASE_NS	(5 * NS_PER_S)	/* for the command */
#define RELEASE_MAX	64u		/* in one second */

struct manager_sync {
	struct list node;		/* manager.sync_list */
	uint64_t    heard_ns;
	uint32_t    version;		/* of the chain; the next one begins anew */
	struct msg_sync_status status;
};

/* ---- progress ---- */

static void
sync_forget(struct manager *m, struct manager_sync *y)
{
	(void)map_del(&m->syncs, y->status.chain);
	list_remove(&y->node);
	free(y);
}

/* The one that syncs in @c, if the tail is on node @n. */
static target_id
syncing(const struct manager *m, const struct routing_chain *c, node_id n)
{
	unsigned serving = routing_serving_n(c);
	const struct routing_target *tail;

	if (routing_active_n(c) == serving)
		return 0;
	tail = routing_target(m->state.routing, c->targets[serving - 1]);
	return tail != NULL && tail->node == n ? c->targets[serving] : 0;
}

void
manager_repair_told(struct manager *m, struct manager_node *n,
    const msg_t_list_sync_status *syncs)
{
	for (uint32_t i = 0; i < syncs->n; i++) {
		const struct msg_sync_status *told = &syncs->v[i];
		const struct routing_chain *c = routing_chain(m->state.routing,
		    told->chain);
		struct manager_sync *y = map_get(&m->syncs, told->chain);

		if (c == NULL || told->target == 0 ||
		    syncing(m, c, n->id) != told->target)
			continue;
		if (y == NULL) {
			if ((y = calloc(1, sizeof(*y))) == NULL)
				continue;
			list_init(&y->node);
			if (map_put(&m->syncs, told->chain, y) != 0) {
				free(y);
				continue;
			}
		}
		y->status = *told;
		y->version = c->version;
		y->heard_ns = clock_fresh(m->env.clock);
		list_remove(&y->node);
		list_push_back(&m->sync_list, &y->node);
	}
}

/* Forget what is over. */
static void
prune(struct manager *m)
{
	uint64_t now = clock_fresh(m->env.clock);

	while (!list_empty(&m->sync_list)) {
		struct manager_sync *y = list_entry(m->sync_list.next,
		    struct manager_sync, node);

		if (y->heard_ns + SYNC_FORGET_MS * NS_PER_MS > now)
			break;
		sync_forget(m, y);
	}
}

static uint64_t
place_of(const struct msg_sync_status *s)
{
	return (uint64_t)s->chain << 32 | s->target;
}

static int
by_place(const void *a, const void *b)
{
	uint64_t x = place_of(a), y = place_of(b);

	return x < y ? -1 : x > y;
}

/* All there are: @out has room. */
static uint32_t
gather(struct manager *m, struct msg_sync_status *out)
{
	uint64_t now = clock_fresh(m->env.clock);
	uint32_t n = 0;

	list_for_each(it, &m->sync_list) {
		const struct manager_sync *y = list_entry(it, struct manager_sync,
		    node);
		const struct routing_chain *c = routing_chain(m->state.routing,
		    y->status.chain);
		unsigned serving = routing_serving_n(c);

		if (routing_active_n(c) == serving ||
		    c->targets[serving] != y->status.target || c->version != y->version)
			continue;		/* done, or broken off */
		out[n++] = y->status;
	}
	list_for_each(it, &m->state.hold_list) {
		const struct manager_hold *h = list_entry(it, struct manager_hold,
		    node);
		const struct routing_target *t = routing_target(m->state.routing,
		    h->target);

		if (h->held && t != NULL)
			out[n++] = (struct msg_sync_status){ .chain = t->chain,
			    .target = h->target, .rc = h->rc, .tries = h->tries,
			    .again_ms = h->until_ns > now ?
				(h->until_ns - now) / NS_PER_MS : 0 };
	}
	return n;
}

int
manager_repair_rows(struct manager *m, const struct msg_status *q,
    msg_t_list_sync_status *out, uint32_t *left, size_t *bytes)
{
	uint64_t after = (uint64_t)q->after_chain << 32 | q->after_target;
	struct msg_sync_status *v;
	uint32_t n, from = 0;

	prune(m);
	if ((v = calloc(m->syncs.n + m->state.holds.n + 1, sizeof(*v))) == NULL)
		return -ENOMEM;
	n = gather(m, v);
	qsort(v, n, sizeof(*v), by_place);
	while (from < n && place_of(&v[from]) <= after)
		from++;
	memmove(v, v + from, (n - from) * sizeof(*v));
	n -= from;
	/* No two are about one target: it syncs, or is held. */
	for (out->n = 0; out->n < n && *bytes < MANAGER_LIST_BYTES / 2; out->n++)
		*bytes += 64;
	out->v = v;
	*left = n - out->n;
	return 0;
}

/* ---- those that could not be brought up to date ---- */

static uint64_t
pause_ns(const struct manager_hold *h)
{
	uint64_t ns = HOLD_MIN_NS << (h->tries < 7 ? h->tries - 1 : 6);

	return ns < HOLD_MAX_NS ? ns : HOLD_MAX_NS;
}

static void
released(struct manager_call *c, int rc, uint64_t value)
{
	(void)c, (void)rc, (void)value;		/* not done: once more, later */
}

static void
release_holds(struct manager *m)
{
	uint64_t now = clock_fresh(m->env.clock);
	struct bytes_writer w;
	uint8_t buf[8];
	unsigned n = 0;

	list_for_each(it, &m->state.hold_list) {
		struct manager_hold *h = list_entry(it, struct manager_hold, node);

		if (!h->held || n == RELEASE_MAX)
			continue;
		if (h->until_ns == 0)
			h->until_ns = now + pause_ns(h);
		if (now < h->until_ns)
			continue;
		bytes_writer_init(&w, buf, sizeof(buf));
		manager_cmd_release(&w, h);
		if (manager_propose(m, NULL, 0, &w, released) != 0)
			break;
		h->until_ns = now + RELEASE_NS;
		n++;
	}
}

/* @was: its state before, enum target_state. */
static void
synced(struct manager_call *c, int rc, uint64_t was)
{
	const struct msg_synced *q = c->req->msg;
	struct manager_hold *h = manager_hold_get(&c->m->state, q->target);

	if (rc == 0 && q->rc != 0) {
		log_warn(&c->m->env.log, was == TARGET_SERVING ?
		    "replica leaves, it does not take what others have" :
		    "replica cannot be brought up to date",
		    "chain=%u target=%u version=%u tries=%u error=%s", q->chain,
		    q->target, q->version, h == NULL ? 0 : h->tries,
		    err_name(q->rc));
		if (h != NULL && h->held)
			h->until_ns = clock_fresh(c->m->env.clock) + pause_ns(h);
	} else if (rc == 0 && was != TARGET_SERVING) {
		log_info(&c->m->env.log, "replica up to date",
		    "chain=%u target=%u version=%u", q->chain, q->target,
		    q->version);
		stat_add(&c->m->stat.chains_synced, 1);
	}
	manager_reply_rc(c, rc, was);
}

void
manager_repair_synced(struct manager *m, struct net_req *req)
{
	struct bytes_writer w;
	uint8_t buf[64];
	int rc;

	bytes_writer_init(&w, buf, sizeof(buf));
	manager_cmd_synced(&w, req->msg);
	rc = manager_propose(m, req, 0, &w, synced);
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

/* ---- the operator ---- */

static void
accepted(struct manager_call *c, int rc, uint64_t value)
{
	const struct msg_chain_accept *q = c->req->msg;

	log_warn(&c->m->env.log, rc == 0 ? "loss accepted by the operator" :
	    "loss not accepted", "chain=%u target=%u error=%s", q->chain, q->target,
	    err_name(rc));
	manager_reply_rc(c, rc, value);
}

void
manager_repair_accept(struct manager *m, struct net_req *req)
{
	const struct msg_chain_accept *q = req->msg;
	struct bytes_writer w;
	uint8_t buf[16];
	int rc;

	bytes_writer_init(&w, buf, sizeof(buf));
	manager_cmd_accept(&w, q->chain, q->target);
	rc = manager_propose(m, req, 0, &w, accepted);
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

static void
resync_begun(struct manager_call *c, int rc, uint64_t value)
{
	const struct msg_chain_resync *q = c->req->msg;

	log_warn(&c->m->env.log, rc == 0 ? "replica is compared and mended, as the "
	    "operator wants" : "replica not compared", "chain=%u target=%u error=%s",
	    q->chain, q->target, err_name(rc));
	manager_reply_rc(c, rc, value);
}

/* A replica that comes back is made equal to the others: so it leaves for a moment, as when
 * the order is put right, and only if two others serve on. */
void
manager_repair_resync(struct manager *m, struct net_req *req)
{
	const struct msg_chain_resync *q = req->msg;
	const struct routing_chain *c = routing_chain(m->state.routing, q->chain);
	struct bytes_writer w;
	uint8_t buf[16];
	int rc = -ENOENT;

	bytes_writer_init(&w, buf, sizeof(buf));
	if (c != NULL) {
		manager_cmd_rotate(&w, q->chain, q->version != 0 ? q->version :
		    c->version, q->target);
		rc = manager_propose(m, req, 0, &w, resync_begun);
	}
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

static void
replaced(struct manager_call *c, int rc, uint64_t value)
{
	const struct msg_disk_replace *q = c->req->msg;
	char disk[UID128_TEXT], with[UID128_TEXT];

	uid128_text(&q->disk, disk);
	uid128_text(&q->with, with);
	log_warn(&c->m->env.log, rc == 0 ? "disk replaced by the operator" :
	    "disk not replaced", "disk=%s with=%s error=%s", disk, with,
	    err_name(rc));
	manager_reply_rc(c, rc, value);
}

void
manager_repair_replace(struct manager *m, struct net_req *req)
{
	const struct msg_disk_replace *q = req->msg;
	struct bytes_writer w;
	uint8_t buf[64];
	int rc;

	bytes_writer_init(&w, buf, sizeof(buf));
	manager_cmd_replace(&w, &q->disk, &q->with);
	rc = manager_propose(m, req, 0, &w, replaced);
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

/* ---- preferred order ---- */

static void
rotated(struct manager_call *c, int rc, uint64_t value)
{
	(void)value;
	c->m->rotating--;
	if (rc == 0)
		stat_add(&c->m->stat.chains_rotated, 1);
}

static bool
rotate(struct manager *m, const struct routing_chain *c, target_id target)
{
	struct bytes_writer w;
	uint8_t buf[16];

	bytes_writer_init(&w, buf, sizeof(buf));
	manager_cmd_rotate(&w, c->id, c->version, target);
	if (manager_propose(m, NULL, 0, &w, rotated) != 0)
		return false;
	m->rotating++;
	return true;
}

/* The nodes of a chain; false: one of them is busy already. */
static bool
nodes_free(struct manager *m, const struct routing_chain *c)
{
	bool ok = true;

	for (uint32_t i = 0; i < c->target_n; i++) {
		const struct manager_node *n = map_get(&m->state.nodes,
		    routing_target(m->state.routing, c->targets[i])->node);

		ok &= n->busy != m->quiet_round && !manager_part_lately(m, n);
	}
	return ok;
}

static void
nodes_busy(struct manager *m, const struct routing_chain *c)
{
	for (uint32_t i = 0; i < c->target_n; i++) {
		struct manager_node *n = map_get(&m->state.nodes,
		    routing_target(m->state.routing, c->targets[i])->node);

		n->busy = m->quiet_round;
	}
}

static void
put_in_order(struct manager *m)
{
	uint64_t quiet = m->quiet[MANAGER_QUIET_N - 1];
	const struct routing_chain *c;
	unsigned n = 0;

	m->quiet_round++;
	for (unsigned i = 0; (c = routing_chain_at(m->state.routing, i)) != NULL; i++)
		if (routing_serving_n(c) != c->target_n)
			nodes_busy(m, c);
	for (unsigned i = 0; n < ROTATE_MAX &&
	    (c = routing_chain_at(m->state.routing, i)) != NULL; i++) {
		target_id t;

		if (c->changed > quiet || (t = manager_chain_misplaced(c)) == 0 ||
		    !nodes_free(m, c))
			continue;
		if (!rotate(m, c, t))
			break;
		nodes_busy(m, c);
		n++;
	}
}

/* Routing versions second by second tell what has been quiet without a time for every
 * chain. */
static void
quiet_due(struct clock_timer *t)
{
	struct manager *m = container_of(t, struct manager, quiet_timer);

	prune(m);
	release_holds(m);
	memmove(m->quiet + 1, m->quiet, sizeof(m->quiet) - sizeof(m->quiet[0]));
	m->quiet[0] = routing_version(m->state.routing);
	if (m->rotating == 0 && m->quiet[MANAGER_QUIET_N - 1] != 0)
		put_in_order(m);
	clock_timer_start(m->env.clock, t, clock_fresh(m->env.clock) + NS_PER_S,
	    quiet_due);
}

static void
looked(struct manager_call *c, int rc, uint64_t value)
{
	(void)c, (void)rc, (void)value;
}

void
manager_repair_start(struct manager *m)
{
	struct bytes_writer w;
	uint8_t buf[4];

	list_for_each(it, &m->state.hold_list)
		list_entry(it, struct manager_hold, node)->until_ns = 0;
	memset(m->quiet, 0, sizeof(m->quiet));
	clock_timer_start(m->env.clock, &m->quiet_timer, clock_fresh(m->env.clock) +
	    NS_PER_S, quiet_due);
	/* Rows of the release before say less than we want to know. */
	if (!manager_heal_needed(&m->state))
		return;
	bytes_writer_init(&w, buf, sizeof(buf));
	manager_cmd_look(&w);
	if (manager_propose(m, NULL, 0, &w, looked) != 0)
		log_warn(&m->env.log, "chains are not looked at", "%s", "");
}

void
manager_repair_stop(struct manager *m)
{
	clock_timer_stop(m->env.clock, &m->quiet_timer);
	while (!list_empty(&m->sync_list))
		sync_forget(m, list_entry(m->sync_list.next, struct manager_sync,
		    node));
	map_fini(&m->syncs);
}
