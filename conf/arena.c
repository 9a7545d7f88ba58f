/* SPDX-License-Identifier: MIT */
/* arena.c - buddies in pieces.
 *
 *   order k: blocks of ARENA_MIN << k; a piece that nobody uses is one block
 *
 * Which blocks are free is kept beside the memory, not in it, so that memory which has not
 * been used costs nothing: state[i] tells of the block that begins at page i of its piece.
 * Pieces are on lists by their largest free block, so that none is looked at in vain, and
 * whole ones on one of their own, for they are the last to be split. */
#include "conf/arena.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conf/list.h"
#include "conf/map.h"

#define LEAST	11u			/* order of a piece: 4 KiB << 11 = 8 MiB */
#define ORDERS	15u			/* 4 KiB << 14 = 64 MiB */
#define GROWS	4u			/* a larger piece is not more than 1 / GROWS of all */
#define FREE	0x80u			/* state: a free block of this order begins here */

_Static_assert((size_t)ARENA_MIN << LEAST == ARENA_LEAST, "orders");
_Static_assert((size_t)ARENA_MIN << (ORDERS - 1) == ARENA_MOST, "orders");

struct piece {
	struct list node;
	uint8_t	   *mem;
	void	   *mark;
	size_t	    bytes;
	uint32_t    used;		/* pages */
	uint32_t    orders;		/* bit k: first[k] is not 0 */
	uint32_t    first[ORDERS];	/* free blocks by order: page + 1; 0: none */
	uint32_t   *next, *prev;	/* by page, behind it */
	uint8_t	   *state;
};

struct arena {
	struct arena_owner owner;
	size_t		   keep_bytes, free_bytes;
	size_t		   bytes;		/* of all pieces */
	struct list	   pieces[ORDERS + 1];	/* 0: full; else 1 + order of the largest */
	struct list	   whole;		/* of which nothing is used */
	struct map	   where;		/* by address / ARENA_LEAST: all of a piece */
};

static unsigned
order_of(size_t size)
{
	unsigned k = 0;

	while (((size_t)ARENA_MIN << k) < size)
		k++;
	assert(((size_t)ARENA_MIN << k) == size && k < ORDERS);
	return k;
}

/* ---- free blocks ---- */

static void
push(struct piece *p, uint32_t page, unsigned k)
{
	uint32_t head = p->first[k];

	p->next[page] = head;
	p->prev[page] = 0;
	if (head != 0)
		p->prev[head - 1] = page + 1;
	p->first[k] = page + 1;
	p->orders |= 1u << k;
	p->state[page] = (uint8_t)(FREE | k);
}

static void
take(struct piece *p, uint32_t page, unsigned k)
{
	uint32_t next = p->next[page], prev = p->prev[page];

	if (next != 0)
		p->prev[next - 1] = prev;
	if (prev != 0)
		p->next[prev - 1] = next;
	else
		p->first[k] = next;
	if (p->first[k] == 0)
		p->orders &= ~(1u << k);
	p->state[page] = 0;
}

/* ---- pieces ---- */

static uint64_t
number(const void *at)
{
	return (uintptr_t)at / ARENA_LEAST;
}

static void
unmap_numbers(struct arena *a, const struct piece *p)
{
	for (size_t at = 0; at < p->bytes; at += ARENA_LEAST)
		map_del(&a->where, number(p->mem + at));
}

static int
map_numbers(struct arena *a, struct piece *p)
{
	int rc = 0;

	for (size_t at = 0; at < p->bytes && rc == 0; at += ARENA_LEAST)
		rc = map_put(&a->where, number(p->mem + at), p);
	if (rc != 0)
		unmap_numbers(a, p);
	return rc;
}

/* Its free blocks have changed. */
static void
file(struct arena *a, struct piece *p)
{
	unsigned top = 0;

	while (p->orders >> top != 0)
		top++;
	list_remove(&p->node);
	list_push_front(p->used == 0 ? &a->whole : &a->pieces[top], &p->node);
}

/* Huge pages are promised also where a control group lets us have none: then touching them is a
 * SIGBUS.  Populating is not. */
