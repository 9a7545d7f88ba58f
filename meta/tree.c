/* SPDX-License-Identifier: MIT */
/* tree.c - whole-tree checks; what is checked is in tree.h, and here:
 *
 *   inode rows -> a node each -> entries counted into the nodes -> entries of directories
 *   that have not exactly one, again -> other rows -> every node judged -> cycles
 *
 * A row that does not parse is told and passed over: what leads to it is no fault then, or
 * a bit that flipped would take all names of a file. */
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

enum {
	DIR_NODE = 1,
	FILE_NODE = 2,		/* regular */
	LINK_NODE = 4,		/* symbolic */
	BAD = 8,		/* its row does not parse */
	REMOVING = 16,		/* has a remove row */
	CUTTING = 32,		/* has a truncate row */
	TARGET = 64,		/* has a symlink row */
	HOME = 128,		/* directory: its parent has an entry for it */
	ROOTED = 256,		/* known to reach the root */
	PATH = 512		/* on the way up that is being looked at */
};

/* One inode while the tree is walked. */
struct node {
	ino_id	 ino;
	ino_id	 parent;	/* of a directory */
	uint64_t entries;	/* directory: entries in it */
	uint32_t names;		/* entries that lead to it */
	uint32_t subdirs;
	uint16_t flags;
};

/* The entry that a directory of several keeps. */
struct kept {
	ino_id	 parent;
	uint32_t n;
	char	 name[META_NAME_MAX];
};

struct walk {
	struct table *t;
	struct node  *nodes;	/* in order */
	size_t	      n, cap;
	ino_id	      next_ino;	/* no inode had this number yet, nor one above */
	ino_id	      missing;	/* last directory that has no inode */
	bool	      rootless;
	bool	      astray;	/* directories have no or several entries */
	struct map    kept;	/* struct kept by inode */
	char	     *why;
	size_t	      why_cap;
	/* NULL: the first fault ends it */
	tree_fault_fn *report;
	void	     *ctx;
};

/* One fault, what mends it (NULL: nothing), and whether data may hang on it. */
static int __attribute__((format(printf, 4, 5)))
fault(struct walk *w, const struct msg_repair_row *fix, bool may_have_data,
    const char *fmt, ...)
{
	struct tree_fault f = { .why = w->why, .may_have_data = may_have_data };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w->why, w->why_cap, fmt, ap);
	va_end(ap);
	if (w->report == NULL)
		return -EUCLEAN;
	if (fix != NULL)
		f.fix = *fix;
	return w->report(w->ctx, &f);
}

/* How a walk over rows ended. */
static int
ended(struct walk *w, int rc, const char *what)
{
	if (rc == -ENOENT)
		return 0;
	return rc == ERR_LOG_DAMAGED ? fault(w, NULL, false, "1: %s row", what) : rc;
}

static struct node *
node_of(const struct walk *w, ino_id ino)
{
	size_t from = 0, to = w->n;

	while (from < to) {
		size_t at = from + (to - from) / 2;

		if (w->nodes[at].ino == ino)
			return &w->nodes[at];
		if (w->nodes[at].ino < ino)
			from = at + 1;
		else
			to = at;
	}
	return NULL;
}

/* Walk over all rows of a prefix: each call gives the next one, borrowed but for its key. */
struct rows {
	uint8_t	    key[TABLE_KEY_MAX];
	size_t	    key_len;
	bool	    after;
	const void *row;
	size_t	    len;
};

static int
next_row(struct walk *w, struct rows *r, size_t prefix_len)
{
	const void *key;
	size_t key_len;
	int rc = table_seek(w->t, r->key, r->key_len, r->after, prefix_len, &key,
	    &key_len, &r->row, &r->len);

	if (rc != 0)
		return rc;
	if (key_len > sizeof(r->key))
		return -EIO;		/* no table holds such a key */
	memcpy(r->key, key, key_len);
	r->key_len = key_len;
	r->after = true;
	return 0;
}

/* ---- inodes ---- */

