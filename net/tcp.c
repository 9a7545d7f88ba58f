/* SPDX-License-Identifier: MIT */
/* tcp.c - frames over non-blocking sockets that the loop's libuv polls: connecting,
 * listening, turns.  Bytes in are net/tcp_in.c's, bytes out net/tcp_out.c's. */
#include "net/tcp.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conf/err.h"
#include "net/tcp_chan.h"

STAT_DEFINE(net_tcp, NET_TCP_STATS)

#define BACKLOG		1024
#define ACCEPTS		64u		/* in one turn */
#define ACCEPT_PAUSE_NS	(100 * NS_PER_MS)
/* A dead peer is noticed this soon, idle or not. */
#define DEAD_S		15

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

static void
tcp_put(struct tcp *t)
{
	if (--t->held > 0 || !t->closed)
		return;
	free(t->spare_run);
	free(t);
}

static void
chan_put(struct tcp_chan *c)
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
	chan_put(container_of((uv_poll_t *)h, struct tcp_chan, poll));
}

/* ---- what the loop watches ---- */

static void on_poll(uv_poll_t *h, int status, int events);

void
net_tcp_watch(struct tcp_chan *c)
{
	int events = 0;

	if (c->closed)
		return;
	if (c->failed == 0) {
		if (!c->connecting && net_tcp_wants_to_read(c))
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
void
net_tcp_mark(struct tcp_chan *c)
{
	if (!list_empty(&c->dirty))
		return;
	list_push_back(&c->tcp->dirty, &c->dirty);
	clock_defer(c->tcp->clock, &c->tcp->work, work);
}

void
net_tcp_fail_later(struct tcp_chan *c, int rc)
{
	if (c->failed == 0)
		c->failed = rc;
	net_tcp_mark(c);
}

/* From an upcall's place only. */
void
net_tcp_fail_now(struct tcp_chan *c, int rc)
{
	c->failed = rc;
	net_tcp_watch(c);
	list_remove(&c->dirty);
	c->c.up->closed(&c->c, rc);
}

/* ---- turns ---- */

static int
socket_error(const struct tcp_chan *c)
{
	int rc = 0;
	socklen_t n = sizeof(rc);

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &rc, &n) != 0)
		rc = errno;
	return -rc;
}

static void from_sockaddr(const struct sockaddr_storage *ss, struct net_addr *a);

/* Both ends on one host: nothing is lost on the way and nothing has to be paced, which
 * congestion controls that pace (BBR) would do all the same, at half the speed and for
 * twice the processor time.  Only a wish. */
static void
ease_local(int fd)
{
	struct sockaddr_storage a, b;
	socklen_t an = sizeof(a), bn = sizeof(b);
	struct net_addr mine, theirs;

	if (getsockname(fd, (struct sockaddr *)&a, &an) != 0 ||
	    getpeername(fd, (struct sockaddr *)&b, &bn) != 0)
		return;
	from_sockaddr(&a, &mine);
	from_sockaddr(&b, &theirs);
	if (mine.kind == theirs.kind &&
	    memcmp(mine.ip, theirs.ip, sizeof(mine.ip)) == 0)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

static void
connect_ended(struct tcp_chan *c)
{
	int rc = socket_error(c);

	if (rc != 0) {
		net_tcp_fail_now(c, rc);
		return;
	}
	c->connecting = false;
	ease_local(c->fd);
	c->c.up->connected(&c->c);
	if (!c->closed) {
		net_tcp_mark(c);
		net_tcp_watch(c);
	}
}

static void
on_poll(uv_poll_t *h, int status, int events)
{
	struct tcp_chan *c = container_of(h, struct tcp_chan, poll);

	c->refs++;
	c->tcp->held++;
	if (status < 0) {
		/* libuv says no more than that, and has stopped the handle. */
		int rc = socket_error(c);

		c->events = 0;
		net_tcp_fail_now(c, rc != 0 ? rc : -ECONNRESET);
	} else if (c->connecting) {
		connect_ended(c);
	} else {
		if (events & UV_READABLE)
			net_tcp_readable(c);
		if ((events & UV_WRITABLE) && !c->closed && c->failed == 0)
			net_tcp_writable(c);
	}
	tcp_put(c->tcp);
	chan_put(c);
}

/* The end of the turn for one channel. */
static void
chan_work(struct tcp_chan *c)
{
	if (c->failed != 0) {
		net_tcp_fail_now(c, c->failed);
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
	if (c->cur != c->end && !net_tcp_resume(c))
		return;
	if (!c->blocked)
		net_tcp_writable(c);
	else
		net_tcp_watch(c);
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
		struct tcp_chan *c = list_entry(l, struct tcp_chan, dirty);

		c->refs++;
		chan_work(c);
		chan_put(c);
	}
	tcp_put(t);
}

/* ---- open and close ---- */

static void
chan_close(struct net_chan *chan, struct list *unsent, bool linger)
{
	struct tcp_chan *c = net_tcp_of(chan);
	struct tcp *t = c->tcp;

	assert(!c->closed);
	if (linger && !c->connecting && c->failed == 0)
		(void)net_tcp_flush(c, SIZE_MAX);
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
	.send = net_tcp_send, .unsend = net_tcp_unsend, .pull = net_tcp_pull,
	.drop = net_tcp_drop, .pause = net_tcp_pause, .close = chan_close
};

/* A channel over @fd, which it owns also on failure. */
static int
new_chan(struct tcp *t, int fd, const struct net_addr *peer, struct tcp_chan **out)
{
	static const struct { int level, name, value; } options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, DEAD_S / 3 },
		{ IPPROTO_TCP, TCP_KEEPINTVL, DEAD_S / 5 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 3 },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, DEAD_S * 1000 }
	};
	struct tcp_chan *c = calloc(1, sizeof(*c));
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
	socklen_t n = net_addr_sockaddr(to, &ss);
	struct tcp_chan *c;
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
		net_tcp_mark(c);
	} else if (errno != EINPROGRESS) {
		net_tcp_fail_later(c, -errno);
	} else {
		net_tcp_watch(c);
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
		struct tcp_chan *c;
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
		ease_local(fd);
		l->fn(l->ctx, &c->c);
		/* The owner has set it up, or closed it and it lives until the loop
		 * has let go of its handle. */
		net_tcp_watch(c);
	}
	tcp_put(t);
}

static int
tcp_listen(struct net_transport *transport, const struct net_addr *at,
    net_accept_fn *fn, void *ctx, struct net_listener **out)
{
	struct tcp *t = container_of(transport, struct tcp, t);
	struct sockaddr_storage ss;
	socklen_t n = net_addr_sockaddr(at, &ss);
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
	stat_remove(&t->stat_set);
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
net_tcp_open(struct net_transport **out, struct loop *loop, const struct log *log,
    struct stat_registry *stats)
{
	struct tcp *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return -ENOMEM;
	t->t.ops = &tcp_ops;
	t->loop = loop;
	t->clock = loop_clock(loop);
	t->log = log;
	list_init(&t->dirty);
	stat_attach(stats, &t->stat_set, "fsd_net_tcp", log->who, net_tcp_stat_rows,
	    &t->stat);
	*out = &t->t;
	return 0;
}

const struct net_tcp_stat *
net_tcp_stats(const struct net_transport *transport)
{
	assert(transport->ops == &tcp_ops);
	return &container_of((struct net_transport *)(uintptr_t)transport, struct tcp, t)->stat;
}
