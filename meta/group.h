/* SPDX-License-Identifier: MIT */
/* group.h - a replicated state machine: commands go into a durable log on a majority of
 * the members, then into deterministic apply over an ordered table (DESIGN 8).  The
 * metadata service uses one per metadata group, the manager uses one for its state.
 *
 * Who leads and what is committed is decided by the pure core meta/raft.h; here are its
 * log, table, messages and snapshots.  The leader appends and syncs in groups, and sends
 * to the others while it syncs.  The table holds the applied index in the same batch as
 * the changes, so a crash at any point recovers to exactly the log.  A group of one
 * member is a valid group. */
#ifndef META_GROUP_H
#define META_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/clock.h"
#include "conf/disk.h"
#include "conf/ids.h"
#include "conf/list.h"
#include "conf/log.h"
#include "conf/rand.h"
#include "conf/stat.h"
#include "conf/table.h"
#include "meta/raft.h"
#include "net/serve.h"

#define GROUP_CMD_MAX		(64u << 10)	/* bytes of one command */
#define GROUP_RESULT_MAX	(16u << 10)	/* bytes of one result */
#define GROUP_SERVICE		0x04		/* of calls for group_serve() */

struct group;
struct group_req;

struct group_ops {
	/* Apply a committed command to the table, on every member.  Deterministic: uses
	 * the command, the table and nothing else.  Writes at most @cap bytes of result
	 * (for the proposer; elsewhere nobody reads it).  Returns the bytes written. */
	size_t (*apply)(void *ctx, uint64_t index, const void *cmd, size_t len,
	    void *result, size_t cap);
	/* Became leader with everything committed applied (serve now), or lost it. */
	void   (*leader)(void *ctx, bool leads);
	/* The log or table failed for good: stop serving.  Also how an open ends that
	 * found damage: ERR_LOG_DAMAGED, ERR_DISK_NEWER (also for an entry of a kind that
	 * this release does not know), ERR_DISK_FOREIGN, -errno.
	 * Called once, after the callbacks of all proposals in flight. */
	void   (*broken)(void *ctx, int rc);
	/* The table was replaced by another member's: forget every copy of what was in
	 * it.  Between two applies.  NULL: there is none. */
	void   (*restored)(void *ctx);
	/* Members have changed, or the leader has. NULL: nobody asks. */
	void   (*members)(void *ctx);
};

enum group_start {		/* what a member does that is in no group yet */
	GROUP_FOUND,		/* makes a group of which it is the only member */
	GROUP_JOIN		/* waits until a leader takes it in, or group_found() */
};

struct group_conf {
	struct clock	 *clock;
	const struct log *log;
	struct disk_dir	 *dir;		/* borrowed; holds "log", "table", "member" */
	uint64_t	  log_bytes;	/* size of the log file, made at first open */
	uint64_t	  table_bytes;	/* bound of the table */
	uint32_t	  inflight_max;	/* proposals not yet answered */
	uint32_t	  flush_bytes;	/* make the table durable when this much is dirty */
	uint32_t	  flush_ms;	/* or this long after the first change */
	const struct group_ops *ops;
	void		 *ctx;
	struct stat_registry *stats;	/* NULL: counters are told nowhere */
	/* replication */
	struct rand	 *rand;		/* borrowed */
	struct net_hub	 *hub;		/* borrowed; NULL: stays alone */
	uint32_t	  number;	/* 0: the managers, else a metadata group */
	struct net_addr	  addr;		/* where others reach group_serve() */
	enum group_start  start;
	uint32_t	  election_ms;	/* silence of a leader, 1 to 2 times; 0: 1000 */
	uint32_t	  beat_ms;	/* between its words; 0: election_ms / 5 */
};

#define GROUP_STATS(X) \
	X(counter, commands,  "commands applied")                                \
	X(counter, commits,   "group commits of the log")                        \
	X(counter, flushes,   "times the table was made durable")                \
	X(counter, elections, "times this member became leader")                 \
	X(counter, snapshots_sent,  "tables sent to other members")              \
	X(counter, snapshots_taken, "times the table was replaced by a leader's") \
	X(gauge,   inflight,  "commands not yet answered")                       \
	X(gauge,   log_bytes, "log kept for what the table or others lack")      \
	X(gauge,   table_bytes, "bytes of the table in use")                     \
	X(gauge,   leads,     "1 while this member leads")                       \
	X(gauge,   term,      "election term")                                   \
	X(gauge,   members,   "members of the group")
STAT_DECLARE(group, GROUP_STATS)

typedef void group_fn(struct group_req *req, int rc, const void *result,
	    size_t result_len);

/* One proposal or read barrier, embedded by its owner. */
struct group_req {
	struct list  node;	/* group's */
	uint64_t     index;	/* log index once proposed */
	uint64_t     ticket, until_ns;	/* of a read */
	group_fn    *fn;
};

/* Open or make the log and table in @dir, replay what the table lacks (asynchronously;
 * ops->leader tells when we lead, ops->broken when it cannot be). 0; -ENOMEM; -EINVAL;
 * ERR_LOG_DAMAGED; -errno.  Table keys that begin with a zero byte are the group's. */
