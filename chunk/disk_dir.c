/* SPDX-License-Identifier: MIT */
/* disk_dir.c - names on a real disk.  What is made gets its name last: it is written as
 * NAME.new, synced, renamed, and the directory synced, so that whatever has the right
 * name is whole. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "chunk/disk_io.h"
#include "chunk/disk_uring.h"
#include "conf/table_lmdb.h"

#define NAME_LEN	200u
#define BLANK_BYTES	(64u << 10)	/* of a device that may be taken */
#define BUSY_TRIES	500u		/* a dead owner's I/O may still hold its files */
#define BUSY_PAUSE_NS	(10 * 1000 * 1000)

struct dir {
	struct disk_dir	dir;
	struct disk_io *io;
	struct clock   *clock;
	struct disk_checker checker;
	int		fd;
	char		path[];
};

static struct dir *
of(struct disk_dir *d)
{
	return container_of(d, struct dir, dir);
}

/* O_DIRECT where the file system can. */
static int
open_at(int dir_fd, const char *name, int flags)
{
	int fd = openat(dir_fd, name, flags | O_RDWR | O_CLOEXEC | O_DIRECT, 0600);

	/* Linux has made the file by then (tmpfs before 6.6): not exclusively any more. */
	if (fd < 0 && errno == EINVAL) {
		if (flags & O_CREAT)
			flags &= ~O_EXCL;
		fd = openat(dir_fd, name, flags | O_RDWR | O_CLOEXEC, 0600);
	}
	return fd < 0 ? -errno : fd;
}

static int
take(int fd)
{
	static const struct timespec pause = { .tv_nsec = BUSY_PAUSE_NS };

	for (unsigned i = 0; i < BUSY_TRIES; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		nanosleep(&pause, NULL);
	}
	return -EBUSY;
}

/* Give NAME.new its name; it must not be taken. */
static int
name_it(int dir_fd, const char *temp, const char *name)
{
	if (renameat2(dir_fd, temp, dir_fd, name, RENAME_NOREPLACE) != 0) {
		/* Some file systems cannot say NOREPLACE; the caller looked. */
		if (errno != EINVAL || renameat(dir_fd, temp, dir_fd, name) != 0)
			return -errno;
	}
	return fsync(dir_fd) != 0 ? -errno : 0;
}

static int
make_file(struct dir *d, const char *name, uint64_t size)
{
	char temp[NAME_LEN + 8];
	int fd, rc;

	snprintf(temp, sizeof(temp), "%s.new", name);
	unlinkat(d->fd, temp, 0);		/* from a crash in here */
	if ((fd = open_at(d->fd, temp, O_CREAT | O_EXCL)) < 0)
		return fd;
	rc = fallocate(fd, 0, 0, (off_t)size) != 0 ? -errno : 0;
	if (rc == -EOPNOTSUPP)
		rc = ftruncate(fd, (off_t)size) != 0 ? -errno : 0;
	if (rc == 0 && fsync(fd) != 0)
		rc = -errno;
	if (rc == 0)
		rc = name_it(d->fd, temp, name);
	if (rc != 0) {
		unlinkat(d->fd, temp, 0);
		close(fd);
		return rc;
	}
	return fd;
}

/* A device is free to be taken while its beginning is zeros. 0 or -errno. */
static int
blank(int fd)
{
	uint8_t *p = aligned_alloc(DISK_ALIGN, BLANK_BYTES);
	ssize_t n;
	int rc = 0;

	if (p == NULL)
		return -ENOMEM;
	if ((n = pread(fd, p, BLANK_BYTES, 0)) < 0)
		rc = -errno;
	for (ssize_t i = 0; i < n && rc == 0; i++)
		if (p[i] != 0)
			rc = -EEXIST;
	free(p);
	return rc;
}

static int
open_file(struct disk_dir *dd, const char *name, bool create, uint64_t size,
    struct disk **out)
{
	struct dir *d = of(dd);
	struct stat st;
	bool there;
	int fd, rc = 0;

	*out = NULL;
	if (strlen(name) >= NAME_LEN)
		return -ENAMETOOLONG;
	there = fstatat(d->fd, name, &st, 0) == 0;
	if (!there && errno != ENOENT)
		return -errno;
	if (create && there && !S_ISBLK(st.st_mode))
		return -EEXIST;
	if (create && !there) {
		assert(size > 0 && size % DISK_ALIGN == 0);
		fd = make_file(d, name, size);
	} else
		fd = open_at(d->fd, name, there && S_ISBLK(st.st_mode) ? O_EXCL : 0);
	if (fd < 0)
		return fd;
	if ((rc = take(fd)) != 0 || fstat(fd, &st) != 0) {
		rc = rc != 0 ? rc : -errno;
		close(fd);
		return rc;
	}
	size = (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode)) {
		if (ioctl(fd, BLKGETSIZE64, &size) != 0)
			rc = -errno;
		else if (create)
			rc = blank(fd);
	} else if (!S_ISREG(st.st_mode))
		rc = -EINVAL;
	if (rc != 0) {
		close(fd);
		return rc;
	}
	disk_checker_know(&d->checker, name, &st);
	return disk_io_open(d->io, fd, size / DISK_ALIGN * DISK_ALIGN, out);
}

