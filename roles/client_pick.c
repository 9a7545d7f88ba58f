/* SPDX-License-Identifier: MIT */
/* client_pick.c - which replica of a chain to read. */
#include "roles/client_pick.h"

static bool
better(const struct client_pick_cand *a, const struct client_pick_cand *b)
{
	if (a->failed != b->failed)
		return b->failed;
	if (a->local != b->local)
		return a->local;
	return a->inflight < b->inflight;
}

unsigned
client_pick(const struct client_pick_cand *cand, unsigned n, uint32_t tried,
    uint32_t turn)
{
	unsigned best = CLIENT_PICK_NONE;

	for (unsigned k = 0; k < n; k++) {
		unsigned i = (turn + k) % n;

		if ((tried & 1u << i) != 0 || !cand[i].known)
			continue;
		if (best == CLIENT_PICK_NONE || better(&cand[i], &cand[best]))
			best = i;
	}
	return best;
}
