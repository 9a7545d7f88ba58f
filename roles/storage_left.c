/* SPDX-License-Identifier: MIT */
/* storage_left.c - versions that a write left unfinished at the head.
 *
 * A write whose outcome behind us could not be learnt in time stays pending, and the next
 * operation at its chunk settles it.  There may never be one: its client is gone, say.  Until
 * then every read of the chunk has to ask the tail.  So the head tries by itself from time
 * to time: a cut at epoch 0, which settles what is older and does nothing more.
 *
 * What does not fit into the list waits for the next operation, as before. */
#include <stdlib.h>

#include "roles/storage_impl.h"

#define LEFT_MAX	4096u
#define LEFT_AT_ONCE	8u
#define LEFT_PAUSE_NS	NS_PER_S
#define LEFT_CALL_NS	(10 * NS_PER_S)

struct left {
	struct list	node;
	target_id	target;
	struct chunk_id	id;
	uint8_t		shift;
};

/* Something is unfinished at the chunk, and nobody is at work there. */
static bool
unfinished(struct storage_worker *w, struct storage_target *t, struct chunk_id id)
{
	struct chunk_info info;
	int rc = chunk_engine_info(t->disk->engine, t->v.target, id, &info);

	return chunk_craq_left(w->craq, &t->craq, id, rc == 0 ? &info : NULL);
}

static void
tried(struct storage_op *op, int rc)
{
	(void)rc;			/* storage_left_note() looks what is left */
	op->w->left_busy--;
}

/* False: it cannot be tried now (no lease, too much to do), but has to be later. */
static bool
try(struct storage_worker *w, const struct left *l)
{
	struct storage_target *t = map_get(&w->targets, l->target);
	struct storage_op *op;

	/* Who is not the head of a serving chain leaves it to who is. */
	if (t == NULL || t->gone || !t->craq.serving || !t->craq.head ||
	    !unfinished(w, t, l->id))
		return true;
	if (!storage_lease(w) || (op = storage_op_get(w, t)) == NULL)
		return false;
	op->done = tried;
	op->shift = l->shift;
	op->craq.kind = CRAQ_CUT;
	op->craq.id = l->id;
	op->craq.chain_version = t->v.version;
	op->craq.update = UPDATE_TRUNCATE;
	op->craq.epoch = 0;
	op->craq.deadline_ns = clock_now(w->clock) + LEFT_CALL_NS;
	w->left_busy++;
	if (storage_op_start(op) == 0)
		return true;
	w->left_busy--;
	return false;
}

static void
again(struct clock_timer *timer)
{
	struct storage_worker *w = container_of(timer, struct storage_worker,
	    left_timer);
	unsigned n = w->left_n;

	if (w->stopping)
		return;
	for (; n > 0 && w->left_busy < LEFT_AT_ONCE; n--) {
		struct left *l = list_entry(list_pop_front(&w->left), struct left,
		    node);

		if (try(w, l)) {
			w->left_n--;
			free(l);
		} else
			list_push_back(&w->left, &l->node);
	}
	if (w->left_n > 0 && w->left_timer.pos == 0)
		clock_timer_start(w->clock, &w->left_timer,
		    clock_now(w->clock) + LEFT_PAUSE_NS, again);
}

void
storage_left_note(const struct storage_op *op)
{
	struct storage_worker *w = op->w;
	struct left *l;

	if (!op->t->craq.serving || !op->t->craq.head || op->t->gone ||
	    w->stopping || w->left_n >= LEFT_MAX ||
	    !unfinished(w, op->t, op->craq.id) ||
	    (l = malloc(sizeof(*l))) == NULL)
		return;
	*l = (struct left){ .target = op->t->v.target, .id = op->craq.id,
	    .shift = op->shift };
	list_push_back(&w->left, &l->node);
	w->left_n++;
	if (w->left_timer.pos == 0)
		clock_timer_start(w->clock, &w->left_timer,
		    clock_now(w->clock) + LEFT_PAUSE_NS, again);
}

void
storage_left_close(struct storage_worker *w)
{
	struct list *n;

	clock_timer_stop(w->clock, &w->left_timer);
	while ((n = list_pop_front(&w->left)) != NULL)
		free(list_entry(n, struct left, node));
}
