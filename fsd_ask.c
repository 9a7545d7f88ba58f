/* SPDX-License-Identifier: MIT */
/* fsd_ask.c - commands that ask a cluster something, and end: admin, check, bench. */
#include "fsd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "roles/admin.h"
#include "roles/bench.h"
#include "roles/check.h"
#include "roles/process.h"

struct admin_run {
	struct process *p;
	int		rc;
};

static void
admin_done(void *ctx, int rc)
{
	struct admin_run *r = ctx;

	r->rc = rc;
	process_quit(r->p);
}

/* For who asks a few questions: not worth opening devices. */
static int
load_few(struct conf *c, const struct args *a)
{
	char err[CONF_ERR_MAX];
	int rc = fsd_load_conf(c, a);

	if (rc == 0 && conf_set(c, "rdma.devices", "none", err) != 0) {
		fprintf(stderr, "fsd: %s\n", err);
		rc = 1;
	}
	return rc;
}

int
fsd_cmd_admin(const struct args *a)
{
	struct admin_run r = { .rc = -ETIMEDOUT };
	struct admin *admin = NULL;
	struct run_plan plan;
	struct role_env *env;
	struct conf c;
	bool told;
	int rc;

	if ((rc = load_few(&c, a)) != 0 || (rc = fsd_plan_init(&plan, &c)) != 0)
		return rc;
	if (process_open(&r.p, &c, plan.key) != 0 ||
	    (env = process_add(r.p, "admin")) == NULL) {
		fprintf(stderr, "fsd: cannot start: %s\n", strerror(errno));
		return 1;
	}
	rc = admin_open(&admin, env, plan.managers, plan.manager_n,
	    (const char *const *)a->words, (unsigned)a->word_n, a->json, stdout,
	    admin_done, &r);
	if (rc == 0) {
		(void)process_run(r.p);
		told = strcmp(a->words[0], "show") == 0 && r.rc == -ENOENT &&
		    a->word_n == 3;
		if (r.rc != 0 && !told)
			fprintf(stderr, "fsd admin: %s%s\n",
			    r.rc == -ETIMEDOUT ? "no answer: " : "", err_text(r.rc));
		rc = r.rc == 0 ? 0 : 1;
	} else
		rc = EXIT_USE;
	admin_close(admin);
	process_close(r.p);
	conf_fini(&c);
	return rc;
}

static int
check_how(const struct args *a, struct check_how *how)
{
	char *end;
	unsigned long target;

	*how = (struct check_how){ .repair = a->repair, .discard = a->discard,
	    .json = a->json };
	if (!a->repair && (a->discard || a->prefer != NULL))
		return fsd_wrong_use("only with --repair:", a->discard ? "--discard" :
		    "--prefer");
	if (a->prefer == NULL)
		return 0;
	how->prefer_tail = strcmp(a->prefer, "tail") == 0;
	if (how->prefer_tail)
		return 0;
	errno = 0;
	target = strtoul(a->prefer, &end, 10);
	if (errno != 0 || *end != '\0' || target == 0 || target > UINT32_MAX)
		return fsd_wrong_use("--prefer wants tail or a target, not", a->prefer);
	how->prefer = (target_id)target;
	return 0;
}

/* Exit status: 0 no faults are left, 1 some are, 3 it could not be ended. */
int
fsd_cmd_check(const struct args *a)
{
	struct admin_run r = { .rc = -ETIMEDOUT };
	struct check *check = NULL;
	struct run_plan plan;
	struct check_conf cc;
	struct check_how how;
	struct conf c;
	int rc;

	if (a->word_n > 0)
		return fsd_wrong_use("check takes no", a->words[0]);
	if ((rc = check_how(a, &how)) != 0)
		return rc;
	if ((rc = load_few(&c, a)) != 0 || (rc = fsd_plan_init(&plan, &c)) != 0)
		return rc;
	cc = (struct check_conf){ .managers = plan.managers,
	    .manager_n = plan.manager_n, .how = how, .to = stdout };
	if (process_open(&r.p, &c, plan.key) != 0 ||
	    (cc.env = process_add(r.p, "check")) == NULL) {
		fprintf(stderr, "fsd: cannot start: %s\n", strerror(errno));
		return 1;
	}
	rc = check_open(&check, &cc, admin_done, &r);
	if (rc == 0) {
		(void)process_run(r.p);
		rc = r.rc;
	}
	if (rc != 0 && rc != -EUCLEAN)
		fprintf(stderr, "fsd check: not ended: %s\n", err_text(rc));
	check_close(check);
	process_close(r.p);
	conf_fini(&c);
	return rc == 0 ? 0 : rc == -EUCLEAN ? 1 : 3;
}

