/* SPDX-License-Identifier: MIT */
/* suite.h - how a test program ends: `return suite_run("name", t);`. */
#ifndef TESTS_SUITE_H
#define TESTS_SUITE_H

#include <check.h>
#include <stdarg.h>

/* Run @first and the test cases behind it, up to NULL, in this process; the exit status. */
static inline int
suite_run_all(const char *name, TCase *first, ...)
{
	Suite *suite = suite_create(name);
	SRunner *runner;
	va_list more;
	int failed;

	va_start(more, first);
	for (TCase *each = first; each != NULL; each = va_arg(more, TCase *))
		suite_add_tcase(suite, each);
	va_end(more);
	runner = srunner_create(suite);
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

static inline int
suite_run(const char *name, TCase *only)
{
	return suite_run_all(name, only, NULL);
}

#endif
