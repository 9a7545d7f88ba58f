/* SPDX-License-Identifier: MIT */
/* put.c - one write: from payload to a durable pending version.
 *
 *   PLAN -> READ edges -> WRITE image -> sync -> index -> commit -> fn
 *    |                                            ^
 *    +-- no space: wait for limbo     no data ----+
 *
 * Syncs gather: while one is in flight, writes that end wait for the next one; all that
 * one sync covers go into one index commit. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/plan.h"
#include "chunk/state.h"
#include "conf/crc32c.h"
#include "conf/err.h"

struct put {
	struct chunk_write  *w;		/* borrowed until fn */
	struct chunk_engine *e;
	struct list	     all;	/* e->writes */
	struct list	     busy;	/* its bucket */
	struct list	     node;	/* the stage it waits in */
	struct chunk_done    done;
	int		     rc, io_rc;
	bool		     indexed;	/* its space is in a row */
	uint32_t	     bad;	/* 1 + first block that is not what its crc says */
	struct chunk_plan    plan;
	struct chunk_pend    pend;	/* extents: new space */
	struct chunk_extents image;	/* where the image goes */
	struct mem_buf	     edge[2];
	struct chunk_io	    *ios;
	unsigned	     io_n, io_left;
	struct chunk_group   group;	/* of the first one in it */
	struct list	     members;
};

/* ---- the chunks that are being written ---- */

static struct list *
bucket(const struct chunk_engine *e, target_id target, struct chunk_id id)
{
	uint64_t h = id.ino * 0x9e3779b97f4a7c15ull;

	h = (h ^ id.index ^ (uint64_t)target << 32) * 0xff51afd7ed558ccdull;
	return (struct list *)&e->busy[h >> 54];
}
_Static_assert(CHUNK_BUSY_BUCKETS == 1 << 10, "h >> 54");

bool
chunk_put_busy(const struct chunk_engine *e, target_id target, struct chunk_id id)
{
	list_for_each(n, bucket(e, target, id)) {
		const struct chunk_write *w = list_entry(n, struct put, busy)->w;

		if (w->target == target && chunk_id_cmp(w->id, id) == 0)
			return true;
	}
	return false;
}

/* ---- the end ---- */

static void
put_free(struct put *p)
{
	list_remove(&p->all);
	list_remove(&p->busy);
	list_remove(&p->node);
	while (list_pop_front(&p->members) != NULL)	/* a close may leave some */
		;
	chunk_pend_fini(&p->pend);
	chunk_extents_fini(&p->image);
	for (unsigned i = 0; i < 2; i++)
		mem_put(&p->edge[i]);
	free(p->ios);
	free(p);
}

static void
put_run(struct chunk_done *d)
{
	struct put *p = container_of(d, struct put, done);
	struct chunk_write *w = p->w;
	int rc = p->rc;

	w->impl = NULL;
	put_free(p);
	w->fn(w, rc);
}

static void
give_back(struct put *p)
{
	for (size_t i = 0; i < p->pend.extents.n; i++)
		chunk_alloc_give(p->e->alloc, p->pend.extents.v[i].disk,
		    p->pend.extents.v[i].count);
	p->pend.extents.n = 0;
}

/* No request of it is in flight any more. */
static void
finish(struct put *p, int rc)
{
	p->rc = rc;
	stat_add(&p->e->stat.stores, rc == 0);
	if (rc != 0 && !p->indexed)
		give_back(p);
	list_remove(&p->node);
	list_remove(&p->busy);
	chunk_done_push(p->e, &p->done);
}

void
chunk_put_abandon(struct chunk_engine *e)
{
	while (!list_empty(&e->writes))
		put_free(list_entry(e->writes.next, struct put, all));
}

int
chunk_put_mark(const struct chunk_engine *e, struct chunk_alloc *into)
{
	list_for_each(n, &e->writes) {
		const struct put *p = list_entry(n, struct put, all);

		for (size_t i = 0; !p->indexed && i < p->pend.extents.n; i++) {
			int rc = chunk_alloc_mark(into, p->pend.extents.v[i].disk,
			    p->pend.extents.v[i].count);

			if (rc != 0)
				return rc;
		}
	}
	return 0;
}

/* ---- into the index ---- */

