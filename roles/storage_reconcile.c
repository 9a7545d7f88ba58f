/* SPDX-License-Identifier: MIT */
/* storage_reconcile.c - bring all replicas of a recovering chain to the same versions.
 *
 *   QUEUED -> page by page: list all replicas -> merge (chunk/reconcile.c)
 *     ^           for each chunk that differs: fetch once, update those that lack it
 *     |       end of all lists -> tell the manager
 *     +------ any error: pause, from the beginning (what is done stays done)
 *
 * A replica answers for a chain version once it has seen it and everything it did under
 * older ones has ended: from then on its list changes by our updates only.  A few chains
 * at a time, a few chunks of each; a chain that has to pause gives up its place. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/crc32c.h"
#include "conf/err.h"
#include "roles/storage_impl.h"

#define TASKS		4u		/* chunks of one chain in work at once */
#define CALL_NS		(10 * NS_PER_S)
#define PAUSE_MIN_NS	(10 * NS_PER_MS)
#define PAUSE_MAX_NS	NS_PER_S

struct task;

struct task_call {
	struct task    *task;
	unsigned	replica;
	struct net_call call;
};

/* One chunk that differs. */
struct task {
	struct storage_reconcile *r;
	bool		busy;
	struct chunk_reconcile_plan plan;
	struct storage_whole whole;
	unsigned	tried;		/* replicas asked for the bytes, as bits */
	unsigned	source;
	unsigned	left;		/* updates not answered */
	struct chunk_read load;
	struct iovec	iov;
	struct task_call calls[ROUTING_REPLICAS_MAX];
};

struct list_call {
	struct storage_reconcile *r;
	struct net_call call;
};

struct storage_reconcile {
	struct storage_worker *w;
	struct storage_target *t;	/* NULL: stopped, waits for disk requests */
	struct list	node;		/* w->reconciles */
	struct list	in_queue;
	bool		active;		/* has one of the worker's places */
	bool		advancing, ended;
	uint32_t	version, tries;
	unsigned	asking, busy, local;	/* lists, tasks, engine requests */
	int		rc;
	uint64_t	chunks, copies;
	struct chunk_reconcile merge;
	struct msg_list_row *rows;	/* a page for each replica; while active */
	struct clock_timer pause;
	struct list_call lists[ROUTING_REPLICAS_MAX];
	struct task	tasks[TASKS];
};

static void advance(struct storage_reconcile *r);
static void release(struct storage_reconcile *r);
static void pump(struct storage_worker *w);

/* ---- one chunk ---- */

static void
task_end(struct task *task, int rc)
{
	struct storage_reconcile *r = task->r;

	if (r->t == NULL) {
		/* Stopped: the last disk request lets go. */
		if (r->local == 0)
			release(r);
		return;
	}
	if (rc != 0 && r->rc == 0)
		r->rc = rc;
	if (task->left > 0)
		return;
	mem_put(&task->whole.buf);
	task->busy = false;
	r->busy--;
	advance(r);
}

static void
update_end(struct task *task, unsigned replica, int rc)
{
	struct storage_reconcile *r = task->r;

	if (rc != 0 && r->t != NULL)
		log_warn(&r->w->env->log, "replica not updated",
		    "chain=%u version=%u replica=%u ino=%llu index=%u rc=%s",
		    r->t->v.chain, r->version, replica,
		    (unsigned long long)task->plan.id.ino, task->plan.id.index,
		    err_name(rc));
	task->left--;
	task_end(task, rc);
}

static void
update_answered(struct net_call *c, int rc)
{
	struct task_call *tc = container_of(c, struct task_call, call);

	update_end(tc->task, tc->replica, rc);
}

static void
update_here(struct storage_op *op, int rc)
{
	struct task_call *tc = op->ctx;

	tc->task->r->local--;
	update_end(tc->task, tc->replica, rc);
}

static uint8_t
update_kind(uint8_t act)
{
	return act == RECONCILE_CONFIRM ? UPDATE_CONFIRM :
	    act == RECONCILE_REMOVE ? UPDATE_REMOVE : UPDATE_REPLACE;
}

