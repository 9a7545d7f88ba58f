/* SPDX-License-Identifier: MIT */
/* test_call_grant.c - replies that ask before they come, the same over every transport. */
#include "tests/call_rig.h"

#include "net/frame.h"

#define KIB	(1u << 10)
#define MIB	(1u << 20)

static struct msg_read_item item;
static struct iovec window_room, more_room;

static uint64_t replies_max;		/* of the next server */

/* A client whose window is @bytes. */
static void
open_window(int kind, uint64_t bytes, unsigned payload_ms)
{
	open_rig(kind);
	close_client();
	rig.hub_conf.receive_window = bytes;
	rig.chub = rig_hub(&rig, rig.cclock, 1);
	if (rig_one_sided(kind)) {
		know(rig.chub, src, &known[0]);
		know(rig.chub, dst, &known[1]);
	}
	if (payload_ms != 0)
		rig.conf.payload_ms = payload_ms;
	rig.conf.replies_max = replies_max;
	replies_max = 0;
	rig_serve(&rig, handler, NULL);
	fill(shelf, BIG, 9);
	check_alive();
	served = done = 0;
}

static const struct net_hub_stat *
hub(void)
{
	return net_hub_stats(rig.chub);
}

static const struct net_server_stat *
srv(void)
{
	return net_server_stats(rig.server);
}

static void
nothing_is_left(void)
{
	rig_pass(&rig, 20);
	ck_assert_uint_eq(hub()->granted, 0);
	ck_assert_uint_eq(hub()->waiting, 0);
	ck_assert_uint_eq(srv()->asking, 0);
	ck_assert_uint_eq(srv()->inflight, 0);
	check_alive();
	ck_assert_uint_eq(net_hub_conns(rig.chub), 1);
	close_rig();
}

/* Takes all of the window: the server holds it until the test answers. */
static void
hold_it(struct net_req *req)
{
	held[held_n++] = req;
}

static void
take_window(struct ask *a)
{
	on_fetch = hold_it;
	window_room = (struct iovec){ dst + BIG / 2, MIB };
	ck_assert_int_eq(start_fetch(a, NULL, 0, &window_room, 1, 20000), 0);
	rig_until(&rig, &held_n, 1);
	ck_assert_uint_eq(hub()->granted, MIB);
}

static void
give_window_back(struct ask *a)
{
	unsigned before = done;

	net_reply(held[0], -ENOENT, NULL, NULL, 0, NULL, NULL);
	while (a->rc == 12345)
		rig_until(&rig, &done, ++before);
	ck_assert_int_eq(a->rc, -ENOENT);
}

static int
read_some(struct ask *a, uint32_t n, unsigned ms)
{
	item = (struct msg_read_item){ .len = n };
	return start_read(a, &item, 1, n, ms);
}

static void
until_asking(unsigned n)
{
	for (unsigned i = 0; i < 2000 && hub()->waiting < n; i++)
		rig_pass(&rig, 5);
	ck_assert_uint_eq(hub()->waiting, n);
}

/* Done with @a, which breaks no connection.  How many more calls have ended by that. */
static unsigned
leave(struct ask *a)
{
	unsigned before = done;

	if (!net_call_abandon(&a->call))
		rig_until(&rig, &done, before + 1);
	return done - before;
}

/* More than the window: all come, never more at once. */
START_TEST(window_is_kept)
{
	enum { N = 24 };
	static struct ask a[N];

	memset(a, 0, sizeof(a));
	open_window(_i, MIB, 0);
	ck_assert_uint_eq(hub()->window, MIB);
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(read_some(&a[i], 300 * KIB, 20000), 0);
	while (done < N) {
		rig_until(&rig, &done, done + 1);
		ck_assert_uint_le(hub()->granted, MIB);
	}
	for (unsigned i = 0; i < N; i++) {
		ck_assert_int_eq(a[i].rc, 0);
		ck_assert_uint_eq(a[i].bulk, 300 * KIB);
	}
	ck_assert_int_eq(memcmp(dst, shelf, 300 * KIB), 0);
	/* The first one went with its request; all others had to ask. */
	ck_assert_uint_eq(hub()->asks, N - 1);
	ck_assert_uint_eq(srv()->asks, N - 1);
	ck_assert_uint_eq(stat_hist_count(&hub()->ask_ns), N - 1);
	rig_until(&rig, &sent_n, N);
	nothing_is_left();
}
END_TEST

