/* SPDX-License-Identifier: MIT */
/* manager_place.c - which chains to make of free slots.
 *
 * How many: k chains of r replicas fit exactly when the nodes' free slots, each cut at k,
 * sum to k * r (a node can be in a chain once).  The largest such k is reached by any
 * order of choices that takes, while k chains are to be made, every node that has k free
 * slots or more: so those come first and the wishes only choose among the others. */
#include "roles/manager_place.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct disk {
	size_t next, end;		/* its unused slots */
};

struct node {
	node_id	 id;
	uint32_t free;
	uint32_t heads, tails;		/* chains it is head or tail of */
	size_t	 disk, disk_n;		/* in form.disks */
	bool	 taken;			/* by the chain being made */
};

struct form {
	const struct manager_slot *slots;
	struct node *nodes;
	struct disk *disks;
	uint8_t	    *pairs;		/* node x node: chains they share, saturating */
	size_t	     node_n;
};

static int
node_cmp(const void *key, const void *at)
{
	node_id a = *(const node_id *)key, b = ((const struct node *)at)->id;

	return a < b ? -1 : a > b;
}

static struct node *
find(const struct form *f, node_id id)
{
	return bsearch(&id, f->nodes, f->node_n, sizeof(*f->nodes), node_cmp);
}

/* Count that these nodes (NULL: not of interest) are a chain, head first. */
static void
count(struct form *f, struct node *const *members, unsigned n)
{
	if (members[0] != NULL)
		members[0]->heads++;
	if (members[n - 1] != NULL)
		members[n - 1]->tails++;
	for (unsigned i = 0; i < n; i++) {
		for (unsigned j = 0; j < n; j++) {
			uint8_t *p;

			if (i == j || members[i] == NULL || members[j] == NULL)
				continue;
			p = &f->pairs[(size_t)(members[i] - f->nodes) * f->node_n +
			    (size_t)(members[j] - f->nodes)];
			*p += *p < UINT8_MAX;
		}
	}
}

static int
form_init(struct form *f, const struct manager_slot *slots, size_t n)
{
	size_t disk_n = 0;

	*f = (struct form){ .slots = slots };
	f->nodes = calloc(n + 1, sizeof(*f->nodes));
	f->disks = calloc(n + 1, sizeof(*f->disks));
	if (f->nodes == NULL || f->disks == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		bool same = i > 0 && slots[i].node == slots[i - 1].node;
		struct node *node;

		assert(i == 0 || slots[i].node >= slots[i - 1].node);
		if (!same)
			f->nodes[f->node_n++] = (struct node){
				.id = slots[i].node, .disk = disk_n };
		node = &f->nodes[f->node_n - 1];
		if (!same || slots[i].disk != slots[i - 1].disk) {
			f->disks[disk_n++].next = i;
			node->disk_n++;
		}
		f->disks[disk_n - 1].end = i + 1;
		node->free++;
	}
	f->pairs = calloc(f->node_n * f->node_n + 1, 1);
	return f->pairs == NULL ? -ENOMEM : 0;
}

static void
form_fini(struct form *f)
{
	free(f->nodes);
	free(f->disks);
	free(f->pairs);
}

/* The most chains of @r that the free slots allow. */
static uint64_t
chains_max(const struct form *f, unsigned r)
{
	uint64_t low = 0, high = 0;

	for (size_t i = 0; i < f->node_n; i++)
		high += f->nodes[i].free;
	high /= r;
	while (low < high) {
		uint64_t k = low + (high - low + 1) / 2, sum = 0;

		for (size_t i = 0; i < f->node_n; i++)
			sum += f->nodes[i].free < k ? f->nodes[i].free : k;
		if (sum >= k * r)
			low = k;
		else
			high = k - 1;
	}
	return low;
}

/* The best node for one more replica while @left chains are to be made. */
static struct node *
choose(struct form *f, struct node *const *members, unsigned n, uint64_t left)
{
	struct node *best = NULL;
	uint64_t best_shared = 0;

	for (size_t i = 0; i < f->node_n; i++) {
		struct node *c = &f->nodes[i];
		uint64_t shared = 0, free_c, free_best;

		if (c->taken || c->free == 0)
			continue;
		for (unsigned j = 0; j < n; j++) {
			uint64_t p = f->pairs[i * f->node_n +
			    (size_t)(members[j] - f->nodes)];

			shared += p * p;	/* one pair twice is worse than
						 * two pairs once */
		}
		/* all that must be taken are alike */
		free_c = c->free < left ? c->free : left;
		free_best = best == NULL ? 0 :
		    best->free < left ? best->free : left;
		if (best == NULL || free_c > free_best ||
		    (free_c == free_best && shared < best_shared)) {
			best = c;
			best_shared = shared;
		}
	}
	return best;
}

/* A slot of the disk of @node that has most left. */
static target_id
take_slot(struct form *f, struct node *node)
{
	struct disk *best = &f->disks[node->disk];

	for (size_t i = 1; i < node->disk_n; i++) {
		struct disk *d = &f->disks[node->disk + i];

		if (d->end - d->next > best->end - best->next)
			best = d;
	}
	assert(best->next < best->end);
	node->free--;
	return f->slots[best->next++].target;
}

/* Head: who is head least often, the lowest id of those; tail alike, but the highest, so
 * that equal nodes take turns; the others as they were chosen. */
static void
arrange(struct node **m, unsigned n)
{
	unsigned best = 0;
	struct node *t;

	for (unsigned i = 1; i < n; i++)
		if (m[i]->heads < m[best]->heads ||
		    (m[i]->heads == m[best]->heads && m[i]->id < m[best]->id))
			best = i;
	t = m[0], m[0] = m[best], m[best] = t;
	if (n < 3)
		return;
	best = 1;
	for (unsigned i = 2; i < n; i++)
		if (m[i]->tails < m[best]->tails ||
		    (m[i]->tails == m[best]->tails && m[i]->id > m[best]->id))
			best = i;
	t = m[n - 1], m[n - 1] = m[best], m[best] = t;
}

int
manager_place(const struct manager_slot *slots, size_t slot_n,
    const struct manager_place_nodes *chains, size_t chain_n, unsigned replicas,
    struct manager_plan *plan, size_t max, size_t *plan_n, bool *more)
{
	struct node *members[ROUTING_REPLICAS_MAX];
	struct form f;
	uint64_t left;
	int rc;

	assert(replicas >= 1 && replicas <= ROUTING_REPLICAS_MAX);
	*plan_n = 0;
	*more = false;
	if ((rc = form_init(&f, slots, slot_n)) != 0)
		goto out;
	left = chains_max(&f, replicas);
	for (size_t i = 0; i < chain_n && left > 0; i++) {
		assert(chains[i].n >= 1 && chains[i].n <= ROUTING_REPLICAS_MAX);
		for (unsigned j = 0; j < chains[i].n; j++)
			members[j] = find(&f, chains[i].nodes[j]);
		count(&f, members, chains[i].n);
	}
	for (; left > 0 && *plan_n < max; left--) {
		struct manager_plan *p = &plan[(*plan_n)++];

		memset(p, 0, sizeof(*p));
		for (unsigned j = 0; j < replicas; j++) {
			members[j] = choose(&f, members, j, left);
			assert(members[j] != NULL);
			members[j]->taken = true;
		}
		arrange(members, replicas);
		count(&f, members, replicas);
		for (unsigned j = 0; j < replicas; j++) {
			p->targets[j] = take_slot(&f, members[j]);
			members[j]->taken = false;
		}
	}
	*more = left > 0;
out:
	form_fini(&f);
	return rc;
}
