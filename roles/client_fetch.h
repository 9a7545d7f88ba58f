/* SPDX-License-Identifier: MIT */
/* client_fetch.h - read calls, between client_fetch.c, which sends and answers them, and
 * client_hedge.c, which asks twice; nobody else includes it. */
#ifndef ROLES_CLIENT_FETCH_H
#define ROLES_CLIENT_FETCH_H

#include "roles/client_impl.h"

/* Memory that calls may still be answered into, whose owner has gone. */
struct client_lent {
	struct mem_buf buf;
	unsigned       calls;
};

/* One question to one replica. */
struct client_rcall {
	struct list	     node;	/* first: client_keep; c->rcalls, c->leaving */
	struct list	     fetch_node;
	struct list	     late_node;	/* c->late */
	struct net_call	     call;
	struct client	    *c;
	struct client_fetch *f;		/* NULL: leaving */
	struct client_target *t;
	struct client_rcall	    *twin;	/* asks the same; NULL: none */
	struct mem_buf	     buf;	/* where a twin's answer goes; else none */
	struct client_lent  *lent;	/* where it does when leaving, without that */
	bool		     won;	/* has answered; its twin is leaving */
	bool		     given_up;	/* a third one is asked when it has let go */
	uint64_t	     sent_ns, late_ns;
	chain_id	     chain;
	uint32_t	     bit;	/* of the replica, as in tried */
	uint32_t	     n;
	uint32_t	     pieces[STORAGE_BATCH_MAX];
	struct iovec	     iov[STORAGE_BATCH_MAX];
	struct {
		int	 rc;
		uint32_t len;
	} got[STORAGE_BATCH_MAX];	/* the answer */
};
_Static_assert(STORAGE_BATCH_MAX <= NET_BULK_PIECES, "one iovec an item");

/* ---- client_fetch.c ---- */
/* A call to replica @slot of @chain, not sent; NULL: no memory. */
struct client_rcall *client_rcall_get(struct client_fetch *f,
	    const struct routing_chain *chain, unsigned slot);
/* It has ended, or is cancelled. */
void	client_rcall_put(struct client_rcall *r);
int	client_rcall_send(struct client_rcall *r, const struct routing_chain *chain,
	    const struct net_addr *to, uint64_t within_ms);
/* Which of the serving replicas of @chain, without @not, is asked now: CLIENT_PICK_NONE
 * when none is left to try.  @well: how many of those left have not failed lately. */
unsigned client_rcall_pick(struct client *c, const struct routing_chain *chain,
	    uint32_t not, struct net_addr addrs[ROUTING_REPLICAS_MAX], unsigned *well);
/* Nobody wants the answer of @r, whose memory is its own or @lent, any more. */
void	client_rcall_leave(struct client_rcall *r, struct client_lent *lent);
/* Take over the answer of @r, which is alone, and go on with its fetch; @r is gone. */
void	client_fetch_take(struct client_rcall *r);
/* Another replica is next for @p, without waiting for anything. */
void	client_fetch_failed(struct client_fetch *f, struct client_fpiece *p, uint32_t bit,
	    int rc);

/* ---- client_hedge.c ---- */
/* @r was sent, or is alone again: watch whether it is late. */
void	client_hedge_watch(struct client_rcall *r);
/* @r has answered before its twin, which ends.  False: but not yet, for it has the memory
 * that the answer is for; client_hedge_freed() follows. */
bool	client_hedge_won(struct client_rcall *r);
/* @r has lost, and its memory is free: its twin's answer is taken. */
void	client_hedge_freed(struct client_rcall *r);
/* @r ends, and its twin goes on alone. */
void	client_hedge_leave(struct client_rcall *r);

#endif
