/* SPDX-License-Identifier: MIT */
/* test_craq_moves.c - the replication core while its chain changes: a replica joins, syncs,
 * hands over, is repaired; step by step, as traces of its effects. */
#include "tests/craq_rig.h"

/* ---- chains that change ---- */

START_TEST(who_takes_what)
{
	static const struct {
		const char *what, *is;
		int rc[5];	/* WRITE, CUT, UPDATE, SETTLE, SYNC, REPAIR */
		int repair;
	} rows[] = {
		{ "head", "H", { 0, 0, ERR_NOT_OWNER, ERR_NOT_OWNER,
		  ERR_NOT_OWNER }, 0 },
		{ "between", "", { ERR_NOT_OWNER, ERR_NOT_OWNER, 0, 0,
		  ERR_NOT_OWNER }, 0 },
		{ "alone", "HTR", { 0, 0, ERR_NOT_OWNER, ERR_NOT_OWNER,
		  ERR_NOT_OWNER }, 0 },
		{ "alone, one comes back", "HRW", { 0, 0, ERR_NOT_OWNER,
		  ERR_NOT_OWNER, 0 }, 0 },
		{ "tail, one comes back", "RW", { ERR_NOT_OWNER, ERR_NOT_OWNER,
		  0, 0, 0 }, 0 },
		{ "comes back", "TS", { ERR_NOT_OWNER, ERR_NOT_OWNER, 0, 0,
		  ERR_NOT_OWNER }, ERR_NOT_OWNER },
		{ "rests", "-", { ERR_NOT_OWNER, ERR_NOT_OWNER, ERR_NOT_OWNER,
		  ERR_NOT_OWNER, ERR_NOT_OWNER }, ERR_NOT_OWNER },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (int k = CRAQ_WRITE; k <= CRAQ_REPAIR; k++) {
			int rc = k == CRAQ_REPAIR ? rows[i].repair :
			    rows[i].rc[k - CRAQ_WRITE];

			one_place(rows[i].is);
			ck_assert_msg(admit(0, (enum chunk_craq_kind)k,
			    UPDATE_WRITE, 5, 4, 1) == rc, "%s, kind %d",
			    rows[i].what, k);
			one_close();
			if (rc == ERR_NOT_OWNER)
				continue;
			one_place(rows[i].is);
			move(rows[i].is);
			ck_assert_msg(admit(0, (enum chunk_craq_kind)k,
			    UPDATE_WRITE, 5, 4, 1) == ERR_CHAIN_RECOVERING,
			    "%s, kind %d, settles", rows[i].what, k);
			one_close();
		}
}
END_TEST

START_TEST(whole_after_store)
{
	struct chunk_info v1 = { .committed = 1 };

	one_place("HRW");
	admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &v1);
	expect("stored first", "0: look\n0: store kind1 v2 on v1\n");
	event(0, CRAQ_EV_STORED, 0, 0, 5, NULL);
	event(0, CRAQ_EV_LOADED, 0, 0, 9, NULL);
	event(0, CRAQ_EV_FORWARDED, -ENOSPC, 0, 0, NULL);
	one.now += 10 * NS_PER_MS;
	event(0, CRAQ_EV_WOKEN, 0, 0, 0, NULL);
	event(0, CRAQ_EV_FORWARDED, 0, 2, 6, NULL);
	expect("no answer of a SYNCING one refuses, nor may it differ",
	    "0: load v2\n0: forward kind4 v2 on v1 loaded forced9\n0: wake\n"
	    "0: forward kind4 v2 on v1 loaded forced9\n0: wake\n");
	one.now += 10 * NS_PER_MS;
	event(0, CRAQ_EV_WOKEN, 0, 0, 0, NULL);
	event(0, CRAQ_EV_FORWARDED, 0, 2, 5, NULL);
	expect("then it is done", "0: forward kind4 v2 on v1 loaded forced9\n"
	    "0: commit v2\n0: reply ok v2\n");

	one.ops[1].epoch = 3;
	admit(1, CRAQ_CUT, UPDATE_REMOVE, 0, 0, 0);
	one.ops[1].epoch = 3;
	event(1, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 2 });
	event(1, CRAQ_EV_STORED, 0, 0, 0, NULL);
	expect("a removal too", "1: look\n1: store kind3 v12884901888 on v2\n"
	    "1: forward kind3 v12884901888 on v2 forced0\n");
	one_close();
}
END_TEST

