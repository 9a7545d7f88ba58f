/* SPDX-License-Identifier: MIT */
/* loop.c - libuv underneath; timers and deferred calls are our own.
 *
 * libuv's turn is: its timers, idle, prepare, poll (callbacks of fds, async), check.
 * Ours hangs on it like this:
 *	prepare	bound the poll by our first timer, or make it not sleep at all
 *	check	run timers that are due, deferred calls, spins and what they deferred
 *
 * Invariants:
 *  1. The poll sleeps only when no deferred call is pending, no timer is due and nobody
 *     spins.
 *  2. clock_now() changes only between prepare and the first look after it, between looks
 *     of spins, and when somebody wants it fresh.
 *  3. posts is empty, or a wake-up is on its way. */
#include "net/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#include "conf/heap.h"

#define SIGNALS_MAX	8u
/* Passes over deferred calls before descriptors get their turn again. */
#define PASSES_MAX	8u
#define LOOKS		16u		/* of spins, between looks at the clock */

struct on_signal {
	uv_signal_t uv;
	void	  (*fn)(void *ctx, int signo);
	void	   *ctx;
};

struct loop {
	struct clock  clock;
	uv_loop_t     uv;
	uv_prepare_t  prepare;
	uv_check_t    check;
	uv_idle_t     idle;		/* started: poll does not sleep */
	uv_timer_t    timer;		/* bounds the sleep, does nothing else */
	uv_async_t    async;
	uint64_t      now_ns;
	bool	      now_stale;
	uint64_t      order;
	struct heap   timers;
	struct list   defers, running;	/* running: moved aside for this pass */
	struct list   spins;
	_Atomic(struct clock_post *) posts;	/* newest first */
	atomic_bool   stop;
	void	     *disk_slot;
	unsigned      signal_n;
	struct on_signal signals[SIGNALS_MAX];
};

static struct loop *
of(struct clock *c)
{
	return container_of(c, struct loop, clock);
}

/* ---- the clock ---- */

static uint64_t
read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t
now(struct clock *c)
{
	struct loop *l = of(c);

	if (l->now_stale) {
		/* Counts through a suspend of the machine: a lease runs out in it. */
		l->now_ns = read_clock(CLOCK_BOOTTIME);
		l->now_stale = false;
	}
	return l->now_ns;
}

static uint64_t
fresh(struct clock *c)
{
	of(c)->now_stale = true;
	return now(c);
}

static int64_t
wall(struct clock *c)
{
	(void)c;
	return (int64_t)read_clock(CLOCK_REALTIME);
}

static void
timer_stop(struct clock *c, struct clock_timer *t)
{
	heap_remove(&of(c)->timers, t);
}

static void
timer_start(struct clock *c, struct clock_timer *t)
{
	struct loop *l = of(c);

	heap_remove(&l->timers, t);
	t->order = ++l->order;
	heap_insert(&l->timers, t);
}

static void
defer(struct clock *c, struct clock_defer *d)
{
	if (d->node.next == NULL)
		list_init(&d->node);
	if (list_empty(&d->node))
		list_push_back(&of(c)->defers, &d->node);
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
	struct loop *l = of(c);
	struct clock_post *top = atomic_load_explicit(&l->posts,
	    memory_order_relaxed);

	do
		p->next = top;
	while (!atomic_compare_exchange_weak_explicit(&l->posts, &top, p,
	    memory_order_acq_rel, memory_order_relaxed));
	/* Who found it empty wakes the loop; @p may be gone already. */
	if (top == NULL)
		uv_async_send(&l->async);
}

static const struct clock_ops ops = {
	.now = now, .fresh = fresh, .wall = wall, .timer_start = timer_start,
	.timer_stop = timer_stop, .defer = defer, .undefer = undefer, .post = post
};

/* ---- the turn ---- */

