/* SPDX-License-Identifier: MIT */
/* test_tcp.c - sockets from outside: strangers, broken members, slow ones.  The other end
 * is a raw socket of the test, which turns the loop while it waits. */
#include "tests/net_rig.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <sodium.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net/frame.h"
#include "net/hello.h"

#define MIB	(1u << 20)

static struct rig rig;
static uint8_t *shelf, *mine;		/* 16 MiB each */
static unsigned served, pulled, pull_failed, sent_n, done;
static struct net_req *held[32];
static unsigned held_n;

/* ---- the server ---- */

static void
was_sent(void *arg)
{
	(void)arg;
	sent_n++;
}

static void
write_pulled(struct net_req *req, int rc)
{
	struct msg_write_rep rep = { .len = req->bulk_len };

	if (rc == 0)
		pulled++;
	else
		pull_failed++;
	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
}

static void
handler(void *ctx, struct net_req *req)
{
	(void)ctx;
	served++;
	if (req->method == MSG_write) {
		struct iovec dst = { shelf, req->bulk_len };

		net_pull_start(req, &dst, 1, write_pulled);
	} else if (req->method == MSG_read) {
		struct msg_read_rep rep = { { NULL, 0 } };
		struct net_piece p = { shelf, req->recv_len, 0 };

		net_reply(req, 0, &rep, &p, 1, was_sent, NULL);
	} else if (req->method == MSG_last) {
		held[held_n++] = req;
	} else if (req->method != MSG_committed) {
		net_reply(req, ERR_BAD_METHOD, NULL, NULL, 0, NULL, NULL);
	} else {
		const struct msg_committed *m = req->msg;
		struct msg_committed_rep rep = { m->chunk.ino };

		net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
	}
}

/* ---- a good client beside ---- */

struct ask {
	struct net_call call;
	int	rc;
	uint64_t version;
	uint32_t bulk;
};

static void
asked(struct net_call *c, int rc)
{
	struct ask *a = container_of(c, struct ask, call);

	a->rc = rc;
	a->bulk = c->rep_bulk;
	if (rc == 0 && c->method->id == MSG_committed)
		a->version = ((const struct msg_committed_rep *)c->rep)->version;
	done++;
}

static void
start(struct ask *a, uint16_t method, const void *req, const struct iovec *recv,
    unsigned ms)
{
	struct net_call_opts opts = {
		.deadline_ns = clock_now(rig.cclock) + ms * NS_PER_MS,
		.recv = recv, .recv_n = recv != NULL
	};

	ck_assert_int_eq(net_call_start(&a->call, rig.chub, &rig.addr, method, req,
	    &opts, asked), 0);
}

static void
check_alive(void)
{
	struct msg_committed m = { .chunk = { 17, 0 } };
	struct ask a = { .rc = 1 };
	unsigned before = done;

	start(&a, MSG_committed, &m, NULL, 5000);
	rig_until(&rig, &done, before + 1);
	ck_assert_int_eq(a.rc, 0);
	ck_assert_uint_eq(a.version, 17);
}

/* ---- raw sockets ---- */

static uint64_t
wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static int
raw_connect(int rcvbuf)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	in.sin_port = htons(rig.addr.port);
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (rcvbuf > 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf));
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* All of it, unless the peer closes: then what went. */
static size_t
raw_send(int fd, const void *p, size_t n)
{
	uint64_t end = wall_ns() + 10 * NS_PER_S;
	size_t at = 0;

	while (at < n && wall_ns() < end) {
		ssize_t k = send(fd, (const char *)p + at, n - at, MSG_NOSIGNAL);

		if (k < 0 && errno != EAGAIN)
			break;
		if (k > 0)
			at += (size_t)k;
		loop_turn(rig.loop, false);
	}
	return at;
}

/* @n bytes, or those before the end. */
static size_t
raw_recv(int fd, void *p, size_t n)
{
	uint64_t end = wall_ns() + 10 * NS_PER_S;
	size_t at = 0;

	while (at < n && wall_ns() < end) {
		ssize_t k = recv(fd, (char *)p + at, n - at, 0);

		if (k == 0 || (k < 0 && errno != EAGAIN))
			break;
		if (k > 0)
			at += (size_t)k;
		loop_turn(rig.loop, false);
	}
	return at;
}

/* The server closes it, whatever it says before. */
static void
check_closed(int fd, const char *what)
{
	uint64_t end = wall_ns() + 10 * NS_PER_S;
	char buf[4096];
	ssize_t k;

	do {
		loop_turn(rig.loop, false);
		k = recv(fd, buf, sizeof(buf), 0);
	} while ((k > 0 || (k < 0 && errno == EAGAIN)) && wall_ns() < end);
	ck_assert_msg(k == 0 || (k < 0 && errno == ECONNRESET), "%s: open", what);
	close(fd);
}

