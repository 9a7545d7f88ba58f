/* SPDX-License-Identifier: MIT */
/* test_log.c - the durable log over disks that tear and forget.  tests/golden/log.2 pins
 * its bytes (GOLDEN=1 prints them), log.1 those that version 1 wrote; N=n runs n seeds of crashes, SEED=n just that one. */
#include "meta/log.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "tests/sim/clock.h"
#include "tests/sim/disk.h"

#define GOLDEN	"tests/golden/log.2"
#define GOLDEN_OLD "tests/golden/log.1"
#define INDEX_MAX 200000u

/* A box, and the log of a process on it. */
static struct {
	struct rand	  rand, disk_rand;
	struct sim_clock *world;
	struct sim_box	 *box;
	struct clock	 *clock;
	struct disk_dir	 *dir;
	struct meta_log	 *log;
	uint64_t	  log_bytes;
	/* what the log has said in this run */
	bool		  ready, broken;
	int		  ready_rc, broken_rc;
	uint64_t	  first, last;		/* entries; first 0: none */
	uint64_t	  stop_at;		/* close when this entry comes */
	unsigned	  more;			/* appended from inside entry() */
	/* what the world knows */
	uint64_t	  serial;		/* payloads made */
	uint64_t	 *content;		/* index -> serial that it has */
	uint64_t	  appended, acked, cut, run;
	bool		  brim;			/* cut only when the ring is full */
	bool		  checked;		/* compare entries with content */
	uint64_t	 *where;		/* serial -> index it was appended at */
	bool		  cuts_back;
} t;

/* Payload of @serial: its number, and bytes that follow from it. */
static size_t
payload(uint64_t serial, uint8_t *out)
{
	struct rand r;
	size_t len;

	rand_seed(&r, serial);
	len = rand_chance(&r, 1, 50) ? META_LOG_PAYLOAD_MAX :
	    8 + rand_below(&r, rand_chance(&r, 1, 10) ? 9000 : 300);
	memcpy(out, &serial, sizeof(serial));
	memset(out + 8, (int)(serial * 37 + len), len - 8);
	return len;
}

static int
append(void)
{
	static uint8_t buf[META_LOG_PAYLOAD_MAX];
	uint64_t index;
	int rc;

	rc = meta_log_append(t.log, 1, 1, buf, payload(++t.serial, buf), &index);
	if (rc != 0)
		return rc;
	ck_assert_uint_eq(index, t.appended + 1);
	ck_assert_uint_lt(t.serial, INDEX_MAX);
	t.content[t.appended = index] = t.serial;
	t.where[t.serial] = index;
	return 0;
}

static uint64_t
serial_of(const struct meta_log_entry *e)
{
	uint64_t serial;

	memcpy(&serial, e->payload, sizeof(serial));
	return serial;
}

/* Take back what was appended after @index. */
static void
cut_back(uint64_t index)
{
	ck_assert_int_eq(meta_log_cut_back(t.log, index), 0);
	ck_assert_uint_eq(meta_log_end(t.log), index);
	t.appended = index;
	t.acked = t.acked < index ? t.acked : index;
	t.last = t.last < index ? t.last : index;
}

static void
on_entry(void *ctx, const struct meta_log_entry *e)
{
	static uint8_t buf[META_LOG_PAYLOAD_MAX];

	(void)ctx;
	if (t.first == 0)
		t.first = e->index;
	else
		ck_assert_uint_eq(e->index, t.last + 1);
	t.last = e->index;
	if (t.ready)
		t.acked = e->index;
	if (t.checked && !t.ready && e->index > t.acked &&
	    serial_of(e) <= t.serial && t.where[serial_of(e)] == e->index) {
		/* Not promised: what was there, or what took its place. */
		if (e->index > t.appended)
			t.appended = e->index;
		t.content[e->index] = serial_of(e);
	}
	if (t.checked) {
		ck_assert_uint_le(e->index, t.appended);
		ck_assert_uint_eq(e->len, payload(t.content[e->index], buf));
		ck_assert(memcmp(e->payload, buf, e->len) == 0);
		ck_assert_uint_eq(e->term, 1);
		ck_assert_uint_eq(e->type, 1);
	}
	if (e->index == t.stop_at) {
		meta_log_close(t.log);
		t.log = NULL;
	} else if (t.more > 0 && t.ready) {
		t.more--;
		ck_assert_int_eq(append(), 0);
	}
}