/* Write the pending row; the check needs all crcs, so the change is tried on for size. */
static int
put_row(struct put *p)
{
	struct chunk_engine *e = p->e;
	struct chunk_write *w = p->w;
	struct chunk_limbo *l = NULL;
	bool removed = p->pend.flags & CHUNK_ROW_REMOVED;
	int rc;

	if (e->broken != 0)
		return e->broken;
	rc = chunk_index_get(&e->index, w->target, w->id, !removed, &e->row);
	if (rc == 0 || rc == -ENOENT)
		rc = removed ? 0 : chunk_row_apply(&e->row, &p->pend, &e->next, NULL);
	if (rc == 0) {
		rc = chunk_index_get_pend(&e->index, w->target, w->id, true, &e->pend);
		rc = rc == -ENOENT ? 0 : rc;
	}
	if (rc != 0)
		return chunk_engine_index_rc(e, rc);
	assert(removed || e->next.crc_n ==
	    chunk_blocks(p->pend.len, p->plan.sum));
	p->pend.check = removed ? 0 :
	    chunk_row_check(e->next.crcs, e->next.crc_n, e->next.len);
	/* The pending version it replaces gives its space back. */
	if ((l = chunk_limbo_make()) == NULL)
		return -ENOMEM;
	for (size_t i = 0; e->pend.version > 0 && i < e->pend.extents.n; i++)
		if ((rc = chunk_extents_add(&l->extents, (struct chunk_extent){
		    .count = e->pend.extents.v[i].count,
		    .disk = e->pend.extents.v[i].disk })) != 0)
			break;
	if (rc == 0)
		rc = chunk_known_pend(&e->known, w->target, w->id);
	if (rc == 0 && (rc = chunk_index_put_pend(&e->index, w->target, w->id, &p->pend,
	    e->pend.stored)) != 0 && e->pend.version == 0)
		chunk_known_settle(&e->known, w->target, w->id);
	if (rc != 0) {
		chunk_limbo_free(l);
		return rc;
	}
	chunk_limbo_add(e, l);
	chunk_damage_pend(e, w->target, w->id, w->version, p->bad);
	p->indexed = true;
	w->new_len = p->pend.len;
	w->check = p->pend.check;
	return 0;
}

static void
committed(struct table_commit *c)
{
	struct put *p = container_of(c, struct put, group.commit);
	struct chunk_engine *e = chunk_group_ended(c);
	struct list members;
	struct list *n;

	list_init(&members);
	list_splice_back(&members, &p->members);
	while ((n = list_pop_front(&members)) != NULL)
		finish(list_entry(n, struct put, node), e->broken);
	chunk_limbo_release(e);
	chunk_done_run(e);
}

/* All that is ready goes into one commit. */
static void
index_all(struct chunk_engine *e)
{
	struct put *first = NULL;
	struct list *n;

	while ((n = list_pop_front(&e->to_index)) != NULL) {
		struct put *p = list_entry(n, struct put, node);
		int rc = put_row(p);

		if (rc != 0) {
			finish(p, rc);
			continue;
		}
		if (first == NULL) {
			first = p;
			list_init(&first->members);
		}
		list_push_back(&first->members, &p->node);
	}
	if (first != NULL)
		chunk_group_start(e, &first->group, committed);
}

/* ---- data ---- */

static void
synced(struct disk_req *r)
{
	struct chunk_engine *e = container_of(r, struct chunk_engine, sync);
	struct list *n;

	e->sync_busy = false;
	stat_add(&e->stat.syncs, 1);
	if (r->rc != 0) {
		chunk_engine_break(e, r->rc, "sync");
		while ((n = list_pop_front(&e->syncing)) != NULL)
			finish(list_entry(n, struct put, node), e->broken);
	}
	list_splice_back(&e->to_index, &e->syncing);
	index_all(e);
	if (!list_empty(&e->to_sync))
		clock_defer(e->conf.clock, &e->turn, chunk_put_turn);
	chunk_done_run(e);
}

/* End of a turn: what got ready in it goes on together. */
void
chunk_put_turn(struct clock_defer *d)
{
	struct chunk_engine *e = container_of(d, struct chunk_engine, turn);

	index_all(e);
	if (e->sync_busy || list_empty(&e->to_sync))
		return;
	list_splice_back(&e->syncing, &e->to_sync);
	e->sync_busy = true;
	e->sync = (struct disk_req){ .op = DISK_SYNC };
	disk_start(e->data, &e->sync, synced);
}

static void
to_index(struct put *p)
{
	list_push_back(&p->e->to_index, &p->node);
	clock_defer(p->e->conf.clock, &p->e->turn, chunk_put_turn);
}

