/* SPDX-License-Identifier: MIT */
/* clock.h - time, timers and deferred work: the seam between roles and time.
 * Real: net/loop.c over libuv.  Simulated: tests/sim/clock.c on virtual time.
 * One clock belongs to one thread; only clock_post() may be called from another.
 * Ties (equal times, several deferred calls) run in the order they were asked. */
#ifndef CONF_CLOCK_H
#define CONF_CLOCK_H

#include <stdint.h>

#include "conf/list.h"

#define NS_PER_US	1000ull
#define NS_PER_MS	1000000ull
#define NS_PER_S	1000000000ull

struct clock;
struct clock_timer;
struct clock_defer;
struct clock_post;

typedef void clock_timer_fn(struct clock_timer *);
typedef void clock_defer_fn(struct clock_defer *);
typedef void clock_post_fn(struct clock_post *);

/* A one-shot timer, embedded by its owner; zero it before the first use. */
struct clock_timer {
	uint64_t	 at_ns;
	uint64_t	 order;		/* ties: started first, fires first */
	uint32_t	 pos;		/* 1-based place in the heap; 0: idle */
	clock_timer_fn	*fn;
};

/* A call to make from the loop after the running callback has returned; zero it
 * before the first use.  Asking twice before it ran is one call. */
struct clock_defer {
	struct list	 node;		/* next == NULL: never used */
	clock_defer_fn	*fn;
};

/* A call from any thread into this clock's thread; owned by the poster until fn
 * runs. */
struct clock_post {
	struct clock_post *next;
	clock_post_fn	  *fn;
};

struct clock_ops {
	uint64_t (*now)(struct clock *);
	uint64_t (*fresh)(struct clock *);
	int64_t	 (*wall)(struct clock *);
	void	 (*timer_start)(struct clock *, struct clock_timer *);
	void	 (*timer_stop)(struct clock *, struct clock_timer *);
	void	 (*defer)(struct clock *, struct clock_defer *);
	void	 (*undefer)(struct clock *, struct clock_defer *);
	void	 (*post)(struct clock *, struct clock_post *);
};

struct clock {
	const struct clock_ops *ops;
};

/* Monotonic nanoseconds, as of some moment in this turn of the loop: it costs nothing, but a
 * process may be stopped in the middle of a turn, for any time. */
static inline uint64_t
clock_now(struct clock *c)
{
	return c->ops->now(c);
}

/* The time it is now; later ones of clock_now() are no earlier.  For what others rely on: is
 * our lease over, when does one end that we give? */
static inline uint64_t
clock_fresh(struct clock *c)
{
	return c->ops->fresh(c);
}

/* Wall clock in nanoseconds since 1970; only for inode times and logs. */
static inline int64_t
clock_wall(struct clock *c)
{
	return c->ops->wall(c);
}

/* (Re)arm @t to call fn once at @at_ns, or in this turn when that is past. */
static inline void
clock_timer_start(struct clock *c, struct clock_timer *t, uint64_t at_ns,
    clock_timer_fn *fn)
{
	t->at_ns = at_ns;
	t->fn = fn;
	c->ops->timer_start(c, t);
}

/* Disarm; an idle timer is fine. */
static inline void
clock_timer_stop(struct clock *c, struct clock_timer *t)
{
	c->ops->timer_stop(c, t);
}

static inline void
clock_defer(struct clock *c, struct clock_defer *d, clock_defer_fn *fn)
{
	d->fn = fn;
	c->ops->defer(c, d);
}

/* Take back a deferred call; one that is not pending is fine. */
static inline void
clock_undefer(struct clock *c, struct clock_defer *d)
{
	c->ops->undefer(c, d);
}

static inline void
clock_post(struct clock *c, struct clock_post *p, clock_post_fn *fn)
{
	p->fn = fn;
	c->ops->post(c, p);
}

#endif
