/* SPDX-License-Identifier: MIT */
/* storage_moves.h - chunks that are filled before chains move, and looked at in every replica
 * after that. Static functions: each test is one program. */
#ifndef TESTS_STORAGE_MOVES_H
#define TESTS_STORAGE_MOVES_H

#include "tests/storage_rig.h"
#include "tests/suite.h"

static void
fill(uint32_t from, uint32_t to, uint8_t byte)
{
	static uint8_t a[1 << SHIFT];

	memset(a, byte, sizeof(a));
	for (uint32_t i = from; i < to; i++)
		ck_assert_int_eq(put(i, 0, a, i % 7 == 0 ? 100 : sizeof(a),
		    (uint64_t)byte << 32 | (i + 1), 0), 0);
}

/* Replica @r of every chain has chunks [@from, @to) as filled. */
static void
filled(unsigned r, uint32_t from, uint32_t to, uint8_t byte)
{
	static uint8_t b[1 << SHIFT];

	for (uint32_t i = from; i < to; i++) {
		/* A stream from before a host lost its power breaks first. */
		if (get(r, i, 0, b, sizeof(b)) == -ECONNRESET)
			(void)get(r, i, 0, b, sizeof(b));
		ck_assert_int_eq(R.rc, 0);
		ck_assert_msg(R.item_rc == 0, "chunk %u: %s", i, err_name(R.item_rc));
		ck_assert_uint_ge(R.len, i % 7 == 0 ? 100 : sizeof(b));
		ck_assert_uint_eq(b[0], byte);
		ck_assert_uint_eq(b[99], byte);
		if (i % 7 != 0)
			ck_assert_uint_eq(b[sizeof(b) - 1], byte);
	}
}

static unsigned
node_at(uint32_t index, unsigned pos)
{
	return node_of(chain_of(index)->targets[pos]);
}

static bool
chain_has(void *ctx)
{
	return count(chain_of(0), *(uint8_t *)ctx) > 0;
}

static void
wait_state(uint8_t state)
{
	ck_assert(sim_clock_run_until(T.world, chain_has, &state, 30 * NS_PER_S));
	sim_clock_run(T.world, 20 * NS_PER_MS);
}

#endif
