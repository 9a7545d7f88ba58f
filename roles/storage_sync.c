/* SPDX-License-Identifier: MIT */
/* storage_sync.c - the last serving replica brings the one that syncs behind it up to date.
 *
 *   QUEUED -> page by page: their list, ours -> merge (chunk/resync.c)
 *     ^         for each chunk that differs: a CRAQ_SYNC operation, some at a time
 *     |       end of both lists, all operations done -> tell the manager
 *     +------ any error: pause, then on from the page where it was
 *
 * A replica that does not take what it is sent, as its disk is full or it cannot be reached,
 * would make every write of the chain wait: then the manager is told to go on without it.
 *
 * Writes go to the syncing replica all the while (whole chunks), so what was compared once
 * stays equal.  A new chain version ends this; the next one begins again, and only compares
 * what was done.  Few chains at a time, a few chunks of each, at the pace of storage_pace.c
 * and within a quarter of the memory for payloads: whatever happens here, clients go on. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "roles/storage_impl.h"

#define COPIES		8u		/* chunks of one chain in work at once */
#define CALL_NS		(5 * NS_PER_S)
#define COPY_NS		(30 * NS_PER_S)
#define PAUSE_MIN_NS	(5 * NS_PER_MS)
#define PAUSE_MAX_NS	(2 * NS_PER_S)
#define LOG_NS		(30 * NS_PER_S)	/* between two lines about one that cannot go on */
#define REFUSED_NS	(3 * NS_PER_S / 4)	/* a chunk may wait for the replica, */
#define REFUSED_RATE	(16u << 20)	/* and a second more for so many bytes */
#define WATCH_NS	(NS_PER_S / 4)
#define MEMORY_NS	(2 * NS_PER_MS)	/* ask again whether there is memory */

struct copy {
	struct storage_sync *s;
	struct chunk_id	id;
	uint32_t	bytes;
	bool		busy, repair;
};

struct storage_sync {
	struct storage_worker *w;
	struct storage_target *t;	/* NULL: stopped, waits for its operations */
	struct list	node;		/* w->syncs */
	struct list	in_queue;
	bool		active;		/* has one of the worker's places */
	bool		advancing, ended, asking, differs;
	bool		refused;	/* the manager is being told */
	uint32_t	version;
	target_id	target;		/* that is brought up to date */
	struct net_addr	addr;
	unsigned	busy, tries;
	int		rc;
	struct chunk_resync merge;
	struct msg_list_row *rows[2];	/* pages; while active */
	struct chunk_id next;		/* to be copied, waits for its turn */
	uint32_t	next_bytes;
	struct chunk_id safe;		/* all up to it is equal, if any is */
	bool		any_safe;
	uint64_t	compared, compared_bytes, copied, copied_bytes;
	uint64_t	began_ns, logged_ns;
	uint64_t	silent_ns;	/* since when no list was answered; 0: it was */
	struct net_call	list;
	struct clock_timer timer, watch;
	struct copy	copies[COPIES];
};

static void advance(struct storage_sync *s);
static void pump(struct storage_worker *w);

static void
release(struct storage_sync *s)
{
	list_remove(&s->node);
	list_remove(&s->in_queue);
	net_call_cancel(&s->list);
	clock_timer_stop(s->w->clock, &s->timer);
	clock_timer_stop(s->w->clock, &s->watch);
	free(s->rows[0]);
	free(s->rows[1]);
	free(s);
}

static void
place_leave(struct storage_sync *s)
{
	if (s->active)
		s->w->syncing--;
	s->active = false;
	stat_set(&s->w->stat.syncing, s->w->syncing);
}

/* ---- one chunk ---- */

static void copied(struct storage_op *op, int rc);

/* 0, or why it did not begin. */
static int
copy_op(struct copy *c)
{
	struct storage_sync *s = c->s;
	struct storage_op *op = storage_op_get(s->w, s->t);

	if (op == NULL)
		return -ENOMEM;
	op->done = copied;
	op->ctx = c;
	op->shift = LAYOUT_SHIFT_MIN;
	op->craq.kind = c->repair ? CRAQ_REPAIR : CRAQ_SYNC;
	op->craq.id = c->id;
	op->craq.chain_version = s->version;
	op->craq.deadline_ns = clock_now(s->w->clock) + COPY_NS;
	return storage_op_start(op);
}

static void
copy_end(struct copy *c, int rc)
{
	struct storage_sync *s = c->s;

	c->busy = false;
	s->busy--;
	s->w->sync_bytes -= c->bytes;
	if (s->t == NULL) {
		if (s->busy == 0)
			release(s);
		return;
	}
	if (rc == 0 && !c->repair) {
		s->copied++;
		s->copied_bytes += c->bytes;
		stat_add(&s->w->stat.copied_chunks, 1);
		stat_add(&s->w->stat.copied_bytes, c->bytes);
	} else if (s->rc == 0) {
		s->rc = rc != 0 ? rc : ERR_BUSY;	/* repaired: once more */
	}
	advance(s);
}

