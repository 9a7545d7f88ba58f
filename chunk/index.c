/* SPDX-License-Identifier: MIT */
/* index.c - rows to bytes and back.  The crc starts from the key, so a value that ends up
 * under another key is noticed as well. */
#include "chunk/index.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/crc32c.h"
#include "conf/err.h"
#include "conf/version.h"

/* What LMDB takes for a value of @n bytes: half-full leaf pages, or overflow pages. */
static uint64_t
cost(uint32_t n)
{
	uint64_t leaf = 2 * (8 + CHUNK_KEY_BYTES + 8);

	if (n == 0)
		return 0;
	if (n + CHUNK_KEY_BYTES + 8 <= 2038)
		return leaf + 2 * (uint64_t)n;
	return leaf + (n + 16 + 4095) / 4096 * 4096;
}

static uint32_t
load32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
	    (uint32_t)p[3] << 24;
}

static void
store32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	p[2] = (uint8_t)(v >> 16);
	p[3] = (uint8_t)(v >> 24);
}

void
chunk_row_fini(struct chunk_row *r)
{
	chunk_extents_fini(&r->extents);
}

void
chunk_pend_fini(struct chunk_pend *p)
{
	chunk_extents_fini(&p->extents);
}

void
chunk_key_encode(enum chunk_key_kind kind, target_id target, struct chunk_id id,
    uint8_t out[CHUNK_KEY_BYTES])
{
	out[0] = (uint8_t)kind;
	bytes_be32(out + 1, target);
	bytes_be64(out + 5, id.ino);
	bytes_be32(out + 13, id.index);
}

int
chunk_key_decode(const void *key, size_t len, target_id *target, struct chunk_id *id)
{
	const uint8_t *k = key;

	if (len != CHUNK_KEY_BYTES ||
	    (k[0] != CHUNK_KEY_COMMITTED && k[0] != CHUNK_KEY_PENDING))
		return ERR_DISK_DAMAGED;
	*target = bytes_from_be32(k + 1);
	id->ino = bytes_from_be64(k + 5);
	id->index = bytes_from_be32(k + 13);
	return 0;
}

/* ---- the parts both kinds have ---- */

static void
put_tail(struct bytes_writer *w, const struct chunk_dedupe *d, uint32_t dedupe_n,
    const struct chunk_extents *x, const uint32_t *crcs, uint32_t crc_n)
{
	for (uint32_t i = 0; i < dedupe_n; i++) {
		bytes_put_raw(w, d[i].client.b, sizeof(d[i].client.b));
		bytes_put_u64(w, d[i].seq);
		bytes_put_u64(w, d[i].version);
	}
	for (size_t i = 0; i < x->n; i++) {
		bytes_put_u16(w, (uint16_t)x->v[i].at);
		bytes_put_u16(w, (uint16_t)x->v[i].count);
		bytes_put_u8(w, (uint8_t)x->v[i].disk);
		bytes_put_u32(w, (uint32_t)(x->v[i].disk >> 8));
	}
	if ((size_t)(w->end - w->p) < 4 * (size_t)crc_n)
		w->failed = true;
	for (uint32_t i = 0; i < crc_n && !w->failed; i++, w->p += 4)
		store32(w->p, crcs[i]);
}

