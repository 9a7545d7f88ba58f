/* SPDX-License-Identifier: MIT */
/* verbs.c - what devices in memory do, see verbs.h.
 *
 *   ibv_post_send -> qp->todo --step()--> the other queue pair, or its owner's memory
 *                                  \----> cq->wcs -> ibv_poll_cq
 *
 * 1. Work of a queue pair is done in order, but messages arrive while READs before them go on;
 *    only what is signaled, or fails, completes, in order.
 * 2. A failing one takes all behind it along: they are flushed, and so is what comes later.
 * 3. A completion queue wakes its channel once, after it was asked to. */
#include "tests/verbs/impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <unistd.h>

#define STEPS		8u		/* at one look, at most */
#define PART		8192u		/* bytes of a payload moved in one step, mostly */

struct verbs verbs;

struct ibv_device verbs_devices[VERBS_DEVICES];
struct list verbs_ctxs, verbs_mrs, verbs_qps, verbs_cqs;
uint32_t verbs_next_qpn, verbs_next_key;
static uint64_t seed;

static unsigned
below(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)((seed >> 20) % n);
}

static void
add(int fd, uint64_t n)
{
	ssize_t rc = write(fd, &n, sizeof(n));

	assert(rc == sizeof(n));
}

/* ---- what is there ---- */

void
verbs_plug(unsigned i, bool there)
{
	verbs.dev[i].gone = !there;
	snprintf(verbs_devices[i].dev_path, sizeof(verbs_devices[i].dev_path),
	    there ? "/" : "/nowhere");
}

void
verbs_reset(void)
{
	static const uint8_t loopback[16] = { [10] = 0xff, 0xff, 127 };
	const char *s = getenv("SEED");

	assert(verbs.qps == 0 && verbs.mrs == 0 && verbs.cqs == 0);
	assert(verbs_ctxs.next == NULL || list_empty(&verbs_ctxs));
	seed = 88172645463325252ull ^ (s != NULL ? strtoull(s, NULL, 10) << 7 : 0);
	verbs = (struct verbs){ .max_cqe = 1 << 20, .max_cq = 1 << 16, .max_srq_wr = 16384,
	    .mrs_max = UINT32_MAX, .qps_max = UINT32_MAX, .inline_max = 256 };
	list_init(&verbs_ctxs);
	list_init(&verbs_mrs);
	list_init(&verbs_qps);
	list_init(&verbs_cqs);
	verbs_next_qpn = 17;
	verbs_next_key = 1000;
	for (unsigned i = 0; i < VERBS_DEVICES; i++) {
		snprintf(verbs_devices[i].name, sizeof(verbs_devices[i].name), "fake%u", i);
		verbs_plug(i, i == 0);
		verbs_devices[i].ibdev_path[0] = '\0';
		verbs.dev[i].mtu = IBV_MTU_4096;
		memcpy(verbs.dev[i].gids[0], loopback, sizeof(loopback));
		verbs.dev[i].gids[0][15] = (uint8_t)(1 + i);
	}
}

__attribute__((constructor)) static void
begin(void)
{
	verbs_reset();
	setenv("FSD_TEST_RDMA", "only", 0);
}

static struct qp *
find_qp(uint32_t n)
{
	list_for_each(l, &verbs_qps)
		if (list_entry(l, struct qp, node)->q.qp_num == n)
			return list_entry(l, struct qp, node);
	return NULL;
}

/* Is all of it registered, for that? */
static bool
is_known(uint32_t key, uint64_t addr, uint64_t n, int access)
{
	list_for_each(l, &verbs_mrs) {
		const struct mr *m = list_entry(l, struct mr, node);
		uint64_t at = (uintptr_t)m->m.addr;

		if (m->m.lkey == key && addr >= at && addr + n <= at + m->m.length &&
		    (m->access & access) == access)
			return true;
	}
	return false;
}

/* ---- completions ---- */

