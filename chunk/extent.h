/* SPDX-License-Identifier: MIT */
/* extent.h - where the blocks of a chunk lie: ascending runs, without I/O.
 * A block that no extent covers is a hole and reads as zeros. */
#ifndef CHUNK_EXTENT_H
#define CHUNK_EXTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* @count blocks of 4 KiB from block @at of the chunk lie from block @disk of the disk. */
struct chunk_extent {
	uint32_t at;
	uint32_t count;		/* over 0 */
	uint64_t disk;		/* over 0 */
};

/* A list that grows.  Zero it before the first use; ends with chunk_extents_fini(). */
struct chunk_extents {
	struct chunk_extent *v;
	size_t n, cap;
};

void	chunk_extents_fini(struct chunk_extents *x);
/* Append; joins the last one where it goes on in chunk and on disk. 0 or -ENOMEM. */
int	chunk_extents_add(struct chunk_extents *x, struct chunk_extent e);

/* Blocks [@from, @to) of @x, appended to @out. 0 or -ENOMEM. */
int	chunk_extents_cut(const struct chunk_extents *x, uint32_t from, uint32_t to,
	    struct chunk_extents *out);

/* First block at or after @from that is not covered, when @from is covered; else @from. */
uint32_t chunk_extents_run_end(const struct chunk_extents *x, uint32_t from);

/* The list after a change: blocks of @base below @keep that @over does not cover, and
 * those of @over.  Appends to @out, and to @freed (NULL: not wanted) what is left of
 * @base.  @freed is in no chunk any more: its at is 0.  0 or -ENOMEM. */
int	chunk_extents_overlay(const struct chunk_extents *base, uint32_t keep,
	    const struct chunk_extents *over, struct chunk_extents *out,
	    struct chunk_extents *freed);

/* Blocks in all of them. */
uint64_t chunk_extents_blocks(const struct chunk_extents *x);

/* Ascending, not overlapping, inside @blocks blocks of chunk and @disk_blocks of disk. */
bool	chunk_extents_valid(const struct chunk_extents *x, uint32_t blocks,
	    uint64_t disk_blocks);

#endif
