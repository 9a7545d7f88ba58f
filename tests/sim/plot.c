/* SPDX-License-Identifier: MIT */
/* plot.c - faults that belong together.
 *
 * Noise alone seldom makes what a distributed system fears most: that somebody who is cut
 * off goes on answering whoever is cut off with it while the others go on without them; that
 * the same word arrives twice, or after the next one; that the power fails right behind an
 * acknowledgement.  So most seeds have a plot: its acts come again and again, aimed at who
 * leads, at the ends of chains, at what is just being brought up to date.  While one is on,
 * the load is at its busiest. */
#include "tests/sim/sim_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "meta/group.h"
#include "net/routing.h"

#define STEP_NS		(20 * NS_PER_MS)

static const char *const plots[SIM_PLOTS] = {
	[SIM_PLOT_NONE] = "none", [SIM_PLOT_ISLAND] = "island", [SIM_PLOT_LATE] = "late",
	[SIM_PLOT_PAUSE] = "pause", [SIM_PLOT_POWER] = "power", [SIM_PLOT_VOTES] = "votes",
	[SIM_PLOT_BREAKS] = "breaks", [SIM_PLOT_ALONE] = "alone",
	[SIM_PLOT_RESYNC] = "resync", [SIM_PLOT_APART] = "apart", [SIM_PLOT_HEIRS] = "heirs",
};

const char *
sim_plot_name(const struct sim *s)
{
	return plots[s->plot];
}

/* ---- who ---- */

static uint64_t
some(struct sim *s, uint64_t min, uint64_t max)
{
	return min + rand_below(&s->rand, max - min + 1);
}

static struct sim_node *
node(struct sim *s, unsigned from, unsigned n)
{
	struct sim_node *k;

	do
		k = &s->nodes[from + rand_below(&s->rand, n)];
	while (k->absent);
	return k;
}

static struct sim_node *
a_storage(struct sim *s)
{
	return node(s, SIM_STORAGE0, s->storage_n);
}

static struct sim_node *
a_server(struct sim *s)
{
	return node(s, 0, SIM_CLIENT0);
}

/* Who leads the managers, or the metadata; NULL: nobody. */
static struct sim_node *
leader(struct sim *s, bool manager)
{
	unsigned from = manager ? SIM_MANAGER0 : SIM_METADATA0;
	unsigned to = manager ? SIM_METADATA0 : SIM_STORAGE0;

	for (unsigned i = from; i < to; i++) {
		struct group *g = manager ? sim_manager_group(s, i - from) :
		    sim_metadata_group(s, i - from);

		if (g != NULL && group_leads(g))
			return &s->nodes[i];
	}
	return NULL;
}

/* Any chain; NULL while nobody knows one. */
static const struct routing_chain *
a_chain(struct sim *s)
{
	const struct routing *r = sim_routing(s);
	unsigned n = 0;

	while (r != NULL && routing_chain_at(r, n) != NULL)
		n++;
	return n == 0 ? NULL : routing_chain_at(r, (unsigned)rand_below(&s->rand, n));
}

static struct sim_node *
node_of(struct sim *s, target_id target)
{
	const struct routing *r = sim_routing(s);
	const struct routing_target *t = r == NULL ? NULL : routing_target(r, target);
	const struct routing_node *n = t == NULL ? NULL : routing_node(r, t->node);

	return n == NULL || strncmp(n->name, "storage", 7) != 0 ? NULL :
	    &s->nodes[SIM_STORAGE0 + (unsigned)atoi(n->name + 7) - 1];
}

/* ---- what ---- */

static void
hot(struct sim *s, uint64_t ms)
{
	uint64_t until = sim_now(s) + ms * NS_PER_MS;

	if (s->hot_until_ns < until)
		s->hot_until_ns = until;
}

