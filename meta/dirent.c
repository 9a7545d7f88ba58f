/* SPDX-License-Identifier: MIT */
/* dirent.c - entries of directories. */
#include "meta/dirent.h"

#include <errno.h>

#include "conf/bytes.h"
#include "conf/err.h"

#define FORMAT	1u

int
dirent_name_check(const struct msg_str *name)
{
	if (name->n == 0)
		return -EINVAL;
	if (name->n > META_NAME_MAX)
		return -ENAMETOOLONG;
	if (name->p[0] == '.' &&
	    (name->n == 1 || (name->n == 2 && name->p[1] == '.')))
		return -EINVAL;
	if (memchr(name->p, '/', name->n) != NULL ||
	    memchr(name->p, '\0', name->n) != NULL)
		return -EINVAL;
	return 0;
}

int
dirent_decode(struct entry *out, const void *row, size_t len)
{
	struct bytes_reader r;

	bytes_reader_init(&r, row, len);
	if (bytes_get_u8(&r) != FORMAT)
		return ERR_LOG_DAMAGED;
	out->type = (uint32_t)bytes_get_u8(&r) << 12;
	out->ino = bytes_get_u64(&r);
	return bytes_reader_done(&r) ? 0 : ERR_LOG_DAMAGED;
}

int
dirent_get(struct table *t, ino_id dir, const struct msg_str *name,
    struct entry *out)
{
	uint8_t k[KEY_LEN_MAX];
	const void *row;
	size_t len;
	int rc;

	rc = table_get(t, k, key_dirent(k, dir, key_hash(name->p, name->n),
	    name->p, name->n), &row, &len);
	return rc != 0 ? rc : dirent_decode(out, row, len);
}

int
dirent_room(struct table *t, ino_id dir, const struct msg_str *name,
    struct entry *out)
{
	uint8_t k[KEY_LEN_MAX];
	size_t n = key_dirent(k, dir, key_hash(name->p, name->n), NULL, 0);
	bool after = false;

	/* One probe in nearly every case: nothing has this hash. */
	for (unsigned same = 0; same < DIRENT_SAME_MAX; same++) {
		const void *key, *row;
		size_t key_len, len;
		int rc;

		rc = table_seek(t, k, n, after, KEY_DIRENT_LEN, &key, &key_len,
		    &row, &len);
		if (rc != 0)
			return rc;
		if (key_len > KEY_LEN_MAX)
			return ERR_LOG_DAMAGED;
		if (key_len == KEY_DIRENT_LEN + name->n && memcmp(
		    (const char *)key + KEY_DIRENT_LEN, name->p, name->n) == 0)
			return dirent_decode(out, row, len);
		memcpy(k, key, key_len);
		n = key_len;
		after = true;
	}
	/* The name itself may be behind the ones that were looked at. */
	{
		int rc = dirent_get(t, dir, name, out);

		return rc == -ENOENT ? -ENOSPC : rc;
	}
}

int
dirent_put(struct table *t, ino_id dir, const struct msg_str *name, ino_id ino,
    uint32_t type)
{
	uint8_t k[KEY_LEN_MAX], row[DIRENT_ROW_LEN];
	struct bytes_writer w;

	bytes_writer_init(&w, row, sizeof(row));
	bytes_put_u8(&w, FORMAT);
	bytes_put_u8(&w, (uint8_t)(type >> 12));
	bytes_put_u64(&w, ino);
	return table_put(t, k, key_dirent(k, dir, key_hash(name->p, name->n),
	    name->p, name->n), row, sizeof(row));
}

int
dirent_del(struct table *t, ino_id dir, const struct msg_str *name)
{
	uint8_t k[KEY_LEN_MAX];

	return table_del(t, k, key_dirent(k, dir, key_hash(name->p, name->n),
	    name->p, name->n));
}

void
dirent_start(struct dirent_cursor *c, ino_id dir, uint64_t hash)
{
	/* The first key of the next hash; the largest hash has none behind it. */
	c->len = key_dirent(c->key, dir, hash < UINT64_MAX ? hash + 1 : hash,
	    NULL, 0);
	c->after = false;
}

int
dirent_next(struct table *t, struct dirent_cursor *c, struct entry *out,
    struct msg_str *name, uint64_t *hash)
{
	const void *key, *row;
	size_t key_len, len;
	int rc;

	rc = table_seek(t, c->key, c->len, c->after, KEY_INO_LEN, &key, &key_len,
	    &row, &len);
	if (rc != 0)
		return rc;
	if (key_len <= KEY_DIRENT_LEN || key_len > KEY_LEN_MAX)
		return ERR_LOG_DAMAGED;
	if ((rc = dirent_decode(out, row, len)) != 0)
		return rc;
	memcpy(c->key, key, key_len);
	c->len = key_len;
	c->after = true;
	name->p = (const char *)c->key + KEY_DIRENT_LEN;
	name->n = (uint32_t)(key_len - KEY_DIRENT_LEN);
	*hash = bytes_from_be64(c->key + KEY_INO_LEN);
	return 0;
}
