/* SPDX-License-Identifier: MIT */
/* msgpack.c - one byte of type, big-endian numbers.
 *
 * Invariants
 *  1. start <= p <= end; what failed wrote nothing of the value it failed at.
 *  2. A failed reader has p == end, so that every later get fails too.
 *  3. What a reader hands out as a count is at most the bytes that are left. */
#include "net/msgpack.h"

#include <string.h>

#include "conf/err.h"

/* ---- writer ---- */

void
msgpack_writer_init(struct msgpack_writer *w, void *p, size_t n)
{
	w->start = w->p = p;
	w->end = w->p + n;
	w->failed = false;
}

size_t
msgpack_written(const struct msgpack_writer *w)
{
	return (size_t)(w->p - w->start);
}

static bool
room(struct msgpack_writer *w, size_t n)
{
	if (w->failed || n > (size_t)(w->end - w->p))
		w->failed = true;
	return !w->failed;
}

/* A type byte and @n (1, 2, 4, 8) bytes of @v. */
static void
put_tagged(struct msgpack_writer *w, uint8_t tag, uint64_t v, unsigned n)
{
	if (!room(w, 1 + n))
		return;
	*w->p = tag;
	for (unsigned i = n; i > 0; i--, v >>= 8)
		w->p[i] = (uint8_t)v;
	w->p += 1 + n;
}

static void
put_byte(struct msgpack_writer *w, uint8_t b)
{
	if (room(w, 1))
		*w->p++ = b;
}

void
msgpack_put_u64(struct msgpack_writer *w, uint64_t v)
{
	if (v < 0x80)
		put_byte(w, (uint8_t)v);
	else if (v <= UINT8_MAX)
		put_tagged(w, 0xcc, v, 1);
	else if (v <= UINT16_MAX)
		put_tagged(w, 0xcd, v, 2);
	else if (v <= UINT32_MAX)
		put_tagged(w, 0xce, v, 4);
	else
		put_tagged(w, 0xcf, v, 8);
}

void
msgpack_put_i64(struct msgpack_writer *w, int64_t v)
{
	if (v >= 0)
		msgpack_put_u64(w, (uint64_t)v);
	else if (v >= -32)
		put_byte(w, (uint8_t)v);
	else if (v >= INT8_MIN)
		put_tagged(w, 0xd0, (uint64_t)v, 1);
	else if (v >= INT16_MIN)
		put_tagged(w, 0xd1, (uint64_t)v, 2);
	else if (v >= INT32_MIN)
		put_tagged(w, 0xd2, (uint64_t)v, 4);
	else
		put_tagged(w, 0xd3, (uint64_t)v, 8);
}

static void
put_raw(struct msgpack_writer *w, const void *p, uint32_t n)
{
	if (n > 0 && room(w, n)) {
		memcpy(w->p, p, n);
		w->p += n;
	}
}

void
msgpack_put_str(struct msgpack_writer *w, const void *p, uint32_t n)
{
	if (n < 32)
		put_byte(w, (uint8_t)(0xa0 | n));
	else if (n <= UINT8_MAX)
		put_tagged(w, 0xd9, n, 1);
	else if (n <= UINT16_MAX)
		put_tagged(w, 0xda, n, 2);
	else
		put_tagged(w, 0xdb, n, 4);
	put_raw(w, p, n);
}

void
msgpack_put_bin(struct msgpack_writer *w, const void *p, uint32_t n)
{
	if (n <= UINT8_MAX)
		put_tagged(w, 0xc4, n, 1);
	else if (n <= UINT16_MAX)
		put_tagged(w, 0xc5, n, 2);
	else
		put_tagged(w, 0xc6, n, 4);
	put_raw(w, p, n);
}

void
msgpack_put_array(struct msgpack_writer *w, uint32_t n)
{
	if (n < 16)
		put_byte(w, (uint8_t)(0x90 | n));
	else if (n <= UINT16_MAX)
		put_tagged(w, 0xdc, n, 2);
	else
		put_tagged(w, 0xdd, n, 4);
}