static void
wrote(struct disk_req *r)
{
	struct put *p = container_of(r, struct chunk_io, req)->op;
	struct chunk_engine *e = p->e;

	/* Without space nothing is lost but this write: no row names its blocks yet, and
	 * what is behind a chunk's length is not believed. */
	if (r->rc == -ENOSPC || r->rc == -EDQUOT) {
		stat_add(&e->stat.full_errors, 1);
		e->presence.none = true;
		p->io_rc = -ENOSPC;
	} else if (r->rc != 0)
		chunk_engine_break(e, r->rc, "write");
	if (--p->io_left > 0)
		return;
	if (e->broken != 0 || p->io_rc != 0) {
		finish(p, e->broken != 0 ? e->broken : p->io_rc);
		chunk_done_run(e);
		return;
	}
	list_push_back(&e->to_sync, &p->node);
	if (!e->sync_busy)
		clock_defer(e->conf.clock, &e->turn, chunk_put_turn);
}

/* Bytes [@from, @to) of the image (or of the fix), as pieces of memory. */
static unsigned
pieces(struct put *p, uint32_t from, uint32_t to, struct iovec *iov)
{
	const struct chunk_plan *l = &p->plan;
	uint32_t mine = l->off & ~(CHUNK_BLOCK - 1);	/* caller's blocks */
	uint32_t mine_end = (l->end + CHUNK_BLOCK - 1) & ~(CHUNK_BLOCK - 1);
	unsigned n = 0;

	while (from < to) {
		uint32_t stop = to;
		uint8_t *at;

		if (from < mine) {
			/* Before it: the edge at its head, or the old last block. */
			unsigned i = l->head >= 0 ? (unsigned)l->head : 0;

			stop = stop < mine ? stop : mine;
			at = p->edge[i].p + (from - l->edge[i].at);
		} else if (from < mine_end) {
			stop = stop < mine_end ? stop : mine_end;
			at = p->w->data - (l->off - mine) + (from - mine);
		} else
			at = p->edge[l->tail].p + (from - l->edge[l->tail].at);
		assert(n < 3);
		iov[n++] = (struct iovec){ at, stop - from };
		from = stop;
	}
	return n;
}

static int
make_ios(struct put *p, size_t n)
{
	struct chunk_io *ios = calloc(n, sizeof(*ios));

	if (ios == NULL)
		return -ENOMEM;
	free(p->ios);
	p->ios = ios;
	p->io_n = 0;
	return 0;
}

static struct chunk_io *
add_io(struct put *p, enum disk_op op, const struct chunk_extent *x)
{
	struct chunk_io *io = &p->ios[p->io_n++];

	io->op = p;
	io->req.op = op;
	io->req.off = x->disk * CHUNK_BLOCK;
	io->req.len = (uint64_t)x->count * CHUNK_BLOCK;
	io->req.iov = io->iov;
	return io;
}

static void
start_ios(struct put *p, disk_fn *fn)
{
	p->io_left = p->io_n;
	for (unsigned i = 0; i < p->io_n; i++) {
		const struct disk_req *r = &p->ios[i].req;

		stat_add(&p->e->stat.written_bytes, r->op == DISK_WRITE ? r->len : 0);
		disk_start(p->e->data, &p->ios[i].req, fn);
	}
}

/* Edges are there: make the crcs, fill the rest of the caller's blocks, write. */
static int
start_write(struct put *p)
{
	const struct chunk_plan *l = &p->plan;
	const uint8_t *edges[2] = { p->edge[0].p, p->edge[1].p };
	uint32_t pre = l->off % CHUNK_BLOCK, post = -l->end % CHUNK_BLOCK;
	uint8_t *data = p->w->data;
	int rc;

	chunk_plan_sum(l, p->pend.crcs, edges);
	for (uint32_t i = 0; i < p->w->sum_n; i++) {
		if (p->bad == 0 && p->pend.crcs[i] != p->w->sums[i])
			p->bad = i + 1;
		p->pend.crcs[i] = p->w->sums[i];
	}
	if (p->image.n == 0) {			/* no data: straight to the index */
		to_index(p);
		return 0;
	}
	if (pre > 0 && l->head >= 0)
		memcpy(data - pre, edges[l->head] + (l->off - pre -
		    l->edge[l->head].at), pre);
	else if (pre > 0)
		memset(data - pre, 0, pre);
	if (post > 0 && l->tail >= 0)
		memcpy(data + (l->end - l->off), edges[l->tail] + (l->end -
		    l->edge[l->tail].at), post);
	else if (post > 0)
		memset(data + (l->end - l->off), 0, post);
	if ((rc = make_ios(p, p->image.n)) != 0)
		return rc;
	for (size_t i = 0; i < p->image.n; i++) {
		const struct chunk_extent *x = &p->image.v[i];
		struct chunk_io *io = add_io(p, DISK_WRITE, x);

		io->req.iov_n = pieces(p, x->at * CHUNK_BLOCK,
		    (x->at + x->count) * CHUNK_BLOCK, io->iov);
	}
	start_ios(p, wrote);
	return 0;
}

