/* SPDX-License-Identifier: MIT */
/* rdma_dev.c - devices, their ports, and the slots that messages lie in.
 *
 * 1. promised is the sum of what all peers were promised; that many receives are posted, or
 *    hold a message that has not been handled, so a message never meets an empty queue.
 * 2. A receive cannot be taken back: when a peer has gone its receives serve the others,
 *    until enough have been used.
 * 3. A queue pair that breaks within a message may take the receive of that with it, untold;
 *    SPARE are there for these. */
#include "net/rdma_impl.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "conf/err.h"

STAT_DEFINE(net_rdma_port, NET_RDMA_PORT_STATS)

#define SLAB_SLOTS	64u
#define CQ_FIRST	16384u		/* some devices cannot make it grow */
#define SRQ_SIZE	65536u		/* or what the device can */
#define SRQ_LEAST	1024u
#define SPARE		64u		/* receives that nobody was promised */

/* ---- slots ---- */

static int
add_slab(struct rdma_dev *d)
{
	size_t bytes = SLAB_SLOTS * SLOT;
	struct slab *s = calloc(1, sizeof(*s));
	struct slot *slots = calloc(SLAB_SLOTS, sizeof(*slots));
	uint8_t *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int rc = -ENOMEM;

	if (s == NULL || slots == NULL || mem == MAP_FAILED)
		goto fail;
	if ((s->mr = ibv_reg_mr(d->pd, mem, bytes, IBV_ACCESS_LOCAL_WRITE)) == NULL) {
		rc = -errno;
		net_rdma_say(d->r, "cannot register memory (limit of locked memory?)",
		    d->name, rc);
		goto fail;
	}
	s->mem = mem;
	s->bytes = bytes;
	s->slots = slots;
	list_push_back(&d->slabs, &s->node);
	for (unsigned i = 0; i < SLAB_SLOTS; i++) {
		slots[i].slab = s;
		slots[i].p = mem + i * SLOT;
		list_push_back(&d->free, &slots[i].node);
	}
	return 0;
fail:
	if (mem != MAP_FAILED)
		munmap(mem, bytes);
	free(slots);
	free(s);
	return rc;
}

struct slot *
net_rdma_slot(struct rdma_dev *d)
{
	struct list *l = list_pop_front(&d->free);

	if (l == NULL && add_slab(d) == 0)
		l = list_pop_front(&d->free);
	return l != NULL ? list_entry(l, struct slot, node) : NULL;
}

void
net_rdma_slot_free(struct rdma_dev *d, struct slot *s)
{
	list_push_front(&d->free, &s->node);
}

/* ---- receives ---- */

static int
post_recv(struct rdma_dev *d, struct slot *s)
{
	uint32_t at = d->recv_free[--d->recv_n];
	struct ibv_sge sge = { .addr = (uintptr_t)s->p, .length = SLOT,
	    .lkey = s->slab->mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = RDMA_RECV | at, .sg_list = &sge,
	    .num_sge = 1 }, *bad;
	int rc = ibv_post_srq_recv(d->srq, &wr, &bad);

	if (rc != 0) {
		d->recv_free[d->recv_n++] = at;
		return -rc;
	}
	d->recv[at] = s;
	stat_set(&d->r->stat.posted, ++d->posted);
	return 0;
}

int
net_rdma_post_recvs(struct rdma_dev *d)
{
	int rc = 0;

	while (rc == 0 && d->posted < d->promised) {
		struct slot *s = net_rdma_slot(d);

		if (s == NULL)
			return -ENOMEM;
		if ((rc = post_recv(d, s)) != 0)
			net_rdma_slot_free(d, s);
	}
	return rc;
}

struct slot *
net_rdma_recv_slot(struct rdma_dev *d, uint64_t wr_id)
{
	uint32_t at = (uint32_t)wr_id;
	struct slot *s;

	assert(at < d->srq_size);
	s = d->recv[at];
	assert(s != NULL);
	d->recv[at] = NULL;
	d->recv_free[d->recv_n++] = at;
	/* Still counted in posted: it is again, or is given up, in net_rdma_repost(). */
	return s;
}

void
net_rdma_repost(struct rdma_dev *d, struct slot *s)
{
	int rc;

	stat_set(&d->r->stat.posted, --d->posted);
	if (d->posted >= d->promised || d->dead) {
		net_rdma_slot_free(d, s);
		return;
	}
	if ((rc = post_recv(d, s)) == 0)
		return;
	/* One receive less than was promised: a peer could run into it. */
	net_rdma_say(d->r, "cannot post a receive", d->name, rc);
	net_rdma_slot_free(d, s);
	net_rdma_dev_dies(d);
}

/* ---- room for queue pairs ---- */

static int
grow_cq(struct rdma_dev *d, uint32_t need)
{
	uint32_t size = (uint32_t)d->cq->cqe;
	int rc;

	if (need <= size)
		return 0;
	if (need > (uint32_t)d->attr.max_cqe)
		return -ENOSPC;
	size = size * 2 > need ? size * 2 : need;
	if (size > (uint32_t)d->attr.max_cqe)
		size = (uint32_t)d->attr.max_cqe;
	rc = ibv_resize_cq(d->cq, (int)size);
	return rc > 0 ? -rc : rc;
}

