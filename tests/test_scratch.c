/* SPDX-License-Identifier: MIT */
/* test_scratch.c - what is taken stays as it was written, in memory and in the file. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "conf/scratch.h"
#include "tests/suite.h"

#define BLOCK	8192u
#define BLOCKS	3000u			/* six pieces */
#define MIB	(1u << 20)

START_TEST(stays)
{
	static uint8_t *at[BLOCKS];
	struct scratch *s;

	ck_assert_int_eq(scratch_open(&s, (uint64_t)_i * 4 * MIB), 0);
	for (unsigned i = 0; i < BLOCKS; i++) {
		at[i] = scratch_get(s, BLOCK - i % 32);
		ck_assert_ptr_nonnull(at[i]);
		ck_assert_uint_eq((uintptr_t)at[i] % 16, 0);
		memset(at[i], (int)(i % 251), BLOCK - i % 32);
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		for (unsigned k = 0; k < BLOCK - i % 32; k += 97)
			ck_assert_uint_eq(at[i][k], i % 251);
	ck_assert_uint_eq(scratch_file_bytes(s), (6 - (uint64_t)_i) * 4 * MIB);
	ck_assert_ptr_nonnull(scratch_get(s, 2 * MIB));
	scratch_close(s);
}
END_TEST

START_TEST(no_place)
{
	struct scratch *s;

	setenv("TMPDIR", "/nowhere", 1);
	ck_assert_int_eq(scratch_open(&s, 1), 0);
	for (unsigned i = 0; i < 4 * MIB / BLOCK; i++)
		ck_assert_ptr_nonnull(scratch_get(s, BLOCK));
	errno = 0;
	ck_assert_ptr_null(scratch_get(s, BLOCK));
	ck_assert_int_eq(errno, ENOENT);
	scratch_close(s);
	unsetenv("TMPDIR");
}
END_TEST

/* The file cannot grow; what was taken stays. */
START_TEST(no_space)
{
	struct rlimit was, few;
	struct scratch *s;
	uint8_t *p;

	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &was), 0);
	few = was;
	few.rlim_cur = 4 * MIB;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &few), 0);
	ck_assert_int_eq(scratch_open(&s, 0), 0);
	p = scratch_get(s, 3 * MIB);
	ck_assert_ptr_nonnull(p);
	memset(p, 1, 3 * MIB);
	for (unsigned i = 0; i < 3; i++) {
		errno = 0;
		ck_assert_ptr_null(scratch_get(s, 2 * MIB));
		ck_assert_int_eq(errno, EFBIG);
	}
	ck_assert_uint_eq(scratch_file_bytes(s), 4 * MIB);
	ck_assert_ptr_nonnull(scratch_get(s, MIB));
	ck_assert_uint_eq(p[3 * MIB - 1], 1);
	scratch_close(s);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &was), 0);
}
END_TEST

START_TEST(nothing)
{
	struct scratch *s;

	scratch_close(NULL);
	ck_assert_int_eq(scratch_open(&s, 0), 0);
	scratch_close(s);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("scratch");

	tcase_add_loop_test(tc, stays, 0, 4);
	tcase_add_test(tc, no_place);
	tcase_add_test(tc, no_space);
	tcase_add_test(tc, nothing);
	return suite_run("scratch", tc);
}
