/* SPDX-License-Identifier: MIT */
/* test_loop.c - order of timers, deferred calls, posts and descriptors on a real loop. */
#include "net/loop.h"

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "conf/list.h"
#include "tests/suite.h"

static char trace[256];
static struct loop *loop;
static struct clock *ck;

static void
setup(void)
{
	trace[0] = '\0';
	ck_assert_int_eq(loop_open(&loop), 0);
	ck = loop_clock(loop);
}

static void
teardown(void)
{
	loop_close(loop);
}

static void
say(char c)
{
	size_t n = strlen(trace);

	trace[n] = c;
	trace[n + 1] = '\0';
}

struct thing {
	struct clock_timer t;
	struct clock_defer d;
	struct clock_post  p;
	struct thing	  *next;	/* deferred when this runs */
	struct thing	  *undo;	/* undeferred when this runs */
	unsigned	   again;
	char		   name;
	bool		   last;
};

static void deferred(struct clock_defer *d);

static void
ran(struct thing *x)
{
	say(x->name);
	if (x->next != NULL)
		clock_defer(ck, &x->next->d, deferred);
	if (x->undo != NULL)
		clock_undefer(ck, &x->undo->d);
	if (x->again > 0) {
		x->again--;
		clock_defer(ck, &x->d, deferred);
	} else if (x->last)
		loop_stop(loop);
}

static void
deferred(struct clock_defer *d)
{
	ran(container_of(d, struct thing, d));
}

static void
timed(struct clock_timer *t)
{
	struct thing *x = container_of(t, struct thing, t);

	ck_assert_uint_ge(clock_now(ck), t->at_ns);
	ran(x);
}

static void
posted(struct clock_post *p)
{
	ran(container_of(p, struct thing, p));
}

START_TEST(timers)
{
	struct thing a = { .name = 'a' }, b = { .name = 'b' }, c = { .name = 'c' };
	struct thing z = { .name = 'z', .last = true }, x = { .name = 'x' };
	uint64_t t0;

	setup();
	t0 = clock_now(ck);
	clock_timer_start(ck, &z.t, t0 + 5 * NS_PER_MS, timed);
	clock_timer_start(ck, &b.t, t0 + 2 * NS_PER_MS, timed);
	clock_timer_start(ck, &a.t, t0 + 2 * NS_PER_MS, timed);
	clock_timer_start(ck, &x.t, t0 + NS_PER_MS, timed);
	clock_timer_start(ck, &c.t, 0, timed);		/* past: this turn */
	clock_timer_stop(ck, &x.t);
	loop_run(loop);
	ck_assert_str_eq(trace, "cbaz");
	ck_assert_uint_ge(clock_now(ck), t0 + 5 * NS_PER_MS);
	teardown();
}
END_TEST

/* Asked for order, once each, moved aside, taken back; before the loop sleeps. */
START_TEST(defers)
{
	struct thing c = { .name = 'c' }, d = { .name = 'd', .last = true };
	struct thing a = { .name = 'a', .next = &d };
	struct thing b = { .name = 'b', .undo = &c };

	setup();
	clock_undefer(ck, &a.d);
	clock_defer(ck, &a.d, deferred);
	clock_defer(ck, &b.d, deferred);
	clock_defer(ck, &a.d, deferred);
	clock_defer(ck, &c.d, deferred);
	ck_assert_str_eq(trace, "");
	loop_run(loop);
	ck_assert_str_eq(trace, "abd");
	teardown();
}
END_TEST

static struct loop_poll poller;
static int fd;

static void
readable(struct loop_poll *p, int events)
{
	ck_assert_int_eq(events, LOOP_READ);
	say('P');
	loop_poll_stop(p);
	close(fd);
	loop_stop(loop);
}

/* A call that defers itself for ever does not starve descriptors. */
START_TEST(no_starving)
{
	struct thing a = { .name = '.', .again = 60 };
	size_t at;

	setup();
	fd = eventfd(1, EFD_CLOEXEC);
	clock_defer(ck, &a.d, deferred);
	ck_assert_int_eq(loop_poll_start(&poller, loop, fd, LOOP_READ, readable), 0);
	loop_run(loop);
	at = (size_t)(strchr(trace, 'P') - trace);
	ck_assert_uint_le(at, 16);
	clock_undefer(ck, &a.d);
	teardown();
}
END_TEST

