/* SPDX-License-Identifier: MIT */
/* client_stripe.h - a range of a file as pieces of chunks.  Pure arithmetic; which
 * chain holds a chunk is layout_chain()'s business. */
#ifndef ROLES_CLIENT_STRIPE_H
#define ROLES_CLIENT_STRIPE_H

#include <stdbool.h>
#include <stdint.h>

struct client_stripe {
	uint64_t off, end;	/* what is left of the range */
	uint64_t start;
	uint8_t	 shift;		/* log2 of the chunk size */
	uint32_t most;		/* bound of one piece, a power of two */
};

struct client_piece {
	uint32_t index;		/* chunk */
	uint32_t offset, len;	/* within the chunk, bytes */
	uint64_t pos;		/* from the start of the range, bytes */
};

/* Walk [off, off + len).  Pieces end at chunk ends and at multiples of @most within a
 * chunk (0: only at chunk ends).  0; -EFBIG when the range does not fit in 2^32 chunks. */
int	client_stripe_init(struct client_stripe *s, uint8_t shift, uint64_t off,
	    uint64_t len, uint32_t most);
/* False at the end. */
bool	client_stripe_next(struct client_stripe *s, struct client_piece *out);
/* How many pieces a walk gives that only ends at chunk ends. */
uint64_t client_stripe_count(uint8_t shift, uint64_t off, uint64_t len);

#endif
