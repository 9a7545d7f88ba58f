/* SPDX-License-Identifier: MIT */
/* op.c - reads and writes that the namespace operations share. */
#include "meta/op.h"

#include <assert.h>
#include <errno.h>
#include <sys/stat.h>

#include "conf/bytes.h"
#include "conf/err.h"

#define FORMAT	1u

/* -ENOENT is an answer; any other error means the table cannot be trusted. */
int
op_note(struct fs_op *o, int rc)
{
	if (rc != 0 && rc != -ENOENT && rc != -ENOSPC && rc != -EUCLEAN &&
	    o->failed == 0)
		o->failed = rc;
	return rc;
}

int
op_inode(struct fs_op *o, ino_id ino, struct inode *out)
{
	return op_note(o, inode_get(o->t, ino, out));
}

int
op_dir(struct fs_op *o, ino_id ino, struct inode *out)
{
	int rc = op_inode(o, ino, out);

	if (rc != 0)
		return rc;
	if (!S_ISDIR(out->mode))
		return -ENOTDIR;
	return perm_check(out, o->who, PERM_X);
}

int
op_entry(struct fs_op *o, const struct inode *dir, const struct msg_str *name,
    struct entry *out)
{
	int rc = dirent_name_check(name);

	return rc != 0 ? rc : op_note(o, dirent_get(o->t, dir->ino, name, out));
}

int
op_room(struct fs_op *o, const struct inode *dir, const struct msg_str *name,
    struct entry *out)
{
	int rc = dirent_name_check(name);

	return rc != 0 ? rc : op_note(o, dirent_room(o->t, dir->ino, name, out));
}

int
op_target(struct fs_op *o, const struct entry *e, struct inode *out)
{
	int rc = inode_get(o->t, e->ino, out);

	return op_note(o, rc == -ENOENT ? -EUCLEAN : rc);
}

int
op_empty(struct fs_op *o, const struct inode *dir)
{
	uint8_t k[KEY_INO_LEN];
	const void *key, *row;
	size_t key_len, len;
	int rc;

	if (dir->size > 0)
		return -ENOTEMPTY;
	/* That number is not all we go by: what is in it would be lost. */
	rc = op_note(o, table_seek(o->t, k, key_ino(k, KEY_DIRENT, dir->ino), false,
	    KEY_INO_LEN, &key, &key_len, &row, &len));
	return rc == 0 ? -ENOTEMPTY : rc == -ENOENT ? 0 : rc;
}

void
op_put(struct fs_op *o, const struct inode *in)
{
	op_note(o, inode_put(o->t, in));
}

void
op_link_name(struct fs_op *o, const struct inode *dir, const struct msg_str *name,
    const struct inode *in)
{
	op_note(o, dirent_put(o->t, dir->ino, name, in->ino, in->mode & S_IFMT));
}

void
op_unlink_name(struct fs_op *o, const struct inode *dir,
    const struct msg_str *name)
{
	op_note(o, dirent_del(o->t, dir->ino, name));
}

void
op_changed(struct fs_op *o, struct inode *in)
{
	in->ctime = o->cmd->wall_ns;
	in->change++;
}

void
op_dir_changed(struct fs_op *o, struct inode *dir, int entries)
{
	assert(entries >= 0 || dir->size >= (uint64_t)-entries);
	dir->size += (uint64_t)(int64_t)entries;
	dir->mtime = o->cmd->wall_ns;
	op_changed(o, dir);
}

int
op_can_lose(const struct inode *dir, const struct inode *in)
{
	bool ok = dir->size > 0 && in->nlink > 0 &&
	    (!S_ISDIR(in->mode) || (dir->nlink > 2 && in->ino != INO_ROOT));

	return ok ? 0 : -EUCLEAN;
}

void
op_lost_name(struct fs_op *o, struct inode *in)
{
	struct gc_row row = {
		.ino = in->ino, .kind = GC_REMOVE, .epoch = GC_EPOCH_GONE,
		.since_ns = o->cmd->wall_ns,
	};
	struct op_counters c;
	uint8_t k[KEY_INO_LEN];

	assert(in->nlink > 0);
	in->nlink = S_ISDIR(in->mode) ? 0 : in->nlink - 1;
	op_changed(o, in);
	if (in->nlink > 0) {
		op_put(o, in);
		return;
	}
	if (S_ISREG(in->mode)) {
		/* Somebody may have it open, and it may have chunks: the row stays
		 * until the role says that both have ended. */
		op_put(o, in);
		op_note(o, gc_put(o->t, &row));
		o->effects |= FS_REMOVES;
		o->ino = in->ino;
		return;
	}
	op_note(o, inode_del(o->t, in->ino));
	if (S_ISLNK(in->mode))
		op_note(o, table_del(o->t, k, key_ino(k, KEY_SYMLINK, in->ino)));
	if (op_note(o, op_counters_get(o->t, &c)) != 0)
		return;
	c.inodes--;
	op_note(o, op_counters_put(o->t, &c));
}

void
op_reply(struct fs_op *o, const struct inode *in)
{
	inode_attr(in, &o->rep.entry.attr);
	/* It is sent when the truncation has settled. */
	if ((o->effects & FS_TRUNCATES) != 0)
		o->rep.entry.attr.epoch = in->epoch;
}

int
op_counters_get(struct table *t, struct op_counters *out)
{
	uint8_t k[KEY_STATE_LEN];
	struct bytes_reader r;
	const void *row;
	size_t len;
	int rc;

	*out = (struct op_counters){ 0 };
	rc = table_get(t, k, key_state(k, 'c'), &row, &len);
	if (rc != 0)
		return rc == -ENOENT ? 0 : rc;
	bytes_reader_init(&r, row, len);
	if (bytes_get_u8(&r) != FORMAT)
		return ERR_LOG_DAMAGED;
	out->next_ino = bytes_get_u64(&r);
	out->inodes = bytes_get_u64(&r);
	return bytes_reader_done(&r) ? 0 : ERR_LOG_DAMAGED;
}

int
op_recounts_get(struct table *t, uint64_t *out)
{
	uint8_t k[KEY_STATE_LEN];
	struct bytes_reader r;
	const void *row;
	size_t len;
	int rc;

	*out = 0;
	rc = table_get(t, k, key_state(k, 'r'), &row, &len);
	if (rc != 0)
		return rc == -ENOENT ? 0 : rc;
	bytes_reader_init(&r, row, len);
	if (bytes_get_u8(&r) != FORMAT)
		return ERR_LOG_DAMAGED;
	*out = bytes_get_u64(&r);
	return bytes_reader_done(&r) ? 0 : ERR_LOG_DAMAGED;
}

int
op_recounts_put(struct table *t, uint64_t n)
{
	uint8_t k[KEY_STATE_LEN], row[9];
	struct bytes_writer w;

	bytes_writer_init(&w, row, sizeof(row));
	bytes_put_u8(&w, FORMAT);
	bytes_put_u64(&w, n);
	return table_put(t, k, key_state(k, 'r'), row, sizeof(row));
}

int
op_counters_put(struct table *t, const struct op_counters *c)
{
	uint8_t k[KEY_STATE_LEN], row[17];
	struct bytes_writer w;

	bytes_writer_init(&w, row, sizeof(row));
	bytes_put_u8(&w, FORMAT);
	bytes_put_u64(&w, c->next_ino);
	bytes_put_u64(&w, c->inodes);
	return table_put(t, k, key_state(k, 'c'), row, sizeof(row));
}
