/* SPDX-License-Identifier: MIT */
/* rdma_port.h - which ports and addresses may be used, and which two suit each other.  Pure:
 * no device is needed to test it (tests/test_rdma_port.c).
 *
 * Addresses are GIDs as verbs have them: an IPv4 address is ::ffff:a.b.c.d, and so is that of
 * an iWARP port, whose own GIDs say nothing. */
#ifndef NET_RDMA_PORT_H
#define NET_RDMA_PORT_H

#include <stdbool.h>
#include <stdint.h>

#include "net/rdma_wire.h"

struct net_addr;

/* An address of ours, and what is to be known of its port. */
struct rdma_local {
	uint8_t	 link;			/* LINK_*; LINK_NONE: not now */
	uint8_t	 prefix;		/* bits of its subnet */
	uint8_t	 keys_n;
	unsigned used;			/* connections of its port */
	uint16_t keys[PKEYS_MAX];	/* 0: none at that place */
	uint8_t	 gid[GID];
};

struct rdma_choice {
	unsigned ours, theirs;		/* indices of addresses */
	unsigned key;			/* index in our table of keys */
};

/* May this address of this port be used, by what rdma.devices names?  Items of the list:
 * "mlx5_0", "mlx5_0:2" (a port), "10.1.0.0/16", "fd00::/8", "10.1.2.3"; none: all. */
bool	net_rdma_named(const char *names, const char *dev, unsigned port,
	    const uint8_t gid[GID]);
/* Is every item of the list one of these?  Else *bad, *n: the one that is not. */
bool	net_rdma_names_check(const char *names, const char **bad, unsigned *n);

/* Has it the form of an IPv4 address? */
bool	net_rdma_is_ipv4(const uint8_t gid[GID]);
/* The address of a TCP connection as a GID; false: it is not of TCP. */
bool	net_rdma_gid_of(const struct net_addr *a, uint8_t gid[GID]);
/* How good an address is for others to reach us by: 3 IPv4, 2 IPv6, 1 only on the same link,
 * 0 no good. */
unsigned net_rdma_rank(const uint8_t gid[GID]);
/* The bits of a subnet when nobody says. */
uint8_t	net_rdma_prefix(uint8_t link, const uint8_t gid[GID]);

/* The place in our table of a key by which we may talk to who has @theirs: the first that both
 * are full members of, else the first that one of us is.  -1: there is none. */
int	net_rdma_key(const uint16_t *ours, unsigned ours_n, const uint16_t *theirs,
	    unsigned theirs_n);

/* Must packets to @theirs at @lid carry a GID?  Only within an InfiniBand subnet a LID does. */
bool	net_rdma_by_gid(uint8_t link, const uint8_t ours[GID], const uint8_t theirs[GID],
	    uint16_t lid);

/* The best two: the same link layer and kind of address, and on InfiniBand a partition, there
 * must be; then the same subnet, the port of ours that is least used, the least used of
 * theirs, the subnet that the TCP connection comes from, the better kind of address.
 * @peer: whom that is with, as a GID; NULL: unknown.  0; or why there is none, WHY_*. */
int	net_rdma_choose(const struct rdma_local *ours, unsigned n,
	    const struct rdma_offered *theirs, const uint8_t *peer,
	    struct rdma_choice *out);

#endif
