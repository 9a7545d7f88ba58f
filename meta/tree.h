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
 * Takes memory by the number of inodes. */
#ifndef META_TREE_H
#define META_TREE_H

#include "conf/table.h"
#include "meta/inode.h"

/* 0; -EUCLEAN with the first fault as text in @why (always terminated); -ENOMEM, -EIO.
 * @t must not change meanwhile. */
int	tree_check(struct table *t, char *why, size_t cap);
/* The same, but goes on: @report is told of every fault. 0, also with faults; -ENOMEM,
 * -EIO. */
int	tree_check_all(struct table *t, void (*report)(void *ctx, const char *why),
	    void *ctx);
/* Every regular file in order of its inode, also those being removed: which chunks may
 * there be?  0, -EIO, or what @fn returned when not 0. */
int	tree_files(struct table *t, int (*fn)(void *ctx, const struct inode *in),
	    void *ctx);

#endif
