/* SPDX-License-Identifier: MIT */
/* test_sim.c - whole clusters under faults: N=seeds (1000), SEED=one, FIRST=seed,
 * JOBS=processes (2).  Each worker process takes its share of the seeds, after those of
 * tests/sim/seeds.txt, which found something once; a failure prints its seed.  In the
 * end what no seed has reached is told (COVER=1: also what was). */
#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/cover.h"
#include "tests/sim/sim.h"

#define OLD_MAX		256u		/* seeds that are kept */
#define COVER_SEEDS	500u		/* enough for everything to happen */

static volatile uint64_t running;

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

static uint64_t
number(const char *name, uint64_t otherwise)
{
	const char *v = getenv(name);

	return v != NULL && *v != '\0' ? strtoull(v, NULL, 10) : otherwise;
}

/* Also asserts and bad pointers have a seed. */
static void
died(int sig)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "seed %" PRIu64 ": signal %d\n", running, sig);

	if (n > 0 && write(STDERR_FILENO, text, (size_t)n) != n)
		_exit(2);
	signal(sig, SIG_DFL);
	raise(sig);
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

/* Every @step-th of the seeds, in a process of its own. */
static pid_t
worker(unsigned self, const uint64_t *old, unsigned old_n, uint64_t first, uint64_t n,
    unsigned step)
{
	pid_t pid;

	fflush(NULL);
	if ((pid = fork()) != 0)
		return pid;
	signal(SIGABRT, died);
	signal(SIGSEGV, died);
	cover_worker(self);
	for (uint64_t i = self; i < old_n + n; i += step)
		run(i < old_n ? old[i] : first + i - old_n, SIM_ALL);
	cover_done();
	_exit(0);
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
	uint64_t one = number("SEED", 0), n = number("N", 1000), first = number("FIRST", 1);
	unsigned jobs = (unsigned)number("JOBS", 2), old_n, bad = 0, missing;
	uint64_t old[OLD_MAX];
	struct timespec begin, end;
	pid_t pids[COVER_WORKERS];
	double s;

	if (one != 0) {
		printf("seed %" PRIu64 ": trace %016" PRIx64 "\n", one, run(one, SIM_ALL));
		return;
	}
	ck_assert(jobs >= 1 && jobs <= COVER_WORKERS);
	old_n = old_seeds(old, OLD_MAX);
	cover_open();
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (unsigned i = 0; i < jobs; i++) {
		pids[i] = worker(i, old, old_n, first, n, jobs);
		ck_assert_int_gt(pids[i], 0);
	}
	for (unsigned i = 0; i < jobs; i++) {
		int status = 0;

		ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
		bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	s = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
	ck_assert_msg(bad == 0, "%u workers failed: see above for the seeds", bad);
	printf("%" PRIu64 " seeds, %.0f per minute\n", n + old_n,
	    (double)(n + old_n) * 60 / s);
	missing = cover_report();
	ck_assert_msg(missing == 0 || n < COVER_SEEDS, "%u things never happened", missing);
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
