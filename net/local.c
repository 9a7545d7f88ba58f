/* SPDX-License-Identifier: MIT */
/* local.c - channels between threads of one process.
 *
 *   chan A -- pipe: end 0 | mutex | end 1 -- chan B      each chan on its own loop
 *
 * A frame is a parcel in the other end's inbox.  Its payload stays the sender's until the
 * parcel comes back over the `done` list, or the sender withdraws it:
 *
 *   OFFERED --pull--> COPYING --> TAKEN --(done)--> sender: up->sent
 *      |   \--drop-------------> TAKEN
 *      \--unsend, close--> WITHDRAWN        (COPYING: told to stop, waited for)
 *
 * 1. Everything in struct pipe, and a parcel's state, is touched under the mutex only.
 *    The rest of a parcel does not change after it has been sent.
 * 2. An end's clock is used only while it has a channel: its loop outlives that.
 * 3. A payload is read only while COPYING.  A copy looks at `stop` every SLICE bytes, so
 *    who withdraws one waits for tens of microseconds at most.
 * 4. No two mutexes are held at once. */
#include "net/local.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SLICE		(256u << 10)
#define AUTO_FIRST	0x10000u	/* numbers for local:0 */

enum parcel_state { OFFERED, COPYING, TAKEN, WITHDRAWN };

struct parcel {
	struct list	    node;	/* inbox, then the receiver's chan */
	struct list	    done;	/* sender's end.done */
	atomic_uint	    refs;	/* receiver's, and sender's while tx is its */
	enum parcel_state   state;
	bool		    stop;
	struct net_tx	   *tx;
	const struct iovec *iov;
	unsigned	    iov_n;
	struct net_rx	    rx;
	uint32_t	    bulk_len, head_len;
	uint8_t		    head[];
};

struct end {
	struct pipe	 *pipe;
	struct chan	 *chan;		/* NULL: not there yet, or closed */
	struct clock	 *clock;
	struct list	  inbox, done;
	bool		  connected;	/* news for the channel */
	int		  closed;
	bool		  posted;
	struct clock_post post;
};

struct pipe {
	pthread_mutex_t	lock;
	pthread_cond_t	copied;
	unsigned	refs;		/* chans, posts, a place in a listener's queue */
	struct list	node;		/* that queue */
	struct net_addr	addr;
	struct end	ends[2];
};

struct local {
	struct net_transport t;
	struct clock *clock;
	unsigned      open_n;
};

struct listener {
	struct local	 *local;
	struct list	  node;		/* registry */
	uint32_t	  id;
	net_accept_fn	 *fn;
	void		 *ctx;
	struct list	  queue;	/* pipes */
	bool		  posted, closed;
	struct clock_post post;
};

struct chan {
	struct net_chan c;		/* first */
	struct local *local;
	struct pipe  *pipe;
	struct end   *mine, *other;
	unsigned      refs;		/* open, upcalls */
	bool	      closed, paused;
	int	      failed;		/* up->closed is due, after `held` */
	struct list   held;		/* parcels that wait for the end of a pause */
	struct list   rxs;		/* parcels whose payload is undecided */
	struct list   txs;		/* frames whose payload is not taken yet */
};

/* Listeners of the process, under their own lock. */
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list registry = { &registry, &registry };
static uint32_t next_auto = AUTO_FIRST;

static struct chan *
of(struct net_chan *c)
{
	return container_of(c, struct chan, c);
}

static void
parcel_put(struct parcel *p)
{
	if (atomic_fetch_sub(&p->refs, 1) == 1)
		free(p);
}

static void
chan_put(struct chan *c)
{
	if (--c->refs == 0)
		free(c);
}

/* Ends the lock. */
static void
pipe_unlock_put(struct pipe *pipe)
{
	bool last = --pipe->refs == 0;

	pthread_mutex_unlock(&pipe->lock);
	if (!last)
		return;
	for (unsigned i = 0; i < 2; i++)
		for (struct list *l;
		    (l = list_pop_front(&pipe->ends[i].inbox)) != NULL;)
			parcel_put(list_entry(l, struct parcel, node));
	pthread_cond_destroy(&pipe->copied);
	pthread_mutex_destroy(&pipe->lock);
	free(pipe);
}

static void deliver(struct clock_post *post);

