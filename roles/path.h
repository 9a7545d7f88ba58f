/* SPDX-License-Identifier: MIT */
/* path.h - nodes that this process cannot reach itself, though others may.
 *
 *            nothing comes from there
 *	OPEN ---------------------------> LOST
 *	  ^                                | asked every second, while somebody wants it,
 *	  '-------- it has answered -------' and more rarely the more often it came and went
 *
 * While a way is lost, requests go by another node that passes them on (a relay).  Whether
 * that helps is tried with one request first: the node may be dead for everybody. */
#ifndef ROLES_PATH_H
#define ROLES_PATH_H

#include "conf/log.h"
#include "conf/map.h"
#include "net/call.h"
#include "net/msg_all.h"
#include "net/routing.h"

struct paths {
	struct clock	 *clock;
	struct net_hub	 *hub;
	const struct log *log;
	struct map	  nodes;	/* struct path, of all that were ever lost */
};

/* What a node is asked, to see whether it answers; what it says does not matter. */
struct path_ask {
	struct net_addr addr;
	uint16_t	method;		/* MSG_committed or MSG_who */
	union {
		struct msg_committed committed;
		struct msg_who	     who;
	};
};

void	paths_init(struct paths *p, struct clock *clock, struct net_hub *hub,
	    const struct log *log);
void	paths_fini(struct paths *p);

/* Was the error @rc of a call said by the one that was called? Else nobody answered. */
bool	path_answered(int rc);

/* Nothing comes from @node (any more). */
void	path_lost(struct paths *p, node_id node, const struct path_ask *ask);
/* It has answered a request that was sent to it directly. */
void	path_heard(struct paths *p, node_id node);
bool	path_is_lost(const struct paths *p, node_id node);

/* Somebody has a request for @node, or one that it could pass on: true when it is not lost.
 * Else it is asked, when it is time, whether it can be reached again, at @addr by now. */
bool	path_wanted(struct paths *p, node_id node, const struct net_addr *addr);
/* The last relay was of use. */
bool	path_relay_works(const struct paths *p, node_id node);

/* For who passes on: nothing has come for too long, since @sent_ns, from where @call was sent;
 * a bit sooner than who asked it loses patience.  Who is slow answers pings. */
bool	path_relay_in_vain(struct net_call *call, uint64_t sent_ns, uint64_t now_ns);

/* ---- requests for one replica of a chain, that another may pass on ---- */

/* The way that one attempt goes; embedded by its owner, zero before the first. */
struct path_way {
	target_id	target;		/* whom it is for ... */
	target_id	via;		/* ... by this replica; 0: directly */
	node_id		owner, node;	/* nodes of the target, and of who it is sent to */
	chain_id	chain;
	uint32_t	version;
	struct net_addr addr;
	uint64_t	sent_ns;
	uint32_t	resets;		/* connections in a row that broke under it */
};

/* For the replica at @place of @c, which is active. 0; -EHOSTUNREACH: its address is not
 * known. */
int	path_choose(struct paths *p, const struct routing *r,
	    const struct routing_chain *c, unsigned place, struct path_way *w);
/* It was sent that way. */
void	path_sent(struct paths *p, struct path_way *w);
/* Nothing has come for too long from where @call was sent; who is slow answers pings.
 * @pinged: node that was pinged last, so that many calls need one ping; 0 at first. */
bool	path_in_vain(struct paths *p, const struct path_way *w, struct net_call *call,
	    node_id *pinged);
/* So that node is lost.  True: there is another way, the call is to be given up. */
bool	path_give_up(struct paths *p, const struct routing *r, struct path_way *w);
/* The call has ended with @rc. True: there is another way, go there at once. */
bool	path_ended(struct paths *p, const struct routing *r, struct path_way *w,
	    int rc);

#endif
