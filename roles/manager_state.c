/* SPDX-License-Identifier: MIT */
/* manager_state.c - rows of the manager's table, and their copy in memory.
 *
 * Invariants:
 *   1  Memory holds exactly what the rows hold (and, apart, what nodes have told).
 *   2  A target's node and loop are those of its disk; a disk is in the list of its node.
 *   3  capacity_bytes and used_bytes are the sums over all disks. */
#include "roles/manager_state.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

#define ROW_MAX	(ROUTING_TABLE_MAX * 4 + 64)
_Static_assert(ROW_MAX <= TABLE_VALUE_MAX, "a chain table is one row");

/* ---- found by 128 bits ---- */

static uint64_t
fold(const struct uid128 *u)
{
	return bytes_from_be64(u->b) ^ bytes_from_be64(u->b + 8);
}

void *
manager_uid_get(const struct map *m, const struct uid128 *uid)
{
	struct manager_uid *u = map_get(m, fold(uid));

	while (u != NULL && !uid128_eq(&u->uid, uid))
		u = u->next;
	return u;
}

int
manager_uid_put(struct map *m, struct manager_uid *u)
{
	u->next = map_get(m, fold(&u->uid));
	return map_put(m, fold(&u->uid), u);
}

void
manager_uid_del(struct map *m, struct manager_uid *u)
{
	struct manager_uid *first = map_get(m, fold(&u->uid));

	if (first == u) {
		/* replacing takes no memory and cannot fail */
		if (u->next == NULL)
			map_del(m, fold(&u->uid));
		else
			(void)map_put(m, fold(&u->uid), u->next);
		return;
	}
	while (first->next != u)
		first = first->next;
	first->next = u->next;
}

void
manager_uid_drop(struct map *m, void (*fn)(struct manager_uid *))
{
	struct manager_uid *u, *next;
	size_t it = 0;

	while ((u = map_next(m, &it, NULL)) != NULL) {
		for (; u != NULL; u = next) {
			next = u->next;
			fn(u);
		}
	}
	map_fini(m);
}

/* ---- writing ---- */

static void
put_text(struct bytes_writer *w, const char *s)
{
	size_t n = strlen(s);

	bytes_put_u16(w, (uint16_t)n);
	bytes_put_raw(w, s, n);
}

static void
put_row(struct manager_state *s, const void *key, size_t key_len,
    const struct bytes_writer *w)
{
	assert(!w->failed);
	if (s->rc == 0)
		s->rc = table_put(s->table, key, key_len, w->start,
		    bytes_written(w));
}

static void
key32(uint8_t key[5], char prefix, uint32_t id)
{
	key[0] = (uint8_t)prefix;
	bytes_be32(key + 1, id);
}

void
manager_put_globals(struct manager_state *s)
{
	uint8_t buf[64];
	struct bytes_writer w;

	if (s->rc != 0)
		return;
	if (s->changed)
		routing_set_version(s->routing, s->version);
	bytes_writer_init(&w, buf, sizeof(buf));
	bytes_put_u8(&w, MANAGER_FORMAT);
	bytes_put_u64(&w, routing_version(s->routing));
	bytes_put_u64(&w, s->config_version);
	bytes_put_u32(&w, s->next_node);
	bytes_put_u32(&w, s->next_target);
	bytes_put_u32(&w, s->next_chain);
	bytes_put_raw(&w, routing_cluster(s->routing)->b, 16);
	put_row(s, "G", 1, &w);
}

/* Rows of one version go out in one message: a command that changes more makes several. */
static void
stamp(struct manager_state *s, uint64_t *changed, size_t bytes)
{
	if (s->version_bytes > 0 && s->version_bytes + bytes > MANAGER_VERSION_BYTES) {
		s->version++;
		s->version_bytes = 0;
	}
	s->version_bytes += bytes;
	s->changed = true;
	*changed = s->version;
}

/* ---- memory, with counts of what serves ---- */

