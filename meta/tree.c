/* SPDX-License-Identifier: MIT */
/* tree.c - whole-tree checks; what is checked is in tree.h. */
#include "meta/tree.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "conf/bytes.h"
#include "conf/err.h"
#include "conf/map.h"
#include "meta/dirent.h"
#include "meta/gc.h"
#include "meta/op.h"

/* One inode while the tree is walked. */
struct node {
	struct inode in;
	uint64_t names;		/* entries that lead to it */
	uint64_t entries;	/* directory: entries in it */
	uint64_t subdirs;
	bool	 removing;	/* has a remove row */
	bool	 truncating;
	bool	 target;	/* has a symlink row */
	bool	 rooted;	/* known to reach the root */
	struct node *next;	/* all of them, newest first */
};

struct walk {
	struct table *t;
	struct map    nodes;	/* struct node by inode */
	struct node  *all;
	uint64_t      n, max_ino;
	char	     *why;
	size_t	      cap;
	/* NULL: the first fault ends it */
	void	    (*report)(void *ctx, const char *why);
	void	     *ctx;
};

static int __attribute__((format(printf, 2, 3)))
fault(struct walk *w, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w->why, w->cap, fmt, ap);
	va_end(ap);
	if (w->report == NULL)
		return -EUCLEAN;
	w->report(w->ctx, w->why);
	return 0;
}

/* How a walk over rows ended. */
static int
ended(struct walk *w, int rc, const char *what)
{
	if (rc == -ENOENT)
		return 0;
	return rc == ERR_LOG_DAMAGED ? fault(w, "1: %s row", what) : rc;
}

static int
inodes(struct walk *w)
{
	struct inode in;
	int rc;

	for (ino_id after = 0; (rc = inode_next(w->t, after, &in)) == 0;
	    after = in.ino) {
		struct node *n = calloc(1, sizeof(*n));

		if (n == NULL)
			return -ENOMEM;
		n->in = in;
		n->next = w->all;
		w->all = n;
		w->n++;
		w->max_ino = in.ino;
		if ((rc = map_put(&w->nodes, in.ino, n)) != 0)
			return rc;
	}
	return ended(w, rc, "inode");
}

static int
entry(struct walk *w, ino_id parent, uint64_t hash, const struct msg_str *name,
    const struct entry *e)
{
	struct node *dir = map_get(&w->nodes, parent);
	struct node *n = map_get(&w->nodes, e->ino);

	if (dir == NULL || !S_ISDIR(dir->in.mode))
		return fault(w, "2: entry %.*s of %" PRIu64
		    ", which is no directory", (int)name->n, name->p, parent);
	if (n == NULL)
		return fault(w, "2: entry %.*s of %" PRIu64 " leads to %" PRIu64
		    ", which is not there", (int)name->n, name->p, parent, e->ino);
	if ((n->in.mode & S_IFMT) != e->type)
		return fault(w, "2: entry %.*s of %" PRIu64 " has type %o, its "
		    "inode %o", (int)name->n, name->p, parent, e->type, n->in.mode);
	if (hash != key_hash(name->p, name->n) || dirent_name_check(name) != 0)
		return fault(w, "2: entry %.*s of %" PRIu64 " has a wrong key",
		    (int)name->n, name->p, parent);
	n->names++;
	dir->entries++;
	if (S_ISDIR(n->in.mode)) {
		dir->subdirs++;
		if (n->in.parent != parent)
			return fault(w, "3: directory %" PRIu64 " is in %" PRIu64
			    " and names %" PRIu64, e->ino, parent, n->in.parent);
	}
	return 0;
}

static int
entries(struct walk *w)
{
	uint8_t key[KEY_LEN_MAX] = { KEY_DIRENT };
	const void *found, *row;
	size_t n = 1, found_len, len;
	int rc;

	while ((rc = table_seek(w->t, key, n, n > 1, 1, &found, &found_len, &row,
	    &len)) == 0) {
		struct msg_str name;
		struct entry e;

		bool bad = found_len <= KEY_DIRENT_LEN || found_len > KEY_LEN_MAX ||
		    dirent_decode(&e, row, len) != 0;

		n = found_len < KEY_LEN_MAX ? found_len : KEY_LEN_MAX;
		memcpy(key, found, n);
		if (bad) {
			if ((rc = fault(w, "1: entry row")) != 0)
				return rc;
			continue;
		}
		name.p = (const char *)key + KEY_DIRENT_LEN;
		name.n = (uint32_t)(n - KEY_DIRENT_LEN);
		rc = entry(w, key_ino_of(key),
		    bytes_from_be64(key + KEY_INO_LEN), &name, &e);
		if (rc != 0)
			return rc;
	}
	return ended(w, rc, "entry");
}

static int
symlinks(struct walk *w)
{
	uint8_t key[KEY_INO_LEN];
	const void *found, *row;
	size_t n, found_len, len;
	ino_id ino = 0;
	int rc;

	for (;;) {
		struct node *node;

		n = key_ino(key, KEY_SYMLINK, ino);
		if ((rc = table_seek(w->t, key, n, true, 1, &found, &found_len,
		    &row, &len)) != 0)
			return ended(w, rc, "symlink");
		if (found_len != KEY_INO_LEN)
			return fault(w, "1: symlink key");
		ino = key_ino_of(found);
		node = map_get(&w->nodes, ino);
		if ((node == NULL || !S_ISLNK(node->in.mode) ||
		    len != node->in.size + 1) &&
		    (rc = fault(w, "6: target of %" PRIu64, ino)) != 0)
			return rc;
		if (node != NULL)
			node->target = true;
	}
}

