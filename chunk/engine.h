/* SPDX-License-Identifier: MIT */
/* engine.h - the chunks of one disk: space, index and I/O (DESIGN 7).
 *
 * A disk is a label, an index (conf/table.h) and a data file or device cut into blocks of
 * 4 KiB.  A chunk has at most one committed version and at most one pending one.
 * Versions are copy-on-write by checksum block (4 KiB; 1/1024 of the chunk size when that
 * is more); an append goes in place behind the committed length.  Every block has a
 * crc32c that is verified by every read.
 *
 * Durability: chunk_write_start() calls back when the bytes and the pending version are
 * durable (commits are grouped).  chunk_engine_commit() flips pending to committed in
 * memory; that becomes durable with the next group commit, and is not needed for safety:
 * a pending version found after a crash is always resolvable by the chain.
 *
 * Single-threaded: a disk belongs to one loop.  Targets of a disk share its space. */
#ifndef CHUNK_ENGINE_H
#define CHUNK_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/clock.h"
#include "conf/disk.h"
#include "conf/ids.h"
#include "conf/list.h"
#include "conf/log.h"
#include "conf/mem.h"
#include "conf/stat.h"
#include "conf/table.h"
#include "net/msg_storage.h"

#define CHUNK_DEDUPE_MAX	8u	/* last writers remembered per chunk */
#define CHUNK_BLOCK		4096u	/* smallest unit of space and checksum */
#define CHUNK_DAMAGED_MAX	4096u	/* damaged chunks remembered */
#define CHUNK_READ_MAX		(64u << 20)

/* Bytes of a checksum block of chunks of 1 << @shift bytes. */
static inline uint32_t
chunk_sum_bytes(unsigned shift)
{
	return shift <= 22 ? CHUNK_BLOCK : 1u << (shift - 10);
}

struct chunk_engine;

struct chunk_engine_conf {
	struct clock	 *clock;
	const struct log *log;
	struct disk_dir	 *dir;		/* borrowed: holds "data" and "index" */
	struct mem_pool	 *pool;		/* borrowed; for edges and unaligned reads */
	uint64_t	  index_bytes;	/* bound of the index table */
	uint32_t	  full_percent;	/* new data is refused above this */
	struct stat_registry *stats;	/* NULL: counters are told nowhere */
	const char	 *path;		/* for the log; NULL: not known */
	/* A damaged chunk was added to the list (chunk_engine_next_damaged()); called from
	 * inside the engine: it may only note that. NULL is fine. */
	void		(*damaged)(void *ctx);
	void		 *damaged_ctx;
};

#define CHUNK_DISK_STATS(X) \
	X(counter, stores,         "versions of chunks made durable")            \
	X(counter, written_bytes,  "data written, with what was copied")         \
	X(counter, syncs,          "syncs of the data file")                     \
	X(counter, commits,        "group commits of the index")                 \
	X(counter, corrupt_blocks, "blocks that failed their checksum")          \
	X(counter, read_errors,    "reads that the disk failed")                 \
	X(counter, full_errors,    "writes that the file system had no space for") \
	X(counter, payload_errors, "payloads that failed their checksum on arrival") \
	X(gauge,   damaged_chunks, "chunks known to be damaged, and not repaired yet")
STAT_DECLARE(chunk_disk, CHUNK_DISK_STATS)

/* Format @dir for a disk of @bytes of data: label, empty index. -EEXIST when there is
 * any fsd disk already.  For start-up and `fsd disk init` (blocks, runs @turn to let the
 * directory's I/O go on until done). */
int	chunk_engine_format(struct disk_dir *dir, struct clock *clock,
	    const struct uid128 *disk_id, uint64_t bytes,
	    void (*turn)(void *ctx), void *turn_ctx);

typedef void chunk_engine_fn(void *ctx, int rc);
/* Open and recover; fn runs once, never before this has returned: 0, ERR_DISK_FOREIGN,
 * ERR_DISK_NEWER, ERR_DISK_DAMAGED, -errno.  When fn got an error only close is legal.
 * Returns 0 or -ENOMEM (*out is NULL then). */
int	chunk_engine_open(struct chunk_engine **out,
	    const struct chunk_engine_conf *conf, chunk_engine_fn *fn, void *ctx);
/* As a crash: callbacks of requests in flight never run. NULL is fine. */
void	chunk_engine_close(struct chunk_engine *e);
/* Make committed flips durable, then call back: for a clean stop. One at a time. */
void	chunk_engine_flush(struct chunk_engine *e, chunk_engine_fn *fn, void *ctx);

