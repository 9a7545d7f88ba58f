/* SPDX-License-Identifier: MIT */
/* test_manager_group.c - three managers, and nodes that beat, on simulated hosts: who leads,
 * what survives whom, and that no lease is extended by a manager that leads no more.
 * N=n runs n seeds of crashes, SEED=n just that one. */
#define MANAGERS 4u			/* hosts 1..4; the first three are configured */
#define NODES	 3u			/* hosts 5..7 */
#define ASKER	 8u
#define HOSTS	 9u
#define ASK_NS	 (2 * NS_PER_S)

#include "tests/host_rig.h"
#include "tests/suite.h"

static unsigned listed;			/* managers that are configured */
static bool mixed;			/* the third lists them the other way round */

static void
boot(unsigned id)
{
	struct host *h = &t.hosts[id];
	struct net_addr managers[MANAGERS], self = at(id);
	char name[16];

	for (unsigned i = 0; i < MANAGERS; i++)
		managers[i] = at(mixed && id == 3 && i < listed ?
		    listed - i : i + 1);
	host_up(id);
	if (id <= MANAGERS) {
		ck_assert_int_eq(manager_open(&h->manager, &h->env, "m", &self,
		    managers, listed, on_ready, h), 0);
	} else if (id != ASKER) {
		snprintf(name, sizeof(name), "n%u", id);
		ck_assert_int_eq(member_open(&h->member, &(struct member_conf){
			.clock = h->clock, .rand = &h->rand, .log = &h->env.log,
			.hub = h->hub, .managers = managers, .manager_n = MANAGERS,
			.roles = NODE_STORAGE, .name = name,
			.node_uid = { { 1, (uint8_t)id } },
			.boot = { { 2, (uint8_t)id, (uint8_t)h->boots } },
			.addrs = &self, .addr_n = 1, .disks = disks, .ctx = h }), 0);
	}
}

static void
setup_seed(uint64_t seed)
{
	hosts_open(seed);
	listed = 3;
	mixed = false;
	t.conf.manager_log_size = 1u << 20;
	t.conf.manager_lease = 3000;
	t.conf.manager_beat = 300;
	t.conf.cluster_election = 300;
	t.conf.cluster_replicas = 3;
	boot(ASKER);
}

/* Who leads and answers: 0 when nobody does within @ms. */
static unsigned
leader(unsigned ms)
{
	uint64_t end = sim_clock_now(t.world) + ms * NS_PER_MS;

	do {
		for (unsigned id = 1; id <= MANAGERS; id++)
			if (t.hosts[id].up && ask(id, MSG_managers,
			    &(struct msg_none){ 0 })->rc == 0)
				return id;
		run_ms(50);
	} while (sim_clock_now(t.world) < end);
	return 0;
}

/* "1 2 3*": members as the leader has them; ? learner, - on its way out. */
static const char *
members(void)
{
	static char out[256];
	struct ask *a;
	unsigned id = leader(5000);
	char *p = out;

	ck_assert_uint_ne(id, 0);
	a = ask(id, MSG_managers, &(struct msg_none){ 0 });
	if (a->rc != 0)
		return "?";
	*p = '\0';
	for (uint32_t i = 0; i < a->rep.managers.managers.n; i++) {
		const struct msg_manager_row *r = &a->rep.managers.managers.v[i];

		p += sprintf(p, "%s%.*s%s%s%s", i > 0 ? " " : "",
		    (int)r->addr.n - 6, r->addr.p + 4, r->leader ? "*" : "",
		    r->voter ? "" : "?", r->wanted ? "" : "-");
	}
	return out;
}

/* How many members there are in the end, all voters. */
static bool
settles(unsigned n, unsigned ms)
{
	uint64_t end = sim_clock_now(t.world) + ms * NS_PER_MS;

	while (sim_clock_now(t.world) < end) {
		unsigned id = leader(5000), good = 0;
		struct ask *a = id == 0 ? NULL : ask(id, MSG_managers,
		    &(struct msg_none){ 0 });

		for (uint32_t i = 0; a != NULL && a->rc == 0 &&
		    i < a->rep.managers.managers.n; i++)
			good += a->rep.managers.managers.v[i].voter &&
			    a->rep.managers.managers.v[i].wanted;
		if (good == n && a->rep.managers.managers.n == n)
			return true;
		run_ms(100);
	}
	return false;
}

