/* SPDX-License-Identifier: MIT */
/* test_resync.c - which chunks a returning replica lacks, and the merge of long lists. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/resync.h"
#include "conf/err.h"
#include "conf/rand.h"
#include "tests/suite.h"

/* A replica's row as "committed/pending:check", "-": has none; pending with an r in front
 * is a removal. */
static const struct {
	const char *what, *ours, *theirs;
	bool same;
} chunks[] = {
	{ "equal",				"5:1",	"5:1",	true },
	{ "behind",				"5:1",	"4:9",	false },
	{ "ahead, by a write nobody has seen",	"4:1",	"5:9",	false },
	{ "other bytes under the same number",	"5:1",	"5:2",	false },
	{ "not there",				"5:1",	"-",	false },
	{ "removed here",			"-",	"5:1",	false },
	{ "pending there",			"5:1",	"4/5:1", false },
	{ "pending there over the same",	"5:1",	"5/6:1", false },
	{ "a removal pending there",		"5:1",	"5/r6:0", false },
	{ "made there, not here",		"-",	"0/1:3", false },
	{ "being written here",			"5/6:1", "5:1",	true },
	{ "being made here",			"0/1:1", "-",	true },
	{ "being made at both",			"0/1:1", "0/1:1", false },
	{ "made there already",			"0/1:1", "1:1",	false },
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

START_TEST(one_chunk)
{
	const char *text[2] = { chunks[_i].ours, chunks[_i].theirs };
	const struct msg_list_row *ours;
	enum chunk_resync_next next;
	struct msg_list_row rows[2];
	struct chunk_resync r;
	struct chunk_id id;

	chunk_resync_init(&r, NULL);
	ck_assert_int_eq(chunk_resync_next(&r, &id, &ours), RESYNC_PAGE);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert(chunk_resync_wants(&r, i));
		rows[i] = row(7, text[i]);
		ck_assert_int_eq(chunk_resync_page(&r, i, &rows[i],
		    text[i][0] != '-', false), 0);
		ck_assert(!chunk_resync_wants(&r, i));
	}
	next = chunk_resync_next(&r, &id, &ours);
	ck_assert_msg(next == (chunks[_i].same ? RESYNC_SAME : RESYNC_DIFFERS), "%s",
	    chunks[_i].what);
	ck_assert_uint_eq(id.index, 7);
	ck_assert_ptr_eq(ours, text[0][0] == '-' ? NULL : &rows[0]);
	ck_assert_uint_eq(r.compared, 1);
	ck_assert_int_eq(chunk_resync_next(&r, &id, &ours), RESYNC_END);
}
END_TEST

START_TEST(bad_pages)
{
	static const struct {
		const char *what, *a, *b;
		uint32_t	 index_a, index_b, n;
		bool		 more, begun;
		int		 rc;
	} rows[] = {
		{ "in order",		"1:1", "1:1", 2, 3, 2, false, false, 0 },
		{ "twice the same",	"1:1", "1:1", 2, 2, 2, false, false,
		  ERR_BAD_MESSAGE },
		{ "backwards",		"1:1", "1:1", 3, 2, 2, false, false,
		  ERR_BAD_MESSAGE },
		{ "empty, more follows", "1:1", "1:1", 2, 3, 0, true, false,
		  ERR_BAD_MESSAGE },
		{ "no version",		"0:1", "1:1", 2, 3, 1, false, false,
		  ERR_BAD_MESSAGE },
		{ "pending not over committed", "2/2:1", "1:1", 2, 3, 1, false, false,
		  ERR_BAD_MESSAGE },
		{ "not behind the page before", "1:1", "1:1", 1, 2, 2, false, true,
		  ERR_BAD_MESSAGE },
		{ "behind it",		"1:1", "1:1", 2, 3, 2, false, true, 0 },
		{ "nothing behind it",	"1:1", "1:1", 2, 3, 0, false, true, 0 },
	};
	const struct chunk_id at = { 1, 1 };
	struct msg_list_row page[2] = { row(rows[_i].index_a, rows[_i].a),
	    row(rows[_i].index_b, rows[_i].b) };
	struct chunk_resync r;

	chunk_resync_init(&r, rows[_i].begun ? &at : NULL);
	ck_assert_msg(chunk_resync_page(&r, RESYNC_THEIRS, page, rows[_i].n,
	    rows[_i].more) == rows[_i].rc, "%s", rows[_i].what);
	ck_assert_int_eq(chunk_resync_wants(&r, RESYNC_THEIRS), rows[_i].rc != 0);
}
END_TEST

#define N	500u

/* Long lists in small pages, begun again now and then: every chunk is named once and in
 * order, and differs when it does. */
START_TEST(pages)
{
	static struct msg_list_row lists[2][N];
	const struct msg_list_row *ours;
	enum chunk_resync_next what;
	struct chunk_resync r;
	struct chunk_id id;
	uint32_t n[2] = { 0 }, at[2] = { 0 }, next = 0, named = 0;
	bool have[N] = { false }, same[N] = { false };
	struct rand rnd;

	rand_seed(&rnd, (uint64_t)_i + 1);
	for (uint32_t k = 0; k < N; k++) {
		uint64_t v[2];

		for (unsigned i = 0; i < 2; i++) {
			v[i] = rand_below(&rnd, 20) == 0 ? rand_below(&rnd, 3) : 2;
			if (v[i] != 0)
				lists[i][n[i]++] = row(k, v[i] == 1 ? "1:1" : "2:2");
		}
		have[k] = v[0] != 0 || v[1] != 0;
		same[k] = v[0] == v[1];
	}
	chunk_resync_init(&r, NULL);
	while ((what = chunk_resync_next(&r, &id, &ours)) != RESYNC_END) {
		if (what != RESYNC_PAGE) {
			while (next < id.index)
				ck_assert(!have[next++]);
			ck_assert(have[next]);
			ck_assert_int_eq(what, same[next] ? RESYNC_SAME :
			    RESYNC_DIFFERS);
			next++;
			named++;
			continue;
		}
		if (rand_below(&rnd, 10) == 0 && r.any) {	/* begin again there */
			struct chunk_id done = r.done;

			chunk_resync_init(&r, &done);
			for (unsigned i = 0; i < 2; i++) {
				at[i] = 0;
				while (at[i] < n[i] && lists[i][at[i]].chunk.index <=
				    done.index)
					at[i]++;
			}
			continue;
		}
		for (unsigned i = 0; i < 2; i++) {
			uint32_t page = 1 + (uint32_t)rand_below(&rnd, 9);

			if (!chunk_resync_wants(&r, i))
				continue;
			if (page > n[i] - at[i])
				page = n[i] - at[i];
			ck_assert_int_eq(chunk_resync_page(&r, i, lists[i] + at[i],
			    page, at[i] + page < n[i]), 0);
			at[i] += page;
		}
	}
	while (next < N)
		ck_assert(!have[next++]);
	ck_assert_uint_gt(named, N / 2);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("resync");

	tcase_add_loop_test(tc, one_chunk, 0,
	    (int)(sizeof(chunks) / sizeof(chunks[0])));
	tcase_add_loop_test(tc, bad_pages, 0, 9);
	tcase_add_loop_test(tc, pages, 0, 20);
	return suite_run("resync", tc);
}
