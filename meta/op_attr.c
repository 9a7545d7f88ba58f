/* SPDX-License-Identifier: MIT */
/* op_attr.c - chmod, chown, utimens, truncate.  Rules of setattr_prepare() and
 * chown_common() in fs/attr.c and fs/open.c of Linux. */
#include <errno.h>
#include <sys/stat.h>

#include "meta/length.h"

#define VALID_ALL	255u
#define TIMES_SET	((uint32_t)(META_SET_ATIME | META_SET_MTIME))
#define TIMES_NOW	((uint32_t)(META_SET_ATIME_NOW | META_SET_MTIME_NOW))

/* Does it only take set-id bits off?  The kernel of a writer or truncater does that, as
 * whoever writes, before the write. */
static bool
drops_set_id(const struct inode *in, const struct msg_setattr *q)
{
	uint32_t now = in->mode & 07777, then = q->mode & 07777;

	return (now & ~then & ~(uint32_t)(S_ISUID | S_ISGID)) == 0 &&
	    (then & ~now) == 0;
}

static int
allowed(struct fs_op *o, const struct inode *in, const struct msg_setattr *q)
{
	const struct msg_ctx *who = o->who;
	bool handle = (o->cmd->flags & FS_HANDLE) != 0;
	bool mine = who->uid == in->uid;

	if ((q->valid & META_SET_SIZE) != 0) {
		if (S_ISDIR(in->mode))
			return -EISDIR;
		if (!S_ISREG(in->mode))
			return -EINVAL;
		if (!handle && perm_check(in, who, PERM_W) != 0)
			return -EACCES;
	}
	if ((q->valid & META_SET_UID) != 0 && !perm_root(who) &&
	    (!mine || q->uid != in->uid))
		return -EPERM;
	if ((q->valid & META_SET_GID) != 0 && !perm_root(who) &&
	    (!mine || (q->gid != in->gid && !perm_in_group(who, q->gid))))
		return -EPERM;
	if ((q->valid & META_SET_MODE) != 0) {
		if (!perm_owner(in, who) && !(S_ISREG(in->mode) &&
		    drops_set_id(in, q) &&
		    (handle || perm_check(in, who, PERM_W) == 0)))
			return -EPERM;
		if (S_ISLNK(in->mode))
			return -EOPNOTSUPP;
	}
	if ((q->valid & TIMES_SET) != 0 && !perm_owner(in, who))
		return -EPERM;
	if ((q->valid & TIMES_NOW) != 0 && !perm_owner(in, who) &&
	    !(handle && (q->valid & META_SET_SIZE) != 0))
		return perm_check(in, who, PERM_W);
	return 0;
}

static void
set_owner_mode(struct fs_op *o, struct inode *in, const struct msg_setattr *q)
{
	uint32_t perm = in->mode & 07777;

	if ((q->valid & (META_SET_UID | META_SET_GID)) != 0)
		perm = perm_drop_suid(in, o->who, perm);
	if ((q->valid & META_SET_UID) != 0)
		in->uid = q->uid;
	if ((q->valid & META_SET_GID) != 0)
		in->gid = q->gid;
	if ((q->valid & META_SET_MODE) != 0) {
		perm = q->mode & 07777;
		if (!perm_root(o->who) && !perm_in_group(o->who, in->gid))
			perm &= ~(uint32_t)S_ISGID;
	}
	in->mode = (in->mode & S_IFMT) | perm;
}

int
op_setattr(struct fs_op *o, const void *msg)
{
	const struct msg_setattr *q = msg;
	int64_t now = o->cmd->wall_ns;
	struct inode in;
	int rc;

	if ((q->valid & ~VALID_ALL) != 0)
		return -EINVAL;
	if ((rc = op_inode(o, q->ino, &in)) != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	if ((rc = allowed(o, &in, q)) != 0)
		return rc;
	if (q->valid == 0) {
		op_reply(o, &in);
		return 0;
	}
	if ((q->valid & META_SET_SIZE) != 0 &&
	    (rc = length_set(o, &in, q->size)) != 0)
		return rc;
	set_owner_mode(o, &in, q);
	if ((q->valid & META_SET_ATIME) != 0)
		in.atime = q->atime;
	if ((q->valid & META_SET_MTIME) != 0)
		in.mtime = q->mtime;
	if ((q->valid & META_SET_ATIME_NOW) != 0)
		in.atime = now;
	if ((q->valid & META_SET_MTIME_NOW) != 0)
		in.mtime = now;
	in.ctime = now;
	if ((q->valid & META_SET_SIZE) == 0)	/* length_set() has counted */
		in.change++;
	op_put(o, &in);
	op_reply(o, &in);
	return 0;
}
