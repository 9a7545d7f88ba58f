/* SPDX-License-Identifier: MIT */
/* raft.c - opening, where events go, what is due, and the invariants:
 *   1  compacted <= told <= commit <= last, and told <= durable <= last: the owner hears of
 *      a commit when the entry is durable here too
 *   2  the log's terms rise, and none is over ours
 *   3  a candidate and a leader have voted for themselves; a leader leads when that is
 *      durable
 *   4  the configuration that holds is the last in the log; the one before it is older,
 *      and committed
 *   5  for each member: match < next <= last + 1, and what is on its way lies between
 *   6  no read is answered before it was asked
 *   7  a follower's log is its leader's up to matched, and nothing else is acknowledged
 *      or committed
 *   8  a leader that has told another to stand holds no lease for the rest of its term
 *   9  nothing leaves in a term, or for a vote, that is not durable
 *  10  while a snapshot is being restored nothing is taken, acknowledged or told */
#include "meta/raft.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "conf/err.h"
#include "meta/raft_impl.h"

int
raft_open(struct raft **out, const struct raft_conf *conf, const struct raft_hard *hard,
    const struct raft_point *applied, uint64_t base_index, uint64_t base_term)
{
	const struct raft_members *m = &applied->members;
	struct raft *r;

	*out = NULL;
	if (conf->id == 0 || conf->election_ns == 0 || conf->beat_ns == 0 ||
	    conf->beat_ns > conf->election_ns / 3 || conf->entries_max == 0 ||
	    conf->inflight_max == 0 || conf->inflight_max > RAFT_INFLIGHT_MAX ||
	    base_index > applied->index || hard->term > RAFT_TERM_MAX ||
	    (base_index == 0) != (base_term == 0) ||
	    (m->index != 0 && !raft_members_valid(m)) || m->index > applied->index)
		return -EINVAL;
	if ((r = calloc(1, sizeof(*r))) == NULL)
		return -ENOMEM;
	r->conf = *conf;
	r->term = hard->term;
	r->vote = hard->vote;
	r->saved = *hard;
	r->base_index = r->last = r->durable = base_index;
	r->base_term = base_term;
	r->told = r->commit = r->matched = applied->index;
	if (m->index != 0) {
		r->cur = *m;
		raft_members_moved(r);
	}
	*out = r;
	return 0;
}

void
raft_close(struct raft *r)
{
	free(r);
}

/* The only voter, and no change is pending: nobody else can lead. */
static bool
alone(const struct raft *r)
{
	unsigned voters = 0;

	for (unsigned i = 0; i < r->cur.n; i++)
		voters += r->cur.m[i].voter;
	return voters == 1 && raft_voter(r, r->conf.id) &&
	    (r->cur.index <= r->told || r->cur.index == 1);
}

int
raft_start(struct raft *r, uint64_t now_ns)
{
	uint64_t term = raft_term_at(r, r->last);

	assert(!r->started);
	if (r->last < r->told)
		return ERR_LOG_DAMAGED;
	r->started = true;
	r->now_ns = now_ns;
	if (term > r->term) {		/* the log was faster; nothing was promised */
		r->term = term;
		r->vote = 0;
		r->save = true;
	}
	r->read_seq = rand_u64(r->conf.rand) >> 2 | 1;
	r->read_round = r->read_done = r->read_told = r->read_seq;
	raft_heard(r);
	r->beat_ns = now_ns;
	if (alone(r))
		r->deadline_ns = now_ns;
	return 0;
}

/* ---- small things ---- */

struct raft_msg
raft_msg_to(const struct raft *r, uint8_t kind, uint64_t to)
{
	return (struct raft_msg){ .kind = kind, .from = r->conf.id, .to = to,
		.term = r->term };
}

void
raft_reply(struct raft *r, const struct raft_msg *m)
{
	r->reply = *m;			/* over one that still waits: it is asked again */
	r->has_reply = true;
}

bool
raft_hard_ok(const struct raft *r)
{
	return r->saved.term == r->term && r->saved.vote == r->vote;
}

