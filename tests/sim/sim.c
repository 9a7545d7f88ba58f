/* SPDX-License-Identifier: MIT */
/* sim.c - nodes, their life and death, and the trace of it all. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "chunk/engine.h"
#include "conf/err.h"
#include "meta/group.h"
#include "net/routing.h"
#include "roles/client_impl.h"
#include "roles/manager.h"
#include "roles/metadata.h"
#include "roles/storage.h"
#include "tests/sim/cover.h"
#include "tests/sim/sim_impl.h"

#define DISK_BYTES	(64ull << 20)
#define POLL_NS		(5 * NS_PER_MS)		/* looking at what must always hold */
#define POLL_PROBE	4u			/* and asking */
#define POLL_BYTES	8u			/* and, every so many times, at versions ... */
#define POLL_HEALED	4u			/* ... more rarely when nothing breaks any more */

/* ---- the trace ---- */

void
sim_trace_line(struct sim *s, const char *who, const char *what, const char *fields)
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
	/* A file may be gone when its client was not sure of its session for a time. */
	if (strncmp(who, "client", 6) == 0 && (strcmp(what, "session ended") == 0 ||
	    (strcmp(what, "open file is gone") == 0 && s->unsure[who[6] - '1'])))
		s->losses[who[6] - '1']++;
	sim_trace_line(s, who, what, fields);
}

void
sim_trace(struct sim *s, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	sim_trace_line(s, "sim", text, "");
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
	struct sim_node *n = &s->nodes[SIM_CLIENT0 + i];

	return n->up ? n->client : NULL;
}

unsigned
sim_losses(const struct sim *s, unsigned i)
{
	return s->losses[i];
}

unsigned
sim_storages(const struct sim *s)
{
	return s->storage_n;
}

struct storage *
sim_storage(struct sim *s, unsigned i)
{
	return s->nodes[SIM_STORAGE0 + i].up ? s->nodes[SIM_STORAGE0 + i].storage : NULL;
}

struct group *
sim_metadata_group(struct sim *s, unsigned i)
{
	struct sim_node *n = &s->nodes[SIM_METADATA0 + i];

	return n->up ? metadata_group(n->metadata) : NULL;
}

struct group *
sim_manager_group(struct sim *s, unsigned i)
{
	struct sim_node *n = &s->nodes[SIM_MANAGER0 + i];

	return n->up ? manager_group(n->manager) : NULL;
}

struct metadata *
sim_metadata(struct sim *s)
{
	for (unsigned i = 0; i < SIM_METADATAS; i++)
		if (sim_metadata_group(s, i) != NULL &&
		    group_lease(sim_metadata_group(s, i)))
			return s->nodes[SIM_METADATA0 + i].metadata;
	return NULL;
}

struct manager *
sim_manager(struct sim *s)
{
	for (unsigned i = 0; i < SIM_MANAGERS; i++)
		if (sim_manager_group(s, i) != NULL &&
		    group_lease(sim_manager_group(s, i)))
			return s->nodes[SIM_MANAGER0 + i].manager;
	return NULL;
}

const struct routing *
sim_routing(struct sim *s)
{
	const struct routing *best = NULL, *r;

	for (unsigned i = SIM_MANAGER0; i < SIM_MANAGER0 + SIM_MANAGERS; i++)
		if (s->nodes[i].up &&
		    (r = manager_routing(s->nodes[i].manager)) != NULL &&
		    (best == NULL || routing_version(r) > routing_version(best)))
			best = r;
	return best;
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
	struct sim_node *node = ctx;

	rand_bytes(&node->rand, out, n);
}

static int
node_dir(void *ctx, const char *path, bool create, struct disk_dir **out)
{
	struct sim_node *n = ctx;

	return sim_disk_dir(n->box, n->clock, path, create, out);
}

