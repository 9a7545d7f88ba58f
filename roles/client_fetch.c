/* SPDX-License-Identifier: MIT */
/* client_fetch.c - a range of a file from storage into memory.
 *
 *	TODO -> SENT -> DONE		one piece; any failure: back to TODO
 * All DONE, or one that no replica has: it is `ending` until no call has the reader's memory.
 * A piece is a part of one chunk.  Pieces of one chain go to one replica in one call.
 * `tried` replicas failed in a way that may pass: when all are tried there is a pause, and
 * they count as not tried again; `hard` ones said they never will: when all are, the whole
 * fetch fails.  Both are by place in the chain and start anew with its next version.
 * A call that is late is asked again elsewhere: client_hedge.c. */
#include "roles/client_fetch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/crc32c.h"
#include "roles/client_pick.h"
#include "roles/client_stripe.h"

#define FIRST_SHARE	5u		/* of client.call, while others are left */

enum { TODO, SENT, DONE };

static void	dispatch(struct client_fetch *f);

static struct client_target *
target_get(struct client *c, target_id id)
{
	struct client_target *t = map_get(&c->targets, id);

	if (t != NULL)
		return t;
	if ((t = calloc(1, sizeof(*t))) == NULL)
		return NULL;
	t->id = id;
	if (map_put(&c->targets, id, t) != 0) {
		free(t);
		return NULL;
	}
	return t;
}

void
client_rcall_put(struct client_rcall *rc)
{
	struct client *c = rc->c;

	rc->t->inflight--;
	if (rc->twin != NULL)
		rc->twin->twin = NULL;
	rc->twin = NULL;
	list_remove(&rc->node);
	list_remove(&rc->fetch_node);
	list_remove(&rc->late_node);
	client_mem_put(c, &rc->buf);
	if (rc->lent != NULL && --rc->lent->calls == 0) {
		client_mem_put(c, &rc->lent->buf);
		free(rc->lent);
	}
	client_keep_put(&c->rcall_keep, &rc->node);
}

void
client_rcall_leave(struct client_rcall *r, struct client_lent *lent)
{
	if (r->twin != NULL)
		r->twin->twin = NULL;
	r->twin = NULL;
	r->f = NULL;
	if ((r->lent = lent) != NULL)
		lent->calls++;
	list_remove(&r->node);
	list_remove(&r->fetch_node);
	list_remove(&r->late_node);
	list_push_back(&r->c->leaving, &r->node);
}

/* ---- the end ---- */

/* End @r without its fetch.  What it is answered into is its own, or @lent's (NULL: it must
 * be free at once). */
static void
end_call(struct client_rcall *r, struct client_lent *lent)
{
	bool own = r->buf.p != NULL;

	if (!own && lent == NULL)
		net_call_cancel(&r->call);
	else if (!net_call_leave(&r->call)) {
		client_rcall_leave(r, own ? NULL : lent);
		return;
	}
	client_rcall_put(r);
}

void
client_fetch_cancel(struct client_fetch *f, struct mem_buf *dst)
{
	struct client_lent *lent = NULL;

	if (!f->active)
		return;
	f->active = false;
	/* Out of memory: then it ends the hard way. */
	if (!list_empty(&f->calls) && dst != NULL)
		lent = calloc(1, sizeof(*lent));
	while (!list_empty(&f->calls))
		end_call(list_entry(f->calls.next, struct client_rcall, fetch_node),
		    lent);
	if (lent != NULL && lent->calls > 0) {
		lent->buf = *dst;
		*dst = (struct mem_buf){ .p = NULL };
	} else {
		free(lent);
	}
	client_pause_stop(f->c, &f->pause);
	if (f->pieces != f->few)
		free(f->pieces);
	f->pieces = NULL;
	client_inode_put(f->inode);
}

/* Nothing of it is on its way any more. */
static void
finish(struct client_fetch *f)
{
	client_fetch_cancel(f, NULL);
	f->fn(f, f->rc);
}

