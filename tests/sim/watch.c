/* SPDX-License-Identifier: MIT */
/* watch.c - what must hold at every moment, whatever goes wrong, also where no client looks.
 *
 *   1  At most one manager and one metadata server are sure to lead, and of one group no
 *      two members lead in the same term.
 *   2  What a group has committed stays: every member that commits an index commits the
 *      entry of the same term there, and who leads later has it.
 *   3  A storage node that may serve is not down for the managers.
 *   4  Once the reading tail of a chain takes operations, no replica answers readers by an
 *      older version that does not serve in that one; and at most one is the reading tail.
 *   5  What the reading tail shows is at every replica that serves in the same version:
 *      committed, pending, or on its way there.
 *   6  What is pending at a replica is pending at the one before it, was committed there, or
 *      is being worked on: it will not come back when nobody remembers it.
 *   7  A disk that has failed a sync is not used on.
 *
 * These look at the roles' own state, by their own checks where there are such. */
#include "tests/sim/sim_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "meta/group_impl.h"
#include "net/routing.h"
#include "roles/storage_impl.h"

#define TERMS_MAX	4096u		/* that are remembered */

/* Of one group: who led in each term, and which term has each committed entry. */
struct watch_group {
	const char *what;
	uint64_t  leaders[TERMS_MAX];	/* member ids; 0: nobody was seen */
	uint64_t *terms;		/* of index i + 1; 0: not known */
	size_t	  n, cap;
};

struct sim_watch {
	struct watch_group managers, metadata;
};

void
sim_watch_open(struct sim *s)
{
	s->watch = calloc(1, sizeof(*s->watch));
	assert(s->watch != NULL);
	s->watch->managers.what = "manager";
	s->watch->metadata.what = "metadata";
}

void
sim_watch_close(struct sim *s)
{
	free(s->watch->managers.terms);
	free(s->watch->metadata.terms);
	free(s->watch);
}

/* ---- groups ---- */

static void
committed(struct sim *s, struct watch_group *w, unsigned i, const struct raft *r)
{
	uint64_t commit = raft_commit(r), from = w->n + 1, term;

	if (commit > w->cap) {
		w->cap = 2 * commit;
		w->terms = realloc(w->terms, w->cap * sizeof(*w->terms));
		assert(w->terms != NULL);
	}
	for (uint64_t at = from; at <= commit; at++)
		w->terms[w->n++] = raft_term_at(r, at);
	term = commit == 0 ? 0 : raft_term_at(r, commit);
	if (term != 0 && w->terms[commit - 1] != 0 && w->terms[commit - 1] != term)
		sim_fail(s, "%s%u has committed entry %" PRIu64 " of term %" PRIu64
		    ", which another has of term %" PRIu64, w->what, i + 1, commit, term,
		    w->terms[commit - 1]);
}

static void
leads(struct sim *s, struct watch_group *w, unsigned i, const struct raft *r)
{
	uint64_t term = raft_term(r), *who, last;

	if (raft_role(r) != RAFT_LEADER)
		return;
	if (term < TERMS_MAX) {
		who = &w->leaders[term];
		if (*who != 0 && *who != raft_id(r))
			sim_fail(s, "%s%u leads in term %" PRIu64 ", as another did",
			    w->what, i + 1, term);
		*who = raft_id(r);
	}
	/* The last that is known to be committed, and in an older term. */
	for (last = w->n; last > 0 && w->terms[last - 1] >= term; last--)
		;
	if (last == 0 || w->terms[last - 1] == 0 || last < raft_first(r))
		return;
	if (last > raft_last(r) || raft_term_at(r, last) != w->terms[last - 1])
		sim_fail(s, "%s%u leads in term %" PRIu64 " without entry %" PRIu64
		    " of term %" PRIu64 ", which is committed", w->what, i + 1, term, last,
		    w->terms[last - 1]);
}

static void
watch_group(struct sim *s, struct watch_group *w, unsigned n,
    struct group *(*group)(struct sim *, unsigned))
{
	int leader = -1;

