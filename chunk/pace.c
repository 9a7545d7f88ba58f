/* SPDX-License-Identifier: MIT */
/* pace.c - what clients leave of a worker for bringing replicas up to date.
 *
 * What copies and clients compete for may be a disk, a link, processors, or the clients'
 * machines, so it is measured what clients lose.  Time is cut into cycles:
 *
 *	|  quiet: no copy begins     |                copies                     | quiet ...
 *	| what was under way | LOOK  | COPY, a tick after the other
 *
 * Clients' work (bytes, and a fixed cost for every request) per second in LOOK is what they do
 * alone.  Each tick compares it with what they do beside copies: are they losing less than
 * the share, copies may go faster in the next tick, else they go slower.  So clients that
 * want all there is lose no more than the share, a trickle or a steady load that leaves room
 * does not hold copies up, and copies that slow clients down get less.  Without clients
 * there is no limit and no pause.
 *
 * Clients that want a steady rate and were held up, by copies or by anything else, catch up as
 * soon as they can: a LOOK may show several times what they want.  Taken for what they do
 * alone, it would say for a whole cycle that they lose most of it, and copies would all but
 * cease.  So the lesser of the last two looks is what they want, the greater what they could
 * do; and who wants no more than a fair part of what it could do is to lose nothing of it.
 *
 * Copies are under way for a while that has little to do with how fast they may go: a disk that
 * is busy takes long to make anything durable.  So many of them go on at once as it takes to
 * reach the rate, but never more than FLIGHT_MAX_NS of it: these are in the way of clients.
 *
 * Cycles begin by the wall clock: nodes whose clocks agree are quiet together, and see what
 * clients lose by the copies of all of them.  Nothing else depends on it. */
#include <stdbool.h>

#include "chunk/pace.h"
#include "conf/clock.h"

#define CYCLE_NS	(3000 * NS_PER_MS)
#define QUIET_NS	(500 * NS_PER_MS)	/* of a cycle */
#define SKIP_NS		(300 * NS_PER_MS)	/* of that: who wants so much a second, and did
						 * not get it, catches up; that is no loss */
#define DRAIN_NS	(350 * NS_PER_MS)	/* what is under way longer only waits for
						 * its disk to make it durable */
#define LOOK_MIN_NS	(50 * NS_PER_MS)	/* less says nothing */
#define TICK_NS		(250 * NS_PER_MS)
#define GONE_NS		(300 * NS_PER_MS)	/* without clients: no limit */
#define IDLE_NS		(2500 * NS_PER_MS)	/* without copies: look again first */
#define REQUEST_COST	(32u << 10)	/* bytes that take as long as a request does */
#define PEAK_MIN	(64u << 20)	/* assumed at first, and at least */
#define PEAK_FORGET	256u		/* part of the peak forgotten in a tick */
#define DEPTH_NS	(20 * NS_PER_MS)	/* tokens kept at most */
#define TOKENS_NS	(100 * NS_PER_S)	/* a wait is shorter */
#define FLOOR		4u		/* part of the share that copies get in any case */
#define LITTLE		3u		/* part of the share that may as well be chance */
#define FLIGHT_MIN_NS	(200 * NS_PER_MS)	/* copies under way: so much of their rate */
#define FLIGHT_MAX_NS	(400 * NS_PER_MS)
#define FLIGHT_MIN	(4u << 20)	/* or so many bytes */
#define FREE_MIN	(16u << 20)	/* without clients */
#define LAG_NS		(FLIGHT_MIN_NS / 3 * 2)	/* assumed at first */
#define LAG_MAX_NS	NS_PER_S
#define LAG_PART	16u		/* of it is new in a tick */

enum { WAIT, LOOK, COPY };

static uint64_t
per_second(uint64_t cost, uint64_t ns)
{
	return cost * 1000000 / (ns / 1000 + 1);
}

/* Copies are about to begin beside clients: look first, then begin with the share of the
 * most that was ever seen. */
static void
begin(struct chunk_pace *p, uint64_t share, uint64_t now)
{
	p->rate = p->peak / 100 * share;
	p->look_s = p->alone_s = p->could_s = p->look_n = p->beside_s = p->sync_s = 0;
	p->quiet_ns = now;
	p->begin_ns = now + QUIET_NS;
}