static int
update_self(struct task *task, unsigned i)
{
	struct storage_reconcile *r = task->r;
	struct storage_op *op = storage_op_get(r->w, r->t);
	int rc;

	if (op == NULL)
		return -ENOMEM;
	op->done = update_here;
	op->ctx = &task->calls[i];
	op->shift = task->whole.shift;
	op->craq.kind = CRAQ_RECONCILE;
	op->craq.id = task->plan.id;
	op->craq.chain_version = r->version;
	op->craq.update = update_kind(task->plan.act[i]);
	op->craq.epoch = task->whole.epoch;
	op->craq.version = task->plan.version;
	op->craq.deadline_ns = clock_now(r->w->clock) + CALL_NS;
	if (!task->plan.removed)
		op->craq.check = task->plan.check;
	if (op->craq.update == UPDATE_REPLACE) {
		op->len = task->whole.len;
		op->crc = task->whole.crc;
		op->data = task->whole.data;
		op->lent = task->whole.buf;
		op->dedupe = task->whole.dedupe;
		op->dedupe_n = task->whole.dedupe_n;
	}
	r->local++;
	rc = storage_op_start(op);
	if (rc != 0)
		r->local--;
	return rc;
}

static int
update_other(struct task *task, unsigned i)
{
	struct storage_reconcile *r = task->r;
	struct storage_target *t = r->t;
	struct msg_dedupe dedupe[CHUNK_DEDUPE_MAX];
	struct msg_update m = { .chain = t->v.chain,
	    .chain_version = r->version, .target = t->v.replicas[i],
	    .chunk = task->plan.id, .kind = update_kind(task->plan.act[i]),
	    .epoch = task->whole.epoch, .version = task->plan.version };
	struct net_call_opts opts = {
	    .deadline_ns = clock_now(r->w->clock) + CALL_NS };

	if (!task->plan.removed)
		m.check = task->plan.check;
	if (m.kind == UPDATE_REPLACE) {
		m.chunk_shift = task->whole.shift;
		m.len = task->whole.len;
		m.crc = task->whole.crc;
		storage_dedupe_out(dedupe, task->whole.dedupe,
		    task->whole.dedupe_n);
		m.dedupe.v = dedupe;
		m.dedupe.n = task->whole.dedupe_n;
		task->iov = (struct iovec){ task->whole.data, m.len };
		if (m.len > 0) {
			opts.send = &task->iov;
			opts.send_n = 1;
		}
	}
	return net_call_start(&task->calls[i].call, r->w->env->hub,
	    &t->v.addrs[i], MSG_update, &m, &opts, update_answered);
}

/* The bytes are here, or none are needed. */
static void
spread(struct task *task)
{
	struct storage_reconcile *r = task->r;
	int first = 0;

	task->left = 1;				/* ours, until all have begun */
	for (unsigned i = 0; i < r->merge.n; i++) {
		int rc;

		if (task->plan.act[i] == RECONCILE_NONE)
			continue;
		task->calls[i].task = task;
		task->calls[i].replica = i;
		task->left++;
		r->copies += task->plan.act[i] == RECONCILE_REPLACE;
		rc = i == r->t->v.pos ? update_self(task, i) :
		    update_other(task, i);
		if (rc != 0) {
			task->left--;
			if (first == 0)
				first = rc;
		}
	}
	task->left--;
	task_end(task, first);
}

static void gather(struct task *task, int rc);

static void
have_read(struct chunk_read *cr, int rc)
{
	struct task *task = container_of(cr, struct task, load);
	struct storage_whole *wh = &task->whole;

	task->r->local--;
	if (rc == 0) {
		wh->buf = cr->buf;
		wh->data = (uint8_t *)(uintptr_t)cr->data;
		wh->crc = cr->crc;
		if (cr->got != wh->len)
			rc = ERR_CORRUPT;
	}
	if (rc == 0 && task->r->t != NULL)
		spread(task);
	else
		gather(task, rc);
}

static int
read_self(struct task *task)
{
	struct storage_target *t = task->r->t;
	struct storage_whole *wh = &task->whole;
	uint64_t version = task->plan.holder_version;
	struct chunk_info info;
	bool pending;
	int rc = chunk_engine_info(t->disk->engine, t->v.target, task->plan.id,
	    &info);

	if (rc != 0)
		return rc;
	pending = info.pending == version;
	if (!pending && info.committed != version)
		return -ENOENT;
	*wh = (struct storage_whole){ .version = version, .shift = info.shift,
	    .len = pending ? info.pending_len : info.committed_len,
	    .epoch = pending ? info.pending_epoch : info.committed_epoch };
	for (uint32_t i = 0; i < info.dedupe_n; i++)
		if (info.dedupe[i].version <= version)
			wh->dedupe[wh->dedupe_n++] = info.dedupe[i];
	task->load = (struct chunk_read){ .target = t->v.target,
	    .id = task->plan.id, .version = version, .len = wh->len };
	task->r->local++;
	if (wh->len > 0)
		chunk_read_start(&task->load, t->disk->engine, have_read);
	else
		have_read(&task->load, 0);
	return 0;
}

