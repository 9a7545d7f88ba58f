/* SPDX-License-Identifier: MIT */
/* bench.h - `fsd bench`: load on a running cluster through the client library, printed beside
 * a limit measured in the same run. */
#ifndef ROLES_BENCH_H
#define ROLES_BENCH_H

#include "conf/conf.h"
#include "net/addr.h"
#include "net/call.h"

/* Run the named cases (none: all) and print a line each: name, bytes/s, operations/s, p50 and
 * p99 in microseconds, ratio to its limit.  @raw: a directory on the disk of the cluster, where
 * io_uring alone is measured (NULL: no ratios).  Returns an exit status. */
int	bench_run(const struct conf *conf, const uint8_t key[NET_KEY_BYTES],
	    const struct net_addr *managers, unsigned manager_n, const char *raw,
	    const char *const *cases, unsigned case_n);

#endif
