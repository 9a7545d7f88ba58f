/* SPDX-License-Identifier: MIT */
/* test_table.c - overlays, merging reads and grouped commits against a plain model. */
#include "conf/table.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/omap.h"
#include "tests/sim/clock.h"
#include "tests/sim/table.h"

/* The model: key i of a small set has a value number, or 0 for none. */
#define KEYS	60u
#define HISTORY	4096u

struct model {
	uint32_t value[KEYS];
};

struct world {
	struct sim_clock     *time;
	struct clock	     *clock;
	struct rand	      rand;
	struct sim_table_conf conf;
	struct sim_table     *data;
	struct table	     *table;
	struct model	      now;
	unsigned	      called;
	int		      rc;
};

static size_t
key_of(unsigned i, char out[32])
{
	/* Three prefixes, keys that are prefixes of others, several lengths. */
	return (size_t)snprintf(out, 32, "%c%0*u", "abc"[i % 3],
	    1 + (int)(i % 4), i / 3);
}

static size_t
value_of(uint32_t v, char out[600])
{
	size_t n = v % 7 == 0 ? 0 : v % 500;

	memset(out, (int)(v & 127), n);
	memcpy(out + n, &v, sizeof(v));
	return n + sizeof(v);
}

static void
open_table(struct world *w)
{
	struct table_store *store;

	ck_assert_int_eq(sim_table_store(w->data, &store), 0);
	ck_assert_int_eq(table_open(&w->table, store, w->clock), 0);
}

static void
setup(struct world *w, uint64_t seed)
{
	*w = (struct world){ .conf = { .write_min_ns = 1000,
	    .write_max_ns = 5000 } };
	rand_seed(&w->rand, seed);
	w->time = sim_clock_open();
	w->clock = sim_clock_node(w->time, 0, 0);
	w->data = sim_table_open(&w->rand, &w->conf);
	open_table(w);
}

static void
teardown(struct world *w)
{
	table_close(w->table);
	ck_assert_uint_eq(sim_clock_node_pending(w->clock), 0);
	sim_table_close(w->data);
	sim_clock_close(w->time);
}

static void
set(struct world *w, unsigned i, uint32_t v)
{
	char key[32], value[600];
	size_t n = key_of(i, key);

	if (v == 0)
		ck_assert_int_eq(table_del(w->table, key, n), 0);
	else
		ck_assert_int_eq(table_put(w->table, key, n, value,
		    value_of(v, value)), 0);
	w->now.value[i] = v;
}

static uint32_t
get(struct world *w, unsigned i)
{
	char key[32], want[600];
	const void *value;
	size_t len;
	uint32_t v;

	if (table_get(w->table, key, key_of(i, key), &value, &len) != 0)
		return 0;
	if (len < sizeof(v))
		ck_abort_msg("short value");
	memcpy(&v, (const char *)value + len - sizeof(v), sizeof(v));
	if (value_of(v, want) != len || memcmp(value, want, len) != 0)
		ck_abort_msg("torn value %u", v);	/* ck_assert is too slow here */
	return v;
}

static bool
same(struct world *w, const struct model *m)
{
	for (unsigned i = 0; i < KEYS; i++)
		if (get(w, i) != m->value[i])
			return false;
	return true;
}

/* Smallest model key >= @from with the prefix, or KEYS. */
static unsigned
model_seek(const struct model *m, const char *from, size_t n, bool after,
    size_t prefix)
{
	char key[32], best_key[32];
	unsigned best = KEYS;
	size_t best_n = 0;

	for (unsigned i = 0; i < KEYS; i++) {
		size_t k = key_of(i, key);
		int c = omap_cmp(key, k, from, n);

		if (m->value[i] == 0 || c < 0 || (c == 0 && after) ||
		    k < prefix || memcmp(key, from, prefix) != 0)
			continue;
		if (best == KEYS || omap_cmp(key, k, best_key, best_n) < 0) {
			best = i;
			memcpy(best_key, key, k);
			best_n = k;
		}
	}
	return best;
}

