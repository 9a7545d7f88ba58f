/* SPDX-License-Identifier: MIT */
/* test_routing.c - rows in by puts and deltas, look-ups and deltas out. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "conf/err.h"
#include "conf/rand.h"
#include "net/routing.h"
#include "tests/suite.h"

static struct routing *r;
static struct msg_arena arena;
static const struct uid128 here = { { 1 } }, elsewhere = { { 2 } };

static void
setup(void)
{
	ck_assert_int_eq(routing_open(&r), 0);
	msg_arena_init(&arena, 1 << 20);
}

static void
teardown(void)
{
	routing_check(r);
	routing_close(r);
	msg_arena_fini(&arena);
}

static struct net_addr
addr(const char *text)
{
	struct net_addr a;

	ck_assert_int_eq(net_addr_parse(text, strlen(text), &a, NULL), 0);
	return a;
}

static void
add_node(node_id id, uint64_t changed, uint32_t roles, uint8_t state,
    const char *address)
{
	struct routing_node n = { .id = id, .changed = changed, .roles = roles,
	    .state = state };

	snprintf(n.name, sizeof(n.name), "node%u", id);
	if (address != NULL)
		n.addrs[n.addr_n++] = addr(address);
	ck_assert_int_eq(routing_put_node(r, &n), 0);
}

static void
add_chain(chain_id id, uint64_t changed, uint32_t version, uint32_t n)
{
	struct routing_chain c = { .id = id, .changed = changed,
	    .version = version, .target_n = n };
	uint32_t serve = version % (n + 1);

	/* so many serve, one syncs or none, the others are away; made the other way
	 * round */
	c.state = serve > 0 ? CHAIN_SERVING : CHAIN_RECOVERING;
	for (uint32_t i = 0; i < n; i++) {
		c.targets[i] = c.preferred[n - 1 - i] = id * 10 + i + 1;
		c.states[i] = i < serve ? TARGET_SERVING :
		    i > serve ? TARGET_OFFLINE :
		    serve > 0 ? TARGET_SYNCING : TARGET_LASTSRV;
	}
	ck_assert_int_eq(routing_put_chain(r, &c), 0);
}

static void
add_table(chain_table_id id, uint64_t changed, uint32_t version, uint32_t n)
{
	chain_id ids[16];
	struct routing_table t = { id, changed, version, n, ids };

	for (uint32_t i = 0; i < n; i++)
		ids[i] = i + 1;
	ck_assert_int_eq(routing_put_table(r, &t), 0);
}

START_TEST(sorted_and_found)
{
	static const node_id order[] = { 7, 1, 9, 3, 5, 2, 8, 4, 6 };
	unsigned i;

	for (i = 0; i < 9; i++)
		add_node(order[i], i + 1, NODE_STORAGE, NODE_UP, NULL);
	for (i = 0; i < 9; i++)
		ck_assert_uint_eq(routing_node_at(r, i)->id, i + 1);
	ck_assert_ptr_null(routing_node_at(r, 9));
	for (i = 1; i <= 9; i++)
		ck_assert_uint_eq(routing_node(r, i)->id, i);
	ck_assert_ptr_null(routing_node(r, 0));
	ck_assert_ptr_null(routing_node(r, 10));
	ck_assert_uint_eq(routing_version(r), 9);
	add_node(5, 20, NODE_STORAGE, NODE_DOWN, NULL);
	ck_assert_uint_eq(routing_node(r, 5)->state, NODE_DOWN);
	ck_assert_uint_eq(routing_version(r), 20);
	ck_assert_ptr_null(routing_node_at(r, 9));
}
END_TEST

