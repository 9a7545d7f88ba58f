/* SPDX-License-Identifier: MIT */
/* tcp_out.c - sending.  Small heads are copied into one run of bytes per channel; larger
 * ones and payloads are sent from where they are.  Both go out together, once per turn:
 *
 *   small bytes (tx->pre of them) | head and payload of tx | small bytes | ... | tail
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/tcp_chan.h"

#define RUN_BYTES	(64u << 10)	/* of small heads */
#define COPY_BYTES	(4u << 10)	/* longer heads are not small */

static uint64_t
length(const struct net_tx *tx)
{
	return (uint64_t)tx->head_len + tx->bulk_len;
}

static bool
anything_to_send(const struct tcp_chan *c)
{
	return c->tail > 0 || !list_empty(&c->txs);
}

/* Copy a small head to the end of the run. */
static bool
append(struct tcp_chan *c, const uint8_t *p, uint32_t n)
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

bool
net_tcp_send(struct net_chan *chan, struct net_tx *tx)
{
	struct tcp_chan *c = net_tcp_of(chan);
	bool taken;

	if (chan->out_bytes == 0)
		chan->tx_since_ns = clock_now(c->tcp->clock);
	chan->out_bytes += length(tx);
	stat_add(&c->tcp->stat.sent_bytes, tx->bulk_len);
	taken = tx->bulk_len == 0 && tx->head_len <= COPY_BYTES &&
	    append(c, tx->head, tx->head_len);
	if (!taken) {
		tx->done = 0;
		tx->pre = c->tail;
		c->tail = 0;
		list_push_back(&c->txs, &tx->node);
	}
	if (!c->connecting && !c->blocked)
		net_tcp_mark(c);
	return taken;
}

int
net_tcp_unsend(struct net_chan *chan, struct net_tx *tx)
{
	struct tcp_chan *c = net_tcp_of(chan);

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
gather_run(const struct tcp_chan *c, uint64_t *at, uint64_t n, struct iovec *iov)
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
gather(const struct tcp_chan *c, struct iovec iov[IOV_N], size_t *bytes)
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
leave_run(struct tcp_chan *c, uint64_t *of_this, uint64_t *sent)
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
consume(struct tcp_chan *c, uint64_t sent)
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
int
net_tcp_flush(struct tcp_chan *c, size_t turn)
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
		stat_add(&c->tcp->stat.writes, 1);
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

void
net_tcp_writable(struct tcp_chan *c)
{
	size_t before = c->c.out_bytes;
	int rc = net_tcp_flush(c, TURN_BYTES);

	while (!c->closed && !list_empty(&c->left)) {
		struct list *l = list_pop_front(&c->left);

		c->c.up->sent(&c->c, list_entry(l, struct net_tx, node));
	}
	if (c->closed)
		return;
	if (rc != 0) {
		net_tcp_fail_now(c, rc);
		return;
	}
	if (before > c->c.out_mark / 2 && c->c.out_bytes <= c->c.out_mark / 2)
		c->c.up->drained(&c->c);
	net_tcp_watch(c);
}
