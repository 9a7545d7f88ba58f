/* SPDX-License-Identifier: MIT */
/* metadata_rig.h - the metadata role over the simulated clock and disk, with a real group;
 * the network, the membership and storage are played by this file. */
#ifndef TESTS_METADATA_RIG_H
#define TESTS_METADATA_RIG_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "conf/err.h"
#include "meta/tree.h"
#include "net/msg_all.h"
#include "roles/metadata_impl.h"
#include "tests/sim/clock.h"
#include "tests/sim/disk.h"

#define CHAINS	4u

/* ---- the world around the role ---- */

struct net_server {
	net_serve_fn *fn;
	void	     *ctx;
	bool	      draining;
};
struct member {
	struct member_conf conf;
	struct clock_defer beat;
};
/* One request of a client and its answer. */
struct ask {
	struct net_req req;
	_Alignas(16) uint8_t msg[512];
	char	text[512];		/* names */
	bool	answered, dropped;
	int	rc;
	_Alignas(16) uint8_t rep[512];
	struct list node;
};

static struct {
	struct sim_clock *world;
	struct clock	 *clock;
	struct sim_box	 *box;
	struct rand	  rand;
	struct conf	  conf;
	struct role_env	  env;
	struct net_server server;
	struct member	  member;
	struct routing	 *routing;
	struct metadata	 *m;
	bool		  ready, stopped;
	node_id		  self;
	unsigned	  refreshes, beats;
	bool		  deaf;		/* the manager */
	/* storage */
	bool		  mute;		/* calls wait */
	int		  fail;		/* so many calls fail first */
	struct list	  calls;	/* net_call, by node */
	unsigned	  cuts, lasts;
	struct msg_cut	  cut;		/* the last one */
	uint64_t	  end;		/* chunk 0 of slot 0 ends here */
	struct list	  asks;
	uint64_t	  seq[4];
	int		  repaired;	/* what came of the last repair */
} W;

int
net_server_open(struct net_server **out, const struct net_server_conf *c)
{
	(void)c;
	W.server = (struct net_server){ 0 };
	*out = &W.server;
	return 0;
}
void
net_server_handle(struct net_server *s, uint8_t service, net_serve_fn *fn,
    void *ctx)
{
	ck_assert(service == 0x02 || service == GROUP_SERVICE);
	if (service != 0x02)
		return;
	s->fn = fn;
	s->ctx = ctx;
}
void
net_server_addr(const struct net_server *s, struct net_addr *out)
{
	(void)s;
	*out = (struct net_addr){ .kind = NET_ADDR_LOCAL, .id = 9 };
}
void
net_server_drain(struct net_server *s)
{
	s->draining = true;
}
void
net_server_close(struct net_server *s)
{
	if (s != NULL)
		s->fn = NULL;
}
void
net_reply(struct net_req *req, int rc, const void *rep,
    const struct net_piece *pieces, unsigned n, net_sent_fn *sent, void *arg)
{
	struct ask *a = container_of(req, struct ask, req);
	const struct msg_type *t = msg_method(req->method)->reply;

	(void)arg;
	ck_assert_ptr_null(pieces);
	ck_assert_uint_eq(n, 0);
	ck_assert(sent == NULL);
	ck_assert(!a->answered && !a->dropped);
	a->answered = true;
	a->rc = rc;
	if (rc == 0)
		memcpy(a->rep, rep, t->size);
	if (rc == 0 && req->method == MSG_repair)	/* of the first row */
		W.repaired = ((const struct msg_repair_rep *)rep)->results.v[0].rc;
}
void
net_req_drop(struct net_req *req)
{
	struct ask *a = container_of(req, struct ask, req);

	ck_assert(!a->answered && !a->dropped);
	a->dropped = true;
}

