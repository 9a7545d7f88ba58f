/* SPDX-License-Identifier: MIT */
/* client_fuse_dir.c - listings.
 *
 * The kernel asks for a page of a few KiB at a time; the server is asked for big pages,
 * and what does not fit is kept with the open directory for the next request.  A kept
 * page is good for a second.  Its attributes are good only while this mount has changed
 * nothing meanwhile: the kernel would take an old size for the present one.
 *
 * Offsets as the kernel sees them: 1 after ".", 2 after "..", then the cookies of the
 * metadata service, which are 3 or more. */
#include "roles/client_fuse_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_FIRST	(32u << 10)	/* bytes of the first reply asked for */
#define PAGE_NEXT	(256u << 10)	/* and of the following */
#define PAGE_NS		NS_PER_S
#define UNKNOWN_INO	0xffffffffu	/* what libfuse uses for it */

struct kept {
	uint64_t ino, cookie;
	uint32_t type, name;		/* name: offset in text, terminated */
	struct msg_attr attr;
};

struct client_fuse_dir {
	struct list  node;		/* f->dirs */
	struct kept *v;
	char	    *text;
	uint32_t     n, pos;		/* entries; first one not listed yet */
	uint64_t     at;		/* offset of the kernel that pos stands for */
	uint64_t     got_ns, ttl_ns;	/* when it came; ttl at that time */
	uint64_t     changes;		/* f->changes at that time */
	bool	     plus, eof;
};

static void
page_drop(struct client_fuse_dir *d)
{
	free(d->v);
	free(d->text);
	d->v = NULL;
	d->text = NULL;
	d->n = d->pos = 0;
	d->at = 0;
	d->eof = false;
}

/* Copy entries [from, n) of a reply; without memory nothing is kept. */
static void
page_keep(struct client_fuse_dir *d, const struct msg_readdir_rep *rep,
    uint32_t from, uint64_t at)
{
	size_t bytes = 0;
	uint32_t n = rep->entries.n - from;

	page_drop(d);
	d->at = at;
	d->eof = rep->eof;
	if (n == 0)
		return;
	for (uint32_t k = from; k < rep->entries.n; k++)
		bytes += rep->entries.v[k].name.n + 1;
	d->v = calloc(n, sizeof(*d->v));
	d->text = malloc(bytes);
	if (d->v == NULL || d->text == NULL) {
		page_drop(d);
		return;
	}
	bytes = 0;
	for (uint32_t k = 0; k < n; k++) {
		const struct msg_dirent *e = &rep->entries.v[from + k];

		d->v[k] = (struct kept){ .ino = e->ino, .cookie = e->cookie,
			.type = e->type, .name = (uint32_t)bytes,
			.attr = e->attr };
		memcpy(d->text + bytes, e->name.p, e->name.n);
		bytes += e->name.n;
		d->text[bytes++] = '\0';
	}
	d->n = n;
}

/* ---- putting a reply together ---- */

struct out {
	struct client_fuse_req *r;
	size_t used;
};

/* False: it does not fit any more. */
static bool
add(struct out *o, const char *name, uint64_t ino, uint32_t type,
    uint64_t cookie, const struct msg_attr *attr, uint64_t ttl_ns)
{
	struct client_fuse_req *r = o->r;
	size_t room = r->size - o->used, need;
	char *p = r->f->scratch + o->used;
	struct fuse_entry_param e;

	if (!r->plus) {
		struct stat st = { .st_ino = ino, .st_mode = type };

		need = fuse_add_direntry(r->req, p, room, name, &st,
		    (off_t)cookie);
	} else {
		if (attr != NULL && attr->ino != 0)
			client_fuse_entry(attr, ttl_ns, &e);
		else {			/* listed, not looked up */
			memset(&e, 0, sizeof(e));
			e.attr.st_ino = ino;
			e.attr.st_mode = type;
		}
		need = fuse_add_direntry_plus(r->req, p, room, name, &e,
		    (off_t)cookie);
	}
	if (need > room)
		return false;
	o->used += need;
	return true;
}

static bool
add_dots(struct out *o)
{
	struct client_fuse_req *r = o->r;

	if (r->off == 0) {
		if (!add(o, ".", UNKNOWN_INO, S_IFDIR, 1, NULL, 0))
			return false;
		r->off = 1;
	}
	if (r->off == 1) {
		if (!add(o, "..", UNKNOWN_INO, S_IFDIR, 2, NULL, 0))
			return false;
		r->off = 2;
	}
	return true;
}

static void
answer(struct out *o)
{
	struct client_fuse_req *r = o->r;

	if (!client_fuse_stopped(r))
		fuse_reply_buf(r->req, r->f->scratch, o->used);
	client_fuse_req_free(r);
}