static void
lag_ends(struct clock_timer *t)
{
	struct sim *s = container_of(t, struct sim, lag);

	for (unsigned i = 0; i < SIM_NODES; i++)
		for (unsigned k = 0; k < SIM_NODES; k++)
			sim_net_lag(s->net, i, k, 0);
	sim_trace(s, "nothing lags");
}

/* What servers say to @n (or it to them) is late for a while. */
static void
lag(struct sim_node *n, bool in, unsigned from, unsigned to, uint64_t lag_ms, uint64_t ms)
{
	struct sim *s = n->s;

	for (unsigned i = from; i < to; i++) {
		if (in)
			sim_net_lag(s->net, i, n->id, (uint32_t)lag_ms * 1000);
		else
			sim_net_lag(s->net, n->id, i, (uint32_t)lag_ms * 1000);
	}
	sim_trace(s, "%s node %u lags by %u ms, %u-%u", in ? "to" : "from", n->id,
	    (unsigned)lag_ms, from, to);
	clock_timer_start(sim_clock(s), &s->lag, sim_now(s) + ms * NS_PER_MS, lag_ends);
}

/* Servers of one kind, or all. */
static void
lag_some(struct sim_node *n, bool in, uint64_t lag_ms, uint64_t ms)
{
	static const unsigned kinds[][2] = { { SIM_MANAGER0, SIM_METADATA0 },
		{ SIM_STORAGE0, SIM_CLIENT0 }, { 0, SIM_CLIENT0 }, { 0, SIM_CLIENT0 } };
	unsigned k = (unsigned)rand_below(&n->s->rand, 4);

	lag(n, in, kinds[k][0], kinds[k][1], lag_ms, ms);
}

/* Those that are @there and all others hear nothing of each other; or one side does. */
static void
part(struct sim *s, const bool *there, uint64_t ms)
{
	unsigned ways = rand_chance(&s->rand, 3, 5) ? 3 :
	    1 + (unsigned)rand_below(&s->rand, 2);
	enum sim_net_path how = rand_chance(&s->rand, 3, 4) ? SIM_NET_SILENT :
	    SIM_NET_RESET;

	for (unsigned i = 0; i < SIM_NODES; i++)
		for (unsigned k = 0; k < SIM_NODES; k++) {
			/* Clients speak to nobody over there. */
			bool both = i >= SIM_CLIENT0 || k >= SIM_CLIENT0;

			if (there[i] == there[k] || s->nodes[i].absent ||
			    s->nodes[k].absent)
				continue;
			if (both || ((ways & 1) && there[i]) || ((ways & 2) && there[k]))
				sim_fault_cut(s, i, k, how, ms * NS_PER_MS);
		}
}

/* ---- the plots: each act returns how long it takes, in ms ---- */

/* Somebody is cut off together with who asks there, for longer than a lease or nearly. */
static uint64_t
island(struct sim *s)
{
	uint64_t lease = s->conf.manager_lease, ms = some(s, lease / 2, 4 * lease);
	struct sim_node *n = rand_chance(&s->rand, 3, 5) ? a_storage(s) :
	    leader(s, rand_chance(&s->rand, 1, 2)), *m;
	bool there[SIM_NODES] = { false };

	if (n == NULL)
		return 100;
	there[n->id] = true;
	there[node(s, SIM_CLIENT0, SIM_CLIENTS)->id] = true;
	if (rand_chance(&s->rand, 1, 4))
		there[node(s, SIM_CLIENT0, SIM_CLIENTS)->id] = true;
	/* Somebody else who does not know better. */
	if (rand_chance(&s->rand, 1, 4) && (m = a_server(s)) != leader(s, true))
		there[m->id] = true;
	sim_trace(s, "an island of node %u", n->id);
	part(s, there, ms);
	if (rand_chance(&s->rand, 1, 4) && (m = leader(s, true)) != NULL && m != n)
		sim_fault_crash(m, false, some(s, 50, 1500));
	if (rand_chance(&s->rand, 1, 3))	/* and hears slowly of what it missed */
		lag_some(n, true, some(s, 20, lease), ms + some(s, 100, 800));
	hot(s, ms + 300);
	return ms + some(s, 200, 2000);
}

