/* SPDX-License-Identifier: MIT */
/* test_metadata_group.c - metadata nodes and a manager on simulated hosts: who founds the
 * group, how it grows, and that nothing acknowledged is lost, done twice or read stale,
 * whoever leads.  N=n runs n seeds of faults, SEED=n just that one. */
#define MANAGER	 1u
#define META	 2u			/* first of them */
#define METAS	 4u			/* hosts 2..5 */
#define STORAGE	 6u			/* beats, and that is all */
#define ASKER	 7u
#define HOSTS	 8u
#define ASK_NS	 NS_PER_S
#define CLIENTS	 4u

#include <fcntl.h>
#include <sys/stat.h>

#include "conf/crc32c.h"
#include "meta/group_impl.h"
#include "meta/tree.h"
#include "roles/metadata_impl.h"
#include "tests/host_rig.h"

static uint64_t seqs[CLIENTS + 1];	/* of each client, the last */

static void
open_storage(struct host *h, const struct net_addr *self, const struct net_addr *manager)
{
	ck_assert_int_eq(member_open(&h->member, &(struct member_conf){
		.clock = h->clock, .rand = &h->rand, .log = &h->env.log,
		.hub = h->hub, .managers = manager, .manager_n = 1,
		.roles = NODE_STORAGE, .name = "storage", .node_uid = { { 1 } },
		.boot = { { 2, (uint8_t)h->boots } }, .addrs = self, .addr_n = 1,
		.disks = disks, .ctx = h }), 0);
}

static void
boot(unsigned id)
{
	struct host *h = &t.hosts[id];
	struct net_addr manager = at(MANAGER), self = at(id);
	char name[16];

	host_up(id);
	snprintf(name, sizeof(name), "n%u.%u", id, h->boots);
	if (id == MANAGER)
		ck_assert_int_eq(manager_open(&h->manager, &h->env, "m", &self,
		    NULL, 0, on_ready, h), 0);
	else if (id < META + METAS)
		ck_assert_int_eq(metadata_open(&h->metadata, &h->env, "meta", &self,
		    &manager, 1, name, on_ready, h), 0);
	else if (id == STORAGE)
		open_storage(h, &self, &manager);
}

static void
setup_seed(uint64_t seed)
{
	hosts_open(seed);
	memset(seqs, 0, sizeof(seqs));
	t.conf.manager_log_size = 1u << 20;
	t.conf.manager_form_delay = 10;
	t.conf.metadata_log_size = 1u << 20;
	t.conf.metadata_cache_ttl = 0;
	t.conf.metadata_session = 5000;
	t.conf.metadata_flush_time = 200;
	t.conf.cluster_election = 300;
	t.conf.cluster_replicas = 1;
	t.conf.cluster_stripe = 1;
	boot(ASKER);
	boot(MANAGER);
	boot(STORAGE);
}

static bool
serves(unsigned id)
{
	const struct host *h = &t.hosts[id];

	return h->up && !h->paused && h->metadata != NULL &&
	    metadata_hears(h->metadata);
}

/* The metadata node that serves; 0 when none does within @ms. */
static unsigned
leader(unsigned ms)
{
	uint64_t end = sim_clock_now(t.world) + ms * NS_PER_MS;
	unsigned found = 0;

	do {
		for (unsigned id = META; id < META + METAS; id++)
			if (serves(id)) {
				ck_assert_msg(found == 0, "%u and %u serve", found, id);
				found = id;
			}
		if (found != 0)
			return found;
		run_ms(20);
	} while (sim_clock_now(t.world) < end);
	return 0;
}

static bool
final(int rc)
{
	return rc == 0 || rc == -ENOENT || rc == -EEXIST || rc == -ENOTEMPTY ||
	    rc == -EINVAL || rc == -ESTALE || rc == -EACCES || rc == -ENOTDIR;
}

/* As a client does: again until it is answered. */
static struct ask *
insist(uint16_t method, const void *q)
{
	struct ask *a = NULL;

	for (unsigned i = 0; i < 1000; i++) {
		unsigned id = leader(30000);

		ck_assert_uint_ne(id, 0);
		a = ask(id, method, q);
		if (final(a->rc))
			return a;
		run_ms(20);
	}
	ck_abort_msg("%s: %s", msg_method(method)->name, err_name(a->rc));
	return NULL;
}

