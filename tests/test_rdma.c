/* SPDX-License-Identifier: MIT */
/* test_rdma.c - what devices do to us: they are small, fill up, break, go and come.  Over those
 * of tests/verbs, which are not there; those that are: tests/vm. */
#define SOME	300000u
#include <arpa/inet.h>
#include <sys/stat.h>

#include "tests/call_rig.h"

#include "net/rdma_impl.h"
#include "tests/verbs/verbs.h"

#define CLIENTS	24u

static struct rdma *
rdma_of(unsigned i)
{
	return container_of(rig.rdma[i], struct rdma, t);
}

/* The first channel of the client (0) or of the server (1) that there is. */
static struct rdma_chan *
chan_of(unsigned i)
{
	struct rdma *r = rdma_of(i);
	size_t it = 0;

	for (unsigned k = 0; k < r->devs_n; k++)
		if (r->devs[k] != NULL && r->devs[k]->chans.n > 0)
			return map_next(&r->devs[k]->chans, &it, NULL);
	ck_abort_msg("no channel\n%s", rig.logged);
	return NULL;
}

static void
begin(int kind)
{
	open_served(kind);
	fill(shelf, BIG, 8);
}

static void
end(void)
{
	close_rig();
	verbs_reset();			/* fails if anything is left */
}

static void
turns(unsigned n)
{
	while (n-- > 0)
		rig_step(&rig, false);
}

/* A call that has ended: its code. */
static int
one(int (*start_it)(struct ask *a))
{
	struct ask a = { .rc = 0 };
	unsigned before = done;

	ck_assert_int_eq(start_it(&a), 0);
	rig_until(&rig, &done, before + 1);
	return a.rc;
}

/* Everything goes, whatever it goes over. */
static void
check_all_goes(void)
{
	check_alive();
	ck_assert_int_eq(one(some_write), 0);
	memset(dst, 0, SOME);
	ck_assert_int_eq(one(some_read), 0);
	ck_assert_int_eq(memcmp(dst, shelf, SOME), 0);
}

/* ---- devices of all kinds ---- */

static const struct device {
	const char *what;
	bool no_srq, no_resize;
	int max_cqe;
	unsigned inline_max, mrs_max;
	bool copies;
} kinds[] = {
	{ "plain", false, false, 1 << 20, 256, 1000, false },
	{ "no shared receives", true, false, 1 << 20, 256, 1000, false },
	{ "nothing inline", false, false, 1 << 20, 0, 1000, false },
	{ "small queues that do not grow", false, true, 2048, 64, 1000, false },
	{ "no memory but for messages", false, false, 1 << 20, 256, 0, true },
};

START_TEST(any_device)
{
	const struct device *d = &kinds[_i];
	struct net_rdma_port_stat sum;

	verbs.no_srq = d->no_srq;
	verbs.no_resize = d->no_resize;
	verbs.max_cqe = d->max_cqe;
	verbs.inline_max = d->inline_max;
	rig_open(&rig, RIG_ONE_SIDED, 1);
	held_n = served = pulled = pull_failed = sent_n = done = 0;
	rig_serve(&rig, handler, NULL);
	fill(shelf, BIG, 8);
	check_alive();
	if (d->mrs_max == 0)
		verbs.mrs_max = verbs.mrs;
	know(rig.chub, src, &known[0]);
	know(rig.chub, dst, &known[1]);
	know(rig.shub, shelf, &known[2]);
	verbs.mrs_max = UINT32_MAX;
	check_all_goes();
	for (unsigned i = 0; i < 100; i++)
		ck_assert_int_eq(one(small_echo), 0);
	net_rdma_traffic(rig.rdma[1], &sum);
	ck_assert_msg((sum.copied_bytes > 0) == d->copies, "%s: %llu copied", d->what,
	    (unsigned long long)sum.copied_bytes);
	ck_assert((strstr(rig.logged, "cannot") != NULL) == d->copies);
	end();
}
END_TEST

/* ---- memory that may be locked ---- */

/* A call that is made again while its connection breaks, as roles do. */
static void
comes_through(int (*start_it)(struct ask *a))
{
	int rc = -ECONNRESET;

	for (unsigned n = 0; n < 4 && rc == -ECONNRESET; n++)
		rc = one(start_it);
	ck_assert_msg(rc == 0, "%u: %s\n%s", verbs.mrs_max, err_name(rc), rig.logged);
}

