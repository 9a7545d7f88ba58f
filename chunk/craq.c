/* SPDX-License-Identifier: MIT */
/* craq.c - one operation at a time on a chunk, from its lock to its reply.
 *
 *   QUEUED -> LOOKING -> RUNNING ----------------> reply
 *               |  ^        ^  \-> FETCHING (what we could not store ourselves)
 *               |  +--------|-- an older version is settled first, then look again
 *               +-> LOADING-+
 *
 * RUNNING is two things at once: store here, forward to the successor.
 *
 *   store here   below           then
 *   ok           done, or tail   compare digests, commit, reply
 *   ok           refused (1)     abort, reply why
 *   ok           not known       leave it pending: the next operation settles it
 *   failed       refused (1)     reply why
 *   failed       done            head: fetch it back from behind; others: in doubt
 *   failed       not known       in doubt: successors may be ahead of us
 *
 *   (1) refused: nothing of the version is, or will be, behind us.  Only the errors that
 *       net/msg_storage.h lists say so, and only while no attempt has ended in any other
 *       way: a lost answer may hide a version that was stored.
 *
 * Invariants, asserted by chunk_craq_check() or where they are made:
 *   1  only the first operation of a chunk is past QUEUED
 *   2  an entry has an operation or a doubt, never neither
 *   3  commit: stored here, and the tail, or the successor has committed the same version
 *   4  abort: never when something behind us may hold the version
 *   5  a version is over the committed one it builds on
 *   6  operations of an older chain version start nothing
 *   7  a target's stale count is what it says */
#include "chunk/craq.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

#define BACKOFF_MIN_NS	(2 * NS_PER_MS)
#define BACKOFF_MAX_NS	(256 * NS_PER_MS)

enum { QUEUED, LOOKING, LOADING, FETCHING, RUNNING, ENDED };
/* of op->store */
enum { S_NONE, S_BUSY, S_RETRY, S_OK, S_FAILED };
/* of op->forward; F_LOADING: our stored copy is read, to be sent whole */
enum { F_NONE, F_BUSY, F_WAIT, F_LOAD_WAIT, F_LOADING, F_DONE, F_REFUSED, F_GAVE_UP };

/* A chunk that is being worked on, or whose successors may be ahead of us. */
struct chunk_craq_entry {
	struct chunk_craq_target *target;
	struct chunk_id id;
	struct chunk_craq_entry *next;	/* in the bucket, or free */
	struct list	ops;		/* first come, first served */
	unsigned	ops_n;
	struct list	in_doubts;
	uint64_t	doubt;		/* version that may be behind us; 0: none */
	uint32_t	doubt_epoch;
	bool		doubt_removed;
};

struct chunk_craq {
	struct chunk_craq_entry *entries, *free;
	struct chunk_craq_entry **buckets;
	size_t	    mask;
	struct list ready;		/* operations with effects to take */
};

int
chunk_craq_open(struct chunk_craq **out, unsigned n)
{
	struct chunk_craq *c;
	size_t cap = 16;

	*out = NULL;
	if (n == 0 || n > 1048576)
		return -EINVAL;
	if ((c = calloc(1, sizeof(*c))) == NULL)
		return -ENOMEM;
	while (cap < n)
		cap *= 2;
	c->mask = cap - 1;
	c->entries = calloc(n, sizeof(*c->entries));
	c->buckets = calloc(cap, sizeof(struct chunk_craq_entry *));
	if (c->entries == NULL || c->buckets == NULL) {
		chunk_craq_close(c);
		return -ENOMEM;
	}
	for (unsigned i = n; i-- > 0;) {
		c->entries[i].next = c->free;
		c->free = &c->entries[i];
	}
	list_init(&c->ready);
	*out = c;
	return 0;
}

void
chunk_craq_close(struct chunk_craq *c)
{
	if (c == NULL)
		return;
	free(c->entries);
	free(c->buckets);
	free(c);
}

void
chunk_craq_target_init(struct chunk_craq_target *t, target_id id)
{
	*t = (struct chunk_craq_target){ .id = id };
	list_init(&t->ops);
	list_init(&t->doubts);
}

/* ---- the table of chunks ---- */

static struct chunk_craq_entry **
bucket(const struct chunk_craq *c, target_id target, struct chunk_id id)
{
	uint64_t h = id.ino * 0x9e3779b97f4a7c15ull;

	h ^= ((uint64_t)id.index << 32 | target) * 0xc2b2ae3d27d4eb4full;
	h ^= h >> 32;
	h *= 0x9e3779b97f4a7c15ull;
	return &c->buckets[(h >> 32) & c->mask];
}

