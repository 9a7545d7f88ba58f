/* SPDX-License-Identifier: MIT */
/* check_suspect.c - chunks that looked wrong, looked at again, some seconds apart.
 *
 * Replicas are not asked at the same moment, and a write is under way at one and not yet at
 * the next.  So versions that differ, or are pending, are a fault only when nothing at all
 * has moved in all looks; equal versions of different bytes are one at any time.
 *
 * To mend: chunks of no inode are removed; what differs is for check_differs.c. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "conf/err.h"
#include "meta/gc.h"
#include "roles/check_chunks.h"

#define CUT_MAX		256u

static const char *const judged[] = { "right", "replicas differ", "unsettled version",
	"no such inode", "on a wrong chain" };

static void go_on(struct clock_timer *t);

void
check_suspect_next(struct check_chunks *w)
{
	w->at++;
	check_later(w->c, 0, go_on);
}

/* ---- chunks of no inode ---- */

/* What came of the removal that was told. */
static void
removed(struct check_chunks *w, int rc)
{
	check_repaired(w->c, w->number, rc);
	w->c->mended += rc == 0;
	w->number = 0;
}

static void
cut_answered(struct net_call *call, int rc)
{
	struct check *c = container_of(call, struct check, call);
	struct check_chunks *w = c->chunk_walk;
	const struct msg_cut_rep *rep = call->rep;

	if (rc == 0 && rep->more) {
		check_later(c, 0, go_on);	/* it is looked at, and cut, again */
		return;
	}
	removed(w, rc);
	check_suspect_next(w);
}

static bool
cut(struct check_chunks *w, const struct check_suspect *s)
{
	struct check *c = w->c;
	struct msg_cut q = { .chain = w->row.id, .chain_version = w->row.version,
	    .target = w->row.targets[0], .ino = s->id.ino, .epoch = GC_EPOCH_GONE,
	    .max = CUT_MAX };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(c->env.clock) + CHECK_ATTEMPT_NS
	};
	int rc;

	if (w->number == 0)
		w->number = check_repair(c, "remove the chunks of inode %" PRIu64
		    " on chain %u", s->id.ino, w->row.id);
	rc = net_call_start(&c->call, c->env.hub, &w->replicas[0].addr, MSG_cut, &q,
	    &opts, cut_answered);
	if (rc != 0)
		removed(w, rc);
	return rc == 0;
}

/* ---- verdicts ---- */

static void
tell(struct check_chunks *w, enum check_judgement how)
{
	const struct check_suspect *s = &w->suspects[w->at];
	char text[512] = "";
	size_t n = 0;

	for (unsigned i = 0; i < w->n && n < sizeof(text); i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n,
		    " target %u: %" PRIu64 "/%" PRIu64 " %08x;", w->row.targets[i],
		    w->views[i].committed, w->views[i].pending, w->views[i].check);
	w->c->faults++;
	check_fault(w->c, "chain %u inode %" PRIu64 " chunk %u: %s;%s%s", w->row.id,
	    s->id.ino, s->id.index, judged[how], text, how != ORPHAN ||
	    !check_is_named(w->c, s->id.ino) ? "" : " an entry leads to it;");
}

/* The suspect was wrong each time. */
static void
convict(struct check_chunks *w, enum check_judgement how)
{
	const struct check_how *may = &w->c->how;

	if (w->number == 0)
		tell(w, how);
	if (how == ORPHAN && may->discard && !w->c->distrust && cut(w, &w->suspects[w->at]))
		return;
	if (how == DIFFERS && may->repair && check_differs_start(w))
		return;
	check_suspect_next(w);
}

/* All versions of all replicas as one number, never 0. */
static uint64_t
mix(const struct check_chunks *w)
{
	uint64_t h = w->row.version;

	for (unsigned i = 0; i < w->n; i++) {
		h = (h ^ w->views[i].committed) * 0x9e3779b97f4a7c15ull;
		h = (h ^ h >> 29 ^ w->views[i].pending) * 0xbf58476d1ce4e5b9ull;
		h ^= h >> 32;
	}
	return h | 1;
}