static struct msg_ctx
ctx(unsigned client, bool changes)
{
	struct msg_ctx c = { .client.b = { (uint8_t)(client + 1), 1 } };

	if (changes) {
		c.seq = ++seqs[client];
		c.done = c.seq - 1;
	}
	return c;
}

static int
mkdir_as(unsigned client, const char *name)
{
	struct msg_mknod q = { ctx(client, true), INO_ROOT, msg_str(name), 0755, 0 };

	return insist(MSG_mkdir, &q)->rc;
}

static int
lookup(unsigned client, const char *name)
{
	struct msg_lookup q = { ctx(client, false), INO_ROOT, msg_str(name) };

	return insist(MSG_lookup, &q)->rc;
}

/* Members of the group, as its leader has them: how many vote, all of them wanted. */
static unsigned
voters(void)
{
	unsigned id = leader(30000), n = 0;
	const struct raft_members *m;

	ck_assert_uint_ne(id, 0);
	m = group_members(t.hosts[id].metadata->group);
	for (unsigned i = 0; i < m->n; i++)
		n += m->m[i].voter;
	return m->n == n ? n : 0;
}

static bool
settles(unsigned n, unsigned ms)
{
	uint64_t end = sim_clock_now(t.world) + ms * NS_PER_MS;

	while (sim_clock_now(t.world) < end) {
		if (voters() == n)
			return true;
		run_ms(100);
	}
	return false;
}

/* All boxes hold the same group, if any. */
static void
one_group(void)
{
	struct uid128 first = { { 0 } }, id;

	for (unsigned i = META; i < META + METAS; i++) {
		if (!t.hosts[i].up)
			continue;
		group_id(t.hosts[i].metadata->group, &id);
		if (uid128_zero(&first))
			first = id;
		ck_assert(uid128_zero(&id) || uid128_eq(&id, &first));
	}
}

static node_id
node(unsigned id)
{
	return member_node(t.hosts[id].metadata->member);
}

static int
change(enum manager_op op, node_id a, node_id b)
{
	struct msg_metadata_change q = { .op = (uint8_t)op, .node = a, .with = b };

	return ask(MANAGER, MSG_metadata_change, &q)->rc;
}

static void
begin(void)
{
	for (unsigned i = 0; i < 3; i++)
		boot(META + i);
	ck_assert_uint_ne(leader(20000), 0);
	ck_assert(settles(3, 20000));
	for (unsigned i = 0; i < 3; i++)
		ck_assert(t.hosts[META + i].ready);
}

static void
setup(void)
{
	setup_seed(1);
	begin();
}

/* ---- who is in it ---- */

/* One founds alone, the next two make it three, a fourth waits. */
START_TEST(grows)
{
	setup_seed(2);
	boot(META);
	ck_assert_uint_eq(leader(5000), META);
	ck_assert_int_eq(mkdir_as(0, "a"), 0);
	boot(META + 1);
	run_ms(3000);
	ck_assert(t.hosts[META + 1].ready);
	ck_assert_uint_eq(voters(), 1);
	boot(META + 2);
	ck_assert(settles(3, 10000));
	boot(META + 3);
	run_ms(3000);
	ck_assert(t.hosts[META + 3].ready);
	ck_assert(group_blank(t.hosts[META + 3].metadata->group));
	ck_assert_uint_eq(voters(), 3);
	one_group();
	die(leader(1000));
	ck_assert_int_eq(lookup(0, "a"), 0);
}
END_TEST

