/* SPDX-License-Identifier: MIT */
/* engine.c - open and recover a disk, close it, and what it knows of its chunks.
 *
 *   open -> label read -> (copies repaired) -> index walked -> fn(0)
 *
 * What always holds (chunk_engine_check() in check.c asserts it by number):
 *   1  Space in use = extents of rows C and P + space of writes in flight + limbo.
 *   2  No block is in two of those.
 *   3  A row P builds on the committed version that is there.
 *   4  What rows say of length, crcs and check fits together.
 *   5  A pending version that cuts the committed one inside a block is sealed: nothing is
 *      appended in place over bytes that a crash or a read may want back.
 *   6  What is known in memory (known.h) is what the rows say. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/state.h"
#include "conf/err.h"

#define SCAN_ROWS	1024u		/* a turn of recovery */

/* ---- callbacks ---- */

static void
done_turn(struct clock_defer *d)
{
	chunk_done_run(container_of(d, struct chunk_engine, done_defer));
}

void
chunk_done_push(struct chunk_engine *e, struct chunk_done *d)
{
	list_push_back(&e->done, &d->node);
	clock_defer(e->conf.clock, &e->done_defer, done_turn);
}

void
chunk_done_starved(struct chunk_engine *e, struct list *which, struct list *node)
{
	list_push_back(which, node);
	clock_defer(e->conf.clock, &e->done_defer, done_turn);
}

void
chunk_done_run(struct chunk_engine *e)
{
	bool gone = false;
	struct list *n;

	assert(e->gone == NULL);
	e->gone = &gone;
	while ((n = list_pop_front(&e->done)) != NULL) {
		struct chunk_done *d = list_entry(n, struct chunk_done, node);

		d->run(d);
		if (gone)
			return;
	}
	while ((n = list_pop_front(&e->starved_reads)) != NULL) {
		struct chunk_read *r = list_entry(n, struct chunk_read, node);

		r->fn(r, -ENOMEM);
		if (gone)
			return;
	}
	while ((n = list_pop_front(&e->starved_writes)) != NULL) {
		struct chunk_write *w = list_entry(n, struct chunk_write, node);

		w->fn(w, -ENOMEM);
		if (gone)
			return;
	}
	e->gone = NULL;
	if (!list_empty(&e->done) || !list_empty(&e->starved_reads))
		return;			/* added meanwhile: the next turn */
	clock_undefer(e->conf.clock, &e->done_defer);
}

void
chunk_engine_break(struct chunk_engine *e, int rc, const char *what)
{
	if (e->broken != 0)
		return;
	e->broken = -EIO;
	log_error(e->conf.log, "disk failed", "disk=%s path=%s at=\"%s\" error=%s",
	    e->name, e->conf.path != NULL ? e->conf.path : "?", what, err_name(rc));
}

int
chunk_engine_index_rc(struct chunk_engine *e, int rc)
{
	if (rc == 0 || rc == -ENOENT || rc == -ENOMEM)
		return rc;
	chunk_engine_break(e, rc, "index read");
	return e->broken;
}

/* ---- open ---- */

STAT_DEFINE(chunk_disk, CHUNK_DISK_STATS)

static void
tell_stats(struct chunk_engine *e)
{
	e->stat_set.prefix = "fsd_disk";
	e->stat_set.rows = chunk_disk_stat_rows;
	e->stat_set.values = &e->stat;
	stat_label(&e->stat_set, "role", e->conf.log != NULL ? e->conf.log->who : "");
	stat_label(&e->stat_set, "disk", e->name);
	stat_register(e->conf.stats, &e->stat_set);
}

