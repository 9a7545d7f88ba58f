/* SPDX-License-Identifier: MIT */
/* group_table.c - the group's own rows in its table, when the table is written, and how
 * much of the log is kept.
 *
 * Keys begin with a zero byte; values little-endian (fsd-disk(5)):
 *	applied	 index u64, term u64 of the last entry that the table holds
 *	members	 index u64 of the entry that made them, the entry
 *	snapshot index u64, term u64: the snapshot that this table began as
 *	loading	 (empty) the table is half replaced by a snapshot
 *	floor	 index u64, term u64: see group_load.c */
#include "meta/group_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/err.h"

static const uint8_t applied_key[] = { 0, 'a', 'p', 'p', 'l', 'i', 'e', 'd' };
static const uint8_t members_key[] = { 0, 'm', 'e', 'm', 'b', 'e', 'r', 's' };
static const uint8_t snapshot_key[] = { 0, 's', 'n', 'a', 'p', 's', 'h', 'o', 't' };
static const uint8_t loading_key[] = { 0, 'l', 'o', 'a', 'd', 'i', 'n', 'g' };
static const uint8_t floor_key[] = { 0, 'f', 'l', 'o', 'o', 'r' };

/* ---- rows ---- */

static int
pair_decode(const void *value, size_t len, uint64_t *index, uint64_t *term)
{
	struct bytes_reader r;

	bytes_reader_init(&r, value, len);
	*index = bytes_get_u64(&r);
	*term = bytes_get_u64(&r);
	return bytes_reader_done(&r) ? 0 : ERR_CORRUPT;
}

static int
members_decode(const void *value, size_t len, struct raft_members *m)
{
	struct bytes_reader r;
	uint64_t index;

	bytes_reader_init(&r, value, len);
	index = bytes_get_u64(&r);
	if (r.failed || raft_members_decode(m, r.p, bytes_left(&r)) != 0)
		return ERR_CORRUPT;
	m->index = index;
	return 0;
}

static int
pair_get(struct table *t, const void *key, size_t key_len, uint64_t *index,
    uint64_t *term)
{
	const void *value;
	size_t len;
	int rc = table_get(t, key, key_len, &value, &len);

	return rc != 0 ? rc : pair_decode(value, len, index, term);
}

static int
pair_put(struct table *t, const void *key, size_t key_len, uint64_t index,
    uint64_t term)
{
	struct bytes_writer w;
	uint8_t value[16];

	bytes_writer_init(&w, value, sizeof(value));
	bytes_put_u64(&w, index);
	bytes_put_u64(&w, term);
	return table_put(t, key, key_len, value, sizeof(value));
}

int
group_rows_read(struct group *g)
{
	const void *value;
	size_t len;
	int rc;

	rc = pair_get(g->table, floor_key, sizeof(floor_key), &g->floor_index,
	    &g->floor_term);
	g->floor_row = rc == 0;
	if (rc != 0 && rc != -ENOENT)
		return rc;
	rc = table_get(g->table, loading_key, sizeof(loading_key), &value, &len);
	if (rc != -ENOENT) {
		g->half = rc == 0;
		return rc;
	}
	rc = pair_get(g->table, snapshot_key, sizeof(snapshot_key),
	    &g->snap_index, &g->snap_term);
	if (rc != 0 && rc != -ENOENT)
		return rc;
	rc = pair_get(g->table, applied_key, sizeof(applied_key),
	    &g->applied.index, &g->applied.term);
	if (rc != 0)
		return rc == -ENOENT ? 0 : rc;
	g->durable = g->applied.index;
	rc = table_get(g->table, members_key, sizeof(members_key), &value, &len);
	if (rc == 0)
		rc = members_decode(value, len, &g->applied.members);
	g->members_durable = g->applied.members.index;
	return rc == -ENOENT ? 0 : rc;
}

/* What goes with every batch. */
int
group_rows_put(struct group *g, const struct raft_point *p)
{
	uint8_t value[8 + RAFT_MEMBERS_BYTES];
	struct bytes_writer w;
	int rc;

	rc = pair_put(g->table, applied_key, sizeof(applied_key), p->index,
	    p->term);
	if (rc == 0 && p->members.index != g->members_durable) {
		bytes_writer_init(&w, value, sizeof(value));
		bytes_put_u64(&w, p->members.index);
		rc = table_put(g->table, members_key, sizeof(members_key), value,
		    8 + raft_members_encode(&p->members, value + 8));
	}
	/* Not by what the log holds: until a snapshot is in its place, that is the old one,
	 * and its end need not be durable. */
	if (rc == 0 && g->floor_row && !g->half &&
	    !group_below_floor(g, p->term, p->index)) {
		g->floor_row = false;
		g->floor_index = g->floor_term = 0;
		rc = table_del(g->table, floor_key, sizeof(floor_key));
	}
	return rc;
}

int
group_row_loading(struct group *g)
{
	int rc = table_put(g->table, loading_key, sizeof(loading_key), NULL, 0);

	if (rc == 0)
		rc = pair_put(g->table, floor_key, sizeof(floor_key),
		    g->floor_index, g->floor_term);
	g->floor_row = rc == 0;
	return rc;
}