static void
bench_listens(void *ctx, const struct net_addr *at)
{
	char text[NET_ADDR_TEXT];

	(void)ctx;
	net_addr_text(at, text);
	printf("fsd bench: serving at %s; on the other node: fsd bench net %s\n", text, text);
	fflush(stdout);
}

/* --time, or @seconds; 0: told that it is wrong. */
static unsigned
bench_seconds(const struct args *a, unsigned seconds)
{
	unsigned long n = a->time != NULL ? strtoul(a->time, NULL, 10) : seconds;

	if (n >= 1 && n <= 3600)
		return (unsigned)n;
	fsd_wrong_use("--time wants 1 to 3600 seconds, not", a->time);
	return 0;
}

/* fsd bench net serve; ... ADDR [CASE...]; ... [CASE...] for both ends here. */
static int
cmd_bench_net(const struct args *a)
{
	const char *const *words = (const char *const *)a->words + 1, *why;
	unsigned seconds = bench_seconds(a, 2);
	unsigned n = (unsigned)a->word_n - 1;
	bool serve = n == 1 && strcmp(words[0], "serve") == 0;
	char listen[NET_ADDR_TEXT];
	struct net_addr at, to;
	struct run_plan plan;
	struct conf c;
	int rc;

	if (seconds == 0)
		return EXIT_USE;
	if ((rc = fsd_load_conf(&c, a)) != 0)
		return rc;
	snprintf(listen, sizeof(listen), strchr(c.node_address, ':') != NULL ?
	    "[%s]:0" : "%s:0", c.node_address);
	if (a->listen != NULL)
		snprintf(listen, sizeof(listen), "%s", a->listen);
	if (net_addr_parse(listen, strlen(listen), &at, &why) != 0 ||
	    at.kind > NET_ADDR_TCP6) {
		rc = fsd_wrong_use("--listen wants ip:port, not", listen);
	} else if (serve) {
		if ((rc = fsd_plan_init(&plan, &c)) == 0)
			rc = bench_net_serve(&c, plan.key, &at, bench_listens, NULL);
	} else if (n > 0 && net_addr_parse(words[0], strlen(words[0]), &to, NULL) == 0 &&
	    to.kind <= NET_ADDR_TCP6) {
		if ((rc = fsd_plan_init(&plan, &c)) == 0)
			rc = bench_net(&c, plan.key, &to, seconds, words + 1,
			    n - 1);
	} else {
		rc = bench_net_both(&c, &at, seconds, words, n);
	}
	conf_fini(&c);
	return rc;
}

int
fsd_cmd_bench(const struct args *a)
{
	unsigned seconds = bench_seconds(a, 3);
	struct run_plan plan;
	struct conf c;
	int rc;

	if (seconds == 0)
		return EXIT_USE;
	if (a->word_n > 0 && strcmp(a->words[0], "net") == 0)
		return cmd_bench_net(a);
	if ((rc = fsd_load_conf(&c, a)) != 0 || (rc = fsd_plan_init(&plan, &c)) != 0)
		return rc;
	rc = bench_run(&c, plan.key, plan.managers, plan.manager_n,
	    a->raw, seconds, (const char *const *)a->words, (unsigned)a->word_n);
	conf_fini(&c);
	return rc;
}
