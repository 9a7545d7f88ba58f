/* SPDX-License-Identifier: MIT */
/* grant.c - a window of bytes that servers share.  Rules are in the header, by number. */
#include "net/grant.h"

#include <assert.h>

void
net_window_init(struct net_window *w, uint64_t size)
{
	*w = (struct net_window){ .size = size };
	list_init(&w->ring);
}

void
net_grant_peer_init(struct net_grant_peer *p)
{
	*p = (struct net_grant_peer){ .held = 0 };
	list_init(&p->node);
	list_init(&p->queue);
}

static uint64_t
room(const struct net_window *w)
{
	return w->charged < w->size ? w->size - w->charged : 0;
}

/* Rule 1. */
static bool
fits(const struct net_window *w, uint64_t bytes)
{
	return w->size == 0 || w->charged == 0 || bytes <= room(w);
}

/* Rule 2: may @p, which waits, be given @bytes more?  @spare: though it has its part, as
 * nobody waits who has not. */
static bool
may_have(const struct net_window *w, const struct net_grant_peer *p, uint64_t bytes,
    bool spare)
{
	uint64_t held = p->held - p->idle, all = held + bytes;

	if (w->size == 0 || held == p->early)
		return true;
	return spare ? held <= room(w) && all <= w->size / 2 :
	    all * (w->peers + 1) <= w->size;
}

/* @p has something granted, or waits. */
static bool
is_active(const struct net_grant_peer *p)
{
	return p->held > 0 || !list_empty(&p->queue);
}

static void
charge(struct net_window *w, struct net_grant_peer *p, struct net_grant *g,
    uint32_t bytes, bool early)
{
	g->peer = p;
	g->bytes = bytes;
	g->early = early;
	g->idle = false;
	g->state = NET_GRANT_CHARGED;
	p->held += bytes;
	p->early += early ? bytes : 0;
	w->charged += bytes;
	w->early += early ? bytes : 0;
}

static void
uncharge(struct net_window *w, struct net_grant *g, uint32_t bytes)
{
	assert(g->bytes >= bytes && g->peer->held >= bytes && w->charged >= bytes);
	g->bytes -= bytes;
	g->peer->held -= bytes;
	w->peers -= bytes > 0 && !is_active(g->peer);
	w->charged -= bytes;
	g->peer->early -= g->early ? bytes : 0;
	w->early -= g->early ? bytes : 0;
	g->peer->idle -= g->idle ? bytes : 0;
	w->idle -= g->idle ? bytes : 0;
}

static void
leave_ring(struct net_grant_peer *p)
{
	if (!list_empty(&p->queue))
		return;
	list_remove(&p->node);
	p->deficit = 0;
	p->turn = false;
}

static void
leave_queue(struct net_window *w, struct net_grant *g)
{
	list_remove(&g->node);
	w->waiting--;
	leave_ring(g->peer);
	w->peers -= !is_active(g->peer);
}

bool
net_grant_try(struct net_window *w, struct net_grant_peer *p, struct net_grant *g,
    uint32_t bytes)
{
	assert(g->state == NET_GRANT_IDLE && bytes > 0);
	if (w->waiting > 0)
		return false;
	if (w->size != 0 && w->charged != 0 && (w->early + bytes > w->size / 2 ||
	    !fits(w, bytes) || p->held > room(w) ||
	    (p->held > 0 && (p->held + bytes > w->size / 2 ||
	    p->early + bytes > w->size / 4))))
		return false;
	w->peers += !is_active(p);
	charge(w, p, g, bytes, true);
	return true;
}

void
net_grant_wait(struct net_window *w, struct net_grant_peer *p, struct net_grant *g,
    uint32_t bytes)
{
	assert(g->state == NET_GRANT_IDLE && bytes > 0);
	g->peer = p;
	g->bytes = bytes;
	g->early = false;
	g->state = NET_GRANT_WAITING;
	w->peers += !is_active(p);
	if (list_empty(&p->queue))
		list_push_back(&w->ring, &p->node);
	list_push_back(&p->queue, &g->node);
	w->waiting++;
}

static struct net_grant *
first_of(const struct net_grant_peer *p)
{
	return list_entry(p->queue.next, struct net_grant, node);
}

static void
end_turn(struct net_window *w, struct net_grant_peer *p)
{
	p->turn = false;
	list_remove(&p->node);
	list_push_back(&w->ring, &p->node);
}

/* Nobody's deficit was enough for what it wants first: as many rounds at once as the
 * nearest one needs, but for the next. */
static void
skip_rounds(struct net_window *w, bool spare)
{
	uint64_t rounds = UINT64_MAX;

	list_for_each(l, &w->ring) {
		const struct net_grant_peer *p = list_entry(l, struct net_grant_peer,
		    node);
		uint64_t lacks = first_of(p)->bytes - p->deficit;

		if (may_have(w, p, first_of(p)->bytes, spare) &&
		    (lacks - 1) / NET_GRANT_QUANTUM < rounds)
			rounds = (lacks - 1) / NET_GRANT_QUANTUM;
	}
	list_for_each(l, &w->ring) {
		struct net_grant_peer *p = list_entry(l, struct net_grant_peer, node);

		if (may_have(w, p, first_of(p)->bytes, spare))
			p->deficit += rounds * NET_GRANT_QUANTUM;
	}
}

