/* SPDX-License-Identifier: MIT */
/* test_conf_base.c - the ground floor: map, bytes, rand, mem, crc32c, err, ids, list, log. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/bytes.h"
#include "conf/crc32c.h"
#include "conf/err.h"
#include "conf/ids.h"
#include "conf/list.h"
#include "conf/log.h"
#include "conf/map.h"
#include "conf/mem.h"
#include "conf/rand.h"
#include "tests/suite.h"

/* ---- map ---- */

/* Random puts and deletes against an array; keys that share their low bits too. */
START_TEST(map_model)
{
	enum { KEYS = 400 };
	static char values[KEYS][2];
	char *model[KEYS] = { 0 };
	size_t n = 0, seen = 0, it = 0;
	struct map m;
	struct rand r;
	uint64_t key;
	char *v;

	rand_seed(&r, (uint64_t)_i);
	map_init(&m);
	ck_assert_ptr_null(map_get(&m, 1));
	ck_assert_ptr_null(map_del(&m, 1));
	for (unsigned k = 0; k < 20000; k++) {
		unsigned i = (unsigned)rand_below(&r, KEYS);
		/* Phases of growth and of decay. */
		bool put = rand_chance(&r, k / 2000 % 2 == 0 ? 3 : 1, 4);

		key = (uint64_t)i << (_i % 2 == 0 ? 0 : 40);
		if (map_get(&m, key) != model[i])
			ck_abort_msg("step %u: get", k);
		if (put) {
			char *to = &values[i][rand_below(&r, 2)];

			n += model[i] == NULL;
			model[i] = to;
			ck_assert_int_eq(map_put(&m, key, to), 0);
		} else {
			if (map_del(&m, key) != model[i])
				ck_abort_msg("step %u: del", k);
			n -= model[i] != NULL;
			model[i] = NULL;
		}
		if (m.n != n)
			ck_abort_msg("step %u: n", k);
	}
	while ((v = map_next(&m, &it, &key)) != NULL) {
		ck_assert_ptr_eq(model[key >> (_i % 2 == 0 ? 0 : 40)], v);
		seen++;
	}
	ck_assert_uint_eq(seen, n);
	map_fini(&m);
}
END_TEST

/* ---- bytes ---- */

START_TEST(bytes_round)
{
	static const uint8_t golden[] = { 1, 0x23, 0x45, 4, 3, 2, 1,
	    8, 7, 6, 5, 4, 3, 2, 1, 'a', 'b', 'c' };
	uint8_t buf[sizeof(golden)], be[8];
	struct bytes_writer w;
	struct bytes_reader r;

	bytes_writer_init(&w, buf, sizeof(buf));
	bytes_put_u8(&w, 1);
	bytes_put_u16(&w, 0x4523);
	bytes_put_u32(&w, 0x01020304);
	bytes_put_u64(&w, 0x0102030405060708);
	bytes_put_raw(&w, "abc", 3);
	ck_assert(!w.failed);
	ck_assert_uint_eq(bytes_written(&w), sizeof(golden));
	ck_assert_mem_eq(buf, golden, sizeof(golden));
	bytes_put_raw(&w, NULL, 0);
	ck_assert(!w.failed);
	bytes_put_u8(&w, 1);
	ck_assert(w.failed);

	bytes_reader_init(&r, buf, sizeof(buf));
	ck_assert_uint_eq(bytes_get_u8(&r), 1);
	ck_assert_uint_eq(bytes_get_u16(&r), 0x4523);
	ck_assert_uint_eq(bytes_get_u32(&r), 0x01020304);
	ck_assert_uint_eq(bytes_get_u64(&r), 0x0102030405060708);
	ck_assert_uint_eq(bytes_left(&r), 3);
	ck_assert(!bytes_reader_done(&r));
	ck_assert_mem_eq(bytes_get_raw(&r, 3), "abc", 3);
	ck_assert(bytes_reader_done(&r));

	bytes_be32(be, 0x01020304);
	ck_assert_mem_eq(be, "\1\2\3\4", 4);
	ck_assert_uint_eq(bytes_from_be32(be), 0x01020304);
	bytes_be64(be, 0x0102030405060708);
	ck_assert_mem_eq(be, "\1\2\3\4\5\6\7\10", 8);
	ck_assert_uint_eq(bytes_from_be64(be), 0x0102030405060708);
}
END_TEST

