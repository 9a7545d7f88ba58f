/* SPDX-License-Identifier: MIT */
/* rdma_read.c - what a peer lends with a request: its payload, which is READ, and room for that
 * of the answer; until it is answered, done with, or wanted back.
 *
 *   c->offers --pull--> c->reads --all READ--> c->offers --answered--> freed
 *                           \___________________/ \--- not to be answered, or revoked -->
 *                                                            c->done --DONE--> freed
 *
 * 1. An offer is in c->reads while its payload is being READ (o->dst), in c->done while the
 *    peer must be told that it is over, else in c->offers.
 * 2. What was revoked gets no READ and no WRITE more.  DONE is said at once when none is in
 *    flight, else when the READs have completed, or by the answer that is half posted. */
#include "net/rdma_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

#define DONE_MAX	65536u	/* wait to be told as done; the peer may not let us tell */

/* ---- offers ---- */

/* The peer must hear that nothing is done with @o any more. */
static void
is_done(struct rdma_chan *c, struct offer *o)
{
	list_push_back(&c->done, &o->node);
	if (!o->due && ++c->done_n > DONE_MAX)
		net_rdma_fail(c, ERR_BAD_MESSAGE);
	o->due = true;
	net_rdma_mark(c);
}

void
net_rdma_offer_check(struct offer *o)
{
	struct rdma_chan *c = o->chan;
	bool open = o->rx_open || o->far_open;

	if (open && (!o->revoked || o->number == 0 || o->dst != NULL || o->reply != NULL))
		return;
	list_remove(&o->node);
	if (o->number == 0) {
		free(o);
		return;
	}
	is_done(c, o);
}

void
net_rdma_far_drop(struct net_chan *chan, struct net_far *far)
{
	struct offer *o = (struct offer *)far;

	(void)chan;
	o->far_open = false;
	net_rdma_offer_check(o);
}

void
net_rdma_note_rx(struct rdma_chan *c)
{
	c->c.rx_since_ns = list_empty(&c->reads) && c->record == NULL &&
	    c->rx_state != RX_PULL && c->rx_state != RX_DROP ? 0 :
	    clock_now(c->r->clock);
}

/* ---- payload that is READ ---- */

/* @n bytes at @from, which were READ into a slot, go where they belong. */
void
net_rdma_landed(struct offer *o, const uint8_t *from, uint32_t n)
{
	stat_add(&o->chan->port->stat.copied_bytes, n);
	while (n > 0) {
		const struct iovec *dst = &o->dst[o->dst_at];
		size_t part = dst->iov_len - o->dst_off;

		if (part > n)
			part = n;
		memcpy((uint8_t *)dst->iov_base + o->dst_off, from, part);
		from += part;
		n -= (uint32_t)part;
		if ((o->dst_off += part) == dst->iov_len) {
			o->dst_at++;
			o->dst_off = 0;
		}
	}
}

static bool
all_known(struct rdma_chan *c, const struct iovec *iov, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (iov[i].iov_len > 0 && net_rdma_mr(c->r, c->dev, iov[i].iov_base,
		    iov[i].iov_len) == NULL)
			return false;
	return true;
}

/* The next part of what @o is read into, at most @len bytes of it, is @sge. */
static void
place(struct rdma_chan *c, struct offer *o, uint32_t len, struct ibv_sge *sge)
{
	const struct iovec *dst;

	while (o->dst_off == o->dst[o->dst_at].iov_len) {
		o->dst_at++;
		o->dst_off = 0;
	}
	dst = &o->dst[o->dst_at];
	if (len > dst->iov_len - o->dst_off)
		len = (uint32_t)(dst->iov_len - o->dst_off);
	*sge = (struct ibv_sge){ .length = len,
	    .addr = (uintptr_t)dst->iov_base + o->dst_off,
	    .lkey = net_rdma_mr(c->r, c->dev, (uint8_t *)dst->iov_base + o->dst_off,
		len)->lkey };
	o->dst_off += len;
}

