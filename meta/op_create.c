/* SPDX-License-Identifier: MIT */
/* op_create.c - new names for new inodes: create, mkdir, mknod, symlink. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "conf/err.h"
#include "meta/op.h"

#define SYMLINK_FORMAT	1u

/* The directory and that @name is free in it: -EEXIST, and *e set, when not. */
static int
free_name(struct fs_op *o, ino_id parent, const struct msg_str *name,
    struct inode *dir, struct entry *e)
{
	int rc = op_dir(o, parent, dir);

	if (rc != 0)
		return rc;
	rc = op_room(o, dir, name, e);
	if (rc == 0)
		return -EEXIST;
	return rc == -ENOENT ? perm_check(dir, o->who, PERM_W) : rc;
}

/* Make an inode of @mode under @name, all checks done but those of its own. */
static int
make(struct fs_op *o, struct inode *dir, const struct msg_str *name, uint32_t mode,
    struct inode *in)
{
	const struct msg_ctx *who = o->who;
	struct op_counters c;
	int rc;

	if (S_ISREG(mode) && (o->cmd->flags & FS_LAYOUT) == 0)
		return ERR_NO_CHAINS;
	if ((rc = op_counters_get(o->t, &c)) != 0)
		return o->failed = rc;
	if (c.next_ino == 0)	/* before FS_INIT: there is no root either */
		return o->failed = ERR_LOG_DAMAGED;
	in->ino = c.next_ino;
	in->mode = mode;
	in->nlink = S_ISDIR(mode) ? 2 : 1;
	in->uid = who->uid;
	in->gid = who->gid;
	if ((dir->mode & S_ISGID) != 0) {
		in->gid = dir->gid;
		if (S_ISDIR(mode))
			in->mode |= S_ISGID;
	}
	/* As mode_strip_sgid() in fs/inode.c of Linux. */
	if (!S_ISDIR(mode) && (mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
	    (dir->mode & S_ISGID) != 0 &&
	    !perm_root(who) && !perm_in_group(who, in->gid))
		in->mode &= ~(uint32_t)S_ISGID;
	in->atime = in->mtime = in->ctime = in->btime = o->cmd->wall_ns;
	in->change = 1;
	if (S_ISREG(mode)) {
		in->table = o->cmd->layout.table;
		in->table_version = o->cmd->layout.table_version;
		in->chunk_shift = o->cmd->layout.chunk_shift;
		in->stripe = o->cmd->layout.stripe;
		in->seed = in->ino;
	}
	if (S_ISDIR(mode)) {
		in->parent = dir->ino;
		dir->nlink++;
	}
	op_put(o, in);
	op_link_name(o, dir, name, in);
	op_dir_changed(o, dir, 1);
	op_put(o, dir);
	c.next_ino++;
	c.inodes++;
	if ((rc = op_counters_put(o->t, &c)) != 0)
		return o->failed = rc;
	op_reply(o, in);
	o->rep.entry.created = 1;
	return 0;
}

int
op_create(struct fs_op *o, const void *msg)
{
	const struct msg_create *q = msg;
	struct inode dir, in = { 0 };
	struct entry e;
	int rc;

	rc = free_name(o, q->parent, &q->name, &dir, &e);
	if (rc == 0) {
		if ((q->flags & O_ACCMODE) != O_RDONLY)
			in.flags = INODE_WRITTEN;
		return make(o, &dir, &q->name, S_IFREG | (q->mode & 07777), &in);
	}
	if (rc != -EEXIST || (q->flags & O_EXCL) != 0)
		return rc;
	if ((rc = op_target(o, &e, &in)) != 0)
		return rc;
	if (S_ISDIR(in.mode))
		return -EISDIR;
	/* The kernel asks to create only what it has not found: it must look again to
	 * follow a link or open a device. */
	if (!S_ISREG(in.mode))
		return -ESTALE;
	return op_open_inode(o, &in, q->flags);
}

int
op_mkdir(struct fs_op *o, const void *msg)
{
	const struct msg_mknod *q = msg;
	struct inode dir, in = { 0 };
	struct entry e;
	int rc = free_name(o, q->parent, &q->name, &dir, &e);

	if (rc != 0)
		return rc;
	return make(o, &dir, &q->name,
	    S_IFDIR | (q->mode & (0777 | S_ISVTX)), &in);
}

int
op_mknod(struct fs_op *o, const void *msg)
{
	const struct msg_mknod *q = msg;
	uint32_t type = q->mode & S_IFMT;
	struct inode dir, in = { 0 };
	struct entry e;
	int rc;

	if (type == 0)
		type = S_IFREG;
	if (type == S_IFDIR)
		return -EPERM;
	if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK &&
	    type != S_IFCHR && type != S_IFBLK)
		return -EINVAL;
	if ((rc = free_name(o, q->parent, &q->name, &dir, &e)) != 0)
		return rc;
	if (type == S_IFCHR || type == S_IFBLK) {
		if (!perm_root(o->who))
			return -EPERM;
		in.rdev = q->rdev;
	}
	return make(o, &dir, &q->name, type | (q->mode & 07777), &in);
}

int
op_symlink(struct fs_op *o, const void *msg)
{
	const struct msg_symlink *q = msg;
	uint8_t k[KEY_INO_LEN], row[1 + META_SYMLINK_MAX];
	struct inode dir, in = { .size = q->target.n };
	struct entry e;
	int rc;

	if (q->target.n == 0)
		return -ENOENT;
	if (q->target.n > META_SYMLINK_MAX)
		return -ENAMETOOLONG;
	if (memchr(q->target.p, '\0', q->target.n) != NULL)
		return -EINVAL;
	if ((rc = free_name(o, q->parent, &q->name, &dir, &e)) != 0)
		return rc;
	if ((rc = make(o, &dir, &q->name, S_IFLNK | 0777, &in)) != 0)
		return rc;
	row[0] = SYMLINK_FORMAT;
	memcpy(row + 1, q->target.p, q->target.n);
	rc = table_put(o->t, k, key_ino(k, KEY_SYMLINK, in.ino), row,
	    1 + q->target.n);
	return rc != 0 ? (o->failed = rc) : 0;
}