/* What a member says first. */
static void
raw_login(int fd)
{
	uint8_t nonce[NET_NONCE] = { 9 }, tag[NET_TAG], in[NET_HELLO2];
	uint8_t out[NET_HELLO_MAX];
	struct net_hello h;
	uint32_t n;

	net_hello_tag(rig.hub_conf.key, NULL, tag);
	net_hello_ask(&h, rig.hub_conf.key, tag, 1, 1, nonce, out);
	ck_assert_uint_eq(raw_send(fd, out, NET_HELLO1), NET_HELLO1);
	ck_assert_uint_eq(raw_recv(fd, in, NET_HELLO2), NET_HELLO2);
	ck_assert_int_eq(net_hello_take(&h, in, NET_HELLO2, nonce, out, &n), 1);
	ck_assert_uint_eq(raw_send(fd, out, n), n);
}

/* A request with no fields but what its message has by itself; bytes. */
static uint32_t
make_request(uint8_t *out, uint16_t method, const void *msg, uint64_t id,
    uint32_t bulk_len, uint32_t room)
{
	struct net_frame f = { .bulk_len = bulk_len, .id = id, .method = method,
	    .kind = NET_FRAME_REQUEST, .arg = 10000, .pieces = room > 0 };
	int n = msg_encode(msg_method(method)->request, msg, out + NET_HEAD, 1000);

	ck_assert_int_ge(n, 0);
	if (room > 0) {
		net_frame_piece_put(out + NET_HEAD + n, 0, room);
		n += 8;
	}
	f.msg_len = (uint32_t)n;
	net_frame_encode(&f, out);
	return NET_HEAD + f.msg_len;
}

static uint32_t
make_echo(uint8_t *out, uint64_t id, uint64_t ino)
{
	struct msg_committed m = { .chunk = { ino, 0 } };

	return make_request(out, MSG_committed, &m, id, 0, 0);
}

/* The next reply's head and message; its payload is left on the socket. */
static void
raw_reply(int fd, struct net_frame *f, uint8_t *head)
{
	ck_assert_uint_eq(raw_recv(fd, head, NET_HEAD), NET_HEAD);
	f->msg_len = head[8] | (uint32_t)head[9] << 8;
	ck_assert_uint_eq(raw_recv(fd, head + NET_HEAD, f->msg_len), f->msg_len);
	ck_assert_int_eq(net_frame_decode(head, NET_HEAD + f->msg_len, f), 0);
}

static void
setup(void)
{
	shelf = malloc(16 * MIB);
	mine = malloc(16 * MIB);
	for (size_t i = 0; i < 16 * MIB; i++)
		shelf[i] = (uint8_t)(i * 2654435761u >> 11);
	memset(mine, 1, 16 * MIB);
	served = pulled = pull_failed = sent_n = done = held_n = 0;
	rig_open(&rig, RIG_TCP, 1);
	rig.conf.hello_ms = 150;
	rig.conf.payload_ms = 200;
	rig.conf.conn_reqs_max = 16;
	rig_serve(&rig, handler, NULL);
}

static void
teardown(void)
{
	rig_close(&rig);
	free(shelf);
	free(mine);
}

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
	net_hello_ask(&h, rig.hub_conf.key, tag, 1, 1, nonce, one);
	raw_send(fd, one, sizeof(one));
	ck_assert_uint_eq(raw_recv(fd, two, sizeof(two)), sizeof(two));
	net_frame_encode(&f, three);
	raw_send(fd, three, sizeof(three));
	check_closed(fd, "wrong proof");
	ck_assert_ptr_nonnull(strstr(rig.logged, "ERR_AUTH"));
	check_alive();
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
fake_login(int fd, const uint8_t *key)
{
	uint8_t nonce[NET_NONCE] = { 5 }, tag[NET_TAG], in[NET_HELLO_MAX];
	uint8_t out[NET_HELLO_MAX];
	struct net_hello h;
	uint32_t n;

	net_hello_tag(key, NULL, tag);
	net_hello_await(&h, key, tag, 1, 1);
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
		ck_assert(!fake_login(fd, key));
	} else if (fakes[_i].act != FAKE_HANG_UP) {
		ck_assert(fake_login(fd, key));
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

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	Suite *s = suite_create("tcp");
	TCase *t = tcase_create("all");
	SRunner *sr = srunner_create(s);
	int failed;

	if (sodium_init() < 0)
		return 1;
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, stranger, 0, N(strangers));
	tcase_add_loop_test(t, stranger_with_lengths, 0, 4);
	tcase_add_test(t, stranger_who_has_listened);
	tcase_add_test(t, silence);
	tcase_add_test(t, crowd);
	tcase_add_test(t, wrong_keys_are_logged_once);
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
	tcase_add_loop_test(t, fake_server, 0, N(fakes));
	tcase_add_test(t, mute_server);
	tcase_add_test(t, no_descriptors);
	tcase_add_test(t, port_in_use);
	tcase_add_test(t, ip_version_6);
	suite_add_tcase(s, t);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
