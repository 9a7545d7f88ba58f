/* SPDX-License-Identifier: MIT */
/* admin.c - one command from words to text.
 *
 *   ASK_ROUTING -> ASK_STATUS -> ASK_CLIENTS -> print -> done
 *                                          \-> ask every node, print -> done
 *
 * A command is a row that names the answers it needs; those are fetched in this order from
 * the first manager that answers, kept, and printed by the row's function.  Long answers come
 * in pieces: routing is asked for until there is nothing newer, nodes, replicas that are brought
 * up to date and clients until nothing is left behind the last one.  A command
 * without one asks the nodes too (roles/admin_counters.c), and may be told which.  A
 * command that changes something makes its request of its arguments, and is done when the
 * manager has done it. */
#include "roles/admin.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/msg_all.h"
#include "net/routing.h"
#include "roles/admin_counters.h"
#include "roles/admin_pieces.h"
#include "roles/admin_show.h"

#define ATTEMPT_MS	2000u
#define GIVE_UP_MS	10000u
#define PAUSE_MS	100u

enum { NEED_ROUTING = 1, NEED_STATUS = 2, NEED_CLIENTS = 4, NEED_DONE = 8,
	NEED_MANAGERS = 16 };

/* A request of a command that changes something. */
struct change {
	uint16_t method;
	union {
		struct msg_chain_accept accept;
		struct msg_chain_resync resync;
		struct msg_disk_replace replace;
		struct msg_manager_change manager;
		struct msg_metadata_change metadata;
	} u;
};

struct command {
	const char *words;		/* as typed */
	unsigned    needs;
	/* NULL: counters of [NODE], or what they say of RDMA */
	void	  (*print)(FILE *to, const struct admin_facts *f, bool json);
	const char *help;
	/* Of @arg_n arguments: false, with the reason on stderr. */
	bool	  (*make)(struct change *c, const char *const *args);
	unsigned    arg_n;
};

static bool
number(const char *text, const char *what, uint32_t *out)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(text, &end, 10);
	*out = (uint32_t)v;
	if (*text >= '0' && *text <= '9' && *end == '\0' && errno == 0 &&
	    v >= 1 && v <= UINT32_MAX)
		return true;
	fprintf(stderr, "fsd admin: '%s' is not a %s\n", text, what);
	return false;
}

static bool
disk_id(const char *text, struct uid128 *out)
{
	if (uid128_parse(text, out) == 0)
		return true;
	fprintf(stderr, "fsd admin: '%s' is not the id of a disk\n", text);
	return false;
}

static bool
make_accept(struct change *c, const char *const *args)
{
	c->method = MSG_chain_accept;
	return number(args[0], "chain", &c->u.accept.chain) &&
	    number(args[1], "target", &c->u.accept.target);
}

static bool
make_resync(struct change *c, const char *const *args)
{
	c->method = MSG_chain_resync;
	return number(args[0], "chain", &c->u.resync.chain) &&
	    number(args[1], "target", &c->u.resync.target);
}

static bool
make_replace(struct change *c, const char *const *args)
{
	c->method = MSG_disk_replace;
	return disk_id(args[0], &c->u.replace.disk) &&
	    disk_id(args[1], &c->u.replace.with);
}

static bool
make_manager(struct change *c, enum manager_op op, const char *addr, const char *with)
{
	struct net_addr a;
	const char *why;

	c->method = MSG_manager_change;
	c->u.manager = (struct msg_manager_change){ .op = (uint8_t)op,
		.addr = msg_str(addr), .with = msg_str(with) };
	if (net_addr_parse(addr, strlen(addr), &a, &why) == 0 &&
	    (*with == '\0' || net_addr_parse(with, strlen(with), &a, &why) == 0))
		return true;
	fprintf(stderr, "fsd admin: %s %s: %s\n", addr, with, why);
	return false;
}

static bool
make_add(struct change *c, const char *const *args)
{
	return make_manager(c, MANAGER_ADD, args[0], "");
}

static bool
make_remove(struct change *c, const char *const *args)
{
	return make_manager(c, MANAGER_REMOVE, args[0], "");
}

static bool
make_instead(struct change *c, const char *const *args)
{
	return make_manager(c, MANAGER_REPLACE, args[0], args[1]);
}