static void
on_ready(void *ctx, int rc)
{
	(void)ctx;
	ck_assert(!t.ready);
	t.ready = true;
	t.ready_rc = rc;
}

static void
on_broken(void *ctx, int rc)
{
	(void)ctx;
	ck_assert(t.ready && !t.broken);
	t.broken = true;
	t.broken_rc = rc;
}

static const struct meta_log_ops ops = {
	.entry = on_entry, .ready = on_ready, .broken = on_broken,
};

static void
setup_seed(uint64_t seed)
{
	memset(&t, 0, sizeof(t));
	rand_seed(&t.rand, seed);
	rand_seed(&t.disk_rand, seed + 1000000);
	t.world = sim_clock_open();
	t.box = sim_box_open(&t.disk_rand);
	t.log_bytes = META_LOG_BYTES_MIN;
	t.content = calloc(INDEX_MAX, sizeof(*t.content));
	t.where = calloc(INDEX_MAX, sizeof(*t.where));
	t.checked = true;
}

static void
setup(void)
{
	setup_seed(1);
}

static bool
is_ready(void *ctx)
{
	(void)ctx;
	return t.ready || t.log == NULL;
}

/* Start a process: its log, opened. Returns what ready() said. */
static int
start(void)
{
	t.clock = sim_clock_node(t.world, 0, 0);
	ck_assert_int_eq(sim_disk_dir(t.box, t.clock, "d", true, &t.dir), 0);
	t.ready = t.broken = false;
	t.first = t.last = 0;
	ck_assert_int_eq(meta_log_open(&t.log, &(struct meta_log_conf){
		.clock = t.clock, .dir = t.dir, .name = "log",
		.bytes = t.log_bytes, .ops = &ops }), 0);
	ck_assert(!t.ready);
	ck_assert(sim_clock_run_until(t.world, is_ready, NULL, 60 * NS_PER_S));
	return t.ready_rc;
}

enum end { CLEAN, KILL, CRASH };

static void
stop(enum end how)
{
	if (how != CLEAN)
		sim_clock_node_kill(t.clock);
	if (how == KILL)
		sim_disk_kill(t.box);
	if (how == CRASH)
		sim_disk_crash(t.box);
	meta_log_close(t.log);
	t.log = NULL;
	t.dir->ops->close(t.dir);
	t.dir = NULL;
	if (how == CLEAN)
		ck_assert_uint_eq(sim_clock_node_pending(t.clock), 0);
	sim_clock_node_close(t.clock);
}

static void
teardown(void)
{
	meta_log_close(t.log);		/* left by a test that failed */
	if (t.dir != NULL)
		t.dir->ops->close(t.dir);
	sim_box_close(t.box);
	sim_clock_close(t.world);
	free(t.content);
	free(t.where);
}

static void
settle(void)
{
	ck_assert(sim_clock_run_idle(t.world, 60 * NS_PER_S));
}

/* ---- the bytes ---- */

static const struct meta_log_header golden_header = {
	.seq = 0x0102030405060708, .run = 9, .ring_bytes = 0x100000,
	.first_index = 100, .first_pos = 0x23450, .first_term = 3,
	.first_prev = 0xa1b2c3d4, .open_index = 120, .synced_index = 0x1234567890,
	.hard = { .term = 0x2233445566, .vote = 0x8877665544332211,
	    .owner = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 } },
};
static const struct meta_log_head golden_entry = {
	.prev = 0xcafe0102, .len = 5, .run = 9, .index = 0x1122334455667788,
	.pos = 0x99aabbccdd00, .term = 4, .type = 1, .back = 7,
};

