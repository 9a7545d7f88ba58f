/* SPDX-License-Identifier: MIT */
/* craq_op.c - one operation at a time on a chunk, from its lock to its reply.
 *
 *   QUEUED -> LOOKING -> RUNNING ----------------> reply
 *               |  ^        ^  \-> FETCHING (what we could not store ourselves)
 *               |  +--------|-- an older version is settled first, then look again
 *               +-> LOADING-+
 *               +-> PURGING --> LOOKING (SYNCING: what is here gives way)
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
 *   no space     done, not known in doubt, and the owner is told: there may be none for long
 * Who has no space, but stored the version in an earlier attempt, takes that for stored.
 *
 *   (1) refused: nothing of the version is, or will be, behind us.  Only the errors that
 *       net/msg_storage.h lists say so, and only while no attempt has ended in any other
 *       way: a lost answer may hide a version that was stored.  But no space says so also
 *       after such attempts: it came with a fence, so none of them is to be expected any
 *       more, and who had taken one would have it stored, pending or in doubt.
 *
 * A SYNCING successor gets what we have stored, whole, after we have stored it.  So it never
 * holds a version that this reading tail may yet lose, none of its answers refuses, and what
 * it does not take waits until it has left the chain.
 *
 * The invariants are numbered in craq.c. */
#include <assert.h>
#include <errno.h>

#include "chunk/craq_impl.h"
#include "conf/err.h"

#define BACKOFF_MIN_NS	(2 * NS_PER_MS)
#define BACKOFF_MAX_NS	(256 * NS_PER_MS)
#define SYNC_TRY_NS	(10 * NS_PER_S)

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
	if (op->stale || (op->kind != CRAQ_SYNC &&
	    now_ns + ns >= op->deadline_ns))
		return false;
	op->tries++;
	op->wake_ns = now_ns + ns;
	/* A sync that gave up would leave an attempt under way that nobody knows of. */
	if (op->kind == CRAQ_SYNC)
		op->deadline_ns = op->wake_ns + SYNC_TRY_NS;
	chunk_craq_want(c, op, CRAQ_WAKE);
	return true;
}

static void
start_forward(struct chunk_craq *c, struct chunk_craq_op *op)
{
	assert(!op->stale);					/* 6 */
	assert(!op->target->whole || op->store == S_OK);	/* 9 */
	op->forward = F_BUSY;
	op->sent = true;
	if (op->target->whole && op->job_kind != UPDATE_REMOVE)
		op->whole = true;
	chunk_craq_want(c, op, CRAQ_FORWARD);
}

/* It is stored: now it is the successor's turn. */
static void
start_whole(struct chunk_craq *c, struct chunk_craq_op *op)
{
	if (op->job_kind == UPDATE_REMOVE) {
		start_forward(c, op);
		return;
	}
	op->forward = F_LOADING;
	chunk_craq_want(c, op, CRAQ_LOAD);
}

static void
start_store(struct chunk_craq *c, struct chunk_craq_op *op)
{
	assert(!op->stale);					/* 6 */
	op->store = S_BUSY;
	chunk_craq_want(c, op, CRAQ_STORE);
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
	op->pending_here = op->sent = false;
	op->tries = 0;
}

static void
run(struct chunk_craq *c, struct chunk_craq_op *op)
{
	op->state = RUNNING;
	start_store(c, op);
	if (op->target->whole)
		op->forward = F_LOAD_WAIT;
	else if (!op->target->tail)
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
	chunk_craq_finish(c, op, 0);
}

/* Where writes begin, and before a sync: a version that may be behind us comes first.
 * True: it does. */