static void
have_fetched(struct net_call *c, int rc)
{
	struct task *task = container_of(c, struct task_call, call)->task;
	const struct msg_fetch_rep *rep = c->rep;
	struct storage_whole *wh = &task->whole;

	if (rc == 0) {
		if (rep->version != task->plan.holder_version ||
		    rep->len != task->plan.len || rep->len != c->rep_bulk ||
		    rep->chunk_shift < LAYOUT_SHIFT_MIN ||
		    rep->chunk_shift > LAYOUT_SHIFT_MAX ||
		    crc32c(0, wh->data, rep->len) != rep->crc) {
			rc = ERR_PAYLOAD_CRC;
		} else {
			wh->len = rep->len;
			wh->crc = rep->crc;
			wh->epoch = rep->epoch;
			wh->shift = rep->chunk_shift;
			storage_dedupe_in(wh->dedupe, &wh->dedupe_n,
			    &rep->dedupe);
		}
	}
	if (rc == 0)
		spread(task);
	else
		gather(task, rc);
}

static int
read_other(struct task *task, unsigned i)
{
	struct storage_reconcile *r = task->r;
	struct storage_whole *wh = &task->whole;
	struct msg_fetch m = { .chain = r->t->v.chain,
	    .chain_version = r->version, .target = r->t->v.replicas[i],
	    .chunk = task->plan.id, .version = task->plan.holder_version };
	struct net_call_opts opts = {
	    .deadline_ns = clock_now(r->w->clock) + CALL_NS };
	int rc;

	*wh = (struct storage_whole){ .version = m.version };
	if (task->plan.len > 0) {
		if ((rc = mem_get(r->w->pool, task->plan.len, &wh->buf)) != 0)
			return rc;
		wh->data = wh->buf.p;
		task->iov = (struct iovec){ wh->data, task->plan.len };
		opts.recv = &task->iov;
		opts.recv_n = 1;
	}
	task->calls[i].task = task;
	task->calls[i].replica = i;
	return net_call_start(&task->calls[i].call, r->w->env->hub,
	    &r->t->v.addrs[i], MSG_fetch, &m, &opts, have_fetched);
}

/* Get the bytes from the next replica that has them; @rc: how the last one failed. */
static void
gather(struct task *task, int rc)
{
	struct storage_reconcile *r = task->r;

	mem_put(&task->whole.buf);
	while (r->t != NULL) {
		unsigned i = task->plan.holder;

		if (task->tried != 0) {
			for (i = 0; i < r->merge.n; i++)
				if ((task->tried & 1u << i) == 0 &&
				    !task->plan.conflict &&
				    task->plan.act[i] != RECONCILE_REPLACE)
					break;
			log_warn(&r->w->env->log, "replica not readable",
			    "chain=%u replica=%u ino=%llu index=%u rc=%s",
			    r->t->v.chain, task->source,
			    (unsigned long long)task->plan.id.ino,
			    task->plan.id.index, err_name(rc));
		}
		if (i == r->merge.n)
			break;
		task->tried |= 1u << i;
		task->source = i;
		rc = i == r->t->v.pos ? read_self(task) : read_other(task, i);
		if (rc == 0)
			return;
		mem_put(&task->whole.buf);
	}
	task_end(task, rc != 0 ? rc : ERR_STALE_CHAIN);
}

static void
task_start(struct storage_reconcile *r, const struct chunk_reconcile_plan *plan)
{
	struct task *task = r->tasks;
	bool bytes = false;

	while (task->busy)
		task++;
	assert(task < r->tasks + TASKS);
	task->r = r;
	task->busy = true;
	task->plan = *plan;
	task->whole = (struct storage_whole){ 0 };
	task->tried = 0;
	task->left = 0;
	r->busy++;
	r->chunks++;
	if (plan->conflict)
		log_error(&r->w->env->log, "replicas differ in one version",
		    "chain=%u ino=%llu index=%u version=%llu taken=%u",
		    r->t->v.chain, (unsigned long long)plan->id.ino,
		    plan->id.index, (unsigned long long)plan->holder_version,
		    plan->holder);
	for (unsigned i = 0; i < r->merge.n; i++)
		bytes |= plan->act[i] == RECONCILE_REPLACE;
	if (bytes)
		gather(task, 0);
	else
		spread(task);
}

