/* SPDX-License-Identifier: MIT */
/* msg_bench.h - what `fsd bench net` asks of its other end (roles/bench_net_serve.c). */
#ifndef NET_MSG_BENCH_H
#define NET_MSG_BENCH_H

#include "net/msg_core.h"

/* Kinds of a bare stream: what the server does on it until the client closes it. */
enum bench_bare_kind { BENCH_BARE_SINK = 1, BENCH_BARE_SOURCE, BENCH_BARE_ECHO };

#define MSG_BENCH_TAKE(F) \
	F(u32, place,  "where in its memory the server puts the payload, in units of its length")
#define MSG_BENCH_GIVE(F) \
	F(u32, place,  "where in its memory the server takes it from, in units of len") \
	F(u32, len,    "bytes of payload that are wanted")
#define MSG_BENCH_BARE(F) \
	F(u8,  kind,   "1 server reads, 2 server writes, 3 server echoes")      \
	F(u32, len,    "bytes of one read or write")                            \
	F(u32, places, "so many such pieces of its memory are used in turn")
#define MSG_BENCH_BARE_REP(F) \
	F(u32, port,   "TCP port that one connection is awaited at, for some seconds")
#define MSG_BENCH_CPU_REP(F) \
	F(u64, cpu_us, "processor time that the server's process has used")
MSG_DECLARE(bench_take, MSG_BENCH_TAKE)
MSG_DECLARE(bench_give, MSG_BENCH_GIVE)
MSG_DECLARE(bench_bare, MSG_BENCH_BARE)
MSG_DECLARE(bench_bare_rep, MSG_BENCH_BARE_REP)
MSG_DECLARE(bench_cpu_rep, MSG_BENCH_CPU_REP)

/*        id    name        request     reply           when sent again            */
#define MSG_BENCH_CALLS(X) \
	X(0x0501, bench_ping, none,       none,           "harmless")           \
	X(0x0502, bench_take, bench_take, none,           "harmless")           \
	X(0x0503, bench_give, bench_give, none,           "harmless")           \
	X(0x0504, bench_bare, bench_bare, bench_bare_rep, "busy while the first is awaited") \
	X(0x0505, bench_cpu,  none,       bench_cpu_rep,  "harmless")

#endif
