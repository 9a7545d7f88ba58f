/* SPDX-License-Identifier: MIT */
/* raft.h - who leads a group, what is committed, who its members are; without I/O.
 *
 * Events go in (a message came, entries became durable, time passed, somebody proposes);
 * effects come out (append, truncate, persist, send, committed).  Nothing here reads a
 * clock, sends, sleeps or allocates after open.  The entries themselves are the owner's
 * (meta/log.h); the core knows their indices, where the term changes, and the last two
 * configurations.
 *
 * What the owner does:
 *	open:	raft_open(), raft_load() for each entry that is durable in the log, raft_start()
 *	then:	an event function, and raft_next() until it gives no more, in that order and
 *		before the next event.  At raft_wake_ns() at the latest: raft_tick().
 * Every effect may be carried out as soon as it is taken: what must be durable first is held
 * back here until raft_saved(), raft_persisted() or raft_restored() have said so.  So the
 * owner has three duties: report nothing durable that is not; report all of it, in order;
 * and never send in the name of a term what it took from the log after that term (see
 * RAFT_SEND).
 *
 * Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm",
 * USENIX ATC 2014; Ongaro, "Consensus: Bridging Theory and Practice", 2014: 3.10 transfer,
 * 4 membership, 6.4 reads, 9.6 pre-vote, 10.2 writing in parallel. */
#ifndef META_RAFT_H
#define META_RAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/rand.h"
#include "net/addr.h"

#define RAFT_MEMBERS_MAX	9u	/* voters and learners together */
#define RAFT_INFLIGHT_MAX	64u	/* appends on their way to one follower */
#define RAFT_RUNS_MAX		4096u	/* changes of term that are remembered */
#define RAFT_MEMBERS_BYTES	(4u + RAFT_MEMBERS_MAX * 40u)	/* encoded, at most */

struct raft;				/* opaque; one per group */

/* ---- configurations ---- */

struct raft_member {
	uint64_t	id;		/* not 0; made with the data directory */
	bool		voter;		/* or a learner: gets entries, counts for nothing */
	struct net_addr addr;		/* carried along, not looked at */
};

struct raft_members {
	uint64_t	   index;	/* of the entry that made it; 0: none, blank */
	unsigned	   n;
	struct raft_member m[RAFT_MEMBERS_MAX];
};

/* Payload of a RAFT_MEMBERS entry; the index is not in it.  Little-endian:
 *   off  size  field   meaning
 *     0     1  n       1..9
 *     1     3  zero
 *     4    40  member  n times: id u64, voter u8, addr kind u8, port u16, addr id u32, ip 16,
 *                      zero 8
 * Encode returns the bytes, at most RAFT_MEMBERS_BYTES.  Decode: 0; ERR_BAD_MESSAGE for
 * anything raft_members_valid() does not like. */
size_t	raft_members_encode(const struct raft_members *m, uint8_t *out);
int	raft_members_decode(struct raft_members *m, const void *in, size_t len);
/* 1..9 members, ids not 0 and different, at least one voter. */
bool	raft_members_valid(const struct raft_members *m);
/* The member with that id, NULL: none. */
const struct raft_member *raft_members_find(const struct raft_members *m, uint64_t id);

/* ---- entries and messages ---- */

enum raft_type {			/* of an entry, as it is in the log */
	RAFT_COMMAND = 1,		/* the owner's */
	RAFT_NOOP,			/* a new leader's first entry, nothing to apply; or the
					 * owner's, of which the core knows nothing more */
	RAFT_MEMBERS			/* a configuration; the owner keeps it (raft_point) */
};

struct raft_entry {
	uint64_t    term;
	uint16_t    type;		/* enum raft_type */
	uint32_t    len;
	const void *payload;
};

/* Kinds are numbers on the wire. */
enum raft_kind {
	RAFT_PREVOTE = 1,	/* would you vote for me in @term? */
	RAFT_PREVOTE_REP,
	RAFT_VOTE,
	RAFT_VOTE_REP,
	RAFT_ENTRIES,		/* @n entries behind (@index, @log_term) */
	RAFT_ENTRIES_REP,
	RAFT_BEAT,		/* the leader lives; also asks: do you still follow me? */
	RAFT_BEAT_REP,
	RAFT_READ_ASK,		/* a follower wants to read: how far must it have applied? */
	RAFT_READ_REP,
	RAFT_TIMEOUT_NOW	/* stand for election at once */
};