/* ---- the chain ---- */

static void
release(struct storage_reconcile *r)
{
	struct storage_worker *w = r->w;

	list_remove(&r->node);
	list_remove(&r->in_queue);
	clock_timer_stop(w->clock, &r->pause);
	if (r->active)
		w->reconciling--;
	for (unsigned i = 0; i < TASKS; i++)
		mem_put(&r->tasks[i].whole.buf);
	free(r->rows);
	free(r);
}

static void
pause_over(struct clock_timer *timer)
{
	struct storage_reconcile *r = container_of(timer,
	    struct storage_reconcile, pause);

	list_push_back(&r->w->queue, &r->in_queue);
	pump(r->w);
}

static void
give_up(struct storage_reconcile *r)
{
	uint64_t ns = PAUSE_MIN_NS << (r->tries < 7 ? r->tries : 7);
	struct storage_worker *w = r->w;

	if (ns > PAUSE_MAX_NS)
		ns = PAUSE_MAX_NS;
	if (r->tries++ % 8 == 7)
		log_warn(&w->env->log, "chain not reconciled yet",
		    "chain=%u version=%u tries=%u rc=%s", r->t->v.chain,
		    r->version, r->tries, err_name(r->rc));
	if (err_next(r->rc) == ERR_NEXT_REFRESH)
		storage_refresh(w);
	free(r->rows);
	r->rows = NULL;
	r->active = false;
	w->reconciling--;
	clock_timer_start(w->clock, &r->pause, clock_now(w->clock) + ns,
	    pause_over);
	pump(w);
}

static void
take_page(struct storage_reconcile *r, unsigned i,
    const struct msg_list_row *rows, uint32_t n, bool more)
{
	struct msg_list_row *page = r->rows + (size_t)i * STORAGE_LIST_PAGE;
	int rc = n > STORAGE_LIST_PAGE ? ERR_BAD_MESSAGE : 0;

	if (rc == 0) {
		if (n > 0 && page != rows)
			memcpy(page, rows, n * sizeof(*rows));
		rc = chunk_reconcile_page(&r->merge, i, page, n, more);
	}
	if (rc != 0 && r->rc == 0)
		r->rc = rc;
}

static void
listed(struct net_call *c, int rc)
{
	struct list_call *lc = container_of(c, struct list_call, call);
	const struct msg_list_rep *rep = c->rep;
	struct storage_reconcile *r = lc->r;

	r->asking--;
	if (rc == 0)
		take_page(r, (unsigned)(lc - r->lists), rep->rows.v,
		    rep->rows.n, rep->more != 0);
	else if (r->rc == 0)
		r->rc = rc;
	advance(r);
}

/* The next page of replica @i. */
static void
ask(struct storage_reconcile *r, unsigned i)
{
	struct storage_target *t = r->t;
	struct chunk_reconcile_list *l = &r->merge.lists[i];
	struct msg_list m = { .chain = t->v.chain, .chain_version = r->version,
	    .target = t->v.replicas[i], .start = !l->started,
	    .after = l->last, .max = STORAGE_LIST_PAGE };
	struct net_call_opts opts = {
	    .deadline_ns = clock_now(r->w->clock) + CALL_NS };
	int rc;

	if (i == t->v.pos) {
		struct msg_list_row *page = r->rows +
		    (size_t)i * STORAGE_LIST_PAGE;
		uint32_t n = 0;
		bool more = false;

		rc = t->craq.stale != 0 ? ERR_BUSY : storage_list_rows(t, l->started ?
		    &l->last : NULL, STORAGE_LIST_PAGE, page, &n, &more);
		if (rc == 0)
			take_page(r, i, page, n, more);
	} else {
		r->lists[i].r = r;
		rc = net_call_start(&r->lists[i].call, r->w->env->hub,
		    &t->v.addrs[i], MSG_list, &m, &opts, listed);
		if (rc == 0)
			r->asking++;
	}
	if (rc != 0 && r->rc == 0)
		r->rc = rc;
}

