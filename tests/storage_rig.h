/* SPDX-License-Identifier: MIT */
/* storage_rig.h - storage nodes under a manager of few words, for tests of the storage role:
 * production code on simulated time, network and disks, and one call at a time to it. */
#ifndef TESTS_STORAGE_RIG_H
#define TESTS_STORAGE_RIG_H

#include "tests/storage_script.h"

/* ---- storage nodes ---- */

static void
storage_up(struct host *h)
{
	static const char *const disks[LOOPS] = { "/disk0", "/disk1" };
	char who[32], name[16], at[32];
	struct net_addr listen[LOOPS];
	struct storage_conf sc = { .envs = h->envs, .loop_n = T.loops,
	    .listen = listen, .dir_path = "/node", .disks = disks,
	    .disk_n = T.loops, .managers = &T.manager_addr, .manager_n = 1,
	    .name = name };

	snprintf(who, sizeof(who), "storage%u", h->id);
	snprintf(name, sizeof(name), "n%u", h->id);
	host_up(h, who, T.loops);
	for (unsigned i = 0; i < T.loops; i++) {
		snprintf(at, sizeof(at), "sim:%u:%u", h->id, i);
		ck_assert_int_eq(net_addr_parse(at, strlen(at), &listen[i],
		    NULL), 0);
	}
	ck_assert_int_eq(storage_open(&h->storage, &sc, role_ready, h), 0);
	ck_assert(!h->ready);
}

enum down { CLEAN, KILL, POWER };

static void
host_down(struct host *h, enum down how)
{
	if (how == POWER) {
		sim_disk_crash(h->box);
		sim_net_host_down(T.net, h->id);
	} else if (how == KILL) {
		sim_disk_kill(h->box);
	}
	for (unsigned i = 0; how != CLEAN && i < h->loops; i++)
		sim_clock_node_kill(h->clocks[i]);
	storage_close(h->storage);
	h->storage = NULL;
	for (unsigned i = 0; i < h->loops; i++)
		net_hub_close(h->hubs[i]);
	for (unsigned i = 0; i < h->loops; i++) {
		if (how == CLEAN && h->loops == 1)
			ck_assert_uint_eq(sim_clock_node_pending(h->clocks[i]),
			    0);
		/* A post to a loop that has ended frees itself there. */
		if (how == CLEAN && h->loops > 1)
			sim_clock_run(T.world, NS_PER_MS);
		sim_clock_node_close(h->clocks[i]);
	}
	if (how == POWER)
		sim_net_host_up(T.net, h->id);
	h->up = false;
}

static void
turn(void *ctx)
{
	(void)ctx;
	sim_clock_step(T.world);
}

static void
format_size(struct host *h, const char *path, uint64_t bytes)
{
	struct clock *clock = sim_clock_node(T.world, 0, 0);
	struct disk_dir *dir;
	struct uid128 id;

	random_bytes(NULL, &id, sizeof(id));
	ck_assert_int_eq(sim_disk_dir(h->box, clock, path, true, &dir), 0);
	ck_assert_int_eq(chunk_engine_format(dir, clock, &id, bytes, turn,
	    NULL), 0);
	dir->ops->close(dir);
	sim_clock_node_close(clock);
}

static void
format(struct host *h, const char *path)
{
	format_size(h, path, DISK_BYTES);
}

static bool
all_ready(void *ctx)
{
	(void)ctx;
	for (unsigned i = 0; i < NODES; i++)
		if (!T.nodes[i].ready)
			return false;
	return T.manager.ready;
}

/* @n replicas of every chain serve, as the client knows. */
static bool
serving(void *ctx)
{
	const struct routing *r = member_routing(T.member);
	unsigned n = 0, want = *(const unsigned *)ctx;
	const struct routing_chain *c;

	for (; (c = routing_chain_at(r, n)) != NULL; n++)
		if (routing_serving_n(c) != want)
			return false;
	return n == T.chains;
}