/* There is news for @e; under the lock. */
static void
wake(struct end *e)
{
	if (e->chan == NULL || e->posted)
		return;
	e->posted = true;
	e->pipe->refs++;
	clock_post(e->clock, &e->post, deliver);
}

/* ---- sending ---- */

static bool
chan_send(struct net_chan *chan, struct net_tx *tx)
{
	struct chan *c = of(chan);
	struct parcel *p = malloc(sizeof(*p) + tx->head_len);

	tx->impl = NULL;
	tx->done = 0;
	if (p == NULL) {
		/* The stream has a hole: it ends here. */
		list_push_back(&c->txs, &tx->node);
		pthread_mutex_lock(&c->pipe->lock);
		c->mine->closed = -ENOMEM;
		wake(c->mine);
		pthread_mutex_unlock(&c->pipe->lock);
		return false;
	}
	memset(p, 0, sizeof(*p));
	list_init(&p->node);
	list_init(&p->done);
	p->state = OFFERED;
	p->bulk_len = tx->bulk_len;
	p->head_len = tx->head_len;
	memcpy(p->head, tx->head, tx->head_len);
	atomic_init(&p->refs, 1);
	if (tx->bulk_len > 0) {
		atomic_init(&p->refs, 2);
		p->tx = tx;
		p->iov = tx->iov;
		p->iov_n = tx->iov_n;
		tx->impl = p;
		list_push_back(&c->txs, &tx->node);
		if (chan->out_bytes == 0)
			chan->tx_since_ns = clock_now(c->local->clock);
		chan->out_bytes += tx->bulk_len;
	}
	pthread_mutex_lock(&c->pipe->lock);
	list_push_back(&c->other->inbox, &p->node);
	wake(c->other);
	pthread_mutex_unlock(&c->pipe->lock);
	return tx->bulk_len == 0;
}

/* Take the payload of @tx out of the receiver's reach. */
static void
withdraw(struct chan *c, struct net_tx *tx)
{
	struct parcel *p = tx->impl;

	list_remove(&tx->node);
	if (p == NULL)
		return;
	pthread_mutex_lock(&c->pipe->lock);
	while (p->state == COPYING) {
		p->stop = true;
		pthread_cond_wait(&c->pipe->copied, &c->pipe->lock);
	}
	if (p->state == OFFERED)
		p->state = WITHDRAWN;
	list_remove(&p->done);
	pthread_mutex_unlock(&c->pipe->lock);
	tx->impl = NULL;
	c->c.out_bytes -= tx->bulk_len;
	if (c->c.out_bytes == 0)
		c->c.tx_since_ns = 0;
	parcel_put(p);
}

static int
chan_unsend(struct net_chan *chan, struct net_tx *tx)
{
	withdraw(of(chan), tx);
	return 0;
}

/* ---- receiving ---- */

/* Tell the sender that its memory is free; under the lock. */
static void
give_back(struct chan *c, struct parcel *p)
{
	p->state = TAKEN;
	list_push_back(&c->other->done, &p->done);
	wake(c->other);
}

/* A step of a copy between two lists of iovecs. */
struct copy {
	const struct iovec *src, *dst;
	size_t src_at, dst_at;
};

static void
copy_some(struct copy *k, size_t n)
{
	while (n > 0) {
		size_t part = n;

		if (part > k->src->iov_len - k->src_at)
			part = k->src->iov_len - k->src_at;
		if (part > k->dst->iov_len - k->dst_at)
			part = k->dst->iov_len - k->dst_at;
		if (part > 0)
			memcpy((char *)k->dst->iov_base + k->dst_at,
			    (const char *)k->src->iov_base + k->src_at, part);
		n -= part;
		if ((k->src_at += part) == k->src->iov_len) {
			k->src++;
			k->src_at = 0;
		}
		/* Not past the last one: there may be none behind it. */
		if ((k->dst_at += part) == k->dst->iov_len && n > 0) {
			k->dst++;
			k->dst_at = 0;
		}
	}
}

