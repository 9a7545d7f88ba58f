/* SPDX-License-Identifier: MIT */
/* member.c - calls that go on for ever: presence, poll, refresh.
 *
 *	presence   SEEKING --register--> JOINED --beat, beat, beat ...
 *	              ^------ ERR_STALE_NODE ------'     any: --leave--> LEAVING
 *	           a client is JOINED by its first answered client_beat
 *	poll       asks for routing newer than ours; the manager answers when there is,
 *	           or after POLL_WAIT_MS; then asks again
 *	refresh    the same without waiting, when somebody has seen newer routing
 *
 * One of the managers leads, and only it serves.  Which one, nobody is told: who fails us
 * is passed over for the next one at once, until all have been asked; then there is a
 * pause.  A manager that neither answers nor refuses (stopped, cut off) must not eat our
 * lease: a presence call without an answer when the next one is due has a second one sent
 * to the next manager beside it.  Whoever answers is the one that all three ask from
 * then on.
 *
 * Invariants
 *  1. lease_until is the sending time of an answered beat plus the lease, or 0; it goes
 *     back only to 0, when the manager says that the lease is another's, and on leaving.
 *     It counts only for who acts on routing as new as that answer spoke of, or as we
 *     have promised: a node that was cut off must not serve by the chains of before.  An
 *     answer that is ahead of our routing is kept until that has caught up.
 *  2. Presence has its timer running, or two calls in flight and `due` set; poll and
 *     refresh have either their call in flight or their timer running, or it is the
 *     refresh and nobody has asked for one; after leave only presence goes on.
 *  3. A failure moves on to the next manager once, whichever call saw it. */
#include "net/member.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "conf/version.h"
#include "net/msg_all.h"

#define POLL_WAIT_MS	10000u	/* what a poll asks the manager to wait, at most */
#define POLL_EXTRA_MS	3000u	/* and for the answer to come back */
#define POLL_PAUSE_MS	100u	/* after an answer that came early with nothing */
#define REFRESH_MS	20u	/* between two refreshes */
#define CALL_MS		2000u	/* refresh, a client's beat */
#define REGISTER_MS	10000u	/* it may be held until our last process is dead */
#define PATIENCE_MS	500u	/* without an answer: another manager is asked, too */
#define LEAVE_MS	1000u
#define BACKOFF_MS	20u	/* first pause; doubles with every round of managers */
#define BACKOFF_MAX_MS	2000u
#define STALE_MS	5000u		/* until a refused process comes back as another */
#define NOWHERE		MEMBER_MANAGERS_MAX
#define LOG_PAUSE_MS	1000u	/* between two lines about failures */
#define LOG_ROUNDS	4u	/* all managers were asked so often in vain */
#define BEAT_MIN_MS	10u	/* bounds of what a manager may ask for */
#define BEAT_MAX_MS	600000u
#define LEASE_MAX_MS	3600000u

enum member_state { SEEKING, JOINED, LEAVING };

/* One call, again and again. */
struct asker {
	struct member	  *m;
	struct net_call	   call;
	struct clock_timer timer;	/* of beats[]: not used */
	uint64_t	   sent_ns;
	unsigned	   to;		/* manager it was sent to */
	unsigned	   failures;	/* in a row; of beats[]: not used */
};

/* A lease that counts from some routing version on. */
struct grant {
	uint64_t until_ns;		/* 0: none */
	uint64_t routing;
};

struct member {
	struct member_conf conf;	/* its pointers are ours */
	struct net_addr	   managers[MEMBER_MANAGERS_MAX];
	char		  *name, *mount;
	char		 (*addrs)[NET_ADDR_TEXT];
	struct routing	  *routing;

