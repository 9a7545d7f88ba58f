/* SPDX-License-Identifier: MIT */
/* op_link.c - another name for an inode. */
#include <errno.h>
#include <sys/stat.h>

#include "meta/op.h"

int
op_link(struct fs_op *o, const void *msg)
{
	const struct msg_link *q = msg;
	struct inode dir, in;
	struct entry e;
	int rc;

	if ((rc = op_inode(o, q->ino, &in)) != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	if ((rc = op_dir(o, q->parent, &dir)) != 0)
		return rc;
	if ((rc = op_room(o, &dir, &q->name, &e)) == 0)
		return -EEXIST;
	if (rc != -ENOENT)
		return rc;
	if ((rc = perm_check(&dir, o->who, PERM_W)) != 0)
		return rc;
	if (S_ISDIR(in.mode))
		return -EPERM;
	if (in.nlink == 0)		/* its chunks may be going already */
		return -ENOENT;
	if (in.nlink >= META_LINK_MAX)
		return -EMLINK;
	in.nlink++;
	op_changed(o, &in);
	op_put(o, &in);
	op_link_name(o, &dir, &q->name, &in);
	op_dir_changed(o, &dir, 1);
	op_put(o, &dir);
	op_reply(o, &in);
	return 0;
}
