/* SPDX-License-Identifier: MIT */
/* tcp_in.c - receiving.  All channels of a loop read into one small buffer; many heads fit
 * in it, and they are handed up from there.  What cannot be used yet (a cut head, bytes
 * behind a payload nobody has asked for) moves to the channel's own buffer.  A payload being
 * pulled is read straight into place, with the small buffer behind it for what follows.
 *
 *   rx   NONE --head with payload--> ASKED --pull--> PULL --all here--> NONE
 *                                      \-----drop--> DROP --/
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "conf/err.h"
#include "net/frame.h"
#include "net/tcp_chan.h"

#define READ_SPARE	(4u << 10)	/* a cut head up to this is moved back into it */
#define KEEP_BYTES	(16u << 10)	/* of c->in, while it is empty */

bool
net_tcp_wants_to_read(const struct tcp_chan *c)
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

/* Put @n bytes into the pull's places. */
static void
fill(struct tcp_chan *c, const uint8_t *p, size_t n)
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
take_payload(struct tcp_chan *c)
{
	size_t n = (size_t)(c->end - c->cur);

	if (n > c->rx_left)
		n = c->rx_left;
	if (c->rx_state == RX_PULL) {
		fill(c, c->cur, n);
		stat_add(&c->tcp->stat.recv_bytes, n);
		stat_add(&c->tcp->stat.copied_bytes, n);
	}
	c->cur += n;
	c->rx_left -= (uint32_t)n;
	return c->rx_left == 0;
}

static void
payload_done(struct tcp_chan *c)
{
	bool pulled = c->rx_state == RX_PULL;

	c->rx_state = RX_NONE;
	c->c.rx_since_ns = 0;
	if (pulled)
		c->c.up->pulled(&c->c, &c->rx);
}

/* Hand up what is in [cur, end), as far as it can be. 0 or why it broke. */
static int
process(struct tcp_chan *c)
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
move_in(struct tcp_chan *c, size_t cap)
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
settle(struct tcp_chan *c)
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
head_needs(const struct tcp_chan *c, size_t *need)
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
receive(struct tcp_chan *c, struct iovec *iov, size_t n)
{
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t got;

	do
		got = recvmsg(c->fd, &m, 0);
	while (got < 0 && errno == EINTR);
	stat_add(&c->tcp->stat.reads, 1);
	loop_touch(c->tcp->loop);
	return got < 0 ? -errno : got;
}

/* Payload into place, and what comes behind it into the small buffer.  Bytes or
 * -errno; *want: what was asked for. */
static ssize_t
read_pull(struct tcp_chan *c, size_t *want)
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
	stat_add(&c->tcp->stat.recv_bytes, room);
	c->rx_left -= (uint32_t)room;
	return got;
}

static ssize_t
read_drop(struct tcp_chan *c, size_t *want)
{
	ssize_t got;

	*want = c->rx_left < READ_BYTES ? c->rx_left : READ_BYTES;
	do		/* tcp(7): thrown away in the kernel, nothing is copied */
		got = recv(c->fd, c->tcp->buf, *want, MSG_TRUNC);
	while (got < 0 && errno == EINTR);
	stat_add(&c->tcp->stat.reads, 1);
	if (got > 0)
		c->rx_left -= (uint32_t)got;
	return got < 0 ? -errno : got;
}

/* More of a head, or new ones. */
static ssize_t
read_heads(struct tcp_chan *c, size_t *want)
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

void
net_tcp_readable(struct tcp_chan *c)
{
	size_t turn = 0, want;
	ssize_t got = 0;
	int rc;

	while (turn < TURN_BYTES && !c->closed && c->failed == 0 &&
	    net_tcp_wants_to_read(c)) {
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
			net_tcp_fail_now(c, got == 0 ? -ECONNRESET : (int)got);
			return;
		}
		turn += (size_t)got;
		c->c.rx_ns = clock_now(c->tcp->clock);
		rc = process(c);
		if (c->closed)
			return;
		if (rc != 0 || (rc = settle(c)) != 0) {
			net_tcp_fail_now(c, rc);
			return;
		}
		if ((size_t)got < want)
			break;		/* the socket is empty */
	}
	net_tcp_watch(c);
}

bool
net_tcp_resume(struct tcp_chan *c)
{
	int rc = process(c);

	if (c->closed)
		return false;
	if (rc == 0)
		rc = settle(c);
	if (rc != 0)
		net_tcp_fail_now(c, rc);
	return rc == 0 && c->failed == 0;
}

/* ---- pull, drop, pause ---- */

/* A payload's fate has been decided within a call: what is here already is used now,
 * what is behind it at the end of the turn. True: all of it was here. */
static bool
decide(struct tcp_chan *c, enum rx_state state)
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
	net_tcp_mark(c);
	return all;
}

int
net_tcp_pull(struct net_chan *chan, struct net_rx *rx, const struct iovec *iov,
    unsigned n)
{
	struct tcp_chan *c = net_tcp_of(chan);
	uint64_t sum = 0;

	assert(rx == &c->rx);
	if (c->dst != c->dst_few)
		free(c->dst);
	c->dst = c->dst_few;
	if (n > DST_N && (c->dst = malloc(n * sizeof(*iov))) == NULL) {
		c->dst = c->dst_few;
		net_tcp_fail_later(c, -ENOMEM);
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

void
net_tcp_drop(struct net_chan *chan, struct net_rx *rx)
{
	assert(rx == &net_tcp_of(chan)->rx);
	decide(net_tcp_of(chan), RX_DROP);
}

void
net_tcp_pause(struct net_chan *chan, bool paused)
{
	struct tcp_chan *c = net_tcp_of(chan);

	c->paused = paused;
	net_tcp_mark(c);
}
