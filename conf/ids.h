/* SPDX-License-Identifier: MIT */
/* ids.h - names of things: fixed types, order and text form (DESIGN section 3). */
#ifndef CONF_IDS_H
#define CONF_IDS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef uint32_t node_id;	/* 0 is none; given by the manager */
typedef uint32_t target_id;	/* 0 is none */
typedef uint32_t chain_id;	/* 0 is none */
typedef uint32_t chain_table_id;/* 0 is none */
typedef uint64_t ino_id;	/* group 16 bits, counter 48; 0 is none */

#define INO_ROOT	1ull

/* 128 random bits: a data disk, a client process. */
struct uid128 {
	uint8_t b[16];
};

/* A chunk of a file; key order is (ino, index), both big-endian. */
struct chunk_id {
	ino_id	 ino;
	uint32_t index;
};

static inline int
chunk_id_cmp(struct chunk_id a, struct chunk_id b)
{
	if (a.ino != b.ino)
		return a.ino < b.ino ? -1 : 1;
	return a.index < b.index ? -1 : a.index > b.index;
}

static inline bool
uid128_eq(const struct uid128 *a, const struct uid128 *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static inline bool
uid128_zero(const struct uid128 *a)
{
	static const struct uid128 zero;

	return memcmp(a, &zero, sizeof(*a)) == 0;
}

#define UID128_TEXT	33	/* 32 hex digits and the end */
void	uid128_text(const struct uid128 *u, char out[UID128_TEXT]);
/* 0, or -EINVAL when @text is not exactly 32 hex digits. */
int	uid128_parse(const char *text, struct uid128 *out);

#endif
