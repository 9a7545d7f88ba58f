/* SPDX-License-Identifier: MIT */
/* group_turn.c - what waits for the end of a turn: proposals go to the core, what is
 * committed is applied, and the owner is told and answered.  He may add requests or close
 * the group in any of these. */
#include "meta/group_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "conf/err.h"

#define APPLY_TURN	1024u		/* entries applied in one turn */

/* ---- apply ---- */

/* One entry; false: broken. */
static bool
apply(struct group *g, const struct meta_log_entry *e, size_t *n)
{
	*n = 0;
	if (e->type == RAFT_COMMAND) {
		*n = g->conf.ops->apply(g->conf.ctx, e->index, e->payload, e->len,
		    g->result, sizeof(g->result));
		stat_add(&g->stat.commands, 1);
	} else if (e->type == RAFT_MEMBERS) {
		if (raft_members_decode(&g->applied.members, e->payload,
		    e->len) != 0) {
			group_break(g, ERR_LOG_DAMAGED);
			return false;
		}
		g->applied.members.index = e->index;
	} else if (e->type != RAFT_NOOP) {
		/* To pass over it would be to differ from those who do what it says. */
		log_error(g->conf.log, "entry of a newer release: this one has to be "
		    "upgraded", "type=%u index=%" PRIu64, e->type, e->index);
		group_break(g, ERR_DISK_NEWER);
	}
	assert(*n <= sizeof(g->result));
	if (g->rc != 0 || g->healing)
		return false;		/* half applied; never made durable */
	if (e->type == RAFT_NOOP && e->len > 0)
		g->mark = e->index;
	g->applied.index = e->index;
	g->applied.term = e->term;
	return true;
}

static struct group_req *
proposed(struct group *g, uint64_t index)
{
	struct group_req *r = list_empty(&g->inflight) ? NULL :
	    list_entry(g->inflight.next, struct group_req, node);

	if (r == NULL || r->index != index)
		return NULL;
	list_remove(&r->node);
	g->inflight_n--;
	stat_set(&g->stat.inflight, g->inflight_n);
	return r;
}

static void
read_back(void *ctx, struct meta_log_reader *r, int rc)
{
	struct group *g = ctx;

	(void)r;
	if (rc == -ENOENT)
		group_poke(g);		/* cut meanwhile: look again */
	else if (rc != 0)
		group_break(g, rc);
	else
		group_poke(g);
}

/* The entry after the last one applied: 0, -EAGAIN it is being read, or an error. */
static int
next_entry(struct group *g, struct meta_log_entry *e)
{
	uint64_t index = g->applied.index + 1;
	int rc = meta_log_get(g->log, index, e);

	if (rc != -EAGAIN)
		return rc;
	if (g->reader == NULL &&
	    (rc = meta_log_reader_open(&g->reader, g->log)) != 0)
		return rc;
	if (meta_log_reader_busy(g->reader))
		return -EAGAIN;
	if (meta_log_reader_next(g->reader, e) && e->index == index)
		return 0;
	meta_log_reader_start(g->reader, index, read_back, g);
	return -EAGAIN;
}

/* Apply what is committed, answer those who asked; false: closed. */
static bool
apply_some(struct group *g, const bool *closed)
{
	struct meta_log_entry e;
	struct group_req *r;
	size_t n;

	for (unsigned i = 0; g->rc == 0 && g->applied.index < g->commit; i++) {
		int rc;

		if (g->half || g->load.finishing || g->healing)
			return true;
		if (g->mark != 0 && !group_mark_write(g))
			break;
		if (i == APPLY_TURN) {
			group_poke(g);
			break;
		}
		if ((rc = next_entry(g, &e)) == -EAGAIN)
			break;
		if (rc != 0)
			group_break(g, rc == -ENOENT ? ERR_LOG_DAMAGED : rc);
		if (rc != 0 || !apply(g, &e, &n))
			break;
		if ((r = proposed(g, e.index)) == NULL)
			continue;
		r->fn(r, 0, g->result, n);
		if (*closed)
			return false;
	}
	if (g->rc == 0 && g->mark != 0 && !g->half && !g->healing)
		(void)group_mark_write(g);
	if (g->reader != NULL && g->applied.index == g->commit &&
	    !meta_log_reader_busy(g->reader)) {
		meta_log_reader_close(g->reader);	/* its buffer is large */
		g->reader = NULL;
	}
	stat_set(&g->stat.log_bytes, meta_log_used_bytes(g->log));
	group_flush_maybe(g);
	return true;
}

/* ---- answers ---- */

/* Take requests off @from one by one: a callback may add, or close the group. */
static bool
answer_all(struct group *g, struct list *from, int rc, const bool *closed)
{
	struct list *n;

	while ((n = list_pop_front(from)) != NULL) {
		struct group_req *r = list_entry(n, struct group_req, node);

		if (from == &g->failed && r->ticket == UINT64_MAX) {
			g->inflight_n--;
			stat_set(&g->stat.inflight, g->inflight_n);
		}
		r->fn(r, rc, NULL, 0);
		if (*closed)
			return false;	/* the rest may be freed already */
	}
	return true;
}

void
group_order(struct group *g)
{
	uint64_t first;
	int rc;

	if (g->prop_n == 0)
		return;
	for (uint32_t i = 0; i < g->prop_n; i++)
		g->prop[i].payload = g->props + (uintptr_t)g->prop[i].payload;
	rc = raft_propose(g->raft, group_now(g), g->prop, g->prop_n, &first);
	assert(rc != 0 || first == g->prop_first);	/* as their requests say */
	g->props_len = 0;
	g->prop_n = 0;
	if (rc != 0)
		group_fail_all(g);
	else
		group_pump(g);
}