static void
opened(struct chunk_engine *e, int rc)
{
	mem_put(&e->label_buf);
	if (rc != 0)
		log_error(e->conf.log, "disk not opened", "disk=%s error=%s", e->name,
		    err_name(rc));
	else
		log_info(e->conf.log, "disk open", "disk=%s chunks=%" PRIu64
		    " pending=%" PRIu64 " used=%" PRIu64 " capacity=%" PRIu64, e->name,
		    e->chunk_n, e->pend_n, chunk_alloc_used(e->alloc) * CHUNK_BLOCK,
		    chunk_alloc_capacity(e->alloc) * CHUNK_BLOCK);
	e->open = rc == 0;
	if (rc == 0)
		chunk_presence_start(e);
	if (rc == 0 && e->conf.stats != NULL)
		tell_stats(e);
	e->open_fn(e->open_ctx, rc);
}

static void
open_turn(struct clock_defer *d)
{
	struct chunk_engine *e = container_of(d, struct chunk_engine, open_defer);

	opened(e, e->open_rc);
}

static int
damaged(struct chunk_engine *e, const uint8_t key[CHUNK_KEY_BYTES], int rc,
    const char *what)
{
	target_id target = 0;
	struct chunk_id id = { 0 };

	if (rc == -ENOMEM || rc == -EIO || rc == ERR_DISK_NEWER)
		return rc;
	if (chunk_key_decode(key, CHUNK_KEY_BYTES, &target, &id) != 0)
		what = "a key";
	log_error(e->conf.log, "index is damaged", "disk=%s row=%c target=%u ino=%" PRIx64
	    " index=%u what=\"%s\"", e->name, key[0], target, id.ino, id.index, what);
	return ERR_DISK_DAMAGED;
}

static int
mark(struct chunk_engine *e, const uint8_t key[CHUNK_KEY_BYTES],
    const struct chunk_extents *x)
{
	for (size_t i = 0; i < x->n; i++) {
		int rc = chunk_alloc_mark(e->alloc, x->v[i].disk, x->v[i].count);

		if (rc != 0)
			return damaged(e, key, rc, rc == -EEXIST ?
			    "space is used twice" : "space is not on the disk");
	}
	return 0;
}

static int
recover_committed(struct chunk_engine *e, const uint8_t key[CHUNK_KEY_BYTES],
    const void *value, size_t len)
{
	target_id target;
	struct chunk_id id;
	int rc = chunk_row_decode(key, value, len, true, &e->row);

	if (rc != 0)
		return damaged(e, key, rc, "the row");
	if (e->row.check != chunk_row_check(e->row.crcs, e->row.crc_n, e->row.len))
		return damaged(e, key, ERR_DISK_DAMAGED, "the check");
	chunk_index_count(&e->index, e->row.stored);
	if ((rc = chunk_key_decode(key, CHUNK_KEY_BYTES, &target, &id)) != 0 ||
	    (rc = chunk_known_room(&e->known, target)) != 0)
		return damaged(e, key, rc, "the key");
	chunk_known_change(&e->known, target, &(struct chunk_row){ 0 }, &e->row);
	e->chunk_n++;
	return mark(e, key, &e->row.extents);
}

static int
recover_pending(struct chunk_engine *e, const uint8_t key[CHUNK_KEY_BYTES],
    const void *value, size_t len)
{
	bool removed;
	target_id target;
	struct chunk_id id;
	int rc;

	if ((rc = chunk_pend_decode(key, value, len, true, &e->pend)) != 0 ||
	    (rc = chunk_key_decode(key, CHUNK_KEY_BYTES, &target, &id)) != 0)
		return damaged(e, key, rc, "the row");
	removed = e->pend.flags & CHUNK_ROW_REMOVED;
	rc = chunk_index_get(&e->index, target, id, true, &e->row);
	if (rc != 0 && rc != -ENOENT)
		return damaged(e, key, rc, "the row it builds on");
	chunk_index_count(&e->index, e->pend.stored);
	if (e->pend.base != e->row.version && (e->row.version == e->pend.version ||
	    (removed && e->row.version == 0))) {	/* half a flip: see format.h */
		chunk_commit_soon(e);
		return chunk_index_del(&e->index, CHUNK_KEY_PENDING, target, id,
		    e->pend.stored);
	}
	if (e->pend.base != e->row.version || (!removed &&
	    (rc = chunk_row_apply(&e->row, &e->pend, &e->next, NULL)) != 0 &&
	    rc != -ENOENT))
		return damaged(e, key, rc == 0 ? ERR_DISK_DAMAGED : rc,
		    "what it builds on");
	if ((rc = chunk_known_pend(&e->known, target, id)) != 0)
		return rc;
	if ((rc = mark(e, key, &e->pend.extents)) != 0)
		return rc;
	e->pend_n++;
	/* A repair: the very bytes of the committed version, written anew. */
	if (e->pend.version != e->row.version)
		return 0;
	e->pend_n--;
	return chunk_engine_commit(e, target, id, e->pend.version);
}

