/* SPDX-License-Identifier: MIT */
/* clock.c - the event queue of the simulator.
 *
 *   world: nodes in order of birth
 *     node: heap of timers by (its own time, order)   next_ns = true time of the first
 *           defers, posts                             ready: in the world's ready list
 *
 * Invariants:
 *  1. True time never goes back, and moves only when no live node is ready.
 *  2. A timer never fires before its node's clock shows its time. */
#include "tests/sim/clock.h"

#include <assert.h>
#include <stdlib.h>

#include "conf/heap.h"

#define NEVER		UINT64_MAX
#define WALL_START	1700000000000000000ll	/* some day in 2023 */
#define PPM		1000000

struct node {
	struct clock	   clock;
	struct sim_clock  *world;
	struct list	   node;	/* in world->nodes */
	struct list	   ready;	/* in world->ready while it has work */
	struct heap	   timers;
	struct list	   defers;
	struct list	   running;	/* defers of the turn that runs, moved aside */
	struct clock_post *posts, **posts_end;
	struct clock_post *posts_running;
	uint64_t	   true_base, own_base;	/* both at the last change of speed */
	int32_t		   drift_ppm;
	uint64_t	   next_ns;	/* true time of the first timer */
	uint64_t	   stopped_ns;	/* own time that its turn still has; 0: the true one */
	bool		   paused, dead;
};

struct sim_clock {
	uint64_t     now_ns;
	uint64_t     order;
	struct list  nodes;
	struct list  ready;
	struct node *self;		/* the world's own clock */
};

static struct node *
of(const struct clock *c)
{
	return container_of(c, struct node, clock);
}

static uint64_t
own_time(const struct node *n, uint64_t true_ns)
{
	unsigned __int128 d = true_ns - n->true_base;

	return n->own_base + (uint64_t)(d * (uint64_t)(PPM + n->drift_ppm) / PPM);
}

/* Smallest true time at which the node shows at least @own_ns. */
static uint64_t
true_time(const struct node *n, uint64_t own_ns)
{
	uint64_t rate = (uint64_t)(PPM + n->drift_ppm);
	unsigned __int128 d;

	if (own_ns <= n->own_base)
		return n->true_base;
	d = ((unsigned __int128)(own_ns - n->own_base) * PPM + rate - 1) / rate;
	return d >= NEVER - n->true_base ? NEVER : n->true_base + (uint64_t)d;
}

static void
set_next(struct node *n)
{
	const struct clock_timer *t = heap_first(&n->timers);

	n->next_ns = t == NULL ? NEVER : true_time(n, t->at_ns);
}

static void
set_ready(struct node *n)
{
	if (list_empty(&n->ready))
		list_push_back(&n->world->ready, &n->ready);
}

/* ---- what a node asks ---- */

static uint64_t
fresh(struct clock *c)
{
	of(c)->stopped_ns = 0;
	return own_time(of(c), of(c)->world->now_ns);
}

static uint64_t
now(struct clock *c)
{
	return of(c)->stopped_ns != 0 ? of(c)->stopped_ns : fresh(c);
}

static int64_t
wall(struct clock *c)
{
	return WALL_START + (int64_t)now(c);
}

static void
timer_stop(struct clock *c, struct clock_timer *t)
{
	struct node *n = of(c);
	bool first = t->pos == 1;

	heap_remove(&n->timers, t);
	if (first)
		set_next(n);
}

static void
timer_start(struct clock *c, struct clock_timer *t)
{
	struct node *n = of(c);

	/* at_ns is the new time already: find its old place by pos alone. */
	if (t->pos != 0)
		heap_remove(&n->timers, t);
	if (n->dead)
		return;
	t->order = ++n->world->order;
	heap_insert(&n->timers, t);
	set_next(n);
}

static void
defer(struct clock *c, struct clock_defer *d)
{
	struct node *n = of(c);

	if (d->node.next == NULL)
		list_init(&d->node);
	if (n->dead || !list_empty(&d->node))
		return;
	list_push_back(&n->defers, &d->node);
	set_ready(n);
}

static void
undefer(struct clock *c, struct clock_defer *d)
{
	(void)c;
	if (d->node.next != NULL)
		list_remove(&d->node);
}

static void
post(struct clock *c, struct clock_post *p)
{
	struct node *n = of(c);

	p->next = NULL;
	if (n->dead)
		return;
	*n->posts_end = p;
	n->posts_end = &p->next;
	set_ready(n);
}

static const struct clock_ops ops = {
	.now = now, .fresh = fresh, .wall = wall, .timer_start = timer_start,
	.timer_stop = timer_stop, .defer = defer, .undefer = undefer, .post = post
};

/* ---- nodes ---- */

static struct node *
make(struct sim_clock *w, uint64_t offset_ns, int32_t drift_ppm)
{
	struct node *n = calloc(1, sizeof(*n));

	assert(drift_ppm > -PPM / 2 && drift_ppm < PPM / 2);
	if (n == NULL)
		abort();
	n->clock.ops = &ops;
	n->world = w;
	n->true_base = w->now_ns;
	n->own_base = w->now_ns + offset_ns;
	n->drift_ppm = drift_ppm;
	n->next_ns = NEVER;
	n->posts_end = &n->posts;
	list_init(&n->ready);
	list_init(&n->defers);
	list_init(&n->running);
	list_push_back(&w->nodes, &n->node);
	return n;
}

struct clock *
sim_clock_node(struct sim_clock *w, uint64_t offset_ns, int32_t drift_ppm)
{
	return &make(w, offset_ns, drift_ppm)->clock;
}

