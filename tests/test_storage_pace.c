/* SPDX-License-Identifier: MIT */
/* test_storage_pace.c - what copies get beside clients. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "roles/storage_impl.h"
#include "tests/sim/clock.h"
#include "tests/suite.h"

#define CHUNK	(1u << 20)
#define MIB_S	100u		/* what the disk can do */

static struct sim_clock *world;
static struct storage_worker *W;
static struct role_env env;
static struct conf conf;
static uint64_t copied;

static void
setup(void)
{
	char err[CONF_ERR_MAX];

	world = sim_clock_open();
	W = calloc(1, sizeof(*W));
	memset(&env, 0, sizeof(env));
	ck_assert_int_eq(conf_init(&conf), 0);
	ck_assert_int_eq(conf_set(&conf, "storage.sync_share", "25%", err), 0);
	env.conf = &conf;
	env.clock = W->clock = sim_clock_node(world, 0, 0);
	W->env = &env;
	copied = 0;
}

static void
teardown(void)
{
	free(W);
	conf_fini(&conf);
	sim_clock_close(world);
}

/* One disk, which does @client requests of CHUNK bytes in every 100 ms, back to back, and
 * copies in between when it may; for @ms. */
static void
work(unsigned client, unsigned ms)
{
	const uint64_t each = (uint64_t)CHUNK * NS_PER_S / (MIB_S << 20);
	uint64_t end = clock_now(W->clock) + ms * NS_PER_MS;

	while (clock_now(W->clock) < end) {
		uint64_t window = clock_now(W->clock) + 100 * NS_PER_MS;

		for (unsigned i = 0; i < client; i++) {
			storage_fore_begin(W);
			/* It waits behind a copy, now and then. */
			if (storage_pace_wait(W, CHUNK) == 0) {
				copied += CHUNK;
				sim_clock_run(world, each);
				storage_pace_end(W, CHUNK);
			}
			sim_clock_run(world, each);
			storage_fore_end(W, CHUNK);
		}
		while (clock_now(W->clock) < window) {
			uint64_t at = storage_pace_wait(W, CHUNK);

			if (at == 0) {
				copied += CHUNK;
				sim_clock_run(world, each);
				storage_pace_end(W, CHUNK);
			} else {
				ck_assert_uint_gt(at, clock_now(W->clock));
				if (at > window)
					at = window;
				sim_clock_run(world, at - clock_now(W->clock));
			}
		}
	}
}

/* Part of what the disk can do, in percent, over @ms. */
static unsigned
share(unsigned client, unsigned ms)
{
	uint64_t was = copied;

	work(client, ms);
	return (unsigned)((copied - was) * 100 / ((uint64_t)MIB_S * (1u << 20) / 1000 *
	    ms));
}

static const struct {
	const char *what;
	unsigned client;		/* requests in 100 ms; the disk can do 10 */
	unsigned least, most;		/* part that copies get, percent */
} rows[] = {
	{ "no client",		0, 95, 101 },
	{ "a trickle",		1, 60, 92 },
	{ "half of it",		5, 25, 52 },
	{ "all that there is",	10, 18, 34 },
};

START_TEST(shares)
{
	unsigned got;

	work(0, 1000);			/* it has seen what the disk can do */
	work(rows[_i].client, 1000);
	got = share(rows[_i].client, 4000);
	ck_assert_msg(got >= rows[_i].least && got <= rows[_i].most, "%s: %u percent",
	    rows[_i].what, got);
}
END_TEST

/* Clients come: within a second they have what is theirs.  They go: so have copies. */
START_TEST(ramps)
{
	work(0, 2000);
	work(10, 1000);
	ck_assert_uint_le(share(10, 1000), 34);
	work(0, 500);
	ck_assert_uint_ge(share(0, 500), 95);
}
END_TEST

/* A worker that has never had time for copies still makes some. */
START_TEST(begins_busy)
{
	work(10, 2000);
	ck_assert_uint_ge(share(10, 2000), 10);
}
END_TEST

/* ---- many requests in flight ---- */

#define JOBS	64u
#define COPIES	16u
#define CLIENTS	16u

struct flight {
	bool	 used, client;
	uint64_t end_ms;		/* after its service; 0: it is in the queue */
};