START_TEST(table_versions)
{
	ck_assert_ptr_null(routing_table(r, 1, 0));
	add_table(1, 3, 2, 4);
	add_table(1, 1, 1, 3);
	add_table(2, 2, 1, 5);
	add_table(2, 4, UINT32_MAX, 6);
	ck_assert_uint_eq(routing_table(r, 1, 0)->chain_n, 4);
	ck_assert_uint_eq(routing_table(r, 1, 1)->chain_n, 3);
	ck_assert_uint_eq(routing_table(r, 2, 1)->chain_n, 5);
	ck_assert_uint_eq(routing_table(r, 2, 0)->chain_n, 6);
	ck_assert_uint_eq(routing_table(r, 2, 0)->chains[5], 6);
	ck_assert_ptr_null(routing_table(r, 1, 3));
	ck_assert_ptr_null(routing_table(r, 3, 0));
	ck_assert_ptr_null(routing_table(r, 0, 0));
	ck_assert_uint_eq(routing_table_at(r, 2)->version, 1);
	/* from its own row */
	ck_assert_int_eq(routing_put_table(r, routing_table(r, 2, 1)), 0);
	ck_assert_uint_eq(routing_table(r, 2, 1)->chains[4], 5);
}
END_TEST

START_TEST(addresses)
{
	struct routing_target t = { .id = 11, .changed = 1, .node = 3, .loop = 0 };
	struct net_addr a;

	ck_assert_int_eq(routing_target_addr(r, 11, &a), -ENOENT);
	ck_assert_int_eq(routing_put_target(r, &t), 0);
	ck_assert_int_eq(routing_target_addr(r, 11, &a), -ENOENT);
	add_node(3, 2, NODE_STORAGE, NODE_UP, "10.0.0.3:7710");
	ck_assert_int_eq(routing_target_addr(r, 11, &a), 0);
	ck_assert_uint_eq(a.port, 7710);
	t.loop = 1;
	ck_assert_int_eq(routing_put_target(r, &t), 0);
	ck_assert_int_eq(routing_target_addr(r, 11, &a), -ENOENT);

	ck_assert_int_eq(routing_meta_addr(r, &a), -ENOENT);
	add_node(4, 3, NODE_METADATA, NODE_DOWN, "10.0.0.4:1");
	ck_assert_int_eq(routing_meta_addr(r, &a), 0);
	ck_assert_uint_eq(a.port, 1);
	add_node(5, 4, NODE_METADATA, NODE_UP, "10.0.0.5:2");
	add_node(6, 5, NODE_METADATA, NODE_UP, "10.0.0.6:3");
	add_node(1, 5, NODE_METADATA, NODE_DOWN, "10.0.0.1:4");
	ck_assert_int_eq(routing_meta_addr(r, &a), 0);
	ck_assert_uint_eq(a.port, 2);
}
END_TEST

/* Through the wire and back. */
static void
relay(struct routing *to, uint64_t have, int want)
{
	static uint8_t buf[1 << 20];
	struct msg_routing_rep out, in;
	struct msg_arena mem;
	const char *why = "";
	int n;

	msg_arena_init(&mem, 1 << 20);
	ck_assert_int_eq(routing_delta(r, have, &mem, &out), 0);
	n = msg_encode(&msg_type_routing_rep, &out, buf, sizeof(buf));
	ck_assert_int_gt(n, 0);
	ck_assert_msg(msg_decode(&msg_type_routing_rep, buf, (size_t)n, &mem, &in,
	    &why) == 0, "%s", why);
	ck_assert_int_eq(routing_apply(to, &in), want);
	msg_arena_fini(&mem);
	routing_check(to);
}

static void
same(const struct routing *a, const struct routing *b)
{
	struct msg_routing_rep x, y;
	static char tx[1 << 16], ty[1 << 16];

	ck_assert_int_eq(routing_delta(a, 0, &arena, &x), 0);
	ck_assert_int_eq(routing_delta(b, 0, &arena, &y), 0);
	msg_print(&msg_type_routing_rep, &x, tx, sizeof(tx));
	msg_print(&msg_type_routing_rep, &y, ty, sizeof(ty));
	ck_assert_str_eq(tx, ty);
	msg_arena_fini(&arena);
}