/* A bounded part of the walk over the index: first all rows C, then all rows P. */
static void
scan_turn(struct clock_defer *d)
{
	struct chunk_engine *e = container_of(d, struct chunk_engine, open_defer);
	int rc = 0;

	for (unsigned i = 0; i < SCAN_ROWS && rc == 0; i++) {
		uint8_t key[CHUNK_KEY_BYTES];
		const void *value;
		size_t len;

		rc = chunk_index_seek(&e->index, e->scan, e->scan_after, 1, key, &value,
		    &len);
		if (rc == -ENOENT && e->scan[0] == CHUNK_KEY_COMMITTED) {
			memset(e->scan, 0, sizeof(e->scan));
			e->scan[0] = CHUNK_KEY_PENDING;
			e->scan_after = false;
			rc = 0;
			continue;
		}
		if (rc != 0)
			break;
		memcpy(e->scan, key, sizeof(key));
		e->scan_after = true;
		rc = key[0] == CHUNK_KEY_COMMITTED ?
		    recover_committed(e, key, value, len) :
		    recover_pending(e, key, value, len);
	}
	if (rc == 0)
		clock_defer(e->conf.clock, &e->open_defer, scan_turn);
	else
		opened(e, rc == -ENOENT ? 0 : rc);
}

/* The label is good: open the index and see that it is this disk's. */
static int
open_index(struct chunk_engine *e)
{
	struct table_store *store;
	struct uid128 id;
	int rc;

	if ((rc = chunk_alloc_open(&e->alloc, e->label.data_bytes / CHUNK_BLOCK,
	    CHUNK_RESERVED_BLOCKS)) != 0)
		return rc;
	/* The bound is ours (put.c), and an estimate: that of the table, which it could
	 * not meet without failing, lies well above. */
	if ((rc = e->conf.dir->ops->table(e->conf.dir, "index", e->conf.index_bytes / 2 * 3,
	    &store)) != 0 || (rc = table_open(&e->table, store, e->conf.clock)) != 0)
		return rc;
	if ((rc = chunk_index_init(&e->index, e->table)) != 0)
		return rc;
	rc = chunk_index_get_label(&e->index, &id);
	if (rc == -ENOENT || (rc == 0 && !uid128_eq(&id, &e->label.disk_id))) {
		log_error(e->conf.log, "index is not this disk's", "disk=%s", e->name);
		return ERR_DISK_DAMAGED;
	}
	if (rc != 0)
		return rc;
	e->scan[0] = CHUNK_KEY_COMMITTED;
	clock_defer(e->conf.clock, &e->open_defer, scan_turn);
	return 0;
}

static void
go_on(struct chunk_engine *e)
{
	int rc = open_index(e);

	if (rc != 0)
		opened(e, rc);
}

