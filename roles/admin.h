/* SPDX-License-Identifier: MIT */
/* admin.h - operators' commands: each asks the manager, one of them every node too, and
 * prints what they say. */
#ifndef ROLES_ADMIN_H
#define ROLES_ADMIN_H

#include <stdio.h>

#include "net/addr.h"
#include "roles/role.h"

struct admin;

#define ADMIN_WORDS_MAX 8u

/* Run the command in @words ("show", "nodes"); print to @out; then done(ctx, rc): 0, the
 * manager's answer, or -ETIMEDOUT when none of the managers answered for a while.
 * Returns 0; -EINVAL for a command that is not there, with the reason on stderr (then done
 * never runs); -ENOMEM. */
int	admin_open(struct admin **out, const struct role_env *env,
	    const struct net_addr *managers, unsigned manager_n,
	    const char *const *words, unsigned word_n, bool json, FILE *to,
	    role_fn *done, void *ctx);
void	admin_close(struct admin *a);

/* The commands with their help, one a line. */
void	admin_help(FILE *out);

#endif
