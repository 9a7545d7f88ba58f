/* SPDX-License-Identifier: MIT */
/* rdma_dev.c - devices, and the slots that messages lie in.
 *
 * 1. promised is the sum of what all peers were promised; that many receives are posted, or
 *    hold a message that has not been handled, so a message never meets an empty queue.
 * 2. A receive cannot be taken back: when a peer has gone its receives serve the others,
 *    until enough have been used.
 * 3. A queue pair that ends within a message may take the receive of that with it, untold;
 *    SPARE are there for these, and where there is room one for each that has ended a moment
 *    ago.  Receives are taken in the order in which they were posted: what has not come back by
 *    then, though later ones have, is missed, and another is posted; should it come back all
 *    the same one too many is there for a while.
 * 4. Completion queues never overflow: each has room for all that its queue pairs may send,
 *    the first also for all receives.  It grows while the device lets it, then there are
 *    further ones.
 * 5. Of each queue pair fewer than SIGNAL_SLOTS slots stay with what has no completion of its
 *    own, and that many are there for each beside those of receives: who waits for one gets it.
 * 6. Some devices have no shared receive queues (irdma): there every queue pair has receives of
 *    its own, in c->recvs, which end with it. */
#include "net/rdma_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conf/err.h"

#define SLAB_SLOTS	64u
#define CQ_FIRST	16384u		/* some devices cannot make it grow */
#define CQ_LEAST	1024u
#define CQ_DOUBLES	4u		/* the fifth and later ones are 16 times as large */
#define SRQ_SIZE	65536u		/* or what the device can */
#define SRQ_LEAST	1024u
#define SPARE		64u		/* receives that nobody was promised */
#define DOUBT_MAX	256u		/* receives for what has ended a moment ago */
#define MISSED_NS	(20 * NS_PER_S)	/* longer than a device tries to end a message */
#define SLAB_AGAIN_NS	(100 * NS_PER_MS)	/* when there was no memory for one */

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
	/* On iWARP the answer to a READ is written by the peer. */
	s->mr = net_rdma_reg(d, mem, bytes, IBV_ACCESS_LOCAL_WRITE |
	    (d->iwarp ? IBV_ACCESS_REMOTE_WRITE : 0));
	if (s->mr == NULL) {
		rc = -errno;
		goto fail;
	}
	s->mem = mem;
	s->bytes = bytes;
	s->slots = slots;
	list_push_back(&d->slabs, &s->node);
	d->slots_n += SLAB_SLOTS;
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
	uint64_t now;

	if (l == NULL && (now = clock_now(d->r->clock)) >= d->slab_ns) {
		if (add_slab(d) == 0)
			l = list_pop_front(&d->free);
		else
			d->slab_ns = now + SLAB_AGAIN_NS;
	}
	return l != NULL ? list_entry(l, struct slot, node) : NULL;
}

struct slot *
net_rdma_slot_for(struct rdma_chan *c)
{
	struct slot *s = net_rdma_slot(c->dev);

	if (s == NULL && list_empty(&c->starved))
		list_push_back(&c->dev->starved, &c->starved);
	return s;
}

void
net_rdma_slot_free(struct rdma_dev *d, struct slot *s)
{
	list_push_front(&d->free, &s->node);
	for (struct list *l; (l = list_pop_front(&d->starved)) != NULL;)
		net_rdma_mark(list_entry(l, struct rdma_chan, starved));
}

/* ---- receives ---- */

/* @c: whose queue it is for; NULL: the shared one. */
static int
post_recv(struct rdma_dev *d, struct slot *s, struct rdma_chan *c)
{
	uint32_t at = d->recv_free[--d->recv_n];
	struct ibv_sge sge = { .addr = (uintptr_t)s->p, .length = SLOT,
	    .lkey = s->slab->mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = RDMA_RECV | at, .sg_list = &sge,
	    .num_sge = 1 }, *bad;
	int rc = c != NULL ? ibv_post_recv(c->qp, &wr, &bad) :
	    ibv_post_srq_recv(d->srq, &wr, &bad);

	if (rc != 0) {
		d->recv_free[d->recv_n++] = at;
		return -rc;
	}
	s->chan = c;
	s->at = at;
	s->nth = d->nth;
	d->nth += c == NULL;
	list_push_back(c != NULL ? &c->recvs : &d->shared, &s->node);
	d->recv[at] = s;
	stat_set(&d->r->stat.posted, ++d->posted);
	return 0;
}

