/* SPDX-License-Identifier: MIT */
/* peer.c - who is called: connections made on demand, made again when they break, and watched
 * while somebody waits.
 *
 *   IDLE -> CONNECTING -> UP
 *      \-> PAUSED -/
 *
 * 1. A failed connection fails all calls on it.  Those that start while a peer is PAUSED
 *    wait for the next attempt, at most BACKOFF_MAX_MS, and share its fate: so calls to a
 *    dead server fail soon, but callers that retry in a circle are paced.
 * 2. When nothing has come for QUIET_MS while a call waits, or since a call was sent that
 *    timed out, we ask whether the peer is there (ping); no answer for PROBE_MS breaks the
 *    connection, so after a cut has healed we do not wait for TCP's own slow retries (nor in
 *    connecting, hence CONNECT_MS).
 * 3. Devices come back.  When a connection had to stay on TCP, calls begin on a new one after
 *    a while; the old one ends with what is under way on it, for that belongs to its channel. */
#include "net/peer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "conf/bytes.h"
#include "conf/err.h"

#define CONNECT_MS	1500u		/* connect and hello */
#define BACKOFF_MIN_MS	10u
#define BACKOFF_MAX_MS	250u
#define QUIET_MS	1000u		/* nothing came while a call waits: ping */
#define PROBE_MS	1500u		/* no answer to that: the connection goes */
#define FORGET_MS	60000u		/* peers without connection */
#define TCP_MS		60000u		/* RDMA led nowhere: so long without */
#define BETTER_MS	10000u		/* refused: so long too, and twice that each time */
#define BETTER_MAX_MS	3600000u

static void peer_is_old(struct clock_timer *t);

/* ---- peers ---- */

static uint64_t
hash_addr(const struct net_addr *a)
{
	uint64_t h = 14695981039346656037ull ^ a->kind;

	h = (h ^ a->port) * 1099511628211ull;
	h = (h ^ a->id) * 1099511628211ull;
	for (unsigned i = 0; i < sizeof(a->ip); i += 4) {
		h = (h ^ bytes_le32(a->ip + i)) * 1099511628211ull;
		h ^= h >> 32;
	}
	return h;
}

static struct net_peer *
make_peer(struct net_hub *hub, const struct net_addr *addr, uint64_t hash)
{
	struct net_peer *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->same = map_get(&hub->peers, hash);
	if (map_put(&hub->peers, hash, p) != 0) {
		free(p);
		return NULL;
	}
	p->hash = hash;
	p->addr = *addr;
	p->hub = hub;
	list_init(&p->waiting);
	list_init(&p->sent);
	list_init(&p->revoking);
	net_grant_peer_init(&p->grant);
	list_push_back(&hub->peer_list, &p->node);
	clock_timer_start(hub->conf.clock, &p->timer,
	    net_now(hub) + FORGET_MS * NS_PER_MS, peer_is_old);
	return p;
}

struct net_peer *
net_peer_get(struct net_hub *hub, const struct net_addr *addr)
{
	uint64_t hash = hash_addr(addr);

	for (struct net_peer *p = map_get(&hub->peers, hash); p != NULL; p = p->same)
		if (net_addr_eq(&p->addr, addr))
			return p;
	return make_peer(hub, addr, hash);
}

/* Nobody finds it any more. */
static void
hide(struct net_peer *p)
{
	struct net_hub *hub = p->hub;
	struct net_peer *first = map_del(&hub->peers, p->hash), **at;

	for (at = &first; *at != p; at = &(*at)->same)
		;
	*at = p->same;
	/* Room for this key has just been made. */
	if (first != NULL && map_put(&hub->peers, p->hash, first) != 0)
		assert(!"a table that shrank has no room");
}

/* Is nothing under way? */
static bool
is_unused(const struct net_peer *p)
{
	return list_empty(&p->sent) && list_empty(&p->revoking) && p->grant.held == 0 &&
	    list_empty(&p->grant.node);
}

static void
free_peer(struct net_peer *p)
{
	struct net_hub *hub = p->hub;

	assert(p->conn.chan == NULL && list_empty(&p->waiting) && is_unused(p));
	if (!p->retired)
		hide(p);
	net_stop_timer(hub, &p->timer);
	net_stop_timer(hub, &p->probe);
	list_remove(&p->node);
	free(p);
}

static void
peer_is_old(struct clock_timer *t)
{
	free_peer(container_of(t, struct net_peer, timer));
}

