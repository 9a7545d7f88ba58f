/* SPDX-License-Identifier: MIT */
/* manager_apply.c - the manager's commands: how they are written, and what they do.
 * Refusals are results, the same on every replica; a command that was refused has
 * changed nothing. */
#include "roles/manager_state.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

/* ---- writing ---- */

static void
put_str(struct bytes_writer *w, const struct msg_str *s)
{
	bytes_put_u16(w, (uint16_t)s->n);
	bytes_put_raw(w, s->p, s->n);
}

void
manager_cmd_init(struct bytes_writer *w, const struct uid128 *cluster)
{
	bytes_put_u8(w, CMD_INIT);
	bytes_put_raw(w, cluster->b, 16);
}

void
manager_cmd_register(struct bytes_writer *w, const struct msg_register *r,
    uint32_t lease_ms)
{
	bytes_put_u8(w, CMD_REGISTER);
	bytes_put_raw(w, r->node_uid.b, 16);
	bytes_put_raw(w, r->boot.b, 16);
	bytes_put_u32(w, r->roles);
	put_str(w, &r->name);
	put_str(w, &r->release);
	bytes_put_u32(w, lease_ms);
	bytes_put_u8(w, (uint8_t)r->addrs.n);
	for (uint32_t i = 0; i < r->addrs.n; i++)
		put_str(w, &r->addrs.v[i]);
	bytes_put_u8(w, (uint8_t)r->disks.n);
	for (uint32_t i = 0; i < r->disks.n; i++) {
		const struct msg_disk_info *d = &r->disks.v[i];

		bytes_put_raw(w, d->disk.b, 16);
		bytes_put_u32(w, d->loop);
		bytes_put_u32(w, d->targets);
		bytes_put_u64(w, d->capacity);
	}
}

void
manager_cmd_node_state(struct bytes_writer *w, node_id node,
    const struct uid128 *boot, enum node_state state)
{
	bytes_put_u8(w, CMD_NODE_STATE);
	bytes_put_u32(w, node);
	bytes_put_raw(w, boot->b, 16);
	bytes_put_u8(w, (uint8_t)state);
}

void
manager_cmd_form(struct bytes_writer *w, bool publish, unsigned replicas,
    const struct manager_chain_plan *plan, size_t n)
{
	bytes_put_u8(w, CMD_FORM);
	bytes_put_u8(w, publish);
	bytes_put_u8(w, (uint8_t)replicas);
	bytes_put_u16(w, (uint16_t)n);
	for (size_t i = 0; i < n; i++)
		for (unsigned j = 0; j < replicas; j++)
			bytes_put_u32(w, plan[i].targets[j]);
}

void
manager_cmd_ready(struct bytes_writer *w, const struct msg_chain_ready *r)
{
	bytes_put_u8(w, CMD_READY);
	bytes_put_u32(w, r->chain);
	bytes_put_u32(w, r->version);
	bytes_put_u32(w, r->node);
	bytes_put_raw(w, r->boot.b, 16);
}

void
manager_cmd_config(struct bytes_writer *w, enum manager_set set, uint64_t have,
    const char *text, size_t n)
{
	bytes_put_u8(w, CMD_CONFIG);
	bytes_put_u8(w, (uint8_t)set);
	bytes_put_u64(w, have);
	bytes_put_raw(w, text, n);
}

/* ---- reading ---- */

static void
get_uid(struct bytes_reader *r, struct uid128 *out)
{
	const void *p = bytes_get_raw(r, 16);

	memset(out, 0, sizeof(*out));
	if (p != NULL)
		memcpy(out->b, p, 16);
}

static struct msg_str
get_str(struct bytes_reader *r)
{
	struct msg_str s = { .n = bytes_get_u16(r) };

	s.p = bytes_get_raw(r, s.n);
	if (s.p == NULL)
		s.n = 0;
	return s;
}

