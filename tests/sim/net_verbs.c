/* SPDX-License-Identifier: MIT */
/* net_verbs.c - READs and WRITEs of what the other end of a stream offers.
 *
 * 1. A READ's bytes leave the owner's memory at one moment and are in place at a later one.
 *    A WRITE's are the sender's memory until they are in place.
 * 2. Who has posted hears of it later than it takes effect, or never.
 * 3. Devices do not wait for nodes: a paused one's memory changes. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "tests/sim/net_impl.h"

#define PARTS_OF	8u		/* one in so many READs takes several steps */
#define LATE_OF		32u		/* one in so many completions may be late */
#define WHOLE		UINT32_MAX

/* A part of a WRITE. */
struct piece {
	uint32_t len, to;
};

static struct end *
other(struct end *e)
{
	return &e->pipe->ends[e == &e->pipe->ends[0]];
}

/* Between @off and @off + @n of @v, from or to @p. */
static void
move(const struct iovec *v, uint64_t off, uint8_t *p, uint32_t n, bool from)
{
	for (; n > 0; v++) {
		uint8_t *at = (uint8_t *)v->iov_base + off;
		size_t part = v->iov_len - off;

		if (off >= v->iov_len) {
			off -= v->iov_len;
			continue;
		}
		if (part > n)
			part = n;
		if (from)
			memcpy(p, at, part);
		else
			memcpy(at, p, part);
		p += part;
		n -= (uint32_t)part;
		off = 0;
	}
}

/* @e's device gives up its queue pair. */
static void
stop(struct end *e)
{
	if (e->stopped)
		return;
	e->stopped = true;
	sim_pipe_free_items(&e->acks);
	if (e->chan == NULL)
		return;
	list_for_each(it, &e->chan->offers)
		clock_timer_stop(sim_offer_net(e)->world,
		    &list_entry(it, struct offer, node)->timer);
	sim_pipe_cut_unleft(e);
}

/* A READ or WRITE of @e has ended in error. */
static void
failed(struct end *e)
{
	static const int how[] = { -ECONNRESET, -EHOSTUNREACH, ERR_BAD_MESSAGE };
	unsigned k = (unsigned)rand_below(&sim_offer_net(e)->rand, 3);

	stop(e);
	if (how[k] == ERR_BAD_MESSAGE)	/* a remote access error is one for both */
		stop(other(e));
	sim_pipe_doom(e, how[k], sim_net_delay(sim_offer_net(e)) / 4);
	sim_pipe_break(e->pipe, -ECONNRESET);
}

void
sim_verbs_lost(struct end *e)
{
	stop(e);
	sim_pipe_break(e->pipe, -ECONNRESET);
}

/* How many bytes an operation places before it fails. */
static uint32_t
fate(struct end *e, uint32_t n)
{
	uint32_t ppm = sim_offer_net(e)->faults.op_ppm;

	return ppm > 0 && rand_chance(&sim_offer_net(e)->rand, ppm, 1000000) ?
	    (uint32_t)rand_below(&sim_offer_net(e)->rand, n + 1) : WHOLE;
}

/* How long after its effect a completion is seen. */
static uint64_t
lateness(struct end *e)
{
	uint32_t us = sim_offer_net(e)->faults.done_us;

	return us > 0 && sim_offer_chance(e, LATE_OF) ?
	    rand_below(&sim_offer_net(e)->rand, us * NS_PER_US) : 0;
}

/* ---- WRITEs ---- */

void
sim_verbs_post_write(struct chan *c, struct net_tx *tx, struct offer *far, uint64_t start)
{
	struct end *e = c->mine;
	struct sim_net *n = sim_offer_net(e);
	struct item *i = sim_pipe_item(WRITE, tx->iov_n * sizeof(struct piece));
	uint64_t took = 0;

	if (n->faults.bytes_per_us > 0)
		took = tx->bulk_len / n->faults.bytes_per_us * NS_PER_US;
	for (unsigned k = 0; k < tx->iov_n; k++) {
		struct piece p = { (uint32_t)tx->iov[k].iov_len, tx->dst_off[k] };

		memcpy(i->bytes + k * sizeof(p), &p, sizeof(p));
	}
	i->tx = tx;
	i->offer = far;
	far->refs++;
	i->bulk_len = tx->bulk_len;
	i->fails_at = fate(e, tx->bulk_len);
	i->start_ns = start + sim_net_delay(n) / 4;
	i->left_ns = i->start_ns + took;
	i->at_ns = i->left_ns + sim_net_frame_delay(n, e, c->other);
	if (i->at_ns < e->arrives_ns)
		i->at_ns = e->arrives_ns;
	list_push_back(&e->out, &i->node);
	e->arrives_ns = i->at_ns;
	e->leaves_ns = i->left_ns;
}

/* The first @n bytes. */
static void
place(const struct item *i, uint32_t n)
{
	const struct offer *o = i->offer;
	const uint8_t *from = i->copy;
	struct piece p;

	for (unsigned k = 0; n > 0; k++) {
		memcpy(&p, i->bytes + k * sizeof(p), sizeof(p));
		if (p.len > n)
			p.len = n;
		move(o->rows + o->iov_n, p.to, (uint8_t *)(uintptr_t)(i->copy != NULL ?
		    from : i->tx->iov[k].iov_base), p.len, false);
		from += p.len;
		n -= p.len;
	}
}

