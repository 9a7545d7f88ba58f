/* SPDX-License-Identifier: MIT */
/* raft_log.c - what the core knows of the log: where it begins and ends, where the term
 * changes, and the last two configurations.
 *
 * Two are enough: a leader appends a configuration only when the one before it is
 * committed, so of those in a log at most the last is not, and only that one can be cut. */
#include <assert.h>
#include <string.h>

#include "conf/err.h"
#include "meta/raft_impl.h"

uint64_t
raft_last(const struct raft *r)
{
	return r->last;
}

uint64_t
raft_first(const struct raft *r)
{
	return r->base_index + 1;
}

/* The run that holds @index, which is in the log. */
static unsigned
run_of(const struct raft *r, uint64_t index)
{
	unsigned lo = 0, hi = r->runs_n;

	while (hi - lo > 1) {
		unsigned mid = lo + (hi - lo) / 2;

		if (r->runs[mid].first <= index)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

uint64_t
raft_term_at(const struct raft *r, uint64_t index)
{
	if (index == r->base_index)
		return r->base_term;
	if (index < r->base_index || index > r->last)
		return 0;
	return r->runs[run_of(r, index)].term;
}

uint64_t
raft_log_find(const struct raft *r, uint64_t index, uint64_t term)
{
	unsigned i;

	if (index > r->last)
		index = r->last;
	if (index < r->base_index)
		return index;		/* committed, or not ours to know */
	if (index > r->base_index)
		for (i = run_of(r, index) + 1; i-- > 0;) {
			if (r->runs[i].term <= term)
				return index;
			index = r->runs[i].first - 1;
		}
	if (r->base_term <= term || r->base_index == 0)
		return r->base_index;
	return r->base_index - 1;
}

static void
drop_runs(struct raft *r, unsigned n)
{
	r->runs_n -= n;
	memmove(r->runs, r->runs + n, r->runs_n * sizeof(r->runs[0]));
}

static void
forget(struct raft *r, uint64_t index)
{
	unsigned n = 0;

	if (index <= r->base_index)
		return;
	r->base_term = raft_term_at(r, index);
	r->base_index = index;
	while (n + 1 < r->runs_n && r->runs[n + 1].first <= index + 1)
		n++;
	if (index == r->last)
		n = r->runs_n;
	drop_runs(r, n);
	if (r->runs_n != 0 && r->runs[0].first <= index)
		r->runs[0].first = index + 1;
}

void
raft_compacted(struct raft *r, uint64_t index)
{
	assert(index <= r->told);
	forget(r, index);
}

/* When the table is full the oldest terms are treated as if they were compacted: whoever
 * needs entries of them gets a snapshot. */
bool
raft_log_room(struct raft *r, unsigned terms)
{
	assert(terms < RAFT_RUNS_MAX);
	while (r->runs_n + terms > RAFT_RUNS_MAX) {
		uint64_t end = r->runs[1].first - 1;

		if (end > r->told)
			return false;
		forget(r, end);
	}
	return true;
}

void
raft_log_push(struct raft *r, const struct raft_entry *e)
{
	uint64_t index = ++r->last;

	if (r->runs_n == 0 || r->runs[r->runs_n - 1].term != e->term) {
		assert(r->runs_n < RAFT_RUNS_MAX);
		r->runs[r->runs_n++] = (struct raft_run){ e->term, index };
	}
	if (e->type == RAFT_MEMBERS && index > r->cur.index) {
		r->prev = r->cur;
		r->prev_known = true;
		int rc = raft_members_decode(&r->cur, e->payload, e->len);

		assert(rc == 0);	/* looked at before */
		r->cur.index = index;
		raft_members_moved(r);
	}
}

bool
raft_log_may_cut(const struct raft *r, uint64_t index)
{
	return index > r->commit && (r->cur.index < index ||
	    (r->prev_known && r->prev.index < index));
}

void
raft_log_cut(struct raft *r, uint64_t index)
{
	assert(raft_log_may_cut(r, index));
	r->last = index - 1;
	if (r->durable > r->last)
		r->durable = r->last;
	if (r->matched > r->last)
		r->matched = r->last;
	while (r->runs_n != 0 && r->runs[r->runs_n - 1].first > r->last)
		r->runs_n--;
	r->cut = index;
	if (r->cur.index > r->last) {
		r->cur = r->prev;
		r->prev_known = false;
		raft_members_moved(r);
	}
}

void
raft_log_reset(struct raft *r, const struct raft_point *p)
{
	r->base_index = r->last = p->index;
	r->base_term = p->term;
	r->runs_n = 0;
	r->commit = r->matched = p->index;
	r->durable = r->told;		/* nothing new until it is restored */
	r->cur = p->members;
	r->prev_known = false;
	raft_members_moved(r);
}

void
raft_log_own(struct raft *r, uint16_t type, uint32_t len)
{
	assert(r->append_n == 0);
	r->own = (struct raft_entry){ .term = r->term, .type = type, .len = len,
		.payload = r->own_bytes };
	r->append = &r->own;
	r->append_n = 1;
	r->append_first = r->last + 1;
	raft_log_push(r, &r->own);
}

/* ---- open ---- */

int
raft_load(struct raft *r, uint64_t index, const struct raft_entry *e)
{
	struct raft_members m;

	assert(!r->started);
	if (index != r->last + 1 || e->term == 0 || e->term > RAFT_TERM_MAX ||
	    e->term < raft_term_at(r, r->last))
		return ERR_LOG_DAMAGED;
	if (e->type == RAFT_MEMBERS &&
	    raft_members_decode(&m, e->payload, e->len) != 0)
		return ERR_LOG_DAMAGED;
	if (!raft_log_room(r, 1))
		return ERR_LOG_DAMAGED;
	if (e->type == RAFT_MEMBERS && index <= r->told) {
		struct raft_entry plain = *e;

		plain.type = RAFT_COMMAND;	/* the table has it, or a later one */
		raft_log_push(r, &plain);
	} else
		raft_log_push(r, e);
	r->durable = r->last;
	return 0;
}
