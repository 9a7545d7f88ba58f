/* SPDX-License-Identifier: MIT */
/* msg_manager.h - what nodes, clients and operators ask of the manager. */
#ifndef NET_MSG_MANAGER_H
#define NET_MSG_MANAGER_H

#include "net/msg_core.h"

/* Bits of a node's roles. */
enum {
	NODE_MANAGER  = 1,
	NODE_METADATA = 2,
	NODE_STORAGE  = 4
};
enum node_state { NODE_UP = 1, NODE_DOWN = 2 };

/* Public state of a chain: RECOVERING while no replica serves; no reads or writes then. */
enum chain_state { CHAIN_RECOVERING = 1, CHAIN_SERVING = 2 };

/* ---- routing: one versioned structure; rows carry the version that last changed
 * them, so a delta is every row newer than what the asker has ---- */
/* A replica's place in its chain (3FS docs/design_notes.md).  SERVING replicas come first,
 * head to tail, then at most one SYNCING; the others take no part. */
enum target_state {
	TARGET_SERVING = 1,	/* has everything; takes reads and writes */
	TARGET_LASTSRV,		/* gone, but the last one that had everything */
	TARGET_SYNCING,		/* takes writes; is being brought up to date */
	TARGET_WAITING,		/* alive; waits for its turn to sync */
	TARGET_OFFLINE,		/* gone */
	TARGET_APART		/* alive, but cut from a neighbour that serves on */
};

#define MSG_RT_NODE(F) \
	F(u32,      id,      "node id")                                         \
	F(u64,      changed, "routing version of the last change of this row")  \
	F(str,      name,    "unique text name, from its options")              \
	F(u32,      roles,   "bits NODE_*")                                     \
	F(u8,       state,   "enum node_state")                                 \
	F(uid,      boot,    "random id of the process that holds the lease")   \
	F(list_str, addrs,   "service addresses, one per loop")
#define MSG_RT_TARGET(F) \
	F(u32, id,      "target id")                                            \
	F(u64, changed, "routing version of the last change of this row")       \
	F(u32, node,    "node that holds it")                                   \
	F(u32, loop,    "which of the node's addresses owns it")                \
	F(uid, disk,    "disk that holds it")                                   \
	F(u32, chain,   "chain it belongs to")
#define MSG_RT_CHAIN(F) \
	F(u32,      id,      "chain id")                                        \
	F(u64,      changed, "routing version of the last change of this row")  \
	F(u32,      version, "rises with every change of members or state")     \
	F(u8,       state,   "enum chain_state: SERVING when some target is")   \
	F(list_u32, targets, "target ids, head first")                          \
	F(list_u32, states,  "enum target_state of each")                       \
	F(list_u32, preferred, "target ids in the order it was made with")
#define MSG_RT_TABLE(F) \
	F(u32,      id,      "chain table id")                                  \
	F(u64,      changed, "routing version in which it was made")            \
	F(u32,      version, "a table version never changes once made")         \
	F(list_u32, chains,  "chain ids, in striping order")
MSG_DECLARE(rt_node, MSG_RT_NODE)
MSG_DECLARE(rt_target, MSG_RT_TARGET)
MSG_DECLARE(rt_chain, MSG_RT_CHAIN)
MSG_DECLARE(rt_table, MSG_RT_TABLE)
#define MSG_RT_GROUP(F) \
	F(u32,      id,      "number of the metadata group")                    \
	F(u64,      changed, "routing version of the last change of this row")  \
	F(uid,      group,   "random id of the group; zeros: not founded yet")  \
	F(list_u32, nodes,   "nodes that are to be members; as long as it is not founded, the one that founds it") \
	F(list_u64, members, "random id of the member on each")                 \
	F(u8,       fixed,   "1: an operator has chosen how many")              \
	F(u32,      leader,  "node that said last that it leads; 0: none did")  \
	F(u64,      term,    "in which election term")
MSG_DECLARE(rt_group, MSG_RT_GROUP)

#define MSG_ROUTING(F) \
	F(u64, have,    "routing version the asker has, 0 for all")             \
	F(u32, wait_ms, "answer when newer, or after this long with nothing")
#define MSG_ROUTING_REP(F) \
	F(uid,            cluster, "random id of the cluster")                  \
	F(u64,            version, "routing version this brings the asker to")  \
	F(list_rt_node,   nodes,   "changed nodes")                             \
	F(list_rt_target, targets, "changed targets")                           \
	F(list_rt_chain,  chains,  "changed chains")                            \
	F(list_rt_table,  tables,  "new table versions")                        \
	F(list_rt_group,  groups,  "changed metadata groups")