/* ---- edges ---- */

static int
check_edges(struct put *p)
{
	const struct chunk_write *w = p->w;

	for (unsigned i = 0; i < p->plan.edge_n; i++) {
		const struct chunk_edge *g = &p->plan.edge[i];

		/* What is behind the valid bytes may be anything. */
		memset(p->edge[i].p + g->valid, 0, p->plan.sum - g->valid);
		if (!g->read || crc32c(0, p->edge[i].p, g->valid) == g->crc)
			continue;
		chunk_damage_note(p->e, w->target, w->id, p->pend.base,
		    g->at / p->plan.sum, ERR_CORRUPT);
		return ERR_CORRUPT;
	}
	return 0;
}

static void
edges_read(struct disk_req *r)
{
	struct put *p = container_of(r, struct chunk_io, req)->op;
	struct chunk_engine *e = p->e;
	int rc;

	if (chunk_disk_gone(r->rc))
		chunk_engine_break(e, r->rc, "read");
	else if (r->rc != 0) {
		unsigned i = r->iov[0].iov_base >= (void *)p->edge[0].p &&
		    (const uint8_t *)r->iov[0].iov_base < p->edge[0].p + p->plan.sum ?
		    0 : 1;

		chunk_damage_note(e, p->w->target, p->w->id, p->pend.base,
		    p->plan.edge[i].at / p->plan.sum, r->rc);
		p->io_rc = ERR_CORRUPT;
	}
	if (--p->io_left > 0)
		return;
	rc = e->broken != 0 ? e->broken : p->io_rc;
	if (rc == 0 && (rc = check_edges(p)) == 0)
		rc = start_write(p);
	if (rc != 0)
		finish(p, rc);
	chunk_done_run(e);
}

/* Read the edges of @c's extents; *some tells whether a read is on its way. */
static int
start_edges(struct put *p, const struct chunk_row *c, bool *some)
{
	struct chunk_extents x = { 0 };
	uint32_t end[2] = { 0 };
	int rc = 0;

	*some = false;
	for (unsigned i = 0; i < p->plan.edge_n && rc == 0; i++) {
		const struct chunk_edge *g = &p->plan.edge[i];

		if ((rc = mem_get(p->e->conf.pool, p->plan.sum, &p->edge[i])) != 0)
			break;
		memset(p->edge[i].p, 0, p->plan.sum);	/* holes */
		if (g->read)
			rc = chunk_extents_cut(&c->extents, g->at / CHUNK_BLOCK,
			    g->at / CHUNK_BLOCK + chunk_blocks(g->valid, CHUNK_BLOCK),
			    &x);
		end[i] = g->at + p->plan.sum;
	}
	if (rc == 0 && x.n > 0 && (rc = make_ios(p, x.n + 2)) == 0) {
		for (size_t i = 0; i < x.n; i++) {
			uint32_t at = x.v[i].at * CHUNK_BLOCK;
			unsigned k = at >= p->plan.edge[0].at && at < end[0] ? 0 : 1;
			struct chunk_extent part = x.v[i];
			struct chunk_io *io;

			/* One run may serve both edges when they are neighbours. */
			if (at + part.count * CHUNK_BLOCK > end[k])
				part.count = (end[k] - at) / CHUNK_BLOCK;
			io = add_io(p, DISK_READ, &part);
			io->iov[0] = (struct iovec){
			    p->edge[k].p + (at - p->plan.edge[k].at), io->req.len };
			io->req.iov_n = 1;
			x.v[i].at += part.count;
			x.v[i].disk += part.count;
			x.v[i].count -= part.count;
			if (x.v[i].count > 0)
				i--;
		}
		*some = true;
		start_ios(p, edges_read);
	}
	chunk_extents_fini(&x);
	return rc;
}

/* ---- space ---- */