/* What CMD_REGISTER says. */
struct reg {
	struct uid128  uid, boot;
	uint32_t       roles;
	struct msg_str name, release;
	uint32_t       lease_ms;
	uint32_t       addr_n, disk_n;
	struct net_addr addrs[ROUTING_LOOPS_MAX];
	struct reg_disk {
		struct uid128 uid;
		uint32_t loop, slots;
		uint64_t capacity;
	} disks[MANAGER_DISKS_MAX];
};

static int
get_reg(struct bytes_reader *r, struct reg *g)
{
	get_uid(r, &g->uid);
	get_uid(r, &g->boot);
	g->roles = bytes_get_u32(r);
	g->name = get_str(r);
	g->release = get_str(r);
	g->lease_ms = bytes_get_u32(r);
	g->addr_n = bytes_get_u8(r);
	if (g->name.n > MANAGER_NAME_MAX || g->release.n > MANAGER_NAME_MAX ||
	    g->addr_n > ROUTING_LOOPS_MAX)
		return ERR_BAD_MESSAGE;
	for (uint32_t i = 0; i < g->addr_n; i++) {
		struct msg_str s = get_str(r);

		if (net_addr_parse(s.p, s.n, &g->addrs[i], NULL) != 0)
			return ERR_BAD_MESSAGE;
	}
	g->disk_n = bytes_get_u8(r);
	if (g->disk_n > MANAGER_DISKS_MAX)
		return ERR_BAD_MESSAGE;
	for (uint32_t i = 0; i < g->disk_n; i++) {
		struct reg_disk *d = &g->disks[i];

		get_uid(r, &d->uid);
		d->loop = bytes_get_u32(r);
		d->slots = bytes_get_u32(r);
		d->capacity = bytes_get_u64(r);
		if (d->slots > MANAGER_SLOTS_MAX)
			return ERR_BAD_MESSAGE;
	}
	return bytes_reader_done(r) ? 0 : ERR_BAD_MESSAGE;
}

static bool
printable(const struct msg_str *s)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (s->p[i] <= ' ' || s->p[i] > '~')
			return false;
	return true;
}

static const char *
disk_wrong(const struct msg_register *r, uint32_t i)
{
	const struct msg_disk_info *d = &r->disks.v[i];

	if (uid128_zero(&d->disk))
		return "disk without an id";
	for (uint32_t j = 0; j < i; j++)
		if (uid128_eq(&r->disks.v[j].disk, &d->disk))
			return "the same disk twice";
	if (d->loop >= r->addrs.n)
		return "disk on a loop without an address";
	if (d->targets > MANAGER_SLOTS_MAX)
		return "too many targets on a disk";
	if (d->capacity > UINT64_MAX / (MANAGER_NODES_MAX * MANAGER_DISKS_MAX))
		return "disk larger than any";
	if (d->path.n > MANAGER_PATH_MAX)
		return "disk path too long";
	return NULL;
}

int
manager_register_check(const struct msg_register *r, const char **why)
{
	struct net_addr a;

	*why = NULL;
	if (uid128_zero(&r->node_uid) || uid128_zero(&r->boot))
		*why = "node or boot id is zero";
	else if (r->name.n < 1 || r->name.n > MANAGER_NAME_MAX ||
	    !printable(&r->name))
		*why = "name must be 1 to 63 printable characters";
	else if (r->release.n > MANAGER_NAME_MAX || !printable(&r->release))
		*why = "release text too long or not printable";
	else if (r->roles == 0 ||
	    (r->roles & ~(uint32_t)(NODE_MANAGER | NODE_METADATA | NODE_STORAGE)))
		*why = "unknown roles";
	else if (r->addrs.n < 1 || r->addrs.n > ROUTING_LOOPS_MAX)
		*why = "1 to 64 addresses are needed";
	else if (r->disks.n > MANAGER_DISKS_MAX)
		*why = "too many disks";
	for (uint32_t i = 0; *why == NULL && i < r->addrs.n; i++)
		if (r->addrs.v[i].n >= NET_ADDR_TEXT ||
		    net_addr_parse(r->addrs.v[i].p, r->addrs.v[i].n, &a, NULL) != 0)
			*why = "bad address";
	for (uint32_t i = 0; *why == NULL && i < r->disks.n; i++)
		*why = disk_wrong(r, i);
	return *why == NULL ? 0 : -EINVAL;
}

