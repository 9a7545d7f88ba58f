/* SPDX-License-Identifier: MIT */
/* member.h - this process as a member of the cluster: find the manager, register, beat,
 * know one's lease, keep routing fresh.
 *
 * The lease is counted on our own monotonic clock from the *sending* of the last beat
 * that was answered (self-fencing, DESIGN 5); the manager waits longer than that.  It
 * counts only with routing at least as new as that answer spoke of: who was declared dead
 * and comes back serves by nothing that is older than its own end.
 * Any of several managers may lead, and it may change: members find the one that does
 * within a beat or two of a failure, and lose their lease only when none serves for as
 * long as it lasts.
 * Servers register and beat; clients (roles == 0) only follow routing and say
 * client_beat. */
#ifndef NET_MEMBER_H
#define NET_MEMBER_H

#include <stdbool.h>
#include <stdint.h>

#include "net/call.h"
#include "net/routing.h"

#define MEMBER_MANAGERS_MAX	8u
#define MEMBER_DISKS_MAX	64u	/* disks of one node */
#define MEMBER_SYNCS_MAX	64u	/* replicas whose progress one node tells */
#define MEMBER_GROUPS_MAX	4u	/* metadata groups that one node leads */
#define MEMBER_NEIGHBOURS_MAX	64u	/* nodes that one finds out of reach */
#define MEMBER_AWAITED_MAX	64u	/* nodes that have to have heard */

struct member;

struct member_conf {
	struct clock	      *clock;
	struct rand	      *rand;
	const struct log      *log;
	struct net_hub	      *hub;
	const struct net_addr *managers;	/* copied */
	unsigned	       manager_n;
	/* servers */
	uint32_t	       roles;		/* NODE_*; 0: a client */
	struct uid128	       node_uid, boot;
	uint64_t	       member;		/* metadata: id of its group member */
	const char	      *name;		/* of the node; copied; NULL: "" */
	const struct net_addr *addrs;		/* one per loop; copied */
	unsigned	       addr_n;
	/* clients */
	struct uid128	       client;
	const char	      *mount;		/* copied; NULL: "" */
	uint64_t	       pid;		/* shown to operators; 0: not told */
	/* Storage: fill rows for register and beat, at most @max (MEMBER_DISKS_MAX);
	 * borrowed until the message is encoded.  NULL: no disks. */
	unsigned	     (*disks)(void *ctx, struct msg_disk_info *rows,
				  unsigned max);
	/* Likewise, for beats: the replicas that this node brings up to date. NULL: none. */
	unsigned	     (*syncs)(void *ctx, struct msg_sync_status *rows,
				  unsigned max);
	/* Likewise: the metadata groups that it is certain to lead. NULL: none. */
	unsigned	     (*groups)(void *ctx, struct msg_group_status *rows,
				  unsigned max);
	/* Likewise: nodes that this one cannot reach, or can again. NULL: none. */
	unsigned	     (*neighbours)(void *ctx, struct msg_neighbour *rows,
				  unsigned max);
	/* Likewise: ids of nodes of which this one has to know what they have heard; the
	 * answers come to heard, which may close the member. NULL: none. */
	unsigned	     (*awaited)(void *ctx, uint32_t *rows, unsigned max);
	void		     (*heard)(void *ctx, const struct msg_heard *rows, unsigned n);
	/* Routing has changed, or a lease was won or lost before its time; never from
	 * within a member call.  It may close the member. */
	void		     (*changed)(void *ctx);
	void		      *ctx;
};

/* Starts at once.  0; -ENOMEM; -EINVAL when a count or a text is over its bound. */
int	member_open(struct member **out, const struct member_conf *conf);
/* Without a goodbye (as a crash would look). NULL is fine. */
void	member_close(struct member *m);
/* Give up the lease, say goodbye, then call back (after a second at the latest; never
 * before this has returned, and not when closed meanwhile).  Once. */
void	member_leave(struct member *m, void (*fn)(void *ctx), void *ctx);

const struct routing *member_routing(const struct member *m);
node_id	member_node(const struct member *m);		/* 0: not registered yet */
/* Of this process as the managers know it: conf.boot, until that was taken for late. */
const struct uid128 *member_boot(const struct member *m);
/* Until when this process may serve, on its clock; 0: never had a lease. May be read by
 * other threads, and so may the next. */
uint64_t member_lease_until_ns(const struct member *m);
/* Who acts on older routing than this has no lease.  Ask for the time first. */
uint64_t member_lease_routing(const struct member *m);
uint32_t member_lease_ms(const struct member *m);	/* how long it is; 0: not known yet */
/* Ask for routing newer than ours now rather than at the next poll (after ERR_STALE_CHAIN
 * and the like); cheap to call often. */
void	member_refresh(struct member *m);
/* Tell the manager of our disks now (one has failed) rather than with the next beat. */
void	member_beat_now(struct member *m);
/* From now on nobody here acts on older routing than ours is; a beat tells the managers so,
 * now. */
void	member_promise(struct member *m);
/* Cluster space as last told in a beat. */
void	member_space(const struct member *m, uint64_t *total_bytes,
	    uint64_t *used_bytes);
/* Where the manager was last found, for admin calls; kind NONE before that. */
void	member_manager(const struct member *m, struct net_addr *out);

#endif
