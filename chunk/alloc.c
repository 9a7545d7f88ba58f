/* SPDX-License-Identifier: MIT */
/* alloc.c - groups of 16384 blocks, listed by the largest aligned run they have free.
 *
 *   order -1        0     1   ...   13    14
 *         full     4K    8K        32M   64M (empty)
 *          |        |     |         |     |
 *        groups   groups ...
 *
 * Taking a run of 2^k looks at lists k, k+1, ... 14 for the first group: constant work, and
 * one pass over the 256 words of that group's bitmap.
 *
 *   1  A group is in the list of the largest order that it has a free aligned run of.
 *   2  A group's free count is the number of zero bits in its bitmap.
 *   3  A group without a bitmap is empty.
 *   4  used is the sum of taken blocks over all groups, without what was fixed at open.
 * A non-empty group keeps its bitmap (2 KiB) so that giving back never allocates. */
#include "chunk/alloc.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORDS	(CHUNK_GROUP_BLOCKS / 64)
#define ORDERS	15			/* 2^0 .. 2^14 blocks */
#define NONE	UINT32_MAX

struct group {
	uint64_t *bits;			/* 1: in use; NULL: all free */
	uint32_t  prev, next;		/* in its list; NONE ends it */
	uint16_t  free;
	int8_t	  order;		/* its list; -1: full */
};

struct chunk_alloc {
	struct group *groups;
	uint32_t group_n;
	uint32_t heads[ORDERS + 1];	/* [order + 1] */
	uint64_t blocks;		/* of the disk */
	uint64_t fixed;			/* reserved, and past the end of the last group */
	uint64_t used;
};

static void
unlink_group(struct chunk_alloc *a, uint32_t i)
{
	struct group *g = &a->groups[i];

	if (g->prev != NONE)
		a->groups[g->prev].next = g->next;
	else
		a->heads[g->order + 1] = g->next;
	if (g->next != NONE)
		a->groups[g->next].prev = g->prev;
}

static void
link_group(struct chunk_alloc *a, uint32_t i, int order)
{
	struct group *g = &a->groups[i];

	g->order = (int8_t)order;
	g->prev = NONE;
	g->next = a->heads[order + 1];
	if (g->next != NONE)
		a->groups[g->next].prev = i;
	a->heads[order + 1] = i;
}

/* Bits i of @w, i a multiple of 2^k, below which 2^k bits are all zero. */
static uint64_t
free_runs(uint64_t w, unsigned k)
{
	static const uint64_t starts[7] = { ~0ull, 0x5555555555555555ull,
	    0x1111111111111111ull, 0x0101010101010101ull, 0x0001000100010001ull,
	    0x0000000100000001ull, 1ull };
	uint64_t f = ~w;

	for (unsigned i = 0; i < k; i++)
		f &= f >> (1u << i);
	return f & starts[k];
}

/* Words [i, i + n) are all free. */
static bool
words_free(const uint64_t *bits, unsigned i, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		if (bits[i + k] != 0)
			return false;
	return true;
}

/* Block where a free aligned run of 2^@order starts; NONE. */
static uint32_t
find_run(const uint64_t *bits, unsigned order)
{
	if (order <= 6) {
		for (unsigned i = 0; i < WORDS; i++) {
			uint64_t f;

			if (bits[i] == UINT64_MAX)
				continue;
			if ((f = free_runs(bits[i], order)) != 0)
				return i * 64 + (unsigned)__builtin_ctzll(f);
		}
		return NONE;
	}
	for (unsigned n = 1u << (order - 6), i = 0; i < WORDS; i += n)
		if (words_free(bits, i, n))
			return i * 64;
	return NONE;
}

/* Largest order the group has a run of; -1: none. */
static int
largest(const struct group *g)
{
	int best = -1;

	if (g->bits == NULL)
		return ORDERS - 1;
	if (g->free == 0)
		return -1;
	/* Above one word: runs of free words, at their alignment. */
	for (unsigned i = 0; i < WORDS;) {
		unsigned n = 1;

		if (g->bits[i] != 0) {
			i++;
			continue;
		}
		while (i + n < WORDS && i % (2 * n) == 0 && i + 2 * n <= WORDS &&
		    words_free(g->bits, i + n, n))
			n *= 2;
		if (6 + __builtin_ctz(n) > best)
			best = 6 + __builtin_ctz(n);
		i += n;
	}
	/* Within words: only orders that beat what is there. */
	for (unsigned i = 0; best < 6 && i < WORDS; i++) {
		if (g->bits[i] == UINT64_MAX)
			continue;
		while (best < 5 && free_runs(g->bits[i], (unsigned)(best + 1)) != 0)
			best++;
		if (best == 5)
			break;
	}
	return best;
}

