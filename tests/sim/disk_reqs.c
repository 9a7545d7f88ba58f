/* SPDX-License-Identifier: MIT */
/* disk_reqs.c - requests of simulated disks.
 *
 * One sync of a file is in flight at a time; others wait, which is allowed: starting later
 * they cover more.  A request of a dead handle is never called back, its memory not touched
 * again. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "conf/crc32c.h"
#include "tests/sim/disk_impl.h"

#define PAGE	4096u

struct req {				/* a request in flight */
	struct clock_timer timer;
	struct list	 node;		/* in handle->reqs */
	struct handle	*h;
	struct disk_req *req;
	uint32_t	 crc;		/* of what is written, when it started */
	bool		 waits;		/* a sync behind another */
};

static uint32_t
crc_of(const struct disk_req *r)
{
	uint32_t crc = 0;

	for (unsigned i = 0; i < r->iov_n; i++)
		crc = crc32c(crc, r->iov[i].iov_base, r->iov[i].iov_len);
	return crc;
}
static uint64_t
delay(struct sim_box *b, const struct disk_req *r)
{
	const struct sim_disk_conf *c = &b->conf;
	uint64_t min, max;

	switch (r->op) {
	case DISK_READ:
		min = c->read_min_ns;
		max = c->read_max_ns;
		break;
	case DISK_SYNC:
		min = c->sync_min_ns;
		max = c->sync_max_ns;
		break;
	case DISK_WRITE:
	case DISK_DISCARD:
	default:
		min = c->write_min_ns;
		max = c->write_max_ns;
		break;
	}
	assert(min <= max);
	return min + rand_below(b->rand, max - min + 1) +
	    (r->op == DISK_READ || r->op == DISK_WRITE ?
	    r->len * c->mib_ns >> 20 : 0);
}

static void finish(struct clock_timer *t);

static void
go(struct req *q)
{
	struct handle *h = q->h;

	q->waits = false;
	if (q->req->op == DISK_SYNC) {
		h->file->syncing = q;
		h->file->sync_no++;
	}
	clock_timer_start(h->clock, &q->timer,
	    clock_now(h->clock) + delay(h->box, q->req), finish);
}

/* The next sync of this file that waits. */
static void
next_sync(struct sim_box *b, struct file *f)
{
	list_for_each(it, &b->handles) {
		struct handle *h = list_entry(it, struct handle, node);

		if (h->file != f)
			continue;
		list_for_each(jt, &h->reqs) {
			struct req *q = list_entry(jt, struct req, node);

			if (q->waits) {
				go(q);
				return;
			}
		}
	}
}

static bool
by_chance(struct sim_box *b, uint32_t ppm)
{
	return ppm > 0 && rand_chance(b->rand, ppm, 1000000);
}

/* Whether the disk's faults have to do with this request. */
static bool
touched(const struct sim_disk_faults *x, const struct disk_req *r)
{
	return x->to == 0 || r->op == DISK_SYNC ||
	    (r->off < x->to && r->off + r->len > x->from);
}

/* What the faults of its disk make of a request: 0 or -errno. */
static int
fails(struct sim_box *b, const struct sim_disk_faults *x, const struct disk_req *r)
{
	uint32_t ppm = r->op == DISK_READ ? x->read_eio_ppm :
	    r->op == DISK_SYNC ? x->sync_eio_ppm : x->write_eio_ppm;

	if (x->dead)
		return -EIO;
	if (r->op == DISK_WRITE && x->full)
		return -ENOSPC;
	return touched(x, r) && by_chance(b, ppm) ? -EIO : 0;
}

/* A write that ended well, as far as anybody can tell. */
static void
write_well(struct sim_box *b, struct file *f, const struct disk_req *r)
{
	const struct sim_disk_faults *x = &f->dir->faults;
	uint64_t low = 1 << 20, off = r->off;

	if (touched(x, r) && by_chance(b, x->lost_ppm)) {
		b->lies++;
		return;
	}
	if (f->size >= low + 2 * r->len && touched(x, r) && by_chance(b, x->astray_ppm)) {
		b->lies++;
		off = low + rand_below(b->rand, (f->size - low - r->len) / PAGE) * PAGE;
	}
	sim_pages_write(b, f, r, off, false);
}

