/* SPDX-License-Identifier: MIT */
/* meta_repair_rig.h - a small tree, rows that are planted in it, what the check of the tree
 * says mends them, and that done. */
#ifndef TESTS_META_REPAIR_RIG_H
#define TESTS_META_REPAIR_RIG_H

#include "meta/dirent.h"
#include "meta/op.h"
#include "tests/meta_harness.h"

#define FIXES_MAX	META_REPAIRS_MAX

static struct harness H, *h = &H;

/* What the tree check says. */
static struct {
	struct msg_repair_row fixes[FIXES_MAX];
	char	 names[FIXES_MAX][2][256];
	unsigned n, faults, unfixed;
	char	 text[4096];
} F;

static int
fault(void *ctx, const struct tree_fault *f)
{
	size_t n = strlen(F.text);

	(void)ctx;
	F.faults++;
	snprintf(F.text + n, sizeof(F.text) - n, "%s\n", f->why);
	if (f->fix.what == META_REPAIR_NONE) {
		F.unfixed++;
		return 0;
	}
	ck_assert_uint_lt(F.n, FIXES_MAX);
	F.fixes[F.n] = f->fix;
	if (f->fix.name.n > 0)
		memcpy(F.names[F.n][0], f->fix.name.p, f->fix.name.n);
	if (f->fix.keep.n > 0)
		memcpy(F.names[F.n][1], f->fix.keep.p, f->fix.keep.n);
	F.fixes[F.n].name.p = F.names[F.n][0];
	F.fixes[F.n].keep.p = F.names[F.n][1];
	F.n++;
	return 0;
}

static unsigned
look(void)
{
	memset(&F, 0, sizeof(F));
	ck_assert_int_eq(tree_check_all(h->t, fault, NULL), 0);
	return F.faults;
}

/* As the leader does: work it out, then apply what was worked out. */
static int
repair(struct msg_repair_row *rows, uint32_t n, struct msg_repair_rep *rep)
{
	static uint64_t index;
	struct msg_repair q = { .ctx = h_ctx(h, true), .rows = { rows, n } };

	h->wall += 10;
	h->len = fs_cmd_repair(h->fs, &q, index, h->wall, h->clock, h->bytes,
	    sizeof(h->bytes));
	if (h->len < 0)
		return h->len;
	fs_at(h->fs, ++index);
	h_apply(h);
	msg_arena_fini(&h->arena);
	if (h->res.rc == 0)
		ck_assert_int_eq(msg_decode(&msg_type_repair_rep, h->res.rep,
		    h->res.rep_len, &h->arena, rep, NULL), 0);
	return h->res.rc;
}

/* ---- the tree ----
 *	/f  /d/  /d/e/  /d/e/g  /l -> target  /h1 = /d/h2  /x/ */

static struct {
	ino_id f, d, e, g, l, h, x;
} I;

static void
setup(void)
{
	struct msg_entry_rep r;

	h_open(h, 3);
	h_create(h, INO_ROOT, "f", 0644, O_RDWR, &r), I.f = r.attr.ino;
	h_mkdir(h, INO_ROOT, "d", 0755, &r), I.d = r.attr.ino;
	h_mkdir(h, I.d, "e", 0755, &r), I.e = r.attr.ino;
	h_create(h, I.e, "g", 0600, O_RDWR, &r), I.g = r.attr.ino;
	h_symlink(h, INO_ROOT, "l", "target", &r), I.l = r.attr.ino;
	h_create(h, INO_ROOT, "h1", 0600, O_RDWR, &r), I.h = r.attr.ino;
	h_link(h, I.h, I.d, "h2", &r);
	h_mkdir(h, INO_ROOT, "x", 0755, &r), I.x = r.attr.ino;
	h_check(h);
}

static void
teardown(void)
{
	h_close(h);
}

/* ---- planting ---- */

static void
plant_entry(ino_id dir, const char *name, ino_id ino, uint32_t type)
{
	struct msg_str s = msg_str(name);

	ck_assert_int_eq(dirent_put(h->t, dir, &s, ino, type), 0);
}

static void
lose_entry(ino_id dir, const char *name)
{
	struct msg_str s = msg_str(name);

	ck_assert_int_eq(dirent_del(h->t, dir, &s), 0);
}

static void
plant_hash(ino_id dir, uint64_t hash, const char *name, ino_id ino, uint32_t type)
{
	uint8_t k[KEY_LEN_MAX], row[DIRENT_ROW_LEN] = { 1, (uint8_t)(type >> 12),
		(uint8_t)ino };

	table_put(h->t, k, key_dirent(k, dir, hash, name, strlen(name)), row,
	    sizeof(row));
}

#endif
