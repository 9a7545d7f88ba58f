/* SPDX-License-Identifier: MIT */
/* rdma_out.c - frames out: SENDs, and the WRITEs of replies before them.
 *
 *   tx in c->txs --(WRITEs, record, head, stream: all posted)--> c->posted --> sent
 *
 * 1. Only the first of c->txs is partly posted.
 * 2. A head that fits into one message and waits for nothing is taken at once, without a
 *    struct out.
 * 3. An answer to what was revoked goes nowhere; one that has begun is sent on without the
 *    rest of its payload, and says DONE by that.
 * 4. REVOKE is said when all of the frame is posted, so the peer has, or holds, the record. */
#include "net/rdma_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TELL_WRS	2u	/* kept for messages that say something of the protocol */

/* ---- one message ---- */

/* A message being written: into a slot, or small enough to be posted with its WR. */
struct word {
	struct slot *slot;
	uint8_t	    *p;
	uint32_t     n, max;
	uint8_t	     small[INLINE];
};

/* False: there is no slot for it now. */
static bool
word_begin(struct rdma_chan *c, struct word *w, bool small)
{
	w->slot = NULL;
	w->p = w->small;
	w->max = c->inline_max;
	w->n = PREFIX;
	if (small)
		return true;
	if ((w->slot = net_rdma_slot_for(c)) == NULL)
		return false;
	w->p = w->slot->p;
	w->max = SLOT;
	return true;
}

static void
word_put(struct word *w, const void *p, uint32_t n)
{
	memcpy(w->p + w->n, p, n);
	w->n += n;
}

/* 0 or -errno; then the channel is lost. */
static int
word_send(struct rdma_chan *c, struct word *w, enum word_kind kind, uint32_t record,
    struct out *ends)
{
	struct ibv_sge sge = { .addr = (uintptr_t)w->p, .length = w->n,
	    .lkey = w->slot != NULL ? w->slot->slab->mr->lkey : 0 };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND,
	    .send_flags = w->slot == NULL ? IBV_SEND_INLINE : 0 };
	struct word_head h = { .kind = (uint8_t)kind, .record_len = record };
	int rc;

	h.credits = net_credit_send(&c->credit);
	net_rdma_word_put(w->p, &h);
	rc = net_rdma_post(c, &wr, &(struct wr){ .slot = w->slot, .out = ends });
	if (rc != 0 && w->slot != NULL)
		net_rdma_slot_free(c->dev, w->slot);
	stat_add(&c->port->stat.sends, 1);
	return rc;
}

static bool
may_send(const struct rdma_chan *c)
{
	return net_credit_may_send(&c->credit) &&
	    c->wr_head - c->wr_tail < WRS - TELL_WRS;
}

/* ---- records ---- */

/* The rows of registered memory that @iov is; their number, 0: not all of it is. */
static unsigned
rows_of(struct rdma_chan *c, const struct iovec *iov, unsigned n, struct row *rows)
{
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++) {
		const struct ibv_mr *mr;

		if (iov[i].iov_len == 0)
			continue;
		mr = net_rdma_mr(c->r, c->dev, iov[i].iov_base, iov[i].iov_len);
		if (mr == NULL || k == ROWS_MAX)
			return 0;
		rows[k++] = (struct row){ .addr = (uintptr_t)iov[i].iov_base,
		    .len = (uint32_t)iov[i].iov_len, .rkey = mr->rkey };
	}
	return k;
}

/* The peer has the answer, or will: it is done with us. */
static void
far_answered(struct offer *o)
{
	o->far_open = false;
	o->number = 0;			/* nothing to tell any more */
	net_rdma_offer_check(o);
}

/* A small frame without payload: send it now. 0; -EAGAIN: not now; else the channel is lost. */
static int
send_small(struct rdma_chan *c, const struct net_tx *tx)
{
	struct offer *far = (struct offer *)tx->far;
	struct record r = { .kind = RECORD_FRAME, .head_len = tx->head_len,
	    .answers = far != NULL ? far->number : 0 };
	uint32_t n = RECORD + tx->head_len;
	struct bytes_writer b;
	struct word w;

	if (!word_begin(c, &w, PREFIX + n <= c->inline_max))
		return -EAGAIN;
	bytes_writer_init(&b, w.p + PREFIX, RECORD);
	net_rdma_record_put(&b, &r);
	w.n += RECORD;
	word_put(&w, tx->head, tx->head_len);
	return word_send(c, &w, WORD_FIRST, n, NULL);
}

