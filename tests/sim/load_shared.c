/* SPDX-License-Identifier: MIT */
/* load_shared.c - several clients write and read blocks of the same files directly; every
 * block has the history of a linearizable register. */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/load_impl.h"

static uint64_t
new_write(struct load *l, uint32_t file, uint32_t block, uint64_t now)
{
	if (l->write_n == l->write_cap) {
		l->write_cap = l->write_cap == 0 ? 1024 : l->write_cap * 2;
		l->writes = realloc(l->writes, l->write_cap * sizeof(*l->writes));
		assert(l->writes != NULL);
	}
	l->writes[l->write_n] = (struct write_rec){ now, UINT64_MAX, UINT64_MAX,
	    file, block };
	return ++l->write_n;
}

static void
fill_block(uint8_t *p, uint64_t stamp, uint32_t file, uint32_t block)
{
	uint64_t w[4] = { stamp, (uint64_t)file << 32 | block, ~stamp, stamp * 31 };

	for (unsigned i = 0; i < BLOCK; i += sizeof(w))
		memcpy(p + i, w, sizeof(w));
}

/* What a read of one block returned is one of the values the register could have.  Every
 * write is done once, between its begin and known_ns. */
void
load_judge_block(struct actor *a, uint32_t file, uint32_t block, const uint8_t *p,
    uint64_t begin, uint64_t end)
{
	static uint8_t want[BLOCK];
	struct load *l = a->l;
	struct write_rec *w;
	uint64_t stamp;

	memcpy(&stamp, p, 8);
	if (stamp == 0)
		memset(want, 0, BLOCK);
	else {
		if (stamp > l->write_n || l->writes[stamp - 1].file != file ||
		    l->writes[stamp - 1].block != block)
			sim_fail(l->s, "file %u block %u: foreign stamp %" PRIu64, file,
			    block, stamp);
		fill_block(want, stamp, file, block);
	}
	if (memcmp(p, want, BLOCK) != 0)
		sim_fail(l->s, "file %u block %u: mixed content, stamp %" PRIu64, file,
		    block, stamp);
	w = stamp == 0 ? NULL : &l->writes[stamp - 1];
	if (w != NULL && w->begin_ns > end)
		sim_fail(l->s, "file %u block %u: read from the future", file, block);
	if (w != NULL && w->over_ns < begin)
		sim_fail(l->s, "file %u block %u: stamp %" PRIu64 " is back, which had been "
		    "replaced before %" PRIu64, file, block, stamp, begin);
	for (size_t i = 0; i < l->write_n; i++) {
		struct write_rec *x = &l->writes[i];

		if (x->file != file || x->block != block || x == w ||
		    x->known_ns >= begin)
			continue;
		/* Overwritten for certain before this read began? */
		if (w == NULL || w->known_ns < x->begin_ns)
			sim_fail(l->s, "file %u block %u: read stamp %" PRIu64
			    " at %" PRIu64 ", but %zu was acknowledged, or read, before",
			    file, block, stamp, begin, i + 1);
		if (end < x->over_ns)
			x->over_ns = end;
	}
	if (w != NULL && w->known_ns == UINT64_MAX)
		sim_plot_seen(l->s);
	if (w != NULL && end < w->known_ns)
		w->known_ns = end;
}

static void
read_done(struct actor *a)
{
	struct load *l = a->l;
	uint32_t want = a->blocks * BLOCK;

	if (load_lost(a)) {
		load_reopen(a, l->shared_ino[a->target], load_shared_opened);
		return;
	}
	if (a->io.done != want)
		sim_fail(l->s, "actor %u: short read %" PRIu64, a->id, a->io.done);
	(void)load_take_read(a);
	for (unsigned i = 0; i < a->blocks; i++)
		load_judge_block(a, a->target, a->block + i, a->data + i * BLOCK,
		    a->begin_ns, sim_now(l->s));
	load_next(a);
}

static void
write_done(struct actor *a)
{
	struct load *l = a->l;

	/* It may have been done, or be done later. */
	if (load_lost(a)) {
		load_reopen(a, l->shared_ino[a->target], load_shared_opened);
		return;
	}
	for (unsigned i = 0; i < a->blocks; i++)
		if (l->writes[a->stamps[i] - 1].known_ns == UINT64_MAX)
			l->writes[a->stamps[i] - 1].known_ns = sim_now(l->s);
	load_next(a);
}

void
load_shared_act(struct actor *a)
{
	struct load *l = a->l;

	a->blocks = 1 + (unsigned)rand_below(&a->rand,
	    rand_chance(&a->rand, 1, 5) ? IO_BLOCKS_MAX : 3);
	if (a->blocks > l->span)
		a->blocks = l->span;
	a->block = (unsigned)rand_below(&a->rand, l->span - a->blocks + 1);
	a->begin_ns = sim_now(l->s);
	if (rand_chance(&a->rand, 1, 2)) {
		load_begin(a, "read blocks %u+%u", a->block, a->blocks);
		a->then = read_done;
		client_read(a->file, &a->io, load_io_done, (uint64_t)a->block * BLOCK,
		    (uint64_t)a->blocks * BLOCK);
		return;
	}
	for (unsigned i = 0; i < a->blocks; i++) {
		a->stamps[i] = new_write(l, a->target, a->block + i, a->begin_ns);
		fill_block(a->data + i * BLOCK, a->stamps[i], a->target, a->block + i);
	}
	load_begin(a, "write blocks %u+%u", a->block, a->blocks);
	a->then = write_done;
	client_write(a->file, &a->io, load_io_done, (uint64_t)a->block * BLOCK, a->data,
	    (uint64_t)a->blocks * BLOCK, true);
}

void
load_shared_opened(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "actor %u: open: %d", a->id, a->rc);
	load_next(a);
}
