/* SPDX-License-Identifier: MIT */
/* test_sim.c - whole clusters under faults: N=seeds (500), SEED=one.
 * Each worker process takes every second seed; a failure prints its seed. */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

static uint64_t
run(uint64_t seed, unsigned faults)
{
	struct sim *s = sim_open(seed, faults);

	sim_load(s);
	sim_heal(s);
	sim_check(s);
	return sim_close(s);
}

/* Nothing goes wrong: the plain path through all roles. */
START_TEST(calm)
{
	run(1000000 + (uint64_t)_i, 0);
}
END_TEST

/* Come what may, nothing acknowledged is lost; once healed, all of it ends. */
START_TEST(any_seed)
{
	const char *one = getenv("SEED"), *n = getenv("N");
	uint64_t seeds = n != NULL && *n != '\0' ? strtoull(n, NULL, 10) : 500;

	if (one != NULL && *one != '\0') {
		if (_i == 0)
			printf("seed %s: trace %016" PRIx64 "\n", one,
			    run(strtoull(one, NULL, 10), SIM_ALL));
		return;
	}
	for (uint64_t seed = (uint64_t)_i + 1; seed <= seeds; seed += 2)
		run(seed, SIM_ALL);
}
END_TEST

/* The same seed takes the same course, to the last log line. */
START_TEST(same_seed_same_trace)
{
	for (uint64_t seed = 1; seed <= 5; seed++)
		ck_assert_uint_eq(run(seed, SIM_ALL), run(seed, SIM_ALL));
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("sim");
	TCase *tc = tcase_create("cluster");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 0);
	if (getenv("SEED") == NULL || *getenv("SEED") == '\0') {
		tcase_add_loop_test(tc, calm, 0, 3);
		tcase_add_test(tc, same_seed_same_trace);
	}
	tcase_add_loop_test(tc, any_seed, 0, 2);
	suite_add_tcase(suite, tc);
	sr = srunner_create(suite);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
