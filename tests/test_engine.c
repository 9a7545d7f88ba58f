/* SPDX-License-Identifier: MIT */
/* test_engine.c - a disk of chunks against arrays of bytes: random changes, crashes at any
 * moment, damage, full disks, wrong labels.  SEED=n reruns one seed, N=n does more. */
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

#define SLOTS	14u
#define READS	8u
#define MODEL_STATES	64u

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
static int
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

static int
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

static void
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

static uint64_t
used(struct world *w)
{
	uint64_t cap, n;

	chunk_engine_space(w->e, &cap, &n);
	return n;
}

static void
run_for(struct world *w, uint64_t ms)
{
	sim_clock_run(w->time, ms * NS_PER_MS);
}

/* ---- the model ---- */

struct ver {
	unsigned refs;
	uint64_t version;
	uint32_t len, epoch;
	bool	 removed;
	uint8_t	*bytes;
	struct chunk_dedupe dedupe[CHUNK_DEDUPE_MAX];
	uint32_t dedupe_n;
};

struct state {
	struct ver *c, *p;		/* NULL: none */
};

struct slot {
	struct model *m;
	struct chunk_id id;
	target_id target;
	uint8_t	 shift;
	struct state now;
	/* What a crash may bring back: states since the last durable one, oldest first. */
	struct state may[MODEL_STATES];
	unsigned may_n;
	bool	 busy;
	struct chunk_write w;
	struct ver *next;		/* what it becomes */
};

struct reading {
	struct model *m;
	bool	 busy;
	struct ver *v;
	struct chunk_read r;
};

struct model {
	struct world w;
	struct slot slots[SLOTS];
	struct reading reads[READS];
	uint64_t seq;
	uint8_t	 shift_min, shift_n;
	uint32_t len_max;		/* of one write */
	unsigned wrote, refused, crashes, committed, reads_done;
	bool	 faults;
};

static struct ver *
ver_new(uint8_t shift)
{
	struct ver *v = calloc(1, sizeof(*v));

	v->refs = 1;
	v->bytes = calloc(1, 1u << shift);
	return v;
}

static struct ver *
ver_ref(struct ver *v)
{
	if (v != NULL)
		v->refs++;
	return v;
}

static void
ver_drop(struct ver *v)
{
	if (v == NULL || --v->refs > 0)
		return;
	free(v->bytes);
	free(v);
}

static void
may_clear(struct slot *s)
{
	for (unsigned i = 0; i < s->may_n; i++) {
		ver_drop(s->may[i].c);
		ver_drop(s->may[i].p);
	}
	s->may_n = 0;
}

static void
may_add(struct slot *s, struct ver *c, struct ver *p)
{
	assert(s->may_n < MODEL_STATES);
	s->may[s->may_n++] = (struct state){ ver_ref(c), ver_ref(p) };
}

static void
set_now(struct slot *s, struct ver *c, struct ver *p)
{
	struct state old = s->now;

	s->now = (struct state){ ver_ref(c), ver_ref(p) };
	ver_drop(old.c);
	ver_drop(old.p);
}

static void
model_wrote(struct chunk_write *w, int rc)
{
	struct slot *s = container_of(w, struct slot, w);

	ck_assert(s->busy);
	s->busy = false;
	mem_put(&w->buf);
	if (rc == 0) {
		s->m->wrote++;
		ck_assert_uint_eq(w->new_len, s->next->len);
		set_now(s, s->now.c, s->next);
		may_clear(s);
		may_add(s, s->now.c, s->now.p);
	} else {
		ck_assert_msg(rc == -ENOSPC || (s->m->faults && rc == -EIO), "rc %d", rc);
		s->m->refused++;
		/* Not there, and after a crash neither. */
		if (rc == -ENOSPC) {
			struct state *last = &s->may[--s->may_n];

			ver_drop(last->c);
			ver_drop(last->p);
		}
	}
	ver_drop(s->next);
	s->next = NULL;
}

/* Start a random change of a slot that has none in flight. */
static void
model_write(struct model *m, struct slot *s)
{
	struct rand *r = &m->w.rand;
	struct ver *c = s->now.c, *v = ver_new(s->shift);
	uint32_t size = 1u << s->shift, len = c == NULL ? 0 : c->len, kind;
	struct chunk_write *w = &s->w;

	kind = rand_below(r, 100) < 70 ? UPDATE_WRITE :
	    (uint32_t[]){ UPDATE_TRUNCATE, UPDATE_REMOVE, UPDATE_REPLACE }[rand_below(r, 3)];
	*w = (struct chunk_write){ .target = s->target, .id = s->id, .kind = (uint8_t)kind,
	    .shift = s->shift, .epoch = (uint32_t)rand_below(r, 5),
	    .version = (c == NULL ? 0 : c->version) + 1 + rand_below(r, 2) };
	w->who.client.b[0] = (uint8_t)(1 + rand_below(r, 12));
	w->who.seq = ++m->seq;
	v->version = w->version;
	v->epoch = w->epoch;
	v->len = len;
	if (c != NULL && kind != UPDATE_REPLACE) {
		memcpy(v->bytes, c->bytes, len);
	}
	switch (kind) {
	case UPDATE_WRITE: {
		uint32_t n = 1 + (uint32_t)rand_below(r, m->len_max < size ? m->len_max : size);

		switch (rand_below(r, 4)) {
		case 0:				/* append */
			w->offset = len;
			break;
		case 1:				/* near the end */
			w->offset = len > 5000 ? len - (uint32_t)rand_below(r, 5000) : len +
			    (uint32_t)rand_below(r, 9000);
			break;
		default:
			w->offset = (uint32_t)rand_below(r, size);
			if (rand_chance(r, 1, 2))
				w->offset &= ~(CHUNK_BLOCK - 1);
		}
		if (w->offset >= size)
			w->offset = size - 1;
		if (rand_chance(r, 1, 3))
			n = (n + CHUNK_BLOCK - 1) & ~(CHUNK_BLOCK - 1);
		w->len = n < size - w->offset ? n : size - w->offset;
		break;
	}
	case UPDATE_REPLACE:
		w->len = (uint32_t)rand_below(r, (m->len_max < size ? m->len_max : size) + 1);
		v->len = w->len;
		break;
	case UPDATE_TRUNCATE:
		w->offset = (uint32_t)rand_below(r, size + 1);
		if (rand_chance(r, 1, 2) && len > 0)
			w->offset = (uint32_t)rand_below(r, len + 1);
		v->len = w->offset < len ? w->offset : len;
		memset(v->bytes + v->len, 0, size - v->len);
		break;
	default:
		v->removed = true;
		v->len = 0;
	}
	if (kind == UPDATE_WRITE || kind == UPDATE_REPLACE) {
		uint8_t *b = malloc(w->len + 1);

		rand_bytes(r, b, w->len);
		if (rand_chance(r, 1, 10))
			memset(b, 0, w->len);
		memcpy(v->bytes + w->offset, b, w->len);
		if (w->offset + w->len > v->len)
			v->len = w->offset + w->len;
		payload(&m->w, w, b);
		free(b);
	}
	/* Dedupe: this one, then the others, newest first. */
	if (kind == UPDATE_REPLACE) {
		w->who.seq = 0;
		w->dedupe = c == NULL ? NULL : c->dedupe;
		w->dedupe_n = c == NULL ? 0 : c->dedupe_n;
		v->dedupe_n = w->dedupe_n;
		if (c != NULL)
			memcpy(v->dedupe, c->dedupe, sizeof(v->dedupe));
	} else {
		v->dedupe[0] = w->who;
		v->dedupe[0].version = w->version;
		v->dedupe_n = 1;
		for (uint32_t i = 0; c != NULL && i < c->dedupe_n; i++)
			if (v->dedupe_n < CHUNK_DEDUPE_MAX &&
			    !uid128_eq(&c->dedupe[i].client, &w->who.client))
				v->dedupe[v->dedupe_n++] = c->dedupe[i];
	}
	s->busy = true;
	s->next = v;
	may_add(s, c, v);
	chunk_write_start(w, m->w.e, model_wrote);
	ck_assert(s->busy);
}

