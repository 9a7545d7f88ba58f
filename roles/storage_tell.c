/* SPDX-License-Identifier: MIT */
/* storage_tell.c - what the manager is told besides space and health: replicas that are up
 * to date, or cannot be, until it has heard; and how far the others are, with beats. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "roles/storage_impl.h"

#define CALL_NS		(2 * NS_PER_S)
#define PAUSE_MIN_NS	(20 * NS_PER_MS)
#define PAUSE_MAX_NS	NS_PER_S
#define AWAIT_NS	(50 * NS_PER_MS)

/* ---- a replica is up to date, or cannot be ---- */

void
storage_told_free(struct storage_told *told)
{
	net_call_cancel(&told->call);
	clock_timer_stop(told->st->env->clock, &told->timer);
	list_remove(&told->node);
	free(told);
}

static void again(struct storage_told *told);

static void
answered(struct net_call *c, int rc)
{
	struct storage_told *told = container_of(c, struct storage_told, call);

	/* Stale: routing will say so, and that frees it.  Until then we withhold reads. */
	if (rc == 0 || rc == ERR_STALE_CHAIN)
		member_refresh(told->st->member);
	if (rc == 0)
		storage_told_free(told);
	else
		again(told);
}

static void
send_now(struct storage_told *told)
{
	struct storage *st = told->st;
	struct msg_synced m = { .node = member_node(st->member),
	    .boot = *member_boot(st->member),
	    .chain = told->chain, .version = told->version,
	    .target = told->target, .rc = told->rc };
	struct net_call_opts opts = {
	    .deadline_ns = clock_now(st->env->clock) + CALL_NS };
	struct net_addr to;

	member_manager(st->member, &to);
	if (to.kind == NET_ADDR_NONE || net_call_start(&told->call, st->env->hub,
	    &to, MSG_synced, &m, &opts, answered) != 0)
		again(told);
}

static void
paused(struct clock_timer *t)
{
	send_now(container_of(t, struct storage_told, timer));
}

static void
again(struct storage_told *told)
{
	struct clock *clock = told->st->env->clock;
	uint64_t ns = PAUSE_MIN_NS << (told->tries < 6 ? told->tries : 6);

	told->tries++;
	if (ns > PAUSE_MAX_NS)
		ns = PAUSE_MAX_NS;
	clock_timer_start(clock, &told->timer, clock_now(clock) + ns, paused);
}

static void
add(struct storage *st, struct storage_told *told)
{
	if (st->member == NULL || st->phase >= STORAGE_LEAVING) {
		free(told);
		return;
	}
	list_push_back(&st->tolds, &told->node);
	send_now(told);
}

static void
synced_posted(struct storage *st, struct storage_post *p)
{
	struct storage_told *told = p->told;

	p->told = NULL;
	add(st, told);
}

int
storage_synced(struct storage_worker *w, chain_id chain, uint32_t version,
    target_id target, int rc)
{
	struct storage_told *told = calloc(1, sizeof(*told));
	struct storage_post *p;

	if (told == NULL)
		return -ENOMEM;
	told->st = w->st;
	told->chain = chain;
	told->version = version;
	told->target = target;
	told->rc = rc;
	list_init(&told->node);
	if (w->loop == 0) {
		add(w->st, told);
		return 0;
	}
	if ((p = storage_post_make(synced_posted)) == NULL) {
		free(told);
		return -ENOMEM;
	}
	p->told = told;
	storage_post_send(w->st, 0, p);
	return 0;
}

void
storage_unfit(struct storage_target *t)
{
	const struct storage_view_chain *v = &t->v;

	if (t->unfit == v->version || v->pos >= v->serving_n || v->serving_n < 2 ||
	    !t->craq.serving || storage_synced(t->w, v->chain, v->version, v->target,
	    -ENOSPC) != 0)
		return;				/* who asks again tells it */
	t->unfit = v->version;
	log_error(&t->w->env->log, "no space for what other replicas have, the chain goes "
	    "on without this one", "chain=%u version=%u target=%u disk=%s", v->chain,
	    v->version, v->target, t->disk->path);
}

void
storage_told_check(struct storage *st, const struct routing *r)
{
	list_for_each_safe(it, tmp, &st->tolds) {
		struct storage_told *told = list_entry(it, struct storage_told,
		    node);
		const struct routing_chain *c = routing_chain(r, told->chain);

		if (c != NULL && c->version > told->version)
			storage_told_free(told);
	}
}

/* ---- how far the others are ---- */

static void
take(struct storage *st, unsigned loop, const struct storage_progress *p)
{
	st->progress[loop] = *p;
}