static void
check_seek(struct world *w)
{
	unsigned i = (unsigned)rand_below(&w->rand, KEYS), want;
	bool after = rand_chance(&w->rand, 1, 2);
	const void *found, *value;
	size_t n, k, found_len, len;
	char key[32], want_key[32];
	int rc;

	n = key_of(i, key);
	k = rand_below(&w->rand, n + 1);
	if (rand_chance(&w->rand, 1, 4))
		n = k > 0 ? k : 1;
	k = k < n ? k : n;
	want = model_seek(&w->now, key, n, after, k);
	rc = table_seek(w->table, key, n, after, k, &found, &found_len, &value,
	    &len);
	if (want == KEYS) {
		ck_assert_int_eq(rc, -ENOENT);
		return;
	}
	ck_assert_int_eq(rc, 0);
	ck_assert_uint_eq(found_len, key_of(want, want_key));
	ck_assert_mem_eq(found, want_key, found_len);
}

struct tracked {
	struct table_commit commit;
	struct world	   *w;
	unsigned	    history;	/* model index it must keep */
	bool		    done;
	int		    rc;
};

static unsigned acked;			/* highest history index called back */

static void
track(struct table_commit *c)
{
	struct tracked *k = (struct tracked *)(void *)c;

	ck_assert(!k->done);
	k->done = true;
	k->rc = c->rc;
	ck_assert_int_eq(c->rc, 0);
	if (k->history > acked)
		acked = k->history;
}

/* Random changes, reads and commits; the world moves by one event now and then, so
 * a batch ends at any point between them; a crash keeps the state at some point
 * between the last answered commit and the last change. */
START_TEST(any_order)
{
	static struct model history[HISTORY];
	static struct tracked commits[HISTORY];
	unsigned n = 0, made = 0;
	struct world w;

	setup(&w, (uint64_t)_i + 1);
	acked = 0;
	history[n++] = w.now;
	while (n < 1500) {
		switch (rand_below(&w.rand, 12)) {
		case 0: case 1: case 2: case 3:
			set(&w, (unsigned)rand_below(&w.rand, KEYS),
			    (uint32_t)rand_below(&w.rand, 1000) + 1);
			history[n++] = w.now;
			break;
		case 4: case 5:
			set(&w, (unsigned)rand_below(&w.rand, KEYS), 0);
			history[n++] = w.now;
			break;
		case 6:
			commits[made] = (struct tracked){ .w = &w,
			    .history = n - 1 };
			table_commit(w.table, &commits[made++].commit, track);
			break;
		case 7: case 8:
			check_seek(&w);
			break;
		case 9:
			ck_assert(same(&w, &w.now));
			break;
		default:
			sim_clock_step(w.time);
			break;
		}
		if (!rand_chance(&w.rand, 1, 200))
			continue;
		/* Crash, and look for the state that was kept. */
		bool found = false;

		if (rand_chance(&w.rand, 1, 4))
			sim_clock_run_idle(w.time, NS_PER_S);
		if (rand_chance(&w.rand, 2, 3))
			sim_table_crash(w.data);
		table_close(w.table);
		ck_assert_uint_eq(sim_clock_node_pending(w.clock), 0);
		open_table(&w);
		for (unsigned i = acked; i < n && !found; i++)
			if (same(&w, &history[i])) {
				w.now = history[i];
				found = true;
			}
		ck_assert(found);
		history[0] = w.now;
		n = n > 1500 ? n : 1;
		made = acked = 0;
		if (n == 1 && rand_chance(&w.rand, 1, 12))
			break;
	}
	/* What waits ends. */
	commits[made] = (struct tracked){ .w = &w, .history = n - 1 };
	table_commit(w.table, &commits[made++].commit, track);
	ck_assert(!commits[made - 1].done);
	ck_assert(sim_clock_run_idle(w.time, NS_PER_S));
	for (unsigned i = 0; i < made; i++)
		ck_assert(commits[i].done);
	ck_assert_uint_eq(table_dirty_bytes(w.table), 0);
	teardown(&w);
}
END_TEST

static void
note(struct table_commit *c)
{
	struct tracked *k = (struct tracked *)(void *)c;

	k->done = true;
	k->rc = c->rc;
	k->w->called++;
}

