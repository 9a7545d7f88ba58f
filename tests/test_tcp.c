/* SPDX-License-Identifier: MIT */
/* test_tcp.c - TCP against strangers, broken servers and the limits of the system. */
#include "tests/suite.h"
#include "tests/tcp_rig.h"

/* ---- strangers ---- */

static const struct {
	const char *what;
	const char *text;		/* NULL: a frame of these fields */
	struct net_frame f;
	bool	    cut;		/* half of it, then no more is sent */
} strangers[] = {
	{ "a browser", "GET / HTTP/1.1\r\nHost: example\r\nAccept: */*\r\n\r\n",
	    { .id = 0 }, false },
	{ "a short word", "hello", { .id = 0 }, true },
	{ "magic and no more", "FSD1", { .id = 0 }, true },
	{ "a request", NULL,
	    { .kind = NET_FRAME_REQUEST, .method = 0x304, .arg = 1 }, false },
	{ "a reply", NULL, { .kind = NET_FRAME_REPLY }, false },
	{ "a ping", NULL, { .kind = NET_FRAME_PING }, false },
	{ "huge message", NULL, { .kind = 1, .msg_len = 0xffffffff }, true },
	{ "a message as members may send", NULL,
	    { .kind = 1, .msg_len = 100000 }, true },
	{ "payload", NULL, { .kind = 1, .msg_len = 56, .bulk_len = 1 }, true },
	{ "hello1 of zeros", NULL, { .kind = 1, .msg_len = 56 }, false },
	{ "short hello1", NULL, { .kind = 1, .msg_len = 55 }, false },
	{ "hello3 first", NULL, { .kind = 3, .msg_len = 32 }, false },
	{ "half a hello", NULL, { .kind = 1, .msg_len = 56 }, true }
};

START_TEST(stranger)
{
	uint8_t out[NET_HEAD + 200] = { 0 };
	struct net_frame f = strangers[_i].f;
	uint32_t body = f.msg_len <= 200 ? f.msg_len : 0;
	int fd = raw_connect(0);

	check_alive();
	if (strangers[_i].text != NULL) {
		raw_send(fd, strangers[_i].text, strlen(strangers[_i].text));
	} else {
		f.msg_len = body;
		net_frame_encode(&f, out);
		if (strangers[_i].f.msg_len != body)
			memcpy(out + 8, &strangers[_i].f.msg_len, 4);
		raw_send(fd, out, strangers[_i].cut ? NET_HEAD : NET_HEAD + body);
	}
	check_closed(fd, strangers[_i].what);
	ck_assert_uint_eq(served, 1);
	check_alive();
}
END_TEST

/* Lengths that only members may send are refused at once, not awaited. */
START_TEST(stranger_with_lengths)
{
	static const struct { uint32_t msg_len, bulk_len; } lengths[] = {
		{ 0xffffffff, 0 }, { 100000, 0 }, { 73, 0 }, { 56, 1 }
	};
	struct net_frame f = { .kind = NET_FRAME_HELLO1 };
	uint8_t out[NET_HEAD];
	int fd;

	net_server_close(rig.server);
	rig.conf.hello_ms = 60000;
	rig_serve(&rig, handler, NULL);
	fd = raw_connect(0);
	net_frame_encode(&f, out);
	memcpy(out + 8, &lengths[_i].msg_len, 4);
	memcpy(out + 12, &lengths[_i].bulk_len, 4);
	raw_send(fd, out, sizeof(out));
	check_closed(fd, "lengths");
}
END_TEST

/* The right first words, and then a proof that is none. */
START_TEST(stranger_who_has_listened)
{
	uint8_t nonce[NET_NONCE] = { 1 }, tag[NET_TAG], one[NET_HELLO1];
	uint8_t two[NET_HELLO2], three[NET_HELLO3] = { 0 };
	struct net_frame f = { .kind = NET_FRAME_HELLO3, .msg_len = NET_PROOF };
	struct net_hello h;
	int fd = raw_connect(0);

	net_hello_tag(rig.hub_conf.key, NULL, tag);
	net_hello_ask(&h, rig.hub_conf.key, tag, NET_WIRE_MIN, NET_WIRE_MIN, nonce, one);
	raw_send(fd, one, sizeof(one));
	ck_assert_uint_eq(raw_recv(fd, two, sizeof(two)), sizeof(two));
	net_frame_encode(&f, three);
	raw_send(fd, three, sizeof(three));
	check_closed(fd, "wrong proof");
	ck_assert_ptr_nonnull(strstr(rig.logged, "ERR_AUTH"));
	check_alive();
}
END_TEST

