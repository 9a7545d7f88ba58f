/* SPDX-License-Identifier: MIT */
/* admin_counters.c - counters of the manager, then of each node in the order of routing.
 *
 * Roles of one process tell the same counters: they are printed once. */
#include "roles/admin_counters.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/msg_all.h"
#include "roles/admin_rdma.h"
#include "roles/admin_show.h"

#define ATTEMPT_MS	2000u
#define NAME_BYTES	128u

/* Whose counters were printed. */
struct told {
	uint64_t process;
	char	 name[NAME_BYTES];
};

struct admin_counters {
	const struct role_env *env;
	const struct net_addr *manager;
	const struct msg_routing_rep *routing;
	const char     *only;		/* NULL: all */
	bool		json;
	bool		as_rdma;	/* a table of ports, kept until the end */
	struct admin_rdma rdma;
	bool		no_memory;
	FILE	       *to;
	role_fn	       *done;
	void	       *ctx;
	uint32_t	at;		/* 0: the manager; i: node i - 1 */
	char		name[NAME_BYTES];	/* of the one that is asked */
	unsigned	printed;
	int		rc;
	struct net_call call;
	struct clock_timer timer;
	uint32_t	told_n;
	struct told	told[];		/* one for everybody */
};

static void next(struct clock_timer *t);

/* The head of one group: a comment, so that all of the output is in the format. */
static void
begin(struct admin_counters *a)
{
	if (a->json) {
		fputs(a->printed == 0 ? "[\n {\"node\": " : ",\n {\"node\": ", a->to);
		admin_show_string(a->to, a->name);
	} else
		fprintf(a->to, "%s# node %s", a->printed == 0 ? "" : "\n", a->name);
	a->printed++;
}

static void
keep_rdma(struct admin_counters *a, int rc)
{
	a->printed++;
	if (rc != 0)
		a->no_memory = true;
}

static void
say_error(struct admin_counters *a, const char *why)
{
	if (a->as_rdma) {
		keep_rdma(a, admin_rdma_note(&a->rdma, a->name, why));
		return;
	}
	begin(a);
	if (a->json) {
		fputs(", \"error\": ", a->to);
		admin_show_string(a->to, why);
		fputs("}", a->to);
	} else
		fprintf(a->to, ": %s\n", why);
}

static void
say_same(struct admin_counters *a, const char *as)
{
	if (a->as_rdma) {
		char text[NAME_BYTES + 32];

		snprintf(text, sizeof(text), "in the process of %s", as);
		keep_rdma(a, admin_rdma_note(&a->rdma, a->name, text));
		return;
	}
	begin(a);
	if (a->json) {
		fputs(", \"same_as\": ", a->to);
		admin_show_string(a->to, as);
		fputs("}", a->to);
	} else
		fprintf(a->to, ": in the process of %s\n", as);
}

static void
say_text(struct admin_counters *a, struct msg_str text)
{
	if (a->as_rdma) {
		keep_rdma(a, admin_rdma_take(&a->rdma, a->name, text));
		return;
	}
	begin(a);
	if (a->json) {
		char *copy = strndup(text.p, text.n);

		fputs(", \"text\": ", a->to);
		admin_show_string(a->to, copy != NULL ? copy : "");
		fputs("}", a->to);
		free(copy);
	} else {
		fputc('\n', a->to);
		fwrite(text.p, 1, text.n, a->to);
	}
}

static void
go_on(struct admin_counters *a)
{
	a->at++;
	clock_timer_start(a->env->clock, &a->timer, clock_now(a->env->clock), next);
}

static void
answered(struct net_call *c, int rc)
{
	struct admin_counters *a = container_of(c, struct admin_counters, call);
	const struct msg_stats_rep *rep = c->rep;
	const char *same = NULL;

	if (rc != 0) {
		a->rc = rc;
		say_error(a, err_text(rc));
		go_on(a);
		return;
	}
	for (uint32_t i = 0; i < a->told_n && rep->process != 0; i++)
		if (a->told[i].process == rep->process)
			same = a->told[i].name;
	if (same != NULL)
		say_same(a, same);
	else {
		struct told *t = &a->told[a->told_n++];

		t->process = rep->process;
		memcpy(t->name, a->name, sizeof(t->name));
		say_text(a, rep->text);
	}
	go_on(a);
}

static int
ask(struct admin_counters *a, const struct net_addr *to, uint16_t method)
{
	static const struct msg_none none = { 0 };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(a->env->clock) + ATTEMPT_MS * NS_PER_MS
	};

	return net_call_start(&a->call, a->env->hub, to, method, &none, &opts, answered);
}

static int
ask_node(struct admin_counters *a, const struct msg_rt_node *n)
{
	struct net_addr to;
	int rc;

	if (n->state != NODE_UP)
		return -EHOSTDOWN;
	if (n->addrs.n == 0)
		return -EADDRNOTAVAIL;
	rc = net_addr_parse(n->addrs.v[0].p, n->addrs.v[0].n, &to, NULL);
	return rc != 0 ? rc : ask(a, &to, (n->roles & NODE_STORAGE) != 0 ?
	    MSG_storage_stats : MSG_meta_stats);
}

static void
finish(struct admin_counters *a)
{
	if (a->no_memory) {
		a->done(a->ctx, -ENOMEM);
		return;
	}
	if (a->as_rdma)
		admin_show_rdma(a->to, &a->rdma, a->json);
	else if (a->json)
		fputs(a->printed == 0 ? "[]\n" : "\n]\n", a->to);
	if (a->only != NULL && a->printed == 0) {
		fprintf(stderr, "fsd admin: no node '%s'\n", a->only);
		a->rc = -ENOENT;
	}
	a->done(a->ctx, a->only != NULL ? a->rc : 0);
}

/* Ask the next one, or finish. */
static void
next(struct clock_timer *timer)
{
	struct admin_counters *a = container_of(timer, struct admin_counters, timer);

	for (; a->at <= a->routing->nodes.n; a->at++) {
		int rc;

		if (a->at == 0)
			snprintf(a->name, sizeof(a->name), "manager");
		else {
			struct msg_str name = a->routing->nodes.v[a->at - 1].name;

			snprintf(a->name, sizeof(a->name), "%.*s", (int)name.n, name.p);
		}
		if (a->only != NULL && strcmp(a->name, a->only) != 0)
			continue;
		rc = a->at == 0 ? ask(a, a->manager, MSG_manager_stats) :
		    ask_node(a, &a->routing->nodes.v[a->at - 1]);
		if (rc == 0)
			return;
		a->rc = rc;
		say_error(a, err_text(rc));
	}
	finish(a);
}

int
admin_counters_open(struct admin_counters **out, const struct role_env *env,
    const struct net_addr *manager, const struct msg_routing_rep *routing,
    const char *node, bool rdma, bool json, FILE *to, role_fn *done, void *ctx)
{
	struct admin_counters *a = calloc(1, sizeof(*a) +
	    (routing->nodes.n + 1u) * sizeof(a->told[0]));

	*out = a;
	if (a == NULL)
		return -ENOMEM;
	a->env = env;
	a->manager = manager;
	a->routing = routing;
	a->only = node;
	a->as_rdma = rdma;
	a->json = json;
	a->to = to;
	a->done = done;
	a->ctx = ctx;
	clock_timer_start(env->clock, &a->timer, clock_now(env->clock), next);
	return 0;
}

void
admin_counters_close(struct admin_counters *a)
{
	if (a == NULL)
		return;
	net_call_cancel(&a->call);
	clock_timer_stop(a->env->clock, &a->timer);
	admin_rdma_fini(&a->rdma);
	free(a);
}
