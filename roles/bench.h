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
 * io_uring alone is measured (NULL: no ratios).  @seconds: of each case.  Returns an exit
 * status. */
int	bench_run(const struct conf *conf, const uint8_t key[NET_KEY_BYTES],
	    const struct net_addr *managers, unsigned manager_n, const char *raw,
	    unsigned seconds, const char *const *cases, unsigned case_n);

/* ---- fsd bench net: between two nodes, calls alone ---- */

/* Be the end that answers, at @listen, until SIGTERM or SIGINT.  ready: it listens at @at.
 * Returns an exit status. */
int	bench_net_serve(const struct conf *conf, const uint8_t key[NET_KEY_BYTES],
	    const struct net_addr *listen,
	    void (*ready)(void *ctx, const struct net_addr *at), void *ctx);
/* Measure to the end at @to and print a table: over TCP, beside a bare stream, and over RDMA
 * where both ends have that.  @names: "tcp", "rdma", and cases ("ping", "take", "give"); none
 * of a kind means all of it.  @seconds for each row.  @conf: rdma.devices is changed.  Returns
 * an exit status. */
int	bench_net(struct conf *conf, const uint8_t key[NET_KEY_BYTES],
	    const struct net_addr *to, unsigned seconds, const char *const *names,
	    unsigned name_n);
/* Both ends in two processes of this node, the other one listening at @listen. */
int	bench_net_both(struct conf *conf, const struct net_addr *listen, unsigned seconds,
	    const char *const *names, unsigned name_n);

#endif
