/* SPDX-License-Identifier: MIT */
/* reconcile.h - which replica of a recovering chain lacks what: a merge of their chunk
 * lists, without I/O.
 *
 * Every replica lists its chunks in key order, page by page.  For each chunk the highest
 * version found anywhere, committed or pending, is what all of them will have: a version
 * that was acknowledged is stored on every replica, so it is never lower than that; a
 * version that was not acknowledged may be kept or not, as long as all agree. */
#ifndef CHUNK_RECONCILE_H
#define CHUNK_RECONCILE_H

#include <stdbool.h>
#include <stdint.h>

#include "net/msg_storage.h"

#define CHUNK_RECONCILE_MAX	8u	/* replicas */

/* Where one replica's list has been read to. */
struct chunk_reconcile_list {
	const struct msg_list_row *rows;	/* borrowed until the next page */
	uint32_t n, at;
	bool	 started, more;			/* a page was taken; another follows */
	struct chunk_id last;			/* last chunk of that page */
};

struct chunk_reconcile {
	unsigned n;
	struct chunk_reconcile_list lists[CHUNK_RECONCILE_MAX];
};

enum chunk_reconcile_next {
	RECONCILE_PAGE,		/* replica plan->holder must give its next page first */
	RECONCILE_CHUNK,	/* plan says what to do about one chunk */
	RECONCILE_END		/* all lists are merged */
};

/* What one replica has to do for a chunk. */
enum chunk_reconcile_act {
	RECONCILE_NONE = 0,	/* has it, committed */
	RECONCILE_CONFIRM,	/* has it pending: make it committed */
	RECONCILE_REPLACE,	/* take the bytes of the holder */
	RECONCILE_REMOVE	/* forget the chunk */
};

struct chunk_reconcile_plan {
	struct chunk_id	id;
	uint64_t version;	/* that all will have */
	bool	 removed;	/* it is a removal: nobody will have the chunk */
	bool	 conflict;	/* replicas had different bytes for one version */
	unsigned holder;	/* replica that has the bytes (PAGE: to be asked) */
	uint64_t holder_version;/* under this version */
	uint32_t len, check;	/* of those bytes */
	uint8_t	 act[CHUNK_RECONCILE_MAX];	/* enum chunk_reconcile_act */
};

/* Begin with @n (1..8) replicas and no pages. */
void	chunk_reconcile_init(struct chunk_reconcile *r, unsigned n);
/* The next page of replica @i, whose rows up to now are used up; @rows is borrowed until
 * the page after it.  0; ERR_BAD_MESSAGE when keys do not ascend or a row has no version:
 * then nothing was taken. */
int	chunk_reconcile_page(struct chunk_reconcile *r, unsigned i,
	    const struct msg_list_row *rows, uint32_t n, bool more);
/* Go on to the next chunk that needs something. */
enum chunk_reconcile_next chunk_reconcile_next(struct chunk_reconcile *r,
	    struct chunk_reconcile_plan *plan);

#endif