/* What clients did in a LOOK. */
static void
looked(struct chunk_pace *p)
{
	uint64_t is = per_second(p->state_cost, p->state_ns), was = p->look_s;

	if (p->state_ns < LOOK_MIN_NS)
		return;
	if (was == 0)
		was = is;
	p->alone_s = is < was ? is : was;
	p->could_s = is < was ? was : is;
	p->look_s = is;
	p->look_n = p->state_n;
}

/* Percent of what they do alone that clients may lose: the share; but those that could do
 * more than that keep it as long as it is their share of what they could do, but for a part
 * that no measurement tells from nothing. */
static uint64_t
bearable(const struct chunk_pace *p, uint64_t share)
{
	uint64_t least = share / LITTLE + 1, keep;

	if (p->alone_s < 100)
		return share;
	keep = p->could_s / (p->alone_s / 100) * (100 - share) / 100;
	if (keep >= 100 || 100 - keep < least)
		return least;
	return 100 - keep < share ? 100 - keep : share;
}

/* Faster or slower, by what clients lose. */
static void
weigh(struct chunk_pace *p, uint64_t share)
{
	uint64_t low = p->peak / 100 * share / FLOOR, high = p->peak / 100 * share;
	uint64_t lost = 0, few = 100 / (p->look_n + 1), most = bearable(p, share), to;

	if (p->beside_s < p->alone_s)
		lost = 100 - p->beside_s * 100 / p->alone_s;
	/* A few requests more or less mean nothing. */
	lost = lost < few ? 0 : lost - few;
	if (lost <= most) {
		p->rate += p->rate / 3 * 2 * (most - lost) / most;
	} else {
		/* It is in proportion to what is copied. */
		to = p->rate / lost * most;
		p->rate -= p->rate / 3;
		if (p->rate < to)
			p->rate = to;
	}
	/* No more than half over what is really copied. */
	if (high < p->sync_s / 2 * 3)
		high = p->sync_s / 2 * 3;
	p->rate = p->rate < low ? low : p->rate > high ? high : p->rate;
}

/* How long a copy is under way: as many bytes as there are, by those that end in a second. */
static void
lag(struct chunk_pace *p)
{
	uint64_t ns;

	if (p->ended == 0)
		return;			/* it goes on */
	ns = p->copy_us / p->ended * 1000;
	p->copy_us = p->ended = 0;
	p->lag_ns -= p->lag_ns / LAG_PART;
	p->lag_ns += (ns < LAG_MAX_NS ? ns : LAG_MAX_NS) / LAG_PART;
}

/* Bytes that may be under way. */
static uint64_t
flight(const struct chunk_pace *p)
{
	uint64_t rate = p->rate != 0 ? p->rate : p->free_s, ns = p->lag_ns / 2 * 3;
	uint64_t least = p->rate != 0 ? FLIGHT_MIN : FREE_MIN, bytes;

	if (ns < FLIGHT_MIN_NS)
		ns = FLIGHT_MIN_NS;
	if (ns > FLIGHT_MAX_NS)
		ns = FLIGHT_MAX_NS;
	bytes = rate / 1000 * (ns / NS_PER_MS);
	return bytes < least ? least : bytes;
}

/* Some time of one state has passed. */
static void
tick(struct chunk_pace *p, uint64_t share, uint64_t now)
{
	uint64_t fore = per_second(p->state_cost, p->state_ns);
	uint64_t sync = per_second(p->sync_cost, p->state_ns);

	lag(p);
	p->peak -= p->peak / PEAK_FORGET;
	if (fore + sync > p->peak)
		p->peak = fore + sync;
	if (p->peak < PEAK_MIN)
		p->peak = PEAK_MIN;
	if (p->fore_n == 0 && now - p->fore_last_ns >= GONE_NS) {
		p->rate = 0;
		p->free_s = p->free_s == 0 ? sync : (p->free_s + sync) / 2;
	} else if (p->rate == 0 || now - p->asked_ns >= IDLE_NS) {
		begin(p, share, now);
	} else if (p->state == COPY) {
		p->beside_s = p->beside_s == 0 ? fore : (p->beside_s + fore) / 2;
		p->sync_s = p->sync_s == 0 ? sync : (p->sync_s + sync) / 2;
		weigh(p, share);
	}
}

