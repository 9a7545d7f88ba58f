/* SPDX-License-Identifier: MIT */
/* rdma_wire.h - what two ends of a queue pair say to each other, as bytes.  Pure: nothing here
 * knows of devices, so that all of it can be fed with anything (tests/fuzz_rdma.c).
 *
 * A message is one slot: a prefix, and bytes of a record or of a payload; little-endian.
 *   off size
 *    0    2  credits that come back
 *    2    1  kind, enum word_kind
 *    3    1  zero
 *    4    4  FIRST: bytes of the record, of which the rest follows in NEXTs; else zero
 * A record (enum record_kind):
 *    0    1  kind
 *    1    1  rows of the request's payload     2  1  rows of room for the reply's
 *    3    1  flags, RECORD_*
 *    4    4  bytes of the frame's head         8  4  bytes of its payload
 *   12    4  number of what is offered        16  4  number of what is answered; 0: none
 *   20    4  zero
 *   24       rows {u64 address, u32 length, u32 rkey}, then the head
 * DONE has a number in "answered" and nothing else: whoever it was offered to does nothing
 * with that memory any more.  REVOKE has one in "offered" and nothing else: it asks for DONE,
 * unless an answer is on its way. */
#ifndef NET_RDMA_WIRE_H
#define NET_RDMA_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/bytes.h"
#include "net/credit.h"

#define SLOT		4096u
#define PREFIX		8u
#define RECORD		24u
#define ROW		16u
#define ROWS_MAX	64u
#define GID		16u
#define OFFERED_PORTS	16u		/* in an offer that are looked at */
#define OFFERED_ADDRS	64u
#define PKEYS_MAX	16u
#define TOKEN		16u
#define CREDITS_MIN	NET_CREDITS_MIN
#define CREDITS_MAX	1024u

/* A TELL is a record but of a FRAME, in one message; it may come between those of a frame,
 * and is never held back. */
enum word_kind { WORD_FIRST = 1, WORD_NEXT, WORD_BULK, WORD_CREDIT, WORD_TELL };
enum record_kind { RECORD_FRAME = 1, RECORD_DONE, RECORD_REVOKE };
enum { RECORD_STREAM = 1 };	/* the payload follows in BULKs */

struct word_head {
	uint16_t credits;
	uint8_t	 kind;
	uint32_t record_len;		/* of a FIRST */
};

struct record {
	uint8_t kind, iov_n, room_n, flags;
	uint32_t head_len, bulk_len, number, answers;
	const uint8_t *rows, *head;	/* in place */
};

/* Memory of the peer's that came with a request: its payload, room for the reply's. */
struct row {
	uint64_t addr;
	uint32_t len, rkey;
};

/* ---- the set-up ----
 *
 * A message is u8 step, u8 no (1: over TCP), and parts: u8 kind, u8 zero, u16 bytes, then
 * these; little-endian.  Parts of kinds that are not known are skipped, and so is what follows
 * within a part: a later version adds either. */
enum rdma_step { STEP_OFFER = 1, STEP_ANSWER, STEP_READY, STEP_GO };

/* What two ports must have in common; not how verbs number them. */
enum rdma_link { LINK_NONE, LINK_IB, LINK_ROCE, LINK_IWARP };

/* Why not.  Of two that apply the later is said. */
enum rdma_why { WHY_NOTHING, WHY_DEVICE, WHY_LINK, WHY_ADDRESS, WHY_PARTITION, WHY_FAILED };

struct rdma_offered_port {
	uint8_t	 link, mtu;		/* LINK_NONE: it is down */
	uint16_t lid;
	uint16_t used;			/* connections */
	uint8_t	 keys_n;		/* of partitions */
	uint16_t keys[PKEYS_MAX];
};

struct rdma_offered_addr {
	uint8_t port;			/* index of its port */
	uint8_t gid[GID];
};

struct rdma_offered {
	unsigned ports_n, addrs_n;
	struct rdma_offered_port ports[OFFERED_PORTS];
	struct rdma_offered_addr addrs[OFFERED_ADDRS];
};

/* What the other end of a queue pair must know.  Where librdmacm connects (iWARP), numbers of
 * queue pairs and packets are zero, and gid is the address. */
struct rdma_end {
	uint32_t qpn, psn, credits;
	uint16_t lid, key;		/* key: of the partition */
	uint8_t	 mtu, reads;		/* mtu: enum ibv_mtu */
	uint8_t	 gid[GID];
};

/* A message after the offer. */
struct rdma_said {
	uint8_t	 step;			/* enum rdma_step */
	bool	 no;
	uint16_t why;			/* no: enum rdma_why, or one of a later version */
	bool	 has_end, has_call;
	uint16_t which;			/* answer: of the addresses offered */
	struct rdma_end end;
	uint16_t port;			/* call: what to connect to, at end.gid, */
	uint8_t	 token[TOKEN];		/* and what to say there, once */
};

/* All of these: false when the bytes are not what they must be. */

/* @p: a message of @n bytes; more than PREFIX are of the record or payload. */
bool	net_rdma_word_get(const uint8_t *p, uint32_t n, struct word_head *out);
void	net_rdma_word_put(uint8_t p[PREFIX], const struct word_head *w);
/* A record, whole; a frame's lengths are within the bounds given and agree with those in
 * its head, which is not checked further. */
bool	net_rdma_record_get(const uint8_t *p, uint32_t n, uint32_t head_max,
	    uint32_t bulk_max, struct record *out);
/* RECORD bytes; rows and head are the caller's. */
void	net_rdma_record_put(struct bytes_writer *w, const struct record *r);
/* @n rows, and the sum of their lengths. */
bool	net_rdma_rows_get(const uint8_t *p, unsigned n, struct row *rows, uint32_t *sum);
void	net_rdma_rows_put(struct bytes_writer *w, const struct row *rows, unsigned n);
/* A message of the set-up.  Offer: only what comes with STEP_OFFER; said: the others. */
bool	net_rdma_offer_get(const uint8_t *p, uint32_t n, struct rdma_offered *out);
uint32_t net_rdma_offer_put(uint8_t *p, uint32_t n, const struct rdma_offered *o);
bool	net_rdma_said_get(const uint8_t *p, uint32_t n, struct rdma_said *out);
uint32_t net_rdma_said_put(uint8_t *p, uint32_t n, const struct rdma_said *s);

#endif