int	group_open(struct group **out, const struct group_conf *conf);
/* As a crash would leave it: nothing is flushed, no callback runs. NULL is fine. */
void	group_close(struct group *g);
/* Flush the table once nothing is in flight, then call back, never before this has
 * returned: a clean stop.  Also runs when the group breaks.  One at a time. */
void	group_flush(struct group *g, void (*fn)(void *ctx), void *ctx);

/* Order @cmd (copied) after all earlier ones; fn runs exactly once, never before this
 * has returned: with 0 after it is committed and applied here, result is borrowed for the
 * call; or with ERR_NOT_LEADER when leadership was lost before: it may be committed later
 * or not, nobody knows.
 * 0; or, and fn never runs: ERR_NOT_LEADER, ERR_BUSY over a bound (in flight, log full
 * until the next flush), -ENOSPC when the table is nearly full, -EMSGSIZE, -ENOMEM. */
int	group_propose(struct group *g, struct group_req *req, const void *cmd,
	    size_t len, group_fn *fn);
/* The same for a command that makes the table smaller: never -ENOSPC. */
int	group_propose_freeing(struct group *g, struct group_req *req, const void *cmd,
	    size_t len, group_fn *fn);
/* Call fn once all that was proposed is applied: what it proposes then is the entry right
 * after the last one applied, or never gets into the log.  Until fn has run all other
 * proposals are ERR_BUSY.  fn runs once, with 0 or ERR_NOT_LEADER.  One at a time: ERR_BUSY. */
int	group_quiet(struct group *g, struct group_req *req, group_fn *fn);
/* A linearizable read may be served when fn runs with rc 0 (result NULL), on the leader
 * or a follower.  0; ERR_NOT_LEADER when none is known (also in fn). */
int	group_read(struct group *g, struct group_req *req, group_fn *fn);
/* For apply, when it cannot finish (no memory, table cannot be read): the group is broken
 * from here on, and nothing of that command will be durable in the table. */
void	group_break(struct group *g, int rc);
bool	group_leads(const struct group *g);
/* We lead, and certainly nobody else does now. */
bool	group_lease(const struct group *g);
/* Order a mark: every member writes its table as it is right after that entry, and keeps an
 * image of it.  fn as of group_propose(); req->index names the mark. */
int	group_mark(struct group *g, struct group_req *req, group_fn *fn);
/* The image of the mark at @index, on any member: 0 and it is borrowed until the next return
 * to the loop; ERR_BUSY: not applied or not written yet; -ESTALE: there is none (any more);
 * it goes when nobody asks for a minute, and with the next mark. */
int	group_frozen(struct group *g, uint64_t index, struct table_image **out);
void	group_thaw(struct group *g);
/* The table is not what the log made of it: give it up for the leader's.  Nothing of it goes
 * before that comes; meanwhile this member does not lead (it hands over) nor stand for
 * election, and votes for nobody who lacks what it had.  0: begun, or under way; -EINVAL:
 * there is no other voter; ERR_BUSY. */
int	group_heal(struct group *g);
/* It is under way: pieces that have come. */
bool	group_heals(const struct group *g, uint64_t *pieces);
/* Entry as of which the table was last taken from a leader; 0: never. */
uint64_t group_taken(const struct group *g);
struct table *group_table(struct group *g);
uint64_t group_applied(const struct group *g);
/* Entries of the log up to this one are in the durable part of the table. */
uint64_t group_durable(const struct group *g);
/* Rises with every leader, and with every open of a member that leads: the election
 * term. Below 2^32 for all that matters. */
uint64_t group_run(const struct group *g);

/* ---- members ---- */

/* Answer a call of GROUP_SERVICE. */
void	group_serve(struct group *g, struct net_req *req);
/* In no group: GROUP_JOIN, and nobody has taken us in yet. */
bool	group_blank(const struct group *g);
/* A blank member founds a group, alone. 0; -EBUSY when it is not blank, or still opens. */
int	group_found(struct group *g);
/* Random ids, kept with the data: of this member, of the group (zeros: blank). */
uint64_t group_member(const struct group *g);
void	group_id(const struct group *g, struct uid128 *out);
/* As far as this member knows; index 0: none. Borrowed until the next return to the loop. */
const struct raft_members *group_members(const struct group *g);
/* Where the leader listens; false: not known. */
bool	group_leader(const struct group *g, struct net_addr *out);
/* On the leader: who is to be a member.  id 0: whoever answers at that address (a member
 * that is there, or a blank one).  While it leads, the group goes there one member at a
 * time: adds as learner, promotes what has caught up, then removes what is not wanted
 * (itself last: it hands over, and the next leader has to be told the same). Copied; n 0:
 * leave the members as they are. */
struct group_want {
	uint64_t	id;
	struct net_addr addr;
};
void	group_want(struct group *g, const struct group_want *want, unsigned n);
/* Hand leadership to whoever is furthest; ops->leader(false) follows, unless nobody can
 * take it.  0; ERR_NOT_LEADER; -EINVAL: alone; ERR_BUSY. */
int	group_transfer(struct group *g);

#endif