/* Is there room for one more besides, should it not be missed? */
static bool
may_miss(const struct rdma_dev *d)
{
	uint64_t recvs = (uint64_t)d->missed_n + 1 +
	    (d->posted > d->promised ? d->posted : d->promised);

	return recvs <= d->srq_size &&
	    (uint64_t)d->cqs[0].qps_n * WRS + recvs <= (uint32_t)d->cqs[0].cq->cqe;
}

/* Have slots for all receives, @more of these, and what all queue pairs send. 0 or -errno. */
static int
have_slots(struct rdma_dev *d, uint32_t more)
{
	uint32_t need = (d->promised > d->posted ? d->promised : d->posted) + d->missed_n +
	    more;
	int rc = 0;

	for (unsigned i = 0; i < d->cqs_n; i++)
		need += d->cqs[i].qps_n * SIGNAL_SLOTS;
	while (rc == 0 && d->slots_n < need)
		rc = add_slab(d);
	return rc;
}

int
net_rdma_post_recvs(struct rdma_dev *d)
{
	int rc = 0;

	while (rc == 0 && d->srq != NULL && d->posted < d->promised + d->doubt) {
		struct slot *s;

		/* What nobody was promised takes nothing from others. */
		if (d->posted >= d->promised && (!may_miss(d) || have_slots(d, 1) != 0))
			break;
		if ((s = net_rdma_slot(d)) == NULL)
			return -ENOMEM;
		if ((rc = post_recv(d, s, NULL)) != 0)
			net_rdma_slot_free(d, s);
	}
	return rc;
}

int
net_rdma_own_recvs(struct rdma_chan *c)
{
	struct rdma_dev *d = c->dev;
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && d->srq == NULL && i < c->credit.ours; i++) {
		struct slot *s = net_rdma_slot(d);

		if (s == NULL)
			return -ENOMEM;
		if ((rc = post_recv(d, s, c)) != 0)
			net_rdma_slot_free(d, s);
	}
	return rc;
}

/* It is not posted any more. */
static void
take_back(struct rdma_dev *d, struct slot *s)
{
	d->recv[s->at] = NULL;
	d->recv_free[d->recv_n++] = s->at;
	list_remove(&s->node);
	if (s->missed) {
		s->missed = false;
		d->missed_n--;
		d->posted++;
	} else if ((int32_t)(s->nth - d->came_nth) > 0) {
		d->came_nth = s->nth;
	}
}

struct slot *
net_rdma_recv_slot(struct rdma_dev *d, uint64_t wr_id)
{
	uint32_t at = (uint32_t)wr_id;
	struct slot *s;

	assert(at < d->srq_size);
	s = d->recv[at];
	assert(s != NULL);
	take_back(d, s);
	/* Still counted in posted: it is again, or is given up, in net_rdma_repost(). */
	return s;
}

void
net_rdma_repost(struct rdma_dev *d, struct slot *s)
{
	struct rdma_chan *c = s->chan;
	int rc;

	stat_set(&d->r->stat.posted, --d->posted);
	if (d->dead || (d->srq != NULL ? d->posted >= d->promised + d->doubt :
	    c == NULL || c->qp == NULL || c->failed != 0)) {
		net_rdma_slot_free(d, s);
		return;
	}
	if ((rc = post_recv(d, s, c)) == 0)
		return;
	/* One receive less than was promised: a peer could run into it. */
	net_rdma_say(d->r, "cannot post a receive", d->name, rc);
	net_rdma_slot_free(d, s);
	if (c != NULL)
		net_rdma_fail(c, rc);
	else
		net_rdma_dev_dies(d);
}

static void look_for_missed(struct clock_timer *t);

static void
look_later(struct rdma_dev *d)
{
	d->look_nth = d->nth;
	clock_timer_start(d->r->clock, &d->look, clock_now(d->r->clock) + MISSED_NS,
	    look_for_missed);
}

