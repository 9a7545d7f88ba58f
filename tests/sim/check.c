/* SPDX-License-Identifier: MIT */
/* check.c - what must hold of a cluster that is healed and quiet. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/craq.h"
#include "chunk/engine.h"
#include "conf/bytes.h"
#include "conf/map.h"
#include "conf/omap.h"
#include "meta/group.h"
#include "meta/tree.h"
#include "net/member.h"
#include "roles/metadata.h"
#include "roles/storage.h"
#include "tests/sim/sim.h"

static const struct routing *
routing_of(struct sim *s)
{
	const struct routing *r = sim_routing(s);

	if (r == NULL)
		sim_fail(s, "no manager is there");
	return r;
}

/* Of the storage node that has @target; NULL: that disk is not in use now. */
static struct chunk_engine *
engine_find(struct sim *s, const struct routing *r, target_id target)
{
	const struct routing_target *t = routing_target(r, target);
	const struct routing_node *n = t == NULL ? NULL : routing_node(r, t->node);
	struct storage *st;
	struct chunk_engine *e;

	if (n == NULL || strncmp(n->name, "storage", 7) != 0)
		sim_fail(s, "target %u is on no storage node", target);
	if ((st = sim_storage(s, (unsigned)atoi(n->name + 7) - 1)) == NULL)
		return NULL;
	for (unsigned i = 0; (e = storage_engine_at(st, i)) != NULL; i++)
		if (memcmp(chunk_engine_disk(e), &t->disk, sizeof(t->disk)) == 0)
			return e;
	return NULL;
}

static struct chunk_engine *
engine_of(struct sim *s, const struct routing *r, target_id target)
{
	struct chunk_engine *e = engine_find(s, r, target);

	if (e == NULL)
		sim_fail(s, "the disk of target %u is not in use", target);
	return e;
}

/* One replica against the head's: the same chunks in the same versions and bytes. */
static void
compare(struct sim *s, const struct routing *r, const struct routing_chain *c, unsigned i)
{
	struct chunk_engine *head = engine_of(s, r, c->targets[0]);
	struct chunk_engine *other = engine_of(s, r, c->targets[i]);
	struct chunk_id at = { 0 };
	struct chunk_info a, b;
	int ra, rb;

	for (bool after = false;; after = true) {
		ra = chunk_engine_next(head, c->targets[0], at, after, &a);
		rb = chunk_engine_next(other, c->targets[i], at, after, &b);
		if (ra != rb)
			sim_fail(s, "chain %u: replica 0 says %d, replica %u %d after "
			    "%" PRIu64 ".%u", c->id, ra, i, rb, at.ino, at.index);
		if (ra != 0)
			return;
		if (chunk_id_cmp(a.id, b.id) != 0)
			sim_fail(s, "chain %u: replica 0 has %" PRIu64 ".%u, replica %u "
			    "%" PRIu64 ".%u", c->id, a.id.ino, a.id.index, i, b.id.ino,
			    b.id.index);
		at = a.id;
		if (a.pending != 0 || b.pending != 0)
			sim_fail(s, "chain %u: %" PRIu64 ".%u is still pending", c->id,
			    at.ino, at.index);
		if (a.committed != b.committed || a.committed_len != b.committed_len ||
		    a.committed_check != b.committed_check ||
		    chunk_craq_digest(&a, a.committed) !=
		    chunk_craq_digest(&b, b.committed))
			sim_fail(s, "chain %u: %" PRIu64 ".%u differs: version %" PRIx64
			    " length %u check %08x, replica %u: %" PRIx64 " %u %08x",
			    c->id, at.ino, at.index, a.committed, a.committed_len,
			    a.committed_check, i, b.committed, b.committed_len,
			    b.committed_check);
	}
}

/* ---- versions of a chunk at one replica ---- */

struct seen_row {
	uint64_t committed;		/* the newest */
	uint32_t life;			/* of the process that showed it */
	uint32_t chain;			/* version of it under which the replica served */
};
struct check_seen {
	struct omap rows;		/* (target, chunk) -> seen_row */
};

static void
seen_key(uint8_t key[16], target_id t, struct chunk_id id)
{
	bytes_be32(key, t);
	bytes_be64(key + 4, id.ino);
	bytes_be32(key + 12, id.index);
}

/* The version of the chain in which @t serves; 0: it does not. */
static uint32_t
serves_in(const struct routing *r, target_id t)
{
	const struct routing_target *row = r == NULL ? NULL : routing_target(r, t);
	const struct routing_chain *c = row == NULL ? NULL : routing_chain(r, row->chain);

	for (unsigned i = 0; c != NULL && i < routing_serving_n(c); i++)
		if (c->targets[i] == t)
			return c->version;
	return 0;
}

