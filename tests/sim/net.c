/* SPDX-License-Identifier: MIT */
/* net.c - simulated streams.
 *
 *   chan -send-> end.out: items by time of arrival -> other end's inbox -> up->frame
 *
 * A frame with payload is two items: HEAD, and BODY that arrives later.  Until BODY has
 * left (left_ns) its bytes are the sender's; they are copied at that moment, so a sender
 * that takes its memory back too early is seen.  Arrivals run on the world's clock; what
 * a node gets to see runs on the node's, so a paused node reads late. */
#include "tests/sim/net.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/rand.h"

#define DEAD_NS		(15 * NS_PER_S)	/* as net/tcp.c has it */
#define RESEND_MIN_NS	(200 * NS_PER_MS)
#define RESEND_MAX_NS	(1000 * NS_PER_MS)
#define SCRIBBLE	64u
#define NODES_MAX	64u		/* whose paths can be named */

enum item_kind { HEAD, BODY, FIN };
enum rx_state { RX_NONE, RX_ASKED, RX_PULL, RX_DROP };

struct item {
	struct list    node;
	enum item_kind kind;
	uint64_t       at_ns;		/* arrives */
	uint64_t       start_ns, left_ns;	/* BODY: leaves the sender */
	bool	       left;
	struct net_tx *tx;		/* BODY, until it has left */
	uint32_t       head_len, bulk_len;
	uint8_t	       bytes[];		/* of the head, or of the payload */
};

struct end {
	struct pipe	  *pipe;
	struct chan	  *chan;
	struct clock	  *clock;	/* of the node */
	uint32_t	   node;
	bool		   lost;	/* its host went down: says nothing any more */
	bool		   ghost;	/* told that the stream broke; what it sent before is
					 * still under way */
	/* what this end sends */
	struct list	   out;
	struct clock_timer timer;	/* world: the next event of `out` */
	uint64_t	   leaves_ns, arrives_ns, blocked_ns;
	/* what it gets */
	struct list	   inbox;
	struct clock_defer news;
	struct clock_timer fate;	/* world: it learns that the stream broke */
	int		   fate_rc;
	bool		   connected;
	int		   closed;
};

struct pipe {
	struct list	   node;
	struct sim_net	  *net;
	struct end	   ends[2];
	struct net_addr	   to;
	bool		   broken;
	struct clock_timer syn, breaks;
};

struct chan {
	struct net_chan c;		/* first */
	struct card    *card;
	struct end     *mine, *other;
	unsigned	refs;
	bool		closed, paused;
	enum rx_state	rx_state;
	struct net_rx	rx;
	uint32_t	rx_left;
	struct iovec   *dst;
	unsigned	dst_n;
	struct list	txs, left;
};

struct card {
	struct net_transport t;
	struct sim_net *net;
	struct clock   *clock;
	uint32_t	node;
	uint16_t	loop;
	unsigned	open_n;
};

struct listener {
	struct list    node;
	struct card   *card;
	struct net_addr at;
	net_accept_fn *fn;
	void	      *ctx;
};

struct path {
	enum sim_net_path how;
	uint32_t	  lag_us;
};

struct sim_net {
	struct clock *world;
	struct rand   rand;
	struct sim_net_faults faults;
	struct list   pipes, listeners;
	struct path   paths[NODES_MAX][NODES_MAX];	/* from, to */
	uint32_t     *down;
	size_t	      down_n;
	uint64_t      frames;
	void	    (*watch)(void *ctx, uint32_t node);
	void	     *watch_ctx;
};

static void *
must(void *p)
{
	if (p == NULL) {
		fputs("sim net: out of memory\n", stderr);
		abort();
	}
	return p;
}

static struct chan *
of(struct net_chan *c)
{
	return container_of(c, struct chan, c);
}

static uint64_t
now_of(const struct sim_net *n)
{
	return clock_now(n->world);
}

static uint64_t
between(struct sim_net *n, uint64_t min, uint64_t max)
{
	return min + rand_below(&n->rand, max - min + 1);
}

static uint64_t
delay(struct sim_net *n)
{
	uint64_t ns = between(n, n->faults.delay_min_us * NS_PER_US,
	    n->faults.delay_max_us * NS_PER_US);

	if (n->faults.slow_ppm > 0 &&
	    rand_chance(&n->rand, n->faults.slow_ppm, 1000000))
		ns += n->faults.slow_us * NS_PER_US;
	return ns;
}

