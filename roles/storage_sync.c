/* SPDX-License-Identifier: MIT */
/* storage_sync.c - the last serving replica brings the one that syncs behind it up to date.
 *
 *   QUEUED -> page by page: their list, ours -> merge (chunk/resync.c) -> what differs: a queue
 *     ^       each chunk in it: a CRAQ_SYNC operation, some at a time; one that fails goes
 *     |	 to the end of it
 *     |       end of both lists, nothing in the queue -> tell the manager
 *     +------ nothing but errors: pause, then on from where it was
 *
 * Listing runs ahead of copying, so that it is known early how much there is to do.  Once the
 * queue is full, the rest of the lists is only counted, and read again from there later.  One
 * page of ours is read in a turn of the loop: theirs may have ended long before.
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

#define COPIES		32u		/* chunks of one chain in work at once */
#define QUEUE		1024u		/* chunks that are known to differ */
#define REPAIRS		3u		/* of a chunk, before it goes to the end of the queue */
#define CHUNK_COST	(32u << 10)	/* bytes that take as long as a chunk does */
#define LOOKS		3u	/* seconds that speed is taken over: a cycle of the pace */
#define CALL_NS		(5 * NS_PER_S)
#define COPY_NS		(30 * NS_PER_S)
#define PAUSE_MIN_NS	(5 * NS_PER_MS)
#define PAUSE_MAX_NS	(2 * NS_PER_S)
#define LOG_NS		(30 * NS_PER_S)	/* between two lines about one that cannot go on */
#define REFUSED_NS	(3 * NS_PER_S / 4)	/* a chunk may wait for the replica, */
#define REFUSED_RATE	(16u << 20)	/* and a second more for so many bytes */
#define PATIENT_NS	(4 * NS_PER_S)	/* a copy that no write waits for */
#define WATCH_NS	(NS_PER_S / 4)
#define TURN_NS		NS_PER_MS	/* ask again whose turn it is */
#define MEMORY_NS	(2 * NS_PER_MS)	/* ask again whether there is memory */

struct item {
	struct chunk_id	id;
	uint32_t	bytes;
};

struct copy {
	struct storage_sync *s;
	struct item	what;
	bool		busy;
	bool		repair;		/* ours is damaged: make it whole first */
	bool		anyhow;		/* that cannot be */
	unsigned	repairs;	/* begun */
};

struct storage_sync {
	struct storage_worker *w;
	struct storage_target *t;	/* NULL: stopped, waits for its operations */
	struct list	node;		/* w->syncs */
	struct list	in_queue;
	bool		active;		/* has one of the worker's places */
	bool		advancing, asking;
	bool		refused;	/* the manager is being told */
	uint32_t	version;
	target_id	target;		/* that is brought up to date */
	struct net_addr	addr;
	unsigned	busy, tries;
	unsigned	failed;		/* copies, since one was made */
	int		rc;
	struct chunk_resync merge;
	struct msg_list_row *rows[2];	/* pages; while active and listing */
	bool		listed;		/* as far as it goes in this pass */
	bool		behind;		/* chunks after @resume are not in the queue */
	struct chunk_id	resume;
	unsigned	pass;
	struct item    *queue;		/* a ring of QUEUE, with room for what is in work */
	unsigned	queue_at, queue_n;
	uint64_t	compared, compared_bytes;	/* in the first pass */
	uint64_t	differ, differ_bytes;		/* of them */
	uint64_t	copied, copied_bytes;
	struct look {
		uint64_t ns, cost, bytes;		/* a time, sums then */
	} looks[LOOKS];					/* a second apart */
	unsigned	look_n;				/* of all times */
	uint64_t	began_ns, logged_ns;
	uint64_t	spoils_ns;	/* when it was told that repairs do not last */
	uint64_t	silent_ns;	/* since when no list was answered; 0: it was */
	struct net_call	list;
	struct clock_timer timer, watch;
	struct clock_timer next_page;	/* runs: one of ours was read in this turn */
	struct copy	copies[COPIES];
};

static void advance(struct storage_sync *s);
static void pump(struct storage_worker *w);

static void
rows_free(struct storage_sync *s)
{
	for (unsigned i = 0; i < 2; i++) {
		free(s->rows[i]);
		s->rows[i] = NULL;
	}
}

static void
release(struct storage_sync *s)
{
	list_remove(&s->node);
	list_remove(&s->in_queue);
	net_call_cancel(&s->list);
	clock_timer_stop(s->w->clock, &s->timer);
	clock_timer_stop(s->w->clock, &s->watch);
	clock_timer_stop(s->w->clock, &s->next_page);
	rows_free(s);
	free(s->queue);
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
	op->anyhow = c->anyhow;
	op->craq.kind = c->repair ? CRAQ_REPAIR : CRAQ_SYNC;
	op->craq.id = c->what.id;
	op->craq.chain_version = s->version;
	op->craq.deadline_ns = clock_now(s->w->clock) + COPY_NS;
	return storage_op_start(op);
}