static void
hex(char *out, const char *what, const uint8_t *p, size_t n)
{
	out += sprintf(out, "%s ", what);
	for (size_t i = 0; i < n; i++)
		out += sprintf(out, "%02x", p[i]);
	sprintf(out, "\n");
}

static void
golden_text(char *out)
{
	uint8_t block[META_LOG_BLOCK], entry[META_LOG_ENTRY + 5];
	struct meta_log_head h = golden_entry;

	meta_log_header_encode(&golden_header, block);
	hex(out, "header", block, 128);
	memcpy(entry + META_LOG_ENTRY, "hello", 5);
	meta_log_head_encode(&h, "hello", entry);
	hex(out + strlen(out), "entry", entry, sizeof(entry));
}

START_TEST(golden_bytes)
{
	char want[1024] = "", got[1024];
	FILE *f = fopen(GOLDEN, "r");

	ck_assert_ptr_nonnull(f);
	want[fread(want, 1, sizeof(want) - 1, f)] = '\0';
	fclose(f);
	golden_text(got);
	ck_assert_str_eq(got, want);
}
END_TEST

/* What version 1 wrote still opens, with a vote for nobody. */
START_TEST(version_1)
{
	uint8_t block[META_LOG_BLOCK] = { 0 }, again[META_LOG_BLOCK];
	struct meta_log_header h, want = golden_header;
	char text[512] = "";
	FILE *f = fopen(GOLDEN_OLD, "r");
	unsigned byte;

	ck_assert_ptr_nonnull(f);
	ck_assert_ptr_nonnull(fgets(text, sizeof(text), f));
	fclose(f);
	for (unsigned i = 0; i < 96; i++) {
		ck_assert_int_eq(sscanf(text + 7 + 2 * i, "%2x", &byte), 1);
		block[i] = (uint8_t)byte;
	}
	memset(&want.hard, 0, sizeof(want.hard));
	ck_assert_int_eq(meta_log_header_decode(&h, block), 0);
	meta_log_header_encode(&h, block);
	meta_log_header_encode(&want, again);
	ck_assert(memcmp(block, again, sizeof(block)) == 0);
}
END_TEST

START_TEST(header_decodes)
{
	static const struct { const char *what; size_t at; uint8_t xor; int rc; }
	cases[] = {
		{ "as written", 0, 0, 0 },
		{ "another magic", 0, 1, ERR_DISK_FOREIGN },
		{ "crc", 8, 1, ERR_CORRUPT },
		{ "a field", 40, 1, ERR_CORRUPT },
		{ "the zeros behind", 4095, 1, ERR_CORRUPT },
	};
	uint8_t block[META_LOG_BLOCK];
	struct meta_log_header h;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		meta_log_header_encode(&golden_header, block);
		block[cases[i].at] ^= cases[i].xor;
		ck_assert_msg(meta_log_header_decode(&h, block) == cases[i].rc,
		    "%s", cases[i].what);
	}
	meta_log_header_encode(&golden_header, block);
	ck_assert_int_eq(meta_log_header_decode(&h, block), 0);
	ck_assert(memcmp(&h, &golden_header, sizeof(h)) == 0);
}
END_TEST

START_TEST(entry_decodes)
{
	uint8_t bytes[META_LOG_ENTRY];
	struct meta_log_head h = golden_entry, back;

	meta_log_head_encode(&h, "hello", bytes);
	meta_log_head_decode(&back, bytes);
	ck_assert_uint_eq(back.crc, h.crc);
	ck_assert_uint_eq(back.prev, h.prev);
	ck_assert_uint_eq(back.len, 5);
	ck_assert_uint_eq(back.run, 9);
	ck_assert_uint_eq(back.index, h.index);
	ck_assert_uint_eq(back.pos, h.pos);
	ck_assert_uint_eq(back.term, 4);
	ck_assert_uint_eq(back.type, 1);
	ck_assert_uint_eq(back.back, 7);
}
END_TEST