/* It ends with @rc, when those that have the reader's memory have let go of it. */
static void
complete(struct client_fetch *f, int rc)
{
	f->rc = rc;
	f->ending = true;
	client_pause_stop(f->c, &f->pause);
	list_for_each_safe(l, next, &f->calls) {
		struct client_rcall *r = list_entry(l, struct client_rcall, fetch_node);

		if (r->buf.p != NULL) {
			end_call(r, NULL);
			continue;
		}
		list_remove(&r->late_node);
		if (net_call_abandon(&r->call))
			client_rcall_put(r);
	}
	if (list_empty(&f->calls))
		finish(f);
}

static void
paused(struct client_pause *p)
{
	struct client_fetch *f = container_of(p, struct client_fetch, pause);

	if (f->rc != 0)
		complete(f, f->rc);
	else {
		stat_add(&f->c->stat.retries, 1);
		dispatch(f);
	}
}

/* Every replica of some piece has refused for good. */
static void
fail(struct client_fetch *f, int rc)
{
	if (f->starting) {
		f->rc = rc;
		client_pause_start(f->c, &f->pause, false, paused);
	} else
		complete(f, rc);
}

/* ---- answers ---- */

/* The whole call failed: what does that say about its server? */
static void
server_failed(struct client_rcall *r, int rc)
{
	struct client *c = r->f->c;
	enum err_next next = err_next(rc);

	if (next != ERR_NEXT_REFRESH && next != ERR_NEXT_OTHER)
		return;
	member_refresh(c->member);
	/* It is well, but the chain has changed or is about to. */
	if (rc != ERR_STALE_CHAIN && rc != ERR_CHAIN_RECOVERING)
		client_health_failed(r->t, clock_now(c->clock));
}

void
client_fetch_failed(struct client_fetch *f, struct client_fpiece *p, uint32_t bit,
    int rc)
{
	p->tried |= bit;
	stat_add(&f->c->stat.failovers, 1);
	/* Damaged data may be repaired from another replica, but not while we wait. */
	if (!client_retryable(rc) || rc == ERR_CORRUPT) {
		p->hard |= bit;
		p->rc = rc;
	}
}

/* What is wrong with the answer @data for @p. */
static int
piece_check(struct client_fetch *f, const struct client_fpiece *p,
    const struct client_rcall *r, const struct msg_read_result *res, const uint8_t *data)
{
	if (res->rc != 0)
		return res->rc == -ENOENT ? 0 : res->rc;
	if (res->len > p->len)
		return ERR_BAD_MESSAGE;
	if (res->len == 0 || crc32c(0, data, res->len) == res->crc)
		return 0;
	log_warn(f->c->log, "read fails its checksum",
	    "ino=%llu chunk=%u target=%u",
	    (unsigned long long)f->inode->ino, p->index, r->t->id);
	stat_add(&f->c->stat.crc_failures, 1);
	return ERR_CORRUPT;
}

/* @r has ended: what is next? */
static void
go_on(struct client_rcall *r)
{
	struct client_fetch *f = r->f;

	client_rcall_put(r);
	if (f->left == 0)
		complete(f, 0);
	else
		dispatch(f);
}

void
client_fetch_take(struct client_rcall *r)
{
	struct client_fetch *f = r->f;

	for (uint32_t k = 0; k < r->n; k++) {
		struct client_fpiece *p = &f->pieces[r->pieces[k]];
		uint32_t len = r->got[k].len;

		p->state = TODO;
		if (r->got[k].rc != 0) {
			client_fetch_failed(f, p, r->bit, r->got[k].rc);
			continue;
		}
		if (r->buf.p != NULL) {
			memcpy(p->dst, r->iov[k].iov_base, len);
			stat_add(&f->c->stat.copied_bytes, len);
		}
		/* A hole, or a chunk that ends early: the file goes on, with zeros. */
		f->missing |= len < p->len;
		memset(p->dst + len, 0, p->len - len);
		p->state = DONE;
		f->left--;
	}
	go_on(r);
}

/* @r has nothing to give: its pieces are its twin's alone, or to be asked for again. */
static void
give_up(struct client_rcall *r, int rc)
{
	for (uint32_t k = 0; k < r->n; k++) {
		struct client_fpiece *p = &r->f->pieces[r->pieces[k]];

		if (r->twin == NULL)
			p->state = TODO;
		if (rc != 0 || r->got[k].rc != 0)
			client_fetch_failed(r->f, p, r->bit,
			    rc != 0 ? rc : r->got[k].rc);
	}
}