/* A copy that could not be rewritten is worth a line, and no more: the other is good. */
static void
repaired(struct disk_req *r)
{
	struct chunk_engine *e = container_of(r, struct chunk_engine, label_req);

	if (r->rc == 0 && r->op == DISK_WRITE) {
		r->op = DISK_SYNC;
		r->off = r->len = 0;
		r->iov_n = 0;
		disk_start(e->data, r, repaired);
		return;
	}
	log_warn(e->conf.log, r->rc == 0 ? "label copy rewritten" :
	    "label copy not rewritten", "disk=%s error=%s", e->name, err_name(r->rc));
	go_on(e);
}

static void
label_read(struct disk_req *r)
{
	struct chunk_engine *e = container_of(r, struct chunk_engine, label_req);
	int rc = r->rc;
	unsigned bad;

	if (rc == 0)
		rc = chunk_label_choose(e->label_buf.p, &e->label, &e->stale);
	if (rc == 0)
		uid128_text(&e->label.disk_id, e->name);
	if (rc == 0 && e->label.data_bytes > e->data->size) {
		log_error(e->conf.log, "data is shorter than its label says", "disk=%s "
		    "label=%" PRIu64 " size=%" PRIu64, e->name, e->label.data_bytes,
		    e->data->size);
		rc = ERR_DISK_DAMAGED;
	}
	if (rc != 0) {
		opened(e, rc);
		return;
	}
	if (e->stale == 0) {
		go_on(e);
		return;
	}
	bad = e->stale & 1 ? 0 : 1;
	chunk_label_encode(&e->label, e->label_buf.p);
	*r = (struct disk_req){ .op = DISK_WRITE, .off = bad * CHUNK_LABEL_BYTES,
	    .len = CHUNK_LABEL_BYTES, .iov = &e->label_iov, .iov_n = 1 };
	e->label_iov = (struct iovec){ e->label_buf.p, CHUNK_LABEL_BYTES };
	disk_start(e->data, r, repaired);
}

static int
open_data(struct chunk_engine *e)
{
	struct disk_dir *dir = e->conf.dir;
	int rc;

	if ((rc = dir->ops->open(dir, "data", false, 0, &e->data)) != 0)
		return rc == -ENOENT ? ERR_DISK_FOREIGN : rc;
	if (e->data->size < CHUNK_DISK_BYTES_MIN)
		return ERR_DISK_FOREIGN;
	if ((rc = mem_get(e->conf.pool, CHUNK_LABEL_COPIES * CHUNK_LABEL_BYTES,
	    &e->label_buf)) != 0)
		return rc;
	e->label_iov = (struct iovec){ e->label_buf.p,
	    CHUNK_LABEL_COPIES * CHUNK_LABEL_BYTES };
	e->label_req = (struct disk_req){ .op = DISK_READ, .len = e->label_iov.iov_len,
	    .iov = &e->label_iov, .iov_n = 1 };
	disk_start(e->data, &e->label_req, label_read);
	return 0;
}

int
chunk_engine_open(struct chunk_engine **out, const struct chunk_engine_conf *conf,
    chunk_engine_fn *fn, void *ctx)
{
	struct chunk_engine *e = calloc(1, sizeof(*e));

	*out = e;
	if (e == NULL)
		return -ENOMEM;
	e->conf = *conf;
	e->open_fn = fn;
	e->open_ctx = ctx;
	strcpy(e->name, "?");
	list_init(&e->reads);
	list_init(&e->writes);
	list_init(&e->done);
	list_init(&e->starved_reads);
	list_init(&e->starved_writes);
	list_init(&e->to_sync);
	list_init(&e->syncing);
	list_init(&e->to_index);
	list_init(&e->to_space);
	for (unsigned i = 0; i < CHUNK_BUSY_BUCKETS; i++)
		list_init(&e->busy[i]);
	chunk_known_init(&e->known);
	chunk_damages_init(&e->damages);
	chunk_commit_init(e);
	if ((e->open_rc = chunk_presence_open(e)) != 0 ||
	    (e->open_rc = open_data(e)) != 0)
		clock_defer(e->conf.clock, &e->open_defer, open_turn);
	return 0;
}

