/* SPDX-License-Identifier: MIT */
/* test_check_ways.c - how fsd check tells what it finds, and how it ends when somebody does not
 * go along, against servers that answer by script. */
#include "tests/check_rig.h"
#include "tests/suite.h"

START_TEST(as_json)
{
	arrange(DIGEST);
	check_run(LOOK, true);
	ck_assert_msg(strncmp(T.out, "{\"fault\": \"chain ", 17) == 0, "%s", T.out);
	ck_assert_ptr_nonnull(strstr(T.out, "{\"inodes\": 5, \"chunks\": 27, "
	    "\"faults\": 1, \"mended\": 0}\n"));
}
END_TEST

START_TEST(repairs_as_json)
{
	arrange(NLINK);
	T.chunks[0].check[1]++;
	T.chunks[0].damaged[1] = true;
	T.mend_rc = -ESTALE;
	check_run(REPAIR, true);
	ck_assert_int_eq(T.rc, -EUCLEAN);
	ck_assert_msg(strstr(T.out, "{\"repair\": 1, \"does\": \"chain ") != NULL &&
	    strstr(T.out, "{\"repair\": 1, \"result\": \"not done\", \"why\": \"it has "
	    "changed meanwhile\"}\n{\"repair\": 2, \"does\": \"set nlink of 3 to 1\"}\n"
	    "{\"repair\": 2, \"result\": \"done\"}\n{\"inodes\": 5, \"chunks\": 27, "
	    "\"faults\": 2, \"mended\": 1}\n") != NULL, "%s", T.out);
}
END_TEST

/* It ends before all was looked at, or mended; that is told, and not waited for without end. */
static const struct {
	const char *what;
	enum may    may;
	bool	    mute, repeats;
	int	    repair_rc, rc;
	const char *says;
} ends[] = {
	{ "metadata refuses", REPAIR, false, false, ERR_BAD_METHOD, ERR_BAD_METHOD,
	  "repair 1: set nlink" },
	{ "metadata does not answer", LOOK, true, false, 0, ERR_NOT_LEADER, "" },
	{ "nor when it is to mend", REPAIR, false, false, ERR_NOT_LEADER, ERR_NOT_LEADER,
	  "repair 1: set nlink" },
	{ "a page comes again and again", LOOK, false, true, 0, ERR_BAD_MESSAGE, "" },
};

START_TEST(ends_early)
{
	arrange(NLINK);
	T.mute = ends[_i].mute;
	T.repeats = ends[_i].repeats;
	T.repair_rc = ends[_i].repair_rc;
	check_run(ends[_i].may, false);
	ck_assert_msg(T.rc == ends[_i].rc && strstr(T.out, ends[_i].says) != NULL &&
	    strstr(T.out, "repair 1: done") == NULL, "%s: %s\n%s", ends[_i].what,
	    err_name(T.rc), T.out);
}
END_TEST

/* The replicas go away while chunks are removed: that one is told as not done, and what comes
 * after it as ever. */
START_TEST(removal_broken_off)
{
	struct chunk *other;

	add(T.files[0] - 1, 0, false)->chain = 1;	/* a directory */
	other = add(T.files[0], 0, false);
	for (uint32_t i = 1; other->chain != 2; i++)
		other = add(T.files[0], i, false);
	other->check[1]++;
	T.breaks = true;
	check_run(DISCARD, false);
	ck_assert_int_eq(T.rc, -EUCLEAN);
	ck_assert_uint_eq(T.cuts, 1);
	ck_assert_uint_eq(T.mends, 1);
	ck_assert_msg(strstr(T.out, "repair 1: not done: ") != NULL &&
	    strstr(T.out, "fault: chain 2 ") != NULL &&
	    strstr(T.out, "repair 2: done\n") != NULL &&
	    strstr(T.out, ": 2 faults, 1 mended\n") != NULL, "%s", T.out);
}
END_TEST

/* A name may be anything. */
START_TEST(odd_name)
{
	struct msg_str name = msg_str("x\nfault: \x1b[2J\xff");

	arrange(CLEAN);
	ck_assert_int_eq(dirent_put(T.h.t, 1, &name, 900, S_IFDIR), 0);
	check_run(LOOK, _i == 1);
	ck_assert_msg(strstr(T.out, _i == 0 ? "entry x\\x0afault: \\x1b[2J\\xff of 1 " :
	    "entry x\\\\x0afault: \\\\x1b[2J\\\\xff of 1 ") != NULL, "%s", T.out);
}
END_TEST

/* Another check reads, for longer than it would wait for one that does not answer. */
START_TEST(another_reads)
{
	const char *says = "note: another fsd check reads the tables of metadata: waits\n", *at;

	arrange(NLINK);
	T.others = 500;
	check_run(REPAIR, false);
	ck_assert_int_eq(T.rc, 0);
	ck_assert_uint_eq(T.others, 0);
	ck_assert_msg((at = strstr(T.out, says)) != NULL && strstr(at + 1, says) == NULL &&
	    strstr(T.out, "repair 1: done\n") != NULL, "%s", T.out);
}
END_TEST

/* Closing at any time. */
START_TEST(closed)
{
	struct check_conf cc;

	conf(&cc, REPAIR, false);
	arrange(_i == 0 ? CLEAN : _i == 1 ? NLINK : ALL_DIFFER);
	for (unsigned steps = 0; !T.done; steps++) {
		T.read = 0;
		ck_assert_int_eq(check_open(&T.check, &cc, done, NULL), 0);
		for (unsigned i = 0; i < steps && !T.done; i++)
			sim_clock_step(T.rig.world);
		check_close(T.check);
		if (!T.done) {
			sim_clock_run(T.rig.world, NS_PER_S / 10);
			ck_assert(!T.done);
		}
	}
	fclose(cc.to);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("scripted");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, as_json);
	tcase_add_test(tc, repairs_as_json);
	tcase_add_loop_test(tc, ends_early, 0, sizeof(ends) / sizeof(ends[0]));
	tcase_add_test(tc, removal_broken_off);
	tcase_add_loop_test(tc, odd_name, 0, 2);
	tcase_add_test(tc, another_reads);
	tcase_add_loop_test(tc, closed, 0, 3);
	return suite_run("check_ways", tc);
}