struct raft_peer *
raft_peer(struct raft *r, uint64_t id)
{
	for (unsigned i = 0; i < r->cur.n; i++)
		if (r->peers[i].id == id && id != r->conf.id)
			return &r->peers[i];
	return NULL;
}

bool
raft_voter(const struct raft *r, uint64_t id)
{
	const struct raft_member *m = raft_members_find(&r->cur, id);

	return m != NULL && m->voter;
}

uint64_t
raft_quorum(const struct raft *r, uint64_t own, uint64_t (*of)(const struct raft_peer *))
{
	uint64_t v[RAFT_MEMBERS_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < r->cur.n; i++) {
		const struct raft_peer *p = &r->peers[i];
		uint64_t x = p->id == r->conf.id ? own : of(p);
		unsigned at = n;

		if (!r->cur.m[i].voter)
			continue;
		for (; at > 0 && v[at - 1] < x; at--)
			v[at] = v[at - 1];
		v[at] = x;
		n++;
	}
	return v[n / 2];		/* the highest first: n / 2 + 1 have this */
}

/* ---- events ---- */

/* The effects of the last event were all taken. */
void
raft_begin(struct raft *r, uint64_t now_ns)
{
	assert(r->started);
	assert(now_ns >= r->now_ns);
	assert(r->append_n == 0);
	assert(!r->restore);
	/* One whose term is not durable yet waits; but what we would do may change. */
	if (r->has_reply && r->reply.kind == RAFT_PREVOTE_REP)
		r->has_reply = false;
	r->now_ns = now_ns;
}

void
raft_tick(struct raft *r, uint64_t now_ns)
{
	raft_begin(r, now_ns);
	if (r->role == RAFT_LEADER)
		raft_lead_tick(r);
	else
		raft_elect_tick(r);
}

void
raft_saved(struct raft *r, uint64_t now_ns, const struct raft_hard *hard)
{
	raft_begin(r, now_ns);
	if (hard->term < r->saved.term)
		return;
	r->saved = *hard;
	raft_elect_saved(r);
}

int
raft_propose(struct raft *r, uint64_t now_ns, struct raft_entry *e, uint32_t n,
    uint64_t *first)
{
	raft_begin(r, now_ns);
	assert(n != 0);
	if (r->role != RAFT_LEADER)
		return ERR_NOT_LEADER;
	if (r->transfer_to != 0)
		return ERR_BUSY;
	*first = r->append_first = r->last + 1;
	r->append = e;
	r->append_n = n;
	for (uint32_t i = 0; i < n; i++) {
		e[i].term = r->term;
		if (e[i].type != RAFT_NOOP)
			e[i].type = RAFT_COMMAND;
		raft_log_push(r, &e[i]);
	}
	return 0;
}

/* Sent in a term that is over: its sender should know. */
static void
behind(struct raft *r, const struct raft_msg *m)
{
	struct raft_msg rep;

	if (m->kind == RAFT_ENTRIES)
		rep = raft_msg_to(r, RAFT_ENTRIES_REP, m->from);
	else if (m->kind == RAFT_BEAT)
		rep = raft_msg_to(r, RAFT_BEAT_REP, m->from);
	else if (m->kind == RAFT_VOTE)
		rep = raft_msg_to(r, RAFT_VOTE_REP, m->from);
	else
		return;
	raft_reply(r, &rep);
}

