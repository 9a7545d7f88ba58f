/* SPDX-License-Identifier: MIT */
/* bytes.h - bounded little-endian reader and writer for disk formats and log
 * entries.  A reader or writer that failed once stays failed and yields zeros, so
 * a codec checks once, at its end. */
#ifndef CONF_BYTES_H
#define CONF_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes_reader {
	const uint8_t *p, *end;
	bool	       failed;
};

/* Writes into a fixed buffer the caller owns. */
struct bytes_writer {
	uint8_t *start, *p, *end;
	bool	 failed;
};

/* Byte order by shifts: the same on every machine, alignment never matters, and compilers
 * make one load or store of it. */
static inline uint32_t
bytes_le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
	    (uint32_t)p[3] << 24;
}

static inline void
bytes_le32_put(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	p[2] = (uint8_t)(v >> 16);
	p[3] = (uint8_t)(v >> 24);
}

static inline void
bytes_reader_init(struct bytes_reader *r, const void *p, size_t n)
{
	r->p = p;
	r->end = r->p + n;
	r->failed = false;
}

/* @n bytes in place, borrowed from the input; NULL when there are fewer. */
static inline const void *
bytes_get_raw(struct bytes_reader *r, size_t n)
{
	const uint8_t *p = r->p;

	if (r->failed || n > (size_t)(r->end - p)) {
		r->failed = true;
		return NULL;
	}
	r->p = p + n;
	return p;
}

static inline uint8_t
bytes_get_u8(struct bytes_reader *r)
{
	const uint8_t *p = bytes_get_raw(r, 1);

	return p == NULL ? 0 : *p;
}

static inline uint16_t
bytes_get_u16(struct bytes_reader *r)
{
	const uint8_t *p = bytes_get_raw(r, 2);

	return p == NULL ? 0 : (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t
bytes_get_u32(struct bytes_reader *r)
{
	const uint8_t *p = bytes_get_raw(r, 4);

	return p == NULL ? 0 : bytes_le32(p);
}

static inline uint64_t
bytes_get_u64(struct bytes_reader *r)
{
	const uint8_t *p = bytes_get_raw(r, 8);

	return p == NULL ? 0 : bytes_le32(p) | (uint64_t)bytes_le32(p + 4) << 32;
}

size_t		bytes_left(const struct bytes_reader *r);
/* Nothing failed and nothing is left over. */
bool		bytes_reader_done(const struct bytes_reader *r);

static inline void
bytes_writer_init(struct bytes_writer *w, void *p, size_t n)
{
	w->start = w->p = p;
	w->end = w->p + n;
	w->failed = false;
}

/* Where @n bytes go; NULL when there is no room for them. */
static inline uint8_t *
bytes_put_room(struct bytes_writer *w, size_t n)
{
	uint8_t *p = w->p;

	if (w->failed || n > (size_t)(w->end - p)) {
		w->failed = true;
		return NULL;
	}
	w->p = p + n;
	return p;
}

static inline void
bytes_put_u8(struct bytes_writer *w, uint8_t v)
{
	uint8_t *p = bytes_put_room(w, 1);

	if (p != NULL)
		*p = v;
}

static inline void
bytes_put_u16(struct bytes_writer *w, uint16_t v)
{
	uint8_t *p = bytes_put_room(w, 2);

	if (p != NULL) {
		p[0] = (uint8_t)v;
		p[1] = (uint8_t)(v >> 8);
	}
}

static inline void
bytes_put_u32(struct bytes_writer *w, uint32_t v)
{
	uint8_t *p = bytes_put_room(w, 4);

	if (p != NULL)
		bytes_le32_put(p, v);
}

static inline void
bytes_put_u64(struct bytes_writer *w, uint64_t v)
{
	uint8_t *p = bytes_put_room(w, 8);

	if (p != NULL) {
		bytes_le32_put(p, (uint32_t)v);
		bytes_le32_put(p + 4, (uint32_t)(v >> 32));
	}
}

void		bytes_put_raw(struct bytes_writer *w, const void *p, size_t n);
size_t		bytes_written(const struct bytes_writer *w);

/* Big-endian, for table keys (they must sort by value). */
void		bytes_be32(uint8_t out[4], uint32_t v);
void		bytes_be64(uint8_t out[8], uint64_t v);
uint32_t	bytes_from_be32(const uint8_t in[4]);
uint64_t	bytes_from_be64(const uint8_t in[8]);

#endif
