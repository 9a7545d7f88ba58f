/* SPDX-License-Identifier: MIT */
/* log.h - the durable log of a group: one preallocated file used as a ring.
 *
 * Appends gather in a buffer while one write and its sync are in flight, and go out
 * together as the next batch (group commit).  A batch begins on a block of its own, so
 * a write that is torn by a power cut can only damage entries nobody was told about.
 *
 * File, little-endian (fsd-disk(5)):
 *
 *	block 0, 1   header, two copies that are rewritten in turn
 *	block 2 ..   ring: the byte at log position p is at 8192 + p % ring_bytes
 *
 * Header, 4096 bytes:
 *   off  size  field         meaning
 *     0     8  magic         "FSDLOG01"
 *     8     4  crc           crc32c of bytes 12..4095
 *    12     4  version       2; a reader refuses anything newer, and reads 1 (which
 *                            ends before "vote_term") with those fields zero
 *    16     8  seq           +1 per rewrite; odd ones go to block 0, even to block 1
 *    24     8  run           +1 per open, and when entries are taken back
 *    32     8  ring_bytes    multiple of 4096, fixed when the file is made
 *    40     8  first_index   first entry that is still needed
 *    48     8  first_pos     where it is, or will be
 *    56     8  first_term    term of the entry before it
 *    64     4  first_prev    crc of the entry before it
 *    68     4  zero
 *    72     8  open_index    last entry that was there when this run began: entries
 *                            after it count only if this run wrote them
 *    80     8  synced_index  last entry known durable when this header was written
 *    88     8  vote_term     Raft's current term
 *    96     8  vote          member that was voted for in it, 0: none
 *   104    16  owner         what the owner keeps here (the id of its group)
 *   120  3976  zero          kept zero and checked, so it can be used later
 * Of the copies whose crc matches the higher seq counts.  Making a log writes block 0
 * first, and nothing is promised before block 1 was written too: with block 1 all zero
 * and block 0 not readable the file was never used.
 *
 * Entry, followed by its payload and zeros up to a multiple of 8:
 *   off  size  field    meaning
 *     0     4  crc      crc32c of bytes 4..47 and the payload
 *     4     4  prev     crc of the entry before it: entries form a chain
 *     8     4  len      bytes of payload
 *    12     4  run      low bits of the run that wrote it; never goes down
 *    16     8  index    rises by one
 *    24     8  pos      its own log position: an entry of an earlier lap never fits
 *    32     8  term     Raft term; never goes down
 *    40     2  type     the owner's
 *    42     2  zero
 *    44     4  back     index - back is the first entry of its batch: when this was
 *                       written, everything before that one was durable
 * The next entry follows at once, or on the next block.  Where both places hold one that
 * fits, that of the higher run counts.
 *
 * Taking entries back (another leader had others): first a header with a new run whose
 * open_index is the last entry that stays, both copies; only then new entries, on the
 * block after it, over the old ones.  A crash leaves either header, and with it either
 * the old entries, untouched, or none of them.  What is left of them in the block before
 * is of a lower run than what follows on the next block. */
#ifndef META_LOG_H
#define META_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/clock.h"
#include "conf/disk.h"
#include "conf/log.h"

#define META_LOG_BLOCK		DISK_ALIGN
#define META_LOG_HEADERS	(2u * META_LOG_BLOCK)
#define META_LOG_ENTRY		48u		/* bytes before the payload */
#define META_LOG_PAYLOAD_MAX	(64u << 10)
#define META_LOG_BYTES_MIN	(1u << 20)	/* smallest file */

struct meta_log;

struct meta_log_entry {
	uint64_t    index, term;
	uint16_t    type;
	uint32_t    len;
	const void *payload;		/* borrowed for the call */
};

struct meta_log_ops {
	/* The next durable entry, in order and without gaps: at open every entry that
	 * is there, later each one that was appended.  After entries were taken back
	 * their indexes come again. */
	void (*entry)(void *ctx, const struct meta_log_entry *e);
	/* Open has ended: 0; ERR_LOG_DAMAGED when entries that were acknowledged
	 * cannot be read; ERR_DISK_NEWER; ERR_DISK_FOREIGN; -errno.  After an error
	 * only meta_log_close() is legal.  Entries given before are good. */
	void (*ready)(void *ctx, int rc);
	/* What meta_log_save(), _cut_back() and _restart() asked for is durable up to
	 * meta_log_saved(). NULL: not wanted. */
	void (*saved)(void *ctx);
	/* A write or sync failed: nothing appended since the last entry() is known
	 * to be durable, and nothing ever will be.  Called once. */
	void (*broken)(void *ctx, int rc);
};

struct meta_log_conf {
	struct clock	 *clock;
	const struct log *log;
	struct disk_dir	 *dir;		/* borrowed */
	const char	 *name;		/* of the file */
	uint64_t	  bytes;	/* of the file, when it is made */
	const struct meta_log_ops *ops;
	void		 *ctx;
	uint64_t	 *batches;	/* counts batches made durable; NULL: nobody asks */
};

/* Open or make the log. ops->ready() runs later unless this fails: -ENOMEM, -EINVAL for
 * a size under META_LOG_BYTES_MIN, -errno. */
int	meta_log_open(struct meta_log **out, const struct meta_log_conf *conf);
/* At once, from any callback too; no callback runs afterwards. NULL is fine. */
void	meta_log_close(struct meta_log *l);

