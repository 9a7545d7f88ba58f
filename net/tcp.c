/* SPDX-License-Identifier: MIT */
/* tcp.c - frames over non-blocking sockets that the loop's libuv polls.
 *
 * Receiving.  All channels of a loop read into one small buffer; many heads fit in it, and
 * they are handed up from there.  What cannot be used yet (a cut head, bytes behind a
 * payload nobody has asked for) moves to the channel's own buffer.  A payload being pulled
 * is read straight into place, with the small buffer behind it for what follows.
 *
 *   rx   NONE --head with payload--> ASKED --pull--> PULL --all here--> NONE
 *                                      \-----drop--> DROP --/
 *
 * Sending.  Small heads are copied into one run of bytes per channel; larger ones and
 * payloads are sent from where they are.  Both go out together, once per turn:
 *
 *   small bytes (tx->pre of them) | head and payload of tx | small bytes | ... | tail
 *
 * 1. Between upcalls [cur, end) is empty or lies in c->in.
 * 2. rx is NONE or ASKED, or [cur, end) is empty: a pull or drop takes what is there.
 * 3. Upcalls are made from chan_work(), readable() and writable() only, with c->held.
 * 4. c->txs are in order; sum of pre and c->tail is what the run holds. */
#include "net/tcp.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "conf/clock.h"
#include "conf/err.h"
#include "net/frame.h"

#define READ_BYTES	(16u << 10)	/* the small buffer */
#define READ_SPARE	(4u << 10)	/* a cut head up to this is moved back into it */
#define KEEP_BYTES	(16u << 10)	/* of c->in, while it is empty */
#define RUN_BYTES	(64u << 10)	/* of small heads */
#define COPY_BYTES	(4u << 10)	/* longer heads are not small */
#define TURN_BYTES	(4u << 20)	/* of one channel in one turn, each way */
#define IOV_N		256u
#define DST_N		8u		/* parts of a pull without malloc */
#define BACKLOG		1024
#define ACCEPTS		64u		/* in one turn */
#define ACCEPT_PAUSE_NS	(100 * NS_PER_MS)
/* A dead peer is noticed this soon, idle or not. */
#define DEAD_S		15

enum rx_state { RX_NONE, RX_ASKED, RX_PULL, RX_DROP };

struct tcp {
	struct net_transport t;
	struct loop   *loop;
	struct clock  *clock;
	const struct log *log;
	struct list    dirty;		/* channels with work for the turn's end */
	struct clock_defer work;
	unsigned       open_n;		/* listeners and channels */
	unsigned       held;
	bool	       closed;
	uint8_t	      *spare_run;
	uint8_t	       buf[READ_BYTES];
};

struct listener {
	struct tcp     *tcp;
	uv_poll_t	poll;
	int		fd;
	net_accept_fn  *fn;
	void	       *ctx;
	struct clock_timer retry;
	uint64_t	log_ns;
	bool		closed;
};

struct chan {
	struct net_chan c;		/* first */
	struct tcp     *tcp;
	uv_poll_t	poll;
	int		fd;
	int		events;		/* being polled for */
	unsigned	refs;		/* open, held, the poll handle */
	bool		connecting, connected_due, paused, closed, blocked;
	int		failed;		/* tell up->closed */
	struct list	dirty;
	/* in */
	uint8_t	       *in;
	size_t		in_cap;
	const uint8_t  *cur, *end;
	enum rx_state	rx_state;
	struct net_rx	rx;
	uint32_t	rx_left;	/* bytes of payload still to come */
	struct iovec   *dst, dst_few[DST_N];
	unsigned	dst_n, dst_at;
	/* out */
	uint8_t	       *run;
	size_t		run_at, run_end;
	uint64_t	tail;
	struct list	txs, left;
};

static struct chan *
of(struct net_chan *c)
{
	return container_of(c, struct chan, c);
}

static void
tcp_put(struct tcp *t)
{
	if (--t->held > 0 || !t->closed)
		return;
	free(t->spare_run);
	free(t);
}

static void
chan_put(struct chan *c)
{
	if (--c->refs > 0)
		return;
	assert(c->closed);
	if (c->dst != c->dst_few)
		free(c->dst);
	free(c->in);
	free(c->run);
	free(c);
}

static void
poll_closed(uv_handle_t *h)
{
	chan_put(container_of((uv_poll_t *)h, struct chan, poll));
}

/* ---- what the loop watches ---- */

static void on_poll(uv_poll_t *h, int status, int events);

