/* SPDX-License-Identifier: MIT */
/* seeds.h - many seeds in a few processes, for simulations: SEED=one, N=seeds, JOBS=processes
 * (2).  Whatever ends a process, the seed that it ran is told. */
#ifndef TESTS_SEEDS_H
#define TESTS_SEEDS_H

#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SEED_JOBS_MAX	16u

static volatile uint64_t running;	/* seed */

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

/* Run @share(ctx, i, jobs) in JOBS processes, each of which takes every jobs-th of the @n
 * seeds beginning with the @i-th; all have to end well. */
static void
seeds_run(uint64_t n, void (*share)(const void *ctx, unsigned i, unsigned jobs),
    const void *ctx)
{
	unsigned jobs = (unsigned)number("JOBS", 2), bad = 0;
	struct timespec from, to;
	pid_t pids[SEED_JOBS_MAX];
	double s;

	ck_assert(jobs >= 1 && jobs <= SEED_JOBS_MAX);
	fflush(NULL);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (unsigned i = 0; i < jobs; i++) {
		pids[i] = fork();
		ck_assert_int_ge(pids[i], 0);
		if (pids[i] != 0)
			continue;
		signal(SIGABRT, died);
		signal(SIGSEGV, died);
		share(ctx, i, jobs);
		_exit(0);
	}
	for (unsigned i = 0; i < jobs; i++) {
		int status = 0;

		ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
		bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	s = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
	ck_assert_msg(bad == 0, "%u processes failed: see above for the seeds", bad);
	printf("%" PRIu64 " seeds, %.0f per minute\n", n, (double)n * 60 / s);
}

#endif
