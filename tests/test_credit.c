/* SPDX-License-Identifier: MIT */
/* test_credit.c - credits of messages (net/credit.h): bounds, and two ends that talk. */
#include <check.h>
#include <stdlib.h>

#include "conf/rand.h"
#include "net/credit.h"

#define WIRE	2048u

START_TEST(what_is_kept)
{
	struct net_credit c;

	net_credit_init(&c, 4, 6);
	for (unsigned i = 0; i < 5; i++) {
		ck_assert(net_credit_may_send(&c));
		ck_assert_uint_eq(net_credit_send(&c), 0);
	}
	/* The last one is for returning credits, when there are enough of them. */
	ck_assert(!net_credit_may_send(&c));
	ck_assert(!net_credit_should_tell(&c));
	for (unsigned i = 0; i < 2; i++) {
		ck_assert(net_credit_came(&c));
		net_credit_freed(&c);
	}
	ck_assert(net_credit_should_tell(&c));
	ck_assert_uint_eq(net_credit_send(&c), 2);
	ck_assert(!net_credit_should_tell(&c));
}
END_TEST

/* A peer that does not keep to it is found out. */
START_TEST(peers_that_cheat)
{
	struct net_credit c;

	net_credit_init(&c, 4, 8);
	for (unsigned i = 0; i < 4; i++)
		ck_assert(net_credit_came(&c));
	ck_assert(!net_credit_came(&c));
	/* Free again, but it cannot know that before it is told. */
	net_credit_freed(&c);
	ck_assert(!net_credit_came(&c));
	ck_assert_uint_eq(net_credit_send(&c), 1);
	ck_assert(net_credit_came(&c));
	ck_assert(!net_credit_came(&c));
	/* One message went out: no more than one credit can come back. */
	ck_assert(!net_credit_took(&c, 2));
	ck_assert(net_credit_took(&c, 1));
	ck_assert(!net_credit_took(&c, 1));
	ck_assert(!net_credit_took(&c, UINT16_MAX));
}
END_TEST

/* How many peers a queue of receives is enough for, and what the last of them get. */
static const struct {
	const char *what;
	uint32_t size, wish, peers;
} queues[] = {
	{ "the largest, by default", 65536, 32, 9216 },
	{ "of a common card", 32767, 32, 4096 },
	{ "of a common card, modest", 32767, 4, 8191 },
	{ "of a common card, greedy", 32767, 1024, 4096 },
	{ "small", 4096, 32, 500 },
	{ "tiny", 64, 32, 3 },
};

START_TEST(there_is_some_for_many)
{
	uint32_t promised = 0, last = queues[_i].wish, n = 0;

	ck_assert_uint_eq(net_credit_share(queues[_i].size, 0, queues[_i].wish),
	    queues[_i].wish);
	for (;;) {
		uint32_t share = net_credit_share(queues[_i].size, promised,
		    queues[_i].wish);

		if (promised + share > queues[_i].size)
			break;
		ck_assert_uint_le(share, last);
		ck_assert_uint_ge(share, NET_CREDITS_MIN);
		promised += share;
		last = share;
		n++;
	}
	ck_assert_msg(n >= queues[_i].peers, "%s: %u", queues[_i].what, n);
}
END_TEST

/* ---- two ends ---- */

struct word {
	bool	 says;
	uint16_t told;
};

struct end {
	struct net_credit credit;
	struct word wire[WIRE];		/* what it has sent */
	unsigned head, tail;
	unsigned left, heard, held;
};

static void
say(struct end *e, bool says)
{
	struct word w = { says, net_credit_send(&e->credit) };

	ck_assert_uint_lt(e->tail - e->head, WIRE);
	e->wire[e->tail++ % WIRE] = w;
	e->left -= says;
}

/* One message from @from, if there is any. */
static bool
arrive(struct end *e, struct end *from, bool hold)
{
	const struct word *w;

	if (from->head == from->tail)
		return false;
	w = &from->wire[from->head++ % WIRE];
	ck_assert(net_credit_came(&e->credit));
	ck_assert(net_credit_took(&e->credit, w->told));
	e->heard += w->says;
	if (hold && w->says)
		e->held++;
	else
		net_credit_freed(&e->credit);
	return true;
}

static bool
go_on(struct end *e, struct end *from, struct rand *r, bool hold)
{
	if (e->held > 0 && !hold) {
		e->held--;
		net_credit_freed(&e->credit);
		return true;
	}
	if (rand_chance(r, 1, 2) && arrive(e, from, hold))
		return true;
	if (e->left > 0 && net_credit_may_send(&e->credit)) {
		say(e, true);
		return true;
	}
	if (net_credit_should_tell(&e->credit)) {
		say(e, false);
		return true;
	}
	return arrive(e, from, hold);
}

/* Whatever comes when: never more than was promised, and in the end all has been said. */
START_TEST(all_is_said)
{
	static struct end e[2];
	struct rand r;
	unsigned says[2], ours[2];

	rand_seed(&r, 1000 + (uint64_t)_i);
	for (unsigned i = 0; i < 2; i++) {
		e[i] = (struct end){ .left = 0 };
		says[i] = e[i].left = (unsigned)rand_below(&r, 400);
		ours[i] = 4 + (unsigned)rand_below(&r, rand_chance(&r, 1, 2) ? 4 : 60);
	}
	net_credit_init(&e[0].credit, ours[0], ours[1]);
	net_credit_init(&e[1].credit, ours[1], ours[0]);
	for (unsigned steps = 0, idle = 0; idle < 3; steps++) {
		unsigned i = idle > 0 ? (unsigned)(steps & 1) :
		    (unsigned)rand_below(&r, 2);
		bool hold = idle == 0 && rand_chance(&r, 1, 3);

		idle = go_on(&e[i], &e[1 - i], &r, hold) ? 0 : idle + 1;
		ck_assert_uint_lt(steps, 100000);
	}
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_uint_eq(e[i].left, 0);
		ck_assert_uint_eq(e[1 - i].heard, says[i]);
		ck_assert_uint_eq(e[i].held, 0);
		/* Each credit is with one of the two. */
		ck_assert_uint_eq(e[i].credit.may + e[1 - i].credit.owed,
		    e[i].credit.peer);
		ck_assert_uint_eq(e[i].credit.used, e[i].credit.owed);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("credit");
	TCase *t = tcase_create("credit");
	SRunner *run;
	int failed;

	tcase_add_test(t, what_is_kept);
	tcase_add_test(t, peers_that_cheat);
	tcase_add_loop_test(t, there_is_some_for_many, 0,
	    sizeof(queues) / sizeof(queues[0]));
	tcase_add_loop_test(t, all_is_said, 0, 200);
	suite_add_tcase(s, t);
	run = srunner_create(s);
	srunner_run_all(run, CK_ENV);
	failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed > 0;
}