static int
get_tail(struct bytes_reader *r, bool whole, uint8_t shift, struct chunk_dedupe *d,
    uint32_t dedupe_n, struct chunk_extents *x, uint32_t extent_n, uint32_t *crcs,
    uint32_t crc_n)
{
	const uint8_t *p;

	if (dedupe_n > CHUNK_DEDUPE_MAX || bytes_left(r) !=
	    (size_t)dedupe_n * CHUNK_DEDUPE_BYTES + (size_t)extent_n * CHUNK_EXTENT_BYTES +
	    (size_t)crc_n * 4)
		return ERR_DISK_DAMAGED;
	for (uint32_t i = 0; i < dedupe_n; i++) {
		memcpy(d[i].client.b, bytes_get_raw(r, 16), 16);
		d[i].seq = bytes_get_u64(r);
		d[i].version = bytes_get_u64(r);
	}
	if (!whole)
		return 0;
	p = bytes_get_raw(r, (size_t)extent_n * CHUNK_EXTENT_BYTES);
	x->n = 0;
	for (uint32_t i = 0; i < extent_n; i++, p += CHUNK_EXTENT_BYTES) {
		struct chunk_extent e = {
			.at = (uint32_t)p[0] | (uint32_t)p[1] << 8,
			.count = (uint32_t)p[2] | (uint32_t)p[3] << 8,
			.disk = (uint64_t)load32(p + 5) << 8 | p[4],
		};
		int rc;

		if (e.count == 0)
			return ERR_DISK_DAMAGED;
		if ((rc = chunk_extents_add(x, e)) != 0)
			return rc;
	}
	if (!chunk_extents_valid(x, (1u << shift) / CHUNK_BLOCK, CHUNK_DISK_BLOCKS_MAX))
		return ERR_DISK_DAMAGED;
	p = bytes_get_raw(r, (size_t)crc_n * 4);
	for (uint32_t i = 0; i < crc_n; i++)
		crcs[i] = load32(p + 4 * (size_t)i);
	return 0;
}

/* Check the crc and format of a value. */
static int
open_row(struct bytes_reader *r, const uint8_t key[CHUNK_KEY_BYTES], const void *value,
    size_t len)
{
	uint32_t crc;
	uint8_t format;

	bytes_reader_init(r, value, len);
	crc = bytes_get_u32(r);
	if (r->failed || crc != crc32c(crc32c(0, key, CHUNK_KEY_BYTES),
	    (const uint8_t *)value + 4, len - 4))
		return ERR_DISK_DAMAGED;
	/* Formats only grow: a good crc under a higher number is from the future. */
	format = bytes_get_u8(r);
	if (format > CHUNK_ROW_FORMAT)
		return ERR_DISK_NEWER;
	return r->failed || format == 0 ? ERR_DISK_DAMAGED : 0;
}

static void
seal_row(const uint8_t key[CHUNK_KEY_BYTES], uint8_t *value, size_t len)
{
	store32(value, crc32c(crc32c(0, key, CHUNK_KEY_BYTES), value + 4, len - 4));
}

static bool
shift_ok(uint8_t shift, uint32_t len)
{
	return shift >= CHUNK_SHIFT_MIN && shift <= CHUNK_SHIFT_MAX && len <= 1u << shift;
}

/* ---- committed ---- */

size_t
chunk_row_encode(const struct chunk_row *r, const uint8_t key[CHUNK_KEY_BYTES],
    uint8_t *out)
{
	struct bytes_writer w;

	assert(shift_ok(r->shift, r->len));
	assert(r->version > 0);
	assert(r->crc_n == chunk_blocks(r->len, chunk_sum_bytes(r->shift)));
	bytes_writer_init(&w, out, CHUNK_ROW_MAX);
	bytes_put_u32(&w, 0);
	bytes_put_u8(&w, CHUNK_ROW_FORMAT);
	bytes_put_u8(&w, r->shift);
	bytes_put_u8(&w, r->flags);
	bytes_put_u8(&w, (uint8_t)r->dedupe_n);
	bytes_put_u64(&w, r->version);
	bytes_put_u32(&w, r->len);
	bytes_put_u32(&w, r->epoch);
	bytes_put_u32(&w, r->check);
	bytes_put_u32(&w, (uint32_t)r->extents.n);
	put_tail(&w, r->dedupe, r->dedupe_n, &r->extents, r->crcs, r->crc_n);
	assert(!w.failed);
	seal_row(key, out, bytes_written(&w));
	return bytes_written(&w);
}