static struct chunk_craq_entry *
lookup(const struct chunk_craq *c, const struct chunk_craq_target *t,
    struct chunk_id id)
{
	struct chunk_craq_entry *e = *bucket(c, t->id, id);

	while (e != NULL && (e->target != t || chunk_id_cmp(e->id, id) != 0))
		e = e->next;
	return e;
}

static struct chunk_craq_entry *
take_entry(struct chunk_craq *c, struct chunk_craq_target *t, struct chunk_id id)
{
	struct chunk_craq_entry *e = lookup(c, t, id), **b;

	if (e != NULL)
		return e;
	if ((e = c->free) == NULL)
		return NULL;
	c->free = e->next;
	b = bucket(c, t->id, id);
	*e = (struct chunk_craq_entry){ .target = t, .id = id, .next = *b };
	list_init(&e->ops);
	list_init(&e->in_doubts);
	*b = e;
	return e;
}

static void
release_entry(struct chunk_craq *c, struct chunk_craq_entry *e)
{
	struct chunk_craq_entry **b = bucket(c, e->target->id, e->id);

	if (e->ops_n != 0 || e->doubt != 0)
		return;
	while (*b != e)
		b = &(*b)->next;
	*b = e->next;
	e->next = c->free;
	c->free = e;
}

static void
set_doubt(struct chunk_craq_op *op)
{
	struct chunk_craq_entry *e = op->entry;

	/* A chain that recovers compares all replicas anyway. */
	if (op->target->recovering)
		return;
	e->doubt = op->job_version;
	e->doubt_removed = op->job_kind == UPDATE_REMOVE;
	e->doubt_epoch = op->job_epoch;
	list_remove(&e->in_doubts);
	list_push_back(&e->target->doubts, &e->in_doubts);
}

static void
clear_doubt(struct chunk_craq_entry *e)
{
	e->doubt = 0;
	list_remove(&e->in_doubts);
}

/* ---- effects ---- */

static void
want(struct chunk_craq *c, struct chunk_craq_op *op, enum chunk_craq_eff what)
{
	op->todo |= (uint16_t)(1u << what);
	if (list_empty(&op->in_ready))
		list_push_back(&c->ready, &op->in_ready);
}

static void
look(struct chunk_craq *c, struct chunk_craq_op *op)
{
	op->state = LOOKING;
	want(c, op, CRAQ_LOOK);
}

/* Ends @op and lets the next one at the chunk. */
static void
finish(struct chunk_craq *c, struct chunk_craq_op *op, int rc)
{
	struct chunk_craq_entry *e = op->entry;

	for (;;) {
		bool first = e->ops.next == &op->in_entry;

		assert(op->state != ENDED);
		op->rc = rc;
		op->state = ENDED;
		if (op->stale)
			op->target->stale--;
		list_remove(&op->in_entry);
		list_remove(&op->in_target);
		e->ops_n--;
		want(c, op, CRAQ_REPLY);
		if (!first || e->ops_n == 0)
			break;
		op = list_entry(e->ops.next, struct chunk_craq_op, in_entry);
		if (!op->stale) {
			look(c, op);
			break;
		}
		rc = ERR_STALE_CHAIN;
	}
	release_entry(c, e);
}

/* Errors that say: nothing of it is here or behind. */
static bool
refusal(int rc)
{
	return rc == -ENOSPC || rc == -EINVAL || rc == ERR_PAYLOAD_CRC;
}

/* Time of another try, or false when the asker will have given up. */
static bool
again(struct chunk_craq *c, struct chunk_craq_op *op, uint64_t now_ns)
{
	uint64_t ns = BACKOFF_MIN_NS << (op->tries < 7 ? op->tries : 7);

	if (ns > BACKOFF_MAX_NS)
		ns = BACKOFF_MAX_NS;
	if (op->stale || now_ns + ns >= op->deadline_ns)
		return false;
	op->tries++;
	op->wake_ns = now_ns + ns;
	want(c, op, CRAQ_WAKE);
	return true;
}

static void
start_forward(struct chunk_craq *c, struct chunk_craq_op *op)
{
	assert(!op->stale);					/* 6 */
	op->forward = F_BUSY;
	want(c, op, CRAQ_FORWARD);
}

