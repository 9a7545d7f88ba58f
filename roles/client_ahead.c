/* SPDX-License-Identifier: MIT */
/* client_ahead.c - read-ahead of sequential readers: a few blocks per handle.
 *
 * What was read ahead is used for a second at most, and never after this client wrote to or
 * truncated the file, heard of a change, or opened it again (inode->ahead_gen). */
#include "roles/client_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FRESH_NS	NS_PER_S
#define BLOCK_MIN	(64u << 10)
#define BLOCK_MAX	(4u << 20)
#define BLOCKS_MAX	64u		/* of one handle */
#define SKIP_MAX	(256u << 10)	/* a reader may skip this and is sequential */
#define BACK_MAX	(2u << 20)	/* big reads may come this much out of order */
#define BIG		(64u << 10)

static uint32_t
block_size(const struct client *c)
{
	uint32_t size = BLOCK_MIN;

	while (size < BLOCK_MAX && size * 8ull <= c->conf->client_read_ahead)
		size *= 2;
	return size;
}

static void
block_free(struct client_ahead *b)
{
	struct client *c = b->c;

	client_fetch_cancel(&b->fetch, &b->buf);
	list_remove(&b->node);
	client_mem_put(c, &b->buf);
	free(b);
}

void
client_ahead_unref(struct client_ahead *b)
{
	assert(b->refs > 0);
	if (--b->refs == 0)
		block_free(b);
}

/* The handle does not want it any more. */
static void
block_drop(struct client_ahead *b)
{
	assert(b->file != NULL);
	b->file->block_n--;
	b->file = NULL;
	list_remove(&b->file_node);
	client_ahead_unref(b);
}

void
client_ahead_drop_file(struct client_file *f)
{
	while (!list_empty(&f->blocks))
		block_drop(list_entry(f->blocks.next, struct client_ahead,
		    file_node));
	f->ahead_end = 0;
	f->window = 0;
}

bool
client_ahead_shrink(struct client *c)
{
	list_for_each(n, &c->ahead) {
		struct client_ahead *b = list_entry(n, struct client_ahead,
		    node);

		if (b->refs == 1 && b->file != NULL && !b->loading) {
			block_drop(b);
			return true;
		}
	}
	return false;
}

static bool
stale(const struct client_file *f, const struct client_ahead *b)
{
	if (b->gen != f->inode->ahead_gen)
		return true;
	return !b->loading &&
	    clock_now(b->c->clock) - b->born_ns > FRESH_NS;
}

bool
client_ahead_serve(struct client_file *f, struct client_read_req *r)
{
	uint64_t pos = r->off, end = r->off + r->len;

	list_for_each_safe(n, next, &f->blocks) {
		struct client_ahead *b = list_entry(n, struct client_ahead,
		    file_node);
		struct client_ahead_ref *ref;

		if (stale(f, b)) {
			block_drop(b);
			continue;
		}
		if (pos == end || b->off > pos || b->off + b->len <= pos ||
		    r->ref_n == CLIENT_READ_BLOCKS)
			continue;
		ref = &r->refs[r->ref_n++];
		ref->block = b;
		ref->read = r;
		b->refs++;
		list_init(&ref->node);
		if (b->loading) {
			list_push_back(&b->waits, &ref->node);
			r->loading++;
		}
		pos = b->off + b->len < end ? b->off + b->len : end;
	}
	if (pos == end)
		return true;
	for (unsigned k = 0; k < r->ref_n; k++) {
		list_remove(&r->refs[k].node);
		client_ahead_unref(r->refs[k].block);
	}
	r->ref_n = r->loading = 0;
	return false;
}

