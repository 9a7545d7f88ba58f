/* SPDX-License-Identifier: MIT */
/* check_chunks.c - the chunks of every chain: all serving replicas list theirs page by page,
 * the lists are merged in key order, and each chunk is judged:
 *
 *	differs		replicas do not have the same committed version with the same digest
 *	unsettled	a version is neither committed nor gone
 *	orphan		the inode is not in the image of metadata, and was made before it
 *	misplaced	the layout of its file puts it on another chain
 *
 * To mend a replica that differs from two others that agree, the manager is asked to bring it
 * up to date once more: a resync compares all of its chunks and copies what is not equal.
 *
 * The cluster is in use, so a chunk that looks wrong is kept as a suspect and looked at
 * again, a second apart; it is a fault when it is wrong every time. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "conf/err.h"
#include "meta/gc.h"
#include "meta/inode.h"
#include "roles/check_impl.h"

#define PAGE_ROWS	512u
#define CHAIN_TRIES	50u		/* times that one chain may move under us */
#define ROUND_NS	NS_PER_S
#define CUT_MAX		256u

enum judgement { RIGHT, DIFFERS, UNSETTLED, ORPHAN, MISPLACED };
static const char *const judged[] = { "right", "replicas differ", "unsettled version",
	"no such inode", "on a wrong chain" };

/* What one replica says about one chunk; committed 0: it has none. */
struct view {
	uint64_t committed, pending;
	uint32_t check, len;
};

struct suspect {
	chain_id	chain;
	struct chunk_id id;
	uint8_t		how;		/* enum judgement; RIGHT: it was cleared */
};

struct replica {
	struct check_chunks *w;
	struct net_call	call;
	struct net_addr	addr;
	struct msg_list_row rows[PAGE_ROWS];
	uint32_t	n, at;
	bool		started, more;
	struct chunk_id	last;
};

struct check_chunks {
	struct check   *c;
	chain_id	chain;		/* the last one begun */
	struct routing_chain row;	/* as routing had it then */
	unsigned	n;		/* replicas that serve */
	unsigned	asking, tries;
	int		rc;
	struct replica	replicas[ROUTING_REPLICAS_MAX];
	/* looking again */
	bool		again;
	unsigned	round;
	uint32_t	at;		/* suspect */
	uint32_t	suspect_n;
	uint64_t	dropped;	/* suspects there was no room for */
	target_id	mending;
	uint64_t	mark;		/* chunks counted before this chain began */
	struct suspect	suspects[CHECK_SUSPECTS];
};

static void go_on(struct clock_timer *t);
static void chain_begin(struct check *c);

/* ---- one chunk ---- */

static enum judgement
judge_inode(const struct check_chunks *w, struct chunk_id id)
{
	struct layout l;
	struct inode in;
	chain_id chain;
	int rc;

	if (id.ino >= w->c->next_ino)
		return RIGHT;		/* made after the image */
	rc = inode_get(w->c->table, id.ino, &in);
	if (rc != 0 && rc != -ENOENT)
		return RIGHT;		/* its row is damaged, and told: keep its chunks */
	if (rc != 0 || !S_ISREG(in.mode))
		return ORPHAN;
	inode_layout(&in, &l);
	chain = layout_chain(w->c->routing, &l, id.index);
	return chain != 0 && chain != w->row.id ? MISPLACED : RIGHT;
}

static bool
same(const struct view *a, const struct view *b)
{
	return a->committed == b->committed && (a->committed == 0 ||
	    (a->check == b->check && a->len == b->len));
}

static enum judgement
judge(const struct check_chunks *w, struct chunk_id id, const struct view *v)
{
	enum judgement how = judge_inode(w, id);

	if (how != RIGHT)
		return how;
	for (unsigned i = 0; i < w->n; i++)
		if (v[i].pending != 0)
			return UNSETTLED;
	for (unsigned i = 1; i < w->n; i++)
		if (!same(&v[i], &v[0]))
			return DIFFERS;
	return RIGHT;
}

static void
suspect(struct check_chunks *w, struct chunk_id id, enum judgement how)
{
	if (w->suspect_n == CHECK_SUSPECTS) {
		w->dropped++;
		return;
	}
	w->suspects[w->suspect_n++] = (struct suspect){ w->row.id, id, (uint8_t)how };
}