void
chunk_engine_close(struct chunk_engine *e)
{
	if (e == NULL)
		return;
	if (e->gone != NULL)
		*e->gone = true;
	stat_remove(&e->stat_set);
	clock_undefer(e->conf.clock, &e->open_defer);
	clock_undefer(e->conf.clock, &e->done_defer);
	clock_undefer(e->conf.clock, &e->turn);
	/* First: it holds our buffers. */
	if (!disk_close(e->data)) {
		mem_pool_leave(e->conf.pool);
		e->presence.buf = NULL;
	}
	chunk_presence_close(e);
	if (e->table != NULL && !table_close(e->table))
		log_error(e->conf.log, "index closed with changes that it never answered, their "
		    "memory is left to it", "disk=%s", e->conf.path != NULL ? e->conf.path : "");
	chunk_commit_fini(e);
	chunk_get_abandon(e);
	chunk_put_abandon(e);
	mem_put(&e->label_buf);
	chunk_index_fini(&e->index);
	chunk_known_fini(&e->known);
	chunk_damages_fini(&e->damages);
	chunk_alloc_close(e->alloc);
	chunk_row_fini(&e->row);
	chunk_row_fini(&e->next);
	chunk_pend_fini(&e->pend);
	free(e);
}

/* ---- what it knows ---- */

const struct uid128 *
chunk_engine_disk(const struct chunk_engine *e)
{
	return &e->label.disk_id;
}

int
chunk_engine_state(const struct chunk_engine *e)
{
	return e->broken;
}

void
chunk_engine_space(const struct chunk_engine *e, uint64_t *capacity_bytes,
    uint64_t *used_bytes)
{
	*capacity_bytes = chunk_alloc_capacity(e->alloc) * CHUNK_BLOCK;
	*used_bytes = chunk_alloc_used(e->alloc) * CHUNK_BLOCK;
}

bool
chunk_engine_full(const struct chunk_engine *e)
{
	return e->presence.low || e->presence.none ||
	    e->index.cost_bytes > e->conf.index_bytes / 8 * 7;
}

/* From the heads of e->row and e->pend; a version of 0 means that there is none. */
static void
fill(struct chunk_engine *e, target_id target, struct chunk_id id,
    struct chunk_info *out)
{
	const struct chunk_row *c = &e->row;
	const struct chunk_pend *p = &e->pend;

	*out = (struct chunk_info){ .id = id };
	out->storing = chunk_put_busy(e, target, id);
	if (c->version > 0) {
		out->shift = c->shift;
		out->committed = c->version;
		out->committed_len = c->len;
		out->committed_epoch = c->epoch;
		out->committed_check = c->check;
	}
	if (p->version > 0) {
		out->shift = p->shift;
		out->pending = p->version;
		out->pending_len = p->len;
		out->pending_epoch = p->epoch;
		out->pending_check = p->check;
		out->pending_removed = p->flags & CHUNK_ROW_REMOVED;
		out->dedupe_n = chunk_dedupe_apply(c, p, out->dedupe);
	} else {
		out->dedupe_n = c->dedupe_n;
		memcpy(out->dedupe, c->dedupe, c->dedupe_n * sizeof(out->dedupe[0]));
	}
}

int
chunk_engine_info(struct chunk_engine *e, target_id target, struct chunk_id id,
    struct chunk_info *out)
{
	int rc;

	if (e->broken != 0)
		return e->broken;
	if ((rc = chunk_index_get(&e->index, target, id, false, &e->row)) != 0 &&
	    (rc = chunk_engine_index_rc(e, rc)) != -ENOENT)
		return rc;
	if ((rc = chunk_index_get_pend(&e->index, target, id, false, &e->pend)) != 0 &&
	    (rc = chunk_engine_index_rc(e, rc)) != -ENOENT)
		return rc;
	if (e->row.version == 0 && e->pend.version == 0)
		return -ENOENT;
	fill(e, target, id, out);
	return 0;
}