static void
begin_turn(struct net_grant_peer *p, uint64_t bytes)
{
	if (p->turn)
		return;
	p->turn = true;
	p->deficit += NET_GRANT_QUANTUM;
	/* What it could not take for want of room it does not take at once later. */
	if (p->deficit > bytes + NET_GRANT_QUANTUM)
		p->deficit = bytes + NET_GRANT_QUANTUM;
}

/* How many wait?  0: all of them have what they may have. */
static unsigned
any_may(const struct net_window *w, bool spare)
{
	unsigned n = 0;
	bool any = false;

	list_for_each(l, &w->ring) {
		const struct net_grant_peer *p = list_entry(l, struct net_grant_peer,
		    node);

		n++;
		any = any || may_have(w, p, first_of(p)->bytes, spare);
	}
	return any ? n : 0;
}

/* Whose turn it is, at the front of the ring, with deficit enough.  NULL: all have what they
 * may have; then nobody's turn has ended. */
static struct net_grant_peer *
find_turn(struct net_window *w, bool spare)
{
	unsigned all = any_may(w, spare);

	for (bool lacking = all > 0; lacking; skip_rounds(w, spare)) {
		unsigned n = all;

		lacking = false;
		for (; n > 0; n--) {
			struct net_grant_peer *p = list_entry(w->ring.next,
			    struct net_grant_peer, node);
			uint64_t bytes = first_of(p)->bytes;

			if (may_have(w, p, bytes, spare)) {
				begin_turn(p, bytes);
				if (p->deficit >= bytes)
					return p;
				lacking = true;
			}
			end_turn(w, p);
		}
		if (!lacking)
			break;
	}
	return NULL;
}

struct net_grant *
net_grant_next(struct net_window *w)
{
	struct net_grant_peer *p;
	struct net_grant *g;

	if (w->waiting == 0 || (w->size != 0 && room(w) == 0 && w->charged > 0))
		return NULL;
	if ((p = find_turn(w, false)) == NULL && (p = find_turn(w, true)) == NULL)
		return NULL;
	g = first_of(p);
	if (!fits(w, g->bytes))
		return NULL;			/* rule 4 */
	p->deficit -= g->bytes;
	list_remove(&g->node);
	w->waiting--;
	charge(w, p, g, g->bytes, false);
	leave_ring(p);
	return g;
}

void
net_grant_idle(struct net_window *w, struct net_grant *g)
{
	if (g->state != NET_GRANT_CHARGED || g->early || g->idle ||
	    w->idle + g->bytes > w->size / 4 ||
	    (g->peer->idle + g->bytes) * (w->peers + 1) > w->size)
		return;
	g->idle = true;
	g->peer->idle += g->bytes;
	w->idle += g->bytes;
}

void
net_grant_came(struct net_window *w, struct net_grant *g, uint32_t bytes)
{
	if (g->state == NET_GRANT_WAITING || (g->state == NET_GRANT_CHARGED && bytes == 0)) {
		net_grant_end(w, g);
	} else if (g->state == NET_GRANT_CHARGED) {
		if (bytes < g->bytes)
			uncharge(w, g, g->bytes - bytes);
		if (g->early) {
			g->peer->early -= g->bytes;
			w->early -= g->bytes;
		}
		if (g->idle) {
			g->peer->idle -= g->bytes;
			w->idle -= g->bytes;
		}
		g->early = g->idle = false;
	}
}

void
net_grant_move(struct net_window *w, struct net_grant *g, struct net_grant_peer *to)
{
	uint32_t bytes = g->bytes;
	bool early = g->early;

	assert(g->state != NET_GRANT_WAITING);
	if (g->state == NET_GRANT_IDLE)
		return;
	uncharge(w, g, bytes);
	w->peers += !is_active(to);
	charge(w, to, g, bytes, early);
}

void
net_grant_end(struct net_window *w, struct net_grant *g)
{
	if (g->state == NET_GRANT_WAITING)
		leave_queue(w, g);
	else if (g->state == NET_GRANT_CHARGED)
		uncharge(w, g, g->bytes);
	g->state = NET_GRANT_IDLE;
	g->peer = NULL;
	g->bytes = 0;
	g->early = g->idle = false;
}

void
net_grant_check(const struct net_window *w)
{
	uint32_t waiting = 0;

	assert(w->early + w->idle <= w->charged);
	list_for_each(l, &w->ring) {
		const struct net_grant_peer *p = list_entry(l, struct net_grant_peer,
		    node);

		assert(!list_empty(&p->queue));
		assert(p->held <= w->charged && p->early + p->idle <= p->held);
		list_for_each(k, &p->queue) {
			const struct net_grant *g = list_entry(k, struct net_grant,
			    node);

			assert(g->peer == p && g->state == NET_GRANT_WAITING);
			waiting++;
		}
	}
	assert(waiting == w->waiting);
}
