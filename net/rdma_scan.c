/* SPDX-License-Identifier: MIT */
/* rdma_scan.c - what devices say of their ports: state, addresses, partitions; and devices
 * that come while we run.
 *
 * 1. A row of r->ports belongs to a port as long as the device is there, up or down: channels
 *    point to it.  It is free when dev is NULL.
 * 2. A device that has gone is closed with its last channel.
 * 3. Devices are looked for every LOOK_NS, and soon when a connection is set up, for the next
 *    one, but not twice in RESCAN_NS. */
#include "net/rdma_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

STAT_DEFINE(net_rdma_port, NET_RDMA_PORT_STATS)

#define GIDS_MAX	16384u		/* of all ports of a device */
#define LOOK_NS		(10 * NS_PER_S)
#define RESCAN_NS	(3 * NS_PER_S)
#define TURN_REG	(64u << 20)	/* bytes registered in one turn */
#define REFUSED_NS	(10 * NS_PER_S)	/* and twice that the next time, and so on, */
#define REFUSED_DOUBLES	6u		/* so often */

static const char *const link_names[] = { "none", "InfiniBand", "Ethernet", "iWARP" };

/* ---- addresses ---- */

/* Better ones first, of equals the one that came first. */
static void
keep_addr(struct rdma_port *p, const struct rdma_at *a)
{
	unsigned rank = net_rdma_rank(a->gid), at = p->addrs_n;

	while (at > 0 && net_rdma_rank(p->addrs[at - 1].gid) < rank)
		at--;
	if (at == PORT_ADDRS)
		return;
	if (p->addrs_n < PORT_ADDRS)
		p->addrs_n++;
	memmove(&p->addrs[at + 1], &p->addrs[at],
	    (p->addrs_n - 1 - at) * sizeof(p->addrs[0]));
	p->addrs[at] = *a;
}

/* The bits of the subnet that an address of ours is in. */
static uint8_t
prefix_of(uint8_t link, const uint8_t gid[GID], const struct ifaddrs *all)
{
	for (const struct ifaddrs *i = all; link != LINK_IB && i != NULL; i = i->ifa_next) {
		uint8_t its[GID], prefix;

		if (net_rdma_if_addr(i, its, &prefix) && memcmp(its, gid, GID) == 0)
			return prefix;
	}
	return net_rdma_prefix(link, gid);
}

static void
read_gids(struct rdma_port *p, size_t most)
{
	uint32_t type = p->link == LINK_IB ? IBV_GID_TYPE_IB : IBV_GID_TYPE_ROCE_V2;
	struct ibv_gid_entry *gids;
	struct ifaddrs *all = NULL;
	ssize_t n = 0;

	most *= p->dev->attr.phys_port_cnt;
	if (most > GIDS_MAX)
		most = GIDS_MAX;
	if ((gids = calloc(most + 1, sizeof(*gids))) != NULL)
		n = ibv_query_gid_table(p->dev->ctx, gids, most + 1, 0);
	if (getifaddrs(&all) != 0)
		all = NULL;
	p->addrs_n = 0;
	for (ssize_t i = 0; i < n; i++) {
		const struct ibv_gid_entry *g = &gids[i];
		struct rdma_at a = { .index = (uint8_t)g->gid_index };

		if (g->port_num != p->port || g->gid_type != type ||
		    g->gid_index > UINT8_MAX || net_rdma_rank(g->gid.raw) == 0 ||
		    !net_rdma_named(p->dev->r->conf.devices, p->dev->name, p->port,
		    g->gid.raw))
			continue;
		memcpy(a.gid, g->gid.raw, GID);
		a.prefix = prefix_of(p->link, a.gid, all);
		keep_addr(p, &a);
	}
	freeifaddrs(all);
	free(gids);
}

/* ---- partitions ---- */

/* The first that there are, wherever the subnet manager has put them. */
static void
read_keys(struct rdma_port *p, int n)
{
	p->keys_n = 0;
	for (int i = 0; p->link == LINK_IB && i < n && p->keys_n < PKEYS_MAX; i++) {
		__be16 key;

		if (ibv_query_pkey(p->dev->ctx, p->port, i, &key) != 0 || key == 0)
			continue;
		p->keys[p->keys_n] = ntohs(key);
		p->key_at[p->keys_n++] = (uint16_t)i;
	}
}

/* ---- ports ---- */

static uint8_t
link_of(const struct rdma_dev *d, const struct ibv_port_attr *a)
{
	if (d->iwarp)
		return LINK_IWARP;
	return a->link_layer == IBV_LINK_LAYER_INFINIBAND ? LINK_IB :
	    a->link_layer == IBV_LINK_LAYER_ETHERNET ? LINK_ROCE : LINK_NONE;
}

/* What a port is now. False: nobody could reach us by it. */
static bool
read_port(struct rdma_port *p)
{
	struct ibv_port_attr a;

	if (ibv_query_port(p->dev->ctx, p->port, &a) != 0 || a.state != IBV_PORT_ACTIVE)
		return false;
	p->link = link_of(p->dev, &a);
	p->mtu = (uint8_t)a.active_mtu;
	p->lid = a.lid;
	if (p->link == LINK_IWARP)
		return true;		/* its addresses are found by listening */
	read_gids(p, a.gid_tbl_len > 0 ? (size_t)a.gid_tbl_len : 0);
	read_keys(p, a.pkey_tbl_len);
	return p->link != LINK_NONE && p->addrs_n > 0;
}

