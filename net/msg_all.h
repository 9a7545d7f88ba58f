/* SPDX-License-Identifier: MIT */
/* msg_all.h - the messages of all services, and MSG_name for the id of every call:
 * MSG_register is 0x0101, MSG_read is 0x0301.  Names are unique over the services. */
#ifndef NET_MSG_ALL_H
#define NET_MSG_ALL_H

#include "net/msg_bench.h"
#include "net/msg_manager.h"
#include "net/msg_meta.h"
#include "net/msg_raft.h"
#include "net/msg_storage.h"

#define MSG_ALL_CALLS(X) \
	MSG_MANAGER_CALLS(X) \
	MSG_META_CALLS(X) \
	MSG_STORAGE_CALLS(X) \
	MSG_RAFT_CALLS(X) \
	MSG_BENCH_CALLS(X)

enum {
#define X(id, name, request, reply, retry) MSG_##name = id,
	MSG_ALL_CALLS(X)
#undef X
	MSG_END_ = 0xffff	/* ids are 16 bits on the wire */
};

#endif