/* A window that is large enough costs no question. */
START_TEST(nobody_asks_without_need)
{
	struct ask a[8];

	memset(a, 0, sizeof(a));
	open_window(_i, 32 * MIB, 0);
	for (unsigned i = 0; i < 8; i++)
		ck_assert_int_eq(read_some(&a[i], MIB, 9000), 0);
	rig_until(&rig, &done, 8);
	ck_assert_uint_eq(srv()->asks, 0);
	nothing_is_left();
}
END_TEST

/* Little ones and errors pass a window that is full. */
static void
small_answers(struct net_req *req)
{
	struct msg_fetch_rep rep = { .len = 1 };
	struct net_piece p = { shelf, NET_GRANT_SMALL, 0 };

	if (served % 2 == 0)
		net_reply(req, 0, &rep, &p, 1, was_sent, NULL);
	else
		net_reply(req, -EIO, NULL, NULL, 0, NULL, NULL);
}

START_TEST(small_ones_pass)
{
	struct ask full = { .rc = 0 }, a[4];

	memset(a, 0, sizeof(a));
	open_window(_i, MIB, 0);
	take_window(&full);
	on_fetch = small_answers;
	more_room = (struct iovec){ dst, MIB };
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(start_fetch(&a[i], NULL, 0, &more_room, 1, 9000), 0);
	rig_until(&rig, &done, 4);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(a[i].rc, i % 2 == 0 ? 0 : -EIO);
	ck_assert_uint_eq(srv()->asks, 0);
	give_window_back(&full);
	nothing_is_left();
}
END_TEST

/* A call that ends while its reply waits lets the server go at once. */
START_TEST(cancel_while_it_waits)
{
	struct ask full = { .rc = 0 }, a = { .rc = 0 };

	open_window(_i, MIB, 0);
	take_window(&full);
	ck_assert_int_eq(read_some(&a, MIB, 9000), 0);
	until_asking(1);
	ck_assert_uint_eq(srv()->asking, 1);
	ck_assert(net_call_waits(&a.call));
	ck_assert(!net_call_waits(&full.call));
	leave(&a);
	ck_assert(!net_call_waits(&a.call));
	ck_assert_uint_eq(hub()->waiting, 0);
	rig_until(&rig, &sent_n, 1);
	give_window_back(&full);
	nothing_is_left();
}
END_TEST

START_TEST(time_out_while_it_waits)
{
	struct ask full = { .rc = 0 }, a = { .rc = 0 };

	open_window(_i, MIB, 0);
	take_window(&full);
	/* Long enough to get as far as that on a machine that is busy. */
	ck_assert_int_eq(read_some(&a, MIB, 1500), 0);
	until_asking(1);
	rig_until(&rig, &done, 1);
	ck_assert_int_eq(a.rc, -ETIMEDOUT);
	rig_until(&rig, &sent_n, 1);
	give_window_back(&full);
	nothing_is_left();
}
END_TEST

/* The question comes when the call has gone. */
static void
answer_large(struct net_req *req)
{
	struct msg_fetch_rep rep = { .len = 1 };
	struct net_piece p = { shelf, MIB, 0 };

	net_reply(req, 0, &rep, &p, 1, was_sent, NULL);
}

static void
answer_some(struct net_req *req)
{
	struct msg_fetch_rep rep = { .len = 1 };
	struct net_piece p = { shelf, req->recv_len, 0 };

	net_reply(req, 0, &rep, &p, 1, was_sent, NULL);
}

START_TEST(late_question)
{
	struct ask full = { .rc = 0 }, a = { .rc = 0 };

	open_window(_i, MIB, 0);
	take_window(&full);
	more_room = (struct iovec){ dst, MIB };
	ck_assert_int_eq(start_fetch(&a, NULL, 0, &more_room, 1, 9000), 0);
	rig_until(&rig, &held_n, 2);
	leave(&a);
	answer_large(held[1]);
	rig_until(&rig, &sent_n, 1);
	ck_assert_uint_eq(srv()->asks, 1);
	ck_assert_uint_eq(hub()->asks, 0);
	give_window_back(&full);
	nothing_is_left();
}
END_TEST

