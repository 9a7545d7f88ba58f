/* SPDX-License-Identifier: MIT */
/* test_frame.c - the head of every frame: its bytes, its bounds, where payload goes. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/crc32c.h"
#include "conf/err.h"
#include "conf/rand.h"
#include "net/frame.h"
#include "tests/suite.h"

/* "FSD1", crc, msg_len 3 + 8, bulk_len 0x01020304, id, method 0x0301, kind, pieces, arg,
 * message, piece {0, 0x11223344}. */
static const uint8_t golden[] = {
	'F', 'S', 'D', '1', 0x73, 0xa6, 0x1c, 0x17, 11, 0, 0, 0, 4, 3, 2, 1,
	8, 7, 6, 5, 4, 3, 2, 1, 0x01, 0x03, 4, 1, 0xe8, 3, 0, 0,
	'a', 'b', 'c', 0, 0, 0, 0, 0x44, 0x33, 0x22, 0x11
};
static const struct net_frame golden_frame = {
	.msg_len = 11, .bulk_len = 0x01020304, .id = 0x0102030405060708,
	.method = 0x0301, .kind = NET_FRAME_REQUEST, .pieces = 1, .arg = 1000
};

START_TEST(golden_bytes)
{
	uint8_t out[sizeof(golden)];

	memcpy(out + NET_HEAD, "abc", 3);
	net_frame_piece_put(out + NET_HEAD + 3, 0, 0x11223344);
	net_frame_encode(&golden_frame, out);
	ck_assert_mem_eq(out, golden, sizeof(golden));
}
END_TEST

/* Those that are no more than a head. */
static const struct {
	const char	*what;
	struct net_frame f;
	uint8_t		 bytes[NET_HEAD];
} words[] = {
	{ "question", { .kind = NET_FRAME_ASK, .id = 0x0102030405060708, .arg = 0x01020304 },
	  { 0x46, 0x53, 0x44, 0x31, 0x41, 0x4e, 0xec, 0xe5, 0x00, 0x00, 0x00, 0x00,
	    0x00, 0x00, 0x00, 0x00, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
	    0x00, 0x00, 0x09, 0x00, 0x04, 0x03, 0x02, 0x01 } },
	{ "grant", { .kind = NET_FRAME_GRANT, .id = 0x0102030405060708 },
	  { 0x46, 0x53, 0x44, 0x31, 0xf6, 0xc7, 0x72, 0x95, 0x00, 0x00, 0x00, 0x00,
	    0x00, 0x00, 0x00, 0x00, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
	    0x00, 0x00, 0x0a, 0x00, 0x00, 0x00, 0x00, 0x00 } },
	{ "not wanted", { .kind = NET_FRAME_GRANT, .id = 0x0102030405060708, .arg = 1 },
	  { 0x46, 0x53, 0x44, 0x31, 0x4e, 0x6d, 0x37, 0x48, 0x00, 0x00, 0x00, 0x00,
	    0x00, 0x00, 0x00, 0x00, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
	    0x00, 0x00, 0x0a, 0x00, 0x01, 0x00, 0x00, 0x00 } }
};

START_TEST(golden_words)
{
	uint8_t out[NET_HEAD];

	net_frame_encode(&words[_i].f, out);
	ck_assert_msg(memcmp(out, words[_i].bytes, NET_HEAD) == 0, "%s", words[_i].what);
}
END_TEST

START_TEST(golden_reads)
{
	uint32_t head_len, bulk_len, off, len;
	struct net_frame f;

	ck_assert_int_eq(net_frame_peek(golden, NET_HEAD_MAX, NET_BULK_MAX,
	    &head_len, &bulk_len), 0);
	ck_assert_uint_eq(head_len, sizeof(golden));
	ck_assert_uint_eq(bulk_len, 0x01020304);
	ck_assert_int_eq(net_frame_decode(golden, sizeof(golden), &f), 0);
	ck_assert_uint_eq(f.id, golden_frame.id);
	ck_assert_uint_eq(f.method, golden_frame.method);
	ck_assert_uint_eq(f.kind, golden_frame.kind);
	ck_assert_uint_eq(f.arg, golden_frame.arg);
	ck_assert_uint_eq(net_frame_msg_len(&f), 3);
	net_frame_piece(golden, &f, 0, &off, &len);
	ck_assert_uint_eq(off, 0);
	ck_assert_uint_eq(len, 0x11223344);
}
END_TEST

