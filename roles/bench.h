/* SPDX-License-Identifier: MIT */
/* bench.h - `fsd bench`: load on a running cluster through the client library, printed
 * beside a limit measured in the same run. */
#ifndef ROLES_BENCH_H
#define ROLES_BENCH_H

#include "conf/conf.h"
#include "net/addr.h"
#include "net/call.h"

/* Run the named cases (none: all), print a line each.  Returns an exit status. */
int	bench_run(const struct conf *conf, const uint8_t key[NET_KEY_BYTES],
	    const struct net_addr *managers, unsigned manager_n,
	    const char *const *cases, unsigned case_n);

#endif
