/* SPDX-License-Identifier: MIT */
/* manager_register.c - the command by which a process becomes a node.  Part of apply. */
#include "roles/manager_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

bool
manager_was_boot(const struct manager_node *n, const struct uid128 *boot)
{
	for (uint32_t i = 0; i < n->old_boot_n; i++)
		if (uid128_eq(&n->old_boots[i], boot))
			return true;
	return false;
}

static void
remember_boot(struct manager_node *n, const struct uid128 *boot)
{
	memmove(n->old_boots + 1, n->old_boots,
	    (MANAGER_BOOTS_MAX - 1) * sizeof(*n->old_boots));
	n->old_boots[0] = *boot;
	if (n->old_boot_n < MANAGER_BOOTS_MAX)
		n->old_boot_n++;
}

/* The roles of one box may register apart, under its one name.  The name of a node that is
 * down is free: a box that has lost its state comes back under it as another node. */
static int
reg_refuse(struct manager_state *s, const struct manager_reg *g, const struct manager_node *n)
{
	const struct routing_node *row;
	uint32_t target_n = s->target_n, disk_n = s->disk_n;
	uint32_t node_disk_n = n == NULL ? 0 : n->disk_n;

	if (n != NULL && manager_was_boot(n, &g->boot))
		return ERR_STALE_NODE;
	for (unsigned i = 0; (row = routing_node_at(s->routing, i)) != NULL; i++)
		if ((n == NULL || row->id != n->id) && (row->roles & g->roles) &&
		    row->state == NODE_UP && strlen(row->name) == g->name.n &&
		    memcmp(row->name, g->name.p, g->name.n) == 0)
			return ERR_NAME_TAKEN;
	if (n == NULL && s->nodes.n >= MANAGER_NODES_MAX)
		return -ENOSPC;
	for (uint32_t i = 0; i < g->disk_n; i++) {
		const struct manager_disk *d = manager_uid_get(&s->disks,
		    &g->disks[i].uid);
		bool here = d != NULL && n != NULL && d->node == n->id;

		target_n += d == NULL ? g->disks[i].slots :
		    g->disks[i].slots > d->target_n ?
		    g->disks[i].slots - d->target_n : 0;
		disk_n += d == NULL;
		node_disk_n += !here;
		/* until the other node's lease has ended, or it says that it has the
		 * disk no more or cannot use it, it may still serve it */
		if (d != NULL && !here && d->health == DISK_WORKS &&
		    (row = routing_node(s->routing, d->node)) != NULL &&
		    row->state == NODE_UP)
			return ERR_BUSY;
	}
	return target_n > MANAGER_TARGETS_MAX || disk_n > MANAGER_ALL_DISKS_MAX ||
	    node_disk_n > MANAGER_NODE_DISKS_MAX ? -ENOSPC : 0;
}

/* The disk is on @n now, with at least so many slots. */
static void
reg_disk(struct manager_state *s, struct manager_node *n, const struct manager_reg_disk *g)
{
	struct manager_disk *d = manager_uid_get(&s->disks, &g->uid);

	if (d == NULL && (d = manager_add_disk(s, &g->uid)) == NULL)
		return;
	d->reborn |= d->node != 0 && d->node != n->id;
	if (d->node != n->id || d->loop != g->loop) {
		if (d->node != n->id)
			manager_disk_to(s, d, n);
		d->loop = g->loop;
		for (uint32_t i = 0; i < d->target_n; i++) {
			struct routing_target row = *routing_target(s->routing,
			    d->targets[i]);

			row.node = n->id;
			row.loop = d->loop;
			manager_put_target(s, &row);
		}
	}
	if (d->health != DISK_REPLACED) {
		d->health = g->failed ? DISK_FAILED : DISK_WORKS;
		s->capacity_bytes += g->capacity - d->capacity;
		d->capacity = g->capacity;
	}
	d->slots = g->slots;
	while (d->target_n < g->slots && s->rc == 0) {
		struct routing_target row = { .id = s->next_target++,
			.node = n->id, .loop = d->loop, .disk = d->u.uid };

		manager_put_target(s, &row);
		d->targets[d->target_n++] = row.id;
		s->target_n++;
	}
	manager_put_disk(s, d);
}

/* What it had before and does not name now is not there. */
static void
absent_disks(struct manager_state *s, struct manager_node *n,
    const struct manager_reg *g)
{
	list_for_each(it, &n->disks) {
		struct manager_disk *d = list_entry(it, struct manager_disk,
		    node_link);
		bool here = false;

		for (uint32_t i = 0; i < g->disk_n && !here; i++)
			here = uid128_eq(&g->disks[i].uid, &d->u.uid);
		if (here || d->health > DISK_FAILED)
			continue;
		d->health = DISK_ABSENT;
		manager_put_disk(s, d);
	}
}

/* Its disks are those of another process now. */
static void
set_reborn(struct manager_node *n, bool reborn)
{
	list_for_each(it, &n->disks)
		list_entry(it, struct manager_disk, node_link)->reborn = reborn;
}

static bool
same_node(const struct routing_node *a, const struct routing_node *b)
{
	if (a->roles != b->roles || a->state != b->state || a->addr_n != b->addr_n ||
	    !uid128_eq(&a->boot, &b->boot) || strcmp(a->name, b->name) != 0)
		return false;
	for (uint32_t i = 0; i < a->addr_n; i++)
		if (!net_addr_eq(&a->addrs[i], &b->addrs[i]))
			return false;
	return true;
}

int
manager_apply_register(struct manager_state *s, struct bytes_reader *r, bool format1,
    uint64_t *value)
{
	const struct routing_node *was = NULL;
	struct routing_node row = { .state = NODE_UP };
	struct manager_node *n;
	struct manager_reg *g;
	int rc;

	if ((g = calloc(1, sizeof(*g))) == NULL) {
		s->rc = -ENOMEM;
		return s->rc;
	}
	if ((rc = manager_reg_read(r, format1, g)) != 0)
		goto out;
	n = manager_uid_get(&s->nodes_by_uid, &g->uid);
	if ((rc = reg_refuse(s, g, n)) != 0)
		goto out;
	if (n == NULL &&
	    (n = manager_add_node(s, &g->uid, s->next_node++)) == NULL)
		goto out;
	was = routing_node(s->routing, n->id);
	row.id = n->id;
	row.boot = g->boot;
	row.roles = g->roles;
	memcpy(row.name, g->name.p, g->name.n);
	row.addr_n = g->addr_n;
	memcpy(row.addrs, g->addrs, sizeof(row.addrs));
	if (was != NULL && !uid128_eq(&was->boot, &g->boot)) {
		remember_boot(n, &was->boot);
		set_reborn(n, true);
	}
	if (was == NULL || !same_node(was, &row) || n->lease_ms != g->lease_ms ||
	    n->member != g->member ||
	    strlen(n->release) != g->release.n ||
	    memcmp(n->release, g->release.p, g->release.n) != 0) {
		memset(n->release, 0, sizeof(n->release));
		if (g->release.n > 0)
			memcpy(n->release, g->release.p, g->release.n);
		n->lease_ms = g->lease_ms;
		n->member = g->member;
		manager_put_node(s, n, &row);
	}
	for (uint32_t i = 0; i < g->disk_n && s->rc == 0; i++)
		reg_disk(s, n, &g->disks[i]);
	absent_disks(s, n, g);
	manager_heal_node(s, n);
	set_reborn(n, false);
	*value = n->id;
out:
	free(g);
	return rc;
}
