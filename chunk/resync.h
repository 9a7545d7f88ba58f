/* SPDX-License-Identifier: MIT */
/* resync.h - what a returning replica lacks: a merge of two chunk lists, without I/O.
 *
 * The last serving replica and the one that syncs behind it list their chunks in key order,
 * page by page.  A chunk needs nothing when both have committed the same version with the
 * same digest and the syncing one has nothing pending there; any other has to be made equal,
 * by an operation that takes its turn at the chunk.  Writes go on meanwhile: they reach both,
 * so a row that is older than the chunk by now costs a needless copy at worst. */
#ifndef CHUNK_RESYNC_H
#define CHUNK_RESYNC_H

#include <stdbool.h>
#include <stdint.h>

#include "net/msg_storage.h"

enum { RESYNC_OURS, RESYNC_THEIRS };

/* How far one list has been read. */
struct chunk_resync_list {
	const struct msg_list_row *rows;	/* borrowed until the next page */
	uint32_t n, at;
	bool	 started, more;		/* a page was taken; another follows */
	struct chunk_id last;		/* the next page begins behind it */
	bool	 from_start;		/* or at the very first chunk */
};

struct chunk_resync {
	struct chunk_resync_list lists[2];
	struct chunk_id done;		/* all chunks up to it have been compared */
	bool	 any;			/* there is a done */
	uint64_t compared;		/* how many, since init */
};

enum chunk_resync_next {
	RESYNC_PAGE,		/* a list has run out: give pages, see chunk_resync_wants() */
	RESYNC_SAME,		/* chunk @id is the same at both */
	RESYNC_DIFFERS,		/* chunk @id has to be made equal */
	RESYNC_END		/* both lists are merged */
};

/* Begin behind @after; NULL: at the first chunk. */
void	chunk_resync_init(struct chunk_resync *r, const struct chunk_id *after);
/* List @i needs its next page: the rows are used up and there are more. */
bool	chunk_resync_wants(const struct chunk_resync *r, unsigned i);
/* Take it; @rows is borrowed until the page after it.  0; ERR_BAD_MESSAGE when keys do not
 * ascend, a row has no version, or an empty page promises more: then nothing was taken. */
int	chunk_resync_page(struct chunk_resync *r, unsigned i,
	    const struct msg_list_row *rows, uint32_t n, bool more);
/* Go on by one chunk. @ours: our row of it, NULL: we have none. */
enum chunk_resync_next chunk_resync_next(struct chunk_resync *r, struct chunk_id *id,
	    const struct msg_list_row **ours);

#endif
