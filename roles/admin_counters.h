/* SPDX-License-Identifier: MIT */
/* admin_counters.h - `show counters`, `show rdma`: asks one process after another. */
#ifndef ROLES_ADMIN_COUNTERS_H
#define ROLES_ADMIN_COUNTERS_H

#include <stdbool.h>
#include <stdio.h>

#include "net/msg_manager.h"
#include "roles/role.h"

struct admin_counters;

/* Ask the manager and every node of @routing, or only @node (NULL: all), and print each
 * answer to @to as it comes; who does not answer is named with the reason.  Then
 * done(ctx, rc): 0; or, when one node was asked for, -ENOENT (there is none of this name,
 * which stderr was told) or why it did not answer.
 *
 *   rdma                     the table of RDMA ports, when all have answered
 *   env, routing, node, to   borrowed until admin_counters_close()
 *
 * Returns 0, and done follows later; -ENOMEM. */
int	admin_counters_open(struct admin_counters **out, const struct role_env *env,
	    const struct net_addr *manager, const struct msg_routing_rep *routing,
	    const char *node, bool rdma, bool json, FILE *to, role_fn *done, void *ctx);
void	admin_counters_close(struct admin_counters *a);		/* NULL is fine */

#endif
