/* SPDX-License-Identifier: MIT */
/* log_read.c - entries in memory, how one entry follows another, and reading old entries
 * back from the disk.
 *
 * Memory is a ring of payloads and one of slots.  What is not durable is always in it:
 * that is at most two batches, and it holds four. */
#include "meta/log_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/crc32c.h"
#include "conf/err.h"

/* ---- in memory ---- */

int
log_mem_open(struct meta_log *l)
{
	l->mem_bytes = LOG_MEM_BATCHES * l->batch_max;
	l->mem = malloc(l->mem_bytes);
	l->slots = calloc(LOG_SLOTS, sizeof(*l->slots));
	return l->mem == NULL || l->slots == NULL ? -ENOMEM : 0;
}

void
log_mem_close(struct meta_log *l)
{
	free(l->mem);
	free(l->slots);
}

uint64_t
meta_log_slots(const struct meta_log *l)
{
	return LOG_SLOTS - 1 - (l->last_index - l->synced_index);
}

bool
log_mem_room(const struct meta_log *l)
{
	return meta_log_slots(l) > 0;
}

const struct log_slot *
log_mem_get(const struct meta_log *l, uint64_t index)
{
	return index < l->mem_first || index > l->last_index ? NULL :
	    &l->slots[index % LOG_SLOTS];
}

void
log_mem_add(struct meta_log *l, uint64_t pos, const struct meta_log_head *h,
    const void *payload)
{
	struct log_slot *s = &l->slots[h->index % LOG_SLOTS];
	uint64_t off = l->mem_off;

	if (off % l->mem_bytes + h->len > l->mem_bytes)
		off += l->mem_bytes - off % l->mem_bytes;
	*s = (struct log_slot){ .pos = pos, .term = h->term, .off = off,
		.len = h->len, .crc = h->crc, .type = h->type };
	if (h->len > 0)
		memcpy(l->mem + off % l->mem_bytes, payload, h->len);
	l->mem_off = off + h->len;
	if (h->index - l->mem_first >= LOG_SLOTS)
		l->mem_first = h->index - LOG_SLOTS + 1;
	while (l->mem_first < h->index && l->mem_off -
	    l->slots[l->mem_first % LOG_SLOTS].off > l->mem_bytes)
		l->mem_first++;
}

int
meta_log_get(const struct meta_log *l, uint64_t index, struct meta_log_entry *out)
{
	const struct log_slot *s = log_mem_get(l, index);

	if (index < l->hdr.first_index || index > l->last_index)
		return -ENOENT;
	if (s == NULL)
		return -EAGAIN;
	*out = (struct meta_log_entry){ .index = index, .term = s->term,
		.type = s->type, .len = s->len,
		.payload = l->mem + s->off % l->mem_bytes };
	return 0;
}

uint64_t
meta_log_bytes_after(const struct meta_log *l, uint64_t index)
{
	uint64_t end = l->tail_pos + l->gather->len;
	uint64_t from = l->hdr.first_pos;
	const struct log_slot *s;

	if (index >= l->last_index)
		return 0;
	if ((s = log_mem_get(l, index + 1)) != NULL)
		return end - s->pos;
	for (unsigned i = 0; i < l->mark_n; i++) {
		const struct log_mark *m =
		    &l->marks[(l->mark_at + i) % LOG_MARKS];

		if (m->index > index + 1)
			break;
		from = m->pos;
	}
	return end - from;
}

bool
meta_log_near(const struct meta_log *l, uint64_t index)
{
	return meta_log_bytes_after(l, index) <= l->mem_bytes / 2 &&
	    (index >= l->last_index || l->last_index - index <= LOG_SLOTS / 2);
}

uint64_t
meta_log_before(const struct meta_log *l, uint64_t bytes)
{
	uint64_t end = l->tail_pos + l->gather->len;
	uint64_t index = l->hdr.first_index - 1;

	for (unsigned i = 0; i < l->mark_n; i++) {
		const struct log_mark *m =
		    &l->marks[(l->mark_at + i) % LOG_MARKS];

		if (end - m->pos < bytes)
			break;
		if (m->index > l->hdr.first_index)
			index = m->index - 1;
	}
	return index;
}

/* ---- how entries follow each other ---- */

int
log_view_entry(const struct log_view *v, uint64_t pos, uint64_t end,
    struct meta_log_head *h, const uint8_t **payload)
{
	uint64_t view_end = v->pos + v->len;
	const uint8_t *p;

	if (pos + META_LOG_ENTRY > end)
		return 0;
	if (pos < v->pos || pos + META_LOG_ENTRY > view_end)
		return -1;
	p = v->p + (pos - v->pos);
	meta_log_head_decode(h, p);
	if (h->pos != pos || h->index == 0 || h->len > META_LOG_PAYLOAD_MAX ||
	    h->back >= h->index || pos + log_entry_bytes(h->len) > end)
		return 0;
	if (pos + log_entry_bytes(h->len) > view_end)
		return -1;
	*payload = p + META_LOG_ENTRY;
	return crc32c(crc32c(0, p + 4, META_LOG_ENTRY - 4), *payload, h->len) ==
	    h->crc;
}

