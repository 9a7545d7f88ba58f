/* SPDX-License-Identifier: MIT */
/* test_conf.c - options.  tests/conf/N.in is an options file, N.ok what the parser makes of
 * it: the options that differ from their defaults, or the error.  ACCEPT=1 writes the N.ok. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/conf.h"
#include "conf/err.h"
#include "conf/parse.h"
#include "conf/rand.h"
#include "tests/suite.h"

#define MANUAL "man/fsd.conf.5"

static struct conf c;
static char err[CONF_ERR_MAX];

static void
setup(void)
{
	ck_assert_int_eq(conf_init(&c), 0);
	err[0] = '\0';
}

static void
teardown(void)
{
	conf_fini(&c);
}

static char *
printed(const struct conf *conf)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	conf_print(conf, f);
	fclose(f);
	return text;
}

/* Lines of @now that differ from @before, as section.name = value. */
static char *
changes(const char *before, const char *now)
{
	char section[64] = "", *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	while (*now != '\0') {
		size_t a = strcspn(before, "\n"), b = strcspn(now, "\n");

		if (now[0] == '[')
			snprintf(section, sizeof(section), "%.*s", (int)b - 2,
			    now + 1);
		if (a != b || memcmp(before, now, a) != 0)
			fprintf(f, "%s.%.*s\n", section, (int)b, now);
		before += a + 1;
		now += b + 1;
	}
	fclose(f);
	return text;
}

static char *
read_file(const char *path, size_t *n)
{
	FILE *f = fopen(path, "r");
	char *text;

	if (f == NULL)
		return NULL;
	text = calloc(1, 1 << 16);
	*n = fread(text, 1, (1 << 16) - 1, f);
	fclose(f);
	return text;
}

static void
check_file(int number)
{
	char path[64], *in, *ok, *got, *before, *after;
	size_t n, ok_n;
	int rc;

	snprintf(path, sizeof(path), "tests/conf/%d.in", number);
	in = read_file(path, &n);
	ck_assert_msg(in != NULL, "%s", path);
	before = printed(&c);
	rc = conf_load(&c, path, err);
	after = printed(&c);
	if (rc == 0)
		got = changes(before, after);
	else {
		ck_assert_int_eq(rc, ERR_CONFIG);
		ck_assert_str_eq(before, after);	/* unchanged */
		got = malloc(CONF_ERR_MAX + 20);
		sprintf(got, "error: %s\n", err);
	}
	snprintf(path, sizeof(path), "tests/conf/%d.ok", number);
	if (getenv("ACCEPT") != NULL) {
		FILE *f = fopen(path, "w");

		fputs(got, f);
		fclose(f);
	}
	ok = read_file(path, &ok_n);
	ck_assert_msg(ok != NULL, "%s", path);
	ck_assert_msg(strcmp(got, ok) == 0, "%s\n--- got\n%s--- expected\n%s",
	    path, got, ok);
	/* What is printed parses again, to the same. */
	if (rc == 0) {
		struct conf again;
		char *text;

		ck_assert_int_eq(conf_init(&again), 0);
		ck_assert_msg(conf_parse(&again, "printed", after, strlen(after),
		    err) == 0, "%s", err);
		text = printed(&again);
		ck_assert_str_eq(text, after);
		free(text);
		conf_fini(&again);
	}
	free(in);
	free(ok);
	free(got);
	free(before);
	free(after);
}

static int
file_count(void)
{
	char path[64];
	int n = 0;

	do
		snprintf(path, sizeof(path), "tests/conf/%d.in", ++n);
	while (access(path, R_OK) == 0);
	return n - 1;
}

START_TEST(files)
{
	check_file(_i);
}
END_TEST

START_TEST(defaults)
{
	char *text = printed(&c);

	ck_assert_str_eq(c.cluster_name, "fsd");
	ck_assert_uint_eq(c.cluster_chunk_size, 1 << 20);
	ck_assert_uint_eq(c.manager_lease, 3000);
	ck_assert_uint_eq(c.manager_addresses.n, 1);
	ck_assert_str_eq(c.manager_addresses.v[0], "127.0.0.1:7700");
	ck_assert_uint_eq(c.storage_disks.n, 0);
	ck_assert_uint_eq(c.log_level, 2);
	ck_assert_str_eq(c.node_name, "");
	ck_assert_int_eq(conf_check(&c, err), 0);
	/* every default is within its own bounds: conf_init() asserts it */
	ck_assert_ptr_nonnull(strstr(text, "\n[storage]\nport = 7710\n"));
	ck_assert_ptr_nonnull(strstr(text, "\nsession = 15s\n"));
	ck_assert_ptr_nonnull(strstr(text, "\ntable_size = 256GiB\n"));
	free(text);
}
END_TEST

