/* SPDX-License-Identifier: MIT */
/* craq_model_chain.h - the chain of the model: a manager's rules, and what replicas do by
 * themselves: resync, repair, cuts that are left. */
#ifndef TESTS_CRAQ_MODEL_CHAIN_H
#define TESTS_CRAQ_MODEL_CHAIN_H

#include "tests/craq_model.h"

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

#endif
