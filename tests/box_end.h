/* SPDX-License-Identifier: MIT */
/* box_end.h - how a process ends on a simulated box: it closes what it has, is killed, or the
 * power fails. */
#ifndef TESTS_BOX_END_H
#define TESTS_BOX_END_H

#include <check.h>

#include "tests/sim/clock.h"
#include "tests/sim/disk.h"

enum end { CLEAN, KILL, CRASH };

/* Before it closes anything. */
static void
box_ends(struct sim_box *box, struct clock *clock, enum end how)
{
	if (how != CLEAN)
		sim_clock_node_kill(clock);
	if (how == KILL)
		sim_disk_kill(box);
	if (how == CRASH)
		sim_disk_crash(box);
}

/* When all is closed but its directory and its clock. */
static void
box_ended(struct disk_dir **dir, struct clock *clock, enum end how)
{
	(*dir)->ops->close(*dir);
	*dir = NULL;
	if (how == CLEAN)
		ck_assert_uint_eq(sim_clock_node_pending(clock), 0);
	sim_clock_node_close(clock);
}

#endif