static void
chan_put(struct chan *c)
{
	if (--c->refs > 0)
		return;
	free(c->dst);
	free(c);
}

/* ---- paths and hosts ---- */

static bool
is_down(const struct sim_net *n, uint32_t node)
{
	for (size_t i = 0; i < n->down_n; i++)
		if (n->down[i] == node)
			return true;
	return false;
}

static enum sim_net_path
path_of(const struct sim_net *n, uint32_t from, uint32_t to)
{
	if (is_down(n, from) || is_down(n, to))
		return SIM_NET_SILENT;
	assert(from < NODES_MAX && to < NODES_MAX);
	return n->paths[from][to].how;
}

/* Of a frame from @e to the other end. */
static uint64_t
frame_delay(struct sim_net *n, const struct end *e, const struct end *to)
{
	assert(e->node < NODES_MAX && to->node < NODES_MAX);
	return delay(n) + n->paths[e->node][to->node].lag_us * NS_PER_US;
}

/* ---- pipes ---- */

static void
free_items(struct list *items)
{
	for (struct list *l; (l = list_pop_front(items)) != NULL;)
		free(list_entry(l, struct item, node));
}

static void
free_pipe(struct pipe *p)
{
	struct clock *world = p->net->world;

	for (unsigned i = 0; i < 2; i++) {
		clock_timer_stop(world, &p->ends[i].timer);
		clock_timer_stop(world, &p->ends[i].fate);
		free_items(&p->ends[i].out);
		free_items(&p->ends[i].inbox);
	}
	clock_timer_stop(world, &p->syn);
	clock_timer_stop(world, &p->breaks);
	list_remove(&p->node);
	free(p);
}

static void deliver(struct clock_defer *d);
static void plan(struct end *e);

static void
wake(struct end *e)
{
	if (e->chan != NULL)
		clock_defer(e->clock, &e->news, deliver);
}

static void
fate_comes(struct clock_timer *t)
{
	struct end *e = container_of(t, struct end, fate);

	e->closed = e->fate_rc;
	wake(e);
}

static void
doom(struct end *e, int rc, uint64_t in_ns)
{
	uint64_t at = now_of(e->pipe->net) + in_ns;

	if (e->closed != 0 || (e->fate.pos != 0 && e->fate.at_ns <= at))
		return;
	e->fate_rc = rc;
	clock_timer_start(e->pipe->net->world, &e->fate, at, fate_comes);
}

/* Nothing arrives any more; both ends learn of it, each in its time. */
static void
break_pipe(struct pipe *p, int rc)
{
	if (p->broken)
		return;
	p->broken = true;
	for (unsigned i = 0; i < 2; i++) {
		struct end *e = &p->ends[i];

		clock_timer_stop(p->net->world, &e->timer);
		free_items(&e->out);
		doom(e, rc, delay(p->net));
	}
}

/* Drop what @e sends, but for what has @left it. */
static void
cut_items(struct end *e, bool left)
{
	list_for_each_safe(it, tmp, &e->out) {
		struct item *i = list_entry(it, struct item, node);

		left = left && (i->kind != BODY || i->left);
		if (left)
			continue;
		if (i->tx != NULL)
			i->tx->impl = NULL;
		list_remove(it);
		free(i);
	}
}

/* @e learns that the stream broke and goes on elsewhere; what has left it already lies in
 * some buffer and arrives late, beside or behind what it says next on another stream. */
static void
break_behind(struct end *e)
{
	struct pipe *p = e->pipe;
	struct end *to = &p->ends[e == &p->ends[0]];
	uint64_t late = between(p->net, 0, p->net->faults.ghost_us * NS_PER_US);

	cut_items(e, true);
	list_for_each(it, &e->out)
		list_entry(it, struct item, node)->at_ns += late;
	e->ghost = true;
	cut_items(to, false);
	clock_timer_stop(p->net->world, &to->timer);
	to->lost = true;
	plan(e);
	doom(e, -ECONNRESET, delay(p->net));
	doom(to, -ECONNRESET, late + 2 * delay(p->net));
}

static void
breaks(struct clock_timer *t)
{
	struct pipe *p = container_of(t, struct pipe, breaks);
	struct end *e = &p->ends[rand_below(&p->net->rand, 2)];

	if (p->net->faults.ghost_us > 0 && !p->broken && e->chan != NULL &&
	    p->ends[e == &p->ends[0]].chan != NULL && !list_empty(&e->out) && !e->lost &&
	    rand_chance(&p->net->rand, 1, 2))
		break_behind(e);
	else
		break_pipe(p, -ECONNRESET);
}