int
manager_keep_node(struct manager_state *s, const struct routing_node *row)
{
	const struct routing_node *was = routing_node(s->routing, row->id);
	uint32_t up_n = s->up_n - (was != NULL && was->state == NODE_UP) +
	    (row->state == NODE_UP);
	int rc = routing_put_node(s->routing, row);

	if (rc == 0)
		s->up_n = up_n;
	return rc;
}

static void
count_chain(struct manager_state *s, const struct routing_chain *c, uint32_t by)
{
	unsigned serving = routing_serving_n(c);

	s->serving_n += serving > 0 ? by : 0;
	s->whole_n += serving == c->target_n ? by : 0;
	s->syncing_n += routing_active_n(c) > serving ? by : 0;
}

int
manager_keep_chain(struct manager_state *s, const struct routing_chain *row)
{
	const struct routing_chain *p = routing_chain(s->routing, row->id);
	struct routing_chain was = { 0 };
	int rc;

	if (p != NULL)
		was = *p;
	if ((rc = routing_put_chain(s->routing, row)) != 0)
		return rc;
	if (p != NULL)
		count_chain(s, &was, UINT32_MAX);	/* - 1 */
	count_chain(s, row, 1);
	return 0;
}

/* ---- rows ---- */

void
manager_put_node(struct manager_state *s, struct manager_node *n,
    struct routing_node *row)
{
	uint8_t buf[8192], key[5];
	struct bytes_writer w;

	if (s->rc != 0)
		return;
	stamp(s, &row->changed, 128 + row->addr_n * NET_ADDR_TEXT);
	bytes_writer_init(&w, buf, sizeof(buf));
	bytes_put_u64(&w, row->changed);
	bytes_put_raw(&w, n->u.uid.b, 16);
	bytes_put_raw(&w, row->boot.b, 16);
	bytes_put_u32(&w, row->roles);
	bytes_put_u8(&w, row->state);
	put_text(&w, row->name);
	put_text(&w, n->release);
	bytes_put_u32(&w, n->lease_ms);
	bytes_put_u8(&w, (uint8_t)row->addr_n);
	for (uint32_t i = 0; i < row->addr_n; i++) {
		char text[NET_ADDR_TEXT];

		net_addr_text(&row->addrs[i], text);
		put_text(&w, text);
	}
	bytes_put_u8(&w, (uint8_t)n->old_boot_n);
	for (uint32_t i = 0; i < n->old_boot_n; i++)
		bytes_put_raw(&w, n->old_boots[i].b, 16);
	bytes_put_u64(&w, n->member);
	key32(key, 'N', row->id);
	put_row(s, key, sizeof(key), &w);
	if (s->rc == 0)
		s->rc = manager_keep_node(s, row);
}

void
manager_put_disk(struct manager_state *s, struct manager_disk *d)
{
	uint8_t buf[32], key[17];
	struct bytes_writer w;

	bytes_writer_init(&w, buf, sizeof(buf));
	bytes_put_u32(&w, d->node);
	bytes_put_u32(&w, d->loop);
	bytes_put_u32(&w, d->slots);
	bytes_put_u64(&w, d->capacity);
	bytes_put_u8(&w, (uint8_t)d->health);
	s->dirty = true;
	key[0] = 'D';
	memcpy(key + 1, d->u.uid.b, 16);
	put_row(s, key, sizeof(key), &w);
}

void
manager_put_target(struct manager_state *s, struct routing_target *row)
{
	uint8_t buf[64], key[5];
	struct bytes_writer w;

	if (s->rc != 0)
		return;
	stamp(s, &row->changed, 56);
	bytes_writer_init(&w, buf, sizeof(buf));
	bytes_put_u64(&w, row->changed);
	bytes_put_u32(&w, row->node);
	bytes_put_u32(&w, row->loop);
	bytes_put_raw(&w, row->disk.b, 16);
	bytes_put_u32(&w, row->chain);
	key32(key, 'T', row->id);
	put_row(s, key, sizeof(key), &w);
	if (s->rc == 0)
		s->rc = routing_put_target(s->routing, row);
}

