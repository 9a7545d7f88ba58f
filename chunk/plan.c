/* SPDX-License-Identifier: MIT */
/* plan.c - the cases of a change, in terms of old length L, offset and end.
 *
 *   off < L             overwrite: checksum blocks that hold old bytes move to new space
 *   off >= L, same      append into the last checksum block, or right behind it: in place
 *   checksum block      where the chunk has room there, the block's prefix is kept
 *   off >= L, later     a gap: slack in it is dropped, so that it reads as zeros
 *
 * In place is legal only when nobody can still want the bytes behind L: not when the
 * row is sealed, and not over another pending version.  Otherwise the last block moves
 * to new space and what slack there was is dropped. */
#include "chunk/plan.h"

#include <assert.h>
#include <string.h>

#include "conf/crc32c.h"

#define ALL	UINT32_MAX

static uint32_t
down(uint32_t v, uint32_t unit)
{
	return v & ~(unit - 1);
}

static uint32_t
up(uint32_t v, uint32_t unit)
{
	return (v + unit - 1) & ~(unit - 1);
}

static uint32_t
min32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* The checksum block at @at as an edge; one that is there already is shared. */
static int
edge(struct chunk_plan *p, const struct chunk_row *c, uint32_t at, bool read)
{
	struct chunk_edge *e = &p->edge[p->edge_n];

	for (unsigned i = 0; i < p->edge_n; i++)
		if (p->edge[i].at == at)
			return (int)i;
	assert(p->edge_n < 2);
	e->at = at;
	e->valid = min32(p->old_len - at, p->sum);
	e->crc = c->crcs[at / p->sum];
	e->read = read;
	return (int)p->edge_n++;
}

static void
overwrite(struct chunk_plan *p, const struct chunk_row *c, bool in_place)
{
	uint32_t last = up(p->old_len, CHUNK_BLOCK);

	p->img = down(p->off, p->sum);
	p->first = p->img / p->sum;
	if (p->off > p->img)
		p->head = edge(p, c, p->img, true);
	if (p->end < p->old_len) {
		p->img_end = min32(up(p->end, p->sum), last);
		if (p->end % p->sum != 0)
			p->tail = edge(p, c, down(p->end, p->sum), true);
	} else
		p->img_end = up(p->end, CHUNK_BLOCK);
	if (in_place && p->img_end > last) {
		p->stay = last / CHUNK_BLOCK;
		p->stay_end = chunk_extents_run_end(&c->extents, p->stay);
	}
	/* The old last block stays where it is: what is behind L in it too. */
	if (!in_place && p->img_end < last && p->old_len % CHUNK_BLOCK != 0)
		p->flags |= CHUNK_ROW_SEALED;
}

static void
append(struct chunk_plan *p, const struct chunk_row *c, bool in_place)
{
	uint32_t tail = down(p->old_len, p->sum), last = up(p->old_len, CHUNK_BLOCK);
	bool partial = p->old_len % p->sum != 0;

	p->img_end = up(p->end, CHUNK_BLOCK);
	p->first = tail / p->sum;
	if (partial)
		p->tail_crc = c->crcs[p->first];
	if (partial && p->off < tail + p->sum) {
		p->img = in_place ? down(p->old_len, CHUNK_BLOCK) : tail;
		p->head = edge(p, c, tail, p->img < p->old_len);
	} else {
		p->img = down(p->off, CHUNK_BLOCK);
		if (p->img > last)
			p->keep = last / CHUNK_BLOCK;	/* the gap: no slack there */
		if (p->old_len % CHUNK_BLOCK != 0 &&
		    chunk_extents_run_end(&c->extents, p->old_len / CHUNK_BLOCK) !=
		    p->old_len / CHUNK_BLOCK) {
			p->fix = in_place ? down(p->old_len, CHUNK_BLOCK) : tail;
			p->fix_end = last;
			edge(p, c, tail, true);
			p->fix_stays = in_place;
			if (in_place)
				p->flags |= CHUNK_ROW_INPLACE;
		}
	}
	if (in_place && p->img <= last) {
		p->stay = p->img / CHUNK_BLOCK;
		p->stay_end = chunk_extents_run_end(&c->extents, p->stay);
	}
}

/* Appends to a chunk that grows leave room, so that it ends up in few runs. */
static void
leave_room(struct chunk_plan *p, uint8_t shift)
{
	uint32_t blocks = p->img_end / CHUNK_BLOCK, goal = 1;

	if (p->old_len == 0 || p->end <= p->old_len || p->stay_end >= blocks ||
	    p->img > up(p->old_len, CHUNK_BLOCK))
		return;
	while (goal < blocks)
		goal *= 2;
	p->slack = min32(goal, (1u << shift) / CHUNK_BLOCK) - blocks;
}

