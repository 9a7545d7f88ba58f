/* SPDX-License-Identifier: MIT */
/* client_fetch.c - a range of a file from storage into memory.
 *
 *	TODO -> SENT -> DONE		one piece; any failure: back to TODO
 * A piece is a part of one chunk.  Pieces of one chain go to one replica in one call.
 * `tried` replicas failed in a way that may pass: when all are tried there is a pause, and
 * they count as not tried again; `hard` ones said they never will: when all are, the whole
 * fetch fails.  Both are by place in the chain and start anew with its next version. */
#include "roles/client_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/crc32c.h"
#include "roles/client_pick.h"
#include "roles/client_stripe.h"

#define FAILED_NS	NS_PER_S	/* avoid a target that did not answer */
#define FIRST_SHARE	5u		/* of client.call, while others are left */

enum { TODO, SENT, DONE };

struct client_target {
	target_id id;
	uint32_t  inflight;
	uint64_t  failed_until_ns;
};

struct rcall {
	struct list	     node;	/* first: client_keep; c->rcalls */
	struct list	     fetch_node;
	struct net_call	     call;
	struct client_fetch *f;
	struct client_target *t;
	chain_id	     chain;
	uint32_t	     bit;	/* of the replica, as in tried */
	uint32_t	     n;
	uint32_t	     pieces[STORAGE_BATCH_MAX];
	struct iovec	     iov[STORAGE_BATCH_MAX];
};
_Static_assert(STORAGE_BATCH_MAX <= NET_BULK_PIECES, "one iovec an item");

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

static void
rcall_put(struct rcall *rc)
{
	struct client *c = rc->f->c;

	rc->t->inflight--;
	list_remove(&rc->node);
	list_remove(&rc->fetch_node);
	client_keep_put(&c->rcall_keep, &rc->node);
}

/* ---- the end ---- */

void
client_fetch_cancel(struct client_fetch *f)
{
	if (!f->active)
		return;
	f->active = false;
	while (!list_empty(&f->calls)) {
		struct rcall *rc = list_entry(f->calls.next, struct rcall,
		    fetch_node);

		net_call_cancel(&rc->call);
		rcall_put(rc);
	}
	client_pause_stop(f->c, &f->pause);
	if (f->pieces != f->few)
		free(f->pieces);
	f->pieces = NULL;
	client_inode_put(f->inode);
}

