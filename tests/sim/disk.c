/* SPDX-License-Identifier: MIT */
/* disk.c - files as sparse pages, each with the versions that a crash may bring back.
 *
 * A page that has unsynced writes is dirty:
 *	old	as it was at the last sync that is durable
 *	mid	as it was when the sync in flight started (only if written since then)
 *	now	what reads see
 * Sync done: old = mid, or the page is clean - if it was dirty when the sync started.  Crash: every sector becomes that of old,
 * mid or now, by chance.  One sync of a file is in flight at a time; others wait, which
 * is allowed: starting later they cover more.
 *
 * Invariants:
 *  1. A page is in file->dirty exactly when old is set.
 *  2. mid is set only while a sync is in flight, and only on dirty pages.
 *  3. A request of a dead handle is never called back, its memory not touched again. */
#include "tests/sim/disk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/crc32c.h"
#include "conf/map.h"

#define PAGE	4096u
#define SECTOR	512u

struct page {
	struct list dirty;
	uint64_t    no;
	uint64_t    since;		/* file->sync_no when it became dirty */
	uint8_t    *old, *mid;		/* nowhere: a page of zeros */
	uint8_t	    now[PAGE];
};

enum kind { FILE_DATA, FILE_BLOB, FILE_TABLE };

struct file {
	struct list	  node;		/* in dir->files */
	struct dir	 *dir;
	char		 *name;
	enum kind	  kind;
	uint64_t	  size;
	struct map	  pages;	/* number -> page; data */
	struct list	  dirty;
	struct req	 *syncing;	/* in flight */
	uint64_t	  sync_no;	/* syncs started so far */
	uint8_t		 *blob;
	struct sim_table *table;
};

struct dir {
	struct list node;		/* in box->dirs */
	char	   *path;
	struct list files;
	unsigned    sync_errors;	/* that the process has been told of */
	struct sim_disk_faults faults;
};

struct sim_box {
	struct rand	    *rand;
	struct sim_disk_conf conf;
	struct list	     dirs, handles;
	unsigned	     inflight, lies;
};

struct handle {				/* an open file */
	struct disk    disk;
	struct sim_box *box;		/* NULL: its process died */
	struct file    *file;
	struct clock   *clock;
	struct list	node;		/* in box->handles */
	struct list	reqs;
};

struct req {				/* a request in flight */
	struct clock_timer timer;
	struct list	 node;		/* in handle->reqs */
	struct handle	*h;
	struct disk_req *req;
	uint32_t	 crc;		/* of what is written, when it started */
	bool		 waits;		/* a sync behind another */
};

struct dir_handle {
	struct disk_dir dir;
	struct sim_box *box;
	struct dir     *at;
	struct clock   *clock;
	struct clock_timer timer;	/* of a check */
	struct disk_check *check;
};

static uint8_t nowhere[PAGE];

static void *
must(void *p)
{
	if (p == NULL)
		abort();
	return p;
}

/* ---- pages ---- */

static void
forget(uint8_t **version)
{
	if (*version != nowhere)
		free(*version);
	*version = NULL;
}

static void
clean(struct page *p)
{
	list_remove(&p->dirty);
	forget(&p->old);
	forget(&p->mid);
}

static uint8_t *
copy_of(const struct page *p)
{
	return memcpy(must(malloc(PAGE)), p->now, PAGE);
}

/* The page, ready to be changed. */
static struct page *
touch(struct file *f, uint64_t no)
{
	struct page *p = map_get(&f->pages, no);

	if (p == NULL) {
		p = must(calloc(1, sizeof(*p)));
		p->no = no;
		list_init(&p->dirty);
		if (map_put(&f->pages, no, p) != 0)
			abort();
		p->old = nowhere;
	} else if (p->old == NULL)
		p->old = copy_of(p);
	else {
		if (p->mid == NULL && f->syncing != NULL && p->since < f->sync_no)
			p->mid = copy_of(p);
		return p;
	}
	p->since = f->sync_no;
	list_push_back(&f->dirty, &p->dirty);
	return p;
}

