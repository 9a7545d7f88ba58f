/* SPDX-License-Identifier: MIT */
/* test_msg.c - msgpack, the message codec and the tables of messages and calls.
 *
 * Bytes are made from the rows' type names by a second writer, msgpack-c, which shares
 * nothing with ours; tests/golden/msg.1 pins those of wire version 1.  ACCEPT=1 in
 * the environment brings that file and fsd-proto(7) up to the rows as they are now. */
#include <assert.h>
#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>

#include "conf/err.h"
#include "conf/rand.h"
#include "net/msg_all.h"
#include "net/msg_define.h"
#include "tests/suite.h"

#define GOLDEN "tests/golden/msg.1"
#define MANUAL "man/fsd-proto.7"
#define ARENA_BYTES (1u << 20)

static struct msg_arena arena;

static void
setup(void)
{
	msg_arena_init(&arena, ARENA_BYTES);
}

static void
teardown(void)
{
	msg_arena_fini(&arena);
}

/* ---- msgpack ---- */

static const struct int_case {
	const char *what;
	int64_t	    value;
	const char *hex;
} ints[] = {
	{ "zero",		0,			"00" },
	{ "largest fixint",	127,			"7f" },
	{ "first u8",		128,			"cc80" },
	{ "last u8",		255,			"ccff" },
	{ "first u16",		256,			"cd0100" },
	{ "last u16",		65535,			"cdffff" },
	{ "first u32",		65536,			"ce00010000" },
	{ "last u32",		4294967295,		"ceffffffff" },
	{ "first u64",		4294967296,		"cf0000000100000000" },
	{ "last i64",		INT64_MAX,		"cf7fffffffffffffff" },
	{ "minus one",		-1,			"ff" },
	{ "smallest fixint",	-32,			"e0" },
	{ "first i8",		-33,			"d0df" },
	{ "last i8",		-128,			"d080" },
	{ "first i16",		-129,			"d1ff7f" },
	{ "last i16",		-32768,			"d18000" },
	{ "first i32",		-32769,			"d2ffff7fff" },
	{ "last i32",		INT32_MIN,		"d280000000" },
	{ "first i64",		INT64_C(-2147483649),	"d3ffffffff7fffffff" },
	{ "first of all",	INT64_MIN,		"d38000000000000000" },
};

static size_t
unhex(const char *hex, uint8_t *out, size_t cap)
{
	size_t n = 0;
	unsigned byte;

	for (; sscanf(hex, "%2x", &byte) == 1; hex += 2) {
		ck_assert_uint_lt(n, cap);
		out[n++] = (uint8_t)byte;
	}
	return n;
}

static void
tohex(const uint8_t *p, size_t n, char *out)
{
	for (size_t i = 0; i < n; i++)
		sprintf(out + 2 * i, "%02x", p[i]);
	out[2 * n] = '\0';
}

START_TEST(integers)
{
	const struct int_case *c = &ints[_i];
	struct msgpack_writer w;
	struct msgpack_reader r;
	uint8_t buf[16];
	char hex[40];

	msgpack_writer_init(&w, buf, sizeof(buf));
	msgpack_put_i64(&w, c->value);
	tohex(buf, msgpack_written(&w), hex);
	ck_assert_msg(strcmp(hex, c->hex) == 0, "%s: %s", c->what, hex);
	msgpack_reader_init(&r, buf, msgpack_written(&w));
	ck_assert_msg(msgpack_get_i64(&r, INT64_MIN, INT64_MAX) == c->value &&
	    r.rc == 0, "%s", c->what);
	ck_assert_uint_eq(msgpack_left(&r), 0);
	/* every shorter buffer and input fails and touches nothing beyond */
	for (size_t n = 0; n < msgpack_written(&w); n++) {
		struct msgpack_writer cut;
		uint8_t small[16] = { 0 };

		msgpack_writer_init(&cut, small, n);
		msgpack_put_i64(&cut, c->value);
		ck_assert(cut.failed && msgpack_written(&cut) == 0 &&
		    small[n] == 0);
		msgpack_reader_init(&r, buf, n);
		msgpack_get_i64(&r, INT64_MIN, INT64_MAX);
		ck_assert_int_eq(r.rc, ERR_BAD_MESSAGE);
	}
	msgpack_reader_init(&r, buf, msgpack_written(&w));
	msgpack_get_u64(&r, UINT64_MAX);
	ck_assert_msg((r.rc == 0) == (c->value >= 0), "%s", c->what);
}
END_TEST

