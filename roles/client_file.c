/* SPDX-License-Identifier: MIT */
/* client_file.c - open handles: open, create, flush, fsync, release.
 *
 *	flush:    write back -> sync (when anything is unsettled) -> report errors
 *	release:  write back -> close, in the background */
#include "roles/client_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static bool
writes(const struct client_file *f)
{
	return (f->flags & O_ACCMODE) != O_RDONLY;
}

static struct client_file *
file_new(struct client *c, uint32_t flags)
{
	struct client_file *f = calloc(1, sizeof(*f));

	if (f == NULL)
		return NULL;
	f->handle = c->next_handle++;
	f->flags = flags;
	list_init(&f->inode_node);
	list_init(&f->node);
	list_init(&f->blocks);
	return f;
}

/* The open did not happen. */
static void
file_drop(struct client_file *f)
{
	if (f->inode != NULL)
		client_inode_put(f->inode);
	free(f);
}

static void
opened(struct client_mcall *m, int rc, const void *rep)
{
	const struct msg_entry_rep *r = rep;
	struct client_file *f = m->file;
	struct client *c = m->c;

	m->file = NULL;
	if (rc == 0 && f->inode == NULL &&
	    (f->inode = client_inode_get(c, r->attr.ino)) == NULL)
		rc = -ENOMEM;
	if (rc != 0) {
		file_drop(f);
		client_mcall_end(m, rc);
		return;
	}
	/* Truncated by this open: what was written before it is gone. */
	if ((f->flags & O_TRUNC) != 0 && f->inode->attr.ino != 0 &&
	    r->attr.epoch > f->inode->attr.epoch)
		client_ext_drop(f->inode, m->ext_mark);
	client_inode_settle(f->inode, m->wrote_n);
	f->unchanged = client_seen_same(c, r->attr.ino, r->attr.change);
	client_seen_set(c, r->attr.ino, r->attr.change);
	if (!f->unchanged)
		f->inode->ahead_gen++;
	client_mcall_entry(m, r);
	list_push_back(&f->inode->files, &f->inode_node);
	list_push_back(&c->files, &f->node);
	*m->file_out = f;
	client_mcall_end(m, 0);
}

static void
open_flushed(struct client_wait *w)
{
	struct client_mcall *m = container_of(w, struct client_mcall, wait);

	m->waiting = false;
	m->wrote_n = m->file->inode->wrote_n;
	client_mcall_send(m, true);
}

void
client_file_open(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id ino, uint32_t flags,
    struct client_file **file)
{
	struct client_mcall *m = client_mcall_new(c, op, fn, MSG_open, cred, 0);
	struct client_file *f;

	if (m == NULL)
		return;
	if ((f = file_new(c, flags)) == NULL ||
	    (f->inode = client_inode_get(c, ino)) == NULL) {
		free(f);
		client_mcall_end_later(m, -ENOMEM);
		return;
	}
	m->file = f;
	m->file_out = file;
	m->req.open.ino = ino;
	m->req.open.flags = flags;
	m->req.open.handle = f->handle;
	m->done = opened;
	if ((flags & O_TRUNC) == 0)
		client_mcall_send(m, false);
	else if (client_inode_flush(f->inode, &m->wait, open_flushed))
		open_flushed(&m->wait);
	else
		m->waiting = true;
}

void
client_file_create(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id parent, const char *name,
    uint32_t mode, uint32_t flags, struct client_file **file)
{
	struct client_mcall *m;
	struct client_file *f;
	int rc = client_name_check(name);

	if (rc != 0) {
		op->fn = fn;
		client_op_finish(c, op, rc);
		return;
	}
	m = client_mcall_new(c, op, fn, MSG_create, cred, strlen(name));
	if (m == NULL)
		return;
	if ((f = file_new(c, flags)) == NULL) {
		client_mcall_end_later(m, -ENOMEM);
		return;
	}
	m->file = f;
	m->file_out = file;
	m->req.create.parent = parent;
	m->req.create.name = client_mcall_text(m, name);
	m->req.create.mode = mode;
	m->req.create.flags = flags;
	m->req.create.handle = f->handle;
	m->done = opened;
	client_mcall_send(m, true);
}

ino_id
client_file_ino(const struct client_file *f)
{
	return f->inode->ino;
}

uint64_t
client_file_handle(const struct client_file *f)
{
	return f->handle;
}

bool
client_file_unchanged(const struct client_file *f)
{
	return f->unchanged;
}

/* ---- settling the length ---- */

static void
fill_sync(struct client_mcall *m, uint64_t handle)
{
	const struct client_inode *i = m->inode;

	m->req.sync.ino = i->ino;
	m->req.sync.handle = handle;
	m->wrote_n = i->wrote_n;
	if (i->wrote_n == i->settled_n)
		return;
	m->req.sync.wrote = 1;
	m->req.sync.length = i->acked_end;
	m->req.sync.epoch = i->acked_epoch;
	m->req.sync.mtime = i->mtime_ns;
}

