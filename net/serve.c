/* SPDX-License-Identifier: MIT */
/* serve.c - a server: who may connect, and which requests reach their handler.
 *
 * 1. s->reqs_n counts requests until their reply has left, so it bounds the memory that
 *    replies borrow too, whether or not the peer reads them.  No connection keeps the
 *    others from their part of it.
 * 2. Nothing after a handler, a pull's fn or sent() touches server, connection or
 *    request, except under s->held. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/serve_impl.h"

STAT_DEFINE(net_server, NET_SERVER_STATS)

#define SWEEPS		4u		/* looks for stuck peers in payload_ms */

void
net_server_put(struct net_server *s)
{
	assert(s->held > 0);
	if (--s->held == 0 && s->closed)
		free(s);
}

/* ---- connections ---- */

void
net_server_close_conn(struct sconn *sc, bool linger)
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
		if (r->state == REQ_PARKED) {
			net_req_leave(r);
			net_req_free(r);
			continue;
		}
		if (r->state == REQ_ASKING)
			net_req_unask(r);
		if (r->state == REQ_REPLYING) {
			net_req_leave(r);
			list_push_back(&replies, &r->node);
			continue;
		}
		/* Its handler has memory for the reply until it gives that. */
		net_grant_move(&s->replies, &r->memory, &s->gone);
		list_push_back(&s->orphans, &r->node);
		if (r->state == REQ_PULLING)
			net_req_pull_ended(r, -ECONNRESET);
	}
	list_remove(&sc->node);
	s->conns_n--;
	stat_set(&s->stat.connections, s->conns_n);
	if (s->conns_n == 0)
		clock_timer_stop(net_server_clock(s), &s->sweep);
	free(sc);
	net_req_next(s);
	/* Under s->held, or by the server's close: sent() may do anything, but these
	 * are on nobody's list but ours. */
	s->held++;
	for (struct list *l; (l = list_pop_front(&replies)) != NULL;)
		net_req_finish(list_entry(l, struct req, node));
	net_server_put(s);
}

/* Does its peer neither send nor read what it should? */
static bool
is_stuck(const struct sconn *sc, uint64_t now)
{
	uint64_t limit = sc->srv->conf.payload_ms * NS_PER_MS;
	const struct net_chan *chan = sc->conn.chan;

	return (chan->rx_since_ns != 0 && now - chan->rx_since_ns >= limit) ||
	    (chan->tx_since_ns != 0 && now - chan->tx_since_ns >= limit);
}

/* Replies whose grant does not come. */
static void
give_up_ungranted(struct net_server *s, uint64_t now)
{
	uint64_t limit = s->conf.payload_ms * NS_PER_MS;
	struct list late;

	list_init(&late);
	list_for_each(l, &s->conns) {
		struct sconn *sc = list_entry(l, struct sconn, node);

		list_for_each_safe(k, next, &sc->asking) {
			struct req *r = list_entry(k, struct req, ready);

			if (now - r->asked_ns < limit && now < r->pub.deadline_ns)
				continue;
			list_remove(&r->ready);
			list_push_back(&late, &r->ready);
		}
	}
	/* Whatever ends one takes it off; each may end others. */
	while (!list_empty(&late))
		net_req_give_up(list_entry(late.next, struct req, ready));
}

static void
close_stuck(struct net_server *s, uint64_t now)
{
	/* Each may end others; once round comes by all that are left. */
	for (uint32_t n = s->conns_n; n > 0 && !list_empty(&s->conns); n--) {
		struct sconn *sc = list_entry(list_pop_front(&s->conns), struct sconn,
		    node);
		char peer[NET_ADDR_TEXT];

		list_push_back(&s->conns, &sc->node);
		if (!is_stuck(sc, now))
			continue;
		net_addr_text(&sc->conn.chan->peer, peer);
		log_info(s->hub->conf.log, "client is stuck", "client=%s requests=%u",
		    peer, sc->reqs_n);
		net_server_close_conn(sc, false);
	}
}

static void
sweep(struct clock_timer *t)
{
	struct net_server *s = container_of(t, struct net_server, sweep);
	uint64_t now = clock_now(net_server_clock(s));

	s->held++;
	give_up_ungranted(s, now);
	close_stuck(s, now);
	if (!s->closed && s->conns_n > 0)
		clock_timer_start(net_server_clock(s), t, now +
		    s->conf.payload_ms * NS_PER_MS / SWEEPS, sweep);
	net_server_put(s);
}

void
net_server_count_error(struct net_server *s, int rc)
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
	net_server_count_error(sc->srv, rc);
	if (net_conn_word(&sc->conn, NET_FRAME_REPLY, id, (uint32_t)rc) != 0)
		net_server_close_conn(sc, false);
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

/* Has @sc its part of all requests, that of one more connection left, and as many as are free?
 * So however much some ask there is room for the others (as for memory: net/grant.h, rule
 * 2). */
