/* SPDX-License-Identifier: MIT */
/* net_offer.c - memory that a request exposes: what becomes of it until it is answered.
 *
 *   request   HEAD with an offer -> READs of its payload -> reply: WRITE, then HEAD
 *                      \- or: DONE, when it is answered by nothing
 *
 * An offer's memory is touched from the arrival of its HEAD until the reply's HEAD or DONE
 * has been seen, or its owner has closed the channel.  Then it is refused, which breaks the
 * stream; but when the owner's channel is up, or the call has ended, the process is ended:
 * there nothing would have refused it. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/peer.h"
#include "tests/sim/net_impl.h"

STAT_DEFINE(sim_net, SIM_NET_STATS)

void
sim_offer_put(struct offer *o)
{
	if (--o->refs > 0)
		return;
	assert(o->tx == NULL && o->timer.pos == 0);
	free(o->dst);
	free(o->wire);
	free(o);
}

void
sim_offer_forget(struct item *i)
{
	if (i->offer != NULL && i->offer->head == i)
		i->offer->head = NULL;
	if (i->offer != NULL && i->offer->body == i)
		i->offer->body = NULL;
	if (i->offer != NULL)
		sim_offer_put(i->offer);
	if (i->answers != NULL)
		sim_offer_put(i->answers);
}

static void
guilty(struct offer *o, const char *of_what)
{
	fprintf(stderr, "sim net failed at %.6f s: node %u touches memory of node %u, of %s\n",
	    (double)sim_net_now(sim_offer_net(o->of)) / 1e9, o->user->node, o->of->node, of_what);
	abort();
}

/* A call that waits for nothing but that. */
static bool
wants_back(const struct offer *o)
{
	list_for_each(it, &o->peer->revoking)
		if (list_entry(it, struct net_call, node)->id == o->call)
			return true;
	return false;
}

bool
sim_offer_allowed(struct offer *o)
{
	if (o->of->chan == NULL || o->of->stopped)
		return false;
	if (o->tx == NULL)
		guilty(o, "a request that has been answered");
	if (map_get(&o->peer->hub->calls, o->call) == NULL && !wants_back(o))
		guilty(o, "a call that has ended");
	if (o->dels != o->of->chan->card->dels &&
	    !sim_card_knows(o->of->chan->card, o->rows, o->iov_n + o->room_n))
		guilty(o, "a call that it was taken from");
	return true;
}

static uint32_t
copy_rows(struct iovec *to, const struct iovec *from, unsigned n)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < n; i++) {
		to[i] = from[i];
		sum += (uint32_t)from[i].iov_len;
	}
	return sum;
}

/* @stream: the payload goes another way; not @room: so will the reply's. */
static struct offer *
make_offer(struct chan *c, struct net_tx *tx, bool stream, bool room)
{
	struct net_conn *conn = c->c.owner;
	unsigned iov_n = stream ? 0 : tx->iov_n, room_n = room ? tx->room_n : 0;
	struct offer *o = sim_net_must(calloc(1, sizeof(*o) +
	    (iov_n + room_n) * sizeof(o->rows[0])));
	struct net_frame f;
	int rc = net_frame_decode(tx->head, tx->head_len, &f);

	assert(rc == 0 && f.kind == NET_FRAME_REQUEST);
	o->peer = container_of(conn, struct net_peer, conn);
	o->call = f.id;
	o->of = c->mine;
	o->user = c->other;
	o->tx = tx;
	o->refs = 1;
	o->iov_n = iov_n;
	o->room_n = room_n;
	o->dels = c->card->dels;
	o->bulk_len = copy_rows(o->rows, tx->iov, iov_n);
	o->room_len = copy_rows(o->rows + iov_n, tx->room, room_n);
	list_init(&o->node);
	list_push_back(&c->mine->exposed, &o->mine);
	return o;
}

struct net_tx *
sim_offer_end(struct offer *o)
{
	struct net_tx *tx = o->tx;

	o->tx = NULL;
	list_remove(&o->mine);
	sim_offer_put(o);
	return tx;
}

struct offer *
sim_offer_take(struct chan *c, struct item *head)
{
	struct offer *o = head->offer;

	head->offer = NULL;
	o->head = NULL;
	list_push_back(&c->offers, &o->node);
	o->rx_open = o->iov_n > 0;
	o->far_open = true;
	return o;
}

struct net_rx *
sim_offer_rx(struct offer *o)
{
	return o->rx_open ? &o->rx : NULL;
}