static int
change(enum manager_op op, unsigned id, unsigned with)
{
	char a[NET_ADDR_TEXT], b[NET_ADDR_TEXT];
	struct net_addr x = at(id), y = at(with);
	struct msg_manager_change q = { .op = (uint8_t)op };

	net_addr_text(&x, a);
	net_addr_text(&y, b);
	q.addr = msg_str(a);
	q.with = msg_str(with != 0 ? b : "");
	return ask(leader(5000), MSG_manager_change, &q)->rc;
}

static bool
leased(unsigned id)
{
	const struct host *h = &t.hosts[id];

	return h->up && member_lease_until_ns(h->member) > clock_now(h->clock);
}

static bool
all_leased(void)
{
	return leased(5) && leased(6) && leased(7);
}

static void
begin(void)
{
	for (unsigned i = 1; i <= 3; i++)
		boot(i);
	ck_assert_uint_ne(leader(20000), 0);
	ck_assert(settles(3, 20000));
	for (unsigned i = 5; i <= 7; i++)
		boot(i);
	run_ms(2000);
	ck_assert(all_leased());
}

static void
setup(void)
{
	setup_seed(1);
	begin();
}

/* ---- tests ---- */

/* Nobody founds a group alone while another is not there, and three are one group. */
START_TEST(founded_together)
{
	setup_seed(2);
	boot(1);
	boot(2);
	run_ms(3000);
	ck_assert(t.hosts[1].ready && t.hosts[2].ready);
	ck_assert_uint_eq(leader(3000), 0);
	boot(3);
	ck_assert_uint_ne(leader(5000), 0);
	ck_assert_msg(settles(3, 10000), "%s", members());
}
END_TEST

/* In whatever order each of them has their addresses. */
START_TEST(founded_in_any_order)
{
	setup_seed(7 + (unsigned)_i);
	mixed = true;
	for (unsigned i = 3; i >= 1; i--)
		boot(i);
	ck_assert_uint_ne(leader(5000), 0);
	ck_assert_msg(settles(3, 10000), "%s", members());
}
END_TEST

/* The end of a manager costs no node its lease, and nothing is forgotten. */
START_TEST(failover)
{
	const struct routing *r = member_routing(t.hosts[5].member);
	unsigned was;

	ck_assert_uint_eq(routing_serving_n(routing_chain(r, 1)), 3);
	for (unsigned round = 0; round < 3; round++) {
		was = leader(5000);
		die(was);
		for (unsigned i = 0; i < 60; i++) {
			run_ms(100);
			ck_assert_msg(all_leased(), "round %u, %u ms", round, i * 100);
		}
		ck_assert_uint_ne(leader(1000), 0);
		ck_assert_uint_ne(leader(1000), was);
		r = member_routing(t.hosts[6].member);
		ck_assert_uint_eq(routing_chain(r, 1)->version, 1);
		ck_assert_uint_eq(routing_serving_n(routing_chain(r, 1)), 3);
		boot(was);
		run_ms(3000);
	}
	/* the new leader heals chains as the old one did */
	die(7);
	run_ms(6000);
	r = member_routing(t.hosts[5].member);
	ck_assert_uint_eq(routing_serving_n(routing_chain(r, 1)), 2);
	boot(7);
	run_ms(3000);
	ck_assert_uint_eq(routing_active_n(routing_chain(r, 1)), 3);
}
END_TEST

/* A clean stop hands over: nobody waits for an election. */
START_TEST(a_stop_hands_over)
{
	unsigned was = leader(5000);

	manager_stop(t.hosts[was].manager, on_stopped, &t.hosts[was]);
	run_ms(250);			/* less than any election time */
	ck_assert(t.hosts[was].stopped);
	die(was);
	ck_assert_uint_ne(leader(100), 0);
	ck_assert(all_leased());
}
END_TEST

