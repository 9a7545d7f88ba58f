/* SPDX-License-Identifier: MIT */
/* rdma_chan.c - the life of a channel.
 *
 *   set up --adopted--> open --closed--> lingering --last words have arrived--> gone
 *                          \------------------------- nothing to say, or broken --/
 *
 * The TCP connection it began on stays, silent: its end is the end of the peer's process. */
#include "net/rdma_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "conf/err.h"

#define LINGER_MS	1000u

void
net_rdma_hold(struct rdma_chan *c)
{
	c->refs++;
	c->r->held++;
}

void
net_rdma_put(struct rdma_chan *c)
{
	struct rdma *r = c->r;

	if (--c->refs == 0) {
		c->dev->users--;
		net_rdma_drop_dead(c->dev);
		free(c);
	}
	net_rdma_release(r);
}

static void work(struct clock_defer *d);

void
net_rdma_mark(struct rdma_chan *c)
{
	if (!c->adopted || c->closed || c->marked)
		return;
	c->marked = true;
	list_push_back(&c->r->dirty, &c->dirty);
	clock_defer(c->r->clock, &c->r->work, work);
}

void
net_rdma_fail(struct rdma_chan *c, int rc)
{
	if (c->failed == 0)
		c->failed = rc;
	net_rdma_mark(c);
}

void
net_rdma_count(struct rdma_chan *c, int by)
{
	struct rdma_port *p = c->port;

	p->chans_n += (unsigned)by;
	if (p->load != NULL)
		atomic_fetch_add(p->load, (uint32_t)by);
	stat_set(&p->stat.connections, p->chans_n);
	stat_set(&p->stat.credits, p->stat.credits + c->credit.ours * (uint64_t)by);
}

/* An erring queue pair takes no message any more; those it has taken are in the completion
 * queue then, and are saved before the driver throws out what is of this queue pair, along
 * with receives that others were promised. */
void
net_rdma_stop(struct rdma_chan *c)
{
	struct rdma_dev *d = c->dev;
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_ERR };
	int rc;

	net_rdma_unpost(c);
	list_remove(&c->starved);
	if (c->qp == NULL)
		return;
	ibv_modify_qp(c->qp, &a, IBV_QP_STATE);
	net_rdma_save(c);
	map_del(&d->chans, c->qp->qp_num);
	/* It fails only with a device that has been taken out. */
	if ((rc = ibv_destroy_qp(c->qp)) != 0) {
		net_rdma_say(c->r, "cannot destroy a queue pair", d->name, -rc);
		net_rdma_dev_dies(d);
	}
	c->qp = NULL;
	net_rdma_recvs_end(c);
	net_rdma_iw_end(c);
	net_rdma_unreserve(d, c->credit.ours, c->cq);
	net_rdma_count(c, -1);
	/* Its WRs end with it, unseen. */
	for (; c->wr_tail != c->wr_head; c->wr_tail++) {
		struct wr *w = &c->wrs[c->wr_tail % WRS];

		if (w->slot != NULL)
			net_rdma_slot_free(d, w->slot);
	}
}

static void
close_tcp(struct rdma_chan *c)
{
	struct list none;

	if (c->tcp == NULL)
		return;
	list_init(&none);
	c->tcp->ops->close(c->tcp, &none, false);
	c->tcp = NULL;
}

void
net_rdma_linger_ends(struct rdma_chan *c)
{
	clock_timer_stop(c->r->clock, &c->linger_end);
	list_remove(&c->linger);
	net_rdma_stop(c);
	close_tcp(c);
	net_rdma_put(c);
}

static void
linger_is_late(struct clock_timer *t)
{
	net_rdma_linger_ends(container_of(t, struct rdma_chan, linger_end));
}

/* Post what completes when the peer's device has all that was posted before: an empty WRITE;
 * on iWARP that says nothing but that the bytes have left, and an empty READ is needed. */
static bool
post_last(struct rdma_chan *c)
{
	struct slot *slot = c->dev->iwarp ? net_rdma_slot(c->dev) : NULL;
	struct ibv_sge sge = { .addr = slot != NULL ? (uintptr_t)slot->p : 0,
	    .lkey = slot != NULL ? slot->slab->mr->lkey : 0 };
	struct ibv_send_wr wr = { .opcode = IBV_WR_RDMA_WRITE,
	    .send_flags = IBV_SEND_SIGNALED };

	if (c->dev->iwarp) {
		if (slot == NULL)
			return false;
		wr.opcode = IBV_WR_RDMA_READ;
		wr.sg_list = &sge;
		wr.num_sge = 1;
	}
	if (net_rdma_post(c, &wr, &(struct wr){ .slot = slot }) == 0)
		return true;
	if (slot != NULL)
		net_rdma_slot_free(c->dev, slot);
	return false;
}

/* Let the last words arrive.  The TCP connection stays till then, for its end ends all at the
 * peer. */
static bool
linger_on(struct rdma_chan *c)
{
	if (c->failed != 0 || c->qp == NULL || c->wr_head == c->wr_tail ||
	    !net_rdma_wr_room(c) || !post_last(c) || net_rdma_flush(c) != 0)
		return false;
	c->last_wr = c->wr_head;
	list_push_back(&c->r->lingering, &c->linger);
	net_rdma_hold(c);
	clock_timer_start(c->r->clock, &c->linger_end,
	    clock_now(c->r->clock) + LINGER_MS * NS_PER_MS, linger_is_late);
	return true;
}

