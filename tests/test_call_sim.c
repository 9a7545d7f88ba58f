/* SPDX-License-Identifier: MIT */
/* test_call_sim.c - calls over the simulated network: faults that only it has. */
#include "tests/call_rig.h"

/* ---- only simulated ---- */

START_TEST(any_seed)
{
	const char *only = getenv("SEED"), *more = getenv("N");
	uint64_t first = only != NULL && *only != '\0' ? strtoull(only, NULL, 0) : 1;
	uint64_t n = more != NULL && *more != '\0' ? strtoull(more, NULL, 0) : 20;

	for (uint64_t i = 0; i < n; i++)
		run_seed((enum rig_kind)_i, first + i);
}
END_TEST

START_TEST(same_seed_same_trace)
{
	uint64_t trace = run_seed((enum rig_kind)_i, 77);

	ck_assert(run_seed((enum rig_kind)_i, 77) == trace);
	ck_assert(run_seed((enum rig_kind)_i, 78) != trace);
}
END_TEST

/* A cut that swallows: calls time out, the stream is given up soon after, and the first
 * call after healing does not wait for retransmissions. */
START_TEST(silent_cut)
{
	struct ask a = { .rc = 0 };
	uint64_t healed;

	open_served(RIG_SIM);
	check_alive();
	sim_net_cut(rig.net, 1, 2, SIM_NET_SILENT);
	ck_assert_int_eq(start_echo(&a, 1, 1, 500), 0);
	rig_until(&rig, &done, 2);
	ck_assert_int_eq(a.rc, -ETIMEDOUT);
	sim_clock_run(rig.world, 3 * NS_PER_S);
	ck_assert_uint_eq(net_hub_conns(rig.chub), 0);
	ck_assert_ptr_nonnull(strstr(rig.logged, "peer is silent"));
	sim_net_heal(rig.net);
	healed = sim_clock_now(rig.world);
	check_alive();
	ck_assert_uint_lt(sim_clock_now(rig.world) - healed, 500 * NS_PER_MS);
	close_rig();
}
END_TEST

/* Only answers are swallowed: the request is served, its caller cannot know. */
START_TEST(one_way_cut)
{
	struct ask a = { .rc = 0 };

	open_served(RIG_SIM);
	check_alive();
	sim_net_path(rig.net, 2, 1, SIM_NET_SILENT);
	ck_assert_int_eq(start_echo(&a, 1, 1, 500), 0);
	rig_until(&rig, &done, 2);
	ck_assert_int_eq(a.rc, -ETIMEDOUT);
	ck_assert_uint_eq(served, 2);
	sim_net_heal(rig.net);
	check_alive();
	close_rig();
}
END_TEST

/* Slow is not dead: the server answers pings while a handler thinks. */
START_TEST(slow_server_is_kept)
{
	struct ask a = { .rc = 0 }, b = { .rc = 0 };

	open_served(RIG_SIM);
	ck_assert_int_eq(start_hold(&a, 20000), 0);
	ck_assert_int_eq(start_hold(&b, 500), 0);
	rig_until(&rig, &done, 1);
	ck_assert_int_eq(b.rc, -ETIMEDOUT);
	sim_clock_run(rig.world, 10 * NS_PER_S);
	ck_assert_uint_eq(net_hub_conns(rig.chub), 1);
	ck_assert(net_call_active(&a.call));
	net_reply(held[0], -ENOENT, NULL, NULL, 0, NULL, NULL);
	net_req_drop(held[1]);
	rig_until(&rig, &done, 2);
	ck_assert_int_eq(a.rc, -ENOENT);
	close_rig();
}
END_TEST

START_TEST(host_vanishes)
{
	struct ask a = { .rc = 0 };

	open_served(RIG_SIM);
	ck_assert_int_eq(start_hold(&a, 60000), 0);
	rig_until(&rig, &held_n, 1);
	sim_net_host_down(rig.net, 2);
	net_req_drop(held[0]);
	net_server_close(rig.server);
	close_served();
	sim_clock_run(rig.world, 2 * NS_PER_S);
	ck_assert_uint_eq(done, 0);
	sim_clock_run(rig.world, NS_PER_S);
	ck_assert_uint_eq(done, 1);		/* it answers no ping */
	ck_assert_int_eq(a.rc, -ECONNRESET);
	ck_assert_int_eq(start_echo(&a, 1, 1, 300), 0);
	rig_until(&rig, &done, 2);
	ck_assert_int_eq(a.rc, -ETIMEDOUT);
	sim_net_host_up(rig.net, 2);
	rig.shub = rig_hub(&rig, rig.sclock, 2);
	rig_serve(&rig, handler, NULL);
	check_alive();
	close_rig();
}
END_TEST

/* A process that was killed says goodbye through its system: callers know at once. */
START_TEST(restart_under_load)
{
	struct ask a = { .rc = 0 };

	open_served(RIG_SIM);
	for (unsigned i = 0; i < 5; i++) {
		check_alive();
		net_server_close(rig.server);
		ck_assert_int_eq(start_echo(&a, 1, 1, 2000), 0);
		rig_until(&rig, &done, done + 1);
		ck_assert(a.rc == -ECONNRESET || a.rc == -ECONNREFUSED);
		rig_serve(&rig, handler, NULL);
	}
	check_alive();
	close_rig();
}
END_TEST

int
main(void)
{
	TCase *m = tcase_create("simulated");

	tcase_add_checked_fixture(m, setup, teardown);
	tcase_set_timeout(m, 120);
	tcase_add_test(m, silent_cut);
	tcase_add_test(m, one_way_cut);
	tcase_add_test(m, slow_server_is_kept);
	tcase_add_test(m, host_vanishes);
	tcase_add_test(m, restart_under_load);
	tcase_add_loop_test(m, same_seed_same_trace, RIG_SIM, RIG_SIM_ONE_SIDED + 1);
	tcase_add_loop_test(m, any_seed, RIG_SIM, RIG_SIM_ONE_SIDED + 1);
	return suite_run("call_sim", m);
}