bool
sim_verbs_write(struct end *e, struct item *i)
{
	struct sim_net_stat *s = &sim_offer_net(e)->stat;
	bool whole = i->fails_at == WHOLE, orphan = i->copy != NULL;

	if (!sim_offer_allowed(i->offer)) {
		stat_add(&s->writes_refused, 1);
		sim_pipe_break(e->pipe, -ECONNRESET);
		sim_pipe_cut(e, 0);
		return false;
	}
	place(i, whole ? i->bulk_len : i->fails_at);
	stat_add(&s->writes, whole);
	stat_add(&s->writes_orphaned, orphan);
	stat_add(&s->writes_broken, e->pipe->broken);
	if (e->chan != NULL)
		sim_pipe_moved(e, i->bulk_len);
	if (whole || orphan) {		/* of one that was torn, the rest was never sent */
		sim_pipe_free_item(i);
		return true;
	}
	stat_add(&s->write_errors, 1);
	sim_pipe_cut(e, 0);		/* nothing gets past it */
	failed(e);
	return false;
}

void
sim_verbs_ack(struct end *e, struct item *head)
{
	struct item *ack = sim_pipe_item(ACK, 0);
	uint64_t late = lateness(e);

	stat_add(&sim_offer_net(e)->stat.writes_late, late > 0);
	ack->tx = head->tx;
	head->tx = NULL;
	ack->at_ns = sim_net_now(sim_offer_net(e)) + sim_net_delay(sim_offer_net(e)) + late;
	if (ack->at_ns < e->acked_ns)
		ack->at_ns = e->acked_ns;
	e->acked_ns = ack->at_ns;
	list_push_back(&e->acks, &ack->node);
}

/* ---- READs ---- */

/* The way there and back.  True: it is clear; else it goes on later, or never. */
static bool
clear(struct offer *o, uint64_t now)
{
	struct sim_net *n = sim_offer_net(o->of);
	enum sim_net_path there = sim_net_path_of(n, o->user->node, o->of->node);
	enum sim_net_path back = sim_net_path_of(n, o->of->node, o->user->node);

	if (there == SIM_NET_CLEAR && back == SIM_NET_CLEAR) {
		o->blocked_ns = 0;
		return true;
	}
	if (there == SIM_NET_RESET || back == SIM_NET_RESET) {
		sim_pipe_break(o->of->pipe, -ECONNRESET);
		return false;
	}
	if (o->blocked_ns == 0)
		o->blocked_ns = now;
	if (now - o->blocked_ns > VERBS_DEAD_NS)
		sim_pipe_break(o->of->pipe, -EHOSTUNREACH);
	else
		clock_timer_start(n->world, &o->timer, now + sim_net_between(n,
		    RESEND_MIN_NS, RESEND_MAX_NS), o->timer.fn);
	return false;
}

static void
read_is_seen(struct clock_timer *t)
{
	struct offer *o = container_of(t, struct offer, timer);

	list_remove(&o->node);
	list_push_back(&o->user->chan->got, &o->node);
	sim_pipe_wake(o->user);
}

static void
read_is_in_place(struct offer *o, uint64_t now)
{
	uint64_t late = lateness(o->user);

	stat_add(&sim_offer_net(o->of)->stat.reads, 1);
	stat_add(&sim_offer_net(o->of)->stat.reads_late, late > 0);
	if (late == 0)
		read_is_seen(&o->timer);
	else
		clock_timer_start(sim_offer_net(o->of)->world, &o->timer, now + late, read_is_seen);
}

/* The next bytes leave their owner. */
static void
read_some(struct offer *o, uint64_t now)
{
	struct sim_net *n = sim_offer_net(o->of);
	uint32_t left = o->bulk_len - o->at;
	uint64_t took = 0;

	o->wire_n = sim_offer_chance(o->user, PARTS_OF) ?
	    1 + (uint32_t)rand_below(&n->rand, left) : left;
	if (o->fails_at - o->at < o->wire_n)
		o->wire_n = o->fails_at - o->at;
	move(o->rows, o->at, o->wire, o->wire_n, true);
	if (n->faults.bytes_per_us > 0)
		took = o->wire_n / n->faults.bytes_per_us * NS_PER_US;
	clock_timer_start(n->world, &o->timer, now + took +
	    sim_net_frame_delay(n, o->of, o->user), o->timer.fn);
}

