/* SPDX-License-Identifier: MIT */
/* group_heal.c - a member whose table is damaged takes the leader's.
 *
 *   leads -> hands over -> follows -> half: forgets all but id, term, vote and floor
 *   -> the leader hears that it has nothing, and sends a snapshot (group_load.c)
 *
 * The table stays as it is until the first piece comes: if all members were damaged alike,
 * nobody would lead, and nothing would be lost.  A restart before that is one with log and
 * table as they are. */
#include "meta/group_impl.h"

#include <errno.h>
#include <inttypes.h>

#include "conf/err.h"

#define HAND_OVER_FACTOR 20u		/* times election_ms, then the group is broken */

static unsigned
other_voters(const struct group *g)
{
	const struct raft_members *m = raft_members(g->raft);
	unsigned n = 0;

	for (unsigned i = 0; i < m->n; i++)
		n += m->m[i].voter && m->m[i].id != g->member;
	return n;
}

int
group_heal(struct group *g)
{
	if (g->rc != 0)
		return g->rc;
	if (g->half || g->healing || g->load.finishing)
		return 0;
	if (g->raft == NULL || g->phase != GROUP_RUNNING)
		return ERR_BUSY;
	if (g->conf.hub == NULL || other_voters(g) == 0)
		return -EINVAL;
	log_error(g->conf.log, "table is damaged: it is to be replaced by the leader's",
	    "applied=%" PRIu64 " term=%" PRIu64, g->applied.index, raft_term(g->raft));
	g->healing = true;
	g->heal_ns = group_now(g);
	g->leads = false;
	clock_timer_stop(g->conf.clock, &g->flush_timer);
	group_fail_all(g);
	return 0;
}

/* At every tick and turn, and when something that was written is durable. */
void
group_heal_drive(struct group *g)
{
	uint64_t limit = HAND_OVER_FACTOR * g->conf.election_ms * NS_PER_MS;

	if (!g->healing || g->rc != 0)
		return;
	if (g->role == RAFT_LEADER) {
		if (group_now(g) - g->heal_ns > limit) {
			group_break(g, ERR_LOG_DAMAGED);
			return;
		}
		(void)raft_transfer(g->raft, group_now(g), 0);
		group_pump(g);
		return;
	}
	if (g->hard_ticket == 0 && !g->committing)
		(void)group_half(g);
}

bool
group_heals(const struct group *g, uint64_t *pieces)
{
	*pieces = g->load.active ? g->load.seq : 0;
	return g->half || g->healing || g->load.finishing;
}

uint64_t
group_taken(const struct group *g)
{
	return g->snap_index;
}
