/* SPDX-License-Identifier: MIT */
/* storage_repair.h - the damaged chunks of one disk are made whole again from other
 * replicas.
 *
 * The engine remembers what reads of any kind found damaged (chunk_engine_next_damaged());
 * whoever read it took it from elsewhere, or will.  Here each chunk is read once more, whole;
 * if it is damaged indeed its owner is asked to replace it. */
#ifndef ROLES_STORAGE_REPAIR_H
#define ROLES_STORAGE_REPAIR_H

#include "chunk/engine.h"

#define STORAGE_REPAIR_STATS(X) \
	X(counter, repaired, "damaged chunks replaced from another replica")     \
	X(counter, sound,    "chunks that could be read after all")              \
	X(counter, failed,   "attempts that failed, to be repeated")             \
	X(counter, alone,    "attempts with no other replica to take bytes from")
STAT_DECLARE(storage_repair, STORAGE_REPAIR_STATS)

struct storage_repair;
struct storage_repair_job;

struct storage_repair_conf {
	struct clock	 *clock;
	const struct log *log;
	struct chunk_engine *engine;	/* open; borrowed until it is closed */
	struct stat_registry *stats;	/* NULL: told nowhere */
	const char	 *path;		/* of the disk, for the log; borrowed */
	/* Replace the committed version of the chunk by the same from a peer.  0:
	 * storage_repair_ended() follows, maybe before this returns; -ENODEV: there is no
	 * peer; else: not now. */
	int		(*replace)(void *ctx, target_id target, struct chunk_id id,
			    uint8_t shift, struct storage_repair_job *job);
	void		 *ctx;
};

/* 0 or -ENOMEM. */
int	storage_repair_open(struct storage_repair **out,
	    const struct storage_repair_conf *conf);
/* There may be more on the list; fit for chunk_engine_conf.damaged. */
void	storage_repair_poke(struct storage_repair *r);
void	storage_repair_ended(struct storage_repair_job *job, int rc);
/* Nothing is begun any more. */
void	storage_repair_stop(struct storage_repair *r);
/* For tests. */
const struct storage_repair_stat *storage_repair_stats(const struct storage_repair *r);
/* The engine has been closed, and no replacement will end. NULL is fine. */
void	storage_repair_close(struct storage_repair *r);

#endif
