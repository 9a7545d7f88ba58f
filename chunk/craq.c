/* SPDX-License-Identifier: MIT */
/* craq.c - the chunks that are being worked on, their turns, and what the owner is asked to
 * do; craq_op.c decides what an operation does next.
 *
 * Invariants, asserted by chunk_craq_check() or where they are made:
 *   1  only the first operation of a chunk is past QUEUED
 *   2  an entry has an operation or a doubt, never neither
 *   3  commit: stored here, and nobody takes writes behind us, or the successor has
 *	committed the same version
 *   4  abort: never when something behind us may hold the version
 *   5  a version is over the committed one it builds on
 *   6  operations of an older chain version start nothing
 *   7  a target's stale count is what it says
 *   8  a reading tail, a SYNCING and a resting target leave nothing in doubt
 *   9  what a SYNCING successor gets is stored here before */
#include "chunk/craq.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/craq_impl.h"
#include "conf/crc32c.h"
#include "conf/err.h"

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

void
chunk_craq_set_doubt(struct chunk_craq_op *op)
{
	struct chunk_craq_entry *e = op->entry;

	/* What a reading tail has not got is not committed; a replica that comes back is
	 * compared as a whole. */
	if (!chunk_craq_may_doubt(op->target))
		return;
	e->doubt = op->job_version;
	e->doubt_removed = op->job_kind == UPDATE_REMOVE;
	e->doubt_epoch = op->job_epoch;
	list_remove(&e->in_doubts);
	list_push_back(&e->target->doubts, &e->in_doubts);
}

void
chunk_craq_clear_doubt(struct chunk_craq_entry *e)
{
	e->doubt = 0;
	list_remove(&e->in_doubts);
}

/* ---- effects ---- */

void
chunk_craq_want(struct chunk_craq *c, struct chunk_craq_op *op, enum chunk_craq_eff what)
{
	op->todo |= (uint16_t)(1u << what);
	if (list_empty(&op->in_ready))
		list_push_back(&c->ready, &op->in_ready);
}

void
chunk_craq_look(struct chunk_craq *c, struct chunk_craq_op *op)
{
	op->state = LOOKING;
	chunk_craq_want(c, op, CRAQ_LOOK);
}

/* Ends @op and lets the next one at the chunk. */
void
chunk_craq_finish(struct chunk_craq *c, struct chunk_craq_op *op, int rc)
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
		chunk_craq_want(c, op, CRAQ_REPLY);
		if (!first || e->ops_n == 0)
			break;
		op = list_entry(e->ops.next, struct chunk_craq_op, in_entry);
		if (!op->stale) {
			chunk_craq_look(c, op);
			break;
		}
		rc = ERR_STALE_CHAIN;
	}
	release_entry(c, e);
}

static bool
takes(const struct chunk_craq_target *t, enum chunk_craq_kind kind)
{
	switch (kind) {
	case CRAQ_WRITE:
	case CRAQ_CUT:
		return t->head;
	case CRAQ_UPDATE:
	case CRAQ_SETTLE:
		return !t->head;
	case CRAQ_SYNC:
		return t->read_tail && t->whole;
	case CRAQ_REPAIR:
		return !t->syncing;
	}
	return false;
}

static int
admit(struct chunk_craq *c, struct chunk_craq_op *op)
{
	struct chunk_craq_target *t = op->target;
	struct chunk_craq_entry *e;

	if (op->chain_version != t->version)
		return ERR_STALE_CHAIN;
	if (!t->active || !takes(t, op->kind))
		return ERR_NOT_OWNER;
	if (!t->serving)
		return ERR_CHAIN_RECOVERING;
	if ((e = take_entry(c, t, op->id)) == NULL)
		return ERR_BUSY;
	if (e->ops_n >= CHUNK_CRAQ_WAIT_MAX)
		return ERR_BUSY;
	op->entry = e;
	op->todo = 0;
	op->stale = op->touched = op->whole = op->unknown = op->sent = false;
	op->pending_here = op->job_own = op->job_loaded = op->no_space = false;
	op->store = S_NONE;
	op->forward = F_NONE;
	op->rep_version = op->job_version = op->job_base = 0;
	op->len = op->check_here = op->check_below = op->digest = 0;
	op->store_rc = op->forward_rc = op->rc = 0;
	op->state = QUEUED;
	list_init(&op->in_ready);
	list_push_back(&e->ops, &op->in_entry);
	e->ops_n++;
	list_push_back(&t->ops, &op->in_target);
	if (e->ops_n == 1)
		chunk_craq_look(c, op);
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
		chunk_craq_have(c, op, ev);
		return 0;
	case CRAQ_EV_LOADED:
		chunk_craq_loaded(c, op, ev);
		return 0;
	case CRAQ_EV_STORED:
		chunk_craq_stored(c, op, ev);
		return 0;
	case CRAQ_EV_FORWARDED:
		chunk_craq_forwarded(c, op, ev);
		return 0;
	case CRAQ_EV_WOKEN:
		chunk_craq_woken(c, op);
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
	if (kind == CRAQ_FORWARD) {
		out->force = op->target->whole;
		out->check = op->digest;
		if (op->whole) {
			out->update = UPDATE_REPLACE;
			out->loaded = op->job_kind != UPDATE_REPLACE ||
			    op->job_loaded || out->force;
		}
	}
	if (kind == CRAQ_REPLY) {
		out->rc = op->rc;
		out->version = op->rep_version;
		out->len = op->len;
		out->check = op->check_here;
		out->touched = op->touched && op->rc == 0;
		out->no_space = op->no_space && op->rc != 0;
	}
	return true;
}