/* Id of the next row of @kind of @target. */
static int
next_of(struct chunk_engine *e, enum chunk_key_kind kind, target_id target,
    struct chunk_id from, bool after, struct chunk_id *out)
{
	uint8_t key[CHUNK_KEY_BYTES], found[CHUNK_KEY_BYTES];
	const void *value;
	target_id t;
	size_t len;
	int rc;

	chunk_key_encode(kind, target, from, key);
	if ((rc = chunk_index_seek(&e->index, key, after, 5, found, &value, &len)) == 0)
		rc = chunk_key_decode(found, sizeof(found), &t, out);
	return chunk_engine_index_rc(e, rc);
}

int
chunk_engine_next(struct chunk_engine *e, target_id target, struct chunk_id from,
    bool after, struct chunk_info *out)
{
	struct chunk_id c, p;
	int crc, prc;

	if (e->broken != 0)
		return e->broken;
	crc = next_of(e, CHUNK_KEY_COMMITTED, target, from, after, &c);
	prc = next_of(e, CHUNK_KEY_PENDING, target, from, after, &p);
	if ((crc != 0 && crc != -ENOENT) || (prc != 0 && prc != -ENOENT))
		return crc != 0 && crc != -ENOENT ? crc : prc;
	if (crc != 0 && prc != 0)
		return -ENOENT;
	if (crc != 0 || (prc == 0 && chunk_id_cmp(p, c) < 0))
		c = p;
	return chunk_engine_info(e, target, c, out);
}

int
chunk_engine_next_pending(struct chunk_engine *e, target_id target, struct chunk_id from,
    bool after, struct chunk_info *out)
{
	struct chunk_id id;

	if (e->broken != 0)
		return e->broken;
	if (!chunk_known_next(&e->known, target, from, after, &id))
		return -ENOENT;
	return chunk_engine_info(e, target, id, out);
}

void
chunk_engine_count(const struct chunk_engine *e, target_id target, uint64_t *chunks,
    uint64_t *bytes)
{
	struct chunk_known_count c = chunk_known_of(&e->known, target);

	*chunks = c.chunks;
	*bytes = c.bytes;
}

/* Index of the first committed chunk of the inode at or after @from. */
static int
at_or_after(struct chunk_engine *e, target_id target, ino_id ino, uint32_t from,
    uint32_t *out)
{
	struct chunk_id id = { ino, from };
	uint8_t key[CHUNK_KEY_BYTES], found[CHUNK_KEY_BYTES];
	const void *value;
	target_id t;
	size_t len;
	int rc;

	chunk_key_encode(CHUNK_KEY_COMMITTED, target, id, key);
	if ((rc = chunk_index_seek(&e->index, key, false, 13, found, &value, &len)) == 0)
		rc = chunk_key_decode(found, sizeof(found), &t, &id);
	*out = id.index;
	return chunk_engine_index_rc(e, rc);
}

/* Tables only seek forward: gallop, then halve what is left.  There is a chunk at @last;
 * none is at @stop or after it. */
int
chunk_engine_last(struct chunk_engine *e, target_id target, ino_id ino,
    struct chunk_info *out)
{
	uint64_t stop = 1ull << 32, step = 1, try;
	bool gallop = true;
	uint32_t last, found;
	int rc;

	if (e->broken != 0)
		return e->broken;
	if ((rc = at_or_after(e, target, ino, 0, &last)) != 0)
		return rc;
	while (last + 1ull < stop) {
		try = gallop ? last + step : last + (stop - last) / 2;
		if (try >= stop)
			try = stop - 1;
		step *= 2;
		rc = at_or_after(e, target, ino, (uint32_t)try, &found);
		if (rc == 0)
			last = found;
		else if (rc == -ENOENT) {
			stop = try;
			gallop = false;
		} else
			return rc;
	}
	return chunk_engine_info(e, target, (struct chunk_id){ ino, last }, out);
}