static void
run_posts(struct loop *l)
{
	struct clock_post *p, *next, *first = NULL;

	/* Newest first becomes oldest first. */
	for (p = atomic_exchange_explicit(&l->posts, NULL, memory_order_acq_rel);
	    p != NULL; p = next) {
		next = p->next;
		p->next = first;
		first = p;
	}
	for (p = first; p != NULL; p = next) {
		next = p->next;
		p->fn(p);
	}
}

static void
run_timers(struct loop *l)
{
	uint64_t t_now = now(&l->clock), last = l->order;
	struct clock_timer *t;

	/* One started meanwhile for the past waits for the next turn. */
	while ((t = heap_first(&l->timers)) != NULL && t->at_ns <= t_now &&
	    t->order <= last) {
		heap_remove(&l->timers, t);
		t->fn(t);
	}
}

static void
run_defers(struct loop *l)
{
	struct list *n;

	for (unsigned pass = 0; pass < PASSES_MAX; pass++) {
		list_splice_back(&l->running, &l->defers);
		if (list_empty(&l->running))
			return;
		while ((n = list_pop_front(&l->running)) != NULL) {
			struct clock_defer *d;

			d = list_entry(n, struct clock_defer, node);
			d->fn(d);
		}
	}
}

/* All spins once.  True: one had work. */
static bool
look(struct loop *l, uint64_t now_ns)
{
	struct list pass, *n;
	bool found = false;

	list_init(&pass);
	list_splice_back(&pass, &l->spins);
	while ((n = list_pop_front(&pass)) != NULL) {
		struct loop_spin *s = list_entry(n, struct loop_spin, node);

		list_push_back(&l->spins, n);
		found |= s->fn(s, now_ns);
	}
	return found;
}

static void
run_spins(struct loop *l)
{
	bool found = false;
	uint64_t end_ns;

	if (list_empty(&l->spins))
		return;
	l->now_stale = true;
	end_ns = now(&l->clock) + LOOP_SPIN_NS;
	do {
		for (unsigned i = 0; i < LOOKS && !list_empty(&l->spins); i++)
			if (look(l, l->now_ns)) {
				found = true;
				run_defers(l);
				break;
			}
		l->now_stale = true;
	} while (now(&l->clock) < end_ns && !list_empty(&l->spins) &&
	    !atomic_load(&l->stop));
	/* Whom we wait for may be another thread of this processor. */
	if (!found)
		sched_yield();
}

static void
on_async(uv_async_t *a)
{
	struct loop *l = container_of(a, struct loop, async);

	run_posts(l);
}

static void
on_check(uv_check_t *c)
{
	struct loop *l = container_of(c, struct loop, check);

	run_timers(l);
	run_defers(l);
	run_spins(l);
	if (atomic_load(&l->stop))
		uv_stop(&l->uv);
}

static void
on_timer(uv_timer_t *t)
{
	(void)t;
}

static void
on_idle(uv_idle_t *i)
{
	(void)i;
}

static void
on_prepare(uv_prepare_t *p)
{
	struct loop *l = container_of(p, struct loop, prepare);
	const struct clock_timer *t = heap_first(&l->timers);
	uint64_t clock_ns, ms;

	uv_timer_stop(&l->timer);
	if (!list_empty(&l->defers) || !list_empty(&l->running) ||
	    !list_empty(&l->spins))
		uv_idle_start(&l->idle, on_idle);
	else {
		uv_idle_stop(&l->idle);
		if (t != NULL) {
			/* From the true time: the turn may have been long. */
			clock_ns = read_clock(CLOCK_BOOTTIME);
			if (t->at_ns <= clock_ns)
				uv_idle_start(&l->idle, on_idle);
			else {
				ms = (t->at_ns - clock_ns + NS_PER_MS - 1) / NS_PER_MS;
				/* libuv counts from its own notion of now. */
				uv_update_time(&l->uv);
				uv_timer_start(&l->timer, on_timer, ms, 0);
			}
		}
	}
	l->now_stale = true;
}

/* ---- open and close ---- */

