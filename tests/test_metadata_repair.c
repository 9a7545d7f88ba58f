/* SPDX-License-Identifier: MIT */
/* test_metadata_repair.c - fsd check --repair against a group of metadata nodes whose tables
 * were damaged alike, while clients change the tree and nodes die: in the end nothing is
 * wrong, all members hold the same, and clients have noticed nothing.  N=n runs n seeds,
 * SEED=n just that one. */
#include "tests/metadata_check.h"
#include "tests/metadata_load.h"

/* ---- damage ---- */

static void
make(uint16_t method, ino_id dir, const char *name, uint32_t mode)
{
	struct msg_mknod q = { ctx(0, true), dir, msg_str(name), mode, 0 };

	ck_assert_int_eq(insist(method, &q)->rc, 0);
}

/* The same rows on all members, and durable there. */
static void
damage(void)
{
	ino_id a, b, f;

	make(MSG_mkdir, INO_ROOT, "a", 0755);
	a = ino_of(INO_ROOT, "a");
	make(MSG_mkdir, a, "b", 0755);
	make(MSG_mkdir, a, "c", 0755);
	make(MSG_mknod, a, "f", S_IFIFO | 0644);
	b = ino_of(a, "b");
	f = ino_of(a, "f");
	make(MSG_mkdir, b, "kept", 0755);
	run_ms(2000);
	all_equal();
	for (unsigned id = META; id < META + 3; id++) {
		struct table *tab = table_of(id);
		struct msg_str b_name = msg_str("b"), c_name = msg_str("c"),
		    x_name = msg_str("x");
		struct inode in;

		dirent_del(tab, a, &b_name);
		dirent_put(tab, a, &c_name, 900, S_IFDIR);
		dirent_put(tab, INO_ROOT, &x_name, 901, S_IFDIR);
		ck_assert_int_eq(inode_get(tab, f, &in), 0);
		in.nlink = 7;
		inode_put(tab, &in);
		ck_assert_int_eq(inode_get(tab, INO_ROOT, &in), 0);
		in.size += 5;
		in.nlink += 3;
		inode_put(tab, &in);
	}
	make(MSG_mkdir, INO_ROOT, "later", 0755);	/* it goes with that */
	run_ms(2000);
}

/* ---- the check ---- */

static void
check_run(void)
{
	check_begin(true);
	while (!C.done) {
		run_ms(20 + rand_below(&t.rand, 300));
		if (rand_below(&t.rand, 3) == 0)
			fault();
	}
	check_end();
}

static void
heal(void)
{
	sim_net_heal(t.net);
	for (unsigned i = META; i < META + 3; i++) {
		if (t.hosts[i].paused)
			pause_host(i, false);
		if (!t.hosts[i].up)
			boot(i);
	}
	run_ms(5000);
}

static void
run_repair(uint64_t seed)
{
	struct msg_str name;
	char text[32];
	ino_id lost;

	setup_seed(seed);
	die(STORAGE);			/* no chains: this is about metadata */
	begin();
	damage();
	lost = 0;
	loads_start();
	/* A check gives up when nobody answers for a minute. */
	for (unsigned i = 0; i < 20; i++) {
		check_run();
		if (C.rc == 0)
			break;
		heal();
	}
	ck_assert_int_eq(C.rc, 0);
	heal();
	loads_stop();
	run_ms(2000);
	all_equal();
	lost = ino_of(INO_ROOT, "lost+found");
	snprintf(text, sizeof(text), "#%llu", (unsigned long long)
	    (ino_of(INO_ROOT, "a") + 1));
	name = msg_str(text);
	ck_assert_int_eq(dirent_get(table_of(leader(5000)), lost, &name,
	    &(struct entry){ 0 }), 0);
	(void)ino_of(ino_of(lost, text), "kept");
}

static void
nothing(void)
{
}

START_TEST(any_damage)
{
	const char *seed = getenv("SEED");

	run_repair(seed != NULL && *seed != '\0' ? strtoull(seed, NULL, 0) :
	    (uint64_t)_i + 1);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("metadata_repair");
	TCase *tc = tcase_create("random");
	const char *n = getenv("N");
	int seeds = n != NULL && *n != '\0' ? atoi(n) : 40;
	SRunner *sr;
	int failed;

	if (getenv("SEED") != NULL && *getenv("SEED") != '\0')
		seeds = 1;
	tcase_set_timeout(tc, 0);
	tcase_add_checked_fixture(tc, nothing, teardown);
	tcase_add_loop_test(tc, any_damage, 0, seeds);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
