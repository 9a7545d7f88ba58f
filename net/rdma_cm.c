/* SPDX-License-Identifier: MIT */
/* rdma_cm.c - how two ends that know each other by TCP come to a queue pair.
 *
 *   client  OFFERED --answer--> CALLING --> READY --go--> channel    (a "no" at any step: TCP)
 *   server  --offer--> ANSWERED --ready, called--> channel
 *
 * By hand: each end tells the other the numbers of its queue pair, which is faster than
 * librdmacm and needs nothing but verbs; the way is that of the TCP connection, or beside it.
 * iWARP cannot be had by hand: there the client calls (net/rdma_iw.c) before it is ready, and
 * the server goes on when it has been called, and told so.
 * What is said is in net/rdma_wire.h. */
#include "net/rdma_impl.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

#define ACK_TIMEOUT	16u		/* 4.096 us * 2^16 = 268 ms */
#define RETRIES		7u
#define RNR_TIMER	12u		/* 0.64 ms; never needed, see net/credit.h */
#define HOPS		64u
#define SLOW_MS		100u
#define REST		20u		/* times as long as finding no way took */
#define REST_MAX_NS	(30 * NS_PER_S)

struct net_rdma_setup {
	struct rdma	 *r;
	struct rdma_chan *c;		/* NULL: none yet */
	enum rdma_step	  next;		/* that may come */
	bool		  client;
	struct rdma_offered *offered;	/* client: what it offered */
	struct rdma_at  at;		/* ours, that is used */
	struct rdma_end	  ours, peer;
	net_rdma_said_fn *said;
	void		 *ctx;
	bool		  is_ready;	/* READY was said or has come */
	bool		  is_called;	/* server, iWARP: the call has come */
	int		  failed;	/* the call has, before READY came */
};

static const char *const whys[] = {
	[WHY_NOTHING] = "no reason given", [WHY_DEVICE] = "no port that can be used now",
	[WHY_LINK] = "no two ports with the same link layer",
	[WHY_ADDRESS] = "no two addresses of the same kind",
	[WHY_PARTITION] = "no partition in common: compare the P_Key tables",
	[WHY_FAILED] = "the device refused"
};

/* ---- words ---- */

static uint32_t
say_no(enum rdma_step step, enum rdma_why why, uint8_t *words)
{
	struct rdma_said no = { .step = (uint8_t)step, .no = true,
	    .why = (uint16_t)why };

	return net_rdma_said_put(words, NET_RDMA_WORDS, &no);
}

uint32_t
net_rdma_decline(uint8_t *words)
{
	return say_no(STEP_ANSWER, WHY_DEVICE, words);
}

/* ---- queue pairs ---- */

static int
new_chan(struct rdma *r, struct rdma_port *port, struct rdma_chan **out)
{
	struct rdma_dev *d = port->dev;
	uint32_t credits = net_credit_share(net_rdma_recvs_max(d), d->promised,
	    r->conf.credits);
	struct ibv_qp_init_attr qa = {
		.recv_cq = d->cqs[0].cq, .srq = d->srq,
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = WRS, .max_send_sge = 1,
		    .max_inline_data = INLINE,
		    .max_recv_wr = d->srq == NULL ? credits : 0,
		    .max_recv_sge = d->srq == NULL }
	};
	struct rdma_chan *c = calloc(1, sizeof(*c));
	int rc;

	if (c == NULL)
		return -ENOMEM;
	if ((rc = net_rdma_reserve(d, credits, &c->cq)) != 0) {
		free(c);
		return rc;
	}
	qa.send_cq = c->cq->cq;
	if ((c->qp = ibv_create_qp(d->pd, &qa)) == NULL) {
		qa.cap.max_inline_data = 0;
		c->qp = ibv_create_qp(d->pd, &qa);
	}
	rc = c->qp == NULL ? (errno != 0 ? -errno : -ENOMEM) :
	    map_put(&d->chans, c->qp->qp_num, c);
	if (rc != 0) {
		if (c->qp != NULL)
			ibv_destroy_qp(c->qp);
		net_rdma_unreserve(d, credits, c->cq);
		free(c);
		return rc;
	}
	net_rdma_chan_init(c, r, port);
	c->credit.ours = credits;
	c->inline_max = qa.cap.max_inline_data < INLINE ? qa.cap.max_inline_data :
	    INLINE;
	net_rdma_count(c, 1);
	*out = c;
	return 0;
}

