/* SPDX-License-Identifier: MIT */
/* peer.h - whom the calls of a hub go to.  Only net/call.c and net/peer.c include this: the
 * one owns the calls, the other the connection below them. */
#ifndef NET_PEER_H
#define NET_PEER_H

#include "net/conn.h"

enum net_peer_state { PEER_IDLE, PEER_PAUSED, PEER_CONNECTING, PEER_UP };

struct net_peer {
	struct list	   node;	/* hub->peer_list */
	struct net_peer	  *same;	/* next with this hash */
	uint64_t	   hash;
	struct net_addr	   addr;
	struct net_hub	  *hub;
	struct net_conn	   conn;
	enum net_peer_state state;
	/* calls: without a connection, on it, and those that want their memory back */
	struct list	   waiting, sent, revoking;
	struct net_grant_peer grant;	/* what it may send */
	struct clock_timer timer;	/* PAUSED: try; UP: idle?; IDLE: forget */
	struct clock_timer probe;
	uint64_t	   probe_ns, used_ns, not_before_ns;
	uint64_t	   tcp_until_ns;	/* its network lets no RDMA through */
	uint64_t	   better_ns;	/* on TCP: try RDMA again then */
	uint32_t	   on_tcp;	/* connections in a row that stayed there */
	bool		   retired;	/* calls begin on another, those under way end here */
	uint32_t	   fails;	/* in a row, without a reply between */
};

static inline uint64_t
net_now(const struct net_hub *hub)
{
	return clock_now(hub->conf.clock);
}

static inline void
net_stop_timer(struct net_hub *hub, struct clock_timer *t)
{
	clock_timer_stop(hub->conf.clock, t);
}

/* ---- net/peer.c ---- */

/* The one at @addr, made when it is not known yet. NULL: out of memory. */
struct net_peer *net_peer_get(struct net_hub *hub, const struct net_addr *addr);
/* Have a connection made, now or when the pause is over; one that is there is fine. */
void	net_peer_connect(struct net_peer *p);
/* Whom a call to @p is for.  That is another, not connected yet, where RDMA was refused a while
 * ago: it may have better luck. */
struct net_peer *net_peer_better(struct net_peer *p);
/* A call on it has ended. */
void	net_peer_less(struct net_peer *p);
/* It failed us: the connection ends, and later all calls on it. */
void	net_peer_failed(struct net_peer *p, int rc);
/* A call waits for it. */
void	net_peer_watch(struct net_peer *p);
/* A call that was sent at @sent_ns timed out. */
void	net_peer_probe(struct net_peer *p, uint64_t sent_ns);
/* When bytes came from it, or what it is sent moved. */
uint64_t net_peer_heard(const struct net_peer *p);
/* Without any upcall. */
void	net_peers_close(struct net_hub *hub);

/* ---- net/call.c ---- */

/* The connection is there: what waits is sent. */
void	net_calls_up(struct net_peer *p);
/* It is gone, and has given back what it had not sent: all calls end with @rc, later. */
void	net_calls_lost(struct net_peer *p, struct list *unsent, int rc);
/* Upcalls of the connection. */
void	net_calls_frame(struct net_conn *conn, const uint8_t *head,
	    const struct net_frame *f, struct net_rx *rx, struct net_far *far);
void	net_calls_pulled(struct net_conn *conn, struct net_rx *rx);
void	net_calls_sent(struct net_conn *conn, struct net_out *o);

/* ---- net/call_grant.c ---- */

/* @c is about to be sent to @p: how much payload of its reply may come unasked. */
uint32_t net_call_may(struct net_call *c, struct net_peer *p);
/* The server asks for that much. 0; ERR_BAD_MESSAGE when it had no reason to. */
int	net_call_asked(struct net_call *c, uint32_t bytes);
/* It asks for a call that is not there any more. 0; -ENOMEM; ERR_BAD_MESSAGE: it asks and asks,
 * and does not read what it is told. */
int	net_call_asked_late(struct net_peer *p, uint64_t id);
/* The reply is here, its payload may follow. 0; ERR_BAD_MESSAGE when that is more than it
 * may be. */
int	net_call_came(struct net_call *c, uint32_t bytes);
/* @c ends before its reply, on a connection that stays. */
void	net_call_give_up(struct net_call *c);
/* @c ends: what it had been granted is free again. */
void	net_call_grant_end(struct net_call *c);

#endif