static void
complete(struct ibv_cq *c, const struct ibv_wc *wc)
{
	struct cq *q = (struct cq *)c;

	assert(q->n < (unsigned)c->cqe);	/* an overflow kills a real one */
	if (q->n == q->cap) {
		q->cap = q->cap == 0 ? 64 : q->cap * 2;
		q->wcs = realloc(q->wcs, q->cap * sizeof(*q->wcs));
		assert(q->wcs != NULL);
	}
	q->wcs[q->n++] = *wc;
	verbs.errors += wc->status != IBV_WC_SUCCESS;
	if (q->armed) {
		q->armed = false;
		q->events++;
		verbs.woken++;
		add(c->channel->fd, 1);
	}
}

static void
sent(struct qp *q, uint64_t id, enum ibv_wc_status status, enum ibv_wc_opcode op)
{
	complete(q->q.send_cq, &(struct ibv_wc){ .wr_id = id, .status = status, .opcode = op,
	    .qp_num = q->q.qp_num });
}

static void
done_with(struct qp *q, struct work *w)
{
	list_remove(&w->node);
	q->todo_n--;
	free(w);
}

void
verbs_forget(struct qp *q)
{
	while (!list_empty(&q->todo))
		done_with(q, list_entry(q->todo.next, struct work, node));
}

void
verbs_flush(struct qp *q)
{
	q->state = IBV_QPS_ERR;
	while (!list_empty(&q->todo)) {
		struct work *w = list_entry(q->todo.next, struct work, node);

		sent(q, w->wr.wr_id, IBV_WC_WR_FLUSH_ERR, 0);
		done_with(q, w);
	}
	for (; q->own.n > 0; q->own.n--, q->own.at++)
		complete(q->q.recv_cq, &(struct ibv_wc){
		    .wr_id = q->own.wr[q->own.at % q->own.cap].wr_id,
		    .status = IBV_WC_WR_FLUSH_ERR, .qp_num = q->q.qp_num });
}

static void
fail(struct qp *q, struct work *w, enum ibv_wc_status status)
{
	sent(q, w->wr.wr_id, status, 0);
	done_with(q, w);
	verbs_flush(q);
}

/* ---- the wire ---- */

static void
receive(struct qp *to, const void *p, uint32_t n)
{
	struct recvs *r = to->q.srq != NULL ? &((struct srq *)to->q.srq)->recvs : &to->own;
	const struct ibv_recv_wr *wr = &r->wr[r->at % r->cap];
	const struct ibv_sge *sge = &r->sge[r->at % r->cap];

	assert(r->n > 0);		/* receiver not ready: never */
	assert(n <= sge->length);
	assert(is_known(sge->lkey, sge->addr, n, IBV_ACCESS_LOCAL_WRITE));
	memcpy((void *)(uintptr_t)sge->addr, p, n);
	r->at++;
	r->n--;
	complete(to->q.recv_cq, &(struct ibv_wc){ .wr_id = wr->wr_id,
	    .status = IBV_WC_SUCCESS, .opcode = IBV_WC_RECV, .byte_len = n,
	    .qp_num = to->q.qp_num });
}

/* A part of a READ or WRITE.  1: the last one; 0: more; -1: no access. */
static int
move(struct qp *q, struct qp *to, struct work *w)
{
	bool reads = w->wr.opcode == IBV_WR_RDMA_READ;
	int access = reads ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE;
	uint32_t n = w->sge.length, part = n - w->at;
	uint8_t *here = (uint8_t *)(uintptr_t)w->sge.addr + w->at;
	uint8_t *there = (uint8_t *)(uintptr_t)w->wr.wr.rdma.remote_addr + w->at;

	(void)q;
	if (w->wr.num_sge == 0 || n == 0)
		return 1;
	assert(is_known(w->sge.lkey, w->sge.addr, n, reads ? IBV_ACCESS_LOCAL_WRITE : 0));
	if ((to->access & (unsigned)access) == 0 ||
	    !is_known(w->wr.wr.rdma.rkey, w->wr.wr.rdma.remote_addr, n, access))
		return -1;
	if (part > PART && below(12) > 0)
		part = PART;
	memcpy(reads ? here : there, reads ? there : here, part);
	w->at += part;
	return w->at == n;
}

