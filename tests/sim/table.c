/* SPDX-License-Identifier: MIT */
/* table.c - durable key-value bytes in memory, with batches that take time. */
#include "tests/sim/table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "conf/omap.h"

struct handle {
	struct table_store  store;
	struct sim_table   *data;	/* NULL: its owner crashed */
	struct table_batch *batch;	/* in flight */
	struct clock	   *clock;
	struct clock_timer  timer;
	struct list	    images;
};

struct sim_table {
	struct omap	map;
	struct rand    *rand;
	const struct sim_table_conf *conf;
	const struct sim_table_faults *faults;
	struct handle  *handle;		/* NULL: not open */
};

static const struct sim_table_faults no_faults;

void
sim_table_fault(struct sim_table *d, const struct sim_table_faults *f)
{
	d->faults = f;
}

/* A copy of everything. */
struct image {
	struct table_image image;
	struct omap	   map;
	struct list	   node;	/* in handle->images */
	uint64_t	   bytes, max_bytes;
};

struct sim_table *
sim_table_open(struct rand *rand, const struct sim_table_conf *conf)
{
	struct sim_table *d = calloc(1, sizeof(*d));

	if (d == NULL)
		abort();
	omap_init(&d->map);
	d->rand = rand;
	d->conf = conf;
	d->faults = &no_faults;
	return d;
}

void
sim_table_close(struct sim_table *d)
{
	if (d == NULL)
		return;
	assert(d->handle == NULL);
	omap_fini(&d->map);
	free(d);
}

size_t
sim_table_n(const struct sim_table *d)
{
	return d->map.n;
}

static void
apply(struct sim_table *d, const struct table_batch *b)
{
	if (b->clear) {
		omap_fini(&d->map);
		omap_init(&d->map);
	}
	for (size_t i = 0; i < b->n; i++) {
		const struct table_change *c = &b->changes[i];

		assert(i == 0 || omap_cmp(c[-1].key, c[-1].key_len, c->key,
		    c->key_len) < 0);
		if (c->value == NULL)
			omap_del(&d->map, c->key, c->key_len);
		else if (omap_put(&d->map, c->key, c->key_len, c->value,
		    c->value_len) != 0)
			abort();
	}
}

static int
give(const struct omap_entry *e, const void **value, size_t *value_len)
{
	if (e == NULL)
		return -ENOENT;
	*value = omap_value(e);
	*value_len = e->value_len;
	return 0;
}

static int
get(struct table_store *s, const void *key, size_t key_len, const void **value,
    size_t *value_len)
{
	struct handle *h = container_of(s, struct handle, store);

	if (h->data == NULL || h->data->faults->dead)
		return -EIO;
	return give(omap_get(&h->data->map, key, key_len), value, value_len);
}

static int
seek(struct table_store *s, const void *key, size_t key_len, bool after,
    const void **found, size_t *found_len, const void **value,
    size_t *value_len)
{
	struct handle *h = container_of(s, struct handle, store);
	const struct omap_entry *e;

	if (h->data == NULL || h->data->faults->dead)
		return -EIO;
	if ((e = omap_seek(&h->data->map, key, key_len, after)) == NULL)
		return -ENOENT;
	*found = omap_key(e);
	*found_len = e->key_len;
	return give(e, value, value_len);
}

static uint64_t
used(struct table_store *s)
{
	struct handle *h = container_of(s, struct handle, store);

	return h->data == NULL ? 0 : h->data->map.bytes;
}

/* ---- images ---- */

static int
image_seek(struct table_image *ti, const void *key, size_t key_len, bool after,
    const void **found, size_t *found_len, const void **value, size_t *value_len)
{
	struct image *m = container_of(ti, struct image, image);
	const struct omap_entry *e;

	if (m->bytes > m->max_bytes)
		return -ESTALE;
	if ((e = omap_seek(&m->map, key, key_len, after)) == NULL)
		return -ENOENT;
	*found = omap_key(e);
	*found_len = e->key_len;
	return give(e, value, value_len);
}

static void
image_close(struct table_image *ti)
{
	struct image *m = container_of(ti, struct image, image);

	list_remove(&m->node);
	omap_fini(&m->map);
	free(m);
}

