/* SPDX-License-Identifier: MIT */
/* fuzz_frame.c - byte streams from peers that wish us ill, to a server on a real socket.
 *
 *	fuzz_frame		N (3000) streams of damaged frames, SEED (1)
 *	fuzz_frame FILE ...	each file: byte 0 odd: as a member, after its hello; even:
 *				as a stranger; the rest is what it sends
 *
 * After each the server must serve a good client, and hold nothing.  Run under
 * sanitizers. */
#define RIG_NO_CHECK
#include <sodium.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/frame.h"
#include "net/hello.h"
#include "tests/net_rig.h"

#define INPUT_MAX	(1u << 18)

static struct rig rig;
static uint8_t *shelf;
static unsigned served, done;
static struct { struct net_req *req; bool pull; } held[8];

/* ---- a server that does a bit of everything ---- */

static void
nothing(void *arg)
{
	(void)arg;
}

static void
answer(struct net_req *req, int rc)
{
	struct msg_read_rep rep = { { NULL, 0 } };
	struct net_piece p[2] = {
		{ shelf, req->recv_len / 2, 0 },
		{ shelf, req->recv_len - req->recv_len / 2, req->recv_len / 2 }
	};

	if (req->method == MSG_read && req->recv_len <= NET_BULK_MAX)
		net_reply(req, rc, &rep, p, 2, nothing, NULL);
	else
		net_reply(req, rc != 0 ? rc : -ENOENT, NULL, NULL, 0, NULL, NULL);
}

static void
handler(void *ctx, struct net_req *req)
{
	uint64_t what = rand_below(&rig.rand, 6);

	(void)ctx;
	served++;
	if (what == 0) {
		net_req_drop(req);
	} else if (what <= 2) {
		struct iovec dst = { shelf, req->bulk_len };

		net_pull_start(req, &dst, 1, answer);
	} else if (what == 3) {
		unsigned i = (unsigned)rand_below(&rig.rand, 8);

		if (held[i].req != NULL)
			answer(held[i].req, 0);
		held[i].req = req;
	} else {
		answer(req, 0);
	}
}

static void
asked(struct net_call *c, int rc)
{
	(void)c;
	if (rc != -ENOENT)
		abort();
	done++;
}

/* ---- one stream ---- */

static int
connect_raw(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	in.sin_port = htons(rig.addr.port);
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&in, sizeof(in)) != 0)
		abort();
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void
login(int fd)
{
	uint8_t nonce[NET_NONCE] = { 1 }, tag[NET_TAG], in[NET_HELLO2];
	uint8_t out[NET_HELLO_MAX];
	struct net_hello h;
	size_t at = 0;
	uint32_t n;

	net_hello_tag(rig.hub_conf.key, NULL, tag);
	net_hello_ask(&h, rig.hub_conf.key, tag, NET_WIRE_MIN, FSD_WIRE, nonce, out);
	if (write(fd, out, NET_HELLO1) != NET_HELLO1)
		abort();
	while (at < NET_HELLO2) {
		ssize_t k = read(fd, in + at, NET_HELLO2 - at);

		if (k > 0)
			at += (size_t)k;
		loop_turn(rig.loop, false);
	}
	if (net_hello_take(&h, in, NET_HELLO2, nonce, out, &n) != 1 ||
	    write(fd, out, n) != (ssize_t)n)
		abort();
}

static void
try_stream(const uint8_t *in, size_t n)
{
	static uint8_t sink[1 << 16];
	struct net_call call = { .state = 0 };
	struct msg_last m = { .ino = 1 };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(rig.cclock) + 10 * NS_PER_S };
	unsigned before = done, asked_n;
	bool gone = false;
	size_t at = 1;
	int fd;

	if (n == 0)
		return;
	fd = connect_raw();
	if (in[0] & 1)
		login(fd);
	for (unsigned quiet = 0; quiet < 4 && !gone;) {
		ssize_t k = at < n ? send(fd, in + at, n - at, MSG_NOSIGNAL) : 0;

		quiet++;
		if (k > 0) {
			at += (size_t)k;
			quiet = 0;
		}
		loop_turn(rig.loop, false);
		k = recv(fd, sink, sizeof(sink), 0);
		gone = k == 0 || (k < 0 && errno != EAGAIN);
		if (k > 0)
			quiet = 0;
	}
	close(fd);
	for (unsigned i = 0; i < 8; i++) {
		if (held[i].req != NULL)
			answer(held[i].req, 0);
		held[i].req = NULL;
	}
	if (net_call_start(&call, rig.chub, &rig.addr, MSG_last, &m, &opts,
	    asked) != 0)
		abort();
	asked_n = served;
	for (unsigned idle = 0; done == before;) {
		loop_turn(rig.loop, served == asked_n);
		/* The handler may have kept it, or dropped it. */
		for (unsigned i = 0; i < 8; i++)
			if (held[i].req != NULL) {
				answer(held[i].req, 0);
				held[i].req = NULL;
			}
		if (served > asked_n && net_server_inflight(rig.server) == 0 &&
		    ++idle > 50) {
			net_call_cancel(&call);
			break;
		}
	}
}

