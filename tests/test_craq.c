/* SPDX-License-Identifier: MIT */
/* test_craq.c - the replication core, step by step, as traces of its effects.  Whole chains
 * of cores are in test_craq_model.c. */
#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/craq.h"
#include "conf/err.h"

/* ---- one core, step by step ---- */

static struct {
	struct chunk_craq *c;
	struct chunk_craq_target t;
	struct chunk_craq_op ops[8];
	uint64_t now;
	uint32_t check;			/* of what is forced */
	char	 text[8192];
	size_t	 n;
} one;

static const struct chunk_id id7 = { 7, 0 };

static void
say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	one.n += (size_t)vsnprintf(one.text + one.n, sizeof(one.text) - one.n,
	    fmt, ap);
	va_end(ap);
	ck_assert_uint_lt(one.n, sizeof(one.text));
}

/* Versions are told by their low half, after the epoch's first. */
static void
drain(void)
{
	struct chunk_craq_effect e;

	while (chunk_craq_next(one.c, &e)) {
		say("%d: %s", (int)(e.op - one.ops), chunk_craq_eff_name(e.kind));
		switch (e.kind) {
		case CRAQ_STORE:
		case CRAQ_FORWARD:
			say(" kind%u v%llu on v%llu%s", e.update,
			    (unsigned long long)e.version,
			    (unsigned long long)e.base,
			    e.loaded ? " loaded" : "");
			if (e.kind == CRAQ_FORWARD && e.force)
				say(" forced%u", e.check);
			break;
		case CRAQ_COMMIT:
		case CRAQ_ABORT:
		case CRAQ_LOAD:
		case CRAQ_FETCH:
		case CRAQ_PURGE:
			say(" v%llu", (unsigned long long)e.version);
			break;
		case CRAQ_REPLY:
			say(" %s", e.rc == 0 ? "ok" : err_name(e.rc));
			if (e.rc == 0)
				say(" v%llu", (unsigned long long)e.version);
			if (e.no_space)
				say(" no space");
			break;
		case CRAQ_CANCEL:
		case CRAQ_LOOK:
		case CRAQ_WAKE:
			break;
		}
		say("\n");
	}
	chunk_craq_check(one.c);
}

/* To the next version, as @is says: Head, Tail, Reading tail, Syncing, Whole; "-": none. */
static void
move(const char *is)
{
	struct chunk_craq_place p = { .version = one.t.version + 1,
	    .head = strchr(is, 'H') != NULL, .tail = strchr(is, 'T') != NULL,
	    .read_tail = strchr(is, 'R') != NULL,
	    .syncing = strchr(is, 'S') != NULL,
	    .whole = strchr(is, 'W') != NULL };

	if (strcmp(is, "-") == 0)
		chunk_craq_rest(one.c, &one.t, p.version);
	else
		chunk_craq_move(one.c, &one.t, &p);
	drain();
}

static void
one_place(const char *is)
{
	memset(&one, 0, sizeof(one));
	ck_assert_int_eq(chunk_craq_open(&one.c, 8), 0);
	chunk_craq_target_init(&one.t, 3);
	move(is);
	if (strcmp(is, "-") != 0)
		chunk_craq_serve(one.c, &one.t);
	one.now = 1000;
}

static void
one_open(bool head, bool tail)
{
	one_place(head ? tail ? "HTR" : "H" : tail ? "TR" : "");
}

static void
one_close(void)
{
	chunk_craq_close(one.c);
}

static int
admit(unsigned i, enum chunk_craq_kind kind, uint8_t update, uint64_t version,
    uint64_t base, uint64_t seq)
{
	struct chunk_craq_op *op = &one.ops[i];
	struct chunk_craq_event ev = { .kind = CRAQ_EV_ADMIT, .op = op,
	    .now_ns = one.now };
	int rc;

	*op = (struct chunk_craq_op){ .target = &one.t, .id = id7, .kind = kind,
	    .update = update, .chain_version = one.t.version, .version = version,
	    .base = base, .attempt = seq, .seq = seq, .client = { { 9 } },
	    .force = one.t.syncing, .check = one.check,
	    .deadline_ns = one.now + NS_PER_S };
	rc = chunk_craq_step(one.c, &ev);
	drain();
	return rc;
}

static void
event(unsigned i, enum chunk_craq_ev kind, int rc, uint64_t version,
    uint32_t check, const struct chunk_info *info)
{
	struct chunk_craq_event ev = { .kind = kind, .op = &one.ops[i],
	    .now_ns = one.now, .rc = rc, .version = version, .len = 4,
	    .check = check, .info = info, .room = true };

	ck_assert_int_eq(chunk_craq_step(one.c, &ev), 0);
	drain();
}

