/* SPDX-License-Identifier: MIT */
/* rdma_cm.c - how two ends that know each other by TCP come to a queue pair.
 *
 *   client  OFFERED --answer--> READY --go--> channel        (a "no" at any step: TCP)
 *   server  --offer--> ANSWERED --ready--> channel
 *
 * Words, little-endian: u8 step, u8 no (1: over TCP, and nothing follows), then
 *   offer   u8 ports, rows {u8 link, u8 mtu, u16 lid, gid[16]}
 *   answer  u8 which of them, end
 *   ready   end
 * with end = u32 qpn, u32 psn, u32 credits, u16 lid, u8 mtu, u8 reads, gid[16]. */
#include "net/rdma_impl.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

#define READS_MAX	16u
#define ACK_TIMEOUT	16u		/* 4.096 us * 2^16 = 268 ms */
#define RETRIES		7u
#define RNR_TIMER	12u		/* 0.64 ms; never needed, see net/credit.h */
#define HOPS		64u

enum step { OFFER = 1, ANSWER, READY, GO };

struct net_rdma_setup {
	struct rdma	 *r;
	struct rdma_chan *c;		/* NULL: none yet */
	enum step	  next;		/* that may come */
	struct rdma_end	  ours, peer;
};

/* ---- words ---- */

static uint32_t
say_no(enum step step, uint8_t *words)
{
	words[0] = (uint8_t)step;
	words[1] = 1;
	return 2;
}

uint32_t
net_rdma_decline(uint8_t *words)
{
	return say_no(ANSWER, words);
}

/* ---- ports ---- */

/* How well two ports suit each other; 0: not at all.  Same link layer and kind of address;
 * best the same subnet (InfiniBand says; of Ethernet we guess a /24 or a /64). */
static unsigned
match(const struct rdma_port *ours, uint8_t link, const uint8_t gid[GID])
{
	static const uint8_t v4[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
	bool four = memcmp(ours->gid.raw, v4, sizeof(v4)) == 0;

	if (ours->down || ours->dev->dead || ours->link != link)
		return 0;
	if (link == IBV_LINK_LAYER_INFINIBAND)
		return memcmp(ours->gid.raw, gid, 8) == 0 ? 2 : 1;
	if (four != (memcmp(gid, v4, sizeof(v4)) == 0))
		return 0;
	return memcmp(ours->gid.raw, gid, four ? 15 : 8) == 0 ? 2 : 1;
}

/* ---- queue pairs ---- */

static int
new_chan(struct rdma *r, struct rdma_port *port, struct rdma_chan **out)
{
	struct rdma_dev *d = port->dev;
	struct ibv_qp_init_attr qa = {
		.send_cq = d->cq, .recv_cq = d->cq, .srq = d->srq,
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = WRS, .max_send_sge = 1,
		    .max_inline_data = INLINE }
	};
	struct rdma_chan *c = calloc(1, sizeof(*c));
	uint32_t credits = net_credit_share(d->srq_size, d->promised, r->conf.credits);
	int rc;

	if (c == NULL)
		return -ENOMEM;
	if ((rc = net_rdma_reserve(d, credits)) != 0) {
		free(c);
		return rc;
	}
	if ((c->qp = ibv_create_qp(d->pd, &qa)) == NULL) {
		qa.cap.max_inline_data = 0;
		c->qp = ibv_create_qp(d->pd, &qa);
	}
	rc = c->qp == NULL ? (errno != 0 ? -errno : -ENOMEM) :
	    map_put(&d->chans, c->qp->qp_num, c);
	if (rc != 0) {
		if (c->qp != NULL)
			ibv_destroy_qp(c->qp);
		net_rdma_unreserve(d, credits);
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

/* To INIT, and what the peer must know.  Only who makes requests lends its memory. */
static int
prepare(struct net_rdma_setup *s, struct rdma_port *port)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_INIT, .port_num = port->port,
	    .qp_access_flags = s->next == ANSWER ?
	    IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ : 0 };
	unsigned reads = (unsigned)port->dev->attr.max_qp_rd_atom;
	int rc = new_chan(s->r, port, &s->c);

	if (rc != 0)
		return rc;
	rc = ibv_modify_qp(s->c->qp, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
	    IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
	s->ours = (struct rdma_end){ .qpn = s->c->qp->qp_num,
	    .psn = randombytes_random() & 0xffffff, .credits = s->c->credit.ours,
	    .lid = port->lid, .mtu = port->mtu,
	    .reads = (uint8_t)(reads < READS_MAX ? reads : READS_MAX) };
	memcpy(s->ours.gid, port->gid.raw, GID);
	return -rc;
}

/* To RTR and RTS: messages may come and go. */
static int
connect_qp(struct net_rdma_setup *s)
{
	const struct rdma_port *port = s->c->port;
	const struct rdma_end *p = &s->peer;
	unsigned reads = (unsigned)port->dev->attr.max_qp_init_rd_atom;
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_RTR, .dest_qp_num = p->qpn, .rq_psn = p->psn,
		.path_mtu = p->mtu < port->mtu ? p->mtu : port->mtu,
		.max_dest_rd_atomic = s->ours.reads, .min_rnr_timer = RNR_TIMER,
		.ah_attr = { .dlid = p->lid, .port_num = port->port,
		    .is_global = port->link != IBV_LINK_LAYER_INFINIBAND ||
			memcmp(port->gid.raw, p->gid, 8) != 0 || p->lid == 0,
		    .grh = { .sgid_index = port->gid_at,
			.hop_limit = HOPS } }
	};
	int rc;

	memcpy(a.ah_attr.grh.dgid.raw, p->gid, GID);
	rc = ibv_modify_qp(s->c->qp, &a, IBV_QP_STATE | IBV_QP_AV |
	    IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
	    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	if (rc != 0)
		return -rc;
	if (reads > p->reads)
		reads = p->reads;
	a = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = ACK_TIMEOUT,
	    .retry_cnt = RETRIES, .rnr_retry = RETRIES, .sq_psn = s->ours.psn,
	    .max_rd_atomic = (uint8_t)(reads < READS_MAX ? reads : READS_MAX) };
	rc = ibv_modify_qp(s->c->qp, &a, IBV_QP_STATE | IBV_QP_TIMEOUT |
	    IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
	    IBV_QP_MAX_QP_RD_ATOMIC);
	if (rc == 0)
		net_credit_init(&s->c->credit, s->ours.credits, p->credits);
	return -rc;
}

