/* SPDX-License-Identifier: MIT */
/* sim.c - nodes, their life and death, faults, and the trace of it all. */
#include "tests/sim/sim.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "chunk/engine.h"
#include "conf/err.h"
#include "roles/manager.h"
#include "roles/metadata.h"
#include "roles/storage.h"
#include "tests/sim/clock.h"
#include "tests/sim/disk.h"
#include "tests/sim/net.h"

#define DISK_BYTES	(64ull << 20)
#define POLL_NS		(40 * NS_PER_MS)	/* looking at versions */

struct node {
	struct sim	*s;
	unsigned	 id;
	bool		 up, ready, gone;	/* gone: for good */
	struct clock	*clock;
	struct rand	 rand;
	struct sim_box	*box;		/* servers */
	struct net_hub	*hub;
	struct role_env	 env;
	struct clock_timer again;	/* on the world's clock: start, or go on */
	struct clock_timer blow;	/* dies at once */
	unsigned	 fuse;		/* disk requests and frames until then; 0: none */
	struct check_seen *seen;	/* storage: versions of its chunks */
	bool		 paused;
	unsigned	 lives;
	union {
		struct manager	*manager;
		struct metadata *metadata;
		struct storage	*storage;
		struct client	*client;
	};
};

#define CUTS_MAX	16u

struct cut {
	struct sim	  *s;
	unsigned	   from, to;
	struct clock_timer mend;
};

struct sim {
	uint64_t	 seed;
	unsigned	 faults;
	struct rand	 rand;		/* the world's: faults, load */
	struct sim_clock *clocks;
	struct sim_net	*net;
	struct conf	 conf;
	struct net_addr	 manager_addr;
	struct node	 nodes[SIM_NODES];
	struct clock_timer fault, poll, mend_disk;
	uint64_t	 fault_ns;	/* most time between two */
	unsigned	 ops;		/* of the load, per actor */
	unsigned	 slow_box;
	unsigned	 losses;
	struct cut	 cuts[CUTS_MAX];
	unsigned	 cut_at;
	bool		 healing;
	XXH64_state_t	*trace;
	bool		 loud;
	struct load	*load;
};

/* ---- the trace ---- */

static void
trace_line(struct sim *s, const char *who, const char *what, const char *fields)
{
	uint64_t now = sim_clock_now(s->clocks);

	XXH64_update(s->trace, &now, sizeof(now));
	XXH64_update(s->trace, who, strlen(who));
	XXH64_update(s->trace, what, strlen(what));
	XXH64_update(s->trace, fields, strlen(fields));
	if (s->loud)
		fprintf(stderr, "[%10.6f] %s: %s %s\n", (double)now / 1e9, who, what,
		    fields);
}

static void
log_sink(void *ctx, enum log_level level, const char *who, const char *what,
    const char *fields)
{
	struct sim *s = ctx;

	(void)level;
	if (strcmp(what, "client session ended") == 0 ||
	    (strcmp(who, "metadata") == 0 && strcmp(what, "serving") == 0))
		s->losses++;
	trace_line(s, who, what, fields);
}

void
sim_trace(struct sim *s, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	trace_line(s, "sim", text, "");
}

void
sim_fail(struct sim *s, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "seed %" PRIu64 " failed at %.6f s: ", s->seed,
	    (double)sim_clock_now(s->clocks) / 1e9);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nrun it again: SEED=%" PRIu64 " SIM_TRACE=1 build/tests/test_sim\n",
	    s->seed);
	if (s->loud)
		check_dump(s);
	abort();
}

/* ---- the world ---- */

const struct conf *
sim_conf(const struct sim *s)
{
	return &s->conf;
}

struct rand *
sim_rand(struct sim *s)
{
	return &s->rand;
}

struct clock *
sim_clock(struct sim *s)
{
	return sim_clock_world(s->clocks);
}

uint64_t
sim_now(const struct sim *s)
{
	return sim_clock_now(s->clocks);
}

