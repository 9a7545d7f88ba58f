/* SPDX-License-Identifier: MIT */
/* test_reconcile.c - what is done about one chunk, and the merge of long lists. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/reconcile.h"
#include "conf/err.h"
#include "conf/rand.h"

/* A replica's row as "committed/pending:check", "-": has none; pending with an r in front
 * is a removal; the plan as acts of the replicas, version and holder. */
static const struct {
	const char *what, *rows[3], *plan;
} chunks[] = {
	{ "equal", { "5:1", "5:1", "5:1" }, "" },
	{ "one behind", { "5:1", "4:9", "5:1" }, "-R- v5 from 0" },
	{ "one has nothing", { "-", "5:1", "5:1" }, "R-- v5 from 1" },
	{ "pending everywhere", { "4/5:1", "4/5:1", "4/5:1" }, "CCC v5 from 0" },
	{ "committed at the tail", { "4/5:1", "4/5:1", "5:1" }, "CC- v5 from 2" },
	{ "pending at the head alone", { "4/5:1", "4:9", "4:9" },
	  "CRR v5 from 0" },
	{ "made at the head alone", { "0/5:1", "-", "-" }, "CRR v5 from 0" },
	{ "removal under way", { "4:1", "4/r5:0", "-" }, "XX- v5 removed" },
	{ "removed long ago at one", { "-", "4:1", "4:1" }, "R-- v4 from 1" },
	{ "made anew over a removal", { "4/r5:0", "0/6:2", "4/r5:0" },
	  "RCR v6 from 1" },
	{ "differ, one is committed", { "4/5:1", "4/5:1", "5:2" },
	  "RRR v6 from 2 conflict" },
	{ "differ, more have", { "4/5:1", "4/5:2", "4/5:2" },
	  "RRR v6 from 1 conflict" },
	{ "differ, nearer to the head", { "4/5:1", "4/5:2", "4:9" },
	  "RRR v6 from 0 conflict" },
	{ "differ, bytes over a removal", { "4/r5:0", "4/r5:0", "0/5:2" },
	  "RRR v6 from 2 conflict" },
};

static struct msg_list_row
row(uint32_t index, const char *text)
{
	struct msg_list_row r = { .chunk = { 1, index }, .len = 4 };
	char *p;

	r.committed = strtoull(text, &p, 10);
	if (*p == '/') {
		r.removed = p[1] == 'r';
		r.pending = strtoull(p + 1 + r.removed, &p, 10);
	}
	r.check = (uint32_t)strtoul(p + 1, NULL, 10);
	return r;
}

static void
describe(const struct chunk_reconcile_plan *p, char out[64])
{
	char acts[4];

	for (unsigned i = 0; i < 3; i++)
		acts[i] = "-CRX"[p->act[i]];
	acts[3] = '\0';
	if (p->removed)
		snprintf(out, 64, "%s v%llu removed", acts,
		    (unsigned long long)p->version);
	else
		snprintf(out, 64, "%s v%llu from %u%s", acts,
		    (unsigned long long)p->version, p->holder,
		    p->conflict ? " conflict" : "");
}

START_TEST(one_chunk)
{
	struct chunk_reconcile r;
	struct chunk_reconcile_plan plan;
	struct msg_list_row rows[3];
	char got[64] = "";

	chunk_reconcile_init(&r, 3);
	for (unsigned i = 0; i < 3; i++) {
		bool none = chunks[_i].rows[i][0] == '-';

		rows[i] = row(7, chunks[_i].rows[i]);
		ck_assert_int_eq(chunk_reconcile_page(&r, i, &rows[i], !none,
		    false), 0);
	}
	if (chunk_reconcile_next(&r, &plan) == RECONCILE_CHUNK) {
		ck_assert_uint_eq(plan.id.index, 7);
		describe(&plan, got);
		ck_assert_int_eq(chunk_reconcile_next(&r, &plan), RECONCILE_END);
	}
	ck_assert_msg(strcmp(got, chunks[_i].plan) == 0, "%s: %s, not %s",
	    chunks[_i].what, got, chunks[_i].plan);
}
END_TEST

