/* SPDX-License-Identifier: MIT */
/* op_open.c - opens that change the inode: O_TRUNC, and the first one for writing.
 * Who has what open is not state: sessions hold that (roles/metadata_session.c). */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "meta/length.h"

int
op_open_inode(struct fs_op *o, struct inode *in, uint32_t flags)
{
	unsigned want = perm_of_open(flags);
	bool changed = false;
	int rc;

	if (S_ISLNK(in->mode))
		return -ELOOP;
	if (S_ISDIR(in->mode) && (want & PERM_W) != 0)
		return -EISDIR;
	if ((rc = perm_check(in, o->who, want)) != 0)
		return rc;
	if (S_ISREG(in->mode)) {
		if ((flags & O_TRUNC) != 0) {
			if ((rc = length_set(o, in, 0)) != 0)
				return rc;
			changed = true;
		}
		if ((flags & O_ACCMODE) != O_RDONLY &&
		    (in->flags & INODE_WRITTEN) == 0) {
			in->flags |= INODE_WRITTEN;
			changed = true;
		}
	}
	if (changed)
		op_put(o, in);
	op_reply(o, in);
	return 0;
}

int
op_open(struct fs_op *o, const void *msg)
{
	const struct msg_open *q = msg;
	struct inode in;
	int rc = op_inode(o, q->ino, &in);

	if (rc != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	if (in.nlink == 0 && (o->cmd->flags & FS_HANDLE) == 0)
		return -ESTALE;
	return op_open_inode(o, &in, q->flags);
}
