/* SPDX-License-Identifier: MIT */
/* table.h - an ordered, durable map of byte strings with write-behind.
 *
 * Puts and deletes change an in-memory overlay at once and are seen by the very
 * next read; table_commit() makes everything changed so far durable as one atomic
 * batch on the store's writer thread, and calls back.  After a crash the table
 * holds exactly some prefix of the committed batches: all that were called back,
 * perhaps the ones in flight, never part of one.
 *
 *   reads:  active overlay -> frozen overlay (being written) -> store
 *
 * Commits group: while one batch is being written, later commits wait and go out
 * together as the next, with every change made until then.  So a change may become
 * durable before anybody committed it; what must be atomic is put without returning
 * to the loop in between, and is never split.  Single-threaded: one loop owns a table. */
#ifndef CONF_TABLE_H
#define CONF_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/clock.h"
#include "conf/list.h"

#define TABLE_KEY_MAX	500u		/* bytes; LMDB takes 511 */
#define TABLE_VALUE_MAX	(1u << 20)	/* bytes */

/* ---- the store below: conf/table_lmdb.c, tests/sim/table.c ---- */

struct table_store;
struct table_batch;
struct table_image;

/* One change; value NULL deletes (deleting what is not there is fine). */
struct table_change {
	const void *key;
	const void *value;
	uint32_t    key_len;
	uint32_t    value_len;
};

struct table_batch {
	const struct table_change *changes;	/* ascending keys, no repeats */
	size_t	    n;
	bool	    clear;			/* first drop all that is there */
	int	    rc;				/* 0, -ENOSPC, -EIO */
	void	  (*fn)(struct table_batch *);	/* on the owner's thread */
	struct clock *clock;			/* where fn runs */
	struct list node;			/* the store's */
	uint64_t    impl[8];			/* the store's */
};

struct table_store_ops {
	/* 0 and *value (borrowed until the next call on the store or return to
	 * the loop); -ENOENT; -EIO. */
	int  (*get)(struct table_store *, const void *key, size_t key_len,
	    const void **value, size_t *value_len);
	/* First key >= @key (after: > @key). 0, -ENOENT, -EIO. */
	int  (*seek)(struct table_store *, const void *key, size_t key_len,
	    bool after, const void **found, size_t *found_len,
	    const void **value, size_t *value_len);
	/* Write a batch atomically and durably; one at a time. Reads see it as a
	 * whole, at the latest when fn runs. */
	void (*write)(struct table_store *, struct table_batch *);
	/* Bytes in use, of what max_bytes bounds; as of the last batch. */
	uint64_t (*used)(struct table_store *);
	/* A frozen image of what is durable now. It goes stale when more than
	 * @max_bytes of space had to be kept for it.  0, -ENOMEM, -EIO. */
	int  (*image)(struct table_store *, uint64_t max_bytes,
	    struct table_image **out);
	/* Blocks until a batch in flight is done (its fn does not run), but not for more
	 * than some seconds.  Images are closed before.  False: it is not, the device may
	 * never answer; the batch and what it refers to are never to be freed. */
	bool (*close)(struct table_store *);
};

struct table_image_ops {
	/* As seek of the store; -ESTALE too. Borrowed until the next call on the
	 * image or return to the loop. */
	int  (*seek)(struct table_image *, const void *key, size_t key_len,
	    bool after, const void **found, size_t *found_len,
	    const void **value, size_t *value_len);
	void (*close)(struct table_image *);
};

struct table_image {
	const struct table_image_ops *ops;
};

struct table_store {
	const struct table_store_ops *ops;
};

/* ---- the table ---- */

struct table;
struct table_commit;
typedef void table_commit_fn(struct table_commit *);

struct table_commit {
	struct list	 node;		/* the table's */
	uint64_t	 seq;		/* the table's */
	int		 rc;		/* 0, -ENOSPC, -EIO */
	table_commit_fn *fn;
};

/* Make a table over @store (owned from here on, also on failure).
 * Returns 0 or -ENOMEM. */
int	table_open(struct table **out, struct table_store *store,
	    struct clock *clock);
/* Drop what was not committed; waiting commits never call back. NULL is fine.
 * False: its device has not answered for seconds; memory is left to it. */
bool	table_close(struct table *t);

/* Value of @key: 0, -ENOENT, -EIO.  What is returned is borrowed until the next
 * call on this table or return to the loop. */
int	table_get(struct table *t, const void *key, size_t key_len,
	    const void **value, size_t *value_len);

/* Smallest key >= @key (@after: > @key) that starts with the first @prefix_len
 * bytes of @key.  0, -ENOENT, -EIO; borrowed as table_get(). */
int	table_seek(struct table *t, const void *key, size_t key_len, bool after,
	    size_t prefix_len, const void **found, size_t *found_len,
	    const void **value, size_t *value_len);

/* Change the overlay; both copy.  0 or -ENOMEM; lengths are the caller's
 * business (asserted). */
int	table_put(struct table *t, const void *key, size_t key_len,
	    const void *value, size_t value_len);
int	table_del(struct table *t, const void *key, size_t key_len);

/* Make all changes up to now durable, then call fn once, never before this has
 * returned.  After a failed commit the table is broken: every later commit fails
 * with the same code; the owner must stop serving. */
void	table_commit(struct table *t, struct table_commit *c,
	    table_commit_fn *fn);

/* Forget all there is, and all changes that were not committed: the table is empty at
 * once.  The next commit makes that durable, with what was put since, as one batch. */
void	table_clear(struct table *t);

/* A frozen image of what is durable: what the last commit that called back wrote, when no
 * other is waiting.  The table may be changed and committed meanwhile; it is -ESTALE once
 * its upkeep took more than @max_bytes of space, and has to be begun again.  Close it
 * before the table.  0, -ENOMEM, -EIO. */
int	table_image_open(struct table *t, uint64_t max_bytes,
	    struct table_image **out);
/* First key >= @key (@after: > @key), as table_seek(); -ESTALE. */
int	table_image_seek(struct table_image *m, const void *key, size_t key_len,
	    bool after, const void **found, size_t *found_len,
	    const void **value, size_t *value_len);
void	table_image_close(struct table_image *m);	/* NULL is fine */

/* Bytes that the durable part takes, of the bound it was opened with. */
uint64_t table_used_bytes(const struct table *t);

/* Bytes held by changes that are not durable yet; the owner's back-pressure. */
size_t	table_dirty_bytes(const struct table *t);

#endif
