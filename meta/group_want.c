/* SPDX-License-Identifier: MIT */
/* group_want.c - the leader brings the members to what its owner wants, one change at a
 * time: each has to be committed before the next is proposed (the core sees to that). */
#include "meta/group_impl.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "conf/err.h"

#define WHO_NS	(500 * NS_PER_MS)	/* between two questions who is there */

/* The id of wanted member @i, 0: not known yet. */
static uint64_t
wanted_id(const struct group *g, const struct raft_members *m, unsigned i)
{
	const struct group_want *w = &g->want[i];

	if (w->id != 0)
		return w->id;
	for (unsigned k = 0; k < m->n; k++)
		if (net_addr_eq(&m->m[k].addr, &w->addr))
			return m->m[k].id;
	return g->found[i];
}

static void
who_done(struct net_call *c, int rc)
{
	struct group *g = container_of(c, struct group, who);
	const struct msg_who_rep *rep = c->rep;

	if (rc != 0 || g->want_at >= g->want_n)
		return;
	if (rep->member != 0 && (rep->blank || uid128_eq(&rep->group, &g->id)))
		g->found[g->want_at] = rep->member;
	else
		log_warn(g->conf.log, "not a member to be", "member=%016" PRIx64
		    " why=\"it is in another group\"", rep->member);
	group_want_drive(g);
}

/* Ask who is at the address of a member that is not known. */
static void
ask(struct group *g, unsigned i)
{
	struct msg_who w = { .number = g->conf.number };
	struct net_call_opts o = { .deadline_ns = group_now(g) + 2 * WHO_NS };

	if (g->conf.hub == NULL || net_call_active(&g->who) ||
	    group_now(g) < g->who_ns)
		return;
	g->who_ns = group_now(g) + WHO_NS;
	g->want_at = i;
	(void)net_call_start(&g->who, g->conf.hub, &g->want[i].addr, MSG_who, &w,
	    &o, who_done);
}

static bool
is_wanted(const struct group *g, const struct raft_members *m, uint64_t id)
{
	for (unsigned i = 0; i < g->want_n; i++)
		if (wanted_id(g, m, i) == id)
			return true;
	return false;
}

/* A member that is not wanted, ourselves last; m->n: none. */
static unsigned
unwanted(const struct group *g, const struct raft_members *m)
{
	unsigned at = m->n;

	for (unsigned k = 0; k < m->n; k++)
		if (!is_wanted(g, m, m->m[k].id) &&
		    (at == m->n || m->m[at].id == g->member))
			at = k;
	return at;
}

/* The next step from *m: true, and *m is what to propose.  *more: something is missing that
 * may come. */
static bool
next_step(struct group *g, struct raft_members *m, bool *more)
{
	struct raft_progress p;
	unsigned at;

	*more = false;
	for (unsigned i = 0; i < g->want_n; i++) {
		uint64_t id = wanted_id(g, m, i);
		struct raft_member *has = NULL;

		for (unsigned k = 0; k < m->n && id != 0; k++)
			if (m->m[k].id == id)
				has = &m->m[k];
		if (has == NULL && id == 0) {
			ask(g, i);
			*more = true;
		} else if (has == NULL && m->n < RAFT_MEMBERS_MAX) {
			m->m[m->n++] = (struct raft_member){ .id = id,
				.addr = g->want[i].addr };
			return true;
		} else if (has != NULL &&
		    !net_addr_eq(&has->addr, &g->want[i].addr)) {
			has->addr = g->want[i].addr;
			return true;
		} else if (has != NULL && !has->voter) {
			if (raft_progress(g->raft, group_now(g), id, &p) &&
			    p.caught_up) {
				has->voter = true;
				return true;
			}
			*more = true;
		}
	}
	at = unwanted(g, m);
	if (at == m->n || (*more && m->n < RAFT_MEMBERS_MAX))
		return false;
	if (m->m[at].id == g->member) {
		(void)group_transfer(g);
		return false;
	}
	memmove(&m->m[at], &m->m[at + 1], (m->n - at - 1) * sizeof(m->m[0]));
	m->n--;
	return true;
}

void
group_want_drive(struct group *g)
{
	struct raft_members to;
	uint64_t index;
	bool more;
	int rc;

	if (g->want_n == 0 || !g->leads || g->rc != 0 || g->half)
		return;
	group_order(g);
	if (!g->leads || g->rc != 0 || !raft_members_settled(g->raft))
		return;
	to = *raft_members(g->raft);
	if (!next_step(g, &to, &more) || !g->leads)
		return;
	rc = raft_change(g->raft, group_now(g), &to, &index);
	if (rc == 0)
		log_info(g->conf.log, "members change", "index=%" PRIu64 " n=%u",
		    index, to.n);
	else if (rc != ERR_BUSY)
		log_warn(g->conf.log, "members do not change", "error=%s",
		    err_name(rc));
	group_pump(g);
}

void
group_want(struct group *g, const struct group_want *want, unsigned n)
{
	assert(n <= RAFT_MEMBERS_MAX);
	if (n == g->want_n && memcmp(g->want, want, n * sizeof(*want)) == 0)
		return;
	net_call_cancel(&g->who);
	memcpy(g->want, want, n * sizeof(*want));
	memset(g->found, 0, sizeof(g->found));
	g->want_n = n;
	g->who_ns = 0;
	if (g->raft != NULL && g->rc == 0)
		group_pump(g);
	group_want_drive(g);
}
