/* SPDX-License-Identifier: MIT */
/* msg_table.c - every message of the six headers, and the table of calls. */
#include "net/msg_all.h"
#include "net/msg_define.h"

/* A message comes after those it holds. */
#define MESSAGES(X) \
	/* net/msg_core.h */ \
	X(none, MSG_NONE) \
	X(stats_rep, MSG_STATS_REP) \
	/* net/msg_manager.h */ \
	X(rt_node, MSG_RT_NODE) \
	X(rt_target, MSG_RT_TARGET) \
	X(rt_chain, MSG_RT_CHAIN) \
	X(rt_table, MSG_RT_TABLE) \
	X(rt_group, MSG_RT_GROUP) \
	X(routing, MSG_ROUTING) \
	X(routing_rep, MSG_ROUTING_REP) \
	X(disk_info, MSG_DISK_INFO) \
	X(register, MSG_REGISTER) \
	X(register_rep, MSG_REGISTER_REP) \
	X(sync_status, MSG_SYNC_STATUS) \
	X(group_status, MSG_GROUP_STATUS) \
	X(neighbour, MSG_NEIGHBOUR) \
	X(heard, MSG_HEARD) \
	X(beat, MSG_BEAT) \
	X(beat_rep, MSG_BEAT_REP) \
	X(goodbye, MSG_GOODBYE) \
	X(synced, MSG_SYNCED) \
	X(manager_change, MSG_MANAGER_CHANGE) \
	X(manager_row, MSG_MANAGER_ROW) \
	X(metadata_change, MSG_METADATA_CHANGE) \
	X(managers_rep, MSG_MANAGERS_REP) \
	X(chain_accept, MSG_CHAIN_ACCEPT) \
	X(chain_resync, MSG_CHAIN_RESYNC) \
	X(disk_replace, MSG_DISK_REPLACE) \
	X(client_beat, MSG_CLIENT_BEAT) \
	X(client_beat_rep, MSG_CLIENT_BEAT_REP) \
	X(client_row, MSG_CLIENT_ROW) \
	X(clients, MSG_CLIENTS) \
	X(clients_rep, MSG_CLIENTS_REP) \
	X(node_status, MSG_NODE_STATUS) \
	X(status, MSG_STATUS) \
	X(status_rep, MSG_STATUS_REP) \
	X(config_get, MSG_CONFIG_GET) \
	X(config_set, MSG_CONFIG_SET) \
	X(config_rep, MSG_CONFIG_REP) \
	/* net/msg_meta.h */ \
	X(ctx, MSG_CTX) \
	X(attr, MSG_ATTR) \
	X(entry_rep, MSG_ENTRY_REP) \
	X(lookup, MSG_LOOKUP) \
	X(ino, MSG_INO) \
	X(setattr, MSG_SETATTR) \
	X(create, MSG_CREATE) \
	X(open, MSG_OPEN) \
	X(sync, MSG_SYNC) \
	X(mknod, MSG_MKNOD) \
	X(symlink, MSG_SYMLINK) \
	X(readlink_rep, MSG_READLINK_REP) \
	X(link, MSG_LINK) \
	X(name, MSG_NAME) \
	X(rename, MSG_RENAME) \
	X(unlink_rep, MSG_UNLINK_REP) \
	X(readdir, MSG_READDIR) \
	X(dirent, MSG_DIRENT) \
	X(readdir_rep, MSG_READDIR_REP) \
	X(statfs_rep, MSG_STATFS_REP) \
	X(open_row, MSG_OPEN_ROW) \
	X(session, MSG_SESSION) \
	X(session_rep, MSG_SESSION_REP) \
	X(image, MSG_IMAGE) \
	X(image_row, MSG_IMAGE_ROW) \
	X(image_rep, MSG_IMAGE_REP) \
	X(repair_row, MSG_REPAIR_ROW) \
	X(repair, MSG_REPAIR) \
	X(repair_result, MSG_REPAIR_RESULT) \
	X(repair_rep, MSG_REPAIR_REP) \
	X(reload, MSG_RELOAD) \
	X(reload_rep, MSG_RELOAD_REP) \
	/* net/msg_storage.h */ \
	X(read_item, MSG_READ_ITEM) \
	X(read_result, MSG_READ_RESULT) \
	X(read, MSG_READ) \
	X(read_rep, MSG_READ_REP) \
	X(write, MSG_WRITE) \
	X(write_rep, MSG_WRITE_REP) \
	X(dedupe, MSG_DEDUPE) \
	X(update, MSG_UPDATE) \
	X(update_rep, MSG_UPDATE_REP) \
	X(committed, MSG_COMMITTED) \
	X(committed_rep, MSG_COMMITTED_REP) \
	X(cut, MSG_CUT) \
	X(cut_rep, MSG_CUT_REP) \
	X(last, MSG_LAST) \
	X(last_rep, MSG_LAST_REP) \
	X(list_row, MSG_LIST_ROW) \
	X(list, MSG_LIST) \
	X(list_rep, MSG_LIST_REP) \
	X(fetch, MSG_FETCH) \
	X(fetch_rep, MSG_FETCH_REP) \
	X(mend, MSG_MEND) \
	/* net/msg_raft.h */ \
	X(who, MSG_WHO) \
	X(who_rep, MSG_WHO_REP) \
	X(raft_step, MSG_RAFT_STEP) \
	X(snapshot, MSG_SNAPSHOT) \
	X(snapshot_rep, MSG_SNAPSHOT_REP) \
	/* net/msg_bench.h */ \
	X(bench_take, MSG_BENCH_TAKE) \
	X(bench_give, MSG_BENCH_GIVE) \
	X(bench_bare, MSG_BENCH_BARE) \
	X(bench_bare_rep, MSG_BENCH_BARE_REP) \
	X(bench_cpu_rep, MSG_BENCH_CPU_REP)

MESSAGES(MSG_DEFINE)

const struct msg_type *
msg_type_at(unsigned i)
{
	static const struct msg_type *const types[] = {
#define X(name, rows) &msg_type_##name,
		MESSAGES(X)
#undef X
	};

	return i < sizeof(types) / sizeof(types[0]) ? types[i] : NULL;
}

/* ---- calls ---- */

enum {
#define X(id, name, request, reply, retry) METHOD_##name,
	MSG_ALL_CALLS(X)
#undef X
	METHODS
};

static const struct msg_method methods[METHODS] = {
#define ROW(service, id, name, request, reply, retry) \
	[METHOD_##name] = { id, service, #name, &msg_type_##request, \
	    &msg_type_##reply, retry },
#define X(...) ROW("manager", __VA_ARGS__)
	MSG_MANAGER_CALLS(X)
#undef X
#define X(...) ROW("metadata", __VA_ARGS__)
	MSG_META_CALLS(X)
#undef X
#define X(...) ROW("storage", __VA_ARGS__)
	MSG_STORAGE_CALLS(X)
#undef X
#define X(...) ROW("raft", __VA_ARGS__)
	MSG_RAFT_CALLS(X)
#undef X
#define X(...) ROW("bench", __VA_ARGS__)
	MSG_BENCH_CALLS(X)
#undef X
};

const struct msg_method *
msg_method(uint16_t id)
{
	switch (id) {		/* two calls of one id do not compile */
#define X(number, name, request, reply, retry) \
	case number: \
		return &methods[METHOD_##name];
	MSG_ALL_CALLS(X)
#undef X
	default:
		return NULL;
	}
}

const struct msg_method *
msg_method_at(unsigned i)
{
	return i < METHODS ? &methods[i] : NULL;
}