/* Does the room that came with a request hold what the reply puts into it?  It must (the
 * room's length is in the request too), but the peer may tell us two things. */
static bool
fits(const struct offer *far, const struct net_tx *tx)
{
	for (unsigned i = 0; i < tx->iov_n; i++)
		if ((uint64_t)tx->dst_off[i] + tx->iov[i].iov_len > far->room_len)
			return false;
	return far->room_n > 0;
}

static struct out *
make_out(struct rdma_chan *c, struct net_tx *tx)
{
	struct row rows[2 * ROWS_MAX];
	struct record r = { .kind = RECORD_FRAME, .head_len = tx->head_len,
	    .bulk_len = tx->bulk_len };
	struct offer *far = (struct offer *)tx->far;
	unsigned iov_n = 0, room_n = 0;
	bool writes = false;
	struct bytes_writer b;
	struct out *o;

	if (tx->bulk_len > 0)
		iov_n = rows_of(c, tx->iov, tx->iov_n, rows);
	if (tx->dst_off != NULL) {	/* a reply's payload is WRITTEN, never READ */
		writes = far != NULL && iov_n > 0 && fits(far, tx);
		iov_n = 0;
	}
	if (tx->bulk_len > 0 && iov_n == 0 && !writes)
		r.flags = RECORD_STREAM;
	room_n = tx->room_n > 0 ? rows_of(c, tx->room, tx->room_n, rows + iov_n) : 0;
	o = calloc(1, sizeof(*o) + RECORD + (iov_n + room_n) * ROW);
	if (o == NULL)
		return NULL;
	o->writes = writes;
	o->stream = r.flags == RECORD_STREAM;
	o->iov_left = o->writes || o->stream ? tx->bulk_len : 0;
	if (iov_n + room_n > 0) {
		if (map_put(&c->exposed, c->next_number, o) != 0) {
			free(o);
			return NULL;
		}
		r.number = o->number = c->next_number;
		if (++c->next_number == 0)
			c->next_number = 1;
	}
	r.iov_n = (uint8_t)iov_n;
	r.room_n = (uint8_t)room_n;
	r.answers = far != NULL ? far->number : 0;
	o->chan = c;
	o->tx = tx;
	o->far = far;
	list_init(&o->revoke);
	if (far != NULL)
		far->reply = o;
	o->record = (uint8_t *)(o + 1);
	o->record_len = RECORD + (iov_n + room_n) * ROW;
	bytes_writer_init(&b, o->record, o->record_len);
	net_rdma_record_put(&b, &r);
	net_rdma_rows_put(&b, rows, iov_n + room_n);
	return o;
}

static void
free_out(struct out *o)
{
	struct rdma_chan *c = o->chan;

	if (o->number != 0)
		map_del(&c->exposed, o->number);
	if (o->far != NULL)
		o->far->reply = NULL;
	o->tx->impl = NULL;
	list_remove(&o->tx->node);
	list_remove(&o->revoke);
	free(o);
}

static uint64_t
left(const struct out *o)
{
	return o->record_len + (uint64_t)o->tx->head_len +
	    (o->stream || o->writes ? o->tx->bulk_len : 0);
}

static void
moved(struct rdma_chan *c, size_t n)
{
	c->c.out_bytes -= n;
	c->c.tx_since_ns = c->c.out_bytes > 0 ? clock_now(c->r->clock) : 0;
}

/* ---- sending ---- */

