/* SPDX-License-Identifier: MIT */
/* plan.h - what one change to a chunk has to read, allocate and write, without I/O.
 *
 *	            img                                 img_end
 *	chunk ..... | edge | payload, in the caller's buffer | edge | .....
 *	            old bytes   ^off                  end^     old bytes
 *
 * The image is whole blocks of 4 KiB.  Its parts before and after the caller's blocks are
 * old bytes of the same checksum block (an edge), read and verified first. */
#ifndef CHUNK_PLAN_H
#define CHUNK_PLAN_H

#include "chunk/index.h"

/* A checksum block whose old bytes are needed. */
struct chunk_edge {
	uint32_t at;		/* first byte, in the chunk */
	uint32_t valid;		/* old bytes in it; zeros follow */
	uint32_t crc;		/* of the valid ones */
	bool	 read;		/* false: only zeros are wanted of it */
};

struct chunk_plan {
	uint32_t sum;		/* bytes of a checksum block */
	uint32_t old_len, new_len;
	uint32_t off, end;	/* payload */
	uint32_t img, img_end;	/* bytes; equal: no data is written */
	int	 head, tail;	/* index into edge, for the parts around it; -1: none */
	struct chunk_edge edge[2];
	unsigned edge_n;
	uint32_t tail_crc;	/* of the old last checksum block, when it is partial */
	/* The old last block, whose rest must become zeros; equal: nothing. Bytes. */
	uint32_t fix, fix_end;
	bool	 fix_stays;	/* it is written where it is */
	/* Blocks that go into space the chunk has already: [stay, stay_end). */
	uint32_t stay, stay_end;
	uint32_t slack;		/* blocks to add behind the image for later appends */
	/* For the pending row. */
	uint32_t keep, first, crc_n;
	uint8_t	 flags;
};

/* Plan @kind (enum update_kind) at @off, @len over committed row @c (version 0: none),
 * while a pending row with flags @pend_flags is there (-1: none).  Bounds of off, len
 * and shift are the caller's business (asserted). */
void	chunk_plan_make(struct chunk_plan *p, uint8_t kind, uint8_t shift, uint32_t off,
	    uint32_t len, const struct chunk_row *c, int pend_flags);

/* Turn the crcs of the payload's part of each checksum block into those of the blocks.
 *
 *   crcs   [0, crc_n) for checksum blocks first, first + 1, ...; those the payload
 *          touches hold the crc of its part
 *   edges  the bytes of edge[i], sum of them, verified */
void	chunk_plan_sum(const struct chunk_plan *p, uint32_t *crcs,
	    const uint8_t *const edges[2]);

#endif
