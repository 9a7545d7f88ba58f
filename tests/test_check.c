/* SPDX-License-Identifier: MIT */
/* test_check.c - what fsd check finds and mends, against servers that answer by script. */
#include "tests/check_rig.h"
#include "tests/suite.h"

static const struct {
	const char *what;
	enum what   how;
	enum may    may;
	int	    rc;
	unsigned    faults;		/* of chunks */
	const char *says;		/* in the output */
	unsigned    mends, repairs;	/* requests */
} cases[] = {
	{ "all is well", CLEAN, LOOK, 0, 0, " 0 faults, 0 mended", 0, 0 },
	{ "a replica has other bytes", DIGEST, LOOK, -EUCLEAN, 1, "replicas differ", 0, 0 },
	{ "two agree against it", DIGEST, REPAIR, 0, 1, " 1 mended", 1, 0 },
	{ "one is damaged", DAMAGED, REPAIR, 0, 1, "which is damaged", 1, 0 },
	{ "it is refused", NOT_MENDED, REPAIR, -EUCLEAN, 1, "not done: ", 1, 0 },
	{ "two are left, one is damaged", PAIR_DAMAGED, REPAIR, 0, 1, " 1 mended", 2, 0 },
	{ "two sound ones, the third is damaged", PAIR, REPAIR, -EUCLEAN, 1,
	  "nothing tells", 0, 0 },
	{ "the tail is right", PAIR, TAIL, 0, 1, " 1 mended", 2, 0 },
	{ "the first is right", PAIR, FIRST, 0, 1, " 1 mended", 2, 0 },
	{ "the preferred one is damaged", PAIR_DAMAGED, FIRST, 0, 1, " 1 mended", 2, 0 },
	{ "none is whole", NONE_WHOLE, TAIL, -EUCLEAN, 1, "no replica is whole", 0, 0 },
	{ "a replica that lacks one is mended", LACKS, REPAIR, 0, 1, " 1 mended", 0, 0 },
	{ "nobody knows who is right", ALL_DIFFER, REPAIR, -EUCLEAN, 1, " 0 mended", 0, 0 },
	{ "but the operator", ALL_DIFFER, TAIL, 0, 1, " 1 mended", 2, 0 },
	{ "too few others serve", REFUSED, REPAIR, -EUCLEAN, 1, "not done: ", 0, 0 },
	{ "a replica lacks a chunk", LACKS, LOOK, -EUCLEAN, 1, "replicas differ", 0, 0 },
	{ "a replica has another version", VERSIONS, LOOK, -EUCLEAN, 1,
	  "target 12: 4/0", 0, 0 },
	{ "a write was under way", PASSES, LOOK, 0, 0, " 0 faults", 0, 0 },
	{ "writes are under way all the time", BUSY, LOOK, 0, 0, " 0 faults", 0, 0 },
	{ "a version is left", PENDING, LOOK, -EUCLEAN, 1, "unsettled version", 0, 0 },
	{ "chunks of no inode", ORPHAN, LOOK, -EUCLEAN, 1, "no such inode", 0, 0 },
	{ "chunks of no inode are not removed", ORPHAN, REPAIR, -EUCLEAN, 1,
	  "no such inode", 0, 0 },
	{ "but when asked", ORPHAN, DISCARD, 0, 1, " 1 mended", 0, 0 },
	{ "a chunk on a wrong chain", MISPLACED, LOOK, -EUCLEAN, 1,
	  "on a wrong chain", 0, 0 },
	{ "made after the image", NEW, LOOK, 0, 0, " 0 faults", 0, 0 },
	{ "chains move meanwhile", MOVES, LOOK, 0, 0, " 0 faults", 0, 0 },
	{ "another leader in the middle", LEADER, LOOK, 0, 0, " 0 faults", 0, 0 },
	{ "the image is gone", STALE_IMAGE, LOOK, 0, 0, " 0 faults", 0, 0 },
	{ "an entry without inode", NO_INODE, LOOK, -EUCLEAN, 0, "metadata ", 0, 0 },
	{ "a damaged inode keeps its chunks", BAD_INODE, DISCARD, -EUCLEAN, 0,
	  "inode row", 0, 0 },
	{ "an entry without inode goes", NO_INODE, REPAIR, 0, 0,
	  "repair 2: done\n4 inodes, 0 chunks of replicas: 2 faults, 2 mended", 0, 1 },
	{ "there is data of it", NO_INODE_DATA, REPAIR, -EUCLEAN, 3,
	  "still: metadata 2: entry f1 of 1 leads to 4, which is not there", 0, 1 },
	{ "that goes with it", NO_INODE_DATA, DISCARD, 0, 2, "4 inodes, 27 chunks", 0,
	  1 },
	{ "a wrong number", NLINK, REPAIR, 0, 0, "repair 1: set nlink of 3 to 1\n"
	  "repair 1: done\n", 0, 1 },
	{ "the answer is lost", LOST, REPAIR, 0, 0, " 1 mended", 0, 3 },
	{ "more than one request takes", MANY, REPAIR, 0, 0, " 100 mended", 0, 2 },
};

START_TEST(finds)
{
	unsigned faults = 0;
	enum what how = cases[_i].how;
	enum may may = cases[_i].may;

	arrange(how);
	check_run(may, false);
	ck_assert_msg(T.rc == cases[_i].rc, "%s: %s\n%s", cases[_i].what,
	    err_name(T.rc), T.out);
	ck_assert_msg(strstr(T.out, cases[_i].says) != NULL, "%s:\n%s",
	    cases[_i].what, T.out);
	for (const char *p = T.out; (p = strstr(p, "fault: chain")) != NULL; p++)
		faults++;
	ck_assert_msg(faults == cases[_i].faults, "%s:\n%s", cases[_i].what, T.out);
	ck_assert_msg(T.mends == cases[_i].mends && T.repairs == cases[_i].repairs,
	    "%s: %u, %u\n%s", cases[_i].what, T.mends, T.repairs, T.out);
	ck_assert_uint_eq(T.cuts, may != DISCARD || how == BAD_INODE ? 0 :
	    how == ORPHAN ? 1 : 2);
	ck_assert_uint_eq(T.resynced, how == REFUSED ? 1 : how == LACKS &&
	    may == REPAIR ? 0 : REPLICAS);
	if (how == PAIR && cases[_i].mends > 0)
		ck_assert_uint_eq(T.mended_from, may == TAIL ? 2 : 0);
	if (how == PAIR_DAMAGED)
		ck_assert_uint_eq(T.mended_from, 2);
	if (how == LEADER || how == STALE_IMAGE)
		ck_assert_uint_eq(T.images, 1 + T.image - 77);
	else
		ck_assert_uint_eq(T.images, 1 + (T.repairs > 0));
	ck_assert_uint_eq(T.waits, T.repairs > 0 ? 3 : 0);
	if (may != LOOK && cases[_i].rc == 0)
		h_check(&T.h);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("scripted");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, finds, 0, sizeof(cases) / sizeof(cases[0]));
	return suite_run("check", tc);
}