/* One message; fields that a kind does not use are 0.  All of them but @entries go over the
 * wire for every kind.  Messages may be lost, doubled, late and out of order. */
struct raft_msg {
	uint8_t	 kind;		/* enum raft_kind */
	bool	 ok;		/* _REP: granted, or taken */
	bool	 force;		/* VOTE: the leader asked for this election */
	uint64_t from, to;	/* member ids */
	uint64_t term;		/* the sender's; PREVOTE(_REP ok): the one it would have */
	uint64_t index;		/* (PRE)VOTE: last entry.  ENTRIES: entry before.  ENTRIES_REP:
				 * ok: durable and equal up to here, else the @index refused.
				 * BEAT_REP: equal up to here, durable or not.  READ_REP: may
				 * be served once this is applied */
	uint64_t log_term;	/* term of the entry at @index, of @hint in ENTRIES_REP */
	uint64_t hint;		/* ENTRIES_REP, not ok: may be equal at most up to here */
	uint64_t commit;	/* ENTRIES, BEAT: what is committed */
	uint64_t seq;		/* BEAT: last read asked for; READ_ASK: the asker's; in _REP
				 * as it was asked */
	uint64_t sent_ns;	/* ENTRIES, BEAT: by the leader's clock; in _REP as it was */
	uint32_t n;		/* ENTRIES: how many, at least 1 */
	const struct raft_entry *entries; /* borrowed for the call; RAFT_SEND: not set */
};

/* ---- open ---- */

struct raft_conf {
	uint64_t id;		/* of this member, not 0 */
	uint64_t election_ns;	/* T: without word from the leader for T to 2 T: election */
	uint64_t beat_ns;	/* between two beats, at most T / 3 */
	struct rand *rand;	/* borrowed */
	uint32_t entries_max;	/* in one message */
	uint32_t bytes_max;	/* payload in one message, told to @fit */
	uint32_t inflight_max;	/* messages on their way to one follower,
				 * 1..RAFT_INFLIGHT_MAX */
	/* Which of the entries @first..@last go into one message of @bytes payload: the last
	 * of them, at least @first.  Answered from memory.  NULL: all of them. */
	uint64_t (*fit)(void *ctx, uint64_t first, uint64_t last, uint32_t bytes);
	void	*ctx;
};

/* A place in the history with all that is known about it: of a snapshot, and of the table at
 * open.  The owner keeps @members (the last RAFT_MEMBERS entry it has applied, with its
 * index) in the table's batch, next to the applied index and its term. */
struct raft_point {
	uint64_t index, term;
	struct raft_members members;
};

struct raft_hard {		/* must be durable: see RAFT_SAVE */
	uint64_t term, vote;
};

/* Make the core of one member.
 *   hard	as it was saved last, zeros for a new member
 *   applied	what the table holds durably, zeros for a new one; all of it is committed
 *   base	index and term of the entry before the first in the log; when the log is empty
 *		@applied->index (then the log goes on behind it)
 * A new member that founds a group alone has one durable entry in its log: index 1, term 1,
 * RAFT_MEMBERS with itself as the only voter.  Others join blank.
 * 0; -ENOMEM; -EINVAL. */
int	raft_open(struct raft **out, const struct raft_conf *conf,
	    const struct raft_hard *hard, const struct raft_point *applied,
	    uint64_t base_index, uint64_t base_term);
void	raft_close(struct raft *r);	/* NULL is fine */
/* The next durable entry of the log, from base + 1.  0; ERR_LOG_DAMAGED: gap, term goes
 * down, or not a configuration. */
int	raft_load(struct raft *r, uint64_t index, const struct raft_entry *e);
/* All entries were loaded.  0; ERR_LOG_DAMAGED when the log ends before @applied. */
int	raft_start(struct raft *r, uint64_t now_ns);