/* ---- what travels ---- */

static void out_event(struct clock_timer *t);

/* When something next happens in what @e sends. */
static void
plan(struct end *e)
{
	uint64_t at = UINT64_MAX;

	list_for_each(l, &e->out) {
		const struct item *i = list_entry(l, struct item, node);

		if (l == e->out.next)
			at = i->at_ns;
		if (i->kind == BODY && !i->left) {
			if (i->left_ns < at)
				at = i->left_ns;
			break;
		}
	}
	if (at == UINT64_MAX)
		clock_timer_stop(e->pipe->net->world, &e->timer);
	else
		clock_timer_start(e->pipe->net->world, &e->timer, at, out_event);
}

static void
copy_out(struct item *i)
{
	uint8_t *to = i->bytes;

	for (unsigned k = 0; k < i->tx->iov_n; k++) {
		memcpy(to, i->tx->iov[k].iov_base, i->tx->iov[k].iov_len);
		to += i->tx->iov[k].iov_len;
	}
	assert(to == i->bytes + i->bulk_len);
}

/* Payloads whose time has come leave their sender. */
static void
let_leave(struct end *e, uint64_t now)
{
	list_for_each(l, &e->out) {
		struct item *i = list_entry(l, struct item, node);

		if (i->kind != BODY || i->left)
			continue;
		if (i->left_ns > now)
			return;
		copy_out(i);
		i->left = true;
		i->tx->done = i->tx->head_len + (uint64_t)i->bulk_len;
		i->tx->impl = NULL;
		list_remove(&i->tx->node);
		list_push_back(&e->chan->left, &i->tx->node);
		e->chan->c.out_bytes -= i->bulk_len;
		e->chan->c.tx_since_ns = e->chan->c.out_bytes > 0 ?
		    clock_now(e->clock) : 0;
		i->tx = NULL;
		wake(e);
	}
}

/* The first item is due. False: it cannot get through now. */
static bool
arrive(struct end *e, uint64_t now)
{
	struct pipe *p = e->pipe;
	struct end *to = &p->ends[e == &p->ends[0]];
	struct item *i = list_entry(e->out.next, struct item, node);

	switch (path_of(p->net, e->node, to->node)) {
	case SIM_NET_CLEAR:
		break;
	case SIM_NET_RESET:
		break_pipe(p, -ECONNRESET);
		return false;
	case SIM_NET_SILENT:
		if (e->blocked_ns == 0)
			e->blocked_ns = now;
		if (now - e->blocked_ns > DEAD_NS)
			break_pipe(p, -ETIMEDOUT);
		else
			i->at_ns = now + between(p->net, RESEND_MIN_NS,
			    RESEND_MAX_NS);
		return false;
	}
	e->blocked_ns = 0;
	list_remove(&i->node);
	if (i->kind == FIN || to->chan == NULL) {
		/* Nobody there (any more): a reset is the answer. */
		if (i->kind == FIN)
			doom(to, -ECONNRESET, 0);
		else
			break_pipe(p, -ECONNRESET);
		free(i);
		return false;
	}
	p->net->frames++;
	list_push_back(&to->inbox, &i->node);
	wake(to);
	return true;
}

static void
out_event(struct clock_timer *t)
{
	struct end *e = container_of(t, struct end, timer);
	uint64_t now = now_of(e->pipe->net);

	let_leave(e, now);
	while (!list_empty(&e->out) &&
	    list_entry(e->out.next, struct item, node)->at_ns <= now)
		if (!arrive(e, now))
			break;
	if (!e->pipe->broken)
		plan(e);
}

static struct item *
new_item(enum item_kind kind, size_t bytes)
{
	struct item *i = must(calloc(1, sizeof(*i) + bytes));

	i->kind = kind;
	list_init(&i->node);
	return i;
}

/* ---- sending ---- */

