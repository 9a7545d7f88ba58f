/* SPDX-License-Identifier: MIT */
/* client_hedge.c - reads that are late are asked of another replica, too.
 *
 * A call that is late has a twin: the same question to another replica.  The first good
 * answer ends the other call.  The twin's answer goes into memory of its own, and from
 * there to where the pieces belong when the other call has ended: so nothing of a loser,
 * however late, is ever written into what was given to the application.
 * Where servers write into our memory by themselves (RDMA) a call ends only when its server
 * has let go.  A loser that answers into memory of its own does so at its leisure; one that
 * answers into the reader's is waited for, a fifth of a second at most. */
#include <errno.h>

#include "roles/client_fetch.h"

/* Not a word from its target since it was sent. */
static bool
silent(const struct client_rcall *r)
{
	return r->t->answered_ns < r->sent_ns;
}

static void	late_over(struct clock_timer *t);

void
client_hedge_watch(struct client_rcall *r)
{
	struct client *c = r->f->c;
	uint64_t least_ns = c->conf->client_hedge * NS_PER_MS;

	list_remove(&r->late_node);
	if (least_ns == 0)
		return;
	r->late_ns = clock_now(c->clock) +
	    client_health_late_ns(&c->health, least_ns);
	list_push_back(&c->late, &r->late_node);
	if (c->late_timer.pos == 0)
		clock_timer_start(c->clock, &c->late_timer, r->late_ns,
		    late_over);
}

/* @r has waited long enough for an answer that its twin may give as well.  False: it has the
 * reader's memory, which must be free before another twin is; client_hedge_leave() follows. */
static bool
give_up(struct client_rcall *r)
{
	struct client_fetch *f = r->f;

	if (r->given_up)
		return false;
	r->given_up = true;
	client_health_failed(r->t, clock_now(f->c->clock));
	for (uint32_t k = 0; k < r->n; k++)
		client_fetch_failed(f, &f->pieces[r->pieces[k]], r->bit, -ETIMEDOUT);
	if (r->buf.p != NULL ? net_call_leave(&r->call) : net_call_abandon(&r->call))
		client_rcall_put(r);
	else if (r->buf.p != NULL)
		client_rcall_leave(r, NULL);
	else
		return false;
	return true;
}

/* @r is late: ask another replica the same. If it is the twin of one that has not been
 * answered either, that one ends. False: nothing was done. */
static bool
twin_start(struct client_rcall *r)
{
	struct client_fetch *f = r->f;
	struct client *c = f->c;
	const struct routing_chain *chain = routing_chain(
	    member_routing(c->member), r->chain);
	struct net_addr addrs[ROUTING_REPLICAS_MAX];
	uint32_t not = r->bit;
	size_t bytes = 0;
	struct mem_buf buf;
	struct client_rcall *twin;
	unsigned slot, well;

	/* When it is us who keep an answer from coming, a second one would not come sooner. */
	if (net_call_waits(&r->call) || (r->twin != NULL && !silent(r->twin)))
		return false;
	for (uint32_t k = 0; k < r->n; k++) {
		const struct client_fpiece *p = &f->pieces[r->pieces[k]];

		not |= p->tried | p->hard | (r->twin != NULL ? r->twin->bit : 0);
		bytes += p->len;
		if (chain == NULL || p->chain_version != chain->version)
			return false;
	}
	slot = client_rcall_pick(c, chain, not, addrs, &well);
	/* One that is known to be gone need not be late to be given up. */
	if (well == 0 || (r->t->fails == 0 && !client_health_extra(&c->health)))
		return false;
	if ((r->twin != NULL && !give_up(r->twin)) || mem_get(c->pool, bytes, &buf) != 0)
		return false;
	if ((twin = client_rcall_get(f, chain, slot)) == NULL) {
		client_mem_put(c, &buf);
		return false;
	}
	twin->buf = buf;
	twin->n = r->n;
	bytes = 0;
	for (uint32_t k = 0; k < r->n; k++) {
		twin->pieces[k] = r->pieces[k];
		twin->iov[k] = (struct iovec){ buf.p + bytes,
			r->iov[k].iov_len };
		bytes += r->iov[k].iov_len;
	}
	if (client_rcall_send(twin, chain, &addrs[slot], c->conf->client_call) != 0) {
		client_rcall_put(twin);
		return false;
	}
	twin->twin = r;
	r->twin = twin;
	stat_add(&c->stat.hedges, 1);
	client_hedge_watch(twin);
	return true;
}

static void
late_over(struct clock_timer *t)
{
	struct client *c = container_of(t, struct client, late_timer);

	while (!list_empty(&c->late)) {
		struct client_rcall *r = list_entry(c->late.next, struct client_rcall,
		    late_node);

		if (r->late_ns > clock_now(c->clock)) {
			clock_timer_start(c->clock, t, r->late_ns, late_over);
			return;
		}
		list_remove(&r->late_node);
		if (!twin_start(r))	/* perhaps later */
			client_hedge_watch(r);
	}
}

/* ---- one of the two ends ---- */

bool
client_hedge_won(struct client_rcall *r)
{
	struct client_rcall *loser = r->twin;
	struct client *c = r->c;
	bool over = loser->buf.p != NULL ? net_call_leave(&loser->call) :
	    net_call_abandon(&loser->call);

	if (loser->sent_ns < r->sent_ns) {
		stat_add(&c->stat.hedge_wins, 1);
		/* Slow is one thing; not a word since is another. */
		if (silent(loser))
			client_health_failed(loser->t, clock_now(c->clock));
	}
	if (over) {
		client_rcall_put(loser);
	} else if (loser->buf.p != NULL) {
		client_rcall_leave(loser, NULL);
		over = true;
	} else {
		r->won = true;
		list_remove(&r->late_node);
		list_remove(&loser->late_node);
	}
	return over;
}

void
client_hedge_freed(struct client_rcall *r)
{
	struct client_rcall *winner = r->twin;

	client_rcall_put(r);
	client_fetch_take(winner);
}

void
client_hedge_leave(struct client_rcall *r)
{
	struct client_rcall *twin = r->twin;
	bool third = r->given_up;

	client_rcall_put(r);
	list_remove(&twin->late_node);
	if (!third || !twin_start(twin))
		client_hedge_watch(twin);
}