static void
check_disk(struct sim *s, unsigned i, struct chunk_engine *e, struct check_seen *seen,
    uint32_t life, ino_id except)
{
	const struct routing *r = sim_routing(s);

	for (target_id t = 1; t <= SIM_TARGETS; t++) {
		uint32_t chain = serves_in(r, t);
		struct chunk_id at = { 0 };
		struct chunk_info k;

		if (chain == 0)
			continue;	/* what it has is being put right */
		for (bool after = false; chunk_engine_next(e, t, at, after, &k) == 0;
		    after = true) {
			const struct omap_entry *old;
			struct seen_row row = { 0 };
			uint64_t newest = k.committed;
			uint8_t key[16];

			at = k.id;
			/* The same number: a repair of damaged bytes. */
			if (k.pending != 0 && k.pending < k.committed)
				sim_fail(s, "storage%u target %u: %" PRIu64 ".%u: pending "
				    "%" PRIx64 " is not over %" PRIx64, i + 1, t,
				    at.ino, at.index, k.pending, k.committed);
			if (at.ino == except)
				continue;
			seen_key(key, t, at);
			if ((old = omap_get(&seen->rows, key, 16)) != NULL)
				memcpy(&row, omap_value(old), sizeof(row));
			/* Out of the chain and back takes two versions: it was told then
			 * what it should have. */
			if (chain > row.chain + 1)
				row.committed = 0;
			/* Committed 0: removed meanwhile, and made anew. */
			if ((row.life != life || newest == 0) && k.pending > newest)
				newest = k.pending;
			if (newest < row.committed)
				sim_fail(s, "storage%u target %u: %" PRIu64 ".%u went back "
				    "from %" PRIx64 " to %" PRIx64, i + 1, t, at.ino,
				    at.index, row.committed, newest);
			if (k.committed < row.committed || (k.committed == row.committed &&
			    row.life == life && row.chain == chain))
				continue;
			row.committed = k.committed;
			row.life = life;
			row.chain = chain;
			if (omap_put(&seen->rows, key, 16, &row, sizeof(row)) != 0)
				abort();
		}
	}
}

/* What is committed stays, and so do the bytes of that version; a restart may find it pending
 * (the flip is durable later), but not gone. */
void
check_versions(struct sim *s, unsigned i, struct check_seen **seen, uint32_t life,
    ino_id except)
{
	struct storage *st = sim_storage(s, i);
	struct chunk_engine *e;

	if (*seen == NULL) {
		*seen = calloc(1, sizeof(**seen));
		assert(*seen != NULL);
		omap_init(&(*seen)->rows);
	}
	for (unsigned k = 0; st != NULL && (e = storage_engine_at(st, k)) != NULL; k++)
		check_disk(s, i, e, *seen, life, except);
}

void
check_forget(struct check_seen *seen)
{
	if (seen != NULL)
		omap_fini(&seen->rows);
	free(seen);
}

/* All replicas serve, and no write is left unfinished.  A chain takes one out now and then,
 * so that its head comes back to where it was; that takes no time. */
static bool
settled(void *ctx)
{
	struct sim *s = ctx;
	const struct routing *r = routing_of(s);
	const struct routing_chain *c;
	struct chunk_info info;

	for (unsigned i = 0; (c = routing_chain_at(r, i)) != NULL; i++) {
		if (routing_serving_n(c) != c->target_n)
			return false;
		for (unsigned k = 0; k < c->target_n; k++) {
			struct chunk_engine *e = engine_find(s, r, c->targets[k]);

			if (e == NULL || chunk_engine_next_pending(e, c->targets[k],
			    (struct chunk_id){ 0, 0 }, false, &info) == 0)
				return false;
		}
	}
	return true;
}

void
check_back(struct sim *s)
{
	sim_until(s, settled, s, 30, "replicas to come back");
}

void
check_replicas(struct sim *s)
{
	const struct routing *r;
	const struct routing_chain *c;
	unsigned chains = 0;

	check_back(s);
	r = routing_of(s);
	for (unsigned i = 0; (c = routing_chain_at(r, i)) != NULL; i++) {
		if (c->state != CHAIN_SERVING)
			sim_fail(s, "chain %u does not serve", c->id);
		if (c->target_n != 3)
			sim_fail(s, "chain %u has %u targets", c->id, c->target_n);
		if (routing_serving_n(c) != c->target_n)
			sim_fail(s, "chain %u: only %u of %u replicas serve", c->id,
			    routing_serving_n(c), c->target_n);
		for (unsigned k = 1; k < c->target_n; k++)
			compare(s, r, c, k);
		chains++;
	}
	if (chains == 0)
		sim_fail(s, "there are no chains");
	for (unsigned i = 0; i < sim_storages(s); i++) {
		struct chunk_engine *e;

		for (unsigned k = 0; (e = storage_engine_at(sim_storage(s, i), k)) != NULL; k++)
			chunk_engine_check(e);
	}
}