/* Failed once is failed for good, and nothing is read or written beyond the end. */
START_TEST(bytes_bounds)
{
	uint8_t buf[4] = { 1, 2, 3, 0xaa };
	struct bytes_writer w;
	struct bytes_reader r;

	bytes_reader_init(&r, buf, 3);
	ck_assert_uint_eq(bytes_get_u32(&r), 0);
	ck_assert(r.failed);
	ck_assert_uint_eq(bytes_get_u8(&r), 0);
	ck_assert_uint_eq(bytes_left(&r), 0);
	ck_assert(!bytes_reader_done(&r));
	bytes_reader_init(&r, buf, 3);
	ck_assert_ptr_null(bytes_get_raw(&r, SIZE_MAX));
	ck_assert(r.failed);
	bytes_writer_init(&w, buf, 3);
	bytes_put_u32(&w, 0);
	ck_assert(w.failed);
	bytes_put_u8(&w, 0);
	ck_assert_uint_eq(bytes_written(&w), 0);
	ck_assert_mem_eq(buf, "\1\2\3\252", 4);
}
END_TEST

/* ---- rand ---- */

/* First numbers for seed 0, as the authors' C code gives them. */
START_TEST(rand_golden)
{
	struct rand r;
	uint8_t b[12];

	rand_seed(&r, 0);
	ck_assert_uint_eq(rand_u64(&r), 11091344671253066420ull);
	ck_assert_uint_eq(rand_u64(&r), 13793997310169335082ull);
	ck_assert_uint_eq(rand_u64(&r), 1900383378846508768ull);
	rand_seed(&r, 0);
	rand_bytes(&r, b, sizeof(b));
	ck_assert_uint_eq(b[0], 11091344671253066420ull & 255);
	ck_assert_uint_eq(b[8], 13793997310169335082ull & 255);
}
END_TEST

START_TEST(rand_ranges)
{
	static const uint64_t limits[] = { 1, 2, 3, 10, 1000,
	    (1ull << 63) + 1, UINT64_MAX };
	unsigned hits[10] = { 0 }, yes = 0;
	struct rand r;

	rand_seed(&r, 5);
	for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		for (unsigned k = 0; k < 1000; k++)
			if (rand_below(&r, limits[i]) >= limits[i])
				ck_abort_msg("limit %lu", limits[i]);
	for (unsigned k = 0; k < 100000; k++) {
		hits[rand_below(&r, 10)]++;
		yes += (unsigned)rand_chance(&r, 1, 4);
	}
	for (unsigned i = 0; i < 10; i++)
		ck_assert(hits[i] > 9500 && hits[i] < 10500);
	ck_assert(yes > 24000 && yes < 26000);
	ck_assert_int_eq(rand_chance(&r, 0, 5), 0);
	ck_assert_int_eq(rand_chance(&r, 5, 5), 1);
}
END_TEST

/* ---- mem ---- */

START_TEST(mem_bounds)
{
	struct mem_pool *p;
	struct mem_buf a, b, c;
	uint8_t *was;

	ck_assert_int_eq(mem_pool_open(&p, 3 << 20, (1 << 20) + 4096), 0);
	ck_assert_int_eq(mem_get(p, 0, &a), -EINVAL);
	ck_assert_int_eq(mem_get(p, MEM_BUF_MAX + 1ul, &a), -EINVAL);
	ck_assert_ptr_null(a.pool);
	mem_put(&a);				/* holds nothing: fine */
	ck_assert_int_eq(mem_get(p, 1, &a), 0);
	ck_assert_uint_eq(a.size, MEM_BUF_MIN);
	ck_assert_uint_eq((uintptr_t)a.p % 4096, 0);
	ck_assert_int_eq(mem_get(p, (1 << 20) + 1, &b), 0);
	ck_assert_uint_eq(b.size, 2 << 20);
	ck_assert_uint_eq(mem_used_bytes(p), (2 << 20) + 4096);
	ck_assert_int_eq(mem_get(p, 1 << 20, &c), ERR_BUSY);
	ck_assert_ptr_null(c.pool);
	memset(b.p, 1, b.size);
	mem_put(&a);
	ck_assert_int_eq(mem_get(p, 1 << 20, &c), 0);	/* exactly full */
	was = c.p;
	mem_put(&c);
	mem_put(&c);				/* twice is once */
	ck_assert_int_eq(mem_get(p, 600000, &c), 0);
	ck_assert_ptr_eq(c.p, was);		/* kept and reused */
	mem_put(&c);
	mem_put(&b);				/* over keep_bytes: freed */
	ck_assert_uint_eq(mem_used_bytes(p), 0);
	mem_pool_close(p);
	mem_pool_close(NULL);
}
END_TEST

