/* SPDX-License-Identifier: MIT */
/* test_clock.c - the heap of timers, and the simulator's clocks. */
#include "tests/sim/clock.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/heap.h"
#include "conf/rand.h"
#include "tests/suite.h"

static char trace[512];			/* what ran, in order */

static void
say(const char *s)
{
	strcat(trace, s);
}

static void say_a(struct clock_timer *t) { (void)t; say("a"); }
static void say_b(struct clock_timer *t) { (void)t; say("b"); }
static void say_c(struct clock_timer *t) { (void)t; say("c"); }

/* Random starts and stops against a sorted order. */
START_TEST(heap_order)
{
	enum { N = 300 };
	static struct clock_timer t[N];
	struct heap h = { 0 };
	struct rand r;
	uint64_t order = 0, last_at = 0, last_order = 0;
	unsigned in = 0;

	memset(t, 0, sizeof(t));
	rand_seed(&r, (uint64_t)_i);
	for (unsigned k = 0; k < 5000; k++) {
		struct clock_timer *x = &t[rand_below(&r, N)];

		if (x->pos != 0)
			heap_remove(&h, x);
		else {
			x->at_ns = rand_below(&r, 50);
			x->order = ++order;
			heap_insert(&h, x);
		}
	}
	for (unsigned i = 0; i < N; i++)
		in += t[i].pos != 0;
	ck_assert_uint_eq(in, h.n);
	while (h.n > 1) {
		struct clock_timer *x = heap_first(&h);

		heap_remove(&h, x);
		ck_assert(x->at_ns > last_at ||
		    (x->at_ns == last_at && x->order > last_order));
		last_at = x->at_ns;
		last_order = x->order;
		in--;
	}
	ck_assert_uint_eq(in, 1);
	heap_fini(&h);
	for (unsigned i = 0; i < N; i++)
		ck_assert_uint_eq(t[i].pos, 0);
}
END_TEST

/* Ties run as asked, over nodes; re-arming moves; stopping forgets. */
START_TEST(timers)
{
	struct sim_clock *w = sim_clock_open();
	struct clock *n = sim_clock_node(w, 0, 0), *m = sim_clock_node(w, 0, 0);
	struct clock_timer a = { 0 }, b = { 0 }, c = { 0 };
	uint64_t t0 = clock_now(n);

	trace[0] = '\0';
	clock_timer_start(m, &b, t0 + 5, say_b);
	clock_timer_start(n, &a, t0 + 5, say_a);
	clock_timer_start(n, &c, t0 + 9, say_c);
	clock_timer_start(n, &c, t0 + 1, say_c);
	sim_clock_run(w, 4);
	ck_assert_str_eq(trace, "c");
	ck_assert_uint_eq(clock_now(n), t0 + 4);
	ck_assert(sim_clock_step(w));
	ck_assert(sim_clock_step(w));
	ck_assert_str_eq(trace, "cba");
	clock_timer_start(n, &a, t0, say_a);	/* past: at once */
	clock_timer_start(n, &b, t0 + 100, say_b);
	clock_timer_stop(n, &b);
	clock_timer_stop(n, &b);
	clock_timer_start(n, &c, UINT64_MAX, say_c);	/* never */
	sim_clock_run(w, NS_PER_S);
	ck_assert_str_eq(trace, "cbaa");
	sim_clock_close(w);
	ck_assert_uint_eq(c.pos, 0);
}
END_TEST

/* A fast node fires early, a slow one late, both not before their own time. */
START_TEST(drift)
{
	struct sim_clock *w = sim_clock_open();
	struct clock *fast = sim_clock_node(w, 7 * NS_PER_S, 100000);
	struct clock *slow = sim_clock_node(w, 0, -100000);
	struct clock_timer a = { 0 }, b = { 0 }, c = { 0 };

	trace[0] = '\0';
	clock_timer_start(slow, &a, clock_now(slow) + NS_PER_S, say_a);
	clock_timer_start(fast, &b, clock_now(fast) + NS_PER_S, say_b);
	clock_timer_start(sim_clock_world(w), &c, sim_clock_now(w) + NS_PER_S,
	    say_c);
	sim_clock_run(w, 920 * NS_PER_MS);
	ck_assert_str_eq(trace, "b");
	sim_clock_run(w, 180 * NS_PER_MS);
	ck_assert_str_eq(trace, "bc");
	sim_clock_node_drift(slow, 400000);	/* now it hurries */
	sim_clock_run(w, 10 * NS_PER_MS);
	ck_assert_str_eq(trace, "bca");
	sim_clock_close(w);
}
END_TEST

