/* SPDX-License-Identifier: MIT */
/* raft_elect.c - terms, votes, and who may stand.
 *
 *   FOLLOWER -- T..2T without a leader --> PRECANDIDATE -- a majority would --> CANDIDATE
 *      ^  ^                                     |                                 |
 *      |  +---- a leader, or a higher term -----+---------------------------------+
 *      +--- no majority heard for T, higher term, removed --- LEADER <- majority -+
 *
 * Nobody is voted for within T of hearing a leader, or of starting (we may have heard one
 * before): that is what the leader's lease rests on.  Only an election that the leader
 * itself has asked for goes ahead, and it has given up its lease before. */
#include <assert.h>

#include "meta/raft_impl.h"

static void
arm(struct raft *r)
{
	r->deadline_ns = r->now_ns + r->conf.election_ns +
	    rand_below(r->conf.rand, r->conf.election_ns);
}

void
raft_heard(struct raft *r)
{
	r->heard_ns = r->now_ns;
	arm(r);
}

bool
raft_leader_near(const struct raft *r)
{
	return r->role == RAFT_LEADER ||
	    r->now_ns - r->heard_ns < r->conf.election_ns;
}

/* In @term, under @leader (0: not known). */
void
raft_follow(struct raft *r, uint64_t term, uint64_t leader)
{
	assert(term >= r->term);
	if (term == r->term && r->role == RAFT_FOLLOWER && r->leader == leader)
		return;
	if (term > r->term) {
		r->term = term;
		r->vote = 0;
		r->save = true;
		r->vote_for = 0;
	}
	if (r->role != RAFT_FOLLOWER)
		arm(r);
	r->role = RAFT_FOLLOWER;
	r->leader = leader;
	r->matched = r->commit;
	r->acked = 0;
	r->ack_sent_ns = 0;
	r->ack = false;
	r->force = false;
	r->transfer_to = 0;
	raft_read_again(r);
}

/* Our place in the configuration; while the last one may still be undone also that before
 * it: the only one that has a change may be the member that goes (thesis, 4.2.2). */
static const struct raft_member *
place(const struct raft *r, bool voter)
{
	const struct raft_member *m = raft_members_find(&r->cur, r->conf.id);

	if ((m == NULL || (voter && !m->voter)) && r->prev_known &&
	    r->cur.index > r->commit)
		m = raft_members_find(&r->prev, r->conf.id);
	return m == NULL || (voter && !m->voter) ? NULL : m;
}

static bool
may_stand(struct raft *r)
{
	return place(r, true) != NULL && !r->restoring && raft_log_room(r, 1);
}

/* Has a configuration that we are in reached us? */
static bool
may_vote(const struct raft *r)
{
	return place(r, false) != NULL;
}

static bool
up_to_date(const struct raft *r, const struct raft_msg *m)
{
	uint64_t term = raft_term_at(r, r->last);

	return m->log_term > term || (m->log_term == term && m->index >= r->last);
}

static bool
won(const struct raft *r)
{
	unsigned yes = 0, voters = 0;

	for (unsigned i = 0; i < r->cur.n; i++) {
		if (!r->cur.m[i].voter)
			continue;
		voters++;
		yes += r->cur.m[i].id == r->conf.id || r->peers[i].granted;
	}
	return yes > voters / 2;
}

static void
ask_all(struct raft *r, enum raft_role role)
{
	r->role = role;
	r->leader = 0;
	for (unsigned i = 0; i < r->cur.n; i++)
		r->peers[i].asked = r->peers[i].granted = false;
	r->beat_ns = r->now_ns + r->conf.beat_ns;
	arm(r);
}

void
raft_stand(struct raft *r, bool force)
{
	if (!may_stand(r))
		return;
	r->term++;
	r->vote = r->conf.id;
	r->save = true;
	r->vote_for = 0;
	r->force = force;
	r->ack = false;
	ask_all(r, RAFT_CANDIDATE);
}

static void
ask_before(struct raft *r)
{
	ask_all(r, RAFT_PRECANDIDATE);
	r->first_round = true;
	r->force = false;
	r->ack = false;
	if (won(r))
		raft_stand(r, false);
}

