/* SPDX-License-Identifier: MIT */
/* local.h - frames between the loops of one process: heads are passed by clock_post(), a
 * payload is copied once, by who pulls it, from the sender's memory into place. */
#ifndef NET_LOCAL_H
#define NET_LOCAL_H

#include "conf/clock.h"
#include "net/transport.h"

/* For net_hub_add(), which owns it then.  @clock is of the hub's loop; borrowed.
 * Serves "local:N"; listening on local:0 takes a number that is free.  0 or -ENOMEM. */
int	net_local_open(struct net_transport **out, struct clock *clock);

#endif
