/* SPDX-License-Identifier: MIT */
/* storage_op.c - operations on chunks: does what chunk/craq.c says.
 *
 *   request -> pull payload -> admit -> effects of the core ... -> REPLY -> answer, free
 *
 * The payload stays in one buffer: received into it, stored from it, forwarded from it.
 * Pads of the engine lie outside the payload, so both may go on at once. */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "conf/crc32c.h"
#include "conf/err.h"
#include "roles/storage_impl.h"

void
storage_dedupe_in(struct chunk_dedupe *out, uint32_t *n,
    const msg_t_list_dedupe *in)
{
	*n = in->n < CHUNK_DEDUPE_MAX ? in->n : CHUNK_DEDUPE_MAX;
	for (uint32_t i = 0; i < *n; i++)
		out[i] = (struct chunk_dedupe){ in->v[i].client, in->v[i].seq,
		    in->v[i].version };
}

void
storage_dedupe_out(struct msg_dedupe *out, const struct chunk_dedupe *in,
    uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		out[i] = (struct msg_dedupe){ .client = in[i].client,
		    .seq = in[i].seq, .version = in[i].version };
}

struct storage_op *
storage_op_get(struct storage_worker *w, struct storage_target *t)
{
	struct list *free_one = list_pop_front(&w->free_ops);
	struct storage_op *op;

	if (free_one != NULL) {
		op = list_entry(free_one, struct storage_op, node);
		w->free_ops_n--;
		memset(op, 0, sizeof(*op));
	} else if ((op = calloc(1, sizeof(*op))) == NULL) {
		return NULL;
	}
	op->w = w;
	op->t = t;
	op->craq.target = &t->craq;
	list_init(&op->in_attempts);
	list_push_back(&w->ops, &op->node);
	return op;
}

void
storage_whole_drop(struct storage_whole *wh)
{
	mem_put(&wh->buf);
	mem_put(&wh->sums_buf);
}

void
storage_op_drop(struct storage_op *op)
{
	struct storage_worker *w = op->w;

	if (op->fore)
		storage_fore_end(w, op->len);
	op->fore = false;
	if (op->leaving) {
		op->over = true;
		op->req = NULL;
		return;
	}
	storage_pieces_drop(op);
	mem_put(&op->buf);
	storage_whole_drop(&op->whole);
	list_remove(&op->node);
	if (w->free_ops_n < STORAGE_OPS_KEEP) {
		w->free_ops_n++;
		list_push_front(&w->free_ops, &op->node);
	} else {
		free(op);
	}
}

static void
step(struct storage_op *op, struct chunk_craq_event *ev)
{
	ev->op = &op->craq;
	ev->now_ns = clock_now(op->w->clock);
	(void)chunk_craq_step(op->w->craq, ev);
}

int
storage_op_start(struct storage_op *op)
{
	struct storage_worker *w = op->w;
	struct chunk_craq_event ev = { .kind = CRAQ_EV_ADMIT, .op = &op->craq,
	    .now_ns = clock_now(w->clock) };
	int rc = chunk_craq_step(w->craq, &ev);

	if (rc != 0)
		storage_op_drop(op);
	else
		storage_run(w);
	return rc;
}

/* ---- effects ---- */

/* The engine's own marks count more exactly; this one keeps a write from being forwarded
 * that we are about to refuse.  At either end a checksum block may have to be moved. */
static bool
room(const struct storage_op *op)
{
	const struct storage_disk *d = op->t->disk;
	uint64_t capacity, used, need = op->len + 2ull * chunk_sum_bytes(op->shift);

	if (op->craq.kind != CRAQ_REPAIR && op->craq.update != UPDATE_WRITE &&
	    op->craq.update != UPDATE_REPLACE)
		return true;
	chunk_engine_space(d->engine, &capacity, &used);
	return !chunk_engine_full(d->engine) && used + d->storing_bytes + need <=
	    capacity / 100 * op->w->env->conf->storage_full;
}

