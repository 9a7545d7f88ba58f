/* SPDX-License-Identifier: MIT */
/* manager_state.h - what the managers agree on: nodes, disks, targets, chains, chain
 * tables, option sets.  Commands come out of the group's log, in order; each changes the
 * rows in the group's table and the copy of all rows in memory alike.  The copy is a
 * function of the rows, so apply is deterministic.
 *
 * Rows, little-endian; a text is a u16 length and its bytes.
 *	'G'                      u8 format (2), u64 routing version, u64 option-set version,
 *	                         u32 next node, u32 next target, u32 next chain,
 *	                         16 bytes cluster id
 *	'N' be32 node            u64 changed, 16 uid, 16 boot, u32 roles, u8 state,
 *	                         text name, text release, u32 lease (ms), u8 n,
 *	                         n * text address,
 *	                         u8 m, m * 16 boots before, newest first,
 *	                         u64 member of a metadata group
 *	'D' 16 disk id           u32 node, u32 loop, u32 slots, u64 capacity, u8 health
 *	'T' be32 target          u64 changed, u32 node, u32 loop, 16 disk, u32 chain
 *	'C' be32 chain           u64 changed, u32 version, u8 state, u8 n, n * u32 target,
 *	                         n * u8 state of each, n * u32 target (preferred order)
 *	'B' be32 table, be32 version   u64 changed, u32 n, n * u32 chain
 *	'O' u8 role, be64 version      the options text
 *	'U' be32 target          u32 why it could not be brought up to date, u8 how often in
 *	                         a row, u8 1: it is not tried now
 *	'M'                      u8 n, n * (u64 member, text address): who is to be a manager
 *	'R' be32 group           u64 changed, 16 id, u8 fixed, u32 leader, u64 term,
 *	                         u8 n, n * (u32 node, u64 member): a metadata group
 * In format 1 disks had no health and chains neither states nor a preferred order. */
#ifndef ROLES_MANAGER_STATE_H
#define ROLES_MANAGER_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/bytes.h"
#include "conf/list.h"
#include "conf/log.h"
#include "conf/map.h"
#include "conf/table.h"
#include "net/routing.h"
#include "roles/manager_chain.h"
#include "roles/manager_place.h"

#define MANAGER_FORMAT		2u		/* of the rows */
#define MANAGER_MEMBERS_MAX	8u		/* managers */
#define MANAGER_NODES_MAX	4096u
#define MANAGER_DISKS_MAX	64u		/* of one node, at a time */
#define MANAGER_NODE_DISKS_MAX	256u		/* of one node, ever */
#define MANAGER_ALL_DISKS_MAX	65536u		/* in all, ever */
#define MANAGER_SLOTS_MAX	64u		/* of one disk */
#define MANAGER_TARGETS_MAX	(MANAGER_NODES_MAX * MANAGER_DISKS_MAX)
#define MANAGER_CHAINS_MAX	ROUTING_TABLE_MAX
#define MANAGER_FORM_MAX	1024u		/* chains made by one command */
#define MANAGER_BOOTS_MAX	8u		/* earlier processes of a node */
#define MANAGER_NAME_MAX	63u		/* bytes of a node name, a release */
#define MANAGER_PATH_MAX	255u		/* bytes of a disk's path */
#define MANAGER_CONFIG_MAX	(48u << 10)	/* bytes of an option set */
#define MANAGER_CONFIG_KEEP	32u		/* versions kept of each */
#define MANAGER_TABLE		1u		/* the chain table that is kept */
#define MANAGER_VERSION_BYTES	(512u << 10)	/* of rows in one routing version */

enum manager_set { SET_MANAGER, SET_METADATA, SET_STORAGE, SET_CLIENT, SET_N };

