/* SPDX-License-Identifier: MIT */
/* test_sim_relay.c - two nodes of a simulated cluster that reach everybody but each other, for
 * as long as the load lasts: it ends all the same.  N=1000: 4 seeds of
 * each kind, SEED=one, PAIR=kind. */
#include <check.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "meta/group.h"
#include "net/routing.h"
#include "tests/sim/sim_impl.h"
#include "tests/suite.h"

#define LOAD_S	60u		/* virtual; the longest takes 20 without any cut */
#define OPS	150u		/* of everybody in the load */

static uint64_t
number(const char *name, uint64_t otherwise)
{
	const char *v = getenv(name);

	return v != NULL && *v != '\0' ? strtoull(v, NULL, 10) : otherwise;
}

/* ---- who ---- */

enum who { CLIENT, HEAD, TAIL, METADATA, METADATA2, MANAGER, MANAGER2 };

/* The one that leads, or the first that does not; SIM_NODES: there is none. */
static unsigned
of_group(struct sim *s, bool manager, bool leads)
{
	unsigned from = manager ? SIM_MANAGER0 : SIM_METADATA0;
	unsigned to = manager ? SIM_METADATA0 : SIM_STORAGE0;

	for (unsigned i = from; i < to; i++) {
		struct group *g = manager ? sim_manager_group(s, i - from) :
		    sim_metadata_group(s, i - from);

		if (g != NULL && group_leads(g) == leads && !group_blank(g))
			return i;
	}
	return SIM_NODES;
}

static unsigned
of_target(struct sim *s, target_id target)
{
	const struct routing *r = sim_routing(s);
	const struct routing_node *n = routing_node(r, routing_target(r, target)->node);

	ck_assert_int_eq(strncmp(n->name, "storage", 7), 0);
	return SIM_STORAGE0 + (unsigned)atoi(n->name + 7) - 1;
}

static unsigned
find(struct sim *s, enum who who)
{
	const struct routing_chain *c = routing_chain_at(sim_routing(s), 0);

	if (c == NULL || routing_serving_n(c) < 2)
		return SIM_NODES;
	switch (who) {
	case CLIENT:
		return SIM_CLIENT0;
	case HEAD:
		return of_target(s, c->targets[0]);
	case TAIL:
		return of_target(s, c->targets[routing_serving_n(c) - 1]);
	case METADATA:
	case METADATA2:
		return of_group(s, false, who == METADATA);
	case MANAGER:
	case MANAGER2:
		return of_group(s, true, who == MANAGER);
	}
	return SIM_NODES;
}

static const struct {
	const char *what;
	enum who    a, b;
	bool	    relayed;	/* somebody has to pass on for the client */
} pairs[] = {
	{ "client and head", CLIENT, HEAD, true },
	{ "client and tail", CLIENT, TAIL, false },
	{ "client and metadata leader", CLIENT, METADATA, true },
	{ "client and metadata follower", CLIENT, METADATA2, false },
	{ "client and manager leader", CLIENT, MANAGER, false },
	{ "metadata leader and head", METADATA, HEAD, false },
	{ "metadata leader and tail", METADATA, TAIL, false },
	{ "metadata leader and follower", METADATA, METADATA2, false },
	{ "metadata leader and manager leader", METADATA, MANAGER, false },
	{ "head and manager leader", HEAD, MANAGER, false },
	{ "head and tail", HEAD, TAIL, false },
	{ "manager leader and follower", MANAGER, MANAGER2, false },
};

/* ---- what ---- */

/* Only who has others of its kind can be done without. */
static bool
enough(const struct sim *s, enum who who)
{
	switch (who) {
	case METADATA:
	case METADATA2:
		return s->metadata_n >= 3;
	case MANAGER:
	case MANAGER2:
		return s->manager_n >= 3;
	case CLIENT:
	case HEAD:
	case TAIL:
		break;
	}
	return true;
}

/* Both groups have all their members, which vote; and chains serve. */
static bool
formed(void *ctx)
{
	struct sim *s = ctx;

	for (unsigned k = 0; k < 2; k++) {
		unsigned at = of_group(s, k == 0, true);
		const struct raft_members *m;

		if (at == SIM_NODES)
			return false;
		m = group_members(k == 0 ? sim_manager_group(s, at - SIM_MANAGER0) :
		    sim_metadata_group(s, at - SIM_METADATA0));
		if (m->n != (k == 0 ? s->manager_n : s->metadata_n))
			return false;
		for (unsigned i = 0; i < m->n; i++)
			if (!m->m[i].voter)
				return false;
	}
	return find(s, HEAD) != SIM_NODES;
}

static bool
run(unsigned pair, uint64_t seed)
{
	enum sim_net_path how = seed % 2 == 0 ? SIM_NET_SILENT : SIM_NET_RESET;
	struct sim *s = sim_open(seed, 0);
	uint64_t relayed;
	unsigned a, b;

	if (!enough(s, pairs[pair].a) || !enough(s, pairs[pair].b) ||
	    s->metadata_late > 0) {
		sim_close(s);
		return false;
	}
	sim_until(s, formed, s, 20, "forming");
	a = find(s, pairs[pair].a);
	b = find(s, pairs[pair].b);
	ck_assert_uint_ne(a, b);
	s->load_s = LOAD_S;
	s->ops = s->ops < OPS ? s->ops : OPS;
	if (getenv("WHOLE") == NULL)
		sim_net_cut(s->net, a, b, how);
	sim_load(s);
	relayed = client_stats(sim_client(s, 0))->relayed;
	ck_assert_msg(load_done(s->load), "%s, seed %" PRIu64 ": no end after %u s",
	    pairs[pair].what, seed, LOAD_S);
	ck_assert_msg(!pairs[pair].relayed || relayed > 0,
	    "%s, seed %" PRIu64 ": nothing was passed on", pairs[pair].what, seed);
	if (getenv("VERBOSE") != NULL)
		printf("%-36s %3" PRIu64 ": relayed %4" PRIu64 ", %u ms\n",
		    pairs[pair].what, seed, relayed,
		    (unsigned)(sim_now(s) / NS_PER_MS));
	sim_heal(s);
	sim_check(s);
	sim_close(s);
	return true;
}

START_TEST(two_apart)
{
	uint64_t n = number("N", 1000) / 250;	/* as test_sim counts */
	unsigned want = n < 2 ? 2 : n > 20 ? 20 : (unsigned)n;
	uint64_t one = number("SEED", 0);

	if (number("PAIR", (uint64_t)_i) != (uint64_t)_i)
		return;
	if (one != 0) {
		(void)run((unsigned)_i, one);
		return;
	}
	for (uint64_t seed = 1; want > 0 && seed < 200; seed++)
		want -= run((unsigned)_i, seed);
	ck_assert_uint_eq(want, 0);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 0);
	tcase_add_loop_test(tc, two_apart, 0, sizeof(pairs) / sizeof(pairs[0]));
	return suite_run("sim_relay", tc);
}
