/* SPDX-License-Identifier: MIT */
/* storage_apart.c - neighbours that cannot be reached, though the manager may hear them.
 *
 * Whoever waits for its successor pings it, and when nothing has come from there for
 * SILENT_NS the manager is told, for as long as that lasts: it takes one of the two out of
 * the chain.  A slow successor answers pings, so only the network, or a process that does not
 * run, is told of.
 * Replicas that have been taken out for that are asked by the reading tail whether they are
 * there; the manager is told, and has them brought up to date. */
#include "roles/path.h"
#include "roles/storage_impl.h"

#define SILENT_NS	(750 * NS_PER_MS)	/* and another beat until it counts */
#define PING_NS		(200 * NS_PER_MS)
#define FORGET_NS	(2 * NS_PER_S)	/* nobody waits: no attempt for so long */
#define ASK_NS		(500 * NS_PER_MS)

static uint64_t
now_of(const struct storage_worker *w)
{
	return clock_now(w->clock);
}

/* ---- who is waited for ---- */

void
storage_apart_asked(struct storage_target *t)
{
	t->tried_ns = now_of(t->w);
	if (t->wait_ns == 0)
		t->wait_ns = t->tried_ns;
}

void
storage_apart_answered(struct storage_target *t, int rc)
{
	if (path_answered(rc))
		t->wait_ns = list_empty(&t->attempts) ? 0 : now_of(t->w);
}

static struct net_call *
call_of(struct storage_target *t)
{
	if (!list_empty(&t->attempts))
		return &list_entry(t->attempts.next, struct storage_op,
		    in_attempts)->call;
	return t->sync != NULL ? storage_sync_call(t->sync) : NULL;
}

static bool
in_vain(struct storage_target *t)
{
	uint64_t now = now_of(t->w), heard;
	struct net_call *c = call_of(t);

	if (t->wait_ns == 0)
		return false;
	if (c != NULL && net_call_active(c)) {
		if ((heard = net_call_heard(c)) > t->wait_ns)
			t->wait_ns = heard;
		if (now - t->wait_ns >= PING_NS)
			net_call_ping(c);
	} else if (now - t->tried_ns > FORGET_NS) {
		t->wait_ns = 0;
		return false;
	}
	return now - t->wait_ns >= SILENT_NS;
}

/* ---- the nodes ---- */

/* NULL: there are more than we keep; the others are told of later. */
static struct storage_neighbour *
neighbour(struct storage_worker *w, node_id node)
{
	struct storage_neighbour *free_one = NULL;

	for (unsigned i = 0; i < STORAGE_NEIGHBOURS; i++) {
		struct storage_neighbour *b = &w->neighbours[i];

		if (b->node == node)
			return b;
		if (b->node == 0 && free_one == NULL)
			free_one = b;
	}
	if (free_one != NULL && node != 0) {
		free_one->w = w;
		free_one->node = node;
		free_one->was_silent = false;
		free_one->reached_ns = 0;
		return free_one;
	}
	return NULL;
}

static void
look_at(struct storage_target *t)
{
	const struct storage_view_chain *v = &t->v;
	struct storage_neighbour *b;

	if (t->gone || v->pos >= v->active_n)
		return;
	if (v->pos + 1u < v->active_n && in_vain(t) &&
	    (b = neighbour(t->w, v->nodes[v->pos + 1])) != NULL)
		b->silent = true;
	if (v->pos + 1u != v->serving_n)
		return;
	for (unsigned i = v->active_n; i < v->n; i++) {
		if (!v->apart[i] || !v->up[i] ||
		    (b = neighbour(t->w, v->nodes[i])) == NULL)
			continue;
		b->apart = true;
		b->addr = v->addrs[i];
		b->ask = (struct msg_committed){ .chain = v->chain,
		    .chain_version = v->version, .target = v->replicas[i],
		    .chunk = { 1, 0 } };
	}
}

/* Whatever it says, it says it. */
static void
answered(struct net_call *c, int rc)
{
	struct storage_neighbour *b = container_of(c, struct storage_neighbour, call);

	if (path_answered(rc))
		b->reached_ns = now_of(b->w);
}

static void
ask(struct storage_neighbour *b)
{
	struct net_call_opts opts = { .deadline_ns = now_of(b->w) + ASK_NS };

	if (!net_call_active(&b->call))
		(void)net_call_start(&b->call, b->w->env->hub, &b->addr,
		    MSG_committed, &b->ask, &opts, answered);
}

static bool
reached(const struct storage_neighbour *b)
{
	return b->apart && b->reached_ns != 0 &&
	    now_of(b->w) - b->reached_ns <= 2 * ASK_NS;
}

bool
storage_apart_tick(struct storage_worker *w)
{
	struct storage_target *t;
	bool news = false;
	size_t it = 0;

	for (unsigned i = 0; i < STORAGE_NEIGHBOURS; i++)
		w->neighbours[i].silent = w->neighbours[i].apart = false;
	while (!w->stopping && (t = map_next(&w->targets, &it, NULL)) != NULL)
		look_at(t);
	for (unsigned i = 0; i < STORAGE_NEIGHBOURS; i++) {
		struct storage_neighbour *b = &w->neighbours[i];

		if (b->node == 0)
			continue;
		news |= b->silent && !b->was_silent;
		b->was_silent = b->silent;
		if (b->apart) {
			ask(b);
			continue;
		}
		net_call_cancel(&b->call);
		if (!b->silent)
			b->node = 0;
	}
	return news;
}

unsigned
storage_apart_rows(const struct storage_worker *w, struct msg_neighbour *rows)
{
	unsigned n = 0;

	for (unsigned i = 0; i < STORAGE_NEIGHBOURS; i++) {
		const struct storage_neighbour *b = &w->neighbours[i];

		if (b->node != 0 && (b->silent || reached(b)))
			rows[n++] = (struct msg_neighbour){ .node = b->node,
			    .reached = !b->silent };
	}
	return n;
}

void
storage_apart_close(struct storage_worker *w)
{
	for (unsigned i = 0; i < STORAGE_NEIGHBOURS; i++)
		net_call_cancel(&w->neighbours[i].call);
}
