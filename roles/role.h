/* SPDX-License-Identifier: MIT */
/* role.h - what a role gets from the world, and what the world asks of a role.
 *
 * A role object lives on one loop.  Real processes make a struct role_env over net/loop.c,
 * chunk/disk_uring.c, conf/table_lmdb.c and net/tcp.c or net/local.c; the simulator makes
 * one over its four fakes.  Nothing in roles/ reaches the world in any other way. */
#ifndef ROLES_ROLE_H
#define ROLES_ROLE_H

#include "conf/clock.h"
#include "conf/conf.h"
#include "conf/disk.h"
#include "conf/log.h"
#include "conf/rand.h"
#include "net/call.h"

struct role_env {
	struct clock	*clock;
	struct rand	*rand;
	struct net_hub	*hub;		/* of this loop; borrowed */
	const struct conf *conf;	/* borrowed; checked */
	/* Fresh random ids (boot, client): libsodium, or the simulator's seed. */
	void	       (*random)(void *ctx, void *out, size_t n);
	/* Open the directory @path (made when @create) for files and tables. */
	int	       (*dir)(void *ctx, const char *path, bool create,
			    struct disk_dir **out);
	void		*ctx;
	uint64_t	 pid;		/* of this process, for operators to see */
	struct stat_registry *stats;	/* of the process; NULL: nobody asks */
	struct log	 log;		/* who speaks: "manager", "storage2" */
};

/* Every role has, besides its open():
 *	X_start	 opened by open(), told when it serves through its ready callback
 *	X_watch	 servers: call back, once, when it breaks after that: its state, or every disk,
 *		 is of no use to this process any more.  On its loop; it must not be stopped
 *		 or closed from there
 *	X_stop	 drain and leave cleanly, then call back
 *	X_close	 free at once, as a crash would leave things */
typedef void role_fn(void *ctx, int rc);

/* The id kept in file @name of @dir, made at random at the first start.  0, or -errno:
 * -EIO also when the file does not hold an id. */
int	role_uid_file(const struct role_env *env, struct disk_dir *dir,
	    const char *name, struct uid128 *out);

/* Answer manager_stats, meta_stats or storage_stats: what this process has counted. */
struct net_req;
void	role_stats_call(const struct role_env *env, struct net_req *req);

#endif
