/* SPDX-License-Identifier: MIT */
/* client_stripe.c - a range of a file as pieces of chunks. */
#include "roles/client_stripe.h"

#include <assert.h>
#include <errno.h>

int
client_stripe_init(struct client_stripe *s, uint8_t shift, uint64_t off,
    uint64_t len, uint32_t most)
{
	assert(shift > 0 && shift < 32);
	assert((most & (most - 1)) == 0);
	if (off + len < off || off + len > (uint64_t)1 << (32 + shift))
		return -EFBIG;
	*s = (struct client_stripe){ .off = off, .end = off + len, .start = off,
		.shift = shift, .most = most };
	if (most == 0 || most > 1u << shift)
		s->most = 1u << shift;
	return 0;
}

bool
client_stripe_next(struct client_stripe *s, struct client_piece *out)
{
	uint64_t left = s->end - s->off;
	uint32_t room = s->most - (uint32_t)(s->off & (s->most - 1));

	if (left == 0)
		return false;
	out->index = (uint32_t)(s->off >> s->shift);
	out->offset = (uint32_t)(s->off & (((uint64_t)1 << s->shift) - 1));
	out->len = left < room ? (uint32_t)left : room;
	out->pos = s->off - s->start;
	s->off += out->len;
	return true;
}

uint64_t
client_stripe_count(uint8_t shift, uint64_t off, uint64_t len)
{
	if (len == 0)
		return 0;
	return ((off + len - 1) >> shift) - (off >> shift) + 1;
}
