/* SPDX-License-Identifier: MIT */
/* test_manager.c - the manager: chains made, restarts, leases, registrations, any weather.
 * N=n runs n seeds of crashes, SEED=n just that one. */
#include "roles/manager_state.h"
#include "tests/manager_rig.h"
#include "tests/suite.h"

/* ---- chains ---- */

START_TEST(three_nodes_make_chains)
{
	struct routing *r;
	const struct routing_target *tg;

	three_nodes(1, 3);
	ck_assert_str_eq(shape(), "1+ 2+ 3+");	/* waits for more */
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v1:2.3.1 3v1:3.1.2 t1v1:1.2.3 "
	    "1+ 2+ 3+");
	r = routing();
	for (unsigned i = 0; (tg = routing_target_at(r, i)) != NULL; i++) {
		struct net_addr a, want;

		ck_assert_uint_ne(tg->chain, 0);
		ck_assert(uid128_eq(&tg->disk, &nodes[tg->node - 1].disks[0].disk));
		net_addr_parse(nodes[tg->node - 1].addr,
		    strlen(nodes[tg->node - 1].addr), &want, NULL);
		ck_assert_int_eq(routing_target_addr(r, tg->id, &a), 0);
		ck_assert(net_addr_eq(&a, &want));
	}
	routing_close(r);
}
END_TEST

START_TEST(late_disks_make_a_new_table)
{
	three_nodes(1, 1);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
	for (unsigned i = 3; i < 6; i++)
		ck_assert_int_eq(register_node(node(i, 1, 1, 1)), 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v1:4.5.6 t1v2:1.2 "
	    "1+ 2+ 3+ 4+ 5+ 6+");
	/* the old version of the table stays: files lie on it */
	struct routing *r = routing();
	ck_assert_uint_eq(routing_table(r, 1, 1)->chain_n, 1);
	routing_close(r);
}
END_TEST

START_TEST(no_wait_when_told_so)
{
	t.conf.manager_form_delay = 0;
	three_nodes(1, 1);
	run_ms(20);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
}
END_TEST

START_TEST(failed_disks_are_left_out)
{
	node(0, 1, 1, 1)->disks[0].failed = 1;
	ck_assert_int_eq(register_node(&nodes[0]), 0);
	for (unsigned i = 1; i < 4; i++)
		ck_assert_int_eq(register_node(node(i, 1, 1, 1)), 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:2.3.4 t1v1:1 1+ 2+ 3+ 4+");
}
END_TEST

START_TEST(many_chains)
{
	three_nodes(4, 64);
	run_ms(2000);
	struct routing *r = routing();
	ck_assert_ptr_nonnull(routing_chain_at(r, 255));
	ck_assert_ptr_null(routing_chain_at(r, 256));
	ck_assert_uint_eq(routing_table(r, 1, 0)->chain_n, 256);
	ck_assert_uint_eq(routing_table(r, 1, 0)->version, 1);
	routing_close(r);
}
END_TEST

/* ---- restart ---- */

START_TEST(a_restart_changes_nothing)
{
	char before[4096];
	struct routing *r;
	struct uid128 cluster;
	uint64_t version;

	three_nodes(2, 2);
	run_ms(1000);
	ck_assert_int_eq(restart(node(1, 2, 2, 2), 5), 0);
	nodes[1].disks[1].failed = 1;
	beat(2);
	run_ms(50);
	snprintf(before, sizeof(before), "%s", shape());
	r = routing();
	version = routing_version(r);
	cluster = *routing_cluster(r);
	routing_close(r);
	crash();
	start();
	ck_assert_str_eq(shape(), before);
	r = routing();
	ck_assert_uint_ge(routing_version(r), version);
	ck_assert(uid128_eq(routing_cluster(r), &cluster));
	routing_close(r);
	/* the same process goes on beating, without registering again */
	ck_assert_int_eq(call(MSG_beat, &nodes[0].beat)->rc, 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), before);
}
END_TEST

START_TEST(a_restart_gives_a_whole_lease)
{
	three_nodes(1, 1);
	run_ms(2900);
	crash();
	start();
	run_ms(3000);
	ck_assert_ptr_nonnull(strstr(shape(), "1+ 2+ 3+"));
	run_ms(3000);
	ck_assert_ptr_nonnull(strstr(shape(), "1- 2- 3-"));
}
END_TEST