/* The lowest chunk of all pages and who has it; false: a page is missing, or the end. */
static bool
lowest(struct check_chunks *w, struct chunk_id *id, struct view *v)
{
	bool any = false;

	for (unsigned i = 0; i < w->n; i++) {
		struct replica *r = &w->replicas[i];

		if (r->at == r->n) {
			if (!r->started || r->more)
				return false;
			continue;
		}
		if (!any || chunk_id_cmp(r->rows[r->at].chunk, *id) < 0)
			*id = r->rows[r->at].chunk;
		any = true;
	}
	for (unsigned i = 0; any && i < w->n; i++) {
		struct replica *r = &w->replicas[i];
		const struct msg_list_row *row = &r->rows[r->at];

		v[i] = (struct view){ 0 };
		if (r->at == r->n || chunk_id_cmp(row->chunk, *id) != 0)
			continue;
		v[i] = (struct view){ row->committed, row->pending, row->check,
		    row->len };
		r->at++;
		w->c->chunks++;
	}
	return any;
}

/* ---- mending ---- */

static void
cut_answered(struct net_call *call, int rc)
{
	struct check *c = container_of(call, struct check, call);
	struct check_chunks *w = c->chunk_walk;
	const struct msg_cut_rep *rep = call->rep;

	if (rc == 0 && !rep->more)
		check_mended(c, "chunks of inode %" PRIu64 " on chain %u removed",
		    w->suspects[w->at].id.ino, w->row.id);
	else if (rc != 0)
		check_fault(c, "chain %u: cannot remove chunks of inode %" PRIu64
		    ": %s", w->row.id, w->suspects[w->at].id.ino, err_text(rc));
	if (rc != 0 || !rep->more)
		w->at++;
	check_later(c, 0, go_on);
}

static int
cut(struct check_chunks *w, const struct suspect *s)
{
	struct check *c = w->c;
	struct msg_cut q = { .chain = w->row.id, .chain_version = w->row.version,
	    .target = w->row.targets[0], .ino = s->id.ino, .epoch = GC_EPOCH_GONE,
	    .max = CUT_MAX };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(c->env.clock) + CHECK_ATTEMPT_NS
	};

	return net_call_start(&c->call, c->env.hub, &w->replicas[0].addr, MSG_cut, &q,
	    &opts, cut_answered);
}

/* The replica that all others agree against; -1: nobody knows who is right. */
static int
odd_one(const struct check_chunks *w, const struct view *v)
{
	int odd = -1;

	for (unsigned i = 0; w->n >= 3 && i < w->n; i++) {
		unsigned other = i == 0 ? 1 : 0, agree = 0;

		for (unsigned k = 0; k < w->n; k++)
			agree += k != i && same(&v[k], &v[other]);
		if (agree == w->n - 1 && !same(&v[i], &v[other]))
			odd = (int)i;
	}
	return odd;
}

static void
resync_answered(struct net_call *call, int rc)
{
	struct check *c = container_of(call, struct check, call);
	struct check_chunks *w = c->chunk_walk;

	if (rc == 0)
		check_mended(c, "replica %u of chain %u is brought up to date again",
		    w->mending, w->row.id);
	else
		check_fault(c, "replica %u of chain %u cannot be brought up to date "
		    "again: %s", w->mending, w->row.id, err_text(rc));
	w->at++;
	check_later(c, 0, go_on);
}

static int
resync(struct check_chunks *w, target_id target)
{
	struct check *c = w->c;
	struct msg_chain_resync q = { .chain = w->row.id, .version = w->row.version,
	    .target = target };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(c->env.clock) + CHECK_ATTEMPT_NS
	};

	w->mending = target;
	return net_call_start(&c->call, c->env.hub, &c->managers[c->manager_at],
	    MSG_chain_resync, &q, &opts, resync_answered);
}

