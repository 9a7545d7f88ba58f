/* SPDX-License-Identifier: MIT */
/* conn.c - one connection from its hello on.
 *   HELLO (c->hello != NULL) -> UP -> closed by its owner
 *
 * 1. No request or reply leaves or is looked at before the hello has succeeded; until
 *    then the channel takes no head longer than a hello, and no payload.
 * 2. After ops->closed, ops->frame and ops->up nothing of the connection is touched: the
 *    owner may have freed it.
 * 3. Only a server stops reading because its output is stuck; if both ends did, neither
 *    would ever read again. */
#include "net/conn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/rdma.h"

#define AUTH_LOG_NS	(10 * NS_PER_S)
#define OUT_MARK	(16u << 20)	/* queued bytes that stop a server's reading */

/* ---- sending ---- */

static bool
output_is_stuck(const struct net_conn *c)
{
	return c->outs_n > c->outs_max || c->chan->out_bytes > OUT_MARK;
}

static void
pause_reading(struct net_conn *c, bool paused)
{
	if (c->outs_max == 0 || c->paused == paused)
		return;
	c->paused = paused;
	c->chan->ops->pause(c->chan, paused);
}

int
net_conn_copy(struct net_conn *c, const uint8_t *head, uint32_t n, struct net_far *far)
{
	struct net_tx tx = { .head = head, .head_len = n, .far = far };
	struct net_out *o;

	list_init(&tx.node);
	if (n <= NET_OUT_SMALL && c->chan->ops->send(c->chan, &tx))
		return 0;
	/* A transport takes small frames whole or it queues tx, which is on our
	 * stack; take it back and queue one that lasts. */
	if (n <= NET_OUT_SMALL && c->chan->ops->unsend(c->chan, &tx) != 0)
		assert(!"a frame left before the call that sent it returned");
	if ((o = net_out_new(c->hub, n, 0)) == NULL)
		return -ENOMEM;
	memcpy(o->head, head, n);
	o->tx.far = far;
	c->outs_n++;
	if (net_conn_send(c, o)) {
		c->outs_n--;
		net_out_free(c->hub, o);
	}
	return 0;
}

bool
net_conn_send(struct net_conn *c, struct net_out *o)
{
	bool taken = c->chan->ops->send(c->chan, &o->tx);

	if (!taken && output_is_stuck(c))
		pause_reading(c, true);
	return taken;
}

int
net_conn_word(struct net_conn *c, enum net_frame_kind kind, uint64_t id, uint32_t arg)
{
	struct net_frame f = { .kind = (uint8_t)kind, .id = id, .arg = arg };
	uint8_t head[NET_HEAD];

	net_frame_encode(&f, head);
	return net_conn_copy(c, head, sizeof(head), NULL);
}

int
net_conn_ping(struct net_conn *c)
{
	return net_conn_word(c, NET_FRAME_PING, 0, 0);
}

static void
chan_sent(struct net_chan *chan, struct net_tx *tx)
{
	struct net_conn *c = chan->owner;
	struct net_out *o = container_of(tx, struct net_out, tx);

	if (o->owner == NULL) {
		c->outs_n--;
		net_out_free(c->hub, o);
		if (c->paused && !output_is_stuck(c))
			pause_reading(c, false);
		return;
	}
	c->ops->sent(c, o);
}

static void
chan_drained(struct net_chan *chan)
{
	struct net_conn *c = chan->owner;

	if (c->paused && !output_is_stuck(c))
		pause_reading(c, false);
}

/* ---- hello ---- */

/* Wrong keys come in swarms (a box with an old key retries for ever): say it once in
 * a while, and how many there were. */
