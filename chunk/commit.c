/* SPDX-License-Identifier: MIT */
/* commit.c - flips of versions, group commits of the index, and what becomes of space.
 *
 *   in use --flip, abort--> limbo --commit durable, older reads done--> free
 *
 * A flip writes the new committed row and deletes the pending one; both are in one batch
 * unless memory runs out in between, which breaks the engine.  Even then a later open
 * copes: it drops a pending row whose version is the committed one. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "chunk/state.h"
#include "conf/err.h"

/* ---- group commits ---- */

void
chunk_group_start(struct chunk_engine *e, struct chunk_group *g, table_commit_fn *fn)
{
	g->engine = e;
	g->seq = ++e->commit_seq;
	e->dirty = false;
	clock_timer_stop(e->conf.clock, &e->lazy_timer);
	table_commit(e->table, &g->commit, fn);
}

struct chunk_engine *
chunk_group_ended(struct table_commit *c)
{
	struct chunk_group *g = container_of(c, struct chunk_group, commit);
	struct chunk_engine *e = g->engine;

	if (c->rc != 0)
		chunk_engine_break(e, c->rc, "index commit");
	else if (g->seq > e->durable_seq) {
		assert(g->seq <= e->commit_seq);
		e->durable_seq = g->seq;
		stat_add(&e->stat.commits, 1);
	}
	return e;
}

static void
lazy_done(struct table_commit *c)
{
	struct chunk_engine *e = chunk_group_ended(c);

	e->lazy_busy = false;
	if (e->lazy_again && e->broken == 0)
		chunk_commit_now(e);
	chunk_limbo_release(e);
	chunk_done_run(e);
}

void
chunk_commit_now(struct chunk_engine *e)
{
	e->lazy_again = e->lazy_busy;
	if (e->lazy_busy || e->broken != 0)
		return;
	e->lazy_busy = true;
	chunk_group_start(e, &e->lazy, lazy_done);
}

static void
lazy_fire(struct clock_timer *t)
{
	struct chunk_engine *e = container_of(t, struct chunk_engine, lazy_timer);

	if (e->dirty)
		chunk_commit_now(e);
}

void
chunk_commit_soon(struct chunk_engine *e)
{
	if (e->dirty)
		return;
	e->dirty = true;
	clock_timer_start(e->conf.clock, &e->lazy_timer,
	    clock_now(e->conf.clock) + CHUNK_LAZY_MS * NS_PER_MS, lazy_fire);
}

static void
flush_run(struct chunk_done *d)
{
	struct chunk_engine *e = container_of(d, struct chunk_engine, flush_end);
	chunk_engine_fn *fn = e->flush_fn;

	e->flush_fn = NULL;
	fn(e->flush_ctx, e->flush_rc);
}

static void
flush_done(struct table_commit *c)
{
	struct chunk_engine *e = chunk_group_ended(c);

	e->flush_rc = e->broken;
	chunk_done_push(e, &e->flush_end);
	chunk_limbo_release(e);
	chunk_done_run(e);
}

void
chunk_engine_flush(struct chunk_engine *e, chunk_engine_fn *fn, void *ctx)
{
	assert(e->open);
	assert(e->flush_fn == NULL);		/* one at a time */
	e->flush_fn = fn;
	e->flush_ctx = ctx;
	e->flush_rc = e->broken;
	e->flush_end.run = flush_run;
	if (e->broken != 0)
		chunk_done_push(e, &e->flush_end);
	else
		chunk_group_start(e, &e->flush, flush_done);
}

void
chunk_commit_init(struct chunk_engine *e)
{
	list_init(&e->limbo);
}

void
chunk_commit_fini(struct chunk_engine *e)
{
	struct list *n;

	clock_timer_stop(e->conf.clock, &e->lazy_timer);
	while ((n = list_pop_front(&e->limbo)) != NULL)
		chunk_limbo_free(list_entry(n, struct chunk_limbo, node));
}

/* ---- space on its way to be free ---- */

struct chunk_limbo *
chunk_limbo_make(void)
{
	return calloc(1, sizeof(struct chunk_limbo));
}

void
chunk_limbo_free(struct chunk_limbo *l)
{
	if (l != NULL)
		chunk_extents_fini(&l->extents);
	free(l);
}

void
chunk_limbo_add(struct chunk_engine *e, struct chunk_limbo *l)
{
	if (l->extents.n == 0) {
		chunk_limbo_free(l);
		return;
	}
	l->commit_seq = e->commit_seq + 1;
	l->read_seq = e->read_seq;
	e->limbo_blocks += chunk_extents_blocks(&l->extents);
	list_push_back(&e->limbo, &l->node);
}

void
chunk_limbo_release(struct chunk_engine *e)
{
	uint64_t oldest = chunk_get_oldest(e);
	bool some = false;

	while (!list_empty(&e->limbo)) {
		struct chunk_limbo *l = list_entry(e->limbo.next, struct chunk_limbo, node);

		if (l->commit_seq > e->durable_seq || l->read_seq >= oldest)
			break;
		for (size_t i = 0; i < l->extents.n; i++)
			chunk_alloc_give(e->alloc, l->extents.v[i].disk,
			    l->extents.v[i].count);
		e->limbo_blocks -= chunk_extents_blocks(&l->extents);
		list_remove(&l->node);
		chunk_limbo_free(l);
		some = true;
	}
	if ((some || e->broken != 0) && !list_empty(&e->to_space))
		chunk_put_space(e);
}

