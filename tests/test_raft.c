/* SPDX-License-Identifier: MIT */
/* test_raft.c - one Raft core against messages made by hand; groups of them are in
 * test_raft_sim.c. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "meta/raft_impl.h"

#define T	1000ull
#define ME	1

static struct rand rnd;
static struct raft *r;
static struct raft_msg sent[256];
static unsigned sent_n;
static uint64_t appended, cut, committed, ticket, read_index;
static bool saves, restores;

/* Take all effects; state is durable at once when @durable. */
static void
take(uint64_t now, bool durable)
{
	struct raft_effect x;
	struct raft_hard hard = { 0 };
	uint64_t last = 0;

	sent_n = 0;
	appended = cut = 0;
	saves = restores = false;
	do {
		bool save = false;

		while (raft_next(r, &x)) {
			raft_check(r);
			if (x.kind == RAFT_SAVE) {
				hard = x.hard;
				save = saves = true;
			} else if (x.kind == RAFT_APPEND) {
				appended += x.n;
				last = x.index + x.n - 1;
			} else if (x.kind == RAFT_TRUNCATE)
				cut = x.index;
			else if (x.kind == RAFT_COMMIT)
				committed = x.index;
			else if (x.kind == RAFT_RESTORE)
				restores = true;
			else if (x.kind == RAFT_READ) {
				ticket = x.ticket;
				read_index = x.index;
			} else if (x.kind == RAFT_SEND)
				sent[sent_n++] = x.msg;
		}
		if (!durable || (!save && last == 0))
			break;
		if (save)
			raft_saved(r, now, &hard);
		else {
			raft_persisted(r, now, last, raft_term_at(r, last));
			last = 0;
		}
	} while (true);
	raft_check(r);
}

static const struct raft_msg *
sent_kind(unsigned kind)
{
	for (unsigned i = 0; i < sent_n; i++)
		if (sent[i].kind == kind)
			return &sent[i];
	return NULL;
}

/* Voters 1..n; @terms of the entries from 2 on ("1123"). */
static void
start(unsigned n, const char *terms)
{
	struct raft_conf conf = { .id = ME, .election_ns = T, .beat_ns = T / 10,
		.rand = &rnd, .entries_max = 4, .bytes_max = 100, .inflight_max = 2 };
	struct raft_members m = { .n = n };
	uint8_t bytes[RAFT_MEMBERS_BYTES];
	struct raft_entry e = { .term = 1, .type = RAFT_MEMBERS, .payload = bytes };
	struct raft_point none = { 0 };
	struct raft_hard hard = { 0 };

	rand_seed(&rnd, 1);
	committed = ticket = read_index = 0;
	for (unsigned i = 0; i < n; i++)
		m.m[i] = (struct raft_member){ .id = i + 1, .voter = true };
	if (n != 0)
		e.len = (uint32_t)raft_members_encode(&m, bytes);
	hard.term = *terms != '\0' ? (uint64_t)(terms[strlen(terms) - 1] - '0') : n != 0;
	ck_assert_int_eq(raft_open(&r, &conf, &hard, &none, 0, 0), 0);
	if (n != 0)
		ck_assert_int_eq(raft_load(r, 1, &e), 0);
	for (unsigned i = 0; terms[i] != '\0'; i++) {
		e = (struct raft_entry){ .term = (uint64_t)(terms[i] - '0'),
			.type = RAFT_COMMAND };
		ck_assert_int_eq(raft_load(r, i + 2, &e), 0);
	}
	ck_assert_int_eq(raft_start(r, 1000), 0);
	take(1000, true);
}

static void
got(uint64_t now, struct raft_msg m)
{
	m.to = ME;
	raft_receive(r, now, &m);
	take(now, true);
}

/* Lead three members, nothing but the no-op behind the first entry. */
static void
lead(void)
{
	start(3, "");
	raft_tick(r, 1000 + 2 * T);
	take(3000, true);
	got(3001, (struct raft_msg){ .kind = RAFT_PREVOTE_REP, .ok = true, .from = 2,
	    .term = 2 });
	got(3002, (struct raft_msg){ .kind = RAFT_VOTE_REP, .ok = true, .from = 2,
	    .term = 2 });
	ck_assert_int_eq(raft_role(r), RAFT_LEADER);
	got(3010, (struct raft_msg){ .kind = RAFT_ENTRIES_REP, .ok = true, .from = 2,
	    .term = 2, .index = 2, .sent_ns = 3002 });
	ck_assert_uint_eq(committed, 2);
}

