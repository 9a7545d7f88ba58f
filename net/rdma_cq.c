/* SPDX-License-Identifier: MIT */
/* rdma_cq.c - completions, and what else a device has to say.
 *
 *   sleeping --event--> polled --found something--> spinning --quiet for a while--> sleeping
 *
 * What comes at any time: a completion of a channel that has gone is nobody's, but its receive
 * serves the others. */
#include "net/rdma_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "conf/err.h"

#define POLL_N		32u
#define POLLS		128u		/* batches in one turn */
#define NOBODY		UINT32_MAX	/* numbers of queue pairs have 24 bits */

/* ---- the stash ---- */

/* Take a batch that has completed in @cq.  How many; <0: the device is no good. */
static int
fetch(struct rdma_dev *d, struct ibv_cq *cq)
{
	int n;

	if (d->stash_cap - d->stash_n < POLL_N) {
		unsigned cap = d->stash_cap == 0 ? 256 : d->stash_cap * 2;
		struct ibv_wc *more = realloc(d->stash, cap * sizeof(*more));

		if (more == NULL)
			return -ENOMEM;		/* receives of others may be lost */
		d->stash = more;
		d->stash_cap = cap;
	}
	n = ibv_poll_cq(cq, POLL_N, d->stash + d->stash_n);
	if (n > 0)
		d->stash_n += (unsigned)n;
	return n;
}

/* Keep what has completed for later: the queue pair it belongs to, or another's. */
static void
fetch_all(struct rdma_dev *d, struct ibv_cq *cq)
{
	int n;

	while ((n = fetch(d, cq)) > 0)
		;
	if (n < 0)
		net_rdma_dev_dies(d);
}

/* Only the receives of @qpn are of use any more; the number may be given to another. */
static void
disown(struct rdma_dev *d, uint32_t qpn)
{
	for (unsigned i = d->stash_at; i < d->stash_n; i++)
		if (d->stash[i].qp_num == qpn)
			d->stash[i].qp_num = NOBODY;
}

static void again(struct clock_timer *t);

void
net_rdma_save(const struct rdma_chan *c)
{
	struct rdma_dev *d = c->dev;

	fetch_all(d, d->cqs[0].cq);
	if (c->cq != &d->cqs[0])
		fetch_all(d, c->cq->cq);
	if (d->stash_n > d->stash_at && !d->dead)
		clock_timer_start(d->r->clock, &d->again, clock_now(d->r->clock), again);
	disown(d, c->qp->qp_num);
}

/* ---- completions ---- */

static int
why(enum ibv_wc_status status)
{
	if (status == IBV_WC_RETRY_EXC_ERR)
		return -EHOSTUNREACH;
	return status == IBV_WC_REM_ACCESS_ERR || status == IBV_WC_REM_INV_REQ_ERR ?
	    ERR_BAD_MESSAGE : -ECONNRESET;
}

static void
broke(struct rdma_chan *c, const struct ibv_wc *wc)
{
	char peer[NET_ADDR_TEXT];

	if (wc->status == IBV_WC_SUCCESS) {	/* before the set-up has ended */
		net_rdma_fail(c, ERR_BAD_MESSAGE);
		return;
	}
	if (!c->adopted || c->failed != 0 || wc->status == IBV_WC_WR_FLUSH_ERR) {
		net_rdma_fail(c, -ECONNRESET);
		return;
	}
	net_addr_text(&c->c.peer, peer);
	log_info(c->r->log, "queue pair broke", "peer=%s device=%s why=\"%s\"", peer,
	    c->dev->name, ibv_wc_status_str(wc->status));
	stat_add(&c->port->stat.errors, 1);
	net_rdma_fail(c, why(wc->status));
}

