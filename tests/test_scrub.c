/* SPDX-License-Identifier: MIT */
/* test_scrub.c - what a disk does about its own damage: the scrubber finds it, the repair
 * replaces it, each over a real engine on a simulated disk.  The peer is a table of what
 * was written. */
#include <assert.h>
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/engine.h"
#include "chunk/state.h"
#include "conf/crc32c.h"
#include "conf/err.h"
#include "roles/storage_repair.h"
#include "roles/storage_scrub.h"
#include "tests/sim/clock.h"
#include "tests/sim/disk.h"

#define CHUNKS	12u
#define LEN	200000u
#define SHIFT	18u

static const struct uid128 disk_id = { { 9, 8, 7 } };

struct job {
	struct clock_timer timer;
	struct chunk_write w;
	struct storage_repair_job *job;
	bool busy;
};

struct world {
	struct sim_clock *time;
	struct clock	*clock;
	struct rand	 rand;
	struct sim_box	*box;
	struct disk_dir	*dir;
	struct mem_pool	*pool;
	struct log	 log;
	struct conf	 conf;
	char		 said[16384];
	struct chunk_engine *e;
	struct storage_scrub *scrub;
	struct storage_repair *repair;
	bool		 done;
	int		 rc;
	bool		 busy;
	int		 refuse;		/* the peer's answer, at first */
	unsigned	 asked;
	struct job	 jobs[8];
};

static void
say(void *ctx, enum log_level level, const char *who, const char *what,
    const char *fields)
{
	struct world *w = ctx;
	size_t n = strlen(w->said);

	(void)level;
	(void)who;
	if (n < sizeof(w->said) / 2)
		snprintf(w->said + n, sizeof(w->said) - n, "%s %s\n", what, fields);
	if (getenv("LOG") != NULL)
		fprintf(stderr, "[%8.3f] %s %s\n", (double)clock_now(w->clock) / 1e9,
		    what, fields);
}

static void
turn(void *ctx)
{
	struct world *w = ctx;

	assert(sim_clock_step(w->time));
}

static void
done(void *ctx, int rc)
{
	struct world *w = ctx;

	w->done = true;
	w->rc = rc;
}

static bool
is_busy(void *ctx)
{
	return ((struct world *)ctx)->busy;
}

/* ---- the peer: every chunk is full of its own number ---- */

static void
stored(struct chunk_write *cw, int rc)
{
	struct job *j = container_of(cw, struct job, w);

	mem_put(&cw->buf);
	if (rc == 0)
		rc = chunk_engine_commit(cw->engine, cw->target, cw->id, cw->version);
	j->busy = false;
	storage_repair_ended(j->job, rc);
}

static void
fetched(struct clock_timer *t)
{
	struct job *j = container_of(t, struct job, timer);

	chunk_write_start(&j->w, j->w.engine, stored);
}

static void
refused(struct clock_timer *t)
{
	struct job *j = container_of(t, struct job, timer);

	j->busy = false;
	storage_repair_ended(j->job, ERR_BUSY);
}

static int
replace(void *ctx, target_id target, struct chunk_id id, uint8_t shift,
    struct storage_repair_job *job)
{
	struct world *w = ctx;
	struct job *j = w->jobs;
	int rc = w->refuse;

	w->asked++;
	if (w->refuse == -ENODEV || w->refuse == ERR_NO_LEASE) {
		w->refuse = 0;
		return rc;
	}
	while (j->busy)
		j++;
	*j = (struct job){ .job = job, .busy = true };
	j->w = (struct chunk_write){ .target = target, .id = id,
	    .kind = UPDATE_REPLACE, .shift = shift, .version = 1, .len = LEN,
	    .engine = w->e };
	if (rc == 0) {
		ck_assert_int_eq(mem_get(w->pool, LEN, &j->w.buf), 0);
		j->w.data = j->w.buf.p;
		memset(j->w.data, (int)id.index + 1, LEN);
		j->w.crc = crc32c(0, j->w.data, LEN);
	}
	w->refuse = 0;
	clock_timer_start(w->clock, &j->timer, clock_now(w->clock) + NS_PER_MS,
	    rc == 0 ? fetched : refused);
	return 0;
}

/* ---- the world ---- */

