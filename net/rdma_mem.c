/* SPDX-License-Identifier: MIT */
/* rdma_mem.c - memory that devices know. */
#include "net/rdma_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct ibv_mr *
net_rdma_reg(struct rdma_dev *d, void *p, size_t n, int access)
{
	struct ibv_mr *mr;
	struct rlimit lim;
	int rc;

	errno = 0;
	if ((mr = ibv_reg_mr(d->pd, p, n, access)) != NULL)
		return mr;
	rc = errno != 0 ? -errno : -ENOMEM;
	stat_add(&d->r->stat.unregistered, 1);
	if (rc == -ENOMEM && getrlimit(RLIMIT_MEMLOCK, &lim) == 0 &&
	    lim.rlim_cur != RLIM_INFINITY) {
		char why[96];

		snprintf(why, sizeof(why), "RLIMIT_MEMLOCK is %llu KiB, wanted %zu KiB more",
		    (unsigned long long)lim.rlim_cur >> 10, n >> 10);
		net_rdma_say_why(d->r, "cannot lock memory for RDMA: raise ulimit -l "
		    "(LimitMEMLOCK)", d->name, why);
	} else {
		net_rdma_say(d->r, "cannot register memory", d->name, rc);
	}
	errno = -rc;
	return NULL;
}

/* Index of the first range that ends behind @p. */
static size_t
mem_at(const struct rdma *r, const uint8_t *p)
{
	size_t lo = 0, hi = r->mem_n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (r->mem[mid]->p + r->mem[mid]->n <= p)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct ibv_mr *
net_rdma_mr(struct rdma *r, const struct rdma_dev *d, const void *p, size_t n)
{
	size_t at = mem_at(r, p);
	const struct net_mem *m;

	if (at == r->mem_n)
		return NULL;
	m = r->mem[at];
	if ((const uint8_t *)p < m->p || (size_t)(m->p + m->n - (const uint8_t *)p) < n)
		return NULL;
	return m->mr[d->index];
}

static void
free_mem(struct rdma *r, struct net_mem *m)
{
	for (unsigned i = 0; i < r->devs_n; i++)
		if (m->mr[i] != NULL)
			ibv_dereg_mr(m->mr[i]);
	free(m);
}

int
net_rdma_mem_add(struct net_transport *t, void *p, size_t n, struct net_mem **out)
{
	struct rdma *r = container_of(t, struct rdma, t);
	struct net_mem *m = calloc(1, sizeof(*m));
	size_t at = mem_at(r, p);

	if (m == NULL)
		return -ENOMEM;
	assert(at == r->mem_n || (uint8_t *)p + n <= r->mem[at]->p);
	if (r->mem_n == r->mem_cap) {
		size_t cap = r->mem_cap == 0 ? 64 : r->mem_cap * 2;
		struct net_mem **more = realloc(r->mem, cap * sizeof(*more));

		if (more == NULL) {
			free(m);
			return -ENOMEM;
		}
		r->mem = more;
		r->mem_cap = cap;
	}
	m->p = p;
	m->n = n;
	/* A device that does not take it goes on, with copies. */
	for (unsigned i = 0; i < r->devs_n; i++) {
		struct rdma_dev *d = r->devs[i];

		if (d == NULL || d->dead)
			continue;
		m->mr[i] = net_rdma_reg(d, p, n, MEM_ACCESS);
		m->tried |= 1u << i;
	}
	memmove(&r->mem[at + 1], &r->mem[at], (r->mem_n - at) * sizeof(*r->mem));
	r->mem[at] = m;
	stat_set(&r->stat.regions, ++r->mem_n);
	*out = m;
	return 0;
}

void
net_rdma_mem_del(struct net_transport *t, struct net_mem *m)
{
	struct rdma *r = container_of(t, struct rdma, t);
	size_t at = mem_at(r, m->p);

	assert(at < r->mem_n && r->mem[at] == m);
	memmove(&r->mem[at], &r->mem[at + 1], (--r->mem_n - at) * sizeof(*r->mem));
	stat_set(&r->stat.regions, r->mem_n);
	free_mem(r, m);
}
