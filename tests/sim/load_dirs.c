/* SPDX-License-Identifier: MIT */
/* load_dirs.c - a long directory that is listed, and what an inode says of itself. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/sim/load_more_impl.h"

static const struct client_cred root = { 0 };

/* ---- lister ---- */

static void
listed(struct more *a)
{
	const struct msg_readdir_rep *rep = a->op.readdir;

	more_must(a, 0);
	for (uint32_t i = 0; i < rep->entries.n; i++) {
		const struct msg_dirent *d = &rep->entries.v[i];
		char name[16] = { 0 };
		unsigned k;

		if (d->name.n >= sizeof(name))
			sim_fail(a->l->s, "more %u: a long name in the list", a->id);
		memcpy(name, d->name.p, d->name.n);
		a->cookie = d->cookie;
		if (sscanf(name, "stay%u", &k) == 1 && k < a->made && a->seen[k]++ != 0)
			sim_fail(a->l->s, "more %u: %s is listed twice", a->id, name);
	}
	a->pages++;
	if (!rep->eof) {
		/* Names come and go between two pages. */
		more_pause_ns(a, 10 * NS_PER_MS);
		return;
	}
	for (unsigned k = 0; k < a->made; k++)
		if (a->seen[k] != 1)
			sim_fail(a->l->s, "more %u: stay%u is listed %u times in %u pages",
			    a->id, k, a->seen[k], a->pages);
	memset(a->seen, 0, sizeof(a->seen));
	a->cookie = 0;
	a->pages = 0;
	more_pause_ns(a, 30 * NS_PER_MS);
}

static void
lister_made(struct more *a)
{
	more_must(a, 0);
	if (a->dir == 0)
		a->dir = a->op.entry->attr.ino;
	else
		a->made++;
	more_pause_ns(a, NS_PER_MS);
}

static void
churned(struct more *a)
{
	more_must(a, 0);
	a->there[a->churn] = !a->there[a->churn];
	more_pause_ns(a, 5 * NS_PER_MS);
}

void
more_lister_act(struct more *a)
{
	struct client *c = more_client(a);
	char name[16];

	if (a->dir == 0) {
		snprintf(name, sizeof(name), "list%u", a->id);
		more_begin(a, lister_made, "lister mkdir");
		client_mkdir(c, &a->op, more_op_done, &root, INO_ROOT, name, 0755);
		return;
	}
	/* No new names that stay in the middle of a listing. */
	if (a->cookie == 0 && a->made < STAY_MAX && (a->made < 20 ||
	    rand_chance(&a->rand, 4, 5))) {
		snprintf(name, sizeof(name), "stay%u", a->made);
		more_begin(a, lister_made, "lister makes %s", name);
		/* A command that takes more than one sector of the log. */
		if (a->made % 2 == 1) {
			memset(a->data, 'x', 3000);
			a->data[1 + rand_below(&a->rand, 2999)] = '\0';
			client_symlink(c, &a->op, more_op_done, &root, a->dir, name,
			    (const char *)a->data);
			return;
		}
		client_mknod(c, &a->op, more_op_done, &root, a->dir, name, S_IFREG | 0600, 0);
		return;
	}
	if (rand_chance(&a->rand, 1, 2)) {
		a->churn = (unsigned)rand_below(&a->rand, 8);
		snprintf(name, sizeof(name), "churn%u", a->churn);
		more_begin(a, churned, "lister %s %s", a->there[a->churn] ? "unlink" : "mknod",
		    name);
		if (a->there[a->churn])
			client_unlink(c, &a->op, more_op_done, &root, a->dir, name);
		else
			client_mknod(c, &a->op, more_op_done, &root, a->dir, name,
			    S_IFREG | 0600, 0);
		return;
	}
	more_begin(a, listed, "lister readdir %" PRIx64, a->cookie);
	client_readdir(c, &a->op, more_op_done, &root, a->dir, a->cookie,
	    256 + (uint32_t)rand_below(&a->rand, 4000), rand_chance(&a->rand, 1, 2));
}

/* ---- attrs ---- */

static void
attrs_same(struct more *a)
{
	const struct msg_attr *t;

	more_must(a, 0);
	t = &a->op.entry->attr;
	if ((t->mode & 07777) != a->mode || t->nlink != a->nlink ||
	    (a->mtime != 0 && t->mtime != a->mtime))
		sim_fail(a->l->s, "more %u: %s: mode %o links %u mtime %" PRId64 ", not %o %u %"
		    PRId64, a->id, a->doing, t->mode & 07777, t->nlink, t->mtime, a->mode,
		    a->nlink, a->mtime);
	more_pause_ns(a, 30 * NS_PER_MS);
}

static void
attrs_made(struct more *a)
{
	more_must(a, 0);
	a->ino = a->op.entry->attr.ino;
	a->mode = 0644;
	a->nlink = 1;
	more_pause_ns(a, 30 * NS_PER_MS);
}

static void
attrs_linked(struct more *a)
{
	more_must(a, 0);
	a->nlink += a->linked[a->link] ? -1u : 1u;
	a->linked[a->link] = !a->linked[a->link];
	more_pause_ns(a, 30 * NS_PER_MS);
}

void
more_attrs_act(struct more *a)
{
	struct msg_setattr set = { 0 };
	struct client *c = more_client(a);
	char name[24];

	if (a->ino == 0) {
		snprintf(name, sizeof(name), "a%u", a->id);
		more_begin(a, attrs_made, "attrs mknod");
		client_mknod(c, &a->op, more_op_done, &root, INO_ROOT, name, S_IFREG | 0644, 0);
		return;
	}
	switch (rand_below(&a->rand, 4)) {
	case 0:
		set.valid = META_SET_MODE;
		set.mode = a->mode = (uint32_t)rand_below(&a->rand, 01000);
		more_begin(a, attrs_same, "attrs chmod %o", a->mode);
		client_setattr(c, &a->op, more_op_done, &root, a->ino, &set);
		return;
	case 1:
		set.valid = META_SET_MTIME;
		set.mtime = a->mtime = 1 + (int64_t)rand_below(&a->rand, 1u << 30);
		more_begin(a, attrs_same, "attrs mtime %" PRId64, a->mtime);
		client_setattr(c, &a->op, more_op_done, &root, a->ino, &set);
		return;
	case 2:
		a->link = (unsigned)rand_below(&a->rand, LINKS);
		snprintf(name, sizeof(name), "a%u.%u", a->id, a->link);
		more_begin(a, attrs_linked, "attrs %s %s", a->linked[a->link] ? "unlink" : "link",
		    name);
		if (a->linked[a->link])
			client_unlink(c, &a->op, more_op_done, &root, INO_ROOT, name);
		else
			client_link(c, &a->op, more_op_done, &root, a->ino, INO_ROOT, name);
		return;
	default:
		more_begin(a, attrs_same, "attrs getattr");
		client_getattr(c, &a->op, more_op_done, &root, a->ino);
		return;
	}
}
