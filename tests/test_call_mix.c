/* SPDX-License-Identifier: MIT */
/* test_call_mix.c - calls of all kinds beside each other in a small window, given up, late and
 * refused at any moment: each ends once, and nothing of it is left. */
#include "tests/call_rig.h"

#define SLOTS	24u
#define ROUNDS	2000u
#define PART	(BIG / SLOTS)

static struct one {
	struct ask ask;
	struct iovec room, from;
	bool used;
} ones[SLOTS];

static uint64_t ends, begun;
static unsigned pulling;
static uint8_t landing[PART];

static uint8_t *
place(const struct one *o, uint8_t *base)
{
	return base + (size_t)(o - ones) * PART;
}

/* Its memory is ours again. */
static void
over(struct one *o)
{
	memset(place(o, dst), 0x5a, PART);
	o->used = false;
	ends++;
}

static void
ended(struct net_call *c, int rc)
{
	struct one *o = container_of(c, struct one, ask.call);

	ck_assert(o->used && !net_call_active(c));
	if (rc == 0)
		ck_assert_int_eq(memcmp(place(o, dst), shelf, c->rep_bulk), 0);
	over(o);
}

static void
some_answer(struct net_req *req)
{
	struct msg_fetch_rep rep = { .len = 1 };
	uint32_t len = (uint32_t)rand_below(&rig.rand, req->recv_len + 1);
	struct net_piece p[2] = { { shelf, len / 3, 0 },
	    { shelf + len / 3, len - len / 3, len / 3 } };

	switch (rand_below(&rig.rand, 6)) {
	case 0:
		net_reply(req, -EIO, NULL, NULL, 0, NULL, NULL);
		return;
	case 1:
		net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
		return;
	case 2:
		if (held_n < 16) {
			held[held_n++] = req;
			return;
		}
	}
	net_reply(req, 0, &rep, p, len > 0 ? 2 : 0, was_sent, NULL);
}

static void
payload_came(struct net_req *req, int rc)
{
	(void)rc;
	pulling--;
	some_answer(req);
}

/* Some take the payload first: one at a time, there is one place for it. */
static void
some_request(struct net_req *req)
{
	struct iovec to = { landing, req->bulk_len };

	if (req->bulk_len == 0 || pulling > 0 || rand_chance(&rig.rand, 1, 3)) {
		some_answer(req);
		return;
	}
	pulling++;
	net_pull_start(req, &to, 1, payload_came);
}

static void
answer_one_held(void)
{
	struct net_req *req;
	unsigned i;

	if (held_n == 0)
		return;
	i = (unsigned)rand_below(&rig.rand, held_n);
	req = held[i];
	held[i] = held[--held_n];
	some_answer(req);
}

static void
begin(struct one *o)
{
	uint64_t ms = rand_chance(&rig.rand, 1, 5) ? 1 + rand_below(&rig.rand, 30) : 20000;
	struct msg_fetch m = { .chain = 1 };
	struct net_call_opts opts = { .deadline_ns = clock_now(rig.cclock) + ms * NS_PER_MS };
	int rc;

	o->room = (struct iovec){ place(o, dst), 1 + rand_below(&rig.rand, PART) };
	o->from = (struct iovec){ place(o, src), 1 + rand_below(&rig.rand, PART) };
	if (!rand_chance(&rig.rand, 1, 4)) {
		opts.recv = &o->room;
		opts.recv_n = 1;
	}
	if (rand_chance(&rig.rand, 1, 4)) {
		opts.send = &o->from;
		opts.send_n = 1;
	}
	o->used = true;
	rc = net_call_start(&o->ask.call, rig.chub, &rig.addr, MSG_fetch, &m, &opts, ended);
	ck_assert_int_eq(rc, 0);
	begun++;
}

START_TEST(mix)
{
	int kind = rig_first() + _i % (rig_kinds() - rig_first());
	const char *seed = getenv("SEED");

	open_rig_seed(kind, (uint64_t)_i + (seed != NULL ? strtoull(seed, NULL, 10) : 1));
	close_client();
	rig.hub_conf.receive_window = 20000 + rand_below(&rig.rand, 2 * PART);
	rig.chub = rig_hub(&rig, rig.cclock, 1);
	if (rig_one_sided(kind)) {
		know(rig.chub, src, &known[0]);
		know(rig.chub, dst, &known[1]);
	}
	rig_serve(&rig, handler, NULL);
	fill(shelf, BIG, 9);
	check_alive();
	on_fetch = some_request;
	memset(ones, 0, sizeof(ones));
	memset(dst, 0x5a, BIG);
	ends = begun = 0;
	pulling = 0;
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct one *o = &ones[rand_below(&rig.rand, SLOTS)];

		if (!o->used) {
			for (size_t i = 0; i < PART; i += 997)
				ck_assert(place(o, dst)[i] == 0x5a);
			begin(o);
		} else if (rand_chance(&rig.rand, 1, 300)) {
			net_call_cancel(&o->ask.call);
			over(o);
		} else if (rand_chance(&rig.rand, 1, 3) &&
		    net_call_abandon(&o->ask.call)) {
			over(o);
		}
		if (rand_chance(&rig.rand, 1, 4))
			answer_one_held();
		for (uint64_t k = rand_below(&rig.rand, 6); k > 0; k--)
			rig_step(&rig, false);
	}
	for (unsigned i = 0; i < 4000 && ends < begun; i++) {
		answer_one_held();
		rig_pass(&rig, 5);
	}
	ck_assert_uint_eq(ends, begun);
	while (held_n > 0)
		answer_one_held();
	for (unsigned i = 0; i < 500 && net_server_inflight(rig.server) > 0; i++)
		rig_pass(&rig, 20);
	ck_assert_uint_eq(net_server_inflight(rig.server), 0);
	ck_assert_uint_eq(net_hub_stats(rig.chub)->granted, 0);
	ck_assert_uint_eq(net_hub_stats(rig.chub)->waiting, 0);
	ck_assert_uint_eq(net_server_stats(rig.server)->asking, 0);
	check_alive();
	close_rig();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("call_mix");
	TCase *t = tcase_create("every transport");
	SRunner *sr = srunner_create(s);
	const char *n = getenv("N");
	int failed, rounds = n != NULL ? atoi(n) / 10 : 0;	/* one takes as long as ten of others */

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, mix, 0, (rounds > 2 ? rounds : 2) * (rig_kinds() - rig_first()));
	suite_add_tcase(s, t);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
