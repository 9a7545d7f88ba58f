/* SPDX-License-Identifier: MIT */
/* group.h - a replicated state machine: commands go into a durable log, then into
 * deterministic apply over an ordered table (DESIGN 8).  The metadata service uses one
 * per metadata group, the manager uses one for its state.
 *
 * With one replica a command is committed when its log entry is synced; with more,
 * when a majority has it (next step; this interface stays).  Entries are appended and
 * synced in groups.  The table holds the applied index in the same batch as the changes,
 * so a crash at any point recovers to exactly the log. */
#ifndef META_GROUP_H
#define META_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/clock.h"
#include "conf/disk.h"
#include "conf/list.h"
#include "conf/log.h"
#include "conf/stat.h"
#include "conf/table.h"

#define GROUP_CMD_MAX		(64u << 10)	/* bytes of one command */
#define GROUP_RESULT_MAX	(16u << 10)	/* bytes of one result */

struct group;
struct group_req;

struct group_ops {
	/* Apply a committed command to the table.  Deterministic: uses the command,
	 * the table and nothing else.  Writes at most @cap bytes of result (for the
	 * proposer; on replay nobody reads it).  Returns the bytes written. */
	size_t (*apply)(void *ctx, uint64_t index, const void *cmd, size_t len,
	    void *result, size_t cap);
	/* Became leader with everything committed applied (serve now), or lost it. */
	void   (*leader)(void *ctx, bool leads);
	/* The log or table failed for good: stop serving.  Also how an open ends that
	 * found damage: ERR_LOG_DAMAGED, ERR_DISK_NEWER, ERR_DISK_FOREIGN, -errno.
	 * Called once, after the callbacks of all proposals in flight. */
	void   (*broken)(void *ctx, int rc);
};

struct group_conf {
	struct clock	 *clock;
	const struct log *log;
	struct disk_dir	 *dir;		/* borrowed; holds "log" and "table" */
	uint64_t	  log_bytes;	/* size of the log file, made at first open */
	uint64_t	  table_bytes;	/* bound of the table */
	uint32_t	  inflight_max;	/* proposals not yet answered */
	uint32_t	  flush_bytes;	/* make the table durable when this much is dirty */
	uint32_t	  flush_ms;	/* or this long after the first change */
	const struct group_ops *ops;
	void		 *ctx;
	struct stat_registry *stats;	/* NULL: counters are told nowhere */
};

#define GROUP_STATS(X) \
	X(counter, commands,  "commands applied")                                \
	X(counter, commits,   "group commits of the log")                        \
	X(counter, flushes,   "times the table was made durable")                \
	X(gauge,   inflight,  "commands not yet answered")                       \
	X(gauge,   log_bytes, "log kept for what the table lacks")
STAT_DECLARE(group, GROUP_STATS)

typedef void group_fn(struct group_req *req, int rc, const void *result,
	    size_t result_len);

/* One proposal or read barrier, embedded by its owner. */
struct group_req {
	struct list  node;	/* group's */
	uint64_t     index;	/* log index once proposed */
	group_fn    *fn;
};

/* Open or make the log and table in @dir, replay what the table lacks (asynchronously;
 * ops->leader tells when done, ops->broken when it cannot be). 0; -ENOMEM;
 * ERR_LOG_DAMAGED; -errno.  Table keys that begin with a zero byte are the group's. */
int	group_open(struct group **out, const struct group_conf *conf);
/* As a crash would leave it: nothing is flushed, no callback runs. NULL is fine. */
void	group_close(struct group *g);
/* Flush the table once nothing is in flight, then call back, never before this has
 * returned: a clean stop.  Also runs when the group breaks.  One at a time. */
void	group_flush(struct group *g, void (*fn)(void *ctx), void *ctx);

/* Order @cmd (copied) after all earlier ones; fn runs exactly once, never before this
 * has returned, after it is durable and applied; result is borrowed for the call.
 * 0; or, and fn never runs: ERR_NOT_LEADER, ERR_BUSY over a bound (in flight, log full
 * until the next flush), -EMSGSIZE, -ENOMEM. */
int	group_propose(struct group *g, struct group_req *req, const void *cmd,
	    size_t len, group_fn *fn);
/* A linearizable read may be served when fn runs with rc 0 (result NULL). With one
 * replica: at once, after this has returned. */
int	group_read(struct group *g, struct group_req *req, group_fn *fn);
/* For apply, when it cannot finish (no memory, table cannot be read): the group is broken
 * from here on, and nothing of that command will be durable in the table. */
void	group_break(struct group *g, int rc);
bool	group_leads(const struct group *g);
struct table *group_table(struct group *g);
uint64_t group_applied(const struct group *g);
/* Random-free id of this run: rises with every open (kept in the log). */
uint64_t group_run(const struct group *g);

#endif