void
raft_receive(struct raft *r, uint64_t now_ns, const struct raft_msg *m)
{
	raft_begin(r, now_ns);
	if (m->to != r->conf.id || m->from == 0 || m->from == r->conf.id || m->term == 0 ||
	    m->term > RAFT_TERM_MAX || m->kind < RAFT_PREVOTE || m->kind > RAFT_TIMEOUT_NOW)
		return;
	if (m->kind == RAFT_PREVOTE) {
		raft_on_prevote(r, m);
		return;
	}
	if (m->kind == RAFT_PREVOTE_REP && m->ok) {
		raft_on_vote_rep(r, m);
		return;
	}
	if (m->term < r->term) {
		behind(r, m);
		return;
	}
	if (m->term > r->term) {
		if (m->kind == RAFT_VOTE && !m->force && raft_leader_near(r))
			return;
		raft_follow(r, m->term, 0);
	}
	switch (m->kind) {
	case RAFT_VOTE:
		raft_on_vote(r, m);
		break;
	case RAFT_VOTE_REP:
		raft_on_vote_rep(r, m);
		break;
	case RAFT_ENTRIES:
		if (raft_obey(r, m->from, m->term))
			raft_on_entries(r, m);
		break;
	case RAFT_BEAT:
		if (raft_obey(r, m->from, m->term))
			raft_on_beat(r, m);
		break;
	case RAFT_ENTRIES_REP:
		raft_on_entries_rep(r, m);
		break;
	case RAFT_BEAT_REP:
		raft_on_beat_rep(r, m);
		break;
	case RAFT_READ_ASK:
		raft_on_read_ask(r, m);
		break;
	case RAFT_READ_REP:
		raft_on_read_rep(r, m);
		break;
	case RAFT_TIMEOUT_NOW:
		if (r->role == RAFT_FOLLOWER)
			raft_stand(r, true);
		break;
	default:
		break;
	}
}

/* ---- effects ---- */

static bool
told_role(struct raft *r, struct raft_effect *out)
{
	if (r->told_role == r->role && r->told_term == r->term &&
	    r->told_leader == r->leader)
		return false;
	r->told_role = r->role;
	r->told_term = r->term;
	r->told_leader = r->leader;
	out->kind = RAFT_ROLE;
	out->role = r->role;
	out->term = r->term;
	out->leader = r->leader;
	out->index = r->role == RAFT_LEADER ? r->noop : 0;
	return true;
}

/* What changes what the owner holds, in this order. */
static bool
next_state(struct raft *r, struct raft_effect *out)
{
	if (r->save) {
		r->save = false;
		out->kind = RAFT_SAVE;
		out->hard = (struct raft_hard){ r->term, r->vote };
		return true;
	}
	if (told_role(r, out))
		return true;
	if (r->cut != 0) {
		out->kind = RAFT_TRUNCATE;
		out->index = r->cut;
		r->cut = 0;
		return true;
	}
	if (r->append_n != 0) {
		out->kind = RAFT_APPEND;
		out->index = r->append_first;
		out->n = r->append_n;
		out->entries = r->append;
		r->append_n = 0;
		return true;
	}
	if (r->restore) {
		r->restore = false;
		out->kind = RAFT_RESTORE;
		out->index = r->point.index;
		out->point = &r->point;
		return true;
	}
	return false;
}

static bool
next_done(struct raft *r, struct raft_effect *out)
{
	uint64_t commit = r->commit < r->durable ? r->commit : r->durable;

	if (commit > r->told && !r->restoring) {
		r->told = commit;
		out->kind = RAFT_COMMIT;
		out->index = commit;
		return true;
	}
	if (r->read_done > r->read_told) {
		r->read_told = r->read_done;
		out->kind = RAFT_READ;
		out->ticket = r->read_done;
		out->index = r->read_index;
		return true;
	}
	return false;
}

bool
raft_next(struct raft *r, struct raft_effect *out)
{
	*out = (struct raft_effect){ 0 };
	if (next_state(r, out))
		return true;
	out->kind = RAFT_SEND;
	if (raft_follow_next(r, &out->msg) || raft_elect_next(r, &out->msg))
		return true;
	return raft_lead_next(r, out) || next_done(r, out);
}

/* ---- how things are ---- */

uint64_t
raft_wake_ns(const struct raft *r)
{
	if (r->role == RAFT_LEADER)
		return r->beat_ns;
	if ((r->role != RAFT_FOLLOWER || r->read_round > r->read_done) &&
	    r->beat_ns < r->deadline_ns)
		return r->beat_ns;
	return r->deadline_ns;
}

uint64_t
raft_id(const struct raft *r)
{
	return r->conf.id;
}

enum raft_role
raft_role(const struct raft *r)
{
	return r->role;
}

uint64_t
raft_term(const struct raft *r)
{
	return r->term;
}

