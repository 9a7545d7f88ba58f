/* SPDX-License-Identifier: MIT */
/* loop.h - one thread's event loop and the real side of conf/clock.h, over libuv.
 *
 *   one turn:  poll -> callbacks of fds, posts -> timers -> deferred calls -> spins -> poll
 *
 * Deferred calls run before the loop sleeps, in the order they were asked for; those
 * asked while they run get a pass of their own.  clock_now() is read once a turn, and again
 * after a loop_touch().
 * Timers are as fine as poll: they fire up to 1 ms late, never early. */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/clock.h"

struct loop;
struct uv_loop_s;

/* 0, -ENOMEM or -errno (no descriptors left).  SIGPIPE is ignored from here on. */
int	loop_open(struct loop **out);
/* Everything on it must be closed or closing; its last turns end what is closing.
 * Posts that are still on their way run now: a poster that has gone must leave a post
 * that only frees itself.  Not from a callback. NULL is fine. */
void	loop_close(struct loop *l);

struct clock *loop_clock(struct loop *l);
struct uv_loop_s *loop_uv(struct loop *l);	/* for net/tcp.c */

/* Run until loop_stop(); returns after the turn that saw it. */
void	loop_run(struct loop *l);
/* From any thread; also before loop_run(), which then returns at once. */
void	loop_stop(struct loop *l);
/* One turn; @wait: sleep until there is something to do.  For start-up. */
void	loop_turn(struct loop *l, bool wait);

/* Something came from another process just now: clock_now() is not to be older than that.
 * A process may be stopped in the middle of a turn, for longer than any lease; what arrived
 * meanwhile must not be judged, nor answered, by the time of before. */
void	loop_touch(struct loop *l);

/* A place for chunk/disk_uring.c to keep its ring of this loop; starts out NULL. */
void  **loop_disk_slot(struct loop *l);

/* ---- descriptors that can be polled: /dev/fuse, an eventfd, a completion channel ---- */

enum { LOOP_READ = 1, LOOP_WRITE = 2 };

struct loop_poll;
/* @events: what is ready; -errno when polling failed (stop it then). */
typedef void loop_poll_fn(struct loop_poll *p, int events);

struct loop_poll {			/* zero it before the first use */
	loop_poll_fn *fn;
	void	     *handle;		/* loop.c's; NULL: not started */
};

/* Call @fn while @fd is ready for @events; @fd is borrowed, it becomes non-blocking.
 * Level-triggered.  0, -ENOMEM or -errno. */
int	loop_poll_start(struct loop_poll *p, struct loop *l, int fd, int events,
	    loop_poll_fn *fn);
/* No call after this; the caller may close the fd at once. Idle is fine. */
void	loop_poll_stop(struct loop_poll *p);

/* ---- looking instead of sleeping ---- */

struct loop_spin;
/* Look for work and do it.  @now_ns: about now.  True: there was some. */
typedef bool loop_spin_fn(struct loop_spin *s, uint64_t now_ns);

struct loop_spin {			/* zero it before the first use */
	struct list   node;
	loop_spin_fn *fn;
};

/* Do not sleep, but call @fn again and again, until stopped; from @fn or anywhere on the loop.
 * Descriptors, timers and posts have their turn every LOOP_SPIN_NS, and so have other threads
 * of this processor when no look found anything meanwhile.  In @fn clock_now() is @now_ns, read
 * a few looks ago.  Twice is once. */
#define LOOP_SPIN_NS	(20 * NS_PER_US)
void	loop_spin_start(struct loop *l, struct loop_spin *s, loop_spin_fn *fn);
void	loop_spin_stop(struct loop_spin *s);	/* idle is fine */

/* ---- signals ---- */

/* Call @fn in this loop whenever the process gets @signo, until loop_close(). At most 8
 * signals a loop. 0, -ENOSPC or -errno. */
int	loop_on_signal(struct loop *l, int signo, void (*fn)(void *ctx, int signo),
	    void *ctx);

/* ---- a loop in a thread of its own ---- */

struct loop_thread;

/* Open a loop and run it in a new thread named @name (at most 15 bytes show).
 * 0, -ENOMEM, -errno. */
int	loop_thread_start(struct loop_thread **out, const char *name);
struct loop *loop_thread_loop(struct loop_thread *t);
/* Run @fn on the loop's thread and wait for it: how objects get onto a loop at start-up,
 * and off it at the end.  Never from a loop that the other may be waiting for. */
void	loop_thread_call(struct loop_thread *t, void (*fn)(void *ctx), void *ctx);
/* Stop, join, close the loop (see loop_close()). NULL is fine. */
void	loop_thread_stop(struct loop_thread *t);

#endif