static bool
chan_send(struct net_chan *chan, struct net_tx *tx)
{
	struct chan *c = of(chan);
	struct end *e = c->mine;
	struct sim_net *n = e->pipe->net;
	uint64_t now = now_of(n), start = now, took = 0;
	struct item *head, *body;

	tx->done = 0;
	tx->impl = NULL;
	if (tx->bulk_len > 0) {
		list_push_back(&c->txs, &tx->node);
		if (chan->out_bytes == 0)
			chan->tx_since_ns = clock_now(c->card->clock);
		chan->out_bytes += tx->bulk_len;
	}
	if (e->pipe->broken || e->ghost || e->lost)
		return tx->bulk_len == 0;	/* into nowhere; news is coming */
	if (n->watch != NULL)
		n->watch(n->watch_ctx, e->node);
	if (start < e->leaves_ns)
		start = e->leaves_ns;
	head = new_item(HEAD, tx->head_len);
	memcpy(head->bytes, tx->head, tx->head_len);
	head->head_len = tx->head_len;
	head->bulk_len = tx->bulk_len;
	head->at_ns = start + frame_delay(n, e, c->other);
	if (head->at_ns < e->arrives_ns)
		head->at_ns = e->arrives_ns;
	list_push_back(&e->out, &head->node);
	e->arrives_ns = head->at_ns;
	if (tx->bulk_len > 0) {
		if (n->faults.bytes_per_us > 0)
			took = tx->bulk_len / n->faults.bytes_per_us * NS_PER_US;
		body = new_item(BODY, tx->bulk_len);
		body->tx = tx;
		body->bulk_len = tx->bulk_len;
		body->start_ns = start + delay(n) / 4;
		body->left_ns = body->start_ns + took + delay(n) / 4;
		body->at_ns = body->left_ns + frame_delay(n, e, c->other);
		if (body->at_ns < e->arrives_ns)
			body->at_ns = e->arrives_ns;
		list_push_back(&e->out, &body->node);
		e->arrives_ns = body->at_ns;
		e->leaves_ns = body->left_ns;
		tx->impl = body;
	}
	if (n->faults.break_ppm > 0 && e->pipe->breaks.pos == 0 &&
	    rand_chance(&n->rand, n->faults.break_ppm, 1000000))
		clock_timer_start(n->world, &e->pipe->breaks,
		    between(n, now, e->arrives_ns + 2 * delay(n)), breaks);
	plan(e);
	return tx->bulk_len == 0;
}

static int
chan_unsend(struct net_chan *chan, struct net_tx *tx)
{
	struct chan *c = of(chan);
	struct item *body = tx->impl;

	if (tx->done == 0) {
		if (!c->mine->pipe->broken && body != NULL) {
			struct item *head = list_entry(body->node.prev,
			    struct item, node);

			if (now_of(c->card->net) >= body->start_ns ||
			    body->node.prev == &c->mine->out || head->kind != HEAD)
				return -EBUSY;
			list_remove(&head->node);
			list_remove(&body->node);
			free(head);
			free(body);
			plan(c->mine);
		}
		chan->out_bytes -= tx->bulk_len;
		if (chan->out_bytes == 0)
			chan->tx_since_ns = 0;
	}
	tx->impl = NULL;
	list_remove(&tx->node);
	return 0;
}

/* ---- receiving ---- */

static void
copy_in(const struct item *i, const struct iovec *dst, unsigned n)
{
	const uint8_t *from = i->bytes;

	for (unsigned k = 0; k < n; k++) {
		memcpy(dst[k].iov_base, from, dst[k].iov_len);
		from += dst[k].iov_len;
	}
}

/* A real stream would have written some of it by now. */
static void
scribble(const struct iovec *dst, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		memset(dst[k].iov_base, 0xa5,
		    dst[k].iov_len < SCRIBBLE ? dst[k].iov_len : SCRIBBLE);
}

/* The body that is next in the inbox, or NULL. */
static struct item *
body_of(const struct chan *c)
{
	struct list *l = c->mine->inbox.next;

	if (l == &c->mine->inbox)
		return NULL;
	assert(list_entry(l, struct item, node)->kind == BODY);
	return list_entry(l, struct item, node);
}