static void
start_store(struct chunk_craq *c, struct chunk_craq_op *op)
{
	assert(!op->stale);					/* 6 */
	op->store = S_BUSY;
	want(c, op, CRAQ_STORE);
}

static void settle(struct chunk_craq *c, struct chunk_craq_op *op);

/* What op is about to replicate: its own request, or an older version first. */
static void
job(struct chunk_craq_op *op, bool own, uint8_t kind, bool loaded,
    uint64_t version, uint64_t base, uint32_t epoch)
{
	assert(version > base);					/* 5 */
	op->job_own = own;
	op->job_kind = kind;
	op->job_loaded = loaded;
	op->job_version = version;
	op->job_base = base;
	op->job_epoch = epoch;
	op->whole = kind == UPDATE_REPLACE;
	op->store = S_NONE;
	op->forward = F_NONE;
	op->pending_here = false;
	op->tries = 0;
}

static void
run(struct chunk_craq *c, struct chunk_craq_op *op)
{
	op->state = RUNNING;
	start_store(c, op);
	if (!op->target->tail && op->kind != CRAQ_RECONCILE)
		start_forward(c, op);
}

/* ---- having the chunk: what to do with it ---- */

static void
done_already(struct chunk_craq *c, struct chunk_craq_op *op, uint64_t version,
    const struct chunk_info *info)
{
	op->rep_version = version;
	op->len = info != NULL ? info->committed_len : 0;
	op->check_here = info != NULL && info->committed == version ?
	    info->committed_check : 0;
	finish(c, op, 0);
}

/* At the head: a version that may be behind us comes first.  True: it does. */
static bool
settle_older(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_info *info)
{
	struct chunk_craq_entry *e = op->entry;
	uint64_t committed = info != NULL ? info->committed : 0;

	if (e->doubt != 0 && (committed >= e->doubt ||
	    (info != NULL && info->pending == e->doubt)))
		clear_doubt(e);
	if (e->doubt != 0) {
		job(op, false, e->doubt_removed ? UPDATE_REMOVE :
		    UPDATE_REPLACE, true, e->doubt, committed, e->doubt_epoch);
		op->unknown = true;
		if (e->doubt_removed) {
			run(c, op);
		} else {
			op->state = FETCHING;
			want(c, op, CRAQ_FETCH);
		}
		return true;
	}
	if (info == NULL || info->pending == 0)
		return false;
	job(op, false, info->pending_removed ? UPDATE_REMOVE : UPDATE_REPLACE,
	    true, info->pending, committed, info->pending_epoch);
	op->unknown = true;
	op->pending_here = true;
	op->store = S_OK;
	op->len = info->pending_len;
	op->check_here = info->pending_check;
	if (op->target->tail) {
		op->state = RUNNING;
		settle(c, op);
	} else if (info->pending_removed) {
		op->state = RUNNING;
		start_forward(c, op);
	} else {
		op->state = LOADING;
		want(c, op, CRAQ_LOAD);
	}
	return true;
}

static uint64_t
next_version(const struct chunk_craq_op *op, uint64_t committed)
{
	uint64_t v = committed + 1;
	uint64_t low = (uint64_t)op->epoch << 32;

	/* A removal takes the number before the first of its epoch, so that the chunk
	 * made anew in that epoch is newer; hence voids count by two. */
	if (op->update != UPDATE_REMOVE)
		low |= 1;
	return (v > low ? v : low) + 2 * op->target->skip;
}

static void
have_head(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_craq_event *ev)
{
	const struct chunk_info *info = ev->info;
	uint64_t committed = info != NULL ? info->committed : 0;
	uint32_t epoch = committed != 0 ? info->committed_epoch : 0;

	if (settle_older(c, op, info))
		return;
	if (op->kind == CRAQ_CUT) {
		if (committed == 0 || epoch >= op->epoch) {
			done_already(c, op, committed, info);
			return;
		}
	} else {
		/* A client has one write in flight for a chunk and its numbers rise: one
		 * that is not newer was done. */
		for (uint32_t i = 0; info != NULL && i < info->dedupe_n; i++) {
			if (uid128_eq(&info->dedupe[i].client, &op->client) &&
			    info->dedupe[i].seq >= op->seq) {
				done_already(c, op, info->dedupe[i].version, info);
				return;
			}
		}
		if (op->epoch < epoch || op->epoch < ev->epoch_floor) {
			finish(c, op, ERR_STALE_EPOCH);
			return;
		}
		if (!ev->room) {
			finish(c, op, -ENOSPC);
			return;
		}
	}
	job(op, true, op->update, false, next_version(op, committed), committed,
	    op->epoch);
	op->unknown = false;
	op->touched = true;
	run(c, op);
}