/* ---- the chain ---- */

bool
chunk_craq_may_doubt(const struct chunk_craq_target *t)
{
	return t->active && !t->read_tail && !t->syncing;
}

static void
drop_doubts(struct chunk_craq *c, struct chunk_craq_target *t)
{
	list_for_each_safe(at, tmp, &t->doubts) {
		struct chunk_craq_entry *e = list_entry(at, struct
		    chunk_craq_entry, in_doubts);

		chunk_craq_clear_doubt(e);
		release_entry(c, e);
	}
}

static void
move(struct chunk_craq *c, struct chunk_craq_target *t,
    const struct chunk_craq_place *p, bool active)
{
	struct list left, *it;

	assert(p->version > t->version || (!active && p->version == t->version));
	assert(!p->syncing || (p->tail && !p->head && !p->read_tail));
	assert(!p->whole || (p->read_tail && !p->tail));
	assert(list_empty(&c->ready));		/* all effects were taken */
	t->floor = t->fence_n = 0;		/* calls carry the version */
	t->version = p->version;
	t->active = active;
	t->serving = false;
	t->head = p->head;
	t->tail = p->tail;
	t->read_tail = p->read_tail;
	t->syncing = p->syncing;
	t->whole = p->whole;
	t->handing = false;
	if (!chunk_craq_may_doubt(t))
		drop_doubts(c, t);
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
		chunk_craq_end_stale(c, op);
	}
}

void
chunk_craq_move(struct chunk_craq *c, struct chunk_craq_target *t,
    const struct chunk_craq_place *p)
{
	move(c, t, p, true);
}

void
chunk_craq_serve(struct chunk_craq *c, struct chunk_craq_target *t)
{
	(void)c;
	assert(t->active);
	assert(t->stale == 0);
	t->serving = true;
}

void
chunk_craq_hand(struct chunk_craq_target *t)
{
	assert(t->serving && t->read_tail && t->whole);
	t->handing = true;
}

void
chunk_craq_rest(struct chunk_craq *c, struct chunk_craq_target *t,
    uint32_t version)
{
	move(c, t, &(struct chunk_craq_place){ .version = version }, false);
}

void
chunk_craq_target_fini(struct chunk_craq *c, struct chunk_craq_target *t)
{
	assert(list_empty(&t->ops));
	drop_doubts(c, t);
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
chunk_craq_awaited(const struct chunk_craq_op *op)
{
	return op->entry != NULL && op->entry->ops_n > 1;
}

bool
chunk_craq_doubts(const struct chunk_craq *c, const struct chunk_craq_target *t,
    struct chunk_id id)
{
	const struct chunk_craq_entry *e = lookup(c, t, id);

	return e != NULL && e->doubt != 0;
}

bool
chunk_craq_doubts_from(const struct chunk_craq_target *t, struct chunk_id from,
    uint32_t epoch)
{
	list_for_each(it, &t->doubts) {
		const struct chunk_craq_entry *e = list_entry(it,
		    struct chunk_craq_entry, in_doubts);

		if (e->id.ino == from.ino && e->id.index >= from.index &&
		    e->doubt_epoch < epoch)
			return true;
	}
	return false;
}

bool
chunk_craq_left(const struct chunk_craq *c, const struct chunk_craq_target *t,
    struct chunk_id id, const struct chunk_info *info)
{
	const struct chunk_craq_entry *e = lookup(c, t, id);

	return (e == NULL || e->ops_n == 0) &&
	    (e != NULL || (info != NULL && info->pending != 0));
}

uint32_t
chunk_craq_digest(const struct chunk_info *info, uint64_t version)
{
	bool pending = version == info->pending && version != info->committed;
	uint64_t w[4] = { version, pending ? info->pending_len :
	    info->committed_len, pending ? info->pending_check :
	    info->committed_check, pending ? info->pending_epoch :
	    info->committed_epoch };
	uint32_t sum = crc32c(0, w, sizeof(w));

	for (uint32_t i = 0; i < info->dedupe_n; i++) {
		const struct chunk_dedupe *d = &info->dedupe[i];

		if (d->version > version)
			continue;
		sum = crc32c(sum, &d->client, sizeof(d->client));
		sum = crc32c(sum, &d->seq, sizeof(d->seq));
		sum = crc32c(sum, &d->version, sizeof(d->version));
	}
	return sum;
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
	    "load", "fetch", "purge", "store", "forward", "wake", "reply" };

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
			assert(e->doubt == 0 ||
			    chunk_craq_may_doubt(e->target));		/* 8 */
			list_for_each(it, &e->target->ops)
				stale += list_entry(it, struct chunk_craq_op,
				    in_target)->stale;
			assert(stale == e->target->stale);		/* 7 */
		}
	}
}