START_TEST(deltas_keep_a_copy_fresh)
{
	struct routing *copy;
	struct rand rnd;

	rand_seed(&rnd, 5);
	ck_assert_int_eq(routing_open(&copy), 0);
	routing_set_cluster(r, &here);
	for (uint64_t v = 1; v < 200; v++) {
		uint32_t id = 1 + (uint32_t)rand_below(&rnd, 12);
		struct routing_target t = { .id = id, .changed = v, .node = id,
		    .loop = id % 3, .disk = elsewhere, .chain = 7 };

		switch (rand_below(&rnd, 4)) {
		case 0:
			add_node(id, v, (uint32_t)rand_below(&rnd, 8),
			    1 + (uint8_t)rand_below(&rnd, 2),
			    rand_chance(&rnd, 1, 2) ? "[::1]:5" : "sim:3:1");
			break;
		case 1:
			ck_assert_int_eq(routing_put_target(r, &t), 0);
			break;
		case 2:
			add_chain(id, v, (uint32_t)v,
			    (uint32_t)rand_below(&rnd, 9));
			break;
		default:
			add_table(id, v, (uint32_t)v, id);
			break;
		}
		if (rand_chance(&rnd, 1, 3)) {
			/* a delta that covers too much does no harm */
			relay(copy, rand_below(&rnd, routing_version(copy) + 1),
			    0);
			same(r, copy);
		}
	}
	relay(copy, routing_version(copy), 0);
	same(r, copy);
	routing_close(copy);
}
END_TEST

START_TEST(old_rows_are_skipped)
{
	struct msg_rt_chain c = { .id = 1, .changed = 4, .version = 1,
	    .state = CHAIN_RECOVERING };
	struct msg_routing_rep d = { .version = 4, .chains = { &c, 1 } };

	add_chain(1, 5, 9, 2);
	ck_assert_int_eq(routing_apply(r, &d), 0);
	ck_assert_uint_eq(routing_chain(r, 1)->version, 9);
	ck_assert_uint_eq(routing_version(r), 5);
}
END_TEST

START_TEST(nothing_new)
{
	struct msg_routing_rep d;

	routing_set_cluster(r, &here);
	add_node(1, 5, 0, NODE_UP, NULL);
	ck_assert_int_eq(routing_delta(r, 5, &arena, &d), 0);
	ck_assert(d.nodes.n == 0 && d.version == 5 &&
	    uid128_eq(&d.cluster, &here));
	ck_assert_int_eq(routing_apply(r, &d), 0);
	routing_set_version(r, 8);	/* a version without rows */
	routing_set_version(r, 3);
	ck_assert_int_eq(routing_delta(r, 5, &arena, &d), 0);
	ck_assert(d.nodes.n == 0 && d.version == 8);
}
END_TEST

START_TEST(other_cluster)
{
	struct routing *copy;

	ck_assert_int_eq(routing_open(&copy), 0);
	routing_set_cluster(copy, &elsewhere);
	routing_set_cluster(r, &here);
	add_node(1, 5, 0, NODE_UP, NULL);
	relay(copy, 0, -EXDEV);
	ck_assert_ptr_null(routing_node_at(copy, 0));
	routing_close(copy);
}
END_TEST

static struct msg_rt_node good_node = { .id = 1, .changed = 1 };

/* A delta with one bad row changes nothing at all. */
static void
refused(const char *what, struct msg_routing_rep d)
{
	d.nodes.v = d.nodes.n > 0 ? d.nodes.v : &good_node;
	d.nodes.n = d.nodes.n > 0 ? d.nodes.n : 1;
	d.version = d.version != 0 ? d.version : 9;
	ck_assert_msg(routing_apply(r, &d) == ERR_BAD_MESSAGE, "%s", what);
	ck_assert_msg(routing_version(r) == 0 && routing_node_at(r, 0) == NULL,
	    "%s", what);
}