/* ---- calm weather ---- */

START_TEST(a_new_log_is_empty)
{
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(t.first, 0);
	ck_assert_uint_eq(meta_log_first(t.log), 1);
	ck_assert_uint_eq(meta_log_last(t.log), 0);
	ck_assert_uint_eq(meta_log_run(t.log), 1);
	stop(CLEAN);
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(meta_log_run(t.log), 2);
	stop(CLEAN);
}
END_TEST

START_TEST(what_was_appended_comes_back)
{
	ck_assert_int_eq(start(), 0);
	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(append(), 0);
	ck_assert_uint_eq(t.acked, 0);		/* not before it has returned */
	settle();
	ck_assert_uint_eq(t.acked, 20);
	stop(CRASH);
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(t.first, 1);
	ck_assert_uint_eq(t.last, 20);
	stop(CLEAN);
}
END_TEST

START_TEST(appends_of_one_turn_are_one_batch)
{
	uint64_t before;

	ck_assert_int_eq(start(), 0);
	t.more = 100;			/* each entry() appends another */
	ck_assert_int_eq(append(), 0);
	settle();
	ck_assert_uint_eq(t.acked, 101);
	before = sim_clock_now(t.world);
	for (int i = 0; i < 100; i++)
		ck_assert_int_eq(append(), 0);
	settle();
	ck_assert_uint_eq(t.acked, 201);
	ck_assert_uint_lt(sim_clock_now(t.world) - before, 20 * NS_PER_MS);
	stop(CLEAN);
}
END_TEST

START_TEST(a_full_ring_is_busy_until_cut)
{
	int rc;

	ck_assert_int_eq(start(), 0);
	do {
		if ((rc = append()) == ERR_BUSY) {	/* the batch, or the ring */
			settle();
			rc = append();
		}
	} while (rc == 0);
	ck_assert_int_eq(rc, ERR_BUSY);
	ck_assert_uint_eq(t.acked, t.appended);
	ck_assert_uint_ge(meta_log_used_bytes(t.log),
	    meta_log_ring_bytes(t.log) / 10 * 8);
	meta_log_truncate(t.log, t.acked - 3);
	settle();
	ck_assert_uint_le(meta_log_first(t.log), t.acked - 2);
	ck_assert_uint_le(meta_log_used_bytes(t.log),
	    meta_log_ring_bytes(t.log) / 4);
	ck_assert_int_eq(append(), 0);
	settle();
	meta_log_truncate(t.log, t.acked);
	settle();
	ck_assert_uint_eq(meta_log_used_bytes(t.log), 0);
	ck_assert_uint_eq(meta_log_first(t.log), t.acked + 1);
	stop(CLEAN);
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(t.first, 0);
	ck_assert_uint_eq(meta_log_last(t.log), t.acked);
	stop(CLEAN);
}
END_TEST

START_TEST(too_long_is_refused)
{
	static uint8_t big[META_LOG_PAYLOAD_MAX + 1];
	uint64_t index;

	ck_assert_int_eq(start(), 0);
	ck_assert_int_eq(meta_log_append(t.log, 1, 1, big, sizeof(big), &index),
	    -EMSGSIZE);
	stop(CLEAN);
}
END_TEST

START_TEST(closed_inside_a_callback)
{
	ck_assert_int_eq(start(), 0);
	t.stop_at = 5;
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(append(), 0);
	settle();
	ck_assert_ptr_null(t.log);
	ck_assert_uint_eq(t.acked, 5);
	stop(CLEAN);
	ck_assert_int_eq(start(), 0);		/* and during the scan */
	ck_assert_ptr_null(t.log);
	ck_assert(!t.ready);
	stop(CLEAN);
	t.stop_at = 0;
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(t.last, 10);
	stop(CLEAN);
}
END_TEST

