/* SPDX-License-Identifier: MIT */
/* client_pick.h - which replica of a chain to read. */
#ifndef ROLES_CLIENT_PICK_H
#define ROLES_CLIENT_PICK_H

#include <stdbool.h>
#include <stdint.h>

struct client_pick_cand {
	uint32_t inflight;	/* reads of ours it has not answered */
	bool	 local;		/* in this process or on this box */
	bool	 failed;	/* did not answer lately */
	bool	 known;		/* its address is known */
};

#define CLIENT_PICK_NONE	~0u

/* The best of @n candidates whose bit in @tried is clear: not failed before failed, local
 * before remote, then the least in flight; ties go round by @turn.  CLIENT_PICK_NONE when
 * none is left. */
unsigned client_pick(const struct client_pick_cand *cand, unsigned n, uint32_t tried,
	    uint32_t turn);

#endif