/* Commits asked while a batch is in flight go out as one. */
START_TEST(commits_group)
{
	struct tracked c[10];
	struct world w;
	uint64_t t0;

	setup(&w, 1);
	w.conf.write_min_ns = w.conf.write_max_ns = 1000;
	t0 = sim_clock_now(w.time);
	for (unsigned i = 0; i < 10; i++) {
		c[i] = (struct tracked){ .w = &w };
		set(&w, i, i + 1);
		table_commit(w.table, &c[i].commit, note);
	}
	ck_assert_uint_eq(w.called, 0);
	sim_clock_run(w.time, 1000);
	ck_assert_uint_eq(w.called, 1);
	ck_assert_uint_gt(table_dirty_bytes(w.table), 0);
	ck_assert(sim_clock_run_idle(w.time, NS_PER_S));
	ck_assert_uint_eq(w.called, 10);
	ck_assert_uint_eq(sim_clock_now(w.time) - t0, 2000);
	ck_assert_uint_eq(table_dirty_bytes(w.table), 0);
	teardown(&w);
}
END_TEST

/* Nothing to write: still a callback, later, and no batch. */
START_TEST(empty_commit)
{
	struct tracked c = { 0 };
	struct world w;
	uint64_t t0;

	setup(&w, 1);
	c.w = &w;
	t0 = sim_clock_now(w.time);
	table_commit(w.table, &c.commit, note);
	ck_assert(!c.done);
	ck_assert(sim_clock_step(w.time));
	ck_assert(c.done);
	ck_assert_int_eq(c.rc, 0);
	ck_assert_uint_eq(sim_clock_now(w.time), t0);
	teardown(&w);
}
END_TEST

/* A failed batch fails all that wait and all that come. */
START_TEST(broken_stays)
{
	static const struct {
		const char *what;
		bool full;
		uint32_t eio_ppm;
		int rc;
	} rows[] = {
		{ "no space",  true,  0,       -ENOSPC },
		{ "bad disk",  false, 1000000, -EIO },
	};
	struct tracked c[3];
	struct world w;

	setup(&w, 1);
	w.conf.full = rows[_i].full;
	w.conf.eio_ppm = rows[_i].eio_ppm;
	for (unsigned i = 0; i < 3; i++)
		c[i] = (struct tracked){ .w = &w };
	set(&w, 0, 1);
	table_commit(w.table, &c[0].commit, note);
	set(&w, 1, 1);
	table_commit(w.table, &c[1].commit, note);
	ck_assert(sim_clock_run_idle(w.time, NS_PER_S));
	ck_assert_uint_eq(w.called, 2);
	w.conf.full = false;
	w.conf.eio_ppm = 0;
	table_commit(w.table, &c[2].commit, note);
	ck_assert(!c[2].done);
	ck_assert(sim_clock_run_idle(w.time, NS_PER_S));
	for (unsigned i = 0; i < 3; i++)
		ck_assert_msg(c[i].done && c[i].rc == rows[_i].rc, "%s: %u: %d",
		    rows[_i].what, i, c[i].rc);
	ck_assert(same(&w, &w.now));		/* reads go on */
	teardown(&w);
}
END_TEST

static void
close_it(struct table_commit *c)
{
	struct world *w = ((struct tracked *)(void *)c)->w;

	w->called++;
	table_close(w->table);
	w->table = NULL;
}

/* A callback closes the table; the others of its batch are never called. */
START_TEST(close_in_callback)
{
	struct tracked c[4];
	struct world w;

	setup(&w, 1);
	for (unsigned i = 0; i < 4; i++) {
		c[i] = (struct tracked){ .w = &w };
		if (_i == 0)			/* 0: batches; 1: nothing dirty */
			set(&w, i, i + 1);
		table_commit(w.table, &c[i].commit, i == 1 ? close_it : note);
	}
	ck_assert(sim_clock_run_idle(w.time, NS_PER_S));
	ck_assert_uint_eq(w.called, 2);
	teardown(&w);
}
END_TEST

/* A key and value lent by the table may be put back into it. */
START_TEST(put_of_borrowed)
{
	const void *key, *value;
	size_t key_len, len;
	struct world w;

	setup(&w, 1);
	ck_assert_int_eq(table_put(w.table, "k", 1, "0123456789", 10), 0);
	ck_assert_int_eq(table_seek(w.table, "k", 1, false, 1, &key, &key_len,
	    &value, &len), 0);
	ck_assert_int_eq(table_put(w.table, key, key_len,
	    (const char *)value + 2, 4), 0);
	ck_assert_int_eq(table_get(w.table, "k", 1, &value, &len), 0);
	ck_assert_uint_eq(len, 4);
	ck_assert_mem_eq(value, "2345", 4);
	ck_assert_int_eq(table_put(w.table, "e", 1, NULL, 0), 0);
	ck_assert_int_eq(table_get(w.table, "e", 1, &value, &len), 0);
	ck_assert_uint_eq(len, 0);
	teardown(&w);
}
END_TEST

