/* SPDX-License-Identifier: MIT */
/* objects.c - devices, memory and queues, how they are made and go: nothing goes before what
 * was made of it. */
#include "tests/verbs/impl.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct ctx *
ctx_of(struct ibv_context *c)
{
	return (struct ctx *)c;
}

#define KEYS	(sizeof(verbs.dev[0].keys) / sizeof(verbs.dev[0].keys[0]))

static unsigned
number_of(const struct ibv_context *c)
{
	return (unsigned)(c->device - verbs_devices);
}

/* ---- devices ---- */

static bool forks_told;

int
ibv_fork_init(void)
{
	forks_told = true;
	return 0;
}

struct ibv_device **
ibv_get_device_list(int *n)
{
	assert(forks_told);		/* it must come before all else */
	struct ibv_device **all = calloc(VERBS_DEVICES + 1, sizeof(*all));
	int k = 0;

	for (unsigned i = 0; i < VERBS_DEVICES; i++)
		if (!verbs.dev[i].gone)
			all[k++] = &verbs_devices[i];
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
	verbs.opens++;
	c->c.device = d;
	c->c.async_fd = eventfd(0, EFD_NONBLOCK);
	c->c.ops.poll_cq = verbs_poll_cq;
	c->c.ops.req_notify_cq = verbs_notify;
	c->c.ops.post_send = verbs_post_send;
	c->c.ops.post_recv = verbs_post_recv;
	c->c.ops.post_srq_recv = verbs_post_srq_recv;
	list_push_back(&verbs_ctxs, &c->node);
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
	    .max_srq_wr = verbs.max_srq_wr, .max_cqe = verbs.max_cqe, .max_cq = verbs.max_cq,
	    .phys_port_cnt = 1, .max_qp_rd_atom = 16, .max_qp_init_rd_atom = 16,
	    .max_qp_wr = 4096 };
	return 0;
}

int
ibv_query_port(struct ibv_context *c, uint8_t port, struct _compat_ibv_port_attr *out)
{
	struct ibv_port_attr *a = (void *)out;
	unsigned i = number_of(c);

	(void)port;
	a->state = verbs.dev[i].down ? IBV_PORT_DOWN : IBV_PORT_ACTIVE;
	a->link_layer = verbs.dev[i].ib ? IBV_LINK_LAYER_INFINIBAND : IBV_LINK_LAYER_ETHERNET;
	a->active_mtu = verbs.dev[i].mtu;
	a->lid = verbs.dev[i].lid;
	a->gid_tbl_len = 2;
	a->pkey_tbl_len = KEYS;
	return 0;
}

ssize_t
_ibv_query_gid_table(struct ibv_context *c, struct ibv_gid_entry *out, size_t most,
    uint32_t flags, size_t size)
{
	static const uint8_t none[16];
	unsigned i = number_of(c);
	ssize_t n = 0;

	(void)flags;
	assert(most >= 2 && size == sizeof(*out));
	for (unsigned k = 0; k < 2; k++) {
		if (memcmp(verbs.dev[i].gids[k], none, sizeof(none)) == 0)
			continue;
		out[n] = (struct ibv_gid_entry){ .port_num = 1, .gid_index = k,
		    .gid_type = verbs.dev[i].ib ? IBV_GID_TYPE_IB : IBV_GID_TYPE_ROCE_V2 };
		memcpy(out[n++].gid.raw, verbs.dev[i].gids[k], 16);
	}
	return n;
}

int
ibv_query_pkey(struct ibv_context *c, uint8_t port, int i, __be16 *out)
{
	(void)port;
	if (i < 0 || i >= (int)KEYS)
		return -1;
	*out = htons(verbs.dev[number_of(c)].keys[i]);
	return 0;
}

int
ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *out)
{
	struct ctx *c = ctx_of(context);
	uint64_t n;

	if (c->events_n == 0) {
		while (read(context->async_fd, &n, sizeof(n)) > 0)
			;
		verbs_run();
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
	m->m.lkey = m->m.rkey = verbs_next_key++;
	m->access = access;
	list_push_back(&verbs_mrs, &m->node);
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
	list_push_back(&verbs_cqs, &q->node);
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
	list_for_each(l, &verbs_cqs) {
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
	q->q.qp_num = verbs_next_qpn++;
	q->todo_max = a->cap.max_send_wr;
	q->inline_max = a->cap.max_inline_data;
	list_init(&q->todo);
	recvs_open(&q->own, a->cap.max_recv_wr);
	((struct pd *)pd)->users++;
	((struct cq *)a->send_cq)->users++;
	((struct cq *)a->recv_cq)->users++;
	if (a->srq != NULL)
		((struct srq *)a->srq)->users++;
	list_push_back(&verbs_qps, &q->node);
	verbs.qps++;
	return &q->q;
}

int
ibv_modify_qp(struct ibv_qp *x, struct ibv_qp_attr *a, int mask)
{
	struct qp *q = (struct qp *)x;
	struct ibv_qp_attr *way = &verbs.way[number_of(x->context)];

	if ((mask & IBV_QP_AV) && verbs.lost_ms > 0) {
		verbs.lost++;
		usleep(verbs.lost_ms * 1000);
		return ETIMEDOUT;
	}
	if (mask & IBV_QP_PKEY_INDEX)
		way->pkey_index = a->pkey_index;
	if (mask & IBV_QP_AV)
		way->ah_attr = a->ah_attr;
	if (mask & IBV_QP_PATH_MTU)
		way->path_mtu = a->path_mtu;
	if (mask & IBV_QP_DEST_QPN)
		q->dest = a->dest_qp_num;
	if (mask & IBV_QP_ACCESS_FLAGS)
		q->access = a->qp_access_flags;
	if (mask & IBV_QP_STATE)
		q->state = a->qp_state;
	if (q->state == IBV_QPS_ERR)
		verbs_flush(q);
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

	verbs_forget(q);
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
