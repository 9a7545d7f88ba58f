/* SPDX-License-Identifier: MIT */
/* client_health.h - how well storage answers this client: which targets to leave alone for
 * a while, when a read is late, and how many reads may be asked for twice. */
#ifndef ROLES_CLIENT_HEALTH_H
#define ROLES_CLIENT_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/ids.h"

#define CLIENT_HEALTH_SLOTS	96u	/* four to each doubling, from 1 us to 16 s */

/* Reads of one target. */
struct client_target {
	target_id id;
	uint32_t  inflight;
	uint32_t  fails;		/* since it last answered */
	uint64_t  avoid_until_ns;
	uint64_t  answered_ns;		/* the last one */
};

/* All reads of one client.  Zero before the first use. */
struct client_health {
	uint32_t slots[CLIENT_HEALTH_SLOTS];	/* answered reads by their time */
	uint32_t n;				/* of them; halved now and then */
	uint32_t fresh;				/* since `usual_ns` was worked out */
	uint64_t usual_ns;			/* most reads take less */
	uint32_t owed;				/* for extra reads */
};

/* A read of @t that was sent at @sent_ns is answered. */
void	client_health_answered(struct client_health *h, struct client_target *t,
	    uint64_t sent_ns, uint64_t now_ns);
/* @t did not answer. */
void	client_health_failed(struct client_target *t, uint64_t now_ns);
/* Better ask another one: it failed lately; or it did, and the one read that is to find
 * out whether it is well again is on its way. */
bool	client_health_avoid(const struct client_target *t, uint64_t now_ns);

/* After this long a read is late: longer than most reads take, and than @least_ns. */
uint64_t client_health_late_ns(const struct client_health *h, uint64_t least_ns);
/* Take leave to ask for one read twice: at most one in twenty, and a few at once. */
bool	client_health_extra(struct client_health *h);

#endif