static const struct range_case {
	const char *what, *hex;
	int64_t	    min, max;
	int	    ok;
} ranges[] = {
	{ "u8 in i32",		"cc80",			INT32_MIN, INT32_MAX, 1 },
	{ "largest i32",	"ce7fffffff",		INT32_MIN, INT32_MAX, 1 },
	{ "above i32",		"ce80000000",		INT32_MIN, INT32_MAX, 0 },
	{ "below i32",		"d3ffffffff7fffffff",	INT32_MIN, INT32_MAX, 0 },
	{ "u64 above i64",	"cf8000000000000000",	INT64_MIN, INT64_MAX, 0 },
	{ "positive as i64",	"d3000000000000002a",	0, 42, 1 },
	{ "longer than needed",	"cf000000000000002a",	0, 42, 1 },
	{ "below a minimum",	"05",			6, 42, 0 },
	{ "above negative",	"00",			-5, -1, 0 },
	{ "nil",		"c0",			0, 42, 0 },
	{ "true",		"c3",			0, 42, 0 },
	{ "float",		"ca00000000",		0, 42, 0 },
	{ "string",		"a0",			0, 42, 0 },
};

START_TEST(integer_ranges)
{
	const struct range_case *c = &ranges[_i];
	struct msgpack_reader r;
	uint8_t buf[16];
	int64_t v;

	msgpack_reader_init(&r, buf, unhex(c->hex, buf, sizeof(buf)));
	v = msgpack_get_i64(&r, c->min, c->max);
	ck_assert_msg((r.rc == 0) == c->ok, "%s: %d", c->what, r.rc);
	ck_assert_msg(c->ok || (v == 0 && r.why != NULL), "%s", c->what);
}
END_TEST

static const struct skip_case {
	const char *what, *hex;
	int	    ok;
} skips[] = {
	{ "nil",			"c0", 1 },
	{ "never used byte",		"c1", 0 },
	{ "false",			"c2", 1 },
	{ "float 32",			"ca00000000", 1 },
	{ "float 64",			"cb0000000000000000", 1 },
	{ "float 64 cut",		"cb00000000000000", 0 },
	{ "bin 8",			"c4020000", 1 },
	{ "bin 16",			"c500020000", 1 },
	{ "bin 32",			"c6000000020000", 1 },
	{ "bin 32 of 4 GiB",		"c6ffffffff0000", 0 },
	{ "ext 8",			"c702010000", 1 },
	{ "ext 16 cut",			"c8000201", 0 },
	{ "ext 32",			"c900000002010000", 1 },
	{ "fixext 1",			"d40100", 1 },
	{ "fixext 16",			"d801"
	    "00000000000000000000000000000000", 1 },
	{ "fixext 16 cut",		"d8010000", 0 },
	{ "fixstr",			"a3616263", 1 },
	{ "str 8",			"d903616263", 1 },
	{ "str 32 cut",			"db00000003", 0 },
	{ "fixarray",			"93010203", 1 },
	{ "fixarray cut",		"930102", 0 },
	{ "array 32 of 4 G",		"ddffffffff01", 0 },
	{ "map",			"82a16101a162c0", 1 },
	{ "map cut",			"82a16101a162", 0 },
	{ "map 32",			"df000000010102", 1 },
	{ "arrays of arrays, no end",	"dd00000002dd00000002dd00000002", 0 },
	{ "nothing",			"", 0 },
};

