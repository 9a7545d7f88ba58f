/* SPDX-License-Identifier: MIT */
/* bench_net.c - small calls and 1 MiB payloads over loopback TCP and local, one client loop
 * and one server loop, against a bare socket pair moving the same bytes. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net/call.h"
#include "net/local.h"
#include "net/loop.h"
#include "net/msg_all.h"
#include "net/serve.h"
#include "net/tcp.h"

#define MIB	(1u << 20)
#define RUN_NS	(2 * NS_PER_S)
#define DEPTH_MAX 128

static uint8_t *shelf;			/* the server's memory, and the pair's */
static struct log logger;

static uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void
die(const char *what, int rc)
{
	fprintf(stderr, "%s: %d\n", what, rc);
	exit(1);
}

/* ---- a bare pair ---- */

static int pair[2];
static size_t unit;

/* A socket that is read to pieces of @unit, and that many written, for RUN_NS. */
static void *
pair_writer(void *arg)
{
	uint8_t *mem = arg;
	uint64_t end = now_ns() + RUN_NS;

	while (now_ns() < end)
		for (size_t at = 0; at < unit;) {
			ssize_t n = write(pair[1], mem + at, unit - at);

			if (n <= 0)
				die("write", errno);
			at += (size_t)n;
		}
	shutdown(pair[1], SHUT_WR);
	return NULL;
}

