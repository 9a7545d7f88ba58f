/* SPDX-License-Identifier: MIT */
/* length.h - the length of a file: truncation, and what writers report.
 *
 * The inode's size is settled by sync and close: the end of the furthest write that
 * storage acknowledged.  A report made in an older truncation epoch does not say what is
 * left of those writes; then the role asks storage for the last chunk of each chain and
 * the command carries that (FS_LAST). */
#ifndef META_LENGTH_H
#define META_LENGTH_H

#include "meta/op.h"

/* Longest file with this chunk size: chunk indexes are 32 bits. */
static inline uint64_t
length_max(uint8_t chunk_shift)
{
	return (UINT64_C(1) << 32) << chunk_shift;
}

/* Set the length of @in, a regular file; the caller puts it.  Where chunks may be behind
 * the new end, a new epoch starts and a gc row is left.
 * 0, -EFBIG, -EOVERFLOW (epochs are used up), or a table error noted in @o; nothing is
 * changed then. */
int	length_set(struct fs_op *o, struct inode *in, uint64_t size);

#endif
