/* SPDX-License-Identifier: MIT */
/* bench_net_serve.c - the end of `fsd bench net` that answers: it takes payload, gives some,
 * tells its processor time, and lends a thread to a bare stream.
 *
 * 1. Payload goes into and out of one piece of memory of SHELF bytes; calls that run at once
 *    may share a place of it, nobody looks at what it holds.
 * 2. At most one bare stream at a time; its thread has been joined before the next begins. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conf/err.h"
#include "net/call.h"
#include "net/loop.h"
#include "net/msg_all.h"
#include "net/serve.h"
#include "roles/bench.h"
#include "roles/bench_bare.h"
#include "roles/process.h"

#define SERVICE	0x05
#define SHELF	(16u << 20)

struct end {
	struct process	   *process;
	struct role_env	   *env;
	struct net_server  *server;
	struct net_addr	    at;
	uint8_t		   *shelf;
	struct net_mem_set *known;
	/* the bare stream */
	struct bench_bare   bare;
	int		    bare_fd;
	pthread_t	    thread;
	bool		    started;
	atomic_bool	    running;
};

/* Piece number @place of @len bytes; NULL: there is none so long. */
static uint8_t *
place_of(const struct end *e, uint32_t place, uint32_t len)
{
	if (len == 0 || len > SHELF)
		return NULL;
	return e->shelf + (size_t)(place % (SHELF / len)) * len;
}

static void
taken(struct net_req *req, int rc)
{
	struct msg_none none = { 0 };

	net_reply(req, rc, rc == 0 ? &none : NULL, NULL, 0, NULL, NULL);
}

static void
take(struct end *e, struct net_req *req)
{
	const struct msg_bench_take *m = req->msg;
	struct iovec dst = { place_of(e, m->place, req->bulk_len), req->bulk_len };

	if (dst.iov_base == NULL)
		net_reply(req, -EINVAL, NULL, NULL, 0, NULL, NULL);
	else
		net_pull_start(req, &dst, 1, taken);
}

static void
given(void *arg)
{
	(void)arg;
}

static void
give(struct end *e, struct net_req *req)
{
	const struct msg_bench_give *m = req->msg;
	struct net_piece piece = { place_of(e, m->place, m->len), m->len, 0 };
	struct msg_none none = { 0 };

	if (piece.p == NULL || m->len > req->recv_len)
		net_reply(req, -EINVAL, NULL, NULL, 0, NULL, NULL);
	else
		net_reply(req, 0, &none, &piece, 1, given, NULL);
}

static void *
bare_main(void *arg)
{
	struct end *e = arg;

	/* Its end is the client's to notice. */
	(void)bench_bare_serve(&e->bare, e->bare_fd);
	atomic_store(&e->running, false);
	return NULL;
}

static int
bare_start(struct end *e, const struct msg_bench_bare *m, struct msg_bench_bare_rep *rep)
{
	struct net_addr at = e->at;
	int rc;

	if (m->kind < BENCH_BARE_SINK || m->kind > BENCH_BARE_ECHO || m->len == 0 ||
	    m->len > SHELF || m->places == 0 || m->places > SHELF / m->len)
		return -EINVAL;
	if (atomic_load(&e->running))
		return ERR_BUSY;
	if (e->started)
		pthread_join(e->thread, NULL);
	e->started = false;
	if ((e->bare_fd = bench_bare_listen(&at)) < 0)
		return e->bare_fd;
	e->bare = (struct bench_bare){ .kind = (enum bench_bare_kind)m->kind,
	    .mem = e->shelf, .len = m->len, .places = m->places };
	atomic_store(&e->running, true);
	if ((rc = -pthread_create(&e->thread, NULL, bare_main, e)) != 0) {
		atomic_store(&e->running, false);
		close(e->bare_fd);
		return rc;
	}
	e->started = true;
	rep->port = at.port;
	return 0;
}

static void
serve(void *ctx, struct net_req *req)
{
	struct msg_bench_bare_rep bare = { 0 };
	struct msg_bench_cpu_rep cpu;
	struct msg_none none = { 0 };
	struct end *e = ctx;
	int rc;

	switch (req->method) {
	case MSG_bench_ping:
		net_reply(req, 0, &none, NULL, 0, NULL, NULL);
		return;
	case MSG_bench_take:
		take(e, req);
		return;
	case MSG_bench_give:
		give(e, req);
		return;
	case MSG_bench_bare:
		rc = bare_start(e, req->msg, &bare);
		net_reply(req, rc, rc == 0 ? &bare : NULL, NULL, 0, NULL, NULL);
		return;
	case MSG_bench_cpu:
		cpu.cpu_us = bench_cpu_us();
		net_reply(req, 0, &cpu, NULL, 0, NULL, NULL);
		return;
	default:
		net_reply(req, ERR_BAD_METHOD, NULL, NULL, 0, NULL, NULL);
	}
}

static void
told_to_stop(void *ctx, int signo)
{
	(void)signo;
	process_quit(ctx);
}

static int
end_open(struct end *e, const struct conf *c, const uint8_t key[NET_KEY_BYTES],
    const struct net_addr *listen)
{
	int rc;

	if ((rc = process_open(&e->process, c, key)) != 0)
		return rc;
	if ((e->env = process_add(e->process, "bench")) == NULL)
		return -ENOMEM;
	e->shelf = mmap(NULL, SHELF, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (e->shelf == MAP_FAILED) {
		e->shelf = NULL;
		return -errno;
	}
	if ((rc = loop_on_signal(process_loop(e->process, e->env), SIGTERM, told_to_stop,
	    e->process)) != 0 || (rc = loop_on_signal(process_loop(e->process, e->env),
	    SIGINT, told_to_stop, e->process)) != 0)
		return rc;
	/* What cannot be registered is copied, and the client says so. */
	if ((rc = net_mem_add(e->env->hub, e->shelf, SHELF, &e->known)) != 0)
		fprintf(stderr, "fsd bench: registering memory: %s\n", err_text(rc));
	rc = net_server_open(&e->server, &(struct net_server_conf){
	    .hub = e->env->hub, .listen = *listen,
	    .conns_max = (uint32_t)c->net_connections_max,
	    .reqs_max = (uint32_t)c->net_requests_max,
	    .conn_reqs_max = (uint32_t)c->net_client_requests_max,
	    .hello_ms = (uint32_t)c->net_hello,
	    .payload_ms = (uint32_t)c->net_payload });
	if (rc != 0)
		return rc;
	net_server_addr(e->server, &e->at);
	net_server_handle(e->server, SERVICE, serve, e);
	return 0;
}

int
bench_net_serve(const struct conf *c, const uint8_t key[NET_KEY_BYTES],
    const struct net_addr *listen, void (*ready)(void *ctx, const struct net_addr *at),
    void *ctx)
{
	struct end e = { .bare_fd = -1 };
	int rc = end_open(&e, c, key, listen);

	if (rc == 0) {
		ready(ctx, &e.at);
		rc = process_run(e.process);
	}
	if (rc != 0)
		fprintf(stderr, "fsd bench: cannot serve: %s\n", err_text(rc));
	net_server_close(e.server);
	if (e.started)
		pthread_join(e.thread, NULL);
	net_mem_del(e.env != NULL ? e.env->hub : NULL, e.known);
	process_close(e.process);
	if (e.shelf != NULL)
		munmap(e.shelf, SHELF);
	return rc == 0 ? 0 : 1;
}