static void
model_flip(struct model *m, struct slot *s, bool commit)
{
	uint64_t v = s->now.p->version;
	int rc;

	if (commit) {
		rc = chunk_engine_commit(m->w.e, s->target, s->id, v);
		ck_assert_int_eq(rc, 0);
		m->committed++;
		set_now(s, s->now.p->removed ? NULL : s->now.p, NULL);
	} else {
		rc = chunk_engine_abort(m->w.e, s->target, s->id, v);
		ck_assert_int_eq(rc, 0);
		set_now(s, s->now.c, NULL);
	}
	may_add(s, s->now.c, s->now.p);
}

static void
model_read_done(struct chunk_read *r, int rc)
{
	struct reading *x = container_of(r, struct reading, r);
	uint32_t want;

	ck_assert(x->busy);
	x->busy = false;
	if (x->m->faults && rc == -EIO)
		goto out;
	if (x->v == NULL || x->v->removed) {
		ck_assert_int_eq(rc, -ENOENT);
		goto out;
	}
	ck_assert_int_eq(rc, 0);
	ck_assert_uint_eq(r->got_version, x->v->version);
	want = r->offset >= x->v->len ? 0 : x->v->len - r->offset;
	want = want < r->len ? want : r->len;
	ck_assert_uint_eq(r->got, want);
	ck_assert_uint_eq(r->crc, crc32c(0, r->data, r->got));
	ck_assert_int_eq(memcmp(r->data == NULL ? x->v->bytes + r->offset : r->data,
	    x->v->bytes + r->offset, want), 0);
	x->m->reads_done++;
	mem_put(&r->buf);
out:
	ver_drop(x->v);
	x->v = NULL;
}

static void
model_read(struct model *m, struct reading *x, struct slot *s)
{
	struct rand *r = &m->w.rand;
	uint32_t size = 1u << s->shift;
	struct ver *v = s->now.c;

	if (s->now.p != NULL && !s->busy && rand_chance(r, 1, 3))
		v = s->now.p;
	x->m = m;
	x->busy = true;
	x->v = ver_ref(v);
	x->r = (struct chunk_read){ .target = s->target, .id = s->id,
	    .version = v == NULL || v == s->now.c ? 0 : v->version,
	    .offset = (uint32_t)rand_below(r, size), .len = 1 + (uint32_t)rand_below(r, size) };
	if (rand_chance(r, 1, 3))
		x->r.offset = 0;
	chunk_read_start(&x->r, m->w.e, model_read_done);
	ck_assert(x->busy);
}

static uint32_t
expect_check(const struct ver *v, uint8_t shift)
{
	uint32_t sum = chunk_sum_bytes(shift), n = chunk_blocks(v->len, sum);
	uint32_t crcs[CHUNK_CRCS_MAX];

	for (uint32_t i = 0; i < n; i++)
		crcs[i] = crc32c(0, v->bytes + (size_t)i * sum,
		    v->len - i * sum < sum ? v->len - i * sum : sum);
	return chunk_row_check(crcs, n, v->len);
}

/* What the engine tells of a slot is this state. */
static bool
matches(const struct chunk_info *i, int rc, const struct state *st)
{
	const struct ver *c = st->c, *p = st->p;

	if (c == NULL && p == NULL)
		return rc == -ENOENT;
	if (rc != 0)
		return false;
	return i->committed == (c == NULL ? 0 : c->version) &&
	    i->committed_len == (c == NULL ? 0 : c->len) &&
	    i->committed_epoch == (c == NULL ? 0 : c->epoch) &&
	    i->pending == (p == NULL ? 0 : p->version) &&
	    i->pending_len == (p == NULL ? 0 : p->len) &&
	    i->pending_epoch == (p == NULL ? 0 : p->epoch) &&
	    i->pending_removed == (p != NULL && p->removed);
}

static bool
same_bytes(struct model *m, struct slot *s, const struct ver *v, uint64_t version)
{
	struct one o = { .r = { .target = s->target, .id = s->id, .version = version,
	    .len = 1u << s->shift } };
	bool same;

	chunk_read_start(&o.r, m->w.e, one_read);
	while (!o.done)
		turn(&m->w);
	ck_assert_msg(o.rc == 0, "slot %ld version %lu: %s\n%s", (long)(s - m->slots),
	    (unsigned long)version, err_name(o.rc), m->w.said);
	ck_assert_uint_eq(o.r.got, v->len);
	same = o.r.got == 0 || memcmp(o.r.data, v->bytes, v->len) == 0;
	mem_put(&o.r.buf);
	return same;
}

static bool
slot_is(struct model *m, struct slot *s, const struct state *st)
{
	struct chunk_info i;
	int rc = chunk_engine_info(m->w.e, s->target, s->id, &i);
	const struct ver *newest = st->p != NULL ? st->p : st->c;

	if (!matches(&i, rc, st))
		return false;
	if (st->c != NULL && (i.committed_check != expect_check(st->c, s->shift) ||
	    !same_bytes(m, s, st->c, 0)))
		return false;
	if (st->p != NULL && !st->p->removed &&
	    (i.pending_check != expect_check(st->p, s->shift) ||
	    !same_bytes(m, s, st->p, st->p->version)))
		return false;
	if (newest != NULL)
		return i.dedupe_n == newest->dedupe_n && memcmp(i.dedupe, newest->dedupe,
		    i.dedupe_n * sizeof(i.dedupe[0])) == 0;
	return true;
}

static void
verify_all(struct model *m)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (!m->slots[i].busy)
			ck_assert_msg(slot_is(m, &m->slots[i], &m->slots[i].now),
			    "slot %u differs\n%s", i, m->w.said);
	chunk_engine_check(m->w.e);
}

static bool
quiet(struct model *m)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (m->slots[i].busy)
			return false;
	for (unsigned i = 0; i < READS; i++)
		if (m->reads[i].busy)
			return false;
	return true;
}

static void
settle(struct model *m)
{
	while (!quiet(m))
		turn(&m->w);
}

/* Listing tells each chunk once, in order; last finds the highest committed one. */
static void
verify_list(struct model *m)
{
	struct chunk_info i, last;
	unsigned want = 0, have = 0;

	for (target_id t = 1; t <= 2; t++) {
		struct chunk_id at = { 0 };
		bool after = false;

		while (chunk_engine_next(m->w.e, t, at, after, &i) == 0) {
			ck_assert(!after || chunk_id_cmp(i.id, at) > 0);
			at = i.id;
			after = true;
			have++;
		}
		for (ino_id ino = 1; ino <= 3; ino++) {
			const struct slot *top = NULL;
			int rc = chunk_engine_last(m->w.e, t, ino, &last);

			for (unsigned k = 0; k < SLOTS; k++) {
				const struct slot *s = &m->slots[k];

				if (s->target == t && s->id.ino == ino &&
				    s->now.c != NULL && (top == NULL ||
				    s->id.index > top->id.index))
					top = s;
			}
			ck_assert_int_eq(rc, top == NULL ? -ENOENT : 0);
			if (top != NULL)
				ck_assert_uint_eq(last.id.index, top->id.index);
		}
	}
	for (unsigned k = 0; k < SLOTS; k++)
		want += m->slots[k].now.c != NULL || m->slots[k].now.p != NULL;
	ck_assert_uint_eq(have, want);
}

