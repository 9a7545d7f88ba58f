/* SPDX-License-Identifier: MIT */
/* index.h - the rows of the chunk index (chunk/format.h) over an ordered table.
 * Encoding, decoding and applying a pending row to a committed one are pure. */
#ifndef CHUNK_INDEX_H
#define CHUNK_INDEX_H

#include "chunk/extent.h"
#include "chunk/format.h"

/* A committed version.  Big: for scratch space, not for stacks.  Zero it before the first
 * use (a zero row is "no chunk"), end with chunk_row_fini(). */
struct chunk_row {
	uint8_t	 shift, flags;		/* CHUNK_ROW_SEALED */
	uint64_t version;		/* 0: there is none */
	uint32_t len, epoch, check;
	uint32_t dedupe_n;
	struct chunk_dedupe dedupe[CHUNK_DEDUPE_MAX];
	struct chunk_extents extents;
	uint32_t crc_n;
	uint32_t crcs[CHUNK_CRCS_MAX];
	uint32_t stored;		/* bytes of the value it was read from, 0: none */
};

/* A pending version: what changes. */
struct chunk_pend {
	uint8_t	 shift, flags;		/* CHUNK_ROW_* */
	uint64_t version;		/* 0: there is none */
	uint64_t base;			/* committed version under it, 0: none */
	uint32_t len, epoch, check;
	uint32_t keep;			/* blocks of the base's extents that stay */
	uint32_t first, crc_n;		/* checksum blocks that change */
	uint32_t dedupe_n;
	struct chunk_dedupe dedupe[CHUNK_DEDUPE_MAX];
	struct chunk_extents extents;	/* replace what they cover */
	uint32_t crcs[CHUNK_CRCS_MAX];	/* of first, first + 1, ... */
	uint32_t stored;
};

enum chunk_key_kind { CHUNK_KEY_COMMITTED = 'C', CHUNK_KEY_PENDING = 'P' };

void	chunk_row_fini(struct chunk_row *r);
void	chunk_pend_fini(struct chunk_pend *p);

void	chunk_key_encode(enum chunk_key_kind kind, target_id target, struct chunk_id id,
	    uint8_t out[CHUNK_KEY_BYTES]);
/* 0 or ERR_DISK_DAMAGED. */
int	chunk_key_decode(const void *key, size_t len, target_id *target,
	    struct chunk_id *id);

/* Bytes of the value in @out (at least CHUNK_ROW_MAX). */
size_t	chunk_row_encode(const struct chunk_row *r, const uint8_t key[CHUNK_KEY_BYTES],
	    uint8_t *out);
size_t	chunk_pend_encode(const struct chunk_pend *p,
	    const uint8_t key[CHUNK_KEY_BYTES], uint8_t *out);

/* @whole: also extents and crcs, else they are left alone.  0; ERR_DISK_DAMAGED when crc or
 * a bound is wrong; ERR_DISK_NEWER for a later format; -ENOMEM. */
int	chunk_row_decode(const uint8_t key[CHUNK_KEY_BYTES], const void *value, size_t len,
	    bool whole, struct chunk_row *out);
int	chunk_pend_decode(const uint8_t key[CHUNK_KEY_BYTES], const void *value,
	    size_t len, bool whole, struct chunk_pend *out);

/* crc32c over the crcs and the length of a chunk: equal bytes give equal checks. */
uint32_t chunk_row_check(const uint32_t *crcs, uint32_t n, uint32_t len);

/* The row that @c (version 0: none) becomes with @p, not a removal, and the space that
 * is no longer used then (@freed may be NULL).  0; ERR_DISK_DAMAGED when they do not fit
 * together; -ENOMEM. */
int	chunk_row_apply(const struct chunk_row *c, const struct chunk_pend *p,
	    struct chunk_row *out, struct chunk_extents *freed);
/* The dedupe list that results from that. Returns its length. */
uint32_t chunk_dedupe_apply(const struct chunk_row *c, const struct chunk_pend *p,
	    struct chunk_dedupe out[CHUNK_DEDUPE_MAX]);

/* ---- over a table ---- */

struct chunk_index {
	struct table *table;		/* borrowed */
	uint8_t	     *buf;		/* CHUNK_ROW_MAX, for encoding */
	uint64_t      cost_bytes;	/* estimate of what the rows take in the store */
};

int	chunk_index_init(struct chunk_index *x, struct table *table);
void	chunk_index_fini(struct chunk_index *x);

/* Row "L". put: 0, -ENOMEM. get: 0, -ENOENT, ERR_DISK_DAMAGED, ERR_DISK_NEWER, -EIO. */
int	chunk_index_put_label(struct chunk_index *x, const struct uid128 *disk_id);
int	chunk_index_get_label(struct chunk_index *x, struct uid128 *disk_id);

/* 0; -ENOENT (the out row is then version 0); or as decode, or -EIO. */
int	chunk_index_get(struct chunk_index *x, target_id target, struct chunk_id id,
	    bool whole, struct chunk_row *out);
int	chunk_index_get_pend(struct chunk_index *x, target_id target, struct chunk_id id,
	    bool whole, struct chunk_pend *out);

/* Write @r; @was is the stored size of the row it replaces, 0: there was none.
 * 0 or -ENOMEM. */
int	chunk_index_put(struct chunk_index *x, target_id target, struct chunk_id id,
	    const struct chunk_row *r, uint32_t was);
int	chunk_index_put_pend(struct chunk_index *x, target_id target, struct chunk_id id,
	    const struct chunk_pend *p, uint32_t was);
int	chunk_index_del(struct chunk_index *x, enum chunk_key_kind kind, target_id target,
	    struct chunk_id id, uint32_t was);
/* For recovery: count a row that was found. */
void	chunk_index_count(struct chunk_index *x, uint32_t stored);

/* Next row of @kind after the first @prefix bytes of @key match; the key goes to @found,
 * the value is borrowed until the next call. 0, -ENOENT, ERR_DISK_DAMAGED, -EIO. */
int	chunk_index_seek(struct chunk_index *x, const uint8_t key[CHUNK_KEY_BYTES],
	    bool after, size_t prefix, uint8_t found[CHUNK_KEY_BYTES], const void **value,
	    size_t *value_len);

#endif