static void
sync_done(struct file *f)
{
	list_for_each_safe(it, tmp, &f->dirty) {
		struct page *p = list_entry(it, struct page, dirty);

		if (p->since == f->sync_no)
			continue;	/* too late for this one */
		if (p->mid == NULL) {
			clean(p);
			continue;
		}
		forget(&p->old);
		p->old = p->mid;
		p->mid = NULL;
		p->since = f->sync_no;
	}
}

/* A sync that did not end promises nothing: mid versions are just lost. */
static void
sync_gone(struct file *f)
{
	list_for_each(it, &f->dirty)
		forget(&list_entry(it, struct page, dirty)->mid);
	f->syncing = NULL;
}

static void
tear(struct sim_box *b, struct file *f)
{
	/* Usually by chance, sometimes all of it and sometimes nothing. */
	uint64_t mood = rand_below(b->rand, 6);

	list_for_each_safe(it, tmp, &f->dirty) {
		struct page *p = list_entry(it, struct page, dirty);

		for (unsigned s = 0; s < PAGE; s += SECTOR) {
			const uint8_t *from = p->now;

			if (mood == 0 || (mood > 1 && rand_chance(b->rand, 1, 2)))
				from = p->mid != NULL && rand_chance(b->rand, 1, 2) ?
				    p->mid : p->old;
			if (from != p->now)
				memcpy(p->now + s, from + s, SECTOR);
		}
		clean(p);
	}
}

/* ---- moving bytes between a request and a file ---- */

static uint32_t
crc_of(const struct disk_req *r)
{
	uint32_t crc = 0;

	for (unsigned i = 0; i < r->iov_n; i++)
		crc = crc32c(crc, r->iov[i].iov_base, r->iov[i].iov_len);
	return crc;
}

static void
do_read(struct file *f, struct disk_req *r)
{
	uint64_t no = r->off / PAGE;

	for (unsigned i = 0; i < r->iov_n; i++)
		for (size_t at = 0; at < r->iov[i].iov_len; at += PAGE, no++) {
			const struct page *p = map_get(&f->pages, no);

			memcpy((char *)r->iov[i].iov_base + at,
			    p != NULL ? p->now : nowhere, PAGE);
		}
}

/* Write all of it, or (@torn) a part by chance. */
static void
do_write(struct sim_box *b, struct file *f, const struct disk_req *r, uint64_t off,
    bool torn)
{
	uint64_t no = off / PAGE;
	uint64_t mood = torn ? rand_below(b->rand, 4) : 1;

	if (mood == 0)
		return;
	for (unsigned i = 0; i < r->iov_n; i++)
		for (size_t at = 0; at < r->iov[i].iov_len; at += PAGE, no++) {
			const uint8_t *from = (const uint8_t *)r->iov[i].iov_base + at;
			struct page *p = touch(f, no);

			for (unsigned s = 0; s < PAGE; s += SECTOR)
				if (mood == 1 || rand_chance(b->rand, 1, 2))
					memcpy(p->now + s, from + s, SECTOR);
		}
}

/* Bytes that were discarded read as zeros, or as they were. */
static void
do_discard(struct sim_box *b, struct file *f, const struct disk_req *r)
{
	for (uint64_t no = r->off / PAGE; no < (r->off + r->len) / PAGE; no++)
		if (map_get(&f->pages, no) != NULL && rand_chance(b->rand, 3, 4))
			memset(touch(f, no)->now, 0, PAGE);
}

static void
flip(struct sim_box *b, struct file *f, const struct disk_req *r)
{
	uint64_t at = r->off + rand_below(b->rand, r->len);
	struct page *p = map_get(&f->pages, at / PAGE);

	if (p != NULL)
		p->now[at % PAGE] ^= (uint8_t)(1u << rand_below(b->rand, 8));
}

