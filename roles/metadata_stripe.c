/* SPDX-License-Identifier: MIT */
/* metadata_stripe.c - one question to every chain a file is striped over: MSG_cut at its
 * head, MSG_last at its tail.
 *
 * A few lanes walk the stripe; each asks one chain until that has answered:
 *
 *   ASKING --answer--> next chain of the stripe, or idle
 *     |  ^--pause over
 *     +--error--> PAUSING (10 ms, doubling up to 2 s, routing asked anew)
 *
 * Who does not answer us is asked by another replica (roles/path.h), as clients do.
 *
 * It ends when no lane is busy and no chain is left. */
#include <errno.h>
#include <inttypes.h>

#include "conf/err.h"
#include "roles/metadata_impl.h"

#define PAUSE_MIN_NS	(10 * NS_PER_MS)
#define PAUSE_DOUBLE	8u		/* times: 10 ms * 2^8 is over 2 s */
#define CUT_MAX		64u		/* chunks in one call */
#define LOOK_NS		(100 * NS_PER_MS)
#define LOG_TRIES	8u		/* then it is worth a line, and every so often */

static void ask(struct metadata_lane *l);

static void
finish(struct metadata_stripe *s, int rc)
{
	metadata_stripe_fn *fn = s->fn;

	metadata_stripe_cancel(s);
	fn(s, rc);			/* may free s */
}

static void
pause_over(struct clock_timer *t)
{
	ask(container_of(t, struct metadata_lane, timer));
}

static void
retry(struct metadata_lane *l, int rc)
{
	struct metadata_stripe *s = l->s;
	struct metadata *m = s->m;
	unsigned twice = l->tries < PAUSE_DOUBLE ? l->tries : PAUSE_DOUBLE;
	uint64_t pause_ns = PAUSE_MIN_NS << twice;

	l->tries++;
	if (l->tries % LOG_TRIES == 0)
		log_warn(m->log, s->last ? "no end of file from storage" :
		    "storage does not cut", "ino=%" PRIu64 " place=%u tries=%u "
		    "rc=%d reason=%s", s->ino, l->pos, l->tries, rc, err_text(rc));
	if (err_next(rc) != ERR_NEXT_RETRY)
		member_refresh(m->member);
	pause_ns += rand_below(m->env.rand, PAUSE_MIN_NS << twice);
	clock_timer_start(m->clock, &l->timer, metadata_now(m) + pause_ns,
	    pause_over);
}

/* Take the next chain of the stripe; false: none is left. */
static bool
take(struct metadata_lane *l)
{
	struct metadata_stripe *s = l->s;

	if (s->next >= s->layout.stripe) {
		l->busy = false;
		s->busy--;
		return false;
	}
	l->pos = s->next++;
	l->tries = 0;
	return true;
}

static void
answered(struct net_call *c, int rc)
{
	struct metadata_lane *l = container_of(c, struct metadata_lane, call);
	struct metadata_stripe *s = l->s;
	bool again = false, other_way;

	if (rc == 0 && s->last) {
		const struct msg_last_rep *rep = c->rep;
		uint64_t end = ((uint64_t)rep->index << s->layout.chunk_shift) +
		    rep->len;

		if (rep->found && end > s->end)
			s->end = end;
	} else if (rc == 0) {
		const struct msg_cut_rep *rep = c->rep;

		again = rep->more != 0;
		l->tries = 0;
	}
	clock_timer_stop(s->m->clock, &l->timer);
	other_way = path_ended(&s->m->paths, member_routing(s->m->member), &l->way,
	    rc);
	if (rc != 0) {
		if (s->deadline_ns != 0 && metadata_now(s->m) >= s->deadline_ns)
			finish(s, rc);
		else if (other_way)
			ask(l);
		else
			retry(l, rc);
	} else if (again || take(l)) {
		ask(l);
	} else if (s->busy == 0) {
		finish(s, 0);
	}
}

