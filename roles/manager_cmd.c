/* SPDX-License-Identifier: MIT */
/* manager_cmd.c - how the manager's commands are written, and what nodes may say. */
#include "roles/manager_state.h"

#include <errno.h>
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
		bytes_put_u8(w, d->failed != 0);
	}
	bytes_put_u64(w, r->member);
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
    const struct manager_plan *plan, size_t n)
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
manager_cmd_config(struct bytes_writer *w, enum manager_set set, uint64_t have,
    const char *text, size_t n)
{
	bytes_put_u8(w, CMD_CONFIG);
	bytes_put_u8(w, (uint8_t)set);
	bytes_put_u64(w, have);
	bytes_put_raw(w, text, n);
}

void
manager_cmd_down(struct bytes_writer *w, uint16_t n)
{
	bytes_put_u8(w, CMD_DOWN);
	bytes_put_u16(w, n);
}

void
manager_cmd_down_node(struct bytes_writer *w, node_id node, const struct uid128 *boot)
{
	bytes_put_u32(w, node);
	bytes_put_raw(w, boot->b, 8);	/* enough to tell it from another process */
}

void
manager_cmd_disk(struct bytes_writer *w, node_id node, const struct uid128 *boot,
    const struct uid128 *disk, enum manager_health health)
{
	bytes_put_u8(w, CMD_DISK);
	bytes_put_u32(w, node);
	bytes_put_raw(w, boot->b, 16);
	bytes_put_raw(w, disk->b, 16);
	bytes_put_u8(w, (uint8_t)health);
}

void
manager_cmd_synced(struct bytes_writer *w, const struct msg_synced *q)
{
	bytes_put_u8(w, CMD_SYNCED);
	bytes_put_u32(w, q->node);
	bytes_put_raw(w, q->boot.b, 16);
	bytes_put_u32(w, q->chain);
	bytes_put_u32(w, q->version);
	bytes_put_u32(w, q->target);
	if (q->rc != 0)
		bytes_put_u32(w, (uint32_t)q->rc);
}

void
manager_cmd_release(struct bytes_writer *w, const struct manager_hold *h)
{
	bytes_put_u8(w, CMD_RELEASE);
	bytes_put_u32(w, h->target);
	bytes_put_u8(w, h->tries);
}

void
manager_cmd_rotate(struct bytes_writer *w, chain_id chain, uint32_t version,
    target_id target)
{
	bytes_put_u8(w, CMD_ROTATE);
	bytes_put_u32(w, chain);
	bytes_put_u32(w, version);
	bytes_put_u32(w, target);
}

void
manager_cmd_accept(struct bytes_writer *w, chain_id chain, target_id target)
{
	bytes_put_u8(w, CMD_ACCEPT);
	bytes_put_u32(w, chain);
	bytes_put_u32(w, target);
}

void
manager_cmd_replace(struct bytes_writer *w, const struct uid128 *disk,
    const struct uid128 *with)
{
	bytes_put_u8(w, CMD_REPLACE);
	bytes_put_raw(w, disk->b, 16);
	bytes_put_raw(w, with->b, 16);
}

void
manager_cmd_look(struct bytes_writer *w)
{
	bytes_put_u8(w, CMD_LOOK);
}

void
manager_cmd_part(struct bytes_writer *w, node_id node, const struct uid128 *boot,
    node_id silent, node_id leaver)
{
	bytes_put_u8(w, CMD_PART);
	bytes_put_u32(w, node);
	bytes_put_raw(w, boot->b, 16);
	bytes_put_u32(w, silent);
	bytes_put_u32(w, leaver);
}

void
manager_cmd_join(struct bytes_writer *w, node_id node, const struct uid128 *boot,
    node_id other)
{
	bytes_put_u8(w, CMD_JOIN);
	bytes_put_u32(w, node);
	bytes_put_raw(w, boot->b, 16);
	bytes_put_u32(w, other);
}

void
manager_members_write(struct bytes_writer *w, const struct manager_member *list,
    unsigned n)
{
	bytes_put_u8(w, (uint8_t)n);
	for (unsigned i = 0; i < n; i++) {
		char text[NET_ADDR_TEXT];
		struct msg_str s;

		net_addr_text(&list[i].addr, text);
		s = msg_str(text);
		bytes_put_u64(w, list[i].id);
		put_str(w, &s);
	}
}

void
manager_cmd_managers(struct bytes_writer *w, const struct manager_member *list,
    unsigned n)
{
	bytes_put_u8(w, CMD_MANAGERS);
	manager_members_write(w, list, n);
}

void
manager_cmd_group(struct bytes_writer *w, const struct routing_group *row)
{
	bytes_put_u8(w, CMD_GROUP);
	bytes_put_u32(w, row->id);
	bytes_put_u64(w, row->changed);
	bytes_put_u8(w, row->fixed);
	bytes_put_u8(w, (uint8_t)row->n);
	for (unsigned i = 0; i < row->n; i++) {
		bytes_put_u32(w, row->nodes[i]);
		bytes_put_u64(w, row->members[i]);
	}
}

void
manager_cmd_group_leads(struct bytes_writer *w, node_id node, const struct uid128 *boot,
    const struct msg_group_status *q)
{
	bytes_put_u8(w, CMD_GROUP_LEADS);
	bytes_put_u32(w, node);
	bytes_put_raw(w, boot->b, 16);
	bytes_put_u32(w, q->id);
	bytes_put_raw(w, q->group.b, 16);
	bytes_put_u64(w, q->term);
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

int
manager_reg_read(struct bytes_reader *r, bool format1, struct manager_reg *g)
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
		struct manager_reg_disk *d = &g->disks[i];

		get_uid(r, &d->uid);
		d->loop = bytes_get_u32(r);
		d->slots = bytes_get_u32(r);
		d->capacity = bytes_get_u64(r);
		d->failed = !format1 && bytes_get_u8(r) != 0;
		if (d->slots > MANAGER_SLOTS_MAX)
			return ERR_BAD_MESSAGE;
	}
	if (bytes_left(r) > 0)			/* not in older logs */
		g->member = bytes_get_u64(r);
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

int
manager_members_read(struct bytes_reader *r, struct manager_member *list, unsigned *n)
{
	*n = bytes_get_u8(r);
	if (*n > MANAGER_MEMBERS_MAX)
		return ERR_BAD_MESSAGE;
	for (unsigned i = 0; i < *n; i++) {
		struct msg_str s;

		list[i].id = bytes_get_u64(r);
		s = get_str(r);
		if (r->failed || net_addr_parse(s.p, s.n, &list[i].addr, NULL) != 0)
			return ERR_BAD_MESSAGE;
	}
	return bytes_reader_done(r) ? 0 : ERR_BAD_MESSAGE;
}