/* Somebody hears or is heard late; meanwhile a chain or a leader changes. */
static uint64_t
late(struct sim *s)
{
	uint64_t lease = s->conf.manager_lease, ms = some(s, 1000, 4000);
	struct sim_node *n = rand_chance(&s->rand, 3, 4) ? a_storage(s) : a_server(s), *m;
	bool there[SIM_NODES] = { false };

	if (s->blows > 0) {
		s->blows = 0;
		for (unsigned i = SIM_MANAGER0; i < SIM_METADATA0; i++)
			sim_fault_cut(s, s->hit[0], i, SIM_NET_SILENT,
			    some(s, 2 * lease, 4 * lease) * NS_PER_MS);
		return 3 * lease;
	}
	/* Answers to its beats are late, and now it is not heard any more. */
	if (rand_chance(&s->rand, 1, 4)) {
		n = a_storage(s);
		lag(n, true, SIM_MANAGER0, SIM_METADATA0, some(s, lease / 4, lease * 3 / 4),
		    6 * lease);
		s->hit[0] = n->id;
		s->blows = 1;
		return some(s, 200, 1000);
	}
	lag_some(n, rand_chance(&s->rand, 2, 3), some(s, 5, lease), ms);
	if (rand_chance(&s->rand, 1, 3))
		lag_some(a_storage(s), rand_chance(&s->rand, 1, 2), some(s, 5, lease), ms);
	if (rand_chance(&s->rand, 1, 2) && (m = a_storage(s)) != n)
		sim_fault_crash(m, rand_chance(&s->rand, 1, 2), some(s, 10, 1200));
	if (rand_chance(&s->rand, 1, 8) && (m = leader(s, true)) != NULL)
		sim_fault_crash(m, false, some(s, 50, 1500));
	if (rand_chance(&s->rand, 1, 4)) {
		there[n->id] = true;
		part(s, there, some(s, lease / 2, 2 * lease));
	}
	hot(s, ms);
	return ms + some(s, 200, 1500);
}

/* A process stops and goes on: what was asked of it meanwhile comes first. */
static uint64_t
pauses(struct sim *s)
{
	bool there[SIM_NODES] = { false };
	uint64_t lease = s->conf.manager_lease, ms = some(s, lease / 3, 3 * lease);
	struct sim_node *n = rand_chance(&s->rand, 1, 2) ? a_storage(s) :
	    leader(s, rand_chance(&s->rand, 1, 2));

	if (n == NULL)
		return 100;
	sim_fault_pause(n, ms);
	if (rand_chance(&s->rand, 1, 3))
		sim_fault_pause(a_server(s), some(s, 1, ms));
	/* Others go on without it, and some cannot know. */
	if (rand_chance(&s->rand, 1, 2)) {
		there[n->id] = there[a_storage(s)->id] = true;
		there[node(s, SIM_CLIENT0, SIM_CLIENTS)->id] = true;
		part(s, there, ms + some(s, 50, 1000));
	}
	hot(s, ms + 500);
	return ms + some(s, 100, 1500);
}

/* ---- power ---- */

static void
lights_out(struct sim *s, bool seen)
{
	unsigned kind = seen ? 2 + (unsigned)rand_below(&s->rand, 2) :
	    (unsigned)rand_below(&s->rand, 4);
	bool there[SIM_NODES] = { false };
	unsigned from = kind == 1 ? SIM_METADATA0 : kind == 2 ? SIM_STORAGE0 : 0;
	unsigned to = kind == 0 ? SIM_METADATA0 : kind == 1 ? SIM_STORAGE0 : SIM_CLIENT0;
	unsigned spared = SIM_NODES;

	/* One of a group goes on. */
	if (!seen && rand_chance(&s->rand, 1, 3))
		spared = node(s, from, to - from)->id;
	/* Who was writing may not be the first to come back. */
	there[node(s, SIM_CLIENT0, SIM_CLIENTS)->id] = true;
	if (rand_chance(&s->rand, 1, 2))
		part(s, there, some(s, 200, 3000));
	hot(s, 2500);
	sim_trace(s, "power cut of %u-%u, not %u", from, to, spared);
	for (unsigned i = from; i < to; i++)
		if (!s->nodes[i].absent && i != spared)
			sim_fault_fuse(&s->nodes[i], 0, true, some(s, 1, 1200));
}

