/* SPDX-License-Identifier: MIT */
/* storage_read.c - reads at any replica, and the two questions only the tail answers.
 *
 *   clean chunk  ---------------------------> read what is committed
 *   dirty chunk  -> ask the tail its version -> read that one: it is here, pending or
 *                        ^                      committed
 *                        +-- not yet, or not any more: again after a pause
 *
 * The items of one request go their ways side by side; the answer is sent from the
 * engine's buffers, which are put back when it has left. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "roles/storage_impl.h"

#define ASKS_MAX	8u		/* then the reader has to come again */
#define ASK_PAUSE_NS	NS_PER_MS	/* doubles */

struct item {
	struct storage_read *rd;
	struct chunk_read r;
	struct net_call	ask;
	uint32_t	tries;
	bool		waiting, done;
	int		rc;
};

struct storage_read {
	struct storage_worker *w;
	struct storage_target *t;
	struct list	node;
	struct net_req *req;
	uint32_t	version;	/* of the chain, when it was asked */
	uint64_t	start_ns;
	unsigned	n, left;
	struct clock_timer pause;
	struct item	items[];
};

static void
release(struct storage_read *rd)
{
	for (unsigned i = 0; i < rd->n; i++)
		if (rd->items[i].done)
			mem_put(&rd->items[i].r.buf);
	free(rd);
}

static void
sent(void *arg)
{
	release(arg);
}

static void
finish(struct storage_read *rd)
{
	const struct msg_read *m = rd->req->msg;
	struct msg_read_result results[STORAGE_BATCH_MAX];
	struct net_piece pieces[STORAGE_BATCH_MAX];
	struct msg_read_rep rep = { .items = { results, rd->n } };
	unsigned piece_n = 0;
	uint32_t off = 0;
	uint64_t bytes = 0;

	for (unsigned i = 0; i < rd->n; i++) {
		struct item *it = &rd->items[i];
		struct msg_read_result *res = &results[i];

		*res = (struct msg_read_result){ .rc = it->rc };
		if (it->rc == 0) {
			res->len = it->r.got;
			res->version = it->r.got_version;
			res->crc = it->r.crc;
			stat_add(&rd->w->stat.reads, 1);
			stat_add(&rd->w->stat.read_bytes, it->r.got);
			bytes += it->r.got;
			if (it->r.got > 0)
				pieces[piece_n++] = (struct net_piece){
				    it->r.data, it->r.got, off };
		}
		off += m->items.v[i].len;
	}
	list_remove(&rd->node);
	clock_timer_stop(rd->w->clock, &rd->pause);
	storage_fore_end(rd->w, bytes);
	stat_hist_add(&rd->w->stat.read_ns, clock_now(rd->w->clock) - rd->start_ns);
	net_reply(rd->req, 0, &rep, pieces, piece_n, sent, rd);
}

int
storage_read_rc(struct storage_target *t, struct chunk_id id, uint64_t version, int rc)
{
	struct storage_worker *w = t->w;

	if (rc != -EIO && rc != ERR_CORRUPT)
		return rc;
	log_debug(&w->env->log, "chunk not readable",
	    "disk=%s target=%u ino=%llu index=%u version=%llx rc=%s", t->disk->path,
	    t->v.target, (unsigned long long)id.ino, id.index,
	    (unsigned long long)version, err_name(rc));
	stat_add(&w->stat.failed_reads, 1);
	if (rc == -EIO)
		storage_disk_failed(t->disk, "read", rc);
	return ERR_CORRUPT;		/* another replica may well have it */
}

/* What the engine said of a chunk, when it said that it cannot. */
int
storage_info_rc(struct storage_target *t, int rc)
{
	if (rc != -EIO)
		return rc;
	storage_disk_failed(t->disk, "look", rc);
	return ERR_CHAIN_RECOVERING;	/* it goes on without us */
}

static void
end(struct item *it, int rc)
{
	it->rc = rc;
	it->done = true;
	if (--it->rd->left == 0)
		finish(it->rd);
}

static void
read_done(struct chunk_read *r, int rc)
{
	struct item *it = container_of(r, struct item, r);

	if (rc != 0)
		r->buf = (struct mem_buf){ 0 };
	end(it, storage_read_rc(it->rd->t, r->id, r->version, rc));
}

static void start(struct item *it);

static void
paused(struct clock_timer *timer)
{
	struct storage_read *rd = container_of(timer, struct storage_read, pause);

	rd->left++;			/* ours, so that it outlives the walk */
	for (unsigned i = 0; i < rd->n; i++) {
		if (rd->items[i].waiting) {
			rd->items[i].waiting = false;
			start(&rd->items[i]);
		}
	}
	if (--rd->left == 0)
		finish(rd);
}

