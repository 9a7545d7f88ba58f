/* SPDX-License-Identifier: MIT */
/* check_differs.c - replicas that differ are made the same again.
 *
 * Which one is right?
 *
 *	one version, different bytes	each replica reads all of its own; bytes that fail
 *					their checksums are wrong.  Of the others the ones
 *					that most of all replicas agree with are right; or, only
 *					when the operator says so, the reading tail, whose
 *					committed version is what clients were shown (Terrace and
 *					Freedman, CRAQ), or a target that is named.  The wrong
 *					ones take this chunk from it, under the same version
 *	versions differ			the one that all others, two at least, say something
 *					else than is brought up to date: the manager has all of
 *					its chunks compared and copied */
#include <errno.h>
#include <inttypes.h>

#include "conf/err.h"
#include "roles/check_chunks.h"

static void read_next(struct check_chunks *w);
static void mend_next(struct check_chunks *w);

static void
fill_opts(const struct check_chunks *w, struct net_call_opts *opts)
{
	*opts = (struct net_call_opts){
		.deadline_ns = clock_now(w->c->env.clock) + 2 * CHECK_ATTEMPT_NS };
}

/* ---- a whole replica ---- */

/* The replica that all others agree against; -1: nobody knows who is right. */
static int
odd_one(const struct check_chunks *w)
{
	const struct check_view *v = w->views;
	int odd = -1;

	for (unsigned i = 0; w->n >= 3 && i < w->n; i++) {
		unsigned other = i == 0 ? 1 : 0, agree = 0;

		for (unsigned k = 0; k < w->n; k++)
			agree += k != i && check_view_same(&v[k], &v[other]);
		if (agree == w->n - 1 && !check_view_same(&v[i], &v[other]))
			odd = (int)i;
	}
	return odd;
}

static void
resync_answered(struct net_call *call, int rc)
{
	struct check *c = container_of(call, struct check, call);
	struct check_chunks *w = c->chunk_walk;

	check_repaired(c, w->number, rc);
	c->mended += rc == 0;
	w->number = 0;
	check_suspect_next(w);
}

static bool
resync(struct check_chunks *w)
{
	struct check *c = w->c;
	struct msg_chain_resync q = { .chain = w->row.id, .version = w->row.version };
	struct net_call_opts opts;
	int odd = odd_one(w);

	if (odd < 0)
		return false;
	fill_opts(w, &opts);
	q.target = w->row.targets[odd];
	w->number = check_repair(c, "bring replica %u of chain %u up to date, all of it",
	    q.target, w->row.id);
	if (net_call_start(&c->call, c->env.hub, &c->managers[c->manager_at],
	    MSG_chain_resync, &q, &opts, resync_answered) == 0)
		return true;
	check_repaired(c, w->number, ERR_BUSY);
	w->number = 0;
	return false;
}

/* ---- one chunk: who is right ---- */

static bool
agree(const struct check_chunks *w, unsigned a, unsigned b)
{
	return check_view_same(&w->views[a], &w->views[b]);
}

static bool
preferred(const struct check_chunks *w, unsigned i)
{
	const struct check_how *how = &w->c->how;

	return how->prefer_tail ? i == w->n - 1 : how->prefer != 0 &&
	    w->row.targets[i] == how->prefer;
}

/* Sets w->good; false: nobody can tell. */
static bool
decide(struct check_chunks *w)
{
	unsigned kinds = 0, first = w->n, most = 0, wanted = w->n;

	for (unsigned i = 0; i < w->n; i++) {
		unsigned same = 0;

		if (w->damaged[i])
			continue;
		for (unsigned k = 0; k < w->n; k++)
			same += !w->damaged[k] && agree(w, i, k);
		kinds += first == w->n || !agree(w, i, first);
		if (first == w->n)
			first = i;
		if (same * 2 > w->n)
			w->good = i, most = same;
		if (preferred(w, i))
			wanted = i;
	}
	if (kinds == 1)
		w->good = first;	/* all others are damaged, or as it is */
	else if (most < 2 && wanted < w->n)
		w->good = wanted;
	return kinds == 1 || most >= 2 || wanted < w->n;
}

/* ---- the wrong ones take it from the right one ---- */

static void
mended(struct net_call *call, int rc)
{
	struct check *c = container_of(call, struct check, call);
	struct check_chunks *w = c->chunk_walk;

	w->failed |= rc != 0;
	check_repaired(c, w->number, rc);
	w->number = 0;
	w->replica++;
	mend_next(w);
}

