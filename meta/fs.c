/* SPDX-License-Identifier: MIT */
/* fs.c - commands in, table changes and results out.
 *
 *  1. The table changes in fs_apply() only, and by the command and the table alone.
 *  2. A request with a number is recorded with its result in the same apply; the same
 *     (client, seq) changes nothing again.  Not so -EAGAIN and ERR_NO_CHAINS: they say
 *     that the leader has to ask again with more in the command, and change nothing.
 *  3. Every inode has a row, every entry leads to an inode, nlink counts the entries, an
 *     inode without entries has a gc row (meta/tree.c checks all of it). */
#include "meta/fs.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "conf/bytes.h"
#include "conf/err.h"
#include "meta/fs_impl.h"
#include "meta/once.h"
#include "net/msg_all.h"

#define FORMAT		1u
#define RESULT_HEAD_LEN	13u
#define GC_DONE_LEN	13u
#define ARENA_MAX	(1u << 20)	/* lists of one request; FS_CMD_MAX bytes give less */

/* ---- commands: encode ---- */

void
fs_put_head(struct bytes_writer *w, const struct fs_cmd *c)
{
	bytes_put_u8(w, FORMAT);
	bytes_put_u8(w, c->kind);
	bytes_put_u16(w, c->method);
	bytes_put_u8(w, c->flags);
	bytes_put_u8(w, c->layout.chunk_shift);
	bytes_put_u16(w, 0);
	bytes_put_u64(w, (uint64_t)c->wall_ns);
	bytes_put_u32(w, c->layout.table);
	bytes_put_u32(w, c->layout.table_version);
	bytes_put_u32(w, c->layout.stripe);
	bytes_put_u32(w, c->last_epoch);
	bytes_put_u64(w, c->last_end);
}

static int
put_end(const struct bytes_writer *w)
{
	return w->failed ? -EMSGSIZE : (int)bytes_written(w);
}

int
fs_cmd_message(const struct fs_cmd *cmd, const void *msg, void *out, size_t cap)
{
	const struct msg_method *m = msg_method(cmd->method);
	struct bytes_writer w;
	int n;

	assert(m != NULL);
	assert(cmd->kind == FS_MESSAGE);
	bytes_writer_init(&w, out, cap);
	fs_put_head(&w, cmd);
	if (w.failed)
		return -EMSGSIZE;
	n = msg_encode(m->request, msg, w.p, (size_t)(w.end - w.p));
	return n < 0 ? n : (int)FS_HEAD_LEN + n;
}

int
fs_cmd_init(int64_t wall_ns, void *out, size_t cap)
{
	struct fs_cmd c = { .kind = FS_INIT, .wall_ns = wall_ns };
	struct bytes_writer w;

	bytes_writer_init(&w, out, cap);
	fs_put_head(&w, &c);
	return put_end(&w);
}

int
fs_cmd_gc_done(int64_t wall_ns, const struct gc_row *rows, unsigned n, void *out,
    size_t cap)
{
	struct fs_cmd c = { .kind = FS_GC_DONE, .wall_ns = wall_ns };
	struct bytes_writer w;

	assert(n <= FS_GC_DONE_MAX);
	bytes_writer_init(&w, out, cap);
	fs_put_head(&w, &c);
	for (unsigned i = 0; i < n; i++) {
		bytes_put_u64(&w, rows[i].ino);
		bytes_put_u8(&w, rows[i].kind);
		bytes_put_u32(&w, rows[i].epoch);
	}
	return put_end(&w);
}

int
fs_cmd_client_end(const struct uid128 *client, void *out, size_t cap)
{
	struct fs_cmd c = { .kind = FS_CLIENT_END };
	struct bytes_writer w;

	bytes_writer_init(&w, out, cap);
	fs_put_head(&w, &c);
	bytes_put_raw(&w, client->b, sizeof(client->b));
	return put_end(&w);
}

int
fs_cmd_holder(const struct uid128 *client, uint32_t ttl_ms, void *out, size_t cap)
{
	struct fs_cmd c = { .kind = FS_HOLDER };
	struct bytes_writer w;

	bytes_writer_init(&w, out, cap);
	fs_put_head(&w, &c);
	bytes_put_raw(&w, client->b, sizeof(client->b));
	bytes_put_u32(&w, ttl_ms);
	return put_end(&w);
}

/* ---- results ---- */