static int
add_node(struct walk *w, ino_id ino, const struct inode *in)
{
	struct node *n;

	if (w->n == w->cap) {
		size_t cap = w->cap == 0 ? 1024 : w->cap + w->cap / 2;

		if ((n = realloc(w->nodes, cap * sizeof(*n))) == NULL)
			return -ENOMEM;
		w->nodes = n;
		w->cap = cap;
	}
	n = &w->nodes[w->n++];
	*n = (struct node){ .ino = ino, .flags = BAD };
	if (in == NULL)
		return 0;
	n->flags = S_ISDIR(in->mode) ? DIR_NODE : S_ISREG(in->mode) ? FILE_NODE :
	    S_ISLNK(in->mode) ? LINK_NODE : 0;
	if (S_ISDIR(in->mode))
		n->parent = in->parent;
	return 0;
}

static int
inodes(struct walk *w)
{
	struct rows r = { .key = { KEY_INODE }, .key_len = 1 };
	int rc;

	while ((rc = next_row(w, &r, 1)) == 0) {
		struct inode in;
		ino_id ino;
		bool bad;

		if (r.key_len != KEY_INO_LEN) {
			if ((rc = fault(w, NULL, false, "1: inode key of %zu bytes",
			    r.key_len)) != 0)
				return rc;
			continue;
		}
		ino = key_ino_of(r.key);
		bad = inode_decode(&in, ino, r.row, r.len) != 0;
		if (bad && (rc = fault(w, NULL, false, "1: inode row of %" PRIu64,
		    ino)) != 0)
			return rc;
		if ((rc = add_node(w, ino, bad ? NULL : &in)) != 0)
			return rc;
	}
	return ended(w, rc, "inode");
}

/* ---- entries ---- */

struct found {
	struct entry   e;
	ino_id	       parent;
	uint64_t       hash;
	struct msg_str name;
};

/* To mend it, one way or another. */
static struct msg_repair_row
fix_entry(enum meta_repair what, const struct found *f)
{
	return (struct msg_repair_row){ .what = what, .ino = f->e.ino,
		.parent = f->parent, .hash = f->hash, .name = f->name };
}

/* Parts of the entry's key. */
static bool
split(const struct rows *r, struct found *f)
{
	*f = (struct found){ .parent = r->key_len >= KEY_INO_LEN ?
		key_ino_of(r->key) : 0 };
	if (r->key_len <= KEY_DIRENT_LEN || r->key_len > KEY_LEN_MAX)
		return false;
	f->hash = bytes_from_be64(r->key + KEY_INO_LEN);
	f->name.p = (const char *)r->key + KEY_DIRENT_LEN;
	f->name.n = (uint32_t)(r->key_len - KEY_DIRENT_LEN);
	return true;
}

/* Between two directories, or the entry of one, is settled by astray(). */
static void
count_directory(struct walk *w, struct node *dir, struct node *n, ino_id parent)
{
	dir->subdirs++;
	if (n->names > 1 || n->parent != parent)
		w->astray = true;
	if (n->parent == parent)
		n->flags |= HOME;
}

/* The directory of this entry has no inode. */
static int
no_directory(struct walk *w, const struct found *f, struct node *n)
{
	struct msg_repair_row fix = { .what = META_REPAIR_DIRECTORY, .ino = f->parent };

	if (f->parent >= w->next_ino) {
		fix = fix_entry(META_REPAIR_ENTRY, f);
		return fault(w, &fix, n == NULL && S_ISREG(f->e.type), "2: entry %.*s "
		    "of %" PRIu64 ", which never was", (int)f->name.n, f->name.p,
		    f->parent);
	}
	if (n != NULL) {		/* has a name, once that is mended */
		n->names++;
		n->flags |= n->parent == f->parent ? HOME : 0;
	}
	if (w->missing == f->parent)
		return 0;
	w->missing = f->parent;
	return fault(w, &fix, false, "2: directory %" PRIu64 " has entries and is not "
	    "there", f->parent);
}

static int
no_inode(struct walk *w, const struct found *f)
{
	struct msg_repair_row fix = fix_entry(META_REPAIR_ENTRY, f);
	struct rows below = { .key_len = KEY_INO_LEN };
	int rc = -ENOENT;

	key_ino(below.key, KEY_DIRENT, f->e.ino);
	if (S_ISDIR(f->e.type) && f->e.ino < w->next_ino)
		rc = next_row(w, &below, KEY_INO_LEN);
	if (rc == 0)
		fix = (struct msg_repair_row){ .what = META_REPAIR_DIRECTORY,
			.ino = f->e.ino, .parent = f->parent };
	else if (rc != -ENOENT)
		return rc;
	return fault(w, &fix, S_ISREG(f->e.type), "2: entry %.*s of %" PRIu64
	    " leads to %" PRIu64 ", which is not there", (int)f->name.n, f->name.p,
	    f->parent, f->e.ino);
}

