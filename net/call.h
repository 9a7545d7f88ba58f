/* SPDX-License-Identifier: MIT */
/* call.h - the client side of calls: a hub holds one loop's transports and its
 * connections, made on demand and made again when they break.
 *
 * A call is a small message and, either way, an optional bulk payload.  Bulk is server
 * driven: the server pulls what the caller sends and pushes what it answers into the
 * caller's buffers, one-sided on RDMA; on TCP the payload follows its message on the
 * stream and is received straight into the final buffer.  Roles see no difference. */
#ifndef NET_CALL_H
#define NET_CALL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "conf/clock.h"
#include "conf/ids.h"
#include "conf/list.h"
#include "conf/log.h"
#include "conf/rand.h"
#include "conf/stat.h"
#include "net/addr.h"
#include "net/grant.h"
#include "net/msg.h"

#define NET_MSG_MAX	(1100u << 10)	/* bytes of one encoded message */
#define NET_BULK_MAX	(64u << 20)	/* bytes of one payload */
#define NET_BULK_PIECES	64u		/* scattered parts of one reply payload */
#define NET_KEY_BYTES	32u

struct net_transport;
struct net_hub;
struct net_peer;

struct net_hub_conf {
	struct clock	  *clock;
	struct rand	  *rand;	/* jitter of reconnects; not for keys */
	const struct log  *log;
	/* The cluster key; copied. */
	uint8_t		   key[NET_KEY_BYTES];
	const char	  *cluster;	/* its name; NULL: "". Both ends alike */
	/* Nonces of the hello; NULL: libsodium. The simulator gives its own. */
	void		 (*nonce)(void *ctx, void *out, size_t n);
	void		  *nonce_ctx;
	uint32_t	   calls_max;	/* in flight, all peers; over it ERR_BUSY */
	uint32_t	   idle_ms;	/* close a connection unused for this long */
	/* Bytes of reply payload that may be under way to this hub at once, from all
	 * servers (net/grant.h); 0: no limit. */
	uint64_t	   receive_window;
	/* Where the hub and its servers tell their counters, as of log's speaker; NULL:
	 * nowhere. Borrowed. */
	struct stat_registry *stats;
};

#define NET_HUB_STATS(X) \
	X(counter, calls,      "calls that were begun")                          \
	X(counter, refusals,   "calls answered with an error")                   \
	X(counter, failures,   "calls that ended without an answer")             \
	X(counter, timeouts,   "of those, calls whose deadline passed")          \
	X(counter, connects,   "connections that were made")                     \
	X(counter, sent_bytes, "payload sent with calls")                        \
	X(counter, recv_bytes, "payload received with replies")                  \
	X(counter, asks,       "replies that had to ask before they came")       \
	X(gauge,   calls_now,  "calls in flight")                                \
	X(gauge,   window,     "bytes of replies that may be under way; 0: any") \
	X(gauge,   granted,    "of those, bytes that are")                       \
	X(gauge,   waiting,    "replies that wait until they may come")          \
	X(hist,    ask_ns,     "time that replies waited for their grant")
STAT_DECLARE(net_hub, NET_HUB_STATS)

int	net_hub_open(struct net_hub **out, const struct net_hub_conf *conf);
/* Add a way to reach addresses of some kinds; owned by the hub from here on. */
void	net_hub_add(struct net_hub *hub, struct net_transport *t);
/* The one that serves addresses of this kind, or NULL. */
struct net_transport *net_hub_transport(struct net_hub *hub, uint8_t addr_kind);
/* The one that connections move to where both ends have RDMA (net/rdma.h), or NULL. */
struct net_transport *net_hub_rdma(struct net_hub *hub);
/* Ends connections; calls in flight never call back. NULL is fine.  May be called from
 * a call's fn. */
void	net_hub_close(struct net_hub *hub);
/* Tell all transports of memory that payloads will lie in, so that one-sided ones need
 * not register it each time; nothing to do on others.  0, -ENOMEM or the device's
 * refusal (payloads in it still work). The memory must stay until net_mem_del(). */
struct net_mem_set;
int	net_mem_add(struct net_hub *hub, void *p, size_t n, struct net_mem_set **out);
void	net_mem_del(struct net_hub *hub, struct net_mem_set *m);	/* NULL is fine */
/* Have all buffers of @pool known so, where any transport has need of that; before the first
 * one is taken.  The pool must be closed before the hub.  0 or -ENOMEM. */