static void
look(struct storage_op *op)
{
	struct storage_worker *w = op->w;
	struct chunk_info info;
	int rc = chunk_engine_info(op->t->disk->engine, op->t->v.target,
	    op->craq.id, &info);
	struct chunk_craq_event ev = { .kind = CRAQ_EV_INFO,
	    .rc = rc == -ENOENT ? 0 : rc, .info = rc == 0 ? &info : NULL,
	    .room = room(op) };

	ev.rc = storage_info_rc(op->t, ev.rc);
	if (op->craq.kind == CRAQ_WRITE)
		ev.epoch_floor = storage_cut_floor(w, op->t->v.target,
		    op->craq.id);
	/* A chunk that is not here may have been cut off before we were the head, or by a cut
	 * that is forgotten: who makes it has to have asked for the epoch since. */
	if (op->craq.kind == CRAQ_WRITE && rc == -ENOENT && ((op->epoch_at != 0 &&
	    op->epoch_at < op->t->head_since) || storage_cut_forgotten(w, op->craq.id.ino,
	    op->at)))
		ev.epoch_floor = UINT32_MAX;
	step(op, &ev);
}

static void
load_event(struct storage_op *op, int rc)
{
	struct chunk_craq_event ev = { .kind = CRAQ_EV_LOADED, .rc = rc,
	    .epoch = op->whole.epoch, .check = op->whole.digest };

	step(op, &ev);
}

/* The one behind us syncs: a damaged chunk is damaged there as well then, block by block, and
 * anybody who reads it is told so.  To wait for better bytes would keep all others from being
 * safe, and writes to this one from ending. */
static bool
as_it_is(const struct storage_op *op)
{
	return op->t->craq.whole && (op->craq.kind != CRAQ_SYNC || op->anyhow);
}

static void
load_done(struct chunk_read *r, int rc)
{
	struct storage_op *op = container_of(r, struct storage_op, load);

	op->disk_tick = 0;
	if (rc == ERR_CORRUPT && !r->anyhow && !op->craq.stale && as_it_is(op)) {
		r->anyhow = true;
		op->disk_tick = op->w->ticks;
		chunk_read_start(r, op->t->disk->engine, load_done);
		return;
	}
	if (rc == 0) {
		op->whole.buf = r->buf;
		op->whole.data = (uint8_t *)(uintptr_t)r->data;
		op->whole.crc = r->crc;
		op->whole.sums_buf = r->sums_buf;
		if (r->bad_n > 0) {
			op->whole.sums = r->sums;
			op->whole.sum_n = r->sum_n;
		}
		if (r->got != op->whole.len)
			rc = ERR_CORRUPT;
	}
	rc = storage_read_rc(op->t, op->craq.id, op->load.version, rc);
	load_event(op, rc);
	storage_run(op->w);
}

/* What is known of @version, pending or committed, as what goes with its bytes. 0, -ENOENT. */
int
storage_whole_of(struct storage_whole *wh, const struct chunk_info *info,
    uint64_t version)
{
	bool pending = info->pending == version;

	if (version == 0 || (pending ? info->pending_removed :
	    info->committed != version))
		return -ENOENT;
	*wh = (struct storage_whole){ .version = version, .shift = info->shift,
	    .len = pending ? info->pending_len : info->committed_len,
	    .epoch = pending ? info->pending_epoch : info->committed_epoch,
	    .digest = chunk_craq_digest(info, version) };
	/* The list includes the write that is pending. */
	for (uint32_t i = 0; i < info->dedupe_n; i++)
		if (info->dedupe[i].version <= version)
			wh->dedupe[wh->dedupe_n++] = info->dedupe[i];
	return 0;
}

