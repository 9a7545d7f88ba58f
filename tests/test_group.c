/* SPDX-License-Identifier: MIT */
/* test_group.c - a small state machine over a group: nothing acknowledged is lost, order
 * is kept, and a crash at any moment recovers to exactly the log.  N=n runs n seeds of
 * crashes, SEED=n just that one. */
#include "meta/group.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/err.h"
#include "meta/log.h"
#include "tests/box_end.h"
#include "tests/suite.h"

#define INDEX_MAX	100000u
#define REQS		64u
#define KEYS		50u

/* A command is a serial number and filler.  Applying it folds the number into a hash of
 * all commands so far, and puts it under one of a few keys; the result is the hash. */
struct req {
	struct group_req r;
	uint64_t serial, result;
	int	 rc;
	bool	 out;			/* in flight */
};

static struct {
	struct rand	  rand, disk_rand, group_rand;
	struct sim_clock *world;
	struct sim_box	 *box;
	struct clock	 *clock;
	struct disk_dir	 *dir;
	struct group	 *group;
	uint64_t	  log_bytes, last_run;
	uint32_t	  flush_bytes, flush_ms, inflight_max;
	struct req	  reqs[REQS];
	bool		  leads, broken, flushed;
	int		  broken_rc;
	unsigned	  applies, answers, reads;
	uint64_t	  break_at;		/* apply of this index fails */
	bool		  close_in_fn;
	bool		  returned;		/* from group_propose() */
	/* what the world knows */
	uint64_t	  serial, *content, appended, acked;
	uint64_t	  seen;		/* applied, or the group's own entries */
	uint64_t	  base;		/* applied when it began to serve */
} t;

/* Entries up to @index that were not given to apply() are the group's. */
static void
skip_to(uint64_t index)
{
	while (t.seen < index)
		t.content[++t.seen] = 0;
}

static uint64_t
mix(uint64_t hash, uint64_t serial)
{
	return (hash ^ serial) * 0x9e3779b97f4a7c15ull + 1;
}

static uint64_t
get(const void *key, size_t n)
{
	const void *value;
	size_t len;
	int rc = table_get(group_table(t.group), key, n, &value, &len);

	if (rc == -ENOENT)
		return 0;
	ck_assert_int_eq(rc, 0);
	ck_assert_uint_eq(len, 8);
	return bytes_from_be64(value);
}

static void
put(const void *key, size_t n, uint64_t v)
{
	uint8_t value[8];

	bytes_be64(value, v);
	ck_assert_int_eq(table_put(group_table(t.group), key, n, value, 8), 0);
}

static size_t
apply(void *ctx, uint64_t index, const void *cmd, size_t len, void *result,
    size_t cap)
{
	uint64_t serial, hash;
	uint8_t key[2] = { 'k' };

	(void)ctx;
	ck_assert_uint_ge(len, 8);
	ck_assert_uint_eq(cap, GROUP_RESULT_MAX);
	ck_assert_uint_eq(index, group_applied(t.group) + 1);
	serial = bytes_from_be64(cmd);
	skip_to(index - 1);
	t.seen = index;
	ck_assert_uint_le(index, t.appended);
	ck_assert_uint_eq(serial, t.content[index]);
	t.applies++;
	if (index == t.break_at) {
		put("half", 4, 1);
		group_break(t.group, -ENOMEM);
		return 0;
	}
	hash = mix(get("hash", 4), serial);
	key[1] = (uint8_t)(serial % KEYS);
	put("hash", 4, hash);
	put(key, 2, serial);
	bytes_be64(result, hash);
	return 8;
}

static void
leader(void *ctx, bool leads)
{
	(void)ctx;
	ck_assert(leads && !t.leads);
	t.leads = true;
}

static void
broken(void *ctx, int rc)
{
	(void)ctx;
	ck_assert(!t.broken);
	for (unsigned i = 0; i < REQS; i++)
		ck_assert(!t.reqs[i].out);
	t.broken = true;
	t.broken_rc = rc;
}

static const struct group_ops ops = {
	.apply = apply, .leader = leader, .broken = broken,
};