/* Large payloads are sent from where they are and received into place: nothing is copied but
 * what comes along with a head, less than the loop's small buffer. */
START_TEST(payload_goes_straight)
{
	const struct net_tcp_stat *c, *s;
	struct msg_read m = { .chain = 1 };
	struct ask asks[8] = { { .rc = 1 } };
	struct iovec room[8];

	check_alive();
	c = net_tcp_stats(net_hub_transport(rig.chub, NET_ADDR_TCP4));
	s = net_tcp_stats(net_hub_transport(rig.shub, NET_ADDR_TCP4));
	ck_assert_uint_eq(c->recv_bytes, 0);
	done = 0;
	for (unsigned i = 0; i < 8; i++) {
		room[i] = (struct iovec){ mine + i * MIB, MIB };
		start(&asks[i], MSG_read, &m, &room[i], 30000);
	}
	rig_until(&rig, &done, 8);
	for (unsigned i = 0; i < 8; i++)
		ck_assert(asks[i].rc == 0 && asks[i].bulk == MIB);
	ck_assert(memcmp(mine, shelf, MIB) == 0);
	ck_assert_uint_eq(s->sent_bytes, 8 * MIB);
	ck_assert_uint_eq(c->recv_bytes, 8 * MIB);
	ck_assert_uint_le(c->copied_bytes, 8 * (16u << 10));
	ck_assert_uint_eq(s->copied_bytes, 0);
	ck_assert(c->reads > 0 && s->writes > 0);
}
END_TEST

START_TEST(silence)
{
	int fd = raw_connect(0);

	check_closed(fd, "silent");
	check_alive();
}
END_TEST

/* Strangers that hold all places do not keep a member out. */
START_TEST(crowd)
{
	int fds[150];

	for (unsigned i = 0; i < 150; i++) {
		fds[i] = raw_connect(0);
		loop_turn(rig.loop, false);
	}
	check_alive();
	for (unsigned i = 0; i < 150; i++)
		close(fds[i]);
	check_alive();
}
END_TEST

/* Said once, with a count, not for each. */
START_TEST(wrong_keys_are_logged_once)
{
	struct net_frame f = { .kind = NET_FRAME_HELLO1, .msg_len = 56 };
	uint8_t out[NET_HELLO1] = { 0 };
	const char *first;

	net_frame_encode(&f, out);
	out[NET_HEAD] = out[NET_HEAD + 2] = 1;
	net_frame_encode(&f, out);
	for (unsigned i = 0; i < 5; i++) {
		int fd = raw_connect(0);

		raw_send(fd, out, sizeof(out));
		check_closed(fd, "no key");
	}
	first = strstr(rig.logged, "hello failed");
	ck_assert_ptr_nonnull(first);
	ck_assert_ptr_null(strstr(first + 1, "hello failed"));
}
END_TEST

/* ---- servers that are broken ---- */

static int fake;			/* listening */

static int
fake_open(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	socklen_t n = sizeof(in);

	fake = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(bind(fake, (struct sockaddr *)&in, sizeof(in)), 0);
	ck_assert_int_eq(listen(fake, 10), 0);
	ck_assert_int_eq(getsockname(fake, (struct sockaddr *)&in, &n), 0);
	return ntohs(in.sin_port);
}

static int
fake_accept(void)
{
	int fd;

	while ((fd = accept4(fake, NULL, NULL, SOCK_NONBLOCK)) < 0)
		loop_turn(rig.loop, false);
	return fd;
}

/* Accept a member and let it prove itself, with @key. False: it hung up. */
static bool
fake_login(int fd, const uint8_t *key, uint16_t version)
{
	uint8_t nonce[NET_NONCE] = { 5 }, tag[NET_TAG], in[NET_HELLO_MAX];
	uint8_t out[NET_HELLO_MAX];
	struct net_hello h;
	uint32_t n;

	net_hello_tag(key, NULL, tag);
	net_hello_await(&h, key, tag, version, version);
	ck_assert_uint_eq(raw_recv(fd, in, NET_HELLO1), NET_HELLO1);
	ck_assert_int_eq(net_hello_take(&h, in, NET_HELLO1, nonce, out, &n), 0);
	raw_send(fd, out, n);
	return raw_recv(fd, in, NET_HELLO3) == NET_HELLO3;
}

