/* SPDX-License-Identifier: MIT */
/* disk_check.c - is a directory, and what was opened from it, still there under its name?
 * A file system that was unmounted, forced off or replaced goes on to live in the open
 * descriptors; only its names tell.
 *
 * Looking up a name may block for as long as a dying device likes, so a short-lived thread
 * does it.  Its answer is a block of its own, which outlives whoever asked:
 *
 *   LOOKING -> LOOKED: posted to the loop, which frees it there
 *         \--> LEFT: nobody waits, nor is there a loop for it; the thread frees it at its end */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "chunk/disk_io.h"

enum { LOOKING, LOOKED, LEFT };

struct disk_check_job {
	atomic_int	  state;	/* whoever comes second knows of the first */
	struct clock_post post;
	struct clock	 *clock;
	struct disk_checker *c;		/* NULL: nobody waits; free me */
	char		 *path;
	struct disk_known known[DISK_KNOWN_MAX];
	unsigned	  n;
	int		  rc;
	uint64_t	  free_bytes;
};

static bool
same(const struct disk_known *k, const struct stat *st)
{
	return k->dev == st->st_dev && k->ino == st->st_ino && k->rdev == st->st_rdev;
}

static int
look(struct disk_check_job *j)
{
	int fd = open(j->path, O_PATH | O_DIRECTORY | O_CLOEXEC), rc = 0;
	struct statvfs fs;
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) != 0)
		rc = -errno;
	else if (!same(&j->known[0], &st))
		rc = -ENODEV;
	for (unsigned i = 1; i < j->n && rc == 0; i++)
		if (fstatat(fd, j->known[i].name, &st, 0) != 0)
			rc = -errno;
		else if (!same(&j->known[i], &st))
			rc = -ENODEV;
	if (fstatvfs(fd, &fs) == 0)
		j->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	close(fd);
	return rc;
}

static void
job_free(struct disk_check_job *j)
{
	free(j->path);
	free(j);
}

/* On the owner's loop. */
static void
answered(struct clock_post *p)
{
	struct disk_check_job *j = container_of(p, struct disk_check_job, post);
	struct disk_checker *c = j->c;
	struct disk_check *check;
	uint64_t free_bytes = j->free_bytes;
	int rc = j->rc;

	if (c == NULL) {
		job_free(j);
		return;
	}
	pthread_join(c->thread, NULL);		/* it has nothing left to do */
	job_free(j);
	c->job = NULL;
	check = c->check;
	c->check = NULL;
	check->rc = rc;
	check->free_bytes = free_bytes;
	check->fn(check);
}

static void *
thread_main(void *arg)
{
	struct disk_check_job *j = arg;

	pthread_setname_np(pthread_self(), "disk check");
	j->rc = look(j);
	if (atomic_exchange(&j->state, LOOKED) == LEFT)
		job_free(j);
	else
		clock_post(j->clock, &j->post, answered);
	return NULL;
}

void
disk_checker_know(struct disk_checker *c, const char *name, const struct stat *st)
{
	struct disk_known *k = &c->known[c->n];

	for (unsigned i = 0; i < c->n; i++)
		if (strcmp(c->known[i].name, name) == 0)
			k = &c->known[i];
	if (k == &c->known[c->n]) {
		if (c->n == DISK_KNOWN_MAX || strlen(name) >= sizeof(k->name))
			return;
		c->n++;
	}
	strcpy(k->name, name);
	k->dev = st->st_dev;
	k->ino = st->st_ino;
	k->rdev = st->st_rdev;
}

int
disk_checker_start(struct disk_checker *c, struct clock *clock, const char *path,
    struct disk_check *check)
{
	struct disk_check_job *j;
	int rc;

	assert(c->job == NULL);
	assert(c->n > 0);			/* the directory itself */
	if ((j = calloc(1, sizeof(*j))) == NULL)
		return -ENOMEM;
	if ((j->path = strdup(path)) == NULL) {
		free(j);
		return -ENOMEM;
	}
	j->clock = clock;
	j->free_bytes = UINT64_MAX;
	j->c = c;
	j->n = c->n;
	memcpy(j->known, c->known, sizeof(j->known));
	c->job = j;
	c->check = check;
	if ((rc = -pthread_create(&c->thread, NULL, thread_main, j)) != 0) {
		c->job = NULL;
		c->check = NULL;
		job_free(j);
	}
	return rc;
}

void
disk_checker_end(struct disk_checker *c)
{
	struct disk_check_job *j = c->job;

	if (j == NULL)
		return;
	if (atomic_exchange(&j->state, LEFT) == LOOKING) {
		pthread_detach(c->thread);	/* it may hang; @j is its own now */
	} else {
		pthread_join(c->thread, NULL);	/* its post needs the loop */
		j->c = NULL;			/* frees itself on arrival */
	}
	c->job = NULL;
	c->check = NULL;
}
