/* SPDX-License-Identifier: MIT */
/* test_metadata.c - the metadata role over the simulated clock and disk, with a real group;
 * the network, the membership and storage are played by this file. */
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
}
void
net_req_drop(struct net_req *req)
{
	struct ask *a = container_of(req, struct ask, req);

	ck_assert(!a->answered && !a->dropped);
	a->dropped = true;
}

static void
call_answer(struct clock_timer *t)
{
	struct net_call *c = container_of(t, struct net_call, deadline);
	struct msg_last_rep last = { .found = W.end > 0,
		.len = (uint32_t)W.end };
	struct msg_cut_rep cut = { .chunks = 1 };
	int rc = 0;

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
	if (method == MSG_cut) {
		W.cut = *(const struct msg_cut *)req;
		W.cuts++;
	} else {
		ck_assert_uint_eq(method, MSG_last);
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
static void
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
static bool
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
stop_role(void)
{
	metadata_stop(W.m, is_stopped, NULL);
	ck_assert(sim_clock_run_until(W.world, stopped, NULL, 10 * NS_PER_S));
	metadata_close(W.m);
	W.m = NULL;
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
		struct routing_target r = { .id = i + 1, .changed = 1, .node = 1,
			.chain = i + 1 };
		struct routing_chain c = { .id = i + 1, .changed = 1,
			.version = 1, .state = CHAIN_SERVING, .target_n = 1,
			.targets = { i + 1 }, .states = { TARGET_SERVING },
			.preferred = { i + 1 } };

		chains[i] = i + 1;
		ck_assert_int_eq(routing_put_target(W.routing, &r), 0);
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

/* ---- tests ---- */

START_TEST(create_and_retry)
{
	struct ask *a = create(1, "f", 7), *b;
	ino_id ino = entry(a)->attr.ino;

	ck_assert_uint_eq(entry(a)->attr.stripe, 3);
	ck_assert_uint_eq(entry(a)->attr.chunk_shift, 20);
	W.seq[1]--;
	b = create(1, "f", 7);
	ck_assert_uint_eq(entry(b)->attr.ino, ino);
	ck_assert_uint_eq(entry(b)->created, 1);
	ck_assert_uint_eq(entry(lookup(1, "f"))->attr.ino, ino);
	ck_assert_int_eq(await(lookup(1, "g")), -ENOENT);
	ck_assert_uint_eq((uintptr_t)map_get(&W.m->sessions.opens, ino), 1);
	kill_role();
	start();
	W.seq[1]--;
	b = create(1, "f", 7);
	ck_assert_uint_eq(entry(b)->attr.ino, ino);
	ck_assert(metadata_session_is_open(W.m, ino));
}
END_TEST

START_TEST(who_may_ask)
{
	struct msg_lookup q = { ctx(0, false), INO_ROOT, msg_str("f") };
	struct msg_create c = { ctx(1, false), INO_ROOT, msg_str("f"), 0644, 0, 1 };

	q.ctx.client = (struct uid128){ { 0 } };
	ck_assert_int_eq(await(ask(MSG_lookup, &q)), -EINVAL);
	ck_assert_int_eq(await(ask(MSG_create, &c)), -EINVAL);
	q.ctx.client.b[0] = 1;
	q.ctx.groups.n = META_GROUPS_MAX + 1;
	ck_assert_int_eq(await(ask(MSG_lookup, &q)), -EINVAL);
	metadata_lead(W.m, false);
	ck_assert_int_eq(await(lookup(1, "f")), ERR_NOT_LEADER);
}
END_TEST

/* The answer to a truncation comes behind all cuts; so does what depends on it. */
START_TEST(truncation_waits)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct ask *t, *g, *o, *l;

	ck_assert_uint_eq(entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0))->attr.size,
	    3 << 20);
	W.mute = true;
	W.fail = 2;
	t = truncate_file(1, ino, (1 << 20) + 5);
	run_ms(10);
	g = getattr(1, ino);
	o = open_file(1, ino, O_WRONLY, 8);
	l = lookup(1, "f");
	run_ms(100);
	ck_assert(!t->answered && !g->answered && !o->answered);
	ck_assert_uint_eq(entry(l)->attr.epoch, 0);
	ck_assert_uint_eq(entry(l)->attr.size, (1 << 20) + 5);
	ck_assert_uint_eq(W.cuts, 3);
	ck_assert_uint_eq(W.cut.index, 1);
	ck_assert_uint_eq(W.cut.keep, 5);
	ck_assert_uint_eq(W.cut.epoch, 1);
	W.mute = false;
	ck_assert_uint_eq(entry(t)->attr.epoch, 1);
	ck_assert_uint_eq(entry(g)->attr.epoch, 1);
	ck_assert_uint_eq(entry(o)->attr.epoch, 1);
	ck_assert_uint_eq(W.cuts, 5);		/* two of them twice */
	ck_assert_uint_ge(W.refreshes, 2);
}
END_TEST