/* Copy an entry into the next batch; ops->entry() follows when it is durable.
 *   index   set to the index it got
 * 0; ERR_BUSY when the batch or the ring is full; -EMSGSIZE; -EINVAL when @term is less
 * than the last one; or what broke the log. */
int	meta_log_append(struct meta_log *l, uint64_t term, uint16_t type,
	    const void *payload, size_t len, uint64_t *index);
/* Entries up to @index (durable ones) are not needed any more; their space is used
 * again some time after the header says so. */
void	meta_log_truncate(struct meta_log *l, uint64_t index);

/* What must be durable before an answer leaves. */
struct meta_log_hard {
	uint64_t term, vote;
	uint8_t	 owner[16];
};
const struct meta_log_hard *meta_log_hard(const struct meta_log *l);
/* Keep @h; returns a ticket: it is durable, in both headers, when meta_log_saved() has
 * reached that. */
uint64_t meta_log_save(struct meta_log *l, const struct meta_log_hard *h);
uint64_t meta_log_saved(const struct meta_log *l);
/* Take back all entries after @index; the next one appended is @index + 1.  Nothing that
 * is appended from here on becomes durable before the cut has.
 * 0; -EINVAL when @index is not in the log or too far back to be in memory. */
int	meta_log_cut_back(struct meta_log *l, uint64_t index);
/* Forget all entries: the next is @index + 1, after one of @term.  Returns a ticket. */
uint64_t meta_log_restart(struct meta_log *l, uint64_t index, uint64_t term);

/* Bytes that can be appended now; an entry takes META_LOG_ENTRY and its payload, rounded
 * up to 8. */
uint64_t meta_log_room(const struct meta_log *l);
/* And entries, whatever they hold. */
uint64_t meta_log_slots(const struct meta_log *l);
/* What follows @index is in memory, and would be if as much again came: so it can be taken
 * back (meta_log_cut_back()). */
bool	meta_log_near(const struct meta_log *l, uint64_t index);
/* Largest index such that entries of at least @bytes follow it; first - 1 when there are
 * not so many. */
uint64_t meta_log_before(const struct meta_log *l, uint64_t bytes);

/* Last entry that was appended. */
uint64_t meta_log_end(const struct meta_log *l);
uint64_t meta_log_end_term(const struct meta_log *l);
/* Term of the entry before the first. */
uint64_t meta_log_first_term(const struct meta_log *l);
/* Bytes of the log from the entry after @index on, as far as is known (more, not less,
 * for entries that are not in memory). */
uint64_t meta_log_bytes_after(const struct meta_log *l, uint64_t index);
/* An entry that is in memory: the last few MiB are, durable or not.  Borrowed until the
 * next append. 0; -EAGAIN when it must be read; -ENOENT when it is not in the log. */
int	meta_log_get(const struct meta_log *l, uint64_t index,
	    struct meta_log_entry *out);

/* Reads older entries back, durable ones; one read at a time. */
struct meta_log_reader;
typedef void meta_log_reader_fn(void *ctx, struct meta_log_reader *r, int rc);
/* 0 or -ENOMEM: it holds a buffer. */
int	meta_log_reader_open(struct meta_log_reader **out, struct meta_log *l);
/* At once; fn does not run. Before the log is closed. NULL is fine. */
void	meta_log_reader_close(struct meta_log_reader *r);
/* Read @index and what follows it.  fn runs once, never before this has returned: 0, and
 * meta_log_reader_next() gives one entry at least; -ENOENT when @index is not in the log
 * any more, or not durable; ERR_LOG_DAMAGED; -EIO. */
void	meta_log_reader_start(struct meta_log_reader *r, uint64_t index,
	    meta_log_reader_fn *fn, void *ctx);
bool	meta_log_reader_busy(const struct meta_log_reader *r);
/* The next entry of what was read; borrowed until the next start. False: no more. */
bool	meta_log_reader_next(struct meta_log_reader *r, struct meta_log_entry *out);

uint64_t meta_log_run(const struct meta_log *l);
/* Last entry that was given to ops->entry(), or truncated. */
uint64_t meta_log_last(const struct meta_log *l);
/* First entry still in the log; last + 1 when it is empty. */
uint64_t meta_log_first(const struct meta_log *l);
uint64_t meta_log_used_bytes(const struct meta_log *l);
uint64_t meta_log_ring_bytes(const struct meta_log *l);

/* ---- the bytes, for the log itself, its tests and fsd check ---- */
struct meta_log_header {
	uint64_t seq, run, ring_bytes;
	uint64_t first_index, first_pos, first_term;
	uint32_t first_prev;
	uint64_t open_index, synced_index;
	struct meta_log_hard hard;
};
struct meta_log_head {			/* of an entry */
	uint32_t crc, prev, len, run;
	uint64_t index, pos, term;
	uint16_t type;
	uint32_t back;
};
void	meta_log_header_encode(const struct meta_log_header *h,
	    uint8_t out[META_LOG_BLOCK]);
/* 0; ERR_CORRUPT; ERR_DISK_FOREIGN (no magic); ERR_DISK_NEWER. */
int	meta_log_header_decode(struct meta_log_header *h,
	    const uint8_t in[META_LOG_BLOCK]);
/* Writes 48 bytes and sets h->crc; @payload is only summed. */
void	meta_log_head_encode(struct meta_log_head *h, const void *payload,
	    uint8_t out[META_LOG_ENTRY]);
/* The fields alone; the caller checks them and the crc. */
void	meta_log_head_decode(struct meta_log_head *h,
	    const uint8_t in[META_LOG_ENTRY]);

#endif
