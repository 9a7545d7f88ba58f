/* SPDX-License-Identifier: MIT */
/* test_stat.c - what Prometheus gets to read. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "conf/stat.h"
#include "tests/suite.h"

#define THING_STATS(X) \
	X(counter, reads,    "reads that were answered") \
	X(gauge,   used,     "bytes in use") \
	X(gauge,   age_ns,   "time since the start") \
	X(hist,    read_ns,  "time of a read") \
	X(hist,    size,     "bytes of a read")
STAT_DECLARE(thing, THING_STATS)
STAT_DEFINE(thing, THING_STATS)

static char *
text(struct stat_registry *r)
{
	char *out = NULL;
	size_t n;
	FILE *f = open_memstream(&out, &n);

	stat_print(r, f);
	fclose(f);
	return out;
}

START_TEST(two_loops)
{
	struct thing_stat a = { 0 }, b = { 0 };
	struct stat_set sa = { .prefix = "fsd_thing", .labels = "loop=\"0\"",
	    .rows = thing_stat_rows, .values = &a };
	struct stat_set sb = { .prefix = "fsd_thing", .labels = "loop=\"1\"",
	    .rows = thing_stat_rows, .values = &b };
	struct stat_registry r;
	char *t;

	stat_registry_init(&r);
	stat_register(&r, &sa);
	stat_register(&r, &sb);
	stat_add(&a.reads, 2);
	stat_add(&a.reads, 3);
	stat_set(&b.used, 77);
	stat_set(&b.age_ns, 1500000000);
	stat_hist_add(&b.read_ns, 1000);	/* up to 1024 ns */
	stat_hist_add(&b.read_ns, 1025);	/* up to 2048 ns */
	t = text(&r);
	ck_assert_ptr_nonnull(strstr(t,
	    "# HELP fsd_thing_reads_total reads that were answered\n"
	    "# TYPE fsd_thing_reads_total counter\n"
	    "fsd_thing_reads_total{loop=\"0\"} 5\n"
	    "fsd_thing_reads_total{loop=\"1\"} 0\n"
	    "# HELP fsd_thing_used bytes in use\n"
	    "# TYPE fsd_thing_used gauge\n"
	    "fsd_thing_used{loop=\"0\"} 0\n"
	    "fsd_thing_used{loop=\"1\"} 77\n"));
	ck_assert_ptr_nonnull(strstr(t,
	    "fsd_thing_age_seconds{loop=\"1\"} 1.500000000\n"));
	ck_assert_ptr_nonnull(strstr(t,
	    "# TYPE fsd_thing_read_seconds histogram\n"));
	ck_assert_ptr_nonnull(strstr(t,
	    "fsd_thing_read_seconds_bucket{loop=\"1\",le=\"1.024e-06\"} 1\n"
	    "fsd_thing_read_seconds_bucket{loop=\"1\",le=\"2.048e-06\"} 2\n"));
	ck_assert_ptr_nonnull(strstr(t,
	    "fsd_thing_read_seconds_bucket{loop=\"1\",le=\"+Inf\"} 2\n"
	    "fsd_thing_read_seconds_sum{loop=\"1\"} 0.000002025\n"
	    "fsd_thing_read_seconds_count{loop=\"1\"} 2\n"));
	free(t);
	stat_remove(&sa);
	stat_remove(&sa);		/* twice is fine */
	t = text(&r);
	ck_assert_ptr_null(strstr(t, "loop=\"0\""));
	ck_assert_ptr_nonnull(strstr(t, "# TYPE fsd_thing_reads_total counter"));
	free(t);
	stat_remove(&sb);
	t = text(&r);
	ck_assert_str_eq(t, "");
	free(t);
}
END_TEST

START_TEST(no_labels)
{
	struct thing_stat a = { 0 };
	struct stat_set s = { .prefix = "x", .rows = thing_stat_rows,
	    .values = &a };
	struct stat_registry r;
	char *t;

	stat_registry_init(&r);
	stat_register(&r, &s);
	stat_hist_add(&a.size, 5000);
	t = text(&r);
	ck_assert_ptr_nonnull(strstr(t, "\nx_reads_total 0\n"));
	ck_assert_ptr_nonnull(strstr(t, "\nx_size_bucket{le=\"4096\"} 0\n"
	    "x_size_bucket{le=\"8192\"} 1\n"));
	ck_assert_ptr_nonnull(strstr(t, "\nx_size_sum 5000\nx_size_count 1\n"));
	free(t);
}
END_TEST

