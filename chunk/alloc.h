/* SPDX-License-Identifier: MIT */
/* alloc.h - which blocks of a disk are in use: bitmaps in memory, without I/O.
 *
 * Space is cut into groups of 64 MiB.  A request is served, where possible, by one run that
 * starts at a multiple of its size rounded up to a power of two (4 KiB..64 MiB), taken
 * from a group with the least room that still fits; only when no group has such a run is
 * it split.  The state is rebuilt from the index at open with chunk_alloc_mark(). */
#ifndef CHUNK_ALLOC_H
#define CHUNK_ALLOC_H

#include "chunk/extent.h"

#define CHUNK_GROUP_BLOCKS	16384u	/* 64 MiB */

struct chunk_alloc;

/* @blocks in all; the first @reserved are never given out. 0, -ENOMEM, -EINVAL. */
int	chunk_alloc_open(struct chunk_alloc **out, uint64_t blocks, uint32_t reserved);
void	chunk_alloc_close(struct chunk_alloc *a);	/* NULL is fine */

/* Take blocks that are known to be in use.  0; -EEXIST when one is already; -ERANGE;
 * -ENOMEM.  After an error part of it may be marked: only for open and checks. */
int	chunk_alloc_mark(struct chunk_alloc *a, uint64_t disk, uint32_t count);

/* Take @count blocks (over 0) for chunk blocks @at.., appended to @out, in as few runs as
 * can be found.  0; -ENOSPC; -ENOMEM: nothing is taken then, @out is as it was. */
int	chunk_alloc_take(struct chunk_alloc *a, uint32_t at, uint32_t count,
	    struct chunk_extents *out);

/* Give back blocks that are in use (asserted); never fails. */
void	chunk_alloc_give(struct chunk_alloc *a, uint64_t disk, uint32_t count);

/* Blocks in use, without the reserved ones; and how many there are to use. */
uint64_t chunk_alloc_used(const struct chunk_alloc *a);
uint64_t chunk_alloc_capacity(const struct chunk_alloc *a);

/* The same blocks are in use in both. */
bool	chunk_alloc_equal(const struct chunk_alloc *a, const struct chunk_alloc *b);

/* Assert the numbered invariants of alloc.c. */
void	chunk_alloc_check(const struct chunk_alloc *a);

#endif
