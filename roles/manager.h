/* SPDX-License-Identifier: MIT */
/* manager.h - the cluster manager: registry, leases, chains, routing, option sets. */
#ifndef ROLES_MANAGER_H
#define ROLES_MANAGER_H

#include "net/addr.h"
#include "roles/role.h"

struct manager;

/* Open over @dir_path (made when missing), listen at @listen; ready(ctx, 0) when it
 * serves, or why it never will.  0, -ENOMEM or -errno (then ready never runs). */
int	manager_open(struct manager **out, const struct role_env *env,
	    const char *dir_path, const struct net_addr *listen, role_fn *ready,
	    void *ctx);
void	manager_addr(const struct manager *m, struct net_addr *out);
void	manager_stop(struct manager *m, role_fn *fn, void *ctx);
void	manager_close(struct manager *m);

#endif