/* 1 it follows; 0 it does not; -2 it would, but a run of which the header does not know
 * wrote it.  A run writes nothing before its header is durable: that one has been lost
 * since, and with it where this run's entries begin to count. */
static int
follows(const struct log_cursor *c, const struct meta_log_header *hdr,
    const struct meta_log_head *h)
{
	if (h->index != c->index + 1 || h->prev != c->crc)
		return 0;
	if (h->run > (uint32_t)hdr->run)
		return -2;
	return h->term >= c->term && h->run >= c->run &&
	    (h->index <= hdr->open_index || h->run == (uint32_t)hdr->run);
}

int
log_follow(const struct log_view *v, const struct log_cursor *c, uint64_t end,
    const struct meta_log_header *hdr, struct meta_log_head *h,
    const uint8_t **payload, uint64_t *at)
{
	struct meta_log_head next;
	const uint8_t *next_payload;
	int found, here, there = 0;

	if ((found = log_view_entry(v, c->pos, end, h, payload)) < 0)
		return found;
	here = found > 0 ? follows(c, hdr, h) : 0;
	*at = c->pos;
	if (here == -2 || c->pos % META_LOG_BLOCK == 0)
		return here;
	/* Another batch begins on the next block; entries may have been taken back
	 * before it was written. */
	if ((found = log_view_entry(v, log_up(c->pos), end, &next,
	    &next_payload)) < 0)
		return found;
	if (found > 0)
		there = follows(c, hdr, &next);
	if (there == -2)
		return there;
	if (there == 0 || (here > 0 && next.run <= h->run))
		return here;
	*h = next;
	*payload = next_payload;
	*at = log_up(c->pos);
	return there;
}

void
log_cursor_step(struct log_cursor *c, const struct meta_log_head *h, uint64_t at)
{
	*c = (struct log_cursor){ .index = h->index,
		.pos = at + log_entry_bytes(h->len), .term = h->term,
		.crc = h->crc, .run = h->run };
}

/* ---- reading back ---- */

struct meta_log_reader {
	struct meta_log	*l;		/* NULL: closed, and a request is in flight */
	struct list	 node;		/* in l->readers */
	uint8_t		*buf;		/* LOG_SLICE bytes */
	struct log_io	 io[2];
	unsigned	 io_wait;
	int		 io_rc;
	struct clock_defer defer;	/* a start that fails at once */
	meta_log_reader_fn *fn;		/* NULL: idle */
	void		*ctx;
	uint64_t	 want;		/* index that was asked for */
	uint64_t	 cuts;		/* of the log, when the cursor was set */
	struct log_cursor cursor;	/* behind the last entry that was given */
	struct log_view	 view;
};

int
meta_log_reader_open(struct meta_log_reader **out, struct meta_log *l)
{
	struct meta_log_reader *r = calloc(1, sizeof(*r));

	*out = NULL;
	if (r == NULL)
		return -ENOMEM;
	if ((r->buf = aligned_alloc(META_LOG_BLOCK, LOG_SLICE)) == NULL) {
		free(r);
		return -ENOMEM;
	}
	r->l = l;
	list_push_back(&l->readers, &r->node);
	*out = r;
	return 0;
}

static void
reader_free(struct meta_log_reader *r)
{
	free(r->buf);
	free(r);
}

void
meta_log_reader_close(struct meta_log_reader *r)
{
	if (r == NULL)
		return;
	clock_undefer(r->l->conf.clock, &r->defer);
	r->fn = NULL;
	if (r->io_wait > 0) {
		r->l = NULL;		/* freed when the disk is done with it, or */
		return;			/* with the log: it stays in its list */
	}
	list_remove(&r->node);
	reader_free(r);
}

/* The disk is closed: nobody touches their memory any more, but for a disk that was @left some. */
void
log_readers_close(struct meta_log *l, bool left)
{
	list_for_each_safe(it, tmp, &l->readers) {
		struct meta_log_reader *r = list_entry(it, struct meta_log_reader,
		    node);

		assert(r->l == NULL);	/* others are closed before the log */
		list_remove(&r->node);
		if (left)
			r->buf = NULL;
		reader_free(r);
	}
}

static void
answer(struct meta_log_reader *r, int rc)
{
	meta_log_reader_fn *fn = r->fn;

	r->fn = NULL;
	if (rc != 0)
		r->cursor.index = 0;		/* begins at a mark next time */
	fn(r->ctx, r, rc);
}

static void
failed(struct clock_defer *d)
{
	answer(container_of(d, struct meta_log_reader, defer), -ENOENT);
}

