/* SPDX-License-Identifier: MIT */
/* table.c - overlays over a store, and grouped commits.
 *
 *   puts -> active overlay --freeze--> frozen overlay --written--> gone (in the store)
 *
 *   a commit:  waiting -> flying (its changes are frozen) -> called back
 *              nothing to write: waiting -> ready -> called back by a deferred call
 *
 * Invariants:
 *  1. flying is not empty exactly while the store has a batch of ours (batch_busy).
 *  2. A commit waits only while a batch is in flight.
 *  3. An entry hides the same key in everything below it; a tombstone hides and is
 *     not seen.
 *  4. changes[] of an overlay has room for each of its entries, so that freezing
 *     cannot fail.
 *  5. Once broken, nothing is frozen any more, and what is frozen stays readable.
 *  6. An overlay that clears hides everything below it, not only its own keys. */
#include "conf/table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/omap.h"

#define FREE_AT_ONCE	512u	/* entries freed in one go */

struct overlay {
	struct omap	     map;
	struct table_change *changes;
	size_t		     cap;
	bool		     clears;
};

struct table {
	struct table_store *store;
	struct clock	   *clock;
	struct overlay	    overlays[2];
	struct overlay	   *active, *frozen;	/* frozen may be empty */
	struct table_batch  batch;
	bool		    batch_busy;
	int		    broken;		/* 0, or why commits fail */
	uint64_t	    seq;
	struct list	    waiting, flying, ready;
	struct clock_defer  call_ready;
	struct omap	    trash;	/* what was frozen, freed bit by bit */
	struct clock_defer  free_trash;
	bool		   *closed;	/* set when it is closed in a callback */
};

int
table_open(struct table **out, struct table_store *store, struct clock *clock)
{
	struct table *t = calloc(1, sizeof(*t));

	*out = t;
	if (t == NULL) {
		store->ops->close(store);
		return -ENOMEM;
	}
	t->store = store;
	t->clock = clock;
	t->active = &t->overlays[0];
	t->frozen = &t->overlays[1];
	omap_init(&t->active->map);
	omap_init(&t->frozen->map);
	omap_init(&t->trash);
	list_init(&t->waiting);
	list_init(&t->flying);
	list_init(&t->ready);
	return 0;
}

bool
table_close(struct table *t)
{
	bool whole;

	if (t == NULL)
		return true;
	whole = t->store->ops->close(t->store);	/* the batch ends here */
	clock_undefer(t->clock, &t->call_ready);
	clock_undefer(t->clock, &t->free_trash);
	if (t->closed != NULL)
		*t->closed = true;
	if (!whole)
		return false;
	omap_fini(&t->trash);
	for (unsigned i = 0; i < 2; i++) {
		omap_fini(&t->overlays[i].map);
		free(t->overlays[i].changes);
	}
	while (list_pop_front(&t->waiting) != NULL)
		;
	while (list_pop_front(&t->flying) != NULL)
		;
	while (list_pop_front(&t->ready) != NULL)
		;
	free(t);
	return true;
}

/* ---- reads ---- */

static bool
hides_store(const struct table *t)
{
	return t->active->clears || t->frozen->clears;
}

int
table_get(struct table *t, const void *key, size_t key_len, const void **value,
    size_t *value_len)
{
	const struct omap_entry *e;

	e = omap_get(&t->active->map, key, key_len);
	if (e == NULL && !t->active->clears)
		e = omap_get(&t->frozen->map, key, key_len);
	if (e == NULL && hides_store(t))
		return -ENOENT;
	if (e == NULL)
		return t->store->ops->get(t->store, key, key_len, value,
		    value_len);
	if ((*value = omap_value(e)) == NULL)
		return -ENOENT;
	*value_len = e->value_len;
	return 0;
}

/* One of the layers a seek merges. */
struct source {
	const void *key, *value;	/* key NULL: nothing (more) with the prefix */
	size_t	    key_len, value_len;
	const struct omap_entry *e;	/* of an overlay */
};

struct prefix {
	const void *p;
	size_t	    len;
};