static void
log_hello_failed(struct net_conn *c, int rc)
{
	struct net_hub *hub = c->hub;
	uint64_t now = clock_now(hub->conf.clock);
	char peer[NET_ADDR_TEXT];

	if (hub->auth_log_ns != 0 && now - hub->auth_log_ns < AUTH_LOG_NS) {
		hub->auth_quiet++;
		return;
	}
	net_addr_text(&c->chan->peer, peer);
	log_warn(hub->conf.log, "hello failed", "%s=%s why=%s more=%u",
	    c->client ? "server" : "client", peer, err_name(rc), hub->auth_quiet);
	hub->auth_log_ns = now;
	hub->auth_quiet = 0;
}

static void
broke(struct net_conn *c, int rc)
{
	if (c->hello != NULL && (rc == ERR_AUTH || rc == ERR_WIRE_VERSION ||
	    (!c->client && rc == ERR_BAD_MESSAGE)))
		log_hello_failed(c, rc);
	clock_timer_stop(c->hub->conf.clock, &c->timer);
	c->ops->closed(c, rc);
}

static void
hello_is_late(struct clock_timer *t)
{
	struct net_conn *c = container_of(t, struct net_conn, timer);

	broke(c, -ETIMEDOUT);
}

/* All is set up, on the channel it stays on. */
static void
is_up(struct net_conn *c)
{
	clock_timer_stop(c->hub->conf.clock, &c->timer);
	c->chan->head_max = NET_HEAD_MAX;
	c->chan->bulk_max = NET_BULK_MAX;
	c->ops->up(c);
}

/* ---- from TCP to RDMA ---- */

static int
say_rdma(struct net_conn *c, uint8_t *frame, uint32_t n)
{
	struct net_frame f = { .kind = NET_FRAME_RDMA, .msg_len = n };

	net_frame_encode(&f, frame);
	return net_conn_copy(c, frame, NET_HEAD + n, NULL);
}

static void rdma_says(void *ctx, int rc, const uint8_t *words, uint32_t n);

static int
offer_rdma(struct net_conn *c)
{
	uint8_t frame[NET_HEAD + NET_RDMA_WORDS];
	uint32_t n;
	int rc = net_rdma_offer(c->hub->rdma, &c->rdma, rdma_says, c, frame + NET_HEAD, &n);

	c->chan->head_max = sizeof(frame);
	return rc == 0 ? say_rdma(c, frame, n) : rc;
}

static void
move_to_rdma(struct net_conn *c)
{
	struct net_chan *tcp = c->chan;
	const struct net_chan_up *up = tcp->up;

	c->chan = net_rdma_chan(c->rdma, tcp);
	c->rdma = NULL;
	c->on_rdma = true;
	c->chan->up = up;
	c->chan->owner = c;
	c->chan->head_max = NET_HEAD_MAX;
	c->chan->bulk_max = NET_BULK_MAX;
	c->chan->out_mark = OUT_MARK;
}

/* @rc as of net_rdma_take(); @frame has room for its head before @n bytes of words. */
static void
rdma_went(struct net_conn *c, int rc, uint8_t *frame, uint32_t n)
{
	int sent = 0;

	if (rc >= 0 && n > 0)
		sent = say_rdma(c, frame, n);
	if (rc < 0 || sent != 0) {
		broke(c, rc < 0 ? rc : sent);
		return;
	}
	if (rc == 1 && c->outs_n > 0) {
		/* Who does not take a few bytes is not there; TCP must have sent all. */
		broke(c, -ECONNRESET);
		return;
	}
	if (rc == 1) {
		move_to_rdma(c);
	} else if (rc == 2) {
		net_rdma_abandon(c->rdma);
		c->rdma = NULL;
	}
	if (rc != 0) {
		c->began = true;
		if (c->client)
			is_up(c);
	}
}

/* The set-up goes on by itself. */
static void
rdma_says(void *ctx, int rc, const uint8_t *words, uint32_t n)
{
	uint8_t frame[NET_HEAD + NET_RDMA_WORDS];

	memcpy(frame + NET_HEAD, words, n);
	rdma_went(ctx, rc, frame, n);
}