struct client *
sim_client(struct sim *s, unsigned i)
{
	struct node *n = &s->nodes[SIM_CLIENT0 + i];

	return n->up ? n->client : NULL;
}

unsigned
sim_losses(const struct sim *s)
{
	return s->losses;
}

struct storage *
sim_storage(struct sim *s, unsigned i)
{
	return s->nodes[SIM_STORAGE0 + i].up ? s->nodes[SIM_STORAGE0 + i].storage : NULL;
}

struct metadata *
sim_metadata(struct sim *s)
{
	return s->nodes[SIM_METADATA].metadata;
}

void
sim_until(struct sim *s, bool (*done)(void *ctx), void *ctx, unsigned limit_s,
    const char *what)
{
	if (!sim_clock_run_until(s->clocks, done, ctx, limit_s * NS_PER_S))
		sim_fail(s, "%s did not end within %u s", what, limit_s);
}

/* ---- nodes ---- */

static void
node_random(void *ctx, void *out, size_t n)
{
	struct node *node = ctx;

	rand_bytes(&node->rand, out, n);
}

static int
node_dir(void *ctx, const char *path, bool create, struct disk_dir **out)
{
	struct node *n = ctx;

	return sim_disk_dir(n->box, n->clock, path, create, out);
}

static const char *
node_name(unsigned id, char out[32])
{
	if (id == SIM_MANAGER)
		snprintf(out, 32, "manager");
	else if (id == SIM_METADATA)
		snprintf(out, 32, "metadata");
	else if (id < SIM_CLIENT0)
		snprintf(out, 32, "storage%u", id - SIM_STORAGE0 + 1);
	else
		snprintf(out, 32, "client%u", id - SIM_CLIENT0 + 1);
	return out;
}

static struct net_addr
node_addr(unsigned id)
{
	return (struct net_addr){ .kind = NET_ADDR_SIM, .id = id };
}

static void
node_ready(void *ctx, int rc)
{
	struct node *n = ctx;

	if (rc != 0)
		sim_fail(n->s, "%s cannot start: %s", n->env.log.who, err_text(rc));
	n->ready = true;
	trace_line(n->s, n->env.log.who, "ready", "");
}

static int
open_role(struct node *n)
{
	struct sim *s = n->s;
	struct net_addr at = node_addr(n->id);
	static const char *const disks[] = { "/disk" };
	char name[32];

	node_name(n->id, name);
	if (n->id == SIM_MANAGER)
		return manager_open(&n->manager, &n->env, "/manager", &at,
		    NULL, 0, node_ready, n);
	if (n->id == SIM_METADATA)
		return metadata_open(&n->metadata, &n->env, "/metadata", &at,
		    &s->manager_addr, 1, name, node_ready, n);
	if (n->id < SIM_CLIENT0) {
		struct storage_conf sc = {
			.envs = &n->env, .loop_n = 1, .listen = &at,
			.dir_path = "/node", .disks = disks, .disk_n = 1,
			.managers = &s->manager_addr, .manager_n = 1, .name = name,
		};

		return storage_open(&n->storage, &sc, node_ready, n);
	}
	return client_open(&n->client, &n->env, &s->manager_addr, 1, "/sim", node_ready,
	    n);
}

