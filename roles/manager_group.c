/* SPDX-License-Identifier: MIT */
/* manager_group.c - the managers among themselves: how their group is founded, who is to
 * be in it, and how the operator changes that.
 *
 *	BLANK --- the lowest of manager.addresses, and all others say: blank ---> founds it
 *	BLANK --- the leader of a group was told to take it in ----------------> follows
 *
 * Who is to be a manager is a row of the state: the configured addresses to begin with, then
 * what operators make of it.  Whoever leads brings the group there.  A manager that has
 * lost its data comes back blank, as somebody else: it never finds its way in by itself,
 * since it could vote against what it had promised before. */
#include "roles/manager_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "conf/err.h"

#define ASK_MS	500u			/* between two questions */
#define TAKEN_MS 5000u			/* a founder takes the others in sooner */

/* ---- founding ---- */

static void found_due(struct clock_timer *t);

/* One of the listed addresses is the founder's: the same one in whatever order they are
 * listed here and there. */
static bool
founder(const struct manager *m)
{
	char own[NET_ADDR_TEXT], other[NET_ADDR_TEXT];
	bool listed = false;

	net_addr_text(&m->self, own);
	for (unsigned i = 0; i < m->peer_n; i++) {
		net_addr_text(&m->peers[i], other);
		if (strcmp(other, own) < 0)
			return false;
		listed |= strcmp(other, own) == 0;
	}
	return listed;
}

static void
ask_again(struct manager *m)
{
	clock_timer_start(m->env.clock, &m->found_timer, clock_fresh(m->env.clock) +
	    ASK_MS * NS_PER_MS, found_due);
}

static void
found(struct manager *m)
{
	int rc = group_found(m->group);

	if (rc == 0)
		log_info(&m->env.log, "group of managers founded", "managers=%u",
		    m->peer_n);
	else
		ask_again(m);		/* it still opens */
}

static void
found_answer(struct net_call *c, int rc)
{
	struct manager *m = container_of(c, struct manager, who_call);
	const struct msg_who_rep *rep = c->rep;

	if (!group_blank(m->group))
		return;
	if (rc == 0 && !rep->blank && m->blank_ns == 0)
		m->blank_ns = clock_fresh(m->env.clock);
	if (rc == 0 && !rep->blank && !m->told_blank &&
	    clock_fresh(m->env.clock) - m->blank_ns >= TAKEN_MS * NS_PER_MS) {
		char text[NET_ADDR_TEXT];

		m->told_blank = true;
		net_addr_text(&m->peers[m->found_at], text);
		log_warn(&m->env.log, "no data, but there is a group of managers: "
		    "waits for fsd admin manager add or replace", "manager=%s", text);
	}
	if (rc != 0 || !rep->blank) {
		m->found_at = 0;
		ask_again(m);
		return;
	}
	m->found_at++;
	found_due(&m->found_timer);
}

/* The next of the others; when all were asked one after another and are blank, the founder
 * founds the group. */
static void
found_due(struct clock_timer *t)
{
	struct manager *m = container_of(t, struct manager, found_timer);
	struct msg_who q = { .number = 0 };
	struct net_call_opts o = { .deadline_ns = clock_fresh(m->env.clock) +
		2 * ASK_MS * NS_PER_MS };

	if (net_call_active(&m->who_call))
		return;
	if (!group_blank(m->group)) {
		if (group_members(m->group)->n == 0)
			ask_again(m);		/* it still opens */
		return;
	}
	if (m->found_at < m->peer_n &&
	    net_addr_eq(&m->peers[m->found_at], &m->self))
		m->found_at++;
	if (m->found_at >= m->peer_n) {
		m->found_at = 0;
		if (founder(m))
			found(m);
		else
			ask_again(m);
		return;
	}
	if (net_call_start(&m->who_call, m->env.hub, &m->peers[m->found_at], MSG_who,
	    &q, &o, found_answer) != 0)
		ask_again(m);
}

