/* SPDX-License-Identifier: MIT */
/* test_craq_model.c - a chain of two to five replication cores over a model of engines, network and
 * manager, under every fault we can think of: lost, late and doubled messages, refusals,
 * stores that fail, damaged bytes, crashes that lose what was not committed, leases that end
 * while the process goes on, rotations, all of them at once.  Replicas leave, come back
 * SYNCING and serve again, by the manager's rules.
 *
 * A chunk's contents are the numbers of the writes in it, in order; so every reader can be
 * told whether it sees what was acknowledged, once, in one order.
 * SEED=n runs one seed, N=n so many, VERBOSE=1 tells the story. */
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

/* ---- the manager ---- */

static void
announce(void)
{
	for (int i = 0; i < NODES; i++) {
		struct msg *m = send_at(M_ROUTE, i, delay());

		m->cfg = M.cfg;
	}
}

static bool
changed(int i, enum st to)
{
	bool c = M.cfg.state[i] != to;

	M.cfg.state[i] = to;
	return c;
}

/* One evaluation; @synced: the SYNCING one is equal. */
static bool
evaluate_once(bool synced)
{
	struct cfg *c = &M.cfg, was = M.cfg;
	int live = 0, last = -1, n = 0;
	bool any = false, serves, syncs = false;

	for (int i = 0; i < NODES; i++) {
		if (c->state[i] != SERVING)
			continue;
		if (M.alive[c->node[i]])
			live++;
		else
			last = i;
	}
	for (int i = 0; i < NODES; i++)
		if (was.state[i] == SERVING && !M.alive[c->node[i]])
			any |= changed(i, live == 0 && i == last ? LASTSRV :
			    OFFLINE);
	for (int i = 0; i < NODES; i++)
		if (c->state[i] == LASTSRV && M.alive[c->node[i]]) {
			any |= changed(i, SERVING);
			M.alone++;
		}
	serves = false;
	for (int i = 0; i < NODES; i++)
		serves |= c->state[i] == SERVING;
	for (int i = 0; i < NODES; i++)
		if (c->state[i] == SYNCING)
			any |= changed(i, !M.alive[c->node[i]] ? OFFLINE :
			    !serves ? WAITING : synced ? SERVING : SYNCING);
	for (int i = 0; i < NODES; i++)
		syncs |= c->state[i] == SYNCING;
	for (int i = 0; i < NODES; i++) {
		enum st to = OFFLINE;

		if (c->state[i] != WAITING && c->state[i] != OFFLINE)
			continue;
		if (M.alive[c->node[i]])
			to = serves && !syncs ? SYNCING : WAITING;
		syncs |= to == SYNCING;
		any |= changed(i, to);
	}
	was = *c;
	for (enum st st = SERVING; st <= OFFLINE; st++)
		for (int i = 0; i < NODES; i++)
			if (was.state[i] == st) {
				c->node[n] = was.node[i];
				c->state[n++] = st;
			}
	return any;
}

static void
evaluate(bool synced)
{
	bool any = false;

	while (evaluate_once(synced)) {
		any = true;
		synced = false;
	}
	if (!any)
		return;
	M.cfg.version++;
	announce();
}

/* All leases that have ended are one batch. */
static void
bury(void)
{
	M.notice_at = 0;
	for (int i = 0; i < NODES; i++)
		if (!M.n[i].up || !M.n[i].lease)
			M.alive[i] = false;
	evaluate(false);
}

static void
manager(void)
{
	if (M.notice_at != 0 && M.now >= M.notice_at)
		bury();
	if (M.calm && rand_below(&M.r, 50) == 0)
		announce();
}

static void
node_return(int ni)
{
	struct node *n = &M.n[ni];

	/* The old process is dead first; and with it all whose leases are over. */
	bury();
	if (!n->up)
		node_start(ni);
	n->lease = true;
	M.alive[ni] = true;
	evaluate(false);
	/* A lease is for who knows the chain as it is. */
	node_route(ni, &M.cfg);
}

