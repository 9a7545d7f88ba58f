/* SPDX-License-Identifier: MIT */
/* group.c - log, apply and table of one replicated state machine.
 *
 *   propose -> log (gathered, synced) -> apply, in order -> answer
 *                                          |
 *                                     table overlay -> flush -> log front is cut
 *
 * With one replica an entry is committed when it is durable here; that decision is
 * entry() and nothing else, and it is where Raft puts its own.
 *
 * Invariants:
 *   1  applied rises by one per entry; an answer is given after its entry was applied,
 *      and an entry is applied after it is durable.
 *   2  The table's applied index is written in the batch that holds the changes of
 *      exactly the entries up to it.
 *   3  The log is cut only up to an index the table holds durably. */
#include "meta/group.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/err.h"
#include "meta/log.h"

STAT_DEFINE(group, GROUP_STATS)

#define TERM		1u		/* rises once there are elections */
#define DIRTY_FACTOR	4u		/* times flush_bytes, then busy */

enum entry_type { ENTRY_CMD = 1 };

_Static_assert(GROUP_CMD_MAX <= META_LOG_PAYLOAD_MAX, "a command is one entry");

/* Value: index u64, term u64, little-endian. */
static const uint8_t applied_key[] = { 0, 'a', 'p', 'p', 'l', 'i', 'e', 'd' };
#define APPLIED_BYTES 16u

struct group {
	struct group_conf conf;
	struct meta_log	*log;
	struct table	*table;
	bool		 opened;	/* the log is */
	bool		 leads;
	int		 rc;		/* what broke it */
	bool		 told;		/* broken() was called */
	bool		*closed;	/* set when closed inside a callback */

	uint64_t	 applied;
	uint64_t	 applied_term;
	struct list	 inflight;	/* struct group_req, by index */
	uint32_t	 inflight_n;
	struct list	 reads;
	struct clock_defer defer;	/* reads, flushed, broken */

	struct table_commit commit;
	bool		 committing;
	uint64_t	 commit_index;	/* of the commit in flight */
	uint64_t	 durable;	/* index the table holds durably */
	struct clock_timer flush_timer;
	void		(*flush_fn)(void *ctx);
	void		*flush_ctx;
	struct group_stat stat;
	struct stat_set	 stat_set;

	uint8_t		 result[GROUP_RESULT_MAX];
};

static void deferred(struct clock_defer *d);

void
group_break(struct group *g, int rc)
{
	assert(rc != 0);
	if (g->rc != 0)
		return;
	g->rc = rc;
	g->leads = false;
	clock_timer_stop(g->conf.clock, &g->flush_timer);
	log_error(g->conf.log, "group broken", "error=%s applied=%" PRIu64,
	    err_name(rc), g->applied);
	clock_defer(g->conf.clock, &g->defer, deferred);
}

/* ---- flush ---- */

static bool
flushed(const struct group *g)
{
	return g->rc != 0 || (g->inflight_n == 0 && g->durable == g->applied);
}

static void flush(struct group *g);

static void
committed(struct table_commit *c)
{
	struct group *g = container_of(c, struct group, commit);

	g->committing = false;
	if (g->rc != 0)
		return;
	if (c->rc != 0) {
		group_break(g, c->rc);
		return;
	}
	g->durable = g->commit_index;
	stat_add(&g->stat.flushes, 1);
	if (g->opened)
		meta_log_truncate(g->log, g->durable);
	flush(g);
}

static void
commit(struct group *g)
{
	uint8_t value[APPLIED_BYTES];
	struct bytes_writer w;
	int rc;

	bytes_writer_init(&w, value, sizeof(value));
	bytes_put_u64(&w, g->applied);
	bytes_put_u64(&w, g->applied_term);
	rc = table_put(g->table, applied_key, sizeof(applied_key), value,
	    sizeof(value));
	if (rc != 0) {
		group_break(g, rc);
		return;
	}
	clock_timer_stop(g->conf.clock, &g->flush_timer);
	g->committing = true;
	g->commit_index = g->applied;
	table_commit(g->table, &g->commit, committed);
}

static void
flush_due(struct clock_timer *t)
{
	struct group *g = container_of(t, struct group, flush_timer);

	if (!g->committing && g->applied > g->durable)
		commit(g);
}

