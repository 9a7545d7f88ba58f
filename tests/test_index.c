/* SPDX-License-Identifier: MIT */
/* test_index.c - rows of the chunk index: pinned bytes, damage, a pending row applied.
 * ACCEPT=1 writes tests/golden/chunk_rows.1 anew; that is only right before a release
 * that has never written a disk. */
#include "chunk/index.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/crc32c.h"
#include "conf/err.h"

#define GOLDEN	"tests/golden/chunk_rows.1"

static const struct chunk_id id = { 0x0001000000000102, 0x03040506 };
static uint8_t row_bytes[CHUNK_ROW_MAX], pend_bytes[CHUNK_ROW_MAX];
static uint8_t row_key[CHUNK_KEY_BYTES], pend_key[CHUNK_KEY_BYTES];
static struct chunk_row row, row2, row3;
static struct chunk_pend pend, pend2;

static void
setup(void)
{
	chunk_key_encode(CHUNK_KEY_COMMITTED, 0x0a0b0c0d, id, row_key);
	chunk_key_encode(CHUNK_KEY_PENDING, 0x0a0b0c0d, id, pend_key);
	row.shift = 16;
	row.flags = CHUNK_ROW_SEALED;
	row.version = 0x1122334455667788;
	row.len = 3 * 4096 + 5;
	row.epoch = 9;
	row.dedupe_n = 2;
	for (unsigned i = 0; i < 2; i++)
		row.dedupe[i] = (struct chunk_dedupe){ { { (uint8_t)(0xc0 + i), 1 } },
		    100 + i, 7 - i };
	row.extents.n = 0;
	chunk_extents_add(&row.extents, (struct chunk_extent){ 0, 1, 0x123456789a });
	chunk_extents_add(&row.extents, (struct chunk_extent){ 2, 14, 4096 });
	row.crc_n = 4;
	for (uint32_t i = 0; i < 4; i++)
		row.crcs[i] = 0x01010101 * (i + 1);
	row.check = chunk_row_check(row.crcs, row.crc_n, row.len);
	pend.shift = 16;
	pend.flags = CHUNK_ROW_INPLACE;
	pend.version = row.version + 1;
	pend.base = row.version;
	pend.len = 5 * 4096;
	pend.epoch = 10;
	pend.keep = 16;
	pend.first = 2;
	pend.crc_n = 3;
	pend.dedupe_n = 1;
	pend.dedupe[0] = (struct chunk_dedupe){ { { 0xc1, 1 } }, 200, pend.version };
	pend.extents.n = 0;
	chunk_extents_add(&pend.extents, (struct chunk_extent){ 2, 1, 9000 });
	for (uint32_t i = 0; i < 3; i++)
		pend.crcs[i] = 0xa0a0a0a0 + i;
	pend.check = 0x99999999;
}

static void
teardown(void)
{
	chunk_row_fini(&row);
	chunk_row_fini(&row2);
	chunk_row_fini(&row3);
	chunk_pend_fini(&pend);
	chunk_pend_fini(&pend2);
}

static void
line(FILE *f, const char *name, const uint8_t *b, size_t n)
{
	fprintf(f, "%s ", name);
	for (size_t i = 0; i < n; i++)
		fprintf(f, "%02x", b[i]);
	fprintf(f, "\n");
}

START_TEST(golden)
{
	char *text = NULL, have[8192] = "";
	size_t n;
	FILE *f = open_memstream(&text, &n);

	line(f, "key", row_key, sizeof(row_key));
	line(f, "committed", row_bytes, chunk_row_encode(&row, row_key, row_bytes));
	line(f, "pending", pend_bytes, chunk_pend_encode(&pend, pend_key, pend_bytes));
	fclose(f);
	if (getenv("ACCEPT") != NULL) {
		f = fopen(GOLDEN, "w");
		fputs(text, f);
		fclose(f);
	}
	f = fopen(GOLDEN, "r");
	ck_assert_msg(f != NULL, "run it where the Makefile is");
	n = fread(have, 1, sizeof(have) - 1, f);
	fclose(f);
	ck_assert_str_eq(have, text);
	free(text);
}
END_TEST

