/* SPDX-License-Identifier: MIT */
/* layout.c - which chain holds chunk i of a file.
 *
 * Part of the on-disk format: a file keeps its layout for ever and no chunk's place is
 * stored.  The order of the chains of a table is shuffled per file by its seed:
 *
 *	s = seed
 *	for i = 0 .. stripe-1:
 *		s += 0x9e3779b97f4a7c15			(splitmix64: Steele, Lea,
 *		z  = s						Flood, OOPSLA 2014)
 *		z  = (z ^ z >> 30) * 0xbf58476d1ce4e5b9
 *		z  = (z ^ z >> 27) * 0x94d049bb133111eb
 *		z  =  z ^ z >> 31
 *		swap order[i], order[i + z mod (chains - i)]
 *
 * with order[k] = k before, and chunk i is in slot order[i mod stripe]. */
#include <assert.h>

#include "net/routing.h"

uint32_t
layout_slot(const struct layout *l, uint32_t chains, uint32_t index)
{
	uint32_t swap[LAYOUT_STRIPE_MAX], stripe = l->stripe, want, slot;
	uint64_t s = l->seed;

	assert(chains > 0);
	if (stripe > chains)
		stripe = chains;
	if (stripe > LAYOUT_STRIPE_MAX)
		stripe = LAYOUT_STRIPE_MAX;
	want = stripe > 1 ? index % stripe : 0;
	for (uint32_t i = 0; i <= want; i++) {
		uint64_t z = s += 0x9e3779b97f4a7c15ull;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ z >> 27) * 0x94d049bb133111ebull;
		z ^= z >> 31;
		swap[i] = i + (uint32_t)(z % (chains - i));
	}
	/* Follow the one wanted element back through the swaps, rather than shuffle
	 * a copy of the table: what step i put at @slot came from place i. */
	slot = swap[want];
	for (uint32_t i = want; i-- > 0;)
		if (swap[i] == slot)
			slot = i;
	return slot;
}

chain_id
layout_chain(const struct routing *r, const struct layout *l, uint32_t index)
{
	const struct routing_table *t;

	t = routing_table(r, l->table, l->table_version);
	if (t == NULL || t->chain_n == 0)
		return 0;
	return t->chains[layout_slot(l, t->chain_n, index)];
}

void
layout_of_attr(const struct msg_attr *a, struct layout *out)
{
	*out = (struct layout){
		.table = a->table,
		.table_version = a->table_version,
		.chunk_shift = a->chunk_shift,
		.stripe = a->stripe,
		.seed = a->seed,
	};
}
