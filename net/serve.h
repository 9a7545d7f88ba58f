/* SPDX-License-Identifier: MIT */
/* serve.h - the server side of calls: listen, admit, dispatch, pull, reply.
 *
 * A handler gets a request it must answer exactly once with net_reply(), now or later.
 * Limits: a request over them is answered ERR_BUSY without reaching its handler. */
#ifndef NET_SERVE_H
#define NET_SERVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "net/call.h"

struct net_server;
struct net_req;

typedef void net_serve_fn(void *ctx, struct net_req *req);

struct net_server_conf {
	struct net_hub	*hub;		/* borrowed; must outlive the server */
	struct net_addr	 listen;	/* TCP port 0: any, see net_server_addr() */
	uint32_t	 conns_max;	/* connections; more are refused */
	uint32_t	 reqs_max;	/* requests in flight, all connections; until their
					 * reply has left.  One connection has its part of
					 * them, and more while as many are free */
	uint32_t	 conn_reqs_max;	/* and of one connection */
	uint64_t	 replies_max;	/* bytes of reply payload, all connections, until
					 * they have left: requests for more wait for their
					 * turn, fairly over connections; 0: no limit */
	uint32_t	 hello_ms;	/* to prove the key, or be closed */
	uint32_t	 payload_ms;	/* a message or payload must end this long after
					 * it began, or the connection is closed */
};

#define NET_SERVER_STATS(X) \
	X(counter, requests,    "requests that reached their handler")           \
	X(counter, busy,        "requests answered with: busy, come again")      \
	X(counter, errors,      "requests answered with any other error")        \
	X(counter, bad,         "messages that were not understood")             \
	X(counter, recv_bytes,  "payload received with requests")                \
	X(counter, sent_bytes,  "payload sent with replies")                     \
	X(gauge,   connections, "connections that are open")                     \
	X(gauge,   inflight,    "requests whose reply has not left")             \
	X(gauge,   parked,      "of those, requests that wait for room for their reply") \
	X(counter, asks,        "replies that had to ask their caller first")    \
	X(gauge,   asking,      "replies that wait for their caller's grant")    \
	X(hist,    request_ns,  "time from request to reply")
STAT_DECLARE(net_server, NET_SERVER_STATS)

int	net_server_open(struct net_server **out, const struct net_server_conf *c);
/* Who answers methods whose id has this high byte (0x01 manager, 0x02 metadata,
 * 0x03 storage); others get ERR_BAD_METHOD. */
void	net_server_handle(struct net_server *s, uint8_t service, net_serve_fn *fn,
	    void *ctx);
/* Where it listens, with the port it really got. */
void	net_server_addr(const struct net_server *s, struct net_addr *out);
/* Take no new requests (ERR_STOPPING); those in flight go on. */
void	net_server_drain(struct net_server *s);
uint32_t net_server_inflight(const struct net_server *s);
const struct net_server_stat *net_server_stats(const struct net_server *s);
/* Close all connections.  Requests not answered yet stay valid for their handlers
 * until net_reply() or net_req_drop(); a pull in flight no longer calls back, and its
 * memory is free.  Every sent(arg) that is still due runs within. NULL is fine; may be
 * called from a handler. */
void	net_server_close(struct net_server *s);

typedef void net_pull_fn(struct net_req *req, int rc);
typedef void net_sent_fn(void *arg);

/* One request in the hands of a handler. */
struct net_req {
	uint16_t	 method;
	const void	*msg;		/* decoded struct msg_REQUEST; until net_reply() */
	uint32_t	 bulk_len;	/* payload the caller offers, bytes */
	uint32_t	 recv_len;	/* room the caller has for reply payload, bytes */
	uint64_t	 deadline_ns;	/* the caller gives up then (our clock) */
	void		*user;		/* the handler's */
	void		*impl;		/* net/request.c's */
};

/* Receive the payload into @dst (its lengths sum to bulk_len; the iovecs are copied,
 * the memory is borrowed until fn); at most once a request, soon after the handler was
 * called: on TCP other requests of that connection wait behind the payload.  A request
 * that is answered without it drops the payload.
 * fn(req, 0), or -ECONNRESET when the caller has gone: the handler must still reply.
 * Replying or dropping while it is in flight ends it: fn never runs; where that cannot be had
 * (one-sided) the connection goes too, so who can wait for fn does. */
void	net_pull_start(struct net_req *req, const struct iovec *dst, unsigned n,
	    net_pull_fn *fn);

/* A part of a reply payload and its offset in the caller's receive buffers. */
struct net_piece {
	const void *p;
	uint32_t    len;
	uint32_t    dst_off;
};

/* Answer and forget @req.  @rep is encoded before this returns; NULL when rc != 0
 * (or for "none").  Pieces are borrowed until sent(arg) runs - which it always does,
 * once, maybe before this returns, also when the caller has gone; NULL: not wanted (then
 * n must be 0). */
void	net_reply(struct net_req *req, int rc, const void *rep,
	    const struct net_piece *pieces, unsigned n, net_sent_fn *sent, void *arg);
/* Forget @req without an answer (the process is being torn down). */
void	net_req_drop(struct net_req *req);

#endif