	for (unsigned i = 0; i < n; i++) {
		struct group *g = group(s, i);

		if (g == NULL || g->raft == NULL)
			continue;
		committed(s, w, i, g->raft);
		if (!group_lease(g))
			continue;
		if (leader >= 0)
			sim_fail(s, "%s%d and %s%u are both sure to lead", w->what,
			    leader + 1, w->what, i + 1);
		leader = (int)i;
	}
	for (unsigned i = 0; i < n; i++)
		if (group(s, i) != NULL && group(s, i)->raft != NULL)
			leads(s, w, i, group(s, i)->raft);
}

/* ---- leases ---- */

/* @r is what the managers have agreed on so far, or older; a lease that was granted with
 * newer routing says nothing about it. */
static void
watch_lease(struct sim *s, const struct routing *r, unsigned i)
{
	const struct storage *st = sim_storage(s, i);
	const struct routing_node *row;

	if (st == NULL || st->workers == NULL || st->member == NULL || r == NULL ||
	    (row = routing_node(r, member_node(st->member))) == NULL)
		return;
	if (row->state == NODE_DOWN && uid128_eq(&row->boot, member_boot(st->member)) &&
	    row->changed > member_lease_routing(st->member) &&
	    storage_lease(&st->workers[0]))
		sim_fail(s, "storage%u is down for the managers since version %" PRIu64
		    ", and may still serve", i + 1, row->changed);
}

/* ---- chains ---- */

bool
sim_shows(struct storage_target *t)
{
	struct storage_target *out;

	return !t->gone && storage_check(t->w, STORAGE_READ, t->v.target, t->v.chain,
	    t->v.version, &out) == 0;
}

static bool
serves_in(const struct storage_view_chain *v, target_id target)
{
	for (unsigned i = 0; i < v->serving_n; i++)
		if (v->replicas[i] == target)
			return true;
	return false;
}

#define REPLICAS_MAX	32u

/* All that answer readers; the node of each. */
static unsigned
all_that_show(struct sim *s, struct storage_target **out, unsigned *node)
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->storage_n; i++) {
		struct storage *st = sim_storage(s, i);
		struct storage_target *t;
		size_t it = 0;

		if (st == NULL || st->workers == NULL || st->phase != STORAGE_SERVING)
			continue;
		while ((t = map_next(&st->workers[0].targets, &it, NULL)) != NULL)
			if (n < REPLICAS_MAX && sim_shows(t)) {
				node[n] = i;
				out[n++] = t;
			}
	}
	return n;
}

static void
watch_pair(struct sim *s, const struct storage_target *tail, unsigned tail_at,
    const struct storage_target *t, unsigned at)
{
	if (t->v.version < tail->v.version && !serves_in(&tail->v, t->v.target))
		sim_fail(s, "chain %u: storage%u answers readers by version %u, while "
		    "storage%u acknowledges writes without it by %u", t->v.chain, at + 1,
		    t->v.version, tail_at + 1, tail->v.version);
	if (t->craq.read_tail && !t->craq.handing && t->v.version <= tail->v.version)
		sim_fail(s, "chain %u: storage%u in version %u and storage%u in %u are "
		    "both its reading tail", t->v.chain, at + 1, t->v.version,
		    tail_at + 1, tail->v.version);
}

/* Versions at the tail against another replica's, in the same version of the chain. */
static void
watch_bytes(struct sim *s, struct storage_target *tail, unsigned tail_at,
    struct storage_target *t, unsigned at)
{
	struct chunk_id id = { 0 };
	struct chunk_info a, b;

	for (bool after = false; chunk_engine_next(tail->disk->engine, tail->v.target, id,
	    after, &a) == 0; after = true) {
		int rc;

		id = a.id;
		if (a.committed == 0 || chunk_craq_busy(t->w->craq, &t->craq, id) ||
		    chunk_craq_busy(tail->w->craq, &tail->craq, id))
			continue;
		rc = chunk_engine_info(t->disk->engine, t->v.target, id, &b);
		if (rc == 0 && (b.committed >= a.committed || b.pending >= a.committed))
			continue;
		if (rc == 0 || rc == -ENOENT)
			sim_fail(s, "chain %u version %u: storage%u shows %" PRIu64 ".%u "
			    "in version %" PRIx64 ", storage%u has %" PRIx64
			    ", pending %" PRIx64, t->v.chain, t->v.version, tail_at + 1,
			    id.ino, id.index, a.committed, at + 1,
			    rc == 0 ? b.committed : 0, rc == 0 ? b.pending : 0);
	}
}