static void
manager_synced(const struct msg *m)
{
	if (m->version != M.cfg.version)
		return;
	M.healed++;
	evaluate(true);
}

static void
rotate(void)
{
	int ni = M.cfg.node[0];

	for (int i = 0; i < NODES; i++)
		if (M.cfg.state[i] != SERVING || !M.alive[M.cfg.node[i]] ||
		    !M.n[M.cfg.node[i]].up || !M.n[M.cfg.node[i]].lease)
			return;
	M.rotations++;
	M.cfg.version++;
	for (int i = 0; i + 1 < NODES; i++)
		M.cfg.node[i] = M.cfg.node[i + 1];
	M.cfg.node[NODES - 1] = ni;
	M.cfg.state[NODES - 1] = OFFLINE;
	announce();
	node_route(ni, &M.cfg);		/* it is told before anyone */
	evaluate(false);
}

/* ---- what a replica does by itself ---- */

static void
own_op(int ni, enum chunk_craq_kind kind, uint32_t chunk)
{
	struct node *n = &M.n[ni];
	struct nop *op = op_get(n);
	struct chunk_craq_event ev = { .kind = CRAQ_EV_ADMIT, .now_ns = M.now };

	if (op == NULL)
		return;
	op->craq = (struct chunk_craq_op){ .target = &n->t,
	    .id = chunk_of(chunk), .kind = kind, .update = UPDATE_TRUNCATE,
	    .chain_version = n->t.version,
	    .deadline_ns = M.now + 30000 * US };
	op->used = true;
	ev.op = &op->craq;
	if (chunk_craq_step(n->c, &ev) != 0)
		op->used = false;
	run_effects(ni);
}

static bool
has_op(const struct node *n, enum chunk_craq_kind kind, uint32_t chunk)
{
	for (unsigned i = 0; i < OPS; i++)
		if (n->ops[i].used && n->ops[i].craq.kind == kind &&
		    n->ops[i].craq.id.index == chunk)
			return true;
	return false;
}

/* A page of the SYNCING one's list has come, older than now. */
static void
compare(int ni, const struct msg *m)
{
	struct node *n = &M.n[ni];
	uint32_t k = m->chunk;
	struct chunk_info buf;
	const struct chunk_info *info = info_of(&n->now[k], &buf);

	if (!n->t.serving || !n->t.whole || n->t.version != m->version ||
	    n->equal[k] || has_op(n, CRAQ_SYNC, k))
		return;
	if (n->bad[k])
		return;			/* after its repair */
	if (m->v == 0 && (info == NULL ? !m->there : m->there &&
	    info->pending == 0 && info->committed == m->base &&
	    chunk_craq_digest(info, info->committed) == m->check)) {
		n->equal[k] = true;
		return;
	}
	own_op(ni, CRAQ_SYNC, k);
}

static void
resync(int ni)
{
	struct node *n = &M.n[ni];
	bool all = true;

	for (uint32_t k = 0; k < CHUNKS; k++)
		all &= n->equal[k];
	if (!all) {
		int si = n->view.node[n->serving_n];
		struct node *s = &M.n[si];
		uint32_t k = (uint32_t)rand_below(&M.r, CHUNKS);
		struct chunk_info buf;
		const struct chunk_info *info;
		struct msg *m;

		if (!s->up || !s->t.serving || s->t.version != n->t.version ||
		    n->equal[k])
			return;
		info = info_of(&s->now[k], &buf);
		m = send_at(M_COMPARE, ni, delay());
		m->version = n->t.version;
		m->chunk = k;
		m->there = info != NULL;
		if (info != NULL) {
			m->v = info->pending;
			m->base = info->committed;
			m->check = chunk_craq_digest(info, info->committed);
		}
		return;
	}
	if (n->asked && rand_below(&M.r, 100) != 0)
		return;
	n->asked = true;
	chunk_craq_hand(&n->t);
	send_at(M_SYNCED, -1, delay())->version = n->t.version;
}