static const char *
node_name(unsigned id, char out[32])
{
	if (id < SIM_METADATA0)
		snprintf(out, 32, "manager%u", id - SIM_MANAGER0 + 1);
	else if (id < SIM_STORAGE0)
		snprintf(out, 32, "metadata%u", id - SIM_METADATA0 + 1);
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
	struct sim_node *n = ctx;

	if (rc != 0 && (n->id != n->s->frail || n->s->healing))
		sim_fail(n->s, "%s cannot start: %s", n->env.log.who, err_text(rc));
	if (rc != 0) {
		sim_trace_line(n->s, n->env.log.who, "cannot start", err_text(rc));
		sim_fault_die(n);
		return;
	}
	n->ready = true;
	sim_trace_line(n->s, n->env.log.who, "ready", "");
}

static int
open_role(struct sim_node *n)
{
	struct sim *s = n->s;
	struct net_addr at = node_addr(n->id);
	static const char *const disks[SIM_DISKS] = { "/disk0", "/disk1", "/disk2" };
	/* The spare one may be a manager some day, so others know of it. */
	unsigned all = s->manager_n + (s->manager_n > 1);
	char name[32];

	node_name(n->id, name);
	if (n->id < SIM_METADATA0)
		return manager_open(&n->manager, &n->env, "/manager", &at,
		    s->managers, s->manager_n, node_ready, n);
	/* Who has lost its data is another node, and a name is used once. */
	if (n->wipes > 0)
		snprintf(name + strlen(name), sizeof(name) - strlen(name), "-%u", n->wipes);
	if (n->id < SIM_STORAGE0)
		return metadata_open(&n->metadata, &n->env, "/metadata", &at,
		    s->managers, all, name, node_ready, n);
	if (n->id < SIM_CLIENT0) {
		struct storage_conf sc = {
			.envs = &n->env, .loop_n = 1, .listen = &at,
			.dir_path = "/node", .disks = disks, .disk_n = n->disk_n,
			.managers = s->managers, .manager_n = all, .name = name,
			.cuts = s->seed % 3 == 0 ? 4 : 0,	/* most are forgotten */
		};

		return storage_open(&n->storage, &sc, node_ready, n);
	}
	return client_open(&n->client, &n->env, s->managers, all, "/sim", node_ready, n);
}

void
sim_boot(struct sim_node *n)
{
	struct sim *s = n->s;
	struct net_hub_conf hc = {
		.rand = &n->rand, .log = &n->env.log, .nonce = node_random,
		.nonce_ctx = n, .calls_max = 4096, .idle_ms = 60000,
		/* Mostly so little that replies wait for each other. */
		.receive_window = s->seed % 3 == 0 ? 1u << 20 : 48u << 10,
	};
	int32_t drift = 0;
	int rc;

	assert(!n->up && !n->gone && !n->absent);
	if (s->drift_ppm != 0)
		drift = (int32_t)rand_below(&s->rand, 2 * s->drift_ppm) -
		    (int32_t)s->drift_ppm;
	n->clock = sim_clock_node(s->clocks, rand_below(&s->rand, 1000 * NS_PER_S), drift);
	node_name(n->id, n->env.log.who);
	sim_trace_line(s, n->env.log.who, "boot", "");
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
	stat_registry_init(&n->stats);
	n->env.stats = &n->stats;
	n->env.log.level = LOG_DEBUG;
	n->env.log.sink = log_sink;
	n->env.log.ctx = s;
	n->up = true;
	n->ready = n->paused = n->stopping = false;
	n->lives++;
	/* Dying again while it recovers. */
	if ((s->faults & SIM_FUSES) && !s->healing && n->id < SIM_CLIENT0 &&
	    rand_chance(&s->rand, 1, 3))
		sim_fault_fuse(n, 1 + (unsigned)rand_below(&s->rand, 40), false, 0);
	if ((rc = open_role(n)) != 0)
		sim_fail(s, "%s cannot open: %s", n->env.log.who, err_text(rc));
}