static void
complete(struct client_fetch *f, int rc)
{
	client_fetch_cancel(f);
	f->fn(f, rc);
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

static void
piece_failed(struct client_fetch *f, struct client_fpiece *p,
    struct client_target *t, uint32_t bit, int rc)
{
	p->state = TODO;
	if (rc == ERR_STALE_CHAIN || rc == ERR_CHAIN_RECOVERING) {
		f->hold = true;
		return;
	}
	if (err_next(rc) == ERR_NEXT_REFRESH) {
		t->failed_until_ns = clock_now(f->c->clock) + FAILED_NS;
		member_refresh(f->c->member);
	}
	p->tried |= bit;
	stat_add(&f->c->stat.failovers, 1);
	/* Damaged data may be repaired from another replica, but not while we wait. */
	if (!client_retryable(rc) || rc == ERR_CORRUPT) {
		p->hard |= bit;
		p->rc = rc;
	}
}

static void
piece_answered(struct client_fetch *f, struct client_fpiece *p,
    struct client_target *t, uint32_t bit, const struct msg_read_result *res)
{
	uint32_t len = res->rc == 0 ? res->len : 0;
	int rc = res->rc == -ENOENT ? 0 : res->rc;

	if (rc == 0 && len > p->len)
		rc = ERR_BAD_MESSAGE;
	if (rc == 0 && len > 0 && crc32c(0, p->dst, len) != res->crc) {
		log_warn(f->c->log, "read fails its checksum",
		    "ino=%llu chunk=%u target=%u",
		    (unsigned long long)f->inode->ino, p->index, t->id);
		stat_add(&f->c->stat.crc_failures, 1);
		rc = ERR_CORRUPT;
	}
	if (rc != 0) {
		piece_failed(f, p, t, bit, rc);
		return;
	}
	/* A hole, or a chunk that ends early: the file goes on, with zeros. */
	f->missing |= len < p->len;
	memset(p->dst + len, 0, p->len - len);
	p->state = DONE;
	f->left--;
}

static void
answered(struct net_call *call, int rc)
{
	struct rcall *r = container_of(call, struct rcall, call);
	struct client_fetch *f = r->f;
	const struct msg_read_rep *rep = call->rep;

	if (rc == 0 && rep->items.n != r->n)
		rc = ERR_BAD_MESSAGE;
	if (rc == 0)
		r->t->failed_until_ns = 0;
	for (uint32_t k = 0; k < r->n; k++) {
		struct client_fpiece *p = &f->pieces[r->pieces[k]];

		if (rc == 0)
			piece_answered(f, p, r->t, r->bit, &rep->items.v[k]);
		else
			piece_failed(f, p, r->t, r->bit, rc);
	}
	rcall_put(r);
	if (f->left == 0)
		complete(f, 0);
	else if (f->hold) {
		f->hold = false;
		client_pause_start(f->c, &f->pause, true, paused);
	} else
		dispatch(f);
}

/* ---- calls ---- */

/* Which replica of @chain serves @p now; CLIENT_PICK_NONE: none left to try. */
static unsigned
pick(struct client_fetch *f, const struct routing_chain *chain,
    struct client_fpiece *p, struct net_addr addrs[ROUTING_REPLICAS_MAX],
    bool *others)
{
	struct client *c = f->c;
	const struct routing *r = member_routing(c->member);
	struct client_pick_cand cand[ROUTING_REPLICAS_MAX];
	unsigned i, usable = 0;

	if (p->chain_version != chain->version) {
		p->chain_version = chain->version;
		p->tried = p->hard = 0;
	}
	for (i = 0; i < chain->target_n; i++) {
		const struct client_target *t = map_get(&c->targets,
		    chain->targets[i]);

		cand[i] = (struct client_pick_cand){
			.known = routing_target_addr(r, chain->targets[i],
			    &addrs[i]) == 0 };
		cand[i].local = cand[i].known &&
		    addrs[i].kind == NET_ADDR_LOCAL;
		if (t != NULL) {
			cand[i].inflight = t->inflight;
			cand[i].failed = t->failed_until_ns >
			    clock_now(c->clock);
		}
		usable += cand[i].known && !cand[i].failed &&
		    ((p->tried | p->hard) & 1u << i) == 0;
	}
	*others = usable > 1;
	return client_pick(cand, chain->target_n, p->tried | p->hard,
	    c->turn++);
}

/* Send piece @k and those like it. 0; or why it has to wait; or, with *over set, why the
 * whole fetch fails. */
static int
send_batch(struct client_fetch *f, unsigned k, bool *over)
{
	struct client *c = f->c;
	struct client_fpiece *p = &f->pieces[k];
	chain_id id = client_inode_chain(f->inode, p->index);
	const struct routing_chain *chain = routing_chain(
	    member_routing(c->member), id);
	struct msg_read_item items[STORAGE_BATCH_MAX];
	struct msg_read req = { .items.v = items };
	struct net_call_opts opts = { .deadline_ns = client_deadline(c) };
	struct net_addr addrs[ROUTING_REPLICAS_MAX];
	struct rcall *r;
	uint64_t bytes = 0;
	bool others;
	unsigned slot;
	int rc;

	if (chain == NULL || chain->state != CHAIN_SERVING ||
	    chain->target_n == 0)
		return -EHOSTUNREACH;
	slot = pick(f, chain, p, addrs, &others);
	if (slot == CLIENT_PICK_NONE) {
		if (p->hard == (1u << chain->target_n) - 1) {
			*over = true;
			return p->rc;
		}
		p->tried = 0;
		return -EHOSTUNREACH;
	}
	r = client_keep_get(&c->rcall_keep, sizeof(*r));
	if (r == NULL)
		return -ENOMEM;
	memset(r, 0, offsetof(struct rcall, pieces));
	list_init(&r->node);
	list_init(&r->fetch_node);
	if ((r->t = target_get(c, chain->targets[slot])) == NULL) {
		client_keep_put(&c->rcall_keep, &r->node);
		return -ENOMEM;
	}
	r->f = f;
	r->chain = id;
	r->bit = 1u << slot;
	for (unsigned j = k; j < f->n && r->n < STORAGE_BATCH_MAX; j++) {
		struct client_fpiece *q = &f->pieces[j];

		if (q->state != TODO || (r->n > 0 &&
		    (bytes + q->len > CLIENT_BATCH_BYTES ||
		    client_inode_chain(f->inode, q->index) != id)))
			continue;
		if (q->chain_version == chain->version &&
		    ((q->tried | q->hard) & r->bit) != 0)
			continue;
		items[r->n] = (struct msg_read_item){
			.chunk = { f->inode->ino, q->index },
			.offset = q->offset, .len = q->len };
		r->iov[r->n] = (struct iovec){ q->dst, q->len };
		r->pieces[r->n++] = j;
		bytes += q->len;
	}
	req.chain = id;
	req.chain_version = chain->version;
	req.target = r->t->id;
	req.items.n = r->n;
	opts.recv = r->iov;
	opts.recv_n = r->n;
	/* One that hangs must not hold us up for all of the deadline. */
	if (others)
		opts.deadline_ns = clock_now(c->clock) +
		    c->conf->client_call * NS_PER_MS / FIRST_SHARE;
	rc = net_call_start(&r->call, c->env.hub, &addrs[slot], MSG_read, &req,
	    &opts, answered);
	if (rc != 0) {
		client_keep_put(&c->rcall_keep, &r->node);
		if (client_retryable(rc))
			return rc;
		p->hard |= 1u << slot;
		p->rc = rc;
		return send_batch(f, k, over);	/* at most once a replica */
	}
	for (uint32_t j = 0; j < r->n; j++) {
		f->pieces[r->pieces[j]].state = SENT;
		f->pieces[r->pieces[j]].chain_version = chain->version;
	}
	r->t->inflight++;
	list_push_back(&c->rcalls, &r->node);
	list_push_back(&f->calls, &r->fetch_node);
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
		struct rcall *r = list_entry(it, struct rcall, node);
		const struct routing_chain *chain = routing_chain(rt, r->chain);
		bool stays = false;

		for (unsigned k = 0; chain != NULL && k < chain->target_n; k++)
			stays |= chain->targets[k] == r->t->id;
		if (stays)
			continue;
		net_call_cancel(&r->call);
		list_remove(&r->node);
		list_push_back(&moved, &r->node);
	}
	/* A fetch that fails takes its other calls off this list. */
	while ((n = moved.next) != &moved) {
		struct rcall *r = list_entry(n, struct rcall, node);
		struct client_fetch *f = r->f;

		for (uint32_t k = 0; k < r->n; k++)
			f->pieces[r->pieces[k]].state = TODO;
		rcall_put(r);
		dispatch(f);
	}
}

void
client_fetch_close_all(struct client *c)
{
	struct client_target *t;
	size_t it = 0;

	assert(list_empty(&c->rcalls));	/* reads and read-ahead are closed */
	while ((t = map_next(&c->targets, &it, NULL)) != NULL)
		free(t);
	map_fini(&c->targets);
	client_keep_fini(&c->rcall_keep);
}