int
loop_open(struct loop **out)
{
	struct loop *l = calloc(1, sizeof(*l));
	int rc;

	*out = NULL;
	if (l == NULL)
		return -ENOMEM;
	/* A peer that hung up is an error of one write, not the end of the process. */
	signal(SIGPIPE, SIG_IGN);
	l->clock.ops = &ops;
	l->now_stale = true;
	list_init(&l->defers);
	list_init(&l->running);
	list_init(&l->spins);
	if ((rc = uv_loop_init(&l->uv)) != 0) {
		free(l);
		return rc;
	}
	if ((rc = uv_async_init(&l->uv, &l->async, on_async)) != 0) {
		uv_loop_close(&l->uv);
		free(l);
		return rc;
	}
	uv_prepare_init(&l->uv, &l->prepare);		/* these cannot fail */
	uv_check_init(&l->uv, &l->check);
	uv_idle_init(&l->uv, &l->idle);
	uv_timer_init(&l->uv, &l->timer);
	uv_prepare_start(&l->prepare, on_prepare);
	uv_check_start(&l->check, on_check);
	*out = l;
	return 0;
}

static void
is_closing(uv_handle_t *h, void *ctx)
{
	(void)ctx;
	assert(uv_is_closing(h));	/* else somebody forgot it on this loop */
}

void
loop_close(struct loop *l)
{
	int rc;

	if (l == NULL)
		return;
	uv_close((uv_handle_t *)&l->prepare, NULL);
	uv_close((uv_handle_t *)&l->check, NULL);
	uv_close((uv_handle_t *)&l->idle, NULL);
	uv_close((uv_handle_t *)&l->timer, NULL);
	uv_close((uv_handle_t *)&l->async, NULL);
	for (unsigned i = 0; i < l->signal_n; i++)
		uv_close((uv_handle_t *)&l->signals[i].uv, NULL);
	uv_walk(&l->uv, is_closing, NULL);
	uv_run(&l->uv, UV_RUN_DEFAULT);
	run_posts(l);
	assert(l->disk_slot == NULL);
	assert(list_empty(&l->defers));
	assert(list_empty(&l->spins));
	assert(l->timers.n == 0);
	rc = uv_loop_close(&l->uv);
	assert(rc == 0);
	heap_fini(&l->timers);
	free(l);
}

void
loop_touch(struct loop *l)
{
	l->now_stale = true;
}

struct clock *
loop_clock(struct loop *l)
{
	return &l->clock;
}

struct uv_loop_s *
loop_uv(struct loop *l)
{
	return &l->uv;
}

void **
loop_disk_slot(struct loop *l)
{
	return &l->disk_slot;
}

void
loop_run(struct loop *l)
{
	while (!atomic_load(&l->stop))
		uv_run(&l->uv, UV_RUN_DEFAULT);
	atomic_store(&l->stop, false);
}

void
loop_stop(struct loop *l)
{
	atomic_store(&l->stop, true);
	uv_async_send(&l->async);
}

