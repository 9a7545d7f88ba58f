/* SPDX-License-Identifier: MIT */
/* test_craq.c - the replication core in a chain that stays as it is: writes, retries, failures,
 * step by step, as traces of its effects.  Chains that change are in test_craq_moves.c,
 * whole chains of cores in test_craq_model.c. */
#include "tests/craq_rig.h"

static void
one_open(bool head, bool tail)
{
	one_place(head ? tail ? "HTR" : "H" : tail ? "TR" : "");
}

START_TEST(head_writes)
{
	one_open(true, false);
	ck_assert_int_eq(admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 1), 0);
	event(0, CRAQ_EV_INFO, 0, 0, 0, NULL);
	event(0, CRAQ_EV_FORWARDED, 0, 1, 77, NULL);
	event(0, CRAQ_EV_STORED, 0, 0, 77, NULL);
	expect("a new chunk",
	    "0: look\n"
	    "0: store kind1 v1 on v0\n"
	    "0: forward kind1 v1 on v0\n"
	    "0: commit v1\n"
	    "0: reply ok v1\n");
	one_close();
}
END_TEST

START_TEST(one_at_a_time)
{
	struct chunk_info v1 = { .committed = 1 };

	one_open(true, false);
	admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, NULL);
	admit(1, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 2);
	ck_assert(chunk_craq_dirty(one.c, &one.t, id7, NULL));
	event(0, CRAQ_EV_STORED, 0, 0, 5, NULL);
	expect("the second waits", "0: look\n0: store kind1 v1 on v0\n"
	    "0: forward kind1 v1 on v0\n");
	event(0, CRAQ_EV_FORWARDED, 0, 1, 5, NULL);
	event(1, CRAQ_EV_INFO, 0, 0, 0, &v1);
	expect("then it goes on", "0: commit v1\n0: reply ok v1\n1: look\n"
	    "1: store kind1 v2 on v1\n1: forward kind1 v2 on v1\n");
	one_close();
}
END_TEST

START_TEST(retry_is_known)
{
	struct chunk_info v4 = { .committed = 4, .committed_len = 4,
	    .dedupe_n = 1, .dedupe = { { { { 9 } }, 6, 3 } } };

	one_open(true, true);
	admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 6);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &v4);
	admit(1, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 5);
	event(1, CRAQ_EV_INFO, 0, 0, 0, &v4);
	expect("same and older numbers", "0: look\n0: reply ok v3\n"
	    "1: look\n1: reply ok v3\n");
	one_close();
}
END_TEST

START_TEST(refused_below)
{
	one_open(true, false);
	admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, NULL);
	event(0, CRAQ_EV_STORED, 0, 0, 5, NULL);
	event(0, CRAQ_EV_FORWARDED, -ENOSPC, 0, 0, NULL);
	expect("taken back", "0: look\n0: store kind1 v1 on v0\n"
	    "0: forward kind1 v1 on v0\n0: abort v1\n0: reply ENOSPC\n");
	admit(1, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 2);
	event(1, CRAQ_EV_INFO, 0, 0, 0, NULL);
	expect("its number is void", "1: look\n1: store kind1 v3 on v0\n"
	    "1: forward kind1 v3 on v0\n");
	one_close();
}
END_TEST

START_TEST(answer_lost)
{
	struct chunk_info p = { .committed = 1, .pending = 2,
	    .pending_check = 5, .pending_len = 4 };
	struct chunk_info c = { .committed = 2 };

	one_open(true, false);
	admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 1 });
	event(0, CRAQ_EV_STORED, 0, 0, 5, NULL);
	event(0, CRAQ_EV_FORWARDED, -ECONNRESET, 0, 0, NULL);
	one.now += 10 * NS_PER_MS;
	event(0, CRAQ_EV_WOKEN, 0, 0, 0, NULL);
	one.now += 2 * NS_PER_S;
	event(0, CRAQ_EV_FORWARDED, ERR_PAYLOAD_CRC, 0, 0, NULL);
	expect("a refusal after a lost answer says nothing",
	    "0: look\n0: store kind1 v2 on v1\n0: forward kind1 v2 on v1\n"
	    "0: wake\n0: forward kind1 v2 on v1\n0: reply ETIMEDOUT\n");
	ck_assert(chunk_craq_dirty(one.c, &one.t, id7, &p));
	admit(1, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 2);
	event(1, CRAQ_EV_INFO, 0, 0, 0, &p);
	event(1, CRAQ_EV_LOADED, 0, 0, 0, NULL);
	event(1, CRAQ_EV_FORWARDED, 0, 2, 5, NULL);
	event(1, CRAQ_EV_INFO, 0, 0, 0, &c);
	expect("the next one settles it first",
	    "1: look\n1: load v2\n1: forward kind4 v2 on v1 loaded\n"
	    "1: commit v2\n1: look\n1: store kind1 v3 on v2\n"
	    "1: forward kind1 v3 on v2\n");
	one_close();
}
END_TEST