static uint32_t
make_reply(uint8_t *out, uint64_t id, uint32_t bulk_len, uint32_t dst_off)
{
	struct net_frame f = { .kind = NET_FRAME_REPLY, .id = id,
	    .bulk_len = bulk_len, .pieces = bulk_len > 0, .msg_len = 1 };

	out[NET_HEAD] = 0x90;		/* no fields: all zero */
	if (bulk_len > 0) {
		net_frame_piece_put(out + NET_HEAD + 1, dst_off, bulk_len);
		f.msg_len += 8;
	}
	net_frame_encode(&f, out);
	return NET_HEAD + f.msg_len;
}

static void
start_read(struct ask *a, struct iovec *room)
{
	struct msg_read_item item = { .len = (uint32_t)room->iov_len };
	struct msg_read m = { .items = { &item, 1 } };

	start(a, MSG_read, &m, room, 5000);
}

enum fake_act { FAKE_GARBAGE, FAKE_HANG_UP, FAKE_NO_KEY, FAKE_CUT, FAKE_OUTSIDE,
	FAKE_REQUEST, FAKE_UNKNOWN };

static const struct {
	const char   *what;
	enum fake_act act;
	int	      rc;
} fakes[] = {
	{ "speaks something else", FAKE_GARBAGE, ERR_BAD_MESSAGE },
	{ "hangs up", FAKE_HANG_UP, -ECONNRESET },
	{ "has no key", FAKE_NO_KEY, ERR_AUTH },
	{ "dies in a payload", FAKE_CUT, -ECONNRESET },
	{ "sends outside the room", FAKE_OUTSIDE, -ECONNRESET },
	{ "asks instead of answering", FAKE_REQUEST, -ECONNRESET },
	{ "answers what was not asked, then what was", FAKE_UNKNOWN, 0 }
};

START_TEST(fake_server)
{
	static uint8_t out[1000];
	struct iovec room = { mine, 100000 };
	struct ask a = { .rc = 1 };
	struct net_addr real = rig.addr;
	uint8_t key[NET_KEY_BYTES];
	struct net_frame f;
	uint8_t byte;
	int fd;

	memcpy(key, rig.hub_conf.key, sizeof(key));
	rig.addr.port = (uint16_t)fake_open();
	start_read(&a, &room);
	fd = fake_accept();
	if (fakes[_i].act == FAKE_NO_KEY)
		key[0]++;
	if (fakes[_i].act == FAKE_GARBAGE) {
		raw_send(fd, "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u2\r\n", 40);
	} else if (fakes[_i].act == FAKE_NO_KEY) {
		/* It learns nothing, not even what would have been asked. */
		ck_assert(!fake_login(fd, key, NET_WIRE_MIN));
	} else if (fakes[_i].act != FAKE_HANG_UP) {
		ck_assert(fake_login(fd, key, NET_WIRE_MIN));
		raw_reply(fd, &f, out);
		ck_assert_uint_eq(f.kind, NET_FRAME_REQUEST);
	}
	switch (fakes[_i].act) {
	case FAKE_CUT:
		raw_send(fd, out, make_reply(out, f.id, 100000, 0));
		raw_send(fd, shelf, 50000);
		break;
	case FAKE_OUTSIDE:
		raw_send(fd, out, make_reply(out, f.id, 50000, 50001));
		break;
	case FAKE_REQUEST:
		raw_send(fd, out, make_echo(out, 1, 1));
		break;
	case FAKE_UNKNOWN:
		raw_send(fd, out, make_reply(out, f.id + 1, 70000, 0));
		raw_send(fd, shelf, 70000);
		raw_send(fd, out, make_reply(out, f.id, 100000, 0));
		raw_send(fd, shelf, 100000);
		rig_until(&rig, &done, 1);
		ck_assert_int_eq(memcmp(mine, shelf, 100000), 0);
		break;
	case FAKE_GARBAGE:
	case FAKE_HANG_UP:
	case FAKE_NO_KEY:
		break;
	}
	if (fakes[_i].act == FAKE_CUT || fakes[_i].act == FAKE_HANG_UP)
		close(fd);
	rig_until(&rig, &done, 1);
	ck_assert_msg(a.rc == fakes[_i].rc, "%s: %s", fakes[_i].what,
	    err_name(a.rc));
	if (fakes[_i].act != FAKE_CUT && fakes[_i].act != FAKE_HANG_UP) {
		if (fakes[_i].rc != 0)
			while (raw_recv(fd, &byte, 1) == 1)
				;	/* until it hangs up */
		close(fd);
	}
	close(fake);
	rig.addr = real;
	check_alive();
}
END_TEST

/* Two reads of 100000 bytes, in a window for one; what the server says of the second. */
enum ask_act { ASK_WELL, ASK_NOT, ASK_TWICE, ASK_NO_GRANT, ASK_STRANGER, ASK_FIRST, ASK_OLD };