/* Its sender has given it up, and has moved on. */
static bool
fenced(const struct chunk_craq_op *op)
{
	const struct chunk_craq_target *t = op->target;

	if (op->attempt < t->floor)
		return true;
	for (unsigned i = 0; i < t->fence_n; i++)
		if (chunk_id_cmp(t->fences[i].id, op->id) == 0)
			return op->attempt < t->fences[i].below;
	return false;
}

static void
have_update(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_craq_event *ev)
{
	const struct chunk_info *info = ev->info;
	struct chunk_craq_entry *e = op->entry;
	uint64_t committed = info != NULL ? info->committed : 0;
	uint64_t pending = info != NULL ? info->pending : 0;

	if (e->doubt != 0 && committed >= e->doubt)
		clear_doubt(e);
	if (fenced(op)) {
		finish(c, op, ERR_VERSION_GAP);
		return;
	}
	/* What is committed here was committed behind us before. */
	if (op->version <= committed) {
		done_already(c, op, committed, info);
		return;
	}
	if (op->update == UPDATE_REMOVE && info == NULL) {
		done_already(c, op, op->version, NULL);
		return;
	}
	if (op->base != committed || (pending != 0 && pending != op->version) ||
	    (e->doubt != 0 && e->doubt != op->version)) {
		finish(c, op, ERR_VERSION_GAP);
		return;
	}
	job(op, true, op->update, false, op->version, op->base, op->epoch);
	op->pending_here = pending != 0;
	op->unknown = pending != 0 || e->doubt != 0;
	op->touched = true;
	if (!ev->room) {
		finish(c, op, op->unknown ? ERR_BUSY : -ENOSPC);
		return;
	}
	run(c, op);
}

static void
have_settle(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_info *info)
{
	struct chunk_craq_entry *e = op->entry;
	uint64_t committed = info != NULL ? info->committed : 0;

	if (e->doubt != 0 && (committed >= e->doubt ||
	    (info != NULL && info->pending == e->doubt)))
		clear_doubt(e);
	if (e->doubt == 0) {
		done_already(c, op, committed, info);
		return;
	}
	job(op, true, e->doubt_removed ? UPDATE_REMOVE : UPDATE_REPLACE, true,
	    e->doubt, committed, e->doubt_epoch);
	op->unknown = true;
	if (e->doubt_removed) {
		run(c, op);
	} else {
		op->state = FETCHING;
		want(c, op, CRAQ_FETCH);
	}
}

static void
have_reconcile(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_craq_event *ev)
{
	const struct chunk_info *info = ev->info;
	uint64_t committed = info != NULL ? info->committed : 0;
	bool removal = op->update == UPDATE_REMOVE;

	if (removal && info == NULL) {
		done_already(c, op, op->version, NULL);
		return;
	}
	if (op->version <= committed) {
		if (op->version == committed && !removal &&
		    op->check == info->committed_check)
			done_already(c, op, committed, info);
		else
			finish(c, op, op->version == committed ? ERR_CORRUPT :
			    ERR_VERSION_GAP);
		return;
	}
	job(op, true, op->update, false, op->version, committed, op->epoch);
	op->touched = true;
	/* What we hold as pending already needs no second copy. */
	if (info != NULL && info->pending == op->version &&
	    info->pending_removed == removal &&
	    (removal || info->pending_check == op->check)) {
		op->state = RUNNING;
		op->store = S_OK;
		op->len = info->pending_len;
		op->check_here = info->pending_check;
		settle(c, op);
		return;
	}
	if (op->update == UPDATE_CONFIRM) {
		finish(c, op, ERR_VERSION_GAP);
		return;
	}
	if (!ev->room) {
		finish(c, op, -ENOSPC);
		return;
	}
	run(c, op);
}

/* ---- store and forward have both come to something ---- */