static void
finish(struct clock_timer *t)
{
	struct req *q = container_of(t, struct req, timer);
	struct handle *h = q->h;
	struct sim_box *b = h->box;
	struct disk_req *r = q->req;
	struct file *f = h->file;
	uint32_t eio;

	list_remove(&q->node);
	b->inflight--;
	eio = r->op == DISK_READ ? b->conf.read_eio_ppm :
	    r->op == DISK_SYNC ? b->conf.sync_eio_ppm : b->conf.write_eio_ppm;
	r->rc = rand_chance(b->rand, eio, 1000000) ? -EIO : 0;
	if (r->rc == 0)
		r->rc = fails(b, &f->dir->faults, r);
	switch (r->op) {
	case DISK_READ:
		if (r->rc == 0 && rand_chance(b->rand, b->conf.flip_ppm, 1000000))
			sim_pages_flip(b, f, r);
		if (r->rc == 0 && touched(&f->dir->faults, r) &&
		    by_chance(b, f->dir->faults.flip_ppm))
			sim_pages_flip(b, f, r);
		if (r->rc == 0)
			sim_pages_read(f, r);
		break;
	case DISK_WRITE:
		/* The bytes are the disk's until it calls back. */
		assert(crc_of(r) == q->crc);
		if (r->rc == 0)
			write_well(b, f, r);
		else
			sim_pages_write(b, f, r, r->off, true);
		break;
	case DISK_SYNC:
		if (r->rc == 0)
			sim_pages_synced(f);
		else
			f->dir->sync_errors++;
		sim_pages_sync_gone(f);
		next_sync(b, f);
		break;
	case DISK_DISCARD:
		if (r->rc == 0)
			sim_pages_discard(b, f, r);
		break;
	}
	free(q);
	r->fn(r);
}

static void
start(struct disk *d, struct disk_req *r)
{
	struct handle *h = container_of(d, struct handle, disk);
	struct req *q;
	uint64_t sum = 0;

	if (h->box == NULL)
		return;			/* the dead are not answered */
	if (r->op != DISK_SYNC) {
		assert(r->off % DISK_ALIGN == 0);
		assert(r->len > 0 && r->len % DISK_ALIGN == 0);
		assert(r->off <= d->size && r->len <= d->size - r->off);
	}
	if (r->op == DISK_READ || r->op == DISK_WRITE) {
		assert(r->iov_n > 0 && r->iov_n <= DISK_IOV_MAX);
		for (unsigned i = 0; i < r->iov_n; i++) {
			assert((uintptr_t)r->iov[i].iov_base % DISK_ALIGN == 0);
			assert(r->iov[i].iov_len % DISK_ALIGN == 0);
			sum += r->iov[i].iov_len;
		}
		assert(sum == r->len);
	}
	if (h->box->conf.table.tick != NULL)
		h->box->conf.table.tick(h->box->conf.table.tick_ctx);
	q = sim_disk_must(calloc(1, sizeof(*q)));
	q->h = h;
	q->req = r;
	q->crc = r->op == DISK_WRITE ? crc_of(r) : 0;
	list_push_back(&h->reqs, &q->node);
	h->box->inflight++;
	if (r->op == DISK_SYNC && h->file->syncing != NULL)
		q->waits = true;
	else
		go(q);
}

void
sim_reqs_abandon(struct handle *h)
{
	struct list *n;

	while ((n = list_pop_front(&h->reqs)) != NULL) {
		struct req *q = list_entry(n, struct req, node);

		clock_timer_stop(h->clock, &q->timer);
		if (q->req->op == DISK_WRITE)
			sim_pages_write(h->box, h->file, q->req, q->req->off, true);
		else if (q->req->op == DISK_DISCARD)
			sim_pages_discard(h->box, h->file, q->req);
		if (h->file->syncing == q)
			sim_pages_sync_gone(h->file);
		h->box->inflight--;
		free(q);
	}
}

static bool
close_file(struct disk *d)
{
	struct handle *h = container_of(d, struct handle, disk);

	if (h->box != NULL) {
		struct sim_box *b = h->box;

		sim_reqs_abandon(h);
		list_remove(&h->node);
		if (h->file->syncing == NULL)
			next_sync(b, h->file);
	}
	free(h);
	return true;
}

const struct disk_ops sim_reqs_ops = { .start = start, .close = close_file };