/* A client that grants nothing for too long is told to come again: its replies do not keep
 * the server's memory. */
START_TEST(server_gives_up)
{
	struct ask full = { .rc = 0 }, a = { .rc = 0 };

	open_window(_i, MIB, 400);
	take_window(&full);
	ck_assert_int_eq(read_some(&a, MIB, 15000), 0);
	rig_until(&rig, &done, 1);
	ck_assert_int_eq(a.rc, ERR_BUSY);
	ck_assert_uint_eq(sent_n, 1);
	ck_assert_uint_eq(hub()->waiting, 0);
	ck_assert_uint_eq(hub()->granted, MIB);
	give_window_back(&full);
	nothing_is_left();
}
END_TEST

/* Handlers see no more requests of one connection than replies that may wait. */
START_TEST(what_waits_is_bounded)
{
	enum { N = 40 };
	static struct ask a[N];
	struct ask full = { .rc = 0 };
	unsigned gone;

	memset(a, 0, sizeof(a));
	open_window(_i, MIB, 0);
	take_window(&full);
	served = 0;
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(read_some(&a[i], MIB, 20000), 0);
	until_asking(16);
	rig_pass(&rig, 50);
	ck_assert_uint_eq(served, 16);
	ck_assert_uint_eq(hub()->waiting, 16);
	/* Other requests are not held up by them. */
	check_alive();
	gone = leave(&a[0]) + leave(&a[N - 1]);
	give_window_back(&full);
	rig_until(&rig, &done, N + gone);
	for (unsigned i = 1; i < N - 1; i++)
		ck_assert_int_eq(a[i].rc, 0);
	nothing_is_left();
}
END_TEST

/* Nor of requests that have a payload, which cannot wait. */
START_TEST(with_a_payload_too)
{
	enum { N = 20 };
	static struct ask a[N];
	struct iovec from = { src, 1 };
	struct ask full = { .rc = 0 };

	memset(a, 0, sizeof(a));
	open_window(_i, MIB, 0);
	take_window(&full);
	on_fetch = answer_large;
	served = 0;
	more_room = (struct iovec){ dst, MIB };
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(start_fetch(&a[i], &from, 1, &more_room, 1, 20000), 0);
	rig_until(&rig, &done, N - 16);
	until_asking(16);
	ck_assert_uint_eq(served, 16);
	ck_assert_uint_eq(srv()->busy, N - 16);
	give_window_back(&full);
	rig_until(&rig, &done, N + 1);
	for (unsigned i = 0; i < N; i++)
		ck_assert(a[i].rc == 0 || a[i].rc == ERR_BUSY);
	nothing_is_left();
}
END_TEST

/* The server's own memory: one client does not keep others from it, and nobody is refused. */
START_TEST(memory_is_shared)
{
	enum { N = 12, M = 3 };
	static struct ask a[N], b[M];
	struct net_hub *first;

	memset(a, 0, sizeof(a));
	memset(b, 0, sizeof(b));
	replies_max = 2 * MIB;
	open_window(_i, 0, 0);
	served = done = 0;
	on_fetch = hold_it;
	more_room = (struct iovec){ dst, 512 * KIB };
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(start_fetch(&a[i], NULL, 0, &more_room, 1, 20000), 0);
	rig_until(&rig, &served, 2);
	rig_pass(&rig, 30);
	/* Half of it, at most, for one client. */
	ck_assert_uint_eq(served, 2);
	ck_assert_uint_eq(srv()->parked, N - 2);
	first = rig.chub;
	rig.chub = rig_hub(&rig, rig.cclock, 5);
	for (unsigned i = 0; i < M; i++)
		ck_assert_int_eq(start_fetch(&b[i], NULL, 0, &more_room, 1, 20000), 0);
	rig_until(&rig, &served, 3);
	rig_pass(&rig, 30);
	ck_assert_uint_le(served, 4);
	rig.chub = first;
	for (unsigned i = 0; i < N + M; i++) {
		rig_until(&rig, &held_n, 1);
		answer_some(held[0]);
		memmove(held, held + 1, --held_n * sizeof(held[0]));
		rig_until(&rig, &done, i + 1);
	}
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(a[i].rc, 0);
	for (unsigned i = 0; i < M; i++)
		ck_assert_int_eq(b[i].rc, 0);
	net_hub_close(b[0].call.hub);
	ck_assert_uint_eq(srv()->busy, 0);
	ck_assert_uint_eq(srv()->parked, 0);
	nothing_is_left();
}
END_TEST