static void
queue_put(struct storage_sync *s, const struct item *what)
{
	assert(s->queue_n < QUEUE);
	s->queue[(s->queue_at + s->queue_n++) % QUEUE] = *what;
}

static void
copy_end(struct copy *c, int rc)
{
	struct storage_sync *s = c->s;

	c->busy = false;
	s->busy--;
	storage_pace_end(s->w, c->what.bytes);
	if (s->t == NULL) {
		if (s->busy == 0)
			release(s);
		return;
	}
	if (rc == 0) {
		s->copied++;
		s->copied_bytes += c->what.bytes;
		s->failed = s->tries = 0;
		stat_add(&s->w->stat.copied_chunks, 1);
		stat_add(&s->w->stat.copied_bytes, c->what.bytes);
	} else {
		/* The others come first; when there are no others, it is time to rest. */
		queue_put(s, &c->what);
		if ((++s->failed >= COPIES || s->failed >= s->queue_n) && s->rc == 0)
			s->rc = rc;
	}
	advance(s);
}

/* Tell of a chunk that is damaged as often as it is repaired. */
static void
spoils(struct storage_sync *s, const struct chunk_id *id)
{
	uint64_t now = clock_now(s->w->clock);

	if (s->spoils_ns != 0 && now - s->spoils_ns < LOG_NS)
		return;
	s->spoils_ns = now;
	log_warn(&s->w->env->log, "chunk is damaged again after each repair",
	    "chain=%u target=%u inode=%llu index=%u repairs=%u", s->t->v.chain,
	    s->t->v.target, (unsigned long long)id->ino, id->index, REPAIRS);
}

static void
copied(struct storage_op *op, int rc)
{
	struct copy *c = op->ctx;
	struct storage_sync *s = c->s;

	/* A disk that spoils whatever is repaired: not for ever, and not without a pause. */
	if (s->t != NULL && rc == ERR_CORRUPT && !c->repair && !c->anyhow &&
	    c->repairs == REPAIRS) {
		spoils(s, &c->what.id);
		copy_end(c, rc);
		return;
	}
	/* Our own bytes are damaged: another replica that serves may have them; if none has,
	 * they are copied as they are. */
	if (s->t != NULL && (rc == ERR_CORRUPT || c->repair) && !c->anyhow &&
	    (rc == ERR_CORRUPT || rc == ERR_BUSY || rc == 0)) {
		c->anyhow = c->repair ? rc != 0 : s->t->v.serving_n == 1;
		c->repair = !c->repair && !c->anyhow;
		c->repairs += c->repair;
		if (copy_op(c) == 0)
			return;
		rc = -ENOMEM;
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
	*c = (struct copy){ .s = s, .what = s->queue[s->queue_at], .busy = true };
	s->queue_at = (s->queue_at + 1) % QUEUE;
	s->queue_n--;
	s->busy++;
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
		s->tries = 0;
		take_page(s, RESYNC_THEIRS, rep->rows.n, rep->more != 0);
	} else if (s->rc == 0) {
		s->rc = rc;
	}
	if (rc != 0)
		storage_sync_refused(s->t, rc, s->silent_ns);
	advance(s);
}

static void
page_over(struct clock_timer *timer)
{
	advance(container_of(timer, struct storage_sync, next_page));
}

