/* SPDX-License-Identifier: MIT */
/* pace.h - how much copies to a returning replica may take beside clients, without a clock.
 *
 * A worker says when requests of clients and copies begin and end, and asks before each copy.
 * The answers depend on nothing else: the same calls get the same ones. */
#ifndef CHUNK_PACE_H
#define CHUNK_PACE_H

#include <stdint.h>

/* When a call is made, and by what rule. */
struct chunk_pace_at {
	uint64_t now_ns;		/* never goes back */
	uint64_t wall_ns;		/* wall time: nodes pause together by it */
	unsigned share;			/* what copies may take from clients, 1..100 percent */
};

/* Zeroed at first.  Work is bytes, and a fixed cost for every request or copy. */
struct chunk_pace {
	uint64_t at_ns;			/* all before it is accounted for */
	unsigned state;			/* since then; the next four since it began: */
	uint64_t state_ns, state_cost;	/* time; work of clients, */
	uint64_t state_n, sync_cost;	/* requests of them, work of copies */
	uint64_t quiet_ns;		/* since when no copy begins; 0: they may */
	uint64_t quiet_left_ns, begin_ns;	/* for how long; not before */
	unsigned fore_n;		/* requests of clients under way */
	uint64_t fore_last_ns;
	uint64_t look_s, look_n;	/* clients without copies: work a second, requests */
	uint64_t alone_s, could_s;	/* the lesser, the greater of the last two */
	uint64_t beside_s, sync_s;	/* clients with copies; these */
	uint64_t free_s;		/* copies without clients */
	uint64_t peak;			/* work a second the worker was seen to do */
	uint64_t rate;			/* of copies; 0: no limit */
	uint64_t asked_ns, token_ns;
	int64_t	 tokens;
	uint64_t copy_bytes;		/* of copies under way */
	uint64_t copy_us, ended;	/* of a tick: these bytes times microseconds; those
					 * that ended */
	uint64_t lag_ns;		/* a copy is under way, lately */
};

/* A client's request has begun, or ended after @bytes. */
void	chunk_pace_fore_begin(struct chunk_pace *p, const struct chunk_pace_at *at);
void	chunk_pace_fore_end(struct chunk_pace *p, const struct chunk_pace_at *at,
	    uint64_t bytes);
/* May a copy of about @bytes begin now: 0, and it counts as begun until chunk_pace_end() is
 * told the same bytes; else when to ask again. */
uint64_t chunk_pace_wait(struct chunk_pace *p, const struct chunk_pace_at *at,
	    uint64_t bytes);
void	chunk_pace_end(struct chunk_pace *p, const struct chunk_pace_at *at, uint64_t bytes);

#endif