bool
net_rdma_may_be_up(const struct ibv_device *dev)
{
	char path[IBV_SYSFS_PATH_MAX + 32], text[16];

	for (unsigned i = 1; i <= UINT8_MAX; i++) {
		ssize_t n;
		int fd;

		snprintf(path, sizeof(path), "%s/ports/%u/state", dev->ibdev_path, i);
		if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
			return i == 1;		/* nobody says */
		n = read(fd, text, sizeof(text));
		close(fd);
		if (n < 2 || memcmp(text, "4:", 2) == 0)	/* IBV_PORT_ACTIVE */
			return true;
	}
	return false;
}

bool
net_rdma_ports_any(struct rdma_dev *d)
{
	bool any = false;

	for (unsigned i = 1; i <= d->attr.phys_port_cnt && !any; i++) {
		struct rdma_port p = { .dev = d, .port = (uint8_t)i };

		any = read_port(&p);
	}
	return any;
}

/* Its device, port, link and address are labels of what a port tells. */
static void
tell_port(struct rdma *r, struct rdma_port *p)
{
	static const uint8_t none[GID];
	struct stat_registry *stats = r->conf.stats;
	char text[INET6_ADDRSTRLEN];

	stat_set(&p->stat.mtu, 128u << p->mtu);
	if (stats == NULL)
		return;
	stat_remove(&p->stat_set);
	p->stat_set = (struct stat_set){ .prefix = "fsd_net_rdma",
	    .rows = net_rdma_port_stat_rows, .values = &p->stat };
	stat_label(&p->stat_set, "role", r->log != NULL ? r->log->who : "");
	stat_label(&p->stat_set, "device", p->dev->name);
	snprintf(text, sizeof(text), "%u", p->port);
	stat_label(&p->stat_set, "port", text);
	stat_label(&p->stat_set, "link", link_names[p->link]);
	if (inet_ntop(AF_INET6, p->addrs_n > 0 ? p->addrs[0].gid : none, text,
	    sizeof(text)) != NULL)
		stat_label(&p->stat_set, "gid", text);
	stat_register(stats, &p->stat_set);
}

static void
set_up(struct rdma_port *p, bool up)
{
	if (p->down == !up)
		return;
	p->down = !up;
	stat_set(&p->stat.up, up);
	log_warn(p->dev->r->log, up ? "RDMA port is up" : "RDMA port is down",
	    "device=%s port=%u", p->dev->name, p->port);
}

static struct rdma_port *
row_of(struct rdma_dev *d, unsigned port)
{
	for (unsigned i = 0; i < d->r->ports_n; i++)
		if (d->r->ports[i].dev == d && d->r->ports[i].port == port)
			return &d->r->ports[i];
	return NULL;
}

/* A row that is not in use. NULL: all are. */
static struct rdma_port *
free_row(struct rdma *r)
{
	for (unsigned i = 0; i < r->ports_n; i++)
		if (r->ports[i].dev == NULL)
			return &r->ports[i];
	return r->ports_n < PORTS_MAX ? &r->ports[r->ports_n++] : NULL;
}

/* Where connections of port @port of @d are counted, by all loops. NULL: nowhere. */
static _Atomic uint32_t *
load_of(const struct rdma_dev *d, unsigned port)
{
	struct net_rdma_load *all = d->r->conf.load;
	uint32_t h = 2166136261u ^ port, free;

	for (const char *p = d->name; *p != '\0'; p++)
		h = (h ^ (uint8_t)*p) * 16777619u;
	h += h == 0;
	for (unsigned i = 0; all != NULL && i < NET_RDMA_LOADS; i++) {
		free = 0;
		if (atomic_compare_exchange_strong(&all->rows[i].name, &free, h) ||
		    free == h)
			return &all->rows[i].used;
	}
	return NULL;
}

static void
free_port(struct rdma_port *p)
{
	stat_remove(&p->stat_set);
	net_rdma_iw_unlisten(p);
	*p = (struct rdma_port){ .dev = NULL };
}

/* @now is what @p is from here on. */
static void
update(struct rdma_port *p, const struct rdma_port *now)
{
	bool moved = now->link != LINK_IWARP && (p->addrs_n == 0 ||
	    memcmp(p->addrs[0].gid, now->addrs[0].gid, GID) != 0);

	p->link = now->link;
	p->mtu = now->mtu;
	p->lid = now->lid;
	p->keys_n = now->keys_n;
	memcpy(p->keys, now->keys, sizeof(p->keys));
	memcpy(p->key_at, now->key_at, sizeof(p->key_at));
	stat_set(&p->stat.mtu, 128u << p->mtu);
	if (now->link != LINK_IWARP) {
		p->addrs_n = now->addrs_n;
		memcpy(p->addrs, now->addrs, sizeof(p->addrs));
	}
	if (moved)
		tell_port(p->dev->r, p);
}

