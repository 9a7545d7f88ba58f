/* SPDX-License-Identifier: MIT */
/* arena.c - buddies in pieces.
 *
 *   order k: blocks of ARENA_MIN << k; a piece is one block of the highest order
 *
 * Which blocks are free is kept beside the memory, not in it, so that memory which has not
 * been used costs nothing: state[i] tells of the block that begins at page i of its piece.
 * Pieces are on lists by their largest free block, so that none is looked at in vain, and
 * whole ones are the last to be split. */
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

#define PAGES	(ARENA_PIECE / ARENA_MIN)
#define ORDERS	15u			/* 4 KiB << 14 = 64 MiB */
#define FREE	0x80u			/* state: a free block of this order begins here */

_Static_assert((size_t)ARENA_MIN << (ORDERS - 1) == ARENA_PIECE, "orders");

struct piece {
	struct list node;
	uint8_t	   *mem;
	void	   *mark;
	uint32_t    used;		/* pages */
	uint32_t    orders;		/* bit k: first[k] is not 0 */
	uint32_t    first[ORDERS];	/* free blocks by order: page + 1; 0: none */
	uint32_t    next[PAGES], prev[PAGES];
	uint8_t	    state[PAGES];
};

struct arena {
	struct arena_owner owner;
	size_t		   keep_bytes, free_bytes;
	struct list	   pieces[ORDERS + 1];	/* 0: full; else 1 + order of the largest */
	struct map	   where;		/* by address / ARENA_PIECE */
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
	return (uintptr_t)at / ARENA_PIECE;
}

/* Its free blocks have changed. */
static void
file(struct arena *a, struct piece *p)
{
	unsigned top = 0;

	while (p->orders >> top != 0)
		top++;
	list_remove(&p->node);
	list_push_front(&a->pieces[top], &p->node);
}

/* Huge pages are promised also where a control group lets us have none: then touching them is a
 * SIGBUS.  Populating is not. */
static bool
is_there(uint8_t *mem)
{
	uint8_t in[PAGES];		/* or fewer, where they are larger */
	size_t n = ARENA_PIECE / (size_t)sysconf(_SC_PAGESIZE);
	bool all = mincore(mem, ARENA_PIECE, in) == 0;

	for (size_t i = 0; i < n && all; i++)
		all = in[i] & 1;
	return all;
}

/* Aligned to its size, so that blocks are aligned to theirs. */
static uint8_t *
map_piece(void)
{
	size_t room = 2 * (size_t)ARENA_PIECE;
	uint8_t *all, *mem;

	all = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
	    -1, 0);
	if (all == MAP_FAILED)
		return NULL;
	mem = (uint8_t *)(((uintptr_t)all + ARENA_PIECE - 1) &
	    ~(uintptr_t)(ARENA_PIECE - 1));
	if (mem > all)
		munmap(all, (size_t)(mem - all));
	if (mem + ARENA_PIECE < all + room)
		munmap(mem + ARENA_PIECE, (size_t)(all + room - mem - ARENA_PIECE));
	if (mmap(mem, ARENA_PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
	    MAP_FIXED | MAP_HUGETLB | MAP_POPULATE, -1, 0) != MAP_FAILED && is_there(mem))
		return mem;
	if (mmap(mem, ARENA_PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
	    MAP_FIXED, -1, 0) == MAP_FAILED) {
		munmap(mem, ARENA_PIECE);
		return NULL;
	}
	return mem;
}

static void
free_piece(struct arena *a, struct piece *p)
{
	list_remove(&p->node);
	map_del(&a->where, number(p->mem));
	a->owner.del(a->owner.ctx, p->mark);
	if (p->used == 0)
		munmap(p->mem, ARENA_PIECE);
	a->free_bytes -= ARENA_PIECE - (size_t)p->used * ARENA_MIN;
	free(p);
}

static struct piece *
add_piece(struct arena *a)
{
	struct piece *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	if ((p->mem = map_piece()) == NULL)
		goto no_memory;
	if (map_put(&a->where, number(p->mem), p) != 0)
		goto no_map;
	if (a->owner.add(a->owner.ctx, p->mem, ARENA_PIECE, &p->mark) != 0)
		goto no_owner;
	list_init(&p->node);
	push(p, 0, ORDERS - 1);
	a->free_bytes += ARENA_PIECE;
	return p;
no_owner:
	map_del(&a->where, number(p->mem));
no_map:
	munmap(p->mem, ARENA_PIECE);
no_memory:
	free(p);
	return NULL;
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
	if (p == NULL && (p = add_piece(a)) == NULL)
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
	while (k < ORDERS - 1 && p->state[page ^ (1u << k)] == (FREE | k)) {
		take(p, page ^ (1u << k), k);
		page &= ~(1u << k);
		k++;
	}
	push(p, page, k);
	file(a, p);
	a->free_bytes += size;
	if (p->used == 0 && a->free_bytes >= a->keep_bytes + ARENA_PIECE)
		free_piece(a, p);
}

void
arena_keep(struct arena *a, size_t keep_bytes)
{
	struct list *whole = &a->pieces[ORDERS];

	a->keep_bytes = keep_bytes;
	while (!list_empty(whole) && a->free_bytes >= keep_bytes + ARENA_PIECE)
		free_piece(a, list_entry(whole->next, struct piece, node));
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
	map_init(&a->where);
	return 0;
}

void
arena_leave(struct arena *a)
{
	for (unsigned i = 0; i <= ORDERS; i++)
		while (!list_empty(&a->pieces[i]))
			free_piece(a, list_entry(a->pieces[i].next, struct piece, node));
	assert(a->where.n == 0 && a->free_bytes == 0);
	map_fini(&a->where);
	free(a);
}

void
arena_close(struct arena *a)
{
	if (a == NULL)
		return;
	for (unsigned i = 0; i < ORDERS; i++)
		assert(list_empty(&a->pieces[i]));
	arena_leave(a);
}