START_TEST(own_store_fails)
{
	one_open(true, false);
	admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, NULL);
	event(0, CRAQ_EV_STORED, ERR_CORRUPT, 0, 0, NULL);
	event(0, CRAQ_EV_FORWARDED, 0, 1, 5, NULL);
	event(0, CRAQ_EV_LOADED, 0, 0, 0, NULL);
	event(0, CRAQ_EV_STORED, 0, 0, 5, NULL);
	expect("fetched back", "0: look\n0: store kind1 v1 on v0\n"
	    "0: forward kind1 v1 on v0\n0: fetch v1\n"
	    "0: store kind4 v1 on v0 loaded\n0: commit v1\n0: reply ok v1\n");

	admit(1, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 2);
	event(1, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 1 });
	event(1, CRAQ_EV_STORED, -ENOSPC, 0, 0, NULL);
	one.now += 2 * NS_PER_S;
	event(1, CRAQ_EV_FORWARDED, -ETIMEDOUT, 0, 0, NULL);
	expect("in doubt", "1: look\n1: store kind1 v2 on v1\n"
	    "1: forward kind1 v2 on v1\n1: reply ERR_BUSY no space\n");
	ck_assert(chunk_craq_dirty(one.c, &one.t, id7,
	    &(struct chunk_info){ .committed = 1 }));
	admit(2, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 3);
	event(2, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 1 });
	event(2, CRAQ_EV_LOADED, -ENOENT, 0, 0, NULL);
	event(2, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 1 });
	expect("nobody has it: the number is void",
	    "2: look\n2: fetch v2\n2: look\n2: store kind1 v4 on v1\n"
	    "2: forward kind1 v4 on v1\n");
	one_close();
}
END_TEST

/* A head has stored version 2; its first attempt behind it is lost, the second ends with @rc. */
static void
second_answers(int rc)
{
	one_open(true, false);
	admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 1 });
	event(0, CRAQ_EV_STORED, 0, 0, 5, NULL);
	event(0, CRAQ_EV_FORWARDED, -ETIMEDOUT, 0, 0, NULL);
	one.now += 10 * NS_PER_MS;
	event(0, CRAQ_EV_WOKEN, 0, 0, 0, NULL);
	event(0, CRAQ_EV_FORWARDED, rc, 0, 0, NULL);
}

/* Nothing is fetched back for want of space; and a successor without space says so in answer
 * to an attempt that fences the lost ones: none of the version is behind us. */
START_TEST(no_space)
{
	struct chunk_info v1 = { .committed = 1 };
	struct chunk_info p2 = { .committed = 1, .pending = 2, .pending_check = 5 };

	one_open(true, false);
	admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &v1);
	event(0, CRAQ_EV_STORED, -ENOSPC, 0, 0, NULL);
	event(0, CRAQ_EV_FORWARDED, 0, 2, 5, NULL);
	expect("behind us, not here", "0: look\n0: store kind1 v2 on v1\n"
	    "0: forward kind1 v2 on v1\n0: reply ERR_BUSY no space\n");
	ck_assert(chunk_craq_doubts(one.c, &one.t, id7));
	one_close();

	second_answers(-ENOSPC);
	expect("the second attempt is refused", "0: look\n0: store kind1 v2 on v1\n"
	    "0: forward kind1 v2 on v1\n0: wake\n0: forward kind1 v2 on v1\n"
	    "0: abort v2\n0: reply ENOSPC\n");
	admit(1, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 2);
	event(1, CRAQ_EV_INFO, 0, 0, 0, &p2);
	event(1, CRAQ_EV_LOADED, 0, 0, 0, NULL);
	event(1, CRAQ_EV_FORWARDED, -ENOSPC, 0, 0, NULL);
	event(1, CRAQ_EV_INFO, 0, 0, 0, &v1);
	expect("what another one left is void, and it goes on",
	    "1: look\n1: load v2\n1: forward kind4 v2 on v1 loaded\n"
	    "1: abort v2\n1: look\n1: store kind1 v6 on v1\n"
	    "1: forward kind1 v6 on v1\n");
	one_close();

	second_answers(-EINVAL);
	expect("any other refusal says nothing", "0: look\n0: store kind1 v2 on v1\n"
	    "0: forward kind1 v2 on v1\n0: wake\n0: forward kind1 v2 on v1\n"
	    "0: wake\n");
	one_close();
}
END_TEST

