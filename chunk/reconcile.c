/* SPDX-License-Identifier: MIT */
/* reconcile.c - merge the chunk lists of all replicas in key order.
 *
 * For one chunk, over all replicas:
 *	pick	the highest version anywhere
 *	holders	replicas whose newest version it is; the rest lack it
 * Holders should agree on its bytes.  Where they do not (a version whose number went to
 * two stores that were both lost with their head), one is taken: what some replica has
 * committed, because a reader may have seen it; bytes rather than a removal, because a
 * chunk is made anew after its removal, not before; what more replicas have; the one
 * nearer to the head.  It becomes a new version, over both.
 *
 * Invariants:
 *   1  a chunk is planned once, in key order, after every replica's list is past it
 *   2  a plan's version is not under any version found
 *   3  the holder of a plan that replaces has bytes, and replaces only in a conflict */
#include "chunk/reconcile.h"

#include <assert.h>
#include <string.h>

#include "conf/err.h"

void
chunk_reconcile_init(struct chunk_reconcile *r, unsigned n)
{
	assert(n >= 1 && n <= CHUNK_RECONCILE_MAX);
	memset(r, 0, sizeof(*r));
	r->n = n;
}

int
chunk_reconcile_page(struct chunk_reconcile *r, unsigned i,
    const struct msg_list_row *rows, uint32_t n, bool more)
{
	struct chunk_reconcile_list *l = &r->lists[i];

	assert(i < r->n);
	assert(l->at == l->n);
	for (uint32_t k = 0; k < n; k++) {
		const struct chunk_id *before = k > 0 ? &rows[k - 1].chunk :
		    l->started ? &l->last : NULL;

		if (before != NULL && chunk_id_cmp(*before, rows[k].chunk) >= 0)
			return ERR_BAD_MESSAGE;
		if (rows[k].committed == 0 && rows[k].pending == 0)
			return ERR_BAD_MESSAGE;
		if (rows[k].pending != 0 && rows[k].pending <= rows[k].committed)
			return ERR_BAD_MESSAGE;
	}
	if (n == 0 && more)
		return ERR_BAD_MESSAGE;
	l->rows = rows;
	l->n = n;
	l->at = 0;
	l->more = more;
	if (n > 0) {
		l->last = rows[n - 1].chunk;
		l->started = true;
	} else if (!l->started) {
		l->started = true;
		l->last = (struct chunk_id){ 0, 0 };
	}
	return 0;
}

static uint64_t
newest(const struct msg_list_row *row)
{
	return row->pending != 0 ? row->pending : row->committed;
}

static bool
same(const struct msg_list_row *a, const struct msg_list_row *b)
{
	if (a->removed || b->removed)
		return a->removed && b->removed;
	return a->len == b->len && a->check == b->check;
}

/* True when holder @a is taken over holder @b; see the top. */
static bool
better(const struct msg_list_row *const *rows, unsigned n, uint64_t version,
    const struct msg_list_row *a, const struct msg_list_row *b)
{
	bool committed_a = false, committed_b = false;
	unsigned count_a = 0, count_b = 0;

	for (unsigned i = 0; i < n; i++) {
		if (rows[i] == NULL || newest(rows[i]) != version)
			continue;
		if (same(rows[i], a)) {
			count_a++;
			committed_a |= rows[i]->committed == version;
		}
		if (same(rows[i], b)) {
			count_b++;
			committed_b |= rows[i]->committed == version;
		}
	}
	if (committed_a != committed_b)
		return committed_a;
	if (!a->removed != !b->removed)
		return !a->removed;
	return count_a > count_b;
}

/* @rows[i]: what replica i has, NULL: nothing. */
static void
plan_chunk(const struct msg_list_row *const *rows, unsigned n,
    struct chunk_reconcile_plan *plan)
{
	const struct msg_list_row *take = NULL;
	uint64_t version = 0;

	memset(plan->act, RECONCILE_NONE, sizeof(plan->act));
	plan->conflict = false;
	for (unsigned i = 0; i < n; i++)
		if (rows[i] != NULL && newest(rows[i]) > version)
			version = newest(rows[i]);
	for (unsigned i = 0; i < n; i++) {
		if (rows[i] == NULL || newest(rows[i]) != version)
			continue;
		if (take == NULL) {
			take = rows[i];
			plan->holder = i;
		} else if (!same(rows[i], take)) {
			plan->conflict = true;
			if (better(rows, n, version, rows[i], take)) {
				take = rows[i];
				plan->holder = i;
			}
		} else if (rows[i]->committed == version &&
		    take->committed != version) {
			take = rows[i];
			plan->holder = i;
		}
	}
	assert(take != NULL);
	plan->removed = take->removed != 0;
	plan->version = version + plan->conflict;		/* 2 */
	plan->holder_version = version;
	plan->len = take->len;
	plan->check = take->check;
	for (unsigned i = 0; i < n; i++) {
		bool has = rows[i] != NULL && newest(rows[i]) == version;

		if (plan->removed)
			plan->act[i] = rows[i] == NULL ? RECONCILE_NONE :
			    RECONCILE_REMOVE;
		else if (plan->conflict || !has)
			plan->act[i] = RECONCILE_REPLACE;
		else if (rows[i]->committed == version)
			plan->act[i] = RECONCILE_NONE;
		else
			plan->act[i] = RECONCILE_CONFIRM;
	}
}

static bool
idle(const struct chunk_reconcile_plan *plan, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (plan->act[i] != RECONCILE_NONE)
			return false;
	return true;
}

enum chunk_reconcile_next
chunk_reconcile_next(struct chunk_reconcile *r, struct chunk_reconcile_plan *plan)
{
	const struct msg_list_row *rows[CHUNK_RECONCILE_MAX];

	for (;;) {
		const struct msg_list_row *first = NULL;

		for (unsigned i = 0; i < r->n; i++) {
			struct chunk_reconcile_list *l = &r->lists[i];

			if (l->at < l->n) {
				if (first == NULL || chunk_id_cmp(
				    l->rows[l->at].chunk, first->chunk) < 0)
					first = &l->rows[l->at];
			} else if (!l->started || l->more) {
				plan->holder = i;		/* 1 */
				return RECONCILE_PAGE;
			}
		}
		if (first == NULL)
			return RECONCILE_END;
		plan->id = first->chunk;
		for (unsigned i = 0; i < r->n; i++) {
			struct chunk_reconcile_list *l = &r->lists[i];

			rows[i] = NULL;
			if (l->at < l->n && chunk_id_cmp(l->rows[l->at].chunk,
			    plan->id) == 0)
				rows[i] = &l->rows[l->at++];
		}
		plan_chunk(rows, r->n, plan);
		if (!idle(plan, r->n))
			return RECONCILE_CHUNK;
	}
}
