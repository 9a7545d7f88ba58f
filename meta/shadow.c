/* SPDX-License-Identifier: MIT */
/* shadow.c - a store whose reads are those of a table, and whose only batch is written down
 * nowhere. */
#include "meta/shadow.h"

#include <errno.h>
#include <stdlib.h>

struct shadow {
	struct table_store  store;
	struct table	   *below;	/* borrowed */
	struct table	   *table;	/* NULL: it could not be made */
	struct table_batch *batch;	/* NULL: none yet */
	struct table_commit commit;
};

static struct shadow *
of(struct table_store *ts)
{
	return container_of(ts, struct shadow, store);
}

static int
get(struct table_store *ts, const void *key, size_t key_len, const void **value,
    size_t *value_len)
{
	return table_get(of(ts)->below, key, key_len, value, value_len);
}

static int
seek(struct table_store *ts, const void *key, size_t key_len, bool after,
    const void **found, size_t *found_len, const void **value, size_t *value_len)
{
	return table_seek(of(ts)->below, key, key_len, after, 0, found, found_len, value,
	    value_len);
}

/* It never ends. */
static void
write_batch(struct table_store *ts, struct table_batch *b)
{
	of(ts)->batch = b;
}

static uint64_t
used(struct table_store *ts)
{
	(void)ts;
	return 0;
}

static bool
close_store(struct table_store *ts)
{
	(void)ts;			/* it is a part of the shadow */
	return true;
}

/* No image is made of it. */
static const struct table_store_ops ops = {
	.get = get, .seek = seek, .write = write_batch, .used = used, .close = close_store
};

int
shadow_open(struct shadow **out, struct table *below, struct clock *clock)
{
	struct shadow *s = calloc(1, sizeof(*s));
	int rc;

	*out = NULL;
	if (s == NULL)
		return -ENOMEM;
	s->store.ops = &ops;
	s->below = below;
	if ((rc = table_open(&s->table, &s->store, clock)) != 0) {
		free(s);
		return rc;
	}
	*out = s;
	return 0;
}

void
shadow_close(struct shadow *s)
{
	if (s == NULL)
		return;
	table_close(s->table);
	free(s);
}

struct table *
shadow_table(struct shadow *s)
{
	return s->table;
}

static void
never(struct table_commit *c)
{
	(void)c;
}

const struct table_change *
shadow_changes(struct shadow *s, size_t *n)
{
	if (s->batch == NULL)
		table_commit(s->table, &s->commit, never);
	*n = s->batch == NULL ? 0 : s->batch->n;
	return s->batch == NULL ? NULL : s->batch->changes;
}
