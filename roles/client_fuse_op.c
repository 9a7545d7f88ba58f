/* SPDX-License-Identifier: MIT */
/* client_fuse_op.c - names and attributes, one handler an operation. */
#include "roles/client_fuse_impl.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#define FUSE_INODES_FREE (1ull << 40)	/* we never run out of numbers */

/* ---- answers ---- */

static void
entry_done(struct client_op *op, int rc)
{
	struct client_fuse_req *r = container_of(op, struct client_fuse_req,
	    op);
	struct fuse_entry_param e;

	if (rc != 0) {
		client_fuse_reply(r, rc);
		return;
	}
	client_fuse_entry(&op->entry->attr, op->ttl_ns, &e);
	if (!client_fuse_stopped(r))
		fuse_reply_entry(r->req, &e);
	client_fuse_req_free(r);
}

static void
attr_done(struct client_op *op, int rc)
{
	struct client_fuse_req *r = container_of(op, struct client_fuse_req,
	    op);
	struct stat st;

	if (rc != 0) {
		client_fuse_reply(r, rc);
		return;
	}
	client_fuse_stat(&op->entry->attr, &st);
	if (!client_fuse_stopped(r))
		fuse_reply_attr(r->req, &st, client_fuse_seconds(op->ttl_ns));
	client_fuse_req_free(r);
}

static void
done(struct client_op *op, int rc)
{
	client_fuse_reply(container_of(op, struct client_fuse_req, op), rc);
}

static void
readlink_done(struct client_op *op, int rc)
{
	struct client_fuse_req *r = container_of(op, struct client_fuse_req,
	    op);
	char text[META_SYMLINK_MAX + 1];
	const struct msg_str *t;

	if (rc != 0 || op->readlink->target.n > META_SYMLINK_MAX) {
		client_fuse_reply(r, rc != 0 ? rc : -EIO);
		return;
	}
	t = &op->readlink->target;
	memcpy(text, t->p, t->n);
	text[t->n] = '\0';
	if (!client_fuse_stopped(r))
		fuse_reply_readlink(r->req, text);
	client_fuse_req_free(r);
}

static void
statfs_done(struct client_op *op, int rc)
{
	struct client_fuse_req *r = container_of(op, struct client_fuse_req,
	    op);
	const struct msg_statfs_rep *s = op->statfs;
	struct statvfs v = { .f_bsize = 4096, .f_frsize = 4096,
		.f_namemax = META_NAME_MAX };

	if (rc != 0) {
		client_fuse_reply(r, rc);
		return;
	}
	v.f_blocks = s->total_bytes / v.f_frsize;
	if (s->used_bytes < s->total_bytes)
		v.f_bfree = v.f_bavail = (s->total_bytes - s->used_bytes) /
		    v.f_frsize;
	v.f_files = s->inodes + FUSE_INODES_FREE;
	v.f_ffree = v.f_favail = FUSE_INODES_FREE;
	if (!client_fuse_stopped(r))
		fuse_reply_statfs(r->req, &v);
	client_fuse_req_free(r);
}

/* ---- requests ---- */

/* Begin one: r, f and cred are declared here; a handler goes on with them. */
#define BEGIN(changes_it)                                               \
	struct client_fuse *f = fuse_req_userdata(req);                 \
	struct client_fuse_req *r = client_fuse_req(f, req, changes_it);\
	struct client_cred cred;                                        \
									\
	if (r == NULL)                                                  \
		return;                                                 \
	client_fuse_cred(f, req, &cred)

static void
op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	BEGIN(false);
	client_lookup(f->c, &r->op, entry_done, &cred, parent, name);
}

/* Inodes are not kept for the kernel: there is nothing to forget. */
static void
op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	(void)ino;
	(void)n;
	fuse_reply_none(req);
}

static void
op_forget_multi(fuse_req_t req, size_t n, struct fuse_forget_data *forgets)
{
	(void)n;
	(void)forgets;
	fuse_reply_none(req);
}

static void
op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct client_fuse *f = fuse_req_userdata(req);
	struct client_fuse_req *r = client_fuse_req(f, req, false);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	/* Attributes need no rights but those of the path: no groups, no /proc. */
	struct client_cred cred = { .uid = ctx->uid, .gid = ctx->gid };

	(void)fi;
	if (r != NULL)
		client_getattr(f->c, &r->op, attr_done, &cred, ino);
}