static bool
wants_to_read(const struct chan *c)
{
	switch (c->rx_state) {
	case RX_NONE:
		return !c->paused;
	case RX_ASKED:
		return false;
	case RX_PULL:
	case RX_DROP:
		return true;
	}
	return false;
}

static void
watch(struct chan *c)
{
	int events = 0;

	if (c->closed)
		return;
	if (c->failed == 0) {
		if (!c->connecting && wants_to_read(c))
			events |= UV_READABLE;
		if (c->connecting || c->blocked)
			events |= UV_WRITABLE;
	}
	if (events == c->events)
		return;
	c->events = events;
	if (events == 0)
		uv_poll_stop(&c->poll);
	else
		uv_poll_start(&c->poll, events, on_poll);
}

static void work(struct clock_defer *d);

/* Something to do for this channel when the running callbacks are done. */
static void
mark(struct chan *c)
{
	if (!list_empty(&c->dirty))
		return;
	list_push_back(&c->tcp->dirty, &c->dirty);
	clock_defer(c->tcp->clock, &c->tcp->work, work);
}

static void
fail_later(struct chan *c, int rc)
{
	if (c->failed == 0)
		c->failed = rc;
	mark(c);
}

/* From an upcall's place only. */
static void
fail_now(struct chan *c, int rc)
{
	c->failed = rc;
	watch(c);
	list_remove(&c->dirty);
	c->c.up->closed(&c->c, rc);
}

/* ---- receiving ---- */

/* Put @n bytes into the pull's places. */
static void
fill(struct chan *c, const uint8_t *p, size_t n)
{
	while (n > 0) {
		struct iovec *d = &c->dst[c->dst_at];
		size_t part = n < d->iov_len ? n : d->iov_len;

		assert(c->dst_at < c->dst_n);
		if (p != NULL) {
			memcpy(d->iov_base, p, part);
			p += part;
		}
		d->iov_base = (char *)d->iov_base + part;
		d->iov_len -= part;
		n -= part;
		if (d->iov_len == 0)
			c->dst_at++;
	}
}

/* Take what there is of a payload. True: that was all of it. */
static bool
take_payload(struct chan *c)
{
	size_t n = (size_t)(c->end - c->cur);

	if (n > c->rx_left)
		n = c->rx_left;
	if (c->rx_state == RX_PULL)
		fill(c, c->cur, n);
	c->cur += n;
	c->rx_left -= (uint32_t)n;
	return c->rx_left == 0;
}

static void
payload_done(struct chan *c)
{
	bool pulled = c->rx_state == RX_PULL;

	c->rx_state = RX_NONE;
	c->c.rx_since_ns = 0;
	if (pulled)
		c->c.up->pulled(&c->c, &c->rx);
}

/* Hand up what is in [cur, end), as far as it can be. 0 or why it broke. */
static int
process(struct chan *c)
{
	uint32_t head_len, bulk_len;
	const uint8_t *head;

	while (!c->closed && c->failed == 0) {
		if (c->rx_state == RX_PULL || c->rx_state == RX_DROP) {
			if (!take_payload(c))
				break;
			payload_done(c);
			continue;
		}
		if (c->rx_state == RX_ASKED || c->paused ||
		    (size_t)(c->end - c->cur) < NET_HEAD)
			break;
		if (net_frame_peek(c->cur, c->c.head_max, c->c.bulk_max, &head_len,
		    &bulk_len) != 0)
			return ERR_BAD_MESSAGE;
		if ((size_t)(c->end - c->cur) < head_len)
			break;
		head = c->cur;
		c->cur += head_len;
		c->c.rx_since_ns = 0;
		if (bulk_len > 0) {
			c->rx_state = RX_ASKED;
			c->rx_left = bulk_len;
			c->c.up->frame(&c->c, head, head_len, &c->rx, NULL);
		} else {
			c->c.up->frame(&c->c, head, head_len, NULL, NULL);
		}
	}
	return 0;
}

/* Make c->in hold @cap bytes, with what is in [cur, end) at its start. */
static int
move_in(struct chan *c, size_t cap)
{
	size_t n = (size_t)(c->end - c->cur);
	uint8_t *in = c->in;

	assert(cap >= n);
	if (cap > c->in_cap && (in = malloc(cap)) == NULL)
		return -ENOMEM;
	if (n > 0 && in != c->cur)
		memmove(in, c->cur, n);
	if (in != c->in) {
		free(c->in);
		c->in = in;
		c->in_cap = cap;
	}
	c->cur = in;
	c->end = in + n;
	return 0;
}

