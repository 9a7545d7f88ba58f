/* SPDX-License-Identifier: MIT */
/* net_card.c - how simulated nodes connect, and what memory their devices know. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/net_impl.h"

static struct listener *
find(const struct sim_net *n, const struct net_addr *at)
{
	list_for_each(l, &n->listeners) {
		struct listener *li = list_entry(l, struct listener, node);

		if (net_addr_eq(&li->at, at))
			return li;
	}
	return NULL;
}

static void
syn_arrives(struct clock_timer *t)
{
	struct pipe *p = container_of(t, struct pipe, syn);
	struct sim_net *n = p->net;
	enum sim_net_path there = sim_net_path_of(n, p->ends[0].node, p->to.id);
	enum sim_net_path back = sim_net_path_of(n, p->to.id, p->ends[0].node);
	struct listener *l = find(n, &p->to);
	struct chan *c;

	if (there == SIM_NET_SILENT || back == SIM_NET_SILENT) {
		/* Asked again, as a system does, until who wants it gives up. */
		clock_timer_start(n->world, t, sim_net_now(n) + RESEND_MAX_NS,
		    syn_arrives);
		return;
	}
	if (l == NULL || there == SIM_NET_RESET || back == SIM_NET_RESET) {
		p->broken = true;
		sim_pipe_doom(&p->ends[0], -ECONNREFUSED, sim_net_delay(n));
		return;
	}
	c = sim_chan_new(l->card, p, 1);
	p->ends[0].connected = true;
	sim_pipe_wake(&p->ends[0]);
	l->fn(l->ctx, &c->c);
}

static bool
one_sided(struct sim_net *n, uint32_t a, uint32_t b)
{
	return a < NODES_MAX && b < NODES_MAX && n->device[a] && n->device[b] &&
	    (n->plain_of_256 == 0 || !rand_chance(&n->rand, n->plain_of_256, 256));
}

static int
card_connect(struct net_transport *t, const struct net_addr *to,
    struct net_chan **out)
{
	struct card *card = container_of(t, struct card, t);
	struct sim_net *n = card->net;
	struct pipe *p = sim_net_must(calloc(1, sizeof(*p)));
	struct chan *c;

	p->net = n;
	p->to = *to;
	for (unsigned i = 0; i < 2; i++) {
		p->ends[i].pipe = p;
		list_init(&p->ends[i].out);
		list_init(&p->ends[i].acks);
		list_init(&p->ends[i].exposed);
		list_init(&p->ends[i].inbox);
	}
	p->ends[0].node = card->node;
	p->ends[1].node = to->id;
	p->one_sided = one_sided(n, card->node, to->id);
	list_push_back(&n->pipes, &p->node);
	c = sim_chan_new(card, p, 0);
	c->c.peer = *to;
	clock_timer_start(n->world, &p->syn, sim_net_now(n) + 2 * sim_net_delay(n),
	    syn_arrives);
	*out = &c->c;
	return 0;
}

/* ---- memory that the device knows ---- */

/* Index of the first range that ends behind @p. */
static size_t
mem_at(const struct card *card, const uint8_t *p)
{
	size_t lo = 0, hi = card->mem_n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (card->mem[mid]->p + card->mem[mid]->n <= p)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool
sim_card_knows(const struct card *card, const struct iovec *iov, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const uint8_t *p = iov[i].iov_base;
		size_t at = mem_at(card, p);

		if (iov[i].iov_len > 0 && (at == card->mem_n || p < card->mem[at]->p ||
		    card->mem[at]->refused ||
		    (size_t)(card->mem[at]->p + card->mem[at]->n - p) < iov[i].iov_len))
			return false;
	}
	return true;
}

static int
card_mem_add(struct net_transport *t, void *p, size_t n, struct net_mem **out)
{
	struct card *card = container_of(t, struct card, t);
	struct net_mem *m = sim_net_must(malloc(sizeof(*m)));
	size_t at = mem_at(card, p);

	assert(at == card->mem_n || (uint8_t *)p + n <= card->mem[at]->p);
	if (card->mem_n == card->mem_cap) {
		card->mem_cap = card->mem_cap == 0 ? 64 : card->mem_cap * 2;
		card->mem = sim_net_must(realloc(card->mem,
		    card->mem_cap * sizeof(*card->mem)));
	}
	*m = (struct net_mem){ p, n, card->net->refuse_of_256 > 0 &&
	    rand_chance(&card->net->rand, card->net->refuse_of_256, 256) };
	stat_add(&card->net->stat.refused, m->refused);
	memmove(&card->mem[at + 1], &card->mem[at],
	    (card->mem_n - at) * sizeof(*card->mem));
	card->mem[at] = m;
	card->mem_n++;
	*out = m;
	return 0;
}

static void
card_mem_del(struct net_transport *t, struct net_mem *m)
{
	struct card *card = container_of(t, struct card, t);
	size_t at = mem_at(card, m->p);

	assert(at < card->mem_n && card->mem[at] == m);
	memmove(&card->mem[at], &card->mem[at + 1],
	    (--card->mem_n - at) * sizeof(*card->mem));
	card->dels++;
	free(m);
}

/* ---- the card ---- */

static bool
card_serves(const struct net_transport *t, uint8_t kind)
{
	(void)t;
	return kind == NET_ADDR_SIM;
}

static int
card_listen(struct net_transport *t, const struct net_addr *at, net_accept_fn *fn,
    void *ctx, struct net_listener **out)
{
	struct card *card = container_of(t, struct card, t);
	struct listener *l;

	if (at->id != card->node || at->port != card->loop)
		return -EADDRNOTAVAIL;
	if (find(card->net, at) != NULL)
		return -EADDRINUSE;
	l = sim_net_must(calloc(1, sizeof(*l)));
	l->card = card;
	l->at = *at;
	l->fn = fn;
	l->ctx = ctx;
	list_push_back(&card->net->listeners, &l->node);
	card->open_n++;
	*out = (struct net_listener *)l;
	return 0;
}

static void
card_listen_addr(const struct net_listener *l, struct net_addr *out)
{
	*out = ((const struct listener *)l)->at;
}

static void
card_unlisten(struct net_listener *listener)
{
	struct listener *l = (struct listener *)listener;

	l->card->open_n--;
	list_remove(&l->node);
	free(l);
}

static void
card_close(struct net_transport *t)
{
	struct card *card = container_of(t, struct card, t);

	assert(card->open_n == 0 && card->mem_n == 0);
	free(card->mem);
	free(card);
}

const struct net_transport_ops sim_card_ops = {
	.serves = card_serves, .listen = card_listen,
	.listen_addr = card_listen_addr, .unlisten = card_unlisten,
	.connect = card_connect, .close = card_close
}, sim_card_device_ops = {
	.serves = card_serves, .listen = card_listen,
	.listen_addr = card_listen_addr, .unlisten = card_unlisten,
	.connect = card_connect, .mem_add = card_mem_add, .mem_del = card_mem_del,
	.close = card_close
};
