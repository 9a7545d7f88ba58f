/* SPDX-License-Identifier: MIT */
/* test_process.c - one process a directory, and the key of the cluster. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/process.h"

static char root[64], path[96];

static void
setup(void)
{
	strcpy(root, "./fsd-test-process-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	snprintf(path, sizeof(path), "%s/lock", root);
}

static void
teardown(void)
{
	unlink(path);
	ck_assert_int_eq(rmdir(root), 0);
}

/* Whoever comes second is told who was first, and gets it once that one is gone. */
START_TEST(second_is_told)
{
	int a, b;
	long pid;

	ck_assert_int_eq(process_lock(path, 0, &a, &pid), 0);
	ck_assert_int_eq(process_lock(path, 0, &b, &pid), -EBUSY);
	ck_assert_int_eq(b, -1);
	ck_assert_int_eq(pid, getpid());
	close(a);
	ck_assert_int_eq(process_lock(path, 0, &b, &pid), 0);
	close(b);
}
END_TEST

/* A killed owner leaves its number, but not the lock. */
START_TEST(dead_owner)
{
	pid_t child = fork();
	int fd, status;
	long pid;

	if (child == 0)
		_exit(process_lock(path, 0, &fd, &pid) == 0 ? 0 : 1);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(process_lock(path, 0, &fd, &pid), 0);
	close(fd);
}
END_TEST

/* One that is just ending is waited for. */
START_TEST(ending_owner)
{
	int pipes[2], fd;
	char byte;
	long pid;
	pid_t child;

	ck_assert_int_eq(pipe(pipes), 0);
	if ((child = fork()) == 0) {
		int rc = process_lock(path, 0, &fd, &pid);

		if (write(pipes[1], "x", 1) != 1)
			rc = 1;
		usleep(100000);
		_exit(rc == 0 ? 0 : 1);
	}
	ck_assert_int_eq(read(pipes[0], &byte, 1), 1);
	ck_assert_int_eq(process_lock(path, 60000, &fd, &pid), 0);
	close(fd);
	close(pipes[0]);
	close(pipes[1]);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
}
END_TEST

/* Directories are made; the reason names the one it is about. */
START_TEST(own)
{
	static const uint8_t key[NET_KEY_BYTES];
	char dir[80], below[96], err[CONF_ERR_MAX];
	struct process *p;
	struct conf c;

	ck_assert_int_eq(conf_init(&c), 0);
	ck_assert_int_eq(process_open(&p, &c, key), 0);
	snprintf(dir, sizeof(dir), "%s/n/manager", root);
	ck_assert_int_eq(process_own(p, dir, err), 0);
	ck_assert_int_eq(process_own(p, "/proc/none/there", err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err, "/proc/none/there"));
	process_close(p);
	snprintf(below, sizeof(below), "%s/lock", dir);
	ck_assert_int_eq(unlink(below), 0);
	ck_assert_int_eq(rmdir(dir), 0);
	snprintf(dir, sizeof(dir), "%s/n", root);
	ck_assert_int_eq(rmdir(dir), 0);
	conf_fini(&c);
}
END_TEST

#define HEX16 "0123456789abcdef"

static const struct {
	const char *what, *text;
	mode_t	 mode;
	int	 rc;
} keys[] = {
	{ "a key", HEX16 HEX16 HEX16 HEX16 "\n", 0600, 0 },
	{ "without the end of its line", HEX16 HEX16 HEX16 HEX16, 0400, 0 },
	{ "its group may read it", HEX16 HEX16 HEX16 HEX16, 0640, -EPERM },
	{ "all may read it", HEX16 HEX16 HEX16 HEX16, 0604, -EPERM },
	{ "nothing", "", 0600, -EINVAL },
	{ "a digit less", HEX16 HEX16 HEX16 "0123456789abcde\n", 0600, -EINVAL },
	{ "a digit more", HEX16 HEX16 HEX16 HEX16 "0", 0600, -EINVAL },
	{ "a second line", HEX16 HEX16 HEX16 HEX16 "\n\n", 0600, -EINVAL },
	{ "other digits", HEX16 HEX16 HEX16 "0123456789abcdeg\n", 0600, -EINVAL },
};

START_TEST(key)
{
	uint8_t k[NET_KEY_BYTES];
	char err[CONF_ERR_MAX] = "";
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_ge(fputs(keys[_i].text, f), 0);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_int_eq(chmod(path, keys[_i].mode), 0);
	ck_assert_msg(process_key_read(path, k, err) == keys[_i].rc, "%s: %s",
	    keys[_i].what, err);
	if (keys[_i].rc == 0)
		ck_assert_uint_eq(k[NET_KEY_BYTES - 1], 0xef);
	else
		ck_assert_ptr_nonnull(strstr(err, path));
}
END_TEST

/* Nobody else can read one that was made, and none is made over another. */
START_TEST(new_key)
{
	uint8_t k[NET_KEY_BYTES], again[NET_KEY_BYTES];
	char err[CONF_ERR_MAX];

	ck_assert_int_eq(process_key_read(path, k, err), -ENOENT);
	umask(0);
	ck_assert_int_eq(process_key_make(path, err), 0);
	ck_assert_int_eq(process_key_read(path, k, err), 0);
	ck_assert_int_eq(process_key_make(path, err), -EEXIST);
	ck_assert_int_eq(process_key_read(path, again, err), 0);
	ck_assert_mem_eq(k, again, sizeof(k));
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("process");
	TCase *t = tcase_create("process");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, second_is_told);
	tcase_add_test(t, dead_owner);
	tcase_add_test(t, ending_owner);
	tcase_add_test(t, own);
	tcase_add_loop_test(t, key, 0, sizeof(keys) / sizeof(keys[0]));
	tcase_add_test(t, new_key);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed == 0 ? 0 : 1;
}
