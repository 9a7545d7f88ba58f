/* SPDX-License-Identifier: MIT */
/* probe.c - a reader whom no cut keeps from anybody.
 *
 * Again and again it looks which version of some chunk the reading tail of its chain shows,
 * and asks another replica for that chunk, by the chain version that one is in itself, as
 * a client would who has heard no more than it.  It may refuse or be late, but not answer
 * with an older version: somebody may have read the newer one before. */
#include "tests/sim/sim_impl.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "net/msg_all.h"
#include "roles/storage_impl.h"

#define PROBES		4u		/* at a time */
#define CHUNKS		16u		/* looked at for one */
#define REPLICAS	32u

struct probe {
	struct sim	*s;
	struct net_call	 call;
	struct iovec	 iov;
	uint8_t		 bytes[4096];
	struct msg_read_item item;
	struct msg_read	 req;
	unsigned	 tail_at, at;	/* storage nodes */
	target_id	 tail;
	uint64_t	 version;	/* that the tail showed */
};

struct sim_probes {
	struct rand	 rand;
	struct probe	 all[PROBES];
};

void
sim_probes_open(struct sim *s)
{
	s->probes = calloc(1, sizeof(*s->probes));
	assert(s->probes != NULL);
	rand_seed(&s->probes->rand, s->seed ^ 0x9e3779b97f4a7c15);
	for (unsigned i = 0; i < PROBES; i++)
		s->probes->all[i].s = s;
}

void
sim_probes_close(struct sim *s)
{
	for (unsigned i = 0; i < PROBES; i++)
		net_call_cancel(&s->probes->all[i].call);
	free(s->probes);
}

static struct storage_target *
target_at(struct sim *s, unsigned i, target_id id)
{
	struct storage *st = sim_storage(s, i);

	return st == NULL || st->workers == NULL || st->phase != STORAGE_SERVING ? NULL :
	    map_get(&st->workers[0].targets, id);
}

/* 0: not there, or not to be known. */
static uint64_t
version_of(struct storage_target *t, struct chunk_id id)
{
	struct chunk_info info;

	return t == NULL || chunk_engine_info(t->disk->engine, t->v.target, id, &info) != 0 ?
	    0 : info.committed;
}

static void
answered(struct net_call *c, int rc)
{
	struct probe *p = container_of(c, struct probe, call);
	const struct msg_read_rep *rep = c->rep;

	if (rc != 0 || rep->items.n != 1 || rep->items.v[0].rc != 0 ||
	    rep->items.v[0].version >= p->version)
		return;
	/* Removed, and made anew by who had not heard of that. */
	if (version_of(target_at(p->s, p->tail_at, p->tail), p->item.chunk) < p->version)
		return;
	sim_fail(p->s, "chain %u: storage%u answered with %" PRIu64 ".%u in version %" PRIx64
	    ", after storage%u had shown %" PRIx64, p->req.chain, p->at + 1,
	    p->item.chunk.ino, p->item.chunk.index, rep->items.v[0].version, p->tail_at + 1,
	    p->version);
}

static void
ask(struct sim *s, struct probe *p, struct storage_target *t)
{
	struct net_addr to = { .kind = NET_ADDR_SIM, .id = SIM_STORAGE0 + p->at };
	struct net_call_opts opts = { .recv = &p->iov, .recv_n = 1,
	    .deadline_ns = clock_now(sim_admin_clock(s)) + 5 * NS_PER_S };

	p->iov = (struct iovec){ p->bytes, sizeof(p->bytes) };
	p->item.len = 1;
	p->req = (struct msg_read){ .chain = t->v.chain, .chain_version = t->v.version,
	    .target = t->v.target, .items = { &p->item, 1 } };
	(void)net_call_start(&p->call, sim_admin_hub(s), &to, MSG_read, &p->req, &opts,
	    answered);
}

/* All replicas of one chain, whatever they are in it now; and its reading tail. */
static unsigned
replicas(struct sim *s, chain_id chain, struct storage_target **out, unsigned *node,
    unsigned *tail)
{
	unsigned n = 0;

	*tail = REPLICAS;
	for (unsigned i = 0; i < s->storage_n; i++) {
		struct storage *st = sim_storage(s, i);
		struct storage_target *t;
		size_t it = 0;

		if (st == NULL || st->workers == NULL || st->phase != STORAGE_SERVING)
			continue;
		while ((t = map_next(&st->workers[0].targets, &it, NULL)) != NULL) {
			if (t->v.chain != chain || n == REPLICAS)
				continue;
			if (t->craq.read_tail && !t->craq.handing && sim_shows(t) &&
			    (*tail == REPLICAS || t->v.version > out[*tail]->v.version))
				*tail = n;
			node[n] = i;
			out[n++] = t;
		}
	}
	return n;
}

void
sim_probe(struct sim *s)
{
	struct sim_probes *ps = s->probes;
	struct storage_target *t[REPLICAS];
	unsigned node[REPLICAS], tail, n, k;
	struct probe *p = NULL;
	struct chunk_id at = { 0 };
	struct chunk_info info;

	for (unsigned i = 0; i < PROBES; i++)
		if (!net_call_active(&ps->all[i].call))
			p = &ps->all[i];
	n = replicas(s, 1 + (chain_id)rand_below(&ps->rand, 4), t, node, &tail);
	if (p == NULL || n < 2 || tail == REPLICAS)
		return;
	k = (unsigned)rand_below(&ps->rand, n);
	at.ino = rand_below(&ps->rand, 40);
	for (unsigned i = 0; i < CHUNKS && k != tail && chunk_engine_next(
	    t[tail]->disk->engine, t[tail]->v.target, at, i > 0, &info) == 0; i++) {
		at = info.id;
		if (info.committed == 0 || version_of(t[k], at) >= info.committed)
			continue;
		p->item.chunk = at;
		p->version = info.committed;
		p->tail_at = node[tail];
		p->tail = t[tail]->v.target;
		p->at = node[k];
		ask(s, p, t[k]);
		return;
	}
}
