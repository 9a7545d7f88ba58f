/* SPDX-License-Identifier: MIT */
/* routing.h - nodes, targets, chains, chain tables and metadata groups: what every role
 * holds a copy of (DESIGN 5).  A pure structure: rows come in by messages, look-ups go
 * out.  Rows keep the routing version that last changed them, which makes deltas. */
#ifndef NET_ROUTING_H
#define NET_ROUTING_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/ids.h"
#include "net/addr.h"
#include "net/msg_manager.h"
#include "net/msg_meta.h"

#define ROUTING_REPLICAS_MAX	8u
#define ROUTING_LOOPS_MAX	64u

#define ROUTING_TABLE_MAX	65536u		/* chains in one table */
#define ROUTING_MEMBERS_MAX	7u		/* of a metadata group */

struct routing;

struct routing_node {
	node_id	  id;
	uint64_t  changed;
	char	  name[64];
	uint32_t  roles;		/* NODE_* */
	uint8_t	  state;		/* enum node_state */
	struct uid128 boot;
	uint32_t  addr_n;
	struct net_addr addrs[ROUTING_LOOPS_MAX];
};
struct routing_target {
	target_id id;
	uint64_t  changed;
	node_id	  node;
	uint32_t  loop;
	struct uid128 disk;
	chain_id  chain;
};
struct routing_chain {
	chain_id  id;
	uint64_t  changed;
	uint32_t  version;
	uint8_t	  state;		/* enum chain_state: SERVING when some target is */
	uint32_t  target_n;
	target_id targets[ROUTING_REPLICAS_MAX];	/* head first */
	uint8_t	  states[ROUTING_REPLICAS_MAX];		/* enum target_state of each;
					 * never goes down along the chain */
	target_id preferred[ROUTING_REPLICAS_MAX];	/* the same targets, in the order
					 * it was made with */
};
/* How many targets serve: targets[0] is the head, targets[n - 1] the tail. */
static inline unsigned
routing_serving_n(const struct routing_chain *c)
{
	unsigned n = 0;

	while (n < c->target_n && c->states[n] == TARGET_SERVING)
		n++;
	return n;
}
/* Those and the one that syncs behind the tail: all that take writes. */
static inline unsigned
routing_active_n(const struct routing_chain *c)
{
	unsigned n = routing_serving_n(c);

	return n > 0 && n < c->target_n && c->states[n] == TARGET_SYNCING ? n + 1 : n;
}
struct routing_table {
	chain_table_id id;
	uint64_t  changed;
	uint32_t  version;
	uint32_t  chain_n;
	chain_id *chains;
};
/* Who is to be in a metadata group.  Its leader brings it there; until it is founded one
 * node is named, and that one alone may found it. */
struct routing_group {
	uint32_t  id;
	uint64_t  changed;
	struct uid128 group;		/* zeros: not founded yet */
	uint32_t  n;
	node_id	  nodes[ROUTING_MEMBERS_MAX];
	uint64_t  members[ROUTING_MEMBERS_MAX];	/* random id of that on each node */
	bool	  fixed;		/* an operator has chosen how many */
	node_id	  leader;		/* who said so last, 0: nobody; a hint */
	uint64_t  term;
};
/* Where @node is in it; g->n: it is not. */
static inline unsigned
routing_group_find(const struct routing_group *g, node_id node)
{
	unsigned i = 0;

	while (i < g->n && g->nodes[i] != node)
		i++;
	return i;
}

int	routing_open(struct routing **out);
void	routing_close(struct routing *r);
uint64_t routing_version(const struct routing *r);
const struct uid128 *routing_cluster(const struct routing *r);

/* Take a delta.  Rows that are not newer than ours are skipped.  0; -ENOMEM;
 * ERR_BAD_MESSAGE for rows that break a bound (nothing is changed then); -EXDEV when it
 * comes from another cluster. */
int	routing_apply(struct routing *r, const struct msg_routing_rep *delta);
/* Every row newer than @have, as a message; lists are in @arena, names are borrowed from
 * @r until it changes. 0 or -ENOMEM. */
int	routing_delta(const struct routing *r, uint64_t have,
	    struct msg_arena *arena, struct msg_routing_rep *out);

/* The manager owns its routing and puts rows itself: @row is copied, replaces the one
 * of the same id (tables: id and version), and raises routing_version() to row->changed.
 * 0; -ENOMEM or -EINVAL for a row out of bounds, and nothing changed. */
int	routing_put_node(struct routing *r, const struct routing_node *row);
int	routing_put_target(struct routing *r, const struct routing_target *row);
int	routing_put_chain(struct routing *r, const struct routing_chain *row);
int	routing_put_table(struct routing *r, const struct routing_table *row);
int	routing_put_group(struct routing *r, const struct routing_group *row);
void	routing_set_cluster(struct routing *r, const struct uid128 *cluster);
/* Raise to at least @version. */
void	routing_set_version(struct routing *r, uint64_t version);

/* NULL when there is none; borrowed until the next change of @r. */
const struct routing_node   *routing_node(const struct routing *r, node_id id);
const struct routing_target *routing_target(const struct routing *r, target_id id);
const struct routing_chain  *routing_chain(const struct routing *r, chain_id id);
/* @version 0: the newest. */
const struct routing_table  *routing_table(const struct routing *r,
	    chain_table_id id, uint32_t version);
const struct routing_group  *routing_group(const struct routing *r, uint32_t id);
/* Walk: i = 0.. until NULL; ids ascend (tables: and versions). */
const struct routing_node   *routing_node_at(const struct routing *r, unsigned i);
const struct routing_target *routing_target_at(const struct routing *r, unsigned i);
const struct routing_chain  *routing_chain_at(const struct routing *r, unsigned i);
const struct routing_table  *routing_table_at(const struct routing *r, unsigned i);
const struct routing_group  *routing_group_at(const struct routing *r, unsigned i);

/* Address of the loop that owns @target. 0, or -ENOENT when target, node or address
 * is not known. */
int	routing_target_addr(const struct routing *r, target_id target,
	    struct net_addr *out);
/* Address of the metadata service: of a node that is up, or of one that may come back.
 * 0 or -ENOENT. */
int	routing_meta_addr(const struct routing *r, struct net_addr *out);

/* Assert the invariants of net/routing.c; for tests. */
void	routing_check(const struct routing *r);

/* ---- layout: which chain holds chunk @index of a file (pure arithmetic, part of the
 * on-disk format, golden values in tests/test_layout.c; net/layout.c) ---- */
struct layout {
	chain_table_id table;
	uint32_t table_version;
	uint8_t	 chunk_shift;		/* 16..26 */
	uint32_t stripe;		/* 1..chains in the table */
	uint64_t seed;
};
#define LAYOUT_SHIFT_MIN	16u
#define LAYOUT_SHIFT_MAX	26u
#define LAYOUT_STRIPE_MAX	256u
/* Position in a table of @chains chains that holds chunks = @index mod stripe: element
 * (index mod stripe) of a seeded permutation of 0..chains-1 (Fisher-Yates over splitmix64
 * of the seed, cut after stripe elements). */
uint32_t layout_slot(const struct layout *l, uint32_t chains, uint32_t index);
/* The chain of chunk @index, or 0 when the table is not known. */
chain_id layout_chain(const struct routing *r, const struct layout *l,
	    uint32_t index);
void	layout_of_attr(const struct msg_attr *a, struct layout *out);

#endif
