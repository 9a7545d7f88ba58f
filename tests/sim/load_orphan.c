/* SPDX-License-Identifier: MIT */
/* load_orphan.c - a file that is written and read on after its name has gone. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/load_more_impl.h"

static const struct client_cred root = { 0 };

/* The file may be gone for real when our session was over meanwhile; an error is right then,
 * wrong bytes never are. */
static bool
orphan_lost(struct more *a)
{
	if (a->rc == 0)
		return false;
	if (sim_losses(a->l->s, a->client) == a->losses)
		sim_fail(a->l->s, "more %u: %s: %d, and no session was lost", a->id,
		    a->doing, a->rc);
	a->step = 9;
	more_pause_ns(a, 30 * NS_PER_MS);
	return true;
}

static void
orphan_wrote(struct more *a)
{
	if (orphan_lost(a))
		return;
	more_pause_ns(a, rand_chance(&a->rand, 1, 8) ? 3 * NS_PER_S : 30 * NS_PER_MS);
}

static void
orphan_write(struct more *a)
{
	bool direct = rand_chance(&a->rand, 1, 2);

	a->len = 1 + (uint32_t)rand_below(&a->rand, 40000);
	a->off = (uint32_t)rand_below(&a->rand, ORPHAN_MAX - a->len);
	for (uint32_t i = 0; i < a->len; i++)
		a->data[i] = (uint8_t)(1 + (a->round * 31 + i * 7 + (i >> 8)) % 255);
	memcpy(a->model + a->off, a->data, a->len);
	if (a->off + a->len > a->size)
		a->size = a->off + a->len;
	more_begin(a, orphan_wrote, "orphan %s %u+%u", direct ? "write" : "buffer", a->off,
	    a->len);
	client_write(a->file, &a->io, more_io_done, a->off, a->data, a->len, direct);
}

static void
orphan_was_read(struct more *a)
{
	size_t n;

	if (orphan_lost(a))
		return;
	n = more_take(a);
	if (sim_losses(a->l->s, a->client) != a->losses) {
		a->step = 9;		/* closing tells whether something is lost */
		more_pause_ns(a, 30 * NS_PER_MS);
		return;
	}
	if (n != a->size)
		sim_fail(a->l->s, "more %u: an open file without a name: %zu bytes of %u",
		    a->id, n, a->size);
	for (size_t i = 0; i < n; i++)
		if (a->data[i] != a->model[i])
			sim_fail(a->l->s, "more %u: an open file without a name: byte %zu "
			    "is %u, not %u", a->id, i, a->data[i], a->model[i]);
	more_pause_ns(a, 30 * NS_PER_MS);
}

static void
orphan_made(struct more *a)
{
	if (a->rc != 0)
		more_must(a, 0);
	a->losses = sim_losses(a->l->s, a->client);
	more_pause_ns(a, 30 * NS_PER_MS);
}

static void
orphan_ended(struct more *a)
{
	/* Write-back of what was lost fails, and is told of. */
	if (a->rc != 0 && sim_losses(a->l->s, a->client) == a->losses)
		more_must(a, 0);
	more_drop_files(a);
	a->step = 0;
	more_pause_ns(a, 30 * NS_PER_MS);
}

void
more_orphan_act(struct more *a)
{
	struct client *c = more_client(a);
	char name[32], other[32];

	snprintf(name, sizeof(name), "o%u.%u", a->id, a->round);
	snprintf(other, sizeof(other), "t%u.%u", a->id, a->round);
	switch (a->step++) {
	case 0:
		a->round++;
		snprintf(name, sizeof(name), "o%u.%u", a->id, a->round);
		a->size = 0;
		memset(a->model, 0, ORPHAN_MAX);
		more_begin(a, orphan_made, "orphan create %s", name);
		client_file_create(c, &a->op, more_op_done, &root, INO_ROOT, name, 0644,
		    O_RDWR | O_CREAT | O_EXCL, &a->file);
		return;
	case 1: case 4:
		orphan_write(a);
		return;
	case 2:
		if (!rand_chance(&a->rand, 1, 2)) {
			more_begin(a, more_next, "orphan unlink %s", name);
			client_unlink(c, &a->op, more_op_done, &root, INO_ROOT, name);
			a->step = 4;
			return;
		}
		more_begin(a, more_next, "orphan create %s", other);
		client_file_create(c, &a->op, more_op_done, &root, INO_ROOT, other, 0644,
		    O_RDWR | O_CREAT | O_EXCL, &a->other);
		return;
	case 3:
		more_begin(a, more_next, "orphan rename over %s", name);
		client_rename(c, &a->op, more_op_done, &root, INO_ROOT, other, INO_ROOT, name, 0);
		return;
	case 5: case 7:
		more_begin(a, orphan_was_read, "orphan read");
		client_read(a->file, &a->io, more_io_done, 0, DATA_MAX);
		return;
	case 6:
		orphan_write(a);
		return;
	default:
		more_begin(a, orphan_ended, "orphan close");
		client_flush(a->file, &a->op, more_op_done);
		return;
	}
}
