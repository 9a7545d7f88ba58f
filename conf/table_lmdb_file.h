/* SPDX-License-Identifier: MIT */
/* table_lmdb_file.h - the file below conf/table_lmdb.c: made whole, locked, checked. */
#ifndef CONF_TABLE_LMDB_FILE_H
#define CONF_TABLE_LMDB_FILE_H

#include <lmdb.h>
#include <stdint.h>
#include <sys/types.h>

struct table_lmdb_file {
	int	    fd;			/* holds the lock on the file; -1: not open */
	MDB_env	   *env;
	MDB_dbi	    dbi;
	MDB_txn	   *read;
	MDB_cursor *cursor;
};

/* Open or make @path, with a read transaction; under a guard (conf/fault.h).  Errors as
 * table_lmdb_open(); then too what has been opened is in @f, and the caller's to close. */
int	table_lmdb_file_open(struct table_lmdb_file *f, const char *path,
	    uint64_t max_bytes);
/* LMDB counts pages at the end of the file that it allocated and gave up again within
 * one transaction, but never writes them.  Make the file as long as it says, so that a
 * short file is known to have lost something.  Only a hint: no sync.  @less: leave that
 * many bytes of the last page missing, so that it is still known next time.
 * Returns 1 when it was short, 0, or -errno. */
int	table_lmdb_file_fill(MDB_env *env, int fd, off_t less);

#endif
