/* SPDX-License-Identifier: MIT */
/* call.c - calls: requests out, replies in.
 *
 *   IDLE -> QUEUED -> SENT -> fn
 *               \       |-> REVOKING -> fn     (the peer may touch memory that is
 *                \______\___\-> ENDING -> fn    wanted back)
 *
 * 1. A call is in hub->calls while QUEUED or SENT, and in one of p->waiting, p->sent,
 *    p->revoking, hub->ending; c->peer is NULL when ENDING or IDLE.
 * 2. While c->out is queued or c->rx is being pulled the caller's memory is in use; both
 *    are NULL when fn runs.  fn runs from the loop only. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/peer.h"

/* For a peer to let go of memory: that is needed, and that is not, as long as it is there.  In
 * ticks of our own: when this process stood still, the peer may have answered long ago. */
#define TICK_MS		50u
#define REVOKE_TICKS	4u
#define LEAVE_TICKS	200u
#define SCATTER		128u		/* parts of a reply payload, usually */

enum call_state { CALL_IDLE, CALL_QUEUED, CALL_SENT, CALL_REVOKING, CALL_ENDING };

static uint64_t
total(const struct iovec *iov, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* ---- the end of a call ---- */

/* Out of every list and table; nothing of it is on its way any more. */
static void
forget(struct net_call *c)
{
	struct net_hub *hub = c->hub;

	assert(c->out == NULL && c->rx == NULL);
	net_call_grant_end(c);
	if (c->state != CALL_ENDING)
		map_del(&hub->calls, c->id);
	list_remove(&c->node);
	net_stop_timer(hub, &c->deadline);
	if (c->peer != NULL) {
		c->peer->used_ns = net_now(hub);
		net_peer_less(c->peer);
	}
	c->peer = NULL;
	c->state = CALL_IDLE;
	hub->calls_n--;
	stat_set(&hub->stat.calls_now, hub->calls_n);
}

static void
drop_kept(struct net_call *c)
{
	net_out_free(c->hub, c->kept);
	c->kept = NULL;
}

/* fn is due with @rc, from the loop. */
static void
end_later(struct net_call *c, int rc)
{
	struct net_hub *hub = c->hub;

	assert(c->out == NULL && c->rx == NULL && c->state != CALL_ENDING);
	drop_kept(c);
	net_call_grant_end(c);
	map_del(&hub->calls, c->id);
	net_stop_timer(hub, &c->deadline);
	list_remove(&c->node);
	list_push_back(&hub->ending, &c->node);
	net_peer_less(c->peer);
	c->peer = NULL;
	c->state = CALL_ENDING;
	c->rc = rc;
}

/* Runs fn; the call, and the hub unless it is held, may be gone afterwards. */
static void
fail_now(struct net_call *c, int rc)
{
	drop_kept(c);
	forget(c);
	c->rep = c->hub->rep_zero;
	c->rep_bulk = 0;
	if (rc != -ECANCELED)		/* given up, not failed */
		stat_add(&c->hub->stat.failures, 1);
	c->fn(c, rc);
}

static void
run_ending(struct clock_defer *d)
{
	struct net_hub *hub = container_of(d, struct net_hub, end);

	net_hub_get(hub);
	while (!list_empty(&hub->ending)) {
		struct net_call *c = list_entry(hub->ending.next, struct net_call,
		    node);

		fail_now(c, c->rc);
	}
	net_hub_put(hub);
}

static void
end_all_later(struct net_hub *hub, struct list *calls, int rc)
{
	while (!list_empty(calls))
		end_later(list_entry(calls->next, struct net_call, node), rc);
	if (!list_empty(&hub->ending))
		clock_defer(hub->conf.clock, &hub->end, run_ending);
}

void
net_calls_lost(struct net_peer *p, struct list *unsent, int rc)
{
	struct net_hub *hub = p->hub;

	for (struct list *l; (l = list_pop_front(unsent)) != NULL;) {
		struct net_out *o = list_entry(l, struct net_out, tx.node);
		struct net_call *c = o->owner;

		assert(c->out == o);
		c->out = NULL;
		net_out_free(hub, o);
	}
	list_for_each(l, &p->sent)
		list_entry(l, struct net_call, node)->rx = NULL;
	list_for_each(l, &p->waiting) {
		struct net_call *c = list_entry(l, struct net_call, node);

		net_out_free(hub, c->out);
		c->out = NULL;
	}
	list_for_each_safe(l, next, &p->revoking) {
		struct net_call *c = list_entry(l, struct net_call, node);

		end_later(c, c->rc);
	}
	end_all_later(hub, &p->sent, rc);
	end_all_later(hub, &p->waiting, rc);
}

/* ---- sending ---- */

/* Write the head before a request in place: only now is it known how much time the
 * server has, and what it may send. */
static void
seal(struct net_call *c, struct net_peer *p, uint8_t *head, uint32_t n, uint32_t bulk_len)
{
	uint64_t now = net_now(c->hub), ms = 1;
	struct net_frame f = {
		.msg_len = n - NET_HEAD, .bulk_len = bulk_len, .id = c->id,
		.method = c->method->id, .kind = NET_FRAME_REQUEST,
		.pieces = c->opts.recv_n > 0
	};

	if (c->opts.deadline_ns > now)
		ms = (c->opts.deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS;
	f.arg = ms > INT32_MAX ? INT32_MAX : (uint32_t)ms;
	if (f.pieces > 0) {
		uint32_t may = net_call_may(c, p);

		net_frame_piece_put(head + n - NET_PIECE_BYTES,
		    net_conn_asks(&p->conn) ? may : 0, c->room);
	}
	net_frame_encode(&f, head);
}

/* A request in memory of its own. */
static struct net_out *
keep_request(struct net_call *c, const uint8_t *head, uint32_t n, uint32_t bulk_len)
{
	struct net_out *o = net_out_new(c->hub, n, 0);

	if (o == NULL)
		return NULL;
	memcpy(o->head, head, n);
	o->owner = c;
	o->tx.bulk_len = bulk_len;
	o->tx.iov = c->opts.send;
	o->tx.iov_n = c->opts.send_n;
	o->tx.room = c->opts.recv;
	o->tx.room_n = c->opts.recv_n;
	return o;
}

static void
send_out(struct net_call *c)
{
	struct net_out *o = c->out;

	seal(c, c->peer, o->head, o->tx.head_len, o->tx.bulk_len);
	c->sent_ns = net_now(c->hub);
	c->state = CALL_SENT;
	stat_add(&c->hub->stat.sent_bytes, o->tx.bulk_len);
	if (net_conn_send(&c->peer->conn, o)) {
		c->out = NULL;
		net_out_free(c->hub, o);
	}
}

/* Encode into the hub's scratch, with room for the piece. Bytes, or -EMSGSIZE. */
static int
encode(struct net_call *c, const void *req)
{
	uint8_t *head = c->hub->scratch;
	int n = msg_encode(c->method->request, req, head + NET_HEAD, NET_MSG_MAX);

	if (n < 0)
		return n;
	n += (int)NET_HEAD;
	if (c->opts.recv_n > 0)
		n += (int)NET_PIECE_BYTES;
	return n;
}

/* Take back what of @c is on its way. True: nobody touches its memory any more. */
static bool
take_back(struct net_call *c)
{
	struct net_chan *chan = c->peer != NULL ? c->peer->conn.chan : NULL;

	net_call_give_up(c);
	if (c->rx != NULL) {
		chan->ops->drop(chan, c->rx);
		c->rx = NULL;
	}
	if (c->out != NULL && (c->state == CALL_QUEUED ||
	    chan->ops->unsend(chan, &((struct net_out *)c->out)->tx) == 0)) {
		net_out_free(c->hub, c->out);
		c->out = NULL;
	}
	drop_kept(c);
	return c->out == NULL;
}

/* The peer does not let go: its connection does. */
static void
revoke_is_late(struct net_call *c)
{
	char addr[NET_ADDR_TEXT];

	net_addr_text(&c->peer->addr, addr);
	log_info(c->hub->conf.log, "peer does not let go of memory", "peer=%s", addr);
	net_peer_failed(c->peer, -ECONNRESET);
}

static void
tick(struct clock_timer *t)
{
	struct net_call *c = container_of(t, struct net_call, deadline);

	if (--c->ticks == 0)
		revoke_is_late(c);
	else
		clock_timer_start(c->hub->conf.clock, t,
		    net_now(c->hub) + TICK_MS * NS_PER_MS, tick);
}

/* @c is being revoked: that must not take longer than @ticks. */
static void
wait_for_memory(struct net_call *c, unsigned ticks)
{
	c->ticks = (uint16_t)ticks;
	clock_timer_start(c->hub->conf.clock, &c->deadline,
	    net_now(c->hub) + TICK_MS * NS_PER_MS, tick);
	net_peer_watch(c->peer);
}

/* @c ends with @rc when the peer has let go of its memory, is silent, or after @ticks.  False:
 * that cannot be asked for on this transport. */
static bool
revoke(struct net_call *c, int rc, unsigned ticks)
{
	struct net_chan *chan = c->peer->conn.chan;

	if (chan->ops->revoke == NULL)
		return false;
	map_del(&c->hub->calls, c->id);		/* an answer would be late */
	list_remove(&c->node);
	list_push_back(&c->peer->revoking, &c->node);
	c->state = CALL_REVOKING;
	c->rc = rc;
	chan->ops->revoke(chan, &((struct net_out *)c->out)->tx);
	wait_for_memory(c, ticks);
	return true;
}

static void
time_is_up(struct clock_timer *t)
{
	struct net_call *c = container_of(t, struct net_call, deadline);
	struct net_hub *hub = c->hub;
	struct net_peer *p = c->peer;
	uint64_t sent_ns = c->sent_ns;
	bool sent = c->state == CALL_SENT, over = take_back(c);

	stat_add(&hub->stat.timeouts, 1);
	if (over || !revoke(c, -ETIMEDOUT, REVOKE_TICKS))
		net_call_cancel(c);
	if (sent)
		net_peer_probe(p, sent_ns);
	if (net_call_active(c))
		return;			/* fn runs when it is revoked */
	stat_add(&hub->stat.failures, 1);
	net_hub_get(hub);
	c->rep = hub->rep_zero;
	c->rep_bulk = 0;
	c->fn(c, -ETIMEDOUT);
	net_hub_put(hub);
}

int
net_call_start(struct net_call *c, struct net_hub *hub, const struct net_addr *to,
    uint16_t method, const void *req, const struct net_call_opts *opts,
    net_call_fn *fn)
{
	uint64_t bulk = total(opts->send, opts->send_n);
	uint64_t room = total(opts->recv, opts->recv_n);
	struct net_peer *p;
	int n, rc = 0;

	assert(!net_call_active(c) && !hub->closed);
	if (net_hub_transport(hub, to->kind) == NULL)
		return -EAFNOSUPPORT;
	if (hub->calls_n >= hub->conf.calls_max)
		return ERR_BUSY;
	if (bulk > NET_BULK_MAX || room > NET_BULK_MAX)
		return -EMSGSIZE;
	c->method = msg_method(method);
	assert(c->method != NULL);
	c->hub = hub;
	c->opts = *opts;
	c->fn = fn;
	c->rep = NULL;
	c->out = c->kept = c->rx = NULL;
	c->rep_bulk = 0;
	c->room = (uint32_t)room;
	c->id = hub->next_id + 1;
	if ((n = encode(c, req)) < 0)
		return n;
	if ((p = net_peer_get(hub, to)) == NULL)
		return -ENOMEM;
	p = net_peer_better(p);
	/* One-sided transports must know where the reply's payload may go. */
	if (p->state == PEER_UP && bulk == 0 && (unsigned)n <= NET_OUT_SMALL &&
	    (room == 0 || !p->conn.chan->one_sided)) {
		if ((rc = map_put(&hub->calls, c->id, c)) != 0)
			return rc;
		seal(c, p, hub->scratch, (uint32_t)n, 0);
		rc = net_conn_copy(&p->conn, hub->scratch, (uint32_t)n,
		    NULL);
		c->state = CALL_SENT;
		c->sent_ns = net_now(hub);
	} else {
		c->out = keep_request(c, hub->scratch, (uint32_t)n, (uint32_t)bulk);
		if (c->out == NULL)
			rc = -ENOMEM;
		else if ((rc = map_put(&hub->calls, c->id, c)) != 0)
			net_out_free(hub, c->out);
		c->state = CALL_QUEUED;
	}
	if (rc != 0) {
		net_call_grant_end(c);
		map_del(&hub->calls, c->id);
		c->out = NULL;
		c->state = CALL_IDLE;
		return rc;
	}
	hub->next_id++;
	hub->calls_n++;
	stat_add(&hub->stat.calls, 1);
	stat_set(&hub->stat.calls_now, hub->calls_n);
	c->peer = p;
	p->used_ns = net_now(hub);
	clock_timer_start(hub->conf.clock, &c->deadline, opts->deadline_ns,
	    time_is_up);
	list_init(&c->node);
	if (p->state != PEER_UP) {
		list_push_back(&p->waiting, &c->node);
		net_peer_connect(p);
		return 0;
	}
	list_push_back(&p->sent, &c->node);
	net_peer_watch(p);
	if (c->state == CALL_QUEUED)
		send_out(c);
	return 0;
}

void
net_call_cancel(struct net_call *c)
{
	if (!net_call_active(c))
		return;
	if (!take_back(c)) {
		/* Half of the payload has left and the rest can neither be sent nor left
		 * out, or the peer may touch it: the connection goes, and with it c->out. */
		net_peer_failed(c->peer, -ECONNRESET);
		assert(c->state == CALL_ENDING);
	}
	forget(c);
}

static bool
give_up(struct net_call *c, unsigned ticks)
{
	if (c->state == CALL_REVOKING) {
		if (ticks < c->ticks)
			wait_for_memory(c, ticks);
		return false;
	}
	if (net_call_active(c) && !take_back(c) && revoke(c, -ECANCELED, ticks))
		return false;
	net_call_cancel(c);
	return true;
}

bool
net_call_abandon(struct net_call *c)
{
	return give_up(c, REVOKE_TICKS);
}

bool
net_call_leave(struct net_call *c)
{
	return give_up(c, LEAVE_TICKS);
}

bool
net_call_active(const struct net_call *c)
{
	return c->state != CALL_IDLE;
}

static bool
is_connected(const struct net_call *c)
{
	return c->state == CALL_SENT || c->state == CALL_REVOKING;
}

uint64_t
net_call_heard(const struct net_call *c)
{
	return is_connected(c) ? net_peer_heard(c->peer) : 0;
}

void
net_call_ping(struct net_call *c)
{
	/* Out of memory: then what comes of its own accord decides. */
	if (is_connected(c))
		(void)net_conn_ping(&c->peer->conn);
}

void
net_calls_up(struct net_peer *p)
{
	while (!list_empty(&p->waiting)) {
		struct net_call *c = list_entry(p->waiting.next, struct net_call,
		    node);

		list_remove(&c->node);
		list_push_back(&p->sent, &c->node);
		net_peer_watch(p);
		send_out(c);
	}
}

/* ---- receiving ---- */

/* A reply that must wait: for its payload, or for the request to have left. */
struct kept {
	struct net_frame f;
	uint8_t		 head[];
};

static struct kept *
kept_of(const struct net_call *c)
{
	return (struct kept *)(void *)((struct net_out *)c->kept)->head;
}

static int
keep_reply(struct net_call *c, const struct net_frame *f, const uint8_t *head)
{
	uint32_t n = NET_HEAD + f->msg_len;
	struct net_out *o = net_out_new(c->hub, (uint32_t)sizeof(struct kept) + n, 0);

	if (o == NULL)
		return -ENOMEM;
	c->kept = o;
	kept_of(c)->f = *f;
	memcpy(kept_of(c)->head, head, n);
	return 0;
}

/* All of the reply is here and nothing of the request is on its way.  Runs fn; @head
 * is valid until then. */
static void
finish(struct net_call *c, const struct net_frame *f, const uint8_t *head)
{
	struct net_hub *hub = c->hub;
	struct net_out *kept = c->kept;
	struct msg_arena arena;
	int rc = (int32_t)f->arg;

	c->kept = NULL;
	forget(c);
	net_hub_get(hub);
	msg_arena_init(&arena, NET_ARENA_MAX);
	if (rc == 0)
		rc = msg_decode(c->method->reply, head + NET_HEAD,
		    net_frame_msg_len(f), &arena, hub->rep, NULL);
	c->rep = rc == 0 ? hub->rep : hub->rep_zero;
	if (rc != 0) {
		c->rep_bulk = 0;
		stat_add(&hub->stat.refusals, 1);
	}
	stat_add(&hub->stat.recv_bytes, c->rep_bulk);
	c->fn(c, rc);
	msg_arena_fini(&arena);
	net_out_free(hub, kept);
	net_hub_put(hub);
}

static void
finish_kept(struct net_call *c)
{
	if (c->kept != NULL && c->rx == NULL && c->out == NULL)
		finish(c, &kept_of(c)->f, kept_of(c)->head);
}

/* Begin to receive the payload of a reply; @rx NULL: it is in place.  0, ERR_BAD_MESSAGE,
 * -ENOMEM, -ECONNRESET. */
static int
pull_reply(struct net_call *c, const uint8_t *head, const struct net_frame *f,
    struct net_rx *rx)
{
	struct net_chan *chan = c->peer->conn.chan;
	struct iovec parts[SCATTER], *iov = parts, *big = NULL;
	unsigned n = f->pieces + c->opts.recv_n;
	int rc;

	if (n > SCATTER && (iov = big = malloc(n * sizeof(*iov))) == NULL)
		return -ENOMEM;
	rc = net_frame_scatter(head, f, c->opts.recv, c->opts.recv_n, iov, &n);
	if (rc == 0 && rx != NULL) {
		rx->owner = c;
		if ((rc = chan->ops->pull(chan, rx, iov, n)) == 0)
			c->rx = rx;
		else if (rc == 1)
			rc = 0;
	}
	free(big);
	return rc;
}

void
net_calls_frame(struct net_conn *conn, const uint8_t *head, const struct net_frame *f,
    struct net_rx *rx, struct net_far *far)
{
	struct net_peer *p = container_of(conn, struct net_peer, conn);
	struct net_chan *chan = conn->chan;
	struct net_call *c = map_get(&p->hub->calls, f->id);
	int rc = 0;

	if (far != NULL) {		/* only requests offer memory */
		net_peer_failed(p, -ECONNRESET);
		return;
	}
	p->fails = 0;
	if (c != NULL && (c->peer != p || c->state != CALL_SENT))
		c = NULL;
	if (f->kind == NET_FRAME_ASK) {
		rc = c == NULL ? net_call_asked_late(p, f->id) : c->kept != NULL ?
		    ERR_BAD_MESSAGE : net_call_asked(c, f->arg);
		if (rc != 0)
			net_peer_failed(p, -ECONNRESET);
		return;
	}
	if (c == NULL || c->kept != NULL) {
		if (rx != NULL)		/* late: timed out or cancelled */
			chan->ops->drop(chan, rx);
		return;
	}
	if ((rc = net_call_came(c, f->bulk_len)) != 0) {
		net_peer_failed(p, -ECONNRESET);
		return;
	}
	if (f->arg != 0 && rx != NULL)
		chan->ops->drop(chan, rx);
	else if (f->bulk_len > 0)
		rc = f->arg != 0 ? ERR_BAD_MESSAGE : pull_reply(c, head, f, rx);
	if (rc == 0) {
		struct net_out *o = c->out;

		c->rep_bulk = f->bulk_len;
		/* The server has answered without wanting our payload. */
		if (o != NULL && chan->ops->unsend(chan, &o->tx) == 0) {
			c->out = NULL;
			net_out_free(p->hub, o);
		}
		if (c->rx == NULL && c->out == NULL) {
			finish(c, f, head);
			return;
		}
		rc = keep_reply(c, f, head);
	}
	if (rc != 0)
		net_peer_failed(p, -ECONNRESET);
}

void
net_calls_pulled(struct net_conn *conn, struct net_rx *rx)
{
	struct net_call *c = rx->owner;

	(void)conn;
	c->rx = NULL;
	finish_kept(c);
}

void
net_calls_sent(struct net_conn *conn, struct net_out *o)
{
	struct net_hub *hub = conn->hub;
	struct net_call *c = o->owner;

	assert(c->out == o);
	c->out = NULL;
	net_out_free(hub, o);
	if (c->state != CALL_REVOKING) {
		finish_kept(c);
		return;
	}
	net_hub_get(hub);
	fail_now(c, c->rc);
	net_hub_put(hub);
}

void
net_calls_close(struct net_hub *hub)
{
	clock_undefer(hub->conf.clock, &hub->end);
	net_peers_close(hub);
	while (!list_empty(&hub->ending))
		forget(list_entry(hub->ending.next, struct net_call, node));
	clock_undefer(hub->conf.clock, &hub->end);
	clock_undefer(hub->conf.clock, &hub->grants);
	assert(hub->window.charged == 0 && hub->window.waiting == 0);
	assert(hub->calls_n == 0 && hub->calls.n == 0);
}
