/* SPDX-License-Identifier: MIT */
/* fuzz_label.c - the first bytes of a disk from anywhere.
 *
 *	fuzz_label		N (20000, or more) inputs made from good labels, SEED (1)
 *	fuzz_label FILE ...	each file as it is
 *
 * What is believed must encode to the very bytes it came from. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/label.h"
#include "conf/crc32c.h"
#include "conf/err.h"
#include "conf/rand.h"

#define BYTES	(CHUNK_LABEL_COPIES * CHUNK_LABEL_BYTES)

static unsigned long taken;		/* inputs that were believed */

static void
one(const uint8_t in[BYTES])
{
	uint8_t again[CHUNK_LABEL_BYTES];
	struct chunk_label l;
	unsigned stale, good = CHUNK_LABEL_COPIES;
	int rc = chunk_label_choose(in, &l, &stale);

	assert(rc == 0 || rc == ERR_DISK_FOREIGN || rc == ERR_DISK_DAMAGED ||
	    rc == ERR_DISK_NEWER);
	if (rc != 0)
		return;
	taken++;
	assert(stale < 3);
	chunk_label_encode(&l, again);
	for (unsigned i = 0; i < CHUNK_LABEL_COPIES; i++)
		if (!(stale >> i & 1)) {
			assert(memcmp(in + i * CHUNK_LABEL_BYTES, again,
			    CHUNK_LABEL_BYTES) == 0);
			good = i;
		}
	assert(good < CHUNK_LABEL_COPIES);
}

static void
reseal(uint8_t *b)
{
	uint32_t crc = crc32c(0, b + 12, CHUNK_LABEL_BYTES - 12);

	for (unsigned i = 0; i < 4; i++)
		b[8 + i] = (uint8_t)(crc >> 8 * i);
}

static void
make(struct rand *r, uint8_t out[BYTES])
{
	struct chunk_label l = { .disk_id = { { 1 } }, .data_bytes = 64 << 20 };

	for (unsigned i = 0; i < CHUNK_LABEL_COPIES; i++) {
		uint8_t *b = out + i * CHUNK_LABEL_BYTES;

		l.epoch = 1 + rand_below(r, 3);
		chunk_label_encode(&l, b);
		for (uint64_t n = rand_below(r, 4); n > 0; n--)
			b[rand_below(r, rand_chance(r, 4, 5) ? 56 : CHUNK_LABEL_BYTES)] ^=
			    (uint8_t)(1u << rand_below(r, 8));
		if (rand_chance(r, 2, 3))
			reseal(b);
		if (rand_chance(r, 1, 20))
			rand_bytes(r, b, CHUNK_LABEL_BYTES);
	}
}

int
main(int argc, char **argv)
{
	static uint8_t in[BYTES];
	const char *n = getenv("N"), *seed = getenv("SEED");
	unsigned long runs = n != NULL && *n != '\0' ? strtoul(n, NULL, 0) : 0;
	struct rand r;

	if (runs < 20000)
		runs = 20000;
	for (int i = 1; i < argc; i++) {
		FILE *f = fopen(argv[i], "rb");

		memset(in, 0, sizeof(in));
		if (f == NULL || fread(in, 1, sizeof(in), f) == 0)
			perror(argv[i]);
		if (f != NULL)
			fclose(f);
		one(in);
	}
	if (argc > 1)
		return 0;
	rand_seed(&r, seed != NULL && *seed != '\0' ? strtoull(seed, NULL, 0) : 1);
	for (unsigned long i = 0; i < runs; i++) {
		make(&r, in);
		one(in);
	}
	printf("%lu inputs, %lu believed: passed, 0 failed\n", runs, taken);
	return taken == 0;
}
