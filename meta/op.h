/* SPDX-License-Identifier: MIT */
/* op.h - what the namespace operations (op_*.c, length.c) share.  An operation reads and
 * checks first, then writes; so that an error leaves nothing half done. */
#ifndef META_OP_H
#define META_OP_H

#include "meta/dirent.h"
#include "meta/fs.h"
#include "meta/perm.h"

struct fs {
	struct table	 *table;
	const struct log *log;
	int		  failed;
	uint64_t	  index;	/* of the command being applied */
	uint64_t	  repeats;	/* see fs_repeats() */
	struct msg_arena  arena;	/* lists of the request being applied */
	/* what the reply of a read points to */
	struct msg_dirent *dirents;
	uint32_t	  dirents_cap;
	char		 *bytes;
	size_t		  bytes_cap;
};

/* One command on its way through apply. */
struct fs_op {
	struct table	     *t;
	const struct fs_cmd  *cmd;
	const struct msg_ctx *who;
	size_t		      room;	/* op_repair(): begin no repair over so many bytes
					 * that were changed; 0: no bound */
	int		      failed;	/* the table failed: see fs_failed() */
	uint8_t		      effects;
	ino_id		      ino;	/* that the effects are about */
	union {
		struct msg_entry_rep  entry;
		struct msg_unlink_rep unlink;
		struct msg_repair_rep repair;
	} rep;
	struct msg_repair_result results[META_REPAIRS_MAX];	/* of rep.repair */
};

typedef int op_fn(struct fs_op *o, const void *msg);
op_fn	op_setattr, op_create, op_open, op_sync, op_mkdir, op_mknod, op_symlink,
	op_link, op_unlink, op_rmdir, op_rename, op_repair;

/* ---- reads; a table that fails is noted in @o ----
 * Rows that do not fit together are no reason to stop: who runs into them is told
 * -EUCLEAN, nothing is changed, and fsd check mends them (op_repair.c). */
/* @rc again; what says that the table cannot be trusted is noted. */
int	op_note(struct fs_op *o, int rc);
int	op_inode(struct fs_op *o, ino_id ino, struct inode *out);
/* A directory that names are looked up in: -ENOENT, -ENOTDIR, -EACCES. */
int	op_dir(struct fs_op *o, ino_id ino, struct inode *out);
/* Name check, then the entry: -ENOENT ... */
int	op_entry(struct fs_op *o, const struct inode *dir,
	    const struct msg_str *name, struct entry *out);
/* The same for a name that may be made: -ENOENT is good, -ENOSPC is not. */
int	op_room(struct fs_op *o, const struct inode *dir,
	    const struct msg_str *name, struct entry *out);
/* The inode an entry leads to: -EUCLEAN when it is not there. */
int	op_target(struct fs_op *o, const struct entry *e, struct inode *out);
/* Nothing is in the directory: 0, -ENOTEMPTY. */
int	op_empty(struct fs_op *o, const struct inode *dir);

/* ---- writes; they cannot fail but for want of memory, noted in @o ---- */
void	op_put(struct fs_op *o, const struct inode *in);
void	op_link_name(struct fs_op *o, const struct inode *dir,
	    const struct msg_str *name, const struct inode *in);
void	op_unlink_name(struct fs_op *o, const struct inode *dir,
	    const struct msg_str *name);
/* The inode changed now: ctime, change. */
void	op_changed(struct fs_op *o, struct inode *in);
/* Entries of the directory changed now, their number by @entries. */
void	op_dir_changed(struct fs_op *o, struct inode *dir, int entries);
/* Can a name be taken out of @dir, which it leads to @in from? 0 or -EUCLEAN. */
int	op_can_lose(const struct inode *dir, const struct inode *in);
/* @in lost a name (nlink is lowered here, a directory goes at once): it is put, or
 * deleted, or left for gc. */
void	op_lost_name(struct fs_op *o, struct inode *in);
/* Reply with the inode as it is now. */
void	op_reply(struct fs_op *o, const struct inode *in);

/* ---- counters ---- */
struct op_counters {
	uint64_t next_ino, inodes;
};
/* 0, -EIO, ERR_LOG_DAMAGED; zeros before FS_INIT. */
int	op_counters_get(struct table *t, struct op_counters *out);
int	op_counters_put(struct table *t, const struct op_counters *c);
/* How often they were repaired. */
int	op_recounts_get(struct table *t, uint64_t *out);
int	op_recounts_put(struct table *t, uint64_t n);

/* ---- op_open.c: open an inode that is there, for op_create too ---- */
int	op_open_inode(struct fs_op *o, struct inode *in, uint32_t flags);

#endif