/* @r was given up for no fault of anybody's. */
static void
ask_others(struct client_rcall *r)
{
	struct client_fetch *f = r->f;

	if (r->twin != NULL) {
		client_hedge_leave(r);
		return;
	}
	for (uint32_t k = 0; k < r->n; k++)
		f->pieces[r->pieces[k]].state = TODO;
	client_rcall_put(r);
	dispatch(f);
}

static void
answered(struct net_call *call, int rc)
{
	struct client_rcall *r = container_of(call, struct client_rcall, call);
	struct client_fetch *f = r->f;
	struct client *c = r->c;
	const struct msg_read_rep *rep = call->rep;
	bool good = true, mine;

	if (f == NULL) {		/* left */
		client_rcall_put(r);
		return;
	}
	if (f->ending) {
		client_rcall_put(r);
		if (list_empty(&f->calls))
			finish(f);
		return;
	}
	if (r->twin != NULL && r->twin->won) {
		client_hedge_freed(r);
		return;
	}
	if (rc == -ECANCELED) {
		ask_others(r);
		return;
	}
	if (rc == 0 && rep->items.n != r->n)
		rc = ERR_BAD_MESSAGE;
	if (rc == 0)
		client_health_answered(&c->health, r->t, r->sent_ns,
		    clock_now(c->clock));
	else
		server_failed(r, rc);
	for (uint32_t k = 0; rc == 0 && k < r->n; k++) {
		const struct msg_read_result *res = &rep->items.v[k];

		r->got[k].rc = piece_check(f, &f->pieces[r->pieces[k]], r, res,
		    r->iov[k].iov_base);
		r->got[k].len = res->rc == 0 ? res->len : 0;
		good &= r->got[k].rc == 0;
	}
	/* With a twin on its way only an answer that is good throughout is taken. */
	mine = rc == 0 && (good || r->twin == NULL);
	if (mine) {
		if (r->twin == NULL || client_hedge_won(r))
			client_fetch_take(r);
		return;
	}
	give_up(r, rc);
	if (r->twin != NULL)
		client_hedge_leave(r);
	else
		go_on(r);
}

/* ---- calls ---- */

unsigned
client_rcall_pick(struct client *c, const struct routing_chain *chain, uint32_t not,
    struct net_addr addrs[ROUTING_REPLICAS_MAX], unsigned *well)
{
	const struct routing *r = member_routing(c->member);
	struct client_pick_cand cand[ROUTING_REPLICAS_MAX];
	unsigned n = routing_serving_n(chain);

	*well = 0;
	for (unsigned i = 0; i < n; i++) {
		const struct client_target *t = map_get(&c->targets,
		    chain->targets[i]);

		cand[i] = (struct client_pick_cand){
			.known = routing_target_addr(r, chain->targets[i],
			    &addrs[i]) == 0 };
		cand[i].local = cand[i].known &&
		    addrs[i].kind == NET_ADDR_LOCAL;
		if (t != NULL) {
			cand[i].inflight = t->inflight;
			cand[i].failed = client_health_avoid(t,
			    clock_now(c->clock));
		}
		*well += cand[i].known && !cand[i].failed &&
		    (not & 1u << i) == 0;
	}
	return client_pick(cand, n, not, c->turn++);
}

struct client_rcall *
client_rcall_get(struct client_fetch *f, const struct routing_chain *chain, unsigned slot)
{
	struct client *c = f->c;
	struct client_rcall *r = client_keep_get(&c->rcall_keep, sizeof(*r));

	if (r == NULL)
		return NULL;
	memset(r, 0, offsetof(struct client_rcall, pieces));
	list_init(&r->node);
	list_init(&r->fetch_node);
	list_init(&r->late_node);
	if ((r->t = target_get(c, chain->targets[slot])) == NULL) {
		client_keep_put(&c->rcall_keep, &r->node);
		return NULL;
	}
	r->c = c;
	r->f = f;
	r->chain = chain->id;
	r->bit = 1u << slot;
	r->t->inflight++;
	list_push_back(&c->rcalls, &r->node);
	list_push_back(&f->calls, &r->fetch_node);
	return r;
}