/* Neither disks nor the network turn bits on the way from one to another. */
static void
check_payloads(const struct sim_node *n)
{
	static const char *const none[] = { "crc_failures", "payload_errors" };

	list_for_each(it, &n->stats.sets) {
		const struct stat_set *set = list_entry(it, struct stat_set, node);

		for (const struct stat_row *row = set->rows; row->name != NULL; row++)
			for (unsigned i = 0; i < sizeof(none) / sizeof(none[0]); i++)
				if (strcmp(row->name, none[i]) == 0 &&
				    *(const uint64_t *)(const void *)
				    ((const char *)set->values + row->off) > 0)
					sim_fail(n->s, "%s: %s", n->env.log.who,
					    row->help);
	}
}

/* The process dies; with @power what its disks had not synced goes too. */
void
sim_die(struct sim_node *n, bool power)
{
	assert(n->up);
	sim_trace_line(n->s, n->env.log.who, power ? "power cut" : "killed", "");
	n->fuse = 0;
	clock_timer_stop(sim_clock(n->s), &n->blow);
	clock_timer_stop(sim_clock(n->s), &n->leave);
	if (power)
		sim_net_host_down(n->s->net, n->id);
	if (n->box != NULL) {
		if (power)
			sim_disk_crash(n->box);
		else
			sim_disk_kill(n->box);
	}
	cover_stats(&n->stats);
	check_payloads(n);
	if (n->id < SIM_METADATA0)
		manager_close(n->manager);
	else if (n->id < SIM_STORAGE0)
		metadata_close(n->metadata);
	else if (n->id < SIM_CLIENT0)
		storage_close(n->storage);
	else
		client_close(n->client);
	net_hub_close(n->hub);
	stat_registry_fini(&n->stats);
	/* Whatever they were doing, they leave nothing behind. */
	if (sim_clock_node_pending(n->clock) != 0)
		sim_fail(n->s, "%s: %u callbacks are left", n->env.log.who,
		    sim_clock_node_pending(n->clock));
	sim_clock_node_close(n->clock);
	n->up = n->ready = n->stopping = n->paused = false;
}

static void
step_once(void *ctx)
{
	sim_clock_step(ctx);
}

void
sim_format(struct sim_node *n, unsigned disk)
{
	char path[] = "/disk0";
	struct disk_dir *dir;
	struct uid128 id;
	int rc;

	path[5] = (char)('0' + disk);
	n->clock = sim_clock_node(n->s->clocks, 0, 0);
	rand_bytes(&n->rand, &id, sizeof(id));
	rc = sim_disk_dir(n->box, n->clock, path, true, &dir);
	assert(rc == 0);
	n->disks[disk] = id;
	rc = chunk_engine_format(dir, n->clock, &id, DISK_BYTES, step_once, n->s->clocks);
	if (rc != 0)
		sim_fail(n->s, "cannot format: %s", err_text(rc));
	dir->ops->close(dir);
	sim_clock_node_close(n->clock);
}

bool
sim_all_ready(void *ctx)
{
	struct sim *s = ctx;

	for (unsigned i = 0; i < SIM_NODES; i++) {
		const struct sim_node *n = &s->nodes[i];

		if (!n->gone && !n->absent && (!n->up || !n->ready || n->stopping))
			return false;
	}
	return true;
}

static void
net_watch(void *ctx, uint32_t node)
{
	struct sim *s = ctx;

	if (node < SIM_CLIENT0)
		sim_fault_tick(&s->nodes[node]);
}

static void
box_tick(void *ctx)
{
	sim_fault_tick(ctx);
}

static void
poll(struct clock_timer *t)
{
	struct sim *s = container_of(t, struct sim, poll);
	struct clock *w = sim_clock(s);

	unsigned every = s->healing ? POLL_HEALED * POLL_BYTES : POLL_BYTES;
	bool bytes = ++s->polls % every == 0;

	sim_watch(s, bytes);
	if (s->polls % POLL_PROBE == 0)
		sim_probe(s);
	for (unsigned i = 0; i < SIM_CLIENTS; i++)
		if (sim_client(s, i) != NULL && !client_session_sure(sim_client(s, i)))
			s->unsure[i] = true;
	for (unsigned i = 0; bytes && i < s->storage_n; i++) {
		struct sim_node *n = &s->nodes[SIM_STORAGE0 + i];

		if (n->up && n->ready)
			check_versions(s, i, &n->seen, n->lives,
			    more_cut_ino(load_more(s->load)));
	}
	clock_timer_start(w, t, clock_now(w) + POLL_NS, poll);
}

