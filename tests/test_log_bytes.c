/* SPDX-License-Identifier: MIT */
/* test_log_bytes.c - the bytes of the durable log.  tests/golden/log.2 pins them (GOLDEN=1
 * prints them), log.1 those that version 1 wrote. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "meta/log.h"
#include "tests/suite.h"

#define GOLDEN	"tests/golden/log.2"
#define GOLDEN_OLD "tests/golden/log.1"

static const struct meta_log_header golden_header = {
	.seq = 0x0102030405060708, .run = 9, .ring_bytes = 0x100000,
	.first_index = 100, .first_pos = 0x23450, .first_term = 3,
	.first_prev = 0xa1b2c3d4, .open_index = 120, .synced_index = 0x1234567890,
	.hard = { .term = 0x2233445566, .vote = 0x8877665544332211,
	    .owner = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 } },
};
static const struct meta_log_head golden_entry = {
	.prev = 0xcafe0102, .len = 5, .run = 9, .index = 0x1122334455667788,
	.pos = 0x99aabbccdd00, .term = 4, .type = 1, .back = 7,
};

static void
hex(char *out, const char *what, const uint8_t *p, size_t n)
{
	out += sprintf(out, "%s ", what);
	for (size_t i = 0; i < n; i++)
		out += sprintf(out, "%02x", p[i]);
	sprintf(out, "\n");
}

static void
golden_text(char *out)
{
	uint8_t block[META_LOG_BLOCK], entry[META_LOG_ENTRY + 5];
	struct meta_log_head h = golden_entry;

	meta_log_header_encode(&golden_header, block);
	hex(out, "header", block, 128);
	memcpy(entry + META_LOG_ENTRY, "hello", 5);
	meta_log_head_encode(&h, "hello", entry);
	hex(out + strlen(out), "entry", entry, sizeof(entry));
}

START_TEST(golden_bytes)
{
	char want[1024] = "", got[1024];
	FILE *f = fopen(GOLDEN, "r");

	ck_assert_ptr_nonnull(f);
	want[fread(want, 1, sizeof(want) - 1, f)] = '\0';
	fclose(f);
	golden_text(got);
	ck_assert_str_eq(got, want);
}
END_TEST

/* What version 1 wrote still opens, with a vote for nobody. */
START_TEST(version_1)
{
	uint8_t block[META_LOG_BLOCK] = { 0 }, again[META_LOG_BLOCK];
	struct meta_log_header h, want = golden_header;
	char text[512] = "";
	FILE *f = fopen(GOLDEN_OLD, "r");
	unsigned byte;

	ck_assert_ptr_nonnull(f);
	ck_assert_ptr_nonnull(fgets(text, sizeof(text), f));
	fclose(f);
	for (unsigned i = 0; i < 96; i++) {
		ck_assert_int_eq(sscanf(text + 7 + 2 * i, "%2x", &byte), 1);
		block[i] = (uint8_t)byte;
	}
	memset(&want.hard, 0, sizeof(want.hard));
	ck_assert_int_eq(meta_log_header_decode(&h, block), 0);
	meta_log_header_encode(&h, block);
	meta_log_header_encode(&want, again);
	ck_assert(memcmp(block, again, sizeof(block)) == 0);
}
END_TEST

START_TEST(header_decodes)
{
	static const struct { const char *what; size_t at; uint8_t xor; int rc; }
	cases[] = {
		{ "as written", 0, 0, 0 },
		{ "another magic", 0, 1, ERR_DISK_FOREIGN },
		{ "crc", 8, 1, ERR_CORRUPT },
		{ "a field", 40, 1, ERR_CORRUPT },
		{ "the zeros behind", 4095, 1, ERR_CORRUPT },
	};
	uint8_t block[META_LOG_BLOCK];
	struct meta_log_header h;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		meta_log_header_encode(&golden_header, block);
		block[cases[i].at] ^= cases[i].xor;
		ck_assert_msg(meta_log_header_decode(&h, block) == cases[i].rc,
		    "%s", cases[i].what);
	}
	meta_log_header_encode(&golden_header, block);
	ck_assert_int_eq(meta_log_header_decode(&h, block), 0);
	ck_assert(memcmp(&h, &golden_header, sizeof(h)) == 0);
}
END_TEST

START_TEST(entry_decodes)
{
	uint8_t bytes[META_LOG_ENTRY];
	struct meta_log_head h = golden_entry, back;

	meta_log_head_encode(&h, "hello", bytes);
	meta_log_head_decode(&back, bytes);
	ck_assert_uint_eq(back.crc, h.crc);
	ck_assert_uint_eq(back.prev, h.prev);
	ck_assert_uint_eq(back.len, 5);
	ck_assert_uint_eq(back.run, 9);
	ck_assert_uint_eq(back.index, h.index);
	ck_assert_uint_eq(back.pos, h.pos);
	ck_assert_uint_eq(back.term, 4);
	ck_assert_uint_eq(back.type, 1);
	ck_assert_uint_eq(back.back, 7);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("bytes");

	if (getenv("GOLDEN") != NULL) {
		char text[1024];

		golden_text(text);
		fputs(text, stdout);
		return 0;
	}
	tcase_add_test(t, golden_bytes);
	tcase_add_test(t, version_1);
	tcase_add_test(t, header_decodes);
	tcase_add_test(t, entry_decodes);
	return suite_run("log_bytes", t);
}