/* End the connection and, later, all calls on it. */
static void
disconnect(struct net_peer *p, int rc)
{
	struct net_hub *hub = p->hub;
	uint64_t now = net_now(hub);
	struct list unsent;

	list_init(&unsent);
	net_conn_close(&p->conn, &unsent, false);
	if (p->state == PEER_UP)
		hub->conns_n--;
	p->state = PEER_IDLE;
	net_stop_timer(hub, &p->probe);
	clock_timer_start(hub->conf.clock, &p->timer,
	    now + FORGET_MS * NS_PER_MS, peer_is_old);
	net_calls_lost(p, &unsent, rc);
}

/* The peer failed us: the next attempt waits, longer each time.  @p->fails is back to
 * 0 with every reply, so a connection that did its work is made again at once. */
void
net_peer_failed(struct net_peer *p, int rc)
{
	struct net_hub *hub = p->hub;
	uint64_t ms = BACKOFF_MAX_MS;

	if (p->fails++ == 0 && p->state == PEER_UP) {
		ms = 0;
	} else {
		if (p->fails < 6 && (BACKOFF_MIN_MS << (p->fails - 1)) < ms)
			ms = BACKOFF_MIN_MS << (p->fails - 1);
		ms = ms / 2 + rand_below(hub->conf.rand, ms / 2 + 1);
	}
	p->not_before_ns = net_now(hub) + ms * NS_PER_MS;
	disconnect(p, rc);
}

/* Silence broke it.  Where TCP came through and over RDMA not a word did (a partition, a
 * filter, a path that is cut for it alone) the next connections stay on TCP. */
static void
peer_was_silent(struct net_peer *p)
{
	char addr[NET_ADDR_TEXT];

	if (p->state != PEER_UP || !p->conn.on_rdma || p->conn.rdma_heard)
		return;
	net_addr_text(&p->addr, addr);
	log_warn(p->hub->conf.log, "no answer over RDMA, over TCP for a while",
	    "peer=%s s=%u", addr, TCP_MS / 1000);
	p->tcp_until_ns = net_now(p->hub) + TCP_MS * NS_PER_MS;
}

static void
peer_is_unused(struct clock_timer *t)
{
	struct net_peer *p = container_of(t, struct net_peer, timer);
	struct net_hub *hub = p->hub;
	uint64_t idle_ns = hub->conf.idle_ms * NS_PER_MS, now = net_now(hub);

	if (p->retired ? is_unused(p) : list_empty(&p->sent) &&
	    now - p->used_ns >= idle_ns) {
		disconnect(p, 0);
		free_peer(p);
		return;
	}
	if (!p->retired)
		clock_timer_start(hub->conf.clock, t, list_empty(&p->sent) ?
		    p->used_ns + idle_ns : now + idle_ns, peer_is_unused);
}

uint64_t
net_peer_heard(const struct net_peer *p)
{
	const struct net_chan *chan = p->conn.chan;

	return chan->out_bytes > 0 && chan->tx_since_ns > chan->rx_ns ?
	    chan->tx_since_ns : chan->rx_ns;
}

static void watch_due(struct clock_timer *t);

static void
watch_at(struct net_peer *p, uint64_t at_ns)
{
	clock_timer_start(p->hub->conf.clock, &p->probe, at_ns, watch_due);
}

static void
ask_for_life(struct net_peer *p)
{
	p->probe_ns = net_now(p->hub);
	/* Out of memory for a ping: then silence alone decides. */
	(void)net_conn_ping(&p->conn);
	watch_at(p, p->probe_ns + PROBE_MS * NS_PER_MS);
}

static void
watch_due(struct clock_timer *t)
{
	struct net_peer *p = container_of(t, struct net_peer, probe);
	uint64_t now = net_now(p->hub), last = net_peer_heard(p);

	if (p->probe_ns != 0 && last < p->probe_ns) {
		char addr[NET_ADDR_TEXT];

		net_addr_text(&p->addr, addr);
		log_info(p->hub->conf.log, "peer is silent", "peer=%s ms=%u", addr,
		    PROBE_MS);
		peer_was_silent(p);
		net_peer_failed(p, -ECONNRESET);
		return;
	}
	p->probe_ns = 0;
	if (list_empty(&p->sent) && list_empty(&p->revoking))
		return;			/* nobody waits */
	if (last + QUIET_MS * NS_PER_MS > now)
		watch_at(p, last + QUIET_MS * NS_PER_MS);
	else
		ask_for_life(p);
}

void
net_peer_watch(struct net_peer *p)
{
	if (p->probe.pos != 0)
		return;
	p->probe_ns = 0;
	watch_at(p, net_now(p->hub) + QUIET_MS * NS_PER_MS);
}

void
net_peer_probe(struct net_peer *p, uint64_t sent_ns)
{
	if (p->state == PEER_UP && (p->probe.pos == 0 || p->probe_ns == 0) &&
	    p->conn.chan->rx_ns <= sent_ns)
		ask_for_life(p);
}