void
sim_offer_answered(struct chan *c, struct offer *o)
{
	struct item *body = o->body;
	struct net_tx *tx;

	assert(o->of == c->mine && o->tx != NULL);
	tx = sim_offer_end(o);
	if (body != NULL) {		/* the rest of its payload must leave all the same */
		body->offer = NULL;
		o->body = NULL;
		sim_offer_put(o);
		tx->pre = TX_BODY;
		tx->impl = body;
		return;
	}
	tx->impl = NULL;
	list_remove(&tx->node);
	c->c.up->sent(&c->c, tx);
}

bool
sim_offer_streamed(struct offer *o)
{
	o->body = NULL;
	return o->tx != NULL;
}

/* One more item that says something of @o. */
static void
tell(struct end *e, enum item_kind kind, struct offer *o)
{
	struct item *i = sim_pipe_item(kind, 0);
	struct sim_net *n = sim_offer_net(e);

	i->offer = o;
	o->refs++;
	i->at_ns = sim_net_now(n) + sim_net_frame_delay(n, e, e == o->of ? o->user : o->of);
	if (i->at_ns < e->arrives_ns)
		i->at_ns = e->arrives_ns;
	e->arrives_ns = i->at_ns;
	list_push_back(&e->out, &i->node);
	sim_pipe_plan(e);
}

static void
tell_done(struct end *e, struct offer *o)
{
	if (o->told || sim_offer_gone(e))
		return;
	o->told = true;
	tell(e, DONE, o);
	stat_add(&sim_offer_net(e)->stat.done, 1);
}

void
sim_offer_check(struct chan *c, struct offer *o)
{
	bool open = o->rx_open || o->far_open;

	if (open && (!o->revoked || o->reading))
		return;
	tell_done(c->mine, o);
	if (open)
		return;
	list_remove(&o->node);
	sim_offer_put(o);
}

/* ---- what its owner wants back ---- */

void
sim_offer_revoke(struct net_chan *chan, struct net_tx *tx)
{
	struct chan *c = container_of(chan, struct chan, c);
	struct offer *o = tx->impl;

	/* What the peer has no part in ends by itself: a stream, or with the channel. */
	if (tx->pre != TX_OFFER || o == NULL || o->revoking || sim_offer_gone(c->mine))
		return;
	o->revoking = true;
	tell(c->mine, REVOKE, o);
}

/* Its reply, of which nothing has left.  True: now it never will. */
static bool
take_back_reply(struct chan *c, struct offer *o)
{
	struct end *e = c->mine;

	list_for_each(it, &e->out) {
		struct item *i = list_entry(it, struct item, node), *head;

		if (i->kind != WRITE || i->offer != o)
			continue;
		if (i->start_ns <= sim_net_now(sim_offer_net(e)))
			return false;
		head = list_entry(it->next, struct item, node);
		assert(head->answers == o);
		sim_pipe_moved(e, i->bulk_len);
		sim_pipe_tx_left(e, i->tx);
		sim_pipe_free_item(head);
		sim_pipe_free_item(i);
		sim_pipe_plan(e);
		return true;
	}
	return false;
}

void
sim_offer_revoked(struct chan *c, struct offer *o)
{
	struct sim_net_stat *s = &c->card->net->stat;

	o->revoked = true;
	stat_add(&s->revoked, 1);
	if (o->head != NULL) {		/* it stands behind something */
		stat_add(&s->revoked_early, 1);
		tell_done(c->mine, o);
	} else if (o->told) {
		bool begun = !take_back_reply(c, o);

		stat_add(&s->revoked_late, begun);
		stat_add(&s->revoked_reply, !begun);
		if (begun)
			return;		/* that is answer enough */
		o->told = false;
		tell_done(c->mine, o);
	} else if (o->rx_open || o->far_open) {	/* else it ended where nobody could be told */
		stat_add(&s->revoked_read, o->reading);
		sim_offer_check(c, o);
	}
}

void
sim_offer_far_drop(struct net_chan *chan, struct net_far *far)
{
	struct offer *o = (struct offer *)far;

	o->far_open = false;
	sim_offer_check(container_of(chan, struct chan, c), o);
}

/* ---- sending ---- */

/* Does the room hold what the reply puts into it? */
static bool
fits(const struct offer *far, const struct net_tx *tx)
{
	for (unsigned i = 0; i < tx->iov_n; i++)
		if ((uint64_t)tx->dst_off[i] + tx->iov[i].iov_len > far->room_len)
			return false;
	return far->room_n > 0;
}

