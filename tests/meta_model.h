/* SPDX-License-Identifier: MIT */
/* meta_model.h - a small model of what POSIX says about a tree of files: arrays and loops,
 * which know nothing of keys, rows or commands. */
#ifndef TESTS_META_MODEL_H
#define TESTS_META_MODEL_H

#include "tests/meta_harness.h"

#define NODES	4096u
#define ENTRIES	24u

struct node;
struct ment {
	char	     name[8];
	struct node *to;
};
struct node {
	ino_id	ino;
	bool	there, written;
	unsigned mode, nlink, uid, gid, epoch, settled;
	unsigned long long size, rdev;
	long long atime, mtime, ctime, btime;
	struct ment ents[ENTRIES];
	unsigned n;
	struct node *parent;
	char	target[16];
};

static struct harness H, *h = &H;
static struct node nodes[NODES];
static unsigned made;		/* nodes[1..made] were used */
static unsigned rcs[200];	/* how often each errno was seen */

/* ---- the model: who may what ---- */

static bool
in_group(unsigned gid)
{
	bool in = gid == h->gid;

	for (unsigned i = 0; i < h->group_n; i++)
		in = in || h->groups[i] == gid;
	return in;
}

static bool
can(const struct node *n, unsigned want)
{
	unsigned bits = n->mode & 7;

	if (h->uid == 0)
		return true;
	if (n->uid == h->uid)
		bits = n->mode >> 6 & 7;
	else if (in_group(n->gid))
		bits = n->mode >> 3 & 7;
	return (bits & want) == want;
}

static struct node *
at(ino_id ino)
{
	return ino >= 1 && ino <= made && nodes[ino].there ? &nodes[ino] : NULL;
}

static struct ment *
ent(struct node *d, const char *name)
{
	for (unsigned i = 0; i < d->n; i++)
		if (strcmp(d->ents[i].name, name) == 0)
			return &d->ents[i];
	return NULL;
}

static int
bad_name(const char *name)
{
	if (strlen(name) > 255)
		return -ENAMETOOLONG;
	return *name == '\0' || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0 || strchr(name, '/') != NULL ? -EINVAL : 0;
}

/* A directory one may search. */
static int
dir_at(ino_id ino, struct node **out)
{
	*out = at(ino);
	if (*out == NULL)
		return -ENOENT;
	if (!S_ISDIR((*out)->mode))
		return -ENOTDIR;
	return can(*out, 1) ? 0 : -EACCES;
}

static void
add(struct node *d, const char *name, struct node *to)
{
	ck_assert_uint_lt(d->n, ENTRIES);
	strcpy(d->ents[d->n].name, name);
	d->ents[d->n++].to = to;
	d->mtime = d->ctime = h->wall;
	d->size = d->n;
}

static void
take(struct node *d, const char *name)
{
	struct ment *e = ent(d, name);

	*e = d->ents[--d->n];
	d->mtime = d->ctime = h->wall;
	d->size = d->n;
}

static void
unnamed(struct node *n)
{
	n->ctime = h->wall;
	if (S_ISDIR(n->mode))
		n->nlink = 0;
	else
		n->nlink--;
	if (n->nlink == 0 && !S_ISREG(n->mode))
		n->there = false;
}

static unsigned
stripped(const struct node *n, unsigned mode)
{
	if (S_ISDIR(n->mode))
		return mode;
	mode &= ~(unsigned)S_ISUID;
	if (mode & S_IXGRP)
		mode &= ~(unsigned)S_ISGID;
	else if (h->uid != 0 && !in_group(n->gid))
		mode &= ~(unsigned)S_ISGID;
	return mode;
}

/* ---- the model: operations ---- */

static int
m_free(ino_id dir, const char *name, struct node **d)
{
	int rc = dir_at(dir, d);

	if (rc == 0)
		rc = bad_name(name);
	if (rc != 0)
		return rc;
	if (ent(*d, name) != NULL)
		return -EEXIST;
	return can(*d, 2) ? 0 : -EACCES;
}

static struct node *
m_new(struct node *d, const char *name, unsigned mode)
{
	struct node *n = &nodes[++made];

	ck_assert_uint_lt(made, NODES);
	*n = (struct node){ .ino = made, .there = true, .mode = mode,
		.nlink = S_ISDIR(mode) ? 2 : 1, .uid = h->uid, .gid = h->gid,
		.atime = h->wall, .mtime = h->wall, .ctime = h->wall,
		.btime = h->wall };
	if (d->mode & S_ISGID) {
		n->gid = d->gid;
		if (S_ISDIR(mode))
			n->mode |= S_ISGID;
		else if ((mode & S_ISGID) && (mode & S_IXGRP) && h->uid != 0 &&
		    !in_group(d->gid))
			n->mode &= ~(unsigned)S_ISGID;
	}
	add(d, name, n);
	if (S_ISDIR(mode)) {
		n->parent = d;
		d->nlink++;
	}
	return n;
}

