/* SPDX-License-Identifier: MIT */
/* log.c - a ring of chained entries with group commit.
 *
 *   SYNC0 -> HEADERS -> [FORMAT -> FORMAT_SYNC] -> SCAN -> AFTER
 *         -> CLAIM -> CLAIM_SYNC -> IDLE <-> WRITE -> SYNC -> IDLE
 *                    any failure -> BROKEN
 *
 * SYNC0: what a killed process wrote may be readable and not yet durable; it is made
 *        durable before it is believed.
 * AFTER: entries that prove the gap was once acknowledged are looked for behind it.
 * CLAIM: the header with the new run; older leftovers behind the end stop counting.
 *
 * Invariants:
 *   1  ops->entry() is only called for entries whose sync has ended.
 *   2  A write touches no block that holds an entry from a batch before it.
 *   3  Space is reused only after a header that no longer needs it is durable.
 *   4  At most one batch is on its way to the disk, so entries of one batch are all
 *      that a crash can tear; anything torn before a later batch is damage. */
#include "meta/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/crc32c.h"
#include "conf/err.h"
#include "conf/stat.h"

#define BATCH_MAX	(2u << 20)	/* bytes of one batch, at most */
#define BATCH_MIN	(128u << 10)	/* holds the longest entry and then some */
#define SLICE		(256u << 10)	/* bytes scanned in one turn */
#define MARKS		1040u		/* ring_bytes / gap, and a few */
#define IOS		3u		/* header and a batch that wraps */

_Static_assert(BATCH_MIN >= 2 * META_LOG_BLOCK + META_LOG_ENTRY +
    META_LOG_PAYLOAD_MAX, "a batch holds the longest entry");
_Static_assert(SLICE >= 2 * META_LOG_BLOCK + META_LOG_ENTRY +
    META_LOG_PAYLOAD_MAX, "a slice holds the longest entry");

enum state { SYNC0, HEADERS, FORMAT, FORMAT_SYNC, SCAN, AFTER, CLAIM, CLAIM_SYNC,
	IDLE, WRITE, SYNC, BROKEN };

/* A place in the log where reading can begin. */
struct mark {
	uint64_t index, pos, term;
	uint32_t prev;
};

struct batch {
	uint8_t *buf;
	uint64_t pos;			/* of its first byte; block-aligned */
	uint64_t first, last;		/* indexes */
	size_t	 len;			/* 0: empty */
};

struct io {
	struct disk_req	 req;
	struct iovec	 iov;
	struct meta_log	*l;
};

struct meta_log {
	struct meta_log_conf conf;
	struct disk	*disk;
	enum state	 state;
	int		 rc;		/* what broke it */
	struct clock_defer defer;	/* begin a cycle */
	bool		*closed;	/* set when closed inside a callback */

	struct io	 io[IOS];
	unsigned	 io_wait;
	int		 io_rc;

	struct meta_log_header hdr;	/* newest, written or about to be */
	uint8_t		*hdr_buf;	/* two blocks */
	bool		 hdr_dirty;	/* hdr must be rewritten */
	bool		 hdr_out;	/* it is in the cycle in flight */
	uint64_t	 hdr_out_pos;	/* first_pos as it says there */

	size_t		 batch_max;
	struct batch	 batch[3];	/* gather, in flight, being told */
	struct batch	*gather, *flight, *told;

	uint64_t	 head_pos;	/* space before it is free (invariant 3) */
	uint64_t	 tail_pos;	/* where the gathering batch begins */
	uint64_t	 last_index;	/* appended */
	uint64_t	 last_term;
	uint32_t	 last_crc, last_run;
	uint64_t	 synced_index;

	struct mark	 marks[MARKS];	/* at and after hdr.first, sparse */
	unsigned	 mark_at, mark_n;
	uint64_t	 mark_gap;

	/* scan: the window holds log positions win_pos .. + win_len */
	uint64_t	 scan_pos, win_pos;
	size_t		 win_len;
	uint64_t	 after_pos, after_end;
	uint8_t		*win;		/* SLICE bytes; while opening */
};

static void step(struct meta_log *l);

