/* SPDX-License-Identifier: MIT */
/* test_admin_rdma.c - the table of RDMA ports, out of what processes tell. */
#include "roles/admin_rdma.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles/admin_show.h"

#define LABELS(ROLE, PORT)                                                      \
	"{role=\"" ROLE "\",device=\"mlx5_0\",port=\"" PORT "\",link=\"Ethernet\"," \
	"gid=\"::ffff:10.0.0.1\"} "

static char *
table(struct admin_rdma *r, bool json)
{
	char *text = NULL;
	size_t n;
	FILE *to = open_memstream(&text, &n);

	ck_assert_ptr_nonnull(to);
	admin_show_rdma(to, r, json);
	fclose(to);
	return text;
}

START_TEST(ports)
{
	struct admin_rdma r = { .rows = NULL };
	char *text;

	ck_assert_int_eq(admin_rdma_take(&r, "box1", msg_str(
	    "# HELP fsd_net_rdma_up 1\n"
	    "fsd_net_rdma_refusals_total{role=\"storage\"} 3\n"
	    "fsd_net_rdma_up" LABELS("storage", "1") "1\n"
	    "fsd_net_rdma_mtu" LABELS("storage", "1") "4096\n"
	    "fsd_net_rdma_connections" LABELS("storage", "1") "2\n"
	    "fsd_net_rdma_credits" LABELS("storage", "1") "64\n"
	    "fsd_net_rdma_up" LABELS("storage", "2") "0\n"
	    "fsd_net_rdma_up" LABELS("metadata", "1") "1\n"
	    "fsd_net_rdma_sends_total" LABELS("storage", "1") "7\n"
	    "fsd_net_rdma_posts_total" LABELS("storage", "1") "5\n"
	    "fsd_net_rdma_waits_total" LABELS("storage", "1") "1\n"
	    "fsd_net_rdma_read_bytes_total" LABELS("storage", "1") "1048576\n"
	    "fsd_net_rdma_write_bytes_total" LABELS("metadata", "1") "2048\n"
	    "fsd_net_rdma_copied_bytes_total" LABELS("metadata", "1") "5\n"
	    "fsd_net_rdma_errors_total" LABELS("storage", "1") "4\n")), 0);
	ck_assert_int_eq(admin_rdma_take(&r, "box2", msg_str("fsd_x{a=\"b\"} 1\n")), 0);
	ck_assert_int_eq(admin_rdma_note(&r, "box3", "timed out"), 0);
	text = table(&r, false);
	ck_assert_str_eq(text,
	    "node  role      device  port  link      mtu   gid              connections  "
	    "credits  sent  posts  waits  read     written  copied  errors  state\n"
	    "box1  storage   mlx5_0  1     Ethernet  4096  ::ffff:10.0.0.1  2            "
	    "64       7     5      1      1.0 MiB  0 B      0 B     4       up\n"
	    "box1  storage   mlx5_0  2     Ethernet  0     ::ffff:10.0.0.1  0            "
	    "0        0     0      0      0 B      0 B      0 B     0       down\n"
	    "box1  metadata  mlx5_0  1     Ethernet  0     ::ffff:10.0.0.1  0            "
	    "0        0     0      0      0 B      2.0 KiB  5 B     0       up\n"
	    "box2  -         -       -     -         0     -                0            "
	    "0        0     0      0      0 B      0 B      0 B     0       TCP only\n"
	    "box3  -         -       -     -         0     -                0            "
	    "0        0     0      0      0 B      0 B      0 B     0       timed out\n");
	free(text);
	text = table(&r, true);
	ck_assert_ptr_nonnull(strstr(text, "\"read\": 1048576"));
	ck_assert_ptr_nonnull(strstr(text, "\"state\": \"TCP only\""));
	free(text);
	admin_rdma_fini(&r);
}
END_TEST

/* What a process of another release, or a broken one, may say. */
static const char *const strange[] = {
	"", "\n", "fsd_net_rdma_", "fsd_net_rdma_up", "fsd_net_rdma_up{", "fsd_net_rdma_up{}",
	"fsd_net_rdma_up{device=\"", "fsd_net_rdma_up{device=\"} 1",
	"fsd_net_rdma_up{device=\"x\"}", "fsd_net_rdma_up{device=\"x\"} 99999999999999999999999999",
	"fsd_net_rdma_up{role,device=\"x\"} 1", "fsd_net_rdma_up{=,device=\"x\"} 1",
	"fsd_net_rdma_new_total{device=\"x\",more=\"y\"} 1",
	"fsd_net_rdma_up{device=\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",role=\"r\"} 1",
};

START_TEST(other_lines)
{
	size_t n = strlen(strange[_i]);
	char *exact = malloc(n > 0 ? n : 1);	/* nothing behind it may be read */
	struct admin_rdma r = { .rows = NULL };

	ck_assert_ptr_nonnull(exact);
	memcpy(exact, strange[_i], n);
	ck_assert_int_eq(admin_rdma_take(&r, "n",
	    (struct msg_str){ exact, (uint32_t)n }), 0);
	ck_assert_uint_eq(r.n, 1);
	free(table(&r, false));
	free(exact);
	admin_rdma_fini(&r);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("admin_rdma");
	TCase *t = tcase_create("admin_rdma");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(t, ports);
	tcase_add_loop_test(t, other_lines, 0, sizeof(strange) / sizeof(strange[0]));
	suite_add_tcase(s, t);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed > 0;
}
