/* SPDX-License-Identifier: MIT */
/* test_manager_operator.c - what an operator tells the manager to do about replicas: compare one
 * anew, accept that data is lost, put a disk in another's place. */
#include "tests/manager_rig.h"

/* An operator, or fsd check, has a replica compared with the others again. */
START_TEST(a_replica_is_compared_again)
{
	struct msg_chain_resync q = { .chain = 9, .target = 1 };

	three_nodes(1, 1);
	run_ms(1000);
	ck_assert_int_eq(call(MSG_chain_resync, &q)->rc, -ENOENT);
	q.chain = 1;
	q.target = 9;
	ck_assert_int_eq(call(MSG_chain_resync, &q)->rc, -ENOENT);
	q.target = 2;
	q.version = 7;
	ck_assert_int_eq(call(MSG_chain_resync, &q)->rc, ERR_STALE_CHAIN);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+");
	q.version = 1;
	ck_assert_int_eq(call(MSG_chain_resync, &q)->rc, 0);
	ck_assert_str_eq(shape(), "1v2:1.3.2y t1v1:1 1+ 2+ 3+");
	q.version = 0;
	ck_assert_int_eq(call(MSG_chain_resync, &q)->rc, -EBUSY);
	q.target = 1;
	ck_assert_int_eq(call(MSG_chain_resync, &q)->rc, -EBUSY);
	ck_assert_int_eq(synced(1, 2, 2, &nodes[2]), 0);
	ck_assert_str_eq(shape(), "1v3:1.3.2 t1v1:1 1+ 2+ 3+");
}
END_TEST

static int
accept_loss(chain_id chain, target_id target)
{
	struct msg_chain_accept q = { .chain = chain, .target = target };

	return call(MSG_chain_accept, &q)->rc;
}

START_TEST(loss_is_accepted)
{
	three_nodes(1, 1);
	run_ms(1000);
	beat_ms(5000, 4);
	beat_ms(5000, 0);
	ck_assert_str_eq(shape(), "1v3:3l.1o.2o t1v1:1 1- 2- 3-");
	ck_assert_int_eq(accept_loss(1, 1), -EBUSY);	/* gone too */
	ck_assert_int_eq(register_node(node(0, 2, 1, 1)), 0);
	ck_assert_int_eq(register_node(node(1, 2, 1, 1)), 0);
	ck_assert_str_eq(shape(), "1v5:3l.1w.2w t1v1:1 1+ 2+ 3-");
	ck_assert_int_eq(accept_loss(1, 3), -EBUSY);
	ck_assert_int_eq(accept_loss(1, 9), -ENOENT);
	ck_assert_int_eq(accept_loss(9, 1), -ENOENT);
	ck_assert_int_eq(accept_loss(1, 2), 0);
	ck_assert_str_eq(shape(), "1v6:2.1y.3o t1v1:1 1+ 2+ 3-");
	ck_assert_int_eq(accept_loss(1, 2), -EBUSY);
	ck_assert_int_eq(register_node(node(2, 2, 1, 1)), 0);
	ck_assert_str_eq(shape(), "1v7:2.1y.3w t1v1:1 1+ 2+ 3+");
}
END_TEST

static int
replace(const struct uid128 *disk, const struct uid128 *with)
{
	struct msg_disk_replace q = { .disk = *disk, .with = *with };

	return call(MSG_disk_replace, &q)->rc;
}

static target_id
routing_target_on(chain_id chain, node_id node)
{
	struct routing *r = routing();
	const struct routing_chain *c = routing_chain(r, chain);
	target_id id = 0;

	for (unsigned i = 0; i < c->target_n; i++)
		if (routing_target(r, c->targets[i])->node == node)
			id = c->targets[i];
	routing_close(r);
	return id;
}