static void
boot(struct node *n)
{
	struct sim *s = n->s;
	struct net_hub_conf hc = {
		.rand = &n->rand, .log = &n->env.log, .nonce = node_random,
		.nonce_ctx = n, .calls_max = 4096, .idle_ms = 60000,
	};
	int32_t drift = 0;
	int rc;

	assert(!n->up && !n->gone);
	if ((s->faults & SIM_DRIFT) && !s->healing)
		drift = (int32_t)rand_below(&s->rand, 20000) - 10000;
	n->clock = sim_clock_node(s->clocks, rand_below(&s->rand, 1000 * NS_PER_S), drift);
	node_name(n->id, n->env.log.who);
	trace_line(s, n->env.log.who, "boot", "");
	memset(hc.key, 7, sizeof(hc.key));
	hc.clock = n->clock;
	rc = net_hub_open(&n->hub, &hc);
	assert(rc == 0);
	net_hub_add(n->hub, sim_net_transport(s->net, n->id, 0, n->clock));
	sim_net_host_up(s->net, n->id);
	n->env.clock = n->clock;
	n->env.rand = &n->rand;
	n->env.hub = n->hub;
	n->env.conf = &s->conf;
	n->env.random = node_random;
	n->env.dir = node_dir;
	n->env.ctx = n;
	n->env.log.level = LOG_DEBUG;
	n->env.log.sink = log_sink;
	n->env.log.ctx = s;
	n->up = true;
	n->ready = n->paused = false;
	n->lives++;
	/* Dying again while it recovers. */
	if ((s->faults & SIM_FUSES) && !s->healing && n->id < SIM_CLIENT0 &&
	    rand_chance(&s->rand, 1, 3))
		n->fuse = 1 + (unsigned)rand_below(&s->rand, 40);
	if ((rc = open_role(n)) != 0)
		sim_fail(s, "%s cannot open: %s", n->env.log.who, err_text(rc));
}

/* The process dies; with @power what its disks had not synced goes too. */
static void
die(struct node *n, bool power)
{
	assert(n->up);
	trace_line(n->s, n->env.log.who, power ? "power cut" : "killed", "");
	n->fuse = 0;
	clock_timer_stop(sim_clock(n->s), &n->blow);
	if (power)
		sim_net_host_down(n->s->net, n->id);
	if (n->box != NULL) {
		if (power)
			sim_disk_crash(n->box);
		else
			sim_disk_kill(n->box);
	}
	if (n->id == SIM_MANAGER)
		manager_close(n->manager);
	else if (n->id == SIM_METADATA)
		metadata_close(n->metadata);
	else if (n->id < SIM_CLIENT0)
		storage_close(n->storage);
	else
		client_close(n->client);
	net_hub_close(n->hub);
	/* Whatever they were doing, they leave nothing behind. */
	if (sim_clock_node_pending(n->clock) != 0)
		sim_fail(n->s, "%s: %u callbacks are left", n->env.log.who,
		    sim_clock_node_pending(n->clock));
	sim_clock_node_close(n->clock);
	n->up = n->ready = false;
}

static void
step_once(void *ctx)
{
	sim_clock_step(ctx);
}

static void
format(struct node *n)
{
	struct disk_dir *dir;
	struct uid128 id;
	int rc;

	n->clock = sim_clock_node(n->s->clocks, 0, 0);
	rand_bytes(&n->rand, &id, sizeof(id));
	rc = sim_disk_dir(n->box, n->clock, "/disk", true, &dir);
	assert(rc == 0);
	rc = chunk_engine_format(dir, n->clock, &id, DISK_BYTES, step_once, n->s->clocks);
	if (rc != 0)
		sim_fail(n->s, "cannot format: %s", err_text(rc));
	dir->ops->close(dir);
	sim_clock_node_close(n->clock);
}

static bool
all_ready(void *ctx)
{
	struct sim *s = ctx;

	for (unsigned i = 0; i < SIM_NODES; i++)
		if (!s->nodes[i].gone && (!s->nodes[i].up || !s->nodes[i].ready))
			return false;
	return true;
}

/* ---- faults ---- */

static void
again(struct clock_timer *t)
{
	struct node *n = container_of(t, struct node, again);

	if (n->gone)
		return;
	if (!n->up)
		boot(n);
	else if (n->paused) {
		n->paused = false;
		sim_clock_node_pause(n->clock, false);
		trace_line(n->s, n->env.log.who, "goes on", "");
	}
}

static void
later(struct node *n, uint64_t max_ms)
{
	struct clock *w = sim_clock(n->s);

	clock_timer_start(w, &n->again, clock_now(w) +
	    rand_below(&n->s->rand, max_ms * NS_PER_MS), again);
}

