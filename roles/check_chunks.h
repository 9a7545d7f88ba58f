/* SPDX-License-Identifier: MIT */
/* check_chunks.h - what check_chunks.c and check_suspect.c share; nobody else includes it. */
#ifndef ROLES_CHECK_CHUNKS_H
#define ROLES_CHECK_CHUNKS_H

#include "roles/check_impl.h"

#define CHECK_PAGE_ROWS		512u
#define CHECK_CHAIN_TRIES	50u	/* times that one chain may move under us */
#define CHECK_ROUND_NS		(2 * NS_PER_S)
#define CHECK_PIECE		(1u << 20)	/* bytes read at a time */

enum check_judgement { RIGHT, DIFFERS, UNSETTLED, ORPHAN, MISPLACED };

/* What one replica says about one chunk; committed 0: it has none. */
struct check_view {
	uint64_t committed, pending;
	uint32_t check, len;
};

struct check_suspect {
	chain_id	chain;
	uint8_t		how;		/* enum check_judgement; RIGHT: it was cleared */
	struct chunk_id id;
	uint64_t	versions;	/* of all replicas, mixed; 0: not looked at again */
};

struct check_replica {
	struct check_chunks *w;
	struct net_call	call;
	struct net_addr	addr;
	struct msg_list_row rows[CHECK_PAGE_ROWS];
	uint32_t	n, at;
	bool		started, more;
	struct chunk_id	last;
};

struct check_chunks {
	struct check   *c;
	chain_id	chain;		/* the last one begun */
	struct routing_chain row;	/* as routing had it then */
	unsigned	n;		/* replicas that serve */
	unsigned	asking, tries;
	int		rc;
	struct check_replica replicas[ROUTING_REPLICAS_MAX];
	/* looking again */
	bool		again;
	unsigned	round;
	uint32_t	at;		/* suspect */
	uint32_t	suspect_n;
	uint64_t	dropped;	/* suspects there was no room for */
	uint64_t	mark, dropped_mark;	/* chunks, dropped before this chain */
	/* one that is mended */
	uint64_t	number;		/* of the repair */
	bool		failed;		/* part of it was not done */
	unsigned	replica;	/* that is read, or mended */
	unsigned	good;		/* the one that is right */
	uint32_t	offset;
	struct check_view views[ROUTING_REPLICAS_MAX];
	bool		damaged[ROUTING_REPLICAS_MAX];	/* its bytes fail their checksums */
	uint8_t	       *piece;
	struct iovec	iov;
	struct check_suspect suspects[CHECK_SUSPECTS];
};

/* ---- check_chunks.c ---- */
/* Take what routing says about chain @id. 0; -EAGAIN: nobody serves, or is known. */
int	check_chunks_aim(struct check_chunks *w, chain_id id);
/* A page of at most @max rows; check_suspect_looked() or the walk goes on with it. */
void	check_chunks_ask(struct check_chunks *w, struct check_replica *r, uint32_t max);
enum check_judgement check_chunks_judge(struct check_chunks *w, struct chunk_id id,
	    const struct check_view *v);
bool	check_view_same(const struct check_view *a, const struct check_view *b);

/* ---- check_suspect.c ---- */
/* All chains were walked: look at the suspects again; then check_chunks_done(). */
void	check_suspects_start(struct check_chunks *w);
/* The pages that were asked for are there. */
void	check_suspect_looked(struct check_chunks *w);
/* Go on with the next suspect, or the same one. */
void	check_suspect_next(struct check_chunks *w);

/* ---- check_differs.c ---- */
/* The suspect at w->at, seen as w->views, is wrong: have it put right, then
 * check_suspect_next().  false: nothing can be done. */
bool	check_differs_start(struct check_chunks *w);

#endif
