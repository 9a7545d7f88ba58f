/* SPDX-License-Identifier: MIT */
/* member_beat.c - presence: register, beat, and the lease that an answered beat is.  States and
 * invariants are in net/member.c. */
#include "net/member_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "conf/err.h"
#include "conf/version.h"

#define REGISTER_MS	10000u	/* it may be held until our last process is dead */
#define STALE_MS	5000u	/* until a refused process comes back as another */
#define LOG_ROUNDS	4u	/* all managers were asked so often in vain */
#define BEAT_MIN_MS	10u	/* bounds of what a manager may ask for */
#define BEAT_MAX_MS	600000u
#define LEASE_MAX_MS	3600000u

static void presence_send(struct member *m);

/* ---- the lease ---- */

void
member_lease_lost(struct member *m)
{
	atomic_store(&m->lease_until_ns, 0);
	m->held = m->newest_held = (struct grant){ 0 };
}

/* Readers load the time first: they never see it without its version. */
static void
lease_take(struct member *m, const struct grant *g)
{
	uint64_t was = atomic_load(&m->lease_until_ns);

	if (g->until_ns <= was)
		return;
	if (g->routing > atomic_load(&m->lease_routing))
		atomic_store(&m->lease_routing, g->routing);
	atomic_store(&m->lease_until_ns, g->until_ns);
	if (was <= member_now(m) && g->until_ns > member_now(m)) {
		log_info(m->conf.log, "lease won", "node=%" PRIu32, m->node);
		member_tell_changed(m);
	}
}

void
member_lease_catch_up(struct member *m)
{
	while (m->held.until_ns != 0 &&
	    m->held.routing <= routing_version(m->routing)) {
		lease_take(m, &m->held);
		m->held = m->newest_held;
		m->newest_held = (struct grant){ 0 };
	}
}

/* While routing keeps changing there is always one that is ahead of us: so the first that
 * was kept stays until we have reached it. */
static void
lease_grant(struct member *m, const struct grant *g)
{
	struct grant *kept = m->held.until_ns == 0 ? &m->held : &m->newest_held;

	if (g->routing <= routing_version(m->routing))
		lease_take(m, g);
	else if (g->until_ns > kept->until_ns)
		*kept = *g;
}

/* ---- presence ---- */

/* How long a call of presence may go without an answer before another manager is asked:
 * a server's beats go on in their own time. */
static uint64_t
patience_ns(const struct member *m)
{
	return m->conf.roles != 0 && m->state == JOINED ?
	    m->beat_ms * NS_PER_MS : PATIENCE_MS * NS_PER_MS;
}

static bool
overdue(const struct member *m, const struct asker *a)
{
	return net_call_active(&a->call) &&
	    member_now(m) >= a->sent_ns + patience_ns(m);
}

static void
presence_due(struct clock_timer *t)
{
	presence_send(container_of(t, struct member, presence_timer));
}

void
member_presence_at(struct member *m, uint64_t at_ns)
{
	clock_timer_start(m->conf.clock, &m->presence_timer, at_ns, presence_due);
}

/* A beat that has no answer is given up while there is time for two more. */
static uint64_t
beat_within_ms(const struct member *m)
{
	uint64_t ms = m->lease_ms / 3;

	return ms < BEAT_MIN_MS ? BEAT_MIN_MS : ms;
}

/* The end of @a, whichever it was: what waited for a free call goes on. */
static bool
presence_waits(struct member *m)
{
	if (!m->due)
		return false;
	presence_send(m);
	return true;
}

static void
presence_failed(struct member *m, struct asker *a, int rc)
{
	bool newest = a == &m->beats[m->newest];
	uint64_t max_ms = BACKOFF_MAX_MS;

	member_note_failure(m, a, m->state == JOINED ? "beat" : "register", rc);
	if (rc == ERR_STALE_NODE && m->state == JOINED) {
		/* Somebody registered this node over us, or the manager has lost us.
		 * Until it is settled the disks may be another's. */
		log_error(m->conf.log, "registered by another process",
		    "node=%" PRIu32, m->node);
		member_lease_lost(m);
		m->state = SEEKING;
		member_stop(&m->beats[0]);
		member_stop(&m->beats[1]);
		newest = true;
		member_tell_changed(m);
	} else if (rc == ERR_STALE_NODE) {
		/* A registration of a process before us came late, after ours, and now
		 * ours counts as the older one; or somebody else runs on our directory,
		 * who is not to be put out again at once. */
		rand_bytes(m->conf.rand, &m->conf.boot, sizeof(m->conf.boot));
		log_warn(m->conf.log, "taken for a process of before, comes back as a "
		    "new one", "node=%" PRIu32, m->node);
		m->due = false;
		member_presence_at(m, member_now(m) + STALE_MS * NS_PER_MS);
		return;
	}
	if (m->state == JOINED && m->beat_ms < max_ms)
		max_ms = m->beat_ms;
	if (!newest && net_call_active(&m->beats[m->newest].call)) {
		presence_waits(m);	/* a later one is on its way */
		return;
	}
	if (!newest)			/* it was with who led until now */
		m->failures = 0;
	if (++m->failures == LOG_ROUNDS * m->conf.manager_n)
		log_warn(m->conf.log, "no manager serves", "managers=%u error=%s",
		    m->conf.manager_n, err_name(rc));
	m->due = false;
	member_presence_at(m, member_now(m) + member_backoff_ns(m, m->failures, max_ms));
}

