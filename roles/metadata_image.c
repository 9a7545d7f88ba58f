/* SPDX-License-Identifier: MIT */
/* metadata_image.c - the tables as they were right after one entry of the log, page by page,
 * and digests of their rows: for fsd check, which compares the members.
 *
 *   make one -> mark in the log (meta/group_mark.c) -> written and frozen -> first page
 *
 * Pages and digests of an image are given by any member, whoever leads.  One that is found to
 * differ from the others takes the leader's table (meta/group_heal.c). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "meta/key.h"
#include "roles/metadata_impl.h"

#define PAGE_ROWS	4096u
#define PAGE_BYTES	(800u << 10)
#define POLL_NS		(5 * NS_PER_MS)
#define READ_NS		(10 * NS_PER_S)	/* not asked for so long: nobody reads it */

struct metadata_images {
	struct metadata	   *m;
	/* one that is being made */
	struct net_req	   *req;	/* NULL: none */
	struct group_req    mark;
	bool		    marking;	/* it is on its way through the log */
	struct clock_timer  poll;
	/* the one that is being read, 0: none; when it was asked for last */
	uint64_t	    read, read_ns;
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
metadata_image_close(struct metadata *m)
{
	struct metadata_images *s = m->images;

	if (s == NULL)
		return;
	clock_timer_stop(m->clock, &s->poll);
	if (s->req != NULL)
		net_req_drop(s->req);
	free(s);
	m->images = NULL;
}

static int
compare(const void *a, size_t an, const void *b, size_t bn)
{
	int d = memcmp(a, b, an < bn ? an : bn);

	return d != 0 ? d : an < bn ? -1 : an > bn;
}

/* Rows point into the image, which does not move before it is asked again: so each is
 * copied into @arena. */
static int
page(struct metadata_images *s, struct table_image *image, const struct msg_image *q,
    struct msg_arena *arena, struct msg_image_rep *rep)
{
	const void *key = q->after.p, *found, *value;
	size_t n = q->after.n, found_n, value_n, bytes = 0;
	int rc = 0;

	while (rep->rows.n < PAGE_ROWS && bytes < PAGE_BYTES) {
		struct msg_image_row *row = &s->rows[rep->rows.n];
		char *copy;

		rc = table_image_seek(image, key, n, n > 0, &found, &found_n, &value,
		    &value_n);
		if (rc == 0 && q->until.n > 0 &&
		    compare(found, found_n, q->until.p, q->until.n) > 0)
			rc = -ENOENT;
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

/* Of a range that is a page at another member: it may be longer here, but not by much. */
static int
digest(struct table_image *image, const struct msg_image *q, struct msg_image_rep *rep)
{
	uint8_t key[TABLE_KEY_MAX];
	const void *found, *value;
	size_t n = q->after.n, value_n, bytes = 0;
	int rc = 0;

	if (n > 0)
		memcpy(key, q->after.p, n);
	for (unsigned i = 0; i < 2 * PAGE_ROWS && bytes < 2 * PAGE_BYTES; i++) {
		rc = table_image_seek(image, key, n, n > 0, &found, &n, &value, &value_n);
		if (rc == 0 && q->until.n > 0 &&
		    compare(found, n, q->until.p, q->until.n) > 0)
			rc = -ENOENT;
		if (rc == 0 && n > sizeof(key))
			rc = -EIO;
		if (rc != 0)
			break;
		memcpy(key, found, n);
		bytes += n + value_n + 16;
		if (key[0] == 0)
			continue;
		rep->digest = key_digest(rep->digest, key, n, value, value_n);
		rep->rows_n++;
	}
	rep->more = rc == 0;
	return rc == -ENOENT ? 0 : rc;
}

/* ERR_BUSY: not yet, nothing was answered. */
static int
answer(struct metadata_images *s, struct net_req *req, uint64_t index)
{
	const struct msg_image *q = req->msg;
	struct msg_image_rep rep = { .image = index };
	struct table_image *image;
	struct msg_arena arena;
	int rc = group_frozen(s->m->group, index, &image);

	if (rc != 0)
		return rc;
	msg_arena_init(&arena, 2 * PAGE_BYTES + TABLE_VALUE_MAX);
	rc = q->digest ? digest(image, q, &rep) : page(s, image, q, &arena, &rep);
	s->read = rc == 0 && (rep.more || q->until.n > 0) ? index : 0;
	s->read_ns = clock_now(s->m->clock);
	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
	msg_arena_fini(&arena);
	return 0;
}

/* ---- a new one ---- */

static void
poll(struct clock_timer *t)
{
	struct metadata_images *s = container_of(t, struct metadata_images, poll);
	struct net_req *req = s->req;
	int rc = answer(s, req, s->mark.index);

	if (rc == ERR_BUSY && clock_now(s->m->clock) < req->deadline_ns) {
		clock_timer_start(s->m->clock, t, clock_now(s->m->clock) + POLL_NS, poll);
		return;
	}
	s->req = NULL;
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

static void
marked(struct group_req *r, int rc, const void *result, size_t len)
{
	struct metadata_images *s = container_of(r, struct metadata_images, mark);
	struct net_req *req = s->req;

	(void)result;
	(void)len;
	s->marking = false;
	if (req == NULL)
		return;
	if (rc == 0) {
		clock_timer_start(s->m->clock, &s->poll, clock_now(s->m->clock), poll);
		return;
	}
	s->req = NULL;
	net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

/* Two that read would take their images from each other, and neither would come to an end. */
static bool
others_read(const struct metadata_images *s, const struct msg_image *q)
{
	return s->read != 0 && s->read != q->instead &&
	    clock_now(s->m->clock) - s->read_ns < READ_NS;
}

static int
make(struct metadata_images *s, struct net_req *req)
{
	int rc;

	if (s->req != NULL || s->marking)
		return ERR_BUSY;
	if (others_read(s, req->msg))
		return -EBUSY;
	rc = group_mark(s->m->group, &s->mark, marked);
	s->marking = rc == 0;
	s->req = rc == 0 ? req : NULL;
	return rc;
}

void
metadata_image_stop(struct metadata *m)
{
	struct metadata_images *s = m->images;
	struct net_req *req = s->req;

	clock_timer_stop(m->clock, &s->poll);
	s->req = NULL;
	if (req != NULL)
		net_reply(req, ERR_STOPPING, NULL, NULL, 0, NULL, NULL);
}

void
metadata_image_call(struct metadata *m, struct net_req *req)
{
	const struct msg_image *q = req->msg;
	int rc;

	if (q->after.n > TABLE_KEY_MAX || q->until.n > TABLE_KEY_MAX)
		rc = -EINVAL;
	else if (q->image == 0)
		rc = make(m->images, req);
	else
		rc = answer(m->images, req, q->image);
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

/* ---- a table that differs ---- */

void
metadata_reload_call(struct metadata *m, struct net_req *req)
{
	const struct msg_reload *q = req->msg;
	struct msg_reload_rep rep = { 0 };
	struct table_image *image;
	int rc = 0;

	if (!group_heals(m->group, &rep.pieces)) {
		rep.done = q->image != 0 && group_taken(m->group) >= q->image;
		if (!rep.done) {
			rc = group_frozen(m->group, q->image, &image);
			if (rc == 0)
				rc = group_heal(m->group);
		}
	}
	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
}