START_TEST(successor_is_damaged)
{
	one_open(true, false);
	admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 1 });
	event(0, CRAQ_EV_FORWARDED, ERR_CORRUPT, 0, 0, NULL);
	event(0, CRAQ_EV_STORED, 0, 0, 5, NULL);
	event(0, CRAQ_EV_LOADED, 0, 0, 0, NULL);
	event(0, CRAQ_EV_FORWARDED, 0, 2, 5, NULL);
	expect("gets all of it", "0: look\n0: store kind1 v2 on v1\n"
	    "0: forward kind1 v2 on v1\n0: load v2\n"
	    "0: forward kind4 v2 on v1 loaded\n0: commit v2\n0: reply ok v2\n");
	one_close();
}
END_TEST

START_TEST(digests_differ)
{
	one_open(true, false);
	admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, NULL);
	event(0, CRAQ_EV_STORED, 0, 0, 5, NULL);
	event(0, CRAQ_EV_FORWARDED, 0, 1, 6, NULL);
	expect("not committed", "0: look\n0: store kind1 v1 on v0\n"
	    "0: forward kind1 v1 on v0\n0: reply ERR_CORRUPT\n");
	one_close();
}
END_TEST

START_TEST(chain_moves)
{
	one_open(true, false);
	admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, NULL);
	admit(1, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 2);
	chunk_craq_move(one.c, &one.t, &(struct chunk_craq_place){ .version = 2,
	    .head = true });
	drain();
	expect("what waits ends, a store is waited for",
	    "0: look\n0: store kind1 v1 on v0\n0: forward kind1 v1 on v0\n"
	    "0: cancel\n1: reply ERR_STALE_CHAIN\n");
	ck_assert_uint_eq(one.t.stale, 1);
	event(0, CRAQ_EV_STORED, 0, 0, 5, NULL);
	expect("and not committed", "0: reply ERR_STALE_CHAIN\n");
	ck_assert_uint_eq(one.t.stale, 0);
	ck_assert_int_eq(admit(2, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 3),
	    ERR_CHAIN_RECOVERING);
	one_close();
}
END_TEST

/* What a successor says to an update; info as in the row, floor 10. */
static const struct {
	const char *what;
	bool	 none;
	uint64_t committed, pending;
	uint8_t	 update;
	uint64_t version, base, attempt;
	const char *text;
} updates[] = {
	{ "new chunk", true, 0, 0, UPDATE_WRITE, 1, 0, 10,
	  "0: look\n0: store kind1 v1 on v0\n" },
	{ "follows", false, 4, 0, UPDATE_WRITE, 5, 4, 10,
	  "0: look\n0: store kind1 v5 on v4\n" },
	{ "epoch jump", false, 4, 0, UPDATE_WRITE, 1ull << 32, 4, 10,
	  "0: look\n0: store kind1 v4294967296 on v4\n" },
	{ "done before", false, 5, 0, UPDATE_WRITE, 5, 4, 10,
	  "0: look\n0: reply ok v5\n" },
	{ "sent again", false, 4, 5, UPDATE_WRITE, 5, 4, 10,
	  "0: look\n0: store kind1 v5 on v4\n" },
	{ "given up by its sender", false, 4, 0, UPDATE_WRITE, 5, 4, 9,
	  "0: look\n0: reply ERR_VERSION_GAP\n" },
	{ "other base", false, 4, 0, UPDATE_WRITE, 6, 5, 10,
	  "0: look\n0: reply ERR_VERSION_GAP\n" },
	{ "older one pending", false, 4, 5, UPDATE_WRITE, 6, 4, 10,
	  "0: look\n0: reply ERR_VERSION_GAP\n" },
	{ "newer one pending", false, 4, 6, UPDATE_WRITE, 5, 4, 10,
	  "0: look\n0: reply ERR_VERSION_GAP\n" },
	{ "its base is pending here", false, 4, 5, UPDATE_WRITE, 6, 5, 10,
	  "0: look\n0: commit v5\n0: look\n" },
	{ "removed before", true, 0, 0, UPDATE_REMOVE, 5, 4, 10,
	  "0: look\n0: reply ok v5\n" },
	{ "write to what was removed", true, 0, 0, UPDATE_WRITE, 5, 4, 10,
	  "0: look\n0: reply ERR_VERSION_GAP\n" },
};