START_TEST(bounds)
{
	struct msg_str addrs[65] = { { NULL, 0 } };
	char longest[64];
	uint32_t many[9] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
	uint32_t zero[2] = { 1, 0 }, twice[2] = { 4, 4 };
	struct msg_rt_node n[2] = { { .id = 1, .changed = 1 },
	    { .id = 2, .changed = 1 } };
	struct msg_rt_target t = { .id = 1, .changed = 1 };
	struct msg_rt_chain c = { .id = 1, .changed = 1 };
	struct msg_rt_table tb = { .id = 1, .changed = 1, .version = 1 };
	struct msg_routing_rep dn = { .nodes = { n, 2 } };
	struct msg_routing_rep dt = { .targets = { &t, 1 } };
	struct msg_routing_rep dc = { .chains = { &c, 1 } };
	struct msg_routing_rep db = { .tables = { &tb, 1 } };

	memset(longest, 'x', sizeof(longest));
	n[1].name = (struct msg_str){ longest, 64 };
	refused("name too long", dn);
	n[1].name = (struct msg_str){ "a\0b", 3 };
	refused("name with a zero byte", dn);
	n[1].name = (struct msg_str){ longest, 63 };
	n[1].addrs.v = addrs;
	n[1].addrs.n = 65;
	refused("too many addresses", dn);
	n[1].addrs.n = 64;
	n[1].id = 0;
	refused("node 0", dn);
	n[1].id = 2;
	dn.version = 1;
	n[1].changed = 2;
	refused("newer than the whole", dn);

	t.loop = 64;
	refused("loop", dt);
	t.loop = 0;
	t.id = 0;
	refused("target 0", dt);

	c.targets.v = many;
	c.targets.n = 9;
	refused("too many replicas", dc);
	c.targets.v = zero;
	c.targets.n = 2;
	refused("replica 0", dc);
	c.targets.v = twice;
	refused("a replica twice", dc);
	c.targets.n = 0;
	c.state = CHAIN_RECOVERING;
	c.id = 0;
	refused("chain 0", dc);

	tb.version = 0;
	refused("table version 0", db);
	tb.version = 1;
	tb.chains.v = zero;
	tb.chains.n = 2;
	refused("chain 0 in a table", db);
	tb.chains.n = 65537;
	refused("too many chains", db);

	n[1].changed = 1;
	ck_assert_int_eq(routing_apply(r, &dn), 0);
	ck_assert_uint_eq(routing_node(r, 2)->addr_n, 64);
	ck_assert_uint_eq(strlen(routing_node(r, 2)->name), 63);
}
END_TEST

static const struct {
	const char *what;
	uint8_t	 state;
	uint32_t n, state_n, states[4], preferred_n, preferred[4];
	bool	 good;
} chains[] = {
	{ "all serve", CHAIN_SERVING, 2, 2, { 1, 1 }, 2, { 2, 1 }, true },
	{ "every state", CHAIN_SERVING, 4, 4, { 1, 3, 4, 5 }, 4, { 1, 2, 3, 4 },
	  true },
	{ "the last one is awaited", CHAIN_RECOVERING, 3, 3, { 2, 4, 5 }, 3,
	  { 1, 2, 3 }, true },
	{ "from the release before: serves", CHAIN_SERVING, 3, 0, { 0 }, 0, { 0 },
	  true },
	{ "from the release before: does not", CHAIN_RECOVERING, 3, 0, { 0 }, 0,
	  { 0 }, true },
	{ "nobody in it", CHAIN_RECOVERING, 0, 0, { 0 }, 0, { 0 }, true },
	{ "says it serves", CHAIN_SERVING, 2, 2, { 2, 5 }, 2, { 1, 2 }, false },
	{ "says it does not", CHAIN_RECOVERING, 2, 2, { 1, 5 }, 2, { 1, 2 }, false },
	{ "no such state of it", 3, 2, 2, { 1, 1 }, 2, { 1, 2 }, false },
	{ "too few states", CHAIN_SERVING, 3, 2, { 1, 1 }, 3, { 1, 2, 3 }, false },
	{ "too many states", CHAIN_SERVING, 2, 3, { 1, 1, 1 }, 2, { 1, 2 }, false },
	{ "state 0", CHAIN_SERVING, 2, 2, { 0, 1 }, 2, { 1, 2 }, false },
	{ "state 7", CHAIN_SERVING, 2, 2, { 1, 7 }, 2, { 1, 2 }, false },
	{ "a state of 9 bits", CHAIN_SERVING, 2, 2, { 1, 257 }, 2, { 1, 2 }, false },
	{ "not sorted", CHAIN_SERVING, 2, 2, { 5, 1 }, 2, { 1, 2 }, false },
	{ "two sync", CHAIN_SERVING, 3, 3, { 1, 3, 3 }, 3, { 1, 2, 3 }, false },
	{ "syncs from nobody", CHAIN_RECOVERING, 2, 2, { 3, 4 }, 2, { 1, 2 }, false },
	{ "two were the last", CHAIN_RECOVERING, 2, 2, { 2, 2 }, 2, { 1, 2 }, false },
	{ "the last beside one that serves", CHAIN_SERVING, 2, 2, { 1, 2 }, 2,
	  { 1, 2 }, false },
	{ "preferred is short", CHAIN_SERVING, 2, 2, { 1, 1 }, 1, { 1 }, false },
	{ "preferred has another", CHAIN_SERVING, 2, 2, { 1, 1 }, 2, { 1, 3 },
	  false },
	{ "preferred has one twice", CHAIN_SERVING, 2, 2, { 1, 1 }, 2, { 1, 1 },
	  false },
};