static void
housekeeping(int ni)
{
	struct node *n = &M.n[ni];
	uint32_t k = (uint32_t)rand_below(&M.r, CHUNKS);
	struct chunk_info buf;

	if (!n->up || !n->lease || !n->t.serving || rand_below(&M.r, 20) != 0)
		return;
	if (n->t.whole)
		resync(ni);
	if (n->t.head && chunk_craq_left(n->c, &n->t, chunk_of(k),
	    info_of(&n->now[k], &buf)) && rand_below(&M.r, 5) == 0)
		own_op(ni, CRAQ_CUT, k);
	if (n->bad[k] && !n->t.syncing && !has_op(n, CRAQ_REPAIR, k))
		own_op(ni, CRAQ_REPAIR, k);
}

static void
damage(void)
{
	int ni = (int)rand_below(&M.r, NODES);
	uint32_t k = (uint32_t)rand_below(&M.r, CHUNKS);
	struct node *n = &M.n[ni];

	for (int i = 0; i < NODES; i++)
		if (M.n[i].bad[k])
			return;
	if (n->up && n->t.serving && !n->t.syncing && n->serving_n > 1 &&
	    n->now[k].there && n->now[k].committed != 0)
		n->bad[k] = true;
}

static void report(void);

/* All that serve have the same, and remember the same writers. */
static bool
same(bool must)
{
	for (int i = 1; i < NODES; i++)
		for (uint32_t k = 0; k < CHUNKS; k++) {
			struct replica *a = &M.n[0].now[k], *b = &M.n[i].now[k];
			struct chunk_info ia, ib;

			if (!must && (a->there != b->there || a->pending ||
			    b->pending || a->committed != b->committed))
				return false;
			if (!must || !a->there)
				continue;
			ck_assert_uint_eq(digest(&a->c), digest(&b->c));
			ck_assert_uint_eq(chunk_craq_digest(info_of(a, &ia),
			    a->committed), chunk_craq_digest(info_of(b, &ib),
			    b->committed));
		}
	return true;
}

/* ---- clients ---- */

static void
client_send(unsigned i)
{
	struct msg *m = send_at(M_WRITE, M.cfg.node[0], delay());

	m->client = (int)i;
	m->version = M.cfg.version;
	m->chunk = M.cl[i].chunk;
	m->seq = M.cl[i].seq;
	m->w = M.cl[i].w;
	m->epoch = M.cl[i].epoch;
	M.cl[i].sent = M.now;
	M.cl[i].next = M.now + (30000 + rand_below(&M.r, 30000)) * US;
}

static void
client_begin(unsigned i, unsigned max)
{
	if (M.w_n >= max)
		return;
	M.cl[i].busy = true;
	M.cl[i].chunk = (uint32_t)rand_below(&M.r, CHUNKS);
	M.cl[i].seq++;
	M.cl[i].w = M.w_n;
	M.cl[i].epoch = M.epoch[M.cl[i].chunk];
	M.w[M.w_n++] = (struct wr){ .used = true, .chunk = M.cl[i].chunk };
	client_send(i);
}

/* Truncation to nothing by metadata: raises the epoch, ends what was there. */
static void
cut_send(uint32_t chunk)
{
	struct msg *m = send_at(M_CUT, M.cfg.node[0], delay());

	m->client = CLIENTS + (int)chunk;
	m->version = M.cfg.version;
	m->chunk = chunk;
	m->epoch = M.epoch[chunk];
}

static bool
prefix(const struct bytes *a, const struct bytes *b)
{
	return a->n <= b->n && memcmp(a->w, b->w, a->n * sizeof(a->w[0])) == 0;
}

/* A read through the core's questions; the tail is asked without delay, which is the
 * hardest time for it. */
