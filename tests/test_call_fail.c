/* SPDX-License-Identifier: MIT */
/* test_call_fail.c - calls that are cancelled or fail, the same over every transport. */
#include "tests/call_rig.h"

/* ---- cancel ---- */

/* Cancel after so many steps, whatever state that is; @what starts it.  Memory lent to the
 * call may not be touched, nor read, afterwards; later calls work. */
static void
cancel_after(unsigned steps, int (*what)(struct ask *))
{
	struct ask a = { .rc = 0 };
	unsigned before = done;

	ck_assert_int_eq(what(&a), 0);
	for (unsigned i = 0; i < steps && net_call_active(&a.call); i++)
		rig_step(&rig, false);
	if (!net_call_active(&a.call))
		return;
	net_call_cancel(&a.call);
	ck_assert(!net_call_active(&a.call));
	memset(dst, 0x5a, BIG);
	memset(src, 0x5a, BIG);
	check_alive();
	rig_pass(&rig, 5);
	ck_assert_msg(untouched(dst, BIG), "%s, after %u steps",
	    rig_names[rig.kind], steps);
	ck_assert_uint_eq(done, before + 1);
	fill(src, BIG, 3);
}

static int
hold(struct ask *a)
{
	return start_hold(a, 9000);
}

START_TEST(cancel_anywhere)
{
	int (*const what[])(struct ask *) = { small_echo, some_read, some_write };

	for (unsigned w = 0; w < 3; w++) {
		for (unsigned steps = 0; steps < 24; steps++) {
			open_served(_i);
			fill(shelf, BIG, 8);
			if (steps % 2 == 1)
				check_alive();	/* connected already */
			cancel_after(steps, what[w]);
			close_rig();
		}
	}
}
END_TEST

static void
refuse_payload(struct net_req *req)
{
	net_reply(req, -ENOSPC, NULL, NULL, 0, NULL, NULL);
}

/* What is taken back leaves no hole among its neighbours. */
START_TEST(cancel_between)
{
	struct ask echo[3], big[3];
	static struct iovec from = { NULL, 100000 };

	memset(echo, 0, sizeof(echo));
	memset(big, 0, sizeof(big));
	open_served(_i);
	check_alive();
	from.iov_base = src;
	on_fetch = refuse_payload;
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(start_echo(&echo[i], 1, i, 5000), 0);
		ck_assert_int_eq(start_fetch(&big[i], &from, 1, NULL, 0, 5000), 0);
	}
	net_call_cancel(&big[1].call);
	net_call_cancel(&big[2].call);
	rig_until(&rig, &done, 5);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(echo[i].rc, 0);
		ck_assert_uint_eq(echo[i].version, 1 + i);
	}
	ck_assert_int_eq(big[0].rc, -ENOSPC);
	ck_assert_uint_eq(net_hub_conns(rig.chub), 1);
	close_rig();
}
END_TEST

START_TEST(cancel_held)
{
	struct ask a = { .rc = 0 };
	struct msg_last_rep rep = { .len = 1 };

	open_served(_i);
	ck_assert_int_eq(hold(&a), 0);
	rig_until(&rig, &held_n, 1);
	net_call_cancel(&a.call);
	net_call_cancel(&a.call);
	net_reply(held[0], 0, &rep, NULL, 0, NULL, NULL);
	check_alive();
	close_rig();
}
END_TEST

/* fn may start, cancel and close. */
static struct ask second, third;

static void
chain_fn(struct net_call *c, int rc)
{
	(void)c;
	ck_assert_int_eq(rc, 0);
	net_call_cancel(&second.call);
	ck_assert_int_eq(start_echo(&third, 1, 1, 5000), 0);
	done++;
}

START_TEST(start_and_cancel_in_fn)
{
	struct ask a = { .rc = 0 };

	open_served(_i);
	memset(&second, 0, sizeof(second));
	memset(&third, 0, sizeof(third));
	ck_assert_int_eq(start_echo(&a, 1, 1, 5000), 0);
	ck_assert_int_eq(start_echo(&second, 1, 1, 5000), 0);
	a.call.fn = chain_fn;
	rig_until(&rig, &done, 2);
	ck_assert_int_eq(third.rc, 0);
	ck_assert_int_eq(second.rc, 12345);
	close_rig();
}
END_TEST