MSG_DECLARE(routing, MSG_ROUTING)
MSG_DECLARE(routing_rep, MSG_ROUTING_REP)

/* ---- membership ---- */
#define MSG_DISK_INFO(F) \
	F(uid, disk,     "id in the disk's label")                              \
	F(u32, loop,     "loop of the node that owns it")                       \
	F(str, path,     "where the node has it")                               \
	F(u64, capacity, "bytes usable for chunks")                             \
	F(u64, used,     "bytes allocated to chunks")                           \
	F(u32, targets,  "target slots it offers")                              \
	F(u8,  failed,   "1: I/O errors, do not use; told by the manager also 2: "  \
	    "its node has it no more, 3: replaced by the operator") \
	F(u32, damaged,  "chunks known to be damaged, and not repaired yet")
MSG_DECLARE(disk_info, MSG_DISK_INFO)

#define MSG_REGISTER(F) \
	F(uid,            node_uid, "random id kept in the node's data directory") \
	F(uid,            boot,     "random id of this process")                \
	F(str,            name,     "node name; unique in the cluster")         \
	F(u32,            roles,    "bits NODE_*")                              \
	F(list_str,       addrs,    "service addresses, one per loop")          \
	F(list_disk_info, disks,    "storage: its data disks")                  \
	F(str,            release,  "version text of the binary")               \
	F(u64,            member,   "metadata: random id of its member of the group")
#define MSG_REGISTER_REP(F) \
	F(u32, node,     "id of this node, for ever")                           \
	F(u32, lease_ms, "lease, counted from the sending of an answered beat") \
	F(u32, beat_ms,  "time between beats")                                  \
	F(uid, cluster,  "random id of the cluster")
/* How far a returning replica is, told by the one that brings it up to date. */
#define MSG_SYNC_STATUS(F) \
	F(u32, chain,       "chain id")                                         \
	F(u32, target,      "replica that is syncing")                          \
	F(u64, done,        "chunks that are known to be equal by now")         \
	F(u64, total,       "chunks in all, as far as known")                   \
	F(u64, copied,      "chunks that had to be copied, and were")           \
	F(u64, bytes,       "bytes of them")                                    \
	F(u64, bytes_left,  "bytes that are still to be copied, at most")       \
	F(u64, ms,          "time since it began")                              \
	F(i32, rc,          "told by the manager, not 0: it could not be brought " \
	    "up to date, this is why")                                          \
	F(u32, tries,       "then: how often in a row")                         \
	F(u64, again_ms,    "then: time until it is tried again")               \
	F(u64, rate,        "bytes copied a second, lately")                    \
	F(u64, left_ms,     "time that the rest takes at that pace; all ones: not known")
MSG_DECLARE(sync_status, MSG_SYNC_STATUS)
/* Told by the leader of a metadata group, as long as it is certain to lead. */
#define MSG_GROUP_STATUS(F) \
	F(u32,      id,      "number of the group")                             \
	F(uid,      group,   "random id of the group")                          \
	F(u64,      term,    "election term in which it leads")                 \
	F(list_u64, voters,  "members that vote")                               \
	F(list_u64, learners, "members that are being brought up to date")
MSG_DECLARE(group_status, MSG_GROUP_STATUS)
/* Another storage node, as this one finds it. */
#define MSG_NEIGHBOUR(F) \
	F(u32, node,        "node id")                                          \
	F(u8,  reached,     "0: a replica there gives no sign of life and is waited " \
	    "for; 1: it has answered just now, and its replicas are apart")
MSG_DECLARE(neighbour, MSG_NEIGHBOUR)
/* What a node is known to act on, for who waits until it has heard of a chain. */
#define MSG_HEARD(F) \
	F(u32, node,    "node id")                                              \
	F(u64, routing, "it answers nobody by routing older than this; 0: not known")
MSG_DECLARE(heard, MSG_HEARD)
#define MSG_BEAT(F) \
	F(u32,            node,  "node id")                                     \
	F(uid,            boot,  "as registered; another one: ERR_STALE_NODE")  \
	F(list_disk_info, disks, "storage: space and health now")                \
	F(list_sync_status, syncs, "storage: replicas it brings up to date")    \
	F(list_group_status, groups, "metadata: the group that it leads")       \
	F(list_neighbour, neighbours, "storage: nodes that it cannot reach, or can again") \
	F(u64,            routing, "it answers nobody by routing older than this; 0: not told") \
	F(list_u32,       awaited, "storage: nodes of which it has to know that they have heard " \
	    "of a chain, and which it cannot ask")