struct work {
	struct clock_defer d;
	struct clock_post p;
	struct clock *clock;
	const char *name;
	unsigned again;
	struct work *undo;
};

static void
work(struct clock_defer *d)
{
	struct work *k = (struct work *)(void *)d;

	say(k->name);
	if (k->again-- > 0)
		clock_defer(k->clock, &k->d, work);
	if (k->undo != NULL)
		clock_undefer(k->clock, &k->undo->d);
}

static void
posted(struct clock_post *p)
{
	say(container_of(p, struct work, p)->name);
}

/* Deferred calls: asked twice is once, moved aside before they run, taken back even
 * while their turn runs. */
START_TEST(defers)
{
	struct sim_clock *w = sim_clock_open();
	struct clock *n = sim_clock_node(w, 0, 0);
	struct work z = { .clock = n, .name = "z" };
	struct work x = { .clock = n, .name = "x", .again = 1, .undo = &z };
	struct work y = { .clock = n, .name = "y" }, p = { .name = "p" };

	trace[0] = '\0';
	clock_undefer(n, &x.d);			/* never used: fine */
	clock_defer(n, &x.d, work);
	clock_defer(n, &y.d, work);
	clock_defer(n, &x.d, work);
	clock_defer(n, &z.d, work);
	clock_post(n, &p.p, posted);
	ck_assert_uint_eq(sim_clock_node_pending(n), 4);
	ck_assert_str_eq(trace, "");
	ck_assert(sim_clock_step(w));
	ck_assert_str_eq(trace, "pxy");
	ck_assert(sim_clock_step(w));
	ck_assert_str_eq(trace, "pxyx");
	ck_assert(!sim_clock_step(w));
	sim_clock_close(w);
}
END_TEST

static struct clock *victim;

static void
kill_it(struct clock_defer *d)
{
	(void)d;
	say("k");
	sim_clock_node_kill(victim);
}

/* Nothing of a dead node runs, not even what it asks for while it is torn down;
 * the others go on. */
START_TEST(killed)
{
	struct sim_clock *w = sim_clock_open();
	struct clock *n = sim_clock_node(w, 0, 0), *m = sim_clock_node(w, 0, 0);
	struct work k = { .clock = n, .name = "" }, x = { .clock = n, .name = "x" };
	struct clock_timer a = { 0 }, b = { 0 };

	trace[0] = '\0';
	victim = n;
	clock_timer_start(n, &a, clock_now(n) + 3, say_a);
	clock_timer_start(m, &b, clock_now(m) + 3, say_b);
	clock_defer(n, &k.d, kill_it);
	clock_defer(n, &x.d, work);
	ck_assert(sim_clock_run_idle(w, NS_PER_S));
	ck_assert_str_eq(trace, "kb");
	clock_timer_stop(n, &a);
	clock_timer_start(n, &a, 0, say_a);
	clock_defer(n, &x.d, work);
	clock_post(n, &x.p, posted);
	ck_assert_uint_eq(sim_clock_node_pending(n), 0);
	ck_assert(!sim_clock_step(w));
	sim_clock_node_close(n);
	sim_clock_close(w);
}
END_TEST

START_TEST(paused)
{
	struct sim_clock *w = sim_clock_open();
	struct clock *n = sim_clock_node(w, 0, 0);
	struct work x = { .clock = n, .name = "x" };
	struct clock_timer a = { 0 };
	uint64_t t0 = clock_now(n);

	trace[0] = '\0';
	sim_clock_node_pause(n, true);
	clock_timer_start(n, &a, t0 + 3, say_a);
	clock_defer(n, &x.d, work);
	sim_clock_run(w, 10);
	ck_assert_str_eq(trace, "");
	sim_clock_node_pause(n, false);
	ck_assert(sim_clock_run_idle(w, NS_PER_S));
	ck_assert_str_eq(trace, "xa");
	ck_assert_uint_eq(clock_now(n), t0 + 10);
	sim_clock_close(w);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("clock");

	tcase_add_loop_test(tc, heap_order, 0, 20);
	tcase_add_test(tc, timers);
	tcase_add_test(tc, drift);
	tcase_add_test(tc, defers);
	tcase_add_test(tc, killed);
	tcase_add_test(tc, paused);
	return suite_run("clock", tc);
}
