/* SPDX-License-Identifier: MIT */
/* cover.h - what all simulations together have made happen: the counters of all roles, and
 * the lines of the chain table.  What no seed ever reaches is not tested. */
#ifndef TESTS_SIM_COVER_H
#define TESTS_SIM_COVER_H

#include "conf/stat.h"

#define COVER_WORKERS	16u

/* Before the workers are forked. */
void	cover_open(void);
/* This process is worker @i. */
void	cover_worker(unsigned i);
/* Add the counters of a process that ends. */
void	cover_stats(struct stat_registry *r);
/* Of this worker: its seeds are done. */
void	cover_done(void);
/* Print what was never seen, one line each; how many of them there should be none of. */
unsigned cover_report(void);

#endif
