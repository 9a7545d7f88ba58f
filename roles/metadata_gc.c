/* SPDX-License-Identifier: MIT */
/* metadata_gc.c - the storage work that gc rows ask for: cut the chunks of truncated files,
 * remove those of files that have no name and are not open.
 *
 *   row in the table -> job: CUTTING (every chain) -> DONE (waits for its command) -> gone
 *                        '-> FRESH (a removal: waits for its command) -'
 *
 * Truncations begin at once, since somebody waits.  Removals come through a queue, a
 * bounded number at a time.  The queue is a hint: what it has no room for, and what an
 * earlier run left, is found by walking the rows.  Finished jobs go into one command
 * together, one command at a time, with those that are to begin.
 *
 *  1. At most one job of a kind for an inode; a removal does not begin beside a truncation.
 *  2. No removal of an inode that is open, nor before clients had the time of a session
 *     to tell their opens to this run; and no new open of one that has begun.
 *  3. That a removal begins is committed before storage hears of it: who leads next may
 *     be told of an open by a client that we did not hear, and has to know. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "conf/err.h"
#include "roles/metadata_impl.h"

#define REMOVES_MAX	64u	/* removals against storage at a time */
#define TRUNCATES_MAX	1024u
#define QUEUE_MAX	8192u	/* a power of two */
#define SCAN_PAGE	256u	/* rows walked per turn */
#define TURN_MAX	256u	/* removals looked at per turn */
#define DONE_MAX	256u	/* jobs in one command */
#define BUSY_PAUSE_NS	(20 * NS_PER_MS)

_Static_assert(DONE_MAX <= FS_GC_DONE_MAX, "fits a command");

struct job {
	struct metadata_stripe stripe;
	struct list	   node;	/* fresh, all that cut, done, or in the command */
	struct list	   waiters;	/* metadata_op */
	uint8_t		   kind;	/* enum gc_kind */
	bool		   begun;	/* storage may have heard of it */
	uint32_t	   epoch;
};

struct metadata_gc {
	struct metadata	  *m;
	struct map	   truncates, removes;	/* job by inode */
	struct list	   fresh, cutting, done, sent;
	unsigned	   done_n, waiters_n;
	/* removals to look at */
	ino_id		   queue[QUEUE_MAX];
	uint32_t	   head, tail;	/* tail - head are queued */
	bool		   scanning;	/* rows are being walked */
	bool		   overflow;	/* walk again, from the start */
	ino_id		   scan_ino;
	uint8_t		   scan_kind;
	uint64_t	   from_ns;	/* no removals before that */
	unsigned	   holds;	/* repairs on their way: no removals begin */
	bool		   stopped;
	bool		   proposing;
	struct group_req   req;
	struct clock_timer timer, sweep_timer;
	struct clock_defer defer;
};

static void cut_done(struct metadata_stripe *s, int rc);

static void run_soon(struct metadata_gc *g, uint64_t at_ns);
static void sweep_at(struct metadata_gc *g, uint64_t at_ns);

/* ---- jobs ---- */

/* Start the storage work of @row, or go straight to DONE when no chunk can be there. */
static int
begin(struct metadata_gc *g, const struct gc_row *row, const struct inode *in,
    struct job **out)
{
	struct map *map = row->kind == GC_REMOVE ? &g->removes : &g->truncates;
	struct job *j = calloc(1, sizeof(*j));
	struct metadata_stripe *s;

	if (j == NULL)
		return -ENOMEM;
	if (map_put(map, in->ino, j) != 0) {
		free(j);
		return -ENOMEM;
	}
	list_init(&j->waiters);
	j->kind = row->kind;
	j->epoch = row->epoch;
	j->begun = true;
	s = &j->stripe;
	s->ino = in->ino;
	inode_layout(in, &s->layout);
	s->epoch = row->epoch;
	s->index = (uint32_t)(row->at >> in->chunk_shift);
	s->keep = (uint32_t)(row->at & ((UINT64_C(1) << in->chunk_shift) - 1));
	if (row->kind == GC_REMOVE)
		s->index = s->keep = 0;
	if (out != NULL)
		*out = j;
	if (row->kind == GC_REMOVE && (in->flags & INODE_WRITTEN) == 0) {
		list_push_back(&g->done, &j->node);
		g->done_n++;
		run_soon(g, 0);
		return 0;
	}
	if (row->kind == GC_REMOVE && row->at == 0) {
		j->begun = false;
		list_push_back(&g->fresh, &j->node);
		run_soon(g, 0);
		return 0;
	}
	list_push_back(&g->cutting, &j->node);
	metadata_stripe_start(s, g->m, cut_done);
	return 0;
}

