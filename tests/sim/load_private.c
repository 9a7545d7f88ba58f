/* SPDX-License-Identifier: MIT */
/* load_private.c - a file of one actor alone: reads see exactly what was written, and what
 * fsync acknowledged outlives the session. */
#include <inttypes.h>
#include <string.h>

#include "tests/sim/load_impl.h"

static const struct client_cred root = { 0 };

static void
written(struct actor *a)
{
	if (load_lost(a))
		load_private_doubt(a);
	else
		load_next(a);
}

static void
synced(struct actor *a)
{
	if (load_lost(a)) {
		load_private_doubt(a);
		return;
	}
	if (load_in_doubt(a) && a->told) {
		load_private_doubt(a);
		return;
	}
	memcpy(a->durable, a->model, PRIVATE_MAX);
	a->durable_size = a->size;
	memset(a->maybe, 0, PRIVATE_MAX);
	a->size_maybe = false;
	load_next(a);
}

void
load_private_compare(struct actor *a, const uint8_t *got, size_t n)
{
	uint32_t want = a->off >= a->size ? 0 :
	    a->len < a->size - a->off ? a->len : a->size - a->off;

	if (n != want)
		sim_fail(a->l->s, "actor %u: read %u+%u of %u: %zu bytes", a->id, a->off,
		    a->len, a->size, n);
	for (size_t i = 0; i < n; i++)
		if (got[i] != a->model[a->off + i])
			sim_fail(a->l->s, "actor %u: read %u+%u of %u: byte %zu is %u, "
			    "not %u", a->id, a->off, a->len, a->size, a->off + i,
			    got[i], a->model[a->off + i]);
}

/* After a loss: nothing of what fsync had acknowledged is missing. */
void
load_private_survived(struct actor *p, const uint8_t *got, size_t n)
{
	struct load *l = p->l;

	if (!p->size_maybe && n != p->durable_size)
		sim_fail(l->s, "p%u: size %zu after a loss, fsync said %u", p->id, n,
		    p->durable_size);
	for (size_t i = 0; i < n && i < p->durable_size; i++)
		if (!p->maybe[i] && got[i] != p->durable[i])
			sim_fail(l->s, "p%u: byte %zu of what fsync acknowledged is wrong "
			    "after a loss", p->id, i);
}

static void
was_read(struct actor *a)
{
	size_t at;

	if (load_lost(a)) {
		load_private_doubt(a);
		return;
	}
	at = load_take_read(a);
	if (load_in_doubt(a)) {
		load_private_doubt(a);
		return;
	}
	load_private_compare(a, a->data, at);
	load_next(a);
}

static void
truncated(struct actor *a)
{
	if (load_lost(a) || load_in_doubt(a)) {
		load_private_doubt(a);
		return;
	}
	if (a->op.entry->attr.size != a->size)
		sim_fail(a->l->s, "actor %u: truncate to %u gave %" PRIu64, a->id,
		    a->size, a->op.entry->attr.size);
	load_next(a);
}

static void
sized(struct actor *a)
{
	if (load_lost(a) || load_in_doubt(a)) {
		load_private_doubt(a);
		return;
	}
	if (a->op.entry->attr.size != a->size)
		sim_fail(a->l->s, "actor %u: size %" PRIu64 ", not %u", a->id,
		    a->op.entry->attr.size, a->size);
	load_next(a);
}

static void closed(struct actor *a);

static void
truncate(struct actor *a)
{
	struct msg_setattr set = { .valid = META_SET_SIZE };
	uint32_t to = (uint32_t)rand_below(&a->rand, PRIVATE_MAX / 2);

	if (to < a->size) {
		memset(a->model + to, 0, a->size - to);
		memset(a->maybe + to, 1, a->size - to);
	}
	a->size = to;
	a->size_maybe = true;
	set.size = to;
	load_begin(a, "truncate %u", to);
	a->then = truncated;
	client_setattr(load_client_of(a), &a->op, load_op_done, &root, a->ino, &set);
}