static int
entry(struct walk *w, const struct found *f)
{
	struct node *dir = node_of(w, f->parent), *n = node_of(w, f->e.ino);
	struct msg_repair_row fix = fix_entry(META_REPAIR_ENTRY, f);
	int len = (int)f->name.n, rc;
	const char *name = f->name.p;

	if (dir == NULL)
		return no_directory(w, f, n);
	if ((dir->flags & (DIR_NODE | BAD)) == 0)
		return fault(w, &fix, n == NULL && S_ISREG(f->e.type),
		    "2: entry %.*s of %" PRIu64 ", which is no directory", len,
		    name, f->parent);
	dir->entries++;
	if (n == NULL)
		return no_inode(w, f);
	if (n->ino == INO_ROOT) {
		fix.what = META_REPAIR_EXTRA;
		dir->subdirs += (n->flags & DIR_NODE) != 0;
		return fault(w, &fix, false, "2: entry %.*s of %" PRIu64
		    " leads to the root", len, name, f->parent);
	}
	n->names++;
	if ((n->flags & DIR_NODE) != 0)
		count_directory(w, dir, n, f->parent);
	else if ((n->flags & BAD) != 0 && S_ISDIR(f->e.type))
		dir->subdirs++;		/* all that tells what it was */
	if ((rc = dirent_name_check(&f->name)) != 0 ||
	    f->hash != key_hash(name, f->name.n)) {
		fix.what = META_REPAIR_KEY;
		rc = fault(w, rc == 0 ? &fix : NULL, false, "2: entry %.*s of %" PRIu64
		    " has a wrong key", len, name, f->parent);
		if (rc != 0)
			return rc;
	}
	if ((n->flags & BAD) == 0) {
		struct inode in;

		/* Types that nodes do not tell apart are rare. */
		if ((n->flags & DIR_NODE) != 0 ? S_ISDIR(f->e.type) :
		    (n->flags & FILE_NODE) != 0 && S_ISREG(f->e.type))
			return 0;
		if ((rc = inode_get(w->t, n->ino, &in)) != 0)
			return rc;
		fix.what = META_REPAIR_TYPE;
		if ((in.mode & S_IFMT) != f->e.type)
			return fault(w, &fix, false, "2: entry %.*s of %" PRIu64
			    " has type %o, its inode %o", len, name, f->parent,
			    f->e.type, in.mode);
	}
	return 0;
}

static int
entries(struct walk *w)
{
	struct rows r = { .key = { KEY_DIRENT }, .key_len = 1 };
	int rc;

	while ((rc = next_row(w, &r, 1)) == 0) {
		struct node *dir;
		struct found f;
		bool good = split(&r, &f);

		if (good && dirent_decode(&f.e, r.row, r.len) == 0) {
			rc = entry(w, &f);
		} else {
			struct msg_repair_row fix = fix_entry(META_REPAIR_ENTRY, &f);

			if ((dir = node_of(w, f.parent)) != NULL)
				dir->entries++;
			rc = fault(w, good ? &fix : NULL, false,
			    "1: entry row in %" PRIu64, f.parent);
		}
		if (rc != 0)
			return rc;
	}
	return ended(w, rc, "entry");
}

/* ---- directories with several entries, or one that is not where they say ---- */

/* First entry of @dir that leads to @ino. 0, -ENOENT, -EIO. */
static int
find_entry(struct walk *w, ino_id dir, ino_id ino, struct rows *r, struct found *f)
{
	int rc;

	*r = (struct rows){ .key_len = KEY_INO_LEN };
	key_ino(r->key, KEY_DIRENT, dir);
	while ((rc = next_row(w, r, KEY_INO_LEN)) == 0)
		if (split(r, f) && dirent_decode(&f->e, r->row, r->len) == 0 &&
		    f->e.ino == ino)
			return 0;
	return rc;
}

static int
keep(struct walk *w, struct node *n, const struct found *f)
{
	struct kept *k = calloc(1, sizeof(*k));

	if (k == NULL || map_put(&w->kept, n->ino, k) != 0) {
		free(k);
		return -ENOMEM;
	}
	k->parent = f->parent;
	k->n = f->name.n;
	memcpy(k->name, f->name.p, f->name.n);
	return 0;
}

