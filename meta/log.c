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
 *      that a crash can tear; anything torn before a later batch is damage.
 *   5  While a cut is not durable in both headers (cut_ticket), no batch goes out. */
#include "meta/log_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "conf/stat.h"

_Static_assert(LOG_BATCH_MIN >= 2 * META_LOG_BLOCK + META_LOG_ENTRY +
    META_LOG_PAYLOAD_MAX, "a batch holds the longest entry");
_Static_assert(LOG_SLICE >= 3 * META_LOG_BLOCK + META_LOG_ENTRY +
    META_LOG_PAYLOAD_MAX, "a slice holds the longest entry, on the next block too");

static void step(struct meta_log *l);

/* ---- I/O: up to three requests, then step() ---- */

static void
io_done(struct disk_req *r)
{
	struct meta_log *l = container_of(r, struct log_io, req)->l;

	assert(l->io_wait > 0);
	if (r->rc != 0 && l->io_rc == 0)
		l->io_rc = r->rc;
	if (--l->io_wait == 0)
		step(l);
}

/* All requests of one step are begun in one go, and none ends before that: disk
 * callbacks never run inside disk_start(). */
void
log_io_start(struct meta_log *l, enum disk_op op, uint64_t off, void *buf, size_t len)
{
	struct log_io *io = &l->io[l->io_wait];

	assert(l->io_wait < LOG_IOS);
	if (l->io_wait++ == 0)
		l->io_rc = 0;
	io->l = l;
	io->iov = (struct iovec){ .iov_base = buf, .iov_len = len };
	io->req = (struct disk_req){ .op = op, .off = off, .len = len,
		.iov = buf == NULL ? NULL : &io->iov, .iov_n = buf != NULL };
	disk_start(l->disk, &io->req, io_done);
}

/* Log positions @pos .. + @len, which may go around the end of the ring. */
void
log_io_ring(struct meta_log *l, enum disk_op op, uint64_t pos, uint8_t *buf, size_t len)
{
	uint64_t at = pos % l->hdr.ring_bytes;
	size_t n = len;

	assert(pos % META_LOG_BLOCK == 0 && len % META_LOG_BLOCK == 0);
	if (n > l->hdr.ring_bytes - at)
		n = (size_t)(l->hdr.ring_bytes - at);
	log_io_start(l, op, META_LOG_HEADERS + at, buf, n);
	if (n < len)
		log_io_start(l, op, META_LOG_HEADERS, buf + n, len - n);
}

void
log_write_header(struct meta_log *l)
{
	l->hdr.seq++;
	l->hdr.synced_index = l->synced_index;
	meta_log_header_encode(&l->hdr, l->hdr_buf);
	log_io_start(l, DISK_WRITE, (l->hdr.seq & 1) ? 0 : META_LOG_BLOCK,
	    l->hdr_buf, META_LOG_BLOCK);
}

/* The entry that is about to be counted is at @pos. */
void
log_mark_maybe(struct meta_log *l, uint64_t pos)
{
	if (l->mark_n == LOG_MARKS || (l->mark_n > 0 &&
	    pos - log_mark_get(l, l->mark_n - 1)->pos < l->mark_gap))
		return;
	*log_mark_get(l, l->mark_n++) = (struct log_mark){
		.index = l->last_index + 1, .pos = pos, .term = l->last_term,
		.prev = l->last_crc };
}

/* ---- cycles: header and batch, then one sync ---- */

