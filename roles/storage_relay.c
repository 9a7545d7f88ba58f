/* SPDX-License-Identifier: MIT */
/* storage_relay.c - requests passed on to the head (or tail) of a chain, for those that reach
 * us but not it.
 *
 *   request -> checked, payload received -> sent to the head -> its answer is ours
 *                                            |
 *                                            '- the head is silent, or the chain moves on
 *
 * The message goes on as it came, with the client, the number and the chain version of who
 * asked: to the head it is one more attempt at the same request, so whatever way the others
 * went it acts once.
 *  1. Who passes on is named in the message (via), and whom it is for (target): that one
 *     finds itself there and passes nothing on, so no request goes in circles.
 *  2. Payload held here is at most a share of the buffers (room_for()), counted below what
 *     a head may take: heads always have room that relays cannot fill, so two nodes that
 *     relay to each other do not wait for one another.
 *  3. A request ends here at its own deadline at the latest; sooner when nothing comes from
 *     the head, or when the chain has another version.  "Comes again in a moment" is all that
 *     who asked is told then: it may have been executed. */
#include <errno.h>
#include <stdlib.h>

#include "conf/err.h"
#include "roles/path.h"
#include "roles/storage_impl.h"

#define RELAYS_MAX	256u		/* of one worker */

struct storage_relay {
	struct storage_worker *w;
	struct list	node;		/* w->relays */
	struct net_req *req;		/* NULL: answered, call is leaving */
	struct storage_target *t;	/* ours, of that chain */
	uint32_t	version;	/* of the chain */
	unsigned	place;		/* in it, of whom it is for */
	struct mem_buf	buf;
	struct iovec	iov;
	struct net_call call;
	uint64_t	sent_ns;	/* 0: the payload is not here yet */
};

static void
free_relay(struct storage_relay *r)
{
	struct storage_worker *w = r->w;

	w->relay_bytes -= r->buf.size;
	w->relay_n--;
	mem_put(&r->buf);
	list_remove(&r->node);
	free(r);
}

/* The payload stays while the head may still be reading it. */
static void
finish(struct storage_relay *r, int rc, const void *rep)
{
	bool over = net_call_leave(&r->call);

	net_reply(r->req, rc, rep, NULL, 0, NULL, NULL);
	r->req = NULL;
	storage_fore_end(r->w, r->iov.iov_len);
	if (over)
		free_relay(r);
}

static void
answered(struct net_call *c, int rc)
{
	struct storage_relay *r = container_of(c, struct storage_relay, call);

	if (r->req == NULL) {
		free_relay(r);
		return;
	}
	finish(r, path_answered(rc) ? rc : ERR_CHAIN_RECOVERING,
	    rc == 0 ? c->rep : NULL);
}

static int
send(struct storage_relay *r)
{
	struct storage_worker *w = r->w;
	struct net_call_opts opts = { .deadline_ns = r->req->deadline_ns,
	    .send = &r->iov, .send_n = r->iov.iov_len > 0 };

	/* It may have moved on while the payload came. */
	if (r->t->gone || r->t->v.version != r->version || w->stopping)
		return ERR_STALE_CHAIN;
	r->sent_ns = clock_now(w->clock);
	return net_call_start(&r->call, w->env->hub, &r->t->v.addrs[r->place],
	    r->req->method, r->req->msg, &opts, answered);
}

static void
pulled(struct net_req *req, int rc)
{
	struct storage_relay *r = req->user;

	if (rc == 0)
		rc = send(r);
	if (rc != 0)
		finish(r, rc, NULL);
	else
		stat_add(&r->w->stat.relayed, 1);
}

/* One is always taken, if it is not too large for a small pool. */
static bool
room_for(const struct storage_worker *w, size_t bytes)
{
	size_t max = w->env->conf->storage_memory;

	return w->relay_bytes + bytes <= (w->relay_bytes == 0 ? max / 4 : max / 8) &&
	    storage_memory(w, 0, 2, bytes);
}

static int
take(struct storage_worker *w, struct storage_target *t, struct net_req *req,
    unsigned place)
{
	struct storage_relay *r;
	int rc = 0;

	if (w->relay_n >= RELAYS_MAX)
		return ERR_BUSY;
	if ((r = calloc(1, sizeof(*r))) == NULL)
		return -ENOMEM;
	r->iov.iov_len = req->bulk_len;
	if (req->bulk_len > 0 && !room_for(w, req->bulk_len))
		rc = ERR_BUSY;
	else if (req->bulk_len > 0)
		rc = mem_get(w->pool, req->bulk_len, &r->buf);
	if (rc != 0) {
		free(r);
		return rc;
	}
	r->w = w;
	r->t = t;
	r->req = req;
	r->version = t->v.version;
	r->place = place;
	r->iov.iov_base = r->buf.p;
	list_push_back(&w->relays, &r->node);
	w->relay_n++;
	w->relay_bytes += r->buf.size;
	storage_fore_begin(w);
	req->user = r;
	if (req->bulk_len > 0)
		net_pull_start(req, &r->iov, 1, pulled);
	else
		pulled(req, 0);
	return 0;
}

/* Where @target is among those that take part; active_n: nowhere. */
static unsigned
place_of(const struct storage_target *t, target_id target)
{
	unsigned i = 0;

	while (i < t->v.active_n && t->v.replicas[i] != target)
		i++;
	return i;
}

void
storage_relay_call(struct storage_worker *w, struct net_req *req, target_id via,
    target_id target, chain_id chain, uint32_t version)
{
	struct storage_target *t;
	int rc = storage_check(w, STORAGE_LIST, via, chain, version, &t);
	unsigned place = 0;

	if (rc == 0 && ((place = place_of(t, target)) == t->v.active_n ||
	    place == t->v.pos))
		rc = ERR_NOT_OWNER;
	if (rc == 0 && t->v.addrs[place].kind == NET_ADDR_NONE)
		rc = ERR_CHAIN_RECOVERING;
	if (rc == 0)
		rc = take(w, t, req, place);
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

bool
storage_relay_from(const struct storage_target *t, target_id via)
{
	unsigned place = place_of(t, via);

	return via == 0 || (place < t->v.active_n && place != t->v.pos);
}

void
storage_relay_watch(struct storage_worker *w)
{
	list_for_each_safe(it, next, &w->relays) {
		struct storage_relay *r = list_entry(it, struct storage_relay,
		    node);

		/* Until the payload is here we wait for who asks. */
		if (r->req != NULL && r->sent_ns != 0 && path_relay_in_vain(&r->call, r->sent_ns,
		    clock_now(w->clock)))
			finish(r, ERR_CHAIN_RECOVERING, NULL);
	}
}

void
storage_relay_moved(struct storage_worker *w)
{
	list_for_each_safe(it, next, &w->relays) {
		struct storage_relay *r = list_entry(it, struct storage_relay,
		    node);

		/* A payload that is under way cannot be left without breaking the
		 * connection: send() looks again when it is here. */
		if (r->req != NULL && r->sent_ns != 0 &&
		    (r->t->gone || r->t->v.version != r->version))
			finish(r, ERR_STALE_CHAIN, NULL);
	}
}

void
storage_relay_close(struct storage_worker *w)
{
	struct list *it;

	while ((it = list_pop_front(&w->relays)) != NULL) {
		struct storage_relay *r = list_entry(it, struct storage_relay,
		    node);

		net_call_cancel(&r->call);
		if (r->req != NULL)
			net_req_drop(r->req);
		mem_put(&r->buf);
		free(r);
	}
}