void
raft_elect_tick(struct raft *r)
{
	if (r->now_ns >= r->deadline_ns) {
		if (may_stand(r))
			ask_before(r);
		else
			arm(r);
	}
	if (r->now_ns < r->beat_ns)
		return;
	r->beat_ns = r->now_ns + r->conf.beat_ns;
	r->first_round = false;
	if (r->role == RAFT_PRECANDIDATE || r->role == RAFT_CANDIDATE)
		for (unsigned i = 0; i < r->cur.n; i++)
			r->peers[i].asked = r->peers[i].granted;
	raft_read_tick(r);
}

/* Our own vote counts when it is durable. */
void
raft_elect_saved(struct raft *r)
{
	if (r->role == RAFT_CANDIDATE && raft_hard_ok(r) && won(r))
		raft_lead(r);
}

/* Two that ask at once would both stand, split the votes, and wait as long again: of equals
 * the one with the lower id goes first.  Should it not succeed at once, anybody may. */
static bool
goes_first(const struct raft *r, const struct raft_msg *m)
{
	return r->role == RAFT_PRECANDIDATE && r->first_round && r->conf.id < m->from &&
	    m->index == r->last && m->log_term == raft_term_at(r, r->last);
}

void
raft_on_prevote(struct raft *r, const struct raft_msg *m)
{
	struct raft_msg rep = raft_msg_to(r, RAFT_PREVOTE_REP, m->from);

	if (m->term <= r->term) {
		raft_reply(r, &rep);	/* so that it learns of our term */
		return;
	}
	if (!may_vote(r) || raft_leader_near(r) || !up_to_date(r, m) || goes_first(r, m))
		return;
	rep.ok = true;
	rep.term = m->term;
	raft_reply(r, &rep);
}

void
raft_on_vote(struct raft *r, const struct raft_msg *m)
{
	struct raft_msg rep = raft_msg_to(r, RAFT_VOTE_REP, m->from);

	if (!may_vote(r) || !up_to_date(r, m) || r->leader != 0 ||
	    (r->vote != 0 && r->vote != m->from)) {
		raft_reply(r, &rep);
		return;
	}
	if (r->vote == 0) {
		r->vote = m->from;
		r->save = true;
		if (r->role != RAFT_FOLLOWER)
			raft_follow(r, r->term, 0);
		arm(r);
	}
	r->vote_for = m->from;		/* leaves when it is durable */
}

void
raft_on_vote_rep(struct raft *r, const struct raft_msg *m)
{
	struct raft_peer *p = raft_peer(r, m->from);

	if (p == NULL || !m->ok)
		return;
	if (m->kind == RAFT_PREVOTE_REP) {
		if (r->role != RAFT_PRECANDIDATE || m->term != r->term + 1)
			return;
		p->granted = true;
		if (won(r))
			raft_stand(r, false);
		return;
	}
	if (r->role != RAFT_CANDIDATE || m->term != r->term)
		return;
	p->granted = true;
	raft_elect_saved(r);
}

bool
raft_elect_next(struct raft *r, struct raft_msg *out)
{
	if (!raft_hard_ok(r))
		return false;
	if (r->vote_for != 0) {
		*out = raft_msg_to(r, RAFT_VOTE_REP, r->vote_for);
		out->ok = true;
		r->vote_for = 0;
		return true;
	}
	if (r->role != RAFT_PRECANDIDATE && r->role != RAFT_CANDIDATE)
		return false;
	for (unsigned i = 0; i < r->cur.n; i++) {
		struct raft_peer *p = &r->peers[i];

		if (p->asked || !r->cur.m[i].voter || p->id == r->conf.id)
			continue;
		p->asked = true;
		*out = raft_msg_to(r, r->role == RAFT_CANDIDATE ? RAFT_VOTE :
		    RAFT_PREVOTE, p->id);
		if (r->role == RAFT_PRECANDIDATE)
			out->term = r->term + 1;
		out->force = r->role == RAFT_CANDIDATE && r->force;
		out->index = r->last;
		out->log_term = raft_term_at(r, r->last);
		return true;
	}
	return false;
}