static bool
page_usable(const struct client_fuse *f, const struct client_fuse_dir *d,
    uint64_t off, bool plus)
{
	if (d->at != off || off == 0 || (d->pos == d->n && !d->eof))
		return false;
	if (clock_now(f->clock) - d->got_ns > PAGE_NS)
		return false;
	return !plus || (d->plus && d->changes == f->changes);
}

/* Answer from what is kept. */
static void
list_kept(struct out *o, struct client_fuse_dir *d)
{
	struct client_fuse *f = o->r->f;
	uint64_t past = clock_fresh(f->clock) - d->got_ns;
	uint64_t ttl = d->ttl_ns > past ? d->ttl_ns - past : 0;

	for (; d->pos < d->n; d->pos++) {
		const struct kept *k = &d->v[d->pos];

		if (!add(o, d->text + k->name, k->ino, k->type, k->cookie,
		    &k->attr, ttl))
			break;
		d->at = k->cookie;
	}
	answer(o);
}

static void
listed(struct client_op *op, int rc)
{
	struct client_fuse_req *r = container_of(op, struct client_fuse_req,
	    op);
	const struct msg_readdir_rep *rep = op->readdir;
	struct client_fuse_dir *d = r->dir;
	struct client_fuse *f = r->f;
	struct out o = { .r = r };
	uint64_t at = r->off;
	uint32_t k = 0;

	if (rc != 0 || f->stopped) {
		client_fuse_reply(r, rc);
		return;
	}
	if (add_dots(&o)) {
		for (at = r->off; k < rep->entries.n; k++) {
			const struct msg_dirent *e = &rep->entries.v[k];
			char name[META_NAME_MAX + 1];

			if (e->name.n > META_NAME_MAX)
				continue;
			memcpy(name, e->name.p, e->name.n);
			name[e->name.n] = '\0';
			if (!add(&o, name, e->ino, e->type, e->cookie,
			    &e->attr, op->ttl_ns))
				break;
			at = e->cookie;
		}
		page_keep(d, rep, k, at);
		d->got_ns = clock_now(f->clock);
		d->ttl_ns = op->ttl_ns;
		d->plus = r->plus;
		/* What was changed since we asked may be missing in it. */
		d->changes = r->changes_then;
	}
	answer(&o);
}

static void
list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
    struct fuse_file_info *fi, bool plus)
{
	struct client_fuse *f = fuse_req_userdata(req);
	struct client_fuse_req *r = client_fuse_req(f, req, false);
	struct client_fuse_dir *d = (struct client_fuse_dir *)(uintptr_t)fi->fh;
	struct client_cred cred;
	struct out o = { .r = r };

	if (r == NULL)
		return;
	if (size > FUSE_IO_MAX)
		size = FUSE_IO_MAX;
	r->dir = d;
	r->off = (uint64_t)off;
	r->size = size;
	r->plus = plus;
	if (f->scratch_size < size) {
		char *p = realloc(f->scratch, size);

		if (p == NULL) {
			client_fuse_reply(r, -ENOMEM);
			return;
		}
		f->scratch = p;
		f->scratch_size = size;
	}
	if (page_usable(f, d, r->off, plus)) {
		list_kept(&o, d);
		return;
	}
	r->changes_then = f->changes;
	client_fuse_cred(f, req, &cred);
	client_readdir(f->c, &r->op, listed, &cred, ino, r->off < 3 ? 0 :
	    r->off, r->off < 3 ? PAGE_FIRST : PAGE_NEXT, plus);
}

static void
op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
    struct fuse_file_info *fi)
{
	list(req, ino, size, off, fi, false);
}

static void
op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
    struct fuse_file_info *fi)
{
	list(req, ino, size, off, fi, true);
}

static void
dir_end(struct client_fuse_dir *d)
{
	page_drop(d);
	list_remove(&d->node);
	free(d);
}

static void
op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct client_fuse *f = fuse_req_userdata(req);
	struct client_fuse_dir *d = calloc(1, sizeof(*d));

	(void)ino;
	if (d == NULL) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	list_push_back(&f->dirs, &d->node);
	fi->fh = (uintptr_t)d;
	if (fuse_reply_open(req, fi) == -ENOENT)
		dir_end(d);
}

static void
op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	dir_end((struct client_fuse_dir *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

/* What was changed in a directory was durable before it was answered. */
static void
op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only,
    struct fuse_file_info *fi)
{
	(void)ino;
	(void)data_only;
	(void)fi;
	fuse_reply_err(req, 0);
}

void
client_fuse_dir_table(struct fuse_lowlevel_ops *ops)
{
	ops->opendir = op_opendir;
	ops->readdir = op_readdir;
	ops->readdirplus = op_readdirplus;
	ops->releasedir = op_releasedir;
	ops->fsyncdir = op_fsyncdir;
}

void
client_fuse_dir_close(struct client_fuse *f)
{
	while (!list_empty(&f->dirs))
		dir_end(list_entry(f->dirs.next, struct client_fuse_dir, node));
}