START_TEST(skipping)
{
	const struct skip_case *c = &skips[_i];
	struct msgpack_reader r;
	uint8_t buf[64];

	msgpack_reader_init(&r, buf, unhex(c->hex, buf, sizeof(buf)));
	msgpack_skip(&r);
	ck_assert_msg((r.rc == 0) == c->ok, "%s: %d", c->what, r.rc);
	ck_assert_msg(msgpack_left(&r) == 0, "%s", c->what);
}
END_TEST

/* A megabyte of "array of one" is passed without recursion. */
START_TEST(skip_is_flat)
{
	size_t n = 1 << 20;
	uint8_t *deep = malloc(n);
	struct msgpack_reader r;

	memset(deep, 0x91, n);
	deep[n - 1] = 0x07;
	msgpack_reader_init(&r, deep, n);
	msgpack_skip(&r);
	ck_assert_int_eq(r.rc, 0);
	ck_assert_uint_eq(msgpack_left(&r), 0);
	free(deep);
}
END_TEST

/* ---- rows ---- */

#define MSG_ONE(F) \
	F(u8,  a, "first") \
	F(str, b, "second")
#define MSG_TWO(F) \
	F(u8,       a,    "first") \
	F(str,      b,    "second") \
	F(u16,      c,    "added later") \
	F(list_one, ones, "added later")
#define MSG_MIX(F) \
	F(i32,        i,      "number") \
	F(uid,        u,      "id") \
	F(chunk,      c,      "chunk") \
	F(one,        nested, "message") \
	F(list_str,   names,  "strings") \
	F(list_chunk, chunks, "chunks")
MSG_DECLARE(one, MSG_ONE)
MSG_DECLARE(two, MSG_TWO)
MSG_DECLARE(mix, MSG_MIX)
MSG_DEFINE(one, MSG_ONE)
MSG_DEFINE(two, MSG_TWO)
MSG_DEFINE(mix, MSG_MIX)

START_TEST(old_reads_new)
{
	struct msg_one inner = { 9, msg_str("x") }, old;
	struct msg_two new = { 7, msg_str("seven"), 300, { &inner, 1 } };
	uint8_t buf[64];
	int n = msg_encode(&msg_type_two, &new, buf, sizeof(buf));

	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(msg_decode(&msg_type_one, buf, (size_t)n, &arena, &old,
	    NULL), 0);
	ck_assert_uint_eq(old.a, 7);
	ck_assert(old.b.n == 5 && memcmp(old.b.p, "seven", 5) == 0);
}
END_TEST

START_TEST(new_reads_old)
{
	struct msg_one old = { 7, msg_str("seven") };
	struct msg_two new;
	uint8_t buf[64];
	int n = msg_encode(&msg_type_one, &old, buf, sizeof(buf));

	memset(&new, 0xff, sizeof(new));
	ck_assert_int_eq(msg_decode(&msg_type_two, buf, (size_t)n, &arena, &new,
	    NULL), 0);
	ck_assert_uint_eq(new.a, 7);
	ck_assert_uint_eq(new.c, 0);
	ck_assert(new.ones.v == NULL && new.ones.n == 0);
	/* and an empty one is all zero */
	ck_assert_int_eq(msg_decode(&msg_type_two, "\x90", 1, &arena, &new,
	    NULL), 0);
	ck_assert_uint_eq(new.a, 0);
}
END_TEST