static void
read_somewhere(void)
{
	int ni = (int)rand_below(&M.r, NODES);
	uint32_t k = (uint32_t)rand_below(&M.r, CHUNKS);
	struct node *n = &M.n[ni];
	struct replica *r = &n->now[k];
	const struct bytes *got = &r->c;
	static const struct bytes none;
	struct chunk_info buf;
	const struct chunk_info *info;
	uint64_t version = r->there ? r->committed : 0;

	if (!n->up || !n->lease || !n->t.serving || n->t.syncing || M.cutting[k])
		return;
	info = info_of(r, &buf);
	if (chunk_craq_dirty(n->c, &n->t, chunk_of(k), info)) {
		int ti = n->view.node[n->serving_n - 1];
		struct node *t = &M.n[ti];
		struct chunk_info tb;

		if (!t->up || !t->lease || t->t.version != n->t.version ||
		    !t->t.serving)
			return;
		if (t->t.handing && chunk_craq_dirty(t->c, &t->t, chunk_of(k),
		    info_of(&t->now[k], &tb)))
			return;
		version = t->now[k].there ? t->now[k].committed : 0;
		switch (ti == ni ? version == 0 ? CRAQ_PICK_NONE :
		    CRAQ_PICK_READ : chunk_craq_pick(info, version)) {
		case CRAQ_PICK_NONE:
			got = &none;
			break;
		case CRAQ_PICK_AGAIN:
			return;
		case CRAQ_PICK_READ:
			got = version == r->committed ? &r->c : &r->p;
			break;
		}
	} else if (info == NULL || info->committed == 0) {
		got = &none;
	}
	if (n->bad[k] && got == &r->c)
		return;			/* fails its checksum: another replica */
	M.reads++;
	/* One order: what somebody has read before is a prefix. */
	if (!prefix(&M.seen[k], got))
		report();
	ck_assert_msg(prefix(&M.seen[k], got), "chunk %u goes back at node %d",
	    k, ni);
	M.seen[k] = *got;
	if (version != 0) {
		ck_assert_uint_ge(version, M.seen_version[k]);
		M.seen_version[k] = version;
	}
	for (uint16_t w = 0; w < M.w_n; w++) {
		bool in = false;

		if (M.w[w].chunk != k || !M.w[w].acked)
			continue;
		for (unsigned i = 0; i < got->n; i++)
			in |= got->w[i] == w;
		if (!in)
			report();
		ck_assert_msg(in, "write %u is lost at node %d", w, ni);
	}
}

/* ---- what arrives ---- */

static void
arrive_update(int ni, struct msg *q)
{
	struct node *n = &M.n[ni];
	struct nop *op;
	struct chunk_craq_event ev = { .kind = CRAQ_EV_ADMIT };
	int rc;

	if (!n->t.serving || n->t.version != q->version || !n->lease) {
		answer(q, M_UPDATE_REP, ERR_STALE_CHAIN, NULL);
		return;
	}
	if (chunk_craq_fence(&n->t, q->floor, chunk_of(q->chunk), q->fence) != 0 ||
	    (op = op_get(n)) == NULL) {
		answer(q, M_UPDATE_REP, ERR_BUSY, NULL);
		return;
	}
	op->req = *q;
	op->craq = (struct chunk_craq_op){ .target = &n->t,
	    .id = chunk_of(q->chunk), .kind = CRAQ_UPDATE, .update = q->update,
	    .chain_version = q->version, .epoch = q->epoch, .version = q->v,
	    .base = q->base, .attempt = q->attempt, .force = q->force,
	    .check = q->check,
	    .client = { { (uint8_t)(q->client + 1) } }, .seq = q->seq,
	    .deadline_ns = M.now + 30000 * US };
	op->used = true;
	ev.op = &op->craq;
	ev.now_ns = M.now;
	rc = chunk_craq_step(n->c, &ev);
	if (rc != 0) {
		op->used = false;
		answer(q, M_UPDATE_REP, rc, NULL);
	}
	run_effects(ni);
}

