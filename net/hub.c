/* SPDX-License-Identifier: MIT */
/* hub.c - what all calls of one loop share: transports, key, spare frames. */
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "net/conn.h"
#include "net/rdma.h"

STAT_DEFINE(net_hub, NET_HUB_STATS)

#define OUT_KEEP	1024u		/* spare frames of the small size */

/* ---- frames in memory of their own ---- */

struct net_out *
net_out_new(struct net_hub *hub, uint32_t head_len, unsigned iov_n)
{
	size_t need = head_len + iov_n * (sizeof(struct iovec) + sizeof(uint32_t));
	struct net_out *o;

	if (need <= NET_OUT_SMALL && !list_empty(&hub->outs)) {
		o = list_entry(list_pop_front(&hub->outs), struct net_out, tx.node);
		hub->outs_n--;
	} else {
		size_t cap = need <= NET_OUT_SMALL ? NET_OUT_SMALL : need;

		if ((o = malloc(sizeof(*o) + cap)) == NULL)
			return NULL;
		o->cap = cap;
	}
	o->tx = (struct net_tx){ 0 };
	list_init(&o->tx.node);
	o->owner = NULL;
	o->iov = (struct iovec *)(void *)(o + 1);
	o->dst_off = (uint32_t *)(void *)(o->iov + iov_n);
	o->head = (uint8_t *)(o->dst_off + iov_n);
	o->tx.head = o->head;
	o->tx.head_len = head_len;
	return o;
}

void
net_out_free(struct net_hub *hub, struct net_out *o)
{
	if (o == NULL)
		return;
	assert(list_empty(&o->tx.node));
	if (o->cap != NET_OUT_SMALL || hub->outs_n >= OUT_KEEP) {
		free(o);
		return;
	}
	list_push_front(&hub->outs, &o->tx.node);
	hub->outs_n++;
}

/* ---- the hub ---- */

/* Room for the largest reply struct there is: one is decoded at a time. */
static size_t
largest_reply(void)
{
	const struct msg_method *m;
	size_t max = 1;

	for (unsigned i = 0; (m = msg_method_at(i)) != NULL; i++)
		if (m->reply->size > max)
			max = m->reply->size;
	return max;
}

static void
free_hub(struct net_hub *hub)
{
	for (struct list *l; (l = list_pop_front(&hub->outs)) != NULL;)
		free(list_entry(l, struct net_out, tx.node));
	map_fini(&hub->calls);
	map_fini(&hub->peers);
	sodium_memzero(hub->conf.key, sizeof(hub->conf.key));
	free(hub->scratch);
	free(hub->rep);
	free(hub->rep_zero);
	free(hub);
}

int
net_hub_open(struct net_hub **out, const struct net_hub_conf *conf)
{
	struct net_hub *hub;

	if (sodium_init() < 0)
		return -EIO;
	if ((hub = calloc(1, sizeof(*hub))) == NULL)
		return -ENOMEM;
	hub->conf = *conf;
	list_init(&hub->transports);
	list_init(&hub->outs);
	list_init(&hub->peer_list);
	list_init(&hub->ending);
	map_init(&hub->calls);
	map_init(&hub->peers);
	net_window_init(&hub->window, conf->receive_window);
	stat_set(&hub->stat.window, conf->receive_window);
	net_hello_tag(conf->key, conf->cluster, hub->tag);
	hub->conf.cluster = NULL;
	hub->rep_bytes = largest_reply();
	hub->scratch = malloc(NET_HEAD_MAX);
	hub->rep = malloc(hub->rep_bytes);
	hub->rep_zero = calloc(1, hub->rep_bytes);
	if (hub->scratch == NULL || hub->rep == NULL || hub->rep_zero == NULL) {
		free_hub(hub);
		return -ENOMEM;
	}
	stat_attach(conf->stats, &hub->stat_set, "fsd_net_hub", net_hub_who(hub),
	    net_hub_stat_rows, &hub->stat);
	*out = hub;
	return 0;
}

void
net_hub_close(struct net_hub *hub)
{
	if (hub == NULL || hub->closed)
		return;
	net_hub_get(hub);
	hub->closed = true;
	stat_remove(&hub->stat_set);
	net_calls_close(hub);
	/* The last added first: RDMA's connections hold one of TCP each. */
	while (!list_empty(&hub->transports)) {
		struct net_transport *t = list_entry(hub->transports.prev,
		    struct net_transport, node);

		list_remove(&t->node);
		t->ops->close(t);
	}
	net_hub_put(hub);
}

void
net_hub_get(struct net_hub *hub)
{
	hub->held++;
}

void
net_hub_put(struct net_hub *hub)
{
	assert(hub->held > 0);
	if (--hub->held == 0 && hub->closed)
		free_hub(hub);
}

void
net_hub_nonce(struct net_hub *hub, uint8_t out[NET_NONCE])
{
	if (hub->conf.nonce != NULL)
		hub->conf.nonce(hub->conf.nonce_ctx, out, NET_NONCE);
	else
		randombytes_buf(out, NET_NONCE);
}

void
net_hub_add(struct net_hub *hub, struct net_transport *t)
{
	list_push_back(&hub->transports, &t->node);
	if (net_rdma_is(t))
		hub->rdma = t;
}

struct net_transport *
net_hub_transport(struct net_hub *hub, uint8_t addr_kind)
{
	list_for_each(l, &hub->transports) {
		struct net_transport *t = list_entry(l, struct net_transport, node);

		if (t->ops->serves(t, addr_kind))
			return t;
	}
	return NULL;
}

struct net_transport *
net_hub_rdma(struct net_hub *hub)
{
	return hub->rdma;
}

uint32_t
net_hub_calls(const struct net_hub *hub)
{
	return hub->calls_n;
}

uint32_t
net_hub_conns(const struct net_hub *hub)
{
	return hub->conns_n;
}

const struct net_hub_stat *
net_hub_stats(const struct net_hub *hub)
{
	return &hub->stat;
}