static void
hold_pulled(struct net_req *req, int rc)
{
	ck_assert_int_eq(rc, 0);
	hold_it(req);
}

static void
pull_and_hold(struct net_req *req)
{
	struct iovec to = { shelf, req->bulk_len };

	net_pull_start(req, &to, 1, hold_pulled);
}

/* Also by requests that have a payload, which cannot wait. */
START_TEST(memory_for_those_with_a_payload)
{
	enum { N = 12 };
	static struct ask a[N];
	struct iovec from = { src, 1 };

	memset(a, 0, sizeof(a));
	replies_max = 2 * MIB;
	open_window(_i, 0, 0);
	on_fetch = pull_and_hold;
	more_room = (struct iovec){ dst, 512 * KIB };
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(start_fetch(&a[i], &from, 1, &more_room, 1, 20000), 0);
	rig_until(&rig, &done, N - 2);
	rig_until(&rig, &held_n, 2);
	ck_assert_uint_eq(served, 2);
	ck_assert_uint_eq(srv()->busy, N - 2);
	while (held_n > 0)
		answer_some(held[--held_n]);
	rig_until(&rig, &done, N);
	for (unsigned i = 0; i < N; i++)
		ck_assert(a[i].rc == 0 || a[i].rc == ERR_BUSY);
	nothing_is_left();
}
END_TEST

/* A client that has gone leaves no room before the handler gives back what it holds. */
START_TEST(memory_of_the_gone)
{
	struct ask a = { .rc = 0 }, b = { .rc = 0 };

	replies_max = MIB;
	open_window(_i, 0, 0);
	on_fetch = hold_it;
	more_room = (struct iovec){ dst, MIB };
	ck_assert_int_eq(start_fetch(&a, NULL, 0, &more_room, 1, 20000), 0);
	rig_until(&rig, &served, 1);
	close_client();
	rig.chub = rig_hub(&rig, rig.cclock, 1);
	for (unsigned i = 0; i < 400 && srv()->connections > 0; i++)
		rig_pass(&rig, 20);
	ck_assert_int_eq(start_fetch(&b, NULL, 0, &more_room, 1, 20000), 0);
	rig_pass(&rig, 50);
	ck_assert_uint_eq(served, 1);
	answer_some(held[0]);
	rig_until(&rig, &held_n, 2);
	answer_some(held[1]);
	rig_until(&rig, &done, 1);
	ck_assert_int_eq(b.rc, 0);
	nothing_is_left();
}
END_TEST

/* Whoever hears first that his reply has nowhere to go closes the server: with memory that is
 * held by other such replies. */
static void
close_the_server(void *arg)
{
	net_server_close(rig.server);
	rig.server = NULL;
	was_sent(arg);
}

START_TEST(closed_when_sent)
{
	enum { N = 4 };
	struct msg_fetch_rep rep = { .len = 1 };
	struct net_piece p = { shelf, MIB, 0 };
	struct ask a[N];

	memset(a, 0, sizeof(a));
	replies_max = 16 * MIB;
	open_window(_i, 0, 0);
	on_fetch = hold_it;
	more_room = (struct iovec){ dst, MIB };
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(start_fetch(&a[i], NULL, 0, &more_room, 1, 20000), 0);
	rig_until(&rig, &held_n, N);
	for (unsigned i = 0; i < N; i++)
		net_reply(held[i], 0, &rep, &p, 1, close_the_server, NULL);
	ck_assert_uint_eq(sent_n, 0);
	close_client();
	rig.chub = rig_hub(&rig, rig.cclock, 1);
	for (unsigned i = 0; i < 400 && sent_n < N; i++)
		rig_pass(&rig, 20);
	ck_assert_uint_eq(sent_n, N);
	close_rig();
}
END_TEST

