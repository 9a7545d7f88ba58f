/* SPDX-License-Identifier: MIT */
/* test_alloc.c - space against a map of bytes, lists of extents against arrays. */
#include "chunk/alloc.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/format.h"
#include "conf/rand.h"

#define RESERVED	256u

/* ---- extents ---- */

#define BLOCKS	96u

static void
paint(uint32_t *at, const struct chunk_extents *x)
{
	for (size_t i = 0; i < x->n; i++)
		for (uint32_t k = 0; k < x->v[i].count; k++)
			at[x->v[i].at + k] = (uint32_t)x->v[i].disk + k;
}

static void
random_extents(struct rand *r, struct chunk_extents *x, uint32_t *disk)
{
	for (uint32_t at = (uint32_t)rand_below(r, 8); at < BLOCKS;) {
		uint32_t n = 1 + (uint32_t)rand_below(r, 12);

		if (n > BLOCKS - at)
			n = BLOCKS - at;
		/* Some follow one another on disk, and must join. */
		ck_assert_int_eq(chunk_extents_add(x, (struct chunk_extent){ at, n, *disk }),
		    0);
		*disk += n + (uint32_t)rand_below(r, 2);
		at += n + (rand_chance(r, 1, 2) ? 0 : (uint32_t)rand_below(r, 9));
	}
}

START_TEST(overlay)
{
	struct rand r;

	rand_seed(&r, 77 + (uint64_t)_i);
	for (unsigned k = 0; k < 400; k++) {
		struct chunk_extents base = { 0 }, over = { 0 }, out = { 0 }, freed = { 0 },
		    cut = { 0 };
		uint32_t b[BLOCKS] = { 0 }, o[BLOCKS] = { 0 }, is[BLOCKS] = { 0 };
		uint32_t keep = (uint32_t)rand_below(&r, BLOCKS + 1), disk = 1000;
		uint32_t from = (uint32_t)rand_below(&r, BLOCKS), to, end;
		uint8_t gone[4000] = { 0 };

		random_extents(&r, &base, &disk);
		random_extents(&r, &over, &disk);
		paint(b, &base);
		paint(o, &over);
		ck_assert_int_eq(chunk_extents_overlay(&base, keep, &over, &out, &freed), 0);
		ck_assert(chunk_extents_valid(&out, BLOCKS, 100000));
		paint(is, &out);
		for (size_t i = 0; i < freed.n; i++)
			for (uint32_t j = 0; j < freed.v[i].count; j++)
				gone[freed.v[i].disk + j]++;
		for (uint32_t i = 0; i < BLOCKS; i++) {
			uint32_t want = o[i] != 0 ? o[i] : i < keep ? b[i] : 0;

			if (is[i] != want || (b[i] != 0 && gone[b[i]] != (want != b[i])))
				ck_abort_msg("run %u block %u", k, i);
		}
		ck_assert_uint_eq(chunk_extents_blocks(&base) + chunk_extents_blocks(&over),
		    chunk_extents_blocks(&out) + chunk_extents_blocks(&freed));
		/* Parts of it. */
		to = from + (uint32_t)rand_below(&r, BLOCKS + 1 - from);
		memset(b, 0, sizeof(b));
		ck_assert_int_eq(chunk_extents_cut(&out, from, to, &cut), 0);
		paint(b, &cut);
		for (uint32_t i = 0; i < BLOCKS; i++)
			if (b[i] != (i >= from && i < to ? is[i] : 0))
				ck_abort_msg("cut %u block %u", k, i);
		for (end = from; end < BLOCKS && is[end] != 0;)
			end++;
		ck_assert_uint_eq(chunk_extents_run_end(&out, from), end);
		chunk_extents_fini(&base);
		chunk_extents_fini(&over);
		chunk_extents_fini(&out);
		chunk_extents_fini(&freed);
		chunk_extents_fini(&cut);
	}
}
END_TEST

static const struct {
	const char *what;
	struct chunk_extent v[2];
	bool ok;
} lists[] = {
	{ "one",		{ { 0, 4, 256 } }, true },
	{ "holes between",	{ { 1, 2, 300 }, { 9, 1, 256 } }, true },
	{ "the label",		{ { 0, 4, 255 } }, false },
	{ "not ascending",	{ { 4, 4, 300 }, { 2, 1, 400 } }, false },
	{ "overlap",		{ { 0, 4, 300 }, { 3, 1, 400 } }, false },
	{ "behind the chunk",	{ { 12, 5, 300 } }, false },
	{ "far behind",		{ { UINT32_MAX, 2, 300 } }, false },
	{ "behind the disk",	{ { 0, 2, 999 } }, false },
	{ "far behind the disk",	{ { 0, 2, UINT64_MAX } }, false },
};

START_TEST(validity)
{
	struct chunk_extents x = { 0 };

	for (unsigned i = 0; i < 2 && lists[_i].v[i].count > 0; i++)
		ck_assert_int_eq(chunk_extents_add(&x, lists[_i].v[i]), 0);
	ck_assert_msg(chunk_extents_valid(&x, 16, 1000) == lists[_i].ok, "%s",
	    lists[_i].what);
	chunk_extents_fini(&x);
}
END_TEST

/* ---- space ---- */