static void
look_for_missed(struct clock_timer *t)
{
	struct rdma_dev *d = container_of(t, struct rdma_dev, look);

	while (!list_empty(&d->shared) && may_miss(d)) {
		struct slot *s = list_entry(d->shared.next, struct slot, node);

		if ((int32_t)(s->nth - d->look_nth) >= 0 ||
		    (int32_t)(s->nth - d->came_nth) >= 0 || have_slots(d, 1) != 0)
			break;
		list_remove(&s->node);
		list_push_back(&d->missed, &s->node);
		s->missed = true;
		d->missed_n++;
		stat_set(&d->r->stat.posted, --d->posted);
	}
	d->doubt = d->doubt_new;
	d->doubt_new = 0;
	/* What cannot be now can at the next one that is promised. */
	(void)net_rdma_post_recvs(d);
	if (d->doubt > 0)
		look_later(d);
}

/* A queue pair is gone, and with it maybe a receive. */
static void
doubt(struct rdma_dev *d)
{
	if (d->srq == NULL || d->dead)
		return;
	if (d->doubt < DOUBT_MAX) {
		d->doubt++;
		d->doubt_new += d->look.pos != 0;
		(void)net_rdma_post_recvs(d);
	}
	if (d->look.pos == 0)
		look_later(d);
}

void
net_rdma_recvs_end(struct rdma_chan *c)
{
	struct rdma_dev *d = c->dev;

	for (unsigned i = d->stash_at; i < d->stash_n; i++) {
		uint64_t id = d->stash[i].wr_id;
		struct slot *s = id & RDMA_RECV ? d->recv[(uint32_t)id] : NULL;

		if (s != NULL && s->chan == c) {
			list_remove(&s->node);	/* will be handled, as nobody's */
			s->chan = NULL;
		}
	}
	while (!list_empty(&c->recvs)) {
		struct slot *s = list_entry(c->recvs.next, struct slot, node);

		take_back(d, s);
		stat_set(&d->r->stat.posted, --d->posted);
		net_rdma_slot_free(d, s);
	}
	doubt(d);
}

/* ---- room for queue pairs ---- */

uint32_t
net_rdma_recvs_max(const struct rdma_dev *d)
{
	uint32_t max = d->cq_fixed ? (uint32_t)d->cqs[0].cq->cqe - d->cqs[0].qps_n * WRS :
	    (uint32_t)d->attr.max_cqe / 2;

	return max < d->srq_size ? max : d->srq_size;
}

/* Half of the first is for receives. */
static bool
first_holds(uint64_t size, uint64_t sends, uint64_t recvs)
{
	return sends <= size / 2 && sends + recvs <= size;
}

/* Let the first complete so much. False: it cannot. */
static bool
grow_first(struct rdma_dev *d, uint64_t sends, uint64_t recvs)
{
	uint64_t size = (uint32_t)d->cqs[0].cq->cqe, max = (uint32_t)d->attr.max_cqe;

	if (first_holds(size, sends, recvs))
		return true;
	while (size < max && !first_holds(size, sends, recvs))
		size *= 2;
	if (size > max)
		size = max;
	if (d->cq_fixed || !first_holds(size, sends, recvs))
		return false;
	d->cq_fixed = ibv_resize_cq(d->cqs[0].cq, (int)size) != 0;
	return !d->cq_fixed;
}

/* One more: as large as all before it, or as the device lets it be. 0 or -errno. */
static int
add_cq(struct rdma_dev *d, struct rdma_cq **out)
{
	int size = (int)(CQ_FIRST << (d->cqs_n < CQ_DOUBLES ? d->cqs_n : CQ_DOUBLES));
	struct ibv_cq *cq = NULL;

	if (d->cqs_n == CQS_MAX)
		return -ENOSPC;
	if (size > d->attr.max_cqe)
		size = d->attr.max_cqe;
	errno = 0;
	for (; cq == NULL && size >= (int)CQ_LEAST; size /= 2)
		cq = ibv_create_cq(d->ctx, size, d, d->events, 0);
	if (cq == NULL)
		return errno != 0 ? -errno : -ENOSPC;
	*out = &d->cqs[d->cqs_n++];
	(*out)->cq = cq;
	if (ibv_req_notify_cq(cq, 0) != 0)
		net_rdma_dev_dies(d);
	return d->dead ? -EIO : 0;
}

