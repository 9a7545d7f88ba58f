/* SPDX-License-Identifier: MIT */
/* test_rdma_qp.c - queue pairs: they break, close, tell of completions, and hear nonsense. */
#include "tests/rdma_rig.h"

/* ---- queue pairs that break ---- */

static const enum ibv_wc_status ends[] = { IBV_WC_REM_ACCESS_ERR, IBV_WC_RETRY_EXC_ERR,
	IBV_WC_LOC_PROT_ERR, IBV_WC_SUCCESS };

START_TEST(breaks_anywhere)
{
	int (*const what[])(struct ask *) = { small_echo, some_read, some_write };

	for (unsigned k = 0; k < 6; k++)
		for (unsigned steps = 0; steps < 12; steps++) {
			struct ask a = { .rc = 0 };
			struct rdma_chan *c;

			begin(RIG_ONE_SIDED);
			check_alive();
			c = chan_of(k / 3);
			ck_assert_int_eq(what[k % 3](&a), 0);
			turns(steps);
			verbs_break_qp(c->qp->qp_num, ends[_i]);
			rig_until(&rig, &done, 2);
			ck_assert(a.rc == 0 || a.rc == -ECONNRESET);
			memset(dst, 0x5a, SOME);
			rig_pass(&rig, 2);
			ck_assert(untouched(dst, SOME));
			/* It may have broken at the answer, or breaks at the next one. */
			(void)one(small_echo);
			(void)one(small_echo);
			check_all_goes();
			end();
		}
}
END_TEST

/* As if it was time. */
static void
look_now(struct rdma_dev *d)
{
	clock_timer_stop(rig.sclock, &d->look);
	d->look_nth = d->nth;
	d->doubt_new = 0;
	d->look.fn(&d->look);
}

/* Queue pairs that break within a message take receives along.  Those are missed after a while,
 * and others are there for the peers that were promised them. */
START_TEST(breaks_within_messages)
{
	enum { N = 400 };		/* more than are spare, and than are doubted at once */
	static uint64_t torn[N];
	struct rdma_dev *d;

	begin(RIG_ONE_SIDED);
	check_alive();
	d = rdma_of(1)->devs[0];
	for (unsigned i = 0; i < N; i++) {
		torn[i] = verbs_tear_qp(chan_of(1)->qp->qp_num);
		rig_pass(&rig, 1);
		(void)one(small_echo);
		check_alive();
		ck_assert_uint_ne(d->look.pos, 0);
		ck_assert_uint_ge(verbs_srq_n(d->srq), d->promised);
		if (i % 200 == 199)
			look_now(d);
	}
	look_now(d);
	ck_assert_uint_eq(d->chans.n, 1);
	ck_assert_uint_eq(d->missed_n, N);
	ck_assert_uint_eq(d->doubt, 0);
	ck_assert_uint_eq(d->look.pos, 0);
	check_all_goes();
	for (unsigned i = 0; i < 400; i++)	/* those that are too many are used up */
		ck_assert_int_eq(one(small_echo), 0);
	ck_assert_uint_eq(verbs_srq_n(d->srq), d->promised);
	/* Some come back all the same, and are no more than before when others were used. */
	for (unsigned i = 0; i < N; i += 2)
		verbs_tell(d->cqs[0].cq, torn[i]);
	for (unsigned i = 0; i < 400; i++)
		ck_assert_int_eq(one(small_echo), 0);
	ck_assert_uint_eq(d->missed_n, N / 2);
	ck_assert_uint_eq(d->posted, d->promised);
	ck_assert_uint_eq(verbs_srq_n(d->srq), d->promised);
	/* Nobody else is missed. */
	look_now(d);
	ck_assert_uint_eq(d->missed_n, N / 2);
	end();
}
END_TEST

/* They take no slots from what is sent: while there is no memory for others nothing is missed. */
START_TEST(no_slots_to_miss)
{
	struct rdma_dev *d;

	begin(RIG_ONE_SIDED);
	check_alive();
	d = rdma_of(1)->devs[0];
	verbs.mrs_max = verbs.mrs;
	for (unsigned i = 0; i < 150; i++) {
		verbs_tear_qp(chan_of(1)->qp->qp_num);
		rig_pass(&rig, 1);
		(void)one(small_echo);
		check_alive();
		look_now(d);
		ck_assert_uint_le(d->posted + d->missed_n + d->chans.n * SIGNAL_SLOTS,
		    d->slots_n);
		if (i == 59)
			verbs.mrs_max = UINT32_MAX;
	}
	ck_assert_uint_eq(d->missed_n, 150);
	check_all_goes();
	end();
}
END_TEST

/* ---- last words ---- */

/* Who answers and closes at once has said so. */
START_TEST(last_words_arrive)
{
	struct msg_last_rep rep = { .len = 1 };
	struct ask a = { .rc = 0 };

	for (unsigned i = 0; i < 20; i++) {
		begin(RIG_ONE_SIDED);
		check_alive();
		ck_assert_int_eq(start_hold(&a, 9000), 0);
		rig_until(&rig, &held_n, 1);
		net_reply(held[0], 0, &rep, NULL, 0, NULL, NULL);
		turns(i % 3);
		net_server_close(rig.server);
		rig.server = NULL;
		rig_until(&rig, &done, 2);
		ck_assert_int_eq(a.rc, 0);
		end();
	}
}
END_TEST

