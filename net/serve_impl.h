/* SPDX-License-Identifier: MIT */
/* serve_impl.h - what net/serve.c (connections, admission) and net/request.c (what becomes of
 * one request) share.  Nobody else includes this. */
#ifndef NET_SERVE_IMPL_H
#define NET_SERVE_IMPL_H

#include "net/conn.h"
#include "net/serve.h"

#define REQ_INLINE	1024u		/* message and its struct, usually */

enum req_state { REQ_HELD, REQ_PARKED, REQ_PULLING, REQ_ASKING, REQ_REPLYING };

struct sconn {
	struct net_conn	   conn;
	struct net_server *srv;
	struct list	   node;	/* s->fresh until its hello, then s->conns */
	struct list	   reqs;
	uint32_t	   reqs_n;
	struct list	   asking;	/* of those, replies that wait for a grant */
	struct list	   parked;	/* and those their handler has not seen yet */
	uint64_t	   owed_bytes;	/* what replies that must ask may have, of those it
					 * has; until they are granted */
	struct net_grant_peer replies;	/* what it has of s->replies */
};

struct req {
	struct net_req	   pub;		/* first: impl is not needed to find us */
	struct list	   node;	/* conn->reqs, s->orphans, or spare */
	struct list	   ready;	/* s->ready: fn or handler is due; conn->asking or
					 * parked */
	struct net_server *srv;
	struct sconn	  *conn;
	struct net_rx	  *rx;
	struct net_far	  *far;
	const struct msg_method *method;
	uint64_t	   id, start_ns, asked_ns;
	uint32_t	   may;		/* payload that the reply may have unasked */
	uint32_t	   owed;	/* of conn->owed_bytes */
	struct net_grant   memory;	/* of s->replies */
	struct net_out	  *out;		/* ASKING: the reply */
	enum req_state	   state;
	net_pull_fn	  *pulled;
	int		   rc;
	net_sent_fn	  *sent;
	void		  *sent_arg;
	void		  *big;		/* NULL: @room was enough */
	struct msg_arena   arena;
	_Alignas(16) uint8_t room[REQ_INLINE];
};

struct net_server {
	struct net_server_conf conf;
	struct net_hub	   *hub;
	struct net_transport *transport;
	struct net_listener *listener;
	struct net_window   replies;	/* payload of replies, until they have left */
	struct net_grant_peer gone;	/* what handlers hold of it for nobody */
	struct list	    fresh, conns, orphans, ready, spare;
	unsigned	    spare_n;
	uint32_t	    conns_n, reqs_n;
	uint32_t	    held;
	bool		    draining, closed;
	struct clock_timer  sweep;
	struct clock_defer  run;
	uint64_t	    full_log_ns;
	struct net_server_stat stat;
	struct stat_set	    stat_set;
	struct {
		net_serve_fn *fn;
		void	     *ctx;
	} services[256];
};

static inline struct clock *
net_server_clock(const struct net_server *s)
{
	return s->hub->conf.clock;
}

/* ---- net/serve.c ---- */

/* Let go of s->held. */
void	net_server_put(struct net_server *s);
/* Its requests live on; pulls of theirs fail, and replies are as good as sent. */
void	net_server_close_conn(struct sconn *sc, bool linger);
void	net_server_count_error(struct net_server *s, int rc);

/* Give @r to its handler. */
void	net_server_dispatch(struct req *r);

/* ---- net/request.c ---- */

/* Counted, on no list yet. NULL: out of memory. */
struct req *net_req_new(struct net_server *s);
void	net_req_free(struct req *r);
/* The reply has left or never will. Runs sent(). */
void	net_req_finish(struct req *r);
/* The caller of @sc has answered the question for reply @id: it may come, or is not wanted. */
void	net_req_granted(struct sconn *sc, uint64_t id, bool wanted);
/* No grant has come for too long: the caller is told to come again. */
void	net_req_give_up(struct req *r);
/* Its connection has gone. */
void	net_req_unask(struct req *r);
/* May @r, which has just come, go to its handler?  If not it will, when there is room for
 * its reply. */
bool	net_req_admit(struct req *r);
/* It takes no room any more. */
void	net_req_leave(struct req *r);
/* Room has come: whoever waits for it is next. */
void	net_req_next(struct net_server *s);
/* The fn of its pull is due with @rc, from the loop. */
void	net_req_pull_ended(struct req *r, int rc);

#endif
