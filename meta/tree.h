/* SPDX-License-Identifier: MIT */
/* tree.h - does the whole tree hold together: for `fsd check` and the simulator.
 *
 * By number, as a failure says:
 *   1  rows parse, keys have their lengths, counters agree with what is there
 *   2  an entry's parent is a directory, its inode is there and of its type, its hash is
 *      that of its name, its name is legal
 *   3  nlink of an inode is the number of its entries; of a directory 2 and one per
 *      subdirectory; a directory has one entry, in the parent it names; its size is the
 *      number of its entries
 *   4  an inode without entries is a regular file with a remove row, or the root
 *   5  every directory reaches the root (no cycles)
 *   6  a symlink has a target of its size, nothing else has one
 *   7  gc rows: remove for inodes without entries, truncate for those whose epoch has not
 *      settled, and the other way round
 * Takes 40 bytes of memory for an inode. */
#ifndef META_TREE_H
#define META_TREE_H

#include <stdbool.h>

#include "conf/table.h"
#include "meta/inode.h"

/* 0; -EUCLEAN with the first fault as text in @why (always terminated); -ENOMEM, -EIO.
 * @t must not change meanwhile. */
int	tree_check(struct table *t, char *why, size_t cap);

struct tree_fault {
	const char *why;		/* a number and text */
	/* What mends it (META_REPAIR_NONE: nothing does), as the table is; several are in
	 * the order in which they have to be done. */
	struct msg_repair_row fix;
	/* The entry leads to a regular file without inode, which may have chunks; or the
	 * target of a symlink without inode would go. */
	bool	    may_have_data;
};
typedef int tree_fault_fn(void *ctx, const struct tree_fault *f);
/* The same, but goes on: @report is told of every fault, all of it borrowed for the call; it
 * ends the check with what it returns when not 0.  0, also with faults; -ENOMEM, -EIO. */
int	tree_check_all(struct table *t, tree_fault_fn *report, void *ctx);
/* Every regular file in order of its inode, also those being removed: which chunks may
 * there be?  0, -EIO, or what @fn returned when not 0. */
int	tree_files(struct table *t, int (*fn)(void *ctx, const struct inode *in),
	    void *ctx);

#endif