/* After process(): keep what could not be used (1), and note since when we wait. */
static int
settle(struct chan *c)
{
	size_t n = (size_t)(c->end - c->cur);
	bool waits;

	if (n == 0) {
		c->cur = c->end = NULL;
		if (c->in_cap > KEEP_BYTES) {
			free(c->in);
			c->in = NULL;
			c->in_cap = 0;
		}
	} else if ((c->in == NULL || c->cur < c->in ||
	    c->cur >= c->in + c->in_cap) && move_in(c, n < 512 ? 512 : n) != 0) {
		c->cur = c->end = NULL;
		return -ENOMEM;
	}
	waits = c->rx_state == RX_PULL || c->rx_state == RX_DROP ||
	    (c->rx_state == RX_NONE && n > 0 && !c->paused);
	if (!waits)
		c->c.rx_since_ns = 0;
	else if (c->c.rx_since_ns == 0)
		c->c.rx_since_ns = clock_now(c->tcp->clock);
	return 0;
}

/* Bytes of the head that [cur, end) begins; at least NET_HEAD. */
static int
head_needs(const struct chan *c, size_t *need)
{
	uint32_t head_len, bulk_len;

	*need = NET_HEAD;
	if ((size_t)(c->end - c->cur) < NET_HEAD)
		return 0;
	if (net_frame_peek(c->cur, c->c.head_max, c->c.bulk_max, &head_len,
	    &bulk_len) != 0)
		return ERR_BAD_MESSAGE;
	*need = head_len;
	return 0;
}

