/* SPDX-License-Identifier: MIT */
/* serve.c - requests in, replies out.
 *
 *   request   HELD -> PULLING -> HELD -> REPLYING -> gone
 *                                    \_____________-> gone  (reply left at once)
 *
 * 1. r->conn is NULL once the connection has gone, r->srv once the server has; then the
 *    request belongs to its handler alone.
 * 2. r->rx lives while conn does: dropped at the reply, or with the connection.
 * 3. s->reqs_n counts requests until their reply has left, so it bounds the memory that
 *    replies borrow too, whether or not the peer reads them.
 * 4. A pull's fn runs from the loop: through s->ready when it could run at once.
 * 5. Nothing after a handler, a pull's fn or sent() touches server, connection or
 *    request, except under s->held. */
#include "net/serve.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/conn.h"

STAT_DEFINE(net_server, NET_SERVER_STATS)

#define REQ_INLINE	1024u		/* message and its struct, usually */
#define REQ_KEEP	1024u		/* spare requests */
#define SWEEPS		4u		/* looks for stuck peers in payload_ms */

enum req_state { REQ_HELD, REQ_PULLING, REQ_REPLYING };

struct sconn {
	struct net_conn	   conn;
	struct net_server *srv;
	struct list	   node;	/* s->fresh until its hello, then s->conns */
	struct list	   reqs;
	uint32_t	   reqs_n;
};

struct req {
	struct net_req	   pub;		/* first: impl is not needed to find us */
	struct list	   node;	/* conn->reqs, s->orphans, or spare */
	struct list	   ready;	/* s->ready: fn is due with rc */
	struct net_server *srv;
	struct sconn	  *conn;
	struct net_rx	  *rx;
	struct net_far	  *far;
	const struct msg_method *method;
	uint64_t	   id, start_ns;
	enum req_state	   state;
	net_pull_fn	  *pulled;
	int		   rc;
	net_sent_fn	  *sent;
	void		  *sent_arg;
	void		  *big;		/* NULL: @room was enough */
	struct msg_arena   arena;
	_Alignas(16) uint8_t room[REQ_INLINE];
};

struct net_server {
	struct net_server_conf conf;
	struct net_hub	   *hub;
	struct net_transport *transport;
	struct net_listener *listener;
	struct list	    fresh, conns, orphans, ready, spare;
	unsigned	    spare_n;
	uint32_t	    conns_n, reqs_n;
	uint32_t	    held;
	bool		    draining, closed;
	struct clock_timer  sweep;
	struct clock_defer  run;
	uint64_t	    full_log_ns;
	struct net_server_stat stat;
	struct stat_set	    stat_set;
	struct {
		net_serve_fn *fn;
		void	     *ctx;
	} services[256];
};

static struct clock *
clock_of(const struct net_server *s)
{
	return s->hub->conf.clock;
}

static void
server_put(struct net_server *s)
{
	assert(s->held > 0);
	if (--s->held == 0 && s->closed)
		free(s);
}

/* ---- requests ---- */

static struct req *
new_req(struct net_server *s)
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

