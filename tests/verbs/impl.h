/* SPDX-License-Identifier: MIT */
/* impl.h - what verbs.c, where work is done, and objects.c, where it is done with what, share. */
#ifndef TESTS_VERBS_IMPL_H
#define TESTS_VERBS_IMPL_H

#include "tests/verbs/verbs.h"

#include "conf/list.h"

#undef ibv_get_device_list
#undef ibv_query_port
#undef ibv_reg_mr

#define EVENTS		16u

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
	bool early;			/* it has arrived, before READs that it stands behind */
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

extern struct ibv_device verbs_devices[VERBS_DEVICES];
/* All that there are. */
extern struct list verbs_ctxs, verbs_mrs, verbs_qps, verbs_cqs;
extern uint32_t verbs_next_qpn, verbs_next_key;

/* What a context does. */
int	verbs_poll_cq(struct ibv_cq *c, int most, struct ibv_wc *out);
int	verbs_notify(struct ibv_cq *c, int solicited);
int	verbs_post_send(struct ibv_qp *q, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
int	verbs_post_recv(struct ibv_qp *q, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
int	verbs_post_srq_recv(struct ibv_srq *s, struct ibv_recv_wr *wr,
	    struct ibv_recv_wr **bad);
/* Some of what is to be done. */
void	verbs_run(void);
/* It is at its end: what it has to do fails. */
void	verbs_flush(struct qp *q);
/* Forget what it has to do. */
void	verbs_forget(struct qp *q);

#endif