static void
close_hub_fn(struct net_call *c, int rc)
{
	(void)rc;
	ck_assert_ptr_nonnull(c->rep);
	close_client();
	done++;
}

START_TEST(close_hub_in_fn)
{
	struct ask a = { .rc = 0 };
	static struct ask more[20];

	for (unsigned how = 0; how < 3; how++) {
		memset(more, 0, sizeof(more));
		open_served(_i);
		if (how == 2)		/* the failure path */
			net_server_close(rig.server);
		ck_assert_int_eq(how == 1 ? start_hold(&a, 20) :
		    start_echo(&a, 1, 1, 5000), 0);
		for (unsigned i = 0; i < 20; i++)
			ck_assert_int_eq(how == 1 ? start_hold(&more[i], 20) :
			    start_echo(&more[i], 1, 1, 5000), 0);
		a.call.fn = close_hub_fn;
		rig_until(&rig, &done, 1);
		rig_pass(&rig, 50);
		ck_assert_uint_eq(done, 1);
		if (how == 2)
			rig.server = NULL;
		for (unsigned i = 0; i < held_n; i++)
			net_req_drop(held[i]);
		rig.chub = NULL;
		end_rig();
	}
}
END_TEST

static void
close_server(struct net_req *req)
{
	net_server_close(rig.server);
	rig.server = NULL;
	net_req_drop(req);
}

START_TEST(close_server_in_handler)
{
	struct ask a = { .rc = 0 };

	open_served(_i);
	on_fetch = close_server;
	ck_assert_int_eq(start_fetch(&a, NULL, 0, NULL, 0, 5000), 0);
	rig_until(&rig, &done, 1);
	ck_assert_int_eq(a.rc, -ECONNRESET);
	close_rig();
}
END_TEST

/* ---- failures ---- */

START_TEST(nobody_there)
{
	struct ask a[3];
	unsigned port = 0;

	/* A port that was just free. */
	memset(a, 0, sizeof(a));
	open_served(_i);
	net_server_close(rig.server);
	rig.server = NULL;
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(start_echo(&a[i], 1, 1, 5000), 0);
	rig_until(&rig, &done, 3);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(a[i].rc, -ECONNREFUSED);
	/* And now somebody is. */
	rig_serve(&rig, handler, NULL);
	check_alive();
	(void)port;
	close_rig();
}
END_TEST

/* A transport whose connections fail in the words of the box. */
static int cannot_rc;

static bool
cannot_serves(const struct net_transport *t, uint8_t kind)
{
	(void)t;
	return kind == NET_ADDR_TCP6;
}

static int
cannot_connect(struct net_transport *t, const struct net_addr *to,
    struct net_chan **out)
{
	(void)t, (void)to, (void)out;
	return cannot_rc;
}

static void
cannot_close(struct net_transport *t)
{
	(void)t;
}

/* Whatever connect() fails with, it is about the peer: askers look for another one, or
 * wait, and no program is told. */
START_TEST(cannot_connect_for_any_reason)
{
	static const int why[] = { EINVAL, EACCES, EPERM, EADDRNOTAVAIL, ENETUNREACH,
		EHOSTUNREACH, ENETDOWN, EHOSTDOWN, ENONET, ECONNABORTED, EMFILE, ENFILE,
		ENOBUFS, ENOMEM, EIO, ENOENT, EAFNOSUPPORT, EADDRINUSE, ENOPROTOOPT };
	static const struct net_transport_ops ops = { .serves = cannot_serves,
		.connect = cannot_connect, .close = cannot_close };
	struct net_transport t = { .ops = &ops };

	open_rig(_i);
	net_hub_add(rig.chub, &t);
	rig.addr.kind = NET_ADDR_TCP6;
	for (unsigned i = 0; i < sizeof(why) / sizeof(why[0]); i++) {
		struct ask a = { .rc = 0 };

		cannot_rc = -why[i];
		ck_assert_int_eq(start_echo(&a, 1, 1, 5000), 0);
		rig_until(&rig, &done, i + 1);
		ck_assert_msg(err_next(a.rc) == ERR_NEXT_REFRESH, "%s: %s",
		    err_name(-why[i]), err_name(a.rc));
	}
	close_rig();
}
END_TEST

