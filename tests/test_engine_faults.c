/* SPDX-License-Identifier: MIT */
/* test_engine_faults.c - a disk of chunks whose disk lies, fails, fills up or is damaged. */
#include "tests/engine_rig.h"

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

/* A damaged chunk is read as it is, of any size, and stored elsewhere as it is: with the
 * checksums that its blocks should have, so that nobody takes those for good that are not. */
static const struct {
	const char *what;
	uint8_t	 shift;
	uint32_t len;
	bool	 unreadable;
} as_they_are[] = {
	{ "a turned bit, some bytes",	20, 3 * 4096 + 100, false },
	{ "a turned bit, all of the largest chunk", 26, 1u << 26, false },
	{ "a block that cannot be read",	20, 3 * 4096 + 100, true },
};

START_TEST(as_it_is)
{
	static const struct chunk_id copy_id = { 7, 4 };
	uint8_t shift = as_they_are[_i].shift;
	uint32_t len = as_they_are[_i].len, sum = chunk_sum_bytes(shift);
	uint32_t n = chunk_blocks(len, sum), bad = len - 5;
	struct one o = { .r = { .target = 1, .id = one_id, .len = len, .anyhow = true } };
	struct chunk_write x = { .target = 1, .id = copy_id, .kind = UPDATE_REPLACE,
	    .shift = shift, .version = 1, .len = len };
	struct sim_disk_faults *f;
	struct chunk_damage d;
	struct chunk_read r;
	struct world w;
	uint64_t at;

	world_init(&w, 5);
	world_format(&w, 256 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, shift, 0, len, 7, 1, true), 0);
	at = place_of(&w, one_id) + bad;
	if (as_they_are[_i].unreadable) {
		f = sim_disk_faults(w.box, "/d");
		f->from = at;
		f->to = at + 1;
		f->read_eio_ppm = 1000000;
	} else
		ck_assert_int_eq(sim_disk_flip(w.box, "/d", "data", at, 3), 0);
	chunk_read_start(&o.r, w.e, one_read);
	while (!o.done)
		turn(&w);
	ck_assert_int_eq(o.rc, 0);
	ck_assert_uint_eq(o.r.got, len);
	ck_assert_uint_eq(o.r.sum_n, n);
	ck_assert_uint_eq(o.r.bad_n, 1);
	ck_assert_uint_eq(o.r.crc, crc32c(0, o.r.data, len));
	ck_assert_uint_eq(o.r.data[bad], as_they_are[_i].unreadable ? 0 : 7 ^ 8);
	ck_assert_uint_eq(o.r.data[0], 7);

	x.sums = o.r.sums;
	x.sum_n = o.r.sum_n;
	payload(&w, &x, o.r.data);
	ck_assert_int_eq(do_write(&w, &x), 0);
	ck_assert_int_eq(chunk_engine_abort(w.e, 1, copy_id, 1), 0);
	ck_assert_uint_eq(w.e->damages.map.n, 1);	/* only what it came from */
	payload(&w, &x, o.r.data);
	ck_assert_int_eq(do_write(&w, &x), 0);
	ck_assert_uint_eq(chunk_engine_damaged(w.e), 1);
	ck_assert_int_eq(chunk_engine_commit(w.e, 1, copy_id, 1), 0);
	ck_assert_uint_eq(chunk_engine_damaged(w.e), 2);
	ck_assert_int_eq(chunk_engine_next_damaged(w.e, 1, one_id, true, &d), 0);
	ck_assert_uint_eq(d.id.index, copy_id.index);
	ck_assert_uint_eq(d.block, n - 1);
	mem_put(&o.r.buf);
	mem_put(&o.r.sums_buf);
	ck_assert_int_eq(do_read(&w, copy_id, 0, 0, len, &r), ERR_CORRUPT);
	expect_fill(&w, copy_id, 0, 0, (n - 1) * sum, 7);
	chunk_engine_check(w.e);
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
	uint64_t errors;

	world_init(&w, 5);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 0, 5000, 5, 1, true), 0);
	x = sim_disk_faults(w.box, "/d");
	x->full = true;
	ck_assert_int_eq(put_fill(&w, one_id, 16, 4000, 3000, 6, 2, false), -ENOSPC);
	ck_assert(chunk_engine_full(w.e));	/* others need not try, for a while */
	errors = w.e->stat.full_errors;
	ck_assert_uint_gt(errors, 0);
	ck_assert_int_eq(put_fill(&w, one_id, 16, 5000, 3000, 6, 2, false), -ENOSPC);
	ck_assert_uint_eq(w.e->stat.full_errors, errors);
	ck_assert_int_eq(chunk_engine_state(w.e), 0);
	expect_fill(&w, one_id, 0, 0, 5000, 5);
	chunk_engine_check(w.e);
	x->full = false;
	run_for(&w, CHUNK_CHECK_MS + 1000);
	ck_assert(!chunk_engine_full(w.e));
	ck_assert(times_said(&w, "file system") == 0);
	x->full = true;
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