static void
check_all_comes_through(void)
{
	for (unsigned i = 0; i < 3; i++) {
		comes_through(small_echo);
		comes_through(some_write);
		memset(dst, 0, SOME);
		comes_through(some_read);
		ck_assert_int_eq(memcmp(dst, shelf, SOME), 0);
	}
}

/* Whatever there is no more room for, at whichever end: all goes, if slowly, or over TCP. */
START_TEST(little_memory)
{
	verbs.mrs_max = (unsigned)_i / 2;
	rig_open(&rig, RIG_ONE_SIDED, 1);
	held_n = served = pulled = pull_failed = sent_n = done = 0;
	rig_serve(&rig, handler, NULL);
	fill(shelf, BIG, 8);
	if (_i % 2 == 0)
		check_all_comes_through();
	know(rig.chub, src, &known[0]);
	know(rig.chub, dst, &known[1]);
	know(rig.shub, shelf, &known[2]);
	check_all_comes_through();
	end();
}
END_TEST

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

/* ---- many connections ---- */

static const struct crowd {
	const char *what;
	bool no_resize;
	int max_cqe, max_cq;
	unsigned qps_max;
	unsigned full;			/* at most so many have a queue pair; 0: all */
} crowds[] = {
	{ "one queue that grows", false, 1 << 20, 2 * CLIENTS, 1000, 0 },
	{ "some that do not", true, 2048, 10 * CLIENTS, 1000, 0 },
	{ "none to be had any more", true, 2048, CLIENTS + 2, 1000, 8 },
	{ "no queue pairs any more", false, 1 << 20, 2 * CLIENTS, 2 * 10 + 1, 10 },
};

static struct net_hub *crowd_hubs[CLIENTS];
static struct ask crowd_asks[CLIENTS];

static void
ask_all(bool together)
{
	struct msg_committed m = { .chunk = { 40, 2 } };
	struct net_call_opts opts = { .deadline_ns = clock_now(rig.cclock) + 9 * NS_PER_S };
	unsigned before = done;

	for (unsigned i = 0; i < CLIENTS; i++) {
		crowd_asks[i].rc = 12345;
		ck_assert_int_eq(net_call_start(&crowd_asks[i].call, crowd_hubs[i],
		    &rig.addr, MSG_committed, &m, &opts, asked), 0);
		if (!together)
			rig_until(&rig, &done, before + i + 1);
	}
	rig_until(&rig, &done, before + CLIENTS);
	for (unsigned i = 0; i < CLIENTS; i++)
		ck_assert_int_eq(crowd_asks[i].rc, 0);
}

START_TEST(many_connections)
{
	const struct crowd *c = &crowds[_i];
	struct rdma_dev *d;
	uint64_t cqes = 0;

	verbs.no_resize = c->no_resize;
	verbs.max_cqe = c->max_cqe;
	verbs.max_cq = c->max_cq;
	begin(RIG_RDMA);
	memset(crowd_asks, 0, sizeof(crowd_asks));
	for (unsigned i = 0; i < CLIENTS; i++)
		crowd_hubs[i] = rig_hub(&rig, rig.cclock, 3 + i);
	verbs.qps_max = c->qps_max;
	for (unsigned k = 0; k < 20; k++)
		ask_all(k > 0);
	d = rdma_of(1)->devs[0];
	if (c->full == 0)
		ck_assert_msg(d->chans.n == CLIENTS, "%s: %zu\n%s", c->what, d->chans.n,
		    rig.logged);
	else {
		ck_assert_uint_gt(d->chans.n, 0);
		ck_assert_uint_le(d->chans.n, c->full);
		ck_assert_msg(strstr(rig.logged, "over TCP") != NULL, "%s", rig.logged);
	}
	/* All that may complete has room. */
	for (unsigned i = 0; i < d->cqs_n; i++)
		cqes += (unsigned)d->cqs[i].cq->cqe;
	ck_assert_uint_ge(cqes, d->chans.n * WRS + d->posted);
	for (unsigned i = 0; i < CLIENTS; i++)
		net_hub_close(crowd_hubs[i]);
	for (unsigned i = 0; i < 500 && d->chans.n > 0; i++)
		rig_pass(&rig, 1);
	ck_assert_uint_eq(d->chans.n, 0);
	for (unsigned i = 0; i < d->cqs_n; i++)
		ck_assert_uint_eq(d->cqs[i].qps_n, 0);
	end();
}
END_TEST