static const struct set_case {
	const char *name, *value;
	const char *why;		/* NULL: taken */
} sets[] = {
	{ "storage.loops", "4", NULL },
	{ "storage.disks", "/a,/b", NULL },
	{ "storage.disks", "", NULL },
	{ "node.directory", "/a # no comment here", NULL },
	{ "manager.lease", "600s", NULL },
	{ "manager.lease", "1h", "lease: '1h' is not within 200ms to 10min" },
	{ "manager.beat", "2s", NULL },		/* rules come later */
	{ "client.retry", "24 h", NULL },
	{ "loops", "4", "expected section.option" },
	{ "storage.", "4", "unknown option '' in [storage]" },
	{ "storage.loop", "4", "did you mean 'loops'?" },
	{ "stor.loops", "4", "unknown section [stor]" },
	{ "client.loops", "4", "there is one in [storage]" },
	{ "storage.loops", "4\n", "control character" },
	{ "storage.loops", "0", "not within 1 to 64" },
	{ "log.level", "warn", NULL },
	{ "log.level", "warn,info", "expected one of error,warn,info,debug" },
	{ "log.level", "", "expected one of" },
	{ "cluster.chunk_size", "65537", "power of two" },
	{ "cluster.chunk_size", "128KiB", NULL },
	{ "cluster.chunk_size", "131072", NULL },
	{ "cluster.chunk_size", "131072B", NULL },
	{ "storage.full", "50 %", NULL },
	{ "storage.full", "50%%", "percentage" },
	{ "node.address", "[::1]", "expected an IP address" },
	{ "node.address", "::1%3", NULL },
	{ "node.address", "::1%lo", "expected an IP address" },
	{ "manager.addresses", "[::1]:1", NULL },
	{ "manager.addresses", "[::1]:0", "expected ip:port" },
	{ "manager.addresses", "::1:1", "expected ip:port" },
	{ "manager.addresses", "[]:1", "expected ip:port" },
	{ "manager.addresses", "1.2.3.4:01", "expected ip:port" },
};

START_TEST(setting)
{
	const struct set_case *t = &sets[_i];
	int rc = conf_set(&c, t->name, t->value, err);

	if (t->why == NULL)
		ck_assert_msg(rc == 0, "%s=%s: %s", t->name, t->value, err);
	else
		ck_assert_msg(rc == ERR_CONFIG && strstr(err, t->why) != NULL,
		    "%s=%s: %s", t->name, t->value, err);
}
END_TEST

START_TEST(values)
{
	ck_assert_int_eq(conf_set(&c, "client.retry", "90 min", err), 0);
	ck_assert_uint_eq(c.client_retry, 90 * 60000);
	ck_assert_int_eq(conf_set(&c, "client.memory", "10 MB", err), 0);
	ck_assert_uint_eq(c.client_memory, 10000000);
	ck_assert_int_eq(conf_set(&c, "storage.disks", "\"/a, \\\"b\", /c", err),
	    0);
	ck_assert_uint_eq(c.storage_disks.n, 2);
	ck_assert_str_eq(c.storage_disks.v[0], "/a, \"b");
	ck_assert_str_eq(c.storage_disks.v[1], "/c");
	ck_assert_int_eq(conf_set(&c, "log.level", "error", err), 0);
	ck_assert_uint_eq(c.log_level, 0);
	ck_assert_int_eq(conf_set(&c, "storage.full", "7%", err), 0);
	ck_assert_uint_eq(c.storage_full, 7);
}
END_TEST

START_TEST(rules)
{
	ck_assert_int_eq(conf_set(&c, "manager.beat", "1500ms", err), 0);
	ck_assert_int_eq(conf_check(&c, err), ERR_CONFIG);
	ck_assert_ptr_nonnull(strstr(err, "manager.beat"));
	ck_assert_int_eq(conf_set(&c, "manager.lease", "3001ms", err), 0);
	ck_assert_int_eq(conf_check(&c, err), 0);
	ck_assert_int_eq(conf_set(&c, "storage.port", "65535", err), 0);
	ck_assert_int_eq(conf_check(&c, err), 0);
	ck_assert_int_eq(conf_set(&c, "storage.loops", "2", err), 0);
	ck_assert_int_eq(conf_check(&c, err), ERR_CONFIG);
	ck_assert_int_eq(conf_set(&c, "storage.port", "0", err), 0);
	ck_assert_int_eq(conf_check(&c, err), 0);
}
END_TEST

START_TEST(unreadable)
{
	ck_assert_int_eq(conf_load(&c, "tests/conf/none", err), -ENOENT);
	ck_assert_str_eq(err, "tests/conf/none: No such file or directory");
	ck_assert_int_eq(conf_load(&c, "tests/conf", err), -EISDIR);
	ck_assert_str_eq(err, "tests/conf: Is a directory");
}
END_TEST

START_TEST(too_large)
{
	size_t n = CONF_FILE_MAX + 1;
	char *text = malloc(n);

	memset(text, '\n', n);
	ck_assert_int_eq(conf_parse(&c, "f", text, n, err), ERR_CONFIG);
	ck_assert_int_eq(conf_parse(&c, "f", text, n - 1, err), 0);
	free(text);
}
END_TEST

