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

/* Somebody has a request for @node: true when it should go by a relay.  Also asks, when
 * it is time, whether @node can be reached again. */
bool	path_by_relay(struct paths *p, node_id node);
/* A number that changes when the relay of before was of no use. */
unsigned path_turn(const struct paths *p, node_id node);
/* A request for @node was sent to a relay; it was of use, or not. */
void	path_relay_sent(struct paths *p, node_id node);
void	path_relay_ended(struct paths *p, node_id node, bool useful);
/* The relay itself does not answer: another one may be tried at once. */
void	path_relay_gone(struct paths *p, node_id node);
/* The last relay was of use. */
bool	path_relay_works(const struct paths *p, node_id node);

#endif