/* Posts keep their order, from this thread and from another. */
static void *
poster(void *arg)
{
	struct thing *x = arg;

	for (unsigned i = 0; i < 100; i++)
		clock_post(ck, &x[i].p, posted);
	return NULL;
}

START_TEST(posts)
{
	static struct thing x[101];
	pthread_t thread;

	setup();
	memset(x, 0, sizeof(x));
	for (unsigned i = 0; i < 101; i++)
		x[i].name = (char)('0' + i % 10);
	x[100].name = 'z';
	clock_post(ck, &x[100].p, posted);
	x[99].last = true;
	ck_assert_int_eq(pthread_create(&thread, NULL, poster, x), 0);
	loop_run(loop);
	pthread_join(thread, NULL);
	if (trace[100] == '\0')		/* z is still on its way */
		loop_turn(loop, true);
	ck_assert_uint_eq(strlen(trace), 101);
	for (unsigned i = 0, k = 0; i < 101; i++)
		if (trace[i] != 'z')
			ck_assert_int_eq(trace[i], '0' + (int)(k++ % 10));
	teardown();
}
END_TEST

static void
freed(struct clock_post *p)
{
	say('f');
	free(p);
}

/* A post that nobody waits for any more runs at the latest when the loop closes. */
START_TEST(orphan_post)
{
	setup();
	clock_post(ck, malloc(sizeof(struct clock_post)), freed);
	teardown();
	ck_assert_str_eq(trace, "f");
}
END_TEST

static void
signalled(void *ctx, int signo)
{
	(void)ctx;
	ck_assert_int_eq(signo, SIGUSR1);
	say('s');
	loop_stop(loop);
}

START_TEST(signals)
{
	setup();
	ck_assert_int_eq(loop_on_signal(loop, SIGUSR1, signalled, NULL), 0);
	kill(getpid(), SIGUSR1);
	loop_run(loop);
	ck_assert_str_eq(trace, "s");
	teardown();
}
END_TEST

/* Now is one moment for the whole turn, and a new one after the loop slept. */
static uint64_t seen[3];
static void
look(struct clock_defer *d)
{
	(void)d;
	seen[1] = clock_now(ck);
}
static void
look_first(struct clock_timer *t)
{
	static struct clock_defer d;

	(void)t;
	seen[0] = clock_now(ck);
	for (volatile unsigned i = 0; i < 100000; i++)
		;
	clock_defer(ck, &d, look);
	loop_stop(loop);
}

START_TEST(one_now)
{
	struct clock_timer t = { 0 };
	uint64_t t0;

	setup();
	t0 = clock_now(ck);
	clock_timer_start(ck, &t, t0 + 2 * NS_PER_MS, look_first);
	loop_run(loop);
	ck_assert_uint_eq(seen[0], seen[1]);
	ck_assert_uint_ge(seen[0], t0 + 2 * NS_PER_MS);
	teardown();
}
END_TEST

static void
touch(struct clock_timer *t)
{
	(void)t;
	seen[0] = clock_now(ck);
	usleep(1000);
	seen[1] = clock_now(ck);
	loop_touch(loop);
	seen[2] = clock_now(ck);
	loop_stop(loop);
}

/* A turn has one time, but for what comes from outside in the middle of it. */
START_TEST(touched)
{
	struct clock_timer t = { 0 };

	setup();
	clock_timer_start(ck, &t, clock_now(ck), touch);
	loop_run(loop);
	ck_assert_uint_eq(seen[0], seen[1]);
	ck_assert_uint_ge(seen[2], seen[1] + NS_PER_MS);
	teardown();
}
END_TEST

static void
from_thread(void *ctx)
{
	*(pthread_t *)ctx = pthread_self();
	say('t');
}

/* ---- spins ---- */

struct spinner {
	struct loop_spin  s;
	struct thing	 *work;		/* deferred by the look that finds something */
	unsigned	  looks, find, stop;	/* at which look; 0: never */
	struct spinner	 *other;	/* stopped when this one stops */
};

