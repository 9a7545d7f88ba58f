/* SPDX-License-Identifier: MIT */
/* table_lmdb_file.c - a table's file is opened: a new one gets its name when it is whole, one
 * of another process is left alone, and of one that is too short is found out whether
 * anything that counts is gone.  Blocks. */
#include "conf/table_lmdb_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/err.h"
#include "conf/fault.h"

/* What LMDB says, in our terms. */
static int
translate(int rc)
{
	switch (rc) {
	case MDB_INVALID:
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INCOMPATIBLE:
		return ERR_DISK_DAMAGED;
	case MDB_VERSION_MISMATCH:
		return ERR_DISK_NEWER;
	default:
		return rc > 0 ? -rc : rc == 0 ? 0 : -EIO;
	}
}

int
table_lmdb_file_fill(MDB_env *env, int fd, off_t less)
{
	MDB_envinfo info;
	MDB_stat stat;
	struct stat st;
	off_t want;

	if (mdb_env_info(env, &info) != 0 || mdb_env_stat(env, &stat) != 0)
		return -EIO;
	want = (off_t)(info.me_last_pgno + 1) * stat.ms_psize;
	if (fstat(fd, &st) != 0)
		return -errno;
	if (st.st_size >= want)
		return 0;
	if (st.st_size < want - less && ftruncate(fd, want - less) != 0)
		return -errno;
	return 1;
}

/* Make the name of @path durable. */
static int
sync_parent(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash == NULL ? strdup(".") :
	    slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	int fd, rc = 0;

	if (dir == NULL)
		return -ENOMEM;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(dir);
	if (fd < 0)
		return -errno;
	if (fsync(fd) != 0)
		rc = -errno;
	close(fd);
	return rc;
}

/* Every entry can be reached, and its bytes are where they should be.  Keys and small
 * values lie in pages that LMDB checks on the way; a large value starts right behind the
 * 16-byte header of a page of its own, whose flags we look at. */
static int
check_all(MDB_cursor *cursor, size_t page)
{
	MDB_val k, v;
	uint16_t flags;
	int rc;

	while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
		if (v.mv_size == 0 || (uintptr_t)v.mv_data % page != 16)
			continue;
		memcpy(&flags, (const char *)v.mv_data - 6, sizeof(flags));
		if ((flags & 0x04) == 0)
			return ERR_DISK_DAMAGED;
	}
	return rc == MDB_NOTFOUND ? 0 : ERR_DISK_DAMAGED;
}

/* Make an empty table under another name, then rename: whatever has the right name is a
 * whole file. */
static int
make_file(const char *path)
{
	size_t n = strlen(path) + sizeof(".new");
	char *name = malloc(n);
	MDB_env *env = NULL;
	int rc, fd;

	if (name == NULL)
		return -ENOMEM;
	memcpy(name, path, n - sizeof(".new"));
	memcpy(name + n - sizeof(".new"), ".new", sizeof(".new"));
	unlink(name);			/* from a crash in here */
	if ((rc = mdb_env_create(&env)) == 0)
		rc = mdb_env_open(env, name, MDB_NOSUBDIR | MDB_NOLOCK, 0600);
	rc = translate(rc);
	if (rc == 0 && ((rc = mdb_env_get_fd(env, &fd)) != 0 || fsync(fd) != 0))
		rc = -EIO;
	mdb_env_close(env);
	if (rc == 0 && rename(name, path) != 0)
		rc = -errno;
	free(name);
	return rc == 0 ? sync_parent(path) : rc;
}

static int
open_file(struct table_lmdb_file *f, const char *path)
{
	struct stat st;
	int rc;

	f->fd = open(path, O_RDWR | O_CLOEXEC);
	if (f->fd < 0 && errno == ENOENT) {
		if ((rc = make_file(path)) != 0)
			return rc;
		f->fd = open(path, O_RDWR | O_CLOEXEC);
	}
	if (f->fd < 0)
		return -errno;
	if (flock(f->fd, LOCK_EX | LOCK_NB) != 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (fstat(f->fd, &st) != 0)
		return -errno;
	/* LMDB would take an empty file for a new one, and map a cut one. */
	return st.st_size < 2 * sysconf(_SC_PAGESIZE) ? ERR_DISK_DAMAGED : 0;
}

/* LMDB found what cannot be; without us it would end the process. */
static void
impossible(MDB_env *env, const char *what)
{
	(void)env;
	(void)what;
	fault_raise();
}

struct opening {
	struct table_lmdb_file *f;
	const char *path;
	uint64_t    max_bytes;
};

static int
open_guarded(void *arg)
{
	struct opening *o = arg;
	struct table_lmdb_file *f = o->f;
	const char *path = o->path;
	uint64_t max_bytes = o->max_bytes;
	/* Read transactions are not tied to a thread: a loop may be set up on one and
	 * run on another.  The file is far larger than memory and read at random. */
	unsigned flags = MDB_NOSUBDIR | MDB_NOTLS | MDB_NORDAHEAD;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	int rc, was_short;

	if ((rc = open_file(f, path)) != 0)
		return rc;
	if (max_bytes < 64 * page)
		max_bytes = 64 * page;
	if ((rc = mdb_env_create(&f->env)) != 0 ||
	    (rc = mdb_env_set_mapsize(f->env, max_bytes / page * page)) != 0 ||
	    (rc = mdb_env_set_maxreaders(f->env, 16)) != 0 ||
	    (rc = mdb_env_set_assert(f->env, impossible)) != 0 ||
	    (rc = mdb_env_open(f->env, path, flags, 0600)) != 0 ||
	    (rc = mdb_reader_check(f->env, NULL)) != 0)	/* slots of the dead */
		return translate(rc);
	/* Touching pages beyond the end of the file would kill us: first lengthen it,
	 * then see whether anything that counts was there.  Until that is known it stays
	 * a byte short, so that nobody takes what was lost for zeros. */
	if ((was_short = table_lmdb_file_fill(f->env, f->fd, 1)) < 0)
		return was_short;
	if ((rc = mdb_txn_begin(f->env, NULL, MDB_RDONLY, &f->read)) != 0 ||
	    (rc = mdb_dbi_open(f->read, NULL, 0, &f->dbi)) != 0 ||
	    (rc = mdb_cursor_open(f->read, f->dbi, &f->cursor)) != 0)
		return translate(rc);
	if (!was_short)
		return 0;
	if ((rc = check_all(f->cursor, page)) != 0)
		return rc;
	return (rc = table_lmdb_file_fill(f->env, f->fd, 0)) < 0 ? rc : 0;
}

int
table_lmdb_file_open(struct table_lmdb_file *f, const char *path, uint64_t max_bytes)
{
	struct opening o = { f, path, max_bytes };
	int rc;

	*f = (struct table_lmdb_file){ .fd = -1 };
	if ((rc = fault_init()) != 0)
		return rc;
	rc = fault_guard(open_guarded, &o);
	return rc == -EFAULT ? -EIO : rc;
}