/* The pending ones, and what each target holds, without a walk over the index. */
static void
verify_known(struct model *m)
{
	for (target_id t = 1; t <= 3; t++) {
		uint64_t chunks, bytes, want_chunks = 0, want_bytes = 0;
		struct chunk_id at = { 0 };
		struct chunk_info i;
		unsigned want = 0, have = 0;

		for (unsigned k = 0; k < SLOTS; k++) {
			const struct slot *s = &m->slots[k];

			if (s->target != t)
				continue;
			want += s->now.p != NULL;
			if (s->now.c != NULL) {
				want_chunks++;
				want_bytes += s->now.c->len;
			}
		}
		for (bool after = false; chunk_engine_next_pending(m->w.e, t, at,
		    after, &i) == 0; after = true, have++) {
			ck_assert(!after || chunk_id_cmp(i.id, at) > 0);
			ck_assert_uint_gt(i.pending, 0);
			at = i.id;
		}
		ck_assert_uint_eq(have, want);
		chunk_engine_count(m->w.e, t, &chunks, &bytes);
		ck_assert_uint_eq(chunks, want_chunks);
		ck_assert_uint_eq(bytes, want_bytes);
	}
}

static void
model_init(struct model *m, uint64_t seed, uint64_t bytes, uint8_t shift_min,
    uint8_t shift_n)
{
	struct sim_disk_conf *c;

	memset(m, 0, sizeof(*m));
	world_init(&m->w, seed);
	c = sim_box_conf(m->w.box);
	c->read_max_ns = 300 * NS_PER_US;
	c->write_max_ns = 500 * NS_PER_US;
	c->sync_max_ns = 900 * NS_PER_US;
	c->table.write_max_ns = NS_PER_MS;
	world_format(&m->w, bytes);
	ck_assert_int_eq(world_open(&m->w), 0);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *s = &m->slots[i];

		s->m = m;
		s->target = 1 + i % 2;
		s->id.ino = 1 + i / 2 % 3;
		s->id.index = i < 4 ? i : (uint32_t)rand_u64(&m->w.rand);
		s->shift = (uint8_t)(shift_min + rand_below(&m->w.rand, shift_n));
		may_add(s, NULL, NULL);
	}
	m->len_max = 70000;
}

static void
model_fini(struct model *m)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		set_now(&m->slots[i], NULL, NULL);
		may_clear(&m->slots[i]);
		ver_drop(m->slots[i].next);
		if (m->slots[i].busy)
			mem_put(&m->slots[i].w.buf);
	}
	for (unsigned i = 0; i < READS; i++)
		ver_drop(m->reads[i].v);
	world_fini(&m->w);
}

static void
model_step(struct model *m)
{
	struct rand *r = &m->w.rand;
	struct slot *s = &m->slots[rand_below(r, SLOTS)];
	struct reading *x = &m->reads[rand_below(r, READS)];

	if (s->may_n + 4 >= MODEL_STATES)
		return;
	switch (rand_below(r, 8)) {
	case 0: case 1: case 2:
		if (!s->busy && (s->now.p == NULL || rand_chance(r, 1, 5)))
			model_write(m, s);
		break;
	case 3: case 4:
		if (!s->busy && s->now.p != NULL)
			model_flip(m, s, rand_chance(r, 4, 5));
		break;
	case 5:
		if (!x->busy)
			model_read(m, x, s);
		break;
	default:
		for (uint64_t n = rand_below(r, 12); n > 0; n--)
			if (!sim_clock_step(m->w.time))
				break;
	}
}

/* The power goes, now; what comes back must be a state that was possible. */
static void
model_crash(struct model *m, bool power)
{
	if (power)
		sim_disk_crash(m->w.box);
	else
		sim_disk_kill(m->w.box);
	world_shut(&m->w);
	m->crashes++;
	for (unsigned i = 0; i < READS; i++) {
		m->reads[i].busy = false;
		ver_drop(m->reads[i].v);
		m->reads[i].v = NULL;
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *s = &m->slots[i];

		if (s->busy)
			mem_put(&s->w.buf);
		s->busy = false;
		ver_drop(s->next);
		s->next = NULL;
	}
	ck_assert_int_eq(world_open(&m->w), 0);
	chunk_engine_check(m->w.e);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *s = &m->slots[i];
		unsigned k = 0;

		while (k < s->may_n && !slot_is(m, s, &s->may[k]))
			k++;
		ck_assert_msg(k < s->may_n, "slot %u is none of %u states\n%s", i, s->may_n,
		    m->w.said);
		set_now(s, s->may[k].c, s->may[k].p);
		may_clear(s);
		may_add(s, s->now.c, s->now.p);
	}
	verify_known(m);
}

static uint64_t
seed_of(int i)
{
	const char *s = getenv("SEED");

	return s != NULL && *s != '\0' ? strtoull(s, NULL, 0) : 1000 + (uint64_t)i;
}

/* All shifts, random changes, several at once; no faults. */
START_TEST(model_holds)
{
	struct model *m = malloc(sizeof(*m));

	model_init(m, seed_of(_i), 64 << 20, 16, _i % 4 == 3 ? 6 : 3);
	for (unsigned k = 0; k < 3000; k++) {
		model_step(m);
		if (k % 500 == 499) {
			settle(m);
			verify_all(m);
			verify_list(m);
			verify_known(m);
		}
	}
	settle(m);
	verify_all(m);
	ck_assert_uint_gt(m->wrote, 200);
	ck_assert_uint_gt(m->committed, 100);
	/* A clean stop keeps the very state. */
	for (unsigned i = 0; i < SLOTS; i++)
		ck_assert(!m->slots[i].busy);
	m->w.opened = false;
	chunk_engine_flush(m->w.e, open_done, &m->w);
	while (!m->w.opened)
		turn(&m->w);
	world_shut(&m->w);
	ck_assert_int_eq(world_open(&m->w), 0);
	verify_all(m);
	model_fini(m);
	free(m);
}
END_TEST

/* Crashes at random moments, on a disk that is small enough to fill up. */
START_TEST(crashes)
{
	struct model *m = malloc(sizeof(*m));

	model_init(m, seed_of(_i), _i % 3 == 2 ? 5 << 20 : 24 << 20, 16, 4);
	for (unsigned k = 0; k < 12; k++) {
		for (uint64_t n = 20 + rand_below(&m->w.rand, 300); n > 0; n--)
			model_step(m);
		model_crash(m, rand_chance(&m->w.rand, 3, 4));
	}
	settle(m);
	verify_all(m);
	model_fini(m);
	free(m);
}
END_TEST

/* ---- directed ---- */

static const struct chunk_id one_id = { 7, 3 };

