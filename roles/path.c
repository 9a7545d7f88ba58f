/* SPDX-License-Identifier: MIT */
/* path.c - nodes that this process cannot reach itself, though others may. */
#include "roles/path.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "conf/err.h"

#define ASK_NS		NS_PER_S	/* between two questions */
#define ASK_DOUBLINGS	3u		/* of a way that comes and goes */
#define STEADY_NS	(10 * NS_PER_S)	/* one that was open for so long does not */
#define TRY_NS		NS_PER_S	/* between two relays that do not answer, ... */
#define TURN_NS		(100 * NS_PER_MS)	/* ... that are of no use */
#define PING_NS		(200 * NS_PER_MS)
#define SILENT_NS	NS_PER_S
#define RELAY_SILENT_NS	(900 * NS_PER_MS)
#define RESETS		2u		/* a connection may break once for other reasons */

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
path_wanted(struct paths *p, node_id node, const struct net_addr *addr)
{
	struct path *w = find(p, node);

	if (w == NULL || !w->lost)
		return true;
	w->ask.addr = *addr;
	ask(w);
	return false;
}

bool
path_relay_works(const struct paths *p, node_id node)
{
	const struct path *w = find(p, node);

	return w != NULL && w->lost && w->works;
}

/* ---- relays ---- */

bool
path_relay_in_vain(struct net_call *call, uint64_t sent_ns, uint64_t now_ns)
{
	uint64_t heard = net_call_heard(call);

	if (heard < sent_ns)
		heard = sent_ns;
	if (now_ns - heard >= PING_NS)
		net_call_ping(call);
	return now_ns - heard >= RELAY_SILENT_NS;
}

/* A request for @node was sent to one. */
static void
relay_sent(struct paths *p, node_id node)
{
	struct path *w = find(p, node);

	if (w != NULL && !w->works)
		w->try_ns = clock_now(p->clock) + TRY_NS;
}

static void
relay_useful(struct paths *p, node_id node)
{
	struct path *w = find(p, node);

	if (w != NULL && w->lost)
		w->works = true;
}

/* The next may be tried after @pause_ns. */
static void
relay_useless(struct paths *p, node_id node, uint64_t pause_ns)
{
	struct path *w = find(p, node);

	if (w == NULL || !w->lost)
		return;
	w->works = false;
	w->turn++;
	w->try_ns = clock_now(p->clock) + pause_ns;
}

static node_id
node_of(const struct routing *r, target_id target)
{
	const struct routing_target *t = routing_target(r, target);

	return t == NULL ? 0 : t->node;
}

/* What is for @target should go by a relay. */
static bool
by_relay(struct paths *p, const struct routing *r, target_id target)
{
	node_id node = node_of(r, target);
	const struct path *w;
	struct net_addr addr;

	if (routing_target_addr(r, target, &addr) != 0 ||
	    path_wanted(p, node, &addr))
		return false;
	w = find(p, node);
	return w->works || clock_now(p->clock) >= w->try_ns;
}

/* The place of a replica that can pass on what is for the one at @place; ROUTING_REPLICAS_MAX:
 * there is none. */
static unsigned
pick(struct paths *p, const struct routing *r, const struct routing_chain *c,
    unsigned place)
{
	const struct path *w = find(p, node_of(r, c->targets[place]));
	unsigned n = routing_active_n(c), turn = w == NULL ? 0 : w->turn;
	struct net_addr addr;

	for (unsigned k = 0; k + 1 < n; k++) {
		unsigned i = (place + 1 + (turn + k) % (n - 1)) % n;

		if (routing_target_addr(r, c->targets[i], &addr) == 0 &&
		    path_wanted(p, node_of(r, c->targets[i]), &addr))
			return i;
	}
	return ROUTING_REPLICAS_MAX;
}

int
path_choose(struct paths *p, const struct routing *r, const struct routing_chain *c,
    unsigned place, struct path_way *w)
{
	unsigned at = ROUTING_REPLICAS_MAX;

	w->chain = c->id;
	w->version = c->version;
	w->target = c->targets[place];
	w->owner = node_of(r, w->target);
	if (by_relay(p, r, w->target))
		at = pick(p, r, c, place);
	w->via = at == ROUTING_REPLICAS_MAX ? 0 : c->targets[at];
	if (w->via == 0)
		at = place;
	w->node = node_of(r, c->targets[at]);
	return routing_target_addr(r, c->targets[at], &w->addr) == 0 ? 0 :
	    -EHOSTUNREACH;
}

void
path_sent(struct paths *p, struct path_way *w)
{
	w->sent_ns = clock_now(p->clock);
	if (w->via != 0)
		relay_sent(p, w->owner);
}

bool
path_in_vain(struct paths *p, const struct path_way *w, struct net_call *call,
    node_id *pinged)
{
	uint64_t now = clock_now(p->clock), heard = net_call_heard(call);

	if (heard < w->sent_ns)
		heard = w->sent_ns;
	if (now - heard >= PING_NS && w->node != *pinged) {
		*pinged = w->node;
		net_call_ping(call);
	}
	return now - heard >= SILENT_NS;
}

static void
lose(struct paths *p, const struct path_way *w)
{
	struct path_ask ask = { .addr = w->addr, .method = MSG_committed };

	ask.committed = (struct msg_committed){ .chain = w->chain,
	    .chain_version = w->version,
	    .target = w->via != 0 ? w->via : w->target, .chunk = { 1, 0 } };
	path_lost(p, w->node, &ask);
}

/* There is another way than @w. */
static bool
other_way(struct paths *p, const struct routing *r, const struct path_way *w)
{
	const struct routing_chain *c = routing_chain(r, w->chain);
	unsigned n = c == NULL ? 0 : routing_active_n(c), place = 0;

	while (place < n && c->targets[place] != w->target)
		place++;
	return w->via != 0 || (place < n && by_relay(p, r, w->target) &&
	    pick(p, r, c, place) != ROUTING_REPLICAS_MAX);
}

bool
path_give_up(struct paths *p, const struct routing *r, struct path_way *w)
{
	if (w->via != 0 && !path_is_lost(p, w->node))
		relay_useless(p, w->owner, 0);
	lose(p, w);
	return other_way(p, r, w);
}

/* What a relay has answered, of the one it was asked to pass on to. */
static void
relay_ended(struct paths *p, const struct path_way *w, int rc)
{
	switch (rc) {
	case ERR_STALE_CHAIN:
	case ERR_BUSY:
		break;			/* nothing */
	case ERR_CHAIN_RECOVERING:
	case ERR_NOT_OWNER:
	case ERR_NO_LEASE:
	case ERR_STOPPING:
		relay_useless(p, w->owner, TURN_NS);
		break;
	default:
		relay_useful(p, w->owner);
		break;
	}
}

bool
path_ended(struct paths *p, const struct routing *r, struct path_way *w, int rc)
{
	if (path_answered(rc)) {
		w->resets = 0;
		path_heard(p, w->node);
		if (w->via != 0)
			relay_ended(p, w, rc);
		return false;
	}
	w->resets = rc == -ECONNRESET || rc == -ETIMEDOUT ? w->resets + 1 : RESETS;
	if (w->via != 0)
		relay_useless(p, w->owner, 0);
	if (w->resets < RESETS)
		return false;
	lose(p, w);
	return other_way(p, r, w);
}
