/* SPDX-License-Identifier: MIT */
/* test_craq_model.c - chains of three replication cores over a model of engines and network,
 * under every fault we can think of: lost, late and doubled messages, refusals, stores that
 * fail, crashes that lose what was not committed, all of them at once.
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
#include "chunk/reconcile.h"
#include "conf/err.h"
#include "conf/rand.h"

#define NODES	3
#define CHUNKS	3
#define CLIENTS	4
#define LIST	120		/* writes a model chunk can hold */
#define OPS	64
#define MSGS	256
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
	M_TIMEOUT, M_ROUTE };

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
	bool	 serving;
	uint8_t	 update;
	uint64_t v, base, attempt, floor, fence, seq, from_op;
	struct bytes bytes;
	uint32_t dedupe_n;
	struct chunk_dedupe dedupe[CHUNK_DEDUPE_MAX];
	uint16_t w;			/* the write's number */
	uint32_t check;
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
	int	 fetch_from;
};

struct node {
	bool	 up;
	uint32_t life;
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
	struct node n[NODES];
	struct msg m[MSGS];
	uint32_t version;		/* of the chain, at the manager */
	bool	 serving;
	uint64_t reconcile_at;
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
	unsigned acked, redriven, reads, crashes, reconciles, refused, cut;
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
	ck_assert_uint_gt(v, r->committed);
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