/* Any bit that flips is seen: by the checksum, or by the magic. */
START_TEST(every_bit_counts)
{
	uint8_t copy[sizeof(golden)];
	struct net_frame f;

	for (unsigned bit = 0; bit < sizeof(golden) * 8; bit++) {
		memcpy(copy, golden, sizeof(golden));
		copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
		ck_assert_int_eq(net_frame_decode(copy, sizeof(copy), &f),
		    ERR_BAD_MESSAGE);
	}
	for (uint32_t n = 0; n < sizeof(golden); n++)
		ck_assert_int_eq(net_frame_decode(golden, n, &f), ERR_BAD_MESSAGE);
}
END_TEST

static const struct {
	const char *what;
	uint32_t    msg_len, bulk_len;
	bool	    good;
} peeks[] = {
	{ "empty", 0, 0, true },
	{ "largest", 1000, 5000, true },
	{ "message too long", 1001, 0, false },
	{ "length that wraps", 0xffffffff, 0, false },
	{ "length that wraps with the head", 0xffffffe0, 0, false },
	{ "payload too long", 0, 5001, false },
	{ "both huge", 0xffffffff, 0xffffffff, false }
};

START_TEST(peek_bounds)
{
	struct net_frame f = { .msg_len = 0, .kind = NET_FRAME_REPLY };
	uint32_t head_len = 0, bulk_len = 0;
	uint8_t head[NET_HEAD];
	int rc;

	net_frame_encode(&f, head);
	for (unsigned i = 0; i < 4; i++) {
		head[8 + i] = (uint8_t)(peeks[_i].msg_len >> 8 * i);
		head[12 + i] = (uint8_t)(peeks[_i].bulk_len >> 8 * i);
	}
	rc = net_frame_peek(head, NET_HEAD + 1000, 5000, &head_len, &bulk_len);
	ck_assert_msg(rc == (peeks[_i].good ? 0 : ERR_BAD_MESSAGE), "%s",
	    peeks[_i].what);
	if (peeks[_i].good)
		ck_assert_uint_eq(head_len, NET_HEAD + peeks[_i].msg_len);
}
END_TEST

static const struct {
	const char	*what;
	struct net_frame f;
	bool		 good;
} sounds[] = {
	{ "request", { .kind = 4, .method = 1, .arg = 1 }, true },
	{ "request without time", { .kind = 4, .method = 1 }, false },
	{ "request with two pieces",
	    { .kind = 4, .arg = 1, .pieces = 2, .msg_len = 16 }, false },
	{ "reply", { .kind = 5, .id = 9, .arg = (uint32_t)-2001 }, true },
	{ "reply with a method", { .kind = 5, .method = 1 }, false },
	{ "reply with pieces", { .kind = 5, .pieces = 64, .msg_len = 512 }, true },
	{ "too many pieces", { .kind = 5, .pieces = 65, .msg_len = 520 }, false },
	{ "pieces longer than the message",
	    { .kind = 5, .pieces = 2, .msg_len = 15 }, false },
	{ "hello", { .kind = 1, .msg_len = 56 }, true },
	{ "hello with payload", { .kind = 2, .bulk_len = 1 }, false },
	{ "hello with an id", { .kind = 3, .id = 1 }, false },
	{ "ping", { .kind = 6 }, true },
	{ "ping with a message", { .kind = 6, .msg_len = 1 }, false },
	{ "pong with an arg", { .kind = 7, .arg = 1 }, false },
	{ "kind 0", { .kind = 0 }, false },
	{ "words of RDMA", { .kind = 8, .msg_len = 40 }, true },
	{ "words of RDMA with payload", { .kind = 8, .bulk_len = 1 }, false },
	{ "question", { .kind = 9, .id = 7, .arg = 20000 }, true },
	{ "question about nothing", { .kind = 9, .id = 7 }, false },
	{ "question about too much", { .kind = 9, .id = 7, .arg = NET_BULK_MAX + 1 }, false },
	{ "question with a message", { .kind = 9, .arg = 1, .msg_len = 1 }, false },
	{ "question with payload", { .kind = 9, .arg = 1, .bulk_len = 1 }, false },
	{ "question with a method", { .kind = 9, .arg = 1, .method = 1 }, false },
	{ "grant", { .kind = 10, .id = 7 }, true },
	{ "not wanted", { .kind = 10, .id = 7, .arg = 1 }, true },
	{ "neither", { .kind = 10, .id = 7, .arg = 2 }, false },
	{ "grant with a piece", { .kind = 10, .pieces = 1, .msg_len = 8 }, false },
	{ "grant with payload", { .kind = 10, .bulk_len = 1 }, false },
	{ "kind 11", { .kind = 11 }, false },
	{ "kind 255", { .kind = 255 }, false }
};

START_TEST(kinds)
{
	uint8_t head[NET_HEAD + 1000] = { 0 };
	struct net_frame f;
	int rc;

	net_frame_encode(&sounds[_i].f, head);
	rc = net_frame_decode(head, NET_HEAD + sounds[_i].f.msg_len, &f);
	ck_assert_msg(rc == (sounds[_i].good ? 0 : ERR_BAD_MESSAGE), "%s",
	    sounds[_i].what);
}
END_TEST

