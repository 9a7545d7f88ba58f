/* SPDX-License-Identifier: MIT */
/* rdma_iw.c - iWARP: there librdmacm connects queue pairs, for below them is a TCP connection
 * of the device's own.
 *
 *   client  RESOLVING -> ROUTING -> CALLING -> UP      any failure, or too long: over TCP
 *   server  WAITING -> ACCEPTING -> UP
 *
 * 1. A server gives out a token over the TCP connection on which both ends have proved
 *    themselves; who calls with it gets the queue pair that was made then.  A token is taken
 *    once, and only while that set-up waits; other callers are refused.
 * 2. The queue pair is not made by librdmacm, which has contexts of its own: it is told a
 *    number.  So the device that an id is bound to must be ours, or the number means another
 *    queue pair.
 * 3. Nothing blocks: the event channel is polled by the loop; events are copied and acked
 *    before they are looked at, so that destroying an id waits for nobody.
 * 4. The called must not speak before the caller has (RFC 5044): our servers answer, no more. */
#include "net/rdma_impl.h"

#include <assert.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define STEP_MS		500		/* to find the way */
#define CALL_MS		1500u		/* all of it */
#define BACKLOG		1024

enum iw_state { WAITING, ACCEPTING, RESOLVING, ROUTING, CALLING, UP, FAILED };

struct rdma_iw {
	struct rdma	  *r;
	struct rdma_chan  *chan;
	struct rdma_cm_id *id;		/* NULL: nobody has called yet */
	enum iw_state	   state;
	uint8_t		   token[TOKEN];
	struct clock_timer late;
	net_rdma_iw_fn	  *fn;		/* NULL: told */
	void		  *ctx;
};

/* ---- addresses ---- */

static void
sockaddr_of(const uint8_t gid[GID], uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;
	struct sockaddr_in *four = (struct sockaddr_in *)out;

	memset(out, 0, sizeof(*out));
	if (net_rdma_is_ipv4(gid)) {
		four->sin_family = AF_INET;
		four->sin_port = htons(port);
		memcpy(&four->sin_addr, gid + 12, 4);
	} else {
		six->sin6_family = AF_INET6;
		six->sin6_port = htons(port);
		memcpy(&six->sin6_addr, gid, GID);
	}
}

static unsigned
ones(const uint8_t *p, unsigned n)
{
	unsigned bits = 0;

	for (unsigned i = 0; i < n; i++)
		bits += (unsigned)__builtin_popcount(p[i]);
	return bits;
}

bool
net_rdma_if_addr(const struct ifaddrs *i, uint8_t gid[GID], uint8_t *prefix)
{
	struct net_addr a = { .kind = NET_ADDR_NONE };

	if (i->ifa_addr == NULL || i->ifa_netmask == NULL)
		return false;
	if (i->ifa_addr->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)i->ifa_addr;
		const struct sockaddr_in *mask = (const void *)i->ifa_netmask;

		a.kind = NET_ADDR_TCP4;
		memcpy(a.ip, &in->sin_addr, 4);
		*prefix = (uint8_t)(96 + ones((const void *)&mask->sin_addr, 4));
	} else if (i->ifa_addr->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in = (const void *)i->ifa_addr;
		const struct sockaddr_in6 *mask = (const void *)i->ifa_netmask;

		a.kind = NET_ADDR_TCP6;
		memcpy(a.ip, &in->sin6_addr, GID);
		*prefix = (uint8_t)ones((const void *)&mask->sin6_addr, GID);
	}
	return net_rdma_gid_of(&a, gid);
}

/* Which of our ports is @id bound to? */
static struct rdma_port *
port_of(struct rdma *r, const struct rdma_cm_id *id)
{
	for (unsigned i = 0; id->verbs != NULL && i < r->ports_n; i++) {
		struct rdma_port *p = &r->ports[i];

		if (p->dev != NULL && p->link == LINK_IWARP && !p->dev->dead &&
		    p->port == id->port_num &&
		    strcmp(p->dev->name, ibv_get_device_name(id->verbs->device)) == 0)
			return p;
	}
	return NULL;
}