/* One version of every size of chunk, the big ones with parts at both ends. */
START_TEST(every_shift)
{
	struct world w;
	uint8_t shift = (uint8_t)(16 + _i);
	uint32_t size = 1u << shift, sum = chunk_sum_bytes(shift);

	world_init(&w, 5);
	world_format(&w, 256 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, shift, 100, 50, 1, 1, true), 0);
	expect_fill(&w, one_id, 0, 0, 100, 0);
	expect_fill(&w, one_id, 0, 100, 50, 1);
	ck_assert_int_eq(put_fill(&w, one_id, shift, size - 5, 5, 2, 2, true), 0);
	expect_fill(&w, one_id, 0, 150, size - 155, 0);
	expect_fill(&w, one_id, 0, size - 5, 5, 2);
	ck_assert_uint_le(used(&w), 4 * (uint64_t)sum);
	ck_assert_int_eq(put_fill(&w, one_id, shift, 0, size, 3, 3, true), 0);
	run_for(&w, 200);
	ck_assert_uint_eq(used(&w), size);
	ck_assert_int_eq(put_fill(&w, one_id, shift, size / 2 + 1, 1, 4, 4, true), 0);
	expect_fill(&w, one_id, 0, 0, size / 2 + 1, 3);
	expect_fill(&w, one_id, 0, size / 2 + 1, 1, 4);
	expect_fill(&w, one_id, 0, size / 2 + 2, size / 2 - 2, 3);
	run_for(&w, 200);
	ck_assert_uint_eq(used(&w), size);	/* copied a block, gave one back */
	ck_assert_int_eq(do_kind(&w, one_id, UPDATE_TRUNCATE, shift, 77, 5, true), 0);
	expect_fill(&w, one_id, 0, 0, 77, 3);
	ck_assert_int_eq(put_fill(&w, one_id, shift, 200, 1, 9, 6, true), 0);
	expect_fill(&w, one_id, 0, 77, 123, 0);
	/* Who removes need not know how big chunks of that file are. */
	ck_assert_int_eq(do_kind(&w, one_id, UPDATE_REMOVE, 16, 0, 7, true), 0);
	run_for(&w, 200);
	ck_assert_uint_eq(used(&w), 0);
	chunk_engine_check(w.e);
	world_fini(&w);
}
END_TEST

/* Small appends use what is there: few runs, nothing copied. */
START_TEST(appends)
{
	struct world w;
	struct chunk_row row = { 0 };

	world_init(&w, 5);
	world_format(&w, 64 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	for (uint32_t i = 0; i < 1000; i++)
		ck_assert_int_eq(put_fill(&w, one_id, 20, i * 1000, 1000, (uint8_t)i, i + 1,
		    true), 0);
	for (uint32_t i = 0; i < 1000; i++)
		expect_fill(&w, one_id, 0, i * 1000, 1000, (uint8_t)i);
	ck_assert_int_eq(chunk_index_get(&w.e->index, 1, one_id, true, &row), 0);
	ck_assert_uint_le(row.extents.n, 9);
	chunk_row_fini(&row);
	run_for(&w, 200);
	ck_assert_uint_eq(used(&w), 1 << 20);
	world_fini(&w);
}
END_TEST

/* A bit turned on the disk is an error, never data; other blocks still read. */
START_TEST(turned_bit)
{
	struct world w;
	struct chunk_row row = { 0 };
	struct chunk_read r;
	uint8_t shift = _i == 0 ? 20 : 26;
	uint32_t sum = chunk_sum_bytes(shift);
	struct chunk_write x = { .target = 1, .id = one_id, .kind = UPDATE_REPLACE,
	    .shift = shift, .version = 1, .len = 4 * sum };
	uint8_t *b = malloc(4 * sum);

	memset(b, 7, 4 * sum);
	world_init(&w, 5);
	world_format(&w, 64 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, shift, 0, 4 * sum, 7, 1, true), 0);
	ck_assert_int_eq(chunk_index_get(&w.e->index, 1, one_id, true, &row), 0);
	ck_assert_int_eq(sim_disk_flip(w.box, "/d", "data",
	    row.extents.v[0].disk * 4096 + 2 * sum + 17, 3), 0);
	chunk_row_fini(&row);
	ck_assert_int_eq(do_read(&w, one_id, 0, 0, 4 * sum, &r), ERR_CORRUPT);
	ck_assert(strstr(w.said, "stored bytes fail their checksum disk=0102") != NULL);
	ck_assert(strstr(w.said, "target=1 ino=7 index=3 block=2") != NULL);
	ck_assert_int_eq(do_read(&w, one_id, 0, 2 * sum + 5000 % sum, 1, &r), ERR_CORRUPT);
	expect_fill(&w, one_id, 0, 0, 2 * sum, 7);
	expect_fill(&w, one_id, 0, 3 * sum, sum, 7);
	/* A write that would have to copy from it is refused, and changes nothing. */
	ck_assert_int_eq(put_fill(&w, one_id, shift, 2 * sum + 10, 5, 8, 2, false),
	    ERR_CORRUPT);
	ck_assert_int_eq(do_kind(&w, one_id, UPDATE_TRUNCATE, shift, 2 * sum + 9, 2, false),
	    ERR_CORRUPT);
	chunk_engine_check(w.e);
	ck_assert_int_eq(chunk_engine_state(w.e), 0);
	/* Replacing the same version repairs it. */
	payload(&w, &x, b);
	ck_assert_int_eq(do_write(&w, &x), 0);
	ck_assert_int_eq(chunk_engine_commit(w.e, 1, one_id, 1), 0);
	expect_fill(&w, one_id, 0, 0, 4 * sum, 7);
	chunk_engine_check(w.e);
	free(b);
	world_fini(&w);
}
END_TEST

