/* SPDX-License-Identifier: MIT */
/* admin.c - one command from words to text.
 *
 *   ASK_ROUTING -> ASK_STATUS -> ASK_CLIENTS -> print -> done
 *                                          \-> ask every node, print -> done
 *
 * A command is a row that names the answers it needs; those are fetched in this order from
 * the first manager that answers, kept, and printed by the row's function.  A command
 * without one asks the nodes too (roles/admin_counters.c), and may be told which. */
#include "roles/admin.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/msg_all.h"
#include "net/routing.h"
#include "roles/admin_counters.h"
#include "roles/admin_show.h"

#define ATTEMPT_MS	2000u
#define GIVE_UP_MS	10000u
#define PAUSE_MS	100u

enum { NEED_ROUTING = 1, NEED_STATUS = 2, NEED_CLIENTS = 4, NEED_CONFIG = 8 };

struct command {
	const char *words;		/* as typed */
	unsigned    needs;
	/* NULL: counters of [NODE] */
	void	  (*print)(FILE *to, const struct admin_facts *f, bool json);
	const char *help;
};

static const struct command commands[] = {
	{ "show nodes", NEED_ROUTING | NEED_STATUS, admin_show_nodes,
	    "nodes, their roles, state, addresses and disks" },
	{ "show disks", NEED_ROUTING | NEED_STATUS, admin_show_disks,
	    "data disks, their space and health" },
	{ "show targets", NEED_ROUTING, admin_show_targets,
	    "targets: where each is and which chain it serves" },
	{ "show chains", NEED_ROUTING, admin_show_chains,
	    "chains: version, state and targets, head first" },
	{ "show tables", NEED_ROUTING, admin_show_tables,
	    "chain tables and their versions" },
	{ "show clients", NEED_CLIENTS, admin_show_clients,
	    "live clients" },
	{ "show space", NEED_STATUS, admin_show_space,
	    "bytes that files can use and do use" },
	{ "show counters", NEED_ROUTING, NULL,
	    "[NODE]: what every process, or that of NODE, has counted" },
};

struct admin {
	struct role_env	 env;
	struct net_addr	 managers[ROUTING_REPLICAS_MAX];
	unsigned	 manager_n, manager_at;
	const struct command *cmd;
	bool		 json;
	FILE		*to;
	role_fn		*done;
	void		*ctx;
	uint64_t	 give_up_ns;
	unsigned	 asking;		/* NEED_* of the call in flight */
	unsigned	 have;
	struct net_call	 call;
	struct clock_timer pause;
	int		 last_rc;
	struct msg_arena arena;			/* copies of the answers */
	struct admin_facts facts;
	char		 node[128];		/* asked for; "": all */
	struct admin_counters *counters;
};

static void ask(struct admin *a);

void
admin_help(FILE *out)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		fprintf(out, "  fsd admin %-14s %s\n", commands[i].words,
		    commands[i].help);
}

/* Deep copy by the codec: encode what was borrowed, decode it into our arena. */
static const void *
keep(struct admin *a, const struct msg_type *t, const void *msg)
{
	uint8_t *bytes = msg_arena_get(&a->arena, NET_MSG_MAX);
	void *copy = msg_arena_get(&a->arena, t->size);
	int n;

	if (bytes == NULL || copy == NULL ||
	    (n = msg_encode(t, msg, bytes, NET_MSG_MAX)) < 0 ||
	    msg_decode(t, bytes, (size_t)n, &a->arena, copy, NULL) != 0)
		return NULL;
	return copy;
}

static int
take(struct admin *a, const void *rep)
{
	const void *copy = keep(a, a->call.method->reply, rep);

	if (copy == NULL)
		return -ENOMEM;
	switch (a->asking) {
	case NEED_ROUTING:
		a->facts.routing = copy;
		break;
	case NEED_STATUS:
		a->facts.status = copy;
		break;
	case NEED_CLIENTS:
		a->facts.clients = copy;
		break;
	default:
		break;
	}
	a->have |= a->asking;
	return 0;
}

