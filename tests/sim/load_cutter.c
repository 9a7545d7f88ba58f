/* SPDX-License-Identifier: MIT */
/* load_cutter.c - all clients write, truncate and read the same file: every block is a
 * register in which a truncation writes zeros. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/load_more_impl.h"

static const struct client_cred root = { 0 };

/* The operation has failed, and may have been done: open the file again. */
static bool
cut_lost(struct more *a)
{
	if (a->rc == 0)
		return false;
	if ((a->rc != -EIO && a->rc != -ESTALE) ||
	    sim_losses(a->l->s, a->client) == a->losses)
		more_must(a, 0);
	more_drop_files(a);
	more_pause_ns(a, 30 * NS_PER_MS);
	return true;
}

static struct cut_write *
cut_note(struct more_load *l, uint32_t block, bool zeros)
{
	if (l->write_n == l->write_cap) {
		l->write_cap = l->write_cap == 0 ? 1024 : 2 * l->write_cap;
		l->writes = realloc(l->writes, l->write_cap * sizeof(*l->writes));
		assert(l->writes != NULL);
	}
	l->writes[l->write_n] = (struct cut_write){ sim_now(l->s), UINT64_MAX, block, zeros };
	return &l->writes[l->write_n++];
}

static bool
touches(const struct cut_write *w, uint32_t block)
{
	return w->zeros ? w->block <= block : w->block == block;
}

/* When the last of the writes that had ended for certain before @from was begun: what ended
 * before that had been replaced.  0: there was none. */
static uint64_t
last_certain(const struct more_load *l, uint32_t block, uint64_t from)
{
	uint64_t last = 0;

	for (size_t i = 0; i < l->write_n; i++) {
		const struct cut_write *x = &l->writes[i];

		if (x->begin_ns > last && x->end_ns < from && touches(x, block))
			last = x->begin_ns;
	}
	return last;
}

static void
cut_judge(struct more *a, uint32_t block, const uint8_t *p)
{
	struct more_load *l = a->l;
	uint64_t stamp, s, last = last_certain(l, block, a->begin_ns);
	bool right;

	memcpy(&stamp, p, 8);
	for (unsigned i = 0; i < BLOCK; i += 8) {
		memcpy(&s, p + i, 8);
		if (s != stamp)
			sim_fail(l->s, "more %u: cut file, block %u: mixed content %" PRIu64
			    " and %" PRIu64 " at %u", a->id, block, stamp, s, i);
	}
	if (stamp > l->write_n || (stamp != 0 && (l->writes[stamp - 1].zeros ||
	    l->writes[stamp - 1].block != block)))
		sim_fail(l->s, "more %u: cut file, block %u: foreign stamp %" PRIu64, a->id,
		    block, stamp);
	if (stamp != 0) {
		if (l->writes[stamp - 1].end_ns < last)
			sim_fail(l->s, "more %u: cut file, block %u: %" PRIu64 " is back",
			    a->id, block, stamp);
		return;
	}
	right = last == 0;		/* the zeros of the beginning */
	for (size_t i = l->write_n; i-- > 0 && !right;)
		right = l->writes[i].zeros && touches(&l->writes[i], block) &&
		    l->writes[i].end_ns >= last;
	if (!right)
		sim_fail(l->s, "more %u: cut file, block %u: zeros at %" PRIu64
		    ", but something was acknowledged", a->id, block, a->begin_ns);
}

static void
cut_was_read(struct more *a)
{
	size_t n;

	if (cut_lost(a))
		return;
	n = more_take(a);
	memset(a->data + n, 0, DATA_MAX - n);
	for (unsigned i = 0; i < a->blocks; i++)
		cut_judge(a, a->block + i, a->data + i * BLOCK);
	more_pause_ns(a, 30 * NS_PER_MS);
}

