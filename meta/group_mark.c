/* SPDX-License-Identifier: MIT */
/* group_mark.c - the table as it is right after one entry of the log, frozen: on all members
 * the same entry, so that what they hold can be compared.
 *
 *   applied -> (a batch in flight ends) -> written up to here and no further -> image
 *
 * Nothing is applied between the mark and the beginning of its batch, for as long as one takes
 * at most; everything goes on as soon as that is on its way. */
#include "meta/group_impl.h"

#include <errno.h>
#include <inttypes.h>

#include "conf/err.h"

#define FROZEN_BYTES	(1ull << 30)	/* the table may grow by, for an image */
#define IDLE_NS		(60 * NS_PER_S)

void
group_thaw(struct group *g)
{
	clock_timer_stop(g->conf.clock, &g->thaw_timer);
	table_image_close(g->frozen);
	g->frozen = NULL;
	g->mark = g->freezing = g->frozen_index = 0;
}

static void
idle(struct clock_timer *t)
{
	struct group *g = container_of(t, struct group, thaw_timer);

	if (group_now(g) - g->frozen_ns < IDLE_NS) {
		clock_timer_start(g->conf.clock, t, g->frozen_ns + IDLE_NS, idle);
		return;
	}
	table_image_close(g->frozen);
	g->frozen = NULL;
}

bool
group_mark_write(struct group *g)
{
	if (g->committing)
		return false;		/* it is looked at again when that has ended */
	g->freezing = g->mark;
	g->mark = 0;
	group_commit_table(g);
	return g->rc == 0;
}

void
group_mark_written(struct group *g)
{
	uint64_t index = g->commit_point.index;
	int rc;

	if (g->mark != 0)
		group_poke(g);
	if (g->freezing == 0 || g->freezing != index)
		return;
	g->freezing = 0;
	table_image_close(g->frozen);
	g->frozen_index = index;
	g->frozen_ns = group_now(g);
	rc = table_image_open(g->table, FROZEN_BYTES, &g->frozen);
	if (rc != 0) {
		g->frozen = NULL;
		log_warn(g->conf.log, "no image of a mark", "error=%s index=%" PRIu64,
		    err_name(rc), index);
		return;
	}
	clock_timer_start(g->conf.clock, &g->thaw_timer, g->frozen_ns + IDLE_NS, idle);
}

int
group_frozen(struct group *g, uint64_t index, struct table_image **out)
{
	if (g->rc != 0)
		return g->rc;
	if (g->half || g->load.finishing || g->applied.index < index ||
	    g->mark == index || g->freezing == index)
		return ERR_BUSY;
	if (g->frozen == NULL || g->frozen_index != index)
		return -ESTALE;
	g->frozen_ns = group_now(g);
	*out = g->frozen;
	return 0;
}