/* The leader is cut off with what it has just committed, and the others lose what was not
 * durable. */
static void
headless(struct sim *s)
{
	bool manager = s->plot_of == 0, there[SIM_NODES] = { false };
	unsigned from = manager ? SIM_MANAGER0 : SIM_METADATA0;
	unsigned n = manager ? SIM_MANAGERS : SIM_METADATAS;
	struct sim_node *l = leader(s, manager);

	if (l == NULL)
		return;
	sim_trace(s, "node %u loses its followers", l->id);
	there[l->id] = true;
	if (rand_chance(&s->rand, 1, 2))
		part(s, there, some(s, 300, 2000));
	else
		sim_fault_fuse(l, 0, rand_chance(&s->rand, 1, 2), some(s, 300, 2000));
	for (unsigned i = from; i < from + n; i++)
		if (&s->nodes[i] != l && !s->nodes[i].absent)
			sim_fault_fuse(&s->nodes[i], 0, true, some(s, 1, 60));
}

void
sim_plot_acked(struct sim *s)
{
	if (s->spark == 0 || --s->spark > 0)
		return;
	if (s->plot == SIM_PLOT_VOTES)
		headless(s);
	else
		lights_out(s, false);
}

/* Somebody has read what nobody has acknowledged: it must not be lost either. */
void
sim_plot_seen(struct sim *s)
{
	if (s->plot == SIM_PLOT_POWER && s->spark > 0 && rand_chance(&s->rand, 1, 2)) {
		s->spark = 0;
		lights_out(s, true);
	}
}

/* The power fails right behind an acknowledgement, while some disks lag behind others. */
static uint64_t
power(struct sim *s)
{
	for (unsigned i = 0; i < SIM_CLIENT0; i++)
		sim_fault_speed(&s->nodes[i], rand_chance(&s->rand, 1, 2) ? 1 :
		    1 + (unsigned)rand_below(&s->rand, rand_chance(&s->rand, 1, 4) ? 300 : 40));
	s->spark = 1 + (unsigned)rand_below(&s->rand, 200);
	hot(s, 400);
	return some(s, 1000, 3500);
}

/* The members of one group lose power again and again, most of all while they elect; their
 * disks are slow, so much is not durable yet. */
static uint64_t
votes(struct sim *s)
{
	bool manager = s->plot_of == 0;
	unsigned from = manager ? SIM_MANAGER0 : SIM_METADATA0;
	unsigned n = manager ? SIM_MANAGERS : SIM_METADATAS;
	struct sim_node *l = leader(s, manager);

	for (unsigned i = from; i < from + n; i++) {
		struct sim_node *m = &s->nodes[i], *to = node(s, from, n);

		if (m->absent)
			continue;
		sim_fault_speed(m, m == l && rand_chance(&s->rand, 1, 2) ? 1 : 1 +
		    (unsigned)rand_below(&s->rand, rand_chance(&s->rand, 1, 3) ? 400 : 60));
		if (rand_chance(&s->rand, 1, 3))
			sim_fault_cut(s, m->id, to->id, SIM_NET_SILENT,
			    some(s, 10, 700) * NS_PER_MS);
	}
	hot(s, 300);
	if (l != NULL && rand_chance(&s->rand, 1, 2)) {
		s->spark = 1 + (unsigned)rand_below(&s->rand, 40);
		return some(s, 400, 1500);
	}
	if (l != NULL) {
		bool there[SIM_NODES] = { false };

		there[l->id] = true;
		if (rand_chance(&s->rand, 1, 3))
			part(s, there, some(s, 100, 1500));
		else if (rand_chance(&s->rand, 1, 2))
			sim_fault_fuse(l, (unsigned)some(s, 1, 40), true, some(s, 1, 500));
		else
			sim_fault_pause(l, some(s, 100, 1200));
	}
	for (unsigned i = from; i < from + n; i++)
		if (&s->nodes[i] != l && !s->nodes[i].absent && rand_chance(&s->rand, 2, 3))
			sim_fault_fuse(&s->nodes[i], (unsigned)some(s, 1, 60), true,
			    some(s, 1, 80));
	return some(s, 100, 900);
}

