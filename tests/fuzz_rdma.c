/* SPDX-License-Identifier: MIT */
/* fuzz_rdma.c - what a peer may say over a queue pair and in setting one up, from anywhere.
 *
 *	fuzz_rdma		N (200000, or more) inputs made from good ones, SEED (1)
 *	fuzz_rdma FILE ...	each file: byte 0 says what it is taken for
 *
 * What is believed lies within its bounds and encodes to the very bytes it came from; of the
 * set-up, which skips what it does not know, to what is understood alike. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/rand.h"
#include "net/frame.h"
#include "net/rdma.h"
#include "net/rdma_wire.h"

#define HEAD_MAX	2000u
#define BULK_MAX	(1u << 20)
#define INPUT_MAX	SLOT

static unsigned long taken;		/* inputs that were believed */

static void
same(const uint8_t *in, const uint8_t *again, size_t n)
{
	assert(memcmp(in, again, n) == 0);
	taken++;
}

static void
one_word(const uint8_t *in, uint32_t n)
{
	struct word_head w;
	uint8_t again[PREFIX];

	if (!net_rdma_word_get(in, n, &w))
		return;
	assert(n >= PREFIX && n <= SLOT);
	net_rdma_word_put(again, &w);
	same(in, again, PREFIX);
}

static void
one_record(const uint8_t *in, uint32_t n)
{
	struct row rows[2 * ROWS_MAX];
	uint8_t again[INPUT_MAX];
	struct bytes_writer w;
	struct record r;
	uint32_t sum;

	if (!net_rdma_record_get(in, n, HEAD_MAX, BULK_MAX, &r))
		return;
	assert(r.kind == RECORD_FRAME || (r.number != 0) != (r.answers != 0));
	assert(r.rows == in + RECORD && r.iov_n <= ROWS_MAX && r.room_n <= ROWS_MAX);
	assert(r.head == r.rows + (r.iov_n + r.room_n) * ROW);
	assert(r.head + r.head_len == in + n);
	assert(r.bulk_len <= BULK_MAX && r.head_len <= HEAD_MAX);
	bytes_writer_init(&w, again, sizeof(again));
	net_rdma_record_put(&w, &r);
	same(in, again, RECORD);
	if (!net_rdma_rows_get(r.rows, r.iov_n + r.room_n, rows, &sum))
		return;
	assert(sum <= NET_BULK_MAX);
	net_rdma_rows_put(&w, rows, r.iov_n + r.room_n);
	assert(!w.failed);
	same(in, again, bytes_written(&w));
}

/* Unknown parts may be left out: then what is encoded again is taken for the same. */
static void
one_said(const uint8_t *in, uint32_t n)
{
	struct rdma_said s, again;
	uint8_t out[INPUT_MAX];
	uint32_t len;

	if (!net_rdma_said_get(in, n, &s))
		return;
	assert(s.step >= STEP_ANSWER && s.step <= STEP_GO);
	assert(!s.has_end || (s.end.credits >= CREDITS_MIN &&
	    s.end.credits <= CREDITS_MAX));
	len = net_rdma_said_put(out, sizeof(out), &s);
	assert(len > 0 && net_rdma_said_get(out, len, &again));
	assert(again.step == s.step && again.no == s.no && again.has_end == s.has_end &&
	    again.has_call == s.has_call && again.port == s.port);
	same((const uint8_t *)&s.end, (const uint8_t *)&again.end, sizeof(s.end));
	same(s.token, again.token, TOKEN);
}

static void
one_offer(const uint8_t *in, uint32_t n)
{
	struct rdma_offered o, again;
	uint8_t out[INPUT_MAX];
	uint32_t len;

	if (!net_rdma_offer_get(in, n, &o))
		return;
	assert(o.ports_n <= OFFERED_PORTS && o.addrs_n <= OFFERED_ADDRS);
	for (unsigned i = 0; i < o.ports_n; i++)
		assert(o.ports[i].keys_n <= PKEYS_MAX);
	for (unsigned i = 0; i < o.addrs_n; i++)
		assert(o.addrs[i].port < o.ports_n);
	len = net_rdma_offer_put(out, NET_RDMA_WORDS, &o);
	assert(len > 0 && net_rdma_offer_get(out, len, &again));
	assert(again.ports_n == o.ports_n && again.addrs_n == o.addrs_n);
	same((const uint8_t *)o.addrs, (const uint8_t *)again.addrs,
	    o.addrs_n * sizeof(o.addrs[0]));
}

static void
one(const uint8_t *in, uint32_t n)
{
	/* Exactly as long as it is, so that a sanitizer sees a byte too many. */
	uint8_t *p;

	if (n < 2)
		return;
	if ((p = malloc(n - 1)) == NULL)
		abort();
	memcpy(p, in + 1, n - 1);
	switch (in[0] % 4) {
	case 0:
		one_word(p, n - 1);
		break;
	case 1:
		one_record(p, n - 1);
		break;
	case 2:
		one_said(p, n - 1);
		break;
	default:
		one_offer(p, n - 1);
	}
	free(p);
}

/* ---- inputs ---- */

