/* SPDX-License-Identifier: MIT */
/* get.c - one read: rows, disk, every crc, fn.
 *
 * What is fetched is whole checksum blocks, one request for each run on the disk, straight
 * into the buffer that the caller gets.  From its start to its end a read pins all space
 * that was in use when it began (commit.c). */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/state.h"
#include "conf/crc32c.h"
#include "conf/err.h"

struct get {
	struct chunk_read   *r;		/* borrowed until fn */
	struct chunk_engine *e;
	struct list	     all;	/* e->reads, by seq */
	uint64_t	     seq;
	struct chunk_done    done;
	int		     rc, io_rc;
	struct mem_buf	     buf;
	uint32_t	     sum, len;	/* checksum block; of the chunk */
	uint32_t	     from;	/* first byte fetched, in the chunk */
	uint32_t	     got;	/* bytes asked for that are there */
	uint64_t	     version;
	uint32_t	    *crcs;	/* behind the ios; of the blocks fetched */
	uint32_t	     crc_n, bad_n;
	struct mem_buf	     sums;	/* anyhow: they go there */
	unsigned	     io_n, io_left;
	struct chunk_io	     ios[];
};

uint64_t
chunk_get_oldest(const struct chunk_engine *e)
{
	return list_empty(&e->reads) ? UINT64_MAX :
	    list_entry(e->reads.next, struct get, all)->seq;
}

static void
get_free(struct get *g)
{
	list_remove(&g->all);
	mem_put(&g->buf);
	mem_put(&g->sums);
	free(g);
}

static void
get_run(struct chunk_done *d)
{
	struct get *g = container_of(d, struct get, done);
	struct chunk_engine *e = g->e;
	struct chunk_read *r = g->r;
	int rc = g->rc;

	r->impl = NULL;
	if (rc == 0 && g->got > 0) {
		r->buf = g->buf;
		g->buf = (struct mem_buf){ 0 };
		r->data = r->buf.p + (r->offset - g->from);
		if (r->anyhow) {
			r->sums_buf = g->sums;
			g->sums = (struct mem_buf){ 0 };
			memcpy(r->sums_buf.p, g->crcs, g->crc_n * sizeof(*g->crcs));
			r->sums = (const uint32_t *)(const void *)r->sums_buf.p;
			r->sum_n = g->crc_n;
			r->bad_n = g->bad_n;
		}
	}
	r->got = g->got;
	r->got_version = g->version;
	get_free(g);
	chunk_limbo_release(e);		/* the pin is gone */
	r->fn(r, rc);
}

static void
finish(struct get *g, int rc)
{
	g->rc = rc;
	chunk_done_push(g->e, &g->done);
}

void
chunk_get_abandon(struct chunk_engine *e)
{
	while (!list_empty(&e->reads))
		get_free(list_entry(e->reads.next, struct get, all));
}

static uint32_t
min32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Verify all that was fetched, and make the crc of what was asked for out of it. */
static int
verify(struct get *g)
{
	struct chunk_read *r = g->r;
	uint32_t end = r->offset + g->got, crc = 0;

	for (uint32_t at = g->from, i = 0; at < end; at += g->sum, i++) {
		const uint8_t *p = g->buf.p + (at - g->from);
		uint32_t valid = min32(g->sum, g->len - at);
		uint32_t a = at < r->offset ? r->offset - at : 0;
		uint32_t b = min32(valid, end - at), part = g->crcs[i];

		if (crc32c(0, p, valid) != part) {
			chunk_damage_note(g->e, r->target, r->id, g->version,
			    at / g->sum, ERR_CORRUPT);
			if (!r->anyhow)
				return ERR_CORRUPT;
			g->bad_n++;
			part = crc32c(0, p, valid);
		}
		if (a > 0 || b < valid)
			part = crc32c(0, p + a, b - a);
		crc = i == 0 ? part : crc32c_combine(crc, part, b - a);
	}
	r->crc = crc;
	return 0;
}

static void
fetched(struct disk_req *q)
{
	struct get *g = container_of(q, struct chunk_io, req)->op;
	struct chunk_engine *e = g->e;

	if (chunk_disk_gone(q->rc))
		chunk_engine_break(e, q->rc, "read");
	else if (q->rc != 0) {
		uint32_t at = g->from +
		    (uint32_t)((const uint8_t *)q->iov[0].iov_base - g->buf.p);

		chunk_damage_note(e, g->r->target, g->r->id, g->version, at / g->sum,
		    q->rc);
		if (g->r->anyhow)
			memset(q->iov[0].iov_base, 0, q->iov[0].iov_len);
		else
			g->io_rc = ERR_CORRUPT;
	}
	if (--g->io_left > 0)
		return;
	finish(g, e->broken != 0 ? e->broken : g->io_rc != 0 ? g->io_rc : verify(g));
	chunk_done_run(e);
}

/* The row of the version that is asked for. */
static int
find(struct chunk_engine *e, const struct chunk_read *r, const struct chunk_row **out)
{
	int rc;

	if (e->broken != 0)
		return e->broken;
	rc = chunk_index_get(&e->index, r->target, r->id, true, &e->row);
	if (rc != 0 && rc != -ENOENT)
		return chunk_engine_index_rc(e, rc);
	if (rc == 0 && (r->version == 0 || r->version == e->row.version)) {
		*out = &e->row;
		return 0;
	}
	if (r->version == 0)
		return -ENOENT;
	rc = chunk_index_get_pend(&e->index, r->target, r->id, true, &e->pend);
	if (rc == 0 && (e->pend.version != r->version ||
	    e->pend.flags & CHUNK_ROW_REMOVED))
		return -ENOENT;
	if (rc == 0)
		rc = chunk_row_apply(&e->row, &e->pend, &e->next, NULL);
	*out = &e->next;
	return chunk_engine_index_rc(e, rc);
}