#define MSG_BEAT_REP(F) \
	F(u64, routing,        "newest routing version")                        \
	F(u64, total_bytes,    "cluster: bytes that files can use in all")      \
	F(u64, used_bytes,     "cluster: bytes that files use")                 \
	F(u64, config_version, "newest option-set version")                     \
	F(list_heard, heard,   "one for each that is awaited, same order")
#define MSG_GOODBYE(F) \
	F(u32, node, "node id")                                                 \
	F(uid, boot, "as registered")
MSG_DECLARE(register, MSG_REGISTER)
MSG_DECLARE(register_rep, MSG_REGISTER_REP)
MSG_DECLARE(beat, MSG_BEAT)
MSG_DECLARE(beat_rep, MSG_BEAT_REP)
MSG_DECLARE(goodbye, MSG_GOODBYE)

/* The last serving replica has brought the syncing one up to date, or cannot; or one that
 * serves lacks the space for what others have. */
#define MSG_SYNCED(F) \
	F(u32, node,    "node of the last serving replica, or of the target itself") \
	F(uid, boot,    "as registered")                                        \
	F(u32, chain,   "chain id")                                             \
	F(u32, version, "chain version under which all was compared")           \
	F(u32, target,  "the replica that has everything now")                  \
	F(i32, rc,      "not 0: it does not take what it is sent, or has no space for " \
	    "what others have, this is why; the chain is to go on without it")
MSG_DECLARE(synced, MSG_SYNCED)

/* ---- operators ---- */
#define MSG_CHAIN_ACCEPT(F) \
	F(u32, chain,   "chain whose last replica is gone for good")            \
	F(u32, target,  "replica whose content is taken for everything there is")
#define MSG_CHAIN_RESYNC(F) \
	F(u32, chain,   "chain id")                                             \
	F(u32, version, "of the chain, as the asker knows it; 0: any")          \
	F(u32, target,  "replica that is compared with the others, and mended")
#define MSG_DISK_REPLACE(F) \
	F(uid, disk,    "disk that is given up")                                \
	F(uid, with,    "disk whose free targets take the place of its replicas")
enum manager_op { MANAGER_ADD = 1, MANAGER_REMOVE, MANAGER_REPLACE };
#define MSG_MANAGER_CHANGE(F) \
	F(u8,  op,      "enum manager_op")                                      \
	F(str, addr,    "of the manager that is added, removed or replaced")    \
	F(str, with,    "of the one in its place; may be the same")
#define MSG_MANAGER_ROW(F) \
	F(u64, member,  "random id, made with its data")                        \
	F(str, addr,    "where it listens")                                     \
	F(u8,  voter,   "0: it is being brought up to date")                    \
	F(u8,  leader,  "1: it leads")                                          \
	F(u8,  wanted,  "0: it is being removed")
MSG_DECLARE(manager_change, MSG_MANAGER_CHANGE)
#define MSG_METADATA_CHANGE(F) \
	F(u8,  op,      "enum manager_op")                                      \
	F(u32, node,    "metadata node that is added, removed or replaced")     \
	F(u32, with,    "the one in its place; may be the same, when it has lost its data")
MSG_DECLARE(metadata_change, MSG_METADATA_CHANGE)
MSG_DECLARE(manager_row, MSG_MANAGER_ROW)
#define MSG_MANAGERS_REP(F) \
	F(list_manager_row, managers, "members of the managers' group")
MSG_DECLARE(managers_rep, MSG_MANAGERS_REP)
MSG_DECLARE(chain_accept, MSG_CHAIN_ACCEPT)
MSG_DECLARE(chain_resync, MSG_CHAIN_RESYNC)
MSG_DECLARE(disk_replace, MSG_DISK_REPLACE)

/* ---- clients ---- */
#define MSG_CLIENT_BEAT(F) \
	F(uid, client,  "random id of the client process")                      \
	F(str, host,    "host name")                                            \
	F(str, mount,   "mount point, or what it is used for")                  \
	F(u64, pid,     "process id on its host")                               \
	F(str, release, "version text of the binary")                           \
	F(u8,  leaving, "1: forget me")
#define MSG_CLIENT_BEAT_REP(F) \
	F(u32, beat_ms,        "time between beats")                            \
	F(u64, routing,        "newest routing version")                        \
	F(u64, config_version, "newest option-set version")
#define MSG_CLIENT_ROW(F) \
	F(uid, client,   "random id of the client process")                     \
	F(str, host,     "host name")                                           \
	F(str, mount,    "mount point, or what it is used for")                 \
	F(u64, pid,      "process id on its host")                              \
	F(str, release,  "version text of the binary")                          \
	F(u64, since_ms, "time since it was first seen")                        \
	F(u64, seen_ms,  "time since it was last seen")
