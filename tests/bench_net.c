/* SPDX-License-Identifier: MIT */
/* bench_net.c - small calls and 1 MiB payloads between two loops of one process.  For those
 * between processes there is `fsd bench net`. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "net/call.h"
#include "net/local.h"
#include "net/loop.h"
#include "net/msg_all.h"
#include "net/serve.h"

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

/* ---- our side ---- */

static struct net_addr addr;
static struct net_hub_conf hub_conf = { .calls_max = 1000, .idle_ms = 0 };
static struct rand rnd;

struct side {
	struct loop_thread *thread;
	struct net_hub	   *hub;
	struct net_server  *server;
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
	if ((rc = net_local_open(&t, loop_clock(l))) != 0)
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

int
main(void)
{
	struct side client = { 0 }, server = { 0 };

	log_init(&logger, "bench");
	rand_seed(&rnd, 1);
	shelf = malloc(64 * MIB);
	load.mem = malloc((size_t)DEPTH_MAX * MIB);
	if (shelf == NULL || load.mem == NULL)
		die("malloc", ENOMEM);
	memset(shelf, 2, 64 * MIB);
	memset(load.mem, 3, (size_t)DEPTH_MAX * MIB);
	net_addr_parse("local:1", 7, &addr, NULL);
	if (loop_thread_start(&client.thread, "client") != 0 ||
	    loop_thread_start(&server.thread, "server") != 0)
		die("threads", errno);
	loop_thread_call(client.thread, open_side, &client);
	loop_thread_call(server.thread, open_side, &server);
	loop_thread_call(server.thread, open_server, &server);
	printf("local  small calls, 1 at a time    %9.0f /s\n",
	    run_load(&client, MSG_committed, 1));
	printf("local  small calls, 64 in flight   %9.0f /s\n",
	    run_load(&client, MSG_committed, 64));
	printf("local  1 MiB to client, 8          %9.0f MiB/s\n",
	    run_load(&client, MSG_read, 8));
	printf("local  1 MiB to server, 8          %9.0f MiB/s\n",
	    run_load(&client, MSG_write, 8));
	loop_thread_call(client.thread, close_side, &client);
	loop_thread_call(server.thread, close_side, &server);
	loop_thread_stop(client.thread);
	loop_thread_stop(server.thread);
	free(shelf);
	free(load.mem);
	return 0;
}
