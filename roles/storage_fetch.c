/* SPDX-License-Identifier: MIT */
/* storage_fetch.c - what a replica tells others of the chain: while it syncs the list of its
 * chunks, while it serves whole chunks by version. */
#include <errno.h>
#include <stdlib.h>

#include "conf/err.h"
#include "roles/storage_impl.h"

/* ---- what a replica lists ---- */

int
storage_list_rows(struct storage_target *t, const struct chunk_id *after, uint32_t max,
    bool committed, struct msg_list_row *rows, uint32_t *n, bool *more)
{
	struct chunk_id at = { 0, 0 };
	struct chunk_info info;
	int rc;

	*n = 0;
	*more = false;
	if (after != NULL)
		at = *after;
	while ((rc = chunk_engine_next(t->disk->engine, t->v.target, at,
	    after != NULL || *n > 0, &info)) == 0) {
		/* The same number twice: a repair is under way. */
		bool pending = info.pending > info.committed && !committed;

		if (*n == max) {
			*more = true;
			return 0;
		}
		rows[(*n)++] = (struct msg_list_row){ .chunk = info.id,
		    .committed = info.committed,
		    .pending = info.pending > info.committed ? info.pending : 0,
		    .len = pending ? info.pending_len : info.committed_len,
		    .check = pending || info.committed != 0 ? chunk_craq_digest(
			&info, pending ? info.pending : info.committed) : 0,
		    .removed = pending && info.pending_removed };
		at = info.id;
	}
	return rc == -ENOENT ? 0 : rc;
}

void
storage_list_call(struct storage_worker *w, struct net_req *req)
{
	const struct msg_list *m = req->msg;
	struct msg_list_rep rep = { 0 };
	struct msg_list_row *rows = NULL;
	struct storage_target *t;
	uint32_t max = m->max < STORAGE_LIST_MAX ? m->max : STORAGE_LIST_MAX;
	bool more = false;
	int rc = storage_check(w, STORAGE_LIST, m->target, m->chain,
	    m->chain_version, &t);

	if (rc == 0 && max == 0)
		rc = -EINVAL;
	if (rc == 0 && (rows = malloc(max * sizeof(*rows))) == NULL)
		rc = -ENOMEM;
	if (rc == 0)
		rc = storage_info_rc(t, storage_list_rows(t, m->start ? NULL :
		    &m->after, max, false, rows, &rep.rows.n, &more));
	rep.rows.v = rows;
	rep.more = more;
	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
	free(rows);
}

/* ---- what a replica gives away ---- */

struct storage_fetch {
	struct storage_worker *w;
	struct list	node;
	struct storage_target *t;
	struct net_req *req;
	struct chunk_id	id;
	struct storage_whole whole;	/* without the bytes */
	struct chunk_read r;
};

static void
fetch_sent(void *arg)
{
	struct storage_fetch *f = arg;

	mem_put(&f->r.buf);
	free(f);
}

static void
fetch_read(struct chunk_read *r, int rc)
{
	struct storage_fetch *f = container_of(r, struct storage_fetch, r);
	const struct storage_whole *wh = &f->whole;
	struct msg_dedupe dedupe[CHUNK_DEDUPE_MAX];
	struct msg_fetch_rep rep = { .version = wh->version,
	    .chunk_shift = wh->shift, .len = r->got, .crc = r->crc,
	    .epoch = wh->epoch, .dedupe = { dedupe, wh->dedupe_n },
	    .bad = r->bad_n };
	struct net_piece piece = { r->data, r->got, 0 };

	mem_put(&r->sums_buf);		/* who asks has the same */
	if (rc == 0 && r->got != wh->len)
		rc = ERR_CORRUPT;
	rc = storage_read_rc(f->t, f->id, wh->version, rc);
	storage_dedupe_out(dedupe, wh->dedupe, wh->dedupe_n);
	list_remove(&f->node);
	if (rc != 0) {
		net_reply(f->req, rc, NULL, NULL, 0, NULL, NULL);
		mem_put(&r->buf);
		free(f);
	} else {
		net_reply(f->req, 0, &rep, &piece, r->got > 0, fetch_sent, f);
	}
}

static void
fetch_end(struct storage_fetch *f, int rc)
{
	list_remove(&f->node);
	net_reply(f->req, rc, NULL, NULL, 0, NULL, NULL);
	free(f);
}

static void
fetch_start(struct storage_fetch *f)
{
	const struct msg_fetch *m = f->req->msg;
	struct chunk_engine *e = f->t->disk->engine;
	struct chunk_info info;
	int rc = storage_info_rc(f->t, chunk_engine_info(e, m->target, m->chunk, &info));

	if (rc == 0)
		rc = storage_whole_of(&f->whole, &info, m->version);
	if (rc == 0 && f->whole.len > f->req->recv_len)
		rc = -EMSGSIZE;
	if (rc != 0) {
		fetch_end(f, rc);
		return;
	}
	f->r = (struct chunk_read){ .target = m->target, .id = m->chunk,
	    .version = m->version, .len = f->whole.len, .anyhow = m->anyhow != 0 };
	if (f->r.len > 0)
		chunk_read_start(&f->r, e, fetch_read);
	else
		fetch_read(&f->r, 0);
}

static void
fetch_settled(struct storage_op *op, int rc)
{
	struct storage_fetch *f = op->ctx;

	if (rc == 0)
		fetch_start(f);
	else
		fetch_end(f, ERR_BUSY);
}

/* To our predecessor -ENOENT tells that nobody from us on has that version: so first let
 * what is under way end, and clear up our own doubts. */
static int
fetch_settle(struct storage_fetch *f)
{
	const struct msg_fetch *m = f->req->msg;
	struct storage_op *op = storage_op_get(f->w, f->t);

	if (op == NULL)
		return -ENOMEM;
	op->done = fetch_settled;
	op->ctx = f;
	op->shift = LAYOUT_SHIFT_MIN;
	while (op->shift < LAYOUT_SHIFT_MAX &&
	    1u << op->shift < f->req->recv_len)
		op->shift++;
	op->craq.kind = CRAQ_SETTLE;
	op->craq.id = m->chunk;
	op->craq.chain_version = m->chain_version;
	op->craq.deadline_ns = f->req->deadline_ns;
	return storage_op_start(op);
}

void
storage_fetch_call(struct storage_worker *w, struct net_req *req)
{
	const struct msg_fetch *m = req->msg;
	struct storage_fetch *f = NULL;
	struct storage_target *t;
	bool settle = m->fence != 0;	/* else another replica repairs its copy */
	int rc = storage_check(w, STORAGE_READ, m->target, m->chain,
	    m->chain_version, &t);

	if (rc == 0 && settle) {
		rc = t->craq.head ? ERR_NOT_OWNER : chunk_craq_fence(&t->craq,
		    m->floor, m->chunk, m->fence);
		settle = chunk_craq_busy(w->craq, &t->craq, m->chunk);
	}
	if (rc == 0 && (f = calloc(1, sizeof(*f))) == NULL)
		rc = -ENOMEM;
	if (rc != 0) {
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
		return;
	}
	f->w = w;
	f->t = t;
	f->req = req;
	f->id = m->chunk;
	list_push_back(&w->fetches, &f->node);
	if (!settle)
		fetch_start(f);
	else if ((rc = fetch_settle(f)) != 0)
		fetch_end(f, rc);
}

void
storage_fetches_close(struct storage_worker *w)
{
	struct list *it;

	while ((it = list_pop_front(&w->fetches)) != NULL) {
		struct storage_fetch *f = list_entry(it, struct storage_fetch,
		    node);

		net_req_drop(f->req);
		free(f);
	}
}
