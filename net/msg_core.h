/* SPDX-License-Identifier: MIT */
/* msg_core.h - messages that more than one service uses. */
#ifndef NET_MSG_CORE_H
#define NET_MSG_CORE_H

#include "net/msg.h"

#define MSG_NONE(F) \
	F(u8, unused, "zero")

MSG_DECLARE(none, MSG_NONE)

/* Every service tells the counters of its process. */
#define MSG_STATS_REP(F) \
	F(u64, process, "random; roles in one process tell the same counters")  \
	F(str, text,    "Prometheus exposition format 0.0.4")
MSG_DECLARE(stats_rep, MSG_STATS_REP)

#endif