/* A queue that can take what one more queue pair sends, besides @recvs in the first. */
static int
find_cq(struct rdma_dev *d, uint32_t recvs, struct rdma_cq **out)
{
	uint64_t sends = (uint64_t)d->cqs[0].qps_n * WRS;

	*out = &d->cqs[0];
	if (grow_first(d, sends + WRS, recvs))
		return 0;
	if (sends + recvs > (uint32_t)d->cqs[0].cq->cqe && !grow_first(d, sends, recvs))
		return -ENOSPC;
	for (unsigned i = 1; i < d->cqs_n; i++) {
		*out = &d->cqs[i];
		if (((*out)->qps_n + 1) * WRS <= (uint32_t)(*out)->cq->cqe)
			return 0;
	}
	return add_cq(d, out);
}

int
net_rdma_reserve(struct rdma_dev *d, uint32_t credits, struct rdma_cq **cq)
{
	uint32_t recvs = d->promised + credits;
	int rc;

	if (d->dead || recvs + d->missed_n > d->srq_size)
		return -ENOSPC;
	if ((rc = find_cq(d, (recvs < d->posted ? d->posted : recvs) + d->missed_n, cq)) != 0)
		return rc;
	(*cq)->qps_n++;
	d->promised += credits;
	if ((rc = net_rdma_post_recvs(d)) == 0)
		rc = have_slots(d, 0);
	if (rc != 0)
		net_rdma_unreserve(d, credits, *cq);
	return rc;
}

void
net_rdma_unreserve(struct rdma_dev *d, uint32_t credits, struct rdma_cq *cq)
{
	cq->qps_n--;
	d->promised -= credits;
}

/* ---- devices ---- */

static void
close_dev(struct rdma_dev *d)
{
	if (d->srq != NULL)
		ibv_destroy_srq(d->srq);
	net_rdma_unwatch(d);
	for (unsigned i = 0; i < d->cqs_n; i++)
		ibv_destroy_cq(d->cqs[i].cq);
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
	bool shared;
	int cqes = (int)CQ_FIRST;

	if (ibv_query_device(d->ctx, &d->attr) != 0)
		return -EIO;
	if (!net_rdma_ports_any(d))
		return -ENODEV;		/* no use */
	shared = d->attr.max_srq > 0 && !d->r->conf.own_receives;
	d->srq_size = SRQ_SIZE;
	if (shared && d->srq_size > (uint32_t)d->attr.max_srq_wr)
		d->srq_size = (uint32_t)d->attr.max_srq_wr;
	if (d->attr.max_cqe < (int)CQ_LEAST)
		return -ENOSPC;
	if (cqes > d->attr.max_cqe)
		cqes = d->attr.max_cqe;
	if ((d->pd = ibv_alloc_pd(d->ctx)) == NULL ||
	    (d->events = ibv_create_comp_channel(d->ctx)) == NULL ||
	    (d->cqs[0].cq = ibv_create_cq(d->ctx, cqes, d, d->events, 0)) == NULL)
		return errno != 0 ? -errno : -EIO;
	d->cqs_n = 1;
	for (; shared; d->srq_size /= 2) {	/* memory that may be locked is bounded */
		srq.attr.max_wr = d->srq_size;
		if ((d->srq = ibv_create_srq(d->pd, &srq)) != NULL)
			break;
		if (d->srq_size < 2 * SRQ_LEAST)
			return errno != 0 ? -errno : -EIO;
	}
	d->promised = shared && d->srq_size > 4 * SPARE ? SPARE : 0;
	d->recv = calloc(d->srq_size, sizeof(struct slot *));
	d->recv_free = calloc(d->srq_size, sizeof(uint32_t));
	if (d->recv == NULL || d->recv_free == NULL)
		return -ENOMEM;
	for (uint32_t i = d->srq_size; i > 0; i--)
		d->recv_free[d->recv_n++] = i - 1;
	return net_rdma_watch(d);
}

/* Nothing points to it any more. */
static void
drop_dev(struct rdma_dev *d)
{
	struct rdma *r = d->r;

	net_rdma_ports_free(d);
	for (size_t i = 0; i < r->mem_n; i++) {
		struct net_mem *m = r->mem[i];

		if (m->mr[d->index] != NULL)
			ibv_dereg_mr(m->mr[d->index]);
		m->mr[d->index] = NULL;
		m->tried &= ~(1u << d->index);
	}
	r->devs[d->index] = NULL;
	close_dev(d);
}