static void
begin(struct meta_log *l)
{
	struct log_batch *b = l->gather;
	bool cut = l->saved_ticket < l->cut_ticket;	/* invariant 5 */

	assert(l->state == LOG_IDLE && l->flight == NULL);
	if ((b->len == 0 || cut) && !l->hdr_dirty)
		return;
	l->state = LOG_WRITE;
	if (l->hdr_dirty) {
		l->hdr_dirty = false;
		l->hdr_out = true;
		l->hdr_out_pos = l->hdr.first_pos;
		l->hdr_ticket = l->ticket;
		log_write_header(l);
	}
	if (b->len > 0 && !cut) {
		size_t n = (size_t)log_up(b->len);

		memset(b->buf + b->len, 0, n - b->len);
		log_io_ring(l, DISK_WRITE, b->pos, b->buf, n);
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

	if (l->state == LOG_IDLE)
		begin(l);
}

/* Begin a cycle after this turn, so that what the turn appends goes together. */
static void
poke(struct meta_log *l)
{
	if (l->state == LOG_IDLE)
		clock_defer(l->conf.clock, &l->defer, deferred);
}

/* Hand out the entries of the batch whose sync has ended, while the next one is on its
 * way to the disk.  Some may be taken back meanwhile. */
static void
tell(struct meta_log *l, const bool *closed)
{
	struct log_batch *b = l->told;

	for (size_t at = 0; at < b->len;) {
		struct meta_log_head h;

		meta_log_head_decode(&h, b->buf + at);
		if (h.index > b->last)
			break;
		at += log_entry_bytes(h.len);
		l->conf.ops->entry(l->conf.ctx, &(struct meta_log_entry){
			.index = h.index, .term = h.term, .type = h.type,
			.len = h.len, .payload = b->buf + at -
			log_entry_bytes(h.len) + META_LOG_ENTRY });
		if (*closed)
			return;
	}
	l->told = NULL;
}

/* A header is durable: what it says is saved once the one before said it too. */
static bool
header_ended(struct meta_log *l)
{
	uint64_t was = l->saved_ticket;

	l->hdr_out = false;
	l->head_pos = l->hdr_out_pos;
	l->saved_ticket = l->one_ticket;
	l->one_ticket = l->hdr_ticket;
	if (l->saved_ticket < l->ticket)
		l->hdr_dirty = true;
	return l->saved_ticket > was;
}

static void
cycle_ended(struct meta_log *l)
{
	bool closed = false, saved = false;

	if (l->hdr_out)
		saved = header_ended(l);
	l->state = LOG_IDLE;
	if ((l->told = l->flight) != NULL) {
		l->synced_index = l->told->last;
		if (l->conf.batches != NULL)
			stat_add(l->conf.batches, 1);
	}
	l->flight = NULL;
	begin(l);
	l->closed = &closed;
	if (saved && l->conf.ops->saved != NULL)
		l->conf.ops->saved(l->conf.ctx);
	if (!closed && l->told != NULL)
		tell(l, &closed);
	if (!closed)
		l->closed = NULL;
}

static void
cycle_broke(struct meta_log *l)
{
	l->state = LOG_BROKEN;
	l->rc = l->io_rc;
	log_error(l->conf.log, "log write failed", "error=%s last=%" PRIu64,
	    err_name(l->rc), l->synced_index);
	l->conf.ops->broken(l->conf.ctx, l->rc);
}

/* Everything l->state waited for has ended, well or badly. */
static void
step(struct meta_log *l)
{
	if (l->io_rc != 0 && l->state < LOG_IDLE)
		log_open_finish(l, l->io_rc);
	else if (l->io_rc != 0)
		cycle_broke(l);
	else if (l->state == LOG_WRITE) {
		l->state = LOG_SYNC;
		log_io_start(l, DISK_SYNC, 0, NULL, 0);
	} else if (l->state == LOG_SYNC)
		cycle_ended(l);
	else
		log_open_step(l);
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
	list_init(&l->readers);
	l->hdr_buf = aligned_alloc(META_LOG_BLOCK, META_LOG_HEADERS);
	l->win = aligned_alloc(META_LOG_BLOCK, LOG_SLICE);
	if (l->hdr_buf == NULL || l->win == NULL) {
		rc = -ENOMEM;
		goto fail;
	}
	rc = conf->dir->ops->open(conf->dir, conf->name, false, 0, &l->disk);
	if (rc == -ENOENT)
		rc = conf->dir->ops->open(conf->dir, conf->name, true,
		    log_down(conf->bytes), &l->disk);
	if (rc != 0)
		goto fail;
	if (l->disk->size < META_LOG_BYTES_MIN) {
		rc = ERR_DISK_FOREIGN;
		goto fail;
	}
	l->state = LOG_SYNC0;
	log_io_start(l, DISK_SYNC, 0, NULL, 0);
	*out = l;
	return 0;
fail:
	meta_log_close(l);
	return rc;
}

void
meta_log_close(struct meta_log *l)
{
	bool left;

	if (l == NULL)
		return;
	if (l->closed != NULL)
		*l->closed = true;
	left = !disk_close(l->disk);
	log_readers_close(l, left);
	clock_undefer(l->conf.clock, &l->defer);
	for (unsigned i = 0; i < 3 && !left; i++)
		free(l->batch[i].buf);
	log_mem_close(l);
	if (!left) {
		free(l->win);
		free(l->hdr_buf);
	}
	free(l);
}

int
meta_log_append(struct meta_log *l, uint64_t term, uint16_t type,
    const void *payload, size_t len, uint64_t *index)
{
	struct log_batch *b = l->gather;
	struct meta_log_head h;
	uint64_t pos;

	if (l->state == LOG_BROKEN)
		return l->rc;
	assert(l->state >= LOG_IDLE);
	if (len > META_LOG_PAYLOAD_MAX)
		return -EMSGSIZE;
	if (term < l->last_term)
		return -EINVAL;
	pos = b->len == 0 ? l->tail_pos : b->pos + b->len;
	if (b->len + log_entry_bytes(len) > l->batch_max ||
	    log_up(pos + log_entry_bytes(len)) >
	    log_down(l->head_pos) + l->hdr.ring_bytes || !log_mem_room(l))
		return ERR_BUSY;
	if (b->len == 0) {
		b->pos = pos;
		b->first = l->last_index + 1;
	}
	log_mark_maybe(l, pos);
	h = (struct meta_log_head){ .prev = l->last_crc, .len = (uint32_t)len,
		.run = l->last_run, .index = l->last_index + 1, .pos = pos,
		.term = term, .type = type,
		.back = (uint32_t)(l->last_index + 1 - b->first) };
	meta_log_head_encode(&h, payload, b->buf + b->len);
	if (len > 0)
		memcpy(b->buf + b->len + META_LOG_ENTRY, payload, len);
	memset(b->buf + b->len + META_LOG_ENTRY + len, 0,
	    log_entry_bytes(len) - META_LOG_ENTRY - len);
	b->len += log_entry_bytes(len);
	b->last = *index = h.index;
	l->last_index = h.index;
	l->last_term = term;
	l->last_crc = h.crc;
	log_mem_add(l, pos, &h, payload);
	poke(l);
	return 0;
}

uint64_t
meta_log_room(const struct meta_log *l)
{
	const struct log_batch *b = l->gather;
	uint64_t pos = b->len == 0 ? l->tail_pos : b->pos + b->len;
	uint64_t end = log_down(l->head_pos) + l->hdr.ring_bytes;
	uint64_t room = l->batch_max - b->len;

	if (l->state < LOG_IDLE || l->state == LOG_BROKEN || !log_mem_room(l))
		return 0;
	return room < end - pos ? room : end - pos;
}

void
meta_log_truncate(struct meta_log *l, uint64_t index)
{
	struct log_mark m;

	if (l->state == LOG_BROKEN)
		return;
	assert(l->state >= LOG_IDLE && index <= l->synced_index);
	if (index == l->last_index) {
		m = (struct log_mark){ .index = index + 1, .pos = l->tail_pos,
			.term = l->last_term, .prev = l->last_crc };
		l->mark_n = 0;
	} else {
		while (l->mark_n > 1 && log_mark_get(l, 1)->index <= index + 1) {
			l->mark_at = (l->mark_at + 1) % LOG_MARKS;
			l->mark_n--;
		}
		if (l->mark_n == 0)
			return;
		m = *log_mark_get(l, 0);
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
	return l->tail_pos + l->gather->len - log_down(l->hdr.first_pos);
}

uint64_t
meta_log_ring_bytes(const struct meta_log *l)
{
	return l->hdr.ring_bytes;
}

uint64_t
meta_log_end(const struct meta_log *l)
{
	return l->last_index;
}

uint64_t
meta_log_end_term(const struct meta_log *l)
{
	return l->last_term;
}

uint64_t
meta_log_first_term(const struct meta_log *l)
{
	return l->hdr.first_term;
}

/* ---- what both headers must say ---- */

const struct meta_log_hard *
meta_log_hard(const struct meta_log *l)
{
	return &l->hdr.hard;
}

static uint64_t
save(struct meta_log *l)
{
	assert(l->state >= LOG_IDLE);
	l->hdr_dirty = true;
	poke(l);
	return ++l->ticket;
}

uint64_t
meta_log_save(struct meta_log *l, const struct meta_log_hard *h)
{
	l->hdr.hard = *h;
	return l->cut_ticket = save(l);	/* entries of a new term follow it */
}

uint64_t
meta_log_saved(const struct meta_log *l)
{
	return l->saved_ticket;
}

/* A new run begins behind @index: what older runs wrote after it does not count, and what
 * batches hold of it is neither told nor called durable. */
static void
new_run(struct meta_log *l, uint64_t index)
{
	struct log_batch *b[] = { l->flight, l->told };

	for (unsigned i = 0; i < 2; i++)
		if (b[i] != NULL && b[i]->last > index)
			b[i]->last = index;
	l->synced_index = index < l->synced_index ? index : l->synced_index;
	l->last_index = index;
	if (l->mem_first > index + 1)
		l->mem_first = index + 1;
	l->hdr.run++;
	l->hdr.open_index = index;
	l->last_run = (uint32_t)l->hdr.run;
	l->gather->len = 0;
	l->cuts++;
	l->cut_ticket = save(l);
}

int
meta_log_cut_back(struct meta_log *l, uint64_t index)
{
	const struct log_slot *s = log_mem_get(l, index);
	struct log_batch *b = l->gather;
	uint64_t end;

	if (l->state == LOG_BROKEN)
		return l->rc;
	assert(l->state >= LOG_IDLE);
	if (index >= l->last_index)
		return index == l->last_index ? 0 : -EINVAL;
	if (index + 1 < l->hdr.first_index ||
	    (s == NULL && index + 1 != l->hdr.first_index))
		return -EINVAL;
	end = s != NULL ? s->pos + log_entry_bytes(s->len) : l->hdr.first_pos;
	l->last_term = s != NULL ? s->term : l->hdr.first_term;
	l->last_crc = s != NULL ? s->crc : l->hdr.first_prev;
	while (l->mark_n > 0 && log_mark_get(l, l->mark_n - 1)->index > index)
		l->mark_n--;
	if (b->len > 0 && index + 1 >= b->first) {
		/* Nothing of it has left: the batch is just shorter. */
		b->len = index < b->first ? 0 : (size_t)(end - b->pos);
		b->last = l->last_index = index;
		l->cuts++;
		return 0;
	}
	l->tail_pos = log_up(end);
	new_run(l, index);
	return 0;
}

uint64_t
meta_log_restart(struct meta_log *l, uint64_t index, uint64_t term)
{
	if (l->state == LOG_BROKEN)
		return ++l->ticket;		/* never saved */
	l->mark_n = 0;
	l->last_term = term;
	l->last_crc = 0;
	new_run(l, index);
	l->synced_index = index;
	if (l->flight != NULL) {
		l->flight->last = index;	/* that is what follows its sync */
		l->flight->len = 0;
	}
	if (l->told != NULL)
		l->told->len = 0;
	l->hdr.first_index = index + 1;
	l->hdr.first_pos = l->tail_pos;
	l->hdr.first_term = term;
	l->hdr.first_prev = 0;
	l->mem_first = index + 1;
	return l->cut_ticket;
}
