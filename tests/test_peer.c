/* SPDX-License-Identifier: MIT */
/* test_peer.c - connections that had to stay on TCP are made anew, for a device may have come;
 * over the simulated network, and devices that find nothing to offer. */
#include "net/rdma_impl.h"

#include "net/conn.h"
#include "tests/call_rig.h"

static struct net_transport *below;
static struct rdma devices;
static struct rdma_dev device;		/* with a port, but nothing to offer there */
static struct net_addr simulated;

/* ---- the simulated network, under addresses of IP ---- */

static bool
serves_ip(const struct net_transport *t, uint8_t kind)
{
	(void)t;
	return kind == NET_ADDR_TCP4;
}

static int
connect_by_ip(struct net_transport *t, const struct net_addr *to, struct net_chan **out)
{
	int rc = below->ops->connect(below, &simulated, out);

	(void)t;
	if (rc == 0)
		(*out)->peer = *to;
	return rc;
}

static void
close_below(struct net_transport *t)
{
	(void)t;
	below->ops->close(below);
}

/* A client that has devices, and a server that has none. */
static void
open_half(void)
{
	static const struct net_transport_ops ops = { .serves = serves_ip,
		.connect = connect_by_ip, .close = close_below };
	static struct net_transport ip;
	struct net_hub_conf conf;

	open_served(RIG_SIM);
	simulated = rig.addr;
	net_addr_parse("10.0.0.1:1", 10, &rig.addr, NULL);
	net_hub_close(rig.chub);
	conf = rig.hub_conf;
	conf.clock = rig.cclock;
	conf.idle_ms = 0;
	ck_assert_int_eq(net_hub_open(&rig.chub, &conf), 0);
	below = sim_net_transport(rig.net, 1, 1, rig.cclock);
	ip = (struct net_transport){ .ops = &ops };
	net_hub_add(rig.chub, &ip);
	device = (struct rdma_dev){ .r = &devices, .ready = true };
	devices = (struct rdma){ .clock = rig.cclock, .log = &rig.log,
	    .catching_up = true, .ports_n = 1, .ports = { { .dev = &device } } };
	rig.chub->rdma = &devices.t;
}

static unsigned
connects(void)
{
	return (unsigned)net_hub_stats(rig.chub)->connects;
}

static void
pass_s(unsigned s)
{
	sim_clock_run(rig.world, s * NS_PER_S);
}

/* ---- the tests ---- */

/* After ten seconds, then after twice the time and so on, up to an hour. */
START_TEST(again_and_again)
{
	unsigned n = 1;

	open_half();
	check_alive();
	ck_assert_uint_eq(devices.stat.refusals, 1);
	for (unsigned s = 10; s < 3600 * 4; s *= 2) {
		unsigned wait = s < 3600 ? s : 3600;

		pass_s(wait - 2);
		check_alive();
		ck_assert_uint_eq(connects(), n);
		pass_s(3);
		ck_assert_uint_eq(connects(), n);	/* nobody has called */
		check_alive();
		ck_assert_uint_eq(connects(), ++n);
	}
	ck_assert_uint_eq(devices.stat.refusals, n);
	close_rig();
}
END_TEST

/* What is under way keeps its connection, which ends after it. */
START_TEST(while_used)
{
	struct ask a = { .rc = 0 };

	open_half();
	check_alive();
	ck_assert_int_eq(start_hold(&a, 60000), 0);
	rig_until(&rig, &held_n, 1);
	pass_s(11);
	check_alive();
	ck_assert_uint_eq(connects(), 2);
	ck_assert_uint_eq(net_hub_conns(rig.chub), 2);
	pass_s(21);
	check_alive();
	ck_assert_uint_eq(connects(), 3);
	ck_assert_uint_eq(net_hub_conns(rig.chub), 2);
	net_reply(held[0], 0, NULL, NULL, 0, NULL, NULL);
	rig_until(&rig, &done, 4);
	ck_assert_int_eq(a.rc, 0);
	rig_pass(&rig, 10);
	ck_assert_uint_eq(net_hub_conns(rig.chub), 1);
	close_rig();
}
END_TEST

