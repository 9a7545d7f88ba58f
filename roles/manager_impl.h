/* SPDX-License-Identifier: MIT */
/* manager_impl.h - the manager's parts among themselves. */
#ifndef ROLES_MANAGER_IMPL_H
#define ROLES_MANAGER_IMPL_H

#include "conf/table.h"
#include "meta/group.h"
#include "net/msg_all.h"
#include "net/serve.h"
#include "roles/manager.h"
#include "roles/manager_state.h"

#define MANAGER_CLIENTS_MAX	65536u
#define MANAGER_INFLIGHT_MAX	4096u		/* commands */
#define MANAGER_FLUSH_BYTES	(4u << 20)
#define MANAGER_FLUSH_MS	1000u
#define MANAGER_WAIT_MAX_MS	60000u		/* of a routing long-poll */
#define MANAGER_QUIET_N		11u		/* seconds a chain is quiet before it is
						 * put in order, and one */
#define MANAGER_LIST_BYTES	(900u << 10)	/* of one long answer */

enum manager_phase {
	MANAGER_OPENING,	/* the group replays, or makes the cluster's id */
	MANAGER_FOLLOWING,	/* another one leads, or nobody does */
	MANAGER_SERVING,
	MANAGER_STOPPING,
	MANAGER_BROKEN
};

#define MANAGER_STATS(X) \
	X(counter, beats,             "heartbeats of nodes that were answered")  \
	X(counter, client_beats,      "heartbeats of clients")                   \
	X(counter, nodes_down,        "times that a node went down")             \
	X(gauge,   nodes,             "nodes that ever registered")              \
	X(gauge,   nodes_up,          "nodes that are up")                       \
	X(gauge,   chains_serving,    "chains that serve")                       \
	X(gauge,   chains_degraded,   "of those, chains that lack a replica")    \
	X(gauge,   chains_syncing,    "of those, chains that bring one up to date") \
	X(gauge,   chains_recovering, "chains that wait for their last replica") \
	X(counter, chains_synced,     "times that a replica was brought up to date") \
	X(counter, chains_rotated,    "times that a replica made place for order") \
	X(counter, replicas_apart,    "times that a replica left a chain because it was " \
	    "cut from a neighbour")                                            \
	X(gauge,   routing_version,   "version of routing")                      \
	X(counter, led,               "times that this manager began to lead")   \
	X(gauge,   clients,           "live clients")                            \
	X(gauge,   polls_waiting,     "members waiting for newer routing")
STAT_DECLARE(manager, MANAGER_STATS)

struct manager {
	struct role_env	 env;
	struct disk_dir	*dir;
	struct group	*group;
	struct net_server *server;
	struct manager_state state;	/* loaded with the first entry */
	bool		 loaded;
	enum manager_phase phase;
	role_fn		*ready;		/* NULL: was told */
	void		*ready_ctx;
	role_fn		*watch;		/* NULL: nobody, or was told */
	void		*watch_ctx;
	role_fn		*stopped;
	void		*stopped_ctx;
	struct list	 calls;		/* struct manager_call */
	struct clock_defer tell;
	struct clock_timer stop_timer;	/* leadership is being handed over */

	/* manager_group.c */
	struct net_addr	 self, peers[MANAGER_MEMBERS_MAX]; /* as configured */
	unsigned	 peer_n;	/* 0: alone */
	uint64_t	 blank_ns;	/* blank beside a group since then; 0: not */
	bool		 told_blank;
	unsigned	 found_at;	/* of peers: who is asked */
	struct clock_timer found_timer;
	struct net_call	 who_call, change_call;
	bool		 changing;	/* the list of managers */
	struct net_req	*change_req;	/* who asked for that */

	/* manager_lease.c */
	struct list	 leases;	/* up nodes, oldest beat first */
	struct list	 dying, expiring;
	uint64_t	 batch_ns;	/* the last one joined the dying */
	bool		 downing;	/* a batch is on its way into the log */
	struct clock_timer lease_timer, batch_timer;
	uint64_t	 told;		/* beats so far, manager_node.c */

	/* manager_repair.c */
	struct map	 syncs;		/* chain_id -> struct manager_sync */
	struct list	 sync_list;	/* all of them, oldest word first */
	struct clock_timer quiet_timer;
	uint64_t	 quiet[MANAGER_QUIET_N]; /* routing versions, latest first */
	unsigned	 rotating;	/* commands in flight */
	uint64_t	 quiet_round;	/* marks nodes that have enough to do */

	/* manager_part.c */
	struct list	 cuts;		/* struct manager_cut */
	uint32_t	 cut_n;
	bool		 parting;	/* a command is on its way */

	/* manager_form.c */
	struct clock_timer form_timer;
	bool		 forming;	/* a command is on its way */
	uint32_t	 form_targets;	/* target_n when last poked */

	/* manager_meta.c: of metadata group 1 */
	bool		 grouping, leading;	/* a command is on its way */
	struct manager_group_told {
		uint64_t term;
		struct uid128 group;
		uint32_t voter_n, learner_n;
		uint64_t voters[RAFT_MEMBERS_MAX], learners[RAFT_MEMBERS_MAX];
	} group_told;
	uint64_t	 foreign_ns;	/* warned of another group */