static ssize_t
receive(struct chan *c, struct iovec *iov, size_t n)
{
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t got;

	do
		got = recvmsg(c->fd, &m, 0);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

/* Payload into place, and what comes behind it into the small buffer.  Bytes or
 * -errno; *want: what was asked for. */
static ssize_t
read_pull(struct chan *c, size_t *want)
{
	struct tcp *t = c->tcp;
	struct iovec iov[IOV_N];
	unsigned n = 0;
	size_t room = 0;
	ssize_t got;

	for (unsigned i = c->dst_at; i < c->dst_n && n < IOV_N - 1; i++) {
		room += c->dst[i].iov_len;
		iov[n++] = c->dst[i];
	}
	*want = room;
	if (room == c->rx_left) {
		iov[n].iov_base = t->buf;
		iov[n++].iov_len = READ_BYTES;
		*want += READ_BYTES;
	}
	if ((got = receive(c, iov, n)) <= 0)
		return got;
	if ((size_t)got > room) {
		c->cur = t->buf;
		c->end = t->buf + ((size_t)got - room);
	} else {
		room = (size_t)got;
	}
	fill(c, NULL, room);
	c->rx_left -= (uint32_t)room;
	return got;
}

static ssize_t
read_drop(struct chan *c, size_t *want)
{
	ssize_t got;

	*want = c->rx_left < READ_BYTES ? c->rx_left : READ_BYTES;
	do		/* tcp(7): thrown away in the kernel, nothing is copied */
		got = recv(c->fd, c->tcp->buf, *want, MSG_TRUNC);
	while (got < 0 && errno == EINTR);
	if (got > 0)
		c->rx_left -= (uint32_t)got;
	return got < 0 ? -errno : got;
}

/* More of a head, or new ones. */
static ssize_t
read_heads(struct chan *c, size_t *want)
{
	struct tcp *t = c->tcp;
	size_t have = (size_t)(c->end - c->cur), need;
	struct iovec iov[2];
	ssize_t got;
	int rc;

	if ((rc = head_needs(c, &need)) != 0)
		return rc;
	if (need <= READ_SPARE) {
		/* The usual case: continue in the small buffer. */
		if (have > 0)
			memcpy(t->buf, c->cur, have);
		iov[0].iov_base = t->buf + have;
		iov[0].iov_len = *want = READ_BYTES - have;
		if ((got = receive(c, iov, 1)) <= 0)
			return got;
		c->cur = t->buf;
		c->end = t->buf + have + (size_t)got;
		return got;
	}
	if ((rc = move_in(c, need)) != 0)
		return rc;
	iov[0].iov_base = c->in + have;
	iov[0].iov_len = need - have;
	iov[1].iov_base = t->buf;
	iov[1].iov_len = READ_BYTES;
	*want = need - have + READ_BYTES;
	if ((got = receive(c, iov, 2)) <= 0)
		return got;
	if ((size_t)got <= need - have) {
		c->end += got;
		return got;
	}
	/* The head is whole and more came: first the one, then the other. */
	c->end += need - have;
	if ((rc = process(c)) != 0)
		return rc;
	if (!c->closed && c->failed == 0) {
		size_t rest = (size_t)got - (need - have);

		assert(c->cur == c->end);
		c->cur = t->buf;
		c->end = t->buf + rest;
	}
	return got;
}

static void
readable(struct chan *c)
{
	size_t turn = 0, want;
	ssize_t got = 0;
	int rc;

	while (turn < TURN_BYTES && !c->closed && c->failed == 0 &&
	    wants_to_read(c)) {
		if (c->rx_state == RX_PULL)
			got = read_pull(c, &want);
		else if (c->rx_state == RX_DROP)
			got = read_drop(c, &want);
		else
			got = read_heads(c, &want);
		if (c->closed)
			return;
		if (got == -EAGAIN)
			break;
		if (got <= 0) {
			fail_now(c, got == 0 ? -ECONNRESET : (int)got);
			return;
		}
		turn += (size_t)got;
		c->c.rx_ns = clock_now(c->tcp->clock);
		rc = process(c);
		if (c->closed)
			return;
		if (rc != 0 || (rc = settle(c)) != 0) {
			fail_now(c, rc);
			return;
		}
		if ((size_t)got < want)
			break;		/* the socket is empty */
	}
	watch(c);
}

/* ---- sending ---- */

static uint64_t
length(const struct net_tx *tx)
{
	return (uint64_t)tx->head_len + tx->bulk_len;
}

static bool
anything_to_send(const struct chan *c)
{
	return c->tail > 0 || !list_empty(&c->txs);
}

/* Copy a small head to the end of the run. */
static bool
append(struct chan *c, const uint8_t *p, uint32_t n)
{
	if (c->run == NULL) {
		c->run = c->tcp->spare_run;
		c->tcp->spare_run = NULL;
		if (c->run == NULL && (c->run = malloc(RUN_BYTES)) == NULL)
			return false;
	}
	if (RUN_BYTES - c->run_end < n && c->run_at >= RUN_BYTES / 2) {
		memmove(c->run, c->run + c->run_at, c->run_end - c->run_at);
		c->run_end -= c->run_at;
		c->run_at = 0;
	}
	if (RUN_BYTES - c->run_end < n)
		return false;
	memcpy(c->run + c->run_end, p, n);
	c->run_end += n;
	c->tail += n;
	return true;
}

static bool
chan_send(struct net_chan *chan, struct net_tx *tx)
{
	struct chan *c = of(chan);
	bool taken;

	if (chan->out_bytes == 0)
		chan->tx_since_ns = clock_now(c->tcp->clock);
	chan->out_bytes += length(tx);
	taken = tx->bulk_len == 0 && tx->head_len <= COPY_BYTES &&
	    append(c, tx->head, tx->head_len);
	if (!taken) {
		tx->done = 0;
		tx->pre = c->tail;
		c->tail = 0;
		list_push_back(&c->txs, &tx->node);
	}
	if (!c->connecting && !c->blocked)
		mark(c);
	return taken;
}

static int
chan_unsend(struct net_chan *chan, struct net_tx *tx)
{
	struct chan *c = of(chan);

	if (tx->done > 0 && tx->done < length(tx))
		return -EBUSY;
	if (tx->done == 0) {
		/* Small heads before it now belong to what is behind it. */
		if (tx->node.next == &c->txs)
			c->tail += tx->pre;
		else
			list_entry(tx->node.next, struct net_tx, node)->pre += tx->pre;
		chan->out_bytes -= length(tx);
		if (chan->out_bytes == 0)
			chan->tx_since_ns = 0;
	}
	list_remove(&tx->node);
	return 0;
}

static unsigned
gather_run(const struct chan *c, uint64_t *at, uint64_t n, struct iovec *iov)
{
	if (n == 0)
		return 0;
	iov->iov_base = c->run + *at;
	iov->iov_len = n;
	*at += n;
	return 1;
}

/* The unsent part of @tx, at most @max pieces. */
static unsigned
gather_tx(const struct net_tx *tx, struct iovec *iov, unsigned max)
{
	uint64_t skip = tx->done;
	unsigned n = 0;

	if (skip < tx->head_len) {
		iov[n].iov_base = (void *)(uintptr_t)(tx->head + skip);
		iov[n++].iov_len = tx->head_len - skip;
		skip = 0;
	} else {
		skip -= tx->head_len;
	}
	for (unsigned i = 0; i < tx->iov_n && n < max; i++) {
		if (skip >= tx->iov[i].iov_len) {
			skip -= tx->iov[i].iov_len;
			continue;
		}
		iov[n].iov_base = (char *)tx->iov[i].iov_base + skip;
		iov[n++].iov_len = tx->iov[i].iov_len - skip;
		skip = 0;
	}
	return n;
}

/* What goes out next. Stops early when @iov is full. */
static unsigned
gather(const struct chan *c, struct iovec iov[IOV_N], size_t *bytes)
{
	uint64_t at = c->run_at;
	unsigned n = 0;

	list_for_each(l, &c->txs) {
		const struct net_tx *tx = list_entry(l, struct net_tx, node);

		if (n + 2 + tx->iov_n > IOV_N && n > 0)
			goto full;
		n += gather_run(c, &at, tx->pre, iov + n);
		n += gather_tx(tx, iov + n, IOV_N - n);
		if (n == IOV_N)
			goto full;	/* perhaps not all of this one */
	}
	n += gather_run(c, &at, c->tail, iov + n);
full:
	*bytes = 0;
	for (unsigned i = 0; i < n; i++)
		*bytes += iov[i].iov_len;
	return n;
}

static void
leave_run(struct chan *c, uint64_t *of_this, uint64_t *sent)
{
	uint64_t n = *of_this < *sent ? *of_this : *sent;

	*of_this -= n;
	*sent -= n;
	c->run_at += n;
	if (c->run_at == c->run_end)
		c->run_at = c->run_end = 0;
}

/* @sent bytes have left; frames that are whole move to c->left. */
static void
consume(struct chan *c, uint64_t sent)
{
	c->c.out_bytes -= sent;
	c->c.tx_since_ns = c->c.out_bytes > 0 ? clock_now(c->tcp->clock) : 0;
	while (!list_empty(&c->txs)) {
		struct net_tx *tx = list_entry(c->txs.next, struct net_tx, node);
		uint64_t n;

		leave_run(c, &tx->pre, &sent);
		n = length(tx) - tx->done;
		if (n > sent)
			n = sent;
		tx->done += n;
		sent -= n;
		if (tx->pre > 0 || tx->done < length(tx))
			return;
		list_remove(&tx->node);
		list_push_back(&c->left, &tx->node);
	}
	leave_run(c, &c->tail, &sent);
	assert(sent == 0);
}

/* Send until the socket is full. 0 or -errno. No upcalls. */
static int
send_some(struct chan *c, size_t turn)
{
	struct iovec iov[IOV_N];

	c->blocked = false;
	while (anything_to_send(c)) {
		struct msghdr m = { .msg_iov = iov };
		size_t bytes;
		ssize_t n;

		m.msg_iovlen = gather(c, iov, &bytes);
		do
			n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
		while (n < 0 && errno == EINTR);
		if (n < 0 && errno != EAGAIN)
			return -errno;
		if (n > 0)
			consume(c, (uint64_t)n);
		if (n < (ssize_t)bytes || (size_t)n >= turn) {
			c->blocked = anything_to_send(c);
			break;
		}
		turn -= (size_t)n;
	}
	if (c->run != NULL && c->run_end == 0) {
		/* Idle channels hold no run. */
		if (c->tcp->spare_run == NULL)
			c->tcp->spare_run = c->run;
		else
			free(c->run);
		c->run = NULL;
	}
	return 0;
}

static void
writable(struct chan *c)
{
	size_t before = c->c.out_bytes;
	int rc = send_some(c, TURN_BYTES);

	while (!c->closed && !list_empty(&c->left)) {
		struct list *l = list_pop_front(&c->left);

		c->c.up->sent(&c->c, list_entry(l, struct net_tx, node));
	}
	if (c->closed)
		return;
	if (rc != 0) {
		fail_now(c, rc);
		return;
	}
	if (before > c->c.out_mark / 2 && c->c.out_bytes <= c->c.out_mark / 2)
		c->c.up->drained(&c->c);
	watch(c);
}

/* ---- turns ---- */

static int
socket_error(const struct chan *c)
{
	int rc = 0;
	socklen_t n = sizeof(rc);

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &rc, &n) != 0)
		rc = errno;
	return -rc;
}

