/* SPDX-License-Identifier: MIT */
/* suite.h - how a test program with one case ends: `return suite_run("name", t);`. */
#ifndef TESTS_SUITE_H
#define TESTS_SUITE_H

#include <check.h>

/* Run all of @tcase in this process; the exit status. */
static inline int
suite_run(const char *name, TCase *tcase)
{
	Suite *s = suite_create(name);
	SRunner *sr;
	int failed;

	suite_add_tcase(s, tcase);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}

#endif
