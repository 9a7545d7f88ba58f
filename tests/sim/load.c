/* SPDX-License-Identifier: MIT */
/* load.c - what clients do in a simulation, and what they must see.
 *
 * Three kinds of actors, each a loop of asynchronous operations with an oracle of its own:
 *
 *   shared   several clients write and read 4 KiB blocks of the same files directly; the
 *	      history of every block must be that of a linearizable register
 *   private  one file per actor, any offsets, buffered, truncates and fsync; reads must see
 *	      exactly what was written; what fsync acknowledged must survive the client
 *   names    one directory per actor with a model of it (every return code must match), and
 *	      one directory that all fight over (creates and removes must alternate)
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/sim/load_impl.h"

static const struct client_cred root = { 0 };

static void act(struct actor *a);

struct client *
load_client_of(struct actor *a)
{
	struct client *c = sim_client(a->l->s, a->client);

	assert(c != NULL);
	return c;
}

void
load_op_done(struct client_op *op, int rc)
{
	struct actor *a = container_of(op, struct actor, op);

	a->rc = rc;
	sim_trace(a->l->s, "actor %u: %s: %d", a->id, a->doing, rc);
	sim_plot_acked(a->l->s);
	a->then(a);
}

void
load_io_done(struct client_io *io, int rc)
{
	struct actor *a = container_of(io, struct actor, io);

	a->rc = rc;
	sim_trace(a->l->s, "actor %u: %s: %d", a->id, a->doing, rc);
	sim_plot_acked(a->l->s);
	a->then(a);
}

static void
thought(struct clock_timer *t)
{
	struct actor *a = container_of(t, struct actor, think);

	if (!a->dead)
		act(a);
}

bool
load_lost(struct actor *a)
{
	if (a->rc == 0)
		return false;
	if ((a->rc != -EIO && a->rc != -ESTALE) ||
	    sim_losses(a->l->s, a->client) == a->losses)
		sim_fail(a->l->s, "actor %u: %s: %d", a->id, a->doing, a->rc);
	a->told = true;
	return true;
}

bool
load_in_doubt(const struct actor *a)
{
	return sim_losses(a->l->s, a->client) != a->losses;
}

void
load_reopen(struct actor *a, ino_id ino, void (*then)(struct actor *))
{
	load_begin(a, "open again");
	if (a->file != NULL)
		client_release(a->file);
	a->file = NULL;
	a->losses = sim_losses(a->l->s, a->client);
	a->then = then;
	client_file_open(load_client_of(a), &a->op, load_op_done, &root, ino, O_RDWR,
	    &a->file);
}

/* Others see what was written once its writer has closed it. */
static void
finished(struct actor *a)
{
	if (a->kind == PRIVATE && (load_lost(a) || load_in_doubt(a))) {
		load_private_doubt(a);
		return;
	}
	(void)load_lost(a);
	client_release(a->file);
	a->file = NULL;
	a->idle = true;
}

void
load_begin(struct actor *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->doing, sizeof(a->doing), fmt, ap);
	va_end(ap);
	sim_trace(a->l->s, "actor %u: %s", a->id, a->doing);
}

void
load_next(struct actor *a)
{
	struct clock *c = sim_clock(a->l->s);
	uint64_t most_ns = a->kind == SHARED && a->l->span < SHARED_BLOCKS &&
	    !sim_plotted(a->l->s) ? 2 * NS_PER_MS : 20 * NS_PER_MS;

	clock_timer_start(c, &a->think, clock_now(c) + rand_below(&a->rand, 4) *
	    rand_below(&a->rand, sim_pace(a->l->s, most_ns)), thought);
}

size_t
load_take_read(struct actor *a)
{
	size_t at = 0;

	for (unsigned i = 0; i < a->io.iov_n; i++) {
		memcpy(a->data + at, a->io.iov[i].iov_base, a->io.iov[i].iov_len);
		at += a->io.iov[i].iov_len;
	}
	assert(at == a->io.done);
	client_read_done(load_client_of(a), &a->io);
	return at;
}

static void
act(struct actor *a)
{
	if (a->left == 0) {
		a->idle = a->file == NULL;
		if (a->file != NULL) {
			a->then = finished;
			client_flush(a->file, &a->op, load_op_done);
		}
		return;
	}
	a->left--;
	switch (a->kind) {
	case SHARED:
		load_shared_act(a);
		break;
	case PRIVATE:
		load_private_act(a);
		break;
	case NAME:
		load_name_act(a);
		break;
	}
}

/* ---- setting the stage, by one actor after the other ---- */

static void
made_dir(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "actor %u: mkdir: %d", a->id, a->rc);
	a->dir = a->op.entry->attr.ino;
	a->arena = a->l->arena;
	load_next(a);
}