static int
chan_pull(struct net_chan *chan, struct net_rx *rx, const struct iovec *iov,
    unsigned n)
{
	struct chan *c = of(chan);
	struct parcel *p = container_of(rx, struct parcel, rx);
	struct copy k = { .src = p->iov, .dst = iov };
	uint32_t left = p->bulk_len;
	int rc = 1;

	(void)n;
	list_remove(&p->node);
	pthread_mutex_lock(&c->pipe->lock);
	if (p->state == OFFERED) {
		p->state = COPYING;
		while (left > 0 && !p->stop) {
			uint32_t part = left < SLICE ? left : SLICE;

			pthread_mutex_unlock(&c->pipe->lock);
			copy_some(&k, part);
			left -= part;
			pthread_mutex_lock(&c->pipe->lock);
		}
		if (p->stop) {
			p->state = WITHDRAWN;
			pthread_cond_broadcast(&c->pipe->copied);
			rc = -ECONNRESET;
		} else {
			give_back(c, p);
		}
	} else {
		assert(p->state == WITHDRAWN);
		rc = -ECONNRESET;
	}
	pthread_mutex_unlock(&c->pipe->lock);
	parcel_put(p);
	return rc;
}

static void
chan_drop(struct net_chan *chan, struct net_rx *rx)
{
	struct chan *c = of(chan);
	struct parcel *p = container_of(rx, struct parcel, rx);

	list_remove(&p->node);
	pthread_mutex_lock(&c->pipe->lock);
	if (p->state == OFFERED)
		give_back(c, p);
	pthread_mutex_unlock(&c->pipe->lock);
	parcel_put(p);
}

static void
chan_pause(struct net_chan *chan, bool paused)
{
	struct chan *c = of(chan);

	c->paused = paused;
	if (paused)
		return;
	pthread_mutex_lock(&c->pipe->lock);
	wake(c->mine);
	pthread_mutex_unlock(&c->pipe->lock);
}

/* ---- upcalls ---- */

static void
hand_up(struct chan *c, struct parcel *p)
{
	/* The head must last until the upcall is over, the payload maybe longer. */
	atomic_fetch_add(&p->refs, 1);
	if (p->head_len > c->c.head_max || p->bulk_len > c->c.bulk_max) {
		parcel_put(p);
		c->failed = -EMSGSIZE;
	} else if (p->bulk_len > 0) {
		list_push_back(&c->rxs, &p->node);
		c->c.up->frame(&c->c, p->head, p->head_len, &p->rx, NULL);
	} else {
		parcel_put(p);
		c->c.up->frame(&c->c, p->head, p->head_len, NULL, NULL);
	}
	parcel_put(p);
}

static void
payload_was_taken(struct chan *c, struct parcel *p)
{
	struct net_tx *tx = p->tx;

	list_remove(&tx->node);
	tx->impl = NULL;
	tx->done = tx->head_len + (uint64_t)tx->bulk_len;
	c->c.out_bytes -= tx->bulk_len;
	c->c.tx_since_ns = c->c.out_bytes > 0 ? clock_now(c->local->clock) : 0;
	parcel_put(p);
	c->c.up->sent(&c->c, tx);
}

/* Payloads that were taken, one at a time: an upcall may withdraw another. */
static void
run_done(struct chan *c)
{
	size_t before = c->c.out_bytes;

	while (!c->closed) {
		struct list *l;

		pthread_mutex_lock(&c->pipe->lock);
		l = list_pop_front(&c->mine->done);
		pthread_mutex_unlock(&c->pipe->lock);
		if (l == NULL)
			break;
		payload_was_taken(c, list_entry(l, struct parcel, done));
	}
	if (!c->closed && before > c->c.out_mark / 2 &&
	    c->c.out_bytes <= c->c.out_mark / 2)
		c->c.up->drained(&c->c);
}

/* News for an end, on the thread of its channel. */
static void
deliver(struct clock_post *post)
{
	struct end *e = container_of(post, struct end, post);
	struct pipe *pipe = e->pipe;
	struct chan *c;
	bool connected;

	pthread_mutex_lock(&pipe->lock);
	e->posted = false;
	if ((c = e->chan) == NULL) {
		pipe_unlock_put(pipe);
		return;
	}
	list_splice_back(&c->held, &e->inbox);
	connected = e->connected;
	e->connected = false;
	if (c->failed == 0)
		c->failed = e->closed;
	e->closed = 0;
	pthread_mutex_unlock(&pipe->lock);

	c->refs++;
	c->c.rx_ns = clock_now(c->local->clock);
	if (connected)
		c->c.up->connected(&c->c);
	run_done(c);
	while (!c->closed && !c->paused && c->failed != -EMSGSIZE &&
	    !list_empty(&c->held))
		hand_up(c, list_entry(list_pop_front(&c->held), struct parcel, node));
	/* A paused one too: nobody will take what it has queued. */
	if (!c->closed && c->failed != 0)
		c->c.up->closed(&c->c, c->failed);
	chan_put(c);
	pthread_mutex_lock(&pipe->lock);
	pipe_unlock_put(pipe);
}