/* Where a walk over the pending ones begins and ends. */
START_TEST(pending_walk)
{
	static const struct {
		const char *what;
		target_id target;
		struct chunk_id from;
		bool after;
		uint32_t found;			/* index, 99: none */
	} rows[] = {
		{ "the first of all",		1, { 0, 0 }, false, 2 },
		{ "itself",			1, { 5, 2 }, false, 2 },
		{ "the one behind",		1, { 5, 2 }, true, 7 },
		{ "between two",		1, { 5, 3 }, false, 7 },
		{ "the last has none behind",	1, { 5, 7 }, true, 99 },
		{ "not another target's",	1, { 5, 8 }, false, 99 },
		{ "a target between",		2, { 0, 0 }, false, 99 },
		{ "a target behind",		3, { 5, 0 }, false, 0 },
	};
	struct world w;
	struct chunk_info i;
	struct chunk_write x = { .target = 3, .id = { 5, 0 },
	    .kind = UPDATE_TRUNCATE, .shift = 16, .version = 1 };
	uint64_t chunks, bytes;

	world_init(&w, 5);
	world_format(&w, 16 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	for (uint32_t k = 0; k < 8; k++)	/* 2 and 7 stay pending */
		ck_assert_int_eq(put_fill(&w, (struct chunk_id){ 5, k }, 16, 0,
		    100 + k, 1, 1, k % 5 != 2), 0);
	ck_assert_int_eq(do_write(&w, &x), 0);
	for (size_t k = 0; k < sizeof(rows) / sizeof(rows[0]); k++) {
		int rc = chunk_engine_next_pending(w.e, rows[k].target,
		    rows[k].from, rows[k].after, &i);

		ck_assert_msg(rows[k].found == 99 ? rc == -ENOENT :
		    rc == 0 && i.id.index == rows[k].found, "%s", rows[k].what);
	}
	chunk_engine_count(w.e, 1, &chunks, &bytes);
	ck_assert_uint_eq(chunks, 6);
	ck_assert_uint_eq(bytes, 100 + 101 + 103 + 104 + 105 + 106);
	chunk_engine_count(w.e, 3, &chunks, &bytes);
	ck_assert_uint_eq(chunks + bytes, 0);
	ck_assert_int_eq(chunk_engine_commit(w.e, 1, (struct chunk_id){ 5, 2 }, 1), 0);
	ck_assert_int_eq(chunk_engine_abort(w.e, 1, (struct chunk_id){ 5, 7 }, 1), 0);
	ck_assert_int_eq(chunk_engine_next_pending(w.e, 1, (struct chunk_id){ 0 },
	    false, &i), -ENOENT);
	chunk_engine_check(w.e);
	world_fini(&w);
}
END_TEST

START_TEST(full_disk)
{
	struct world w;
	uint64_t cap, n;
	uint32_t i;
	int rc = 0;

	world_init(&w, 5);
	w.full_percent = 90;
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	for (i = 0; rc == 0 && i < 100; i++)
		rc = put_fill(&w, (struct chunk_id){ 1, i }, 18, 0, 1 << 18, 5, 1, true);
	ck_assert_int_eq(rc, -ENOSPC);
	chunk_engine_space(w.e, &cap, &n);
	ck_assert_uint_eq(cap, 8 << 20);
	ck_assert_uint_le(n, cap * 9 / 10);
	ck_assert_uint_gt(n + (1 << 18), cap * 9 / 10);
	/* What needs no data works; what it frees can be used at once. */
	ck_assert_int_eq(do_kind(&w, (struct chunk_id){ 1, 0 }, UPDATE_TRUNCATE, 18, 5000, 2,
	    true), 0);
	ck_assert_int_eq(do_kind(&w, (struct chunk_id){ 1, 1 }, UPDATE_REMOVE, 18, 0, 2,
	    true), 0);
	ck_assert_int_eq(put_fill(&w, (struct chunk_id){ 1, 99 }, 18, 0, 1 << 18, 6, 1,
	    true), 0);
	expect_fill(&w, (struct chunk_id){ 1, 99 }, 0, 0, 1 << 18, 6);
	expect_fill(&w, (struct chunk_id){ 1, 0 }, 0, 0, 5000, 5);
	chunk_engine_check(w.e);
	world_fini(&w);
}
END_TEST

/* The bound of the index is met with an answer, long before the table fails. */
START_TEST(full_index)
{
	struct world w;
	uint32_t i;
	int rc = 0;

	world_init(&w, 5);
	w.index_bytes = 40000;
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	for (i = 0; rc == 0 && i < 1000; i++)
		rc = put_fill(&w, (struct chunk_id){ 1, i }, 16, 0, 1, 5, 1, true);
	ck_assert_int_eq(rc, -ENOSPC);
	ck_assert_uint_gt(i, 50);
	ck_assert_int_eq(do_kind(&w, (struct chunk_id){ 1, 0 }, UPDATE_REMOVE, 16, 0, 2,
	    true), 0);
	ck_assert_int_eq(put_fill(&w, (struct chunk_id){ 1, 9999 }, 16, 0, 1, 5, 1, true),
	    0);
	/* What is counted at open is the same. */
	{
		uint64_t cost = w.e->index.cost_bytes;

		run_for(&w, 500);
		world_shut(&w);
		ck_assert_int_eq(world_open(&w), 0);
		ck_assert_uint_eq(w.e->index.cost_bytes, cost);
	}
	world_fini(&w);
}
END_TEST

/* A disk or table that fails takes the engine with it, and the log says which. */
static const struct {
	const char *what;
	uint32_t write, sync, table;
	bool full;
} io_errors[] = {
	{ "data write",		1000000, 0, 0, false },
	{ "sync",		0, 1000000, 0, false },
	{ "table",		0, 0, 1000000, false },
	{ "table full",		0, 0, 0, true },
};

START_TEST(io_error)
{
	struct world w;
	struct sim_disk_conf *c;
	struct chunk_read r;
	struct chunk_info info;
	int rc;

	world_init(&w, 5);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 5000, 5, 1, true), 0);
	run_for(&w, 200);
	c = sim_box_conf(w.box);
	c->write_eio_ppm = io_errors[_i].write;
	c->sync_eio_ppm = io_errors[_i].sync;
	c->table.eio_ppm = io_errors[_i].table;
	c->table.full = io_errors[_i].full;
	rc = put_fill(&w, one_id, 16, 0, 100, 6, 2, false);
	ck_assert_int_eq(rc, -EIO);
	ck_assert(strstr(w.said, "disk failed disk=01020304") != NULL);
	ck_assert_int_eq(chunk_engine_state(w.e), -EIO);
	ck_assert_int_eq(do_read(&w, one_id, 0, 0, 1, &r), -EIO);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 100, 6, 2, false), -EIO);
	ck_assert_int_eq(chunk_engine_info(w.e, 1, one_id, &info), -EIO);
	ck_assert_int_eq(chunk_engine_commit(w.e, 1, one_id, 2), -EIO);
	world_fini(&w);
}
END_TEST

/* Where a chunk of one run lies on the disk. */
static uint64_t
place_of(struct world *w, struct chunk_id id)
{
	struct chunk_row row = { 0 };
	uint64_t at;

	ck_assert_int_eq(chunk_index_get(&w->e->index, 1, id, true, &row), 0);
	ck_assert_uint_eq(row.extents.n, 1);
	at = row.extents.v[0].disk * CHUNK_BLOCK;
	chunk_row_fini(&row);
	return at;
}

static unsigned
times_said(const struct world *w, const char *text)
{
	unsigned n = 0;

	for (const char *p = w->said; (p = strstr(p, text)) != NULL; p++)
		n++;
	return n;
}

static void
count_call(void *ctx)
{
	(*(unsigned *)ctx)++;
}

/* A block that cannot be read costs its chunk, not the disk, and is remembered until the
 * chunk is whole again. */
static const struct {
	const char *what;
	int how;		/* 0: replaced, 1: removed, 2: overwritten, 3: read again */
	bool forgotten;
} heals[] = {
	{ "replaced under the same version", 0, true },
	{ "removed", 1, true },
	{ "a block beside it overwritten", 2, false },
	{ "verified after all", 3, true },
};