/* ---- connections ---- */

static void
better_at(struct net_peer *p)
{
	uint64_t ms = BETTER_MAX_MS;

	if (p->on_tcp < 16 && (BETTER_MS << p->on_tcp) < ms)
		ms = BETTER_MS << p->on_tcp;
	p->on_tcp = p->conn.on_rdma ? 0 : p->on_tcp + 1;
	p->better_ns = p->used_ns + ms * NS_PER_MS;
}

/* The peer that calls go to from now on; @p when there is no memory for another. */
static struct net_peer *
retire(struct net_peer *p)
{
	struct net_peer *next = make_peer(p->hub, &p->addr, p->hash);

	if (next == NULL)
		return p;
	next->on_tcp = p->on_tcp;
	hide(p);
	p->retired = true;
	net_stop_timer(p->hub, &p->timer);
	return next;
}

struct net_peer *
net_peer_better(struct net_peer *p)
{
	uint64_t now = net_now(p->hub);

	if (p->state != PEER_UP || now < p->better_ns || now < p->tcp_until_ns ||
	    !net_conn_may_move(&p->conn))
		return p;
	if (!is_unused(p))
		return retire(p);
	disconnect(p, 0);
	return p;
}

void
net_peer_less(struct net_peer *p)
{
	if (p->retired && p->state == PEER_UP && is_unused(p))
		clock_timer_start(p->hub->conf.clock, &p->timer, net_now(p->hub),
		    peer_is_unused);
}

static void
conn_up(struct net_conn *conn)
{
	struct net_peer *p = container_of(conn, struct net_peer, conn);
	struct net_hub *hub = p->hub;

	p->state = PEER_UP;
	p->used_ns = net_now(hub);
	better_at(p);
	hub->conns_n++;
	stat_add(&hub->stat.connects, 1);
	if (hub->conf.idle_ms > 0)
		clock_timer_start(hub->conf.clock, &p->timer,
		    p->used_ns + hub->conf.idle_ms * NS_PER_MS, peer_is_unused);
	net_calls_up(p);
}

/* A box refuses to connect in words of its own (EINVAL, EACCES, EPERM, EADDRNOTAVAIL, also
 * EMFILE ...); none is about what was asked, and askers may look for another peer. */
static int
unreachable(int rc)
{
	return rc > ERR_STALE_CHAIN && err_next(rc) == ERR_NEXT_FAIL ?
	    -EHOSTUNREACH : rc;
}

/* Whatever broke a connection that was up, the caller hears -ECONNRESET: it may or may
 * not have been executed. */
static void
conn_closed(struct net_conn *conn, int rc)
{
	struct net_peer *p = container_of(conn, struct net_peer, conn);

	if (p->fails == 0) {
		char addr[NET_ADDR_TEXT];

		net_addr_text(&p->addr, addr);
		log_info(p->hub->conf.log, p->state == PEER_UP ? "connection lost" :
		    "cannot connect", "peer=%s why=%s", addr, err_name(rc));
	}
	if (rc == -EHOSTUNREACH)	/* the device has given up sending again */
		peer_was_silent(p);
	net_peer_failed(p, p->state == PEER_UP || rc == -EPIPE ? -ECONNRESET :
	    unreachable(rc));
}

static const struct net_conn_ops conn_ops = {
	.up = conn_up,
	.frame = net_calls_frame,
	.pulled = net_calls_pulled,
	.sent = net_calls_sent,
	.closed = conn_closed
};

static void
pause_is_over(struct clock_timer *t)
{
	struct net_peer *p = container_of(t, struct net_peer, timer);

	p->state = PEER_IDLE;
	net_peer_connect(p);
}

void
net_peer_connect(struct net_peer *p)
{
	struct net_hub *hub = p->hub;
	int rc;

	if (p->state != PEER_IDLE)
		return;
	if (p->not_before_ns > net_now(hub)) {
		p->state = PEER_PAUSED;
		clock_timer_start(hub->conf.clock, &p->timer, p->not_before_ns,
		    pause_is_over);
		return;
	}
	net_stop_timer(hub, &p->timer);
	p->state = PEER_CONNECTING;
	rc = net_conn_connect(&p->conn, hub, net_hub_transport(hub, p->addr.kind),
	    &p->addr, CONNECT_MS, &conn_ops);
	p->conn.no_rdma = p->tcp_until_ns > net_now(hub);
	if (rc != 0)
		conn_closed(&p->conn, rc);
}

void
net_peers_close(struct net_hub *hub)
{
	while (!list_empty(&hub->peer_list)) {
		struct net_peer *p = list_entry(hub->peer_list.next, struct net_peer,
		    node);

		disconnect(p, -ECONNRESET);
		free_peer(p);
	}
}