	ck_assert_uint_gt(e->version, r->committed);
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

static void
reply(int ni, struct nop *op, const struct chunk_craq_effect *e)
{
	struct msg *m;

	op->used = false;
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
		M.redriven++;
		op->loaded = r->p;
		op->loaded_epoch = r->p_epoch;
		op->loaded_dedupe_n = r->dedupe_n;
		memcpy(op->loaded_dedupe, r->dedupe, sizeof(r->dedupe));
		m = send_at(M_LOADED, ni, delay());
		m->op = op;
		m->op_id = op->id;
		break;
	case CRAQ_FETCH:
		op->fetching = e->version;
		op->fetch_from = ni + 1;
		m = call(ni, op, M_FETCH, ni + 1);
		m->v = e->version;
		m->floor = floor_of(n);
		m->fence = n->attempt + 1;
		break;
	case CRAQ_STORE:
		m = send_at(M_STORED, ni, delay());
		m->op = op;
		m->op_id = op->id;
		m->rc = n->full && chance(50) ? -ENOSPC : chance(1) ?
		    ERR_CORRUPT : chance(1) ? ERR_BUSY : 0;
		if (e->update == UPDATE_REPLACE && m->rc == ERR_CORRUPT)
			m->rc = 0;
		m->v = e->version;
		m->base = e->base;
		m->update = e->update;
		m->serving = e->loaded;
		m->epoch = e->epoch;
		break;
	case CRAQ_FORWARD:
		op->attempt = ++n->attempt;
		m = call(ni, op, M_UPDATE, ni + 1);
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

	n->up = true;
	n->life++;
	ck_assert_int_eq(chunk_craq_open(&n->c, OPS), 0);
	chunk_craq_target_init(&n->t, (target_id)ni + 1);
	memcpy(n->now, n->durable, sizeof(n->now));
	memset(n->ops, 0, sizeof(n->ops));
}

/* The manager tells everyone, sooner or later. */
static void
announce(void)
{
	for (int i = 0; i < NODES; i++) {
		struct msg *m = send_at(M_ROUTE, i, delay());

		m->version = M.version;
		m->serving = M.serving;
	}
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
	n->back_at = M.now + rand_below(&M.r, 20000) * US;
}

static void
node_return(int ni)
{
	node_start(ni);
	M.version++;
	M.serving = false;
	announce();
	M.reconcile_at = M.now + 2000 * US;
}

static void report(void);

/* All replicas must have seen this version and have come to rest; then merge. */
static bool
reconcile(void)
{
	struct msg_list_row rows[NODES][CHUNKS];
	struct chunk_reconcile r;
	struct chunk_reconcile_plan plan;
	enum chunk_reconcile_next what;

	for (int i = 0; i < NODES; i++)
		if (!M.n[i].up || M.n[i].t.version != M.version ||
		    M.n[i].t.stale != 0)
			return false;
	chunk_reconcile_init(&r, NODES);
	for (unsigned i = 0; i < NODES; i++) {
		uint32_t n = 0;

		for (uint32_t k = 0; k < CHUNKS; k++) {
			struct chunk_info buf;
			const struct chunk_info *in = info_of(&M.n[i].now[k],
			    &buf);

			if (in == NULL)
				continue;
			rows[i][n++] = (struct msg_list_row){
			    .chunk = chunk_of(k), .committed = in->committed,
			    .pending = in->pending, .len = in->pending != 0 ?
			    in->pending_len : in->committed_len, .check =
			    in->pending != 0 ? in->pending_check :
			    in->committed_check, .removed = in->pending != 0 &&
			    in->pending_removed };
		}
		ck_assert_int_eq(chunk_reconcile_page(&r, i, rows[i], n, false),
		    0);
	}
	while ((what = chunk_reconcile_next(&r, &plan)) != RECONCILE_END) {
		uint32_t chunk = plan.id.index;
		struct replica src = M.n[plan.holder].now[chunk];

		ck_assert_int_eq(what, RECONCILE_CHUNK);
		if (plan.conflict)
			report();
		ck_assert(!plan.conflict);
		for (unsigned i = 0; i < NODES; i++) {
			struct nop *op;
			struct msg *s;
			struct chunk_craq_event ev = { .kind = CRAQ_EV_ADMIT };

			if (plan.act[i] == RECONCILE_NONE || chance(10))
				continue;	/* interrupted here */
			op = op_get(&M.n[i]);
			op->craq = (struct chunk_craq_op){ .target = &M.n[i].t,
			    .id = plan.id, .kind = CRAQ_RECONCILE,
			    .chain_version = M.version, .version = plan.version,
			    .update = plan.act[i] == RECONCILE_CONFIRM ?
			    UPDATE_CONFIRM : plan.act[i] == RECONCILE_REMOVE ?
			    UPDATE_REMOVE : UPDATE_REPLACE,
			    .check = plan.check,
			    .deadline_ns = M.now + NS_PER_S };
			if (src.pending == plan.version) {
				op->req.bytes = src.p;
				op->craq.epoch = src.p_epoch;
			} else {
				op->req.bytes = src.c;
				op->craq.epoch = src.c_epoch;
			}
			op->req.dedupe_n = src.dedupe_n;
			memcpy(op->req.dedupe, src.dedupe, sizeof(src.dedupe));
			op->used = true;
			step((int)i, op, &ev);
			/* Its store ends now: reconcile is not what is
			 * tested for timing. */
			s = NULL;
			for (unsigned k = 0; k < MSGS; k++)
				if (M.m[k].kind == M_STORED &&
				    M.m[k].op == op && M.m[k].op_id == op->id)
					s = &M.m[k];
			if (s != NULL) {
				struct chunk_craq_event st = {
				    .kind = CRAQ_EV_STORED };
				struct chunk_craq_effect e = { .version = s->v,
				    .update = s->update, .epoch = s->epoch };

				s->kind = M_NONE;
				store_replica(&M.n[i], op, &e, chunk);
				st.check = digest(&M.n[i].now[chunk].p);
				step((int)i, op, &st);
			}
			ck_assert(!op->used);
		}
	}
	/* Done only when a second look finds nothing to do. */
	for (unsigned i = 1; i < NODES; i++)
		for (uint32_t k = 0; k < CHUNKS; k++) {
			struct replica *a = &M.n[0].now[k], *b = &M.n[i].now[k];

			if (a->there != b->there || a->pending || b->pending ||
			    a->committed != b->committed)
				return false;
			ck_assert_uint_eq(digest(&a->c), digest(&b->c));
		}
	M.reconciles++;
	return true;
}

/* ---- clients ---- */

static void
client_send(unsigned i)
{
	struct msg *m = send_at(M_WRITE, 0, delay());

	m->client = (int)i;
	m->version = M.n[0].up ? M.n[0].t.version : M.version;
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
	struct msg *m = send_at(M_CUT, 0, delay());

	m->client = CLIENTS + (int)chunk;
	m->version = M.n[0].up ? M.n[0].t.version : M.version;
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
	int ni = (int)rand_below(&M.r, NODES), tail = NODES - 1;
	uint32_t k = (uint32_t)rand_below(&M.r, CHUNKS);
	struct node *n = &M.n[ni];
	struct replica *r = &n->now[k];
	const struct bytes *got = &r->c;
	static const struct bytes none;
	struct chunk_info buf;
	const struct chunk_info *info;

	if (!n->up || !n->t.serving || M.cutting[k])
		return;
	info = info_of(r, &buf);
	if (ni != tail && chunk_craq_dirty(n->c, &n->t, chunk_of(k), info)) {
		struct node *t = &M.n[tail];

		if (!t->up || t->t.version != n->t.version || !t->t.serving)
			return;
		switch (chunk_craq_pick(info, t->now[k].there ?
		    t->now[k].committed : 0)) {
		case CRAQ_PICK_NONE:
			got = &none;
			break;
		case CRAQ_PICK_AGAIN:
			return;
		case CRAQ_PICK_READ:
			got = t->now[k].committed == r->committed ? &r->c :
			    &r->p;
			break;
		}
	} else if (info == NULL || info->committed == 0) {
		got = &none;
	}
	M.reads++;
	/* One order: what somebody has read before is a prefix. */
	ck_assert(prefix(&M.seen[k], got));
	M.seen[k] = *got;
	for (uint16_t w = 0; w < M.w_n; w++) {
		bool in = false;

		if (M.w[w].chunk != k || !M.w[w].acked)
			continue;
		for (unsigned i = 0; i < got->n; i++)
			in |= got->w[i] == w;
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

	if (!n->t.serving || n->t.version != q->version) {
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
	    .base = q->base, .attempt = q->attempt,
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
	struct nop *op = op_get(n);

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
	m->bytes = r->committed == q->v ? r->c : r->p;
	m->epoch = r->committed == q->v ? r->c_epoch : r->p_epoch;
	m->dedupe_n = r->dedupe_n;
	memcpy(m->dedupe, r->dedupe, sizeof(m->dedupe));
}

static void
arrive_fetch(int ni, struct msg *q)
{
	struct node *n = &M.n[ni];
	struct nop *op;
	struct chunk_craq_event ev = { .kind = CRAQ_EV_ADMIT, .now_ns = M.now };
	int rc = 0;

	if (n->t.version != q->version || !n->t.serving)
		rc = ERR_STALE_CHAIN;
	else
		rc = chunk_craq_fence(&n->t, q->floor, chunk_of(q->chunk),
		    q->fence);
	if (rc != 0 || !chunk_craq_busy(n->c, &n->t, chunk_of(q->chunk)) ||
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
	if (n == NULL || !n->up || n->life != m.life)
		return;
	ours = op != NULL && op->used && op->id == m.op_id;
	switch (m.kind) {
	case M_ROUTE:
		if (m.version > n->t.version || (m.version == n->t.version &&
		    m.serving && n->t.recovering)) {
			chunk_craq_move(n->c, &n->t, m.version, m.serving,
			    m.node == 0, m.node == NODES - 1);
			run_effects(m.node);
		}
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
		    .base = m.base, .update = m.update, .loaded = m.serving,
		    .epoch = m.epoch };

		ck_assert(ours);
		if (m.rc == 0) {
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
		} else if (m.rc != 0 && (m.rc != -ENOENT ||
		    op->fetch_from != m.node + 1) &&
		    op->fetch_from + 1 < NODES) {
			struct msg *f = call(m.node, op, M_FETCH,
			    ++op->fetch_from);

			f->v = op->fetching;
			break;
		} else {
			if (m.rc == -ENOENT && op->fetch_from != m.node + 1)
				ev.rc = ERR_BUSY;
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
		if (!M.n[i].up && M.now >= M.n[i].back_at)
			node_return(i);
	if (!M.serving && M.now >= M.reconcile_at) {
		M.reconcile_at = M.now + 1000 * US;
		if (reconcile()) {
			M.serving = true;
			announce();
		}
	}
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
	if (rand_below(&M.r, 3000) == 0)
		node_crash((int)rand_below(&M.r, NODES));
	if (rand_below(&M.r, 20000) == 0)
		for (int i = 0; i < NODES; i++)
			node_crash(i);
	if (rand_below(&M.r, 3000) == 0)
		M.n[rand_below(&M.r, NODES)].full ^= 1;
}

/* For whoever has to find out why. */
static void
report(void)
{
	fprintf(stderr, "now %llu chain v%u serving %d\n",
	    (unsigned long long)M.now, M.version, M.serving);
	for (unsigned i = 0; i < CLIENTS; i++)
		fprintf(stderr, "client %u busy %d chunk %u w %u\n", i,
		    M.cl[i].busy, M.cl[i].chunk, M.cl[i].w);
	for (unsigned i = 0; i < NODES; i++) {
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
	for (unsigned i = 0; i < NODES; i++)
		if (!M.n[i].up || !list_empty(&M.n[i].t.ops))
			return false;
	return true;
}

static void
model(uint64_t seed, unsigned writes)
{
	unsigned ticks = 0;

	memset(&M, 0, sizeof(M));
	rand_seed(&M.r, seed);
	M.version = 1;
	for (int i = 0; i < NODES; i++)
		node_start(i);
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
	/* One restart of everything resolves what was given up on. */
	for (int i = 0; i < NODES; i++)
		node_crash(i);
	for (ticks = 0; (!quiet() || !M.serving) && ticks < 400000; ticks++)
		tick(M.w_n);
	ck_assert(M.serving);
	for (ticks = 0; ticks < 2000; ticks++)
		tick(M.w_n);
	for (unsigned i = 0; i < NODES; i++)
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
	unsigned acked = 0, redriven = 0, reads = 0, crashes = 0, recon = 0;
	unsigned refused = 0, cut = 0;

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
		recon += M.reconciles;
		refused += M.refused;
		cut += M.cut;
	}
	if (getenv("VERBOSE") != NULL)
		fprintf(stderr, "acked %u redriven %u reads %u crashes %u "
		    "reconciles %u refused %u cuts %u\n", acked, redriven, reads,
		    crashes, recon, refused, cut);
	if (n >= 20) {			/* the test tests something */
		ck_assert_uint_gt(redriven, 0);
		ck_assert_uint_gt(refused, 0);
		ck_assert_uint_gt(recon, n);
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