static void
copied(struct storage_op *op, int rc)
{
	struct copy *c = op->ctx;
	struct storage_sync *s = c->s;

	/* Our own bytes are damaged: another replica that serves may have them. */
	if (rc == ERR_CORRUPT && !c->repair && s->t != NULL && s->t->v.serving_n > 1) {
		c->repair = true;
		if (copy_op(c) == 0)
			return;
	}
	copy_end(c, rc);
}

static void
copy_start(struct storage_sync *s)
{
	struct copy *c = s->copies;
	int rc;

	while (c->busy)
		c++;
	assert(c < s->copies + COPIES);
	*c = (struct copy){ .s = s, .id = s->next, .bytes = s->next_bytes,
	    .busy = true };
	s->busy++;
	s->w->sync_bytes += c->bytes;
	if ((rc = copy_op(c)) != 0)
		copy_end(c, rc);
}

/* ---- lists ---- */

static void
take_page(struct storage_sync *s, unsigned i, uint32_t n, bool more)
{
	int rc = chunk_resync_page(&s->merge, i, s->rows[i], n, more);

	if (rc != 0 && s->rc == 0)
		s->rc = rc;
}

static void
listed(struct net_call *c, int rc)
{
	struct storage_sync *s = container_of(c, struct storage_sync, list);
	const struct msg_list_rep *rep = c->rep;

	s->asking = false;
	storage_apart_answered(s->t, rc);
	if (rc == 0 && rep->rows.n > STORAGE_LIST_PAGE)
		rc = ERR_BAD_MESSAGE;
	if (rc == 0) {
		s->silent_ns = 0;
		if (rep->rows.n > 0)
			memcpy(s->rows[RESYNC_THEIRS], rep->rows.v,
			    rep->rows.n * sizeof(*rep->rows.v));
		take_page(s, RESYNC_THEIRS, rep->rows.n, rep->more != 0);
	} else if (s->rc == 0) {
		s->rc = rc;
	}
	if (rc != 0)
		storage_sync_refused(s->t, rc, s->silent_ns);
	advance(s);
}

/* The pages that are wanted.  Everything before them is equal by now. */
static void
pages(struct storage_sync *s)
{
	struct storage_target *t = s->t;
	struct chunk_resync_list *ours = &s->merge.lists[RESYNC_OURS];
	struct chunk_resync_list *theirs = &s->merge.lists[RESYNC_THEIRS];
	int rc = 0;

	if (s->merge.any && (!s->any_safe ||
	    chunk_id_cmp(s->safe, s->merge.done) < 0)) {
		s->safe = s->merge.done;
		s->any_safe = true;
		s->tries = 0;
	}
	if (chunk_resync_wants(&s->merge, RESYNC_OURS)) {
		uint32_t n = 0;
		bool more = false;

		rc = storage_list_rows(t, ours->from_start ? NULL : &ours->last,
		    STORAGE_LIST_PAGE, true, s->rows[RESYNC_OURS], &n, &more);
		if (rc == 0)
			take_page(s, RESYNC_OURS, n, more);
	}
	if (rc == 0 && chunk_resync_wants(&s->merge, RESYNC_THEIRS)) {
		struct msg_list m = { .chain = t->v.chain,
		    .chain_version = s->version, .target = s->target,
		    .start = theirs->from_start, .after = theirs->last,
		    .max = STORAGE_LIST_PAGE };
		struct net_call_opts opts = {
		    .deadline_ns = clock_now(s->w->clock) + CALL_NS };

		if (s->silent_ns == 0)
			s->silent_ns = clock_now(s->w->clock);
		rc = net_call_start(&s->list, s->w->env->hub, &s->addr, MSG_list, &m,
		    &opts, listed);
		s->asking = rc == 0;
		storage_apart_asked(t);
	}
	if (rc != 0 && s->rc == 0)
		s->rc = rc;
}

/* ---- the replica ---- */

static void
queue_again(struct clock_timer *timer)
{
	struct storage_sync *s = container_of(timer, struct storage_sync, timer);

	list_push_back(&s->w->sync_queue, &s->in_queue);
	pump(s->w);
}