static const struct bad_case {
	const char *what, *hex;
	int	    rc;
} bads[] = {
	{ "nothing",			"", ERR_BAD_MESSAGE },
	{ "a number",			"07", ERR_BAD_MESSAGE },
	{ "a map",			"810102", ERR_BAD_MESSAGE },
	{ "exact",			"9407a1610090", 0 },
	{ "one byte more",		"9407a161009000", ERR_BAD_MESSAGE },
	{ "u8 too large",		"94cd0100a1610090", ERR_BAD_MESSAGE },
	{ "u8 negative",		"94ffa1610090", ERR_BAD_MESSAGE },
	{ "string too long",		"9407d9ff610090", ERR_BAD_MESSAGE },
	{ "bin for str",		"9407c401610090", 0 },
	{ "list too long",		"9407a16100ddffffffff", ERR_BAD_MESSAGE },
	{ "more rows than bytes",	"dc010007a1610090", ERR_BAD_MESSAGE },
	{ "unknown row",		"9507a1610090810102", 0 },
	{ "unknown row broken",		"9507a1610090c1", ERR_BAD_MESSAGE },
	{ "list of two",		"9407a1610092910792026162",
	    ERR_BAD_MESSAGE },
	{ "list of two rows",		"9407a161009291079202a162", 0 },
	{ "nil for a list",		"9407a16100c0", ERR_BAD_MESSAGE },
};

START_TEST(malformed)
{
	const struct bad_case *c = &bads[_i];
	uint8_t buf[64];
	size_t n = unhex(c->hex, buf, sizeof(buf));
	struct msg_two m;
	const char *why = NULL;
	int rc = msg_decode(&msg_type_two, buf, n, &arena, &m, &why);

	ck_assert_msg(rc == c->rc, "%s: %d %s", c->what, rc, why);
	ck_assert_msg((why != NULL) == (rc != 0), "%s", c->what);
	if (rc != 0)
		ck_assert_msg(m.a == 0 && m.b.p == NULL && m.ones.v == NULL,
		    "%s", c->what);
}
END_TEST

/* A list whose items are larger in memory than on the wire ends at the bound. */
START_TEST(arena_bound)
{
	size_t n = 100003;
	uint8_t *in = malloc(n);
	struct msg_readdir_rep m;
	const char *why = NULL;

	memset(in, 0x90, n);		/* 100 k empty entries, 1 byte each */
	memcpy(in, "\x91\xdd\x00\x01\x86\x9d", 6);	/* 99997 of them */
	ck_assert_int_eq(msg_decode(&msg_type_readdir_rep, in, n, &arena, &m,
	    &why), -ENOMEM);
	ck_assert_ptr_nonnull(why);
	ck_assert_uint_le(arena.used_bytes, ARENA_BYTES);
	free(in);
}
END_TEST

START_TEST(arena_hands_out)
{
	struct msg_arena a;
	unsigned char *p;
	size_t total = 0;

	msg_arena_init(&a, 10000);
	for (size_t n = 0; (p = msg_arena_get(&a, n)) != NULL; n += 7) {
		ck_assert_uint_eq((uintptr_t)p % 16, 0);
		for (size_t i = 0; i < n; i++)
			ck_assert_uint_eq(p[i], 0);
		memset(p, 0xff, n);
		total += n;
	}
	ck_assert_uint_gt(total, 9000);
	ck_assert_uint_le(total, 10000);
	ck_assert_ptr_null(msg_arena_get(&a, SIZE_MAX));
	ck_assert_ptr_null(msg_arena_get(&a, SIZE_MAX - 20));
	msg_arena_fini(&a);
	ck_assert_ptr_nonnull(msg_arena_get(&a, 10000));	/* usable again */
	msg_arena_fini(&a);
}
END_TEST

START_TEST(printing)
{
	struct msg_str names[2] = { { "a\n\"", 3 }, { "b\\\x1b\xc3", 4 } };
	struct chunk_id chunk = { 0xabc, 7 };
	struct msg_mix m = { -5, { { 1, 2 } }, { 1, 2 },
	    { 3, msg_str("in") }, { names, 2 }, { &chunk, 1 } };
	static const char want[] =
	    "i=-5 u=01020000000000000000000000000000 c=1.2 "
	    "nested={a=3 b=\"in\"} names=[\"a\\x0a\\\"\" \"b\\\\\\x1b\\xc3\"] "
	    "chunks=[abc.7]";
	char out[512];

	msg_print(&msg_type_mix, &m, out, sizeof(out));
	ck_assert_str_eq(out, want);
	for (size_t cap = 0; cap < sizeof(want) + 4; cap++) {
		memset(out, 'Z', sizeof(out));
		msg_print(&msg_type_mix, &m, out, cap);
		ck_assert(cap == 0 || strlen(out) < cap);
		ck_assert_int_eq(out[cap], 'Z');
	}
}
END_TEST