/* Our own version, to be sent whole. */
static void
load(struct storage_op *op, uint64_t version)
{
	struct storage_whole *wh = &op->whole;
	struct chunk_engine *e = op->t->disk->engine;
	struct chunk_info info;
	int rc;

	storage_whole_drop(wh);
	*wh = (struct storage_whole){ 0 };
	rc = chunk_engine_info(e, op->t->v.target, op->craq.id, &info);
	if (rc == 0)
		rc = storage_whole_of(wh, &info, version);
	if (rc != 0 || wh->len == 0) {
		load_event(op, rc == -ENOENT ? -EIO : rc);
		return;
	}
	if (op->store.version == version && op->store.kind == UPDATE_WRITE &&
	    op->store.offset == 0 && op->store.len == wh->len) {
		/* What we have just stored is all of it. */
		wh->data = op->data;
		wh->crc = op->crc;
		load_event(op, 0);
		return;
	}
	op->load = (struct chunk_read){ .target = op->t->v.target,
	    .id = op->craq.id, .version = version, .len = wh->len };
	op->disk_tick = op->w->ticks;
	chunk_read_start(&op->load, e, load_done);
}

static uint64_t
floor_of(const struct storage_target *t)
{
	if (list_empty(&t->attempts))
		return t->attempt + 1;
	return list_entry(t->attempts.next, struct storage_op,
	    in_attempts)->attempt;
}

static void fetch_next(struct storage_op *op);

/* The call was given up, and has ended: nobody waits for what became of it. */
static bool
has_left(struct storage_op *op)
{
	if (!op->leaving)
		return false;
	op->leaving = false;
	if (op->over)
		storage_op_drop(op);
	return true;
}

static void
fetch_done(struct net_call *c, int rc)
{
	struct storage_op *op = container_of(c, struct storage_op, call);
	const struct msg_fetch_rep *rep = c->rep;
	struct storage_whole *wh = &op->whole;

	if (has_left(op))
		return;
	if (rc == 0) {
		if (rep->version != wh->version || rep->len > wh->buf.size ||
		    rep->len != c->rep_bulk ||
		    rep->chunk_shift < LAYOUT_SHIFT_MIN ||
		    rep->chunk_shift > LAYOUT_SHIFT_MAX ||
		    crc32c(0, wh->data, rep->len) != rep->crc) {
			rc = ERR_PAYLOAD_CRC;
		} else {
			wh->len = rep->len;
			wh->crc = rep->crc;
			wh->epoch = rep->epoch;
			wh->shift = rep->chunk_shift;
			storage_dedupe_in(wh->dedupe, &wh->dedupe_n,
			    &rep->dedupe);
		}
	}
	if (rc == -ENOENT) {
		/* From the successor that is an answer; of others one may have it. */
		if (op->craq.kind != CRAQ_REPAIR && op->fetch_at == op->t->v.pos + 1u) {
			load_event(op, rc);
			storage_run(op->w);
			return;
		}
	} else if (rc != 0) {
		op->fetch_rc = rc;
		op->fetch_rotten |= rc == ERR_CORRUPT;
		log_warn(&op->w->env->log, "fetch failed",
		    "chain=%u replica=%u ino=%llu index=%u rc=%s",
		    op->t->v.chain, op->fetch_at,
		    (unsigned long long)op->craq.id.ino, op->craq.id.index,
		    err_name(rc));
	}
	if (rc == 0 && op->pieces != NULL && !storage_pieces_add(op, wh->data, wh->len))
		fetch_next(op);
	else if (rc == 0 && op->pieces != NULL)
		load_event(op, storage_pieces_take(op) ? 0 : ERR_BUSY);
	else if (rc == 0)
		load_event(op, 0);
	else
		fetch_next(op);
	storage_run(op->w);
}

/* Ours is read: now what others have of it. */
static void
pieces_read(struct storage_op *op, int rc)
{
	if (rc != 0) {
		load_event(op, ERR_BUSY);
	} else {
		op->fetch_at = UINT_MAX;
		fetch_next(op);
	}
	storage_run(op->w);
}

