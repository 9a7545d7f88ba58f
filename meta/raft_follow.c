/* SPDX-License-Identifier: MIT */
/* raft_follow.c - what a follower does with entries, beats and snapshots. */
#include <assert.h>

#include "conf/err.h"
#include "meta/raft_impl.h"

/* What the leader may count on. */
static uint64_t
durable_match(const struct raft *r)
{
	return r->matched < r->durable ? r->matched : r->durable;
}

void
raft_learn_commit(struct raft *r, uint64_t commit)
{
	if (commit > r->matched)
		commit = r->matched;
	if (commit > r->commit)
		r->commit = commit;
}

static void
refuse(struct raft *r, const struct raft_msg *m)
{
	struct raft_msg rep = raft_msg_to(r, RAFT_ENTRIES_REP, m->from);

	rep.index = m->index;
	rep.hint = raft_log_find(r, m->index, m->log_term);
	if (rep.hint < r->commit)
		rep.hint = r->commit;
	rep.log_term = raft_term_at(r, rep.hint);
	rep.seq = m->seq;
	rep.sent_ns = m->sent_ns;
	raft_reply(r, &rep);
}

/* Nothing in it that an honest leader cannot have sent. */
static bool
sane(const struct raft_msg *m)
{
	struct raft_members members;
	uint64_t term = m->log_term;

	if (m->n == 0 || m->entries == NULL || m->index > RAFT_INDEX_MAX ||
	    (m->index == 0) != (m->log_term == 0))
		return false;
	for (uint32_t i = 0; i < m->n; i++) {
		const struct raft_entry *e = &m->entries[i];

		if (e->term < term || e->term == 0 || e->term > m->term)
			return false;
		if (e->type == RAFT_MEMBERS &&
		    raft_members_decode(&members, e->payload, e->len) != 0)
			return false;
		term = e->term;
	}
	return true;
}

static unsigned
terms_in(const struct raft_msg *m, uint32_t from)
{
	unsigned n = 1;

	for (uint32_t i = from + 1; i < m->n && n < RAFT_RUNS_MAX; i++)
		n += m->entries[i].term != m->entries[i - 1].term;
	return n;
}

void
raft_on_entries(struct raft *r, const struct raft_msg *m)
{
	uint32_t i = 0;
	unsigned terms;

	if (r->restoring || !sane(m))
		return;
	/* What is committed is equal in all logs, so only what follows is looked at. */
	if (m->index > r->commit && (m->index > r->last ||
	    raft_term_at(r, m->index) != m->log_term)) {
		refuse(r, m);
		return;
	}
	while (i < m->n && m->index + 1 + i <= r->last &&
	    (m->index + 1 + i <= r->commit ||
	    raft_term_at(r, m->index + 1 + i) == m->entries[i].term))
		i++;
	if (i < m->n) {
		uint64_t at = m->index + 1 + i;

		if (at <= r->last && !raft_log_may_cut(r, at))
			return;			/* it was committed: a lie */
		if (m->entries[i].term < raft_term_at(r, at - 1))
			return;
		terms = terms_in(m, i);
		if (terms >= RAFT_RUNS_MAX || !raft_log_room(r, terms))
			return;
		if (at <= r->last)
			raft_log_cut(r, at);
		r->append_first = at;
		r->append = m->entries + i;
		r->append_n = m->n - i;
		for (; i < m->n; i++)
			raft_log_push(r, &m->entries[i]);
	}
	if (r->matched < m->index + m->n)
		r->matched = m->index + m->n;
	raft_learn_commit(r, m->commit);
	if (m->sent_ns > r->ack_sent_ns)
		r->ack_sent_ns = m->sent_ns;
	if (r->durable >= m->index + m->n)
		r->ack = true;		/* else when it is */
}