void
manager_group_open(struct manager *m)
{
	bool listed = false;

	for (unsigned i = 0; i < m->peer_n; i++)
		listed |= net_addr_eq(&m->peers[i], &m->self);
	if (m->peer_n > 0 && !listed)
		log_warn(&m->env.log, "not in manager.addresses: waits to be added by "
		    "fsd admin manager", "%s", "");
	if (m->peer_n > 0)
		clock_timer_start(m->env.clock, &m->found_timer,
		    clock_fresh(m->env.clock), found_due);
}

void
manager_group_close(struct manager *m)
{
	clock_timer_stop(m->env.clock, &m->found_timer);
	net_call_cancel(&m->who_call);
	net_call_cancel(&m->change_call);
	if (m->change_req != NULL)
		net_req_drop(m->change_req);
	m->change_req = NULL;
}

/* ---- who is to be in it ---- */

static void
drive(struct manager *m)
{
	struct group_want want[MANAGER_MEMBERS_MAX];

	for (unsigned i = 0; i < m->state.manager_n; i++)
		want[i] = (struct group_want){ m->state.managers[i].id,
			m->state.managers[i].addr };
	group_want(m->group, want, m->state.manager_n);
}

static void
listed(struct manager_call *c, int rc, uint64_t value)
{
	struct manager *m = c->m;
	struct net_req *req = m->change_req;

	(void)value;
	m->changing = false;
	m->change_req = NULL;
	if (rc == 0 && m->phase == MANAGER_SERVING)
		drive(m);
	if (req != NULL)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

static int
propose_list(struct manager *m, const struct manager_member *list, unsigned n)
{
	struct bytes_writer w;
	uint8_t buf[1024];
	int rc;

	bytes_writer_init(&w, buf, sizeof(buf));
	manager_cmd_managers(&w, list, n);
	rc = manager_propose(m, NULL, 0, &w, listed);
	m->changing = rc == 0;
	return rc;
}

void
manager_group_lead(struct manager *m)
{
	struct manager_member list[MANAGER_MEMBERS_MAX];

	if (m->state.manager_n > 0) {
		drive(m);
		return;
	}
	/* We have just founded it, or were the only one until now. */
	if (m->peer_n < 2 || !founder(m) ||
	    group_members(m->group)->n > 1)
		return;
	for (unsigned i = 0; i < m->peer_n; i++)
		list[i] = (struct manager_member){ .addr = m->peers[i] };
	if (propose_list(m, list, m->peer_n) != 0)
		log_warn(&m->env.log, "managers are not listed", "%s", "");
}

void
manager_group_follow(struct manager *m, int rc)
{
	if (m->change_req != NULL && net_call_active(&m->change_call)) {
		net_call_cancel(&m->change_call);
		net_reply(m->change_req, rc, NULL, NULL, 0, NULL, NULL);
		m->change_req = NULL;
		m->changing = false;
	}
}

/* ---- the operator ---- */

/* The list as it is, from the group when nobody has changed it yet. */
static unsigned
current(const struct manager *m, struct manager_member *out)
{
	const struct raft_members *r = group_members(m->group);

	if (m->state.manager_n > 0) {
		memcpy(out, m->state.managers,
		    m->state.manager_n * sizeof(*out));
		return m->state.manager_n;
	}
	for (unsigned i = 0; i < r->n; i++)
		out[i] = (struct manager_member){ r->m[i].id, r->m[i].addr };
	return r->n;
}

/* Change the list by @op; @id is who answers at the new address.  0 or why not. */
static int
change(const struct manager *m, const struct msg_manager_change *q, uint64_t id,
    struct manager_member *list, unsigned *n)
{
	struct net_addr addr, with = { 0 };
	unsigned at = 0;

	*n = current(m, list);
	if (net_addr_parse(q->addr.p, q->addr.n, &addr, NULL) != 0 ||
	    (q->op == MANAGER_REPLACE &&
	    net_addr_parse(q->with.p, q->with.n, &with, NULL) != 0))
		return -EINVAL;
	while (at < *n && !net_addr_eq(&list[at].addr, &addr))
		at++;
	switch (q->op) {
	case MANAGER_ADD:
		if (at < *n)
			return -EEXIST;
		if (*n == MANAGER_MEMBERS_MAX)
			return -ENOSPC;
		list[(*n)++] = (struct manager_member){ id, addr };
		return 0;
	case MANAGER_REMOVE:
		if (at == *n)
			return -ENOENT;
		if (*n == 1)
			return -EBUSY;		/* the only one */
		memmove(&list[at], &list[at + 1], (--*n - at) * sizeof(*list));
		return 0;
	case MANAGER_REPLACE:
		if (at == *n)
			return -ENOENT;
		for (unsigned i = 0; i < *n; i++)
			if (i != at && net_addr_eq(&list[i].addr, &with))
				return -EEXIST;
		list[at] = (struct manager_member){ id, with };
		return 0;
	default:
		return -EINVAL;
	}
}

static void
change_answer(struct net_call *c, int rc)
{
	struct manager *m = container_of(c, struct manager, change_call);
	const struct msg_manager_change *q = m->change_req->msg;
	const struct msg_who_rep *rep = c->rep;
	struct manager_member list[MANAGER_MEMBERS_MAX];
	unsigned n;

	if (rc == 0 && (!rep->blank || rep->member == 0))
		rc = -EBUSY;		/* it is in a group, this one or another */
	if (rc == 0)
		rc = change(m, q, rep->member, list, &n);
	if (rc == 0)
		rc = propose_list(m, list, n);
	if (rc != 0) {
		struct net_req *req = m->change_req;

		m->changing = false;
		m->change_req = NULL;
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
	}
}

void
manager_group_change(struct manager *m, struct net_req *req)
{
	const struct msg_manager_change *q = req->msg;
	struct manager_member list[MANAGER_MEMBERS_MAX];
	struct net_call_opts o = { .deadline_ns = clock_fresh(m->env.clock) + NS_PER_S };
	struct msg_who who = { .number = 0 };
	unsigned n;
	int rc = m->changing ? ERR_BUSY : change(m, q, 0, list, &n);

	if (rc == 0) {
		m->change_req = req;
		m->changing = true;
		if (q->op == MANAGER_REMOVE)
			rc = propose_list(m, list, n);
		else {		/* who is there?  It must be somebody new. */
			struct net_addr to;

			(void)net_addr_parse(q->op == MANAGER_ADD ? q->addr.p :
			    q->with.p, q->op == MANAGER_ADD ? q->addr.n : q->with.n,
			    &to, NULL);
			rc = net_call_start(&m->change_call, m->env.hub, &to,
			    MSG_who, &who, &o, change_answer);
		}
		if (rc == 0)
			return;
		m->change_req = NULL;
		m->changing = false;
	}
	net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

void
manager_group_list(struct manager *m, struct net_req *req)
{
	const struct raft_members *r = group_members(m->group);
	struct msg_manager_row rows[RAFT_MEMBERS_MAX];
	char text[RAFT_MEMBERS_MAX][NET_ADDR_TEXT];
	struct msg_managers_rep rep = { .managers = { rows, r->n } };

	for (unsigned i = 0; i < r->n; i++) {
		bool wanted = m->state.manager_n == 0;

		net_addr_text(&r->m[i].addr, text[i]);
		for (unsigned k = 0; k < m->state.manager_n; k++)
			wanted |= m->state.managers[k].id == 0 ?
			    net_addr_eq(&m->state.managers[k].addr, &r->m[i].addr) :
			    m->state.managers[k].id == r->m[i].id;
		rows[i] = (struct msg_manager_row){ .member = r->m[i].id,
			.addr = msg_str(text[i]), .voter = r->m[i].voter,
			.leader = r->m[i].id == group_member(m->group),
			.wanted = wanted };
	}
	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
}