size_t
fs_put_result(void *out, size_t cap, int rc, const struct fs_op *o,
    const struct msg_type *rep_type)
{
	struct bytes_writer w;
	size_t n;

	bytes_writer_init(&w, out, cap);
	bytes_put_u32(&w, (uint32_t)rc);
	bytes_put_u8(&w, rc == 0 && o != NULL ? o->effects : 0);
	bytes_put_u64(&w, rc == 0 && o != NULL ? o->ino : 0);
	assert(!w.failed);
	n = bytes_written(&w);
	if (rc == 0 && rep_type != NULL) {
		int len = msg_encode(rep_type, &o->rep, w.p, cap - n);

		assert(len >= 0);	/* replies are numbers: FS_RESULT_MAX holds */
		n += (size_t)len;
	}
	return n;
}

int
fs_result_decode(const void *bytes, size_t len, struct fs_result *out)
{
	struct bytes_reader r;

	bytes_reader_init(&r, bytes, len);
	out->rc = (int)bytes_get_u32(&r);
	out->effects = bytes_get_u8(&r);
	out->ino = bytes_get_u64(&r);
	out->rep_len = bytes_left(&r);
	out->rep = bytes_get_raw(&r, out->rep_len);
	return r.failed ? ERR_BAD_MESSAGE : 0;
}

/* ---- apply ---- */

static op_fn *
op_of(uint16_t method)
{
	switch (method) {
	case MSG_setattr:	return op_setattr;
	case MSG_create:	return op_create;
	case MSG_open:		return op_open;
	case MSG_close:
	case MSG_sync:		return op_sync;
	case MSG_mkdir:		return op_mkdir;
	case MSG_mknod:		return op_mknod;
	case MSG_symlink:	return op_symlink;
	case MSG_link:		return op_link;
	case MSG_unlink:	return op_unlink;
	case MSG_rmdir:		return op_rmdir;
	case MSG_rename:	return op_rename;
	case MSG_repair:	return op_repair;
	default:		return NULL;
	}
}

/* A leader of this release could have made it.  To pass over what it could not would leave
 * this member with a tree of its own. */
static bool
known(uint8_t format, const struct fs_cmd *c)
{
	return format == FORMAT && (c->flags & ~FS_FLAGS) == 0 &&
	    (c->kind == FS_MESSAGE ? op_of(c->method) != NULL :
	    c->kind >= FS_INIT && c->kind <= FS_REPAIRED);
}

static size_t
apply_message(struct fs *fs, const struct fs_cmd *c, const void *body, size_t len,
    void *result, size_t cap)
{
	const struct msg_method *m = msg_method(c->method);
	_Alignas(16) uint8_t msg[512];
	op_fn *op = op_of(c->method);
	struct fs_op o = { .t = fs->table, .cmd = c };
	const void *kept;
	uint64_t low = 0;
	size_t n;
	int rc;

	assert(m != NULL && op != NULL);	/* known() */
	assert(m->request->size <= sizeof(msg));
	rc = msg_decode(m->request, body, len, &fs->arena, msg, NULL);
	if (rc == -ENOMEM) {		/* the list bound is deterministic: a message is */
		fs->failed = rc;	/* far below it, so this is memory */
		return 0;
	}
	if (rc != 0)
		return fs_put_result(result, cap, ERR_BAD_MESSAGE, NULL, NULL);
	o.who = (const struct msg_ctx *)(const void *)msg;
	if (o.who->groups.n > META_GROUPS_MAX)
		return fs_put_result(result, cap, -EINVAL, NULL, NULL);
	if (o.who->seq != 0) {
		rc = once_get(fs->table, o.who, &low, &kept, &n);
		if (rc == 0) {
			assert(n <= cap);
			fs->repeats++;
			memcpy(result, kept, n);
			return n;
		}
		if (rc == -ECANCELED)
			return fs_put_result(result, cap, rc, NULL, NULL);
		if (rc != -ENOENT) {
			fs->failed = rc;
			return 0;
		}
	}
	rc = op(&o, msg);
	if (o.failed != 0) {
		fs->failed = o.failed;
		return 0;
	}
	n = fs_put_result(result, cap, rc, &o, m->reply);
	if (o.who->seq != 0 && rc != -EAGAIN && rc != ERR_NO_CHAINS)
		fs->failed = once_put(fs->table, o.who, low, result, n);
	return n;
}

