/* SPDX-License-Identifier: MIT */
/* test_role.c - the id file of a role, over a directory that is a variable. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "roles/role.h"
#include "tests/suite.h"

static struct {
	bool	there;
	uint8_t bytes[16];
	int	rc;
} file;
static uint8_t next_random;

static void
fake_random(void *ctx, void *out, size_t n)
{
	(void)ctx;
	memset(out, next_random++, n);
}

static int
fake_blob(struct disk_dir *d, const char *name, void *buf, size_t len, bool create)
{
	(void)d;
	ck_assert_str_eq(name, "node");
	ck_assert_uint_eq(len, 16);
	ck_assert(create);
	if (file.rc != 0)
		return file.rc;
	if (file.there)
		memcpy(buf, file.bytes, len);
	else
		memcpy(file.bytes, buf, len);
	file.there = true;
	return 0;
}

START_TEST(uid_file)
{
	static const struct disk_dir_ops ops = { .blob = fake_blob };
	struct disk_dir dir = { &ops };
	struct role_env env = { .random = fake_random };
	struct uid128 first, second, kept;

	next_random = 5;
	ck_assert_int_eq(role_uid_file(&env, &dir, "node", &first), 0);
	ck_assert_uint_eq(first.b[15], 5);
	ck_assert_int_eq(role_uid_file(&env, &dir, "node", &second), 0);
	ck_assert(uid128_eq(&first, &second));
	kept = second;
	memset(file.bytes, 0, sizeof(file.bytes));
	ck_assert_int_eq(role_uid_file(&env, &dir, "node", &second), -EIO);
	file.rc = -ENOSPC;
	ck_assert_int_eq(role_uid_file(&env, &dir, "node", &second), -ENOSPC);
	ck_assert(uid128_eq(&kept, &second));	/* untouched by failures */
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("all");

	tcase_add_test(t, uid_file);
	return suite_run("role", t);
}
