/* SPDX-License-Identifier: MIT */
/* rdma_in.c - frames in, and the payload behind them that is copied out of messages of the
 * stream.
 *
 * 1. What comes behind a payload in the stream, or while paused, waits in c->held; the
 *    peer gets no credit for it, so that is bounded by what it was promised.
 * 2. Everything in a record is checked before it is used; a bad one breaks the channel. */
#include "net/rdma_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

static struct offer *
offer_of(struct net_rx *rx)
{
	return container_of(rx, struct offer, rx);
}

/* ---- payload in the stream ---- */

static void
stream_ended(struct rdma_chan *c)
{
	struct offer *o = c->stream;

	c->stream = NULL;
	c->rx_state = RX_NONE;
	net_rdma_note_rx(c);
	free(c->dst);
	c->dst = NULL;
	o->rx_open = false;
	net_rdma_offer_check(o);
	net_rdma_mark(c);		/* what is held may go on */
}

/* @p continues the payload of the stream.  False: longer than that. */
static bool
take_stream(struct rdma_chan *c, const uint8_t *p, uint32_t n)
{
	if (n > c->rx_left || n == 0)
		return false;
	c->rx_left -= n;
	stat_add(&c->port->stat.copied_bytes, n);
	while (c->rx_state == RX_PULL && n > 0) {
		struct iovec *dst = &c->dst[c->dst_at];
		size_t part = dst->iov_len - c->dst_off;

		if (part > n)
			part = n;
		memcpy((uint8_t *)dst->iov_base + c->dst_off, p, part);
		p += part;
		n -= (uint32_t)part;
		if ((c->dst_off += part) == dst->iov_len) {
			c->dst_at++;
			c->dst_off = 0;
		}
	}
	return true;
}

static void
freed(struct rdma_chan *c, struct slot *s)
{
	net_rdma_repost(c->dev, s);
	net_credit_freed(&c->credit);
}

/* Take what is held of the stream.  1: all of the payload; 0: more must come;
 * ERR_BAD_MESSAGE. */
static int
take_held_stream(struct rdma_chan *c)
{
	while (c->rx_left > 0 && !list_empty(&c->held)) {
		struct slot *s = list_entry(list_pop_front(&c->held), struct slot, node);
		bool good = s->p[2] == WORD_BULK &&
		    take_stream(c, s->p + PREFIX, s->len - PREFIX);

		freed(c, s);
		if (!good)
			return ERR_BAD_MESSAGE;
	}
	return c->rx_left == 0;
}

/* ---- what the owner calls ---- */

int
net_rdma_pull(struct net_chan *chan, struct net_rx *rx, const struct iovec *iov,
    unsigned n)
{
	struct rdma_chan *c = net_rdma_of(chan);
	struct offer *o = offer_of(rx);
	struct iovec *dst;
	int rc;

	if (o != c->stream)
		return net_rdma_read(c, o, iov, n);
	if ((dst = malloc(n * sizeof(*dst))) == NULL) {
		net_rdma_fail(c, -ENOMEM);
		return 0;
	}
	memcpy(dst, iov, n * sizeof(*dst));
	chan->rx_since_ns = clock_now(c->r->clock);
	c->dst = dst;
	c->dst_n = n;
	c->dst_at = 0;
	c->dst_off = 0;
	c->rx_state = RX_PULL;
	if ((rc = take_held_stream(c)) == 1)
		stream_ended(c);
	else if (rc != 0)
		net_rdma_fail(c, rc);
	net_rdma_mark(c);		/* credits */
	return rc == 1;
}

void
net_rdma_drop(struct net_chan *chan, struct net_rx *rx)
{
	struct rdma_chan *c = net_rdma_of(chan);
	struct offer *o = offer_of(rx);

	if (o != c->stream) {
		net_rdma_read_drop(c, o);
		return;
	}
	c->rx_state = RX_DROP;
	free(c->dst);
	c->dst = NULL;
	net_rdma_note_rx(c);
	net_rdma_mark(c);
}

/* ---- records ---- */

static void
take_frame(struct rdma_chan *c, const struct record *r)
{
	struct offer *o = NULL;

	if (r->answers != 0 && !net_rdma_answered(c, r->answers)) {
		net_rdma_fail(c, ERR_BAD_MESSAGE);
		return;
	}
	if (c->closed)
		return;
	if (r->number != 0 || (r->flags & RECORD_STREAM)) {
		if ((o = net_rdma_offer_new(c, r)) == NULL)
			return;
		if (r->flags & RECORD_STREAM) {
			c->stream = o;
			c->rx_left = r->bulk_len;
			c->rx_state = RX_ASKED;
		}
	}
	c->c.up->frame(&c->c, r->head, r->head_len,
	    o != NULL && o->rx_open ? &o->rx : NULL,
	    o != NULL && o->far_open ? (struct net_far *)o : NULL);
}

static void
take_record(struct rdma_chan *c, const uint8_t *p, uint32_t n)
{
	struct record r;

	if (!net_rdma_record_get(p, n, c->c.head_max, c->c.bulk_max, &r) ||
	    r.kind != RECORD_FRAME)
		net_rdma_fail(c, ERR_BAD_MESSAGE);
	else
		take_frame(c, &r);
}

/* The longest record: rows, and a head of what the owner takes. */
static bool
record_fits(const struct rdma_chan *c, uint32_t n)
{
	return n >= RECORD && n <= RECORD + 2 * ROWS_MAX * ROW + c->c.head_max;
}