static void
cut_done(struct metadata_stripe *s, int rc)
{
	struct job *j = container_of(s, struct job, stripe);
	struct metadata_gc *g = s->m->gc;

	assert(rc == 0);		/* it has no deadline */
	list_remove(&j->node);
	list_push_back(&g->done, &j->node);
	g->done_n++;
	run_soon(g, 0);
}

/* Give the waiters of a truncation what they wait for. */
static void
release(struct metadata_gc *g, struct list *waiters, int rc)
{
	struct list *n;

	while ((n = list_pop_front(waiters)) != NULL) {
		struct metadata_op *op = list_entry(n, struct metadata_op, wait);

		g->waiters_n--;
		if (rc != 0)
			metadata_reply(op, rc, NULL);
		else if (op->answered)
			metadata_reply_entry(op);
		else
			metadata_dispatch(op);
	}
}

/* The row of @j has gone, or has moved on: another truncation came while it ran. */
static void
job_end(struct metadata_gc *g, struct job *j)
{
	struct metadata *m = g->m;
	ino_id ino = j->stripe.ino;
	struct job *next = NULL;
	struct list waiters;
	struct gc_row row;
	struct inode in;
	int rc = 0;

	list_remove(&j->node);
	list_init(&waiters);
	list_splice_back(&waiters, &j->waiters);
	map_del(j->kind == GC_REMOVE ? &g->removes : &g->truncates, ino);
	if (j->kind == GC_TRUNCATE && fs_inode(m->fs, ino, &in) == 0) {
		if (inode_cutting(&in) && g->stopped) {
			rc = ERR_STOPPING;
		} else if (inode_cutting(&in)) {
			rc = gc_get(group_table(m->group), ino, GC_TRUNCATE,
			    &row);
			if (rc == 0)
				rc = begin(g, &row, &in, &next);
			if (rc != 0) {
				g->overflow = true;	/* found by a walk */
				rc = ERR_BUSY;
			}
		} else if (in.nlink == 0) {
			metadata_gc_look(m, ino);	/* it waited for this */
		}
	}
	free(j);
	if (next != NULL)
		list_splice_back(&next->waiters, &waiters);
	else
		release(g, &waiters, rc);
}

/* ---- commands ---- */

static void
applied(struct group_req *r, int rc, const void *result, size_t len)
{
	struct metadata_gc *g = container_of(r, struct metadata_gc, req);
	struct list sent;

	(void)result;
	(void)len;
	g->proposing = false;
	if (rc != 0) {
		/* We lead no more, and hear that next; or do, and could not hand it over. */
		list_splice_back(&g->done, &g->sent);
		run_soon(g, metadata_now(g->m) + BUSY_PAUSE_NS);
		return;
	}
	list_init(&sent);
	list_splice_back(&sent, &g->sent);
	while (!list_empty(&sent)) {
		struct job *j = list_entry(sent.next, struct job, node);

		if (!j->begun) {
			j->begun = true;
			list_remove(&j->node);
			list_push_back(&g->cutting, &j->node);
			if (!g->stopped)
				metadata_stripe_start(&j->stripe, g->m, cut_done);
			continue;
		}
		g->done_n--;
		stat_add(j->kind == GC_REMOVE ? &g->m->stat.removed :
		    &g->m->stat.truncations, 1);
		job_end(g, j);
	}
	run_soon(g, 0);
}

/* As many jobs of @from as there is room for behind the first *n rows. */
static void
put_rows(const struct list *from, struct gc_row rows[DONE_MAX], unsigned *n)
{
	list_for_each(it, from) {
		const struct job *j = list_entry(it, struct job, node);

		if (*n == DONE_MAX)
			return;
		rows[*n].ino = j->stripe.ino;
		rows[*n].kind = j->begun ? j->kind : GC_BEGUN;
		rows[(*n)++].epoch = j->epoch;
	}
}