START_TEST(encode_bound)
{
	struct msg_two m = { 7, msg_str("seven"), 300, { NULL, 0 } };
	uint8_t buf[64], zero[64] = { 0 };
	int n = msg_encode(&msg_type_two, &m, buf, sizeof(buf));

	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(msg_encode(&msg_type_two, &m, buf, (size_t)n), n);
	for (int cap = 0; cap < n; cap++) {
		memset(buf, 0, sizeof(buf));
		ck_assert_int_eq(msg_encode(&msg_type_two, &m, buf,
		    (size_t)cap), -EMSGSIZE);
		ck_assert_mem_eq(buf + cap, zero, sizeof(buf) - (size_t)cap);
	}
}
END_TEST

/* ---- every message, through the second writer ---- */

static const struct msg_type *
type_named(const char *name)
{
	const struct msg_type *t;

	for (unsigned i = 0; (t = msg_type_at(i)) != NULL; i++)
		if (strcmp(t->name, name) == 0)
			return t;
	return NULL;
}

static void pack_message(msgpack_packer *pk, const struct msg_type *t,
    struct rand *r, unsigned depth);

static uint64_t
number(struct rand *r, unsigned bits)
{
	return rand_u64(r) >> (64 - bits + rand_below(r, bits));
}

static void
pack_value(msgpack_packer *pk, const char *type, struct rand *r, unsigned depth)
{
	static const struct { const char *name; unsigned bits; } unsigneds[] = {
		{ "u8", 8 }, { "u16", 16 }, { "u32", 32 }, { "u64", 64 }
	};
	char text[300];
	size_t n;

	assert(depth < MSG_DEPTH_MAX);
	for (unsigned i = 0; i < 4; i++)
		if (strcmp(type, unsigneds[i].name) == 0) {
			msgpack_pack_uint64(pk, number(r, unsigneds[i].bits));
			return;
		}
	if (strncmp(type, "list_", 5) == 0 && type_named(type) == NULL) {
		n = rand_below(r, 10) == 0 ? 20 : rand_below(r, 4);
		if (depth > 3)
			n = rand_below(r, 2);
		msgpack_pack_array(pk, n);
		for (; n > 0; n--)
			pack_value(pk, type + 5, r, depth + 1);
	} else if (strcmp(type, "i32") == 0)
		msgpack_pack_int64(pk, (int64_t)number(r, 31) *
		    (rand_chance(r, 1, 2) ? -1 : 1));
	else if (strcmp(type, "i64") == 0)
		msgpack_pack_int64(pk, (int64_t)number(r, 63) *
		    (rand_chance(r, 1, 2) ? -1 : 1));
	else if (strcmp(type, "uid") == 0) {
		rand_bytes(r, text, 16);
		msgpack_pack_bin(pk, 16);
		msgpack_pack_bin_body(pk, text, 16);
	} else if (strcmp(type, "chunk") == 0) {
		msgpack_pack_array(pk, 2);
		msgpack_pack_uint64(pk, number(r, 64));
		msgpack_pack_uint64(pk, number(r, 32));
	} else if (strcmp(type, "str") == 0) {
		n = rand_below(r, 10) == 0 ? 256 : rand_below(r, 40);
		for (size_t i = 0; i < n; i++)
			text[i] = (char)('a' + rand_below(r, 26));
		msgpack_pack_str(pk, n);
		msgpack_pack_str_body(pk, text, n);
	} else {
		assert(type_named(type) != NULL);
		pack_message(pk, type_named(type), r, depth + 1);
	}
}