	/* manager_client.c */
	struct map	 clients;	/* struct manager_uid */
	struct list	 client_leases;	/* all of them, oldest beat first */
	uint32_t	 client_n;
	struct clock_timer client_timer;

	/* manager_routing.c */
	struct list	 waiters;	/* long-polls, first come first */
	uint32_t	 waiter_n;
	struct clock_defer wake;

	struct manager_stat stat;
	struct stat_set	 stat_set;
};

/* A command in flight, and the request it answers, if any. */
struct manager_call;
typedef void manager_call_fn(struct manager_call *c, int rc, uint64_t value);
struct manager_call {
	struct list	 node;		/* manager.calls */
	struct manager	*m;
	struct net_req	*req;		/* answered by fn; NULL: our own command */
	struct group_req group;
	manager_call_fn	*fn;
	node_id		 id;		/* fn's */
};
/* Propose what @w holds; fn runs once with the command's result, or why it was not
 * ordered, later.  0; or the reason, and fn never runs. @id is kept for fn. */
int	manager_propose(struct manager *m, struct net_req *req, node_id id,
	    const struct bytes_writer *w, manager_call_fn *fn);
/* The fn of commands whose result is all there is to say. */
void	manager_reply_rc(struct manager_call *c, int rc, uint64_t value);

/* manager_lease.c */
void	manager_lease_start(struct manager *m);	/* serving begins */
/* Held registrations are answered with @rc; 0: dropped. */
void	manager_lease_stop(struct manager *m, int rc);
void	manager_lease_batch_due(struct clock_timer *t);
/* @n was heard. */
void	manager_lease_renew(struct manager *m, struct manager_node *n);
/* Its row says UP and will go on saying so for all we know. */
bool	manager_lease_lives(const struct manager *m, const struct manager_node *n);
/* A command is done that may have said that @n is down. */
void	manager_lease_down(struct manager *m, struct manager_node *n, const char *why);
/* Keep a registration until the process before is dead: true; then it is handed to
 * manager_node_register() again. */
bool	manager_lease_hold(struct manager *m, struct net_req *req);

/* manager_group.c */
void	manager_group_open(struct manager *m);	/* the group is there */
void	manager_group_close(struct manager *m);
void	manager_group_lead(struct manager *m);	/* we lead */
void	manager_group_follow(struct manager *m, int rc);	/* no more */
void	manager_group_change(struct manager *m, struct net_req *req);
void	manager_group_list(struct manager *m, struct net_req *req);

/* manager_node.c */
void	manager_node_register(struct manager *m, struct net_req *req);
void	manager_node_beat(struct manager *m, struct net_req *req);
void	manager_node_goodbye(struct manager *m, struct net_req *req);
void	manager_node_status(struct manager *m, struct net_req *req);
/* Bytes of files that all disks can hold, and do hold. */
void	manager_node_space(const struct manager *m, uint64_t *total,
	    uint64_t *used);

/* manager_repair.c */
void	manager_repair_start(struct manager *m);
void	manager_repair_stop(struct manager *m);
void	manager_repair_synced(struct manager *m, struct net_req *req);
void	manager_repair_resync(struct manager *m, struct net_req *req);
void	manager_repair_accept(struct manager *m, struct net_req *req);
void	manager_repair_replace(struct manager *m, struct net_req *req);
/* What a node says of the replicas that it brings up to date. */
void	manager_repair_told(struct manager *m, struct manager_node *n,
	    const msg_t_list_sync_status *syncs);
/* What is known of those that @q asks for, allocated; *bytes grows by their size, *left is how
 * many there was no room for. 0 or -ENOMEM. */
int	manager_repair_rows(struct manager *m, const struct msg_status *q,
	    msg_t_list_sync_status *out, uint32_t *left, size_t *bytes);

/* manager_part.c */
void	manager_part_told(struct manager *m, struct manager_node *n,
	    const msg_t_list_neighbour *rows);
/* @n was cut from others not long ago: its chains had better stay as they are. */
bool	manager_part_lately(const struct manager *m, const struct manager_node *n);
void	manager_part_stop(struct manager *m);

/* manager_form.c */
void	manager_form_poke(struct manager *m);	/* something may be formed, after a wait */
void	manager_form_stop(struct manager *m);

/* manager_client.c */
void	manager_client_beat(struct manager *m, struct net_req *req);
void	manager_client_list(struct manager *m, struct net_req *req);
void	manager_client_stop(struct manager *m);

/* manager_routing.c */
void	manager_routing_get(struct manager *m, struct net_req *req);
void	manager_routing_changed(struct manager *m);
/* Answer all waiters with @rc; 0: drop them without an answer. */
void	manager_routing_stop(struct manager *m, int rc);

/* manager_meta.c */
void	manager_meta_poke(struct manager *m);	/* a group may be made, or grow */
/* What the leaders of metadata groups say with their beats. */
void	manager_meta_told(struct manager *m, struct manager_node *n,
	    const msg_t_list_group_status *groups);
void	manager_meta_change(struct manager *m, struct net_req *req);
/* As last told; borrowed. */
void	manager_meta_rows(const struct manager *m, struct msg_group_status *out);
void	manager_meta_stop(struct manager *m);

/* manager_config.c */
void	manager_config_get(struct manager *m, struct net_req *req);
void	manager_config_set(struct manager *m, struct net_req *req);

#endif