static void
propose(struct metadata_gc *g)
{
	struct gc_row rows[DONE_MAX];
	uint8_t cmd[FS_HEAD_LEN + 13 * DONE_MAX];
	struct metadata *m = g->m;
	unsigned n, fresh = 0;
	int len;

	if (g->proposing || (list_empty(&g->done) && list_empty(&g->fresh)))
		return;
	put_rows(&g->fresh, rows, &fresh);
	n = fresh;
	put_rows(&g->done, rows, &n);
	len = fs_cmd_gc_done(clock_wall(m->clock), rows, n, cmd, sizeof(cmd));
	assert(len > 0);
	if (group_propose_freeing(m->group, &g->req, cmd, (size_t)len,
	    applied) != 0) {
		run_soon(g, metadata_now(m) + BUSY_PAUSE_NS);
		return;
	}
	g->proposing = true;
	for (unsigned i = 0; i < n; i++)
		list_push_back(&g->sent, list_pop_front(i < fresh ? &g->fresh :
		    &g->done));
}

/* ---- removals ---- */

void
metadata_gc_look(struct metadata *m, ino_id ino)
{
	struct metadata_gc *g = m->gc;

	if (g == NULL || g->stopped || !m->leads)
		return;
	if (g->tail - g->head == QUEUE_MAX)
		g->overflow = true;
	else
		g->queue[g->tail++ % QUEUE_MAX] = ino;
	run_soon(g, 0);
}

/* Begin the removal of @ino if it may: 0; -EAGAIN with *at when it is too early. */
static int
remove_begin(struct metadata_gc *g, ino_id ino, uint64_t *at_ns)
{
	struct metadata *m = g->m;
	int64_t delay_ns = (int64_t)(m->env.conf->metadata_gc_delay * NS_PER_MS);
	struct gc_row row;
	struct inode in;
	int64_t left_ns;

	if (map_get(&g->removes, ino) != NULL ||
	    map_get(&g->truncates, ino) != NULL ||
	    metadata_session_is_open(m, ino) ||
	    fs_inode(m->fs, ino, &in) != 0 || in.nlink != 0 ||
	    gc_get(group_table(m->group), ino, GC_REMOVE, &row) != 0)
		return 0;		/* whoever is in the way looks again */
	left_ns = row.since_ns + delay_ns - clock_wall(m->clock);
	if (left_ns > delay_ns)
		left_ns = delay_ns;	/* the wall clock was set back */
	if (left_ns > 0) {
		*at_ns = metadata_now(m) + (uint64_t)left_ns;
		return -EAGAIN;
	}
	/* Takes a truncation that nobody runs with it. */
	return begin(g, &row, &in, NULL);
}

static void
removes_run(struct metadata_gc *g)
{
	struct metadata *m = g->m;

	if (g->head != g->tail && metadata_now(m) < g->from_ns) {
		run_soon(g, g->from_ns);
		return;
	}
	for (unsigned i = 0; g->head != g->tail && g->holds == 0 &&
	    g->removes.n < REMOVES_MAX + g->done_n &&
	    g->done_n < 4 * DONE_MAX; i++) {
		uint64_t at_ns = 0;
		int rc;

		if (i == TURN_MAX) {
			run_soon(g, 0);
			return;
		}
		rc = remove_begin(g, g->queue[g->head % QUEUE_MAX], &at_ns);

		if (rc == -EAGAIN) {
			run_soon(g, at_ns);
			return;
		}
		if (rc != 0) {
			run_soon(g, metadata_now(m) + BUSY_PAUSE_NS);
			return;
		}
		g->head++;
	}
}

