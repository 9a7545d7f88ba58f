/* SPDX-License-Identifier: MIT */
/* storage_cut.c - truncate or remove the chunks of an inode on one chain, for metadata.
 *
 * The head walks its index from the first chunk concerned; each chunk of an older epoch
 * becomes an operation of its own on the ordinary replicated path, a few at a time.
 *
 * A chunk that is gone remembers no epoch.  So that a writer who has not heard of the cut
 * does not bring it back, a worker keeps the last cuts in a table that forgets by
 * overwriting, removals first, whose inodes nobody comes to again.  What it keeps of those is
 * the last command of the metadata group by which one of them had been made: a writer makes a
 * chunk that is absent only when it knows the epoch of a later one.  Else it asks, and comes
 * again.
 *
 * The table is that of one head.  The next one has none: there a writer makes a chunk that is
 * absent only when it asked for the epoch under a version of the chain that had this head
 * (storage_op.c).  A cut on its way through the old head at just that moment is not seen. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "roles/storage_impl.h"

#define CUT_OPS		8u	/* chunks of one cut in work at once */
#define CUT_CHASE	64u	/* writes under way that one call waits for */
#define CUT_SCAN	512u	/* index rows looked at in one turn of the loop */

struct storage_cut {
	struct storage_worker *w;
	struct storage_target *t;
	struct list	node;
	struct net_req *req;
	uint32_t	version;
	struct chunk_id at;		/* last chunk looked at */
	bool		started, ended, more, walking;
	uint32_t	touched, busy;
	int		rc;
	struct clock_defer again;
};

/* The rows that one inode of one target may be in, newest first. */
static const struct storage_cut_row *
set_of(const struct storage_worker *w, target_id target, ino_id ino)
{
	uint64_t h = (ino ^ (uint64_t)target << 40) * 0x9e3779b97f4a7c15ull;

	return &w->cut_rows[(h >> 40) % (w->cut_row_n / STORAGE_CUT_WAYS) * STORAGE_CUT_WAYS];
}

/* STORAGE_CUT_WAYS: in none. */
static unsigned
find(const struct storage_cut_row *set, target_id target, ino_id ino)
{
	unsigned i = 0;

	while (i < STORAGE_CUT_WAYS && (set[i].target != target || set[i].ino != ino))
		i++;
	return i;
}

uint32_t
storage_cut_floor(const struct storage_worker *w, target_id target,
    struct chunk_id id)
{
	const struct storage_cut_row *set = set_of(w, target, id.ino);
	unsigned i = find(set, target, id.ino);

	return i < STORAGE_CUT_WAYS && id.index >= set[i].index ? set[i].epoch : 0;
}

/* The row that is given up for another: one that is free, the oldest removal, or else the oldest
 * truncation; but for a removal one stays of which nobody said by which command it was:
 * STORAGE_CUT_WAYS. */
static unsigned
oldest(const struct storage_cut_row *set, bool removal)
{
	unsigned i = STORAGE_CUT_WAYS;

	while (i-- > 0)
		if (set[i].target == 0 || set[i].epoch == UINT32_MAX)
			return i;
	i = STORAGE_CUT_WAYS - 1;
	return removal && set[i].at == 0 ? STORAGE_CUT_WAYS : i;
}

static uint32_t
group_of(ino_id ino)
{
	return (uint32_t)(ino >> 48);
}

static unsigned
past_of(const struct storage_worker *w, ino_id ino)
{
	unsigned i = 0;

	while (i < w->cut_past_n && w->cut_pasts[i].group != group_of(ino))
		i++;
	return i;
}

bool
storage_cut_forgotten(const struct storage_worker *w, ino_id ino, uint64_t at)
{
	unsigned i = past_of(w, ino);

	return at != 0 && i < w->cut_past_n && at < w->cut_pasts[i].at;
}