static uint64_t
down(uint64_t n)
{
	return n & ~(uint64_t)(META_LOG_BLOCK - 1);
}

static uint64_t
up(uint64_t n)
{
	return down(n + META_LOG_BLOCK - 1);
}

static size_t
entry_bytes(size_t len)
{
	return (META_LOG_ENTRY + len + 7) & ~(size_t)7;
}

static bool
all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* ---- I/O: up to three requests, then step() ---- */

static void
io_done(struct disk_req *r)
{
	struct meta_log *l = container_of(r, struct io, req)->l;

	assert(l->io_wait > 0);
	if (r->rc != 0 && l->io_rc == 0)
		l->io_rc = r->rc;
	if (--l->io_wait == 0)
		step(l);
}

/* All requests of one step are begun in one go, and none ends before that: disk
 * callbacks never run inside disk_start(). */
static void
io_start(struct meta_log *l, enum disk_op op, uint64_t off, void *buf, size_t len)
{
	struct io *io = &l->io[l->io_wait];

	assert(l->io_wait < IOS);
	if (l->io_wait++ == 0)
		l->io_rc = 0;
	io->l = l;
	io->iov = (struct iovec){ .iov_base = buf, .iov_len = len };
	io->req = (struct disk_req){ .op = op, .off = off, .len = len,
		.iov = buf == NULL ? NULL : &io->iov, .iov_n = buf != NULL };
	disk_start(l->disk, &io->req, io_done);
}

/* Log positions @pos .. + @len, which may go around the end of the ring. */
static void
io_ring(struct meta_log *l, enum disk_op op, uint64_t pos, uint8_t *buf, size_t len)
{
	uint64_t at = pos % l->hdr.ring_bytes;
	size_t n = len;

	assert(pos % META_LOG_BLOCK == 0 && len % META_LOG_BLOCK == 0);
	if (n > l->hdr.ring_bytes - at)
		n = (size_t)(l->hdr.ring_bytes - at);
	io_start(l, op, META_LOG_HEADERS + at, buf, n);
	if (n < len)
		io_start(l, op, META_LOG_HEADERS, buf + n, len - n);
}

static void
write_header(struct meta_log *l)
{
	l->hdr.seq++;
	l->hdr.synced_index = l->synced_index;
	meta_log_header_encode(&l->hdr, l->hdr_buf);
	io_start(l, DISK_WRITE, (l->hdr.seq & 1) ? 0 : META_LOG_BLOCK, l->hdr_buf,
	    META_LOG_BLOCK);
}

/* ---- marks ---- */

static struct mark *
mark_get(struct meta_log *l, unsigned i)
{
	return &l->marks[(l->mark_at + i) % MARKS];
}

/* The entry that is about to be counted is at @pos. */
static void
mark_maybe(struct meta_log *l, uint64_t pos)
{
	if (l->mark_n == MARKS || (l->mark_n > 0 &&
	    pos - mark_get(l, l->mark_n - 1)->pos < l->mark_gap))
		return;
	*mark_get(l, l->mark_n++) = (struct mark){ .index = l->last_index + 1,
		.pos = pos, .term = l->last_term, .prev = l->last_crc };
}

/* ---- open ---- */

static void
finish_open(struct meta_log *l, int rc)
{
	l->state = rc == 0 ? IDLE : BROKEN;
	l->rc = rc;
	l->conf.ops->ready(l->conf.ctx, rc);
}

static void
damaged(struct meta_log *l, const char *why)
{
	log_error(l->conf.log, "log damaged",
	    "why=\"%s\" index=%" PRIu64 " synced=%" PRIu64 " opened=%" PRIu64
	    " position=%" PRIu64, why, l->last_index + 1, l->hdr.synced_index,
	    l->hdr.open_index, l->scan_pos);
	finish_open(l, ERR_LOG_DAMAGED);
}

static void
window_start(struct meta_log *l, uint64_t pos, uint64_t end)
{
	l->win_pos = down(pos);
	l->win_len = up(end) - l->win_pos > SLICE ? SLICE :
	    (size_t)(up(end) - l->win_pos);
	io_ring(l, DISK_READ, l->win_pos, l->win, l->win_len);
}

static void scan_begin(struct meta_log *l);

