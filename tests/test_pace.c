/* SPDX-License-Identifier: MIT */
/* test_pace.c - copies beside clients on machines that are slow, uneven, or stall. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/pace.h"
#include "conf/clock.h"
#include "tests/suite.h"

#define CHUNK	(1u << 20)
#define JOBS	256u
#define COPIES	64u		/* as many as two chains have under way */
#define CYCLE_MS	3000u		/* copies pause when one begins */
#define SHARE	30u
#define SLICE	500u		/* microseconds that one job has in a row */
#define RUNS	5u		/* of each row: luck evens out */
#ifdef __SANITIZE_ADDRESS__		/* which makes them long, and rows differ in numbers only */
#define STEP	4
#else
#define STEP	1
#endif

struct load {
	const char *what;
	unsigned client_s, copy_s;	/* chunks a second that each does alone */
	unsigned depth;			/* requests of clients under way at most */
	unsigned wanted;		/* a second; 0: all there is */
	unsigned lag;			/* ms that a copy takes besides, about */
	unsigned noise;			/* percent of the machine that others take, at most */
	unsigned storms;		/* ms from one stall to the next, about; 0: none */
	unsigned loss, reached;		/* percent: most beyond the fair share, least of
					 * what is left */
};

struct job {
	bool	 used, client;
	unsigned left;			/* microseconds of work; then it lags */
	uint64_t end_ms;
};

static struct chunk_pace P;
static uint64_t now_ms, luck;
static unsigned under_way;		/* copies, at most */

static void
setup(void)
{
	memset(&P, 0, sizeof(P));
	now_ms = 7777;
	luck = 1;
	under_way = 0;
}

static unsigned
below(unsigned n)
{
	luck = luck * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(luck >> 33) % n;
}

static struct chunk_pace_at
at(uint64_t ms)
{
	return (struct chunk_pace_at){ ms * NS_PER_MS, ms * NS_PER_MS, SHARE };
}

/* ---- a machine ---- */

static struct job *
job_start(struct job *jobs, bool client, unsigned us)
{
	struct job *j = jobs;

	while (j->used)
		j++;
	ck_assert(j < jobs + JOBS);
	*j = (struct job){ .used = true, .client = client, .left = us };
	return j;
}

/* One millisecond, of which @us are there: whoever waits gets a turn at random. */
static void
work(struct job *jobs, unsigned us, unsigned lag)
{
	while (us > 0) {
		unsigned n = 0, k, take;
		struct job *j = jobs;

		for (unsigned i = 0; i < JOBS; i++)
			n += jobs[i].used && jobs[i].left > 0;
		if (n == 0)
			return;
		k = below(n);
		while (!j->used || j->left == 0 || k-- > 0)
			j++;
		take = j->left < SLICE ? j->left : SLICE;
		take = take < us ? take : us;
		us -= take;
		j->left -= take;
		if (j->left == 0)
			j->end_ms = now_ms + 1 + (j->client || lag == 0 ? 0 :
			    below(2 * lag));
	}
}

/* What the machine gives in this millisecond. */
static unsigned
given(const struct load *l, unsigned t, unsigned *part, unsigned *storm)
{
	if (*storm > 0) {
		(*storm)--;
		return 150;
	}
	if (l->storms != 0 && below(l->storms) == 0)
		*storm = 200 + below(1000);
	if (t % 200 == 0)
		*part = 1000 - (l->noise == 0 ? 0 : below(l->noise * 10));
	return *part;
}

/* Clients, copies, or both, for @ms; chunks a second of each. */
static void
run(const struct load *l, unsigned ms, bool clients, bool copies, unsigned did[2])
{
	struct job jobs[JOBS] = { { 0 } };
	unsigned in[2] = { 0 }, part = 1000, storm = 0, n[2] = { 0 };
	uint64_t asked = 0, again_ns = 0;

	for (unsigned t = 0; t < ms; t++, now_ms++) {
		struct chunk_pace_at begun = at(now_ms), ended = at(now_ms + 1);

		while (clients && in[1] < l->depth && (l->wanted == 0 ||
		    asked * 1000 < (uint64_t)l->wanted * t)) {
			job_start(jobs, true, 1000000 / l->client_s);
			in[1]++;
			asked++;
			chunk_pace_fore_begin(&P, &begun);
		}
		while (copies && in[0] < COPIES && begun.now_ns >= again_ns) {
			again_ns = chunk_pace_wait(&P, &begun, CHUNK);
			if (again_ns != 0) {
				ck_assert_uint_gt(again_ns, begun.now_ns);
				break;
			}
			job_start(jobs, false, 1000000 / l->copy_s);
			in[0]++;
		}
		under_way = under_way < in[0] ? in[0] : under_way;
		work(jobs, given(l, t, &part, &storm), l->lag);
		for (struct job *j = jobs; j < jobs + JOBS; j++) {
			if (!j->used || j->left > 0 || j->end_ms > now_ms + 1)
				continue;
			j->used = false;
			in[j->client]--;
			n[j->client]++;
			if (j->client)
				chunk_pace_fore_end(&P, &ended, CHUNK);
			else
				chunk_pace_end(&P, &ended, CHUNK);
		}
		ck_assert_uint_eq(P.copy_bytes, (uint64_t)in[0] * CHUNK);
		ck_assert_uint_eq(P.fore_n, in[1]);
	}
	for (struct job *j = jobs; j < jobs + JOBS; j++) {
		struct chunk_pace_at ended = at(now_ms);

		if (j->used && j->client)
			chunk_pace_fore_end(&P, &ended, 0);
		else if (j->used)
			chunk_pace_end(&P, &ended, CHUNK);
	}
	for (unsigned i = 0; i < 2; i++)
		did[i] += (unsigned)((uint64_t)n[i] * 1000 / ms);
}

