/* SPDX-License-Identifier: MIT */
/* storage_pace.c - what clients leave of a worker for bringing replicas up to date.
 *
 * What copies and clients compete for may be a disk, a link, processors, or the clients'
 * machines, so it is measured what clients lose.  Time is cut into cycles:
 *
 *	|  quiet: no copy begins     |                copies                     | quiet ...
 *	| what was under way | LOOK  | COPY, a tick after the other
 *
 * Clients' work (bytes, and a fixed cost for every request) per second in LOOK is what they do
 * alone.  Each tick compares it with what they do beside copies: are they losing less than
 * sync_share, copies may go faster in the next tick, else they go slower.  So clients that
 * want all there is lose no more than the share, a trickle or a steady load that leaves room
 * does not hold copies up, and copies that slow clients down get less.  Without clients
 * there is no limit and no pause.
 *
 * Cycles begin by the wall clock: nodes whose clocks agree are quiet together, and see what
 * clients lose by the copies of all of them.  Nothing else depends on it. */
#include "roles/storage_impl.h"

#define CYCLE_NS	(2000 * NS_PER_MS)
#define QUIET_NS	(500 * NS_PER_MS)	/* of a cycle */
#define SKIP_NS		(300 * NS_PER_MS)	/* of that: who wants so much a second, and did
						 * not get it, catches up; that is no loss */
#define LOOK_MIN_NS	(50 * NS_PER_MS)	/* less says nothing */
#define TICK_NS		(250 * NS_PER_MS)
#define GONE_NS		(300 * NS_PER_MS)	/* without clients: no limit */
#define IDLE_NS		(2500 * NS_PER_MS)	/* without copies: look again first */
#define REQUEST_COST	(32u << 10)	/* bytes that take as long as a request does */
#define PEAK_MIN	(64u << 20)	/* assumed at first, and at least */
#define PEAK_FORGET	256u		/* part of the peak forgotten in a tick */
#define DEPTH_NS	(20 * NS_PER_MS)	/* tokens kept at most */
#define TOKENS_NS	(100 * NS_PER_S)	/* a wait is shorter */
#define FLOOR		8u		/* part of the share that copies get in any case */
#define FLIGHT_NS	(200 * NS_PER_MS)	/* copies under way, at the rate allowed: longer than
						 * one takes on a busy machine */
#define FLIGHT_MIN	(4u << 20)

enum { WAIT, LOOK, COPY };

static uint64_t
per_second(uint64_t cost, uint64_t ns)
{
	return cost * 1000000 / (ns / 1000 + 1);
}

/* Copies are about to begin beside clients: look first, then begin with the share of the
 * most that was ever seen. */
static void
begin(struct storage_pace *p, uint64_t share, uint64_t now)
{
	p->rate = p->peak / 100 * share;
	p->alone_s = p->beside_s = p->sync_s = p->look_n = 0;
	p->quiet_ns = now;
	p->begin_ns = now + QUIET_NS;
}

/* What clients did in a LOOK. */
static void
looked(struct storage_pace *p)
{
	uint64_t was = p->alone_s;

	if (p->state_ns >= LOOK_MIN_NS) {
		p->alone_s = per_second(p->state_cost, p->state_ns);
		if (was != 0)
			p->alone_s = (p->alone_s + was) / 2;
		p->look_n = p->state_n;
	}
}

/* Faster or slower, by what clients lose. */
static void
weigh(struct storage_pace *p, uint64_t share)
{
	uint64_t low = p->peak / 100 * share / FLOOR, high = p->peak / 100 * share;
	uint64_t percent = 100, aim = 100 - share;

	if (p->alone_s > 0 && p->beside_s < p->alone_s)
		percent = p->beside_s * 100 / p->alone_s;
	/* A few requests more or less mean nothing. */
	percent += 100 / (p->look_n + 1);
	if (percent > 100)
		percent = 100;
	if (percent >= aim)
		p->rate += p->rate / 3 * (percent - aim) / share;
	else if (aim - percent < share)
		p->rate -= p->rate / 3 * (aim - percent) / share;
	else
		p->rate -= p->rate / 3;
	/* No more than half over what is really copied. */
	if (high < p->sync_s / 2 * 3)
		high = p->sync_s / 2 * 3;
	p->rate = p->rate < low ? low : p->rate > high ? high : p->rate;
}

