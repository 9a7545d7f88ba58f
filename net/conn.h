/* SPDX-License-Identifier: MIT */
/* conn.h - what calls, peers and servers share: the hub, frames that wait to leave, and a
 * connection from its hello on.  Nobody else includes this. */
#ifndef NET_CONN_H
#define NET_CONN_H

#include "conf/map.h"
#include "net/call.h"
#include "net/frame.h"
#include "net/hello.h"
#include "net/transport.h"

#define NET_OUT_SMALL	768u	/* bytes behind a net_out that is reused */
#define NET_ARENA_MAX	(8u << 20)	/* what one decoded message may point to */

struct net_conn;
struct net_out;

struct net_hub {
	struct net_hub_conf conf;
	uint8_t	    tag[NET_TAG];
	struct list transports;
	struct net_transport *rdma;	/* of those; NULL: none */
	uint8_t	   *scratch;		/* NET_HEAD_MAX: frames are made here */
	struct list outs;		/* spare struct net_out of the small size */
	unsigned    outs_n;
	uint64_t    auth_log_ns;	/* when a failed hello was last logged */
	uint32_t    auth_quiet;		/* and how many were not, since */
	uint32_t    held;		/* > 0: callbacks run; freeing waits */
	bool	    closed;
	/* net/call.c's and net/peer.c's */
	struct map  calls;		/* id -> struct net_call */
	struct map  peers;		/* hash of address -> first struct net_peer */
	struct list peer_list;
	struct list ending;		/* calls whose fn is due */
	struct clock_defer end;
	struct net_window window;	/* for replies to our calls */
	struct clock_defer grants;	/* due: whoever may send is told */
	uint64_t    next_id;
	uint32_t    calls_n, conns_n;
	void	   *rep, *rep_zero;	/* room for the largest reply */
	size_t	    rep_bytes;
	struct net_hub_stat stat;
	struct stat_set stat_set;
};

static inline const char *
net_hub_who(const struct net_hub *hub)
{
	return hub->conf.log != NULL ? hub->conf.log->who : "";
}

/* End all calls and connections, without callbacks (net/call.c). */
void	net_calls_close(struct net_hub *hub);
/* Several callbacks in a row: the hub's memory stays until put. */
void	net_hub_get(struct net_hub *hub);
void	net_hub_put(struct net_hub *hub);
void	net_hub_nonce(struct net_hub *hub, uint8_t out[NET_NONCE]);

/* A frame in memory of its own, with room for payload iovecs. */
struct net_out {
	struct net_tx tx;
	void	     *owner;		/* call or request; NULL: nobody waits for it */
	size_t	      cap;		/* bytes behind this struct */
	struct iovec *iov;
	uint32_t     *dst_off;
	uint8_t	     *head;
};

/* NULL: out of memory.  tx.head is set; lengths and payload are the caller's. */
struct net_out *net_out_new(struct net_hub *hub, uint32_t head_len, unsigned iov_n);
void	net_out_free(struct net_hub *hub, struct net_out *o);	/* NULL is fine */

struct net_conn_ops {
	void (*up)(struct net_conn *);
	/* A request or grant, a reply or question, decoded; @head as struct net_chan_up
	 * says. */
	void (*frame)(struct net_conn *, const uint8_t *head,
	    const struct net_frame *f, struct net_rx *rx, struct net_far *far);
	void (*pulled)(struct net_conn *, struct net_rx *rx);
	void (*lost)(struct net_conn *, struct net_rx *rx);	/* NULL: never pulls READs */
	void (*sent)(struct net_conn *, struct net_out *o);
	/* Broken: -errno, ERR_AUTH, ERR_WIRE_VERSION, ERR_BAD_MESSAGE. Close it. */
	void (*closed)(struct net_conn *, int rc);
};

struct net_conn {
	const struct net_conn_ops *ops;
	struct net_hub	 *hub;
	struct net_chan	 *chan;		/* NULL: closed */
	struct net_hello *hello;	/* NULL: done */
	struct clock_timer timer;	/* until the hello must be done */
	uint32_t	  outs_n;	/* frames nobody waits for, not sent yet */
	uint32_t	  outs_max;	/* over it, or out_mark: no more is read; 0: never */
	bool		  client, paused;
	uint16_t	  wire;		/* version agreed on, after the hello */
	bool		  began;	/* requests have come or gone */
	struct net_rdma_setup *rdma;	/* under way */
	bool		  no_rdma;	/* set by the owner: stay on TCP */
	bool		  on_rdma, rdma_heard;	/* moved; and a frame came since */
};

/* Connect and say hello, all within @hello_ms.  0 or -errno, then it is closed. */
int	net_conn_connect(struct net_conn *c, struct net_hub *hub,
	    struct net_transport *t, const struct net_addr *to, uint32_t hello_ms,
	    const struct net_conn_ops *ops);
/* Take an accepted channel. 0 or -ENOMEM; then it is closed. */
int	net_conn_accept(struct net_conn *c, struct net_hub *hub,
	    struct net_chan *chan, uint32_t hello_ms,
	    const struct net_conn_ops *ops);
/* Do both ends know questions and grants? */
static inline bool
net_conn_asks(const struct net_conn *c)
{
	return c->wire >= 3;
}

/* Is it one of TCP that could have gone on over RDMA, if both ends had a device for it? */
bool	net_conn_may_move(const struct net_conn *c);

/* No upcall from here on. Frames with an owner are moved to @unsent (struct net_out by
 * tx.node), others freed.  A closed one is fine. */
void	net_conn_close(struct net_conn *c, struct list *unsent, bool linger);

/* Send a frame that is in memory of the caller's, which is free afterwards; @far: of the
 * request it answers, or NULL.  0 or -ENOMEM; then @far is still open. */
int	net_conn_copy(struct net_conn *c, const uint8_t *head, uint32_t n,
	    struct net_far *far);
/* Send @o. True: it has left, and is the caller's again; false: ops->sent tells. */
bool	net_conn_send(struct net_conn *c, struct net_out *o);
/* Send a frame that is a head and no more. 0 or -ENOMEM. */
int	net_conn_word(struct net_conn *c, enum net_frame_kind kind, uint64_t id,
	    uint32_t arg);
/* Is the peer there? Its pong counts as bytes received. */
int	net_conn_ping(struct net_conn *c);

#endif