/* This entry leads to directory @n: is it the one it keeps? */
static int
astray_entry(struct walk *w, struct node *n, const struct found *f)
{
	struct kept *k = map_get(&w->kept, n->ino);
	struct msg_repair_row fix;
	struct inode in;
	int rc;

	if (k == NULL && (n->flags & HOME) != 0) {
		struct found home;
		struct rows r;

		if ((rc = find_entry(w, n->parent, n->ino, &r, &home)) != 0 ||
		    (rc = keep(w, n, &home)) != 0)
			return rc;
		k = map_get(&w->kept, n->ino);
	}
	if (k == NULL) {
		if ((rc = keep(w, n, f)) != 0 ||
		    (rc = inode_get(w->t, n->ino, &in)) != 0)
			return rc;
		fix = fix_entry(META_REPAIR_PARENT, f);
		fix.change = in.change;
		rc = fault(w, &fix, false, "3: directory %" PRIu64 " is in %" PRIu64
		    " and names %" PRIu64, n->ino, f->parent, n->parent);
		n->parent = f->parent;
		return rc;
	}
	if (k->parent == f->parent && k->n == f->name.n &&
	    memcmp(k->name, f->name.p, k->n) == 0)
		return 0;
	fix = fix_entry(META_REPAIR_EXTRA, f);
	fix.value = k->parent;
	fix.keep = (struct msg_str){ k->name, k->n };
	return fault(w, &fix, false, "3: directory %" PRIu64 " is in %" PRIu64
	    " as %.*s, and in %" PRIu64, n->ino, f->parent, (int)f->name.n,
	    f->name.p, k->parent);
}

static int
astray(struct walk *w)
{
	struct rows r = { .key = { KEY_DIRENT }, .key_len = 1 };
	int rc;

	while (w->astray && (rc = next_row(w, &r, 1)) == 0) {
		struct node *dir, *n;
		struct found f;

		if (!split(&r, &f) || dirent_decode(&f.e, r.row, r.len) != 0 ||
		    (n = node_of(w, f.e.ino)) == NULL || n->ino == INO_ROOT ||
		    (n->flags & DIR_NODE) == 0 ||
		    (n->names == 1 && (n->flags & HOME) != 0) ||
		    (dir = node_of(w, f.parent)) == NULL ||
		    (dir->flags & (DIR_NODE | BAD)) == 0)
			continue;
		if ((rc = astray_entry(w, n, &f)) != 0)
			return rc;
	}
	return !w->astray || rc == -ENOENT ? 0 : rc;
}

/* ---- the other rows ---- */

static int
symlinks(struct walk *w)
{
	struct rows r = { .key = { KEY_SYMLINK }, .key_len = 1 };
	int rc;

	while ((rc = next_row(w, &r, 1)) == 0) {
		struct msg_repair_row fix = { .what = META_REPAIR_TARGET };
		struct node *n;
		struct inode in;

		if (r.key_len != KEY_INO_LEN) {
			if ((rc = fault(w, NULL, false, "1: symlink key")) != 0)
				return rc;
			continue;
		}
		fix.ino = key_ino_of(r.key);
		n = node_of(w, fix.ino);
		if (n != NULL && (n->flags & BAD) != 0)
			continue;
		if (n != NULL && (n->flags & LINK_NODE) != 0) {
			size_t len = r.len;	/* the row goes with the next read */

			n->flags |= TARGET;
			if ((rc = inode_get(w->t, fix.ino, &in)) != 0)
				return rc;
			if (len == in.size + 1)
				continue;
		}
		if ((rc = fault(w, &fix, n == NULL, "6: target of %" PRIu64,
		    fix.ino)) != 0)
			return rc;
	}
	return ended(w, rc, "symlink");
}

