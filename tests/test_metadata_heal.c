/* SPDX-License-Identifier: MIT */
/* test_metadata_heal.c - rows that are damaged on one metadata node only: fsd check names that
 * node, it takes the table of the others, and nothing of it gets into the log. */
#include "meta/key.h"
#include "tests/metadata_check.h"
#include "tests/metadata_load.h"
#include "tests/suite.h"

static int
check_run(bool repair)
{
	check_begin(repair);
	for (unsigned i = 0; i < 6000 && !C.done; i++)
		run_ms(100);
	ck_assert(C.done);
	check_end();
	return C.rc;
}

static bool
says(const char *fmt, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return strstr(C.out, text) != NULL;
}

/* ---- what rots ---- */

enum rot { FLIPPED, UNREADABLE, MISSING, EXTRA, ROOT, COUNTERS };

static const struct {
	const char *what;
	enum rot    rot;
	bool	    leads;
	const char *note;
} cases[] = {
	{ "an inode of a follower", FLIPPED, false, ": inode %u differs" },
	{ "an inode of the leader", FLIPPED, true, ": inode %u differs" },
	{ "one that cannot be read", UNREADABLE, false, ": inode %u differs" },
	{ "that of the leader", UNREADABLE, true, ": inode %u differs" },
	{ "an entry is lost", MISSING, false, ": entry a of 1 is on " },
	{ "the leader has lost one", MISSING, true, ": entry a of 1 is on " },
	{ "one is back", EXTRA, false, ": entry b of 1 is on " },
	{ "the leader has one", EXTRA, true, ": entry b of 1 is on " },
	{ "the root", ROOT, false, ": inode 1 differs" },
	{ "counters", COUNTERS, false, ": the row of key 53" },
};

static void
rot(unsigned id, enum rot what, ino_id a)
{
	struct table *tab = table_of(id);
	struct msg_str a_name = msg_str("a"), b_name = msg_str("b");
	uint8_t k[KEY_LEN_MAX];
	struct inode in;
	int rc = 0;

	switch (what) {
	case FLIPPED:
		ck_assert_int_eq(inode_get(tab, a, &in), 0);
		in.mtime ^= 1;
		rc = inode_put(tab, &in);
		break;
	case UNREADABLE:
		rc = table_put(tab, k, key_ino(k, KEY_INODE, a), "?", 1);
		break;
	case MISSING:
		rc = dirent_del(tab, INO_ROOT, &a_name);
		break;
	case EXTRA:
		rc = dirent_put(tab, INO_ROOT, &b_name, a, S_IFDIR);
		break;
	case ROOT:
		rc = table_put(tab, k, key_ino(k, KEY_INODE, INO_ROOT), "?", 1);
		break;
	case COUNTERS:
		rc = table_put(tab, k, key_state(k, 'c'), "?", 1);
		break;
	}
	ck_assert_int_eq(rc, 0);
}

/* One that leads, or does not. */
static unsigned
pick(bool leads)
{
	unsigned id = leader(5000);

	ck_assert_uint_ne(id, 0);
	return leads ? id : id == META ? META + 1 : META;
}

static void
start(void)
{
	setup_seed(7);
	die(STORAGE);
	begin();
	ck_assert_int_eq(mkdir_as(0, "a"), 0);
	run_ms(1000);
	all_equal();
}

static void
stop(void)
{
	free(C.out);
	C.out = NULL;
	teardown();
}

START_TEST(finds_and_heals)
{
	unsigned id = pick(cases[_i].leads);
	ino_id a = ino_of(INO_ROOT, "a");
	char note[64];

	rot(id, cases[_i].rot, a);
	ck_assert_int_eq(check_run(false), -EUCLEAN);
	ck_assert_msg(says("fault: metadata node %u (", node(id)), "%s:\n%s",
	    cases[_i].what, C.out);
	snprintf(note, sizeof(note), cases[_i].note, (unsigned)a);
	ck_assert_msg(says("%s", note), "%s:\n%s", cases[_i].what, C.out);
	ck_assert_int_eq(check_run(true), 0);
	ck_assert_msg(says("metadata node %u (", node(id)) && says("repair 1: done\n") &&
	    says("1 faults, 1 mended"), "%s:\n%s", cases[_i].what, C.out);
	ck_assert(!says("repair 2"));
	ck_assert_int_eq(mkdir_as(0, "later"), 0);
	run_ms(1000);
	all_equal();
	ck_assert_int_eq(check_run(false), 0);
	ck_assert(says(" 0 faults"));
}
END_TEST