static void
answered(struct group_req *r, int rc, const void *result, size_t len)
{
	struct req *q = container_of(r, struct req, r);

	ck_assert(q->out && t.returned);
	q->out = false;
	q->rc = rc;
	t.answers++;
	if (rc == 0) {
		ck_assert_uint_eq(len, 8);
		q->result = bytes_from_be64(result);
		ck_assert_uint_eq(r->index, t.acked + 1);
		ck_assert_uint_eq(group_applied(t.group), r->index);
		t.acked = r->index;
	}
	if (t.close_in_fn) {
		group_close(t.group);
		t.group = NULL;
	}
}

/* Propose on a free request: its result, or ERR_BUSY when ours are all out. */
static int
propose(size_t len)
{
	static uint8_t cmd[GROUP_CMD_MAX + 1];
	struct req *q = NULL;
	int rc;

	for (unsigned i = 0; i < REQS && q == NULL; i++)
		if (!t.reqs[i].out)
			q = &t.reqs[i];
	if (q == NULL)
		return ERR_BUSY;
	bytes_be64(cmd, ++t.serial);
	t.returned = false;
	rc = group_propose(t.group, &q->r, cmd, len < 8 ? 8 : len, answered);
	t.returned = true;
	if (rc != 0)
		return rc;
	q->out = true;
	q->serial = t.serial;
	ck_assert_uint_eq(q->r.index, t.appended + 1);
	ck_assert_uint_lt(q->r.index, INDEX_MAX);
	t.content[t.appended = q->r.index] = t.serial;
	return 0;
}

static void
setup_seed(uint64_t seed)
{
	memset(&t, 0, sizeof(t));
	rand_seed(&t.rand, seed);
	rand_seed(&t.disk_rand, seed + 1000000);
	rand_seed(&t.group_rand, seed + 2000000);
	t.world = sim_clock_open();
	t.box = sim_box_open(&t.disk_rand);
	t.log_bytes = 1u << 20;
	t.flush_bytes = 64u << 10;
	t.flush_ms = 1000;
	t.inflight_max = 1000;
	t.content = calloc(INDEX_MAX, sizeof(*t.content));
}

static void
setup(void)
{
	setup_seed(1);
}

static void
begin(void)
{
	t.clock = sim_clock_node(t.world, 0, 0);
	ck_assert_int_eq(sim_disk_dir(t.box, t.clock, "d", true, &t.dir), 0);
	t.leads = t.broken = t.flushed = false;
	t.applies = 0;
	memset(t.reqs, 0, sizeof(t.reqs));
	ck_assert_int_eq(group_open(&t.group, &(struct group_conf){
		.clock = t.clock, .dir = t.dir, .log_bytes = t.log_bytes,
		.table_bytes = 64u << 20, .inflight_max = t.inflight_max,
		.flush_bytes = t.flush_bytes, .flush_ms = t.flush_ms,
		.ops = &ops, .rand = &t.group_rand }), 0);
	ck_assert(!t.leads && !group_leads(t.group));
	t.seen = group_applied(t.group);
}

static bool
settled(void *ctx)
{
	(void)ctx;
	return t.leads || t.broken;
}

/* What the table must hold when everything up to @index was applied. */
static void
check_state(uint64_t index)
{
	uint64_t hash = 0, keys[KEYS] = { 0 };

	for (uint64_t i = 1; i <= index; i++) {
		if (t.content[i] == 0)
			continue;
		hash = mix(hash, t.content[i]);
		keys[t.content[i] % KEYS] = t.content[i];
	}
	ck_assert_uint_eq(get("hash", 4), hash);
	for (unsigned k = 0; k < KEYS; k++)
		ck_assert_uint_eq(get((uint8_t[]){ 'k', (uint8_t)k }, 2), keys[k]);
	ck_assert_uint_eq(get("half", 4), 0);
}

static void
start(void)
{
	begin();
	ck_assert(sim_clock_run_until(t.world, settled, NULL, 60 * NS_PER_S));
	ck_assert_msg(t.leads, "%s", err_name(t.broken_rc));
	ck_assert_uint_ge(group_applied(t.group), t.acked);
	ck_assert_uint_gt(group_run(t.group), t.last_run);
	t.last_run = group_run(t.group);
	t.base = t.appended = t.acked = group_applied(t.group);
	skip_to(t.acked);
	check_state(t.acked);
}

