/* SPDX-License-Identifier: MIT */
/* test_manager_routing.c - what the manager tells: routing, space, clients, option sets. */
#include "tests/manager_rig.h"

/* ---- routing ---- */

START_TEST(long_poll)
{
	struct routing *r = routing();
	struct msg_routing q = { .have = routing_version(r), .wait_ms = 2000 };
	struct ask *a = ask(MSG_routing, &q), *b;
	uint64_t at = sim_clock_now(t.world);

	run_ms(1900);
	ck_assert(!a->done);
	run_ms(200);
	ck_assert(a->done && a->rc == 0);
	ck_assert_uint_eq(a->rep.routing.nodes.n, 0);
	ck_assert_uint_eq(a->rep.routing.version, q.have);

	a = ask(MSG_routing, &q);
	b = ask(MSG_routing, &q);
	at = sim_clock_now(t.world);
	ck_assert_int_eq(register_node(node(0, 1, 1, 2)), 0);
	ck_assert(sim_clock_run_until(t.world, is_done, b, NS_PER_S));
	ck_assert_uint_lt(sim_clock_now(t.world) - at, 100 * NS_PER_MS);
	ck_assert(a->done && a->rc == 0 && b->rc == 0);
	ck_assert_uint_eq(a->rep.routing.nodes.n, 1);
	ck_assert_uint_eq(a->rep.routing.targets.n, 2);
	ck_assert_int_eq(routing_apply(r, &b->rep.routing), 0);
	ck_assert_uint_eq(routing_version(r), a->rep.routing.version);

	/* no answer waits longer than the asker does */
	q.have = routing_version(r);
	q.wait_ms = 100000;
	a = ask(MSG_routing, &q);
	run_ms(29950);
	ck_assert(a->done);
	routing_close(r);
}
END_TEST

/* Many wait; who was answered first asks again while others have yet to be answered, and
 * waits for what comes after. */
START_TEST(long_polls_of_many)
{
	static struct msg_routing q;
	struct ask *first = NULL, *last = NULL, *again;
	struct routing *r = routing();

	q = (struct msg_routing){ .have = routing_version(r), .wait_ms = 20000 };
	routing_close(r);
	for (unsigned i = 0; i < 600; i++) {
		last = ask(MSG_routing, &q);
		first = first == NULL ? last : first;
	}
	ask(MSG_register, &node(0, 1, 1, 1)->reg);
	ck_assert(sim_clock_run_until(t.world, is_done, first, NS_PER_S));
	ck_assert(!last->done);
	q.have = first->rep.routing.version;
	again = ask(MSG_routing, &q);
	run_ms(100);
	ck_assert(last->done && last->rc == 0);
	ck_assert_uint_eq(last->rep.routing.version, q.have);
	ck_assert(!again->done);
	ask(MSG_register, &node(1, 1, 1, 1)->reg);
	run_ms(100);
	ck_assert(again->done && again->rep.routing.nodes.n == 1);
}
END_TEST

