/* SPDX-License-Identifier: MIT */
/* op_rename.c - rename, with RENAME_NOREPLACE and RENAME_EXCHANGE.  Checks come in the
 * order of do_renameat2() and vfs_rename() in fs/namei.c of Linux. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "conf/err.h"
#include "meta/op.h"

#define DEPTH_MAX	65536u	/* levels walked up to look for a cycle */

/* Is @ino on the way from directory @from up to the root, or @from itself?
 * 1, 0, -ELOOP when the way is too long; or a table error. */
static int
is_above(struct fs_op *o, ino_id ino, ino_id from)
{
	struct inode in;

	for (unsigned i = 0; i < DEPTH_MAX; i++) {
		int rc;

		if (from == ino)
			return 1;
		if (from == INO_ROOT)
			return 0;
		if ((rc = op_target(o, &(struct entry){ .ino = from }, &in)) != 0)
			return rc;
		from = in.parent;
	}
	return -ELOOP;
}

/* What is between the two ends of a rename. */
struct ends {
	struct inode  dirs[2];
	struct inode *from, *to;	/* the same one when the directory is */
	struct entry  old_e, new_e;
	struct inode  old, new;
	bool	      there;		/* the new name is */
	bool	      swap;
};

static int
no_cycle(struct fs_op *o, const struct ends *x)
{
	int rc;

	if (x->from == x->to)
		return 0;
	if (S_ISDIR(x->old.mode)) {
		if ((rc = is_above(o, x->old.ino, x->to->ino)) != 0)
			return rc < 0 ? rc : -EINVAL;
	}
	if (x->there && S_ISDIR(x->new.mode)) {
		if ((rc = is_above(o, x->new.ino, x->from->ino)) != 0)
			return rc < 0 ? rc : x->swap ? -EINVAL : -ENOTEMPTY;
	}
	return 0;
}

static int
allowed(struct fs_op *o, const struct ends *x)
{
	bool old_dir = S_ISDIR(x->old.mode);
	int rc;

	if ((rc = perm_check(x->from, o->who, PERM_W | PERM_X)) != 0 ||
	    (rc = perm_sticky(x->from, &x->old, o->who)) != 0 ||
	    (rc = perm_check(x->to, o->who, PERM_W | PERM_X)) != 0)
		return rc;
	if (x->there) {
		bool new_dir = S_ISDIR(x->new.mode);

		if ((rc = perm_sticky(x->to, &x->new, o->who)) != 0)
			return rc;
		if (!x->swap && old_dir && !new_dir)
			return -ENOTDIR;
		if (!x->swap && !old_dir && new_dir)
			return -EISDIR;
	}
	/* A directory that moves has its .. changed. */
	if (x->from != x->to) {
		if (old_dir &&
		    (rc = perm_check(&x->old, o->who, PERM_W)) != 0)
			return rc;
		if (x->swap && S_ISDIR(x->new.mode) &&
		    (rc = perm_check(&x->new, o->who, PERM_W)) != 0)
			return rc;
	}
	if (x->there && !x->swap && S_ISDIR(x->new.mode) &&
	    (rc = op_empty(o, &x->new)) != 0)
		return rc;
	if ((rc = op_can_lose(x->from, &x->old)) != 0 || !x->there)
		return rc;
	return op_can_lose(x->to, &x->new);
}

/* @in moves from @from to @to. */
static void
moved(struct fs_op *o, struct inode *in, struct inode *from, struct inode *to)
{
	if (S_ISDIR(in->mode) && from != to) {
		in->parent = to->ino;
		from->nlink--;
		to->nlink++;
	}
	op_changed(o, in);
	op_put(o, in);
}

static void
change(struct fs_op *o, const struct msg_rename *q, struct ends *x)
{
	moved(o, &x->old, x->from, x->to);
	op_link_name(o, x->to, &q->new_name, &x->old);
	if (x->swap) {
		moved(o, &x->new, x->to, x->from);
		op_link_name(o, x->from, &q->name, &x->new);
	} else {
		op_unlink_name(o, x->from, &q->name);
		if (x->there) {
			if (S_ISDIR(x->new.mode))
				x->to->nlink--;
			op_lost_name(o, &x->new);
			o->rep.unlink = (struct msg_unlink_rep){
				x->new.ino, x->new.nlink };
		}
	}
	op_dir_changed(o, x->from, x->swap ? 0 : -1);
	if (x->to != x->from || !x->swap)
		op_dir_changed(o, x->to, x->swap || x->there ? 0 : 1);
	op_put(o, x->from);
	if (x->to != x->from)
		op_put(o, x->to);
}

int
op_rename(struct fs_op *o, const void *msg)
{
	const struct msg_rename *q = msg;
	struct ends x = { .swap = (q->flags & RENAME_EXCHANGE) != 0 };
	int rc;

	if ((q->flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0 ||
	    q->flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	x.from = x.to = &x.dirs[0];
	if ((rc = op_dir(o, q->parent, x.from)) != 0)
		return rc;
	if (q->new_parent != q->parent) {
		x.to = &x.dirs[1];
		if ((rc = op_dir(o, q->new_parent, x.to)) != 0)
			return rc;
	}
	if ((rc = op_entry(o, x.from, &q->name, &x.old_e)) != 0)
		return rc;
	rc = op_room(o, x.to, &q->new_name, &x.new_e);
	if (rc != 0 && rc != -ENOENT)
		return rc;
	x.there = rc == 0;
	if (x.there && (q->flags & RENAME_NOREPLACE) != 0)
		return -EEXIST;
	if (!x.there && x.swap)
		return -ENOENT;
	if ((rc = op_target(o, &x.old_e, &x.old)) != 0)
		return rc;
	if (x.there && (rc = op_target(o, &x.new_e, &x.new)) != 0)
		return rc;
	if ((rc = no_cycle(o, &x)) != 0)
		return rc;
	if (x.there && x.old.ino == x.new.ino)	/* two names of one inode */
		return 0;
	if ((rc = allowed(o, &x)) != 0)
		return rc;
	change(o, q, &x);
	return 0;
}