static const struct {
	const char  *what;
	enum ask_act act;
	uint32_t     bytes;
	int	     rc;
} questions[] = {
	{ "asks, and waits", ASK_WELL, 100000, 0 },
	{ "asks for less", ASK_WELL, 50000, 0 },
	{ "asks for what is free", ASK_WELL, NET_GRANT_SMALL, -ECONNRESET },
	{ "asks for more than there is room", ASK_WELL, 100001, -ECONNRESET },
	{ "asks twice", ASK_TWICE, 100000, -ECONNRESET },
	{ "does not ask", ASK_NOT, NET_GRANT_SMALL + 1, -ECONNRESET },
	{ "does not ask for little", ASK_NOT, NET_GRANT_SMALL, 0 },
	{ "asks, and does not wait", ASK_NO_GRANT, 100000, -ECONNRESET },
	{ "asks for nobody", ASK_STRANGER, 100000, 0 },
	{ "asks for what was granted", ASK_FIRST, 100000, -ECONNRESET },
	{ "has never heard of asking", ASK_OLD, 100000, 0 }
};

static void
say(int fd, uint8_t kind, uint64_t id, uint32_t arg)
{
	struct net_frame f = { .kind = kind, .id = id, .arg = arg };
	uint8_t head[NET_HEAD];

	net_frame_encode(&f, head);
	raw_send(fd, head, sizeof(head));
}

static void
hears(int fd, uint64_t id, uint32_t arg)
{
	static uint8_t head[1000];
	struct net_frame f;

	raw_reply(fd, &f, head);
	ck_assert_uint_eq(f.kind, NET_FRAME_GRANT);
	ck_assert_uint_eq(f.id, id);
	ck_assert_uint_eq(f.arg, arg);
}

static void
push(int fd, uint64_t id, uint32_t bytes)
{
	static uint8_t out[1000];

	raw_send(fd, out, make_reply(out, id, bytes, 0));
	raw_send(fd, shelf, bytes);
}

START_TEST(fake_server_asks)
{
	static uint8_t in[1000];
	struct iovec room = { mine, 100000 };
	struct ask a[2] = { { .rc = 1 }, { .rc = 1 } };
	enum ask_act act = questions[_i].act;
	uint32_t n = questions[_i].bytes, may, len;
	struct net_frame f[2];
	struct net_addr real = rig.addr;
	int fd;

	net_hub_close(rig.chub);
	rig.hub_conf.receive_window = 100000;
	rig.chub = rig_hub(&rig, rig.cclock, 1);
	rig.addr.port = (uint16_t)fake_open();
	for (unsigned i = 0; i < 2; i++)
		start_read(&a[i], &room);
	fd = fake_accept();
	ck_assert(fake_login(fd, rig.hub_conf.key, act == ASK_OLD ? FSD_WIRE - 1 :
	    FSD_WIRE));
	for (unsigned i = 0; i < 2; i++) {
		raw_reply(fd, &f[i], in);
		net_frame_piece(in, &f[i], 0, &may, &len);
		ck_assert_uint_eq(len, 100000);
		ck_assert_uint_eq(may, act == ASK_OLD ? 0 : i == 0 ? len :
		    NET_GRANT_SMALL);
	}
	if (act == ASK_FIRST)
		say(fd, NET_FRAME_ASK, f[0].id, n);
	else if (act == ASK_STRANGER)
		say(fd, NET_FRAME_ASK, f[1].id + 1, n);
	else if (act != ASK_NOT && act != ASK_OLD)
		say(fd, NET_FRAME_ASK, f[1].id, n);
	if (act == ASK_TWICE)
		say(fd, NET_FRAME_ASK, f[1].id, n);
	if (act == ASK_STRANGER)
		hears(fd, f[1].id + 1, 1);
	if (act == ASK_NOT || act == ASK_NO_GRANT || act == ASK_OLD)
		push(fd, f[1].id, n);
	else if (questions[_i].rc == 0 && act == ASK_STRANGER)
		push(fd, f[1].id, 10);
	if (questions[_i].rc == 0) {
		push(fd, f[0].id, 100000);
		if (act == ASK_WELL) {
			hears(fd, f[1].id, 0);
			push(fd, f[1].id, n);
		}
	}
	rig_until(&rig, &done, 2);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_msg(a[i].rc == questions[_i].rc, "%s: %s", questions[_i].what,
		    err_name(a[i].rc));
	ck_assert_uint_eq(net_hub_stats(rig.chub)->granted, 0);
	ck_assert_uint_eq(net_hub_stats(rig.chub)->waiting, 0);
	close(fd);
	close(fake);
	rig.addr = real;
	check_alive();
}
END_TEST