/* Post the next READ of @o. 0, -EAGAIN, -errno. */
static int
post_read(struct rdma_chan *c, struct offer *o)
{
	const struct row *row = &o->rows[o->row_at];
	uint32_t len = row->len - o->row_off;
	struct slot *slot = NULL;
	struct ibv_sge sge;
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1,
	    .opcode = IBV_WR_RDMA_READ };
	int rc;

	if (c->wr_head - c->wr_tail >= WRS - 8 || c->reading >= TURN_READ)
		return -EAGAIN;
	if (len > ONE_SIDED_MAX)
		len = ONE_SIDED_MAX;
	if (!o->by_slots)
		place(c, o, len, &sge);
	else if ((slot = net_rdma_slot_for(c)) == NULL)
		return -EAGAIN;
	else
		sge = (struct ibv_sge){ .length = len < SLOT ? len : SLOT,
		    .addr = (uintptr_t)slot->p, .lkey = slot->slab->mr->lkey };
	len = sge.length;
	wr.wr.rdma.remote_addr = row->addr + o->row_off;
	wr.wr.rdma.rkey = row->rkey;
	/* What waits for others to end must hear of the last of them; it may be the last also
	 * because there are no more slots. */
	if (len == o->unposted || c->reading + len >= TURN_READ ||
	    c->wr_head - c->wr_tail + 1 >= WRS - 8 ||
	    (slot != NULL && list_empty(&c->dev->free)))
		wr.send_flags = IBV_SEND_SIGNALED;
	rc = net_rdma_post(c, &wr, &(struct wr){ .len = len, .offer = o, .slot = slot });
	if (rc != 0) {
		if (slot != NULL)
			net_rdma_slot_free(c->dev, slot);
		return rc;
	}
	o->inflight++;
	o->unposted -= len;
	c->reading += len;
	if ((o->row_off += len) == row->len) {
		o->row_at++;
		o->row_off = 0;
	}
	return 0;
}

void
net_rdma_post_reads(struct rdma_chan *c)
{
	list_for_each(l, &c->reads) {
		struct offer *o = list_entry(l, struct offer, node);
		int rc = 0;

		while (o->unposted > 0 && !o->revoked && (rc = post_read(c, o)) == 0)
			;
		if (rc == -EAGAIN)
			return;
		if (rc != 0) {
			net_rdma_fail(c, rc);
			return;
		}
	}
}

/* No READ of @o is in flight and none will be. */
static void
end_read(struct rdma_chan *c, struct offer *o)
{
	free(o->dst);
	o->dst = NULL;
	o->unposted = 0;
	o->rx_open = false;
	list_remove(&o->node);
	list_push_back(&c->offers, &o->node);
	net_rdma_note_rx(c);
}

/* The READ of @o has ended as far as it will.  Upcall. */
static void
was_read(struct rdma_chan *c, struct offer *o)
{
	bool whole = o->unposted == 0;

	end_read(c, o);
	if (o->revoked)
		net_rdma_offer_check(o);
	/* far is still open, so @o is there; the upcall may answer, and free it. */
	if (whole)
		c->c.up->pulled(&c->c, &o->rx);
	else
		c->c.up->lost(&c->c, &o->rx);
}

void
net_rdma_read_done(struct rdma_chan *c, struct offer *o, uint32_t len)
{
	c->reading -= len;
	stat_add(&c->port->stat.read_bytes, len);
	if (--o->inflight == 0 && (o->unposted == 0 || o->revoked))
		was_read(c, o);
}

int
net_rdma_read(struct rdma_chan *c, struct offer *o, const struct iovec *iov, unsigned n)
{
	if (o->revoked) {
		o->rx_open = false;
		net_rdma_offer_check(o);
		return -ECONNRESET;
	}
	if ((o->dst = malloc(n * sizeof(*iov))) == NULL) {
		net_rdma_fail(c, -ENOMEM);
		return 0;
	}
	memcpy(o->dst, iov, n * sizeof(*iov));
	o->dst_n = n;
	o->unposted = o->bulk_len;
	o->by_slots = !all_known(c, iov, n);
	c->c.rx_since_ns = clock_now(c->r->clock);
	list_remove(&o->node);
	list_push_back(&c->reads, &o->node);
	net_rdma_mark(c);
	return 0;
}

void
net_rdma_read_drop(struct rdma_chan *c, struct offer *o)
{
	if (o->inflight > 0) {
		/* READs cannot be taken back, the memory must be: the connection goes. */
		net_rdma_stop(c);
		net_rdma_fail(c, -ECONNABORTED);
	}
	if (o->dst != NULL)
		end_read(c, o);
	o->rx_open = false;
	net_rdma_offer_check(o);
}