static void
commit(struct chunk_craq *c, struct chunk_craq_op *op)
{
	bool check = op->forward == F_DONE && op->job_kind != UPDATE_REMOVE &&
	    op->rep_version == op->job_version;

	assert(op->store == S_OK);				/* 3 */
	assert(op->forward == F_DONE || op->target->tail ||
	    op->kind == CRAQ_RECONCILE);			/* 3 */
	if (check && op->check_below != op->check_here) {
		finish(c, op, ERR_CORRUPT);
		return;
	}
	if (op->kind == CRAQ_RECONCILE && op->job_kind != UPDATE_REMOVE &&
	    op->check != op->check_here) {
		finish(c, op, ERR_CORRUPT);
		return;
	}
	want(c, op, CRAQ_COMMIT);
	if (op->entry->doubt != 0 && op->entry->doubt <= op->job_version)
		clear_doubt(op->entry);
	if (!op->job_own) {
		if (op->stale)
			finish(c, op, ERR_STALE_CHAIN);
		else
			look(c, op);
		return;
	}
	op->rep_version = op->job_version;
	finish(c, op, 0);
}

static void
settle(struct chunk_craq *c, struct chunk_craq_op *op)
{
	assert(op->state == RUNNING);
	if (op->forward == F_LOAD_WAIT && op->store == S_FAILED)
		op->forward = F_GAVE_UP;
	if (op->store == S_BUSY || op->store == S_RETRY ||
	    (op->forward >= F_BUSY && op->forward <= F_LOADING))
		return;
	if (op->stale && op->forward != F_DONE) {
		if (op->store == S_FAILED && op->forward != F_REFUSED)
			set_doubt(op);
		finish(c, op, ERR_STALE_CHAIN);
		return;
	}
	/* A replica behind us may have dropped what a crash brings back: its number is
	 * not given to other bytes. */
	if (op->forward == F_REFUSED && op->target->head)
		op->target->skip++;
	if (op->store == S_OK) {
		if (op->forward == F_REFUSED) {
			assert(!op->unknown);			/* 4 */
			want(c, op, CRAQ_ABORT);
			finish(c, op, op->forward_rc);
		} else if (op->forward == F_GAVE_UP) {
			finish(c, op, -ETIMEDOUT);
		} else {
			commit(c, op);
		}
		return;
	}
	if (op->kind == CRAQ_RECONCILE) {
		finish(c, op, op->store_rc);
	} else if (op->forward == F_REFUSED) {
		finish(c, op, op->forward_rc);
	} else if (op->forward == F_NONE) {
		finish(c, op, op->store_rc);
	} else if (op->forward == F_DONE && op->target->head && !op->job_loaded &&
	    op->store_rc != -EIO && op->job_kind != UPDATE_REMOVE && !op->stale) {
		op->state = FETCHING;
		want(c, op, CRAQ_FETCH);
	} else {
		set_doubt(op);
		if (op->stale)
			finish(c, op, ERR_STALE_CHAIN);
		else if (op->store_rc == -EIO || op->store_rc == ERR_CORRUPT)
			finish(c, op, op->store_rc);
		else
			finish(c, op, ERR_BUSY);
	}
}

static void
loaded(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_craq_event *ev)
{
	bool fetched = op->state == FETCHING;

	if (op->state == RUNNING) {
		assert(op->forward == F_LOADING);
		if (ev->rc == 0 && !op->stale)
			start_forward(c, op);
		else
			op->forward = F_GAVE_UP;
		settle(c, op);
		return;
	}
	assert(fetched || op->state == LOADING);
	if (op->stale) {
		finish(c, op, ERR_STALE_CHAIN);
		return;
	}
	if (!fetched && ev->rc == ERR_CORRUPT) {
		/* Our own copy of what we promised is damaged. */
		op->store = S_NONE;
		op->state = FETCHING;
		want(c, op, CRAQ_FETCH);
		return;
	}
	if (fetched && ev->rc == -ENOENT && op->forward != F_DONE &&
	    !op->pending_here) {
		/* Nobody behind us has it, nor ever will: the number is void. */
		if (op->target->head)
			op->target->skip++;
		if (op->entry->doubt != 0)
			clear_doubt(op->entry);
		look(c, op);
		return;
	}
	if (ev->rc != 0) {
		if (!op->pending_here)
			set_doubt(op);
		finish(c, op, ERR_BUSY);
		return;
	}
	op->state = RUNNING;
	if (fetched) {
		op->job_kind = UPDATE_REPLACE;
		op->job_loaded = true;
		op->job_epoch = ev->epoch;
		op->whole = true;
		start_store(c, op);
	}
	if (op->forward != F_DONE)
		start_forward(c, op);
}