/* ---- what is told ---- */

/* Of small messages nearly none is told of, and none has a slot; of a payload only the last. */
START_TEST(few_completions)
{
	uint64_t told, moved;

	begin(RIG_ONE_SIDED);
	check_alive();
	told = verbs.told;
	moved = verbs.sends;
	verbs.inlined = 0;
	for (unsigned i = 0; i < 200; i++)
		ck_assert_int_eq(one(small_echo), 0);
	moved = verbs.sends - moved;
	ck_assert_uint_ge(moved, 400);
	ck_assert_uint_eq(verbs.inlined, moved);
	ck_assert_uint_le(verbs.told - told, moved / SIGNAL_EACH + 1);
	told = verbs.told;
	ck_assert_int_eq(one(some_write), 0);
	ck_assert_int_eq(one(some_read), 0);
	ck_assert_uint_le(verbs.told - told, 6);
	end();
}
END_TEST

static void
echoes(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(one(small_echo), 0);
}

static bool
looks(unsigned i)
{
	const struct loop_spin *s = &rdma_of(i)->devs[0]->spin;

	return s->node.next != NULL && !list_empty(&s->node);
}

/* Under load completions wake nobody, as somebody looks for them; who finds nothing for as long as
 * he may sleeps, and is woken. */
START_TEST(looks_or_sleeps)
{
	uint64_t woken;

	begin(RIG_ONE_SIDED);
	echoes(1);
	woken = verbs.woken;
	echoes(50);
	ck_assert(!looks(0) && !looks(1));	/* as no time is given for it */
	ck_assert_uint_ge(verbs.woken - woken, 2 * 50);
	for (unsigned i = 0; i < 2; i++)
		rdma_of(i)->devs[0]->spin_for = (struct net_spin){ .max_ns = 600 * NS_PER_S,
		    .spare_ns = 600 * NS_PER_S };
	echoes(1);
	ck_assert(looks(0) && looks(1));
	woken = verbs.woken;
	echoes(50);
	ck_assert(looks(0) && looks(1));
	ck_assert_uint_le(verbs.woken - woken, 2);	/* each was armed once more */
	for (unsigned i = 0; i < 2; i++)
		rdma_of(i)->devs[0]->spin_for.max_ns = 1;
	rig_pass(&rig, 5);
	ck_assert(!looks(0) && !looks(1));
	woken = verbs.woken;
	echoes(1);
	ck_assert_uint_ge(verbs.woken - woken, 2);
	end();
}
END_TEST

/* ---- what a peer must not say ---- */

static uint8_t word[SLOT];

/* A message with @n bytes of @kind. */
static uint32_t
make_word(enum word_kind kind, uint32_t record, const void *p, uint32_t n)
{
	struct word_head h = { .kind = (uint8_t)kind, .record_len = record };

	net_rdma_word_put(word, &h);
	if (n > 0)
		memcpy(word + PREFIX, p, n);
	return PREFIX + n;
}

/* A request with a payload of @bulk bytes behind it. */
static uint32_t
stream_word(uint32_t bulk)
{
	struct net_frame f = { .kind = NET_FRAME_REQUEST, .method = MSG_fetch, .id = 77,
	    .bulk_len = bulk, .arg = 9000 };
	struct msg_fetch m = { .chain = 1 };
	struct record r = { .kind = RECORD_FRAME, .flags = RECORD_STREAM, .bulk_len = bulk };
	uint8_t bytes[RECORD + 600];
	struct bytes_writer w;
	int n = msg_encode(msg_method(MSG_fetch)->request, &m, bytes + RECORD + NET_HEAD,
	    sizeof(bytes) - RECORD - NET_HEAD);

	ck_assert_int_ge(n, 0);
	f.msg_len = (uint32_t)n;
	net_frame_encode(&f, bytes + RECORD);
	r.head_len = NET_HEAD + (uint32_t)n;
	bytes_writer_init(&w, bytes, RECORD);
	net_rdma_record_put(&w, &r);
	return make_word(WORD_FIRST, RECORD + r.head_len, bytes, RECORD + r.head_len);
}

static uint32_t
tell_word(uint8_t kind, uint32_t number, uint32_t answers)
{
	struct record r = { .kind = kind, .number = number, .answers = answers };
	uint8_t bytes[RECORD];
	struct bytes_writer w;

	bytes_writer_init(&w, bytes, RECORD);
	net_rdma_record_put(&w, &r);
	return make_word(WORD_TELL, 0, bytes, RECORD);
}

/* The server hears it, if it still listens. */
static void
say(uint32_t n)
{
	if (net_server_stats(rig.server)->connections > 0)
		verbs_deliver(chan_of(1)->qp->qp_num, word, n);
	turns(3);
}

