/* SPDX-License-Identifier: MIT */
/* test_local.c - two loops in two threads: payloads are copied by one from the memory of
 * the other, while that takes it back, closes, and goes.  Run it under thread sanitizer,
 * too.  What holds on every transport is in test_call.c. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "conf/rand.h"
#include "net/call.h"
#include "net/local.h"
#include "net/loop.h"
#include "net/msg_all.h"
#include "net/serve.h"
#include "tests/suite.h"

#define CALLS	12u
#define BYTES	(640u << 10)
#ifdef __SANITIZE_ADDRESS__		/* which makes them four times longer */
#define STEPS	2500
#else
#define STEPS	8000
#endif

static struct rand rnd[2];
static struct log quiet;

struct side {
	struct loop_thread *thread;
	struct net_hub	   *hub;
	struct net_server  *server;
	struct rand	   *rand;
};

static struct side client, server;
static struct net_addr addr;

/* ---- the server's thread ---- */

static uint8_t *shelf;			/* CALLS pages of BYTES; read only from open on */
static unsigned replying;		/* sent() still due */

struct job {				/* one request's own memory */
	struct net_req *req;
	uint8_t	       *mem;
	struct list	node;
};
static struct list jobs = { &jobs, &jobs };

static void
was_sent(void *arg)
{
	(void)arg;
	replying--;
}

static void
pulled(struct net_req *req, int rc)
{
	struct job *j = req->user;
	struct msg_write_rep rep = { .len = req->bulk_len };

	/* Every byte is the one that was meant, or the sender has gone. */
	if (rc == 0)
		for (uint32_t i = 1; i < req->bulk_len; i++)
			if (j->mem[i] != j->mem[0])
				rc = ERR_PAYLOAD_CRC;
	list_remove(&j->node);
	free(j->mem);
	free(j);
	net_reply(req, rc, &rep, NULL, 0, NULL, NULL);
}

static void
handler(void *ctx, struct net_req *req)
{
	struct msg_committed_rep rep = { 1 };
	struct msg_read_rep read_rep = { { NULL, 0 } };

	(void)ctx;
	if (req->method == MSG_write) {
		struct job *j = calloc(1, sizeof(*j));
		struct iovec dst;

		j->mem = malloc(req->bulk_len);
		j->req = req;
		req->user = j;
		list_push_back(&jobs, &j->node);
		dst = (struct iovec){ j->mem, req->bulk_len };
		net_pull_start(req, &dst, 1, pulled);
	} else if (req->method == MSG_read) {
		struct net_piece p = { shelf, req->recv_len, 0 };

		replying++;
		net_reply(req, 0, &read_rep, &p, 1, was_sent, NULL);
	} else {
		net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
	}
}

/* ---- both ---- */

static void
open_side(void *arg)
{
	struct side *s = arg;
	struct clock *clock = loop_clock(loop_thread_loop(s->thread));
	struct net_hub_conf conf = { .clock = clock, .rand = s->rand, .log = &quiet,
	    .calls_max = 100, .idle_ms = 10000 };
	struct net_transport *t;

	ck_assert_int_eq(net_hub_open(&s->hub, &conf), 0);
	ck_assert_int_eq(net_local_open(&t, clock), 0);
	net_hub_add(s->hub, t);
}

static void
open_server(void *arg)
{
	struct net_server_conf conf = {
		.hub = server.hub, .listen = addr, .conns_max = 10,
		.reqs_max = 100, .conn_reqs_max = 100, .hello_ms = 5000,
		.payload_ms = 5000
	};

	(void)arg;
	ck_assert_int_eq(net_server_open(&server.server, &conf), 0);
	net_server_handle(server.server, 3, handler, NULL);
	if (addr.id == 0)		/* from then on the client reads it */
		net_server_addr(server.server, &addr);
}

static void
close_server(void *arg)
{
	(void)arg;
	net_server_close(server.server);
	server.server = NULL;
	ck_assert_uint_eq(replying, 0);
	for (struct list *l; (l = list_pop_front(&jobs)) != NULL;) {
		struct job *j = list_entry(l, struct job, node);

		net_req_drop(j->req);
		free(j->mem);
		free(j);
	}
}

static void
close_hub(void *arg)
{
	struct side *s = arg;

	net_hub_close(s->hub);
	s->hub = NULL;
}

/* ---- the client's thread ---- */

static struct one {
	struct net_call call;
	uint8_t	*mem;
	uint32_t n;
	uint8_t	 mark;			/* what mem holds, as far as the client knows */
	bool	 reads, lent;
	struct iovec iov;
} ones[CALLS];

static struct clock_defer driver;
static unsigned steps, taken, ok, failed;
static atomic_bool over;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t is_over = PTHREAD_COND_INITIALIZER;

static void
check_own(struct one *o)
{
	for (uint32_t i = 0; i < BYTES; i += 509)
		ck_assert_uint_eq(o->mem[i], o->mark);
}

static void
done(struct net_call *c, int rc)
{
	struct one *o = container_of(c, struct one, call);

	o->lent = false;
	if (rc != 0) {
		ck_assert_int_ne(rc, ERR_PAYLOAD_CRC);
		failed++;
	} else {
		ok++;
		if (o->reads)
			ck_assert_int_eq(memcmp(o->mem, shelf, o->n), 0);
	}
	o->mark = (uint8_t)rand_u64(client.rand);
	memset(o->mem, o->mark, BYTES);
}