static int
chan_pull(struct net_chan *chan, struct net_rx *rx, const struct iovec *iov,
    unsigned n)
{
	struct chan *c = of(chan);
	struct item *i;
	uint64_t sum = 0;

	assert(rx == &c->rx && c->rx_state == RX_ASKED);
	for (unsigned k = 0; k < n; k++)
		sum += iov[k].iov_len;
	assert(sum == c->rx_left);
	wake(c->mine);
	if ((i = body_of(c)) != NULL && rand_chance(&c->card->net->rand, 1, 2)) {
		copy_in(i, iov, n);
		list_remove(&i->node);
		free(i);
		c->rx_state = RX_NONE;
		return 1;
	}
	free(c->dst);
	c->dst = must(malloc((n + 1) * sizeof(*iov)));
	memcpy(c->dst, iov, n * sizeof(*iov));
	c->dst_n = n;
	scribble(iov, n);
	c->rx_state = RX_PULL;
	c->c.rx_since_ns = clock_now(c->card->clock);
	return 0;
}

static void
chan_drop(struct net_chan *chan, struct net_rx *rx)
{
	struct chan *c = of(chan);

	assert(rx == &c->rx);
	c->rx_state = RX_DROP;
	c->c.rx_since_ns = clock_now(c->card->clock);
	wake(c->mine);
}

static void
chan_pause(struct net_chan *chan, bool paused)
{
	of(chan)->paused = paused;
	wake(of(chan)->mine);
}

/* Hand up the first of the inbox. False: it cannot be now. */
static bool
hand_up(struct chan *c)
{
	struct item *i = list_entry(c->mine->inbox.next, struct item, node);

	if (c->rx_state == RX_ASKED || (c->rx_state == RX_NONE && c->paused))
		return false;
	list_remove(&i->node);
	if (i->kind == BODY) {
		bool pulled = c->rx_state == RX_PULL;

		if (pulled)
			copy_in(i, c->dst, c->dst_n);
		c->rx_state = RX_NONE;
		c->c.rx_since_ns = 0;
		free(i);
		if (pulled)
			c->c.up->pulled(&c->c, &c->rx);
		return true;
	}
	assert(c->rx_state == RX_NONE);
	if (i->bulk_len > 0) {
		c->rx_state = RX_ASKED;
		c->rx_left = i->bulk_len;
	}
	if (i->head_len > c->c.head_max || i->bulk_len > c->c.bulk_max)
		c->mine->closed = -EMSGSIZE;
	else
		c->c.up->frame(&c->c, i->bytes, i->head_len,
		    i->bulk_len > 0 ? &c->rx : NULL, NULL);
	free(i);
	return true;
}

/* What a node gets to see of one of its streams, on its own clock. */
static void
deliver(struct clock_defer *d)
{
	struct end *e = container_of(d, struct end, news);
	struct chan *c = e->chan;
	size_t before = c->c.out_bytes;

	c->refs++;
	if (e->connected) {
		e->connected = false;
		c->c.up->connected(&c->c);
	}
	while (!c->closed && !list_empty(&c->left)) {
		struct list *l = list_pop_front(&c->left);

		c->c.up->sent(&c->c, list_entry(l, struct net_tx, node));
	}
	if (!c->closed && before <= c->c.out_mark / 2)
		c->c.up->drained(&c->c);
	if (!c->closed && !list_empty(&e->inbox))
		c->c.rx_ns = clock_now(c->card->clock);
	while (!c->closed && e->closed != -EMSGSIZE && !list_empty(&e->inbox))
		if (!hand_up(c))
			break;
	if (!c->closed && e->closed != 0)
		c->c.up->closed(&c->c, e->closed);
	chan_put(c);
}

/* ---- open and close ---- */

static void
chan_close(struct net_chan *chan, struct list *unsent, bool linger)
{
	struct chan *c = of(chan);
	struct end *e = c->mine;
	struct pipe *p = e->pipe;

	(void)linger;
	assert(!c->closed);
	c->closed = true;
	c->card->open_n--;
	clock_undefer(e->clock, &e->news);
	list_splice_back(unsent, &c->left);
	list_splice_back(unsent, &c->txs);
	free_items(&e->inbox);
	e->chan = NULL;
	if (c->other->chan == NULL) {
		free_pipe(p);
	} else if (!p->broken && e->ghost) {
		/* What is under way arrives; the other end was told its fate. */
	} else if (!p->broken && e->lost) {
		/* Not a word; what was under way may still arrive. */
		free_items(&e->out);
		clock_timer_stop(p->net->world, &e->timer);
	} else if (!p->broken) {
		struct item *fin = new_item(FIN, 0);

		/* What has left arrives; a payload that has not ends the stream. */
		for (struct list *l = e->out.next; l != &e->out;) {
			struct item *i = list_entry(l, struct item, node);

			if (i->kind == BODY && !i->left) {
				while (l != &e->out) {
					struct list *next = l->next;

					list_remove(l);
					free(list_entry(l, struct item, node));
					l = next;
				}
				break;
			}
			l = l->next;
		}
		fin->at_ns = now_of(p->net) + delay(p->net);
		if (fin->at_ns < e->arrives_ns)
			fin->at_ns = e->arrives_ns;
		list_push_back(&e->out, &fin->node);
		plan(e);
	}
	chan_put(c);
}

