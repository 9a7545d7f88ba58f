/* SPDX-License-Identifier: MIT */
/* test_spin.c - when to look, when to sleep, and how much looking in vain there is at most. */
#include "net/spin.h"
#include "tests/suite.h"

#include <check.h>

#define MAX	1000u
#define LONG	(NET_SPIN_SHARE * MAX)	/* earns one try */

/* What comes after so long without anything; is it caught by looking? */
static const struct {
	const char *what;
	uint64_t    max;
	uint64_t    gaps[8];	/* ends with 0 */
	const char *how;	/* a letter each: l looked, s slept, v looked in vain */
} rows[] = {
	{ "soon, all of them",            MAX, { 10, 10, 10, 10 },              "llll" },
	{ "just in time",                 MAX, { MAX, MAX },                    "ll" },
	{ "just missed, then not tried",  MAX, { MAX + 1, 10, 10 },             "vss" },
	{ "tried again after long sleep", MAX, { MAX + LONG, 10, 10 },          "vll" },
	{ "or many short ones",           MAX, { MAX + 1, LONG / 2, LONG / 2, 10 }, "vssl" },
	{ "seldom ones",                  MAX, { 9 * LONG, 9 * LONG, 9 * LONG }, "vvv" },
	{ "turned off",                   0,   { 1, 1, LONG, 1 },               "ssss" },
};

START_TEST(tries)
{
	struct net_spin s = { .max_ns = rows[_i].max };
	uint64_t now = 1000000;
	const char *how = rows[_i].how;

	for (const uint64_t *g = rows[_i].gaps; *g != 0; g++, how++) {
		bool on = net_spin_on(&s, now);

		ck_assert_msg(on == (*how != 's'), "%s: %s", rows[_i].what, how);
		/* Whoever looks does so all the time. */
		for (uint64_t at = 0; on && at < *g; at += MAX / 10)
			on = net_spin_on(&s, now + at);
		now += *g;
		ck_assert_msg(on == (*how == 'l'), "%s: %s", rows[_i].what, how);
		net_spin_came(&s);
	}
}
END_TEST

/* Looks at nothing while asleep, as other descriptors wake the loop, change nothing. */
START_TEST(woken_by_others)
{
	struct net_spin s = { .max_ns = MAX };
	uint64_t now = 1000000;

	ck_assert(net_spin_on(&s, now));
	ck_assert(!net_spin_on(&s, now + MAX));
	for (unsigned i = 0; i < 100; i++)
		ck_assert(!net_spin_on(&s, now + MAX + i * LONG));
	net_spin_came(&s);
	ck_assert(net_spin_on(&s, now + 200 * LONG));
}
END_TEST

/* Whatever comes, looking in vain is bounded. */
START_TEST(bounded)
{
	struct net_spin s = { .max_ns = MAX };
	uint64_t begin = 1000000, now = begin, vain = 0;
	uint32_t seed = (uint32_t)_i + 1;

	for (unsigned i = 0; i < 10000; i++) {
		bool on = net_spin_on(&s, now);
		uint64_t gap;

		seed = seed * 1664525u + 1013904223u;
		gap = (seed >> 8) % ((unsigned)_i * 500 + 2);
		if (on && gap >= MAX && !net_spin_on(&s, now + MAX))
			vain += MAX;
		now += gap + 1;
		net_spin_came(&s);
	}
	ck_assert_uint_le(vain, (now - begin) / NET_SPIN_SHARE + MAX);
	/* And made use of, where gaps are long. */
	if (_i > 8)
		ck_assert_uint_ge(vain, (now - begin) / NET_SPIN_SHARE / 2);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("spin");

	tcase_add_loop_test(tc, tries, 0, (int)(sizeof(rows) / sizeof(rows[0])));
	tcase_add_test(tc, woken_by_others);
	tcase_add_loop_test(tc, bounded, 0, 20);
	return suite_run("spin", tc);
}