START_TEST(unreadable)
{
	static const struct chunk_id other = { 7, 4 }, third = { 9, 1 };
	struct world w;
	struct sim_disk_faults *x;
	struct chunk_damage d;
	struct chunk_read r;
	struct chunk_write c = { .target = 1, .id = one_id, .kind = UPDATE_REPLACE,
	    .shift = 20, .version = 1, .len = 20000 };
	uint8_t *b = malloc(20000);
	unsigned called = 0;

	memset(b, 5, 20000);
	world_init(&w, 5);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	w.e->conf.damaged = count_call;
	w.e->conf.damaged_ctx = &called;
	w.e->conf.path = "/d";
	ck_assert_int_eq(put_fill(&w, one_id, 20, 0, 20000, 5, 1, true), 0);
	ck_assert_int_eq(put_fill(&w, other, 20, 0, 20000, 6, 1, true), 0);
	ck_assert_int_eq(put_fill(&w, third, 20, 0, 20000, 7, 1, true), 0);
	x = sim_disk_faults(w.box, "/d");
	x->from = place_of(&w, one_id) + 8192;
	x->to = x->from + 4096;
	x->read_eio_ppm = 1000000;
	ck_assert_int_eq(chunk_engine_next_damaged(w.e, 0, (struct chunk_id){ 0 },
	    false, &d), -ENOENT);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(do_read(&w, one_id, 0, 8000, 5000, &r), ERR_CORRUPT);
	expect_fill(&w, one_id, 0, 0, 8192, 5);
	expect_fill(&w, other, 0, 0, 20000, 6);
	ck_assert_uint_eq(times_said(&w, "stored bytes cannot be read"), 1);
	ck_assert(strstr(w.said, "path=/d target=1 ino=7 index=3 block=1 version=1")
	    != NULL);
	ck_assert_uint_eq(called, 1);
	ck_assert_uint_eq(w.e->stat.read_errors, 3);
	ck_assert_uint_eq(w.e->stat.damaged_chunks, 1);
	/* An edge that a write has to copy is no better. */
	ck_assert_int_eq(put_fill(&w, one_id, 20, 8200, 10, 8, 2, false), ERR_CORRUPT);
	ck_assert_int_eq(chunk_engine_state(w.e), 0);
	ck_assert_int_eq(put_fill(&w, other, 20, 8200, 10, 8, 2, true), 0);
	/* The list is in order, across targets. */
	ck_assert_int_eq(sim_disk_flip(w.box, "/d", "data", place_of(&w, third), 1), 0);
	ck_assert_int_eq(do_read(&w, third, 0, 0, 1, &r), ERR_CORRUPT);
	ck_assert_int_eq(chunk_engine_next_damaged(w.e, 0, (struct chunk_id){ 0 },
	    false, &d), 0);
	ck_assert(d.target == 1 && chunk_id_cmp(d.id, one_id) == 0 && d.version == 1);
	ck_assert_int_eq(chunk_engine_next_damaged(w.e, 1, one_id, true, &d), 0);
	ck_assert(chunk_id_cmp(d.id, third) == 0);
	ck_assert_int_eq(chunk_engine_next_damaged(w.e, 1, third, true, &d), -ENOENT);
	ck_assert_uint_eq(called, 2);
	switch (heals[_i].how) {
	case 0:
		payload(&w, &c, b);
		ck_assert_int_eq(do_write(&w, &c), 0);
		ck_assert_int_eq(chunk_engine_next_damaged(w.e, 1, one_id, false, &d),
		    0);
		ck_assert_uint_eq(d.id.ino, 7);		/* not before it is committed */
		ck_assert_int_eq(chunk_engine_commit(w.e, 1, one_id, 1), 0);
		expect_fill(&w, one_id, 0, 0, 20000, 5);
		break;
	case 1:
		ck_assert_int_eq(do_kind(&w, one_id, UPDATE_REMOVE, 20, 0, 2, true), 0);
		break;
	case 2:
		ck_assert_int_eq(put_fill(&w, one_id, 20, 4096, 4096, 8, 2, true), 0);
		break;
	case 3:
		x->read_eio_ppm = 0;
		expect_fill(&w, one_id, 0, 0, 20000, 5);
		chunk_engine_healed(w.e, 1, one_id);
	}
	ck_assert_int_eq(chunk_engine_next_damaged(w.e, 1, one_id, false, &d), 0);
	ck_assert_msg((d.id.ino == 9) == heals[_i].forgotten, "%s", heals[_i].what);
	chunk_engine_check(w.e);
	free(b);
	world_fini(&w);
}
END_TEST

/* A repair that was durable is done, also when the power went before its flip was. */
START_TEST(repair_survives)
{
	struct chunk_write x = { .target = 1, .id = one_id, .kind = UPDATE_REPLACE,
	    .shift = 16, .version = 1, .len = 20000 };
	struct world w;
	struct chunk_info i;
	uint8_t *b = malloc(20000);

	memset(b, 5, 20000);
	world_init(&w, 5);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 20000, 5, 1, true), 0);
	run_for(&w, 200);
	ck_assert_int_eq(sim_disk_flip(w.box, "/d", "data", place_of(&w, one_id), 1), 0);
	payload(&w, &x, b);
	ck_assert_int_eq(do_write(&w, &x), 0);
	if (_i == 0)
		sim_disk_crash(w.box);
	world_shut(&w);
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(chunk_engine_info(w.e, 1, one_id, &i), 0);
	ck_assert_uint_eq(i.committed, 1);
	ck_assert_uint_eq(i.pending, 0);
	expect_fill(&w, one_id, 0, 0, 20000, 5);
	chunk_engine_check(w.e);
	run_for(&w, 200);
	ck_assert_uint_eq(used(&w), 20480);
	world_shut(&w);
	ck_assert_int_eq(world_open(&w), 0);
	expect_fill(&w, one_id, 0, 0, 20000, 5);
	chunk_engine_check(w.e);
	free(b);
	world_fini(&w);
}
END_TEST

/* A disk that is not there any more is noticed by itself, soon, and takes no write. */
static const struct {
	const char *what;
	bool gone, dead, label, recovers;
} absences[] = {
	{ "unmounted",		true, false, false, false },
	{ "device dead",	false, true, false, false },
	{ "labels overwritten",	false, false, true, false },
	{ "a short absence",	false, true, false, true },
};

START_TEST(vanished)
{
	struct world w;
	struct sim_disk_faults *x;

	world_init(&w, 5);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 5000, 5, 1, true), 0);
	run_for(&w, 20000);
	ck_assert_int_eq(chunk_engine_state(w.e), 0);
	x = sim_disk_faults(w.box, "/d");
	x->gone = absences[_i].gone;
	x->dead = absences[_i].dead;
	for (uint64_t at = 8; absences[_i].label && at < 8192; at += 4096)
		ck_assert_int_eq(sim_disk_flip(w.box, "/d", "data", at, 1), 0);
	run_for(&w, absences[_i].recovers ? 3000 : 8000);
	x->dead = false;
	run_for(&w, 20000);
	ck_assert_msg(chunk_engine_state(w.e) == (absences[_i].recovers ? 0 : -EIO),
	    "%s", absences[_i].what);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 100, 6, 2, false),
	    absences[_i].recovers ? 0 : -EIO);
	world_fini(&w);
}
END_TEST

/* The file system below has no space although the disk has: that write fails, no more. */
START_TEST(no_space)
{
	struct world w;
	struct sim_disk_faults *x;

	world_init(&w, 5);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 5000, 5, 1, true), 0);
	x = sim_disk_faults(w.box, "/d");
	x->full = true;
	ck_assert_int_eq(put_fill(&w, one_id, 16, 4000, 3000, 6, 2, false), -ENOSPC);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 5000, 3000, 6, 2, false), -ENOSPC);
	ck_assert_int_eq(chunk_engine_state(w.e), 0);
	ck_assert_uint_gt(w.e->stat.full_errors, 1);
	expect_fill(&w, one_id, 0, 0, 5000, 5);
	chunk_engine_check(w.e);
	/* Soon nothing is tried any more: the index needs what there may be. */
	run_for(&w, 5000);
	ck_assert(times_said(&w, "file system is full") == 1);
	x->full = false;
	ck_assert_int_eq(put_fill(&w, one_id, 16, 5000, 3000, 6, 2, true), -ENOSPC);
	ck_assert_int_eq(do_kind(&w, (struct chunk_id){ 8, 8 }, UPDATE_TRUNCATE, 16, 5000,
	    1, true), -ENOSPC);
	ck_assert_int_eq(do_kind(&w, one_id, UPDATE_TRUNCATE, 16, 4000, 2, false), 0);
	ck_assert_int_eq(chunk_engine_abort(w.e, 1, one_id, 2), 0);
	run_for(&w, 5000);
	ck_assert(times_said(&w, "file system has space again") == 1);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 5000, 3000, 6, 2, true), 0);
	expect_fill(&w, one_id, 0, 0, 5000, 5);
	expect_fill(&w, one_id, 0, 5000, 3000, 6);
	x->full = true;
	ck_assert_int_eq(do_kind(&w, one_id, UPDATE_REMOVE, 16, 0, 3, true), 0);
	run_for(&w, 200);
	ck_assert_uint_eq(used(&w), 0);
	chunk_engine_check(w.e);
	world_fini(&w);
}
END_TEST

