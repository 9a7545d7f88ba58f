/* SPDX-License-Identifier: MIT */
/* test_manager_meta.c - the row that says which metadata group there is and who is in it: one
 * node founds, and whoever comes late or is not named changes nothing. */
#include "roles/manager_state.h"
#include "tests/manager_rig.h"

static const struct uid128 ours = { { 7 } }, other = { { 8 } };

static unsigned up;			/* nodes, as bits */

static void
no_answer(struct group_req *r, int rc, const void *result, size_t len)
{
	(void)r, (void)rc, (void)result, (void)len;
}

/* "1/41 2/42 group=7 leader=1 term=3" */
static const char *
row(void)
{
	static char out[256];
	struct routing *r = routing();
	const struct routing_group *g = routing_group(r, 1);
	char *p = out;

	ck_assert_ptr_nonnull(g);
	for (unsigned i = 0; i < g->n; i++)
		p += sprintf(p, "%u/%u ", g->nodes[i], (unsigned)g->members[i]);
	sprintf(p, "group=%u leader=%u term=%u", g->group.b[0], g->leader,
	    (unsigned)g->term);
	routing_close(r);
	return out;
}

static void
servers(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct node *x = node(i, 1, 0, 0);

		x->reg.roles = NODE_METADATA;
		x->reg.member = 41 + i;
		ck_assert_int_eq(register_node(x), 0);
	}
	up = (1u << n) - 1;
	beat_ms(200, up);
}

static void
propose(const uint8_t *cmd, const struct bytes_writer *w)
{
	struct group_req req;

	ck_assert_int_eq(group_propose(manager_group(t.m), &req, cmd,
	    bytes_written(w), no_answer), 0);
	beat_ms(200, up);
}

static void
leads(unsigned i, const struct uid128 *boot, const struct uid128 *group, uint64_t term)
{
	struct msg_group_status q = { .id = 1, .group = *group, .term = term };
	struct bytes_writer w;
	uint8_t bytes[128];

	bytes_writer_init(&w, bytes, sizeof(bytes));
	manager_cmd_group_leads(&w, nodes[i].id, boot, &q);
	propose(bytes, &w);
}

/* The nodes whose digits are in @who, as of @changed. */
static void
members(const char *who, uint64_t changed, unsigned wrong)
{
	struct routing_group g = { .id = 1, .changed = changed, .fixed = true };
	struct bytes_writer w;
	uint8_t bytes[128];

	for (; *who != '\0'; who++) {
		g.nodes[g.n] = (node_id)(*who - '0');
		g.members[g.n++] = 40u + (unsigned)(*who - '0') + wrong;
	}
	bytes_writer_init(&w, bytes, sizeof(bytes));
	manager_cmd_group(&w, &g);
	propose(bytes, &w);
}

static uint64_t
changed(void)
{
	struct routing *r = routing();
	uint64_t v = routing_group(r, 1)->changed;

	routing_close(r);
	return v;
}

/* Node 1 founds, the others join. */
static void
found(void)
{
	leads(0, &nodes[0].boot, &ours, 1);
	ck_assert_str_eq(row(), "1/41 group=7 leader=1 term=1");
	members("123", changed(), 0);
	ck_assert_str_eq(row(), "1/41 2/42 3/43 group=7 leader=1 term=1");
}

START_TEST(who_was_named_founds)
{
	struct uid128 before;

	servers(3);
	before = nodes[0].boot;
	before.b[2] ^= 1;
	ck_assert_str_eq(row(), "1/41 group=0 leader=0 term=0");
	leads(1, &nodes[1].boot, &ours, 1);	/* is not named */
	leads(0, &before, &ours, 1);		/* a process of before */
	members("123", changed(), 0);		/* more than one would found */
	ck_assert_str_eq(row(), "1/41 group=0 leader=0 term=0");
	found();
	leads(0, &nodes[0].boot, &other, 2);
	ck_assert_str_eq(row(), "1/41 2/42 3/43 group=7 leader=1 term=1");
}
END_TEST

/* A node whose data is another member's by now is not the one that was named. */
START_TEST(lost_data_founds_nothing)
{
	struct node *x;

	servers(1);
	ck_assert_str_eq(row(), "1/41 group=0 leader=0 term=0");
	x = node(0, 2, 0, 0);
	x->reg.roles = NODE_METADATA;
	x->reg.member = 99;
	ck_assert_int_eq(register_node(x), 0);
	leads(0, &x->boot, &ours, 1);
	ck_assert_str_eq(row(), "1/41 group=0 leader=0 term=0");
}
END_TEST

START_TEST(later_leaders_stay)
{
	servers(3);
	found();
	leads(2, &nodes[2].boot, &ours, 5);
	ck_assert_str_eq(row(), "1/41 2/42 3/43 group=7 leader=3 term=5");
	leads(1, &nodes[1].boot, &ours, 4);
	ck_assert_str_eq(row(), "1/41 2/42 3/43 group=7 leader=3 term=5");
}
END_TEST

START_TEST(members_are_who_they_say)
{
	servers(3);
	found();
	members("12", changed() - 1, 0);	/* made from a row of before */
	members("112", changed(), 0);		/* one twice */
	members("12", changed(), 10);		/* not what is on their disks */
	members("19", changed(), 0);		/* nobody */
	ck_assert_str_eq(row(), "1/41 2/42 3/43 group=7 leader=1 term=1");
	members("12", changed(), 0);
	ck_assert_str_eq(row(), "1/41 2/42 group=7 leader=1 term=1");
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("row");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, who_was_named_founds);
	tcase_add_test(tc, lost_data_founds_nothing);
	tcase_add_test(tc, later_leaders_stay);
	tcase_add_test(tc, members_are_who_they_say);
	tcase_set_timeout(tc, 60);
	return suite_run("manager_meta", tc);
}
