/* SPDX-License-Identifier: MIT */
/* tcp_rig.h - a server behind TCP, a good client beside it, and raw sockets of the test, which
 * turns the loop while it waits. */
#ifndef TESTS_TCP_RIG_H
#define TESTS_TCP_RIG_H

#include "tests/net_rig.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <sodium.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net/frame.h"
#include "net/hello.h"

#define MIB	(1u << 20)

static struct rig rig;
static uint8_t *shelf, *mine;		/* 16 MiB each */
static unsigned served, pulled, pull_failed, sent_n, done;
static struct net_req *held[32];
static unsigned held_n;

/* ---- the server ---- */

static void
was_sent(void *arg)
{
	(void)arg;
	sent_n++;
}

static void
write_pulled(struct net_req *req, int rc)
{
	struct msg_write_rep rep = { .len = req->bulk_len };

	if (rc == 0)
		pulled++;
	else
		pull_failed++;
	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
}

static void
handler(void *ctx, struct net_req *req)
{
	(void)ctx;
	served++;
	if (req->method == MSG_write) {
		struct iovec dst = { shelf, req->bulk_len };

		net_pull_start(req, &dst, 1, write_pulled);
	} else if (req->method == MSG_read) {
		struct msg_read_rep rep = { { NULL, 0 } };
		struct net_piece p = { shelf, req->recv_len, 0 };

		net_reply(req, 0, &rep, &p, 1, was_sent, NULL);
	} else if (req->method == MSG_last) {
		held[held_n++] = req;
	} else if (req->method != MSG_committed) {
		net_reply(req, ERR_BAD_METHOD, NULL, NULL, 0, NULL, NULL);
	} else {
		const struct msg_committed *m = req->msg;
		struct msg_committed_rep rep = { m->chunk.ino };

		net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
	}
}

/* ---- a good client beside ---- */

struct ask {
	struct net_call call;
	int	rc;
	uint64_t version;
	uint32_t bulk;
};

static void
asked(struct net_call *c, int rc)
{
	struct ask *a = container_of(c, struct ask, call);

	a->rc = rc;
	a->bulk = c->rep_bulk;
	if (rc == 0 && c->method->id == MSG_committed)
		a->version = ((const struct msg_committed_rep *)c->rep)->version;
	done++;
}

static void
start(struct ask *a, uint16_t method, const void *req, const struct iovec *recv,
    unsigned ms)
{
	struct net_call_opts opts = {
		.deadline_ns = clock_now(rig.cclock) + ms * NS_PER_MS,
		.recv = recv, .recv_n = recv != NULL
	};

	ck_assert_int_eq(net_call_start(&a->call, rig.chub, &rig.addr, method, req,
	    &opts, asked), 0);
}

static void
check_alive(void)
{
	struct msg_committed m = { .chunk = { 17, 0 } };
	struct ask a = { .rc = 1 };
	unsigned before = done;

	start(&a, MSG_committed, &m, NULL, 5000);
	rig_until(&rig, &done, before + 1);
	ck_assert_int_eq(a.rc, 0);
	ck_assert_uint_eq(a.version, 17);
}

/* ---- raw sockets ---- */

static uint64_t
wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static int
raw_connect(int rcvbuf)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	in.sin_port = htons(rig.addr.port);
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (rcvbuf > 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf));
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* All of it, unless the peer closes: then what went. */
static size_t
raw_send(int fd, const void *p, size_t n)
{
	uint64_t end = wall_ns() + 10 * NS_PER_S;
	size_t at = 0;

	while (at < n && wall_ns() < end) {
		ssize_t k = send(fd, (const char *)p + at, n - at, MSG_NOSIGNAL);

		if (k < 0 && errno != EAGAIN)
			break;
		if (k > 0)
			at += (size_t)k;
		loop_turn(rig.loop, false);
	}
	return at;
}

