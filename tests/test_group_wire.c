/* SPDX-License-Identifier: MIT */
/* test_group_wire.c - what a member is told by who cannot be one of its group: every message
 * that says so is refused, and nothing has changed. */
#include "conf/crc32c.h"
#include "meta/group_impl.h"
#include "tests/group_rig.h"
#include "tests/suite.h"

#define LONG	(META_LOG_PAYLOAD_MAX + 1)

static struct {
	struct net_call call;
	bool	 done;
	int	 rc;
	uint8_t	 data[(GROUP_ENTRIES + 1) * GROUP_ENTRY_HEAD + LONG];
	uint8_t	 members[RAFT_MEMBERS_BYTES];
} w;

static void
told(struct net_call *c, int rc)
{
	(void)c;
	w.done = true;
	w.rc = rc;
}

static bool
is_done(void *ctx)
{
	(void)ctx;
	return w.done;
}

/* Node B, which is nobody's member, says it to A. */
static int
tell(uint16_t method, const void *msg)
{
	struct net_addr to = addr_of(0);
	struct net_call_opts o = { .deadline_ns = clock_now(t.nodes[1].clock) +
		NS_PER_S };

	memset(&w.call, 0, sizeof(w.call));
	w.done = false;
	ck_assert_int_eq(net_call_start(&w.call, t.nodes[1].hub, &to, method, msg, &o,
	    told), 0);
	ck_assert(sim_clock_run_until(t.world, is_done, NULL, 5 * NS_PER_S));
	return w.rc;
}

/* @n empty entries of term 1, and one of @len bytes. */
static void
entries(struct msg_raft_step *m, uint32_t n, uint32_t len)
{
	struct bytes_writer out;

	bytes_writer_init(&out, w.data, sizeof(w.data));
	for (uint32_t i = 0; i <= n; i++) {
		bytes_put_u64(&out, 1);
		bytes_put_u16(&out, RAFT_COMMAND);
		bytes_put_u32(&out, i < n ? 0 : len);
	}
	m->n = n + 1;
	m->data = (struct msg_str){ (const char *)w.data,
		(uint32_t)bytes_written(&out) + (len <= LONG ? len : 0) };
}

static void as_it_is(struct msg_raft_step *m) { (void)m; }
static void other_number(struct msg_raft_step *m) { m->number++; }
static void other_member(struct msg_raft_step *m) { m->to++; }
static void nobody(struct msg_raft_step *m) { m->from = 0; }
static void itself(struct msg_raft_step *m) { m->from = m->to; }
static void other_group(struct msg_raft_step *m) { m->group.b[0] ^= 1; }
static void no_group(struct msg_raft_step *m) { memset(&m->group, 0, 16); }
static void no_addr(struct msg_raft_step *m) { m->addr = msg_str("x"); }
static void not_there(struct msg_raft_step *m) { m->n++; }
static void left_over(struct msg_raft_step *m) { m->n--; }
static void cut_off(struct msg_raft_step *m) { m->data.n--; }
static void in_a_beat(struct msg_raft_step *m) { m->kind = RAFT_BEAT; }
static void many(struct msg_raft_step *m) { entries(m, GROUP_ENTRIES, 0); }
static void long_one(struct msg_raft_step *m) { entries(m, 0, LONG); }
static void longest(struct msg_raft_step *m) { entries(m, 1, UINT32_MAX); }

static const struct {
	const char *what;
	void (*change)(struct msg_raft_step *m);
	int	 rc;
} steps[] = {
	{ "an old term", as_it_is, 0 },
	{ "another group's number", other_number, ERR_NOT_OWNER },
	{ "for another member", other_member, ERR_NOT_OWNER },
	{ "from nobody", nobody, ERR_NOT_OWNER },
	{ "from itself", itself, ERR_NOT_OWNER },
	{ "of another group", other_group, ERR_NOT_OWNER },
	{ "of no group", no_group, ERR_BAD_MESSAGE },
	{ "no address", no_addr, ERR_BAD_MESSAGE },
	{ "an entry that is not there", not_there, ERR_BAD_MESSAGE },
	{ "more than its entries", left_over, ERR_BAD_MESSAGE },
	{ "an entry that is cut off", cut_off, ERR_BAD_MESSAGE },
	{ "entries in a beat", in_a_beat, ERR_BAD_MESSAGE },
	{ "more entries than a message has", many, ERR_BAD_MESSAGE },
	{ "an entry that is too long", long_one, ERR_BAD_MESSAGE },
	{ "an entry longer than the message", longest, ERR_BAD_MESSAGE },
};

