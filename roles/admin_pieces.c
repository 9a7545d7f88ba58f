/* SPDX-License-Identifier: MIT */
/* admin_pieces.c - long answers of the manager, piece by piece put together. */
#include "roles/admin_pieces.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/call.h"

#define COPIES_MAX	(1ull << 30)	/* bytes of all answers */

void
admin_pieces_init(struct admin_pieces *p)
{
	*p = (struct admin_pieces){ .has_status = false };
	msg_arena_init(&p->arena, COPIES_MAX);
}

void
admin_pieces_fini(struct admin_pieces *p)
{
	msg_arena_fini(&p->arena);
	free(p->status.nodes.v);
	free(p->status.syncs.v);
	free(p->clients.clients.v);
}

/* Deep copy by the codec: encode what was borrowed, decode it into our arena. */
static const void *
keep(struct admin_pieces *p, const struct msg_type *t, const void *msg)
{
	uint8_t *bytes = malloc(NET_MSG_MAX), *own = NULL;
	void *copy = msg_arena_get(&p->arena, t->size);
	int n = bytes == NULL ? -ENOMEM : msg_encode(t, msg, bytes, NET_MSG_MAX);

	if (n >= 0 && copy != NULL && (own = msg_arena_get(&p->arena, (size_t)n + 1)) != NULL)
		memcpy(own, bytes, (size_t)n);
	free(bytes);
	if (own == NULL || msg_decode(t, own, (size_t)n, &p->arena, copy, NULL) != 0)
		return NULL;
	return copy;
}

/* Rows of a piece go behind those that are there. */
#define APPEND(ALL, PIECE, CAP) do {                                            \
	uint32_t n_ = (ALL).n + (PIECE).n;                                      \
									        \
	if (n_ > (CAP)) {                                                       \
		__typeof__((ALL).v) v_ = realloc((ALL).v, 2 * n_ * sizeof(*v_)); \
									        \
		if (v_ == NULL)                                                 \
			return -ENOMEM;                                         \
		(ALL).v = v_;                                                   \
		(CAP) = 2 * n_;                                                 \
	}                                                                       \
	if ((PIECE).n > 0)                                                      \
		memcpy((ALL).v + (ALL).n, (PIECE).v,                            \
		    (PIECE).n * sizeof(*(ALL).v));                              \
	(ALL).n = n_;                                                           \
} while (0)

static int
by_node(const void *x, const void *y)
{
	const struct msg_node_status *a = x, *b = y;

	return a->node < b->node ? -1 : a->node > b->node;
}

static int
by_place(const void *x, const void *y)
{
	const struct msg_sync_status *a = x, *b = y;

	if (a->chain != b->chain)
		return a->chain < b->chain ? -1 : 1;
	return a->target < b->target ? -1 : a->target > b->target;
}

static int
by_client(const void *x, const void *y)
{
	const struct msg_client_row *a = x, *b = y;

	return memcmp(&a->client, &b->client, sizeof(a->client));
}

/* Each of @n rows is behind the one before it, and the first behind @last, if there is one:
 * we go on behind the last of them, so a manager that went back would have us for ever. */
static bool
goes_on(const void *last, const void *rows, uint32_t n, size_t size,
    int (*cmp)(const void *, const void *))
{
	const uint8_t *row = rows;

	for (uint32_t i = 0; i < n; i++, row += size) {
		if (last != NULL && cmp(last, row) >= 0)
			return false;
		last = row;
	}
	return true;
}

#define GOES_ON(ALL, PIECE, CMP) \
	goes_on((ALL).n == 0 ? NULL : &(ALL).v[(ALL).n - 1], (PIECE).v, (PIECE).n, \
	    sizeof(*(PIECE).v), CMP)

static int
add_status(struct admin_pieces *p, const struct msg_status_rep *piece)
{
	struct msg_status_rep *all = &p->status;
	bool more = piece->nodes_left > 0 || piece->syncs_left > 0;

	if (!GOES_ON(all->nodes, piece->nodes, by_node) ||
	    !GOES_ON(all->syncs, piece->syncs, by_place))
		return ERR_BAD_MESSAGE;
	if ((piece->nodes_left > 0 && piece->nodes.n == 0) ||
	    (piece->syncs_left > 0 && piece->syncs.n == 0))
		return ERR_BAD_MESSAGE;
	APPEND(all->nodes, piece->nodes, p->nodes_cap);
	APPEND(all->syncs, piece->syncs, p->syncs_cap);
	all->nodes_left = piece->nodes_left;
	all->syncs_left = piece->syncs_left;
	all->total_bytes = piece->total_bytes;
	all->used_bytes = piece->used_bytes;
	all->config_version = piece->config_version;
	all->groups = piece->groups;
	p->has_status = true;
	return more;
}