static bool
settle_older(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_info *info)
{
	struct chunk_craq_entry *e = op->entry;
	uint64_t committed = info != NULL ? info->committed : 0;

	if (e->doubt != 0 && (committed >= e->doubt ||
	    (info != NULL && info->pending == e->doubt)))
		chunk_craq_clear_doubt(e);
	if (e->doubt != 0) {
		job(op, false, e->doubt_removed ? UPDATE_REMOVE :
		    UPDATE_REPLACE, true, e->doubt, committed, e->doubt_epoch);
		op->unknown = true;
		if (e->doubt_removed) {
			run(c, op);
		} else {
			op->state = FETCHING;
			chunk_craq_want(c, op, CRAQ_FETCH);
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
		chunk_craq_want(c, op, CRAQ_LOAD);
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
			chunk_craq_finish(c, op, ERR_STALE_EPOCH);
			return;
		}
		if (!ev->room) {
			chunk_craq_finish(c, op, -ENOSPC);
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

/* The reading tail brings us, who are SYNCING, to what it has, whatever is here. */
static void
have_forced(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_craq_event *ev)
{
	const struct chunk_info *info = ev->info;
	uint64_t committed = info != NULL ? info->committed : 0;
	uint64_t pending = info != NULL ? info->pending : 0;

	if (op->update == UPDATE_REMOVE && info == NULL) {
		done_already(c, op, op->version, NULL);
		return;
	}
	if (op->update == UPDATE_REMOVE || committed > op->version ||
	    (committed == op->version &&
	    chunk_craq_digest(info, committed) != op->check)) {
		job(op, false, UPDATE_REMOVE, false,
		    (committed > pending ? committed : pending) + 1, 0, 0);
		op->state = PURGING;
		chunk_craq_want(c, op, CRAQ_PURGE);
		return;
	}
	if (committed == op->version) {
		if (pending != 0) {
			op->job_version = pending;
			chunk_craq_want(c, op, CRAQ_ABORT);
		}
		done_already(c, op, committed, info);
		return;
	}
	if (!ev->room) {
		chunk_craq_finish(c, op, -ENOSPC);
		return;
	}
	job(op, true, op->update, false, op->version, committed, op->epoch);
	op->pending_here = pending != 0;
	op->touched = true;
	run(c, op);
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
		chunk_craq_clear_doubt(e);
	if (fenced(op) || op->force != op->target->syncing) {
		chunk_craq_finish(c, op, ERR_VERSION_GAP);
		return;
	}
	if (op->force) {
		have_forced(c, op, ev);
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
	/* What an update builds on is committed where it comes from. */
	if (pending != 0 && pending == op->base && pending > committed) {
		op->job_version = pending;
		chunk_craq_want(c, op, CRAQ_COMMIT);
		if (e->doubt != 0 && e->doubt <= pending)
			chunk_craq_clear_doubt(e);
		chunk_craq_look(c, op);
		return;
	}
	if (op->base != committed || (pending != 0 && pending != op->version) ||
	    (e->doubt != 0 && e->doubt != op->version)) {
		chunk_craq_finish(c, op, ERR_VERSION_GAP);
		return;
	}
	job(op, true, op->update, false, op->version, op->base, op->epoch);
	op->pending_here = pending != 0;
	op->unknown = pending != 0 || e->doubt != 0;
	op->touched = true;
	if (ev->room) {
		run(c, op);
	} else if (pending != 0 && !info->pending_removed && !op->target->tail) {
		/* An earlier attempt has stored it: that copy will do. */
		op->store = S_OK;
		op->len = info->pending_len;
		op->check_here = info->pending_check;
		op->state = RUNNING;
		if (op->target->whole)
			start_whole(c, op);
		else
			start_forward(c, op);
	} else {
		op->no_space = op->unknown;
		chunk_craq_finish(c, op, op->unknown ? ERR_BUSY : -ENOSPC);
	}
}

static void
have_settle(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_info *info)
{
	struct chunk_craq_entry *e = op->entry;
	uint64_t committed = info != NULL ? info->committed : 0;

	if (e->doubt != 0 && (committed >= e->doubt ||
	    (info != NULL && info->pending == e->doubt)))
		chunk_craq_clear_doubt(e);
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
		chunk_craq_want(c, op, CRAQ_FETCH);
	}
}

static void
have_sync(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_info *info)
{
	if (settle_older(c, op, info))
		return;
	if (info == NULL) {
		/* The number says nothing: a forced removal takes all there is. */
		job(op, true, UPDATE_REMOVE, false, 1, 0, 0);
		op->unknown = false;
		op->store = S_OK;
		op->state = RUNNING;
		start_forward(c, op);
		return;
	}
	job(op, true, UPDATE_REPLACE, true, info->committed, 0,
	    info->committed_epoch);
	op->unknown = false;
	op->store = S_OK;
	op->len = info->committed_len;
	op->check_here = info->committed_check;
	op->state = LOADING;
	chunk_craq_want(c, op, CRAQ_LOAD);
}

static void
have_repair(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_info *info)
{
	if (op->force && (info == NULL || info->committed != op->version)) {
		chunk_craq_finish(c, op, -ESTALE);
		return;
	}
	if (info == NULL) {
		done_already(c, op, 0, NULL);
		return;
	}
	if (info->pending != 0) {
		chunk_craq_finish(c, op, ERR_BUSY);
		return;
	}
	job(op, true, UPDATE_REPLACE, true, info->committed, 0,
	    info->committed_epoch);
	op->check = info->committed_check;
	op->touched = true;
	op->state = FETCHING;
	chunk_craq_want(c, op, CRAQ_FETCH);
}

void
chunk_craq_have(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_craq_event *ev)
{
	assert(op->state == LOOKING);
	assert(!op->stale);
	if (ev->now_ns >= op->deadline_ns && op->kind != CRAQ_SYNC) {
		chunk_craq_finish(c, op, -ETIMEDOUT);
		return;
	}
	if (ev->rc != 0) {
		chunk_craq_finish(c, op, ev->rc);
		return;
	}
	switch (op->kind) {
	case CRAQ_WRITE:
	case CRAQ_CUT:
		have_head(c, op, ev);
		break;
	case CRAQ_UPDATE:
		have_update(c, op, ev);
		break;
	case CRAQ_SETTLE:
		have_settle(c, op, ev->info);
		break;
	case CRAQ_SYNC:
		have_sync(c, op, ev->info);
		break;
	case CRAQ_REPAIR:
		have_repair(c, op, ev->info);
		break;
	}
}

/* ---- store and forward have both come to something ---- */

static void
commit(struct chunk_craq *c, struct chunk_craq_op *op)
{
	bool check = op->forward == F_DONE && op->job_kind != UPDATE_REMOVE &&
	    op->rep_version == op->job_version;

	assert(op->store == S_OK);				/* 3 */
	assert(op->forward == F_DONE || op->target->tail);	/* 3 */
	if (check && op->check_below != op->check_here) {
		chunk_craq_finish(c, op, ERR_CORRUPT);
		return;
	}
	if (op->kind == CRAQ_SYNC && op->job_own) {
		op->rep_version = op->job_version;
		chunk_craq_finish(c, op, 0);
		return;
	}
	chunk_craq_want(c, op, CRAQ_COMMIT);
	if (op->entry->doubt != 0 && op->entry->doubt <= op->job_version)
		chunk_craq_clear_doubt(op->entry);
	if (!op->job_own) {
		if (op->stale)
			chunk_craq_finish(c, op, ERR_STALE_CHAIN);
		else
			chunk_craq_look(c, op);
		return;
	}
	op->rep_version = op->job_version;
	chunk_craq_finish(c, op, 0);
}

/* Its bytes are written anew, or not; the version is what it was. */
static void
repaired(struct chunk_craq *c, struct chunk_craq_op *op)
{
	int rc = op->store_rc;

	if (op->store == S_OK) {
		rc = op->force || op->check_here == op->check ? 0 : ERR_CORRUPT;
		chunk_craq_want(c, op, rc == 0 ? CRAQ_COMMIT : CRAQ_ABORT);
	}
	op->rep_version = op->job_version;
	chunk_craq_finish(c, op, rc);
}

/* Nobody behind us has the version, nor will: it is void. */
static void
refused(struct chunk_craq *c, struct chunk_craq_op *op)
{
	struct chunk_craq_entry *e = op->entry;

	assert(!op->unknown);					/* 4 */
	/* A replica behind us may have dropped what a crash brings back: its number is
	 * not given to other bytes. */
	if (op->target->head)
		op->target->skip++;
	if (op->store == S_OK || op->pending_here)
		chunk_craq_want(c, op, CRAQ_ABORT);
	if (e->doubt != 0 && e->doubt == op->job_version)
		chunk_craq_clear_doubt(e);
	if (op->job_own)
		chunk_craq_finish(c, op, op->forward_rc);
	else
		chunk_craq_look(c, op);	/* that was another's */
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
	if (op->kind == CRAQ_REPAIR) {
		repaired(c, op);
		return;
	}
	if (op->stale && op->forward != F_DONE) {
		if (op->store == S_FAILED && op->sent && op->forward != F_REFUSED)
			chunk_craq_set_doubt(op);
		chunk_craq_finish(c, op, ERR_STALE_CHAIN);
		return;
	}
	if (op->forward == F_REFUSED) {
		refused(c, op);
		return;
	}
	if (op->store == S_OK) {
		if (op->forward == F_GAVE_UP)
			chunk_craq_finish(c, op, -ETIMEDOUT);
		else
			commit(c, op);
		return;
	}
	if (!op->sent) {
		chunk_craq_finish(c, op, op->store_rc);
	} else if (op->forward == F_DONE && op->target->head && !op->job_loaded &&
	    op->store_rc != -EIO && op->store_rc != -ENOSPC &&
	    op->job_kind != UPDATE_REMOVE && !op->stale) {
		op->state = FETCHING;
		chunk_craq_want(c, op, CRAQ_FETCH);
	} else {
		op->no_space |= op->store_rc == -ENOSPC;
		chunk_craq_set_doubt(op);
		if (op->stale)
			chunk_craq_finish(c, op, ERR_STALE_CHAIN);
		else if (op->store_rc == -EIO || op->store_rc == ERR_CORRUPT)
			chunk_craq_finish(c, op, op->store_rc);
		else
			chunk_craq_finish(c, op, ERR_BUSY);
	}
}

void
chunk_craq_loaded(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_craq_event *ev)
{
	bool fetched = op->state == FETCHING;

	op->digest = ev->check;
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
		chunk_craq_finish(c, op, ERR_STALE_CHAIN);
		return;
	}
	if (op->kind == CRAQ_REPAIR && ev->rc != 0) {
		chunk_craq_finish(c, op, ERR_BUSY);
		return;
	}
	if (!fetched && ev->rc != 0 && op->kind == CRAQ_SYNC) {
		chunk_craq_finish(c, op, ev->rc);
		return;
	}
	if (!fetched && ev->rc == ERR_CORRUPT) {
		/* Our own copy of what we promised is damaged. */
		op->store = S_NONE;
		op->state = FETCHING;
		chunk_craq_want(c, op, CRAQ_FETCH);
		return;
	}
	if (fetched && ev->rc == -ENOENT && op->forward != F_DONE &&
	    !op->pending_here) {
		/* Nobody behind us has it, nor ever will: the number is void. */
		if (op->target->head)
			op->target->skip++;
		if (op->entry->doubt != 0)
			chunk_craq_clear_doubt(op->entry);
		chunk_craq_look(c, op);
		return;
	}
	if (ev->rc != 0) {
		if (!op->pending_here)
			chunk_craq_set_doubt(op);
		chunk_craq_finish(c, op, ERR_BUSY);
		return;
	}
	op->state = RUNNING;
	if (fetched) {
		op->job_kind = UPDATE_REPLACE;
		op->job_loaded = true;
		op->job_epoch = ev->epoch;
		op->whole = true;
		start_store(c, op);
		if (op->target->tail || op->kind == CRAQ_REPAIR)
			return;
		if (op->target->whole && op->forward != F_DONE)
			op->forward = F_LOAD_WAIT;
	}
	if (op->forward == F_NONE)
		start_forward(c, op);
}

void
chunk_craq_stored(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_craq_event *ev)
{
	if (op->state == PURGING) {
		if (op->stale)
			chunk_craq_finish(c, op, ERR_STALE_CHAIN);
		else if (ev->rc != 0)
			chunk_craq_finish(c, op, ERR_BUSY);
		else
			chunk_craq_look(c, op);
		return;
	}
	assert(op->state == RUNNING);
	assert(op->store == S_BUSY);
	if (ev->rc == 0) {
		op->store = S_OK;
		op->len = ev->len;
		op->check_here = ev->check;
		if (op->forward == F_LOAD_WAIT) {
			if (op->stale)
				op->forward = F_GAVE_UP;
			else
				start_whole(c, op);
		}
	} else if (op->pending_here && refusal(ev->rc)) {
		/* The copy of an earlier attempt is still there and will do. */
		op->store = S_FAILED;
		op->store_rc = ERR_BUSY;
		op->no_space |= ev->rc == -ENOSPC;
	} else {
		bool wait = ev->rc == ERR_BUSY || ev->rc == -ENOMEM;

		op->store = S_FAILED;
		op->store_rc = ev->rc;
		if (wait && op->forward != F_NONE && again(c, op, ev->now_ns))
			op->store = S_RETRY;
	}
	settle(c, op);
}

void
chunk_craq_forwarded(struct chunk_craq *c, struct chunk_craq_op *op,
    const struct chunk_craq_event *ev)
{
	int rc = ev->rc;

	assert(op->state == RUNNING);
	assert(op->forward == F_BUSY);
	if (rc == 0 && ev->version < op->job_version)
		rc = ERR_VERSION_GAP;
	/* A SYNCING successor that differs is told again, all of it. */
	if (rc == 0 && op->target->whole && op->job_kind != UPDATE_REMOVE &&
	    ev->check != op->check_here)
		rc = ERR_CORRUPT;
	op->forward_rc = rc;
	if (rc == 0) {
		op->forward = F_DONE;
		op->rep_version = ev->version;
		op->len_below = ev->len;
		op->check_below = ev->check;
	} else if ((rc == -ENOSPC || (refusal(rc) && !op->unknown)) &&
	    !op->target->whole) {
		op->unknown = false;
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
				chunk_craq_want(c, op, CRAQ_LOAD);
			}
		} else {
			op->forward = again(c, op, ev->now_ns) ? F_WAIT :
			    F_GAVE_UP;
		}
	}
	settle(c, op);
}

void
chunk_craq_woken(struct chunk_craq *c, struct chunk_craq_op *op)
{
	assert(op->state == RUNNING);
	if (op->store == S_RETRY)
		start_store(c, op);
	if (op->forward == F_WAIT)
		start_forward(c, op);
}

/* The chain has moved on from under @op: start nothing more, end soon. */
void
chunk_craq_end_stale(struct chunk_craq *c, struct chunk_craq_op *op)
{
	bool calls = false;

	switch (op->state) {
	case QUEUED:
		chunk_craq_finish(c, op, ERR_STALE_CHAIN);
		return;
	case LOADING:			/* a disk request: ends by itself */
	case PURGING:
		return;
	case FETCHING:
		chunk_craq_want(c, op, CRAQ_CANCEL);
		if (op->store == S_FAILED)
			chunk_craq_set_doubt(op);
		chunk_craq_finish(c, op, ERR_STALE_CHAIN);
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
		chunk_craq_want(c, op, CRAQ_CANCEL);
	settle(c, op);
}