static void
poke(void *ctx)
{
	struct world *w = ctx;

	if (w->repair != NULL)
		storage_repair_poke(w->repair);
}

static void
disk_up(struct world *w, bool repair)
{
	struct chunk_engine_conf c = { .clock = w->clock, .log = &w->log,
	    .pool = w->pool, .index_bytes = 64 << 20, .full_percent = 100,
	    .path = "/d", .damaged = poke, .damaged_ctx = w };
	struct storage_scrub_conf sc = { .clock = w->clock, .log = &w->log,
	    .conf = &w->conf, .path = "/d", .busy = is_busy, .ctx = w };
	struct storage_repair_conf rc = { .clock = w->clock, .log = &w->log,
	    .path = "/d", .replace = replace, .ctx = w };

	ck_assert_int_eq(sim_disk_dir(w->box, w->clock, "/d", true, &w->dir), 0);
	c.dir = w->dir;
	w->done = false;
	ck_assert_int_eq(chunk_engine_open(&w->e, &c, done, w), 0);
	while (!w->done)
		turn(w);
	ck_assert_int_eq(w->rc, 0);
	sc.engine = rc.engine = w->e;
	ck_assert_int_eq(storage_scrub_open(&w->scrub, &sc), 0);
	if (repair)
		ck_assert_int_eq(storage_repair_open(&w->repair, &rc), 0);
}

static void
disk_down(struct world *w, bool clean)
{
	if (clean) {
		storage_scrub_stop(w->scrub);
		storage_repair_stop(w->repair);
		w->done = false;
		chunk_engine_flush(w->e, done, w);
		while (!w->done)
			turn(w);
	} else
		sim_disk_crash(w->box);
	chunk_engine_close(w->e);
	storage_scrub_close(w->scrub);
	storage_repair_close(w->repair);
	w->e = NULL;
	w->scrub = NULL;
	w->repair = NULL;
	for (unsigned i = 0; i < 8; i++)
		if (w->jobs[i].busy) {
			clock_timer_stop(w->clock, &w->jobs[i].timer);
			mem_put(&w->jobs[i].w.buf);
			w->jobs[i].busy = false;
		}
	w->dir->ops->close(w->dir);
	ck_assert_uint_eq(sim_clock_node_pending(w->clock), 0);
	ck_assert_uint_eq(sim_disk_inflight(w->box), 0);
}

static void
write_done(struct chunk_write *cw, int rc)
{
	(void)cw;
	ck_assert_int_eq(rc, 0);
}

static void
world_init(struct world *w, uint64_t seed, bool repair)
{
	memset(w, 0, sizeof(*w));
	rand_seed(&w->rand, seed);
	w->time = sim_clock_open();
	w->clock = sim_clock_node(w->time, 0, 0);
	w->box = sim_box_open(&w->rand);
	log_init(&w->log, "storage");
	w->log.sink = say;
	w->log.ctx = w;
	w->conf.storage_scrub_time = 3600 * 1000;
	w->conf.storage_scrub_rate = 64 << 20;
	ck_assert_int_eq(mem_pool_open(&w->pool, 64u << 20, 16u << 20), 0);
	ck_assert_int_eq(sim_disk_dir(w->box, w->clock, "/d", true, &w->dir), 0);
	ck_assert_int_eq(chunk_engine_format(w->dir, w->clock, &disk_id, 16 << 20, turn,
	    w), 0);
	w->dir->ops->close(w->dir);
	disk_up(w, repair);
	for (uint32_t i = 0; i < CHUNKS; i++) {
		struct chunk_write cw = { .target = 1 + i % 2, .id = { 5, i },
		    .kind = UPDATE_WRITE, .shift = SHIFT, .version = 1, .len = LEN };

		ck_assert_int_eq(mem_get(w->pool, LEN, &cw.buf), 0);
		cw.data = cw.buf.p;
		memset(cw.data, (int)i + 1, LEN);
		cw.crc = crc32c(0, cw.data, LEN);
		chunk_write_start(&cw, w->e, write_done);
		while (cw.impl != NULL)
			turn(w);
		mem_put(&cw.buf);
		ck_assert_int_eq(chunk_engine_commit(w->e, cw.target, cw.id, 1), 0);
	}
	sim_clock_run(w->time, NS_PER_S);
}