/* Whatever becomes of the data of the one that founded, nobody founds again. */
START_TEST(founded_once)
{
	node_id first;

	setup_seed(3);
	boot(META);
	ck_assert_uint_eq(leader(5000), META);
	ck_assert_int_eq(mkdir_as(0, "a"), 0);
	first = node(META);
	die(META);
	run_ms(5000);
	boot(META + 1);				/* comes first now */
	run_ms(10000);
	ck_assert_uint_eq(leader(0), 0);
	ck_assert(group_blank(t.hosts[META + 1].metadata->group));
	wipe(META);
	boot(META);				/* as another node, with the old address */
	run_ms(10000);
	ck_assert_uint_eq(leader(0), 0);
	ck_assert(group_blank(t.hosts[META].metadata->group));
	ck_assert_int_eq(change(MANAGER_REPLACE, first, node(META)), -EEXIST);
	run_ms(10000);
	ck_assert_uint_eq(leader(0), 0);
}
END_TEST

/* A named founder that never comes: another is named by the operator. */
START_TEST(founder_never_comes)
{
	struct host *m = &t.hosts[META];
	node_id first;

	setup_seed(4);
	boot(META);
	while (member_node(m->metadata->member) == 0)
		sim_clock_step(t.world);
	first = node(META);
	die(META);				/* it registered, that is all */
	run_ms(5000);
	boot(META + 1);
	run_ms(5000);
	ck_assert_uint_eq(leader(0), 0);
	ck_assert_int_eq(change(MANAGER_REPLACE, first, node(META + 1)), 0);
	ck_assert_uint_eq(leader(5000), META + 1);
	ck_assert_int_eq(mkdir_as(0, "a"), 0);
	boot(META);
	run_ms(5000);
	ck_assert_uint_eq(leader(1000), META + 1);
	ck_assert_int_eq(lookup(0, "a"), 0);
}
END_TEST

/* A node that lost its data is somebody else; it takes the place of the one before. */
START_TEST(replaced)
{
	unsigned lost = leader(1000);
	node_id was = node(lost);
	char name[16];

	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		ck_assert_int_eq(mkdir_as(0, name), 0);
	}
	die(lost);
	ck_assert_uint_ne(leader(5000), 0);
	wipe(lost);
	boot(lost);
	run_ms(5000);
	ck_assert(t.hosts[lost].ready);
	ck_assert_uint_ne(node(lost), was);
	ck_assert(group_blank(t.hosts[lost].metadata->group));
	ck_assert_int_eq(change(MANAGER_REPLACE, was, node(lost)), 0);
	ck_assert_int_eq(change(MANAGER_REPLACE, was, node(lost)), -ENOENT);
	run_ms(5000);
	ck_assert(settles(3, 20000));
	ck_assert(!group_blank(t.hosts[lost].metadata->group));
	one_group();
	/* it counts: with it alone besides one other the group goes on */
	for (unsigned i = META; i < META + 3; i++)
		if (i != lost) {
			die(i);
			break;
		}
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		ck_assert_int_eq(lookup(0, name), 0);
	}
	ck_assert_int_eq(mkdir_as(0, "x"), 0);
}
END_TEST

/* Also when the log does not reach back that far: the table comes over. */
START_TEST(replaced_by_snapshot)
{
	unsigned lost = META + 1;
	node_id was = node(lost);
	char name[200];

	die(lost);
	wipe(lost);
	for (unsigned i = 0; i < 3000; i++) {
		memset(name, 'x', sizeof(name));
		snprintf(name + 150, 20, "%u", i);
		ck_assert_int_eq(mkdir_as(0, name), 0);
	}
	boot(lost);
	run_ms(2000);
	ck_assert_int_eq(change(MANAGER_REPLACE, was, node(lost)), 0);
	run_ms(1000);
	ck_assert(settles(3, 60000));
	ck_assert_uint_eq(t.hosts[lost].metadata->group->stat.snapshots_taken, 1);
	for (unsigned i = META; i < META + 3; i++)
		if (i != lost)
			die(i), boot(i);
	pause_host(leader(10000) == META ? META : META + 2, true);
	run_ms(3000);
	ck_assert_int_eq(lookup(0, name), 0);
}
END_TEST