static const struct net_chan_ops chan_ops = {
	.send = chan_send, .unsend = chan_unsend, .pull = chan_pull,
	.drop = chan_drop, .pause = chan_pause, .close = chan_close
};

static struct chan *
new_chan(struct card *card, struct pipe *p, unsigned side)
{
	struct chan *c = must(calloc(1, sizeof(*c)));

	c->c.ops = &chan_ops;
	c->c.peer.kind = NET_ADDR_SIM;
	c->c.peer.id = p->ends[!side].node;
	c->c.rx_ns = clock_now(card->clock);
	c->card = card;
	c->mine = &p->ends[side];
	c->other = &p->ends[!side];
	c->refs = 1;
	list_init(&c->txs);
	list_init(&c->left);
	p->ends[side].chan = c;
	p->ends[side].clock = card->clock;
	card->open_n++;
	return c;
}

/* ---- connecting ---- */

static struct listener *
find(const struct sim_net *n, const struct net_addr *at)
{
	list_for_each(l, &n->listeners) {
		struct listener *li = list_entry(l, struct listener, node);

		if (net_addr_eq(&li->at, at))
			return li;
	}
	return NULL;
}

static void
syn_arrives(struct clock_timer *t)
{
	struct pipe *p = container_of(t, struct pipe, syn);
	struct sim_net *n = p->net;
	enum sim_net_path there = path_of(n, p->ends[0].node, p->to.id);
	enum sim_net_path back = path_of(n, p->to.id, p->ends[0].node);
	struct listener *l = find(n, &p->to);
	struct chan *c;

	if (there == SIM_NET_SILENT || back == SIM_NET_SILENT) {
		/* Asked again, as a system does, until who wants it gives up. */
		clock_timer_start(n->world, t, now_of(n) + RESEND_MAX_NS,
		    syn_arrives);
		return;
	}
	if (l == NULL || there == SIM_NET_RESET || back == SIM_NET_RESET) {
		p->broken = true;
		doom(&p->ends[0], -ECONNREFUSED, delay(n));
		return;
	}
	c = new_chan(l->card, p, 1);
	p->ends[0].connected = true;
	wake(&p->ends[0]);
	l->fn(l->ctx, &c->c);
}

static int
card_connect(struct net_transport *t, const struct net_addr *to,
    struct net_chan **out)
{
	struct card *card = container_of(t, struct card, t);
	struct sim_net *n = card->net;
	struct pipe *p = must(calloc(1, sizeof(*p)));
	struct chan *c;

	p->net = n;
	p->to = *to;
	for (unsigned i = 0; i < 2; i++) {
		p->ends[i].pipe = p;
		list_init(&p->ends[i].out);
		list_init(&p->ends[i].inbox);
	}
	p->ends[0].node = card->node;
	p->ends[1].node = to->id;
	list_push_back(&n->pipes, &p->node);
	c = new_chan(card, p, 0);
	c->c.peer = *to;
	clock_timer_start(n->world, &p->syn, now_of(n) + 2 * delay(n), syn_arrives);
	*out = &c->c;
	return 0;
}

/* ---- the card ---- */

static bool
card_serves(const struct net_transport *t, uint8_t kind)
{
	(void)t;
	return kind == NET_ADDR_SIM;
}

static int
card_listen(struct net_transport *t, const struct net_addr *at, net_accept_fn *fn,
    void *ctx, struct net_listener **out)
{
	struct card *card = container_of(t, struct card, t);
	struct listener *l;

	if (at->id != card->node || at->port != card->loop)
		return -EADDRNOTAVAIL;
	if (find(card->net, at) != NULL)
		return -EADDRINUSE;
	l = must(calloc(1, sizeof(*l)));
	l->card = card;
	l->at = *at;
	l->fn = fn;
	l->ctx = ctx;
	list_push_back(&card->net->listeners, &l->node);
	card->open_n++;
	*out = (struct net_listener *)l;
	return 0;
}

