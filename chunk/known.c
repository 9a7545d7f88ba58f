/* SPDX-License-Identifier: MIT */
/* known.c - the chunks with a pending version in order, and the sums of each target. */
#include "chunk/known.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KEY_BYTES	(CHUNK_KEY_BYTES - 1)	/* that of a row, without its kind */

static const uint8_t *
key_of(target_id target, struct chunk_id id, uint8_t key[CHUNK_KEY_BYTES])
{
	chunk_key_encode(CHUNK_KEY_PENDING, target, id, key);
	return key + 1;
}

void
chunk_known_init(struct chunk_known *k)
{
	omap_init(&k->pending);
	map_init(&k->targets);
}

void
chunk_known_fini(struct chunk_known *k)
{
	struct chunk_known_count *c;
	size_t it = 0;
	uint64_t id;

	while ((c = map_next(&k->targets, &it, &id)) != NULL)
		free(c);
	map_fini(&k->targets);
	omap_fini(&k->pending);
}

/* ---- pending ---- */

int
chunk_known_pend(struct chunk_known *k, target_id target, struct chunk_id id)
{
	uint8_t buf[CHUNK_KEY_BYTES];
	const uint8_t *key = key_of(target, id, buf);

	if (omap_get(&k->pending, key, KEY_BYTES) != NULL)
		return 0;
	return omap_put(&k->pending, key, KEY_BYTES, "", 0);
}

void
chunk_known_settle(struct chunk_known *k, target_id target, struct chunk_id id)
{
	uint8_t buf[CHUNK_KEY_BYTES];
	bool was = omap_del(&k->pending, key_of(target, id, buf), KEY_BYTES);

	assert(was);
}

bool
chunk_known_next(const struct chunk_known *k, target_id target, struct chunk_id from,
    bool after, struct chunk_id *out)
{
	uint8_t buf[CHUNK_KEY_BYTES];
	const struct omap_entry *n;
	target_id found;
	int rc;

	n = omap_seek(&k->pending, key_of(target, from, buf), KEY_BYTES, after);
	if (n == NULL)
		return false;
	memcpy(buf + 1, omap_key(n), KEY_BYTES);
	rc = chunk_key_decode(buf, sizeof(buf), &found, out);
	assert(rc == 0);
	return found == target;
}

/* ---- sums ---- */

int
chunk_known_room(struct chunk_known *k, target_id target)
{
	struct chunk_known_count *c;
	int rc;

	if (map_get(&k->targets, target) != NULL)
		return 0;
	if ((c = calloc(1, sizeof(*c))) == NULL)
		return -ENOMEM;
	if ((rc = map_put(&k->targets, target, c)) != 0)
		free(c);
	return rc;
}

void
chunk_known_change(struct chunk_known *k, target_id target, const struct chunk_row *was,
    const struct chunk_row *now)
{
	struct chunk_known_count *c = map_get(&k->targets, target);

	assert(c != NULL);
	if (was->version > 0) {
		assert(c->chunks > 0 && c->bytes >= was->len);
		c->chunks--;
		c->bytes -= was->len;
	}
	if (now != NULL) {
		c->chunks++;
		c->bytes += now->len;
	}
}

struct chunk_known_count
chunk_known_of(const struct chunk_known *k, target_id target)
{
	const struct chunk_known_count *c = map_get(&k->targets, target);

	return c != NULL ? *c : (struct chunk_known_count){ 0 };
}

/* ---- for tests ---- */

static bool
covers(const struct chunk_known *a, const struct chunk_known *b)
{
	const struct chunk_known_count *c;
	size_t it = 0;
	uint64_t id;

	while ((c = map_next(&b->targets, &it, &id)) != NULL) {
		struct chunk_known_count o = chunk_known_of(a, (target_id)id);

		if (o.chunks != c->chunks || o.bytes != c->bytes)
			return false;
	}
	return true;
}

bool
chunk_known_equal(const struct chunk_known *a, const struct chunk_known *b)
{
	const struct omap_entry *x = omap_first(&a->pending);
	const struct omap_entry *y = omap_first(&b->pending);

	for (; x != NULL && y != NULL; x = omap_next(x), y = omap_next(y))
		if (memcmp(omap_key(x), omap_key(y), KEY_BYTES) != 0)
			return false;
	return x == NULL && y == NULL && covers(a, b) && covers(b, a);
}