static void
handle(struct rdma_dev *d, const struct ibv_wc *wc)
{
	struct rdma_chan *c = map_get(&d->chans, wc->qp_num);
	struct slot *s = NULL;

	if (wc->wr_id & RDMA_RECV) {
		s = net_rdma_recv_slot(d, wc->wr_id);
		/* The length is of a message only in these. */
		s->len = wc->opcode == IBV_WC_RECV && wc->byte_len <= SLOT ?
		    wc->byte_len : 0;
	}
	if (c == NULL || !c->adopted || c->closed || wc->status != IBV_WC_SUCCESS) {
		if (s != NULL)
			net_rdma_repost(d, s);
		if (c == NULL)
			return;
		if (!c->closed)
			broke(c, wc);
		else if (wc->status != IBV_WC_SUCCESS ||
		    (s == NULL && (uint32_t)wc->wr_id == c->last_wr))
			net_rdma_linger_ends(c);
		return;
	}
	net_rdma_hold(c);
	if (s != NULL) {
		c->c.rx_ns = clock_now(d->r->clock);
		net_rdma_received(c, s);
	} else {
		net_rdma_completed(c, (uint32_t)wc->wr_id);
	}
	if (!c->closed)
		net_rdma_mark(c);
	net_rdma_put(c);
}

/* Handle all that has been taken.  A channel that goes by that finds what it had completed in the
 * stash, and nowhere else (net_rdma_save(), net_rdma_recvs_end()). */
static void
handle_all(struct rdma_dev *d)
{
	while (d->stash_at < d->stash_n) {
		struct ibv_wc wc = d->stash[d->stash_at++];

		handle(d, &wc);
	}
	d->stash_at = d->stash_n = 0;
}

/* Handle what has completed in @cq.  <0: the device is no good; 1: too much came for one turn,
 * there may be more; else 0. */
static int
poll_one(struct rdma_dev *d, struct ibv_cq *cq, bool *found)
{
	for (unsigned i = 0; i < POLLS && !d->r->closed; i++) {
		int n = fetch(d, cq);

		if (n <= 0)
			return n;
		if (!*found)
			net_spin_came(&d->spin_for);
		*found = true;
		handle_all(d);
		if (n < (int)POLL_N)	/* those were all */
			return 0;
	}
	return 1;
}

bool
net_rdma_poll(struct rdma_dev *d)
{
	struct rdma *r = d->r;
	bool found = d->stash_at < d->stash_n;
	int rc = 0;

	r->held++;
	handle_all(d);
	for (unsigned i = 0; i < d->cqs_n && rc >= 0 && !r->closed; i++) {
		int one = poll_one(d, d->cqs[i].cq, &found);

		rc = one < 0 ? one : rc | one;
	}
	if (rc < 0 && !r->closed)
		net_rdma_dev_dies(d);
	else if (rc > 0 && !r->closed)
		clock_timer_start(r->clock, &d->again, clock_now(r->clock), again);
	net_rdma_release(r);
	return found;
}

static void
again(struct clock_timer *t)
{
	net_rdma_poll(container_of(t, struct rdma_dev, again));
}

/* Will the next completion wake the loop? */
static bool
arm(struct rdma_dev *d)
{
	for (unsigned i = 0; i < d->cqs_n; i++)
		if (ibv_req_notify_cq(d->cqs[i].cq, 0) != 0)
			return false;
	return true;
}

/* Let it. */
static void
sleep_on(struct rdma_dev *d)
{
	loop_spin_stop(&d->spin);
	if (!arm(d))
		net_rdma_dev_dies(d);
	else
		net_rdma_poll(d);	/* what came before that wakes nobody */
}

static bool
look(struct loop_spin *s, uint64_t now_ns)
{
	struct rdma_dev *d = container_of(s, struct rdma_dev, spin);

	if (net_rdma_poll(d))		/* may free @d */
		return true;
	if (net_spin_on(&d->spin_for, now_ns))
		return false;
	sleep_on(d);
	return true;
}

