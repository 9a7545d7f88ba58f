/* SPDX-License-Identifier: MIT */
/* manager_chain.h - what becomes of the replicas of a chain when nodes and disks die and
 * come back; pure: a function of a row, of who is alive, and of an event.
 *
 * A replica is alive when its node is up and its disk works.  SERVING ones hold every
 * write that was acknowledged; the tail holds every write that anybody has read.
 *
 *   from     what happens                                    to
 *   SERVING  gone, others serve on                           OFFLINE
 *   SERVING  gone, was the tail when the last of them went   LASTSRV
 *   SERVING  gone together with that tail                    OFFLINE
 *   SERVING  out of its preferred place, two others serve    OFFLINE
 *   LASTSRV  back: it has everything, and serves alone       SERVING
 *   LASTSRV  the operator gives it up                        OFFLINE
 *   SYNCING  gone                                            OFFLINE
 *   SYNCING  nobody is left to copy from                     WAITING
 *   SYNCING  has everything now                              SERVING
 *   SYNCING  cannot take what it is sent: it is held         OFFLINE
 *   SERVING  has no space for what others have: held, too    OFFLINE
 *   WAITING  gone                                            OFFLINE
 *   WAITING  its turn: somebody serves, nobody syncs         SYNCING
 *   WAITING  the operator takes what it has for everything   SERVING
 *   OFFLINE  back, and its turn                              SYNCING
 *   OFFLINE  back                                            WAITING
 *   (the last three not while it is held and another serves)
 *   SERVING  cut from a neighbour, others serve on           APART
 *   SYNCING  cut from the one that syncs it                  APART
 *   APART    gone                                            OFFLINE
 *   APART    nobody serves that it could be apart from       WAITING
 *   APART    can be reached again                            as if back
 *   any but LASTSRV and the only one that serves:
 *            another replica takes its place                 OFFLINE
 *
 * Several of these may follow one another in one step: a process that was started again
 * between two looks is gone first and back then.
 * Source: 3FS docs/design_notes.md, "Data replication". */
#ifndef ROLES_MANAGER_CHAIN_H
#define ROLES_MANAGER_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/ids.h"
#include "net/routing.h"

enum manager_chain_event {
	MANAGER_CHAIN_LOOK,	/* nothing but who is alive */
	MANAGER_CHAIN_SYNCED,	/* @target has everything that the tail has */
	MANAGER_CHAIN_ROTATE,	/* @target is to come back behind the others */
	MANAGER_CHAIN_PART,	/* @target is cut from another one; until JOIN */
	MANAGER_CHAIN_JOIN,	/* and no more */
	MANAGER_CHAIN_ACCEPT,	/* operator: what @target has is everything */
	MANAGER_CHAIN_REPLACE,	/* operator: @with in the place of @target */
	MANAGER_CHAIN_UNFIT	/* @target, which syncs, does not take what it is sent; or which
				 * serves, has no space for it */
};
struct manager_chain_input {
	enum manager_chain_event event;
	target_id target, with;
	bool	  with_alive;
	bool	  alive[ROUTING_REPLICAS_MAX];	/* of c->targets[i] */
	bool	  reborn[ROUTING_REPLICAS_MAX];	/* another process than before: all that
					 * the one before had not made durable is gone */
	bool	  held[ROUTING_REPLICAS_MAX];	/* was UNFIT, is not to be tried now */
};

/* Make @c (its id set) the row of a new chain: all replicas hold the same, nothing. */
void	manager_chain_init(struct routing_chain *c, const target_id *targets,
	    unsigned n);
/* What becomes of @c.  Looks first, then does what the event says, then looks again.
 *
 * 0 when any replica changed its state, even if it changed back: c->version rises by
 * one; -EALREADY when nothing did.  Otherwise @c is as it was: -ENOENT, @target is not in
 * the chain; ERR_STALE_CHAIN, SYNCED or UNFIT for one that does not sync
 * (UNFIT: nor serves beside others); -EINVAL, @with is in it
 * already or 0; -EBUSY, the event must not happen now: see the table. */
int	manager_chain_step(struct routing_chain *c,
	    const struct manager_chain_input *in);
/* Whether it would, and why not; nothing is changed. */
int	manager_chain_check(const struct routing_chain *c,
	    const struct manager_chain_input *in);
/* Who should ROTATE so that the order gets nearer to the preferred one; 0: nobody. */
target_id manager_chain_misplaced(const struct routing_chain *c);

/* Lines of the table and how often each was taken in this process, for tests that want to
 * have seen all of them.  NULL after the last. */
struct manager_chain_line {
	enum target_state from, to;
	const char *what;
	uint64_t    taken;
};
const struct manager_chain_line *manager_chain_line(unsigned i);

#endif
