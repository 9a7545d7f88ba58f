/* SPDX-License-Identifier: MIT */
/* arena.h - powers of two out of large pieces of memory, each of which somebody is told of
 * once: a device that must know the memory it moves.
 *
 * A binary buddy allocator (Knowlton 1965): a block is split in halves until it fits, and
 * halves that are both free become one again.  Pieces are ARENA_LEAST bytes, or as large as the
 * block that is wanted, and larger as there are more of them, so that who does little has
 * little, and who has much tells of few.  They are of huge pages when the system has any to
 * spare. */
#ifndef CONF_ARENA_H
#define CONF_ARENA_H

#include <stddef.h>
#include <stdint.h>

#define ARENA_LEAST	(8u << 20)	/* a piece, and the largest one */
#define ARENA_MOST	(64u << 20)
#define ARENA_MIN	4096u

struct arena;

/* Told of a new piece, and before it goes.  add: 0, or -errno when the piece is not to be
 * used; *mark is handed to del. */
struct arena_owner {
	int  (*add)(void *ctx, void *p, size_t n, void **mark);
	void (*del)(void *ctx, void *mark);
	void  *ctx;
};

/* @keep_bytes: so much stays when it is free.  0 or -ENOMEM. */
int	arena_open(struct arena **out, const struct arena_owner *owner, size_t keep_bytes);
/* From now on so much stays; what is free beyond that goes. */
void	arena_keep(struct arena *a, size_t keep_bytes);
/* All blocks must be back. NULL is fine. */
void	arena_close(struct arena *a);
/* Close it with blocks that will never be back: their pieces are told as gone, and stay. */
void	arena_leave(struct arena *a);
/* @size: a power of two, ARENA_MIN to ARENA_MOST.  A block aligned to its size, or NULL. */
void   *arena_get(struct arena *a, size_t size);
void	arena_put(struct arena *a, void *p, size_t size);

#endif