/* The same where many are told at once to come again. */
START_TEST(closed_when_given_up)
{
	enum { N = 4 };
	struct msg_fetch_rep rep = { .len = 1 };
	struct net_piece p = { shelf, MIB, 0 };
	struct ask full = { .rc = 0 }, a[N];

	memset(a, 0, sizeof(a));
	open_window(_i, MIB, 400);
	take_window(&full);
	more_room = (struct iovec){ dst, MIB };
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(start_fetch(&a[i], NULL, 0, &more_room, 1, 20000), 0);
	rig_until(&rig, &held_n, 1 + N);
	for (unsigned i = 0; i < N; i++)
		net_reply(held[1 + i], 0, &rep, &p, 1, close_the_server, NULL);
	until_asking(N);
	ck_assert_uint_eq(sent_n, 0);
	rig_until(&rig, &done, N + 1);
	ck_assert_uint_eq(sent_n, N);
	ck_assert_uint_eq(hub()->waiting, 0);
	net_req_drop(held[0]);
	close_rig();
}
END_TEST

/* A client that goes with its requests parked leaves the room to others. */
START_TEST(parked_and_gone)
{
	struct ask a[6];

	replies_max = MIB;
	open_window(_i, 0, 0);
	for (unsigned how = 0; how < 2; how++) {
		memset(a, 0, sizeof(a));
		served = done = held_n = 0;
		on_fetch = hold_it;
		more_room = (struct iovec){ dst, MIB };
		for (unsigned i = 0; i < 6; i++)
			ck_assert_int_eq(start_fetch(&a[i], NULL, 0, &more_room, 1,
			    how == 0 ? 20000 : 100), 0);
		rig_until(&rig, &served, 1);
		rig_pass(&rig, 30);
		ck_assert_uint_eq(srv()->parked, 5);
		if (how == 0) {
			close_client();
			rig.chub = rig_hub(&rig, rig.cclock, 1);
			for (unsigned i = 0; i < 400 && srv()->connections > 0; i++)
				rig_pass(&rig, 20);
			ck_assert_uint_eq(srv()->parked, 0);
		} else {
			/* Or their time is up: their handler never sees them. */
			rig_until(&rig, &done, 6);
			rig_pass(&rig, 30);
		}
		ck_assert_uint_eq(held_n, 1);
		net_reply(held[0], -ENOENT, NULL, NULL, 0, NULL, NULL);
		rig_pass(&rig, 30);
		ck_assert_uint_eq(held_n, 1);
		ck_assert_uint_eq(srv()->parked, 0);
		check_alive();
	}
	nothing_is_left();
}
END_TEST

/* A call that was let come at once waits for the server's memory, which a reply holds that waits
 * for the window, of which that call holds half. */
START_TEST(window_and_memory)
{
	struct ask h = { .rc = 0 }, r = { .rc = 0 }, e = { .rc = 0 };

	replies_max = 2 * MIB;
	open_window(_i, 2 * MIB, 4000);
	on_fetch = hold_it;
	more_room = (struct iovec){ dst, MIB };
	window_room = (struct iovec){ dst + BIG / 2, MIB };
	ck_assert_int_eq(start_fetch(&h, NULL, 0, &window_room, 1, 20000), 0);
	rig_until(&rig, &held_n, 1);
	/* It will have to ask. */
	ck_assert_int_eq(start_fetch(&r, NULL, 0, &more_room, 1, 20000), 0);
	net_reply(held[0], -ENOENT, NULL, NULL, 0, NULL, NULL);
	rig_until(&rig, &held_n, 2);
	rig_until(&rig, &done, 1);
	/* The window is free: this one need not, but there is no memory for it. */
	ck_assert_int_eq(start_fetch(&e, NULL, 0, &window_room, 1, 20000), 0);
	for (unsigned i = 0; i < 200 && srv()->parked == 0; i++)
		rig_pass(&rig, 5);
	ck_assert_uint_eq(srv()->parked, 1);
	on_fetch = answer_large;
	answer_large(held[1]);
	rig_until(&rig, &done, 3);
	ck_assert_int_eq(r.rc, 0);
	ck_assert_int_eq(e.rc, 0);
	nothing_is_left();
}
END_TEST

