/* SPDX-License-Identifier: MIT */
/* routing.c - five sets of rows, each sorted by id.
 *
 * Invariants (routing_check)
 *  1. Keys of a set ascend; a row sits under the key made of its own id.
 *  2. No row has changed later than the version of the whole (until the delta that ran
 *     out of memory half way is applied again).
 *  3. Counts are within their bounds, ids are not 0, texts end.
 *  4. A chain's states never go down along it, at most one replica syncs, only behind one
 *     that serves; it says SERVING exactly when one does; its preferred order names the
 *     same replicas.
 *  5. A group names each node once, each member once, and one at least; before it is
 *     founded just one. */
#include "net/routing.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

/* Keys apart from rows, so that a search touches few cache lines. */
struct set {
	uint64_t *keys;
	void	**rows;
	unsigned  n, cap;
};

struct routing {
	uint64_t      version;
	struct uid128 cluster;
	struct set    nodes, targets, chains, tables, groups;
};

/* ---- sets ---- */

/* Index of the first key >= @key. */
static unsigned
lower(const struct set *s, uint64_t key)
{
	unsigned lo = 0, hi = s->n;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (s->keys[mid] < key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void *
find(const struct set *s, uint64_t key)
{
	unsigned i = lower(s, key);

	return i < s->n && s->keys[i] == key ? s->rows[i] : NULL;
}

static int
insert(struct set *s, uint64_t key, void *row)
{
	unsigned i = lower(s, key);

	if (s->n == s->cap) {
		unsigned cap = s->cap == 0 ? 16 : 2 * s->cap;
		uint64_t *keys;
		void **rows;

		if ((keys = realloc(s->keys, cap * sizeof(*keys))) == NULL)
			return -ENOMEM;
		s->keys = keys;
		if ((rows = realloc(s->rows, cap * sizeof(*rows))) == NULL)
			return -ENOMEM;
		s->rows = rows;
		s->cap = cap;
	}
	memmove(s->keys + i + 1, s->keys + i, (s->n - i) * sizeof(*s->keys));
	memmove(s->rows + i + 1, s->rows + i, (s->n - i) * sizeof(*s->rows));
	s->keys[i] = key;
	s->rows[i] = row;
	s->n++;
	return 0;
}

/* Overwrite the row under @key with @size bytes of @row, or add it. */
static int
put(struct set *s, uint64_t key, const void *row, size_t size)
{
	void *p = find(s, key);
	int rc;

	if (p == NULL) {
		if ((p = malloc(size)) == NULL)
			return -ENOMEM;
		if ((rc = insert(s, key, p)) != 0) {
			free(p);
			return rc;
		}
	}
	memmove(p, row, size);		/* @row may be the one we hold */
	return 0;
}

static void
fini(struct set *s)
{
	for (unsigned i = 0; i < s->n; i++)
		free(s->rows[i]);
	free(s->keys);
	free(s->rows);
}

static const void *
at(const struct set *s, unsigned i)
{
	return i < s->n ? s->rows[i] : NULL;
}

static uint64_t
table_key(chain_table_id id, uint32_t version)
{
	return (uint64_t)id << 32 | version;
}

/* ---- open, close, look-ups ---- */

int
routing_open(struct routing **out)
{
	*out = calloc(1, sizeof(**out));
	return *out == NULL ? -ENOMEM : 0;
}

void
routing_close(struct routing *r)
{
	if (r == NULL)
		return;
	fini(&r->nodes);
	fini(&r->targets);
	fini(&r->chains);
	fini(&r->tables);
	fini(&r->groups);
	free(r);
}

uint64_t
routing_version(const struct routing *r)
{
	return r->version;
}

const struct uid128 *
routing_cluster(const struct routing *r)
{
	return &r->cluster;
}

const struct routing_node *
routing_node(const struct routing *r, node_id id)
{
	return find(&r->nodes, id);
}

const struct routing_target *
routing_target(const struct routing *r, target_id id)
{
	return find(&r->targets, id);
}

const struct routing_chain *
routing_chain(const struct routing *r, chain_id id)
{
	return find(&r->chains, id);
}

const struct routing_table *
routing_table(const struct routing *r, chain_table_id id, uint32_t version)
{
	unsigned i;

	if (version != 0)
		return find(&r->tables, table_key(id, version));
	i = lower(&r->tables, table_key(id, UINT32_MAX));
	if (i < r->tables.n && r->tables.keys[i] == table_key(id, UINT32_MAX))
		return r->tables.rows[i];
	return i > 0 && r->tables.keys[i - 1] >> 32 == id ?
	    r->tables.rows[i - 1] : NULL;
}

const struct routing_group *
routing_group(const struct routing *r, uint32_t id)
{
	return find(&r->groups, id);
}

const struct routing_node *
routing_node_at(const struct routing *r, unsigned i)
{
	return at(&r->nodes, i);
}

const struct routing_target *
routing_target_at(const struct routing *r, unsigned i)
{
	return at(&r->targets, i);
}

const struct routing_chain *
routing_chain_at(const struct routing *r, unsigned i)
{
	return at(&r->chains, i);
}

const struct routing_table *
routing_table_at(const struct routing *r, unsigned i)
{
	return at(&r->tables, i);
}

const struct routing_group *
routing_group_at(const struct routing *r, unsigned i)
{
	return at(&r->groups, i);
}

int
routing_target_addr(const struct routing *r, target_id target,
    struct net_addr *out)
{
	const struct routing_target *t = routing_target(r, target);
	const struct routing_node *n;

	if (t == NULL || (n = routing_node(r, t->node)) == NULL ||
	    t->loop >= n->addr_n || n->addrs[t->loop].kind == NET_ADDR_NONE)
		return -ENOENT;
	*out = n->addrs[t->loop];
	return 0;
}

int
routing_meta_addr(const struct routing *r, struct net_addr *out)
{
	const struct routing_node *n, *found = NULL;

	for (unsigned i = 0; (n = routing_node_at(r, i)) != NULL; i++) {
		if ((n->roles & NODE_METADATA) == 0 || n->addr_n == 0 ||
		    n->addrs[0].kind == NET_ADDR_NONE)
			continue;
		if (found == NULL ||
		    (found->state != NODE_UP && n->state == NODE_UP))
			found = n;
	}
	if (found == NULL)
		return -ENOENT;
	*out = found->addrs[0];
	return 0;
}

/* ---- rows in ---- */

void
routing_set_cluster(struct routing *r, const struct uid128 *cluster)
{
	r->cluster = *cluster;
}

void
routing_set_version(struct routing *r, uint64_t version)
{
	if (version > r->version)
		r->version = version;
}

/* A row is in: the whole is at least as new. */
static int
raise(struct routing *r, int rc, uint64_t changed)
{
	if (rc == 0)
		routing_set_version(r, changed);
	return rc;
}

static bool
ids_valid(const uint32_t *v, uint32_t n, uint32_t max)
{
	if (n > max)
		return false;
	for (uint32_t i = 0; i < n; i++)
		if (v[i] == 0)
			return false;
	return true;
}

/* A replica twice in a chain would acknowledge to itself. */
static bool
targets_distinct(const target_id *v, uint32_t n)
{
	for (uint32_t i = 1; i < n; i++)
		for (uint32_t k = 0; k < i; k++)
			if (v[i] == v[k])
				return false;
	return true;
}

static bool
has_target(const target_id *v, uint32_t n, target_id id)
{
	for (uint32_t i = 0; i < n; i++)
		if (v[i] == id)
			return true;
	return false;
}

/* Invariant 4, and what of 3 is about chains. */
static bool
chain_valid(const struct routing_chain *c)
{
	unsigned of[TARGET_APART + 1] = { 0 };

	if (c->id == 0 || !ids_valid(c->targets, c->target_n,
	    ROUTING_REPLICAS_MAX) || !targets_distinct(c->targets, c->target_n) ||
	    !targets_distinct(c->preferred, c->target_n))
		return false;
	for (uint32_t i = 0; i < c->target_n; i++) {
		if (c->states[i] < TARGET_SERVING || c->states[i] > TARGET_APART ||
		    (i > 0 && c->states[i] < c->states[i - 1]) ||
		    !has_target(c->targets, c->target_n, c->preferred[i]))
			return false;
		of[c->states[i]]++;
	}
	return c->state == (of[TARGET_SERVING] > 0 ? CHAIN_SERVING :
	    CHAIN_RECOVERING) && of[TARGET_SYNCING] <= 1 &&
	    of[TARGET_LASTSRV] <= 1 &&
	    (of[TARGET_SERVING] > 0 ? of[TARGET_LASTSRV] : of[TARGET_SYNCING]) == 0;
}

/* Invariant 5. */
static bool
group_valid(const struct routing_group *g)
{
	if (g->id == 0 || g->n == 0 || g->n > ROUTING_MEMBERS_MAX ||
	    (uid128_zero(&g->group) && g->n != 1))
		return false;
	for (uint32_t i = 0; i < g->n; i++) {
		if (g->nodes[i] == 0 || g->members[i] == 0)
			return false;
		for (uint32_t k = 0; k < i; k++)
			if (g->nodes[i] == g->nodes[k] ||
			    g->members[i] == g->members[k])
				return false;
	}
	return true;
}

int
routing_put_group(struct routing *r, const struct routing_group *row)
{
	if (!group_valid(row))
		return -EINVAL;
	return raise(r, put(&r->groups, row->id, row, sizeof(*row)), row->changed);
}

int
routing_put_node(struct routing *r, const struct routing_node *row)
{
	if (row->id == 0 || row->addr_n > ROUTING_LOOPS_MAX ||
	    memchr(row->name, '\0', sizeof(row->name)) == NULL)
		return -EINVAL;
	return raise(r, put(&r->nodes, row->id, row, sizeof(*row)),
	    row->changed);
}

int
routing_put_target(struct routing *r, const struct routing_target *row)
{
	if (row->id == 0 || row->loop >= ROUTING_LOOPS_MAX)
		return -EINVAL;
	return raise(r, put(&r->targets, row->id, row, sizeof(*row)),
	    row->changed);
}

int
routing_put_chain(struct routing *r, const struct routing_chain *row)
{
	if (!chain_valid(row))
		return -EINVAL;
	return raise(r, put(&r->chains, row->id, row, sizeof(*row)),
	    row->changed);
}

int
routing_put_table(struct routing *r, const struct routing_table *row)
{
	struct routing_table *t;
	uint64_t key = table_key(row->id, row->version);
	size_t bytes = row->chain_n * sizeof(*row->chains);
	unsigned i;
	int rc;

	if (row->id == 0 || row->version == 0 ||
	    !ids_valid(row->chains, row->chain_n, ROUTING_TABLE_MAX))
		return -EINVAL;
	/* The row and its chains in one piece; there is no fixed size to reuse. */
	if ((t = malloc(sizeof(*t) + bytes)) == NULL)
		return -ENOMEM;
	*t = *row;
	t->chains = (chain_id *)(t + 1);
	if (bytes > 0)
		memcpy(t->chains, row->chains, bytes);
	i = lower(&r->tables, key);
	if (i < r->tables.n && r->tables.keys[i] == key) {
		free(r->tables.rows[i]);	/* maybe @row itself */
		r->tables.rows[i] = t;
	} else if ((rc = insert(&r->tables, key, t)) != 0) {
		free(t);
		return rc;
	}
	routing_set_version(r, t->changed);
	return 0;
}

/* ---- deltas ---- */

static bool
node_of_msg(const struct msg_rt_node *m, struct routing_node *out)
{
	*out = (struct routing_node){ .id = m->id, .changed = m->changed,
	    .roles = m->roles, .state = m->state, .boot = m->boot,
	    .addr_n = m->addrs.n };
	if (m->id == 0 || m->addrs.n > ROUTING_LOOPS_MAX ||
	    m->name.n >= sizeof(out->name) ||
	    (m->name.n > 0 && memchr(m->name.p, '\0', m->name.n) != NULL))
		return false;
	if (m->name.n > 0)
		memcpy(out->name, m->name.p, m->name.n);
	/* A kind of address that only newer releases know is one that we cannot
	 * reach; the row is good. */
	for (uint32_t i = 0; i < m->addrs.n; i++)
		(void)net_addr_parse(m->addrs.v[i].p, m->addrs.v[i].n,
		    &out->addrs[i], NULL);
	return true;
}

static bool
target_of_msg(const struct msg_rt_target *m, struct routing_target *out)
{
	*out = (struct routing_target){ m->id, m->changed, m->node, m->loop,
	    m->disk, m->chain };
	return m->id != 0 && m->loop < ROUTING_LOOPS_MAX;
}

/* A manager of the release before sends neither states nor the preferred order: its
 * replicas all serve, or none does. */
static bool
chain_of_msg(const struct msg_rt_chain *m, struct routing_chain *out)
{
	uint32_t n = m->targets.n;

	*out = (struct routing_chain){ .id = m->id, .changed = m->changed,
	    .version = m->version, .state = m->state, .target_n = n };
	if (n > ROUTING_REPLICAS_MAX || (m->states.n != 0 && m->states.n != n) ||
	    (m->preferred.n != 0 && m->preferred.n != n))
		return false;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t state = m->states.n != 0 ? m->states.v[i] :
		    m->state == CHAIN_SERVING ? TARGET_SERVING : TARGET_WAITING;

		if (state > TARGET_APART)
			return false;
		out->targets[i] = m->targets.v[i];
		out->states[i] = (uint8_t)state;
		out->preferred[i] = m->preferred.n != 0 ? m->preferred.v[i] :
		    m->targets.v[i];
	}
	return chain_valid(out);
}

static bool
table_of_msg(const struct msg_rt_table *m, struct routing_table *out)
{
	*out = (struct routing_table){ m->id, m->changed, m->version, m->chains.n,
	    m->chains.v };
	return m->id != 0 && m->version != 0 &&
	    ids_valid(m->chains.v, m->chains.n, ROUTING_TABLE_MAX);
}

static bool
group_of_msg(const struct msg_rt_group *m, struct routing_group *out)
{
	*out = (struct routing_group){ .id = m->id, .changed = m->changed,
	    .group = m->group, .n = m->nodes.n, .fixed = m->fixed != 0,
	    .leader = m->leader, .term = m->term };
	if (m->nodes.n > ROUTING_MEMBERS_MAX || m->members.n != m->nodes.n)
		return false;
	for (uint32_t i = 0; i < m->nodes.n; i++) {
		out->nodes[i] = m->nodes.v[i];
		out->members[i] = m->members.v[i];
	}
	return group_valid(out);
}

/* Take the rows of one kind, or with @check only look at them.  A row that is not newer
 * than ours is skipped. */
#define TAKE(KIND, LIST, OURS)                                                  \
	for (uint32_t i = 0; i < d->LIST.n; i++) {                              \
		const struct msg_rt_##KIND *m = &d->LIST.v[i];                  \
		const struct routing_##KIND *have = OURS;                       \
		struct routing_##KIND row;                                      \
		int rc;                                                         \
									        \
		if (!KIND##_of_msg(m, &row) || m->changed > d->version)         \
			return ERR_BAD_MESSAGE;                                 \
		if (check || (have != NULL && m->changed <= have->changed))     \
			continue;                                               \
		if ((rc = routing_put_##KIND(r, &row)) != 0)                    \
			return rc;                                              \
	}

static int
take(struct routing *r, const struct msg_routing_rep *d, bool check)
{
	TAKE(node, nodes, routing_node(r, m->id))
	TAKE(target, targets, routing_target(r, m->id))
	TAKE(chain, chains, routing_chain(r, m->id))
	TAKE(table, tables, m->version == 0 ? NULL :
	    routing_table(r, m->id, m->version))
	TAKE(group, groups, routing_group(r, m->id))
	return 0;
}

int
routing_apply(struct routing *r, const struct msg_routing_rep *d)
{
	uint64_t was = r->version;
	int rc;

	if (!uid128_zero(&r->cluster) && !uid128_eq(&r->cluster, &d->cluster))
		return -EXDEV;
	if ((rc = take(r, d, true)) != 0)
		return rc;
	if ((rc = take(r, d, false)) != 0) {
		/* Out of memory half way: the same delta is asked for again. */
		r->version = was;
		return rc;
	}
	r->cluster = d->cluster;
	routing_set_version(r, d->version);
	return 0;
}

static int
node_to_msg(const struct routing_node *n, struct msg_arena *arena,
    struct msg_rt_node *out)
{
	*out = (struct msg_rt_node){ .id = n->id, .changed = n->changed,
	    .name = msg_str(n->name), .roles = n->roles, .state = n->state,
	    .boot = n->boot, .addrs.n = n->addr_n };
	out->addrs.v = msg_arena_get(arena, n->addr_n * sizeof(*out->addrs.v));
	if (out->addrs.v == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < n->addr_n; i++) {
		char text[NET_ADDR_TEXT], *copy;

		net_addr_text(&n->addrs[i], text);
		if ((copy = msg_arena_get(arena, strlen(text) + 1)) == NULL)
			return -ENOMEM;
		strcpy(copy, text);
		out->addrs.v[i] = msg_str(copy);
	}
	return 0;
}

static int
target_to_msg(const struct routing_target *t, struct msg_arena *arena,
    struct msg_rt_target *out)
{
	(void)arena;
	*out = (struct msg_rt_target){ t->id, t->changed, t->node, t->loop,
	    t->disk, t->chain };
	return 0;
}

static int
ids_to_msg(const uint32_t *v, uint32_t n, struct msg_arena *arena,
    msg_t_list_u32 *out)
{
	if ((out->v = msg_arena_get(arena, n * sizeof(*v))) == NULL)
		return -ENOMEM;
	if (n > 0)
		memcpy(out->v, v, n * sizeof(*v));
	out->n = n;
	return 0;
}

static int
chain_to_msg(const struct routing_chain *c, struct msg_arena *arena,
    struct msg_rt_chain *out)
{
	uint32_t states[ROUTING_REPLICAS_MAX];
	int rc;

	*out = (struct msg_rt_chain){ .id = c->id, .changed = c->changed,
	    .version = c->version, .state = c->state };
	for (uint32_t i = 0; i < c->target_n; i++)
		states[i] = c->states[i];
	if ((rc = ids_to_msg(c->targets, c->target_n, arena, &out->targets)) != 0 ||
	    (rc = ids_to_msg(states, c->target_n, arena, &out->states)) != 0)
		return rc;
	return ids_to_msg(c->preferred, c->target_n, arena, &out->preferred);
}

static int
table_to_msg(const struct routing_table *t, struct msg_arena *arena,
    struct msg_rt_table *out)
{
	*out = (struct msg_rt_table){ .id = t->id, .changed = t->changed,
	    .version = t->version };
	return ids_to_msg(t->chains, t->chain_n, arena, &out->chains);
}

static int
group_to_msg(const struct routing_group *g, struct msg_arena *arena,
    struct msg_rt_group *out)
{
	*out = (struct msg_rt_group){ .id = g->id, .changed = g->changed,
	    .group = g->group, .fixed = g->fixed, .leader = g->leader,
	    .term = g->term, .members.n = g->n };
	out->members.v = msg_arena_get(arena, g->n * sizeof(*out->members.v));
	if (out->members.v == NULL)
		return -ENOMEM;
	memcpy(out->members.v, g->members, g->n * sizeof(*out->members.v));
	return ids_to_msg(g->nodes, g->n, arena, &out->nodes);
}

/* Rows of one kind newer than @have: count, then fill. */
#define GIVE(KIND, LIST)                                                        \
	for (unsigned i = 0; i < r->LIST.n; i++) {                              \
		const struct routing_##KIND *row = r->LIST.rows[i];             \
									        \
		out->LIST.n += row->changed > have;                             \
	}                                                                       \
	out->LIST.v = msg_arena_get(arena,                                      \
	    out->LIST.n * sizeof(*out->LIST.v));                                \
	if (out->LIST.v == NULL)                                                \
		return -ENOMEM;                                                 \
	for (unsigned i = 0, k = 0; k < out->LIST.n; i++) {                     \
		const struct routing_##KIND *row = r->LIST.rows[i];             \
									        \
		if (row->changed > have &&                                      \
		    KIND##_to_msg(row, arena, &out->LIST.v[k++]) != 0)          \
			return -ENOMEM;                                         \
	}

int
routing_delta(const struct routing *r, uint64_t have, struct msg_arena *arena,
    struct msg_routing_rep *out)
{
	*out = (struct msg_routing_rep){ .cluster = r->cluster,
	    .version = r->version };
	if (have >= r->version)
		return 0;		/* invariant 2: no row is newer */
	GIVE(node, nodes)
	GIVE(target, targets)
	GIVE(chain, chains)
	GIVE(table, tables)
	GIVE(group, groups)
	return 0;
}

/* ---- invariants ---- */

#define CHECK(KIND, LIST, KEY)                                                  \
	for (unsigned i = 0; i < r->LIST.n; i++) {                              \
		const struct routing_##KIND *row = r->LIST.rows[i];             \
									        \
		assert(i == 0 || r->LIST.keys[i - 1] < r->LIST.keys[i]); /* 1 */ \
		assert(r->LIST.keys[i] == (KEY));			/* 1 */ \
		assert(row->changed <= r->version);			/* 2 */ \
		assert(row->id != 0);					/* 3 */ \
	}

void
routing_check(const struct routing *r)
{
	CHECK(node, nodes, row->id)
	CHECK(target, targets, row->id)
	CHECK(chain, chains, row->id)
	CHECK(table, tables, table_key(row->id, row->version))
	CHECK(group, groups, row->id)
	for (unsigned i = 0; i < r->groups.n; i++)
		assert(group_valid(r->groups.rows[i]));			/* 5 */
	for (unsigned i = 0; i < r->nodes.n; i++) {
		const struct routing_node *n = r->nodes.rows[i];

		assert(n->addr_n <= ROUTING_LOOPS_MAX);			/* 3 */
		assert(memchr(n->name, '\0', sizeof(n->name)) != NULL);
	}
	for (unsigned i = 0; i < r->chains.n; i++)
		assert(chain_valid(r->chains.rows[i]));			/* 3, 4 */
}