/* ---- votes ---- */

static const struct {
	const char *what, *log;
	uint64_t now, term, index, log_term;
	bool force, granted;
} votes[] = {
	{ "the same log", "12", 2500, 3, 3, 2, false, true },
	{ "a longer log", "12", 2500, 3, 9, 2, false, true },
	{ "a later last term, shorter", "12", 2500, 4, 1, 3, false, true },
	{ "a shorter log", "12", 2500, 3, 2, 2, false, false },
	{ "an earlier last term, longer", "12", 2500, 3, 9, 1, false, false },
	{ "an old term", "12", 2500, 1, 9, 9, false, false },
	{ "soon after start", "12", 1900, 3, 3, 2, false, false },
	{ "soon after start, the leader wants it", "12", 1900, 3, 3, 2, true, true },
};

START_TEST(vote)
{
	const struct raft_msg *m;

	start(3, votes[_i].log);
	got(votes[_i].now, (struct raft_msg){ .kind = RAFT_VOTE, .from = 2,
	    .term = votes[_i].term, .index = votes[_i].index,
	    .log_term = votes[_i].log_term, .force = votes[_i].force });
	m = sent_kind(RAFT_VOTE_REP);
	ck_assert_msg((m != NULL && m->ok) == votes[_i].granted, "%s", votes[_i].what);
	ck_assert(!votes[_i].granted || saves);
	/* Nobody else gets one in that term; the same one again does. */
	got(votes[_i].now, (struct raft_msg){ .kind = RAFT_VOTE, .from = 3,
	    .term = votes[_i].term, .index = 99, .log_term = 99, .force = true });
	m = sent_kind(RAFT_VOTE_REP);
	ck_assert(!votes[_i].granted || m == NULL || !m->ok);
	got(votes[_i].now, (struct raft_msg){ .kind = RAFT_VOTE, .from = 2,
	    .term = votes[_i].term, .index = 99, .log_term = 99, .force = true });
	m = sent_kind(RAFT_VOTE_REP);
	ck_assert(!votes[_i].granted || (m != NULL && m->ok));
	raft_close(r);
}
END_TEST

START_TEST(prevote_near_a_leader)
{
	struct raft_msg m = { .kind = RAFT_PREVOTE, .from = 3, .term = 9, .index = 9,
		.log_term = 9 };

	start(3, "12");
	got(2500, (struct raft_msg){ .kind = RAFT_BEAT, .from = 2, .term = 2 });
	got(2500 + T - 1, m);
	ck_assert_uint_eq(sent_n, 0);
	got(2500 + T, m);
	ck_assert(sent_kind(RAFT_PREVOTE_REP)->ok);
	ck_assert_uint_eq(raft_term(r), 2);
	raft_close(r);
}
END_TEST

/* We have asked all at 3000, and 2 asks us: of two equals one waits for the other. */
static const struct {
	const char *what;
	uint64_t now, index, log_term;
	bool granted;
} at_once[] = {
	{ "it has the same log", 3001, 3, 2, false },
	{ "it has a longer log", 3001, 4, 2, true },
	{ "it has a shorter log", 3001, 2, 2, false },
	{ "its last term is later", 3001, 2, 3, true },
	{ "the same log, we did not succeed", 3000 + T / 10, 3, 2, true },
};

START_TEST(two_ask_at_once)
{
	const struct raft_msg *m;

	start(3, "12");
	raft_tick(r, 3000);
	take(3000, true);
	ck_assert_int_eq(raft_role(r), RAFT_PRECANDIDATE);
	raft_tick(r, at_once[_i].now);
	take(at_once[_i].now, true);
	ck_assert_int_eq(raft_role(r), RAFT_PRECANDIDATE);
	got(at_once[_i].now, (struct raft_msg){ .kind = RAFT_PREVOTE, .from = 2,
	    .term = 3, .index = at_once[_i].index, .log_term = at_once[_i].log_term });
	m = sent_kind(RAFT_PREVOTE_REP);
	ck_assert_msg((m != NULL && m->ok) == at_once[_i].granted, "%s", at_once[_i].what);
	raft_close(r);
}
END_TEST

