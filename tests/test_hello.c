/* SPDX-License-Identifier: MIT */
/* test_hello.c - the hello, its bytes, and what a stranger can do with it: nothing.
 * GOLDEN=1 prints tests/golden/hello.1 anew. */
#include <check.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/hello.h"

#define GOLDEN "tests/golden/hello.1"

static uint8_t key[NET_KEY_BYTES], other_key[NET_KEY_BYTES];
static uint8_t nonce_c[NET_NONCE], nonce_s[NET_NONCE];
static uint8_t tag[NET_TAG];
static struct net_hello c, s;
static uint8_t one[NET_HELLO_MAX], two[NET_HELLO_MAX], three[NET_HELLO_MAX];
static uint32_t two_n, three_n;

static void
setup(void)
{
	for (unsigned i = 0; i < 32; i++) {
		key[i] = (uint8_t)i;
		other_key[i] = (uint8_t)(i + 1);
		nonce_c[i] = (uint8_t)(100 + i);
		nonce_s[i] = (uint8_t)(200 + i);
	}
	net_hello_tag(key, "test", tag);
}

static void
ask(uint16_t min, uint16_t max)
{
	net_hello_ask(&c, key, tag, min, max, nonce_c, one);
}

static int
serve(const uint8_t *k, const char *cluster, uint16_t min, uint16_t max)
{
	uint8_t t[NET_TAG];

	net_hello_tag(k, cluster, t);
	net_hello_await(&s, k, t, min, max);
	return net_hello_take(&s, one, NET_HELLO1, nonce_s, two, &two_n);
}

static int
take_two(void)
{
	return net_hello_take(&c, two, two_n, nonce_c, three, &three_n);
}

static int
take_three(void)
{
	uint8_t none[NET_HELLO_MAX];
	uint32_t n;

	return net_hello_take(&s, three, three_n, nonce_s, none, &n);
}

START_TEST(agree)
{
	struct net_frame f;

	ask(1, 1);
	ck_assert_int_eq(serve(key, "test", 1, 1), 0);
	ck_assert_int_eq(s.refused, 0);
	ck_assert_int_eq(take_two(), 1);
	ck_assert_int_eq(take_three(), 1);
	ck_assert_uint_eq(c.version, 1);
	ck_assert_uint_eq(s.version, 1);
	/* All three are sound frames. */
	ck_assert_int_eq(net_frame_decode(one, NET_HELLO1, &f), 0);
	ck_assert_int_eq(net_frame_decode(two, NET_HELLO2, &f), 0);
	ck_assert_int_eq(net_frame_decode(three, NET_HELLO3, &f), 0);
}
END_TEST

static const struct {
	uint16_t c_min, c_max, s_min, s_max, agreed;
} versions[] = {
	{ 1, 1, 1, 1, 1 },
	{ 1, 2, 2, 3, 2 },		/* N talks to N-1 */
	{ 2, 3, 1, 2, 2 },
	{ 1, 9, 1, 9, 9 },
	{ 1, 1, 2, 3, 0 },
	{ 3, 4, 1, 2, 0 }
};

START_TEST(version_choice)
{
	uint16_t agreed = versions[_i].agreed;

	ask(versions[_i].c_min, versions[_i].c_max);
	ck_assert_int_eq(serve(key, "test", versions[_i].s_min,
	    versions[_i].s_max), 0);
	ck_assert_int_eq(s.refused, agreed != 0 ? 0 : ERR_WIRE_VERSION);
	ck_assert_int_eq(take_two(), agreed != 0 ? 1 : ERR_WIRE_VERSION);
	if (agreed != 0) {
		ck_assert_int_eq(take_three(), 1);
		ck_assert_uint_eq(c.version, agreed);
		ck_assert_uint_eq(s.version, agreed);
	}
}
END_TEST

START_TEST(wrong_key)
{
	ask(1, 1);
	ck_assert_int_eq(serve(other_key, "test", 1, 1), 0);
	ck_assert_int_eq(s.refused, ERR_AUTH);
	ck_assert_int_eq(take_two(), ERR_AUTH);
	ck_assert_uint_eq(three_n, 0);
	/* A refused client has no next move. */
	three_n = NET_HELLO3;
	memcpy(three, one, NET_HEAD);
	three[26] = NET_FRAME_HELLO3;
	ck_assert_int_eq(take_three(), ERR_BAD_MESSAGE);
}
END_TEST

START_TEST(wrong_cluster)
{
	ask(1, 1);
	ck_assert_int_eq(serve(key, "another", 1, 1), 0);
	ck_assert_int_eq(s.refused, ERR_AUTH);
	ck_assert_int_eq(take_two(), ERR_AUTH);
}
END_TEST

/* Each byte of each body matters, to the side that takes it or to the next. */
START_TEST(nothing_can_be_changed)
{
	for (unsigned i = NET_HEAD; i < NET_HELLO1; i++) {
		int rc;

		ask(1, 1);
		one[i] ^= 0x40;
		rc = serve(key, "test", 1, 1);
		ck_assert(rc == ERR_BAD_MESSAGE || take_two() < 0);
	}
	for (unsigned i = NET_HEAD; i < NET_HELLO2; i++) {
		ask(1, 1);
		ck_assert_int_eq(serve(key, "test", 1, 1), 0);
		two[i] ^= 0x01;
		ck_assert_int_eq(take_two(), ERR_AUTH);
	}
	for (unsigned i = NET_HEAD; i < NET_HELLO3; i++) {
		ask(1, 1);
		ck_assert_int_eq(serve(key, "test", 1, 1), 0);
		ck_assert_int_eq(take_two(), 1);
		three[i] ^= 0x80;
		ck_assert_int_eq(take_three(), ERR_AUTH);
	}
}
END_TEST

