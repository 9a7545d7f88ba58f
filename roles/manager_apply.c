/* SPDX-License-Identifier: MIT */
/* manager_apply.c - what the manager's commands do.  Refusals are results, the same on
 * every replica; a command that was refused has changed nothing. */
#include "roles/manager_state.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

static void
get_uid(struct bytes_reader *r, struct uid128 *out)
{
	const void *p = bytes_get_raw(r, 16);

	memset(out, 0, sizeof(*out));
	if (p != NULL)
		memcpy(out->b, p, 16);
}

/* The row of a node if @boot is the process that has it. */
static const struct routing_node *
holder(const struct manager_state *s, node_id id, const struct uid128 *boot)
{
	const struct routing_node *n = routing_node(s->routing, id);

	return n != NULL && uid128_eq(&n->boot, boot) ? n : NULL;
}

/* ---- nodes and disks ---- */

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

static void
set_state(struct manager_state *s, const struct routing_node *n, uint8_t state)
{
	struct routing_node row = *n;

	if (row.state == state)
		return;
	row.state = state;
	manager_put_node(s, map_get(&s->nodes, row.id), &row);
}

static int
apply_node_state(struct manager_state *s, struct bytes_reader *r)
{
	node_id id = bytes_get_u32(r);
	const struct routing_node *n;
	struct uid128 boot;
	uint8_t state;

	get_uid(r, &boot);
	state = bytes_get_u8(r);
	if (!bytes_reader_done(r) || (state != NODE_UP && state != NODE_DOWN))
		return ERR_BAD_MESSAGE;
	if ((n = holder(s, id, &boot)) == NULL)
		return ERR_STALE_NODE;
	set_state(s, n, state);
	manager_heal_node(s, map_get(&s->nodes, id));
	return 0;
}

/* All of them are gone before any chain is looked at: so the last one to have everything
 * is found among all that have gone. */
static int
apply_down(struct manager_state *s, struct bytes_reader *r, uint64_t *value)
{
	unsigned n = bytes_get_u16(r);
	struct bytes_reader again = *r;

	if (r->failed || bytes_left(r) != 12ull * n)
		return ERR_BAD_MESSAGE;
	for (unsigned i = 0; i < n; i++) {
		const struct routing_node *row = routing_node(s->routing,
		    bytes_get_u32(r));
		const void *boot = bytes_get_raw(r, 8);

		if (row == NULL || memcmp(row->boot.b, boot, 8) != 0 ||
		    row->state == NODE_DOWN)
			continue;
		set_state(s, row, NODE_DOWN);
		(*value)++;
	}
	for (unsigned i = 0; i < n; i++) {
		const struct manager_node *node = map_get(&s->nodes,
		    bytes_get_u32(&again));

		(void)bytes_get_raw(&again, 8);
		if (node != NULL)
			manager_heal_node(s, node);
	}
	return 0;
}

static int
apply_disk(struct manager_state *s, struct bytes_reader *r)
{
	node_id node = bytes_get_u32(r);
	struct uid128 boot, disk;
	struct manager_disk *d;
	uint8_t health;

	get_uid(r, &boot);
	get_uid(r, &disk);
	health = bytes_get_u8(r);
	if (!bytes_reader_done(r) || health > DISK_ABSENT)
		return ERR_BAD_MESSAGE;
	if (holder(s, node, &boot) == NULL)
		return ERR_STALE_NODE;
	if ((d = manager_uid_get(&s->disks, &disk)) == NULL)
		return -ENOENT;
	if (d->node != node)
		return ERR_NOT_OWNER;
	if (d->health == health || d->health == DISK_REPLACED)
		return 0;
	d->health = health;
	manager_put_disk(s, d);
	manager_heal_disk(s, d);
	return 0;
}

/* ---- chains ---- */

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
		target_id targets[ROUTING_REPLICAS_MAX];
		struct routing_chain c = { .id = s->next_chain++ };

		for (unsigned j = 0; j < replicas; j++) {
			struct routing_target t = *routing_target(s->routing,
			    targets[j] = bytes_get_u32(r));

			t.chain = c.id;
			manager_put_target(s, &t);
		}
		manager_chain_init(&c, targets, replicas);
		manager_put_chain(s, &c);
		s->chain_n++;
		/* somebody may have gone since it was planned */
		if (s->rc == 0)
			(void)manager_heal_chain(s, c.id, MANAGER_CHAIN_LOOK, 0, 0);
	}
	if (last)
		publish(s);
	return 0;
}