static void
stored(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_craq_event *ev)
{
	assert(op->state == RUNNING);
	assert(op->store == S_BUSY);
	if (ev->rc == 0) {
		op->store = S_OK;
		op->len = ev->len;
		op->check_here = ev->check;
		if (op->forward == F_LOAD_WAIT) {
			if (op->stale) {
				op->forward = F_GAVE_UP;
			} else {
				op->forward = F_LOADING;
				want(c, op, CRAQ_LOAD);
			}
		}
	} else if (op->pending_here && refusal(ev->rc)) {
		/* The copy of an earlier attempt is still there and will do. */
		op->store = S_FAILED;
		op->store_rc = ERR_BUSY;
	} else {
		bool wait = ev->rc == ERR_BUSY || ev->rc == -ENOMEM;

		op->store = S_FAILED;
		op->store_rc = ev->rc;
		if (wait && op->forward != F_NONE && again(c, op, ev->now_ns))
			op->store = S_RETRY;
	}
	settle(c, op);
}

static void
forwarded(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_craq_event *ev)
{
	int rc = ev->rc;

	assert(op->state == RUNNING);
	assert(op->forward == F_BUSY);
	if (rc == 0 && ev->version < op->job_version)
		rc = ERR_VERSION_GAP;
	op->forward_rc = rc;
	if (rc == 0) {
		op->forward = F_DONE;
		op->rep_version = ev->version;
		op->len_below = ev->len;
		op->check_below = ev->check;
	} else if (refusal(rc) && !op->unknown) {
		op->forward = F_REFUSED;
	} else {
		op->unknown = true;
		if (rc == ERR_CORRUPT && !op->whole &&
		    op->job_kind != UPDATE_REMOVE) {
			/* It cannot build on its damaged copy: send all of ours. */
			op->whole = true;
			op->forward = F_LOAD_WAIT;
			if (op->store == S_OK && !op->stale) {
				op->forward = F_LOADING;
				want(c, op, CRAQ_LOAD);
			}
		} else {
			op->forward = again(c, op, ev->now_ns) ? F_WAIT :
			    F_GAVE_UP;
		}
	}
	settle(c, op);
}

static void
woken(struct chunk_craq *c, struct chunk_craq_op *op)
{
	assert(op->state == RUNNING);
	if (op->store == S_RETRY)
		start_store(c, op);
	if (op->forward == F_WAIT)
		start_forward(c, op);
}

static int
admit(struct chunk_craq *c, struct chunk_craq_op *op)
{
	struct chunk_craq_target *t = op->target;
	struct chunk_craq_entry *e;

	if (op->chain_version != t->version)
		return ERR_STALE_CHAIN;
	if (op->kind == CRAQ_RECONCILE ? !t->recovering : !t->serving)
		return t->recovering ? ERR_CHAIN_RECOVERING : ERR_STALE_CHAIN;
	if (op->kind != CRAQ_RECONCILE && t->head == (op->kind == CRAQ_UPDATE ||
	    op->kind == CRAQ_SETTLE))
		return ERR_NOT_OWNER;
	if ((e = take_entry(c, t, op->id)) == NULL)
		return ERR_BUSY;
	if (e->ops_n >= CHUNK_CRAQ_WAIT_MAX)
		return ERR_BUSY;
	op->entry = e;
	op->todo = 0;
	op->stale = op->touched = op->whole = op->unknown = false;
	op->pending_here = op->job_own = op->job_loaded = false;
	op->store = S_NONE;
	op->forward = F_NONE;
	op->rep_version = op->job_version = op->job_base = 0;
	op->len = op->check_here = op->check_below = 0;
	op->store_rc = op->forward_rc = op->rc = 0;
	op->state = QUEUED;
	list_init(&op->in_ready);
	list_push_back(&e->ops, &op->in_entry);
	e->ops_n++;
	list_push_back(&t->ops, &op->in_target);
	if (e->ops_n == 1)
		look(c, op);
	return 0;
}

