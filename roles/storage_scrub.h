/* SPDX-License-Identifier: MIT */
/* storage_scrub.h - the background scrubber of one disk: reads all that is stored, in the
 * order of the index, so that every checksum is verified once in a while (DESIGN 7).
 *
 * A pass takes about storage.scrub_time, or longer when storage.scrub_rate says so; the next
 * one begins that long after it began.  Where it is survives a restart, to within a minute.
 * What it finds damaged is on the engine's list (chunk_engine_next_damaged()). */
#ifndef ROLES_STORAGE_SCRUB_H
#define ROLES_STORAGE_SCRUB_H

#include "chunk/engine.h"
#include "conf/conf.h"

#define STORAGE_SCRUB_STATS(X) \
	X(counter, chunks,     "chunks read and verified")                       \
	X(counter, blocks,     "checksum blocks of them")                        \
	X(counter, bytes,      "bytes of them")                                  \
	X(counter, errors,     "parts of chunks found damaged or unreadable")    \
	X(counter, passes,     "times that all of the disk was done")            \
	X(counter, yields,     "pauses made for other requests")                 \
	X(gauge,   progress_percent, "of the pass under way; 100: none is")      \
	X(gauge,   begun_time, "when the last pass began, seconds since 1970")   \
	X(gauge,   ended_time, "when the last whole pass ended, seconds since 1970; 0: never") \
	X(gauge,   pass_errors, "damaged parts found by this pass, or the last one")
STAT_DECLARE(storage_scrub, STORAGE_SCRUB_STATS)

struct storage_scrub;

struct storage_scrub_conf {
	struct clock	 *clock;
	const struct log *log;
	const struct conf *conf;	/* looked at again and again: it may change */
	struct chunk_engine *engine;	/* open; borrowed until it is closed */
	struct stat_registry *stats;	/* NULL: told nowhere */
	const char	 *path;		/* of the disk, for the log; borrowed */
	bool		(*busy)(void *ctx);	/* others want the disk now */
	void		 *ctx;
};

/* Goes on where the last one stopped, a little later.  0 or -ENOMEM. */
int	storage_scrub_open(struct storage_scrub **out,
	    const struct storage_scrub_conf *conf);
/* No read is begun any more; the place is noted for the next flush of the engine. */
void	storage_scrub_stop(struct storage_scrub *s);
/* For tests. */
const struct storage_scrub_stat *storage_scrub_stats(const struct storage_scrub *s);
/* The engine has been closed. NULL is fine. */
void	storage_scrub_close(struct storage_scrub *s);

#endif
