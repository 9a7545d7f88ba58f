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
	uint64_t version;	/* committed one that is damaged; 0: it is not on the list */
	uint64_t waiting;	/* pending one that is; 0: none */
	uint32_t block, bad;	/* of the one; of the other, from 1 on */
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

/* What is known of the chunk; false and zeros: nothing. */
static bool
get(const struct chunk_engine *e, const uint8_t *key, struct value *v)
{
	const struct omap_entry *n = omap_get(&e->damages.map, key, KEY_BYTES);

	memset(v, 0, sizeof(*v));
	if (n != NULL)
		memcpy(v, omap_value(n), sizeof(*v));
	return n != NULL;
}

/* It is not on the list any more, or not even waiting for that. */
static void
drop(struct chunk_engine *e, const uint8_t *key, bool all)
{
	struct value v;

	if (e->damages.map.n == 0 || !get(e, key, &v))
		return;
	e->damages.n -= v.version != 0;
	stat_set(&e->stat.damaged_chunks, e->damages.n);
	if (all || v.waiting == 0) {
		omap_del(&e->damages.map, key, KEY_BYTES);
	} else {
		v.version = 0;
		(void)omap_put(&e->damages.map, key, KEY_BYTES, &v, sizeof(v));
	}
}

static void
put(struct chunk_engine *e, const uint8_t *key, const struct value *v)
{
	struct value was;
	bool is = get(e, key, &was);

	if ((!is && e->damages.map.n >= CHUNK_DAMAGED_MAX) ||
	    omap_put(&e->damages.map, key, KEY_BYTES, v, sizeof(*v)) != 0)
		return;
	if (was.version != 0 || v->version == 0)
		return;
	stat_set(&e->stat.damaged_chunks, ++e->damages.n);
	if (e->conf.damaged != NULL)
		e->conf.damaged(e->conf.damaged_ctx);
}

void
chunk_damage_note(struct chunk_engine *e, target_id target, struct chunk_id id,
    uint64_t version, uint32_t block, int rc)
{
	uint8_t buf[CHUNK_KEY_BYTES];
	const uint8_t *key = key_of(target, id, buf);
	struct value v;

	stat_add(rc == ERR_CORRUPT ? &e->stat.corrupt_blocks : &e->stat.read_errors, 1);
	if (get(e, key, &v) && v.version != 0)
		return;
	v.version = version;
	v.block = block;
	log_error(e->conf.log, rc == ERR_CORRUPT ? "stored bytes fail their checksum" :
	    "stored bytes cannot be read", "disk=%s path=%s target=%u ino=%" PRIx64
	    " index=%u block=%u version=%" PRIu64 " error=%s", e->name,
	    e->conf.path != NULL ? e->conf.path : "?", target, id.ino, id.index, block,
	    version, err_name(rc));
	put(e, key, &v);
}

void
chunk_damage_pend(struct chunk_engine *e, target_id target, struct chunk_id id,
    uint64_t version, uint32_t bad)
{
	uint8_t buf[CHUNK_KEY_BYTES];
	const uint8_t *key = key_of(target, id, buf);
	struct value v;

	if (!get(e, key, &v) && bad == 0)
		return;
	v.waiting = bad == 0 ? 0 : version;
	v.bad = bad;
	if (v.waiting == 0 && v.version == 0)
		drop(e, key, true);
	else
		put(e, key, &v);
}

void
chunk_damage_commit(struct chunk_engine *e, target_id target, struct chunk_id id,
    uint64_t version)
{
	uint8_t buf[CHUNK_KEY_BYTES];
	const uint8_t *key = key_of(target, id, buf);
	struct value v;

	if (!get(e, key, &v))
		return;
	drop(e, key, true);
	if (v.waiting != version)
		return;
	log_error(e->conf.log, "chunk is damaged as it was where it came from",
	    "disk=%s path=%s target=%u ino=%" PRIx64 " index=%u block=%u version=%" PRIu64,
	    e->name, e->conf.path != NULL ? e->conf.path : "?", target, id.ino, id.index,
	    v.bad - 1, version);
	put(e, key, &(struct value){ .version = version, .block = v.bad - 1 });
}

void
chunk_damage_forget(struct chunk_engine *e, target_id target, struct chunk_id id)
{
	uint8_t buf[CHUNK_KEY_BYTES];

	drop(e, key_of(target, id, buf), true);
}

void
chunk_engine_healed(struct chunk_engine *e, target_id target, struct chunk_id id)
{
	uint8_t buf[CHUNK_KEY_BYTES];

	drop(e, key_of(target, id, buf), false);
}

uint32_t
chunk_engine_damaged(const struct chunk_engine *e)
{
	return e->damages.n;
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

	for (;; n = omap_seek(&e->damages.map, buf + 1, KEY_BYTES, true)) {
		if (n == NULL)
			return -ENOENT;
		memcpy(buf + 1, omap_key(n), KEY_BYTES);
		memcpy(&v, omap_value(n), sizeof(v));
		if (v.version != 0)
			break;
	}
	rc = chunk_key_decode(buf, sizeof(buf), &out->target, &out->id);
	assert(rc == 0);
	out->version = v.version;
	out->block = v.block;
	return 0;
}