START_TEST(whole_not_stored)
{
	one_place("RW");
	admit(0, CRAQ_UPDATE, UPDATE_WRITE, 5, 4, 10);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 4 });
	event(0, CRAQ_EV_STORED, -ENOSPC, 0, 0, NULL);
	expect("nothing was sent: refused",
	    "0: look\n0: store kind1 v5 on v4\n0: reply ENOSPC\n");
	one_close();
}
END_TEST

/* What a reading tail does to make its SYNCING successor equal. */
START_TEST(syncs)
{
	struct chunk_info v5 = { .committed = 5, .committed_check = 7,
	    .committed_len = 4 };
	struct chunk_info p6 = { .committed = 5, .pending = 6,
	    .pending_check = 8 };
	struct chunk_info v6 = { .committed = 6, .committed_check = 8 };

	one_place("RW");
	admit(0, CRAQ_SYNC, 0, 0, 0, 0);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &v5);
	event(0, CRAQ_EV_LOADED, 0, 0, 9, NULL);
	event(0, CRAQ_EV_FORWARDED, 0, 5, 7, NULL);
	expect("what is committed", "0: look\n0: load v5\n"
	    "0: forward kind4 v5 on v0 loaded forced9\n0: reply ok v5\n");

	admit(1, CRAQ_SYNC, 0, 0, 0, 0);
	event(1, CRAQ_EV_INFO, 0, 0, 0, NULL);
	event(1, CRAQ_EV_FORWARDED, 0, 1, 0, NULL);
	expect("nothing", "1: look\n1: forward kind3 v1 on v0 forced0\n"
	    "1: reply ok v1\n");

	admit(2, CRAQ_SYNC, 0, 0, 0, 0);
	event(2, CRAQ_EV_INFO, 0, 0, 0, &p6);
	event(2, CRAQ_EV_LOADED, 0, 0, 9, NULL);
	event(2, CRAQ_EV_FORWARDED, 0, 6, 8, NULL);
	event(2, CRAQ_EV_INFO, 0, 0, 0, &v6);
	expect("what is pending is settled first", "2: look\n2: load v6\n"
	    "2: forward kind4 v6 on v5 loaded forced9\n2: commit v6\n2: look\n"
	    "2: load v6\n");
	event(2, CRAQ_EV_LOADED, ERR_CORRUPT, 0, 0, NULL);
	expect("damaged here", "2: reply ERR_CORRUPT\n");

	admit(3, CRAQ_SYNC, 0, 0, 0, 0);
	one.now += 5 * NS_PER_S;
	event(3, CRAQ_EV_INFO, 0, 0, 0, &v5);
	event(3, CRAQ_EV_LOADED, 0, 0, 9, NULL);
	event(3, CRAQ_EV_FORWARDED, -ETIMEDOUT, 0, 0, NULL);
	ck_assert_uint_gt(one.ops[3].deadline_ns, one.now + NS_PER_S);
	expect("it goes on for ever", "3: look\n3: load v5\n"
	    "3: forward kind4 v5 on v0 loaded forced9\n3: wake\n");
	move("RW");
	expect("until the chain moves", "3: cancel\n"
	    "3: reply ERR_STALE_CHAIN\n");
	one_close();
}
END_TEST

