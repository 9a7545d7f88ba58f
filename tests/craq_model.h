/* SPDX-License-Identifier: MIT */
/* craq_model.h - replication cores over a model of engines and network, one node at a time:
 * what a replica holds, sends, is told, and loses in a crash.
 *
 * A chunk's contents are the numbers of the writes in it, in order; so every reader can be
 * told whether it sees what was acknowledged, once, in one order. */
#ifndef TESTS_CRAQ_MODEL_H
#define TESTS_CRAQ_MODEL_H

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/craq.h"
#include "conf/err.h"
#include "conf/rand.h"

#define NODES_MAX 5
#define NODES	M.nodes		/* replicas of the chain, by the seed */
#define CHUNKS	3
#define CLIENTS	4
#define LIST	120		/* writes a model chunk can hold */
#define OPS	64
#define MSGS	512
#define US	1000ull

/* Contents: the numbers of the writes in it, in order. */
struct bytes {
	uint16_t n;
	uint16_t w[LIST];
};
struct replica {		/* of a chunk, as an engine has it */
	bool	 there;
	uint64_t committed, pending;
	uint32_t c_epoch, p_epoch;
	bool	 removed;
	struct bytes c, p;
	uint32_t dedupe_n;		/* includes the pending write */
	struct chunk_dedupe dedupe[CHUNK_DEDUPE_MAX];
	uint32_t old_n;			/* without it */
	struct chunk_dedupe old[CHUNK_DEDUPE_MAX];
};

enum msg_kind { M_NONE, M_WRITE, M_WRITE_REP, M_UPDATE, M_UPDATE_REP,
	M_FETCH, M_FETCH_REP, M_STORED, M_LOADED, M_WOKEN, M_CUT,
	M_TIMEOUT, M_ROUTE, M_COMPARE, M_SYNCED };

/* The chain, as the manager has it: replicas sorted by state. */
enum st { SERVING, LASTSRV, SYNCING, WAITING, OFFLINE };
struct cfg {
	uint32_t version;
	int	 node[NODES_MAX];
	enum st	 state[NODES_MAX];
};

struct nop;
struct msg {
	enum msg_kind kind;
	uint64_t at, order;
	int	 node;			/* where it arrives; -1: a client */
	uint32_t life;			/* of that node; other: it is lost */
	struct nop *op;			/* operation it is about, at that node */
	uint64_t op_id, call;
	int	 from, client, rc;
	uint32_t from_life, version, chunk, epoch;
	bool	 loaded, force, repair;
	struct cfg cfg;
	uint8_t	 update;
	uint64_t v, base, attempt, floor, fence, seq, from_op;
	struct bytes bytes;
	uint32_t dedupe_n;
	struct chunk_dedupe dedupe[CHUNK_DEDUPE_MAX];
	uint16_t w;			/* the write's number */
	uint32_t check;
	bool	 there;			/* COMPARE: what the other one lists */
};

struct nop {			/* storage_op of the model */
	struct chunk_craq_op craq;
	bool	 used;
	uint64_t id, call, wake;
	struct msg req;
	struct bytes loaded;
	uint32_t loaded_epoch, loaded_dedupe_n;
	struct chunk_dedupe loaded_dedupe[CHUNK_DEDUPE_MAX];
	uint64_t attempt, fetching;
	int	 fetch_from;		/* place in our view */
	uint32_t loaded_check;
	bool	 failed;		/* its last store */
};

struct node {
	bool	 up, lease;
	uint32_t life;
	struct cfg view;
	int	 pos;			/* in it; -1: none among the active */
	unsigned serving_n, active_n;
	bool	 bad[CHUNKS];		/* committed bytes are damaged */
	bool	 equal[CHUNKS];		/* resync: the successor's is */
	bool	 asked;			/* the manager is being told */
	uint64_t back_at;
	struct chunk_craq *c;
	struct chunk_craq_target t;
	struct nop ops[OPS];
	struct replica now[CHUNKS], durable[CHUNKS];
	uint64_t attempt;
	bool	 full;
};