/* Account for the time since the last call; see what state we are in now. */
static void
turn(struct chunk_pace *p, const struct chunk_pace_at *at)
{
	uint64_t now = at->now_ns, in_cycle = at->wall_ns % CYCLE_NS, since;
	bool quiet = in_cycle < QUIET_NS || now < p->begin_ns;
	unsigned state;

	if (p->peak == 0) {
		p->peak = PEAK_MIN;
		p->lag_ns = LAG_NS;
		p->at_ns = now;
	}
	p->state_ns += now - p->at_ns;
	p->copy_us += p->copy_bytes * ((now - p->at_ns) / 1000);
	p->at_ns = now;
	if (!quiet)
		p->quiet_ns = 0;
	else if (p->quiet_ns == 0)
		p->quiet_ns = now;
	p->quiet_left_ns = !quiet ? 0 : in_cycle < QUIET_NS ? QUIET_NS - in_cycle :
	    p->begin_ns - now;
	since = quiet ? now - p->quiet_ns : 0;
	state = !quiet ? COPY : since < SKIP_NS || (p->copy_bytes > 0 && since < DRAIN_NS) ?
	    WAIT : LOOK;
	if (state == p->state && p->state_ns < TICK_NS)
		return;
	if (p->state == LOOK && state != LOOK)
		looked(p);
	if (p->state != LOOK && p->state_ns >= TICK_NS / 2)
		tick(p, at->share, now);
	if (state == p->state && state == LOOK)
		return;
	p->state = state;
	p->state_ns = p->state_cost = p->state_n = p->sync_cost = 0;
}

void
chunk_pace_fore_begin(struct chunk_pace *p, const struct chunk_pace_at *at)
{
	turn(p, at);
	if (p->rate == 0)
		begin(p, at->share, p->at_ns);
	p->fore_n++;
	p->fore_last_ns = p->at_ns;
}

void
chunk_pace_fore_end(struct chunk_pace *p, const struct chunk_pace_at *at, uint64_t bytes)
{
	turn(p, at);
	p->fore_n--;
	p->fore_last_ns = p->at_ns;
	p->state_n++;
	p->state_cost += bytes + REQUEST_COST;
}

/* When there are tokens again; 0: now. */
static uint64_t
tokens(struct chunk_pace *p, uint64_t now)
{
	uint64_t ns = now - p->token_ns < TOKENS_NS ? now - p->token_ns : TOKENS_NS;
	int64_t depth = (int64_t)(p->rate / (NS_PER_S / DEPTH_NS));

	p->tokens += (int64_t)(p->rate / 1000 * (ns / 1000) / 1000);
	p->token_ns = now;
	if (p->tokens > depth)
		p->tokens = depth;
	if (p->tokens >= 0)
		return 0;
	return now + (uint64_t)-p->tokens / (p->rate / 1000000 + 1) * 1000 + NS_PER_MS;
}

uint64_t
chunk_pace_wait(struct chunk_pace *p, const struct chunk_pace_at *at, uint64_t bytes)
{
	uint64_t now, cost = bytes + REQUEST_COST, again_ns;

	turn(p, at);
	now = p->asked_ns = p->at_ns;
	if (p->fore_n == 0 && now - p->fore_last_ns >= GONE_NS)
		p->rate = 0;
	if (p->rate == 0) {
		p->tokens = 0;
		p->token_ns = now;
	} else {
		if (p->quiet_left_ns > 0)
			return now + p->quiet_left_ns;
		if ((again_ns = tokens(p, now)) != 0)
			return again_ns;
	}
	if (p->copy_bytes > 0 && p->copy_bytes + bytes > flight(p))
		return now + NS_PER_MS;
	if (p->rate != 0)
		p->tokens -= (int64_t)cost;
	p->sync_cost += cost;
	p->copy_bytes += bytes;
	return 0;
}

void
chunk_pace_end(struct chunk_pace *p, const struct chunk_pace_at *at, uint64_t bytes)
{
	turn(p, at);
	p->copy_bytes -= bytes;
	p->ended += bytes;
}