int
client_rcall_send(struct client_rcall *r, const struct routing_chain *chain,
    const struct net_addr *to, uint64_t within_ms)
{
	struct client_fetch *f = r->f;
	struct client *c = f->c;
	struct msg_read_item items[STORAGE_BATCH_MAX];
	struct msg_read req = { .chain = chain->id,
		.chain_version = chain->version, .target = r->t->id,
		.items = { items, r->n } };
	struct net_call_opts opts = { .recv = r->iov, .recv_n = r->n };

	for (uint32_t k = 0; k < r->n; k++) {
		const struct client_fpiece *p = &f->pieces[r->pieces[k]];

		items[k] = (struct msg_read_item){
			.chunk = { f->inode->ino, p->index },
			.offset = p->offset, .len = p->len };
	}
	r->sent_ns = clock_now(c->clock);
	opts.deadline_ns = r->sent_ns + within_ms * NS_PER_MS;
	return net_call_start(&r->call, c->env.hub, to, MSG_read, &req, &opts,
	    answered);
}

/* What failed under another version of the chain is no matter now. */
static void
renew(struct client_fpiece *p, const struct routing_chain *chain)
{
	if (p->chain_version == chain->version)
		return;
	p->chain_version = chain->version;
	p->tried = p->hard = 0;
}

/* Give @r the pieces from @k on that its replica may be asked for. */
static void
gather(struct client_rcall *r, unsigned k, const struct routing_chain *chain)
{
	struct client_fetch *f = r->f;
	uint64_t bytes = 0;

	for (unsigned j = k; j < f->n && r->n < STORAGE_BATCH_MAX; j++) {
		struct client_fpiece *q = &f->pieces[j];

		if (q->state != TODO || (r->n > 0 &&
		    (bytes + q->len > CLIENT_BATCH_BYTES ||
		    client_inode_chain(f->inode, q->index) != chain->id)))
			continue;
		renew(q, chain);
		if (((q->tried | q->hard) & r->bit) != 0)
			continue;
		r->iov[r->n] = (struct iovec){ q->dst, q->len };
		r->pieces[r->n++] = j;
		bytes += q->len;
	}
}

/* Send piece @k and those like it. 0; or why it has to wait; or, with *over set, why the
 * whole fetch fails. */
static int
send_batch(struct client_fetch *f, unsigned k, bool *over)
{
	struct client *c = f->c;
	struct client_fpiece *p = &f->pieces[k];
	const struct routing_chain *chain = routing_chain(
	    member_routing(c->member), client_inode_chain(f->inode, p->index));
	struct net_addr addrs[ROUTING_REPLICAS_MAX];
	uint64_t within_ms = c->conf->client_call;
	struct client_rcall *r;
	unsigned slot, serving, well;
	int rc;

	if (chain == NULL || (serving = routing_serving_n(chain)) == 0)
		return -EHOSTUNREACH;
	renew(p, chain);
	slot = client_rcall_pick(c, chain, p->tried | p->hard, addrs, &well);
	if (slot == CLIENT_PICK_NONE) {
		if (p->hard == (1u << serving) - 1) {
			*over = true;
			return p->rc;
		}
		p->tried = 0;
		return -EHOSTUNREACH;
	}
	if ((r = client_rcall_get(f, chain, slot)) == NULL)
		return -ENOMEM;
	gather(r, k, chain);
	/* One that hangs must not hold us up for all of the deadline. */
	if (well > 1)
		within_ms /= FIRST_SHARE;
	rc = client_rcall_send(r, chain, &addrs[slot], within_ms);
	if (rc != 0) {
		client_rcall_put(r);
		if (client_retryable(rc))
			return rc;
		p->hard |= 1u << slot;
		p->rc = rc;
		return send_batch(f, k, over);	/* at most once a replica */
	}
	for (uint32_t j = 0; j < r->n; j++)
		f->pieces[r->pieces[j]].state = SENT;
	client_hedge_watch(r);
	return 0;
}

