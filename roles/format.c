/* SPDX-License-Identifier: MIT */
/* format.c - a loop of its own, for the time it takes to write a label. */
#include "roles/format.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "chunk/disk_uring.h"
#include "chunk/engine.h"
#include "conf/err.h"
#include "net/loop.h"

#define SIZE_MIN	(64ull << 20)

static void
turn(void *ctx)
{
	loop_turn(ctx, true);
}

static int
size_of(const char *path, const char *text, uint64_t *out, char err[CONF_ERR_MAX])
{
	struct conf scratch;
	struct statvfs fs;
	int rc;

	if (text == NULL) {
		if (statvfs(path, &fs) != 0) {
			rc = -errno;
			snprintf(err, CONF_ERR_MAX, "%s: %s", path, strerror(errno));
			return rc;
		}
		*out = (uint64_t)fs.f_bavail * fs.f_frsize / 10 * 9;
	} else {
		/* Sizes have one syntax: that of the options. */
		if ((rc = conf_init(&scratch)) != 0)
			return rc;
		if ((rc = conf_set(&scratch, "metadata.table_size", text, err)) != 0) {
			snprintf(err, CONF_ERR_MAX, "--size: '%s' is not a size", text);
			conf_fini(&scratch);
			return rc;
		}
		*out = scratch.metadata_table_size;
		conf_fini(&scratch);
	}
	*out &= ~0xfffffull;
	if (*out < SIZE_MIN) {
		snprintf(err, CONF_ERR_MAX, "%s: %" PRIu64 " bytes are too few for a data "
		    "disk; the least is %llu", path, *out, SIZE_MIN);
		return -ENOSPC;
	}
	return 0;
}

int
format_disk(const char *path, const char *size, char err[CONF_ERR_MAX])
{
	struct disk_dir *dir = NULL;
	struct loop *loop;
	struct uid128 id;
	uint64_t bytes;
	int rc;

	if (mkdir(path, 0700) != 0 && errno != EEXIST) {
		rc = -errno;
		snprintf(err, CONF_ERR_MAX, "%s: %s", path, strerror(errno));
		return rc;
	}
	if (sodium_init() < 0 || (rc = loop_open(&loop)) != 0) {
		snprintf(err, CONF_ERR_MAX, "cannot start");
		return -EIO;
	}
	randombytes_buf(&id, sizeof(id));
	if ((rc = disk_uring_open_dir(&dir, loop, path, true)) == 0 &&
	    (rc = size_of(path, size, &bytes, err)) == 0) {
		rc = chunk_engine_format(dir, loop_clock(loop), &id, bytes, turn, loop);
		if (rc != 0)
			snprintf(err, CONF_ERR_MAX, "%s: %s", path, rc == -EEXIST ?
			    "there is an fsd disk already" : rc == -EBUSY ?
			    "another fsd process uses this disk" : err_text(rc));
	} else if (dir == NULL)
		snprintf(err, CONF_ERR_MAX, "%s: %s", path, err_text(rc));
	if (dir != NULL)
		dir->ops->close(dir);
	loop_close(loop);
	return rc;
}
