/* SPDX-License-Identifier: MIT */
/* request.c - one request, from its frame to the end of its reply.
 *
 *   PARKED -> HELD -> PULLING -> HELD -> ASKING -> REPLYING -> gone
 *                                    \---------\-> REPLYING -> gone
 *                                     \-> gone  (reply left at once)
 *
 * 1. r->conn is NULL once the connection has gone, r->srv once the server has; then the
 *    request belongs to its handler alone.
 * 2. r->rx lives while conn does: dropped at the reply, or with the connection.
 * 3. A pull's fn runs from the loop: through s->ready when it could run at once.
 * 4. A reply with more payload than the caller lets come unasked waits for a grant, and
 *    what it borrows with it: for payload_ms, or until the caller's time is up.  Requests
 *    that may lead to such replies are kept from their handler while what is owed to one
 *    connection in this way would be more than OWED_MAX, or refused when they have a
 *    payload; so a caller who grants nothing holds no more of our memory than that.
 * 5. All replies together borrow no more than replies_max, fairly over connections by the
 *    rules of net/grant.h; who would borrow more is PARKED until others have left, or refused
 *    when it has a payload.  Whose connection has gone counts until its handler is done.
 * 6. Nothing after a handler, a pull's fn or sent() touches server, connection or
 *    request, except under s->held. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/serve_impl.h"

#define REQ_KEEP	1024u		/* spare requests */
#define OWED_MAX	(16u << 20)	/* or one reply, if that is larger */

struct req *
net_req_new(struct net_server *s)
{
	struct req *r;

	if (!list_empty(&s->spare)) {
		r = list_entry(list_pop_front(&s->spare), struct req, node);
		s->spare_n--;
	} else if ((r = malloc(sizeof(*r))) == NULL) {
		return NULL;
	}
	memset(r, 0, offsetof(struct req, arena));
	msg_arena_init(&r->arena, NET_ARENA_MAX);
	list_init(&r->node);
	list_init(&r->ready);
	r->pub.impl = r;
	r->srv = s;
	s->reqs_n++;
	stat_set(&s->stat.inflight, s->reqs_n);
	return r;
}

static void run_ready(struct clock_defer *d);

static bool
has_room(const struct sconn *sc, uint32_t bytes)
{
	return sc->owed_bytes == 0 || sc->owed_bytes + bytes <= OWED_MAX;
}

static void
owe(struct req *r)
{
	r->owed = r->pub.recv_len;
	r->conn->owed_bytes += r->owed;
}

static void
park(struct req *r, bool parked)
{
	struct net_server *s = r->srv;

	if ((r->state == REQ_PARKED) == parked)
		return;
	r->state = parked ? REQ_PARKED : REQ_HELD;
	stat_set(&s->stat.parked, s->stat.parked + (parked ? 1 : -1ull));
}

/* @r goes to its handler, from the loop. */
static void
dispatch_later(struct req *r)
{
	list_push_back(&r->srv->ready, &r->ready);
	clock_defer(net_server_clock(r->srv), &r->srv->run, run_ready);
}

/* Whose turn it is has room now.  Is @r one of them? It is the caller's then. */
static bool
give_room(struct net_server *s, const struct req *r)
{
	struct net_grant *g;
	bool there = false;

	while ((g = net_grant_next(&s->replies)) != NULL) {
		struct req *next = container_of(g, struct req, memory);

		if (next == r)
			there = true;
		else
			dispatch_later(next);
	}
	return there;
}

void
net_req_next(struct net_server *s)
{
	if (s->replies.waiting > 0 && !s->closed)
		(void)give_room(s, NULL);
}

/* The payload of @r is under way: it would hold up all that is behind it. */
static void
come_again(struct req *r)
{
	net_reply(&r->pub, ERR_BUSY, NULL, NULL, 0, NULL, NULL);
}

/* False: @r waits for its turn, or is at its end. */
static bool
has_memory(struct req *r)
{
	struct net_server *s = r->srv;

	if (s->replies.size == 0)
		return true;
	net_grant_wait(&s->replies, &r->conn->replies, &r->memory, r->pub.recv_len);
	if (give_room(s, r))
		return true;
	if (r->rx != NULL)
		come_again(r);
	else
		park(r, true);
	return false;
}