static int
pending(struct walk *w)
{
	struct gc_row row = { 0 };
	int rc;

	while ((rc = gc_next(w->t, row.ino, row.kind, &row)) == 0) {
		struct node *n = map_get(&w->nodes, row.ino);

		if (n == NULL || !S_ISREG(n->in.mode)) {
			if ((rc = fault(w, "7: gc row of %" PRIu64
			    ", which is no file", row.ino)) != 0)
				return rc;
			continue;
		}
		if (row.kind == GC_REMOVE) {
			n->removing = true;
			continue;
		}
		n->truncating = true;
		if (row.epoch != n->in.epoch && (rc = fault(w, "7: truncation of %"
		    PRIu64 " to epoch %u, inode has %u", row.ino, row.epoch,
		    n->in.epoch)) != 0)
			return rc;
	}
	return ended(w, rc, "gc");
}

static int
check_one(struct walk *w, const struct node *n)
{
	const struct inode *in = &n->in;
	bool dir = S_ISDIR(in->mode), root = in->ino == INO_ROOT;
	uint64_t links = dir ? 2 + n->subdirs : n->names;

	if (in->nlink != links)
		return fault(w, "3: nlink of %" PRIu64 " is %u, should be %" PRIu64,
		    in->ino, in->nlink, links);
	if (dir && n->names != !root)
		return fault(w, "3: directory %" PRIu64 " has %" PRIu64 " entries",
		    in->ino, n->names);
	if (dir && in->size != n->entries)
		return fault(w, "3: size of directory %" PRIu64 " is %" PRIu64
		    ", entries %" PRIu64, in->ino, in->size, n->entries);
	if (n->names == 0 && !root && (!n->removing || !S_ISREG(in->mode)))
		return fault(w, "4: no name for %" PRIu64, in->ino);
	if (n->names > 0 && n->removing)
		return fault(w, "7: %" PRIu64 " has names and a remove row",
		    in->ino);
	if (S_ISLNK(in->mode) != n->target)
		return fault(w, "6: target of %" PRIu64, in->ino);
	if (inode_cutting(in) != n->truncating || in->settled > in->epoch)
		return fault(w, "7: epoch of %" PRIu64 " is %u, settled %u, row %d",
		    in->ino, in->epoch, in->settled, n->truncating);
	return 0;
}

/* Up from @n to what is known to be rooted; then the same way again, to mark it. */
static int
check_rooted(struct walk *w, struct node *n)
{
	struct node *at = n;

	for (uint64_t steps = 0; !at->rooted; steps++) {
		if (steps > w->n)
			return fault(w, "5: %" PRIu64 " is in a cycle", n->in.ino);
		at = map_get(&w->nodes, at->in.parent);
		if (at == NULL)
			return fault(w, "5: %" PRIu64 " does not reach the root",
			    n->in.ino);
	}
	for (at = n; !at->rooted; at = map_get(&w->nodes, at->in.parent))
		at->rooted = true;
	return 0;
}

static int
check_all(struct walk *w)
{
	struct node *root = map_get(&w->nodes, INO_ROOT);
	struct op_counters c;
	int rc = op_counters_get(w->t, &c);

	if (rc != 0)
		return ended(w, rc, "counter");
	if (w->n == 0 && c.inodes == 0)
		return 0;		/* before the first command */
	if (root == NULL || !S_ISDIR(root->in.mode) ||
	    root->in.parent != INO_ROOT)
		return fault(w, "4: no root");
	if ((c.inodes != w->n || c.next_ino <= w->max_ino) &&
	    (rc = fault(w, "1: counters say %" PRIu64 " inodes, next %" PRIu64
		    "; there are %" PRIu64 ", last %" PRIu64, c.inodes, c.next_ino,
		    w->n, w->max_ino)) != 0)
		return rc;
	root->rooted = true;
	for (struct node *n = w->all; n != NULL; n = n->next) {
		if ((rc = check_one(w, n)) != 0)
			return rc;
		if (S_ISDIR(n->in.mode) && (rc = check_rooted(w, n)) != 0)
			return rc;
	}
	return 0;
}

static int
check(struct walk *w)
{
	int rc;

	map_init(&w->nodes);
	if ((rc = inodes(w)) == 0 && (rc = entries(w)) == 0 &&
	    (rc = symlinks(w)) == 0 && (rc = pending(w)) == 0)
		rc = check_all(w);
	map_fini(&w->nodes);
	while (w->all != NULL) {
		struct node *n = w->all;

		w->all = n->next;
		free(n);
	}
	return rc;
}

int
tree_check(struct table *t, char *why, size_t cap)
{
	struct walk w = { .t = t, .why = why, .cap = cap };

	if (cap > 0)
		why[0] = '\0';
	return check(&w);
}

int
tree_check_all(struct table *t, void (*report)(void *ctx, const char *why), void *ctx)
{
	char why[512];
	struct walk w = { .t = t, .why = why, .cap = sizeof(why), .report = report,
	    .ctx = ctx };

	return check(&w);
}

int
tree_files(struct table *t, int (*fn)(void *ctx, const struct inode *in), void *ctx)
{
	struct inode in;
	int rc;

	for (ino_id after = 0; (rc = inode_next(t, after, &in)) == 0;
	    after = in.ino) {
		if (S_ISREG(in.mode) && (rc = fn(ctx, &in)) != 0)
			return rc;
	}
	return rc == -ENOENT ? 0 : rc;
}
