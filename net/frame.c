/* SPDX-License-Identifier: MIT */
/* frame.c - the 32 bytes before every message. */
#include "net/frame.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "conf/crc32c.h"
#include "conf/err.h"

#define MAGIC	0x31445346u	/* "FSD1" */

static uint16_t
get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t
get32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
	    (uint32_t)p[3] << 24;
}

static void
put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static void
put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)v);
	put16(p + 2, (uint16_t)(v >> 16));
}

int
net_frame_peek(const uint8_t head[NET_HEAD], uint32_t head_max, uint32_t bulk_max,
    uint32_t *head_len, uint32_t *bulk_len)
{
	uint32_t msg = get32(head + 8), bulk = get32(head + 12);

	assert(head_max >= NET_HEAD);
	if (get32(head) != MAGIC || msg > head_max - NET_HEAD || bulk > bulk_max)
		return ERR_BAD_MESSAGE;
	*head_len = NET_HEAD + msg;
	*bulk_len = bulk;
	return 0;
}

/* Fields that mean nothing in a kind must be zero, so that they can be given a
 * meaning later. */
static bool
kind_is_sound(const struct net_frame *f)
{
	switch ((enum net_frame_kind)f->kind) {
	case NET_FRAME_HELLO1:
	case NET_FRAME_HELLO2:
	case NET_FRAME_HELLO3:
	case NET_FRAME_RDMA:
		return f->bulk_len == 0 && f->id == 0 && f->method == 0 &&
		    f->pieces == 0 && f->arg == 0;
	case NET_FRAME_REQUEST:
		return f->arg != 0 && f->pieces <= 1;
	case NET_FRAME_REPLY:
		return f->method == 0 && f->pieces <= NET_BULK_PIECES;
	case NET_FRAME_PING:
	case NET_FRAME_PONG:
		return f->msg_len == 0 && f->bulk_len == 0 && f->id == 0 &&
		    f->method == 0 && f->pieces == 0 && f->arg == 0;
	case NET_FRAME_ASK:
	case NET_FRAME_GRANT:
		return f->msg_len == 0 && f->bulk_len == 0 && f->method == 0 &&
		    f->pieces == 0 && (f->kind == NET_FRAME_ASK ? f->arg > 0 &&
		    f->arg <= NET_BULK_MAX : f->arg <= 1);
	}
	return false;
}

int
net_frame_decode(const uint8_t *head, uint32_t n, struct net_frame *out)
{
	uint32_t crc;

	if (n < NET_HEAD || get32(head) != MAGIC || get32(head + 8) != n - NET_HEAD)
		return ERR_BAD_MESSAGE;
	crc = crc32c(0, head + 8, n - 8);
	if (crc != get32(head + 4))
		return ERR_BAD_MESSAGE;
	out->msg_len = get32(head + 8);
	out->bulk_len = get32(head + 12);
	out->id = get32(head + 16) | (uint64_t)get32(head + 20) << 32;
	out->method = get16(head + 24);
	out->kind = head[26];
	out->pieces = head[27];
	out->arg = get32(head + 28);
	if (!kind_is_sound(out) || out->pieces * NET_PIECE_BYTES > out->msg_len)
		return ERR_BAD_MESSAGE;
	return 0;
}

void
net_frame_encode(const struct net_frame *f, uint8_t *head)
{
	put32(head, MAGIC);
	put32(head + 8, f->msg_len);
	put32(head + 12, f->bulk_len);
	put32(head + 16, (uint32_t)f->id);
	put32(head + 20, (uint32_t)(f->id >> 32));
	put16(head + 24, f->method);
	head[26] = f->kind;
	head[27] = f->pieces;
	put32(head + 28, f->arg);
	put32(head + 4, crc32c(0, head + 8, NET_HEAD - 8 + (size_t)f->msg_len));
}

uint32_t
net_frame_msg_len(const struct net_frame *f)
{
	return f->msg_len - f->pieces * NET_PIECE_BYTES;
}

void
net_frame_piece(const uint8_t *head, const struct net_frame *f, unsigned i,
    uint32_t *dst_off, uint32_t *len)
{
	const uint8_t *at = head + NET_HEAD + net_frame_msg_len(f) +
	    (size_t)i * NET_PIECE_BYTES;

	assert(i < f->pieces);
	*dst_off = get32(at);
	*len = get32(at + 4);
}

void
net_frame_piece_put(uint8_t *at, uint32_t dst_off, uint32_t len)
{
	put32(at, dst_off);
	put32(at + 4, len);
}

int
net_frame_scatter(const uint8_t *head, const struct net_frame *f,
    const struct iovec *room, unsigned room_n, struct iovec *out, unsigned *n)
{
	unsigned used = 0;
	uint64_t sum = 0;

	for (unsigned i = 0; i < f->pieces; i++) {
		uint32_t dst_off, len;
		uint64_t skip;
		unsigned r = 0;

		net_frame_piece(head, f, i, &dst_off, &len);
		sum += len;
		for (skip = dst_off; r < room_n && skip >= room[r].iov_len; r++)
			skip -= room[r].iov_len;
		for (; len > 0; r++, skip = 0) {
			size_t part;

			if (r == room_n)
				return ERR_BAD_MESSAGE;
			part = room[r].iov_len - (size_t)skip;
			if (part == 0)
				continue;
			if (part > len)
				part = len;
			if (used == *n)
				return -ENOSPC;
			out[used].iov_base = (char *)room[r].iov_base + skip;
			out[used++].iov_len = part;
			len -= (uint32_t)part;
		}
	}
	if (sum != f->bulk_len)
		return ERR_BAD_MESSAGE;
	*n = used;
	return 0;
}
