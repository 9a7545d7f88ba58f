/* SPDX-License-Identifier: MIT */
/* switch_rig.h - servers and clients around a switch whose ports towards the clients have
 * queues: a transport for tests of what piles up there.
 *
 *	server's NIC --rate--> delay --> [ queue of the port ] --rate--> delay --> client
 *
 * What servers send is cut into packets.  Where the queue is bounded a packet that does not
 * fit is lost (drop-tail), and the sender notices as TCP does: by three packets that come
 * after it (fast retransmit, its window is halved), or, when none do, by the retransmission
 * time-out, 200 ms as Linux has it, with a window of one packet (RFC 5681, 6298; losses are
 * known one by one as with RFC 2018).  Where it is not bounded nothing is lost, as with
 * priority flow control: its depth is what other switches would have to hold.  Frames of
 * clients, which carry no payload here, take only the delay.
 * Static functions: each test is one program. */
#ifndef TESTS_SWITCH_RIG_H
#define TESTS_SWITCH_RIG_H

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/rand.h"
#include "net/call.h"
#include "net/frame.h"
#include "net/transport.h"
#include "tests/sim/clock.h"

#define PACKET		8960u		/* bytes of a jumbo frame */
#define WINDOW_FIRST	10u		/* packets */
#define WINDOW_MAX	512u		/* packets: 4.4 MiB, as buffers of sockets allow */
#define RTO_NS		(200 * NS_PER_MS)
#define HOSTS_MAX	1024u
#define HERE		0x80000000u	/* with the bytes of a packet: it has arrived */

struct swt {
	struct clock *clock;
	uint64_t      bytes_per_us, delay_ns, queue_max;	/* 0: lossless */
	uint64_t      peak, drops, timeouts, packets;
	struct list   chans, live;		/* for the end */
	struct swt_host *hosts[HOSTS_MAX];
};

struct swt_host {
	struct net_transport t;
	struct swt    *s;
	uint32_t       id;
	uint64_t       nic_free_ns;
	uint64_t       port_free_ns;	/* all that is queued for it has left then */
	uint64_t       port_rate;	/* bytes/us */
	net_accept_fn *accept;
	void	      *ctx;
};

enum packet_state { FRESH, FLYING, AGAIN, LOST, THERE };	/* AGAIN: flies once more */

struct swt_frame {
	struct list    node;
	struct net_tx *tx;		/* until it has been acknowledged; or NULL */
	uint32_t       head_len, bulk_len;
	uint64_t       first, n;	/* packets */
	uint8_t	       bytes[];
};

struct swt_chan {
	struct net_chan	 c;		/* first */
	struct list	 node;
	struct swt_host	*host;
	struct swt_chan	*peer;
	bool		 closed;
	/* as a sender of packets */
	struct list	 frames;	/* not delivered or not acknowledged */
	uint8_t		*state;		/* of each packet */
	uint32_t	*bytes;
	uint64_t	 n, cap, una, next, high, recover;
	double		 window, thresh;
	unsigned	 flying;
	struct clock_timer rto;
	uint64_t	 rto_ns;
	/* as a receiver: of the peer's packets */
	uint64_t	 have;		/* all below */
	struct swt_frame *now;		/* head is up, payload not yet */
	enum { RX_NONE, RX_ASKED, RX_PULL, RX_DROP } rx_state;
	struct net_rx	 rx;
	struct iovec	*dst;
	unsigned	 dst_n;
	struct list	*at;		/* the last frame that went up, in peer->frames */
};

struct swt_event {			/* a packet, or a frame of the client's */
	struct clock_timer t;
	struct list	   node;
	struct swt_chan	  *from;
	uint64_t	   i;
	uint32_t	   head_len;
	uint8_t		   head[];
};

static void *
swt_must(void *p)
{
	if (p == NULL)
		abort();
	return p;
}

static uint64_t
swt_now(const struct swt *s)
{
	return clock_now(s->clock);
}

static struct swt_event *
swt_event(struct swt_chan *from, size_t extra)
{
	struct swt_event *e = swt_must(calloc(1, sizeof(*e) + extra));

	e->from = from;
	list_push_back(&from->host->s->live, &e->node);
	return e;
}