/* A second truncation while the first is being cut: one job more, then both answers. */
START_TEST(truncation_overtaken)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct ask *a, *b;

	entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0));
	W.mute = true;
	a = truncate_file(1, ino, 2 << 20);
	run_ms(20);
	b = truncate_file(1, ino, 1 << 20);
	run_ms(20);
	W.mute = false;
	ck_assert_uint_eq(entry(a)->attr.epoch, 1);
	ck_assert_uint_eq(entry(b)->attr.epoch, 2);
	ck_assert_uint_eq(W.cuts, 6);
	ck_assert_uint_eq(entry(getattr(1, ino))->attr.size, 1 << 20);
}
END_TEST

/* Storage is away for long: callers are answered at their deadlines, the work goes on. */
START_TEST(truncation_outlives_callers)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct ask *a;

	entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0));
	W.fail = 100000;
	a = truncate_file(1, ino, 5);
	run_ms(6000);
	ck_assert(a->answered);
	ck_assert_int_eq(a->rc, ERR_BUSY);
	kill_role();
	start();
	run_ms(1000);
	W.fail = 0;
	W.seq[1]--;
	a = truncate_file(1, ino, 5);
	ck_assert_uint_eq(entry(a)->attr.epoch, 1);
	ck_assert_uint_eq(entry(getattr(1, ino))->attr.epoch, 1);
}
END_TEST

START_TEST(removal)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct inode in;

	ck_assert_int_eq(await(unlink_file(1, "f")), 0);
	run_ms(1000);
	ck_assert_uint_eq(W.cuts, 0);		/* it is open */
	ck_assert_uint_eq(entry(getattr(1, ino))->attr.nlink, 0);
	ck_assert_int_eq(await(open_file(1, ino, O_RDONLY, 8)), 0);
	ck_assert_int_eq(await(settle(1, MSG_close, ino, 7, 0, 0)), 0);
	run_ms(1000);
	ck_assert_uint_eq(W.cuts, 0);
	ck_assert_int_eq(await(settle(1, MSG_close, ino, 8, 9, 0)), 0);
	run_ms(1000);
	ck_assert_uint_eq(W.cuts, 3);
	ck_assert_uint_eq(W.cut.epoch, UINT32_MAX);
	ck_assert_uint_eq(W.cut.index, 0);
	ck_assert_uint_eq(W.cut.keep, 0);
	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), -ENOENT);
	ck_assert_int_eq(await(open_file(1, ino, O_RDONLY, 9)), -ESTALE);
	ck_assert_int_eq(await(settle(1, MSG_close, ino, 9, 0, 0)), -ESTALE);
}
END_TEST

/* What is being removed cannot be opened any more, by no way. */
START_TEST(no_open_beside_removal)
{
	ino_id ino = entry(create(1, "f", 0))->attr.ino;
	struct msg_open_row row = { ino, 70 };

	W.mute = true;
	ck_assert_int_eq(await(unlink_file(1, "f")), 0);
	run_ms(100);
	ck_assert_uint_eq(W.cuts, 3);
	ck_assert_int_eq(await(open_file(1, ino, O_RDONLY, 9)), -ESTALE);
	ck_assert_int_eq(await(open_file(1, ino, O_RDWR | O_TRUNC, 10)), -ESTALE);
	session(1, 0, &row, 1, false);
	ck_assert(!metadata_session_is_open(W.m, ino));
	W.mute = false;
	run_ms(100);
}
END_TEST

