/* SPDX-License-Identifier: MIT */
/* test_rdma_port.c - which ports may be used, and which two suit each other: what no device
 * here can show, as LIDs, partitions and many cards. */
#include "net/rdma_port.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "net/addr.h"
#include "tests/suite.h"

#define N(A)	((int)(sizeof(A) / sizeof((A)[0])))

/* "10.0.0.1" or "fd00::1", as a GID. */
static void
gid(const char *text, uint8_t out[GID])
{
	memset(out, 0, GID);
	if (inet_pton(AF_INET, text, out + 12) == 1)
		out[10] = out[11] = 0xff;
	else
		ck_assert_int_eq(inet_pton(AF_INET6, text, out), 1);
}

/* ---- rdma.devices ---- */

static const struct {
	const char *what, *names, *dev;
	unsigned    port;
	const char *addr;
	bool	    used;
} named[] = {
	{ "nothing named: all", "", "mlx5_0", 1, "10.0.0.1", true },
	{ "only blanks: all", " , ", "mlx5_0", 1, "10.0.0.1", true },
	{ "by name", "mlx5_1, mlx5_0", "mlx5_0", 2, "10.0.0.1", true },
	{ "a longer name", "mlx5_0", "mlx5_01", 1, "10.0.0.1", false },
	{ "a shorter name", "mlx5_01", "mlx5_0", 1, "10.0.0.1", false },
	{ "by port", "mlx5_0:2", "mlx5_0", 2, "10.0.0.1", true },
	{ "the other port", "mlx5_0:2", "mlx5_0", 1, "10.0.0.1", false },
	{ "no number of a port", "mlx5_0:2x", "mlx5_0", 2, "10.0.0.1", false },
	{ "by subnet", "10.0.0.0/8", "x", 1, "10.9.9.9", true },
	{ "outside of it", "10.0.0.0/8", "x", 1, "11.0.0.1", false },
	{ "bits within a byte", "10.16.0.0/12", "x", 1, "10.31.0.1", true },
	{ "and beyond them", "10.16.0.0/12", "x", 1, "10.32.0.1", false },
	{ "all of IPv4", "0.0.0.0/0", "x", 1, "10.32.0.1", true },
	{ "which is not of IPv6", "0.0.0.0/0", "x", 1, "fd00::1", false },
	{ "an IPv6 subnet", "fd00:1::/32", "x", 1, "fd00:1:2::3", true },
	{ "outside of it", "fd00:1::/32", "x", 1, "fd00:2:2::3", false },
	{ "IPv6 is not IPv4", "fd00::/8", "x", 1, "10.0.0.1", false },
	{ "an address", "10.0.0.1", "x", 1, "10.0.0.1", true },
	{ "another", "10.0.0.1", "x", 1, "10.0.0.2", false },
	{ "an IPv6 address is no name and port", "fd00::1", "fd00:", 1, "fd00::1", true },
	{ "either", "mlx5_3, 10.0.0.0/24", "mlx5_0", 1, "10.0.0.7", true },
	{ "a subnet of InfiniBand", "fe80::/64", "mlx5_0", 1, "fe80::2:c903", true }
};

START_TEST(names)
{
	uint8_t at[GID];

	gid(named[_i].addr, at);
	ck_assert_msg(net_rdma_named(named[_i].names, named[_i].dev, named[_i].port, at) ==
	    named[_i].used, "%s", named[_i].what);
}
END_TEST

static const struct {
	const char *names, *bad;	/* NULL: all are sound */
} lists[] = {
	{ "", NULL }, { "mlx5_0", NULL }, { "mlx5_0:1, 10.0.0.0/8 fd00::/8", NULL },
	{ "mlx5_0:", "mlx5_0:" }, { "a, 10.0.0.0/33", "10.0.0.0/33" },
	{ "fd00::/129", "fd00::/129" }, { "10.0.0/8,b", "10.0.0/8" }, { ":1", ":1" },
	{ "10.0.0.0/", "10.0.0.0/" }, { "10.0.0.0/8/8", "10.0.0.0/8/8" }
};