static inline void
call_answer(struct clock_timer *t)
{
	struct net_call *c = container_of(t, struct net_call, deadline);
	struct msg_last_rep last = { .found = W.end > 0,
		.len = (uint32_t)W.end };
	struct msg_cut_rep cut = { .chunks = 1 };
	int rc = c->rc;

	if (W.mute) {
		clock_timer_start(W.clock, t, clock_now(W.clock) + NS_PER_MS,
		    call_answer);
		return;
	}
	list_remove(&c->node);
	c->state = 0;
	if (W.fail > 0) {
		W.fail--;
		rc = ERR_STALE_CHAIN;
	}
	c->rep = c->id == MSG_last ? (void *)&last : (void *)&cut;
	c->fn(c, rc);
}
int
net_call_start(struct net_call *c, struct net_hub *hub, const struct net_addr *to,
    uint16_t method, const void *req, const struct net_call_opts *opts,
    net_call_fn *fn)
{
	(void)hub;
	ck_assert_uint_eq(c->state, 0);
	ck_assert_uint_gt(opts->deadline_ns, clock_now(W.clock));
	ck_assert_uint_eq(to->kind, NET_ADDR_LOCAL);
	c->state = 1;
	c->fn = fn;
	c->id = method;
	list_push_back(&W.calls, &c->node);
	c->rc = 0;
	if (method == MSG_cut) {
		W.cut = *(const struct msg_cut *)req;
		if (W.cut.target != W.cut.chain)	/* the head's */
			c->rc = ERR_NOT_OWNER;
		W.cuts++;
	} else {
		const struct msg_last *q = req;

		ck_assert_uint_eq(method, MSG_last);
		if (q->target != q->chain + CHAINS)	/* the tail's */
			c->rc = ERR_NOT_OWNER;
		W.lasts++;
	}
	clock_timer_start(W.clock, &c->deadline, clock_now(W.clock) + NS_PER_MS,
	    call_answer);
	return 0;
}
bool
net_call_active(const struct net_call *c)
{
	return c->state != 0;
}
uint64_t
net_call_heard(const struct net_call *c)
{
	(void)c;
	return 0;
}
void
net_call_ping(struct net_call *c)
{
	(void)c;
}
void
net_call_cancel(struct net_call *c)
{
	if (c->state == 0)
		return;
	c->state = 0;
	list_remove(&c->node);
	clock_timer_stop(W.clock, &c->deadline);
}

int
member_open(struct member **out, const struct member_conf *conf)
{
	W.member.conf = *conf;
	ck_assert_uint_eq(conf->roles, NODE_METADATA);
	*out = &W.member;
	return 0;
}
void
member_close(struct member *m)
{
	if (m != NULL)
		clock_undefer(W.clock, &m->beat);
}
/* The manager: it knows the group that the first word names. */
static void
beat(struct clock_defer *d)
{
	struct member *m = container_of(d, struct member, beat);
	struct msg_group_status s[MEMBER_GROUPS_MAX];
	unsigned n = m->conf.groups(m->conf.ctx, s, MEMBER_GROUPS_MAX);
	struct routing_group row;

	W.beats++;
	if (n == 0 || W.deaf)
		return;
	ck_assert_uint_eq(n, 1);
	ck_assert_uint_eq(s[0].voters.n, 1);
	ck_assert_uint_eq(s[0].voters.v[0], m->conf.member);
	row = *routing_group(W.routing, 1);
	if (uid128_zero(&row.group))
		row.group = s[0].group;
	row.changed = routing_version(W.routing) + 1;
	ck_assert_int_eq(routing_put_group(W.routing, &row), 0);
	m->conf.changed(m->conf.ctx);
}
void
member_beat_now(struct member *m)
{
	clock_defer(W.clock, &m->beat, beat);
}
static struct {
	void (*fn)(void *);
	void *ctx;
	struct clock_defer defer;
} leaving;
static void
has_left(struct clock_defer *d)
{
	(void)d;
	leaving.fn(leaving.ctx);
}
void
member_leave(struct member *m, void (*fn)(void *ctx), void *ctx)
{
	(void)m;
	leaving.fn = fn;
	leaving.ctx = ctx;
	clock_defer(W.clock, &leaving.defer, has_left);
}
const struct routing *
member_routing(const struct member *m)
{
	(void)m;
	return W.routing;
}
node_id
member_node(const struct member *m)
{
	(void)m;
	return W.self;
}
void
member_refresh(struct member *m)
{
	(void)m;
	W.refreshes++;
}
void
member_space(const struct member *m, uint64_t *total_bytes, uint64_t *used_bytes)
{
	(void)m;
	*total_bytes = 1000;
	*used_bytes = 10;
}

static int
env_dir(void *ctx, const char *path, bool create, struct disk_dir **out)
{
	(void)ctx;
	return sim_disk_dir(W.box, W.clock, path, create, out);
}
static void
env_random(void *ctx, void *out, size_t n)
{
	(void)ctx;
	rand_bytes(&W.rand, out, n);
}