/* Walk rows that the queue has missed: one page, then the rest of the loop. */
static void
scan(struct metadata_gc *g)
{
	struct table *t = group_table(g->m->group);

	if (!g->scanning && g->overflow && g->head == g->tail) {
		g->overflow = false;
		g->scanning = true;
		g->scan_ino = 0;
		g->scan_kind = 0;
	}
	if (!g->scanning)
		return;
	for (unsigned i = 0; i < SCAN_PAGE; i++) {
		struct gc_row row;
		struct inode in;

		if (g->tail - g->head == QUEUE_MAX ||
		    g->truncates.n >= TRUNCATES_MAX) {
			run_soon(g, metadata_now(g->m) + BUSY_PAUSE_NS);
			return;
		}
		if (gc_next(t, g->scan_ino, g->scan_kind, &row) != 0) {
			g->scanning = false;
			return;
		}
		g->scan_ino = row.ino;
		g->scan_kind = row.kind;
		if (row.kind == GC_REMOVE) {
			if (!metadata_session_is_open(g->m, row.ino) &&
			    map_get(&g->removes, row.ino) == NULL)
				g->queue[g->tail++ % QUEUE_MAX] = row.ino;
		} else if (map_get(&g->truncates, row.ino) == NULL &&
		    map_get(&g->removes, row.ino) == NULL &&
		    fs_inode(g->m->fs, row.ino, &in) == 0 &&
		    begin(g, &row, &in, NULL) != 0) {
			g->overflow = true;
		}
	}
	run_soon(g, 0);
}

/* ---- the worker ---- */

static void
run(struct clock_defer *d)
{
	struct metadata_gc *g = container_of(d, struct metadata_gc, defer);

	if (g->stopped || !metadata_hears(g->m))
		return;			/* the next lease starts this again */
	scan(g);
	removes_run(g);
	propose(g);
}

static void
timer(struct clock_timer *t)
{
	struct metadata_gc *g = container_of(t, struct metadata_gc, timer);

	clock_defer(g->m->clock, &g->defer, run);
}

static void
run_soon(struct metadata_gc *g, uint64_t at_ns)
{
	if (at_ns <= metadata_now(g->m))
		clock_defer(g->m->clock, &g->defer, run);
	else if (g->timer.pos == 0 || g->timer.at_ns > at_ns)
		clock_timer_start(g->m->clock, &g->timer, at_ns, timer);
}

/* ---- waiting for a truncation ---- */

/* Answer those whose callers have given up: storage may be away for long, and every
 * retry of a caller comes to wait here again. */
static void
sweep(struct clock_timer *t)
{
	struct metadata_gc *g = container_of(t, struct metadata_gc, sweep_timer);
	uint64_t now = metadata_now(g->m), next = UINT64_MAX;
	struct list late;
	size_t it = 0;
	struct job *j;

	list_init(&late);
	while ((j = map_next(&g->truncates, &it, NULL)) != NULL) {
		list_for_each_safe(n, tmp, &j->waiters) {
			struct metadata_op *op =
			    list_entry(n, struct metadata_op, wait);

			if (op->req->deadline_ns <= now) {
				list_remove(&op->wait);
				list_push_back(&late, &op->wait);
			} else if (op->req->deadline_ns < next) {
				next = op->req->deadline_ns;
			}
		}
	}
	if (next != UINT64_MAX)
		sweep_at(g, next);
	release(g, &late, ERR_BUSY);
}

static void
sweep_at(struct metadata_gc *g, uint64_t at_ns)
{
	if (g->sweep_timer.pos == 0 || g->sweep_timer.at_ns > at_ns)
		clock_timer_start(g->m->clock, &g->sweep_timer, at_ns, sweep);
}

int
metadata_gc_wait(struct metadata *m, struct metadata_op *op, ino_id ino)
{
	struct metadata_gc *g = m->gc;
	struct job *j = map_get(&g->truncates, ino);
	struct gc_row row;
	struct inode in;
	int rc;

	if (g->stopped)
		return ERR_STOPPING;
	if (!m->leads)
		return ERR_NOT_LEADER;
	if (map_get(&g->removes, ino) != NULL)
		return -ESTALE;
	if (g->waiters_n >= METADATA_WAIT_MAX)
		return ERR_BUSY;
	if (j == NULL) {
		if (g->truncates.n >= TRUNCATES_MAX) {
			g->overflow = true;
			run_soon(g, 0);
			return ERR_BUSY;
		}
		if ((rc = fs_inode(m->fs, ino, &in)) != 0 ||
		    (rc = gc_get(group_table(m->group), ino, GC_TRUNCATE,
		    &row)) != 0 || (rc = begin(g, &row, &in, &j)) != 0) {
			if (rc == -ENOMEM) {
				g->overflow = true;
				return ERR_BUSY;
			}
			return rc == -ENOENT ? -ESTALE : rc;
		}
	}
	g->waiters_n++;
	list_push_back(&j->waiters, &op->wait);
	sweep_at(g, op->req->deadline_ns);
	return 0;
}