/* ---- clients ---- */

/* Streams break for one end (sim_load() sees to that) under a load that does not pause. */
static uint64_t
breaking(struct sim *s)
{
	hot(s, 600);
	if (rand_chance(&s->rand, 1, 8))
		sim_fault_crash(a_storage(s), false, some(s, 10, 1000));
	return 500;
}

/* A client hears nobody, for about as long as its session lasts. */
static uint64_t
alone(struct sim *s)
{
	uint64_t session = s->conf.metadata_session, ms = some(s, session / 4, 2 * session);
	struct sim_node *c = node(s, SIM_CLIENT0, SIM_CLIENTS);
	bool there[SIM_NODES] = { false };

	there[c->id] = true;
	if (rand_chance(&s->rand, 1, 3))	/* but storage hears it */
		for (unsigned i = SIM_STORAGE0; i < SIM_CLIENT0; i++)
			there[i] = false;
	part(s, there, ms);
	hot(s, ms);
	return ms + some(s, 100, 1000);
}

/* ---- chains ---- */

/* One replica goes, or two, with all that is not durable there. */
static void
take_out(struct sim *s, const struct routing_chain *c)
{
	unsigned n = c->target_n, at = (unsigned)rand_below(&s->rand, n);
	struct sim_node *tail = node_of(s, c->targets[at == n - 1 ? n - 2 : n - 1]);
	struct sim_node *last = node_of(s, c->targets[at]), *asker;

	if (tail == NULL || last == NULL || node_of(s, c->targets[1]) == NULL)
		return;
	s->style = (unsigned)rand_below(&s->rand, 5);
	s->blows = s->style == 1 || s->style == 2 ? 0 : 1 + (unsigned)rand_below(&s->rand, 2);
	asker = node(s, SIM_CLIENT0, SIM_CLIENTS);
	switch (s->style) {
	case 0:				/* the word that it is back comes late */
		lag(tail, false, SIM_MANAGER0, SIM_METADATA0, some(s, 200, 550), 3000);
		break;
	case 1:				/* who brings it back hears late, and so does a reader */
		lag(tail, true, 0, SIM_CLIENT0, some(s, 10, 200), 3000);
		lag(asker, true, SIM_MANAGER0, SIM_METADATA0, some(s, 10, 300), 3000);
		break;
	case 2:				/* what one has stored does not reach the next, */
		if (n != 3)
			return;
		sim_fault_cut(s, node_of(s, c->targets[1])->id, tail->id, SIM_NET_SILENT,
		    400 * NS_PER_MS);
		s->blows = 1;
		s->hit[0] = c->targets[0];
		s->hit[1] = c->targets[1];
		return;
	default:
		break;
	}
	sim_fault_crash(last, rand_chance(&s->rand, 1, 2),
	    some(s, 1, rand_chance(&s->rand, 1, 2) ? 50 : 1500));
}

/* and the one before it loses it, and nobody asks again for long. */
static void
forget(struct sim *s)
{
	struct sim_node *head = node_of(s, s->hit[0]), *next = node_of(s, s->hit[1]);
	bool there[SIM_NODES] = { false };

	s->blows = 0;
	if (head == NULL || next == NULL)
		return;
	for (unsigned i = SIM_CLIENT0; i < SIM_NODES; i++)
		there[i] = true;
	part(s, there, some(s, 1500, 4000));
	sim_fault_crash(head, true, some(s, 1, 2000));
	sim_fault_crash(next, false, some(s, 1, 200));
}