const struct uid128 *chunk_engine_disk(const struct chunk_engine *e);
/* 0; -EIO once the disk or its index has failed: every request fails then. */
int	chunk_engine_state(const struct chunk_engine *e);
void	chunk_engine_space(const struct chunk_engine *e, uint64_t *capacity_bytes,
	    uint64_t *used_bytes);

/* The index is full, or the file system below: new data is refused, space or not. */
bool	chunk_engine_full(const struct chunk_engine *e);

struct chunk_dedupe {
	struct uid128 client;
	uint64_t seq;
	uint64_t version;
};

/* What the engine knows of a chunk.  version 0: there is no such version. */
struct chunk_info {
	struct chunk_id id;
	uint8_t	 shift;			/* log2 of chunk size */
	uint64_t committed;
	uint32_t committed_len, committed_epoch, committed_check;
	uint64_t pending;
	uint32_t pending_len, pending_epoch, pending_check;
	bool	 pending_removed;	/* the pending version is a removal */
	bool	 storing;		/* a write of it is in flight */
	uint32_t dedupe_n;		/* newest first; includes the pending write */
	struct chunk_dedupe dedupe[CHUNK_DEDUPE_MAX];
};

/* 0; -ENOENT when there is neither version. Sees every write at once when its
 * callback has run. */
int	chunk_engine_info(struct chunk_engine *e, target_id target,
	    struct chunk_id id, struct chunk_info *out);
/* First chunk of @target with id >= @from (@after: > @from). 0, -ENOENT, -EIO. */
int	chunk_engine_next(struct chunk_engine *e, target_id target,
	    struct chunk_id from, bool after, struct chunk_info *out);
/* Last chunk of inode @ino. 0 or -ENOENT; committed versions only. */
int	chunk_engine_last(struct chunk_engine *e, target_id target, ino_id ino,
	    struct chunk_info *out);

/* First chunk of @target with a pending version, id >= @from (@after: > @from). 0;
 * -ENOENT; -EIO.  From memory: finding it takes O(log n), n what is pending. */
int	chunk_engine_next_pending(struct chunk_engine *e, target_id target,
	    struct chunk_id from, bool after, struct chunk_info *out);
/* Committed chunks of @target and the sum of their lengths. In memory, O(1). */
void	chunk_engine_count(const struct chunk_engine *e, target_id target,
	    uint64_t *chunks, uint64_t *bytes);

/* A chunk with stored bytes that a read found damaged or unreadable. */
struct chunk_damage {
	target_id	target;
	struct chunk_id	id;
	uint64_t	version;	/* that was read */
	uint32_t	block;		/* checksum block found first */
};
/* The next one >= @from of @target or a higher target (@after: > that). 0, -ENOENT.
 * It leaves the list when a whole new version is committed (a replacement under the same
 * number is one), when the chunk is removed, or by chunk_engine_healed().  At most
 * CHUNK_DAMAGED_MAX are remembered. */
int	chunk_engine_next_damaged(const struct chunk_engine *e, target_id target,
	    struct chunk_id from, bool after, struct chunk_damage *out);
/* How many there are on it. */
uint32_t chunk_engine_damaged(const struct chunk_engine *e);
/* All of it was read and verified after all. */
void	chunk_engine_healed(struct chunk_engine *e, target_id target, struct chunk_id id);

/* ---- for a scrub (roles/storage_scrub.c) ---- */

/* The next committed chunk >= @target, @id (@after: > that) of any target, and its length
 * and the size of its checksum blocks. 0, -ENOENT, -ENOMEM, -EIO. */
int	chunk_engine_walk(struct chunk_engine *e, target_id *target, struct chunk_id *id,
	    bool after, uint32_t *len, uint32_t *sum);

/* Where it is, kept in the index. */
struct chunk_scrub {
	bool	  running;		/* a pass is under way */
	target_id target;		/* done up to here; zeros: nothing is */
	struct chunk_id id;
	int64_t	  begun_ns, ended_ns;	/* wall clock; ended: the last whole pass */
	uint64_t  bytes, errors;	/* of this pass, or the last one */
};
/* 0; -ENOENT (zeros then); -ENOMEM; -EIO. */
int	chunk_engine_scrub_get(struct chunk_engine *e, struct chunk_scrub *out);
/* Durable with the next commit, soon. 0, -ENOMEM, -EIO. */
int	chunk_engine_scrub_put(struct chunk_engine *e, const struct chunk_scrub *s);