/* Things found by a 128-bit id; embedded first. */
struct manager_uid {
	struct uid128	    uid;
	struct manager_uid *next;	/* the same fold of the id; newest first */
};
/* NULL when there is none. */
void	*manager_uid_get(const struct map *m, const struct uid128 *uid);
int	 manager_uid_put(struct map *m, struct manager_uid *u);
void	 manager_uid_del(struct map *m, struct manager_uid *u);
/* Walk and take all out; free them in @fn. */
void	 manager_uid_drop(struct map *m, void (*fn)(struct manager_uid *));

struct manager_member {
	uint64_t	id;		/* 0: whoever is at this address */
	struct net_addr addr;
};

/* Whether targets of a disk can be alive. */
enum manager_health {
	DISK_WORKS,
	DISK_FAILED,		/* its node says so */
	DISK_ABSENT,		/* its node no longer has it */
	DISK_REPLACED		/* by the operator: what is on it counts for nothing */
};

struct manager_disk {
	struct manager_uid u;
	struct list	 node_link;	/* manager_node.disks */
	uint32_t	 node, loop, slots;
	uint64_t	 capacity;	/* as last told, or as in the row */
	target_id	 targets[MANAGER_SLOTS_MAX];	/* ascending */
	uint32_t	 target_n;
	enum manager_health health;
	bool		 reborn;	/* during a command: another process has it now */
	/* as last told; the leader's memory only */
	uint64_t	 used;
	uint32_t	 damaged;	/* chunks, as last told */
	uint64_t	 told;		/* number of the beat that last named it */
	bool		 telling;	/* its health is on its way into the log */
	char		 path[MANAGER_PATH_MAX + 1];
};

/* A replica that could not be brought up to date. */
struct manager_hold {
	struct list	 node;		/* manager_state.hold_list */
	target_id	 target;
	int		 rc;		/* the last time */
	uint8_t		 tries;		/* in a row */
	bool		 held;		/* it is not tried now */
	uint64_t	 until_ns;	/* the leader's memory only; 0: not known yet */
};

/* roles/manager_lease.c */
enum manager_fate { NODE_LIVES, NODE_DYING, NODE_EXPIRING };

struct net_req;
struct manager_node {
	struct manager_uid u;
	node_id		 id;
	char		 release[MANAGER_NAME_MAX + 1];
	struct uid128	 old_boots[MANAGER_BOOTS_MAX];	/* newest first */
	uint32_t	 old_boot_n;
	uint32_t	 lease_ms;	/* its process was told when it registered */
	uint64_t	 member;	/* of a metadata group, 0: none */
	struct list	 disks;		/* struct manager_disk */
	uint32_t	 disk_n;
	/* the leader's memory only, roles/manager_lease.c */
	struct list	 lease;		/* of manager: leases, dying or expiring */
	enum manager_fate fate;
	uint64_t	 seen_ns;	/* last beat, or when we began to lead */
	bool		 heard;		/* a beat has come since then */
	uint64_t	 routing;	/* it answers nobody by older; 0: not known */
	struct net_req	*held;		/* registration of another process of it */
	uint64_t	 busy;		/* manager.quiet_round */
	uint64_t	 part_ns;	/* it left chains, being cut from others */
	unsigned	 part_tries;	/* how often in a row; 0: never */
};

struct manager_state {
	struct table	*table;		/* borrowed */
	const struct log *log;
	struct routing	*routing;
	struct map	 nodes;		/* node_id -> struct manager_node */
	struct map	 nodes_by_uid, disks;	/* struct manager_uid */
	struct map	 holds;		/* target_id -> struct manager_hold */
	struct list	 hold_list;	/* all of them, oldest first */
	uint32_t	 next_node, next_target, next_chain;
	uint32_t	 chain_n, target_n, disk_n;
	uint32_t	 up_n;		/* nodes */
	uint32_t	 serving_n, whole_n, syncing_n;	/* chains: some replica serves,
					 * all do, one is being brought up to date */
	uint64_t	 config_version;	/* newest of any role */
	uint64_t	 config_versions[SET_N];
	char		*config_texts[SET_N];	/* terminated; NULL: never set */
	struct manager_member managers[MANAGER_MEMBERS_MAX];
	unsigned	 manager_n;	/* 0: nobody has said */
	uint64_t	 capacity_bytes, used_bytes;	/* of all disks */
	/* what the command being applied has done */
	uint64_t	 version;	/* routing version its rows get */
	uint64_t	 first_version;	/* and its first ones got */
	size_t		 version_bytes;	/* of rows that have it */
	bool		 changed;	/* some row of routing did */
	bool		 dirty;		/* some other row did */
	int		 rc;		/* cannot go on: memory or table failed, or the log
					 * is of a newer release */
};

