/* SPDX-License-Identifier: MIT */
/* op_lost.c - lost+found: a directory of the root for what has no name any more.
 *
 * It is made when it is needed, for user 0 only, and is used only while it is so: what was
 * reached through directories that others may not enter is not shown to them here.  The
 * name of an inode in it is # and its number; when that is taken, a number behind it, and when
 * the first few of these are, the time: so another command finds another name. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "conf/err.h"
#include "meta/op_repair.h"

#define LOST_FOUND	"lost+found"
#define LOST_TRIES	8u	/* names for one inode, and as many with the time */
#define NAME_BYTES	48u

/* The directory, made if it is not there. */
static int
lost_dir(struct fs_op *o, struct inode *dir)
{
	struct msg_mknod q = { .parent = INO_ROOT, .name = msg_str(LOST_FOUND),
		.mode = 0700 };
	struct entry e;
	struct inode root;
	int rc = op_repair_inode(o, INO_ROOT, &root);

	if (rc != 0)
		return rc == -ENOENT ? -EAGAIN : rc;
	rc = op_entry(o, &root, &q.name, &e);
	if (rc == -ENOENT) {
		struct op_counters c;
		struct inode taken;

		if ((rc = op_note(o, op_counters_get(o->t, &c))) != 0)
			return rc;
		/* The counters come first, or we would overwrite an inode. */
		if ((rc = op_repair_inode(o, c.next_ino, &taken)) != -ENOENT)
			return rc == 0 ? -EAGAIN : rc;
		if ((rc = op_mkdir(o, &q)) != 0)
			return rc;
		rc = op_entry(o, &root, &q.name, &e);
	}
	if (rc != 0)
		return rc;
	if ((rc = op_repair_inode(o, e.ino, dir)) != 0)
		return rc == -ENOENT ? -EAGAIN : rc;
	if (!S_ISDIR(dir->mode))
		return -ENOTDIR;
	return dir->uid == 0 && (dir->mode & 077) == 0 ? 0 : -EPERM;
}

/* A free name for @ino there: 0 and it is in @text; -EEXIST. */
static int
free_name(struct fs_op *o, const struct inode *dir, ino_id ino, char text[NAME_BYTES])
{
	for (unsigned i = 0; i < 2 * LOST_TRIES; i++) {
		struct msg_str name;
		struct entry e;
		int rc;

		if (i == 0)
			snprintf(text, NAME_BYTES, "#%" PRIu64, ino);
		else
			snprintf(text, NAME_BYTES, "#%" PRIu64 ".%" PRIu64, ino,
			    i < LOST_TRIES ? i : (uint64_t)o->cmd->wall_ns + i);
		name = msg_str(text);
		rc = op_room(o, dir, &name, &e);
		if (rc != 0 && rc != -ENOSPC)
			return rc == -ENOENT ? 0 : rc;
	}
	return -EEXIST;
}

/* Where @ino could go: 0, the directory is in @dir and the name in @text. */
static int
place(struct fs_op *o, ino_id ino, struct inode *dir, char text[NAME_BYTES])
{
	int rc = lost_dir(o, dir);

	if (rc != 0)
		return rc;
	if (dir->ino == ino)		/* another fault, which comes first */
		return -EAGAIN;
	return free_name(o, dir, ino, text);
}

/* Give @in, which has no entry, one there. */
static int
put(struct fs_op *o, struct inode *in)
{
	struct msg_str name;
	struct inode dir;
	char text[NAME_BYTES];
	int rc;

	if ((rc = place(o, in->ino, &dir, text)) != 0)
		return rc;
	name = msg_str(text);
	if (S_ISDIR(in->mode)) {
		in->parent = dir.ino;
		dir.nlink++;
	} else
		in->nlink = 1;
	op_changed(o, in);
	op_put(o, in);
	op_link_name(o, &dir, &name, in);
	op_dir_changed(o, &dir, 1);
	op_put(o, &dir);
	return 0;
}

int
op_lost_found(struct fs_op *o, const struct msg_repair_row *q)
{
	struct gc_row row;
	struct inode in;
	int rc = op_repair_inode(o, q->ino, &in);

	if (rc != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	if (in.change != q->change || in.ino == INO_ROOT)
		return -ESTALE;
	if (S_ISREG(in.mode)) {
		rc = gc_get(o->t, in.ino, GC_REMOVE, &row);
		if (rc == 0)
			return -ESTALE;	/* it was removed by somebody who may */
		if (rc != -ENOENT)
			return rc == ERR_LOG_DAMAGED ? rc : op_note(o, rc);
	}
	return put(o, &in);
}

/* Is @ino on its own way up? 1, 0, -EAGAIN: too far to say in this command. */
static int
is_below_itself(struct fs_op *o, struct op_repair *r, const struct inode *in)
{
	struct inode up = *in;

	for (uint32_t steps = 0;; steps++) {
		ino_id parent = up.parent;
		int rc;

		if (parent == in->ino)
			return 1;
		if (parent == INO_ROOT)
			return 0;
		if (r->reads == 0)
			return steps >= OP_REPAIR_READS - 1 ? -ELOOP : -EAGAIN;
		r->reads--;
		if ((rc = op_repair_inode(o, parent, &up)) != 0)
			return rc == -ENOENT ? 0 : rc;
	}
}

int
op_lost_cycle(struct fs_op *o, struct op_repair *r, const struct msg_repair_row *q)
{
	struct inode in, dir, lost;
	char text[NAME_BYTES];
	struct entry e;
	int rc;

	if ((rc = op_repair_inode(o, q->ino, &in)) != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	if (!S_ISDIR(in.mode) || in.ino == INO_ROOT || in.parent != q->parent)
		return -ESTALE;
	if ((rc = is_below_itself(o, r, &in)) <= 0)
		return rc == 0 ? -ESTALE : rc;
	if ((rc = op_repair_inode(o, q->parent, &dir)) != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	rc = dirent_get(o->t, dir.ino, &q->name, &e);
	if (rc != 0 && rc != -ENOENT && rc != ERR_LOG_DAMAGED)
		return op_note(o, rc);
	if (rc != 0 || e.ino != in.ino)
		return -ESTALE;
	/* Before anything is changed: is there a place? */
	if ((rc = place(o, in.ino, &lost, text)) != 0)
		return rc;
	op_unlink_name(o, &dir, &q->name);
	if (dir.nlink > 2)
		dir.nlink--;
	op_dir_changed(o, &dir, dir.size > 0 ? -1 : 0);
	op_put(o, &dir);
	if (dir.ino == in.ino)		/* it was in itself */
		in = dir;
	return put(o, &in);
}