static bool
make_metadata(struct change *c, enum manager_op op, const char *node, const char *with)
{
	c->method = MSG_metadata_change;
	c->u.metadata.op = (uint8_t)op;
	return number(node, "node", &c->u.metadata.node) &&
	    (*with == '\0' || number(with, "node", &c->u.metadata.with));
}

static bool
make_meta_add(struct change *c, const char *const *args)
{
	return make_metadata(c, MANAGER_ADD, args[0], "");
}

static bool
make_meta_remove(struct change *c, const char *const *args)
{
	return make_metadata(c, MANAGER_REMOVE, args[0], "");
}

static bool
make_meta_instead(struct change *c, const char *const *args)
{
	return make_metadata(c, MANAGER_REPLACE, args[0], args[1]);
}

static const struct command commands[] = {
	{ "show nodes", NEED_ROUTING | NEED_STATUS, admin_show_nodes,
	    "nodes, their roles, state, addresses and disks", NULL, 0 },
	{ "show disks", NEED_ROUTING | NEED_STATUS, admin_show_disks,
	    "data disks, their space and health", NULL, 0 },
	{ "show targets", NEED_ROUTING, admin_show_targets,
	    "targets: where each is and which chain it serves", NULL, 0 },
	{ "show chains", NEED_ROUTING | NEED_STATUS, admin_show_chains,
	    "chains: version, state, replicas, and how far one is that syncs", NULL, 0 },
	{ "show tables", NEED_ROUTING, admin_show_tables,
	    "chain tables and their versions", NULL, 0 },
	{ "show clients", NEED_CLIENTS, admin_show_clients,
	    "live clients", NULL, 0 },
	{ "show space", NEED_STATUS, admin_show_space,
	    "bytes that files can use and do use", NULL, 0 },
	{ "show counters", NEED_ROUTING, NULL,
	    "[NODE]: what every process, or that of NODE, has counted", NULL, 0 },
	{ "show rdma", NEED_ROUTING, NULL,
	    "[NODE]: RDMA devices, ports, connections, credits, bytes moved and copied",
	    NULL, 0 },
	{ "show managers", NEED_MANAGERS, admin_show_managers,
	    "managers: who leads, who is being added or removed", NULL, 0 },
	{ "manager add", NEED_DONE, NULL,
	    "ADDRESS: take the new manager there into the group", make_add, 1 },
	{ "manager remove", NEED_DONE, NULL,
	    "ADDRESS: go on without that manager", make_remove, 1 },
	{ "manager replace", NEED_DONE, NULL,
	    "OLD NEW: the new manager at NEW for the one at OLD; may be one address",
	    make_instead, 2 },
	{ "show metadata", NEED_ROUTING | NEED_STATUS, admin_show_metadata,
	    "members of the metadata group: who leads, who is being added or removed",
	    NULL, 0 },
	{ "metadata add", NEED_DONE, NULL,
	    "NODE: take that metadata node into the group", make_meta_add, 1 },
	{ "metadata remove", NEED_DONE, NULL,
	    "NODE: go on without it", make_meta_remove, 1 },
	{ "metadata replace", NEED_DONE, NULL,
	    "OLD NEW: metadata node NEW for OLD; may be one node that lost its data",
	    make_meta_instead, 2 },
	{ "chain accept-loss", NEED_DONE, NULL,
	    "CHAIN TARGET: its last replica is gone for good; go on with TARGET",
	    make_accept, 2 },
	{ "chain resync", NEED_DONE, NULL,
	    "CHAIN TARGET: compare that replica with the others, mend what differs",
	    make_resync, 2 },
	{ "disk replace", NEED_DONE, NULL,
	    "OLD NEW: free targets of disk NEW take the place of those on OLD",
	    make_replace, 2 },
};

struct admin {
	struct role_env	 env;
	struct net_addr	 managers[ROUTING_REPLICAS_MAX];
	unsigned	 manager_n, manager_at;
	const struct command *cmd;
	struct change	 change;
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
	struct admin_pieces pieces;
	struct admin_facts facts;
	char		 node[128];		/* asked for; "": all */
	struct admin_counters *counters;
};

static void ask(struct admin *a);

void
admin_help(FILE *out)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		fprintf(out, "  fsd admin %-18s %s\n", commands[i].words,
		    commands[i].help);
}

