/* SPDX-License-Identifier: MIT */
/* disk_io.h - between disk_dir.c (names) and the two ways to do I/O: disk_uring.c and
 * disk_threads.c.  Not for others. */
#ifndef CHUNK_DISK_IO_H
#define CHUNK_DISK_IO_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "conf/disk.h"
#include "net/loop.h"

#define DISK_IO_DEPTH	256u	/* requests at the kernel; more wait in a list */
#define DISK_IO_PATIENCE_NS (500 * NS_PER_MS)	/* of who closes with some under way */

struct disk_io;			/* the queue of one loop, shared by its disks */
struct disk_threads;

struct disk_file {
	struct disk	disk;
	struct disk_io *io;		/* a reference */
	int		fd;		/* owned */
	uint32_t	flying;		/* requests the kernel or a thread has */
	bool		closing;
};

/* What impl[] of a struct disk_req holds. */
enum { DISK_IO_FILE, DISK_IO_DONE, DISK_IO_PIECE, DISK_IO_INNER };

static inline struct disk_file *
disk_io_file_of(const struct disk_req *r)
{
	return (struct disk_file *)(uintptr_t)r->impl[DISK_IO_FILE];
}

/* The queue of @loop; made at the first call. 0 or -errno. */
int	disk_io_get(struct disk_io **out, struct loop *loop);
void	disk_io_put(struct disk_io *io);
/* A disk over @fd, which is owned from here on, also on failure. 0 or -ENOMEM. */
int	disk_io_open(struct disk_io *io, int fd, uint64_t size, struct disk **out);

/* Count @n more bytes of @r; true when it is whole. */
bool	disk_io_advance(struct disk_req *r, uint64_t n);

/* ---- disk_check.c ---- */

#define DISK_KNOWN_MAX	4u	/* names checked: the directory, data, index */

struct stat;
struct disk_check_job;
struct disk_known {
	char	name[32];	/* "": the directory itself, always the first */
	dev_t	dev, rdev;
	ino_t	ino;
};
struct disk_checker {
	struct disk_known known[DISK_KNOWN_MAX];
	unsigned	  n;
	struct disk_check_job *job;	/* NULL: none under way */
	struct disk_check *check;
	pthread_t	  thread;
};
/* This is what @name is now. More than DISK_KNOWN_MAX are not remembered. */
void	disk_checker_know(struct disk_checker *c, const char *name,
	    const struct stat *st);
/* As check and uncheck of struct disk_dir_ops. */
int	disk_checker_start(struct disk_checker *c, struct clock *clock,
	    const char *path, struct disk_check *check);
void	disk_checker_end(struct disk_checker *c);

/* ---- disk_threads.c ---- */

typedef void disk_threads_fn(void *ctx);
/* @wake runs on @clock when something has ended. */
int	disk_threads_open(struct disk_threads **out, struct clock *clock,
	    disk_threads_fn *wake, void *ctx);
/* Nothing may be in flight, but what was left: those threads go on by themselves. */
void	disk_threads_close(struct disk_threads *t);
/* Hand all of @reqs (by node) over; they come back with rc set, see reap. */
void	disk_threads_submit(struct disk_threads *t, struct list *reqs);
/* Append what has ended to @done. */
void	disk_threads_reap(struct disk_threads *t, struct list *done);
/* Take back what no thread has begun (appended to @done with -ECANCELED), and give the others
 * DISK_IO_PATIENCE_NS to end: then reap has them.  Returns how many were left: those belong to
 * their threads, which do not touch the request any more, but its bytes and its descriptor. */
unsigned disk_threads_cancel(struct disk_threads *t, struct disk_file *f,
	    struct list *done);

#endif
