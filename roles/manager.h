/* SPDX-License-Identifier: MIT */
/* manager.h - the cluster manager: registry, leases, chains, routing, option sets. */
#ifndef ROLES_MANAGER_H
#define ROLES_MANAGER_H

#include "net/addr.h"
#include "roles/role.h"

struct manager;

/* Open over @dir_path (made when missing), listen at @listen.
 *
 *   managers   all of them, in any order; copied.  None, or only
 *              @listen: it is the only one.  The lowest of several founds their group once
 *              all others are there and have no data either; who is not among them waits
 *              until a group is told to take it in.
 *
 * ready(ctx, 0) when it serves, or with several managers takes part; or why it never will.
 * 0, -ENOMEM or -errno (then ready never runs). */
int	manager_open(struct manager **out, const struct role_env *env,
	    const char *dir_path, const struct net_addr *listen,
	    const struct net_addr *managers, unsigned manager_n, role_fn *ready,
	    void *ctx);
void	manager_addr(const struct manager *m, struct net_addr *out);
/* Hands over to another manager first. */
void	manager_watch(struct manager *m, role_fn *fn, void *ctx);
void	manager_stop(struct manager *m, role_fn *fn, void *ctx);
void	manager_close(struct manager *m);

/* For the simulator: its group; routing as it knows it, NULL before it is loaded. */
struct group;
struct routing;
struct group *manager_group(struct manager *m);
const struct routing *manager_routing(const struct manager *m);

#endif
