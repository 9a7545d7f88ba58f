/* SPDX-License-Identifier: MIT */
/* log_open.c - opening the log: which header counts, where the log ends, and whether
 * anything that was acknowledged is missing. */
#include "meta/log_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

static bool
all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

void
log_open_finish(struct meta_log *l, int rc)
{
	l->state = rc == 0 ? LOG_IDLE : LOG_BROKEN;
	l->rc = rc;
	l->conf.ops->ready(l->conf.ctx, rc);
}

static void
damaged(struct meta_log *l, const char *why)
{
	log_error(l->conf.log, "log damaged",
	    "why=\"%s\" index=%" PRIu64 " synced=%" PRIu64 " opened=%" PRIu64
	    " position=%" PRIu64, why, l->last_index + 1, l->hdr.synced_index,
	    l->hdr.open_index, l->scan.pos);
	log_open_finish(l, ERR_LOG_DAMAGED);
}

static void
window_start(struct meta_log *l, uint64_t pos, uint64_t end)
{
	l->view = (struct log_view){ l->win, log_down(pos),
		log_up(end) - log_down(pos) > LOG_SLICE ? LOG_SLICE :
		(size_t)(log_up(end) - log_down(pos)) };
	log_io_ring(l, DISK_READ, l->view.pos, l->win, l->view.len);
}

static uint64_t
scan_end(const struct meta_log *l)
{
	return log_down(l->head_pos) + l->hdr.ring_bytes;
}

static void
scan_begin(struct meta_log *l)
{
	int rc;

	l->state = LOG_SCAN;
	l->batch_max = (size_t)log_down(l->hdr.ring_bytes / 8);
	if (l->batch_max > LOG_BATCH_MAX)
		l->batch_max = LOG_BATCH_MAX;
	if (l->batch_max < LOG_BATCH_MIN)
		l->batch_max = LOG_BATCH_MIN;
	l->mark_gap = l->hdr.ring_bytes / 1024;
	if (l->mark_gap < META_LOG_BLOCK)
		l->mark_gap = META_LOG_BLOCK;
	rc = log_mem_open(l);
	for (unsigned i = 0; i < 3 && rc == 0; i++) {
		l->batch[i].buf = aligned_alloc(META_LOG_BLOCK, l->batch_max);
		if (l->batch[i].buf == NULL)
			rc = -ENOMEM;
	}
	if (rc != 0) {
		log_open_finish(l, rc);
		return;
	}
	l->head_pos = l->hdr.first_pos;
	l->last_index = l->hdr.first_index - 1;
	l->synced_index = l->last_index;
	l->last_term = l->hdr.first_term;
	l->last_crc = l->hdr.first_prev;
	l->mem_first = l->hdr.first_index;
	l->scan = (struct log_cursor){ .index = l->last_index,
		.pos = l->hdr.first_pos, .term = l->last_term,
		.crc = l->last_crc };
	window_start(l, l->scan.pos, scan_end(l));
}

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
		log_open_finish(l, ERR_DISK_NEWER);
		return;
	}
	if (rc[0] != 0 && rc[1] != 0) {
		if (!all_zero(l->hdr_buf + META_LOG_BLOCK, META_LOG_BLOCK)) {
			log_open_finish(l, rc[0] == ERR_DISK_FOREIGN &&
			    rc[1] == ERR_DISK_FOREIGN ? ERR_DISK_FOREIGN :
			    ERR_LOG_DAMAGED);
			return;
		}
		l->hdr = (struct meta_log_header){ .first_index = 1,
			.ring_bytes = log_down(l->disk->size) - META_LOG_HEADERS };
		l->state = LOG_FORMAT;
		log_write_header(l);
		return;
	}
	best = rc[0] != 0 || (rc[1] == 0 && h[1].seq > h[0].seq);
	l->hdr = h[best];
	if (l->hdr.ring_bytes > l->disk->size - META_LOG_HEADERS ||
	    l->hdr.ring_bytes < META_LOG_BYTES_MIN - META_LOG_HEADERS) {
		log_open_finish(l, ERR_LOG_DAMAGED);
		return;
	}
	scan_begin(l);
}

/* The log ends at scan.pos. */
static void
claim(struct meta_log *l)
{
	if (l->last_index < l->hdr.synced_index) {
		damaged(l, "ends before what was synced");
		return;
	}
	l->tail_pos = log_up(l->scan.pos);
	l->synced_index = l->last_index;
	l->hdr.run++;
	l->hdr.open_index = l->last_index;
	l->last_run = (uint32_t)l->hdr.run;
	l->state = LOG_CLAIM;
	log_write_header(l);
}

/* Look for the first entry of a batch that was only written after the missing entry was
 * durable.  The torn batch is no longer than batch_max, so the proof is near. */
static void
after(struct meta_log *l)
{
	const uint8_t *payload;
	struct meta_log_head h;

	for (; l->after_pos < l->after_end; l->after_pos += META_LOG_BLOCK) {
		int found = log_view_entry(&l->view, l->after_pos, l->after_end, &h,
		    &payload);

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
	uint64_t end = scan_end(l), at;
	struct meta_log_head h;
	const uint8_t *payload;
	bool closed = false;
	int found;

	while ((found = log_follow(&l->view, &l->scan, end, &l->hdr, &h, &payload,
	    &at)) > 0) {
		log_mark_maybe(l, at);
		log_cursor_step(&l->scan, &h, at);
		l->last_index = h.index;
		l->last_term = h.term;
		l->last_crc = h.crc;
		l->last_run = h.run;
		log_mem_add(l, at, &h, payload);
		l->closed = &closed;
		l->conf.ops->entry(l->conf.ctx, &(struct meta_log_entry){
			.index = h.index, .term = h.term, .type = h.type,
			.len = h.len, .payload = payload });
		if (closed)
			return;
		l->closed = NULL;
	}
	if (found == -1) {
		window_start(l, l->scan.pos, end);
		return;
	}
	if (found == -2) {
		damaged(l, "the newer header cannot be read");
		return;
	}
	l->scan.pos = log_up(l->scan.pos);
	l->after_pos = l->scan.pos;
	l->after_end = l->scan.pos + 2 * l->batch_max;
	if (l->after_end > end)
		l->after_end = end;
	l->state = LOG_AFTER;
	after(l);
}

void
log_open_step(struct meta_log *l)
{
	switch (l->state) {
	case LOG_SYNC0:
		l->state = LOG_HEADERS;
		log_io_start(l, DISK_READ, 0, l->hdr_buf, META_LOG_HEADERS);
		break;
	case LOG_HEADERS:
		headers_read(l);
		break;
	case LOG_FORMAT:
		l->state = LOG_FORMAT_SYNC;
		log_io_start(l, DISK_SYNC, 0, NULL, 0);
		break;
	case LOG_FORMAT_SYNC:
		scan_begin(l);
		break;
	case LOG_SCAN:
		scan(l);
		break;
	case LOG_AFTER:
		after(l);
		break;
	case LOG_CLAIM:
		l->state = LOG_CLAIM_SYNC;
		log_io_start(l, DISK_SYNC, 0, NULL, 0);
		break;
	case LOG_CLAIM_SYNC:		/* the header with our run is durable */
		free(l->win);
		l->win = NULL;
		log_open_finish(l, 0);
		break;
	case LOG_IDLE:
	case LOG_WRITE:
	case LOG_SYNC:
	case LOG_BROKEN:
		assert(false);
	}
}
