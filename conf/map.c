/* SPDX-License-Identifier: MIT */
/* map.c - linear probing with backward-shift deletion, at most 3/4 full. */
#include "conf/map.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static size_t
home(const struct map *m, uint64_t key)
{
	key ^= key >> 32;
	key *= 0x9e3779b97f4a7c15ull;
	key ^= key >> 29;
	return (size_t)key & (m->cap - 1);
}

/* Slot of @key, or the free slot where it would go. */
static size_t
find(const struct map *m, uint64_t key)
{
	size_t i = home(m, key);

	while (m->values[i] != NULL && m->keys[i] != key)
		i = (i + 1) & (m->cap - 1);
	return i;
}

static int
grow(struct map *m)
{
	struct map bigger = { .cap = m->cap == 0 ? 16 : m->cap * 2, .n = m->n };

	bigger.keys = calloc(bigger.cap, sizeof(*bigger.keys));
	bigger.values = calloc(bigger.cap, sizeof(*bigger.values));
	if (bigger.keys == NULL || bigger.values == NULL) {
		map_fini(&bigger);
		return -ENOMEM;
	}
	for (size_t i = 0; i < m->cap; i++) {
		size_t to;

		if (m->values[i] == NULL)
			continue;
		to = find(&bigger, m->keys[i]);
		bigger.keys[to] = m->keys[i];
		bigger.values[to] = m->values[i];
	}
	free(m->keys);
	free(m->values);
	*m = bigger;
	return 0;
}

void
map_init(struct map *m)
{
	*m = (struct map){ 0 };
}

void
map_fini(struct map *m)
{
	free(m->keys);
	free(m->values);
	*m = (struct map){ 0 };
}

void *
map_get(const struct map *m, uint64_t key)
{
	return m->n == 0 ? NULL : m->values[find(m, key)];
}

int
map_put(struct map *m, uint64_t key, void *value)
{
	size_t i;
	int rc;

	assert(value != NULL);
	if (m->n + 1 > m->cap / 4 * 3 && (rc = grow(m)) != 0)
		return rc;
	i = find(m, key);
	m->n += m->values[i] == NULL;
	m->keys[i] = key;
	m->values[i] = value;
	return 0;
}

void *
map_del(struct map *m, uint64_t key)
{
	size_t i, next;
	void *was;

	if (m->n == 0 || (was = m->values[i = find(m, key)]) == NULL)
		return NULL;
	m->n--;
	/* Pull later members of the run back, so that no probe meets a gap. */
	for (next = (i + 1) & (m->cap - 1); m->values[next] != NULL;
	    next = (next + 1) & (m->cap - 1)) {
		size_t h = home(m, m->keys[next]);

		if (((next - h) & (m->cap - 1)) < ((next - i) & (m->cap - 1)))
			continue;
		m->keys[i] = m->keys[next];
		m->values[i] = m->values[next];
		i = next;
	}
	m->values[i] = NULL;
	return was;
}

void *
map_next(const struct map *m, size_t *it, uint64_t *key)
{
	while (*it < m->cap) {
		size_t i = (*it)++;

		if (m->values[i] != NULL) {
			if (key != NULL)
				*key = m->keys[i];
			return m->values[i];
		}
	}
	return NULL;
}
