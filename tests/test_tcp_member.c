/* SPDX-License-Identifier: MIT */
/* test_tcp_member.c - TCP against members that hold the key and are broken or slow. */
#include "tests/suite.h"
#include "tests/tcp_rig.h"

/* ---- members that are broken ---- */

static const struct {
	const char *what;
	uint32_t    msg_len, bulk_len;
	uint8_t	    kind;
	bool	    bad_crc;
} broken[] = {
	{ "huge message", 0xffffffff, 0, 4, false },
	{ "message just too long", NET_HEAD_MAX - NET_HEAD + 1, 0, 4, false },
	{ "payload just too long", 8, NET_BULK_MAX + 1, 4, false },
	{ "bad checksum", 8, 0, 4, true },
	{ "second hello", 56, 0, 1, false },
	{ "reply to a server", 8, 0, 5, false },
	{ "pong to a server", 0, 0, 7, false },
	{ "unknown kind", 8, 0, 77, false }
};

START_TEST(broken_member)
{
	struct net_frame f = { .kind = broken[_i].kind, .arg = broken[_i].kind == 4 };
	uint8_t out[NET_HEAD + 100] = { 0 };
	uint32_t body = broken[_i].msg_len <= 100 ? broken[_i].msg_len : 0;
	int fd = raw_connect(0);

	raw_login(fd);
	f.msg_len = body;
	net_frame_encode(&f, out);
	memcpy(out + 8, &broken[_i].msg_len, 4);
	memcpy(out + 12, &broken[_i].bulk_len, 4);
	if (broken[_i].bad_crc)
		out[4] ^= 1;
	raw_send(fd, out, NET_HEAD + body);
	check_closed(fd, broken[_i].what);
	ck_assert_uint_eq(served, 0);
	check_alive();
}
END_TEST

/* A sound frame around a message that does not parse: that call fails, no more. */
START_TEST(bad_message)
{
	struct net_frame f = { .kind = NET_FRAME_REQUEST, .method = MSG_committed,
	    .id = 5, .arg = 1000, .msg_len = 3 };
	uint8_t out[1000] = { 0 };
	int fd = raw_connect(0);

	raw_login(fd);
	memset(out + NET_HEAD, 0xc1, 3);
	net_frame_encode(&f, out);
	raw_send(fd, out, NET_HEAD + 3);
	raw_reply(fd, &f, out);
	ck_assert_int_eq((int32_t)f.arg, ERR_BAD_MESSAGE);
	ck_assert_uint_eq(f.id, 5);
	raw_send(fd, out, make_echo(out, 6, 66));
	raw_reply(fd, &f, out);
	ck_assert_uint_eq(f.id, 6);
	ck_assert_int_eq((int32_t)f.arg, 0);
	close(fd);
}
END_TEST

/* Heads in any number of pieces, two at once, payload in between. */
START_TEST(dribble)
{
	static uint8_t out[3000], in[1000];
	struct msg_write m = { .len = 700 };
	struct net_frame f;
	uint32_t n = 0;
	unsigned seen = 0;
	int fd = raw_connect(0);

	raw_login(fd);
	n += make_echo(out + n, 1, 11);
	n += make_request(out + n, MSG_write, &m, 2, 700, 0);
	memset(out + n, 0x77, 700);
	n += 700;
	n += make_echo(out + n, 3, 33);
	for (uint32_t i = 0; i < n; i++) {
		ck_assert_uint_eq(raw_send(fd, out + i, 1), 1);
		for (unsigned k = 0; k < 3; k++)
			loop_turn(rig.loop, false);
	}
	for (unsigned i = 0; i < 3; i++) {
		raw_reply(fd, &f, in);
		ck_assert_int_eq((int32_t)f.arg, 0);
		seen |= 1u << f.id;	/* in any order */
	}
	ck_assert_uint_eq(seen, 0xe);
	for (unsigned i = 0; i < 700; i++)
		ck_assert(shelf[i] == 0x77);
	close(fd);
}
END_TEST

/* A message larger than the small buffer, cut everywhere, with another behind it. */
START_TEST(cut_large_message)
{
	enum { ROWS = 3000 };
	static struct msg_dedupe rows[ROWS];
	struct msg_update m = { .dedupe = { rows, ROWS } };
	struct net_frame f = { .kind = NET_FRAME_REQUEST, .method = MSG_update,
	    .id = 1, .arg = 1000 };
	static uint8_t out[200000], in[1000];
	int msg = msg_encode(&msg_type_update, &m, out + NET_HEAD, 190000);
	uint32_t n = NET_HEAD + (uint32_t)msg, all;
	int fd = raw_connect(0);

	ck_assert_int_gt(msg, 20000);
	f.msg_len = (uint32_t)msg;
	net_frame_encode(&f, out);
	all = n + make_echo(out + n, 2, 5);
	raw_login(fd);
	for (unsigned step = 100; step < 40000; step = step * 3 + 1) {
		for (uint32_t at = 0; at < all; at += step)
			raw_send(fd, out + at, all - at < step ? all - at : step);
		for (uint64_t id = 1; id <= 2; id++) {
			raw_reply(fd, &f, in);
			ck_assert_uint_eq(f.id, id);
		}
	}
	close(fd);
}
END_TEST

START_TEST(dies_in_payload)
{
	static uint8_t out[1000];
	struct msg_write m = { .len = MIB };
	uint32_t n = make_request(out, MSG_write, &m, 1, MIB, 0);
	int fd = raw_connect(0);

	raw_login(fd);
	raw_send(fd, out, n);
	raw_send(fd, mine, MIB / 2);
	while (served == 0)
		loop_turn(rig.loop, false);
	close(fd);
	rig_until(&rig, &pull_failed, 1);
	ck_assert_uint_eq(net_server_inflight(rig.server), 0);
	check_alive();
}
END_TEST