static void
settled(struct client_mcall *m, const struct msg_entry_rep *rep)
{
	struct client_inode *i = m->inode;

	if (m->req.sync.wrote) {
		client_seen_step(m->c, i->ino, rep->attr.change);
		client_inode_settle(i, m->wrote_n);
	}
	client_mcall_entry(m, rep);
}

/* The handle may have been released meanwhile, which took its error along. */
static int
take_error(struct client_mcall *m)
{
	struct client_file *f = NULL;
	int rc = 0;

	if (!m->inode->failed)
		return rc;
	list_for_each(n, &m->inode->files)
		if (list_entry(n, struct client_file, inode_node) == m->file)
			f = m->file;
	if (f != NULL && f->err != 0) {
		rc = f->err;
		f->err = 0;
	}
	return rc;
}

static void
flush_synced(struct client_mcall *m, int rc, const void *rep)
{
	int err;

	/* An unlinked file that is open has an inode still: this one we had lost. */
	if (rc == -ENOENT || rc == -ESTALE) {
		client_inode_gone(m->inode);
		rc = 0;
	} else if (rc == 0)
		settled(m, rep);
	err = take_error(m);
	m->file = NULL;
	client_mcall_end(m, err != 0 ? err : rc);
}

static void
flush_written(struct client_wait *w)
{
	struct client_mcall *m = container_of(w, struct client_mcall, wait);

	m->waiting = false;
	if (m->inode->wrote_n == m->inode->settled_n) {
		int err = take_error(m);

		m->file = NULL;
		client_mcall_end_later(m, err);
		return;
	}
	fill_sync(m, 0);
	client_mcall_send(m, true);
}

void
client_flush(struct client_file *f, struct client_op *op, client_op_fn *fn)
{
	struct client_inode *i = f->inode;
	struct client_mcall *m;

	/* The common close of a reader: nothing to do, nothing to allocate. */
	if (!client_inode_unsettled(i) && f->err == 0) {
		op->fn = fn;
		op->entry = NULL;
		client_op_finish(i->c, op, 0);
		return;
	}
	m = client_mcall_new(i->c, op, fn, MSG_sync, NULL, 0);
	if (m == NULL)
		return;
	m->inode = client_inode_ref(i);
	m->file = f;			/* looked up again before it is used */
	m->done = flush_synced;
	if (client_inode_flush(i, &m->wait, flush_written))
		flush_written(&m->wait);
	else
		m->waiting = true;
}

void
client_fsync(struct client_file *f, struct client_op *op, client_op_fn *fn)
{
	/* What storage has acknowledged is durable there, and so is a settled length. */
	client_flush(f, op, fn);
}

static void
closed(struct client_mcall *m, int rc, const void *rep)
{
	if (rc == 0)
		settled(m, rep);
	else if (rc != -ENOENT && rc != -ESTALE)
		log_warn(m->c->log, "close failed", "ino=%llu why=\"%s\"",
		    (unsigned long long)m->inode->ino, err_text(rc));
	client_mcall_end(m, rc);
}

static void
close_written(struct client_wait *w)
{
	struct client_mcall *m = container_of(w, struct client_mcall, wait);

	m->waiting = false;
	fill_sync(m, m->req.sync.handle);
	client_mcall_send(m, m->req.sync.wrote);
}

/* Take @f out of all that knows it. */
static void
unhook(struct client_file *f)
{
	client_ahead_drop_file(f);
	client_session_forget(f->inode->c, f);
	list_remove(&f->inode_node);
	list_remove(&f->node);
}

void
client_release(struct client_file *f)
{
	struct client_inode *i = f->inode;
	struct client_mcall *m;

	if (f->err != 0)
		log_warn(i->c->log, "lost writes were never reported",
		    "ino=%llu why=\"%s\"", (unsigned long long)i->ino,
		    err_text(f->err));
	m = client_mcall_new(i->c, NULL, NULL, MSG_close, NULL, 0);
	unhook(f);
	if (m == NULL)
		log_error(i->c->log, "no memory to close a file",
		    "ino=%llu", (unsigned long long)i->ino);
	else {
		m->inode = client_inode_ref(i);
		m->req.sync.handle = f->handle;
		m->req.sync.ino = i->ino;
		m->done = closed;
		if (!writes(f))
			client_mcall_send(m, false);
		else if (client_inode_flush(i, &m->wait, close_written))
			close_written(&m->wait);
		else
			m->waiting = true;
	}
	client_inode_put(i);
	free(f);
}

void
client_files_close_all(struct client *c)
{
	struct list *n;

	while ((n = c->files.next) != &c->files) {
		struct client_file *f = list_entry(n, struct client_file,
		    node);

		unhook(f);
		client_inode_put(f->inode);
		free(f);
	}
	client_seen_fini(c);
}
