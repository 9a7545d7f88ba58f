/* SPDX-License-Identifier: MIT */
/* storage_left.c - versions that an operation left unfinished.
 *
 * A version whose outcome behind us could not be learnt in time, or before the chain moved on,
 * stays pending (or in doubt), and the next operation at the chunk settles it.  There may
 * never be one: its client is gone, say.  Until then every read of the chunk has to ask the
 * tail.  So the head tries by itself: a cut at epoch 0, which settles what is older and does
 * nothing more.  A new head tries all that was pending when it became that.
 *
 * The list is bounded: of what is pending the rest is looked for again when there is room.  What
 * is only in doubt, which no index shows, is always noted: there are no more doubts than the
 * core has room for, and a chunk is noted once. */
#include <stdlib.h>

#include "conf/err.h"
#include "roles/storage_impl.h"

#define LEFT_MAX	4096u
#define LEFT_AT_ONCE	8u
#define LEFT_PAUSE_NS	NS_PER_S
#define LEFT_CALL_NS	(10 * NS_PER_S)
#define SCAN_STEP	256u		/* pending chunks noted in one turn */
#define SCAN_PAUSE_NS	(5 * NS_PER_MS)

struct storage_left {
	struct list	node;		/* w->left, or w->left_trying */
	struct storage_left    *next;		/* in its bucket */
	struct storage_worker *w;
	target_id	target;
	struct chunk_id	id;
	uint8_t		shift;
	uint64_t	at_ns;		/* not before */
};

static void again(struct clock_timer *timer);

static void
wake_at(struct storage_worker *w, uint64_t at_ns)
{
	if (!w->stopping && (w->left_timer.pos == 0 || at_ns < w->left_timer.at_ns))
		clock_timer_start(w->clock, &w->left_timer, at_ns, again);
}

/* @l waits for @ns. */
static void
wait_for(struct storage_left *l, uint64_t ns)
{
	l->at_ns = clock_now(l->w->clock) + ns;
	list_push_back(&l->w->left, &l->node);
	wake_at(l->w, l->at_ns);
}

/* Something is unfinished at the chunk, and nobody is at work there. */
static bool
unfinished(struct storage_worker *w, struct storage_target *t, struct chunk_id id)
{
	struct chunk_info info;
	int rc = chunk_engine_info(t->disk->engine, t->v.target, id, &info);

	return chunk_craq_left(w->craq, &t->craq, id, rc == 0 ? &info : NULL);
}

static struct storage_left **
bucket(struct storage_worker *w, target_id target, struct chunk_id id)
{
	uint64_t h = (id.ino ^ ((uint64_t)target << 32 | id.index)) *
	    0x9e3779b97f4a7c15ull;

	return &w->left_buckets[(h >> 40) % STORAGE_LEFT_BUCKETS];
}

static bool
noted(struct storage_worker *w, target_id target, struct chunk_id id)
{
	const struct storage_left *l = *bucket(w, target, id);

	while (l != NULL && (l->target != target || chunk_id_cmp(l->id, id) != 0))
		l = l->next;
	return l != NULL;
}

static void
forget(struct storage_left *l)
{
	struct storage_left **b = bucket(l->w, l->target, l->id);

	while (*b != l)
		b = &(*b)->next;
	*b = l->next;
	l->w->left_n--;
	free(l);
}

static void
tried(struct storage_op *op, int rc)
{
	struct storage_left *l = op->ctx;
	struct storage_worker *w = op->w;

	w->left_busy--;
	list_remove(&l->node);
	if (rc != 0 && !op->t->gone && !w->stopping && unfinished(w, op->t, l->id))
		wait_for(l, LEFT_PAUSE_NS);
	else
		forget(l);
	wake_at(w, clock_now(w->clock));	/* there is a place */
}

enum { NOW, LATER, NEVER };

static int
when(struct storage_worker *w, struct storage_target *t, const struct storage_left *l)
{
	if (t == NULL || t->gone || t->v.pos >= t->v.active_n)
		return NEVER;
	/* Who is not the head waits for it; it may become that. */
	if (t->craq.serving && !unfinished(w, t, l->id))
		return NEVER;
	return t->craq.serving && t->craq.head ? NOW : LATER;
}

