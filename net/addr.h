/* SPDX-License-Identifier: MIT */
/* addr.h - where a service listens, as text and as bytes.
 *   "10.1.2.3:7700"  "[fe80::1]:7700"  TCP (later also the way to its RDMA port)
 *   "local:17"       a loop of this process
 *   "sim:3:0"        node 3, loop 0 of a simulation
 * Host names are not looked up: a look-up can block, and in a static binary needs
 * shared libraries of the host. */
#ifndef NET_ADDR_H
#define NET_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sockaddr_storage;

enum net_addr_kind { NET_ADDR_NONE, NET_ADDR_TCP4, NET_ADDR_TCP6, NET_ADDR_LOCAL,
	NET_ADDR_SIM };

struct net_addr {
	uint8_t	 kind;		/* enum net_addr_kind */
	uint8_t	 zero;
	uint16_t port;		/* TCP port; sim: loop */
	uint32_t id;		/* local and sim: number; TCP6: scope */
	uint8_t	 ip[16];	/* TCP4 uses the first four */
};

#define NET_ADDR_TEXT	64u	/* longest text form and its end */

/* 0, or -EINVAL with *why (static text) when not NULL. Takes @n bytes. */
int	net_addr_parse(const char *text, size_t n, struct net_addr *out,
	    const char **why);
void	net_addr_text(const struct net_addr *a, char out[NET_ADDR_TEXT]);
/* The system's form of a TCP address; its length. */
unsigned net_addr_sockaddr(const struct net_addr *a, struct sockaddr_storage *out);
bool	net_addr_eq(const struct net_addr *a, const struct net_addr *b);

#endif