/* ---- what the peer wants back ---- */

static struct offer *
find_offer(struct list *in, uint32_t number)
{
	list_for_each(l, in) {
		struct offer *o = list_entry(l, struct offer, node);

		if (o->number == number)
			return o;
	}
	return NULL;
}

/* Upcall. */
static void
revoke_offer(struct rdma_chan *c, uint32_t number)
{
	struct offer *o = find_offer(&c->offers, number);

	if (o == NULL)
		o = find_offer(&c->reads, number);
	if (o == NULL || o->revoked)	/* the answer, or DONE, is on its way */
		return;
	o->revoked = true;
	stat_add(&c->port->stat.revokes, 1);
	if (o->reply != NULL)
		c->unwanted = true;
	if (o->dst != NULL && o->inflight == 0)
		was_read(c, o);
	else
		net_rdma_offer_check(o);
}

/* Has what is offered under @number not been taken yet? */
static bool
is_ahead(const struct rdma_chan *c, uint32_t number)
{
	return (int32_t)(number - c->last_number) > 0;
}

/* @number is of a record that is held; its REVOKE has overtaken it.  The peer need not wait
 * for that.  0, -ENOMEM; ERR_BAD_MESSAGE when nothing is held that could be it. */
static int
revoke_early(struct rdma_chan *c, uint32_t number)
{
	struct offer *o;

	if (list_empty(&c->held) || c->early_n == c->credit.ours)
		return ERR_BAD_MESSAGE;
	if (c->early == NULL &&
	    (c->early = calloc(c->credit.ours, sizeof(*c->early))) == NULL)
		return -ENOMEM;
	if ((o = calloc(1, sizeof(*o))) == NULL)	/* is told as done, and no more */
		return -ENOMEM;
	o->number = number;
	is_done(c, o);
	c->early[c->early_n++] = number;
	stat_add(&c->port->stat.revokes, 1);
	return 0;
}

void
net_rdma_take_revoke(struct rdma_chan *c, uint32_t number)
{
	int rc = 0;

	if (is_ahead(c, number))
		rc = revoke_early(c, number);
	else
		revoke_offer(c, number);
	if (rc != 0)
		net_rdma_fail(c, rc);
}

/* Was @o, which is being taken, revoked while its record was held? */
static void
look_early(struct rdma_chan *c, struct offer *o)
{
	for (uint32_t i = 0; i < c->early_n; i++)
		if (c->early[i] == o->number) {
			c->early[i] = c->early[--c->early_n];
			o->revoked = true;
			o->number = 0;		/* has been told */
			return;
		}
}

/* ---- one is made ---- */

struct offer *
net_rdma_offer_new(struct rdma_chan *c, const struct record *r)
{
	unsigned n = r->iov_n + r->room_n;
	struct offer *o = calloc(1, sizeof(*o) + n * sizeof(struct row));
	uint32_t iov_sum;

	if (o == NULL) {
		net_rdma_fail(c, -ENOMEM);
		return NULL;
	}
	o->chan = c;
	o->number = r->number;
	o->bulk_len = r->bulk_len;
	o->iov_n = r->iov_n;
	o->room_n = r->room_n;
	o->rx_open = r->iov_n > 0 || (r->flags & RECORD_STREAM);
	o->far_open = r->number != 0;
	list_init(&o->node);
	if (!net_rdma_rows_get(r->rows, r->iov_n, o->rows, &iov_sum) ||
	    !net_rdma_rows_get(r->rows + r->iov_n * ROW, r->room_n, o->rows + r->iov_n,
	    &o->room_len) || (r->iov_n > 0 && iov_sum != r->bulk_len) ||
	    (r->number != 0 && !is_ahead(c, r->number))) {
		free(o);
		net_rdma_fail(c, ERR_BAD_MESSAGE);
		return NULL;
	}
	if (r->number != 0) {
		c->last_number = r->number;
		look_early(c, o);
	}
	list_push_back(&c->offers, &o->node);
	return o;
}

void
net_rdma_offers_close(struct rdma_chan *c)
{
	list_splice_back(&c->offers, &c->reads);
	for (struct list *l; (l = list_pop_front(&c->offers)) != NULL;) {
		struct offer *o = list_entry(l, struct offer, node);

		free(o->dst);
		free(o);
	}
	free(c->early);
	c->early = NULL;
}