static const struct table_image_ops image_ops = {
	.seek = image_seek, .close = image_close
};

static int
image_open(struct table_store *s, uint64_t max_bytes, struct table_image **out)
{
	struct handle *h = container_of(s, struct handle, store);
	struct image *m;

	if (h->data == NULL)
		return -EIO;
	if ((m = calloc(1, sizeof(*m))) == NULL)
		abort();
	m->image.ops = &image_ops;
	m->max_bytes = max_bytes;
	omap_init(&m->map);
	for (const struct omap_entry *e = omap_first(&h->data->map); e != NULL;
	    e = omap_next(e))
		if (omap_put(&m->map, omap_key(e), e->key_len, omap_value(e),
		    e->value_len) != 0)
			abort();
	list_push_back(&h->images, &m->node);
	*out = &m->image;
	return 0;
}

static void
images_age(struct handle *h, const struct table_batch *b)
{
	uint64_t bytes = b->clear ? h->data->map.bytes : 0;

	for (size_t i = 0; i < b->n; i++)
		bytes += b->changes[i].key_len + b->changes[i].value_len;
	list_for_each(it, &h->images)
		list_entry(it, struct image, node)->bytes += bytes;
}

/* ---- batches ---- */

static void
finish(struct clock_timer *t)
{
	struct handle *h = container_of(t, struct handle, timer);
	struct sim_table *d = h->data;
	struct table_batch *b = h->batch;

	h->batch = NULL;
	b->rc = 0;
	if (rand_chance(d->rand, d->conf->eio_ppm, 1000000))
		b->rc = -EIO;
	if (d->faults->dead)
		b->rc = -EIO;
	for (size_t i = 0; i < b->n && (d->conf->full || d->faults->full) &&
	    b->rc == 0; i++)
		if (b->changes[i].value != NULL)
			b->rc = -ENOSPC;
	/* After an error nobody knows, as after a crash. */
	if (b->rc == 0 || (b->rc == -EIO && rand_chance(d->rand, 1, 2)))
		apply(d, b);
	b->fn(b);
}

static void
write_batch(struct table_store *s, struct table_batch *b)
{
	struct handle *h = container_of(s, struct handle, store);
	const struct sim_table_conf *c;

	assert(h->batch == NULL);
	h->batch = b;
	h->clock = b->clock;
	if (h->data == NULL)
		return;			/* the dead are not answered */
	c = h->data->conf;
	images_age(h, b);
	if (c->tick != NULL)
		c->tick(c->tick_ctx);
	assert(c->write_min_ns <= c->write_max_ns);
	clock_timer_start(h->clock, &h->timer, clock_now(h->clock) +
	    c->write_min_ns + rand_below(h->data->rand,
	    c->write_max_ns - c->write_min_ns + 1), finish);
}

static bool
close_handle(struct table_store *s)
{
	struct handle *h = container_of(s, struct handle, store);

	assert(list_empty(&h->images));
	if (h->data != NULL) {
		if (h->batch != NULL) {		/* the real one waits for it */
			apply(h->data, h->batch);
			clock_timer_stop(h->clock, &h->timer);
		}
		h->data->handle = NULL;
	}
	free(h);
	return true;
}

void
sim_table_crash(struct sim_table *d)
{
	struct handle *h = d->handle;

	if (h == NULL)
		return;
	if (h->batch != NULL) {
		if (rand_chance(d->rand, 1, 2))
			apply(d, h->batch);
		clock_timer_stop(h->clock, &h->timer);
	}
	h->data = NULL;
	d->handle = NULL;
}

static const struct table_store_ops ops = {
	.get = get, .seek = seek, .write = write_batch, .used = used,
	.image = image_open, .close = close_handle
};

int
sim_table_store(struct sim_table *d, struct table_store **out)
{
	struct handle *h;

	if (d->handle != NULL)
		return -EBUSY;
	if ((h = calloc(1, sizeof(*h))) == NULL)
		abort();
	h->store.ops = &ops;
	list_init(&h->images);
	h->data = d;
	d->handle = h;
	*out = &h->store;
	return 0;
}