/* The pages that are wanted. */
static void
pages(struct storage_sync *s)
{
	struct storage_target *t = s->t;
	struct chunk_resync_list *ours = &s->merge.lists[RESYNC_OURS];
	struct chunk_resync_list *theirs = &s->merge.lists[RESYNC_THEIRS];
	int rc = 0;

	if (chunk_resync_wants(&s->merge, RESYNC_OURS)) {
		uint32_t n = 0;
		bool more = false;

		rc = storage_list_rows(t, ours->from_start ? NULL : &ours->last,
		    STORAGE_LIST_PAGE, true, s->rows[RESYNC_OURS], &n, &more);
		if (rc == 0)
			take_page(s, RESYNC_OURS, n, more);
		clock_timer_start(s->w->clock, &s->next_page,
		    clock_now(s->w->clock), page_over);
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

	if (s->silent_ns != 0)
		storage_sync_refused(s->t, s->rc, s->silent_ns);
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
	/* Who has not answered for long enough is told of in time. */
	if (s->silent_ns != 0 && now - s->silent_ns < REFUSED_NS &&
	    ns > s->silent_ns + REFUSED_NS - now)
		ns = s->silent_ns + REFUSED_NS - now;
	if (s->tries > 6 && (s->logged_ns == 0 || now - s->logged_ns >= LOG_NS)) {
		log_warn(&w->env->log, "replica not up to date yet",
		    "chain=%u version=%u target=%u compared=%llu tries=%u rc=%s",
		    s->t->v.chain, s->version, s->target,
		    (unsigned long long)s->compared, s->tries, err_name(s->rc));
		s->logged_ns = now;
	}
	if (err_next(s->rc) == ERR_NEXT_REFRESH && s->rc != ERR_CHAIN_RECOVERING)
		storage_refresh(w);
	rows_free(s);
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

/* Another chain has less under way, and more to do: it is its turn. */
static bool
others_first(const struct storage_sync *s)
{
	unsigned n = s->w->syncing;

	list_for_each(it, &s->w->syncs) {
		const struct storage_sync *o = list_entry(it, struct storage_sync, node);

		if (n == 0)
			break;
		n -= o->active;
		if (o->active && o->queue_n > 0 && o->rc == 0 && o->busy < s->busy)
			return true;
	}
	return false;
}

/* The first of the queue may be copied now; else the timer has been set. */
static bool
may_copy(struct storage_sync *s)
{
	struct storage_worker *w = s->w;
	uint64_t max = w->env->conf->storage_memory / 4, at;
	uint32_t bytes = s->queue[s->queue_at].bytes;

	if (others_first(s))
		at = clock_now(w->clock) + TURN_NS;
	else if (w->pace.copy_bytes > 0 && w->pace.copy_bytes + bytes > max)
		at = clock_now(w->clock) + MEMORY_NS;
	else
		at = storage_pace_wait(w, bytes);
	if (at == 0)
		return true;
	clock_timer_start(w->clock, &s->timer, at, timer_over);
	return false;
}

/* The next chunk of both lists.  What it found in the first pass is what there is to do. */
static void
compare(struct storage_sync *s)
{
	struct chunk_id before = s->merge.done;
	const struct msg_list_row *ours;
	struct item what = { 0 };
	enum chunk_resync_next next = chunk_resync_next(&s->merge, &what.id, &ours);

	switch (next) {
	case RESYNC_PAGE:
		pages(s);
		return;
	case RESYNC_END:
		s->listed = true;
		rows_free(s);
		return;
	case RESYNC_SAME:
	case RESYNC_DIFFERS:
		break;
	}
	stat_add(&s->w->stat.compared_chunks, 1);
	what.bytes = ours != NULL && ours->committed != 0 ? ours->len : 0;
	if (s->pass == 0) {
		s->compared++;
		s->compared_bytes += what.bytes;
	}
	if (next == RESYNC_SAME)
		return;
	if (s->pass == 0) {
		s->differ++;
		s->differ_bytes += what.bytes;
	}
	if (s->behind)
		return;
	if (s->queue_n + COPIES < QUEUE) {
		queue_put(s, &what);
		return;
	}
	s->behind = true;
	s->resume = before;		/* there is one: the queue is full of them */
	s->listed = s->pass > 0;
}

static bool
lists_begin(struct storage_sync *s, const struct chunk_id *after)
{
	chunk_resync_init(&s->merge, after);
	for (unsigned i = 0; i < 2; i++)
		if (s->rows[i] == NULL && (s->rows[i] = malloc(STORAGE_LIST_PAGE *
		    sizeof(*s->rows[i]))) == NULL)
			return false;
	return true;
}

/* One thing that can be done now; false: there is none. */
static bool
one_step(struct storage_sync *s)
{
	if (s->queue_n > 0 && s->busy < COPIES && s->timer.pos == 0 && may_copy(s)) {
		copy_start(s);
		return true;
	}
	if (!s->listed && !s->asking && s->next_page.pos == 0) {
		compare(s);
		return true;
	}
	if (s->listed && s->behind && s->queue_n == 0 && s->busy == 0) {
		s->listed = s->behind = false;
		s->pass++;
		if (!lists_begin(s, &s->resume))
			s->rc = -ENOMEM;
		return true;
	}
	return false;
}

static void
advance(struct storage_sync *s)
{
	assert(s->t != NULL);
	if (s->advancing || !s->active)
		return;
	s->advancing = true;
	clock_timer_stop(s->w->clock, &s->timer);
	while (s->rc == 0 && one_step(s))
		;
	s->advancing = false;
	if (s->asking || s->busy > 0)
		return;
	if (s->rc != 0) {
		clock_timer_stop(s->w->clock, &s->timer);
		clock_timer_stop(s->w->clock, &s->next_page);
		give_up(s);
	} else if (s->timer.pos == 0 && s->queue_n == 0 && s->listed && !s->behind) {
		done(s);
	}
}

static void
begin(struct storage_sync *s)
{
	struct storage_worker *w = s->w;
	struct chunk_id from = s->merge.done;

	w->syncing++;
	s->active = true;
	stat_set(&w->stat.syncing, w->syncing);
	s->rc = 0;
	s->failed = 0;
	if (s->queue == NULL)
		s->queue = malloc(QUEUE * sizeof(*s->queue));
	if (s->queue == NULL || (!s->listed && !lists_begin(s, s->merge.any ? &from :
	    NULL)))
		s->rc = -ENOMEM;
	else if (!storage_lease(w))
		s->rc = ERR_NO_LEASE;
	else if (atomic_load(&s->t->disk->failed))
		s->rc = -EIO;
	advance(s);
}

/* Let waiting ones begin while there are places.  One that ends at once, in begin(), asks for
 * this again: the loop goes on to the next. */
static void
pump(struct storage_worker *w)
{
	struct list *it;

	if (w->sync_pumping)
		return;
	w->sync_pumping = true;
	while (w->syncing < STORAGE_SYNCS &&
	    (it = list_pop_front(&w->sync_queue)) != NULL)
		begin(list_entry(it, struct storage_sync, in_queue));
	w->sync_pumping = false;
}

/* Nobody waits for it but we ourselves: a disk that is busy may take its time. */
static bool
patient(const struct storage_op *op, uint64_t now)
{
	return op->craq.kind == CRAQ_SYNC && !chunk_craq_awaited(&op->craq) &&
	    now - op->forward_ns < PATIENT_NS;
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

		if (op->craq.chain_version == s->version && !patient(op, now) &&
		    now - op->forward_ns > bytes * NS_PER_S / REFUSED_RATE)
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
	s->looks[s->look_n++].ns = s->began_ns;
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
	clock_timer_stop(s->w->clock, &s->next_page);
	net_call_cancel(&s->list);
	list_remove(&s->in_queue);
	clock_timer_stop(s->w->clock, &s->timer);
	place_leave(s);
	if (s->busy == 0)
		release(s);
	if (!w->stopping)
		pump(w);
}

/* Work and bytes per second, lately. */
static void
speed(struct storage_sync *s, uint64_t now, uint64_t *cost_s, uint64_t *bytes_s)
{
	uint64_t cost = s->copied_bytes + s->copied * CHUNK_COST, ms;
	const struct look *since = &s->looks[s->look_n < LOOKS ? 0 : s->look_n % LOOKS];

	ms = (now - since->ns) / NS_PER_MS + 1;
	*cost_s = (cost - since->cost) * 1000 / ms;
	*bytes_s = (s->copied_bytes - since->bytes) * 1000 / ms;
	if (now - s->looks[(s->look_n - 1) % LOOKS].ns >= NS_PER_S)
		s->looks[s->look_n++ % LOOKS] = (struct look){ now, cost, s->copied_bytes };
}

static struct msg_sync_status
status(struct storage_sync *s, uint64_t now)
{
	struct msg_sync_status row = { .chain = s->t->v.chain, .target = s->target,
	    .copied = s->copied, .bytes = s->copied_bytes,
	    .ms = (now - s->began_ns) / NS_PER_MS };
	uint64_t chunks, bytes, left, cost, cost_s;

	chunk_engine_count(s->t->disk->engine, s->t->v.target, &chunks, &bytes);
	left = s->differ > s->copied ? s->differ - s->copied : 0;
	row.done = s->compared > left ? s->compared - left : 0;
	row.total = chunks > s->compared ? chunks : s->compared;
	row.bytes_left = s->differ_bytes > s->copied_bytes ?
	    s->differ_bytes - s->copied_bytes : 0;
	/* What was not compared yet may have to be copied, all of it. */
	if (s->pass == 0 && !s->listed && bytes > s->compared_bytes) {
		row.bytes_left += bytes - s->compared_bytes;
		left += row.total - s->compared;
	}
	speed(s, now, &cost_s, &row.rate);
	cost = row.bytes_left + left * CHUNK_COST;
	row.left_ms = cost == 0 ? 0 : cost_s < 1000 ? UINT64_MAX : cost / (cost_s / 1000);
	return row;
}

unsigned
storage_sync_rows(struct storage_worker *w, struct msg_sync_status *rows, unsigned max)
{
	uint64_t now = clock_now(w->clock);
	unsigned n = 0;

	list_for_each(it, &w->syncs) {
		struct storage_sync *s = list_entry(it, struct storage_sync, node);

		if (s->t == NULL)
			continue;
		if (n == max)
			break;
		rows[n++] = status(s, now);
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