/* As much is kept as is out, while the bound has room for both; and what was asked for, once
 * nothing is. */
START_TEST(mem_keeps)
{
	static const struct {
		const char *what;
		size_t	    max, keep;
		unsigned    out, back;	/* buffers of 64 KiB: taken, and given back */
		size_t	    kept;
	} cases[] = {
		{ "half of them", 64, 0, 32, 16, 16 },
		{ "most of them", 64, 0, 32, 24, 8 },
		{ "all", 64, 0, 32, 32, 0 },
		{ "all, some are to stay", 64, 5, 32, 32, 5 },
		{ "the bound is near", 32, 0, 32, 8, 8 },
		{ "and nearer", 32, 4, 32, 2, 2 },
		{ "a few, all may stay", 64, 64, 32, 32, 32 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct mem_buf bufs[64], more;
		struct mem_pool *p;
		const size_t unit = 64 << 10;

		ck_assert_int_eq(mem_pool_open(&p, cases[i].max * unit,
		    cases[i].keep * unit), 0);
		for (unsigned k = 0; k < cases[i].out; k++)
			ck_assert_int_eq(mem_get(p, unit, &bufs[k]), 0);
		for (unsigned k = 0; k < cases[i].back; k++)
			mem_put(&bufs[k]);
		ck_assert_msg(mem_kept_bytes(p) == cases[i].kept * unit, "%s: %zu",
		    cases[i].what, mem_kept_bytes(p) / unit);
		/* Another size: both lists count. */
		if (cases[i].back > 0 && mem_get(p, 2 * unit, &more) == 0) {
			mem_put(&more);
			ck_assert_uint_le(mem_used_bytes(p) + mem_kept_bytes(p),
			    cases[i].max * unit + cases[i].keep * unit);
		}
		for (unsigned k = cases[i].back; k < cases[i].out; k++)
			mem_put(&bufs[k]);
		ck_assert_uint_le(mem_kept_bytes(p), cases[i].keep * unit);
		mem_pool_close(p);
	}
}
END_TEST

/* What was out lately is kept for when it is wanted again; two ages later it is not. */
START_TEST(mem_ages)
{
	struct mem_buf bufs[32];
	struct mem_pool *p;
	const size_t unit = 64 << 10;

	ck_assert_int_eq(mem_pool_open(&p, 64 * unit, 2 * unit), 0);
	for (unsigned turn = 0; turn < 4; turn++) {
		for (unsigned k = 0; k < 32; k++)
			ck_assert_int_eq(mem_get(p, unit, &bufs[k]), 0);
		mem_age(p);
		ck_assert_uint_le(mem_used_bytes(p) + mem_kept_bytes(p), 64 * unit);
		for (unsigned k = 0; k < 32; k++)
			mem_put(&bufs[k]);
		ck_assert_uint_eq(mem_kept_bytes(p), 32 * unit);
	}
	mem_age(p);
	ck_assert_uint_eq(mem_kept_bytes(p), 32 * unit);
	mem_age(p);
	ck_assert_uint_eq(mem_kept_bytes(p), 2 * unit);
	mem_pool_close(p);
}
END_TEST

/* What is kept of one size makes room for others, when they are taken. */
START_TEST(mem_makes_room)
{
	struct mem_buf small[32], large[24];
	struct mem_pool *p;
	const size_t unit = 64 << 10;

	ck_assert_int_eq(mem_pool_open(&p, 64 * unit, 0), 0);
	mem_age(p);
	for (unsigned k = 0; k < 32; k++)
		ck_assert_int_eq(mem_get(p, unit, &small[k]), 0);
	mem_age(p);
	for (unsigned k = 0; k < 32; k++)
		mem_put(&small[k]);
	ck_assert_uint_eq(mem_kept_bytes(p), 32 * unit);
	for (unsigned k = 0; k < 24; k++) {
		ck_assert_int_eq(mem_get(p, 2 * unit, &large[k]), 0);
		ck_assert_uint_le(mem_used_bytes(p) + mem_kept_bytes(p), 64 * unit);
	}
	for (unsigned k = 0; k < 24; k++)
		mem_put(&large[k]);
	mem_pool_close(p);
}
END_TEST

/* What must go on comes from the pool, too, and is not kept over the bound. */
START_TEST(mem_over_the_bound)
{
	struct mem_buf all[4], over[4], no;
	struct mem_pool *p;
	const size_t unit = 64 << 10;

	ck_assert_int_eq(mem_pool_open(&p, 4 * unit, 0), 0);
	mem_age(p);
	for (unsigned k = 0; k < 4; k++)
		ck_assert_int_eq(mem_get(p, unit, &all[k]), 0);
	ck_assert_int_eq(mem_get(p, unit, &no), ERR_BUSY);
	for (unsigned k = 0; k < 4; k++) {
		ck_assert_int_eq(mem_get_over(p, unit, &over[k]), 0);
		ck_assert_ptr_eq(over[k].pool, p);
	}
	ck_assert_uint_eq(mem_used_bytes(p), 8 * unit);
	mem_age(p);
	for (unsigned k = 0; k < 4; k++) {
		mem_put(&over[k]);
		ck_assert_uint_eq(mem_kept_bytes(p), 0);
	}
	ck_assert_int_eq(mem_get(p, unit, &no), ERR_BUSY);
	for (unsigned k = 0; k < 4; k++) {
		mem_put(&all[k]);
		ck_assert_uint_le(mem_used_bytes(p) + mem_kept_bytes(p), 4 * unit);
	}
	mem_pool_close(p);
}
END_TEST

/* ---- crc32c ---- */

static uint32_t
crc_by_bits(uint32_t crc, const uint8_t *p, size_t n)
{
	crc = ~crc;
	while (n-- > 0) {
		crc ^= *p++;
		for (int k = 0; k < 8; k++)
			crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
	}
	return ~crc;
}

START_TEST(crc_golden)
{
	static uint8_t z[32], f[32], up[32];

	memset(f, 0xff, 32);
	for (unsigned i = 0; i < 32; i++)
		up[i] = (uint8_t)i;
	ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xe3069283);
	ck_assert_uint_eq(crc32c(0, z, 32), 0x8a9136aa);	/* RFC 3720 */
	ck_assert_uint_eq(crc32c(0, f, 32), 0x62a8ab43);
	ck_assert_uint_eq(crc32c(0, up, 32), 0x46dd794e);
	ck_assert_uint_eq(crc32c(7, z, 0), 7);
}
END_TEST