static void
start_actors(struct load *l)
{
	l->started = true;
	for (unsigned i = 0; i < l->n; i++) {
		struct actor *a = &l->actors[i];
		struct client *c = sim_client(l->s, a->client);
		char name[24];

		if (a->dead)
			continue;
		snprintf(name, sizeof(name), "%c%u", "spn"[a->kind], a->id);
		a->losses = sim_losses(l->s, a->client);
		switch (a->kind) {
		case SHARED:
			a->target = i % SHARED_FILES;
			a->then = load_shared_opened;
			client_file_open(c, &a->op, load_op_done, &root,
			    l->shared_ino[a->target], O_RDWR, &a->file);
			break;
		case PRIVATE:
			a->then = load_private_opened;
			client_file_create(c, &a->op, load_op_done, &root, INO_ROOT, name,
			    0644, O_RDWR | O_CREAT, &a->file);
			break;
		case NAME:
			a->then = made_dir;
			client_mkdir(c, &a->op, load_op_done, &root, INO_ROOT, name, 0755);
			break;
		}
	}
}

static void stage(struct actor *a);

static void
staged_size(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "setting the size: %d", a->rc);
	a->a++;
	stage(a);
}

static void
staged_file(struct actor *a)
{
	struct msg_setattr set = { .valid = META_SET_SIZE,
		.size = SHARED_BLOCKS * BLOCK };

	if (a->rc != 0)
		sim_fail(a->l->s, "making a shared file: %d", a->rc);
	a->l->shared_ino[a->a] = a->op.entry->attr.ino;
	a->then = staged_size;
	client_setattr(load_client_of(a), &a->op, load_op_done, &root,
	    a->op.entry->attr.ino, &set);
}

static void
staged_arena(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "making the arena: %d", a->rc);
	a->l->arena = a->op.entry->attr.ino;
	start_actors(a->l);
}

static void
stage(struct actor *a)
{
	char name[16];

	if (a->a == SHARED_FILES) {
		a->then = staged_arena;
		client_mkdir(load_client_of(a), &a->op, load_op_done, &root, INO_ROOT, "arena",
		    0755);
		return;
	}
	snprintf(name, sizeof(name), "shared%u", a->a);
	a->then = staged_file;
	client_mknod(load_client_of(a), &a->op, load_op_done, &root, INO_ROOT, name,
	    S_IFREG | 0644, 0);
}

struct load *
load_open(struct sim *s, unsigned ops)
{
	struct load *l = calloc(1, sizeof(*l));
	/* What was read ahead may be a second old: no register then. */
	enum kind kinds[] = { sim_conf(s)->client_read_ahead > 0 ? PRIVATE : SHARED,
		PRIVATE, NAME };

	assert(l != NULL);
	l->s = s;
	l->n = SIM_CLIENTS * 3;
	l->span = rand_chance(sim_rand(s), 1, 2) ? SHARED_BLOCKS :
	    1 + (unsigned)rand_below(sim_rand(s), 20);
	l->actors = calloc(l->n, sizeof(*l->actors));
	assert(l->actors != NULL);
	for (unsigned i = 0; i < l->n; i++) {
		struct actor *a = &l->actors[i];

		a->l = l;
		a->id = i;
		a->client = i % SIM_CLIENTS;
		a->kind = kinds[i / SIM_CLIENTS];
		a->left = ops;
		rand_seed(&a->rand, rand_u64(sim_rand(s)));
		a->data = malloc(PRIVATE_MAX);
		if (a->kind == PRIVATE) {
			a->model = calloc(1, PRIVATE_MAX);
			a->durable = calloc(1, PRIVATE_MAX);
			a->maybe = calloc(1, PRIVATE_MAX);
		}
	}
	l->checker.l = l;
	l->checker.data = malloc(PRIVATE_MAX);
	stage(&l->checker);
	l->more = more_open(s, ops);
	return l;
}

bool
load_done(void *load)
{
	struct load *l = load;

	if (!l->started)
		return false;
	for (unsigned i = 0; i < l->n; i++)
		if (!l->actors[i].idle && !l->actors[i].dead)
			return false;
	return more_done(l->more);
}

struct more_load *
load_more(struct load *l)
{
	return l->more;
}

void
load_client_died(struct load *l, unsigned client)
{
	more_client_died(l->more, client);
	for (unsigned i = 0; i < l->n; i++) {
		struct actor *a = &l->actors[i];

		if (a->client != client)
			continue;
		a->dead = true;
		a->file = NULL;
		clock_timer_stop(sim_clock(l->s), &a->think);
	}
}

void
load_close(struct load *l)
{
	if (l == NULL)
		return;
	for (unsigned i = 0; i < l->n; i++) {
		struct actor *a = &l->actors[i];

		clock_timer_stop(sim_clock(l->s), &a->think);
		free(a->data);
		free(a->model);
		free(a->durable);
		free(a->maybe);
	}
	more_close(l->more);
	free(l->checker.data);
	free(l->actors);
	free(l->writes);
	free(l);
}