static void
arrive_client(int ni, struct msg *q)
{
	struct node *n = &M.n[ni];
	struct chunk_craq_event ev = { .kind = CRAQ_EV_ADMIT };
	struct nop *op = n->lease ? op_get(n) : NULL;

	if (op == NULL)
		return;
	if (q->kind == M_CUT && q->epoch > M.cut_floor[q->chunk])
		M.cut_floor[q->chunk] = q->epoch;
	op->req = *q;
	op->craq = (struct chunk_craq_op){ .target = &n->t,
	    .id = chunk_of(q->chunk), .kind = q->kind == M_CUT ? CRAQ_CUT :
	    CRAQ_WRITE, .update = q->kind == M_CUT ? UPDATE_REMOVE :
	    UPDATE_WRITE, .chain_version = q->version, .epoch = q->epoch,
	    .client = { { (uint8_t)(q->client + 1) } }, .seq = q->seq,
	    .deadline_ns = M.now + 25000 * US };
	op->used = true;
	ev.op = &op->craq;
	ev.now_ns = M.now;
	if (chunk_craq_step(n->c, &ev) != 0)
		op->used = false;
	run_effects(ni);
}

static void
fetch_answer(int ni, const struct msg *q, int rc)
{
	const struct replica *r = &M.n[ni].now[q->chunk];
	struct msg *m;

	if (rc == 0 && (!r->there || (r->committed != q->v &&
	    r->pending != q->v) || (r->pending == q->v && r->removed)))
		rc = -ENOENT;
	answer(q, M_FETCH_REP, rc, &m);
	if (rc != 0)
		return;
	if (r->committed == q->v && M.n[ni].bad[q->chunk]) {
		m->rc = ERR_CORRUPT;
		return;
	}
	m->bytes = r->committed == q->v ? r->c : r->p;
	m->epoch = r->committed == q->v ? r->c_epoch : r->p_epoch;
	m->dedupe_n = dedupe_of(r, q->v, m->dedupe);
}

static void
arrive_fetch(int ni, struct msg *q)
{
	struct node *n = &M.n[ni];
	struct nop *op;
	struct chunk_craq_event ev = { .kind = CRAQ_EV_ADMIT, .now_ns = M.now };
	int rc = 0;

	if (n->t.version != q->version || !n->t.serving || !n->lease)
		rc = ERR_STALE_CHAIN;
	else if (!q->repair)
		rc = chunk_craq_fence(&n->t, q->floor, chunk_of(q->chunk),
		    q->fence);
	if (rc != 0 || q->repair || !chunk_craq_busy(n->c, &n->t, chunk_of(q->chunk)) ||
	    (op = op_get(n)) == NULL) {
		fetch_answer(ni, q, rc);
		return;
	}
	op->req = *q;
	op->craq = (struct chunk_craq_op){ .target = &n->t,
	    .id = chunk_of(q->chunk), .kind = CRAQ_SETTLE,
	    .chain_version = q->version, .deadline_ns = M.now + 30000 * US };
	op->used = true;
	ev.op = &op->craq;
	rc = chunk_craq_step(n->c, &ev);
	if (rc != 0) {
		op->used = false;
		fetch_answer(ni, q, rc);
	}
	run_effects(ni);
}

static void
client_hears(const struct msg *m)
{
	unsigned i = (unsigned)m->client;

	if (i >= CLIENTS) {
		uint32_t k = m->chunk;

		if (!M.cutting[k] || m->epoch != M.epoch[k] || m->rc != 0)
			return;
		/* What was acknowledged before is gone; begin again. */
		M.cutting[k] = false;
		M.cut++;
		memset(&M.seen[k], 0, sizeof(M.seen[k]));
		return;
	}
	if (!M.cl[i].busy || m->seq != M.cl[i].seq)
		return;
	if (m->rc == 0) {
		M.w[M.cl[i].w].acked = M.cl[i].epoch == M.epoch[M.cl[i].chunk] &&
		    !M.cutting[M.cl[i].chunk];
		M.cl[i].busy = false;
		M.acked++;
	} else if (m->rc == ERR_STALE_EPOCH) {
		M.cl[i].busy = false;
	} else if (M.now - M.cl[i].sent > 0) {
		M.cl[i].next = M.now + rand_below(&M.r, 5000) * US;
	}
}

