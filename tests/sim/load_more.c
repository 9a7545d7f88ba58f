/* SPDX-License-Identifier: MIT */
/* load_more.c - more actors, each with an oracle of its own:
 *
 *   orphan   writes a file, takes its name away (unlink, or a rename over it), goes on
 *	      writing and reading through the handle
 *   cutter   all clients write blocks of one file, fsync, truncate it, open it with O_TRUNC;
 *	      every block is a register in which a truncation writes zeros
 *   lister   a directory of some hundred names that stay, and some that come and go: a
 *	      listing shows each name that stays exactly once
 *   attrs    mode, times and hard links of a file against a model */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/load_more_impl.h"

static void act(struct more *a);

void
more_begin(struct more *a, void (*then)(struct more *), const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->doing, sizeof(a->doing), fmt, ap);
	va_end(ap);
	a->then = then;
	sim_trace(a->l->s, "more %u: %s", a->id, a->doing);
}

struct client *
more_client(const struct more *a)
{
	return sim_client(a->l->s, a->client);
}

void
more_op_done(struct client_op *op, int rc)
{
	struct more *a = container_of(op, struct more, op);

	a->rc = rc;
	sim_trace(a->l->s, "more %u: %s: %d", a->id, a->doing, rc);
	a->then(a);
}

void
more_io_done(struct client_io *io, int rc)
{
	struct more *a = container_of(io, struct more, io);

	a->rc = rc;
	sim_trace(a->l->s, "more %u: %s: %d", a->id, a->doing, rc);
	a->then(a);
}

static void
thought(struct clock_timer *t)
{
	struct more *a = container_of(t, struct more, think);

	if (!a->dead)
		act(a);
}

void
more_pause_ns(struct more *a, uint64_t max_ns)
{
	struct clock *c = sim_clock(a->l->s);

	clock_timer_start(c, &a->think, clock_now(c) + 
	    rand_below(&a->rand, sim_pace(a->l->s, max_ns)), thought);
}

void
more_must(struct more *a, int want)
{
	if (a->rc != want)
		sim_fail(a->l->s, "more %u: %s: %d, not %d", a->id, a->doing, a->rc, want);
}

void
more_next(struct more *a)
{
	more_must(a, 0);
	more_pause_ns(a, 30 * NS_PER_MS);
}

size_t
more_take(struct more *a)
{
	size_t at = 0;

	for (unsigned i = 0; i < a->io.iov_n; i++) {
		assert(at + a->io.iov[i].iov_len <= DATA_MAX);
		memcpy(a->data + at, a->io.iov[i].iov_base, a->io.iov[i].iov_len);
		at += a->io.iov[i].iov_len;
	}
	assert(at == a->io.done);
	client_read_done(more_client(a), &a->io);
	return at;
}

void
more_drop_files(struct more *a)
{
	if (a->file != NULL)
		client_release(a->file);
	if (a->other != NULL)
		client_release(a->other);
	a->file = a->other = NULL;
}

/* ---- all of them ---- */

static void
act(struct more *a)
{
	if (a->left == 0 && !(a->kind == ORPHAN && a->step > 0)) {
		more_drop_files(a);
		a->idle = true;
		return;
	}
	if (a->left > 0)
		a->left--;
	switch (a->kind) {
	case ORPHAN:
		more_orphan_act(a);
		break;
	case CUTTER:
		more_cut_act(a);
		break;
	case LISTER:
		more_lister_act(a);
		break;
	case ATTRS:
	case KINDS:
		more_attrs_act(a);
		break;
	}
}

struct more_load *
more_open(struct sim *s, unsigned ops)
{
	/* Two may cut where nothing is read ahead. */
	static const enum more_kind kinds[] = { ORPHAN, CUTTER, CUTTER, LISTER, ATTRS, ORPHAN,
		CUTTER };
	struct more_load *l = calloc(1, sizeof(*l));

	assert(l != NULL);
	l->s = s;
	l->n = sizeof(kinds) / sizeof(kinds[0]);
	l->actors = calloc(l->n, sizeof(*l->actors));
	assert(l->actors != NULL);
	for (unsigned i = 0; i < l->n; i++) {
		struct more *a = &l->actors[i];

		a->l = l;
		a->id = i;
		a->kind = kinds[i];
		if (a->kind == CUTTER && sim_conf(s)->client_read_ahead > 0)
			a->kind = ATTRS;
		a->client = i % SIM_CLIENTS;
		a->left = ops;
		rand_seed(&a->rand, rand_u64(sim_rand(s)));
		a->data = malloc(DATA_MAX);
		a->model = calloc(1, ORPHAN_MAX);
		assert(a->data != NULL && a->model != NULL);
		more_pause_ns(a, 50 * NS_PER_MS);
	}
	return l;
}

ino_id
more_cut_ino(const struct more_load *l)
{
	return l->cut_ino;
}

bool
more_done(const struct more_load *l)
{
	for (unsigned i = 0; i < l->n; i++)
		if (!l->actors[i].idle && !l->actors[i].dead)
			return false;
	return true;
}

void
more_client_died(struct more_load *l, unsigned client)
{
	for (unsigned i = 0; i < l->n; i++) {
		struct more *a = &l->actors[i];

		if (a->client != client)
			continue;
		if (a->kind == CUTTER && l->cut_ino == 0)
			l->cut_making = false;
		a->dead = true;
		a->file = a->other = NULL;
		clock_timer_stop(sim_clock(l->s), &a->think);
	}
}

void
more_close(struct more_load *l)
{
	if (l == NULL)
		return;
	for (unsigned i = 0; i < l->n; i++) {
		clock_timer_stop(sim_clock(l->s), &l->actors[i].think);
		free(l->actors[i].data);
		free(l->actors[i].model);
	}
	free(l->actors);
	free(l->writes);
	free(l);
}
