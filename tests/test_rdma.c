/* SPDX-License-Identifier: MIT */
/* test_rdma.c - what devices do to us: they are small, fill up, go and come. */
#include <sys/stat.h>

#include "tests/rdma_rig.h"

#define CLIENTS	24u

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

/* Receives that connections which have ended may have taken along are made up for where there
 * is room: others may have been promised all that there are. */
START_TEST(full_of_receives)
{
	struct rdma_dev *d;

	verbs.max_srq_wr = 64;
	begin(RIG_RDMA);
	check_alive();
	for (unsigned i = 0; i < 8; i++) {
		verbs_break_qp(chan_of(1)->qp->qp_num, IBV_WC_SUCCESS);
		rig_pass(&rig, 1);
		(void)one(small_echo);
		check_alive();
	}
	d = rdma_of(1)->devs[0];
	ck_assert_uint_eq(d->doubt, 8);
	memset(crowd_asks, 0, sizeof(crowd_asks));
	for (unsigned i = 0; i < CLIENTS; i++)
		crowd_hubs[i] = rig_hub(&rig, rig.cclock, 3 + i);
	ask_all(true);
	ask_all(true);
	ck_assert_uint_eq(d->srq_size, 64);
	ck_assert_uint_eq(d->promised, 64);
	ck_assert_uint_eq(d->posted, 64);
	ck_assert_uint_eq(d->recv_n, 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		net_hub_close(crowd_hubs[i]);
	end();
}
END_TEST

/* Nor do they take the memory that messages leave from. */
START_TEST(full_of_slots)
{
	struct rdma_dev *d;

	begin(RIG_RDMA);
	check_alive();
	d = rdma_of(1)->devs[0];
	verbs.mrs_max = verbs.mrs;
	for (unsigned i = 0; i < 100; i++) {
		verbs_break_qp(chan_of(1)->qp->qp_num, IBV_WC_SUCCESS);
		rig_pass(&rig, 1);
		(void)one(small_echo);
		check_alive();
		ck_assert_uint_le(d->posted + d->chans.n * SIGNAL_SLOTS, d->slots_n);
	}
	ck_assert_uint_eq(d->doubt, 100);
	ck_assert_uint_gt(d->posted, d->promised);
	check_all_goes();
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

/* Who waits for a slot hears of the READs that it has begun, and lets go of the memory at once
 * when that is wanted back. */
START_TEST(wanted_back_without_slots)
{
	struct slot *s;
	struct ask a = { .rc = 0 };
	struct list taken;
	struct rdma_dev *d;

	begin(RIG_RDMA);
	know(rig.chub, src, &known[0]);
	check_alive();
	d = rdma_of(1)->devs[0];
	verbs.mrs_max = verbs.mrs;
	list_init(&taken);
	while ((s = net_rdma_slot(d)) != NULL)
		list_push_back(&taken, &s->node);
	for (unsigned i = 0; i < 2; i++)
		net_rdma_slot_free(d, list_entry(list_pop_front(&taken), struct slot,
		    node));
	ck_assert_int_eq(some_write(&a), 0);
	for (unsigned i = 0; i < 1000 && list_empty(&d->starved); i++)
		rig_step(&rig, false);
	ck_assert(!list_empty(&d->starved));
	if (_i == 0) {
		ck_assert(!net_call_abandon(&a.call));
		rig_until(&rig, &done, 2);
		ck_assert_int_eq(a.rc, -ECANCELED);
		ck_assert(strstr(rig.logged, "does not let go") == NULL);
	} else {
		rig_until(&rig, &done, 2);
		ck_assert_int_eq(a.rc, 0);
	}
	while (!list_empty(&taken))
		net_rdma_slot_free(d, list_entry(list_pop_front(&taken), struct slot,
		    node));
	check_all_goes();
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

int
main(void)
{
	TCase *t = tcase_create("fake devices");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, any_device, 0, sizeof(kinds) / sizeof(kinds[0]));
	tcase_add_loop_test(t, little_memory, 0, 24);
	tcase_add_loop_test(t, many_connections, 0, sizeof(crowds) / sizeof(crowds[0]));
	tcase_add_test(t, full_of_receives);
	tcase_add_test(t, full_of_slots);
	tcase_add_loop_test(t, crowd_of_copies, 0, 2);
	tcase_add_loop_test(t, wanted_back_without_slots, 0, 2);
	tcase_add_test(t, comes_later);
	tcase_add_test(t, goes_anywhere);
	tcase_add_test(t, takes_it_later);
	tcase_add_test(t, another_one);
	tcase_add_test(t, port_down);
	tcase_add_test(t, changes_untold);
	tcase_add_test(t, stays_down);
	tcase_add_test(t, no_way);
	return suite_run("rdma", t);
}