static void
crash(struct node *n)
{
	if (!n->up)
		return;
	die(n, rand_chance(&n->s->rand, 1, 2));
	later(n, rand_chance(&n->s->rand, 1, 3) ? 200 : 2000);
}

static void
blown(struct clock_timer *t)
{
	crash(container_of(t, struct node, blow));
}

/* A disk request or a frame of @n starts. */
static void
burn(struct node *n)
{
	struct clock *w = sim_clock(n->s);

	if (n->fuse > 0 && --n->fuse == 0)
		clock_timer_start(w, &n->blow, clock_now(w), blown);
}

static void
box_tick(void *ctx)
{
	burn(ctx);
}

static void
net_watch(void *ctx, uint32_t node)
{
	struct sim *s = ctx;

	if (node < SIM_CLIENT0)
		burn(&s->nodes[node]);
}

static void
light_fuse(struct sim *s)
{
	struct node *n = &s->nodes[rand_below(&s->rand, SIM_CLIENT0)];

	if (n->up && n->fuse == 0)
		n->fuse = 1 + (unsigned)rand_below(&s->rand, 60);
}

/* All servers at once, or some. */
static void
power_cut(struct sim *s)
{
	bool all = rand_chance(&s->rand, 1, 2);

	for (unsigned i = 0; i < SIM_CLIENT0; i++) {
		if (!all && rand_chance(&s->rand, 1, 2))
			continue;
		if (s->nodes[i].up)
			die(&s->nodes[i], true);
		later(&s->nodes[i], 1500);
	}
}

static void
disk_speed(struct node *n, unsigned times)
{
	struct sim_disk_conf *c = sim_box_conf(n->box);

	c->read_max_ns = c->read_min_ns * times;
	c->write_max_ns = c->write_min_ns * times;
	c->sync_max_ns = c->sync_min_ns * times;
	c->table.write_max_ns = c->table.write_min_ns * times;
}

static void
disk_mended(struct clock_timer *t)
{
	struct sim *s = container_of(t, struct sim, mend_disk);

	disk_speed(&s->nodes[s->slow_box], 1);
}

/* For a while a disk takes up to some hundred times as long. */
static void
slow_disk(struct sim *s)
{
	struct clock *w = sim_clock(s);

	if (s->mend_disk.pos != 0)
		return;
	s->slow_box = (unsigned)rand_below(&s->rand, SIM_CLIENT0);
	disk_speed(&s->nodes[s->slow_box], 10u << rand_below(&s->rand, 7));
	sim_trace(s, "disk of node %u is slow", s->slow_box);
	clock_timer_start(w, &s->mend_disk, clock_now(w) +
	    rand_below(&s->rand, 3 * NS_PER_S), disk_mended);
}

static void
pause_some(struct sim *s)
{
	struct node *n = &s->nodes[rand_below(&s->rand, SIM_NODES)];

	if (!n->up || n->paused)
		return;
	n->paused = true;
	sim_clock_node_pause(n->clock, true);
	trace_line(s, n->env.log.who, "pauses", "");
	later(n, rand_chance(&s->rand, 1, 4) ? 7000 : 2000);
}

static void
client_death(struct sim *s)
{
	unsigned i = SIM_CLIENTS - 1;
	struct node *n = &s->nodes[SIM_CLIENT0 + i];

	if (!n->up || !n->ready || s->load == NULL || !rand_chance(&s->rand, 1, 4))
		return;
	load_client_died(s->load, i);
	die(n, true);
	n->gone = true;
}

static void
mended(struct clock_timer *t)
{
	struct cut *c = container_of(t, struct cut, mend);

	sim_net_path(c->s->net, c->from, c->to, SIM_NET_CLEAR);
	sim_trace(c->s, "path %u-%u mended", c->from, c->to);
}