/* Something was applied or became durable: is it time to write the table? */
static void
flush(struct group *g)
{
	bool wanted = g->flush_fn != NULL && g->inflight_n == 0;

	if (g->rc != 0)
		return;
	if (g->flush_fn != NULL && flushed(g))
		clock_defer(g->conf.clock, &g->defer, deferred);
	if (g->committing || g->applied == g->durable)
		return;
	if (wanted || table_dirty_bytes(g->table) >= g->conf.flush_bytes ||
	    (g->opened && meta_log_used_bytes(g->log) >
	    meta_log_ring_bytes(g->log) / 2))
		commit(g);
	else if (g->flush_timer.pos == 0)
		clock_timer_start(g->conf.clock, &g->flush_timer,
		    clock_now(g->conf.clock) + g->conf.flush_ms * NS_PER_MS,
		    flush_due);
}

void
group_flush(struct group *g, void (*fn)(void *ctx), void *ctx)
{
	assert(g->flush_fn == NULL);
	g->flush_fn = fn;
	g->flush_ctx = ctx;
	if (g->rc != 0)
		clock_defer(g->conf.clock, &g->defer, deferred);
	flush(g);
}

/* ---- the log's callbacks ---- */

static void
entry(void *ctx, const struct meta_log_entry *e)
{
	struct group *g = ctx;
	struct group_req *r;
	size_t n = 0;

	if (g->rc != 0 || e->index <= g->applied)
		return;
	if (e->index != g->applied + 1) {
		group_break(g, ERR_LOG_DAMAGED);	/* begins too late */
		return;
	}
	if (e->type == ENTRY_CMD)
		n = g->conf.ops->apply(g->conf.ctx, e->index, e->payload, e->len,
		    g->result, sizeof(g->result));
	assert(n <= sizeof(g->result));
	if (g->rc != 0)
		return;			/* half applied; never made durable */
	g->applied = e->index;
	stat_add(&g->stat.commands, 1);
	g->applied_term = e->term;
	r = list_empty(&g->inflight) ? NULL :
	    list_entry(g->inflight.next, struct group_req, node);
	if (r != NULL && r->index == e->index) {
		list_remove(&r->node);
		g->inflight_n--;
		stat_set(&g->stat.inflight, g->inflight_n);
	} else
		r = NULL;
	if (g->opened)
		stat_set(&g->stat.log_bytes, meta_log_used_bytes(g->log));
	flush(g);
	if (r != NULL)
		r->fn(r, 0, g->result, n);	/* may close us */
}

static void
ready(void *ctx, int rc)
{
	struct group *g = ctx;

	if (rc == 0 && g->rc == 0 && meta_log_last(g->log) < g->applied) {
		log_error(g->conf.log, "log ends before the table",
		    "last=%" PRIu64 " applied=%" PRIu64, meta_log_last(g->log),
		    g->applied);
		rc = ERR_LOG_DAMAGED;
	}
	if (rc != 0)
		group_break(g, rc);
	if (g->rc != 0)
		return;
	g->opened = true;
	meta_log_truncate(g->log, g->durable);
	flush(g);
	if (g->rc != 0)
		return;
	g->leads = true;
	log_info(g->conf.log, "group open", "run=%" PRIu64 " applied=%" PRIu64
	    " durable=%" PRIu64, meta_log_run(g->log), g->applied, g->durable);
	g->conf.ops->leader(g->conf.ctx, true);
}

static void
broken(void *ctx, int rc)
{
	group_break(ctx, rc);
}

static const struct meta_log_ops log_ops = {
	.entry = entry, .ready = ready, .broken = broken,
};

/* ---- what waits for the end of the turn ---- */

/* Take requests off @from one by one: a callback may add, or close the group. */
static bool
answer_all(struct group *g, struct list *from, int rc, const bool *closed)
{
	struct list ready_now, *n;

	list_init(&ready_now);
	list_splice_back(&ready_now, from);
	while ((n = list_pop_front(&ready_now)) != NULL) {
		struct group_req *r = list_entry(n, struct group_req, node);

		if (from == &g->inflight)
			g->inflight_n--;
		r->fn(r, rc, NULL, 0);
		if (*closed)
			return false;	/* the rest may be freed already */
	}
	return true;
}

