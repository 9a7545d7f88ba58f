/* SPDX-License-Identifier: MIT */
/* table.h - the simulated store below conf/table.c.  The bytes (struct sim_table)
 * outlive every handle on them, as a file does.  A batch is durable when it calls
 * back; one in flight at a crash is kept whole or lost whole. */
#ifndef TESTS_SIM_TABLE_H
#define TESTS_SIM_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "conf/clock.h"
#include "conf/rand.h"
#include "conf/table.h"

struct sim_table;

/* Knobs; may be changed at any time. */
struct sim_table_conf {
	uint64_t write_min_ns, write_max_ns;	/* time a batch takes */
	uint32_t eio_ppm;			/* chance that a batch fails */
	bool	 full;				/* batches with a put get -ENOSPC */
	void	(*tick)(void *ctx);		/* each batch, and each request of a box, as
						 * it starts; it must not tear down anything */
	void	*tick_ctx;
};

/* What is wrong with one table; may be changed at any time. */
struct sim_table_faults {
	bool full;			/* as above */
	bool dead;			/* every request gets -EIO */
};

/* @rand and @conf are borrowed until sim_table_close(). */
struct sim_table *sim_table_open(struct rand *rand,
	    const struct sim_table_conf *conf);
/* @f is borrowed until sim_table_close(). */
void	sim_table_fault(struct sim_table *d, const struct sim_table_faults *f);
/* All handles must be closed. NULL is fine. */
void	sim_table_close(struct sim_table *d);
/* Open a handle; one at a time, as for a real file (-EBUSY). */
int	sim_table_store(struct sim_table *d, struct table_store **out);
/* The owner dies now: decide about a batch in flight; it never calls back, and the
 * handle that is left can only be closed. */
void	sim_table_crash(struct sim_table *d);
size_t	sim_table_n(const struct sim_table *d);

#endif