/* ---- the steps ---- */

static struct net_rdma_setup *
begin(struct rdma *r, enum step next)
{
	struct net_rdma_setup *s = calloc(1, sizeof(*s));

	if (s != NULL) {
		s->r = r;
		s->next = next;
	}
	return s;
}

int
net_rdma_offer(struct net_transport *t, struct net_rdma_setup **out, uint8_t *words,
    uint32_t *n)
{
	struct rdma *r = container_of(t, struct rdma, t);
	struct rdma_offered ports[PORTS_MAX];
	struct bytes_writer w;

	if ((*out = begin(r, ANSWER)) == NULL)
		return -ENOMEM;
	bytes_writer_init(&w, words, NET_RDMA_WORDS);
	bytes_put_u8(&w, OFFER);
	bytes_put_u8(&w, 0);
	for (unsigned i = 0; i < r->ports_n; i++) {
		const struct rdma_port *p = &r->ports[i];

		ports[i] = (struct rdma_offered){ .mtu = p->mtu, .lid = p->lid,
		    .link = p->down || p->dev->dead ? 0 : p->link };
		memcpy(ports[i].gid, p->gid.raw, GID);
	}
	net_rdma_ports_put(&w, ports, r->ports_n);
	*n = (uint32_t)bytes_written(&w);
	return 0;
}

/* The best of our ports for any of theirs; among equals the least used one. */
static struct rdma_port *
choose(struct rdma *r, const struct rdma_offered *theirs, unsigned n, uint8_t *which)
{
	struct rdma_port *port = NULL;
	unsigned best = 0;

	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < r->ports_n && theirs[i].link != 0; k++) {
			unsigned fit = match(&r->ports[k], theirs[i].link,
			    theirs[i].gid);

			if (fit == 0 || fit < best || (fit == best &&
			    r->ports[k].chans_n >= port->chans_n))
				continue;
			best = fit;
			port = &r->ports[k];
			*which = (uint8_t)i;
		}
	return port;
}