/* Writes that a disk acknowledged and did not do, or did elsewhere: never wrong bytes. */
START_TEST(lies)
{
	struct world w;
	struct sim_disk_faults *x;
	unsigned bad = 0;

	world_init(&w, 50 + (uint64_t)_i);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	x = sim_disk_faults(w.box, "/d");
	x->lost_ppm = _i % 2 == 0 ? 100000 : 0;
	x->astray_ppm = _i % 2 == 0 ? 0 : 100000;
	for (uint32_t k = 0; k < 60; k++)
		ck_assert_int_eq(put_fill(&w, (struct chunk_id){ 7, k }, 16, 0, 40000,
		    (uint8_t)(k + 1), 1, true), 0);
	for (uint32_t k = 0; k < 60; k++) {
		struct chunk_read r;
		int rc = do_read(&w, (struct chunk_id){ 7, k }, 0, 0, 40000, &r);

		ck_assert(rc == 0 || rc == ERR_CORRUPT);
		bad += rc != 0;
		for (uint32_t i = 0; rc == 0 && i < r.got; i++)
			if (r.data[i] != (uint8_t)(k + 1))
				ck_abort_msg("wrong bytes were read");
		mem_put(&r.buf);
	}
	ck_assert_uint_gt(sim_disk_lies(w.box), 0);
	ck_assert_uint_ge(bad, sim_disk_lies(w.box));
	ck_assert_uint_eq(w.e->stat.damaged_chunks, bad);
	world_fini(&w);
}
END_TEST

/* Answers to what makes no sense. */
START_TEST(refusals)
{
	struct world w;
	struct chunk_write x = { .target = 1, .id = one_id, .kind = UPDATE_WRITE,
	    .shift = 16, .version = 1, .len = 8 };
	struct chunk_read r;
	struct chunk_info i;

	world_init(&w, 5);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(chunk_engine_info(w.e, 1, one_id, &i), -ENOENT);
	ck_assert_int_eq(do_read(&w, one_id, 0, 0, 1, &r), -ENOENT);
	ck_assert_int_eq(chunk_engine_commit(w.e, 1, one_id, 1), -ENOENT);
	ck_assert_int_eq(chunk_engine_abort(w.e, 1, one_id, 1), -ENOENT);
	payload(&w, &x, "12345678");
	x.crc++;
	ck_assert_int_eq(do_write(&w, &x), ERR_PAYLOAD_CRC);
	ck_assert_uint_eq(used(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, 15, 0, 1, 1, 1, false), -EINVAL);
	ck_assert_int_eq(put_fill(&w, one_id, 27, 0, 1, 1, 1, false), -EINVAL);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 65535, 2, 1, 1, false), -EINVAL);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 65536, 1, 1, 1, false), -EINVAL);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 1, 1, 0, false), -EINVAL);
	ck_assert_int_eq(do_kind(&w, one_id, 5, 16, 0, 1, false), -EINVAL);
	ck_assert_int_eq(do_kind(&w, one_id, UPDATE_TRUNCATE, 16, 65537, 1, false), -EINVAL);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 9, 1, 5, true), 0);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 9, 1, 5, false), -EINVAL);
	ck_assert_int_eq(put_fill(&w, one_id, 17, 0, 9, 1, 6, false), -EINVAL);
	ck_assert_int_eq(do_read(&w, one_id, 4, 0, 1, &r), -ENOENT);
	ck_assert_int_eq(do_read(&w, one_id, 0, 9, 1, &r), 0);	/* at the end: nothing */
	ck_assert_uint_eq(r.got, 0);
	ck_assert_uint_eq(r.got_version, 5);
	/* Empty by truncation, and of nothing. */
	ck_assert_int_eq(do_kind(&w, (struct chunk_id){ 9, 9 }, UPDATE_TRUNCATE, 16, 5, 1,
	    true), 0);
	ck_assert_int_eq(chunk_engine_info(w.e, 1, (struct chunk_id){ 9, 9 }, &i), 0);
	ck_assert_uint_eq(i.committed_len, 0);
	ck_assert_int_eq(do_kind(&w, (struct chunk_id){ 9, 8 }, UPDATE_REMOVE, 16, 5, 1,
	    true), 0);
	ck_assert_int_eq(chunk_engine_info(w.e, 1, (struct chunk_id){ 9, 8 }, &i), -ENOENT);
	chunk_engine_check(w.e);
	world_fini(&w);
}
END_TEST

/* A read that began before its version was removed and its space written again. */
START_TEST(reads_pin)
{
	struct world w;
	struct one o = { .r = { .target = 1, .id = one_id, .len = 1 << 20 } };
	struct sim_disk_conf *c;

	world_init(&w, 5);
	world_format(&w, 5 << 20);		/* room for four of them */
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, 20, 0, 1 << 20, 5, 1, true), 0);
	c = sim_box_conf(w.box);
	c->read_min_ns = c->read_max_ns = NS_PER_S;
	chunk_read_start(&o.r, w.e, one_read);
	run_for(&w, 1);
	c->read_min_ns = c->read_max_ns = 0;
	ck_assert_int_eq(do_kind(&w, one_id, UPDATE_REMOVE, 20, 0, 2, true), 0);
	run_for(&w, 200);
	ck_assert_uint_eq(used(&w), 1 << 20);
	for (uint32_t i = 0; i < 3; i++)
		ck_assert_int_eq(put_fill(&w, (struct chunk_id){ 1, i }, 20, 0, 1 << 20, 6,
		    1, true), 0);
	ck_assert(!o.done);
	/* This one has to wait for the reader. */
	ck_assert_int_eq(put_fill(&w, (struct chunk_id){ 1, 9 }, 20, 0, 1 << 20, 6, 1, true),
	    0);
	ck_assert(o.done);
	ck_assert_int_eq(o.rc, 0);
	for (uint32_t i = 0; i < 1 << 20; i++)
		if (o.r.data[i] != 5)
			ck_abort_msg("byte %u", i);
	mem_put(&o.r.buf);
	world_fini(&w);
}
END_TEST

/* ---- callbacks that close the engine ---- */

struct closer {
	struct world *w;
	struct chunk_write x[3];
	unsigned called;
};

static void
close_it(struct chunk_write *x, int rc)
{
	struct closer *c;

	memcpy(&c, x->who.client.b, sizeof(c));
	ck_assert_int_eq(rc, 0);
	c->called++;
	chunk_engine_close(c->w->e);
	c->w->e = NULL;
}