/* Larger than the window: alone, but it comes. */
START_TEST(larger_than_the_window)
{
	struct ask a[3];

	memset(a, 0, sizeof(a));
	open_window(_i, 64 * KIB, 0);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(read_some(&a[i], 2 * MIB, 20000), 0);
	rig_until(&rig, &done, 3);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(a[i].rc, 0);
	nothing_is_left();
}
END_TEST

/* Either end vanishes at any step of a read that asks. */
START_TEST(death_anywhere)
{
	for (unsigned steps = 1; steps < 30; steps++) {
		struct ask full = { .rc = 0 }, a[3];
		bool client = steps % 2 == 0;

		memset(a, 0, sizeof(a));
		open_window(_i, MIB, 0);
		take_window(&full);
		for (unsigned i = 0; i < 3; i++)
			ck_assert_int_eq(read_some(&a[i], MIB, 20000), 0);
		if (steps % 3 == 0)
			until_asking(3);
		if (steps % 3 != 1)
			net_reply(held[0], -ENOENT, NULL, NULL, 0, NULL, NULL);
		for (unsigned i = 0; i < steps; i++)
			rig_step(&rig, false);
		if (client) {
			close_client();
			rig.chub = rig_hub(&rig, rig.cclock, 1);
			if (steps % 3 == 1)
				net_reply(held[0], -ENOENT, NULL, NULL, 0, NULL, NULL);
			for (unsigned i = 0; i < 500 &&
			    net_server_inflight(rig.server) > 0; i++)
				rig_pass(&rig, 20);
			ck_assert_uint_eq(net_server_inflight(rig.server), 0);
			ck_assert_uint_eq(srv()->asking, 0);
			check_alive();
		} else {
			net_server_close(rig.server);
			rig.server = NULL;
			if (steps % 3 == 1)
				net_req_drop(held[0]);
			rig_until(&rig, &done, 4);
			ck_assert_uint_eq(hub()->granted, 0);
			ck_assert_uint_eq(hub()->waiting, 0);
		}
		close_rig();
	}
}
END_TEST

/* fn starts the next: always some wait, none for ever. */
static unsigned left;

static void
again(struct net_call *c, int rc)
{
	struct ask *a = container_of(c, struct ask, call);

	a->rc = rc;
	ck_assert_int_eq(rc, 0);
	done++;
	if (left > 0) {
		left--;
		ck_assert_int_eq(read_some(a, 200 * KIB, 20000), 0);
		a->call.fn = again;
	}
}

START_TEST(always_more)
{
	enum { N = 12 };
	static struct ask a[N];

	memset(a, 0, sizeof(a));
	open_window(_i, 700 * KIB, 0);
	left = 200;
	for (unsigned i = 0; i < N; i++) {
		ck_assert_int_eq(read_some(&a[i], 200 * KIB, 20000), 0);
		a[i].call.fn = again;
	}
	rig_until(&rig, &done, N + 200);
	ck_assert_uint_gt(hub()->asks, 100);
	nothing_is_left();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("call_grant");
	TCase *t = tcase_create("every transport");
	SRunner *sr = srunner_create(s);
	int failed;

	const TTest *const all[] = {
		window_is_kept, nobody_asks_without_need, small_ones_pass,
		cancel_while_it_waits, time_out_while_it_waits, late_question,
		server_gives_up, what_waits_is_bounded, with_a_payload_too, window_and_memory,
		memory_is_shared, memory_for_those_with_a_payload, memory_of_the_gone,
		closed_when_sent, closed_when_given_up, parked_and_gone, larger_than_the_window,
		death_anywhere, always_more
	};

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		tcase_add_loop_test(t, all[i], rig_first(), rig_kinds());
	suite_add_tcase(s, t);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