static int
send(struct metadata_lane *l)
{
	struct metadata_stripe *s = l->s;
	struct metadata *m = s->m;
	const struct routing *r = member_routing(m->member);
	struct net_call_opts opts = {
		.deadline_ns = metadata_now(m) +
		    m->env.conf->client_call * NS_PER_MS,
	};
	const struct routing_chain *c;
	struct path_way *w = &l->way;
	unsigned serving;
	chain_id id;

	if (s->deadline_ns != 0 && opts.deadline_ns > s->deadline_ns)
		opts.deadline_ns = s->deadline_ns;
	if ((id = layout_chain(r, &s->layout, l->pos)) == 0)
		return ERR_NO_CHAINS;
	if ((c = routing_chain(r, id)) == NULL)
		return ERR_STALE_CHAIN;
	if ((serving = routing_serving_n(c)) == 0)
		return ERR_CHAIN_RECOVERING;
	if (path_choose(&m->paths, r, c, s->last ? serving - 1 : 0, w) != 0)
		return ERR_STALE_CHAIN;
	if (s->last) {
		struct msg_last q = {
			.chain = id, .chain_version = c->version,
			.target = w->target, .ino = s->ino, .via = w->via,
		};

		return net_call_start(&l->call, m->env.hub, &w->addr, MSG_last, &q,
		    &opts, answered);
	}
	return net_call_start(&l->call, m->env.hub, &w->addr, MSG_cut,
	    &(struct msg_cut){
		.chain = id, .chain_version = c->version, .target = w->target,
		.ino = s->ino, .index = s->index, .keep = s->keep,
		.epoch = s->epoch, .max = CUT_MAX, .via = w->via,
		.at = group_applied(m->group),
	    }, &opts, answered);
}

/* Nothing may come from there. */
static void
look(struct clock_timer *t)
{
	struct metadata_lane *l = container_of(t, struct metadata_lane, timer);
	struct metadata *m = l->s->m;
	node_id pinged = 0;

	if (path_in_vain(&m->paths, &l->way, &l->call, &pinged) &&
	    path_give_up(&m->paths, member_routing(m->member), &l->way)) {
		net_call_cancel(&l->call);
		ask(l);
	} else
		clock_timer_start(m->clock, t, metadata_now(m) + LOOK_NS, look);
}

static void
ask(struct metadata_lane *l)
{
	struct metadata_stripe *s = l->s;
	int rc;

	if (s->deadline_ns != 0 && metadata_now(s->m) >= s->deadline_ns) {
		finish(s, -ETIMEDOUT);
		return;
	}
	if ((rc = send(l)) != 0) {
		retry(l, rc);
		return;
	}
	path_sent(&s->m->paths, &l->way);
	clock_timer_start(s->m->clock, &l->timer, metadata_now(s->m) + LOOK_NS, look);
}

/* A stripe of no chains, or lanes that begin: never from within start. */
static void
begin(struct clock_timer *t)
{
	struct metadata_lane *l = container_of(t, struct metadata_lane, timer);

	if (take(l))
		ask(l);
	else if (l->s->busy == 0)
		finish(l->s, 0);
}

void
metadata_stripe_start(struct metadata_stripe *s, struct metadata *m,
    metadata_stripe_fn *fn)
{
	unsigned lanes = s->layout.stripe < STRIPE_LANES ? s->layout.stripe :
	    STRIPE_LANES;

	s->m = m;
	s->fn = fn;
	s->next = 0;
	s->end = 0;
	s->busy = lanes > 0 ? lanes : 1;
	for (unsigned i = 0; i < s->busy; i++) {
		struct metadata_lane *l = &s->lanes[i];

		l->s = s;
		l->busy = true;
		clock_timer_start(m->clock, &l->timer, metadata_now(m), begin);
	}
}

void
metadata_stripe_cancel(struct metadata_stripe *s)
{
	if (s->m == NULL)
		return;
	for (unsigned i = 0; i < STRIPE_LANES; i++) {
		struct metadata_lane *l = &s->lanes[i];

		clock_timer_stop(s->m->clock, &l->timer);
		if (l->busy)
			net_call_cancel(&l->call);
		l->busy = false;
	}
	s->busy = 0;
}