/* Both headers are in hdr_buf. */
static void
headers_read(struct meta_log *l)
{
	struct meta_log_header h[2];
	int rc[2];
	int best;

	for (unsigned i = 0; i < 2; i++)
		rc[i] = meta_log_header_decode(&h[i],
		    l->hdr_buf + i * META_LOG_BLOCK);
	if (rc[0] == ERR_DISK_NEWER || rc[1] == ERR_DISK_NEWER) {
		finish_open(l, ERR_DISK_NEWER);
		return;
	}
	if (rc[0] != 0 && rc[1] != 0) {
		if (!all_zero(l->hdr_buf + META_LOG_BLOCK, META_LOG_BLOCK)) {
			finish_open(l, rc[0] == ERR_DISK_FOREIGN &&
			    rc[1] == ERR_DISK_FOREIGN ? ERR_DISK_FOREIGN :
			    ERR_LOG_DAMAGED);
			return;
		}
		l->hdr = (struct meta_log_header){ .first_index = 1,
			.ring_bytes = down(l->disk->size) - META_LOG_HEADERS };
		l->state = FORMAT;
		write_header(l);
		return;
	}
	best = rc[0] != 0 || (rc[1] == 0 && h[1].seq > h[0].seq);
	l->hdr = h[best];
	if (l->hdr.ring_bytes > l->disk->size - META_LOG_HEADERS ||
	    l->hdr.ring_bytes < META_LOG_BYTES_MIN - META_LOG_HEADERS) {
		finish_open(l, ERR_LOG_DAMAGED);
		return;
	}
	scan_begin(l);
}

static void
scan_begin(struct meta_log *l)
{
	l->state = SCAN;
	l->batch_max = (size_t)down(l->hdr.ring_bytes / 8);
	if (l->batch_max > BATCH_MAX)
		l->batch_max = BATCH_MAX;
	if (l->batch_max < BATCH_MIN)
		l->batch_max = BATCH_MIN;
	l->mark_gap = l->hdr.ring_bytes / 1024;
	if (l->mark_gap < META_LOG_BLOCK)
		l->mark_gap = META_LOG_BLOCK;
	for (unsigned i = 0; i < 3; i++) {
		l->batch[i].buf = aligned_alloc(META_LOG_BLOCK, l->batch_max);
		if (l->batch[i].buf == NULL) {
			finish_open(l, -ENOMEM);
			return;
		}
	}
	l->head_pos = l->scan_pos = l->hdr.first_pos;
	l->last_index = l->hdr.first_index - 1;
	l->last_term = l->hdr.first_term;
	l->last_crc = l->hdr.first_prev;
	window_start(l, l->scan_pos, down(l->head_pos) + l->hdr.ring_bytes);
}

/* What an entry at @pos is: 1 whole and in the window, 0 not an entry, -1 the window
 * must move first.  Only what stands in the entry itself is checked. */
static int
entry_at(struct meta_log *l, uint64_t pos, uint64_t end, struct meta_log_head *h,
    const uint8_t **payload)
{
	uint64_t win_end = l->win_pos + l->win_len;
	const uint8_t *p;

	if (pos + META_LOG_ENTRY > end)
		return 0;
	if (pos < l->win_pos || pos + META_LOG_ENTRY > win_end)
		return -1;
	p = l->win + (pos - l->win_pos);
	meta_log_head_decode(h, p);
	if (h->pos != pos || h->index == 0 || h->len > META_LOG_PAYLOAD_MAX ||
	    h->back >= h->index || pos + entry_bytes(h->len) > end)
		return 0;
	if (pos + entry_bytes(h->len) > win_end)
		return -1;
	*payload = p + META_LOG_ENTRY;
	return crc32c(crc32c(0, p + 4, META_LOG_ENTRY - 4), *payload, h->len) ==
	    h->crc;
}

static bool
entry_follows(const struct meta_log *l, const struct meta_log_head *h)
{
	return h->index == l->last_index + 1 && h->prev == l->last_crc &&
	    h->term >= l->last_term && h->run >= l->last_run &&
	    (h->index <= l->hdr.open_index ? h->run <= (uint32_t)l->hdr.run :
	    h->run == (uint32_t)l->hdr.run);
}