/* One path, or both ways, swallows everything or breaks streams for a while. */
static void
cut_some(struct sim *s)
{
	unsigned a = (unsigned)rand_below(&s->rand, SIM_NODES);
	unsigned b = (unsigned)rand_below(&s->rand, SIM_NODES);
	bool both = rand_chance(&s->rand, 1, 2);
	enum sim_net_path how = rand_chance(&s->rand, 2, 3) ? SIM_NET_SILENT :
	    SIM_NET_RESET;
	struct clock *w = sim_clock(s);

	if (a == b)
		return;
	for (unsigned i = 0; i <= both; i++) {
		struct cut *c = &s->cuts[s->cut_at++ % CUTS_MAX];

		if (c->mend.pos != 0)
			continue;	/* still one from before */
		*c = (struct cut){ .s = s, .from = i ? b : a, .to = i ? a : b };
		sim_net_path(s->net, c->from, c->to, how);
		sim_trace(s, "path %u-%u %s", c->from, c->to,
		    how == SIM_NET_SILENT ? "silent" : "resets");
		clock_timer_start(w, &c->mend, clock_now(w) + 1 +
		    rand_below(&s->rand, 2500 * NS_PER_MS), mended);
	}
}

static void
fault(struct clock_timer *t)
{
	struct sim *s = container_of(t, struct sim, fault);
	unsigned kind = 1u << rand_below(&s->rand, 9);
	struct clock *w = sim_clock(s);

	if (kind & s->faults) {
		switch (kind) {
		case SIM_CUTS:
			cut_some(s);
			break;
		case SIM_CRASHES:
			crash(&s->nodes[rand_below(&s->rand, SIM_CLIENT0)]);
			break;
		case SIM_POWER:
			power_cut(s);
			break;
		case SIM_PAUSES:
			pause_some(s);
			break;
		case SIM_CLIENT_DEATH:
			client_death(s);
			break;
		case SIM_FUSES:
			light_fuse(s);
			break;
		case SIM_SLOW_DISKS:
			slow_disk(s);
			break;
		default:
			break;
		}
	}
	clock_timer_start(w, &s->fault, clock_now(w) + 1 +
	    rand_below(&s->rand, s->fault_ns), fault);
}

static void
poll(struct clock_timer *t)
{
	struct sim *s = container_of(t, struct sim, poll);
	struct clock *w = sim_clock(s);

	for (unsigned i = 0; i < SIM_STORAGE; i++) {
		struct node *n = &s->nodes[SIM_STORAGE0 + i];

		if (n->up && n->ready)
			check_versions(s, i, &n->seen, n->lives,
			    more_cut_ino(load_more(s->load)));
	}
	clock_timer_start(w, t, clock_now(w) + POLL_NS, poll);
}

/* ---- the life of a simulation ---- */

static void
options(struct sim *s)
{
	static const char *const set[][2] = {
		{ "cluster.chunk_size", "64KiB" }, { "cluster.stripe", "2" },
		{ "manager.beat", "100ms" }, { "manager.lease", "600ms" },
		{ "manager.form_delay", "50ms" }, { "manager.log_size", "1MiB" },
		{ "metadata.log_size", "1MiB" }, { "metadata.session", "30s" },
		{ "metadata.cache_ttl", "200ms" }, { "metadata.flush_time", "200ms" },
		{ "metadata.flush_size", "64KiB" }, { "storage.targets_per_disk", "2" },
		{ "storage.memory", "32MiB" }, { "storage.buffer_keep", "1MiB" },
		{ "client.memory", "16MiB" }, { "client.buffer_keep", "1MiB" },
		{ "client.call", "500ms" }, { "client.write_back", "500ms" },
		{ "client.read_ahead", "0" },
	};
	char err[CONF_ERR_MAX];
	int rc = conf_init(&s->conf);

	assert(rc == 0);
	for (size_t i = 0; i < sizeof(set) / sizeof(set[0]); i++)
		if ((rc = conf_set(&s->conf, set[i][0], set[i][1], err)) != 0)
			sim_fail(s, "%s", err);
}