/* All have been asked. */
static void
fetch_end(struct storage_op *op)
{
	bool repair = op->craq.kind == CRAQ_REPAIR;

	if (repair && op->fetch_rotten && op->fetch_from == 0 && op->pieces == NULL &&
	    storage_pieces_start(op, op->whole.version, pieces_read) == 0)
		return;
	if (op->pieces != NULL && storage_pieces_take(op))
		load_event(op, 0);
	else
		load_event(op, op->fetch_rc != 0 || !repair ? ERR_BUSY : -ENOENT);
}

/* Only who serves has anything to give. */
static bool
fetch_peer(struct storage_op *op)
{
	const struct storage_view_chain *v = &op->t->v;

	do
		op->fetch_at++;
	while (op->fetch_at == v->pos || (op->fetch_from != 0 &&
	    op->fetch_at < v->serving_n && v->replicas[op->fetch_at] != op->fetch_from));
	return op->fetch_at < v->serving_n;
}

/* From the replicas behind us, the next one first; for a repair, from any other. */
static void
fetch_next(struct storage_op *op)
{
	struct storage_target *t = op->t;
	struct storage_whole *wh = &op->whole;
	struct msg_fetch req = { .chain = t->v.chain,
	    .chain_version = t->v.version, .chunk = op->craq.id,
	    .version = wh->version, .anyhow = op->pieces != NULL };

	while (fetch_peer(op)) {
		bool settle = op->craq.kind != CRAQ_REPAIR &&
		    op->fetch_at == t->v.pos + 1u;
		struct net_call_opts opts = {
		    .deadline_ns = op->craq.deadline_ns,
		    .recv = &op->iov, .recv_n = 1 };
		int rc;

		op->iov = (struct iovec){ wh->buf.p, wh->buf.size };
		req.target = t->v.replicas[op->fetch_at];
		req.floor = settle ? floor_of(t) : 0;
		req.fence = settle ? t->attempt + 1 : 0;
		rc = net_call_start(&op->call, op->w->env->hub,
		    &t->v.addrs[op->fetch_at], MSG_fetch, &req, &opts, fetch_done);
		if (rc == 0)
			return;
		op->fetch_rc = rc;
	}
	fetch_end(op);
}

static void
fetch(struct storage_op *op, uint64_t version)
{
	struct storage_whole *wh = &op->whole;
	bool repair = op->craq.kind == CRAQ_REPAIR;
	struct chunk_info info;

	storage_whole_drop(wh);
	*wh = (struct storage_whole){ .version = version };
	if (repair && chunk_engine_info(op->t->disk->engine, op->t->v.target,
	    op->craq.id, &info) == 0)
		op->shift = info.shift;
	if (mem_get(op->w->pool, (size_t)1 << op->shift, &wh->buf) != 0) {
		load_event(op, ERR_BUSY);
		return;
	}
	wh->data = wh->buf.p;
	op->fetch_rc = 0;
	op->fetch_rotten = false;
	storage_pieces_drop(op);
	/* fetch_peer() goes on from here. */
	op->fetch_at = repair ? UINT_MAX : op->t->v.pos;
	fetch_next(op);
}

static void
store_done(struct chunk_write *cw, int rc)
{
	struct storage_op *op = container_of(cw, struct storage_op, store);
	struct chunk_craq_event ev = { .kind = CRAQ_EV_STORED, .rc = rc,
	    .len = cw->new_len, .check = cw->check };

	op->disk_tick = 0;
	op->t->disk->storing_bytes -= op->storing_bytes;
	if (rc == -EIO)
		storage_disk_failed(op->t->disk, "store", rc);
	step(op, &ev);
	storage_run(op->w);
}