/* A record that came in parts grows. */
static void
take_part(struct rdma_chan *c, const uint8_t *p, uint32_t n)
{
	if (c->record == NULL || n == 0 || n > c->record_len - c->record_at) {
		net_rdma_fail(c, ERR_BAD_MESSAGE);
		return;
	}
	memcpy(c->record + c->record_at, p, n);
	if ((c->record_at += n) == c->record_len) {
		uint8_t *record = c->record;

		c->record = NULL;
		net_rdma_note_rx(c);
		take_record(c, record, c->record_len);
		free(record);
	}
}

static void
take_first(struct rdma_chan *c, const uint8_t *p, uint32_t n, uint32_t record_len)
{
	if (c->record != NULL || !record_fits(c, record_len) || n > record_len) {
		net_rdma_fail(c, ERR_BAD_MESSAGE);
		return;
	}
	if (n == record_len) {
		take_record(c, p, n);
		return;
	}
	if ((c->record = malloc(record_len)) == NULL) {
		net_rdma_fail(c, -ENOMEM);
		return;
	}
	c->record_len = record_len;
	c->record_at = 0;
	c->c.rx_since_ns = clock_now(c->r->clock);
	take_part(c, p, n);
}

/* A message of the stream that nothing stands before. */
static void
take_bulk(struct rdma_chan *c, const uint8_t *p, uint32_t n)
{
	bool pulled = c->rx_state == RX_PULL, ours;
	struct offer *o;

	if (c->stream == NULL || !take_stream(c, p, n)) {
		net_rdma_fail(c, ERR_BAD_MESSAGE);
		return;
	}
	if (c->rx_left > 0)
		return;
	o = c->stream;
	/* Nobody else frees one that only had a payload, and the owner looks at it. */
	ours = pulled && !o->far_open && o->number == 0;
	if (ours) {
		list_remove(&o->node);
		o->far_open = true;
	}
	stream_ended(c);
	if (pulled)
		c->c.up->pulled(&c->c, &o->rx);
	if (ours)
		free(o);
}

/* ---- messages ---- */

static void
take_tell(struct rdma_chan *c, const uint8_t *p, uint32_t n)
{
	struct record r;

	if (!net_rdma_record_get(p, n, c->c.head_max, 0, &r) || r.kind == RECORD_FRAME)
		net_rdma_fail(c, ERR_BAD_MESSAGE);
	else if (r.kind == RECORD_REVOKE)
		net_rdma_take_revoke(c, r.number);
	else if (!net_rdma_answered(c, r.answers))
		net_rdma_fail(c, ERR_BAD_MESSAGE);
}

static void
take_word(struct rdma_chan *c, const struct slot *s)
{
	const uint8_t *p = s->p + PREFIX;
	uint32_t n = s->len - PREFIX;
	struct word_head w;

	net_rdma_word_get(s->p, s->len, &w);	/* again; it was sound */
	if (c->stream != NULL && (w.kind == WORD_FIRST || w.kind == WORD_NEXT)) {
		net_rdma_fail(c, ERR_BAD_MESSAGE);	/* within a payload */
		return;
	}
	switch ((enum word_kind)w.kind) {
	case WORD_FIRST:
		take_first(c, p, n, w.record_len);
		return;
	case WORD_NEXT:
		take_part(c, p, n);
		return;
	case WORD_BULK:
		take_bulk(c, p, n);
		return;
	case WORD_TELL:
		take_tell(c, p, n);
		return;
	case WORD_CREDIT:
		return;
	}
}

/* A payload that is being received goes on while paused. */
static bool
must_wait(const struct rdma_chan *c)
{
	return c->rx_state == RX_ASKED || (c->paused && c->rx_state == RX_NONE);
}

/* What answers a message that came alone leaves before anything else is done, unless more
 * goes with it at the turn's end. */
static void
answer_now(struct rdma_chan *c)
{
	int rc;

	if (c->batch != NULL && c->dev->stash_n == 1 && c->failed == 0 &&
	    list_empty(&c->txs) && (rc = net_rdma_flush(c)) != 0)
		net_rdma_fail(c, rc);
}

void
net_rdma_received(struct rdma_chan *c, struct slot *s)
{
	struct word_head w;

	if (c->failed != 0 || !net_rdma_word_get(s->p, s->len, &w) ||
	    !net_credit_came(&c->credit) || !net_credit_took(&c->credit, w.credits)) {
		net_rdma_repost(c->dev, s);
		if (c->failed == 0)
			net_rdma_fail(c, ERR_BAD_MESSAGE);
		return;
	}
	if (w.kind != WORD_CREDIT && w.kind != WORD_TELL &&
	    (must_wait(c) || !list_empty(&c->held))) {
		list_push_back(&c->held, &s->node);
		return;
	}
	take_word(c, s);
	answer_now(c);
	freed(c, s);
}

void
net_rdma_resume(struct rdma_chan *c)
{
	while (!c->closed && c->failed == 0 && !list_empty(&c->held) && !must_wait(c)) {
		struct slot *s = list_entry(list_pop_front(&c->held), struct slot, node);

		take_word(c, s);
		freed(c, s);
	}
}

bool
net_rdma_in_close(struct rdma_chan *c)
{
	bool memory = !list_empty(&c->reads) || c->rx_state == RX_PULL;

	net_rdma_offers_close(c);
	while (!list_empty(&c->held))
		net_rdma_repost(c->dev, list_entry(list_pop_front(&c->held),
		    struct slot, node));
	free(c->dst);
	free(c->record);
	c->dst = NULL;
	c->record = NULL;
	return memory;
}