/* What a SYNCING replica does with what is forced on it; digest of v5 as told, or not. */
static const struct {
	const char *what;
	bool	 none;
	uint64_t committed, pending;
	uint8_t	 update;
	uint64_t version, attempt;
	bool	 differs;
	const char *text;
} forced[] = {
	{ "new", true, 0, 0, UPDATE_REPLACE, 5, 10, false,
	  "0: look\n0: store kind4 v5 on v0\n" },
	{ "newer, whatever it builds on", false, 2, 0, UPDATE_REPLACE, 5, 10,
	  false, "0: look\n0: store kind4 v5 on v2\n" },
	{ "over what is pending", false, 2, 7, UPDATE_REPLACE, 5, 10, false,
	  "0: look\n0: store kind4 v5 on v2\n" },
	{ "the same", false, 5, 0, UPDATE_REPLACE, 5, 10, false,
	  "0: look\n0: reply ok v5\n" },
	{ "the same under a pending one", false, 5, 6, UPDATE_REPLACE, 5, 10,
	  false, "0: look\n0: abort v6\n0: reply ok v5\n" },
	{ "other bytes of that number", false, 5, 0, UPDATE_REPLACE, 5, 10, true,
	  "0: look\n0: purge v6\n" },
	{ "older", false, 6, 9, UPDATE_REPLACE, 5, 10, false,
	  "0: look\n0: purge v10\n" },
	{ "removal", false, 6, 0, UPDATE_REMOVE, 1, 10, false,
	  "0: look\n0: purge v7\n" },
	{ "removal of a first version", false, 0, 6, UPDATE_REMOVE, 1, 10, false,
	  "0: look\n0: purge v7\n" },
	{ "removal of nothing", true, 0, 0, UPDATE_REMOVE, 1, 10, false,
	  "0: look\n0: reply ok v1\n" },
	{ "given up by its sender", false, 6, 0, UPDATE_REPLACE, 5, 9, false,
	  "0: look\n0: reply ERR_VERSION_GAP\n" },
};

START_TEST(forced_updates)
{
	struct chunk_info info = { .committed = forced[_i].committed,
	    .pending = forced[_i].pending, .committed_check = 3 };

	one_place("TS");
	ck_assert_int_eq(chunk_craq_fence(&one.t, 10, id7, 0), 0);
	one.check = chunk_craq_digest(&info, info.committed) + forced[_i].differs;
	admit(0, CRAQ_UPDATE, forced[_i].update, forced[_i].version, 0,
	    forced[_i].attempt);
	event(0, CRAQ_EV_INFO, 0, 0, 0, forced[_i].none ? NULL : &info);
	expect(forced[_i].what, forced[_i].text);
	one_close();
}
END_TEST

START_TEST(purged)
{
	one_place("TS");
	admit(0, CRAQ_UPDATE, UPDATE_REPLACE, 5, 0, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 6 });
	event(0, CRAQ_EV_STORED, 0, 0, 0, NULL);
	event(0, CRAQ_EV_INFO, 0, 0, 0, NULL);
	event(0, CRAQ_EV_STORED, 0, 0, 5, NULL);
	expect("then it is new", "0: look\n0: purge v7\n0: look\n"
	    "0: store kind4 v5 on v0\n0: commit v5\n0: reply ok v5\n");
	admit(1, CRAQ_UPDATE, UPDATE_REPLACE, 5, 0, 2);
	event(1, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 6 });
	event(1, CRAQ_EV_STORED, -ENOSPC, 0, 0, NULL);
	expect("not purged: not done", "1: look\n1: purge v7\n"
	    "1: reply ERR_BUSY\n");
	admit(2, CRAQ_UPDATE, UPDATE_REPLACE, 5, 0, 3);
	event(2, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 6 });
	move("TS");
	ck_assert_uint_eq(one.t.stale, 1);
	event(2, CRAQ_EV_STORED, 0, 0, 0, NULL);
	ck_assert_uint_eq(one.t.stale, 0);
	expect("the chain moves", "2: look\n2: purge v7\n"
	    "2: reply ERR_STALE_CHAIN\n");
	one_close();
	one_place("T");
	one.ops[0].force = true;
	admit(0, CRAQ_UPDATE, UPDATE_REPLACE, 5, 0, 1);
	one.ops[0].force = true;
	event(0, CRAQ_EV_INFO, 0, 0, 0, NULL);
	expect("nobody forces who serves", "0: look\n0: reply ERR_VERSION_GAP\n");
	one_close();
	one_place("TS");
	admit(0, CRAQ_UPDATE, UPDATE_WRITE, 5, 4, 1);
	one.ops[0].force = false;
	event(0, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 4 });
	expect("nor asks who is not ready", "0: look\n0: reply ERR_VERSION_GAP\n");
	one_close();
}
END_TEST

