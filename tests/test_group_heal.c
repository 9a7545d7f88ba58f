/* SPDX-License-Identifier: MIT */
/* test_group_heal.c - what members hold compared as of the same entry, and a table that differs
 * replaced by the leader's. */
#include "tests/group_rig.h"

#include "conf/crc32c.h"
#include "tests/suite.h"

#define ROW	"fzz"			/* of nobody's commands */

/* ---- marks ---- */

static struct group_req mark_req;
static int mark_rc;

static void
marked(struct group_req *r, int rc, const void *result, size_t len)
{
	(void)result;
	ck_assert(r == &mark_req);
	ck_assert_uint_eq(len, 0);
	mark_rc = rc;
}

/* A mark that was applied: its index. */
static uint64_t
mark(void)
{
	for (unsigned i = 0; i < 200; i++) {
		struct node *l = wait_leader();

		mark_rc = ERR_BUSY;
		if (group_mark(l->group, &mark_req, marked) == 0) {
			for (unsigned k = 0; k < 15 && propose(l) == 0; k++)
				;	/* what comes right behind it is not in it */
			for (unsigned k = 0; k < 100 && mark_rc == ERR_BUSY; k++)
				sim_clock_run(t.world, NS_PER_MS);
		}
		if (mark_rc == 0)
			return mark_req.index;
		sim_clock_run(t.world, 10 * NS_PER_MS);
	}
	ck_abort_msg("no mark");
}

static bool
is_frozen(void *ctx)
{
	struct table_image *m;

	return group_frozen(((struct node *)ctx)->group, mark_req.index, &m) != ERR_BUSY;
}

/* All but the group's own rows. */
static uint32_t
digest(struct node *n, uint64_t index)
{
	uint8_t key[TABLE_KEY_MAX] = { 1 };
	const void *k, *v;
	struct table_image *m;
	size_t len = 1, vn;
	uint32_t crc = 0;

	ck_assert(sim_clock_run_until(t.world, is_frozen, n, 10 * NS_PER_S));
	ck_assert_int_eq(group_frozen(n->group, index, &m), 0);
	while (table_image_seek(m, key, len, len > 1, &k, &len, &v, &vn) == 0) {
		crc = crc32c(crc, k, len);
		crc = crc32c(crc, v, vn);
		memcpy(key, k, len);
	}
	return crc;
}

static void
rot(struct node *n)
{
	ck_assert_int_eq(table_put(group_table(n->group), ROW, 3, "rotten", 6), 0);
}

static bool
heals_not(void *ctx)
{
	uint64_t pieces;

	return !group_heals(((struct node *)ctx)->group, &pieces);
}

static void
equal(void)
{
	uint64_t index = mark();
	uint32_t first;

	load(20);			/* is of no interest */
	first = digest(&t.nodes[0], index);
	for (unsigned i = 1; i < 3; i++)
		ck_assert_uint_eq(digest(&t.nodes[i], index), first);
}

/* The same rows at the same entry, whatever each does meanwhile. */
START_TEST(frozen_alike)
{
	struct table_image *m;
	uint64_t index;

	form(3);
	if (_i > 0)			/* a table that takes its time */
		sim_box_conf(t.nodes[_i].box)->table.write_max_ns =
		    sim_box_conf(t.nodes[_i].box)->table.write_min_ns = 60 * NS_PER_MS;
	for (unsigned i = 0; i < 5; i++) {
		load(100);
		equal();
	}
	index = mark();
	(void)digest(&t.nodes[1], index);
	ck_assert_int_eq(group_frozen(t.nodes[1].group, index - 1, &m), -ESTALE);
	ck_assert_int_eq(group_frozen(t.nodes[1].group, index + 1000, &m), ERR_BUSY);
	sim_clock_run(t.world, 70 * NS_PER_S);
	ck_assert_int_eq(group_frozen(t.nodes[1].group, index, &m), -ESTALE);
}
END_TEST

/* A follower, or the leader. */
START_TEST(healed)
{
	struct node *n;
	uint64_t index, pieces;

	form(3);
	load(300);
	n = wait_leader();
	if (_i == 0)
		n = &t.nodes[n == &t.nodes[0] ? 1 : 0];
	rot(n);
	load(20);
	index = mark();
	for (unsigned i = 0; i < 3; i++)
		ck_assert((digest(&t.nodes[i], index) ==
		    digest(&t.nodes[(n->i + 1) % 3], index)) == (i != n->i));
	ck_assert_int_eq(group_heal(n->group), 0);
	ck_assert_int_eq(group_heal(n->group), 0);
	ck_assert(group_heals(n->group, &pieces));
	load(50);
	ck_assert(leading() != n || n->restores > 0);
	ck_assert(sim_clock_run_until(t.world, heals_not, n, 20 * NS_PER_S));
	sim_clock_run(t.world, NS_PER_MS);
	ck_assert_uint_eq(n->restores, 1);
	ck_assert_uint_gt(group_taken(n->group), 0);
	load(50);
	check_level();
	equal();
	down(n->i, CRASH);
	up(n->i, GROUP_JOIN);
	load(20);
	check_level();
	equal();
}
END_TEST