/* The next entry is of a run that our header does not know.  A run writes nothing before
 * its header is durable: that one has been lost since, and with it where this run's
 * entries begin to count. */
static bool
is_of_newer_run(const struct meta_log *l, const struct meta_log_head *h)
{
	return h->index == l->last_index + 1 && h->prev == l->last_crc &&
	    h->run > (uint32_t)l->hdr.run;
}

/* The log ends at scan_pos. */
static void
claim(struct meta_log *l)
{
	if (l->last_index < l->hdr.synced_index) {
		damaged(l, "ends before what was synced");
		return;
	}
	l->tail_pos = up(l->scan_pos);
	l->synced_index = l->last_index;
	l->hdr.run++;
	l->hdr.open_index = l->last_index;
	l->last_run = (uint32_t)l->hdr.run;
	l->state = CLAIM;
	write_header(l);
}

/* Look for the first entry of a batch that was only written after the missing entry was
 * durable.  The torn batch is no longer than batch_max, so the proof is near. */
static void
after(struct meta_log *l)
{
	const uint8_t *payload;
	struct meta_log_head h;

	for (; l->after_pos < l->after_end; l->after_pos += META_LOG_BLOCK) {
		int found = entry_at(l, l->after_pos, l->after_end, &h, &payload);

		if (found < 0) {
			window_start(l, l->after_pos, l->after_end);
			return;
		}
		if (found > 0 && h.run == (uint32_t)l->hdr.run &&
		    h.index - h.back > l->last_index + 1) {
			damaged(l, "an acknowledged entry is missing");
			return;
		}
	}
	claim(l);
}

static void
scan(struct meta_log *l)
{
	uint64_t end = down(l->head_pos) + l->hdr.ring_bytes;
	struct meta_log_head h;
	const uint8_t *payload;
	bool closed = false;

	for (;;) {
		int found = entry_at(l, l->scan_pos, end, &h, &payload);

		if (found < 0) {
			window_start(l, l->scan_pos, end);
			return;
		}
		if (found > 0 && is_of_newer_run(l, &h)) {
			damaged(l, "the newer header cannot be read");
			return;
		}
		if (found == 0 || !entry_follows(l, &h)) {
			if (l->scan_pos % META_LOG_BLOCK == 0)
				break;
			l->scan_pos = up(l->scan_pos);
			continue;
		}
		mark_maybe(l, l->scan_pos);
		l->scan_pos += entry_bytes(h.len);
		l->last_index = h.index;
		l->last_term = h.term;
		l->last_crc = h.crc;
		l->last_run = h.run;
		l->closed = &closed;
		l->conf.ops->entry(l->conf.ctx, &(struct meta_log_entry){
			.index = h.index, .term = h.term, .type = h.type,
			.len = h.len, .payload = payload });
		if (closed)
			return;
		l->closed = NULL;
	}
	l->after_pos = l->scan_pos;
	l->after_end = l->scan_pos + 2 * l->batch_max;
	if (l->after_end > end)
		l->after_end = end;
	l->state = AFTER;
	after(l);
}

/* The header with our run is durable: serve. */
static void
claimed(struct meta_log *l)
{
	free(l->win);
	l->win = NULL;
	finish_open(l, 0);
}

/* ---- cycles: header and batch, then one sync ---- */

static void
begin(struct meta_log *l)
{
	struct batch *b = l->gather;

	assert(l->state == IDLE && l->flight == NULL);
	if (b->len == 0 && !l->hdr_dirty)
		return;
	l->state = WRITE;
	if (l->hdr_dirty) {
		l->hdr_dirty = false;
		l->hdr_out = true;
		l->hdr_out_pos = l->hdr.first_pos;
		write_header(l);
	}
	if (b->len > 0) {
		size_t n = (size_t)up(b->len);

		memset(b->buf + b->len, 0, n - b->len);
		io_ring(l, DISK_WRITE, b->pos, b->buf, n);
		l->tail_pos = b->pos + n;
		l->flight = b;
		for (unsigned i = 0; i < 3; i++)
			if (&l->batch[i] != b && &l->batch[i] != l->told)
				l->gather = &l->batch[i];
		l->gather->len = 0;
	}
}