static void
give_up(struct storage_sync *s)
{
	struct storage_worker *w = s->w;
	uint64_t now = clock_now(w->clock);
	uint64_t ns = PAUSE_MIN_NS << (s->tries < 9 ? s->tries : 9);

	s->tries++;
	if (ns > PAUSE_MAX_NS)
		ns = PAUSE_MAX_NS;
	if (s->tries > 6 && (s->logged_ns == 0 || now - s->logged_ns >= LOG_NS)) {
		log_warn(&w->env->log, "replica not up to date yet",
		    "chain=%u version=%u target=%u compared=%llu tries=%u rc=%s",
		    s->t->v.chain, s->version, s->target,
		    (unsigned long long)s->compared, s->tries, err_name(s->rc));
		s->logged_ns = now;
	}
	if (err_next(s->rc) == ERR_NEXT_REFRESH && s->rc != ERR_CHAIN_RECOVERING)
		storage_refresh(w);
	for (unsigned i = 0; i < 2; i++) {
		free(s->rows[i]);
		s->rows[i] = NULL;
	}
	place_leave(s);
	clock_timer_start(w->clock, &s->timer, now + ns, queue_again);
	pump(w);
}

static void
done(struct storage_sync *s)
{
	struct storage_target *t = s->t;
	struct storage_worker *w = s->w;

	if (s->refused) {		/* this version ends soon */
		give_up(s);
		return;
	}
	s->rc = storage_synced(w, t->v.chain, s->version, s->target, 0);
	if (s->rc != 0) {
		give_up(s);
		return;
	}
	chunk_craq_hand(&t->craq);
	log_info(&w->env->log, "replica is up to date",
	    "chain=%u version=%u target=%u compared=%llu copied=%llu bytes=%llu ms=%llu",
	    t->v.chain, s->version, s->target, (unsigned long long)s->compared,
	    (unsigned long long)s->copied, (unsigned long long)s->copied_bytes,
	    (unsigned long long)((clock_now(w->clock) - s->began_ns) / NS_PER_MS));
	stat_add(&w->stat.synced, 1);
	place_leave(s);
	t->sync = NULL;
	release(s);
	pump(w);
}

static void
timer_over(struct clock_timer *timer)
{
	advance(container_of(timer, struct storage_sync, timer));
}

/* The chunk at hand may be copied now; else the timer has been set. */
static bool
may_copy(struct storage_sync *s)
{
	struct storage_worker *w = s->w;
	uint64_t max = w->env->conf->storage_memory / 4, at;

	if (w->sync_bytes > 0 && w->sync_bytes + s->next_bytes > max)
		at = clock_now(w->clock) + MEMORY_NS;
	else
		at = storage_pace_wait(w, s->next_bytes);
	if (at == 0)
		return true;
	clock_timer_start(w->clock, &s->timer, at, timer_over);
	return false;
}

static void
compare(struct storage_sync *s)
{
	const struct msg_list_row *ours;
	enum chunk_resync_next next = chunk_resync_next(&s->merge, &s->next, &ours);

	switch (next) {
	case RESYNC_PAGE:
		pages(s);
		return;
	case RESYNC_END:
		s->ended = true;
		return;
	case RESYNC_SAME:
	case RESYNC_DIFFERS:
		break;
	}
	s->compared++;
	stat_add(&s->w->stat.compared_chunks, 1);
	s->next_bytes = ours != NULL && ours->committed != 0 ? ours->len : 0;
	s->compared_bytes += s->next_bytes;
	s->differs = next == RESYNC_DIFFERS;
}

static void
advance(struct storage_sync *s)
{
	assert(s->t != NULL);
	if (s->advancing || !s->active)
		return;
	s->advancing = true;
	clock_timer_stop(s->w->clock, &s->timer);
	while (s->rc == 0 && !s->ended && !s->asking && s->busy < COPIES) {
		/* A page begins when all before it is equal: the place to go on from. */
		if (!s->differs) {
			if (s->busy > 0 && (chunk_resync_wants(&s->merge,
			    RESYNC_OURS) || chunk_resync_wants(&s->merge,
			    RESYNC_THEIRS)))
				break;
			compare(s);
			continue;
		}
		if (!may_copy(s))
			break;
		s->differs = false;
		copy_start(s);
	}
	s->advancing = false;
	if (s->asking || s->busy > 0 || s->timer.pos != 0)
		return;
	if (s->rc != 0)
		give_up(s);
	else if (s->ended)
		done(s);
}

static void
begin(struct storage_sync *s)
{
	struct storage_worker *w = s->w;

	w->syncing++;
	s->active = true;
	stat_set(&w->stat.syncing, w->syncing);
	s->ended = s->differs = false;
	s->rc = 0;
	chunk_resync_init(&s->merge, s->any_safe ? &s->safe : NULL);
	for (unsigned i = 0; i < 2; i++) {
		s->rows[i] = malloc(STORAGE_LIST_PAGE * sizeof(*s->rows[i]));
		if (s->rows[i] == NULL)
			s->rc = -ENOMEM;
	}
	if (s->rc == 0 && !storage_lease(w))
		s->rc = ERR_NO_LEASE;
	else if (s->rc == 0 && atomic_load(&s->t->disk->failed))
		s->rc = -EIO;
	advance(s);
}

