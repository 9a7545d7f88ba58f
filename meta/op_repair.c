/* SPDX-License-Identifier: MIT */
/* op_repair.c - rows that do not fit together, made to fit; asked for by fsd check.
 *
 *  1. Every row of the request is looked at again here: the tree has changed since the image
 *     was made in which something was found.  What is right by now is left alone.
 *  2. Numbers that only a walk over all entries can tell (names of a file, entries of a
 *     large directory) hold as long as `change` of the inode is what it was: every operation
 *     that adds or takes a name raises it.
 *  3. No inode is removed, and nothing that can hold data.  An entry goes when it leads
 *     nowhere, or when another one leads to the same directory.
 *  4. The leader works this out, over a shadow of its table, and only when most members are
 *     known to hold the same rows; all members write what it says (fs_repair.c).
 *  5. What cannot be parsed, on all members alike then, is not touched.  An entry that cannot
 *     be parsed goes: it leads nowhere.
 *  6. Work is bounded: what would read too many rows, or write them, is put off to the next
 *     command. */
#include <errno.h>
#include <sys/stat.h>

#include "conf/err.h"
#include "meta/op_repair.h"

#define INO_LAST	(UINT64_C(1) << 62)

/* A read for one row of the request: damage found by it concerns that row only. */
static int
seen(struct fs_op *o, int rc)
{
	return rc == ERR_LOG_DAMAGED ? rc : op_note(o, rc);
}

static size_t
entry_key(const struct msg_repair_row *q, uint8_t k[KEY_LEN_MAX])
{
	return key_dirent(k, q->parent, q->hash, q->name.p, q->name.n);
}

/* The entry that is meant: 0, -ENOENT, ERR_LOG_DAMAGED when it does not parse. */
static int
entry_get(struct fs_op *o, const struct msg_repair_row *q, struct entry *e)
{
	uint8_t k[KEY_LEN_MAX];
	const void *row;
	size_t len;
	int rc = seen(o, table_get(o->t, k, entry_key(q, k), &row, &len));

	return rc != 0 ? rc : dirent_decode(e, row, len);
}

/* 0 and it leads to q->ino; -ESTALE: it does not any more. */
static int
entry_leads(struct fs_op *o, const struct msg_repair_row *q, struct entry *e)
{
	int rc = entry_get(o, q, e);

	if (rc == -ENOENT || (rc == 0 && e->ino != q->ino))
		return -ESTALE;
	return rc;
}

int
op_repair_inode(struct fs_op *o, ino_id ino, struct inode *in)
{
	return seen(o, inode_get(o->t, ino, in));
}

/* Take the entry out of its directory, if that is one. */
static int
entry_drop(struct fs_op *o, const struct msg_repair_row *q, bool subdir)
{
	uint8_t k[KEY_LEN_MAX];
	struct inode dir;
	int rc = op_repair_inode(o, q->parent, &dir);

	if (rc != 0 && rc != -ENOENT)
		return rc;
	if (rc == 0 && S_ISDIR(dir.mode)) {
		if (subdir && dir.nlink > 2)
			dir.nlink--;
		op_dir_changed(o, &dir, dir.size > 0 ? -1 : 0);
		op_put(o, &dir);
	}
	return op_note(o, table_del(o->t, k, entry_key(q, k)));
}

/* ---- entries ---- */

static int
mend_entry(struct fs_op *o, const struct msg_repair_row *q)
{
	struct inode dir, in;
	struct entry e;
	int rc = entry_get(o, q, &e), dir_rc;

	if (rc == -ENOENT)
		return 0;
	if (rc == ERR_LOG_DAMAGED)
		return entry_drop(o, q, false);
	if (rc != 0)
		return rc;
	if (e.ino != q->ino)
		return -ESTALE;
	dir_rc = op_repair_inode(o, q->parent, &dir);
	rc = op_repair_inode(o, e.ino, &in);
	if ((dir_rc != 0 && dir_rc != -ENOENT) || (rc != 0 && rc != -ENOENT))
		return rc != 0 && rc != -ENOENT ? rc : dir_rc;
	if (rc == 0 && dir_rc == 0 && S_ISDIR(dir.mode))
		return -ESTALE;		/* it is as it should be */
	return entry_drop(o, q, false);
}