/* A disk that does MIB_S in the order of asking, and each request takes @lag ms besides.
 * Clients have at most CLIENTS under way: all the time, or @wanted MiB a second of them, what
 * they did not get in time later.  Over @ms: MiB of clients and of copies. */
static void
many(unsigned wanted, unsigned lag, unsigned ms, unsigned *clients, unsigned *copies)
{
	struct flight f[JOBS] = { { 0 } };
	unsigned queue[JOBS], queue_n = 0, in[2] = { 0 };
	uint64_t asked = 0, served = 0, again = 0, start = clock_now(W->clock);

	*clients = *copies = 0;
	for (unsigned t = 1; t <= ms; t++) {
		uint64_t now = clock_now(W->clock);

		for (unsigned i = 0; i < JOBS; i++) {
			if (!f[i].used || f[i].end_ms == 0 || f[i].end_ms > t)
				continue;
			f[i].used = false;
			in[f[i].client]--;
			(*(f[i].client ? clients : copies))++;
			if (f[i].client)
				storage_fore_end(W, CHUNK);
			else
				storage_pace_end(W, CHUNK);
		}
		while (queue_n < JOBS && in[1] < CLIENTS && (wanted == 0 ||
		    asked * 1000 < (uint64_t)wanted * t)) {
			unsigned i = 0;

			while (f[i].used)
				i++;
			f[i] = (struct flight){ true, true, 0 };
			queue[queue_n++] = i;
			in[1]++;
			asked++;
			storage_fore_begin(W);
		}
		while (in[0] < COPIES && now >= again) {
			unsigned i = 0;

			if ((again = storage_pace_wait(W, CHUNK)) != 0)
				break;
			while (f[i].used)
				i++;
			f[i] = (struct flight){ true, false, 0 };
			queue[queue_n++] = i;
			in[0]++;
		}
		served = queue_n == 0 ? 0 : served + MIB_S;
		if (served >= 1000) {
			served -= 1000;
			f[queue[0]].end_ms = t + lag;
			memmove(queue, queue + 1, --queue_n * sizeof(queue[0]));
		}
		sim_clock_run(world, NS_PER_MS);
	}
	ck_assert_uint_eq((clock_now(W->clock) - start) / NS_PER_MS, ms);
	for (unsigned i = 0; i < JOBS; i++) {
		if (f[i].used && f[i].client)
			storage_fore_end(W, 0);
		else if (f[i].used)
			storage_pace_end(W, CHUNK);
	}
}

/* sync_share is 25 %. */
static const struct {
	const char *what;
	unsigned wanted, lag;
	unsigned clients_min, copies_min;	/* MiB a second */
} loads[] = {
	{ "all there is, at once",	0, 1,	72, 12 },
	{ "all there is",		0, 60,	72, 12 },
	{ "half of it",			50, 1,	48, 28 },
	{ "half of it, slow requests",	50, 100, 48, 25 },
	{ "half of it, very slow ones",	50, 200, 45, 20 },
	{ "a little",			10, 20,	9,  55 },
	{ "a little, slow requests",	10, 150, 9, 45 },
};

START_TEST(beside)
{
	unsigned clients, copies;

	work(0, 1000);
	many(loads[_i].wanted, loads[_i].lag, 6000, &clients, &copies);
	many(loads[_i].wanted, loads[_i].lag, 20000, &clients, &copies);
	if (getenv("SHOW") != NULL)
		fprintf(stderr, "%s: %u %u\n", loads[_i].what, clients / 20, copies / 20);
	ck_assert_msg(clients >= 20 * loads[_i].clients_min, "%s: clients %u of %u",
	    loads[_i].what, clients / 20, loads[_i].clients_min);
	ck_assert_msg(copies >= 20 * loads[_i].copies_min, "%s: copies %u of %u",
	    loads[_i].what, copies / 20, loads[_i].copies_min);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("pace");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, shares, 0, (int)(sizeof(rows) / sizeof(rows[0])));
	tcase_add_loop_test(tc, beside, 0, (int)(sizeof(loads) / sizeof(loads[0])));
	tcase_add_test(tc, ramps);
	tcase_add_test(tc, begins_busy);
	return suite_run("storage_pace", tc);
}