static bool
is_listening(const struct rdma *r, const uint8_t gid[GID])
{
	for (unsigned i = 0; i < r->ports_n; i++)
		for (unsigned k = 0; k < r->ports[i].addrs_n; k++)
			if (r->ports[i].addrs[k].listener != NULL &&
			    memcmp(r->ports[i].addrs[k].gid, gid, GID) == 0)
				return true;
	return false;
}

/* The port that has this address can be called by it from now on.  Whatever fails, others will
 * do: it is not listed. */
static void
listen_at(struct rdma *r, const uint8_t gid[GID], uint8_t prefix)
{
	struct sockaddr_storage at;
	struct rdma_cm_id *id;
	struct rdma_port *p;

	sockaddr_of(gid, 0, &at);
	if (rdma_create_id(r->cm, &id, NULL, RDMA_PS_TCP) != 0)
		return;
	if (rdma_bind_addr(id, (struct sockaddr *)&at) != 0 ||
	    (p = port_of(r, id)) == NULL || p->addrs_n == PORT_ADDRS ||
	    !net_rdma_named(r->conf.devices, p->dev->name, p->port, gid) ||
	    rdma_listen(id, BACKLOG) != 0) {
		rdma_destroy_id(id);
		return;
	}
	p->addrs[p->addrs_n] = (struct rdma_at){ .prefix = prefix, .listener = id,
	    .listens_at = ntohs(rdma_get_src_port(id)) };
	memcpy(p->addrs[p->addrs_n++].gid, gid, GID);
}

/* Addresses that the box has no more go. */
static void
forget_old(struct rdma_port *p, const struct ifaddrs *all)
{
	unsigned n = 0;

	for (unsigned i = 0; i < p->addrs_n; i++) {
		uint8_t gid[GID], prefix;
		bool is = false;

		for (const struct ifaddrs *a = all; a != NULL && !is; a = a->ifa_next)
			is = net_rdma_if_addr(a, gid, &prefix) &&
			    memcmp(gid, p->addrs[i].gid, GID) == 0;
		if (is)
			p->addrs[n++] = p->addrs[i];
		else
			rdma_destroy_id(p->addrs[i].listener);
	}
	p->addrs_n = n;
}

void
net_rdma_iw_listen(struct rdma *r)
{
	struct ifaddrs *all = NULL;

	if (r->cm == NULL || getifaddrs(&all) != 0)
		return;
	for (unsigned i = 0; i < r->ports_n; i++)
		if (r->ports[i].link == LINK_IWARP)
			forget_old(&r->ports[i], all);
	for (struct ifaddrs *i = all; i != NULL; i = i->ifa_next) {
		uint8_t gid[GID], prefix;

		if (net_rdma_if_addr(i, gid, &prefix) && net_rdma_rank(gid) > 1 &&
		    !is_listening(r, gid))
			listen_at(r, gid, prefix);
	}
	freeifaddrs(all);
}

void
net_rdma_iw_unlisten(struct rdma_port *p)
{
	for (unsigned i = 0; i < p->addrs_n; i++)
		if (p->addrs[i].listener != NULL)
			rdma_destroy_id(p->addrs[i].listener);
	p->addrs_n = 0;
}

/* ---- the end of a set-up ---- */

static void
tell(struct rdma_iw *w, int rc)
{
	net_rdma_iw_fn *fn = w->fn;

	w->state = rc == 0 ? UP : FAILED;
	w->fn = NULL;
	clock_timer_stop(w->r->clock, &w->late);
	fn(w->ctx, rc);			/* may free @w */
}

static void
is_late(struct clock_timer *t)
{
	tell(container_of(t, struct rdma_iw, late), -ETIMEDOUT);
}

static struct rdma_iw *
begin(struct rdma_chan *c, enum iw_state state, net_rdma_iw_fn *fn, void *ctx)
{
	struct rdma_iw *w = calloc(1, sizeof(*w));

	assert(c->iw == NULL);
	if (w == NULL)
		return NULL;
	*w = (struct rdma_iw){ .r = c->r, .chan = c, .state = state, .fn = fn,
	    .ctx = ctx };
	c->iw = w;
	return w;
}

