/* SPDX-License-Identifier: MIT */
/* omap.h - an ordered map of byte strings in memory: the overlays of conf/table.c.
 * A skip list gives order (Pugh, "Skip lists: a probabilistic alternative to balanced
 * trees", CACM 1990; levels come from a counter, so runs repeat); a hash table beside
 * it makes an exact look-up one probe.  Entries own copies of key and value. */
#ifndef CONF_OMAP_H
#define CONF_OMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OMAP_LEVELS	14u

struct omap_entry {
	struct omap_entry *chain;	/* same bucket */
	uint8_t		  *store;	/* room for the value; see omap_value() */
	uint32_t	   value_len, value_cap;
	uint32_t	   hash;
	uint16_t	   key_len;
	uint8_t		   levels;
	uint8_t		   flags;	/* OMAP_* */
	struct omap_entry *next[];	/* per level; then key and first value */
};
#define OMAP_DEAD	1u		/* a tombstone */
#define OMAP_BLOCK	2u		/* store is a block of its own */

struct omap {
	struct omap_entry **buckets;	/* a power of two, or none */
	size_t		    n, bucket_n;
	size_t		    bytes;	/* held by entries */
	uint64_t	    coin;
	struct omap_entry  *head[OMAP_LEVELS];
};

void	omap_init(struct omap *m);
void	omap_fini(struct omap *m);
/* Free at most @n entries of a map that nobody will use again; true when it is gone
 * (as after omap_fini()). So that a large one does not stop the loop. */
bool	omap_fini_some(struct omap *m, size_t n);

static inline const uint8_t *
omap_key(const struct omap_entry *e)
{
	return (const uint8_t *)(const void *)(e->next + e->levels);
}

/* NULL: a tombstone. */
static inline const uint8_t *
omap_value(const struct omap_entry *e)
{
	return e->flags & OMAP_DEAD ? NULL : e->store;
}

/* memcmp order, a prefix first. */
int	omap_cmp(const void *a, size_t a_len, const void *b, size_t b_len);

/* Insert or replace; @value NULL leaves a tombstone. Key and value may be borrowed
 * from the map itself.  0 or -ENOMEM (nothing changed). */
int	omap_put(struct omap *m, const void *key, size_t key_len,
	    const void *value, size_t value_len);
/* Take an entry out; true if it was there. */
bool	omap_del(struct omap *m, const void *key, size_t key_len);
/* NULL: not there. */
struct omap_entry *omap_get(const struct omap *m, const void *key, size_t key_len);
/* First entry >= @key (@after: > @key), or NULL. */
struct omap_entry *omap_seek(const struct omap *m, const void *key,
	    size_t key_len, bool after);

static inline struct omap_entry *
omap_first(const struct omap *m)
{
	return m->head[0];
}

static inline struct omap_entry *
omap_next(const struct omap_entry *e)
{
	return e->next[0];
}

#endif