static void
wait_serving(unsigned n)
{
	if (sim_clock_run_until(T.world, serving, &n, 60 * NS_PER_S)) {
		/* The nodes may hear of it later than the client. */
		sim_clock_run(T.world, 50 * NS_PER_MS);
		return;
	}
	for (unsigned i = 0;; i++) {
		const struct routing_chain *c = routing_chain_at(T.m.routing, i);

		if (c == NULL)
			break;
		fprintf(stderr, "chain %u version %u:", c->id, c->version);
		for (unsigned k = 0; k < c->target_n; k++)
			fprintf(stderr, " %u is %u", c->targets[k], c->states[k]);
		fputc('\n', stderr);
	}
	ck_abort_msg("not %u replicas serve", n);
}

/* Set before: storage nodes have RDMA; and the client. */
static bool with_devices, client_with_device;

static void
cluster_open_with(uint64_t seed, unsigned loops, unsigned chains)
{
	char err[CONF_ERR_MAX];
	struct member_conf mc = { 0 };

	memset(&T, 0, sizeof(T));
	T.verbose = getenv("VERBOSE") != NULL;
	T.loops = loops;
	T.chains = chains;
	T.m.hold_ns = NS_PER_S / 2;
	T.world = sim_clock_open();
	rand_seed(&T.rand, seed);
	T.net = sim_net_open(sim_clock_world(T.world), seed);
	for (uint32_t i = 1; i <= NODES; i++)
		sim_net_device(T.net, i, with_devices);
	sim_net_device(T.net, CLIENT_NODE, client_with_device);
	ck_assert_int_eq(conf_init(&T.conf), 0);
	T.conf.manager_lease = LEASE_MS;	/* as the script tells */
	ck_assert_int_eq(conf_set(&T.conf, "storage.targets_per_disk", "2", err),
	    0);
	ck_assert_int_eq(conf_set(&T.conf, "storage.memory", "16MiB", err), 0);
	ck_assert_int_eq(conf_set(&T.conf, "storage.index_size", "16MiB", err),
	    0);
	T.manager.box = sim_box_open(&T.rand);
	manager_up();
	for (unsigned i = 0; i < NODES; i++) {
		T.nodes[i].id = i + 1;
		T.nodes[i].box = sim_box_open(&T.rand);
		format(&T.nodes[i], "/disk0");
		if (loops > 1)
			format(&T.nodes[i], "/disk1");
		storage_up(&T.nodes[i]);
	}
	T.client.id = CLIENT_NODE;
	host_up(&T.client, "client", 1);
	mc.clock = T.client.clock;
	mc.rand = &T.rand;
	mc.log = &T.client.envs[0].log;
	mc.hub = T.client.hubs[0];
	mc.managers = &T.manager_addr;
	mc.manager_n = 1;
	mc.client.b[0] = 1;
	mc.mount = "test";
	ck_assert_int_eq(member_open(&T.member, &mc), 0);
	ck_assert(sim_clock_run_until(T.world, all_ready, NULL, 30 * NS_PER_S));
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_int_eq(T.nodes[i].rc, 0);
	wait_serving(NODES);
}

static void
cluster_open(uint64_t seed, unsigned loops)
{
	cluster_open_with(seed, loops, 2 * loops);
}

static void
cluster_close(void)
{
	member_close(T.member);
	for (unsigned i = 0; i < NODES; i++) {
		if (T.nodes[i].up)
			host_down(&T.nodes[i], CLEAN);
		sim_box_close(T.nodes[i].box);
	}
	host_down(&T.client, CLEAN);
	manager_down();
	host_down(&T.manager, CLEAN);
	sim_box_close(T.manager.box);
	sim_net_close(T.net);
	sim_clock_close(T.world);
	conf_fini(&T.conf);
}

/* ---- calls, one at a time ---- */

static struct {
	bool	 done;
	int	 rc;
	uint32_t bulk;
	uint64_t version;
	uint32_t len, chunks, index;
	int	 item_rc;
	uint8_t	 more, found;
	uint16_t method;
} R;