static void
store(struct storage_op *op, const struct chunk_craq_effect *eff)
{
	struct chunk_write *cw = &op->store;

	*cw = (struct chunk_write){ .target = op->t->v.target,
	    .id = op->craq.id, .kind = eff->update, .shift = op->shift,
	    .epoch = eff->epoch, .version = eff->version };
	if (eff->loaded && eff->update == UPDATE_REPLACE) {
		cw->shift = op->whole.shift;
		cw->len = op->whole.len;
		cw->crc = op->whole.crc;
		cw->data = op->whole.data;
		cw->buf = op->whole.buf;
		cw->sums = op->whole.sums;
		cw->sum_n = op->whole.sum_n;
		cw->dedupe = op->whole.dedupe;
		cw->dedupe_n = op->whole.dedupe_n;
	} else {
		cw->offset = op->offset;
		cw->len = op->len;
		cw->crc = op->crc;
		cw->data = op->data;
		cw->buf = op->lent;
		if (eff->update == UPDATE_REPLACE) {
			cw->sums = op->sums;
			cw->sum_n = op->sum_n;
			cw->dedupe = op->dedupe;
			cw->dedupe_n = op->dedupe_n;
		} else if (eff->update == UPDATE_WRITE) {
			cw->who = (struct chunk_dedupe){ op->craq.client,
			    op->craq.seq, eff->version };
		}
	}
	op->storing_bytes = cw->len;
	op->t->disk->storing_bytes += cw->len;
	op->disk_tick = op->w->ticks;
	chunk_write_start(cw, op->t->disk->engine, store_done);
}

/* A removal over whatever is here, and that at once. */
static void
purge_done(struct chunk_write *cw, int rc)
{
	struct storage_op *op = container_of(cw, struct storage_op, store);
	struct chunk_craq_event ev = { .kind = CRAQ_EV_STORED };

	op->disk_tick = 0;
	if (rc == 0)
		rc = chunk_engine_commit(op->t->disk->engine, op->t->v.target,
		    op->craq.id, cw->version);
	if (rc == -EIO)
		storage_disk_failed(op->t->disk, "purge", rc);
	ev.rc = rc;
	step(op, &ev);
	storage_run(op->w);
}

static void
purge(struct storage_op *op, uint64_t version)
{
	op->store = (struct chunk_write){ .target = op->t->v.target,
	    .id = op->craq.id, .kind = UPDATE_REMOVE, .shift = op->shift,
	    .version = version };
	op->disk_tick = op->w->ticks;
	chunk_write_start(&op->store, op->t->disk->engine, purge_done);
}

static void
forward_event(struct storage_op *op, int rc, const struct msg_update_rep *rep)
{
	struct chunk_craq_event ev = { .kind = CRAQ_EV_FORWARDED, .rc = rc };

	list_remove(&op->in_attempts);
	storage_apart_answered(op->t, rc);
	if (rc == 0) {
		ev.version = rep->version;
		ev.len = rep->len;
		ev.check = rep->check;
	} else {
		log_debug(&op->w->env->log, "forward failed",
		    "chain=%u version=%u ino=%llu index=%u rc=%s",
		    op->t->v.chain, op->t->v.version,
		    (unsigned long long)op->craq.id.ino, op->craq.id.index,
		    err_name(rc));
		/* On its way into our version it needs no word from us. */
		if (err_next(rc) == ERR_NEXT_REFRESH && rc != ERR_CHAIN_RECOVERING)
			storage_refresh(op->w);
		if (op->t->craq.whole && op->craq.chain_version == op->t->v.version)
			storage_sync_refused(op->t, rc, op->forward_ns);
	}
	step(op, &ev);
}

static void
forward_done(struct net_call *c, int rc)
{
	struct storage_op *op = container_of(c, struct storage_op, call);

	if (has_left(op))
		return;
	forward_event(op, rc, c->rep);
	storage_run(op->w);
}