static void
mend_next(struct check_chunks *w)
{
	const struct check_suspect *s = &w->suspects[w->at];
	struct check *c = w->c;
	struct net_call_opts opts;
	struct msg_mend q = { .chain = w->row.id, .chain_version = w->row.version,
	    .chunk = s->id, .from = w->row.targets[w->good],
	    .version = w->views[w->good].committed };
	int rc;

	while (w->replica < w->n && !w->damaged[w->replica] &&
	    agree(w, w->replica, w->good))
		w->replica++;
	if (w->replica == w->n) {
		c->mended += !w->failed;
		check_suspect_next(w);
		return;
	}
	fill_opts(w, &opts);
	q.target = w->row.targets[w->replica];
	w->number = check_repair(c, "chain %u inode %" PRIu64 " chunk %u: replica %u, which "
	    "%s, takes it from replica %u", w->row.id, s->id.ino, s->id.index, q.target,
	    w->damaged[w->replica] ? "is damaged" : "differs", q.from);
	rc = net_call_start(&c->call, c->env.hub, &w->replicas[w->replica].addr,
	    MSG_mend, &q, &opts, mended);
	if (rc != 0) {
		check_repaired(c, w->number, rc);
		w->number = 0;
		check_suspect_next(w);
	}
}

static void
have_read(struct check_chunks *w)
{
	const struct check_suspect *s = &w->suspects[w->at];
	unsigned sound = 0;

	for (unsigned i = 0; i < w->n; i++)
		sound += !w->damaged[i];
	if (sound > 0 && decide(w)) {
		w->replica = 0;
		w->failed = false;
		mend_next(w);
		return;
	}
	check_note(w->c, "chain %u inode %" PRIu64 " chunk %u: %s", w->row.id, s->id.ino,
	    s->id.index, sound == 0 ? "no replica is whole" :
	    "nothing tells which replica is right; see --prefer");
	check_suspect_next(w);
}

/* ---- every replica reads all of it ---- */

static void
piece_read(struct net_call *call, int rc)
{
	struct check *c = container_of(call, struct check, call);
	struct check_chunks *w = c->chunk_walk;
	const struct msg_read_rep *rep = call->rep;
	const struct check_view *v = &w->views[w->replica];
	uint32_t got = 0;

	if (rc == 0 && rep->items.n != 1)
		rc = ERR_BAD_MESSAGE;
	if (rc == 0)
		rc = rep->items.v[0].rc;
	if (rc == 0) {
		got = rep->items.v[0].len;
		if (got > CHECK_PIECE || rep->items.v[0].version != v->committed)
			rc = -ESTALE;
	}
	if (rc != 0 && rc != ERR_CORRUPT) {
		check_note(c, "chain %u inode %" PRIu64 " chunk %u: replica %u cannot be "
		    "read: %s", w->row.id, w->suspects[w->at].id.ino,
		    w->suspects[w->at].id.index, w->row.targets[w->replica],
		    rc == -ESTALE ? "it has changed meanwhile" : err_text(rc));
		check_suspect_next(w);
		return;
	}
	w->damaged[w->replica] |= rc == ERR_CORRUPT;
	w->offset += CHECK_PIECE;
	if (rc != 0 || got < CHECK_PIECE || w->offset >= v->len) {
		w->replica++;
		w->offset = 0;
	}
	read_next(w);
}

static void
read_next(struct check_chunks *w)
{
	const struct check_suspect *s = &w->suspects[w->at];
	struct msg_read_item item = { .chunk = s->id, .offset = w->offset,
	    .len = CHECK_PIECE };
	struct msg_read q = { .chain = w->row.id, .chain_version = w->row.version,
	    .items = { &item, 1 } };
	struct check *c = w->c;
	struct net_call_opts opts;

	if (w->replica == w->n) {
		have_read(w);
		return;
	}
	fill_opts(w, &opts);
	w->iov = (struct iovec){ w->piece, CHECK_PIECE };
	opts.recv = &w->iov;
	opts.recv_n = 1;
	q.target = w->row.targets[w->replica];
	if (net_call_start(&c->call, c->env.hub, &w->replicas[w->replica].addr, MSG_read,
	    &q, &opts, piece_read) != 0)
		check_suspect_next(w);
}

bool
check_differs_start(struct check_chunks *w)
{
	for (unsigned i = 1; i < w->n; i++)
		if (w->views[i].committed != w->views[0].committed)
			return resync(w);
	for (unsigned i = 0; i < w->n; i++)
		w->damaged[i] = false;
	w->replica = 0;
	w->offset = 0;
	read_next(w);
	return true;
}
