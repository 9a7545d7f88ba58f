/* SPDX-License-Identifier: MIT */
/* test_rdma_ways.c - from which port to which connections go, and how. */
#include <arpa/inet.h>

#include "tests/rdma_rig.h"

/* ---- ways from port to port ---- */

struct at {
	bool	 ib;
	uint16_t lid, keys[2];
	unsigned key_at;		/* place of the first of them */
	const char *gids[2];
	enum ibv_mtu mtu;
};

static const struct way {
	const char *what;
	struct at ours, theirs;		/* the client's, the server's */
	const char *why;		/* over TCP; NULL: over RDMA, and */
	bool global;			/* with a GID in packets */
	unsigned gid;			/* from this one of the client's */
	enum ibv_mtu mtu;
	unsigned key;			/* by the key at this place of the client's table */
} all_ways[] = {
	{ "InfiniBand by LID", { true, 7, { 0xffff }, 0, { "fe80::7" }, 5 },
	    { true, 9, { 0xffff }, 0, { "fe80::9" }, 4 }, NULL, false, 0, 4, 0 },
	{ "through a router", { true, 7, { 0xffff }, 0, { "fe80::7" }, 4 },
	    { true, 9, { 0xffff }, 0, { "fec0:0:0:1::9" }, 4 }, NULL, true, 0, 4, 0 },
	{ "a port without a LID", { true, 0, { 0xffff }, 0, { "fe80::7" }, 1 },
	    { true, 0, { 0xffff }, 0, { "fe80::9" }, 5 }, NULL, true, 0, 1, 0 },
	{ "the partition in common", { true, 7, { 0x7fff, 0x8005 }, 0, { "fe80::7" }, 5 },
	    { true, 9, { 0x8006, 0x0005 }, 0, { "fe80::9" }, 5 }, NULL, false, 0, 5, 1 },
	{ "far back in the table", { true, 7, { 0x8005 }, 40, { "fe80::7" }, 5 },
	    { true, 9, { 0x8005 }, 3, { "fe80::9" }, 5 }, NULL, false, 0, 5, 40 },
	{ "other partitions", { true, 7, { 0x8001 }, 0, { "fe80::7" }, 5 },
	    { true, 9, { 0x8002 }, 0, { "fe80::9" }, 5 },
	    "no partition in common", false, 0, 0, 0 },
	{ "two limited members", { true, 7, { 0x7fff }, 0, { "fe80::7" }, 5 },
	    { true, 9, { 0x7fff }, 0, { "fe80::9" }, 5 },
	    "no partition in common", false, 0, 0, 0 },
	{ "RoCE by IPv4", { false, 0, { 0 }, 0, { "fd00::1", "10.0.0.1" }, 3 },
	    { false, 0, { 0 }, 0, { "fd00::2", "10.0.0.2" }, 5 }, NULL, true, 1, 3, 0 },
	{ "RoCE by IPv6", { false, 0, { 0 }, 0, { "fd00::1", "10.0.0.1" }, 5 },
	    { false, 0, { 0 }, 0, { "fd00::2" }, 5 }, NULL, true, 0, 5, 0 },
	{ "RoCE without any address", { false, 0, { 0 }, 0, { "fe80::1" }, 5 },
	    { false, 0, { 0 }, 0, { "fe80::2" }, 5 }, NULL, true, 0, 5, 0 },
	{ "other kinds of address", { false, 0, { 0 }, 0, { "fd00::1" }, 5 },
	    { false, 0, { 0 }, 0, { "10.0.0.2" }, 5 },
	    "no two addresses of the same kind", false, 0, 0, 0 },
	{ "another link layer", { true, 7, { 0xffff }, 0, { "fe80::7" }, 5 },
	    { false, 0, { 0 }, 0, { "fe80::2" }, 5 },
	    "no two ports with the same link layer", false, 0, 0, 0 },
};

static void
parse_gid(const char *text, uint8_t gid[16])
{
	memset(gid, 0, 16);
	if (text != NULL && inet_pton(AF_INET6, text, gid) != 1) {
		gid[10] = gid[11] = 0xff;
		ck_assert_int_eq(inet_pton(AF_INET, text, gid + 12), 1);
	}
}

static void
set_device(unsigned i, const struct at *a)
{
	verbs_plug(i, true);
	verbs.dev[i].ib = a->ib;
	verbs.dev[i].lid = a->lid;
	verbs.dev[i].mtu = a->mtu;
	for (unsigned k = 0; k < 2; k++) {
		verbs.dev[i].keys[a->key_at + k] = a->keys[k];
		parse_gid(a->gids[k], verbs.dev[i].gids[k]);
	}
}

static bool
is_one_of(const struct at *a, const uint8_t gid[16])
{
	uint8_t its[16];

	for (unsigned k = 0; k < 2; k++) {
		parse_gid(a->gids[k], its);
		if (memcmp(its, gid, 16) == 0)
			return true;
	}
	return false;
}

static void
check_way(const struct way *w)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct at *to = i == 0 ? &w->theirs : &w->ours;
		const struct ibv_qp_attr *a = &verbs.way[i];

		ck_assert_msg(a->path_mtu == w->mtu, "%s: mtu %d", w->what, a->path_mtu);
		ck_assert_msg((a->ah_attr.is_global != 0) == w->global, "%s", w->what);
		ck_assert_msg(a->ah_attr.dlid == to->lid, "%s", w->what);
		ck_assert_int_eq(a->ah_attr.sl, 3);
		ck_assert_int_eq(a->ah_attr.grh.traffic_class, 104);
		ck_assert_msg(!w->global || is_one_of(to, a->ah_attr.grh.dgid.raw),
		    "%s: to another GID", w->what);
	}
	ck_assert_msg(verbs.way[0].pkey_index == w->key, "%s: key %u", w->what,
	    verbs.way[0].pkey_index);
	ck_assert_msg(!w->global || verbs.way[0].ah_attr.grh.sgid_index == w->gid,
	    "%s: from another GID", w->what);
}