static void
chan_close(struct net_chan *chan, struct list *unsent, bool linger)
{
	struct rdma_chan *c = net_rdma_of(chan);
	bool memory = net_rdma_out_close(c, unsent);

	assert(!c->closed);
	memory |= net_rdma_in_close(c);
	c->closed = true;
	list_remove(&c->dirty);
	c->r->open_n--;
	if (memory || !linger || !linger_on(c)) {
		net_rdma_stop(c);
		close_tcp(c);
	}
	net_rdma_put(c);
}

static void
chan_pause(struct net_chan *chan, bool paused)
{
	struct rdma_chan *c = net_rdma_of(chan);

	c->paused = paused;
	if (!paused)
		net_rdma_mark(c);
}

static const struct net_chan_ops chan_ops = {
	.send = net_rdma_send, .unsend = net_rdma_unsend,
	.revoke = net_rdma_revoke, .pull = net_rdma_pull,
	.drop = net_rdma_drop, .far_drop = net_rdma_far_drop, .pause = chan_pause,
	.close = chan_close
};

/* What is due to a channel, at the turn's end. */
static void
work_on(struct rdma_chan *c)
{
	int rc;

	net_rdma_hold(c);
	c->working = true;
	if (!c->closed)
		net_rdma_resume(c);
	if (!c->closed && c->failed == 0)
		net_rdma_pump(c);
	c->working = false;
	if (!c->closed && c->failed == 0 && (rc = net_rdma_flush(c)) != 0)
		net_rdma_fail(c, rc);
	if (!c->closed && c->failed != 0) {
		net_rdma_stop(c);
		c->c.up->closed(&c->c, c->failed);
	}
	net_rdma_put(c);
}

static void
work(struct clock_defer *defer)
{
	struct rdma *r = container_of(defer, struct rdma, work);
	struct list now;

	r->held++;
	list_init(&now);
	list_splice_back(&now, &r->dirty);
	for (struct list *l; (l = list_pop_front(&now)) != NULL;) {
		struct rdma_chan *c = list_entry(l, struct rdma_chan, dirty);

		c->marked = false;
		work_on(c);
	}
	net_rdma_release(r);
}

/* ---- the silent TCP connection ---- */

static void
tcp_frame(struct net_chan *tcp, const uint8_t *head, uint32_t n, struct net_rx *rx,
    struct net_far *far)
{
	(void)head;
	(void)n;
	(void)rx;			/* bulk_max is 0: there is none */
	(void)far;
	net_rdma_fail(tcp->owner, ERR_BAD_MESSAGE);
}

static void
tcp_closed(struct net_chan *tcp, int rc)
{
	struct rdma_chan *c = tcp->owner;

	net_rdma_hold(c);
	close_tcp(c);
	if (!list_empty(&c->linger)) {
		net_rdma_linger_ends(c);
	} else {
		/* What it sent before that has arrived. */
		net_rdma_poll(c->dev);
		net_rdma_fail(c, rc == ERR_BAD_MESSAGE ? rc : -ECONNRESET);
	}
	net_rdma_put(c);
}

void
net_rdma_ended(struct rdma_chan *c)
{
	net_rdma_hold(c);
	if (!list_empty(&c->linger)) {
		net_rdma_linger_ends(c);
	} else {
		net_rdma_poll(c->dev);
		net_rdma_fail(c, -ECONNRESET);
	}
	net_rdma_put(c);
}

static void
tcp_nothing(struct net_chan *tcp)
{
	(void)tcp;
}

static void
tcp_sent(struct net_chan *tcp, struct net_tx *tx)
{
	(void)tcp;
	(void)tx;
}

static const struct net_chan_up tcp_up = {
	.connected = tcp_nothing, .frame = tcp_frame, .sent = tcp_sent,
	.drained = tcp_nothing, .closed = tcp_closed
};

void
net_rdma_chan_init(struct rdma_chan *c, struct rdma *r, struct rdma_port *port)
{
	c->r = r;
	c->port = port;
	c->dev = port->dev;
	c->dev->users++;
	list_init(&c->dirty);
	list_init(&c->linger);
	list_init(&c->starved);
	list_init(&c->recvs);
	list_init(&c->held);
	list_init(&c->offers);
	list_init(&c->reads);
	list_init(&c->txs);
	list_init(&c->posted);
	list_init(&c->done);
	list_init(&c->revokes);
	map_init(&c->exposed);
	c->next_number = 1;
	net_rdma_hold(c);
}

void
net_rdma_adopt(struct rdma_chan *c, struct net_chan *tcp)
{
	struct rdma *r = c->r;

	assert(c->failed != 0 || c->qp != NULL);
	c->c.ops = &chan_ops;
	c->c.peer = tcp->peer;
	c->c.rx_ns = clock_now(r->clock);
	c->c.one_sided = true;
	c->tcp = tcp;
	tcp->up = &tcp_up;
	tcp->owner = c;
	tcp->bulk_max = 0;
	r->open_n++;
	c->adopted = true;
	if (c->failed != 0)		/* meanwhile */
		net_rdma_mark(c);
}