static uint8_t
least(int ours, unsigned theirs)
{
	unsigned n = ours < 0 ? 0 : (unsigned)ours;

	if (n > theirs)
		n = theirs;
	return (uint8_t)(n < READS_MAX ? n : READS_MAX);
}

/* To INIT, and what the peer must know.  Only who makes requests lends its memory; on iWARP
 * also who READs. */
static int
prepare(struct net_rdma_setup *s, struct rdma_port *port, const struct rdma_at *at,
    unsigned key)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_INIT, .port_num = port->port,
	    .pkey_index = key < port->keys_n ? port->key_at[key] : 0,
	    .qp_access_flags = s->client || port->dev->iwarp ?
	    IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ : 0 };
	int rc = new_chan(s->r, port, &s->c);

	if (rc != 0)
		return rc;
	s->at = *at;
	rc = ibv_modify_qp(s->c->qp, &a, port->dev->iwarp ?
	    IBV_QP_STATE | IBV_QP_ACCESS_FLAGS : IBV_QP_STATE | IBV_QP_PKEY_INDEX |
	    IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
	s->ours = (struct rdma_end){ .credits = s->c->credit.ours, .lid = port->lid,
	    .mtu = port->mtu, .key = key < port->keys_n ? port->keys[key] : 0,
	    .reads = least(port->dev->attr.max_qp_rd_atom, READS_MAX) };
	if (!port->dev->iwarp) {
		s->ours.qpn = s->c->qp->qp_num;
		s->ours.psn = randombytes_random() & 0xffffff;
	}
	memcpy(s->ours.gid, at->gid, GID);
	return rc != 0 ? -rc : net_rdma_own_recvs(s->c);
}

/* On RoCE the kernel asks the network where the peer is, and a dead one keeps us waiting for a
 * second.  So no more than a part of the time goes into that; connections made meanwhile stay on
 * TCP, and move later (net/peer.c). */
static void
took(struct rdma *r, uint64_t began_ns, int rc)
{
	uint64_t ns, rest_ns;

	loop_touch(r->loop);
	ns = clock_now(r->clock) - began_ns;
	if (rc == 0 || ns < SLOW_MS * NS_PER_MS)
		return;
	/* More was not the kernel's: we stood still. */
	rest_ns = REST * ns < REST_MAX_NS ? REST * ns : REST_MAX_NS;
	r->rest_until_ns = began_ns + ns + rest_ns;
	log_warn(r->log, "no way to a peer over RDMA, new connections over TCP",
	    "ms=%llu s=%llu why=%s", (unsigned long long)(ns / NS_PER_MS),
	    (unsigned long long)(rest_ns / NS_PER_S), err_name(-rc));
}

/* To RTR and RTS: messages may come and go. */
static int
connect_qp(struct net_rdma_setup *s)
{
	const struct rdma_port *port = s->c->port;
	const struct rdma_end *p = &s->peer;
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_RTR, .dest_qp_num = p->qpn, .rq_psn = p->psn,
		.path_mtu = p->mtu < port->mtu ? p->mtu : port->mtu,
		.max_dest_rd_atomic = s->ours.reads, .min_rnr_timer = RNR_TIMER,
		.ah_attr = { .dlid = p->lid, .port_num = port->port,
		    .sl = s->r->conf.service_level,
		    .is_global = net_rdma_by_gid(port->link, s->at.gid, p->gid,
			p->lid),
		    .grh = { .sgid_index = s->at.index, .hop_limit = HOPS,
			.traffic_class = s->r->conf.traffic_class } }
	};
	uint64_t began_ns;
	int rc;

	memcpy(a.ah_attr.grh.dgid.raw, p->gid, GID);
	loop_touch(s->r->loop);
	began_ns = clock_now(s->r->clock);
	rc = ibv_modify_qp(s->c->qp, &a, IBV_QP_STATE | IBV_QP_AV |
	    IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
	    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	took(s->r, began_ns, rc);
	if (rc != 0)
		return -rc;
	a = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = ACK_TIMEOUT,
	    .retry_cnt = RETRIES, .rnr_retry = RETRIES, .sq_psn = s->ours.psn,
	    .max_rd_atomic = least(port->dev->attr.max_qp_init_rd_atom, p->reads) };
	rc = ibv_modify_qp(s->c->qp, &a, IBV_QP_STATE | IBV_QP_TIMEOUT |
	    IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
	    IBV_QP_MAX_QP_RD_ATOMIC);
	return -rc;
}

