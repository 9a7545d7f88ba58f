/* SPDX-License-Identifier: MIT */
/* mem.h - aligned I/O buffers out of a bounded pool, one pool per loop.
 * Sizes are powers of two from 4 KiB to 64 MiB; freed buffers are kept per size and
 * reused: as many bytes as are out or were lately, within the bound, and keep_bytes at least, for
 * pages that come from the system and go back each time cost as much as the data in them.  Over
 * the bound a get fails, and the request that wanted it answers ERR_BUSY. */
#ifndef CONF_MEM_H
#define CONF_MEM_H

#include <stddef.h>
#include <stdint.h>

#define MEM_BUF_MIN	4096u
#define MEM_BUF_MAX	(64u << 20)

struct arena_owner;
struct mem_pool;

struct mem_buf {
	uint8_t	        *p;		/* 4096-aligned */
	size_t		 size;		/* usable bytes; power of two */
	struct mem_pool *pool;		/* NULL: this buf holds nothing */
};

/* @max_bytes bounds all buffers that are out, and those with what is kept for them; @keep_bytes
 * are kept when none is. */
int	mem_pool_open(struct mem_pool **out, size_t max_bytes, size_t keep_bytes);
/* Take the buffers from large pieces that @owner is told of (conf/arena.h), for devices that
 * must know memory; before the first one.  0 or -ENOMEM. */
int	mem_pool_arena(struct mem_pool *p, const struct arena_owner *owner);
/* Buffers that come back from here on are left to a dying device: it may read or write them for
 * ever, so they are never freed, nor anybody else's. */
void	mem_pool_leave(struct mem_pool *p);
/* All buffers must be back. NULL is fine. */
void	mem_pool_close(struct mem_pool *p);
/* A buffer of at least @len bytes, contents undefined.  0; ERR_BUSY over the
 * bound; -ENOMEM; -EINVAL when @len is 0 or over MEM_BUF_MAX. */
int	mem_get(struct mem_pool *p, size_t len, struct mem_buf *out);
/* The same, whatever is out: for what must go on so that others can end. */
int	mem_get_over(struct mem_pool *p, size_t len, struct mem_buf *out);
/* Give back; a buf that holds nothing is fine.  *b holds nothing afterwards. */
void	mem_put(struct mem_buf *b);
/* Called now and then, by who has a clock: lately is since the call before the last one. */
void	mem_age(struct mem_pool *p);
size_t	mem_used_bytes(const struct mem_pool *p);
size_t	mem_kept_bytes(const struct mem_pool *p);	/* free, and not the system's */

#endif