/* ---- requests ---- */

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
	do_write(b, f, r, off, false);
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
			flip(b, f, r);
		if (r->rc == 0 && touched(&f->dir->faults, r) &&
		    by_chance(b, f->dir->faults.flip_ppm))
			flip(b, f, r);
		if (r->rc == 0)
			do_read(f, r);
		break;
	case DISK_WRITE:
		/* The bytes are the disk's until it calls back. */
		assert(crc_of(r) == q->crc);
		if (r->rc == 0)
			write_well(b, f, r);
		else
			do_write(b, f, r, r->off, true);
		break;
	case DISK_SYNC:
		if (r->rc == 0)
			sync_done(f);
		else
			f->dir->sync_errors++;
		sync_gone(f);
		next_sync(b, f);
		break;
	case DISK_DISCARD:
		if (r->rc == 0)
			do_discard(b, f, r);
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
	q = must(calloc(1, sizeof(*q)));
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

/* Requests of this handle end here, done in part. */
static void
abandon(struct handle *h)
{
	struct list *n;

	while ((n = list_pop_front(&h->reqs)) != NULL) {
		struct req *q = list_entry(n, struct req, node);

		clock_timer_stop(h->clock, &q->timer);
		if (q->req->op == DISK_WRITE)
			do_write(h->box, h->file, q->req, q->req->off, true);
		else if (q->req->op == DISK_DISCARD)
			do_discard(h->box, h->file, q->req);
		if (h->file->syncing == q)
			sync_gone(h->file);
		h->box->inflight--;
		free(q);
	}
}

static void
close_file(struct disk *d)
{
	struct handle *h = container_of(d, struct handle, disk);

	if (h->box != NULL) {
		struct sim_box *b = h->box;

		abandon(h);
		list_remove(&h->node);
		if (h->file->syncing == NULL)
			next_sync(b, h->file);
	}
	free(h);
}

static const struct disk_ops ops = { .start = start, .close = close_file };

/* ---- directories ---- */

static struct dir *
find_dir(struct sim_box *b, const char *path)
{
	list_for_each(it, &b->dirs) {
		struct dir *d = list_entry(it, struct dir, node);

		if (strcmp(d->path, path) == 0)
			return d;
	}
	return NULL;
}

static struct file *
find_file(struct dir *d, const char *name)
{
	list_for_each(it, &d->files) {
		struct file *f = list_entry(it, struct file, node);

		if (strcmp(f->name, name) == 0)
			return f;
	}
	return NULL;
}

static struct file *
make_file(struct dir *d, const char *name, enum kind kind, uint64_t size)
{
	struct file *f = must(calloc(1, sizeof(*f)));

	f->name = must(strdup(name));
	f->dir = d;
	f->kind = kind;
	f->size = size;
	map_init(&f->pages);
	list_init(&f->dirty);
	list_push_back(&d->files, &f->node);
	return f;
}

static int
dir_open(struct disk_dir *dd, const char *name, bool create, uint64_t size,
    struct disk **out)
{
	struct dir_handle *dh = container_of(dd, struct dir_handle, dir);
	struct file *f = find_file(dh->at, name);
	struct handle *h;

	*out = NULL;
	if (create) {
		if (f != NULL)
			return -EEXIST;
		if (dh->box->conf.full || dh->at->faults.full)
			return -ENOSPC;
		assert(size > 0 && size % DISK_ALIGN == 0);
		f = make_file(dh->at, name, FILE_DATA, size);
	} else if (f == NULL)
		return -ENOENT;
	assert(f->kind == FILE_DATA);
	h = must(calloc(1, sizeof(*h)));
	h->disk.ops = &ops;
	h->disk.size = f->size;
	h->box = dh->box;
	h->file = f;
	h->clock = dh->clock;
	list_init(&h->reqs);
	list_push_back(&dh->box->handles, &h->node);
	*out = &h->disk;
	return 0;
}