static void
rdma_frame(struct net_conn *c, const uint8_t *head, uint32_t n)
{
	uint8_t answer[NET_HEAD + NET_RDMA_WORDS];
	uint32_t answer_n = 0;
	int rc;

	if (c->began || (c->client && c->rdma == NULL)) {
		broke(c, ERR_BAD_MESSAGE);
		return;
	}
	if (c->rdma == NULL && (c->hub->rdma == NULL || !net_rdma_any(c->hub->rdma))) {
		answer_n = net_rdma_decline(answer + NET_HEAD);
		rc = 2;
	} else {
		rc = net_rdma_take(c->hub->rdma, &c->rdma, rdma_says, c, &c->chan->peer,
		    head + NET_HEAD, n - NET_HEAD, answer + NET_HEAD, &answer_n);
	}
	rdma_went(c, rc, answer, answer_n);
}

/* Do both ends reach each other by a network, and do we have something better for it? */
bool
net_conn_may_move(const struct net_conn *c)
{
	return c->client && !c->on_rdma && c->hub->rdma != NULL && c->wire >= 2 &&
	    (c->chan->peer.kind == NET_ADDR_TCP4 || c->chan->peer.kind == NET_ADDR_TCP6) &&
	    net_rdma_any(c->hub->rdma);
}

static void
hello_done(struct net_conn *c)
{
	int rc;

	c->wire = c->hello->version;
	free(c->hello);
	c->hello = NULL;
	if (c->no_rdma || !net_conn_may_move(c))
		is_up(c);
	else if ((rc = offer_rdma(c)) != 0)
		broke(c, rc);
}

static void
chan_connected(struct net_chan *chan)
{
	struct net_conn *c = chan->owner;
	uint8_t nonce[NET_NONCE], one[NET_HELLO1];
	int rc;

	net_hub_nonce(c->hub, nonce);
	net_hello_ask(c->hello, c->hub->conf.key, c->hub->tag, NET_WIRE_MIN, FSD_WIRE,
	    nonce, one);
	if ((rc = net_conn_copy(c, one, sizeof(one), NULL)) != 0)
		broke(c, rc);
}

static void
hello_frame(struct net_conn *c, const uint8_t *head, uint32_t n)
{
	uint8_t nonce[NET_NONCE], answer[NET_HELLO_MAX];
	uint32_t answer_len;
	int rc, sent = 0;

	net_hub_nonce(c->hub, nonce);
	rc = net_hello_take(c->hello, head, n, nonce, answer, &answer_len);
	if (rc >= 0 && answer_len > 0)
		sent = net_conn_copy(c, answer, answer_len, NULL);
	if (c->hello->refused != 0 && sent == 0)
		log_hello_failed(c, c->hello->refused);
	if (rc < 0 || sent < 0)
		broke(c, rc < 0 ? rc : sent);
	else if (rc == 1)
		hello_done(c);
}

/* ---- receiving ---- */

static bool
is_for_owner(const struct net_conn *c, uint8_t kind)
{
	if (c->rdma != NULL)
		return false;		/* set-up has not ended */
	if (kind == NET_FRAME_ASK || kind == NET_FRAME_GRANT)
		return net_conn_asks(c) && c->client == (kind == NET_FRAME_ASK);
	return kind == (c->client ? NET_FRAME_REPLY : NET_FRAME_REQUEST);
}

static void
chan_frame(struct net_chan *chan, const uint8_t *head, uint32_t n,
    struct net_rx *rx, struct net_far *far)
{
	struct net_conn *c = chan->owner;
	struct net_frame f;
	int rc = net_frame_decode(head, n, &f);

