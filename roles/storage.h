/* SPDX-License-Identifier: MIT */
/* storage.h - a storage node: its disks, their targets, the chains they are in.
 * One struct storage is one node.  It has a main loop (membership) and workers, one per
 * loop, that own disks and listeners; with one loop the main loop is the worker. */
#ifndef ROLES_STORAGE_H
#define ROLES_STORAGE_H

#include "net/addr.h"
#include "roles/role.h"

struct routing;
struct storage;

#define STORAGE_DISKS_MAX	64u

struct storage_conf {
	const struct role_env *envs;	/* one per loop; [0] is the main loop */
	unsigned	 loop_n;
	const struct net_addr *listen;	/* one per loop */
	const char	*dir_path;	/* node directory: node id */
	const char     *const *disks;	/* directories; disk i belongs to loop i % loop_n */
	unsigned	 disk_n;
	const struct net_addr *managers;
	unsigned	 manager_n;
	const char	*name;
	unsigned	 cuts;		/* that a loop remembers; 0: as many as usual */
};

/* Disks must be formatted (chunk_engine_format()).  ready(ctx, 0) on the main loop when
 * registered and lease held and all disks are open. */
int	storage_open(struct storage **out, const struct storage_conf *conf,
	    role_fn *ready, void *ctx);
void	storage_addr(const struct storage *s, unsigned loop, struct net_addr *out);
void	storage_watch(struct storage *s, role_fn *fn, void *ctx);
void	storage_stop(struct storage *s, role_fn *fn, void *ctx);
/* All loops must be stopped, or run in this thread. */
void	storage_close(struct storage *s);

/* For the simulator's checkers: walk the engines of this node; i = 0.. until NULL. */
struct chunk_engine *storage_engine_at(struct storage *s, unsigned i);
/* Likewise: routing as this node knows it; NULL before it joins. */
const struct routing *storage_routing(const struct storage *s);

#endif
