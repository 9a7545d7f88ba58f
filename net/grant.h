/* SPDX-License-Identifier: MIT */
/* grant.h - how many bytes of reply payload a receiver lets come at once, and from whom.
 *
 * One window of bytes is for all servers that answer one receiver, so that however many
 * they are, no more than it holds is ever under way to it: queues in front of it stay short,
 * and nothing is dropped there.  Pure: no clock, no connection, no memory of its own.
 *
 *	IDLE --try---> CHARGED		with the request: the reply may come at once
 *	IDLE --wait--> WAITING		the server has the reply ready and asks
 *	WAITING -next-> CHARGED		it is its turn: tell the server
 *	CHARGED -idle-> CHARGED		nothing of it moves, until it came
 *	CHARGED -came-> CHARGED		the reply is here or comes; less than was expected
 *	any ---end---> IDLE		whatever ended the call
 *
 * 1. What is charged fits into the window, or is one call that alone is larger.
 * 2. A server that has a call granted gets more while others wait only up to its part: the
 *    window over the servers that hold something or wait, and one more.  What nobody takes for
 *    his part goes to those that want more, while they hold no more than is free, and never
 *    more than half of it (Choudhury and Hahne, "Dynamic queue length thresholds for
 *    shared-memory packet switches", 1998): so of n that take all they can each has about
 *    1/(n+1), and as much is left.  Servers that are slow, or died with their grants, do not
 *    keep the window from those that are well.  What was charged with requests keeps out no
 *    server's only reply that waits: those may wait, at the server, for the memory that this
 *    very reply holds.  What is idle does not count at all, up to another part and a quarter of
 *    the window in all: who has to wait for somebody's word is not to move less for it.
 * 3. Those that wait are served in turn, a quantum of bytes each (deficit round robin:
 *    Shreedhar and Varghese, 1995), each one's calls in the order in which it asked.
 * 4. When the one whose turn it is does not fit, all wait until it does: nobody starves.  What
 *    others hold ends in bounded time, with their calls.
 * 5. Nothing is charged with a request while anybody waits; nor more than half of the window,
 *    and a quarter for one server, as a server that is asked may take long: others have their
 *    replies ready, and so has it, to what was asked for later. */
#ifndef NET_GRANT_H
#define NET_GRANT_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/list.h"

/* Replies up to this are neither counted nor asked for. */
#define NET_GRANT_SMALL	(16u << 10)
/* Bytes that a server is given a round: what one may be ahead of the others by.  A call that
 * is larger takes several, passed over at once. */
#define NET_GRANT_QUANTUM	(64u << 10)

struct net_window {
	uint64_t    size;		/* bytes; 0: no limit */
	uint64_t    charged;		/* of that; may be more only by rule 1 */
	uint64_t    early, idle;	/* of that, with requests, no reply yet; at rest */
	uint32_t    waiting;		/* calls */
	uint32_t    peers;		/* servers that hold something or wait */
	struct list ring;		/* servers that wait, the one whose turn it is first */
};

/* A server. */
struct net_grant_peer {
	struct list node;		/* w->ring, while its queue is not empty */
	struct list queue;
	uint64_t    held;		/* charged for it */
	uint64_t    early, idle;	/* of that, as of the window */
	uint64_t    deficit;		/* bytes it may still be given in its turn */
	bool	    turn;		/* which has begun */
};

enum net_grant_state { NET_GRANT_IDLE, NET_GRANT_WAITING, NET_GRANT_CHARGED };

/* A call; zeroed: IDLE. */
struct net_grant {
	struct list node;		/* the peer's queue */
	struct net_grant_peer *peer;	/* NULL: IDLE */
	uint32_t    bytes;
	bool	    early, idle;
	enum net_grant_state state;
};

void	net_window_init(struct net_window *w, uint64_t size);
void	net_grant_peer_init(struct net_grant_peer *p);

/* Charge @bytes (over 0) with the request.  False: it stays IDLE, and the server has to
 * ask. */
bool	net_grant_try(struct net_window *w, struct net_grant_peer *p,
	    struct net_grant *g, uint32_t bytes);
/* The server asks for @bytes (over 0); @g is IDLE. */
void	net_grant_wait(struct net_window *w, struct net_grant_peer *p,
	    struct net_grant *g, uint32_t bytes);
/* The next one that may send, CHARGED now.  NULL: nobody, until something ends. */
struct net_grant *net_grant_next(struct net_window *w);
/* What is charged does not move for a while; until net_grant_came(). */
void	net_grant_idle(struct net_window *w, struct net_grant *g);
/* The reply has begun to come, @bytes of payload.  One that is WAITING gets none: the server
 * has given up. */
void	net_grant_came(struct net_window *w, struct net_grant *g, uint32_t bytes);
/* What is charged for @g is @to's from here on. One that is IDLE is fine. */
void	net_grant_move(struct net_window *w, struct net_grant *g, struct net_grant_peer *to);
/* Nothing comes any more.  One that is IDLE is fine. */
void	net_grant_end(struct net_window *w, struct net_grant *g);

/* Assert what holds between two calls. */
void	net_grant_check(const struct net_window *w);

#endif