static void
world_fini(struct world *w)
{
	disk_down(w, true);
	mem_pool_close(w->pool);
	sim_box_close(w->box);
	sim_clock_close(w->time);
}

static void
run_s(struct world *w, uint64_t s)
{
	sim_clock_run(w->time, s * NS_PER_S);
}

/* Turn a bit of byte @off of chunk @i. */
static void
rot(struct world *w, uint32_t i, uint32_t off)
{
	struct chunk_row row = { 0 };
	uint32_t block = off / CHUNK_BLOCK;

	ck_assert_int_eq(chunk_index_get(&w->e->index, 1 + i % 2,
	    (struct chunk_id){ 5, i }, true, &row), 0);
	for (size_t k = 0; k < row.extents.n; k++) {
		const struct chunk_extent *x = &row.extents.v[k];

		if (block >= x->at && block < x->at + x->count)
			ck_assert_int_eq(sim_disk_flip(w->box, "/d", "data",
			    (x->disk + block - x->at) * CHUNK_BLOCK + off % CHUNK_BLOCK,
			    off % 8), 0);
	}
	chunk_row_fini(&row);
}

struct reading {
	struct chunk_read r;
	bool done;
	int  rc;
};

static void
read_done(struct chunk_read *r, int rc)
{
	struct reading *x = container_of(r, struct reading, r);

	x->done = true;
	x->rc = rc;
}

static int
check_chunk(struct world *w, uint32_t i)
{
	struct reading x = { .r = { .target = 1 + i % 2, .id = { 5, i }, .len = LEN } };

	chunk_read_start(&x.r, w->e, read_done);
	while (!x.done)
		turn(w);
	if (x.rc != 0)
		return x.rc;
	ck_assert_uint_eq(x.r.got, LEN);
	for (uint32_t k = 0; k < LEN; k++)
		if (x.r.data[k] != i + 1)
			ck_abort_msg("wrong bytes");
	mem_put(&x.r.buf);
	return 0;
}

static bool
said(const struct world *w, const char *text)
{
	return strstr(w->said, text) != NULL;
}

/* ---- tests ---- */

/* Wherever a bit turns, the next pass finds it and the peer's bytes replace it. */
static const struct {
	const char *what;
	uint32_t off;
} places[] = {
	{ "first byte",			0 },
	{ "last byte",			LEN - 1 },
	{ "end of the first block",	4095 },
	{ "first of the second piece",	65536 },
	{ "in the last, partial block",	LEN - LEN % 4096 },
	{ "somewhere",			123456 },
};

START_TEST(rot_is_repaired)
{
	struct world w;
	struct chunk_damage d;

	world_init(&w, 1 + (uint64_t)_i, true);
	for (uint32_t i = 0; i < CHUNKS; i += 3)
		rot(&w, i, places[_i].off);
	run_s(&w, 60);
	ck_assert_uint_eq(storage_scrub_stats(w.scrub)->passes, 1);
	ck_assert_uint_ge(storage_scrub_stats(w.scrub)->errors, CHUNKS / 3);
	ck_assert_uint_eq(storage_repair_stats(w.repair)->repaired, CHUNKS / 3);
	ck_assert_uint_eq(w.asked, CHUNKS / 3);
	ck_assert(said(&w, "block repaired from peer disk=/d target=1 ino=5 index=0"));
	ck_assert_int_eq(chunk_engine_next_damaged(w.e, 0, (struct chunk_id){ 0 }, false,
	    &d), -ENOENT);
	for (uint32_t i = 0; i < CHUNKS; i++)
		ck_assert_msg(check_chunk(&w, i) == 0, "%s: chunk %u", places[_i].what, i);
	world_fini(&w);
}
END_TEST

