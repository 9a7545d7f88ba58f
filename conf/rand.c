/* SPDX-License-Identifier: MIT */
/* rand.c - xoshiro256** and splitmix64. */
#include "conf/rand.h"

#include <assert.h>
#include <string.h>

static uint64_t
rotl(uint64_t x, int k)
{
	return x << k | x >> (64 - k);
}

void
rand_seed(struct rand *r, uint64_t seed)
{
	for (unsigned i = 0; i < 4; i++) {
		uint64_t z = seed += 0x9e3779b97f4a7c15ull;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ z >> 27) * 0x94d049bb133111ebull;
		r->s[i] = z ^ z >> 31;
	}
}

uint64_t
rand_u64(struct rand *r)
{
	uint64_t out = rotl(r->s[1] * 5, 7) * 9, t = r->s[1] << 17;

	r->s[2] ^= r->s[0];
	r->s[3] ^= r->s[1];
	r->s[1] ^= r->s[2];
	r->s[0] ^= r->s[3];
	r->s[2] ^= t;
	r->s[3] = rotl(r->s[3], 45);
	return out;
}

uint64_t
rand_below(struct rand *r, uint64_t n)
{
	uint64_t x, limit;

	assert(n > 0);
	limit = UINT64_MAX - UINT64_MAX % n;	/* a multiple of n */
	do
		x = rand_u64(r);
	while (x >= limit);
	return x % n;
}

int
rand_chance(struct rand *r, uint32_t num, uint32_t den)
{
	return rand_below(r, den) < num;
}

void
rand_bytes(struct rand *r, void *out, size_t len)
{
	uint8_t *p = out;

	while (len > 0) {
		uint64_t x = rand_u64(r);
		size_t n = len < 8 ? len : 8;

		memcpy(p, &x, n);
		p += n;
		len -= n;
	}
}