void
net_rdma_ports_read(struct rdma_dev *d)
{
	struct rdma *r = d->r;

	for (unsigned i = 1; i <= d->attr.phys_port_cnt; i++) {
		struct rdma_port now = { .dev = d, .port = (uint8_t)i };
		struct rdma_port *p = row_of(d, i);
		bool up = read_port(&now);

		if (p == NULL && up && (p = free_row(r)) != NULL) {
			*p = (struct rdma_port){ .dev = d, .port = (uint8_t)i,
			    .load = load_of(d, i) };
			stat_set(&p->stat.up, 1);
		}
		if (p != NULL && up)
			update(p, &now);
		if (p != NULL)
			set_up(p, up);
	}
	if (d->iwarp)
		net_rdma_iw_listen(r);
	for (unsigned i = 0; i < r->ports_n && d->iwarp; i++) {
		struct rdma_port *p = &r->ports[i];

		if (p->dev == d && p->addrs_n == 0 && p->chans_n == 0)
			free_port(p);	/* no address of ours, or none that is named */
		else if (p->dev == d && p->stat_set.registry == NULL)
			tell_port(r, p);
	}
}

/* Has a port changed without a word?  Nobody tells of the MTU of the network below. */
static bool
has_changed(struct rdma_dev *d)
{
	for (unsigned i = 1; i <= d->attr.phys_port_cnt; i++) {
		const struct rdma_port *p = row_of(d, i);
		struct ibv_port_attr a;
		bool up = ibv_query_port(d->ctx, (uint8_t)i, &a) == 0 &&
		    a.state == IBV_PORT_ACTIVE;

		if (p == NULL || p->down ? up : !up || p->mtu != (uint8_t)a.active_mtu ||
		    p->lid != a.lid)
			return true;
	}
	return false;
}

bool
net_rdma_ports_has(const struct rdma_dev *d)
{
	for (unsigned i = 0; i < d->r->ports_n; i++)
		if (d->r->ports[i].dev == d)
			return true;
	return false;
}

void
net_rdma_ports_free(struct rdma_dev *d)
{
	for (unsigned i = 0; i < d->r->ports_n; i++)
		if (d->r->ports[i].dev == d)
			free_port(&d->r->ports[i]);
}

/* ---- devices that come back ---- */

/* Memory that was there before the device was must be registered with it.  That may take long,
 * so no more than a part of it is done in one turn; connections come when all of it is. */
static bool
catch_up(struct rdma *r)
{
	size_t bytes = 0;

	for (size_t i = 0; i < r->mem_n; i++)
		for (unsigned k = 0; k < r->devs_n; k++) {
			struct net_mem *m = r->mem[i];
			struct rdma_dev *d = r->devs[k];

			if (d == NULL || d->dead || (m->tried & 1u << k))
				continue;
			if (bytes > TURN_REG)
				return false;
			m->mr[k] = net_rdma_reg(d, m->p, m->n, MEM_ACCESS);
			m->tried |= 1u << k;
			bytes += m->n;
		}
	for (unsigned k = 0; k < r->devs_n; k++)
		if (r->devs[k] != NULL)
			r->devs[k]->ready = true;
	return true;
}

/* What a device has not taken it may take later: others may have used up what it had. */
static void
try_refused(struct rdma *r, uint64_t now)
{
	bool any = false;

	if (now < r->refused_ns)
		return;
	for (size_t i = 0; i < r->mem_n; i++)
		for (unsigned k = 0; k < r->devs_n; k++)
			if (r->mem[i]->mr[k] == NULL && (r->mem[i]->tried & 1u << k)) {
				r->mem[i]->tried &= ~(1u << k);
				any = true;
			}
	if (!any)
		r->refused_n = 0;
	else if (r->refused_n < REFUSED_DOUBLES)
		r->refused_n++;
	r->refused_ns = now + (REFUSED_NS << r->refused_n);
}

static void
scan(struct clock_timer *t)
{
	struct rdma *r = container_of(t, struct rdma, scan);
	uint64_t now = clock_now(r->clock);

	if (!r->catching_up) {
		r->scanned_ns = now;
		net_rdma_devs_again(r);
		for (unsigned i = 0; i < r->devs_n; i++)
			if (r->devs[i] != NULL && !r->devs[i]->dead &&
			    (r->devs[i]->iwarp || has_changed(r->devs[i])))
				net_rdma_ports_read(r->devs[i]);
		try_refused(r, now);
	}
	r->catching_up = !catch_up(r);
	clock_timer_start(r->clock, &r->scan, now + (r->catching_up ? 0 : LOOK_NS), scan);
}

void
net_rdma_scan_start(struct rdma *r)
{
	r->scanned_ns = clock_now(r->clock);
	clock_timer_start(r->clock, &r->scan, r->scanned_ns + LOOK_NS, scan);
}

void
net_rdma_rescan(struct rdma *r)
{
	uint64_t now = clock_now(r->clock);

	if (now - r->scanned_ns >= RESCAN_NS && !r->catching_up)
		clock_timer_start(r->clock, &r->scan, now, scan);
}