START_TEST(vote_waits_for_disk)
{
	struct raft_msg m = { .kind = RAFT_VOTE, .from = 2, .to = ME, .term = 3,
		.index = 9, .log_term = 2 };

	start(3, "12");
	raft_receive(r, 2500, &m);
	take(2500, false);
	ck_assert(saves);
	ck_assert_uint_eq(sent_n, 0);
	raft_saved(r, 2501, &(struct raft_hard){ 3, 2 });
	take(2501, false);
	ck_assert(sent_kind(RAFT_VOTE_REP) != NULL);
	raft_close(r);
}
END_TEST

START_TEST(blank_never_votes)
{
	start(0, "");
	got(5000, (struct raft_msg){ .kind = RAFT_PREVOTE, .from = 2, .term = 3,
	    .index = 9, .log_term = 2 });
	ck_assert_uint_eq(sent_n, 0);
	got(5000, (struct raft_msg){ .kind = RAFT_VOTE, .from = 2, .term = 3,
	    .index = 9, .log_term = 2 });
	ck_assert(sent_kind(RAFT_VOTE_REP) != NULL);
	ck_assert(!sent_kind(RAFT_VOTE_REP)->ok);
	raft_tick(r, 90000);
	take(90000, true);
	ck_assert_int_eq(raft_role(r), RAFT_FOLLOWER);
	raft_close(r);
}
END_TEST

START_TEST(alone_leads_at_once)
{
	start(1, "");
	raft_tick(r, raft_wake_ns(r));
	take(1000, true);
	ck_assert_int_eq(raft_role(r), RAFT_LEADER);
	ck_assert_uint_eq(committed, 2);
	ck_assert(raft_lease(r, 1000));
	raft_close(r);
}
END_TEST

static struct raft_members
members(const char *s)
{
	struct raft_members m = { 0 };

	for (; *s != '\0'; s++)
		m.m[m.n++] = (struct raft_member){ .id = (uint64_t)(*s & 31),
			.voter = *s >= 'a' };
	return m;
}

/* ---- entries ---- */

static const struct {
	const char *what, *log;		/* from index 2 */
	uint64_t index, log_term;
	const char *entries;
	bool	 ok, answer;
	uint64_t cut, appended, rep, hint;
} entries[] = {
	{ "the next", "12", 3, 2, "3", true, true, 0, 1, 4, 0 },
	{ "several terms", "12", 3, 2, "233", true, true, 0, 3, 6, 0 },
	{ "again", "12", 2, 1, "2", true, true, 0, 0, 3, 0 },
	{ "partly there", "12", 2, 1, "233", true, true, 0, 2, 5, 0 },
	{ "conflict: the rest is cut", "1222", 2, 1, "3", true, true, 3, 1, 3, 0 },
	{ "shorter, no conflict: nothing is cut", "1222", 2, 1, "2", true, true, 0, 0, 3, 0 },
	{ "gap", "12", 7, 2, "3", false, true, 0, 0, 7, 3 },
	{ "another term before", "1222", 5, 3, "3", false, true, 0, 0, 5, 5 },
	{ "an earlier term before: skip ours", "1222", 5, 1, "3", false, true, 0, 0, 5, 2 },
	{ "terms go down", "12", 3, 2, "32", false, false, 0, 0, 0, 0 },
	{ "terms over the sender's", "12", 3, 2, "9", false, false, 0, 0, 0, 0 },
	{ "no entries", "12", 3, 2, "", false, false, 0, 0, 0, 0 },
	{ "index 0 with a term", "12", 0, 2, "2", false, false, 0, 0, 0, 0 },
	{ "index out of range", "12", UINT64_MAX - 1, 2, "33", false, false, 0, 0, 0, 0 },
};

