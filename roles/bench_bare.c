/* SPDX-License-Identifier: MIT */
/* bench_bare.c - a bare stream, see bench_bare.h.  The client says how long: it closes. */
#include "roles/bench_bare.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S	10	/* with a peer that neither comes nor goes on */

uint64_t
bench_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t
bench_cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000u +
	    (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* As those of net/tcp.c, but blocking, for a while. */
static int
tune(int fd)
{
	struct timeval patience = { .tv_sec = PATIENCE_S };
	int one = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0)
		return -errno;
	return 0;
}

/* All of @n bytes; 1: the stream has ended before the first. */
static int
read_all(int fd, uint8_t *p, size_t n)
{
	size_t at = 0;

	while (at < n) {
		ssize_t got = read(fd, p + at, n - at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return at == 0 ? 1 : -ECONNRESET;
		at += (size_t)got;
	}
	return 0;
}

static int
write_all(int fd, const uint8_t *p, size_t n)
{
	size_t at = 0;

	while (at < n) {
		ssize_t put = send(fd, p + at, n - at, MSG_NOSIGNAL);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		at += (size_t)put;
	}
	return 0;
}

/* ---- the server's part ---- */

int
bench_bare_listen(struct net_addr *at)
{
	struct sockaddr_storage ss;
	socklen_t n;
	int fd, rc;

	at->port = 0;
	n = net_addr_sockaddr(at, &ss);
	if ((fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&ss, n) != 0 || listen(fd, 1) != 0 ||
	    getsockname(fd, (struct sockaddr *)&ss, &n) != 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	at->port = ntohs(ss.ss_family == AF_INET ?
	    ((struct sockaddr_in *)&ss)->sin_port :
	    ((struct sockaddr_in6 *)&ss)->sin6_port);
	return fd;
}

static int
serve(const struct bench_bare *b, int fd)
{
	int rc = 0;

	for (uint32_t i = 0; rc == 0; i = (i + 1) % b->places) {
		uint8_t *p = b->mem + (size_t)i * b->len;

		if (b->kind != BENCH_BARE_SOURCE)
			rc = read_all(fd, p, b->len);
		if (rc == 0 && b->kind != BENCH_BARE_SINK)
			rc = write_all(fd, p, b->len);
	}
	/* The client ends a source by going away. */
	return rc == 1 || (b->kind == BENCH_BARE_SOURCE &&
	    (rc == -EPIPE || rc == -ECONNRESET)) ? 0 : rc;
}

int
bench_bare_serve(const struct bench_bare *b, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int conn = -1, rc = poll(&p, 1, PATIENCE_S * 1000);

	if (rc == 0)
		rc = -ETIMEDOUT;
	else if (rc < 0 || (conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) < 0)
		rc = -errno;
	else
		rc = tune(conn);
	close(fd);
	if (rc == 0)
		rc = serve(b, conn);
	if (conn >= 0)
		close(conn);
	return rc;
}

/* ---- the client's ---- */

static int
one(const struct bench_bare *b, int fd, uint32_t i, struct bench_bare_result *r)
{
	uint8_t *p = b->mem + (size_t)i * b->len;
	uint64_t began = bench_now_ns();
	int rc = 0;

	if (b->kind != BENCH_BARE_SOURCE)
		rc = write_all(fd, p, b->len);
	if (rc == 0 && b->kind != BENCH_BARE_SINK)
		rc = read_all(fd, p, b->len);
	if (rc != 0)
		return rc == 1 ? -ECONNRESET : rc;
	r->bytes += b->len;
	if (b->kind == BENCH_BARE_ECHO && r->n < r->cap)
		r->rtt_ns[r->n++] = (uint32_t)(bench_now_ns() - began);
	return 0;
}

int
bench_bare_measure(const struct bench_bare *b, const struct net_addr *to, uint32_t ms,
    struct bench_bare_result *r)
{
	struct sockaddr_storage ss;
	socklen_t n = net_addr_sockaddr(to, &ss);
	int rc, fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t began, end;
	uint8_t last;

	if (fd < 0)
		return -errno;
	if ((rc = tune(fd)) == 0 && connect(fd, (struct sockaddr *)&ss, n) != 0)
		rc = -errno;
	began = bench_now_ns();
	end = began + ms * 1000000ull;
	for (uint32_t i = 0; rc == 0 && bench_now_ns() < end; i = (i + 1) % b->places)
		rc = one(b, fd, i, r);
	/* What was written has been read when the server closes too. */
	if (rc == 0 && b->kind == BENCH_BARE_SINK) {
		if (shutdown(fd, SHUT_WR) != 0)
			rc = -errno;
		else if ((rc = read_all(fd, &last, 1)) == 1)
			rc = 0;
	}
	r->ns += bench_now_ns() - began;
	close(fd);
	return rc;
}
