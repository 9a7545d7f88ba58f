/* SPDX-License-Identifier: MIT */
/* craq_impl.h - between craq.c (chunks, effects, the chain) and craq_op.c (what an operation
 * does next); nobody else includes it. */
#ifndef CHUNK_CRAQ_IMPL_H
#define CHUNK_CRAQ_IMPL_H

#include "chunk/craq.h"

/* of op->state */
enum { QUEUED, LOOKING, LOADING, FETCHING, PURGING, RUNNING, ENDED };
/* of op->store */
enum { S_NONE, S_BUSY, S_RETRY, S_OK, S_FAILED };
/* of op->forward; F_LOAD_WAIT: our store comes first; F_LOADING: our stored copy is read,
 * to be sent whole */
enum { F_NONE, F_BUSY, F_WAIT, F_LOAD_WAIT, F_LOADING, F_DONE, F_REFUSED, F_GAVE_UP };

/* A chunk that is being worked on, or whose successors may be ahead of us. */
struct chunk_craq_entry {
	struct chunk_craq_target *target;
	struct chunk_id id;
	struct chunk_craq_entry *next;	/* in the bucket, or free */
	struct list	ops;		/* first come, first served */
	unsigned	ops_n;
	struct list	in_doubts;
	uint64_t	doubt;		/* version that may be behind us; 0: none */
	uint32_t	doubt_epoch;
	bool		doubt_removed;
};

/* ---- craq.c ---- */
/* Ask the owner for an effect. */
void	chunk_craq_want(struct chunk_craq *c, struct chunk_craq_op *op,
	    enum chunk_craq_eff what);
/* It has the chunk: have the owner tell how that is. */
void	chunk_craq_look(struct chunk_craq *c, struct chunk_craq_op *op);
/* End @op and let the next one at the chunk. */
void	chunk_craq_finish(struct chunk_craq *c, struct chunk_craq_op *op, int rc);
/* The version @op is about may be behind us, and is not here. */
void	chunk_craq_set_doubt(struct chunk_craq_op *op);
void	chunk_craq_clear_doubt(struct chunk_craq_entry *e);
bool	chunk_craq_may_doubt(const struct chunk_craq_target *t);

/* ---- craq_op.c: one event each ---- */
void	chunk_craq_have(struct chunk_craq *c, struct chunk_craq_op *op,
	    const struct chunk_craq_event *ev);
void	chunk_craq_loaded(struct chunk_craq *c, struct chunk_craq_op *op,
	    const struct chunk_craq_event *ev);
void	chunk_craq_stored(struct chunk_craq *c, struct chunk_craq_op *op,
	    const struct chunk_craq_event *ev);
void	chunk_craq_forwarded(struct chunk_craq *c, struct chunk_craq_op *op,
	    const struct chunk_craq_event *ev);
void	chunk_craq_woken(struct chunk_craq *c, struct chunk_craq_op *op);
/* The chain has moved on from under @op: start nothing more, end soon. */
void	chunk_craq_end_stale(struct chunk_craq *c, struct chunk_craq_op *op);

#endif