/* Several texts over one another, as a file and the manager's options are. */
START_TEST(layers)
{
	static const char one[] = "[storage]\ndisks = /a, /b\nloops = 2\n";
	static const char two[] = "[storage]\nloops = 3\n";

	ck_assert_int_eq(conf_parse(&c, "one", one, strlen(one), err), 0);
	ck_assert_int_eq(conf_parse(&c, "two", two, strlen(two), err), 0);
	ck_assert_uint_eq(c.storage_loops, 3);
	ck_assert_uint_eq(c.storage_disks.n, 2);
}
END_TEST

/* Whatever the bytes: taken, or an error with a place, and then nothing changed. */
START_TEST(damaged_text)
{
	char *good = printed(&c), *bad;
	size_t n = strlen(good);
	struct rand r;

	rand_seed(&r, 3);
	bad = malloc(n + 1);
	for (unsigned i = 0; i < 3000; i++) {
		char *before = printed(&c), *after;
		int rc;

		memcpy(bad, good, n + 1);
		for (uint64_t k = 1 + rand_below(&r, 4); k > 0; k--)
			bad[rand_below(&r, n)] = rand_chance(&r, 1, 2) ?
			    (char)rand_u64(&r) :
			    "\n\"\\[]=#,; 09a"[rand_below(&r, 13)];
		rc = conf_parse(&c, "f", bad, rand_below(&r, n) + 1, err);
		ck_assert(rc == 0 || (rc == ERR_CONFIG &&
		    strncmp(err, "f:", 2) == 0));
		after = printed(&c);
		if (rc != 0)
			ck_assert_str_eq(before, after);
		free(before);
		free(after);
	}
	free(bad);
	free(good);
}
END_TEST

START_TEST(number_texts)
{
	static const struct { uint64_t v; const char *bytes, *time; } t[] = {
		{ 0, "0", "0s" }, { 1, "1", "1ms" }, { 1000, "1000", "1s" },
		{ 1024, "1KiB", "1024ms" }, { 60000, "60000", "1min" },
		{ 3600000, "3600000", "1h" }, { 5ull << 40, "5TiB", NULL },
		{ UINT64_MAX, "18446744073709551615", NULL },
	};
	char text[CONF_NUMBER_TEXT];
	const char *why;
	uint64_t v;

	for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		conf_bytes_text(t[i].v, text);
		ck_assert_str_eq(text, t[i].bytes);
		ck_assert_int_eq(conf_bytes(text, &v, &why), 0);
		ck_assert_uint_eq(v, t[i].v);
		conf_time_text(t[i].v, text);
		if (t[i].time != NULL)
			ck_assert_str_eq(text, t[i].time);
		ck_assert_int_eq(conf_time(text, &v, &why), 0);
		ck_assert_uint_eq(v, t[i].v);
	}
}
END_TEST

START_TEST(flags)
{
	static const char *const words[] = { "yes", "true", "on", "no", "false",
	    "off" };
	const char *why = NULL;
	bool v = false;

	for (unsigned i = 0; i < 6; i++) {
		ck_assert_int_eq(conf_flag(words[i], &v, &why), 0);
		ck_assert(v == (i < 3));
	}
	ck_assert_int_eq(conf_flag("1", &v, &why), -EINVAL);
	ck_assert_int_eq(conf_flag("", &v, &why), -EINVAL);
}
END_TEST

/* The table of fsd.conf(5) is what the rows say; ACCEPT=1 makes it so. */
START_TEST(manual_page)
{
	char *table = NULL, *page, *from, *to;
	size_t n;
	FILE *f = open_memstream(&table, &n);

	conf_help(f, true);
	fclose(f);
	page = read_file(MANUAL, &n);
	ck_assert_ptr_nonnull(page);
	if (getenv("ACCEPT") != NULL) {
		from = strstr(page, ".Ss [cluster]");
		to = strstr(page, ".Pp\nThese rules join");
		ck_assert(from != NULL && to != NULL && from < to);
		f = fopen(MANUAL, "w");
		fprintf(f, "%.*s%s%s", (int)(from - page), page, table, to);
		fclose(f);
		free(page);
		page = read_file(MANUAL, &n);
	}
	ck_assert_msg(strstr(page, table) != NULL,
	    MANUAL " is not what the rows say: ACCEPT=1 build/tests/test_conf");
	free(page);
	free(table);
}
END_TEST

START_TEST(help_text)
{
	char *text = NULL;
	const struct conf_row *w;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	conf_help(f, false);
	fclose(f);
	for (unsigned i = 0; (w = conf_row_at(i)) != NULL; i++) {
		ck_assert_ptr_nonnull(strstr(text, w->name));
		ck_assert_ptr_nonnull(strstr(text, w->help));
	}
	free(text);
}
END_TEST

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, files, 1, file_count() + 1);
	tcase_add_test(t, defaults);
	tcase_add_loop_test(t, setting, 0, N(sets));
	tcase_add_test(t, values);
	tcase_add_test(t, rules);
	tcase_add_test(t, unreadable);
	tcase_add_test(t, too_large);
	tcase_add_test(t, layers);
	tcase_add_test(t, damaged_text);
	tcase_add_test(t, number_texts);
	tcase_add_test(t, flags);
	tcase_add_test(t, manual_page);
	tcase_add_test(t, help_text);
	return suite_run("conf", t);
}
