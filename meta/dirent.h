/* SPDX-License-Identifier: MIT */
/* dirent.h - entries of directories: (parent, name) -> inode and type.
 * Key in key.h.  Row, 10 bytes:
 *   off size field
 *     0    1 format  1
 *     1    1 type    type bits of the mode, shifted down by 12
 *     2    8 ino     little-endian */
#ifndef META_DIRENT_H
#define META_DIRENT_H

#include <stdbool.h>

#include "conf/table.h"
#include "meta/key.h"
#include "net/msg_meta.h"

#define DIRENT_ROW_LEN	10u
/* Names of one directory with one hash, at most: a page of a listing never splits them,
 * and XXH64 is not made to resist those who look for such names. */
#define DIRENT_SAME_MAX	16u

struct entry {
	ino_id	 ino;
	uint32_t type;		/* S_IFMT bits */
};

/* May an entry be called so: 0, -EINVAL (empty, . and .., a slash or a zero byte) or
 * -ENAMETOOLONG. */
int	dirent_name_check(const struct msg_str *name);
/* 0, -ENOENT, -EIO, ERR_LOG_DAMAGED. */
int	dirent_get(struct table *t, ino_id dir, const struct msg_str *name,
	    struct entry *out);
/* The same for who is about to make the entry; also -ENOSPC when too many names of this
 * directory have its hash. */
int	dirent_room(struct table *t, ino_id dir, const struct msg_str *name,
	    struct entry *out);
/* 0 or -ENOMEM. */
int	dirent_put(struct table *t, ino_id dir, const struct msg_str *name,
	    ino_id ino, uint32_t type);
int	dirent_del(struct table *t, ino_id dir, const struct msg_str *name);

/* A walk over one directory in hash order. */
struct dirent_cursor {
	uint8_t	 key[KEY_LEN_MAX];
	size_t	 len;
	bool	 after;
};
/* From the first entry whose hash is over @hash (0: all). */
void	dirent_start(struct dirent_cursor *c, ino_id dir, uint64_t hash);
/* Next entry; its name is in the cursor until the next call.
 * 0, -ENOENT at the end, -EIO, ERR_LOG_DAMAGED. */
int	dirent_next(struct table *t, struct dirent_cursor *c, struct entry *out,
	    struct msg_str *name, uint64_t *hash);

/* Row alone, for tools: 0 or ERR_LOG_DAMAGED. */
int	dirent_decode(struct entry *out, const void *row, size_t len);

#endif