void
manager_put_chain(struct manager_state *s, struct routing_chain *row)
{
	uint8_t buf[128], key[5];
	struct bytes_writer w;

	if (s->rc != 0)
		return;
	stamp(s, &row->changed, 136);
	bytes_writer_init(&w, buf, sizeof(buf));
	bytes_put_u64(&w, row->changed);
	bytes_put_u32(&w, row->version);
	bytes_put_u8(&w, row->state);
	bytes_put_u8(&w, (uint8_t)row->target_n);
	for (uint32_t i = 0; i < row->target_n; i++)
		bytes_put_u32(&w, row->targets[i]);
	for (uint32_t i = 0; i < row->target_n; i++)
		bytes_put_u8(&w, row->states[i]);
	for (uint32_t i = 0; i < row->target_n; i++)
		bytes_put_u32(&w, row->preferred[i]);
	key32(key, 'C', row->id);
	put_row(s, key, sizeof(key), &w);
	if (s->rc == 0)
		s->rc = manager_keep_chain(s, row);
}

void
manager_put_table(struct manager_state *s, struct routing_table *row)
{
	uint8_t *buf = malloc(ROW_MAX), key[9];
	struct bytes_writer w;

	if (buf == NULL && s->rc == 0)
		s->rc = -ENOMEM;
	if (s->rc != 0) {
		free(buf);
		return;
	}
	stamp(s, &row->changed, 32 + 5 * (size_t)row->chain_n);
	bytes_writer_init(&w, buf, ROW_MAX);
	bytes_put_u64(&w, row->changed);
	bytes_put_u32(&w, row->chain_n);
	for (uint32_t i = 0; i < row->chain_n; i++)
		bytes_put_u32(&w, row->chains[i]);
	key32(key, 'B', row->id);
	bytes_be32(key + 5, row->version);
	put_row(s, key, sizeof(key), &w);
	free(buf);
	if (s->rc == 0)
		s->rc = routing_put_table(s->routing, row);
}

void
manager_put_group(struct manager_state *s, struct routing_group *row)
{
	uint8_t buf[64 + ROUTING_MEMBERS_MAX * 12], key[5];
	struct bytes_writer w;

	if (s->rc != 0)
		return;
	stamp(s, &row->changed, sizeof(buf));
	bytes_writer_init(&w, buf, sizeof(buf));
	bytes_put_u64(&w, row->changed);
	bytes_put_raw(&w, row->group.b, 16);
	bytes_put_u8(&w, row->fixed);
	bytes_put_u32(&w, row->leader);
	bytes_put_u64(&w, row->term);
	bytes_put_u8(&w, (uint8_t)row->n);
	for (uint32_t i = 0; i < row->n; i++) {
		bytes_put_u32(&w, row->nodes[i]);
		bytes_put_u64(&w, row->members[i]);
	}
	key32(key, 'R', row->id);
	put_row(s, key, sizeof(key), &w);
	if (s->rc == 0)
		s->rc = routing_put_group(s->routing, row);
}

void
manager_put_members(struct manager_state *s, const struct manager_member *list,
    unsigned n)
{
	uint8_t buf[1024];
	struct bytes_writer w;

	bytes_writer_init(&w, buf, sizeof(buf));
	manager_members_write(&w, list, n);
	put_row(s, "M", 1, &w);
	s->dirty = true;
	if (s->rc != 0)
		return;
	memcpy(s->managers, list, n * sizeof(*list));
	s->manager_n = n;
}

void
manager_keep_config(struct manager_state *s, enum manager_set set, uint64_t version,
    const char *text, size_t n)
{
	char *copy = malloc(n + 1);

	if (copy == NULL) {
		s->rc = -ENOMEM;
		return;
	}
	if (n > 0)
		memcpy(copy, text, n);
	copy[n] = '\0';
	free(s->config_texts[set]);
	s->config_texts[set] = copy;
	s->config_versions[set] = version;
}

static void
config_key(uint8_t key[10], enum manager_set set, uint64_t version)
{
	key[0] = 'O';
	key[1] = (uint8_t)set;
	bytes_be64(key + 2, version);
}