/* Nobody looks: a change runs into the row, and that member heals itself. */
START_TEST(runs_into_it)
{
	unsigned id = pick(_i % 2 == 0);

	rot(id, _i < 2 ? ROOT : COUNTERS, ino_of(INO_ROOT, "a"));
	ck_assert_int_eq(mkdir_as(0, "next"), 0);
	ck_assert_int_eq(mkdir_as(1, "another"), 0);
	run_ms(5000);
	all_equal();
	ck_assert_int_eq(check_run(false), 0);
}
END_TEST

/* Or wants to read it: another one leads, which has it. */
START_TEST(reads_it)
{
	unsigned id = pick(true);
	struct msg_ino q = { ctx(2, false), INO_ROOT };

	rot(id, ROOT, ino_of(INO_ROOT, "a"));
	ck_assert_int_eq(insist(MSG_getattr, &q)->rc, 0);
	ck_assert_uint_ne(leader(5000), id);
	ck_assert_int_eq(check_run(true), 0);
	ck_assert(says("repair 1: done\n"));
	run_ms(1000);
	all_equal();
}
END_TEST

/* All have the same fault: who leads changes once for each, and then that is told. */
START_TEST(all_read_it)
{
	ino_id a = ino_of(INO_ROOT, "a");
	struct msg_ino q = { ctx(2, false), a };
	unsigned moves = 0, last = 0;

	for (unsigned i = 0; i < 3; i++)
		rot(META + i, UNREADABLE, a);
	for (unsigned i = 0; i < 100; i++) {
		unsigned id = leader(20000);
		int rc = ask(id, MSG_getattr, &q)->rc;

		moves += id != last;
		last = id;
		ck_assert(rc == ERR_LOG_DAMAGED || (!final(rc) && rc != 0));
		run_ms(100);
	}
	ck_assert_uint_le(moves, 4);
	ck_assert_int_eq(ask(leader(20000), MSG_getattr, &q)->rc, ERR_LOG_DAMAGED);
	ck_assert_int_eq(mkdir_as(0, "goes-on"), 0);
	ck_assert_int_eq(check_run(true), -EUCLEAN);
	ck_assert(says("1: inode row of %u", (unsigned)a) && !says("repair 1"));
}
END_TEST

/* Most of them agree on nothing: nobody is healed, and nothing is repaired. */
START_TEST(undecided)
{
	ino_id a = ino_of(INO_ROOT, "a");

	for (unsigned i = 0; i < 3; i++) {
		struct inode in;

		ck_assert_int_eq(inode_get(table_of(META + i), a, &in), 0);
		in.nlink += i;
		inode_put(table_of(META + i), &in);
	}
	ck_assert_int_eq(check_run(true), -EUCLEAN);
	ck_assert_msg(says("most of them do not agree") && !says("repair 1"), "%s", C.out);
	for (unsigned i = 0; i < 3; i++) {
		struct inode in;

		ck_assert_int_eq(inode_get(table_of(META + i), a, &in), 0);
		ck_assert_uint_eq(in.nlink, 2 + i);
	}
}
END_TEST

/* A fault that all have, and one of them another one: first that one is healed. With one
 * member away the others are most of them; with two nothing is known. */
START_TEST(all_alike)
{
	ino_id a = ino_of(INO_ROOT, "a");
	unsigned id = pick(_i % 2 == 0);

	for (unsigned i = 0; i < 3; i++) {
		struct inode in;

		ck_assert_int_eq(inode_get(table_of(META + i), a, &in), 0);
		in.nlink = 7;
		inode_put(table_of(META + i), &in);
	}
	if (_i < 2)
		rot(id, MISSING, a);
	ck_assert_int_eq(mkdir_as(0, "later"), 0);
	run_ms(1000);
	if (_i >= 2)
		die(id);
	ck_assert_int_eq(check_run(true), 0);
	ck_assert_msg(says("count what is in directory %u anew\n", (unsigned)a), "%s", C.out);
	ck_assert_msg(says("cannot be compared") == (_i >= 2), "%s", C.out);
	if (_i >= 2)
		boot(id);
	run_ms(5000);
	all_equal();
	ck_assert_int_eq(check_run(false), 0);
}
END_TEST