/* @n bytes, or those before the end. */
static size_t
raw_recv(int fd, void *p, size_t n)
{
	uint64_t end = wall_ns() + 10 * NS_PER_S;
	size_t at = 0;

	while (at < n && wall_ns() < end) {
		ssize_t k = recv(fd, (char *)p + at, n - at, 0);

		if (k == 0 || (k < 0 && errno != EAGAIN))
			break;
		if (k > 0)
			at += (size_t)k;
		loop_turn(rig.loop, false);
	}
	return at;
}

/* The server closes it, whatever it says before. */
static void
check_closed(int fd, const char *what)
{
	uint64_t end = wall_ns() + 10 * NS_PER_S;
	char buf[4096];
	ssize_t k;

	do {
		loop_turn(rig.loop, false);
		k = recv(fd, buf, sizeof(buf), 0);
	} while ((k > 0 || (k < 0 && errno == EAGAIN)) && wall_ns() < end);
	ck_assert_msg(k == 0 || (k < 0 && errno == ECONNRESET), "%s: open", what);
	close(fd);
}

/* What a member says first. */
static void
raw_login(int fd)
{
	uint8_t nonce[NET_NONCE] = { 9 }, tag[NET_TAG], in[NET_HELLO2];
	uint8_t out[NET_HELLO_MAX];
	struct net_hello h;
	uint32_t n;

	net_hello_tag(rig.hub_conf.key, NULL, tag);
	net_hello_ask(&h, rig.hub_conf.key, tag, NET_WIRE_MIN, NET_WIRE_MIN, nonce, out);
	ck_assert_uint_eq(raw_send(fd, out, NET_HELLO1), NET_HELLO1);
	ck_assert_uint_eq(raw_recv(fd, in, NET_HELLO2), NET_HELLO2);
	ck_assert_int_eq(net_hello_take(&h, in, NET_HELLO2, nonce, out, &n), 1);
	ck_assert_uint_eq(raw_send(fd, out, n), n);
}

/* A request with no fields but what its message has by itself; bytes. */
static uint32_t
make_request(uint8_t *out, uint16_t method, const void *msg, uint64_t id,
    uint32_t bulk_len, uint32_t room)
{
	struct net_frame f = { .bulk_len = bulk_len, .id = id, .method = method,
	    .kind = NET_FRAME_REQUEST, .arg = 10000, .pieces = room > 0 };
	int n = msg_encode(msg_method(method)->request, msg, out + NET_HEAD, 1000);

	ck_assert_int_ge(n, 0);
	if (room > 0) {
		net_frame_piece_put(out + NET_HEAD + n, 0, room);
		n += 8;
	}
	f.msg_len = (uint32_t)n;
	net_frame_encode(&f, out);
	return NET_HEAD + f.msg_len;
}

static uint32_t
make_echo(uint8_t *out, uint64_t id, uint64_t ino)
{
	struct msg_committed m = { .chunk = { ino, 0 } };

	return make_request(out, MSG_committed, &m, id, 0, 0);
}

/* The next reply's head and message; its payload is left on the socket. */
static void
raw_reply(int fd, struct net_frame *f, uint8_t *head)
{
	ck_assert_uint_eq(raw_recv(fd, head, NET_HEAD), NET_HEAD);
	f->msg_len = head[8] | (uint32_t)head[9] << 8;
	ck_assert_uint_eq(raw_recv(fd, head + NET_HEAD, f->msg_len), f->msg_len);
	ck_assert_int_eq(net_frame_decode(head, NET_HEAD + f->msg_len, f), 0);
}

static void
setup(void)
{
	shelf = malloc(16 * MIB);
	mine = malloc(16 * MIB);
	for (size_t i = 0; i < 16 * MIB; i++)
		shelf[i] = (uint8_t)(i * 2654435761u >> 11);
	memset(mine, 1, 16 * MIB);
	served = pulled = pull_failed = sent_n = done = held_n = 0;
	rig_open(&rig, RIG_TCP, 1);
	rig.conf.hello_ms = 150;
	rig.conf.payload_ms = 200;
	rig.conf.conn_reqs_max = 16;
	rig_serve(&rig, handler, NULL);
}

static void
teardown(void)
{
	rig_close(&rig);
	free(shelf);
	free(mine);
}

/* ---- the system's limits ---- */

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

#endif