static bool
test_bit(const uint64_t *bits, uint32_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

static void
set_range(uint64_t *bits, uint32_t from, uint32_t n, bool used)
{
	while (n > 0) {
		uint32_t at = from % 64, k = 64 - at < n ? 64 - at : n;
		uint64_t mask = (k == 64 ? UINT64_MAX : (1ull << k) - 1) << at;

		if (used) {
			assert((bits[from / 64] & mask) == 0);
			bits[from / 64] |= mask;
		} else {
			assert((bits[from / 64] & mask) == mask);
			bits[from / 64] &= ~mask;
		}
		from += k;
		n -= k;
	}
}

/* Set or clear blocks of one group, and move it to its list. */
static int
change(struct chunk_alloc *a, uint32_t gi, uint32_t from, uint32_t n, bool used)
{
	struct group *g = &a->groups[gi];
	int order;

	if (used && g->bits == NULL &&
	    (g->bits = calloc(WORDS, sizeof(*g->bits))) == NULL)
		return -ENOMEM;
	assert(g->bits != NULL);
	set_range(g->bits, from, n, used);
	if (used) {
		assert(g->free >= n);
		g->free = (uint16_t)(g->free - n);
	} else {
		g->free = (uint16_t)(g->free + n);
		if (g->free == CHUNK_GROUP_BLOCKS) {
			free(g->bits);
			g->bits = NULL;
		}
	}
	order = largest(g);
	if (order != g->order) {
		unlink_group(a, gi);
		link_group(a, gi, order);
	}
	return 0;
}

int
chunk_alloc_open(struct chunk_alloc **out, uint64_t blocks, uint32_t reserved)
{
	struct chunk_alloc *a;
	uint64_t groups = (blocks + CHUNK_GROUP_BLOCKS - 1) / CHUNK_GROUP_BLOCKS;
	uint32_t tail = (uint32_t)(groups * CHUNK_GROUP_BLOCKS - blocks);
	int rc = 0;

	*out = NULL;
	if (groups == 0 || groups >= NONE || reserved >= CHUNK_GROUP_BLOCKS ||
	    reserved >= blocks)
		return -EINVAL;
	if ((a = calloc(1, sizeof(*a))) == NULL)
		return -ENOMEM;
	a->blocks = blocks;
	a->fixed = reserved + tail;
	a->group_n = (uint32_t)groups;
	if ((a->groups = calloc(groups, sizeof(*a->groups))) == NULL) {
		chunk_alloc_close(a);
		return -ENOMEM;
	}
	for (unsigned k = 0; k <= ORDERS; k++)
		a->heads[k] = NONE;
	for (uint32_t i = a->group_n; i-- > 0;) {	/* lowest first in its list */
		a->groups[i].free = CHUNK_GROUP_BLOCKS;
		link_group(a, i, ORDERS - 1);
	}
	if (reserved > 0)
		rc = change(a, 0, 0, reserved, true);
	if (rc == 0 && tail > 0)
		rc = change(a, a->group_n - 1, CHUNK_GROUP_BLOCKS - tail, tail, true);
	if (rc != 0) {
		chunk_alloc_close(a);
		return rc;
	}
	*out = a;
	return 0;
}

void
chunk_alloc_close(struct chunk_alloc *a)
{
	if (a == NULL)
		return;
	for (uint32_t i = 0; a->groups != NULL && i < a->group_n; i++)
		free(a->groups[i].bits);
	free(a->groups);
	free(a);
}

int
chunk_alloc_mark(struct chunk_alloc *a, uint64_t disk, uint32_t count)
{
	if (disk >= a->blocks || count > a->blocks - disk)
		return -ERANGE;
	while (count > 0) {
		uint32_t gi = (uint32_t)(disk / CHUNK_GROUP_BLOCKS);
		uint32_t from = (uint32_t)(disk % CHUNK_GROUP_BLOCKS);
		uint32_t room = CHUNK_GROUP_BLOCKS - from, n = count < room ? count : room;
		int rc;

		for (uint32_t i = 0; a->groups[gi].bits != NULL && i < n; i++)
			if (test_bit(a->groups[gi].bits, from + i))
				return -EEXIST;
		if ((rc = change(a, gi, from, n, true)) != 0)
			return rc;
		a->used += n;
		disk += n;
		count -= n;
	}
	return 0;
}

static unsigned
order_of(uint32_t n)
{
	return n <= 1 ? 0 : 32 - (unsigned)__builtin_clz(n - 1);
}

int
chunk_alloc_take(struct chunk_alloc *a, uint32_t at, uint32_t count,
    struct chunk_extents *out)
{
	size_t had = out->n;
	struct chunk_extent last = had > 0 ? out->v[had - 1] : (struct chunk_extent){ 0 };
	uint32_t left = count, pos = at;
	int rc;

	assert(count > 0);
	if (chunk_alloc_capacity(a) - a->used < count)
		return -ENOSPC;
	while (left > 0) {
		uint32_t want = left < CHUNK_GROUP_BLOCKS ? left : CHUNK_GROUP_BLOCKS;
		unsigned order = order_of(want), k = order;
		struct chunk_extent e = { .at = pos };
		uint32_t gi, from = 0;

		while (k < ORDERS && a->heads[k + 1] == NONE)
			k++;
		if (k == ORDERS) {		/* no run is long enough: the longest */
			for (k = order; a->heads[k + 1] == NONE; k--)
				assert(k > 0);
			order = k;
			if (want > 1u << k)
				want = 1u << k;
		}
		gi = a->heads[k + 1];
		if (a->groups[gi].bits != NULL)
			from = find_run(a->groups[gi].bits, order);
		assert(from != NONE);
		if ((rc = change(a, gi, from, want, true)) != 0)
			goto fail;
		a->used += want;
		e.disk = (uint64_t)gi * CHUNK_GROUP_BLOCKS + from;
		e.count = want;
		if ((rc = chunk_extents_add(out, e)) != 0) {
			chunk_alloc_give(a, e.disk, e.count);
			goto fail;
		}
		left -= want;
		pos += want;
	}
	return 0;
fail:
	/* The first new run may have joined the last old one. */
	if (had > 0 && out->v[had - 1].count > last.count) {
		chunk_alloc_give(a, last.disk + last.count,
		    out->v[had - 1].count - last.count);
		out->v[had - 1] = last;
	}
	while (out->n > had) {
		out->n--;
		chunk_alloc_give(a, out->v[out->n].disk, out->v[out->n].count);
	}
	return rc;
}

void
chunk_alloc_give(struct chunk_alloc *a, uint64_t disk, uint32_t count)
{
	assert(disk < a->blocks && count <= a->blocks - disk);
	while (count > 0) {
		uint32_t gi = (uint32_t)(disk / CHUNK_GROUP_BLOCKS);
		uint32_t from = (uint32_t)(disk % CHUNK_GROUP_BLOCKS);
		uint32_t room = CHUNK_GROUP_BLOCKS - from, n = count < room ? count : room;
		int rc = change(a, gi, from, n, false);

		assert(rc == 0);		/* only taking needs memory */
		assert(a->used >= n);
		a->used -= n;
		disk += n;
		count -= n;
	}
}

uint64_t
chunk_alloc_used(const struct chunk_alloc *a)
{
	return a->used;
}

uint64_t
chunk_alloc_capacity(const struct chunk_alloc *a)
{
	return (uint64_t)a->group_n * CHUNK_GROUP_BLOCKS - a->fixed;
}

bool
chunk_alloc_equal(const struct chunk_alloc *a, const struct chunk_alloc *b)
{
	if (a->blocks != b->blocks || a->fixed != b->fixed || a->used != b->used)
		return false;
	for (uint32_t i = 0; i < a->group_n; i++) {
		const uint64_t *x = a->groups[i].bits, *y = b->groups[i].bits;

		if ((x == NULL) != (y == NULL))
			return false;
		if (x != NULL && memcmp(x, y, WORDS * sizeof(*x)) != 0)
			return false;
	}
	return true;
}

void
chunk_alloc_check(const struct chunk_alloc *a)
{
	uint64_t taken = 0, listed = 0;

	for (uint32_t i = 0; i < a->group_n; i++) {
		const struct group *g = &a->groups[i];
		uint32_t ones = 0;

		for (unsigned w = 0; g->bits != NULL && w < WORDS; w++)
			ones += (uint32_t)__builtin_popcountll(g->bits[w]);
		assert(g->order == largest(g));				/* 1 */
		for (int k = g->order + 1; g->bits != NULL && k < ORDERS; k++)
			assert(find_run(g->bits, (unsigned)k) == NONE);	/* 1 */
		assert(g->free == CHUNK_GROUP_BLOCKS - ones);		/* 2 */
		assert((g->bits == NULL) == (ones == 0));		/* 3 */
		taken += ones;
	}
	for (int k = -1; k < ORDERS; k++)
		for (uint32_t i = a->heads[k + 1]; i != NONE; i = a->groups[i].next) {
			assert(a->groups[i].order == k);		/* 1 */
			listed++;
		}
	assert(listed == a->group_n);
	assert(taken == a->used + a->fixed);				/* 4 */
}