/* ---- reader ---- */

void
msgpack_reader_init(struct msgpack_reader *r, const void *p, size_t n)
{
	*r = (struct msgpack_reader){ .p = p };
	r->end = r->p + n;
}

size_t
msgpack_left(const struct msgpack_reader *r)
{
	return (size_t)(r->end - r->p);
}

int
msgpack_fail(struct msgpack_reader *r, int rc, const char *why)
{
	if (r->rc == 0) {
		r->rc = rc;
		r->why = why;
	}
	r->p = r->end;
	return 0;
}

static int
bad(struct msgpack_reader *r, const char *why)
{
	return msgpack_fail(r, ERR_BAD_MESSAGE, why);
}

/* The next type byte; 0xc1, which msgpack never uses, when there is none. */
static uint8_t
get_tag(struct msgpack_reader *r)
{
	if (r->p == r->end) {
		bad(r, "message ends too early");
		return 0xc1;
	}
	return *r->p++;
}

/* @n (1, 2, 4, 8) bytes, big-endian. */
static uint64_t
get_be(struct msgpack_reader *r, unsigned n)
{
	uint64_t v = 0;

	if (n > msgpack_left(r)) {
		bad(r, "message ends within a value");
		return 0;
	}
	for (unsigned i = 0; i < n; i++)
		v = v << 8 | r->p[i];
	r->p += n;
	return v;
}

/* An integer as sign and 64 bits: *negative says how to read the result. */
static uint64_t
get_int(struct msgpack_reader *r, bool *negative)
{
	uint8_t tag = get_tag(r);
	uint64_t v;

	*negative = false;
	if (tag < 0x80)
		return tag;
	if (tag >= 0xe0) {
		*negative = true;
		return (uint64_t)(int64_t)(int8_t)tag;
	}
	switch (tag) {
	case 0xcc: case 0xcd: case 0xce: case 0xcf:
		return get_be(r, 1u << (tag - 0xcc));
	case 0xd0:
		v = (uint64_t)(int64_t)(int8_t)get_be(r, 1);
		break;
	case 0xd1:
		v = (uint64_t)(int64_t)(int16_t)get_be(r, 2);
		break;
	case 0xd2:
		v = (uint64_t)(int64_t)(int32_t)get_be(r, 4);
		break;
	case 0xd3:
		v = get_be(r, 8);
		break;
	default:
		bad(r, "not an integer");
		return 0;
	}
	*negative = (int64_t)v < 0;
	return v;
}

uint64_t
msgpack_get_u64(struct msgpack_reader *r, uint64_t max)
{
	bool negative;
	uint64_t v;

	/* Most numbers are small and the first byte says it all. */
	if (r->p != r->end && *r->p < 0x80 && *r->p <= max)
		return *r->p++;
	v = get_int(r, &negative);
	if (r->rc == 0 && (negative || v > max))
		bad(r, "integer out of range");
	return r->rc == 0 ? v : 0;
}

int64_t
msgpack_get_i64(struct msgpack_reader *r, int64_t min, int64_t max)
{
	bool negative;
	uint64_t v = get_int(r, &negative);

	if (r->rc == 0 && (negative ? (int64_t)v < min :
	    (max < 0 || v > (uint64_t)max) ||
	    (min > 0 && v < (uint64_t)min)))
		bad(r, "integer out of range");
	return r->rc == 0 ? (int64_t)v : 0;
}

const void *
msgpack_get_bytes(struct msgpack_reader *r, uint32_t *n)
{
	uint8_t tag = get_tag(r);
	const uint8_t *p;

	*n = 0;
	if (tag >= 0xa0 && tag <= 0xbf)
		*n = tag & 0x1f;
	else if (tag >= 0xc4 && tag <= 0xc6)
		*n = (uint32_t)get_be(r, 1u << (tag - 0xc4));
	else if (tag >= 0xd9 && tag <= 0xdb)
		*n = (uint32_t)get_be(r, 1u << (tag - 0xd9));
	else
		bad(r, "not a string");
	if (r->rc == 0 && *n > msgpack_left(r))
		bad(r, "message ends within a string");
	if (r->rc != 0) {
		*n = 0;
		return NULL;
	}
	p = r->p;
	r->p += *n;
	return p;
}