static int
dir_table(struct disk_dir *dd, const char *name, uint64_t max_bytes,
    struct table_store **out)
{
	struct dir_handle *dh = container_of(dd, struct dir_handle, dir);
	struct file *f = find_file(dh->at, name);

	*out = NULL;
	if (f == NULL) {
		if (dh->box->conf.full)
			return -ENOSPC;
		f = make_file(dh->at, name, FILE_TABLE, max_bytes);
		f->table = sim_table_open(dh->box->rand, &dh->box->conf.table);
		sim_table_fault(f->table, &dh->at->faults.table);
	}
	assert(f->kind == FILE_TABLE);
	return sim_table_store(f->table, out);
}

static int
dir_blob(struct disk_dir *dd, const char *name, void *buf, size_t len,
    bool create)
{
	struct dir_handle *dh = container_of(dd, struct dir_handle, dir);
	struct file *f = find_file(dh->at, name);

	if (f == NULL) {
		if (!create)
			return -ENOENT;
		if (dh->box->conf.full)
			return -ENOSPC;
		f = make_file(dh->at, name, FILE_BLOB, len);
		f->blob = memcpy(must(malloc(len + 1)), buf, len);
		return 0;
	}
	assert(f->kind == FILE_BLOB);
	if (f->size != len)
		return -EIO;
	memcpy(buf, f->blob, len);
	return 0;
}

static void
checked(struct clock_timer *t)
{
	struct dir_handle *dh = container_of(t, struct dir_handle, timer);
	struct disk_check *c = dh->check;

	dh->check = NULL;
	c->free_bytes = dh->at->faults.full || dh->at->faults.table.full ? 0 :
	    UINT64_MAX;
	c->rc = dh->at->faults.gone ? -ENODEV : dh->at->faults.dead ? -EIO : 0;
	c->fn(c);
}

static int
dir_check(struct disk_dir *dd, struct disk_check *c)
{
	struct dir_handle *dh = container_of(dd, struct dir_handle, dir);

	assert(dh->check == NULL);
	dh->check = c;
	clock_timer_start(dh->clock, &dh->timer, clock_now(dh->clock) + NS_PER_MS,
	    checked);
	return 0;
}

static void
dir_uncheck(struct disk_dir *dd)
{
	struct dir_handle *dh = container_of(dd, struct dir_handle, dir);

	clock_timer_stop(dh->clock, &dh->timer);
	dh->check = NULL;
}

static void
dir_close(struct disk_dir *dd)
{
	struct dir_handle *dh = container_of(dd, struct dir_handle, dir);

	assert(dh->check == NULL);
	free(dh);
}

static const struct disk_dir_ops dir_ops = {
	.open = dir_open, .table = dir_table, .blob = dir_blob,
	.check = dir_check, .uncheck = dir_uncheck, .close = dir_close
};

static struct dir *
make_dir(struct sim_box *b, const char *path)
{
	struct dir *d = must(calloc(1, sizeof(*d)));

	d->path = must(strdup(path));
	list_init(&d->files);
	list_push_back(&b->dirs, &d->node);
	return d;
}

int
sim_disk_dir(struct sim_box *b, struct clock *clock, const char *path,
    bool create, struct disk_dir **out)
{
	struct dir *d = find_dir(b, path);
	struct dir_handle *dh;

	*out = NULL;
	if (d == NULL) {
		if (!create)
			return -ENOENT;
		d = make_dir(b, path);
	}
	dh = must(calloc(1, sizeof(*dh)));
	dh->dir.ops = &dir_ops;
	dh->box = b;
	dh->at = d;
	dh->clock = clock;
	*out = &dh->dir;
	return 0;
}

/* ---- the box ---- */