/* What was said once does not open the door again. */
START_TEST(replay)
{
	uint8_t old[NET_HELLO3];

	ask(1, 1);
	ck_assert_int_eq(serve(key, "test", 1, 1), 0);
	ck_assert_int_eq(take_two(), 1);
	memcpy(old, three, NET_HELLO3);
	nonce_s[0]++;			/* the server's next */
	ck_assert_int_eq(serve(key, "test", 1, 1), 0);
	memcpy(three, old, NET_HELLO3);
	ck_assert_int_eq(take_three(), ERR_AUTH);
	nonce_s[0]--;
}
END_TEST

/* The server's own proof, sent back to it. */
START_TEST(reflection)
{
	ask(1, 1);
	ck_assert_int_eq(serve(key, "test", 1, 1), 0);
	ck_assert_int_eq(take_two(), 1);
	memcpy(three + NET_HEAD, two + NET_HELLO2 - NET_PROOF, NET_PROOF);
	ck_assert_int_eq(take_three(), ERR_AUTH);
}
END_TEST

START_TEST(out_of_turn)
{
	uint8_t frame[NET_HELLO_MAX] = { 0 }, out[NET_HELLO_MAX];
	uint32_t n;

	for (unsigned kind = 0; kind < 9; kind++) {
		frame[26] = (uint8_t)kind;
		net_hello_await(&s, key, tag, 1, 1);
		if (kind != NET_FRAME_HELLO1)
			ck_assert_int_eq(net_hello_take(&s, frame, NET_HELLO1,
			    nonce_s, out, &n), ERR_BAD_MESSAGE);
		ask(1, 1);
		if (kind != NET_FRAME_HELLO2)
			ck_assert_int_eq(net_hello_take(&c, frame, NET_HELLO2,
			    nonce_c, out, &n), ERR_BAD_MESSAGE);
	}
	ask(1, 1);
	net_hello_await(&s, key, tag, 1, 1);
	ck_assert_int_eq(net_hello_take(&s, one, NET_HELLO1 - 1, nonce_s, out, &n),
	    ERR_BAD_MESSAGE);
	ck_assert_int_eq(net_hello_take(&s, one, NET_HELLO1, nonce_s, out, &n), 0);
	ck_assert_int_eq(net_hello_take(&s, one, NET_HELLO1, nonce_s, out, &n),
	    ERR_BAD_MESSAGE);
}
END_TEST

START_TEST(bad_range)
{
	for (unsigned i = 0; i < 2; i++) {
		ask(1, 1);
		one[NET_HEAD] = i == 0 ? 0 : 9;
		ck_assert_int_eq(serve(key, "test", 1, 1), ERR_BAD_MESSAGE);
	}
}
END_TEST

/* ---- golden ---- */

static void
talk(void)
{
	ask(1, 1);
	ck_assert_int_eq(serve(key, "test", 1, 1), 0);
	ck_assert_int_eq(take_two(), 1);
	ck_assert_int_eq(take_three(), 1);
}

static void
print_hex(FILE *f, const char *name, const uint8_t *p, size_t n)
{
	fprintf(f, "%s ", name);
	for (size_t i = 0; i < n; i++)
		fprintf(f, "%02x", p[i]);
	fputc('\n', f);
}

static void
print_all(FILE *f)
{
	print_hex(f, "hello1", one, NET_HELLO1);
	print_hex(f, "hello2", two, NET_HELLO2);
	print_hex(f, "hello3", three, NET_HELLO3);
}

START_TEST(golden_bytes)
{
	char *text = NULL, line[1000];
	size_t n = 0, at = 0;
	FILE *mine = open_memstream(&text, &n), *f = fopen(GOLDEN, "r");

	ck_assert_msg(f != NULL, "%s: %s", GOLDEN, strerror(errno));
	talk();
	print_all(mine);
	fclose(mine);
	while (fgets(line, sizeof(line), f) != NULL) {
		ck_assert_msg(strncmp(text + at, line, strlen(line)) == 0,
		    "%s differs: %s", GOLDEN, line);
		at += strlen(line);
	}
	ck_assert_uint_eq(at, n);
	fclose(f);
	free(text);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("hello");
	TCase *t = tcase_create("all");
	SRunner *sr = srunner_create(suite);
	int failed;

	if (sodium_init() < 0)
		return 1;
	if (getenv("GOLDEN") != NULL) {
		setup();
		ask(1, 1);
		serve(key, "test", 1, 1);
		take_two();
		print_all(stdout);
		srunner_free(sr);
		return 0;
	}
	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_test(t, agree);
	tcase_add_loop_test(t, version_choice, 0,
	    sizeof(versions) / sizeof(versions[0]));
	tcase_add_test(t, wrong_key);
	tcase_add_test(t, wrong_cluster);
	tcase_add_test(t, nothing_can_be_changed);
	tcase_add_test(t, replay);
	tcase_add_test(t, reflection);
	tcase_add_test(t, out_of_turn);
	tcase_add_test(t, bad_range);
	tcase_add_test(t, golden_bytes);
	suite_add_tcase(suite, t);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