static void
deliver(struct msg *slot)
{
	struct msg m = *slot;
	struct node *n = m.node >= 0 ? &M.n[m.node] : NULL;
	struct nop *op = m.op;
	struct chunk_craq_event ev = { .rc = m.rc };
	bool ours;

	slot->kind = M_NONE;
	if (m.kind == M_WRITE_REP) {
		client_hears(&m);
		return;
	}
	if (m.kind == M_SYNCED) {
		manager_synced(&m);
		return;
	}
	if (n == NULL || !n->up || n->life != m.life)
		return;
	ours = op != NULL && op->used && op->id == m.op_id;
	switch (m.kind) {
	case M_ROUTE:
		node_route(m.node, &m.cfg);
		break;
	case M_COMPARE:
		compare(m.node, &m);
		break;
	case M_WRITE:
	case M_CUT:
		arrive_client(m.node, &m);
		break;
	case M_UPDATE:
		arrive_update(m.node, &m);
		break;
	case M_FETCH:
		arrive_fetch(m.node, &m);
		break;
	case M_STORED: {
		struct chunk_craq_effect e = { .version = m.v,
		    .base = m.base, .update = m.update, .loaded = m.loaded,
		    .epoch = m.epoch };

		ck_assert(ours);
		op->failed = m.rc != 0;
		if (m.rc == 0 && m.repair) {
			M.purges++;
			n->bad[op->craq.id.index] = false;
			memset(&n->now[op->craq.id.index], 0,
			    sizeof(n->now[0]));
			n->durable[op->craq.id.index] =
			    n->now[op->craq.id.index];
		} else if (m.rc == 0) {
			store_replica(n, op, &e, op->craq.id.index);
			ev.check = digest(&n->now[op->craq.id.index].p);
		}
		ev.kind = CRAQ_EV_STORED;
		step(m.node, op, &ev);
		break;
	}
	case M_LOADED:
		ck_assert(ours);
		ev.kind = CRAQ_EV_LOADED;
		ev.epoch = op->loaded_epoch;
		ev.check = op->loaded_check;
		step(m.node, op, &ev);
		break;
	case M_WOKEN:
		if (ours && op->wake == m.call) {
			ev.kind = CRAQ_EV_WOKEN;
			step(m.node, op, &ev);
		}
		break;
	case M_TIMEOUT:
	case M_UPDATE_REP:
	case M_FETCH_REP:
		if (!ours || op->call != m.call)
			break;
		op->call = ++M.ids;
		if (op->attempt != 0) {
			op->attempt = 0;
			ev.kind = CRAQ_EV_FORWARDED;
			ev.version = m.v;
			ev.check = m.check;
		} else {
			bool last = m.rc == -ENOENT &&
			    op->fetch_from == n->pos + 1 &&
			    op->craq.kind != CRAQ_REPAIR;

			if (m.rc != 0 && !last) {
				if (fetch(m.node, op, op->fetching))
					break;
				ev.rc = ERR_BUSY;
			}
			ev.kind = CRAQ_EV_LOADED;
			op->loaded = m.bytes;
			op->loaded_epoch = ev.epoch = m.epoch;
			op->loaded_dedupe_n = m.dedupe_n;
			memcpy(op->loaded_dedupe, m.dedupe, sizeof(m.dedupe));
		}
		step(m.node, op, &ev);
		break;
	case M_NONE:
	case M_WRITE_REP:
	case M_SYNCED:
		break;
	}
}

