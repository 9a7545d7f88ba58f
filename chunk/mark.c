/* SPDX-License-Identifier: MIT */
/* mark.c - how far a scrub has come, as one row of the index, and the walk it makes. */
#include <errno.h>
#include <string.h>

#include "chunk/state.h"
#include "conf/bytes.h"
#include "conf/crc32c.h"
#include "conf/err.h"

static const uint8_t key[1] = { CHUNK_KEY_SCRUB };

int
chunk_engine_scrub_get(struct chunk_engine *e, struct chunk_scrub *out)
{
	struct bytes_reader r;
	const void *value;
	size_t len;
	uint32_t crc, format;
	uint8_t running;
	int rc;

	*out = (struct chunk_scrub){ 0 };
	if (e->broken != 0)
		return e->broken;
	if ((rc = table_get(e->table, key, sizeof(key), &value, &len)) != 0)
		return chunk_engine_index_rc(e, rc);
	/* Nothing depends on it: what makes no sense was never there. */
	if (len != CHUNK_SCRUB_BYTES)
		return -ENOENT;
	bytes_reader_init(&r, value, len);
	crc = bytes_get_u32(&r);
	format = bytes_get_u32(&r);
	if (crc != crc32c(crc32c(0, key, sizeof(key)), (const uint8_t *)value + 4, len - 4) ||
	    format != CHUNK_SCRUB_FORMAT)
		return -ENOENT;
	running = bytes_get_u8(&r);
	out->running = running != 0;
	out->target = bytes_get_u32(&r);
	out->id.ino = bytes_get_u64(&r);
	out->id.index = bytes_get_u32(&r);
	out->begun_ns = (int64_t)bytes_get_u64(&r);
	out->ended_ns = (int64_t)bytes_get_u64(&r);
	out->bytes = bytes_get_u64(&r);
	out->errors = bytes_get_u64(&r);
	return 0;
}

int
chunk_engine_scrub_put(struct chunk_engine *e, const struct chunk_scrub *s)
{
	struct bytes_writer w;
	uint8_t buf[CHUNK_SCRUB_BYTES];
	uint32_t crc;
	int rc;

	if (e->broken != 0)
		return e->broken;
	bytes_writer_init(&w, buf, sizeof(buf));
	bytes_put_u32(&w, 0);
	bytes_put_u32(&w, CHUNK_SCRUB_FORMAT);
	bytes_put_u8(&w, s->running);
	bytes_put_u32(&w, s->target);
	bytes_put_u64(&w, s->id.ino);
	bytes_put_u32(&w, s->id.index);
	bytes_put_u64(&w, (uint64_t)s->begun_ns);
	bytes_put_u64(&w, (uint64_t)s->ended_ns);
	bytes_put_u64(&w, s->bytes);
	bytes_put_u64(&w, s->errors);
	crc = crc32c(crc32c(0, key, sizeof(key)), buf + 4, sizeof(buf) - 4);
	bytes_writer_init(&w, buf, 4);
	bytes_put_u32(&w, crc);
	if ((rc = table_put(e->table, key, sizeof(key), buf, sizeof(buf))) == 0)
		chunk_commit_soon(e);
	return rc;
}

int
chunk_engine_walk(struct chunk_engine *e, target_id *target, struct chunk_id *id,
    bool after, uint32_t *len, uint32_t *sum)
{
	uint8_t from[CHUNK_KEY_BYTES], found[CHUNK_KEY_BYTES];
	const void *value;
	size_t value_len;
	int rc;

	if (e->broken != 0)
		return e->broken;
	chunk_key_encode(CHUNK_KEY_COMMITTED, *target, *id, from);
	if ((rc = chunk_index_seek(&e->index, from, after, 1, found, &value,
	    &value_len)) == 0 &&
	    (rc = chunk_row_decode(found, value, value_len, false, &e->row)) == 0)
		rc = chunk_key_decode(found, sizeof(found), target, id);
	*len = rc == 0 ? e->row.len : 0;
	*sum = rc == 0 ? chunk_sum_bytes(e->row.shift) : CHUNK_BLOCK;
	return chunk_engine_index_rc(e, rc);
}
