/* SPDX-License-Identifier: MIT */
/* check.c - what must hold of a cluster that is healed and quiet. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/engine.h"
#include "conf/map.h"
#include "meta/tree.h"
#include "net/member.h"
#include "roles/metadata.h"
#include "roles/storage.h"
#include "tests/sim/sim.h"

static const struct routing *
routing_of(struct sim *s)
{
	struct client *c = sim_client(s, 0);

	assert(c != NULL);
	return member_routing(client_member(c));
}

static struct chunk_engine *
engine_of(struct sim *s, const struct routing *r, target_id target)
{
	const struct routing_target *t = routing_target(r, target);
	const struct routing_node *n = t == NULL ? NULL : routing_node(r, t->node);

	if (n == NULL || strncmp(n->name, "storage", 7) != 0)
		sim_fail(s, "target %u is on no storage node", target);
	return storage_engine_at(sim_storage(s, (unsigned)atoi(n->name + 7) - 1), 0);
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
		    a.committed_check != b.committed_check)
			sim_fail(s, "chain %u: %" PRIu64 ".%u differs: version %" PRIx64
			    " length %u check %08x, replica %u: %" PRIx64 " %u %08x",
			    c->id, at.ino, at.index, a.committed, a.committed_len,
			    a.committed_check, i, b.committed, b.committed_len,
			    b.committed_check);
	}
}

void
check_replicas(struct sim *s)
{
	const struct routing *r = routing_of(s);
	const struct routing_chain *c;
	unsigned chains = 0;

	for (unsigned i = 0; (c = routing_chain_at(r, i)) != NULL; i++) {
		if (c->state != CHAIN_SERVING)
			sim_fail(s, "chain %u does not serve", c->id);
		if (c->target_n != SIM_STORAGE)
			sim_fail(s, "chain %u has %u targets", c->id, c->target_n);
		for (unsigned k = 1; k < c->target_n; k++)
			compare(s, r, c, k);
		chains++;
	}
	if (chains == 0)
		sim_fail(s, "there are no chains");
	for (unsigned i = 0; i < SIM_STORAGE; i++)
		chunk_engine_check(storage_engine_at(sim_storage(s, i), 0));
}

void
check_dump(struct sim *s)
{
	for (unsigned i = 0; i < SIM_STORAGE; i++) {
		struct storage *st = sim_storage(s, i);
		struct chunk_engine *e = st == NULL ? NULL : storage_engine_at(st, 0);

		for (target_id t = 1; e != NULL && t <= 64; t++) {
			struct chunk_id at = { 0 };
			struct chunk_info k;

			for (bool after = false; chunk_engine_next(e, t, at, after, &k) == 0;
			    after = true) {
				at = k.id;
				fprintf(stderr, "storage%u target %u chunk %" PRIu64
				    ".%u: %" PRIx64 " length %u epoch %u check %08x",
				    i + 1, t, k.id.ino, k.id.index, k.committed,
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

static int
remember(void *ctx, const struct inode *in)
{
	return map_put(ctx, in->ino, ctx);
}

void
check_tree(struct sim *s)
{
	struct table *t = metadata_table(sim_metadata(s));
	const struct routing *r = routing_of(s);
	const struct routing_chain *c;
	struct map files;
	char why[512];
	int rc;

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