static void
make_record(struct rand *r, struct bytes_writer *w)
{
	struct net_frame f = { .msg_len = (uint32_t)rand_below(r, 100), .id = 1,
	    .kind = NET_FRAME_REQUEST, .arg = 5 };
	struct record rec = { .kind = RECORD_FRAME, .head_len = NET_HEAD + f.msg_len };
	uint8_t head[NET_HEAD + 100] = { 0 };
	struct row rows[2 * ROWS_MAX];
	unsigned n;

	if (rand_chance(r, 1, 6)) {
		/* or a kind that there is not */
		rec = (struct record){
		    .kind = (uint8_t)(RECORD_DONE + rand_below(r, 3)) };
		*(rec.kind == RECORD_REVOKE ? &rec.number : &rec.answers) =
		    1 + (uint32_t)rand_below(r, 9);
		net_rdma_record_put(w, &rec);
		return;
	}
	rec.iov_n = (uint8_t)rand_below(r, rand_chance(r, 1, 8) ? ROWS_MAX : 4);
	rec.room_n = (uint8_t)rand_below(r, 4);
	n = rec.iov_n + rec.room_n;
	rec.number = n > 0 ? 7 : 0;
	for (unsigned i = 0; i < n; i++) {
		rows[i] = (struct row){ rand_u64(r) >> 1, 1 + (uint32_t)rand_below(r,
		    5000), 3 };
		rec.bulk_len += i < rec.iov_n ? rows[i].len : 0;
	}
	if (rec.iov_n == 0 && rand_chance(r, 1, 2)) {
		rec.flags = RECORD_STREAM;
		rec.bulk_len = 99;
	}
	f.bulk_len = rec.bulk_len;
	net_frame_encode(&f, head);
	net_rdma_record_put(w, &rec);
	net_rdma_rows_put(w, rows, n);
	bytes_put_raw(w, head, rec.head_len);
}

static uint32_t
make_offer(struct rand *r, uint8_t *out, uint32_t room)
{
	struct rdma_offered o = { .ports_n = (unsigned)rand_below(r, OFFERED_PORTS + 1) };

	for (unsigned i = 0; i < o.ports_n; i++)
		o.ports[i] = (struct rdma_offered_port){ .link = LINK_ROCE, .mtu = 3,
		    .lid = 7, .used = 1, .keys_n = (uint8_t)rand_below(r, PKEYS_MAX + 1),
		    .keys = { 0xffff, 0x8001 } };
	if (o.ports_n > 0)
		o.addrs_n = (unsigned)rand_below(r, OFFERED_ADDRS + 1);
	for (unsigned i = 0; i < o.addrs_n; i++)
		o.addrs[i] = (struct rdma_offered_addr){
		    .port = (uint8_t)rand_below(r, o.ports_n), .gid = { 0xfd, 1, 2 } };
	return net_rdma_offer_put(out, room, &o);
}

static uint32_t
make_said(struct rand *r, uint8_t *out, uint32_t room)
{
	struct rdma_said s = { .step = (uint8_t)(STEP_ANSWER + rand_below(r, 3)),
	    .no = rand_chance(r, 1, 6), .why = WHY_LINK,
	    .has_end = rand_chance(r, 4, 5), .has_call = rand_chance(r, 1, 2),
	    .end = { .qpn = 17, .psn = 5, .credits = 32, .mtu = 3, .key = 0xffff },
	    .port = 7700, .token = { 1, 2, 3 } };
	uint32_t n = net_rdma_said_put(out, room, &s);

	if (rand_chance(r, 1, 3)) {	/* a part of a later version */
		static const uint8_t later[] = { 77, 0, 3, 0, 1, 2, 3 };

		memcpy(out + n, later, sizeof(later));
		n += sizeof(later);
	}
	return n;
}

static uint32_t
make(struct rand *r, uint8_t out[INPUT_MAX])
{
	struct word_head word = { .credits = 3,
	    .kind = (uint8_t)(WORD_FIRST + rand_below(r, 5)) };
	struct bytes_writer w;
	uint32_t n;

	bytes_writer_init(&w, out, INPUT_MAX);
	bytes_put_u8(&w, (uint8_t)rand_below(r, 4));
	switch (out[0]) {
	case 0:
		net_rdma_word_put(out + 1, &word);
		w.p += PREFIX;
		if (word.kind != WORD_CREDIT)
			bytes_put_u64(&w, rand_u64(r));
		break;
	case 1:
		make_record(r, &w);
		break;
	case 2:
		w.p += make_said(r, out + 1, INPUT_MAX - 1);
		break;
	default:
		w.p += make_offer(r, out + 1, INPUT_MAX - 1);
	}
	assert(!w.failed);
	n = (uint32_t)bytes_written(&w);
	for (uint64_t k = rand_below(r, 4); k > 0 && n > 1; k--)
		out[1 + rand_below(r, rand_chance(r, 1, 2) && n > 25 ? 24 : n - 1)] =
		    rand_chance(r, 1, 2) ? (uint8_t)rand_u64(r) :
		    (uint8_t)rand_below(r, 3);
	if (rand_chance(r, 1, 8))
		n = 1 + (uint32_t)rand_below(r, n);
	return n;
}

static int
from_file(const char *name)
{
	static uint8_t in[INPUT_MAX];
	FILE *f = fopen(name, "rb");

	if (f == NULL) {
		perror(name);
		return 1;
	}
	one(in, (uint32_t)fread(in, 1, sizeof(in), f));
	fclose(f);
	return 0;
}

int
main(int argc, char **argv)
{
	const char *n = getenv("N"), *seed = getenv("SEED");
	unsigned long runs = n != NULL && *n != '\0' ? strtoul(n, NULL, 0) : 0;
	static uint8_t in[INPUT_MAX];
	struct rand r;

	if (runs < 200000)
		runs = 200000;
	if (argc > 1) {
		int bad = 0;

		for (int i = 1; i < argc; i++)
			bad |= from_file(argv[i]);
		return bad;
	}
	rand_seed(&r, seed != NULL && *seed != '\0' ? strtoull(seed, NULL, 0) : 1);
	for (unsigned long i = 0; i < runs; i++)
		one(in, make(&r, in));
	printf("%lu inputs, %lu believed: passed, 0 failed\n", runs, taken);
	return taken == 0;
}