static void
done(struct storage_reconcile *r)
{
	struct storage_target *t = r->t;
	struct storage_worker *w = r->w;

	r->rc = storage_ready_start(w, t->v.chain, r->version);
	if (r->rc != 0) {
		give_up(r);
		return;
	}
	log_info(&w->env->log, "chain reconciled",
	    "chain=%u version=%u chunks=%llu copies=%llu", t->v.chain,
	    r->version, (unsigned long long)r->chunks,
	    (unsigned long long)r->copies);
	stat_add(&w->stat.reconciled, 1);
	stat_add(&w->stat.reconciled_chunks, r->chunks);
	stat_add(&w->stat.copied_chunks, r->copies);
	t->reconcile = NULL;
	t->reconciled = true;
	release(r);
	pump(w);
}

static void
advance(struct storage_reconcile *r)
{
	struct chunk_reconcile_plan plan;

	assert(r->t != NULL);
	if (r->advancing)
		return;
	r->advancing = true;
	while (r->rc == 0 && !r->ended && r->asking == 0 && r->busy < TASKS) {
		switch (chunk_reconcile_next(&r->merge, &plan)) {
		case RECONCILE_PAGE:
			for (unsigned i = 0; i < r->merge.n; i++) {
				struct chunk_reconcile_list *l =
				    &r->merge.lists[i];

				if (l->at == l->n && (!l->started || l->more))
					ask(r, i);
			}
			break;
		case RECONCILE_CHUNK:
			task_start(r, &plan);
			break;
		case RECONCILE_END:
			r->ended = true;
			break;
		}
	}
	r->advancing = false;
	if (r->asking > 0 || r->busy > 0)
		return;
	if (r->rc != 0)
		give_up(r);
	else if (r->ended)
		done(r);
}

/* Let waiting chains begin while there are places. */
static void
pump(struct storage_worker *w)
{
	struct list *it;

	while (w->reconciling < STORAGE_RECONCILES &&
	    (it = list_pop_front(&w->queue)) != NULL) {
		struct storage_reconcile *r = list_entry(it,
		    struct storage_reconcile, in_queue);

		w->reconciling++;
		r->active = true;
		r->ended = false;
		r->rc = 0;
		r->chunks = 0;
		r->copies = 0;
		chunk_reconcile_init(&r->merge, r->t->v.n);
		r->rows = malloc((size_t)r->t->v.n * STORAGE_LIST_PAGE *
		    sizeof(*r->rows));
		if (r->rows == NULL)
			r->rc = -ENOMEM;
		else if (!storage_lease(w))
			r->rc = ERR_NO_LEASE;
		else if (atomic_load(&r->t->disk->failed))
			r->rc = -EIO;
		advance(r);
	}
}

static void
retry_start(struct clock_timer *timer)
{
	pause_over(timer);
}

void
storage_reconcile_start(struct storage_target *t)
{
	struct storage_worker *w = t->w;
	struct storage_reconcile *r;

	assert(t->reconcile == NULL);
	if ((r = calloc(1, sizeof(*r))) == NULL) {
		log_error(&w->env->log, "no memory to reconcile", "chain=%u",
		    t->v.chain);
		return;			/* the next view tries again */
	}
	r->w = w;
	r->t = t;
	r->version = t->v.version;
	list_push_back(&w->reconciles, &r->node);
	list_init(&r->in_queue);
	t->reconcile = r;
	/* Not from within the taking of a view. */
	clock_timer_start(w->clock, &r->pause, clock_now(w->clock), retry_start);
}

void
storage_reconcile_stop(struct storage_target *t)
{
	struct storage_reconcile *r = t->reconcile;

	if (r == NULL)
		return;
	t->reconcile = NULL;
	r->t = NULL;
	for (unsigned i = 0; i < ROUTING_REPLICAS_MAX; i++)
		net_call_cancel(&r->lists[i].call);
	r->asking = 0;
	for (unsigned k = 0; k < TASKS; k++)
		for (unsigned i = 0; i < ROUTING_REPLICAS_MAX; i++)
			net_call_cancel(&r->tasks[k].calls[i].call);
	list_remove(&r->in_queue);
	clock_timer_stop(r->w->clock, &r->pause);
	if (r->active) {
		r->active = false;
		r->w->reconciling--;
	}
	if (r->local == 0)
		release(r);
}

void
storage_reconciles_close(struct storage_worker *w)
{
	while (!list_empty(&w->reconciles))
		release(list_entry(w->reconciles.next, struct storage_reconcile,
		    node));
}
