/* SPDX-License-Identifier: MIT */
/* test_layout.c - golden places of chunks.  They were computed by another program from
 * the text in net/layout.c; files on disk depend on them for ever. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "net/routing.h"
#include "tests/suite.h"

static const struct golden {
	const char *what;
	uint64_t    seed;
	uint32_t    chains, stripe, slots[8];
} goldens[] = {
	{ "one chain", 0, 1, 1, { 0 } },
	{ "seed 0", 0, 8, 8, { 7, 2, 3, 0, 1, 5, 4, 6 } },
	{ "seed 1", 1, 8, 8, { 1, 0, 2, 3, 5, 7, 4, 6 } },
	{ "part of a table", 0x0123456789abcdef, 300, 8,
	    { 165, 261, 222, 251, 108, 86, 53, 28 } },
	{ "large seed", UINT64_MAX, 12, 4, { 8, 7, 3, 2 } },
	{ "large table", 42, 65536, 8,
	    { 28309, 44942, 40294, 19350, 43478, 29800, 47791, 32268 } },
	{ "odd table", 7, 5, 5, { 2, 1, 0, 4, 3 } },
};

START_TEST(golden_slots)
{
	const struct golden *g = &goldens[_i];
	struct layout l = { .stripe = g->stripe, .seed = g->seed };

	for (uint32_t i = 0; i < 3 * g->stripe; i++)
		ck_assert_msg(layout_slot(&l, g->chains, i) ==
		    g->slots[i % g->stripe], "%s: chunk %u is in %u", g->what, i,
		    layout_slot(&l, g->chains, i));
	ck_assert_uint_eq(layout_slot(&l, g->chains, UINT32_MAX),
	    g->slots[UINT32_MAX % g->stripe]);
}
END_TEST

START_TEST(widest_stripe)
{
	struct layout l = { .stripe = 256, .seed = 99 };
	bool seen[1000] = { false };

	ck_assert_uint_eq(layout_slot(&l, 1000, 0), 403);
	ck_assert_uint_eq(layout_slot(&l, 1000, 1), 946);
	ck_assert_uint_eq(layout_slot(&l, 1000, 100), 706);
	ck_assert_uint_eq(layout_slot(&l, 1000, 254), 41);
	ck_assert_uint_eq(layout_slot(&l, 1000, 255), 244);
	for (uint32_t i = 0; i < 256; i++) {	/* no chain twice */
		uint32_t slot = layout_slot(&l, 1000, i);

		ck_assert_uint_lt(slot, 1000);
		ck_assert(!seen[slot]);
		seen[slot] = true;
	}
}
END_TEST

/* Layouts that no metadata service hands out still lead to a slot. */
START_TEST(odd_stripes)
{
	struct layout l = { .stripe = 0, .seed = 5 };

	ck_assert_uint_lt(layout_slot(&l, 4, 77), 4);
	l.stripe = UINT32_MAX;
	for (uint32_t i = 0; i < 2000; i++)
		ck_assert_uint_lt(layout_slot(&l, 1000, i), 1000);
	for (uint32_t i = 0; i < 20; i++)
		ck_assert_uint_lt(layout_slot(&l, 4, i), 4);
}
END_TEST

START_TEST(chain_of_chunk)
{
	struct layout l = { .table = 3, .table_version = 2, .stripe = 8,
	    .seed = 1 };
	chain_id ids[8] = { 100, 101, 102, 103, 104, 105, 106, 107 };
	struct routing_table t = { 3, 1, 2, 8, ids };
	struct routing *r;

	ck_assert_int_eq(routing_open(&r), 0);
	ck_assert_uint_eq(layout_chain(r, &l, 0), 0);
	ck_assert_int_eq(routing_put_table(r, &t), 0);
	ck_assert_uint_eq(layout_chain(r, &l, 0), 101);
	ck_assert_uint_eq(layout_chain(r, &l, 4), 105);
	ck_assert_uint_eq(layout_chain(r, &l, 8), 101);
	l.table_version = 1;
	ck_assert_uint_eq(layout_chain(r, &l, 0), 0);
	l.table_version = 4;		/* a table without chains */
	t.version = 4;
	t.chain_n = 0;
	ck_assert_int_eq(routing_put_table(r, &t), 0);
	ck_assert_uint_eq(layout_chain(r, &l, 0), 0);
	routing_close(r);
}
END_TEST

START_TEST(from_attributes)
{
	struct msg_attr a = { .table = 1, .table_version = 2, .chunk_shift = 20,
	    .stripe = 4, .seed = 5 };
	struct layout l;

	memset(&l, 0xff, sizeof(l));
	layout_of_attr(&a, &l);
	ck_assert(l.table == 1 && l.table_version == 2 && l.chunk_shift == 20 &&
	    l.stripe == 4 && l.seed == 5);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("all");

	tcase_add_loop_test(t, golden_slots, 0,
	    (int)(sizeof(goldens) / sizeof(goldens[0])));
	tcase_add_test(t, widest_stripe);
	tcase_add_test(t, odd_stripes);
	tcase_add_test(t, chain_of_chunk);
	tcase_add_test(t, from_attributes);
	return suite_run("layout", t);
}