static uint32_t
clamp(uint32_t v, uint32_t min, uint32_t max)
{
	return v < min ? min : v > max ? max : v;
}

static void
registered(struct member *m, struct asker *a, const struct msg_register_rep *rep)
{
	const struct uid128 *ours = routing_cluster(m->routing);
	bool fresh = m->node != rep->node;

	if (rep->node == 0 || rep->lease_ms == 0 ||
	    (!uid128_zero(ours) && !uid128_eq(ours, &rep->cluster))) {
		presence_failed(m, a, rep->node == 0 || rep->lease_ms == 0 ?
		    ERR_BAD_MESSAGE : -EXDEV);
		return;
	}
	/* The pause between two processes that fight for one node grows until a beat is
	 * taken: failures are kept. */
	member_note_success(m, a);
	member_stop(&m->beats[a == &m->beats[0]]);
	m->state = JOINED;
	m->node = rep->node;
	m->lease_ms = clamp(rep->lease_ms, 1, LEASE_MAX_MS);
	m->beat_ms = clamp(rep->beat_ms, BEAT_MIN_MS, BEAT_MAX_MS);
	if (m->beat_ms > m->lease_ms / 3)
		m->beat_ms = clamp(m->lease_ms / 3, 1, BEAT_MAX_MS);
	log_info(m->conf.log, "registered", "node=%" PRIu32 " lease_ms=%" PRIu32
	    " beat_ms=%" PRIu32, m->node, m->lease_ms, m->beat_ms);
	if (fresh)
		member_tell_changed(m);
	presence_send(m);		/* the first beat wins the lease */
}

static void
beat_answered(struct member *m, const struct asker *a,
    const struct msg_beat_rep *rep)
{
	struct grant g = { a->sent_ns + m->lease_ms * NS_PER_MS, rep->routing };

	lease_grant(m, &g);
	m->total_bytes = rep->total_bytes;
	m->used_bytes = rep->used_bytes;
}

/* After an answered beat of either kind: the next one, and is the poll alive? */
static void
beat_on(struct member *m, struct asker *a, uint64_t routing)
{
	struct asker *other = &m->beats[a == &m->beats[0]];
	uint64_t beat_ns = m->beat_ms * NS_PER_MS;

	/* They may wait on a connection that is gone, or be forgotten. */
	if (m->failures > 0)
		m->poll.to = m->refresh.to = NOWHERE;
	member_note_success(m, a);
	m->failures = 0;
	/* Twice told of newer routing that no poll has brought, or no lease without it. */
	if (m->told_version > routing_version(m->routing) ||
	    (m->held.until_ns != 0 && atomic_load(&m->lease_until_ns) <= member_now(m)))
		member_refresh(m);
	m->told_version = routing;
	if (other->sent_ns <= a->sent_ns)
		member_stop(other);		/* it can tell us nothing more */
	if (presence_waits(m) || a != &m->beats[m->newest])
		return;
	member_presence_at(m, a->sent_ns + beat_ns -
	    rand_below(m->conf.rand, beat_ns / 8 + 1));
}

static void
presence_answered(struct net_call *call, int rc)
{
	struct asker *a = container_of(call, struct asker, call);
	struct member *m = a->m;

	if (rc != 0)
		presence_failed(m, a, rc);
	else if (m->conf.roles == 0) {
		const struct msg_client_beat_rep *rep = call->rep;

		m->state = JOINED;
		m->beat_ms = clamp(rep->beat_ms, BEAT_MIN_MS, BEAT_MAX_MS);
		beat_on(m, a, rep->routing);
	} else if (m->state == SEEKING)
		registered(m, a, call->rep);
	else {
		const struct msg_beat_rep *rep = call->rep;
		struct msg_heard rows[MEMBER_AWAITED_MAX];
		uint32_t n = rep->heard.n < MEMBER_AWAITED_MAX ? rep->heard.n :
		    MEMBER_AWAITED_MAX;

		if (n > 0)		/* the call may be used again in beat_on() */
			memcpy(rows, rep->heard.v, n * sizeof(*rows));
		beat_answered(m, a, rep);
		beat_on(m, a, rep->routing);
		if (n > 0 && m->conf.heard != NULL)
			m->conf.heard(m->conf.ctx, rows, n);
	}
}

