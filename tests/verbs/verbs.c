/* SPDX-License-Identifier: MIT */
/* verbs.c - devices in memory, see verbs.h.
 *
 *   ibv_post_send -> qp->todo --step()--> the other queue pair, or its owner's memory
 *                                  \----> cq->wcs -> ibv_poll_cq
 *
 * 1. Work of a queue pair is done in order; only what is signaled, or fails, completes.
 * 2. A failing one takes all behind it along: they are flushed, and so is what comes later.
 * 3. A completion queue wakes its channel once, after it was asked to. */
#include "tests/verbs/verbs.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "conf/list.h"

#undef ibv_get_device_list
#undef ibv_query_port
#undef ibv_reg_mr

#define EVENTS		16u
#define STEPS		8u		/* at one look, at most */
#define PART		8192u		/* bytes of a payload moved in one step, mostly */

struct ctx {
	struct ibv_context c;
	struct list node;
	struct ibv_async_event events[EVENTS];
	unsigned events_n;
	unsigned pds;
};

struct pd {
	struct ibv_pd p;
	unsigned users;
};

struct mr {
	struct ibv_mr m;
	struct list node;
	int access;
};

struct channel {
	struct ibv_comp_channel c;
	unsigned cqs;
};

struct cq {
	struct ibv_cq c;
	struct list node;
	struct ibv_wc *wcs;
	unsigned n, cap, events, acked, users;
	bool armed;
};

/* Receives: of a queue pair, or shared. */
struct recvs {
	struct ibv_recv_wr *wr;
	struct ibv_sge *sge;
	unsigned at, n, cap;
};

struct srq {
	struct ibv_srq s;
	struct recvs recvs;
	unsigned users;
};

struct work {
	struct list node;
	struct ibv_send_wr wr;
	struct ibv_sge sge;
	uint32_t at;
	uint8_t small[];
};

struct qp {
	struct ibv_qp q;
	struct list node, todo;
	struct recvs own;
	unsigned todo_n, todo_max, inline_max;
	uint32_t dest;
	enum ibv_qp_state state;
	unsigned access;
	enum ibv_wc_status breaks;
};

struct verbs verbs;

static struct ibv_device devices[VERBS_DEVICES];
static struct list ctxs, mrs, qps, cqs;
static uint32_t next_qpn, next_key;
static uint64_t seed;

static unsigned
below(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)((seed >> 20) % n);
}

static struct ctx *
ctx_of(struct ibv_context *c)
{
	return (struct ctx *)c;
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
	snprintf(devices[i].dev_path, sizeof(devices[i].dev_path), there ? "/" : "/nowhere");
}