static int
declined(struct net_rdma_setup *s, const char *why, int rc)
{
	stat_add(&s->r->stat.refusals, 1);
	net_rdma_say(s->r, why, s->c != NULL ? s->c->dev->name : "-", rc);
	return 2;
}

static int
take_offer(struct net_rdma_setup *s, struct bytes_reader *b, uint8_t *words, uint32_t *n)
{
	struct rdma_offered theirs[OFFERED_MAX];
	unsigned n_theirs;
	struct rdma_port *port;
	struct bytes_writer w;
	uint8_t which = 0;
	int rc = -ENODEV;

	if (!net_rdma_ports_get(b, theirs, &n_theirs))
		return ERR_BAD_MESSAGE;
	port = choose(s->r, theirs, n_theirs, &which);
	if (port == NULL || (rc = prepare(s, port)) != 0) {
		*n = say_no(ANSWER, words);
		return declined(s, "no RDMA with a client, over TCP", rc);
	}
	bytes_writer_init(&w, words, NET_RDMA_WORDS);
	bytes_put_u8(&w, ANSWER);
	bytes_put_u8(&w, 0);
	bytes_put_u8(&w, which);
	net_rdma_end_put(&w, &s->ours);
	*n = (uint32_t)bytes_written(&w);
	s->next = READY;
	return 0;
}

static int
take_answer(struct net_rdma_setup *s, struct bytes_reader *b, uint8_t *words, uint32_t *n)
{
	uint8_t which = bytes_get_u8(b);
	struct bytes_writer w;
	int rc;

	if (!net_rdma_end_get(b, &s->peer) || which >= s->r->ports_n)
		return ERR_BAD_MESSAGE;
	if ((rc = prepare(s, &s->r->ports[which])) != 0 || (rc = connect_qp(s)) != 0) {
		*n = say_no(READY, words);
		return declined(s, "no RDMA with a server, over TCP", rc);
	}
	bytes_writer_init(&w, words, NET_RDMA_WORDS);
	bytes_put_u8(&w, READY);
	bytes_put_u8(&w, 0);
	net_rdma_end_put(&w, &s->ours);
	*n = (uint32_t)bytes_written(&w);
	s->next = GO;
	return 0;
}

static int
take_ready(struct net_rdma_setup *s, struct bytes_reader *b, uint8_t *words, uint32_t *n)
{
	int rc;

	if (!net_rdma_end_get(b, &s->peer))
		return ERR_BAD_MESSAGE;
	if ((rc = connect_qp(s)) != 0) {
		*n = say_no(GO, words);
		return declined(s, "no RDMA with a client, over TCP", rc);
	}
	words[0] = GO;
	words[1] = 0;
	*n = 2;
	return 1;
}

int
net_rdma_take(struct net_transport *t, struct net_rdma_setup **sp, const uint8_t *in,
    uint32_t in_n, uint8_t *words, uint32_t *out_n)
{
	struct rdma *r = container_of(t, struct rdma, t);
	struct net_rdma_setup *s = *sp;
	struct bytes_reader b;
	uint8_t step, no;

	*out_n = 0;
	if (s == NULL && (s = *sp = begin(r, OFFER)) == NULL)
		return -ENOMEM;
	bytes_reader_init(&b, in, in_n);
	step = bytes_get_u8(&b);
	no = bytes_get_u8(&b);
	if (b.failed || step != (uint8_t)s->next || no > 1)
		return ERR_BAD_MESSAGE;
	if (no == 1)
		return step == OFFER || !bytes_reader_done(&b) ? ERR_BAD_MESSAGE :
		    declined(s, "peer has no RDMA for us, over TCP", 0);
	switch (s->next) {
	case OFFER:
		return take_offer(s, &b, words, out_n);
	case ANSWER:
		return take_answer(s, &b, words, out_n);
	case READY:
		return take_ready(s, &b, words, out_n);
	case GO:
		return bytes_reader_done(&b) ? 1 : ERR_BAD_MESSAGE;
	}
	return ERR_BAD_MESSAGE;
}

struct net_chan *
net_rdma_chan(struct net_rdma_setup *s, struct net_chan *tcp)
{
	struct rdma_chan *c = s->c;

	net_rdma_adopt(c, tcp);
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
	free(s);
}