static void
deferred(struct clock_defer *d)
{
	struct meta_log *l = container_of(d, struct meta_log, defer);

	if (l->state == IDLE)
		begin(l);
}

/* Begin a cycle after this turn, so that what the turn appends goes together. */
static void
poke(struct meta_log *l)
{
	if (l->state == IDLE)
		clock_defer(l->conf.clock, &l->defer, deferred);
}

/* Hand out the entries of the batch whose sync has ended, while the next one is on its
 * way to the disk. */
static void
tell(struct meta_log *l)
{
	struct batch *b = l->told;
	bool closed = false;

	l->closed = &closed;
	for (size_t at = 0; at < b->len;) {
		struct meta_log_head h;

		meta_log_head_decode(&h, b->buf + at);
		at += entry_bytes(h.len);
		l->conf.ops->entry(l->conf.ctx, &(struct meta_log_entry){
			.index = h.index, .term = h.term, .type = h.type,
			.len = h.len, .payload = b->buf + at -
			entry_bytes(h.len) + META_LOG_ENTRY });
		if (closed)
			return;
	}
	l->closed = NULL;
	l->told = NULL;
}

static void
cycle_ended(struct meta_log *l)
{
	if (l->hdr_out) {
		l->hdr_out = false;
		l->head_pos = l->hdr_out_pos;
	}
	l->state = IDLE;
	if ((l->told = l->flight) != NULL) {
		l->synced_index = l->told->last;
		if (l->conf.batches != NULL)
			stat_add(l->conf.batches, 1);
	}
	l->flight = NULL;
	begin(l);
	if (l->told != NULL)
		tell(l);
}

static void
cycle_broke(struct meta_log *l)
{
	l->state = BROKEN;
	l->rc = l->io_rc;
	log_error(l->conf.log, "log write failed", "error=%s last=%" PRIu64,
	    err_name(l->rc), l->synced_index);
	l->conf.ops->broken(l->conf.ctx, l->rc);
}

/* Everything l->state waited for has ended, well or badly. */
static void
step(struct meta_log *l)
{
	if (l->io_rc != 0) {
		if (l->state < IDLE)
			finish_open(l, l->io_rc);
		else
			cycle_broke(l);
		return;
	}
	switch (l->state) {
	case SYNC0:
		l->state = HEADERS;
		io_start(l, DISK_READ, 0, l->hdr_buf, META_LOG_HEADERS);
		break;
	case HEADERS:
		headers_read(l);
		break;
	case FORMAT:
		l->state = FORMAT_SYNC;
		io_start(l, DISK_SYNC, 0, NULL, 0);
		break;
	case FORMAT_SYNC:
		scan_begin(l);
		break;
	case SCAN:
		scan(l);
		break;
	case AFTER:
		after(l);
		break;
	case CLAIM:
		l->state = CLAIM_SYNC;
		io_start(l, DISK_SYNC, 0, NULL, 0);
		break;
	case CLAIM_SYNC:
		claimed(l);
		break;
	case WRITE:
		l->state = SYNC;
		io_start(l, DISK_SYNC, 0, NULL, 0);
		break;
	case SYNC:
		cycle_ended(l);
		break;
	case IDLE:
	case BROKEN:
		assert(false);
	}
}

/* ---- what the owner calls ---- */

int
meta_log_open(struct meta_log **out, const struct meta_log_conf *conf)
{
	struct meta_log *l;
	int rc;

	*out = NULL;
	if (conf->bytes < META_LOG_BYTES_MIN)
		return -EINVAL;
	if ((l = calloc(1, sizeof(*l))) == NULL)
		return -ENOMEM;
	l->conf = *conf;
	l->gather = &l->batch[0];
	l->hdr_buf = aligned_alloc(META_LOG_BLOCK, META_LOG_HEADERS);
	l->win = aligned_alloc(META_LOG_BLOCK, SLICE);
	if (l->hdr_buf == NULL || l->win == NULL) {
		rc = -ENOMEM;
		goto fail;
	}
	rc = conf->dir->ops->open(conf->dir, conf->name, false, 0, &l->disk);
	if (rc == -ENOENT)
		rc = conf->dir->ops->open(conf->dir, conf->name, true,
		    down(conf->bytes), &l->disk);
	if (rc != 0)
		goto fail;
	if (l->disk->size < META_LOG_BYTES_MIN) {
		rc = ERR_DISK_FOREIGN;
		goto fail;
	}
	l->state = SYNC0;
	io_start(l, DISK_SYNC, 0, NULL, 0);
	*out = l;
	return 0;
fail:
	meta_log_close(l);
	return rc;
}