static void
connect_ended(struct chan *c)
{
	int rc = socket_error(c);

	if (rc != 0) {
		fail_now(c, rc);
		return;
	}
	c->connecting = false;
	c->c.up->connected(&c->c);
	if (!c->closed) {
		mark(c);
		watch(c);
	}
}

static void
on_poll(uv_poll_t *h, int status, int events)
{
	struct chan *c = container_of(h, struct chan, poll);

	c->refs++;
	c->tcp->held++;
	if (status < 0) {
		/* libuv says no more than that, and has stopped the handle. */
		int rc = socket_error(c);

		c->events = 0;
		fail_now(c, rc != 0 ? rc : -ECONNRESET);
	} else if (c->connecting) {
		connect_ended(c);
	} else {
		if (events & UV_READABLE)
			readable(c);
		if ((events & UV_WRITABLE) && !c->closed && c->failed == 0)
			writable(c);
	}
	tcp_put(c->tcp);
	chan_put(c);
}

/* The end of the turn for one channel. */
static void
chan_work(struct chan *c)
{
	int rc;

	if (c->failed != 0) {
		fail_now(c, c->failed);
		return;
	}
	if (c->connected_due) {
		c->connected_due = false;
		connect_ended(c);
		if (c->closed || c->failed != 0)
			return;
	}
	if (c->connecting)
		return;
	if (c->cur != c->end) {
		rc = process(c);
		if (c->closed)
			return;
		if (rc != 0 || (rc = settle(c)) != 0) {
			fail_now(c, rc);
			return;
		}
	}
	if (!c->blocked)
		writable(c);
	else
		watch(c);
}