/* ---- chains ---- */

/* A member of the chain came back, here or elsewhere: whatever it missed must be
 * reconciled before anyone is served.  One new version per command. */
static void
chain_event(struct manager_state *s, chain_id id, enum manager_chain_event ev)
{
	const struct routing_chain *c = routing_chain(s->routing, id);
	struct routing_chain row;

	if (s->rc != 0 || c == NULL || c->changed == s->version)
		return;
	row = *c;
	if (manager_chain_step(&row.version, &row.state, ev, 0) == 0)
		manager_put_chain(s, &row);
}

static void
disk_event(struct manager_state *s, const struct manager_disk *d,
    enum manager_chain_event ev)
{
	for (uint32_t i = 0; i < d->target_n; i++) {
		const struct routing_target *t = routing_target(s->routing,
		    d->targets[i]);

		if (t != NULL && t->chain != 0)
			chain_event(s, t->chain, ev);
	}
}

/* ---- REGISTER ---- */

/* A process that was followed by another never gets its node back: what comes from it
 * is late, or it was stopped and does not know. */
static bool
is_old_boot(const struct manager_node *n, const struct uid128 *boot)
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

/* The roles of one box may register apart, under its one name. */
static int
reg_refuse(struct manager_state *s, const struct reg *g, const struct manager_node *n)
{
	const struct routing_node *row;
	uint32_t target_n = s->target_n;

	if (n != NULL && is_old_boot(n, &g->boot))
		return ERR_STALE_NODE;
	for (unsigned i = 0; (row = routing_node_at(s->routing, i)) != NULL; i++)
		if ((n == NULL || row->id != n->id) && (row->roles & g->roles) &&
		    strlen(row->name) == g->name.n &&
		    memcmp(row->name, g->name.p, g->name.n) == 0)
			return -EEXIST;
	if (n == NULL && s->nodes.n >= MANAGER_NODES_MAX)
		return -ENOSPC;
	for (uint32_t i = 0; i < g->disk_n; i++) {
		const struct manager_disk *d = manager_uid_get(&s->disks,
		    &g->disks[i].uid);

		target_n += d == NULL ? g->disks[i].slots :
		    g->disks[i].slots > d->target_n ?
		    g->disks[i].slots - d->target_n : 0;
		/* until the other node's lease has ended it may still serve it */
		if (d != NULL && (n == NULL || d->node != n->id) &&
		    (row = routing_node(s->routing, d->node)) != NULL &&
		    row->state == NODE_UP)
			return ERR_BUSY;
	}
	return target_n > MANAGER_TARGETS_MAX ? -ENOSPC : 0;
}

/* The disk is on @n now, with at least so many slots. */
static void
reg_disk(struct manager_state *s, struct manager_node *n, const struct reg_disk *g)
{
	struct manager_disk *d = manager_uid_get(&s->disks, &g->uid);
	bool moved;

	if (d == NULL && (d = manager_add_disk(s, &g->uid)) == NULL)
		return;
	moved = d->node != 0 && d->node != n->id;
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
	if (moved)
		disk_event(s, d, MANAGER_CHAIN_MOVED);
	s->capacity_bytes += g->capacity - d->capacity;
	d->capacity = g->capacity;
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

static int
apply_register(struct manager_state *s, struct bytes_reader *r, uint64_t *value)
{
	const struct routing_node *was = NULL;
	struct routing_node row = { .state = NODE_UP };
	struct manager_node *n;
	struct reg *g;
	int rc;

	if ((g = calloc(1, sizeof(*g))) == NULL) {
		s->rc = -ENOMEM;
		return s->rc;
	}
	if ((rc = get_reg(r, g)) != 0)
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
		list_for_each(it, &n->disks)
			disk_event(s, list_entry(it, struct manager_disk,
			    node_link), MANAGER_CHAIN_BOOT);
	}
	if (was == NULL || !same_node(was, &row) || n->lease_ms != g->lease_ms ||
	    strlen(n->release) != g->release.n ||
	    memcmp(n->release, g->release.p, g->release.n) != 0) {
		memset(n->release, 0, sizeof(n->release));
		if (g->release.n > 0)
			memcpy(n->release, g->release.p, g->release.n);
		n->lease_ms = g->lease_ms;
		manager_put_node(s, n, &row);
	}
	for (uint32_t i = 0; i < g->disk_n && s->rc == 0; i++)
		reg_disk(s, n, &g->disks[i]);
	*value = n->id;
out:
	free(g);
	return rc;
}