START_TEST(a_failed_write_breaks_it)
{
	ck_assert_int_eq(start(), 0);
	ck_assert_int_eq(append(), 0);
	settle();
	if (_i == 0)
		sim_box_conf(t.box)->write_eio_ppm = 1000000;
	else
		sim_box_conf(t.box)->sync_eio_ppm = 1000000;
	ck_assert_int_eq(append(), 0);
	settle();
	ck_assert(t.broken);
	ck_assert_int_eq(t.broken_rc, -EIO);
	ck_assert_uint_eq(t.acked, 1);
	t.appended = 2;
	ck_assert_int_eq(append(), -EIO);
	stop(CLEAN);
}
END_TEST

START_TEST(taken_back)
{
	static const struct { const char *what; unsigned n, turns, to; } cases[] = {
		{ "what was not written", 10, 0, 4 },
		{ "all that was not written", 10, 0, 0 },
		{ "what is being written", 10, 1, 4 },
		{ "what is durable", 10, 2, 4 },
		{ "all that is durable", 10, 2, 0 },
		{ "nothing", 10, 2, 10 },
	};
	unsigned n = cases[_i].n;

	ck_assert_int_eq(start(), 0);
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(append(), 0);
	if (cases[_i].turns > 0)
		sim_clock_run(t.world, 100 * NS_PER_US);
	if (cases[_i].turns > 1)
		settle();
	ck_assert_int_eq(meta_log_cut_back(t.log, n + 1), -EINVAL);
	cut_back(cases[_i].to);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(append(), 0);
	settle();
	ck_assert_uint_eq(t.acked, cases[_i].to + 5);
	cut_back(cases[_i].to + 3);		/* and again */
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(append(), 0);
	settle();
	stop(CRASH);
	ck_assert_msg(start() == 0, "%s: %s", cases[_i].what, err_name(t.ready_rc));
	ck_assert_uint_eq(t.last, cases[_i].to + 8);
	stop(CLEAN);
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(t.last, cases[_i].to + 8);
	stop(CLEAN);
}
END_TEST

START_TEST(begun_again_elsewhere)
{
	ck_assert_int_eq(start(), 0);
	for (unsigned i = 0; i < 10; i++)
		ck_assert_int_eq(append(), 0);
	if (_i > 0)
		settle();
	ck_assert_uint_gt(meta_log_restart(t.log, 100, 7), 0);
	ck_assert_uint_eq(meta_log_first(t.log), 101);
	ck_assert_uint_eq(meta_log_end(t.log), 100);
	ck_assert_uint_eq(meta_log_end_term(t.log), 7);
	settle();
	ck_assert_uint_eq(meta_log_last(t.log), 100);
	stop(CRASH);
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(t.first, 0);
	ck_assert_uint_eq(meta_log_first(t.log), 101);
	ck_assert_uint_eq(meta_log_first_term(t.log), 7);
	stop(CLEAN);
}
END_TEST

START_TEST(a_vote_is_kept_twice)
{
	struct meta_log_hard h = { .term = 5, .vote = 77, .owner = { 1, 2 } };
	uint64_t ticket;

	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(meta_log_hard(t.log)->term, 0);
	ticket = meta_log_save(t.log, &h);
	ck_assert_uint_lt(meta_log_saved(t.log), ticket);
	settle();
	ck_assert_uint_eq(meta_log_saved(t.log), ticket);
	stop(CRASH);
	/* Either header may rot. */
	ck_assert_int_eq(sim_disk_flip(t.box, "d", "log", _i * META_LOG_BLOCK + 50,
	    2), 0);
	ck_assert_int_eq(start(), 0);
	ck_assert_uint_eq(meta_log_hard(t.log)->term, 5);
	ck_assert_uint_eq(meta_log_hard(t.log)->vote, 77);
	ck_assert_int_eq(meta_log_hard(t.log)->owner[1], 2);
	stop(CLEAN);
}
END_TEST

static uint64_t read_next;

