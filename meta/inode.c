/* SPDX-License-Identifier: MIT */
/* inode.c - the inode row; its bytes are in inode.h. */
#include "meta/inode.h"

#include <assert.h>
#include <errno.h>

#include "conf/bytes.h"
#include "conf/err.h"
#include "meta/key.h"

#define FORMAT	1u

void
inode_encode(const struct inode *in, uint8_t row[INODE_ROW_LEN])
{
	struct bytes_writer w;

	bytes_writer_init(&w, row, INODE_ROW_LEN);
	bytes_put_u8(&w, FORMAT);
	bytes_put_u8(&w, in->flags);
	bytes_put_u8(&w, in->chunk_shift);
	bytes_put_u8(&w, 0);
	bytes_put_u32(&w, in->mode);
	bytes_put_u32(&w, in->nlink);
	bytes_put_u32(&w, in->uid);
	bytes_put_u32(&w, in->gid);
	bytes_put_u32(&w, in->epoch);
	bytes_put_u32(&w, in->settled);
	bytes_put_u32(&w, in->table);
	bytes_put_u32(&w, in->table_version);
	bytes_put_u32(&w, in->stripe);
	bytes_put_u64(&w, in->seed);
	bytes_put_u64(&w, in->rdev);
	bytes_put_u64(&w, in->size);
	bytes_put_u64(&w, (uint64_t)in->atime);
	bytes_put_u64(&w, (uint64_t)in->mtime);
	bytes_put_u64(&w, (uint64_t)in->ctime);
	bytes_put_u64(&w, (uint64_t)in->btime);
	bytes_put_u64(&w, in->change);
	bytes_put_u64(&w, in->parent);
	assert(!w.failed);
	assert(bytes_written(&w) == INODE_ROW_LEN);
}

int
inode_decode(struct inode *in, ino_id ino, const void *row, size_t len)
{
	struct bytes_reader r;

	bytes_reader_init(&r, row, len);
	if (bytes_get_u8(&r) != FORMAT)
		return ERR_LOG_DAMAGED;
	in->ino = ino;
	in->flags = bytes_get_u8(&r);
	in->chunk_shift = bytes_get_u8(&r);
	bytes_get_u8(&r);
	in->mode = bytes_get_u32(&r);
	in->nlink = bytes_get_u32(&r);
	in->uid = bytes_get_u32(&r);
	in->gid = bytes_get_u32(&r);
	in->epoch = bytes_get_u32(&r);
	in->settled = bytes_get_u32(&r);
	in->table = bytes_get_u32(&r);
	in->table_version = bytes_get_u32(&r);
	in->stripe = bytes_get_u32(&r);
	in->seed = bytes_get_u64(&r);
	in->rdev = bytes_get_u64(&r);
	in->size = bytes_get_u64(&r);
	in->atime = (int64_t)bytes_get_u64(&r);
	in->mtime = (int64_t)bytes_get_u64(&r);
	in->ctime = (int64_t)bytes_get_u64(&r);
	in->btime = (int64_t)bytes_get_u64(&r);
	in->change = bytes_get_u64(&r);
	in->parent = bytes_get_u64(&r);
	return bytes_reader_done(&r) ? 0 : ERR_LOG_DAMAGED;
}

int
inode_get(struct table *t, ino_id ino, struct inode *out)
{
	uint8_t k[KEY_INO_LEN];
	const void *row;
	size_t len;
	int rc;

	rc = table_get(t, k, key_ino(k, KEY_INODE, ino), &row, &len);
	return rc != 0 ? rc : inode_decode(out, ino, row, len);
}

int
inode_next(struct table *t, ino_id after, struct inode *out)
{
	uint8_t k[KEY_INO_LEN];
	const void *key, *row;
	size_t key_len, len;
	int rc;

	rc = table_seek(t, k, key_ino(k, KEY_INODE, after), true, 1, &key,
	    &key_len, &row, &len);
	if (rc != 0)
		return rc;
	if (key_len != KEY_INO_LEN)
		return ERR_LOG_DAMAGED;
	return inode_decode(out, key_ino_of(key), row, len);
}

int
inode_put(struct table *t, const struct inode *in)
{
	uint8_t k[KEY_INO_LEN], row[INODE_ROW_LEN];

	inode_encode(in, row);
	return table_put(t, k, key_ino(k, KEY_INODE, in->ino), row, sizeof(row));
}

int
inode_del(struct table *t, ino_id ino)
{
	uint8_t k[KEY_INO_LEN];

	return table_del(t, k, key_ino(k, KEY_INODE, ino));
}

void
inode_attr(const struct inode *in, struct msg_attr *out)
{
	*out = (struct msg_attr){
		.ino = in->ino, .mode = in->mode, .nlink = in->nlink,
		.uid = in->uid, .gid = in->gid, .rdev = in->rdev,
		.size = in->size, .atime = in->atime, .mtime = in->mtime,
		.ctime = in->ctime, .btime = in->btime, .change = in->change,
		.epoch = in->settled, .table = in->table,
		.table_version = in->table_version,
		.chunk_shift = in->chunk_shift, .stripe = in->stripe,
		.seed = in->seed, .parent = in->parent,
	};
}

void
inode_layout(const struct inode *in, struct layout *out)
{
	*out = (struct layout){
		.table = in->table, .table_version = in->table_version,
		.chunk_shift = in->chunk_shift, .stripe = in->stripe,
		.seed = in->seed,
	};
}
