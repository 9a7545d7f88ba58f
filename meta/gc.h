/* SPDX-License-Identifier: MIT */
/* gc.h - what storage still has to do for an inode; the rows that make the work survive
 * a restart.  The metadata role does the work (roles/metadata_gc.c) and then takes the
 * row away with a command.
 *
 * Row, 21 bytes, little-endian:
 *   off size field
 *     0    1 format   1
 *     1    4 epoch    truncate: the epoch it makes; remove: all ones
 *     5    8 at       truncate: bytes that stay, at most; remove: not 0 once chunks may be
 *                     gone, so that nobody opens it again, whoever leads
 *    13    8 since    wall time of the command that made it, ns
 *
 * An inode has at most one row of each kind.  A truncation that comes while another is
 * pending takes over its row: with the newer epoch and the lower of the two lengths,
 * since nobody has written in the epoch between them (inode.h). */
#ifndef META_GC_H
#define META_GC_H

#include "conf/table.h"
#include "conf/ids.h"

#define GC_ROW_LEN	21u
#define GC_EPOCH_GONE	UINT32_MAX	/* of removed inodes; no inode reaches it */

enum gc_kind {
	GC_REMOVE = 1,		/* no name is left: chunks, then the inode go */
	GC_TRUNCATE = 2,	/* chunks of older epochs are cut */
	GC_BEGUN = 3		/* in FS_GC_DONE only: the work of a GC_REMOVE row begins */
};

struct gc_row {
	ino_id	 ino;
	uint8_t	 kind;		/* enum gc_kind */
	uint32_t epoch;
	uint64_t at;
	int64_t	 since_ns;
};

/* 0, -ENOENT, -EIO, ERR_LOG_DAMAGED. */
int	gc_get(struct table *t, ino_id ino, uint8_t kind, struct gc_row *out);
/* First row behind (ino, kind); start with zeros. The same errors. */
int	gc_next(struct table *t, ino_id ino, uint8_t kind, struct gc_row *out);
/* 0 or -ENOMEM. */
int	gc_put(struct table *t, const struct gc_row *row);
int	gc_del(struct table *t, ino_id ino, uint8_t kind);

#endif