int
chunk_craq_step(struct chunk_craq *c, const struct chunk_craq_event *ev)
{
	struct chunk_craq_op *op = ev->op;

	switch (ev->kind) {
	case CRAQ_EV_ADMIT:
		return admit(c, op);
	case CRAQ_EV_INFO:
		assert(op->state == LOOKING);
		assert(!op->stale);
		if (ev->now_ns >= op->deadline_ns)
			finish(c, op, -ETIMEDOUT);
		else if (op->kind == CRAQ_RECONCILE)
			have_reconcile(c, op, ev);
		else if (op->kind == CRAQ_UPDATE)
			have_update(c, op, ev);
		else if (op->kind == CRAQ_SETTLE)
			have_settle(c, op, ev->info);
		else
			have_head(c, op, ev);
		return 0;
	case CRAQ_EV_LOADED:
		loaded(c, op, ev);
		return 0;
	case CRAQ_EV_STORED:
		stored(c, op, ev);
		return 0;
	case CRAQ_EV_FORWARDED:
		forwarded(c, op, ev);
		return 0;
	case CRAQ_EV_WOKEN:
		woken(c, op);
		return 0;
	}
	assert(!"event kind");
	return 0;
}

bool
chunk_craq_next(struct chunk_craq *c, struct chunk_craq_effect *out)
{
	struct chunk_craq_op *op;
	enum chunk_craq_eff kind = CRAQ_CANCEL;

	if (list_empty(&c->ready))
		return false;
	op = list_entry(c->ready.next, struct chunk_craq_op, in_ready);
	assert(op->todo != 0);
	while ((op->todo & 1u << kind) == 0)
		kind++;
	op->todo &= (uint16_t)~(1u << kind);
	if (op->todo == 0)
		list_remove(&op->in_ready);
	*out = (struct chunk_craq_effect){ .kind = kind, .op = op,
	    .version = op->job_version, .base = op->job_base,
	    .epoch = op->job_epoch, .update = op->job_kind,
	    .loaded = op->job_loaded, .at_ns = op->wake_ns,
	    .unsure = kind == CRAQ_FETCH || op->unknown };
	if (kind == CRAQ_FORWARD && op->whole) {
		out->update = UPDATE_REPLACE;
		out->loaded = op->job_kind != UPDATE_REPLACE || op->job_loaded;
	}
	if (kind == CRAQ_REPLY) {
		out->rc = op->rc;
		out->version = op->rep_version;
		out->len = op->len;
		out->check = op->check_here;
		out->touched = op->touched && op->rc == 0;
	}
	return true;
}

/* ---- the chain ---- */

/* The chain has moved on from under @op: start nothing more, end soon. */
static void
end_stale(struct chunk_craq *c, struct chunk_craq_op *op)
{
	bool calls = false;

	switch (op->state) {
	case QUEUED:
		finish(c, op, ERR_STALE_CHAIN);
		return;
	case LOADING:			/* a disk read: ends by itself */
		return;
	case FETCHING:
		want(c, op, CRAQ_CANCEL);
		if (op->store == S_FAILED)
			set_doubt(op);
		finish(c, op, ERR_STALE_CHAIN);
		return;
	default:
		break;
	}
	assert(op->state == RUNNING);
	if (op->store == S_RETRY) {
		op->store = S_FAILED;
		calls = true;
	}
	if (op->forward == F_BUSY || op->forward == F_WAIT) {
		op->forward = F_GAVE_UP;
		op->unknown = true;
		calls = true;
	}
	if (op->forward == F_LOAD_WAIT)
		op->forward = F_GAVE_UP;
	if (calls)
		want(c, op, CRAQ_CANCEL);
	settle(c, op);
}

void
chunk_craq_move(struct chunk_craq *c, struct chunk_craq_target *t,
    uint32_t version, bool serving, bool head, bool tail)
{
	struct list left, *it;

	assert(version > t->version ||
	    (version == t->version && t->recovering && serving));
	assert(list_empty(&c->ready));		/* all effects were taken */
	if (version > t->version)
		t->floor = t->fence_n = 0;	/* calls carry the version */
	t->version = version;
	t->serving = serving;
	t->recovering = !serving;
	t->head = head;
	t->tail = tail;
	if (t->recovering) {
		list_for_each_safe(at, tmp, &t->doubts) {
			struct chunk_craq_entry *e = list_entry(at,
			    struct chunk_craq_entry, in_doubts);

			clear_doubt(e);
			release_entry(c, e);
		}
	}
	list_for_each(at, &t->ops) {
		struct chunk_craq_op *op = list_entry(at, struct chunk_craq_op,
		    in_target);

		if (!op->stale) {
			op->stale = true;
			t->stale++;
		}
	}
	/* Ending one may end others: take them from a list of what is left. */
	list_init(&left);
	list_splice_back(&left, &t->ops);
	while ((it = list_pop_front(&left)) != NULL) {
		struct chunk_craq_op *op = list_entry(it, struct chunk_craq_op,
		    in_target);

		list_push_back(&t->ops, it);
		end_stale(c, op);
	}
}

