/* SPDX-License-Identifier: MIT */
/* rand.h - the only source of randomness: xoshiro256** (Blackman and Vigna, "Scrambled
 * linear pseudorandom number generators", ACM TOMS 2021), seeded by splitmix64.
 * Seeded once from the system in fsd.c, from SEED in the simulator.  Keys and
 * nonces of a real process come from libsodium (net/hello.c), not from here. */
#ifndef CONF_RAND_H
#define CONF_RAND_H

#include <stddef.h>
#include <stdint.h>

struct rand {
	uint64_t s[4];
};

void		rand_seed(struct rand *r, uint64_t seed);
uint64_t	rand_u64(struct rand *r);
/* Uniform in [0, n); n > 0, no modulo bias. */
uint64_t	rand_below(struct rand *r, uint64_t n);
/* True with probability num/den. */
int		rand_chance(struct rand *r, uint32_t num, uint32_t den);
void		rand_bytes(struct rand *r, void *out, size_t len);

#endif