static void
read_some(void *ctx, struct meta_log_reader *r, int rc)
{
	static uint8_t buf[META_LOG_PAYLOAD_MAX];
	struct meta_log_entry e;

	(void)ctx;
	ck_assert_int_eq(rc, 0);
	while (meta_log_reader_next(r, &e)) {
		ck_assert_uint_eq(e.index, read_next++);
		ck_assert_uint_eq(e.len, payload(t.content[e.index], buf));
		ck_assert(memcmp(e.payload, buf, e.len) == 0);
	}
	if (read_next <= t.acked)
		meta_log_reader_start(r, read_next, read_some, NULL);
}

static void
read_none(void *ctx, struct meta_log_reader *r, int rc)
{
	(void)r;
	*(int *)ctx = rc;
}

START_TEST(read_back)
{
	struct meta_log_reader *r;
	struct meta_log_entry e;
	int rc = 0;

	ck_assert_int_eq(start(), 0);
	for (unsigned i = 0; i < 40; i++) {
		for (unsigned k = 0; k < 15; k++)
			(void)append();
		settle();
		if (i == 20)
			cut_back(t.acked - 7);
	}
	ck_assert_int_eq(meta_log_get(t.log, t.acked + 1, &e), -ENOENT);
	ck_assert_int_eq(meta_log_get(t.log, t.acked, &e), 0);
	ck_assert_int_eq(meta_log_get(t.log, 1, &e), -EAGAIN);
	ck_assert_int_eq(meta_log_reader_open(&r, t.log), 0);
	for (uint64_t from = 1; from < t.acked; from += 100) {
		read_next = from;
		meta_log_reader_start(r, from, read_some, NULL);
		settle();
		ck_assert_uint_eq(read_next, t.acked + 1);
	}
	meta_log_truncate(t.log, 300);
	settle();
	meta_log_reader_start(r, meta_log_first(t.log) - 1, read_none, &rc);
	settle();
	ck_assert_int_eq(rc, -ENOENT);
	meta_log_reader_start(r, meta_log_first(t.log), read_none, &rc);
	sim_clock_run(t.world, NS_PER_US);
	meta_log_reader_close(r);		/* in flight */
	settle();
	ck_assert_int_eq(rc, -ENOENT);
	stop(CLEAN);
}
END_TEST

/* ---- damage ---- */

/* Several batches of one entry each, a block apart; header synced up to some. */
static void
batches(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t index;

		ck_assert_int_eq(meta_log_append(t.log, 1, 1, "x", 1, &index), 0);
		settle();
	}
}

static const struct {
	const char *what;
	unsigned before, after;		/* batches in the first and second run */
	unsigned block;			/* of the ring: where a bit turns */
	int	 rc;
	uint64_t last;
} damages[] = {
	{ "the last batch, nothing behind: as if it was torn", 0, 5, 4, 0, 4 },
	{ "a batch before the last", 0, 5, 3, ERR_LOG_DAMAGED, 0 },
	{ "the first batch", 0, 5, 0, ERR_LOG_DAMAGED, 0 },
	{ "the last batch, but an open has seen it", 5, 0, 4, ERR_LOG_DAMAGED, 0 },
	{ "between runs", 3, 3, 2, ERR_LOG_DAMAGED, 0 },
};

START_TEST(damage)
{
	t.checked = false;
	ck_assert_int_eq(start(), 0);
	batches(damages[_i].before);
	stop(CLEAN);
	ck_assert_int_eq(start(), 0);
	batches(damages[_i].after);
	stop(CLEAN);
	ck_assert_int_eq(sim_disk_flip(t.box, "d", "log", META_LOG_HEADERS +
	    damages[_i].block * META_LOG_BLOCK + 20, 1), 0);
	ck_assert_msg(start() == damages[_i].rc, "%s: %s", damages[_i].what,
	    err_name(t.ready_rc));
	if (t.ready_rc == 0)
		ck_assert_msg(t.last == damages[_i].last, "%s", damages[_i].what);
	stop(CLEAN);
}
END_TEST