struct wr {			/* a write, as the outside knows it */
	bool	 acked, used;
	uint64_t acked_at;
	uint32_t chunk;
};
struct rd { uint64_t ended, version; };

static struct {
	struct rand r;
	uint64_t now, order, ids;
	int nodes;
	struct node n[NODES_MAX];
	struct msg m[MSGS];
	struct cfg cfg;			/* at the manager */
	bool	 alive[NODES_MAX];		/* as it knows */
	uint64_t notice_at;		/* a lease has ended; 0: none */
	bool	 calm;
	/* clients: one write at a time each, of any chunk */
	struct {
		bool busy;
		uint16_t w;
		uint64_t seq, next, sent;
		uint32_t chunk, epoch;
	} cl[CLIENTS];
	struct wr w[4096];
	uint16_t w_n;
	struct bytes seen[CHUNKS];	/* longest contents any reader got */
	uint64_t seen_version[CHUNKS];
	unsigned acked, redriven, reads, crashes, refused, cut, healed, lost_lease;
	unsigned syncs, purges, repairs, rotations, forgot, alone, known;
	uint32_t epoch[CHUNKS], cut_floor[CHUNKS];
	bool	 cutting[CHUNKS];
} M;

static bool
chance(unsigned percent)
{
	return !M.calm && rand_below(&M.r, 100) < percent;
}

static uint32_t
digest(const struct bytes *b)
{
	uint32_t h = 17;

	for (unsigned i = 0; i < b->n; i++)
		h = h * 31 + b->w[i];
	return h;
}

static struct msg *
send_at(enum msg_kind kind, int node, uint64_t delay)
{
	for (unsigned i = 0; i < MSGS; i++) {
		struct msg *m = &M.m[i];

		if (m->kind != M_NONE)
			continue;
		memset(m, 0, sizeof(*m));
		m->kind = kind;
		m->node = node;
		m->life = node >= 0 ? M.n[node].life : 0;
		m->at = M.now + delay;
		m->order = M.order++;
		return m;
	}
	ck_abort_msg("too many messages");
	return NULL;
}

static uint64_t
delay(void)
{
	if (chance(3))
		return (1 + rand_below(&M.r, 60000)) * US;
	return (20 + rand_below(&M.r, 300)) * US;
}

static void run_effects(int n);

static void
step(int n, struct nop *op, struct chunk_craq_event *ev)
{
	ev->op = &op->craq;
	ev->now_ns = M.now;
	chunk_craq_step(M.n[n].c, ev);
	run_effects(n);
}

static const struct chunk_info *
info_of(const struct replica *r, struct chunk_info *out)
{
	if (!r->there)
		return NULL;
	memset(out, 0, sizeof(*out));
	out->committed = r->committed;
	out->committed_len = r->c.n;
	out->committed_epoch = r->c_epoch;
	out->committed_check = digest(&r->c);
	out->pending = r->pending;
	out->pending_len = r->p.n;
	out->pending_epoch = r->p_epoch;
	out->pending_check = digest(&r->p);
	out->pending_removed = r->removed;
	out->dedupe_n = r->dedupe_n;
	memcpy(out->dedupe, r->dedupe, sizeof(out->dedupe));
	return out;
}

static void
commit_replica(struct replica *r, uint64_t v)
{
	ck_assert(r->there);
	ck_assert_uint_eq(r->pending, v);
	ck_assert_uint_ge(v, r->committed);
	if (r->removed) {
		memset(r, 0, sizeof(*r));
		return;
	}
	r->committed = v;
	r->c = r->p;
	r->c_epoch = r->p_epoch;
	r->pending = 0;
}

static void
drop_pending(struct replica *r, uint64_t v)
{
	if (!r->there || v == 0 || r->pending != v)
		return;
	r->pending = 0;
	r->removed = false;
	r->dedupe_n = r->old_n;
	memcpy(r->dedupe, r->old, sizeof(r->old));
	if (r->committed == 0)
		memset(r, 0, sizeof(*r));
}