/* Read all rows of @table into memory. 0; -ENOMEM; -EIO; ERR_CORRUPT. */
int	manager_state_open(struct manager_state *s, struct table *table,
	    const struct log *log);
void	manager_state_close(struct manager_state *s);	/* zeroed is fine */
int	manager_load(struct manager_state *s);		/* its work */

/* Rows of memory alone. 0, -ENOMEM, -EINVAL. */
int	manager_keep_node(struct manager_state *s, const struct routing_node *row);
int	manager_keep_chain(struct manager_state *s, const struct routing_chain *row);
void	manager_keep_config(struct manager_state *s, enum manager_set set,
	    uint64_t version, const char *text, size_t n);	/* s->rc */

/* Write a row to the table and to memory; failures stay in s->rc. Rows of routing get
 * s->version first. */
void	manager_put_node(struct manager_state *s, struct manager_node *n,
	    struct routing_node *row);
void	manager_put_disk(struct manager_state *s, struct manager_disk *d);
void	manager_put_target(struct manager_state *s, struct routing_target *row);
void	manager_put_chain(struct manager_state *s, struct routing_chain *row);
void	manager_put_table(struct manager_state *s, struct routing_table *row);
void	manager_put_config(struct manager_state *s, enum manager_set set,
	    uint64_t version, const char *text, size_t n);
void	manager_put_group(struct manager_state *s, struct routing_group *row);
void	manager_put_globals(struct manager_state *s);
void	manager_put_members(struct manager_state *s, const struct manager_member *list,
	    unsigned n);

/* Add to memory what has no row yet. NULL: s->rc says why. */
struct manager_node *manager_add_node(struct manager_state *s,
	    const struct uid128 *uid, node_id id);
struct manager_disk *manager_add_disk(struct manager_state *s,
	    const struct uid128 *uid);
void	manager_disk_to(struct manager_state *s, struct manager_disk *d,
	    struct manager_node *n);

/* ---- what becomes of chains: roles/manager_heal.c ---- */

/* Look at the chains that have replicas on these disks; nodes and disks have been changed
 * before.  Every chain changes once in a command. */
void	manager_heal_disk(struct manager_state *s, const struct manager_disk *d);
void	manager_heal_node(struct manager_state *s, const struct manager_node *n);
void	manager_heal_all(struct manager_state *s);
/* Whether manager_heal_all() would change any. */
bool	manager_heal_needed(const struct manager_state *s);
/* What CMD_PART and CMD_JOIN do; 0: nothing, else how many chains.  Without @apply nothing is
 * changed, and it is the number of chains that would be looked at. */
uint32_t manager_heal_part(struct manager_state *s, node_id node, node_id silent,
	    node_id leaver, bool apply);
uint32_t manager_heal_join(struct manager_state *s, node_id node, node_id other,
	    bool apply);
/* One chain, one event. 0, or as manager_chain_step(), or -ENOENT. */
int	manager_heal_chain(struct manager_state *s, chain_id id,
	    enum manager_chain_event ev, target_id target, target_id with);
/* Give the replicas on @old to free targets of @with, all or none.  0; -ENOENT: no such
 * disk; -EALREADY: nothing is on it; -ENOSPC: too few free targets; -EEXIST: the node of
 * @with has another replica of a chain; -EBUSY: a chain has its only good replica there;
 * -EIO: @with does not work. */