static void
m_truncate(struct node *n, unsigned long long size)
{
	if (n->written && (size < n->size || (h->cmd.flags & FS_UNSETTLED)))
		n->epoch++;
	n->size = size;
	n->mtime = n->ctime = h->wall;
	if (h->uid != 0)
		n->mode = stripped(n, n->mode);
}

static int
m_open(struct node *n, unsigned flags)
{
	static const unsigned wants[] = { 4, 2, 6, 6 };
	unsigned want = wants[flags & O_ACCMODE] | (flags & O_TRUNC ? 2 : 0);

	if (S_ISLNK(n->mode))
		return -ELOOP;
	if (S_ISDIR(n->mode) && (want & 2))
		return -EISDIR;
	if (!can(n, want))
		return -EACCES;
	if (!S_ISREG(n->mode))
		return 0;
	if (flags & O_TRUNC)
		m_truncate(n, 0);
	if (flags & O_ACCMODE)
		n->written = true;
	return 0;
}

static int
m_create(ino_id dir, const char *name, unsigned mode, unsigned flags,
    struct node **out)
{
	struct node *d;
	int rc = m_free(dir, name, &d);

	if (rc == 0) {
		*out = m_new(d, name, S_IFREG | mode);
		(*out)->written = (flags & O_ACCMODE) != 0;
		return 0;
	}
	if (rc != -EEXIST || (flags & O_EXCL))
		return rc;
	*out = ent(d, name)->to;
	if (S_ISDIR((*out)->mode))
		return -EISDIR;
	if (!S_ISREG((*out)->mode))
		return -ESTALE;
	return m_open(*out, flags);
}

static int
m_mknod(ino_id dir, const char *name, unsigned mode, unsigned rdev,
    struct node **out)
{
	struct node *d;
	int rc = m_free(dir, name, &d);

	if (rc != 0)
		return rc;
	if ((S_ISCHR(mode) || S_ISBLK(mode)) && h->uid != 0)
		return -EPERM;
	*out = m_new(d, name, mode);
	if (S_ISCHR(mode) || S_ISBLK(mode))
		(*out)->rdev = rdev;
	return 0;
}

static int
m_link(ino_id ino, ino_id dir, const char *name, struct node **out)
{
	struct node *d;
	int rc;

	if ((*out = at(ino)) == NULL)
		return -ESTALE;
	if ((rc = m_free(dir, name, &d)) != 0)
		return rc;
	if (S_ISDIR((*out)->mode))
		return -EPERM;
	if ((*out)->nlink == 0)
		return -ENOENT;
	(*out)->nlink++;
	(*out)->ctime = h->wall;
	add(d, name, *out);
	return 0;
}

static bool
stuck(const struct node *d, const struct node *n)
{
	return (d->mode & S_ISVTX) && h->uid != 0 && h->uid != n->uid &&
	    h->uid != d->uid;
}

static int
m_remove(ino_id dir, const char *name, bool rmdir, struct node **out)
{
	struct node *d, *n;
	int rc = dir_at(dir, &d);

	if (rc == 0)
		rc = bad_name(name);
	if (rc != 0)
		return rc;
	if (ent(d, name) == NULL)
		return -ENOENT;
	n = ent(d, name)->to;
	if (!can(d, 2))
		return -EACCES;
	if (stuck(d, n))
		return -EPERM;
	if (rmdir != S_ISDIR(n->mode))
		return rmdir ? -ENOTDIR : -EISDIR;
	if (rmdir && n->n > 0)
		return -ENOTEMPTY;
	take(d, name);
	if (rmdir)
		d->nlink--;
	unnamed(n);
	*out = n;
	return 0;
}

static bool
above(const struct node *n, const struct node *d)
{
	for (; d != &nodes[INO_ROOT]; d = d->parent)
		if (d == n)
			return true;
	return d == n;
}