START_TEST(entry)
{
	struct raft_entry e[8];
	const struct raft_msg *m;
	uint32_t n = 0;

	for (; entries[_i].entries[n] != '\0'; n++)
		e[n] = (struct raft_entry){ .type = RAFT_COMMAND,
			.term = (uint64_t)(entries[_i].entries[n] - '0') };
	start(3, entries[_i].log);
	got(2000, (struct raft_msg){ .kind = RAFT_ENTRIES, .from = 2, .term = 3,
	    .index = entries[_i].index, .log_term = entries[_i].log_term, .n = n,
	    .entries = e });
	m = sent_kind(RAFT_ENTRIES_REP);
	ck_assert_msg((m != NULL) == entries[_i].answer, "%s", entries[_i].what);
	if (m != NULL) {
		ck_assert_msg(m->ok == entries[_i].ok, "%s", entries[_i].what);
		ck_assert_uint_eq(m->index, entries[_i].rep);
		ck_assert_uint_eq(m->hint, entries[_i].hint);
	}
	if (entries[_i].appended != 0)
		ck_assert_uint_eq(appended, entries[_i].appended);
	ck_assert_uint_eq(raft_last(r), entries[_i].cut != 0 ? entries[_i].cut +
	    entries[_i].appended - 1 : strlen(entries[_i].log) + 1 +
	    entries[_i].appended);
	raft_close(r);
}
END_TEST

START_TEST(ack_waits_for_disk)
{
	struct raft_entry e = { .term = 3, .type = RAFT_COMMAND };
	struct raft_msg m = { .kind = RAFT_ENTRIES, .from = 2, .to = ME, .term = 3,
		.index = 3, .log_term = 2, .n = 1, .entries = &e };

	start(3, "12");
	raft_receive(r, 2000, &m);
	take(2000, false);
	raft_saved(r, 2001, &(struct raft_hard){ 3, 0 });
	take(2001, false);
	ck_assert(sent_kind(RAFT_ENTRIES_REP) == NULL);
	raft_persisted(r, 2002, 4, 2);	/* another entry with that index */
	take(2002, false);
	ck_assert(sent_kind(RAFT_ENTRIES_REP) == NULL);
	raft_persisted(r, 2003, 4, 3);
	take(2003, false);
	ck_assert_uint_eq(sent_kind(RAFT_ENTRIES_REP)->index, 4);
	raft_close(r);
}
END_TEST

/* Each box has a clock of its own: what one leader's said tells another one nothing, least of
 * all that it was heard then. */
START_TEST(ack_by_the_clock_of_its_leader)
{
	struct raft_entry e = { .term = 3, .type = RAFT_COMMAND };

	start(3, "12");
	got(2000, (struct raft_msg){ .kind = RAFT_ENTRIES, .from = 2, .term = 3,
	    .index = 3, .log_term = 2, .n = 1, .entries = &e, .sent_ns = 1000000 });
	ck_assert_uint_eq(sent_kind(RAFT_ENTRIES_REP)->sent_ns, 1000000);
	e.term = 4;
	got(2100, (struct raft_msg){ .kind = RAFT_ENTRIES, .from = 3, .term = 4,
	    .index = 4, .log_term = 3, .n = 1, .entries = &e, .sent_ns = 70 });
	ck_assert_uint_eq(sent_kind(RAFT_ENTRIES_REP)->to, 3);
	ck_assert_uint_eq(sent_kind(RAFT_ENTRIES_REP)->sent_ns, 70);
	raft_close(r);
}
END_TEST

/* What is committed is never cut, whatever comes. */
START_TEST(committed_stays)
{
	struct raft_entry e[2] = { { .term = 3, .type = RAFT_COMMAND },
		{ .term = 3, .type = RAFT_COMMAND } };

	start(3, "12");
	got(2000, (struct raft_msg){ .kind = RAFT_BEAT, .from = 2, .term = 3,
	    .index = 3, .log_term = 2, .commit = 3 });
	ck_assert_uint_eq(committed, 3);
	got(2001, (struct raft_msg){ .kind = RAFT_ENTRIES, .from = 2, .term = 3,
	    .index = 1, .log_term = 1, .n = 2, .entries = e });
	ck_assert_uint_eq(raft_last(r), 3);
	ck_assert_uint_eq(raft_term_at(r, 3), 2);
	raft_close(r);
}
END_TEST

