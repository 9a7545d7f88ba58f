/* SPDX-License-Identifier: MIT */
/* test_call.c - calls and their server, the same over every transport: success, time, limits. */
#include "tests/call_rig.h"

/* ---- success ---- */

START_TEST(many_small_calls)
{
	enum { N = 1000 };
	static struct ask a[N];

	open_served(_i);
	memset(a, 0, sizeof(a));
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(start_echo(&a[i], i, 3, 5000), 0);
	ck_assert_uint_eq(net_hub_calls(rig.chub), N);
	rig_until(&rig, &done, N);
	for (unsigned i = 0; i < N; i++) {
		ck_assert_int_eq(a[i].rc, 0);
		ck_assert_uint_eq(a[i].version, i + 3);
	}
	ck_assert_uint_eq(net_hub_conns(rig.chub), 1);
	ck_assert_uint_eq(net_server_inflight(rig.server), 0);
	close_rig();
}
END_TEST

static const uint32_t sizes[] = { 1, 5, 100, 4096, 16383, 65539, 1u << 20, BIG };

START_TEST(payload_to_server)
{
	struct ask a = { .rc = 0 };

	open_served(_i);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		memset(shelf, 0, sizes[i]);
		ck_assert_int_eq(start_write(&a, 0, sizes[i], 9000), 0);
		rig_until(&rig, &done, i + 1);
		ck_assert_int_eq(a.rc, 0);
		ck_assert_uint_eq(a.version, sizes[i]);
	}
	ck_assert_uint_eq(pulled, sizeof(sizes) / sizeof(sizes[0]));
	close_rig();
}
END_TEST

START_TEST(payload_to_client)
{
	struct ask a = { .rc = 0 };

	open_served(_i);
	fill(shelf, BIG, 9);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t n = sizes[i], cut = n / 3;
		struct msg_read_item items[3] = {
			{ .offset = 0, .len = cut },
			{ .offset = cut, .len = n - cut - n / 4 },
			{ .offset = n - n / 4, .len = n / 4 }
		};

		memset(dst, 0, n);
		ck_assert_int_eq(start_read(&a, items, 3, n, 9000), 0);
		rig_until(&rig, &done, i + 1);
		ck_assert_int_eq(a.rc, 0);
		ck_assert_uint_eq(a.bulk, n);
		ck_assert_int_eq(memcmp(dst, shelf, n), 0);
	}
	rig_pass(&rig, 20);
	ck_assert_uint_eq(sent_n, sizeof(sizes) / sizeof(sizes[0]));
	close_rig();
}
END_TEST

/* Payloads and small calls share a stream. */
START_TEST(mixed)
{
	enum { N = 60 };
	static struct ask a[N];
	struct msg_read_item item = { .len = 100000 };

	open_served(_i);
	memset(a, 0, sizeof(a));
	memcpy(shelf, src, BIG);
	for (unsigned i = 0; i < N; i++) {
		int rc = i % 3 == 0 ? start_write(&a[i], 0, 100000, 9000) :
		    i % 3 == 1 ? start_read(&a[i], &item, 1, 100000, 9000) :
		    start_echo(&a[i], i, 0, 9000);

		ck_assert_int_eq(rc, 0);
	}
	rig_until(&rig, &done, N);
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(a[i].rc, 0);
	ck_assert_int_eq(memcmp(dst, src, 100000), 0);
	close_rig();
}
END_TEST

/* A request of nearly a mebibyte, and a reply. */
static void
reply_large(struct net_req *req)
{
	static struct msg_dedupe rows[10000];
	struct msg_fetch_rep rep = { .version = 5, .dedupe = { rows, 10000 } };

	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
}

START_TEST(large_messages)
{
	static struct msg_dedupe rows[20000];
	struct msg_update m = { .dedupe = { rows, 20000 } };
	struct ask a = { .rc = 0 };

	open_served(_i);
	for (unsigned i = 0; i < 20000; i++)
		memset(&rows[i], (int)i, sizeof(rows[i]));
	on_fetch = reply_large;
	ck_assert_int_eq(start(&a, MSG_update, &m, NULL, 0, NULL, 0, 5000), 0);
	rig_until(&rig, &done, 1);
	ck_assert_int_eq(a.rc, ERR_BAD_METHOD);	/* it got there */
	ck_assert_uint_eq(served, 1);
	ck_assert_int_eq(start_fetch(&a, NULL, 0, NULL, 0, 5000), 0);
	rig_until(&rig, &done, 2);
	ck_assert_int_eq(a.rc, 0);
	m.dedupe.n = 20000;
	check_alive();
	close_rig();
}
END_TEST