void
raft_on_beat(struct raft *r, const struct raft_msg *m)
{
	struct raft_msg rep = raft_msg_to(r, RAFT_BEAT_REP, m->from);

	if (!r->restoring && m->log_term != 0 && m->index > r->matched &&
	    m->index <= r->last && raft_term_at(r, m->index) == m->log_term)
		r->matched = m->index;
	raft_learn_commit(r, m->commit);
	rep.ok = true;
	rep.index = r->matched;
	rep.hint = durable_match(r);
	rep.seq = m->seq;
	rep.sent_ns = m->sent_ns;
	raft_reply(r, &rep);
}

void
raft_persisted(struct raft *r, uint64_t now_ns, uint64_t index, uint64_t term)
{
	raft_begin(r, now_ns);
	if (r->restoring || index <= r->durable || index > r->last || term == 0 ||
	    raft_term_at(r, index) != term)
		return;
	r->durable = index;
	if (r->role == RAFT_LEADER)
		raft_advance(r);
	else if (durable_match(r) > r->acked)
		r->ack = true;
}

bool
raft_follow_next(struct raft *r, struct raft_msg *out)
{
	if (r->has_farewell) {
		r->has_farewell = false;
		*out = r->farewell;
		return true;
	}
	if (!raft_hard_ok(r))
		return false;
	if (r->has_reply) {
		r->has_reply = false;
		*out = r->reply;
		if (out->kind == RAFT_PREVOTE_REP || out->term == r->term)
			return true;	/* else it waited for too long */
	}
	if (r->role != RAFT_FOLLOWER || r->leader == 0)
		return false;
	if (r->ack) {
		r->ack = false;
		*out = raft_msg_to(r, RAFT_ENTRIES_REP, r->leader);
		out->ok = true;
		out->index = r->acked = durable_match(r);
		out->log_term = raft_term_at(r, out->index);
		out->sent_ns = r->ack_sent_ns;
		return true;
	}
	if (r->read_ask) {
		r->read_ask = false;
		*out = raft_msg_to(r, RAFT_READ_ASK, r->leader);
		out->seq = r->read_round;
		return true;
	}
	return false;
}

/* ---- snapshots ---- */

bool
raft_obey(struct raft *r, uint64_t from, uint64_t term)
{
	if (from == 0 || from == r->conf.id || term < r->term || term > RAFT_TERM_MAX ||
	    (term == r->term && (r->role == RAFT_LEADER ||
	    (r->leader != 0 && r->leader != from))))
		return false;
	raft_follow(r, term, from);
	raft_heard(r);
	return true;
}

bool
raft_snapshot_piece(struct raft *r, uint64_t now_ns, uint64_t from, uint64_t term,
    uint64_t index)
{
	raft_begin(r, now_ns);
	return raft_obey(r, from, term) && !r->restoring && index > r->commit;
}

int
raft_restore(struct raft *r, uint64_t now_ns, uint64_t from, uint64_t term,
    const struct raft_point *point)
{
	raft_begin(r, now_ns);
	if (point->index == 0 || point->index > RAFT_INDEX_MAX || point->term == 0 ||
	    point->term > term || !raft_members_valid(&point->members) ||
	    point->members.index == 0 || point->members.index > point->index)
		return ERR_BAD_MESSAGE;
	if (!raft_obey(r, from, term))
		return ERR_NOT_LEADER;
	if (r->restoring)
		return ERR_BUSY;
	if (point->index <= r->commit ||
	    (point->index <= r->last && raft_term_at(r, point->index) == point->term)) {
		if (point->index > r->matched)
			r->matched = point->index;
		raft_learn_commit(r, point->index);
		r->ack = true;
		return ERR_BUSY;
	}
	r->point = *point;
	r->restoring = true;
	r->restore = true;
	r->ack = false;
	raft_log_reset(r, point);
	return 0;
}

void
raft_restored(struct raft *r, uint64_t now_ns, uint64_t index)
{
	raft_begin(r, now_ns);
	if (!r->restoring || index != r->point.index)
		return;
	r->restoring = false;
	r->durable = r->told = index;
	r->ack = true;
}