int
group_row_loaded(struct group *g, const struct raft_point *p)
{
	int rc = table_del(g->table, loading_key, sizeof(loading_key));

	if (rc == 0)
		rc = pair_put(g->table, snapshot_key, sizeof(snapshot_key),
		    p->index, p->term);
	return rc != 0 ? rc : group_rows_put(g, p);
}

int
group_image_point(struct table_image *m, struct raft_point *out)
{
	const void *key, *value;
	size_t key_len, len;
	int rc;

	memset(out, 0, sizeof(*out));
	rc = table_image_seek(m, applied_key, sizeof(applied_key), false, &key,
	    &key_len, &value, &len);
	if (rc == 0 && (key_len != sizeof(applied_key) ||
	    memcmp(key, applied_key, key_len) != 0))
		rc = -ENOENT;
	if (rc == 0)
		rc = pair_decode(value, len, &out->index, &out->term);
	if (rc != 0)
		return rc;
	rc = table_image_seek(m, members_key, sizeof(members_key), false, &key,
	    &key_len, &value, &len);
	if (rc == 0 && (key_len != sizeof(members_key) ||
	    memcmp(key, members_key, key_len) != 0))
		rc = -ENOENT;
	return rc != 0 ? rc : members_decode(value, len, &out->members);
}

/* ---- flush ---- */

bool
group_flushed(const struct group *g)
{
	return g->rc != 0 || (g->inflight_n == 0 && g->durable == g->applied.index);
}

static bool
alone(const struct group *g)
{
	return g->raft == NULL || raft_members(g->raft)->n <= 1;
}

/* Entries up to which may be cut: what the table holds; a part of the log stays for
 * followers that lag, and what follows a snapshot that is on its way. */
static uint64_t
cut_to(const struct group *g)
{
	uint64_t ring = meta_log_ring_bytes(g->log), to = g->durable, keep;

	if (alone(g) || g->cut_all)
		return to;
	if ((keep = meta_log_before(g->log, ring / 4)) < to)
		to = keep;
	if (meta_log_used_bytes(g->log) < ring / 4 * 3 &&
	    (keep = group_snap_lowest(g)) < to)
		to = keep;
	return to;
}

void
group_cut(struct group *g)
{
	uint64_t to = cut_to(g);

	if (g->phase != GROUP_RUNNING || g->half || g->load.finishing ||
	    to < meta_log_first(g->log) || to > meta_log_last(g->log))
		return;
	meta_log_truncate(g->log, to);
	g->cut_all = false;
	if (meta_log_first(g->log) > raft_first(g->raft))
		raft_compacted(g->raft, meta_log_first(g->log) - 1);
}

static void
committed(struct table_commit *c)
{
	struct group *g = container_of(c, struct group, commit_req);

	g->committing = false;
	if (g->rc != 0)
		return;
	if (c->rc != 0) {
		group_break(g, c->rc);
		return;
	}
	g->durable = g->commit_point.index;
	g->members_durable = g->commit_point.members.index;
	group_mark_written(g);
	stat_add(&g->stat.flushes, 1);
	stat_set(&g->stat.table_bytes, table_used_bytes(g->table));
	group_snap_flushed(g);
	group_cut(g);
	group_pump(g);
	group_flush_maybe(g);
	group_heal_drive(g);
}

void
group_commit_table(struct group *g)
{
	int rc = group_rows_put(g, &g->applied);

	if (rc != 0) {
		group_break(g, rc);
		return;
	}
	clock_timer_stop(g->conf.clock, &g->flush_timer);
	g->committing = true;
	g->commit_point = g->applied;
	table_commit(g->table, &g->commit_req, committed);
}

static bool
may_commit(const struct group *g)
{
	return g->rc == 0 && !g->committing && !g->half && !g->load.finishing &&
	    !g->healing && g->applied.index > g->durable;
}

static void
flush_due(struct clock_timer *t)
{
	struct group *g = container_of(t, struct group, flush_timer);

	if (may_commit(g))
		group_commit_table(g);
}

/* Something was applied or became durable: is it time to write the table? */
void
group_flush_maybe(struct group *g)
{
	bool wanted = (g->flush_fn != NULL && g->inflight_n == 0) ||
	    group_snap_waits(g) || g->cut_all;

	if (g->rc != 0)
		return;
	if (g->flush_fn != NULL && group_flushed(g))
		group_poke(g);
	if (!may_commit(g))
		return;
	if (wanted || table_dirty_bytes(g->table) >= g->conf.flush_bytes ||
	    meta_log_bytes_after(g->log, g->durable) >
	    meta_log_ring_bytes(g->log) / (alone(g) ? 2 : 4))
		group_commit_table(g);
	else if (g->flush_timer.pos == 0)
		clock_timer_start(g->conf.clock, &g->flush_timer,
		    group_now(g) + g->conf.flush_ms * NS_PER_MS, flush_due);
}