START_TEST(stalls_in_payload)
{
	static uint8_t out[1000];
	struct msg_write m = { .len = MIB };
	uint32_t n = make_request(out, MSG_write, &m, 1, MIB, 0);
	int fd = raw_connect(0);

	raw_login(fd);
	raw_send(fd, out, n);
	raw_send(fd, mine, MIB / 2);
	check_closed(fd, "stalled");
	ck_assert_uint_eq(pull_failed, 1);
	ck_assert_ptr_nonnull(strstr(rig.logged, "client is stuck"));
	check_alive();
}
END_TEST

START_TEST(stalls_in_head)
{
	static uint8_t out[1000];
	uint32_t n = make_echo(out, 1, 1);
	int fd = raw_connect(0);

	raw_login(fd);
	raw_send(fd, out, n - 1);
	check_closed(fd, "stalled");
	check_alive();
}
END_TEST

/* One that is idle between requests is not stuck. */
START_TEST(idle_member)
{
	static uint8_t out[1000];
	struct net_frame f;
	int fd = raw_connect(0);

	raw_login(fd);
	for (unsigned i = 0; i < 3; i++) {
		rig_pass(&rig, 300);
		raw_send(fd, out, make_echo(out, i, 1));
		raw_reply(fd, &f, out);
		ck_assert_uint_eq(f.id, i);
	}
	close(fd);
}
END_TEST

static size_t
heap_bytes(void)
{
	return mallinfo2().uordblks + mallinfo2().hblkhd;
}

/* Asks and asks and reads nothing: what that costs us is bounded, and ends. */
START_TEST(never_reads)
{
	static uint8_t out[1000];
	struct msg_read_item item = { .len = MIB };
	struct msg_read m = { .items = { &item, 1 } };
	size_t before, most = 0, sent = 0;
	uint64_t end = wall_ns() + 5 * NS_PER_S;
	int fd = raw_connect(4096);

	raw_login(fd);
	check_alive();
	before = heap_bytes();
	for (uint64_t id = 0; wall_ns() < end; id++) {
		uint32_t n = _i == 0 ? make_request(out, MSG_read, &m, id, 0, MIB) :
		    make_echo(out, id, 7);
		ssize_t k = send(fd, out, n, MSG_NOSIGNAL);
		size_t now;

		if (k < 0 && errno != EAGAIN)
			break;
		if (k > 0)
			sent += (size_t)k;
		if (k > 0 && k < (ssize_t)n)
			raw_send(fd, out + k, n - (uint32_t)k);
		if (id % 64 == 0)
			loop_turn(rig.loop, false);
		now = heap_bytes();
		if (now > before && now - before > most)
			most = now - before;
		ck_assert_uint_le(net_server_inflight(rig.server), 16);
	}
	ck_assert_msg(wall_ns() < end, "still open");
	ck_assert_msg(most < 4 * MIB, "%zu bytes more", most);
	ck_assert_uint_gt(sent, 1000);
	close(fd);
	check_alive();
	if (_i == 0)
		ck_assert_uint_gt(sent_n, 0);
	ck_assert_uint_eq(net_server_inflight(rig.server), 0);
}
END_TEST

/* A narrow pipe cuts replies anywhere: order and bytes must hold. */
START_TEST(slow_reader)
{
	static uint8_t out[1000], in[1000];
	struct msg_read_item item = { .len = 1 };
	struct msg_read m = { .items = { &item, 1 } };
	struct net_frame f;
	int fd = raw_connect(4096);

	raw_login(fd);
	for (uint64_t id = 0; id < 12; id++) {
		uint32_t n = id % 2 == 0 ? make_echo(out, id, id) :
		    make_request(out, MSG_read, &m, id, 0, 100000 + (uint32_t)id);

		raw_send(fd, out, n);
	}
	for (uint64_t id = 0; id < 12; id++) {
		raw_reply(fd, &f, in);
		ck_assert_uint_eq(f.id, id);
		if (id % 2 == 0)
			continue;
		ck_assert_uint_eq(f.bulk_len, 100000 + id);
		memset(mine, 0, f.bulk_len);
		ck_assert_uint_eq(raw_recv(fd, mine, f.bulk_len), f.bulk_len);
		ck_assert_int_eq(memcmp(mine, shelf, f.bulk_len), 0);
	}
	ck_assert_uint_eq(sent_n, 6);
	close(fd);
}
END_TEST

START_TEST(pings)
{
	struct net_frame f = { .kind = NET_FRAME_PING };
	uint8_t ping[NET_HEAD], in[1000];
	int fd = raw_connect(0);

	raw_login(fd);
	net_frame_encode(&f, ping);
	for (unsigned i = 0; i < 3; i++) {
		raw_send(fd, ping, sizeof(ping));
		raw_reply(fd, &f, in);
		ck_assert_uint_eq(f.kind, NET_FRAME_PONG);
	}
	close(fd);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("all");

	if (sodium_init() < 0)
		return 1;
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, broken_member, 0, N(broken));
	tcase_add_test(t, bad_message);
	tcase_add_test(t, dribble);
	tcase_add_test(t, cut_large_message);
	tcase_add_test(t, dies_in_payload);
	tcase_add_test(t, stalls_in_payload);
	tcase_add_test(t, stalls_in_head);
	tcase_add_test(t, idle_member);
	tcase_add_loop_test(t, never_reads, 0, 2);
	tcase_add_test(t, slow_reader);
	tcase_add_test(t, pings);
	return suite_run("tcp_member", t);
}