/* ---- the life of a simulation ---- */

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
	sim_draw_options(s);
	/* Swarm testing: every seed has another mix of faults. */
	s->faults = faults & (unsigned)rand_below(&s->rand, SIM_ALL + 1);
	if (s->faults & SIM_ROT)	/* all but one node stay in their chains */
		s->faults &= ~(unsigned)(SIM_LATE_FRAMES | SIM_MEMBERS);
	sim_draw(s);
	s->healing = true;		/* no faults while it starts */
	s->net = sim_net_open(sim_clock_world(s->clocks), rand_u64(&s->rand));
	sim_draw_devices(s);
	for (unsigned i = 0; i < SIM_MANAGERS; i++)
		s->managers[i] = node_addr(SIM_MANAGER0 + i);
	for (unsigned i = 0; i < SIM_NODES; i++) {
		struct sim_node *n = &s->nodes[i];

		n->s = s;
		n->id = i;
		rand_seed(&n->rand, rand_u64(&s->rand));
		n->absent = i < SIM_METADATA0 ? i >= SIM_MANAGER0 + s->manager_n :
		    i < SIM_STORAGE0 ? i >= SIM_METADATA0 + s->metadata_n -
		    s->metadata_late : i < SIM_CLIENT0 &&
		    i >= SIM_STORAGE0 + s->storage_n;
		n->disk_n = rand_chance(&s->rand, 1, 4) ? 2 : 1;
		if (i < SIM_CLIENT0) {
			n->box = sim_box_open(&s->rand);
			sim_box_conf(n->box)->table.tick = box_tick;
			sim_box_conf(n->box)->table.tick_ctx = n;
		}
		for (unsigned k = 0; k < n->disk_n && !n->absent && i >= SIM_STORAGE0 &&
		    i < SIM_CLIENT0; k++)
			sim_format(n, k);
	}
	for (unsigned i = 0; i < SIM_NODES; i++)
		if (!s->nodes[i].absent)
			sim_boot(&s->nodes[i]);
	sim_net_watch(s->net, net_watch, s);
	sim_admin_open(s);
	sim_watch_open(s);
	sim_probes_open(s);
	sim_until(s, sim_all_ready, s, 60, "starting");
	/* Free targets are for disks that are replaced. */
	s->conf.manager_form_delay = 600000;
	s->healing = false;
	sim_trace(s, "seed %" PRIu64 " plot %s faults %x managers %u metadata %u-%u storage %u "
	    "session %" PRIu64 " election %" PRIu64 " call %" PRIu64, seed, sim_plot_name(s), s->faults,
	    s->manager_n, s->metadata_n, s->metadata_late, s->storage_n,
	    s->conf.metadata_session, s->conf.cluster_election, s->conf.client_call);
	return s;
}

