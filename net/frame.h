/* SPDX-License-Identifier: MIT */
/* frame.h - the head of everything on the wire; little-endian.
 *
 *   off  size  field     meaning
 *     0     4  magic     "FSD1"
 *     4     4  crc       crc32c of bytes 8..31 and of the message
 *     8     4  msg_len   bytes of message behind the head, pieces included
 *    12     4  bulk_len  bytes of payload behind the message
 *    16     8  id        of the call, by the caller's choice; 0 in hellos and pings
 *    24     2  method    of a request; 0 elsewhere
 *    26     1  kind      enum net_frame_kind
 *    27     1  pieces    rows {u32 dst_off, u32 len} that end the message
 *    28     4  arg       request: milliseconds until the caller gives up, over 0
 *                        reply: the result, i32
 *                        ask: bytes of payload, over 0
 *                        grant: 0, or 1: nobody wants that reply any more
 *    32        message, then payload
 *
 * Pieces of a reply say where in the caller's receive buffers its payload goes, in
 * order; their lengths sum to bulk_len.  A request may have one: {free, room}, the size of
 * those buffers, and before it how much payload may come without asking.  Payload has no
 * checksum here: its messages carry one of their own. */
#ifndef NET_FRAME_H
#define NET_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "net/call.h"

#define NET_HEAD		32u
#define NET_PIECE_BYTES		8u
#define NET_HEAD_MAX		(NET_HEAD + NET_MSG_MAX + \
				    NET_BULK_PIECES * NET_PIECE_BYTES)

enum net_frame_kind {
	NET_FRAME_HELLO1 = 1,
	NET_FRAME_HELLO2 = 2,
	NET_FRAME_HELLO3 = 3,
	NET_FRAME_REQUEST = 4,
	NET_FRAME_REPLY = 5,
	NET_FRAME_PING = 6,		/* answered by a pong at once, empty */
	NET_FRAME_PONG = 7,
	NET_FRAME_RDMA = 8,		/* set-up (net/rdma.h), before any request */
	NET_FRAME_ASK = 9,		/* server: the reply to @id is ready, may it come? */
	NET_FRAME_GRANT = 10		/* caller: it may, or need not any more */
};

struct net_frame {
	uint32_t msg_len, bulk_len;
	uint64_t id;
	uint16_t method;
	uint8_t	 kind, pieces;
	uint32_t arg;
};

/* What a receiver must know of the first 32 bytes before it takes more: the lengths,
 * within bounds.  0 or ERR_BAD_MESSAGE. */
int	net_frame_peek(const uint8_t head[NET_HEAD], uint32_t head_max,
	    uint32_t bulk_max, uint32_t *head_len, uint32_t *bulk_len);
/* Check and read a whole head of @n bytes: checksum, kind, and that pieces fit. 0 or
 * ERR_BAD_MESSAGE. */
int	net_frame_decode(const uint8_t *head, uint32_t n, struct net_frame *out);
/* Write the 32 bytes before a message that is in place, pieces and all. */
void	net_frame_encode(const struct net_frame *f, uint8_t *head);

/* Row @i of the pieces of a decoded frame. */
void	net_frame_piece(const uint8_t *head, const struct net_frame *f, unsigned i,
	    uint32_t *dst_off, uint32_t *len);
void	net_frame_piece_put(uint8_t *at, uint32_t dst_off, uint32_t len);
/* Message bytes without the pieces. */
uint32_t net_frame_msg_len(const struct net_frame *f);

/* Where a reply's payload goes: its pieces, cut out of @room.  At most *n (in: size of
 * @out) parts, empty ones left out.  0; ERR_BAD_MESSAGE when a piece leaves the room or
 * the lengths do not sum to bulk_len; -ENOSPC when @out is too small. */
int	net_frame_scatter(const uint8_t *head, const struct net_frame *f,
	    const struct iovec *room, unsigned room_n, struct iovec *out,
	    unsigned *n);

#endif
