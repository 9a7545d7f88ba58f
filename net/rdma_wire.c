/* SPDX-License-Identifier: MIT */
/* rdma_wire.c - bytes of messages, records and the set-up. */
#include "net/rdma_wire.h"

#include <string.h>

#include "net/frame.h"

#define MTU_MIN	1u			/* IBV_MTU_256 */
#define MTU_MAX	5u			/* IBV_MTU_4096 */

/* ---- messages ---- */

bool
net_rdma_word_get(const uint8_t *p, uint32_t n, struct word_head *out)
{
	struct bytes_reader b;
	uint8_t zero;

	if (n < PREFIX || n > SLOT)
		return false;
	bytes_reader_init(&b, p, PREFIX);
	out->credits = bytes_get_u16(&b);
	out->kind = bytes_get_u8(&b);
	zero = bytes_get_u8(&b);
	out->record_len = bytes_get_u32(&b);
	return zero == 0 && out->kind >= WORD_FIRST && out->kind <= WORD_TELL &&
	    (out->kind == WORD_FIRST || out->record_len == 0) &&
	    (out->kind == WORD_CREDIT) == (n == PREFIX);
}

void
net_rdma_word_put(uint8_t p[PREFIX], const struct word_head *h)
{
	struct bytes_writer w;

	bytes_writer_init(&w, p, PREFIX);
	bytes_put_u16(&w, h->credits);
	bytes_put_u8(&w, h->kind);
	bytes_put_u8(&w, 0);
	bytes_put_u32(&w, h->record_len);
}

/* ---- records ---- */

/* Is a frame's record as it must be? */
static bool
frame_is_sound(const struct record *r, uint32_t head_max, uint32_t bulk_max)
{
	uint32_t head_len, bulk_len;
	bool stream = r->flags & RECORD_STREAM;

	if (r->head_len < NET_HEAD || (r->flags & ~RECORD_STREAM) != 0 ||
	    net_frame_peek(r->head, head_max, bulk_max, &head_len, &bulk_len) != 0 ||
	    head_len != r->head_len || bulk_len != r->bulk_len)
		return false;
	if (stream && (r->bulk_len == 0 || r->iov_n > 0))
		return false;
	/* Payload that is neither offered nor in the stream has been WRITTEN. */
	if (r->bulk_len > 0 && !stream && r->iov_n == 0 && r->answers == 0)
		return false;
	return (r->number != 0) == (r->iov_n + r->room_n > 0) &&
	    (r->iov_n == 0 || r->bulk_len > 0);
}

bool
net_rdma_record_get(const uint8_t *p, uint32_t n, uint32_t head_max, uint32_t bulk_max,
    struct record *r)
{
	struct bytes_reader b;
	uint32_t zero, rows;

	bytes_reader_init(&b, p, n);
	r->kind = bytes_get_u8(&b);
	r->iov_n = bytes_get_u8(&b);
	r->room_n = bytes_get_u8(&b);
	r->flags = bytes_get_u8(&b);
	r->head_len = bytes_get_u32(&b);
	r->bulk_len = bytes_get_u32(&b);
	r->number = bytes_get_u32(&b);
	r->answers = bytes_get_u32(&b);
	zero = bytes_get_u32(&b);
	if (b.failed || zero != 0 || r->iov_n > ROWS_MAX || r->room_n > ROWS_MAX)
		return false;
	rows = (r->iov_n + (uint32_t)r->room_n) * ROW;
	if (n - RECORD < rows || n - RECORD - rows != r->head_len)
		return false;
	r->rows = p + RECORD;
	r->head = r->rows + rows;
	if (r->kind == RECORD_FRAME)
		return frame_is_sound(r, head_max, bulk_max);
	if (rows != 0 || r->flags != 0 || r->head_len != 0 || r->bulk_len != 0)
		return false;
	return r->kind == RECORD_DONE ? r->answers != 0 && r->number == 0 :
	    r->kind == RECORD_REVOKE && r->number != 0 && r->answers == 0;
}