/* @value: in which state the replica was. */
static int
apply_synced(struct manager_state *s, struct bytes_reader *r, uint64_t *value)
{
	node_id node = bytes_get_u32(r);
	const struct routing_chain *c;
	const struct routing_target *tail, *own;
	struct uid128 boot;
	chain_id id;
	uint32_t version;
	target_id target;
	unsigned n;
	int why = 0, rc;

	get_uid(r, &boot);
	id = bytes_get_u32(r);
	version = bytes_get_u32(r);
	target = bytes_get_u32(r);
	if (bytes_left(r) > 0)
		why = (int32_t)bytes_get_u32(r);
	if (!bytes_reader_done(r))
		return ERR_BAD_MESSAGE;
	if (holder(s, node, &boot) == NULL)
		return ERR_STALE_NODE;
	if ((c = routing_chain(s->routing, id)) == NULL)
		return -ENOENT;
	n = routing_serving_n(c);
	for (unsigned i = 0; i < c->target_n; i++)
		if (c->targets[i] == target)
			*value = c->states[i];
	if (*value == TARGET_SERVING && why == 0)
		return 0;			/* said again */
	if (c->version != version)
		return ERR_STALE_CHAIN;
	own = routing_target(s->routing, target);
	if (n == 0 || (tail = routing_target(s->routing, c->targets[n - 1])) ==
	    NULL || (tail->node != node && (why == 0 || own == NULL ||
	    own->node != node)))
		return ERR_NOT_OWNER;
	/* Who serves says so itself. */
	if (*value == TARGET_SERVING && (own == NULL || own->node != node))
		return ERR_NOT_OWNER;
	rc = manager_heal_chain(s, id, why == 0 ? MANAGER_CHAIN_SYNCED :
	    MANAGER_CHAIN_UNFIT, target, 0);
	if (rc == 0 && why == 0)
		manager_hold_drop(s, target);
	else if (rc == 0)
		manager_hold(s, target, why);
	return rc;
}

static int
apply_rotate(struct manager_state *s, struct bytes_reader *r)
{
	chain_id id = bytes_get_u32(r);
	uint32_t version = bytes_get_u32(r);
	target_id target = bytes_get_u32(r);
	const struct routing_chain *c = routing_chain(s->routing, id);

	if (!bytes_reader_done(r))
		return ERR_BAD_MESSAGE;
	if (c != NULL && c->version != version)
		return ERR_STALE_CHAIN;
	return manager_heal_chain(s, id, MANAGER_CHAIN_ROTATE, target, 0);
}

static int
apply_part(struct manager_state *s, struct bytes_reader *r, uint64_t *value)
{
	node_id node = bytes_get_u32(r), silent, leaver;
	struct uid128 boot;

	get_uid(r, &boot);
	silent = bytes_get_u32(r);
	leaver = bytes_get_u32(r);
	if (!bytes_reader_done(r) || (leaver != node && leaver != silent))
		return ERR_BAD_MESSAGE;
	if (holder(s, node, &boot) == NULL)
		return ERR_STALE_NODE;
	*value = manager_heal_part(s, node, silent, leaver, true);
	return 0;
}

static int
apply_join(struct manager_state *s, struct bytes_reader *r, uint64_t *value)
{
	node_id node = bytes_get_u32(r), other;
	struct uid128 boot;

	get_uid(r, &boot);
	other = bytes_get_u32(r);
	if (!bytes_reader_done(r))
		return ERR_BAD_MESSAGE;
	if (holder(s, node, &boot) == NULL)
		return ERR_STALE_NODE;
	*value = manager_heal_join(s, node, other, true);
	return 0;
}

static int
apply_accept(struct manager_state *s, struct bytes_reader *r)
{
	chain_id id = bytes_get_u32(r);
	target_id target = bytes_get_u32(r);

	if (!bytes_reader_done(r))
		return ERR_BAD_MESSAGE;
	return manager_heal_chain(s, id, MANAGER_CHAIN_ACCEPT, target, 0);
}