START_TEST(tail_updates)
{
	struct chunk_info info = { .committed = updates[_i].committed,
	    .pending = updates[_i].pending };

	one_open(false, true);
	ck_assert_int_eq(chunk_craq_fence(&one.t, 5, id7, 10), 0);
	ck_assert_int_eq(chunk_craq_fence(&one.t, 5, (struct chunk_id){ 8, 0 },
	    20), 0);
	admit(0, CRAQ_UPDATE, updates[_i].update, updates[_i].version,
	    updates[_i].base, updates[_i].attempt);
	event(0, CRAQ_EV_INFO, 0, 0, 0, updates[_i].none ? NULL : &info);
	expect(updates[_i].what, updates[_i].text);
	one_close();
}
END_TEST

/* No room: nothing of it is here, and behind us only if it was sent on before; or it is. */
static const struct {
	const char *what;
	uint64_t pending, doubt;
	int rc;				/* of who is behind us */
	uint32_t check;
	const char *text;
} fulls[] = {
	{ "nothing of it", 0, 0, 0, 0, "0: look\n0: reply ENOSPC\n" },
	{ "stored before: that will do", 5, 0, 0, 7,
	  "0: look\n0: forward kind1 v5 on v4\n0: commit v5\n0: reply ok v5\n" },
	{ "stored before, other bytes than behind us", 5, 0, 0, 8,
	  "0: look\n0: forward kind1 v5 on v4\n0: reply ERR_CORRUPT\n" },
	{ "stored before, and nobody else has room", 5, 0, -ENOSPC, 0,
	  "0: look\n0: forward kind1 v5 on v4\n0: abort v5\n0: reply ENOSPC\n" },
	{ "perhaps behind us", 0, 5, 0, 0, "0: look\n0: reply ERR_BUSY no space\n" },
};

/* The successor has version 5, we could not store it. */
static void
doubt5(void)
{
	struct chunk_info v4 = { .committed = 4 };

	admit(1, CRAQ_UPDATE, UPDATE_WRITE, 5, 4, 10);
	event(1, CRAQ_EV_INFO, 0, 0, 0, &v4);
	event(1, CRAQ_EV_STORED, -ENOSPC, 0, 0, NULL);
	event(1, CRAQ_EV_FORWARDED, 0, 5, 5, NULL);
	ck_assert(chunk_craq_doubts(one.c, &one.t, id7));
	one.n = 0;
	one.text[0] = '\0';
}

START_TEST(no_room)
{
	struct chunk_info info = { .committed = 4, .pending = fulls[_i].pending,
	    .pending_check = 7 };
	struct chunk_craq_event ev = { .kind = CRAQ_EV_INFO, .op = &one.ops[0],
	    .info = &info };

	one_open(false, false);
	if (fulls[_i].doubt != 0)
		doubt5();
	admit(0, CRAQ_UPDATE, UPDATE_WRITE, 5, 4, 11);
	ev.now_ns = one.now;
	ck_assert_int_eq(chunk_craq_step(one.c, &ev), 0);
	drain();
	if (fulls[_i].pending != 0)
		event(0, CRAQ_EV_FORWARDED, fulls[_i].rc, 5, fulls[_i].check, NULL);
	expect(fulls[_i].what, fulls[_i].text);
	one_close();
}
END_TEST

