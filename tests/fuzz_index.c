/* SPDX-License-Identifier: MIT */
/* fuzz_index.c - index rows from anywhere, with a crc that fits.
 *
 *	fuzz_index		N (20000, or more) inputs made from good rows, SEED (1)
 *	fuzz_index FILE ...	each file: a key of 17 bytes, then a value
 *
 * What is understood must be in bounds and encode to the very bytes it came from (joined
 * extents excepted); a pending row that applies must give a row that encodes. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/index.h"
#include "conf/crc32c.h"
#include "conf/err.h"
#include "conf/rand.h"

static struct chunk_row row, base, applied;
static struct chunk_pend pend;
static uint8_t in[CHUNK_ROW_MAX + 64], again[CHUNK_ROW_MAX];
static unsigned long taken, fitted;

static void
known(int rc)
{
	assert(rc == 0 || rc == ERR_DISK_DAMAGED || rc == ERR_DISK_NEWER || rc == -ENOMEM);
}

static void
one(const uint8_t key[CHUNK_KEY_BYTES], const uint8_t *value, size_t len)
{
	struct chunk_extents freed = { 0 };
	size_t n;
	int rc;

	if (key[0] == CHUNK_KEY_COMMITTED) {
		known(rc = chunk_row_decode(key, value, len, true, &row));
		if (rc != 0)
			return;
		taken++;
		assert(chunk_extents_valid(&row.extents, 1u << (row.shift - 12),
		    CHUNK_DISK_BLOCKS_MAX));
		n = chunk_row_encode(&row, key, again);
		assert(n <= len && (n < len || memcmp(again, value, n) == 0));
		return;
	}
	known(rc = chunk_pend_decode(key, value, len, true, &pend));
	if (rc != 0)
		return;
	taken++;
	n = chunk_pend_encode(&pend, key, again);
	assert(n <= len && (n < len || memcmp(again, value, n) == 0));
	if (pend.flags & CHUNK_ROW_REMOVED)
		return;
	known(rc = chunk_row_apply(&base, &pend, &applied, &freed));
	if (rc == 0) {
		fitted++;
		assert(chunk_extents_valid(&applied.extents, CHUNK_EXTENTS_MAX,
		    CHUNK_DISK_BLOCKS_MAX));
		chunk_row_encode(&applied, key, again);
		assert(chunk_extents_blocks(&base.extents) +
		    chunk_extents_blocks(&pend.extents) ==
		    chunk_extents_blocks(&applied.extents) + chunk_extents_blocks(&freed));
	}
	chunk_extents_fini(&freed);
}

/* The row that pending ones build on; the same for all. */
static void
make_base(void)
{
	base.shift = 16;
	base.version = 5;
	base.len = 40000;
	base.crc_n = chunk_blocks(base.len, CHUNK_BLOCK);
	chunk_extents_add(&base.extents, (struct chunk_extent){ 0, 3, 300 });
	chunk_extents_add(&base.extents, (struct chunk_extent){ 5, 11, 400 });
}

static size_t
make(struct rand *r, uint8_t key[CHUNK_KEY_BYTES])
{
	bool committed = rand_chance(r, 1, 2);
	size_t len;
	uint32_t crc, disk = 1000;

	chunk_key_encode(committed ? CHUNK_KEY_COMMITTED : CHUNK_KEY_PENDING, 1,
	    (struct chunk_id){ rand_u64(r), 1 }, key);
	if (committed) {
		row = (struct chunk_row){ .extents = row.extents };
		row.shift = (uint8_t)(16 + rand_below(r, 11));
		row.version = 1 + rand_below(r, 9);
		row.len = (uint32_t)rand_below(r, 20 * chunk_sum_bytes(row.shift));
		if (row.len > 1u << row.shift)
			row.len = 1u << row.shift;
		row.crc_n = chunk_blocks(row.len, chunk_sum_bytes(row.shift));
		row.dedupe_n = (uint32_t)rand_below(r, CHUNK_DEDUPE_MAX + 1);
		row.extents.n = 0;
		for (uint32_t at = 0; at < 15 && rand_chance(r, 3, 4); at += 3, disk += 9)
			chunk_extents_add(&row.extents, (struct chunk_extent){ at,
			    1 + (uint32_t)rand_below(r, 3), disk });
		len = chunk_row_encode(&row, key, in);
	} else {
		pend = (struct chunk_pend){ .extents = pend.extents, .shift = 16,
		    .version = 6, .base = 5, .keep = (uint32_t)rand_below(r, 17) };
		pend.len = (uint32_t)rand_below(r, 65537);
		pend.first = (uint32_t)rand_below(r,
		    chunk_blocks(pend.len, CHUNK_BLOCK) + 1ull);
		pend.crc_n = chunk_blocks(pend.len, CHUNK_BLOCK) - pend.first;
		pend.dedupe_n = (uint32_t)rand_below(r, 2);
		pend.extents.n = 0;
		for (uint32_t at = 0; at < 15 && rand_chance(r, 3, 4); at += 3, disk += 9)
			chunk_extents_add(&pend.extents, (struct chunk_extent){ at,
			    1 + (uint32_t)rand_below(r, 3), disk });
		len = chunk_pend_encode(&pend, key, in);
	}
	for (uint64_t n = rand_below(r, 4); n > 0; n--) {
		if (rand_chance(r, 1, 8))
			len = rand_below(r, len + 40);
		else if (len > 4)
			in[4 + rand_below(r, len - 4)] = rand_chance(r, 1, 2) ?
			    (uint8_t)rand_u64(r) : 0xff;
	}
	if (len >= 4) {
		crc = crc32c(crc32c(0, key, CHUNK_KEY_BYTES), in + 4, len - 4);
		for (unsigned i = 0; i < 4; i++)
			in[i] = (uint8_t)(crc >> 8 * i);
	}
	return len;
}

int
main(int argc, char **argv)
{
	const char *n = getenv("N"), *seed = getenv("SEED");
	unsigned long runs = n != NULL && *n != '\0' ? strtoul(n, NULL, 0) : 0;
	uint8_t key[CHUNK_KEY_BYTES] = { 0 };
	struct rand r;

	if (runs < 20000)
		runs = 20000;
	make_base();
	for (int i = 1; i < argc; i++) {
		FILE *f = fopen(argv[i], "rb");

		if (f == NULL || fread(key, 1, sizeof(key), f) != sizeof(key))
			perror(argv[i]);
		else
			one(key, in, fread(in, 1, sizeof(in), f));
		if (f != NULL)
			fclose(f);
	}
	rand_seed(&r, seed != NULL && *seed != '\0' ? strtoull(seed, NULL, 0) : 1);
	for (unsigned long i = 0; argc <= 1 && i < runs; i++) {
		uint8_t *copy;
		size_t len = make(&r, key);

		copy = malloc(len + 1);		/* of its own: a read too far is seen */
		assert(copy != NULL);
		memcpy(copy, in, len);
		one(key, copy, len);
		free(copy);
	}
	if (argc <= 1)
		printf("%lu inputs, %lu understood, %lu applied: passed, 0 failed\n", runs, taken,
		    fitted);
	chunk_row_fini(&row);
	chunk_row_fini(&base);
	chunk_row_fini(&applied);
	chunk_pend_fini(&pend);
	return argc <= 1 && (taken == 0 || fitted == 0);
}