MSG_DECLARE(client_beat, MSG_CLIENT_BEAT)
MSG_DECLARE(client_beat_rep, MSG_CLIENT_BEAT_REP)
MSG_DECLARE(client_row, MSG_CLIENT_ROW)
#define MSG_CLIENTS(F) \
	F(uid, after, "only those behind this one in the order of ids; zeros: from the first")
#define MSG_CLIENTS_REP(F) \
	F(list_client_row, clients, "live clients in the order of ids, as many as one answer has room for") \
	F(u32,             left,    "how many follow")
MSG_DECLARE(clients, MSG_CLIENTS)
MSG_DECLARE(clients_rep, MSG_CLIENTS_REP)

/* What routing does not hold: space and liveness, for `fsd admin show`. */
#define MSG_NODE_STATUS(F) \
	F(u32,            node,    "node id")                                   \
	F(u64,            seen_ms, "time since its last beat; all ones: never") \
	F(str,            release, "version text of its binary")                \
	F(list_disk_info, disks,   "its disks, as last told")
MSG_DECLARE(node_status, MSG_NODE_STATUS)
#define MSG_STATUS(F) \
	F(u32, after_node,   "only nodes behind this one; all ones: none")      \
	F(u32, after_chain,  "only replicas that are brought up to date behind this chain") \
	F(u32, after_target, "and target; of chain all ones: none")
MSG_DECLARE(status, MSG_STATUS)
#define MSG_STATUS_REP(F) \
	F(list_node_status, nodes,          "nodes in the order of ids, as many as one answer has room for") \
	F(u64,              total_bytes,    "bytes that files can use in all")  \
	F(u64,              used_bytes,     "bytes that files use")             \
	F(u64,              config_version, "newest option-set version")        \
	F(list_sync_status, syncs,          "replicas that are brought up to date, in the order of chains and targets, as many as there is room for") \
	F(list_group_status, groups,        "metadata groups, as last told by their leaders") \
	F(u32,              nodes_left,     "how many nodes follow")            \
	F(u32,              syncs_left,     "how many such replicas follow")
MSG_DECLARE(status_rep, MSG_STATUS_REP)

/* ---- option sets: text of an options file per role, versioned ---- */
#define MSG_CONFIG_GET(F) \
	F(str, role, "manager, metadata, storage or client")
#define MSG_CONFIG_SET(F) \
	F(str, role, "manager, metadata, storage or client")                    \
	F(str, text, "options in fsd.conf syntax; checked before it is taken")  \
	F(u64, have, "version it was made from; another one: -EAGAIN")
#define MSG_CONFIG_REP(F) \
	F(u64, version, "option-set version, 0 when none was ever set")         \
	F(str, text,    "options in fsd.conf syntax")
MSG_DECLARE(config_get, MSG_CONFIG_GET)
MSG_DECLARE(config_set, MSG_CONFIG_SET)
MSG_DECLARE(config_rep, MSG_CONFIG_REP)

/* 0x0105 was used by earlier releases. */
/*        id      name          request       reply            when sent again */
#define MSG_MANAGER_CALLS(X) \
	X(0x0101, register,    register,    register_rep,    "same boot, same answer") \
	X(0x0102, beat,        beat,        beat_rep,        "harmless")        \
	X(0x0103, routing,     routing,     routing_rep,     "harmless")        \
	X(0x0104, goodbye,     goodbye,     none,            "harmless")        \
	X(0x0106, client_beat, client_beat, client_beat_rep, "harmless")        \
	X(0x0107, clients,     clients,     clients_rep,     "harmless")        \
	X(0x0108, status,      status,      status_rep,      "harmless")        \
	X(0x0109, config_get,  config_get,  config_rep,      "harmless")        \
	X(0x010a, config_set,  config_set,  config_rep,      "refused by have") \
	X(0x010b, manager_stats, none,      stats_rep,       "harmless")         \
	X(0x010c, synced,      synced,      none,            "harmless")        \
	X(0x010d, chain_accept, chain_accept, none,          "refused once done") \
	X(0x010e, disk_replace, disk_replace, none,          "refused once done") \
	X(0x010f, manager_change, manager_change, none,      "refused once done") \
	X(0x0110, managers,    none,        managers_rep,    "harmless")        \
	X(0x0111, metadata_change, metadata_change, none,    "refused once done") \
	X(0x0112, chain_resync, chain_resync, none,          "refused once begun")

#endif