START_TEST(chain_rows)
{
	uint32_t targets[4] = { 1, 2, 3, 4 }, states[4], preferred[4];
	struct msg_rt_chain m = { .id = 1, .changed = 1, .version = 5,
	    .state = chains[_i].state, .targets = { targets, chains[_i].n },
	    .states = { states, chains[_i].state_n },
	    .preferred = { preferred, chains[_i].preferred_n } };
	struct msg_routing_rep d = { .version = 1, .chains = { &m, 1 } };
	const struct routing_chain *c;
	struct routing *copy;

	memcpy(states, chains[_i].states, sizeof(states));
	memcpy(preferred, chains[_i].preferred, sizeof(preferred));
	ck_assert_msg(routing_apply(r, &d) == (chains[_i].good ? 0 :
	    ERR_BAD_MESSAGE), "%s", chains[_i].what);
	c = routing_chain(r, 1);
	ck_assert_msg((c != NULL) == chains[_i].good, "%s", chains[_i].what);
	if (c == NULL)
		return;
	if (chains[_i].state_n == 0) {
		ck_assert_uint_eq(routing_serving_n(c),
		    chains[_i].state == CHAIN_SERVING ? chains[_i].n : 0);
		ck_assert_mem_eq(c->preferred, c->targets, sizeof(c->targets));
	}
	ck_assert_uint_ge(routing_active_n(c), routing_serving_n(c));
	ck_assert_int_eq(routing_open(&copy), 0);
	relay(copy, 0, 0);
	same(r, copy);
	routing_close(copy);
}
END_TEST

/* Addresses of a kind that we do not know are kept as unreachable. */
START_TEST(foreign_address)
{
	struct msg_str addrs[2] = { msg_str("quic:4"), msg_str("1.2.3.4:5") };
	struct msg_rt_node n = { .id = 1, .changed = 1, .addrs = { addrs, 2 } };
	struct msg_routing_rep d = { .version = 1, .nodes = { &n, 1 } };

	ck_assert_int_eq(routing_apply(r, &d), 0);
	ck_assert_uint_eq(routing_node(r, 1)->addrs[0].kind, NET_ADDR_NONE);
	ck_assert_uint_eq(routing_node(r, 1)->addrs[1].port, 5);
}
END_TEST