START_TEST(sound_names)
{
	const char *bad;
	unsigned n;
	bool sound = net_rdma_names_check(lists[_i].names, &bad, &n);

	ck_assert_msg(sound == (lists[_i].bad == NULL), "\"%s\"", lists[_i].names);
	if (!sound) {
		ck_assert_uint_eq(n, strlen(lists[_i].bad));
		ck_assert_int_eq(memcmp(bad, lists[_i].bad, n), 0);
	}
}
END_TEST

/* ---- partitions ---- */

static const struct {
	const char *what;
	uint16_t    ours[4], theirs[4];
	int	    at;
} keys[] = {
	{ "both in the default one", { 0xffff }, { 0xffff }, 0 },
	{ "the first that both are full members of", { 0xffff, 0x8005 }, { 0x8005, 0x7fff },
	    1 },
	{ "else one of them is enough", { 0x7fff }, { 0xffff }, 0 },
	{ "two limited members may not talk", { 0x7fff }, { 0x7fff }, -1 },
	{ "none in common", { 0x8001, 0x8002 }, { 0x8003, 0x8004 }, -1 },
	{ "an empty place is no partition", { 0, 0x8000 }, { 0, 0x8000 }, -1 },
	{ "its place is that in our table", { 0, 0, 0x8009 }, { 0x8009 }, 2 }
};

START_TEST(partitions)
{
	ck_assert_msg(net_rdma_key(keys[_i].ours, 4, keys[_i].theirs, 4) == keys[_i].at,
	    "%s", keys[_i].what);
}
END_TEST

/* ---- LIDs and GIDs ---- */

static const struct {
	const char *what;
	uint8_t	    link;
	const char *ours, *theirs;
	uint16_t    lid;
	bool	    by_gid;
} routes[] = {
	{ "in one subnet by LID", LINK_IB, "fe80::1", "fe80::2", 5, false },
	{ "without a LID by GID", LINK_IB, "fe80::1", "fe80::2", 0, true },
	{ "through a router by GID", LINK_IB, "fec0:0:0:1::1", "fec0:0:0:2::2", 5, true },
	{ "RoCE knows no LID", LINK_ROCE, "fe80::1", "fe80::2", 5, true }
};

START_TEST(ways)
{
	uint8_t a[GID], b[GID];

	gid(routes[_i].ours, a);
	gid(routes[_i].theirs, b);
	ck_assert_msg(net_rdma_by_gid(routes[_i].link, a, b, routes[_i].lid) ==
	    routes[_i].by_gid, "%s", routes[_i].what);
}
END_TEST

/* ---- choosing ---- */

struct end {
	const char *addr;
	uint8_t	    link, port;
	unsigned    used;
	uint16_t    key;
};

#define E(ADDR, PORT, USED)	{ ADDR, LINK_ROCE, PORT, USED, 0 }
#define IB(ADDR, PORT, KEY)	{ ADDR, LINK_IB, PORT, 0, KEY }
#define IW(ADDR, PORT)		{ ADDR, LINK_IWARP, PORT, 0, 0 }

