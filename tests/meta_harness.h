/* SPDX-License-Identifier: MIT */
/* meta_harness.h - a file-system state machine over a simulated table, for the tests of
 * meta/: commands in, results out, without a group, a role or a network. */
#ifndef TESTS_META_HARNESS_H
#define TESTS_META_HARNESS_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "conf/err.h"
#include "meta/fs.h"
#include "meta/key.h"
#include "meta/tree.h"
#include "net/msg_all.h"
#include "tests/sim/clock.h"
#include "tests/sim/table.h"

struct harness {
	struct sim_clock *world;
	struct clock	 *clock;
	struct rand	  rand;
	struct sim_table_conf tc;
	struct sim_table *disk;
	struct table	 *t;
	struct fs	 *fs;
	int64_t		  wall;
	struct fs_cmd	  cmd;		/* flags, layout, last_*: of the next ones */
	uint64_t	  seq;
	uint32_t	  uid, gid, groups[4], group_n;	/* who asks */
	uint8_t		  bytes[FS_CMD_MAX];		/* the last command */
	int		  len;
	uint8_t		  result[FS_RESULT_MAX];
	size_t		  result_len;
	struct fs_result  res;
	struct msg_arena  arena;
};

static inline void
h_mount(struct harness *h)
{
	struct table_store *store;

	ck_assert_int_eq(sim_table_store(h->disk, &store), 0);
	ck_assert_int_eq(table_open(&h->t, store, h->clock), 0);
	ck_assert_int_eq(fs_open(&h->fs, h->t, NULL), 0);
}

static inline void
h_apply(struct harness *h)
{
	ck_assert_int_gt(h->len, 0);
	h->result_len = fs_apply(h->fs, h->bytes, (size_t)h->len, h->result,
	    sizeof(h->result));
	ck_assert_int_eq(fs_failed(h->fs), 0);
	ck_assert_int_eq(fs_result_decode(h->result, h->result_len, &h->res), 0);
}

static inline void
h_open(struct harness *h, uint64_t seed)
{
	*h = (struct harness){ .wall = 1000, .cmd.kind = FS_MESSAGE };
	h->world = sim_clock_open();
	h->clock = sim_clock_node(h->world, 0, 0);
	rand_seed(&h->rand, seed);
	h->tc.write_min_ns = h->tc.write_max_ns = 1000;
	h->disk = sim_table_open(&h->rand, &h->tc);
	h_mount(h);
	msg_arena_init(&h->arena, 1 << 20);
	h->cmd.flags = FS_LAYOUT;
	h->cmd.layout = (struct layout){ .table = 1, .table_version = 1,
		.chunk_shift = 20, .stripe = 4 };
	h->len = fs_cmd_init(h->wall, h->bytes, sizeof(h->bytes));
	h_apply(h);
}

static inline void
h_umount(struct harness *h)
{
	fs_close(h->fs);
	table_close(h->t);
	h->fs = NULL;
	h->t = NULL;
}

static inline void
h_close(struct harness *h)
{
	h_umount(h);
	sim_table_close(h->disk);
	sim_clock_close(h->world);
	msg_arena_fini(&h->arena);
}

static inline struct msg_ctx
h_ctx(struct harness *h, bool change)
{
	struct msg_ctx c = { .client.b = { 7 }, .uid = h->uid, .gid = h->gid,
		.groups = { h->groups, h->group_n } };

	if (change) {
		c.seq = ++h->seq;
		c.done = c.seq - 1;
	}
	return c;
}

static inline void
h_who(struct harness *h, uint32_t uid, uint32_t gid)
{
	h->uid = uid;
	h->gid = gid;
	h->group_n = 0;
}

/* One change; the reply is decoded into @rep (NULL: not wanted). */
static inline int
h_change(struct harness *h, uint16_t method, const void *msg, void *rep)
{
	const struct msg_method *m = msg_method(method);

	h->wall += 10;
	h->cmd.method = method;
	h->cmd.wall_ns = h->wall;
	h->len = fs_cmd_message(&h->cmd, msg, h->bytes, sizeof(h->bytes));
	h_apply(h);
	if (h->res.rc == 0 && rep != NULL) {
		msg_arena_fini(&h->arena);
		ck_assert_int_eq(msg_decode(m->reply, h->res.rep, h->res.rep_len,
		    &h->arena, rep, NULL), 0);
	}
	return h->res.rc;
}

static inline struct msg_str
h_str(const char *s)
{
	return msg_str(s);
}

static inline int
h_create(struct harness *h, ino_id dir, const char *name, uint32_t mode,
    uint32_t flags, struct msg_entry_rep *rep)
{
	struct msg_create q = { h_ctx(h, true), dir, h_str(name), mode, flags, 0 };

	return h_change(h, MSG_create, &q, rep);
}

static inline int
h_mkdir(struct harness *h, ino_id dir, const char *name, uint32_t mode,
    struct msg_entry_rep *rep)
{
	struct msg_mknod q = { h_ctx(h, true), dir, h_str(name), mode, 0 };