static bool
has_its_part(const struct sconn *sc)
{
	const struct net_server *s = sc->srv;

	return ((uint64_t)sc->reqs_n + 1) * (s->conns_n + 1) > s->conf.reqs_max &&
	    sc->reqs_n > 0 && sc->reqs_n >= s->conf.reqs_max - s->reqs_n;
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
	    sc->reqs_n >= s->conf.conn_reqs_max || has_its_part(sc))
		*rc = ERR_BUSY;
	else if ((method = msg_method(f->method)) == NULL ||
	    s->services[f->method >> 8].fn == NULL)
		*rc = ERR_BAD_METHOD;
	else if ((r = net_req_new(s)) == NULL)
		*rc = ERR_BUSY;
	else {
		r->method = method;
		if ((*rc = take_message(r, head, f)) == 0)
			return r;
		if (*rc == -ENOMEM)
			*rc = ERR_BUSY;
		net_req_free(r);
	}
	return NULL;
}

void
net_server_dispatch(struct req *r)
{
	struct net_server *s = r->srv;
	uint8_t service = (uint8_t)(r->pub.method >> 8);

	stat_add(&s->stat.requests, 1);
	s->services[service].fn(s->services[service].ctx, &r->pub);
}

static void
conn_frame(struct net_conn *conn, const uint8_t *head, const struct net_frame *f,
    struct net_rx *rx, struct net_far *far)
{
	struct sconn *sc = container_of(conn, struct sconn, conn);
	struct net_server *s = sc->srv;
	struct req *r;
	int rc;

	if (f->kind == NET_FRAME_GRANT) {
		net_req_granted(sc, f->id, f->arg == 0);
		return;
	}
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
	r->start_ns = clock_now(net_server_clock(s));
	r->pub.deadline_ns = r->start_ns + f->arg * NS_PER_MS;
	if (f->pieces > 0)
		net_frame_piece(head, f, 0, &r->may, &r->pub.recv_len);
	if (!net_conn_asks(conn))
		r->may = NET_BULK_MAX;
	r->id = f->id;
	r->far = far;
	r->conn = sc;
	if ((r->rx = rx) != NULL)
		rx->owner = r;
	list_push_back(&sc->reqs, &r->node);
	sc->reqs_n++;
	if (net_req_admit(r))
		net_server_dispatch(r);
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

/* The caller has taken its payload back. */
static void
conn_lost(struct net_conn *conn, struct net_rx *rx)
{
	struct req *r = rx->owner;

	(void)conn;
	assert(r->state == REQ_PULLING);
	r->rx = NULL;
	r->state = REQ_HELD;
	r->pulled(&r->pub, -ECONNRESET);
}

static void
conn_sent(struct net_conn *conn, struct net_out *o)
{
	struct req *r = o->owner;

	net_out_free(conn->hub, o);
	net_req_finish(r);
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
	net_server_close_conn(sc, false);
}

static const struct net_conn_ops conn_ops = {
	.up = conn_up,
	.frame = conn_frame,
	.pulled = conn_pulled,
	.lost = conn_lost,
	.sent = conn_sent,
	.closed = conn_closed
};

/* Over conns_max whoever has not proved anything for longest makes room: strangers
 * cannot keep members out. */
static bool
make_room(struct net_server *s)
{
	uint64_t now = clock_now(net_server_clock(s));

	if (s->conns_n < s->conf.conns_max)
		return true;
	if (s->full_log_ns == 0 || now - s->full_log_ns > 10 * NS_PER_S) {
		s->full_log_ns = now;
		log_warn(s->hub->conf.log, "too many connections", "max=%u",
		    s->conf.conns_max);
	}
	if (list_empty(&s->fresh))
		return false;
	net_server_close_conn(list_entry(s->fresh.next, struct sconn, node), false);
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
	list_init(&sc->asking);
	list_init(&sc->parked);
	net_grant_peer_init(&sc->replies);
	list_push_back(&s->fresh, &sc->node);
	stat_set(&s->stat.connections, s->conns_n + 1);
	if (s->conns_n++ == 0)
		clock_timer_start(net_server_clock(s), &s->sweep, clock_now(net_server_clock(s)) +
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
	net_window_init(&s->replies, c->replies_max);
	net_grant_peer_init(&s->gone);
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
		net_server_close_conn(list_entry(s->fresh.next, struct sconn, node), false);
	while (!list_empty(&s->conns))
		net_server_close_conn(list_entry(s->conns.next, struct sconn, node), true);
	for (struct list *l; (l = list_pop_front(&s->orphans)) != NULL;) {
		struct req *r = list_entry(l, struct req, node);

		list_remove(&r->ready);
		net_req_leave(r);
		r->srv = NULL;
	}
	for (struct list *l; (l = list_pop_front(&s->spare)) != NULL;)
		free(list_entry(l, struct req, node));
	assert(s->replies.charged == 0 && s->replies.waiting == 0);
	clock_timer_stop(net_server_clock(s), &s->sweep);
	clock_undefer(net_server_clock(s), &s->run);
	net_server_put(s);
}