/* What may be behind us is not passed over. */
START_TEST(doubt_comes_first)
{
	struct chunk_info v4 = { .committed = 4 };

	one_open(false, false);
	doubt5();
	admit(0, CRAQ_UPDATE, UPDATE_WRITE, 7, 4, 11);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &v4);
	expect("another version", "0: look\n0: reply ERR_VERSION_GAP\n");
	admit(0, CRAQ_UPDATE, UPDATE_WRITE, 5, 4, 12);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &v4);
	expect("the same", "0: look\n0: store kind1 v5 on v4\n"
	    "0: forward kind1 v5 on v4\n");
	one_close();
}
END_TEST

START_TEST(digests)
{
	struct chunk_info a = { .committed = 5, .committed_len = 4,
	    .committed_check = 9, .dedupe_n = 1,
	    .dedupe = { { { { 1 } }, 3, 5 } } };
	struct chunk_info b = a;

	b.dedupe[0].seq = 4;
	ck_assert_msg(chunk_craq_digest(&a, 5) != chunk_craq_digest(&b, 5),
	    "the same bytes by another write");
	b = a;
	b.committed_check++;
	ck_assert_uint_ne(chunk_craq_digest(&a, 5), chunk_craq_digest(&b, 5));
	b = a;
	b.committed_epoch++;
	ck_assert_uint_ne(chunk_craq_digest(&a, 5), chunk_craq_digest(&b, 5));
	b = a;
	b.dedupe_n = 2;
	b.dedupe[1] = b.dedupe[0];
	b.dedupe[0] = (struct chunk_dedupe){ { { 2 } }, 1, 6 };
	b.pending = 6;
	b.pending_check = 11;
	ck_assert_msg(chunk_craq_digest(&a, 5) == chunk_craq_digest(&b, 5),
	    "what is pending is not of it");
	a = b;
	a.committed = 6;
	a.committed_len = 0;
	a.committed_check = 11;
	a.pending = 0;
	ck_assert_msg(chunk_craq_digest(&a, 6) == chunk_craq_digest(&b, 6),
	    "pending as when it is committed");
}
END_TEST

START_TEST(bounds)
{
	one_open(true, false);
	for (unsigned i = 0; i < 8; i++) {
		struct chunk_craq_op *op = &one.ops[i];
		struct chunk_craq_event ev = { .kind = CRAQ_EV_ADMIT, .op = op };

		*op = (struct chunk_craq_op){ .target = &one.t, .kind =
		    CRAQ_WRITE, .id = { 1, i }, .chain_version = 1 };
		ck_assert_int_eq(chunk_craq_step(one.c, &ev), 0);
	}
	{
		struct chunk_craq_op more = { .target = &one.t, .kind =
		    CRAQ_WRITE, .id = { 2, 0 }, .chain_version = 1 };
		struct chunk_craq_event ev = { .kind = CRAQ_EV_ADMIT,
		    .op = &more };

		ck_assert_int_eq(chunk_craq_step(one.c, &ev), ERR_BUSY);
		more.chain_version = 2;
		ck_assert_int_eq(chunk_craq_step(one.c, &ev), ERR_STALE_CHAIN);
		more.chain_version = 1;
		more.kind = CRAQ_UPDATE;
		ck_assert_int_eq(chunk_craq_step(one.c, &ev), ERR_NOT_OWNER);
	}
	one_close();
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("all");

	tcase_add_test(tc, head_writes);
	tcase_add_test(tc, one_at_a_time);
	tcase_add_test(tc, retry_is_known);
	tcase_add_test(tc, refused_below);
	tcase_add_test(tc, answer_lost);
	tcase_add_test(tc, own_store_fails);
	tcase_add_test(tc, no_space);
	tcase_add_test(tc, successor_is_damaged);
	tcase_add_test(tc, digests_differ);
	tcase_add_test(tc, chain_moves);
	tcase_add_loop_test(tc, tail_updates, 0,
	    (int)(sizeof(updates) / sizeof(updates[0])));
	tcase_add_loop_test(tc, no_room, 0, sizeof(fulls) / sizeof(fulls[0]));
	tcase_add_test(tc, doubt_comes_first);
	tcase_add_test(tc, digests);
	tcase_add_test(tc, bounds);
	return suite_run("craq", tc);
}
