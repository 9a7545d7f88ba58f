/* SPDX-License-Identifier: MIT */
/* manager_routing.c - answer who asks for routing: what is newer now, or once there is
 * something newer (long-poll).  Answers are cut at a version so that each fits into a
 * message; the asker comes back for the rest. */
#include "roles/manager_impl.h"

#include <errno.h>
#include <stdlib.h>

#include "conf/err.h"

#define WAITERS_MAX	(MANAGER_CLIENTS_MAX + MANAGER_NODES_MAX)
#define WAKE_MAX	256u		/* answers in one turn */
#define ARENA_MAX	(64u << 20)
#define SLACK_NS	(100 * NS_PER_MS)	/* answer this long before they give up */

struct waiter {
	struct list	   node;	/* manager.waiters */
	struct manager	  *m;
	struct net_req	  *req;
	uint64_t	   have;
	struct clock_timer timer;
};

/* ---- one answer ---- */

/* Bytes of a row, encoded; rather too many. */
static size_t
node_bytes(const struct msg_rt_node *n)
{
	size_t bytes = 48 + n->name.n;

	for (uint32_t i = 0; i < n->addrs.n; i++)
		bytes += 5 + n->addrs.v[i].n;
	return bytes;
}

#define TARGET_BYTES	56u
#define CHAIN_BYTES(c)	(40u + 12u * (c)->targets.n)
#define TABLE_BYTES(t)	(32u + 5u * (t)->chains.n)
#define GROUP_ROW_BYTES	(80u + ROUTING_MEMBERS_MAX * 14u)

struct weight {
	uint64_t changed;
	size_t	 bytes;
};

static int
weight_cmp(const void *a, const void *b)
{
	uint64_t x = ((const struct weight *)a)->changed;
	uint64_t y = ((const struct weight *)b)->changed;

	return x < y ? -1 : x > y;
}

/* The version at which an answer of all of @d is cut, whole versions only and one at
 * least. */
static int
cut_at(const struct msg_routing_rep *d, uint64_t *version)
{
	size_t n = 0, rows = (size_t)d->nodes.n + d->targets.n + d->chains.n +
	    d->tables.n + d->groups.n, bytes = 0;
	struct weight *w = malloc((rows + 1) * sizeof(*w));

	if (w == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < d->nodes.n; i++)
		w[n++] = (struct weight){ d->nodes.v[i].changed,
			node_bytes(&d->nodes.v[i]) };
	for (uint32_t i = 0; i < d->targets.n; i++)
		w[n++] = (struct weight){ d->targets.v[i].changed, TARGET_BYTES };
	for (uint32_t i = 0; i < d->chains.n; i++)
		w[n++] = (struct weight){ d->chains.v[i].changed,
			CHAIN_BYTES(&d->chains.v[i]) };
	for (uint32_t i = 0; i < d->tables.n; i++)
		w[n++] = (struct weight){ d->tables.v[i].changed,
			TABLE_BYTES(&d->tables.v[i]) };
	for (uint32_t i = 0; i < d->groups.n; i++)
		w[n++] = (struct weight){ d->groups.v[i].changed, GROUP_ROW_BYTES };
	qsort(w, n, sizeof(*w), weight_cmp);
	*version = d->version;
	for (size_t i = 0; i < n; i++) {
		bytes += w[i].bytes;
		if (bytes > MANAGER_LIST_BYTES && w[i].changed != w[0].changed) {
			*version = w[i].changed - 1;
			break;
		}
	}
	free(w);
	return 0;
}

#define KEEP_UP_TO(list, at) do {                                       \
	uint32_t kept_ = 0;                                             \
	for (uint32_t i_ = 0; i_ < (list).n; i_++)                      \
		if ((list).v[i_].changed <= (at))                       \
			(list).v[kept_++] = (list).v[i_];               \
	(list).n = kept_;                                               \
} while (0)

static int
delta(struct manager *m, uint64_t have, struct msg_arena *arena,
    struct msg_routing_rep *out)
{
	uint64_t at;
	int rc;

	if ((rc = routing_delta(m->state.routing, have, arena, out)) != 0 ||
	    (rc = cut_at(out, &at)) != 0)
		return rc;
	if (at < out->version) {
		KEEP_UP_TO(out->nodes, at);
		KEEP_UP_TO(out->targets, at);
		KEEP_UP_TO(out->chains, at);
		KEEP_UP_TO(out->tables, at);
		KEEP_UP_TO(out->groups, at);
		out->version = at;
	}
	return 0;
}

