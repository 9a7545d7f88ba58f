/* SPDX-License-Identifier: MIT */
/* raft_lead.c - what a leader does: bring its log to the others, commit what a majority
 * has, notice when it has lost that majority, hand over.
 *
 *	PROBE -- entries taken --> PIPE		PROBE: one message, then wait
 *	  ^-- refused, or no progress --+	PIPE: as many as the window holds
 *	PROBE, PIPE -- what it needs is not in the log --> SNAP -- sent, or not --> PROBE */
#include <assert.h>
#include <errno.h>

#include "conf/err.h"
#include "meta/raft_impl.h"

static uint64_t
match_of(const struct raft_peer *p)
{
	return p->match;
}

static uint64_t
acked_of(const struct raft_peer *p)
{
	return p->acked_ns;
}

static uint64_t
heard_of(const struct raft_peer *p)
{
	return p->heard_ns;
}

static void
probe(struct raft *r, struct raft_peer *p, uint64_t next)
{
	p->flow = PROBE;
	p->paused = false;
	p->snapshot = false;
	p->inflight_n = 0;
	p->next = next > p->match ? next : p->match + 1;
	if (p->next > r->last + 1)
		p->next = r->last + 1;
}

void
raft_lead(struct raft *r)
{
	assert(r->append_n == 0);
	r->role = RAFT_LEADER;
	r->leader = r->conf.id;
	r->lead_ns = r->now_ns;
	r->lease_void = false;
	r->transfer_to = 0;
	r->beat_ns = r->now_ns + r->conf.beat_ns;
	r->noop = r->last + 1;
	r->beat_last[0] = r->beat_last[1] = r->noop;
	for (unsigned i = 0; i < r->cur.n; i++) {
		struct raft_peer *p = &r->peers[i];

		*p = (struct raft_peer){ .id = p->id, .beat = true,
			.next = r->noop, .progress_ns = r->now_ns };
	}
	raft_log_own(r, RAFT_NOOP, 0);
	raft_read_again(r);
}

/* The leader itself has been removed, and that is committed: the furthest takes over. */
static void
retire(struct raft *r, uint64_t to)
{
	if (to != 0) {
		r->farewell = raft_msg_to(r, RAFT_TIMEOUT_NOW, to);
		r->has_farewell = true;
	}
	raft_follow(r, r->term, 0);
}

static uint64_t
furthest(const struct raft *r)
{
	uint64_t id = 0, match = 0;

	for (unsigned i = 0; i < r->cur.n; i++)
		if (r->cur.m[i].voter && r->peers[i].id != r->conf.id &&
		    (id == 0 || r->peers[i].match > match)) {
			id = r->peers[i].id;
			match = r->peers[i].match;
		}
	return id;
}

void
raft_advance(struct raft *r)
{
	uint64_t q;

	if (r->role != RAFT_LEADER)
		return;
	q = raft_quorum(r, r->durable, match_of);
	if (q > r->commit && raft_term_at(r, q) == r->term)
		r->commit = q;
	if (r->commit >= r->cur.index && r->commit >= r->noop &&
	    !raft_voter(r, r->conf.id)) {
		retire(r, furthest(r));
		return;
	}
	raft_read_advance(r);
}

bool
raft_lease(const struct raft *r, uint64_t now_ns)
{
	uint64_t from;

	if (r->role != RAFT_LEADER || r->lease_void || r->commit < r->noop)
		return false;
	/* A follower's clock may run 5 % fast, ours 5 % slow. */
	from = raft_quorum(r, now_ns, acked_of);
	return from != 0 && now_ns < from + r->conf.election_ns / 10 * 9;
}

/* ---- what followers answer ---- */

static void
hand_over(struct raft *r)
{
	struct raft_peer *p;

	if (r->transfer_to == 0 || (p = raft_peer(r, r->transfer_to)) == NULL ||
	    p->match != r->last)
		return;
	r->lease_void = true;	/* before it leaves; for the rest of this term */
	r->transfer_sent = true;
	p->timeout_now = true;
}

static void
acked(struct raft *r, struct raft_peer *p, uint64_t index)
{
	if (index > p->match) {
		p->match = index;
		p->progress_ns = r->now_ns;
		if (p->flow == PROBE || (p->flow == SNAP && index >= r->base_index)) {
			if (p->next <= index || p->flow == SNAP)
				p->next = index + 1;
			p->flow = PIPE;
			p->paused = false;
			p->inflight_n = 0;
			p->snapshot = false;
		}
	}
	while (p->inflight_n != 0 && p->inflight[p->head] <= p->match) {
		p->head = (p->head + 1) % RAFT_INFLIGHT_MAX;
		p->inflight_n--;
	}
	if (p->next <= p->match)
		p->next = p->match + 1;
}