static void
loaded(struct client_fetch *fetch, int rc)
{
	struct client_ahead *b = container_of(fetch, struct client_ahead,
	    fetch);
	struct list *n;

	/* Reads find out whether the file was removed. */
	if (rc == 0 && fetch->missing && !client_session_sure(b->c))
		rc = ERR_BUSY;
	b->loading = false;
	b->refs++;			/* until we are done with it */
	if (rc != 0 && b->file != NULL)
		block_drop(b);
	while ((n = list_pop_front(&b->waits)) != NULL) {
		struct client_ahead_ref *ref = list_entry(n,
		    struct client_ahead_ref, node);

		if (rc != 0)		/* takes it off its other blocks too */
			client_read_ahead_done(ref->read, rc);
		else if (--ref->read->loading == 0)
			client_read_ahead_done(ref->read, 0);
	}
	client_ahead_unref(b);
}

/* 0, or any error: no read-ahead then. */
static int
block_start(struct client_file *f, uint64_t off, uint32_t len)
{
	struct client *c = f->inode->c;
	struct client_ahead *b;
	int rc;

	if (mem_used_bytes(c->pool) + len > c->conf->client_memory / 4 * 3)
		return ERR_BUSY;
	if ((b = calloc(1, sizeof(*b))) == NULL)
		return -ENOMEM;
	list_init(&b->node);
	list_init(&b->file_node);
	list_init(&b->waits);
	b->c = c;
	b->off = off;
	b->len = len;
	b->gen = f->inode->ahead_gen;
	b->born_ns = clock_now(c->clock);
	if ((rc = mem_get(c->pool, len, &b->buf)) == 0)
		rc = client_fetch_start(&b->fetch, f->inode, off, b->buf.p,
		    len, NULL, NULL, loaded);
	if (rc != 0) {
		block_free(b);
		return rc;
	}
	b->loading = true;
	b->refs = 1;
	b->file = f;
	f->block_n++;
	list_push_back(&c->ahead, &b->node);
	list_push_back(&f->blocks, &b->file_node);
	return 0;
}

/* Is a read at @off, after all before, one of a sequential reader? */
static bool
sequential(const struct client_file *f, uint64_t off, uint32_t len)
{
	if (off >= f->next_off)
		return off - f->next_off <= SKIP_MAX;
	return len >= BIG && f->next_off - off <= BACK_MAX;
}

void
client_ahead_note(struct client_file *f, uint64_t off, uint32_t len)
{
	struct client_inode *i = f->inode;
	struct client *c = i->c;
	uint64_t most = c->conf->client_read_ahead, end = off + len;
	uint64_t size = client_inode_size(i), limit;
	uint32_t block = block_size(c);

	if (most == 0 || c->stopping)
		return;
	if (!sequential(f, off, len)) {
		client_ahead_drop_file(f);
		f->hits = 0;
		f->next_off = end;
		return;
	}
	f->hits++;
	if (end > f->next_off)
		f->next_off = end;
	/* The first read counts as a hit when it is at the start of the file. */
	if (f->hits < (len >= BIG ? 2u : 3u) || !list_empty(&i->exts))
		return;
	while (!list_empty(&f->blocks)) {	/* what is behind us */
		struct client_ahead *b = list_entry(f->blocks.next,
		    struct client_ahead, file_node);

		if (b->off + b->len + block > off)
			break;
		block_drop(b);
	}
	f->window = f->window == 0 ? 2ull * block : f->window * 2;
	if (f->window > most)
		f->window = most;
	if (f->block_n == 0 || f->ahead_end < end)
		f->ahead_end = end;
	limit = f->next_off + f->window < size ? f->next_off + f->window : size;
	while (f->ahead_end < limit && f->block_n < BLOCKS_MAX) {
		uint32_t n = block - (uint32_t)(f->ahead_end & (block - 1));

		if (n > size - f->ahead_end)
			n = (uint32_t)(size - f->ahead_end);
		if (block_start(f, f->ahead_end, n) != 0)
			break;
		f->ahead_end += n;
	}
}

void
client_ahead_close_all(struct client *c)
{
	/* Reads are closed: only handles hold blocks now. */
	while (!list_empty(&c->ahead)) {
		struct client_ahead *b = list_entry(c->ahead.next,
		    struct client_ahead, node);

		assert(b->file != NULL && b->refs == 1);
		block_drop(b);
	}
}