static void
tick(unsigned writes)
{
	struct msg *first = NULL;

	for (unsigned i = 0; i < MSGS; i++)
		if (M.m[i].kind != M_NONE && (first == NULL ||
		    M.m[i].at < first->at || (M.m[i].at == first->at &&
		    M.m[i].order < first->order)))
			first = &M.m[i];
	if (first != NULL && first->at <= M.now + 200 * US) {
		if (first->at > M.now)
			M.now = first->at;
		deliver(first);
	} else {
		M.now += 200 * US;
	}
	for (unsigned i = 0; i < MSGS; i++)	/* what never arrives */
		if (M.m[i].at > M.now + 500000000000ull)
			M.m[i].kind = M_NONE;
	for (int i = 0; i < NODES; i++)
		if ((!M.n[i].up || !M.n[i].lease) && M.now >= M.n[i].back_at)
			node_return(i);
	manager();
	for (int i = 0; i < NODES; i++)
		housekeeping(i);
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (!M.cl[i].busy && !M.cutting[M.cl[i].chunk])
			client_begin(i, writes);
		else if (M.cl[i].busy && M.now >= M.cl[i].next)
			client_send(i);
	}
	for (uint32_t k = 0; k < CHUNKS; k++) {
		if (M.cutting[k] && rand_below(&M.r, 300) == 0)
			cut_send(k);
		if (!M.cutting[k] && (M.seen[k].n > 30 || (!M.calm &&
		    rand_below(&M.r, 20000) == 0))) {
			M.cutting[k] = true;
			M.epoch[k]++;
			for (uint16_t w = 0; w < M.w_n; w++)
				if (M.w[w].chunk == k)
					M.w[w].acked = false;
			cut_send(k);
		}
	}
	if (rand_below(&M.r, 4) == 0)
		read_somewhere();
	if (M.calm)
		return;
	if (rand_below(&M.r, 4000) == 0)
		node_crash((int)rand_below(&M.r, NODES));
	if (rand_below(&M.r, 20000) == 0)
		for (int i = 0; i < NODES; i++)
			node_crash(i);
	if (rand_below(&M.r, 8000) == 0)
		node_lease_ends((int)rand_below(&M.r, NODES));
	if (rand_below(&M.r, 8000) == 0)
		rotate();
	if (rand_below(&M.r, 8000) == 0)
		damage();
	if (rand_below(&M.r, 3000) == 0)
		M.n[rand_below(&M.r, NODES)].full ^= 1;
}

/* For whoever has to find out why. */
static void
report(void)
{
	fprintf(stderr, "now %llu chain v%u:", (unsigned long long)M.now,
	    M.cfg.version);
	for (int i = 0; i < NODES; i++)
		fprintf(stderr, " node %d state %d", M.cfg.node[i],
		    M.cfg.state[i]);
	fprintf(stderr, "\n");
	for (unsigned i = 0; i < CLIENTS; i++)
		fprintf(stderr, "client %u busy %d chunk %u w %u\n", i,
		    M.cl[i].busy, M.cl[i].chunk, M.cl[i].w);
	for (int i = 0; i < NODES; i++) {
		struct node *n = &M.n[i];

		fprintf(stderr, "node %u up %d v%u serving %d stale %u skip %llu"
		    " ops %d\n", i, n->up, n->t.version, n->t.serving,
		    n->t.stale, (unsigned long long)n->t.skip,
		    n->up && !list_empty(&n->t.ops));
		for (uint32_t k = 0; k < CHUNKS; k++) {
			struct replica *x = &n->now[k];

			fprintf(stderr, "  %u: there %d v%llx of %u, pending "
			    "v%llx of %u removed %d doubt %d cutting %d\n", k,
			    x->there, (unsigned long long)x->committed, x->c.n,
			    (unsigned long long)x->pending, x->p.n, x->removed,
			    n->up && chunk_craq_busy(n->c, &n->t, chunk_of(k)),
			    M.cutting[k]);
		}
	}
}

static bool
quiet(void)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (M.cl[i].busy)
			return false;
	for (uint32_t k = 0; k < CHUNKS; k++)
		if (M.cutting[k])
			return false;
	for (int i = 0; i < NODES; i++)
		if (!M.n[i].up || !M.n[i].lease || !list_empty(&M.n[i].t.ops) ||
		    !M.n[i].t.serving || M.n[i].t.version != M.cfg.version ||
		    M.cfg.state[i] != SERVING)
			return false;
	return true;
}