static bool
is_there(uint8_t *mem, size_t bytes)
{
	uint8_t in[ARENA_MOST / ARENA_MIN];	/* or fewer, where pages are larger */
	size_t n = bytes / (size_t)sysconf(_SC_PAGESIZE);
	bool all = mincore(mem, bytes, in) == 0;

	for (size_t i = 0; i < n && all; i++)
		all = in[i] & 1;
	return all;
}

/* Aligned to its size, so that blocks are aligned to theirs: room for two, and what is around it
 * goes back.  Nobody may touch it yet. */
static uint8_t *
reserve(size_t bytes)
{
	size_t room = 2 * bytes;
	uint8_t *all, *mem;

	all = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
	    -1, 0);
	if (all == MAP_FAILED)
		return NULL;
	mem = (uint8_t *)(((uintptr_t)all + bytes - 1) & ~(uintptr_t)(bytes - 1));
	if (mem > all)
		munmap(all, (size_t)(mem - all));
	if (mem + bytes < all + room)
		munmap(mem + bytes, (size_t)(all + room - mem) - bytes);
	return mem;
}

/* Never in the place of what is mapped: when huge pages are refused that is gone already (seen on
 * Linux 6.18), another thread maps its own there, and who tries again maps over it. */
static uint8_t *
map_huge(size_t bytes)
{
	uint8_t *at = reserve(bytes), *mem;

	if (at == NULL)
		return NULL;
	munmap(at, bytes);
	mem = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
	    MAP_FIXED_NOREPLACE | MAP_HUGETLB | MAP_POPULATE, -1, 0);
	if (mem == MAP_FAILED)
		return NULL;
	/* Before Linux 4.17 the place is no more than a wish. */
	if (mem == at && is_there(mem, bytes))
		return mem;
	munmap(mem, bytes);
	return NULL;
}

static uint8_t *
map_piece(size_t bytes)
{
	uint8_t *mem = map_huge(bytes);

	if (mem != NULL || (mem = reserve(bytes)) == NULL)
		return mem;
	if (mprotect(mem, bytes, PROT_READ | PROT_WRITE) != 0) {
		munmap(mem, bytes);
		return NULL;
	}
	return mem;
}

static void
free_piece(struct arena *a, struct piece *p)
{
	list_remove(&p->node);
	unmap_numbers(a, p);
	a->owner.del(a->owner.ctx, p->mark);
	if (p->used == 0)
		munmap(p->mem, p->bytes);
	a->free_bytes -= p->bytes - (size_t)p->used * ARENA_MIN;
	a->bytes -= p->bytes;
	free(p);
}

/* One block of order @k. */
static struct piece *
add_piece(struct arena *a, unsigned k)
{
	size_t pages = (size_t)1 << k;
	struct piece *p = calloc(1, sizeof(*p) + pages * (2 * sizeof(*p->next) + 1));

	if (p == NULL)
		return NULL;
	p->next = (uint32_t *)(p + 1);
	p->prev = p->next + pages;
	p->state = (uint8_t *)(p->prev + pages);
	p->bytes = pages * ARENA_MIN;
	if ((p->mem = map_piece(p->bytes)) == NULL)
		goto no_memory;
	if (map_numbers(a, p) != 0)
		goto no_map;
	if (a->owner.add(a->owner.ctx, p->mem, p->bytes, &p->mark) != 0)
		goto no_owner;
	list_init(&p->node);
	push(p, 0, k);
	a->free_bytes += p->bytes;
	a->bytes += p->bytes;
	return p;
no_owner:
	unmap_numbers(a, p);
no_map:
	munmap(p->mem, p->bytes);
no_memory:
	free(p);
	return NULL;
}

/* A new one with room for a block of order @k. */
static struct piece *
grow(struct arena *a, unsigned k)
{
	unsigned least = k > LEAST ? k : LEAST, order = least;
	struct piece *p;

	while (order < ORDERS - 1 && (size_t)ARENA_MIN << (order + 1) <= a->bytes / GROWS)
		order++;
	while ((p = add_piece(a, order)) == NULL && order > least)
		order--;
	return p;
}