static void
on_cq(struct loop_poll *p, int events)
{
	struct rdma_dev *d = container_of(p, struct rdma_dev, cq_poll);
	struct rdma *r = d->r;
	struct ibv_cq *cq;
	void *ctx;

	if (events < 0) {
		net_rdma_dev_dies(d);
		return;
	}
	while (ibv_get_cq_event(d->events, &cq, &ctx) == 0)
		ibv_ack_cq_events(cq, 1);
	r->held++;
	net_rdma_poll(d);
	loop_touch(r->loop);
	if (!d->dead && !r->closed) {
		if (net_spin_on(&d->spin_for, clock_now(r->clock)))
			loop_spin_start(r->loop, &d->spin, look);
		else
			sleep_on(d);
	}
	net_rdma_release(r);
}

/* ---- devices that go ---- */

void
net_rdma_dev_dies(struct rdma_dev *d)
{
	size_t it = 0;
	struct rdma_chan *c;

	if (d->dead)
		return;
	d->dead = true;
	log_error(d->r->log, "RDMA device is out of use", "device=%s", d->name);
	net_rdma_unwatch(d);
	for (unsigned i = 0; i < d->r->ports_n; i++)
		if (d->r->ports[i].dev == d)
			stat_set(&d->r->ports[i].stat.up, 0);
	while ((c = map_next(&d->chans, &it, NULL)) != NULL)
		net_rdma_fail(c, -ECONNRESET);
	net_rdma_drop_dead(d);
}

static void
on_async(struct loop_poll *p, int events)
{
	struct rdma_dev *d = container_of(p, struct rdma_dev, async_poll);
	struct ibv_async_event e;

	if (events < 0) {
		net_rdma_dev_dies(d);
		return;
	}
	while (!d->dead && ibv_get_async_event(d->ctx, &e) == 0) {
		enum ibv_event_type type = e.event_type;
		struct rdma_chan *c = NULL;

		if (type == IBV_EVENT_QP_FATAL || type == IBV_EVENT_QP_REQ_ERR ||
		    type == IBV_EVENT_QP_ACCESS_ERR)
			c = map_get(&d->chans, e.element.qp->qp_num);
		ibv_ack_async_event(&e);
		if (c != NULL && !c->closed)
			net_rdma_fail(c, -ECONNRESET);
		else if (type == IBV_EVENT_DEVICE_FATAL || type == IBV_EVENT_CQ_ERR ||
		    type == IBV_EVENT_SRQ_ERR)
			net_rdma_dev_dies(d);
		else if (type == IBV_EVENT_PORT_ERR || type == IBV_EVENT_PORT_ACTIVE ||
		    type == IBV_EVENT_GID_CHANGE || type == IBV_EVENT_PKEY_CHANGE ||
		    type == IBV_EVENT_LID_CHANGE || type == IBV_EVENT_SM_CHANGE ||
		    type == IBV_EVENT_CLIENT_REREGISTER)
			net_rdma_ports_read(d);
	}
}

void
net_rdma_unwatch(struct rdma_dev *d)
{
	loop_spin_stop(&d->spin);
	loop_poll_stop(&d->cq_poll);
	loop_poll_stop(&d->async_poll);
	clock_timer_stop(d->r->clock, &d->again);
	clock_timer_stop(d->r->clock, &d->look);
}

int
net_rdma_watch(struct rdma_dev *d)
{
	int rc;

	if (fcntl(d->events->fd, F_SETFL, O_NONBLOCK) != 0 ||
	    fcntl(d->ctx->async_fd, F_SETFL, O_NONBLOCK) != 0)
		return -errno;
	if (!arm(d))
		return -EIO;
	if ((rc = loop_poll_start(&d->cq_poll, d->r->loop, d->events->fd, LOOP_READ,
	    on_cq)) != 0)
		return rc;
	return loop_poll_start(&d->async_poll, d->r->loop, d->ctx->async_fd, LOOP_READ,
	    on_async);
}
