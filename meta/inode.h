/* SPDX-License-Identifier: MIT */
/* inode.h - the inode row.
 *
 * Row, 112 bytes, little-endian:
 *   off size field
 *     0    1 format         1
 *     1    1 flags          INODE_*
 *     2    1 chunk_shift    log2 of the chunk size; regular files
 *     3    1 zero
 *     4    4 mode           as st_mode
 *     8    4 nlink          directories: 2 and one per subdirectory
 *    12    4 uid
 *    16    4 gid
 *    20    4 epoch          truncation epoch
 *    24    4 settled        epoch whose cut storage has finished; <= epoch
 *    28    4 table          chain table, its
 *    32    4 table_version  version, and
 *    36    4 stripe         number of chains the file is striped over
 *    40    8 seed           of the permutation that picks them
 *    48    8 rdev
 *    56    8 size           bytes; directories: number of entries
 *    64    8 atime          ns since 1970, as the next three
 *    72    8 mtime
 *    80    8 ctime
 *    88    8 btime
 *    96    8 change         +1 per change of content or inode
 *   104    8 parent         directories, else 0
 *
 * Why two epochs: nobody may write with the new epoch before every chunk of an older
 * one has been cut, or the cut would pass over a chunk that such a write has raised
 * and leave old bytes behind the end of the file.  So clients are told `settled`. */
#ifndef META_INODE_H
#define META_INODE_H

#include "conf/table.h"
#include "net/msg_meta.h"
#include "net/routing.h"

#define INODE_ROW_LEN	112u

/* May have chunks: it was opened for writing. */
#define INODE_WRITTEN	1u

struct inode {
	ino_id	 ino;
	uint8_t	 flags;
	uint8_t	 chunk_shift;
	uint32_t mode, nlink, uid, gid;
	uint32_t epoch, settled;
	uint32_t table, table_version, stripe;
	uint64_t seed, rdev, size;
	int64_t	 atime, mtime, ctime, btime;
	uint64_t change;
	ino_id	 parent;
};

void	inode_encode(const struct inode *in, uint8_t row[INODE_ROW_LEN]);
/* 0, or ERR_LOG_DAMAGED when the row is not one of ours. */
int	inode_decode(struct inode *in, ino_id ino, const void *row, size_t len);

/* 0, -ENOENT, -EIO, ERR_LOG_DAMAGED. */
int	inode_get(struct table *t, ino_id ino, struct inode *out);
/* First inode with a number over @after. 0, -ENOENT, -EIO, ERR_LOG_DAMAGED. */
int	inode_next(struct table *t, ino_id after, struct inode *out);
/* 0 or -ENOMEM. */
int	inode_put(struct table *t, const struct inode *in);
int	inode_del(struct table *t, ino_id ino);

/* As clients see it, with the settled epoch. */
void	inode_attr(const struct inode *in, struct msg_attr *out);
void	inode_layout(const struct inode *in, struct layout *out);
/* The last truncation has not reached all chunks yet. */
static inline bool
inode_cutting(const struct inode *in)
{
	return in->epoch != in->settled;
}

#endif
