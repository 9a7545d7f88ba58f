/* SPDX-License-Identifier: MIT */
/* bench_bare.h - a stream of nothing but read() and write(): what `fsd bench net` holds its
 * figures against.  Blocking calls; each end has a thread for it. */
#ifndef ROLES_BENCH_BARE_H
#define ROLES_BENCH_BARE_H

#include <stddef.h>
#include <stdint.h>

#include "net/addr.h"
#include "net/msg_bench.h"

/* One measurement; @len bytes at a time, @places such pieces of @mem in turn. */
struct bench_bare {
	enum bench_bare_kind kind;
	uint8_t		*mem;
	uint32_t	 len, places;
};

struct bench_bare_result {
	uint64_t  bytes, ns;
	uint32_t *rtt_ns;		/* of echoes; filled up to cap */
	size_t	  n, cap;
};

uint64_t bench_now_ns(void);
/* Processor time of this process, user and system. */
uint64_t bench_cpu_us(void);

/* A socket that awaits one connection at @at, any port, which is put there.
 * The descriptor or -errno. */
int	bench_bare_listen(struct net_addr *at);
/* Await it for some seconds and do our part; closes @fd.  0 or -errno. */
int	bench_bare_serve(const struct bench_bare *b, int fd);
/* The other part, for @ms; adds to *r.  0 or -errno. */
int	bench_bare_measure(const struct bench_bare *b, const struct net_addr *to,
	    uint32_t ms, struct bench_bare_result *r);

#endif
