/* SPDX-License-Identifier: MIT */
/* key.h - the keys of the metadata table, byte by byte.  Numbers in keys are
 * big-endian, so that keys sort by value; rows are little-endian (conf/bytes.h) and
 * start with a format byte.
 *
 *   first  rest                               row
 *   0x00   reserved for the group (its applied index)
 *   'D'    parent u64, hash u64, name         dirent.h: format, type, inode
 *   'G'    ino u64, kind u8                   gc.h: what storage still has to do
 *   'I'    ino u64                            inode.h: the inode
 *   'L'    ino u64                            symlink target: format, bytes
 *   'O'    client 16 bytes, seq u64           once.h: rc and reply of a change
 *   'O'    client 16 bytes, 0 u64             once.h: records up to here are gone
 *   'S'    'c'                                fs.h: counters
 *   'S'    'h'                                fs.h: who may cache
 *   'S'    'r'                                fs.h: repairs of the counters
 *
 * Why in that order: the entries of a directory are one range, sorted by hash, which is
 * the order of readdir and makes the hash its cookie; one probe tells whether a name is
 * there.  Records of a client are one range in the order they are dropped.  Inodes have
 * their own range: entries stay small, and hard links cost nothing special. */
#ifndef META_KEY_H
#define META_KEY_H

#include <stddef.h>
#include <stdint.h>

#include "conf/ids.h"

#define KEY_DIRENT	'D'
#define KEY_GC		'G'
#define KEY_INODE	'I'
#define KEY_SYMLINK	'L'
#define KEY_ONCE	'O'
#define KEY_STATE	'S'

#define KEY_INO_LEN	9u	/* 'I' and 'L'; prefix of 'D' and 'G' */
#define KEY_DIRENT_LEN	17u	/* 'D' before the name */
#define KEY_GC_LEN	10u
#define KEY_CLIENT_LEN	17u	/* 'O' before the number */
#define KEY_ONCE_LEN	25u
#define KEY_STATE_LEN	2u
#define KEY_LEN_MAX	(KEY_DIRENT_LEN + 255u)

/* Each writes a whole key and returns its length. */
size_t	key_ino(uint8_t k[KEY_INO_LEN], char table, ino_id ino);
size_t	key_dirent(uint8_t k[KEY_LEN_MAX], ino_id parent, uint64_t hash,
	    const char *name, size_t n);
size_t	key_gc(uint8_t k[KEY_GC_LEN], ino_id ino, uint8_t kind);
size_t	key_once(uint8_t k[KEY_ONCE_LEN], const struct uid128 *client, uint64_t seq);
size_t	key_state(uint8_t k[KEY_STATE_LEN], char what);

/* Number behind the first byte of a key that is at least KEY_INO_LEN long. */
ino_id	key_ino_of(const void *key);

/* Place of a name in its directory and readdir cookie, 3..2^63-1: XXH64 with a fixed
 * seed, so it is part of the format. */
uint64_t key_hash(const char *name, size_t n);

/* Digest of rows in the order of their keys, to compare members; begins with @digest 0. */
uint64_t key_digest(uint64_t digest, const void *key, size_t key_len, const void *value,
	    size_t value_len);

#endif