/* Every kind of length and alignment, in one go, in two, combined, and with zeros. */
START_TEST(crc_model)
{
	static uint8_t buf[20000], zero[20000];
	struct rand r;

	rand_seed(&r, 9);
	rand_bytes(&r, buf, sizeof(buf));
	for (unsigned k = 0; k < 300; k++) {
		size_t from = rand_below(&r, 16);
		size_t n = rand_below(&r, k % 3 == 0 ? 19000 : 100);
		size_t cut = n > 0 ? rand_below(&r, n + 1) : 0;
		const uint8_t *p = buf + from;
		uint32_t want = crc_by_bits(0, p, n), a, b;

		a = crc32c(0, p, cut);
		b = crc32c(0, p + cut, n - cut);
		if (crc32c(0, p, n) != want || crc32c(a, p + cut, n - cut) != want ||
		    crc32c_combine(a, b, n - cut) != want)
			ck_abort_msg("from %zu n %zu cut %zu", from, n, cut);
		if (crc32c_zeros(a, n) != crc32c(a, zero, n))
			ck_abort_msg("zeros %zu", n);
	}
}
END_TEST

/* ---- err ---- */

START_TEST(err_rows)
{
	static const struct {
		const char *what;
		int rc;
		const char *name;
		enum err_next next;
		int shown;
	} rows[] = {
		{ "fine",	  0,		 "OK",		 ERR_NEXT_FAIL,	   0 },
		{ "errno",	  -ENOENT,	 "ENOENT",	 ERR_NEXT_FAIL,	   ENOENT },
		{ "connection",	  -ECONNRESET,	 "ECONNRESET",	 ERR_NEXT_REFRESH, ECONNRESET },
		{ "cancelled",	  -ECANCELED,	 "ECANCELED",	 ERR_NEXT_FAIL,	   ECANCELED },
		{ "row",	  ERR_CORRUPT,	 "ERR_CORRUPT",	 ERR_NEXT_OTHER,   EIO },
		{ "busy",	  ERR_BUSY,	 "ERR_BUSY",	 ERR_NEXT_RETRY,   EAGAIN },
		{ "truncated",	  ERR_STALE_EPOCH, "ERR_STALE_EPOCH", ERR_NEXT_FAIL, ESTALE },
		{ "no such row",  -2998,	 "UNKNOWN",	 ERR_NEXT_FAIL,	   EIO },
		{ "no such errno", -1500,	 "UNKNOWN",	 ERR_NEXT_FAIL,	   1500 },
		{ "positive",	  5,		 "UNKNOWN",	 ERR_NEXT_FAIL,	   0 },
		{ "smallest",	  INT32_MIN,	 "UNKNOWN",	 ERR_NEXT_FAIL,	   EIO },
	};

	ck_assert_msg(strcmp(err_name(rows[_i].rc), rows[_i].name) == 0, "%s: %s",
	    rows[_i].what, err_name(rows[_i].rc));
	ck_assert_ptr_nonnull(err_text(rows[_i].rc));
	if (rows[_i].rc != 0)
		ck_assert_msg(err_next(rows[_i].rc) == rows[_i].next, "%s",
		    rows[_i].what);
	ck_assert_msg(err_errno(rows[_i].rc) == rows[_i].shown, "%s: %d",
	    rows[_i].what, err_errno(rows[_i].rc));
}
END_TEST
#define ERR_ROWS 11