static void
arrive(struct qp *to, const struct work *w)
{
	assert((w->wr.send_flags & IBV_SEND_INLINE) ||
	    is_known(w->sge.lkey, w->sge.addr, w->sge.length, 0));
	receive(to, (void *)(uintptr_t)w->sge.addr, w->sge.length);
}

/* The first message behind READs alone, which do not keep it. */
static void
overtake(struct qp *q, struct qp *to)
{
	list_for_each(l, &q->todo) {
		struct work *w = list_entry(l, struct work, node);

		if (w->wr.opcode == IBV_WR_RDMA_READ || w->early)
			continue;
		if (w->wr.opcode == IBV_WR_SEND && !(w->wr.send_flags & IBV_SEND_FENCE)) {
			w->early = true;
			arrive(to, w);
		}
		return;
	}
}

static void
step(struct qp *q)
{
	struct work *w = list_entry(q->todo.next, struct work, node);
	struct qp *to = find_qp(q->dest);
	int rc = 1;

	if (q->breaks != IBV_WC_SUCCESS) {
		fail(q, w, q->breaks);
		return;
	}
	if (to == NULL || to->dest != q->q.qp_num || to->state < IBV_QPS_RTR ||
	    to->state > IBV_QPS_RTS) {
		fail(q, w, IBV_WC_RETRY_EXC_ERR);
		return;
	}
	if (w->wr.opcode == IBV_WR_RDMA_READ && below(3) == 0)
		overtake(q, to);
	if (w->wr.opcode == IBV_WR_SEND) {
		if (!w->early)
			arrive(to, w);
	} else {
		rc = move(q, to, w);
	}
	if (rc < 0) {
		fail(q, w, IBV_WC_REM_ACCESS_ERR);
		verbs_flush(to);
		return;
	}
	if (rc == 0)
		return;
	verbs.sends += w->wr.opcode == IBV_WR_SEND;
	verbs.inlined += w->wr.opcode == IBV_WR_SEND && (w->wr.send_flags & IBV_SEND_INLINE);
	verbs.told += (w->wr.send_flags & IBV_SEND_SIGNALED) != 0;
	verbs.reads += w->wr.opcode == IBV_WR_RDMA_READ;
	verbs.writes += w->wr.opcode == IBV_WR_RDMA_WRITE;
	if (w->wr.send_flags & IBV_SEND_SIGNALED)
		sent(q, w->wr.wr_id, IBV_WC_SUCCESS, w->wr.opcode == IBV_WR_RDMA_READ ?
		    IBV_WC_RDMA_READ : IBV_WC_SEND);
	done_with(q, w);
}

static struct qp *
any_busy(void)
{
	unsigned n = 0;

	list_for_each(l, &verbs_qps)
		n += list_entry(l, struct qp, node)->todo_n > 0;
	if (n == 0 || verbs.still)
		return NULL;
	n = below(n);
	list_for_each(l, &verbs_qps) {
		struct qp *q = list_entry(l, struct qp, node);

		if (q->todo_n > 0 && n-- == 0)
			return q;
	}
	return NULL;
}

/* Some of what is to be done.  What is left is told as an event that is none. */
void
verbs_run(void)
{
	struct qp *q;

	for (unsigned i = below(STEPS + 1); i > 0 && (q = any_busy()) != NULL; i--)
		step(q);
	if (any_busy() != NULL)
		list_for_each(l, &verbs_ctxs)
			add(list_entry(l, struct ctx, node)->c.async_fd, 1);
}

int
verbs_poll_cq(struct ibv_cq *c, int most, struct ibv_wc *out)
{
	struct cq *q = (struct cq *)c;
	unsigned n;

	verbs_run();
	n = q->n < (unsigned)most ? q->n : (unsigned)most;
	if (n == 0)
		return 0;
	memcpy(out, q->wcs, n * sizeof(*out));
	memmove(q->wcs, q->wcs + n, (q->n - n) * sizeof(*out));
	q->n -= n;
	return (int)n;
}