/* ---- the steps ---- */

static struct net_rdma_setup *
begin(struct rdma *r, enum rdma_step next, net_rdma_said_fn *said, void *ctx)
{
	struct net_rdma_setup *s = calloc(1, sizeof(*s));

	if (s != NULL) {
		s->r = r;
		s->next = next;
		s->said = said;
		s->ctx = ctx;
	}
	return s;
}

/* What the ports of @r are now. */
static void
offer_ports(const struct rdma *r, struct rdma_offered *o)
{
	for (unsigned i = 0; i < r->ports_n; i++) {
		const struct rdma_port *p = &r->ports[i];
		struct rdma_offered_port *to = &o->ports[o->ports_n++];

		to->link = net_rdma_is_up(p) ? p->link : LINK_NONE;
		to->mtu = p->mtu;
		to->lid = p->lid;
		to->used = net_rdma_used(p) < UINT16_MAX ? (uint16_t)net_rdma_used(p) :
		    UINT16_MAX;
		to->keys_n = (uint8_t)p->keys_n;
		memcpy(to->keys, p->keys, sizeof(to->keys));
	}
	/* The best of each first: there may be more than there is room for. */
	for (unsigned k = 0; k < PORT_ADDRS; k++)
		for (unsigned i = 0; i < r->ports_n && o->addrs_n < OFFERED_ADDRS; i++) {
			if (k >= r->ports[i].addrs_n)
				continue;
			o->addrs[o->addrs_n].port = (uint8_t)i;
			memcpy(o->addrs[o->addrs_n++].gid, r->ports[i].addrs[k].gid, GID);
		}
}

int
net_rdma_offer(struct net_transport *t, struct net_rdma_setup **out, net_rdma_said_fn *said,
    void *ctx, uint8_t *words, uint32_t *n)
{
	struct rdma *r = container_of(t, struct rdma, t);
	struct net_rdma_setup *s = begin(r, STEP_ANSWER, said, ctx);

	if (s == NULL || (s->offered = calloc(1, sizeof(*s->offered))) == NULL) {
		free(s);
		return -ENOMEM;
	}
	s->client = true;
	offer_ports(r, s->offered);
	*n = net_rdma_offer_put(words, NET_RDMA_WORDS, s->offered);
	assert(*n > 0);			/* all of it has room */
	*out = s;
	return 0;
}

/* The best of our ports and addresses for theirs.  0 or WHY_*. */
static int
choose(struct rdma *r, const struct rdma_offered *theirs, const struct net_addr *peer,
    struct rdma_choice *choice, struct rdma_port **port, const struct rdma_at **at)
{
	struct rdma_local ours[PORTS_MAX * PORT_ADDRS];
	struct {
		struct rdma_port *port;
		struct rdma_at *at;
	} of[PORTS_MAX * PORT_ADDRS];
	uint8_t gid[GID];
	unsigned n = 0;
	int why;

	for (unsigned i = 0; i < r->ports_n; i++)
		for (unsigned k = 0; k < r->ports[i].addrs_n; k++) {
			struct rdma_port *p = &r->ports[i];
			struct rdma_local *o = &ours[n];

			*o = (struct rdma_local){ .link = net_rdma_is_up(p) ? p->link : LINK_NONE,
			    .prefix = p->addrs[k].prefix, .used = net_rdma_used(p),
			    .keys_n = (uint8_t)p->keys_n };
			memcpy(o->keys, p->keys, sizeof(o->keys));
			memcpy(o->gid, p->addrs[k].gid, GID);
			of[n].port = p;
			of[n++].at = &p->addrs[k];
		}
	why = net_rdma_choose(ours, n, theirs, net_rdma_gid_of(peer, gid) ? gid : NULL,
	    choice);
	if (why == 0) {
		*port = of[choice->ours].port;
		*at = of[choice->ours].at;
	}
	return why;
}