	c->rdma_heard = c->on_rdma;
	if (rc == 0 && c->hello != NULL) {
		hello_frame(c, head, n);
		return;
	}
	if (rc == 0 && (rx != NULL || far != NULL) && f.kind != NET_FRAME_REQUEST &&
	    f.kind != NET_FRAME_REPLY)
		rc = ERR_BAD_MESSAGE;	/* a payload, or room for one, of nothing */
	if (rc == 0 && f.kind == NET_FRAME_RDMA) {
		rdma_frame(c, head, n);
		return;
	}
	if (rc == 0 && is_for_owner(c, f.kind)) {
		c->began = true;
		c->ops->frame(c, head, &f, rx, far);
		return;
	}
	if (rc == 0 && !c->client && f.kind == NET_FRAME_PING) {
		if ((rc = net_conn_word(c, NET_FRAME_PONG, 0, 0)) == 0)
			return;
	} else if (rc == 0 && c->client && f.kind == NET_FRAME_PONG) {
		return;
	}
	broke(c, rc != 0 ? rc : ERR_BAD_MESSAGE);
}

static void
chan_pulled(struct net_chan *chan, struct net_rx *rx)
{
	struct net_conn *c = chan->owner;

	c->ops->pulled(c, rx);
}

static void
chan_lost(struct net_chan *chan, struct net_rx *rx)
{
	struct net_conn *c = chan->owner;

	c->ops->lost(c, rx);
}

static void
chan_closed(struct net_chan *chan, int rc)
{
	broke(chan->owner, rc);
}

/* ---- open and close ---- */

static const struct net_chan_up chan_up = {
	.connected = chan_connected,
	.frame = chan_frame,
	.pulled = chan_pulled,
	.lost = chan_lost,
	.sent = chan_sent,
	.drained = chan_drained,
	.closed = chan_closed
};

static void
adopt(struct net_conn *c, struct net_chan *chan, uint32_t hello_ms)
{
	struct clock *clock = c->hub->conf.clock;

	c->chan = chan;
	chan->up = &chan_up;
	chan->owner = c;
	chan->head_max = NET_HELLO_MAX;
	chan->bulk_max = 0;
	chan->out_mark = OUT_MARK;
	clock_timer_start(clock, &c->timer, clock_now(clock) + hello_ms * NS_PER_MS,
	    hello_is_late);
}

static int
prepare(struct net_conn *c, struct net_hub *hub, bool client,
    const struct net_conn_ops *ops)
{
	*c = (struct net_conn){ .ops = ops, .hub = hub, .client = client };
	return (c->hello = calloc(1, sizeof(*c->hello))) == NULL ? -ENOMEM : 0;
}

int
net_conn_connect(struct net_conn *c, struct net_hub *hub, struct net_transport *t,
    const struct net_addr *to, uint32_t hello_ms, const struct net_conn_ops *ops)
{
	struct net_chan *chan;
	int rc = prepare(c, hub, true, ops);

	if (rc == 0 && (rc = t->ops->connect(t, to, &chan)) == 0) {
		adopt(c, chan, hello_ms);
		return 0;
	}
	free(c->hello);
	c->hello = NULL;
	return rc;
}

int
net_conn_accept(struct net_conn *c, struct net_hub *hub, struct net_chan *chan,
    uint32_t hello_ms, const struct net_conn_ops *ops)
{
	int rc = prepare(c, hub, false, ops);

	if (rc != 0) {
		struct list none;

		list_init(&none);
		chan->ops->close(chan, &none, false);
		return rc;
	}
	net_hello_await(c->hello, hub->conf.key, hub->tag, NET_WIRE_MIN, FSD_WIRE);
	adopt(c, chan, hello_ms);
	c->outs_max = 256;
	return 0;
}

void
net_conn_close(struct net_conn *c, struct list *unsent, bool linger)
{
	struct list all;

	if (c->chan == NULL)
		return;
	clock_timer_stop(c->hub->conf.clock, &c->timer);
	list_init(&all);
	net_rdma_abandon(c->rdma);
	c->rdma = NULL;
	c->chan->ops->close(c->chan, &all, linger);
	c->chan = NULL;
	free(c->hello);
	c->hello = NULL;
	for (struct list *l; (l = list_pop_front(&all)) != NULL;) {
		struct net_out *o = list_entry(l, struct net_out, tx.node);

		if (o->owner == NULL)
			net_out_free(c->hub, o);
		else
			list_push_back(unsent, &o->tx.node);
	}
}