/* Of two changes of the members the first is committed, whoever says otherwise. */
START_TEST(committed_members_stay)
{
	struct raft_members to[2] = { members("abcd"), members("abcD") };
	uint8_t bytes[2][RAFT_MEMBERS_BYTES];
	struct raft_entry e[2];

	for (unsigned i = 0; i < 2; i++)
		e[i] = (struct raft_entry){ .term = 3, .type = RAFT_MEMBERS,
			.payload = bytes[i],
			.len = (uint32_t)raft_members_encode(&to[i], bytes[i]) };
	start(3, "12");
	got(2000, (struct raft_msg){ .kind = RAFT_ENTRIES, .from = 2, .term = 3,
	    .index = 3, .log_term = 2, .n = 2, .entries = e });
	ck_assert_uint_eq(raft_last(r), 5);
	e[0] = (struct raft_entry){ .term = 4, .type = RAFT_COMMAND };
	got(2001, (struct raft_msg){ .kind = RAFT_ENTRIES, .from = 3, .term = 4,
	    .index = 3, .log_term = 2, .n = 1, .entries = e });
	ck_assert_uint_eq(raft_last(r), 5);
	got(2002, (struct raft_msg){ .kind = RAFT_ENTRIES, .from = 3, .term = 4,
	    .index = 4, .log_term = 3, .n = 1, .entries = e });
	ck_assert_uint_eq(raft_last(r), 5);
	ck_assert_uint_eq(raft_term_at(r, 5), 4);	/* the second was not */
	raft_close(r);
}
END_TEST

/* ---- leading ---- */

START_TEST(lease_and_reads)
{
	uint64_t t, index;

	lead();
	ck_assert(raft_lease(r, 3002 + T * 9 / 10 - 1));
	ck_assert(!raft_lease(r, 3002 + T * 9 / 10));
	raft_read(r, 3020, true, &t, &index);
	ck_assert_uint_eq(t, 0);
	ck_assert_uint_eq(index, 2);
	take(3020, true);
	raft_read(r, 3030, false, &t, &index);
	take(3030, true);
	ck_assert_uint_ne(t, 0);
	ck_assert_uint_eq(sent_kind(RAFT_BEAT)->seq, t);
	got(3031, (struct raft_msg){ .kind = RAFT_BEAT_REP, .ok = true, .from = 3,
	    .term = 2, .seq = t - 1, .sent_ns = 3030 });
	ck_assert_uint_ne(ticket, t);
	got(3032, (struct raft_msg){ .kind = RAFT_BEAT_REP, .ok = true, .from = 3,
	    .term = 2, .seq = t, .sent_ns = 3030 });
	ck_assert_uint_eq(ticket, t);
	ck_assert_uint_eq(read_index, 2);
	raft_close(r);
}
END_TEST

START_TEST(steps_down_without_majority)
{
	lead();
	for (uint64_t now = 3010; now <= 3010 + T + T / 5; now += T / 10) {
		raft_tick(r, now);
		take(now, true);
	}
	ck_assert_int_eq(raft_role(r), RAFT_FOLLOWER);
	raft_close(r);
}
END_TEST

START_TEST(transfer_gives_up_the_lease)
{
	lead();
	ck_assert_int_eq(raft_transfer(r, 3020, ME), -EINVAL);
	take(3020, true);
	ck_assert_int_eq(raft_transfer(r, 3020, 2), 0);
	ck_assert(!raft_lease(r, 3020));
	take(3020, true);
	ck_assert(sent_kind(RAFT_TIMEOUT_NOW) != NULL);
	/* It is not taken up: only another term brings the lease back. */
	for (uint64_t now = 3020; now <= 3020 + T + T / 5; now += T / 10) {
		got(now, (struct raft_msg){ .kind = RAFT_BEAT_REP, .ok = true, .from = 2,
		    .term = 2, .index = 2, .hint = 2, .sent_ns = now - 1 });
		ck_assert(!raft_lease(r, now));
		raft_tick(r, now);
		take(now, true);
	}
	ck_assert_int_eq(raft_role(r), RAFT_FOLLOWER);
	raft_close(r);
}
END_TEST

/* ---- configurations ---- */