START_TEST(never_written_needs_no_storage)
{
	struct msg_mknod q = { ctx(1, true), INO_ROOT, msg_str("n"), 0644, 0 };
	ino_id ino = entry(ask(MSG_mknod, &q))->attr.ino;
	struct inode in;

	ck_assert_int_eq(await(unlink_file(1, "n")), 0);
	run_ms(100);
	ck_assert_uint_eq(W.cuts, 0);
	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), -ENOENT);
}
END_TEST

START_TEST(many_removals)
{
	static char names[600][16];
	uint64_t inodes;

	for (unsigned i = 0; i < 600; i++) {
		snprintf(names[i], sizeof(names[i]), "f%u", i);
		entry(create(1, names[i], 0));
	}
	W.fail = 300;
	for (unsigned i = 0; i < 600; i++)
		ck_assert_int_eq(await(unlink_file(1, names[i])), 0);
	run_ms(30000);
	ck_assert_int_eq(fs_inodes(W.m->fs, &inodes), 0);
	ck_assert_uint_eq(inodes, 1);
	ck_assert_uint_eq(W.cuts, 1800 + 300);
	ck_assert_uint_eq(W.m->sessions.opens.n, 0);
}
END_TEST

/* After a restart removals wait until clients had time to tell their opens. */
START_TEST(opens_are_told_again)
{
	ino_id open_ino = entry(create(1, "f", 7))->attr.ino;
	struct msg_open_row row = { open_ino, 7 };
	struct msg_session_rep s, s2;
	struct inode in;
	ino_id ino;

	s = session(1, 0, NULL, 0, false);
	ino = entry(create(1, "g", 0))->attr.ino;
	W.mute = true;
	await(unlink_file(1, "f"));
	await(unlink_file(1, "g"));
	run_ms(100);
	kill_role();
	W.cuts = 0;
	W.mute = false;
	start();
	s2 = session(1, s.epoch, NULL, 0, false);
	ck_assert_uint_ne(s2.epoch, s.epoch);
	ck_assert_uint_eq(s2.ended, 0);		/* in time */
	s = session(1, s2.epoch, &row, 1, false);
	ck_assert_uint_eq(s.epoch, s2.epoch);
	for (unsigned i = 0; i < 14; i++) {
		run_ms(1000);
		session(1, s.epoch, NULL, 0, false);
	}
	ck_assert_uint_eq(W.cuts, 0);
	run_ms(2000);
	ck_assert_uint_eq(W.cuts, 3);
	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), -ENOENT);
	ck_assert_int_eq(fs_inode(W.m->fs, open_ino, &in), 0);
	/* Whoever comes only now, from the run before, comes too late. */
	s2 = session(2, s2.epoch - (1ull << 32), NULL, 0, false);
	ck_assert_uint_eq(s2.ended, 1);
	s2 = session(3, 0, NULL, 0, false);
	ck_assert_uint_eq(s2.ended, 0);
	/* Leaving ends all opens. */
	session(1, s.epoch, NULL, 0, true);
	run_ms(1000);
	ck_assert_int_eq(fs_inode(W.m->fs, open_ino, &in), -ENOENT);
}
END_TEST

/* The group ceases to lead, at any moment of this, and leads again later: whoever waits is
 * told at once to ask elsewhere, nothing is done meanwhile, and then it is as after a
 * restart. */