void
check_dump(struct sim *s)
{
	for (unsigned i = 0; i < SIM_DISKS * sim_storages(s); i++) {
		struct storage *st = sim_storage(s, i / SIM_DISKS);
		struct chunk_engine *e = st == NULL ? NULL : storage_engine_at(st, i % SIM_DISKS);

		for (target_id t = 1; e != NULL && t <= SIM_TARGETS; t++) {
			struct chunk_id at = { 0 };
			struct chunk_info k;

			for (bool after = false; chunk_engine_next(e, t, at, after, &k) == 0;
			    after = true) {
				at = k.id;
				fprintf(stderr, "storage%u target %u chunk %" PRIu64
				    ".%u: %" PRIx64 " length %u epoch %u check %08x",
				    i / SIM_DISKS + 1, t, k.id.ino, k.id.index, k.committed,
				    k.committed_len, k.committed_epoch,
				    k.committed_check);
				if (k.pending != 0)
					fprintf(stderr, ", pending %" PRIx64 " length "
					    "%u epoch %u check %08x%s", k.pending,
					    k.pending_len, k.pending_epoch,
					    k.pending_check,
					    k.pending_removed ? " removed" : "");
				fputc('\n', stderr);
			}
		}
	}
}

/* ---- what the members of a group hold ---- */

struct members {
	struct sim *s;
	unsigned n;
	struct group *(*group)(struct sim *, unsigned);
};

static bool
level(void *ctx)
{
	const struct members *m = ctx;
	uint64_t applied = 0;
	bool leads = false;

	for (unsigned i = 0; i < m->n; i++) {
		struct group *g = m->group(m->s, i);

		if (g == NULL)
			continue;
		leads |= group_lease(g);
		if (applied != 0 && group_applied(g) != applied)
			return false;
		applied = group_applied(g);
	}
	return leads;
}

/* Keys that begin with a zero byte are the group's own. */
static int
row_after(struct group *g, const void *key, size_t key_len, const void **found, size_t *n,
    const void **value, size_t *value_len)
{
	return table_seek(group_table(g), key, key_len, true, 0, found, n, value, value_len);
}

static void
same_table(struct sim *s, const char *what, unsigned i, struct group *a, struct group *b)
{
	const void *fa, *fb, *va, *vb;
	size_t na, nb, la, lb, len = 1;
	uint8_t key[1024];
	int ra, rb;

	memset(key, 0xff, sizeof(key));
	key[0] = 0;
	for (len = 512;; len = na) {
		ra = row_after(a, key, len, &fa, &na, &va, &la);
		rb = row_after(b, key, len, &fb, &nb, &vb, &lb);
		if (ra != rb || (ra != 0 && ra != -ENOENT))
			sim_fail(s, "%s%u: reading the table: %d and %d", what, i + 1, ra, rb);
		if (ra != 0)
			return;
		if (na != nb || la != lb || memcmp(fa, fb, na) != 0 || memcmp(va, vb, la) != 0)
			sim_fail(s, "%s%u: a row of %02x... differs", what, i + 1,
			    *(const uint8_t *)fa);
		assert(na <= sizeof(key));
		memcpy(key, fa, na);
	}
}

static void
check_group(struct sim *s, const char *what, unsigned n,
    struct group *(*group)(struct sim *, unsigned))
{
	struct members m = { s, n, group };
	struct group *first = NULL;

	sim_until(s, level, &m, 30, "members to be level");
	for (unsigned i = 0; i < n; i++) {
		struct group *g = group(s, i);

		if (g == NULL)
			continue;
		if (first != NULL)
			same_table(s, what, i, first, g);
		else
			first = g;
	}
}

void
check_groups(struct sim *s)
{
	check_group(s, "manager", SIM_MANAGERS, sim_manager_group);
	check_group(s, "metadata", SIM_METADATAS, sim_metadata_group);
}

static int
remember(void *ctx, const struct inode *in)
{
	return map_put(ctx, in->ino, ctx);
}

void
check_tree(struct sim *s)
{
	struct table *t;
	const struct routing *r = routing_of(s);
	const struct routing_chain *c;
	struct map files;
	char why[512];
	int rc;

	if (sim_metadata(s) == NULL)
		sim_fail(s, "nobody leads the metadata");
	t = metadata_table(sim_metadata(s));
	if ((rc = tree_check(t, why, sizeof(why))) != 0)
		sim_fail(s, "tree: %d: %s", rc, why);
	map_init(&files);
	if ((rc = tree_files(t, remember, &files)) != 0)
		sim_fail(s, "tree: %d", rc);
	for (unsigned i = 0; (c = routing_chain_at(r, i)) != NULL; i++) {
		struct chunk_engine *e = engine_of(s, r, c->targets[0]);
		struct chunk_id at = { 0 };
		struct chunk_info info;

		for (bool after = false; chunk_engine_next(e, c->targets[0], at, after,
		    &info) == 0; after = true) {
			at = info.id;
			if (map_get(&files, at.ino) == NULL)
				sim_fail(s, "leaked chunk %" PRIu64 ".%u", at.ino,
				    at.index);
		}
	}
	map_fini(&files);
}