static void
pack_message(msgpack_packer *pk, const struct msg_type *t, struct rand *r,
    unsigned depth)
{
	size_t n = 0;

	while (t->rows[n].name != NULL)
		n++;
	msgpack_pack_array(pk, n);
	for (size_t i = 0; i < n; i++)
		pack_value(pk, t->rows[i].type, r, depth);
}

/* Our codec gives back exactly the bytes that msgpack-c made; or, when rows were added
 * since (@grown), bytes that mean the same. */
static void
check_round_trip(const struct msg_type *t, const uint8_t *p, size_t n, bool grown)
{
	static uint8_t out[ARENA_BYTES];
	_Alignas(16) char m[1024];
	const char *why = "";
	int rc;

	ck_assert_uint_le(t->size, sizeof(m));
	rc = msg_decode(t, p, n, &arena, m, &why);
	ck_assert_msg(rc == 0, "%s: %d %s", t->name, rc, why);
	rc = msg_encode(t, m, out, sizeof(out));
	if (grown && rc > (int)n) {
		static char before[100000], after[100000];

		msg_print(t, m, before, sizeof(before));
		ck_assert_int_eq(msg_decode(t, out, (size_t)rc, &arena, m,
		    NULL), 0);
		msg_print(t, m, after, sizeof(after));
		ck_assert_str_eq(before, after);
	} else {
		ck_assert_msg(rc == (int)n, "%s: %d of %zu bytes", t->name, rc,
		    n);
		ck_assert_msg(memcmp(out, p, n) == 0, "%s", t->name);
	}
	msg_arena_fini(&arena);
}

START_TEST(all_messages)
{
	const struct msg_type *t;
	msgpack_sbuffer sb;
	msgpack_packer pk;
	struct rand r;

	msgpack_sbuffer_init(&sb);
	msgpack_packer_init(&pk, &sb, msgpack_sbuffer_write);
	for (uint64_t seed = 1; seed <= 50; seed++) {
		rand_seed(&r, seed);
		for (unsigned i = 0; (t = msg_type_at(i)) != NULL; i++) {
			msgpack_sbuffer_clear(&sb);
			pack_message(&pk, t, &r, 0);
			check_round_trip(t, (uint8_t *)sb.data, sb.size, false);
		}
	}
	msgpack_sbuffer_destroy(&sb);
}
END_TEST

/* Whatever bytes arrive: a clean answer, never a read beyond them (ASan). */
START_TEST(damaged_bytes)
{
	_Alignas(16) char m[1024];
	const struct msg_type *t;
	msgpack_sbuffer sb;
	msgpack_packer pk;
	struct rand r;
	char text[200];

	unsigned types = 0;

	while (msg_type_at(types) != NULL)
		types++;
	rand_seed(&r, 77);
	msgpack_sbuffer_init(&sb);
	msgpack_packer_init(&pk, &sb, msgpack_sbuffer_write);
	for (unsigned round = 0; round < 20000; round++) {
		uint8_t *copy;
		size_t n;

		t = msg_type_at((unsigned)rand_below(&r, types));
		msgpack_sbuffer_clear(&sb);
		pack_message(&pk, t, &r, 0);
		n = rand_chance(&r, 1, 2) ? sb.size : rand_below(&r, sb.size + 1);
		copy = malloc(n + 1);
		memcpy(copy, sb.data, n);
		for (uint64_t k = rand_below(&r, 4); k > 0 && n > 0; k--)
			copy[rand_below(&r, n)] = (uint8_t)rand_u64(&r);
		if (msg_decode(t, copy, n, &arena, m, NULL) == 0)
			msg_print(t, m, text, sizeof(text));
		msg_arena_fini(&arena);
		free(copy);
	}
	msgpack_sbuffer_destroy(&sb);
}
END_TEST

/* Line: name of the message, its bytes in hex, from one seed.  Lines are only added, by
 * ACCEPT=1 when rows were; new code reads all old ones. */
