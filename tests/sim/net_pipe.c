/* SPDX-License-Identifier: MIT */
/* net_pipe.c - what travels between two ends of a stream.
 *
 * A frame with payload is two items: HEAD, and BODY that arrives later.  Until BODY has
 * left (left_ns) its bytes are the sender's; they are copied at that moment, so a sender
 * that takes its memory back too early is seen.  Arrivals run on the world's clock; what
 * a node gets to see runs on the node's, so a paused node reads late. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/net_impl.h"

struct item *
sim_pipe_item(enum item_kind kind, size_t bytes)
{
	struct item *i = sim_net_must(calloc(1, sizeof(*i) + bytes));

	i->kind = kind;
	list_init(&i->node);
	return i;
}

void
sim_pipe_free_item(struct item *i)
{
	list_remove(&i->node);
	sim_offer_forget(i);
	free(i->copy);
	free(i);
}

void
sim_pipe_free_items(struct list *items)
{
	while (!list_empty(items))
		sim_pipe_free_item(list_entry(items->next, struct item, node));
}

void
sim_pipe_free(struct pipe *p)
{
	struct clock *world = p->net->world;

	for (unsigned i = 0; i < 2; i++) {
		clock_timer_stop(world, &p->ends[i].timer);
		clock_timer_stop(world, &p->ends[i].fate);
		sim_pipe_free_items(&p->ends[i].out);
		sim_pipe_free_items(&p->ends[i].acks);
		sim_pipe_free_items(&p->ends[i].inbox);
	}
	clock_timer_stop(world, &p->syn);
	clock_timer_stop(world, &p->breaks);
	list_remove(&p->node);
	free(p);
}

void
sim_pipe_wake(struct end *e)
{
	if (e->chan != NULL)
		clock_defer(e->clock, &e->news, sim_chan_deliver);
}

static void
fate_comes(struct clock_timer *t)
{
	struct end *e = container_of(t, struct end, fate);

	e->closed = e->fate_rc;
	if (e->pipe->one_sided && e->pipe->broken)
		sim_verbs_flush(e);
	sim_pipe_wake(e);
}

void
sim_pipe_doom(struct end *e, int rc, uint64_t in_ns)
{
	uint64_t at = sim_net_now(e->pipe->net) + in_ns;

	if (e->closed != 0 || (e->fate.pos != 0 && e->fate.at_ns <= at))
		return;
	e->fate_rc = rc;
	clock_timer_start(e->pipe->net->world, &e->fate, at, fate_comes);
}

void
sim_pipe_break(struct pipe *p, int rc)
{
	if (p->broken)
		return;
	p->broken = true;
	for (unsigned i = 0; i < 2; i++) {
		struct end *e = &p->ends[i];

		clock_timer_stop(p->net->world, &e->timer);
		if (p->one_sided)
			sim_verbs_broke(e);
		else
			sim_pipe_free_items(&e->out);
		sim_pipe_doom(e, rc, sim_net_delay(p->net));
	}
}

/* Has all of it left its sender? */
static bool
has_left(const struct item *i, uint64_t now)
{
	return i->kind == BODY ? i->left : i->kind != WRITE || i->start_ns <= now;
}

static void
drop_item(struct item *i)
{
	if (i->tx != NULL && i->offer == NULL)
		i->tx->impl = NULL;
	sim_pipe_free_item(i);
}

void
sim_pipe_cut(struct end *e, unsigned keep)
{
	list_for_each_safe(it, tmp, &e->out)
		if (keep > 0)
			keep--;
		else
			drop_item(list_entry(it, struct item, node));
}

void
sim_pipe_cut_unleft(struct end *e)
{
	uint64_t now = sim_net_now(e->pipe->net);
	unsigned n = 0;

	list_for_each(it, &e->out) {
		if (!has_left(list_entry(it, struct item, node), now))
			break;
		n++;
	}
	sim_pipe_cut(e, n);
}

/* @e learns that the stream broke and goes on elsewhere; what has left it already lies in
 * some buffer and arrives late, beside or behind what it says next on another stream. */
static void
break_behind(struct end *e)
{
	struct pipe *p = e->pipe;
	struct end *to = &p->ends[e == &p->ends[0]];
	uint64_t late = sim_net_between(p->net, 0, p->net->faults.ghost_us * NS_PER_US);

	sim_pipe_cut_unleft(e);
	list_for_each(it, &e->out)
		list_entry(it, struct item, node)->at_ns += late;
	e->ghost = true;
	sim_pipe_cut(to, 0);
	clock_timer_stop(p->net->world, &to->timer);
	to->lost = true;
	sim_pipe_plan(e);
	sim_pipe_doom(e, -ECONNRESET, sim_net_delay(p->net));
	sim_pipe_doom(to, -ECONNRESET, late + 2 * sim_net_delay(p->net));
}

void
sim_pipe_breaks(struct clock_timer *t)
{
	struct pipe *p = container_of(t, struct pipe, breaks);
	struct end *e = &p->ends[rand_below(&p->net->rand, 2)];

	if (p->net->faults.ghost_us > 0 && !p->broken && e->chan != NULL &&
	    p->ends[e == &p->ends[0]].chan != NULL && !list_empty(&e->out) && !e->lost &&
	    rand_chance(&p->net->rand, 1, 2))
		break_behind(e);
	else
		sim_pipe_break(p, -ECONNRESET);
}