/* What every answer in our term says: it follows us still, as of when it was asked. */
static bool
answered(struct raft *r, struct raft_peer *p, const struct raft_msg *m)
{
	if (m->sent_ns > r->now_ns || m->seq > r->read_seq)
		return false;		/* never said so */
	p->heard_ns = r->now_ns;
	if (m->sent_ns > p->acked_ns)
		p->acked_ns = m->sent_ns;
	if (m->seq > p->acked_seq)
		p->acked_seq = m->seq;
	return true;
}

static void
refused(struct raft *r, struct raft_peer *p, const struct raft_msg *m)
{
	uint64_t to;

	if (p->flow == SNAP || m->index <= p->match ||
	    (p->flow == PROBE && m->index != p->next - 1))
		return;			/* an old answer */
	to = raft_log_find(r, m->hint, m->log_term);
	if (to >= m->index)
		to = m->index - 1;
	probe(r, p, to + 1);
}

void
raft_on_entries_rep(struct raft *r, const struct raft_msg *m)
{
	struct raft_peer *p = raft_peer(r, m->from);

	if (r->role != RAFT_LEADER || p == NULL || m->index > r->last ||
	    !answered(r, p, m))
		return;
	if (m->ok) {
		acked(r, p, m->index);
		if (p->flow == PROBE && p->paused)
			p->paused = false;
		hand_over(r);
		raft_advance(r);
	} else
		refused(r, p, m);
}

void
raft_on_beat_rep(struct raft *r, const struct raft_msg *m)
{
	struct raft_peer *p = raft_peer(r, m->from);

	if (r->role != RAFT_LEADER || p == NULL || !m->ok || m->index > r->last ||
	    m->hint > m->index || !answered(r, p, m))
		return;
	acked(r, p, m->hint);
	/* Messages are lost: go on behind what it has. */
	if (p->flow == PIPE && p->next > p->match + 1 &&
	    r->now_ns - p->progress_ns >= r->conf.election_ns / 2) {
		p->progress_ns = r->now_ns;
		probe(r, p, m->index + 1 < p->next ? m->index + 1 : p->next);
	}
	hand_over(r);
	raft_advance(r);
	if (r->role == RAFT_LEADER)
		raft_read_advance(r);
}

void
raft_snapshot_sent(struct raft *r, uint64_t now_ns, uint64_t to, uint64_t index, bool ok)
{
	struct raft_peer *p = raft_peer(r, to);

	raft_begin(r, now_ns);
	if (r->role != RAFT_LEADER || p == NULL || p->flow != SNAP)
		return;
	probe(r, p, ok && index <= r->last ? index + 1 : p->match + 1);
	p->paused = true;		/* until the next beat */
}

/* What it acknowledged stays committed: who has lost it votes for nobody that lacks it. */
void
raft_peer_lost(struct raft *r, uint64_t now_ns, uint64_t id)
{
	struct raft_peer *p = raft_peer(r, id);

	raft_begin(r, now_ns);
	if (r->role != RAFT_LEADER || p == NULL || p->match == 0 || id == r->conf.id)
		return;
	p->match = 0;
	if (p->flow != SNAP)
		probe(r, p, 1);
}

/* ---- time ---- */

void
raft_lead_tick(struct raft *r)
{
	uint64_t quorum, q;

	if (r->now_ns < r->beat_ns)
		return;
	r->beat_ns = r->now_ns + r->conf.beat_ns;
	q = raft_quorum(r, r->now_ns, heard_of);
	quorum = q > r->lead_ns ? q : r->lead_ns;
	if (r->now_ns - quorum >= r->conf.election_ns) {
		raft_follow(r, r->term, 0);
		return;
	}
	if (r->transfer_to != 0 && r->now_ns >= r->transfer_ns) {
		/* When it was told it may still stand, at any later time, against our
		 * will: only another term ends that. */
		if (r->transfer_sent) {
			raft_follow(r, r->term, 0);
			return;
		}
		r->transfer_to = 0;
	}
	hand_over(r);
	r->beat_last[1] = r->beat_last[0];
	r->beat_last[0] = r->last;
	for (unsigned i = 0; i < r->cur.n; i++) {
		r->peers[i].beat = true;
		r->peers[i].paused = false;
	}
}

