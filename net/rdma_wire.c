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
	if (n < PREFIX || n > SLOT)
		return false;
	out->credits = (uint16_t)(p[0] | p[1] << 8);
	out->kind = p[2];
	out->record_len = bytes_le32(p + 4);
	return p[3] == 0 && out->kind >= WORD_FIRST && out->kind <= WORD_TELL &&
	    (out->kind == WORD_FIRST || out->record_len == 0) &&
	    (out->kind == WORD_CREDIT) == (n == PREFIX);
}

void
net_rdma_word_put(uint8_t p[PREFIX], const struct word_head *h)
{
	p[0] = (uint8_t)h->credits;
	p[1] = (uint8_t)(h->credits >> 8);
	p[2] = h->kind;
	p[3] = 0;
	bytes_le32_put(p + 4, h->record_len);
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
	uint32_t rows;

	if (n < RECORD)
		return false;
	r->kind = p[0];
	r->iov_n = p[1];
	r->room_n = p[2];
	r->flags = p[3];
	r->head_len = bytes_le32(p + 4);
	r->bulk_len = bytes_le32(p + 8);
	r->number = bytes_le32(p + 12);
	r->answers = bytes_le32(p + 16);
	if (bytes_le32(p + 20) != 0 || r->iov_n > ROWS_MAX || r->room_n > ROWS_MAX)
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

/* Kinds of parts. */
enum part_kind { PART_PORT = 1, PART_ADDR, PART_WHY, PART_WHICH, PART_END, PART_CALL };

struct part {
	uint8_t kind;
	struct bytes_reader b;		/* what is in it */
};

/* The next part; false: there is none, or it is cut off (b->failed). */
static bool
next_part(struct bytes_reader *b, struct part *out)
{
	const void *p;
	uint16_t n;

	if (bytes_left(b) == 0)
		return false;
	out->kind = bytes_get_u8(b);
	bytes_get_u8(b);
	n = bytes_get_u16(b);
	if ((p = bytes_get_raw(b, n)) == NULL)
		return false;
	bytes_reader_init(&out->b, p, n);
	return true;
}

static void
put_part(struct bytes_writer *w, enum part_kind kind, uint32_t n)
{
	bytes_put_u8(w, (uint8_t)kind);
	bytes_put_u8(w, 0);
	bytes_put_u16(w, (uint16_t)n);
}

static void
get_raw(struct bytes_reader *b, uint8_t *to, uint32_t n)
{
	const void *raw = bytes_get_raw(b, n);

	if (raw != NULL)
		memcpy(to, raw, n);
}

static void
begin(struct bytes_writer *w, uint8_t *p, uint32_t n, uint8_t step, bool no)
{
	bytes_writer_init(w, p, n);
	bytes_put_u8(w, step);
	bytes_put_u8(w, no);
}

static void
get_port(struct bytes_reader *b, struct rdma_offered *out)
{
	struct rdma_offered_port p = { .link = bytes_get_u8(b) };
	uint8_t keys;

	p.mtu = bytes_get_u8(b);
	p.lid = bytes_get_u16(b);
	p.used = bytes_get_u16(b);
	keys = bytes_get_u8(b);
	for (unsigned i = 0; i < keys; i++) {
		uint16_t key = bytes_get_u16(b);

		if (i < PKEYS_MAX)
			p.keys[p.keys_n++] = key;
	}
	if (out->ports_n < OFFERED_PORTS)
		out->ports[out->ports_n++] = p;
}

static void
get_addr(struct bytes_reader *b, struct rdma_offered *out)
{
	struct rdma_offered_addr a = { .port = bytes_get_u8(b) };

	get_raw(b, a.gid, GID);
	/* Ports come before their addresses; of those we do not keep, neither. */
	if (a.port < out->ports_n && out->addrs_n < OFFERED_ADDRS)
		out->addrs[out->addrs_n++] = a;
}

bool
net_rdma_offer_get(const uint8_t *p, uint32_t n, struct rdma_offered *out)
{
	struct bytes_reader b;
	struct part part;
	uint8_t step, no;

	out->ports_n = out->addrs_n = 0;
	bytes_reader_init(&b, p, n);
	step = bytes_get_u8(&b);
	no = bytes_get_u8(&b);
	if (b.failed || step != STEP_OFFER || no != 0)
		return false;
	while (next_part(&b, &part)) {
		if (part.kind == PART_PORT)
			get_port(&part.b, out);
		else if (part.kind == PART_ADDR)
			get_addr(&part.b, out);
		if (part.b.failed)
			return false;
	}
	return !b.failed;
}

uint32_t
net_rdma_offer_put(uint8_t *p, uint32_t n, const struct rdma_offered *o)
{
	struct bytes_writer w;

	begin(&w, p, n, STEP_OFFER, false);
	for (unsigned i = 0; i < o->ports_n; i++) {
		const struct rdma_offered_port *port = &o->ports[i];

		put_part(&w, PART_PORT, 7 + 2u * port->keys_n);
		bytes_put_u8(&w, port->link);
		bytes_put_u8(&w, port->mtu);
		bytes_put_u16(&w, port->lid);
		bytes_put_u16(&w, port->used);
		bytes_put_u8(&w, port->keys_n);
		for (unsigned k = 0; k < port->keys_n; k++)
			bytes_put_u16(&w, port->keys[k]);
	}
	for (unsigned i = 0; i < o->addrs_n; i++) {
		put_part(&w, PART_ADDR, 1 + GID);
		bytes_put_u8(&w, o->addrs[i].port);
		bytes_put_raw(&w, o->addrs[i].gid, GID);
	}
	return w.failed ? 0 : (uint32_t)bytes_written(&w);
}

static bool
get_end(struct bytes_reader *b, struct rdma_end *e)
{
	e->qpn = bytes_get_u32(b);
	e->psn = bytes_get_u32(b);
	e->credits = bytes_get_u32(b);
	e->lid = bytes_get_u16(b);
	e->key = bytes_get_u16(b);
	e->mtu = bytes_get_u8(b);
	e->reads = bytes_get_u8(b);
	get_raw(b, e->gid, GID);
	return !b->failed && e->credits >= CREDITS_MIN && e->credits <= CREDITS_MAX &&
	    e->qpn < 1u << 24 && e->psn < 1u << 24 && e->mtu >= MTU_MIN &&
	    e->mtu <= MTU_MAX;
}

static bool
get_said(struct part *part, struct rdma_said *out)
{
	struct bytes_reader *b = &part->b;

	switch (part->kind) {
	case PART_WHY:
		out->why = bytes_get_u16(b);
		break;
	case PART_WHICH:
		out->which = bytes_get_u16(b);
		break;
	case PART_END:
		out->has_end = true;
		return get_end(b, &out->end);
	case PART_CALL:
		out->has_call = true;
		out->port = bytes_get_u16(b);
		get_raw(b, out->token, TOKEN);
		break;
	}
	return !b->failed;
}

bool
net_rdma_said_get(const uint8_t *p, uint32_t n, struct rdma_said *out)
{
	struct bytes_reader b;
	struct part part;
	uint8_t no;

	*out = (struct rdma_said){ 0 };
	bytes_reader_init(&b, p, n);
	out->step = bytes_get_u8(&b);
	no = bytes_get_u8(&b);
	out->no = no != 0;
	if (b.failed || out->step < STEP_ANSWER || out->step > STEP_GO || no > 1)
		return false;
	while (next_part(&b, &part))
		if (!get_said(&part, out))
			return false;
	return !b.failed;
}

uint32_t
net_rdma_said_put(uint8_t *p, uint32_t n, const struct rdma_said *s)
{
	const struct rdma_end *e = &s->end;
	struct bytes_writer w;

	begin(&w, p, n, s->step, s->no);
	if (s->no) {
		put_part(&w, PART_WHY, 2);
		bytes_put_u16(&w, s->why);
	} else if (s->step == STEP_ANSWER) {
		put_part(&w, PART_WHICH, 2);
		bytes_put_u16(&w, s->which);
	}
	if (s->has_end) {
		put_part(&w, PART_END, 18 + GID);
		bytes_put_u32(&w, e->qpn);
		bytes_put_u32(&w, e->psn);
		bytes_put_u32(&w, e->credits);
		bytes_put_u16(&w, e->lid);
		bytes_put_u16(&w, e->key);
		bytes_put_u8(&w, e->mtu);
		bytes_put_u8(&w, e->reads);
		bytes_put_raw(&w, e->gid, GID);
	}
	if (s->has_call) {
		put_part(&w, PART_CALL, 2 + TOKEN);
		bytes_put_u16(&w, s->port);
		bytes_put_raw(&w, s->token, TOKEN);
	}
	return w.failed ? 0 : (uint32_t)bytes_written(&w);
}