void
net_rdma_record_put(struct bytes_writer *w, const struct record *r)
{
	bytes_put_u8(w, r->kind);
	bytes_put_u8(w, r->iov_n);
	bytes_put_u8(w, r->room_n);
	bytes_put_u8(w, r->flags);
	bytes_put_u32(w, r->head_len);
	bytes_put_u32(w, r->bulk_len);
	bytes_put_u32(w, r->number);
	bytes_put_u32(w, r->answers);
	bytes_put_u32(w, 0);
}

bool
net_rdma_rows_get(const uint8_t *p, unsigned n, struct row *rows, uint32_t *sum)
{
	struct bytes_reader b;
	uint64_t all = 0;

	bytes_reader_init(&b, p, n * ROW);
	for (unsigned i = 0; i < n; i++) {
		rows[i].addr = bytes_get_u64(&b);
		rows[i].len = bytes_get_u32(&b);
		rows[i].rkey = bytes_get_u32(&b);
		all += rows[i].len;
		if (rows[i].len == 0 || rows[i].addr + rows[i].len < rows[i].addr ||
		    all > NET_BULK_MAX)
			return false;
	}
	*sum = (uint32_t)all;
	return true;
}

void
net_rdma_rows_put(struct bytes_writer *w, const struct row *rows, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		bytes_put_u64(w, rows[i].addr);
		bytes_put_u32(w, rows[i].len);
		bytes_put_u32(w, rows[i].rkey);
	}
}

/* ---- the set-up ---- */

static bool
get_gid(struct bytes_reader *b, uint8_t gid[GID])
{
	const void *raw = bytes_get_raw(b, GID);

	if (raw != NULL)
		memcpy(gid, raw, GID);
	return raw != NULL;
}

bool
net_rdma_end_get(struct bytes_reader *b, struct rdma_end *e)
{
	e->qpn = bytes_get_u32(b);
	e->psn = bytes_get_u32(b);
	e->credits = bytes_get_u32(b);
	e->lid = bytes_get_u16(b);
	e->mtu = bytes_get_u8(b);
	e->reads = bytes_get_u8(b);
	return get_gid(b, e->gid) && bytes_reader_done(b) &&
	    e->credits >= CREDITS_MIN && e->credits <= CREDITS_MAX &&
	    e->qpn < 1u << 24 && e->psn < 1u << 24 && e->mtu >= MTU_MIN &&
	    e->mtu <= MTU_MAX;
}

void
net_rdma_end_put(struct bytes_writer *w, const struct rdma_end *e)
{
	bytes_put_u32(w, e->qpn);
	bytes_put_u32(w, e->psn);
	bytes_put_u32(w, e->credits);
	bytes_put_u16(w, e->lid);
	bytes_put_u8(w, e->mtu);
	bytes_put_u8(w, e->reads);
	bytes_put_raw(w, e->gid, GID);
}

bool
net_rdma_ports_get(struct bytes_reader *b, struct rdma_offered *ports, unsigned *n)
{
	unsigned all = bytes_get_u8(b);

	*n = 0;
	for (unsigned i = 0; i < all; i++) {
		struct rdma_offered p;

		p.link = bytes_get_u8(b);
		p.mtu = bytes_get_u8(b);
		p.lid = bytes_get_u16(b);
		if (!get_gid(b, p.gid))
			return false;
		if (*n < OFFERED_MAX)
			ports[(*n)++] = p;
	}
	return bytes_reader_done(b);
}

void
net_rdma_ports_put(struct bytes_writer *w, const struct rdma_offered *ports, unsigned n)
{
	bytes_put_u8(w, (uint8_t)n);
	for (unsigned i = 0; i < n; i++) {
		bytes_put_u8(w, ports[i].link);
		bytes_put_u8(w, ports[i].mtu);
		bytes_put_u16(w, ports[i].lid);
		bytes_put_raw(w, ports[i].gid, GID);
	}
}