/* The smallest that is large enough for a block of order @k, NULL: none. */
static struct piece *
find_whole(const struct arena *a, unsigned k)
{
	struct piece *best = NULL;

	list_for_each(l, &a->whole) {
		struct piece *p = list_entry(l, struct piece, node);

		if (p->bytes >= (size_t)ARENA_MIN << k &&
		    (best == NULL || p->bytes < best->bytes))
			best = p;
	}
	return best;
}

/* ---- blocks ---- */

/* It has one that is large enough. */
static void *
get_from(struct piece *p, unsigned k)
{
	unsigned from = k;
	uint32_t page;

	while (p->first[from] == 0)
		from++;
	page = p->first[from] - 1;
	take(p, page, from);
	while (from > k) {
		from--;
		push(p, page + (1u << from), from);
	}
	p->used += 1u << k;
	return p->mem + (size_t)page * ARENA_MIN;
}

void *
arena_get(struct arena *a, size_t size)
{
	unsigned k = order_of(size);
	struct piece *p = NULL;
	void *got;

	for (unsigned top = k + 1; top <= ORDERS && p == NULL; top++)
		if (!list_empty(&a->pieces[top]))
			p = list_entry(a->pieces[top].next, struct piece, node);
	if (p == NULL && (p = find_whole(a, k)) == NULL && (p = grow(a, k)) == NULL)
		return NULL;
	got = get_from(p, k);
	file(a, p);
	a->free_bytes -= size;
	return got;
}

void
arena_put(struct arena *a, void *at, size_t size)
{
	struct piece *p = map_get(&a->where, number(at));
	unsigned k = order_of(size);
	uint32_t page;

	assert(p != NULL);
	page = (uint32_t)(((uint8_t *)at - p->mem) / ARENA_MIN);
	assert(page % (1u << k) == 0 && p->used >= 1u << k);
	p->used -= 1u << k;
	while ((size_t)ARENA_MIN << k < p->bytes && p->state[page ^ (1u << k)] == (FREE | k)) {
		take(p, page ^ (1u << k), k);
		page &= ~(1u << k);
		k++;
	}
	push(p, page, k);
	file(a, p);
	a->free_bytes += size;
	if (p->used == 0 && a->free_bytes >= a->keep_bytes + p->bytes)
		free_piece(a, p);
}

void
arena_keep(struct arena *a, size_t keep_bytes)
{
	a->keep_bytes = keep_bytes;
	if (a->free_bytes < keep_bytes + ARENA_LEAST)
		return;			/* as nearly always */
	list_for_each_safe(l, next, &a->whole) {
		struct piece *p = list_entry(l, struct piece, node);

		if (a->free_bytes >= keep_bytes + p->bytes)
			free_piece(a, p);
	}
}

int
arena_open(struct arena **out, const struct arena_owner *owner, size_t keep_bytes)
{
	struct arena *a = calloc(1, sizeof(*a));

	*out = a;
	if (a == NULL)
		return -ENOMEM;
	a->owner = *owner;
	a->keep_bytes = keep_bytes;
	for (unsigned i = 0; i <= ORDERS; i++)
		list_init(&a->pieces[i]);
	list_init(&a->whole);
	map_init(&a->where);
	return 0;
}

static void
free_all(struct arena *a, struct list *pieces)
{
	while (!list_empty(pieces))
		free_piece(a, list_entry(pieces->next, struct piece, node));
}

void
arena_leave(struct arena *a)
{
	for (unsigned i = 0; i <= ORDERS; i++)
		free_all(a, &a->pieces[i]);
	free_all(a, &a->whole);
	assert(a->where.n == 0 && a->free_bytes == 0 && a->bytes == 0);
	map_fini(&a->where);
	free(a);
}

void
arena_close(struct arena *a)
{
	if (a == NULL)
		return;
	for (unsigned i = 0; i <= ORDERS; i++)
		assert(list_empty(&a->pieces[i]));
	arena_leave(a);
}