void
sim_load(struct sim *s)
{
	struct clock *w = sim_clock(s);
	struct sim_net_faults f = { .delay_min_us = 20, .delay_max_us = 100 };

	if (s->faults & SIM_RESETS)
		f.break_ppm = 1 + (uint32_t)rand_below(&s->rand, 20000);
	if (s->plot == SIM_PLOT_BREAKS)
		f.break_ppm = 2000 + (uint32_t)rand_below(&s->rand, 20000);
	if (f.break_ppm > 0 && (s->plot == SIM_PLOT_BREAKS || rand_chance(&s->rand, 1, 2)))
		f.ghost_us = 1000 + (uint32_t)rand_below(&s->rand, 3000000);
	f.delay_max_us += (uint32_t)rand_below(&s->rand, 2000);
	f.slow_ppm = (uint32_t)rand_below(&s->rand, 10000);
	f.slow_us = (uint32_t)rand_below(&s->rand, s->faults & SIM_LATE_FRAMES ? 4000000 :
	    s->frail != SIM_NODES ? 20000 : 300000);
	if (s->faults & SIM_LATE_FRAMES)
		f.bytes_per_us = 1 + (uint32_t)rand_below(&s->rand, 100);
	if (s->faults & SIM_RESETS) {
		f.op_ppm = s->op_ppm;
		f.done_us = s->done_us;
	}
	/* Where a node rots, streams that die unnoticed would take good replicas out. */
	if (s->frail != SIM_NODES)
		f.ghost_us = f.op_ppm = f.done_us = 0;
	else if (s->device_ns > 0 && (s->faults & SIM_RESETS))
		sim_draw_device(s);
	sim_net_faults(s->net, &f);
	sim_faults_start(s);
	clock_timer_start(w, &s->poll, clock_now(w) + POLL_NS, poll);
	s->load = load_open(s, s->ops);
	/* Faults may keep the load from ending; healing must not. */
	sim_clock_run_until(s->clocks, load_done, s->load, s->load_s * NS_PER_S);
}

void
sim_heal(struct sim *s)
{
	static const struct sim_net_faults calm = { .delay_min_us = 50,
		.delay_max_us = 150 };

	s->healing = true;
	clock_timer_stop(sim_clock(s), &s->device);
	sim_trace(s, "heal");
	sim_net_faults(s->net, &calm);
	sim_net_heal(s->net);
	sim_faults_stop(s);
	sim_until(s, sim_all_ready, s, 60, "starting again");
	sim_until(s, load_done, s->load, 300, "the load");
}

static bool
admin_idle(void *ctx)
{
	return sim_admin_idle(ctx);
}

static void
client_stopped(void *ctx, int rc)
{
	struct sim_node *n = ctx;

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
	struct sim_node *bad = &s->nodes[SIM_STORAGE0 +
	    rand_below(&s->rand, s->storage_n)];

	/* Bad reads of one replica: the others answer, once they are back. */
	if (s->faults & SIM_BAD_DISK) {
		check_back(s);
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
		sim_die(bad, false);
		sim_boot(bad);
		sim_until(s, sim_all_ready, s, 60, "starting after a bad disk");
		sim_clock_run(s->clocks, 2 * NS_PER_S);	/* clients hear of it */
	}
	for (unsigned i = SIM_CLIENT0; i < SIM_NODES; i++)
		if (s->nodes[i].up)
			client_stop(s->nodes[i].client, client_stopped, &s->nodes[i]);
	sim_until(s, clients_stopped, s, 60, "stopping clients");
	/* Sessions of the dead run out, what is unlinked is collected. */
	sim_clock_run(s->clocks, 20 * NS_PER_S);
	sim_until(s, admin_idle, s, 60, "the operator");
	check_replicas(s);
	check_groups(s);
	check_tree(s);
}

uint64_t
sim_close(struct sim *s)
{
	struct stat_registry r;
	uint64_t hash;

	load_close(s->load);
	sim_probes_close(s);
	sim_admin_close(s);
	sim_watch_close(s);
	for (unsigned i = SIM_NODES; i-- > 0;) {
		struct sim_node *n = &s->nodes[i];

		clock_timer_stop(sim_clock(s), &n->again);
		if (n->up)
			sim_die(n, false);
		check_forget(n->seen);
	}
	sim_faults_close(s);
	clock_timer_stop(sim_clock(s), &s->poll);
	stat_registry_init(&r);
	sim_net_stats(s->net, &r);
	cover_stats(&r);
	sim_net_close(s->net);
	stat_registry_fini(&r);
	for (unsigned i = 0; i < SIM_CLIENT0; i++)
		sim_box_close(s->nodes[i].box);
	sim_clock_close(s->clocks);
	conf_fini(&s->conf);
	hash = XXH64_digest(s->trace);
	XXH64_freeState(s->trace);
	free(s);
	return hash;
}