static void
card_listen_addr(const struct net_listener *l, struct net_addr *out)
{
	*out = ((const struct listener *)l)->at;
}

static void
card_unlisten(struct net_listener *listener)
{
	struct listener *l = (struct listener *)listener;

	l->card->open_n--;
	list_remove(&l->node);
	free(l);
}

static void
card_close(struct net_transport *t)
{
	struct card *card = container_of(t, struct card, t);

	assert(card->open_n == 0);
	free(card);
}

static const struct net_transport_ops card_ops = {
	.serves = card_serves, .listen = card_listen,
	.listen_addr = card_listen_addr, .unlisten = card_unlisten,
	.connect = card_connect, .close = card_close
};

struct net_transport *
sim_net_transport(struct sim_net *n, uint32_t node, uint16_t loop,
    struct clock *clock)
{
	struct card *card = must(calloc(1, sizeof(*card)));

	card->t.ops = &card_ops;
	card->net = n;
	card->clock = clock;
	card->node = node;
	card->loop = loop;
	return &card->t;
}

/* ---- the world ---- */

struct sim_net *
sim_net_open(struct clock *world, uint64_t seed)
{
	struct sim_net *n = must(calloc(1, sizeof(*n)));

	n->world = world;
	rand_seed(&n->rand, seed);
	n->faults.delay_min_us = 50;
	n->faults.delay_max_us = 150;
	list_init(&n->pipes);
	list_init(&n->listeners);
	return n;
}

void
sim_net_close(struct sim_net *n)
{
	if (n == NULL)
		return;
	assert(list_empty(&n->pipes) && list_empty(&n->listeners));
	free(n->down);
	free(n);
}

void
sim_net_faults(struct sim_net *n, const struct sim_net_faults *f)
{
	assert(f->delay_min_us <= f->delay_max_us);
	n->faults = *f;
}

void
sim_net_path(struct sim_net *n, uint32_t from, uint32_t to, enum sim_net_path path)
{
	assert(from < NODES_MAX && to < NODES_MAX);
	n->paths[from][to].how = path;
}

void
sim_net_lag(struct sim_net *n, uint32_t from, uint32_t to, uint32_t us)
{
	assert(from < NODES_MAX && to < NODES_MAX);
	n->paths[from][to].lag_us = us;
}

void
sim_net_cut(struct sim_net *n, uint32_t a, uint32_t b, enum sim_net_path path)
{
	sim_net_path(n, a, b, path);
	sim_net_path(n, b, a, path);
}

void
sim_net_heal(struct sim_net *n)
{
	memset(n->paths, 0, sizeof(n->paths));
}

void
sim_net_host_down(struct sim_net *n, uint32_t node)
{
	if (is_down(n, node))
		return;
	n->down = must(realloc(n->down, (n->down_n + 1) * sizeof(*n->down)));
	n->down[n->down_n++] = node;
	list_for_each(l, &n->pipes) {
		struct pipe *p = list_entry(l, struct pipe, node);

		for (unsigned i = 0; i < 2; i++)
			if (p->ends[i].node == node && !p->broken) {
				p->ends[i].lost = true;
				/* Keepalive will tell, if nothing does before. */
				doom(&p->ends[!i], -ETIMEDOUT, DEAD_NS);
			}
	}
}

void
sim_net_host_up(struct sim_net *n, uint32_t node)
{
	for (size_t i = 0; i < n->down_n; i++)
		if (n->down[i] == node) {
			n->down[i] = n->down[--n->down_n];
			return;
		}
}

void
sim_net_break(struct sim_net *n, uint32_t a, uint32_t b)
{
	list_for_each(l, &n->pipes) {
		struct pipe *p = list_entry(l, struct pipe, node);

		if ((p->ends[0].node == a && p->ends[1].node == b) ||
		    (p->ends[0].node == b && p->ends[1].node == a))
			break_pipe(p, -ECONNRESET);
	}
}

unsigned
sim_net_streams(const struct sim_net *n)
{
	unsigned k = 0;

	list_for_each(l, &n->pipes)
		k += !list_entry(l, struct pipe, node)->broken;
	return k;
}

void
sim_net_watch(struct sim_net *n, void (*fn)(void *ctx, uint32_t node), void *ctx)
{
	n->watch = fn;
	n->watch_ctx = ctx;
}

uint64_t
sim_net_frames(const struct sim_net *n)
{
	return n->frames;
}
