/* SPDX-License-Identifier: MIT */
/* rdma_port.c - which ports and addresses may be used, and which two suit each other. */
#include "net/rdma_port.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "net/addr.h"

#define V4_BITS		96u		/* in front of an IPv4 address in a GID */
#define KEY_FULL	0x8000u		/* full member of the partition */
#define KEY_BASE	0x7fffu

static const uint8_t v4_in_6[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

/* ---- addresses ---- */

bool
net_rdma_is_ipv4(const uint8_t gid[GID])
{
	return memcmp(gid, v4_in_6, sizeof(v4_in_6)) == 0;
}

bool
net_rdma_gid_of(const struct net_addr *a, uint8_t gid[GID])
{
	if (a->kind == NET_ADDR_TCP4) {
		memcpy(gid, v4_in_6, sizeof(v4_in_6));
		memcpy(gid + sizeof(v4_in_6), a->ip, 4);
	} else if (a->kind == NET_ADDR_TCP6) {
		memcpy(gid, a->ip, GID);
	}
	return a->kind == NET_ADDR_TCP4 || a->kind == NET_ADDR_TCP6;
}

static bool
is_link_local(const uint8_t gid[GID])
{
	return gid[0] == 0xfe && (gid[1] & 0xc0) == 0x80;
}

unsigned
net_rdma_rank(const uint8_t gid[GID])
{
	static const uint8_t none[GID];

	if (memcmp(gid, none, GID) == 0)
		return 0;
	if (net_rdma_is_ipv4(gid))
		return 3;
	return is_link_local(gid) ? 1 : 2;
}

uint8_t
net_rdma_prefix(uint8_t link, const uint8_t gid[GID])
{
	return link != LINK_IB && net_rdma_is_ipv4(gid) ? V4_BITS + 24 : 64;
}

/* Are the first @bits the same? */
static bool
same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	return memcmp(a, b, whole) == 0 &&
	    (rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

/* ---- rdma.devices ---- */

/* One item of the list, as text. */
struct item {
	const char *p;
	unsigned    n;
};

static bool
next_item(const char **names, struct item *out)
{
	*names += strspn(*names, ", \t");
	out->p = *names;
	out->n = (unsigned)strcspn(*names, ", \t");
	*names += out->n;
	return out->n > 0;
}

/* Decimal digits, at most @max. */
static bool
number(const char *p, size_t n, unsigned max, unsigned *out)
{
	*out = 0;
	if (n == 0 || n > 3)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9')
			return false;
		*out = *out * 10 + (unsigned)(p[i] - '0');
	}
	return *out <= max;
}

/* "10.1.0.0/16", "fd00::/8", an address alone. */
static bool
is_subnet(const struct item *it, uint8_t gid[GID], unsigned *bits)
{
	const char *slash = memchr(it->p, '/', it->n);
	size_t n = slash != NULL ? (size_t)(slash - it->p) : it->n;
	char text[INET6_ADDRSTRLEN];
	unsigned max = 128, skip = 0;

	if (n == 0 || n >= sizeof(text))
		return false;
	memcpy(text, it->p, n);
	text[n] = '\0';
	if (inet_pton(AF_INET, text, gid + sizeof(v4_in_6)) == 1) {
		memcpy(gid, v4_in_6, sizeof(v4_in_6));
		max = 32;
		skip = V4_BITS;
	} else if (inet_pton(AF_INET6, text, gid) != 1) {
		return false;
	}
	*bits = max;
	if (slash != NULL && !number(slash + 1, it->n - n - 1, max, bits))
		return false;
	*bits += skip;
	return true;
}

/* "mlx5_0" or "mlx5_0:2". */
static bool
is_device(const struct item *it, const char *dev, unsigned port)
{
	size_t n = strlen(dev);
	unsigned at;

	if (it->n < n || memcmp(it->p, dev, n) != 0)
		return false;
	return it->n == n || (it->p[n] == ':' &&
	    number(it->p + n + 1, it->n - n - 1, 255, &at) && at == port);
}

bool
net_rdma_named(const char *names, const char *dev, unsigned port, const uint8_t gid[GID])
{
	struct item it;
	bool any = false;

	while (names != NULL && next_item(&names, &it)) {
		uint8_t net[GID];
		unsigned bits;

		any = true;
		if (is_subnet(&it, net, &bits)) {
			if (same_bits(net, gid, bits))
				return true;
		} else if (is_device(&it, dev, port)) {
			return true;
		}
	}
	return !any;
}

bool
net_rdma_names_check(const char *names, const char **bad, unsigned *n)
{
	struct item it;

	while (names != NULL && next_item(&names, &it)) {
		const char *colon = memchr(it.p, ':', it.n);
		uint8_t net[GID];
		unsigned value;

		if (is_subnet(&it, net, &value))
			continue;
		if (memchr(it.p, '/', it.n) == NULL && (colon == NULL || (colon > it.p &&
		    number(colon + 1, it.n - (size_t)(colon - it.p) - 1, 255, &value))))
			continue;
		*bad = it.p;
		*n = it.n;
		return false;
	}
	return true;
}

/* ---- partitions ---- */

static bool
keys_agree(uint16_t a, uint16_t b, bool both)
{
	return (a & KEY_BASE) != 0 && ((a ^ b) & KEY_BASE) == 0 &&
	    ((both ? a & b : a | b) & KEY_FULL) != 0;
}

static int
find_key(const uint16_t *ours, unsigned ours_n, const uint16_t *theirs, unsigned theirs_n,
    bool both)
{
	for (unsigned i = 0; i < ours_n; i++)
		for (unsigned k = 0; k < theirs_n; k++)
			if (keys_agree(ours[i], theirs[k], both))
				return (int)i;
	return -1;
}

int
net_rdma_key(const uint16_t *ours, unsigned ours_n, const uint16_t *theirs, unsigned theirs_n)
{
	int at = find_key(ours, ours_n, theirs, theirs_n, true);

	return at >= 0 ? at : find_key(ours, ours_n, theirs, theirs_n, false);
}

/* ---- two ports ---- */

bool
net_rdma_by_gid(uint8_t link, const uint8_t ours[GID], const uint8_t theirs[GID], uint16_t lid)
{
	return link != LINK_IB || lid == 0 || !same_bits(ours, theirs, 64);
}

/* How well two addresses suit each other; what comes first matters most. */
struct fit {
	unsigned subnet, idle, far_idle, tcp, rank;
};

static int
compare(const struct fit *a, const struct fit *b)
{
	const unsigned x[] = { a->subnet, a->idle, a->far_idle, a->tcp, a->rank };
	const unsigned y[] = { b->subnet, b->idle, b->far_idle, b->tcp, b->rank };

	for (unsigned i = 0; i < sizeof(x) / sizeof(x[0]); i++)
		if (x[i] != y[i])
			return x[i] > y[i] ? 1 : -1;
	return 0;
}

/* 0, or WHY_*. */
static int
suits(const struct rdma_local *o, const struct rdma_offered_port *p, const uint8_t gid[GID],
    const uint8_t *peer, struct fit *fit, unsigned *key)
{
	unsigned rank = net_rdma_rank(gid), our_rank = net_rdma_rank(o->gid);
	int at = 0;

	if (o->link == LINK_NONE || o->link != p->link)
		return WHY_LINK;
	if (o->link != LINK_IB) {
		if (rank == 0 || our_rank == 0 ||
		    net_rdma_is_ipv4(gid) != net_rdma_is_ipv4(o->gid) ||
		    is_link_local(gid) != is_link_local(o->gid))
			return WHY_ADDRESS;
	} else if ((at = net_rdma_key(o->keys, o->keys_n, p->keys, p->keys_n)) < 0) {
		return WHY_PARTITION;
	}
	*key = (unsigned)at;
	*fit = (struct fit){ .subnet = same_bits(o->gid, gid, o->prefix),
	    .idle = UINT32_MAX - o->used, .far_idle = UINT32_MAX - p->used,
	    .tcp = peer == NULL ? 0 : (unsigned)(memcmp(gid, peer, GID) == 0) +
		same_bits(o->gid, peer, o->prefix),
	    .rank = rank };
	return 0;
}

int
net_rdma_choose(const struct rdma_local *ours, unsigned n, const struct rdma_offered *theirs,
    const uint8_t *peer, struct rdma_choice *out)
{
	struct fit best = { 0 }, fit;
	bool any = false;
	int why = n == 0 ? WHY_DEVICE : WHY_LINK;

	for (unsigned i = 0; i < theirs->addrs_n; i++) {
		const struct rdma_offered_addr *a = &theirs->addrs[i];
		const struct rdma_offered_port *p = &theirs->ports[a->port];

		for (unsigned k = 0; k < n; k++) {
			unsigned key;
			int rc = suits(&ours[k], p, a->gid, peer, &fit, &key);

			if (rc > why)	/* the later the reason, the nearer they were */
				why = rc;
			if (rc != 0 || (any && compare(&fit, &best) <= 0))
				continue;
			any = true;
			best = fit;
			*out = (struct rdma_choice){ .ours = k, .theirs = i, .key = key };
		}
	}
	return any ? 0 : why;
}