uint64_t
raft_leader(const struct raft *r)
{
	return r->leader;
}

uint64_t
raft_commit(const struct raft *r)
{
	return r->told;
}

const char *
raft_eff_name(enum raft_eff kind)
{
	static const char *const names[] = { "save", "role", "truncate", "append",
		"restore", "send", "snapshot", "commit", "read" };

	return (unsigned)kind <= RAFT_READ ? names[kind] : "?";
}

const char *
raft_kind_name(unsigned kind)
{
	static const char *const names[] = { "?", "prevote", "prevote_rep", "vote",
		"vote_rep", "entries", "entries_rep", "beat", "beat_rep", "read_ask",
		"read_rep", "timeout_now" };

	return names[kind <= RAFT_TIMEOUT_NOW ? kind : 0];
}

/* ---- invariants ---- */

static void
check_log(const struct raft *r)
{
	uint64_t first = r->base_index + 1, term = r->base_term;

	assert(r->base_index <= r->commit);			/* 1 */
	assert(r->restoring || r->base_index <= r->told);	/* 1 */
	assert(r->told <= r->commit);				/* 1 */
	assert(r->commit <= r->last);				/* 1 */
	assert(r->told <= r->durable);				/* 1 */
	assert(r->durable <= r->last);				/* 1 */
	assert((r->runs_n == 0) == (r->last == r->base_index));	/* 2 */
	for (unsigned i = 0; i < r->runs_n; i++) {		/* 2 */
		assert(i == 0 ? r->runs[i].first == first : r->runs[i].first > first);
		assert(i == 0 ? r->runs[i].term >= term : r->runs[i].term > term);
		first = r->runs[i].first;
		term = r->runs[i].term;
		assert(first <= r->last);
	}
	assert(term <= r->term);				/* 2 */
	assert(r->cur.index <= r->last);			/* 4 */
	assert(!r->prev_known || r->prev.index < r->cur.index ||
	    r->cur.index == 0);					/* 4 */
	assert(r->matched <= r->last);				/* 7 */
}

static void
check_peer(const struct raft *r, const struct raft_peer *p)
{
	uint64_t at = p->match;

	assert(p->match < p->next);				/* 5 */
	assert(p->next <= r->last + 1);				/* 5 */
	assert(p->inflight_n <= r->conf.inflight_max);		/* 5 */
	assert(p->flow == PIPE || p->inflight_n == 0);		/* 5 */
	for (unsigned i = 0; i < p->inflight_n; i++) {
		uint64_t x = p->inflight[(p->head + i) % RAFT_INFLIGHT_MAX];

		assert(x > at);					/* 5 */
		assert(x < p->next);				/* 5 */
		at = x;
	}
	assert(p->acked_seq <= r->read_seq);			/* 6 */
	assert(p->acked_ns <= r->now_ns);			/* 6 */
}

void
raft_check(const struct raft *r)
{
	check_log(r);
	assert(r->role < RAFT_CANDIDATE || r->vote == r->conf.id);	/* 3 */
	assert((r->role == RAFT_LEADER) == (r->leader == r->conf.id));	/* 3 */
	for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++)
		assert(r->peers[i].id == (i < r->cur.n ? r->cur.m[i].id : 0));
	assert(r->read_told <= r->read_done);				/* 6 */
	assert(r->read_done <= r->read_seq);				/* 6 */
	assert(r->read_round <= r->read_seq);				/* 6 */
	assert(!r->restoring || !r->ack);				/* 10 */
	if (r->role != RAFT_LEADER) {
		assert(r->commit <= r->matched || r->leader == 0);	/* 7 */
		return;
	}
	assert(raft_hard_ok(r));					/* 9 */
	assert(r->noop <= r->last);					/* 3 */
	assert(raft_term_at(r, r->last) == r->term);			/* 2 */
	assert(r->transfer_to == 0 || !r->transfer_sent || r->lease_void); /* 8 */
	assert(!r->restoring);						/* 10 */
	for (unsigned i = 0; i < r->cur.n; i++)
		if (r->peers[i].id != r->conf.id)
			check_peer(r, &r->peers[i]);
}
