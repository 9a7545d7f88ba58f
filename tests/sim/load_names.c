/* SPDX-License-Identifier: MIT */
/* load_names.c - a directory of one actor alone against a model of it, and one that all
 * fight over. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tests/sim/load_impl.h"

static const struct client_cred root = { 0 };

static void
name_text(char out[16], unsigned i)
{
	snprintf(out, 16, "n%u", i);
}

/* What POSIX says the operation in flight returns, given the model. */
static int
name_expect(const struct actor *a)
{
	uint32_t ta = a->names[a->a].type, tb = a->names[a->b].type;

	switch (a->what) {
	case 0: case 1: case 2: case 3:		/* make */
		return ta != 0 ? -EEXIST : 0;
	case 4: case 5:				/* unlink */
		return ta == 0 ? -ENOENT : ta == S_IFDIR ? -EISDIR : 0;
	case 6:					/* rmdir */
		return ta == 0 ? -ENOENT : ta != S_IFDIR ? -ENOTDIR : 0;
	case 7: case 8:				/* rename a to b */
		if (ta == 0)
			return -ENOENT;
		if (a->a == a->b || tb == 0 || a->names[a->a].ino == a->names[a->b].ino)
			return 0;
		if (ta == S_IFDIR)
			return tb == S_IFDIR ? 0 : -ENOTDIR;
		return tb == S_IFDIR ? -EISDIR : 0;
	case 9:					/* link a to b */
		if (ta == 0)
			return -ENOENT;
		if (tb != 0)
			return -EEXIST;
		return ta == S_IFDIR ? -EPERM : 0;
	default:				/* lookup */
		return ta == 0 ? -ENOENT : 0;
	}
}

static void
name_apply(struct actor *a)
{
	switch (a->what) {
	case 0: case 1: case 2: case 3: {
		static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFDIR, S_IFLNK };

		a->names[a->a].type = types[a->what];
		a->names[a->a].ino = a->op.entry->attr.ino;
		break;
	}
	case 4: case 5: case 6:
		a->names[a->a].type = 0;
		break;
	case 7: case 8:
		if (a->a == a->b || (a->names[a->b].type != 0 &&
		    a->names[a->a].ino == a->names[a->b].ino))
			break;
		a->names[a->b] = a->names[a->a];
		a->names[a->a].type = 0;
		break;
	case 9:
		a->names[a->b] = a->names[a->a];
		break;
	default:
		if (a->op.entry->attr.ino != a->names[a->a].ino)
			sim_fail(a->l->s, "actor %u: lookup n%u: inode %" PRIu64
			    ", not %" PRIu64, a->id, a->a, a->op.entry->attr.ino,
			    a->names[a->a].ino);
		break;
	}
}

static void
name_done(struct actor *a)
{
	int want = name_expect(a);

	if (a->file != NULL) {
		client_release(a->file);
		a->file = NULL;
	}
	if (a->rc != want)
		sim_fail(a->l->s, "actor %u: operation %u on n%u, n%u: %d, not %d", a->id,
		    a->what, a->a, a->b, a->rc, want);
	if (a->rc == 0)
		name_apply(a);
	load_next(a);
}

/* Nobody else may still take that name for granted. */
static void
arena_removed(struct actor *a)
{
	const struct load *l = a->l;

	for (unsigned i = 0; i < l->n; i++) {
		const struct actor *b = &l->actors[i];

		if (b->kind == NAME && b->client != a->client && !b->dead &&
		    b->cached_until_ns[a->a] > sim_now(l->s))
			sim_fail(l->s, "actor %u removed n%u, but actor %u may cache it for "
			    "%" PRIu64 " ns more", a->id, a->a, b->id,
			    b->cached_until_ns[a->a] - sim_now(l->s));
	}
}

static void
arena_done(struct actor *a)
{
	struct load *l = a->l;

	if (a->what == 2) {
		/* One in fifty for clocks that differ. */
		a->cached_until_ns[a->a] = a->rc != 0 ? 0 : sim_now(l->s) +
		    a->op.ttl_ns - a->op.ttl_ns / 50;
		if (a->rc != 0 && a->rc != -ENOENT)
			sim_fail(l->s, "actor %u: arena lookup: %d", a->id, a->rc);
		load_next(a);
		return;
	}
	if (a->rc == 0 && a->what == 1)
		arena_removed(a);
	if (a->rc == 0)
		l->arena_made[a->a] += a->what == 0 ? 1 : -1;
	else if (a->rc != (a->what == 0 ? -EEXIST : -ENOENT))
		sim_fail(l->s, "actor %u: arena operation %u: %d", a->id, a->what, a->rc);
	l->arena_flying[a->a]--;
	load_next(a);
}

static void
arena_act(struct actor *a)
{
	struct client *c = load_client_of(a);
	char name[16];

	a->a = (unsigned)rand_below(&a->rand, ARENA_NAMES);
	a->what = (unsigned)rand_below(&a->rand, 3);
	name_text(name, a->a);
	load_begin(a, "arena op %u on %s", a->what, name);
	a->then = arena_done;
	if (a->what == 2) {
		client_lookup(c, &a->op, load_op_done, &root, a->arena, name);
		return;
	}
	a->l->arena_flying[a->a]++;
	if (a->what == 0)
		client_mkdir(c, &a->op, load_op_done, &root, a->arena, name, 0755);
	else
		client_rmdir(c, &a->op, load_op_done, &root, a->arena, name);
}

void
load_name_act(struct actor *a)
{
	struct client *c = load_client_of(a);
	char na[16], nb[16];

	if (rand_chance(&a->rand, 1, 3)) {
		arena_act(a);
		return;
	}
	a->a = (unsigned)rand_below(&a->rand, NAMES);
	a->b = (unsigned)rand_below(&a->rand, NAMES);
	a->what = (unsigned)rand_below(&a->rand, 12);
	/* A link needs an inode to start from. */
	if (a->what == 9 && a->names[a->a].type == 0)
		a->what = 10;
	name_text(na, a->a);
	name_text(nb, a->b);
	load_begin(a, "name op %u on %s, %s", a->what, na, nb);
	a->then = name_done;
	switch (a->what) {
	case 0:
		client_mknod(c, &a->op, load_op_done, &root, a->dir, na, S_IFREG | 0644, 0);
		return;
	case 1:
		client_file_create(c, &a->op, load_op_done, &root, a->dir, na, 0600,
		    O_RDWR | O_CREAT | O_EXCL, &a->file);
		return;
	case 2:
		client_mkdir(c, &a->op, load_op_done, &root, a->dir, na, 0755);
		return;
	case 3:
		client_symlink(c, &a->op, load_op_done, &root, a->dir, na, "somewhere/else");
		return;
	case 4: case 5:
		client_unlink(c, &a->op, load_op_done, &root, a->dir, na);
		return;
	case 6:
		client_rmdir(c, &a->op, load_op_done, &root, a->dir, na);
		return;
	case 7: case 8:
		client_rename(c, &a->op, load_op_done, &root, a->dir, na, a->dir, nb, 0);
		return;
	case 9:
		client_link(c, &a->op, load_op_done, &root, a->names[a->a].ino, a->dir, nb);
		return;
	default:
		client_lookup(c, &a->op, load_op_done, &root, a->dir, na);
		return;
	}
}
