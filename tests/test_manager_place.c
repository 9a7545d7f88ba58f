/* SPDX-License-Identifier: MIT */
/* test_manager_place.c - which chains are made of which slots. */
#include "roles/manager_place.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "conf/rand.h"
#include "tests/suite.h"

#define SLOTS_MAX 4096u

static struct manager_slot slots[SLOTS_MAX];
static struct manager_plan plan[SLOTS_MAX];

/* "2+2 1" : node 1 with two disks of two free slots, node 2 with one of one.  A target
 * is called node * 10000 + disk * 100 + slot. */
static size_t
parse_slots(const char *s)
{
	uint32_t node = 1, disk = 0;
	size_t n = 0;

	for (; *s != '\0'; s++) {
		if (*s == ' ') {
			node++;
			disk = 0;
			continue;
		}
		if (*s == '+') {
			disk++;
			continue;
		}
		for (uint32_t i = 0; i < (uint32_t)(*s - '0'); i++)
			slots[n++] = (struct manager_slot){ .node = node,
				.disk = node * 100 + disk,
				.target = node * 10000 + disk * 100 + i };
	}
	return n;
}

/* "1.2.3 2.3.1": nodes of chains, head first. */
static size_t
parse_chains(const char *s, struct manager_place_nodes *out)
{
	size_t n = 0;

	for (; *s != '\0'; s++) {
		if (*s == ' ')
			n++;
		else if (*s != '.')
			out[n].nodes[out[n].n++] = (uint32_t)(*s - '0');
	}
	return out[n].n > 0 ? n + 1 : n;
}

static const struct {
	const char *what, *free, *exist;
	unsigned    replicas;
	size_t	    max;
	const char *nodes, *targets;
	bool	    more;
} cases[] = {
	{ "nothing is made of nothing", "", "", 3, 9, "", "", false },
	{ "too few nodes", "9 9", "", 3, 9, "", "", false },
	{ "one node, one replica, heads take turns over disks", "2+2", "", 1, 9,
	  "1 1 1 1", "10000 10100 10001 10101", false },
	{ "three nodes: each is head and tail in turn", "3 3 3", "", 3, 9,
	  "1.2.3 2.3.1 3.1.2", "10000.20000.30000 20001.30001.10001 "
	  "30002.10002.20002", false },
	{ "the two larger nodes are in every chain", "1 2 2", "", 2, 9,
	  "2.3 1.2", NULL, false },
	{ "six nodes: partners change", "2 2 2 2 2 2", "", 3, 9, NULL, NULL,
	  false },
	{ "cut at max, and says so", "3 3 3", "", 3, 2, "1.2.3 2.3.1", NULL, true },
	{ "heads of what exists count", "1 1 1", "1.2.3 2.3.1", 3, 9, "3.1.2",
	  NULL, false },
	{ "partners of what exists count", "1 1 1 1", "1.2 3.4", 2, 9, "1.3 2.4",
	  NULL, false },
	{ "the fuller disk is left alone", "1+3 4", "", 2, 1, "1.2", "10100.20000",
	  true },
	{ "chains of nodes that have no slots are no obstacle", "1 1", "7.8.9", 2,
	  9, "1.2", NULL, false },
};

START_TEST(formation)
{
	static struct manager_place_nodes exist[16];
	char nodes[256] = "", targets[256] = "";
	size_t n, slot_n, exist_n;
	bool more;

	memset(exist, 0, sizeof(exist));
	slot_n = parse_slots(cases[_i].free);
	exist_n = parse_chains(cases[_i].exist, exist);
	ck_assert_int_eq(manager_place(slots, slot_n, exist, exist_n,
	    cases[_i].replicas, plan, cases[_i].max, &n, &more), 0);
	for (size_t i = 0; i < n; i++) {
		for (unsigned j = 0; j < cases[_i].replicas; j++) {
			size_t a = strlen(nodes), b = strlen(targets);
			const char *sep = j > 0 ? "." : i > 0 ? " " : "";

			snprintf(nodes + a, sizeof(nodes) - a, "%s%u", sep,
			    plan[i].targets[j] / 10000);
			snprintf(targets + b, sizeof(targets) - b, "%s%u", sep,
			    plan[i].targets[j]);
		}
	}
	if (cases[_i].nodes != NULL)
		ck_assert_msg(strcmp(nodes, cases[_i].nodes) == 0, "%s: %s",
		    cases[_i].what, nodes);
	if (cases[_i].targets != NULL)
		ck_assert_msg(strcmp(targets, cases[_i].targets) == 0, "%s: %s",
		    cases[_i].what, targets);
	ck_assert_msg(more == cases[_i].more, "%s", cases[_i].what);
}
END_TEST