static void
forward(struct storage_op *op, const struct chunk_craq_effect *eff)
{
	struct storage_target *t = op->t;
	struct msg_dedupe dedupe[CHUNK_DEDUPE_MAX];
	struct msg_update m = { .chain = t->v.chain,
	    .chain_version = t->v.version, .chunk = op->craq.id,
	    .chunk_shift = op->shift, .kind = eff->update,
	    .epoch = eff->epoch, .version = eff->version, .base = eff->base,
	    .force = eff->force, .check = eff->check };
	struct net_call_opts opts = { .deadline_ns = op->craq.deadline_ns };
	unsigned next = t->v.pos + 1u;
	int rc;

	assert(next < t->v.active_n);
	if (op->forward_ns == 0)
		op->forward_ns = clock_now(op->w->clock);
	op->iov = (struct iovec){ NULL, 0 };
	m.target = t->v.replicas[next];
	if (eff->loaded && eff->update == UPDATE_REPLACE) {
		m.chunk_shift = op->whole.shift;
		m.len = op->whole.len;
		m.crc = op->whole.crc;
		op->iov = (struct iovec){ op->whole.data, m.len };
		storage_dedupe_out(dedupe, op->whole.dedupe,
		    op->whole.dedupe_n);
		m.dedupe.v = dedupe;
		m.dedupe.n = op->whole.dedupe_n;
		m.sums.v = (uint32_t *)(uintptr_t)op->whole.sums;
		m.sums.n = op->whole.sum_n;
	} else if (eff->update != UPDATE_REMOVE) {
		m.offset = op->offset;
		m.len = op->len;
		m.crc = op->crc;
		op->iov = (struct iovec){ op->data, m.len };
		if (eff->update == UPDATE_REPLACE) {
			storage_dedupe_out(dedupe, op->dedupe, op->dedupe_n);
			m.dedupe.v = dedupe;
			m.dedupe.n = op->dedupe_n;
		} else {
			m.client = op->craq.client;
			m.seq = op->craq.seq;
		}
	}
	if (m.len > 0) {
		opts.send = &op->iov;
		opts.send_n = 1;
	}
	op->attempt = m.attempt = ++t->attempt;
	list_push_back(&t->attempts, &op->in_attempts);
	storage_apart_asked(t);
	m.floor = floor_of(t);
	m.fence = eff->unsure ? m.attempt : 0;
	rc = net_call_start(&op->call, op->w->env->hub, &t->v.addrs[next],
	    MSG_update, &m, &opts, forward_done);
	if (rc != 0)
		forward_event(op, rc, NULL);
}

static void
woken(struct clock_timer *timer)
{
	struct storage_op *op = container_of(timer, struct storage_op, wake);
	struct chunk_craq_event ev = { .kind = CRAQ_EV_WOKEN };

	step(op, &ev);
	storage_run(op->w);
}

static void
count(struct storage_op *op, const struct chunk_craq_effect *eff)
{
	struct storage_stat *stat = &op->w->stat;

	if (op->req == NULL || eff->rc != 0 || op->req->method == MSG_mend)
		return;
	if (op->req->method == MSG_write) {
		stat_add(&stat->writes, 1);
		stat_add(&stat->write_bytes, op->len);
		stat_hist_add(&stat->write_ns, clock_now(op->w->clock) -
		    op->start_ns);
	} else {
		stat_add(&stat->updates, 1);
		stat_add(&stat->update_bytes, op->len);
	}
	stat_add(&stat->repeats, !eff->touched);
}

static void
reply(struct storage_op *op, const struct chunk_craq_effect *eff)
{
	const struct log *log = &op->w->env->log;
	int rc = eff->rc;

	if (eff->rc == ERR_CORRUPT || eff->rc == ERR_VERSION_GAP)
		log_at(log, eff->rc == ERR_CORRUPT ? LOG_ERROR : LOG_WARN,
		    "chunk not updated",
		    "chain=%u version=%u target=%u ino=%llu index=%u rc=%s",
		    op->t->v.chain, op->craq.chain_version, op->t->v.target,
		    (unsigned long long)op->craq.id.ino, op->craq.id.index,
		    err_name(eff->rc));
	if (eff->no_space)
		storage_unfit(op->t);
	if (eff->rc != 0)
		storage_left_note(op);
	count(op, eff);
	/* The chain goes on without this disk as soon as the manager knows. */
	if (rc == -EIO && atomic_load(&op->t->disk->failed))
		rc = ERR_CHAIN_RECOVERING;
	if (op->req == NULL) {
		op->touched = eff->touched;
		op->done(op, rc);
	} else if (op->req->method == MSG_write) {
		struct msg_write_rep rep = { .version = eff->version,
		    .len = eff->len };

		net_reply(op->req, rc, rc == 0 ? &rep : NULL, NULL, 0,
		    NULL, NULL);
	} else if (op->req->method == MSG_mend) {
		net_reply(op->req, rc, NULL, NULL, 0, NULL, NULL);
	} else {
		struct msg_update_rep rep = { .version = eff->version,
		    .len = eff->len, .check = eff->check };

		net_reply(op->req, rc, rc == 0 ? &rep : NULL, NULL, 0,
		    NULL, NULL);
	}
	storage_op_drop(op);
}

