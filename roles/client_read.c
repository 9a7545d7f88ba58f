/* SPDX-License-Identifier: MIT */
/* client_read.c - reads: where the file ends, what of it only we have, memory.
 *
 * A read sees every write of this client that was taken before it began: extents that
 * overlap it are held from its start and laid over what storage answers, in the order
 * they were written.  (Holding them matters: one that is acknowledged while the answer is
 * on its way may be missing in that answer.)  Direct writes are not laid over: until they
 * are acknowledged either answer is right. */
#include "roles/client_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void	read_start(struct client_read_req *r);

/* Give back all it holds but itself. */
static void
drop(struct client_read_req *r)
{
	struct client *c = r->c;

	if (r->buf.p != NULL)
		c->read_mem_n--;
	client_fetch_cancel(&r->fetch, &r->buf);
	for (unsigned k = 0; k < r->ext_n; k++)
		client_ext_put(r->exts[k]);
	free(r->exts);
	r->exts = NULL;
	r->ext_n = r->ext_cap = 0;
	for (unsigned k = 0; k < r->ref_n; k++) {
		list_remove(&r->refs[k].node);
		client_ahead_unref(r->refs[k].block);
	}
	r->ref_n = 0;
	client_mem_put(c, &r->buf);
	list_remove(&r->wait_node);
	if (r->inode != NULL)
		client_inode_put(r->inode);
	r->inode = NULL;
}

static void
read_free(struct client_read_req *r)
{
	struct client *c = r->c;

	drop(r);
	list_remove(&r->node);
	client_keep_put(&c->read_keep, &r->node);
}

static void
finish(struct client_read_req *r, int rc)
{
	struct client_io *io = r->io;
	struct client *c = r->c;

	if (rc != 0) {
		read_free(r);
		client_io_finish(c, io, rc);
		return;
	}
	for (unsigned k = 0; k < r->ext_n; k++)
		client_ext_put(r->exts[k]);
	r->ext_n = 0;
	client_inode_put(r->inode);
	r->inode = NULL;
	io->impl = r;
	io->iov = r->iov;
	io->done = r->len;
	stat_add(&c->stat.reads, 1);
	stat_add(&c->stat.read_bytes, r->len);
	stat_hist_add(&c->stat.read_ns, clock_now(c->clock) - r->start_ns);
	client_io_finish(c, io, 0);
}

/* ---- own data ---- */

static int
hold_chunk(struct client_read_req *r, const struct client_chunk *ch)
{
	list_for_each(n, &ch->exts) {
		struct client_ext *e = list_entry(n, struct client_ext,
		    chunk_node);

		if (e->direct != NULL || e->drop || e->pos + e->len <= r->off ||
		    e->pos >= r->off + r->len)
			continue;
		if (r->ext_n == r->ext_cap) {
			unsigned cap = r->ext_cap == 0 ? 8 : r->ext_cap * 2;
			void *v = realloc(r->exts, cap * sizeof(*r->exts));

			if (v == NULL)
				return -ENOMEM;
			r->exts = v;
			r->ext_cap = cap;
		}
		e->refs++;
		r->exts[r->ext_n++] = e;
	}
	return 0;
}

static int
hold_own(struct client_read_req *r)
{
	struct client_inode *i = r->inode;
	uint8_t shift = i->layout.chunk_shift;

	if (list_empty(&i->exts))
		return 0;
	for (uint64_t x = r->off >> shift; x <= (r->off + r->len - 1) >> shift;
	    x++) {
		const struct client_chunk *ch = map_get(&i->chunks, x);
		int rc = ch == NULL ? 0 : hold_chunk(r, ch);

		if (rc != 0)
			return rc;
	}
	return 0;
}

/* One of our extents has all of it. */
static bool
own_all(void *ctx, uint32_t index, uint32_t off, uint32_t len)
{
	const struct client_read_req *r = ctx;

	for (unsigned k = r->ext_n; k-- > 0;) {
		const struct client_ext *e = r->exts[k];

		if (e->chunk->index == index && e->off <= off &&
		    e->off + e->len >= off + len)
			return true;
	}
	return false;
}

static void
lay_over(struct client_read_req *r)
{
	for (unsigned k = 0; k < r->ext_n; k++) {
		const struct client_ext *e = r->exts[k];
		uint64_t from = e->pos > r->off ? e->pos : r->off;
		uint64_t end = e->pos + e->len < r->off + r->len ?
		    e->pos + e->len : r->off + r->len;

		if (from >= end)
			continue;
		memcpy(r->buf.p + (from - r->off), e->data + (from - e->pos), end - from);
		stat_add(&r->c->stat.copied_bytes, end - from);
	}
}

/* ---- the steps ---- */

static void
fetched(struct client_fetch *f, int rc)
{
	struct client_read_req *r = container_of(f, struct client_read_req,
	    fetch);

	if (rc == 0)
		lay_over(r);
	/* Is it a hole, or was the file removed while nobody heard of us? */
	if (rc == 0 && f->missing && !client_session_sure(r->c))
		list_push_back(&r->c->read_unsure, &r->wait_node);
	else
		finish(r, rc == 0 ? r->inode->gone : rc);
}