START_TEST(busy_while_it_opens)
{
	static struct msg_routing q;

	crash();
	begin();
	ck_assert_int_eq(call(MSG_routing, &q)->rc, ERR_NOT_LEADER);
	ck_assert(sim_clock_run_until(t.world, is_ready, NULL, 60 * NS_PER_S));
	ck_assert_int_eq(call(MSG_routing, &q)->rc, 0);
}
END_TEST

START_TEST(stops_cleanly)
{
	static struct msg_routing q = { .have = 1000, .wait_ms = 20000 };
	struct ask *poll, *reg;

	three_nodes(1, 1);
	run_ms(1000);
	poll = ask(MSG_routing, &q);
	reg = ask(MSG_register, &node(5, 1, 1, 1)->reg);
	manager_stop(t.m, on_stopped, NULL);
	ck_assert(!t.stopped && t.drained);
	run_ms(100);
	ck_assert(t.stopped);
	ck_assert(poll->done && poll->rc == ERR_STOPPING);
	ck_assert(reg->done && reg->rc == 0);
	ck_assert_uint_eq(sim_clock_node_pending(t.clock), 0);
	sim_clock_node_close(t.clock);
	start();
	ck_assert_ptr_nonnull(strstr(shape(), "1+ 2+ 3+ 4+"));
}
END_TEST

static void
on_broken(void *ctx, int rc)
{
	int *told = ctx;

	ck_assert_int_eq(*told, 0);
	*told = rc;
}

/* Whoever runs it is told, once: it was ready long ago. */
START_TEST(a_broken_disk_ends_it)
{
	int told = 0;

	manager_watch(t.m, on_broken, &told);
	sim_box_conf(t.box)->write_eio_ppm = 1000000;
	ck_assert_int_eq(call(MSG_register, &node(0, 1, 1, 1)->reg)->rc,
	    ERR_STOPPING);
	run_ms(10);
	ck_assert_int_eq(call(MSG_status, &(struct msg_status){ 0 })->rc,
	    ERR_STOPPING);
	ck_assert_int_lt(told, 0);
}
END_TEST

static void
no_answer(struct group_req *r, int rc, const void *result, size_t len)
{
	(void)r, (void)rc, (void)result, (void)len;
}

/* Commands in the log that are not ours: to pass over those of a later release would be to
 * differ from managers that do what they say. */
static const struct {
	const char *what;
	uint8_t	    n, bytes[16];
	bool	    ends;
} others[] = {
	{ "of the release before", 5, { CMD_READY_1, 1, 2, 3, 4 }, false },
	{ "cut short", 2, { CMD_ROTATE, 1 }, false },
	{ "not known", 1, { 99 }, true },
	{ "more than is known", 14, { CMD_ROTATE, 1 }, true },
	{ "something where was nothing", 2, { CMD_LOOK, 1 }, true },
};

START_TEST(commands_of_other_releases)
{
	struct group_req req;
	int told = 0;

	manager_watch(t.m, on_broken, &told);
	ck_assert_int_eq(group_propose(manager_group(t.m), &req, others[_i].bytes,
	    others[_i].n, no_answer), 0);
	run_ms(100);
	ck_assert_msg(told == (others[_i].ends ? ERR_DISK_NEWER : 0), "%s: %s",
	    others[_i].what, err_name(told));
	ck_assert_int_eq(call(MSG_status, &(struct msg_status){ 0 })->rc,
	    others[_i].ends ? ERR_STOPPING : 0);
}
END_TEST

/* Between a proposal and its turn in the log its node may have been registered by another
 * process, a disk be another's, a target be taken: then it changes nothing. */
static struct uid128 boot2;		/* of node 2, or of the one before it */

static void
down2(struct bytes_writer *w)
{
	manager_cmd_node_state(w, 2, &boot2, NODE_DOWN);
}

static void
downs2(struct bytes_writer *w)
{
	manager_cmd_down(w, 1);
	manager_cmd_down_node(w, 2, &boot2);
}

static void
disk2(struct bytes_writer *w)
{
	manager_cmd_disk(w, 2, &boot2, &nodes[1].disks[0].disk, DISK_FAILED);
}

static void
part2(struct bytes_writer *w)
{
	manager_cmd_part(w, 2, &boot2, 3, 3);
}

static const struct {
	const char *what;
	void (*cmd)(struct bytes_writer *w);
	const char *shape;		/* when it is in time */
} lates[] = {
	{ "a node that said goodbye", down2, "1v2:1.3.2o t1v1:1 1+ 2- 3+" },
	{ "a node whose lease ended", downs2, "1v2:1.3.2o t1v1:1 1+ 2- 3+" },
	{ "a disk that failed", disk2, "1v2:1.3.2o t1v1:1 1+ 2+ 3+" },
	{ "a replica that is not reached", part2, "1v2:1.2.3a t1v1:1 1+ 2+ 3+" },
};