bool
net_rdma_send(struct net_chan *chan, struct net_tx *tx)
{
	struct rdma_chan *c = net_rdma_of(chan);
	struct offer *far = (struct offer *)tx->far;
	struct out *o;

	tx->impl = NULL;
	tx->done = 0;
	if (far != NULL && far->revoked) {
		net_rdma_far_drop(chan, tx->far);
		return true;
	}
	if (c->failed == 0 && list_empty(&c->txs) && tx->bulk_len == 0 &&
	    tx->room_n == 0 && PREFIX + RECORD + tx->head_len <= SLOT && may_send(c)) {
		int rc = send_small(c, tx);

		if (rc == 0) {
			if (far != NULL)
				far_answered(far);
			return true;
		}
		if (rc != -EAGAIN)
			net_rdma_fail(c, rc);
	}
	list_push_back(&c->txs, &tx->node);
	if (c->failed != 0 || (o = make_out(c, tx)) == NULL) {
		net_rdma_fail(c, -ENOMEM);
		return false;
	}
	tx->impl = o;
	if (chan->out_bytes == 0)
		chan->tx_since_ns = clock_now(c->r->clock);
	chan->out_bytes += left(o);
	net_rdma_mark(c);
	return false;
}

/* Has any of it been posted? */
static bool
has_begun(const struct out *o)
{
	return o->at > 0 || (o->writes && o->iov_left < o->tx->bulk_len);
}

int
net_rdma_unsend(struct net_chan *chan, struct net_tx *tx)
{
	struct rdma_chan *c = net_rdma_of(chan);
	struct out *o = tx->impl;

	if (o == NULL) {		/* the channel is lost, or it never got further */
		list_remove(&tx->node);
		return 0;
	}
	if (has_begun(o))
		return -EBUSY;
	moved(c, left(o));
	free_out(o);
	return 0;
}

void
net_rdma_revoke(struct net_chan *chan, struct net_tx *tx)
{
	struct rdma_chan *c = net_rdma_of(chan);
	struct out *o = tx->impl;

	/* What the peer has no part in ends by itself: a stream, or with the channel. */
	if (o == NULL || o->number == 0 || !list_empty(&o->revoke))
		return;
	list_push_back(&c->revokes, &o->revoke);
	net_rdma_mark(c);
}

/* The next WRITE of a reply. False: no room, or the channel has failed. */
static bool
post_write(struct rdma_chan *c, struct out *o)
{
	const struct net_tx *tx = o->tx;
	const struct iovec *iov = &tx->iov[o->iov_at];
	uint32_t to = tx->dst_off[o->iov_at] + (uint32_t)o->iov_off;
	size_t len = iov->iov_len - o->iov_off;
	const struct row *row = o->far->rows + o->far->iov_n;
	struct ibv_sge sge;
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1,
	    .opcode = IBV_WR_RDMA_WRITE };
	struct ibv_mr *mr;
	int rc;

	if (len == 0) {
		o->iov_at++;
		o->iov_off = 0;
		return true;
	}
	if (c->wr_head - c->wr_tail >= WRS - TELL_WRS)
		return false;
	/* Pieces lie within the room, see fits(). */
	for (; to >= row->len; row++)
		to -= row->len;
	if (len > row->len - to)
		len = row->len - to;
	if (len > ONE_SIDED_MAX)
		len = ONE_SIDED_MAX;
	mr = net_rdma_mr(c->r, c->dev, (const uint8_t *)iov->iov_base + o->iov_off, len);
	assert(mr != NULL);		/* it was when this began */
	sge = (struct ibv_sge){ .addr = (uintptr_t)iov->iov_base + o->iov_off,
	    .length = (uint32_t)len, .lkey = mr->lkey };
	wr.wr.rdma.remote_addr = row->addr + to;
	wr.wr.rdma.rkey = row->rkey;
	rc = net_rdma_post(c, &wr, &(struct wr){ .slot = NULL });
	if (rc != 0) {
		net_rdma_fail(c, rc);
		return false;
	}
	stat_add(&c->port->stat.write_bytes, len);
	o->iov_off += len;
	o->iov_left -= (uint32_t)len;
	if (o->iov_off == iov->iov_len) {
		o->iov_at++;
		o->iov_off = 0;
	}
	moved(c, len);
	return true;
}