void
verbs_reset(void)
{
	const char *s = getenv("FSD_SEED");

	assert(verbs.qps == 0 && verbs.mrs == 0 && verbs.cqs == 0);
	assert(ctxs.next == NULL || list_empty(&ctxs));
	seed = 88172645463325252ull ^ (s != NULL ? strtoull(s, NULL, 10) << 7 : 0);
	verbs = (struct verbs){ .max_cqe = 1 << 20, .max_cq = 1 << 16, .mrs_max = UINT32_MAX,
	    .qps_max = UINT32_MAX, .inline_max = 256 };
	list_init(&ctxs);
	list_init(&mrs);
	list_init(&qps);
	list_init(&cqs);
	next_qpn = 17;
	next_key = 1000;
	for (unsigned i = 0; i < VERBS_DEVICES; i++) {
		snprintf(devices[i].name, sizeof(devices[i].name), "fake%u", i);
		verbs_plug(i, i == 0);
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
	list_for_each(l, &qps)
		if (list_entry(l, struct qp, node)->q.qp_num == n)
			return list_entry(l, struct qp, node);
	return NULL;
}

/* Is all of it registered, for that? */
static bool
is_known(uint32_t key, uint64_t addr, uint64_t n, int access)
{
	list_for_each(l, &mrs) {
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

static void
flush(struct qp *q)
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
	flush(q);
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
	if (part > PART && below(3) > 0)
		part = PART;
	memcpy(reads ? here : there, reads ? there : here, part);
	w->at += part;
	return w->at == n;
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
	if (w->wr.opcode == IBV_WR_SEND) {
		assert((w->wr.send_flags & IBV_SEND_INLINE) ||
		    is_known(w->sge.lkey, w->sge.addr, w->sge.length, 0));
		receive(to, (void *)(uintptr_t)w->sge.addr, w->sge.length);
	} else {
		rc = move(q, to, w);
	}
	if (rc < 0) {
		fail(q, w, IBV_WC_REM_ACCESS_ERR);
		flush(to);
		return;
	}
	if (rc == 0)
		return;
	verbs.sends += w->wr.opcode == IBV_WR_SEND;
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

	list_for_each(l, &qps)
		n += list_entry(l, struct qp, node)->todo_n > 0;
	if (n == 0 || verbs.still)
		return NULL;
	n = below(n);
	list_for_each(l, &qps) {
		struct qp *q = list_entry(l, struct qp, node);

		if (q->todo_n > 0 && n-- == 0)
			return q;
	}
	return NULL;
}

/* Some of what is to be done.  What is left is told as an event that is none. */
static void
run(void)
{
	struct qp *q;

	for (unsigned i = below(STEPS + 1); i > 0 && (q = any_busy()) != NULL; i--)
		step(q);
	if (any_busy() != NULL)
		list_for_each(l, &ctxs)
			add(list_entry(l, struct ctx, node)->c.async_fd, 1);
}

static int
poll_cq(struct ibv_cq *c, int most, struct ibv_wc *out)
{
	struct cq *q = (struct cq *)c;
	unsigned n;

	run();
	n = q->n < (unsigned)most ? q->n : (unsigned)most;
	if (n == 0)
		return 0;
	memcpy(out, q->wcs, n * sizeof(*out));
	memmove(q->wcs, q->wcs + n, (q->n - n) * sizeof(*out));
	q->n -= n;
	return (int)n;
}

static int
notify(struct ibv_cq *c, int solicited)
{
	(void)solicited;
	((struct cq *)c)->armed = true;
	return 0;
}

static int
post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
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
		flush(q);
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

static int
post_recv(struct ibv_qp *q, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	(void)bad;
	assert(q->srq == NULL);
	return post_recvs(&((struct qp *)q)->own, wr);
}

static int
post_srq_recv(struct ibv_srq *s, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	(void)bad;
	return post_recvs(&((struct srq *)s)->recvs, wr);
}

static void
recvs_open(struct recvs *r, unsigned n)
{
	r->cap = n;
	r->wr = calloc(n + 1, sizeof(*r->wr));
	r->sge = calloc(n + 1, sizeof(*r->sge));
	assert(r->wr != NULL && r->sge != NULL);
}

static void
recvs_close(struct recvs *r)
{
	free(r->wr);
	free(r->sge);
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
	flush(q);
	list_for_each(l, &ctxs) {
		struct ctx *c = list_entry(l, struct ctx, node);

		if (&c->c != q->q.context)
			continue;
		assert(c->events_n < EVENTS);
		c->events[c->events_n++] = (struct ibv_async_event){
		    .event_type = IBV_EVENT_QP_FATAL, .element.qp = &q->q };
		add(c->c.async_fd, 1);
	}
}

void
verbs_event(unsigned i, enum ibv_event_type type)
{
	list_for_each(l, &ctxs) {
		struct ctx *c = list_entry(l, struct ctx, node);

		if (c->c.device != &devices[i])
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

/* ---- devices ---- */

struct ibv_device **
ibv_get_device_list(int *n)
{
	struct ibv_device **all = calloc(VERBS_DEVICES + 1, sizeof(*all));
	int k = 0;

	for (unsigned i = 0; i < VERBS_DEVICES; i++)
		if (!verbs.dev[i].gone)
			all[k++] = &devices[i];
	if (n != NULL)
		*n = k;
	return all;
}

void
ibv_free_device_list(struct ibv_device **list)
{
	free(list);
}

const char *
ibv_get_device_name(struct ibv_device *d)
{
	return d->name;
}

struct ibv_context *
ibv_open_device(struct ibv_device *d)
{
	struct ctx *c = calloc(1, sizeof(*c));

	assert(c != NULL);
	c->c.device = d;
	c->c.async_fd = eventfd(0, EFD_NONBLOCK);
	c->c.ops.poll_cq = poll_cq;
	c->c.ops.req_notify_cq = notify;
	c->c.ops.post_send = post_send;
	c->c.ops.post_recv = post_recv;
	c->c.ops.post_srq_recv = post_srq_recv;
	list_push_back(&ctxs, &c->node);
	return &c->c;
}

int
ibv_close_device(struct ibv_context *context)
{
	struct ctx *c = ctx_of(context);

	assert(c->pds == 0);
	close(context->async_fd);
	list_remove(&c->node);
	free(c);
	return 0;
}

int
ibv_query_device(struct ibv_context *c, struct ibv_device_attr *a)
{
	(void)c;
	*a = (struct ibv_device_attr){ .max_srq = verbs.no_srq ? 0 : 1024,
	    .max_srq_wr = 16384, .max_cqe = verbs.max_cqe, .max_cq = verbs.max_cq,
	    .phys_port_cnt = 1, .max_qp_rd_atom = 16, .max_qp_init_rd_atom = 16,
	    .max_qp_wr = 4096 };
	return 0;
}

int
ibv_query_port(struct ibv_context *c, uint8_t port, struct _compat_ibv_port_attr *out)
{
	struct ibv_port_attr *a = (void *)out;

	(void)port;
	a->state = verbs.dev[c->device - devices].down ? IBV_PORT_DOWN : IBV_PORT_ACTIVE;
	a->link_layer = IBV_LINK_LAYER_ETHERNET;
	a->active_mtu = IBV_MTU_4096;
	a->gid_tbl_len = 1;
	return 0;
}

ssize_t
_ibv_query_gid_table(struct ibv_context *c, struct ibv_gid_entry *out, size_t most,
    uint32_t flags, size_t size)
{
	uint8_t gid[16] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1 };

	(void)flags;
	assert(most > 0 && size == sizeof(*out));
	gid[15] = (uint8_t)(1 + (c->device - devices));
	*out = (struct ibv_gid_entry){ .port_num = 1, .gid_type = IBV_GID_TYPE_ROCE_V2 };
	memcpy(out->gid.raw, gid, sizeof(gid));
	return 1;
}

int
ibv_query_pkey(struct ibv_context *c, uint8_t port, int i, __be16 *out)
{
	(void)c, (void)port, (void)i, (void)out;
	return -1;
}

int
ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *out)
{
	struct ctx *c = ctx_of(context);
	uint64_t n;

	if (c->events_n == 0) {
		while (read(context->async_fd, &n, sizeof(n)) > 0)
			;
		run();
		errno = EAGAIN;
		return -1;
	}
	*out = c->events[0];
	memmove(c->events, c->events + 1, --c->events_n * sizeof(c->events[0]));
	return 0;
}

void
ibv_ack_async_event(struct ibv_async_event *e)
{
	(void)e;
}

/* ---- memory ---- */

struct ibv_pd *
ibv_alloc_pd(struct ibv_context *c)
{
	struct pd *p = calloc(1, sizeof(*p));

	assert(p != NULL);
	p->p.context = c;
	ctx_of(c)->pds++;
	return &p->p;
}

int
ibv_dealloc_pd(struct ibv_pd *p)
{
	assert(((struct pd *)p)->users == 0);
	ctx_of(p->context)->pds--;
	free(p);
	return 0;
}

struct ibv_mr *
ibv_reg_mr(struct ibv_pd *pd, void *p, size_t n, int access)
{
	struct mr *m;

	if (verbs.mrs >= verbs.mrs_max) {
		errno = ENOMEM;
		return NULL;
	}
	m = calloc(1, sizeof(*m));
	assert(m != NULL);
	m->m.context = pd->context;
	m->m.pd = pd;
	m->m.addr = p;
	m->m.length = n;
	m->m.lkey = m->m.rkey = next_key++;
	m->access = access;
	list_push_back(&mrs, &m->node);
	((struct pd *)pd)->users++;
	verbs.mrs++;
	return &m->m;
}

struct ibv_mr *
ibv_reg_mr_iova2(struct ibv_pd *pd, void *p, size_t n, uint64_t iova, unsigned access)
{
	assert(iova == (uintptr_t)p);
	return ibv_reg_mr(pd, p, n, (int)access);
}

int
ibv_dereg_mr(struct ibv_mr *mr)
{
	struct mr *m = (struct mr *)mr;

	((struct pd *)mr->pd)->users--;
	verbs.mrs--;
	list_remove(&m->node);
	free(m);
	return 0;
}

/* ---- queues ---- */

struct ibv_comp_channel *
ibv_create_comp_channel(struct ibv_context *c)
{
	struct channel *h = calloc(1, sizeof(*h));

	assert(h != NULL);
	h->c.context = c;
	h->c.fd = eventfd(0, EFD_NONBLOCK | EFD_SEMAPHORE);
	return &h->c;
}

int
ibv_destroy_comp_channel(struct ibv_comp_channel *c)
{
	assert(((struct channel *)c)->cqs == 0);
	close(c->fd);
	free(c);
	return 0;
}

struct ibv_cq *
ibv_create_cq(struct ibv_context *c, int n, void *ctx, struct ibv_comp_channel *ch, int vector)
{
	struct cq *q;

	(void)vector;
	if (n > verbs.max_cqe || verbs.cqs >= (unsigned)verbs.max_cq) {
		errno = n > verbs.max_cqe ? EINVAL : ENOMEM;
		return NULL;
	}
	q = calloc(1, sizeof(*q));
	assert(q != NULL);
	q->c.context = c;
	q->c.cqe = n;
	q->c.cq_context = ctx;
	q->c.channel = ch;
	((struct channel *)ch)->cqs++;
	list_push_back(&cqs, &q->node);
	verbs.cqs++;
	return &q->c;
}

int
ibv_resize_cq(struct ibv_cq *c, int n)
{
	if (verbs.no_resize)
		return ENOSYS;
	if (n > verbs.max_cqe)
		return EINVAL;
	assert((unsigned)n >= ((struct cq *)c)->n);
	c->cqe = n;
	return 0;
}

int
ibv_destroy_cq(struct ibv_cq *c)
{
	struct cq *q = (struct cq *)c;
	uint64_t one;

	assert(q->users == 0 && q->acked == 0);
	for (; q->events > 0; q->events--)
		assert(read(c->channel->fd, &one, sizeof(one)) == sizeof(one));
	((struct channel *)c->channel)->cqs--;
	list_remove(&q->node);
	verbs.cqs--;
	free(q->wcs);
	free(q);
	return 0;
}

int
ibv_get_cq_event(struct ibv_comp_channel *ch, struct ibv_cq **out, void **ctx)
{
	uint64_t one;

	if (read(ch->fd, &one, sizeof(one)) != sizeof(one))
		return -1;
	list_for_each(l, &cqs) {
		struct cq *q = list_entry(l, struct cq, node);

		if (q->c.channel != ch || q->events == 0)
			continue;
		q->events--;
		q->acked++;		/* is due */
		*out = &q->c;
		*ctx = q->c.cq_context;
		return 0;
	}
	assert(!"an event of nothing");
	return -1;
}

void
ibv_ack_cq_events(struct ibv_cq *c, unsigned n)
{
	struct cq *q = (struct cq *)c;

	assert(n <= q->acked);
	q->acked -= n;
}

struct ibv_srq *
ibv_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *a)
{
	struct srq *s = calloc(1, sizeof(*s));

	assert(s != NULL && !verbs.no_srq);
	s->s.context = pd->context;
	s->s.pd = pd;
	recvs_open(&s->recvs, a->attr.max_wr);
	return &s->s;
}

int
ibv_destroy_srq(struct ibv_srq *x)
{
	struct srq *s = (struct srq *)x;

	assert(s->users == 0);
	recvs_close(&s->recvs);
	free(s);
	return 0;
}

struct ibv_qp *
ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
	struct qp *q;

	if (a->cap.max_inline_data > verbs.inline_max || verbs.qps >= verbs.qps_max) {
		errno = verbs.qps >= verbs.qps_max ? ENOMEM : EINVAL;
		return NULL;
	}
	q = calloc(1, sizeof(*q));
	assert(q != NULL && a->qp_type == IBV_QPT_RC && a->sq_sig_all == 0);
	q->q.context = pd->context;
	q->q.pd = pd;
	q->q.send_cq = a->send_cq;
	q->q.recv_cq = a->recv_cq;
	q->q.srq = a->srq;
	q->q.qp_num = next_qpn++;
	q->todo_max = a->cap.max_send_wr;
	q->inline_max = a->cap.max_inline_data;
	list_init(&q->todo);
	recvs_open(&q->own, a->cap.max_recv_wr);
	((struct pd *)pd)->users++;
	((struct cq *)a->send_cq)->users++;
	((struct cq *)a->recv_cq)->users++;
	if (a->srq != NULL)
		((struct srq *)a->srq)->users++;
	list_push_back(&qps, &q->node);
	verbs.qps++;
	return &q->q;
}

