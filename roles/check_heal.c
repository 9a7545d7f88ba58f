/* SPDX-License-Identifier: MIT */
/* check_heal.c - members of the metadata group that differ from most take the table of the
 * leader, one after the other: it is told, done, and all are compared again. */
#include <errno.h>

#include "conf/err.h"
#include "roles/check_impl.h"

#define ROUNDS		3u
#define STUCK_NS	(60 * NS_PER_S)	/* without progress */

static void ask(struct clock_timer *t);

/* The one that the image is from first: it leads, mostly, and others would take its table. */
static struct check_member *
odd_one(struct check *c)
{
	for (unsigned i = 0; i < c->member_n; i++)
		if (c->members[i].odd && c->members[i].source)
			return &c->members[i];
	for (unsigned i = 0; i < c->member_n; i++)
		if (c->members[i].odd)
			return &c->members[i];
	return NULL;
}

/* The next one, or the end. */
static void
next(struct check *c)
{
	struct check_member *m = odd_one(c);

	if (m == NULL) {
		if (c->healed) {
			check_image_close(c);
			check_image_start(c);
		} else
			check_have_image(c);
		return;
	}
	c->heal_number = check_repair(c, "metadata node %u (%s) takes the table of the leader",
	    m->node, check_node_name(c, m->node));
	c->heal_pieces = 0;
	c->heal_ns = clock_now(c->env.clock);
	check_later(c, 0, ask);
}

static void
ended(struct check *c, struct check_member *m, int rc)
{
	check_repaired(c, c->heal_number, rc);
	c->healed |= rc == 0;
	m->odd = false;			/* or the next comparison says so again */
	next(c);
}

static void
answered(struct net_call *call, int rc)
{
	struct check_member *m = container_of(call, struct check_member, call);
	const struct msg_reload_rep *rep = call->rep;
	struct check *c = m->c;
	uint64_t now = clock_now(c->env.clock);

	if (rc == 0) {
		c->heard_ns = now;
		if (rep->done) {
			ended(c, m, 0);
			return;
		}
		if (rep->pieces != c->heal_pieces)
			c->heal_ns = now;
		c->heal_pieces = rep->pieces;
		rc = -ETIMEDOUT;	/* if it was the last answer */
	}
	if (err_next(rc) == ERR_NEXT_FAIL || rc == -ESTALE || rc == -EINVAL ||
	    now - c->heal_ns > STUCK_NS) {
		ended(c, m, rc);
		return;
	}
	check_later(c, CHECK_PAUSE_NS, ask);
}

static void
ask(struct clock_timer *t)
{
	struct check *c = container_of(t, struct check, timer);
	struct check_member *m = odd_one(c);
	struct msg_reload q = { .image = c->image };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(c->env.clock) + CHECK_ATTEMPT_NS
	};
	int rc = net_call_start(&m->call, c->env.hub, &m->addr, MSG_reload, &q, &opts,
	    answered);

	if (rc != 0)
		ended(c, m, rc);
}

void
check_heal_start(struct check *c)
{
	c->healed = false;
	if (!c->how.repair || odd_one(c) == NULL || c->heal_rounds == ROUNDS) {
		check_have_image(c);
		return;
	}
	c->heal_rounds++;
	next(c);
}
