/* SPDX-License-Identifier: MIT */
/* bytes.c - what of it is not worth being in every caller. */
#include "conf/bytes.h"

#include <string.h>

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

void
bytes_put_raw(struct bytes_writer *w, const void *p, size_t n)
{
	uint8_t *to = bytes_put_room(w, n);

	if (to != NULL && n > 0)
		memcpy(to, p, n);
}

size_t
bytes_written(const struct bytes_writer *w)
{
	return (size_t)(w->p - w->start);
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