/* False: there are too many groups. */
static bool
forget(struct storage_worker *w, const struct storage_cut_row *row)
{
	unsigned i = past_of(w, row->ino);

	if (row->target == 0 || row->at == 0)
		return true;
	if (i == STORAGE_CUT_GROUPS)
		return false;
	if (i == w->cut_past_n)
		w->cut_pasts[w->cut_past_n++] = (struct storage_cut_past){
		    group_of(row->ino), 0 };
	if (row->at > w->cut_pasts[i].at)
		w->cut_pasts[i].at = row->at;
	return true;
}

/* One row has one epoch for all chunks from one index on.  Cuts of one inode that begin at
 * different chunks share it: the lowest index, the newest epoch.  That asks more of writers
 * than was cut (they come again in the new epoch), never less.
 * False: it cannot be remembered. */
static bool
remember(struct storage_worker *w, const struct msg_cut *m)
{
	struct storage_cut_row *set = &w->cut_rows[set_of(w, m->target, m->ino) -
	    w->cut_rows];
	struct storage_cut_row row = { m->target, m->ino, m->index, m->epoch, m->at };
	unsigned i = find(set, m->target, m->ino);

	if (i < STORAGE_CUT_WAYS) {
		if (set[i].index < row.index)
			row.index = set[i].index;
		if (set[i].epoch > row.epoch)
			row.epoch = set[i].epoch;
		if (set[i].at > row.at)
			row.at = set[i].at;
	} else if ((i = oldest(set, m->epoch == UINT32_MAX)) == STORAGE_CUT_WAYS) {
		return true;
	} else if (!forget(w, &set[i])) {
		return false;
	}
	memmove(set + 1, set, i * sizeof(*set));
	set[0] = row;
	return true;
}

static void
finish(struct storage_cut *cut)
{
	const struct msg_cut *m = cut->req->msg;
	struct msg_cut_rep rep = { .chunks = cut->touched, .more = cut->more };

	/* What only the replicas behind us hold comes back to us, and is cut then. */
	if (cut->rc == 0 && !cut->more && chunk_craq_doubts_from(&cut->t->craq,
	    (struct chunk_id){ m->ino, m->index }, m->epoch))
		cut->rc = ERR_BUSY;
	net_reply(cut->req, cut->rc, cut->rc == 0 ? &rep : NULL, NULL, 0, NULL,
	    NULL);
	clock_undefer(cut->w->clock, &cut->again);
	list_remove(&cut->node);
	free(cut);
}

static void walk(struct storage_cut *cut);

static void
chunk_done(struct storage_op *op, int rc)
{
	struct storage_cut *cut = op->ctx;

	cut->busy--;
	cut->touched += op->touched;
	stat_add(&cut->w->stat.cut_chunks, op->touched);
	if (rc != 0 && cut->rc == 0)
		cut->rc = rc;
	if (!cut->walking)
		walk(cut);
}

static void
start(struct storage_cut *cut, struct chunk_id id, uint8_t shift)
{
	const struct msg_cut *m = cut->req->msg;
	struct storage_op *op = storage_op_get(cut->w, cut->t);
	bool keep = id.index == m->index && m->keep > 0;
	int rc;

	if (op == NULL) {
		cut->rc = -ENOMEM;
		return;
	}
	op->done = chunk_done;
	op->ctx = cut;
	op->shift = shift;
	op->offset = keep ? m->keep : 0;
	op->craq.kind = CRAQ_CUT;
	op->craq.id = id;
	op->craq.chain_version = cut->version;
	op->craq.update = keep ? UPDATE_TRUNCATE : UPDATE_REMOVE;
	op->craq.epoch = m->epoch;
	op->craq.deadline_ns = cut->req->deadline_ns;
	cut->busy++;
	if ((rc = storage_op_start(op)) != 0) {
		cut->busy--;
		cut->rc = rc;
	}
}

static void
walk_again(struct clock_defer *defer)
{
	walk(container_of(defer, struct storage_cut, again));
}