int
chunk_row_decode(const uint8_t key[CHUNK_KEY_BYTES], const void *value, size_t len,
    bool whole, struct chunk_row *out)
{
	struct bytes_reader r;
	uint32_t extent_n;
	int rc;

	out->stored = 0;
	if ((rc = open_row(&r, key, value, len)) != 0)
		return rc;
	out->shift = bytes_get_u8(&r);
	out->flags = bytes_get_u8(&r);
	out->dedupe_n = bytes_get_u8(&r);
	out->version = bytes_get_u64(&r);
	out->len = bytes_get_u32(&r);
	out->epoch = bytes_get_u32(&r);
	out->check = bytes_get_u32(&r);
	extent_n = bytes_get_u32(&r);
	if (r.failed || !shift_ok(out->shift, out->len) || out->version == 0 ||
	    (out->flags & ~CHUNK_ROW_SEALED) != 0 || extent_n > CHUNK_EXTENTS_MAX)
		return ERR_DISK_DAMAGED;
	out->crc_n = chunk_blocks(out->len, chunk_sum_bytes(out->shift));
	if ((rc = get_tail(&r, whole, out->shift, out->dedupe, out->dedupe_n,
	    &out->extents, extent_n, out->crcs, out->crc_n)) != 0)
		return rc;
	out->stored = (uint32_t)len;
	return 0;
}

/* ---- pending ---- */

size_t
chunk_pend_encode(const struct chunk_pend *p, const uint8_t key[CHUNK_KEY_BYTES],
    uint8_t *out)
{
	struct bytes_writer w;

	assert(shift_ok(p->shift, p->len));
	assert(p->version > 0);
	assert(p->first + p->crc_n <= chunk_blocks(p->len, chunk_sum_bytes(p->shift)));
	bytes_writer_init(&w, out, CHUNK_ROW_MAX);
	bytes_put_u32(&w, 0);
	bytes_put_u8(&w, CHUNK_ROW_FORMAT);
	bytes_put_u8(&w, p->shift);
	bytes_put_u8(&w, p->flags);
	bytes_put_u8(&w, (uint8_t)p->dedupe_n);
	bytes_put_u64(&w, p->version);
	bytes_put_u64(&w, p->base);
	bytes_put_u32(&w, p->len);
	bytes_put_u32(&w, p->epoch);
	bytes_put_u32(&w, p->check);
	bytes_put_u32(&w, p->keep);
	bytes_put_u32(&w, p->first);
	bytes_put_u32(&w, p->crc_n);
	bytes_put_u32(&w, (uint32_t)p->extents.n);
	put_tail(&w, p->dedupe, p->dedupe_n, &p->extents, p->crcs, p->crc_n);
	assert(!w.failed);
	seal_row(key, out, bytes_written(&w));
	return bytes_written(&w);
}

int
chunk_pend_decode(const uint8_t key[CHUNK_KEY_BYTES], const void *value, size_t len,
    bool whole, struct chunk_pend *out)
{
	struct bytes_reader r;
	uint32_t extent_n, blocks;
	int rc;

	out->stored = 0;
	if ((rc = open_row(&r, key, value, len)) != 0)
		return rc;
	out->shift = bytes_get_u8(&r);
	out->flags = bytes_get_u8(&r);
	out->dedupe_n = bytes_get_u8(&r);
	out->version = bytes_get_u64(&r);
	out->base = bytes_get_u64(&r);
	out->len = bytes_get_u32(&r);
	out->epoch = bytes_get_u32(&r);
	out->check = bytes_get_u32(&r);
	out->keep = bytes_get_u32(&r);
	out->first = bytes_get_u32(&r);
	out->crc_n = bytes_get_u32(&r);
	extent_n = bytes_get_u32(&r);
	if (r.failed || !shift_ok(out->shift, out->len) || out->version == 0 ||
	    extent_n > CHUNK_EXTENTS_MAX)
		return ERR_DISK_DAMAGED;
	blocks = chunk_blocks(out->len, chunk_sum_bytes(out->shift));
	if ((out->flags & ~(CHUNK_ROW_SEALED | CHUNK_ROW_REMOVED | CHUNK_ROW_INPLACE |
	    CHUNK_ROW_DEDUPE_ALL)) != 0 || out->first > blocks ||
	    out->crc_n > blocks - out->first ||
	    out->keep > (1u << out->shift) / CHUNK_BLOCK)
		return ERR_DISK_DAMAGED;
	if ((rc = get_tail(&r, whole, out->shift, out->dedupe, out->dedupe_n,
	    &out->extents, extent_n, out->crcs, out->crc_n)) != 0)
		return rc;
	out->stored = (uint32_t)len;
	return 0;
}