/* Old versions are kept for looking back, the oldest of too many goes. */
static void
config_trim(struct manager_state *s, enum manager_set set)
{
	uint8_t key[10], oldest[10];
	const void *found, *value;
	size_t found_len, value_len;
	unsigned n = 0;

	config_key(key, set, 0);
	while (table_seek(s->table, key, sizeof(key), true, 2, &found, &found_len,
	    &value, &value_len) == 0 && found_len == sizeof(key)) {
		memcpy(key, found, sizeof(key));
		if (n++ == 0)
			memcpy(oldest, key, sizeof(key));
	}
	if (n > MANAGER_CONFIG_KEEP && s->rc == 0)
		s->rc = table_del(s->table, oldest, sizeof(oldest));
}

void
manager_put_config(struct manager_state *s, enum manager_set set, uint64_t version,
    const char *text, size_t n)
{
	uint8_t key[10];

	config_key(key, set, version);
	if (s->rc == 0)
		s->rc = table_put(s->table, key, sizeof(key), text, n);
	if (s->rc == 0)
		manager_keep_config(s, set, version, text, n);
	s->dirty = true;
	if (s->rc == 0)
		config_trim(s, set);
}

/* ---- memory ---- */

struct manager_node *
manager_add_node(struct manager_state *s, const struct uid128 *uid, node_id id)
{
	struct manager_node *n;

	if (s->rc != 0)
		return NULL;
	if ((n = calloc(1, sizeof(*n))) == NULL) {
		s->rc = -ENOMEM;
		return NULL;
	}
	n->u.uid = *uid;
	n->id = id;
	list_init(&n->disks);
	list_init(&n->lease);
	if ((s->rc = manager_uid_put(&s->nodes_by_uid, &n->u)) != 0) {
		free(n);
		return NULL;
	}
	s->rc = map_put(&s->nodes, id, n);
	return s->rc == 0 ? n : NULL;
}

struct manager_disk *
manager_add_disk(struct manager_state *s, const struct uid128 *uid)
{
	struct manager_disk *d;

	if (s->rc != 0)
		return NULL;
	if ((d = calloc(1, sizeof(*d))) == NULL) {
		s->rc = -ENOMEM;
		return NULL;
	}
	d->u.uid = *uid;
	list_init(&d->node_link);
	if ((s->rc = manager_uid_put(&s->disks, &d->u)) != 0) {
		free(d);
		return NULL;
	}
	s->disk_n++;
	return d;
}

void
manager_disk_to(struct manager_state *s, struct manager_disk *d,
    struct manager_node *n)
{
	struct manager_node *was = map_get(&s->nodes, d->node);

	if (d->node != 0 && was != NULL) {
		list_remove(&d->node_link);
		was->disk_n--;
	}
	d->node = n->id;
	list_push_back(&n->disks, &d->node_link);
	n->disk_n++;
}

/* ---- open, close ---- */

int
manager_state_open(struct manager_state *s, struct table *table,
    const struct log *log)
{
	int rc;

	*s = (struct manager_state){ .table = table, .log = log,
		.next_node = 1, .next_target = 1, .next_chain = 1 };
	list_init(&s->hold_list);
	rc = routing_open(&s->routing);
	if (rc == 0)
		rc = manager_load(s);
	if (rc != 0)
		manager_state_close(s);
	return rc;
}

static void
free_node(struct manager_uid *u)
{
	free(container_of(u, struct manager_node, u));
}

static void
free_disk(struct manager_uid *u)
{
	free(container_of(u, struct manager_disk, u));
}

void
manager_state_close(struct manager_state *s)
{
	routing_close(s->routing);
	manager_uid_drop(&s->nodes_by_uid, free_node);
	manager_uid_drop(&s->disks, free_disk);
	manager_holds_close(s);
	map_fini(&s->nodes);
	for (unsigned i = 0; i < SET_N; i++)
		free(s->config_texts[i]);
	*s = (struct manager_state){ 0 };
}