/* One pass reads everything once; then there is rest until it is time again. */
START_TEST(numbers)
{
	struct world w;
	const struct storage_scrub_stat *st;
	uint64_t blocks = CHUNKS * ((LEN + 4095) / 4096);

	world_init(&w, 3, false);
	st = storage_scrub_stats(w.scrub);
	ck_assert_uint_eq(st->chunks, 0);
	run_s(&w, 60);
	ck_assert_uint_eq(st->passes, 1);
	ck_assert_uint_eq(st->chunks, CHUNKS);
	ck_assert_uint_eq(st->bytes, CHUNKS * LEN);
	ck_assert_uint_eq(st->blocks, blocks);
	ck_assert_uint_eq(st->errors, 0);
	ck_assert_uint_eq(st->progress_percent, 100);
	ck_assert_uint_ge(st->ended_time, st->begun_time);
	run_s(&w, 3000);
	ck_assert_uint_eq(st->passes, 1);
	run_s(&w, 1000);
	ck_assert_uint_eq(st->passes, 2);
	ck_assert_uint_eq(st->bytes, 2 * CHUNKS * LEN);
	/* Changed while it runs. */
	w.conf.storage_scrub_time = 0;
	run_s(&w, 20000);
	ck_assert_uint_eq(st->passes, 2);
	w.conf.storage_scrub_time = 60 * 1000;
	run_s(&w, 100);
	ck_assert_uint_ge(st->passes, 3);
	world_fini(&w);
}
END_TEST

/* Not faster than it may, not slower than it has to. */
START_TEST(paced)
{
	static const struct {
		const char *what;
		uint64_t rate;
		bool busy;
		uint64_t early_s, late_s;
	} rows[] = {
		{ "64 KiB/s",		64 << 10, false, 25, 60 },
		{ "the smallest rate",	4096, false, 500, 700 },
		{ "always busy",	64 << 20, true, 8, 60 },
	};
	struct world w;
	const struct storage_scrub_stat *st;

	world_init(&w, 3, false);
	w.conf.storage_scrub_rate = rows[_i].rate;
	w.busy = rows[_i].busy;
	st = storage_scrub_stats(w.scrub);
	run_s(&w, 10 + rows[_i].early_s);
	ck_assert_msg(st->passes == 0, "%s: too early", rows[_i].what);
	ck_assert_uint_lt(st->progress_percent, 100);
	run_s(&w, rows[_i].late_s - rows[_i].early_s);
	ck_assert_msg(st->passes == 1, "%s: too late", rows[_i].what);
	ck_assert_uint_eq(st->bytes, CHUNKS * LEN);
	ck_assert(rows[_i].busy == (st->yields > 0));
	world_fini(&w);
}
END_TEST

/* A restart costs at most a minute of reading again; a clean one nothing to speak of. */
START_TEST(resumes)
{
	struct world w;
	uint64_t bytes, chunks;
	bool clean = _i == 0;

	world_init(&w, 3, false);
	w.conf.storage_scrub_rate = 16 << 10;	/* about 150 s */
	run_s(&w, 100);
	bytes = storage_scrub_stats(w.scrub)->bytes;
	chunks = storage_scrub_stats(w.scrub)->chunks;
	ck_assert_uint_gt(chunks, 4);
	ck_assert_uint_lt(chunks, CHUNKS);
	disk_down(&w, clean);
	disk_up(&w, false);
	ck_assert(said(&w, "scrub goes on disk=/d"));
	run_s(&w, 300);
	ck_assert_uint_eq(storage_scrub_stats(w.scrub)->passes, 1);
	bytes += storage_scrub_stats(w.scrub)->bytes;
	chunks += storage_scrub_stats(w.scrub)->chunks;
	ck_assert_uint_ge(bytes, CHUNKS * LEN);
	ck_assert_uint_le(chunks, CHUNKS + (clean ? 1 : 6));
	/* And it rests on, as if it had not been away. */
	disk_down(&w, clean);
	disk_up(&w, false);
	run_s(&w, 1000);
	ck_assert_uint_eq(storage_scrub_stats(w.scrub)->passes, 0);
	world_fini(&w);
}
END_TEST

/* A peer that cannot help at first is asked again. */
START_TEST(asked_again)
{
	static const struct {
		const char *what;
		int first;
		unsigned failed, alone;
	} rows[] = {
		{ "at once",		0, 0, 0 },
		{ "busy",		ERR_BUSY, 1, 0 },
		{ "no lease",		ERR_NO_LEASE, 1, 0 },
		{ "nobody there",	-ENODEV, 0, 1 },
	};
	struct world w;
	const struct storage_repair_stat *st;

	world_init(&w, 3, true);
	st = storage_repair_stats(w.repair);
	w.refuse = rows[_i].first;
	rot(&w, 4, 777);
	ck_assert_int_eq(check_chunk(&w, 4), ERR_CORRUPT);
	run_s(&w, 5);
	ck_assert_uint_eq(st->repaired, 1);
	ck_assert_uint_eq(st->failed, rows[_i].failed);
	ck_assert_uint_eq(st->alone, rows[_i].alone);
	ck_assert_int_eq(check_chunk(&w, 4), 0);
	world_fini(&w);
}
END_TEST