struct mem_pool;
int	net_mem_pool(struct net_hub *hub, struct mem_pool *pool);
/* What is in flight, and connections that are up; for counters and tests. */
uint32_t net_hub_calls(const struct net_hub *hub);
uint32_t net_hub_conns(const struct net_hub *hub);
const struct net_hub_stat *net_hub_stats(const struct net_hub *hub);

struct net_call;
typedef void net_call_fn(struct net_call *c, int rc);

struct net_call_opts {
	uint64_t	    deadline_ns;	/* on the hub's clock; required */
	const struct iovec *send;	/* payload for the server; borrowed until fn */
	unsigned	    send_n;
	const struct iovec *recv;	/* where reply payload goes; borrowed, and the
					 * memory written to, until fn */
	unsigned	    recv_n;
};

/* One attempt at one call, embedded by its owner; zero it before the first use. */
struct net_call {
	/* in fn, when rc == 0: the decoded reply (struct msg_REPLY of the method),
	 * borrowed until fn returns; zeroed fields when rc != 0 */
	const void	*rep;
	uint32_t	 rep_bulk;	/* payload bytes that were received */
	/* the rest is net/call.c's */
	net_call_fn	*fn;
	struct net_hub	*hub;
	struct net_peer	*peer;
	uint64_t	 id;
	const struct msg_method *method;
	struct net_call_opts opts;
	struct clock_timer deadline;
	struct list	 node;
	void		*out;		/* encoded request until it has left */
	void		*kept;		/* reply whose payload is not whole yet */
	void		*rx;		/* that payload */
	struct net_grant grant;		/* to send the reply's payload */
	uint32_t	 room, may;	/* bytes of it: wanted at most, may come */
	uint64_t	 sent_ns, asked_ns;
	int		 rc;
	uint8_t		 state;
	uint16_t	 ticks;		/* left for the peer to let go of memory */
};

/* Send @method with @req (struct msg_REQUEST, encoded before this returns) to @to.
 *
 * fn runs exactly once, never before this has returned, with the server's rc, or -ETIMEDOUT
 * at the deadline (or up to 200 ms later, see net_call_abandon()), -ECONNREFUSED,
 * -EHOSTUNREACH (no connection, for whatever reason of this box or the network), -ECONNRESET
 * (it may or may not have been executed), ERR_AUTH, ERR_WIRE_VERSION, ERR_BAD_MESSAGE.  When
 * fn runs nobody touches the caller's buffers any more.
 * Returns 0; or, and then fn never runs: ERR_BUSY over calls_max, -EMSGSIZE, -ENOMEM,
 * -EAFNOSUPPORT when no transport serves the address. */
int	net_call_start(struct net_call *c, struct net_hub *hub,
	    const struct net_addr *to, uint16_t method, const void *req,
	    const struct net_call_opts *opts, net_call_fn *fn);
/* fn will not run and buffers are free when this returns.  An idle call is fine.  When the
 * peer may be reading or writing them right now its connection goes, with all calls on it. */
void	net_call_cancel(struct net_call *c);
/* The same for who can wait, sparing the connection.  True: as net_call_cancel(). False:
 * the peer was asked to let go of the buffers; fn runs with -ECANCELED (-ETIMEDOUT when the
 * deadline had passed) when it has, or when the connection is broken since it has not soon
 * enough.  Till then they stay, as in any call; net_call_cancel() may still end it. */
bool	net_call_abandon(struct net_call *c);
/* The same for buffers that nobody needs: a peer that merely stands still for a while, with
 * other calls on its connection, is given the time until it is known to be gone, or 10 s. */
bool	net_call_leave(struct net_call *c);
bool	net_call_active(const struct net_call *c);
/* When the peer of an active call last showed that it is there: bytes came from it, or what
 * is sent to it moves.  0: no connection yet. */
uint64_t net_call_heard(const struct net_call *c);
/* The server has the answer ready; what it waits for is room here (receive_window). */
bool	net_call_waits(const struct net_call *c);
/* Make it show that; nothing happens while there is no connection. */
void	net_call_ping(struct net_call *c);

#endif