static void
from_entry(struct source *s, const struct omap_entry *e, struct prefix pre)
{
	s->e = e;
	s->key = NULL;
	if (e == NULL || e->key_len < pre.len ||
	    memcmp(omap_key(e), pre.p, pre.len) != 0)
		return;
	s->key = omap_key(e);
	s->key_len = e->key_len;
	s->value = omap_value(e);
	s->value_len = e->value_len;
}

static int
from_store(struct source *s, struct table_store *store, const void *key,
    size_t key_len, bool after, struct prefix pre)
{
	int rc = store->ops->seek(store, key, key_len, after, &s->key,
	    &s->key_len, &s->value, &s->value_len);

	if (rc != 0 || s->key_len < pre.len ||
	    memcmp(s->key, pre.p, pre.len) != 0)
		s->key = NULL;
	return rc == -ENOENT ? 0 : rc;
}

int
table_seek(struct table *t, const void *key, size_t key_len, bool after,
    size_t prefix_len, const void **found, size_t *found_len,
    const void **value, size_t *value_len)
{
	uint8_t hidden[TABLE_KEY_MAX];
	struct prefix pre = { key, prefix_len };
	struct source src[3] = { 0 };	/* active, frozen, store: upper ones hide */
	int rc;

	assert(prefix_len <= key_len);
	from_entry(&src[0], omap_seek(&t->active->map, key, key_len, after), pre);
	if (!t->active->clears)
		from_entry(&src[1], omap_seek(&t->frozen->map, key, key_len,
		    after), pre);
	rc = hides_store(t) ? 0 : from_store(&src[2], t->store, key, key_len,
	    after, pre);
	while (rc == 0) {
		const struct source *top = NULL;
		struct source best;

		for (unsigned i = 0; i < 3; i++)
			if (src[i].key != NULL && (top == NULL ||
			    omap_cmp(src[i].key, src[i].key_len, top->key,
			    top->key_len) < 0))
				top = &src[i];
		if (top == NULL)
			return -ENOENT;
		if (top->value != NULL) {
			*found = top->key;
			*found_len = top->key_len;
			*value = top->value;
			*value_len = top->value_len;
			return 0;
		}
		/* A tombstone: step every layer that stands at its key. */
		best = *top;
		for (unsigned i = 0; i < 3 && rc == 0; i++) {
			if (src[i].key == NULL || omap_cmp(src[i].key,
			    src[i].key_len, best.key, best.key_len) != 0)
				continue;
			if (i < 2) {
				from_entry(&src[i], omap_next(src[i].e), pre);
				continue;
			}
			/* The store may reuse what it lent: ask with a copy. */
			assert(best.key_len <= sizeof(hidden));
			memcpy(hidden, best.key, best.key_len);
			rc = from_store(&src[i], t->store, hidden, best.key_len,
			    true, pre);
		}
	}
	return rc;
}

/* ---- changes ---- */

static int
change(struct table *t, const void *key, size_t key_len, const void *value,
    size_t value_len)
{
	struct overlay *o = t->active;

	assert(key_len > 0 && key_len <= TABLE_KEY_MAX);
	assert(value_len <= TABLE_VALUE_MAX);
	if (o->map.n == o->cap) {
		size_t cap = o->cap == 0 ? 64 : o->cap * 2;
		struct table_change *v = realloc(o->changes, cap * sizeof(*v));

		if (v == NULL)
			return -ENOMEM;
		o->changes = v;
		o->cap = cap;
	}
	return omap_put(&o->map, key, key_len, value, value_len);
}

int
table_put(struct table *t, const void *key, size_t key_len, const void *value,
    size_t value_len)
{
	return change(t, key, key_len, value_len > 0 ? value : "", value_len);
}

int
table_del(struct table *t, const void *key, size_t key_len)
{
	return change(t, key, key_len, NULL, 0);
}

void
table_clear(struct table *t)
{
	omap_fini(&t->active->map);
	omap_init(&t->active->map);
	t->active->clears = true;
}

uint64_t
table_used_bytes(const struct table *t)
{
	return t->store->ops->used(t->store);
}

/* ---- images ---- */

int
table_image_open(struct table *t, uint64_t max_bytes, struct table_image **out)
{
	*out = NULL;
	return t->store->ops->image(t->store, max_bytes, out);
}

