/* SPDX-License-Identifier: MIT */
/* run.h - open the roles that a process was asked for, in order, and end them in the
 * opposite order.  `fsd --role`, `fsd dev` and `fsd mount` are plans for this. */
#ifndef ROLES_RUN_H
#define ROLES_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/conf.h"
#include "net/addr.h"
#include "net/call.h"

#define RUN_STORAGE_MAX	16u
#define RUN_PATH_MAX	4096u

struct run_storage {
	char	 name[64];
	char	 dir[RUN_PATH_MAX];	/* node directory */
	const char *const *disks;	/* formatted disk directories */
	unsigned disk_n;
	uint16_t port;			/* of the first loop; 0: any */
};

struct run_plan {
	const struct conf *conf;
	uint8_t	    key[NET_KEY_BYTES];
	bool	    manager, metadata;
	bool	    any_port;		/* for the manager, when its own is taken */
	char	    name[64];		/* of this node */
	char	    dir[RUN_PATH_MAX];	/* manager and metadata keep state below it */
	struct run_storage storage[RUN_STORAGE_MAX];
	unsigned    storage_n;
	const char *mount;		/* NULL: no mount */
	bool	    mount_ro, mount_allow_other;
	struct net_addr managers[8];
	unsigned    manager_n;
	/* All roles serve; @manager is where ours listens (kind NONE: not ours). Once, in the
	 * main thread. */
	void	  (*ready)(void *ctx, const struct net_addr *manager);
	void	   *ctx;
};

/* Runs until SIGTERM, SIGINT, the unmounting of plan->mount, or a role that fails.  Returns
 * 0 after a clean stop, else -errno or an error row; what went wrong has been logged. */
int	run(const struct run_plan *plan);

#endif