void
storage_run(struct storage_worker *w)
{
	struct chunk_craq_effect eff;

	if (w->running)
		return;			/* the caller's caller goes on */
	w->running = true;
	while (chunk_craq_next(w->craq, &eff)) {
		struct storage_op *op = container_of(eff.op, struct storage_op,
		    craq);
		struct chunk_engine *e = op->t->disk->engine;
		int rc;

		switch (eff.kind) {
		case CRAQ_CANCEL:
			op->leaving = !net_call_leave(&op->call);
			list_remove(&op->in_attempts);
			clock_timer_stop(w->clock, &op->wake);
			break;
		case CRAQ_COMMIT:
			/* It is durable and so is what is behind us; if this disk
			 * cannot show it, it must not show anything older. */
			rc = chunk_engine_commit(e, op->t->v.target, op->craq.id,
			    eff.version);
			assert(rc != -ENOENT);
			if (rc != 0)
				storage_disk_failed(op->t->disk, "commit", rc);
			break;
		case CRAQ_ABORT:
			(void)chunk_engine_abort(e, op->t->v.target,
			    op->craq.id, eff.version);
			break;
		case CRAQ_LOOK:
			look(op);
			break;
		case CRAQ_LOAD:
			load(op, eff.version);
			break;
		case CRAQ_FETCH:
			fetch(op, eff.version);
			break;
		case CRAQ_PURGE:
			purge(op, eff.version);
			break;
		case CRAQ_STORE:
			store(op, &eff);
			break;
		case CRAQ_FORWARD:
			forward(op, &eff);
			break;
		case CRAQ_WAKE:
			clock_timer_start(w->clock, &op->wake, eff.at_ns, woken);
			break;
		case CRAQ_REPLY:
			reply(op, &eff);
			break;
		}
	}
	w->running = false;
	if (!list_empty(&w->settling))
		storage_settle(w);
}

/* In ticks of our own: when this process or its machine was stopped for a while, the disk may
 * have answered long ago. */
void
storage_ops_watch(struct storage_worker *w)
{
	list_for_each(it, &w->ops) {
		struct storage_op *op = list_entry(it, struct storage_op, node);

		if (op->disk_tick != 0 &&
		    w->ticks - op->disk_tick > STORAGE_STUCK_TICKS)
			storage_disk_failed(op->t->disk, "no answer", -ETIMEDOUT);
	}
}

void
storage_ops_close(struct storage_worker *w)
{
	struct list *it;

	while ((it = list_pop_front(&w->ops)) != NULL) {
		struct storage_op *op = list_entry(it, struct storage_op, node);

		net_call_cancel(&op->call);
		clock_timer_stop(w->clock, &op->wake);
		list_remove(&op->in_attempts);
		if (op->req != NULL)
			net_req_drop(op->req);
		storage_pieces_drop(op);
		mem_put(&op->buf);
		storage_whole_drop(&op->whole);
		free(op);
	}
	while ((it = list_pop_front(&w->free_ops)) != NULL)
		free(list_entry(it, struct storage_op, node));
	w->free_ops_n = 0;
}
