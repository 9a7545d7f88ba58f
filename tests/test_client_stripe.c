/* SPDX-License-Identifier: MIT */
/* test_client_stripe.c - ranges into pieces, and which replica to read. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "roles/client_pick.h"
#include "roles/client_stripe.h"
#include "tests/suite.h"

#define KB 1024ull

static const struct {
	const char *what;
	uint8_t shift;
	uint64_t off, len;
	uint32_t most;
	int rc;
	unsigned n;
	struct client_piece p[5];
} walks[] = {
	{ "nothing", 16, 100, 0, 0, 0, 0, { { 0, 0, 0, 0 } } },
	{ "inside a chunk", 16, 10, 20, 0, 0, 1, { { 0, 10, 20, 0 } } },
	{ "to the end of a chunk", 16, 65526, 10, 0, 0, 1,
	    { { 0, 65526, 10, 0 } } },
	{ "over an end", 16, 65526, 20, 0, 0, 2,
	    { { 0, 65526, 10, 0 }, { 1, 0, 10, 10 } } },
	{ "a whole chunk and edges", 16, 64 * KB - 1, 64 * KB + 2, 0, 0, 3,
	    { { 0, 65535, 1, 0 }, { 1, 0, 65536, 1 }, { 2, 0, 1, 65537 } } },
	{ "bounded pieces", 20, 3 * KB, 10 * KB, 4096, 0, 4,
	    { { 0, 3072, 1024, 0 }, { 0, 4096, 4096, 1024 },
	    { 0, 8192, 4096, 5120 }, { 0, 12288, 1024, 9216 } } },
	{ "a bound over the chunk size", 16, 0, 65537, 1 << 20, 0, 2,
	    { { 0, 0, 65536, 0 }, { 1, 0, 1, 65536 } } },
	{ "the last byte there is", 16, (1ull << 48) - 1, 1, 0, 0, 1,
	    { { 0xffffffff, 65535, 1, 0 } } },
	{ "past it", 16, (1ull << 48) - 1, 2, 0, -EFBIG, 0, { { 0, 0, 0, 0 } } },
	{ "wrapping", 26, ~0ull, 2, 0, -EFBIG, 0, { { 0, 0, 0, 0 } } },
};

START_TEST(pieces)
{
	struct client_stripe s;
	struct client_piece p;
	unsigned n = 0;

	ck_assert_int_eq(client_stripe_init(&s, walks[_i].shift, walks[_i].off,
	    walks[_i].len, walks[_i].most), walks[_i].rc);
	if (walks[_i].rc != 0)
		return;
	while (client_stripe_next(&s, &p)) {
		ck_assert_msg(n < walks[_i].n, "%s", walks[_i].what);
		ck_assert_msg(p.index == walks[_i].p[n].index &&
		    p.offset == walks[_i].p[n].offset &&
		    p.len == walks[_i].p[n].len && p.pos == walks[_i].p[n].pos,
		    "%s: piece %u is %u+%u,%u at %llu", walks[_i].what, n,
		    p.index, p.offset, p.len, (unsigned long long)p.pos);
		n++;
	}
	ck_assert_msg(n == walks[_i].n, "%s: %u pieces", walks[_i].what, n);
	if (walks[_i].most != 4096)
		ck_assert_uint_eq(client_stripe_count(walks[_i].shift,
		    walks[_i].off, walks[_i].len), n);
}
END_TEST

#define UP	.known = true
static const struct {
	const char *what;
	struct client_pick_cand c[3];
	unsigned n;
	uint32_t tried, turn;
	unsigned want;
} picks[] = {
	{ "the turn decides a tie", { { UP }, { UP }, { UP } }, 3, 0, 4, 1 },
	{ "the next turn", { { UP }, { UP }, { UP } }, 3, 0, 5, 2 },
	{ "the idle one", { { UP, .inflight = 2 }, { UP, .inflight = 1 },
	    { UP, .inflight = 2 } }, 3, 0, 0, 1 },
	{ "the local one, however busy", { { UP }, { UP },
	    { UP, .inflight = 50, .local = true } }, 3, 0, 0, 2 },
	{ "not a failed local one", { { UP },
	    { UP, .local = true, .failed = true } }, 2, 0, 1, 0 },
	{ "a failed one rather than none", { { UP, .failed = true } }, 1, 0, 0,
	    0 },
	{ "tried ones are out", { { UP }, { UP }, { UP } }, 3, 5, 0, 1 },
	{ "unknown ones are out", { { UP }, { .known = false } }, 2, 1, 0,
	    CLIENT_PICK_NONE },
	{ "all tried", { { UP }, { UP } }, 2, 3, 0, CLIENT_PICK_NONE },
	{ "no replicas", { { UP } }, 0, 0, 0, CLIENT_PICK_NONE },
};

START_TEST(picking)
{
	unsigned got = client_pick(picks[_i].c, picks[_i].n, picks[_i].tried,
	    picks[_i].turn);

	ck_assert_msg(got == picks[_i].want, "%s: %u", picks[_i].what, got);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("all");

	tcase_add_loop_test(tc, pieces, 0, sizeof(walks) / sizeof(walks[0]));
	tcase_add_loop_test(tc, picking, 0, sizeof(picks) / sizeof(picks[0]));
	return suite_run("client_stripe", tc);
}
