/* SPDX-License-Identifier: MIT */
/* client_fuse_file.c - open files: open, create, read, write, flush, fsync, release. */
#include "roles/client_fuse_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_EXEC	0x20		/* FMODE_EXEC of Linux: opened to be executed */
#define KEEP_BUFFER	(256u << 10)	/* smaller ones are copied: buffers are big */

static struct client_file *
file_of(const struct fuse_file_info *fi)
{
	return ((struct client_fuse_file *)(uintptr_t)fi->fh)->file;
}

static void
file_end(struct client_fuse_file *h)
{
	list_remove(&h->node);
	free(h);
}

/* The handle the kernel will name by fi->fh; NULL: the open is undone. */
static struct client_fuse_file *
file_begin(struct client_fuse_req *r)
{
	struct client_fuse_file *h = r->f->stopped ? NULL :
	    calloc(1, sizeof(*h));

	if (h == NULL) {
		client_release(r->file);
		client_fuse_reply(r, -ENOMEM);
		return NULL;
	}
	h->file = r->file;
	list_push_back(&r->f->files, &h->node);
	r->fi.fh = (uintptr_t)h;
	r->fi.keep_cache = client_file_unchanged(r->file);
	/* A reader has nothing to flush: one request less for each close. */
	r->fi.noflush = (r->fi.flags & O_ACCMODE) == O_RDONLY;
	return h;
}

/* The kernel could not be told (the caller was killed meanwhile). */
static void
file_unwanted(struct client_fuse_file *h)
{
	client_release(h->file);
	file_end(h);
}

static void
open_done(struct client_op *op, int rc)
{
	struct client_fuse_req *r = container_of(op, struct client_fuse_req,
	    op);
	struct client_fuse_file *h;

	if (rc != 0) {
		client_fuse_reply(r, rc);
		return;
	}
	if ((h = file_begin(r)) == NULL)
		return;
	if (fuse_reply_open(r->req, &r->fi) == -ENOENT)
		file_unwanted(h);
	client_fuse_req_free(r);
}

static void
create_done(struct client_op *op, int rc)
{
	struct client_fuse_req *r = container_of(op, struct client_fuse_req,
	    op);
	struct client_fuse_file *h;
	struct fuse_entry_param e;

	if (rc != 0) {
		client_fuse_reply(r, rc);
		return;
	}
	client_fuse_entry(&op->entry->attr, op->ttl_ns, &e);
	if ((h = file_begin(r)) == NULL)
		return;
	if (fuse_reply_create(r->req, &e, &r->fi) == -ENOENT)
		file_unwanted(h);
	client_fuse_req_free(r);
}

static void
op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct client_fuse *f = fuse_req_userdata(req);
	struct client_fuse_req *r = client_fuse_req(f, req,
	    (fi->flags & O_TRUNC) != 0);
	struct client_cred cred;

	if (r == NULL)
		return;
	client_fuse_cred(f, req, &cred);
	r->fi = *fi;
	client_file_open(f->c, &r->op, open_done, &cred, ino,
	    (uint32_t)fi->flags & (O_ACCMODE | O_TRUNC | OPEN_EXEC), &r->file);
}

static void
op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
    struct fuse_file_info *fi)
{
	struct client_fuse *f = fuse_req_userdata(req);
	struct client_fuse_req *r = client_fuse_req(f, req, true);
	struct client_cred cred;

	if (r == NULL)
		return;
	client_fuse_cred(f, req, &cred);
	r->fi = *fi;
	client_file_create(f->c, &r->op, create_done, &cred, parent, name,
	    mode & 07777, (uint32_t)fi->flags & (O_ACCMODE | O_TRUNC | O_EXCL |
	    O_CREAT), &r->file);
}

static void
read_done(struct client_io *io, int rc)
{
	struct client_fuse_req *r = container_of(io, struct client_fuse_req,
	    io);

	if (rc != 0) {
		client_fuse_reply(r, rc);
		return;
	}
	if (!client_fuse_stopped(r))
		fuse_reply_iov(r->req, io->iov, (int)io->iov_n);
	client_read_done(r->f->c, io);
	client_fuse_req_free(r);
}

static void
op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
    struct fuse_file_info *fi)
{
	struct client_fuse *f = fuse_req_userdata(req);
	struct client_fuse_req *r = client_fuse_req(f, req, false);

	(void)ino;
	if (r != NULL)
		client_read(file_of(fi), &r->io, read_done, (uint64_t)off,
		    size);
}

static void
write_done(struct client_io *io, int rc)
{
	struct client_fuse_req *r = container_of(io, struct client_fuse_req,
	    io);

	if (rc != 0) {
		client_fuse_reply(r, rc);
		return;
	}
	if (!client_fuse_stopped(r))
		fuse_reply_write(r->req, (size_t)io->done);
	client_fuse_req_free(r);
}

static void
op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size,
    off_t off, struct fuse_file_info *fi)
{
	struct client_fuse *f = fuse_req_userdata(req);
	struct client_fuse_req *r = client_fuse_req(f, req, true);
	bool direct = (fi->flags & O_DIRECT) != 0;

	(void)ino;
	if (r == NULL)
		return;
	if (direct && size >= KEEP_BUFFER) {	/* sent from where it was received */
		r->mem = f->room;
		f->taken = true;
	} else if (direct && size > 0) {
		int rc = client_data_get(f->c, size, &r->mem);

		if (rc != 0) {
			client_fuse_reply(r, rc);
			return;
		}
		data = memcpy(r->mem.p, data, size);
		stat_add(&client_stats(f->c)->copied_bytes, size);
	}
	client_write(file_of(fi), &r->io, write_done, (uint64_t)off, data, size,
	    direct);
}

static void
sync_done(struct client_op *op, int rc)
{
	client_fuse_reply(container_of(op, struct client_fuse_req, op), rc);
}

static void
op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct client_fuse *f = fuse_req_userdata(req);
	struct client_fuse_req *r = client_fuse_req(f, req, true);

	(void)ino;
	if (r != NULL)
		client_flush(file_of(fi), &r->op, sync_done);
}

static void
op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only,
    struct fuse_file_info *fi)
{
	struct client_fuse *f = fuse_req_userdata(req);
	struct client_fuse_req *r = client_fuse_req(f, req, true);

	(void)ino;
	(void)data_only;		/* the length is needed to find the data */
	if (r != NULL)
		client_fsync(file_of(fi), &r->op, sync_done);
}

static void
op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct client_fuse_file *h = (struct client_fuse_file *)
	    (uintptr_t)fi->fh;

	(void)ino;
	client_release(h->file);
	file_end(h);
	fuse_reply_err(req, 0);
}

void
client_fuse_file_table(struct fuse_lowlevel_ops *ops)
{
	ops->open = op_open;
	ops->create = op_create;
	ops->read = op_read;
	ops->write = op_write;
	ops->flush = op_flush;
	ops->fsync = op_fsync;
	ops->release = op_release;
}

void
client_fuse_file_stop(struct client_fuse *f)
{
	while (!list_empty(&f->files))
		file_unwanted(list_entry(f->files.next, struct client_fuse_file,
		    node));
}

void
client_fuse_file_close(struct client_fuse *f)
{
	while (!list_empty(&f->files))
		file_end(list_entry(f->files.next, struct client_fuse_file,
		    node));
}
