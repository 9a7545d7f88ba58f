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
 * Presence is in net/member_beat.c, poll and refresh in net/member_routing.c; here is which
 * manager they ask, and how it begins and ends.
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
#include "net/member_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

#define LEAVE_MS	1000u
#define BACKOFF_MS	20u	/* first pause; doubles with every round of managers */
#define LOG_PAUSE_MS	1000u	/* between two lines about failures */

/* ---- who is asked ---- */

static void
run_changed(struct clock_defer *d)
{
	struct member *m = container_of(d, struct member, changed);

	m->conf.changed(m->conf.ctx);		/* may close m */
}

void
member_tell_changed(struct member *m)
{
	if (m->conf.changed != NULL && m->state != LEAVING)
		clock_defer(m->conf.clock, &m->changed, run_changed);
}

uint64_t
member_backoff_ns(const struct member *m, unsigned failures, uint64_t max_ms)
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

void
member_try_next(struct member *m, const struct asker *a)
{
	if (a->to == m->manager)
		m->manager = (m->manager + 1) % m->conf.manager_n;
}

void
member_note_failure(struct member *m, struct asker *a, const char *what, int rc)
{
	char text[NET_ADDR_TEXT];

	/* That another one leads is nothing to tell. */
	if (rc != m->last_rc && rc != ERR_NOT_LEADER && (m->logged_ns == 0 ||
	    member_now(m) >= m->logged_ns + LOG_PAUSE_MS * NS_PER_MS)) {
		m->logged_ns = member_now(m);
		net_addr_text(&m->managers[a->to], text);
		log_warn(m->conf.log, "manager does not serve",
		    "call=%s manager=%s error=%s", what, text, err_name(rc));
		m->last_rc = rc;
	}
	if (rc != ERR_BUSY && rc != ERR_STALE_NODE)
		member_try_next(m, a);
}

int
member_ask(struct member *m, struct asker *a, uint16_t method, const void *req,
    uint64_t within_ms, net_call_fn *fn)
{
	struct net_call_opts opts = { 0 };

	assert(!net_call_active(&a->call));
	clock_timer_stop(m->conf.clock, &a->timer);
	a->sent_ns = member_now(m);
	a->to = m->manager;
	opts.deadline_ns = a->sent_ns + within_ms * NS_PER_MS;
	return net_call_start(&a->call, m->conf.hub, &m->managers[a->to], method,
	    req, &opts, fn);
}

void
member_stop(struct asker *a)
{
	net_call_cancel(&a->call);
	clock_timer_stop(a->m->conf.clock, &a->timer);
}

void
member_note_success(struct member *m, struct asker *a)
{
	m->found = a->to + 1;
	m->last_rc = 0;
	m->manager = a->to;
	member_follow(m);
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
		member_try_next(m, a);
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

	if (m->leave_tries == m->conf.manager_n || m->leave_ns <= member_now(m))
		return false;
	ms = (m->leave_ns - member_now(m) + NS_PER_MS - 1) / NS_PER_MS;
	if (++m->leave_tries < m->conf.manager_n && ms > PATIENCE_MS)
		ms = PATIENCE_MS;
	if (m->conf.roles == 0)
		return member_client_beat_send(m, a, 1, ms, goodbye_answered) == 0;
	return member_ask(m, a, MSG_goodbye, &req, ms, goodbye_answered) == 0;
}

static void
stop_all(struct member *m)
{
	member_stop(&m->beats[0]);
	member_stop(&m->beats[1]);
	clock_timer_stop(m->conf.clock, &m->presence_timer);
	member_stop(&m->poll);
	member_stop(&m->refresh);
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
	m->leave_ns = member_now(m) + LEAVE_MS * NS_PER_MS;
	member_lease_lost(m);			/* before anyone may take over */
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
	member_presence_at(m, member_now(m));
	member_poll_at(m, member_now(m));
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