/* ---- events; @now_ns never goes back ---- */

void	raft_tick(struct raft *r, uint64_t now_ns);
/* A message for us; anything that cannot be is dropped.  @m->entries stay valid until the
 * effects have been taken. */
void	raft_receive(struct raft *r, uint64_t now_ns, const struct raft_msg *m);
/* What RAFT_SAVE asked for is durable. */
void	raft_saved(struct raft *r, uint64_t now_ns, const struct raft_hard *hard);
/* The log is durable up to the entry (@index, @term).  Not for writes from before a
 * RAFT_TRUNCATE or RAFT_RESTORE that removed their entries. */
void	raft_persisted(struct raft *r, uint64_t now_ns, uint64_t index, uint64_t term);
/* The owner has cut its log: entries up to @index (applied, durably) are gone. */
void	raft_compacted(struct raft *r, uint64_t index);

/* Order @n commands (type is set here to RAFT_COMMAND unless it is RAFT_NOOP, term to ours);
 * they come back as a RAFT_APPEND effect, @e stays valid until then.
 *   first	set to the index of the first
 * 0; ERR_NOT_LEADER; ERR_BUSY: leadership is being handed over. */
int	raft_propose(struct raft *r, uint64_t now_ns, struct raft_entry *e, uint32_t n,
	    uint64_t *first);
/* Propose another configuration: one learner more, one member less, or one learner promoted
 * (or voter demoted), addresses as wanted.  It holds from when it is appended.
 * 0; ERR_NOT_LEADER; ERR_BUSY: the last change is not committed yet, nor anything of our
 * term, or leadership is being handed over, or a new voter has not even got the
 * configuration that made it a learner; -EINVAL: not one step away. */
int	raft_change(struct raft *r, uint64_t now_ns, const struct raft_members *to,
	    uint64_t *index);
/* Hand leadership to voter @to (0: the one that is furthest).  No proposals are taken until
 * it ended: we follow, or lead on when it was not ready within T.
 * 0; ERR_NOT_LEADER; ERR_BUSY: already doing so; -EINVAL: not another voter. */
int	raft_transfer(struct raft *r, uint64_t now_ns, uint64_t to);

/* A linearizable read, on the leader or a follower.
 *   ticket	0: serve it as soon as @index is applied (the leader, in its lease).  Else when
 *		a RAFT_READ effect with the same or a higher ticket has come, and its index is
 *		applied.  No leader, no effect: the owner gives up when it likes.
 *   lease	false: not from the lease, by a round of messages */
void	raft_read(struct raft *r, uint64_t now_ns, bool lease, uint64_t *ticket,
	    uint64_t *index);

/* ---- snapshots: how they travel is the owner's business ---- */

/* Leader: the snapshot that RAFT_SNAPSHOT asked for was taken by @to up to @index (ok), or
 * was not. Once per effect, unless we stopped leading. */
void	raft_snapshot_sent(struct raft *r, uint64_t now_ns, uint64_t to, uint64_t index,
	    bool ok);
/* Leader: @id says that it has lost the log it had (and knows a floor: group_load.c). */
void	raft_peer_lost(struct raft *r, uint64_t now_ns, uint64_t id);
/* Follower: a piece of a snapshot came from @from, which leads in @term.  Keeps us from
 * standing for election.  False: it is of no use, say so to the sender. */
bool	raft_snapshot_piece(struct raft *r, uint64_t now_ns, uint64_t from, uint64_t term,
	    uint64_t index);
/* Follower: all of it is here (not yet durable).  0: a RAFT_RESTORE effect follows;
 * ERR_BUSY: nothing to do, we have it or another is being restored (drop it, tell the
 * sender ok: it will find out); ERR_NOT_LEADER: @from does not lead in @term;
 * ERR_BAD_MESSAGE. */
int	raft_restore(struct raft *r, uint64_t now_ns, uint64_t from, uint64_t term,
	    const struct raft_point *point);
/* RAFT_RESTORE was carried out and is durable. */
void	raft_restored(struct raft *r, uint64_t now_ns, uint64_t index);