/* ---- one from the other ---- */

uint32_t
chunk_row_check(const uint32_t *crcs, uint32_t n, uint32_t len)
{
	uint8_t b[256];
	uint32_t crc = 0;

	for (uint32_t i = 0; i < n;) {
		uint32_t k = 0;

		for (; k < sizeof(b) / 4 && i < n; k++, i++)
			store32(b + 4 * k, crcs[i]);
		crc = crc32c(crc, b, 4 * k);
	}
	store32(b, len);
	return crc32c(crc, b, 4);
}

uint32_t
chunk_dedupe_apply(const struct chunk_row *c, const struct chunk_pend *p,
    struct chunk_dedupe out[CHUNK_DEDUPE_MAX])
{
	uint32_t n = 0;

	for (; n < p->dedupe_n; n++)
		out[n] = p->dedupe[n];
	if (p->flags & CHUNK_ROW_DEDUPE_ALL || c->version == 0)
		return n;
	/* One entry a client: its newest. */
	for (uint32_t i = 0; i < c->dedupe_n && n < CHUNK_DEDUPE_MAX; i++)
		if (p->dedupe_n == 0 ||
		    !uid128_eq(&c->dedupe[i].client, &p->dedupe[0].client))
			out[n++] = c->dedupe[i];
	return n;
}

int
chunk_row_apply(const struct chunk_row *c, const struct chunk_pend *p,
    struct chunk_row *out, struct chunk_extents *freed)
{
	static const struct chunk_extents none;
	uint32_t blocks = chunk_blocks(p->len, chunk_sum_bytes(p->shift));
	uint32_t after = p->first + p->crc_n;
	uint32_t had = c->version == 0 ? 0 : c->crc_n;
	int rc;

	assert(!(p->flags & CHUNK_ROW_REMOVED));
	/* A changed size of checksum blocks means that none may be left over. */
	if (p->base != c->version || (p->first > 0 && p->first > had) ||
	    (after < blocks && blocks > had) ||
	    (had > 0 && p->shift != c->shift && (p->first > 0 || after < blocks)))
		return ERR_DISK_DAMAGED;
	out->shift = p->shift;
	out->flags = p->flags & CHUNK_ROW_SEALED;
	out->version = p->version;
	out->len = p->len;
	out->epoch = p->epoch;
	out->check = p->check;
	out->dedupe_n = chunk_dedupe_apply(c, p, out->dedupe);
	out->crc_n = blocks;
	if (p->first > 0)
		memcpy(out->crcs, c->crcs, p->first * sizeof(*out->crcs));
	if (p->crc_n > 0)
		memcpy(out->crcs + p->first, p->crcs, p->crc_n * sizeof(*out->crcs));
	if (after < blocks)
		memcpy(out->crcs + after, c->crcs + after,
		    (blocks - after) * sizeof(*out->crcs));
	out->extents.n = 0;
	out->stored = 0;
	rc = chunk_extents_overlay(c->version == 0 ? &none : &c->extents, p->keep,
	    &p->extents, &out->extents, freed);
	return rc;
}

/* ---- over a table ---- */

int
chunk_index_init(struct chunk_index *x, struct table *table)
{
	*x = (struct chunk_index){ .table = table };
	return (x->buf = malloc(CHUNK_ROW_MAX)) == NULL ? -ENOMEM : 0;
}

void
chunk_index_fini(struct chunk_index *x)
{
	free(x->buf);
	*x = (struct chunk_index){ 0 };
}

int
chunk_index_put_label(struct chunk_index *x, const struct uid128 *disk_id)
{
	uint8_t key[1] = { 'L' }, row[CHUNK_LABEL_ROW_BYTES];

	store32(row + 4, FSD_DISK);
	memcpy(row + 8, disk_id->b, sizeof(disk_id->b));
	store32(row, crc32c(crc32c(0, key, 1), row + 4, sizeof(row) - 4));
	return table_put(x->table, key, 1, row, sizeof(row));
}

