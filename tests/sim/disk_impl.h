/* SPDX-License-Identifier: MIT */
/* disk_impl.h - what the files of tests/sim/disk share.
 *
 *   disk.c	directories and what is in them; how a process ends
 *   disk_reqs.c	requests: how long they take, what becomes of them
 *   disk_pages.c	the bytes of a file, with the versions that a crash may bring back */
#ifndef TESTS_SIM_DISK_IMPL_H
#define TESTS_SIM_DISK_IMPL_H

#include "conf/map.h"
#include "tests/sim/disk.h"

enum kind { FILE_DATA, FILE_BLOB, FILE_TABLE };

struct file {
	struct list	  node;		/* in dir->files */
	struct dir	 *dir;
	char		 *name;
	enum kind	  kind;
	uint64_t	  size;
	struct map	  pages;	/* number -> page; data */
	struct list	  dirty;
	struct req	 *syncing;	/* in flight */
	uint64_t	  sync_no;	/* syncs started so far */
	uint8_t		 *blob;
	struct sim_table *table;
};

struct dir {
	struct list node;		/* in box->dirs */
	char	   *path;
	struct list files;
	unsigned    sync_errors;	/* that the process has been told of */
	struct sim_disk_faults faults;
};

struct sim_box {
	struct rand	    *rand;
	struct sim_disk_conf conf;
	struct list	     dirs, handles;
	unsigned	     inflight, lies;
};

struct handle {				/* an open file */
	struct disk    disk;
	struct sim_box *box;		/* NULL: its process died */
	struct file    *file;
	struct clock   *clock;
	struct list	node;		/* in box->handles */
	struct list	reqs;
};

/* ---- disk.c ---- */
void	*sim_disk_must(void *p);	/* out of memory ends the process */

/* ---- disk_reqs.c ---- */
extern const struct disk_ops sim_reqs_ops;
/* Requests of this handle end here, done in part. */
void	sim_reqs_abandon(struct handle *h);

/* ---- disk_pages.c ---- */
/* Move bytes between a request and @f. */
void	sim_pages_read(struct file *f, struct disk_req *r);
/* Write all of it to @off, or (@torn) a part by chance. */
void	sim_pages_write(struct sim_box *b, struct file *f, const struct disk_req *r,
	    uint64_t off, bool torn);
/* Bytes that were discarded read as zeros, or as they were. */
void	sim_pages_discard(struct sim_box *b, struct file *f, const struct disk_req *r);
/* Turn some bit of those that @r reads. */
void	sim_pages_flip(struct sim_box *b, struct file *f, const struct disk_req *r);
/* Turn that one. False: it was never written. */
bool	sim_pages_turn(struct file *f, uint64_t off, unsigned bit);
/* The sync in flight has ended well. */
void	sim_pages_synced(struct file *f);
/* No sync is in flight any more. */
void	sim_pages_sync_gone(struct file *f);
/* The power fails: every sector becomes some version of it. */
void	sim_pages_tear(struct sim_box *b, struct file *f);
void	sim_pages_free(struct file *f);

#endif
