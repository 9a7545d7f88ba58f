/* SPDX-License-Identifier: MIT */
/* path.c - nodes that this process cannot reach itself, though others may. */
#include "roles/path.h"

#include <inttypes.h>
#include <stdlib.h>

#include "conf/err.h"

#define ASK_NS		NS_PER_S	/* between two questions */
#define ASK_DOUBLINGS	3u		/* of a way that comes and goes */
#define STEADY_NS	(10 * NS_PER_S)	/* one that was open for so long does not */
#define TRY_NS		NS_PER_S	/* between two relays that do not answer, ... */
#define TURN_NS		(100 * NS_PER_MS)	/* ... that are of no use */

struct path {
	struct paths   *p;
	node_id		node;
	bool		lost, works;
	unsigned	flaps, turn;
	uint64_t	heard_ns;	/* open since then */
	uint64_t	ask_ns, try_ns;	/* not before */
	struct path_ask ask;
	struct net_call call;
};

void
paths_init(struct paths *p, struct clock *clock, struct net_hub *hub,
    const struct log *log)
{
	*p = (struct paths){ .clock = clock, .hub = hub, .log = log };
	map_init(&p->nodes);
}

void
paths_fini(struct paths *p)
{
	struct path *w;
	size_t it = 0;

	while ((w = map_next(&p->nodes, &it, NULL)) != NULL) {
		net_call_cancel(&w->call);
		free(w);
	}
	map_fini(&p->nodes);
}

bool
path_answered(int rc)
{
	return rc == 0 || rc <= ERR_STALE_CHAIN || err_next(rc) == ERR_NEXT_FAIL;
}

static struct path *
find(const struct paths *p, node_id node)
{
	return p->nodes.n == 0 ? NULL : map_get(&p->nodes, node);
}

bool
path_is_lost(const struct paths *p, node_id node)
{
	const struct path *w = find(p, node);

	return w != NULL && w->lost;
}

static struct path *
make(struct paths *p, node_id node)
{
	struct path *w = calloc(1, sizeof(*w));

	if (w == NULL)
		return NULL;
	w->p = p;
	w->node = node;
	if (map_put(&p->nodes, node, w) != 0) {
		free(w);
		return NULL;
	}
	return w;
}

/* Without memory it stays open, as if there were no relays. */
void
path_lost(struct paths *p, node_id node, const struct path_ask *ask)
{
	uint64_t now = clock_now(p->clock);
	struct path *w = find(p, node);

	if (w == NULL && (w = make(p, node)) == NULL)
		return;
	if (w->lost)
		return;
	if (w->heard_ns == 0 || now - w->heard_ns >= STEADY_NS)
		w->flaps = 0;
	else if (w->flaps < ASK_DOUBLINGS)
		w->flaps++;
	w->lost = true;
	w->works = false;
	w->ask = *ask;
	w->ask_ns = now + (ASK_NS << w->flaps);
	w->try_ns = now;
	log_info(p->log, "node does not answer us, others are asked to pass on",
	    "node=%" PRIu32, node);
}

static void
open_again(struct path *w)
{
	if (!w->lost)
		return;
	w->lost = false;
	w->heard_ns = clock_now(w->p->clock);
	net_call_cancel(&w->call);
	log_info(w->p->log, "node answers us again", "node=%" PRIu32, w->node);
}

void
path_heard(struct paths *p, node_id node)
{
	struct path *w = find(p, node);

	if (w != NULL)
		open_again(w);
}

static void
asked(struct net_call *c, int rc)
{
	struct path *w = container_of(c, struct path, call);

	if (path_answered(rc))
		open_again(w);
}

static void
ask(struct path *w)
{
	uint64_t now = clock_now(w->p->clock);
	struct net_call_opts opts = { .deadline_ns = now + ASK_NS };

	if (now < w->ask_ns || net_call_active(&w->call))
		return;
	w->ask_ns = now + (ASK_NS << w->flaps);
	(void)net_call_start(&w->call, w->p->hub, &w->ask.addr, w->ask.method,
	    &w->ask.committed, &opts, asked);
}

bool
path_by_relay(struct paths *p, node_id node)
{
	struct path *w = find(p, node);

	if (w == NULL || !w->lost)
		return false;
	ask(w);
	return w->works || clock_now(p->clock) >= w->try_ns;
}

unsigned
path_turn(const struct paths *p, node_id node)
{
	const struct path *w = find(p, node);

	return w == NULL ? 0 : w->turn;
}

void
path_relay_sent(struct paths *p, node_id node)
{
	struct path *w = find(p, node);

	if (w != NULL && !w->works)
		w->try_ns = clock_now(p->clock) + TRY_NS;
}

void
path_relay_ended(struct paths *p, node_id node, bool useful)
{
	struct path *w = find(p, node);

	if (w == NULL || !w->lost)
		return;
	w->works = useful;
	if (!useful) {
		w->turn++;
		w->try_ns = clock_now(p->clock) + TURN_NS;
	}
}

void
path_relay_gone(struct paths *p, node_id node)
{
	struct path *w = find(p, node);

	path_relay_ended(p, node, false);
	if (w != NULL)
		w->try_ns = clock_now(p->clock);
}

bool
path_relay_works(const struct paths *p, node_id node)
{
	const struct path *w = find(p, node);

	return w != NULL && w->lost && w->works;
}
