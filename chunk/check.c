/* SPDX-License-Identifier: MIT */
/* check.c - the invariants of engine.c, against the whole index; for tests. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "chunk/state.h"

static void
mark(struct chunk_alloc *a, const struct chunk_extents *x)
{
	for (size_t i = 0; i < x->n; i++) {
		int rc = chunk_alloc_mark(a, x->v[i].disk, x->v[i].count);

		assert(rc == 0);						/* 2 */
	}
}

/* Returns whether there was memory to tell. */
static bool
check_committed(struct chunk_engine *e, struct chunk_alloc *a, struct chunk_known *k,
    const uint8_t *key, const void *value, size_t len)
{
	target_id target;
	struct chunk_id id;
	int rc = chunk_row_decode(key, value, len, true, &e->row);

	assert(rc == 0);
	assert(e->row.check == chunk_row_check(e->row.crcs, e->row.crc_n, e->row.len)); /* 4 */
	mark(a, &e->row.extents);
	rc = chunk_key_decode(key, CHUNK_KEY_BYTES, &target, &id);
	assert(rc == 0);
	if (chunk_known_room(k, target) != 0)
		return false;
	chunk_known_change(k, target, &(struct chunk_row){ 0 }, &e->row);
	return true;
}

static bool
check_pending(struct chunk_engine *e, struct chunk_alloc *a, struct chunk_known *k,
    const uint8_t *key, const void *value, size_t len)
{
	target_id target;
	struct chunk_id id;
	int rc;

	rc = chunk_pend_decode(key, value, len, true, &e->pend);
	assert(rc == 0);
	rc = chunk_key_decode(key, CHUNK_KEY_BYTES, &target, &id);
	assert(rc == 0);
	rc = chunk_index_get(&e->index, target, id, true, &e->row);
	assert(rc == 0 || rc == -ENOENT);
	assert(e->pend.base == e->row.version);					/* 3 */
	if (!(e->pend.flags & CHUNK_ROW_REMOVED)) {
		rc = chunk_row_apply(&e->row, &e->pend, &e->next, NULL);
		assert(rc == 0);
		assert(e->pend.check == chunk_row_check(e->next.crcs, e->next.crc_n,
		    e->next.len));						/* 4 */
		assert(chunk_extents_valid(&e->next.extents,
		    (1u << e->next.shift) / CHUNK_BLOCK, CHUNK_DISK_BLOCKS_MAX)); /* 4 */
	}
	if (e->row.version > 0 && e->pend.keep > 0 && e->pend.len < e->row.len &&
	    e->pend.len % CHUNK_BLOCK != 0)
		assert(e->pend.flags & CHUNK_ROW_SEALED);			/* 5 */
	mark(a, &e->pend.extents);
	return chunk_known_pend(k, target, id) == 0;
}

void
chunk_engine_check(struct chunk_engine *e)
{
	static const char kinds[] = { CHUNK_KEY_COMMITTED, CHUNK_KEY_PENDING };
	struct chunk_known known;
	struct chunk_alloc *a;
	bool memory = true;
	int rc;

	if (!e->open || e->broken != 0)
		return;
	chunk_alloc_check(e->alloc);
	rc = chunk_alloc_open(&a, e->label.data_bytes / CHUNK_BLOCK,
	    CHUNK_RESERVED_BLOCKS);
	if (rc == -ENOMEM)
		return;
	assert(rc == 0);
	chunk_known_init(&known);
	for (unsigned k = 0; k < sizeof(kinds); k++) {
		uint8_t key[CHUNK_KEY_BYTES] = { (uint8_t)kinds[k] };
		const void *value;
		size_t len;

		for (bool after = false; (rc = chunk_index_seek(&e->index, key, after, 1,
		    key, &value, &len)) == 0; after = true) {
			if (kinds[k] == CHUNK_KEY_COMMITTED)
				memory &= check_committed(e, a, &known, key,
				    value, len);
			else
				memory &= check_pending(e, a, &known, key, value,
				    len);
		}
		assert(rc == -ENOENT);
	}
	rc = chunk_put_mark(e, a);
	assert(rc == 0);							/* 2 */
	list_for_each(n, &e->limbo)
		mark(a, &list_entry(n, struct chunk_limbo, node)->extents);
	assert(chunk_alloc_equal(a, e->alloc));					/* 1 */
	assert(!memory || chunk_known_equal(&known, &e->known));		/* 6 */
	chunk_known_fini(&known);
	chunk_alloc_close(a);
}