/* ---- making streams ---- */

static size_t
make_frame(struct rand *r, uint8_t *out)
{
	static const uint16_t methods[] = { MSG_read, MSG_write, MSG_last,
	    MSG_committed, MSG_update, MSG_list, 0x0999, 0xffff };
	struct net_frame f = { .id = rand_below(r, 20), .kind = NET_FRAME_REQUEST,
	    .method = methods[rand_below(r, 8)], .arg = 1 + (uint32_t)rand_below(r,
	    5000) };
	uint8_t *msg = out + NET_HEAD;
	size_t n;

	if (rand_chance(r, 1, 12)) {
		f = (struct net_frame){ .kind = NET_FRAME_PING };
	} else if (rand_chance(r, 1, 6)) {
		/* Of a reply that asked, mostly. */
		f = (struct net_frame){ .kind = NET_FRAME_GRANT,
			.id = rand_below(r, 20), .arg = (uint32_t)rand_below(r, 2) };
		if (rand_chance(r, 1, 30))
			f.arg = (uint32_t)rand_u64(r);
	} else {
		/* A list of zeros reads as any message; or noise. */
		f.msg_len = 1 + (uint32_t)rand_below(r, 12);
		msg[0] = (uint8_t)(0x90 + f.msg_len - 1);
		memset(msg + 1, 0, f.msg_len);
		if (rand_chance(r, 1, 6)) {
			f.msg_len = (uint32_t)rand_below(r, 6000);
			rand_bytes(r, msg, f.msg_len);
		}
		if (rand_chance(r, 1, 3)) {
			net_frame_piece_put(msg + f.msg_len,
			    rand_chance(r, 1, 2) ? (uint32_t)rand_below(r, 100000) : 0,
			    (uint32_t)rand_below(r, 100000));
			f.msg_len += NET_PIECE_BYTES;
			f.pieces = 1;
		}
		if (rand_chance(r, 1, 2))
			f.bulk_len = (uint32_t)rand_below(r, 30000);
	}
	if (rand_chance(r, 1, 20))
		f.kind = (uint8_t)rand_below(r, 12);
	if (rand_chance(r, 1, 20))
		f.pieces = (uint8_t)rand_below(r, 256);
	net_frame_encode(&f, out);
	n = NET_HEAD + f.msg_len;
	memset(out + n, 0x33, f.bulk_len);
	n += f.bulk_len;
	if (rand_chance(r, 1, 15))
		out[rand_below(r, n)] ^= (uint8_t)(1u << rand_below(r, 8));
	if (rand_chance(r, 1, 15))
		n = rand_below(r, n + 1);
	return n;
}

static size_t
make_stream(struct rand *r, uint8_t *out)
{
	unsigned frames = 1 + (unsigned)rand_below(r, 5);
	size_t n = 1;

	out[0] = (uint8_t)!rand_chance(r, 1, 10);
	for (unsigned i = 0; i < frames; i++)
		n += make_frame(r, out + n);
	return n;
}

static unsigned long
number(const char *name, unsigned long otherwise)
{
	const char *s = getenv(name);

	return s != NULL && *s != '\0' ? strtoul(s, NULL, 0) : otherwise;
}

int
main(int argc, char **argv)
{
	static uint8_t in[INPUT_MAX];
	unsigned long n = number("N", 3000);
	struct rand r;

	if (sodium_init() < 0)
		return 1;
	shelf = calloc(1, NET_BULK_MAX);
	rand_seed(&r, number("SEED", 1));
	rig_open(&rig, RIG_TCP, 1);
	rig.log.sink = NULL;
	rig.log.level = LOG_ERROR;
	rig_serve(&rig, handler, NULL);
	for (int i = 1; i < argc; i++) {
		FILE *f = fopen(argv[i], "rb");

		if (f == NULL) {
			perror(argv[i]);
			return 1;
		}
		try_stream(in, fread(in, 1, sizeof(in), f));
		fclose(f);
	}
	for (unsigned long i = 0; argc == 1 && i < n; i++)
		try_stream(in, make_stream(&r, in));
	printf("fuzz_frame: %lu streams, %u requests served\n",
	    argc == 1 ? n : (unsigned long)argc - 1, served);
	rig_close(&rig);
	free(shelf);
	return 0;
}
