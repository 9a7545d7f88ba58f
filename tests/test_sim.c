/* SPDX-License-Identifier: MIT */
/* test_sim.c - whole clusters under faults: N=seeds (1000), SEED=one, FIRST=seed,
 * JOBS=processes (2).  Each worker process takes its share of the seeds, after those of
 * tests/sim/seeds.txt, which found something once; a failure prints its seed.  In the
 * end what no seed has reached is told (COVER=1: also what was). */
#include "tests/seeds.h"
#include "tests/sim/cover.h"
#include "tests/sim/sim.h"

#define OLD_MAX		256u		/* seeds that are kept */
#define COVER_SEEDS	500u		/* enough for everything to happen */

_Static_assert(SEED_JOBS_MAX <= COVER_WORKERS, "each tells what it has seen");

static uint64_t
run(uint64_t seed, unsigned faults)
{
	struct sim *s;

	running = seed;
	s = sim_open(seed, faults);
	sim_load(s);
	sim_heal(s);
	sim_check(s);
	return sim_close(s);
}

/* Seeds that found something once. */
static unsigned
old_seeds(uint64_t *out, unsigned max)
{
	FILE *f = fopen("tests/sim/seeds.txt", "r");
	char line[256];
	unsigned n = 0;

	while (f != NULL && fgets(line, sizeof(line), f) != NULL && n < max)
		if ((out[n] = strtoull(line, NULL, 10)) != 0)
			n++;
	if (f != NULL)
		fclose(f);
	return n;
}

struct seeds {
	uint64_t old[OLD_MAX], first, n;	/* those kept, then @n from @first on */
	unsigned old_n;
};

static void
share(const void *ctx, unsigned self, unsigned jobs)
{
	const struct seeds *x = ctx;

	cover_worker(self);
	for (uint64_t i = self; i < x->old_n + x->n; i += jobs)
		run(i < x->old_n ? x->old[i] : x->first + i - x->old_n, SIM_ALL);
	cover_done();
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
	uint64_t one = number("SEED", 0);
	struct seeds x = { .first = number("FIRST", 1), .n = number("N", 1000) };
	unsigned missing;

	if (one != 0) {
		printf("seed %" PRIu64 ": trace %016" PRIx64 "\n", one, run(one, SIM_ALL));
		return;
	}
	x.old_n = old_seeds(x.old, OLD_MAX);
	cover_open();
	seeds_run(x.old_n + x.n, share, &x);
	missing = cover_report();
	ck_assert_msg(missing == 0 || x.n < COVER_SEEDS, "%u things never happened",
	    missing);
}
END_TEST

/* The same seed takes the same course, to the last log line. */
START_TEST(same_seed_same_trace)
{
	uint64_t n = number("N", 1000) / 50;

	for (uint64_t seed = 1; seed <= (n < 5 ? 5 : n > 20 ? 20 : n); seed++)
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
	if (number("SEED", 0) == 0) {
		tcase_add_loop_test(tc, calm, 0, 3);
		tcase_add_test(tc, same_seed_same_trace);
	}
	tcase_add_test(tc, any_seed);
	suite_add_tcase(suite, tc);
	sr = srunner_create(suite);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
