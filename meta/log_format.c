/* SPDX-License-Identifier: MIT */
/* log_format.c - the bytes of log headers and entries; meta/log.h draws them. */
#include "meta/log.h"

#include <assert.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/crc32c.h"
#include "conf/err.h"

#define VERSION	2u

static const char magic[8] = { 'F', 'S', 'D', 'L', 'O', 'G', '0', '1' };

static bool
all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

void
meta_log_header_encode(const struct meta_log_header *h, uint8_t out[META_LOG_BLOCK])
{
	struct bytes_writer w;
	uint8_t crc[4];

	memset(out, 0, META_LOG_BLOCK);
	bytes_writer_init(&w, out, META_LOG_BLOCK);
	bytes_put_raw(&w, magic, sizeof(magic));
	bytes_put_u32(&w, 0);
	bytes_put_u32(&w, VERSION);
	bytes_put_u64(&w, h->seq);
	bytes_put_u64(&w, h->run);
	bytes_put_u64(&w, h->ring_bytes);
	bytes_put_u64(&w, h->first_index);
	bytes_put_u64(&w, h->first_pos);
	bytes_put_u64(&w, h->first_term);
	bytes_put_u32(&w, h->first_prev);
	bytes_put_u32(&w, 0);
	bytes_put_u64(&w, h->open_index);
	bytes_put_u64(&w, h->synced_index);
	bytes_put_u64(&w, h->hard.term);
	bytes_put_u64(&w, h->hard.vote);
	bytes_put_raw(&w, h->hard.owner, sizeof(h->hard.owner));
	assert(!w.failed && bytes_written(&w) == 120);
	bytes_writer_init(&w, crc, sizeof(crc));
	bytes_put_u32(&w, crc32c(0, out + 12, META_LOG_BLOCK - 12));
	memcpy(out + 8, crc, sizeof(crc));
}

int
meta_log_header_decode(struct meta_log_header *h, const uint8_t in[META_LOG_BLOCK])
{
	struct bytes_reader r;
	uint32_t crc, version, zero;

	memset(h, 0, sizeof(*h));
	bytes_reader_init(&r, in, META_LOG_BLOCK);
	if (memcmp(bytes_get_raw(&r, sizeof(magic)), magic, sizeof(magic)) != 0)
		return ERR_DISK_FOREIGN;
	crc = bytes_get_u32(&r);
	if (crc != crc32c(0, in + 12, META_LOG_BLOCK - 12))
		return ERR_CORRUPT;
	if ((version = bytes_get_u32(&r)) > VERSION)
		return ERR_DISK_NEWER;
	h->seq = bytes_get_u64(&r);
	h->run = bytes_get_u64(&r);
	h->ring_bytes = bytes_get_u64(&r);
	h->first_index = bytes_get_u64(&r);
	h->first_pos = bytes_get_u64(&r);
	h->first_term = bytes_get_u64(&r);
	h->first_prev = bytes_get_u32(&r);
	zero = bytes_get_u32(&r);
	h->open_index = bytes_get_u64(&r);
	h->synced_index = bytes_get_u64(&r);
	if (version > 1) {
		h->hard.term = bytes_get_u64(&r);
		h->hard.vote = bytes_get_u64(&r);
		memcpy(h->hard.owner, bytes_get_raw(&r, sizeof(h->hard.owner)),
		    sizeof(h->hard.owner));
	}
	if (zero != 0 || !all_zero(r.p, bytes_left(&r)) || h->seq == 0 ||
	    h->first_index == 0 || h->ring_bytes == 0 ||
	    h->ring_bytes % META_LOG_BLOCK != 0 || h->first_pos % 8 != 0 ||
	    h->synced_index + 1 < h->first_index ||
	    h->synced_index < h->open_index)
		return ERR_CORRUPT;
	return 0;
}

void
meta_log_head_encode(struct meta_log_head *h, const void *payload,
    uint8_t out[META_LOG_ENTRY])
{
	struct bytes_writer w;

	bytes_writer_init(&w, out, META_LOG_ENTRY);
	bytes_put_u32(&w, 0);
	bytes_put_u32(&w, h->prev);
	bytes_put_u32(&w, h->len);
	bytes_put_u32(&w, h->run);
	bytes_put_u64(&w, h->index);
	bytes_put_u64(&w, h->pos);
	bytes_put_u64(&w, h->term);
	bytes_put_u16(&w, h->type);
	bytes_put_u16(&w, 0);
	bytes_put_u32(&w, h->back);
	assert(!w.failed && bytes_written(&w) == META_LOG_ENTRY);
	h->crc = crc32c(crc32c(0, out + 4, META_LOG_ENTRY - 4), payload, h->len);
	bytes_writer_init(&w, out, 4);
	bytes_put_u32(&w, h->crc);
}

void
meta_log_head_decode(struct meta_log_head *h, const uint8_t in[META_LOG_ENTRY])
{
	struct bytes_reader r;

	bytes_reader_init(&r, in, META_LOG_ENTRY);
	h->crc = bytes_get_u32(&r);
	h->prev = bytes_get_u32(&r);
	h->len = bytes_get_u32(&r);
	h->run = bytes_get_u32(&r);
	h->index = bytes_get_u64(&r);
	h->pos = bytes_get_u64(&r);
	h->term = bytes_get_u64(&r);
	h->type = bytes_get_u16(&r);
	(void)bytes_get_u16(&r);
	h->back = bytes_get_u32(&r);
}
