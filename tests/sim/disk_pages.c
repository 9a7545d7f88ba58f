/* SPDX-License-Identifier: MIT */
/* disk_pages.c - a file as sparse pages, each with versions that a crash may bring back.
 *
 * A page that has unsynced writes is dirty:
 *	old	as it was at the last sync that is durable
 *	mid	as it was when the sync in flight started (only if written since then)
 *	now	what reads see
 * Sync done: old = mid, or the page is clean - if it was dirty when the sync started.
 * Crash: every sector becomes that of old, mid or now, by chance.
 *
 * Invariants:
 *  1. A page is in file->dirty exactly when old is set.
 *  2. mid is set only while a sync is in flight, and only on dirty pages. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/disk_impl.h"

#define PAGE	4096u
#define SECTOR	512u

struct page {
	struct list dirty;
	uint64_t    no;
	uint64_t    since;		/* file->sync_no when it became dirty */
	uint8_t    *old, *mid;		/* nowhere: a page of zeros */
	uint8_t	    now[PAGE];
};

static uint8_t nowhere[PAGE];

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
	return memcpy(sim_disk_must(malloc(PAGE)), p->now, PAGE);
}

/* The page, ready to be changed. */
static struct page *
touch(struct file *f, uint64_t no)
{
	struct page *p = map_get(&f->pages, no);

	if (p == NULL) {
		p = sim_disk_must(calloc(1, sizeof(*p)));
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

void
sim_pages_synced(struct file *f)
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
void
sim_pages_sync_gone(struct file *f)
{
	list_for_each(it, &f->dirty)
		forget(&list_entry(it, struct page, dirty)->mid);
	f->syncing = NULL;
}

void
sim_pages_tear(struct sim_box *b, struct file *f)
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


void
sim_pages_read(struct file *f, struct disk_req *r)
{
	uint64_t no = r->off / PAGE;

	for (unsigned i = 0; i < r->iov_n; i++)
		for (size_t at = 0; at < r->iov[i].iov_len; at += PAGE, no++) {
			const struct page *p = map_get(&f->pages, no);

			memcpy((char *)r->iov[i].iov_base + at,
			    p != NULL ? p->now : nowhere, PAGE);
		}
}

void
sim_pages_write(struct sim_box *b, struct file *f, const struct disk_req *r, uint64_t off,
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

void
sim_pages_discard(struct sim_box *b, struct file *f, const struct disk_req *r)
{
	for (uint64_t no = r->off / PAGE; no < (r->off + r->len) / PAGE; no++)
		if (map_get(&f->pages, no) != NULL && rand_chance(b->rand, 3, 4))
			memset(touch(f, no)->now, 0, PAGE);
}

void
sim_pages_flip(struct sim_box *b, struct file *f, const struct disk_req *r)
{
	uint64_t at = r->off + rand_below(b->rand, r->len);
	struct page *p = map_get(&f->pages, at / PAGE);

	if (p != NULL)
		p->now[at % PAGE] ^= (uint8_t)(1u << rand_below(b->rand, 8));
}

bool
sim_pages_turn(struct file *f, uint64_t off, unsigned bit)
{
	struct page *p = map_get(&f->pages, off / PAGE);

	if (p == NULL)
		return false;
	p->now[off % PAGE] ^= (uint8_t)(1u << (bit & 7));
	return true;
}

void
sim_pages_free(struct file *f)
{
	struct page *p;
	size_t it = 0;

	while ((p = map_next(&f->pages, &it, NULL)) != NULL) {
		if (p->old != NULL)
			clean(p);
		free(p);
	}
	map_fini(&f->pages);
}