void
load_private_act(struct actor *a)
{
	bool direct = rand_chance(&a->rand, 1, 6);

	switch (rand_below(&a->rand, 12)) {
	case 0:
		load_begin(a, "fsync");
		a->then = synced;
		client_fsync(a->file, &a->op, load_op_done);
		return;
	case 1:
		truncate(a);
		return;
	case 2:
		load_begin(a, "getattr");
		a->then = sized;
		client_getattr(load_client_of(a), &a->op, load_op_done, &root, a->ino);
		return;
	case 3:
		load_begin(a, "close");
		a->then = closed;
		client_flush(a->file, &a->op, load_op_done);
		return;
	case 4: case 5: case 6: case 7:
		a->off = (uint32_t)rand_below(&a->rand, PRIVATE_MAX);
		a->len = 1 + (uint32_t)rand_below(&a->rand, 70000);
		load_begin(a, "read %u+%u", a->off, a->len);
		a->then = was_read;
		client_read(a->file, &a->io, load_io_done, a->off, a->len);
		return;
	default:
		a->len = 1 + (uint32_t)rand_below(&a->rand,
		    rand_chance(&a->rand, 1, 3) ? 66000 : 3000);
		a->off = rand_chance(&a->rand, 1, 3) && a->size + a->len < PRIVATE_MAX ?
		    a->size : (uint32_t)rand_below(&a->rand, PRIVATE_MAX - a->len);
		for (uint32_t i = 0; i < a->len; i++)
			a->data[i] = (uint8_t)(a->fill + i * 7 + (i >> 8));
		a->fill += 13;
		memcpy(a->model + a->off, a->data, a->len);
		memset(a->maybe + a->off, 1, a->len);
		if (a->off + a->len > a->size) {
			a->size = a->off + a->len;
			a->size_maybe = true;
		}
		load_begin(a, "%s %u+%u", direct ? "write" : "buffer", a->off, a->len);
		a->then = written;
		client_write(a->file, &a->io, load_io_done, a->off, a->data, a->len, direct);
		return;
	}
}

void
load_private_opened(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "actor %u: open: %d", a->id, a->rc);
	if (a->op.entry->attr.size != a->size)
		sim_fail(a->l->s, "actor %u: open: size %" PRIu64 ", not %u", a->id,
		    a->op.entry->attr.size, a->size);
	a->ino = a->op.entry->attr.ino;
	load_next(a);
}

static void
closed(struct actor *a)
{
	if (load_lost(a) || load_in_doubt(a))
		load_private_doubt(a);
	else
		load_reopen(a, a->ino, load_private_opened);
}

static void
put_back_done(struct actor *a)
{
	if (load_lost(a) || load_in_doubt(a)) {
		a->told = true;
		load_private_doubt(a);
		return;
	}
	a->told = false;
	load_next(a);
}

static void
put_back_cut(struct actor *a)
{
	struct msg_setattr set = { .valid = META_SET_SIZE, .size = a->size };

	if (load_lost(a) || load_in_doubt(a)) {
		load_private_doubt(a);
		return;
	}
	load_begin(a, "cut to %u", a->size);
	a->then = put_back_done;
	client_setattr(load_client_of(a), &a->op, load_op_done, &root, a->ino, &set);
}

/* What had been sent may still arrive, long after its error.  Behind newer writes of the
 * same client it is not done any more. */
static void
put_back(struct actor *a)
{
	memset(a->maybe, 1, PRIVATE_MAX);
	a->size_maybe = true;
	load_begin(a, "put back %u", a->size);
	a->then = put_back_cut;
	client_write(a->file, &a->io, load_io_done, 0, a->model, PRIVATE_MAX, true);
}

/* The session has ended: what fsync had acknowledged is there, the rest may be.  When no
 * error has told of a loss, there was none. */
static void
doubt_read(struct actor *a)
{
	struct load *l = a->l;
	size_t at;

	if (load_lost(a) || load_in_doubt(a)) {
		if (a->rc == 0)
			client_read_done(load_client_of(a), &a->io);
		load_private_doubt(a);
		return;
	}
	at = load_take_read(a);
	if (!a->told) {
		a->off = 0;
		a->len = PRIVATE_MAX;
		load_private_compare(a, a->data, at);
	}
	load_private_survived(a, a->data, at);
	memset(a->data + at, 0, PRIVATE_MAX - at);
	if (a->size != at || memcmp(a->model, a->data, PRIVATE_MAX) != 0)
		sim_trace(l->s, "actor %u: goes on with what is left", a->id);
	a->size = (uint32_t)at;
	memcpy(a->model, a->data, PRIVATE_MAX);
	if (a->told)
		put_back(a);
	else
		load_next(a);
}

static void
doubt_opened(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "actor %u: opening again: %d", a->id, a->rc);
	load_begin(a, "read what is left");
	a->then = doubt_read;
	client_read(a->file, &a->io, load_io_done, 0, PRIVATE_MAX);
}

static void
doubt_closed(struct actor *a)
{
	(void)load_lost(a);
	load_reopen(a, a->ino, doubt_opened);
}

void
load_private_doubt(struct actor *a)
{
	load_begin(a, "close in doubt");
	a->then = doubt_closed;
	client_flush(a->file, &a->op, load_op_done);
}