bool
metadata_gc_removing(const struct metadata *m, ino_id ino)
{
	struct gc_row row;

	/* An earlier leader may have begun it. */
	return map_get(&m->gc->removes, ino) != NULL ||
	    (gc_get(group_table(m->group), ino, GC_REMOVE, &row) == 0 &&
	    row.at != 0);
}

void
metadata_gc_hold(struct metadata *m, bool on)
{
	struct metadata_gc *g = m->gc;

	g->holds += on ? 1 : -1u;
	if (g->holds > 0 || g->stopped || !m->leads)
		return;
	g->overflow = true;		/* there may be new rows */
	run_soon(g, 0);
}

void
metadata_gc_flush_waiters(struct metadata *m, int rc)
{
	struct metadata_gc *g = m->gc;
	struct list waiters;
	size_t it = 0;
	struct job *j;

	list_init(&waiters);
	while ((j = map_next(&g->truncates, &it, NULL)) != NULL)
		list_splice_back(&waiters, &j->waiters);
	release(g, &waiters, rc);
}

/* ---- the handle ---- */

int
metadata_gc_open(struct metadata *m)
{
	struct metadata_gc *g = calloc(1, sizeof(*g));

	if (g == NULL)
		return -ENOMEM;
	g->m = m;
	map_init(&g->truncates);
	map_init(&g->removes);
	list_init(&g->fresh);
	list_init(&g->cutting);
	list_init(&g->done);
	list_init(&g->sent);
	m->gc = g;
	return 0;
}

void
metadata_gc_lead(struct metadata *m)
{
	struct metadata_gc *g = m->gc;

	g->from_ns = m->fresh ? 0 :
	    metadata_now(m) + m->env.conf->metadata_session * NS_PER_MS;
	g->overflow = true;
	run_soon(g, 0);
}

/* Nothing of ours runs any more. */
static void
halt(struct metadata_gc *g)
{
	struct metadata *m = g->m;
	struct job *j;
	size_t it = 0;

	clock_timer_stop(m->clock, &g->timer);
	clock_timer_stop(m->clock, &g->sweep_timer);
	clock_undefer(m->clock, &g->defer);
	while ((j = map_next(&g->truncates, &it, NULL)) != NULL)
		metadata_stripe_cancel(&j->stripe);
	it = 0;
	while ((j = map_next(&g->removes, &it, NULL)) != NULL)
		metadata_stripe_cancel(&j->stripe);
}

void
metadata_gc_stop(struct metadata *m)
{
	m->gc->stopped = true;
	halt(m->gc);
}

static void
free_jobs(struct metadata_gc *g)
{
	struct job *j;
	size_t it = 0;

	while ((j = map_next(&g->truncates, &it, NULL)) != NULL)
		free(j);
	it = 0;
	while ((j = map_next(&g->removes, &it, NULL)) != NULL)
		free(j);
	map_fini(&g->truncates);
	map_fini(&g->removes);
}

void
metadata_gc_depose(struct metadata *m)
{
	struct metadata_gc *g = m->gc;

	metadata_gc_flush_waiters(m, ERR_NOT_LEADER);
	halt(g);
	free_jobs(g);
	map_init(&g->truncates);
	map_init(&g->removes);
	/* A command on its way finds nobody to tell when it comes back. */
	list_init(&g->fresh);
	list_init(&g->cutting);
	list_init(&g->done);
	list_init(&g->sent);
	g->done_n = 0;
	g->head = g->tail = 0;
	g->scanning = g->overflow = false;
}

void
metadata_gc_close(struct metadata *m)
{
	struct metadata_gc *g = m->gc;

	if (g == NULL)
		return;
	metadata_gc_stop(m);
	free_jobs(g);
	free(g);
	m->gc = NULL;
}