static bool
looked(struct loop_spin *s, uint64_t now_ns)
{
	struct spinner *p = container_of(s, struct spinner, s);

	ck_assert_uint_eq(now_ns, clock_now(ck));
	p->looks++;
	if (p->looks == p->find)
		clock_defer(ck, &p->work->d, deferred);
	if (p->looks == p->stop) {
		loop_spin_stop(s);
		if (p->other != NULL)
			loop_spin_stop(&p->other->s);
		loop_stop(loop);
	}
	return p->looks == p->find;
}

/* What a look finds is done before the next one; then looking goes on. */
START_TEST(spin_finds)
{
	struct thing found = { .name = 'f' };
	struct spinner p = { .work = &found, .find = 3, .stop = 5000 };

	setup();
	loop_spin_start(loop, &p.s, looked);
	loop_spin_start(loop, &p.s, looked);
	loop_run(loop);
	ck_assert_str_eq(trace, "f");
	ck_assert_uint_eq(p.looks, 5000);
	teardown();
}
END_TEST

/* Two take turns; one may stop the other. */
START_TEST(spin_two)
{
	struct spinner a = { .stop = 100 }, b = { .stop = 0 };

	setup();
	a.other = &b;
	loop_spin_start(loop, &a.s, looked);
	loop_spin_start(loop, &b.s, looked);
	loop_run(loop);
	ck_assert_uint_eq(a.looks, 100);
	ck_assert_uint_eq(b.looks, 99);
	loop_spin_stop(&a.s);
	teardown();
}
END_TEST

static struct loop_spin *spinning;

static void
read_and_stop(struct loop_poll *p, int events)
{
	(void)events;
	say('r');
	loop_poll_stop(p);
	loop_spin_stop(spinning);
	loop_stop(loop);
}

/* Whoever looks for ever keeps neither timers nor posts nor descriptors waiting. */
START_TEST(spin_starves_nobody)
{
	struct spinner p = { .stop = 0 };
	struct thing post = { .name = 'p' }, timer = { .name = 't' };
	struct loop_poll poll = { .handle = NULL };

	fd = eventfd(1, EFD_CLOEXEC);
	setup();
	spinning = &p.s;
	loop_spin_start(loop, &p.s, looked);
	clock_timer_start(ck, &timer.t, clock_now(ck), timed);
	clock_post(ck, &post.p, posted);
	loop_turn(loop, true);
	loop_turn(loop, true);
	ck_assert(strcmp(trace, "pt") == 0 || strcmp(trace, "tp") == 0);
	ck_assert_int_eq(loop_poll_start(&poll, loop, fd, LOOP_READ, read_and_stop), 0);
	loop_run(loop);
	ck_assert_uint_eq(strlen(trace), 3);
	ck_assert_uint_gt(p.looks, 0);
	close(fd);
	teardown();
}
END_TEST

START_TEST(threads)
{
	struct loop_thread *t;
	pthread_t who = pthread_self();

	trace[0] = '\0';
	ck_assert_int_eq(loop_thread_start(&t, "a-name-that-is-too-long"), 0);
	loop_thread_call(t, from_thread, &who);
	ck_assert(!pthread_equal(who, pthread_self()));
	loop_thread_call(t, from_thread, &who);
	loop_thread_stop(t);
	ck_assert_str_eq(trace, "tt");
}
END_TEST

/* Stopping before running is not lost. */
START_TEST(stop_first)
{
	setup();
	loop_stop(loop);
	loop_run(loop);
	teardown();
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("loop");

	tcase_add_test(tc, timers);
	tcase_add_test(tc, defers);
	tcase_add_test(tc, no_starving);
	tcase_add_loop_test(tc, posts, 0, 20);
	tcase_add_test(tc, orphan_post);
	tcase_add_test(tc, signals);
	tcase_add_test(tc, one_now);
	tcase_add_test(tc, touched);
	tcase_add_test(tc, spin_finds);
	tcase_add_test(tc, spin_two);
	tcase_add_test(tc, spin_starves_nobody);
	tcase_add_test(tc, threads);
	tcase_add_test(tc, stop_first);
	return suite_run("loop", tc);
}