/* @rc: why, when our device has a reason; else @why. */
static int
declined(struct net_rdma_setup *s, const char *what, unsigned why, int rc)
{
	const char *dev = s->c != NULL ? s->c->dev->name : "-";

	stat_add(&s->r->stat.refusals, 1);
	if (rc != 0)
		net_rdma_say(s->r, what, dev, rc);
	else
		net_rdma_say_why(s->r, what, dev,
		    whys[why < sizeof(whys) / sizeof(whys[0]) ? why : WHY_NOTHING]);
	return 2;
}

/* No @step comes: ours is @rc, if not 0. */
static int
give_up(struct net_rdma_setup *s, enum rdma_step step, enum rdma_why why, int rc,
    uint8_t *words, uint32_t *n)
{
	*n = say_no(step, why, words);
	return declined(s, s->client ? "no RDMA with a server, over TCP" :
	    "no RDMA with a client, over TCP", why, rc);
}

/* The client is ready; so are we. */
static int
say_go(struct net_rdma_setup *s, uint8_t *words, uint32_t *n)
{
	struct rdma_said go = { .step = STEP_GO };

	net_credit_init(&s->c->credit, s->ours.credits, s->peer.credits);
	*n = net_rdma_said_put(words, NET_RDMA_WORDS, &go);
	return 1;
}

/* A server was called, or nobody came through. */
static void
was_called(void *ctx, int rc)
{
	struct net_rdma_setup *s = ctx;
	uint8_t words[NET_RDMA_WORDS];
	uint32_t n;

	s->is_called = rc == 0;
	s->failed = rc;
	if (!s->is_ready)
		return;			/* the client says so, or that it gives up */
	rc = rc == 0 ? say_go(s, words, &n) :
	    give_up(s, STEP_GO, WHY_FAILED, rc, words, &n);
	s->said(s->ctx, rc, words, n);
}

static int
take_offer(struct net_rdma_setup *s, const uint8_t *in, uint32_t in_n,
    const struct net_addr *peer, uint8_t *words, uint32_t *n)
{
	struct rdma_said answer = { .step = STEP_ANSWER, .has_end = true };
	const struct rdma_at *at;
	struct rdma_offered theirs;
	struct rdma_choice choice;
	struct rdma_port *port;
	int rc, why;

	if (!net_rdma_offer_get(in, in_n, &theirs))
		return ERR_BAD_MESSAGE;
	if ((why = choose(s->r, &theirs, peer, &choice, &port, &at)) != 0)
		return give_up(s, STEP_ANSWER, (enum rdma_why)why, 0, words, n);
	rc = prepare(s, port, at, choice.key);
	if (rc == 0 && port->dev->iwarp) {
		answer.has_call = true;
		answer.port = at->listens_at;
		rc = net_rdma_iw_await(s->c, was_called, s, answer.token);
	}
	if (rc != 0)
		return give_up(s, STEP_ANSWER, WHY_FAILED, rc, words, n);
	answer.which = (uint16_t)choice.theirs;
	answer.end = s->ours;
	*n = net_rdma_said_put(words, NET_RDMA_WORDS, &answer);
	s->next = STEP_READY;
	return 0;
}

static int
say_ready(struct net_rdma_setup *s, uint8_t *words, uint32_t *n)
{
	struct rdma_said ready = { .step = STEP_READY, .has_end = true,
	    .end = s->ours };

	net_credit_init(&s->c->credit, s->ours.credits, s->peer.credits);
	s->is_ready = true;
	*n = net_rdma_said_put(words, NET_RDMA_WORDS, &ready);
	return 0;
}

/* A client has come through, or has not. */
static void
has_called(void *ctx, int rc)
{
	struct net_rdma_setup *s = ctx;
	uint8_t words[NET_RDMA_WORDS];
	uint32_t n;

	rc = rc == 0 ? say_ready(s, words, &n) :
	    give_up(s, STEP_READY, WHY_FAILED, rc, words, &n);
	s->said(s->ctx, rc, words, n);
}