bool
net_req_admit(struct req *r)
{
	struct sconn *sc = r->conn;

	if (r->pub.recv_len <= NET_GRANT_SMALL)
		return true;
	if (r->may >= r->pub.recv_len)
		return has_memory(r);
	if (list_empty(&sc->parked) && has_room(sc, r->pub.recv_len)) {
		owe(r);
		return has_memory(r);
	}
	if (r->rx != NULL) {
		come_again(r);
		return false;
	}
	park(r, true);
	list_push_back(&sc->parked, &r->ready);
	return false;
}

/* Nothing is owed for @r any more: there may be room for others. */
static void
settle(struct req *r)
{
	struct sconn *sc = r->conn;

	sc->owed_bytes -= r->owed;
	r->owed = 0;
	while (!list_empty(&sc->parked)) {
		struct req *next = list_entry(sc->parked.next, struct req, ready);

		if (!has_room(sc, next->pub.recv_len))
			return;
		owe(next);
		list_remove(&next->ready);
		if (has_memory(next))
			dispatch_later(next);
	}
}

void
net_req_leave(struct req *r)
{
	net_grant_end(&r->srv->replies, &r->memory);
}

/* Take it off its connection; what of it was in flight there ends. */
static void
detach(struct req *r)
{
	if (r->conn == NULL)
		return;
	settle(r);
	net_req_leave(r);
	net_req_next(r->srv);
	if (r->rx != NULL)
		r->conn->conn.chan->ops->drop(r->conn->conn.chan, r->rx);
	if (r->far != NULL)
		r->conn->conn.chan->ops->far_drop(r->conn->conn.chan, r->far);
	r->rx = NULL;
	r->far = NULL;
	r->conn->reqs_n--;
	r->conn = NULL;
	list_remove(&r->node);
}

void
net_req_free(struct req *r)
{
	struct net_server *s = r->srv;

	detach(r);
	list_remove(&r->node);		/* an orphan */
	list_remove(&r->ready);
	if (s != NULL) {
		net_req_leave(r);
		net_req_next(s);
	}
	msg_arena_fini(&r->arena);
	free(r->big);
	if (s != NULL) {
		park(r, false);
		s->reqs_n--;
		stat_set(&s->stat.inflight, s->reqs_n);
	}
	if (s == NULL || s->closed || s->spare_n >= REQ_KEEP) {
		free(r);
		return;
	}
	list_push_front(&s->spare, &r->node);
	s->spare_n++;
}

void
net_req_finish(struct req *r)
{
	net_sent_fn *sent = r->sent;
	void *arg = r->sent_arg;

	net_req_free(r);
	if (sent != NULL)
		sent(arg);
}

static void
run_ready(struct clock_defer *d)
{
	struct net_server *s = container_of(d, struct net_server, run);
	struct list now;

	s->held++;
	list_init(&now);
	list_splice_back(&now, &s->ready);
	for (struct list *l; !s->closed && (l = list_pop_front(&now)) != NULL;) {
		struct req *r = list_entry(l, struct req, ready);

		if (r->state != REQ_PARKED) {
			r->pulled(&r->pub, r->rc);
			continue;
		}
		park(r, false);
		if (clock_now(net_server_clock(s)) < r->pub.deadline_ns)
			net_server_dispatch(r);
		else			/* nobody waits for it any more */
			net_reply(&r->pub, ERR_BUSY, NULL, NULL, 0, NULL, NULL);
	}
	/* A server that was closed meanwhile has taken them off: net_server_close()
	 * walks all its requests. */
	assert(list_empty(&now));
	net_server_put(s);
}

void
net_req_pull_ended(struct req *r, int rc)
{
	r->state = REQ_HELD;
	r->rc = rc;
	list_push_back(&r->srv->ready, &r->ready);
	clock_defer(net_server_clock(r->srv), &r->srv->run, run_ready);
}

/* ---- what handlers call ---- */

void
net_pull_start(struct net_req *pub, const struct iovec *dst, unsigned n,
    net_pull_fn *fn)
{
	struct req *r = pub->impl;
	struct net_chan *chan;
	int rc;

	assert(r->state == REQ_HELD && list_empty(&r->ready) && r->pulled == NULL);
	r->pulled = fn;
	if (r->srv == NULL)
		return;			/* closed: nobody calls back any more */
	if (r->conn == NULL || r->rx == NULL) {
		net_req_pull_ended(r, r->conn == NULL && pub->bulk_len > 0 ? -ECONNRESET : 0);
		return;
	}
	chan = r->conn->conn.chan;
	if ((rc = chan->ops->pull(chan, r->rx, dst, n)) == 0) {
		r->state = REQ_PULLING;
		return;
	}
	r->rx = NULL;
	if (rc == 1)
		stat_add(&r->srv->stat.recv_bytes, pub->bulk_len);
	net_req_pull_ended(r, rc == 1 ? 0 : rc);
}