void
chunk_craq_target_fini(struct chunk_craq *c, struct chunk_craq_target *t)
{
	assert(list_empty(&t->ops));
	list_for_each_safe(it, tmp, &t->doubts) {
		struct chunk_craq_entry *e = list_entry(it,
		    struct chunk_craq_entry, in_doubts);

		clear_doubt(e);
		release_entry(c, e);
	}
}

int
chunk_craq_fence(struct chunk_craq_target *t, uint64_t floor, struct chunk_id id,
    uint64_t fence)
{
	unsigned n = 0;

	if (floor > t->floor) {
		t->floor = floor;
		for (unsigned i = 0; i < t->fence_n; i++)
			if (t->fences[i].below > floor)
				t->fences[n++] = t->fences[i];
		t->fence_n = n;
	}
	if (fence <= t->floor)
		return 0;
	for (unsigned i = 0; i < t->fence_n; i++) {
		if (chunk_id_cmp(t->fences[i].id, id) != 0)
			continue;
		if (t->fences[i].below < fence)
			t->fences[i].below = fence;
		return 0;
	}
	if (t->fence_n == CHUNK_CRAQ_FENCES)
		return ERR_BUSY;
	t->fences[t->fence_n++] = (struct chunk_craq_fence){ id, fence };
	return 0;
}

/* ---- questions ---- */

bool
chunk_craq_dirty(const struct chunk_craq *c, const struct chunk_craq_target *t,
    struct chunk_id id, const struct chunk_info *info)
{
	const struct chunk_craq_entry *e;

	if (info != NULL && info->pending != 0)
		return true;
	if ((e = lookup(c, t, id)) == NULL)
		return false;
	if (e->doubt != 0)
		return true;
	return e->ops_n != 0 && list_entry(e->ops.next, struct chunk_craq_op,
	    in_entry)->state >= LOADING;
}

bool
chunk_craq_busy(const struct chunk_craq *c, const struct chunk_craq_target *t,
    struct chunk_id id)
{
	return lookup(c, t, id) != NULL;
}

bool
chunk_craq_left(const struct chunk_craq *c, const struct chunk_craq_target *t,
    struct chunk_id id, const struct chunk_info *info)
{
	const struct chunk_craq_entry *e = lookup(c, t, id);

	return (e == NULL || e->ops_n == 0) &&
	    (e != NULL || (info != NULL && info->pending != 0));
}

enum chunk_craq_pick
chunk_craq_pick(const struct chunk_info *info, uint64_t tail_version)
{
	if (tail_version == 0)
		return CRAQ_PICK_NONE;
	if (info == NULL)
		return CRAQ_PICK_AGAIN;
	if (info->committed == tail_version ||
	    (info->pending == tail_version && !info->pending_removed))
		return CRAQ_PICK_READ;
	return CRAQ_PICK_AGAIN;
}

const char *
chunk_craq_eff_name(enum chunk_craq_eff kind)
{
	static const char *const names[] = { "cancel", "commit", "abort", "look",
	    "load", "fetch", "store", "forward", "wake", "reply" };

	return (size_t)kind < sizeof(names) / sizeof(*names) ? names[kind] : "?";
}

void
chunk_craq_check(const struct chunk_craq *c)
{
	for (size_t i = 0; i <= c->mask; i++) {
		for (const struct chunk_craq_entry *e = c->buckets[i]; e != NULL;
		    e = e->next) {
			unsigned n = 0, stale = 0;

			list_for_each(it, &e->ops) {
				const struct chunk_craq_op *op = list_entry(it,
				    struct chunk_craq_op, in_entry);

				assert(op->state != ENDED);
				assert(n == 0 || op->state == QUEUED);	/* 1 */
				assert(n != 0 || op->state != QUEUED);	/* 1 */
				assert(op->stale || op->chain_version ==
				    e->target->version);		/* 6 */
				if (op->state == RUNNING)
					assert(op->job_version > op->job_base);/* 5 */
				n++;
			}
			assert(n == e->ops_n);
			assert(n != 0 || e->doubt != 0);		/* 2 */
			assert((e->doubt != 0) != list_empty(&e->in_doubts));
			list_for_each(it, &e->target->ops)
				stale += list_entry(it, struct chunk_craq_op,
				    in_target)->stale;
			assert(stale == e->target->stale);		/* 7 */
		}
	}
}