static void
progress_posted(struct storage *st, struct storage_post *p)
{
	take(st, p->loop, p->progress);
}

void
storage_progress(struct storage_worker *w)
{
	struct storage_progress rows;
	struct storage_post *p;

	rows.n = storage_sync_rows(w, rows.rows, STORAGE_PROGRESS);
	rows.neighbour_n = storage_apart_rows(w, rows.neighbours);
	rows.awaited_n = storage_fence_nodes(w, rows.awaited, STORAGE_NEIGHBOURS);
	if (rows.n + rows.neighbour_n + rows.awaited_n == 0 && w->progress_n == 0)
		return;
	if (w->loop == 0) {
		take(w->st, 0, &rows);
	} else {
		if ((p = storage_post_make(progress_posted)) == NULL)
			return;			/* the next time */
		if ((p->progress = malloc(sizeof(rows))) == NULL) {
			free(p);
			return;
		}
		*p->progress = rows;
		p->loop = w->loop;
		storage_post_send(w->st, 0, p);
	}
	w->progress_n = rows.n + rows.neighbour_n + rows.awaited_n;
}

unsigned
storage_progress_rows(void *ctx, struct msg_sync_status *rows, unsigned max)
{
	struct storage *st = ctx;
	unsigned n = 0;

	for (unsigned l = 0; l < st->loop_n; l++)
		for (unsigned i = 0; i < st->progress[l].n && n < max; i++)
			rows[n++] = st->progress[l].rows[i];
	return n;
}

/* What loops tell of one node: silence weighs more. */
unsigned
storage_neighbour_rows(void *ctx, struct msg_neighbour *rows, unsigned max)
{
	struct storage *st = ctx;
	unsigned n = 0;

	for (unsigned l = 0; l < st->loop_n; l++) {
		for (unsigned i = 0; i < st->progress[l].neighbour_n; i++) {
			const struct msg_neighbour *b = &st->progress[l].neighbours[i];
			unsigned k = 0;

			while (k < n && rows[k].node != b->node)
				k++;
			if (k < n)
				rows[k].reached &= b->reached;
			else if (n < max)
				rows[n++] = *b;
		}
	}
	return n;
}

/* ---- what others have heard ---- */

static void
dropped_posted(struct storage *st, struct storage_post *p)
{
	(void)p;
	if (st->member != NULL)
		member_promise(st->member);
}

/* Without memory the next beats tell it. */
void
storage_dropped(struct storage_worker *w)
{
	struct storage_post *p;

	if (w->loop == 0)
		dropped_posted(w->st, NULL);
	else if ((p = storage_post_make(dropped_posted)) != NULL)
		storage_post_send(w->st, 0, p);
}

void
storage_await(struct storage_worker *w)
{
	uint64_t now = clock_now(w->clock);

	if (w->await_ns != 0 && now - w->await_ns < AWAIT_NS)
		return;
	w->await_ns = now;
	storage_progress(w);
	storage_beat_now(w);
}

unsigned
storage_awaited_rows(void *ctx, uint32_t *rows, unsigned max)
{
	struct storage *st = ctx;
	unsigned n = 0;

	for (unsigned l = 0; l < st->loop_n; l++) {
		for (unsigned i = 0; i < st->progress[l].awaited_n; i++) {
			unsigned k = 0;

			while (k < n && rows[k] != st->progress[l].awaited[i])
				k++;
			if (k == n && n < max)
				rows[n++] = st->progress[l].awaited[i];
		}
	}
	return n;
}

static void
heard_posted(struct storage *st, struct storage_post *p)
{
	storage_fences_heard(&st->workers[p->loop], p->heard->rows, p->heard->n);
}

/* Who is not told asks again. */
void
storage_heard_rows(void *ctx, const struct msg_heard *rows, unsigned n)
{
	struct storage *st = ctx;

	if (n > MEMBER_AWAITED_MAX)
		n = MEMBER_AWAITED_MAX;
	for (unsigned l = 0; l < st->loop_n; l++) {
		struct storage_post *p;

		if (st->progress[l].awaited_n == 0)
			continue;
		if (l == 0) {
			storage_fences_heard(&st->workers[0], rows, n);
			continue;
		}
		if ((p = storage_post_make(heard_posted)) == NULL)
			continue;
		if ((p->heard = malloc(sizeof(*p->heard))) == NULL) {
			free(p);
			continue;
		}
		p->heard->n = n;
		memcpy(p->heard->rows, rows, n * sizeof(*rows));
		p->loop = l;
		storage_post_send(st, l, p);
	}
}
