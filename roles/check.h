/* SPDX-License-Identifier: MIT */
/* check.h - fsd check: does what metadata and storage hold fit together, while the cluster
 * is in use.
 *
 *   entries against inodes, link counts, orphans      meta/tree.h, on a frozen image
 *   chunks against inodes and layouts                 every chunk of every chain
 *   replicas against each other                       versions and digests
 *
 * What looks wrong is looked at again before it is called a fault: the cluster goes on
 * changing meanwhile.  Each repair is told before it is done, and what came of it; it is
 * looked at once more where it is done, and nothing is done that is not right by then.
 * Takes memory by the size of the metadata: some 210 bytes for a file; when the rows are more
 * than 1 GiB the rest of them is in a file without a name, and 40 bytes for a file are left. */
#ifndef ROLES_CHECK_H
#define ROLES_CHECK_H

#include <stdio.h>

#include "net/addr.h"
#include "roles/role.h"

struct check;

/* What may be done about what is found. */
struct check_how {
	bool	  repair;	/* what takes nothing away that has data */
	bool	  discard;	/* and what does: chunks without an inode, entries that lead
				 * to none although there are chunks of it */
	bool	  json;
	bool	  prefer_tail;	/* replicas that nothing can decide between: who serves */
	target_id prefer;	/* as the reading tail is right; or this target is */
};

struct check_conf {
	const struct role_env *env;	/* copied */
	const struct net_addr *managers;
	unsigned	 manager_n;
	struct check_how how;
	FILE		*to;
};

/* Faults go to conf->to as they are found, one a line.  done(ctx, rc) runs once, never
 * before this has returned: 0 no faults, or all were mended; -EUCLEAN: faults are left; or
 * why the check could not be ended.  0, -EINVAL or -ENOMEM. */
int	check_open(struct check **out, const struct check_conf *conf, role_fn *done,
	    void *ctx);
void	check_close(struct check *c);

#endif
