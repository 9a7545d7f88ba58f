/* SPDX-License-Identifier: MIT */
/* admin_pieces.h - long answers of the manager, piece by piece put together. */
#ifndef ROLES_ADMIN_PIECES_H
#define ROLES_ADMIN_PIECES_H

#include <stdbool.h>

#include "net/msg_manager.h"

struct admin_pieces {
	struct msg_arena	arena;		/* copies of the answers */
	struct msg_routing_rep	routing;
	struct msg_status_rep	status;		/* its lists are on the heap */
	struct msg_clients_rep	clients;	/* likewise */
	uint32_t		nodes_cap, syncs_cap, clients_cap;
	bool			has_routing, has_status;
};

void	admin_pieces_init(struct admin_pieces *p);
void	admin_pieces_fini(struct admin_pieces *p);
/* One more answer, borrowed.  1: ask for what follows; 0: that was all, *kept is what there is,
 * until the end; ERR_BAD_MESSAGE: it does not go on where the last one ended; -ENOMEM. */
int	admin_pieces_add(struct admin_pieces *p, const struct msg_type *t, const void *rep,
	    const void **kept);
/* What to ask for next. */
struct msg_status admin_pieces_status(const struct admin_pieces *p);
struct msg_clients admin_pieces_clients(const struct admin_pieces *p);

#endif