/* Our store failed and what is behind us may hold v5: who remembers that after a move. */
START_TEST(doubts_and_moves)
{
	static const struct { const char *what, *is; bool kept; } rows[] = {
		{ "still between", "", true }, { "now head", "H", true },
		{ "now reading tail", "TR", false },
		{ "now reading tail, one comes back", "RW", false },
		{ "now comes back", "TS", false }, { "now rests", "-", false },
	};
	struct chunk_info v4 = { .committed = 4 };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (int late = 0; late < 2; late++) {
			one_place("");
			admit(0, CRAQ_UPDATE, UPDATE_WRITE, 5, 4, 10);
			event(0, CRAQ_EV_INFO, 0, 0, 0, &v4);
			if (!late) {
				event(0, CRAQ_EV_FORWARDED, 0, 5, 7, NULL);
				event(0, CRAQ_EV_STORED, ERR_CORRUPT, 0, 0,
				    NULL);
				ck_assert(chunk_craq_doubts(one.c, &one.t, id7));
			}
			move(rows[i].is);
			if (late)
				event(0, CRAQ_EV_STORED, ERR_CORRUPT, 0, 0,
				    NULL);
			ck_assert_uint_eq(one.t.stale, 0);
			ck_assert_msg(chunk_craq_doubts(one.c, &one.t, id7) ==
			    rows[i].kept, "%s, late %d", rows[i].what, late);
			one_close();
		}
	one_place("RW");
	admit(0, CRAQ_UPDATE, UPDATE_WRITE, 5, 4, 10);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &v4);
	move("");
	event(0, CRAQ_EV_STORED, ERR_CORRUPT, 0, 0, NULL);
	ck_assert_msg(!chunk_craq_doubts(one.c, &one.t, id7),
	    "nothing was sent: no doubt");
	one_close();
}
END_TEST

START_TEST(stale_ends)
{
	one_place("");
	admit(0, CRAQ_UPDATE, UPDATE_WRITE, 5, 4, 10);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 4 });
	event(0, CRAQ_EV_FORWARDED, 0, 5, 7, NULL);
	move("");
	event(0, CRAQ_EV_STORED, 0, 0, 7, NULL);
	expect("committed behind: so here", "0: look\n0: store kind1 v5 on v4\n"
	    "0: forward kind1 v5 on v4\n0: commit v5\n0: reply ok v5\n");
	chunk_craq_serve(one.c, &one.t);

	admit(1, CRAQ_UPDATE, UPDATE_WRITE, 6, 5, 11);
	event(1, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 5 });
	move("TR");
	event(1, CRAQ_EV_STORED, 0, 0, 7, NULL);
	expect("a new reading tail leaves it to its owner",
	    "1: look\n1: store kind1 v6 on v5\n1: forward kind1 v6 on v5\n"
	    "1: cancel\n1: reply ERR_STALE_CHAIN\n");
	one_close();
}
END_TEST