START_TEST(too_large)
{
	struct ask a = { .rc = 0 };
	struct iovec huge = { src, (size_t)NET_BULK_MAX + 1 };
	static struct msg_dedupe rows[60000];
	struct msg_update m = { .dedupe = { rows, 60000 } };

	open_served(_i);
	memset(rows, 0xff, sizeof(rows));
	ck_assert_int_eq(start_fetch(&a, &huge, 1, NULL, 0, 1000), -EMSGSIZE);
	ck_assert_int_eq(start_fetch(&a, NULL, 0, &huge, 1, 1000), -EMSGSIZE);
	ck_assert_int_eq(start(&a, MSG_update, &m, NULL, 0, NULL, 0, 1000),
	    -EMSGSIZE);
	ck_assert(!net_call_active(&a.call));
	check_alive();
	close_rig();
}
END_TEST

/* ---- time ---- */

START_TEST(time_out)
{
	struct ask a = { .rc = 0 }, b = { .rc = 0 };
	struct msg_last_rep rep = { .len = 1 };

	open_served(_i);
	check_alive();
	ck_assert_int_eq(start_hold(&a, 30), 0);
	rig_until(&rig, &done, 2);
	ck_assert_int_eq(a.rc, -ETIMEDOUT);
	ck_assert_uint_eq(held_n, 1);
	ck_assert_uint_eq(net_server_inflight(rig.server), 1);
	/* The late answer meets another call on the same stream. */
	ck_assert_int_eq(start_hold(&b, 5000), 0);
	rig_until(&rig, &held_n, 2);
	net_reply(held[0], 0, &rep, NULL, 0, NULL, NULL);
	net_reply(held[1], 0, &rep, NULL, 0, NULL, NULL);
	rig_until(&rig, &done, 3);
	ck_assert_int_eq(b.rc, 0);
	check_alive();
	ck_assert_uint_eq(net_hub_conns(rig.chub), 1);
	close_rig();
}
END_TEST

START_TEST(server_knows_the_deadline)
{
	struct ask a = { .rc = 0 };
	uint64_t left;

	open_served(_i);
	check_alive();
	ck_assert_int_eq(start_hold(&a, 4000), 0);
	rig_until(&rig, &held_n, 1);
	left = held[0]->deadline_ns - clock_now(rig.sclock);
	ck_assert_uint_le(left, 4001 * NS_PER_MS);
	ck_assert_uint_ge(left, 2000 * NS_PER_MS);
	net_req_drop(held[0]);
	net_call_cancel(&a.call);
	close_rig();
}
END_TEST

START_TEST(idle_connection_closes)
{
	open_rig(_i);
	close_client();
	rig.hub_conf.idle_ms = 40;
	rig.chub = rig_hub(&rig, rig.cclock, 1);
	rig_serve(&rig, handler, NULL);
	check_alive();
	ck_assert_uint_eq(net_hub_conns(rig.chub), 1);
	rig_pass(&rig, 120);
	ck_assert_uint_eq(net_hub_conns(rig.chub), 0);
	check_alive();
	close_rig();
}
END_TEST

/* ---- doorbells ---- */

/* What is posted in one turn is told to the device at once: 10 calls, 10 answers, and the
 * READs or WRITEs of a payload with what follows them. */
