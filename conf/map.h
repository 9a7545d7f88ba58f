/* SPDX-License-Identifier: MIT */
/* map.h - hash map from a 64-bit id to a pointer; open addressing, grows by doubling.
 * Iteration goes in insertion-independent slot order of a fixed mixing function, so
 * runs repeat exactly; nothing depends on addresses. */
#ifndef CONF_MAP_H
#define CONF_MAP_H

#include <stddef.h>
#include <stdint.h>

struct map {
	uint64_t *keys;
	void	**values;	/* NULL: free slot */
	size_t	  n, cap;	/* cap is a power of two or 0 */
};

void	 map_init(struct map *m);
void	 map_fini(struct map *m);	/* the values are the caller's */
void	*map_get(const struct map *m, uint64_t key);	/* NULL: not there */
/* @value not NULL; replaces. 0 or -ENOMEM. */
int	 map_put(struct map *m, uint64_t key, void *value);
/* The value that was there, or NULL. */
void	*map_del(struct map *m, uint64_t key);
/* Walk: start with *it = 0; NULL at the end.  Do not put or delete during it. */
void	*map_next(const struct map *m, size_t *it, uint64_t *key);

#endif