/* A batch so large that it is freed bit by bit, while the next ones go on, and at last
 * under a close. */
START_TEST(large_batches)
{
	struct tracked c[3];
	struct world w;

	setup(&w, 1);
	w.conf.write_max_ns = 1000;
	for (unsigned round = 0; round < 3; round++) {
		c[round] = (struct tracked){ .w = &w };
		for (uint32_t i = 0; i < 3000; i++)
			ck_assert_int_eq(table_put(w.table, &i, sizeof(i), &round,
			    sizeof(round)), 0);
		table_commit(w.table, &c[round].commit, note);
		if (_i == 0)
			ck_assert(sim_clock_run_idle(w.time, NS_PER_S));
	}
	while (w.called < 3)
		ck_assert(sim_clock_step(w.time));
	ck_assert_uint_eq(sim_table_n(w.data), 3000);
	ck_assert_uint_eq(table_dirty_bytes(w.table), 0);
	teardown(&w);
}
END_TEST

/* The ordered map alone, large enough for all its levels. */
START_TEST(omap_order)
{
	enum { N = 5000 };
	struct omap m;
	struct rand r;
	size_t bytes;
	unsigned n = 0;

	rand_seed(&r, 7);
	omap_init(&m);
	for (unsigned i = 0; i < N; i++) {
		uint32_t k = htobe32((uint32_t)(i * 2654435761u));

		ck_assert_int_eq(omap_put(&m, &k, 4, &i, i % 5), 0);
	}
	ck_assert_uint_eq(m.n, N);
	for (unsigned i = 0; i < N; i += 2) {
		uint32_t k = htobe32((uint32_t)(i * 2654435761u));

		ck_assert(omap_del(&m, &k, 4));
		ck_assert(!omap_del(&m, &k, 4));
	}
	for (const struct omap_entry *e = omap_first(&m), *next; e != NULL;
	    e = next, n++)
		if ((next = omap_next(e)) != NULL) {
			ck_assert_int_lt(memcmp(omap_key(e), omap_key(next), 4), 0);
			ck_assert_ptr_eq(omap_seek(&m, omap_key(e), 4, true), next);
			ck_assert_ptr_eq(omap_seek(&m, omap_key(e), 4, false), e);
		}
	ck_assert_uint_eq(n, N / 2);
	bytes = m.bytes;
	ck_assert_int_eq(omap_put(&m, "x", 1, "12345678", 8), 0);
	ck_assert_int_eq(omap_put(&m, "x", 1, NULL, 0), 0);
	ck_assert_ptr_null(omap_value(omap_get(&m, "x", 1)));
	ck_assert_int_eq(omap_put(&m, "x", 1, "123456789", 9), 0);
	ck_assert(omap_del(&m, "x", 1));
	ck_assert_uint_eq(m.bytes, bytes);
	omap_fini(&m);
}
END_TEST

int
main(void)
{
	const char *seed = getenv("SEED"), *more = getenv("N");
	int from = seed != NULL && *seed != '\0' ? atoi(seed) : 0;
	int n = seed != NULL && *seed != '\0' ? 1 :
	    more != NULL && *more != '\0' ? atoi(more) : 200;
	Suite *s = suite_create("table");
	TCase *tc = tcase_create("table");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 0);
	tcase_add_loop_test(tc, any_order, from, from + n);
	tcase_add_test(tc, commits_group);
	tcase_add_test(tc, empty_commit);
	tcase_add_loop_test(tc, broken_stays, 0, 2);
	tcase_add_loop_test(tc, close_in_callback, 0, 2);
	tcase_add_test(tc, put_of_borrowed);
	tcase_add_loop_test(tc, large_batches, 0, 2);
	tcase_add_test(tc, omap_order);
	suite_add_tcase(s, tc);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