/* ---- the others ---- */

static int
apply_init(struct manager_state *s, struct bytes_reader *r)
{
	struct uid128 cluster;

	get_uid(r, &cluster);
	if (!bytes_reader_done(r))
		return ERR_BAD_MESSAGE;
	if (uid128_zero(routing_cluster(s->routing))) {
		routing_set_cluster(s->routing, &cluster);
		s->changed = true;
	}
	return 0;
}

static int
apply_node_state(struct manager_state *s, struct bytes_reader *r)
{
	node_id id = bytes_get_u32(r);
	const struct routing_node *n = routing_node(s->routing, id);
	struct routing_node row;
	struct uid128 boot;
	uint8_t state;

	get_uid(r, &boot);
	state = bytes_get_u8(r);
	if (!bytes_reader_done(r) || (state != NODE_UP && state != NODE_DOWN))
		return ERR_BAD_MESSAGE;
	if (n == NULL || !uid128_eq(&n->boot, &boot))
		return ERR_STALE_NODE;
	if (n->state == state)
		return 0;
	row = *n;
	row.state = state;
	manager_put_node(s, map_get(&s->nodes, id), &row);
	return 0;
}

/* All chains in one list: those of the newest version in their order, then new ones. */
static void
publish(struct manager_state *s)
{
	const struct routing_table *t = routing_table(s->routing, MANAGER_TABLE, 0);
	const struct routing_chain *c;
	struct routing_table row = { .id = MANAGER_TABLE,
		.version = t == NULL ? 1 : t->version + 1 };
	uint32_t listed = t == NULL ? 0 : t->chain_n;

	if (s->rc != 0 || s->chain_n == listed)
		return;
	row.chains = calloc(s->chain_n, sizeof(*row.chains));
	if (row.chains == NULL) {
		s->rc = -ENOMEM;
		return;
	}
	if (listed > 0)
		memcpy(row.chains, t->chains, listed * sizeof(*row.chains));
	/* Chain ids rise and chains are never taken back, so the new ones are those
	 * after the last one listed. */
	row.chain_n = listed;
	for (unsigned i = listed; (c = routing_chain_at(s->routing, i)) != NULL; i++)
		row.chains[row.chain_n++] = c->id;
	assert(row.chain_n == s->chain_n);
	manager_put_table(s, &row);
	free(row.chains);
}

static int
form_refuse(const struct manager_state *s, struct bytes_reader r, unsigned replicas,
    unsigned n)
{
	if (replicas < 1 || replicas > ROUTING_REPLICAS_MAX ||
	    n > MANAGER_FORM_MAX || bytes_left(&r) != 4ull * n * replicas)
		return ERR_BAD_MESSAGE;
	if (s->chain_n + n > MANAGER_CHAINS_MAX)
		return -ENOSPC;
	for (unsigned i = 0; i < n * replicas; i++) {
		const struct routing_target *t = routing_target(s->routing,
		    bytes_get_u32(&r));

		if (t == NULL || t->chain != 0)
			return -EAGAIN;		/* planned on something older */
	}
	return 0;
}