static void
tcp_pair(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	socklen_t n = sizeof(in);
	int l = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(l, (struct sockaddr *)&in, sizeof(in)) != 0 || listen(l, 1) != 0 ||
	    getsockname(l, (struct sockaddr *)&in, &n) != 0)
		die("listen", errno);
	pair[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(pair[0], (struct sockaddr *)&in, sizeof(in)) != 0)
		die("connect", errno);
	pair[1] = accept(l, NULL, NULL);
	setsockopt(pair[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(pair[1], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	close(l);
}

static double
bare_mib_s(void)
{
	pthread_t t;
	uint8_t *mine = malloc(64 * MIB);
	uint64_t start, bytes = 0, at = 0;
	double s;

	memset(mine, 1, 64 * MIB);
	tcp_pair();
	unit = MIB;
	pthread_create(&t, NULL, pair_writer, shelf);
	start = now_ns();
	for (;;) {
		ssize_t n = read(pair[0], mine + at, MIB - at % MIB);

		if (n <= 0)
			break;
		bytes += (uint64_t)n;
		at = (at + (uint64_t)n) % (64 * MIB);
	}
	s = (double)(now_ns() - start) / 1e9;
	pthread_join(t, NULL);
	close(pair[0]);
	close(pair[1]);
	free(mine);
	return (double)bytes / MIB / s;
}

/* ---- our side ---- */

static struct net_addr addr;
static struct net_hub_conf hub_conf = { .calls_max = 1000, .idle_ms = 0 };
static struct rand rnd;

struct side {
	struct loop_thread *thread;
	struct net_hub	   *hub;
	struct net_server  *server;
	bool		    local;
};

static void
pulled(struct net_req *req, int rc)
{
	struct msg_write_rep rep = { .len = req->bulk_len };

	net_reply(req, rc, &rep, NULL, 0, NULL, NULL);
}

static void
nothing(void *arg)
{
	(void)arg;
}

static unsigned place;

static void
handler(void *ctx, struct net_req *req)
{
	struct msg_committed_rep rep = { 1 };
	struct msg_read_result row = { .len = MIB };
	struct msg_read_rep read_rep = { { &row, 1 } };
	struct net_piece piece = { shelf, MIB, 0 };
	struct iovec dst = { shelf, req->bulk_len };

	(void)ctx;
	place = (place + 1) % 64;
	if (req->method == MSG_read) {
		piece.p = shelf + (size_t)place * MIB;
		net_reply(req, 0, &read_rep, &piece, 1, nothing, NULL);
	} else if (req->method == MSG_write) {
		dst.iov_base = shelf + (size_t)place * MIB;
		net_pull_start(req, &dst, 1, pulled);
	} else {
		net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
	}
}

static void
open_side(void *arg)
{
	struct side *s = arg;
	struct loop *l = loop_thread_loop(s->thread);
	struct net_hub_conf conf = hub_conf;
	struct net_transport *t;
	int rc;

	conf.clock = loop_clock(l);
	conf.rand = &rnd;
	conf.log = &logger;
	if ((rc = net_hub_open(&s->hub, &conf)) != 0)
		die("hub", rc);
	if (s->local)
		rc = net_local_open(&t, loop_clock(l));
	else
		rc = net_tcp_open(&t, l, &logger);
	if (rc != 0)
		die("transport", rc);
	net_hub_add(s->hub, t);
}

static void
open_server(void *arg)
{
	struct side *s = arg;
	struct net_server_conf conf = {
		.hub = s->hub, .listen = addr, .conns_max = 10, .reqs_max = 1000,
		.conn_reqs_max = 1000, .hello_ms = 1000, .payload_ms = 10000
	};
	int rc = net_server_open(&s->server, &conf);

	if (rc != 0)
		die("server", rc);
	net_server_handle(s->server, 3, handler, NULL);
	net_server_addr(s->server, &addr);
}

static void
close_side(void *arg)
{
	struct side *s = arg;

	net_server_close(s->server);
	net_hub_close(s->hub);
}

static struct {
	struct net_call calls[DEPTH_MAX];
	struct side    *side;
	uint16_t	method;
	unsigned	depth, active;
	uint64_t	n, end_ns, start_ns;
	uint8_t	       *mem;
	struct iovec	iov[DEPTH_MAX];
	pthread_mutex_t lock;
	pthread_cond_t  over;
} load = { .lock = PTHREAD_MUTEX_INITIALIZER, .over = PTHREAD_COND_INITIALIZER };

static void again(struct net_call *c, int rc);

static void
ask(struct net_call *c)
{
	size_t i = (size_t)(c - load.calls);
	struct msg_committed small = { .chain = 1, .target = 7, .chunk = { 77, 3 } };
	struct msg_read_item item = { .len = MIB };
	struct msg_read read = { .items = { &item, 1 } };
	struct msg_write write = { .len = MIB };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(loop_clock(loop_thread_loop(
		    load.side->thread))) + 10 * NS_PER_S
	};
	const void *req = &small;
	int rc;

	load.iov[i] = (struct iovec){ load.mem + i * MIB, MIB };
	if (load.method == MSG_read) {
		req = &read;
		opts.recv = &load.iov[i];
		opts.recv_n = 1;
	} else if (load.method == MSG_write) {
		req = &write;
		opts.send = &load.iov[i];
		opts.send_n = 1;
	}
	rc = net_call_start(c, load.side->hub, &addr, load.method, req, &opts, again);
	if (rc != 0)
		die("call", rc);
}

static void
again(struct net_call *c, int rc)
{
	if (rc != 0)
		die("reply", rc);
	load.n++;
	if (now_ns() < load.end_ns) {
		ask(c);
		return;
	}
	if (--load.active == 0) {
		pthread_mutex_lock(&load.lock);
		load.end_ns = 0;
		pthread_cond_signal(&load.over);
		pthread_mutex_unlock(&load.lock);
	}
}

static void
start_load(void *arg)
{
	(void)arg;
	load.active = load.depth;
	load.n = 0;
	load.start_ns = now_ns();
	load.end_ns = load.start_ns + RUN_NS;
	for (unsigned i = 0; i < load.depth; i++)
		ask(&load.calls[i]);
}

static double
run_load(struct side *client, uint16_t method, unsigned depth)
{
	load.side = client;
	load.method = method;
	load.depth = depth;
	load.end_ns = 1;
	loop_thread_call(client->thread, start_load, NULL);
	pthread_mutex_lock(&load.lock);
	while (load.end_ns != 0)
		pthread_cond_wait(&load.over, &load.lock);
	pthread_mutex_unlock(&load.lock);
	return (double)load.n / ((double)(now_ns() - load.start_ns) / 1e9);
}

static void
run_transport(bool local, double bare)
{
	struct side client = { .local = local }, server = { .local = local };
	const char *name = local ? "local" : "tcp", *text = local ? "local:1" :
	    "127.0.0.1:0";
	double n;

	net_addr_parse(text, strlen(text), &addr, NULL);
	if (loop_thread_start(&client.thread, "client") != 0 ||
	    loop_thread_start(&server.thread, "server") != 0)
		die("threads", errno);
	loop_thread_call(client.thread, open_side, &client);
	loop_thread_call(server.thread, open_side, &server);
	loop_thread_call(server.thread, open_server, &server);
	n = run_load(&client, MSG_committed, 1);
	printf("%-6s small calls, 1 at a time    %9.0f /s\n", name, n);
	n = run_load(&client, MSG_committed, 64);
	printf("%-6s small calls, 64 in flight   %9.0f /s\n", name, n);
	n = run_load(&client, MSG_read, 8);
	printf("%-6s 1 MiB to client, 8          %9.0f MiB/s  %.2f of bare\n",
	    name, n, n / bare);
	n = run_load(&client, MSG_write, 8);
	printf("%-6s 1 MiB to server, 8          %9.0f MiB/s  %.2f of bare\n",
	    name, n, n / bare);
	loop_thread_call(client.thread, close_side, &client);
	loop_thread_call(server.thread, close_side, &server);
	loop_thread_stop(client.thread);
	loop_thread_stop(server.thread);
}

int
main(void)
{
	double bare;

	log_init(&logger, "bench");
	rand_seed(&rnd, 1);
	shelf = malloc(64 * MIB);
	load.mem = malloc((size_t)DEPTH_MAX * MIB);
	if (shelf == NULL || load.mem == NULL)
		die("malloc", ENOMEM);
	memset(shelf, 2, 64 * MIB);
	memset(load.mem, 3, (size_t)DEPTH_MAX * MIB);
	bare = bare_mib_s();
	printf("bare   1 MiB, tcp pair           %9.0f MiB/s\n", bare);
	run_transport(false, bare);
	run_transport(true, bare);
	free(shelf);
	free(load.mem);
	return 0;
}
