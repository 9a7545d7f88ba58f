/* SPDX-License-Identifier: MIT */
/* rdma_post.c - work requests on their way to the device, and their completions.
 *
 *   net_rdma_post() -> c->batch --(full, or the turn ends)--> ibv_post_send -> completed
 *
 * What is posted for one queue pair within a turn of the loop goes to the device in one list:
 * telling the device (a doorbell: a write across the bus) costs more than the rest.
 *
 * 1. c->wrs has an entry for each from net_rdma_post() on.  Those in the batch are the last.
 * 2. Few report their completion, which ends all before them.  But the slots of an idle
 *    connection are lost to others until one does: there may be thousands.
 * 3. A batch is taken when the first WR comes and is given back when the list is posted, so
 *    there are as many as channels that are busy in one turn. */
#include "net/rdma_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BATCH		32u
#define BATCHES_KEEP	64u

struct batch {
	struct list	   node;
	unsigned	   n;
	struct ibv_send_wr wr[BATCH];
	struct ibv_sge	   sge[BATCH];
	uint8_t		   small[BATCH][INLINE];
};

static struct batch *
get_batch(struct rdma *r)
{
	struct list *l = list_pop_front(&r->batches);

	if (l == NULL)
		return malloc(sizeof(struct batch));
	r->batches_n--;
	return list_entry(l, struct batch, node);
}

static void
put_batch(struct rdma *r, struct batch *b)
{
	if (b == NULL || r->batches_n == BATCHES_KEEP) {
		free(b);
		return;
	}
	list_push_back(&r->batches, &b->node);
	r->batches_n++;
}

void
net_rdma_batches_free(struct rdma *r)
{
	for (struct list *l; (l = list_pop_front(&r->batches)) != NULL;)
		free(list_entry(l, struct batch, node));
	r->batches_n = 0;
}

void
net_rdma_unpost(struct rdma_chan *c)
{
	put_batch(c->r, c->batch);
	c->batch = NULL;
}

int
net_rdma_flush(struct rdma_chan *c)
{
	struct batch *b = c->batch;
	struct ibv_send_wr *bad;
	int rc;

	if (b == NULL)
		return 0;
	for (unsigned i = 0; i < b->n; i++)
		b->wr[i].next = i + 1 < b->n ? &b->wr[i + 1] : NULL;
	rc = ibv_post_send(c->qp, b->wr, &bad);
	stat_add(&c->port->stat.works, b->n);
	stat_add(&c->port->stat.posts, 1);
	net_rdma_unpost(c);
	return -rc;
}

bool
net_rdma_wr_room(const struct rdma_chan *c)
{
	return c->wr_head - c->wr_tail < WRS;
}

int
net_rdma_post(struct rdma_chan *c, const struct ibv_send_wr *wr, const struct wr *as)
{
	struct batch *b;
	unsigned i;
	int rc;

	assert(net_rdma_wr_room(c) && wr->num_sge <= 1);
	if (c->batch != NULL && c->batch->n == BATCH && (rc = net_rdma_flush(c)) != 0)
		return rc;
	if ((b = c->batch) == NULL) {
		if ((b = c->batch = get_batch(c->r)) == NULL)
			return -ENOMEM;
		b->n = 0;
		if (!c->working)
			net_rdma_mark(c);
	}
	i = b->n++;
	b->wr[i] = *wr;
	b->wr[i].wr_id = c->wr_head + 1;
	if (wr->num_sge > 0) {
		b->sge[i] = wr->sg_list[0];
		b->wr[i].sg_list = &b->sge[i];
	}
	if (wr->send_flags & IBV_SEND_INLINE) {
		assert(b->sge[i].length <= INLINE);
		memcpy(b->small[i], (const void *)(uintptr_t)b->sge[i].addr,
		    b->sge[i].length);
		b->sge[i].addr = (uintptr_t)b->small[i];
	}
	/* Soft-iWARP completes what follows a READ before that READ: then it waits for it. */
	if (c->dev->iwarp && wr->opcode != IBV_WR_RDMA_READ)
		b->wr[i].send_flags |= IBV_SEND_FENCE;
	/* One completion ends all before it, but the last ones must have one too. */
	c->unsignaled_slots += as->slot != NULL;
	if (as->out != NULL || ++c->unsignaled >= SIGNAL_EACH ||
	    c->unsignaled_slots >= SIGNAL_SLOTS)
		b->wr[i].send_flags |= IBV_SEND_SIGNALED;
	if (b->wr[i].send_flags & IBV_SEND_SIGNALED)
		c->unsignaled = c->unsignaled_slots = 0;
	c->wrs[c->wr_head++ % WRS] = *as;
	return 0;
}

void
net_rdma_completed(struct rdma_chan *c, uint32_t seq)
{
	while (c->wr_tail != seq && c->wr_tail != c->wr_head) {
		struct wr w = c->wrs[c->wr_tail++ % WRS];

		if (w.slot != NULL && w.offer != NULL)
			net_rdma_landed(w.offer, w.slot->p, w.len);
		if (w.slot != NULL)
			net_rdma_slot_free(c->dev, w.slot);
		if (w.offer != NULL)
			net_rdma_read_done(c, w.offer, w.len);
		if (w.out != NULL && !c->closed)
			net_rdma_sent(c, w.out);
		if (c->closed)
			return;
	}
}