/* New data goes only below the mark, and while the index has room. */
static bool
refused(const struct chunk_engine *e, uint64_t blocks)
{
	uint64_t cap = chunk_alloc_capacity(e->alloc);

	return chunk_alloc_used(e->alloc) + blocks >
	    cap / 100 * e->conf.full_percent + cap % 100 * e->conf.full_percent / 100;
}

static int
take(struct put *p, uint32_t from, uint32_t to, uint32_t slack)
{
	struct chunk_engine *e = p->e;

	if (from >= to)
		return 0;
	if (refused(e, to - from))
		return -ENOSPC;
	if (refused(e, (uint64_t)(to - from) + slack))
		slack = 0;
	return chunk_alloc_take(e->alloc, from, to - from + slack, &p->pend.extents);
}

/* Space for the image and the fix; p->image says where all of it goes. */
static int
place(struct put *p, const struct chunk_row *c)
{
	const struct chunk_plan *l = &p->plan;
	uint32_t img = l->img / CHUNK_BLOCK, end = l->img_end / CHUNK_BLOCK;
	int rc = 0;

	if (l->fix < l->fix_end && !l->fix_stays)
		rc = take(p, l->fix / CHUNK_BLOCK, l->fix_end / CHUNK_BLOCK, 0);
	if (rc == 0 && l->stay < l->stay_end) {
		rc = take(p, img, l->stay, 0);
		if (rc == 0)
			rc = take(p, l->stay_end, end, l->slack);
	} else if (rc == 0)
		rc = take(p, img, end, l->slack);
	if (rc != 0)
		return rc;
	if (l->fix < l->fix_end)
		rc = chunk_extents_cut(l->fix_stays ? &c->extents : &p->pend.extents,
		    l->fix / CHUNK_BLOCK, l->fix_end / CHUNK_BLOCK, &p->image);
	if (rc == 0 && l->stay < l->stay_end) {
		rc = chunk_extents_cut(&p->pend.extents, img, l->stay, &p->image);
		if (rc == 0)
			rc = chunk_extents_cut(&c->extents, l->stay, l->stay_end,
			    &p->image);
		img = l->stay_end;
	}
	if (rc == 0)
		rc = chunk_extents_cut(&p->pend.extents, img, end, &p->image);
	return rc;
}

/* ---- the start ---- */

static void
fill_pend(struct put *p, const struct chunk_row *c)
{
	const struct chunk_write *w = p->w;
	struct chunk_pend *d = &p->pend;

	d->shift = w->shift;
	d->flags = p->plan.flags;
	d->version = w->version;
	d->base = c->version;
	d->len = p->plan.new_len;
	d->epoch = w->epoch;
	d->keep = p->plan.keep;
	d->first = p->plan.first;
	d->crc_n = p->plan.crc_n;
	if (d->flags & CHUNK_ROW_DEDUPE_ALL) {
		d->dedupe_n = w->dedupe == NULL ? 0 : w->dedupe_n;
		for (uint32_t i = 0; i < d->dedupe_n; i++)
			d->dedupe[i] = w->dedupe[i];
	} else if (w->who.seq != 0) {
		d->dedupe_n = 1;
		d->dedupe[0] = w->who;
		d->dedupe[0].version = w->version;
	} else
		d->dedupe_n = 0;
}

/* crc of the payload's part of each checksum block, all of it checked on the way. */
static int
sum_payload(struct put *p)
{
	const struct chunk_plan *l = &p->plan;
	uint32_t crc = 0, i = l->off / l->sum - l->first;

	for (uint32_t at = l->off; at < l->end; i++) {
		uint32_t to = (at / l->sum + 1) * l->sum;
		uint32_t n = (to < l->end ? to : l->end) - at;

		p->pend.crcs[i] = crc32c(0, p->w->data + (at - l->off), n);
		crc = at == l->off ? p->pend.crcs[i] :
		    crc32c_combine(crc, p->pend.crcs[i], n);
		at += n;
	}
	if (p->w->kind != UPDATE_WRITE && p->w->kind != UPDATE_REPLACE)
		return 0;
	if (crc == p->w->crc)
		return 0;
	stat_add(&p->e->stat.payload_errors, 1);
	return ERR_PAYLOAD_CRC;
}

