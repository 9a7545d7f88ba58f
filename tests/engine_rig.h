/* SPDX-License-Identifier: MIT */
/* engine_rig.h - a disk of chunks on a simulated disk, one request at a time. */
#ifndef TESTS_ENGINE_RIG_H
#define TESTS_ENGINE_RIG_H

#include "chunk/engine.h"

#include <assert.h>
#include <check.h>
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/label.h"
#include "chunk/state.h"
#include "conf/crc32c.h"
#include "conf/err.h"
#include "tests/sim/clock.h"
#include "tests/sim/disk.h"
#include "tests/suite.h"

/* ---- the world ---- */

struct world {
	struct sim_clock *time;
	struct clock	*clock;
	struct rand	 rand;
	struct sim_box	*box;
	struct disk_dir	*dir;
	struct mem_pool	*pool;
	struct log	 log;
	char		 said[4096];	/* what was logged, newest at the end */
	struct chunk_engine *e;
	bool		 opened;
	int		 open_rc;
	uint64_t	 index_bytes;
	uint32_t	 full_percent;
};

static const struct uid128 disk_id = { { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    15, 16 } };

static void
say(void *ctx, enum log_level level, const char *who, const char *what,
    const char *fields)
{
	struct world *w = ctx;
	size_t n = strlen(w->said);

	(void)level;
	(void)who;
	if (n > sizeof(w->said) / 2)
		n = 0;
	snprintf(w->said + n, sizeof(w->said) - n, "%s %s\n", what, fields);
	if (getenv("LOG") != NULL)
		fprintf(stderr, "%s %s\n", what, fields);
}

static void
turn(void *ctx)
{
	struct world *w = ctx;

	assert(sim_clock_step(w->time));
}

static void
world_init(struct world *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	rand_seed(&w->rand, seed);
	w->time = sim_clock_open();
	w->clock = sim_clock_node(w->time, 0, 0);
	w->box = sim_box_open(&w->rand);
	log_init(&w->log, "disk");
	w->log.sink = say;
	w->log.ctx = w;
	w->index_bytes = 64 << 20;
	w->full_percent = 100;
	ck_assert_int_eq(mem_pool_open(&w->pool, 512u << 20, 256u << 20), 0);
}

static void
world_format(struct world *w, uint64_t bytes)
{
	ck_assert_int_eq(sim_disk_dir(w->box, w->clock, "/d", true, &w->dir), 0);
	ck_assert_int_eq(chunk_engine_format(w->dir, w->clock, &disk_id, bytes, turn, w), 0);
	w->dir->ops->close(w->dir);
	w->dir = NULL;
}

static void
open_done(void *ctx, int rc)
{
	struct world *w = ctx;

	ck_assert(!w->opened);
	w->opened = true;
	w->open_rc = rc;
}

static int
world_open(struct world *w)
{
	struct chunk_engine_conf c = { .clock = w->clock, .log = &w->log,
	    .pool = w->pool, .index_bytes = w->index_bytes,
	    .full_percent = w->full_percent };

	ck_assert_int_eq(sim_disk_dir(w->box, w->clock, "/d", false, &w->dir), 0);
	c.dir = w->dir;
	w->opened = false;
	ck_assert_int_eq(chunk_engine_open(&w->e, &c, open_done, w), 0);
	ck_assert(!w->opened);
	while (!w->opened)
		turn(w);
	return w->open_rc;
}

static void
world_shut(struct world *w)
{
	chunk_engine_close(w->e);
	w->e = NULL;
	if (w->dir != NULL)
		w->dir->ops->close(w->dir);
	w->dir = NULL;
	ck_assert_uint_eq(sim_clock_node_pending(w->clock), 0);
	ck_assert_uint_eq(sim_disk_inflight(w->box), 0);
}

static void
world_fini(struct world *w)
{
	world_shut(w);
	mem_pool_close(w->pool);		/* all buffers are back */
	sim_box_close(w->box);
	sim_clock_close(w->time);
}

/* ---- one request at a time, for the directed tests ---- */