/* ---- what is left is used ---- */

static const struct load loads[] = {
	{ "all there is",		200, 200, 16, 0,   1,   0,  0,    0, 80 },
	{ "all, uneven",		200, 200, 16, 0,   20,  70, 0,    5, 65 },
	{ "all, requests cost little",	500, 180, 16, 0,   1,   0,  0,    0, 80 },
	{ "all, copies take long",	200, 180, 16, 0,   250, 30, 0,    5, 70 },
	{ "all, one at a time",		200, 200, 1,  0,   1,   30, 0,    0, 80 },
	{ "all, stalls",		200, 200, 16, 0,   30,  30, 2500, 10, 65 },
	{ "half",			200, 200, 16, 100, 1,   0,  0,    4, 75 },
	{ "half, uneven",		200, 200, 16, 100, 20,  50, 0,    8, 70 },
	{ "half, requests cost little", 500, 180, 16, 250, 1,   0,  0,    3, 70 },
	{ "half, copies cost little",	150, 300, 16, 75,  20,  50, 0,    8, 70 },
	{ "half, copies take long",	200, 180, 16, 100, 250, 30, 0,    8, 75 },
	{ "half, stalls",		200, 200, 16, 100, 30,  30, 2500, 20, 65 },
	{ "a quarter, uneven",		200, 200, 16, 50,  20,  70, 0,    8, 65 },
	{ "most of it",			200, 200, 16, 150, 20,  40, 0,    10, 70 },
};

START_TEST(beside)
{
	const struct load *l = &loads[_i * STEP];
	struct load all = *l;
	unsigned none[2] = { 0 }, limit[2] = { 0 }, full[2] = { 0 }, alone[2] = { 0 };
	unsigned with[2] = { 0 }, fair, left, loss, reached;

	all.wanted = 0;
	for (unsigned i = 0; i < RUNS; i++) {
		setup();
		now_ms += i * 313;
		luck = i * 7919 + 1;
		run(l, 4000, false, true, limit);
		run(&all, 12000, true, false, full);
		run(l, 12000, true, false, alone);
		memset(&P, 0, sizeof(P));
		run(l, 3000, true, false, none);
		run(l, 12000, true, true, with);
	}
	fair = full[1] * (100 - SHARE) / 100;
	fair = fair < alone[1] ? fair : alone[1];
	left = with[1] >= full[1] ? 0 :
	    (unsigned)((uint64_t)limit[0] * (full[1] - with[1]) / full[1]);
	loss = with[1] >= fair ? 0 : 100 - with[1] * 100 / fair;
	reached = left == 0 ? 100 : with[0] * 100 / left;
	if (getenv("SHOW") != NULL)
		fprintf(stderr, "%-27s full %3u with %3u loses %2u %%; left %3u copies %3u "
		    "%u %%\n", l->what, full[1] / RUNS, with[1] / RUNS, loss, left / RUNS,
		    with[0] / RUNS, reached);
	ck_assert_msg(loss <= l->loss, "%s: clients lose %u percent", l->what, loss);
	ck_assert_msg(reached >= l->reached, "%s: copies reach %u percent", l->what,
	    reached);
}
END_TEST

/* ---- one thing at a time ---- */

/* Clients that were held up catch up, in a LOOK of all times: copies go on as before. */
START_TEST(catching_up)
{
	static const struct load some = { "some", 200, 200, 16, 50, 1, 0, 0, 0, 0 };
	static const struct load burst = { "burst", 200, 200, 16, 200, 1, 0, 0, 0, 0 };
	unsigned before[2] = { 0 }, none[2] = { 0 }, after[2] = { 0 };

	run(&some, 1000, true, false, none);
	run(&some, 6000, true, true, none);
	run(&some, (unsigned)(CYCLE_MS - now_ms % CYCLE_MS), true, true, none);
	run(&some, 500, true, false, none);
	run(&some, 2500, true, true, before);
	run(&burst, 500, true, true, none);
	run(&some, 2500, true, true, after);
	ck_assert_uint_gt(P.could_s, P.alone_s * 2);	/* it was seen */
	ck_assert_uint_ge(after[0], before[0] / 4 * 3);
	/* When it stays so it is no burst. */
	run(&burst, 6000, true, true, none);
	ck_assert_uint_gt(P.alone_s, (uint64_t)CHUNK * 150);
}
END_TEST

/* Without clients: as many under way as it takes, no more. */
static const struct {
	const char *what;
	unsigned copy_s, lag, least_s, most;
} alone_rows[] = {
	{ "quick",		100, 1,	  95,  48 },
	{ "slow",		20,  1,	  18,  16 },
	{ "takes long",		200, 150, 165, COPIES },
};

START_TEST(without_clients)
{
	const struct load l = { alone_rows[_i].what, 1, alone_rows[_i].copy_s, 1, 1,
	    alone_rows[_i].lag, 0, 0, 0, 0 };
	unsigned did[2] = { 0 };

	run(&l, 20000, false, true, did);
	ck_assert_msg(did[0] >= alone_rows[_i].least_s, "%s: %u", l.what, did[0]);
	ck_assert_msg(under_way <= alone_rows[_i].most, "%s: %u under way", l.what,
	    under_way);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("pace");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_loop_test(tc, beside, 0, (int)(sizeof(loads) / sizeof(loads[0])) / STEP);
	tcase_add_loop_test(tc, without_clients, 0,
	    (int)(sizeof(alone_rows) / sizeof(alone_rows[0])));
	tcase_add_test(tc, catching_up);
	tcase_set_timeout(tc, 60);
	return suite_run("pace", tc);
}