/* Replicas go and come back, and are hit again while they are brought up to date. */
static uint64_t
resync(struct sim *s)
{
	const struct routing_chain *c = a_chain(s);
	struct sim_node *tail, *last;
	unsigned n;

	hot(s, 100);
	if (c == NULL || (n = routing_serving_n(c)) == 0)
		return 50;
	if (s->style == 2 && s->blows > 0) {
		forget(s);
		return 50;
	}
	if (n == c->target_n) {
		if (rand_chance(&s->rand, 1, 3))
			take_out(s, c);
		if (s->style == 2)
			return some(s, 10, 200);
		return some(s, 1, 300);
	}
	if (c->states[n] != TARGET_SYNCING || s->blows == 0)
		return some(s, 1, 10);
	tail = node_of(s, c->targets[n - 1]);
	last = node_of(s, c->targets[n]);
	if (tail == NULL || last == NULL)
		return 50;
	if (rand_chance(&s->rand, 1, 2))
		return some(s, 1, 50);
	s->blows--;
	if (s->style == 0) {
		sim_fault_crash(last, true, some(s, 1, 20));
		return some(s, 1, 50);
	}
	switch (rand_below(&s->rand, 4)) {
	case 0: case 1:
		sim_fault_fuse(last, (unsigned)some(s, 1, 60), rand_chance(&s->rand, 1, 2),
		    some(s, 1, rand_chance(&s->rand, 1, 2) ? 50 : 900));
		break;
	case 2:
		sim_fault_crash(tail, rand_chance(&s->rand, 1, 2), some(s, 1, 900));
		break;
	default:
		sim_fault_pause(tail, some(s, 20, 500));
		break;
	}
	return some(s, 1, 50);
}

/* Neighbours of a chain are cut from each other, and one hears late what comes of it. */
static uint64_t
apart(struct sim *s)
{
	const struct routing_chain *c = a_chain(s);
	uint64_t lease = s->conf.manager_lease, ms = some(s, lease, 6 * lease);
	struct sim_node *a, *b;
	unsigned n, at;

	if (c == NULL || (n = routing_serving_n(c)) < 2)
		return 50;
	at = (unsigned)rand_below(&s->rand, n - 1);
	a = node_of(s, c->targets[at]);
	b = node_of(s, c->targets[at + 1]);
	if (a == NULL || b == NULL)
		return 50;
	sim_fault_cut(s, a->id, b->id, SIM_NET_SILENT, ms * NS_PER_MS);
	if (rand_chance(&s->rand, 1, 2))
		sim_fault_cut(s, b->id, a->id, SIM_NET_SILENT, ms * NS_PER_MS);
	if (rand_chance(&s->rand, 1, 2))
		lag(b, true, SIM_MANAGER0, SIM_METADATA0, some(s, 20, lease), ms);
	hot(s, ms);
	return ms + some(s, 500, 2000);
}

/* A head does a write and cannot tell; then a replica that was brought up to date with it
 * meanwhile is all that is left of the chain, and is asked again. */
static uint64_t
heirs(struct sim *s)
{
	const struct routing_chain *c = a_chain(s);
	struct sim_node *head, *other, *heir;
	unsigned n;

	hot(s, 100);
	if (c == NULL)
		return 50;
	n = routing_serving_n(c);
	head = node_of(s, c->targets[0]);
	if (head == NULL)
		return 50;
	if (n == 3) {
		other = node_of(s, c->targets[1 + rand_below(&s->rand, 2)]);
		heir = node_of(s, c->targets[1 + rand_below(&s->rand, 2)]);
		if (other == NULL || heir == NULL)
			return 50;
		sim_fault_cut(s, head->id, node(s, SIM_CLIENT0, SIM_CLIENTS)->id,
		    SIM_NET_SILENT, some(s, 1000, 4000) * NS_PER_MS);
		sim_fault_crash(other, false, 4000);
		if (heir != other)
			sim_fault_crash(heir, false, some(s, 1, 1000));
		return some(s, 100, 600);
	}
	if (n >= 1 && (n == 2 || rand_chance(&s->rand, 1, 10)) &&
	    rand_chance(&s->rand, 1, 3)) {
		sim_fault_crash(head, false, some(s, 300, 2000));
		return 1000;
	}
	return some(s, 10, 150);
}