static int
m_rename(ino_id from, const char *name, ino_id to, const char *to_name,
    unsigned flags, struct node **gone)
{
	bool swap = flags & RENAME_EXCHANGE;
	struct node *a, *b, *x, *y = NULL;
	int rc;

	*gone = NULL;
	if (flags > 2)
		return -EINVAL;
	if ((rc = dir_at(from, &a)) != 0 || (rc = dir_at(to, &b)) != 0 ||
	    (rc = bad_name(name)) != 0)
		return rc;
	if (ent(a, name) == NULL)
		return -ENOENT;
	if ((rc = bad_name(to_name)) != 0)
		return rc;
	x = ent(a, name)->to;
	if (ent(b, to_name) != NULL)
		y = ent(b, to_name)->to;
	if (y != NULL && (flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (y == NULL && swap)
		return -ENOENT;
	if (a != b && S_ISDIR(x->mode) && above(x, b))
		return -EINVAL;
	if (a != b && y != NULL && S_ISDIR(y->mode) && above(y, a))
		return swap ? -EINVAL : -ENOTEMPTY;
	if (x == y)
		return 0;
	if (!can(a, 2))
		return -EACCES;
	if (stuck(a, x))
		return -EPERM;
	if (!can(b, 2))
		return -EACCES;
	if (y != NULL && stuck(b, y))
		return -EPERM;
	if (y != NULL && !swap && S_ISDIR(x->mode) != S_ISDIR(y->mode))
		return S_ISDIR(x->mode) ? -ENOTDIR : -EISDIR;
	if (a != b && S_ISDIR(x->mode) && !can(x, 2))
		return -EACCES;
	if (a != b && swap && S_ISDIR(y->mode) && !can(y, 2))
		return -EACCES;
	if (y != NULL && !swap && S_ISDIR(y->mode) && y->n > 0)
		return -ENOTEMPTY;
	take(a, name);
	if (y != NULL)
		take(b, to_name);
	add(b, to_name, x);
	if (S_ISDIR(x->mode)) {
		x->parent = b;
		a->nlink--;
		b->nlink++;
	}
	x->ctime = h->wall;
	if (y != NULL && S_ISDIR(y->mode))
		b->nlink--;
	if (swap) {
		add(a, name, y);
		y->ctime = h->wall;
		if (S_ISDIR(y->mode)) {
			y->parent = a;
			a->nlink++;
		}
	} else if (y != NULL) {
		unnamed(y);
		*gone = y;
	}
	return 0;
}

static int
m_setattr(const struct msg_setattr *q, struct node **out)
{
	struct node *n = *out = at(q->ino);
	unsigned v = q->valid;
	bool root = h->uid == 0, mine;

	if (n == NULL)
		return -ESTALE;
	mine = n->uid == h->uid;
	if ((v & META_SET_SIZE) && S_ISDIR(n->mode))
		return -EISDIR;
	if ((v & META_SET_SIZE) && !S_ISREG(n->mode))
		return -EINVAL;
	if ((v & META_SET_SIZE) && !can(n, 2))
		return -EACCES;
	if ((v & META_SET_UID) && !root && !(mine && q->uid == n->uid))
		return -EPERM;
	if ((v & META_SET_GID) && !root &&
	    !(mine && (q->gid == n->gid || in_group(q->gid))))
		return -EPERM;
	if ((v & META_SET_MODE) && !root && !mine)
		return -EPERM;
	if ((v & META_SET_MODE) && S_ISLNK(n->mode))
		return -EOPNOTSUPP;
	if ((v & (META_SET_ATIME | META_SET_MTIME)) && !root && !mine)
		return -EPERM;
	if ((v & (META_SET_ATIME_NOW | META_SET_MTIME_NOW)) && !root && !mine &&
	    !can(n, 2))
		return -EACCES;
	if (v & META_SET_SIZE)
		m_truncate(n, q->size);
	if (v & (META_SET_UID | META_SET_GID))
		n->mode = stripped(n, n->mode);
	if (v & META_SET_UID)
		n->uid = q->uid;
	if (v & META_SET_GID)
		n->gid = q->gid;
	if (v & META_SET_MODE) {
		n->mode = (n->mode & S_IFMT) | q->mode;
		if (!root && !in_group(n->gid))
			n->mode &= ~(unsigned)S_ISGID;
	}
	if (v & META_SET_ATIME)
		n->atime = q->atime;
	if (v & META_SET_MTIME)
		n->mtime = q->mtime;
	if (v & META_SET_ATIME_NOW)
		n->atime = h->wall;
	if (v & META_SET_MTIME_NOW)
		n->mtime = h->wall;
	if (v != 0)
		n->ctime = h->wall;
	return 0;
}

static int
m_sync(ino_id ino, unsigned long long length, unsigned epoch, long long mtime,
    struct node **out)
{
	struct node *n = *out = at(ino);

	if (n == NULL)
		return -ESTALE;
	if (!S_ISREG(n->mode))
		return -EINVAL;
	if (n->epoch != n->settled || epoch != n->epoch)
		return -EAGAIN;
	n->size = length > n->size ? length : n->size;
	n->mtime = mtime > n->mtime ? mtime : n->mtime;
	n->ctime = h->wall;
	n->written = true;
	if (h->uid != 0)
		n->mode = stripped(n, n->mode);
	return 0;
}

#endif
