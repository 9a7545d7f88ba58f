/* SPDX-License-Identifier: MIT */
/* draw.c - what differs from seed to seed: options, sizes, devices. */
#include <assert.h>

#include "tests/sim/sim_impl.h"

/* Which nodes have RDMA devices: none, all, or some.  By numbers of its own, so that a seed
 * without takes no other course than it did before there were any. */
void
sim_draw_devices(struct sim *s)
{
	struct rand r;
	unsigned how;

	rand_seed(&r, s->seed ^ 0x5851f42d4c957f2d);
	how = (unsigned)rand_below(&r, 3);
	for (unsigned i = 0; how > 0 && i <= SIM_ADMIN; i++)
		sim_net_device(s->net, i, how == 1 || rand_chance(&r, 3, 4));
	if (how == 2) {
		sim_net_plain(s->net, (unsigned)rand_below(&r, 64));
		sim_net_refuse(s->net, (unsigned)rand_below(&r, 64));
		if (rand_chance(&r, 1, 2))
			s->device_ns = (500 + rand_below(&r, 5000)) * NS_PER_MS;
	}
	s->device_rand = r;
	if (how > 0 && rand_chance(&r, 2, 3)) {
		s->op_ppm = 1 + (uint32_t)rand_below(&r, 20000);
		s->done_us = 1000 + (uint32_t)rand_below(&r, 500000);
	}
	if (how > 0)
		sim_trace(s, "devices on %s nodes, %u of a million fail, %u us late",
		    how == 1 ? "all" : "some", s->op_ppm, s->done_us);
}

/* Some node's device goes away, or comes back for streams to come. */
static void
device_goes(struct clock_timer *t)
{
	struct sim *s = container_of(t, struct sim, device);
	struct rand *r = &s->device_rand;
	uint32_t node = (uint32_t)rand_below(r, SIM_NODES);
	struct clock *w = sim_clock(s);

	if (rand_chance(r, 1, 2))
		sim_net_device(s->net, node, true);
	else
		sim_net_device_lost(s->net, node);
	clock_timer_start(w, t, clock_now(w) + 1 + rand_below(r, s->device_ns), device_goes);
}

void
sim_draw_device(struct sim *s)
{
	device_goes(&s->device);
}

void
sim_draw_options(struct sim *s)
{
	static const char *const set[][2] = {
		{ "cluster.chunk_size", "64KiB" }, { "cluster.stripe", "2" },
		{ "manager.beat", "100ms" }, { "manager.lease", "600ms" },
		{ "manager.form_delay", "50ms" }, { "manager.log_size", "1MiB" },
		{ "metadata.log_size", "1MiB" }, { "metadata.session", "2s" },
		{ "cluster.election", "150ms" },
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
void
sim_draw(struct sim *s)
{
	static const uint64_t flush[] = { 65536, 65536, 4096, 1 << 20 };
	struct rand *r = &s->rand;

	s->fault_ns = (100 + rand_below(r, 1500)) * NS_PER_MS;
	s->ops = 60 + (unsigned)rand_below(r, rand_chance(r, 1, 4) ? 800 : 250);
	s->load_s = 20;
	if (rand_chance(r, 1, 40)) {	/* quiet enough for chains to be put in order */
		s->fault_ns = 15 * NS_PER_S;
		s->load_s = 60;
		s->ops = 900;
	}
	s->conf.metadata_flush_size = flush[rand_below(r, 4)];
	s->conf.metadata_flush_time = 10 + rand_below(r, 500);
	s->conf.metadata_cache_ttl = rand_below(r, 4) * 150;
	s->conf.client_write_back = rand_below(r, 3) * 250;
	s->conf.client_read_ahead = rand_below(r, 2) * (128 << 10);
	s->conf.client_call = 200 + rand_below(r, 1000);
	s->conf.metadata_session = rand_chance(r, 1, 2) ? 1500 + rand_below(r, 4000) :
	    30000;
	s->conf.cluster_election = 80 + rand_below(r, 300);
	s->manager_n = rand_chance(r, 1, 5) ? 1 : 3;
	s->metadata_n = rand_chance(r, 1, 5) ? 1 : 3;
	if (s->metadata_n > 1 && rand_chance(r, 1, 6))
		s->metadata_late = 1 + (unsigned)rand_below(r, 2);
	s->storage_n = rand_chance(r, 1, 3) ? 4 : 3;
	s->drift_ppm = s->faults & SIM_DRIFT ? 40000 : 0;
	s->frail = s->faults & SIM_ROT ? SIM_STORAGE0 +
	    (unsigned)rand_below(r, s->storage_n) : SIM_NODES;
	if (s->faults & SIM_TIGHT) {
		s->conf.client_memory = 256 << 10;
		s->conf.storage_memory = 1536 << 10;
		s->conf.client_buffer_keep = s->conf.storage_buffer_keep = 0;
	}
	sim_plot_draw(s);
}
