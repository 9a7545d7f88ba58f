/* SPDX-License-Identifier: MIT */
/* check_mend.c - metadata is asked to mend what is wrong with the tree: some rows at a time,
 * each told before and after.  A request has a number, so that a retry does not act twice. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "conf/err.h"
#include "roles/check_impl.h"

static void send(struct clock_timer *t);

/* ---- in words ---- */

static void
describe(const struct msg_repair_row *r, char *out, size_t cap)
{
	const char *name = r->name.p;
	int n = (int)r->name.n;

	switch ((enum meta_repair)r->what) {
	case META_REPAIR_ROOT:
		snprintf(out, cap, "make the root its own parent, or anew");
		break;
	case META_REPAIR_ENTRY:
		snprintf(out, cap, "remove entry %.*s of %" PRIu64 ", which leads to "
		    "%" PRIu64, n, name, r->parent, r->ino);
		break;
	case META_REPAIR_EXTRA:
		snprintf(out, cap, "remove entry %.*s of %" PRIu64 ": directory %" PRIu64
		    " is in %" PRIu64, n, name, r->parent, r->ino,
		    r->ino == INO_ROOT ? r->ino : r->value);
		break;
	case META_REPAIR_KEY:
		snprintf(out, cap, "put entry %.*s of %" PRIu64 " where it is looked up",
		    n, name, r->parent);
		break;
	case META_REPAIR_TYPE:
		snprintf(out, cap, "give entry %.*s of %" PRIu64 " the type of inode %"
		    PRIu64, n, name, r->parent, r->ino);
		break;
	case META_REPAIR_PARENT:
		snprintf(out, cap, "make %" PRIu64 " the parent of directory %" PRIu64,
		    r->parent, r->ino);
		break;
	case META_REPAIR_COUNTS:
		snprintf(out, cap, "count what is in directory %" PRIu64 " anew", r->ino);
		break;
	case META_REPAIR_LINKS:
		snprintf(out, cap, "set nlink of %" PRIu64 " to %" PRIu64, r->ino,
		    r->value);
		break;
	case META_REPAIR_LOST:
		snprintf(out, cap, "put %" PRIu64 " into /lost+found as #%" PRIu64,
		    r->ino, r->ino);
		break;
	case META_REPAIR_CYCLE:
		snprintf(out, cap, "take directory %" PRIu64 " out of %" PRIu64
		    ", which is below it, and put it into /lost+found as #%" PRIu64,
		    r->ino, r->parent, r->ino);
		break;
	case META_REPAIR_TARGET:
		snprintf(out, cap, "make symlink %" PRIu64 " as long as its target, or "
		    "remove a target without one", r->ino);
		break;
	case META_REPAIR_PENDING:
		snprintf(out, cap, "make what is pending for %" PRIu64
		    " fit to its epoch", r->ino);
		break;
	case META_REPAIR_COUNTERS:
		snprintf(out, cap, "count inodes anew; the next one is over %" PRIu64,
		    r->value);
		break;
	case META_REPAIR_DIRECTORY:
		snprintf(out, cap, "make an inode for directory %" PRIu64 " again, mode "
		    "0700, user 0", r->ino);
		break;
	case META_REPAIR_NONE:
		break;
	}
}

static void
tell(struct check *c, struct check_fix *fix)
{
	char text[640] = "";

	if (fix->told)
		return;
	describe(&fix->row, text, sizeof(text));
	fix->number = check_repair(c, "%s", text);
	fix->told = true;
}

/* ---- one request ---- */

static void
drop(struct check *c, struct check_fix *fix)
{
	c->fix_n--;
	list_remove(&fix->node);
	free(fix);
}

/* Those that come next, as many as one request takes. */
static void
pick(struct check *c)
{
	c->sent_n = 0;
	while (!list_empty(&c->fixes) && c->sent_n < META_REPAIRS_MAX) {
		struct check_fix *fix = list_entry(c->fixes.next, struct check_fix,
		    node);

		if (!check_may_mend(c, fix)) {
			drop(c, fix);	/* it stays, and is told as left */
			continue;
		}
		tell(c, fix);
		list_remove(&fix->node);
		list_push_back(&c->sent, &fix->node);
		c->rows[c->sent_n++] = fix->row;
	}
}