static int64_t
nanoseconds(struct timespec t)
{
	return (int64_t)t.tv_sec * (int64_t)NS_PER_S + t.tv_nsec;
}

static void
op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
    struct fuse_file_info *fi)
{
	static const struct { int from; uint32_t to; } bits[] = {
		{ FUSE_SET_ATTR_MODE, META_SET_MODE },
		{ FUSE_SET_ATTR_UID, META_SET_UID },
		{ FUSE_SET_ATTR_GID, META_SET_GID },
		{ FUSE_SET_ATTR_SIZE, META_SET_SIZE },
		{ FUSE_SET_ATTR_ATIME, META_SET_ATIME },
		{ FUSE_SET_ATTR_MTIME, META_SET_MTIME },
		{ FUSE_SET_ATTR_ATIME_NOW, META_SET_ATIME_NOW },
		{ FUSE_SET_ATTR_MTIME_NOW, META_SET_MTIME_NOW },
	};
	struct msg_setattr set = { .mode = st->st_mode & 07777,
		.uid = st->st_uid, .gid = st->st_gid,
		.size = (uint64_t)st->st_size,
		.atime = nanoseconds(st->st_atim),
		.mtime = nanoseconds(st->st_mtim) };

	BEGIN(true);
	for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		if ((to_set & bits[i].from) != 0)
			set.valid |= bits[i].to;
	/* "Now" comes together with the bit it refines. */
	if ((set.valid & META_SET_ATIME_NOW) != 0)
		set.valid &= ~(uint32_t)META_SET_ATIME;
	if ((set.valid & META_SET_MTIME_NOW) != 0)
		set.valid &= ~(uint32_t)META_SET_MTIME;
	if (fi != NULL && fi->fh != 0)
		set.handle = client_file_handle(((struct client_fuse_file *)
		    (uintptr_t)fi->fh)->file);
	if (set.valid == 0)
		client_getattr(f->c, &r->op, attr_done, &cred, ino);
	else
		client_setattr(f->c, &r->op, attr_done, &cred, ino, &set);
}

static void
op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	BEGIN(false);
	client_readlink(f->c, &r->op, readlink_done, &cred, ino);
}

static void
op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
    dev_t rdev)
{
	BEGIN(true);
	client_mknod(f->c, &r->op, entry_done, &cred, parent, name, mode, rdev);
}

static void
op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	BEGIN(true);
	client_mkdir(f->c, &r->op, entry_done, &cred, parent, name,
	    mode & 07777);
}

static void
op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	BEGIN(true);
	client_unlink(f->c, &r->op, done, &cred, parent, name);
}

static void
op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	BEGIN(true);
	client_rmdir(f->c, &r->op, done, &cred, parent, name);
}

static void
op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
    const char *name)
{
	BEGIN(true);
	client_symlink(f->c, &r->op, entry_done, &cred, parent, name, target);
}

static void
op_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
    fuse_ino_t new_parent, const char *new_name, unsigned flags)
{
	BEGIN(true);
	client_rename(f->c, &r->op, done, &cred, parent, name, new_parent,
	    new_name, flags);
}

static void
op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	BEGIN(true);
	client_link(f->c, &r->op, entry_done, &cred, ino, parent, name);
}

static void
op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct client_fuse *f = fuse_req_userdata(req);
	struct client_fuse_req *r = client_fuse_req(f, req, false);

	(void)ino;
	if (r != NULL)
		client_statfs(f->c, &r->op, statfs_done);
}

void
client_fuse_op_table(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = op_lookup;
	ops->forget = op_forget;
	ops->forget_multi = op_forget_multi;
	ops->getattr = op_getattr;
	ops->setattr = op_setattr;
	ops->readlink = op_readlink;
	ops->mknod = op_mknod;
	ops->mkdir = op_mkdir;
	ops->unlink = op_unlink;
	ops->rmdir = op_rmdir;
	ops->symlink = op_symlink;
	ops->rename = op_rename;
	ops->link = op_link;
	ops->statfs = op_statfs;
}
