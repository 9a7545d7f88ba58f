/* SPDX-License-Identifier: MIT */
/* msg_raft.h - what members of a replicated group say to each other (meta/group.h). */
#ifndef NET_MSG_RAFT_H
#define NET_MSG_RAFT_H

#include "net/msg_core.h"

#define MSG_WHO(F) \
	F(u32, number, "which group: 0 the managers, else a metadata group")
#define MSG_WHO_REP(F) \
	F(uid, group,   "random id of the group; zeros: blank, in none yet")    \
	F(u64, member,  "random id of this member")                             \
	F(u64, term,    "election term it is in")                               \
	F(u64, leader,  "member that leads; 0: not known")                      \
	F(str, addr,    "where the leader listens; empty: not known")           \
	F(u64, applied, "last log entry applied here")                          \
	F(u8,  blank,   "1: has no members; waits to be taken into a group")
MSG_DECLARE(who, MSG_WHO)
MSG_DECLARE(who_rep, MSG_WHO_REP)

/* One message of the consensus core; names as in meta/raft.h.  Answers are messages of
 * their own: a reply only says that it has come. */
#define MSG_RAFT_STEP(F) \
	F(uid, group,    "id of the group")                                     \
	F(u32, number,   "which group")                                         \
	F(u8,  kind,     "1, 2 before a vote, and answer; 3, 4 vote; 5, 6 entries; 7, 8 beat; 9, 10 read; 11 stand for election now") \
	F(u8,  ok,       "answers: granted, taken")                             \
	F(u8,  force,    "vote: the leader asked for it")                       \
	F(u64, from,     "member that says it")                                 \
	F(u64, to,       "member it is for; another refuses it")                \
	F(u64, term,     "of the sender")                                       \
	F(u64, index,    "entry before; last entry; equal up to here")          \
	F(u64, log_term, "term of that entry")                                  \
	F(u64, hint,     "refused: may be equal up to here")                    \
	F(u64, commit,   "what is committed")                                   \
	F(u64, seq,      "of reads")                                            \
	F(u64, sent_ns,  "when, by the leader's clock; answers repeat it")      \
	F(str, addr,     "where the sender listens")                            \
	F(u8,  partial,  "1: the sender's table is half replaced, it needs a snapshot") \
	F(u32, n,        "entries in data")                                     \
	F(str, data,     "entries: term u64, type u16, length u32, bytes; little-endian")
MSG_DECLARE(raft_step, MSG_RAFT_STEP)

#define MSG_SNAPSHOT(F) \
	F(uid, group,    "id of the group")                                     \
	F(u32, number,   "which group")                                         \
	F(u64, from,     "member that sends, the leader")                       \
	F(u64, to,       "member it is for")                                    \
	F(u64, term,     "of the leader")                                       \
	F(u64, id,       "of this copy; another one begins anew")               \
	F(u64, index,    "last entry in it")                                    \
	F(u64, log_term, "term of that entry")                                  \
	F(str, members,  "configuration, as in the log")                        \
	F(u64, members_index, "entry that made it")                             \
	F(u64, seq,      "piece, 0 and on")                                     \
	F(u8,  last,     "1: the last piece; answered when all is durable")     \
	F(u32, crc,      "crc32c of data")                                      \
	F(str, data,     "rows: key length u16, value length u32, key, value; little-endian")
#define MSG_SNAPSHOT_REP(F) \
	F(u8,  wanted,   "0: of no use (any more)")                             \
	F(u64, next,     "piece that is due next")                              \
	F(u8,  done,     "1: it has all of it, durably")
MSG_DECLARE(snapshot, MSG_SNAPSHOT)
MSG_DECLARE(snapshot_rep, MSG_SNAPSHOT_REP)

/*        id    name      request   reply         when sent again              */
#define MSG_RAFT_CALLS(X) \
	X(0x0401, who,       who,       who_rep,      "reads only")             \
	X(0x0402, raft_step, raft_step, none,         "messages may repeat")    \
	X(0x0403, snapshot,  snapshot,  snapshot_rep, "same piece, same reply")

#endif
