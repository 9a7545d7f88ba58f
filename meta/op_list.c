/* SPDX-License-Identifier: MIT */
/* op_list.c - reads: getattr, lookup, readlink, readdir, and opens that change nothing. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "conf/err.h"
#include "meta/op.h"

#define LIST_BYTES_MAX	(1u << 20)	/* of one reply */
#define LIST_MAX	4096u		/* entries of one reply: bounds the time it takes */
#define LIST_PLUS_MAX	1024u
/* Most bytes an entry takes on the wire besides its name: head, length, inode, type,
 * cookie; and 19 numbers of at most 9 bytes, with their head. */
#define ENTRY_BYTES	32u
#define ATTR_BYTES	180u
#define LIST_HEAD_BYTES	16u

int
fs_inode(struct fs *fs, ino_id ino, struct inode *out)
{
	return inode_get(fs->table, ino, out);
}

int
fs_getattr(struct fs *fs, const struct msg_ino *q, struct msg_entry_rep *rep)
{
	struct inode in;
	int rc = inode_get(fs->table, q->ino, &in);

	if (rc != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	inode_attr(&in, &rep->attr);
	return 0;
}

int
fs_lookup(struct fs *fs, const struct msg_lookup *q, struct msg_entry_rep *rep)
{
	const struct msg_str *name = &q->name;
	struct inode dir, in;
	struct entry e;
	int rc;

	if ((rc = inode_get(fs->table, q->parent, &dir)) != 0)
		return rc;
	if (!S_ISDIR(dir.mode))
		return -ENOTDIR;
	if ((rc = perm_check(&dir, &q->ctx, PERM_X)) != 0)
		return rc;
	if (name->n == 1 && name->p[0] == '.') {
		e.ino = dir.ino;
	} else if (name->n == 2 && name->p[0] == '.' && name->p[1] == '.') {
		e.ino = dir.parent;
	} else {
		if ((rc = dirent_name_check(name)) != 0 ||
		    (rc = dirent_get(fs->table, dir.ino, name, &e)) != 0)
			return rc;
	}
	if ((rc = inode_get(fs->table, e.ino, &in)) != 0)
		return rc == -ENOENT ? -EUCLEAN : rc;
	inode_attr(&in, &rep->attr);
	return 0;
}

/* Room for @n bytes that replies point to. */
static int
bytes_room(struct fs *fs, size_t n)
{
	char *p;

	if (n <= fs->bytes_cap)
		return 0;
	if ((p = realloc(fs->bytes, n)) == NULL)
		return -ENOMEM;
	fs->bytes = p;
	fs->bytes_cap = n;
	return 0;
}

int
fs_readlink(struct fs *fs, const struct msg_ino *q, struct msg_readlink_rep *rep)
{
	uint8_t k[KEY_INO_LEN];
	struct inode in;
	const void *row;
	size_t len;
	int rc;

	if ((rc = inode_get(fs->table, q->ino, &in)) != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	if (!S_ISLNK(in.mode))
		return -EINVAL;
	rc = table_get(fs->table, k, key_ino(k, KEY_SYMLINK, q->ino), &row, &len);
	if (rc != 0)
		return rc == -ENOENT ? -EUCLEAN : rc;
	if (len < 2 || *(const uint8_t *)row != 1)
		return ERR_LOG_DAMAGED;
	if ((rc = bytes_room(fs, META_SYMLINK_MAX + 1)) != 0)
		return rc;
	if (len - 1 > META_SYMLINK_MAX)
		return ERR_LOG_DAMAGED;
	memcpy(fs->bytes, (const char *)row + 1, len - 1);
	rep->target = (struct msg_str){ fs->bytes, (uint32_t)(len - 1) };
	return 0;
}

static int
dirents_room(struct fs *fs, uint32_t n)
{
	uint32_t cap = fs->dirents_cap;
	struct msg_dirent *p;

	if (n <= cap)
		return 0;
	cap = cap == 0 ? 64 : cap * 2;
	if ((p = realloc(fs->dirents, cap * sizeof(*p))) == NULL)
		return -ENOMEM;
	fs->dirents = p;
	fs->dirents_cap = cap;
	return 0;
}

/* One page into fs->dirents and fs->bytes; names as offsets, since bytes may move. */
static int
list(struct fs *fs, const struct msg_readdir *q, bool plus, size_t max,
    uint32_t *count, bool *eof)
{
	uint32_t n = 0, limit = q->plus ? LIST_PLUS_MAX : LIST_MAX;
	size_t used = 0, size = LIST_HEAD_BYTES;
	struct dirent_cursor c;
	uint64_t last = 0;

	*eof = false;
	dirent_start(&c, q->ino, q->cookie);
	for (;;) {
		struct msg_dirent *d;
		struct msg_str name;
		struct entry e;
		uint64_t hash;
		int rc;

		rc = dirent_next(fs->table, &c, &e, &name, &hash);
		if (rc == -ENOENT) {
			*eof = true;
			break;
		}
		if (rc != 0)
			return rc;
		size += name.n + ENTRY_BYTES + (q->plus ? ATTR_BYTES : 0);
		/* Names of one hash stay together: a cookie cannot part them.  The
		 * first ones are listed whatever the bound is (DIRENT_SAME_MAX). */
		if (n > 0 && hash != last && (size > max || n >= limit))
			break;
		last = hash;
		if ((rc = dirents_room(fs, n + 1)) != 0 ||
		    (rc = bytes_room(fs, used + name.n > fs->bytes_cap ?
		    2 * (used + name.n) + 4096 : 0)) != 0)
			return rc;
		memcpy(fs->bytes + used, name.p, name.n);
		used += name.n;
		d = &fs->dirents[n++];
		*d = (struct msg_dirent){
			.name.n = name.n, .ino = e.ino, .type = e.type,
			.cookie = hash,
		};
	}
	for (uint32_t i = 0, at = 0; i < n; i++) {
		struct msg_dirent *d = &fs->dirents[i];
		struct inode in;

		d->name.p = fs->bytes + at;
		at += d->name.n;
		if (!plus)
			continue;
		if (inode_get(fs->table, d->ino, &in) == 0)
			inode_attr(&in, &d->attr);
	}
	*count = n;
	return 0;
}

int
fs_readdir(struct fs *fs, const struct msg_readdir *q,
    struct msg_readdir_rep *rep)
{
	size_t max = q->max_bytes < LIST_BYTES_MAX ? q->max_bytes :
	    LIST_BYTES_MAX;
	struct inode dir;
	bool eof, plus;
	uint32_t n;
	int rc;

	if ((rc = inode_get(fs->table, q->ino, &dir)) != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	if (!S_ISDIR(dir.mode))
		return -ENOTDIR;
	if ((rc = perm_check(&dir, &q->ctx, PERM_R)) != 0)
		return rc;
	/* Attributes are for who may look names up. */
	plus = q->plus && perm_check(&dir, &q->ctx, PERM_X) == 0;
	if ((rc = list(fs, q, plus, max, &n, &eof)) != 0)
		return rc;
	rep->entries.v = fs->dirents;
	rep->entries.n = n;
	rep->eof = eof;
	return 0;
}

int
fs_open_check(struct fs *fs, const struct msg_open *q, struct inode *out)
{
	unsigned want = perm_of_open(q->flags);
	int rc = inode_get(fs->table, q->ino, out);

	if (rc != 0)
		return rc == -ENOENT ? -ESTALE : rc;
	if (S_ISLNK(out->mode))
		return -ELOOP;
	if (S_ISDIR(out->mode) && (want & PERM_W) != 0)
		return -EISDIR;
	if ((rc = perm_check(out, &q->ctx, want)) != 0)
		return rc;
	if (S_ISREG(out->mode) && ((q->flags & O_TRUNC) != 0 ||
	    ((q->flags & O_ACCMODE) != O_RDONLY &&
	    (out->flags & INODE_WRITTEN) == 0)))
		return -EINPROGRESS;
	return 0;
}
