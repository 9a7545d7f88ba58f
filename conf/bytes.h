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

void		bytes_reader_init(struct bytes_reader *r, const void *p, size_t n);
uint8_t		bytes_get_u8(struct bytes_reader *r);
uint16_t	bytes_get_u16(struct bytes_reader *r);
uint32_t	bytes_get_u32(struct bytes_reader *r);
uint64_t	bytes_get_u64(struct bytes_reader *r);
/* @n bytes in place, borrowed from the input; NULL when there are fewer. */
const void     *bytes_get_raw(struct bytes_reader *r, size_t n);
size_t		bytes_left(const struct bytes_reader *r);
/* Nothing failed and nothing is left over. */
bool		bytes_reader_done(const struct bytes_reader *r);

void		bytes_writer_init(struct bytes_writer *w, void *p, size_t n);
void		bytes_put_u8(struct bytes_writer *w, uint8_t v);
void		bytes_put_u16(struct bytes_writer *w, uint16_t v);
void		bytes_put_u32(struct bytes_writer *w, uint32_t v);
void		bytes_put_u64(struct bytes_writer *w, uint64_t v);
void		bytes_put_raw(struct bytes_writer *w, const void *p, size_t n);
size_t		bytes_written(const struct bytes_writer *w);

/* Big-endian, for table keys (they must sort by value). */
void		bytes_be32(uint8_t out[4], uint32_t v);
void		bytes_be64(uint8_t out[8], uint64_t v);
uint32_t	bytes_from_be32(const uint8_t in[4]);
uint64_t	bytes_from_be64(const uint8_t in[8]);

#endif