static void
call_done(struct net_call *c, int rc)
{
	R.done = true;
	R.rc = rc;
	R.bulk = c->rep_bulk;
	if (rc != 0)
		return;
	if (R.method == MSG_write) {
		const struct msg_write_rep *rep = c->rep;

		R.version = rep->version;
		R.len = rep->len;
	} else if (R.method == MSG_read) {
		const struct msg_read_rep *rep = c->rep;

		R.item_rc = rep->items.v[0].rc;
		R.len = rep->items.v[0].len;
		R.version = rep->items.v[0].version;
	} else if (R.method == MSG_cut) {
		const struct msg_cut_rep *rep = c->rep;

		R.chunks = rep->chunks;
		R.more = rep->more;
	} else if (R.method == MSG_last) {
		const struct msg_last_rep *rep = c->rep;

		R.found = rep->found;
		R.index = rep->index;
		R.len = rep->len;
	}
}

static bool
is_done(void *ctx)
{
	(void)ctx;
	return R.done;
}

static int
call(target_id target, uint16_t method, const void *req, const void *send,
    uint32_t send_len, void *recv, uint32_t recv_len)
{
	struct net_call c = { 0 };
	struct iovec s = { (void *)(uintptr_t)send, send_len };
	struct iovec r = { recv, recv_len };
	struct net_call_opts o = { .deadline_ns = clock_now(T.client.clock) +
	    5 * NS_PER_S, .send = &s, .send_n = send_len > 0, .recv = &r,
	    .recv_n = recv_len > 0 };
	struct net_addr to;

	memset(&R, 0, sizeof(R));
	R.method = method;
	ck_assert_int_eq(routing_target_addr(member_routing(T.member), target,
	    &to), 0);
	ck_assert_int_eq(net_call_start(&c, T.client.hubs[0], &to, method, req, &o,
	    call_done), 0);
	ck_assert(sim_clock_run_until(T.world, is_done, NULL, 10 * NS_PER_S));
	return R.rc;
}

static const struct routing_chain *
chain_of(uint32_t index)
{
	const struct routing *r = member_routing(T.member);

	return routing_chain_at(r, index % T.chains);
}

static struct msg_write
write_msg(uint32_t index, uint32_t off, const void *data, uint32_t len,
    uint64_t seq, uint32_t epoch)
{
	const struct routing_chain *c = chain_of(index);
	struct msg_write m = { .chain = c->id, .chain_version = c->version,
	    .target = c->targets[0], .client = { { 5 } }, .seq = seq,
	    .chunk = { INO, index }, .chunk_shift = SHIFT, .epoch = epoch,
	    .offset = off, .len = len, .crc = crc32c(0, data, len) };

	return m;
}

/* From replica @i; R.item_rc and R.len say how. */
static int
get(unsigned i, uint32_t index, uint32_t off, void *data, uint32_t len)
{
	const struct routing_chain *c = chain_of(index);
	struct msg_read_item item = { { INO, index }, off, len };
	struct msg_read m = { c->id, c->version, c->targets[i], { &item, 1 } };

	return call(m.target, MSG_read, &m, NULL, 0, data, len);
}

static inline int
put(uint32_t index, uint32_t off, const void *data, uint32_t len, uint64_t seq,
    uint32_t epoch)
{
	struct msg_write m = write_msg(index, off, data, len, seq, epoch);

	return call(m.target, MSG_write, &m, data, len, NULL, 0);
}

static inline int
cut(uint32_t chain, uint32_t index, uint32_t keep, uint32_t epoch, uint32_t max)
{
	const struct routing_chain *c = chain_of(chain);
	struct msg_cut m = { c->id, c->version, c->targets[0], INO, index, keep,
	    epoch, max, 0, 0 };

	return call(m.target, MSG_cut, &m, NULL, 0, NULL, 0);
}

static inline void
by_hand(uint8_t a, uint8_t b, uint8_t c)
{
	struct routing_chain row = *routing_chain_at(T.m.routing, 0);

	row.states[0] = a;
	row.states[1] = b;
	row.states[2] = c;
	put_chain(&row);
	publish();
}

#endif
