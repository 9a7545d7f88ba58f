/* SPDX-License-Identifier: MIT */
/* msgpack.h - bounded reader and writer for the part of msgpack that our messages use.
 * Source: the msgpack specification, github.com/msgpack/msgpack/blob/master/spec.md.
 *
 * The reader never believes a count: an array of n values needs n bytes that are there,
 * bytes of a string are borrowed in place, nothing is allocated.  A reader or writer
 * that failed once stays failed, so a codec checks once, at its end.  Writers make the
 * shortest form of every value; readers take any. */
#ifndef NET_MSGPACK_H
#define NET_MSGPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes into a fixed buffer the caller owns. */
struct msgpack_writer {
	uint8_t *start, *p, *end;
	bool	 failed;
};

struct msgpack_reader {
	const uint8_t *p, *end;
	int	       rc;	/* 0, or why it stopped: ERR_BAD_MESSAGE, -ENOMEM */
	const char    *why;	/* the same as static text; NULL when rc == 0 */
	unsigned       depth;	/* of open messages and lists; the user's */
};

void	msgpack_writer_init(struct msgpack_writer *w, void *p, size_t n);
size_t	msgpack_written(const struct msgpack_writer *w);
void	msgpack_put_u64(struct msgpack_writer *w, uint64_t v);
void	msgpack_put_i64(struct msgpack_writer *w, int64_t v);
void	msgpack_put_str(struct msgpack_writer *w, const void *p, uint32_t n);
void	msgpack_put_bin(struct msgpack_writer *w, const void *p, uint32_t n);
/* Opens an array; its @n values follow. */
void	msgpack_put_array(struct msgpack_writer *w, uint32_t n);

void	msgpack_reader_init(struct msgpack_reader *r, const void *p, size_t n);
size_t	msgpack_left(const struct msgpack_reader *r);
/* Stop here; the first reason stays.  Always returns 0, for use in a return. */
int	msgpack_fail(struct msgpack_reader *r, int rc, const char *why);
/* An integer no greater than @max; 0 on failure. */
uint64_t msgpack_get_u64(struct msgpack_reader *r, uint64_t max);
/* An integer within [@min, @max]; 0 on failure. */
int64_t	msgpack_get_i64(struct msgpack_reader *r, int64_t min, int64_t max);
/* A str or bin, in place, and its length; NULL on failure (never for an empty one). */
const void *msgpack_get_bytes(struct msgpack_reader *r, uint32_t *n);
/* How many values follow in the array that starts here; 0 on failure. */
uint32_t msgpack_get_array(struct msgpack_reader *r);
/* Pass over one value of any type, however deep, without recursion. */
void	msgpack_skip(struct msgpack_reader *r);

#endif