static uint64_t
key_of(const uint8_t token[TOKEN])
{
	return bytes_from_be64(token);
}

static void
forget_token(struct rdma_iw *w)
{
	if (map_get(&w->r->tokens, key_of(w->token)) == w)
		map_del(&w->r->tokens, key_of(w->token));
}

void
net_rdma_iw_end(struct rdma_chan *c)
{
	struct rdma_iw *w = c->iw;

	if (w == NULL)
		return;
	c->iw = NULL;
	forget_token(w);
	clock_timer_stop(w->r->clock, &w->late);
	if (w->id != NULL)
		rdma_destroy_id(w->id);
	free(w);
}

/* What both ends say of their queue pairs. */
static struct rdma_conn_param
param_of(const struct rdma_iw *w)
{
	const struct rdma_chan *c = w->chan;
	int in = c->dev->attr.max_qp_rd_atom, out = c->dev->attr.max_qp_init_rd_atom;

	return (struct rdma_conn_param){
	    .responder_resources = (uint8_t)(in < (int)READS_MAX ? in : (int)READS_MAX),
	    .initiator_depth = (uint8_t)(out < (int)READS_MAX ? out : (int)READS_MAX),
	    .retry_count = 7, .rnr_retry_count = 7, .srq = c->dev->srq != NULL,
	    .qp_num = c->qp->qp_num };
}

/* ---- server ---- */

int
net_rdma_iw_await(struct rdma_chan *c, net_rdma_iw_fn *fn, void *ctx, uint8_t token[TOKEN])
{
	struct rdma_iw *w = begin(c, WAITING, fn, ctx);

	if (w == NULL)
		return -ENOMEM;
	do
		randombytes_buf(w->token, TOKEN);
	while (map_get(&c->r->tokens, key_of(w->token)) != NULL);
	memcpy(token, w->token, TOKEN);
	return map_put(&c->r->tokens, key_of(w->token), w);
}

static void
refuse(struct rdma_cm_id *id)
{
	rdma_reject(id, NULL, 0);
	rdma_destroy_id(id);
}

/* Somebody calls, who serves so many READs at a time; 0: it did not say. */
static void
called(struct rdma *r, struct rdma_cm_id *id, const uint8_t token[TOKEN], uint8_t reads)
{
	struct rdma_iw *w = map_get(&r->tokens, key_of(token));
	struct rdma_conn_param param;

	id->context = NULL;
	if (w == NULL || w->state != WAITING ||
	    sodium_memcmp(w->token, token, TOKEN) != 0) {
		refuse(id);
		return;
	}
	forget_token(w);
	if (port_of(r, id) != w->chan->port) {
		refuse(id);
		tell(w, -EXDEV);
		return;
	}
	w->id = id;
	id->context = w;
	w->state = ACCEPTING;
	param = param_of(w);
	if (reads > 0 && param.initiator_depth > reads)
		param.initiator_depth = reads;
	if (rdma_accept(id, &param) != 0)
		tell(w, errno != 0 ? -errno : -EIO);
}

/* ---- client ---- */

int
net_rdma_iw_call(struct rdma_chan *c, const uint8_t from[GID], const uint8_t to[GID],
    uint16_t port, const uint8_t token[TOKEN], net_rdma_iw_fn *fn, void *ctx)
{
	struct rdma_iw *w = begin(c, RESOLVING, fn, ctx);
	struct sockaddr_storage src, dst;

	if (w == NULL)
		return -ENOMEM;
	memcpy(w->token, token, TOKEN);
	sockaddr_of(from, 0, &src);
	sockaddr_of(to, port, &dst);
	if (rdma_create_id(c->r->cm, &w->id, w, RDMA_PS_TCP) != 0 ||
	    rdma_resolve_addr(w->id, (struct sockaddr *)&src, (struct sockaddr *)&dst,
	    STEP_MS) != 0)
		return errno != 0 ? -errno : -EIO;
	clock_timer_start(c->r->clock, &w->late,
	    clock_now(c->r->clock) + CALL_MS * NS_PER_MS, is_late);
	return 0;
}

