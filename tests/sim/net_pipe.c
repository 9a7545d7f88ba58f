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

void
sim_pipe_free_items(struct list *items)
{
	for (struct list *l; (l = list_pop_front(items)) != NULL;)
		free(list_entry(l, struct item, node));
}

void
sim_pipe_free(struct pipe *p)
{
	struct clock *world = p->net->world;

	for (unsigned i = 0; i < 2; i++) {
		clock_timer_stop(world, &p->ends[i].timer);
		clock_timer_stop(world, &p->ends[i].fate);
		sim_pipe_free_items(&p->ends[i].out);
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
		sim_pipe_free_items(&e->out);
		sim_pipe_doom(e, rc, sim_net_delay(p->net));
	}
}

/* Drop what @e sends, but for what has @left it. */
static void
cut_items(struct end *e, bool left)
{
	list_for_each_safe(it, tmp, &e->out) {
		struct item *i = list_entry(it, struct item, node);

		left = left && (i->kind != BODY || i->left);
		if (left)
			continue;
		if (i->tx != NULL)
			i->tx->impl = NULL;
		list_remove(it);
		free(i);
	}
}

/* @e learns that the stream broke and goes on elsewhere; what has left it already lies in
 * some buffer and arrives late, beside or behind what it says next on another stream. */
static void
break_behind(struct end *e)
{
	struct pipe *p = e->pipe;
	struct end *to = &p->ends[e == &p->ends[0]];
	uint64_t late = sim_net_between(p->net, 0, p->net->faults.ghost_us * NS_PER_US);

	cut_items(e, true);
	list_for_each(it, &e->out)
		list_entry(it, struct item, node)->at_ns += late;
	e->ghost = true;
	cut_items(to, false);
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

	list_for_each(l, &e->out) {
		const struct item *i = list_entry(l, struct item, node);

		if (l == e->out.next)
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
		i->tx->done = i->tx->head_len + (uint64_t)i->bulk_len;
		i->tx->impl = NULL;
		list_remove(&i->tx->node);
		list_push_back(&e->chan->left, &i->tx->node);
		e->chan->c.out_bytes -= i->bulk_len;
		e->chan->c.tx_since_ns = e->chan->c.out_bytes > 0 ?
		    clock_now(e->clock) : 0;
		i->tx = NULL;
		sim_pipe_wake(e);
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
		return false;
	case SIM_NET_SILENT:
		if (e->blocked_ns == 0)
			e->blocked_ns = now;
		if (now - e->blocked_ns > DEAD_NS)
			sim_pipe_break(p, -ETIMEDOUT);
		else
			i->at_ns = now + sim_net_between(p->net, RESEND_MIN_NS,
			    RESEND_MAX_NS);
		return false;
	}
	e->blocked_ns = 0;
	list_remove(&i->node);
	if (i->kind == FIN || to->chan == NULL) {
		/* Nobody there (any more): a reset is the answer. */
		if (i->kind == FIN)
			sim_pipe_doom(to, -ECONNRESET, 0);
		else
			sim_pipe_break(p, -ECONNRESET);
		free(i);
		return false;
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

	let_leave(e, now);
	while (!list_empty(&e->out) &&
	    list_entry(e->out.next, struct item, node)->at_ns <= now)
		if (!arrive(e, now))
			break;
	if (!e->pipe->broken)
		sim_pipe_plan(e);
}

struct item *
sim_pipe_item(enum item_kind kind, size_t bytes)
{
	struct item *i = sim_net_must(calloc(1, sizeof(*i) + bytes));

	i->kind = kind;
	list_init(&i->node);
	return i;
}