/* Room: 10, 0, 20 and 30 bytes. */
static const struct {
	const char *what;
	uint32_t    bulk_len;
	struct { uint32_t off, len; } pieces[3];
	unsigned    n, space;
	int	    rc;
	struct { unsigned at; size_t len; } parts[6];	/* offsets in the room */
} scatters[] = {
	{ "nothing", 0, { { 0, 0 } }, 0, 6, 0, { { 0, 0 } } },
	{ "all", 60, { { 0, 60 } }, 1, 6, 0, { { 0, 10 }, { 10, 20 }, { 30, 30 } } },
	{ "within one", 5, { { 12, 5 } }, 1, 6, 0, { { 12, 5 } } },
	{ "over an edge", 4, { { 8, 4 } }, 1, 6, 0, { { 8, 2 }, { 10, 2 } } },
	{ "out of order", 6, { { 50, 3 }, { 0, 3 } }, 2, 6, 0, { { 50, 3 }, { 0, 3 } } },
	{ "empty piece", 3, { { 5, 0 }, { 0, 3 } }, 2, 6, 0, { { 0, 3 } } },
	{ "empty piece at the end", 3, { { 60, 0 }, { 0, 3 } }, 2, 6, 0, { { 0, 3 } } },
	{ "last byte", 1, { { 59, 1 } }, 1, 6, 0, { { 59, 1 } } },
	{ "past the end", 1, { { 60, 1 } }, 1, 6, ERR_BAD_MESSAGE, { { 0, 0 } } },
	{ "over the end", 2, { { 59, 2 } }, 1, 6, ERR_BAD_MESSAGE, { { 0, 0 } } },
	{ "far out", 1, { { 0xffffffff, 1 } }, 1, 6, ERR_BAD_MESSAGE, { { 0, 0 } } },
	{ "wraps", 1, { { 0xffffffff, 0xffffffff } }, 1, 6, ERR_BAD_MESSAGE, { { 0, 0 } } },
	{ "sum too small", 9, { { 0, 8 } }, 1, 6, ERR_BAD_MESSAGE, { { 0, 0 } } },
	{ "sum too large", 7, { { 0, 8 } }, 1, 6, ERR_BAD_MESSAGE, { { 0, 0 } } },
	{ "sum that wraps", 0, { { 0, 1 }, { 0, 0xffffffff } }, 2, 6, ERR_BAD_MESSAGE, { { 0, 0 } } },
	{ "no space", 60, { { 0, 60 } }, 1, 2, -ENOSPC, { { 0, 0 } } }
};

START_TEST(scatter)
{
	uint8_t mem[60], head[NET_HEAD + 24];
	struct iovec room[] = {
		{ mem, 10 }, { mem + 10, 0 }, { mem + 10, 20 }, { mem + 30, 30 }
	};
	struct net_frame f = { .kind = NET_FRAME_REPLY };
	struct iovec out[6];
	unsigned n = scatters[_i].space, want = 0;

	f.bulk_len = scatters[_i].bulk_len;
	f.pieces = (uint8_t)scatters[_i].n;
	f.msg_len = f.pieces * NET_PIECE_BYTES;
	for (unsigned i = 0; i < scatters[_i].n; i++)
		net_frame_piece_put(head + NET_HEAD + i * NET_PIECE_BYTES,
		    scatters[_i].pieces[i].off, scatters[_i].pieces[i].len);
	net_frame_encode(&f, head);
	ck_assert_msg(net_frame_scatter(head, &f, room, 4, out, &n) ==
	    scatters[_i].rc, "%s", scatters[_i].what);
	if (scatters[_i].rc != 0)
		return;
	while (want < 6 && scatters[_i].parts[want].len > 0)
		want++;
	ck_assert_uint_eq(n, want);
	for (unsigned i = 0; i < n; i++) {
		ck_assert_msg(out[i].iov_base == mem + scatters[_i].parts[i].at &&
		    out[i].iov_len == scatters[_i].parts[i].len, "%s, part %u",
		    scatters[_i].what, i);
	}
}
END_TEST

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	TCase *t = tcase_create("all");

	tcase_add_test(t, golden_bytes);
	tcase_add_loop_test(t, golden_words, 0, N(words));
	tcase_add_test(t, golden_reads);
	tcase_add_test(t, every_bit_counts);
	tcase_add_loop_test(t, peek_bounds, 0, N(peeks));
	tcase_add_loop_test(t, kinds, 0, N(sounds));
	tcase_add_loop_test(t, scatter, 0, N(scatters));
	return suite_run("frame", t);
}