START_TEST(added_and_removed)
{
	boot(META + 3);
	run_ms(3000);
	ck_assert_int_eq(change(MANAGER_ADD, node(META + 3), 0), 0);
	ck_assert_int_eq(change(MANAGER_ADD, node(META + 3), 0), -EEXIST);
	ck_assert_int_eq(change(MANAGER_ADD, 99, 0), -ENOENT);
	ck_assert_int_eq(change(MANAGER_ADD, member_node(
	    t.hosts[STORAGE].member), 0), -ENOENT);
	run_ms(1000);
	ck_assert(settles(4, 20000));
	for (unsigned left = 3; left > 0; left--) {
		unsigned id = leader(10000);

		ck_assert_int_eq(change(MANAGER_REMOVE, node(id), 0), 0);
		run_ms(3000);
		ck_assert(settles(left, 20000));
		ck_assert_uint_ne(leader(10000), id);
		ck_assert_int_eq(mkdir_as(0, left == 3 ? "a" : left == 2 ? "b" : "c"), 0);
	}
	ck_assert_int_eq(change(MANAGER_REMOVE, node(leader(1000)), 0), -EBUSY);
	/* it stays as it was told */
	run_ms(5000);
	ck_assert_uint_eq(voters(), 1);
}
END_TEST

/* ---- one fault at a time ---- */

/* Stopped for long and then not: it says nothing before it has found out. */
START_TEST(leader_is_stopped)
{
	struct msg_lookup q = { ctx(1, false), INO_ROOT, msg_str("b") };
	unsigned was = leader(1000);
	struct net_addr to = at(was);
	struct net_call_opts o = { .deadline_ns = 0 };
	struct ask a[8];

	ck_assert_int_eq(mkdir_as(0, "a"), 0);
	memset(a, 0, sizeof(a));
	pause_host(was, true);
	/* these wait at its door all the time */
	o.deadline_ns = clock_now(t.hosts[ASKER].clock) + 60 * NS_PER_S;
	for (unsigned i = 0; i < 8; i++) {
		msg_arena_init(&a[i].arena, 1 << 20);
		ck_assert_int_eq(net_call_start(&a[i].call, t.hosts[ASKER].hub, &to,
		    MSG_lookup, &q, &o, answered), 0);
	}
	run_ms(3000);
	ck_assert_uint_ne(leader(5000), was);
	ck_assert_int_eq(mkdir_as(0, "b"), 0);
	run_ms(27000);
	pause_host(was, false);
	run_ms(5000);
	for (unsigned i = 0; i < 8; i++) {
		ck_assert(a[i].done);
		ck_assert_int_ne(a[i].rc, -ENOENT);
		msg_arena_fini(&a[i].arena);
	}
	ck_assert_int_eq(lookup(1, "b"), 0);
}
END_TEST

/* Cut off with its clients: it knows in time that others may lead. */
START_TEST(leader_is_cut_off)
{
	struct msg_lookup q = { ctx(1, false), INO_ROOT, msg_str("b") };
	unsigned was = leader(1000);

	ck_assert_int_eq(mkdir_as(0, "a"), 0);
	for (unsigned i = META; i < META + METAS; i++)
		if (i != was)
			sim_net_cut(t.net, was, i, SIM_NET_SILENT);
	for (unsigned i = 0; i < 50 && (leader(0) == was || leader(0) == 0); i++) {
		int rc = ask(was, MSG_lookup, &q)->rc;

		ck_assert(rc == -ENOENT || !final(rc));
		run_ms(50);
	}
	ck_assert_int_eq(mkdir_as(0, "b"), 0);
	ck_assert(!final(ask(was, MSG_lookup, &q)->rc));
	sim_net_heal(t.net);
	run_ms(3000);
	ck_assert_int_eq(lookup(1, "b"), 0);
	ck_assert_uint_eq(voters(), 3);
}
END_TEST

static ino_id
create_open(unsigned client, const char *name, uint64_t handle)
{
	struct msg_create q = { ctx(client, true), INO_ROOT, msg_str(name), 0644,
		O_RDWR, handle };
	struct ask *a = insist(MSG_create, &q);

	ck_assert_int_eq(a->rc, 0);
	return a->rep.entry.attr.ino;
}

static struct msg_session_rep
tell(unsigned client, uint64_t epoch, ino_id ino, uint64_t handle)
{
	struct msg_open_row row = { ino, handle };
	struct msg_session q = { .client = ctx(client, false).client,
		.epoch = epoch, .opens = { &row, ino != 0 } };
	struct ask *a = insist(MSG_session, &q);

	ck_assert_int_eq(a->rc, 0);
	return a->rep.session;
}