/* ---- ids ---- */

START_TEST(ids)
{
	static const struct {
		const char *what, *text;
		int rc;
	} rows[] = {
		{ "good",      "00112233445566778899aabbccddeeff",  0 },
		{ "upper",     "00112233445566778899AABBCCDDEEFF",  0 },
		{ "short",     "00112233445566778899aabbccddeef",   -EINVAL },
		{ "long",      "00112233445566778899aabbccddeeff0", -EINVAL },
		{ "not hex",   "00112233445566778899aabbccddeefg",  -EINVAL },
		{ "empty",     "",				    -EINVAL },
	};
	struct uid128 u = { { 0 } };
	char text[UID128_TEXT];
	struct chunk_id a = { 1, 2 }, b = { 1, 3 }, c = { 2, 0 };

	ck_assert(uid128_zero(&u));
	for (unsigned i = 0; i < 6; i++)
		ck_assert_msg(uid128_parse(rows[i].text, &u) == rows[i].rc, "%s",
		    rows[i].what);
	uid128_text(&u, text);
	ck_assert_str_eq(text, rows[0].text);
	ck_assert(!uid128_zero(&u));
	ck_assert_int_lt(chunk_id_cmp(a, b), 0);
	ck_assert_int_gt(chunk_id_cmp(c, b), 0);
	ck_assert_int_eq(chunk_id_cmp(a, a), 0);
}
END_TEST

/* ---- list ---- */

struct item {
	struct list node;
	char	    name;
};

static const char *
names(struct list *head)
{
	static char out[16];
	size_t n = 0;

	list_for_each(it, head)
		out[n++] = list_entry(it, struct item, node)->name;
	out[n] = '\0';
	return out;
}

