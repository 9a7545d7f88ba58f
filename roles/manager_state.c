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

#define FORMAT	1u
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
	bytes_put_u8(&w, FORMAT);
	bytes_put_u64(&w, routing_version(s->routing));
	bytes_put_u64(&w, s->config_version);
	bytes_put_u32(&w, s->next_node);
	bytes_put_u32(&w, s->next_target);
	bytes_put_u32(&w, s->next_chain);
	bytes_put_raw(&w, routing_cluster(s->routing)->b, 16);
	put_row(s, "G", 1, &w);
}

/* Put rows into memory, and keep count of what serves. */
static int
keep_node(struct manager_state *s, const struct routing_node *row)
{
	const struct routing_node *was = routing_node(s->routing, row->id);
	uint32_t up_n = s->up_n - (was != NULL && was->state == NODE_UP) +
	    (row->state == NODE_UP);
	int rc = routing_put_node(s->routing, row);

	if (rc == 0)
		s->up_n = up_n;
	return rc;
}

static int
keep_chain(struct manager_state *s, struct routing_chain *row)
{
	const struct routing_chain *was = routing_chain(s->routing, row->id);
	uint32_t serving_n = s->serving_n - (was != NULL &&
	    was->state == CHAIN_SERVING) + (row->state == CHAIN_SERVING);
	int rc;

	/* all replicas do the same for now */
	for (uint32_t i = 0; i < row->target_n; i++) {
		row->states[i] = row->state == CHAIN_SERVING ? TARGET_SERVING :
		    TARGET_WAITING;
		row->preferred[i] = row->targets[i];
	}
	rc = routing_put_chain(s->routing, row);
	if (rc == 0)
		s->serving_n = serving_n;
	return rc;
}

void
manager_put_node(struct manager_state *s, struct manager_node *n,
    struct routing_node *row)
{
	uint8_t buf[8192], key[5];
	struct bytes_writer w;

	if (s->rc != 0)
		return;
	row->changed = s->version;
	s->changed = true;
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
	key32(key, 'N', row->id);
	put_row(s, key, sizeof(key), &w);
	if (s->rc == 0)
		s->rc = keep_node(s, row);
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
	row->changed = s->version;
	s->changed = true;
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
	uint8_t buf[64], key[5];
	struct bytes_writer w;