static int
mend_extra(struct fs_op *o, const struct msg_repair_row *q)
{
	struct entry e, other;
	struct inode in;
	int rc;

	if (q->ino == INO_ROOT)		/* nothing may lead to it */
		return (rc = entry_leads(o, q, &e)) != 0 ? rc :
		    entry_drop(o, q, true);
	if (q->value == q->parent && q->keep.n == q->name.n &&
	    (q->keep.n == 0 || memcmp(q->keep.p, q->name.p, q->keep.n) == 0))
		return -EINVAL;
	if ((rc = entry_leads(o, q, &e)) != 0 ||
	    (rc = op_repair_inode(o, q->ino, &in)) != 0 ||
	    (rc = seen(o, dirent_get(o->t, q->value, &q->keep, &other))) != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	if (!S_ISDIR(in.mode) || other.ino != q->ino || in.parent != q->value)
		return -ESTALE;
	return entry_drop(o, q, true);
}

static int
mend_key(struct fs_op *o, const struct msg_repair_row *q)
{
	uint8_t k[KEY_LEN_MAX];
	struct entry e, there;
	int rc = dirent_name_check(&q->name);

	if (rc != 0)
		return rc;
	if (q->hash == key_hash(q->name.p, q->name.n))
		return -EINVAL;
	if ((rc = entry_leads(o, q, &e)) != 0)
		return rc;
	rc = seen(o, dirent_room(o->t, q->parent, &q->name, &there));
	if (rc != -ENOENT)
		return rc == 0 ? -EEXIST : rc;
	if ((rc = op_note(o, table_del(o->t, k, entry_key(q, k)))) != 0)
		return rc;
	return op_note(o, dirent_put(o->t, q->parent, &q->name, e.ino, e.type));
}

static int
mend_type(struct fs_op *o, const struct msg_repair_row *q)
{
	struct inode in;
	struct entry e;
	int rc;

	if ((rc = entry_leads(o, q, &e)) != 0 ||
	    (rc = op_repair_inode(o, e.ino, &in)) != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	if (e.type == (in.mode & S_IFMT))
		return 0;
	if (q->hash != key_hash(q->name.p, q->name.n))
		return -ESTALE;		/* its key comes first */
	return op_note(o, dirent_put(o->t, q->parent, &q->name, e.ino,
	    in.mode & S_IFMT));
}

static int
mend_parent(struct fs_op *o, const struct msg_repair_row *q)
{
	struct inode in;
	struct entry e;
	int rc;

	if ((rc = entry_leads(o, q, &e)) != 0 ||
	    (rc = op_repair_inode(o, e.ino, &in)) != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	if (!S_ISDIR(in.mode) || in.ino == INO_ROOT)
		return -ESTALE;
	if (in.parent == q->parent)
		return 0;
	if (in.change != q->change)	/* else another entry may be its place by now */
		return -ESTALE;
	in.parent = q->parent;
	op_changed(o, &in);
	op_put(o, &in);
	return 0;
}

/* ---- numbers ---- */

/* Count what is in @dir: 0, -EAGAIN when that is more than may be read here. */
static int
count(struct fs_op *o, struct op_repair *r, ino_id dir, uint64_t *entries,
    uint64_t *subdirs)
{
	uint8_t k[KEY_LEN_MAX];
	size_t n = key_ino(k, KEY_DIRENT, dir), key_len, len;
	const void *key, *row;
	struct inode in;
	bool after = false;
	int rc;

	for (*entries = *subdirs = 0;; ++*entries) {
		struct entry e;

		rc = seen(o, table_seek(o->t, k, n, after, KEY_INO_LEN, &key,
		    &key_len, &row, &len));
		if (rc != 0)
			return rc == -ENOENT ? 0 : rc;
		if (key_len > KEY_LEN_MAX)
			return ERR_LOG_DAMAGED;
		if (r->reads == 0)
			return -EAGAIN;
		r->reads--;
		memcpy(k, key, n = key_len);
		after = true;
		if (dirent_decode(&e, row, len) != 0 || !S_ISDIR(e.type))
			continue;
		rc = op_repair_inode(o, e.ino, &in);
		if (rc != 0 && rc != -ENOENT)
			return rc;
		*subdirs += rc == 0 && S_ISDIR(in.mode);
	}
}

static int
mend_counts(struct fs_op *o, struct op_repair *r, const struct msg_repair_row *q)
{
	uint64_t entries, subdirs;
	bool whole = r->reads == OP_REPAIR_READS;
	struct inode dir;
	int rc = op_repair_inode(o, q->ino, &dir);

	if (rc != 0 || !S_ISDIR(dir.mode))
		return rc == 0 || rc == -ENOENT ? -ESTALE : rc;
	rc = count(o, r, q->ino, &entries, &subdirs);
	if (rc == -EAGAIN && whole) {
		/* Too many for any command: what was counted in the image, if it holds. */
		if (dir.change != q->change)
			return -ESTALE;
		entries = q->value;
		subdirs = (uint64_t)q->subdirs;
		rc = 0;
	}
	if (rc != 0)
		return rc;
	if (dir.size == entries && dir.nlink == subdirs + 2)
		return 0;
	dir.size = entries;
	dir.nlink = subdirs < UINT32_MAX - 2 ? (uint32_t)subdirs + 2 : UINT32_MAX;
	op_changed(o, &dir);
	op_put(o, &dir);
	return 0;
}

static int
mend_links(struct fs_op *o, const struct msg_repair_row *q)
{
	struct gc_row row;
	struct inode in;
	bool removing;
	int rc = op_repair_inode(o, q->ino, &in);

	if (rc != 0 || S_ISDIR(in.mode))
		return rc == 0 || rc == -ENOENT ? -ESTALE : rc;
	rc = seen(o, gc_get(o->t, q->ino, GC_REMOVE, &row));
	if (rc != 0 && rc != -ENOENT)
		return rc;
	removing = rc == 0;
	if (in.nlink == q->value && removing == (q->value == 0))
		return 0;
	/* Without a name nor a row it belongs into lost+found. */
	if (in.change != q->change || (q->value == 0 && !removing))
		return -ESTALE;
	if (q->value > UINT32_MAX)
		return -EINVAL;
	in.nlink = (uint32_t)q->value;
	op_changed(o, &in);
	op_put(o, &in);
	if (removing && q->value > 0)
		return op_note(o, gc_del(o->t, q->ino, GC_REMOVE));
	return 0;
}

static int
mend_counters(struct fs_op *o, const struct msg_repair_row *q)
{
	struct op_counters c;
	uint64_t recounts;
	int rc;

	if ((rc = seen(o, op_counters_get(o->t, &c))) != 0 ||
	    (rc = seen(o, op_recounts_get(o->t, &recounts))) != 0)
		return rc;
	/* How many are missing stays the same whatever is made or removed, but for this. */
	if (recounts != q->change)
		return -ESTALE;
	if (q->value >= INO_LAST)	/* a row of nobody: numbers would run out */
		return -EINVAL;
	if (c.next_ino <= q->value)
		c.next_ino = q->value + 1;
	if (q->subdirs < 0 && c.inodes < 0 - (uint64_t)q->subdirs)
		return -ESTALE;
	c.inodes += (uint64_t)q->subdirs;
	if ((rc = op_note(o, op_recounts_put(o->t, recounts + 1))) != 0)
		return rc;
	return op_note(o, op_counters_put(o->t, &c));
}

/* ---- the rest ---- */

static int
mend_root(struct fs_op *o)
{
	struct inode root;
	struct op_counters c;
	int rc = op_repair_inode(o, INO_ROOT, &root);

	if (rc == 0) {
		if (!S_ISDIR(root.mode))
			return -ENOTDIR;
		if (root.parent == INO_ROOT)
			return 0;
		root.parent = INO_ROOT;
		op_changed(o, &root);
		op_put(o, &root);
		return 0;
	}
	if (rc != -ENOENT || (rc = seen(o, op_counters_get(o->t, &c))) != 0)
		return rc;
	root = (struct inode){
		.ino = INO_ROOT, .mode = S_IFDIR | 0755, .nlink = 2,
		.atime = o->cmd->wall_ns, .mtime = o->cmd->wall_ns,
		.ctime = o->cmd->wall_ns, .btime = o->cmd->wall_ns,
		.change = 1, .parent = INO_ROOT,
	};
	op_put(o, &root);
	c.inodes++;
	if (c.next_ino <= INO_ROOT)
		c.next_ino = INO_ROOT + 1;
	return op_note(o, op_counters_put(o->t, &c));
}

/* It has lost its inode, and with it who may do what: its entries have not gone. */
static int
mend_directory(struct fs_op *o, const struct msg_repair_row *q)
{
	uint8_t k[KEY_INO_LEN];
	const void *key, *row;
	size_t key_len, len;
	struct op_counters c;
	struct inode in;
	int rc = op_repair_inode(o, q->ino, &in);

	if (rc != -ENOENT)
		return rc != 0 ? rc : S_ISDIR(in.mode) ? 0 : -ESTALE;
	rc = seen(o, table_seek(o->t, k, key_ino(k, KEY_DIRENT, q->ino), false,
	    KEY_INO_LEN, &key, &key_len, &row, &len));
	if (rc != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	if ((rc = seen(o, op_counters_get(o->t, &c))) != 0)
		return rc;
	if (q->ino <= INO_ROOT || q->ino >= c.next_ino)
		return -EINVAL;		/* it never was */
	in = (struct inode){
		.ino = q->ino, .mode = S_IFDIR | 0700, .nlink = 2,
		.atime = o->cmd->wall_ns, .mtime = o->cmd->wall_ns,
		.ctime = o->cmd->wall_ns, .btime = o->cmd->wall_ns,
		.change = 1, .parent = q->parent,
	};
	op_put(o, &in);
	c.inodes++;
	return op_note(o, op_counters_put(o->t, &c));
}

/* A symlink is as long as its target; a target without a symlink is nobody's. */
static int
mend_target(struct fs_op *o, const struct msg_repair_row *q)
{
	uint8_t k[KEY_INO_LEN];
	const void *row;
	struct inode in;
	size_t len;
	int rc = op_repair_inode(o, q->ino, &in), there;

	if (rc != 0 && rc != -ENOENT)
		return rc;
	there = seen(o, table_get(o->t, k, key_ino(k, KEY_SYMLINK, q->ino), &row,
	    &len));
	if (there != 0)
		return there == -ENOENT ? -ESTALE : there;
	if (rc == -ENOENT || !S_ISLNK(in.mode))
		return op_note(o, table_del(o->t, k,
		    key_ino(k, KEY_SYMLINK, q->ino)));
	if (len < 2 || len - 1 > META_SYMLINK_MAX)
		return ERR_LOG_DAMAGED;
	if (in.size == len - 1)
		return 0;
	in.size = len - 1;
	op_changed(o, &in);
	op_put(o, &in);
	return 0;
}

/* A truncation that storage has not finished has a row, nothing else has. */
static int
mend_pending(struct fs_op *o, const struct msg_repair_row *q)
{
	struct gc_row row;
	struct inode in;
	int rc = op_repair_inode(o, q->ino, &in), there;

	if (rc != 0 && rc != -ENOENT)
		return rc;
	if (rc == -ENOENT || !S_ISREG(in.mode)) {
		if (rc == 0 && inode_cutting(&in)) {	/* it has no chunks */
			in.epoch = in.settled = 0;
			op_changed(o, &in);
			op_put(o, &in);
		}
		if ((rc = op_note(o, gc_del(o->t, q->ino, GC_REMOVE))) != 0)
			return rc;
		return op_note(o, gc_del(o->t, q->ino, GC_TRUNCATE));
	}
	there = seen(o, gc_get(o->t, q->ino, GC_TRUNCATE, &row));
	if (there != 0 && there != -ENOENT)
		return there;
	if (in.settled > in.epoch) {
		in.epoch = in.settled;
		op_changed(o, &in);
		op_put(o, &in);
	}
	if (!inode_cutting(&in))
		return there != 0 ? 0 : op_note(o, gc_del(o->t, q->ino, GC_TRUNCATE));
	if (there == 0 && row.epoch == in.epoch)
		return 0;
	/* What is behind its end may be cut: nobody writes in this epoch before that. */
	if (there != 0)
		row = (struct gc_row){ .at = in.size };
	row.ino = in.ino;
	row.kind = GC_TRUNCATE;
	row.epoch = in.epoch;
	row.since_ns = o->cmd->wall_ns;
	return op_note(o, gc_put(o->t, &row));
}

static int
mend(struct fs_op *o, struct op_repair *r, const struct msg_repair_row *q)
{
	if (q->name.n > META_NAME_MAX || q->keep.n > META_NAME_MAX)
		return -EINVAL;
	switch ((enum meta_repair)q->what) {
	case META_REPAIR_NONE:		return -EBUSY;
	case META_REPAIR_ROOT:		return mend_root(o);
	case META_REPAIR_ENTRY:		return mend_entry(o, q);
	case META_REPAIR_EXTRA:		return mend_extra(o, q);
	case META_REPAIR_KEY:		return mend_key(o, q);
	case META_REPAIR_TYPE:		return mend_type(o, q);
	case META_REPAIR_PARENT:	return mend_parent(o, q);
	case META_REPAIR_COUNTS:	return mend_counts(o, r, q);
	case META_REPAIR_LINKS:		return mend_links(o, q);
	case META_REPAIR_LOST:		return op_lost_found(o, q);
	case META_REPAIR_CYCLE:		return op_lost_cycle(o, r, q);
	case META_REPAIR_TARGET:	return mend_target(o, q);
	case META_REPAIR_PENDING:	return mend_pending(o, q);
	case META_REPAIR_COUNTERS:	return mend_counters(o, q);
	case META_REPAIR_DIRECTORY:	return mend_directory(o, q);
	}
	return -EINVAL;
}

int
op_repair(struct fs_op *o, const void *msg)
{
	const struct msg_repair *q = msg;
	struct op_repair r = { .reads = OP_REPAIR_READS };
	uint32_t n = 0;

	if (!perm_root(o->who))
		return -EPERM;
	if (q->rows.n == 0 || q->rows.n > META_REPAIRS_MAX)
		return -EINVAL;
	for (; n < q->rows.n && o->failed == 0; n++) {
		bool full = o->room > 0 && table_dirty_bytes(o->t) > o->room;
		int rc = r.reads == 0 || full ? -EAGAIN : mend(o, &r, &q->rows.v[n]);

		o->results[n].rc = rc;
	}
	o->rep.repair.results.v = o->results;
	o->rep.repair.results.n = n;
	return 0;
}
