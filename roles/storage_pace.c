/* SPDX-License-Identifier: MIT */
/* storage_pace.c - what clients leave of a worker for bringing replicas up to date.
 *
 * Time is cut into short windows.  In each the worker adds up what it did (bytes, and a fixed
 * cost for every request) and for how long any client's request was under way.  The most it
 * was seen to do in a second, slowly forgotten, is what it can do: its peak.
 *
 *	no client for a while		copies go as fast as they can
 *	else			rate = peak * max(sync_share, part of the time without clients)
 *
 * So clients that keep the worker busy all the time lose no more than the share, a trickle of
 * requests does not hold the copies up, and copies that slow clients down (whose requests are
 * then under way for longer) get less. */
#include "roles/storage_impl.h"

#define WINDOW_NS	(50 * NS_PER_MS)
#define QUIET_NS	(300 * NS_PER_MS)	/* without clients: no limit */
#define REQUEST_COST	(32u << 10)	/* bytes that take as long as a request does */
#define PEAK_MIN	(64u << 20)	/* assumed at first, and at least */
#define PEAK_FORGET	1024u		/* part of the peak forgotten in a window */
#define DEPTH_NS	(100 * NS_PER_MS)	/* tokens kept at most */

/* Close windows that have ended. */
static void
turn(struct storage_worker *w, uint64_t now)
{
	struct storage_pace *p = &w->pace;
	uint64_t ns = now - p->window_ns, rate, idle, share;

	if (ns < WINDOW_NS)
		return;
	if (p->fore_n > 0) {
		p->busy_ns += now - p->fore_since_ns;
		p->fore_since_ns = now;
	}
	rate = (p->fore_cost + p->sync_cost) * 1000000 / (ns / 1000 + 1);
	p->peak -= p->peak / PEAK_FORGET;
	if (rate > p->peak)
		p->peak = rate;
	if (p->peak < PEAK_MIN)
		p->peak = PEAK_MIN;
	share = w->env->conf->storage_sync_share;
	idle = p->busy_ns >= ns ? 0 : (ns - p->busy_ns) * 100 / ns;
	if (p->fore_n == 0 && now - p->fore_last_ns >= QUIET_NS)
		p->rate = 0;
	else
		p->rate = p->peak / 100 * (idle > share ? idle : share);
	stat_set(&w->stat.sync_rate, p->rate);
	p->window_ns = now;
	p->busy_ns = p->fore_cost = p->sync_cost = 0;
}

void
storage_fore_begin(struct storage_worker *w)
{
	struct storage_pace *p = &w->pace;
	uint64_t now = clock_now(w->clock);

	turn(w, now);
	if (p->fore_n++ == 0)
		p->fore_since_ns = now;
	p->fore_last_ns = now;
}

void
storage_fore_end(struct storage_worker *w, uint64_t bytes)
{
	struct storage_pace *p = &w->pace;
	uint64_t now = clock_now(w->clock);

	if (--p->fore_n == 0)
		p->busy_ns += now - p->fore_since_ns;
	p->fore_last_ns = now;
	p->fore_cost += bytes + REQUEST_COST;
	turn(w, now);
}

uint64_t
storage_pace_wait(struct storage_worker *w, uint64_t bytes)
{
	struct storage_pace *p = &w->pace;
	uint64_t now = clock_now(w->clock), cost = bytes + REQUEST_COST, depth;

	turn(w, now);
	if (p->rate == 0) {
		p->tokens = 0;
		p->at_ns = now;
	} else {
		depth = p->rate / (NS_PER_S / DEPTH_NS);
		/* At most a second: what is longer ago was without a limit anyway. */
		p->tokens += (int64_t)(p->rate / 1000 *
		    ((now - p->at_ns < NS_PER_S ? now - p->at_ns : NS_PER_S) / 1000) /
		    1000);
		p->at_ns = now;
		if (p->tokens > (int64_t)depth)
			p->tokens = (int64_t)depth;
		if (p->tokens < 0)
			return now + (uint64_t)-p->tokens / (p->rate / 1000000 + 1) *
			    1000 + NS_PER_MS;
		p->tokens -= (int64_t)cost;
	}
	p->sync_cost += cost;
	return 0;
}
