/* SPDX-License-Identifier: MIT */
/* make.c - make a data disk.  The label is written last: until then it is not a disk, and
 * making it again goes on where a crash left off. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/index.h"
#include "chunk/label.h"
#include "conf/err.h"

struct make {
	struct disk	   *data;
	struct table	   *table;
	struct chunk_index  index;
	uint8_t		   *buf;	/* both labels */
	struct iovec	    iov;
	struct disk_req	    req;
	struct table_commit commit;
	bool		    done;
	int		    rc;
	void		  (*turn)(void *ctx);
	void		   *turn_ctx;
};

static void
io_done(struct disk_req *r)
{
	struct make *m = container_of(r, struct make, req);

	m->rc = r->rc;
	m->done = true;
}

static void
commit_done(struct table_commit *c)
{
	struct make *m = container_of(c, struct make, commit);

	m->rc = c->rc;
	m->done = true;
}

static int
wait(struct make *m)
{
	while (!m->done)
		m->turn(m->turn_ctx);
	return m->rc;
}

static int
io(struct make *m, enum disk_op op, uint64_t off, uint64_t len)
{
	m->done = false;
	m->iov = (struct iovec){ m->buf + off, len };
	m->req = (struct disk_req){ .op = op, .off = off, .len = len, .iov = &m->iov,
	    .iov_n = op == DISK_SYNC ? 0 : 1 };
	disk_start(m->data, &m->req, io_done);
	return wait(m);
}

/* Make "data", or take the one that an interrupted run left: all zeros where labels go. */
static int
open_data(struct make *m, struct disk_dir *dir, uint64_t bytes)
{
	size_t labels = CHUNK_LABEL_COPIES * CHUNK_LABEL_BYTES;
	int rc = dir->ops->open(dir, "data", true, bytes, &m->data);

	if (rc == 0 && m->data->size < bytes)	/* a device has the size it has */
		return -ENOSPC;
	if (rc != -EEXIST)
		return rc;
	if ((rc = dir->ops->open(dir, "data", false, 0, &m->data)) != 0)
		return rc;
	if (m->data->size != bytes)
		return -EEXIST;
	if ((rc = io(m, DISK_READ, 0, labels)) != 0)
		return rc;
	for (size_t i = 0; i < labels; i++)
		if (m->buf[i] != 0)
			return -EEXIST;
	return 0;
}

static int
write_index(struct make *m, struct disk_dir *dir, struct clock *clock,
    const struct uid128 *disk_id)
{
	static const char kinds[] = { CHUNK_KEY_COMMITTED, CHUNK_KEY_PENDING };
	struct table_store *store;
	int rc;

	if ((rc = dir->ops->table(dir, "index", CHUNK_DISK_BYTES_MIN, &store)) != 0 ||
	    (rc = table_open(&m->table, store, clock)) != 0 ||
	    (rc = chunk_index_init(&m->index, m->table)) != 0)
		return rc;
	for (unsigned i = 0; i < sizeof(kinds); i++) {
		const void *k, *v;
		size_t kn, vn;

		rc = table_seek(m->table, &kinds[i], 1, false, 1, &k, &kn, &v, &vn);
		if (rc != -ENOENT)
			return rc == 0 ? -EEXIST : rc;
	}
	if ((rc = chunk_index_put_label(&m->index, disk_id)) != 0)
		return rc;
	m->done = false;
	table_commit(m->table, &m->commit, commit_done);
	return wait(m);
}

int
chunk_engine_format(struct disk_dir *dir, struct clock *clock,
    const struct uid128 *disk_id, uint64_t bytes, void (*turn)(void *ctx), void *turn_ctx)
{
	struct make m = { .turn = turn, .turn_ctx = turn_ctx };
	struct chunk_label l = { .disk_id = *disk_id, .epoch = 1 };
	int rc;

	bytes -= bytes % CHUNK_BLOCK;
	if (bytes < CHUNK_DISK_BYTES_MIN ||
	    bytes / CHUNK_BLOCK > CHUNK_DISK_BLOCKS_MAX || uid128_zero(disk_id))
		return -EINVAL;
	l.data_bytes = bytes;
	m.buf = aligned_alloc(DISK_ALIGN, CHUNK_LABEL_COPIES * CHUNK_LABEL_BYTES);
	if (m.buf == NULL)
		return -ENOMEM;
	if ((rc = open_data(&m, dir, bytes)) != 0 ||
	    (rc = write_index(&m, dir, clock, disk_id)) != 0)
		goto out;
	/* One copy at a time: a torn write may cost one of them, never both. */
	for (unsigned i = 0; i < CHUNK_LABEL_COPIES && rc == 0; i++) {
		chunk_label_encode(&l, m.buf + i * CHUNK_LABEL_BYTES);
		rc = io(&m, DISK_WRITE, i * CHUNK_LABEL_BYTES, CHUNK_LABEL_BYTES);
		if (rc == 0)
			rc = io(&m, DISK_SYNC, 0, 0);
	}
out:
	disk_close(m.data);		/* nothing is in flight: it has no memory of ours */
	if (m.table != NULL)
		table_close(m.table);
	chunk_index_fini(&m.index);
	free(m.buf);
	return rc;
}