/* Do the pieces fit in the room the caller has? */
static bool
pieces_fit(const struct req *r, const struct net_piece *pieces, unsigned n,
    uint32_t *bulk_len)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++) {
		if ((uint64_t)pieces[i].dst_off + pieces[i].len > r->pub.recv_len)
			return false;
		sum += pieces[i].len;
	}
	*bulk_len = (uint32_t)sum;
	return sum <= NET_BULK_MAX;
}

/* Message, then pieces, into scratch.  Bytes with the head, or -EMSGSIZE. */
static int
encode_reply(const struct req *r, const void *rep, const struct net_piece *pieces,
    unsigned n)
{
	uint8_t *head = r->srv->hub->scratch;
	int len = 0;

	if (rep != NULL)
		len = msg_encode(r->method->reply, rep, head + NET_HEAD, NET_MSG_MAX);
	if (len < 0)
		return len;
	len += (int)NET_HEAD;
	for (unsigned i = 0; i < n; i++, len += (int)NET_PIECE_BYTES)
		net_frame_piece_put(head + len, pieces[i].dst_off, pieces[i].len);
	return len;
}

static struct net_out *
make_reply(struct req *r, const uint8_t *head, uint32_t len,
    const struct net_piece *pieces, unsigned n, uint32_t bulk_len)
{
	struct net_out *o = net_out_new(r->srv->hub, len, n);

	if (o == NULL)
		return NULL;
	memcpy(o->head, head, len);
	for (unsigned i = 0; i < n; i++) {
		/* Sending does not write through it. */
		o->iov[i].iov_base = (void *)(uintptr_t)pieces[i].p;
		o->iov[i].iov_len = pieces[i].len;
		o->dst_off[i] = pieces[i].dst_off;
	}
	o->owner = r;
	o->tx.bulk_len = bulk_len;
	o->tx.iov = o->iov;
	o->tx.iov_n = n;
	o->tx.dst_off = o->dst_off;
	return o;
}

/* ---- replies that ask ---- */

/* The reply is made: may it come?  False: out of memory. */
static bool
ask(struct req *r, struct net_out *o)
{
	struct net_server *s = r->srv;

	if (net_conn_word(&r->conn->conn, NET_FRAME_ASK, r->id, o->tx.bulk_len) != 0)
		return false;
	net_grant_idle(&s->replies, &r->memory);
	net_req_next(s);
	r->out = o;
	r->state = REQ_ASKING;
	r->asked_ns = clock_now(net_server_clock(s));
	list_push_back(&r->conn->asking, &r->ready);
	stat_add(&s->stat.asks, 1);
	stat_set(&s->stat.asking, s->stat.asking + 1);
	return true;
}

void
net_req_unask(struct req *r)
{
	struct net_server *s = r->srv;

	assert(r->state == REQ_ASKING);
	r->state = REQ_REPLYING;
	list_remove(&r->ready);
	net_out_free(s->hub, r->out);
	r->out = NULL;
	stat_set(&s->stat.asking, s->stat.asking - 1);
}

void
net_req_give_up(struct req *r)
{
	struct net_frame f = {
		.id = r->id, .kind = NET_FRAME_REPLY, .arg = (uint32_t)ERR_BUSY
	};
	struct sconn *sc = r->conn;
	uint8_t head[NET_HEAD];

	net_server_count_error(r->srv, ERR_BUSY);
	net_frame_encode(&f, head);
	if (net_conn_copy(&sc->conn, head, sizeof(head), r->far) != 0) {
		net_server_close_conn(sc, false);
		return;
	}
	r->far = NULL;
	net_req_unask(r);
	net_req_finish(r);
}