/* Who was seen longest ago comes first. */
static int
by_seen(const void *x, const void *y)
{
	const struct msg_client_row *a = x, *b = y;

	if (a->seen_ms != b->seen_ms)
		return a->seen_ms > b->seen_ms ? -1 : 1;
	return by_client(x, y);
}

static int
add_clients(struct admin_pieces *p, const struct msg_clients_rep *piece)
{
	struct msg_clients_rep *all = &p->clients;

	if (!GOES_ON(all->clients, piece->clients, by_client))
		return ERR_BAD_MESSAGE;
	if (piece->left > 0 && piece->clients.n == 0)
		return ERR_BAD_MESSAGE;
	APPEND(all->clients, piece->clients, p->clients_cap);
	if (piece->left > 0)
		return 1;
	if (all->clients.n > 0)
		qsort(all->clients.v, all->clients.n, sizeof(*all->clients.v), by_seen);
	return 0;
}

#define ID(row)		((row)->id)
#define ID_VERSION(row)	((uint64_t)(row)->id << 32 | (row)->version)

/* Two lists in order of @KEY become one; what both have is as in the later piece. */
#define MERGE(LIST, KEY) do {                                                   \
	uint32_t i_ = 0, k_ = 0, n_ = 0;                                        \
	__typeof__(all->LIST.v) v_ = msg_arena_get(arena,                       \
	    ((size_t)all->LIST.n + piece->LIST.n) * sizeof(*v_));               \
									        \
	if (v_ == NULL)                                                         \
		return -ENOMEM;                                                 \
	while (i_ < all->LIST.n || k_ < piece->LIST.n) {                        \
		bool old_ = k_ == piece->LIST.n || (i_ < all->LIST.n &&         \
		    KEY(&all->LIST.v[i_]) < KEY(&piece->LIST.v[k_]));           \
									        \
		if (!old_ && i_ < all->LIST.n &&                                \
		    KEY(&all->LIST.v[i_]) == KEY(&piece->LIST.v[k_]))           \
			i_++;                                                   \
		v_[n_++] = old_ ? all->LIST.v[i_++] : piece->LIST.v[k_++];      \
	}                                                                       \
	all->LIST.v = v_;                                                       \
	all->LIST.n = n_;                                                       \
} while (0)

static int
merge(struct msg_routing_rep *all, const struct msg_routing_rep *piece,
    struct msg_arena *arena)
{
	MERGE(nodes, ID);
	MERGE(targets, ID);
	MERGE(chains, ID);
	MERGE(tables, ID_VERSION);
	MERGE(groups, ID);
	all->version = piece->version;
	return 0;
}

int
admin_pieces_add(struct admin_pieces *p, const struct msg_type *t, const void *rep,
    const void **kept)
{
	const void *copy;
	int rc;

	if (t == &msg_type_routing_rep && p->has_routing &&
	    ((const struct msg_routing_rep *)rep)->version <= p->routing.version) {
		*kept = &p->routing;
		return 0;
	}
	if ((copy = keep(p, t, rep)) == NULL)
		return -ENOMEM;
	if (t == &msg_type_routing_rep) {
		p->has_routing = true;
		return (rc = merge(&p->routing, copy, &p->arena)) != 0 ? rc : 1;
	}
	if (t == &msg_type_status_rep) {
		*kept = &p->status;
		return add_status(p, copy);
	}
	if (t == &msg_type_clients_rep) {
		*kept = &p->clients;
		return add_clients(p, copy);
	}
	*kept = copy;
	return 0;
}

struct msg_status
admin_pieces_status(const struct admin_pieces *p)
{
	const struct msg_status_rep *all = &p->status;
	const struct msg_sync_status *last = all->syncs.n == 0 ? NULL :
	    &all->syncs.v[all->syncs.n - 1];
	struct msg_status q = { 0 };

	if (!p->has_status)
		return q;
	q.after_node = all->nodes_left > 0 ? all->nodes.v[all->nodes.n - 1].node :
	    UINT32_MAX;
	q.after_chain = all->syncs_left > 0 ? last->chain : UINT32_MAX;
	q.after_target = all->syncs_left > 0 ? last->target : UINT32_MAX;
	return q;
}

struct msg_clients
admin_pieces_clients(const struct admin_pieces *p)
{
	struct msg_clients q = { { { 0 } } };

	if (p->clients.clients.n > 0)
		q.after = p->clients.clients.v[p->clients.clients.n - 1].client;
	return q;
}
