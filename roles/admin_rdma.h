/* SPDX-License-Identifier: MIT */
/* admin_rdma.h - `show rdma`: what the counters of each process say of its RDMA ports. */
#ifndef ROLES_ADMIN_RDMA_H
#define ROLES_ADMIN_RDMA_H

#include <stddef.h>
#include <stdint.h>

#include "net/msg.h"

#define ADMIN_RDMA_WORD 80u

/* Values of a port, by the names of their counters (net/rdma.h). */
#define ADMIN_RDMA_VALUES(X) \
	X(up) X(mtu) X(connections) X(credits) X(sends_total) X(posts_total)        \
	X(waits_total) X(read_bytes_total) X(write_bytes_total)                     \
	X(copied_bytes_total) X(errors_total)

/* A port as one loop of a node uses it; or a node without one: device is "". */
struct admin_rdma_row {
	char	 node[ADMIN_RDMA_WORD], role[ADMIN_RDMA_WORD], device[ADMIN_RDMA_WORD];
	char	 port[ADMIN_RDMA_WORD], link[ADMIN_RDMA_WORD], gid[ADMIN_RDMA_WORD];
	char	 note[ADMIN_RDMA_WORD];		/* why there is none; "": there is */
#define ADMIN_RDMA_FIELD_(name) uint64_t name;
	ADMIN_RDMA_VALUES(ADMIN_RDMA_FIELD_)
};

struct admin_rdma {
	struct admin_rdma_row *rows;
	size_t		       n, cap;
};

/* Take the counters of @node, one row for each port of each of its loops; one that says that
 * it uses TCP when there is none.  0 or -ENOMEM. */
int	admin_rdma_take(struct admin_rdma *r, const char *node, struct msg_str text);
/* A node whose ports are not known. 0 or -ENOMEM. */
int	admin_rdma_note(struct admin_rdma *r, const char *node, const char *note);
void	admin_rdma_fini(struct admin_rdma *r);

#endif