START_TEST(leads_no_more_and_again)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	ino_id open_ino = entry(create(1, "g", 8))->attr.ino;
	struct msg_open_row rows[] = { { ino, 7 }, { open_ino, 8 } };
	struct msg_session_rep s, s2;
	struct ask *asks[6];
	struct inode in;
	unsigned cuts;

	s = session(1, 0, NULL, 0, false);
	session(1, s.epoch, NULL, 0, false);
	entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0));
	entry(settle(1, MSG_sync, open_ino, 0, 3 << 20, 0));
	await(unlink_file(1, "g"));
	entry(lookup(1, "f"));			/* which it may cache */
	W.mute = true;
	asks[0] = truncate_file(1, ino, 5);
	run_ms(5);
	asks[1] = getattr(1, ino);		/* waits for the truncation */
	asks[2] = lookup(2, "f");		/* for the copy to run out */
	asks[3] = settle(1, MSG_sync, ino, 0, 10, 0);
	asks[4] = create(1, "h", 9);
	asks[5] = unlink_file(1, "nothing");
	run_ms((uint64_t)_i);
	metadata_lead(W.m, false);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_msg(asks[i]->answered || i == 3, "request %u", i);
	ck_assert_int_eq(asks[0]->rc, ERR_NOT_LEADER);
	ck_assert_int_eq(asks[2]->rc, ERR_NOT_LEADER);
	ck_assert_uint_eq(W.m->sessions.n, 0);
	ck_assert(!metadata_session_is_open(W.m, open_ino));
	cuts = W.cuts;
	ck_assert_int_eq(await(lookup(1, "f")), ERR_NOT_LEADER);
	W.mute = false;
	run_ms(2 * W.conf.metadata_session);
	for (unsigned i = 0; i < 6; i++)
		ck_assert_msg(asks[i]->answered, "request %u", i);
	ck_assert_uint_eq(W.cuts, cuts);
	ck_assert(list_empty(&W.calls));
	ck_assert_int_eq(fs_inode(W.m->fs, open_ino, &in), 0);

	metadata_lead(W.m, true);
	s2 = session(1, s.epoch, NULL, 0, false);
	ck_assert_uint_ne(s2.epoch, s.epoch);
	ck_assert_uint_eq(s2.ended, 0);
	ck_assert_uint_eq(session(1, s2.epoch, rows, 2, false).gone.n, 0);
	run_ms(W.conf.metadata_session - 1000);
	ck_assert_uint_eq(entry(getattr(1, ino))->attr.epoch, 1);
	ck_assert_uint_eq(entry(getattr(1, ino))->attr.size, 5);
	session(1, s2.epoch, NULL, 0, false);
	run_ms(3000);
	ck_assert_int_eq(fs_inode(W.m->fs, open_ino, &in), 0);
	session(1, s2.epoch, NULL, 0, true);
	run_ms(1000);
	ck_assert_int_eq(fs_inode(W.m->fs, open_ino, &in), -ENOENT);
}
END_TEST

static void
wipe(void)
{
	kill_role();
	sim_box_close(W.box);
	W.box = sim_box_open(&W.rand);
}

static void
close_role(void)
{
	metadata_close(W.m);
	W.m = NULL;
	sim_clock_node_close(W.clock);
}

/* What a blank node does with a row of the manager. */
static const struct founding {
	const char *what;
	node_id	    node;
	bool	    ours, known;	/* the member is; a group's id is there */
	bool	    founds, ready;
} foundings[] = {
	{ "named: founds",			5, true,  false, true,  true },
	{ "another node is named",		3, false, false, false, true },
	{ "named with the data it had",		5, false, false, false, true },
	{ "there is a group: waits",		3, false, true,  false, true },
	{ "in the group, without its data",	5, false, true,  false, true },
	{ "in the group, its data is blank",	5, true,  true,  false, true },
};

START_TEST(who_founds)
{
	const struct founding *f = &foundings[_i];
	struct routing_group row = { .id = 1, .n = 1, .nodes = { f->node },
		.members = { 77 } };

	wipe();
	row.changed = routing_version(W.routing) + 1;
	row.group.b[0] = f->known;
	open_role();
	if (f->ours)
		row.members[0] = W.member.conf.member;
	ck_assert_int_eq(routing_put_group(W.routing, &row), 0);
	W.member.conf.changed(W.member.conf.ctx);
	run_ms(5000);
	ck_assert_msg(group_blank(W.m->group) == !f->founds, "%s", f->what);
	ck_assert_msg(W.ready == f->ready, "%s", f->what);
	ck_assert_int_eq(await(create(1, "f", 7)),
	    f->founds ? 0 : ERR_NOT_LEADER);
	close_role();
}
END_TEST