static void
read_goes_on(struct clock_timer *t)
{
	struct offer *o = container_of(t, struct offer, timer);
	struct sim_net *n = sim_offer_net(o->of);
	uint64_t now = sim_net_now(n);

	if (!clear(o, now))
		return;
	move(o->dst, o->at, o->wire, o->wire_n, false);
	o->at += o->wire_n;
	if (o->wire_n > 0 && o->revoked && o->at < o->bulk_len)
		o->lost = true;		/* no other READ begins */
	o->wire_n = 0;
	if (o->lost) {
		read_is_seen(t);
	} else if (o->at == o->fails_at) {
		stat_add(&n->stat.read_errors, 1);
		failed(o->user);
	} else if (o->at == o->bulk_len) {
		read_is_in_place(o, now);
	} else if (!sim_offer_allowed(o)) {
		stat_add(&n->stat.reads_refused, 1);
		/* There is nobody to say no: it gives up after a while. */
		sim_pipe_doom(o->user, -EHOSTUNREACH, VERBS_DEAD_NS);
	} else {
		read_some(o, now);
	}
}

int
sim_verbs_pull(struct chan *c, struct net_rx *rx, const struct iovec *iov, unsigned n)
{
	struct offer *o = sim_offer_of(rx);

	if (o->revoked) {
		o->rx_open = false;
		sim_offer_check(c, o);
		return -ECONNRESET;
	}
	assert(o->rx_open && !o->reading);
	o->reading = true;
	c->reading++;
	sim_chan_note_rx(c);
	o->dst = sim_net_must(malloc(n * sizeof(*iov)));
	memcpy(o->dst, iov, n * sizeof(*iov));
	o->wire = sim_net_must(malloc(o->bulk_len));
	o->fails_at = fate(c->mine, o->bulk_len);
	if (!sim_offer_gone(c->mine))
		clock_timer_start(c->card->net->world, &o->timer,
		    sim_net_now(c->card->net) +
		    sim_net_frame_delay(c->card->net, c->mine, c->other), read_goes_on);
	return 0;
}

/* @o is not being read any more. */
static void
end_read(struct chan *c, struct offer *o)
{
	clock_timer_stop(c->card->net->world, &o->timer);
	if (o->reading)
		c->reading--;
	o->reading = o->rx_open = false;
	list_remove(&o->node);
	list_push_back(&c->offers, &o->node);
	sim_chan_note_rx(c);
}

void
sim_verbs_pulled(struct chan *c)
{
	struct offer *o = list_entry(c->got.next, struct offer, node);

	end_read(c, o);
	if (o->revoked)
		sim_offer_check(c, o);
	/* Its far is still open, so it is there; the upcall may answer, and free it. */
	if (o->lost)
		c->c.up->lost(&c->c, &o->rx);
	else
		c->c.up->pulled(&c->c, &o->rx);
}

void
sim_verbs_drop(struct chan *c, struct net_rx *rx)
{
	struct offer *o = sim_offer_of(rx);

	if (o->reading) {
		/* It cannot be taken back, the memory must be: the stream goes. */
		stat_add(&c->card->net->stat.reads_dropped, 1);
		stop(c->mine);
		sim_pipe_doom(c->mine, -ECONNABORTED, 0);
		sim_pipe_break(c->mine->pipe, -ECONNRESET);
	}
	end_read(c, o);
	sim_offer_check(c, o);
}

/* ---- the end ---- */

void
sim_verbs_broke(struct end *e)
{
	unsigned n = 0;

	list_for_each(it, &e->out)
		n++;
	sim_pipe_cut(e, (unsigned)rand_below(&sim_offer_net(e)->rand, n + 1));
	e->flushed = sim_offer_chance(e, 2);
	sim_pipe_plan(e);
}

void
sim_verbs_flush(struct end *e)
{
	if (e->chan == NULL || !sim_offer_chance(e, 2))
		return;
	e->flushed = true;
	stat_add(&sim_offer_net(e)->stat.flushed, !list_empty(&e->inbox));
	sim_pipe_free_items(&e->inbox);
	sim_pipe_free_items(&e->acks);
	list_splice_back(&e->chan->offers, &e->chan->got);
}

/* What is under way does not need its sender's memory any more. */
static void
take_along(struct end *e)
{
	unsigned n = 0;

	list_for_each(it, &e->out) {
		struct item *i = list_entry(it, struct item, node);
		bool torn = i->kind == WRITE && i->tx != NULL && sim_offer_chance(e, 3);

		n++;
		if (i->kind == WRITE && i->tx != NULL) {
			i->copy = sim_net_must(malloc(i->bulk_len));
			move(i->tx->iov, 0, i->copy, i->bulk_len, true);
			i->fails_at = torn ? (uint32_t)rand_below(&sim_offer_net(e)->rand,
			    i->bulk_len) : WHOLE;
		}
		i->tx = NULL;
		if (torn)
			break;
	}
	sim_pipe_cut(e, n);
}

void
sim_verbs_close(struct chan *c)
{
	struct end *e = c->mine;

	sim_pipe_cut_unleft(e);
	take_along(e);
	sim_pipe_free_items(&e->acks);
	list_splice_back(&c->offers, &c->got);
	for (struct list *l; (l = list_pop_front(&c->offers)) != NULL;) {
		struct offer *o = list_entry(l, struct offer, node);

		clock_timer_stop(c->card->net->world, &o->timer);
		stat_add(&c->card->net->stat.reads_lost, o->reading);
		sim_offer_put(o);
	}
	while (!list_empty(&e->exposed))
		(void)sim_offer_end(list_entry(e->exposed.next, struct offer, mine));
}