START_TEST(no_transport)
{
	struct ask a = { .rc = 0 };

	open_rig(_i);
	rig.addr.kind = NET_ADDR_NONE;
	ck_assert_int_eq(start_echo(&a, 1, 1, 100), -EAFNOSUPPORT);
	close_rig();
}
END_TEST

START_TEST(server_dies)
{
	struct ask a = { .rc = 0 }, b = { .rc = 0 }, c = { .rc = 0 };

	open_served(_i);
	ck_assert_int_eq(start_hold(&a, 5000), 0);
	rig_until(&rig, &held_n, 1);
	ck_assert_int_eq(some_write(&b), 0);
	ck_assert_int_eq(start_echo(&c, 1, 1, 5000), 0);
	net_server_close(rig.server);
	rig_until(&rig, &done, 3);
	ck_assert_int_eq(a.rc, -ECONNRESET);
	ck_assert_int_eq(b.rc, -ECONNRESET);
	ck_assert_int_eq(c.rc, -ECONNRESET);
	/* What the handler held stays its own. */
	net_reply(held[0], 0, NULL, NULL, 0, was_sent, NULL);
	ck_assert_uint_eq(sent_n, 1);
	rig_serve(&rig, handler, NULL);
	check_alive();
	close_rig();
}
END_TEST

/* At any step of a large read or write either end vanishes: the other hears of it, once,
 * and nothing is lost or freed twice. */
START_TEST(death_anywhere)
{
	int (*const what[])(struct ask *) = { some_read, some_write };

	for (unsigned w = 0; w < 2; w++)
		for (unsigned steps = 1; steps < 26; steps++) {
			struct ask a = { .rc = 0 };
			bool client = steps % 2 == 0;

			open_served(_i);
			check_alive();
			ck_assert_int_eq(what[w](&a), 0);
			for (unsigned i = 0; i < steps; i++)
				rig_step(&rig, false);
			if (client) {
				close_client();
				rig.chub = rig_hub(&rig, rig.cclock, 1);
				memset(src, 0x5a, BIG);
				for (unsigned i = 0; i < 500 &&
				    net_server_inflight(rig.server) > 0; i++)
					rig_pass(&rig, 20);
				fill(src, BIG, 3);
				ck_assert_uint_eq(
				    net_server_inflight(rig.server), 0);
			} else {
				unsigned sent_before;

				net_server_close(rig.server);
				sent_before = sent_n;
				ck_assert_uint_eq(sent_n, w == 0 && served == 2);
				memset(shelf, 0x5a, BIG);
				rig_until(&rig, &done, 2);
				ck_assert(a.rc == 0 || a.rc == -ECONNRESET);
				ck_assert_uint_eq(sent_n, sent_before);
				/* Nothing may still be writing to the shelf: */
				ck_assert(untouched(shelf, BIG));
				rig.server = NULL;
				/* A write whose pull had begun hears nothing. */
				if (in_pull != NULL)
					net_req_drop(in_pull);
				in_pull = NULL;
			}
			close_rig();
		}
}
END_TEST

static struct net_req *pulling;

static void
never_pulled(struct net_req *req, int rc)
{
	pull_rc = rc;
	pull_failed++;
	net_reply(req, 0, NULL, NULL, 0, was_sent, NULL);
}

static void
hold_then_pull(struct net_req *req)
{
	pulling = req;
}

/* The caller goes while its payload waits to be pulled. */
START_TEST(caller_gone_before_pull)
{
	struct ask a = { .rc = 0 };
	struct iovec to = { shelf, BIG };
	struct iovec from = { src, BIG };

	open_served(_i);
	on_fetch = hold_then_pull;
	pulling = NULL;
	ck_assert_int_eq(start_fetch(&a, &from, 1, NULL, 0, 5000), 0);
	rig_until(&rig, &served, 1);
	close_client();
	rig.chub = rig_hub(&rig, rig.cclock, 1);
	rig_pass(&rig, 20);
	net_pull_start(pulling, &to, 1, never_pulled);
	ck_assert_uint_eq(pull_failed, 0);
	rig_until(&rig, &pull_failed, 1);
	ck_assert_int_eq(pull_rc, -ECONNRESET);
	ck_assert_uint_eq(sent_n, 1);
	close_rig();
}
END_TEST

