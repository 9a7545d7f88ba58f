/* SPDX-License-Identifier: MIT */
/* call_rig.h - a server and calls to it, over any transport.
 *
 * Methods stand for behaviours: committed echoes, write pulls and checks, read pushes,
 * last is held until the test answers it, fetch does whatever `on_fetch` says. */
#ifndef TESTS_CALL_RIG_H
#define TESTS_CALL_RIG_H

#include "tests/net_rig.h"
#include "tests/suite.h"

#include <unistd.h>

#define BIG (8u << 20)
#ifndef SOME				/* of some_read() and some_write() */
#define SOME BIG
#endif

static struct rig rig;
static uint8_t *src, *dst, *shelf;	/* client sends, client receives, server's */
static struct net_req *held[64];
static unsigned held_n, served, pulled, pull_failed, sent_n;
static struct net_req *in_pull;	/* of write, at most one in tests that look */
static int pull_rc;
static void (*on_fetch)(struct net_req *req);

/* No two words of it are alike. */
static void
fill(uint8_t *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i += sizeof(uint64_t)) {
		uint64_t word = (i + 1 + ((uint64_t)seed << 40)) * 0x9e3779b97f4a7c15u;

		memcpy(p + i, &word, n - i < sizeof(word) ? n - i : sizeof(word));
	}
}

/* Is it as memset(p, 0x5a, n) left it? */
static inline bool
untouched(const uint8_t *p, size_t n)
{
	return p[0] == 0x5a && memcmp(p, p + 1, n - 1) == 0;
}

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
	const struct msg_write *m = req->msg;
	struct msg_write_rep rep = { .version = m->seq, .len = m->len };

	pull_rc = rc;
	in_pull = NULL;
	if (rc != 0)
		pull_failed++;
	else
		pulled++;
	if (rc == 0 && memcmp(shelf, src + m->offset, m->len) != 0)
		rc = ERR_PAYLOAD_CRC;
	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
}

/* In three parts, so that every transport has to cut. */
static void
serve_write(struct net_req *req)
{
	uint32_t n = req->bulk_len, a = n / 3, b = n / 2;
	struct iovec dst3[3] = {
		{ shelf, a }, { shelf + a, b - a }, { shelf + b, n - b }
	};

	in_pull = req;
	net_pull_start(req, dst3, 3, write_pulled);
}

/* Items in reverse, so that pieces are out of order. */
static void
serve_read(struct net_req *req)
{
	const struct msg_read *m = req->msg;
	struct msg_read_result rows[STORAGE_BATCH_MAX] = { 0 };
	struct msg_read_rep rep = { { rows, m->items.n } };
	struct net_piece pieces[STORAGE_BATCH_MAX];
	uint32_t off = 0;

	for (uint32_t i = 0; i < m->items.n; i++) {
		struct net_piece *p = &pieces[m->items.n - 1 - i];

		rows[i].len = m->items.v[i].len;
		p->p = shelf + m->items.v[i].offset;
		p->len = m->items.v[i].len;
		p->dst_off = off;
		off += p->len;
	}
	net_reply(req, 0, &rep, pieces, m->items.n, was_sent, NULL);
}

static void
handler(void *ctx, struct net_req *req)
{
	(void)ctx;
	served++;
	switch (req->method) {
	case MSG_committed: {
		const struct msg_committed *m = req->msg;
		struct msg_committed_rep rep = { m->chunk.ino + m->chunk.index };

		net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
		return;
	}
	case MSG_write:
		serve_write(req);
		return;
	case MSG_read:
		serve_read(req);
		return;
	case MSG_last:
		held[held_n++] = req;
		return;
	case MSG_fetch:
		on_fetch(req);
		return;
	default:
		net_reply(req, ERR_BAD_METHOD, NULL, NULL, 0, NULL, NULL);
	}
}

/* ---- the client ---- */

struct ask {
	struct net_call call;
	unsigned     *done;
	int	      rc;
	uint64_t      version;
	uint32_t      bulk;
	bool	      was_here;		/* fn came before start had returned */
};

static unsigned done;

static void
asked(struct net_call *c, int rc)
{
	struct ask *a = container_of(c, struct ask, call);

	ck_assert(!a->was_here);
	ck_assert(!net_call_active(c));
	ck_assert_ptr_nonnull(c->rep);
	a->rc = rc;
	if (c->method->id == MSG_committed)
		a->version = ((const struct msg_committed_rep *)c->rep)->version;
	if (c->method->id == MSG_write)
		a->version = ((const struct msg_write_rep *)c->rep)->version;
	a->bulk = c->rep_bulk;
	done++;
}