START_TEST(step)
{
	struct msg_raft_step m = { .number = 1, .kind = RAFT_ENTRIES, .from = 77,
		.addr = msg_str("sim:2:0") };
	uint64_t applied, member;

	form(1);
	up(1, GROUP_JOIN);
	load(5);
	member = m.to = group_member(t.nodes[0].group);
	group_id(t.nodes[0].group, &m.group);
	applied = group_applied(t.nodes[0].group);
	entries(&m, 1, 7);
	steps[_i].change(&m);
	ck_assert_msg(tell(MSG_raft_step, &m) == steps[_i].rc, "%s: %s", steps[_i].what,
	    err_name(w.rc));
	ck_assert_uint_eq(group_applied(t.nodes[0].group), applied);
	ck_assert_uint_eq(group_member(t.nodes[0].group), member);
	load(5);
}
END_TEST

/* ---- pieces of a snapshot ---- */

static void
row(struct msg_snapshot *m, const char *key, uint16_t key_len, uint32_t len)
{
	struct bytes_writer out;

	bytes_writer_init(&out, w.data, sizeof(w.data));
	bytes_put_u16(&out, key_len);
	bytes_put_u32(&out, len);
	bytes_put_raw(&out, key, 2);
	bytes_put_raw(&out, "vvvvvvvv", 8);
	m->data = (struct msg_str){ (const char *)w.data, (uint32_t)bytes_written(&out) };
	m->crc = crc32c(0, w.data, m->data.n);
}

static void s_as_it_is(struct msg_snapshot *m) { (void)m; }
static void s_old_term(struct msg_snapshot *m) { m->term = 0; }
static void s_number(struct msg_snapshot *m) { m->number++; }
static void s_group(struct msg_snapshot *m) { m->group.b[1] ^= 1; }
static void s_index(struct msg_snapshot *m) { m->index = 0; }
static void s_term(struct msg_snapshot *m) { m->log_term = 0; }
static void s_members(struct msg_snapshot *m) { m->members.n--; }
static void s_members_at(struct msg_snapshot *m) { m->members_index = m->index + 1; }
static void s_sum(struct msg_snapshot *m) { m->crc++; }
static void s_no_key(struct msg_snapshot *m) { row(m, "kk", 0, 10); }
static void s_long_key(struct msg_snapshot *m) { row(m, "kk", 11, 0); }
static void s_long_value(struct msg_snapshot *m) { row(m, "kk", 2, UINT32_MAX); }
static void s_left_over(struct msg_snapshot *m) { row(m, "kk", 2, 7); }
static void s_own_row(struct msg_snapshot *m) { row(m, "\0f", 2, 8); }

static const struct {
	const char *what;
	void (*change)(struct msg_snapshot *m);
	int	 rc;
} pieces[] = {
	{ "a piece", s_as_it_is, 0 },
	{ "of an old leader", s_old_term, 0 },
	{ "another group's number", s_number, ERR_NOT_OWNER },
	{ "of another group", s_group, ERR_NOT_OWNER },
	{ "no index", s_index, ERR_BAD_MESSAGE },
	{ "no term", s_term, ERR_BAD_MESSAGE },
	{ "half a configuration", s_members, ERR_BAD_MESSAGE },
	{ "a configuration of later", s_members_at, ERR_BAD_MESSAGE },
	{ "damaged", s_sum, ERR_PAYLOAD_CRC },
	{ "a row without a key", s_no_key, ERR_BAD_MESSAGE },
	{ "a key longer than the piece", s_long_key, ERR_BAD_MESSAGE },
	{ "a value longer than the piece", s_long_value, ERR_BAD_MESSAGE },
	{ "half a row behind", s_left_over, ERR_BAD_MESSAGE },
	{ "a row of the group itself", s_own_row, ERR_BAD_MESSAGE },
};

START_TEST(piece)
{
	struct raft_members two = { .n = 2, .m = { { .id = 77, .voter = true } } };
	struct msg_snapshot m = { .number = 1, .from = 77, .term = 9, .id = 5,
		.index = 1000, .log_term = 3, .members_index = 1 };

	up(0, GROUP_JOIN);
	up(1, GROUP_JOIN);
	sim_clock_run(t.world, NS_PER_S);
	m.to = group_member(t.nodes[0].group);
	m.group.b[0] = 1;
	two.m[0].addr = addr_of(1);
	two.m[1] = (struct raft_member){ .id = m.to, .addr = addr_of(0) };
	m.members = (struct msg_str){ (const char *)w.members,
		(uint32_t)raft_members_encode(&two, w.members) };
	row(&m, "kk", 2, 8);
	while (tell(MSG_snapshot, &m) == ERR_BUSY)	/* it joins that group */
		sim_clock_run(t.world, 10 * NS_PER_MS);
	ck_assert_int_eq(w.rc, 0);
	m.seq = 1;
	pieces[_i].change(&m);
	ck_assert_msg(tell(MSG_snapshot, &m) == pieces[_i].rc, "%s: %s", pieces[_i].what,
	    err_name(w.rc));
	ck_assert(!t.nodes[0].broken);
	ck_assert_uint_eq(group_applied(t.nodes[0].group), 0);
}
END_TEST

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	TCase *tc = tcase_create("wire");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, step, 0, N(steps));
	tcase_add_loop_test(tc, piece, 0, N(pieces));
	return suite_run("group_wire", tc);
}