static uint64_t
(*const acts[SIM_PLOTS])(struct sim *s) = {
	[SIM_PLOT_ISLAND] = island, [SIM_PLOT_LATE] = late, [SIM_PLOT_PAUSE] = pauses,
	[SIM_PLOT_POWER] = power, [SIM_PLOT_VOTES] = votes, [SIM_PLOT_BREAKS] = breaking,
	[SIM_PLOT_ALONE] = alone, [SIM_PLOT_RESYNC] = resync, [SIM_PLOT_APART] = apart,
	[SIM_PLOT_HEIRS] = heirs,
};

static void
act(struct clock_timer *t)
{
	struct sim *s = container_of(t, struct sim, plot_timer);
	uint64_t ms = acts[s->plot](s);

	clock_timer_start(sim_clock(s), t, sim_now(s) + ms * NS_PER_MS + 1, act);
}

/* ---- for the others ---- */

void
sim_plot_draw(struct sim *s)
{
	struct rand *r = &s->rand;
	const char *one = getenv("SIM_PLOT");

	s->plot = rand_chance(r, 2, 3) ? 1 + (unsigned)rand_below(r, SIM_PLOTS - 1) : 0;
	s->plot_of = (unsigned)rand_below(r, 3);
	if (one != NULL && *one != '\0')
		for (s->plot = SIM_PLOTS - 1; s->plot > 0 && strcmp(one, plots[s->plot]) != 0;)
			s->plot--;
	if (s->faults == 0)
		s->plot = SIM_PLOT_NONE;
	if (s->plot == SIM_PLOT_NONE)
		return;
	s->faults &= ~(unsigned)SIM_ROT;
	s->frail = SIM_NODES;
	/* Little noise, so that a plot gets where it wants to. */
	s->faults &= (unsigned)rand_below(r, SIM_ALL + 1);
	s->fault_ns = (1000 + rand_below(r, 4000)) * NS_PER_MS;
	s->ops = 100 + (unsigned)rand_below(r, 300);
	s->load_s = 15;
	s->conf.client_read_ahead = 0;
	if (s->plot == SIM_PLOT_ALONE)
		s->conf.metadata_session = 1500 + rand_below(r, 1000);
	if (s->plot == SIM_PLOT_VOTES && s->plot_of == 0)
		s->manager_n = 3;
	if (s->plot == SIM_PLOT_VOTES && s->plot_of != 0)
		s->metadata_n = 3;
	if (s->plot == SIM_PLOT_VOTES)
		s->metadata_late = 0;
}

void
sim_plot_start(struct sim *s)
{
	if (s->plot != SIM_PLOT_NONE)
		clock_timer_start(sim_clock(s), &s->plot_timer, sim_now(s) +
		    rand_below(&s->rand, NS_PER_S), act);
}

void
sim_plot_stop(struct sim *s)
{
	clock_timer_stop(sim_clock(s), &s->plot_timer);
	clock_timer_stop(sim_clock(s), &s->lag);
	s->spark = 0;
}

bool
sim_plotted(const struct sim *s)
{
	return s->plot != SIM_PLOT_NONE;
}

uint64_t
sim_pace(const struct sim *s, uint64_t ns)
{
	return s->plot == SIM_PLOT_NONE ? ns : sim_now(s) < s->hot_until_ns ? ns / 5 + 1 :
	    3 * ns;
}
