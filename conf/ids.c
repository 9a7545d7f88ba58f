/* SPDX-License-Identifier: MIT */
/* ids.c - text form of 128-bit ids. */
#include "conf/ids.h"

#include <errno.h>

void
uid128_text(const struct uid128 *u, char out[UID128_TEXT])
{
	static const char digits[] = "0123456789abcdef";

	for (unsigned i = 0; i < 16; i++) {
		out[2 * i] = digits[u->b[i] >> 4];
		out[2 * i + 1] = digits[u->b[i] & 15];
	}
	out[32] = '\0';
}

static int
digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int
uid128_parse(const char *text, struct uid128 *out)
{
	struct uid128 u;

	for (unsigned i = 0; i < 16; i++) {
		int hi = digit(text[2 * i]), lo;

		if (hi < 0 || (lo = digit(text[2 * i + 1])) < 0)
			return -EINVAL;
		u.b[i] = (uint8_t)(hi << 4 | lo);
	}
	if (text[32] != '\0')
		return -EINVAL;
	*out = u;
	return 0;
}