static const struct {
	const char *what, *peer;
	struct end  ours[4], theirs[4];
	int	    why;
	unsigned    our, their;
} choices[] = {
	{ "one each", NULL, { E("10.0.0.1", 0, 0) }, { E("10.0.0.2", 0, 0) }, 0, 0, 0 },
	{ "we have none", NULL, { { 0 } }, { E("10.0.0.2", 0, 0) }, WHY_DEVICE, 0, 0 },
	{ "they have none", NULL, { E("10.0.0.1", 0, 0) }, { { 0 } }, WHY_LINK, 0, 0 },
	{ "another link layer", NULL, { E("10.0.0.1", 0, 0) }, { IB("fe80::1", 0, 0xffff) },
	    WHY_LINK, 0, 0 },
	{ "RoCE is not iWARP", NULL, { E("10.0.0.1", 0, 0) }, { IW("10.0.0.2", 0) },
	    WHY_LINK, 0, 0 },
	{ "a port that is down", NULL, { { "10.0.0.1", LINK_NONE, 0, 0, 0 } },
	    { E("10.0.0.2", 0, 0) }, WHY_LINK, 0, 0 },
	{ "another kind of address", NULL, { E("10.0.0.1", 0, 0) }, { E("fd00::2", 0, 0) },
	    WHY_ADDRESS, 0, 0 },
	{ "of the link only, and not", NULL, { E("fe80::1", 0, 0) }, { E("fd00::2", 0, 0) },
	    WHY_ADDRESS, 0, 0 },
	{ "other partitions", NULL, { IB("fe80::1", 0, 0x8001) },
	    { IB("fe80::2", 0, 0x8002) }, WHY_PARTITION, 0, 0 },
	{ "the port in the partition", NULL, { IB("fe80::1", 0, 0x8001),
	    IB("fe80::3", 1, 0x8002) }, { IB("fe80::2", 0, 0x8002) }, 0, 1, 0 },
	{ "the same subnet, though that port is used more", NULL,
	    { E("10.0.1.1", 0, 0), E("10.0.2.1", 1, 9) }, { E("10.0.2.2", 0, 0) }, 0, 1, 0 },
	{ "of equals the least used", NULL, { E("10.0.0.1", 0, 3), E("10.0.0.3", 1, 2) },
	    { E("10.0.0.2", 0, 0) }, 0, 1, 0 },
	{ "and the least used of theirs", NULL, { E("10.0.0.1", 0, 0) },
	    { E("10.0.0.2", 0, 5), E("10.0.0.4", 1, 4) }, 0, 0, 1 },
	{ "rails: each in its subnet, the idle one", NULL,
	    { E("10.0.1.1", 0, 1), E("10.0.2.1", 1, 0) },
	    { E("10.0.1.2", 0, 0), E("10.0.2.2", 1, 0) }, 0, 1, 1 },
	{ "of a port's addresses that of the TCP connection", "fd00::2",
	    { E("10.0.0.1", 0, 0), E("fd00::1", 0, 0) },
	    { E("10.0.0.2", 0, 0), E("fd00::2", 0, 0) }, 0, 1, 1 },
	{ "or of its subnet", "fd00::9", { E("10.0.0.1", 0, 0), E("fd00::1", 0, 0) },
	    { E("10.0.0.2", 0, 0), E("fd00::2", 0, 0) }, 0, 1, 1 },
	{ "but cards come first: all of them work", "10.0.1.2",
	    { E("10.0.1.1", 0, 1), E("10.0.2.1", 1, 0) },
	    { E("10.0.1.2", 0, 0), E("10.0.2.2", 1, 0) }, 0, 1, 1 },
	{ "IPv4 before IPv6", NULL, { E("fd00::1", 0, 0), E("10.0.0.1", 0, 0) },
	    { E("fd00::2", 0, 0), E("10.0.0.2", 0, 0) }, 0, 1, 1 },
	{ "through a router, when nothing is nearer", NULL, { E("10.0.1.1", 0, 0) },
	    { E("10.9.1.1", 0, 0) }, 0, 0, 0 },
	{ "iWARP with iWARP", NULL, { E("10.0.0.1", 0, 0), IW("10.0.0.1", 1) },
	    { IW("10.0.0.2", 0) }, 0, 1, 0 }
};

static unsigned
fill_ours(const struct end *e, struct rdma_local *out)
{
	unsigned n = 0;

	for (; n < 4 && e[n].addr != NULL; n++) {
		out[n] = (struct rdma_local){ .link = e[n].link, .used = e[n].used,
		    .keys_n = 1, .keys = { e[n].key } };
		gid(e[n].addr, out[n].gid);
		out[n].prefix = net_rdma_prefix(e[n].link, out[n].gid);
	}
	return n;
}

static void
fill_theirs(const struct end *e, struct rdma_offered *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned n = 0; n < 4 && e[n].addr != NULL; n++) {
		out->ports[e[n].port] = (struct rdma_offered_port){ .link = e[n].link,
		    .used = (uint16_t)e[n].used, .keys_n = 1, .keys = { e[n].key } };
		out->ports_n = e[n].port + 1;
		out->addrs[n].port = e[n].port;
		gid(e[n].addr, out->addrs[n].gid);
		out->addrs_n = n + 1;
	}
}