int	manager_heal_replace(struct manager_state *s, struct manager_disk *old,
	    struct manager_disk *with);

/* ---- replicas that could not be brought up to date: roles/manager_hold.c ---- */
struct manager_hold *manager_hold_get(const struct manager_state *s, target_id id);
bool	manager_held(const struct manager_state *s, target_id id);
/* It could not again, for reason @rc: it is held. */
void	manager_hold(struct manager_state *s, target_id id, int rc);
void	manager_hold_drop(struct manager_state *s, target_id id);	/* it has been */
int	manager_hold_keep(struct manager_state *s, const struct manager_hold *row);
void	manager_holds_close(struct manager_state *s);
int	manager_apply_release(struct manager_state *s, struct bytes_reader *r);

/* ---- commands: roles/manager_cmd.c writes, roles/manager_apply.c applies ---- */
enum manager_cmd {
	CMD_INIT = 1,		/* 16 cluster */
	CMD_REGISTER_1 = 2,	/* CMD_REGISTER without the health of disks */
	CMD_NODE_STATE = 3,	/* u32 node, 16 boot, u8 state */
	CMD_FORM = 4,		/* u8 publish, u8 replicas, u16 n, n * replicas * u32 */
	CMD_READY_1 = 5,	/* of the release before: a chain is reconciled */
	CMD_CONFIG = 6,		/* u8 set, u64 have, the text */
	CMD_REGISTER = 7,	/* see manager_cmd_register() */
	CMD_DOWN = 8,		/* u16 n, n * (u32 node, 8 first bytes of its boot) */
	CMD_DISK = 9,		/* u32 node, 16 boot, 16 disk, u8 health */
	CMD_SYNCED = 10,	/* u32 node, 16 boot, u32 chain, u32 version,
				 * u32 target, and if it cannot: u32 why */
	CMD_ROTATE = 11,	/* u32 chain, u32 version, u32 target */
	CMD_ACCEPT = 12,	/* u32 chain, u32 target */
	CMD_REPLACE = 13,	/* 16 disk, 16 disk in its place */
	CMD_LOOK = 14,		/* nothing: look at all chains */
	CMD_MANAGERS = 15,	/* row 'M' */
	CMD_GROUP = 16,		/* u32 group, u64 have, u8 fixed, u8 n,
				 * n * (u32 node, u64 member) */
	CMD_GROUP_LEADS = 17,	/* u32 node, 16 boot, u32 group, 16 id, u64 term */
	CMD_RELEASE = 18,	/* u32 target, u8 tries: it may be tried again */
	CMD_PART = 19,		/* u32 node, 16 boot, u32 silent node, u32 who leaves */
	CMD_JOIN = 20		/* u32 node, 16 boot, u32 node that it reaches again */
};
#define MANAGER_RESULT	12u	/* i32 rc, u64 value */

void	manager_cmd_init(struct bytes_writer *w, const struct uid128 *cluster);
/* Only for a message that manager_register_check() has passed. */
void	manager_cmd_register(struct bytes_writer *w, const struct msg_register *r,
	    uint32_t lease_ms);
void	manager_cmd_node_state(struct bytes_writer *w, node_id node,
	    const struct uid128 *boot, enum node_state state);
void	manager_cmd_form(struct bytes_writer *w, bool publish, unsigned replicas,
	    const struct manager_plan *plan, size_t n);
void	manager_cmd_config(struct bytes_writer *w, enum manager_set set,
	    uint64_t have, const char *text, size_t n);
void	manager_cmd_down(struct bytes_writer *w, uint16_t n);	/* then n times: */
void	manager_cmd_down_node(struct bytes_writer *w, node_id node,
	    const struct uid128 *boot);
void	manager_cmd_disk(struct bytes_writer *w, node_id node,
	    const struct uid128 *boot, const struct uid128 *disk,
	    enum manager_health health);