/* ---- flips ---- */

/* Nothing of the committed version is left in the one that replaces it. */
static bool
all_new(const struct chunk_pend *p)
{
	return p->flags & CHUNK_ROW_REMOVED || (p->keep == 0 && p->first == 0 &&
	    p->crc_n == chunk_blocks(p->len, chunk_sum_bytes(p->shift)));
}

/* The rows of a chunk that has pending version @version, into e->row and e->pend. */
static int
load(struct chunk_engine *e, target_id target, struct chunk_id id, uint64_t version)
{
	int rc;

	if (e->broken != 0)
		return e->broken;
	if (chunk_put_busy(e, target, id))
		return ERR_BUSY;
	if ((rc = chunk_index_get_pend(&e->index, target, id, true, &e->pend)) != 0)
		return chunk_engine_index_rc(e, rc);
	if (e->pend.version != version)
		return -ENOENT;
	rc = chunk_index_get(&e->index, target, id, true, &e->row);
	return rc == -ENOENT ? 0 : chunk_engine_index_rc(e, rc);
}

/* After the first of several changes: there is no way back. */
static int
changed(struct chunk_engine *e, int rc)
{
	if (rc != 0)
		chunk_engine_break(e, rc, "index change");
	chunk_commit_soon(e);
	return rc == 0 ? 0 : e->broken;
}

static int
append_all(struct chunk_extents *to, const struct chunk_extents *from)
{
	int rc = 0;

	for (size_t i = 0; i < from->n && rc == 0; i++)
		rc = chunk_extents_add(to, (struct chunk_extent){
		    .count = from->v[i].count, .disk = from->v[i].disk });
	return rc;
}

int
chunk_engine_commit(struct chunk_engine *e, target_id target, struct chunk_id id,
    uint64_t version)
{
	struct chunk_limbo *l;
	bool removed;
	int rc;

	if ((rc = load(e, target, id, version)) != 0)
		return rc;
	removed = e->pend.flags & CHUNK_ROW_REMOVED;
	if ((rc = chunk_known_room(&e->known, target)) != 0)
		return rc;
	if ((l = chunk_limbo_make()) == NULL)
		return -ENOMEM;
	if (removed)
		rc = e->row.version == 0 ? 0 : append_all(&l->extents, &e->row.extents);
	else
		rc = chunk_row_apply(&e->row, &e->pend, &e->next, &l->extents);
	if (rc != 0) {
		chunk_limbo_free(l);
		return chunk_engine_index_rc(e, rc);
	}
	if (!removed)
		rc = chunk_index_put(&e->index, target, id, &e->next, e->row.stored);
	else if (e->row.version > 0)
		rc = chunk_index_del(&e->index, CHUNK_KEY_COMMITTED, target, id,
		    e->row.stored);
	if (rc != 0) {				/* nothing has changed yet */
		chunk_limbo_free(l);
		return rc;
	}
	chunk_known_change(&e->known, target, &e->row, removed ? NULL : &e->next);
	if (removed)
		chunk_damage_forget(e, target, id);
	else if (all_new(&e->pend))
		chunk_damage_commit(e, target, id, version);
	rc = chunk_index_del(&e->index, CHUNK_KEY_PENDING, target, id, e->pend.stored);
	if (rc == 0)
		chunk_known_settle(&e->known, target, id);
	chunk_limbo_add(e, l);
	return changed(e, rc);
}

/* Bytes behind the committed length are those of a version that may come back until the
 * next durable commit: nothing may be appended over them. */
static int
seal(struct chunk_engine *e, target_id target, struct chunk_id id,
    struct chunk_limbo *l)
{
	static const struct chunk_extents none;
	struct chunk_extents was = e->row.extents;
	uint32_t keep = chunk_blocks(e->row.len, CHUNK_BLOCK);
	int rc;

	e->row.extents = e->next.extents;	/* swapped: both are scratch */
	e->row.extents.n = 0;
	e->next.extents = was;
	rc = chunk_extents_overlay(&was, keep, &none, &e->row.extents, &l->extents);
	if (rc != 0)
		return rc;
	if (e->row.len % CHUNK_BLOCK != 0)
		e->row.flags |= CHUNK_ROW_SEALED;
	return chunk_index_put(&e->index, target, id, &e->row, e->row.stored);
}

int
chunk_engine_abort(struct chunk_engine *e, target_id target, struct chunk_id id,
    uint64_t version)
{
	struct chunk_limbo *l;
	int rc;

	if ((rc = load(e, target, id, version)) != 0)
		return rc;
	if ((l = chunk_limbo_make()) == NULL)
		return -ENOMEM;
	rc = append_all(&l->extents, &e->pend.extents);
	if (rc == 0 && e->pend.flags & CHUNK_ROW_INPLACE && e->row.version > 0)
		rc = seal(e, target, id, l);
	if (rc != 0) {
		chunk_limbo_free(l);
		return rc;
	}
	rc = chunk_index_del(&e->index, CHUNK_KEY_PENDING, target, id, e->pend.stored);
	if (rc == 0)
		chunk_known_settle(&e->known, target, id);
	chunk_damage_pend(e, target, id, 0, 0);
	chunk_limbo_add(e, l);
	return changed(e, rc);
}