	enum member_state  state;
	struct asker	   beats[2];	/* presence */
	unsigned	   newest;	/* of them, the one sent last */
	struct clock_timer presence_timer;
	bool		   due;		/* presence, as soon as a call has ended */
	unsigned	   failures;	/* of presence, in a row */
	struct asker	   poll, refresh;
	bool		   refresh_wanted;
	unsigned	   manager;	/* the one that is asked */
	unsigned	   found;	/* 1 + the one that last answered; 0: none */
	int		   last_rc;	/* so that a failure is logged once, */
	uint64_t	   logged_ns;	/* and changing ones not too often */

	node_id		   node;
	uint32_t	   lease_ms, beat_ms;
	_Atomic uint64_t   lease_until_ns, lease_routing;
	struct grant	   held, newest_held; /* the first, and the last one after it */
	uint64_t	   told_version; /* of routing, by the last beat */
	uint64_t	   total_bytes, used_bytes;

	struct clock_defer changed;
	struct clock_defer left;
	void		 (*leave_fn)(void *);
	void		  *leave_ctx;
	uint64_t	   leave_ns;	/* no goodbye after that */
	unsigned	   leave_tries;
};

static void presence_send(struct member *m);
static void poll_send(struct member *m);
static void refresh_send(struct member *m);

/* ---- helpers ---- */

static uint64_t
now(const struct member *m)
{
	return clock_now(m->conf.clock);
}

static void
run_changed(struct clock_defer *d)
{
	struct member *m = container_of(d, struct member, changed);

	m->conf.changed(m->conf.ctx);		/* may close m */
}

static void
tell_changed(struct member *m)
{
	if (m->conf.changed != NULL && m->state != LEAVING)
		clock_defer(m->conf.clock, &m->changed, run_changed);
}

/* Pause before attempt number @failures + 1: none until all managers have been asked,
 * then longer with every round; half of it is random, so that a restarted manager is not
 * met by everybody at once. */
static uint64_t
backoff_ns(const struct member *m, unsigned failures, uint64_t max_ms)
{
	unsigned rounds = failures / m->conf.manager_n;
	uint64_t ms = (uint64_t)BACKOFF_MS << (rounds < 8 ? rounds : 8);

	if (failures % m->conf.manager_n != 0)
		return 0;
	if (ms > max_ms)
		ms = max_ms;
	return ms * NS_PER_MS / 2 +
	    rand_below(m->conf.rand, ms * NS_PER_MS / 2 + 1);
}

/* Invariant 3: only who was sent to the manager of today moves on from it. */
static void
try_next_manager(struct member *m, const struct asker *a)
{
	if (a->to == m->manager)
		m->manager = (m->manager + 1) % m->conf.manager_n;
}

static void
note_failure(struct member *m, struct asker *a, const char *what, int rc)
{
	char text[NET_ADDR_TEXT];

	/* That another one leads is nothing to tell. */
	if (rc != m->last_rc && rc != ERR_NOT_LEADER && (m->logged_ns == 0 ||
	    now(m) >= m->logged_ns + LOG_PAUSE_MS * NS_PER_MS)) {
		m->logged_ns = now(m);
		net_addr_text(&m->managers[a->to], text);
		log_warn(m->conf.log, "manager does not serve",
		    "call=%s manager=%s error=%s", what, text, err_name(rc));
		m->last_rc = rc;
	}
	if (rc != ERR_BUSY && rc != ERR_STALE_NODE)
		try_next_manager(m, a);
}

/* Send, or fail as the call would.  Returns 0 when @fn will run. */
static int
ask(struct member *m, struct asker *a, uint16_t method, const void *req,
    uint64_t within_ms, net_call_fn *fn)
{
	struct net_call_opts opts = { 0 };

	assert(!net_call_active(&a->call));
	clock_timer_stop(m->conf.clock, &a->timer);
	a->sent_ns = now(m);
	a->to = m->manager;
	opts.deadline_ns = a->sent_ns + within_ms * NS_PER_MS;
	return net_call_start(&a->call, m->conf.hub, &m->managers[a->to], method,
	    req, &opts, fn);
}

