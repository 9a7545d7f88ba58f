/* SPDX-License-Identifier: MIT */
/* manager_state.h - what the managers agree on: nodes, disks, targets, chains, chain
 * tables, option sets.  Commands come out of the group's log, in order; each changes the
 * rows in the group's table and the copy of all rows in memory alike.  The copy is a
 * function of the rows, so apply is deterministic.
 *
 * Rows, little-endian; a text is a u16 length and its bytes.
 *	'G'                      u8 format (1), u64 routing version, u64 option-set version,
 *	                         u32 next node, u32 next target, u32 next chain,
 *	                         16 bytes cluster id
 *	'N' be32 node            u64 changed, 16 uid, 16 boot, u32 roles, u8 state,
 *	                         text name, text release, u32 lease (ms), u8 n,
 *	                         n * text address,
 *	                         u8 m, m * 16 boots before, newest first
 *	'D' 16 disk id           u32 node, u32 loop, u32 slots, u64 capacity
 *	'T' be32 target          u64 changed, u32 node, u32 loop, 16 disk, u32 chain
 *	'C' be32 chain           u64 changed, u32 version, u8 state, u8 n, n * u32 target
 *	'B' be32 table, be32 version   u64 changed, u32 n, n * u32 chain
 *	'O' u8 role, be64 version      the options text */
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

#define MANAGER_NODES_MAX	4096u
#define MANAGER_DISKS_MAX	64u		/* of one node */
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

struct manager_disk {
	struct manager_uid u;
	struct list	 node_link;	/* manager_node.disks */
	uint32_t	 node, loop, slots;
	uint64_t	 capacity;	/* as last told, or as in the row */
	target_id	 targets[MANAGER_SLOTS_MAX];	/* ascending */
	uint32_t	 target_n;
	/* as last told; the leader's memory only */
	uint64_t	 used;
	bool		 failed;
	char		 path[MANAGER_PATH_MAX + 1];
};

struct manager_node {
	struct manager_uid u;
	node_id		 id;
	char		 release[MANAGER_NAME_MAX + 1];
	struct uid128	 old_boots[MANAGER_BOOTS_MAX];	/* newest first */
	uint32_t	 old_boot_n;
	uint32_t	 lease_ms;	/* its process was told when it registered */
	struct list	 disks;		/* struct manager_disk */
	uint32_t	 disk_n;
	/* the leader's memory only, roles/manager_node.c */
	struct list	 lease;		/* manager.leases, by seen_ns */
	uint64_t	 seen_ns;	/* last beat, or when we began to lead */
	bool		 heard;		/* a beat has come since then */
	bool		 expiring;	/* its end is on its way into the log */
};

struct manager_state {
	struct table	*table;		/* borrowed */
	const struct log *log;
	struct routing	*routing;
	struct map	 nodes;		/* node_id -> struct manager_node */
	struct map	 nodes_by_uid, disks;	/* struct manager_uid */
	uint32_t	 next_node, next_target, next_chain;
	uint32_t	 chain_n, target_n, disk_n;
	uint32_t	 serving_n, up_n;	/* of chains, of nodes */
	uint64_t	 config_version;	/* newest of any role */
	uint64_t	 config_versions[SET_N];
	char		*config_texts[SET_N];	/* terminated; NULL: never set */
	uint64_t	 capacity_bytes, used_bytes;	/* of all disks */
	/* what the command being applied has done */
	uint64_t	 version;	/* routing version its rows get */
	bool		 changed;	/* some row did */
	int		 rc;		/* memory or table failed: cannot go on */
};

/* Read all rows of @table into memory. 0; -ENOMEM; -EIO; ERR_CORRUPT. */
int	manager_state_open(struct manager_state *s, struct table *table,
	    const struct log *log);
void	manager_state_close(struct manager_state *s);	/* zeroed is fine */

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
void	manager_put_globals(struct manager_state *s);

/* Add to memory what has no row yet. NULL: s->rc says why. */
struct manager_node *manager_add_node(struct manager_state *s,
	    const struct uid128 *uid, node_id id);
struct manager_disk *manager_add_disk(struct manager_state *s,
	    const struct uid128 *uid);
void	manager_disk_to(struct manager_state *s, struct manager_disk *d,
	    struct manager_node *n);

/* ---- commands: roles/manager_apply.c ---- */
enum manager_cmd {
	CMD_INIT = 1,		/* 16 cluster */
	CMD_REGISTER = 2,	/* see manager_cmd_register() */
	CMD_NODE_STATE = 3,	/* u32 node, 16 boot, u8 state */
	CMD_FORM = 4,		/* u8 publish, u8 replicas, u16 n, n * replicas * u32 */
	CMD_READY = 5,		/* u32 chain, u32 version, u32 node, 16 boot */
	CMD_CONFIG = 6		/* u8 set, u64 have, the text */
};
#define MANAGER_RESULT	12u	/* i32 rc, u64 value */

void	manager_cmd_init(struct bytes_writer *w, const struct uid128 *cluster);
/* Only for a message that manager_register_check() has passed. */
void	manager_cmd_register(struct bytes_writer *w, const struct msg_register *r,
	    uint32_t lease_ms);
void	manager_cmd_node_state(struct bytes_writer *w, node_id node,
	    const struct uid128 *boot, enum node_state state);
void	manager_cmd_form(struct bytes_writer *w, bool publish, unsigned replicas,
	    const struct manager_chain_plan *plan, size_t n);
void	manager_cmd_ready(struct bytes_writer *w, const struct msg_chain_ready *r);
void	manager_cmd_config(struct bytes_writer *w, enum manager_set set,
	    uint64_t have, const char *text, size_t n);

/* Bounds of what a node says about itself. 0 or -EINVAL with *why. */
int	manager_register_check(const struct msg_register *r, const char **why);

/* Apply one command; writes MANAGER_RESULT bytes: 0 and a value (node id, option-set
 * version), or why it was refused: -EEXIST (a node of these roles has this name),
 * -ENOSPC, ERR_BUSY, ERR_STALE_NODE (another process has the node now),
 * ERR_STALE_CHAIN, ERR_NOT_OWNER, -ENOENT, -EAGAIN, ERR_BAD_MESSAGE.
 * Returns s->rc: not 0, the state cannot go on. */
int	manager_apply(struct manager_state *s, const void *cmd, size_t len,
	    uint8_t result[MANAGER_RESULT]);

#endif