static void
print_golden(FILE *out)
{
	const struct msg_type *t;
	msgpack_sbuffer sb;
	msgpack_packer pk;
	struct rand r;

	msgpack_sbuffer_init(&sb);
	msgpack_packer_init(&pk, &sb, msgpack_sbuffer_write);
	for (unsigned i = 0; (t = msg_type_at(i)) != NULL; i++) {
		rand_seed(&r, 1);
		msgpack_sbuffer_clear(&sb);
		pack_message(&pk, t, &r, 2);	/* short lists */
		fprintf(out, "%s ", t->name);
		for (size_t k = 0; k < sb.size; k++)
			fprintf(out, "%02x", (uint8_t)sb.data[k]);
		fputc('\n', out);
	}
	msgpack_sbuffer_destroy(&sb);
}

static void
accept_golden(void)
{
	char *now = NULL, *have = calloc(1, 1 << 20), *end;
	size_t n;
	FILE *f = open_memstream(&now, &n);

	print_golden(f);
	fclose(f);
	f = fopen(GOLDEN, "a+");
	ck_assert_ptr_nonnull(f);
	rewind(f);
	n = fread(have, 1, (1 << 20) - 1, f);
	for (char *line = now; *line != '\0'; line = end + 1) {
		end = strchr(line, '\n');
		*end = '\0';
		if (strstr(have, line) == NULL)
			fprintf(f, "%s\n", line);
	}
	fclose(f);
	free(have);
	free(now);
}

START_TEST(golden_bytes)
{
	FILE *f;
	static char line[20000];
	static uint8_t bytes[10000];
	unsigned lines = 0;

	if (getenv("ACCEPT") != NULL)
		accept_golden();
	f = fopen(GOLDEN, "r");
	ck_assert_msg(f != NULL, "%s: %s", GOLDEN, strerror(errno));
	while (fgets(line, sizeof(line), f) != NULL) {
		char *sp = strchr(line, ' ');
		const struct msg_type *t;

		ck_assert_ptr_nonnull(sp);
		*sp = '\0';
		t = type_named(line);
		ck_assert_msg(t != NULL, "%s has gone", line);
		check_round_trip(t, bytes, unhex(sp + 1, bytes, sizeof(bytes)),
		    true);
		lines++;
	}
	fclose(f);
	ck_assert_uint_ge(lines, 66);
}
END_TEST

/* ---- fsd-proto(7) ---- */

/* From the line after .Sh CALLS' text on: calls, then messages, as mdoc. */
static void
print_manual(FILE *out)
{
	const struct msg_method *m;
	const struct msg_type *t;
	const char *service = "";

	for (unsigned i = 0; (m = msg_method_at(i)) != NULL; i++) {
		if (strcmp(service, m->service) != 0)
			fprintf(out, "%s.Ss Calls of the %s service\n"
			    ".Bl -tag -width Ds\n", i == 0 ? "" : ".El\n",
			    m->service);
		service = m->service;
		fprintf(out, ".It Li 0x%04x Cm %s\nRequest\n.Vt %s ,\nreply\n"
		    ".Vt %s ;\nagain: %s.\n", m->id, m->name, m->request->name,
		    m->reply->name, m->retry);
	}
	fputs(".El\n.Sh MESSAGE TABLES\n.Bl -tag -width Ds\n", out);
	for (unsigned i = 0; (t = msg_type_at(i)) != NULL; i++) {
		fprintf(out, ".It Vt %s\n.Bl -tag -width Ds -compact\n", t->name);
		for (const struct msg_row *r = t->rows; r->name != NULL; r++)
			fprintf(out, ".It Va %s : Vt %s\n%s\n", r->name,
			    r->type, r->help);
		fputs(".El\n", out);
	}
	fputs(".El\n", out);
}