static void
stop(struct asker *a)
{
	net_call_cancel(&a->call);
	clock_timer_stop(a->m->conf.clock, &a->timer);
}

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
	    now(m) >= a->sent_ns + patience_ns(m);
}

/* Routing comes from the one that leads now, and what failed elsewhere need not wait. */
static bool
elsewhere(const struct member *m, const struct asker *a)
{
	return a->to != m->manager &&
	    (net_call_active(&a->call) || a->failures > 0);
}

static void
follow(struct member *m)
{
	if (elsewhere(m, &m->poll)) {
		stop(&m->poll);
		m->poll.failures = 0;
		poll_send(m);
	}
	if (elsewhere(m, &m->refresh)) {
		stop(&m->refresh);
		m->refresh.failures = 0;
		refresh_send(m);
	}
}

/* @a was answered by who leads, or says so. */
static void
note_success(struct member *m, struct asker *a)
{
	m->found = a->to + 1;
	m->last_rc = 0;
	m->manager = a->to;
	follow(m);
}

/* ---- presence ---- */

static void
presence_due(struct clock_timer *t)
{
	presence_send(container_of(t, struct member, presence_timer));
}

static void
presence_at(struct member *m, uint64_t at_ns)
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

static void lease_lost(struct member *m);

static void
presence_failed(struct member *m, struct asker *a, int rc)
{
	bool newest = a == &m->beats[m->newest];
	uint64_t max_ms = BACKOFF_MAX_MS;

	note_failure(m, a, m->state == JOINED ? "beat" : "register", rc);
	if (rc == ERR_STALE_NODE && m->state == JOINED) {
		/* Somebody registered this node over us, or the manager has lost us.
		 * Until it is settled the disks may be another's. */
		log_error(m->conf.log, "registered by another process",
		    "node=%" PRIu32, m->node);
		lease_lost(m);
		m->state = SEEKING;
		stop(&m->beats[0]);
		stop(&m->beats[1]);
		newest = true;
		tell_changed(m);
	} else if (rc == ERR_STALE_NODE) {
		/* A registration of a process before us came late, after ours, and now
		 * ours counts as the older one; or somebody else runs on our directory,
		 * who is not to be put out again at once. */
		rand_bytes(m->conf.rand, &m->conf.boot, sizeof(m->conf.boot));
		log_warn(m->conf.log, "taken for a process of before, comes back as a "
		    "new one", "node=%" PRIu32, m->node);
		m->due = false;
		presence_at(m, now(m) + STALE_MS * NS_PER_MS);
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
	presence_at(m, now(m) + backoff_ns(m, m->failures, max_ms));
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
	note_success(m, a);
	stop(&m->beats[a == &m->beats[0]]);
	m->state = JOINED;
	m->node = rep->node;
	m->lease_ms = clamp(rep->lease_ms, 1, LEASE_MAX_MS);
	m->beat_ms = clamp(rep->beat_ms, BEAT_MIN_MS, BEAT_MAX_MS);
	if (m->beat_ms > m->lease_ms / 3)
		m->beat_ms = clamp(m->lease_ms / 3, 1, BEAT_MAX_MS);
	log_info(m->conf.log, "registered", "node=%" PRIu32 " lease_ms=%" PRIu32
	    " beat_ms=%" PRIu32, m->node, m->lease_ms, m->beat_ms);
	if (fresh)
		tell_changed(m);
	presence_send(m);		/* the first beat wins the lease */
}

static void
lease_lost(struct member *m)
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
	if (was <= now(m) && g->until_ns > now(m)) {
		log_info(m->conf.log, "lease won", "node=%" PRIu32, m->node);
		tell_changed(m);
	}
}