static void
model(uint64_t seed, unsigned writes)
{
	unsigned ticks = 0;

	memset(&M, 0, sizeof(M));
	rand_seed(&M.r, seed);
	M.nodes = (const int[]){ 3, 4, 2, 3, 5 }[seed % 5];
	M.cfg.version = 1;
	for (int i = 0; i < NODES; i++) {
		M.cfg.node[i] = i;
		M.alive[i] = true;
		node_start(i);
	}
	announce();
	while (M.w_n < writes && ticks++ < 400000)
		tick(writes);
	/* Faults end; everything that waits must end too. */
	M.calm = true;
	for (int i = 0; i < NODES; i++)
		M.n[i].full = false;
	for (ticks = 0; !quiet() && ticks < 400000; ticks++)
		tick(M.w_n);
	if (!quiet())
		report();
	ck_assert_msg(quiet(), "seed %llu: something waits for ever",
	    (unsigned long long)seed);
	/* What was given up on is settled by the head; nothing is left. */
	for (ticks = 0; ticks < 400000 && !same(false); ticks++)
		tick(M.w_n);
	if (!same(false))
		report();
	ck_assert_msg(same(false), "seed %llu: replicas differ",
	    (unsigned long long)seed);
	same(true);
	for (ticks = 0; ticks < 2000; ticks++)
		tick(M.w_n);
	for (int i = 0; i < NODES; i++)
		chunk_craq_close(M.n[i].c);
	/* No write is in a chunk twice. */
	for (uint32_t k = 0; k < CHUNKS; k++) {
		const struct bytes *b = &M.n[0].now[k].c;

		for (unsigned i = 0; M.n[0].now[k].there && i < b->n; i++)
			for (unsigned j = 0; j < i; j++)
				ck_assert_uint_ne(b->w[i], b->w[j]);
	}
}

static uint64_t
env_number(const char *name, uint64_t other)
{
	const char *s = getenv(name);

	return s != NULL && *s != '\0' ? strtoull(s, NULL, 0) : other;
}

START_TEST(any_seed)
{
	uint64_t first = env_number("SEED", 1), n = env_number("N", 30);
	unsigned acked = 0, redriven = 0, reads = 0, crashes = 0, healed = 0;
	unsigned refused = 0, cut = 0, syncs = 0, purges = 0, repairs = 0;
	unsigned rotations = 0, forgot = 0, alone = 0, leases = 0, known = 0;

	if (getenv("SEED") != NULL && *getenv("SEED") != '\0' &&
	    env_number("N", 0) == 0)
		n = 1;
	for (uint64_t s = first; s < first + n; s++) {
		if (getenv("VERBOSE") != NULL)
			fprintf(stderr, "seed %llu\n", (unsigned long long)s);
		model(s, 300);
		acked += M.acked;
		redriven += M.redriven;
		reads += M.reads;
		crashes += M.crashes;
		healed += M.healed;
		syncs += M.syncs;
		purges += M.purges;
		repairs += M.repairs;
		rotations += M.rotations;
		forgot += M.forgot;
		alone += M.alone;
		leases += M.lost_lease;
		known += M.known;
		refused += M.refused;
		cut += M.cut;
	}
	if (getenv("VERBOSE") != NULL)
		fprintf(stderr, "acked %u redriven %u reads %u crashes %u "
		    "healed %u refused %u cuts %u syncs %u purges %u "
		    "repairs %u rotations %u forgot %u alone %u leases %u "
		    "known %u\n", acked, redriven, reads, crashes, healed,
		    refused, cut, syncs, purges, repairs, rotations, forgot,
		    alone, leases, known);
	if (n >= 20) {			/* the test tests something */
		ck_assert_uint_gt(redriven, 0);
		ck_assert_uint_gt(refused, 0);
		ck_assert_uint_gt(healed, n);
		ck_assert_uint_gt(syncs, n);
		ck_assert_uint_gt(purges, 0);
		ck_assert_uint_gt(repairs, 0);
		ck_assert_uint_gt(rotations, 0);
		ck_assert_uint_gt(alone, 0);
		ck_assert_uint_gt(leases, 0);
		ck_assert_uint_gt(known, 0);
		ck_assert_uint_gt(cut, 0);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("craq_model");
	TCase *tc = tcase_create("model");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 600);
	tcase_add_test(tc, any_seed);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
