/* SPDX-License-Identifier: MIT */
/* check_meta.c - the tables of metadata: a frozen image is read page by page into a table
 * of our own, then the tree in it is checked (meta/tree.h). */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "conf/err.h"
#include "meta/inode.h"
#include "meta/key.h"
#include "meta/op.h"
#include "meta/tree.h"
#include "roles/check_impl.h"

#define RESTARTS	5u	/* of an image that went stale */

/* ---- a table without a store: all of it is what was put ---- */

static int
none_get(struct table_store *s, const void *key, size_t key_len, const void **value,
    size_t *value_len)
{
	(void)s, (void)key, (void)key_len, (void)value, (void)value_len;
	return -ENOENT;
}

static int
none_seek(struct table_store *s, const void *key, size_t key_len, bool after,
    const void **found, size_t *found_len, const void **value, size_t *value_len)
{
	(void)s, (void)key, (void)key_len, (void)after, (void)found, (void)found_len;
	(void)value, (void)value_len;
	return -ENOENT;
}

static uint64_t
none_used(struct table_store *s)
{
	(void)s;
	return 0;
}

static void
none_close(struct table_store *s)
{
	(void)s;
}

/* Nothing is ever committed, and no image is made of it. */
static const struct table_store_ops none_ops = {
	.get = none_get, .seek = none_seek, .used = none_used, .close = none_close,
};

/* ---- the tree ---- */

static int
tree_fault(void *ctx, const struct tree_fault *f)
{
	check_fault(ctx, "metadata %s", f->why);
	return 0;
}

static int
count_inodes(struct check *c)
{
	struct inode in;
	int rc;

	for (ino_id after = 0; (rc = inode_next(c->table, after, &in)) == 0;
	    after = in.ino)
		c->inodes++;
	return rc == -ENOENT || rc == ERR_LOG_DAMAGED ? 0 : rc;
}

static void
have_image(struct check *c)
{
	struct op_counters n;
	int rc = tree_check_all(c->table, tree_fault, c);

	if (rc == 0)
		rc = count_inodes(c);
	if (rc == 0)
		rc = op_counters_get(c->table, &n);
	if (rc != 0) {
		check_end(c, rc);
		return;
	}
	c->next_ino = n.next_ino;
	check_chunks_start(c);
}

/* ---- pages ---- */

static void ask(struct clock_timer *t);

/* Row by row; what is not of the tree is of no interest. 0 or -ENOMEM. */
static int
take(struct check *c, const struct msg_image_rep *rep)
{
	for (uint32_t i = 0; i < rep->rows.n; i++) {
		const struct msg_image_row *row = &rep->rows.v[i];
		int rc;

		if (row->key.n == 0 || row->key.n > TABLE_KEY_MAX ||
		    row->value.n > TABLE_VALUE_MAX)
			return ERR_BAD_MESSAGE;
		memcpy(c->after_key, row->key.p, row->key.n);
		c->after = (struct msg_str){ c->after_key, row->key.n };
		if (row->key.p[0] == 0 || row->key.p[0] == KEY_ONCE)
			continue;
		rc = table_put(c->table, row->key.p, row->key.n, row->value.p,
		    row->value.n);
		if (rc != 0)
			return rc;
	}
	return rep->rows.n == 0 && rep->more ? ERR_BAD_MESSAGE : 0;
}

static void
restart(struct check *c)
{
	check_meta_close(c);
	check_meta_start(c);
}

static void
again(struct check *c)
{
	check_later(c, CHECK_PAUSE_NS, ask);
}

static void
answered(struct net_call *call, int rc)
{
	struct check *c = container_of(call, struct check, call);
	const struct msg_image_rep *rep = call->rep;

	if (rc == 0) {
		c->heard_ns = clock_now(c->env.clock);
		c->image = rep->image;
		rc = take(c, rep);
		if (rc != 0)
			check_end(c, rc);
		else if (rep->more)
			check_later(c, 0, ask);
		else
			have_image(c);
		return;
	}
	if (rc == -ESTALE && c->restarts++ < RESTARTS) {
		restart(c);
		return;
	}
	if (rc == -ESTALE || err_next(rc) == ERR_NEXT_FAIL || check_silent(c)) {
		check_end(c, rc);
		return;
	}
	if (c->image != 0) {		/* it died with the server that held it */
		restart(c);
		return;
	}
	c->meta_at++;
	check_route(c, again);
}

/* Metadata server number meta_at, around and around. */
static int
server(const struct check *c, struct net_addr *out)
{
	const struct routing_node *n;
	unsigned count = 0, want;

	for (unsigned i = 0; (n = routing_node_at(c->routing, i)) != NULL; i++)
		count += (n->roles & NODE_METADATA) != 0 && n->addr_n > 0;
	if (count == 0)
		return -ENOENT;
	want = c->meta_at % count;
	for (unsigned i = 0; (n = routing_node_at(c->routing, i)) != NULL; i++)
		if ((n->roles & NODE_METADATA) != 0 && n->addr_n > 0 && want-- == 0)
			*out = n->addrs[0];
	return 0;
}

static void
ask(struct clock_timer *t)
{
	struct check *c = container_of(t, struct check, timer);
	struct msg_image q = { .image = c->image, .after = c->after };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(c->env.clock) + CHECK_ATTEMPT_NS
	};
	struct net_addr to;
	int rc = server(c, &to);

	if (rc == 0)
		rc = net_call_start(&c->call, c->env.hub, &to, MSG_image, &q, &opts,
		    answered);
	if (rc != 0)
		check_end(c, rc);
}

void
check_meta_start(struct check *c)
{
	int rc;

	c->none.ops = &none_ops;
	c->image = 0;
	c->after = (struct msg_str){ c->after_key, 0 };
	rc = table_open(&c->table, &c->none, c->env.clock);
	if (rc != 0)
		check_end(c, rc);
	else
		again(c);
}

void
check_meta_close(struct check *c)
{
	table_close(c->table);
	c->table = NULL;
}
