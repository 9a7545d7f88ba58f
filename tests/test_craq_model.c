/* SPDX-License-Identifier: MIT */
/* test_craq_model.c - a chain of two to five replication cores over a model of engines,
 * network and manager, under every fault we can think of: lost, late and doubled messages,
 * refusals, stores that fail, damaged bytes, crashes that lose what was not committed, leases
 * that end while the process goes on, rotations, all of them at once.  Replicas leave, come
 * back SYNCING and serve again, by the manager's rules.
 * SEED=n runs one seed, N=n so many, VERBOSE=1 tells the story. */
#include "tests/craq_model_chain.h"
#include "tests/suite.h"

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
	TCase *tc = tcase_create("model");

	tcase_set_timeout(tc, 600);
	tcase_add_test(tc, any_seed);
	return suite_run("craq_model", tc);
}