static void
work(struct clock_defer *d)
{
	struct tcp *t = container_of(d, struct tcp, work);
	struct list now;

	t->held++;
	list_init(&now);
	list_splice_back(&now, &t->dirty);
	for (struct list *l; (l = list_pop_front(&now)) != NULL;) {
		struct chan *c = list_entry(l, struct chan, dirty);

		c->refs++;
		chan_work(c);
		chan_put(c);
	}
	tcp_put(t);
}

/* ---- pull, drop, pause ---- */

/* A payload's fate has been decided within a call: what is here already is used now,
 * what is behind it at the end of the turn. True: all of it was here. */
static bool
decide(struct chan *c, enum rx_state state)
{
	bool all;

	assert(c->rx_state == RX_ASKED || state == RX_DROP);
	c->rx_state = state;
	if (c->c.rx_since_ns == 0)
		c->c.rx_since_ns = clock_now(c->tcp->clock);
	all = take_payload(c);
	if (all) {
		c->rx_state = RX_NONE;
		c->c.rx_since_ns = 0;
	}
	mark(c);
	return all;
}

static int
chan_pull(struct net_chan *chan, struct net_rx *rx, const struct iovec *iov,
    unsigned n)
{
	struct chan *c = of(chan);
	uint64_t sum = 0;

	assert(rx == &c->rx);
	if (c->dst != c->dst_few)
		free(c->dst);
	c->dst = c->dst_few;
	if (n > DST_N && (c->dst = malloc(n * sizeof(*iov))) == NULL) {
		c->dst = c->dst_few;
		fail_later(c, -ENOMEM);
		return 0;
	}
	c->dst_n = c->dst_at = 0;
	for (unsigned i = 0; i < n; i++) {
		if (iov[i].iov_len > 0)
			c->dst[c->dst_n++] = iov[i];
		sum += iov[i].iov_len;
	}
	assert(sum == c->rx_left);
	return decide(c, RX_PULL);
}

static void
chan_drop(struct net_chan *chan, struct net_rx *rx)
{
	assert(rx == &of(chan)->rx);
	decide(of(chan), RX_DROP);
}

static void
chan_pause(struct net_chan *chan, bool paused)
{
	struct chan *c = of(chan);

	c->paused = paused;
	mark(c);
}

/* ---- open and close ---- */

static void
chan_close(struct net_chan *chan, struct list *unsent, bool linger)
{
	struct chan *c = of(chan);
	struct tcp *t = c->tcp;

	assert(!c->closed);
	if (linger && !c->connecting && c->failed == 0)
		(void)send_some(c, SIZE_MAX);
	c->closed = true;
	list_splice_back(unsent, &c->left);
	list_splice_back(unsent, &c->txs);
	list_for_each(l, unsent)
		list_entry(l, struct net_tx, node)->done = 0;
	list_remove(&c->dirty);
	uv_close((uv_handle_t *)&c->poll, poll_closed);
	close(c->fd);
	t->open_n--;
	chan_put(c);
}

static const struct net_chan_ops chan_ops = {
	.send = chan_send, .unsend = chan_unsend, .pull = chan_pull,
	.drop = chan_drop, .pause = chan_pause, .close = chan_close
};