static void
propose(void (*cmd)(struct bytes_writer *w))
{
	struct bytes_writer w;
	struct group_req req;
	uint8_t bytes[128];

	bytes_writer_init(&w, bytes, sizeof(bytes));
	cmd(&w);
	ck_assert_int_eq(group_propose(manager_group(t.m), &req, bytes,
	    bytes_written(&w), no_answer), 0);
	beat_ms(100, 7);
}

START_TEST(commands_that_are_late)
{
	three_nodes(1, 1);
	beat_ms(1000, 7);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
	boot2 = nodes[1].beat.boot;
	boot2.b[0] ^= 1;
	propose(lates[_i].cmd);
	ck_assert_msg(strcmp(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+") == 0, "%s: %s",
	    lates[_i].what, shape());
	boot2.b[0] ^= 1;
	propose(lates[_i].cmd);
	ck_assert_msg(strcmp(shape(), lates[_i].shape) == 0, "%s: %s", lates[_i].what,
	    shape());
}
END_TEST

static void
disk_of_1(struct bytes_writer *w)
{
	manager_cmd_disk(w, 2, &nodes[1].beat.boot, &nodes[0].disks[0].disk, DISK_FAILED);
}

static void
form_of_used(struct bytes_writer *w)
{
	struct routing *r = routing();
	const struct routing_chain *c = routing_chain_at(r, 0);
	struct manager_plan plan = { 0 };

	for (unsigned i = 0; i < 3; i++)
		plan.targets[i] = c->targets[i];
	manager_cmd_form(w, true, 3, &plan, 1);
	routing_close(r);
}

START_TEST(commands_overtaken)
{
	three_nodes(1, 1);
	beat_ms(1000, 7);
	propose(disk_of_1);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
	propose(form_of_used);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
}
END_TEST

/* ---- leases ---- */

START_TEST(silence_ends_a_lease)
{
	three_nodes(1, 1);
	beat_ms(5000, 7);
	ck_assert_ptr_nonnull(strstr(shape(), "1+ 2+ 3+"));
	beat_ms(3000, 5);		/* 2 is silent: a lease is not over yet */
	ck_assert_ptr_nonnull(strstr(shape(), "1+ 2+ 3+"));
	beat_ms(2500, 5);
	ck_assert_str_eq(shape(), "1v2:1.3.2o t1v1:1 1+ 2- 3+");
	ck_assert_int_eq(call(MSG_beat, &nodes[1].beat)->rc, 0);
	ck_assert_str_eq(shape(), "1v3:1.3.2y t1v1:1 1+ 2+ 3+");
}
END_TEST

/* A shorter lease is for who is told of it: others fence themselves as late as before. */
START_TEST(a_shorter_lease_comes_with_a_registration)
{
	struct ask *a;

	three_nodes(1, 1);
	crash();
	t.conf.manager_lease = 1000;
	t.conf.manager_beat = 200;
	start();
	ck_assert_int_eq(call(MSG_beat, &nodes[0].beat)->rc, 0);
	run_ms(3000);
	ck_assert_ptr_nonnull(strstr(shape(), "1+ 2+ 3+"));
	run_ms(3000);
	ck_assert_ptr_nonnull(strstr(shape(), "1- 2- 3-"));
	for (unsigned boot = 1; boot < 3; boot++) {
		a = call(MSG_register, &node(0, boot, 1, 1)->reg);
		ck_assert_int_eq(a->rc, 0);
		ck_assert_uint_eq(a->rep.reg.lease_ms, 1000);
		run_ms(1100);
		ck_assert_ptr_nonnull(strstr(shape(), "1+ 2- 3-"));
		run_ms(1000);
		ck_assert_ptr_nonnull(strstr(shape(), "1- 2- 3-"));
	}
}
END_TEST

START_TEST(goodbye_is_at_once)
{
	three_nodes(1, 1);
	ck_assert_int_eq(call(MSG_goodbye, &nodes[2].bye)->rc, 0);
	ck_assert_str_eq(shape(), "1+ 2+ 3-");
	ck_assert_int_eq(call(MSG_goodbye, &nodes[2].bye)->rc, 0);
	nodes[1].bye.boot = uid(2, 1, 9);
	ck_assert_int_eq(call(MSG_goodbye, &nodes[1].bye)->rc, ERR_STALE_NODE);
	run_ms(2000);			/* no slots on a node that is down */
	ck_assert_str_eq(shape(), "1+ 2+ 3-");
	ck_assert_int_eq(register_node(node(2, 2, 1, 1)), 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
}
END_TEST

/* ---- registration ---- */

START_TEST(names_are_unique)
{
	ck_assert_int_eq(register_node(node(0, 1, 1, 1)), 0);
	node(1, 1, 1, 1)->reg.name = msg_str("n1");
	ck_assert_int_eq(register_node(&nodes[1]), ERR_NAME_TAKEN);
	nodes[1].reg.name = msg_str("n2");
	ck_assert_int_eq(register_node(&nodes[1]), 0);
	ck_assert_uint_eq(nodes[1].id, 2);
	nodes[1].reg.name = msg_str("n1");	/* nor by taking another */
	ck_assert_int_eq(register_node(&nodes[1]), ERR_NAME_TAKEN);
	node(2, 1, 0, 0)->reg.name = msg_str("n1");
	nodes[2].reg.roles = NODE_METADATA;	/* another role of that box */
	ck_assert_int_eq(register_node(&nodes[2]), 0);
	ck_assert_uint_eq(nodes[2].id, 3);
}
END_TEST

/* A box that has lost its state comes as another, under the name it had. */
START_TEST(a_name_is_free_when_its_node_is_down)
{
	ck_assert_int_eq(register_node(node(0, 1, 1, 1)), 0);
	ck_assert_int_eq(call(MSG_goodbye, &nodes[0].bye)->rc, 0);
	node(1, 1, 1, 1)->reg.name = msg_str("n1");
	ck_assert_int_eq(register_node(&nodes[1]), 0);
	ck_assert_uint_eq(nodes[1].id, 2);
	ck_assert_str_eq(shape(), "1- 2+");
	/* and should the old one come back after all */
	ck_assert_int_eq(register_node(node(0, 2, 1, 1)), ERR_NAME_TAKEN);
	crash();
	start();
	ck_assert_str_eq(shape(), "1- 2+");
}
END_TEST

START_TEST(ids_are_for_ever)
{
	three_nodes(1, 1);
	ck_assert_int_eq(restart(node(1, 5, 1, 1), 5), 0);
	ck_assert_uint_eq(nodes[1].id, 2);
	crash();
	start();
	ck_assert_int_eq(restart(node(1, 6, 1, 1), 5), 0);
	ck_assert_uint_eq(nodes[1].id, 2);
	ck_assert_int_eq(register_node(node(4, 1, 1, 1)), 0);
	ck_assert_uint_eq(nodes[4].id, 4);
}
END_TEST

START_TEST(a_disk_may_move)
{
	three_nodes(1, 1);
	run_ms(1000);
	node(3, 1, 1, 1)->disks[0].disk = nodes[2].disks[0].disk;
	/* while its old node may still serve it, it cannot */
	ck_assert_int_eq(register_node(&nodes[3]), ERR_BUSY);
	ck_assert_int_eq(call(MSG_goodbye, &nodes[2].bye)->rc, 0);
	ck_assert_str_eq(shape(), "1v2:1.2.3o t1v1:1 1+ 2+ 3-");
	ck_assert_int_eq(register_node(&nodes[3]), 0);
	ck_assert_str_eq(shape(), "1v3:1.2.4y t1v1:1 1+ 2+ 3- 4+");
	crash();
	start();
	ck_assert_str_eq(shape(), "1v3:1.2.4y t1v1:1 1+ 2+ 3- 4+");
}
END_TEST

/* Its old box stays up, without it. */
START_TEST(a_disk_may_move_from_a_live_node)
{
	three_nodes(2, 1);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v1:2.3.1 t1v1:1.2 1+ 2+ 3+");
	node(3, 1, 1, 1)->disks[0].disk = nodes[2].disks[1].disk;
	ck_assert_int_eq(register_node(&nodes[3]), ERR_BUSY);
	nodes[2].beat.disks.n = 1;
	beat(4);
	run_ms(50);
	ck_assert_int_eq(register_node(&nodes[3]), 0);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v3:2.1.4y t1v1:1.2 1+ 2+ 3+ 4+");
	nodes[2].beat.disks.n = 2;	/* an old beat of its old node says nothing */
	beat(4);
	run_ms(50);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v3:2.1.4y t1v1:1.2 1+ 2+ 3+ 4+");
}
END_TEST

/* A node that comes with new disks every time is told to stop. */
START_TEST(disks_are_bounded)
{
	int rc = 0;
	unsigned boot;

	for (boot = 1; boot < 100 && rc == 0; boot++) {
		node(0, boot, 4, 0);
		for (unsigned d = 0; d < 4; d++)
			nodes[0].disks[d].disk = uid(4, boot, d);
		rc = register_node(&nodes[0]);
	}
	ck_assert_int_eq(rc, -ENOSPC);
	ck_assert_uint_eq(boot, 256 / 4 + 2);
}
END_TEST

static void wrong_uid(struct msg_register *r) { memset(&r->node_uid, 0, 16); }
static void wrong_boot(struct msg_register *r) { memset(&r->boot, 0, 16); }
static void wrong_name(struct msg_register *r) { r->name.n = 0; }
static void wrong_space(struct msg_register *r) { r->name = msg_str("a b"); }
static void wrong_roles(struct msg_register *r) { r->roles = 0; }
static void wrong_role(struct msg_register *r) { r->roles = 128; }
static void wrong_addrs(struct msg_register *r) { r->addrs.n = 0; }
static void wrong_addr(struct msg_register *r) { r->addrs.v[0] = msg_str("x"); }
static void wrong_loop(struct msg_register *r) { r->disks.v[0].loop = 1; }
static void wrong_slots(struct msg_register *r) { r->disks.v[0].targets = 65; }
static void wrong_twice(struct msg_register *r) { r->disks.v[1] = r->disks.v[0]; }
static void wrong_disk(struct msg_register *r) { memset(&r->disks.v[0].disk, 0, 16); }
static void wrong_size(struct msg_register *r) { r->disks.v[0].capacity = ~0ull; }

static const struct {
	const char *what;
	void (*spoil)(struct msg_register *);
} wrongs[] = {
	{ "no node id", wrong_uid }, { "no boot", wrong_boot },
	{ "no name", wrong_name }, { "a blank in the name", wrong_space },
	{ "no role", wrong_roles }, { "unknown role", wrong_role },
	{ "no address", wrong_addrs }, { "bad address", wrong_addr },
	{ "a loop it has not", wrong_loop }, { "too many slots", wrong_slots },
	{ "a disk twice", wrong_twice }, { "a disk without id", wrong_disk },
	{ "a disk too large", wrong_size },
};

START_TEST(wrong_registrations)
{
	wrongs[_i].spoil(&node(0, 1, 2, 1)->reg);
	ck_assert_msg(register_node(&nodes[0]) == -EINVAL, "%s", wrongs[_i].what);
	ck_assert_str_eq(shape(), "");
}
END_TEST

/* ---- any weather ---- */

/* What was answered survives any crash: registrations, boots, chain states; versions never
 * go back, a version never means two things, and no replica serves that was away without
 * having been synced. */
static struct seen {
	uint32_t version;
	struct routing_chain row;
} seen[64];
static unsigned boots[NODES];

static void
look_at_chains(struct routing *r)
{
	const struct routing_chain *c;

	for (unsigned k = 0; (c = routing_chain_at(r, k)) != NULL && c->id < 64; k++) {
		struct seen *w = &seen[c->id];

		ck_assert_uint_ge(c->version, w->version);
		if (c->version == w->version) {
			ck_assert_mem_eq(c->targets, w->row.targets,
			    sizeof(c->targets));
			ck_assert_mem_eq(c->states, w->row.states,
			    sizeof(c->states));
		}
		w->version = c->version;
		w->row = *c;
	}
}

/* Sometimes what syncs is done. */
static void
sync_some(void)
{
	for (unsigned id = 0; id < 64; id++) {
		const struct routing_chain *c = &seen[id].row;
		unsigned n = routing_serving_n(c);
		struct routing *r;

		if (seen[id].version == 0 || routing_active_n(c) == n ||
		    !rand_chance(&t.rand, 1, 3))
			continue;
		r = routing();
		for (unsigned j = 0; j < NODES; j++)
			if (nodes[j].id == routing_target(r,
			    c->targets[n - 1])->node && boots[j] > 0) {
				int rc = synced(id, c->version, c->targets[n],
				    &nodes[j]);

				ck_assert(rc == 0 || rc == ERR_STALE_CHAIN ||
				    rc == ERR_STALE_NODE);
			}
		routing_close(r);
	}
}

START_TEST(any_end)
{
	uint64_t routing_seen = 0;

	memset(seen, 0, sizeof(seen));
	memset(boots, 0, sizeof(boots));
	setup_seed(getenv("SEED") != NULL && *getenv("SEED") != '\0' ?
	    strtoull(getenv("SEED"), NULL, 0) : (uint64_t)_i);
	sim_box_conf(t.box)->sync_max_ns = 3 * NS_PER_MS;
	sim_box_conf(t.box)->table.write_max_ns = 20 * NS_PER_MS;
	t.conf.cluster_replicas = 2 + rand_below(&t.rand, 2);
	t.conf.manager_form_delay = rand_below(&t.rand, 50);
	for (unsigned round = 0; round < 8; round++) {
		struct routing *r;

		start();
		r = routing();
		ck_assert_uint_ge(routing_version(r), routing_seen);
		for (unsigned i = 0; i < NODES; i++)
			if (nodes[i].id != 0 && boots[i] > 0)
				ck_assert(uid128_eq(&routing_node(r,
				    nodes[i].id)->boot, &nodes[i].boot));
		look_at_chains(r);
		routing_close(r);
		for (unsigned n = (unsigned)rand_below(&t.rand, 25); n > 0; n--) {
			unsigned i = (unsigned)rand_below(&t.rand, NODES);
			node_id was = nodes[i].id;

			if (boots[i] == 0 || rand_chance(&t.rand, 1, 4)) {
				struct ask *a;

				node(i, ++boots[i], 2, 2);
				a = ask(MSG_register, &nodes[i].reg);
				for (unsigned k = 0; k < 8 && !a->done; k++) {
					run_ms(30);
					for (unsigned j = 0; j < NODES; j++)
						if (j != i && boots[j] > 0 &&
						    nodes[j].id != 0)
							call(MSG_beat,
							    &nodes[j].beat);
				}
				ck_assert(a->done);
				ck_assert_int_eq(register_node(&nodes[i]), 0);
				ck_assert(was == 0 || was == nodes[i].id);
			} else
				ck_assert_int_eq(call(MSG_beat,
				    &nodes[i].beat)->rc, 0);
			run_ms(rand_chance(&t.rand, 1, 20) ? 4500 :
			    rand_below(&t.rand, 60));
			r = routing();
			routing_seen = routing_version(r);
			look_at_chains(r);
			routing_close(r);
			sync_some();
		}
		crash();
		forget_asks();
	}
}
END_TEST

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	TCase *calm = tcase_create("calm"), *any = tcase_create("any");
	const char *n = getenv("N"), *seed = getenv("SEED");
	int seeds = n != NULL && atoi(n) > 0 ? atoi(n) : 60;

	tcase_add_checked_fixture(calm, setup, teardown);
	tcase_add_test(calm, three_nodes_make_chains);
	tcase_add_test(calm, late_disks_make_a_new_table);
	tcase_add_test(calm, no_wait_when_told_so);
	tcase_add_test(calm, failed_disks_are_left_out);
	tcase_add_test(calm, many_chains);
	tcase_add_test(calm, a_restart_changes_nothing);
	tcase_add_test(calm, a_restart_gives_a_whole_lease);
	tcase_add_test(calm, busy_while_it_opens);
	tcase_add_test(calm, stops_cleanly);
	tcase_add_test(calm, a_broken_disk_ends_it);
	tcase_add_loop_test(calm, commands_of_other_releases, 0,
	    sizeof(others) / sizeof(others[0]));
	tcase_add_loop_test(calm, commands_that_are_late, 0, N(lates));
	tcase_add_test(calm, commands_overtaken);
	tcase_add_test(calm, silence_ends_a_lease);
	tcase_add_test(calm, a_shorter_lease_comes_with_a_registration);
	tcase_add_test(calm, goodbye_is_at_once);
	tcase_add_test(calm, names_are_unique);
	tcase_add_test(calm, a_name_is_free_when_its_node_is_down);
	tcase_add_test(calm, ids_are_for_ever);
	tcase_add_test(calm, a_disk_may_move);
	tcase_add_test(calm, a_disk_may_move_from_a_live_node);
	tcase_add_test(calm, disks_are_bounded);
	tcase_add_loop_test(calm, wrong_registrations, 0, N(wrongs));
	tcase_set_timeout(calm, 60);
	tcase_add_checked_fixture(any, NULL, teardown);
	tcase_add_loop_test(any, any_end, 0,
	    seed != NULL && *seed != '\0' ? 1 : seeds);
	return suite_run_all("manager", calm, any, NULL);
}