/* From the rows as they are to the first I/O; may be called again after -ENOSPC. */
static int
plan(struct put *p)
{
	struct chunk_engine *e = p->e;
	struct chunk_write *w = p->w;
	bool data = w->kind == UPDATE_WRITE || w->kind == UPDATE_REPLACE, some;
	int rc;

	if (e->broken != 0)
		return e->broken;
	rc = chunk_index_get(&e->index, w->target, w->id, true, &e->row);
	if (rc != 0 && rc != -ENOENT)
		return chunk_engine_index_rc(e, rc);
	/* Who removes a chunk may not know its size. */
	if (w->kind == UPDATE_REMOVE && e->row.version > 0)
		w->shift = e->row.shift;
	/* What is left of the index is for what makes room: cuts and removals. */
	if ((data || (w->kind == UPDATE_TRUNCATE && rc == -ENOENT)) &&
	    chunk_engine_full(e))
		return -ENOSPC;
	rc = chunk_index_get_pend(&e->index, w->target, w->id, false, &e->pend);
	if (rc != 0 && rc != -ENOENT)
		return chunk_engine_index_rc(e, rc);
	if (w->version < e->row.version + (w->kind != UPDATE_REPLACE) ||
	    (e->row.version > 0 && w->kind != UPDATE_REPLACE &&
	    w->kind != UPDATE_REMOVE && w->shift != e->row.shift))
		return -EINVAL;
	chunk_plan_make(&p->plan, w->kind, w->shift, w->offset, w->len, &e->row,
	    e->pend.version > 0 ? e->pend.flags : -1);
	fill_pend(p, &e->row);
	if ((rc = sum_payload(p)) != 0 || (rc = place(p, &e->row)) != 0 ||
	    (rc = start_edges(p, &e->row, &some)) != 0)
		return rc;
	return some ? 0 : start_write(p);
}

static int
start(struct put *p)
{
	struct chunk_engine *e = p->e;
	int rc = plan(p);

	if (rc == -ENOSPC && e->limbo_blocks > 0) {
		/* Space is on its way: have it committed, and try again then. */
		give_back(p);
		p->image.n = 0;
		list_push_back(&e->to_space, &p->node);
		chunk_commit_now(e);
		return 0;
	}
	return rc;
}

void
chunk_put_space(struct chunk_engine *e)
{
	struct list again;
	struct list *n;

	list_init(&again);
	list_splice_back(&again, &e->to_space);
	while ((n = list_pop_front(&again)) != NULL) {
		struct put *p = list_entry(n, struct put, node);
		int rc = start(p);

		if (rc != 0)
			finish(p, rc);
	}
}

static bool
bounds_ok(const struct chunk_write *w)
{
	uint32_t size;

	if (w->shift < CHUNK_SHIFT_MIN || w->shift > CHUNK_SHIFT_MAX || w->version == 0 ||
	    (w->dedupe != NULL && w->dedupe_n > CHUNK_DEDUPE_MAX))
		return false;
	size = 1u << w->shift;
	if (w->sum_n > 0 && w->kind != UPDATE_REPLACE)
		return false;
	switch (w->kind) {
	case UPDATE_WRITE:
		return w->len > 0 && w->offset < size && w->len <= size - w->offset;
	case UPDATE_REPLACE:
		return w->offset == 0 && w->len <= size && (w->sum_n == 0 ||
		    w->sum_n == chunk_blocks(w->len, chunk_sum_bytes(w->shift)));
	case UPDATE_TRUNCATE:
		return w->offset <= size;
	case UPDATE_REMOVE:
		return true;
	default:
		return false;
	}
}

static struct put *
put_new(struct chunk_engine *e, struct chunk_write *w)
{
	struct put *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->w = w;
	p->e = e;
	p->done.run = put_run;
	list_init(&p->node);
	list_init(&p->members);
	list_push_back(&e->writes, &p->all);
	list_push_back(bucket(e, w->target, w->id), &p->busy);
	w->impl = p;
	return p;
}

void
chunk_write_start(struct chunk_write *w, struct chunk_engine *e, chunk_write_fn *fn)
{
	struct put *p;
	int rc;

	assert(e->open);
	assert(!chunk_put_busy(e, w->target, w->id));
	w->engine = e;
	w->fn = fn;
	if ((p = put_new(e, w)) == NULL) {
		chunk_done_starved(e, &e->starved_writes, &w->node);
		return;
	}
	if (w->kind == UPDATE_WRITE || w->kind == UPDATE_REPLACE)
		assert(w->len == 0 || (size_t)(w->data - w->buf.p) % CHUNK_BLOCK ==
		    w->offset % CHUNK_BLOCK);
	rc = bounds_ok(w) ? start(p) : -EINVAL;
	if (rc != 0)
		finish(p, rc);
}
