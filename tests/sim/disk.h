/* SPDX-License-Identifier: MIT */
/* disk.h - the stable storage of one simulated box: directories of files and tables
 * that outlive the processes on it.
 *
 * Requests take time and end in any order.  A write is in the box's cache when it
 * called back, and durable once a DISK_SYNC that started later has called back.
 *
 * A process ends in one of three ways; in each the owners still close their handles:
 *	clean	close everything
 *	kill	sim_disk_kill(), then close: requests in flight may be done in part, what
 *		is in the cache stays
 *	crash	sim_disk_crash(), then close: the power fails as well; of what was not
 *		synced every 512-byte sector is kept or lost by chance */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/clock.h"
#include "conf/disk.h"
#include "conf/rand.h"
#include "tests/sim/table.h"

/* Knobs; may be changed at any time. */
struct sim_disk_conf {
	uint64_t read_min_ns, read_max_ns;
	uint64_t write_min_ns, write_max_ns;
	uint64_t sync_min_ns, sync_max_ns;
	uint64_t mib_ns;		/* more, per MiB of a request */
	uint32_t read_eio_ppm, write_eio_ppm, sync_eio_ppm;
	uint32_t flip_ppm;		/* chance that a read finds a bit turned, for good */
	bool	 full;			/* no new files; see also table.full */
	struct sim_table_conf table;
};

/* What is wrong with one disk, that is with a directory; may be changed at any time.
 * Chances are per request of its data files. */
struct sim_disk_faults {
	uint64_t from, to;		/* only requests that touch these bytes; 0, 0: all */
	uint32_t flip_ppm;		/* a read finds a bit turned, for good */
	uint32_t read_eio_ppm;
	uint32_t write_eio_ppm;		/* the bytes may have been written in part */
	uint32_t sync_eio_ppm;
	uint32_t lost_ppm;		/* a write is acknowledged, and was not done */
	uint32_t astray_ppm;		/* a write is done to another place, never to
					 * the first MiB */
	bool	 full;			/* writes of data get -ENOSPC, no new files */
	bool	 dead;			/* every request of data gets -EIO */
	bool	 gone;			/* its name leads elsewhere, as when it was
					 * unmounted; what is open goes on */
	struct sim_table_faults table;	/* the same for its tables */
};

struct sim_box;				/* one machine's disks */

/* @rand is borrowed.  The knobs start out calm: fixed delays, no faults. */
struct sim_box *sim_box_open(struct rand *rand);
/* Every handle must be closed. NULL is fine. */
void	sim_box_close(struct sim_box *b);
struct sim_disk_conf *sim_box_conf(struct sim_box *b);

/* The directory @path for a process that lives on @clock: role_env.dir. 0; -ENOENT
 * when it is not there and not @create. */
int	sim_disk_dir(struct sim_box *b, struct clock *clock, const char *path,
	    bool create, struct disk_dir **out);

/* The faults of the directory @path, to be changed; none at first.  It is made when it is
 * not there; gone with sim_disk_wipe(). */
struct sim_disk_faults *sim_disk_faults(struct sim_box *b, const char *path);
/* How many writes were lost or went astray so far, on all disks of the box. */
unsigned sim_disk_lies(const struct sim_box *b);

/* Syncs that failed in the directory @path since its process began. */
unsigned sim_disk_sync_errors(struct sim_box *b, const char *path);

void	sim_disk_kill(struct sim_box *b);
void	sim_disk_crash(struct sim_box *b);

/* Take a directory away with all that is in it, as when a disk is replaced; handles
 * on it must be closed. */
void	sim_disk_wipe(struct sim_box *b, const char *path);
/* Turn one bit of a stored file. 0; -ENOENT. */
int	sim_disk_flip(struct sim_box *b, const char *path, const char *name,
	    uint64_t off, unsigned bit);
/* Requests in flight, for "is it quiet". */
unsigned sim_disk_inflight(const struct sim_box *b);

#endif