uint32_t
msgpack_get_array(struct msgpack_reader *r)
{
	uint8_t tag = get_tag(r);
	uint32_t n = 0;

	if ((tag & 0xf0) == 0x90)
		n = tag & 0x0f;
	else if (tag == 0xdc || tag == 0xdd)
		n = (uint32_t)get_be(r, tag == 0xdc ? 2 : 4);
	else
		bad(r, "not an array");
	if (r->rc == 0 && n > msgpack_left(r))
		bad(r, "array longer than the message");
	return r->rc == 0 ? n : 0;
}

/* Pass over one value; returns how many values within it must be passed too. */
static uint64_t
skip_one(struct msgpack_reader *r)
{
	/* What follows tags 0xc0..0xdf: bytes of a length, and bytes besides. */
	enum { PLAIN, SIZED, ARRAY, MAP, NEVER };
	static const struct { uint8_t kind, len, more; } tags[32] = {
		{ PLAIN, 0, 0 }, { NEVER, 0, 0 }, { PLAIN, 0, 0 }, { PLAIN, 0, 0 },
		{ SIZED, 1, 0 }, { SIZED, 2, 0 }, { SIZED, 4, 0 },	/* bin */
		{ SIZED, 1, 1 }, { SIZED, 2, 1 }, { SIZED, 4, 1 },	/* ext */
		{ PLAIN, 0, 4 }, { PLAIN, 0, 8 },			/* float */
		{ PLAIN, 0, 1 }, { PLAIN, 0, 2 }, { PLAIN, 0, 4 }, { PLAIN, 0, 8 },
		{ PLAIN, 0, 1 }, { PLAIN, 0, 2 }, { PLAIN, 0, 4 }, { PLAIN, 0, 8 },
		{ PLAIN, 0, 2 }, { PLAIN, 0, 3 }, { PLAIN, 0, 5 }, { PLAIN, 0, 9 },
		{ PLAIN, 0, 17 },					/* fixext */
		{ SIZED, 1, 0 }, { SIZED, 2, 0 }, { SIZED, 4, 0 },	/* str */
		{ ARRAY, 2, 0 }, { ARRAY, 4, 0 }, { MAP, 2, 0 }, { MAP, 4, 0 }
	};
	uint8_t tag = get_tag(r), kind = PLAIN;
	uint64_t len = 0, bytes = 0;

	if (tag < 0x80 || tag >= 0xe0)
		return 0;
	if (tag < 0x90)
		return 2 * (uint64_t)(tag & 0x0f);
	if (tag < 0xa0)
		return tag & 0x0f;
	if (tag < 0xc0)
		bytes = tag & 0x1f;
	else {
		kind = tags[tag - 0xc0].kind;
		if (tags[tag - 0xc0].len > 0)
			len = get_be(r, tags[tag - 0xc0].len);
		bytes = tags[tag - 0xc0].more + (kind == SIZED ? len : 0);
	}
	if (kind == NEVER)
		return (uint64_t)bad(r, "byte that is no msgpack");
	if (bytes > msgpack_left(r))
		return (uint64_t)bad(r, "message ends within a value");
	r->p += bytes;
	return kind == ARRAY ? len : kind == MAP ? 2 * len : 0;
}

void
msgpack_skip(struct msgpack_reader *r)
{
	uint64_t todo = 1;

	/* Ends: every turn takes a byte, and no more is ever owed than is left. */
	for (; todo > 0 && r->rc == 0; todo--) {
		todo += skip_one(r);
		if (todo - 1 > msgpack_left(r))
			bad(r, "array longer than the message");
	}
}