static void
expect(const char *what, const char *text)
{
	if (strcmp(one.text, text) != 0)
		ck_abort_msg("%s:\n%s\nnot\n%s", what, one.text, text);
	one.n = 0;
	one.text[0] = '\0';
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

	one_open(true, false);
	admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &v1);
	event(0, CRAQ_EV_STORED, 0, 0, 5, NULL);
	event(0, CRAQ_EV_FORWARDED, -ETIMEDOUT, 0, 0, NULL);
	one.now += 10 * NS_PER_MS;
	event(0, CRAQ_EV_WOKEN, 0, 0, 0, NULL);
	event(0, CRAQ_EV_FORWARDED, -ENOSPC, 0, 0, NULL);
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

	one_open(true, false);
	admit(0, CRAQ_WRITE, UPDATE_WRITE, 0, 0, 1);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &v1);
	event(0, CRAQ_EV_STORED, 0, 0, 5, NULL);
	event(0, CRAQ_EV_FORWARDED, -ETIMEDOUT, 0, 0, NULL);
	one.now += 10 * NS_PER_MS;
	event(0, CRAQ_EV_WOKEN, 0, 0, 0, NULL);
	event(0, CRAQ_EV_FORWARDED, -EINVAL, 0, 0, NULL);
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

/* No room: nothing of it is here, and behind us only if it was sent on before. */
static const struct {
	const char *what;
	uint64_t pending, doubt;
	const char *text;
} fulls[] = {
	{ "nothing of it", 0, 0, "0: look\n0: reply ENOSPC\n" },
	{ "stored before", 5, 0, "0: look\n0: reply ERR_BUSY no space\n" },
	{ "perhaps behind us", 0, 5, "0: look\n0: reply ERR_BUSY no space\n" },
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
	struct chunk_info info = { .committed = 4, .pending = fulls[_i].pending };
	struct chunk_craq_event ev = { .kind = CRAQ_EV_INFO, .op = &one.ops[0],
	    .info = &info };

	one_open(false, false);
	if (fulls[_i].doubt != 0)
		doubt5();
	admit(0, CRAQ_UPDATE, UPDATE_WRITE, 5, 4, 11);
	ev.now_ns = one.now;
	ck_assert_int_eq(chunk_craq_step(one.c, &ev), 0);
	drain();
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

START_TEST(repairs)
{
	struct chunk_info v5 = { .committed = 5, .committed_check = 7 };

	one_place("TR");
	admit(0, CRAQ_REPAIR, 0, 0, 0, 0);
	event(0, CRAQ_EV_INFO, 0, 0, 0, &v5);
	event(0, CRAQ_EV_LOADED, 0, 0, 0, NULL);
	event(0, CRAQ_EV_STORED, 0, 0, 7, NULL);
	expect("same version, from a peer", "0: look\n0: fetch v5\n"
	    "0: store kind4 v5 on v0 loaded\n0: commit v5\n0: reply ok v5\n");
	admit(1, CRAQ_REPAIR, 0, 0, 0, 0);
	event(1, CRAQ_EV_INFO, 0, 0, 0, &v5);
	event(1, CRAQ_EV_LOADED, 0, 0, 0, NULL);
	event(1, CRAQ_EV_STORED, 0, 0, 8, NULL);
	expect("other bytes", "1: look\n1: fetch v5\n"
	    "1: store kind4 v5 on v0 loaded\n1: abort v5\n"
	    "1: reply ERR_CORRUPT\n");
	admit(2, CRAQ_REPAIR, 0, 0, 0, 0);
	event(2, CRAQ_EV_INFO, 0, 0, 0, &v5);
	event(2, CRAQ_EV_LOADED, -ENOENT, 0, 0, NULL);
	expect("they hold another", "2: look\n2: fetch v5\n2: reply ERR_BUSY\n");
	admit(3, CRAQ_REPAIR, 0, 0, 0, 0);
	event(3, CRAQ_EV_INFO, 0, 0, 0, &(struct chunk_info){ .committed = 5,
	    .pending = 6 });
	expect("one is pending", "3: look\n3: reply ERR_BUSY\n");
	/* An operator has said who is right. */
	admit(5, CRAQ_REPAIR, 0, 5, 0, 0);
	one.ops[5].force = true;
	event(5, CRAQ_EV_INFO, 0, 0, 0, &v5);
	event(5, CRAQ_EV_LOADED, 0, 0, 0, NULL);
	event(5, CRAQ_EV_STORED, 0, 0, 8, NULL);
	expect("forced: other bytes", "5: look\n5: fetch v5\n"
	    "5: store kind4 v5 on v0 loaded\n5: commit v5\n5: reply ok v5\n");
	admit(6, CRAQ_REPAIR, 0, 6, 0, 0);
	one.ops[6].force = true;
	event(6, CRAQ_EV_INFO, 0, 0, 0, &v5);
	expect("forced: it has moved on", "6: look\n6: reply ESTALE\n");
	admit(7, CRAQ_REPAIR, 0, 5, 0, 0);
	one.ops[7].force = true;
	event(7, CRAQ_EV_INFO, 0, 0, 0, NULL);
	expect("forced: it has gone", "7: look\n7: reply ESTALE\n");
	admit(4, CRAQ_REPAIR, 0, 0, 0, 0);
	event(4, CRAQ_EV_INFO, 0, 0, 0, &v5);
	event(4, CRAQ_EV_LOADED, 0, 0, 0, NULL);
	move("TR");
	event(4, CRAQ_EV_STORED, 0, 0, 7, NULL);
	expect("nothing of it stays pending", "4: look\n4: fetch v5\n"
	    "4: store kind4 v5 on v0 loaded\n4: commit v5\n4: reply ok v5\n");
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
	Suite *s = suite_create("craq");
	TCase *tc = tcase_create("steps");
	SRunner *sr;
	int failed;

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
	tcase_add_test(tc, digests);
	tcase_add_test(tc, bounds);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