/* The engine's store is done: pending, visible and durable. */
static void
store_replica(struct node *n, const struct nop *op,
    const struct chunk_craq_effect *e, uint32_t chunk)
{
	struct replica *r = &n->now[chunk];

	ck_assert(e->version > r->committed || (e->version == r->committed &&
	    op->craq.kind == CRAQ_REPAIR));
	drop_pending(r, r->pending);
	r->old_n = r->dedupe_n;
	memcpy(r->old, r->dedupe, sizeof(r->old));
	r->there = true;
	r->pending = e->version;
	r->p_epoch = e->epoch;
	r->removed = e->update == UPDATE_REMOVE;
	if (e->update == UPDATE_REPLACE) {
		r->p = e->loaded ? op->loaded : op->req.bytes;
		r->dedupe_n = e->loaded ? op->loaded_dedupe_n :
		    op->req.dedupe_n;
		memcpy(r->dedupe, e->loaded ? op->loaded_dedupe :
		    op->req.dedupe, sizeof(r->dedupe));
	} else if (e->update == UPDATE_WRITE) {
		r->p = r->c;
		if (r->committed == 0)
			r->p.n = 0;
		ck_assert_uint_lt(r->p.n, LIST);
		r->p.w[r->p.n++] = op->req.w;
		for (uint32_t i = 0; i < r->dedupe_n; i++)
			if (uid128_eq(&r->dedupe[i].client, &op->craq.client)) {
				memmove(&r->dedupe[i], &r->dedupe[i + 1],
				    (--r->dedupe_n - i) * sizeof(r->dedupe[0]));
				break;
			}
		if (r->dedupe_n == CHUNK_DEDUPE_MAX)
			r->dedupe_n--;
		memmove(&r->dedupe[1], &r->dedupe[0],
		    r->dedupe_n * sizeof(r->dedupe[0]));
		r->dedupe[0] = (struct chunk_dedupe){ op->craq.client,
		    op->craq.seq, e->version };
		r->dedupe_n++;
	}
	n->durable[chunk] = *r;
	if (chance(30))			/* a group commit of everything */
		memcpy(n->durable, n->now, sizeof(n->now));
}

static uint64_t
floor_of(const struct node *n)
{
	uint64_t low = n->attempt + 1;

	for (unsigned i = 0; i < OPS; i++)
		if (n->ops[i].used && n->ops[i].attempt != 0 &&
		    n->ops[i].attempt < low)
			low = n->ops[i].attempt;
	return low;
}

/* A call from an operation to another replica: it may be lost, or be lost for the caller
 * and arrive late, or its answer be lost. */
static struct msg *
call(int from, struct nop *op, enum msg_kind kind, int to)
{
	struct msg *m, *t;
	bool late = chance(6);

	op->call = ++M.ids;
	t = send_at(M_TIMEOUT, from, late ? (1 + rand_below(&M.r, 3000)) * US :
	    40000 * US);
	t->op = op;
	t->op_id = op->id;
	t->call = op->call;
	t->rc = late ? -ECONNRESET : -ETIMEDOUT;
	m = send_at(kind, to, late ? rand_below(&M.r, 150000) * US : delay());
	m->from = from;
	m->from_life = M.n[from].life;
	m->from_op = op->id;
	m->op = op;
	m->call = op->call;
	m->version = op->craq.chain_version;
	m->chunk = op->craq.id.index;
	if (chance(2))
		m->at += 1000000000000ull;	/* never */
	return m;
}

static void
answer(const struct msg *q, enum msg_kind kind, int rc, struct msg **out)
{
	struct msg *m = send_at(kind, q->from, delay());

	m->life = q->from_life;
	m->op = q->op;
	m->op_id = q->from_op;
	m->call = q->call;
	m->rc = rc;
	if (chance(2))
		m->at += 1000000000000ull;
	if (out != NULL)
		*out = m;
}

static void fetch_answer(int ni, const struct msg *q, int rc);

/* Of @v, what was written by then. */
static uint32_t
dedupe_of(const struct replica *r, uint64_t v, struct chunk_dedupe *out)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < r->dedupe_n; i++)
		if (r->dedupe[i].version <= v)
			out[n++] = r->dedupe[i];
	return n;
}