void
loop_turn(struct loop *l, bool wait)
{
	uv_run(&l->uv, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

/* ---- descriptors ---- */

struct poll {
	uv_poll_t	  uv;
	struct loop_poll *owner;
};

static void
free_poll(uv_handle_t *h)
{
	free(container_of((uv_poll_t *)h, struct poll, uv));
}

static void
on_poll(uv_poll_t *h, int status, int events)
{
	struct poll *p = container_of(h, struct poll, uv);

	p->owner->fn(p->owner, status < 0 ? status :
	    (events & UV_READABLE ? LOOP_READ : 0) |
	    (events & UV_WRITABLE ? LOOP_WRITE : 0));
}

int
loop_poll_start(struct loop_poll *owner, struct loop *l, int fd, int events,
    loop_poll_fn *fn)
{
	struct poll *p = calloc(1, sizeof(*p));
	int rc;

	assert(owner->handle == NULL);
	if (p == NULL)
		return -ENOMEM;
	if ((rc = uv_poll_init(&l->uv, &p->uv, fd)) != 0) {
		free(p);
		return rc;
	}
	p->owner = owner;
	owner->fn = fn;
	owner->handle = p;
	rc = uv_poll_start(&p->uv, (events & LOOP_READ ? UV_READABLE : 0) |
	    (events & LOOP_WRITE ? UV_WRITABLE : 0), on_poll);
	if (rc != 0)
		loop_poll_stop(owner);
	return rc;
}

void
loop_poll_stop(struct loop_poll *owner)
{
	struct poll *p = owner->handle;

	if (p == NULL)
		return;
	owner->handle = NULL;
	uv_close((uv_handle_t *)&p->uv, free_poll);
}

/* ---- spins ---- */

void
loop_spin_start(struct loop *l, struct loop_spin *s, loop_spin_fn *fn)
{
	if (s->node.next == NULL)
		list_init(&s->node);
	s->fn = fn;
	if (list_empty(&s->node))
		list_push_back(&l->spins, &s->node);
}

void
loop_spin_stop(struct loop_spin *s)
{
	if (s->node.next != NULL)
		list_remove(&s->node);
}

/* ---- signals ---- */

static void
on_signal(uv_signal_t *h, int signo)
{
	struct on_signal *s = container_of(h, struct on_signal, uv);

	s->fn(s->ctx, signo);
}

int
loop_on_signal(struct loop *l, int signo, void (*fn)(void *ctx, int signo),
    void *ctx)
{
	struct on_signal *s = &l->signals[l->signal_n];
	int rc;

	if (l->signal_n == SIGNALS_MAX)
		return -ENOSPC;
	if ((rc = uv_signal_init(&l->uv, &s->uv)) != 0)
		return rc;
	l->signal_n++;
	s->fn = fn;
	s->ctx = ctx;
	return uv_signal_start(&s->uv, on_signal, signo);
}

/* ---- threads ---- */

struct loop_thread {
	struct loop *loop;
	pthread_t    thread;
	char	     name[16];
};

static void *
thread_main(void *arg)
{
	struct loop_thread *t = arg;

	pthread_setname_np(pthread_self(), t->name);
	loop_run(t->loop);
	return NULL;
}

int
loop_thread_start(struct loop_thread **out, const char *name)
{
	struct loop_thread *t = calloc(1, sizeof(*t));
	int rc;

	*out = NULL;
	if (t == NULL)
		return -ENOMEM;
	strncpy(t->name, name, sizeof(t->name) - 1);
	if ((rc = loop_open(&t->loop)) != 0) {
		free(t);
		return rc;
	}
	if ((rc = pthread_create(&t->thread, NULL, thread_main, t)) != 0) {
		loop_close(t->loop);
		free(t);
		return -rc;
	}
	*out = t;
	return 0;
}

struct loop *
loop_thread_loop(struct loop_thread *t)
{
	return t->loop;
}

struct thread_call {
	struct clock_post post;
	void		(*fn)(void *ctx);
	void		 *ctx;
	sem_t		  done;
};

static void
run_call(struct clock_post *p)
{
	struct thread_call *c = container_of(p, struct thread_call, post);

	c->fn(c->ctx);
	sem_post(&c->done);
}

void
loop_thread_call(struct loop_thread *t, void (*fn)(void *ctx), void *ctx)
{
	struct thread_call c = { .fn = fn, .ctx = ctx };

	sem_init(&c.done, 0, 0);
	clock_post(&t->loop->clock, &c.post, run_call);
	while (sem_wait(&c.done) != 0)
		;			/* a signal came between */
	sem_destroy(&c.done);
}

void
loop_thread_stop(struct loop_thread *t)
{
	if (t == NULL)
		return;
	loop_stop(t->loop);
	pthread_join(t->thread, NULL);
	loop_close(t->loop);
	free(t);
}
