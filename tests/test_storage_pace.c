/* SPDX-License-Identifier: MIT */
/* test_storage_pace.c - what copies get beside clients. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "roles/storage_impl.h"
#include "tests/sim/clock.h"

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

int
main(void)
{
	Suite *s = suite_create("storage_pace");
	TCase *tc = tcase_create("pace");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, shares, 0, (int)(sizeof(rows) / sizeof(rows[0])));
	tcase_add_test(tc, ramps);
	tcase_add_test(tc, begins_busy);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