/* Bytes that no record begins with. */
static const uint8_t nonsense[SLOT - PREFIX] = { 99 };

static void
bulk_of_nothing(void)
{
	say(make_word(WORD_BULK, 0, nonsense, 100));
}

static void
next_of_nothing(void)
{
	say(make_word(WORD_NEXT, 0, nonsense, 100));
}

static void
no_record(void)
{
	say(make_word(WORD_FIRST, 100, nonsense, 100));
}

static void
first_twice(void)
{
	say(make_word(WORD_FIRST, 5000, nonsense, 4000));
	say(make_word(WORD_FIRST, 5000, nonsense, 4000));
}

static void
done_with_nothing(void)
{
	say(tell_word(RECORD_DONE, 0, 5));
}

static void
wants_back_nothing(void)
{
	say(tell_word(RECORD_REVOKE, 1000, 0));
}

static void
tells_a_frame(void)
{
	uint32_t n = stream_word(100);

	word[2] = WORD_TELL;
	memset(word + 4, 0, 4);
	say(n);
}

static void
too_much_of_a_stream(void)
{
	say(stream_word(100));
	say(make_word(WORD_BULK, 0, nonsense, 101));
}

static void
credits_never_used(void)
{
	make_word(WORD_CREDIT, 0, NULL, 0);
	word[0] = 200;
	say(PREFIX);
}

static void
frame_in_a_stream(void)
{
	say(stream_word(8000));
	say(make_word(WORD_BULK, 0, nonsense, 4000));
	say(stream_word(8000));
	say(make_word(WORD_BULK, 0, nonsense, 4000));
	say(make_word(WORD_BULK, 0, nonsense, 4000));
}

static void
part_in_a_stream(void)
{
	say(stream_word(8000));
	say(make_word(WORD_BULK, 0, nonsense, 4000));
	say(make_word(WORD_FIRST, 5000, nonsense, 4000));
}

/* At the first of two that have completed together the owner closes the channel. */
static void
false_checksum_and_more(void)
{
	uint32_t n = stream_word(100);

	word[n - 1] ^= 1;
	verbs_deliver(chan_of(1)->qp->qp_num, word, n);
	say(n);
}

static const struct bad {
	const char *what;
	void (*say_it)(void);
} bads[] = {
	{ "a payload of nothing", bulk_of_nothing },
	{ "a part of no record", next_of_nothing },
	{ "not a record", no_record },
	{ "a record within a record", first_twice },
	{ "done with what was not offered", done_with_nothing },
	{ "what was not offered is wanted back", wants_back_nothing },
	{ "a frame that is told", tells_a_frame },
	{ "more payload than there is", too_much_of_a_stream },
	{ "credits that were not used", credits_never_used },
	{ "a frame within a payload", frame_in_a_stream },
	{ "a part of one within a payload", part_in_a_stream },
	{ "a false checksum, and more", false_checksum_and_more },
};

static void
fetch_pulled(struct net_req *req, int rc)
{
	net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

static void
pull_it(struct net_req *req)
{
	struct iovec to = { shelf, req->bulk_len };

	net_pull_start(req, &to, 1, fetch_pulled);
}

START_TEST(bad_words)
{
	const struct bad *bad = &bads[_i / 2];

	verbs.no_srq = _i % 2 == 1;
	begin(RIG_ONE_SIDED);
	on_fetch = pull_it;
	check_alive();
	verbs.still = true;		/* no answer to what nobody asked */
	bad->say_it();
	rig_pass(&rig, 5);
	ck_assert_msg(net_server_stats(rig.server)->connections == 0, "%s: it goes on",
	    bad->what);
	ck_assert_uint_eq(net_server_inflight(rig.server), 0);
	verbs.still = false;
	check_all_goes();
	end();
}
END_TEST

/* What is not bad: as our own client would say it. */
START_TEST(good_words)
{
	begin(RIG_ONE_SIDED);
	on_fetch = pull_it;
	check_alive();
	verbs.still = true;		/* no answer to what nobody asked */
	say(stream_word(5000));
	say(make_word(WORD_BULK, 0, nonsense, 4000));
	say(make_word(WORD_BULK, 0, nonsense, 1000));
	turns(5);
	ck_assert_uint_eq(net_server_inflight(rig.server), 0);
	ck_assert_int_eq(memcmp(shelf, nonsense, 4000), 0);
	ck_assert_int_eq(chan_of(1)->failed, 0);
	end();
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("fake devices");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, breaks_anywhere, 0, sizeof(ends) / sizeof(ends[0]));
	tcase_add_test(t, breaks_within_messages);
	tcase_add_test(t, no_slots_to_miss);
	tcase_add_test(t, last_words_arrive);
	tcase_add_test(t, few_completions);
	tcase_add_test(t, looks_or_sleeps);
	tcase_add_loop_test(t, bad_words, 0, 2 * sizeof(bads) / sizeof(bads[0]));
	tcase_add_test(t, good_words);
	return suite_run("rdma_qp", t);
}