/* Ask the core about the reads that have come in this turn, once for all. */
static void
reads_ask(struct group *g)
{
	uint64_t ticket, index;

	if (list_empty(&g->reads_new))
		return;
	if (g->rc != 0 || g->raft == NULL) {
		list_splice_back(&g->failed, &g->reads_new);
		return;
	}
	raft_read(g->raft, group_now(g), true, &ticket, &index);
	list_for_each(it, &g->reads_new) {
		struct group_req *r = list_entry(it, struct group_req, node);

		r->ticket = ticket;
		r->index = index;
	}
	list_splice_back(&g->reads, &g->reads_new);
	group_pump(g);
}

static bool
reads_answer(struct group *g, const bool *closed)
{
	struct list done, late;

	list_init(&done);
	list_init(&late);
	while (!list_empty(&g->reads)) {
		struct group_req *r = list_entry(g->reads.next, struct group_req,
		    node);

		if (r->ticket == 0 && r->index <= g->applied.index && !g->half &&
		    !g->healing) {
			list_remove(&r->node);
			list_push_back(&done, &r->node);
		} else if (group_now(g) >= r->until_ns) {
			list_remove(&r->node);
			list_push_back(&late, &r->node);
		} else
			break;
	}
	return answer_all(g, &done, 0, closed) &&
	    answer_all(g, &late, ERR_NOT_LEADER, closed);
}

/* All that was proposed is applied, or we do not lead any more. */
static bool
tell_quiet(struct group *g, const bool *closed)
{
	struct group_req *r = g->quiet;
	bool leads = g->rc == 0 && g->leads;

	if (r == NULL || (leads && (g->inflight_n > 0 || g->prop_n > 0 ||
	    g->applied.index != raft_last(g->raft))))
		return true;
	g->quiet = NULL;
	r->fn(r, leads ? 0 : ERR_NOT_LEADER, NULL, 0);
	return !*closed;
}

/* Tell the owner who leads, and who is there. */
static bool
tell(struct group *g, const bool *closed)
{
	bool lead = g->rc == 0 && g->role == RAFT_LEADER && !g->healing &&
	    g->applied.index >= g->serve_index;

	if (g->told_leads && (!lead || !g->leads)) {
		g->told_leads = g->leads = false;
		if (g->rc == 0)
			g->conf.ops->leader(g->conf.ctx, false);
		if (*closed)
			return false;
		lead = g->rc == 0 && g->role == RAFT_LEADER && !g->healing &&
		    g->applied.index >= g->serve_index;
	}
	if (lead && !g->told_leads) {
		g->told_leads = g->leads = true;
		g->conf.ops->leader(g->conf.ctx, true);
		if (*closed)
			return false;
	}
	if (g->rc == 0 && g->raft != NULL &&
	    (raft_members(g->raft)->index != g->members_told ||
	    raft_leader(g->raft) != g->leader_told)) {
		g->members_told = raft_members(g->raft)->index;
		g->leader_told = raft_leader(g->raft);
		stat_set(&g->stat.members, raft_members(g->raft)->n);
		if (g->conf.ops->members != NULL)
			g->conf.ops->members(g->conf.ctx);
	}
	return !*closed;
}

/* Before anything is applied to the table that came. */
static bool
tell_restored(struct group *g, const bool *closed)
{
	if (!g->restored)
		return true;
	g->restored = false;
	if (g->conf.ops->restored != NULL)
		g->conf.ops->restored(g->conf.ctx);
	return !*closed;
}

static bool
tell_ends(struct group *g, const bool *closed)
{
	if (g->flush_fn != NULL && group_flushed(g)) {
		void (*fn)(void *) = g->flush_fn;

		g->flush_fn = NULL;
		fn(g->flush_ctx);
		if (*closed)
			return false;
	}
	if (g->rc != 0 && !g->told) {
		g->told = true;
		g->conf.ops->broken(g->conf.ctx, g->rc);
	}
	return !*closed;
}

static void
core_told(struct group *g)
{
	if (g->rc != 0 || g->raft == NULL)
		return;
	if (g->sync) {
		g->sync = false;
		raft_persisted(g->raft, group_now(g), g->sync_index, g->sync_term);
		group_pump(g);
	}
	if (g->rc == 0)
		group_order(g);
	if (g->rc == 0)
		group_heal_drive(g);
}

static void
work(struct clock_defer *d)
{
	struct group *g = container_of(d, struct group, defer);
	bool closed = false;

	g->closed = &closed;
	core_told(g);
	reads_ask(g);
	if (!tell_restored(g, &closed) || !apply_some(g, &closed) ||
	    !answer_all(g, &g->failed, g->rc != 0 ? g->rc : ERR_NOT_LEADER,
	    &closed) ||
	    !reads_answer(g, &closed) || !tell(g, &closed) ||
	    !tell_quiet(g, &closed) || !tell_ends(g, &closed))
		return;
	if (g->prop_n > 0 || !list_empty(&g->reads_new) ||
	    !list_empty(&g->failed))
		group_poke(g);
	g->closed = NULL;
}

void
group_poke(struct group *g)
{
	clock_defer(g->conf.clock, &g->defer, work);
}
