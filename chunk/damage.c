/* SPDX-License-Identifier: MIT */
/* damage.c - damaged chunks, in the order of their keys. */
#include "chunk/damage.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "chunk/state.h"
#include "conf/err.h"

#define KEY_BYTES	(CHUNK_KEY_BYTES - 1)	/* that of a row, without its kind */

struct value {
	uint64_t version;
	uint32_t block;
};

static const uint8_t *
key_of(target_id target, struct chunk_id id, uint8_t key[CHUNK_KEY_BYTES])
{
	chunk_key_encode(CHUNK_KEY_COMMITTED, target, id, key);
	return key + 1;
}

void
chunk_damages_init(struct chunk_damages *d)
{
	omap_init(&d->map);
}

void
chunk_damages_fini(struct chunk_damages *d)
{
	omap_fini(&d->map);
}

bool
chunk_disk_gone(int rc)
{
	return rc == -ENODEV || rc == -ENXIO || rc == -ESHUTDOWN || rc == -ESTALE;
}

void
chunk_damage_note(struct chunk_engine *e, target_id target, struct chunk_id id,
    uint64_t version, uint32_t block, int rc)
{
	struct omap *m = &e->damages.map;
	uint8_t buf[CHUNK_KEY_BYTES];
	const uint8_t *key = key_of(target, id, buf);
	struct value v;

	stat_add(rc == ERR_CORRUPT ? &e->stat.corrupt_blocks : &e->stat.read_errors, 1);
	if (omap_get(m, key, KEY_BYTES) != NULL)
		return;
	memset(&v, 0, sizeof(v));
	v.version = version;
	v.block = block;
	log_error(e->conf.log, rc == ERR_CORRUPT ? "stored bytes fail their checksum" :
	    "stored bytes cannot be read", "disk=%s path=%s target=%u ino=%" PRIx64
	    " index=%u block=%u version=%" PRIu64 " error=%s", e->name,
	    e->conf.path != NULL ? e->conf.path : "?", target, id.ino, id.index, block,
	    version, err_name(rc));
	if (m->n >= CHUNK_DAMAGED_MAX || omap_put(m, key, KEY_BYTES, &v, sizeof(v)) != 0)
		return;
	stat_set(&e->stat.damaged_chunks, m->n);
	if (e->conf.damaged != NULL)
		e->conf.damaged(e->conf.damaged_ctx);
}

void
chunk_damage_forget(struct chunk_engine *e, target_id target, struct chunk_id id)
{
	uint8_t buf[CHUNK_KEY_BYTES];

	if (e->damages.map.n == 0)
		return;
	omap_del(&e->damages.map, key_of(target, id, buf), KEY_BYTES);
	stat_set(&e->stat.damaged_chunks, e->damages.map.n);
}

void
chunk_engine_healed(struct chunk_engine *e, target_id target, struct chunk_id id)
{
	chunk_damage_forget(e, target, id);
}

int
chunk_engine_next_damaged(const struct chunk_engine *e, target_id target,
    struct chunk_id from, bool after, struct chunk_damage *out)
{
	uint8_t buf[CHUNK_KEY_BYTES];
	const struct omap_entry *n = omap_seek(&e->damages.map, key_of(target, from, buf),
	    KEY_BYTES, after);
	struct value v;
	int rc;

	if (n == NULL)
		return -ENOENT;
	memcpy(buf + 1, omap_key(n), KEY_BYTES);
	rc = chunk_key_decode(buf, sizeof(buf), &out->target, &out->id);
	assert(rc == 0);
	memcpy(&v, omap_value(n), sizeof(v));
	out->version = v.version;
	out->block = v.block;
	return 0;
}