/* ---- open and close ---- */

static void
chan_close(struct net_chan *chan, struct list *unsent, bool linger)
{
	struct chan *c = of(chan);
	struct pipe *pipe = c->pipe;

	(void)linger;
	assert(!c->closed);
	c->closed = true;
	while (!list_empty(&c->txs)) {
		struct net_tx *tx = list_entry(c->txs.next, struct net_tx, node);

		withdraw(c, tx);
		list_push_back(unsent, &tx->node);
	}
	for (struct list *l; (l = list_pop_front(&c->rxs)) != NULL;)
		parcel_put(list_entry(l, struct parcel, node));
	for (struct list *l; (l = list_pop_front(&c->held)) != NULL;)
		parcel_put(list_entry(l, struct parcel, node));
	c->local->open_n--;
	pthread_mutex_lock(&pipe->lock);
	c->mine->chan = NULL;
	if (c->other->closed == 0)
		c->other->closed = -ECONNRESET;
	wake(c->other);
	pipe_unlock_put(pipe);
	chan_put(c);
}

static const struct net_chan_ops chan_ops = {
	.send = chan_send, .unsend = chan_unsend, .pull = chan_pull,
	.drop = chan_drop, .pause = chan_pause, .close = chan_close
};

/* A channel for end @side, which nobody else looks at before it is set up. */
static struct chan *
new_chan(struct local *t, struct pipe *pipe, unsigned side)
{
	struct chan *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->c.ops = &chan_ops;
	c->c.peer = pipe->addr;
	c->c.rx_ns = clock_now(t->clock);
	c->local = t;
	c->pipe = pipe;
	c->mine = &pipe->ends[side];
	c->other = &pipe->ends[!side];
	c->refs = 1;
	list_init(&c->held);
	list_init(&c->rxs);
	list_init(&c->txs);
	t->open_n++;
	return c;
}

/* ---- listening ---- */

/* The connection did not come about; for who asked. Takes the queue's reference. */
static void
refuse(struct pipe *pipe, int rc)
{
	pthread_mutex_lock(&pipe->lock);
	pipe->ends[0].closed = rc;
	wake(&pipe->ends[0]);
	pipe_unlock_put(pipe);
}

static void
accept_pipe(struct listener *l, struct pipe *pipe)
{
	struct local *t = l->local;
	struct chan *c = new_chan(t, pipe, 1);

	if (c == NULL) {
		refuse(pipe, -ENOMEM);
		return;
	}
	/* The queue's reference is the channel's now. */
	pthread_mutex_lock(&pipe->lock);
	pipe->ends[1].chan = c;
	pipe->ends[1].clock = t->clock;
	pipe->ends[0].connected = true;
	wake(&pipe->ends[0]);
	if (pipe->ends[1].closed != 0 || !list_empty(&pipe->ends[1].inbox))
		wake(&pipe->ends[1]);
	pthread_mutex_unlock(&pipe->lock);
	l->fn(l->ctx, &c->c);
}

static void
accept_all(struct clock_post *post)
{
	struct listener *l = container_of(post, struct listener, post);
	bool closed;

	pthread_mutex_lock(&registry_lock);
	l->posted = false;
	while (!l->closed && !list_empty(&l->queue)) {
		struct pipe *pipe = list_entry(list_pop_front(&l->queue),
		    struct pipe, node);

		/* Closing it from its own upcall leaves it to us. */
		l->posted = true;
		pthread_mutex_unlock(&registry_lock);
		accept_pipe(l, pipe);
		pthread_mutex_lock(&registry_lock);
		l->posted = false;
	}
	closed = l->closed;
	pthread_mutex_unlock(&registry_lock);
	if (closed)
		free(l);
}

/* Under the registry's lock. */
static struct listener *
find(uint32_t id)
{
	list_for_each(l, &registry)
		if (list_entry(l, struct listener, node)->id == id)
			return list_entry(l, struct listener, node);
	return NULL;
}