START_TEST(bad_pages)
{
	struct chunk_reconcile r;
	struct msg_list_row rows[3] = { row(2, "1:1"), row(2, "1:1"),
	    row(3, "1:1") };

	chunk_reconcile_init(&r, 1);
	ck_assert_int_eq(chunk_reconcile_page(&r, 0, rows, 2, false),
	    ERR_BAD_MESSAGE);
	ck_assert_int_eq(chunk_reconcile_page(&r, 0, rows, 0, true),
	    ERR_BAD_MESSAGE);
	rows[1] = row(3, "2/2:1");
	ck_assert_int_eq(chunk_reconcile_page(&r, 0, rows, 2, false),
	    ERR_BAD_MESSAGE);
	rows[1] = row(3, "0:1");
	ck_assert_int_eq(chunk_reconcile_page(&r, 0, rows, 2, false),
	    ERR_BAD_MESSAGE);
	ck_assert_int_eq(chunk_reconcile_page(&r, 0, rows, 1, true), 0);
	r.lists[0].at = 1;
	ck_assert_int_eq(chunk_reconcile_page(&r, 0, rows, 1, true),
	    ERR_BAD_MESSAGE);
	ck_assert_int_eq(chunk_reconcile_page(&r, 0, rows + 2, 1, false), 0);
}
END_TEST

/* Long lists in small pages: every chunk that is not the same everywhere is planned,
 * once, in order. */
START_TEST(pages)
{
	enum { N = 500 };
	static struct msg_list_row lists[3][N];
	uint32_t n[3] = { 0 }, at[3] = { 0 };
	bool expect[N] = { false };
	struct chunk_reconcile r;
	struct chunk_reconcile_plan plan;
	enum chunk_reconcile_next what;
	struct rand rnd;
	uint32_t next = 0;

	rand_seed(&rnd, (uint64_t)_i + 1);
	for (uint32_t k = 0; k < N; k++) {
		unsigned have = 0;
		bool same = true;

		for (unsigned i = 0; i < 3; i++) {
			uint64_t v = rand_below(&rnd, 20) == 0 ?
			    rand_below(&rnd, 3) : 2;

			same &= v == 2;
			if (v == 0)
				continue;
			have++;
			lists[i][n[i]++] = row(k, v == 1 ? "1:1" : "2:2");
		}
		expect[k] = have > 0 && !same;
		/* All are behind alike: nothing to do. */
		if (have == 3 && lists[0][n[0] - 1].committed == 1 &&
		    lists[1][n[1] - 1].committed == 1 &&
		    lists[2][n[2] - 1].committed == 1)
			expect[k] = false;
	}
	chunk_reconcile_init(&r, 3);
	while ((what = chunk_reconcile_next(&r, &plan)) != RECONCILE_END) {
		if (what == RECONCILE_PAGE) {
			unsigned i = plan.holder;
			uint32_t page = 1 + (uint32_t)rand_below(&rnd, 9);

			if (page > n[i] - at[i])
				page = n[i] - at[i];
			ck_assert_int_eq(chunk_reconcile_page(&r, i,
			    lists[i] + at[i], page, at[i] + page < n[i]), 0);
			at[i] += page;
			continue;
		}
		while (next < plan.id.index)
			ck_assert(!expect[next++]);
		ck_assert(expect[next++]);
	}
	while (next < N)
		ck_assert(!expect[next++]);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("reconcile");
	TCase *tc = tcase_create("reconcile");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(tc, one_chunk, 0,
	    (int)(sizeof(chunks) / sizeof(chunks[0])));
	tcase_add_test(tc, bad_pages);
	tcase_add_loop_test(tc, pages, 0, 20);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