static void
stop(enum end how)
{
	box_ends(t.box, t.clock, how);
	group_close(t.group);
	t.group = NULL;
	box_ended(&t.dir, t.clock, how);
}

static void
teardown(void)
{
	group_close(t.group);		/* left by a test that failed */
	if (t.dir != NULL)
		t.dir->ops->close(t.dir);
	sim_box_close(t.box);
	sim_clock_close(t.world);
	free(t.content);
}

static void
settle(void)
{
	sim_clock_run(t.world, 3 * NS_PER_S);
}

static void
flushed(void *ctx)
{
	(void)ctx;
	t.flushed = true;
}

/* ---- calm ---- */

START_TEST(applied_in_order_once_durable)
{
	start();
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(propose(100), 0);
	ck_assert_uint_eq(t.applies, 0);
	settle();
	ck_assert_uint_eq(t.acked, t.base + 10);
	ck_assert_uint_eq(t.answers, 10);
	ck_assert_uint_eq(t.reqs[9].result, get("hash", 4));
	check_state(t.acked);
	stop(CRASH);
	start();
	ck_assert_uint_eq(t.acked, 13);	/* members, 10, two elections */
	stop(CLEAN);
}
END_TEST

START_TEST(the_log_alone_brings_it_back)
{
	t.flush_ms = 100000;
	start();
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(propose(100), 0);
	sim_clock_run(t.world, NS_PER_S);
	ck_assert_uint_eq(t.acked, t.base + 10);
	stop(CRASH);
	start();
	ck_assert_uint_eq(t.applies, 10);
	stop(CLEAN);
}
END_TEST

START_TEST(nothing_is_replayed_after_a_flush)
{
	start();
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(propose(100), 0);
	group_flush(t.group, flushed, NULL);
	ck_assert(!t.flushed);
	sim_clock_run(t.world, 100 * NS_PER_MS);	/* less than flush_ms */
	ck_assert(t.flushed);
	ck_assert_uint_eq(t.acked, t.base + 10); /* what was in flight is in it */
	t.flushed = false;
	group_flush(t.group, flushed, NULL);	/* again, with nothing to do */
	ck_assert(!t.flushed);
	sim_clock_run(t.world, NS_PER_MS);
	ck_assert(t.flushed);
	stop(CRASH);
	start();
	ck_assert_uint_eq(t.applies, 0);
	stop(CLEAN);
}
END_TEST

START_TEST(the_table_is_written_after_a_while)
{
	start();
	ck_assert_int_eq(propose(100), 0);
	sim_clock_run(t.world, 3 * NS_PER_S);
	stop(CRASH);
	start();
	ck_assert_uint_eq(t.applies, 0);
	stop(CLEAN);
}
END_TEST

START_TEST(bounds)
{
	t.inflight_max = 5;
	start();
	ck_assert_int_eq(propose(GROUP_CMD_MAX + 1), -EMSGSIZE);
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(propose(GROUP_CMD_MAX), i < 1 ? 0 :
		    t.appended == t.base + 1 ? ERR_BUSY : 0);
	settle();
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(propose(10), 0);
	ck_assert_int_eq(propose(10), ERR_BUSY);
	settle();
	ck_assert_int_eq(propose(10), 0);
	settle();
	stop(CLEAN);
}
END_TEST

/* More than the log holds goes through it, a proposal never waits for ever. */
START_TEST(a_small_log_is_no_end)
{
	t.flush_bytes = 1u << 30;
	t.flush_ms = 1000000;
	start();
	while (t.acked < 3000) {
		int rc = propose(3000);

		ck_assert(rc == 0 || rc == ERR_BUSY);
		if (rc != 0)
			sim_clock_run(t.world, NS_PER_MS);
	}
	check_state(t.acked);
	stop(CRASH);
	start();
	stop(CLEAN);
}
END_TEST

static void
read_done(struct group_req *r, int rc, const void *result, size_t len)
{
	(void)r;
	ck_assert_int_eq(rc, 0);
	ck_assert_ptr_null(result);
	ck_assert_uint_eq(len, 0);
	t.reads++;
}