static int
apply_init(struct fs *fs, const struct fs_cmd *c)
{
	struct inode root = {
		.ino = INO_ROOT, .mode = S_IFDIR | 0755, .nlink = 2,
		.atime = c->wall_ns, .mtime = c->wall_ns, .ctime = c->wall_ns,
		.btime = c->wall_ns, .change = 1, .parent = INO_ROOT,
	};
	struct op_counters n;
	struct inode there;
	int rc = inode_get(fs->table, INO_ROOT, &there);

	if (rc != -ENOENT)
		return rc;
	if ((rc = op_counters_get(fs->table, &n)) != 0 ||
	    (rc = inode_put(fs->table, &root)) != 0)
		return rc;
	if (n.next_ino <= INO_ROOT)	/* else the root was lost: nothing else was */
		n.next_ino = INO_ROOT + 1;
	n.inodes++;
	return op_counters_put(fs->table, &n);
}

/* The chunks of a file without a name are about to go. */
static int
gc_begun(struct fs *fs, ino_id ino, uint32_t epoch)
{
	struct gc_row row;
	int rc = gc_get(fs->table, ino, GC_REMOVE, &row);

	if (rc != 0)
		return rc == -ENOENT ? 0 : rc;
	if (row.epoch != epoch)
		return 0;
	row.at = 1;
	return gc_put(fs->table, &row);
}

/* One row of FS_GC_DONE; a row that has moved on is left alone. */
static int
gc_done(struct fs *fs, ino_id ino, uint8_t kind, uint32_t epoch,
    struct op_counters *count)
{
	struct gc_row row;
	struct inode in;
	int rc;

	if (kind == GC_BEGUN)
		return gc_begun(fs, ino, epoch);
	rc = gc_get(fs->table, ino, kind, &row);
	if (rc != 0)
		return rc == -ENOENT ? 0 : rc;
	if (row.epoch != epoch)
		return 0;
	if ((rc = inode_get(fs->table, ino, &in)) != 0)
		return rc == -ENOENT ? 0 : rc;	/* no inode: fsd check's business */
	if (kind == GC_TRUNCATE) {
		in.settled = epoch;
		if ((rc = gc_del(fs->table, ino, kind)) != 0)
			return rc;
		return inode_put(fs->table, &in);
	}
	if (in.nlink != 0)
		return 0;
	if ((rc = gc_del(fs->table, ino, GC_REMOVE)) != 0 ||
	    (inode_cutting(&in) &&
	    (rc = gc_del(fs->table, ino, GC_TRUNCATE)) != 0) ||
	    (rc = inode_del(fs->table, ino)) != 0)
		return rc;
	count->inodes--;
	return 0;
}

static int
apply_gc_done(struct fs *fs, struct bytes_reader *r)
{
	struct op_counters count, before;
	int rc = op_counters_get(fs->table, &count);

	before = count;
	while (rc == 0 && bytes_left(r) >= GC_DONE_LEN) {
		ino_id ino = bytes_get_u64(r);
		uint8_t kind = bytes_get_u8(r);
		uint32_t epoch = bytes_get_u32(r);

		rc = gc_done(fs, ino, kind, epoch, &count);
	}
	if (rc == 0 && count.inodes != before.inodes)
		rc = op_counters_put(fs->table, &count);
	return rc;
}

static int
apply_holder(struct fs *fs, struct bytes_reader *r)
{
	uint8_t k[KEY_STATE_LEN], row[21];
	const void *client = bytes_get_raw(r, sizeof(struct uid128));
	uint32_t ttl_ms = bytes_get_u32(r);
	struct bytes_writer w;

	if (r->failed)
		return 0;
	bytes_writer_init(&w, row, sizeof(row));
	bytes_put_u8(&w, FORMAT);
	bytes_put_raw(&w, client, sizeof(struct uid128));
	bytes_put_u32(&w, ttl_ms);
	return table_put(fs->table, k, key_state(k, 'h'), row, sizeof(row));
}

static int
apply_client_end(struct fs *fs, struct bytes_reader *r, bool *more)
{
	const void *p = bytes_get_raw(r, sizeof(struct uid128));
	struct uid128 client;

	if (p == NULL)
		return 0;
	memcpy(&client, p, sizeof(client));
	return once_drop(fs->table, &client, FS_CLIENT_DROP, more);
}

