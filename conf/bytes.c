/* SPDX-License-Identifier: MIT */
/* bytes.c - byte order by shifts: the same on every machine, alignment never matters. */
#include "conf/bytes.h"

#include <string.h>

void
bytes_reader_init(struct bytes_reader *r, const void *p, size_t n)
{
	r->p = p;
	r->end = r->p + n;
	r->failed = false;
}

size_t
bytes_left(const struct bytes_reader *r)
{
	return r->failed ? 0 : (size_t)(r->end - r->p);
}

bool
bytes_reader_done(const struct bytes_reader *r)
{
	return !r->failed && r->p == r->end;
}

const void *
bytes_get_raw(struct bytes_reader *r, size_t n)
{
	const uint8_t *p = r->p;

	if (r->failed || n > (size_t)(r->end - r->p)) {
		r->failed = true;
		return NULL;
	}
	r->p += n;
	return p;
}

static uint64_t
get(struct bytes_reader *r, unsigned n)
{
	const uint8_t *p = bytes_get_raw(r, n);
	uint64_t v = 0;

	if (p == NULL)
		return 0;
	for (unsigned i = n; i-- > 0;)
		v = v << 8 | p[i];
	return v;
}

uint8_t
bytes_get_u8(struct bytes_reader *r)
{
	return (uint8_t)get(r, 1);
}

uint16_t
bytes_get_u16(struct bytes_reader *r)
{
	return (uint16_t)get(r, 2);
}

uint32_t
bytes_get_u32(struct bytes_reader *r)
{
	return (uint32_t)get(r, 4);
}

uint64_t
bytes_get_u64(struct bytes_reader *r)
{
	return get(r, 8);
}

void
bytes_writer_init(struct bytes_writer *w, void *p, size_t n)
{
	w->start = w->p = p;
	w->end = w->p + n;
	w->failed = false;
}

size_t
bytes_written(const struct bytes_writer *w)
{
	return (size_t)(w->p - w->start);
}

void
bytes_put_raw(struct bytes_writer *w, const void *p, size_t n)
{
	if (w->failed || n > (size_t)(w->end - w->p)) {
		w->failed = true;
		return;
	}
	if (n > 0)
		memcpy(w->p, p, n);
	w->p += n;
}

static void
put(struct bytes_writer *w, uint64_t v, unsigned n)
{
	uint8_t b[8];

	for (unsigned i = 0; i < n; i++, v >>= 8)
		b[i] = (uint8_t)v;
	bytes_put_raw(w, b, n);
}

void
bytes_put_u8(struct bytes_writer *w, uint8_t v)
{
	put(w, v, 1);
}

void
bytes_put_u16(struct bytes_writer *w, uint16_t v)
{
	put(w, v, 2);
}

void
bytes_put_u32(struct bytes_writer *w, uint32_t v)
{
	put(w, v, 4);
}

void
bytes_put_u64(struct bytes_writer *w, uint64_t v)
{
	put(w, v, 8);
}

void
bytes_be32(uint8_t out[4], uint32_t v)
{
	for (unsigned i = 4; i-- > 0; v >>= 8)
		out[i] = (uint8_t)v;
}

void
bytes_be64(uint8_t out[8], uint64_t v)
{
	for (unsigned i = 8; i-- > 0; v >>= 8)
		out[i] = (uint8_t)v;
}

uint32_t
bytes_from_be32(const uint8_t in[4])
{
	return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 |
	    (uint32_t)in[2] << 8 | in[3];
}

uint64_t
bytes_from_be64(const uint8_t in[8])
{
	return (uint64_t)bytes_from_be32(in) << 32 | bytes_from_be32(in + 4);
}