static void
swt_event_free(struct swt_event *e)
{
	list_remove(&e->node);
	free(e);
}

/* ---- what arrives ---- */

static bool
swt_here(const struct swt_chan *c, const struct swt_frame *f)
{
	return c->have >= f->first + f->n;
}

static void
swt_scatter(struct swt_chan *c)
{
	const uint8_t *p = c->now->bytes + c->now->head_len;

	for (unsigned i = 0; i < c->dst_n; i++) {
		memcpy(c->dst[i].iov_base, p, c->dst[i].iov_len);
		p += c->dst[i].iov_len;
	}
	free(c->dst);
	c->dst = NULL;
	c->now = NULL;
	c->rx_state = RX_NONE;
}

/* Frames go up in order, each when the one before it has been taken whole. */
static void
swt_advance(struct swt_chan *c)
{
	while (!c->closed) {
		struct swt_chan *p = c->peer;
		struct swt_frame *f = c->now;

		if (f != NULL) {
			if (!swt_here(c, f) || c->rx_state == RX_ASKED)
				return;
			if (c->rx_state == RX_PULL) {
				swt_scatter(c);
				c->c.up->pulled(&c->c, &c->rx);
			} else {
				c->now = NULL;
				c->rx_state = RX_NONE;
			}
			continue;
		}
		if (c->at->next == &p->frames)
			return;
		f = list_entry(c->at->next, struct swt_frame, node);
		if (c->have <= f->first)
			return;
		c->at = &f->node;
		if (f->bulk_len > 0) {
			c->now = f;
			c->rx_state = RX_ASKED;
		}
		c->c.up->frame(&c->c, f->bytes, f->head_len,
		    f->bulk_len > 0 ? &c->rx : NULL, NULL);
	}
}

static int
swt_pull(struct net_chan *chan, struct net_rx *rx, const struct iovec *iov, unsigned n)
{
	struct swt_chan *c = (struct swt_chan *)(void *)chan;

	(void)rx;
	c->dst = swt_must(malloc((n + 1) * sizeof(*iov)));
	memcpy(c->dst, iov, n * sizeof(*iov));
	c->dst_n = n;
	c->rx_state = RX_PULL;
	if (!swt_here(c, c->now))
		return 0;
	swt_scatter(c);
	return 1;
}

static void
swt_drop(struct net_chan *chan, struct net_rx *rx)
{
	struct swt_chan *c = (struct swt_chan *)(void *)chan;

	(void)rx;
	free(c->dst);
	c->dst = NULL;
	c->rx_state = RX_DROP;
}

/* ---- packets ---- */

static void swt_send_more(struct swt_chan *c);

/* Of those in flight. */
static void
swt_lose(struct swt_chan *c, uint64_t i)
{
	c->state[i] = LOST;
	c->flying--;
}

static void
swt_rto(struct clock_timer *t)
{
	struct swt_chan *c = container_of(t, struct swt_chan, rto);

	for (uint64_t i = c->una; i < c->next; i++)
		if (c->state[i] == FLYING || c->state[i] == AGAIN)
			swt_lose(c, i);
	c->host->s->timeouts++;
	c->thresh = c->window / 2 < 2 ? 2 : c->window / 2;
	c->window = 1;
	c->rto_ns *= 2;
	c->recover = c->next;
	swt_send_more(c);
}