/* Let waiting ones begin while there are places. */
static void
pump(struct storage_worker *w)
{
	struct list *it;

	while (w->syncing < STORAGE_SYNCS &&
	    (it = list_pop_front(&w->sync_queue)) != NULL)
		begin(list_entry(it, struct storage_sync, in_queue));
}

/* Who does not answer at all has not refused either. */
static void
watch(struct clock_timer *timer)
{
	struct storage_sync *s = container_of(timer, struct storage_sync, watch);
	uint64_t now = clock_now(s->w->clock);

	list_for_each(it, &s->t->attempts) {
		const struct storage_op *op = list_entry(it, struct storage_op,
		    in_attempts);
		uint64_t bytes = op->iov.iov_len;

		if (op->craq.chain_version == s->version && now - op->forward_ns >
		    bytes * NS_PER_S / REFUSED_RATE)
			storage_sync_refused(s->t, -ETIMEDOUT, op->forward_ns +
			    bytes * NS_PER_S / REFUSED_RATE);
	}
	clock_timer_start(s->w->clock, &s->watch, now + WATCH_NS, watch);
}

void
storage_sync_start(struct storage_target *t)
{
	struct storage_worker *w = t->w;
	struct storage_sync *s;

	assert(t->sync == NULL && t->v.active_n == t->v.serving_n + 1u);
	if ((s = calloc(1, sizeof(*s))) == NULL) {
		log_error(&w->env->log, "no memory to bring a replica up to date",
		    "chain=%u", t->v.chain);
		return;			/* the next chain version tries again */
	}
	s->w = w;
	s->t = t;
	s->version = t->v.version;
	s->target = t->v.replicas[t->v.serving_n];
	s->addr = t->v.addrs[t->v.serving_n];
	s->began_ns = clock_now(w->clock);
	list_push_back(&w->syncs, &s->node);
	list_init(&s->in_queue);
	t->sync = s;
	clock_timer_start(w->clock, &s->watch, s->began_ns + WATCH_NS, watch);
	/* Not from within the taking of effects. */
	clock_timer_start(w->clock, &s->timer, s->began_ns, queue_again);
}

/* No space is no space; anything else may pass. */
void
storage_sync_refused(struct storage_target *t, int rc, uint64_t since_ns)
{
	struct storage_sync *s = t->sync;
	struct storage_worker *w = t->w;

	if (s == NULL || s->refused || (rc != -ENOSPC &&
	    clock_now(w->clock) - since_ns < REFUSED_NS) || !storage_lease(w))
		return;
	if (storage_synced(w, t->v.chain, s->version, s->target, rc) != 0)
		return;				/* the next attempt tells it */
	s->refused = true;
	log_warn(&w->env->log, "replica cannot be brought up to date",
	    "chain=%u version=%u target=%u rc=%s", t->v.chain, s->version, s->target,
	    err_name(rc));
}

void
storage_sync_stop(struct storage_target *t)
{
	struct storage_sync *s = t->sync;
	struct storage_worker *w = t->w;

	if (s == NULL)
		return;
	t->sync = NULL;
	s->t = NULL;
	clock_timer_stop(s->w->clock, &s->watch);
	net_call_cancel(&s->list);
	list_remove(&s->in_queue);
	clock_timer_stop(s->w->clock, &s->timer);
	place_leave(s);
	if (s->busy == 0)
		release(s);
	if (!w->stopping)
		pump(w);
}

unsigned
storage_sync_rows(const struct storage_worker *w, struct msg_sync_status *rows,
    unsigned max)
{
	uint64_t now = clock_now(w->clock);
	unsigned n = 0;

	list_for_each(it, &w->syncs) {
		const struct storage_sync *s = list_entry(it, struct storage_sync, node);
		uint64_t chunks, bytes;

		if (s->t == NULL)
			continue;
		if (n == max)
			break;
		chunk_engine_count(s->t->disk->engine, s->t->v.target, &chunks, &bytes);
		rows[n++] = (struct msg_sync_status){ .chain = s->t->v.chain,
		    .target = s->target, .done = s->compared,
		    .total = chunks > s->compared ? chunks : s->compared,
		    .copied = s->copied, .bytes = s->copied_bytes,
		    .bytes_left = bytes > s->compared_bytes ?
			bytes - s->compared_bytes : 0,
		    .ms = (now - s->began_ns) / NS_PER_MS };
	}
	return n;
}

struct net_call *
storage_sync_call(struct storage_sync *s)
{
	return &s->list;
}

void
storage_syncs_close(struct storage_worker *w)
{
	while (!list_empty(&w->syncs))
		release(list_entry(w->syncs.next, struct storage_sync, node));
}