/* A connection that is never without a call. */
START_TEST(always_used)
{
	enum { N = 40 };
	static struct ask a[N];

	memset(a, 0, sizeof(a));
	open_half();
	check_alive();
	sim_clock_run(rig.world, 9900 * NS_PER_MS);
	for (unsigned i = 0; i < N; i++) {	/* each is answered after 70 ms */
		ck_assert_int_eq(start_hold(&a[i], 60000), 0);
		sim_clock_run(rig.world, 20 * NS_PER_MS);
		if (i > 0)
			net_reply(held[i - 1], 0, NULL, NULL, 0, NULL, NULL);
		sim_clock_run(rig.world, 30 * NS_PER_MS);
	}
	net_reply(held[N - 1], 0, NULL, NULL, 0, NULL, NULL);
	rig_until(&rig, &done, 1 + N);
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(a[i].rc, 0);
	ck_assert_uint_eq(connects(), 2);
	rig_pass(&rig, 10);
	ck_assert_uint_eq(net_hub_conns(rig.chub), 1);
	close_rig();
}
END_TEST

/* Both connections break with calls on them, or one of these is given up. */
START_TEST(both_break)
{
	struct ask a[2];

	memset(a, 0, sizeof(a));
	open_half();
	check_alive();
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(start_hold(&a[i], 60000), 0);
		rig_until(&rig, &held_n, 1 + i);
		pass_s(11);
	}
	ck_assert_uint_eq(net_hub_conns(rig.chub), 2);
	if (_i == 0) {
		net_server_close(rig.server);
		rig.server = NULL;
		rig_until(&rig, &done, 3);
		ck_assert_int_ne(a[0].rc, 0);
		ck_assert_int_ne(a[1].rc, 0);
		ck_assert_uint_eq(net_hub_conns(rig.chub), 0);
		pass_s(61);			/* and are forgotten */
		net_req_drop(held[0]);
		net_req_drop(held[1]);
	} else {
		net_call_cancel(&a[_i - 1].call);
		rig_pass(&rig, 10);
		ck_assert_uint_eq(net_hub_conns(rig.chub), (unsigned)_i);
		net_req_drop(held[_i - 1]);
		net_reply(held[2 - _i], 0, NULL, NULL, 0, NULL, NULL);
		rig_until(&rig, &done, 2);
		ck_assert_int_eq(a[2 - _i].rc, 0);
	}
	close_rig();
}
END_TEST

/* Who has no device himself does not try. */
START_TEST(no_device)
{
	open_half();
	rig.chub->rdma = NULL;
	check_alive();
	pass_s(7200);
	check_alive();
	ck_assert_uint_eq(connects(), 1);
	close_rig();
}
END_TEST

static void
pull_cable(void)
{
	devices.ports[0].down = true;
}

static void
take_out(void)
{
	device.dead = true;
}

static void
not_registered_yet(void)
{
	device.ready = false;
}

/* Nor who has one that cannot be used now; when it can, the next call has luck. */
START_TEST(device_of_no_use)
{
	void (*const why[])(void) = { pull_cable, take_out, not_registered_yet };

	open_half();
	check_alive();
	why[_i]();
	for (unsigned i = 0; i < 10; i++) {
		pass_s(60);
		check_alive();
		ck_assert_uint_eq(connects(), 1);
	}
	devices.ports[0].down = false;
	device = (struct rdma_dev){ .r = &devices, .ready = true };
	check_alive();
	ck_assert_uint_eq(connects(), 2);
	close_rig();
}
END_TEST

int
main(void)
{
	TCase *m = tcase_create("peer");

	tcase_add_checked_fixture(m, setup, teardown);
	tcase_add_test(m, again_and_again);
	tcase_add_test(m, while_used);
	tcase_add_test(m, always_used);
	tcase_add_loop_test(m, both_break, 0, 3);
	tcase_add_test(m, no_device);
	tcase_add_loop_test(m, device_of_no_use, 0, 3);
	return suite_run("peer", m);
}
