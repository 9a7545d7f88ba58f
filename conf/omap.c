/* SPDX-License-Identifier: MIT */
/* omap.c - skip list and hash table over the same entries.
 *
 * Invariants:
 *  1. Keys rise strictly along every level; level i+1 is a subset of level i.
 *  2. An entry is in the bucket of its hash exactly when it is on level 0. */
#include "conf/omap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/crc32c.h"

void
omap_init(struct omap *m)
{
	*m = (struct omap){ .coin = 0x9e3779b97f4a7c15ull };
}

static void
drop(struct omap_entry *e)
{
	if (e->flags & OMAP_BLOCK)
		free(e->store);
	free(e);
}

bool
omap_fini_some(struct omap *m, size_t n)
{
	struct omap_entry *e;

	for (; n > 0 && (e = m->head[0]) != NULL; n--) {
		m->head[0] = e->next[0];
		drop(e);
	}
	if (m->head[0] != NULL)
		return false;
	free(m->buckets);
	omap_init(m);
	return true;
}

void
omap_fini(struct omap *m)
{
	omap_fini_some(m, SIZE_MAX);
}

int
omap_cmp(const void *a, size_t a_len, const void *b, size_t b_len)
{
	int c = memcmp(a, b, a_len < b_len ? a_len : b_len);

	return c != 0 ? c : a_len < b_len ? -1 : a_len > b_len;
}

static uint32_t
hash_of(const void *key, size_t key_len)
{
	return crc32c(0, key, key_len) * 0x9e3779b1u;
}

static struct omap_entry **
bucket(const struct omap *m, uint32_t hash)
{
	return &m->buckets[(hash ^ hash >> 16) & (m->bucket_n - 1)];
}

static struct omap_entry *
find(const struct omap *m, uint32_t hash, const void *key, size_t key_len)
{
	struct omap_entry *e;

	if (m->n == 0)
		return NULL;
	for (e = *bucket(m, hash); e != NULL; e = e->chain)
		if (e->hash == hash && e->key_len == key_len &&
		    memcmp(omap_key(e), key, key_len) == 0)
			return e;
	return NULL;
}

struct omap_entry *
omap_get(const struct omap *m, const void *key, size_t key_len)
{
	return m->n == 0 ? NULL : find(m, hash_of(key, key_len), key, key_len);
}

/* Fill @links with the last link per level that leads to a key >= @key (@after:
 * > @key); NULL: only level 0 is wanted.  Returns the entry there. */
static struct omap_entry *
search(const struct omap *m, const void *key, size_t key_len, bool after,
    struct omap_entry ***links)
{
	struct omap_entry **at = (struct omap_entry **)m->head;
	const struct omap_entry *seen = NULL;	/* known to be beyond */

	for (unsigned i = OMAP_LEVELS; i-- > 0;) {
		for (;;) {
			struct omap_entry *e = at[i];
			int c;

			if (e == NULL || e == seen)
				break;
			c = omap_cmp(omap_key(e), e->key_len, key, key_len);
			if (c > 0 || (c == 0 && !after)) {
				seen = e;
				break;
			}
			at = e->next;
		}
		if (links != NULL)
			links[i] = &at[i];
	}
	return at[0];
}

struct omap_entry *
omap_seek(const struct omap *m, const void *key, size_t key_len, bool after)
{
	return search(m, key, key_len, after, NULL);
}

/* Each level holds a quarter of the one below. */
static unsigned
toss(struct omap *m)
{
	uint64_t x = m->coin += 0x9e3779b97f4a7c15ull;
	unsigned levels = 1;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	x ^= x >> 31;
	for (; (x & 3) == 0 && levels < OMAP_LEVELS; x >>= 2)
		levels++;
	return levels;
}

static int
grow(struct omap *m)
{
	size_t n = m->bucket_n == 0 ? 16 : m->bucket_n * 2;
	struct omap_entry **v = calloc(n, sizeof(struct omap_entry *)), **at;

	if (v == NULL)
		return m->bucket_n > 0 ? 0 : -ENOMEM;	/* longer chains, then */
	free(m->buckets);
	m->buckets = v;
	m->bucket_n = n;
	for (struct omap_entry *e = m->head[0]; e != NULL; e = e->next[0]) {
		at = bucket(m, e->hash);
		e->chain = *at;
		*at = e;
	}
	return 0;
}

static int
replace(struct omap *m, struct omap_entry *e, const void *value,
    size_t value_len)
{
	uint8_t *v;

	if (value == NULL)
		e->flags |= OMAP_DEAD;
	else if (value_len > e->value_cap) {
		if ((v = malloc(value_len)) == NULL)
			return -ENOMEM;
		memcpy(v, value, value_len);
		if (e->flags & OMAP_BLOCK)
			free(e->store);
		e->store = v;
		e->value_cap = (uint32_t)value_len;
		e->flags = OMAP_BLOCK;
	} else {
		if (value_len > 0)
			memmove(e->store, value, value_len);
		e->flags &= (uint8_t)~OMAP_DEAD;
	}
	m->bytes += value_len;
	m->bytes -= e->value_len;
	e->value_len = (uint32_t)value_len;
	return 0;
}

int
omap_put(struct omap *m, const void *key, size_t key_len, const void *value,
    size_t value_len)
{
	uint32_t hash = hash_of(key, key_len);
	struct omap_entry **links[OMAP_LEVELS], **at, *e;
	unsigned levels;
	uint8_t *tail;
	size_t size;
	int rc;

	assert(key_len <= UINT16_MAX);
	assert(value_len < UINT32_MAX);
	assert(value != NULL || value_len == 0);
	if ((e = find(m, hash, key, key_len)) != NULL)
		return replace(m, e, value, value_len);
	if (m->n >= m->bucket_n && (rc = grow(m)) != 0)
		return rc;
	levels = toss(m);
	/* A value lies behind its key until a longer one replaces it. */
	size = sizeof(*e) + levels * sizeof(e->next[0]) + key_len + value_len;
	if ((e = malloc(size)) == NULL)
		return -ENOMEM;
	search(m, key, key_len, false, links);
	e->levels = (uint8_t)levels;
	e->hash = hash;
	e->key_len = (uint16_t)key_len;
	tail = (uint8_t *)(void *)(e->next + levels);
	memcpy(tail, key, key_len);
	e->store = tail + key_len;
	e->value_len = e->value_cap = (uint32_t)value_len;
	e->flags = value == NULL ? OMAP_DEAD : 0;
	if (value_len > 0)
		memcpy(tail + key_len, value, value_len);
	for (unsigned i = 0; i < levels; i++) {
		e->next[i] = *links[i];
		*links[i] = e;
	}
	at = bucket(m, hash);
	e->chain = *at;
	*at = e;
	m->n++;
	m->bytes += size;
	return 0;
}

bool
omap_del(struct omap *m, const void *key, size_t key_len)
{
	struct omap_entry **links[OMAP_LEVELS], **at, *e;

	if ((e = omap_get(m, key, key_len)) == NULL)
		return false;
	search(m, key, key_len, false, links);
	for (unsigned i = 0; i < e->levels; i++) {
		assert(*links[i] == e);
		*links[i] = e->next[i];
	}
	for (at = bucket(m, e->hash); *at != e; at = &(*at)->chain)
		;
	*at = e->chain;
	m->n--;
	m->bytes -= sizeof(*e) + e->levels * sizeof(e->next[0]) + e->key_len +
	    e->value_len;
	drop(e);
	return true;
}