static void
swt_acked(struct clock_timer *t)
{
	struct swt_event *e = container_of(t, struct swt_event, t);
	struct swt_chan *c = e->from;
	uint64_t i = e->i;
	bool lost = false, up;

	swt_event_free(e);
	if (c->closed || c->state[i] == THERE)
		return;
	if (c->state[i] != LOST)
		c->flying--;
	c->state[i] = THERE;
	c->rto_ns = RTO_NS;
	c->window += c->window < c->thresh ? 1 : 1 / c->window;
	if (c->window > WINDOW_MAX)
		c->window = WINDOW_MAX;
	if (i > c->high)
		c->high = i;
	for (uint64_t k = c->una; k + 3 <= c->high; k++)
		if (c->state[k] == FLYING) {
			lost = lost || k >= c->recover;
			swt_lose(c, k);
		}
	if (lost) {
		c->thresh = c->window / 2 < 2 ? 2 : c->window / 2;
		c->window = c->thresh;
		c->recover = c->next;
	}
	while (c->una < c->next && c->state[c->una] == THERE)
		c->una++;
	up = c->peer->at != &c->frames;
	for (struct list *l = c->frames.next, *after; l != &c->frames; l = after) {
		struct swt_frame *f = list_entry(l, struct swt_frame, node);

		after = l->next;
		if (c->una < f->first + f->n)
			break;
		if (f->tx != NULL) {
			struct net_tx *tx = f->tx;

			f->tx = NULL;
			list_remove(&tx->node);
			c->c.up->sent(&c->c, tx);
			if (c->closed)
				return;
		}
		up = up && l != c->peer->at;
		if (up) {
			list_remove(&f->node);
			free(f);
		}
	}
	clock_timer_stop(c->host->s->clock, &c->rto);
	swt_send_more(c);
}

static void
swt_arrived(struct clock_timer *t)
{
	struct swt_event *e = container_of(t, struct swt_event, t);
	struct swt_chan *from = e->from, *to = from->peer;
	struct swt *s = from->host->s;

	if (from->state[e->i] == LOST)		/* given up too early: it is here */
		from->state[e->i] = AGAIN, from->flying++;
	clock_timer_start(s->clock, &e->t, swt_now(s) + 2 * s->delay_ns, swt_acked);
	if (to->closed)
		return;
	to->c.rx_ns = swt_now(s);
	from->bytes[e->i] |= HERE;
	while (to->have < from->next && (from->bytes[to->have] & HERE) != 0)
		to->have++;
	swt_advance(to);
}

static void
swt_at_port(struct clock_timer *t)
{
	struct swt_event *e = container_of(t, struct swt_event, t);
	struct swt *s = e->from->host->s;
	struct swt_host *to = e->from->peer->host;
	uint64_t now = swt_now(s), bytes = e->from->bytes[e->i] & ~HERE, depth = 0;

	if (to->port_free_ns > now)
		depth = (to->port_free_ns - now) * to->port_rate / 1000;
	if (s->queue_max != 0 && depth + bytes > s->queue_max) {
		s->drops++;
		swt_event_free(e);
		return;
	}
	if (depth + bytes > s->peak)
		s->peak = depth + bytes;
	to->port_free_ns = (to->port_free_ns > now ? to->port_free_ns : now) +
	    bytes * 1000 / to->port_rate;
	clock_timer_start(s->clock, &e->t, to->port_free_ns + s->delay_ns, swt_arrived);
}

static void
swt_transmit(struct swt_chan *c, uint64_t i)
{
	struct swt *s = c->host->s;
	struct swt_event *e = swt_event(c, 0);
	uint64_t now = swt_now(s);

	e->i = i;
	c->state[i] = c->state[i] == FRESH ? FLYING : AGAIN;
	c->flying++;
	s->packets++;
	if (c->host->nic_free_ns < now)
		c->host->nic_free_ns = now;
	c->host->nic_free_ns += (c->bytes[i] & ~HERE) * 1000ull / s->bytes_per_us;
	clock_timer_start(s->clock, &e->t, c->host->nic_free_ns + s->delay_ns,
	    swt_at_port);
}

static void
swt_send_more(struct swt_chan *c)
{
	struct swt *s = c->host->s;
	uint64_t i = c->una;

	while (c->flying < (unsigned)c->window) {
		while (i < c->next && c->state[i] != LOST)
			i++;
		if (i == c->n)
			break;
		if (i == c->next)
			c->next++;
		swt_transmit(c, i);
	}
	if (c->flying > 0 && c->rto.pos == 0)
		clock_timer_start(s->clock, &c->rto, swt_now(s) + c->rto_ns, swt_rto);
}

