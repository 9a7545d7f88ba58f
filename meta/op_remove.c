/* SPDX-License-Identifier: MIT */
/* op_remove.c - unlink and rmdir. */
#include <errno.h>
#include <sys/stat.h>

#include "meta/op.h"

static int
remove_name(struct fs_op *o, const struct msg_name *q, bool want_dir)
{
	struct inode dir, in;
	struct entry e;
	int rc;

	if ((rc = op_dir(o, q->parent, &dir)) != 0 ||
	    (rc = op_entry(o, &dir, &q->name, &e)) != 0 ||
	    (rc = op_target(o, &e, &in)) != 0)
		return rc;
	/* In the order of may_delete() in fs/namei.c of Linux. */
	if ((rc = perm_check(&dir, o->who, PERM_W)) != 0 ||
	    (rc = perm_sticky(&dir, &in, o->who)) != 0)
		return rc;
	if (want_dir && !S_ISDIR(in.mode))
		return -ENOTDIR;
	if (!want_dir && S_ISDIR(in.mode))
		return -EISDIR;
	if (want_dir && (rc = op_empty(o, &in)) != 0)
		return rc;
	if ((rc = op_can_lose(&dir, &in)) != 0)
		return rc;
	op_unlink_name(o, &dir, &q->name);
	if (want_dir)
		dir.nlink--;
	op_dir_changed(o, &dir, -1);
	op_put(o, &dir);
	op_lost_name(o, &in);
	o->rep.unlink = (struct msg_unlink_rep){ in.ino, in.nlink };
	return 0;
}

int
op_unlink(struct fs_op *o, const void *msg)
{
	return remove_name(o, msg, false);
}

int
op_rmdir(struct fs_op *o, const void *msg)
{
	return remove_name(o, msg, true);
}