START_TEST(one_header_is_enough)
{
	ck_assert_int_eq(start(), 0);
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(append(), 0);
	settle();
	stop(CLEAN);
	/* The last open wrote block 1.  Without it the entries of that run do not count,
	 * but they are there: not a log that is shorter than what was acknowledged. */
	ck_assert_int_eq(sim_disk_flip(t.box, "d", "log", _i * META_LOG_BLOCK + 50,
	    2), 0);
	ck_assert_int_eq(start(), _i == 0 ? 0 : ERR_LOG_DAMAGED);
	ck_assert_uint_eq(t.last, _i == 0 ? 5 : 0);
	stop(CLEAN);
	ck_assert_int_eq(sim_disk_flip(t.box, "d", "log", 60, 2), 0);
	ck_assert_int_eq(sim_disk_flip(t.box, "d", "log", META_LOG_BLOCK + 60, 2),
	    0);
	t.checked = false;
	ck_assert_int_ne(start(), 0);
	stop(CLEAN);
}
END_TEST

/* ---- any weather ---- */

static void
weather(void)
{
	struct sim_disk_conf *c = sim_box_conf(t.box);

	c->write_min_ns = 20 * NS_PER_US;
	c->write_max_ns = 500 * NS_PER_US;
	c->sync_min_ns = 50 * NS_PER_US;
	c->sync_max_ns = 2 * NS_PER_MS;
	c->read_min_ns = 10 * NS_PER_US;
	c->read_max_ns = 100 * NS_PER_US;
}

static void
cut(void)
{
	uint64_t n = t.acked - t.cut;

	if (n == 0)
		return;
	t.cut += rand_chance(&t.rand, 1, 4) ? n :
	    1 + rand_below(&t.rand, t.brim ? (n + 7) / 8 : n);
	meta_log_truncate(t.log, t.cut);
}

/* Append and cut at random until some moment. */
static void
load(void)
{
	unsigned steps = (unsigned)rand_below(&t.rand, 100);

	for (unsigned i = 0; i < steps; i++) {
		unsigned n = rand_chance(&t.rand, 1, t.brim ? 3 : 8) ?
		    (unsigned)rand_below(&t.rand, 200) :
		    (unsigned)rand_below(&t.rand, 4);

		while (n-- > 0) {
			if (append() == 0)
				continue;
			if (!t.brim || meta_log_used_bytes(t.log) <
			    meta_log_ring_bytes(t.log) / 4 * 3)
				break;
			cut();			/* and at once fill it again */
			if (append() != 0)
				break;
		}
		if (!t.brim && rand_chance(&t.rand, 1, 6))
			cut();
		if (t.cuts_back && rand_chance(&t.rand, 1, 6)) {
			uint64_t low = t.appended > 80 ? t.appended - 80 : 0;
			struct meta_log_entry e;

			/* in memory, as the group sees to */
			low = low < meta_log_first(t.log) - 1 ?
			    meta_log_first(t.log) - 1 : low;
			low = low < t.cut ? t.cut : low;
			while (low < t.appended &&
			    (meta_log_get(t.log, low, &e) == -EAGAIN ||
			    meta_log_get(t.log, low + 1, &e) == -EAGAIN))
				low++;
			if (low < t.appended)
				cut_back(low + rand_below(&t.rand,
				    t.appended - low + 1));
		}
		sim_clock_run(t.world, rand_below(&t.rand, 3 * NS_PER_MS));
	}
}

/* However it ends, the next process finds every entry that was acknowledged and not cut,
 * in order, nothing that was never appended, and nothing that an earlier process had
 * already found missing. */