int
table_image_seek(struct table_image *m, const void *key, size_t key_len, bool after,
    const void **found, size_t *found_len, const void **value, size_t *value_len)
{
	return m->ops->seek(m, key, key_len, after, found, found_len, value,
	    value_len);
}

void
table_image_close(struct table_image *m)
{
	if (m != NULL)
		m->ops->close(m);
}

/* ---- how much waits ---- */

size_t
table_dirty_bytes(const struct table *t)
{
	return t->active->map.bytes + t->frozen->map.bytes;
}

/* ---- commits ---- */

/* Call back what is ready now; what callbacks make ready waits for a turn of its own.
 * A callback may close the table. */
static void
call_back(struct table *t)
{
	bool closed = false, *outer = t->closed;
	int rc = t->broken;
	struct list now, *n;

	list_init(&now);
	list_splice_back(&now, &t->ready);
	t->closed = &closed;
	while (!closed && (n = list_pop_front(&now)) != NULL) {
		struct table_commit *c = list_entry(n, struct table_commit, node);

		c->rc = rc;
		c->fn(c);
	}
	if (!closed)
		t->closed = outer;
	else if (outer != NULL)
		*outer = true;
}

static void
run_ready(struct clock_defer *d)
{
	call_back(container_of(d, struct table, call_ready));
}

static void
free_some(struct clock_defer *d)
{
	struct table *t = container_of(d, struct table, free_trash);

	if (!omap_fini_some(&t->trash, FREE_AT_ONCE))
		clock_defer(t->clock, d, free_some);
}

/* What was frozen is in the store now. */
static void
drop_frozen(struct table *t)
{
	omap_fini(&t->trash);		/* the one before took its time */
	t->trash = t->frozen->map;
	omap_init(&t->frozen->map);
	t->frozen->clears = false;
	if (!omap_fini_some(&t->trash, FREE_AT_ONCE))
		clock_defer(t->clock, &t->free_trash, free_some);
}

static bool
has_changes(const struct table *t)
{
	return t->active->map.n > 0 || t->active->clears;
}

static void written(struct table_batch *b);

/* Give the active overlay to the store, with all waiting commits. */
static void
freeze(struct table *t)
{
	struct overlay *o = t->active;
	size_t n = 0;

	assert(!t->batch_busy);
	assert(t->frozen->map.n == 0);
	t->active = t->frozen;
	t->frozen = o;
	for (const struct omap_entry *e = omap_first(&o->map); e != NULL;
	    e = omap_next(e))
		o->changes[n++] = (struct table_change){
			.key = omap_key(e), .key_len = e->key_len,
			.value = omap_value(e), .value_len = e->value_len };
	assert(n == o->map.n);
	list_splice_back(&t->flying, &t->waiting);
	t->batch = (struct table_batch){ .changes = o->changes, .n = n,
	    .clear = o->clears, .fn = written, .clock = t->clock };
	t->batch_busy = true;
	t->store->ops->write(t->store, &t->batch);
}

static void
written(struct table_batch *b)
{
	struct table *t = container_of(b, struct table, batch);

	t->batch_busy = false;
	list_splice_back(&t->ready, &t->flying);
	if (b->rc != 0) {
		t->broken = b->rc;
		list_splice_back(&t->ready, &t->waiting);
	} else {
		drop_frozen(t);
		/* The next batch goes out before anybody is told of this one: the
		 * writer works while callbacks run. */
		if (!list_empty(&t->waiting) && has_changes(t))
			freeze(t);
		else
			list_splice_back(&t->ready, &t->waiting);
	}
	call_back(t);
}

void
table_commit(struct table *t, struct table_commit *c, table_commit_fn *fn)
{
	c->fn = fn;
	c->rc = 0;
	c->seq = ++t->seq;
	if (t->broken != 0 || (!t->batch_busy && !has_changes(t))) {
		list_push_back(&t->ready, &c->node);
		clock_defer(t->clock, &t->call_ready, run_ready);
		return;
	}
	list_push_back(&t->waiting, &c->node);
	if (!t->batch_busy)
		freeze(t);
}
