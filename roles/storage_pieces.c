/* SPDX-License-Identifier: MIT */
/* storage_pieces.c - a chunk that no replica has whole is made of the blocks that some have.
 *
 * Our own bytes are read as they are, with the checksums that they should have; replicas of one
 * version have the same.  Each block that is damaged here is then looked for in what others
 * send, also as it is.  What was found is worth storing even if some are damaged
 * everywhere. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/format.h"
#include "conf/crc32c.h"
#include "conf/err.h"
#include "roles/storage_impl.h"

struct storage_pieces {
	struct storage_worker *w;
	struct list	 node;		/* w->pieces */
	struct storage_op *op;		/* NULL: it has ended, our own read has not */
	storage_pieces_fn *fn;
	bool		 reading;
	struct chunk_read r;		/* ours, from when it has ended */
	uint8_t		*data;		/* in r.buf */
	uint32_t	 sum, bad, found;	/* bytes of a block; blocks */
};

static void
release(struct storage_pieces *p)
{
	list_remove(&p->node);
	mem_put(&p->r.buf);
	mem_put(&p->r.sums_buf);
	free(p);
}

static bool
good(const struct storage_pieces *p, uint32_t i, const uint8_t *bytes)
{
	uint32_t at = i * p->sum, n = p->r.got - at;

	return crc32c(0, bytes + at, n < p->sum ? n : p->sum) == p->r.sums[i];
}

static void
read_done(struct chunk_read *r, int rc)
{
	struct storage_pieces *p = container_of(r, struct storage_pieces, r);
	struct storage_op *op = p->op;

	p->reading = false;
	if (op == NULL) {
		release(p);
		return;
	}
	op->disk_tick = 0;
	if (rc == 0) {
		p->data = (uint8_t *)(uintptr_t)r->data;
		p->bad = r->bad_n;
	}
	p->fn(op, rc);
}

int
storage_pieces_start(struct storage_op *op, uint64_t version, storage_pieces_fn *fn)
{
	struct storage_worker *w = op->w;
	struct storage_pieces *p;
	struct chunk_info info;
	int rc = chunk_engine_info(op->t->disk->engine, op->t->v.target, op->craq.id,
	    &info);

	if (rc == 0 && (info.committed != version || info.committed_len == 0))
		rc = -ENOENT;
	if (rc == 0 && (p = calloc(1, sizeof(*p))) == NULL)
		rc = -ENOMEM;
	if (rc != 0)
		return rc;
	p->w = w;
	p->op = op;
	p->fn = fn;
	p->sum = chunk_sum_bytes(info.shift);
	p->reading = true;
	p->r = (struct chunk_read){ .target = op->t->v.target, .id = op->craq.id,
	    .version = version, .len = info.committed_len, .anyhow = true };
	list_push_back(&w->pieces, &p->node);
	op->pieces = p;
	op->disk_tick = w->ticks;
	chunk_read_start(&p->r, op->t->disk->engine, read_done);
	return 0;
}

bool
storage_pieces_add(struct storage_op *op, const uint8_t *data, uint32_t len)
{
	struct storage_pieces *p = op->pieces;

	for (uint32_t i = 0; len == p->r.got && i < p->r.sum_n && p->bad > 0; i++) {
		uint32_t at = i * p->sum, n = len - at < p->sum ? len - at : p->sum;

		if (good(p, i, p->data) || !good(p, i, data))
			continue;
		memcpy(p->data + at, data + at, n);
		p->bad--;
		p->found++;
	}
	return p->bad == 0;
}

bool
storage_pieces_take(struct storage_op *op)
{
	struct storage_pieces *p = op->pieces;
	struct storage_whole *wh = &op->whole;
	struct chunk_info info;

	if ((p->bad > 0 && p->found == 0) || chunk_engine_info(op->t->disk->engine,
	    op->t->v.target, op->craq.id, &info) != 0)
		return false;
	storage_whole_drop(wh);
	if (storage_whole_of(wh, &info, p->r.got_version) != 0)
		return false;
	wh->buf = p->r.buf;
	wh->sums_buf = p->r.sums_buf;
	p->r.buf = p->r.sums_buf = (struct mem_buf){ 0 };
	wh->data = p->data;
	wh->crc = crc32c(0, p->data, wh->len);
	if (p->bad > 0) {
		wh->sums = p->r.sums;
		wh->sum_n = p->r.sum_n;
	}
	log_warn(&op->w->env->log, p->bad == 0 ?
	    "chunk made whole of blocks from several replicas" :
	    "no replica has some blocks of a chunk", "chain=%u target=%u ino=%llx "
	    "index=%u found=%u bad=%u", op->t->v.chain, op->t->v.target,
	    (unsigned long long)op->craq.id.ino, op->craq.id.index, p->found, p->bad);
	return true;
}

void
storage_pieces_drop(struct storage_op *op)
{
	struct storage_pieces *p = op->pieces;

	if (p == NULL)
		return;
	op->pieces = NULL;
	p->op = NULL;
	if (!p->reading)
		release(p);
}

void
storage_pieces_close(struct storage_worker *w)
{
	while (!list_empty(&w->pieces))
		release(list_entry(w->pieces.next, struct storage_pieces, node));
}