/* The tail and we differ just now: try once more soon. */
static void
pause_item(struct item *it)
{
	struct storage_read *rd = it->rd;
	struct clock *clock = rd->w->clock;
	uint64_t at = clock_now(clock) + (ASK_PAUSE_NS << it->tries);

	if (++it->tries > ASKS_MAX || at >= rd->req->deadline_ns) {
		end(it, ERR_BUSY);
		return;
	}
	it->waiting = true;
	if (rd->pause.pos == 0 || at < rd->pause.at_ns)
		clock_timer_start(clock, &rd->pause, at, paused);
}

/* Our chain is as it was when we were asked, and we may answer. */
static int
still(const struct storage_read *rd)
{
	if (rd->t->v.version != rd->version || rd->t->heard > rd->version ||
	    rd->t->gone)
		return ERR_STALE_CHAIN;
	if (atomic_load(&rd->t->disk->failed))
		return ERR_CORRUPT;
	return storage_lease(rd->w) ? 0 : ERR_NO_LEASE;
}

/* 0 with *found NULL when there is no such chunk.  A disk that has failed knows nothing:
 * that is an error, not an absent chunk. */
static int
look(const struct item *it, struct chunk_info *info, const struct chunk_info **found)
{
	int rc = chunk_engine_info(it->rd->t->disk->engine, it->r.target, it->r.id,
	    info);

	*found = rc == 0 ? info : NULL;
	return rc == -ENOENT ? 0 : storage_read_rc(it->rd->t, it->r.id, 0, rc);
}

static void
read_version(struct item *it, uint64_t version)
{
	it->r.version = version;
	chunk_read_start(&it->r, it->rd->t->disk->engine, read_done);
}

static void
answered(struct net_call *c, int rc)
{
	struct item *it = container_of(c, struct item, ask);
	const struct msg_committed_rep *rep = c->rep;
	const struct chunk_info *info;
	struct chunk_info buf;

	/* It is on its way into this version; or its disk has failed, and the chain moves.  An
	 * error of its disk says nothing of ours. */
	if (rc == ERR_CHAIN_RECOVERING || rc == -EIO) {
		if ((rc = still(it->rd)) == 0) {
			pause_item(it);
			return;
		}
	}
	if (rc == 0)
		rc = still(it->rd);
	if (rc == 0)
		rc = look(it, &buf, &info);
	if (rc != 0) {
		if (err_next(rc) == ERR_NEXT_REFRESH)
			storage_refresh(it->rd->w);
		end(it, rc);
		return;
	}
	switch (chunk_craq_pick(info, rep->version)) {
	case CRAQ_PICK_READ:
		read_version(it, rep->version);
		break;
	case CRAQ_PICK_NONE:
		end(it, -ENOENT);
		break;
	case CRAQ_PICK_AGAIN:
		pause_item(it);
		break;
	}
}

/* Our successor may be the reading tail by now, and show what we have not committed. */
static bool
withheld(const struct storage_target *t, struct chunk_id id,
    const struct chunk_info *info)
{
	return t->craq.handing && chunk_craq_dirty(t->w->craq, &t->craq, id, info);
}

static void
start(struct item *it)
{
	struct storage_read *rd = it->rd;
	struct storage_target *t = rd->t;
	struct chunk_info buf;
	const struct chunk_info *info;
	int rc = still(rd);

	if (rc == 0)
		rc = look(it, &buf, &info);
	if (rc != 0) {
		end(it, rc);
		return;
	}
	if (withheld(t, it->r.id, info)) {
		pause_item(it);
		return;
	}
	if (!t->craq.read_tail &&
	    chunk_craq_dirty(rd->w->craq, &t->craq, it->r.id, info)) {
		unsigned tail = t->v.serving_n - 1u;
		struct msg_committed m = { .chain = t->v.chain,
		    .chain_version = t->v.version,
		    .target = t->v.replicas[tail], .chunk = it->r.id };
		struct net_call_opts opts = {
		    .deadline_ns = rd->req->deadline_ns };

		rc = net_call_start(&it->ask, rd->w->env->hub,
		    &t->v.addrs[tail], MSG_committed, &m, &opts, answered);
		stat_add(&rd->w->stat.dirty_reads, 1);
		if (rc != 0)
			end(it, rc == -EIO ? ERR_BUSY : rc);
		return;
	}
	if (info == NULL || info->committed == 0)
		end(it, -ENOENT);
	else
		read_version(it, info->committed);
}