int
raft_transfer(struct raft *r, uint64_t now_ns, uint64_t to)
{
	raft_begin(r, now_ns);
	if (r->role != RAFT_LEADER)
		return ERR_NOT_LEADER;
	if (r->transfer_to != 0)
		return ERR_BUSY;
	if (to == 0)
		to = furthest(r);
	if (to == r->conf.id || !raft_voter(r, to))
		return -EINVAL;
	r->transfer_to = to;
	r->transfer_sent = false;
	r->transfer_ns = now_ns + r->conf.election_ns;
	hand_over(r);
	return 0;
}

/* ---- what is to be sent ---- */

static void
send_entries(struct raft *r, struct raft_peer *p, struct raft_msg *out)
{
	uint64_t first = p->next, last = r->last;

	if (last - first >= r->conf.entries_max)
		last = first + r->conf.entries_max - 1;
	if (r->conf.fit != NULL) {
		uint64_t fit = r->conf.fit(r->conf.ctx, first, last, r->conf.bytes_max);

		assert(fit >= first);
		if (fit < last)
			last = fit;
	}
	*out = raft_msg_to(r, RAFT_ENTRIES, p->id);
	out->index = first - 1;
	out->log_term = raft_term_at(r, first - 1);
	out->commit = r->commit;
	out->seq = r->read_seq;
	out->sent_ns = r->now_ns;
	out->n = (uint32_t)(last - first + 1);
	if (p->flow == PROBE) {
		p->paused = true;
		return;
	}
	if (p->inflight_n == 0)
		p->progress_ns = r->now_ns;
	p->inflight[(p->head + p->inflight_n) % RAFT_INFLIGHT_MAX] = last;
	p->inflight_n++;
	p->next = last + 1;
}

static bool
peer_next(struct raft *r, struct raft_peer *p, struct raft_effect *out)
{
	out->kind = RAFT_SEND;
	if (p->timeout_now) {
		p->timeout_now = false;
		out->msg = raft_msg_to(r, RAFT_TIMEOUT_NOW, p->id);
		return true;
	}
	if (p->beat) {
		p->beat = false;
		out->msg = raft_msg_to(r, RAFT_BEAT, p->id);
		out->msg.index = p->match;
		out->msg.log_term = raft_term_at(r, p->match);
		out->msg.commit = r->commit;
		out->msg.seq = r->read_seq;
		out->msg.sent_ns = r->now_ns;
		return true;
	}
	if (p->read_want != 0 && r->read_done >= p->read_ticket) {
		out->msg = raft_msg_to(r, RAFT_READ_REP, p->id);
		out->msg.ok = true;
		out->msg.seq = p->read_want;
		out->msg.index = out->msg.commit = r->commit;
		p->read_want = 0;
		return true;
	}
	if (p->flow != SNAP && p->next <= r->base_index && !p->paused) {
		p->flow = SNAP;
		p->inflight_n = 0;
		p->snapshot = true;
	}
	if (p->snapshot) {
		p->snapshot = false;
		out->kind = RAFT_SNAPSHOT;
		out->to = p->id;
		out->index = r->base_index;
		return true;
	}
	if (p->next > r->last || p->flow == SNAP || (p->flow == PROBE && p->paused) ||
	    (p->flow == PIPE && p->inflight_n >= r->conf.inflight_max))
		return false;
	send_entries(r, p, &out->msg);
	return true;
}

bool
raft_lead_next(struct raft *r, struct raft_effect *out)
{
	if (r->role != RAFT_LEADER)
		return false;
	for (unsigned i = 0; i < r->cur.n; i++)
		if (r->peers[i].id != r->conf.id && peer_next(r, &r->peers[i], out))
			return true;
	return false;
}

bool
raft_progress(const struct raft *r, uint64_t now_ns, uint64_t id,
    struct raft_progress *out)
{
	const struct raft_peer *p = raft_peer((struct raft *)r, id);

	if (r->role != RAFT_LEADER || p == NULL || id == r->conf.id)
		return false;
	*out = (struct raft_progress){ .match = p->match, .heard_ns = p->heard_ns,
		.snapshot = p->flow == SNAP,
		.caught_up = p->flow == PIPE && p->match >= r->beat_last[1] &&
		    p->heard_ns != 0 && now_ns - p->heard_ns < r->conf.election_ns };
	return true;
}
