/* SPDX-License-Identifier: MIT */
/* member_routing.c - routing, as new as the managers have it: poll and refresh.  Invariants are in
 * net/member.c. */
#include "net/member_impl.h"

#include <errno.h>

#include "conf/err.h"

#define POLL_WAIT_MS	10000u	/* what a poll asks the manager to wait, at most */
#define POLL_EXTRA_MS	3000u	/* and for the answer to come back */
#define POLL_PAUSE_MS	100u	/* after an answer that came early with nothing */
#define REFRESH_MS	20u	/* between two refreshes */

static void poll_send(struct member *m);
static void refresh_send(struct member *m);

/* 0, or why the answer is as good as none. */
static int
take_routing(struct member *m, const struct msg_routing_rep *rep)
{
	uint64_t was = routing_version(m->routing);
	int rc = routing_apply(m->routing, rep);

	if (rc == -EXDEV && m->last_rc != rc)
		log_error(m->conf.log, "manager of another cluster", "%s", "");
	if (rc == 0 && routing_version(m->routing) != was) {
		member_tell_changed(m);
		member_lease_catch_up(m);
	}
	return rc;
}

static void
poll_due(struct clock_timer *t)
{
	poll_send(container_of(t, struct member, poll.timer));
}

void
member_poll_at(struct member *m, uint64_t at_ns)
{
	clock_timer_start(m->conf.clock, &m->poll.timer, at_ns, poll_due);
}

static void
poll_failed(struct member *m, int rc)
{
	m->poll.failures++;
	member_note_failure(m, &m->poll, "routing", rc);
	member_poll_at(m, member_now(m) +
	    member_backoff_ns(m, m->poll.failures, BACKOFF_MAX_MS));
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
	    member_now(m) < m->poll.sent_ns + POLL_WAIT_MS / 2 * NS_PER_MS)
		member_poll_at(m, member_now(m) + POLL_PAUSE_MS * NS_PER_MS);
	else
		poll_send(m);
}

static void
poll_send(struct member *m)
{
	struct msg_routing req = { routing_version(m->routing), POLL_WAIT_MS };
	int rc = member_ask(m, &m->poll, MSG_routing, &req, POLL_WAIT_MS + POLL_EXTRA_MS,
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

	if (at < member_now(m) + pause_ns)
		at = member_now(m) + pause_ns;
	clock_timer_start(m->conf.clock, &m->refresh.timer, at, refresh_due);
}

static void
refresh_failed(struct member *m, int rc)
{
	m->refresh.failures++;
	member_note_failure(m, &m->refresh, "routing", rc);
	m->refresh_wanted = true;
	refresh_schedule(m, member_backoff_ns(m, m->refresh.failures, BACKOFF_MAX_MS));
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
	member_note_success(m, &m->refresh);
	if (m->refresh_wanted)		/* asked for while this one was away */
		refresh_schedule(m, 0);
}

static void
refresh_send(struct member *m)
{
	struct msg_routing req = { routing_version(m->routing), 0 };
	int rc;

	m->refresh_wanted = false;
	rc = member_ask(m, &m->refresh, MSG_routing, &req, m->conf.manager_n == 1 ?
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

/* ---- another one leads ---- */

static bool
elsewhere(const struct member *m, const struct asker *a)
{
	return a->to != m->manager &&
	    (net_call_active(&a->call) || a->failures > 0);
}

void
member_follow(struct member *m)
{
	if (elsewhere(m, &m->poll)) {
		member_stop(&m->poll);
		m->poll.failures = 0;
		poll_send(m);
	}
	if (elsewhere(m, &m->refresh)) {
		member_stop(&m->refresh);
		m->refresh.failures = 0;
		refresh_send(m);
	}
}
