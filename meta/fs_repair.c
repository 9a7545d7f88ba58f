/* SPDX-License-Identifier: MIT */
/* fs_repair.c - a repair as a command: the rows that it writes, worked out by the leader.
 *
 * What mends a row that does not fit depends on many others, and on which of them can be read
 * at all.  If each member worked that out for itself, one whose disk has damaged a row would
 * write other rows than the rest.  So the leader does it (op_repair.c), over a shadow of its
 * table as it is right before the command, and all members write what they are told.
 *
 * Body of the command, little-endian:
 *   off size field
 *     0    8 base           entry that comes right before it: else nothing is done, -EAGAIN
 *     8   16 client         who asked,
 *    24    8 seq            under which number,
 *    32    8 done           and what of it was answered before
 *    40    4 result_len
 *    44      result         as fs.h says
 *            rows           key_len u16, value_len u32 (all ones: the row goes), key, value */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/err.h"
#include "meta/fs_impl.h"
#include "meta/once.h"
#include "meta/shadow.h"
#include "net/msg_all.h"

#define GONE		UINT32_MAX
#define ROOM		(20u << 10)	/* bytes of rows, before the last repair */

static int
put_rows(struct bytes_writer *w, const struct table_change *c, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bytes_put_u16(w, (uint16_t)c[i].key_len);
		bytes_put_u32(w, c[i].value == NULL ? GONE : c[i].value_len);
		bytes_put_raw(w, c[i].key, c[i].key_len);
		if (c[i].value != NULL)
			bytes_put_raw(w, c[i].value, c[i].value_len);
	}
	return w->failed ? -EMSGSIZE : 0;
}

/* Repair the shadow, and tell what came of it. */
static int
encode(struct shadow *s, const struct msg_repair *q, uint64_t base, int64_t wall_ns,
    struct bytes_writer *w)
{
	struct fs_cmd c = { .kind = FS_REPAIRED, .method = MSG_repair, .wall_ns = wall_ns };
	struct fs_op o = { .t = shadow_table(s), .cmd = &c, .who = &q->ctx, .room = ROOM };
	uint8_t result[FS_RESULT_MAX];
	const struct table_change *changes;
	size_t len, n;
	int rc = op_repair(&o, q);

	if (rc != 0 || o.failed != 0)
		return o.failed != 0 ? o.failed : rc;
	len = fs_put_result(result, sizeof(result), 0, &o, &msg_type_repair_rep);
	fs_put_head(w, &c);
	bytes_put_u64(w, base);
	bytes_put_raw(w, q->ctx.client.b, sizeof(q->ctx.client.b));
	bytes_put_u64(w, q->ctx.seq);
	bytes_put_u64(w, q->ctx.done);
	bytes_put_u32(w, (uint32_t)len);
	bytes_put_raw(w, result, len);
	changes = shadow_changes(s, &n);
	return put_rows(w, changes, n);
}

int
fs_cmd_repair(struct fs *fs, const struct msg_repair *q, uint64_t base, int64_t wall_ns,
    struct clock *clock, void *out, size_t cap)
{
	struct bytes_writer w;
	struct shadow *s;
	int rc = shadow_open(&s, fs->table, clock);

	if (rc != 0)
		return rc;
	bytes_writer_init(&w, out, cap);
	rc = encode(s, q, base, wall_ns, &w);
	shadow_close(s);
	return rc != 0 ? rc : (int)bytes_written(&w);
}

/* ---- apply ---- */

static int
take_rows(struct fs *fs, struct bytes_reader *r)
{
	while (bytes_left(r) > 0) {
		uint16_t key_len = bytes_get_u16(r);
		uint32_t len = bytes_get_u32(r);
		const uint8_t *key = bytes_get_raw(r, key_len), *value = NULL;
		int rc;

		if (len != GONE)
			value = bytes_get_raw(r, len);
		if (r->failed || key_len == 0 || key_len > TABLE_KEY_MAX || key[0] == 0 ||
		    (len != GONE && len > TABLE_VALUE_MAX))
			return ERR_LOG_DAMAGED;
		rc = len == GONE ? table_del(fs->table, key, key_len) :
		    table_put(fs->table, key, key_len, value, len);
		if (rc != 0)
			return rc;
	}
	return 0;
}

size_t
fs_apply_repaired(struct fs *fs, struct bytes_reader *r, void *result, size_t cap)
{
	struct msg_ctx who = { .uid = 0 };
	uint64_t base = bytes_get_u64(r), low = 0;
	const void *client = bytes_get_raw(r, sizeof(who.client.b)), *kept, *told;
	size_t n, told_n;
	int rc;

	if (client != NULL)
		memcpy(who.client.b, client, sizeof(who.client.b));
	who.seq = bytes_get_u64(r);
	who.done = bytes_get_u64(r);
	told_n = bytes_get_u32(r);
	told = bytes_get_raw(r, told_n);
	if (r->failed || told_n > cap || who.seq == 0)
		return fs_put_result(result, cap, ERR_BAD_MESSAGE, NULL, NULL);
	if (base + 1 != fs->index)
		return fs_put_result(result, cap, -EAGAIN, NULL, NULL);
	rc = once_get(fs->table, &who, &low, &kept, &n);
	if (rc == 0) {
		assert(n <= cap);
		fs->repeats++;
		memcpy(result, kept, n);
		return n;
	}
	if (rc == -ECANCELED)
		return fs_put_result(result, cap, rc, NULL, NULL);
	if (rc == -ENOENT)
		rc = take_rows(fs, r);
	if (rc == 0)
		rc = once_put(fs->table, &who, low, told, told_n);
	fs->failed = rc;
	if (rc != 0)
		return 0;
	memcpy(result, told, told_n);
	return told_n;
}