void
sim_clock_node_drift(struct clock *c, int32_t drift_ppm)
{
	struct node *n = of(c);

	assert(drift_ppm > -PPM / 2 && drift_ppm < PPM / 2);
	n->own_base = own_time(n, n->world->now_ns);
	n->true_base = n->world->now_ns;
	n->drift_ppm = drift_ppm;
	set_next(n);
}

void
sim_clock_node_pause(struct clock *c, bool paused)
{
	struct node *n = of(c);

	n->paused = paused;
	if (paused)
		n->stopped_ns = own_time(n, n->world->now_ns);
}

void
sim_clock_node_kill(struct clock *c)
{
	struct node *n = of(c);

	n->dead = true;
	heap_fini(&n->timers);
	set_next(n);
	while (list_pop_front(&n->defers) != NULL)
		;
	while (list_pop_front(&n->running) != NULL)
		;
	n->posts = n->posts_running = NULL;
	n->posts_end = &n->posts;
	list_remove(&n->ready);
}

bool
sim_clock_node_dead(const struct clock *c)
{
	return of(c)->dead;
}

unsigned
sim_clock_node_pending(const struct clock *c)
{
	const struct node *n = of(c);
	unsigned k = n->timers.n;

	list_for_each(it, &n->defers)
		k++;
	list_for_each(it, &n->running)
		k++;
	for (const struct clock_post *p = n->posts; p != NULL; p = p->next)
		k++;
	for (const struct clock_post *p = n->posts_running; p != NULL; p = p->next)
		k++;
	return k;
}

void
sim_clock_node_close(struct clock *c)
{
	struct node *n;

	if (c == NULL)
		return;
	n = of(c);
	sim_clock_node_kill(c);
	list_remove(&n->node);
	free(n);
}

/* ---- the world ---- */

struct sim_clock *
sim_clock_open(void)
{
	struct sim_clock *w = calloc(1, sizeof(*w));

	if (w == NULL)
		abort();
	w->now_ns = NS_PER_S;		/* so that 0 is never a time */
	list_init(&w->nodes);
	list_init(&w->ready);
	w->self = make(w, 0, 0);
	return w;
}

void
sim_clock_close(struct sim_clock *w)
{
	if (w == NULL)
		return;
	while (!list_empty(&w->nodes))
		sim_clock_node_close(
		    &list_entry(w->nodes.next, struct node, node)->clock);
	free(w);
}

struct clock *
sim_clock_world(struct sim_clock *w)
{
	return &w->self->clock;
}

uint64_t
sim_clock_now(const struct sim_clock *w)
{
	return w->now_ns;
}

/* Posts, then defers that were there when the turn began. */
static void
turn(struct node *n)
{
	struct list *d;

	list_remove(&n->ready);
	n->posts_running = n->posts;
	n->posts = NULL;
	n->posts_end = &n->posts;
	list_splice_back(&n->running, &n->defers);
	while (n->posts_running != NULL) {
		struct clock_post *p = n->posts_running;

		n->posts_running = p->next;
		p->fn(p);
	}
	while ((d = list_pop_front(&n->running)) != NULL) {
		struct clock_defer *it = list_entry(d, struct clock_defer, node);

		it->fn(it);
	}
	n->stopped_ns = 0;
}

static struct node *
next_ready(struct sim_clock *w)
{
	list_for_each(it, &w->ready) {
		struct node *n = list_entry(it, struct node, ready);

		if (!n->paused)
			return n;
	}
	return NULL;
}

static struct node *
next_timer(struct sim_clock *w)
{
	struct node *best = NULL;

	list_for_each(it, &w->nodes) {
		struct node *n = list_entry(it, struct node, node);

		if (n->paused || n->next_ns == NEVER)
			continue;
		if (best == NULL || n->next_ns < best->next_ns ||
		    (n->next_ns == best->next_ns &&
		    heap_first(&n->timers)->order <
		    heap_first(&best->timers)->order))
			best = n;
	}
	return best;
}

/* One step of what happens at @end_ns or before. */
static bool
step(struct sim_clock *w, uint64_t end_ns)
{
	struct node *n = next_ready(w);
	struct clock_timer *t;

	if (n != NULL) {
		turn(n);
		return true;
	}
	n = next_timer(w);
	if (n == NULL || n->next_ns > end_ns)
		return false;
	if (n->next_ns > w->now_ns)
		w->now_ns = n->next_ns;
	t = heap_first(&n->timers);
	assert(own_time(n, w->now_ns) >= t->at_ns);
	heap_remove(&n->timers, t);
	set_next(n);
	n->stopped_ns = 0;
	t->fn(t);
	return true;
}

bool
sim_clock_step(struct sim_clock *w)
{
	return step(w, NEVER - 1);
}

void
sim_clock_run(struct sim_clock *w, uint64_t ns)
{
	uint64_t end = w->now_ns + ns;

	while (step(w, end))
		;
	w->now_ns = end;
}

bool
sim_clock_run_until(struct sim_clock *w, bool (*done)(void *ctx), void *ctx,
    uint64_t limit_ns)
{
	uint64_t end = w->now_ns + limit_ns;

	while (!done(ctx))
		if (!step(w, end))
			return false;
	return true;
}

bool
sim_clock_run_idle(struct sim_clock *w, uint64_t limit_ns)
{
	uint64_t end = w->now_ns + limit_ns;

	while (step(w, end))
		;
	return next_timer(w) == NULL;
}