START_TEST(posted_together)
{
	struct net_rdma_port_stat was[2], now[2];
	struct msg_read_item item = { .len = BIG };
	struct ask a[10], big = { .rc = 0 };

	if (_i < RIG_RDMA)
		return;
	memset(a, 0, sizeof(a));
	open_served(_i);
	check_alive();
	for (unsigned k = 0; k < 2; k++)
		net_rdma_traffic(rig.rdma[k], &was[k]);
	for (unsigned i = 0; i < 10; i++)
		ck_assert_int_eq(start_echo(&a[i], 40, 2, 9000), 0);
	rig_until(&rig, &done, 11);
	net_rdma_traffic(rig.rdma[0], &now[0]);
	ck_assert_uint_ge(now[0].works - was[0].works, 10);
	ck_assert_uint_le(now[0].posts - was[0].posts, 2);
	if (_i == RIG_ONE_SIDED) {
		ck_assert_int_eq(start_write(&big, 0, BIG, 9000), 0);
		rig_until(&rig, &done, 12);
		ck_assert_int_eq(start_read(&big, &item, 1, BIG, 9000), 0);
		rig_until(&rig, &done, 13);
		net_rdma_traffic(rig.rdma[1], &now[1]);
		/* 1 MiB each: READs, their answer; WRITEs with theirs */
		ck_assert_uint_ge(now[1].works - was[1].works, 10 + 9 + 9);
		ck_assert_uint_le(now[1].posts - was[1].posts, 10 + 4);
	}
	for (unsigned i = 0; i < 10; i++)
		ck_assert_uint_eq(a[i].version, 42);
	close_rig();
}
END_TEST

/* ---- limits ---- */

START_TEST(limits)
{
	struct ask a[8];
	struct iovec from = { src, 100000 };
	unsigned busy = 0;

	memset(a, 0, sizeof(a));
	open_rig(_i);
	close_client();
	rig.hub_conf.calls_max = 6;
	rig.chub = rig_hub(&rig, rig.cclock, 1);
	rig.conf.conn_reqs_max = 4;
	rig_serve(&rig, handler, NULL);
	for (unsigned i = 0; i < 6; i++)
		ck_assert_int_eq(start_hold(&a[i], 5000), 0);
	ck_assert_int_eq(start_hold(&a[6], 5000), ERR_BUSY);
	rig_until(&rig, &done, 2);
	ck_assert_uint_eq(held_n, 4);
	for (unsigned i = 0; i < 6; i++)
		busy += a[i].rc == ERR_BUSY;
	ck_assert_uint_eq(busy, 2);
	/* One with a payload is turned away as well, payload and all. */
	ck_assert_int_eq(start_fetch(&a[6], &from, 1, NULL, 0, 5000), 0);
	rig_until(&rig, &done, 3);
	ck_assert_int_eq(a[6].rc, ERR_BUSY);
	for (unsigned i = 0; i < 4; i++)
		net_reply(held[i], -ENOENT, NULL, NULL, 0, NULL, NULL);
	rig_until(&rig, &done, 7);
	check_alive();
	close_rig();
}
END_TEST

