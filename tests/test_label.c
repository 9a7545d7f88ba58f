/* SPDX-License-Identifier: MIT */
/* test_label.c - labels: bytes, damage, which copy is believed. */
#include "chunk/label.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "conf/crc32c.h"
#include "conf/err.h"

static const struct chunk_label label = {
	.disk_id = { { 0xd1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 } },
	.epoch = 0x0102030405060708, .data_bytes = 9ull << 30,
};

static void
reseal(uint8_t *b)
{
	uint32_t crc = crc32c(0, b + 12, CHUNK_LABEL_BYTES - 12);

	for (unsigned i = 0; i < 4; i++)
		b[8 + i] = (uint8_t)(crc >> 8 * i);
}

START_TEST(golden)
{
	/* The first 52 bytes; the rest is zero. */
	static const uint8_t want[52] = {
		'F', 'S', 'D', 'D', 'I', 'S', 'K', '1', 0x6f, 0x6e, 0x4b, 0x4e, 1, 0, 0, 0,
		0xd1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
		8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0x40, 2, 0, 0, 0, 0, 0x10, 0, 0,
	};
	uint8_t b[CHUNK_LABEL_BYTES];
	struct chunk_label l;

	chunk_label_encode(&label, b);
	for (unsigned i = 0; i < 52; i++)
		ck_assert_msg(b[i] == want[i], "byte %u is 0x%02x", i, b[i]);
	for (unsigned i = 52; i < CHUNK_LABEL_BYTES; i++)
		if (b[i] != 0)
			ck_abort_msg("byte %u", i);
	ck_assert_int_eq(chunk_label_decode(b, &l), 0);
	ck_assert(uid128_eq(&l.disk_id, &label.disk_id));
	ck_assert_uint_eq(l.epoch, label.epoch);
	ck_assert_uint_eq(l.data_bytes, label.data_bytes);
}
END_TEST

static const struct {
	const char *what;
	unsigned at;
	uint8_t	 value;
	bool	 reseal;
	int	 rc;
} damages[] = {
	{ "magic",			0, 'f', true,  ERR_DISK_FOREIGN },
	{ "crc",			8, 0xff, false, ERR_DISK_DAMAGED },
	{ "one byte",			33, 0xff, false, ERR_DISK_DAMAGED },
	{ "one byte of the rest",	4095, 1, false, ERR_DISK_DAMAGED },
	{ "newer",			12, 2, true, ERR_DISK_NEWER },
	{ "newer, bad crc",		12, 2, false, ERR_DISK_DAMAGED },
	{ "version 0",			12, 0, true, ERR_DISK_DAMAGED },
	{ "size not in blocks",		40, 1, true, ERR_DISK_DAMAGED },
	{ "size too large",		47, 0x7f, true, ERR_DISK_DAMAGED },
	{ "another block size",		49, 0x20, true, ERR_DISK_DAMAGED },
	{ "spare part is used",		60, 1, true, ERR_DISK_DAMAGED },
};

START_TEST(damage)
{
	uint8_t b[CHUNK_LABEL_BYTES];
	struct chunk_label l;

	chunk_label_encode(&label, b);
	b[damages[_i].at] = damages[_i].value;
	if (damages[_i].reseal)
		reseal(b);
	ck_assert_msg(chunk_label_decode(b, &l) == damages[_i].rc, "%s", damages[_i].what);
}
END_TEST

/* Copies: epoch (0: zeros, -1: damaged, -2: newer); what is chosen. */
static const struct {
	const char *what;
	int	 copy[2];
	int	 rc;
	uint64_t epoch;
	unsigned stale;
} choices[] = {
	{ "both the same",	{ 7, 7 },	0, 7, 0 },
	{ "first is newer",	{ 8, 7 },	0, 8, 2 },
	{ "second is newer",	{ 8, 9 },	0, 9, 1 },
	{ "first is damaged",	{ -1, 9 },	0, 9, 1 },
	{ "second is empty",	{ 3, 0 },	0, 3, 2 },
	{ "none",		{ 0, 0 },	ERR_DISK_FOREIGN, 0, 0 },
	{ "both damaged",	{ -1, -1 },	ERR_DISK_DAMAGED, 0, 0 },
	{ "one damaged",	{ 0, -1 },	ERR_DISK_DAMAGED, 0, 0 },
	{ "one of the future",	{ 5, -2 },	ERR_DISK_NEWER, 0, 0 },
};

START_TEST(choice)
{
	uint8_t b[CHUNK_LABEL_COPIES * CHUNK_LABEL_BYTES];
	struct chunk_label l = label;
	unsigned stale;
	int rc;

	memset(b, 0, sizeof(b));
	for (unsigned i = 0; i < 2; i++) {
		uint8_t *at = b + i * CHUNK_LABEL_BYTES;

		if (choices[_i].copy[i] == 0)
			continue;
		l.epoch = choices[_i].copy[i] > 0 ? (uint64_t)choices[_i].copy[i] : 1;
		chunk_label_encode(&l, at);
		if (choices[_i].copy[i] == -1)
			at[40] ^= 1;
		if (choices[_i].copy[i] == -2) {
			at[12] = 9;
			reseal(at);
		}
	}
	rc = chunk_label_choose(b, &l, &stale);
	ck_assert_msg(rc == choices[_i].rc, "%s: %s", choices[_i].what, err_name(rc));
	if (rc == 0) {
		ck_assert_uint_eq(l.epoch, choices[_i].epoch);
		ck_assert_uint_eq(stale, choices[_i].stale);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("label");
	TCase *tc = tcase_create("label");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, golden);
	tcase_add_loop_test(tc, damage, 0, sizeof(damages) / sizeof(damages[0]));
	tcase_add_loop_test(tc, choice, 0, sizeof(choices) / sizeof(choices[0]));
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed > 0;
}