/* An answer without a pull drops the payload, and the stream goes on. */
START_TEST(payload_not_wanted)
{
	struct iovec from = { src, 4u << 20 };
	struct ask a[4];

	memset(a, 0, sizeof(a));
	open_served(_i);
	on_fetch = refuse_payload;
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(start_fetch(&a[i], &from, 1, NULL, 0, 5000), 0);
	rig_until(&rig, &done, 4);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(a[i].rc, -ENOSPC);
	check_alive();
	ck_assert_uint_eq(net_hub_conns(rig.chub), 1);
	close_rig();
}
END_TEST

static void
reply_twice_the_room(struct net_req *req)
{
	struct msg_fetch_rep rep = { .len = 1 };
	struct net_piece p = { shelf, 100, req->recv_len - 99 };

	net_reply(req, 0, &rep, &p, 1, was_sent, NULL);
}

START_TEST(piece_outside_room)
{
	struct ask a = { .rc = 0 };
	struct iovec room = { dst, 1000 };

	open_served(_i);
	on_fetch = reply_twice_the_room;
	ck_assert_int_eq(start_fetch(&a, NULL, 0, &room, 1, 5000), 0);
	rig_until(&rig, &done, 1);
	ck_assert_int_eq(a.rc, ERR_BAD_MESSAGE);
	ck_assert_uint_eq(sent_n, 1);
	check_alive();
	close_rig();
}
END_TEST

START_TEST(unknown_service)
{
	struct ask a = { .rc = 0 };
	struct msg_client_beat m = { .pid = 1 };

	open_served(_i);
	ck_assert_int_eq(start(&a, MSG_client_beat, &m, NULL, 0, NULL, 0, 5000), 0);
	rig_until(&rig, &done, 1);
	ck_assert_int_eq(a.rc, ERR_BAD_METHOD);
	close_rig();
}
END_TEST

START_TEST(wrong_key)
{
	struct ask a = { .rc = 0 };
	struct net_hub *good;

	open_served(_i);
	good = rig.chub;
	rig.hub_conf.key[31] ^= 1;
	rig.chub = rig_hub(&rig, rig.cclock, 3);
	ck_assert_int_eq(start_echo(&a, 1, 1, 5000), 0);
	rig_until(&rig, &done, 1);
	ck_assert_int_eq(a.rc, ERR_AUTH);
	ck_assert_int_eq(start_echo(&a, 1, 1, 5000), 0);
	rig_until(&rig, &done, 2);
	ck_assert_uint_eq(served, 0);
	ck_assert_ptr_nonnull(strstr(rig.logged, "hello failed"));
	close_client();
	rig.chub = good;
	check_alive();
	close_rig();
}
END_TEST

START_TEST(wrong_cluster)
{
	struct ask a = { .rc = 0 };

	open_served(_i);
	close_client();
	rig.hub_conf.cluster = "other";
	rig.chub = rig_hub(&rig, rig.cclock, 1);
	ck_assert_int_eq(start_echo(&a, 1, 1, 5000), 0);
	rig_until(&rig, &done, 1);
	ck_assert_int_eq(a.rc, ERR_AUTH);
	ck_assert_uint_eq(served, 0);
	close_rig();
}
END_TEST

int
main(void)
{
	const TTest *const all[] = {
		cancel_anywhere, cancel_between, cancel_held,
		start_and_cancel_in_fn, close_hub_in_fn,
		close_server_in_handler, nobody_there,
		cannot_connect_for_any_reason, no_transport, server_dies,
		death_anywhere, caller_gone_before_pull, payload_not_wanted,
		piece_outside_room, unknown_service, wrong_key, wrong_cluster
	};

	return run_over_all("call_fail", all, sizeof(all) / sizeof(all[0]));
}
