/* SPDX-License-Identifier: MIT */
/* disk_uring.h - the real disks: files and devices through one io_uring per loop, or
 * through a few threads where io_uring is not to be had. */
#ifndef CHUNK_DISK_URING_H
#define CHUNK_DISK_URING_H

#include <stdbool.h>

#include "conf/disk.h"
#include "conf/log.h"
#include "net/loop.h"

/* Open the directory @path for use on @loop; with @create it and its parents are made
 * when missing.  Blocks: for start-up.
 *
 * Files are opened with O_DIRECT where the file system has it.  A name in it may be a
 * symbolic link to a block device: such a file has the size of the device, and is
 * "created" only while its first 64 KiB are zeros (-EEXIST otherwise).  A file has one
 * owner at a time: -EBUSY when another process holds it for longer than 5 s.
 *
 * Returns 0; -ENOENT, -ENOTDIR; -ENOMEM; -errno. */
int	disk_uring_open_dir(struct disk_dir **out, struct loop *loop,
	    const char *path, bool create);

/* Make the directory @path and what is missing above it, each new name durable; there already
 * is no error.  Blocks.  0, -ENAMETOOLONG, -errno. */
int	disk_uring_make_dir(const char *path);

/* Say on @log (borrowed for ever, NULL: nowhere) which way disks are reached, once a
 * process.  @threads_only: do not try io_uring.  Before the first directory is opened. */
void	disk_uring_setup(const struct log *log, bool threads_only);

#endif
