/* SPDX-License-Identifier: MIT */
/* mem.c - free lists per power of two. */
#include "conf/mem.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "conf/arena.h"
#include "conf/err.h"

#define CLASSES 15u			/* 4 KiB << 0 .. 4 KiB << 14 = 64 MiB */
_Static_assert((size_t)MEM_BUF_MIN << (CLASSES - 1) == MEM_BUF_MAX, "classes");

struct free_buf {
	struct free_buf *next;
};

struct mem_pool {
	size_t		 max_bytes, keep_bytes;
	size_t		 used_bytes;	/* out */
	size_t		 kept_bytes;	/* in the free lists */
	size_t		 peak_bytes;	/* most that was out since the last mem_age() */
	size_t		 lately_bytes;	/* and between the two before */
	struct free_buf *free[CLASSES];
	struct arena	*arena;		/* in place of the lists; NULL: none */
	bool		 leaves;	/* what comes back is not ours any more */
};

static unsigned
class_of(size_t len)
{
	unsigned c = 0;

	while (((size_t)MEM_BUF_MIN << c) < len)
		c++;
	return c;
}

/* Free buffers that are worth their memory: as many bytes as are out, or as have come back since
 * a short while ago, for they are likely to be wanted again; never so many that both are
 * over the bound. */
static size_t
keep_max(const struct mem_pool *p)
{
	size_t room = p->used_bytes < p->max_bytes ? p->max_bytes - p->used_bytes : 0;
	size_t keep = p->used_bytes;
	size_t most = p->peak_bytes > p->lately_bytes ? p->peak_bytes : p->lately_bytes;

	if (most - p->used_bytes > keep && p->lately_bytes > 0)
		keep = most - p->used_bytes;
	if (keep > room)
		keep = room;
	return keep > p->keep_bytes ? keep : p->keep_bytes;
}

/* The largest go first: each is as good for others. */
static void
trim(struct mem_pool *p)
{
	for (unsigned c = CLASSES; c-- > 0;) {
		while (p->free[c] != NULL && p->kept_bytes > keep_max(p)) {
			struct free_buf *b = p->free[c];

			p->free[c] = b->next;
			p->kept_bytes -= (size_t)MEM_BUF_MIN << c;
			free(b);
		}
	}
}

int
mem_pool_open(struct mem_pool **out, size_t max_bytes, size_t keep_bytes)
{
	struct mem_pool *p = calloc(1, sizeof(*p));

	*out = p;
	if (p == NULL)
		return -ENOMEM;
	p->max_bytes = max_bytes;
	p->keep_bytes = keep_bytes;
	return 0;
}

int
mem_pool_arena(struct mem_pool *p, const struct arena_owner *owner)
{
	assert(p->used_bytes == 0 && p->kept_bytes == 0 && p->arena == NULL);
	return arena_open(&p->arena, owner, p->keep_bytes);
}

void
mem_pool_leave(struct mem_pool *p)
{
	p->leaves = true;
}

void
mem_pool_close(struct mem_pool *p)
{
	if (p == NULL)
		return;
	assert(p->used_bytes == 0);
	if (p->arena != NULL && p->leaves)
		arena_leave(p->arena);
	else
		arena_close(p->arena);
	for (unsigned c = 0; c < CLASSES; c++) {
		while (p->free[c] != NULL) {
			struct free_buf *b = p->free[c];

			p->free[c] = b->next;
			free(b);
		}
	}
	free(p);
}

static int
get(struct mem_pool *p, size_t len, size_t max_bytes, struct mem_buf *out)
{
	unsigned c;
	size_t size;

	*out = (struct mem_buf){ 0 };
	if (len == 0 || len > MEM_BUF_MAX)
		return -EINVAL;
	c = class_of(len);
	size = (size_t)MEM_BUF_MIN << c;
	if (p->used_bytes + size > max_bytes)
		return ERR_BUSY;
	if (p->arena != NULL) {
		if ((out->p = arena_get(p->arena, size)) == NULL)
			return -ENOMEM;
	} else if (p->free[c] != NULL) {
		out->p = (uint8_t *)p->free[c];
		p->free[c] = p->free[c]->next;
		p->kept_bytes -= size;
	} else if ((out->p = aligned_alloc(MEM_BUF_MIN, size)) == NULL)
		return -ENOMEM;
	out->size = size;
	out->pool = p;
	p->used_bytes += size;
	if (p->used_bytes > p->peak_bytes)
		p->peak_bytes = p->used_bytes;
	if (p->arena == NULL)
		trim(p);		/* what is kept of other sizes */
	return 0;
}

int
mem_get(struct mem_pool *p, size_t len, struct mem_buf *out)
{
	return get(p, len, p->max_bytes, out);
}

int
mem_get_over(struct mem_pool *p, size_t len, struct mem_buf *out)
{
	return get(p, len, SIZE_MAX, out);
}

void
mem_put(struct mem_buf *b)
{
	struct mem_pool *p = b->pool;

	if (p == NULL)
		return;
	assert(p->used_bytes >= b->size);
	p->used_bytes -= b->size;
	if (p->leaves) {
		/* Nobody knows its address any more. */
	} else if (p->arena != NULL) {
		arena_keep(p->arena, keep_max(p));
		arena_put(p->arena, b->p, b->size);
	} else {
		struct free_buf *f = (struct free_buf *)(void *)b->p;
		unsigned c = class_of(b->size);

		f->next = p->free[c];
		p->free[c] = f;
		p->kept_bytes += b->size;
		trim(p);
	}
	*b = (struct mem_buf){ 0 };
}

void
mem_age(struct mem_pool *p)
{
	p->lately_bytes = p->peak_bytes;
	p->peak_bytes = p->used_bytes;
	if (p->arena != NULL)
		arena_keep(p->arena, keep_max(p));
	else
		trim(p);
}

size_t
mem_kept_bytes(const struct mem_pool *p)
{
	return p->kept_bytes;
}

size_t
mem_used_bytes(const struct mem_pool *p)
{
	return p->used_bytes;
}