static int
start(struct ask *a, uint16_t method, const void *req, const struct iovec *send,
    unsigned send_n, const struct iovec *recv, unsigned recv_n, unsigned ms)
{
	struct net_call_opts opts = {
		.deadline_ns = clock_now(rig.cclock) + ms * NS_PER_MS,
		.send = send, .send_n = send_n, .recv = recv, .recv_n = recv_n
	};
	int rc;

	a->rc = 12345;
	a->was_here = true;
	rc = net_call_start(&a->call, rig.chub, &rig.addr, method, req, &opts,
	    asked);
	a->was_here = false;
	return rc;
}

static int
start_echo(struct ask *a, uint64_t ino, uint32_t index, unsigned ms)
{
	struct msg_committed m = { .chunk = { ino, index } };

	return start(a, MSG_committed, &m, NULL, 0, NULL, 0, ms);
}

/* A guest that emulates its processor may stand still for longer than connecting may take:
 * there, and only there, that is tried again. */
static inline void
check_alive(void)
{
	struct ask a = { .rc = 0 };
	unsigned before = done, tries = rig.kind >= RIG_RDMA ? 4 : 1;

	do {
		done = before;
		memset(&a, 0, sizeof(a));
		ck_assert_int_eq(start_echo(&a, 40, 2, 10000), 0);
		rig_until(&rig, &done, before + 1);
	} while (a.rc == -ETIMEDOUT && --tries > 0);
	ck_assert_msg(a.rc == 0, "%s: %s\n%s", rig_names[rig.kind], err_name(a.rc),
	    rig.logged);
	ck_assert_uint_eq(a.version, 42);
}

static inline int
start_hold(struct ask *a, unsigned ms)
{
	struct msg_last m = { .ino = 1 };

	return start(a, MSG_last, &m, NULL, 0, NULL, 0, ms);
}

static struct iovec send_iov[3];

static inline int
start_write(struct ask *a, uint32_t offset, uint32_t n, unsigned ms)
{
	struct msg_write m = { .offset = offset, .len = n, .seq = n };

	send_iov[0] = (struct iovec){ src + offset, n / 4 };
	send_iov[1] = (struct iovec){ src + offset + n / 4, 0 };
	send_iov[2] = (struct iovec){ src + offset + n / 4, n - n / 4 };
	return start(a, MSG_write, &m, send_iov, 3, NULL, 0, ms);
}

static struct iovec recv_iov[3];

static int
start_read(struct ask *a, const struct msg_read_item *items, uint32_t n,
    uint32_t room, unsigned ms)
{
	struct msg_read m = { .items = {
	    (struct msg_read_item *)(uintptr_t)items, n } };

	recv_iov[0] = (struct iovec){ dst, room / 5 };
	recv_iov[1] = (struct iovec){ dst + room / 5, 0 };
	recv_iov[2] = (struct iovec){ dst + room / 5, room - room / 5 };
	return start(a, MSG_read, &m, NULL, 0, recv_iov, 3, ms);
}

static inline int
start_fetch(struct ask *a, const struct iovec *send, unsigned send_n,
    const struct iovec *recv, unsigned recv_n, unsigned ms)
{
	struct msg_fetch m = { .chain = 1 };

	return start(a, MSG_fetch, &m, send, send_n, recv, recv_n, ms);
}

/* For what is done to calls of any kind. */
static inline int
some_write(struct ask *a)
{
	return start_write(a, 0, SOME, 9000);
}

static inline int
some_read(struct ask *a)
{
	static struct msg_read_item item = { .len = SOME };

	return start_read(a, &item, 1, SOME, 9000);
}

static inline int
small_echo(struct ask *a)
{
	return start_echo(a, 1, 1, 9000);
}

static struct net_mem_set *known[3];

static void
know(struct net_hub *hub, uint8_t *p, struct net_mem_set **out)
{
	ck_assert_int_eq(net_mem_add(hub, p, BIG, out), 0);
}

static void
forget(struct net_hub *hub, unsigned i)
{
	net_mem_del(hub, known[i]);
	known[i] = NULL;
}

/* Close a hub within a test. */
static inline void
close_client(void)
{
	forget(rig.chub, 0);
	forget(rig.chub, 1);
	net_hub_close(rig.chub);
}

static inline void
close_served(void)
{
	forget(rig.shub, 2);
	net_hub_close(rig.shub);
}