/* ---- effects ---- */

enum raft_role { RAFT_FOLLOWER, RAFT_PRECANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

enum raft_eff {
	RAFT_SAVE,	/* make @hard durable, then raft_saved(); a later one replaces it */
	RAFT_ROLE,	/* @role, @term, @leader (0: not known) changed.  RAFT_LEADER: serve
			 * once @index (our no-op) is applied, not earlier.  Anything else:
			 * what was proposed and not committed may be lost, or not; give up
			 * what is being sent for an older term */
	RAFT_TRUNCATE,	/* forget entries from @index on, at once and in memory; durable
			 * with, or before, what is appended next.  None of them is committed */
	RAFT_APPEND,	/* append @entries[0..n), the first has @index, for RAFT_SEND at once,
			 * and make them durable; then raft_persisted() */
	RAFT_RESTORE,	/* replace table and log by the snapshot @point: after a crash either
			 * the old ones are there or the new ones, whole; then
			 * raft_restored().  Until then no entries come */
	RAFT_SEND,	/* send @msg.  ENTRIES: with entries @msg.index + 1 .. @msg.index +
			 * @msg.n of the log: if they have to be read first and meanwhile we
			 * do not lead in @msg.term any more, or the log was cut beyond
			 * @msg.index: do not send.  What cannot be sent is dropped: it is
			 * repeated when that is needed */
	RAFT_SNAPSHOT,	/* send @to a snapshot with an index of at least @index, then
			 * raft_snapshot_sent() */
	RAFT_COMMIT,	/* entries up to @index are committed, and durable here: apply */
	RAFT_READ	/* reads up to @ticket may be served once @index is applied */
};

struct raft_effect {
	enum raft_eff	 kind;
	struct raft_hard hard;
	enum raft_role	 role;
	uint64_t	 term, leader, index, to, ticket;
	uint32_t	 n;
	const struct raft_entry *entries;	/* borrowed until the next event */
	const struct raft_point *point;		/* likewise */
	struct raft_msg	 msg;
};

/* The next effect; false: none. */
bool	raft_next(struct raft *r, struct raft_effect *out);

/* ---- how things are ---- */

/* Call raft_tick() at this time; may change with every event. */
uint64_t raft_wake_ns(const struct raft *r);
uint64_t raft_id(const struct raft *r);
enum raft_role raft_role(const struct raft *r);
uint64_t raft_term(const struct raft *r);
uint64_t raft_leader(const struct raft *r);	/* 0: not known */
uint64_t raft_last(const struct raft *r);	/* index of the last entry */
uint64_t raft_first(const struct raft *r);	/* first entry that can be sent */
uint64_t raft_commit(const struct raft *r);	/* as told by RAFT_COMMIT */
/* Term of the entry at @index, first - 1 .. last; 0: not known. */
uint64_t raft_term_at(const struct raft *r, uint64_t index);
/* We lead, something of our term is committed, and nobody else can lead now, whatever the
 * network does, if clocks differ by no more than 10 % in speed. */
bool	raft_lease(const struct raft *r, uint64_t now_ns);
/* The configuration that holds: the last one in the log. */
const struct raft_members *raft_members(const struct raft *r);
/* It is committed (a change may be proposed, as far as that goes). */
bool	raft_members_settled(const struct raft *r);

struct raft_progress {
	uint64_t match;		/* durable there and equal to ours */
	uint64_t heard_ns;	/* when its last message came; 0: never in this term */
	bool	 snapshot;	/* waits for, or is being sent, a snapshot */
	bool	 caught_up;	/* heard within T, and has what was here at its last beat but
				 * one: can be promoted */
};
/* How far a member is, on the leader.  False: we do not lead, or no other such member. */
bool	raft_progress(const struct raft *r, uint64_t now_ns, uint64_t id,
	    struct raft_progress *out);

const char *raft_eff_name(enum raft_eff kind);
const char *raft_kind_name(unsigned kind);
/* Assert the numbered invariants of raft.c. */
void	raft_check(const struct raft *r);

#endif