int
net_rdma_reserve(struct rdma_dev *d, uint32_t credits)
{
	uint32_t recvs = d->promised + credits;
	int rc;

	if (d->dead || recvs > d->srq_size)
		return -ENOSPC;
	if (recvs < d->posted)
		recvs = d->posted;
	if ((rc = grow_cq(d, (d->qps_n + 1) * WRS + recvs)) != 0)
		return rc;
	d->qps_n++;
	d->promised += credits;
	if ((rc = net_rdma_post_recvs(d)) != 0)
		net_rdma_unreserve(d, credits);
	return rc;
}

void
net_rdma_unreserve(struct rdma_dev *d, uint32_t credits)
{
	d->qps_n--;
	d->promised -= credits;
}

/* ---- ports ---- */

/* How good an address is for others to reach us by; 0: no good. */
static unsigned
rank_gid(const struct ibv_gid_entry *g, uint8_t link)
{
	static const uint8_t v4[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
	static const uint8_t none[16];

	if (memcmp(g->gid.raw, none, sizeof(none)) == 0)
		return 0;
	if (link == IBV_LINK_LAYER_INFINIBAND)
		return g->gid_type == IBV_GID_TYPE_IB ? 2 : 0;
	if (g->gid_type != IBV_GID_TYPE_ROCE_V2)
		return 0;
	if (memcmp(g->gid.raw, v4, sizeof(v4)) == 0)
		return 3;
	return g->gid.raw[0] == 0xfe && (g->gid.raw[1] & 0xc0) == 0x80 ? 1 : 2;
}

static bool
pick_gid(struct rdma_port *p, const struct ibv_port_attr *a)
{
	unsigned best = 0, rank;

	for (int i = 0; i < a->gid_tbl_len && i < 256; i++) {
		struct ibv_gid_entry g;

		if (ibv_query_gid_ex(p->dev->ctx, p->port, (uint32_t)i, &g, 0) != 0)
			continue;
		if ((rank = rank_gid(&g, p->link)) > best) {
			best = rank;
			p->gid = g.gid;
			p->gid_at = (uint8_t)i;
		}
	}
	/* InfiniBand without a global address is reached by its LID. */
	return best > 0 || (p->link == IBV_LINK_LAYER_INFINIBAND && a->lid != 0);
}

/* Is this port of this device among those named by "a, b:2"? */
static bool
is_named(const char *names, const char *dev, unsigned port)
{
	size_t n = strlen(dev);

	if (names == NULL || *names == '\0')
		return true;
	for (const char *p = names; *p != '\0';) {
		p += strspn(p, ", ");
		if (strncmp(p, dev, n) == 0) {
			if (p[n] == '\0' || p[n] == ',' || p[n] == ' ')
				return true;
			if (p[n] == ':' && strtoul(p + n + 1, NULL, 10) == port)
				return true;
		}
		p += strcspn(p, ", ");
	}
	return false;
}

static void
add_ports(struct rdma_dev *d)
{
	struct rdma *r = d->r;

	for (unsigned i = 1; i <= d->attr.phys_port_cnt && r->ports_n < PORTS_MAX; i++) {
		struct rdma_port *p = &r->ports[r->ports_n];
		struct ibv_port_attr a;

		if (!is_named(r->conf.devices, d->name, i) ||
		    ibv_query_port(d->ctx, (uint8_t)i, &a) != 0 ||
		    a.state != IBV_PORT_ACTIVE)
			continue;
		*p = (struct rdma_port){ .dev = d, .port = (uint8_t)i,
		    .link = a.link_layer, .mtu = (uint8_t)a.active_mtu,
		    .lid = a.lid };
		if (pick_gid(p, &a))
			r->ports_n++;
	}
}

/* ---- devices ---- */

static void
close_dev(struct rdma_dev *d)
{
	if (d->srq != NULL)
		ibv_destroy_srq(d->srq);
	net_rdma_unwatch(d);
	if (d->cq != NULL)
		ibv_destroy_cq(d->cq);
	if (d->events != NULL)
		ibv_destroy_comp_channel(d->events);
	for (struct list *l; (l = list_pop_front(&d->slabs)) != NULL;) {
		struct slab *s = list_entry(l, struct slab, node);

		ibv_dereg_mr(s->mr);
		munmap(s->mem, s->bytes);
		free(s->slots);
		free(s);
	}
	if (d->pd != NULL)
		ibv_dealloc_pd(d->pd);
	if (d->ctx != NULL)
		ibv_close_device(d->ctx);
	map_fini(&d->chans);
	free(d->stash);
	free(d->recv);
	free(d->recv_free);
	free(d);
}

static int
set_up(struct rdma_dev *d)
{
	struct ibv_srq_init_attr srq = { .attr = { .max_sge = 1 } };
	int cqes = (int)CQ_FIRST;

	if (ibv_query_device(d->ctx, &d->attr) != 0)
		return -EIO;
	d->srq_size = SRQ_SIZE;
	if (d->srq_size > (uint32_t)d->attr.max_srq_wr)
		d->srq_size = (uint32_t)d->attr.max_srq_wr;
	if (cqes > d->attr.max_cqe)
		cqes = d->attr.max_cqe;
	if ((d->pd = ibv_alloc_pd(d->ctx)) == NULL ||
	    (d->events = ibv_create_comp_channel(d->ctx)) == NULL ||
	    (d->cq = ibv_create_cq(d->ctx, cqes, d, d->events, 0)) == NULL)
		return errno != 0 ? -errno : -EIO;
	for (;; d->srq_size /= 2) {	/* memory that may be locked is bounded */
		srq.attr.max_wr = d->srq_size;
		if ((d->srq = ibv_create_srq(d->pd, &srq)) != NULL)
			break;
		if (d->srq_size < 2 * SRQ_LEAST)
			return errno != 0 ? -errno : -EIO;
	}
	d->promised = d->srq_size > 4 * SPARE ? SPARE : 0;
	d->recv = calloc(d->srq_size, sizeof(struct slot *));
	d->recv_free = calloc(d->srq_size, sizeof(uint32_t));
	if (d->recv == NULL || d->recv_free == NULL)
		return -ENOMEM;
	for (uint32_t i = d->srq_size; i > 0; i--)
		d->recv_free[d->recv_n++] = i - 1;
	return net_rdma_watch(d);
}

static int
open_dev(struct rdma *r, struct ibv_device *dev)
{
	struct rdma_dev *d = calloc(1, sizeof(*d));
	unsigned ports = r->ports_n;
	int rc;

	if (d == NULL)
		return -ENOMEM;
	d->r = r;
	d->spin_for.max_ns = r->conf.spin_us * NS_PER_US;
	list_init(&d->slabs);
	list_init(&d->free);
	map_init(&d->chans);
	snprintf(d->name, sizeof(d->name), "%s", ibv_get_device_name(dev));
	errno = 0;
	if ((d->ctx = ibv_open_device(dev)) == NULL)
		rc = errno != 0 ? -errno : -EIO;
	else
		rc = set_up(d);
	if (rc == 0) {
		add_ports(d);
		if (r->ports_n == ports)
			rc = -ENODEV;	/* no active port: no use */
	}
	if (rc != 0) {
		if (rc != -ENODEV)
			log_warn(r->log, "RDMA device cannot be used", "device=%s why=%s",
			    d->name, err_name(rc));
		close_dev(d);
		return rc;
	}
	d->index = r->devs_n;
	r->devs[r->devs_n++] = d;
	return 0;
}

/* Does any port of it have a name we look for? */
static bool
dev_is_named(const struct rdma *r, struct ibv_device *dev)
{
	for (unsigned i = 1; i < 16; i++)
		if (is_named(r->conf.devices, ibv_get_device_name(dev), i))
			return true;
	return false;
}

/* Its device, port, link and address are labels of what a port tells. */
static void
tell_port(struct rdma *r, struct rdma_port *p)
{
	static const char *const links[] = { "unknown", "InfiniBand", "Ethernet" };
	char text[INET6_ADDRSTRLEN];
	struct stat_registry *stats = r->conf.stats;

	stat_set(&p->stat.up, 1);
	stat_set(&p->stat.mtu, 128u << p->mtu);
	if (stats == NULL)
		return;
	p->stat_set = (struct stat_set){ .prefix = "fsd_net_rdma",
	    .rows = net_rdma_port_stat_rows, .values = &p->stat };
	stat_label(&p->stat_set, "role", r->log != NULL ? r->log->who : "");
	stat_label(&p->stat_set, "device", p->dev->name);
	snprintf(text, sizeof(text), "%u", p->port);
	stat_label(&p->stat_set, "port", text);
	stat_label(&p->stat_set, "link", links[p->link < 3 ? p->link : 0]);
	if (inet_ntop(AF_INET6, p->gid.raw, text, sizeof(text)) != NULL)
		stat_label(&p->stat_set, "gid", text);
	stat_register(stats, &p->stat_set);
}

int
net_rdma_devs_open(struct rdma *r)
{
	int n = 0;
	struct ibv_device **all = ibv_get_device_list(&n);

	for (int i = 0; all != NULL && i < n && r->devs_n < DEVS_MAX; i++)
		if (dev_is_named(r, all[i]))
			open_dev(r, all[i]);
	if (all != NULL)
		ibv_free_device_list(all);
	for (unsigned i = 0; i < r->ports_n; i++)
		tell_port(r, &r->ports[i]);
	return r->devs_n > 0 ? 0 : -ENODEV;
}

void
net_rdma_devs_close(struct rdma *r)
{
	while (r->devs_n > 0)
		close_dev(r->devs[--r->devs_n]);
}