static void
cut_sized(struct more *a)
{
	if (cut_lost(a))
		return;
	more_begin(a, cut_was_read, "cut read %u+%u", a->block, a->blocks);
	client_read(a->file, &a->io, more_io_done, (uint64_t)a->block * BLOCK,
	    (uint64_t)a->blocks * BLOCK);
}

static void
cut_synced(struct more *a)
{
	if (cut_lost(a))
		return;
	for (unsigned i = 0; i < a->blocks; i++)
		a->l->writes[a->first + i].end_ns = sim_now(a->l->s);
	more_pause_ns(a, 30 * NS_PER_MS);
}

static void
cut_wrote(struct more *a)
{
	if (cut_lost(a))
		return;
	more_begin(a, cut_synced, "cut fsync");
	client_fsync(a->file, &a->op, more_op_done);
}

static void
cut_truncated(struct more *a)
{
	if (cut_lost(a))
		return;
	a->l->writes[a->first].end_ns = sim_now(a->l->s);
	if (a->other != NULL) {		/* O_TRUNC */
		client_release(a->file);
		a->file = a->other;
		a->other = NULL;
	}
	more_pause_ns(a, 30 * NS_PER_MS);
}

static void
cut_opened(struct more *a)
{
	more_must(a, 0);
	if (a->l->cut_ino == 0)
		a->l->cut_ino = a->op.entry->attr.ino;
	more_pause_ns(a, 30 * NS_PER_MS);
}

void
more_cut_act(struct more *a)
{
	struct msg_setattr set = { .valid = META_SET_SIZE };
	struct more_load *l = a->l;
	struct client *c = more_client(a);

	if (a->file == NULL)
		a->losses = sim_losses(l->s, a->client);
	if (a->file == NULL && l->cut_ino == 0) {
		if (l->cut_making) {
			a->left++;
			more_pause_ns(a, 100 * NS_PER_MS);
			return;
		}
		l->cut_making = true;
		more_begin(a, cut_opened, "cut create");
		client_file_create(c, &a->op, more_op_done, &root, INO_ROOT, "cut", 0644,
		    O_RDWR | O_CREAT, &a->file);
		return;
	}
	if (a->file == NULL) {
		more_begin(a, cut_opened, "cut open");
		client_file_open(c, &a->op, more_op_done, &root, l->cut_ino, O_RDWR, &a->file);
		return;
	}
	a->begin_ns = sim_now(l->s);
	a->first = (unsigned)l->write_n;
	a->blocks = 1 + (unsigned)rand_below(&a->rand, 6);
	a->block = (unsigned)rand_below(&a->rand, CUT_BLOCKS - a->blocks + 1);
	switch (rand_below(&a->rand, 8)) {
	case 0:
		cut_note(l, 0, true);
		more_begin(a, cut_truncated, "cut open O_TRUNC");
		client_file_open(c, &a->op, more_op_done, &root, l->cut_ino, O_RDWR | O_TRUNC,
		    &a->other);
		return;
	case 1:
		cut_note(l, a->block, true);
		set.size = (uint64_t)a->block * BLOCK;
		more_begin(a, cut_truncated, "cut truncate %u", a->block);
		client_setattr(c, &a->op, more_op_done, &root, l->cut_ino, &set);
		return;
	case 2: case 3: case 4:
		more_begin(a, cut_sized, "cut getattr");
		client_getattr(c, &a->op, more_op_done, &root, l->cut_ino);
		return;
	default:
		for (unsigned i = 0; i < a->blocks; i++) {
			uint64_t stamp;

			cut_note(l, a->block + i, false);
			stamp = l->write_n;
			for (unsigned k = 0; k < BLOCK; k += 8)
				memcpy(a->data + i * BLOCK + k, &stamp, 8);
		}
		more_begin(a, cut_wrote, "cut write %u+%u", a->block, a->blocks);
		client_write(a->file, &a->io, more_io_done, (uint64_t)a->block * BLOCK, a->data,
		    (uint64_t)a->blocks * BLOCK, true);
		return;
	}
}