static void
load(int ni, struct nop *op, uint64_t v)
{
	struct replica *r = &M.n[ni].now[op->craq.id.index];
	bool pending = r->pending == v;
	struct chunk_info buf;
	struct msg *m = send_at(M_LOADED, ni, delay());

	ck_assert(r->there && (pending || r->committed == v));
	M.redriven++;
	m->op = op;
	m->op_id = op->id;
	m->rc = !pending && M.n[ni].bad[op->craq.id.index] ? ERR_CORRUPT : 0;
	op->loaded = pending ? r->p : r->c;
	op->loaded_epoch = pending ? r->p_epoch : r->c_epoch;
	op->loaded_dedupe_n = dedupe_of(r, v, op->loaded_dedupe);
	op->loaded_check = chunk_craq_digest(info_of(r, &buf), v);
}

/* From the next replica that is behind us, or, to repair, from any other. */
static bool
fetch(int ni, struct nop *op, uint64_t v)
{
	struct node *n = &M.n[ni];
	bool repair = op->craq.kind == CRAQ_REPAIR;
	unsigned end = repair ? n->serving_n : n->active_n;
	struct msg *m;

	if (++op->fetch_from == n->pos)
		op->fetch_from++;
	if (op->fetch_from >= (int)end)
		return false;
	m = call(ni, op, M_FETCH, n->view.node[op->fetch_from]);
	m->v = op->fetching = v;
	m->repair = repair;
	if (op->fetch_from == n->pos + 1 && !repair) {
		m->floor = floor_of(n);
		m->fence = n->attempt + 1;
	}
	return true;
}

static void settled(int ni);

/* We could not store what is committed behind us, and then all who had it left.  It was
 * never acknowledged, but it may have been read: nobody can help that. */
static void
forget(int ni, uint32_t k)
{
	struct replica *r = &M.n[ni].now[k];
	const struct bytes *b = r->pending != 0 ? &r->p : &r->c;
	uint16_t i = 0;

	M.forgot++;
	while (r->there && i < b->n && i < M.seen[k].n &&
	    b->w[i] == M.seen[k].w[i])
		i++;
	M.seen[k].n = i;
	M.seen_version[k] = 0;
}

static void
reply(int ni, struct nop *op, const struct chunk_craq_effect *e)
{
	struct msg *m;

	op->used = false;
	if (op->failed && e->rc == ERR_STALE_CHAIN && M.n[ni].t.read_tail)
		forget(ni, op->craq.id.index);
	if (op->craq.kind == CRAQ_SYNC) {
		M.syncs++;
		if (e->rc == 0 && op->craq.chain_version == M.n[ni].t.version)
			M.n[ni].equal[op->craq.id.index] = true;
		return;
	}
	if (op->craq.kind == CRAQ_REPAIR || op->req.kind == M_NONE) {
		M.repairs += op->craq.kind == CRAQ_REPAIR && e->touched;
		return;
	}
	if (op->craq.kind == CRAQ_WRITE)
		M.known += e->rc == 0 && !e->touched;
	if (op->craq.kind == CRAQ_WRITE || op->craq.kind == CRAQ_CUT) {
		if (chance(3))
			return;			/* the client hears nothing */
		m = send_at(M_WRITE_REP, -1, delay());
		m->client = op->req.client;
		m->seq = op->req.seq;
		m->rc = e->rc;
		m->chunk = op->craq.id.index;
		m->epoch = op->craq.epoch;
	} else if (op->craq.kind == CRAQ_SETTLE) {
		fetch_answer(ni, &op->req, e->rc == 0 ? 0 : ERR_BUSY);
	} else if (op->craq.kind == CRAQ_UPDATE) {
		answer(&op->req, M_UPDATE_REP, e->rc, &m);
		m->v = e->version;
		m->check = e->check;
	}
}