/* Our routing is newer than it was. */
static void
lease_catch_up(struct member *m)
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
	note_success(m, a);
	m->failures = 0;
	/* Twice told of newer routing that no poll has brought, or no lease without it. */
	if (m->told_version > routing_version(m->routing) ||
	    (m->held.until_ns != 0 && atomic_load(&m->lease_until_ns) <= now(m)))
		member_refresh(m);
	m->told_version = routing;
	if (other->sent_ns <= a->sent_ns)
		stop(other);		/* it can tell us nothing more */
	if (presence_waits(m) || a != &m->beats[m->newest])
		return;
	presence_at(m, a->sent_ns + beat_ns -
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

static int
client_beat_send(struct member *m, struct asker *a, uint8_t leaving,
    uint64_t within_ms, net_call_fn *fn)
{
	struct msg_client_beat req = { .client = m->conf.client,
		.host = msg_str(m->name), .mount = msg_str(m->mount),
		.pid = m->conf.pid, .release = msg_str(FSD_RELEASE),
		.leaving = leaving };

	return ask(m, a, MSG_client_beat, &req, within_ms, fn);
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
	return ask(m, a, MSG_register, &req, REGISTER_MS, presence_answered);
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
	return ask(m, a, MSG_beat, &req, beat_within_ms(m), presence_answered);
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
		    now(m) < other->sent_ns + 2 * patience_ns(m))
			try_next_manager(m, other);
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
		rc = client_beat_send(m, a, 0, CALL_MS, presence_answered);
	else if (m->state == SEEKING)
		rc = register_send(m, a, disks, disk_n);
	else
		rc = beat_send(m, a, disks, disk_n);
	if (rc != 0)
		presence_failed(m, a, rc);
	else
		presence_at(m, a->sent_ns + patience_ns(m));
}

void
member_beat_now(struct member *m)
{
	if (m->state == JOINED && m->conf.roles != 0)
		presence_at(m, now(m));
}

void
member_promise(struct member *m)
{
	uint64_t version = routing_version(m->routing);

	if (version > atomic_load(&m->lease_routing))
		atomic_store(&m->lease_routing, version);
	member_beat_now(m);
}

/* ---- routing ---- */

/* 0, or why the answer is as good as none. */
static int
take_routing(struct member *m, const struct msg_routing_rep *rep)
{
	uint64_t was = routing_version(m->routing);
	int rc = routing_apply(m->routing, rep);

	if (rc == -EXDEV && m->last_rc != rc)
		log_error(m->conf.log, "manager of another cluster", "%s", "");
	if (rc == 0 && routing_version(m->routing) != was) {
		tell_changed(m);
		lease_catch_up(m);
	}
	return rc;
}

static void
poll_due(struct clock_timer *t)
{
	poll_send(container_of(t, struct member, poll.timer));
}

static void
poll_at(struct member *m, uint64_t at_ns)
{
	clock_timer_start(m->conf.clock, &m->poll.timer, at_ns, poll_due);
}

static void
poll_failed(struct member *m, int rc)
{
	m->poll.failures++;
	note_failure(m, &m->poll, "routing", rc);
	poll_at(m, now(m) + backoff_ns(m, m->poll.failures, BACKOFF_MAX_MS));
}

static void
poll_answered(struct net_call *call, int rc)
{
	struct member *m = container_of(call, struct member, poll.call);
	uint64_t was = routing_version(m->routing);

	if (rc == 0)
		rc = take_routing(m, call->rep);
	if (rc != 0) {
		poll_failed(m, rc);
		return;
	}
	m->poll.failures = 0;
	m->found = m->poll.to + 1;
	/* A manager that does not wait must not make us spin. */
	if (routing_version(m->routing) == was &&
	    now(m) < m->poll.sent_ns + POLL_WAIT_MS / 2 * NS_PER_MS)
		poll_at(m, now(m) + POLL_PAUSE_MS * NS_PER_MS);
	else
		poll_send(m);
}

static void
poll_send(struct member *m)
{
	struct msg_routing req = { routing_version(m->routing), POLL_WAIT_MS };
	int rc = ask(m, &m->poll, MSG_routing, &req, POLL_WAIT_MS + POLL_EXTRA_MS,
	    poll_answered);

	if (rc != 0)
		poll_failed(m, rc);
}