START_TEST(ways)
{
	const struct way *w = &all_ways[_i];
	const char *at;

	rig_devices[0] = "fake0";
	rig_devices[1] = "fake1";
	set_device(0, &w->ours);
	set_device(1, &w->theirs);
	begin(RIG_ONE_SIDED);
	check_all_goes();
	rig_devices[0] = rig_devices[1] = NULL;
	ck_assert_msg((verbs.reads > 0) == (w->why == NULL), "%s\n%s", w->what, rig.logged);
	if (w->why == NULL) {
		check_way(w);
	} else {
		at = strstr(rig.logged, "no RDMA with a client, over TCP");
		ck_assert_msg(at != NULL && strstr(at, w->why) != NULL, "%s", rig.logged);
		at = strstr(rig.logged, "peer has no RDMA for us, over TCP");
		ck_assert_msg(at != NULL && strstr(at, w->why) != NULL, "%s", rig.logged);
	}
	end();
}
END_TEST

/* ---- several devices ---- */

#define LOOPS	4u

static unsigned
chans_on(const struct net_hub *hub, const char *name)
{
	const struct rdma *r = container_of(net_hub_rdma((struct net_hub *)hub),
	    struct rdma, t);
	unsigned n = 0;

	for (unsigned i = 0; i < r->ports_n; i++)
		if (strcmp(r->ports[i].dev->name, name) == 0)
			n += r->ports[i].chans_n;
	return n;
}

/* Each loop of a client has one connection, to one loop of a server each. */
START_TEST(loops_share_ports)
{
	struct net_rdma_load load = { .rows = { { 0 } } };
	struct net_hub *ours[LOOPS], *theirs[LOOPS];
	struct net_server *servers[LOOPS];
	struct ask a[LOOPS];
	unsigned on[2] = { 0, 0 };

	memset(a, 0, sizeof(a));
	verbs_plug(1, true);
	rig_open(&rig, RIG_RDMA, 1);
	held_n = served = done = 0;
	rig.load = &load;
	for (unsigned i = 0; i < LOOPS; i++) {
		struct net_hub *shub = rig.shub, *chub = rig.chub;

		rig.shub = theirs[i] = rig_hub(&rig, rig.sclock, 10 + i);
		rig.chub = ours[i] = rig_hub(&rig, rig.cclock, 20 + i);
		rig.addr.port = 0;
		rig_serve(&rig, handler, NULL);
		servers[i] = rig.server;
		ck_assert_int_eq(small_echo(&a[i]), 0);
		rig_until(&rig, &done, i + 1);
		on[0] += chans_on(ours[i], "fake0") + chans_on(theirs[i], "fake0");
		on[1] += chans_on(ours[i], "fake1") + chans_on(theirs[i], "fake1");
		rig.shub = shub;
		rig.chub = chub;
	}
	rig.server = NULL;
	ck_assert_uint_eq(on[0], LOOPS);
	ck_assert_uint_eq(on[1], LOOPS);
	for (unsigned i = 0; i < LOOPS; i++) {
		net_server_close(servers[i]);
		net_hub_close(ours[i]);
		net_hub_close(theirs[i]);
	}
	for (unsigned i = 0; i < NET_RDMA_LOADS; i++)
		ck_assert_uint_eq(load.rows[i].used, 0);
	end();
}
END_TEST

/* Where there are more addresses than an offer has room for, each port has one in it, and the
 * better ones come first. */
START_TEST(all_ports_offered)
{
	static struct rdma many;
	struct rdma_dev dev = { .r = &many, .ready = true };
	struct net_rdma_setup *s;
	struct rdma_offered got;
	uint8_t words[NET_RDMA_WORDS];
	unsigned of[PORTS_MAX] = { 0 };
	uint32_t n;

	begin(RIG_ONE_SIDED);
	many = (struct rdma){ .clock = rig.cclock, .ports_n = PORTS_MAX };
	for (unsigned i = 0; i < PORTS_MAX; i++) {
		struct rdma_port *p = &many.ports[i];

		*p = (struct rdma_port){ .dev = &dev, .link = LINK_IB,
		    .addrs_n = PORT_ADDRS, .keys_n = PKEYS_MAX };
		for (unsigned k = 0; k < PORT_ADDRS; k++)
			p->addrs[k].gid[15] = (uint8_t)k;
	}
	ck_assert_int_eq(net_rdma_offer(&many.t, &s, NULL, NULL, words, &n), 0);
	ck_assert(net_rdma_offer_get(words, n, &got));
	ck_assert_uint_eq(got.ports_n, PORTS_MAX);
	ck_assert_uint_eq(got.addrs_n, OFFERED_ADDRS);
	for (unsigned i = 0; i < got.addrs_n; i++)
		ck_assert_uint_eq(got.addrs[i].gid[15], of[got.addrs[i].port]++);
	for (unsigned i = 0; i < PORTS_MAX; i++)
		ck_assert_uint_eq(of[i], OFFERED_ADDRS / PORTS_MAX);
	net_rdma_abandon(s);
	end();
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("fake devices");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, ways, 0, sizeof(all_ways) / sizeof(all_ways[0]));
	tcase_add_test(t, loops_share_ports);
	tcase_add_test(t, all_ports_offered);
	return suite_run("rdma_ways", t);
}