static int
pending(struct walk *w)
{
	struct gc_row row = { 0 };
	int rc;

	while ((rc = gc_next(w->t, row.ino, row.kind, &row)) == 0) {
		struct msg_repair_row fix = { .what = META_REPAIR_PENDING,
			.ino = row.ino };
		struct node *n = node_of(w, row.ino);
		struct inode in;

		if (n != NULL && (n->flags & BAD) != 0)
			continue;
		if (n == NULL || (n->flags & FILE_NODE) == 0) {
			if ((rc = fault(w, &fix, false, "7: gc row of %" PRIu64
			    ", which is no file", row.ino)) != 0)
				return rc;
			continue;
		}
		if (row.kind == GC_REMOVE) {
			n->flags |= REMOVING;
			continue;
		}
		n->flags |= CUTTING;
		if ((rc = inode_get(w->t, row.ino, &in)) != 0)
			return rc;
		if (row.epoch != in.epoch && (rc = fault(w, &fix, false,
		    "7: truncation of %" PRIu64 " to epoch %u, inode has %u", row.ino,
		    row.epoch, in.epoch)) != 0)
			return rc;
	}
	return ended(w, rc, "gc");
}

/* ---- one inode, all of it known ---- */

static int
check_directory(struct walk *w, const struct node *n, const struct inode *in)
{
	struct msg_repair_row fix = { .what = META_REPAIR_COUNTS, .ino = n->ino,
		.change = in->change, .value = n->entries, .subdirs = n->subdirs };
	int rc;

	if (in->nlink != (uint64_t)n->subdirs + 2 &&
	    (rc = fault(w, &fix, false, "3: nlink of directory %" PRIu64
	    " is %u, should be %" PRIu64, in->ino, in->nlink,
	    (uint64_t)n->subdirs + 2)) != 0)
		return rc;
	if (in->size != n->entries && (rc = fault(w, &fix, false, "3: size of directory "
	    "%" PRIu64 " is %" PRIu64 ", entries %" PRIu64, in->ino, in->size,
	    n->entries)) != 0)
		return rc;
	return 0;
}

static int
check_names(struct walk *w, const struct node *n, const struct inode *in)
{
	struct msg_repair_row fix = { .what = META_REPAIR_LINKS, .ino = n->ino,
		.change = in->change, .value = n->names };
	bool removing = (n->flags & REMOVING) != 0;

	if (n->names > 0 && removing)
		return fault(w, &fix, false, "7: %" PRIu64 " has names and a remove "
		    "row", in->ino);
	if (n->names == 0 && !removing) {
		fix.what = META_REPAIR_LOST;
		return fault(w, &fix, false, "4: no name for %" PRIu64, in->ino);
	}
	if (in->nlink != n->names)
		return fault(w, &fix, false, "3: nlink of %" PRIu64 " is %u, should be "
		    "%u", in->ino, in->nlink, n->names);
	return 0;
}

static int
check_one(struct walk *w, struct node *n)
{
	struct msg_repair_row fix = { .ino = n->ino };
	struct inode in;
	int rc;

	if ((n->flags & BAD) != 0)
		return 0;
	if ((rc = inode_get(w->t, n->ino, &in)) != 0)
		return rc;
	if (S_ISDIR(in.mode)) {
		fix.what = META_REPAIR_LOST;
		fix.change = in.change;
		if (n->names == 0 && n->ino != INO_ROOT && (rc = fault(w, &fix, false,
		    "4: no name for directory %" PRIu64, n->ino)) != 0)
			return rc;
		rc = check_directory(w, n, &in);
	} else
		rc = check_names(w, n, &in);
	if (rc != 0)
		return rc;
	if (S_ISLNK(in.mode) && (n->flags & TARGET) == 0)
		return fault(w, NULL, false, "6: target of %" PRIu64, n->ino);
	fix.what = META_REPAIR_PENDING;
	if (inode_cutting(&in) != ((n->flags & CUTTING) != 0) || in.settled > in.epoch)
		return fault(w, &fix, false, "7: epoch of %" PRIu64 " is %u, settled "
		    "%u, row %d", in.ino, in.epoch, in.settled,
		    (n->flags & CUTTING) != 0);
	return 0;
}

/* ---- the way up ---- */

/* @n is below itself: its lowest directory is taken out. */
static int
cycle(struct walk *w, struct node *n)
{
	struct node *lowest = n, *at = n;
	struct msg_repair_row fix;
	struct rows r;
	struct found f;
	int rc;

	do {
		if (at->ino < lowest->ino)
			lowest = at;
		at = node_of(w, at->parent);
	} while (at != n);
	rc = find_entry(w, lowest->parent, lowest->ino, &r, &f);
	if (rc != 0 && rc != -ENOENT)
		return rc;
	fix = fix_entry(META_REPAIR_CYCLE, &f);
	return fault(w, rc == 0 ? &fix : NULL, false, "5: directory %" PRIu64
	    " is below itself", lowest->ino);
}