/* Bytes of the record and the head, from o->at on, into a message. */
static void
put_head(struct out *o, struct word *w)
{
	uint32_t n;

	if (o->at < o->record_len) {
		n = o->record_len - (uint32_t)o->at;
		if (n > w->max - w->n)
			n = w->max - w->n;
		word_put(w, o->record + o->at, n);
		o->at += n;
	}
	if (o->at >= o->record_len) {
		uint32_t at = (uint32_t)o->at - o->record_len;

		n = o->tx->head_len - at;
		if (n > w->max - w->n)
			n = w->max - w->n;
		word_put(w, o->tx->head + at, n);
		o->at += n;
	}
}

static void
put_stream(struct out *o, struct word *w)
{
	while (o->iov_left > 0 && w->n < w->max) {
		const struct iovec *iov = &o->tx->iov[o->iov_at];
		size_t n = iov->iov_len - o->iov_off;

		if (n > w->max - w->n)
			n = w->max - w->n;
		word_put(w, (const uint8_t *)iov->iov_base + o->iov_off, (uint32_t)n);
		o->iov_off += n;
		o->iov_left -= (uint32_t)n;
		if (o->iov_off == iov->iov_len) {
			o->iov_at++;
			o->iov_off = 0;
		}
	}
}

/* The next message of a frame.  1: it was the last; 0: there is more; -EAGAIN: not now;
 * -errno: the channel is lost. */
static int
post_some(struct rdma_chan *c, struct out *o)
{
	uint32_t words = o->record_len + o->tx->head_len;
	bool first = o->at == 0, head = o->at < words;
	struct word w;
	bool last;
	int rc;

	if (!may_send(c)) {
		if (!net_credit_may_send(&c->credit))
			stat_add(&c->port->stat.waits, 1);
		return -EAGAIN;
	}
	if (!word_begin(c, &w, head && !o->stream && PREFIX + words <= c->inline_max))
		return -EAGAIN;
	if (head) {
		put_head(o, &w);
		last = o->at == words && !o->stream;
	} else {
		put_stream(o, &w);
		last = o->iov_left == 0;
		stat_add(&c->port->stat.copied_bytes, w.n - PREFIX);
	}
	rc = word_send(c, &w, head ? first ? WORD_FIRST : WORD_NEXT : WORD_BULK,
	    first ? words : 0, last && o->writes ? o : NULL);
	if (rc != 0)
		return rc;
	moved(c, w.n - PREFIX);
	return last;
}

void
net_rdma_sent(struct rdma_chan *c, struct out *o)
{
	struct net_tx *tx = o->tx;

	tx->done = left(o);
	free_out(o);
	c->c.up->sent(&c->c, tx);
}

/* Post as much of the first frame as may be. True: all of it is. */
static bool
post_frame(struct rdma_chan *c, struct out *o)
{
	int rc = 0;

	while (o->writes && o->iov_left > 0)
		if (!post_write(c, o))
			return false;
	while ((rc = post_some(c, o)) == 0)
		;
	if (rc < 0 && rc != -EAGAIN)
		net_rdma_fail(c, rc);
	return rc == 1;
}

/* Say @r, which is not of a frame. False: not now, or the channel is lost. */
static bool
tell(struct rdma_chan *c, const struct record *r)
{
	struct bytes_writer b;
	struct word w;
	int rc;

	if (!word_begin(c, &w, PREFIX + RECORD <= c->inline_max))
		return false;
	bytes_writer_init(&b, w.p + w.n, RECORD);
	net_rdma_record_put(&b, r);
	w.n += RECORD;
	if ((rc = word_send(c, &w, WORD_TELL, 0, NULL)) != 0)
		net_rdma_fail(c, rc);
	return rc == 0;
}

static void
tell_done(struct rdma_chan *c)
{
	while (!list_empty(&c->done) && may_send(c)) {
		struct offer *o = list_entry(c->done.next, struct offer, node);

		if (!tell(c, &(struct record){ .kind = RECORD_DONE,
		    .answers = o->number }))
			return;
		list_remove(&o->node);
		o->number = 0;
		o->due = false;
		c->done_n--;
		if (o->rx_open || o->far_open)
			list_push_back(&c->offers, &o->node);
		else
			free(o);
	}
}