static void
effect(int ni, const struct chunk_craq_effect *e)
{
	struct node *n = &M.n[ni];
	struct nop *op = (struct nop *)(void *)e->op;
	uint32_t chunk = op->craq.id.index;
	struct replica *r = &n->now[chunk];
	struct chunk_info buf;
	struct chunk_craq_event ev = { .room = !n->full || chance(50) };
	struct msg *m;

	switch (e->kind) {
	case CRAQ_CANCEL:
		op->call = op->wake = 0;
		op->attempt = 0;
		break;
	case CRAQ_COMMIT:
		if (!r->removed)
			n->bad[chunk] = false;
		commit_replica(r, e->version);
		break;
	case CRAQ_ABORT:
		drop_pending(r, e->version);
		M.refused++;
		break;
	case CRAQ_LOOK:
		ev.kind = CRAQ_EV_INFO;
		ev.info = info_of(r, &buf);
		if (op->craq.kind == CRAQ_WRITE)
			ev.epoch_floor = M.cut_floor[chunk];
		ev.op = &op->craq;
		ev.now_ns = M.now;
		chunk_craq_step(n->c, &ev);
		break;
	case CRAQ_LOAD:
		load(ni, op, e->version);
		break;
	case CRAQ_FETCH:
		op->fetch_from = op->craq.kind == CRAQ_REPAIR ? -1 : n->pos;
		if (!fetch(ni, op, e->version)) {
			m = send_at(M_LOADED, ni, 0);
			m->op = op;
			m->op_id = op->id;
			m->rc = ERR_BUSY;
		}
		break;
	case CRAQ_PURGE:
		ck_assert_uint_gt(e->version, r->committed);
		m = send_at(M_STORED, ni, delay());
		m->op = op;
		m->op_id = op->id;
		m->rc = chance(2) ? ERR_BUSY : 0;
		m->repair = true;
		break;
	case CRAQ_STORE:
		m = send_at(M_STORED, ni, delay());
		m->op = op;
		m->op_id = op->id;
		m->rc = n->full && chance(50) ? -ENOSPC : chance(1) ?
		    ERR_CORRUPT : chance(1) ? ERR_BUSY : 0;
		if (e->update == UPDATE_REPLACE && m->rc == ERR_CORRUPT)
			m->rc = 0;
		if (e->update == UPDATE_WRITE && n->bad[chunk] && m->rc == 0)
			m->rc = ERR_CORRUPT;
		m->v = e->version;
		m->base = e->base;
		m->update = e->update;
		m->loaded = e->loaded;
		m->epoch = e->epoch;
		break;
	case CRAQ_FORWARD:
		op->attempt = ++n->attempt;
		ck_assert_int_lt(n->pos + 1, (int)n->active_n);
		m = call(ni, op, M_UPDATE, n->view.node[n->pos + 1]);
		m->force = e->force;
		m->check = e->check;
		m->update = e->update;
		m->v = e->version;
		m->base = e->base;
		m->epoch = e->epoch;
		m->attempt = op->attempt;
		m->floor = floor_of(n);
		m->fence = e->unsure ? m->attempt : 0;
		m->w = op->req.w;
		m->seq = op->craq.seq;
		m->client = op->req.client;
		if (e->update == UPDATE_REPLACE) {
			m->bytes = e->loaded ? op->loaded : op->req.bytes;
			m->dedupe_n = e->loaded ? op->loaded_dedupe_n :
			    op->req.dedupe_n;
			memcpy(m->dedupe, e->loaded ? op->loaded_dedupe :
			    op->req.dedupe, sizeof(m->dedupe));
		}
		break;
	case CRAQ_WAKE:
		m = send_at(M_WOKEN, ni, e->at_ns - M.now);
		m->op = op;
		m->op_id = op->id;
		m->call = op->wake = ++M.ids;
		break;
	case CRAQ_REPLY:
		reply(ni, op, e);
		break;
	}
}

static void
run_effects(int ni)
{
	struct chunk_craq_effect e;

	while (chunk_craq_next(M.n[ni].c, &e))
		effect(ni, &e);
	chunk_craq_check(M.n[ni].c);
	settled(ni);
}