/* In place of the data disk: one that does not answer. */
struct hung {
	struct disk	disk;
	struct disk    *real;
	unsigned	kept;
};

static void
hung_start(struct disk *d, struct disk_req *r)
{
	(void)r;
	container_of(d, struct hung, disk)->kept++;
}

static bool
hung_close(struct disk *d)
{
	disk_close(container_of(d, struct hung, disk)->real);
	return false;
}

/* Memory that it was given, and did not give back, is never anybody else's. */
START_TEST(never_answers)
{
	static const struct disk_ops ops = { .start = hung_start, .close = hung_close };
	struct hung h = { .kept = 0 };
	struct mem_buf b, other;
	uint8_t *looks, *left, *other_was;
	struct world w;

	world_init(&w, 5);
	world_format(&w, 9 << 20);
	ck_assert_int_eq(world_open(&w), 0);
	h.real = w.e->data;
	h.disk = (struct disk){ &ops, h.real->size };
	w.e->data = &h.disk;
	for (unsigned i = 0; i < 10000 && h.kept == 0; i++)
		turn(&w);		/* to the next look at the label */
	ck_assert_uint_gt(h.kept, 0);
	looks = w.e->presence.buf;
	ck_assert_int_eq(mem_get(w.pool, 9 * CHUNK_BLOCK, &b), 0);
	left = b.p;
	world_shut(&w);
	mem_put(&b);
	ck_assert_int_eq(mem_get(w.pool, 9 * CHUNK_BLOCK, &other), 0);
	ck_assert_ptr_ne(other_was = other.p, left);
	memset(looks, 1, CHUNK_LABEL_BYTES);
	memset(left, 1, 9 * CHUNK_BLOCK);
	mem_put(&other);
	world_fini(&w);
	free(other_was);
	free(looks);
	free(left);
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
	TCase *tc = tcase_create("engine");

	tcase_set_timeout(tc, 0);
	tcase_add_loop_test(tc, turned_bit, 0, 2);
	tcase_add_loop_test(tc, io_error, 0, sizeof(io_errors) / sizeof(io_errors[0]));
	tcase_add_loop_test(tc, unreadable, 0, sizeof(heals) / sizeof(heals[0]));
	tcase_add_loop_test(tc, as_it_is, 0, sizeof(as_they_are) / sizeof(as_they_are[0]));
	tcase_add_loop_test(tc, repair_survives, 0, 2);
	tcase_add_loop_test(tc, vanished, 0, sizeof(absences) / sizeof(absences[0]));
	tcase_add_test(tc, no_space);
	tcase_add_loop_test(tc, lies, 0, 4);
	tcase_add_loop_test(tc, label_damage, 0, sizeof(labels) / sizeof(labels[0]));
	tcase_add_test(tc, label_newer);
	tcase_add_test(tc, format_twice);
	tcase_add_test(tc, never_answers);
	tcase_add_test(tc, space_twice);
	return suite_run("engine_faults", tc);
}