/* Our address that the server has chosen, if it is still there. */
static struct rdma_at *
find_addr(struct rdma *r, const struct rdma_offered_addr *a, struct rdma_port **port)
{
	*port = &r->ports[a->port];
	if (!net_rdma_is_up(*port))
		return NULL;
	for (unsigned i = 0; i < (*port)->addrs_n; i++)
		if (memcmp((*port)->addrs[i].gid, a->gid, GID) == 0)
			return &(*port)->addrs[i];
	return NULL;
}

static int
take_answer(struct net_rdma_setup *s, const struct rdma_said *in, uint8_t *words,
    uint32_t *n)
{
	struct rdma_port *port;
	struct rdma_at *at;
	int key = 0, rc;

	if (!in->has_end || in->which >= s->offered->addrs_n)
		return ERR_BAD_MESSAGE;
	at = find_addr(s->r, &s->offered->addrs[in->which], &port);
	if (at == NULL)
		return give_up(s, STEP_READY, WHY_ADDRESS, 0, words, n);
	if (port->dev->iwarp != in->has_call)
		return ERR_BAD_MESSAGE;
	if (port->link == LINK_IB &&
	    (key = net_rdma_key(port->keys, port->keys_n, &in->end.key, 1)) < 0)
		return give_up(s, STEP_READY, WHY_PARTITION, 0, words, n);
	s->peer = in->end;
	if ((rc = prepare(s, port, at, (unsigned)key)) == 0)
		rc = port->dev->iwarp ? net_rdma_iw_call(s->c, at->gid, s->peer.gid,
		    in->port, in->token, has_called, s) : connect_qp(s);
	if (rc != 0)
		return give_up(s, STEP_READY, WHY_FAILED, rc, words, n);
	s->next = STEP_GO;
	return port->dev->iwarp ? 0 : say_ready(s, words, n);
}

static int
take_ready(struct net_rdma_setup *s, const struct rdma_said *in, uint8_t *words,
    uint32_t *n)
{
	bool by_call = s->c->dev->iwarp;
	int rc = s->failed;

	if (!in->has_end || s->is_ready)
		return ERR_BAD_MESSAGE;
	s->peer = in->end;
	s->is_ready = true;
	if (!by_call)
		rc = connect_qp(s);
	if (rc != 0)
		return give_up(s, STEP_GO, WHY_FAILED, rc, words, n);
	return by_call && !s->is_called ? 0 : say_go(s, words, n);
}

int
net_rdma_take(struct net_transport *t, struct net_rdma_setup **sp, net_rdma_said_fn *said,
    void *ctx, const struct net_addr *peer, const uint8_t *in, uint32_t in_n,
    uint8_t *words, uint32_t *out_n)
{
	struct rdma *r = container_of(t, struct rdma, t);
	struct net_rdma_setup *s = *sp;
	struct rdma_said msg;

	*out_n = 0;
	if (s == NULL && (s = *sp = begin(r, STEP_OFFER, said, ctx)) == NULL)
		return -ENOMEM;
	if (s->next == STEP_OFFER)
		return take_offer(s, in, in_n, peer, words, out_n);
	if (!net_rdma_said_get(in, in_n, &msg) || msg.step != (uint8_t)s->next)
		return ERR_BAD_MESSAGE;
	if (msg.no)
		return declined(s, "peer has no RDMA for us, over TCP", msg.why, 0);
	if (msg.step == STEP_ANSWER)
		return take_answer(s, &msg, words, out_n);
	if (msg.step == STEP_READY)
		return take_ready(s, &msg, words, out_n);
	return s->is_ready ? 1 : ERR_BAD_MESSAGE;	/* a GO before we were ready */
}

struct net_chan *
net_rdma_chan(struct net_rdma_setup *s, struct net_chan *tcp)
{
	struct rdma_chan *c = s->c;

	net_rdma_adopt(c, tcp);
	free(s->offered);
	free(s);
	return &c->c;
}

void
net_rdma_abandon(struct net_rdma_setup *s)
{
	if (s == NULL)
		return;
	if (s->c != NULL) {
		net_rdma_stop(s->c);
		net_rdma_put(s->c);
	}
	free(s->offered);
	free(s);
}
