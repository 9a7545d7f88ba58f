/* SPDX-License-Identifier: MIT */
/* test_call_revoke.c - memory that is wanted back from a peer before it has answered: at a
 * deadline, or because nobody wants the answer any more.  The connection stays, and nothing
 * of what was lent is touched afterwards. */

/* What is on its way when memory is wanted back: a guest that emulates its processor must
 * have moved it in a fraction of the time that a peer is given. */
#define SOME	(BIG / 8)
#define PART	(BIG / 128)
#include "tests/call_rig.h"

static struct net_req *kept;
static unsigned kept_n;

static void
keep(struct net_req *req)
{
	kept = req;
	kept_n++;
}

static void
late_reply(struct net_req *req)
{
	struct msg_fetch_rep rep = { .len = BIG };
	struct net_piece p = { shelf, BIG, 0 };

	net_reply(req, 0, &rep, &p, 1, was_sent, NULL);
}

static void
pulled_late(struct net_req *req, int rc)
{
	pull_rc = rc;
	pulled++;
	net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

static uint64_t
connects(void)
{
	return net_hub_stats(rig.chub)->connects;
}

/* A connection that breaks is heard of at the other end in its own time. */
static void
check_all_answered(void)
{
	for (unsigned i = 0; i < 500 && net_server_inflight(rig.server) > 0; i++)
		rig_pass(&rig, 20);
	ck_assert_uint_eq(net_server_inflight(rig.server), 0);
}

/* End @a before its time, or see its deadline pass. */
static void
end_early(struct ask *a, bool abandon)
{
	unsigned before = done;

	if (!abandon || !net_call_abandon(&a->call)) {
		rig_until(&rig, &done, before + 1);
		ck_assert_int_eq(a->rc, abandon ? -ECANCELED : -ETIMEDOUT);
	}
	ck_assert(!net_call_active(&a->call));
}

/* ---- a server that has not answered ---- */

static const struct unanswered {
	const char *what;
	bool send, room, abandon, pull;	/* pull: afterwards */
} unanswered[] = {
	{ "room, deadline", false, true, false, false },
	{ "room, abandoned", false, true, true, false },
	{ "payload, deadline", true, false, false, false },
	{ "payload, abandoned", true, false, true, false },
	{ "both, deadline", true, true, false, false },
	{ "payload, deadline, pulled afterwards", true, false, false, true },
	{ "both, abandoned, pulled afterwards", true, true, true, true },
};

/* False: @ms was so short that the server never heard of it. */
static bool
one_unanswered(int kind, const struct unanswered *u, unsigned ms)
{
	struct ask a = { .rc = 0 };
	struct iovec from = { src, BIG }, room = { dst, BIG }, to = { shelf, BIG };
	uint64_t made;

	open_served(kind);
	on_fetch = keep;
	kept_n = 0;
	check_alive();
	made = connects();
	ck_assert_int_eq(start_fetch(&a, &from, u->send, &room, u->room,
	    u->abandon ? 9000 : ms), 0);
	if (u->abandon)
		rig_until(&rig, &kept_n, 1);
	end_early(&a, u->abandon);
	memset(dst, 0x5a, BIG);
	memset(src, 0x5a, BIG);
	rig_pass(&rig, 20);
	if (kept_n == 0) {
		on_fetch = net_req_drop;	/* should it still come */
		fill(src, BIG, 3);
		close_rig();
		return false;
	}
	memset(shelf, 1, BIG);
	if (u->pull) {
		net_pull_start(kept, &to, 1, pulled_late);
		rig_until(&rig, &pulled, 1);
		/* A stream, or a copy, may have been whole already. */
		ck_assert(pull_rc == -ECONNRESET || !rig_one_sided(kind));
	} else if (u->room) {
		late_reply(kept);
		rig_until(&rig, &sent_n, 1);
	} else {
		net_reply(kept, 0, NULL, NULL, 0, NULL, NULL);
	}
	check_alive();
	rig_pass(&rig, 5);
	ck_assert_msg(untouched(dst, BIG), "%s: %s", rig_names[kind], u->what);
	check_all_answered();
	if (rig_one_sided(kind) || !u->send)
		ck_assert_msg(connects() == made, "%s: %s: the connection broke\n%s",
		    rig_names[kind], u->what, rig.logged);
	fill(src, BIG, 3);
	close_rig();
	return true;
}

START_TEST(no_answer_yet)
{
	for (unsigned i = 0; i < sizeof(unanswered) / sizeof(unanswered[0]); i++) {
		unsigned ms = 30;

		while (!one_unanswered(_i, &unanswered[i], ms))
			ck_assert_uint_lt(ms *= 2, 8000);
	}
}
END_TEST

/* ---- at any moment of what is going on ---- */

START_TEST(abandon_anywhere)
{
	int (*const what[])(struct ask *) = { small_echo, some_read, some_write };

	for (unsigned w = 0; w < 3; w++)
		for (unsigned steps = 0; steps < 24; steps++) {
			struct ask a = { .rc = 0 };
			uint64_t made;

			open_served(_i);
			fill(shelf, BIG, 8);
			check_alive();
			made = connects();
			ck_assert_int_eq(what[w](&a), 0);
			for (unsigned i = 0; i < steps &&
			    net_call_active(&a.call); i++)
				rig_step(&rig, false);
			if (net_call_active(&a.call)) {
				end_early(&a, true);
				memset(dst, 0x5a, BIG);
				memset(src, 0x5a, BIG);
				check_alive();
				rig_pass(&rig, 5);
				ck_assert_msg(untouched(dst, BIG), "%s, %u steps",
				    rig_names[rig.kind], steps);
				check_all_answered();
				fill(src, BIG, 3);
			}
			if (rig_one_sided(_i))
				ck_assert_msg(connects() == made, "%u: %u steps\n%s",
				    w, steps, rig.logged);
			close_rig();
		}
}
END_TEST

/* A payload that is wanted back while the server takes it: that one gets all of it, or hears that
 * it did not; never what the memory is used for afterwards. */
static void
pull_at_once(struct net_req *req)
{
	struct iovec to = { shelf, BIG };

	kept_n++;
	net_pull_start(req, &to, 1, pulled_late);
}

START_TEST(whole_or_lost)
{
	static uint8_t was[BIG];
	unsigned lost = 0;

	fill(was, BIG, 3);
	for (unsigned steps = 0; steps < 60; steps++) {
		struct ask a = { .rc = 0 };
		struct iovec from = { src, BIG };

		open_served(_i);
		on_fetch = pull_at_once;
		kept_n = 0;
		check_alive();
		ck_assert_int_eq(start_fetch(&a, &from, 1, NULL, 0, 9000), 0);
		rig_until(&rig, &kept_n, 1);
		for (unsigned i = 0; i < steps && net_call_active(&a.call); i++)
			rig_step(&rig, false);
		if (net_call_active(&a.call))
			end_early(&a, true);
		memset(src, 0x5a, BIG);
		rig_until(&rig, &pulled, 1);
		if (pull_rc == 0)
			ck_assert_int_eq(memcmp(shelf, was, BIG), 0);
		lost += pull_rc != 0;
		check_alive();
		fill(src, BIG, 3);
		close_rig();
	}
	if (_i == RIG_SIM_ONE_SIDED)
		ck_assert_uint_gt(lost, 0);
}
END_TEST

/* ---- many at once ---- */

#define SLOTS	12u

static struct slot_of_one {
	struct ask ask;
	struct iovec room;
	unsigned was_done;
	bool	 used;
} slots[SLOTS];

static void
check_slot(struct slot_of_one *s)
{
	if (!s->used || net_call_active(&s->ask.call))
		return;
	/* It ended one way or the other; from then on the memory is ours. */
	if (s->ask.rc == 0)
		ck_assert_int_eq(memcmp(s->room.iov_base, shelf, PART), 0);
	memset(s->room.iov_base, 0x5a, PART);
	s->used = false;
}

static void
push_part(struct net_req *req)
{
	struct msg_fetch_rep rep = { .len = PART };
	struct net_piece p = { shelf, PART, 0 };

	net_reply(req, 0, &rep, &p, 1, was_sent, NULL);
}

/* Reads side by side, of which most are given up at some moment: what came for one that has
 * ended is never found in its memory later. */
START_TEST(abandon_many)
{
	unsigned rounds = _i >= RIG_RDMA ? 400 : 2000, given_up = 0;
	uint64_t made;

	open_served(_i);
	on_fetch = push_part;
	fill(shelf, BIG, 8);
	check_alive();
	made = connects();
	memset(slots, 0, sizeof(slots));
	memset(dst, 0x5a, BIG);
	for (unsigned round = 0; round < rounds; round++) {
		struct slot_of_one *s = &slots[rand_below(&rig.rand, SLOTS)];

		for (unsigned i = 0; i < SLOTS; i++)
			check_slot(&slots[i]);
		if (!s->used) {
			s->room = (struct iovec){
			    dst + (size_t)(s - slots) * PART, PART };
			ck_assert_msg(untouched(s->room.iov_base, PART),
			    "%s, round %u", rig_names[_i], round);
			ck_assert_int_eq(start_fetch(&s->ask, NULL, 0, &s->room, 1,
			    9000), 0);
			s->used = true;
		} else if (net_call_abandon(&s->ask.call)) {
			s->ask.rc = -ECANCELED;
			given_up++;
		}
		for (uint64_t k = rand_below(&rig.rand, 4); k > 0; k--)
			rig_step(&rig, false);
	}
	for (unsigned i = 0; i < SLOTS; i++)
		if (slots[i].used)
			net_call_cancel(&slots[i].ask.call);
	ck_assert_uint_gt(given_up, 0);
	if (rig_one_sided(_i))
		ck_assert_uint_eq(connects(), made);
	check_alive();
	rig_pass(&rig, 5);
	check_all_answered();
	close_rig();
}
END_TEST

/* ---- a request that the server has not come to ---- */

/* Its record waits behind a payload that is not pulled yet: the server lets go of what it
 * has not looked at. */
static bool
held_behind(int kind, unsigned ms)
{
	static uint8_t unknown[20000];	/* not more than credits */
	struct iovec from = { unknown, sizeof(unknown) }, room = { dst, PART };
	struct iovec to = { shelf, sizeof(unknown) };
	struct ask first = { .rc = 0 }, second = { .rc = 0 };
	uint64_t made;
	bool heard;

	open_served(kind);
	on_fetch = keep;
	kept_n = 0;
	memset(unknown, 7, sizeof(unknown));
	check_alive();
	made = connects();
	ck_assert_int_eq(start_fetch(&first, &from, 1, NULL, 0, 9000), 0);
	ck_assert_int_eq(start_fetch(&second, NULL, 0, &room, 1, ms), 0);
	rig_until(&rig, &done, 2);
	ck_assert_int_eq(second.rc, -ETIMEDOUT);
	memset(dst, 0x5a, BIG);
	ck_assert_uint_eq(kept_n, 1);	/* and not the other one */
	on_fetch = push_part;
	net_pull_start(kept, &to, 1, pulled_late);
	rig_until(&rig, &done, 3);
	ck_assert_int_eq(first.rc, 0);
	ck_assert_int_eq(memcmp(shelf, unknown, sizeof(unknown)), 0);
	check_alive();
	rig_pass(&rig, 5);
	ck_assert(untouched(dst, BIG));
	ck_assert_msg(connects() == made, "%s", rig.logged);
	heard = served == 4;
	ck_assert_uint_eq(sent_n, heard);
	close_rig();
	return heard;
}

START_TEST(held_behind_a_payload)
{
	unsigned ms = 50;

	if (_i == RIG_LOCAL)		/* there nothing stands behind a payload */
		return;
	while (!held_behind(_i, ms))
		ck_assert_uint_lt(ms *= 2, 8000);
}
END_TEST

/* ---- a peer that does not let go ---- */

static struct net_transport *under;
static struct net_chan_ops stubborn_ops;
static unsigned revoked;

static bool
stubborn_serves(const struct net_transport *t, uint8_t kind)
{
	(void)t;
	return under->ops->serves(under, kind);
}

static int
refuse_unsend(struct net_chan *chan, struct net_tx *tx)
{
	(void)chan, (void)tx;
	return -EBUSY;
}

static void
count_revoke(struct net_chan *chan, struct net_tx *tx)
{
	(void)chan, (void)tx;
	revoked++;
}

static int
stubborn_connect(struct net_transport *t, const struct net_addr *to,
    struct net_chan **out)
{
	int rc = under->ops->connect(under, to, out);

	(void)t;
	if (rc != 0)
		return rc;
	stubborn_ops = *(*out)->ops;
	stubborn_ops.unsend = refuse_unsend;
	stubborn_ops.revoke = count_revoke;
	(*out)->ops = &stubborn_ops;
	return 0;
}

static int
stubborn_mem_add(struct net_transport *t, void *p, size_t n, struct net_mem **out)
{
	(void)t;
	return under->ops->mem_add(under, p, n, out);
}

static void
stubborn_mem_del(struct net_transport *t, struct net_mem *m)
{
	(void)t;
	under->ops->mem_del(under, m);
}

static void
stubborn_close(struct net_transport *t)
{
	(void)t;
	under->ops->close(under);
}

/* The client's transport, whose channels have memory in use until the payload is pulled. */
static void
open_stubborn(int kind, struct net_transport *t)
{
	static const struct net_transport_ops ops = { .serves = stubborn_serves,
		.connect = stubborn_connect, .close = stubborn_close },
	    one_sided = { .serves = stubborn_serves, .connect = stubborn_connect,
		.mem_add = stubborn_mem_add, .mem_del = stubborn_mem_del,
		.close = stubborn_close };
	struct net_hub_conf conf;

	open_served(kind);
	close_client();
	conf = rig.hub_conf;
	conf.clock = rig.cclock;
	ck_assert_int_eq(net_hub_open(&rig.chub, &conf), 0);
	if (kind == RIG_LOCAL)
		ck_assert_int_eq(net_local_open(&under, rig.cclock), 0);
	else
		under = sim_net_transport(rig.net, 1, 1, rig.cclock);
	t->ops = rig_one_sided(kind) ? &one_sided : &ops;
	net_hub_add(rig.chub, t);
	if (rig_one_sided(kind)) {
		know(rig.chub, src, &known[0]);
		know(rig.chub, dst, &known[1]);
	}
	on_fetch = keep;
	kept_n = revoked = 0;
	check_alive();
}

START_TEST(peer_does_not_let_go)
{
	struct net_transport t;
	struct ask a = { .rc = 0 }, b = { .rc = 0 };
	struct iovec from = { src, BIG };
	uint64_t began;

	open_stubborn(RIG_LOCAL, &t);
	ck_assert_int_eq(start_fetch(&a, &from, 1, NULL, 0, _i == 0 ? 30 : 9000), 0);
	ck_assert_int_eq(start_hold(&b, 9000), 0);
	rig_until(&rig, &held_n, 1);
	if (_i == 1)
		ck_assert(!net_call_abandon(&a.call));
	began = clock_now(rig.cclock);
	rig_until(&rig, &done, 3);
	ck_assert_uint_ge(clock_now(rig.cclock), began + 190 * NS_PER_MS);
	ck_assert_uint_eq(revoked, 1);
	ck_assert_int_eq(a.rc, _i == 0 ? -ETIMEDOUT : -ECANCELED);
	ck_assert_int_eq(b.rc, -ECONNRESET);
	net_req_drop(kept);
	net_req_drop(held[0]);
	check_alive();
	ck_assert_uint_eq(connects(), 2);
	close_rig();
}
END_TEST

/* An answer that comes meanwhile is no answer any more; cancelling does not wait. */
START_TEST(while_it_is_revoked)
{
	static const int late[] = { -ETIMEDOUT, -ECANCELED, 12345, 12345 };
	struct net_transport t;
	struct ask a = { .rc = 0 };
	struct iovec from = { src, BIG };

	open_stubborn(RIG_LOCAL, &t);
	ck_assert_int_eq(start_fetch(&a, &from, 1, NULL, 0, _i == 0 ? 30 : 9000), 0);
	rig_until(&rig, &kept_n, 1);
	if (_i == 0)
		for (unsigned i = 0; i < 400 && revoked == 0; i++)
			rig_pass(&rig, 5);
	else
		ck_assert(!net_call_abandon(&a.call));
	ck_assert_uint_eq(revoked, 1);
	ck_assert(!net_call_abandon(&a.call));
	ck_assert_uint_eq(revoked, 1);
	ck_assert_uint_eq(net_hub_calls(rig.chub), 1);
	ck_assert_uint_gt(net_call_heard(&a.call), 0);	/* the peer is there all the same */
	if (_i < 2) {
		net_reply(kept, 0, NULL, NULL, 0, NULL, NULL);
		rig_until(&rig, &done, 2);
		ck_assert_uint_eq(connects(), 1);
	} else if (_i == 2) {
		net_call_cancel(&a.call);
		net_req_drop(kept);
		rig_pass(&rig, 300);
		ck_assert_uint_eq(done, 1);
	} else {
		net_hub_close(rig.chub);
		net_req_drop(kept);
		rig_pass(&rig, 300);
		rig.chub = rig_hub(&rig, rig.cclock, 1);
	}
	ck_assert_int_eq(a.rc, late[_i]);
	check_alive();
	close_rig();
}
END_TEST

/* ---- memory that nobody needs ---- */

static uint64_t
ms_now(void)
{
	return clock_now(rig.cclock) / NS_PER_MS;
}

/* @a's memory is lent, @b is under way beside it; then @a is left. */
static uint64_t
leave_one(struct net_transport *t, struct ask *a, struct ask *b)
{
	static struct iovec from;

	from = (struct iovec){ src, BIG };
	open_stubborn(RIG_SIM_ONE_SIDED, t);
	ck_assert_int_eq(start_fetch(a, &from, 1, NULL, 0, 9000), 0);
	ck_assert_int_eq(start_hold(b, 90000), 0);
	rig_until(&rig, &held_n, 1);
	rig_until(&rig, &kept_n, 1);
	ck_assert(!net_call_leave(&a->call));
	ck_assert(!net_call_leave(&a->call));
	ck_assert_uint_eq(revoked, 1);
	return ms_now();
}

/* The peer stands still, and so does nothing with it for long. */
START_TEST(left_for_long)
{
	struct net_transport t;
	struct ask a = { .rc = 12345 }, b = { .rc = 12345 };

	leave_one(&t, &a, &b);
	rig_pass(&rig, 2000);
	ck_assert_uint_eq(done, 1);
	net_reply(kept, 0, NULL, NULL, 0, NULL, NULL);
	net_reply(held[0], 0, NULL, NULL, 0, NULL, NULL);
	rig_until(&rig, &done, 3);
	ck_assert_int_eq(a.rc, -ECANCELED);
	ck_assert_int_eq(b.rc, 0);
	ck_assert_uint_eq(connects(), 1);
	close_rig();
}
END_TEST

/* It ends all the same: what is wanted after all soon, what a peer that is there keeps after
 * ten seconds, what a silent one has when that is known. */
START_TEST(left_and_kept)
{
	static const struct {
		const char *what;
		bool	    wanted, cut;
		unsigned    min_ms, max_ms;
	} ends[] = {
		{ "wanted after all", true, false, 199, 201 },
		{ "a peer that is there", false, false, 9999, 10001 },
		{ "a silent peer", false, true, 1400, 2600 },
	};
	struct net_transport t;
	struct ask a = { .rc = 12345 }, b = { .rc = 12345 };
	uint64_t began = leave_one(&t, &a, &b);

	if (ends[_i].wanted)
		ck_assert(!net_call_abandon(&a.call));
	if (ends[_i].cut) {		/* and nobody else waits for it */
		net_reply(held[0], 0, NULL, NULL, 0, NULL, NULL);
		rig_until(&rig, &done, 2);
		sim_net_cut(rig.net, 1, 2, SIM_NET_SILENT);
	}
	rig_until(&rig, &done, 3);
	ck_assert_msg(ms_now() - began >= ends[_i].min_ms &&
	    ms_now() - began <= ends[_i].max_ms, "%s: %llu ms", ends[_i].what,
	    (unsigned long long)(ms_now() - began));
	ck_assert_int_eq(a.rc, -ECANCELED);
	ck_assert_int_eq(b.rc, ends[_i].cut ? 0 : -ECONNRESET);
	net_req_drop(kept);
	if (!ends[_i].cut)
		net_req_drop(held[0]);
	sim_net_heal(rig.net);
	check_alive();
	close_rig();
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("every transport"), *one = tcase_create("one");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, no_answer_yet, rig_first(), rig_kinds());
	tcase_add_loop_test(t, abandon_anywhere, rig_first(), rig_kinds());
	tcase_add_loop_test(t, whole_or_lost, rig_first(), rig_kinds());
	tcase_add_loop_test(t, abandon_many, rig_first(), rig_kinds());
	tcase_add_loop_test(t, held_behind_a_payload, rig_first(), rig_kinds());
	tcase_add_checked_fixture(one, setup, teardown);
	tcase_add_loop_test(one, peer_does_not_let_go, 0, 2);
	tcase_add_loop_test(one, while_it_is_revoked, 0, 4);
	tcase_add_test(one, left_for_long);
	tcase_add_loop_test(one, left_and_kept, 0, 3);
	return suite_run_all("call_revoke", t, one, NULL);
}