static int
open_table(struct disk_dir *dd, const char *name, uint64_t max_bytes,
    struct table_store **out)
{
	char path[PATH_MAX];
	struct stat st;
	int rc;

	*out = NULL;
	if (snprintf(path, sizeof(path), "%s/%s", of(dd)->path, name) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	rc = table_lmdb_open(out, path, max_bytes);
	if (rc == 0 && stat(path, &st) == 0)
		disk_checker_know(&of(dd)->checker, name, &st);
	return rc;
}

/* Read or write all of it. */
static int
whole(int fd, void *buf, size_t len, bool write_it)
{
	size_t at = 0;

	while (at < len) {
		ssize_t n = write_it ? write(fd, (char *)buf + at, len - at) :
		    read(fd, (char *)buf + at, len - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += (size_t)n;
	}
	return 0;
}

static int
write_blob(struct dir *d, const char *name, void *buf, size_t len)
{
	char temp[NAME_LEN + 8];
	int fd, rc;

	snprintf(temp, sizeof(temp), "%s.new", name);
	fd = openat(d->fd, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	rc = whole(fd, buf, len, true);
	if (rc == 0 && fsync(fd) != 0)
		rc = -errno;
	close(fd);
	if (rc == 0)
		rc = name_it(d->fd, temp, name);
	if (rc != 0)
		unlinkat(d->fd, temp, 0);
	return rc;
}

static int
blob(struct disk_dir *dd, const char *name, void *buf, size_t len, bool create)
{
	struct dir *d = of(dd);
	struct stat st;
	int fd, rc;

	if (strlen(name) >= NAME_LEN)
		return -ENAMETOOLONG;
	fd = openat(d->fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && create)
		return write_blob(d, name, buf, len);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) != 0 || (uint64_t)st.st_size != len)
		rc = -EIO;
	else
		rc = whole(fd, buf, len, false);
	close(fd);
	return rc == 0 ? 0 : -EIO;
}

static int
check(struct disk_dir *dd, struct disk_check *c)
{
	struct dir *d = of(dd);

	return disk_checker_start(&d->checker, d->clock, d->path, c);
}

static void
uncheck(struct disk_dir *dd)
{
	disk_checker_end(&of(dd)->checker);
}

static void
close_dir(struct disk_dir *dd)
{
	struct dir *d = of(dd);

	disk_io_put(d->io);
	close(d->fd);
	free(d);
}

static const struct disk_dir_ops ops = {
	.open = open_file, .table = open_table, .blob = blob, .check = check,
	.uncheck = uncheck, .close = close_dir
};

static int
sync_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd) != 0)
		rc = -errno;
	close(fd);
	return rc;
}

int
disk_uring_make_dir(const char *path)
{
	char up[PATH_MAX], *slash;
	size_t n = strlen(path);
	int rc;

	if (n + sizeof("/..") > sizeof(up))
		return -ENAMETOOLONG;
	if (mkdir(path, 0700) != 0) {
		if (errno == EEXIST)
			return 0;
		if (errno != ENOENT)
			return -errno;
		memcpy(up, path, n + 1);
		while (n > 1 && up[n - 1] == '/')
			up[--n] = '\0';
		if ((slash = strrchr(up, '/')) == NULL || slash == up)
			return -ENOENT;
		*slash = '\0';
		if ((rc = disk_uring_make_dir(up)) != 0)
			return rc;
		if (mkdir(path, 0700) != 0)
			return errno == EEXIST ? 0 : -errno;
	}
	snprintf(up, sizeof(up), "%s/..", path);
	return sync_dir(up);
}

int
disk_uring_open_dir(struct disk_dir **out, struct loop *loop, const char *path,
    bool create)
{
	struct stat st;
	struct dir *d;
	int rc;

	*out = NULL;
	if (create && (rc = disk_uring_make_dir(path)) != 0)
		return rc;
	if ((d = calloc(1, sizeof(*d) + strlen(path) + 1)) == NULL)
		return -ENOMEM;
	strcpy(d->path, path);
	d->dir.ops = &ops;
	d->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* A name that a killed process gave may be readable and not yet durable; what
	 * we are going to acknowledge lies behind it. */
	if (d->fd < 0 || fsync(d->fd) != 0 || fstat(d->fd, &st) != 0) {
		rc = -errno;
		if (d->fd >= 0)
			close(d->fd);
		free(d);
		return rc;
	}
	if ((rc = disk_io_get(&d->io, loop)) != 0) {
		close(d->fd);
		free(d);
		return rc;
	}
	d->clock = loop_clock(loop);
	disk_checker_know(&d->checker, "", &st);
	*out = &d->dir;
	return 0;
}