/* A file without a name stays as long as it is open, whoever leads. */
START_TEST(open_files_survive)
{
	struct msg_session_rep s;
	struct msg_name rm = { { { { 0 } }, 0, 0, 0, 0, { NULL, 0 } }, INO_ROOT,
		msg_str("f") };
	struct msg_ino q;
	uint64_t epoch;
	ino_id ino;

	run_ms(2000);				/* chains */
	epoch = tell(0, 0, 0, 0).epoch;
	ino = create_open(0, "f", 7);
	rm.ctx = ctx(0, true);
	ck_assert_int_eq(insist(MSG_unlink, &rm)->rc, 0);
	for (unsigned round = 0; round < 3; round++) {
		unsigned was = leader(5000);

		die(was);
		ck_assert_uint_ne(leader(10000), 0);
		s = tell(0, epoch, ino, 7);
		ck_assert_uint_ne(s.epoch, epoch);
		ck_assert_uint_eq(s.gone.n, 0);
		ck_assert_uint_eq(s.ended, 0);
		epoch = s.epoch;
		(void)tell(0, epoch, ino, 7);
		boot(was);
		for (unsigned i = 0; i < 10; i++) {	/* two sessions long */
			run_ms(1000);
			(void)tell(0, epoch, 0, 0);
		}
		q = (struct msg_ino){ ctx(0, false), ino };
		ck_assert_int_eq(insist(MSG_getattr, &q)->rc, 0);
	}
	/* and goes when its client does */
	run_ms(15000);
	q = (struct msg_ino){ ctx(1, false), ino };
	(void)insist(MSG_getattr, &q);
	ck_assert_int_eq(ask(leader(1000), MSG_session, &(struct msg_session){
		.client = ctx(0, false).client, .epoch = epoch })->rep.session.ended, 1);
}
END_TEST

/* A clean stop of the leader is no election. */
START_TEST(clean_stop)
{
	unsigned was = leader(1000);
	struct host *h = &t.hosts[was];
	uint64_t began;

	ck_assert_int_eq(mkdir_as(0, "a"), 0);
	began = sim_clock_now(t.world);
	metadata_stop(h->metadata, on_stopped, h);
	while (!h->stopped)
		run_ms(10);
	ck_assert_uint_le(sim_clock_now(t.world) - began, NS_PER_S);
	ck_assert_uint_ne(leader(1000), 0);
	ck_assert_uint_le(sim_clock_now(t.world) - began, NS_PER_S);
	die(was);
	ck_assert_int_eq(lookup(0, "a"), 0);
}
END_TEST

#include "tests/metadata_load.h"

int
main(void)
{
	Suite *s = suite_create("metadata_group");
	TCase *m = tcase_create("members"), *f = tcase_create("faults"),
	    *r = tcase_create("random");
	const char *n = getenv("N"), *seed = getenv("SEED");
	SRunner *sr;
	int failed;

	tcase_set_timeout(m, 120);
	tcase_set_timeout(f, 120);
	tcase_set_timeout(r, 0);
	tcase_add_checked_fixture(m, NULL, teardown);
	tcase_add_test(m, grows);
	tcase_add_test(m, founded_once);
	tcase_add_test(m, founder_never_comes);
	suite_add_tcase(s, m);
	tcase_add_checked_fixture(f, setup, teardown);
	tcase_add_test(f, replaced);
	tcase_add_test(f, replaced_by_snapshot);
	tcase_add_test(f, added_and_removed);
	tcase_add_test(f, leader_is_stopped);
	tcase_add_test(f, leader_is_cut_off);
	tcase_add_test(f, open_files_survive);
	tcase_add_test(f, clean_stop);
	suite_add_tcase(s, f);
	tcase_add_checked_fixture(r, NULL, teardown);
	tcase_add_loop_test(r, any_seed, 0, seed != NULL && *seed != '\0' ? 1 :
	    n != NULL && *n != '\0' ? atoi(n) : 12);
	suite_add_tcase(s, r);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