static void
resolved(struct rdma_iw *w)
{
	w->state = ROUTING;
	if (port_of(w->r, w->id) != w->chan->port)
		tell(w, -EXDEV);
	else if (rdma_resolve_route(w->id, STEP_MS) != 0)
		tell(w, errno != 0 ? -errno : -EIO);
}

static void
routed(struct rdma_iw *w)
{
	struct rdma_conn_param param = param_of(w);

	w->state = CALLING;
	param.private_data = w->token;
	param.private_data_len = TOKEN;
	if (rdma_connect(w->id, &param) != 0)
		tell(w, errno != 0 ? -errno : -EIO);
}

/* ---- events ---- */

/* It ended, or never came to be. */
static void
over(struct rdma_iw *w, int rc)
{
	struct rdma_chan *c = w->chan;

	if (w->fn != NULL) {
		tell(w, rc);
	} else if (w->state == UP) {
		w->state = FAILED;
		net_rdma_ended(c);
	}
}

static void
happened(struct rdma_iw *w, enum rdma_cm_event_type what, int status)
{
	if (what == RDMA_CM_EVENT_ADDR_RESOLVED && w->state == RESOLVING)
		resolved(w);
	else if (what == RDMA_CM_EVENT_ROUTE_RESOLVED && w->state == ROUTING)
		routed(w);
	else if (what == RDMA_CM_EVENT_ESTABLISHED &&
	    (w->state == CALLING || w->state == ACCEPTING))
		tell(w, 0);
	else if (what != RDMA_CM_EVENT_TIMEWAIT_EXIT && what != RDMA_CM_EVENT_ADDR_CHANGE)
		over(w, status < 0 ? status : what == RDMA_CM_EVENT_REJECTED ?
		    -ECONNREFUSED : -ECONNRESET);
}

static void
on_cm(struct loop_poll *p, int events)
{
	struct rdma *r = container_of(p, struct rdma, cm_poll);
	struct rdma_cm_event *e;

	if (events < 0) {
		loop_poll_stop(p);
		return;
	}
	r->held++;
	while (!r->closed && rdma_get_cm_event(r->cm, &e) == 0) {
		enum rdma_cm_event_type what = e->event;
		struct rdma_cm_id *id = e->id;
		int status = e->status;
		uint8_t token[TOKEN] = { 0 }, reads = 0;

		if (what == RDMA_CM_EVENT_CONNECT_REQUEST &&
		    e->param.conn.private_data != NULL &&
		    e->param.conn.private_data_len >= TOKEN) {
			memcpy(token, e->param.conn.private_data, TOKEN);
			reads = e->param.conn.initiator_depth;
		}
		rdma_ack_cm_event(e);
		if (what == RDMA_CM_EVENT_CONNECT_REQUEST)
			called(r, id, token, reads);
		else if (id->context != NULL)
			happened(id->context, what, status);
	}
	net_rdma_release(r);
}

int
net_rdma_iw_open(struct rdma *r)
{
	int rc;

	if (r->cm != NULL)
		return 0;
	errno = 0;
	if ((r->cm = rdma_create_event_channel()) == NULL)
		return errno != 0 ? -errno : -ENODEV;
	if ((rc = loop_poll_start(&r->cm_poll, r->loop, r->cm->fd, LOOP_READ, on_cm)) != 0)
		net_rdma_iw_close(r);
	return rc;
}

void
net_rdma_iw_close(struct rdma *r)
{
	for (unsigned i = 0; i < r->ports_n; i++)
		net_rdma_iw_unlisten(&r->ports[i]);
	loop_poll_stop(&r->cm_poll);
	if (r->cm != NULL)
		rdma_destroy_event_channel(r->cm);
	r->cm = NULL;
	map_fini(&r->tokens);
}
