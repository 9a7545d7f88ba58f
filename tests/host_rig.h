/* SPDX-License-Identifier: MIT */
/* host_rig.h - simulated hosts, each with a clock, a disk and a hub for the role that a test
 * opens there, and one question at a time from the host that asks.
 *
 * The test defines HOSTS (they are 1..HOSTS - 1), ASKER (one of them, without a role) and
 * ASK_NS (how long an answer may take), and has a boot() of its own. */
#ifndef TESTS_HOST_RIG_H
#define TESTS_HOST_RIG_H

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/member.h"
#include "net/msg_all.h"
#include "roles/manager.h"
#include "roles/metadata.h"
#include "tests/sim/clock.h"
#include "tests/sim/disk.h"
#include "tests/sim/net.h"

struct host {
	unsigned	 id;
	bool		 up, paused, ready, stopped;
	struct clock	*clock;
	struct sim_box	*box;
	struct net_hub	*hub;
	struct rand	 rand, disk_rand;
	struct role_env	 env;
	struct manager	*manager;
	struct metadata	*metadata;
	struct member	*member;
	unsigned	 boots;
};

static struct {
	struct rand	  rand;
	struct sim_clock *world;
	struct sim_net	 *net;
	struct conf	  conf;
	struct host	  hosts[HOSTS];
} t;

/* ---- hosts ---- */

static struct net_addr
at(unsigned id)
{
	return (struct net_addr){ .kind = NET_ADDR_SIM, .id = id };
}

static void
random_bytes(void *ctx, void *out, size_t n)
{
	rand_bytes(&((struct host *)ctx)->rand, out, n);
}

static int
dir(void *ctx, const char *path, bool create, struct disk_dir **out)
{
	struct host *h = ctx;

	return sim_disk_dir(h->box, h->clock, path, create, out);
}

static void
sink(void *ctx, enum log_level level, const char *who, const char *what,
    const char *fields)
{
	(void)ctx, (void)level;
	if (getenv("TRACE") != NULL)
		printf("[%6llu] %s: %s %s\n", (unsigned long long)
		    (sim_clock_now(t.world) / NS_PER_MS), who, what, fields);
}

static void
on_ready(void *ctx, int rc)
{
	ck_assert_int_eq(rc, 0);
	((struct host *)ctx)->ready = true;
}

static unsigned
disks(void *ctx, struct msg_disk_info *rows, unsigned max)
{
	struct host *h = ctx;

	(void)max;
	rows[0] = (struct msg_disk_info){ .disk = { { 3, (uint8_t)h->id } },
		.path = msg_str("/d"), .capacity = 1000, .targets = 1 };
	return 1;
}

/* What every host has; its role is the test's to open. */
static void
host_up(unsigned id)
{
	struct host *h = &t.hosts[id];
	struct net_hub_conf hc = { .rand = &h->rand, .log = &h->env.log,
		.nonce = random_bytes, .nonce_ctx = h, .calls_max = 4096,
		.idle_ms = 60000 };

	ck_assert(!h->up);
	h->id = id;
	h->boots++;
	h->clock = sim_clock_node(t.world, rand_below(&t.rand, NS_PER_S * 100),
	    (int32_t)rand_below(&t.rand, 20000) - 10000);
	log_init(&h->env.log, "");
	snprintf(h->env.log.who, sizeof(h->env.log.who), "host%u", id);
	h->env.log.sink = sink;
	hc.clock = h->clock;
	memset(hc.key, 7, sizeof(hc.key));
	ck_assert_int_eq(net_hub_open(&h->hub, &hc), 0);
	net_hub_add(h->hub, sim_net_transport(t.net, id, 0, h->clock));
	sim_net_host_up(t.net, id);
	h->env.clock = h->clock;
	h->env.rand = &h->rand;
	h->env.hub = h->hub;
	h->env.conf = &t.conf;
	h->env.random = random_bytes;
	h->env.dir = dir;
	h->env.ctx = h;
	h->up = true;
	h->paused = h->ready = h->stopped = false;
}