void
client_read_sure(struct client *c)
{
	struct list *n;

	while ((n = list_pop_front(&c->read_unsure)) != NULL) {
		struct client_read_req *r = list_entry(n,
		    struct client_read_req, wait_node);

		finish(r, r->inode->gone);
	}
}

/* Get memory, then the bytes; or wait for memory. */
static void
read_start(struct client_read_req *r)
{
	struct client *c = r->c;
	int rc;

	/* With no other read to wait for, this one must go on anyhow. */
	rc = client_mem_get(c, r->len, c->read_mem_n == 0, &r->buf);
	if (rc != 0 && c->read_mem_n > 0) {
		list_push_back(&c->read_waits, &r->wait_node);
		return;
	}
	if (rc != 0) {
		finish(r, rc);
		return;
	}
	c->read_mem_n++;
	r->iov[0] = (struct iovec){ r->buf.p, r->len };
	r->io->iov_n = 1;
	if ((rc = hold_own(r)) == 0)
		rc = client_fetch_start(&r->fetch, r->inode, r->off, r->buf.p,
		    r->len, r->ext_n > 0 ? own_all : NULL, r, fetched);
	if (rc != 0)
		finish(r, rc);
	else if (r->fetch.left == 0) {
		lay_over(r);
		finish(r, 0);
	}
}

static void
run_waits(struct clock_defer *d)
{
	struct client *c = container_of(d, struct client, mem_defer);
	struct list ready, *n;

	list_init(&ready);
	list_splice_back(&ready, &c->read_waits);
	while ((n = list_pop_front(&ready)) != NULL) {
		read_start(list_entry(n, struct client_read_req, wait_node));
		if (!list_empty(&c->read_waits))
			break;		/* no more memory: the rest keeps its place */
	}
	list_splice_back(&c->read_waits, &ready);
}

void
client_mem_kick(struct client *c)
{
	if (!list_empty(&c->read_waits))
		clock_defer(c->clock, &c->mem_defer, run_waits);
}

void
client_read_ahead_done(struct client_read_req *r, int rc)
{
	uint64_t pos = r->off, end = r->off + r->len;

	if (rc != 0) {			/* fetch it the ordinary way */
		for (unsigned k = 0; k < r->ref_n; k++) {
			list_remove(&r->refs[k].node);
			client_ahead_unref(r->refs[k].block);
		}
		r->ref_n = 0;
		read_start(r);
		return;
	}
	for (unsigned k = 0; k < r->ref_n; k++) {
		const struct client_ahead *b = r->refs[k].block;
		uint64_t stop = b->off + b->len < end ? b->off + b->len : end;

		assert(b->off <= pos && pos < stop);
		r->iov[k] = (struct iovec){ b->buf.p + (pos - b->off),
			stop - pos };
		pos = stop;
	}
	assert(pos == end);
	r->io->iov_n = r->ref_n;
	finish(r, 0);
}

void
client_read(struct client_file *f, struct client_io *io, client_io_fn *fn,
    uint64_t off, uint64_t len)
{
	struct client_inode *i = f->inode;
	struct client *c = i->c;
	uint64_t size = client_inode_size(i);
	struct client_read_req *r;

	io->fn = fn;
	io->impl = NULL;
	io->iov = NULL;
	io->iov_n = 0;
	io->done = 0;
	if (len > CLIENT_READ_MAX) {
		client_io_finish(c, io, -EINVAL);
		return;
	}
	if (i->gone != 0 || off >= size || len == 0) {
		client_io_finish(c, io, i->gone);
		return;
	}
	r = client_keep_get(&c->read_keep, sizeof(*r));
	if (r == NULL) {
		client_io_finish(c, io, -ENOMEM);
		return;
	}
	memset(r, 0, sizeof(*r));
	list_init(&r->wait_node);
	r->c = c;
	r->io = io;
	r->inode = client_inode_ref(i);
	r->off = off;
	r->start_ns = clock_now(c->clock);
	r->len = (uint32_t)(len < size - off ? len : size - off);
	list_push_back(&c->reads, &r->node);
	if (list_empty(&i->exts) && client_ahead_serve(f, r)) {
		if (r->loading == 0)
			client_read_ahead_done(r, 0);
	} else if (!list_empty(&c->read_waits))
		list_push_back(&c->read_waits, &r->wait_node);
	else
		read_start(r);
	client_ahead_note(f, off, len < size - off ? (uint32_t)len :
	    (uint32_t)(size - off));
}

void
client_read_done(struct client *c, struct client_io *io)
{
	struct client_read_req *r = io->impl;

	(void)c;
	io->impl = NULL;
	io->iov = NULL;
	io->iov_n = 0;
	if (r != NULL)
		read_free(r);
}

void
client_read_close_all(struct client *c)
{
	while (!list_empty(&c->reads))
		read_free(list_entry(c->reads.next, struct client_read_req,
		    node));
	client_keep_fini(&c->read_keep);
}