/* What processes use: one call to register, text in memory; nobody asks: no registry. */
START_TEST(attached)
{
	struct thing_stat a = { 0 };
	struct stat_set s = { .prefix = NULL }, none = { .prefix = NULL };
	struct stat_registry r;
	size_t n, cut;
	char *t;

	stat_registry_init(&r);
	stat_attach(&r, &s, "fsd_thing", "a\"b\\\nc", thing_stat_rows, &a);
	stat_attach(NULL, &none, "fsd_thing", "x", thing_stat_rows, &a);
	stat_add(&a.reads, 4);
	t = stat_text(&r, SIZE_MAX, &n);
	ck_assert_uint_eq(strlen(t), n);
	ck_assert_ptr_nonnull(strstr(t, "\nfsd_thing_reads_total{role=\"abc\"} 4\n"));
	free(t);
	/* At most so many bytes, whole lines. */
	t = stat_text(&r, 100, &cut);
	ck_assert_uint_le(cut, 100);
	ck_assert_uint_gt(cut, 0);
	ck_assert_uint_eq(strlen(t), cut);
	ck_assert_int_eq(t[cut - 1], '\n');
	free(t);
	stat_remove(&none);
	stat_remove(&s);
	stat_registry_fini(&r);
	t = stat_text(NULL, 100, &n);
	ck_assert_uint_eq(n, 0);
	ck_assert_str_eq(t, "");
	free(t);
}
END_TEST

/* Cut to fit its labels, still a label. */
START_TEST(long_name)
{
	struct thing_stat a = { 0 };
	struct stat_set s = { .prefix = NULL };
	struct stat_registry r;
	char who[300];

	memset(who, 'w', sizeof(who));
	who[sizeof(who) - 1] = '\0';
	stat_registry_init(&r);
	stat_attach(&r, &s, "x", who, thing_stat_rows, &a);
	ck_assert_uint_eq(strlen(s.labels), sizeof(s.labels) - 1);
	ck_assert_int_eq(s.labels[sizeof(s.labels) - 2], '"');
	stat_remove(&s);
	stat_registry_fini(&r);
}
END_TEST

START_TEST(buckets)
{
	struct stat_hist h = { { 0 }, 0 };

	ck_assert_uint_eq(stat_hist_quantile(&h, 1, 2), 0);
	for (uint64_t v = 1024; v < 1ull << 40; v *= 2) {
		struct stat_hist one = { { 0 }, 0 };

		stat_hist_add(&one, v);
		ck_assert_uint_eq(stat_hist_quantile(&one, 1, 2),
		    v <= 1024ull << 24 ? v : UINT64_MAX);
		if (v > 1024 << 1 && v < 1024ull << 24) {
			stat_hist_add(&h, v - 1);	/* the same bucket */
			stat_hist_add(&h, v + 1);	/* the next */
		}
	}
	stat_hist_add(&h, 0);
	stat_hist_add(&h, UINT64_MAX);
	ck_assert_uint_eq(stat_hist_count(&h), 2 * 22 + 2);
	ck_assert_uint_eq(h.bucket[0], 1);
	ck_assert_uint_eq(h.bucket[STAT_BUCKETS - 1], 1);
	ck_assert_uint_eq(h.bucket[2], 1);
	ck_assert_uint_eq(h.bucket[3], 2);
	ck_assert_uint_eq(stat_hist_quantile(&h, 1, 1), UINT64_MAX);
}
END_TEST

START_TEST(quantiles)
{
	struct stat_hist h = { { 0 }, 0 };

	for (unsigned i = 0; i < 99; i++)
		stat_hist_add(&h, 1500);
	stat_hist_add(&h, 1000000);
	ck_assert_uint_eq(stat_hist_quantile(&h, 50, 100), 2048);
	ck_assert_uint_eq(stat_hist_quantile(&h, 99, 100), 2048);
	ck_assert_uint_eq(stat_hist_quantile(&h, 999, 1000), 1 << 20);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("all");

	tcase_add_test(t, two_loops);
	tcase_add_test(t, no_labels);
	tcase_add_test(t, attached);
	tcase_add_test(t, long_name);
	tcase_add_test(t, buckets);
	tcase_add_test(t, quantiles);
	return suite_run("stat", t);
}