START_TEST(close_in_callback)
{
	struct world w;
	struct closer c = { .w = &w };
	struct closer *pc = &c;

	world_init(&w, 5);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	for (uint32_t i = 0; i < 3; i++) {
		c.x[i] = (struct chunk_write){ .target = 1, .id = { 1, i },
		    .kind = UPDATE_WRITE, .shift = 16, .version = 1, .len = 16 };
		memcpy(c.x[i].who.client.b, &pc, sizeof(pc));
		payload(&w, &c.x[i], disk_id.b);
		chunk_write_start(&c.x[i], w.e, close_it);
	}
	while (c.called == 0)
		turn(&w);
	run_for(&w, 1000);
	ck_assert_uint_eq(c.called, 1);
	for (uint32_t i = 0; i < 3; i++)
		mem_put(&c.x[i].buf);
	world_fini(&w);
}
END_TEST

/* ---- labels ---- */

static void
poke(struct world *w, uint64_t off, const void *p, size_t n)
{
	for (size_t i = 0; i < n * 8; i++)
		if (((const uint8_t *)p)[i / 8] >> (i % 8) & 1)
			ck_assert_int_eq(sim_disk_flip(w->box, "/d", "data", off + i / 8,
			    i % 8), 0);
}

static const struct {
	const char *what;
	uint64_t at[4];			/* bytes to damage, 0 ends */
	int	 rc;
} labels[] = {
	{ "untouched",			{ 0 }, 0 },
	{ "first copy damaged",		{ 33 }, 0 },
	{ "second copy damaged",	{ 4096 + 33 }, 0 },
	{ "both damaged",		{ 33, 4096 + 33 }, ERR_DISK_DAMAGED },
	{ "magic of the first",		{ 1 }, 0 },
	{ "magic of both",		{ 1, 4096 + 1 }, ERR_DISK_FOREIGN },
	{ "magic, and the other damaged", { 1, 4096 + 50 }, ERR_DISK_DAMAGED },
	{ "the spare part",		{ 4000, 4096 + 4000 }, ERR_DISK_DAMAGED },
};

START_TEST(label_damage)
{
	struct world w;
	uint8_t one = 1;

	world_init(&w, 5);
	world_format(&w, 9 << 20);
	for (unsigned k = 0; labels[_i].at[k] != 0; k++)
		poke(&w, labels[_i].at[k], &one, 1);
	ck_assert_int_eq(world_open(&w), labels[_i].rc);
	if (labels[_i].rc == 0) {
		ck_assert(uid128_eq(chunk_engine_disk(w.e), &disk_id));
		/* The bad copy was rewritten: the other one may go now. */
		world_shut(&w);
		poke(&w, labels[_i].at[0] < 4096 ? 4096 + 44 : 44, &one, 1);
		ck_assert_int_eq(world_open(&w), 0);
	}
	world_fini(&w);
}
END_TEST

START_TEST(label_newer)
{
	struct world w;
	struct chunk_label l = { .disk_id = disk_id, .epoch = 1, .data_bytes = 9 << 20 };
	uint8_t is[CHUNK_LABEL_BYTES], was[CHUNK_LABEL_BYTES], crc[4];
	uint32_t sum;

	world_init(&w, 5);
	world_format(&w, 9 << 20);
	chunk_label_encode(&l, was);
	memcpy(is, was, sizeof(is));
	is[12] = 2;
	sum = crc32c(0, is + 12, sizeof(is) - 12);
	for (unsigned i = 0; i < 4; i++)
		crc[i] = (uint8_t)(sum >> 8 * i);
	memcpy(is + 8, crc, 4);
	for (unsigned i = 0; i < sizeof(is); i++)
		is[i] ^= was[i];
	poke(&w, 4096, is, sizeof(is));
	ck_assert_int_eq(world_open(&w), ERR_DISK_NEWER);
	world_fini(&w);
}
END_TEST

/* A disk is made once; one half made is made to the end. */
START_TEST(format_twice)
{
	struct world w;
	struct disk *d;

	world_init(&w, 5);
	ck_assert_int_eq(sim_disk_dir(w.box, w.clock, "/d", true, &w.dir), 0);
	ck_assert_int_eq(chunk_engine_format(w.dir, w.clock, &disk_id, 1 << 20, turn, &w),
	    -EINVAL);
	ck_assert_int_eq(w.dir->ops->open(w.dir, "data", true, 9 << 20, &d), 0);
	disk_close(d);
	ck_assert_int_eq(chunk_engine_format(w.dir, w.clock, &disk_id, 8 << 20, turn, &w),
	    -EEXIST);
	ck_assert_int_eq(chunk_engine_format(w.dir, w.clock, &disk_id, 9 << 20, turn, &w), 0);
	ck_assert_int_eq(chunk_engine_format(w.dir, w.clock, &disk_id, 9 << 20, turn, &w),
	    -EEXIST);
	w.dir->ops->close(w.dir);
	w.dir = NULL;
	ck_assert_int_eq(world_open(&w), 0);
	world_fini(&w);
}
END_TEST

/* A row that claims space of another one is damage, found at open. */
START_TEST(space_twice)
{
	struct world w;
	struct chunk_row row = { 0 };

	world_init(&w, 5);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 5000, 5, 1, true), 0);
	ck_assert_int_eq(chunk_index_get(&w.e->index, 1, one_id, true, &row), 0);
	ck_assert_int_eq(chunk_index_put(&w.e->index, 1, (struct chunk_id){ 8, 1 }, &row, 0),
	    0);
	chunk_row_fini(&row);
	w.opened = false;
	chunk_engine_flush(w.e, open_done, &w);
	while (!w.opened)
		turn(&w);
	world_shut(&w);
	ck_assert_int_eq(world_open(&w), ERR_DISK_DAMAGED);
	ck_assert(strstr(w.said, "ino=8 index=1 what=\"space is used twice\"") != NULL);
	world_fini(&w);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("engine");
	TCase *tc = tcase_create("engine");
	SRunner *sr;
	const char *n = getenv("N");
	int seeds = n != NULL && *n != '\0' ? atoi(n) : 12;

	/* Whole chunks come and go: do not fetch fresh pages for each of them. */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	tcase_set_timeout(tc, 0);
	tcase_add_loop_test(tc, every_shift, 0, 11);
	tcase_add_test(tc, appends);
	tcase_add_loop_test(tc, turned_bit, 0, 2);
	tcase_add_test(tc, pending_walk);
	tcase_add_test(tc, full_disk);
	tcase_add_test(tc, full_index);
	tcase_add_loop_test(tc, io_error, 0, sizeof(io_errors) / sizeof(io_errors[0]));
	tcase_add_loop_test(tc, unreadable, 0, sizeof(heals) / sizeof(heals[0]));
	tcase_add_loop_test(tc, repair_survives, 0, 2);
	tcase_add_loop_test(tc, vanished, 0, sizeof(absences) / sizeof(absences[0]));
	tcase_add_test(tc, no_space);
	tcase_add_loop_test(tc, lies, 0, 4);
	tcase_add_test(tc, refusals);
	tcase_add_test(tc, reads_pin);
	tcase_add_test(tc, close_in_callback);
	tcase_add_loop_test(tc, label_damage, 0, sizeof(labels) / sizeof(labels[0]));
	tcase_add_test(tc, label_newer);
	tcase_add_test(tc, format_twice);
	tcase_add_test(tc, space_twice);
	tcase_add_loop_test(tc, model_holds, 0, seeds);
	tcase_add_loop_test(tc, crashes, 0, 3 * seeds);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	n = srunner_ntests_failed(sr) > 0 ? "" : NULL;
	srunner_free(sr);
	return n != NULL;
}
