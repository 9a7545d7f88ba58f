/* SPDX-License-Identifier: MIT */
/* net.c - simulated nodes and the paths between them. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/net_impl.h"

void *
sim_net_must(void *p)
{
	if (p == NULL) {
		fputs("sim net: out of memory\n", stderr);
		abort();
	}
	return p;
}

uint64_t
sim_net_now(const struct sim_net *n)
{
	return clock_now(n->world);
}

uint64_t
sim_net_between(struct sim_net *n, uint64_t min, uint64_t max)
{
	return min + rand_below(&n->rand, max - min + 1);
}

uint64_t
sim_net_delay(struct sim_net *n)
{
	uint64_t ns = sim_net_between(n, n->faults.delay_min_us * NS_PER_US,
	    n->faults.delay_max_us * NS_PER_US);

	if (n->faults.slow_ppm > 0 &&
	    rand_chance(&n->rand, n->faults.slow_ppm, 1000000))
		ns += n->faults.slow_us * NS_PER_US;
	return ns;
}

/* ---- paths and hosts ---- */

static bool
is_down(const struct sim_net *n, uint32_t node)
{
	for (size_t i = 0; i < n->down_n; i++)
		if (n->down[i] == node)
			return true;
	return false;
}

enum sim_net_path
sim_net_path_of(const struct sim_net *n, uint32_t from, uint32_t to)
{
	if (is_down(n, from) || is_down(n, to))
		return SIM_NET_SILENT;
	assert(from < NODES_MAX && to < NODES_MAX);
	return n->paths[from][to].how;
}

uint64_t
sim_net_frame_delay(struct sim_net *n, const struct end *e, const struct end *to)
{
	assert(e->node < NODES_MAX && to->node < NODES_MAX);
	return sim_net_delay(n) + n->paths[e->node][to->node].lag_us * NS_PER_US;
}

/* ---- the world ---- */

struct net_transport *
sim_net_transport(struct sim_net *n, uint32_t node, uint16_t loop,
    struct clock *clock)
{
	struct card *card = sim_net_must(calloc(1, sizeof(*card)));

	card->t.ops = n->device[node] ? &sim_card_device_ops : &sim_card_ops;
	card->net = n;
	card->clock = clock;
	card->node = node;
	card->loop = loop;
	return &card->t;
}

struct sim_net *
sim_net_open(struct clock *world, uint64_t seed)
{
	struct sim_net *n = sim_net_must(calloc(1, sizeof(*n)));

	n->world = world;
	rand_seed(&n->rand, seed);
	n->faults.delay_min_us = 50;
	n->faults.delay_max_us = 150;
	list_init(&n->pipes);
	list_init(&n->listeners);
	return n;
}

void
sim_net_close(struct sim_net *n)
{
	if (n == NULL)
		return;
	assert(list_empty(&n->pipes) && list_empty(&n->listeners));
	stat_remove(&n->stat_set);
	free(n->down);
	free(n);
}

void
sim_net_faults(struct sim_net *n, const struct sim_net_faults *f)
{
	assert(f->delay_min_us <= f->delay_max_us);
	n->faults = *f;
}

void
sim_net_device(struct sim_net *n, uint32_t node, bool there)
{
	assert(node < NODES_MAX);
	n->device[node] = there;
}

void
sim_net_plain(struct sim_net *n, unsigned of_256)
{
	n->plain_of_256 = of_256;
}

void
sim_net_refuse(struct sim_net *n, unsigned of_256)
{
	n->refuse_of_256 = of_256;
}

void
sim_net_device_lost(struct sim_net *n, uint32_t node)
{
	bool any = false;

	sim_net_device(n, node, false);
	list_for_each(l, &n->pipes) {
		struct pipe *p = list_entry(l, struct pipe, node);

		for (unsigned i = 0; i < 2; i++)
			if (p->one_sided && !p->broken && p->ends[i].node == node) {
				any = true;
				sim_verbs_lost(&p->ends[i]);
			}
	}
	stat_add(&n->stat.devices_lost, any);
}

void
sim_net_path(struct sim_net *n, uint32_t from, uint32_t to, enum sim_net_path path)
{
	assert(from < NODES_MAX && to < NODES_MAX);
	n->paths[from][to].how = path;
}

void
sim_net_lag(struct sim_net *n, uint32_t from, uint32_t to, uint32_t us)
{
	assert(from < NODES_MAX && to < NODES_MAX);
	n->paths[from][to].lag_us = us;
}

void
sim_net_cut(struct sim_net *n, uint32_t a, uint32_t b, enum sim_net_path path)
{
	sim_net_path(n, a, b, path);
	sim_net_path(n, b, a, path);
}

void
sim_net_heal(struct sim_net *n)
{
	memset(n->paths, 0, sizeof(n->paths));
}

void
sim_net_host_down(struct sim_net *n, uint32_t node)
{
	if (is_down(n, node))
		return;
	n->down = sim_net_must(realloc(n->down, (n->down_n + 1) * sizeof(*n->down)));
	n->down[n->down_n++] = node;
	list_for_each(l, &n->pipes) {
		struct pipe *p = list_entry(l, struct pipe, node);

		for (unsigned i = 0; i < 2; i++)
			if (p->ends[i].node == node && !p->broken) {
				p->ends[i].lost = true;
				/* Keepalive will tell, if nothing does before. */
				sim_pipe_doom(&p->ends[!i], -ETIMEDOUT, DEAD_NS);
			}
	}
}

void
sim_net_host_up(struct sim_net *n, uint32_t node)
{
	for (size_t i = 0; i < n->down_n; i++)
		if (n->down[i] == node) {
			n->down[i] = n->down[--n->down_n];
			return;
		}
}

void
sim_net_break(struct sim_net *n, uint32_t a, uint32_t b)
{
	list_for_each(l, &n->pipes) {
		struct pipe *p = list_entry(l, struct pipe, node);

		if ((p->ends[0].node == a && p->ends[1].node == b) ||
		    (p->ends[0].node == b && p->ends[1].node == a))
			sim_pipe_break(p, -ECONNRESET);
	}
}

unsigned
sim_net_streams(const struct sim_net *n)
{
	unsigned k = 0;

	list_for_each(l, &n->pipes)
		k += !list_entry(l, struct pipe, node)->broken;
	return k;
}

void
sim_net_watch(struct sim_net *n, void (*fn)(void *ctx, uint32_t node), void *ctx)
{
	n->watch = fn;
	n->watch_ctx = ctx;
}

uint64_t
sim_net_frames(const struct sim_net *n)
{
	return n->frames;
}