/* A channel over @fd, which it owns also on failure. */
static int
new_chan(struct tcp *t, int fd, const struct net_addr *peer, struct chan **out)
{
	static const struct { int level, name, value; } options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, DEAD_S / 3 },
		{ IPPROTO_TCP, TCP_KEEPINTVL, DEAD_S / 5 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 3 },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, DEAD_S * 1000 }
	};
	struct chan *c = calloc(1, sizeof(*c));
	int rc = -ENOMEM;

	if (c == NULL)
		goto fail;
	for (unsigned i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (setsockopt(fd, options[i].level, options[i].name,
		    &options[i].value, sizeof(int)) != 0) {
			rc = -errno;
			goto fail;
		}
	if ((rc = uv_poll_init(loop_uv(t->loop), &c->poll, fd)) != 0)
		goto fail;
	c->c.ops = &chan_ops;
	c->c.peer = *peer;
	c->c.rx_ns = clock_now(t->clock);
	c->tcp = t;
	c->fd = fd;
	c->refs = 2;
	c->dst = c->dst_few;
	list_init(&c->dirty);
	list_init(&c->txs);
	list_init(&c->left);
	t->open_n++;
	*out = c;
	return 0;
fail:
	free(c);
	close(fd);
	return rc;
}

/* ---- addresses ---- */

static socklen_t
to_sockaddr(const struct net_addr *a, struct sockaddr_storage *ss)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;

	memset(ss, 0, sizeof(*ss));
	if (a->kind == NET_ADDR_TCP4) {
		in->sin_family = AF_INET;
		in->sin_port = htons(a->port);
		memcpy(&in->sin_addr, a->ip, 4);
		return sizeof(*in);
	}
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(a->port);
	in6->sin6_scope_id = a->id;
	memcpy(&in6->sin6_addr, a->ip, 16);
	return sizeof(*in6);
}

static void
from_sockaddr(const struct sockaddr_storage *ss, struct net_addr *a)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)ss;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;

	*a = (struct net_addr){ 0 };
	if (ss->ss_family == AF_INET) {
		a->kind = NET_ADDR_TCP4;
		a->port = ntohs(in->sin_port);
		memcpy(a->ip, &in->sin_addr, 4);
	} else {
		a->kind = NET_ADDR_TCP6;
		a->port = ntohs(in6->sin6_port);
		a->id = in6->sin6_scope_id;
		memcpy(a->ip, &in6->sin6_addr, 16);
	}
}