size_t
fs_apply(struct fs *fs, const void *cmd, size_t len, void *result, size_t cap)
{
	struct fs_op o = { 0 };
	struct bytes_reader r;
	struct fs_cmd c = { 0 };
	uint8_t format;
	bool more = false;
	size_t n = 0;
	int rc = 0;

	assert(cap >= FS_RESULT_MAX);
	if (fs->failed != 0)
		return 0;
	if (cap > FS_RESULT_MAX)
		cap = FS_RESULT_MAX;	/* so that a record holds it */
	bytes_reader_init(&r, cmd, len);
	format = bytes_get_u8(&r);
	c.kind = bytes_get_u8(&r);
	c.method = bytes_get_u16(&r);
	c.flags = bytes_get_u8(&r);
	c.layout.chunk_shift = bytes_get_u8(&r);
	bytes_get_u16(&r);
	c.wall_ns = (int64_t)bytes_get_u64(&r);
	c.layout.table = bytes_get_u32(&r);
	c.layout.table_version = bytes_get_u32(&r);
	c.layout.stripe = bytes_get_u32(&r);
	c.last_epoch = bytes_get_u32(&r);
	c.last_end = bytes_get_u64(&r);
	if (r.failed)
		return fs_put_result(result, cap, ERR_BAD_MESSAGE, NULL, NULL);
	if (!known(format, &c)) {
		log_error(fs->log, "command of a newer release: this one has to be "
		    "upgraded", "format=%u kind=%u method=%u flags=%u", format,
		    c.kind, c.method, c.flags);
		fs->failed = ERR_DISK_NEWER;
		return 0;
	}
	switch (c.kind) {
	case FS_MESSAGE:
		n = apply_message(fs, &c, r.p, bytes_left(&r), result, cap);
		msg_arena_fini(&fs->arena);
		break;
	case FS_INIT:
		rc = apply_init(fs, &c);
		break;
	case FS_GC_DONE:
		rc = apply_gc_done(fs, &r);
		break;
	case FS_CLIENT_END:
		rc = apply_client_end(fs, &r, &more);
		break;
	case FS_HOLDER:
		rc = apply_holder(fs, &r);
		break;
	case FS_REPAIRED:
		n = fs_apply_repaired(fs, &r, result, cap);
		break;
	}
	if (c.kind != FS_MESSAGE && c.kind != FS_REPAIRED) {
		fs->failed = rc;
		o.effects = more ? FS_MORE : 0;
		n = fs_put_result(result, cap, rc, &o, NULL);
	}
	if (fs->failed != 0) {
		log_error(fs->log, "table failed inside a change", "rc=%d reason=%s",
		    fs->failed, err_text(fs->failed));
		return 0;
	}
	return n;
}

/* ---- the handle ---- */

int
fs_open(struct fs **out, struct table *t, const struct log *log)
{
	struct fs *fs = calloc(1, sizeof(*fs));

	if (fs == NULL)
		return -ENOMEM;
	fs->table = t;
	fs->log = log;
	msg_arena_init(&fs->arena, ARENA_MAX);
	*out = fs;
	return 0;
}

void
fs_close(struct fs *fs)
{
	if (fs == NULL)
		return;
	msg_arena_fini(&fs->arena);
	free(fs->dirents);
	free(fs->bytes);
	free(fs);
}

void
fs_at(struct fs *fs, uint64_t index)
{
	fs->index = index;
}

uint64_t
fs_repeats(const struct fs *fs)
{
	return fs->repeats;
}

int
fs_failed(const struct fs *fs)
{
	return fs->failed;
}

int
fs_inodes(struct fs *fs, uint64_t *count)
{
	struct op_counters c;
	int rc = op_counters_get(fs->table, &c);

	*count = c.inodes;
	return rc;
}

int
fs_holder(struct fs *fs, struct uid128 *client, uint32_t *ttl_ms)
{
	uint8_t k[KEY_STATE_LEN];
	struct bytes_reader r;
	const void *row, *p;
	size_t len;
	int rc;

	*client = (struct uid128){ { 0 } };
	*ttl_ms = 0;
	rc = table_get(fs->table, k, key_state(k, 'h'), &row, &len);
	if (rc != 0)
		return rc == -ENOENT ? 0 : rc;
	bytes_reader_init(&r, row, len);
	if (bytes_get_u8(&r) != FORMAT ||
	    (p = bytes_get_raw(&r, sizeof(*client))) == NULL)
		return ERR_LOG_DAMAGED;
	memcpy(client, p, sizeof(*client));
	*ttl_ms = bytes_get_u32(&r);
	return r.failed ? ERR_LOG_DAMAGED : 0;
}