/* A leader that is cut off from the others must not answer beats any more when another
 * may lead; nodes that only it can reach lose their lease in time. */
START_TEST(a_deposed_leader_extends_no_lease)
{
	unsigned was, now;
	uint64_t until;

	setup_seed(1);
	t.conf.manager_lease = 9000;	/* a beat waits a third of it for its answer */
	t.conf.cluster_election = 500;
	begin();
	was = leader(5000);
	for (unsigned i = 1; i <= 3; i++)
		if (i != was) {
			sim_net_cut(t.net, was, i, SIM_NET_SILENT);
			sim_net_cut(t.net, 5, i, SIM_NET_SILENT);
		}
	for (unsigned i = 6; i <= ASKER; i++)
		sim_net_cut(t.net, was, i, SIM_NET_SILENT);
	run_ms(150);
	/* It stands still, and finds a beat to answer before it can find out. */
	until = member_lease_until_ns(t.hosts[5].member);
	sim_clock_node_pause(t.hosts[was].clock, true);
	run_ms(100);
	now = leader(2000);
	ck_assert(now != 0 && now != was);
	sim_clock_node_pause(t.hosts[was].clock, false);
	run_ms(9000);
	ck_assert_uint_eq(member_lease_until_ns(t.hosts[5].member), until);
	ck_assert(!leased(5));
	ck_assert(leased(6) && leased(7));
	run_ms(4000);
	ck_assert_uint_eq(routing_node(member_routing(t.hosts[6].member),
	    member_node(t.hosts[5].member))->state, NODE_DOWN);
	sim_net_heal(t.net);
	run_ms(4000);
	ck_assert(all_leased());
	ck_assert_uint_eq(routing_active_n(routing_chain(member_routing(
	    t.hosts[5].member), 1)), 3);
}
END_TEST

START_TEST(no_majority_no_answer)
{
	unsigned was = leader(5000);

	for (unsigned i = 1; i <= 3; i++)
		if (i != was)
			die(i);
	run_ms(3000);
	ck_assert_uint_eq(leader(1000), 0);
	boot(was == 1 ? 2 : 1);
	ck_assert_uint_ne(leader(5000), 0);
}
END_TEST

START_TEST(managers_are_changed)
{
	unsigned was;

	ck_assert_int_eq(change(MANAGER_ADD, 2, 0), -EEXIST);
	ck_assert_int_eq(change(MANAGER_REMOVE, 4, 0), -ENOENT);
	ck_assert_int_ne(change(MANAGER_ADD, 4, 0), 0);		/* nobody there */
	boot(4);
	run_ms(1000);
	ck_assert_msg(settles(3, 1000), "%s", members());	/* not by itself */
	ck_assert_int_eq(change(MANAGER_ADD, 4, 0), 0);
	ck_assert_msg(settles(4, 10000), "%s", members());
	ck_assert_int_eq(change(MANAGER_REPLACE, 4, 2), -EEXIST);
	was = leader(5000);
	ck_assert_int_eq(change(MANAGER_REMOVE, was, 0), 0);	/* the leader itself */
	ck_assert_msg(settles(3, 10000), "%s", members());
	ck_assert_uint_ne(leader(5000), was);
	ck_assert(all_leased());
}
END_TEST

/* A manager that has lost its data is somebody else, and comes in when told to. */
START_TEST(a_wiped_manager_is_replaced)
{
	unsigned was = leader(5000) == 1 ? 2 : 1, third = 6 - was - leader(5000);

	die(was);
	wipe(was);
	boot(was);
	run_ms(5000);
	ck_assert_msg(settles(3, 1000), "%s", members());	/* the old one counts */
	die(third);
	run_ms(2000);
	ck_assert_uint_eq(leader(2000), 0);		/* and must not vote anew */
	boot(third);
	ck_assert_uint_ne(leader(5000), 0);
	ck_assert_int_eq(change(MANAGER_REPLACE, was, was), 0);
	ck_assert_msg(settles(3, 10000), "%s", members());
	die(third);
	run_ms(2000);
	ck_assert_uint_ne(leader(3000), 0);		/* now it does vote */
	ck_assert(all_leased());
}
END_TEST