/* More than fits into one message comes in pieces. */
START_TEST(a_large_cluster_in_pieces)
{
	struct msg_routing q = { 0 };
	struct routing *r;
	unsigned pieces = 0, targets = 0;
	static struct msg_disk_info disks[64];

	for (unsigned i = 0; i < NODES; i++) {
		node(i, 1, 0, 0);
		for (unsigned d = 0; d < 64; d++)
			disks[d] = (struct msg_disk_info){ .disk = uid(3, i, d + 1),
				.capacity = 1, .targets = 64 };
		nodes[i].reg.disks = (msg_t_list_disk_info){ disks, 64 };
		ck_assert_int_eq(register_node(&nodes[i]), 0);
	}
	ck_assert_int_eq(routing_open(&r), 0);
	do {
		struct ask *a = call(MSG_routing, &q);

		ck_assert_int_eq(a->rc, 0);
		ck_assert_uint_gt(a->rep.routing.version, q.have);
		ck_assert_int_eq(routing_apply(r, &a->rep.routing), 0);
		q.have = a->rep.routing.version;
		pieces++;
		targets += a->rep.routing.targets.n;
	} while (targets < NODES * 4096);
	ck_assert_uint_eq(targets, NODES * 4096);
	ck_assert_uint_gt(pieces, 1);
	routing_close(r);
	run_ms(5000);			/* and thousands of chains are formed */
	r = NULL;
	ck_assert_int_eq(routing_open(&r), 0);
	q.have = 0;
	for (unsigned i = 0; i < 40; i++) {
		struct ask *a = call(MSG_routing, &q);

		ck_assert_int_eq(a->rc, 0);
		ck_assert_int_eq(routing_apply(r, &a->rep.routing), 0);
		q.have = a->rep.routing.version;
	}
	ck_assert_uint_eq(routing_table(r, 1, 0)->chain_n, NODES * 4096 / 3);
	ck_assert_uint_eq(routing_table(r, 1, 0)->version, 1);
	routing_close(r);
}
END_TEST

/* ---- space, status, clients, options ---- */

START_TEST(space)
{
	struct msg_status no_status = { 0 };
	struct ask *a;

	three_nodes(1, 1);
	a = call(MSG_beat, &nodes[0].beat);
	ck_assert_uint_eq(a->rep.beat.total_bytes, 3000000);
	ck_assert_uint_eq(a->rep.beat.used_bytes, 300);
	nodes[0].disks[0].used = 3000300;
	nodes[0].disks[0].capacity = 6000000;
	a = call(MSG_beat, &nodes[0].beat);
	ck_assert_uint_eq(a->rep.beat.total_bytes, 4000000);
	ck_assert_uint_eq(a->rep.beat.used_bytes, 1000300);
	a = call(MSG_status, &no_status);
	ck_assert_int_eq(a->rc, 0);
	ck_assert_uint_eq(a->rep.status.total_bytes, 4000000);
	ck_assert_uint_eq(a->rep.status.nodes.n, 3);
	ck_assert_uint_eq(a->rep.status.nodes.v[0].disks.n, 1);
	ck_assert_uint_eq(a->rep.status.nodes.v[0].disks.v[0].used, 3000300);
	ck_assert_uint_eq(a->rep.status.nodes.v[0].release.n, 3);
	crash();
	start();
	a = call(MSG_status, &no_status);
	ck_assert_uint_eq(a->rep.status.nodes.v[0].seen_ms, UINT64_MAX);
	ck_assert_uint_eq(a->rep.status.total_bytes, 3000000);
	call(MSG_beat, &nodes[0].beat);
	run_ms(700);
	a = call(MSG_status, &no_status);
	ck_assert_uint_ge(a->rep.status.nodes.v[0].seen_ms, 700);
	ck_assert_uint_lt(a->rep.status.nodes.v[0].seen_ms, 1000);
}
END_TEST

/* Ids are what nodes say: that they are alike in one way costs time, not memory. */
START_TEST(disks_of_one_fold)
{
	static struct msg_disk_info disks[64];
	struct ask *a;

	for (unsigned i = 0; i < NODES; i++) {
		node(i, 1, 0, 0);
		for (unsigned d = 0; d < 64; d++) {
			disks[d] = (struct msg_disk_info){ .disk = uid(3, i, d + 1),
				.capacity = 1 };
			memcpy(disks[d].disk.b + 8, disks[d].disk.b, 8);
		}
		nodes[i].reg.disks = (msg_t_list_disk_info){ disks, 64 };
		ck_assert_int_eq(register_node(&nodes[i]), 0);
	}
	a = call(MSG_status, &(struct msg_status){ 0 });
	ck_assert_int_eq(a->rc, 0);
	ck_assert_uint_eq(a->rep.status.nodes.n, NODES);
	for (unsigned i = 0; i < NODES; i++)
		ck_assert_uint_eq(a->rep.status.nodes.v[i].disks.n, 64);
}
END_TEST

