/* SPDX-License-Identifier: MIT */
/* tcp.h - frames over TCP, on a loop's own descriptors. */
#ifndef NET_TCP_H
#define NET_TCP_H

#include "conf/log.h"
#include "net/loop.h"
#include "net/transport.h"

/* For net_hub_add(), which owns it then.  @loop and @log are borrowed.  0 or -ENOMEM. */
int	net_tcp_open(struct net_transport **out, struct loop *loop,
	    const struct log *log);

#endif
