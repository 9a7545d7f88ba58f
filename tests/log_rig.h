/* SPDX-License-Identifier: MIT */
/* log_rig.h - a box whose disk tears and forgets, the durable log of a process on it, and what
 * the world knows of it: which entries were appended, acknowledged and cut.  Static functions:
 * each test is one program. */
#ifndef TESTS_LOG_RIG_H
#define TESTS_LOG_RIG_H

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "meta/log.h"
#include "tests/box_end.h"
#include "tests/suite.h"

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

static void
stop(enum end how)
{
	box_ends(t.box, t.clock, how);
	meta_log_close(t.log);
	t.log = NULL;
	box_ended(&t.dir, t.clock, how);
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

#endif