static int
apply_replace(struct manager_state *s, struct bytes_reader *r)
{
	struct uid128 old, with;

	get_uid(r, &old);
	get_uid(r, &with);
	if (!bytes_reader_done(r))
		return ERR_BAD_MESSAGE;
	return manager_heal_replace(s, manager_uid_get(&s->disks, &old),
	    manager_uid_get(&s->disks, &with));
}

/* ---- the others ---- */

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

static int
apply_managers(struct manager_state *s, struct bytes_reader *r)
{
	struct manager_member list[MANAGER_MEMBERS_MAX];
	unsigned n;
	int rc = manager_members_read(r, list, &n);

	if (rc == 0)
		manager_put_members(s, list, n);
	return rc;
}

static int
apply_one(struct manager_state *s, struct bytes_reader *r, uint64_t *value)
{
	uint8_t cmd = bytes_get_u8(r);

	switch (cmd) {
	case CMD_INIT:
		return apply_init(s, r);
	case CMD_REGISTER:
	case CMD_REGISTER_1:
		return manager_apply_register(s, r, cmd == CMD_REGISTER_1, value);
	case CMD_NODE_STATE:
		return apply_node_state(s, r);
	case CMD_FORM:
		return apply_form(s, r);
	case CMD_CONFIG:
		return apply_config(s, r, value);
	case CMD_DOWN:
		return apply_down(s, r, value);
	case CMD_DISK:
		return apply_disk(s, r);
	case CMD_SYNCED:
		return apply_synced(s, r, value);
	case CMD_ROTATE:
		return apply_rotate(s, r);
	case CMD_ACCEPT:
		return apply_accept(s, r);
	case CMD_REPLACE:
		return apply_replace(s, r);
	case CMD_MANAGERS:
		return apply_managers(s, r);
	case CMD_GROUP:
		return manager_apply_group(s, r);
	case CMD_GROUP_LEADS:
		return manager_apply_group_leads(s, r);
	case CMD_RELEASE:
		return manager_apply_release(s, r);
	case CMD_PART:
		return apply_part(s, r, value);
	case CMD_JOIN:
		return apply_join(s, r, value);
	case CMD_LOOK:
		if (!bytes_reader_done(r))
			return ERR_BAD_MESSAGE;
		manager_heal_all(s);
		return 0;
	case CMD_READY_1:
		(void)bytes_get_raw(r, bytes_left(r));
		return ERR_BAD_MESSAGE;
	default:
		return ERR_DISK_NEWER;
	}
}

/* Another release may do what we cannot: a command that is not one of ours, or has more
 * than ours.  To pass over it would leave this manager with a state of its own. */
static bool
newer(const struct bytes_reader *r, int rc)
{
	return rc == ERR_DISK_NEWER ||
	    (rc == ERR_BAD_MESSAGE && !r->failed && bytes_left(r) > 0);
}

int
manager_apply(struct manager_state *s, const void *cmd, size_t len,
    uint8_t result[MANAGER_RESULT])
{
	uint32_t node = s->next_node, target = s->next_target;
	uint64_t value = 0;
	struct bytes_reader r;
	struct bytes_writer w;
	int rc;

	assert(s->rc == 0);
	s->version = s->first_version = routing_version(s->routing) + 1;
	s->version_bytes = 0;
	s->changed = s->dirty = false;
	bytes_reader_init(&r, cmd, len);
	rc = apply_one(s, &r, &value);
	if (newer(&r, rc)) {
		log_error(s->log, "command of a newer release: this one has to be "
		    "upgraded", "command=%u bytes=%zu", len > 0 ?
		    ((const uint8_t *)cmd)[0] : 0u, len);
		s->rc = ERR_DISK_NEWER;
		return s->rc;
	}
	if (s->changed || s->dirty || s->next_node != node ||
	    s->next_target != target)
		manager_put_globals(s);
	bytes_writer_init(&w, result, MANAGER_RESULT);
	bytes_put_u32(&w, (uint32_t)rc);
	bytes_put_u64(&w, value);
	return s->rc;
}