/* Nobody is served before the manager has noted which group there is. */
START_TEST(unknown_groups_serve_nobody)
{
	wipe();
	put_group(W.self, 1);
	W.deaf = true;
	open_role();
	put_group(W.self, W.member.conf.member);
	W.member.conf.changed(W.member.conf.ctx);
	run_ms(5000);
	ck_assert(group_leads(W.m->group));
	ck_assert(!W.ready);
	ck_assert_int_eq(await(create(1, "f", 7)), ERR_NO_LEASE);
	W.deaf = false;
	member_beat_now(&W.member);
	run_ms(100);
	ck_assert(W.ready);
	entry(create(1, "f", 7));
	close_role();
}
END_TEST

/* What was founded stays so, but another cluster's group serves nobody. */
START_TEST(a_foreign_group_serves_nobody)
{
	struct routing_group row = *routing_group(W.routing, 1);

	kill_role();
	start();
	entry(create(1, "f", 7));
	kill_role();
	row.group.b[3] ^= 1;
	row.changed = routing_version(W.routing) + 1;
	ck_assert_int_eq(routing_put_group(W.routing, &row), 0);
	W.deaf = true;
	open_role();
	run_ms(5000);
	ck_assert_int_eq(await(create(1, "f", 7)), ERR_NO_LEASE);
	close_role();
}
END_TEST

START_TEST(dead_clients_lose_their_opens)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	ino_id other = entry(create(1, "g", 8))->attr.ino;
	struct msg_open_row rows[] = { { ino, 7 }, { other, 8 } };
	struct msg_session_rep s = session(1, 0, NULL, 0, false), again;
	struct inode in;

	await(unlink_file(1, "f"));
	run_ms(W.conf.metadata_session + 1000);
	ck_assert(metadata_session_is_open(W.m, ino));	/* grace */
	ck_assert_uint_eq(W.m->sessions.live_n, 0);
	run_ms(W.conf.metadata_session + 1000);
	ck_assert(!metadata_session_is_open(W.m, ino));
	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), -ENOENT);
	ck_assert_uint_eq(s.ended, 0);
	again = session(1, s.epoch, NULL, 0, false);
	ck_assert_uint_ne(again.epoch, s.epoch);
	ck_assert_uint_eq(again.ended, 1);
	/* the answer may have been lost: it is said again */
	again = session(1, s.epoch, NULL, 0, false);
	ck_assert_uint_eq(again.ended, 1);
	again = session(1, again.epoch, rows, 2, false);
	ck_assert_uint_eq(again.gone.n, 1);
	ck_assert(metadata_session_is_open(W.m, other));
	/* Its records stay for a while, in case it tries something again. */
	W.seq[1]--;
	ck_assert_int_eq(await(unlink_file(1, "f")), 0);
	run_ms(1000 * 700);
	ck_assert_uint_eq(W.m->sessions.n, 0);
	run_ms(1000 * 700);
	W.seq[1]--;
	ck_assert_int_eq(await(unlink_file(1, "f")), -ENOENT);
}
END_TEST

/* A client whose session has ended asks for things before it has told its opens. */
START_TEST(truncation_before_opens_are_told)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct msg_session_rep s = session(1, 0, NULL, 0, false);

	session(1, s.epoch, NULL, 0, false);
	run_ms(2 * W.conf.metadata_session + 1000);
	ck_assert(!metadata_session_is_open(W.m, ino));
	/* It has written, and not reported that yet. */
	entry(truncate_file(1, ino, 1 << 20));
	ck_assert_uint_eq(W.cuts, 3);
	s = session(1, s.epoch, NULL, 0, false);
	session(1, s.epoch, NULL, 0, false);
	entry(truncate_file(1, ino, 1 << 20));
	ck_assert_uint_eq(W.cuts, 3);
}
END_TEST

/* Copies may be kept by a lone client; a second one waits until they have run out. */
START_TEST(second_client_waits)
{
	uint64_t ttl = W.conf.metadata_cache_ttl;
	struct ask *a, *b, *c;

	entry(create(1, "f", 0));		/* makes it the holder */
	run_ms(10);
	ck_assert_uint_eq(entry(lookup(1, "f"))->ttl_ms, ttl);
	run_ms(ttl / 2);
	b = lookup(2, "f");
	c = create(2, "g", 0);
	a = lookup(1, "f");
	ck_assert_uint_eq(entry(a)->ttl_ms, 0);
	run_ms(ttl / 2 - 20);
	ck_assert(!b->answered && !c->answered);
	run_ms(30);
	ck_assert(b->answered && c->answered);
	ck_assert_uint_eq(entry(b)->ttl_ms, 0);
	ck_assert_uint_eq(entry(lookup(2, "f"))->ttl_ms, 0);
	session(2, 0, NULL, 0, true);
	run_ms(10);
	entry(lookup(1, "f"));
	run_ms(10);
	ck_assert_uint_eq(entry(lookup(1, "f"))->ttl_ms, ttl);
}
END_TEST