static void
open_rig_seed(int kind, uint64_t seed)
{
	rig_open(&rig, (enum rig_kind)kind, seed);
	if (rig_one_sided(kind)) {
		know(rig.chub, src, &known[0]);
		know(rig.chub, dst, &known[1]);
		know(rig.shub, shelf, &known[2]);
	}
	held_n = served = pulled = pull_failed = sent_n = done = 0;
	on_fetch = NULL;
	in_pull = NULL;
}

static inline void
open_rig(int kind)
{
	open_rig_seed(kind, 1);
}

static void
end_rig(void)
{
	forget(rig.chub, 0);
	forget(rig.chub, 1);
	forget(rig.shub, 2);
	rig_close(&rig);
}

static void
close_rig(void)
{
	ck_assert_uint_eq(net_hub_calls(rig.chub), 0);
	end_rig();
}

static inline void
open_served(int kind)
{
	open_rig(kind);
	rig_serve(&rig, handler, NULL);
}

static void
setup(void)
{
	src = malloc(BIG);
	dst = malloc(BIG);
	shelf = malloc(BIG);
	fill(src, BIG, 3);
}

static void
teardown(void)
{
	free(src);
	free(dst);
	free(shelf);
}

/* The end of a program whose tests run over every transport. */
static inline int
run_over_all(const char *name, const TTest *const *all, unsigned n)
{
	TCase *t = tcase_create("every transport");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	for (unsigned i = 0; i < n; i++)
		tcase_add_loop_test(t, all[i], rig_first(), rig_kinds());
	return suite_run(name, t);
}

/* ---- only simulated ---- */

/* What a client that retries sees under random faults; the trace of one seed. */
static inline uint64_t
run_seed(enum rig_kind kind, uint64_t seed)
{
	enum { N = 200 };
	static struct ask a[N];
	static unsigned tries[N];
	struct sim_net_faults f = {
		.delay_min_us = 10, .delay_max_us = 5000, .slow_ppm = 50000,
		.slow_us = 300000, .break_ppm = 2000, .bytes_per_us = 500,
		.op_ppm = 2000, .done_us = 100000
	};
	uint64_t trace = 0;
	unsigned good = 0;

	open_rig_seed(kind, seed);
	rig_serve(&rig, handler, NULL);
	sim_net_faults(rig.net, &f);
	memset(a, 0, sizeof(a));
	memset(tries, 0, sizeof(tries));
	memcpy(shelf, src, 300000);
	for (unsigned round = 0; round < 40000 && good < N; round++) {
		unsigned i = (unsigned)rand_below(&rig.rand, N);
		struct msg_read_item item = { .len = 200000 };

		if (rand_chance(&rig.rand, 1, 300))
			sim_net_path(rig.net, 1, 2, SIM_NET_SILENT);
		if (rand_chance(&rig.rand, 1, 300))
			sim_net_path(rig.net, 2, 1, SIM_NET_SILENT);
		if (rand_chance(&rig.rand, 1, 50))
			sim_net_heal(rig.net);
		if (!net_call_active(&a[i].call) && (tries[i] == 0 || a[i].rc != 0)) {
			int rc = i % 3 == 0 ? start_write(&a[i], 0, 200000, 800) :
			    i % 3 == 1 ? start_read(&a[i], &item, 1, 200000, 800) :
			    start_echo(&a[i], i, 0, 800);

			ck_assert_int_eq(rc, 0);
			tries[i]++;
		} else if (rand_chance(&rig.rand, 1, 40)) {
			net_call_cancel(&a[i].call);
		}
		sim_clock_run(rig.world, rand_below(&rig.rand, 5 * NS_PER_MS));
		trace = trace * 31 + sim_net_frames(rig.net) * 7 + done;
		good = 0;
		for (unsigned k = 0; k < N; k++)
			good += tries[k] > 0 && !net_call_active(&a[k].call) &&
			    a[k].rc == 0;
	}
	ck_assert_msg(good == N, "seed %llu: %u of %u came through",
	    (unsigned long long)seed, good, N);
	/* What the server has been asked is all answered. */
	sim_net_heal(rig.net);
	sim_clock_run(rig.world, 30 * NS_PER_S);
	ck_assert_uint_eq(net_server_inflight(rig.server), 0);
	for (unsigned k = 0; k < N; k++)
		ck_assert(!net_call_active(&a[k].call));
	/* Some were served whose caller never heard. */
	ck_assert_uint_gt(served, N);
	close_rig();
	return trace;
}

#endif