START_TEST(clients)
{
	struct msg_clients no_clients = { { { 0 } } };
	struct msg_client_beat q[3];
	struct ask *a;

	for (unsigned i = 0; i < 3; i++) {
		q[i] = (struct msg_client_beat){ .client = uid(9, i, 0),
			.host = msg_str("box"), .mount = msg_str("/mnt"),
			.pid = 100 + i, .release = msg_str("0.1") };
		/* same fold: must not be taken for one another */
		memset(q[i].client.b + 8, 0, 8);
		q[i].client.b[8 + 3] = (uint8_t)i;
		q[i].client.b[3] = (uint8_t)i;
		q[i].client.b[1] = 1;
		a = call(MSG_client_beat, &q[i]);
		ck_assert_int_eq(a->rc, 0);
		ck_assert_uint_gt(a->rep.client_beat.beat_ms, 0);
	}
	a = call(MSG_clients, &no_clients);
	ck_assert_uint_eq(a->rep.clients.clients.n, 3);
	q[1].leaving = 1;
	ck_assert_int_eq(call(MSG_client_beat, &q[1])->rc, 0);
	ck_assert_int_eq(call(MSG_client_beat, &q[1])->rc, 0);
	run_ms(8000);
	call(MSG_client_beat, &q[0]);
	run_ms(8000);
	a = call(MSG_clients, &no_clients);
	ck_assert_uint_eq(a->rep.clients.clients.n, 1);
	ck_assert_uint_eq(a->rep.clients.clients.v[0].pid, 100);
	ck_assert_uint_ge(a->rep.clients.clients.v[0].since_ms, 16000);
	ck_assert_uint_lt(a->rep.clients.clients.v[0].seen_ms, 9000);
	memset(&q[2].client, 0, 16);
	ck_assert_int_eq(call(MSG_client_beat, &q[2])->rc, -EINVAL);
}
END_TEST

/* What one answer has no room for comes with the next ones. */
START_TEST(more_clients_than_one_answer_holds)
{
	struct msg_clients q = { { { 0 } } };
	static char mount[256];
	unsigned n = 0, pages = 0;
	struct ask *a;

	memset(mount, 'm', sizeof(mount) - 1);
	for (unsigned i = 0; i < 3000; i++) {
		struct msg_client_beat beat = { .client = uid(9, i / 256, i % 256),
			.host = msg_str("box"), .mount = msg_str(mount),
			.release = msg_str("0.1") };

		ck_assert_int_eq(call(MSG_client_beat, &beat)->rc, 0);
	}
	do {
		const struct msg_client_row *v;

		a = call(MSG_clients, &q);
		ck_assert_int_eq(a->rc, 0);
		n += a->rep.clients.clients.n;
		ck_assert_uint_eq(n + a->rep.clients.left, 3000);
		v = &a->rep.clients.clients.v[0];
		ck_assert_int_gt(memcmp(&v->client, &q.after, sizeof(q.after)), 0);
		q.after = v[a->rep.clients.clients.n - 1].client;
		pages++;
	} while (a->rep.clients.left > 0);
	ck_assert_uint_eq(n, 3000);
	ck_assert_uint_eq(pages, 2);
}
END_TEST

