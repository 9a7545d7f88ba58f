/* SPDX-License-Identifier: MIT */
/* disk.c - directories of files and tables that outlive the processes of a box. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/disk_impl.h"

struct dir_handle {
	struct disk_dir dir;
	struct sim_box *box;
	struct dir     *at;
	struct clock   *clock;
	struct clock_timer timer;	/* of a check */
	struct disk_check *check;
};

void *
sim_disk_must(void *p)
{
	if (p == NULL)
		abort();
	return p;
}

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
	struct file *f = sim_disk_must(calloc(1, sizeof(*f)));

	f->name = sim_disk_must(strdup(name));
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
	h = sim_disk_must(calloc(1, sizeof(*h)));
	h->disk.ops = &sim_reqs_ops;
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
		f->blob = memcpy(sim_disk_must(malloc(len + 1)), buf, len);
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
	struct dir *d = sim_disk_must(calloc(1, sizeof(*d)));

	d->path = sim_disk_must(strdup(path));
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
	dh = sim_disk_must(calloc(1, sizeof(*dh)));
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
	struct sim_box *b = sim_disk_must(calloc(1, sizeof(*b)));

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
	sim_pages_free(f);
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

		sim_reqs_abandon(h);
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
			sim_pages_tear(b, list_entry(jt, struct file, node));
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

	return f != NULL && f->kind == FILE_DATA && sim_pages_turn(f, off, bit) ? 0 :
	    -ENOENT;
}

unsigned
sim_disk_inflight(const struct sim_box *b)
{
	return b->inflight;
}
