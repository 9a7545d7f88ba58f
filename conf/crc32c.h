/* SPDX-License-Identifier: MIT */
/* crc32c.h - CRC-32C (Castagnoli, RFC 3720 appendix B.4): SSE4.2 with three streams
 * where the CPU has it and is fast at it, tables elsewhere; both give the same values. */
#ifndef CONF_CRC32C_H
#define CONF_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continue @crc (0 to start) over @n bytes; crc32c(0, "123456789", 9) is
 * 0xe3069283. */
uint32_t	crc32c(uint32_t crc, const void *p, size_t n);
/* The crc of A followed by B, from the crc of each and the length of B. */
uint32_t	crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b);
/* The crc of @n zero bytes after @crc. */
uint32_t	crc32c_zeros(uint32_t crc, uint64_t n);

#endif
