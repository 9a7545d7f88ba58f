/* SPDX-License-Identifier: MIT */
/* storage_write.c - requests that become operations: writes of clients at heads, updates from
 * predecessors.  Check, receive the payload, admit. */
#include <errno.h>
#include <stdatomic.h>

#include "conf/err.h"
#include "roles/storage_impl.h"

static void
refuse(struct storage_op *op, int rc)
{
	net_reply(op->req, rc, NULL, NULL, 0, NULL, NULL);
	storage_op_drop(op);
}

static void
pulled(struct net_req *req, int rc)
{
	struct storage_op *op = req->user;
	struct storage_worker *w = op->w;

	if (rc == 0 && !storage_lease(w))
		rc = ERR_NO_LEASE;
	if (rc == 0 && atomic_load(&op->t->disk->failed))
		rc = ERR_CHAIN_RECOVERING;
	if (rc != 0) {
		refuse(op, rc);
		return;
	}
	rc = storage_op_start(op);
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

/* Room for the payload, placed as the engine wants it; then receive it. */
static void
take(struct storage_op *op)
{
	struct storage_worker *w = op->w;
	struct net_req *req = op->req;
	uint32_t pad = op->offset % CHUNK_BLOCK;
	struct iovec iov;
	int rc;

	req->user = op;
	/* What is sent to a syncing replica is paced by its sender. */
	if (!op->craq.force) {
		op->fore = true;
		storage_fore_begin(w);
	}
	if (op->len == 0) {
		pulled(req, 0);
		return;
	}
	if (!storage_memory(w, op->t->v.pos, op->t->v.active_n, op->len)) {
		refuse(op, ERR_BUSY);
		return;
	}
	rc = mem_get(w->pool, (size_t)(pad + op->len + CHUNK_BLOCK - 1) /
	    CHUNK_BLOCK * CHUNK_BLOCK, &op->buf);
	if (rc != 0) {
		refuse(op, rc);
		return;
	}
	op->lent = op->buf;
	op->data = op->buf.p + pad;
	iov = (struct iovec){ op->data, op->len };
	net_pull_start(req, &iov, 1, pulled);
}

void
storage_write_call(struct storage_worker *w, struct net_req *req)
{
	const struct msg_write *m = req->msg;
	struct storage_target *t;
	struct storage_op *op = NULL;
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
	if (rc == 0 && (m->len == 0 || m->len != req->bulk_len ||
	    m->chunk_shift < LAYOUT_SHIFT_MIN ||
	    m->chunk_shift > LAYOUT_SHIFT_MAX ||
	    (uint64_t)m->offset + m->len > 1u << m->chunk_shift ||
	    m->seq == 0 || m->epoch == UINT32_MAX || m->chunk.ino == 0))
		rc = -EINVAL;
	if (rc == 0 && (op = storage_op_get(w, t)) == NULL)
		rc = -ENOMEM;
	if (rc != 0) {
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
		return;
	}
	op->req = req;
	op->start_ns = clock_now(w->clock);
	op->shift = m->chunk_shift;
	op->offset = m->offset;
	op->len = m->len;
	op->crc = m->crc;
	op->craq.kind = CRAQ_WRITE;
	op->craq.id = m->chunk;
	op->craq.chain_version = m->chain_version;
	op->craq.update = UPDATE_WRITE;
	op->craq.epoch = m->epoch;
	op->epoch_at = m->epoch_at;
	op->at = m->at;
	op->craq.client = m->client;
	op->craq.seq = m->seq;
	op->craq.deadline_ns = req->deadline_ns;
	take(op);
}

static bool
update_valid(const struct msg_update *m, const struct net_req *req)
{
	if (m->len != req->bulk_len || m->version == 0 || m->attempt == 0 ||
	    m->chunk.ino == 0 || m->dedupe.n > CHUNK_DEDUPE_MAX ||
	    (m->sums.n > 0 && (m->kind != UPDATE_REPLACE || !m->force)))
		return false;
	switch (m->kind) {
	case UPDATE_WRITE:
		if (m->len == 0 || m->force)
			return false;
		break;
	case UPDATE_REPLACE:
		if (m->offset != 0)
			return false;
		break;
	case UPDATE_TRUNCATE:
		if (m->len != 0 || m->force)
			return false;
		break;
	case UPDATE_REMOVE:
		return m->len == 0;
	default:
		return false;
	}
	return m->chunk_shift >= LAYOUT_SHIFT_MIN &&
	    m->chunk_shift <= LAYOUT_SHIFT_MAX &&
	    (uint64_t)m->offset + m->len <= 1u << m->chunk_shift &&
	    (m->force || m->version > m->base);
}

void
storage_update_call(struct storage_worker *w, struct net_req *req)
{
	const struct msg_update *m = req->msg;
	struct storage_target *t;
	struct storage_op *op = NULL;
	int rc = storage_check(w, STORAGE_UPDATE, m->target, m->chain,
	    m->chain_version, &t);

	if (rc == 0 && (!update_valid(m, req) || t->craq.syncing != (m->force != 0)))
		rc = -EINVAL;
	if (rc == 0)
		rc = chunk_craq_fence(&t->craq, m->floor, m->chunk, m->fence);
	if (rc == 0 && (op = storage_op_get(w, t)) == NULL)
		rc = -ENOMEM;
	if (rc != 0) {
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
		return;
	}
	op->req = req;
	op->shift = m->chunk_shift;
	op->offset = m->offset;
	op->len = m->len;
	op->crc = m->crc;
	if (m->kind == UPDATE_REPLACE) {
		storage_dedupe_in(op->dedupe_copy, &op->dedupe_n, &m->dedupe);
		op->dedupe = op->dedupe_copy;
		op->sums = m->sums.v;	/* the message stays until it is answered */
		op->sum_n = m->sums.n;
	}
	op->craq.kind = CRAQ_UPDATE;
	op->craq.force = m->force != 0;
	op->craq.id = m->chunk;
	op->craq.chain_version = m->chain_version;
	op->craq.update = m->kind;
	op->craq.epoch = m->epoch;
	op->craq.version = m->version;
	op->craq.base = m->base;
	op->craq.attempt = m->attempt;
	op->craq.check = m->check;
	op->craq.client = m->client;
	op->craq.seq = m->seq;
	op->craq.deadline_ns = req->deadline_ns;
	take(op);
}