static void
answer(struct manager *m, struct net_req *req, uint64_t have)
{
	struct msg_routing_rep rep;
	struct msg_arena arena;
	int rc;

	msg_arena_init(&arena, ARENA_MAX);
	rc = delta(m, have, &arena, &rep);
	net_reply(req, rc == -ENOMEM ? ERR_BUSY : rc, rc == 0 ? &rep : NULL, NULL,
	    0, NULL, NULL);
	msg_arena_fini(&arena);
}

/* ---- waiting ---- */

static struct net_req *
end_wait(struct waiter *w)
{
	struct net_req *req = w->req;

	clock_timer_stop(w->m->env.clock, &w->timer);
	list_remove(&w->node);
	w->m->waiter_n--;
	stat_set(&w->m->stat.polls_waiting, w->m->waiter_n);
	free(w);
	return req;
}

static void
waited(struct clock_timer *t)
{
	struct waiter *w = container_of(t, struct waiter, timer);
	struct manager *m = w->m;
	uint64_t have = w->have;

	answer(m, end_wait(w), have);
}

/* Who waits longest has the oldest; who asked after the last change goes on waiting. */
static bool
somebody_lacks(const struct manager *m)
{
	return !list_empty(&m->waiters) && list_entry(m->waiters.next,
	    struct waiter, node)->have < routing_version(m->state.routing);
}

static void
wake(struct clock_defer *d)
{
	struct manager *m = container_of(d, struct manager, wake);
	struct msg_routing_rep rep;
	struct msg_arena arena;
	uint64_t have = 0;
	bool made = false;
	int rc = 0;

	msg_arena_init(&arena, ARENA_MAX);
	for (unsigned i = 0; i < WAKE_MAX && somebody_lacks(m); i++) {
		struct waiter *w = list_entry(m->waiters.next, struct waiter, node);

		if (!made || w->have != have) {	/* most have the same */
			msg_arena_fini(&arena);
			msg_arena_init(&arena, ARENA_MAX);
			have = w->have;
			rc = delta(m, have, &arena, &rep);
			made = true;
		}
		net_reply(end_wait(w), rc == -ENOMEM ? ERR_BUSY : rc,
		    rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
	}
	msg_arena_fini(&arena);
	if (somebody_lacks(m))
		clock_defer(m->env.clock, &m->wake, wake);
}

void
manager_routing_changed(struct manager *m)
{
	if (!list_empty(&m->waiters))
		clock_defer(m->env.clock, &m->wake, wake);
}

void
manager_routing_stop(struct manager *m, int rc)
{
	clock_undefer(m->env.clock, &m->wake);
	while (!list_empty(&m->waiters)) {
		struct net_req *req = end_wait(list_entry(m->waiters.next,
		    struct waiter, node));

		if (rc != 0)
			net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
		else
			net_req_drop(req);
	}
}

void
manager_routing_get(struct manager *m, struct net_req *req)
{
	const struct msg_routing *q = req->msg;
	uint64_t now = clock_fresh(m->env.clock), end;
	uint64_t version = routing_version(m->state.routing);
	struct waiter *w;

	end = now + (q->wait_ms < MANAGER_WAIT_MAX_MS ? q->wait_ms :
	    MANAGER_WAIT_MAX_MS) * NS_PER_MS;
	if (req->deadline_ns < end + SLACK_NS)
		end = req->deadline_ns > SLACK_NS ? req->deadline_ns - SLACK_NS : 0;
	if (q->have < version || end <= now) {
		answer(m, req, q->have);
		return;
	}
	if (m->waiter_n >= WAITERS_MAX || (w = calloc(1, sizeof(*w))) == NULL) {
		net_reply(req, ERR_BUSY, NULL, NULL, 0, NULL, NULL);
		return;
	}
	w->m = m;
	w->req = req;
	w->have = version;		/* nobody can have more */
	list_push_back(&m->waiters, &w->node);
	m->waiter_n++;
	stat_set(&m->stat.polls_waiting, m->waiter_n);
	clock_timer_start(m->env.clock, &w->timer, end, waited);
}