/* Some time of one state has passed. */
static void
tick(struct storage_worker *w, uint64_t now)
{
	struct storage_pace *p = &w->pace;
	uint64_t share = w->env->conf->storage_sync_share;
	uint64_t fore = per_second(p->state_cost, p->state_ns);
	uint64_t sync = per_second(p->sync_cost, p->state_ns);

	p->peak -= p->peak / PEAK_FORGET;
	if (fore + sync > p->peak)
		p->peak = fore + sync;
	if (p->peak < PEAK_MIN)
		p->peak = PEAK_MIN;
	if (p->fore_n == 0 && now - p->fore_last_ns >= GONE_NS) {
		p->rate = 0;
	} else if (p->rate == 0 || now - p->asked_ns >= IDLE_NS) {
		begin(p, share, now);
	} else if (p->state == COPY) {
		p->beside_s = p->beside_s == 0 ? fore : (p->beside_s + fore) / 2;
		p->sync_s = p->sync_s == 0 ? sync : (p->sync_s + sync) / 2;
		weigh(p, share);
	}
	stat_set(&w->stat.sync_rate, p->rate);
}

/* Account for the time since the last call; see what state we are in now. */
static void
turn(struct storage_worker *w)
{
	struct storage_pace *p = &w->pace;
	uint64_t now = clock_now(w->clock);
	uint64_t at = (uint64_t)clock_wall(w->clock) % CYCLE_NS;
	bool quiet = at < QUIET_NS || now < p->begin_ns;
	unsigned state;

	if (p->peak == 0) {
		p->peak = PEAK_MIN;
		p->at_ns = now;
	}
	p->state_ns += now - p->at_ns;
	p->at_ns = now;
	if (!quiet)
		p->quiet_ns = 0;
	else if (p->quiet_ns == 0)
		p->quiet_ns = now;
	p->quiet_left_ns = !quiet ? 0 : at < QUIET_NS ? QUIET_NS - at : p->begin_ns - now;
	state = !quiet ? COPY : w->sync_bytes > 0 || now - p->quiet_ns < SKIP_NS ? WAIT :
	    LOOK;
	if (state == p->state && p->state_ns < TICK_NS)
		return;
	if (p->state == LOOK && state != LOOK)
		looked(p);
	if (p->state != LOOK && p->state_ns >= TICK_NS / 2)
		tick(w, now);
	if (state == p->state && state == LOOK)
		return;
	p->state = state;
	p->state_ns = p->state_cost = p->state_n = p->sync_cost = 0;
}

void
storage_fore_begin(struct storage_worker *w)
{
	struct storage_pace *p = &w->pace;

	turn(w);
	if (p->rate == 0)
		begin(p, w->env->conf->storage_sync_share, p->at_ns);
	p->fore_n++;
	p->fore_last_ns = p->at_ns;
}

void
storage_fore_end(struct storage_worker *w, uint64_t bytes)
{
	struct storage_pace *p = &w->pace;

	turn(w);
	p->fore_n--;
	p->fore_last_ns = p->at_ns;
	p->state_n++;
	p->state_cost += bytes + REQUEST_COST;
}

uint64_t
storage_pace_wait(struct storage_worker *w, uint64_t bytes)
{
	struct storage_pace *p = &w->pace;
	uint64_t now, cost = bytes + REQUEST_COST, ns, flight, depth;

	turn(w);
	now = p->asked_ns = p->at_ns;
	if (p->fore_n == 0 && now - p->fore_last_ns >= GONE_NS)
		p->rate = 0;
	if (p->rate == 0) {
		p->tokens = 0;
		p->token_ns = now;
	} else {
		if (p->quiet_left_ns > 0)
			return now + p->quiet_left_ns;
		ns = now - p->token_ns < TOKENS_NS ? now - p->token_ns : TOKENS_NS;
		depth = p->rate / (NS_PER_S / DEPTH_NS);
		p->tokens += (int64_t)(p->rate / 1000 * (ns / 1000) / 1000);
		p->token_ns = now;
		if (p->tokens > (int64_t)depth)
			p->tokens = (int64_t)depth;
		if (p->tokens < 0)
			return now + (uint64_t)-p->tokens / (p->rate / 1000000 + 1) *
			    1000 + NS_PER_MS;
		flight = p->rate / (NS_PER_S / FLIGHT_NS);
		if (w->sync_bytes > 0 && w->sync_bytes + bytes >
		    (flight < FLIGHT_MIN ? FLIGHT_MIN : flight))
			return now + NS_PER_MS;
		p->tokens -= (int64_t)cost;
	}
	p->sync_cost += cost;
	w->sync_bytes += bytes;
	return 0;
}

void
storage_pace_end(struct storage_worker *w, uint64_t bytes)
{
	turn(w);
	w->sync_bytes -= bytes;
}