void
meta_log_close(struct meta_log *l)
{
	if (l == NULL)
		return;
	if (l->closed != NULL)
		*l->closed = true;
	disk_close(l->disk);
	clock_undefer(l->conf.clock, &l->defer);
	for (unsigned i = 0; i < 3; i++)
		free(l->batch[i].buf);
	free(l->win);
	free(l->hdr_buf);
	free(l);
}

int
meta_log_append(struct meta_log *l, uint64_t term, uint16_t type,
    const void *payload, size_t len, uint64_t *index)
{
	struct batch *b = l->gather;
	struct meta_log_head h;
	uint64_t pos;

	if (l->state == BROKEN)
		return l->rc;
	assert(l->state >= IDLE && term >= l->last_term);
	if (len > META_LOG_PAYLOAD_MAX)
		return -EMSGSIZE;
	pos = b->len == 0 ? l->tail_pos : b->pos + b->len;
	if (b->len + entry_bytes(len) > l->batch_max ||
	    up(pos + entry_bytes(len)) > down(l->head_pos) + l->hdr.ring_bytes)
		return ERR_BUSY;
	if (b->len == 0) {
		b->pos = pos;
		b->first = l->last_index + 1;
	}
	mark_maybe(l, pos);
	h = (struct meta_log_head){ .prev = l->last_crc, .len = (uint32_t)len,
		.run = l->last_run, .index = l->last_index + 1, .pos = pos,
		.term = term, .type = type,
		.back = (uint32_t)(l->last_index + 1 - b->first) };
	meta_log_head_encode(&h, payload, b->buf + b->len);
	if (len > 0)
		memcpy(b->buf + b->len + META_LOG_ENTRY, payload, len);
	memset(b->buf + b->len + META_LOG_ENTRY + len, 0,
	    entry_bytes(len) - META_LOG_ENTRY - len);
	b->len += entry_bytes(len);
	b->last = *index = h.index;
	l->last_index = h.index;
	l->last_term = term;
	l->last_crc = h.crc;
	poke(l);
	return 0;
}

void
meta_log_truncate(struct meta_log *l, uint64_t index)
{
	struct mark m;

	if (l->state == BROKEN)
		return;
	assert(l->state >= IDLE && index <= l->synced_index);
	if (index == l->last_index) {
		m = (struct mark){ .index = index + 1, .pos = l->tail_pos,
			.term = l->last_term, .prev = l->last_crc };
		l->mark_n = 0;
	} else {
		while (l->mark_n > 1 && mark_get(l, 1)->index <= index + 1) {
			l->mark_at = (l->mark_at + 1) % MARKS;
			l->mark_n--;
		}
		if (l->mark_n == 0)
			return;
		m = *mark_get(l, 0);
	}
	if (m.index > index + 1 || m.index <= l->hdr.first_index)
		return;
	l->hdr.first_index = m.index;
	l->hdr.first_pos = m.pos;
	l->hdr.first_term = m.term;
	l->hdr.first_prev = m.prev;
	l->hdr_dirty = true;
	poke(l);
}

uint64_t
meta_log_run(const struct meta_log *l)
{
	return l->hdr.run;
}

uint64_t
meta_log_last(const struct meta_log *l)
{
	return l->synced_index;
}

uint64_t
meta_log_first(const struct meta_log *l)
{
	return l->hdr.first_index;
}

uint64_t
meta_log_used_bytes(const struct meta_log *l)
{
	return l->tail_pos + l->gather->len - down(l->hdr.first_pos);
}

uint64_t
meta_log_ring_bytes(const struct meta_log *l)
{
	return l->hdr.ring_bytes;
}