static int
open_socket(const struct net_addr *a)
{
	int fd = socket(a->kind == NET_ADDR_TCP4 ? AF_INET : AF_INET6,
	    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

/* ---- the transport ---- */

static bool
tcp_serves(const struct net_transport *t, uint8_t kind)
{
	(void)t;
	return kind == NET_ADDR_TCP4 || kind == NET_ADDR_TCP6;
}

static int
tcp_connect(struct net_transport *transport, const struct net_addr *to,
    struct net_chan **out)
{
	struct tcp *t = container_of(transport, struct tcp, t);
	struct sockaddr_storage ss;
	socklen_t n = to_sockaddr(to, &ss);
	struct chan *c;
	int fd, rc;

	if ((fd = open_socket(to)) < 0)
		return fd;
	if ((rc = new_chan(t, fd, to, &c)) != 0)
		return rc;
	c->connecting = true;
	do
		rc = connect(fd, (const struct sockaddr *)&ss, n);
	while (rc != 0 && errno == EINTR);
	if (rc == 0) {
		c->connected_due = true;
		mark(c);
	} else if (errno != EINPROGRESS) {
		fail_later(c, -errno);
	} else {
		watch(c);
	}
	*out = &c->c;
	return 0;
}

static void on_accept(uv_poll_t *h, int status, int events);

static void
accept_again(struct clock_timer *timer)
{
	struct listener *l = container_of(timer, struct listener, retry);

	uv_poll_start(&l->poll, UV_READABLE, on_accept);
}

/* Out of descriptors or memory: the queue keeps who waits; we look again later rather
 * than spin on a socket that stays readable. */
static void
pause_accept(struct listener *l, int rc)
{
	uint64_t now = clock_now(l->tcp->clock);

	if (l->log_ns == 0 || now - l->log_ns > 10 * NS_PER_S) {
		log_error(l->tcp->log, "cannot accept", "why=%s", err_name(rc));
		l->log_ns = now;
	}
	uv_poll_stop(&l->poll);
	clock_timer_start(l->tcp->clock, &l->retry, now + ACCEPT_PAUSE_NS,
	    accept_again);
}

static void
on_accept(uv_poll_t *h, int status, int events)
{
	struct listener *l = container_of(h, struct listener, poll);
	struct tcp *t = l->tcp;

	(void)status;
	(void)events;
	t->held++;
	for (unsigned i = 0; i < ACCEPTS && !l->closed; i++) {
		struct sockaddr_storage ss;
		socklen_t n = sizeof(ss);
		struct net_addr peer;
		struct chan *c;
		int fd, rc;

		fd = accept4(l->fd, (struct sockaddr *)&ss, &n,
		    SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && errno == EAGAIN)
			break;
		if (fd < 0 && (errno == EMFILE || errno == ENFILE ||
		    errno == ENOBUFS || errno == ENOMEM)) {
			pause_accept(l, -errno);
			break;
		}
		if (fd < 0)
			continue;	/* it went away while it waited */
		from_sockaddr(&ss, &peer);
		if ((rc = new_chan(t, fd, &peer, &c)) != 0) {
			log_debug(t->log, "accepted socket failed", "why=%s",
			    err_name(rc));
			continue;
		}
		l->fn(l->ctx, &c->c);
		/* The owner has set it up, or closed it and it lives until the loop
		 * has let go of its handle. */
		watch(c);
	}
	tcp_put(t);
}

static int
tcp_listen(struct net_transport *transport, const struct net_addr *at,
    net_accept_fn *fn, void *ctx, struct net_listener **out)
{
	struct tcp *t = container_of(transport, struct tcp, t);
	struct sockaddr_storage ss;
	socklen_t n = to_sockaddr(at, &ss);
	struct listener *l = calloc(1, sizeof(*l));
	int one = 1, fd = -1, rc = -ENOMEM;

	if (l == NULL)
		return -ENOMEM;
	if ((rc = fd = open_socket(at)) < 0)
		goto fail;
	rc = 0;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    (at->kind == NET_ADDR_TCP6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY,
	    &one, sizeof(one)) != 0) ||
	    bind(fd, (const struct sockaddr *)&ss, n) != 0 ||
	    listen(fd, BACKLOG) != 0)
		rc = -errno;
	if (rc != 0 || (rc = uv_poll_init(loop_uv(t->loop), &l->poll, fd)) != 0)
		goto fail;
	l->tcp = t;
	l->fd = fd;
	l->fn = fn;
	l->ctx = ctx;
	t->open_n++;
	uv_poll_start(&l->poll, UV_READABLE, on_accept);
	*out = (struct net_listener *)l;
	return 0;
fail:
	if (fd >= 0)
		close(fd);
	free(l);
	return rc;
}

static void
tcp_listen_addr(const struct net_listener *listener, struct net_addr *out)
{
	const struct listener *l = (const struct listener *)listener;
	struct sockaddr_storage ss;
	socklen_t n = sizeof(ss);
	int rc = getsockname(l->fd, (struct sockaddr *)&ss, &n);

	assert(rc == 0);		/* a bound socket has a name */
	from_sockaddr(&ss, out);
}

static void
listener_closed(uv_handle_t *h)
{
	free(container_of((uv_poll_t *)h, struct listener, poll));
}

static void
tcp_unlisten(struct net_listener *listener)
{
	struct listener *l = (struct listener *)listener;

	l->closed = true;
	clock_timer_stop(l->tcp->clock, &l->retry);
	uv_close((uv_handle_t *)&l->poll, listener_closed);
	close(l->fd);
	l->tcp->open_n--;
}

static void
tcp_close(struct net_transport *transport)
{
	struct tcp *t = container_of(transport, struct tcp, t);

	assert(t->open_n == 0 && list_empty(&t->dirty));
	clock_undefer(t->clock, &t->work);
	t->closed = true;
	t->held++;
	tcp_put(t);
}

static const struct net_transport_ops tcp_ops = {
	.serves = tcp_serves, .listen = tcp_listen, .listen_addr = tcp_listen_addr,
	.unlisten = tcp_unlisten, .connect = tcp_connect, .close = tcp_close
};

int
net_tcp_open(struct net_transport **out, struct loop *loop, const struct log *log)
{
	struct tcp *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return -ENOMEM;
	t->t.ops = &tcp_ops;
	t->loop = loop;
	t->clock = loop_clock(loop);
	t->log = log;
	list_init(&t->dirty);
	*out = &t->t;
	return 0;
}
