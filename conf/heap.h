/* SPDX-License-Identifier: MIT */
/* heap.h - the timers of one clock, earliest first: a binary heap ordered by
 * (at_ns, order).  A timer knows its place, so stopping one is O(log n) as well.
 * Used by the real clock (net/loop.c) and the simulated one. */
#ifndef CONF_HEAP_H
#define CONF_HEAP_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "conf/clock.h"

struct heap {
	struct clock_timer **v;		/* v[0] is the earliest */
	uint32_t	     n, cap;
};

static inline bool
heap_before(const struct clock_timer *a, const struct clock_timer *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static inline void
heap_place(struct heap *h, uint32_t i, struct clock_timer *t)
{
	h->v[i] = t;
	t->pos = i + 1;
}

/* Put @t in at @i or above. */
static inline void
heap_up(struct heap *h, uint32_t i, struct clock_timer *t)
{
	while (i > 0 && heap_before(t, h->v[(i - 1) / 2])) {
		heap_place(h, i, h->v[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_place(h, i, t);
}

/* Put @t in at @i or below. */
static inline void
heap_down(struct heap *h, uint32_t i, struct clock_timer *t)
{
	for (;;) {
		uint32_t c = 2 * i + 1;

		if (c >= h->n)
			break;
		if (c + 1 < h->n && heap_before(h->v[c + 1], h->v[c]))
			c++;
		if (!heap_before(h->v[c], t))
			break;
		heap_place(h, i, h->v[c]);
		i = c;
	}
	heap_place(h, i, t);
}

/* The earliest timer, or NULL. */
static inline struct clock_timer *
heap_first(const struct heap *h)
{
	return h->n > 0 ? h->v[0] : NULL;
}

/* Take @t out; one that is not in is fine. */
static inline void
heap_remove(struct heap *h, struct clock_timer *t)
{
	uint32_t i = t->pos - 1;
	struct clock_timer *last;

	if (t->pos == 0)
		return;
	assert(i < h->n);
	assert(h->v[i] == t);
	t->pos = 0;
	last = h->v[--h->n];
	if (last == t)
		return;
	if (i > 0 && heap_before(last, h->v[(i - 1) / 2]))
		heap_up(h, i, last);
	else
		heap_down(h, i, last);
}

/* Put @t in with its at_ns and order; it must not be in.  Starting a timer has no
 * way to fail, so running out of memory for 8 bytes of it ends the process. */
static inline void
heap_insert(struct heap *h, struct clock_timer *t)
{
	assert(t->pos == 0);
	if (h->n == h->cap) {
		uint32_t cap = h->cap == 0 ? 64 : h->cap * 2;
		struct clock_timer **v = realloc(h->v, cap * sizeof(struct clock_timer *));

		if (v == NULL)
			abort();
		h->v = v;
		h->cap = cap;
	}
	h->n++;
	heap_up(h, h->n - 1, t);
}

/* Forget all timers (they become idle) and free the memory. */
static inline void
heap_fini(struct heap *h)
{
	for (uint32_t i = 0; i < h->n; i++)
		h->v[i]->pos = 0;
	free(h->v);
	*h = (struct heap){ 0 };
}

#endif