static int
local_listen(struct net_transport *transport, const struct net_addr *at,
    net_accept_fn *fn, void *ctx, struct net_listener **out)
{
	struct listener *l = calloc(1, sizeof(*l));
	bool in_use;

	if (l == NULL)
		return -ENOMEM;
	l->local = container_of(transport, struct local, t);
	l->fn = fn;
	l->ctx = ctx;
	l->id = at->id;
	list_init(&l->queue);
	pthread_mutex_lock(&registry_lock);
	while (l->id == 0) {
		if (find(next_auto) == NULL)
			l->id = next_auto;
		if (++next_auto == 0)
			next_auto = AUTO_FIRST;
	}
	if (!(in_use = find(l->id) != NULL))
		list_push_back(&registry, &l->node);
	pthread_mutex_unlock(&registry_lock);
	if (in_use) {
		free(l);
		return -EADDRINUSE;
	}
	l->local->open_n++;
	*out = (struct net_listener *)l;
	return 0;
}

static void
local_listen_addr(const struct net_listener *listener, struct net_addr *out)
{
	*out = (struct net_addr){ .kind = NET_ADDR_LOCAL,
	    .id = ((const struct listener *)listener)->id };
}

static void
local_unlisten(struct net_listener *listener)
{
	struct listener *l = (struct listener *)listener;
	struct list queue;
	bool posted;

	list_init(&queue);
	l->local->open_n--;
	pthread_mutex_lock(&registry_lock);
	list_remove(&l->node);
	list_splice_back(&queue, &l->queue);
	l->closed = true;
	posted = l->posted;
	pthread_mutex_unlock(&registry_lock);
	for (struct list *n; (n = list_pop_front(&queue)) != NULL;)
		refuse(list_entry(n, struct pipe, node), -ECONNREFUSED);
	if (!posted)
		free(l);
}

/* ---- connecting ---- */

static struct pipe *
new_pipe(const struct net_addr *to)
{
	struct pipe *pipe = calloc(1, sizeof(*pipe));

	if (pipe == NULL)
		return NULL;
	if (pthread_mutex_init(&pipe->lock, NULL) != 0) {
		free(pipe);
		return NULL;
	}
	if (pthread_cond_init(&pipe->copied, NULL) != 0) {
		pthread_mutex_destroy(&pipe->lock);
		free(pipe);
		return NULL;
	}
	pipe->addr = *to;
	list_init(&pipe->node);
	for (unsigned i = 0; i < 2; i++) {
		pipe->ends[i].pipe = pipe;
		list_init(&pipe->ends[i].inbox);
		list_init(&pipe->ends[i].done);
	}
	pipe->refs = 2;			/* our channel, and the queue */
	return pipe;
}

static int
local_connect(struct net_transport *transport, const struct net_addr *to,
    struct net_chan **out)
{
	struct local *t = container_of(transport, struct local, t);
	struct pipe *pipe = new_pipe(to);
	struct listener *l;
	struct chan *c;

	if (pipe == NULL)
		return -ENOMEM;
	if ((c = new_chan(t, pipe, 0)) == NULL) {
		pipe->refs = 1;
		pthread_mutex_lock(&pipe->lock);
		pipe_unlock_put(pipe);
		return -ENOMEM;
	}
	pipe->ends[0].chan = c;
	pipe->ends[0].clock = t->clock;
	pthread_mutex_lock(&registry_lock);
	if ((l = find(to->id)) != NULL) {
		list_push_back(&l->queue, &pipe->node);
		if (!l->posted) {
			l->posted = true;
			clock_post(l->local->clock, &l->post, accept_all);
		}
	}
	pthread_mutex_unlock(&registry_lock);
	if (l == NULL)
		refuse(pipe, -ECONNREFUSED);
	*out = &c->c;
	return 0;
}

/* ---- the transport ---- */

static bool
local_serves(const struct net_transport *t, uint8_t kind)
{
	(void)t;
	return kind == NET_ADDR_LOCAL;
}

static void
local_close(struct net_transport *transport)
{
	struct local *t = container_of(transport, struct local, t);

	assert(t->open_n == 0);
	free(t);
}

static const struct net_transport_ops local_ops = {
	.serves = local_serves, .listen = local_listen,
	.listen_addr = local_listen_addr, .unlisten = local_unlisten,
	.connect = local_connect, .close = local_close
};

int
net_local_open(struct net_transport **out, struct clock *clock)
{
	struct local *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return -ENOMEM;
	t->t.ops = &local_ops;
	t->clock = clock;
	*out = &t->t;
	return 0;
}
