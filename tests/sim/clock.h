/* SPDX-License-Identifier: MIT */
/* clock.h - virtual time for a whole cluster in one thread.
 *
 * A world holds true time; each node looks at it through a clock of its own, which
 * may be offset and may run fast or slow.  Nothing moves unless the world is stepped:
 * one step is one timer, or one turn of a node's posts and deferred calls.  Time jumps
 * to the next timer once nobody has work at the present moment.  Ties break by the
 * order in which things were asked, over all nodes, so a run repeats exactly. */
#ifndef TESTS_SIM_CLOCK_H
#define TESTS_SIM_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/clock.h"

struct sim_clock;			/* the world */

/* Running out of memory ends the process. */
struct sim_clock *sim_clock_open(void);
/* Node clocks that are left are closed too. NULL is fine. */
void	sim_clock_close(struct sim_clock *w);

/* True time; for the network, the load, the script of a test.  Never dies. */
struct clock *sim_clock_world(struct sim_clock *w);
uint64_t sim_clock_now(const struct sim_clock *w);

/* A clock that shows true time + @offset_ns and gains @drift_ppm microseconds every
 * second (|ppm| < 500000). Owned by the world. */
struct clock *sim_clock_node(struct sim_clock *w, uint64_t offset_ns,
	    int32_t drift_ppm);
/* Change the speed from now on; shown time does not jump. */
void	sim_clock_node_drift(struct clock *c, int32_t drift_ppm);
/* While paused nothing of the node runs (SIGSTOP, a stuck host); what was due
 * meanwhile runs late, after it has been resumed.  It is stopped in the middle of a turn:
 * what has come for it meanwhile is seen with the time of then, unless it wants it fresh. */
void	sim_clock_node_pause(struct clock *c, bool paused);
/* The process died: its timers, defers and posts vanish, and whatever its remains ask
 * for while they are torn down is ignored. */
void	sim_clock_node_kill(struct clock *c);
bool	sim_clock_node_dead(const struct clock *c);
/* What is pending on it; 0 after a clean close of everything that used it. */
unsigned sim_clock_node_pending(const struct clock *c);
/* Kill and free it; not from one of its own callbacks. NULL is fine. */
void	sim_clock_node_close(struct clock *c);

/* One callback (or one turn of defers). False: nothing is left to happen. */
bool	sim_clock_step(struct sim_clock *w);
/* Everything up to @ns from now; afterwards it is exactly then. */
void	sim_clock_run(struct sim_clock *w, uint64_t ns);
/* Until @done(ctx) or @limit_ns have passed or nothing is left; returns done(ctx). */
bool	sim_clock_run_until(struct sim_clock *w, bool (*done)(void *ctx),
	    void *ctx, uint64_t limit_ns);
/* Until nothing is left, or @limit_ns have passed (then false). */
bool	sim_clock_run_idle(struct sim_clock *w, uint64_t limit_ns);

#endif