/* ---- the script's verbs ---- */

static void
is_ready(void *ctx, int rc)
{
	(void)ctx;
	ck_assert_int_eq(rc, 0);
	ck_assert(!W.ready);
	W.ready = true;
}
static inline void
is_stopped(void *ctx, int rc)
{
	(void)ctx;
	ck_assert_int_eq(rc, 0);
	W.stopped = true;
}
static bool
ready(void *ctx)
{
	(void)ctx;
	return W.ready;
}
static inline bool
stopped(void *ctx)
{
	(void)ctx;
	return W.stopped;
}

static void
run_ms(uint64_t ms)
{
	sim_clock_run(W.world, ms * NS_PER_MS);
}

static void
put_group(node_id node, uint64_t member)
{
	struct routing_group row = { .id = 1, .n = 1, .nodes = { node },
		.members = { member }, .changed = routing_version(W.routing) + 1 };

	ck_assert_int_eq(routing_put_group(W.routing, &row), 0);
}

static void
open_role(void)
{
	struct net_addr any = { .kind = NET_ADDR_LOCAL };

	W.ready = W.stopped = false;
	W.clock = sim_clock_node(W.world, 0, 0);
	W.env.clock = W.clock;
	ck_assert_int_eq(metadata_open(&W.m, &W.env, "/meta", &any, &any, 1, "m",
	    is_ready, NULL), 0);
	if (routing_group(W.routing, 1) == NULL)
		put_group(W.self, W.member.conf.member);
	W.member.conf.changed(W.member.conf.ctx);
}

static void
start(void)
{
	open_role();
	ck_assert(sim_clock_run_until(W.world, ready, NULL, 10 * NS_PER_S));
}

static void
drop_asks(void)
{
	struct list *n;

	while ((n = list_pop_front(&W.asks)) != NULL)
		free(list_entry(n, struct ask, node));
}

/* As if the process had died. */
static void
kill_role(void)
{
	sim_disk_kill(W.box);
	metadata_close(W.m);
	W.m = NULL;
	ck_assert(list_empty(&W.calls));
	ck_assert_uint_eq(sim_clock_node_pending(W.clock), 0);
	list_for_each(n, &W.asks) {
		struct ask *a = list_entry(n, struct ask, node);

		ck_assert(a->answered || a->dropped);
	}
	sim_clock_node_close(W.clock);
}

static void
put_routing(void)
{
	static chain_id chains[CHAINS];
	struct routing_table t = { .id = 1, .changed = 2, .version = 1,
		.chain_n = CHAINS, .chains = chains };
	struct routing_node n = { .id = 1, .changed = 1, .name = "s",
		.roles = NODE_STORAGE, .state = NODE_UP, .addr_n = 1,
		.addrs = { { .kind = NET_ADDR_LOCAL, .id = 3 } } };

	ck_assert_int_eq(routing_open(&W.routing), 0);
	ck_assert_int_eq(routing_put_node(W.routing, &n), 0);
	n.id = 5;
	n.roles = NODE_METADATA;
	n.addrs[0].id = 9;
	ck_assert_int_eq(routing_put_node(W.routing, &n), 0);
	for (unsigned i = 0; i < CHAINS; i++) {
		struct routing_chain c = { .id = i + 1, .changed = 1,
			.version = 1, .state = CHAIN_SERVING, .target_n = 3,
			.states = { TARGET_SERVING, TARGET_SERVING,
			    TARGET_OFFLINE } };

		chains[i] = i + 1;
		for (unsigned k = 0; k < c.target_n; k++) {
			struct routing_target r = { .id = i + 1 + k * CHAINS,
				.changed = 1, .node = 1, .chain = i + 1 };

			ck_assert_int_eq(routing_put_target(W.routing, &r), 0);
			c.targets[k] = c.preferred[k] = r.id;
		}
		ck_assert_int_eq(routing_put_chain(W.routing, &c), 0);
	}
	ck_assert_int_eq(routing_put_table(W.routing, &t), 0);
}