/* What else differs from seed to seed. */
static void
draw(struct sim *s)
{
	static const uint64_t flush[] = { 65536, 65536, 4096, 1 << 20 };
	struct rand *r = &s->rand;

	s->fault_ns = (100 + rand_below(r, 1500)) * NS_PER_MS;
	s->ops = 60 + (unsigned)rand_below(r, rand_chance(r, 1, 4) ? 800 : 250);
	s->conf.metadata_flush_size = flush[rand_below(r, 4)];
	s->conf.metadata_flush_time = 10 + rand_below(r, 500);
	s->conf.metadata_cache_ttl = rand_below(r, 4) * 150;
	s->conf.client_write_back = rand_below(r, 3) * 250;
	s->conf.client_read_ahead = rand_below(r, 2) * (128 << 10);
	s->conf.client_call = 200 + rand_below(r, 1000);
	s->conf.metadata_session = 30000 + rand_below(r, 30000);
	if (s->faults & SIM_TIGHT) {
		s->conf.client_memory = 256 << 10;
		s->conf.storage_memory = 1536 << 10;
		s->conf.client_buffer_keep = s->conf.storage_buffer_keep = 0;
	}
}

struct sim *
sim_open(uint64_t seed, unsigned faults)
{
	struct sim *s = calloc(1, sizeof(*s));

	assert(s != NULL);
	s->seed = seed;
	s->loud = getenv("SIM_TRACE") != NULL;
	s->trace = XXH64_createState();
	XXH64_reset(s->trace, 0);
	rand_seed(&s->rand, seed);
	s->clocks = sim_clock_open();
	options(s);
	/* Swarm testing: every seed has another mix of faults. */
	s->faults = faults & (unsigned)rand_below(&s->rand, SIM_ALL + 1);
	draw(s);
	s->healing = true;		/* no faults while it starts */
	s->net = sim_net_open(sim_clock_world(s->clocks), rand_u64(&s->rand));
	s->manager_addr = node_addr(SIM_MANAGER);
	for (unsigned i = 0; i < SIM_NODES; i++) {
		struct node *n = &s->nodes[i];

		n->s = s;
		n->id = i;
		rand_seed(&n->rand, rand_u64(&s->rand));
		if (i < SIM_CLIENT0) {
			n->box = sim_box_open(&s->rand);
			sim_box_conf(n->box)->table.tick = box_tick;
			sim_box_conf(n->box)->table.tick_ctx = n;
		}
		if (i >= SIM_STORAGE0 && i < SIM_CLIENT0)
			format(n);
	}
	for (unsigned i = 0; i < SIM_NODES; i++)
		boot(&s->nodes[i]);
	sim_net_watch(s->net, net_watch, s);
	sim_until(s, all_ready, s, 60, "starting");
	s->healing = false;
	sim_trace(s, "seed %" PRIu64 " faults %x", seed, s->faults);
	return s;
}

void
sim_load(struct sim *s)
{
	struct clock *w = sim_clock(s);
	struct sim_net_faults f = { .delay_min_us = 20, .delay_max_us = 100 };

	if (s->faults & SIM_RESETS)
		f.break_ppm = 1 + (uint32_t)rand_below(&s->rand, 20000);
	f.delay_max_us += (uint32_t)rand_below(&s->rand, 2000);
	f.slow_ppm = (uint32_t)rand_below(&s->rand, 10000);
	f.slow_us = (uint32_t)rand_below(&s->rand,
	    s->faults & SIM_LATE_FRAMES ? 4000000 : 300000);
	if (s->faults & SIM_LATE_FRAMES)
		f.bytes_per_us = 1 + (uint32_t)rand_below(&s->rand, 100);
	if (s->faults & SIM_SLOW_DISKS)
		for (unsigned i = 0; i < SIM_CLIENT0; i++)
			disk_speed(&s->nodes[i], 1 + (unsigned)rand_below(&s->rand, 20));
	sim_net_faults(s->net, &f);
	clock_timer_start(w, &s->fault, clock_now(w) + rand_below(&s->rand,
	    500 * NS_PER_MS), fault);
	clock_timer_start(w, &s->poll, clock_now(w) + POLL_NS, poll);
	s->load = load_open(s, s->ops);
	/* Faults may keep the load from ending; healing must not. */
	sim_clock_run_until(s->clocks, load_done, s->load, 20 * NS_PER_S);
}

