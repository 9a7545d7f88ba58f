/* SPDX-License-Identifier: MIT */
/* watch.c - what must hold at every moment, whatever goes wrong. */
#include "tests/sim/sim_impl.h"

#include "meta/group.h"

static void
one_leader(struct sim *s, const char *what, unsigned n,
    struct group *(*group)(struct sim *, unsigned))
{
	int leader = -1;

	for (unsigned i = 0; i < n; i++) {
		struct group *g = group(s, i);

		if (g == NULL || !group_lease(g))
			continue;
		if (leader >= 0)
			sim_fail(s, "%s%d and %s%u are both sure to lead", what, leader + 1,
			    what, i + 1);
		leader = (int)i;
	}
}

void
sim_watch_leaders(struct sim *s)
{
	one_leader(s, "manager", SIM_MANAGERS, sim_manager_group);
	one_leader(s, "metadata", SIM_METADATAS, sim_metadata_group);
}