static void
walk(struct storage_cut *cut)
{
	const struct msg_cut *m = cut->req->msg;
	struct storage_target *t = cut->t;
	struct chunk_info info;
	uint32_t seen = 0;

	cut->walking = true;
	while (!cut->ended && cut->rc == 0 && cut->busy < CUT_OPS) {
		int rc;

		if (seen++ == CUT_SCAN) {
			cut->walking = false;
			clock_defer(cut->w->clock, &cut->again, walk_again);
			return;
		}
		rc = chunk_engine_next(t->disk->engine, t->v.target, cut->at,
		    cut->started, &info);
		if (rc != 0 && rc != -ENOENT) {
			cut->rc = storage_info_rc(t, rc);
			break;
		}
		if (rc == -ENOENT || info.id.ino != m->ino) {
			cut->ended = true;
			break;
		}
		if (cut->touched + cut->busy >= m->max) {
			cut->ended = cut->more = true;
			break;
		}
		cut->at = info.id;
		cut->started = true;
		if (info.pending == 0 && info.committed_epoch >= m->epoch &&
		    !chunk_craq_busy(cut->w->craq, &t->craq, info.id))
			continue;
		start(cut, info.id, info.shift);
	}
	cut->walking = false;
	if (cut->busy == 0 && (cut->ended || cut->rc != 0))
		finish(cut);
}

/* Writes under way may be making chunks that the index does not show yet: take a place
 * behind each of them. */
static void
chase(struct storage_cut *cut)
{
	const struct msg_cut *m = cut->req->msg;
	struct chunk_id ids[CUT_CHASE];
	uint8_t shifts[CUT_CHASE];
	unsigned n = 0;

	list_for_each(it, &cut->t->craq.ops) {
		const struct storage_op *op = container_of(list_entry(it,
		    struct chunk_craq_op, in_target), struct storage_op, craq);

		if (op->craq.kind != CRAQ_WRITE || op->craq.id.ino != m->ino ||
		    op->craq.id.index < m->index || op->craq.epoch >= m->epoch)
			continue;
		if (n == CUT_CHASE) {
			cut->more = true;
			break;
		}
		ids[n] = op->craq.id;
		shifts[n++] = op->shift;
	}
	cut->walking = true;
	for (unsigned i = 0; i < n && cut->rc == 0; i++)
		start(cut, ids[i], shifts[i]);
	cut->walking = false;
}

void
storage_cut_call(struct storage_worker *w, struct net_req *req)
{
	const struct msg_cut *m = req->msg;
	struct storage_cut *cut = NULL;
	struct storage_target *t;
	int rc;

	if (m->via != 0 && map_get(&w->targets, m->via) != NULL) {
		storage_relay_call(w, req, m->via, m->target, m->chain,
		    m->chain_version);
		return;
	}
	rc = storage_check(w, STORAGE_WRITE, m->target, m->chain,
	    m->chain_version, &t);
	if (rc == 0 && !storage_relay_from(t, m->via))
		rc = ERR_NOT_OWNER;
	if (rc == 0 && (m->ino == 0 || m->max == 0 || m->epoch == 0 ||
	    m->keep > 1u << LAYOUT_SHIFT_MAX))
		rc = -EINVAL;
	if (rc == 0 && !remember(w, m))
		rc = ERR_BUSY;
	if (rc == 0 && (cut = calloc(1, sizeof(*cut))) == NULL)
		rc = -ENOMEM;
	if (rc != 0) {
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
		return;
	}
	cut->w = w;
	cut->t = t;
	cut->req = req;
	cut->version = m->chain_version;
	cut->at = (struct chunk_id){ m->ino, m->index };
	list_push_back(&w->cuts, &cut->node);
	chase(cut);
	walk(cut);
}

void
storage_cuts_close(struct storage_worker *w)
{
	struct list *it;

	while ((it = list_pop_front(&w->cuts)) != NULL) {
		struct storage_cut *cut = list_entry(it, struct storage_cut,
		    node);

		clock_undefer(w->clock, &cut->again);
		net_req_drop(cut->req);
		free(cut);
	}
}