/* ---- one read ---- */
struct chunk_read;
typedef void chunk_read_fn(struct chunk_read *r, int rc);
struct chunk_read {
	/* in */
	target_id	target;
	struct chunk_id id;
	uint64_t	version;	/* committed or pending; 0: committed */
	uint32_t	offset, len;	/* bytes; len over 0 */
	bool		anyhow;		/* whole chunks: damaged blocks too, as they are, and
					 * zeros for what the disk cannot read */
	/* out, when rc is 0 */
	struct mem_buf	buf;		/* holds the bytes; the caller's to mem_put() */
	const uint32_t *sums;		/* anyhow: what the blocks' crcs should be; in sums_buf */
	struct mem_buf	sums_buf;	/* the caller's to mem_put() as well */
	uint32_t	sum_n, bad_n;	/* of them; blocks that have another */
	const uint8_t  *data;		/* in buf */
	uint32_t	got;		/* bytes; fewer than len at the chunk's end */
	uint64_t	got_version;
	uint32_t	crc;		/* crc32c of data[0..got) */
	/* engine's */
	struct chunk_engine *engine;
	chunk_read_fn	*fn;
	struct list	 node;
	void		*impl;
};
/* fn runs once, never before this has returned: 0 (holes read as zeros, got may be 0 past
 * the end), -ENOENT no such chunk or version, ERR_CORRUPT when a block is damaged or the
 * disk cannot read it (other blocks and chunks are as good as before), -EIO once the disk
 * has failed, ERR_BUSY, -ENOMEM. The version read stays readable until fn even when it is
 * replaced meanwhile. */
void	chunk_read_start(struct chunk_read *r, struct chunk_engine *e,
	    chunk_read_fn *fn);

/* ---- one write: makes the pending version ---- */
struct chunk_write;
typedef void chunk_write_fn(struct chunk_write *w, int rc);
struct chunk_write {
	/* in */
	target_id	target;
	struct chunk_id id;
	uint8_t		kind;		/* enum update_kind of net/msg_storage.h */
	uint8_t		shift;		/* log2 of the chunk size */
	uint32_t	epoch;
	uint64_t	version;	/* what it becomes; > committed */
	uint32_t	offset;		/* WRITE: where; TRUNCATE: the new length */
	uint32_t	len;		/* bytes of payload; WRITE and REPLACE */
	uint32_t	crc;		/* of the payload; verified before it is stored */
	uint8_t	       *data;		/* payload; (data - buf.p) % 4096 must equal offset
					 * % 4096 and buf must have room to the next
					 * multiple of 4096: the engine writes from it and
					 * pads it in place. Borrowed until fn. */
	struct mem_buf	buf;		/* the caller's; engine never frees it */
	struct chunk_dedupe who;	/* seq 0: nobody */
	const struct chunk_dedupe *dedupe;	/* REPLACE: whole list, else NULL */
	uint32_t	dedupe_n;
	const uint32_t *sums;		/* REPLACE by a damaged chunk: its blocks' crcs as
					 * they should be, else NULL.  Blocks that have another
					 * one are damaged here too. Borrowed until fn. */
	uint32_t	sum_n;
	/* out, when rc is 0 */
	uint32_t	new_len;	/* of the chunk */
	uint32_t	check;		/* crc32c over its block checksums */
	/* engine's */
	struct chunk_engine *engine;
	chunk_write_fn	*fn;
	struct list	 node;
	void		*impl;
};
/* A pending version of the chunk that is there already is replaced (its space is freed);
 * bases on the committed one.  One write per chunk at a time (asserted).  A REPLACE may have
 * the committed version's own number: that repairs damaged bytes.  A TRUNCATE of what is
 * not there makes an empty chunk, a REMOVE of it is fine.
 * fn runs once, never before this has returned: 0 durable; -ENOSPC; ERR_PAYLOAD_CRC;
 * ERR_CORRUPT when a block it must copy from is damaged; -EIO once the disk has failed;
 * -EINVAL for bounds and kinds; ERR_BUSY, -ENOMEM.  After an error the chunk is as it was before. */
void	chunk_write_start(struct chunk_write *w, struct chunk_engine *e,
	    chunk_write_fn *fn);

/* Flip the pending version @version to committed (a removal: forget the chunk); visible at
 * once. 0; -ENOENT when that is not the pending version; ERR_BUSY while a write of the chunk
 * is in flight; -ENOMEM; -EIO. */
int	chunk_engine_commit(struct chunk_engine *e, target_id target,
	    struct chunk_id id, uint64_t version);
/* Drop the pending version.  Errors as above. */
int	chunk_engine_abort(struct chunk_engine *e, target_id target,
	    struct chunk_id id, uint64_t version);

/* Assert the numbered invariants of engine.c (space accounting against the index); tests
 * and the simulator. */
void	chunk_engine_check(struct chunk_engine *e);

#endif