static const struct {
	const char *what;
	struct routing_group row;
	int	 rc;
} groups[] = {
	{ "founded", { .id = 1, .n = 2, .nodes = { 4, 5 }, .members = { 8, 9 },
	  .group = { { 1 } } }, 0 },
	{ "to be founded", { .id = 1, .n = 1, .nodes = { 4 }, .members = { 8 } }, 0 },
	{ "to be founded by two", { .id = 1, .n = 2, .nodes = { 4, 5 },
	  .members = { 8, 9 } }, -EINVAL },
	{ "no number", { .n = 1, .nodes = { 4 }, .members = { 8 } }, -EINVAL },
	{ "nobody in it", { .id = 1, .group = { { 1 } } }, -EINVAL },
	{ "too many", { .id = 1, .n = ROUTING_MEMBERS_MAX + 1, .group = { { 1 } } },
	  -EINVAL },
	{ "no node", { .id = 1, .n = 1, .members = { 8 } }, -EINVAL },
	{ "no member", { .id = 1, .n = 1, .nodes = { 4 } }, -EINVAL },
	{ "a node twice", { .id = 1, .n = 2, .nodes = { 4, 4 }, .members = { 8, 9 },
	  .group = { { 1 } } }, -EINVAL },
	{ "a member twice", { .id = 1, .n = 2, .nodes = { 4, 5 }, .members = { 8, 8 },
	  .group = { { 1 } } }, -EINVAL },
};

START_TEST(group_rows)
{
	struct routing_group row = groups[_i].row;

	row.changed = 1;
	ck_assert_msg(routing_put_group(r, &row) == groups[_i].rc, "%s",
	    groups[_i].what);
}
END_TEST

START_TEST(put_bounds)
{
	struct routing_node n = { .id = 0 };
	struct routing_target t = { .id = 1, .loop = 64 };
	struct routing_chain c = { .id = 1, .target_n = 9 };
	struct routing_table tb = { .id = 1, .version = 0 };

	ck_assert_int_eq(routing_put_node(r, &n), -EINVAL);
	n.id = 1;
	n.addr_n = 65;
	ck_assert_int_eq(routing_put_node(r, &n), -EINVAL);
	n.addr_n = 0;
	memset(n.name, 'x', sizeof(n.name));
	ck_assert_int_eq(routing_put_node(r, &n), -EINVAL);
	ck_assert_int_eq(routing_put_target(r, &t), -EINVAL);
	ck_assert_int_eq(routing_put_chain(r, &c), -EINVAL);
	ck_assert_int_eq(routing_put_table(r, &tb), -EINVAL);
	ck_assert_uint_eq(routing_version(r), 0);
}
END_TEST

START_TEST(out_of_arena)
{
	struct msg_arena small;
	struct msg_routing_rep d;
	int rc = -ENOMEM;

	for (uint32_t i = 1; i < 20; i++) {
		add_node(i, i, 0, NODE_UP, "1.2.3.4:5");
		add_chain(i, i, 1, 8);
		add_table(i, i, 1, 8);
	}
	for (size_t n = 0; rc == -ENOMEM; n += 64) {
		ck_assert_uint_lt(n, 100000);
		msg_arena_init(&small, n);
		rc = routing_delta(r, 0, &small, &d);
		msg_arena_fini(&small);
	}
	ck_assert_int_eq(rc, 0);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, sorted_and_found);
	tcase_add_test(t, table_versions);
	tcase_add_test(t, addresses);
	tcase_add_test(t, deltas_keep_a_copy_fresh);
	tcase_add_test(t, old_rows_are_skipped);
	tcase_add_test(t, nothing_new);
	tcase_add_test(t, other_cluster);
	tcase_add_test(t, bounds);
	tcase_add_loop_test(t, chain_rows, 0,
	    (int)(sizeof(chains) / sizeof(chains[0])));
	tcase_add_test(t, foreign_address);
	tcase_add_test(t, put_bounds);
	tcase_add_loop_test(t, group_rows, 0, sizeof(groups) / sizeof(groups[0]));
	tcase_add_test(t, out_of_arena);
	return suite_run("routing", t);
}