/* Random takes and gives, until full and back to empty. */
START_TEST(model)
{
	uint64_t blocks = 3 * CHUNK_GROUP_BLOCKS - 1000;
	uint8_t *used = calloc(1, blocks);
	struct chunk_extents held[64] = { 0 };
	struct chunk_alloc *a;
	struct rand r;
	bool was_full = false;

	rand_seed(&r, 5 + (uint64_t)_i);
	ck_assert_int_eq(chunk_alloc_open(&a, blocks, RESERVED), 0);
	ck_assert_uint_eq(chunk_alloc_capacity(a), blocks - RESERVED);
	for (unsigned k = 0; k < 6000; k++) {
		struct chunk_extents *x = &held[rand_below(&r, 64)];
		uint32_t n = 1 + (uint32_t)rand_below(&r, 1u << rand_below(&r, 15));
		uint64_t before = chunk_alloc_used(a), sum = 0;
		int rc;

		if (x->n > 0 && rand_chance(&r, 1, 2)) {
			for (size_t i = 0; i < x->n; i++) {
				chunk_alloc_give(a, x->v[i].disk, x->v[i].count);
				memset(used + x->v[i].disk, 0, x->v[i].count);
			}
			chunk_extents_fini(x);
		} else if (x->n == 0) {
			rc = chunk_alloc_take(a, 0, n, x);
			if (rc == -ENOSPC) {
				ck_assert_uint_lt(chunk_alloc_capacity(a) - before, n);
				was_full = true;
				continue;
			}
			ck_assert_int_eq(rc, 0);
			for (size_t i = 0; i < x->n; i++) {
				ck_assert_uint_ge(x->v[i].disk, RESERVED);
				ck_assert_uint_eq(x->v[i].at, sum);
				sum += x->v[i].count;
				for (uint32_t j = 0; j < x->v[i].count; j++)
					if (used[x->v[i].disk + j]++ != 0)
						ck_abort_msg("given twice");
			}
			ck_assert_uint_eq(sum, n);
			ck_assert_uint_eq(chunk_alloc_used(a), before + n);
		}
		if (k % 500 == 0)
			chunk_alloc_check(a);
	}
	chunk_alloc_check(a);
	ck_assert(was_full);
	for (unsigned i = 0; i < 64; i++) {
		for (size_t k = 0; k < held[i].n; k++)
			chunk_alloc_give(a, held[i].v[k].disk, held[i].v[k].count);
		chunk_extents_fini(&held[i]);
	}
	ck_assert_uint_eq(chunk_alloc_used(a), 0);
	chunk_alloc_check(a);
	chunk_alloc_close(a);
	free(used);
}
END_TEST

/* What was taken and is marked again after a restart gives the same state. */
START_TEST(rebuilt)
{
	struct chunk_extents x = { 0 };
	struct chunk_alloc *a, *b;

	ck_assert_int_eq(chunk_alloc_open(&a, 40000, RESERVED), 0);
	ck_assert_int_eq(chunk_alloc_open(&b, 40000, RESERVED), 0);
	for (uint32_t n = 1; n < 100; n++)
		ck_assert_int_eq(chunk_alloc_take(a, n * 200, n, &x), 0);
	for (size_t i = 0; i < x.n; i++) {
		ck_assert(!chunk_alloc_equal(a, b));
		ck_assert_int_eq(chunk_alloc_mark(b, x.v[i].disk, x.v[i].count), 0);
	}
	ck_assert(chunk_alloc_equal(a, b));
	chunk_alloc_check(b);
	ck_assert_int_eq(chunk_alloc_mark(b, x.v[3].disk, 1), -EEXIST);
	ck_assert_int_eq(chunk_alloc_mark(b, 0, 1), -EEXIST);	/* reserved */
	ck_assert_int_eq(chunk_alloc_mark(b, 40000, 1), -ERANGE);
	ck_assert_int_eq(chunk_alloc_mark(b, 39999, 2), -ERANGE);
	ck_assert_int_eq(chunk_alloc_mark(b, UINT64_MAX, 2), -ERANGE);
	chunk_extents_fini(&x);
	chunk_alloc_close(a);
	chunk_alloc_close(b);
}
END_TEST

/* One run for a whole chunk of any size, at its alignment; many when there is no such run. */
START_TEST(runs)
{
	struct chunk_extents x = { 0 };
	struct chunk_alloc *a;

	ck_assert_int_eq(chunk_alloc_open(&a, 4 * CHUNK_GROUP_BLOCKS, RESERVED), 0);
	for (uint32_t n = 1; n <= CHUNK_GROUP_BLOCKS; n *= 2) {
		ck_assert_int_eq(chunk_alloc_take(a, 0, n, &x), 0);
		ck_assert_uint_eq(x.n, 1);
		ck_assert_uint_eq(x.v[0].disk % n, 0);
		x.n = 0;
	}
	chunk_alloc_close(a);
	/* Every second block is taken: only single ones are left. */
	ck_assert_int_eq(chunk_alloc_open(&a, CHUNK_GROUP_BLOCKS, RESERVED), 0);
	for (uint32_t i = RESERVED; i < CHUNK_GROUP_BLOCKS; i += 2)
		ck_assert_int_eq(chunk_alloc_mark(a, i, 1), 0);
	ck_assert_int_eq(chunk_alloc_take(a, 0, 100, &x), 0);
	ck_assert_uint_eq(x.n, 100);
	ck_assert_int_eq(chunk_alloc_take(a, 0, CHUNK_GROUP_BLOCKS, &x), -ENOSPC);
	ck_assert_uint_eq(x.n, 100);
	chunk_alloc_check(a);
	chunk_extents_fini(&x);
	chunk_alloc_close(a);
	ck_assert_int_eq(chunk_alloc_open(&a, 256, 256), -EINVAL);
	ck_assert_int_eq(chunk_alloc_open(&a, 0, 0), -EINVAL);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("alloc");
	TCase *tc = tcase_create("alloc");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 0);
	tcase_add_loop_test(tc, overlay, 0, 5);
	tcase_add_loop_test(tc, validity, 0, sizeof(lists) / sizeof(lists[0]));
	tcase_add_loop_test(tc, model, 0, 4);
	tcase_add_test(tc, rebuilt);
	tcase_add_test(tc, runs);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed > 0;
}