START_TEST(reads)
{
	struct group_req r[3] = { { .index = 0 } };

	begin();
	ck_assert_int_eq(group_read(t.group, &r[0], read_done), ERR_NOT_LEADER);
	ck_assert_int_eq(propose(10), ERR_NOT_LEADER);
	stop(CLEAN);
	start();
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(group_read(t.group, &r[i], read_done), 0);
	ck_assert_uint_eq(t.reads, 0);
	settle();
	ck_assert_uint_eq(t.reads, 3);
	stop(CLEAN);
}
END_TEST

START_TEST(closed_inside_an_answer)
{
	start();
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(propose(10), 0);
	if (_i == 1)
		sim_box_conf(t.box)->write_eio_ppm = 1000000;
	t.close_in_fn = true;
	settle();
	ck_assert_uint_eq(t.answers, 1);
	ck_assert_ptr_null(t.group);
	stop(CLEAN);
}
END_TEST

/* ---- what breaks ---- */

START_TEST(failures_break_it_once)
{
	static const struct { const char *what; int which, rc; } cases[] = {
		{ "log write", 0, -EIO }, { "log sync", 1, -EIO },
		{ "table write", 2, -EIO }, { "table full", 3, -ENOSPC },
		{ "apply", 4, -ENOMEM },
	};
	struct sim_disk_conf *c = sim_box_conf(t.box);

	start();
	ck_assert_int_eq(propose(100), 0);
	settle();
	if (cases[_i].which == 0)
		c->write_eio_ppm = 1000000;
	else if (cases[_i].which == 1)
		c->sync_eio_ppm = 1000000;
	else if (cases[_i].which == 2)
		c->table.eio_ppm = 1000000;
	else if (cases[_i].which == 3)
		c->table.full = true;
	else
		t.break_at = t.appended + 2;
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(propose(100), 0);
	group_flush(t.group, flushed, NULL);
	settle();
	ck_assert_msg(t.broken && t.broken_rc == cases[_i].rc, "%s: %s",
	    cases[_i].what, err_name(t.broken_rc));
	ck_assert(t.flushed && !group_leads(t.group));
	ck_assert_uint_eq(t.answers, 6);
	ck_assert_int_eq(propose(100), ERR_NOT_LEADER);
	stop(CRASH);
	c->write_eio_ppm = c->sync_eio_ppm = c->table.eio_ppm = 0;
	c->table.full = false;
	t.break_at = 0;
	start();
	stop(CLEAN);
}
END_TEST

START_TEST(a_log_that_lacks_what_the_table_has)
{
	start();
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(propose(100), 0);
	settle();
	stop(CLEAN);
	ck_assert_int_eq(sim_disk_flip(t.box, "d", "log", 8192 + 20, 1), 0);
	ck_assert_int_eq(sim_disk_flip(t.box, "d", "log", 20, 1), 0);
	ck_assert_int_eq(sim_disk_flip(t.box, "d", "log", 4096 + 20, 1), 0);
	begin();
	ck_assert(sim_clock_run_until(t.world, settled, NULL, 60 * NS_PER_S));
	ck_assert(t.broken);
	ck_assert_int_eq(t.broken_rc, ERR_LOG_DAMAGED);
	stop(CLEAN);
}
END_TEST

static void
log_ready(void *ctx, int rc)
{
	*(bool *)ctx = rc == 0;
}

static void
log_entry(void *ctx, const struct meta_log_entry *e)
{
	(void)ctx;
	(void)e;
}

static bool
is_set(void *ctx)
{
	return *(bool *)ctx;
}