START_TEST(floors_are_of_a_version)
{
	one_place("TR");
	ck_assert_int_eq(chunk_craq_fence(&one.t, 50, id7, 60), 0);
	move("TR");
	chunk_craq_serve(one.c, &one.t);
	admit(0, CRAQ_UPDATE, UPDATE_WRITE, 5, 4, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 4 });
	expect("another predecessor counts anew",
	    "0: look\n0: store kind1 v5 on v4\n");
	one_close();
}
END_TEST

START_TEST(handing)
{
	one_place("HRW");
	ck_assert(!one.t.handing);
	chunk_craq_hand(&one.t);
	ck_assert(one.t.handing);
	move("H");
	ck_assert(!one.t.handing);
	one_close();
}
END_TEST

/* @forced_version: this version, whatever was committed as that; 0: what is committed. */
static void
repair(unsigned i, uint64_t forced_version, const struct chunk_info *info)
{
	admit(i, CRAQ_REPAIR, 0, forced_version, 0, 0);
	one.ops[i].force = forced_version != 0;
	event(i, CRAQ_EV_INFO, 0, 0, 0, info);
}

/* A peer has given its bytes, which are stored. */
static void
fetched(unsigned i, uint32_t check)
{
	event(i, CRAQ_EV_LOADED, 0, 0, 0, NULL);
	event(i, CRAQ_EV_STORED, 0, 0, check, NULL);
}

START_TEST(repairs)
{
	struct chunk_info v5 = { .committed = 5, .committed_check = 7 };

	one_place("TR");
	repair(0, 0, &v5);
	fetched(0, 7);
	expect("same version, from a peer", "0: look\n0: fetch v5\n"
	    "0: store kind4 v5 on v0 loaded\n0: commit v5\n0: reply ok v5\n");
	repair(1, 0, &v5);
	fetched(1, 8);
	expect("other bytes", "1: look\n1: fetch v5\n"
	    "1: store kind4 v5 on v0 loaded\n1: abort v5\n"
	    "1: reply ERR_CORRUPT\n");
	repair(2, 0, &v5);
	event(2, CRAQ_EV_LOADED, -ENOENT, 0, 0, NULL);
	expect("they hold another", "2: look\n2: fetch v5\n2: reply ERR_BUSY\n");
	repair(3, 0, &(struct chunk_info){ .committed = 5, .pending = 6 });
	expect("one is pending", "3: look\n3: reply ERR_BUSY\n");
	/* An operator has said who is right. */
	repair(5, 5, &v5);
	fetched(5, 8);
	expect("forced: other bytes", "5: look\n5: fetch v5\n"
	    "5: store kind4 v5 on v0 loaded\n5: commit v5\n5: reply ok v5\n");
	repair(6, 6, &v5);
	expect("forced: it has moved on", "6: look\n6: reply ESTALE\n");
	repair(7, 5, NULL);
	expect("forced: it has gone", "7: look\n7: reply ESTALE\n");
	repair(4, 0, &v5);
	event(4, CRAQ_EV_LOADED, 0, 0, 0, NULL);
	move("TR");
	event(4, CRAQ_EV_STORED, 0, 0, 7, NULL);
	expect("nothing of it stays pending", "4: look\n4: fetch v5\n"
	    "4: store kind4 v5 on v0 loaded\n4: commit v5\n4: reply ok v5\n");
	one_close();
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("all");

	tcase_add_test(tc, who_takes_what);
	tcase_add_test(tc, whole_after_store);
	tcase_add_test(tc, whole_not_stored);
	tcase_add_test(tc, syncs);
	tcase_add_loop_test(tc, forced_updates, 0,
	    (int)(sizeof(forced) / sizeof(forced[0])));
	tcase_add_test(tc, purged);
	tcase_add_test(tc, doubts_and_moves);
	tcase_add_test(tc, stale_ends);
	tcase_add_test(tc, floors_are_of_a_version);
	tcase_add_test(tc, handing);
	tcase_add_test(tc, repairs);
	return suite_run("craq_moves", tc);
}
