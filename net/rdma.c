/* SPDX-License-Identifier: MIT */
/* rdma.c - the transport: registered memory, completions, the life of a channel. */
#include "net/rdma_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

STAT_DEFINE(net_rdma, NET_RDMA_STATS)

#define POLL_N		32u
#define POLLS		128u		/* batches in one turn */
#define LINGER_MS	1000u
#define NOBODY		UINT32_MAX	/* numbers of queue pairs have 24 bits */
#define LOG_NS		(10 * NS_PER_S)

/* Was it said a moment ago?  If not, it is now. */
static bool
was_said(struct rdma *r, const char *what)
{
	uint64_t now = clock_now(r->clock);
	unsigned n = sizeof(r->logged) / sizeof(r->logged[0]), at = n;

	for (unsigned i = 0; i < n && at == n; i++)
		if (r->logged[i].what == what)
			at = i;
	if (at < n && now - r->logged[at].ns < LOG_NS)
		return true;
	if (at == n)
		at = r->logged_at++ % n;
	r->logged[at].what = what;
	r->logged[at].ns = now;
	return false;
}

void
net_rdma_say_why(struct rdma *r, const char *what, const char *dev, const char *why)
{
	if (!was_said(r, what))
		log_warn(r->log, what, "device=%s why=\"%s\"", dev, why);
}

void
net_rdma_say(struct rdma *r, const char *what, const char *dev, int rc)
{
	if (!was_said(r, what))
		log_warn(r->log, what, "device=%s why=%s", dev, err_name(rc));
}

/* ---- registered memory ---- */

