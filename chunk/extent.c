/* SPDX-License-Identifier: MIT */
/* extent.c - lists are short (one run for a chunk written at once), so walks are linear. */
#include "chunk/extent.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "chunk/format.h"

void
chunk_extents_fini(struct chunk_extents *x)
{
	free(x->v);
	*x = (struct chunk_extents){ 0 };
}

int
chunk_extents_add(struct chunk_extents *x, struct chunk_extent e)
{
	assert(e.count > 0);
	if (x->n > 0) {
		struct chunk_extent *last = &x->v[x->n - 1];

		if (last->at + last->count == e.at && last->disk + last->count == e.disk) {
			last->count += e.count;
			return 0;
		}
	}
	if (x->n == x->cap) {
		size_t cap = x->cap == 0 ? 4 : x->cap * 2;
		struct chunk_extent *v = realloc(x->v, cap * sizeof(*v));

		if (v == NULL)
			return -ENOMEM;
		x->v = v;
		x->cap = cap;
	}
	x->v[x->n++] = e;
	return 0;
}

int
chunk_extents_cut(const struct chunk_extents *x, uint32_t from, uint32_t to,
    struct chunk_extents *out)
{
	int rc;

	for (size_t i = 0; i < x->n && x->v[i].at < to; i++) {
		struct chunk_extent e = x->v[i];
		uint32_t end = e.at + e.count < to ? e.at + e.count : to;
		uint32_t skip = e.at < from ? from - e.at : 0;

		if (e.at + skip >= end)
			continue;
		e.at += skip;
		e.disk += skip;
		e.count = end - e.at;
		if ((rc = chunk_extents_add(out, e)) != 0)
			return rc;
	}
	return 0;
}

uint32_t
chunk_extents_run_end(const struct chunk_extents *x, uint32_t from)
{
	for (size_t i = 0; i < x->n && x->v[i].at <= from; i++)
		if (x->v[i].at + x->v[i].count > from)
			from = x->v[i].at + x->v[i].count;
	return from;
}

/* Part [from, to) of @e, to @out under its own place or, for space that is given up,
 * under none. */
static int
part(struct chunk_extents *out, const struct chunk_extent *e, uint32_t from, uint32_t to,
    bool place)
{
	struct chunk_extent p = { .at = from, .count = to - from,
	    .disk = e->disk + (from - e->at) };

	if (out == NULL || to <= from)
		return 0;
	if (!place)
		p.at = 0;
	return chunk_extents_add(out, p);
}

int
chunk_extents_overlay(const struct chunk_extents *base, uint32_t keep,
    const struct chunk_extents *over, struct chunk_extents *out,
    struct chunk_extents *freed)
{
	size_t j = 0;
	int rc;

	for (size_t i = 0; i < base->n; i++) {
		const struct chunk_extent *b = &base->v[i];
		uint32_t pos = b->at, end = b->at + b->count;
		uint32_t stay = end < keep ? end : keep;

		/* Those of @over that end before it. */
		while (j < over->n && over->v[j].at + over->v[j].count <= pos)
			if ((rc = chunk_extents_add(out, over->v[j++])) != 0)
				return rc;
		while (pos < stay) {
			const struct chunk_extent *o = j < over->n ? &over->v[j] : NULL;
			uint32_t until, covered;

			until = o != NULL && o->at < stay ? o->at : stay;
			if (until > pos) {
				if ((rc = part(out, b, pos, until, true)) != 0)
					return rc;
				pos = until;
				continue;
			}
			/* @o covers @pos; it may go on over the next of @base. */
			covered = o->at + o->count < end ? o->at + o->count : end;
			if ((rc = part(freed, b, pos, covered, false)) != 0)
				return rc;
			pos = covered;
			if (o->at + o->count > end)
				break;
			if ((rc = chunk_extents_add(out, *o)) != 0)
				return rc;
			j++;
		}
		if ((rc = part(freed, b, pos, end, false)) != 0)
			return rc;
	}
	for (; j < over->n; j++)
		if ((rc = chunk_extents_add(out, over->v[j])) != 0)
			return rc;
	return 0;
}

uint64_t
chunk_extents_blocks(const struct chunk_extents *x)
{
	uint64_t n = 0;

	for (size_t i = 0; i < x->n; i++)
		n += x->v[i].count;
	return n;
}

bool
chunk_extents_valid(const struct chunk_extents *x, uint32_t blocks, uint64_t disk_blocks)
{
	uint32_t at = 0;

	for (size_t i = 0; i < x->n; i++) {
		const struct chunk_extent *e = &x->v[i];

		if (e->count == 0 || e->at < at || e->at >= blocks ||
		    e->count > blocks - e->at || e->disk < CHUNK_RESERVED_BLOCKS ||
		    e->disk >= disk_blocks || e->count > disk_blocks - e->disk)
			return false;
		at = e->at + e->count;
	}
	return true;
}