/* It dies while it is healed: before anything has come it is as it was. */
START_TEST(broken_off)
{
	struct node *n = &t.nodes[2];

	form(3);
	load(500);
	sim_box_conf(n->box)->table.write_max_ns =
	    sim_box_conf(n->box)->table.write_min_ns = 30 * NS_PER_MS;
	for (unsigned k = 0; k < 4; k++) {
		rot(n);
		load(20);
		if (leading() == n)
			ck_assert_int_eq(group_transfer(n->group), 0);
		ck_assert_int_eq(group_heal(n->group), 0);
		sim_clock_run(t.world, (1 + 40 * (unsigned)_i * k) * NS_PER_MS);
		down(2, k % 2 == 0 ? CRASH : KILL);
		load(20);
		up(2, GROUP_JOIN);
		load(20);
		check_level();
	}
	while (group_heal(n->group) == ERR_BUSY)
		sim_clock_run(t.world, NS_PER_MS);
	ck_assert(sim_clock_run_until(t.world, heals_not, n, 20 * NS_PER_S));
	load(20);
	check_level();
	equal();
}
END_TEST

/* When all say it of themselves nobody leads, and nothing is lost. */
START_TEST(all_of_them)
{
	form(3);
	load(300);
	check_level();
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(group_heal(t.nodes[i].group), 0);
	sim_clock_run(t.world, 8 * NS_PER_S);
	ck_assert(leading() == NULL);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_uint_eq(t.nodes[i].restores, 0);
		down(i, KILL);
	}
	for (unsigned i = 0; i < 3; i++)
		up(i, GROUP_JOIN);
	load(20);
	check_level();
	equal();
}
END_TEST

/* What it had acknowledged counts while it knows nothing: nobody leads who lacks it. */
START_TEST(remembers)
{
	form(3);
	load(100);
	while (leading() != &t.nodes[0]) {
		(void)group_transfer(wait_leader()->group);
		sim_clock_run(t.world, 100 * NS_PER_MS);
	}
	down(2, KILL);
	load(100);			/* by 0 and 1 */
	ck_assert_int_eq(group_heal(t.nodes[1].group), 0);
	down(0, KILL);
	up(2, GROUP_JOIN);
	sim_clock_run(t.world, 10 * NS_PER_S);
	ck_assert(leading() == NULL);
	up(0, GROUP_JOIN);
	load(20);
	ck_assert(sim_clock_run_until(t.world, heals_not, &t.nodes[1], 20 * NS_PER_S));
	check_level();
}
END_TEST

static void
was_read(struct group_req *r, int rc, const void *result, size_t len)
{
	(void)r;
	(void)result;
	(void)len;
	mark_rc = rc;
}

/* What is known to be damaged is not read, although the lease holds. */
START_TEST(not_read)
{
	struct group_req r;
	struct node *n;

	form(3);
	load(20);
	n = wait_leader();
	ck_assert(group_lease(n->group));
	mark_rc = ERR_BUSY;
	ck_assert_int_eq(group_read(n->group, &r, was_read), 0);
	ck_assert_int_eq(group_heal(n->group), 0);
	ck_assert(sim_clock_run_until(t.world, heals_not, n, 20 * NS_PER_S));
	ck_assert_int_eq(mark_rc, ERR_NOT_LEADER);
}
END_TEST

START_TEST(alone)
{
	form(1);
	load(10);
	ck_assert_int_eq(group_heal(t.nodes[0].group), -EINVAL);
	load(10);
	check_level();
}
END_TEST

int
main(void)
{
	TCase *t0 = tcase_create("heal");

	tcase_set_timeout(t0, 120);
	tcase_add_checked_fixture(t0, setup, teardown);
	tcase_add_loop_test(t0, frozen_alike, 0, 3);
	tcase_add_loop_test(t0, healed, 0, 2);
	tcase_add_loop_test(t0, broken_off, 0, 3);
	tcase_add_test(t0, all_of_them);
	tcase_add_test(t0, remembers);
	tcase_add_test(t0, not_read);
	tcase_add_test(t0, alone);
	return suite_run("group_heal", t0);
}