START_TEST(more_nodes_than_one_answer_holds)
{
	static struct msg_disk_info disks[64];
	struct msg_status q = { 0 };
	static char path[256];
	unsigned seen = 0, pages = 0;
	struct ask *a;

	memset(path, '/', sizeof(path) - 1);
	for (unsigned i = 0; i < 60; i++) {
		struct node *n = node(0, 1, 0, 0);

		snprintf(n->name, sizeof(n->name), "n%u", i);
		n->reg.name = msg_str(n->name);
		n->reg.node_uid = uid(1, i, 1);
		n->reg.boot = uid(2, i, 1);
		for (unsigned d = 0; d < 64; d++)
			disks[d] = (struct msg_disk_info){ .disk = uid(3, i, d + 1),
				.path = msg_str(path), .capacity = 1 };
		n->reg.disks = (msg_t_list_disk_info){ disks, 64 };
		ck_assert_int_eq(register_node(n), 0);
	}
	do {
		a = call(MSG_status, &q);
		ck_assert_int_eq(a->rc, 0);
		seen += a->rep.status.nodes.n;
		ck_assert_uint_eq(seen + a->rep.status.nodes_left, 60);
		ck_assert_uint_eq(a->rep.status.syncs_left, 0);
		ck_assert_uint_gt(a->rep.status.nodes.v[0].node, q.after_node);
		q.after_node = a->rep.status.nodes.v[a->rep.status.nodes.n - 1].node;
		pages++;
	} while (a->rep.status.nodes_left > 0);
	ck_assert_uint_eq(seen, 60);
	ck_assert_uint_gt(pages, 1);
}
END_TEST

START_TEST(option_sets)
{
	struct msg_config_get get = { .role = msg_str("storage") };
	struct msg_config_set set = { .role = msg_str("storage"),
		.text = msg_str("[storage]\nfull = 90\n") };
	struct ask *a = call(MSG_config_get, &get);

	ck_assert_int_eq(a->rc, 0);
	ck_assert_uint_eq(a->rep.config.version, 0);
	ck_assert_uint_eq(a->rep.config.text.n, 0);
	a = call(MSG_config_set, &set);
	ck_assert_int_eq(a->rc, 0);
	ck_assert_uint_eq(a->rep.config.version, 1);
	ck_assert_int_eq(call(MSG_config_set, &set)->rc, -EAGAIN);
	set.have = 1;
	set.text = msg_str("[storage]\nfull = lots\n");
	ck_assert_int_eq(call(MSG_config_set, &set)->rc, ERR_CONFIG);
	for (unsigned i = 0; i < 40; i++) {
		set.text = msg_str("[storage]\nfull = 80\n");
		a = call(MSG_config_set, &set);
		ck_assert_int_eq(a->rc, 0);
		set.have = a->rep.config.version;
	}
	set.role = msg_str("client");
	set.text = msg_str("");
	set.have = 0;
	a = call(MSG_config_set, &set);
	ck_assert_uint_eq(a->rep.config.version, 42);
	set.role = get.role = msg_str("cook");
	ck_assert_int_eq(call(MSG_config_set, &set)->rc, -ENOENT);
	ck_assert_int_eq(call(MSG_config_get, &get)->rc, -ENOENT);
	crash();
	start();
	get.role = msg_str("storage");
	a = call(MSG_config_get, &get);
	ck_assert_uint_eq(a->rep.config.version, 41);
	ck_assert_uint_eq(a->rep.config.text.n, strlen("[storage]\nfull = 80\n"));
	ck_assert_int_eq(register_node(node(0, 1, 1, 1)), 0);
	a = call(MSG_beat, &nodes[0].beat);
	ck_assert_uint_eq(a->rep.beat.config_version, 42);
}
END_TEST

int
main(void)
{
	TCase *calm = tcase_create("calm");

	tcase_add_checked_fixture(calm, setup, teardown);
	tcase_add_test(calm, long_poll);
	tcase_add_test(calm, long_polls_of_many);
	tcase_add_test(calm, a_large_cluster_in_pieces);
	tcase_add_test(calm, space);
	tcase_add_test(calm, disks_of_one_fold);
	tcase_add_test(calm, clients);
	tcase_add_test(calm, more_clients_than_one_answer_holds);
	tcase_add_test(calm, more_nodes_than_one_answer_holds);
	tcase_add_test(calm, option_sets);
	tcase_set_timeout(calm, 60);
	return suite_run("manager_routing", calm);
}
