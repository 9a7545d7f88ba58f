/* SPDX-License-Identifier: MIT */
/* known.h - what an engine keeps in memory about its index: which chunks have a pending
 * version, and how much every target holds.  Rebuilt when a disk is opened, and from then
 * on exactly what the rows say (chunk_engine_check()). */
#ifndef CHUNK_KNOWN_H
#define CHUNK_KNOWN_H

#include "chunk/index.h"
#include "conf/map.h"
#include "conf/omap.h"

/* Of the committed versions of one target. */
struct chunk_known_count {
	uint64_t chunks, bytes;
};

struct chunk_known {
	struct omap pending;	/* by target, inode, index; no values */
	struct map  targets;	/* target -> chunk_known_count, once it had a chunk */
};

void	chunk_known_init(struct chunk_known *k);
void	chunk_known_fini(struct chunk_known *k);

/* The chunk has a pending version (fine when it is known already), or none any more.
 * 0 or -ENOMEM. */
int	chunk_known_pend(struct chunk_known *k, target_id target, struct chunk_id id);
void	chunk_known_settle(struct chunk_known *k, target_id target, struct chunk_id id);
/* First one >= @from (@after: > @from) of @target. False: there is none. */
bool	chunk_known_next(const struct chunk_known *k, target_id target,
	    struct chunk_id from, bool after, struct chunk_id *out);

/* Room to count @target, to be made before its rows change. 0 or -ENOMEM. */
int	chunk_known_room(struct chunk_known *k, target_id target);
/* Its committed row @was (version 0: none) became @now (NULL: none). */
void	chunk_known_change(struct chunk_known *k, target_id target,
	    const struct chunk_row *was, const struct chunk_row *now);
struct chunk_known_count chunk_known_of(const struct chunk_known *k, target_id target);

/* Both say the same; for check.c. */
bool	chunk_known_equal(const struct chunk_known *a, const struct chunk_known *b);

#endif