int
ibv_modify_qp(struct ibv_qp *x, struct ibv_qp_attr *a, int mask)
{
	struct qp *q = (struct qp *)x;

	if (mask & IBV_QP_DEST_QPN)
		q->dest = a->dest_qp_num;
	if (mask & IBV_QP_ACCESS_FLAGS)
		q->access = a->qp_access_flags;
	if (mask & IBV_QP_STATE)
		q->state = a->qp_state;
	if (q->state == IBV_QPS_ERR)
		flush(q);
	return 0;
}

/* Drivers throw out what is in the queues of one that goes. */
static void
clean(struct ibv_cq *c, uint32_t qpn)
{
	struct cq *q = (struct cq *)c;
	unsigned k = 0;

	for (unsigned i = 0; i < q->n; i++)
		if (q->wcs[i].qp_num != qpn)
			q->wcs[k++] = q->wcs[i];
	q->n = k;
}

int
ibv_destroy_qp(struct ibv_qp *x)
{
	struct qp *q = (struct qp *)x;

	while (!list_empty(&q->todo))
		done_with(q, list_entry(q->todo.next, struct work, node));
	clean(x->send_cq, x->qp_num);
	clean(x->recv_cq, x->qp_num);
	((struct pd *)x->pd)->users--;
	((struct cq *)x->send_cq)->users--;
	((struct cq *)x->recv_cq)->users--;
	if (x->srq != NULL)
		((struct srq *)x->srq)->users--;
	recvs_close(&q->own);
	list_remove(&q->node);
	verbs.qps--;
	free(q);
	return 0;
}

const char *
ibv_wc_status_str(enum ibv_wc_status status)
{
	static char text[24];

	snprintf(text, sizeof(text), "status %d", (int)status);
	return text;
}