static bool
find_place(struct rdma_dev *d)
{
	struct rdma *r = d->r;

	for (unsigned i = 0; i < DEVS_MAX; i++)
		if (r->devs[i] == NULL) {
			d->index = i;
			r->devs[i] = d;
			if (i == r->devs_n)
				r->devs_n++;
			return true;
		}
	return false;
}

static int
open_dev(struct rdma *r, struct ibv_device *dev)
{
	struct rdma_dev *d = calloc(1, sizeof(*d));
	int rc;

	if (d == NULL)
		return -ENOMEM;
	d->r = r;
	d->iwarp = dev->transport_type == IBV_TRANSPORT_IWARP;
	d->ready = r->mem_n == 0;
	d->spin_for.max_ns = r->conf.spin_us * NS_PER_US;
	list_init(&d->slabs);
	list_init(&d->free);
	list_init(&d->starved);
	list_init(&d->shared);
	list_init(&d->missed);
	map_init(&d->chans);
	snprintf(d->name, sizeof(d->name), "%s", ibv_get_device_name(dev));
	errno = 0;
	if (!find_place(d))
		rc = -ENOSPC;
	else if ((d->ctx = ibv_open_device(dev)) == NULL)
		rc = errno != 0 ? -errno : -EIO;
	else
		rc = set_up(d);
	if (rc == 0 && d->iwarp)
		rc = net_rdma_iw_open(r);
	if (rc == 0) {
		net_rdma_ports_read(d);
		if (!net_rdma_ports_has(d))
			rc = -ENODEV;	/* no active port: no use */
	}
	if (rc == 0)
		return 0;
	if (rc != -ENODEV)
		net_rdma_say(r, "RDMA device cannot be used", d->name, rc);
	if (r->devs[d->index] == d)
		drop_dev(d);
	else
		close_dev(d);
	return rc;
}

/* Is one of this name open, and well? */
static bool
is_open(const struct rdma *r, const char *name)
{
	for (unsigned i = 0; i < r->devs_n; i++)
		if (r->devs[i] != NULL && !r->devs[i]->dead &&
		    strcmp(r->devs[i]->name, name) == 0)
			return true;
	return false;
}

/* Some drivers do not say that a device is going, but wait until all have closed it.  Then
 * nobody can open it any more. */
static void
part_with_gone(struct rdma *r)
{
	for (unsigned i = 0; i < r->devs_n; i++) {
		struct rdma_dev *d = r->devs[i];

		if (d != NULL && !d->dead && access(d->ctx->device->dev_path, F_OK) != 0 &&
		    errno == ENOENT)
			net_rdma_dev_dies(d);
	}
}

static void
open_all(struct rdma *r, bool again)
{
	int n = 0;
	struct ibv_device **all = ibv_get_device_list(&n);

	if (all == NULL)
		return;
	for (int i = 0; i < n; i++)
		if (!is_open(r, ibv_get_device_name(all[i])) &&
		    net_rdma_may_be_up(all[i]) &&
		    open_dev(r, all[i]) == 0 && again)
			log_info(r->log, "RDMA device has come", "device=%s",
			    ibv_get_device_name(all[i]));
	ibv_free_device_list(all);
}

void
net_rdma_devs_open(struct rdma *r)
{
	open_all(r, false);
}

void
net_rdma_devs_again(struct rdma *r)
{
	part_with_gone(r);
	open_all(r, true);
}

static void
drop_dead(struct clock_timer *t)
{
	struct rdma *r = container_of(t, struct rdma, drop);

	for (unsigned i = 0; i < r->devs_n; i++)
		if (r->devs[i] != NULL && r->devs[i]->dead && r->devs[i]->users == 0)
			drop_dev(r->devs[i]);
}

void
net_rdma_drop_dead(struct rdma_dev *d)
{
	struct rdma *r = d->r;

	if (d->dead && d->users == 0 && !r->closed)
		clock_timer_start(r->clock, &r->drop, clock_now(r->clock), drop_dead);
}

void
net_rdma_devs_close(struct rdma *r)
{
	for (unsigned i = 0; i < r->devs_n; i++)
		if (r->devs[i] != NULL)
			drop_dev(r->devs[i]);
	r->devs_n = 0;
}