/* Any cluster: the most chains there can be, distinct nodes, no slot twice; and with
 * equal nodes everything is even. */
START_TEST(any_cluster)
{
	struct rand r;
	uint32_t free_of[32] = { 0 };
	unsigned replicas, nodes;
	size_t slot_n = 0, n;
	uint64_t most = 0;
	bool more, equal;

	rand_seed(&r, (uint64_t)_i);
	replicas = 1 + (unsigned)rand_below(&r, 5);
	nodes = 1 + (unsigned)rand_below(&r, 30);
	equal = rand_chance(&r, 1, 2);
	for (unsigned i = 0; i < nodes; i++) {
		unsigned disks = 1 + (unsigned)rand_below(&r, 4);

		for (unsigned d = 0; d < (equal ? 2 : disks); d++) {
			unsigned k = equal ? 4 : (unsigned)rand_below(&r, 8);

			for (unsigned s = 0; s < k; s++)
				slots[slot_n++] = (struct manager_slot){
					.node = i + 1, .disk = i * 100 + d,
					.target = (i + 1) * 10000 + d * 100 + s };
			free_of[i] += k;
		}
	}
	for (uint64_t k = 1, sum; k <= slot_n; k++) {
		sum = 0;
		for (unsigned i = 0; i < nodes; i++)
			sum += free_of[i] < k ? free_of[i] : k;
		if (sum < k * replicas)
			break;
		most = k;
	}
	ck_assert_int_eq(manager_place(slots, slot_n, NULL, 0, replicas, plan,
	    SLOTS_MAX, &n, &more), 0);
	ck_assert_uint_eq(n, most);
	ck_assert(!more);

	uint32_t heads[32] = { 0 }, tails[32] = { 0 }, used[32] = { 0 };
	for (size_t i = 0; i < n; i++) {
		for (unsigned j = 0; j < replicas; j++) {
			used[plan[i].targets[j] / 10000 - 1]++;
			for (unsigned k = 0; k < j; k++)
				ck_assert_uint_ne(plan[i].targets[j] / 10000,
				    plan[i].targets[k] / 10000);
			for (size_t k = 0; k < i; k++)
				for (unsigned l = 0; l < replicas; l++)
					ck_assert_uint_ne(plan[i].targets[j],
					    plan[k].targets[l]);
		}
		heads[plan[i].targets[0] / 10000 - 1]++;
		tails[plan[i].targets[replicas - 1] / 10000 - 1]++;
	}
	for (unsigned i = 0; equal && n > 0 && i < nodes; i++) {
		ck_assert_uint_ge(used[i] + 1, n * replicas / nodes);
		ck_assert_uint_le(heads[i], n / nodes + 2);
		ck_assert_uint_le(tails[i], n / nodes + 2);
	}
}
END_TEST

/* When one of ten nodes fails, each other node shares some of its chains. */
START_TEST(load_of_a_failed_node_spreads)
{
	size_t slot_n = 0, n;
	uint32_t shared[10][10] = { { 0 } };
	bool more;

	for (uint32_t i = 0; i < 10; i++)
		for (uint32_t s = 0; s < 12; s++)
			slots[slot_n++] = (struct manager_slot){ .node = i + 1,
				.disk = i, .target = (i + 1) * 10000 + s };
	ck_assert_int_eq(manager_place(slots, slot_n, NULL, 0, 3, plan,
	    SLOTS_MAX, &n, &more), 0);
	ck_assert_uint_eq(n, 40);
	for (size_t i = 0; i < n; i++)
		for (unsigned j = 0; j < 3; j++)
			for (unsigned k = 0; k < 3; k++)
				shared[plan[i].targets[j] / 10000 - 1]
				    [plan[i].targets[k] / 10000 - 1]++;
	/* 12 chains, 24 partners over 9 nodes: 2.67 each */
	for (unsigned i = 0; i < 10; i++)
		for (unsigned j = 0; j < 10; j++)
			if (i != j) {
				ck_assert_uint_ge(shared[i][j], 1);
				ck_assert_uint_le(shared[i][j], 5);
			}
}
END_TEST

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	TCase *t = tcase_create("pure");

	tcase_add_loop_test(t, formation, 0, N(cases));
	tcase_add_loop_test(t, any_cluster, 0, 60);
	tcase_add_test(t, load_of_a_failed_node_spreads);
	return suite_run("manager_place", t);
}