START_TEST(lists)
{
	struct item a = { .name = 'a' }, b = { .name = 'b' }, c = { .name = 'c' };
	struct list x, y;

	list_init(&x);
	list_init(&y);
	ck_assert(list_empty(&x));
	ck_assert_ptr_null(list_pop_front(&x));
	list_splice_back(&y, &x);
	ck_assert(list_empty(&y));
	list_push_back(&x, &b.node);
	list_push_back(&x, &c.node);
	list_push_front(&x, &a.node);
	ck_assert_str_eq(names(&x), "abc");
	list_remove(&b.node);
	list_remove(&b.node);			/* twice is once */
	ck_assert_str_eq(names(&x), "ac");
	list_push_back(&y, &b.node);
	list_splice_back(&y, &x);
	ck_assert_str_eq(names(&y), "bac");
	ck_assert(list_empty(&x));
	list_for_each_safe(it, tmp, &y)
		list_remove(it);
	ck_assert(list_empty(&y));
}
END_TEST

/* ---- log ---- */

static char logged[1200];

static void
sink(void *ctx, enum log_level level, const char *who, const char *what,
    const char *fields)
{
	(*(unsigned *)ctx)++;
	snprintf(logged, sizeof(logged), "%d %s: %s %s", (int)level, who, what,
	    fields);
}

START_TEST(logs)
{
	static char big[5000];
	unsigned n = 0;
	struct log l, *none = NULL;

	log_init(&l, "a-name-that-is-longer-than-the-room-for-it");
	ck_assert_uint_eq(strlen(l.who), sizeof(l.who) - 1);
	log_init(&l, "storage3");
	l.sink = sink;
	l.ctx = &n;
	log_debug(&l, "not said", "x=%d", 1);
	log_info(none, "not said", "x=%d", 1);
	ck_assert_uint_eq(n, 0);
	log_warn(&l, "target up", "target=%u", 7u);
	ck_assert_uint_eq(n, 1);
	ck_assert_str_eq(logged, "1 storage3: target up target=7");
	memset(big, 'x', sizeof(big) - 1);
	log_error(&l, "much", "%s", big);
	ck_assert_uint_lt(strlen(logged), 1100);
}
END_TEST

/* What the stderr sink writes, as text and as JSON. */
START_TEST(log_lines)
{
	static const struct {
		int json;
		const char *fields, *end;
	} rows[] = {
		{ 0, "a=1", "Z info who: what a=1\n" },
		{ 0, "",    "Z info who: what\n" },
		{ 1, "a=\"b\\\n", "\"level\":\"info\",\"role\":\"who\",\"what\":\"what\","
		    "\"fields\":\"a=\\\"b\\\\\\u000a\"}\n" },
	};
	char line[400];
	int fds[2], saved = dup(STDERR_FILENO);
	struct log l;
	ssize_t n;

	log_init(&l, "who");
	ck_assert_int_eq(pipe(fds), 0);
	dup2(fds[1], STDERR_FILENO);
	log_format_json(rows[_i].json);
	log_info(&l, "what", "%s", rows[_i].fields);
	log_format_json(0);
	dup2(saved, STDERR_FILENO);
	n = read(fds[0], line, sizeof(line) - 1);
	ck_assert_int_gt(n, 0);
	line[n] = '\0';
	ck_assert_msg((size_t)n > strlen(rows[_i].end) &&
	    strcmp(line + n - strlen(rows[_i].end), rows[_i].end) == 0, "%s", line);
	close(fds[0]);
	close(fds[1]);
	close(saved);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("conf_base");

	tcase_add_loop_test(tc, map_model, 0, 4);
	tcase_add_test(tc, bytes_round);
	tcase_add_test(tc, bytes_bounds);
	tcase_add_test(tc, rand_golden);
	tcase_add_test(tc, rand_ranges);
	tcase_add_test(tc, mem_bounds);
	tcase_add_test(tc, mem_keeps);
	tcase_add_test(tc, mem_ages);
	tcase_add_test(tc, mem_makes_room);
	tcase_add_test(tc, mem_over_the_bound);
	tcase_add_test(tc, crc_golden);
	tcase_add_test(tc, crc_model);
	tcase_add_loop_test(tc, err_rows, 0, ERR_ROWS);
	tcase_add_test(tc, ids);
	tcase_add_test(tc, lists);
	tcase_add_test(tc, logs);
	tcase_add_loop_test(tc, log_lines, 0, 3);
	return suite_run("conf_base", tc);
}