START_TEST(round_trip)
{
	size_t n = chunk_row_encode(&row, row_key, row_bytes);

	ck_assert_int_eq(chunk_row_decode(row_key, row_bytes, n, true, &row2), 0);
	ck_assert_uint_eq(row2.stored, n);
	ck_assert_uint_eq(row2.version, row.version);
	ck_assert_uint_eq(row2.len, row.len);
	ck_assert_uint_eq(row2.flags, row.flags);
	ck_assert_uint_eq(row2.extents.n, 2);
	ck_assert_uint_eq(row2.extents.v[0].disk, 0x123456789a);
	ck_assert_uint_eq(row2.extents.v[1].count, 14);
	ck_assert_int_eq(memcmp(row2.crcs, row.crcs, 16), 0);
	ck_assert_int_eq(memcmp(row2.dedupe, row.dedupe, 2 * sizeof(row.dedupe[0])), 0);
	n = chunk_pend_encode(&pend, pend_key, pend_bytes);
	ck_assert_int_eq(chunk_pend_decode(pend_key, pend_bytes, n, true, &pend2), 0);
	ck_assert_uint_eq(pend2.base, pend.base);
	ck_assert_uint_eq(pend2.first, 2);
	ck_assert_uint_eq(pend2.keep, 16);
	ck_assert_uint_eq(pend2.crcs[2], pend.crcs[2]);
	/* The same bytes under the key of another chunk are no row. */
	row_key[16] ^= 1;
	ck_assert_int_eq(chunk_row_decode(row_key, row_bytes, n, true, &row2),
	    ERR_DISK_DAMAGED);
}
END_TEST