/* Send whatever is TODO. */
static void
dispatch(struct client_fetch *f)
{
	bool over = false;
	int why = 0;

	for (unsigned k = 0; k < f->n; k++) {
		int rc;

		if (f->pieces[k].state != TODO)
			continue;
		rc = send_batch(f, k, &over);
		if (over) {
			fail(f, rc);
			return;
		}
		if (rc != 0)
			why = rc;
	}
	if (why == 0)
		return;
	if (client_expired(f->c, f->start_ns))
		fail(f, why);
	else
		client_pause_start(f->c, &f->pause, why == -EHOSTUNREACH,
		    paused);
}

int
client_fetch_start(struct client_fetch *f, struct client_inode *i, uint64_t off,
    uint8_t *dst, uint32_t len,
    bool (*skip)(void *ctx, uint32_t index, uint32_t off, uint32_t len),
    void *ctx, client_fetch_fn *fn)
{
	struct client_stripe s;
	struct client_piece p;
	uint64_t n;
	int rc;

	if (!client_inode_striped(i))
		return -EIO;
	rc = client_stripe_init(&s, i->layout.chunk_shift, off, len, 0);
	if (rc != 0)
		return rc;
	n = client_stripe_count(i->layout.chunk_shift, off, len);
	memset(f, 0, sizeof(*f));
	f->pieces = f->few;
	if (n > CLIENT_PIECES_INLINE &&
	    (f->pieces = calloc(n, sizeof(*f->pieces))) == NULL)
		return -ENOMEM;
	f->c = i->c;
	f->fn = fn;
	f->start_ns = clock_now(i->c->clock);
	list_init(&f->calls);
	while (client_stripe_next(&s, &p)) {
		if (skip != NULL && skip(ctx, p.index, p.offset, p.len))
			continue;
		assert(f->n < n);
		f->pieces[f->n++] = (struct client_fpiece){ .index = p.index,
			.offset = p.offset, .len = p.len, .dst = dst + p.pos };
	}
	f->left = f->n;
	if (f->n == 0) {
		if (f->pieces != f->few)
			free(f->pieces);
		f->pieces = NULL;
		return 0;
	}
	f->inode = client_inode_ref(i);
	f->active = true;
	f->starting = true;
	dispatch(f);
	f->starting = false;
	return 0;
}

void
client_fetch_reroute(struct client *c)
{
	const struct routing *rt = member_routing(c->member);
	struct list moved, *n;

	list_init(&moved);
	list_for_each_safe(it, next, &c->rcalls) {
		struct client_rcall *r = list_entry(it, struct client_rcall, node);
		const struct routing_chain *chain = routing_chain(rt, r->chain);
		bool stays = false;

		for (unsigned k = 0; chain != NULL &&
		    k < routing_serving_n(chain); k++)
			stays |= chain->targets[k] == r->t->id;
		/* One that has won is not asked any more, and its twin ends soon. */
		if (stays || r->won || (r->twin != NULL && r->twin->won))
			continue;
		/* Else answered() goes on with it, when its memory is free. */
		if (!net_call_abandon(&r->call))
			continue;
		list_remove(&r->node);
		list_push_back(&moved, &r->node);
	}
	/* A fetch that fails takes its other calls off this list. */
	while ((n = moved.next) != &moved)
		ask_others(list_entry(n, struct client_rcall, node));
}

void
client_fetch_close_all(struct client *c)
{
	struct client_target *t;
	size_t it = 0;

	assert(list_empty(&c->rcalls));	/* reads and read-ahead are closed */
	while (!list_empty(&c->leaving)) {
		struct client_rcall *r = list_entry(c->leaving.next,
		    struct client_rcall, node);

		net_call_cancel(&r->call);
		client_rcall_put(r);
	}
	clock_timer_stop(c->clock, &c->late_timer);
	while ((t = map_next(&c->targets, &it, NULL)) != NULL)
		free(t);
	map_fini(&c->targets);
	client_keep_fini(&c->rcall_keep);
}