START_TEST(any_end)
{
	uint64_t seed = getenv("SEED") != NULL && *getenv("SEED") != '\0' ?
	    strtoull(getenv("SEED"), NULL, 0) : (uint64_t)_i;

	setup_seed(seed);
	weather();
	t.brim = rand_chance(&t.rand, 1, 2);
	t.cuts_back = rand_chance(&t.rand, 1, 2);
	for (unsigned run = 1; run <= 12; run++) {
		unsigned r = (unsigned)rand_below(&t.rand, 10);

		/* sometimes the process dies while it opens */
		if (r == 0) {
			t.clock = sim_clock_node(t.world, 0, 0);
			sim_disk_dir(t.box, t.clock, "d", true, &t.dir);
			t.ready = false;
			t.first = t.last = 0;
			ck_assert_int_eq(meta_log_open(&t.log,
			    &(struct meta_log_conf){ .clock = t.clock,
				.dir = t.dir, .name = "log",
				.bytes = t.log_bytes, .ops = &ops }), 0);
			sim_clock_run(t.world, rand_below(&t.rand,
			    12 * NS_PER_MS));
			if (t.ready) {
				ck_assert_int_eq(t.ready_rc, 0);
				t.run = meta_log_run(t.log);
				t.appended = meta_log_last(t.log);
					}
			stop(CRASH);
			continue;
		}
		ck_assert_msg(start() == 0, "seed %lu run %u: %s",
		    (unsigned long)seed, run, err_name(t.ready_rc));
		ck_assert_uint_gt(meta_log_run(t.log), t.run);
		t.run = meta_log_run(t.log);
		ck_assert_uint_ge(meta_log_last(t.log), t.acked);
		ck_assert_uint_le(meta_log_first(t.log), t.cut + 1);
		if (t.first != 0) {
			ck_assert_uint_eq(t.first, meta_log_first(t.log));
			ck_assert_uint_eq(t.last, meta_log_last(t.log));
		}
		t.appended = t.acked = meta_log_last(t.log);
		load();
		stop(rand_chance(&t.rand, 1, 10) ? CLEAN :
		    rand_chance(&t.rand, 1, 3) ? KILL : CRASH);
	}
	teardown();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("log");
	TCase *bytes = tcase_create("bytes"), *calm = tcase_create("calm");
	TCase *any = tcase_create("any");
	SRunner *sr = srunner_create(s);
	const char *n = getenv("N"), *seed = getenv("SEED");
	int failed, seeds = n != NULL && atoi(n) > 0 ? atoi(n) : 120;

	if (getenv("GOLDEN") != NULL) {
		char text[1024];

		golden_text(text);
		fputs(text, stdout);
		return 0;
	}
	tcase_add_test(bytes, golden_bytes);
	tcase_add_test(bytes, version_1);
	tcase_add_test(bytes, header_decodes);
	tcase_add_test(bytes, entry_decodes);
	suite_add_tcase(s, bytes);
	tcase_add_checked_fixture(calm, setup, teardown);
	tcase_add_test(calm, a_new_log_is_empty);
	tcase_add_test(calm, what_was_appended_comes_back);
	tcase_add_test(calm, appends_of_one_turn_are_one_batch);
	tcase_add_test(calm, a_full_ring_is_busy_until_cut);
	tcase_add_test(calm, too_long_is_refused);
	tcase_add_loop_test(calm, taken_back, 0, 6);
	tcase_add_loop_test(calm, begun_again_elsewhere, 0, 2);
	tcase_add_loop_test(calm, a_vote_is_kept_twice, 0, 2);
	tcase_add_test(calm, read_back);
	tcase_add_test(calm, closed_inside_a_callback);
	tcase_add_loop_test(calm, a_failed_write_breaks_it, 0, 2);
	tcase_add_loop_test(calm, damage, 0,
	    (int)(sizeof(damages) / sizeof(damages[0])));
	tcase_add_loop_test(calm, one_header_is_enough, 0, 2);
	suite_add_tcase(s, calm);
	tcase_add_loop_test(any, any_end, 0,
	    seed != NULL && *seed != '\0' ? 1 : seeds);
	suite_add_tcase(s, any);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