/* What both ends have counted, and how it is told. */
START_TEST(counters)
{
	struct ask a[4];
	struct stat_registry reg;
	const struct net_hub_stat *hub;
	const struct net_server_stat *srv;
	struct msg_read_item item = { .len = 3000 };
	size_t n;
	char *t;

	memset(a, 0, sizeof(a));
	open_rig(_i);
	stat_registry_init(&reg);
	close_client();
	close_served();
	rig.hub_conf.stats = &reg;
	rig.chub = rig_hub(&rig, rig.cclock, 1);
	rig.shub = rig_hub(&rig, rig.sclock, 2);
	rig.conf.conn_reqs_max = 2;
	rig_serve(&rig, handler, NULL);
	hub = net_hub_stats(rig.chub);
	srv = net_server_stats(rig.server);
	check_alive();
	ck_assert_int_eq(start_write(&a[0], 0, 70000, 9000), 0);
	rig_until(&rig, &done, 2);
	ck_assert_int_eq(start_read(&a[0], &item, 1, 3000, 9000), 0);
	rig_until(&rig, &done, 3);
	rig_pass(&rig, 20);
	ck_assert_uint_eq(srv->inflight, 0);
	/* One that takes too long, one that is refused, one over the bound. */
	ck_assert_int_eq(start_hold(&a[0], 50), 0);
	rig_until(&rig, &done, 4);
	ck_assert_int_eq(start_hold(&a[1], 5000), 0);
	ck_assert_int_eq(start_hold(&a[2], 5000), 0);
	rig_until(&rig, &done, 5);
	ck_assert_int_eq(a[2].rc, ERR_BUSY);
	ck_assert_uint_eq(hub->calls_now, 1);
	ck_assert_uint_eq(srv->inflight, 2);
	net_reply(held[0], 0, NULL, NULL, 0, NULL, NULL);
	net_reply(held[1], -ENOENT, NULL, NULL, 0, NULL, NULL);
	rig_until(&rig, &done, 6);
	ck_assert_uint_eq(hub->calls, 6);
	ck_assert_uint_eq(hub->failures, 1);
	ck_assert_uint_eq(hub->timeouts, 1);
	ck_assert_uint_eq(hub->refusals, 2);
	ck_assert_uint_eq(hub->connects, 1);
	ck_assert_uint_eq(hub->sent_bytes, 70000);
	ck_assert_uint_eq(hub->recv_bytes, 3000);
	ck_assert_uint_eq(hub->calls_now, 0);
	ck_assert_uint_eq(srv->requests, 5);
	ck_assert_uint_eq(srv->busy, 1);
	ck_assert_uint_eq(srv->errors, 1);
	ck_assert_uint_eq(srv->bad, 0);
	ck_assert_uint_eq(srv->recv_bytes, 70000);
	ck_assert_uint_eq(srv->sent_bytes, 3000);
	ck_assert_uint_eq(srv->connections, 1);
	ck_assert_uint_eq(srv->inflight, 0);
	ck_assert_uint_eq(stat_hist_count(&srv->request_ns), 5);
	ck_assert_uint_ge(srv->request_ns.sum, 40 * NS_PER_MS);	/* the held one */
	t = stat_text(&reg, NET_MSG_MAX, &n);
	ck_assert_ptr_nonnull(strstr(t,
	    "\nfsd_net_server_recv_bytes_total{role=\"rig\"} 70000\n"));
	ck_assert_ptr_nonnull(strstr(t, "\nfsd_net_hub_calls_total{role=\"rig\"} 6\n"));
	free(t);
	close_rig();
	stat_registry_fini(&reg);	/* asserts that all have left */
}
END_TEST

START_TEST(drain)
{
	struct ask a = { .rc = 0 }, b = { .rc = 0 };

	open_served(_i);
	ck_assert_int_eq(start_hold(&a, 5000), 0);
	rig_until(&rig, &held_n, 1);
	net_server_drain(rig.server);
	ck_assert_int_eq(start_echo(&b, 1, 1, 5000), 0);
	rig_until(&rig, &done, 1);
	ck_assert_int_eq(b.rc, ERR_STOPPING);
	ck_assert_uint_eq(net_server_inflight(rig.server), 1);
	net_reply(held[0], -ENOENT, NULL, NULL, 0, NULL, NULL);
	rig_until(&rig, &done, 2);
	ck_assert_int_eq(a.rc, -ENOENT);
	ck_assert_uint_eq(net_server_inflight(rig.server), 0);
	close_rig();
}
END_TEST

START_TEST(too_many_connections)
{
	struct net_hub *hubs[4];
	struct ask a[4];
	unsigned ok = 0, lost = 0;

	memset(a, 0, sizeof(a));
	open_rig(_i);
	rig.conf.conns_max = 2;
	rig_serve(&rig, handler, NULL);
	for (unsigned i = 0; i < 4; i++) {
		struct net_hub *mine = rig.chub;

		hubs[i] = rig.chub = rig_hub(&rig, rig.cclock, 10 + i);
		ck_assert_int_eq(start_hold(&a[i], 2000), 0);
		rig.chub = mine;
		rig_pass(&rig, _i < RIG_RDMA ? 10 : 300);
	}
	rig_until(&rig, &done, 4);
	for (unsigned i = 0; i < 4; i++) {
		ok += a[i].rc == -ETIMEDOUT;		/* was let in, and held */
		lost += a[i].rc == -ECONNRESET;
		net_hub_close(hubs[i]);
	}
	ck_assert_uint_eq(ok, 2);
	ck_assert_uint_eq(lost, 2);
	for (unsigned i = 0; i < held_n; i++)
		net_req_drop(held[i]);
	close_rig();
}
END_TEST

int
main(void)
{
	const TTest *const all[] = {
		many_small_calls, payload_to_server, payload_to_client,
		mixed, large_messages, too_large, time_out,
		server_knows_the_deadline, idle_connection_closes, limits,
		posted_together, counters, drain, too_many_connections
	};

	return run_over_all("call", all, sizeof(all) / sizeof(all[0]));
}