static void
push(struct req *r)
{
	struct net_out *o = r->out;

	r->out = NULL;			/* unask() leaves it to us */
	net_req_unask(r);
	net_grant_came(&r->srv->replies, &r->memory, r->memory.bytes);
	settle(r);
	o->tx.far = r->far;
	r->far = NULL;
	stat_add(&r->srv->stat.sent_bytes, o->tx.bulk_len);
	if (net_conn_send(&r->conn->conn, o)) {
		net_out_free(r->conn->conn.hub, o);
		net_req_finish(r);
	}
}

/* In the order in which was asked, mostly; what is not there has been given up, or nobody
 * has asked: no harm either. */
void
net_req_granted(struct sconn *sc, uint64_t id, bool wanted)
{
	list_for_each(l, &sc->asking) {
		struct req *r = list_entry(l, struct req, ready);

		if (r->id != id)
			continue;
		if (wanted) {
			push(r);
		} else {
			net_req_unask(r);
			net_req_finish(r);
		}
		return;
	}
}

/* ---- replies ---- */

/* True: the reply has left, or cannot; false: ops->sent tells. */
static bool
send_reply(struct req *r, int rc, const void *rep, const struct net_piece *pieces,
    unsigned n)
{
	struct sconn *sc = r->conn;
	uint8_t *head = r->srv->hub->scratch;
	struct net_frame f = { .id = r->id, .kind = NET_FRAME_REPLY };
	struct net_out *o;
	int len;

	if (rc == 0 && !pieces_fit(r, pieces, n, &f.bulk_len))
		rc = ERR_BAD_MESSAGE;
	if (rc != 0) {
		rep = NULL;
		n = 0;
		f.bulk_len = 0;
	}
	if ((len = encode_reply(r, rep, pieces, n)) < 0) {
		rc = len;
		len = (int)NET_HEAD;
		f.bulk_len = n = 0;
	}
	if (rc != 0)
		net_server_count_error(r->srv, rc);
	net_grant_came(&r->srv->replies, &r->memory, f.bulk_len);
	net_req_next(r->srv);
	stat_hist_add(&r->srv->stat.request_ns, clock_now(net_server_clock(r->srv)) -
	    r->start_ns);
	f.msg_len = (uint32_t)len - NET_HEAD;
	f.pieces = (uint8_t)n;
	f.arg = (uint32_t)rc;
	net_frame_encode(&f, head);
	if (f.bulk_len == 0 && len <= (int)NET_OUT_SMALL) {
		if (net_conn_copy(&sc->conn, head, (uint32_t)len, r->far) == 0) {
			r->far = NULL;
			return true;
		}
	} else if ((o = make_reply(r, head, (uint32_t)len, pieces, n,
	    f.bulk_len)) != NULL) {
		if (f.bulk_len > r->may && ask(r, o))
			return false;
		if (f.bulk_len > r->may) {
			net_out_free(sc->conn.hub, o);
		} else {
			o->tx.far = r->far;
			r->far = NULL;
			r->state = REQ_REPLYING;
			stat_add(&r->srv->stat.sent_bytes, f.bulk_len);
			if (!net_conn_send(&sc->conn, o))
				return false;
			net_out_free(sc->conn.hub, o);
			return true;
		}
	}
	/* Out of memory for an answer: a reset is one too. */
	r->state = REQ_HELD;
	net_server_close_conn(sc, false);
	return true;
}

void
net_reply(struct net_req *pub, int rc, const void *rep,
    const struct net_piece *pieces, unsigned n, net_sent_fn *sent, void *arg)
{
	struct req *r = pub->impl;
	struct net_chan *chan;

	assert((r->state == REQ_HELD || r->state == REQ_PULLING) && n <= NET_BULK_PIECES);
	assert(n == 0 || sent != NULL);
	list_remove(&r->ready);
	if (rc == 0 && rep == NULL && r->srv != NULL)
		rep = r->srv->hub->rep_zero;	/* the caller decodes one */
	r->sent = sent;
	r->sent_arg = arg;
	r->state = REQ_HELD;
	if (r->conn != NULL && r->rx != NULL) {
		chan = r->conn->conn.chan;
		chan->ops->drop(chan, r->rx);
		r->rx = NULL;
	}
	if (r->conn == NULL || send_reply(r, rc, rep, pieces, n))
		net_req_finish(r);
}

void
net_req_drop(struct net_req *pub)
{
	struct req *r = pub->impl;

	assert(r->state == REQ_HELD || r->state == REQ_PULLING);
	net_req_free(r);
}
