/* SPDX-License-Identifier: MIT */
/* fs.h - the file system as a state machine over an ordered table.
 *
 * A change is a command: what the client asked, and what only the leader can know (the
 * time, the layout of a new file, what storage answered).  fs_apply() decodes it, checks
 * everything against the true state, and changes the table.  It uses the command and the
 * table and nothing else, so that replay gives the same bytes.  Reads are functions of
 * the table.  Keys and rows: key.h, inode.h, dirent.h, once.h, gc.h.
 *
 * Command, little-endian:
 *   off size field
 *     0    1 format         1
 *     1    1 kind           enum fs_kind
 *     2    2 method         FS_MESSAGE: id of the call
 *     4    1 flags          FS_*
 *     5    1 chunk_shift    layout of a regular file that may be made: log2 of its
 *     6    2 zero           chunk size, and
 *     8    8 wall           ns since 1970
 *    16    4 table          the chain table,
 *    20    4 table_version  its version,
 *    24    4 stripe         and how many of its chains; the seed is the inode
 *    28    4 last_epoch     FS_LAST: epoch in which storage was asked for the end of
 *    32    8 last_end       the file, and its answer
 *    40      body           FS_MESSAGE: the request, encoded
 *                           FS_GC_DONE: rows of ino u64, kind u8 (gc_kind), epoch u32
 *                           FS_CLIENT_END: client, 16 bytes
 *                           FS_HOLDER: client, 16 bytes; ttl_ms u32
 *                           FS_REPAIRED: fs_repair.c
 *
 * Result, little-endian:
 *     0    4 rc
 *     4    1 effects        FS_TRUNCATES, FS_REMOVES, FS_MORE
 *     5    8 ino            inode the first two are about
 *    13      reply          encoded, when rc is 0
 *
 * State rows: 'S' 'c': format u8 (1), next inode u64, inodes u64.
 *             'S' 'h': format u8 (1), client 16 bytes, ttl_ms u32.
 *             'S' 'r': format u8 (1), repairs of 'S' 'c' u64. */
#ifndef META_FS_H
#define META_FS_H

#include <stdbool.h>

#include "conf/log.h"
#include "conf/table.h"
#include "meta/gc.h"
#include "meta/inode.h"
#include "net/msg_meta.h"

struct fs;

enum fs_kind {
	FS_MESSAGE = 1,		/* a client's request */
	FS_INIT = 2,		/* make the root, if there is none */
	FS_GC_DONE = 3,		/* storage has done, or begins, what gc rows said */
	FS_CLIENT_END = 4,	/* drop the records of a client that has gone */
	FS_HOLDER = 5,		/* who may cache; zero: nobody */
	FS_REPAIRED = 6		/* rows as the leader has worked them out (fs_repair.c) */
};
/* What the leader vouches for. */
enum {
	FS_HANDLE = 1,		/* setattr: the handle allows it; open: is open already */
	FS_LAYOUT = 2,		/* layout is set */
	FS_LAST = 4,		/* last_epoch and last_end are set */
	FS_UNSETTLED = 8	/* truncation: a writer may have chunks there that it has
				 * not reported yet, so cut whatever the size says */
};
#define FS_FLAGS	15u	/* all of them */

struct fs_cmd {
	uint8_t	      kind, flags;
	uint16_t      method;
	int64_t	      wall_ns;
	struct layout layout;
	uint32_t      last_epoch;
	uint64_t      last_end;
};

#define FS_HEAD_LEN	40u
#define FS_CMD_MAX	(48u << 10)	/* bytes of a command, any kind */
#define FS_GC_DONE_MAX	512u		/* rows in one command */
#define FS_RESULT_MAX	(8u << 10)
#define FS_CLIENT_DROP	512u		/* records dropped by one FS_CLIENT_END */

/* Command encoders: bytes written, or -EMSGSIZE. */
int	fs_cmd_message(const struct fs_cmd *cmd, const void *msg, void *out,
	    size_t cap);
int	fs_cmd_init(int64_t wall_ns, void *out, size_t cap);
int	fs_cmd_gc_done(int64_t wall_ns, const struct gc_row *rows, unsigned n,
	    void *out, size_t cap);
int	fs_cmd_client_end(const struct uid128 *client, void *out, size_t cap);
int	fs_cmd_holder(const struct uid128 *client, uint32_t ttl_ms, void *out,
	    size_t cap);

/* What a repair does to the table as it is, right after entry @base: a command that is to be
 * the next one.  Bytes written; -EPERM or -EINVAL as its answer; -ENOMEM, -EIO, -EMSGSIZE. */
int	fs_cmd_repair(struct fs *fs, const struct msg_repair *q, uint64_t base,
	    int64_t wall_ns, struct clock *clock, void *out, size_t cap);

enum {
	FS_TRUNCATES = 1,	/* answer when the truncation of ino has settled */
	FS_REMOVES = 2,		/* ino lost its last name: look at its gc row */
	FS_MORE = 4		/* FS_CLIENT_END: records are left, send it again */
};
struct fs_result {
	int	    rc;
	uint8_t	    effects;
	ino_id	    ino;
	const void *rep;	/* borrowed from the bytes */
	size_t	    rep_len;
};
/* 0 or ERR_BAD_MESSAGE. */
int	fs_result_decode(const void *bytes, size_t len, struct fs_result *out);
/* -EAGAIN as the rc of sync and close: nothing was done; storage has to be asked for the
 * end of the file first (or again: another truncation came), or a truncation to settle. */

/* @t is borrowed. 0 or -ENOMEM. */
int	fs_open(struct fs **out, struct table *t, const struct log *log);
void	fs_close(struct fs *fs);		/* NULL is fine */

/* The next command is entry @index of the log. */
void	fs_at(struct fs *fs, uint64_t index);
/* Apply one command; the bytes of result written, at most @cap (>= FS_RESULT_MAX). */
size_t	fs_apply(struct fs *fs, const void *cmd, size_t len, void *result,
	    size_t cap);
/* 0, or why the table failed inside of fs_apply(); ERR_DISK_NEWER: that was a command of a
 * newer release.  Its last change may be there in part then: nothing of it may be made
 * durable, and the owner must stop as if crashed. */
int	fs_failed(const struct fs *fs);
/* Commands since fs_open() that repeated an earlier one and got its answer. */
uint64_t fs_repeats(const struct fs *fs);

/* ---- reads; 0, -errno as the call, -EIO, ERR_LOG_DAMAGED ---- */
int	fs_inode(struct fs *fs, ino_id ino, struct inode *out);	/* -ENOENT */
int	fs_getattr(struct fs *fs, const struct msg_ino *q, struct msg_entry_rep *rep);
int	fs_lookup(struct fs *fs, const struct msg_lookup *q,
	    struct msg_entry_rep *rep);
/* What the reply points to is good until the next call on @fs. */
int	fs_readlink(struct fs *fs, const struct msg_ino *q,
	    struct msg_readlink_rep *rep);
int	fs_readdir(struct fs *fs, const struct msg_readdir *q,
	    struct msg_readdir_rep *rep);
/* May it be opened, and does that change nothing: 0; -EINPROGRESS: allowed, but needs a
 * command (O_TRUNC, or the first open for writing); or why not. */
int	fs_open_check(struct fs *fs, const struct msg_open *q, struct inode *out);
int	fs_inodes(struct fs *fs, uint64_t *count);
int	fs_holder(struct fs *fs, struct uid128 *client, uint32_t *ttl_ms);

#endif
