/* SPDX-License-Identifier: MIT */
/* length.c - truncation, and settling what writers report. */
#include "meta/length.h"

#include <errno.h>
#include <sys/stat.h>

/* Start an epoch in which the chunks behind @at are gone. */
static int
cut(struct fs_op *o, struct inode *in, uint64_t at)
{
	struct gc_row row = {
		.ino = in->ino, .kind = GC_TRUNCATE, .epoch = in->epoch + 1,
		.at = at, .since_ns = o->cmd->wall_ns,
	};
	int rc;

	if (row.epoch == GC_EPOCH_GONE)
		return -EOVERFLOW;
	if (inode_cutting(in)) {
		struct gc_row old;

		rc = gc_get(o->t, in->ino, GC_TRUNCATE, &old);
		if (rc != 0)
			return o->failed = rc;
		if (old.at < row.at)
			row.at = old.at;
	}
	if ((rc = gc_put(o->t, &row)) != 0)
		return o->failed = rc;
	in->epoch = row.epoch;
	o->effects |= FS_TRUNCATES;
	o->ino = in->ino;
	return 0;
}

int
length_set(struct fs_op *o, struct inode *in, uint64_t size)
{
	int rc = 0;

	if (size > length_max(in->chunk_shift))
		return -EFBIG;
	if ((in->flags & INODE_WRITTEN) != 0 &&
	    (size < in->size || (o->cmd->flags & FS_UNSETTLED) != 0))
		rc = cut(o, in, size);
	if (rc != 0)
		return rc;
	in->size = size;
	in->mtime = o->cmd->wall_ns;
	op_changed(o, in);
	if (!perm_root(o->who))
		in->mode = perm_drop_suid(in, o->who, in->mode);
	return 0;
}

int
op_sync(struct fs_op *o, const void *msg)
{
	const struct msg_sync *q = msg;
	uint64_t end = q->length;
	struct inode in;
	int rc;

	if ((rc = op_inode(o, q->ino, &in)) != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	if (!S_ISREG(in.mode))
		return -EINVAL;
	if (!q->wrote) {
		op_reply(o, &in);
		return 0;
	}
	if (inode_cutting(&in))
		return -EAGAIN;
	if (q->epoch != in.epoch) {
		if ((o->cmd->flags & FS_LAST) == 0 ||
		    o->cmd->last_epoch != in.epoch)
			return -EAGAIN;
		end = o->cmd->last_end;
	}
	if (end > length_max(in.chunk_shift))
		return -EFBIG;
	if (end > in.size)
		in.size = end;
	if (q->mtime > in.mtime)
		in.mtime = q->mtime;
	in.flags |= INODE_WRITTEN;
	op_changed(o, &in);
	if (!perm_root(o->who))
		in.mode = perm_drop_suid(&in, o->who, in.mode);
	op_put(o, &in);
	op_reply(o, &in);
	return 0;
}