static void
swt_add_packet(struct swt_chan *c, uint32_t bytes)
{
	if (c->n == c->cap) {
		c->cap = c->cap == 0 ? 256 : c->cap * 2;
		c->state = swt_must(realloc(c->state, c->cap));
		c->bytes = swt_must(realloc(c->bytes, c->cap * sizeof(*c->bytes)));
	}
	c->state[c->n] = FRESH;
	c->bytes[c->n++] = bytes;
}

/* ---- frames ---- */

static void
swt_word(struct clock_timer *t)
{
	struct swt_event *e = container_of(t, struct swt_event, t);
	struct swt_chan *to = e->from->peer;

	if (!to->closed) {
		to->c.rx_ns = swt_now(to->host->s);
		to->c.up->frame(&to->c, e->head, e->head_len, NULL, NULL);
	}
	swt_event_free(e);
}

static bool
swt_send(struct net_chan *chan, struct net_tx *tx)
{
	struct swt_chan *c = (struct swt_chan *)(void *)chan;
	struct swt *s = c->host->s;
	struct swt_frame *f;
	uint8_t *p;

	if (c->host->accept == NULL) {		/* the client */
		struct swt_event *e = swt_event(c, tx->head_len);

		assert(tx->bulk_len == 0);
		e->head_len = tx->head_len;
		memcpy(e->head, tx->head, tx->head_len);
		clock_timer_start(s->clock, &e->t, swt_now(s) + 2 * s->delay_ns, swt_word);
		return true;
	}
	f = swt_must(calloc(1, sizeof(*f) + tx->head_len + tx->bulk_len));
	f->head_len = tx->head_len;
	f->bulk_len = tx->bulk_len;
	f->first = c->n;
	memcpy(f->bytes, tx->head, tx->head_len);
	p = f->bytes + tx->head_len;
	for (unsigned i = 0; i < tx->iov_n; p += tx->iov[i++].iov_len)
		memcpy(p, tx->iov[i].iov_base, tx->iov[i].iov_len);
	for (uint32_t left = tx->head_len + tx->bulk_len; left > 0;) {
		uint32_t n = left < PACKET ? left : PACKET;

		swt_add_packet(c, n);
		left -= n;
	}
	f->n = c->n - f->first;
	f->tx = tx->bulk_len > 0 ? tx : NULL;
	list_push_back(&c->frames, &f->node);
	swt_send_more(c);
	return f->tx == NULL;
}

static int
swt_unsend(struct net_chan *chan, struct net_tx *tx)
{
	(void)chan, (void)tx;
	return -EBUSY;
}

static void
swt_pause(struct net_chan *chan, bool paused)
{
	(void)chan, (void)paused;
}

static void
swt_close(struct net_chan *chan, struct list *unsent, bool linger)
{
	struct swt_chan *c = (struct swt_chan *)(void *)chan;

	(void)linger;
	c->closed = true;
	clock_timer_stop(c->host->s->clock, &c->rto);
	list_for_each(l, &c->frames) {
		struct swt_frame *f = list_entry(l, struct swt_frame, node);

		if (f->tx != NULL)
			list_push_back(unsent, &f->tx->node);
		f->tx = NULL;
	}
}

static const struct net_chan_ops swt_chan_ops = {
	.send = swt_send, .unsend = swt_unsend, .pull = swt_pull, .drop = swt_drop,
	.pause = swt_pause, .close = swt_close
};

/* ---- hosts ---- */

static bool
swt_serves(const struct net_transport *t, uint8_t kind)
{
	(void)t;
	return kind == NET_ADDR_SIM;
}

static struct swt_host *
swt_host_of(struct net_transport *t)
{
	return container_of(t, struct swt_host, t);
}

static int
swt_listen(struct net_transport *t, const struct net_addr *at, net_accept_fn *fn,
    void *ctx, struct net_listener **out)
{
	struct swt_host *h = swt_host_of(t);

	(void)at;
	h->accept = fn;
	h->ctx = ctx;
	*out = (struct net_listener *)(void *)h;
	return 0;
}

static void
swt_listen_addr(const struct net_listener *l, struct net_addr *out)
{
	const struct swt_host *h = (const struct swt_host *)(const void *)l;

	*out = (struct net_addr){ .kind = NET_ADDR_SIM, .id = h->id };
}