static int
read_valid(const struct msg_read *m, const struct net_req *req)
{
	uint64_t sum = 0;

	if (m->items.n == 0 || m->items.n > STORAGE_BATCH_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < m->items.n; i++) {
		const struct msg_read_item *it = &m->items.v[i];

		if (it->len == 0 || (uint64_t)it->offset + it->len >
		    1u << LAYOUT_SHIFT_MAX)
			return -EINVAL;
		sum += it->len;
	}
	return sum <= req->recv_len ? 0 : -EINVAL;
}

void
storage_read_call(struct storage_worker *w, struct net_req *req)
{
	const struct msg_read *m = req->msg;
	struct storage_target *t;
	struct storage_read *rd = NULL;
	int rc = storage_check(w, STORAGE_READ, m->target, m->chain,
	    m->chain_version, &t);

	if (rc == 0)
		rc = read_valid(m, req);
	/* What is left is for updates, on which others wait. */
	if (rc == 0 && mem_used_bytes(w->pool) >
	    w->env->conf->storage_memory / 4 * 3)
		rc = ERR_BUSY;
	if (rc == 0 && (rd = calloc(1, sizeof(*rd) +
	    m->items.n * sizeof(struct item))) == NULL)
		rc = -ENOMEM;
	if (rc != 0) {
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
		return;
	}
	rd->w = w;
	rd->t = t;
	rd->req = req;
	rd->version = t->v.version;
	rd->start_ns = clock_now(w->clock);
	rd->n = m->items.n;
	rd->left = rd->n + 1;		/* and ours */
	list_push_back(&w->reads, &rd->node);
	storage_fore_begin(w);
	for (unsigned i = 0; i < rd->n; i++) {
		rd->items[i].rd = rd;
		rd->items[i].r.target = t->v.target;
		rd->items[i].r.id = m->items.v[i].chunk;
		rd->items[i].r.offset = m->items.v[i].offset;
		rd->items[i].r.len = m->items.v[i].len;
	}
	for (unsigned i = 0; i < rd->n; i++)
		start(&rd->items[i]);
	if (--rd->left == 0)
		finish(rd);
}

void
storage_reads_close(struct storage_worker *w)
{
	struct list *it;

	while ((it = list_pop_front(&w->reads)) != NULL) {
		struct storage_read *rd = list_entry(it, struct storage_read,
		    node);

		for (unsigned i = 0; i < rd->n; i++)
			net_call_cancel(&rd->items[i].ask);
		clock_timer_stop(w->clock, &rd->pause);
		net_req_drop(rd->req);
		release(rd);
	}
}

/* ---- questions to the tail ---- */

void
storage_committed_call(struct storage_worker *w, struct net_req *req)
{
	const struct msg_committed *m = req->msg;
	struct msg_committed_rep rep = { 0 };
	struct storage_target *t;
	struct chunk_info info;
	int rc;

	storage_heard(w, m->target, m->chain, m->chain_version);
	rc = storage_check(w, STORAGE_TAIL, m->target, m->chain, m->chain_version,
	    &t);
	if (rc == 0) {
		int found = chunk_engine_info(t->disk->engine, m->target,
		    m->chunk, &info);

		if (found == 0)
			rep.version = info.committed;
		else if (found != -ENOENT)
			rc = storage_info_rc(t, found);
		if (rc == 0 && withheld(t, m->chunk, found == 0 ? &info : NULL))
			rc = ERR_CHAIN_RECOVERING;
	}
	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
}

void
storage_last_call(struct storage_worker *w, struct net_req *req)
{
	const struct msg_last *m = req->msg;
	struct msg_last_rep rep = { 0 };
	struct storage_target *t;
	struct chunk_info info;
	int rc;

	if (m->via != 0 && map_get(&w->targets, m->via) != NULL) {
		storage_relay_call(w, req, m->via, m->target, m->chain,
		    m->chain_version);
		return;
	}
	rc = storage_check(w, STORAGE_TAIL, m->target, m->chain,
	    m->chain_version, &t);
	if (rc == 0 && !storage_relay_from(t, m->via))
		rc = ERR_NOT_OWNER;
	if (rc == 0 && t->craq.handing)
		rc = ERR_CHAIN_RECOVERING;	/* any chunk may be the last by now */
	if (rc == 0) {
		int found = chunk_engine_last(t->disk->engine, m->target, m->ino,
		    &info);

		if (found == 0) {
			rep.found = 1;
			rep.index = info.id.index;
			rep.len = info.committed_len;
		} else if (found != -ENOENT) {
			rc = storage_info_rc(t, found);
		}
	}
	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
}