static void
truncate_to(struct chunk_plan *p, const struct chunk_row *c, bool in_place)
{
	uint32_t at = down(p->new_len, p->sum);

	p->first = chunk_blocks(p->new_len, p->sum);
	if (p->new_len == p->old_len) {
		if (!in_place) {
			p->keep = up(p->new_len, CHUNK_BLOCK) / CHUNK_BLOCK;
			if (p->new_len % CHUNK_BLOCK != 0)
				p->flags |= CHUNK_ROW_SEALED;
		}
		return;
	}
	p->keep = up(p->new_len, CHUNK_BLOCK) / CHUNK_BLOCK;
	if (p->new_len % CHUNK_BLOCK != 0)
		p->flags |= CHUNK_ROW_SEALED;
	if (p->new_len > at) {
		p->first = at / p->sum;
		p->crc_n = 1;
		p->tail = edge(p, c, at, true);
	}
}

void
chunk_plan_make(struct chunk_plan *p, uint8_t kind, uint8_t shift, uint32_t off,
    uint32_t len, const struct chunk_row *c, int pend_flags)
{
	bool in_place = c->version > 0 && !(c->flags & CHUNK_ROW_SEALED) &&
	    pend_flags < 0;

	*p = (struct chunk_plan){ .sum = chunk_sum_bytes(shift), .head = -1, .tail = -1,
	    .keep = ALL };
	if (c->version > 0 && kind != UPDATE_REPLACE) {
		assert(c->shift == shift);
		p->old_len = c->len;
	}
	/* What the version it replaces has left behind L stays untrusted. */
	if (pend_flags >= 0 && kind != UPDATE_REPLACE)
		p->flags |= (uint8_t)pend_flags & CHUNK_ROW_INPLACE;
	switch (kind) {
	case UPDATE_WRITE:
		assert(len > 0 && off <= (1u << shift) && len <= (1u << shift) - off);
		p->off = off;
		p->end = off + len;
		p->new_len = p->end > p->old_len ? p->end : p->old_len;
		if (!in_place)
			p->keep = up(p->old_len, CHUNK_BLOCK) / CHUNK_BLOCK;
		if (off < p->old_len)
			overwrite(p, c, in_place);
		else
			append(p, c, in_place);
		if (p->stay_end > p->img_end / CHUNK_BLOCK)
			p->stay_end = p->img_end / CHUNK_BLOCK;
		if (p->stay_end > p->stay)
			p->flags |= CHUNK_ROW_INPLACE;
		else
			p->stay = p->stay_end = 0;
		leave_room(p, shift);
		p->crc_n = (p->end - 1) / p->sum - p->first + 1;
		break;
	case UPDATE_REPLACE:
		assert(len <= 1u << shift);
		p->end = p->new_len = len;
		p->img_end = up(len, CHUNK_BLOCK);
		p->keep = 0;
		p->crc_n = chunk_blocks(len, p->sum);
		p->flags |= CHUNK_ROW_DEDUPE_ALL;
		break;
	case UPDATE_TRUNCATE:
		p->new_len = min32(off, p->old_len);
		truncate_to(p, c, in_place);
		break;
	case UPDATE_REMOVE:
		p->keep = 0;
		p->flags |= CHUNK_ROW_REMOVED;
		break;
	default:
		assert(!"kind");
	}
	p->keep = min32(p->keep, (1u << shift) / CHUNK_BLOCK);
}

/* Of the bytes of checksum block [@at, ...) before the payload. */
static uint32_t
sum_before(const struct chunk_plan *p, uint32_t at, const uint8_t *const edges[2])
{
	if (p->off >= p->old_len && at < p->old_len)
		return crc32c_zeros(p->tail_crc, p->off - p->old_len);
	if (p->head >= 0)
		return crc32c(0, edges[p->head], p->off - at);
	return crc32c_zeros(0, p->off - at);
}

void
chunk_plan_sum(const struct chunk_plan *p, uint32_t *crcs, const uint8_t *const edges[2])
{
	if (p->end == p->off) {			/* no payload: a cut block, or nothing */
		if (p->crc_n > 0) {
			uint32_t at = p->first * p->sum;

			assert(p->crc_n == 1 && p->tail >= 0);
			crcs[0] = crc32c(0, edges[p->tail], p->new_len - at);
		}
		return;
	}
	for (uint32_t i = 0; i < p->crc_n; i++) {
		uint32_t at = (p->first + i) * p->sum;
		uint32_t stop = min32(at + p->sum, p->new_len);
		uint32_t to = min32(p->end, at + p->sum);

		if (at + p->sum <= p->off) {	/* the gap before the payload */
			crcs[i] = at < p->old_len ?
			    crc32c_zeros(p->tail_crc, at + p->sum - p->old_len) :
			    crc32c_zeros(0, p->sum);
			continue;
		}
		if (at < p->off)
			crcs[i] = crc32c_combine(sum_before(p, at, edges), crcs[i],
			    to - p->off);
		if (to < stop) {
			assert(p->tail >= 0);
			crcs[i] = crc32c(crcs[i], edges[p->tail] + (to - at), stop - to);
		}
	}
}
