/* SPDX-License-Identifier: MIT */
/* net_chan.c - one end of a stream as its node sees it. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/net_impl.h"

#define SCRIBBLE	64u

static struct chan *
of(struct net_chan *c)
{
	return container_of(c, struct chan, c);
}

static void
chan_put(struct chan *c)
{
	if (--c->refs > 0)
		return;
	free(c->dst);
	free(c);
}

/* ---- sending ---- */

struct item *
sim_chan_head(struct chan *c, const struct net_tx *tx, uint64_t start)
{
	struct end *e = c->mine;
	struct sim_net *n = e->pipe->net;
	struct item *head = sim_pipe_item(HEAD, tx->head_len);

	memcpy(head->bytes, tx->head, tx->head_len);
	head->head_len = tx->head_len;
	head->bulk_len = tx->bulk_len;
	head->at_ns = start + sim_net_frame_delay(n, e, c->other);
	if (head->at_ns < e->arrives_ns)
		head->at_ns = e->arrives_ns;
	list_push_back(&e->out, &head->node);
	e->arrives_ns = head->at_ns;
	return head;
}

struct item *
sim_chan_body(struct chan *c, struct net_tx *tx, uint64_t start)
{
	struct end *e = c->mine;
	struct sim_net *n = e->pipe->net;
	struct item *body = sim_pipe_item(BODY, tx->bulk_len);
	uint64_t took = 0;

	if (n->faults.bytes_per_us > 0)
		took = tx->bulk_len / n->faults.bytes_per_us * NS_PER_US;
	body->tx = tx;
	body->bulk_len = tx->bulk_len;
	body->start_ns = start + sim_net_delay(n) / 4;
	body->left_ns = body->start_ns + took + sim_net_delay(n) / 4;
	body->at_ns = body->left_ns + sim_net_frame_delay(n, e, c->other);
	if (body->at_ns < e->arrives_ns)
		body->at_ns = e->arrives_ns;
	list_push_back(&e->out, &body->node);
	e->arrives_ns = body->at_ns;
	e->leaves_ns = body->left_ns;
	return body;
}

void
sim_chan_sent(struct end *e)
{
	struct sim_net *n = e->pipe->net;

	if (n->faults.break_ppm > 0 && e->pipe->breaks.pos == 0 &&
	    rand_chance(&n->rand, n->faults.break_ppm, 1000000))
		clock_timer_start(n->world, &e->pipe->breaks,
		    sim_net_between(n, sim_net_now(n), e->arrives_ns +
		    2 * sim_net_delay(n)), sim_pipe_breaks);
	sim_pipe_plan(e);
}

static bool
chan_send(struct net_chan *chan, struct net_tx *tx)
{
	struct chan *c = of(chan);
	struct end *e = c->mine;
	struct sim_net *n = e->pipe->net;
	uint64_t start = sim_net_now(n);

	tx->done = 0;
	tx->pre = TX_BODY;
	tx->impl = NULL;
	if (start < e->leaves_ns)
		start = e->leaves_ns;
	if (chan->one_sided)
		return sim_offer_send(c, tx, start);
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
	(void)sim_chan_head(c, tx, start);
	if (tx->bulk_len > 0) {
		list_entry(e->out.prev, struct item, node)->stream = true;
		tx->impl = sim_chan_body(c, tx, start);
	}
	sim_chan_sent(e);
	return tx->bulk_len == 0;
}