static int
apply_form(struct manager_state *s, struct bytes_reader *r)
{
	bool last = bytes_get_u8(r) != 0;
	unsigned replicas = bytes_get_u8(r), n = bytes_get_u16(r);
	int rc;

	if (r->failed)
		return ERR_BAD_MESSAGE;
	if ((rc = form_refuse(s, *r, replicas, n)) != 0)
		return rc;
	for (unsigned i = 0; i < n && s->rc == 0; i++) {
		struct routing_chain c = { .id = s->next_chain++, .version = 1,
			.state = CHAIN_RECOVERING, .target_n = replicas };

		for (unsigned j = 0; j < replicas; j++) {
			struct routing_target t = *routing_target(s->routing,
			    c.targets[j] = bytes_get_u32(r));

			t.chain = c.id;
			manager_put_target(s, &t);
		}
		manager_put_chain(s, &c);
		s->chain_n++;
	}
	if (last)
		publish(s);
	return 0;
}

static int
apply_ready(struct manager_state *s, struct bytes_reader *r)
{
	chain_id id = bytes_get_u32(r);
	uint32_t version = bytes_get_u32(r);
	node_id node = bytes_get_u32(r);
	const struct routing_node *n = routing_node(s->routing, node);
	const struct routing_chain *c = routing_chain(s->routing, id);
	const struct routing_target *head;
	struct routing_chain row;
	struct uid128 boot;
	int rc;

	get_uid(r, &boot);
	if (!bytes_reader_done(r))
		return ERR_BAD_MESSAGE;
	if (n == NULL || !uid128_eq(&n->boot, &boot))
		return ERR_STALE_NODE;
	if (c == NULL)
		return -ENOENT;
	head = routing_target(s->routing, c->targets[0]);
	if (head == NULL || head->node != node)
		return ERR_NOT_OWNER;
	row = *c;
	rc = manager_chain_step(&row.version, &row.state, MANAGER_CHAIN_READY,
	    version);
	if (rc == 0)
		manager_put_chain(s, &row);
	return rc == -EALREADY ? 0 : rc;
}

static int
apply_config(struct manager_state *s, struct bytes_reader *r, uint64_t *value)
{
	uint8_t set = bytes_get_u8(r);
	uint64_t have = bytes_get_u64(r);
	size_t n = bytes_left(r);

	if (r->failed || set >= SET_N || n > MANAGER_CONFIG_MAX)
		return ERR_BAD_MESSAGE;
	*value = s->config_versions[set];
	if (have != *value)
		return -EAGAIN;
	*value = ++s->config_version;
	manager_put_config(s, set, *value, bytes_get_raw(r, n), n);
	return 0;
}

int
manager_apply(struct manager_state *s, const void *cmd, size_t len,
    uint8_t result[MANAGER_RESULT])
{
	uint64_t config = s->config_version, value = 0;
	uint32_t node = s->next_node, target = s->next_target;
	struct bytes_reader r;
	struct bytes_writer w;
	int rc;

	assert(s->rc == 0);
	s->version = routing_version(s->routing) + 1;
	s->changed = false;
	bytes_reader_init(&r, cmd, len);
	switch (bytes_get_u8(&r)) {
	case CMD_INIT:
		rc = apply_init(s, &r);
		break;
	case CMD_REGISTER:
		rc = apply_register(s, &r, &value);
		break;
	case CMD_NODE_STATE:
		rc = apply_node_state(s, &r);
		break;
	case CMD_FORM:
		rc = apply_form(s, &r);
		break;
	case CMD_READY:
		rc = apply_ready(s, &r);
		break;
	case CMD_CONFIG:
		rc = apply_config(s, &r, &value);
		break;
	default:
		rc = ERR_BAD_MESSAGE;
	}
	if (s->changed || s->config_version != config || s->next_node != node ||
	    s->next_target != target)
		manager_put_globals(s);
	bytes_writer_init(&w, result, MANAGER_RESULT);
	bytes_put_u32(&w, (uint32_t)rc);
	bytes_put_u64(&w, value);
	return s->rc;
}