/* The suspect was wrong each time. */
static void
convict(struct check_chunks *w, enum judgement how, const struct view *v)
{
	const struct suspect *s = &w->suspects[w->at];
	struct check *c = w->c;
	char text[512] = "";
	size_t n = 0;
	int odd;

	for (unsigned i = 0; i < w->n && n < sizeof(text); i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n,
		    " target %u: %" PRIu64 "/%" PRIu64 " %08x;", w->row.targets[i],
		    v[i].committed, v[i].pending, v[i].check);
	check_fault(c, "chain %u inode %" PRIu64 " chunk %u: %s;%s", w->row.id,
	    s->id.ino, s->id.index, judged[how], text);
	if (how == ORPHAN && c->repair && cut(w, s) == 0)
		return;
	if (how == DIFFERS && c->repair && (odd = odd_one(w, v)) >= 0 &&
	    resync(w, w->row.targets[odd]) == 0)
		return;
	w->at++;
	check_later(c, 0, go_on);
}

/* ---- pages ---- */

static void
take(struct replica *r, const struct msg_list_rep *rep)
{
	struct check_chunks *w = r->w;

	r->n = r->at = 0;
	if (rep->rows.n > PAGE_ROWS || (rep->rows.n == 0 && rep->more)) {
		w->rc = ERR_BAD_MESSAGE;
		return;
	}
	for (uint32_t i = 0; i < rep->rows.n; i++) {
		const struct msg_list_row *row = &rep->rows.v[i];

		if ((r->started || i > 0) && chunk_id_cmp(row->chunk, r->last) <= 0) {
			w->rc = ERR_BAD_MESSAGE;
			return;
		}
		r->rows[i] = *row;
		r->last = row->chunk;
	}
	r->n = rep->rows.n;
	r->started = true;
	r->more = rep->more != 0;
}

static void advance(struct check_chunks *w);
static void looked(struct check_chunks *w);

static void
listed(struct net_call *call, int rc)
{
	struct replica *r = container_of(call, struct replica, call);
	struct check_chunks *w = r->w;

	w->asking--;
	if (rc == 0) {
		w->c->heard_ns = clock_now(w->c->env.clock);
		take(r, call->rep);
	} else if (w->rc == 0)
		w->rc = rc;
	if (w->asking > 0)
		return;
	if (w->again)
		looked(w);
	else
		advance(w);
}

static void
ask(struct check_chunks *w, struct replica *r, uint32_t max)
{
	unsigned i = (unsigned)(r - w->replicas);
	struct msg_list q = { .chain = w->row.id, .chain_version = w->row.version,
	    .target = w->row.targets[i], .start = !r->started, .after = r->last,
	    .max = max };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(w->c->env.clock) + CHECK_ATTEMPT_NS
	};
	int rc = net_call_start(&r->call, w->c->env.hub, &r->addr, MSG_list, &q, &opts,
	    listed);

	if (rc == 0)
		w->asking++;
	else if (w->rc == 0)
		w->rc = rc;
}

/* Take what routing says about chain @id. 0; -EAGAIN: nobody serves, or is known. */
static int
aim(struct check_chunks *w, chain_id id)
{
	const struct routing_chain *row = routing_chain(w->c->routing, id);

	if (row == NULL || (w->n = routing_serving_n(row)) == 0)
		return -EAGAIN;
	w->row = *row;
	w->rc = 0;
	for (unsigned i = 0; i < w->n; i++) {
		struct replica *r = &w->replicas[i];

		r->w = w;
		r->n = r->at = 0;
		r->started = false;
		r->more = true;
		if (routing_target_addr(w->c->routing, row->targets[i], &r->addr) != 0)
			return -EAGAIN;
	}
	return 0;
}

/* ---- every chain, from its first chunk to its last ---- */

static void
next_chain(struct check_chunks *w)
{
	const struct routing_chain *row;

	w->tries = 0;
	for (unsigned i = 0; (row = routing_chain_at(w->c->routing, i)) != NULL; i++)
		if (row->id > w->chain) {
			w->chain = row->id;
			w->mark = w->c->chunks;
			chain_begin(w->c);
			return;
		}
	if (w->dropped > 0)
		check_fault(w->c, "%" PRIu64 " more chunks look wrong than can be "
		    "looked at again", w->dropped);
	w->again = true;
	w->at = 0;
	check_later(w->c, w->suspect_n > 0 ? ROUND_NS : 0, go_on);
}

static void
chain_failed(struct check_chunks *w, int rc)
{
	struct check *c = w->c;

	if (w->tries++ >= CHAIN_TRIES || err_next(rc) == ERR_NEXT_FAIL) {
		check_fault(c, "chain %u cannot be checked: %s", w->chain,
		    rc == -EAGAIN ? "no replica serves" : err_text(rc));
		next_chain(w);
		return;
	}
	check_later(c, CHECK_PAUSE_NS, go_on);
}