static struct nop *
op_get(struct node *n)
{
	for (unsigned i = 0; i < OPS; i++)
		if (!n->ops[i].used) {
			memset(&n->ops[i], 0, sizeof(n->ops[i]));
			n->ops[i].id = ++M.ids;
			return &n->ops[i];
		}
	return NULL;
}

static struct chunk_id
chunk_of(uint32_t chunk)
{
	return (struct chunk_id){ 1, chunk };
}

static void
node_start(int ni)
{
	struct node *n = &M.n[ni];

	n->up = n->lease = true;
	n->life++;
	ck_assert_int_eq(chunk_craq_open(&n->c, OPS), 0);
	chunk_craq_target_init(&n->t, (target_id)ni + 1);
	memcpy(n->now, n->durable, sizeof(n->now));
	memset(n->ops, 0, sizeof(n->ops));
	memset(&n->view, 0, sizeof(n->view));
	n->pos = -1;
	n->attempt = 0;
}

static void
node_crash(int ni)
{
	struct node *n = &M.n[ni];

	if (!n->up)
		return;
	M.crashes++;
	n->up = false;
	n->life++;
	chunk_craq_close(n->c);
	n->c = NULL;
	n->back_at = M.now + rand_below(&M.r, 60000) * US;
	if (M.notice_at == 0)
		M.notice_at = M.now + rand_below(&M.r, 20000) * US;
}

/* Its process goes on, and what it has sent is under way. */
static void
node_lease_ends(int ni)
{
	struct node *n = &M.n[ni];

	if (!n->up || !n->lease)
		return;
	M.lost_lease++;
	n->lease = false;
	n->back_at = M.now + (20000 + rand_below(&M.r, 60000)) * US;
	if (M.notice_at == 0)
		M.notice_at = M.now + rand_below(&M.r, 20000) * US;
}

/* ---- a replica in a new version of its chain ---- */

static void
forget_doubts(int ni)
{
	struct node *n = &M.n[ni];

	for (uint32_t k = 0; k < CHUNKS; k++)
		if (chunk_craq_doubts(n->c, &n->t, chunk_of(k)))
			forget(ni, k);
}

static void
node_route(int ni, const struct cfg *cfg)
{
	struct node *n = &M.n[ni];
	struct chunk_craq_place p = { .version = cfg->version };

	if (!n->up || cfg->version <= n->t.version)
		return;
	n->view = *cfg;
	n->pos = -1;
	n->serving_n = n->active_n = 0;
	n->asked = false;
	memset(n->equal, 0, sizeof(n->equal));
	for (int i = 0; i < NODES; i++) {
		bool active = cfg->state[i] == SERVING ||
		    (cfg->state[i] == SYNCING && n->serving_n > 0);

		n->serving_n += cfg->state[i] == SERVING;
		n->active_n += active;
		if (active && cfg->node[i] == ni)
			n->pos = i;
	}
	if (n->pos < 0) {
		chunk_craq_rest(n->c, &n->t, cfg->version);
	} else {
		p.head = n->pos == 0;
		p.syncing = n->pos >= (int)n->serving_n;
		p.tail = n->pos + 1 == (int)n->active_n;
		p.read_tail = n->pos + 1 == (int)n->serving_n;
		p.whole = p.read_tail && !p.tail;
		if (p.read_tail)
			forget_doubts(ni);
		chunk_craq_move(n->c, &n->t, &p);
	}
	run_effects(ni);
}

static void
settled(int ni)
{
	struct node *n = &M.n[ni];

	if (!n->t.active || n->t.serving || n->t.stale != 0)
		return;
	for (uint32_t k = 0; n->t.read_tail && k < CHUNKS; k++) {
		if (n->now[k].there && n->now[k].pending != 0) {
			if (!n->now[k].removed)
				n->bad[k] = false;
			commit_replica(&n->now[k], n->now[k].pending);
		}
		if (n->serving_n == 1)
			n->bad[k] = false;	/* nobody could repair it */
	}
	chunk_craq_serve(n->c, &n->t);
}

#endif