/* It asks for what nobody knows, again and again, and does not read the answers: they do not
 * pile up. */
START_TEST(server_asks_for_ever)
{
	enum { MANY = 4096 };
	static uint8_t out[MANY * NET_HEAD], in[1000];
	struct iovec room = { mine, 100000 };
	struct ask a = { .rc = 1 };
	struct net_addr real = rig.addr;
	struct net_frame f = { .kind = NET_FRAME_ASK, .arg = 100000 };
	unsigned turns = 0;
	int fd;

	rig.addr.port = (uint16_t)fake_open();
	start_read(&a, &room);
	fd = fake_accept();
	ck_assert(fake_login(fd, rig.hub_conf.key, FSD_WIRE));
	raw_reply(fd, &f, in);
	f = (struct net_frame){ .kind = NET_FRAME_ASK, .id = f.id + 1, .arg = 100000 };
	for (unsigned i = 0; i < MANY; i++)
		net_frame_encode(&f, out + i * NET_HEAD);
	while (raw_send(fd, out, sizeof(out)) == sizeof(out))
		ck_assert_uint_lt(++turns, 400);
	rig_until(&rig, &done, 1);
	ck_assert_int_eq(a.rc, -ECONNRESET);
	close(fd);
	close(fake);
	rig.addr = real;
	check_alive();
}
END_TEST

/* A server that is there but says nothing; the call's own deadline ends it. */
START_TEST(mute_server)
{
	struct ask a = { .rc = 1 };
	struct msg_committed m = { .chain = 1 };
	int fd;

	rig.addr.port = (uint16_t)fake_open();
	start(&a, MSG_committed, &m, NULL, 100);
	fd = fake_accept();
	rig_until(&rig, &done, 1);
	ck_assert_int_eq(a.rc, -ETIMEDOUT);
	close(fd);
	close(fake);
}
END_TEST

/* ---- the system's limits ---- */

START_TEST(no_descriptors)
{
	struct rlimit old, low;
	int fd, hog[2000], hog_n = 0;

	check_alive();
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = 200;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
	while (hog_n < 2000 && (hog[hog_n] = dup(0)) >= 0)
		hog_n++;
	{
		struct sockaddr_in in = { .sin_family = AF_INET };

		in.sin_port = htons(rig.addr.port);
		in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		ck_assert_int_eq(connect(fd, (struct sockaddr *)&in,
		    sizeof(in)), 0);
		fcntl(fd, F_SETFL, O_NONBLOCK);
	}
	rig_pass(&rig, 50);
	ck_assert_ptr_nonnull(strstr(rig.logged, "cannot accept"));
	check_alive();			/* who is in stays served */
	while (hog_n > 0)
		close(hog[--hog_n]);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	raw_login(fd);			/* who waited is let in */
	close(fd);
}
END_TEST

START_TEST(port_in_use)
{
	struct net_server_conf conf = rig.conf;
	struct net_server *second = NULL;

	conf.hub = rig.shub;
	conf.listen = rig.addr;
	ck_assert_int_eq(net_server_open(&second, &conf), -EADDRINUSE);
	ck_assert_ptr_null(second);
}
END_TEST

START_TEST(ip_version_6)
{
	net_server_close(rig.server);
	ck_assert_int_eq(net_addr_parse("[::1]:0", 7, &rig.addr, NULL), 0);
	rig_serve(&rig, handler, NULL);
	ck_assert_uint_eq(rig.addr.kind, NET_ADDR_TCP6);
	check_alive();
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
	tcase_add_loop_test(t, stranger, 0, N(strangers));
	tcase_add_loop_test(t, stranger_with_lengths, 0, 4);
	tcase_add_test(t, stranger_who_has_listened);
	tcase_add_test(t, payload_goes_straight);
	tcase_add_test(t, silence);
	tcase_add_test(t, crowd);
	tcase_add_test(t, wrong_keys_are_logged_once);
	tcase_add_loop_test(t, fake_server_asks, 0,
	    (int)(sizeof(questions) / sizeof(questions[0])));
	tcase_add_loop_test(t, fake_server, 0, N(fakes));
	tcase_add_test(t, server_asks_for_ever);
	tcase_add_test(t, mute_server);
	tcase_add_test(t, no_descriptors);
	tcase_add_test(t, port_in_use);
	tcase_add_test(t, ip_version_6);
	return suite_run("tcp", t);
}