static void
setup(void)
{
	memset(&W, 0, sizeof(W));
	memset(&leaving, 0, sizeof(leaving));
	W.world = sim_clock_open();
	rand_seed(&W.rand, 1);
	W.box = sim_box_open(&W.rand);
	ck_assert_int_eq(conf_init(&W.conf), 0);
	W.conf.metadata_log_size = 4 << 20;
	W.conf.cluster_stripe = 3;
	W.env = (struct role_env){ .rand = &W.rand, .conf = &W.conf,
		.random = env_random, .dir = env_dir };
	log_init(&W.env.log, "metadata");
	W.env.log.level = LOG_ERROR;
	list_init(&W.calls);
	list_init(&W.asks);
	W.self = 5;
	put_routing();
	start();
}

static void
teardown(void)
{
	char why[256];
	int rc;

	if (W.m != NULL) {
		rc = tree_check(group_table(W.m->group), why, sizeof(why));
		ck_assert_msg(rc == 0, "tree: %s", why);
		kill_role();
	}
	drop_asks();
	sim_box_close(W.box);
	sim_clock_close(W.world);
	routing_close(W.routing);
	conf_fini(&W.conf);
}

static struct msg_ctx
ctx(unsigned client, bool change)
{
	struct msg_ctx c = { .client.b = { (uint8_t)client, 1 } };

	if (change) {
		c.seq = ++W.seq[client];
		c.done = c.seq > 20 ? c.seq - 20 : 0;
	}
	return c;
}

/* Hand in a request; strings of @msg must outlive the test. */
static struct ask *
ask(uint16_t method, const void *msg)
{
	struct ask *a = calloc(1, sizeof(*a));

	memcpy(a->msg, msg, msg_method(method)->request->size);
	a->req.method = method;
	a->req.msg = a->msg;
	a->req.deadline_ns = clock_now(W.clock) + 5 * NS_PER_S;
	list_push_back(&W.asks, &a->node);
	W.server.fn(W.server.ctx, &a->req);
	return a;
}

static bool
answered(void *a)
{
	return ((struct ask *)a)->answered;
}

static int
await(struct ask *a)
{
	ck_assert(sim_clock_run_until(W.world, answered, a, 10 * NS_PER_S));
	return a->rc;
}

static const struct msg_entry_rep *
entry(struct ask *a)
{
	ck_assert_int_eq(await(a), 0);
	return (const struct msg_entry_rep *)(const void *)a->rep;
}

static struct ask *
create(unsigned client, const char *name, uint64_t handle)
{
	struct msg_create q = { ctx(client, true), INO_ROOT, msg_str(name), 0644,
		O_RDWR, handle };

	return ask(MSG_create, &q);
}

static struct ask *
lookup(unsigned client, const char *name)
{
	struct msg_lookup q = { ctx(client, false), INO_ROOT, msg_str(name) };

	return ask(MSG_lookup, &q);
}

static struct ask *
getattr(unsigned client, ino_id ino)
{
	struct msg_ino q = { ctx(client, false), ino };

	return ask(MSG_getattr, &q);
}

static struct ask *
open_file(unsigned client, ino_id ino, uint32_t flags, uint64_t handle)
{
	struct msg_open q = { ctx(client, (flags & O_TRUNC) != 0), ino, flags,
		handle };

	return ask(MSG_open, &q);
}

static struct ask *
settle(unsigned client, uint16_t method, ino_id ino, uint64_t handle,
    uint64_t length, uint32_t epoch)
{
	struct msg_sync q = { ctx(client, length > 0), ino, handle, length > 0,
		length, epoch, 0 };

	return ask(method, &q);
}

static struct ask *
truncate_file(unsigned client, ino_id ino, uint64_t size)
{
	struct msg_setattr q = { .ctx = ctx(client, true), .ino = ino,
		.valid = META_SET_SIZE, .size = size };

	return ask(MSG_setattr, &q);
}

static struct ask *
unlink_file(unsigned client, const char *name)
{
	struct msg_name q = { ctx(client, true), INO_ROOT, msg_str(name) };

	return ask(MSG_unlink, &q);
}

static struct msg_session_rep
session(unsigned client, uint64_t epoch, struct msg_open_row *rows, uint32_t n,
    bool leave)
{
	struct msg_session q = { .client.b = { (uint8_t)client, 1 },
		.epoch = epoch, .opens = { rows, n }, .leaving = leave };
	struct ask *a = ask(MSG_session, &q);

	ck_assert_int_eq(await(a), 0);
	return *(struct msg_session_rep *)(void *)a->rep;
}

#endif