void
sim_heal(struct sim *s)
{
	static const struct sim_net_faults calm = { .delay_min_us = 50,
		.delay_max_us = 150 };

	clock_timer_stop(sim_clock(s), &s->fault);
	clock_timer_stop(sim_clock(s), &s->mend_disk);
	s->healing = true;
	sim_trace(s, "heal");
	for (unsigned i = 0; i < CUTS_MAX; i++)
		clock_timer_stop(sim_clock(s), &s->cuts[i].mend);
	sim_net_faults(s->net, &calm);
	sim_net_heal(s->net);
	for (unsigned i = 0; i < SIM_NODES; i++) {
		struct node *n = &s->nodes[i];

		clock_timer_stop(sim_clock(s), &n->again);
		clock_timer_stop(sim_clock(s), &n->blow);
		n->fuse = 0;
		if (n->box != NULL)
			disk_speed(n, 1);
		again(&n->again);
	}
	sim_until(s, all_ready, s, 60, "starting again");
	sim_until(s, load_done, s->load, 300, "the load");
}

static void
client_stopped(void *ctx, int rc)
{
	struct node *n = ctx;

	if (rc != 0)
		sim_fail(n->s, "%s: stopping: %s", n->env.log.who, err_text(rc));
	n->ready = false;
}

static bool
clients_stopped(void *ctx)
{
	struct sim *s = ctx;

	for (unsigned i = SIM_CLIENT0; i < SIM_NODES; i++)
		if (s->nodes[i].up && s->nodes[i].ready)
			return false;
	return true;
}

void
sim_check(struct sim *s)
{
	struct node *bad = &s->nodes[SIM_STORAGE0 + rand_below(&s->rand, SIM_STORAGE)];

	/* Bad reads of one replica: the others answer. */
	if (s->faults & SIM_BAD_DISK) {
		if (rand_chance(&s->rand, 1, 2))
			sim_box_conf(bad->box)->read_eio_ppm = 300000;
		else
			sim_box_conf(bad->box)->flip_ppm = 300000;
	}
	load_check(s->load);
	sim_until(s, load_checked, s->load, 120, "reading back");
	/* A disk that has failed is refused until its node starts again. */
	if (s->faults & SIM_BAD_DISK) {
		sim_box_conf(bad->box)->read_eio_ppm = 0;
		sim_box_conf(bad->box)->flip_ppm = 0;
		die(bad, false);
		boot(bad);
		sim_until(s, all_ready, s, 60, "starting after a bad disk");
		sim_clock_run(s->clocks, 2 * NS_PER_S);	/* clients hear of it */
	}
	for (unsigned i = SIM_CLIENT0; i < SIM_NODES; i++)
		if (s->nodes[i].up)
			client_stop(s->nodes[i].client, client_stopped, &s->nodes[i]);
	sim_until(s, clients_stopped, s, 60, "stopping clients");
	/* Sessions of the dead run out, what is unlinked is collected. */
	sim_clock_run(s->clocks, 20 * NS_PER_S);
	check_replicas(s);
	check_tree(s);
}

uint64_t
sim_close(struct sim *s)
{
	uint64_t hash;

	load_close(s->load);
	for (unsigned i = SIM_NODES; i-- > 0;) {
		struct node *n = &s->nodes[i];

		clock_timer_stop(sim_clock(s), &n->again);
		if (n->up)
			die(n, false);
		check_forget(n->seen);
	}
	clock_timer_stop(sim_clock(s), &s->fault);
	clock_timer_stop(sim_clock(s), &s->poll);
	sim_net_close(s->net);
	for (unsigned i = 0; i < SIM_CLIENT0; i++)
		sim_box_close(s->nodes[i].box);
	sim_clock_close(s->clocks);
	conf_fini(&s->conf);
	hash = XXH64_digest(s->trace);
	XXH64_freeState(s->trace);
	free(s);
	return hash;
}
