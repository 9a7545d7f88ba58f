/* SPDX-License-Identifier: MIT */
/* known.c - memory that devices know, for payloads that they move themselves. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "conf/arena.h"
#include "conf/mem.h"
#include "net/conn.h"

#define MEM_TRANSPORTS	4u

struct net_mem_set {
	struct {
		struct net_transport *t;
		struct net_mem	     *mem;
	} at[MEM_TRANSPORTS];
	unsigned n;
};

int
net_mem_add(struct net_hub *hub, void *p, size_t n, struct net_mem_set **out)
{
	struct net_mem_set *m = calloc(1, sizeof(*m));
	int rc;

	if (m == NULL)
		return -ENOMEM;
	list_for_each(l, &hub->transports) {
		struct net_transport *t = list_entry(l, struct net_transport, node);

		if (t->ops->mem_add == NULL)
			continue;
		assert(m->n < MEM_TRANSPORTS);
		if ((rc = t->ops->mem_add(t, p, n, &m->at[m->n].mem)) != 0) {
			net_mem_del(hub, m);
			return rc;
		}
		m->at[m->n++].t = t;
	}
	*out = m;
	return 0;
}

void
net_mem_del(struct net_hub *hub, struct net_mem_set *m)
{
	(void)hub;
	if (m == NULL)
		return;
	for (unsigned i = 0; i < m->n; i++)
		m->at[i].t->ops->mem_del(m->at[i].t, m->at[i].mem);
	free(m);
}

static int
add_piece(void *ctx, void *p, size_t n, void **mark)
{
	struct net_mem_set *m;
	int rc = net_mem_add(ctx, p, n, &m);

	if (rc == 0)
		*mark = m;
	return rc;
}

static void
del_piece(void *ctx, void *mark)
{
	net_mem_del(ctx, mark);
}

int
net_mem_pool(struct net_hub *hub, struct mem_pool *pool)
{
	struct arena_owner owner = { .add = add_piece, .del = del_piece, .ctx = hub };

	list_for_each(l, &hub->transports)
		if (list_entry(l, struct net_transport, node)->ops->mem_add != NULL)
			return mem_pool_arena(pool, &owner);
	return 0;
}