/* Index of the first range that ends behind @p. */
static size_t
mem_at(const struct rdma *r, const uint8_t *p)
{
	size_t lo = 0, hi = r->mem_n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (r->mem[mid]->p + r->mem[mid]->n <= p)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct ibv_mr *
net_rdma_mr(struct rdma *r, const struct rdma_dev *d, const void *p, size_t n)
{
	size_t at = mem_at(r, p);
	const struct net_mem *m;

	if (at == r->mem_n)
		return NULL;
	m = r->mem[at];
	if ((const uint8_t *)p < m->p || (size_t)(m->p + m->n - (const uint8_t *)p) < n)
		return NULL;
	return m->mr[d->index];
}

static void
free_mem(struct rdma *r, struct net_mem *m)
{
	for (unsigned i = 0; i < r->devs_n; i++)
		if (m->mr[i] != NULL)
			ibv_dereg_mr(m->mr[i]);
	free(m);
}

static int
rdma_mem_add(struct net_transport *t, void *p, size_t n, struct net_mem **out)
{
	struct rdma *r = container_of(t, struct rdma, t);
	struct net_mem *m = calloc(1, sizeof(*m));
	size_t at = mem_at(r, p);

	if (m == NULL)
		return -ENOMEM;
	assert(at == r->mem_n || (uint8_t *)p + n <= r->mem[at]->p);
	if (r->mem_n == r->mem_cap) {
		size_t cap = r->mem_cap == 0 ? 64 : r->mem_cap * 2;
		struct net_mem **more = realloc(r->mem, cap * sizeof(*more));

		if (more == NULL) {
			free(m);
			return -ENOMEM;
		}
		r->mem = more;
		r->mem_cap = cap;
	}
	m->p = p;
	m->n = n;
	/* A device that does not take it goes on, with copies. */
	for (unsigned i = 0; i < r->devs_n; i++) {
		struct rdma_dev *d = r->devs[i];

		if (d == NULL || d->dead)
			continue;
		m->mr[i] = net_rdma_reg(d, p, n, MEM_ACCESS);
		m->tried |= 1u << i;
	}
	memmove(&r->mem[at + 1], &r->mem[at], (r->mem_n - at) * sizeof(*r->mem));
	r->mem[at] = m;
	stat_set(&r->stat.regions, ++r->mem_n);
	*out = m;
	return 0;
}

static void
rdma_mem_del(struct net_transport *t, struct net_mem *m)
{
	struct rdma *r = container_of(t, struct rdma, t);
	size_t at = mem_at(r, m->p);

	assert(at < r->mem_n && r->mem[at] == m);
	memmove(&r->mem[at], &r->mem[at + 1], (--r->mem_n - at) * sizeof(*r->mem));
	stat_set(&r->stat.regions, r->mem_n);
	free_mem(r, m);
}

/* ---- channels ---- */

void
net_rdma_hold(struct rdma_chan *c)
{
	c->refs++;
	c->r->held++;
}

void
net_rdma_release(struct rdma *r)
{
	if (--r->held > 0 || !r->closed)
		return;
	net_rdma_iw_close(r);
	net_rdma_devs_close(r);
	net_rdma_batches_free(r);
	free(r->mem);
	free(r);
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

/* Keep what has completed for later: the queue pair it belongs to, or another's. */
static void
stash(struct rdma_dev *d)
{
	for (;;) {
		int n;

		if (d->stash_cap - d->stash_n < POLL_N) {
			unsigned cap = d->stash_cap == 0 ? 256 : d->stash_cap * 2;
			struct ibv_wc *more = realloc(d->stash, cap * sizeof(*more));

			if (more == NULL) {
				/* Receives of others may be lost. */
				net_rdma_dev_dies(d);
				return;
			}
			d->stash = more;
			d->stash_cap = cap;
		}
		n = ibv_poll_cq(d->cq, POLL_N, d->stash + d->stash_n);
		if (n <= 0)
			return;
		d->stash_n += (unsigned)n;
	}
}

void
net_rdma_count(struct rdma_chan *c, int by)
{
	struct rdma_port *p = c->port;

	p->chans_n += (unsigned)by;
	stat_set(&p->stat.connections, p->chans_n);
	stat_set(&p->stat.credits, p->stat.credits + c->credit.ours * (uint64_t)by);
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
	if (c->qp == NULL)
		return;
	ibv_modify_qp(c->qp, &a, IBV_QP_STATE);
	stash(d);
	if (d->stash_n > d->stash_at && !d->dead)
		clock_timer_start(c->r->clock, &d->again, clock_now(c->r->clock), again);
	map_del(&d->chans, c->qp->qp_num);
	disown(d, c->qp->qp_num);
	/* It fails only with a device that has been taken out. */
	if ((rc = ibv_destroy_qp(c->qp)) != 0) {
		net_rdma_say(c->r, "cannot destroy a queue pair", d->name, -rc);
		net_rdma_dev_dies(d);
	}
	c->qp = NULL;
	net_rdma_recvs_end(c);
	net_rdma_iw_end(c);
	net_rdma_unreserve(d, c->credit.ours);
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

static void
linger_is_over(struct rdma_chan *c)
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
	linger_is_over(container_of(t, struct rdma_chan, linger_end));
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
		linger_is_over(c);
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
		linger_is_over(c);
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
			linger_is_over(c);
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

bool
net_rdma_poll(struct rdma_dev *d)
{
	struct rdma *r = d->r;
	struct ibv_wc wcs[POLL_N];
	bool found = d->stash_at < d->stash_n;
	int n = 0;

	r->held++;
	while (d->stash_at < d->stash_n) {
		struct ibv_wc wc = d->stash[d->stash_at++];

		handle(d, &wc);
	}
	d->stash_at = d->stash_n = 0;
	for (unsigned i = 0; i < POLLS && !r->closed; i++) {
		if ((n = ibv_poll_cq(d->cq, POLL_N, wcs)) <= 0)
			break;
		if (!found)
			net_spin_came(&d->spin_for);
		found = true;
		for (int k = 0; k < n; k++)
			handle(d, &wcs[k]);
		if (d->stash_n > 0)	/* taken behind this batch, before the next */
			break;
	}
	if (n < 0 && !r->closed)
		net_rdma_dev_dies(d);
	else if (n > 0 && !r->closed)
		clock_timer_start(r->clock, &d->again, clock_now(r->clock), again);
	net_rdma_release(r);
	return found;
}

static void
again(struct clock_timer *t)
{
	net_rdma_poll(container_of(t, struct rdma_dev, again));
}

/* Let the next completion wake the loop. */
static void
sleep_on(struct rdma_dev *d)
{
	loop_spin_stop(&d->spin);
	if (ibv_req_notify_cq(d->cq, 0) != 0)
		net_rdma_dev_dies(d);
	else
		net_rdma_poll(d);	/* what came before that wakes nobody */
}

static bool
look(struct loop_spin *s, uint64_t now_ns)
{
	struct rdma_dev *d = container_of(s, struct rdma_dev, spin);

	loop_touch(d->r->loop);
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
	unsigned n = 0;
	void *ctx;

	if (events < 0) {
		net_rdma_dev_dies(d);
		return;
	}
	while (ibv_get_cq_event(d->events, &cq, &ctx) == 0)
		n++;
	if (n > 0)
		ibv_ack_cq_events(d->cq, n);
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
}

int
net_rdma_watch(struct rdma_dev *d)
{
	int rc;

	if (fcntl(d->events->fd, F_SETFL, O_NONBLOCK) != 0 ||
	    fcntl(d->ctx->async_fd, F_SETFL, O_NONBLOCK) != 0)
		return -errno;
	if (ibv_req_notify_cq(d->cq, 0) != 0)
		return -EIO;
	if ((rc = loop_poll_start(&d->cq_poll, d->r->loop, d->events->fd, LOOP_READ,
	    on_cq)) != 0)
		return rc;
	return loop_poll_start(&d->async_poll, d->r->loop, d->ctx->async_fd, LOOP_READ,
	    on_async);
}

/* ---- the transport ---- */

/* Connections are made on TCP, and are handed over (net/rdma_cm.c). */
static bool
rdma_serves(const struct net_transport *t, uint8_t kind)
{
	(void)t;
	(void)kind;
	return false;
}

static void
rdma_close(struct net_transport *t)
{
	struct rdma *r = container_of(t, struct rdma, t);

	while (!list_empty(&r->lingering))
		linger_is_over(list_entry(r->lingering.next, struct rdma_chan, linger));
	assert(r->open_n == 0 && r->mem_n == 0);
	clock_undefer(r->clock, &r->work);
	stat_remove(&r->stat_set);
	for (unsigned i = 0; i < r->ports_n; i++)
		stat_remove(&r->ports[i].stat_set);
	/* We may be in a callback of theirs: they are freed when that has returned. */
	for (unsigned i = 0; i < r->devs_n; i++)
		if (r->devs[i] != NULL)
			net_rdma_unwatch(r->devs[i]);
	clock_timer_stop(r->clock, &r->scan);
	clock_timer_stop(r->clock, &r->drop);
	loop_poll_stop(&r->cm_poll);
	r->closed = true;
	r->held++;
	net_rdma_release(r);
}

static const struct net_transport_ops rdma_ops = {
	.serves = rdma_serves, .mem_add = rdma_mem_add, .mem_del = rdma_mem_del,
	.close = rdma_close
};

bool
net_rdma_is(const struct net_transport *t)
{
	return t->ops == &rdma_ops;
}

void
net_rdma_devices(const struct net_transport *t, char *out, size_t n)
{
	const struct rdma *r = (const struct rdma *)(const void *)t;
	size_t at = 0;

	*out = '\0';
	for (unsigned i = 0; i < r->ports_n && at < n; i++)
		if (r->ports[i].dev != NULL)
			at += (size_t)snprintf(out + at, n - at, "%s%s:%u",
			    at > 0 ? " " : "", r->ports[i].dev->name, r->ports[i].port);
}

void
net_rdma_traffic(const struct net_transport *t, struct net_rdma_port_stat *sum)
{
	const struct rdma *r = (const struct rdma *)(const void *)t;

	*sum = (struct net_rdma_port_stat){ 0 };
	for (unsigned i = 0; i < r->ports_n; i++)
		for (const struct stat_row *row = net_rdma_port_stat_rows;
		    row->name != NULL; row++)
			*(uint64_t *)(void *)((char *)sum + row->off) +=
			    *(const uint64_t *)(const void *)
			    ((const char *)&r->ports[i].stat + row->off);
}

int
net_rdma_open(struct net_transport **out, struct loop *loop, const struct log *log,
    const struct net_rdma_conf *conf)
{
	struct rdma *r = calloc(1, sizeof(*r));
	int rc;

	if (r == NULL)
		return -ENOMEM;
	r->t.ops = &rdma_ops;
	r->loop = loop;
	r->clock = loop_clock(loop);
	r->log = log;
	r->conf = *conf;
	list_init(&r->dirty);
	list_init(&r->lingering);
	list_init(&r->batches);
	map_init(&r->tokens);
	rc = net_rdma_devs_open(r);
	if (rc != 0) {
		net_rdma_iw_close(r);
		free(r);
		return rc;
	}
	net_rdma_scan_start(r);
	stat_attach(conf->stats, &r->stat_set, "fsd_net_rdma",
	    log != NULL ? log->who : "", net_rdma_stat_rows, &r->stat);
	*out = &r->t;
	return 0;
}