static int
take(struct admin *a, const void *rep)
{
	const void *kept = NULL;
	int rc = 0;

	if (a->asking != NEED_DONE)
		rc = admin_pieces_add(&a->pieces, a->call.method->reply, rep, &kept);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	if (a->asking == NEED_ROUTING)
		a->facts.routing = kept;
	else if (a->asking == NEED_STATUS)
		a->facts.status = kept;
	else if (a->asking == NEED_CLIENTS)
		a->facts.clients = kept;
	else if (a->asking == NEED_MANAGERS)
		a->facts.managers = kept;
	a->have |= a->asking;
	return 0;
}

/* All that the command needs is there. */
static void
conclude(struct admin *a)
{
	int rc;

	if (a->cmd->make != NULL) {
		a->done(a->ctx, 0);
		return;
	}
	if (a->cmd->print != NULL) {
		a->cmd->print(a->to, &a->facts, a->json);
		a->done(a->ctx, 0);
		return;
	}
	rc = admin_counters_open(&a->counters, &a->env, &a->managers[a->manager_at],
	    a->facts.routing, a->node[0] != '\0' ? a->node : NULL,
	    strcmp(a->cmd->words, "show rdma") == 0, a->json, a->to, a->done, a->ctx);
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
		a->give_up_ns = clock_now(a->env.clock) + GIVE_UP_MS * NS_PER_MS;
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
	struct msg_routing newer = { .have = a->pieces.routing.version };
	struct msg_status status = admin_pieces_status(&a->pieces);
	struct msg_clients clients = admin_pieces_clients(&a->pieces);
	static const struct msg_none none = { 0 };
	unsigned missing = a->cmd->needs & ~a->have;
	struct net_call_opts opts = {
		.deadline_ns = clock_now(a->env.clock) + ATTEMPT_MS * NS_PER_MS
	};
	uint16_t method = MSG_clients;
	const void *req = &clients;
	int rc;

	a->asking = missing & -missing;		/* the lowest bit */
	if (a->asking == NEED_ROUTING) {
		method = MSG_routing;
		req = &newer;
	} else if (a->asking == NEED_STATUS) {
		method = MSG_status;
		req = &status;
	} else if (a->asking == NEED_MANAGERS) {
		method = MSG_managers;
		req = &none;
	} else if (a->asking == NEED_DONE) {
		method = a->change.method;
		req = &a->change.u;
	}
	rc = net_call_start(&a->call, a->env.hub, &a->managers[a->manager_at],
	    method, req, &opts, answered);
	if (rc != 0)
		a->done(a->ctx, rc);
}

/* Every command is two words, then its arguments. */
static bool
is_command(const struct command *c, const char *const *words, unsigned word_n)
{
	size_t n = word_n >= 2 ? strlen(words[0]) : 0;

	return word_n >= 2 && strncmp(c->words, words[0], n) == 0 &&
	    c->words[n] == ' ' && strcmp(c->words + n + 1, words[1]) == 0;
}

int
admin_open(struct admin **out, const struct role_env *env,
    const struct net_addr *managers, unsigned manager_n,
    const char *const *words, unsigned word_n, bool json, FILE *to,
    role_fn *done, void *ctx)
{
	const struct command *cmd = NULL;
	struct change change = { 0 };
	const char *node = "";
	struct admin *a;

	*out = NULL;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		unsigned args = commands[i].arg_n;
		bool counters = commands[i].print == NULL && commands[i].make == NULL;

		if (!is_command(&commands[i], words, word_n))
			continue;
		if (word_n == 2 + args || (counters && word_n == 3))
			cmd = &commands[i];
		if (counters && word_n == 3)
			node = words[2];
		if (cmd != NULL && cmd->make != NULL &&
		    !cmd->make(&change, words + 2))
			return -EINVAL;
	}
	if (cmd == NULL) {
		fprintf(stderr, "fsd admin: no command '");
		for (unsigned i = 0; i < word_n; i++)
			fprintf(stderr, "%s%s", i > 0 ? " " : "", words[i]);
		fprintf(stderr, "'; there are:\n");
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
	a->change = change;
	snprintf(a->node, sizeof(a->node), "%s", node);
	a->json = json;
	a->to = to;
	a->done = done;
	a->ctx = ctx;
	admin_pieces_init(&a->pieces);
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
	admin_pieces_fini(&a->pieces);
	free(a);
}