/* It is only on its way from one version to the next. */
static bool
in_use(struct check_chunks *w, struct check_suspect *s, enum check_judgement how)
{
	uint64_t versions = mix(w), before = s->versions;
	bool one = how == DIFFERS;

	s->versions = versions;
	for (unsigned i = 1; i < w->n; i++)
		one &= w->views[i].committed == w->views[0].committed;
	if (one || (how != DIFFERS && how != UNSETTLED))
		return false;
	return before != 0 && before != versions;
}

/* ---- another look ---- */

/* The key before @id, after which it is the first. */
static struct chunk_id
before(struct chunk_id id)
{
	if (id.index > 0)
		id.index--;
	else {
		id.ino--;
		id.index = UINT32_MAX;
	}
	return id;
}

static void
look(struct check *c)
{
	struct check_chunks *w = c->chunk_walk;
	struct check_suspect *s = &w->suspects[w->at];

	if (check_chunks_aim(w, s->chain) != 0) {
		w->rc = -EAGAIN;
		check_suspect_looked(w);
		return;
	}
	for (unsigned i = 0; i < w->n; i++) {
		w->replicas[i].last = before(s->id);
		w->replicas[i].started = true;
		check_chunks_ask(w, &w->replicas[i], 1);
	}
	if (w->asking == 0)
		check_suspect_looked(w);
}

/* Replicas that cannot be asked: once more, or never. */
static void
blind(struct check_chunks *w)
{
	struct check_suspect *s = &w->suspects[w->at];

	if (w->tries++ < CHECK_CHAIN_TRIES) {
		check_later(w->c, CHECK_PAUSE_NS, go_on);
		return;
	}
	w->tries = 0;
	if (w->number != 0)		/* told as a fault, and half removed */
		removed(w, w->rc);
	else {
		w->c->faults++;
		check_fault(w->c, "chain %u inode %" PRIu64 " chunk %u cannot be looked "
		    "at again: %s", s->chain, s->id.ino, s->id.index,
		    err_text(w->rc));
	}
	s->how = RIGHT;
	check_suspect_next(w);
}

void
check_suspect_looked(struct check_chunks *w)
{
	struct check_suspect *s = &w->suspects[w->at];
	enum check_judgement how;
	bool there = false;

	if (w->rc != 0) {
		blind(w);
		return;
	}
	w->tries = 0;
	for (unsigned i = 0; i < w->n; i++) {
		const struct check_replica *r = &w->replicas[i];
		const struct msg_list_row *row = &r->rows[0];

		w->views[i] = (struct check_view){ 0 };
		if (r->n == 0 || chunk_id_cmp(row->chunk, s->id) != 0)
			continue;
		there = true;
		w->views[i] = (struct check_view){ row->committed, row->pending,
		    row->check, row->len };
	}
	how = there ? check_chunks_judge(w, s->id, w->views) : RIGHT;
	if (in_use(w, s, how))
		how = RIGHT;
	s->how = (uint8_t)how;
	if (how != RIGHT && w->round == CHECK_ROUNDS) {
		convict(w, how);
		return;
	}
	if (w->number != 0)		/* it was being removed, and has gone */
		removed(w, 0);
	check_suspect_next(w);
}

static void
next_look(struct check_chunks *w)
{
	struct check *c = w->c;
	bool any = false;

	while (w->at < w->suspect_n && w->suspects[w->at].how == RIGHT)
		w->at++;
	if (w->at < w->suspect_n) {
		check_route(c, look);
		return;
	}
	for (uint32_t i = 0; i < w->suspect_n; i++)
		any |= w->suspects[i].how != RIGHT;
	if (!any || w->round == CHECK_ROUNDS) {
		check_chunks_done(c);
		return;
	}
	w->round++;
	w->at = 0;
	check_later(c, CHECK_ROUND_NS, go_on);
}

static void
go_on(struct clock_timer *t)
{
	next_look(container_of(t, struct check, timer)->chunk_walk);
}

void
check_suspects_start(struct check_chunks *w)
{
	w->again = true;
	w->at = 0;
	check_later(w->c, w->suspect_n > 0 ? CHECK_ROUND_NS : 0, go_on);
}