/* While nobody helps there is more and more rest between attempts. */
START_TEST(backs_off)
{
	struct world w;
	unsigned asked;

	world_init(&w, 3, true);
	w.conf.storage_scrub_time = 0;
	rot(&w, 4, 777);
	ck_assert_int_eq(check_chunk(&w, 4), ERR_CORRUPT);
	for (unsigned s = 0; s < 1000; s++) {
		w.refuse = -ENODEV;
		run_s(&w, 1);
	}
	asked = w.asked;
	ck_assert_uint_ge(asked, 15);
	ck_assert_uint_le(asked, 30);
	/* New damage is looked at soon, all the same. */
	w.refuse = 0;
	rot(&w, 6, 777);
	ck_assert_int_eq(check_chunk(&w, 6), ERR_CORRUPT);
	run_s(&w, 2);
	ck_assert_uint_eq(storage_repair_stats(w.repair)->repaired, 2);
	world_fini(&w);
}
END_TEST

/* What can be read again is left as it is. */
START_TEST(sound_after_all)
{
	struct world w;
	struct sim_disk_faults *x;

	world_init(&w, 3, true);
	x = sim_disk_faults(w.box, "/d");
	x->from = 1 << 20;
	x->to = 16 << 20;
	x->read_eio_ppm = 1000000;
	ck_assert_int_eq(check_chunk(&w, 4), ERR_CORRUPT);
	x->read_eio_ppm = 0;
	run_s(&w, 2);
	ck_assert_uint_eq(storage_repair_stats(w.repair)->sound, 1);
	ck_assert_uint_eq(w.asked, 0);
	ck_assert_int_eq(check_chunk(&w, 4), 0);
	world_fini(&w);
}
END_TEST

/* The end may come at any moment; rot at any rate never gives wrong bytes. */
START_TEST(any_seed)
{
	const char *seed = getenv("SEED");
	struct world w;
	struct sim_disk_faults *x;

	world_init(&w, seed != NULL ? strtoull(seed, NULL, 0) : 100 + (uint64_t)_i, true);
	x = sim_disk_faults(w.box, "/d");
	x->from = 1 << 20;
	x->to = 16 << 20;
	w.conf.storage_scrub_time = 10 * 1000;
	for (unsigned k = 0; k < 12; k++) {
		x->flip_ppm = 200000;
		x->read_eio_ppm = 100000;
		for (uint64_t n = rand_below(&w.rand, 400); n > 0; n--) {
			w.busy = rand_chance(&w.rand, 1, 5);
			w.refuse = rand_chance(&w.rand, 1, 4) ? ERR_BUSY : 0;
			turn(&w);
			if (rand_chance(&w.rand, 1, 40))
				check_chunk(&w, (uint32_t)rand_below(&w.rand, CHUNKS));
		}
		if (rand_chance(&w.rand, 1, 2)) {
			disk_down(&w, rand_chance(&w.rand, 1, 2));
			disk_up(&w, true);
		}
		chunk_engine_check(w.e);
	}
	x->flip_ppm = x->read_eio_ppm = 0;
	w.refuse = 0;
	w.busy = false;
	run_s(&w, 200);
	for (uint32_t i = 0; i < CHUNKS; i++)
		ck_assert_int_eq(check_chunk(&w, i), 0);
	chunk_engine_check(w.e);
	world_fini(&w);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("scrub");
	TCase *tc = tcase_create("scrub");
	const char *n = getenv("N");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, rot_is_repaired, 0, sizeof(places) / sizeof(places[0]));
	tcase_add_test(tc, numbers);
	tcase_add_loop_test(tc, paced, 0, 3);
	tcase_add_loop_test(tc, resumes, 0, 2);
	tcase_add_loop_test(tc, asked_again, 0, 4);
	tcase_add_test(tc, backs_off);
	tcase_add_test(tc, sound_after_all);
	tcase_add_loop_test(tc, any_seed, 0, n != NULL && *n != '\0' ? atoi(n) : 40);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