/* Nothing at the server is registered but messages, and there are no more of these than there
 * must be: who finds none goes on when others have done with theirs. */
START_TEST(crowd_of_copies)
{
	struct msg_write m = { .len = SOME, .seq = 1 };
	struct iovec from = { src, SOME };
	struct net_mem_set *its[CLIENTS];
	struct net_call_opts opts = { .send = &from, .send_n = 1 };
	unsigned before;

	verbs.no_srq = _i == 1;
	begin(RIG_RDMA);
	memset(crowd_asks, 0, sizeof(crowd_asks));
	for (unsigned i = 0; i < CLIENTS; i++) {
		crowd_hubs[i] = rig_hub(&rig, rig.cclock, 3 + i);
		know(crowd_hubs[i], src, &its[i]);
	}
	ask_all(true);
	ck_assert_uint_eq(rdma_of(1)->devs[0]->chans.n, CLIENTS);
	verbs.mrs_max = verbs.mrs;
	for (unsigned k = 0; k < 3; k++) {
		before = done;
		opts.deadline_ns = clock_now(rig.cclock) + 19 * NS_PER_S;
		for (unsigned i = 0; i < CLIENTS; i++)
			ck_assert_int_eq(net_call_start(&crowd_asks[i].call,
			    crowd_hubs[i], &rig.addr, MSG_write, &m, &opts, asked), 0);
		rig_until(&rig, &done, before + CLIENTS);
		for (unsigned i = 0; i < CLIENTS; i++)
			ck_assert_int_eq(crowd_asks[i].rc, 0);
	}
	ck_assert_uint_gt(verbs.reads, 3 * CLIENTS * (SOME / SLOT));
	for (unsigned i = 0; i < CLIENTS; i++) {
		net_mem_del(crowd_hubs[i], its[i]);
		net_hub_close(crowd_hubs[i]);
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

/* ---- devices that come and go ---- */

/* Look for devices now. */
static void
look_for_devices(void)
{
	for (unsigned i = 0; i < 2; i++) {
		rdma_of(i)->scanned_ns = 0;
		net_rdma_any(rig.rdma[i]);
	}
	rig_pass(&rig, 2);
}

/* The server is a new one: so are connections. */
static void
connect_anew(void)
{
	net_server_close(rig.server);
	rig_pass(&rig, 2);
	rig_serve(&rig, handler, NULL);
	check_all_goes();
}

static uint64_t
qps_up(void)
{
	struct net_rdma_port_stat sum;

	net_rdma_traffic(rig.rdma[0], &sum);
	return sum.connections;
}

static void
take_out(bool says)
{
	verbs_plug(0, false);
	if (says)
		verbs_event(0, IBV_EVENT_DEVICE_FATAL);
	else
		look_for_devices();
	rig_pass(&rig, 2);
}

START_TEST(comes_later)
{
	struct net_rdma_port_stat sum;

	verbs_plug(0, false);
	begin(RIG_ONE_SIDED);
	ck_assert(!net_rdma_any(rig.rdma[0]));
	check_all_goes();
	ck_assert_uint_eq(verbs.sends, 0);
	verbs_plug(0, true);
	look_for_devices();
	ck_assert(net_rdma_any(rig.rdma[0]) && net_rdma_any(rig.rdma[1]));
	ck_assert_msg(strstr(rig.logged, "RDMA device has come") != NULL, "%s", rig.logged);
	check_all_goes();
	ck_assert_uint_eq(verbs.sends, 0);	/* what is connected stays as it is */
	connect_anew();
	ck_assert_uint_gt(verbs.reads, 0);
	ck_assert_uint_gt(verbs.writes, 0);
	net_rdma_traffic(rig.rdma[1], &sum);
	ck_assert_uint_eq(sum.copied_bytes, 0);
	end();
}
END_TEST

/* At any moment of a call; what was lent is not touched once it has ended. */
START_TEST(goes_anywhere)
{
	int (*const what[])(struct ask *) = { small_echo, some_read, some_write };

	for (unsigned k = 0; k < 6; k++)
		for (unsigned steps = 0; steps < 12; steps++) {
			struct ask a = { .rc = 0 };

			begin(RIG_ONE_SIDED);
			check_alive();
			ck_assert_uint_eq(qps_up(), 1);
			ck_assert_int_eq(what[k % 3](&a), 0);
			turns(steps);
			take_out(k < 3);
			rig_until(&rig, &done, 2);
			memset(dst, 0x5a, SOME);
			ck_assert_uint_eq(qps_up(), 0);
			check_alive();
			ck_assert_uint_eq(verbs.qps, 0);
			ck_assert_uint_eq(verbs.mrs, 0);	/* it was closed */
			ck_assert(untouched(dst, SOME));
			check_all_goes();
			verbs_plug(0, true);
			look_for_devices();
			connect_anew();
			ck_assert_uint_eq(qps_up(), 1);
			end();
		}
}
END_TEST

/* Memory that a device does not take is copied until it does. */
START_TEST(takes_it_later)
{
	struct net_rdma_port_stat sum;
	uint64_t copied;

	begin(RIG_RDMA);
	check_alive();
	verbs.mrs_max = verbs.mrs;
	know(rig.chub, src, &known[0]);
	know(rig.chub, dst, &known[1]);
	know(rig.shub, shelf, &known[2]);
	check_all_goes();
	net_rdma_traffic(rig.rdma[1], &sum);
	ck_assert_uint_gt(copied = sum.copied_bytes, 0);
	look_for_devices();			/* in vain */
	verbs.mrs_max = UINT32_MAX;
	rdma_of(0)->refused_ns = rdma_of(1)->refused_ns = 0;
	look_for_devices();
	check_all_goes();
	net_rdma_traffic(rig.rdma[1], &sum);
	ck_assert_uint_eq(sum.copied_bytes, copied);
	end();
}
END_TEST

START_TEST(another_one)
{
	verbs_plug(1, true);
	begin(RIG_ONE_SIDED);
	check_all_goes();
	take_out(true);
	check_all_goes();
	ck_assert_uint_eq(qps_up(), 1);		/* on the other device */
	verbs_plug(0, true);
	look_for_devices();
	connect_anew();
	ck_assert_uint_eq(qps_up(), 1);
	end();
}
END_TEST

START_TEST(port_down)
{
	uint64_t sends;

	begin(RIG_ONE_SIDED);
	check_all_goes();
	verbs.dev[0].down = true;
	verbs_event(0, IBV_EVENT_PORT_ERR);
	rig_pass(&rig, 2);
	ck_assert_msg(strstr(rig.logged, "RDMA port is down") != NULL, "%s", rig.logged);
	sends = verbs.sends;
	connect_anew();
	ck_assert_uint_eq(verbs.sends, sends);
	verbs.dev[0].down = false;
	verbs_event(0, IBV_EVENT_PORT_ACTIVE);
	rig_pass(&rig, 2);
	connect_anew();
	ck_assert_uint_gt(verbs.sends, sends);
	end();
}
END_TEST

static char sysfs[] = "/tmp/fsd-test-XXXXXX";

static void
sysfs_says(const char *state)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/ports/1/state", sysfs);
	ck_assert_ptr_nonnull(f = fopen(path, "w"));
	fputs(state, f);
	fclose(f);
}

static void
sysfs_path(const char *sub, int (*fn)(const char *))
{
	char path[128];

	snprintf(path, sizeof(path), "%s%s", sysfs, sub);
	ck_assert_int_eq(fn(path), 0);
}

static int
make_dir(const char *path)
{
	return mkdir(path, 0700);
}

/* Opening a device takes its time: one of which no port is up is left alone. */
START_TEST(stays_down)
{
	struct ibv_device **all;
	unsigned opens;

	ck_assert_ptr_nonnull(mkdtemp(sysfs));
	sysfs_path("/ports", make_dir);
	sysfs_path("/ports/1", make_dir);
	sysfs_says("1: DOWN\n");
	verbs.dev[0].down = true;
	all = ibv_get_device_list(NULL);
	snprintf(all[0]->ibdev_path, sizeof(all[0]->ibdev_path), "%s", sysfs);
	ibv_free_device_list(all);
	begin(RIG_ONE_SIDED);
	opens = verbs.opens;
	for (unsigned i = 0; i < 5; i++)
		look_for_devices();
	ck_assert_uint_eq(verbs.opens, opens);
	verbs.dev[0].down = false;
	sysfs_says("4: ACTIVE\n");
	look_for_devices();
	check_all_goes();
	ck_assert_uint_gt(verbs.reads, 0);
	sysfs_path("/ports/1/state", unlink);
	sysfs_path("/ports/1", rmdir);
	sysfs_path("/ports", rmdir);
	sysfs_path("", rmdir);
	end();
}
END_TEST

/* Not all devices say that the MTU of the network below them has changed, or that a port has
 * gone before we listened. */
START_TEST(changes_untold)
{
	struct net_rdma_port_stat sum;
	uint64_t sends;

	begin(RIG_ONE_SIDED);
	check_all_goes();
	ck_assert_int_eq(verbs.way[0].path_mtu, IBV_MTU_4096);
	verbs.dev[0].mtu = IBV_MTU_1024;
	look_for_devices();
	connect_anew();
	ck_assert_int_eq(verbs.way[0].path_mtu, IBV_MTU_1024);
	net_rdma_traffic(rig.rdma[0], &sum);
	ck_assert_uint_eq(sum.mtu, 1024);
	verbs.dev[0].down = true;
	look_for_devices();
	sends = verbs.sends;
	connect_anew();
	ck_assert_uint_eq(verbs.sends, sends);
	verbs.dev[0].down = false;
	look_for_devices();
	connect_anew();
	ck_assert_uint_gt(verbs.sends, sends);
	end();
}
END_TEST

/* Connecting asks the network where a peer is, and waits: when there is no answer, we do not
 * wait for one again and again. */
START_TEST(no_way)
{
	begin(RIG_ONE_SIDED);
	verbs.lost_ms = 120;
	check_all_goes();
	ck_assert_uint_eq(verbs.lost, 1);
	ck_assert_msg(strstr(rig.logged, "no way to a peer") != NULL, "%s", rig.logged);
	for (unsigned i = 0; i < 5; i++)
		connect_anew();
	ck_assert_uint_eq(verbs.lost, 1);
	verbs.lost_ms = 0;
	rig_pass(&rig, 1500);
	connect_anew();
	ck_assert_uint_eq(verbs.reads, 0);
	rdma_of(0)->rest_until_ns = rdma_of(1)->rest_until_ns = clock_now(rig.cclock);
	connect_anew();
	ck_assert_uint_gt(verbs.reads, 0);
	end();
}
END_TEST

/* ---- queue pairs that break ---- */

static const enum ibv_wc_status ends[] = { IBV_WC_REM_ACCESS_ERR, IBV_WC_RETRY_EXC_ERR,
	IBV_WC_LOC_PROT_ERR, IBV_WC_SUCCESS };

START_TEST(breaks_anywhere)
{
	int (*const what[])(struct ask *) = { small_echo, some_read, some_write };

	for (unsigned k = 0; k < 6; k++)
		for (unsigned steps = 0; steps < 12; steps++) {
			struct ask a = { .rc = 0 };
			struct rdma_chan *c;

			begin(RIG_ONE_SIDED);
			check_alive();
			c = chan_of(k / 3);
			ck_assert_int_eq(what[k % 3](&a), 0);
			turns(steps);
			verbs_break_qp(c->qp->qp_num, ends[_i]);
			rig_until(&rig, &done, 2);
			ck_assert(a.rc == 0 || a.rc == -ECONNRESET);
			memset(dst, 0x5a, SOME);
			rig_pass(&rig, 2);
			ck_assert(untouched(dst, SOME));
			/* It may have broken at the answer, or breaks at the next one. */
			(void)one(small_echo);
			(void)one(small_echo);
			check_all_goes();
			end();
		}
}
END_TEST

/* As if it was time. */
static void
look_now(struct rdma_dev *d)
{
	clock_timer_stop(rig.sclock, &d->look);
	d->look_nth = d->nth;
	d->doubt_new = 0;
	d->look.fn(&d->look);
}

/* Queue pairs that break within a message take receives along.  Those are missed after a while,
 * and others are there for the peers that were promised them. */
START_TEST(breaks_within_messages)
{
	enum { N = 400 };		/* more than are spare, and than are doubted at once */
	static uint64_t torn[N];
	struct rdma_dev *d;

	begin(RIG_ONE_SIDED);
	check_alive();
	d = rdma_of(1)->devs[0];
	for (unsigned i = 0; i < N; i++) {
		torn[i] = verbs_tear_qp(chan_of(1)->qp->qp_num);
		rig_pass(&rig, 1);
		(void)one(small_echo);
		check_alive();
		ck_assert_uint_ne(d->look.pos, 0);
		ck_assert_uint_ge(verbs_srq_n(d->srq), d->promised);
		if (i % 200 == 199)
			look_now(d);
	}
	look_now(d);
	ck_assert_uint_eq(d->chans.n, 1);
	ck_assert_uint_eq(d->missed_n, N);
	ck_assert_uint_eq(d->doubt, 0);
	ck_assert_uint_eq(d->look.pos, 0);
	check_all_goes();
	for (unsigned i = 0; i < 400; i++)	/* those that are too many are used up */
		ck_assert_int_eq(one(small_echo), 0);
	ck_assert_uint_eq(verbs_srq_n(d->srq), d->promised);
	/* Some come back all the same, and are no more than before when others were used. */
	for (unsigned i = 0; i < N; i += 2)
		verbs_tell(d->cqs[0].cq, torn[i]);
	for (unsigned i = 0; i < 400; i++)
		ck_assert_int_eq(one(small_echo), 0);
	ck_assert_uint_eq(d->missed_n, N / 2);
	ck_assert_uint_eq(d->posted, d->promised);
	ck_assert_uint_eq(verbs_srq_n(d->srq), d->promised);
	/* Nobody else is missed. */
	look_now(d);
	ck_assert_uint_eq(d->missed_n, N / 2);
	end();
}
END_TEST

/* ---- last words ---- */

/* Who answers and closes at once has said so. */
START_TEST(last_words_arrive)
{
	struct msg_last_rep rep = { .len = 1 };
	struct ask a = { .rc = 0 };

	for (unsigned i = 0; i < 20; i++) {
		begin(RIG_ONE_SIDED);
		check_alive();
		ck_assert_int_eq(start_hold(&a, 9000), 0);
		rig_until(&rig, &held_n, 1);
		net_reply(held[0], 0, &rep, NULL, 0, NULL, NULL);
		turns(i % 3);
		net_server_close(rig.server);
		rig.server = NULL;
		rig_until(&rig, &done, 2);
		ck_assert_int_eq(a.rc, 0);
		end();
	}
}
END_TEST

/* ---- what is told ---- */

/* Of small messages nearly none is told of, and none has a slot; of a payload only the last. */
START_TEST(few_completions)
{
	uint64_t told, moved;

	begin(RIG_ONE_SIDED);
	check_alive();
	told = verbs.told;
	moved = verbs.sends;
	verbs.inlined = 0;
	for (unsigned i = 0; i < 200; i++)
		ck_assert_int_eq(one(small_echo), 0);
	moved = verbs.sends - moved;
	ck_assert_uint_ge(moved, 400);
	ck_assert_uint_eq(verbs.inlined, moved);
	ck_assert_uint_le(verbs.told - told, moved / SIGNAL_EACH + 1);
	told = verbs.told;
	ck_assert_int_eq(one(some_write), 0);
	ck_assert_int_eq(one(some_read), 0);
	ck_assert_uint_le(verbs.told - told, 6);
	end();
}
END_TEST

static void
echoes(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(one(small_echo), 0);
}

static bool
looks(unsigned i)
{
	const struct loop_spin *s = &rdma_of(i)->devs[0]->spin;

	return s->node.next != NULL && !list_empty(&s->node);
}

/* Under load completions wake nobody, as somebody looks for them; who finds nothing for as long as
 * he may sleeps, and is woken. */
START_TEST(looks_or_sleeps)
{
	uint64_t woken;

	begin(RIG_ONE_SIDED);
	echoes(1);
	woken = verbs.woken;
	echoes(50);
	ck_assert(!looks(0) && !looks(1));	/* as no time is given for it */
	ck_assert_uint_ge(verbs.woken - woken, 2 * 50);
	for (unsigned i = 0; i < 2; i++)
		rdma_of(i)->devs[0]->spin_for = (struct net_spin){ .max_ns = 600 * NS_PER_S,
		    .spare_ns = 600 * NS_PER_S };
	echoes(1);
	ck_assert(looks(0) && looks(1));
	woken = verbs.woken;
	echoes(50);
	ck_assert(looks(0) && looks(1));
	ck_assert_uint_le(verbs.woken - woken, 2);	/* each was armed once more */
	for (unsigned i = 0; i < 2; i++)
		rdma_of(i)->devs[0]->spin_for.max_ns = 1;
	rig_pass(&rig, 5);
	ck_assert(!looks(0) && !looks(1));
	woken = verbs.woken;
	echoes(1);
	ck_assert_uint_ge(verbs.woken - woken, 2);
	end();
}
END_TEST

/* ---- what a peer must not say ---- */

static uint8_t word[SLOT];

/* A message with @n bytes of @kind. */
static uint32_t
make_word(enum word_kind kind, uint32_t record, const void *p, uint32_t n)
{
	struct word_head h = { .kind = (uint8_t)kind, .record_len = record };

	net_rdma_word_put(word, &h);
	if (n > 0)
		memcpy(word + PREFIX, p, n);
	return PREFIX + n;
}

/* A request with a payload of @bulk bytes behind it. */
static uint32_t
stream_word(uint32_t bulk)
{
	struct net_frame f = { .kind = NET_FRAME_REQUEST, .method = MSG_fetch, .id = 77,
	    .bulk_len = bulk, .arg = 9000 };
	struct msg_fetch m = { .chain = 1 };
	struct record r = { .kind = RECORD_FRAME, .flags = RECORD_STREAM, .bulk_len = bulk };
	uint8_t bytes[RECORD + 600];
	struct bytes_writer w;
	int n = msg_encode(msg_method(MSG_fetch)->request, &m, bytes + RECORD + NET_HEAD,
	    sizeof(bytes) - RECORD - NET_HEAD);

	ck_assert_int_ge(n, 0);
	f.msg_len = (uint32_t)n;
	net_frame_encode(&f, bytes + RECORD);
	r.head_len = NET_HEAD + (uint32_t)n;
	bytes_writer_init(&w, bytes, RECORD);
	net_rdma_record_put(&w, &r);
	return make_word(WORD_FIRST, RECORD + r.head_len, bytes, RECORD + r.head_len);
}

static uint32_t
tell_word(uint8_t kind, uint32_t number, uint32_t answers)
{
	struct record r = { .kind = kind, .number = number, .answers = answers };
	uint8_t bytes[RECORD];
	struct bytes_writer w;

	bytes_writer_init(&w, bytes, RECORD);
	net_rdma_record_put(&w, &r);
	return make_word(WORD_TELL, 0, bytes, RECORD);
}

/* The server hears it, if it still listens. */
static void
say(uint32_t n)
{
	if (net_server_stats(rig.server)->connections > 0)
		verbs_deliver(chan_of(1)->qp->qp_num, word, n);
	turns(3);
}

/* Bytes that no record begins with. */
static const uint8_t nonsense[SLOT - PREFIX] = { 99 };

static void
bulk_of_nothing(void)
{
	say(make_word(WORD_BULK, 0, nonsense, 100));
}

static void
next_of_nothing(void)
{
	say(make_word(WORD_NEXT, 0, nonsense, 100));
}

static void
no_record(void)
{
	say(make_word(WORD_FIRST, 100, nonsense, 100));
}

static void
first_twice(void)
{
	say(make_word(WORD_FIRST, 5000, nonsense, 4000));
	say(make_word(WORD_FIRST, 5000, nonsense, 4000));
}

static void
done_with_nothing(void)
{
	say(tell_word(RECORD_DONE, 0, 5));
}

static void
wants_back_nothing(void)
{
	say(tell_word(RECORD_REVOKE, 1000, 0));
}

static void
tells_a_frame(void)
{
	uint32_t n = stream_word(100);

	word[2] = WORD_TELL;
	memset(word + 4, 0, 4);
	say(n);
}

static void
too_much_of_a_stream(void)
{
	say(stream_word(100));
	say(make_word(WORD_BULK, 0, nonsense, 101));
}

static void
credits_never_used(void)
{
	make_word(WORD_CREDIT, 0, NULL, 0);
	word[0] = 200;
	say(PREFIX);
}

static void
frame_in_a_stream(void)
{
	say(stream_word(8000));
	say(make_word(WORD_BULK, 0, nonsense, 4000));
	say(stream_word(8000));
	say(make_word(WORD_BULK, 0, nonsense, 4000));
	say(make_word(WORD_BULK, 0, nonsense, 4000));
}

static void
part_in_a_stream(void)
{
	say(stream_word(8000));
	say(make_word(WORD_BULK, 0, nonsense, 4000));
	say(make_word(WORD_FIRST, 5000, nonsense, 4000));
}

/* At the first of two that have completed together the owner closes the channel. */
static void
false_checksum_and_more(void)
{
	uint32_t n = stream_word(100);

	word[n - 1] ^= 1;
	verbs_deliver(chan_of(1)->qp->qp_num, word, n);
	say(n);
}

static const struct bad {
	const char *what;
	void (*say_it)(void);
} bads[] = {
	{ "a payload of nothing", bulk_of_nothing },
	{ "a part of no record", next_of_nothing },
	{ "not a record", no_record },
	{ "a record within a record", first_twice },
	{ "done with what was not offered", done_with_nothing },
	{ "what was not offered is wanted back", wants_back_nothing },
	{ "a frame that is told", tells_a_frame },
	{ "more payload than there is", too_much_of_a_stream },
	{ "credits that were not used", credits_never_used },
	{ "a frame within a payload", frame_in_a_stream },
	{ "a part of one within a payload", part_in_a_stream },
	{ "a false checksum, and more", false_checksum_and_more },
};

static void
fetch_pulled(struct net_req *req, int rc)
{
	net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

static void
pull_it(struct net_req *req)
{
	struct iovec to = { shelf, req->bulk_len };

	net_pull_start(req, &to, 1, fetch_pulled);
}

START_TEST(bad_words)
{
	const struct bad *bad = &bads[_i / 2];

	verbs.no_srq = _i % 2 == 1;
	begin(RIG_ONE_SIDED);
	on_fetch = pull_it;
	check_alive();
	verbs.still = true;		/* no answer to what nobody asked */
	bad->say_it();
	rig_pass(&rig, 5);
	ck_assert_msg(net_server_stats(rig.server)->connections == 0, "%s: it goes on",
	    bad->what);
	ck_assert_uint_eq(net_server_inflight(rig.server), 0);
	verbs.still = false;
	check_all_goes();
	end();
}
END_TEST

/* What is not bad: as our own client would say it. */
START_TEST(good_words)
{
	begin(RIG_ONE_SIDED);
	on_fetch = pull_it;
	check_alive();
	verbs.still = true;		/* no answer to what nobody asked */
	say(stream_word(5000));
	say(make_word(WORD_BULK, 0, nonsense, 4000));
	say(make_word(WORD_BULK, 0, nonsense, 1000));
	turns(5);
	ck_assert_uint_eq(net_server_inflight(rig.server), 0);
	ck_assert_int_eq(memcmp(shelf, nonsense, 4000), 0);
	ck_assert_int_eq(chan_of(1)->failed, 0);
	end();
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("fake devices");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, any_device, 0, sizeof(kinds) / sizeof(kinds[0]));
	tcase_add_loop_test(t, little_memory, 0, 24);
	tcase_add_loop_test(t, ways, 0, sizeof(all_ways) / sizeof(all_ways[0]));
	tcase_add_loop_test(t, many_connections, 0, sizeof(crowds) / sizeof(crowds[0]));
	tcase_add_loop_test(t, crowd_of_copies, 0, 2);
	tcase_add_test(t, loops_share_ports);
	tcase_add_test(t, all_ports_offered);
	tcase_add_test(t, comes_later);
	tcase_add_test(t, goes_anywhere);
	tcase_add_test(t, takes_it_later);
	tcase_add_test(t, another_one);
	tcase_add_test(t, port_down);
	tcase_add_test(t, changes_untold);
	tcase_add_test(t, stays_down);
	tcase_add_test(t, no_way);
	tcase_add_loop_test(t, breaks_anywhere, 0, sizeof(ends) / sizeof(ends[0]));
	tcase_add_test(t, breaks_within_messages);
	tcase_add_test(t, last_words_arrive);
	tcase_add_test(t, few_completions);
	tcase_add_test(t, looks_or_sleeps);
	tcase_add_loop_test(t, bad_words, 0, 2 * sizeof(bads) / sizeof(bads[0]));
	tcase_add_test(t, good_words);
	return suite_run("rdma", t);
}
