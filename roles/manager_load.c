/* SPDX-License-Identifier: MIT */
/* manager_load.c - the rows of the manager's table, read into memory. */
#include "roles/manager_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

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
	uint8_t format = 0;

	(void)key;
	if (key_len != 1 || (format = bytes_get_u8(r)) < 1 ||
	    format > MANAGER_FORMAT)
		return format > MANAGER_FORMAT ? ERR_DISK_NEWER : ERR_CORRUPT;
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
	if (bytes_left(r) > 0)			/* not in rows of format 1 */
		n->member = bytes_get_u64(r);
	return bytes_reader_done(r) ? manager_keep_node(s, &row) :
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
	if (bytes_left(r) > 0)			/* not in rows of format 1 */
		d->health = bytes_get_u8(r);
	if (d->health > DISK_REPLACED)
		return ERR_CORRUPT;
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

/* Rows of format 1 have no states.  Then every replica of a chain had every acknowledged
 * write; the tail alone also has what anybody has read. */
static void
states_of_1(struct routing_chain *row)
{
	bool serves = row->state == CHAIN_SERVING;
	target_id tail = row->targets[row->target_n - 1];

	if (!serves) {
		memmove(row->targets + 1, row->targets,
		    (row->target_n - 1) * sizeof(tail));
		row->targets[0] = tail;
	}
	for (uint32_t i = 0; i < row->target_n; i++)
		row->states[i] = serves ? TARGET_SERVING :
		    i == 0 ? TARGET_LASTSRV : TARGET_OFFLINE;
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
		row.preferred[i] = row.targets[i] = bytes_get_u32(r);
	if (bytes_left(r) == 0)
		states_of_1(&row);
	else {
		for (uint32_t i = 0; i < row.target_n; i++)
			row.states[i] = bytes_get_u8(r);
		for (uint32_t i = 0; i < row.target_n; i++)
			row.preferred[i] = bytes_get_u32(r);
	}
	for (uint32_t i = 0; i < row.target_n; i++)
		if (routing_target(s->routing, row.targets[i]) == NULL)
			return ERR_CORRUPT;
	s->chain_n++;
	return bytes_reader_done(r) ? manager_keep_chain(s, &row) : ERR_CORRUPT;
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
	manager_keep_config(s, key[1], bytes_from_be64(key + 2),
	    bytes_get_raw(r, n), n);		/* ascending: the newest stays */
	return s->rc;
}

static int
load_members(struct manager_state *s, const uint8_t *key, size_t key_len,
    struct bytes_reader *r)
{
	(void)key;
	return key_len == 1 && manager_members_read(r, s->managers, &s->manager_n) ==
	    0 ? 0 : ERR_CORRUPT;
}

static int
load_group(struct manager_state *s, const uint8_t *key, size_t key_len,
    struct bytes_reader *r)
{
	struct routing_group row = { 0 };

	if (key_len != 5)
		return ERR_CORRUPT;
	row.id = bytes_from_be32(key + 1);
	row.changed = bytes_get_u64(r);
	get_uid(r, &row.group);
	row.fixed = bytes_get_u8(r) != 0;
	row.leader = bytes_get_u32(r);
	row.term = bytes_get_u64(r);
	row.n = bytes_get_u8(r);
	if (row.n > ROUTING_MEMBERS_MAX)
		return ERR_CORRUPT;
	for (uint32_t i = 0; i < row.n; i++) {
		row.nodes[i] = bytes_get_u32(r);
		row.members[i] = bytes_get_u64(r);
	}
	return bytes_reader_done(r) ? routing_put_group(s->routing, &row) :
	    ERR_CORRUPT;
}

static int
load_hold(struct manager_state *s, const uint8_t *key, size_t key_len,
    struct bytes_reader *r)
{
	struct manager_hold row = { 0 };
	uint8_t held;

	if (key_len != 5)
		return ERR_CORRUPT;
	row.target = bytes_from_be32(key + 1);
	row.rc = (int32_t)bytes_get_u32(r);
	row.tries = bytes_get_u8(r);
	held = bytes_get_u8(r);
	row.held = held != 0;
	return bytes_reader_done(r) && held <= 1 ? manager_hold_keep(s, &row) :
	    ERR_CORRUPT;
}

/* In the order in which rows need each other. */
static const struct {
	char	prefix;
	row_fn *load;
} rows[] = {
	{ 'G', load_globals }, { 'N', load_node }, { 'D', load_disk },
	{ 'T', load_target }, { 'C', load_chain }, { 'B', load_table },
	{ 'O', load_config }, { 'M', load_members }, { 'U', load_hold },
	{ 'R', load_group },
};

static int
load_all(struct manager_state *s, char prefix, row_fn *fn)
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
manager_load(struct manager_state *s)
{
	int rc = 0;

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]) && rc == 0; i++)
		rc = load_all(s, rows[i].prefix, rows[i].load);
	return rc;
}