START_TEST(a_disk_is_replaced)
{
	struct uid128 none = uid(3, 7, 7);
	struct ask *a;

	three_nodes(1, 2);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 2v1:2.3.1 t1v1:1.2 1+ 2+ 3+");
	nodes[1].disks[0].failed = 1;
	beat(2);
	run_ms(50);
	/* a box comes with a new disk; one is too small, one is in use */
	node(3, 1, 3, 2)->disks[1].targets = 1;
	nodes[3].disks[2].failed = 1;
	ck_assert_int_eq(register_node(&nodes[3]), 0);
	run_ms(1000);
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &none), -ENOENT);
	ck_assert_int_eq(replace(&none, &nodes[3].disks[0].disk), -ENOENT);
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[1].disks[0].disk),
	    -EEXIST);
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[3].disks[1].disk),
	    -ENOSPC);
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[3].disks[2].disk),
	    -EIO);
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[0].disks[0].disk),
	    -ENOSPC);
	ck_assert_int_eq(replace(&nodes[3].disks[1].disk, &nodes[3].disks[0].disk),
	    -EALREADY);
	ck_assert_str_eq(shape(), "1v2:1.3.2o 2v2:3.1.2o t1v1:1.2 1+ 2+ 3+ 4+");
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[3].disks[0].disk),
	    0);
	ck_assert_str_eq(shape(), "1v3:1.3.4y 2v3:3.1.4y t1v1:1.2 1+ 2+ 3+ 4+");
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[3].disks[0].disk),
	    -EALREADY);
	/* what is on the old one counts for nothing, come what may */
	nodes[1].disks[0].failed = 0;
	beat(2);
	run_ms(50);
	ck_assert_int_eq(restart(node(1, 2, 1, 2), 13), 0);
	crash();
	start();
	a = call(MSG_status, &(struct msg_status){ 0 });
	ck_assert_uint_eq(a->rep.status.nodes.v[1].disks.v[0].failed, 3);
	ck_assert_uint_eq(a->rep.status.nodes.v[1].disks.v[0].capacity, 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v3:1.3.4y 2v3:3.1.4y t1v1:1.2 1+ 2+ 3+ 4+");
	ck_assert_int_eq(synced(1, 3, routing_target_on(1, 4), &nodes[2]), 0);
	ck_assert_str_eq(shape(), "1v4:1.3.4 2v3:3.1.4y t1v1:1.2 1+ 2+ 3+ 4+");
}
END_TEST

START_TEST(the_last_replica_is_not_replaced)
{
	three_nodes(1, 1);
	ck_assert_int_eq(register_node(node(3, 1, 1, 1)), 0);
	run_ms(1000);
	ck_assert_str_eq(shape(), "1v1:1.2.3 t1v1:1 1+ 2+ 3+ 4+");
	beat_ms(5000, 9);
	ck_assert_str_eq(shape(), "1v2:1.2o.3o t1v1:1 1+ 2- 3- 4+");
	ck_assert_int_eq(replace(&nodes[0].disks[0].disk, &nodes[3].disks[0].disk),
	    -EBUSY);
	ck_assert_int_eq(replace(&nodes[1].disks[0].disk, &nodes[3].disks[0].disk),
	    0);
	ck_assert_str_eq(shape(), "1v3:1.4y.3o t1v1:1 1+ 2- 3- 4+");
	/* nor put where another one is: it has a free slot, on a disk of a box that has
	 * the chain already */
	ck_assert_int_eq(restart(node(3, 2, 2, 1), 1), 0);
	ck_assert_int_eq(replace(&nodes[2].disks[0].disk, &nodes[3].disks[1].disk),
	    -EEXIST);
}
END_TEST

int
main(void)
{
	TCase *calm = tcase_create("calm");

	tcase_add_checked_fixture(calm, setup, teardown);
	tcase_add_test(calm, loss_is_accepted);
	tcase_add_test(calm, a_replica_is_compared_again);
	tcase_add_test(calm, a_disk_is_replaced);
	tcase_add_test(calm, the_last_replica_is_not_replaced);
	tcase_set_timeout(calm, 60);
	return suite_run("manager_operator", calm);
}
