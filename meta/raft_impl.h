/* SPDX-License-Identifier: MIT */
/* raft_impl.h - between the files of the Raft core; nobody else includes it. */
#ifndef META_RAFT_IMPL_H
#define META_RAFT_IMPL_H

#include "meta/raft.h"

#define RAFT_TERM_MAX	(1ull << 62)	/* no honest member gets there */
#define RAFT_INDEX_MAX	(1ull << 62)

struct raft_run {			/* entries of one term */
	uint64_t term, first;
};

/* How entries go to a follower: one message at a time until one is taken; many; none, it
 * needs a snapshot. */
enum raft_flow { PROBE, PIPE, SNAP };

/* What we know of a member, at the same place as in cur.m[]; ours is not used. */
struct raft_peer {
	uint64_t id;
	/* election */
	bool	 asked, granted;
	/* a leader's */
	enum raft_flow flow;
	bool	 paused;		/* PROBE: wait for an answer or the next beat */
	bool	 beat, timeout_now, snapshot;	/* to be sent */
	uint64_t match, next;
	uint64_t inflight[RAFT_INFLIGHT_MAX];	/* last entry of each message; a ring */
	unsigned head, inflight_n;
	uint64_t progress_ns;		/* match rose, or the first of the window left */
	uint64_t heard_ns;		/* 0: never */
	uint64_t acked_ns, acked_seq;	/* of the last of our messages it answered */
	uint64_t read_want, read_ticket;/* its read, and ours for it; 0: none */
};

struct raft {
	struct raft_conf conf;
	uint64_t now_ns;
	bool	 started;

	/* hard state, and what of it is durable */
	uint64_t term, vote;
	struct raft_hard saved;
	bool	 save;			/* effect due */

	/* the log */
	uint64_t base_index, base_term;	/* before the first entry */
	struct raft_run runs[RAFT_RUNS_MAX];
	unsigned runs_n;
	uint64_t last, durable, commit;
	uint64_t told;			/* of commit, to the owner */
	struct raft_members cur, prev;
	bool	 prev_known;

	/* role */
	enum raft_role role;
	uint64_t leader;
	uint64_t heard_ns;		/* from a leader, or when we started */
	uint64_t deadline_ns;		/* not leading: stand for election */
	uint64_t beat_ns;		/* next round of beats, or of asking again */
	bool	 first_round;		/* PRECANDIDATE: of asking */
	bool	 force;			/* CANDIDATE: asked to by the leader */
	uint64_t vote_for;		/* granted, to be sent when saved */

	/* follower */
	uint64_t matched;		/* equal to the leader's log up to here */
	uint64_t acked;			/* told the leader */
	uint64_t ack_sent_ns;		/* of its last ENTRIES */
	bool	 ack;			/* to be sent when saved */
	bool	 restoring;
	struct raft_point point;

	/* leader */
	struct raft_peer peers[RAFT_MEMBERS_MAX];
	uint64_t noop, lead_ns;
	uint64_t beat_last[2];		/* last entry at the last two beats */
	bool	 lease_void;
	uint64_t transfer_to, transfer_ns;
	bool	 transfer_sent;

	/* reads: the last ticket given, asked for, answered, told */
	uint64_t read_seq, read_round, read_done, read_told, read_index;
	bool	 read_ask;

	/* effects that are due */
	enum raft_role told_role;
	uint64_t told_term, told_leader;
	uint64_t cut;			/* TRUNCATE from here; 0: none */
	uint64_t append_first;
	uint32_t append_n;
	const struct raft_entry *append;
	bool	 restore;
	bool	 has_reply, has_farewell;
	struct raft_msg reply, farewell;
	struct raft_entry own;		/* our no-op or configuration */
	uint8_t	 own_bytes[RAFT_MEMBERS_BYTES];
};

/* ---- raft.c ---- */
/* Every event begins so. */
void	raft_begin(struct raft *r, uint64_t now_ns);
struct raft_msg raft_msg_to(const struct raft *r, uint8_t kind, uint64_t to);
void	raft_reply(struct raft *r, const struct raft_msg *m);
/* What was voted and promised in this term is durable: messages may leave. */
bool	raft_hard_ok(const struct raft *r);
struct raft_peer *raft_peer(struct raft *r, uint64_t id);
bool	raft_voter(const struct raft *r, uint64_t id);
/* The highest value that a majority of the voters has reached; @own is ours. */
uint64_t raft_quorum(const struct raft *r, uint64_t own,
	    uint64_t (*of)(const struct raft_peer *));

/* ---- raft_log.c ---- */
/* Room for an entry of another term. */
bool	raft_log_room(struct raft *r, unsigned terms);
void	raft_log_push(struct raft *r, const struct raft_entry *e);
/* Forget entries from @index on; a configuration among them goes with them. */
void	raft_log_cut(struct raft *r, uint64_t index);
/* A configuration undone by raft_log_cut() could be put back. */
bool	raft_log_may_cut(const struct raft *r, uint64_t index);
void	raft_log_reset(struct raft *r, const struct raft_point *p);
/* The last entry not behind @index whose term is not over @term. */
uint64_t raft_log_find(const struct raft *r, uint64_t index, uint64_t term);
/* Give the leader's own entry to the owner. */
void	raft_log_own(struct raft *r, uint16_t type, uint32_t len);

/* ---- raft_members.c ---- */
/* @to is one change of one member away from @from, or only addresses are. */
bool	raft_members_step(const struct raft_members *from, const struct raft_members *to);
/* The configuration is another one: keep what is known of members that stay. */
void	raft_members_moved(struct raft *r);

/* ---- raft_elect.c ---- */
void	raft_follow(struct raft *r, uint64_t term, uint64_t leader);
void	raft_heard(struct raft *r);
void	raft_elect_tick(struct raft *r);
void	raft_elect_saved(struct raft *r);
void	raft_stand(struct raft *r, bool force);
void	raft_on_prevote(struct raft *r, const struct raft_msg *m);
void	raft_on_vote(struct raft *r, const struct raft_msg *m);
void	raft_on_vote_rep(struct raft *r, const struct raft_msg *m);
/* A leader was heard so lately that nobody is voted for. */
bool	raft_leader_near(const struct raft *r);
bool	raft_elect_next(struct raft *r, struct raft_msg *out);

/* ---- raft_lead.c ---- */
void	raft_lead(struct raft *r);
void	raft_lead_tick(struct raft *r);
/* Commit what a majority has. */
void	raft_advance(struct raft *r);
void	raft_on_entries_rep(struct raft *r, const struct raft_msg *m);
void	raft_on_beat_rep(struct raft *r, const struct raft_msg *m);
/* The next message of a leader to send; false: none. */
bool	raft_lead_next(struct raft *r, struct raft_effect *out);

/* ---- raft_follow.c ---- */
/* Somebody leads in @term and was heard: false when that cannot be. */
bool	raft_obey(struct raft *r, uint64_t from, uint64_t term);
void	raft_on_entries(struct raft *r, const struct raft_msg *m);
void	raft_on_beat(struct raft *r, const struct raft_msg *m);
bool	raft_follow_next(struct raft *r, struct raft_msg *out);
void	raft_learn_commit(struct raft *r, uint64_t commit);

/* ---- raft_read.c ---- */
void	raft_read_advance(struct raft *r);
/* We follow another, or lead: ask there. */
void	raft_read_again(struct raft *r);
/* An answer may be lost. */
void	raft_read_tick(struct raft *r);
void	raft_on_read_ask(struct raft *r, const struct raft_msg *m);
void	raft_on_read_rep(struct raft *r, const struct raft_msg *m);

#endif