static const struct {
	const char *what, *from, *to;	/* a: voter 1, A: learner 1 ... */
	bool	 step;
} changes[] = {
	{ "learner added", "ab", "abC", true },
	{ "voter added at once", "ab", "abc", false },
	{ "learner promoted", "abC", "abc", true },
	{ "voter demoted", "abc", "abC", true },
	{ "voter removed", "abc", "ab", true },
	{ "learner removed", "abC", "ab", true },
	{ "nothing but the order", "abc", "cab", true },
	{ "two promoted", "aBC", "abc", false },
	{ "one for another", "abc", "abD", false },
	{ "promoted and removed", "abC", "ac", false },
	{ "no voter left", "aB", "B", false },
	{ "nobody left", "a", "", false },
	{ "twice the same", "ab", "abb", false },
};

START_TEST(change)
{
	struct raft_members from = members(changes[_i].from), to = members(changes[_i].to);

	ck_assert_msg(raft_members_step(&from, &to) == changes[_i].step, "%s",
	    changes[_i].what);
}
END_TEST

START_TEST(members_bytes)
{
	struct raft_members m = members("abC"), back;
	uint8_t b[RAFT_MEMBERS_BYTES];
	size_t n;

	m.m[1].addr = (struct net_addr){ .kind = NET_ADDR_TCP4, .port = 7700,
		.ip = { 10, 1, 2, 3 } };
	n = raft_members_encode(&m, b);
	ck_assert_uint_eq(n, 4 + 3 * 40);
	ck_assert_int_eq(raft_members_decode(&back, b, n), 0);
	ck_assert_uint_eq(back.n, 3);
	ck_assert(net_addr_eq(&back.m[1].addr, &m.m[1].addr));
	ck_assert(!back.m[2].voter);
	for (size_t i = 0; i < n; i++)
		ck_assert_int_eq(raft_members_decode(&back, b, i), ERR_BAD_MESSAGE);
	for (size_t i = 0; i < n; i++)		/* any byte: refused, or valid */
		for (unsigned v = 0; v < 256; v++) {
			uint8_t was = b[i];

			b[i] = (uint8_t)v;
			if (raft_members_decode(&back, b, n) == 0)
				ck_assert(raft_members_valid(&back));
			b[i] = was;
		}
}
END_TEST

START_TEST(one_change_at_a_time)
{
	struct raft_members to = members("abcD"), next = members("abcDE");
	uint64_t index;

	lead();
	ck_assert_int_eq(raft_change(r, 3020, &to, &index), 0);
	take(3020, true);
	ck_assert_uint_eq(index, 3);
	ck_assert_int_eq(raft_change(r, 3021, &next, &index), ERR_BUSY);
	take(3021, true);
	got(3022, (struct raft_msg){ .kind = RAFT_ENTRIES_REP, .ok = true, .from = 2,
	    .term = 2, .index = 3 });
	ck_assert(raft_members_settled(r));
	/* Nothing has reached the learner: it cannot be a voter yet. */
	to = members("abcd");
	ck_assert_int_eq(raft_change(r, 3023, &to, &index), ERR_BUSY);
	take(3023, true);
	raft_close(r);
}
END_TEST

/* One voter goes only when the others are known to have all it takes to elect: the one that
 * is left beside us has not answered, or needs a snapshot. */
START_TEST(removal_leaves_enough)
{
	struct raft_members to = members("ac");
	uint64_t index;

	lead();
	got(3020, (struct raft_msg){ .kind = RAFT_ENTRIES_REP, .ok = true, .from = 2,
	    .term = 2, .index = 2, .sent_ns = 3000 });
	ck_assert_int_eq(raft_change(r, 3021, &to, &index), ERR_BUSY);
	take(3021, true);
	got(3022, (struct raft_msg){ .kind = RAFT_ENTRIES_REP, .ok = true, .from = 3,
	    .term = 2, .index = 2, .sent_ns = 3000 });
	ck_assert_int_eq(raft_change(r, 3023, &to, &index), 0);
	take(3023, true);
	ck_assert_uint_eq(index, 3);
	raft_close(r);
}
END_TEST

/* ---- snapshots ---- */