/* It is healed, and rots again for good while something else is repaired. */
START_TEST(rots_on)
{
	ino_id a = ino_of(INO_ROOT, "a");
	unsigned id = pick(false);
	bool rots = false;

	for (unsigned i = 0; i < 3; i++) {
		struct inode in;

		ck_assert_int_eq(inode_get(table_of(META + i), a, &in), 0);
		in.nlink = 7;
		inode_put(table_of(META + i), &in);
	}
	rot(id, MISSING, a);
	check_begin(true);
	for (unsigned i = 0; i < 60000 && !C.done; i++) {
		struct inode in;

		run_ms(5);
		fflush(C.to);
		rots |= says("anew\n");
		if (rots && inode_get(table_of(id), INO_ROOT, &in) == 0) {
			in.mtime = 1;
			inode_put(table_of(id), &in);
		}
	}
	ck_assert(C.done && rots);
	check_end();
	ck_assert_msg(C.rc == -EUCLEAN && says("still: metadata node %u (", node(id)) &&
	    says(" 2 faults, 1 mended\n"), "%s: %s", err_name(C.rc), C.out);
}
END_TEST

/* Ended at any time, and begun again. */
START_TEST(ended_and_begun)
{
	ino_id a = ino_of(INO_ROOT, "a");

	for (unsigned steps = 1; steps < 2000; steps += 1 + steps / 8) {
		unsigned id = pick(steps % 2 == 0);

		rot(id, FLIPPED, a);
		check_begin(true);
		for (unsigned i = 0; i < steps && !C.done; i++)
			sim_clock_step(t.world);
		check_end();
		run_ms(rand_below(&t.rand, 20000));
	}
	ck_assert_int_eq(check_run(true), 0);
	run_ms(2000);
	all_equal();
}
END_TEST

/* While clients go on. */
START_TEST(under_load)
{
	loads_start();
	for (unsigned round = 0; round < 4; round++) {
		run_ms(500);
		rot(pick(round % 2 == 0), round < 2 ? FLIPPED : MISSING,
		    ino_of(INO_ROOT, "a"));
		ck_assert_int_eq(check_run(true), 0);
		ck_assert_msg(says("repair 1: done\n"), "%s", C.out);
	}
	loads_stop();
	run_ms(2000);
	all_equal();
}
END_TEST

static struct ask *
image(uint64_t which, uint64_t instead, const char *until)
{
	struct msg_image q = { .image = which, .instead = instead,
		.until = msg_str(until) };

	return ask(leader(5000), MSG_image, &q);
}

/* The image that somebody reads stays, until he has come to its end or gives no sign. */
START_TEST(one_reads)
{
	uint64_t first = image(0, 0, "E")->rep.image.image, next;

	ck_assert_uint_ne(first, 0);
	for (unsigned i = 0; i < 10; i++) {
		ck_assert_int_eq(image(0, 0, "E")->rc, -EBUSY);
		ck_assert_int_eq(image(0, first - 1, "E")->rc, -EBUSY);
		ck_assert_int_eq(image(first, 0, "E")->rc, 0);
		run_ms(5000);
	}
	next = image(0, first, "E")->rep.image.image;
	ck_assert_uint_gt(next, first);
	ck_assert_int_eq(image(first, 0, "E")->rc, -ESTALE);
	ck_assert_int_eq(image(0, 0, "E")->rc, -EBUSY);
	ck_assert_int_eq(image(next, 0, "")->rc, 0);
	ck_assert_int_eq(image(0, 0, "E")->rc, 0);
	ck_assert_int_eq(image(0, 0, "E")->rc, -EBUSY);
	run_ms(11000);
	ck_assert_int_eq(image(0, 0, "E")->rc, 0);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("heal");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, start, stop);
	tcase_add_loop_test(tc, finds_and_heals, 0, sizeof(cases) / sizeof(cases[0]));
	tcase_add_loop_test(tc, runs_into_it, 0, 4);
	tcase_add_test(tc, reads_it);
	tcase_add_test(tc, all_read_it);
	tcase_add_test(tc, undecided);
	tcase_add_loop_test(tc, all_alike, 0, 4);
	tcase_add_test(tc, rots_on);
	tcase_add_test(tc, ended_and_begun);
	tcase_add_test(tc, under_load);
	tcase_add_test(tc, one_reads);
	return suite_run("metadata_heal", tc);
}
