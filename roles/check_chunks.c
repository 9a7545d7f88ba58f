/* SPDX-License-Identifier: MIT */
/* check_chunks.c - the chunks of every chain: all serving replicas list theirs page by page,
 * the lists are merged in key order, and each chunk is judged:
 *
 *	differs		replicas do not have the same committed version with the same digest
 *	unsettled	a version is neither committed nor gone
 *	orphan		the inode is not in the image of metadata, and was made before it
 *	misplaced	the layout of its file puts it on another chain
 *
 * The cluster is in use, so a chunk that looks wrong is kept as a suspect and looked at again
 * (check_suspect.c). */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "conf/err.h"
#include "meta/inode.h"
#include "roles/check_chunks.h"

static void go_on(struct clock_timer *t);
static void chain_begin(struct check *c);

/* ---- one chunk ---- */

static enum check_judgement
judge_inode(struct check_chunks *w, struct chunk_id id)
{
	struct layout l;
	struct inode in;
	chain_id chain;
	int rc;

	if (id.ino >= w->c->next_ino)
		return RIGHT;		/* made after the image */
	rc = inode_get(w->c->table, id.ino, &in);
	if (rc != 0 && rc != -ENOENT)
		return RIGHT;		/* told; it may well be this one's */
	if (rc != 0 || !S_ISREG(in.mode)) {
		check_data_seen(w->c, id.ino);
		return ORPHAN;
	}
	inode_layout(&in, &l);
	chain = layout_chain(w->c->routing, &l, id.index);
	return chain != 0 && chain != w->row.id ? MISPLACED : RIGHT;
}

bool
check_view_same(const struct check_view *a, const struct check_view *b)
{
	return a->committed == b->committed && (a->committed == 0 ||
	    (a->check == b->check && a->len == b->len));
}

enum check_judgement
check_chunks_judge(struct check_chunks *w, struct chunk_id id, const struct check_view *v)
{
	enum check_judgement how = judge_inode(w, id);

	if (how != RIGHT)
		return how;
	for (unsigned i = 0; i < w->n; i++)
		if (v[i].pending != 0)
			return UNSETTLED;
	for (unsigned i = 1; i < w->n; i++)
		if (!check_view_same(&v[i], &v[0]))
			return DIFFERS;
	return RIGHT;
}

static void
suspect(struct check_chunks *w, struct chunk_id id, enum check_judgement how)
{
	if (w->suspect_n == CHECK_SUSPECTS) {
		w->dropped++;
		return;
	}
	w->suspects[w->suspect_n++] = (struct check_suspect){
		.chain = w->row.id, .id = id, .how = (uint8_t)how };
}

/* The lowest chunk of all pages and who has it; false: a page is missing, or the end. */
static bool
lowest(struct check_chunks *w, struct chunk_id *id, struct check_view *v)
{
	bool any = false;

	for (unsigned i = 0; i < w->n; i++) {
		struct check_replica *r = &w->replicas[i];

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
		struct check_replica *r = &w->replicas[i];
		const struct msg_list_row *row = &r->rows[r->at];

		v[i] = (struct check_view){ 0 };
		if (r->at == r->n || chunk_id_cmp(row->chunk, *id) != 0)
			continue;
		v[i] = (struct check_view){ row->committed, row->pending, row->check,
		    row->len };
		r->at++;
		w->c->chunks++;
	}
	return any;
}

/* ---- pages ---- */

static void
take(struct check_replica *r, const struct msg_list_rep *rep)
{
	struct check_chunks *w = r->w;

	r->n = r->at = 0;
	if (rep->rows.n > CHECK_PAGE_ROWS || (rep->rows.n == 0 && rep->more)) {
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

static void
listed(struct net_call *call, int rc)
{
	struct check_replica *r = container_of(call, struct check_replica, call);
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
		check_suspect_looked(w);
	else
		advance(w);
}

void
check_chunks_ask(struct check_chunks *w, struct check_replica *r, uint32_t max)
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

int
check_chunks_aim(struct check_chunks *w, chain_id id)
{
	const struct routing_chain *row = routing_chain(w->c->routing, id);

	if (row == NULL || (w->n = routing_serving_n(row)) == 0)
		return -EAGAIN;
	w->row = *row;
	w->rc = 0;
	for (unsigned i = 0; i < w->n; i++) {
		struct check_replica *r = &w->replicas[i];

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
			w->dropped_mark = w->dropped;
			chain_begin(w->c);
			return;
		}
	if (w->dropped > 0) {
		w->c->faults++;
		check_fault(w->c, "%" PRIu64 " more chunks look wrong than can be "
		    "looked at again", w->dropped);
	}
	check_suspects_start(w);
}

static void
chain_failed(struct check_chunks *w, int rc)
{
	struct check *c = w->c;

	/* What was seen of it is seen again. */
	while (w->suspect_n > 0 && w->suspects[w->suspect_n - 1].chain == w->chain)
		w->suspect_n--;
	w->dropped = w->dropped_mark;
	c->chunks = w->mark;
	if (w->tries++ >= CHECK_CHAIN_TRIES || err_next(rc) == ERR_NEXT_FAIL) {
		c->blind = true;
		c->faults++;
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
	struct check_view v[ROUTING_REPLICAS_MAX];
	struct chunk_id id = { 0, 0 };
	enum check_judgement how;

	if (w->rc != 0) {
		chain_failed(w, w->rc);
		return;
	}
	while (lowest(w, &id, v))
		if ((how = check_chunks_judge(w, id, v)) != RIGHT)
			suspect(w, id, how);
	for (unsigned i = 0; i < w->n; i++) {
		struct check_replica *r = &w->replicas[i];

		if (r->at == r->n && (!r->started || r->more))
			check_chunks_ask(w, r, CHECK_PAGE_ROWS);
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
	int rc = check_chunks_aim(w, w->chain);

	if (rc != 0)
		chain_failed(w, -EAGAIN);
	else
		advance(w);
}

static void
go_on(struct clock_timer *t)
{
	check_route(container_of(t, struct check, timer), chain_begin);
}

void
check_chunks_start(struct check *c)
{
	struct check_chunks *w = calloc(1, sizeof(*w));

	if (w == NULL || (w->piece = malloc(CHECK_PIECE)) == NULL) {
		free(w);
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
	free(w->piece);
	free(w);
	c->chunk_walk = NULL;
}