/* Whatever dies, what a leader answered is never forgotten, and in the end all is well. */
START_TEST(any_weather)
{
	uint64_t routing_seen = 0;
	uint32_t chain_seen = 0;

	setup_seed(getenv("SEED") != NULL && *getenv("SEED") != '\0' ?
	    strtoull(getenv("SEED"), NULL, 0) : (uint64_t)_i + 10);
	begin();
	for (unsigned round = 0; round < 25; round++) {
		unsigned id = 1 + (unsigned)rand_below(&t.rand, 3);
		unsigned node = 5 + (unsigned)rand_below(&t.rand, 3);

		switch (rand_below(&t.rand, 5)) {
		case 0:
			if (t.hosts[id].up)
				die(id);
			else
				boot(id);
			break;
		case 1:
			sim_net_cut(t.net, id, 1 + (unsigned)rand_below(&t.rand, 7),
			    rand_chance(&t.rand, 1, 2) ? SIM_NET_SILENT :
			    SIM_NET_RESET);
			break;
		case 2:
			sim_net_heal(t.net);
			break;
		case 3:
			if (t.hosts[node].up)
				die(node);
			else
				boot(node);
			break;
		default:
			break;
		}
		run_ms(rand_below(&t.rand, 3000));
		for (unsigned i = 5; i <= 7; i++) {
			const struct routing_chain *c = !t.hosts[i].up ? NULL :
			    routing_chain(member_routing(t.hosts[i].member), 1);

			if (t.hosts[i].up)
				routing_check(member_routing(t.hosts[i].member));
			if (c != NULL && c->version > chain_seen)
				chain_seen = c->version;
			if (c != NULL && routing_version(member_routing(
			    t.hosts[i].member)) > routing_seen)
				routing_seen = routing_version(member_routing(
				    t.hosts[i].member));
		}
	}
	sim_net_heal(t.net);
	for (unsigned i = 1; i <= 7; i++)
		if (i != 4 && !t.hosts[i].up)
			boot(i);
	ck_assert_msg(settles(3, 30000), "%s", members());
	run_ms(10000);
	ck_assert(all_leased());
	for (unsigned i = 5; i <= 7; i++) {
		const struct routing *r = member_routing(t.hosts[i].member);

		ck_assert_uint_ge(routing_version(r), routing_seen);
		ck_assert_uint_ge(routing_chain(r, 1)->version, chain_seen);
		ck_assert_uint_ge(routing_serving_n(routing_chain(r, 1)), 1);
		ck_assert_uint_eq(routing_version(r), routing_version(
		    member_routing(t.hosts[5].member)));
	}
}
END_TEST

int
main(void)
{
	TCase *calm = tcase_create("calm"), *any = tcase_create("any");
	const char *n = getenv("N"), *seed = getenv("SEED");
	int seeds = n != NULL && atoi(n) > 0 ? atoi(n) : 30;

	tcase_add_checked_fixture(calm, setup, teardown);
	tcase_add_test(calm, failover);
	tcase_add_test(calm, a_stop_hands_over);
	tcase_add_test(calm, no_majority_no_answer);
	tcase_add_test(calm, managers_are_changed);
	tcase_add_test(calm, a_wiped_manager_is_replaced);
	tcase_add_checked_fixture(any, NULL, teardown);
	tcase_add_test(any, founded_together);
	tcase_add_test(any, a_deposed_leader_extends_no_lease);
	tcase_add_loop_test(any, founded_in_any_order, 0, 200);
	tcase_add_loop_test(any, any_weather, 0,
	    seed != NULL && *seed != '\0' ? 1 : seeds);
	tcase_set_timeout(calm, 120);
	tcase_set_timeout(any, 120);
	return suite_run_all("manager_group", calm, any, NULL);
}