void	manager_cmd_synced(struct bytes_writer *w, const struct msg_synced *q);
void	manager_cmd_release(struct bytes_writer *w, const struct manager_hold *h);
void	manager_cmd_rotate(struct bytes_writer *w, chain_id chain, uint32_t version,
	    target_id target);
void	manager_cmd_accept(struct bytes_writer *w, chain_id chain, target_id target);
void	manager_cmd_replace(struct bytes_writer *w, const struct uid128 *disk,
	    const struct uid128 *with);
void	manager_cmd_look(struct bytes_writer *w);
/* Who is @node hears nothing from @silent: @leaver, which is either, leaves the chains where
 * they are neighbours. */
void	manager_cmd_part(struct bytes_writer *w, node_id node,
	    const struct uid128 *boot, node_id silent, node_id leaver);
/* @node reaches @other: replicas there come back to chains whose reading tail is @node's. */
void	manager_cmd_join(struct bytes_writer *w, node_id node,
	    const struct uid128 *boot, node_id other);
void	manager_cmd_managers(struct bytes_writer *w, const struct manager_member *list,
	    unsigned n);
/* Who is to be in a metadata group; row->changed: as it was when this was made from it. */
void	manager_cmd_group(struct bytes_writer *w, const struct routing_group *row);
/* That node leads it. */
void	manager_cmd_group_leads(struct bytes_writer *w, node_id node,
	    const struct uid128 *boot, const struct msg_group_status *q);
void	manager_members_write(struct bytes_writer *w,
	    const struct manager_member *list, unsigned n);
/* What it wrote, or what is in the row. 0 or ERR_BAD_MESSAGE. */
int	manager_members_read(struct bytes_reader *r, struct manager_member *list,
	    unsigned *n);

/* Bounds of what a node says about itself. 0 or -EINVAL with *why. */
int	manager_register_check(const struct msg_register *r, const char **why);

/* What CMD_REGISTER says. */
struct manager_reg {
	struct uid128  uid, boot;
	uint32_t       roles;
	struct msg_str name, release;
	uint32_t       lease_ms;
	uint64_t       member;
	uint32_t       addr_n, disk_n;
	struct net_addr addrs[ROUTING_LOOPS_MAX];
	struct manager_reg_disk {
		struct uid128 uid;
		uint32_t loop, slots;
		uint64_t capacity;
		bool	 failed;
	} disks[MANAGER_DISKS_MAX];
};
/* 0 or ERR_BAD_MESSAGE. @format1: of CMD_REGISTER_1. */
int	manager_reg_read(struct bytes_reader *r, bool format1, struct manager_reg *g);
/* A process that was followed by another never gets its node back: what comes from it is
 * late, or it was stopped and does not know. */
bool	manager_was_boot(const struct manager_node *n, const struct uid128 *boot);
/* Refuse, or take it: roles/manager_register.c. */
int	manager_apply_register(struct manager_state *s, struct bytes_reader *r,
	    bool format1, uint64_t *value);

/* roles/manager_meta.c, part of apply. */
int	manager_apply_group(struct manager_state *s, struct bytes_reader *r);
int	manager_apply_group_leads(struct manager_state *s, struct bytes_reader *r);

/* Apply one command; writes MANAGER_RESULT bytes: 0 and a value (node id, option-set
 * version, number of nodes or chains), or why it was refused: -EEXIST (a node of these
 * roles has this name), -ENOSPC, ERR_BUSY, ERR_STALE_NODE (another process has the node
 * now), ERR_STALE_CHAIN, ERR_NOT_OWNER, -ENOENT, -EAGAIN, ERR_BAD_MESSAGE, and those of
 * manager_heal_*().  Returns s->rc: not 0, the state cannot go on. */
int	manager_apply(struct manager_state *s, const void *cmd, size_t len,
	    uint8_t result[MANAGER_RESULT]);

#endif