static void
swt_unlisten(struct net_listener *l)
{
	(void)l;
}

static struct swt_chan *
swt_chan(struct swt_host *h)
{
	struct swt_chan *c = swt_must(calloc(1, sizeof(*c)));

	c->c.ops = &swt_chan_ops;
	c->host = h;
	c->window = WINDOW_FIRST;
	c->thresh = WINDOW_MAX;
	c->rto_ns = RTO_NS;
	list_init(&c->frames);
	list_push_back(&h->s->chans, &c->node);
	return c;
}

static void
swt_connected(struct clock_timer *t)
{
	struct swt_event *e = container_of(t, struct swt_event, t);
	struct swt_chan *c = e->from;

	swt_event_free(e);
	c->peer->host->accept(c->peer->host->ctx, &c->peer->c);
	c->c.up->connected(&c->c);
}

static int
swt_connect(struct net_transport *t, const struct net_addr *to, struct net_chan **out)
{
	struct swt_host *h = swt_host_of(t), *server;
	struct swt_chan *c = swt_chan(h);
	struct swt_event *e = swt_event(c, 0);

	assert(to->id < HOSTS_MAX && (server = h->s->hosts[to->id]) != NULL);
	c->peer = swt_chan(h->s->hosts[to->id]);
	c->peer->peer = c;
	c->at = &c->peer->frames;
	clock_timer_start(h->s->clock, &e->t, swt_now(h->s) + 2 * h->s->delay_ns,
	    swt_connected);
	*out = &c->c;
	return 0;
}

static void
swt_transport_close(struct net_transport *t)
{
	struct swt_host *h = swt_host_of(t);

	h->s->hosts[h->id] = NULL;
	free(h);
}

static const struct net_transport_ops swt_ops = {
	.serves = swt_serves, .listen = swt_listen, .listen_addr = swt_listen_addr,
	.unlisten = swt_unlisten, .connect = swt_connect, .close = swt_transport_close
};

static struct net_transport *
swt_transport(struct swt *s, uint32_t id)
{
	struct swt_host *h = swt_must(calloc(1, sizeof(*h)));

	h->t.ops = &swt_ops;
	h->s = s;
	h->id = id;
	h->port_rate = s->bytes_per_us;
	s->hosts[id] = h;
	return &h->t;
}

static void
swt_nonce(void *ctx, void *out, size_t n)
{
	rand_bytes(ctx, out, n);
}

/* The hub of a new host. */
static struct net_hub *
swt_hub(struct swt *s, uint32_t id, struct rand *rnd, uint32_t calls_max, uint64_t window)
{
	struct net_hub_conf conf = { .clock = s->clock, .rand = rnd, .nonce = swt_nonce,
		.nonce_ctx = rnd, .calls_max = calls_max, .receive_window = window };
	struct net_hub *hub;

	if (net_hub_open(&hub, &conf) != 0)
		abort();
	net_hub_add(hub, swt_transport(s, id));
	return hub;
}

static void
swt_init(struct swt *s, struct clock *clock, uint64_t bytes_per_us, uint64_t delay_ns,
    uint64_t queue_max)
{
	*s = (struct swt){ .clock = clock, .bytes_per_us = bytes_per_us,
		.delay_ns = delay_ns, .queue_max = queue_max };
	list_init(&s->chans);
	list_init(&s->live);
}

/* All hubs are closed. */
static void
swt_fini(struct swt *s)
{
	for (struct list *l; (l = list_pop_front(&s->live)) != NULL;) {
		struct swt_event *e = list_entry(l, struct swt_event, node);

		clock_timer_stop(s->clock, &e->t);
		free(e);
	}
	for (struct list *l; (l = list_pop_front(&s->chans)) != NULL;) {
		struct swt_chan *c = list_entry(l, struct swt_chan, node);

		for (struct list *k; (k = list_pop_front(&c->frames)) != NULL;)
			free(list_entry(k, struct swt_frame, node));
		free(c->state);
		free(c->bytes);
		free(c->dst);
		free(c);
	}
}

#endif