/* Zeros where [@from, @to) of the chunk has no extent in @x. */
static void
zero_holes(struct get *g, const struct chunk_extents *x, uint32_t to)
{
	uint32_t at = g->from;

	for (size_t i = 0; i < x->n; i++) {
		memset(g->buf.p + (at - g->from), 0, x->v[i].at * CHUNK_BLOCK - at);
		at = (x->v[i].at + x->v[i].count) * CHUNK_BLOCK;
	}
	memset(g->buf.p + (at - g->from), 0, to - at);
}

/* The request for @r over @row, or NULL: no memory. */
static struct get *
get_new(struct chunk_engine *e, struct chunk_read *r, size_t ios, size_t crcs)
{
	struct get *g = malloc(sizeof(*g) + ios * sizeof(g->ios[0]) +
	    crcs * sizeof(g->crcs[0]));

	if (g == NULL)
		return NULL;
	memset(g, 0, sizeof(*g) + ios * sizeof(g->ios[0]));
	g->crcs = (uint32_t *)(void *)&g->ios[ios];
	g->r = r;
	g->e = e;
	g->seq = ++e->read_seq;
	g->done.run = get_run;
	list_push_back(&e->reads, &g->all);
	r->impl = g;
	return g;
}

static void
starved(struct chunk_engine *e, struct chunk_read *r)
{
	chunk_done_starved(e, &e->starved_reads, &r->node);
}

static void
nothing(struct chunk_engine *e, struct chunk_read *r, int rc, uint64_t version)
{
	struct get *g = get_new(e, r, 0, 0);

	if (g == NULL) {
		starved(e, r);
		return;
	}
	g->version = version;
	finish(g, rc);
}

/* Requests for one run of blocks: it, or @unit blocks at a time so that what the disk cannot
 * read of it costs no other. */
static uint32_t
run_ios(const struct chunk_extent *x, uint32_t unit)
{
	return unit == 0 ? 1 : chunk_blocks(x->at % unit + x->count, unit);
}

/* Bytes [@from, @to) in whole checksum blocks (the last one: whole 4 KiB blocks). */
static void
fetch(struct chunk_engine *e, struct chunk_read *r, const struct chunk_row *row,
    uint32_t got)
{
	struct chunk_extents x = { 0 };
	uint32_t sum = chunk_sum_bytes(row->shift);
	uint32_t from = r->offset & ~(sum - 1), last = r->offset + got - 1;
	uint32_t first = from / sum, n = last / sum - first + 1;
	uint32_t to = min32((first + n) * sum,
	    chunk_blocks(row->len, CHUNK_BLOCK) * CHUNK_BLOCK);
	uint32_t unit = r->anyhow ? sum / CHUNK_BLOCK : 0;
	struct get *g = NULL;
	size_t io_n = 0;
	int rc;

	rc = chunk_extents_cut(&row->extents, from / CHUNK_BLOCK, to / CHUNK_BLOCK, &x);
	for (size_t i = 0; i < x.n; i++)
		io_n += run_ios(&x.v[i], unit);
	if (rc == 0)
		g = get_new(e, r, io_n, n);
	if (g == NULL) {
		chunk_extents_fini(&x);
		starved(e, r);
		return;
	}
	g->sum = sum;
	g->len = row->len;
	g->from = from;
	g->got = got;
	g->version = row->version;
	memcpy(g->crcs, row->crcs + first, n * sizeof(*g->crcs));
	g->crc_n = n;
	rc = mem_get(e->conf.pool, to - from, &g->buf);
	if (rc == 0 && r->anyhow)
		rc = mem_get(e->conf.pool, n * sizeof(*g->crcs), &g->sums);
	if (rc != 0) {
		chunk_extents_fini(&x);
		finish(g, rc);
		return;
	}
	zero_holes(g, &x, to);
	g->io_left = (unsigned)io_n;
	for (size_t i = 0; i < x.n;) {
		struct chunk_extent *v = &x.v[i];
		struct chunk_io *io = &g->ios[g->io_n++];
		uint32_t count = unit == 0 ? v->count : min32(v->count,
		    unit - v->at % unit);

		io->op = g;
		io->req.op = DISK_READ;
		io->req.off = v->disk * CHUNK_BLOCK;
		io->req.len = (uint64_t)count * CHUNK_BLOCK;
		io->iov[0] = (struct iovec){
		    g->buf.p + (v->at * CHUNK_BLOCK - from), io->req.len };
		io->req.iov = io->iov;
		io->req.iov_n = 1;
		v->at += count;
		v->disk += count;
		v->count -= count;
		i += v->count == 0;
	}
	for (unsigned i = 0; i < g->io_n; i++)
		disk_start(e->data, &g->ios[i].req, fetched);
	chunk_extents_fini(&x);
	if (g->io_n == 0)
		finish(g, verify(g));
}

void
chunk_read_start(struct chunk_read *r, struct chunk_engine *e, chunk_read_fn *fn)
{
	const struct chunk_row *row = NULL;
	uint32_t got;
	int rc;

	assert(e->open);
	assert(r->len > 0);
	r->engine = e;
	r->fn = fn;
	r->buf = (struct mem_buf){ 0 };
	r->data = NULL;
	r->got = r->crc = 0;
	r->sums = NULL;
	r->sums_buf = (struct mem_buf){ 0 };
	r->sum_n = r->bad_n = 0;
	r->got_version = 0;
	if ((rc = find(e, r, &row)) != 0) {
		nothing(e, r, rc, 0);
		return;
	}
	got = r->offset >= row->len ? 0 : min32(r->len, row->len - r->offset);
	if (got == 0)
		nothing(e, r, 0, row->version);
	else
		fetch(e, r, row, got);
}