static void
act(struct one *o)
{
	struct net_call_opts opts = { .deadline_ns = clock_now(
	    loop_clock(loop_thread_loop(client.thread))) +
	    rand_below(client.rand, 40 * NS_PER_MS) };
	struct msg_read_item item = { .len = 1 };
	struct msg_read read = { .items = { &item, 1 } };
	struct msg_write write = { .len = 1 };

	if (o->lent) {
		if (!rand_chance(client.rand, 1, 6))
			return;
		net_call_cancel(&o->call);
		o->lent = false;
		/* Ours again, at once. */
		o->mark = (uint8_t)rand_u64(client.rand);
		memset(o->mem, o->mark, BYTES);
		return;
	}
	check_own(o);
	o->n = 1 + (uint32_t)rand_below(client.rand, BYTES);
	o->iov = (struct iovec){ o->mem, o->n };
	o->reads = rand_chance(client.rand, 1, 2);
	if (o->reads) {
		opts.recv = &o->iov;
		opts.recv_n = 1;
	} else {
		opts.send = &o->iov;
		opts.send_n = 1;
	}
	if (net_call_start(&o->call, client.hub, &addr,
	    o->reads ? MSG_read : MSG_write,
	    o->reads ? (void *)&read : (void *)&write, &opts, done) == 0)
		o->lent = true;
}

static void
drive(struct clock_defer *d)
{
	struct clock *clock = loop_clock(loop_thread_loop(client.thread));

	/* On a busy machine few calls outlive their deadline; then it takes longer. */
	if (++taken < steps || (taken < 50 * steps && (ok <= 20 || failed <= 10))) {
		act(&ones[rand_below(client.rand, CALLS)]);
		if (rand_chance(client.rand, 1, 700)) {
			for (unsigned i = 0; i < CALLS; i++)
				ones[i].lent = false;
			close_hub(&client);	/* with all that is in flight */
			open_side(&client);
		}
		clock_defer(clock, d, drive);
		return;
	}
	pthread_mutex_lock(&lock);
	over = true;
	pthread_cond_signal(&is_over);
	pthread_mutex_unlock(&lock);
}

static void
start_driver(void *arg)
{
	(void)arg;
	clock_defer(loop_clock(loop_thread_loop(client.thread)), &driver, drive);
}

START_TEST(two_threads)
{
	const char *n = getenv("N");

	rand_seed(&rnd[0], 1);
	rand_seed(&rnd[1], 2);
	client.rand = &rnd[0];
	server.rand = &rnd[1];
	ck_assert_int_eq(net_addr_parse("local:0", 7, &addr, NULL), 0);
	shelf = malloc(BYTES);
	for (size_t i = 0; i < BYTES; i++)
		shelf[i] = (uint8_t)(i * 31 >> 4);
	for (unsigned i = 0; i < CALLS; i++)
		ones[i].mem = calloc(1, BYTES);
	ck_assert_int_eq(loop_thread_start(&client.thread, "client"), 0);
	ck_assert_int_eq(loop_thread_start(&server.thread, "server"), 0);
	loop_thread_call(client.thread, open_side, &client);
	loop_thread_call(server.thread, open_side, &server);
	/* N= asks other tests for fewer seeds; fewer steps than this prove nothing. */
	steps = n != NULL && atoi(n) > STEPS ? (unsigned)atoi(n) : STEPS;
	loop_thread_call(server.thread, open_server, NULL);
	ck_assert_uint_ge(addr.id, 0x10000);
	loop_thread_call(client.thread, start_driver, NULL);
	/* The server comes and goes meanwhile. */
	for (unsigned i = 0; !over; i++) {
		loop_thread_call(server.thread, close_server, NULL);
		loop_thread_call(server.thread, open_server, NULL);
		pthread_mutex_lock(&lock);
		if (!over) {
			struct timespec ts;

			clock_gettime(CLOCK_REALTIME, &ts);
			ts.tv_nsec += 30 * 1000 * 1000;
			if (ts.tv_nsec >= 1000000000) {
				ts.tv_sec++;
				ts.tv_nsec -= 1000000000;
			}
			pthread_cond_timedwait(&is_over, &lock, &ts);
		}
		pthread_mutex_unlock(&lock);
	}
	loop_thread_call(client.thread, close_hub, &client);
	loop_thread_call(server.thread, close_server, NULL);
	loop_thread_call(server.thread, close_hub, &server);
	loop_thread_stop(client.thread);
	loop_thread_stop(server.thread);
	ck_assert_uint_gt(ok, 20);
	ck_assert_uint_gt(failed, 10);
	for (unsigned i = 0; i < CALLS; i++)
		free(ones[i].mem);
	free(shelf);
}
END_TEST

START_TEST(number_in_use)
{
	struct loop *loop;
	struct net_hub *hub;
	struct net_server *a, *b;
	struct net_transport *t;
	struct net_hub_conf conf = { .rand = &rnd[0], .log = &quiet };
	struct net_server_conf sc = { .listen = { .kind = NET_ADDR_LOCAL, .id = 5 },
	    .hello_ms = 1, .payload_ms = 100 };

	ck_assert_int_eq(loop_open(&loop), 0);
	conf.clock = loop_clock(loop);
	ck_assert_int_eq(net_hub_open(&hub, &conf), 0);
	ck_assert_int_eq(net_local_open(&t, conf.clock), 0);
	net_hub_add(hub, t);
	sc.hub = hub;
	ck_assert_int_eq(net_server_open(&a, &sc), 0);
	ck_assert_int_eq(net_server_open(&b, &sc), -EADDRINUSE);
	net_server_close(a);
	ck_assert_int_eq(net_server_open(&b, &sc), 0);
	net_server_close(b);
	net_hub_close(hub);
	loop_close(loop);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("all");

	log_init(&quiet, "local");
	quiet.level = LOG_ERROR;
	tcase_set_timeout(t, 120);
	tcase_add_test(t, number_in_use);
	tcase_add_test(t, two_threads);
	return suite_run("local", t);
}
