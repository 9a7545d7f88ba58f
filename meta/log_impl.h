/* SPDX-License-Identifier: MIT */
/* log_impl.h - what the files of the log share: log.c (cycles, appends), log_open.c
 * (headers, scan), log_read.c (entries in memory, reading back). */
#ifndef META_LOG_IMPL_H
#define META_LOG_IMPL_H

#include "meta/log.h"

#define LOG_BATCH_MAX	(2u << 20)	/* bytes of one batch, at most */
#define LOG_BATCH_MIN	(128u << 10)	/* holds the longest entry and then some */
#define LOG_SLICE	(256u << 10)	/* bytes read in one go */
#define LOG_MARKS	1040u		/* ring_bytes / gap, and a few */
#define LOG_IOS		3u		/* header and a batch that wraps */
/* In memory: twice what may be gathering and in flight (two batches). */
#define LOG_MEM_BATCHES	4u
#define LOG_SLOTS	32768u		/* entries in memory, at most */

enum log_state { LOG_SYNC0, LOG_HEADERS, LOG_FORMAT, LOG_FORMAT_SYNC, LOG_SCAN,
	LOG_AFTER, LOG_CLAIM, LOG_CLAIM_SYNC, LOG_IDLE, LOG_WRITE, LOG_SYNC,
	LOG_BROKEN };

/* A place in the log where reading can begin: entry @index is at @pos or, where @pos is
 * inside a block, maybe on the next block; before it was one of @term and crc @prev. */
struct log_mark {
	uint64_t index, pos, term;
	uint32_t prev;
};

struct log_batch {
	uint8_t *buf;
	uint64_t pos;			/* of its first byte; block-aligned */
	uint64_t first, last;		/* indexes; last < first: none that count */
	size_t	 len;			/* 0: empty */
};

struct log_io {
	struct disk_req	 req;
	struct iovec	 iov;
	struct meta_log	*l;
};

/* An entry in memory. */
struct log_slot {
	uint64_t pos, term;		/* in the log */
	uint64_t off;			/* payload: mem[off % mem_bytes] */
	uint32_t len, crc;
	uint16_t type;
};

/* Log positions pos .. + len. */
struct log_view {
	const uint8_t *p;
	uint64_t pos;
	size_t	 len;
};

/* Where a walk along the log stands: behind an entry of @index. */
struct log_cursor {
	uint64_t index, pos, term;
	uint32_t crc, run;
};

struct meta_log {
	struct meta_log_conf conf;
	struct disk	*disk;
	enum log_state	 state;
	int		 rc;		/* what broke it */
	struct clock_defer defer;	/* begin a cycle */
	bool		*closed;	/* set when closed inside a callback */

	struct log_io	 io[LOG_IOS];
	unsigned	 io_wait;
	int		 io_rc;

	struct meta_log_header hdr;	/* newest, written or about to be */
	uint8_t		*hdr_buf;	/* two blocks */
	bool		 hdr_dirty;	/* hdr must be rewritten */
	bool		 hdr_out;	/* it is in the cycle in flight */
	uint64_t	 hdr_out_pos;	/* first_pos as it says there */
	uint64_t	 ticket;	/* last given */
	uint64_t	 hdr_ticket;	/* that the header in flight, or the last, covers */
	uint64_t	 one_ticket;	/* in one header */
	uint64_t	 saved_ticket;	/* in both headers */
	uint64_t	 cut_ticket;	/* no batch goes out before that is saved */

	size_t		 batch_max;
	struct log_batch batch[3];	/* gather, in flight, being told */
	struct log_batch *gather, *flight, *told;

	uint64_t	 head_pos;	/* space before it is free (invariant 3) */
	uint64_t	 tail_pos;	/* where the gathering batch begins */
	uint64_t	 last_index;	/* appended */
	uint64_t	 last_term;
	uint32_t	 last_crc, last_run;
	uint64_t	 synced_index;

	struct log_mark	 marks[LOG_MARKS]; /* at and after hdr.first, sparse */
	unsigned	 mark_at, mark_n;
	uint64_t	 mark_gap;

	struct log_slot	*slots;		/* entry i: slots[i % LOG_SLOTS] */
	uint8_t		*mem;
	size_t		 mem_bytes;
	uint64_t	 mem_off;	/* where the next payload goes */
	uint64_t	 mem_first;	/* entries mem_first .. last_index are there */
	uint64_t	 cuts;		/* +1 whenever entries were taken back */
	struct list	 readers;

	/* scan */
	struct log_cursor scan;
	struct log_view	 view;		/* of win */
	uint64_t	 after_pos, after_end;
	uint8_t		*win;		/* LOG_SLICE bytes; while opening */
};

static inline uint64_t
log_down(uint64_t n)
{
	return n & ~(uint64_t)(META_LOG_BLOCK - 1);
}

static inline uint64_t
log_up(uint64_t n)
{
	return log_down(n + META_LOG_BLOCK - 1);
}

static inline size_t
log_entry_bytes(size_t len)
{
	return (META_LOG_ENTRY + len + 7) & ~(size_t)7;
}

static inline struct log_mark *
log_mark_get(struct meta_log *l, unsigned i)
{
	return &l->marks[(l->mark_at + i) % LOG_MARKS];
}

/* log.c */
void	log_io_start(struct meta_log *l, enum disk_op op, uint64_t off, void *buf,
	    size_t len);
void	log_io_ring(struct meta_log *l, enum disk_op op, uint64_t pos, uint8_t *buf,
	    size_t len);
void	log_write_header(struct meta_log *l);
void	log_mark_maybe(struct meta_log *l, uint64_t pos);

/* log_open.c: the states before LOG_IDLE */
void	log_open_step(struct meta_log *l);
void	log_open_finish(struct meta_log *l, int rc);

/* log_read.c */
int	log_mem_open(struct meta_log *l);
void	log_mem_close(struct meta_log *l);
void	log_readers_close(struct meta_log *l, bool left);	/* after the disk */
/* Is there room for one more entry of this run of the program? */
bool	log_mem_room(const struct meta_log *l);
/* Entry l->last_index, just counted. */
void	log_mem_add(struct meta_log *l, uint64_t pos, const struct meta_log_head *h,
	    const void *payload);
const struct log_slot *log_mem_get(const struct meta_log *l, uint64_t index);
/* What an entry at @pos is: 1 whole and in view, 0 not an entry, -1 the view must move
 * first.  Only what stands in the entry itself is checked. */
int	log_view_entry(const struct log_view *v, uint64_t pos, uint64_t end,
	    struct meta_log_head *h, const uint8_t **payload);
/* The entry after @c: 1 and *at where it is; 0 none; -1 the view must move to c->pos
 * first; -2 it is of a run newer than the header. */
int	log_follow(const struct log_view *v, const struct log_cursor *c, uint64_t end,
	    const struct meta_log_header *hdr, struct meta_log_head *h,
	    const uint8_t **payload, uint64_t *at);
void	log_cursor_step(struct log_cursor *c, const struct meta_log_head *h,
	    uint64_t at);

#endif
