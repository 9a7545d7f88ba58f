/* SPDX-License-Identifier: MIT */
/* crc32c.c - three interleaved SSE4.2 streams hide the instruction's latency of three
 * cycles; their results are joined by multiplication in GF(2)[x] (M. Adler's method). */
#include "conf/crc32c.h"

#include <stdbool.h>
#include <string.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

#define POLY	0x82f63b78u		/* reflected */
#define STREAM	1024u			/* bytes per stream and round */

static uint32_t table[8][256];
static uint32_t x2n[64];		/* x^(2^k) modulo the polynomial */
/* Times x^(8*STREAM) and x^(16*STREAM), by the bytes of the other factor. */
static uint32_t shift_one[4][256], shift_two[4][256];
static bool hardware;

/* a times b modulo the polynomial, bits reflected. */
static uint32_t
multiply(uint32_t a, uint32_t b)
{
	uint32_t m = 1u << 31, p = 0;

	/* Without branches: the bits are as good as random. */
	for (; m != 0; m >>= 1) {
		p ^= b & -(uint32_t)((a & m) != 0);
		b = b >> 1 ^ (POLY & -(b & 1));
	}
	return p;
}

/* x^(8*n). */
static uint32_t
power(uint64_t n)
{
	uint32_t p = 1u << 31;		/* x^0 */

	for (unsigned k = 3; n != 0; n >>= 1, k++)
		if (n & 1)
			p = multiply(x2n[k & 63], p);
	return p;
}

static void
make_shift(uint32_t t[4][256], uint32_t by)
{
	for (uint32_t k = 0; k < 4; k++)
		for (uint32_t i = 0; i < 256; i++)
			t[k][i] = multiply(by, i << 8 * k);
}

static uint32_t
software(uint32_t crc, const uint8_t *p, size_t n)
{
	for (; n >= 8; p += 8, n -= 8) {
		uint64_t w;

		memcpy(&w, p, 8);
		w ^= crc;
		crc = table[7][w & 255] ^ table[6][w >> 8 & 255] ^
		    table[5][w >> 16 & 255] ^ table[4][w >> 24 & 255] ^
		    table[3][w >> 32 & 255] ^ table[2][w >> 40 & 255] ^
		    table[1][w >> 48 & 255] ^ table[0][w >> 56];
	}
	while (n-- > 0)
		crc = crc >> 8 ^ table[0][(crc ^ *p++) & 255];
	return crc;
}

#if defined(__x86_64__)
static uint32_t
shift(const uint32_t t[4][256], uint32_t crc)
{
	return t[0][crc & 255] ^ t[1][crc >> 8 & 255] ^ t[2][crc >> 16 & 255] ^
	    t[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t
sse42(uint32_t crc, const uint8_t *p, size_t n)
{
	uint64_t a = crc, w;

	while (n >= 3 * STREAM) {
		uint64_t b = 0, c = 0, x, y, z;

		for (size_t i = 0; i < STREAM; i += 8) {
			memcpy(&x, p + i, 8);
			memcpy(&y, p + STREAM + i, 8);
			memcpy(&z, p + 2 * STREAM + i, 8);
			a = _mm_crc32_u64(a, x);
			b = _mm_crc32_u64(b, y);
			c = _mm_crc32_u64(c, z);
		}
		a = shift(shift_two, (uint32_t)a) ^ shift(shift_one, (uint32_t)b) ^
		    (uint32_t)c;
		p += 3 * STREAM;
		n -= 3 * STREAM;
	}
	for (; n >= 8; p += 8, n -= 8) {
		memcpy(&w, p, 8);
		a = _mm_crc32_u64(a, w);
	}
	while (n-- > 0)
		a = _mm_crc32_u8((uint32_t)a, *p++);
	return (uint32_t)a;
}

/* Emulators do it bit by bit: there tables are faster.  Takes microseconds. */
static bool
instruction_pays(void)
{
	static const uint8_t sample[3 * STREAM];
	uint64_t with = UINT64_MAX, without = UINT64_MAX;
	volatile uint32_t sink = 0;

	for (unsigned i = 0; i < 5; i++) {	/* the best: we may be interrupted */
		uint64_t at = __builtin_ia32_rdtsc(), t;

		sink += sse42(sink, sample, sizeof(sample));
		t = __builtin_ia32_rdtsc() - at;
		with = t < with ? t : with;
		at += t;
		sink += software(sink, sample, sizeof(sample));
		t = __builtin_ia32_rdtsc() - at;
		without = t < without ? t : without;
	}
	return with <= without;
}
#endif

__attribute__((constructor)) static void
init(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ POLY : c >> 1;
		table[0][i] = c;
	}
	for (uint32_t i = 0; i < 256; i++)
		for (int k = 1; k < 8; k++)
			table[k][i] = table[k - 1][i] >> 8 ^
			    table[0][table[k - 1][i] & 255];
	x2n[0] = 1u << 30;		/* x^1 */
	for (int k = 1; k < 64; k++)
		x2n[k] = multiply(x2n[k - 1], x2n[k - 1]);
	make_shift(shift_one, power(STREAM));
	make_shift(shift_two, power(2 * STREAM));
#if defined(__x86_64__)
	__builtin_cpu_init();
	hardware = __builtin_cpu_supports("sse4.2") != 0 && instruction_pays();
#endif
}

uint32_t
crc32c(uint32_t crc, const void *p, size_t n)
{
	crc = ~crc;
#if defined(__x86_64__)
	if (hardware)
		return ~sse42(crc, p, n);
#endif
	return ~software(crc, p, n);
}

uint32_t
crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b)
{
	/* Callers join blocks of one length, many in a row. */
	static _Thread_local uint64_t last_len;
	static _Thread_local uint32_t last_power;

	if (len_b != last_len || last_power == 0) {
		last_len = len_b;
		last_power = power(len_b);
	}
	return multiply(last_power, crc_a) ^ crc_b;
}

uint32_t
crc32c_zeros(uint32_t crc, uint64_t n)
{
	return ~multiply(power(n), ~crc);
}
