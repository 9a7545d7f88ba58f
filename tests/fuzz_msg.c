/* SPDX-License-Identifier: MIT */
/* fuzz_msg.c - bytes from a peer that wishes us ill, to every decoder of messages.
 *
 *	fuzz_msg		N (20000) inputs made from the golden bytes, SEED (1)
 *	fuzz_msg FILE ...	each file: byte 0 picks the message, the rest is its bytes
 *
 * What is taken must encode again, to bytes that mean the same; a routing delta is also
 * applied.  Run under sanitizers. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "conf/rand.h"
#include "net/msg_all.h"
#include "net/routing.h"

#define INPUT_MAX	(1u << 16)
#define CORPUS_MAX	256u

static struct {
	unsigned type;
	size_t	 n;
	uint8_t	 p[2000];
} corpus[CORPUS_MAX];
static unsigned corpus_n;
static unsigned long taken;		/* inputs that were understood */

static void
try_routing(const struct msg_routing_rep *m)
{
	static struct routing *r;
	struct msg_arena arena;
	struct msg_routing_rep delta;

	if (r == NULL && routing_open(&r) != 0)
		abort();
	routing_apply(r, m);
	routing_check(r);
	msg_arena_init(&arena, 1 << 22);
	if (routing_delta(r, 0, &arena, &delta) != 0)
		abort();
	msg_arena_fini(&arena);
	routing_close(r);
	r = NULL;
}

static void
try_bytes(const struct msg_type *t, const uint8_t *in, size_t n)
{
	static uint8_t again[2 * INPUT_MAX];
	static char before[4 * INPUT_MAX], after[4 * INPUT_MAX];
	_Alignas(16) char m[1024];
	struct msg_arena arena;
	int bytes;

	assert(t->size <= sizeof(m));
	msg_arena_init(&arena, 1 << 22);
	if (msg_decode(t, in, n, &arena, m, NULL) == 0) {
		taken++;
		msg_print(t, m, before, sizeof(before));
		bytes = msg_encode(t, m, again, sizeof(again));
		assert(bytes >= 0);
		if (t == &msg_type_routing_rep)
			try_routing((struct msg_routing_rep *)(void *)m);
		assert(msg_decode(t, again, (size_t)bytes, &arena, m, NULL) == 0);
		msg_print(t, m, after, sizeof(after));
		assert(strcmp(before, after) == 0);
	}
	msg_arena_fini(&arena);
}

static unsigned
type_count(void)
{
	unsigned n = 0;

	while (msg_type_at(n) != NULL)
		n++;
	return n;
}

static void
read_corpus(void)
{
	FILE *f = fopen("tests/golden/msg.1", "r");
	static char line[8192];
	unsigned byte;

	assert(f != NULL);
	while (corpus_n < CORPUS_MAX && fgets(line, sizeof(line), f) != NULL) {
		char *p = strchr(line, ' ');
		unsigned i = 0;

		assert(p != NULL);
		*p++ = '\0';
		while (msg_type_at(i) != NULL &&
		    strcmp(msg_type_at(i)->name, line) != 0)
			i++;
		if (msg_type_at(i) == NULL)
			continue;
		corpus[corpus_n].type = i;
		for (; sscanf(p, "%2x", &byte) == 1; p += 2)
			if (corpus[corpus_n].n < sizeof(corpus[0].p))
				corpus[corpus_n].p[corpus[corpus_n].n++] =
				    (uint8_t)byte;
		corpus_n++;
	}
	fclose(f);
	assert(corpus_n > 0);
}

/* A few edits: bytes changed, taken out, put in, or parts of another message. */
static size_t
mutate(struct rand *r, uint8_t *p, size_t n, size_t cap)
{
	static const uint8_t tags[] = { 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc4,
	    0xc6, 0xcf, 0xd3, 0xd9, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xff, 0x80 };
	const uint8_t *other;
	size_t at, len, from;

	for (uint64_t edits = 1 + rand_below(r, 6); edits > 0; edits--) {
		at = rand_below(r, n + 1);
		len = 1 + rand_below(r, 8);
		switch (rand_below(r, 5)) {
		case 0:
			if (at < n)
				p[at] = (uint8_t)rand_u64(r);
			break;
		case 1:
			if (at < n)
				p[at] = tags[rand_below(r, sizeof(tags))];
			break;
		case 2:
			if (at + len <= n) {
				memmove(p + at, p + at + len, n - at - len);
				n -= len;
			}
			break;
		case 3:
			n = at;
			break;
		default:
			from = rand_below(r, corpus_n);
			other = corpus[from].p;
			len = rand_below(r, corpus[from].n + 1);
			if (n + len <= cap) {
				memmove(p + at + len, p + at, n - at);
				memcpy(p + at, other, len);
				n += len;
			}
			break;
		}
	}
	return n;
}

static void
try_file(const char *path)
{
	static uint8_t in[INPUT_MAX];
	FILE *f = fopen(path, "r");
	size_t n;

	if (f == NULL) {
		perror(path);
		exit(1);
	}
	n = fread(in, 1, sizeof(in), f);
	fclose(f);
	if (n > 0)
		try_bytes(msg_type_at(in[0] % type_count()), in + 1, n - 1);
}

int
main(int argc, char **argv)
{
	const char *n_text = getenv("N"), *seed_text = getenv("SEED");
	unsigned long n = n_text != NULL && *n_text ? strtoul(n_text, NULL, 10) : 0;
	uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 10) : 0;
	struct rand r;

	for (int i = 1; i < argc; i++)
		try_file(argv[i]);
	if (argc > 1)
		return 0;
	if (n < 20000)
		n = 20000;
	rand_seed(&r, seed != 0 ? seed : 1);
	read_corpus();
	for (unsigned long i = 0; i < n; i++) {
		unsigned from = (unsigned)rand_below(&r, corpus_n);
		size_t len = corpus[from].n;
		/* of its own size, so that a sanitizer sees a read beyond it */
		uint8_t *in = malloc(4096), *exact;

		if (in == NULL)
			return 1;
		memcpy(in, corpus[from].p, len);
		len = mutate(&r, in, len, 4096);
		if ((exact = realloc(in, len + (len == 0))) == NULL)
			return 1;
		try_bytes(msg_type_at(rand_chance(&r, 9, 10) ? corpus[from].type :
		    (unsigned)rand_below(&r, type_count())), exact, len);
		free(exact);
	}
	printf("%lu inputs, %lu understood: passed, 0 failed\n", n, taken);
	return 0;
}
