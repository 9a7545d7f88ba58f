/* SPDX-License-Identifier: MIT */
/* metadata_image.c - the tables as they were at one moment, page by page, for fsd check.
 *
 * One image at a time: a frozen image keeps space of the table from being used again, so
 * it ends when nobody asks for a while, and when another one is wanted.  What is in it is
 * at most one flush older than the request that made it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "roles/metadata_impl.h"

#define IDLE_NS		(60 * NS_PER_S)
#define SPACE_BYTES	(1ull << 30)	/* the table may grow by, for one image */
#define PAGE_ROWS	4096u
#define PAGE_BYTES	(800u << 10)

struct metadata_images {
	struct metadata	   *m;
	struct table_image *image;	/* NULL: none */
	uint64_t	    id;
	struct clock_timer  idle;
	struct msg_image_row rows[PAGE_ROWS];
};

int
metadata_image_open(struct metadata *m)
{
	struct metadata_images *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return -ENOMEM;
	s->m = m;
	m->images = s;
	return 0;
}

void
metadata_image_drop(struct metadata *m)
{
	struct metadata_images *s = m->images;

	if (s == NULL)
		return;
	table_image_close(s->image);
	s->image = NULL;
	clock_timer_stop(m->clock, &s->idle);
}

void
metadata_image_close(struct metadata *m)
{
	metadata_image_drop(m);
	free(m->images);
	m->images = NULL;
}

static void
idle(struct clock_timer *t)
{
	metadata_image_drop(container_of(t, struct metadata_images, idle)->m);
}

/* A new one, under a number that nobody was told of before. */
static int
renew(struct metadata_images *s)
{
	struct metadata *m = s->m;
	int rc;

	metadata_image_drop(m);
	rc = table_image_open(group_table(m->group), SPACE_BYTES, &s->image);
	if (rc != 0)
		s->image = NULL;
	else
		m->env.random(m->env.ctx, &s->id, sizeof(s->id));
	s->id |= 1;
	return rc;
}

/* Rows point into the image, which does not move before it is asked again: so each is
 * copied into @arena. */
static int
page(struct metadata_images *s, const struct msg_image *q, struct msg_arena *arena,
    struct msg_image_rep *rep)
{
	const void *key = q->after.p, *found, *value;
	size_t n = q->after.n, found_n, value_n, bytes = 0;
	int rc = 0;

	while (rep->rows.n < PAGE_ROWS && bytes < PAGE_BYTES) {
		struct msg_image_row *row = &s->rows[rep->rows.n];
		char *copy;

		rc = table_image_seek(s->image, key, n, n > 0, &found, &found_n,
		    &value, &value_n);
		if (rc != 0)
			break;
		if ((copy = msg_arena_get(arena, found_n + value_n + 1)) == NULL)
			return -ENOMEM;
		memcpy(copy, found, found_n);
		memcpy(copy + found_n, value, value_n);
		row->key = (struct msg_str){ copy, (uint32_t)found_n };
		row->value = (struct msg_str){ copy + found_n, (uint32_t)value_n };
		rep->rows.n++;
		bytes += found_n + value_n + 16;
		key = copy;
		n = found_n;
	}
	rep->rows.v = s->rows;
	rep->more = rc == 0;
	return rc == -ENOENT ? 0 : rc;
}

void
metadata_image_call(struct metadata *m, struct net_req *req)
{
	const struct msg_image *q = req->msg;
	struct metadata_images *s = m->images;
	struct msg_image_rep rep = { 0 };
	struct msg_arena arena;
	int rc = 0;

	msg_arena_init(&arena, 2 * PAGE_BYTES + TABLE_VALUE_MAX);
	if (q->after.n > TABLE_KEY_MAX)
		rc = -EINVAL;
	else if (q->image == 0)
		rc = q->index > group_durable(m->group) ? ERR_BUSY : renew(s);
	else if (s->image == NULL || q->image != s->id)
		rc = -ESTALE;
	if (rc == 0)
		rc = page(s, q, &arena, &rep);
	if (rc == 0) {
		rep.image = s->id;
		clock_timer_start(m->clock, &s->idle, clock_now(m->clock) + IDLE_NS,
		    idle);
	} else if (q->image == 0 || q->image == s->id)
		metadata_image_drop(m);
	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
	msg_arena_fini(&arena);
}
