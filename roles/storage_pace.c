/* SPDX-License-Identifier: MIT */
/* storage_pace.c - clients and copies of a worker, told to its pace (chunk/pace.c). */
#include "roles/storage_impl.h"

static struct chunk_pace_at
at(const struct storage_worker *w)
{
	return (struct chunk_pace_at){ .now_ns = clock_now(w->clock),
	    .wall_ns = (uint64_t)clock_wall(w->clock),
	    .share = (unsigned)w->env->conf->storage_sync_share };
}

void
storage_fore_begin(struct storage_worker *w)
{
	struct chunk_pace_at t = at(w);

	chunk_pace_fore_begin(&w->pace, &t);
}

void
storage_fore_end(struct storage_worker *w, uint64_t bytes)
{
	struct chunk_pace_at t = at(w);

	chunk_pace_fore_end(&w->pace, &t, bytes);
	stat_set(&w->stat.sync_rate, w->pace.rate);
}

uint64_t
storage_pace_wait(struct storage_worker *w, uint64_t bytes)
{
	struct chunk_pace_at t = at(w);
	uint64_t again_ns = chunk_pace_wait(&w->pace, &t, bytes);

	stat_set(&w->stat.sync_rate, w->pace.rate);
	return again_ns;
}

void
storage_pace_end(struct storage_worker *w, uint64_t bytes)
{
	struct chunk_pace_at t = at(w);

	chunk_pace_end(&w->pace, &t, bytes);
}