/* The same across a restart: it knows who may have copies. */
START_TEST(holder_outlives_us)
{
	uint64_t ttl = W.conf.metadata_cache_ttl;
	struct ask *b;

	entry(create(1, "f", 0));
	run_ms(10);
	ck_assert_uint_eq(entry(lookup(1, "f"))->ttl_ms, ttl);
	kill_role();
	start();
	b = lookup(2, "f");
	run_ms(10);
	ck_assert_uint_eq(entry(lookup(1, "f"))->ttl_ms, 0);
	run_ms(ttl - 100);
	ck_assert(!b->answered);
	run_ms(200);
	ck_assert(b->answered);
	/* Two are there: nobody holds, nobody waits. */
	kill_role();
	start();
	b = lookup(2, "f");
	run_ms(10);
	ck_assert(b->answered);
}
END_TEST

START_TEST(old_epochs_ask_storage)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct ask *a;

	entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0));
	entry(truncate_file(1, ino, 100));
	W.end = 700;
	a = settle(1, MSG_close, ino, 7, 9 << 20, 0);
	ck_assert_uint_eq(entry(a)->attr.size, 700);
	ck_assert_uint_eq(entry(a)->attr.epoch, 1);
	ck_assert_uint_eq(W.lasts, 3);
	ck_assert(!metadata_session_is_open(W.m, ino));
	/* A truncation that is being cut comes first. */
	W.mute = true;
	truncate_file(1, ino, 10);
	run_ms(20);
	a = settle(1, MSG_sync, ino, 0, 9 << 20, 1);
	run_ms(100);
	ck_assert_uint_eq(W.lasts, 3);
	W.end = 10;
	W.mute = false;
	ck_assert_uint_eq(entry(a)->attr.size, 10);
	ck_assert_uint_eq(W.lasts, 6);
	/* Storage does not answer: the caller tries again. */
	W.fail = 100000;
	a = settle(1, MSG_sync, ino, 0, 9 << 20, 1);
	ck_assert_int_eq(await(a), ERR_BUSY);
	ck_assert_uint_eq(W.m->settles, 0);
	W.fail = 0;
}
END_TEST

START_TEST(no_chains_yet)
{
	struct routing *had = W.routing;
	struct msg_mknod q = { ctx(1, true), INO_ROOT, msg_str("d"), 0755, 0 };

	ck_assert_int_eq(routing_open(&W.routing), 0);
	ck_assert_int_eq(await(create(1, "f", 0)), ERR_NO_CHAINS);
	W.seq[1]--;
	entry(ask(MSG_mkdir, &q));
	routing_close(W.routing);
	W.routing = had;
	entry(create(1, "f", 0));
}
END_TEST

START_TEST(clean_stop)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct ask *t, *b, *s;

	entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0));
	run_ms(10);
	entry(lookup(1, "f"));
	W.mute = true;
	t = truncate_file(1, ino, 5);
	run_ms(10);
	b = lookup(2, "f");
	s = settle(1, MSG_sync, ino, 0, 9 << 20, 0);
	run_ms(10);
	stop_role();
	ck_assert_int_eq(t->rc, ERR_STOPPING);
	ck_assert_int_eq(b->rc, ERR_STOPPING);
	ck_assert_int_eq(s->rc, ERR_STOPPING);
	W.mute = false;
	start();
	W.seq[1] -= 2;
	ck_assert_uint_eq(entry(truncate_file(1, ino, 5))->attr.epoch, 1);
}
END_TEST

START_TEST(stop_asking_storage)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct ask *s;

	entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0));
	entry(truncate_file(1, ino, 5));
	W.mute = true;
	s = settle(1, MSG_sync, ino, 0, 9 << 20, 0);
	run_ms(20);
	stop_role();
	ck_assert_int_eq(s->rc, ERR_STOPPING);
	W.mute = false;
	start();
}
END_TEST

