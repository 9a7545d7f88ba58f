/* SPDX-License-Identifier: MIT */
/* tcp.h - frames over TCP, on a loop's own descriptors. */
#ifndef NET_TCP_H
#define NET_TCP_H

#include "conf/log.h"
#include "conf/stat.h"
#include "net/loop.h"
#include "net/transport.h"

/* Payload that is sent is never copied by us. */
#define NET_TCP_STATS(X) \
	X(counter, reads,        "times that sockets were read")                 \
	X(counter, writes,       "times that sockets were written to")           \
	X(counter, sent_bytes,   "payload sent")                                 \
	X(counter, recv_bytes,   "payload received")                             \
	X(counter, copied_bytes, "of that, what had come with a head and was copied into place")
STAT_DECLARE(net_tcp, NET_TCP_STATS)

/* For net_hub_add(), which owns it then.  @loop, @log and @stats (NULL: nobody asks) are
 * borrowed.  0 or -ENOMEM. */
int	net_tcp_open(struct net_transport **out, struct loop *loop,
	    const struct log *log, struct stat_registry *stats);
const struct net_tcp_stat *net_tcp_stats(const struct net_transport *t);

#endif
