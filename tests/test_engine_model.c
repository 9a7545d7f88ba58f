/* SPDX-License-Identifier: MIT */
/* test_engine_model.c - a disk of chunks against arrays of bytes: random changes, crashes at
 * any moment.  N=n runs n seeds, SEED=n just that one. */
#include "tests/engine_rig.h"

#define SLOTS	14u
#define READS	8u
#define MODEL_STATES	64u

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

int
main(void)
{
	TCase *tc = tcase_create("engine");
	const char *n = getenv("N");
	int seeds = n != NULL && *n != '\0' ? atoi(n) : 12;

	/* Whole chunks come and go: do not fetch fresh pages for each of them. */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	tcase_set_timeout(tc, 0);
	tcase_add_loop_test(tc, model_holds, 0, seeds);
	tcase_add_loop_test(tc, crashes, 0, 3 * seeds);
	return suite_run("engine_model", tc);
}