START_TEST(choose)
{
	struct rdma_local ours[4];
	struct rdma_offered theirs;
	struct rdma_choice c = { 0 };
	uint8_t peer[GID];
	unsigned n = fill_ours(choices[_i].ours, ours);
	int why;

	fill_theirs(choices[_i].theirs, &theirs);
	if (choices[_i].peer != NULL)
		gid(choices[_i].peer, peer);
	why = net_rdma_choose(ours, n, &theirs, choices[_i].peer != NULL ? peer : NULL, &c);
	ck_assert_msg(why == choices[_i].why, "%s: %d", choices[_i].what, why);
	ck_assert_msg(why != 0 || (c.ours == choices[_i].our &&
	    c.theirs == choices[_i].their), "%s: %u, %u", choices[_i].what, c.ours,
	    c.theirs);
}
END_TEST

/* ---- the words ---- */

/* What a later version adds is skipped; what is cut off is not believed. */
START_TEST(words_of_later)
{
	struct rdma_offered o = { .ports_n = 1, .addrs_n = 1, .ports = { { .link = LINK_IB,
	    .mtu = 5, .lid = 3, .keys_n = 2, .keys = { 0xffff, 0x8001 } } },
	    .addrs = { { .gid = { 0xfe, 0x80 } } } }, got = { 0 };
	static const uint8_t later[] = { 200, 0, 2, 0, 9, 9 };
	uint8_t words[256];
	uint32_t n = net_rdma_offer_put(words, sizeof(words), &o);

	ck_assert_uint_gt(n, 0);
	memcpy(words + n, later, sizeof(later));
	ck_assert(net_rdma_offer_get(words, n + sizeof(later), &got));
	ck_assert_int_eq(memcmp(&got, &o, sizeof(o)), 0);
	ck_assert(!net_rdma_offer_get(words, n + sizeof(later) - 1, &got));
	ck_assert(!net_rdma_offer_get(words, n - 1, &got));
	/* A longer part of a kind that is known. */
	words[n - (1 + GID) - 2] = (uint8_t)(1 + GID + sizeof(later));
	ck_assert(net_rdma_offer_get(words, n + sizeof(later), &got));
	ck_assert_uint_eq(got.addrs_n, 1);
}
END_TEST

START_TEST(said_words)
{
	struct rdma_said s = { .step = STEP_ANSWER, .which = 3, .has_end = true,
	    .has_call = true, .port = 7, .token = { 1, 2 }, .end = { .qpn = 1, .psn = 2,
	    .credits = 32, .lid = 4, .key = 0xffff, .mtu = 5, .reads = 16 } }, got;
	uint8_t words[256];
	uint32_t n = net_rdma_said_put(words, sizeof(words), &s);

	ck_assert(net_rdma_said_get(words, n, &got));
	ck_assert_int_eq(memcmp(&got, &s, sizeof(s)), 0);
	s.end.credits = CREDITS_MAX + 1;
	n = net_rdma_said_put(words, sizeof(words), &s);
	ck_assert(!net_rdma_said_get(words, n, &got));
	s = (struct rdma_said){ .step = STEP_READY, .no = true, .why = WHY_PARTITION };
	n = net_rdma_said_put(words, sizeof(words), &s);
	ck_assert(net_rdma_said_get(words, n, &got));
	ck_assert(got.no && got.why == WHY_PARTITION && !got.has_end);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("all");

	tcase_add_loop_test(t, names, 0, N(named));
	tcase_add_loop_test(t, sound_names, 0, N(lists));
	tcase_add_loop_test(t, partitions, 0, N(keys));
	tcase_add_loop_test(t, ways, 0, N(routes));
	tcase_add_loop_test(t, choose, 0, N(choices));
	tcase_add_test(t, said_words);
	tcase_add_test(t, words_of_later);
	return suite_run("rdma_port", t);
}