static int
chan_unsend(struct net_chan *chan, struct net_tx *tx)
{
	struct chan *c = of(chan);
	struct item *body = tx->impl;

	if (chan->one_sided)
		return sim_offer_unsend(c, tx);
	if (tx->done == 0) {
		if (!c->mine->pipe->broken && body != NULL) {
			struct item *head = list_entry(body->node.prev,
			    struct item, node);

			if (sim_net_now(c->card->net) >= body->start_ns ||
			    body->node.prev == &c->mine->out || head->kind != HEAD)
				return -EBUSY;
			sim_pipe_free_item(head);
			sim_pipe_free_item(body);
			sim_pipe_plan(c->mine);
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

	for (unsigned k = 0; k < n; k++)
		sum += iov[k].iov_len;
	scribble(iov, n);
	if (rx != &c->rx) {
		assert(sum == sim_offer_of(rx)->bulk_len);
		return sim_verbs_pull(c, rx, iov, n);
	}
	assert(c->rx_state == RX_ASKED && sum == c->rx_left);
	sim_pipe_wake(c->mine);
	if ((i = body_of(c)) != NULL && rand_chance(&c->card->net->rand, 1, 2)) {
		copy_in(i, iov, n);
		sim_pipe_free_item(i);
		c->rx_state = RX_NONE;
		return 1;
	}
	free(c->dst);
	c->dst = sim_net_must(malloc((n + 1) * sizeof(*iov)));
	memcpy(c->dst, iov, n * sizeof(*iov));
	c->dst_n = n;
	c->rx_state = RX_PULL;
	sim_chan_note_rx(c);
	return 0;
}

static void
chan_drop(struct net_chan *chan, struct net_rx *rx)
{
	struct chan *c = of(chan);

	if (rx != &c->rx) {
		sim_verbs_drop(c, rx);
		return;
	}
	c->rx_state = RX_DROP;
	sim_chan_note_rx(c);
	sim_pipe_wake(c->mine);
}

static void
chan_pause(struct net_chan *chan, bool paused)
{
	of(chan)->paused = paused;
	sim_pipe_wake(of(chan)->mine);
}

void
sim_chan_note_rx(struct chan *c)
{
	c->c.rx_since_ns = c->reading > 0 || c->rx_state == RX_PULL ||
	    c->rx_state == RX_DROP ? clock_now(c->card->clock) : 0;
}

static void
hand_up_body(struct chan *c, struct item *i)
{
	bool pulled = c->rx_state == RX_PULL;

	if (pulled)
		copy_in(i, c->dst, c->dst_n);
	c->rx_state = RX_NONE;
	sim_chan_note_rx(c);
	if (pulled)
		c->c.up->pulled(&c->c, &c->rx);
}

static void
hand_up_head(struct chan *c, struct item *i)
{
	struct offer *far = NULL;
	struct net_rx *rx = NULL;

	if (i->head_len > c->c.head_max || i->bulk_len > c->c.bulk_max) {
		c->mine->closed = -EMSGSIZE;
		return;
	}
	if (i->answers != NULL)
		sim_offer_answered(c, i->answers);
	if (c->closed)
		return;
	if (i->offer != NULL) {
		far = sim_offer_take(c, i);
		rx = sim_offer_rx(far);
	}
	if (i->stream) {
		rx = &c->rx;
		c->rx_state = RX_ASKED;
		c->rx_left = i->bulk_len;
	}
	c->c.up->frame(&c->c, i->bytes, i->head_len, rx, (struct net_far *)far);
}

static void
hand_up_told(struct chan *c, struct item *i)
{
	list_remove(&i->node);
	if (i->kind == DONE)
		sim_offer_answered(c, i->offer);
	else
		sim_offer_revoked(c, i->offer);
	sim_pipe_free_item(i);
}

/* Hand up the first of the inbox. False: it cannot be now. */
static bool
hand_up(struct chan *c)
{
	struct item *i = list_entry(c->mine->inbox.next, struct item, node);

	if (i->kind == DONE || i->kind == REVOKE) {
		hand_up_told(c, i);
		return true;
	}
	if (c->rx_state == RX_ASKED || (c->rx_state == RX_NONE && c->paused))
		return false;
	list_remove(&i->node);
	if (i->kind == BODY) {
		hand_up_body(c, i);
	} else {
		assert(i->kind == HEAD && c->rx_state == RX_NONE);
		hand_up_head(c, i);
	}
	sim_pipe_free_item(i);
	return true;
}

/* What is said of offers waits for nothing. */
static void
hand_up_all_told(struct chan *c)
{
	list_for_each_safe(it, tmp, &c->mine->inbox) {
		struct item *i = list_entry(it, struct item, node);

		if (i->kind != DONE && i->kind != REVOKE)
			continue;
		hand_up_told(c, i);
		if (c->closed)
			return;
	}
}

/* What a node gets to see of one of its streams, on its own clock. */
void
sim_chan_deliver(struct clock_defer *d)
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
	while (!c->closed && !list_empty(&c->got))
		sim_verbs_pulled(c);
	if (!c->closed && before <= c->c.out_mark / 2)
		c->c.up->drained(&c->c);
	if (!c->closed && !list_empty(&e->inbox))
		c->c.rx_ns = clock_now(c->card->clock);
	while (!c->closed && e->closed != -EMSGSIZE && !list_empty(&e->inbox))
		if (!hand_up(c)) {
			hand_up_all_told(c);
			break;
		}
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
	if (c->c.one_sided)
		sim_verbs_close(c);
	list_splice_back(unsent, &c->left);
	list_splice_back(unsent, &c->txs);
	sim_pipe_free_items(&e->inbox);
	e->chan = NULL;
	if (c->other->chan == NULL) {
		sim_pipe_free(p);
	} else if (!p->broken && e->ghost) {
		/* What is under way arrives; the other end was told its fate. */
	} else if (!p->broken && e->lost) {
		/* Not a word; what was under way may still arrive. */
		sim_pipe_free_items(&e->out);
		clock_timer_stop(p->net->world, &e->timer);
	} else if (!p->broken) {
		struct item *fin = sim_pipe_item(FIN, 0);

		sim_pipe_cut_unleft(e);
		fin->at_ns = sim_net_now(p->net) + sim_net_delay(p->net);
		if (fin->at_ns < e->arrives_ns)
			fin->at_ns = e->arrives_ns;
		list_push_back(&e->out, &fin->node);
		sim_pipe_plan(e);
	}
	chan_put(c);
}

static const struct net_chan_ops chan_ops = {
	.send = chan_send, .unsend = chan_unsend, .pull = chan_pull,
	.drop = chan_drop, .pause = chan_pause, .close = chan_close
}, one_sided_ops = {
	.send = chan_send, .unsend = chan_unsend, .revoke = sim_offer_revoke,
	.pull = chan_pull, .drop = chan_drop, .far_drop = sim_offer_far_drop,
	.pause = chan_pause, .close = chan_close
};

struct chan *
sim_chan_new(struct card *card, struct pipe *p, unsigned side)
{
	struct chan *c = sim_net_must(calloc(1, sizeof(*c)));

	c->c.ops = p->one_sided ? &one_sided_ops : &chan_ops;
	c->c.peer.kind = NET_ADDR_SIM;
	c->c.peer.id = p->ends[!side].node;
	c->c.rx_ns = clock_now(card->clock);
	c->card = card;
	c->mine = &p->ends[side];
	c->other = &p->ends[!side];
	c->refs = 1;
	c->c.one_sided = p->one_sided;
	list_init(&c->txs);
	list_init(&c->left);
	list_init(&c->offers);
	list_init(&c->got);
	p->ends[side].chan = c;
	p->ends[side].clock = card->clock;
	card->open_n++;
	return c;
}