/* Every turned bit and every cut is noticed. */
START_TEST(damage)
{
	size_t n = chunk_row_encode(&row, row_key, row_bytes);
	size_t m = chunk_pend_encode(&pend, pend_key, pend_bytes);

	for (size_t i = 0; i < n * 8; i++) {
		row_bytes[i / 8] ^= (uint8_t)(1 << i % 8);
		if (chunk_row_decode(row_key, row_bytes, n, true, &row2) !=
		    ERR_DISK_DAMAGED)
			ck_abort_msg("bit %zu", i);
		row_bytes[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	for (size_t i = 0; i < m * 8; i++) {
		pend_bytes[i / 8] ^= (uint8_t)(1 << i % 8);
		if (chunk_pend_decode(pend_key, pend_bytes, m, false, &pend2) !=
		    ERR_DISK_DAMAGED)
			ck_abort_msg("bit %zu", i);
		pend_bytes[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	for (size_t i = 0; i < n; i++)
		if (chunk_row_decode(row_key, row_bytes, i, true, &row2) == 0)
			ck_abort_msg("cut to %zu", i);
	for (size_t i = 0; i < m; i++)
		if (chunk_pend_decode(pend_key, pend_bytes, i, true, &pend2) == 0)
			ck_abort_msg("cut to %zu", i);
}
END_TEST

/* Rows with a good crc that say what cannot be. */
static const struct {
	const char *what;
	bool	 pend;
	unsigned at;
	uint8_t	 value;
	int	 rc;
} lies[] = {
	{ "as it is",			false, 5, 16, 0 },
	{ "format of the future",	false, 4, 2, ERR_DISK_NEWER },
	{ "chunks too small",		false, 5, 15, ERR_DISK_DAMAGED },
	{ "chunks too large",		false, 5, 27, ERR_DISK_DAMAGED },
	{ "unknown flag",		false, 6, 2, ERR_DISK_DAMAGED },
	{ "dedupe list too long",	false, 7, 9, ERR_DISK_DAMAGED },
	{ "longer than the chunk",	false, 18, 2, ERR_DISK_DAMAGED },
	{ "too many crcs",		false, 17, 0x20, ERR_DISK_DAMAGED },
	{ "too few extents",		false, 28, 1, ERR_DISK_DAMAGED },
	{ "far too many",		false, 31, 0xff, ERR_DISK_DAMAGED },
	{ "empty extent",		false, 32 + 64 + 2, 0, ERR_DISK_DAMAGED },
	{ "extents overlap",		false, 32 + 64 + 2, 9, ERR_DISK_DAMAGED },
	{ "in the label",		false, 32 + 64 + 9 + 5, 0, ERR_DISK_DAMAGED },
	{ "pending as it is",		true, 5, 16, 0 },
	{ "keeps too much",		true, 36, 17, ERR_DISK_DAMAGED },
	{ "first crc behind the end",	true, 40, 6, ERR_DISK_DAMAGED },
	{ "crcs behind the end",	true, 40, 3, ERR_DISK_DAMAGED },
	{ "unknown pending flag",	true, 6, 16, ERR_DISK_DAMAGED },
};

START_TEST(lie)
{
	uint8_t *b = lies[_i].pend ? pend_bytes : row_bytes;
	const uint8_t *key = lies[_i].pend ? pend_key : row_key;
	size_t n = lies[_i].pend ? chunk_pend_encode(&pend, key, b) :
	    chunk_row_encode(&row, key, b);
	uint32_t crc;
	int rc;

	b[lies[_i].at] = lies[_i].value;
	crc = crc32c(crc32c(0, key, CHUNK_KEY_BYTES), b + 4, n - 4);
	for (unsigned i = 0; i < 4; i++)
		b[i] = (uint8_t)(crc >> 8 * i);
	rc = lies[_i].pend ? chunk_pend_decode(key, b, n, true, &pend2) :
	    chunk_row_decode(key, b, n, true, &row2);
	ck_assert_msg(rc == lies[_i].rc, "%s: %s", lies[_i].what, err_name(rc));
}
END_TEST

START_TEST(apply)
{
	struct chunk_extents freed = { 0 };

	ck_assert_int_eq(chunk_row_apply(&row, &pend, &row3, &freed), 0);
	ck_assert_uint_eq(row3.version, pend.version);
	ck_assert_uint_eq(row3.len, 5 * 4096);
	ck_assert_uint_eq(row3.flags, 0);
	ck_assert_uint_eq(row3.crc_n, 5);
	ck_assert_uint_eq(row3.crcs[1], row.crcs[1]);
	ck_assert_uint_eq(row3.crcs[2], pend.crcs[0]);
	ck_assert_uint_eq(row3.crcs[4], pend.crcs[2]);
	ck_assert_uint_eq(row3.extents.n, 3);
	ck_assert_uint_eq(row3.extents.v[1].disk, 9000);
	ck_assert_uint_eq(freed.n, 1);
	ck_assert_uint_eq(freed.v[0].disk, 4096);
	/* One entry a client: 0xc1 moved to the front. */
	ck_assert_uint_eq(row3.dedupe_n, 2);
	ck_assert_uint_eq(row3.dedupe[0].seq, 200);
	ck_assert_uint_eq(row3.dedupe[1].client.b[0], 0xc0);
	/* Those that do not fit. */
	pend.base--;
	ck_assert_int_eq(chunk_row_apply(&row, &pend, &row3, NULL), ERR_DISK_DAMAGED);
	pend.base++;
	pend.len = 7 * 4096;			/* crcs of blocks 5 and 6: nowhere */
	ck_assert_int_eq(chunk_row_apply(&row, &pend, &row3, NULL), ERR_DISK_DAMAGED);
	pend.len = 5 * 4096;
	row.shift = 17;
	row.crc_n = 4;
	pend.shift = 26;
	pend.first = 1;
	ck_assert_int_eq(chunk_row_apply(&row, &pend, &row3, NULL), ERR_DISK_DAMAGED);
	chunk_extents_fini(&freed);
}
END_TEST

START_TEST(sizes)
{
	static const uint32_t want[] = { 4096, 4096, 4096, 4096, 4096, 4096, 4096, 8192,
	    16384, 32768, 65536 };

	for (unsigned s = CHUNK_SHIFT_MIN; s <= CHUNK_SHIFT_MAX; s++) {
		ck_assert_uint_eq(chunk_sum_bytes(s), want[s - CHUNK_SHIFT_MIN]);
		ck_assert_uint_le((1u << s) / chunk_sum_bytes(s), CHUNK_CRCS_MAX);
	}
	ck_assert_uint_eq(chunk_blocks(0, 4096), 0);
	ck_assert_uint_eq(chunk_blocks(1, 4096), 1);
	ck_assert_uint_eq(chunk_blocks(4096, 4096), 1);
	ck_assert_uint_eq(chunk_blocks(4097, 4096), 2);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("index");
	TCase *tc = tcase_create("index");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, golden);
	tcase_add_test(tc, round_trip);
	tcase_add_test(tc, damage);
	tcase_add_loop_test(tc, lie, 0, sizeof(lies) / sizeof(lies[0]));
	tcase_add_test(tc, apply);
	tcase_add_test(tc, sizes);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed > 0;
}