/* What is pending behind @pred, which serves right before it in the same version. */
static void
watch_pending(struct sim *s, struct storage_target *pred, unsigned pred_at,
    struct storage_target *t, unsigned at)
{
	struct chunk_id id = { 0 };
	struct chunk_info a, b;

	for (bool after = false; chunk_engine_next_pending(t->disk->engine, t->v.target, id,
	    after, &a) == 0; after = true) {
		int rc;

		id = a.id;
		if (chunk_craq_busy(t->w->craq, &t->craq, id) ||
		    chunk_craq_busy(pred->w->craq, &pred->craq, id))
			continue;
		rc = chunk_engine_info(pred->disk->engine, pred->v.target, id, &b);
		if (rc == 0 && (b.pending == a.pending || b.committed >= a.pending))
			continue;
		if ((rc == 0 || rc == -ENOENT) && !a.pending_removed)
			sim_fail(s, "chain %u version %u: storage%u has %" PRIu64 ".%u in "
			    "version %" PRIx64 " pending, storage%u before it %" PRIx64
			    ", pending %" PRIx64, t->v.chain, t->v.version, at + 1, id.ino,
			    id.index, a.pending, pred_at + 1, rc == 0 ? b.committed : 0,
			    rc == 0 ? b.pending : 0);
	}
}

static void
watch_chains(struct sim *s, bool bytes)
{
	struct storage_target *t[REPLICAS_MAX];
	unsigned node[REPLICAS_MAX], n = all_that_show(s, t, node);

	for (unsigned i = 0; bytes && i < n; i++)
		for (unsigned k = 0; k < n; k++)
			if (t[k]->v.chain == t[i]->v.chain &&
			    t[k]->v.version == t[i]->v.version &&
			    t[k]->v.pos == t[i]->v.pos + 1)
				watch_pending(s, t[i], node[i], t[k], node[k]);
	for (unsigned i = 0; i < n; i++) {
		if (!t[i]->craq.read_tail || t[i]->craq.handing)
			continue;
		for (unsigned k = 0; k < n; k++) {
			if (k == i || t[k]->v.chain != t[i]->v.chain)
				continue;
			watch_pair(s, t[i], node[i], t[k], node[k]);
			if (bytes && t[k]->v.version == t[i]->v.version)
				watch_bytes(s, t[i], node[i], t[k], node[k]);
		}
	}
}

/* ---- disks ---- */

static void
watch_disks(struct sim *s, unsigned i)
{
	struct storage *st = sim_storage(s, i);
	const struct storage_worker *w = st == NULL ? NULL : st->workers;

	for (unsigned k = 0; w != NULL && k < w->disk_n; k++)
		if (w->disks[k].open && !atomic_load(&w->disks[k].failed) &&
		    chunk_engine_state(w->disks[k].engine) == 0 &&
		    sim_disk_sync_errors(s->nodes[SIM_STORAGE0 + i].box,
		    w->disks[k].path) > 0)
			sim_fail(s, "storage%u goes on with %s, which has failed a sync",
			    i + 1, w->disks[k].path);
}

void
sim_watch(struct sim *s, bool bytes)
{
	const struct routing *r = sim_routing(s);

	watch_group(s, &s->watch->managers, SIM_MANAGERS, sim_manager_group);
	watch_group(s, &s->watch->metadata, SIM_METADATAS, sim_metadata_group);
	for (unsigned i = 0; i < s->storage_n; i++) {
		watch_lease(s, r, i);
		watch_disks(s, i);
	}
	watch_chains(s, bytes);
}