START_TEST(restore)
{
	struct raft_point p = { .index = 50, .term = 2, .members = members("abc") };

	p.members.index = 40;
	start(3, "1");
	ck_assert(raft_snapshot_piece(r, 2000, 2, 2, 50));
	take(2000, true);
	ck_assert_int_eq(raft_restore(r, 2001, 2, 2, &p), 0);
	take(2001, true);
	ck_assert(restores);
	ck_assert(sent_kind(RAFT_ENTRIES_REP) == NULL);
	ck_assert_uint_eq(raft_commit(r), 0);
	raft_restored(r, 2002, 50);
	take(2002, true);
	ck_assert_uint_eq(sent_kind(RAFT_ENTRIES_REP)->index, 50);
	ck_assert_uint_eq(raft_commit(r), 50);
	ck_assert_uint_eq(raft_members(r)->index, 40);
	ck_assert_int_eq(raft_restore(r, 2003, 2, 2, &p), ERR_BUSY);
	take(2003, true);
	p.index = 45;			/* an older one, late */
	ck_assert_int_eq(raft_restore(r, 2003, 2, 2, &p), ERR_BUSY);
	take(2003, true);
	ck_assert(!restores);
	ck_assert_uint_eq(raft_last(r), 50);
	p.index = 50;
	ck_assert_int_eq(raft_restore(r, 2004, 3, 2, &p), ERR_NOT_LEADER);
	take(2004, true);
	p.members.n = 0;
	ck_assert_int_eq(raft_restore(r, 2005, 2, 2, &p), ERR_BAD_MESSAGE);
	take(2005, true);
	raft_close(r);
}
END_TEST

/* Whatever comes, nothing breaks. */
START_TEST(any_message)
{
	struct rand x;
	uint64_t now = 4000;

	rand_seed(&x, 77 + (uint64_t)_i);
	if (_i % 2 == 0)
		lead();
	else
		start(3, "12");
	for (unsigned i = 0; i < 3000; i++) {
		static const uint64_t odd[] = { 0, 1, 2, 3, 4, 5, 6, 7, 9,
			1ull << 61, 1ull << 63, UINT64_MAX };
		struct raft_entry e[3];
		struct raft_msg m;
#define ODD	odd[rand_below(&x, rand_chance(&x, 1, 20) ? 12 : 9)]

		m = (struct raft_msg){ .kind = (uint8_t)rand_below(&x, 14),
			.ok = rand_chance(&x, 1, 2), .force = rand_chance(&x, 1, 2),
			.from = ODD, .term = raft_term(r) + rand_below(&x, 3) - 1,
			.index = ODD, .log_term = ODD, .hint = ODD, .commit = ODD,
			.seq = ODD, .sent_ns = ODD, .n = (uint32_t)rand_below(&x, 4),
			.entries = e };
		for (unsigned j = 0; j < 3; j++)
			e[j] = (struct raft_entry){ .term = rand_chance(&x, 1, 3) ? ODD :
			    raft_term(r), .type = (uint16_t)rand_below(&x, 5) };
		now += rand_below(&x, T / 4);
		if (rand_chance(&x, 1, 4)) {
			raft_tick(r, now);
			take(now, true);
		}
		got(now, m);
		if (raft_term(r) > 1ull << 50)
			break;
	}
	raft_close(r);
}
END_TEST

#define N(a)	(int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	Suite *suite = suite_create("raft");
	TCase *tc = tcase_create("core");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(tc, vote, 0, N(votes));
	tcase_add_test(tc, prevote_near_a_leader);
	tcase_add_loop_test(tc, two_ask_at_once, 0, N(at_once));
	tcase_add_test(tc, vote_waits_for_disk);
	tcase_add_test(tc, blank_never_votes);
	tcase_add_test(tc, alone_leads_at_once);
	tcase_add_loop_test(tc, entry, 0, N(entries));
	tcase_add_test(tc, ack_waits_for_disk);
	tcase_add_test(tc, ack_by_the_clock_of_its_leader);
	tcase_add_test(tc, committed_stays);
	tcase_add_test(tc, committed_members_stay);
	tcase_add_test(tc, lease_and_reads);
	tcase_add_test(tc, steps_down_without_majority);
	tcase_add_test(tc, transfer_gives_up_the_lease);
	tcase_add_loop_test(tc, change, 0, N(changes));
	tcase_add_test(tc, members_bytes);
	tcase_add_test(tc, one_change_at_a_time);
	tcase_add_test(tc, removal_leaves_enough);
	tcase_add_test(tc, restore);
	tcase_add_loop_test(tc, any_message, 0, 20);
	suite_add_tcase(suite, tc);
	sr = srunner_create(suite);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
