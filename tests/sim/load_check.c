/* SPDX-License-Identifier: MIT */
/* load_check.c - after healing client 0 reads back everything that the load has left. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "tests/sim/load_impl.h"

static const struct client_cred root = { 0 };

static void next(struct actor *a);

static void
private_read(struct actor *a)
{
	struct load *l = a->l;
	struct actor *p = &l->actors[l->check_at];
	size_t n;

	if (a->rc != 0)
		sim_fail(l->s, "reading back p%u: %d", p->id, a->rc);
	n = load_take_read(a);
	client_release(a->file);
	a->file = NULL;
	if (!p->dead) {
		p->off = 0;
		p->len = PRIVATE_MAX;
		load_private_compare(p, a->data, n);
	} else
		load_private_survived(p, a->data, n);
	l->check_at++;
	next(a);
}

static void
private_opened(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "opening p%u: %d", a->l->actors[a->l->check_at].id,
		    a->rc);
	a->then = private_read;
	client_read(a->file, &a->io, load_io_done, 0, PRIVATE_MAX);
}

static void
private_found(struct actor *a)
{
	struct actor *p = &a->l->actors[a->l->check_at];

	if (a->rc == -ENOENT && p->dead && p->ino == 0) {
		a->l->check_at++;
		next(a);
		return;
	}
	if (a->rc != 0)
		sim_fail(a->l->s, "looking up p%u: %d", p->id, a->rc);
	a->then = private_opened;
	client_file_open(load_client_of(a), &a->op, load_op_done, &root,
	    a->op.entry->attr.ino, O_RDONLY, &a->file);
}

/* A listing of a names actor's directory is its model. */
static void
names_listed(struct actor *a)
{
	struct load *l = a->l;
	struct actor *p = &l->actors[l->check_at];
	unsigned seen = 0, want = 0;

	if (a->rc != 0)
		sim_fail(l->s, "listing n%u: %d", p->id, a->rc);
	for (uint32_t i = 0; i < a->op.readdir->entries.n; i++) {
		const struct msg_dirent *d = &a->op.readdir->entries.v[i];
		unsigned k = d->name.n == 2 ? (unsigned)(d->name.p[1] - '0') : NAMES;

		if (k >= NAMES || p->names[k].type != d->type ||
		    p->names[k].ino != d->ino)
			sim_fail(l->s, "n%u: entry %.*s should not be there", p->id,
			    (int)d->name.n, d->name.p);
		seen++;
	}
	for (unsigned k = 0; k < NAMES; k++)
		want += p->names[k].type != 0;
	if (seen != want)
		sim_fail(l->s, "n%u: %u entries, not %u", p->id, seen, want);
	l->check_at++;
	next(a);
}

static void
arena_listed(struct actor *a)
{
	struct load *l = a->l;
	int there[ARENA_NAMES] = { 0 };

	if (a->rc != 0)
		sim_fail(l->s, "listing the arena: %d", a->rc);
	for (uint32_t i = 0; i < a->op.readdir->entries.n; i++)
		there[a->op.readdir->entries.v[i].name.p[1] - '0'] = 1;
	for (unsigned k = 0; k < ARENA_NAMES; k++)
		if (l->arena_flying[k] == 0 && there[k] != l->arena_made[k])
			sim_fail(l->s, "arena: n%u is there %d times, but %d more creates "
			    "than removes succeeded", k, there[k], l->arena_made[k]);
	l->checked = true;
}

static void
shared_read(struct actor *a)
{
	a->target = (unsigned)(a->l->check_at - a->l->n);
	a->l->check_at++;
	a->block = 0;
	a->blocks = SHARED_BLOCKS;
	if (a->rc != 0 || a->io.done != SHARED_BLOCKS * BLOCK)
		sim_fail(a->l->s, "reading back shared%u: %d", a->target, a->rc);
	(void)load_take_read(a);
	client_release(a->file);
	a->file = NULL;
	for (unsigned i = 0; i < SHARED_BLOCKS; i++)
		load_judge_block(a, a->target, i, a->data + i * BLOCK, a->begin_ns,
		    sim_now(a->l->s));
	next(a);
}

static void
shared_opened(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "opening a shared file: %d", a->rc);
	a->then = shared_read;
	a->begin_ns = sim_now(a->l->s);
	client_read(a->file, &a->io, load_io_done, 0, SHARED_BLOCKS * BLOCK);
}

static void
next(struct actor *a)
{
	struct load *l = a->l;
	struct client *c = load_client_of(a);
	char name[24];

	while (l->check_at < l->n) {
		struct actor *p = &l->actors[l->check_at];

		if (p->kind == PRIVATE) {
			snprintf(name, sizeof(name), "p%u", p->id);
			a->then = private_found;
			client_lookup(c, &a->op, load_op_done, &root, INO_ROOT, name);
			return;
		}
		if (p->kind == NAME && !p->dead) {
			a->then = names_listed;
			client_readdir(c, &a->op, load_op_done, &root, p->dir, 0,
			    65536, true);
			return;
		}
		l->check_at++;
	}
	if (l->check_at < l->n + SHARED_FILES) {
		a->then = shared_opened;
		client_file_open(c, &a->op, load_op_done, &root,
		    l->shared_ino[l->check_at - l->n], O_RDONLY, &a->file);
		return;
	}
	a->then = arena_listed;
	client_readdir(c, &a->op, load_op_done, &root, l->arena, 0, 65536, false);
}

void
load_check(struct load *l)
{
	next(&l->checker);
}

bool
load_checked(void *load)
{
	return ((struct load *)load)->checked;
}