static void
post_offer(struct chan *c, struct net_tx *tx, struct item *head, bool room, uint64_t start)
{
	struct offer *o = make_offer(c, tx, head->stream, room);

	head->offer = o;
	o->refs++;
	o->head = head;
	head->left_ns = start + sim_net_delay(sim_offer_net(c->mine)) / 4;
	if (head->left_ns > head->at_ns)
		head->left_ns = head->at_ns;
	tx->pre = TX_OFFER;
	tx->impl = o;
}

static void
post_body(struct chan *c, struct net_tx *tx, uint64_t start)
{
	struct item *body = sim_chan_body(c, tx, start);
	struct offer *o = tx->impl;

	stat_add(&sim_offer_net(c->mine)->stat.streamed, 1);
	if (o == NULL) {
		tx->impl = body;
		return;
	}
	body->offer = o;
	o->refs++;
	o->body = body;
}

/* The answer is on its way: nothing else has to be told. */
static void
answer(struct chan *c, struct offer *far, struct item *head)
{
	if (head != NULL) {
		head->answers = far;
		far->refs++;
	}
	far->told = true;
	far->far_open = false;
	sim_offer_check(c, far);
}

bool
sim_offer_send(struct chan *c, struct net_tx *tx, uint64_t start)
{
	struct offer *far = (struct offer *)tx->far;
	bool reply = tx->dst_off != NULL, known = tx->bulk_len > 0 &&
	    sim_card_knows(c->card, tx->iov, tx->iov_n);
	bool room = !reply && tx->room_n > 0 &&
	    sim_card_knows(c->card, tx->room, tx->room_n);
	bool writes = reply && known && far != NULL && fits(far, tx);
	bool streams = tx->bulk_len > 0 && !writes && (reply || !known);
	bool offers = room || (known && !reply);
	struct item *head = NULL;

	if (far != NULL && far->revoked) {
		sim_offer_far_drop(&c->c, tx->far);
		return true;
	}
	if (tx->bulk_len > 0 || offers)
		list_push_back(&c->txs, &tx->node);
	if (writes || streams) {
		if (c->c.out_bytes == 0)
			c->c.tx_since_ns = clock_now(c->card->clock);
		c->c.out_bytes += tx->bulk_len;
	}
	if (!sim_offer_gone(c->mine)) {
		if (c->card->net->watch != NULL)
			c->card->net->watch(c->card->net->watch_ctx, c->mine->node);
		if (writes)
			sim_verbs_post_write(c, tx, far, start);
		head = sim_chan_head(c, tx, start);
		head->stream = streams;
		if (writes) {
			head->tx = tx;
			tx->pre = TX_WRITE;
		}
		if (offers)
			post_offer(c, tx, head, room, start);
		if (streams)
			post_body(c, tx, start);
		sim_chan_sent(c->mine);
	}
	if (far != NULL)
		answer(c, far, head);
	return tx->bulk_len == 0 && !offers;
}

static int
unsend_offer(struct chan *c, struct offer *o)
{
	if (o->head == NULL || sim_net_now(c->card->net) >= o->head->left_ns) {
		stat_add(&c->card->net->stat.held, 1);
		return -EBUSY;		/* the peer may touch it, now or later */
	}
	if (o->body != NULL) {
		sim_pipe_moved(c->mine, o->tx->bulk_len);
		sim_pipe_free_item(o->body);
	}
	sim_pipe_free_item(o->head);
	(void)sim_offer_end(o);
	stat_add(&c->card->net->stat.withdrawn, 1);
	return 0;
}

static int
unsend_body(struct chan *c, struct item *body)
{
	struct item *head = list_entry(body->node.prev, struct item, node);

	if (sim_net_now(c->card->net) >= body->start_ns ||
	    body->node.prev == &c->mine->out || head->kind != HEAD)
		return -EBUSY;
	sim_pipe_moved(c->mine, body->bulk_len);
	sim_pipe_free_item(head);
	sim_pipe_free_item(body);
	return 0;
}

int
sim_offer_unsend(struct chan *c, struct net_tx *tx)
{
	int rc = 0;

	if (tx->pre == TX_WRITE)
		rc = -EBUSY;
	else if (tx->impl != NULL && tx->done == 0)
		rc = tx->pre == TX_OFFER ? unsend_offer(c, tx->impl) :
		    unsend_body(c, tx->impl);
	if (rc != 0)
		return rc;
	tx->impl = NULL;
	list_remove(&tx->node);
	sim_pipe_plan(c->mine);
	return 0;
}

void
sim_net_stats(struct sim_net *n, struct stat_registry *r)
{
	stat_attach(r, &n->stat_set, "sim_net", "", sim_net_stat_rows, &n->stat);
}