struct one {
	struct chunk_write w;
	struct chunk_read  r;
	bool done;
	int  rc;
};

static void
one_wrote(struct chunk_write *w, int rc)
{
	struct one *o = container_of(w, struct one, w);

	o->done = true;
	o->rc = rc;
}

static void
one_read(struct chunk_read *r, int rc)
{
	struct one *o = container_of(r, struct one, r);

	o->done = true;
	o->rc = rc;
}

static void
payload(struct world *w, struct chunk_write *x, const void *bytes)
{
	uint32_t pre = x->offset % CHUNK_BLOCK;

	ck_assert_int_eq(mem_get(w->pool, x->len == 0 ? 1 : pre + x->len, &x->buf), 0);
	memset(x->buf.p, 0xee, x->buf.size);	/* pads must not matter */
	x->data = x->buf.p + pre;
	memcpy(x->data, bytes, x->len);
	x->crc = crc32c(0, x->data, x->len);
}

static int
do_write(struct world *w, struct chunk_write *x)
{
	struct one o = { .w = *x };

	chunk_write_start(&o.w, w->e, one_wrote);
	ck_assert(!o.done);
	while (!o.done)
		turn(w);
	mem_put(&o.w.buf);
	x->new_len = o.w.new_len;
	x->check = o.w.check;
	return o.rc;
}

/* Write @len bytes of @fill and make them the committed version. */
static inline int
put_fill(struct world *w, struct chunk_id id, uint8_t shift, uint32_t off, uint32_t len,
    uint8_t fill, uint64_t version, bool commit)
{
	struct chunk_write x = { .target = 1, .id = id, .kind = UPDATE_WRITE,
	    .shift = shift, .version = version, .offset = off, .len = len };
	uint8_t *b = malloc(len);
	int rc;

	memset(b, fill, len);
	payload(w, &x, b);
	free(b);
	rc = do_write(w, &x);
	if (rc == 0 && commit)
		ck_assert_int_eq(chunk_engine_commit(w->e, 1, id, version), 0);
	return rc;
}

static inline int
do_kind(struct world *w, struct chunk_id id, uint8_t kind, uint8_t shift, uint32_t off,
    uint64_t version, bool commit)
{
	struct chunk_write x = { .target = 1, .id = id, .kind = kind, .shift = shift,
	    .version = version, .offset = off };
	int rc = do_write(w, &x);

	if (rc == 0 && commit)
		ck_assert_int_eq(chunk_engine_commit(w->e, 1, id, version), 0);
	return rc;
}

/* Read it all; returns rc, the caller gives the buffer back. */
static int
do_read(struct world *w, struct chunk_id id, uint64_t version, uint32_t off, uint32_t len,
    struct chunk_read *out)
{
	struct one o = { .r = { .target = 1, .id = id, .version = version, .offset = off,
	    .len = len } };

	chunk_read_start(&o.r, w->e, one_read);
	ck_assert(!o.done);
	while (!o.done)
		turn(w);
	if (o.rc == 0)
		ck_assert_uint_eq(o.r.crc, crc32c(0, o.r.data, o.r.got));
	*out = o.r;
	return o.rc;
}

static inline void
expect_fill(struct world *w, struct chunk_id id, uint64_t version, uint32_t off,
    uint32_t len, uint8_t fill)
{
	struct chunk_read r;
	uint32_t i = 0;

	ck_assert_int_eq(do_read(w, id, version, off, len, &r), 0);
	ck_assert_uint_eq(r.got, len);
	while (i < len && r.data[i] == fill)	/* an assert costs a system call */
		i++;
	ck_assert_msg(i == len, "byte %u is not %02x", off + i, fill);
	mem_put(&r.buf);
}

static inline uint64_t
used(struct world *w)
{
	uint64_t cap, n;

	chunk_engine_space(w->e, &cap, &n);
	return n;
}

static inline void
run_for(struct world *w, uint64_t ms)
{
	sim_clock_run(w->time, ms * NS_PER_MS);
}

/* ---- directed ---- */

static const struct chunk_id one_id = { 7, 3 };

#endif
