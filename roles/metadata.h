/* SPDX-License-Identifier: MIT */
/* metadata.h - the metadata service: namespace calls over one replicated group, sessions,
 * length settling, garbage collection of chunks. */
#ifndef ROLES_METADATA_H
#define ROLES_METADATA_H

#include "net/addr.h"
#include "roles/role.h"

struct group;
struct metadata;

/* Open over @dir_path, listen at @listen, register with @managers; ready(ctx, 0) when it
 * serves (registered, lease held, log replayed). */
int	metadata_open(struct metadata **out, const struct role_env *env,
	    const char *dir_path, const struct net_addr *listen,
	    const struct net_addr *managers, unsigned manager_n, const char *name,
	    role_fn *ready, void *ctx);
void	metadata_addr(const struct metadata *m, struct net_addr *out);
void	metadata_watch(struct metadata *m, role_fn *fn, void *ctx);
void	metadata_stop(struct metadata *m, role_fn *fn, void *ctx);
void	metadata_close(struct metadata *m);

/* For the simulator: its group, and what it keeps (meta/fs.h). */
struct group *metadata_group(struct metadata *m);
struct table *metadata_table(struct metadata *m);

#endif
