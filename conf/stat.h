/* SPDX-License-Identifier: MIT */
/* stat.h - counters, gauges and histograms as rows.
 *
 *	#define STORAGE_STATS(X)                                            \
 *		X(counter, reads,      "chunk reads that were answered")    \
 *		X(gauge,   used_bytes, "bytes allocated to chunks")         \
 *		X(hist,    read_ns,    "time from request to reply")
 *	STAT_DECLARE(storage, STORAGE_STATS)		in the header
 *	STAT_DEFINE(storage, STORAGE_STATS)		in one .c
 *
 * gives struct storage_stat with those fields, and storage_stat_rows for a struct stat_set.
 * Values belong to one loop, which changes them with the calls below; any thread may print
 * them meanwhile, and register or remove sets of its own.  Text is Prometheus exposition format 0.0.4: counters end with _total,
 * times (*_ns) are told in seconds (*_seconds). */
#ifndef CONF_STAT_H
#define CONF_STAT_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

#include "conf/list.h"

/* Bucket i counts values up to 2^i * 1024 (ns: 1 us to 17 s); the last one the rest. */
#define STAT_BUCKETS	26u

struct stat_hist {
	uint64_t bucket[STAT_BUCKETS];
	uint64_t sum;
};
typedef uint64_t	 stat_t_counter;
typedef uint64_t	 stat_t_gauge;
typedef struct stat_hist stat_t_hist;

enum stat_kind { STAT_counter, STAT_gauge, STAT_hist };

struct stat_row {
	enum stat_kind kind;
	const char    *name, *help;	/* NULL name: the end */
	size_t	       off;		/* in the struct of values */
};

#define STAT_DECLARE(NAME, ROWS)                                \
	struct NAME##_stat {                                    \
		ROWS(STAT_FIELD_)                               \
	};                                                      \
	extern const struct stat_row NAME##_stat_rows[];
#define STAT_FIELD_(kind, name, help) stat_t_##kind name;
#define STAT_DEFINE(NAME, ROWS)                                 \
	typedef struct NAME##_stat stat_this_;                  \
	const struct stat_row NAME##_stat_rows[] = {            \
		ROWS(STAT_ROW_)                                 \
		{ STAT_counter, NULL, NULL, 0 }                 \
	};
#define STAT_ROW_(kind, name, help) \
	{ STAT_##kind, #name, help, offsetof(stat_this_, name) },

/* Only the owner writes, so a load and a store are enough. */
static inline void
stat_add(uint64_t *v, uint64_t n)
{
	__atomic_store_n(v, __atomic_load_n(v, __ATOMIC_RELAXED) + n,
	    __ATOMIC_RELAXED);
}

static inline void
stat_set(uint64_t *gauge, uint64_t n)
{
	__atomic_store_n(gauge, n, __ATOMIC_RELAXED);
}

static inline void
stat_hist_add(struct stat_hist *h, uint64_t v)
{
	unsigned i = v <= 1024 ? 0 : 54u - (unsigned)__builtin_clzll(v - 1);

	stat_add(&h->bucket[i < STAT_BUCKETS ? i : STAT_BUCKETS - 1], 1);
	stat_add(&h->sum, v);
}

/* A bound of the value below which the share @num/@den of all values lie; 0 when there
 * are none. */
uint64_t stat_hist_quantile(const struct stat_hist *h, uint32_t num,
	    uint32_t den);
uint64_t stat_hist_count(const struct stat_hist *h);

/* The values of one object, embedded by it. */
struct stat_set {
	struct list	       node;	/* the registry's */
	const char	      *prefix;	/* of the names: "fsd_storage" */
	char		       labels[256];	/* "loop=\"2\"", or "" */
	const struct stat_row *rows;
	const void	      *values;
	struct stat_registry  *registry;	/* NULL: in none */
};

/* Everything one process tells.  The lock is for the list: owners change values without
 * it, but a set that was removed is not looked at any more. */
struct stat_registry {
	pthread_mutex_t lock;
	struct list	sets;
	uint64_t	process;	/* random, so that others see two are one; the
					 * owner's to set */
};
void	stat_registry_init(struct stat_registry *r);
void	stat_registry_fini(struct stat_registry *r);	/* all sets are removed */
/* @set is filled in and stays where it is until stat_remove(). */
void	stat_register(struct stat_registry *r, struct stat_set *set);
void	stat_remove(struct stat_set *set);	/* one that is in none is fine */
/* Add a label, before it is registered. What would end the text is left out. */
void	stat_label(struct stat_set *set, const char *key, const char *text);
/* All in one go, as NAME##_stat_rows of speaker @who: role="WHO". @r may be NULL:
 * nobody asks, and nothing is done. */
void	stat_attach(struct stat_registry *r, struct stat_set *set, const char *prefix,
	    const char *who, const struct stat_row *rows, const void *values);
void	stat_print(struct stat_registry *r, FILE *out);
/* What stat_print() says in memory to free(), at most @max bytes, cut after a line.
 * NULL: no memory. @r may be NULL: "". */
char   *stat_text(struct stat_registry *r, size_t max, size_t *len);

#endif