/* Up from @n to what is known to be rooted; then the same way again, to mark it. Whoever has
 * no name was told already, and is a root of its own. */
static int
check_rooted(struct walk *w, struct node *n)
{
	struct node *at = n;
	int rc = 0;

	while ((at->flags & (ROOTED | PATH)) == 0) {
		struct node *up = node_of(w, at->parent);

		at->flags |= PATH;
		if (at->names == 0 || up == NULL || (up->flags & DIR_NODE) == 0) {
			at->flags |= ROOTED;
			break;
		}
		at = up;
	}
	if ((at->flags & ROOTED) == 0)
		rc = cycle(w, at);
	for (at = n; (at->flags & PATH) != 0; at = node_of(w, at->parent)) {
		bool end = (at->flags & ROOTED) != 0;

		at->flags = (uint16_t)((at->flags & ~PATH) | ROOTED);
		if (end)
			break;
	}
	return rc;
}

static int
check_counters(struct walk *w, const struct op_counters *c)
{
	ino_id last = w->n == 0 ? 0 : w->nodes[w->n - 1].ino;
	struct msg_repair_row fix = { .what = META_REPAIR_COUNTERS, .value = last,
		.subdirs = (int64_t)(w->n - c->inodes) };
	int rc = op_recounts_get(w->t, &fix.change);

	w->next_ino = c->next_ino > last ? c->next_ino : last + 1;
	if (rc != 0)
		return ended(w, rc, "recount");
	if (c->inodes == w->n && c->next_ino > last)
		return 0;
	return fault(w, &fix, false, "1: counters say %" PRIu64 " inodes, next %" PRIu64
	    "; there are %zu, last %" PRIu64, c->inodes, c->next_ino, w->n, last);
}

static int
check_root(struct walk *w)
{
	struct msg_repair_row fix = { .what = META_REPAIR_ROOT, .ino = INO_ROOT };
	struct node *root = node_of(w, INO_ROOT);

	if (root != NULL && (root->flags & BAD) != 0)
		return 0;
	if (root == NULL || (root->flags & DIR_NODE) == 0 || root->parent != INO_ROOT) {
		/* Without it all else would be called lost. */
		w->rootless = root == NULL || (root->flags & DIR_NODE) == 0;
		return fault(w, root == NULL || (root->flags & DIR_NODE) != 0 ? &fix :
		    NULL, false, "4: no root");
	}
	root->flags |= ROOTED;
	return 0;
}

static int
check_all(struct walk *w)
{
	struct op_counters c;
	int rc;

	if ((rc = inodes(w)) != 0)
		return rc;
	if ((rc = op_counters_get(w->t, &c)) != 0)
		return ended(w, rc, "counter");
	if (w->n == 0 && c.inodes == 0)
		return 0;		/* before the first command */
	if ((rc = check_counters(w, &c)) != 0 || (rc = check_root(w)) != 0 ||
	    w->rootless || (rc = entries(w)) != 0 || (rc = astray(w)) != 0 ||
	    (rc = symlinks(w)) != 0 || (rc = pending(w)) != 0)
		return rc;
	for (size_t i = 0; i < w->n; i++)
		if ((rc = check_one(w, &w->nodes[i])) != 0 ||
		    ((w->nodes[i].flags & DIR_NODE) != 0 &&
		    (rc = check_rooted(w, &w->nodes[i])) != 0))
			return rc;
	return 0;
}

static int
check(struct walk *w)
{
	struct kept *k;
	size_t it = 0;
	int rc;

	map_init(&w->kept);
	rc = check_all(w);
	while ((k = map_next(&w->kept, &it, NULL)) != NULL)
		free(k);
	map_fini(&w->kept);
	free(w->nodes);
	return rc;
}

int
tree_check(struct table *t, char *why, size_t cap)
{
	struct walk w = { .t = t, .why = why, .why_cap = cap };

	if (cap > 0)
		why[0] = '\0';
	return check(&w);
}

int
tree_check_all(struct table *t, tree_fault_fn *report, void *ctx)
{
	char why[512];
	struct walk w = { .t = t, .why = why, .why_cap = sizeof(why), .report = report,
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