/* All that the command needs is there. */
static void
conclude(struct admin *a)
{
	int rc;

	if (a->cmd->print != NULL) {
		a->cmd->print(a->to, &a->facts, a->json);
		a->done(a->ctx, 0);
		return;
	}
	rc = admin_counters_open(&a->counters, &a->env, &a->managers[a->manager_at],
	    a->facts.routing, a->node[0] != '\0' ? a->node : NULL, a->json, a->to,
	    a->done, a->ctx);
	if (rc != 0)
		a->done(a->ctx, rc);
}

static void
paused(struct clock_timer *t)
{
	ask(container_of(t, struct admin, pause));
}

static void
answered(struct net_call *c, int rc)
{
	struct admin *a = container_of(c, struct admin, call);

	if (rc == 0 && (rc = take(a, c->rep)) == 0) {
		if ((a->cmd->needs & ~a->have) == 0)
			conclude(a);
		else
			ask(a);
		return;
	}
	a->last_rc = rc;
	if (err_next(rc) == ERR_NEXT_FAIL ||
	    clock_now(a->env.clock) >= a->give_up_ns) {
		a->done(a->ctx, rc);
		return;
	}
	a->manager_at = (a->manager_at + 1) % a->manager_n;
	clock_timer_start(a->env.clock, &a->pause,
	    clock_now(a->env.clock) + PAUSE_MS * NS_PER_MS, paused);
}

static void
ask(struct admin *a)
{
	static const struct msg_routing all = { 0 };
	static const struct msg_none none = { 0 };
	unsigned missing = a->cmd->needs & ~a->have;
	struct net_call_opts opts = {
		.deadline_ns = clock_now(a->env.clock) + ATTEMPT_MS * NS_PER_MS
	};
	uint16_t method = MSG_clients;
	const void *req = &none;
	int rc;

	a->asking = missing & -missing;		/* the lowest bit */
	if (a->asking == NEED_ROUTING) {
		method = MSG_routing;
		req = &all;
	} else if (a->asking == NEED_STATUS)
		method = MSG_status;
	rc = net_call_start(&a->call, a->env.hub, &a->managers[a->manager_at],
	    method, req, &opts, answered);
	if (rc != 0)
		a->done(a->ctx, rc);
}

int
admin_open(struct admin **out, const struct role_env *env,
    const struct net_addr *managers, unsigned manager_n,
    const char *const *words, unsigned word_n, bool json, FILE *to,
    role_fn *done, void *ctx)
{
	char line[128] = "";
	const char *node = "";
	const struct command *cmd = NULL;
	struct admin *a;

	*out = NULL;
	for (unsigned i = 0; i < word_n; i++) {
		size_t n = strlen(line);

		snprintf(line + n, sizeof(line) - n, "%s%s", i > 0 ? " " : "",
		    words[i]);
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		size_t n = strlen(commands[i].words);

		if (strncmp(commands[i].words, line, n) != 0)
			continue;
		if (line[n] == '\0')
			cmd = &commands[i];
		else if (line[n] == ' ' && commands[i].print == NULL && word_n == 3) {
			cmd = &commands[i];
			node = words[2];
		}
	}
	if (cmd == NULL) {
		fprintf(stderr, "fsd admin: no command '%s'; there are:\n", line);
		admin_help(stderr);
		return -EINVAL;
	}
	if (manager_n == 0 || manager_n > ROUTING_REPLICAS_MAX)
		return -EINVAL;
	if ((a = calloc(1, sizeof(*a))) == NULL)
		return -ENOMEM;
	a->env = *env;
	memcpy(a->managers, managers, manager_n * sizeof(*managers));
	a->manager_n = manager_n;
	a->cmd = cmd;
	snprintf(a->node, sizeof(a->node), "%s", node);
	a->json = json;
	a->to = to;
	a->done = done;
	a->ctx = ctx;
	msg_arena_init(&a->arena, 64u << 20);
	a->give_up_ns = clock_now(env->clock) + GIVE_UP_MS * NS_PER_MS;
	clock_timer_start(env->clock, &a->pause, clock_now(env->clock), paused);
	*out = a;
	return 0;
}

void
admin_close(struct admin *a)
{
	if (a == NULL)
		return;
	admin_counters_close(a->counters);
	net_call_cancel(&a->call);
	clock_timer_stop(a->env.clock, &a->pause);
	msg_arena_fini(&a->arena);
	free(a);
}
