/* SPDX-License-Identifier: MIT */
/* table_lmdb.h - the real store below conf/table.c: one LMDB file, one writer thread. */
#ifndef CONF_TABLE_LMDB_H
#define CONF_TABLE_LMDB_H

#include <stdint.h>

#include "conf/table.h"

/* Open or make the table file @path (a second file, @path-lock, goes with it).  Blocks:
 * for start-up.
 *
 *   max_bytes  bound of the file; beyond it a batch fails with -ENOSPC. The file grows as
 *		needed, it is not preallocated
 *
 * Returns 0; -EBUSY when somebody has it open; ERR_DISK_DAMAGED when it is not a whole
 * LMDB file; ERR_DISK_NEWER for one of another LMDB format; -ENOMEM; -errno. */
int	table_lmdb_open(struct table_store **out, const char *path,
	    uint64_t max_bytes);

#endif
