/* SPDX-License-Identifier: MIT */
/* test_addr.c - address text in, the same text out. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/addr.h"
#include "tests/suite.h"

static const struct good_case {
	const char *text;
	uint8_t	    kind;
	uint16_t    port;
	uint32_t    id;
	const char *prints;	/* NULL: as read */
} goods[] = {
	{ "10.1.2.3:7700",		NET_ADDR_TCP4, 7700, 0, NULL },
	{ "0.0.0.0:0",			NET_ADDR_TCP4, 0, 0, NULL },
	{ "255.255.255.255:65535",	NET_ADDR_TCP4, 65535, 0, NULL },
	{ "[::1]:80",			NET_ADDR_TCP6, 80, 0, NULL },
	{ "[FE80:0:0::1%3]:7700",	NET_ADDR_TCP6, 7700, 3,
	    "[fe80::1%3]:7700" },
	{ "[::ffff:1.2.3.4]:1",		NET_ADDR_TCP6, 1, 0, NULL },
	{ "[1111:2222:3333:4444:5555:6666:7777:8888%4294967295]:65535",
	    NET_ADDR_TCP6, 65535, 4294967295u, NULL },
	{ "local:17",			NET_ADDR_LOCAL, 0, 17, NULL },
	{ "local:4294967295",		NET_ADDR_LOCAL, 0, 4294967295u, NULL },
	{ "sim:3:0",			NET_ADDR_SIM, 0, 3, NULL },
	{ "sim:12:65535",		NET_ADDR_SIM, 65535, 12, NULL },
};

START_TEST(good)
{
	const struct good_case *c = &goods[_i];
	struct net_addr a, b;
	char text[NET_ADDR_TEXT];

	memset(&a, 0xff, sizeof(a));
	ck_assert_msg(net_addr_parse(c->text, strlen(c->text), &a, NULL) == 0,
	    "%s", c->text);
	ck_assert_msg(a.kind == c->kind && a.port == c->port && a.id == c->id,
	    "%s", c->text);
	net_addr_text(&a, text);
	ck_assert_str_eq(text, c->prints != NULL ? c->prints : c->text);
	ck_assert_int_eq(net_addr_parse(text, strlen(text), &b, NULL), 0);
	ck_assert(net_addr_eq(&a, &b));
}
END_TEST

static const char *const bads[] = {
	"", ":", "10.1.2.3", "10.1.2.3:", "10.1.2.3:x", "10.1.2.3:+1",
	"10.1.2.3:65536", "10.1.2.3:077", "10.1.2.3:77 ", " 10.1.2.3:77",
	"10.1.2.3:99999999999999999999", "10.1.2:77", "10.1.2.300:77",
	"10.1.2.3.4:77", "1000000000000000000.1:1", "host:77", "::1:77", "[::1]",
	"[::1]77", "[::1]:", "[::1:77", "[]:1", "[10.1.2.3]:1", "[fe80::1%]:1",
	"[fe80::1%eth0]:1", "[fe80::1%-1]:1", "[::1]:1]:1",
	"[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]:1",
	"local:", "local:x", "local:4294967296", "local:1:2", "sim:", "sim:3",
	"sim:3:", "sim::3", "sim:3:65536", "sim:3:1:", "Local:1",
};

START_TEST(bad)
{
	struct net_addr a = { .kind = 99 };
	const char *why = NULL;

	ck_assert_msg(net_addr_parse(bads[_i], strlen(bads[_i]), &a, &why) ==
	    -EINVAL, "%s", bads[_i]);
	ck_assert_msg(why != NULL && a.kind == 99, "%s", bads[_i]);
}
END_TEST

/* Lengths count, not terminators. */
START_TEST(length)
{
	struct net_addr a;

	ck_assert_int_eq(net_addr_parse("1.2.3.4:5678", 10, &a, NULL), 0);
	ck_assert_uint_eq(a.port, 56);
	ck_assert_int_eq(net_addr_parse("1.2.3.4\0:5678", 13, &a, NULL), -EINVAL);
	ck_assert_int_eq(net_addr_parse("1.2.3.4:5\0", 10, &a, NULL), -EINVAL);
	ck_assert_int_eq(net_addr_parse("[::1\0]:5", 8, &a, NULL), -EINVAL);
}
END_TEST

START_TEST(equality)
{
	static const char *const texts[] = { "1.2.3.4:5", "1.2.3.4:6",
	    "1.2.3.5:5", "[::1]:5", "[::1%2]:5", "[::2]:5", "local:5", "local:6",
	    "sim:5:0", "sim:5:1" };
	struct net_addr a[10], none = { 0 };

	for (unsigned i = 0; i < 10; i++)
		ck_assert_int_eq(net_addr_parse(texts[i], strlen(texts[i]), &a[i],
		    NULL), 0);
	for (unsigned i = 0; i < 10; i++) {
		ck_assert(!net_addr_eq(&a[i], &none));
		for (unsigned k = 0; k < 10; k++)
			ck_assert(net_addr_eq(&a[i], &a[k]) == (i == k));
	}
	ck_assert(net_addr_eq(&none, &none));
	a[0].ip[9] = 1;			/* no part of an IPv4 address */
	ck_assert_int_eq(net_addr_parse(texts[0], 9, &a[1], NULL), 0);
	ck_assert(net_addr_eq(&a[0], &a[1]));
}
END_TEST

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	TCase *t = tcase_create("all");

	tcase_add_loop_test(t, good, 0, N(goods));
	tcase_add_loop_test(t, bad, 0, N(bads));
	tcase_add_test(t, length);
	tcase_add_test(t, equality);
	return suite_run("addr", t);
}