/* Durable, still there, and not taken back since the cursor was set. */
static bool
readable(const struct meta_log_reader *r)
{
	const struct meta_log *l = r->l;

	return r->want >= l->hdr.first_index && r->want <= l->synced_index &&
	    r->cuts == l->cuts;
}

static void look(struct meta_log_reader *r);

static void
read_done(struct disk_req *q)
{
	struct log_io *io = container_of(q, struct log_io, req);
	struct meta_log_reader *r = (void *)io->l;

	if (q->rc != 0 && r->io_rc == 0)
		r->io_rc = q->rc;
	if (--r->io_wait > 0)
		return;
	if (r->l == NULL) {
		list_remove(&r->node);
		reader_free(r);
	} else if (!readable(r))
		answer(r, -ENOENT);
	else if (r->io_rc != 0)
		answer(r, r->io_rc);
	else
		look(r);
}

static void
read_piece(struct meta_log_reader *r, uint64_t off, uint8_t *buf, size_t n)
{
	struct log_io *io = &r->io[r->io_wait++];

	io->l = (void *)r;
	io->iov = (struct iovec){ buf, n };
	io->req = (struct disk_req){ .op = DISK_READ, .off = off, .len = n,
		.iov = &io->iov, .iov_n = 1 };
	disk_start(r->l->disk, &io->req, read_done);
}

static void
read_view(struct meta_log_reader *r)
{
	const struct meta_log *l = r->l;
	uint64_t pos = log_down(r->cursor.pos), at = pos % l->hdr.ring_bytes;
	size_t n = LOG_SLICE;

	if (n > l->hdr.ring_bytes - at)
		n = (size_t)(l->hdr.ring_bytes - at);
	r->view = (struct log_view){ r->buf, pos, LOG_SLICE };
	r->io_rc = 0;
	read_piece(r, META_LOG_HEADERS + at, r->buf, n);
	if (n < LOG_SLICE)
		read_piece(r, META_LOG_HEADERS, r->buf + n, LOG_SLICE - n);
}

static int
reader_follow(struct meta_log_reader *r, struct meta_log_head *h,
    const uint8_t **payload, uint64_t *at)
{
	return log_follow(&r->view, &r->cursor, r->l->tail_pos, &r->l->hdr, h,
	    payload, at);
}

/* Go on to the entry that is wanted. */
static void
look(struct meta_log_reader *r)
{
	struct meta_log_head h;
	const uint8_t *payload;
	uint64_t at;
	int found;

	while ((found = reader_follow(r, &h, &payload, &at)) > 0 &&
	    h.index < r->want)
		log_cursor_step(&r->cursor, &h, at);
	if (found > 0)
		answer(r, 0);
	else if (found == -1 && r->view.pos != log_down(r->cursor.pos))
		read_view(r);
	else {
		log_error(r->l->conf.log, "log damaged",
		    "why=\"an entry cannot be read back\" index=%" PRIu64
		    " position=%" PRIu64, r->cursor.index + 1, r->cursor.pos);
		answer(r, ERR_LOG_DAMAGED);
	}
}

void
meta_log_reader_start(struct meta_log_reader *r, uint64_t index,
    meta_log_reader_fn *fn, void *ctx)
{
	struct meta_log *l = r->l;
	const struct log_mark *best = NULL;

	assert(r->fn == NULL && r->io_wait == 0);
	r->fn = fn;
	r->ctx = ctx;
	r->want = index;
	if (r->cursor.index + 1 != index || r->cuts != l->cuts) {
		r->cuts = l->cuts;
		for (unsigned i = 0; i < l->mark_n; i++) {
			const struct log_mark *m = log_mark_get(l, i);

			if (m->index > index)
				break;
			best = m;
		}
		if (best != NULL)
			r->cursor = (struct log_cursor){ .index = best->index - 1,
				.pos = best->pos, .term = best->term,
				.crc = best->prev };
	}
	if (!readable(r) || r->cursor.index >= index || (best == NULL &&
	    r->cursor.index + 1 != index)) {
		clock_defer(l->conf.clock, &r->defer, failed);
		return;
	}
	read_view(r);
}

bool
meta_log_reader_busy(const struct meta_log_reader *r)
{
	return r->fn != NULL;
}

bool
meta_log_reader_next(struct meta_log_reader *r, struct meta_log_entry *out)
{
	struct meta_log_head h;
	const uint8_t *payload = NULL;
	uint64_t at;

	if (r->cuts != r->l->cuts || r->cursor.index >= r->l->synced_index ||
	    reader_follow(r, &h, &payload, &at) <= 0)
		return false;
	log_cursor_step(&r->cursor, &h, at);
	*out = (struct meta_log_entry){ .index = h.index, .term = h.term,
		.type = h.type, .len = h.len, .payload = payload };
	return true;
}
