/* SPDX-License-Identifier: MIT */
/* gc.c - rows of pending storage work; their bytes are in gc.h. */
#include "meta/gc.h"

#include <assert.h>
#include <errno.h>

#include "conf/bytes.h"
#include "conf/err.h"
#include "meta/key.h"

#define FORMAT	1u

static int
decode(struct gc_row *out, ino_id ino, uint8_t kind, const void *row, size_t len)
{
	struct bytes_reader r;

	bytes_reader_init(&r, row, len);
	if (bytes_get_u8(&r) != FORMAT)
		return ERR_LOG_DAMAGED;
	out->ino = ino;
	out->kind = kind;
	out->epoch = bytes_get_u32(&r);
	out->at = bytes_get_u64(&r);
	out->since_ns = (int64_t)bytes_get_u64(&r);
	if (kind != GC_REMOVE && kind != GC_TRUNCATE)
		return ERR_LOG_DAMAGED;
	return bytes_reader_done(&r) ? 0 : ERR_LOG_DAMAGED;
}

int
gc_get(struct table *t, ino_id ino, uint8_t kind, struct gc_row *out)
{
	uint8_t k[KEY_GC_LEN];
	const void *row;
	size_t len;
	int rc;

	rc = table_get(t, k, key_gc(k, ino, kind), &row, &len);
	return rc != 0 ? rc : decode(out, ino, kind, row, len);
}

int
gc_next(struct table *t, ino_id ino, uint8_t kind, struct gc_row *out)
{
	uint8_t k[KEY_GC_LEN];
	const void *key, *row;
	size_t key_len, len;
	int rc;

	rc = table_seek(t, k, key_gc(k, ino, kind), true, 1, &key, &key_len,
	    &row, &len);
	if (rc != 0)
		return rc;
	if (key_len != KEY_GC_LEN)
		return ERR_LOG_DAMAGED;
	return decode(out, key_ino_of(key), ((const uint8_t *)key)[9], row, len);
}

int
gc_put(struct table *t, const struct gc_row *row)
{
	uint8_t k[KEY_GC_LEN], out[GC_ROW_LEN];
	struct bytes_writer w;

	bytes_writer_init(&w, out, sizeof(out));
	bytes_put_u8(&w, FORMAT);
	bytes_put_u32(&w, row->epoch);
	bytes_put_u64(&w, row->at);
	bytes_put_u64(&w, (uint64_t)row->since_ns);
	assert(bytes_written(&w) == GC_ROW_LEN);
	return table_put(t, k, key_gc(k, row->ino, row->kind), out, sizeof(out));
}

int
gc_del(struct table *t, ino_id ino, uint8_t kind)
{
	uint8_t k[KEY_GC_LEN];

	return table_del(t, k, key_gc(k, ino, kind));
}
