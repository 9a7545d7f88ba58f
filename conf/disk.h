/* SPDX-License-Identifier: MIT */
/* disk.h - one file or block device as asynchronous requests, and the directory
 * it is opened from: the seam between the engines and stable storage.
 * Real: chunk/disk_uring.c.  Simulated: tests/sim/disk.c, where a crash keeps a
 * random part of what was not synced, torn at 512 bytes. */
#ifndef CONF_DISK_H
#define CONF_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "conf/list.h"

#define DISK_ALIGN	4096u	/* offsets, lengths and addresses of all I/O */
#define DISK_IOV_MAX	64u	/* most pieces in one request */

enum disk_op {
	DISK_READ,
	DISK_WRITE,
	DISK_SYNC,	/* all writes that ended before it started are durable */
	DISK_DISCARD	/* bytes may be lost and the space given back */
};

struct disk;
struct disk_req;
typedef void disk_fn(struct disk_req *);

/* One operation, embedded by its owner until fn runs.  fn runs exactly once and
 * never before disk_start() has returned. */
struct disk_req {
	enum disk_op	    op;
	uint64_t	    off;	/* bytes, multiple of DISK_ALIGN */
	uint64_t	    len;	/* bytes, multiple of DISK_ALIGN */
	const struct iovec *iov;	/* borrowed until fn; READ and WRITE */
	unsigned	    iov_n;
	int		    rc;		/* 0 (whole length done) or -errno */
	disk_fn		   *fn;
	struct list	    node;	/* the implementation's */
	uint64_t	    impl[4];	/* the implementation's */
};

struct disk_ops {
	void (*start)(struct disk *, struct disk_req *);
	bool (*close)(struct disk *);
};

struct disk {
	const struct disk_ops *ops;
	uint64_t	       size;	/* bytes */
};

static inline void
disk_start(struct disk *d, struct disk_req *r, disk_fn *fn)
{
	r->fn = fn;
	d->ops->start(d, r);
}

/* Requests still in flight never call back after close, and are the owner's again; NULL is fine.
 * False: a dying device did not give back their bytes, and may read or write these for ever; they
 * must be left to it, and never be anybody else's. */
static inline bool
disk_close(struct disk *d)
{
	return d == NULL || d->ops->close(d);
}

/* A directory of files that belong to one role or one data disk; for use at
 * start-up only (these calls may block), but for check. */
struct disk_dir;
struct disk_check;

/* One look at whether a directory is still there; embedded by its owner. */
struct disk_check {
	int	rc;		/* 0; -ENODEV: other files have the names now; -errno */
	uint64_t free_bytes;	/* of its file system; UINT64_MAX: not known */
	void  (*fn)(struct disk_check *);
	void   *impl;
};
struct table_store;

struct disk_dir_ops {
	/* Open file @name.  With @create it is made, preallocated to @size bytes
	 * and its name made durable (-EEXIST if it is there); without, @size is
	 * ignored (-ENOENT if it is not there). */
	int (*open)(struct disk_dir *, const char *name, bool create,
	    uint64_t size, struct disk **out);
	/* Open or make the ordered table @name (conf/table.h) of at most
	 * @max_bytes. */
	int (*table)(struct disk_dir *, const char *name, uint64_t max_bytes,
	    struct table_store **out);
	/* Read the @len bytes of the small file @name; when it is not there and
	 * @create, make it durably from @buf instead.  0, -ENOENT, -EIO (also for
	 * another length). */
	int (*blob)(struct disk_dir *, const char *name, void *buf, size_t len,
	    bool create);
	/* See whether the directory and what was opened from it are still there
	 * under their names.  Does not block; one at a time.  0: fn runs once, later;
	 * else it does not. NULL: this directory cannot go away. */
	int (*check)(struct disk_dir *, struct disk_check *);
	/* Forget a check: its fn does not run any more. One that ended is fine. */
	void (*uncheck)(struct disk_dir *);
	/* All that was opened from it must be closed, and no check be under way.
	 * NULL is not fine. */
	void (*close)(struct disk_dir *);
};

struct disk_dir {
	const struct disk_dir_ops *ops;
};

#endif