static char *
read_page(size_t *n)
{
	FILE *f = fopen(MANUAL, "r");
	char *page = calloc(1, 1 << 18);

	ck_assert_msg(f != NULL, "%s: %s", MANUAL, strerror(errno));
	*n = fread(page, 1, (1 << 18) - 1, f);
	fclose(f);
	return page;
}

/* The tables of the page are what the rows say; ACCEPT=1 makes them so. */
START_TEST(manual_page)
{
	size_t n, table_n;
	char *page = read_page(&n), *table = NULL, *from, *to;
	FILE *f = open_memstream(&table, &table_n);

	print_manual(f);
	fclose(f);
	if (getenv("ACCEPT") != NULL) {
		from = strstr(page, ".Ss Calls of the manager");
		to = strstr(page, ".Sh SEE ALSO");
		ck_assert(from != NULL && to != NULL && from < to);
		f = fopen(MANUAL, "w");
		fprintf(f, "%.*s%s%s", (int)(from - page), page, table, to);
		fclose(f);
		free(page);
		page = read_page(&n);
	}
	ck_assert_msg(strstr(page, table) != NULL,
	    MANUAL " is not what the rows say: ACCEPT=1 build/tests/test_msg");
	free(page);
	free(table);
}
END_TEST

/* One message pinned by hand, field by field. */
START_TEST(golden_read)
{
	struct msg_read_item item = { { 0x1122, 3 }, 4096, 65536 };
	struct msg_read m = { 7, 2, 9, { &item, 1 } };
	uint8_t buf[64];
	char hex[130];

	tohex(buf, (size_t)msg_encode(&msg_type_read, &m, buf, sizeof(buf)), hex);
	ck_assert_str_eq(hex, "94" "07" "02" "09" "91"
	    "93" "92" "cd1122" "03" "cd1000" "ce00010000");
}
END_TEST

START_TEST(call_table)
{
	const struct msg_method *m;
	unsigned i;

	for (i = 0; (m = msg_method_at(i)) != NULL; i++) {
		ck_assert_ptr_eq(msg_method(m->id), m);
		ck_assert(m->request->size > 0 && m->reply->size > 0);
		ck_assert_ptr_eq(type_named(m->reply->name), m->reply);
		ck_assert_str_eq(m->service, m->id >> 8 == 1 ? "manager" :
		    m->id >> 8 == 2 ? "metadata" :
		    m->id >> 8 == 3 ? "storage" :
		    m->id >> 8 == 4 ? "raft" : "bench");
	}
	ck_assert_uint_ge(i, 36);
	ck_assert_ptr_null(msg_method(0));
	ck_assert_ptr_null(msg_method(0x0300));
	ck_assert_ptr_null(msg_method(0xffff));
	ck_assert_str_eq(msg_method(MSG_register)->name, "register");
	ck_assert_str_eq(msg_method(MSG_read)->request->name, "read");
	ck_assert_int_eq(MSG_write, 0x0302);
	for (i = 0; msg_type_at(i) != NULL; i++)
		ck_assert_ptr_eq(type_named(msg_type_at(i)->name), msg_type_at(i));
}
END_TEST

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, integers, 0, N(ints));
	tcase_add_loop_test(t, integer_ranges, 0, N(ranges));
	tcase_add_loop_test(t, skipping, 0, N(skips));
	tcase_add_test(t, skip_is_flat);
	tcase_add_test(t, old_reads_new);
	tcase_add_test(t, new_reads_old);
	tcase_add_loop_test(t, malformed, 0, N(bads));
	tcase_add_test(t, arena_bound);
	tcase_add_test(t, arena_hands_out);
	tcase_add_test(t, printing);
	tcase_add_test(t, encode_bound);
	tcase_add_test(t, all_messages);
	tcase_add_test(t, damaged_bytes);
	tcase_add_test(t, golden_bytes);
	tcase_add_test(t, golden_read);
	tcase_add_test(t, call_table);
	tcase_add_test(t, manual_page);
	return suite_run("msg", t);
}
