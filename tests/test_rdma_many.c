/* SPDX-License-Identifier: MIT */
/* test_rdma_many.c - 64 clients that read from one server, and 16 servers that answer one client,
 * over the devices of tests/verbs: what is lent and what is under way stays within its bounds,
 * nobody is refused, and all get as much. */
#include "tests/call_rig.h"

#include "tests/verbs/verbs.h"

#define MANY		64u
#define DEPTH		16u		/* of each, at a time */
#define BYTES		(64u << 10)	/* of each reply */
#define ALL		8192u		/* replies; enough that chance is not seen */
#define OFF_MAX		20u		/* percent */

static struct one_of {
	struct net_hub	   *hub;
	struct net_server  *server;	/* NULL: a client */
	struct net_mem_set *known;
	struct net_addr	    addr;
	unsigned	    got, before;	/* replies; at a quarter of all */
} ends[MANY];

static struct call_of {
	struct net_call call;
	struct one_of  *end;
	struct iovec	room;
} calls[MANY * DEPTH];

static unsigned ends_n, begun, all;
static uint64_t lent, lent_max;

static void
given_back(void *arg)
{
	(void)arg;
	lent -= BYTES;
}

static void
give(void *ctx, struct net_req *req)
{
	struct msg_fetch_rep rep = { .len = BYTES };
	struct net_piece p = { shelf, BYTES, 0 };

	(void)ctx;
	if ((lent += BYTES) > lent_max)
		lent_max = lent;
	net_reply(req, 0, &rep, &p, 1, given_back, NULL);
}

static void
check_fair(void)
{
	uint64_t mean = (uint64_t)all / 2 / ends_n;

	for (unsigned i = 0; i < ends_n; i++) {
		uint64_t got = ends[i].got - ends[i].before;

		ck_assert_msg((got > mean ? got - mean : mean - got) * 100 <= OFF_MAX * mean,
		    "end %u has %u of %u", i, (unsigned)got, (unsigned)mean);
	}
}

static void answered(struct net_call *call, int rc);

static void
ask_one(struct call_of *c)
{
	struct msg_fetch m = { .chain = 1 };
	struct net_call_opts opts = { .deadline_ns = clock_now(rig.cclock) + 90 * NS_PER_S,
	    .recv = &c->room, .recv_n = 1 };

	c->room = (struct iovec){ dst, BYTES };
	begun++;
	ck_assert_int_eq(net_call_start(&c->call, c->end->server != NULL ? rig.chub :
	    c->end->hub, &c->end->addr, MSG_fetch, &m, &opts, answered), 0);
}

static void
answered(struct net_call *call, int rc)
{
	struct call_of *c = container_of(call, struct call_of, call);

	ck_assert_int_eq(rc, 0);
	ck_assert_uint_eq(call->rep_bulk, BYTES);
	c->end->got++;
	if (++done == all / 4)
		for (unsigned i = 0; i < ends_n; i++)
			ends[i].before = ends[i].got;
	if (done == all / 4 * 3)
		check_fair();
	if (begun < all)
		ask_one(c);
}

/* All there is to do; looks at what @now is meanwhile.  The most it was. */
static uint64_t
run(unsigned n, const uint64_t *now)
{
	uint64_t most = 0;

	ends_n = n;
	all = ALL;
	begun = done = 0;
	for (unsigned i = 0; i < n * DEPTH; i++) {
		calls[i].end = &ends[i % n];
		ask_one(&calls[i]);
	}
	while (done < all) {
		most = *now > most ? *now : most;
		rig_until(&rig, &done, done + 1);
	}
	ck_assert_int_eq(memcmp(dst, shelf, BYTES), 0);
	return most;
}

static void
begin(void)
{
	rig_open(&rig, RIG_ONE_SIDED, 1);
	memset(ends, 0, sizeof(ends));
	memset(calls, 0, sizeof(calls));
	lent = lent_max = 0;
	fill(shelf, BIG, 8);
	rig.conf.conns_max = 2 * MANY;
	rig.conf.reqs_max = MANY * DEPTH + MANY;
	rig.conf.conn_reqs_max = DEPTH;
	rig.conf.replies_max = 8u << 20;
	know(rig.shub, shelf, &known[2]);
}

static void
end(void)
{
	for (unsigned i = 0; i < ends_n; i++) {
		net_server_close(ends[i].server);
		net_mem_del(ends[i].hub, ends[i].known);
		net_hub_close(ends[i].hub);
	}
	ck_assert_uint_eq(lent, 0);
	forget(rig.shub, 2);
	rig_close(&rig);
	verbs_reset();
}

START_TEST(clients_of_one)
{
	begin();
	rig_serve(&rig, give, NULL);
	for (unsigned i = 0; i < MANY; i++) {
		ends[i].hub = rig_hub(&rig, rig.cclock, 3 + i);
		ends[i].addr = rig.addr;
		know(ends[i].hub, dst, &ends[i].known);
	}
	(void)run(MANY, &lent);
	ck_assert_uint_gt(lent_max, rig.conf.replies_max / 2);
	ck_assert_uint_le(lent_max, rig.conf.replies_max);
	ck_assert_uint_eq(net_server_stats(rig.server)->busy, 0);
	ck_assert_uint_ge(verbs.writes, all);
	end();
}
END_TEST

START_TEST(servers_of_one)
{
	enum { SERVERS = 16, WINDOW = 2u << 20 };
	uint64_t most;

	begin();
	net_hub_close(rig.chub);
	rig.hub_conf.receive_window = WINDOW;
	rig.chub = rig_hub(&rig, rig.cclock, 1);
	know(rig.chub, dst, &known[1]);
	rig.hub_conf.receive_window = 0;
	for (unsigned i = 0; i < SERVERS; i++) {
		struct net_server_conf conf = rig.conf;

		conf.hub = ends[i].hub = rig_hub(&rig, rig.sclock, 3 + i);
		conf.listen = rig.addr;
		ck_assert_int_eq(net_server_open(&ends[i].server, &conf), 0);
		net_server_handle(ends[i].server, 0x03, give, NULL);
		net_server_addr(ends[i].server, &ends[i].addr);
		know(ends[i].hub, shelf, &ends[i].known);
	}
	most = run(SERVERS, &net_hub_stats(rig.chub)->granted);
	ck_assert_uint_gt(most, WINDOW / 2);
	ck_assert_uint_le(most, WINDOW);
	ck_assert_uint_gt(net_hub_stats(rig.chub)->asks, 0);
	ck_assert_uint_ge(verbs.writes, all);
	forget(rig.chub, 1);
	end();
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("many");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, clients_of_one);
	tcase_add_test(t, servers_of_one);
	return suite_run("rdma_many", t);
}