/* False: it cannot be tried now, but has to be later. */
static bool
try(struct storage_worker *w, struct storage_left *l)
{
	struct storage_target *t = map_get(&w->targets, l->target);
	struct storage_op *op;
	int at = when(w, t, l);

	if (at == NEVER) {
		forget(l);
		return true;
	}
	if (at == LATER || !storage_lease(w) || (op = storage_op_get(w, t)) == NULL)
		return false;
	op->done = tried;
	op->ctx = l;
	op->shift = l->shift;
	op->craq.kind = CRAQ_CUT;
	op->craq.id = l->id;
	op->craq.chain_version = t->v.version;
	op->craq.update = UPDATE_TRUNCATE;
	op->craq.epoch = 0;
	op->craq.deadline_ns = clock_now(w->clock) + LEFT_CALL_NS;
	w->left_busy++;
	list_push_back(&w->left_trying, &l->node);
	if (storage_op_start(op) == 0)
		return true;
	w->left_busy--;
	list_remove(&l->node);
	return false;
}

/* False: there are too many. */
static bool
note(struct storage_target *t, struct chunk_id id, uint8_t shift, uint64_t ns)
{
	struct storage_worker *w = t->w;
	struct storage_left **b = bucket(w, t->v.target, id), *l;

	if (noted(w, t->v.target, id))
		return true;
	if ((w->left_n >= LEFT_MAX && !chunk_craq_doubts(w->craq, &t->craq, id)) ||
	    (l = malloc(sizeof(*l))) == NULL)
		return false;
	*l = (struct storage_left){ .w = w, .target = t->v.target, .id = id, .shift = shift,
	    .next = *b };
	*b = l;
	w->left_n++;
	wait_for(l, ns);
	return true;
}

/* Note more of the pending chunks of @t.  True: that was all. */
static bool
scan(struct storage_target *t)
{
	struct storage_worker *w = t->w;
	struct chunk_info info;

	for (unsigned n = 0; n < SCAN_STEP; n++) {
		if (t->gone || !t->craq.head || chunk_engine_next_pending(
		    t->disk->engine, t->v.target, t->scan_at, t->scan_begun,
		    &info) != 0)
			return true;
		if (w->left_n >= LEFT_MAX / 2 ||
		    !note(t, info.id, info.shift, 0))
			return false;
		t->scan_at = info.id;
		t->scan_begun = true;
	}
	return false;
}

static void
again(struct clock_timer *timer)
{
	struct storage_worker *w = container_of(timer, struct storage_worker,
	    left_timer);
	uint64_t now = clock_now(w->clock), next = UINT64_MAX;

	list_for_each_safe(it, tmp, &w->scans)
		if (scan(list_entry(it, struct storage_target, in_scans)))
			list_remove(it);
	clock_timer_stop(w->clock, timer);
	list_for_each_safe(it, tmp, &w->left) {
		struct storage_left *l = list_entry(it, struct storage_left, node);

		if (w->left_busy >= LEFT_AT_ONCE)
			break;			/* who ends wakes us */
		if (l->at_ns <= now) {
			list_remove(&l->node);
			if (!try(w, l))
				wait_for(l, LEFT_PAUSE_NS);
		} else if (l->at_ns < next) {
			next = l->at_ns;
		}
	}
	if (w->left_busy < LEFT_AT_ONCE && next != UINT64_MAX)
		wake_at(w, next);
	if (!list_empty(&w->scans))
		wake_at(w, now + SCAN_PAUSE_NS);
}

void
storage_left_note(const struct storage_op *op)
{
	struct storage_target *t = op->t;

	if (!t->gone && !op->w->stopping && unfinished(op->w, t, op->craq.id) &&
	    !note(t, op->craq.id, op->shift, LEFT_PAUSE_NS) && t->craq.head)
		storage_left_scan(t);
}

void
storage_left_scan(struct storage_target *t)
{
	t->scan_begun = false;
	t->scan_at = (struct chunk_id){ 0, 0 };
	if (list_empty(&t->in_scans))
		list_push_back(&t->w->scans, &t->in_scans);
	wake_at(t->w, clock_now(t->w->clock));
}

static void
forget_all(struct list *lefts)
{
	struct list *n;

	while ((n = list_pop_front(lefts)) != NULL)
		forget(list_entry(n, struct storage_left, node));
}

void
storage_left_close(struct storage_worker *w)
{
	clock_timer_stop(w->clock, &w->left_timer);
	forget_all(&w->left);
	forget_all(&w->left_trying);
}