static void
die(unsigned id)
{
	struct host *h = &t.hosts[id];

	if (!h->up)
		return;
	sim_net_host_down(t.net, id);
	sim_clock_node_kill(h->clock);
	sim_disk_crash(h->box);
	metadata_close(h->metadata);
	manager_close(h->manager);
	member_close(h->member);
	h->metadata = NULL;
	h->manager = NULL;
	h->member = NULL;
	net_hub_close(h->hub);
	ck_assert_uint_eq(sim_clock_node_pending(h->clock), 0);
	sim_clock_node_close(h->clock);
	h->up = h->paused = false;
}

/* It has lost its data. */
static inline void
wipe(unsigned id)
{
	ck_assert(!t.hosts[id].up);
	sim_box_close(t.hosts[id].box);
	t.hosts[id].box = sim_box_open(&t.hosts[id].disk_rand);
}

static inline void
pause_host(unsigned id, bool paused)
{
	t.hosts[id].paused = paused;
	sim_clock_node_pause(t.hosts[id].clock, paused);
}

static inline void
on_stopped(void *ctx, int rc)
{
	(void)rc;
	((struct host *)ctx)->stopped = true;
}

static void
run_ms(uint64_t ms)
{
	sim_clock_run(t.world, ms * NS_PER_MS);
}

/* Nobody is up. */
static void
hosts_open(uint64_t seed)
{
	memset(&t, 0, sizeof(t));
	rand_seed(&t.rand, seed);
	t.world = sim_clock_open();
	t.net = sim_net_open(sim_clock_world(t.world), seed);
	ck_assert_int_eq(conf_init(&t.conf), 0);
	for (unsigned i = 1; i < HOSTS; i++) {
		rand_seed(&t.hosts[i].rand, seed * 100 + i);
		rand_seed(&t.hosts[i].disk_rand, seed * 100 + 50 + i);
		t.hosts[i].box = sim_box_open(&t.hosts[i].disk_rand);
	}
}

static void
teardown(void)
{
	for (unsigned i = 1; i < HOSTS; i++)
		die(i);
	for (unsigned i = 1; i < HOSTS; i++)
		sim_box_close(t.hosts[i].box);
	sim_net_close(t.net);
	sim_clock_close(t.world);
	conf_fini(&t.conf);
}

/* ---- questions, one at a time ---- */

struct ask {
	struct net_call call;
	bool done;
	int  rc;
	struct msg_arena arena;
	union {
		struct msg_managers_rep managers;
		struct msg_beat_rep beat;
		struct msg_entry_rep entry;
		struct msg_session_rep session;
		struct msg_image_rep image;
	} rep;
};

static void
answered(struct net_call *c, int rc)
{
	struct ask *a = container_of(c, struct ask, call);
	static uint8_t buf[NET_MSG_MAX];
	const struct msg_type *type = c->method->reply;
	int n;

	a->done = true;
	a->rc = rc;
	if (rc != 0 || type->size > sizeof(a->rep))
		return;
	n = msg_encode(type, c->rep, buf, sizeof(buf));
	ck_assert_int_ge(n, 0);
	ck_assert_int_eq(msg_decode(type, buf, (size_t)n, &a->arena, &a->rep, NULL), 0);
}

static bool
is_done(void *ctx)
{
	return ((struct ask *)ctx)->done;
}

/* The answer stays until the next question. */
static struct ask *
ask(unsigned id, uint16_t method, const void *q)
{
	static struct ask a;
	struct net_addr to = at(id);
	struct net_call_opts o = { .deadline_ns = clock_now(t.hosts[ASKER].clock) +
		ASK_NS };

	msg_arena_fini(&a.arena);
	memset(&a, 0, sizeof(a));
	msg_arena_init(&a.arena, 1 << 20);
	ck_assert_int_eq(net_call_start(&a.call, t.hosts[ASKER].hub, &to, method, q,
	    &o, answered), 0);
	ck_assert(sim_clock_run_until(t.world, is_done, &a, 5 * NS_PER_S));
	return &a;
}

#endif
