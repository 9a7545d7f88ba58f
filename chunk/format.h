/* SPDX-License-Identifier: MIT */
/* format.h - every byte on a data disk, and who may believe it after a crash.
 * fsd-disk(5) tells the same story; change both, and FSD_DISK when a reader of the old
 * kind would be misled.  Numbers are little-endian, except in keys, which must sort.
 *
 * A data disk is a directory (conf/disk.h) with a file or device "data" and an ordered
 * table "index".
 *
 * "data", in bytes:
 *	      0  label, 4096 bytes
 *	   4096  label, the other copy
 *	   8192  zeros up to 1 MiB, kept for later
 *	  1 MiB  blocks of 4 KiB; block number = offset / 4096, so the first one is 256
 *
 * Label:
 *   off  size  field       meaning
 *     0     8  magic       "FSDDISK1"
 *     8     4  crc         crc32c of bytes 12..4095
 *    12     4  version     FSD_DISK; a reader refuses anything newer
 *    16    16  disk_id     set when the disk is made, never changes
 *    32     8  epoch       +1 per rewrite
 *    40     8  data_bytes  size of "data" that is in use, a multiple of 4096
 *    48     4  block       4096
 *    52  4044  zero        kept zero and checked, so it can be used later
 * Writer: rewrite the older copy, sync, then the other.  Reader: of the copies whose crc
 * matches take the higher epoch; if none does, it is not our disk.
 *
 * "index" has four kinds of rows, told apart by the first byte of the key:
 *   "L"                                    whose index this is
 *   "S"                                    how far the scrub is
 *   "C" target be32, inode be64, index be32  a committed version of a chunk
 *   "P" target be32, inode be64, index be32  the pending version of a chunk
 * All rows start with a crc32c over the key and what follows the crc.
 *
 * Row "L":    crc u32, version u32 (FSD_DISK), disk_id 16 bytes
 *
 * Row "S" (may be missing, or of another format: then nothing is known): crc u32, format
 * u32 (1), running u8, target u32, inode u64, index u32: done up to here; then i64 wall
 * clock nanoseconds: when this pass began, when the last whole one ended; u64: bytes, then
 * errors of this pass.
 *
 * Row "C":
 *   off  size  field       meaning
 *     0     4  crc         of the key, then of bytes 4..end
 *     4     1  format      1
 *     5     1  shift       log2 of the chunk size, 16..26
 *     6     1  flags       CHUNK_ROW_SEALED
 *     7     1  dedupe_n    0..8
 *     8     8  version     over 0
 *    16     4  len         bytes of the chunk
 *    20     4  epoch       truncation epoch of the inode
 *    24     4  check       crc32c of the block crcs below, then of len
 *    28     4  extent_n
 *    32        dedupe      dedupe_n times: client 16 bytes, seq u64, version u64
 *              extents     extent_n times: at u16, count u16, disk u40; ascending, at and
 *                          count in 4 KiB blocks of the chunk, disk a block number
 *              crcs        one u32 for each checksum block of len bytes
 *
 * Row "P": the difference to the committed version.
 *     0     4  crc
 *     4     1  format      1
 *     5     1  shift
 *     6     1  flags       CHUNK_ROW_SEALED, REMOVED, INPLACE, DEDUPE_ALL
 *     7     1  dedupe_n    0 or 1: whose write it is; DEDUPE_ALL: the whole list, 0..8
 *     8     8  version     over 0
 *    16     8  base        committed version it builds on, 0: none
 *    24     4  len
 *    28     4  epoch
 *    32     4  check       what that of the chunk becomes
 *    36     4  keep        4 KiB blocks of the committed extents that stay
 *    40     4  first       first checksum block whose crc changes
 *    44     4  crc_n       how many change
 *    48     4  extent_n
 *    52        dedupe, extents, crcs as in row "C"; extents replace what they cover
 *
 * Meaning of the bytes: a checksum block is 4 KiB, or 1/1024 of the chunk size when that is
 * more; its crc covers those of its bytes that are below len.  A block without an extent
 * reads as zeros.  Extents may reach beyond len (slack, for appends in place); bytes
 * beyond len are never believed.
 *
 * After a crash: the index is believed (it is atomic and durable by batch), and no extent of
 * any row overlaps another one.  Data is believed when its crc matches, which it does
 * for every row: data was synced before its row was written, and no block is written again
 * while a row that might come back refers to its bytes below len.  A row "P" whose base is
 * not the committed version is left over from half a flip: it is dropped when the
 * committed version is the same one (or the row is a removal and the chunk is gone), and
 * is damage otherwise.  A row "P" of the version that is committed, based on it, is a repair
 * of damaged bytes: it takes the place of row "C" at once. */
#ifndef CHUNK_FORMAT_H
#define CHUNK_FORMAT_H

#include <stdint.h>

#include "chunk/engine.h"

#define CHUNK_LABEL_BYTES	4096u
#define CHUNK_LABEL_COPIES	2u
#define CHUNK_RESERVED_BLOCKS	256u	/* 1 MiB: labels, and room for later */
#define CHUNK_DISK_BLOCKS_MAX	(1ull << 40)
#define CHUNK_DISK_BYTES_MIN	(4ull << 20)

#define CHUNK_SHIFT_MIN		16u
#define CHUNK_SHIFT_MAX		26u
#define CHUNK_CRCS_MAX		1024u	/* checksum blocks of one chunk */
#define CHUNK_EXTENTS_MAX	16384u	/* 64 MiB in blocks of 4 KiB */

#define CHUNK_ROW_FORMAT	1u
#define CHUNK_ROW_SEALED	1u	/* C: nothing may be appended in place: bytes behind
					 * len belong to a version that may come back.  P: what
					 * it becomes is sealed */
#define CHUNK_ROW_REMOVED	2u	/* P: a removal */
#define CHUNK_ROW_INPLACE	4u	/* P: has bytes in blocks of the committed version */
#define CHUNK_ROW_DEDUPE_ALL	8u	/* P: dedupe replaces the list */

#define CHUNK_KEY_BYTES		17u
#define CHUNK_LABEL_ROW_BYTES	24u
#define CHUNK_KEY_SCRUB		'S'
#define CHUNK_SCRUB_FORMAT	1u
#define CHUNK_SCRUB_BYTES	57u
#define CHUNK_EXTENT_BYTES	9u
#define CHUNK_DEDUPE_BYTES	32u
#define CHUNK_COMMITTED_BYTES	32u	/* fixed part */
#define CHUNK_PENDING_BYTES	52u	/* fixed part */

/* The largest row fits a table value. */
#define CHUNK_ROW_MAX	(CHUNK_PENDING_BYTES + CHUNK_DEDUPE_MAX * CHUNK_DEDUPE_BYTES + \
			CHUNK_EXTENTS_MAX * CHUNK_EXTENT_BYTES + CHUNK_CRCS_MAX * 4u)
_Static_assert(CHUNK_ROW_MAX <= TABLE_VALUE_MAX, "a row is one value");
_Static_assert((1u << CHUNK_SHIFT_MAX) / CHUNK_BLOCK == CHUNK_EXTENTS_MAX, "blocks");
_Static_assert((1u << CHUNK_SHIFT_MAX) <= CHUNK_READ_MAX, "a read takes a whole chunk");
_Static_assert(CHUNK_BLOCK == DISK_ALIGN, "a block is what a disk takes");

/* Blocks of @unit bytes that @len bytes touch; @unit a power of two. */
static inline uint32_t
chunk_blocks(uint32_t len, uint32_t unit)
{
	return len / unit + (len % unit != 0);
}

#endif