int
verbs_notify(struct ibv_cq *c, int solicited)
{
	(void)solicited;
	((struct cq *)c)->armed = true;
	return 0;
}

int
verbs_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct qp *q = (struct qp *)qp;

	(void)bad;
	assert(q->state == IBV_QPS_RTS || q->state == IBV_QPS_ERR);
	for (; wr != NULL; wr = wr->next) {
		bool small = wr->send_flags & IBV_SEND_INLINE;
		struct work *w = calloc(1, sizeof(*w) + q->inline_max);

		assert(w != NULL && q->todo_n < q->todo_max && wr->num_sge <= 1);
		w->wr = *wr;
		if (wr->num_sge > 0)
			w->sge = wr->sg_list[0];
		if (small) {
			assert(w->sge.length <= q->inline_max);
			memcpy(w->small, (void *)(uintptr_t)w->sge.addr, w->sge.length);
			w->sge.addr = (uintptr_t)w->small;
		}
		list_push_back(&q->todo, &w->node);
		q->todo_n++;
	}
	if (q->state == IBV_QPS_ERR)
		verbs_flush(q);
	add(q->q.context->async_fd, 1);
	return 0;
}

static int
post_recvs(struct recvs *r, struct ibv_recv_wr *wr)
{
	for (; wr != NULL; wr = wr->next, r->n++) {
		assert(r->n < r->cap && wr->num_sge == 1);
		r->wr[(r->at + r->n) % r->cap] = *wr;
		r->sge[(r->at + r->n) % r->cap] = wr->sg_list[0];
	}
	return 0;
}

int
verbs_post_recv(struct ibv_qp *q, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	(void)bad;
	assert(q->srq == NULL);
	return post_recvs(&((struct qp *)q)->own, wr);
}

int
verbs_post_srq_recv(struct ibv_srq *s, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	(void)bad;
	return post_recvs(&((struct srq *)s)->recvs, wr);
}

/* ---- what tests do ---- */

void
verbs_break_qp(uint32_t n, enum ibv_wc_status status)
{
	struct qp *q = find_qp(n);

	assert(q != NULL);
	q->breaks = status;
	if (status != IBV_WC_SUCCESS)
		return;
	verbs_flush(q);
	list_for_each(l, &verbs_ctxs) {
		struct ctx *c = list_entry(l, struct ctx, node);

		if (&c->c != q->q.context)
			continue;
		assert(c->events_n < EVENTS);
		c->events[c->events_n++] = (struct ibv_async_event){
		    .event_type = IBV_EVENT_QP_FATAL, .element.qp = &q->q };
		add(c->c.async_fd, 1);
	}
}

uint64_t
verbs_tear_qp(uint32_t n)
{
	struct qp *q = find_qp(n);
	struct recvs *r;
	uint64_t id;

	assert(q != NULL && q->q.srq != NULL);
	r = &((struct srq *)q->q.srq)->recvs;
	assert(r->n > 0);
	id = r->wr[r->at % r->cap].wr_id;
	r->at++;
	r->n--;
	verbs_break_qp(n, IBV_WC_SUCCESS);
	return id;
}

void
verbs_tell(struct ibv_cq *cq, uint64_t wr_id)
{
	complete(cq, &(struct ibv_wc){ .wr_id = wr_id, .status = IBV_WC_WR_FLUSH_ERR });
}

unsigned
verbs_srq_n(const struct ibv_srq *srq)
{
	return ((const struct srq *)srq)->recvs.n;
}

void
verbs_event(unsigned i, enum ibv_event_type type)
{
	list_for_each(l, &verbs_ctxs) {
		struct ctx *c = list_entry(l, struct ctx, node);

		if (c->c.device != &verbs_devices[i])
			continue;
		assert(c->events_n < EVENTS);
		c->events[c->events_n++] = (struct ibv_async_event){ .event_type = type,
		    .element.port_num = 1 };
		add(c->c.async_fd, 1);
	}
}

void
verbs_deliver(uint32_t qpn, const void *p, uint32_t n)
{
	struct qp *q = find_qp(qpn);

	assert(q != NULL);
	receive(q, p, n);
}