struct sim_box *
sim_box_open(struct rand *rand)
{
	struct sim_box *b = must(calloc(1, sizeof(*b)));

	b->rand = rand;
	b->conf = (struct sim_disk_conf){
		.read_min_ns = 80 * NS_PER_US, .read_max_ns = 80 * NS_PER_US,
		.write_min_ns = 30 * NS_PER_US, .write_max_ns = 30 * NS_PER_US,
		.sync_min_ns = 500 * NS_PER_US, .sync_max_ns = 500 * NS_PER_US,
		.mib_ns = 500 * NS_PER_US,
		.table = { .write_min_ns = NS_PER_MS, .write_max_ns = NS_PER_MS },
	};
	list_init(&b->dirs);
	list_init(&b->handles);
	return b;
}

static void
free_file(struct file *f)
{
	struct page *p;
	size_t it = 0;

	while ((p = map_next(&f->pages, &it, NULL)) != NULL) {
		if (p->old != NULL)
			clean(p);
		free(p);
	}
	map_fini(&f->pages);
	sim_table_close(f->table);
	list_remove(&f->node);
	free(f->blob);
	free(f->name);
	free(f);
}

static void
free_dir(struct sim_box *b, struct dir *d)
{
	list_for_each(it, &b->handles)
		list_for_each(jt, &d->files)
			assert(list_entry(it, struct handle, node)->file !=
			    list_entry(jt, struct file, node));
	while (!list_empty(&d->files))
		free_file(list_entry(d->files.next, struct file, node));
	list_remove(&d->node);
	free(d->path);
	free(d);
}

void
sim_box_close(struct sim_box *b)
{
	if (b == NULL)
		return;
	assert(list_empty(&b->handles));
	while (!list_empty(&b->dirs))
		free_dir(b, list_entry(b->dirs.next, struct dir, node));
	free(b);
}

struct sim_disk_conf *
sim_box_conf(struct sim_box *b)
{
	return &b->conf;
}

struct sim_disk_faults *
sim_disk_faults(struct sim_box *b, const char *path)
{
	struct dir *d = find_dir(b, path);

	return &(d != NULL ? d : make_dir(b, path))->faults;
}

unsigned
sim_disk_lies(const struct sim_box *b)
{
	return b->lies;
}

unsigned
sim_disk_sync_errors(struct sim_box *b, const char *path)
{
	struct dir *d = find_dir(b, path);

	return d != NULL ? d->sync_errors : 0;
}

void
sim_disk_kill(struct sim_box *b)
{
	while (!list_empty(&b->handles)) {
		struct handle *h = list_entry(b->handles.next, struct handle, node);

		abandon(h);
		list_remove(&h->node);
		h->box = NULL;
	}
	list_for_each(it, &b->dirs) {
		list_entry(it, struct dir, node)->sync_errors = 0;
		list_for_each(jt, &list_entry(it, struct dir, node)->files) {
			struct file *f = list_entry(jt, struct file, node);

			if (f->table != NULL)
				sim_table_crash(f->table);
		}
	}
}

void
sim_disk_crash(struct sim_box *b)
{
	sim_disk_kill(b);
	list_for_each(it, &b->dirs)
		list_for_each(jt, &list_entry(it, struct dir, node)->files)
			tear(b, list_entry(jt, struct file, node));
}

void
sim_disk_wipe(struct sim_box *b, const char *path)
{
	struct dir *d = find_dir(b, path);

	if (d != NULL)
		free_dir(b, d);
}

int
sim_disk_flip(struct sim_box *b, const char *path, const char *name,
    uint64_t off, unsigned bit)
{
	struct dir *d = find_dir(b, path);
	struct file *f = d != NULL ? find_file(d, name) : NULL;
	struct page *p;

	if (f == NULL || f->kind != FILE_DATA ||
	    (p = map_get(&f->pages, off / PAGE)) == NULL)
		return -ENOENT;
	p->now[off % PAGE] ^= (uint8_t)(1u << (bit & 7));
	return 0;
}

unsigned
sim_disk_inflight(const struct sim_box *b)
{
	return b->inflight;
}
