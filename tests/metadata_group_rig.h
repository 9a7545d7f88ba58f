/* SPDX-License-Identifier: MIT */
/* metadata_group_rig.h - a manager and metadata nodes on simulated hosts, for tests of their
 * group: production code; a storage node only beats. */
#ifndef TESTS_METADATA_GROUP_RIG_H
#define TESTS_METADATA_GROUP_RIG_H

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

static inline int
mkdir_as(unsigned client, const char *name)
{
	struct msg_mknod q = { ctx(client, true), INO_ROOT, msg_str(name), 0755, 0 };

	return insist(MSG_mkdir, &q)->rc;
}

static inline int
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

static inline bool
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
static inline void
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

static inline node_id
node(unsigned id)
{
	return member_node(t.hosts[id].metadata->member);
}

static inline int
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

#endif