/* ---- what travels ---- */

static void out_event(struct clock_timer *t);

void
sim_pipe_plan(struct end *e)
{
	uint64_t at = UINT64_MAX;

	if (!list_empty(&e->acks))
		at = list_entry(e->acks.next, struct item, node)->at_ns;
	list_for_each(l, &e->out) {
		const struct item *i = list_entry(l, struct item, node);

		if (l == e->out.next && i->at_ns < at)
			at = i->at_ns;
		if (i->kind == BODY && !i->left) {
			if (i->left_ns < at)
				at = i->left_ns;
			break;
		}
	}
	if (at == UINT64_MAX)
		clock_timer_stop(e->pipe->net->world, &e->timer);
	else
		clock_timer_start(e->pipe->net->world, &e->timer, at, out_event);
}

static void
copy_out(struct item *i)
{
	uint8_t *to = i->bytes;

	for (unsigned k = 0; k < i->tx->iov_n; k++) {
		memcpy(to, i->tx->iov[k].iov_base, i->tx->iov[k].iov_len);
		to += i->tx->iov[k].iov_len;
	}
	assert(to == i->bytes + i->bulk_len);
}

void
sim_pipe_moved(struct end *e, uint32_t bytes)
{
	struct net_chan *c = &e->chan->c;

	c->out_bytes -= bytes;
	c->tx_since_ns = c->out_bytes > 0 ? clock_now(e->clock) : 0;
}

void
sim_pipe_tx_left(struct end *e, struct net_tx *tx)
{
	tx->done = tx->head_len + (uint64_t)tx->bulk_len;
	tx->impl = NULL;
	list_remove(&tx->node);
	list_push_back(&e->chan->left, &tx->node);
	sim_pipe_wake(e);
}

/* Payloads whose time has come leave their sender. */
static void
let_leave(struct end *e, uint64_t now)
{
	list_for_each(l, &e->out) {
		struct item *i = list_entry(l, struct item, node);

		if (i->kind != BODY || i->left)
			continue;
		if (i->left_ns > now)
			return;
		copy_out(i);
		i->left = true;
		sim_pipe_moved(e, i->bulk_len);
		/* Memory of its own may be exposed still. */
		if (i->offer == NULL || !sim_offer_streamed(i->offer))
			sim_pipe_tx_left(e, i->tx);
		i->tx = NULL;
	}
}

/* The first item is due. False: it cannot get through now. */
static bool
arrive(struct end *e, uint64_t now)
{
	struct pipe *p = e->pipe;
	struct end *to = &p->ends[e == &p->ends[0]];
	struct item *i = list_entry(e->out.next, struct item, node);

	switch (sim_net_path_of(p->net, e->node, to->node)) {
	case SIM_NET_CLEAR:
		break;
	case SIM_NET_RESET:
		sim_pipe_break(p, -ECONNRESET);
		sim_pipe_cut(e, 0);
		return false;
	case SIM_NET_SILENT:
		if (e->blocked_ns == 0)
			e->blocked_ns = now;
		if (now - e->blocked_ns <= (p->one_sided ? VERBS_DEAD_NS : DEAD_NS)) {
			i->at_ns = now + sim_net_between(p->net, RESEND_MIN_NS,
			    RESEND_MAX_NS);
			return false;
		}
		sim_pipe_break(p, p->one_sided ? -EHOSTUNREACH : -ETIMEDOUT);
		sim_pipe_cut(e, 0);
		return false;
	}
	e->blocked_ns = 0;
	if (i->kind == WRITE)
		return sim_verbs_write(e, i);
	list_remove(&i->node);
	if (i->kind == FIN || to->chan == NULL) {
		/* Nobody there (any more): a reset is the answer. */
		if (i->kind == FIN)
			sim_pipe_doom(to, -ECONNRESET, 0);
		else
			sim_pipe_break(p, -ECONNRESET);
		sim_pipe_free_item(i);
		sim_pipe_cut(e, 0);
		return false;
	}
	if (i->kind == HEAD && i->tx != NULL)
		sim_verbs_ack(e, i);
	if (to->flushed) {
		stat_add(&p->net->stat.flushed, i->kind == HEAD);
		sim_pipe_free_item(i);
		return true;
	}
	p->net->frames++;
	list_push_back(&to->inbox, &i->node);
	sim_pipe_wake(to);
	return true;
}

static void
out_event(struct clock_timer *t)
{
	struct end *e = container_of(t, struct end, timer);
	uint64_t now = sim_net_now(e->pipe->net);

	while (!list_empty(&e->acks) &&
	    list_entry(e->acks.next, struct item, node)->at_ns <= now) {
		struct item *i = list_entry(e->acks.next, struct item, node);

		sim_pipe_tx_left(e, i->tx);
		i->tx = NULL;
		sim_pipe_free_item(i);
	}
	let_leave(e, now);
	while (!list_empty(&e->out) &&
	    list_entry(e->out.next, struct item, node)->at_ns <= now)
		if (!arrive(e, now))
			break;
	if (!e->pipe->broken || e->pipe->one_sided)
		sim_pipe_plan(e);
}
