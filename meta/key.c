/* SPDX-License-Identifier: MIT */
/* key.c - table keys; the layout is in key.h. */
#include "meta/key.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "conf/bytes.h"

#define HASH_SEED	0x6673642d64697231ull	/* "fsd-dir1"; never changes */

size_t
key_ino(uint8_t k[KEY_INO_LEN], char table, ino_id ino)
{
	k[0] = (uint8_t)table;
	bytes_be64(k + 1, ino);
	return KEY_INO_LEN;
}

size_t
key_dirent(uint8_t k[KEY_LEN_MAX], ino_id parent, uint64_t hash, const char *name,
    size_t n)
{
	assert(n <= KEY_LEN_MAX - KEY_DIRENT_LEN);
	k[0] = KEY_DIRENT;
	bytes_be64(k + 1, parent);
	bytes_be64(k + 9, hash);
	if (n > 0)
		memcpy(k + KEY_DIRENT_LEN, name, n);
	return KEY_DIRENT_LEN + n;
}

size_t
key_gc(uint8_t k[KEY_GC_LEN], ino_id ino, uint8_t kind)
{
	k[0] = KEY_GC;
	bytes_be64(k + 1, ino);
	k[9] = kind;
	return KEY_GC_LEN;
}

size_t
key_once(uint8_t k[KEY_ONCE_LEN], const struct uid128 *client, uint64_t seq)
{
	k[0] = KEY_ONCE;
	memcpy(k + 1, client->b, sizeof(client->b));
	bytes_be64(k + KEY_CLIENT_LEN, seq);
	return KEY_ONCE_LEN;
}

size_t
key_state(uint8_t k[KEY_STATE_LEN], char what)
{
	k[0] = KEY_STATE;
	k[1] = (uint8_t)what;
	return KEY_STATE_LEN;
}

ino_id
key_ino_of(const void *key)
{
	return bytes_from_be64((const uint8_t *)key + 1);
}

uint64_t
key_hash(const char *name, size_t n)
{
	uint64_t h = XXH64(name, n, HASH_SEED) & (UINT64_MAX >> 1);

	/* 0 is the start of a listing; 1 and 2 are . and .. in many clients. */
	return h < 3 ? h + 3 : h;
}

uint64_t
key_digest(uint64_t digest, const void *key, size_t key_len, const void *value,
    size_t value_len)
{
	digest = XXH64(key, key_len, digest ^ key_len);
	return XXH64(value, value_len, digest ^ value_len);
}