static void
advance(struct check_chunks *w)
{
	struct view v[ROUTING_REPLICAS_MAX];
	struct chunk_id id = { 0, 0 };
	enum judgement how;

	if (w->rc != 0) {
		/* What was seen of it is seen again. */
		while (w->suspect_n > 0 &&
		    w->suspects[w->suspect_n - 1].chain == w->chain)
			w->suspect_n--;
		w->c->chunks = w->mark;
		chain_failed(w, w->rc);
		return;
	}
	while (lowest(w, &id, v))
		if ((how = judge(w, id, v)) != RIGHT)
			suspect(w, id, how);
	for (unsigned i = 0; i < w->n; i++) {
		struct replica *r = &w->replicas[i];

		if (r->at == r->n && (!r->started || r->more))
			ask(w, r, PAGE_ROWS);
	}
	if (w->asking > 0)
		return;
	if (w->rc != 0)
		chain_failed(w, w->rc);
	else
		next_chain(w);
}

static void
chain_begin(struct check *c)
{
	struct check_chunks *w = c->chunk_walk;
	int rc = aim(w, w->chain);

	if (rc != 0)
		chain_failed(w, -EAGAIN);
	else
		advance(w);
}

/* ---- the suspects, again ---- */

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
	struct suspect *s = &w->suspects[w->at];

	if (aim(w, s->chain) != 0) {
		w->rc = -EAGAIN;
		looked(w);
		return;
	}
	for (unsigned i = 0; i < w->n; i++) {
		w->replicas[i].last = before(s->id);
		w->replicas[i].started = true;
		ask(w, &w->replicas[i], 1);
	}
	if (w->asking == 0)
		looked(w);
}

static void
looked(struct check_chunks *w)
{
	struct suspect *s = &w->suspects[w->at];
	struct view v[ROUTING_REPLICAS_MAX];
	enum judgement how;
	bool there = false;

	if (w->rc != 0) {
		if (w->tries++ < CHAIN_TRIES) {
			check_later(w->c, CHECK_PAUSE_NS, go_on);
			return;
		}
		check_fault(w->c, "chain %u inode %" PRIu64 " chunk %u cannot be "
		    "looked at again: %s", s->chain, s->id.ino, s->id.index,
		    err_text(w->rc));
		s->how = RIGHT;
		w->at++;
		check_later(w->c, 0, go_on);
		return;
	}
	w->tries = 0;
	for (unsigned i = 0; i < w->n; i++) {
		const struct replica *r = &w->replicas[i];
		const struct msg_list_row *row = &r->rows[0];

		v[i] = (struct view){ 0 };
		if (r->n == 0 || chunk_id_cmp(row->chunk, s->id) != 0)
			continue;
		there = true;
		v[i] = (struct view){ row->committed, row->pending, row->check,
		    row->len };
	}
	how = there ? judge(w, s->id, v) : RIGHT;
	s->how = (uint8_t)how;
	if (how != RIGHT && w->round == CHECK_ROUNDS) {
		convict(w, how, v);
		return;
	}
	w->at++;
	check_later(w->c, 0, go_on);
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
		check_end(c, 0);
		return;
	}
	w->round++;
	w->at = 0;
	check_later(c, ROUND_NS, go_on);
}

static void
go_on(struct clock_timer *t)
{
	struct check *c = container_of(t, struct check, timer);

	if (c->chunk_walk->again)
		next_look(c->chunk_walk);
	else
		check_route(c, chain_begin);
}

void
check_chunks_start(struct check *c)
{
	struct check_chunks *w = calloc(1, sizeof(*w));

	if (w == NULL) {
		check_end(c, -ENOMEM);
		return;
	}
	w->c = c;
	w->round = 1;
	c->chunk_walk = w;
	next_chain(w);
}

void
check_chunks_close(struct check *c)
{
	struct check_chunks *w = c->chunk_walk;

	if (w == NULL)
		return;
	for (unsigned i = 0; i < ROUTING_REPLICAS_MAX; i++)
		net_call_cancel(&w->replicas[i].call);
	free(w);
	c->chunk_walk = NULL;
}
