/* SPDX-License-Identifier: MIT */
/* manager_place.h - which chains to make of free target slots; pure.
 *
 * As many chains as the slots allow, replicas on distinct nodes, and the rest
 * by three wishes in this order: slots are used up evenly, two nodes share few chains (so
 * that the load of a failed node spreads over all others), heads and tails are spread
 * evenly over the nodes. */
#ifndef ROLES_MANAGER_PLACE_H
#define ROLES_MANAGER_PLACE_H

#include <stddef.h>
#include <stdint.h>

#include "conf/ids.h"
#include "net/routing.h"

/* A free slot on a disk that can be used. */
struct manager_slot {
	target_id target;
	node_id	  node;
	uint32_t  disk;			/* the same number for slots of one disk */
};

/* The nodes of a chain that exists, head first. */
struct manager_place_nodes {
	uint32_t n;
	node_id	 nodes[ROUTING_REPLICAS_MAX];
};

struct manager_plan {
	target_id targets[ROUTING_REPLICAS_MAX];	/* head first */
};

/* Plan at most @max chains of @replicas (1..ROUTING_REPLICAS_MAX) targets.
 *
 *   slots     ascending by (node, disk, target), no target twice
 *   chains    those that exist, for the wishes above
 *   plan      filled; *plan_n says how many
 *   more      set when slots are left for further chains
 *
 * The same input gives the same plan.  0 or -ENOMEM. */
int	manager_place(const struct manager_slot *slots, size_t slot_n,
	    const struct manager_place_nodes *chains, size_t chain_n,
	    unsigned replicas, struct manager_plan *plan, size_t max,
	    size_t *plan_n, bool *more);

#endif