	return h_change(h, MSG_mkdir, &q, rep);
}

static inline int
h_mknod(struct harness *h, ino_id dir, const char *name, uint32_t mode,
    uint64_t rdev, struct msg_entry_rep *rep)
{
	struct msg_mknod q = { h_ctx(h, true), dir, h_str(name), mode, rdev };

	return h_change(h, MSG_mknod, &q, rep);
}

static inline int
h_symlink(struct harness *h, ino_id dir, const char *name, const char *target,
    struct msg_entry_rep *rep)
{
	struct msg_symlink q = { h_ctx(h, true), dir, h_str(name), h_str(target) };

	return h_change(h, MSG_symlink, &q, rep);
}

static inline int
h_link(struct harness *h, ino_id ino, ino_id dir, const char *name,
    struct msg_entry_rep *rep)
{
	struct msg_link q = { h_ctx(h, true), ino, dir, h_str(name) };

	return h_change(h, MSG_link, &q, rep);
}

static inline int
h_remove(struct harness *h, uint16_t method, ino_id dir, const char *name,
    struct msg_unlink_rep *rep)
{
	struct msg_name q = { h_ctx(h, true), dir, h_str(name) };

	return h_change(h, method, &q, rep);
}

static inline int
h_rename(struct harness *h, ino_id dir, const char *name, ino_id to,
    const char *to_name, uint32_t flags, struct msg_unlink_rep *rep)
{
	struct msg_rename q = { h_ctx(h, true), dir, h_str(name), to,
		h_str(to_name), flags };

	return h_change(h, MSG_rename, &q, rep);
}

static inline int
h_open_file(struct harness *h, ino_id ino, uint32_t flags,
    struct msg_entry_rep *rep)
{
	struct msg_open q = { h_ctx(h, true), ino, flags, 1 };

	return h_change(h, MSG_open, &q, rep);
}

static inline int
h_sync(struct harness *h, ino_id ino, uint64_t length, uint32_t epoch,
    int64_t mtime, struct msg_entry_rep *rep)
{
	struct msg_sync q = { h_ctx(h, true), ino, 0, 1, length, epoch, mtime };

	return h_change(h, MSG_sync, &q, rep);
}

static inline int
h_setattr(struct harness *h, struct msg_setattr *q, struct msg_entry_rep *rep)
{
	q->ctx = h_ctx(h, true);
	return h_change(h, MSG_setattr, q, rep);
}

static inline int
h_truncate(struct harness *h, ino_id ino, uint64_t size,
    struct msg_entry_rep *rep)
{
	struct msg_setattr q = { .ino = ino, .valid = META_SET_SIZE,
		.size = size };

	return h_setattr(h, &q, rep);
}

static inline int
h_getattr(struct harness *h, ino_id ino, struct msg_entry_rep *rep)
{
	struct msg_ino q = { h_ctx(h, false), ino };

	return fs_getattr(h->fs, &q, rep);
}

static inline int
h_lookup(struct harness *h, ino_id dir, const char *name,
    struct msg_entry_rep *rep)
{
	struct msg_lookup q = { h_ctx(h, false), dir, h_str(name) };

	return fs_lookup(h->fs, &q, rep);
}

static inline void
h_gc_done(struct harness *h, ino_id ino, uint8_t kind, uint32_t epoch)
{
	struct gc_row row = { .ino = ino, .kind = kind, .epoch = epoch };

	h->len = fs_cmd_gc_done(h->wall, &row, 1, h->bytes, sizeof(h->bytes));
	h_apply(h);
	ck_assert_int_eq(h->res.rc, 0);
}

static inline void
h_check(struct harness *h)
{
	char why[256];
	int rc = tree_check(h->t, why, sizeof(why));

	ck_assert_msg(rc == 0, "tree: %d %s", rc, why);
}

/* Hash of all rows but the group's: equal tables have equal ones. */
static inline uint64_t
h_digest(struct harness *h)
{
	uint8_t key[TABLE_KEY_MAX] = { 1 };
	const void *k, *v;
	size_t n = 1, k_len, v_len;
	bool after = false;
	uint64_t sum = 14695981039346656037ull;

	while (table_seek(h->t, key, n, after, 0, &k, &k_len, &v, &v_len) == 0) {
		memcpy(key, k, k_len);
		n = k_len;
		after = true;
		for (size_t i = 0; i < k_len + v_len; i++) {
			const uint8_t *p = i < k_len ? k : v;

			sum = (sum ^ p[i < k_len ? i : i - k_len]) *
			    1099511628211ull;
		}
		sum = (sum ^ k_len) * 1099511628211ull;
	}
	return sum;
}

static inline uint64_t
h_seed(void)
{
	const char *s = getenv("SEED");

	return s != NULL && *s != '\0' ? strtoull(s, NULL, 0) : 0;
}

#endif