/* Any load, killed at any moment, again and again: no callback after close, nothing
 * leaks, and in the end the tree holds together and all garbage has gone. */
START_TEST(killed_at_any_time)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f" };
	uint64_t inodes, handle = 1;
	char why[256];

	rand_seed(&W.rand, (uint64_t)_i + 77);
	W.conf.metadata_session = 1000;
	W.conf.metadata_cache_ttl = 50;
	for (unsigned round = 0; round < 25; round++) {
		for (unsigned i = rand_below(&W.rand, 200) + 5; i > 0; i--) {
			unsigned c = 1 + (unsigned)rand_below(&W.rand, 3);
			const char *n = names[rand_below(&W.rand, 6)];
			ino_id ino = 2 + rand_below(&W.rand, W.seq[c] + 3);

			switch (rand_below(&W.rand, 9)) {
			case 0:
			case 1:
				create(c, n, handle++);
				break;
			case 2:
				unlink_file(c, n);
				break;
			case 3:
				truncate_file(c, ino, rand_below(&W.rand, 1 << 22));
				break;
			case 4:
				settle(c, MSG_sync, ino, 0, 1 + rand_below(&W.rand,
				    1 << 22), (uint32_t)rand_below(&W.rand, 3));
				break;
			case 5:
				settle(c, MSG_close, ino, rand_below(&W.rand,
				    handle), rand_below(&W.rand, 3) << 20, 0);
				break;
			case 6:
				open_file(c, ino, rand_chance(&W.rand, 1, 2) ?
				    O_RDWR : O_RDWR | O_TRUNC, handle++);
				break;
			case 7:
				lookup(c, n);
				break;
			default:
				W.mute = rand_chance(&W.rand, 1, 3);
				W.fail = (int)rand_below(&W.rand, 4);
				break;
			}
			if (rand_chance(&W.rand, 1, 3))
				sim_clock_run(W.world, rand_below(&W.rand,
				    10 * NS_PER_MS));
		}
		ck_assert_msg(tree_check(group_table(W.m->group), why,
		    sizeof(why)) == 0, "tree: %s", why);
		if (rand_chance(&W.rand, 1, 4))
			stop_role();
		else
			kill_role();
		drop_asks();
		W.mute = false;
		start();
	}
	W.fail = 0;
	for (unsigned i = 0; i < 6; i++)
		await(unlink_file(1, names[i]));
	run_ms(10000);
	ck_assert_int_eq(fs_inodes(W.m->fs, &inodes), 0);
	ck_assert_uint_eq(inodes, 1);
	ck_assert_uint_eq(W.m->settles, 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("metadata");
	TCase *t = tcase_create("role");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 0);
	tcase_add_test(t, create_and_retry);
	tcase_add_test(t, who_may_ask);
	tcase_add_test(t, truncation_waits);
	tcase_add_test(t, truncation_overtaken);
	tcase_add_test(t, truncation_outlives_callers);
	tcase_add_test(t, removal);
	tcase_add_test(t, no_open_beside_removal);
	tcase_add_test(t, never_written_needs_no_storage);
	tcase_add_test(t, many_removals);
	tcase_add_test(t, opens_are_told_again);
	tcase_add_loop_test(t, leads_no_more_and_again, 0, 12);
	tcase_add_loop_test(t, who_founds, 0,
	    sizeof(foundings) / sizeof(foundings[0]));
	tcase_add_test(t, unknown_groups_serve_nobody);
	tcase_add_test(t, a_foreign_group_serves_nobody);
	tcase_add_test(t, dead_clients_lose_their_opens);
	tcase_add_test(t, truncation_before_opens_are_told);
	tcase_add_test(t, second_client_waits);
	tcase_add_test(t, holder_outlives_us);
	tcase_add_test(t, old_epochs_ask_storage);
	tcase_add_test(t, no_chains_yet);
	tcase_add_test(t, clean_stop);
	tcase_add_test(t, stop_asking_storage);
	tcase_add_loop_test(t, killed_at_any_time, 0, 4);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