static void
tell_revokes(struct rdma_chan *c)
{
	list_for_each_safe(l, next, &c->revokes) {
		struct out *o = list_entry(l, struct out, revoke);

		if (!o->all)
			continue;
		if (!may_send(c) || !tell(c, &(struct record){ .kind = RECORD_REVOKE,
		    .number = o->number }))
			return;
		list_remove(&o->revoke);
	}
}

/* Answers nobody waits for leave the queue.  Upcalls. */
static void
drop_unwanted(struct rdma_chan *c)
{
	struct list *l = c->txs.next;

	c->unwanted = false;
	while (!c->closed && c->failed == 0 && l != &c->txs) {
		struct out *o = list_entry(l, struct net_tx, node)->impl;
		struct offer *far = o->far;

		l = l->next;
		if (far == NULL || !far->revoked)
			continue;
		if (has_begun(o)) {
			if (o->writes) {
				moved(c, o->iov_left);
				o->iov_left = 0;
			}
			continue;
		}
		moved(c, left(o));
		far->reply = NULL;
		net_rdma_far_drop(&c->c, (struct net_far *)far);
		o->far = NULL;
		net_rdma_sent(c, o);
		l = c->txs.next;	/* the upcall may have done anything */
	}
}

static void
tell_credits(struct rdma_chan *c)
{
	struct word w;
	int rc;

	if (!net_credit_should_tell(&c->credit) || !net_rdma_wr_room(c) ||
	    !word_begin(c, &w, c->inline_max >= PREFIX))
		return;
	if ((rc = word_send(c, &w, WORD_CREDIT, 0, NULL)) != 0)
		net_rdma_fail(c, rc);
}

void
net_rdma_pump(struct rdma_chan *c)
{
	size_t before = c->c.out_bytes;

	if (c->unwanted)
		drop_unwanted(c);
	if (c->closed || c->failed != 0)
		return;
	net_rdma_post_reads(c);
	if (c->failed == 0)
		tell_done(c);
	if (c->failed == 0)
		tell_revokes(c);
	while (!c->closed && c->failed == 0 && !list_empty(&c->txs)) {
		struct net_tx *tx = list_entry(c->txs.next, struct net_tx, node);
		struct out *o = tx->impl;
		struct offer *far = o->far;

		if (!post_frame(c, o))
			break;
		list_remove(&tx->node);
		list_push_back(&c->posted, &tx->node);
		o->all = true;
		if (!list_empty(&o->revoke))
			net_rdma_mark(c);	/* may be told now */
		o->far = NULL;
		if (far != NULL) {
			far->reply = NULL;
			far_answered(far);
		}
		if (o->number == 0 && !o->writes)
			net_rdma_sent(c, o);
	}
	if (!c->closed && c->failed == 0)
		tell_credits(c);
	if (!c->closed && before > c->c.out_mark / 2 &&
	    c->c.out_bytes <= c->c.out_mark / 2)
		c->c.up->drained(&c->c);
}

/* ---- the end of what was sent ---- */

bool
net_rdma_answered(struct rdma_chan *c, uint32_t number)
{
	struct out *o = map_get(&c->exposed, number);

	if (o == NULL || o->at < o->record_len)
		return false;
	map_del(&c->exposed, number);
	list_remove(&o->revoke);
	o->number = 0;
	/* Answered without waiting for the rest of the payload: that must still leave. */
	if (o->all)
		net_rdma_sent(c, o);
	return true;
}

bool
net_rdma_out_close(struct rdma_chan *c, struct list *unsent)
{
	bool memory = c->exposed.n > 0;

	list_splice_back(&c->posted, &c->txs);
	while (!list_empty(&c->posted)) {
		struct net_tx *tx = list_entry(c->posted.next, struct net_tx, node);
		struct out *o = tx->impl;

		if (o != NULL) {
			memory |= o->writes;
			free_out(o);
		}
		list_remove(&tx->node);
		list_push_back(unsent, &tx->node);
	}
	for (struct list *l; (l = list_pop_front(&c->done)) != NULL;)
		free(list_entry(l, struct offer, node));
	map_fini(&c->exposed);
	c->c.out_bytes = 0;
	return memory;
}