static void
refresh_due(struct clock_timer *t)
{
	refresh_send(container_of(t, struct member, refresh.timer));
}

/* The refresh that is wanted, as soon as the pace allows; or @pause_ns from now. */
static void
refresh_schedule(struct member *m, uint64_t pause_ns)
{
	uint64_t at = m->refresh.sent_ns + REFRESH_MS * NS_PER_MS;

	if (at < now(m) + pause_ns)
		at = now(m) + pause_ns;
	clock_timer_start(m->conf.clock, &m->refresh.timer, at, refresh_due);
}

static void
refresh_failed(struct member *m, int rc)
{
	m->refresh.failures++;
	note_failure(m, &m->refresh, "routing", rc);
	m->refresh_wanted = true;
	refresh_schedule(m, backoff_ns(m, m->refresh.failures, BACKOFF_MAX_MS));
}

static void
refresh_answered(struct net_call *call, int rc)
{
	struct member *m = container_of(call, struct member, refresh.call);

	if (rc == 0)
		rc = take_routing(m, call->rep);
	if (rc != 0) {
		refresh_failed(m, rc);
		return;
	}
	m->refresh.failures = 0;
	note_success(m, &m->refresh);
	if (m->refresh_wanted)		/* asked for while this one was away */
		refresh_schedule(m, 0);
}

static void
refresh_send(struct member *m)
{
	struct msg_routing req = { routing_version(m->routing), 0 };
	int rc;

	m->refresh_wanted = false;
	rc = ask(m, &m->refresh, MSG_routing, &req, m->conf.manager_n == 1 ?
	    CALL_MS : PATIENCE_MS, refresh_answered);
	if (rc != 0)
		refresh_failed(m, rc);
}

void
member_refresh(struct member *m)
{
	if (m->refresh_wanted || m->state == LEAVING)
		return;
	m->refresh_wanted = true;
	if (!net_call_active(&m->refresh.call))
		refresh_schedule(m, 0);
}

/* ---- leaving ---- */

static void
run_left(struct clock_defer *d)
{
	struct member *m = container_of(d, struct member, left);

	m->leave_fn(m->leave_ctx);		/* may close m */
}

static bool	goodbye_send(struct member *m);

static void
goodbye_answered(struct net_call *call, int rc)
{
	struct asker *a = container_of(call, struct asker, call);
	struct member *m = a->m;

	if (rc != 0 && err_next(rc) == ERR_NEXT_REFRESH) {
		try_next_manager(m, a);
		if (goodbye_send(m))
			return;
	}
	if (rc != 0)
		log_warn(m->conf.log, "left without an answer", "error=%s",
		    err_name(rc));
	run_left(&m->left);
}

/* Each manager once, while there is time; false: fn will not run. */
static bool
goodbye_send(struct member *m)
{
	struct asker *a = &m->beats[0];
	struct msg_goodbye req = { m->node, m->conf.boot };
	uint64_t ms;

	if (m->leave_tries == m->conf.manager_n || m->leave_ns <= now(m))
		return false;
	ms = (m->leave_ns - now(m) + NS_PER_MS - 1) / NS_PER_MS;
	if (++m->leave_tries < m->conf.manager_n && ms > PATIENCE_MS)
		ms = PATIENCE_MS;
	if (m->conf.roles == 0)
		return client_beat_send(m, a, 1, ms, goodbye_answered) == 0;
	return ask(m, a, MSG_goodbye, &req, ms, goodbye_answered) == 0;
}

static void
stop_all(struct member *m)
{
	stop(&m->beats[0]);
	stop(&m->beats[1]);
	clock_timer_stop(m->conf.clock, &m->presence_timer);
	stop(&m->poll);
	stop(&m->refresh);
	clock_undefer(m->conf.clock, &m->changed);
}