	if (s->rc != 0)
		return;
	row->changed = s->version;
	s->changed = true;
	bytes_writer_init(&w, buf, sizeof(buf));
	bytes_put_u64(&w, row->changed);
	bytes_put_u32(&w, row->version);
	bytes_put_u8(&w, row->state);
	bytes_put_u8(&w, (uint8_t)row->target_n);
	for (uint32_t i = 0; i < row->target_n; i++)
		bytes_put_u32(&w, row->targets[i]);
	key32(key, 'C', row->id);
	put_row(s, key, sizeof(key), &w);
	if (s->rc == 0)
		s->rc = keep_chain(s, row);
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
	row->changed = s->version;
	s->changed = true;
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

static void
config_in_memory(struct manager_state *s, enum manager_set set, uint64_t version,
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
		config_in_memory(s, set, version, text, n);
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

/* ---- reading ---- */

static void
get_text(struct bytes_reader *r, char *out, size_t max)
{
	size_t n = bytes_get_u16(r);
	const void *p;

	out[0] = '\0';
	if (n > max) {
		r->failed = true;
		return;
	}
	if ((p = bytes_get_raw(r, n)) == NULL)
		return;
	memcpy(out, p, n);
	out[n] = '\0';
}

static void
get_uid(struct bytes_reader *r, struct uid128 *out)
{
	const void *p = bytes_get_raw(r, 16);

	if (p != NULL)
		memcpy(out->b, p, 16);
}

/* What every reader returns: 0, -ENOMEM or ERR_CORRUPT. */
typedef int row_fn(struct manager_state *s, const uint8_t *key, size_t key_len,
    struct bytes_reader *r);

static int
load_globals(struct manager_state *s, const uint8_t *key, size_t key_len,
    struct bytes_reader *r)
{
	struct uid128 cluster = { { 0 } };

	(void)key;
	if (key_len != 1 || bytes_get_u8(r) != FORMAT)
		return ERR_CORRUPT;
	routing_set_version(s->routing, bytes_get_u64(r));
	s->config_version = bytes_get_u64(r);
	s->next_node = bytes_get_u32(r);
	s->next_target = bytes_get_u32(r);
	s->next_chain = bytes_get_u32(r);
	get_uid(r, &cluster);
	routing_set_cluster(s->routing, &cluster);
	return bytes_reader_done(r) ? 0 : ERR_CORRUPT;
}

static int
load_node(struct manager_state *s, const uint8_t *key, size_t key_len,
    struct bytes_reader *r)
{
	struct routing_node row = { 0 };
	struct manager_node *n;
	struct uid128 uid = { { 0 } };

	if (key_len != 5)
		return ERR_CORRUPT;
	row.id = bytes_from_be32(key + 1);
	row.changed = bytes_get_u64(r);
	get_uid(r, &uid);
	get_uid(r, &row.boot);
	row.roles = bytes_get_u32(r);
	row.state = bytes_get_u8(r);
	get_text(r, row.name, sizeof(row.name) - 1);
	if ((n = manager_add_node(s, &uid, row.id)) == NULL)
		return s->rc;
	get_text(r, n->release, sizeof(n->release) - 1);
	n->lease_ms = bytes_get_u32(r);
	row.addr_n = bytes_get_u8(r);
	if (row.addr_n > ROUTING_LOOPS_MAX)
		return ERR_CORRUPT;
	for (uint32_t i = 0; i < row.addr_n; i++) {
		char text[NET_ADDR_TEXT];

		get_text(r, text, sizeof(text) - 1);
		if (r->failed || net_addr_parse(text, strlen(text),
		    &row.addrs[i], NULL) != 0)
			return ERR_CORRUPT;
	}
	n->old_boot_n = bytes_get_u8(r);
	if (n->old_boot_n > MANAGER_BOOTS_MAX)
		return ERR_CORRUPT;
	for (uint32_t i = 0; i < n->old_boot_n; i++)
		get_uid(r, &n->old_boots[i]);
	return bytes_reader_done(r) ? keep_node(s, &row) :
	    ERR_CORRUPT;
}

static int
load_disk(struct manager_state *s, const uint8_t *key, size_t key_len,
    struct bytes_reader *r)
{
	struct manager_disk *d;
	struct manager_node *n;
	struct uid128 uid;
	uint32_t node;

	if (key_len != 17)
		return ERR_CORRUPT;
	memcpy(uid.b, key + 1, 16);
	if ((d = manager_add_disk(s, &uid)) == NULL)
		return s->rc;
	node = bytes_get_u32(r);
	d->loop = bytes_get_u32(r);
	d->slots = bytes_get_u32(r);
	d->capacity = bytes_get_u64(r);
	s->capacity_bytes += d->capacity;
	if (!bytes_reader_done(r) || (n = map_get(&s->nodes, node)) == NULL)
		return ERR_CORRUPT;
	manager_disk_to(s, d, n);
	return 0;
}

static int
load_target(struct manager_state *s, const uint8_t *key, size_t key_len,
    struct bytes_reader *r)
{
	struct routing_target row = { 0 };
	struct manager_disk *d;

	if (key_len != 5)
		return ERR_CORRUPT;
	row.id = bytes_from_be32(key + 1);
	row.changed = bytes_get_u64(r);
	row.node = bytes_get_u32(r);
	row.loop = bytes_get_u32(r);
	get_uid(r, &row.disk);
	row.chain = bytes_get_u32(r);
	if (!bytes_reader_done(r) ||
	    (d = manager_uid_get(&s->disks, &row.disk)) == NULL ||
	    d->target_n == MANAGER_SLOTS_MAX)
		return ERR_CORRUPT;
	d->targets[d->target_n++] = row.id;
	s->target_n++;
	return routing_put_target(s->routing, &row);
}

static int
load_chain(struct manager_state *s, const uint8_t *key, size_t key_len,
    struct bytes_reader *r)
{
	struct routing_chain row = { 0 };

	if (key_len != 5)
		return ERR_CORRUPT;
	row.id = bytes_from_be32(key + 1);
	row.changed = bytes_get_u64(r);
	row.version = bytes_get_u32(r);
	row.state = bytes_get_u8(r);
	row.target_n = bytes_get_u8(r);
	if (row.target_n < 1 || row.target_n > ROUTING_REPLICAS_MAX)
		return ERR_CORRUPT;
	for (uint32_t i = 0; i < row.target_n; i++)
		row.targets[i] = bytes_get_u32(r);
	s->chain_n++;
	return bytes_reader_done(r) ? keep_chain(s, &row) :
	    ERR_CORRUPT;
}

static int
load_table(struct manager_state *s, const uint8_t *key, size_t key_len,
    struct bytes_reader *r)
{
	struct routing_table row = { 0 };
	int rc;

	if (key_len != 9)
		return ERR_CORRUPT;
	row.id = bytes_from_be32(key + 1);
	row.version = bytes_from_be32(key + 5);
	row.changed = bytes_get_u64(r);
	row.chain_n = bytes_get_u32(r);
	if (row.chain_n > ROUTING_TABLE_MAX ||
	    bytes_left(r) != row.chain_n * sizeof(uint32_t))
		return ERR_CORRUPT;
	row.chains = calloc(row.chain_n + 1, sizeof(*row.chains));
	if (row.chains == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < row.chain_n; i++)
		row.chains[i] = bytes_get_u32(r);
	rc = bytes_reader_done(r) ? routing_put_table(s->routing, &row) :
	    ERR_CORRUPT;
	free(row.chains);
	return rc;
}

static int
load_config(struct manager_state *s, const uint8_t *key, size_t key_len,
    struct bytes_reader *r)
{
	size_t n = bytes_left(r);

	if (key_len != 10 || key[1] >= SET_N || n > MANAGER_CONFIG_MAX)
		return ERR_CORRUPT;
	config_in_memory(s, key[1], bytes_from_be64(key + 2),
	    bytes_get_raw(r, n), n);		/* ascending: the newest stays */
	return s->rc;
}

/* In the order in which rows need each other. */
static const struct {
	char	prefix;
	row_fn *load;
} rows[] = {
	{ 'G', load_globals }, { 'N', load_node }, { 'D', load_disk },
	{ 'T', load_target }, { 'C', load_chain }, { 'B', load_table },
	{ 'O', load_config },
};

static int
load(struct manager_state *s, char prefix, row_fn *fn)
{
	uint8_t key[TABLE_KEY_MAX] = { (uint8_t)prefix };
	size_t key_len = 1;
	bool after = false;

	for (;; after = true) {
		const void *found, *value;
		size_t value_len;
		struct bytes_reader r;
		int rc;

		rc = table_seek(s->table, key, key_len, after, 1, &found, &key_len,
		    &value, &value_len);
		if (rc == -ENOENT)
			return 0;
		if (rc != 0)
			return rc;
		memcpy(key, found, key_len);
		bytes_reader_init(&r, value, value_len);
		if ((rc = fn(s, key, key_len, &r)) != 0) {
			log_error(s->log, "state row damaged", "kind=%c error=%s",
			    prefix, err_name(rc));
			return rc == -EINVAL ? ERR_CORRUPT : rc;
		}
	}
}

int
manager_state_open(struct manager_state *s, struct table *table,
    const struct log *log)
{
	int rc;

	*s = (struct manager_state){ .table = table, .log = log,
		.next_node = 1, .next_target = 1, .next_chain = 1 };
	rc = routing_open(&s->routing);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]) && rc == 0; i++)
		rc = load(s, rows[i].prefix, rows[i].load);
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
	map_fini(&s->nodes);
	for (unsigned i = 0; i < SET_N; i++)
		free(s->config_texts[i]);
	*s = (struct manager_state){ 0 };
}