/* A leader of a later release may put into the log what we do not know. */
START_TEST(entries_of_a_newer_release)
{
	static const struct meta_log_ops log_ops = { .entry = log_entry,
		.ready = log_ready };
	bool ready = false;
	struct meta_log *l;
	uint64_t index;

	start();
	ck_assert_int_eq(propose(100), 0);
	settle();
	stop(CLEAN);
	t.clock = sim_clock_node(t.world, 0, 0);
	ck_assert_int_eq(sim_disk_dir(t.box, t.clock, "d", true, &t.dir), 0);
	ck_assert_int_eq(meta_log_open(&l, &(struct meta_log_conf){
		.clock = t.clock, .dir = t.dir, .name = "log",
		.bytes = t.log_bytes, .ops = &log_ops, .ctx = &ready }), 0);
	ck_assert(sim_clock_run_until(t.world, is_set, &ready, NS_PER_S));
	ck_assert_int_eq(meta_log_append(l, meta_log_end_term(l), RAFT_MEMBERS + 1,
	    "new", 3, &index), 0);
	settle();
	ck_assert_uint_eq(meta_log_last(l), index);
	meta_log_close(l);
	t.dir->ops->close(t.dir);
	sim_clock_node_close(t.clock);
	begin();
	ck_assert(sim_clock_run_until(t.world, settled, NULL, 60 * NS_PER_S));
	ck_assert(t.broken);
	ck_assert_int_eq(t.broken_rc, ERR_DISK_NEWER);
	ck_assert_uint_lt(group_applied(t.group), index);
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
	c->table.write_min_ns = 100 * NS_PER_US;
	c->table.write_max_ns = 20 * NS_PER_MS;
	t.flush_bytes = 1u << (10 + rand_below(&t.rand, 8));
	t.flush_ms = 1 + (uint32_t)rand_below(&t.rand, 100);
}

START_TEST(any_end)
{
	setup_seed(getenv("SEED") != NULL && *getenv("SEED") != '\0' ?
	    strtoull(getenv("SEED"), NULL, 0) : (uint64_t)_i);
	weather();
	for (unsigned run = 0; run < 10; run++) {
		if (rand_chance(&t.rand, 1, 6)) {
			uint64_t acked = t.acked;

			begin();		/* and dies before it serves */
			sim_clock_run(t.world, rand_below(&t.rand,
			    10 * NS_PER_MS));
			if (t.leads) {
				t.appended = t.acked = group_applied(t.group);
				skip_to(t.acked);
				t.last_run = group_run(t.group);
			}
			ck_assert_uint_ge(t.acked, acked);
			stop(CRASH);
			continue;
		}
		start();
		for (unsigned n = (unsigned)rand_below(&t.rand, 80); n > 0; n--) {
			for (unsigned k = (unsigned)rand_below(&t.rand, 10); k > 0;
			    k--) {
				int rc = propose(8 + rand_below(&t.rand,
				    rand_chance(&t.rand, 1, 30) ? 20000 : 400));

				ck_assert(rc == 0 || rc == ERR_BUSY);
			}
			sim_clock_run(t.world, rand_below(&t.rand, 5 * NS_PER_MS));
		}
		stop(rand_chance(&t.rand, 1, 10) ? CLEAN :
		    rand_chance(&t.rand, 1, 3) ? KILL : CRASH);
	}
	teardown();
}
END_TEST

int
main(void)
{
	TCase *calm = tcase_create("calm"), *any = tcase_create("any");
	const char *n = getenv("N"), *seed = getenv("SEED");
	int seeds = n != NULL && atoi(n) > 0 ? atoi(n) : 100;

	tcase_add_checked_fixture(calm, setup, teardown);
	tcase_add_test(calm, applied_in_order_once_durable);
	tcase_add_test(calm, the_log_alone_brings_it_back);
	tcase_add_test(calm, nothing_is_replayed_after_a_flush);
	tcase_add_test(calm, the_table_is_written_after_a_while);
	tcase_add_test(calm, bounds);
	tcase_add_test(calm, a_small_log_is_no_end);
	tcase_add_test(calm, reads);
	tcase_add_loop_test(calm, closed_inside_an_answer, 0, 2);
	tcase_add_loop_test(calm, failures_break_it_once, 0, 5);
	tcase_add_test(calm, a_log_that_lacks_what_the_table_has);
	tcase_add_test(calm, entries_of_a_newer_release);
	tcase_add_loop_test(any, any_end, 0,
	    seed != NULL && *seed != '\0' ? 1 : seeds);
	return suite_run_all("group", calm, any, NULL);
}