void
member_leave(struct member *m, void (*fn)(void *ctx), void *ctx)
{
	bool known = m->state == JOINED;

	assert(m->state != LEAVING);
	m->state = LEAVING;
	m->leave_fn = fn;
	m->leave_ctx = ctx;
	m->leave_ns = now(m) + LEAVE_MS * NS_PER_MS;
	lease_lost(m);			/* before anyone may take over */
	stop_all(m);
	if (!known || !goodbye_send(m))
		clock_defer(m->conf.clock, &m->left, run_left);
}

/* ---- open, close, questions ---- */

static bool
bounded(const struct member_conf *c)
{
	return c->manager_n >= 1 && c->manager_n <= MEMBER_MANAGERS_MAX &&
	    c->addr_n <= ROUTING_LOOPS_MAX &&
	    (c->name == NULL || strlen(c->name) < sizeof(((struct
	    routing_node *)0)->name)) &&
	    (c->mount == NULL || strlen(c->mount) < 4096);
}

static int
copy_conf(struct member *m, const struct member_conf *conf)
{
	m->conf = *conf;
	memcpy(m->managers, conf->managers,
	    conf->manager_n * sizeof(*conf->managers));
	m->name = strdup(conf->name != NULL ? conf->name : "");
	m->mount = strdup(conf->mount != NULL ? conf->mount : "");
	m->addrs = calloc(conf->addr_n + 1, sizeof(*m->addrs));
	if (m->name == NULL || m->mount == NULL || m->addrs == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < conf->addr_n; i++)
		net_addr_text(&conf->addrs[i], m->addrs[i]);
	m->conf.managers = m->managers;
	m->conf.name = m->name;
	m->conf.mount = m->mount;
	m->conf.addrs = NULL;			/* only their text is used */
	return 0;
}

int
member_open(struct member **out, const struct member_conf *conf)
{
	struct member *m;
	int rc;

	*out = NULL;
	if (!bounded(conf))
		return -EINVAL;
	if ((m = calloc(1, sizeof(*m))) == NULL)
		return -ENOMEM;
	m->beats[0].m = m->beats[1].m = m->poll.m = m->refresh.m = m;
	atomic_init(&m->lease_routing, 0);
	atomic_init(&m->lease_until_ns, 0);
	atomic_init(&m->lease_routing, 0);
	if ((rc = copy_conf(m, conf)) != 0 ||
	    (rc = routing_open(&m->routing)) != 0) {
		member_close(m);
		return rc;
	}
	/* Not everybody begins at the first manager. */
	m->manager = (unsigned)rand_below(conf->rand, conf->manager_n);
	/* From the loop: the owner may not be ready for questions (disks) yet. */
	presence_at(m, now(m));
	poll_at(m, now(m));
	*out = m;
	return 0;
}

void
member_close(struct member *m)
{
	if (m == NULL)
		return;
	stop_all(m);
	clock_undefer(m->conf.clock, &m->left);
	routing_close(m->routing);
	free(m->name);
	free(m->mount);
	free(m->addrs);
	free(m);
}

const struct routing *
member_routing(const struct member *m)
{
	return m->routing;
}

const struct uid128 *
member_boot(const struct member *m)
{
	return &m->conf.boot;
}

node_id
member_node(const struct member *m)
{
	return m->node;
}

uint64_t
member_lease_until_ns(const struct member *m)
{
	return atomic_load(&m->lease_until_ns);
}

uint64_t
member_lease_routing(const struct member *m)
{
	return atomic_load(&m->lease_routing);
}

uint32_t
member_lease_ms(const struct member *m)
{
	return m->lease_ms;
}

void
member_space(const struct member *m, uint64_t *total_bytes, uint64_t *used_bytes)
{
	*total_bytes = m->total_bytes;
	*used_bytes = m->used_bytes;
}

void
member_manager(const struct member *m, struct net_addr *out)
{
	*out = (struct net_addr){ .kind = NET_ADDR_NONE };
	if (m->found != 0)
		*out = m->managers[m->found - 1];
}