static void
deferred(struct clock_defer *d)
{
	struct group *g = container_of(d, struct group, defer);
	bool closed = false;

	g->closed = &closed;
	if (g->rc != 0 && !answer_all(g, &g->inflight, g->rc, &closed))
		return;
	if (!answer_all(g, &g->reads, g->rc, &closed))
		return;
	if (g->flush_fn != NULL && flushed(g)) {
		void (*fn)(void *) = g->flush_fn;

		g->flush_fn = NULL;
		fn(g->flush_ctx);
		if (closed)
			return;
	}
	if (g->rc != 0 && !g->told) {
		g->told = true;
		g->conf.ops->broken(g->conf.ctx, g->rc);
		if (closed)
			return;
	}
	g->closed = NULL;
}

/* ---- what the owner calls ---- */

static int
read_applied(struct group *g)
{
	struct bytes_reader r;
	const void *value;
	size_t len;
	int rc;

	rc = table_get(g->table, applied_key, sizeof(applied_key), &value, &len);
	if (rc != 0)
		return rc == -ENOENT ? 0 : rc;
	bytes_reader_init(&r, value, len);
	g->applied = g->durable = bytes_get_u64(&r);
	g->applied_term = bytes_get_u64(&r);
	return bytes_reader_done(&r) ? 0 : ERR_CORRUPT;
}

int
group_open(struct group **out, const struct group_conf *conf)
{
	struct table_store *store;
	struct group *g;
	int rc;

	*out = NULL;
	if ((g = calloc(1, sizeof(*g))) == NULL)
		return -ENOMEM;
	g->conf = *conf;
	list_init(&g->inflight);
	list_init(&g->reads);
	rc = conf->dir->ops->table(conf->dir, "table", conf->table_bytes, &store);
	if (rc == 0)
		rc = table_open(&g->table, store, conf->clock);
	if (rc == 0)
		rc = read_applied(g);
	if (rc == 0)
		rc = meta_log_open(&g->log, &(struct meta_log_conf){
			.clock = conf->clock, .log = conf->log, .dir = conf->dir,
			.name = "log", .bytes = conf->log_bytes,
			.ops = &log_ops, .ctx = g,
			.batches = &g->stat.commits });
	if (rc != 0) {
		group_close(g);
		return rc;
	}
	stat_attach(conf->stats, &g->stat_set, "fsd_group",
	    conf->log != NULL ? conf->log->who : "", group_stat_rows, &g->stat);
	*out = g;
	return 0;
}

void
group_close(struct group *g)
{
	if (g == NULL)
		return;
	if (g->closed != NULL)
		*g->closed = true;
	stat_remove(&g->stat_set);
	meta_log_close(g->log);
	table_close(g->table);
	clock_timer_stop(g->conf.clock, &g->flush_timer);
	clock_undefer(g->conf.clock, &g->defer);
	free(g);		/* requests are their owners', maybe gone */
}

int
group_propose(struct group *g, struct group_req *req, const void *cmd, size_t len,
    group_fn *fn)
{
	int rc;

	if (!g->leads)
		return ERR_NOT_LEADER;
	if (len > GROUP_CMD_MAX)
		return -EMSGSIZE;
	if (g->inflight_n >= g->conf.inflight_max ||
	    table_dirty_bytes(g->table) / DIRTY_FACTOR > g->conf.flush_bytes)
		return ERR_BUSY;
	rc = meta_log_append(g->log, TERM, ENTRY_CMD, cmd, len, &req->index);
	if (rc != 0)
		return rc;
	req->fn = fn;
	list_push_back(&g->inflight, &req->node);
	g->inflight_n++;
	stat_set(&g->stat.inflight, g->inflight_n);
	return 0;
}

int
group_read(struct group *g, struct group_req *req, group_fn *fn)
{
	if (!g->leads)
		return ERR_NOT_LEADER;
	req->index = g->applied;
	req->fn = fn;
	list_push_back(&g->reads, &req->node);
	clock_defer(g->conf.clock, &g->defer, deferred);
	return 0;
}

bool
group_leads(const struct group *g)
{
	return g->leads;
}

struct table *
group_table(struct group *g)
{
	return g->table;
}

uint64_t
group_applied(const struct group *g)
{
	return g->applied;
}

uint64_t
group_run(const struct group *g)
{
	return meta_log_run(g->log);
}