int
chunk_index_get_label(struct chunk_index *x, struct uid128 *disk_id)
{
	uint8_t key[1] = { 'L' };
	const void *value;
	const uint8_t *v;
	size_t len;
	int rc;

	if ((rc = table_get(x->table, key, 1, &value, &len)) != 0)
		return rc;
	v = value;
	if (len < CHUNK_LABEL_ROW_BYTES ||
	    load32(v) != crc32c(crc32c(0, key, 1), v + 4, len - 4))
		return ERR_DISK_DAMAGED;
	if (load32(v + 4) > FSD_DISK)
		return ERR_DISK_NEWER;
	if (len != CHUNK_LABEL_ROW_BYTES)
		return ERR_DISK_DAMAGED;
	memcpy(disk_id->b, v + 8, sizeof(disk_id->b));
	return 0;
}

int
chunk_index_get(struct chunk_index *x, target_id target, struct chunk_id id, bool whole,
    struct chunk_row *out)
{
	uint8_t key[CHUNK_KEY_BYTES];
	const void *value;
	size_t len;
	int rc;

	out->version = 0;
	out->stored = 0;
	chunk_key_encode(CHUNK_KEY_COMMITTED, target, id, key);
	if ((rc = table_get(x->table, key, sizeof(key), &value, &len)) != 0)
		return rc;
	return chunk_row_decode(key, value, len, whole, out);
}

int
chunk_index_get_pend(struct chunk_index *x, target_id target, struct chunk_id id,
    bool whole, struct chunk_pend *out)
{
	uint8_t key[CHUNK_KEY_BYTES];
	const void *value;
	size_t len;
	int rc;

	out->version = 0;
	out->stored = 0;
	chunk_key_encode(CHUNK_KEY_PENDING, target, id, key);
	if ((rc = table_get(x->table, key, sizeof(key), &value, &len)) != 0)
		return rc;
	return chunk_pend_decode(key, value, len, whole, out);
}

static int
put(struct chunk_index *x, const uint8_t key[CHUNK_KEY_BYTES], size_t len, uint32_t was)
{
	int rc = table_put(x->table, key, CHUNK_KEY_BYTES, x->buf, len);

	if (rc == 0)
		x->cost_bytes += cost((uint32_t)len) - cost(was);
	return rc;
}

int
chunk_index_put(struct chunk_index *x, target_id target, struct chunk_id id,
    const struct chunk_row *r, uint32_t was)
{
	uint8_t key[CHUNK_KEY_BYTES];

	chunk_key_encode(CHUNK_KEY_COMMITTED, target, id, key);
	return put(x, key, chunk_row_encode(r, key, x->buf), was);
}

int
chunk_index_put_pend(struct chunk_index *x, target_id target, struct chunk_id id,
    const struct chunk_pend *p, uint32_t was)
{
	uint8_t key[CHUNK_KEY_BYTES];

	chunk_key_encode(CHUNK_KEY_PENDING, target, id, key);
	return put(x, key, chunk_pend_encode(p, key, x->buf), was);
}

int
chunk_index_del(struct chunk_index *x, enum chunk_key_kind kind, target_id target,
    struct chunk_id id, uint32_t was)
{
	uint8_t key[CHUNK_KEY_BYTES];
	int rc;

	chunk_key_encode(kind, target, id, key);
	if ((rc = table_del(x->table, key, sizeof(key))) == 0)
		x->cost_bytes -= cost(was);
	return rc;
}

void
chunk_index_count(struct chunk_index *x, uint32_t stored)
{
	x->cost_bytes += cost(stored);
}

int
chunk_index_seek(struct chunk_index *x, const uint8_t key[CHUNK_KEY_BYTES], bool after,
    size_t prefix, uint8_t found[CHUNK_KEY_BYTES], const void **value, size_t *value_len)
{
	const void *k;
	size_t n;
	int rc;

	if ((rc = table_seek(x->table, key, CHUNK_KEY_BYTES, after, prefix, &k, &n, value,
	    value_len)) != 0)
		return rc;
	if (n != CHUNK_KEY_BYTES)
		return ERR_DISK_DAMAGED;
	memcpy(found, k, n);
	return 0;
}