/* What was not looked at goes first the next time. 0 or ERR_BAD_MESSAGE. */
static int
results(struct check *c, const struct msg_repair_rep *rep)
{
	struct list later, *it;

	if (rep->results.n != c->sent_n)
		return ERR_BAD_MESSAGE;
	list_init(&later);
	for (uint32_t i = 0; (it = list_pop_front(&c->sent)) != NULL; i++) {
		struct check_fix *fix = list_entry(it, struct check_fix, node);
		int rc = rep->results.v[i].rc;

		if (rc == -EAGAIN && i > 0) {
			list_push_back(&later, it);
			continue;
		}
		check_repaired(c, fix->number, rc);
		c->fixed += rc == 0;
		c->fix_n--;
		free(fix);
	}
	if (rep->index > c->index)
		c->index = rep->index;
	list_splice_back(&later, &c->fixes);
	list_splice_back(&c->fixes, &later);
	return 0;
}

static void
again(struct check *c)
{
	check_later(c, CHECK_PAUSE_NS, send);
}

static void
answered(struct net_call *call, int rc)
{
	struct check *c = container_of(call, struct check, call);
	struct list *it;

	if (rc == 0)
		rc = results(c, call->rep);
	if (rc == 0) {
		c->heard_ns = clock_now(c->env.clock);
		check_mend_start(c);
	} else if (rc == -ESTALE) {
		/* Who leads now was not compared: look again. */
		while ((it = list_pop_front(&c->sent)) != NULL) {
			struct check_fix *fix = list_entry(it, struct check_fix, node);

			check_repaired(c, fix->number, rc);
			free(fix);
		}
		c->fixed++;
		check_mend_done(c);
	} else if (err_next(rc) == ERR_NEXT_FAIL || check_silent(c, c->meta_ns)) {
		check_end(c, rc);
	} else {
		if (err_next(rc) != ERR_NEXT_RETRY)
			c->meta_at++;
		check_route(c, again);
	}
}

static void
send(struct clock_timer *t)
{
	struct check *c = container_of(t, struct check, timer);
	struct msg_repair q = { .ctx = { .client = c->client, .seq = c->seq,
	    .done = c->seq - 1 }, .rows = { c->rows, c->sent_n } };
	uint32_t nodes[ROUTING_MEMBERS_MAX];
	struct net_call_opts opts = {
		.deadline_ns = clock_now(c->env.clock) + CHECK_ATTEMPT_NS
	};
	struct net_addr to;
	int rc = check_server(c, &to);

	q.nodes.v = nodes;
	for (unsigned i = 0; i < c->member_n; i++)
		if (!c->members[i].lost && !c->members[i].odd)
			nodes[q.nodes.n++] = c->members[i].node;
	if (rc == 0)
		rc = net_call_start(&c->call, c->env.hub, &to, MSG_repair, &q, &opts,
		    answered);
	if (rc != 0)
		check_end(c, rc);
}

void
check_mend_start(struct check *c)
{
	if (c->seq == 0)
		c->env.random(c->env.ctx, &c->client, sizeof(c->client));
	pick(c);
	if (c->sent_n == 0) {
		check_mend_done(c);
		return;
	}
	c->seq++;
	c->meta_ns = clock_now(c->env.clock);
	check_later(c, 0, send);
}

/* ---- the end of the session that this has made ---- */

static void
left(struct net_call *call, int rc)
{
	struct check *c = container_of(call, struct check, call);

	(void)rc;			/* or it ends for want of being heard */
	c->routed(c);
}

void
check_leave(struct check *c, void (*fn)(struct check *c))
{
	struct msg_session q = { .client = c->client, .leaving = 1 };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(c->env.clock) + CHECK_ATTEMPT_NS
	};
	struct net_addr to;

	c->routed = fn;
	if (c->seq == 0 || check_server(c, &to) != 0 || net_call_start(&c->call,
	    c->env.hub, &to, MSG_session, &q, &opts, left) != 0)
		fn(c);
}
