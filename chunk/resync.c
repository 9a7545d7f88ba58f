/* SPDX-License-Identifier: MIT */
/* resync.c - merge the chunk lists of two replicas in key order.
 *
 * Invariants:
 *   1  a chunk is named once, in key order, when both lists are past all before it
 *   2  what is called the same had one committed version and digest at both, and nothing
 *	pending at the syncing one, when it was listed there */
#include "chunk/resync.h"

#include <assert.h>
#include <string.h>

#include "conf/err.h"

void
chunk_resync_init(struct chunk_resync *r, const struct chunk_id *after)
{
	memset(r, 0, sizeof(*r));
	for (unsigned i = 0; i < 2; i++) {
		r->lists[i].from_start = after == NULL;
		if (after != NULL)
			r->lists[i].last = *after;
	}
	r->any = after != NULL;
	if (after != NULL)
		r->done = *after;
}

bool
chunk_resync_wants(const struct chunk_resync *r, unsigned i)
{
	const struct chunk_resync_list *l = &r->lists[i];

	return l->at == l->n && (!l->started || l->more);
}

int
chunk_resync_page(struct chunk_resync *r, unsigned i, const struct msg_list_row *rows,
    uint32_t n, bool more)
{
	struct chunk_resync_list *l = &r->lists[i];

	assert(i < 2 && chunk_resync_wants(r, i));
	if (n == 0 && more)
		return ERR_BAD_MESSAGE;
	for (uint32_t k = 0; k < n; k++) {
		const struct chunk_id *before = k > 0 ? &rows[k - 1].chunk :
		    l->from_start ? NULL : &l->last;

		if (before != NULL && chunk_id_cmp(*before, rows[k].chunk) >= 0)
			return ERR_BAD_MESSAGE;
		if (rows[k].committed == 0 && rows[k].pending == 0)
			return ERR_BAD_MESSAGE;
		if (rows[k].pending != 0 && rows[k].pending <= rows[k].committed)
			return ERR_BAD_MESSAGE;
	}
	l->rows = rows;
	l->n = n;
	l->at = 0;
	l->started = true;
	l->more = more;
	if (n > 0) {
		l->last = rows[n - 1].chunk;
		l->from_start = false;
	}
	return 0;
}

/* NULL: it has no such chunk.  Ours counts as committed only; what is pending here is being
 * written, and that write goes to both. */
static bool
same(const struct msg_list_row *ours, const struct msg_list_row *theirs)
{
	if (ours != NULL && ours->committed == 0)
		ours = NULL;
	if (ours == NULL || theirs == NULL)
		return ours == theirs;
	return theirs->pending == 0 && ours->committed == theirs->committed &&
	    ours->len == theirs->len && ours->check == theirs->check;	/* 2 */
}

enum chunk_resync_next
chunk_resync_next(struct chunk_resync *r, struct chunk_id *id,
    const struct msg_list_row **ours)
{
	const struct msg_list_row *row[2] = { NULL, NULL };
	int cmp = 0;

	if (chunk_resync_wants(r, RESYNC_OURS) || chunk_resync_wants(r, RESYNC_THEIRS))
		return RESYNC_PAGE;					/* 1 */
	for (unsigned i = 0; i < 2; i++)
		if (r->lists[i].at < r->lists[i].n)
			row[i] = &r->lists[i].rows[r->lists[i].at];
	if (row[0] == NULL && row[1] == NULL)
		return RESYNC_END;
	if (row[0] != NULL && row[1] != NULL)
		cmp = chunk_id_cmp(row[0]->chunk, row[1]->chunk);
	if (cmp < 0)
		row[1] = NULL;
	else if (cmp > 0)
		row[0] = NULL;
	for (unsigned i = 0; i < 2; i++)
		r->lists[i].at += row[i] != NULL;
	*id = row[0] != NULL ? row[0]->chunk : row[1]->chunk;
	assert(!r->any || chunk_id_cmp(r->done, *id) < 0);		/* 1 */
	r->done = *id;
	r->any = true;
	r->compared++;
	*ours = row[0];
	return same(row[0], row[1]) ? RESYNC_SAME : RESYNC_DIFFERS;
}