/* Take it off its connection; what of it was in flight there ends. */
static void
detach(struct req *r)
{
	if (r->conn == NULL)
		return;
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

static void
free_req(struct req *r)
{
	struct net_server *s = r->srv;

	detach(r);
	list_remove(&r->node);		/* an orphan */
	list_remove(&r->ready);
	msg_arena_fini(&r->arena);
	free(r->big);
	if (s != NULL) {
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

/* The reply has left or never will. Runs sent(). */
static void
finish_reply(struct req *r)
{
	net_sent_fn *sent = r->sent;
	void *arg = r->sent_arg;

	free_req(r);
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

		r->pulled(&r->pub, r->rc);
	}
	/* A server that was closed meanwhile has taken them off: net_server_close()
	 * walks all its requests. */
	assert(list_empty(&now));
	server_put(s);
}

static void
pull_ended(struct req *r, int rc)
{
	r->state = REQ_HELD;
	r->rc = rc;
	list_push_back(&r->srv->ready, &r->ready);
	clock_defer(clock_of(r->srv), &r->srv->run, run_ready);
}

/* ---- connections ---- */

/* Its requests live on; pulls of theirs fail, and replies are as good as sent. */
static void
close_conn(struct sconn *sc, bool linger)
{
	struct net_server *s = sc->srv;
	struct list unsent, replies;

	list_init(&unsent);
	list_init(&replies);
	list_for_each(l, &sc->reqs) {
		/* The channel takes these with it. */
		list_entry(l, struct req, node)->rx = NULL;
		list_entry(l, struct req, node)->far = NULL;
	}
	net_conn_close(&sc->conn, &unsent, linger);
	for (struct list *l; (l = list_pop_front(&unsent)) != NULL;)
		net_out_free(s->hub, list_entry(l, struct net_out, tx.node));
	for (struct list *l; (l = list_pop_front(&sc->reqs)) != NULL;) {
		struct req *r = list_entry(l, struct req, node);

		r->conn = NULL;
		if (r->state == REQ_REPLYING) {
			list_push_back(&replies, &r->node);
			continue;
		}
		list_push_back(&s->orphans, &r->node);
		if (r->state == REQ_PULLING)
			pull_ended(r, -ECONNRESET);
	}
	list_remove(&sc->node);
	s->conns_n--;
	stat_set(&s->stat.connections, s->conns_n);
	if (s->conns_n == 0)
		clock_timer_stop(clock_of(s), &s->sweep);
	free(sc);
	/* Under s->held, or by the server's close: sent() may do anything, but these
	 * are on nobody's list but ours. */
	s->held++;
	for (struct list *l; (l = list_pop_front(&replies)) != NULL;)
		finish_reply(list_entry(l, struct req, node));
	server_put(s);
}

/* The first connection whose peer neither sends nor reads what it should. */
static struct sconn *
find_stuck(const struct net_server *s, uint64_t now)
{
	uint64_t limit = s->conf.payload_ms * NS_PER_MS;

	list_for_each(l, &s->conns) {
		struct sconn *sc = list_entry(l, struct sconn, node);
		const struct net_chan *chan = sc->conn.chan;

		if ((chan->rx_since_ns != 0 && now - chan->rx_since_ns >= limit) ||
		    (chan->tx_since_ns != 0 && now - chan->tx_since_ns >= limit))
			return sc;
	}
	return NULL;
}

static void
sweep(struct clock_timer *t)
{
	struct net_server *s = container_of(t, struct net_server, sweep);
	uint64_t now = clock_now(clock_of(s));
	struct sconn *sc;

	s->held++;
	while (!s->closed && (sc = find_stuck(s, now)) != NULL) {
		char peer[NET_ADDR_TEXT];

		net_addr_text(&sc->conn.chan->peer, peer);
		log_info(s->hub->conf.log, "client is stuck", "client=%s requests=%u",
		    peer, sc->reqs_n);
		close_conn(sc, false);
	}
	if (!s->closed && s->conns_n > 0)
		clock_timer_start(clock_of(s), t, now +
		    s->conf.payload_ms * NS_PER_MS / SWEEPS, sweep);
	server_put(s);
}

static void
count_error(struct net_server *s, int rc)
{
	if (rc == ERR_BUSY)
		stat_add(&s->stat.busy, 1);
	else if (rc == ERR_BAD_MESSAGE || rc == ERR_BAD_METHOD)
		stat_add(&s->stat.bad, 1);
	else
		stat_add(&s->stat.errors, 1);
}

static void
reply_code(struct sconn *sc, uint64_t id, int rc)
{
	struct net_frame f = {
		.id = id, .kind = NET_FRAME_REPLY, .arg = (uint32_t)rc
	};
	uint8_t head[NET_HEAD];

	count_error(sc->srv, rc);
	net_frame_encode(&f, head);
	if (net_conn_copy(&sc->conn, head, sizeof(head), NULL) != 0)
		close_conn(sc, false);
}

/* Copy and decode the message. 0, ERR_BAD_MESSAGE, -ENOMEM. */
static int
take_message(struct req *r, const uint8_t *head, const struct net_frame *f)
{
	uint32_t n = net_frame_msg_len(f);
	size_t size = (r->method->request->size + 15) & ~(size_t)15;
	uint8_t *room = r->room;

	if (size + n > sizeof(r->room) && (room = r->big = malloc(size + n)) == NULL)
		return -ENOMEM;
	memcpy(room + size, head + NET_HEAD, n);
	r->pub.msg = room;
	return msg_decode(r->method->request, room + size, n, &r->arena, room, NULL);
}

/* Make a request of a frame; NULL and *rc: the answer to give at once. */
static struct req *
admit(struct sconn *sc, const uint8_t *head, const struct net_frame *f, int *rc)
{
	struct net_server *s = sc->srv;
	const struct msg_method *method;
	struct req *r;

	if (s->draining)
		*rc = ERR_STOPPING;
	else if (s->reqs_n >= s->conf.reqs_max ||
	    sc->reqs_n >= s->conf.conn_reqs_max)
		*rc = ERR_BUSY;
	else if ((method = msg_method(f->method)) == NULL ||
	    s->services[f->method >> 8].fn == NULL)
		*rc = ERR_BAD_METHOD;
	else if ((r = new_req(s)) == NULL)
		*rc = ERR_BUSY;
	else {
		r->method = method;
		if ((*rc = take_message(r, head, f)) == 0)
			return r;
		if (*rc == -ENOMEM)
			*rc = ERR_BUSY;
		free_req(r);
	}
	return NULL;
}

static void
conn_frame(struct net_conn *conn, const uint8_t *head, const struct net_frame *f,
    struct net_rx *rx, struct net_far *far)
{
	struct sconn *sc = container_of(conn, struct sconn, conn);
	struct net_server *s = sc->srv;
	struct req *r;
	int rc;

	if ((r = admit(sc, head, f, &rc)) == NULL) {
		if (rx != NULL)
			conn->chan->ops->drop(conn->chan, rx);
		if (far != NULL)
			conn->chan->ops->far_drop(conn->chan, far);
		reply_code(sc, f->id, rc);
		return;
	}
	r->pub.method = f->method;
	r->pub.bulk_len = f->bulk_len;
	r->start_ns = clock_now(clock_of(s));
	r->pub.deadline_ns = r->start_ns + f->arg * NS_PER_MS;
	if (f->pieces > 0) {
		uint32_t zero;

		net_frame_piece(head, f, 0, &zero, &r->pub.recv_len);
	}
	r->id = f->id;
	r->far = far;
	r->conn = sc;
	if ((r->rx = rx) != NULL)
		rx->owner = r;
	list_push_back(&sc->reqs, &r->node);
	sc->reqs_n++;
	stat_add(&s->stat.requests, 1);
	s->services[f->method >> 8].fn(s->services[f->method >> 8].ctx, &r->pub);
}

static void
conn_pulled(struct net_conn *conn, struct net_rx *rx)
{
	struct req *r = rx->owner;

	(void)conn;
	assert(r->state == REQ_PULLING);
	r->rx = NULL;
	r->state = REQ_HELD;
	stat_add(&r->srv->stat.recv_bytes, r->pub.bulk_len);
	r->pulled(&r->pub, 0);
}

static void
conn_sent(struct net_conn *conn, struct net_out *o)
{
	struct req *r = o->owner;

	net_out_free(conn->hub, o);
	finish_reply(r);
}

static void
conn_up(struct net_conn *conn)
{
	struct sconn *sc = container_of(conn, struct sconn, conn);

	list_remove(&sc->node);
	list_push_back(&sc->srv->conns, &sc->node);
}

static void
conn_closed(struct net_conn *conn, int rc)
{
	struct sconn *sc = container_of(conn, struct sconn, conn);

	if (rc == ERR_BAD_MESSAGE)
		stat_add(&sc->srv->stat.bad, 1);
	close_conn(sc, false);
}

static const struct net_conn_ops conn_ops = {
	.up = conn_up,
	.frame = conn_frame,
	.pulled = conn_pulled,
	.sent = conn_sent,
	.closed = conn_closed
};

/* Over conns_max whoever has not proved anything for longest makes room: strangers
 * cannot keep members out. */
static bool
make_room(struct net_server *s)
{
	uint64_t now = clock_now(clock_of(s));

	if (s->conns_n < s->conf.conns_max)
		return true;
	if (s->full_log_ns == 0 || now - s->full_log_ns > 10 * NS_PER_S) {
		s->full_log_ns = now;
		log_warn(s->hub->conf.log, "too many connections", "max=%u",
		    s->conf.conns_max);
	}
	if (list_empty(&s->fresh))
		return false;
	close_conn(list_entry(s->fresh.next, struct sconn, node), false);
	return true;
}

static void
accepted(void *ctx, struct net_chan *chan)
{
	struct net_server *s = ctx;
	struct sconn *sc = NULL;
	struct list none;

	if (!make_room(s) || (sc = calloc(1, sizeof(*sc))) == NULL) {
		list_init(&none);
		chan->ops->close(chan, &none, false);
		return;
	}
	if (net_conn_accept(&sc->conn, s->hub, chan, s->conf.hello_ms,
	    &conn_ops) != 0) {
		free(sc);
		return;
	}
	sc->srv = s;
	list_init(&sc->reqs);
	list_push_back(&s->fresh, &sc->node);
	stat_set(&s->stat.connections, s->conns_n + 1);
	if (s->conns_n++ == 0)
		clock_timer_start(clock_of(s), &s->sweep, clock_now(clock_of(s)) +
		    s->conf.payload_ms * NS_PER_MS / SWEEPS, sweep);
}

/* ---- the server ---- */

int
net_server_open(struct net_server **out, const struct net_server_conf *c)
{
	struct net_transport *t = net_hub_transport(c->hub, c->listen.kind);
	struct net_server *s;
	int rc;

	if (t == NULL)
		return -EAFNOSUPPORT;
	assert(c->payload_ms >= SWEEPS && c->hello_ms > 0);
	if ((s = calloc(1, sizeof(*s))) == NULL)
		return -ENOMEM;
	s->conf = *c;
	s->hub = c->hub;
	s->transport = t;
	list_init(&s->fresh);
	list_init(&s->conns);
	list_init(&s->orphans);
	list_init(&s->ready);
	list_init(&s->spare);
	rc = t->ops->listen(t, &c->listen, accepted, s, &s->listener);
	if (rc != 0) {
		free(s);
		return rc;
	}
	stat_attach(c->hub->conf.stats, &s->stat_set, "fsd_net_server",
	    net_hub_who(c->hub), net_server_stat_rows, &s->stat);
	*out = s;
	return 0;
}

void
net_server_handle(struct net_server *s, uint8_t service, net_serve_fn *fn, void *ctx)
{
	s->services[service].fn = fn;
	s->services[service].ctx = ctx;
}

void
net_server_addr(const struct net_server *s, struct net_addr *out)
{
	s->transport->ops->listen_addr(s->listener, out);
}

void
net_server_drain(struct net_server *s)
{
	s->draining = true;
}

uint32_t
net_server_inflight(const struct net_server *s)
{
	return s->reqs_n;
}

const struct net_server_stat *
net_server_stats(const struct net_server *s)
{
	return &s->stat;
}

void
net_server_close(struct net_server *s)
{
	if (s == NULL || s->closed)
		return;
	s->held++;
	s->closed = true;
	stat_remove(&s->stat_set);
	s->transport->ops->unlisten(s->listener);
	while (!list_empty(&s->fresh))
		close_conn(list_entry(s->fresh.next, struct sconn, node), false);
	while (!list_empty(&s->conns))
		close_conn(list_entry(s->conns.next, struct sconn, node), true);
	for (struct list *l; (l = list_pop_front(&s->orphans)) != NULL;) {
		struct req *r = list_entry(l, struct req, node);

		list_remove(&r->ready);
		r->srv = NULL;
	}
	for (struct list *l; (l = list_pop_front(&s->spare)) != NULL;)
		free(list_entry(l, struct req, node));
	clock_timer_stop(clock_of(s), &s->sweep);
	clock_undefer(clock_of(s), &s->run);
	server_put(s);
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
		pull_ended(r, r->conn == NULL && pub->bulk_len > 0 ? -ECONNRESET : 0);
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
	pull_ended(r, rc == 1 ? 0 : rc);
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
	o->tx.far = r->far;
	r->far = NULL;
	return o;
}

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
		count_error(r->srv, rc);
	stat_add(&r->srv->stat.sent_bytes, f.bulk_len);
	stat_hist_add(&r->srv->stat.request_ns, clock_now(clock_of(r->srv)) -
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
		r->state = REQ_REPLYING;
		if (!net_conn_send(&sc->conn, o))
			return false;
		net_out_free(sc->conn.hub, o);
		return true;
	}
	/* Out of memory for an answer: a reset is one too. */
	r->state = REQ_HELD;
	close_conn(sc, false);
	return true;
}

void
net_reply(struct net_req *pub, int rc, const void *rep,
    const struct net_piece *pieces, unsigned n, net_sent_fn *sent, void *arg)
{
	struct req *r = pub->impl;
	struct net_chan *chan;

	assert(r->state != REQ_REPLYING && n <= NET_BULK_PIECES);
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
		finish_reply(r);
}

void
net_req_drop(struct net_req *pub)
{
	struct req *r = pub->impl;

	assert(r->state != REQ_REPLYING);
	free_req(r);
}
