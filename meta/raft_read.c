/* SPDX-License-Identifier: MIT */
/* raft_read.c - linearizable reads without writing.
 *
 * Reads get rising tickets.  The leader sends its last ticket along with every message; when
 * a majority has answered one, the leader led when that ticket was given out, so what is
 * committed now covers every write acknowledged before.  One round is under way at a time,
 * later tickets share the next.  A follower asks the leader, with its own ticket, once at a
 * time; it begins at a random one, so that no answer to an earlier life of it fits.  No
 * ticket is ever refused: who follows after having led asks the next leader. */
#include "meta/raft_impl.h"

static uint64_t
seq_of(const struct raft_peer *p)
{
	return p->acked_seq;
}

void
raft_read_advance(struct raft *r)
{
	uint64_t q;

	if (r->role == RAFT_LEADER) {
		if (r->commit < r->noop)
			return;		/* more may be committed than we know */
		q = raft_quorum(r, r->read_seq, seq_of);
		if (q > r->read_done) {
			r->read_done = q;
			r->read_index = r->commit;
		}
		if (r->read_round > r->read_done || r->read_seq == r->read_done)
			return;
		r->read_round = r->read_seq;
		for (unsigned i = 0; i < r->cur.n; i++)
			r->peers[i].beat = true;
	} else if (r->read_round <= r->read_done && r->read_seq > r->read_done) {
		r->read_round = r->read_seq;
		r->read_ask = true;
	}
}

void
raft_read_again(struct raft *r)
{
	r->read_ask = false;
	if (r->read_seq == r->read_done)
		return;
	if (r->role == RAFT_LEADER) {
		r->read_round = r->read_done;
		raft_read_advance(r);
		return;
	}
	r->read_round = r->read_seq;
	r->read_ask = true;
}

void
raft_read_tick(struct raft *r)
{
	r->read_ask = r->role != RAFT_LEADER && r->read_round > r->read_done;
}

void
raft_read(struct raft *r, uint64_t now_ns, bool lease, uint64_t *ticket, uint64_t *index)
{
	raft_begin(r, now_ns);
	*index = 0;
	if (lease && raft_lease(r, now_ns)) {
		*ticket = 0;
		*index = r->commit;
		return;
	}
	*ticket = ++r->read_seq;
	raft_read_advance(r);
}

void
raft_on_read_ask(struct raft *r, const struct raft_msg *m)
{
	struct raft_peer *p = raft_peer(r, m->from);

	if (r->role != RAFT_LEADER || p == NULL || m->seq == 0 || m->seq == p->read_want)
		return;
	p->heard_ns = r->now_ns;
	p->read_want = m->seq;
	p->read_ticket = ++r->read_seq;
	raft_read_advance(r);
}

void
raft_on_read_rep(struct raft *r, const struct raft_msg *m)
{
	if (r->role != RAFT_FOLLOWER || m->from != r->leader || !m->ok ||
	    r->read_round <= r->read_done || m->seq != r->read_round)
		return;
	raft_learn_commit(r, m->commit);
	r->read_done = r->read_round;
	r->read_index = m->index;
	raft_read_advance(r);
}