int
member_client_beat_send(struct member *m, struct asker *a, uint8_t leaving,
    uint64_t within_ms, net_call_fn *fn)
{
	struct msg_client_beat req = { .client = m->conf.client,
		.host = msg_str(m->name), .mount = msg_str(m->mount),
		.pid = m->conf.pid, .release = msg_str(FSD_RELEASE),
		.leaving = leaving };

	return member_ask(m, a, MSG_client_beat, &req, within_ms, fn);
}

static int
register_send(struct member *m, struct asker *a, struct msg_disk_info *disks,
    unsigned disk_n)
{
	struct msg_str addrs[ROUTING_LOOPS_MAX];
	struct msg_register req = { .node_uid = m->conf.node_uid,
		.boot = m->conf.boot, .name = msg_str(m->name),
		.roles = m->conf.roles, .addrs = { addrs, m->conf.addr_n },
		.disks = { disks, disk_n }, .release = msg_str(FSD_RELEASE),
		.member = m->conf.member };

	for (unsigned i = 0; i < m->conf.addr_n; i++)
		addrs[i] = msg_str(m->addrs[i]);
	return member_ask(m, a, MSG_register, &req, REGISTER_MS, presence_answered);
}

static int
beat_send(struct member *m, struct asker *a, struct msg_disk_info *disks,
    unsigned disk_n)
{
	struct msg_sync_status syncs[MEMBER_SYNCS_MAX];
	struct msg_group_status groups[MEMBER_GROUPS_MAX];
	struct msg_neighbour neighbours[MEMBER_NEIGHBOURS_MAX];
	uint32_t awaited[MEMBER_AWAITED_MAX];
	struct msg_beat req = { .node = m->node, .boot = m->conf.boot,
		.disks = { disks, disk_n }, .syncs = { syncs, 0 },
		.groups = { groups, 0 }, .neighbours = { neighbours, 0 },
		.routing = atomic_load(&m->lease_routing),
		.awaited = { awaited, 0 } };

	if (m->conf.syncs != NULL)
		req.syncs.n = m->conf.syncs(m->conf.ctx, syncs, MEMBER_SYNCS_MAX);
	if (m->conf.neighbours != NULL)
		req.neighbours.n = m->conf.neighbours(m->conf.ctx, neighbours,
		    MEMBER_NEIGHBOURS_MAX);
	assert(req.syncs.n <= MEMBER_SYNCS_MAX);
	assert(req.neighbours.n <= MEMBER_NEIGHBOURS_MAX);
	if (m->conf.awaited != NULL)
		req.awaited.n = m->conf.awaited(m->conf.ctx, awaited,
		    MEMBER_AWAITED_MAX);
	assert(req.awaited.n <= MEMBER_AWAITED_MAX);
	if (m->conf.groups != NULL)
		req.groups.n = m->conf.groups(m->conf.ctx, groups,
		    MEMBER_GROUPS_MAX);
	assert(req.groups.n <= MEMBER_GROUPS_MAX);
	return member_ask(m, a, MSG_beat, &req, beat_within_ms(m), presence_answered);
}

/* The free call of presence, after moving on from a manager that has the other one and
 * owes its answer (it is asked once more when the others know of no leader either); NULL:
 * it has to wait. */
static struct asker *
presence_free(struct member *m)
{
	struct asker *a = &m->beats[m->newest], *other;

	if (net_call_active(&a->call))
		a = &m->beats[1 - m->newest];
	other = &m->beats[a == &m->beats[0]];
	if (net_call_active(&a->call))
		return NULL;
	if (overdue(m, other)) {
		if (m->conf.manager_n == 1)
			return NULL;
		if (m->failures + 1 < m->conf.manager_n ||
		    member_now(m) < other->sent_ns + 2 * patience_ns(m))
			member_try_next(m, other);
	}
	return a;
}

static void
presence_send(struct member *m)
{
	struct msg_disk_info disks[MEMBER_DISKS_MAX];
	struct asker *a = presence_free(m);
	unsigned disk_n = 0;
	int rc;

	m->due = a == NULL;
	if (a == NULL)
		return;
	m->newest = (unsigned)(a - m->beats);
	if (m->conf.roles != 0 && m->conf.disks != NULL) {
		disk_n = m->conf.disks(m->conf.ctx, disks, MEMBER_DISKS_MAX);
		assert(disk_n <= MEMBER_DISKS_MAX);
	}
	if (m->conf.roles == 0)
		rc = member_client_beat_send(m, a, 0, CALL_MS, presence_answered);
	else if (m->state == SEEKING)
		rc = register_send(m, a, disks, disk_n);
	else
		rc = beat_send(m, a, disks, disk_n);
	if (rc != 0)
		presence_failed(m, a, rc);
	else
		member_presence_at(m, a->sent_ns + patience_ns(m));
}

void
member_beat_now(struct member *m)
{
	if (m->state == JOINED && m->conf.roles != 0)
		member_presence_at(m, member_now(m));
}

void
member_promise(struct member *m)
{
	uint64_t version = routing_version(m->routing);

	if (version > atomic_load(&m->lease_routing))
		atomic_store(&m->lease_routing, version);
	member_beat_now(m);
}
