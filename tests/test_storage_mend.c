/* SPDX-License-Identifier: MIT */
/* test_storage_mend.c - replicas of one version and different bytes, in storage nodes: one
 * takes the chunk from another when it is told to, and only as it was seen. */
#include "chunk/craq.h"
#include "chunk/state.h"
#include "tests/storage_rig.h"
#include "tests/suite.h"

#define LEN	30000u
#define CHUNK	3u

static struct mem_pool *pool;
static bool stored;

static struct chunk_engine *
engine_of(unsigned k)
{
	target_id target = chain_of(CHUNK)->targets[k];
	struct host *h = &T.nodes[node_of(target) - 1];

	return storage_engine_at(h->storage, (target / 10 - 1) % T.loops);
}

static struct chunk_info
info_of(unsigned k)
{
	struct chunk_info info = { .committed = 0 };

	(void)chunk_engine_info(engine_of(k), chain_of(CHUNK)->targets[k],
	    (struct chunk_id){ INO, CHUNK }, &info);
	return info;
}

static uint32_t
digest(unsigned k)
{
	struct chunk_info info = info_of(k);

	return chunk_craq_digest(&info, info.committed);
}

static void
was_stored(struct chunk_write *cw, int rc)
{
	ck_assert_int_eq(rc, 0);
	ck_assert_int_eq(chunk_engine_commit(cw->engine, cw->target, cw->id,
	    cw->version), 0);
	stored = true;
}

static bool
is_stored(void *ctx)
{
	(void)ctx;
	return stored;
}

/* Replica @k gets other bytes under the same version; they are in order by themselves. */
static void
plant(unsigned k)
{
	struct chunk_write cw = { .target = chain_of(CHUNK)->targets[k],
	    .id = { INO, CHUNK }, .kind = UPDATE_REPLACE, .shift = SHIFT, .epoch = 1,
	    .version = info_of(k).committed, .len = LEN - 77 };

	ck_assert_int_eq(mem_get(pool, LEN, &cw.buf), 0);
	memset(cw.buf.p, 'a' + (int)k, LEN);
	cw.data = cw.buf.p;
	cw.crc = crc32c(0, cw.data, cw.len);
	stored = false;
	chunk_write_start(&cw, engine_of(k), was_stored);
	ck_assert(sim_clock_run_until(T.world, is_stored, NULL, 10 * NS_PER_S));
	mem_put(&cw.buf);
}

static int
mend(unsigned k, unsigned from, uint64_t version)
{
	const struct routing_chain *c = chain_of(CHUNK);
	struct msg_mend m = { c->id, c->version, c->targets[k], { INO, CHUNK },
		version, from < NODES ? c->targets[from] : 999 };

	return call(m.target, MSG_mend, &m, NULL, 0, NULL, 0);
}

static void
setup(void)
{
	uint8_t b[LEN];

	cluster_open(41, 1);
	ck_assert_int_eq(mem_pool_open(&pool, 16u << 20, 0), 0);
	memset(b, 'x', LEN);
	ck_assert_int_eq(put(CHUNK, 0, b, LEN, 1, 0), 0);
	sim_clock_run(T.world, 500 * NS_PER_MS);
}

static void
teardown(void)
{
	mem_pool_close(pool);
	cluster_close();
}

/* Any replica from any other. */
START_TEST(takes)
{
	unsigned wrong = (unsigned)_i % NODES, from = (wrong + 1 + (unsigned)_i / NODES) % NODES;
	uint64_t version = info_of(wrong).committed;
	uint8_t got[LEN];

	plant(wrong);
	ck_assert_uint_ne(digest(wrong), digest(from));
	ck_assert_int_eq(mend(wrong, from, version), 0);
	ck_assert_uint_eq(digest(wrong), digest(from));
	ck_assert_uint_eq(info_of(wrong).committed, version);
	ck_assert_uint_eq(info_of(wrong).pending, 0);
	ck_assert_int_eq(get(wrong, CHUNK, 0, got, LEN), 0);
	ck_assert_int_eq(R.item_rc, 0);
	ck_assert_uint_eq(R.len, LEN);
	for (unsigned i = 0; i < LEN; i++)
		ck_assert_uint_eq(got[i], 'x');
	/* It can be written to, and done again. */
	memset(got, 'y', LEN);
	ck_assert_int_eq(put(CHUNK, 100, got, 5000, 2, 0), 0);
	ck_assert_int_eq(mend(wrong, from, info_of(wrong).committed), 0);
	for (unsigned k = 0; k < NODES; k++)
		ck_assert_uint_eq(digest(k), digest(0));
}
END_TEST

/* From the one that is named, right or not. */
START_TEST(takes_from_that_one)
{
	uint64_t version = info_of(0).committed;

	plant(1);
	plant(2);
	ck_assert_int_eq(mend(0, 2, version), 0);
	ck_assert_uint_eq(digest(0), digest(2));
	ck_assert_int_eq(mend(2, 1, version), 0);
	ck_assert_uint_eq(digest(2), digest(1));
	ck_assert_uint_ne(digest(0), digest(1));
}
END_TEST

START_TEST(refuses)
{
	uint64_t version = info_of(0).committed;
	uint32_t before;
	uint8_t b[100];

	plant(1);
	before = digest(1);
	ck_assert_int_eq(mend(1, 1, version), -EINVAL);
	ck_assert_int_eq(mend(1, 99, version), ERR_BUSY);	/* no such peer */
	ck_assert_int_eq(mend(1, 0, version + 1), -ESTALE);
	ck_assert_int_eq(mend(1, 0, version - 1), -ESTALE);
	ck_assert_uint_eq(digest(1), before);
	/* The chunk goes on meanwhile: what was seen is old. */
	memset(b, 'z', sizeof(b));
	ck_assert_int_eq(mend(1, 0, version), 0);
	ck_assert_int_eq(put(CHUNK, 0, b, sizeof(b), 2, 0), 0);
	ck_assert_int_eq(mend(1, 0, version), -ESTALE);
	/* And when it has gone. */
	ck_assert_int_eq(cut(CHUNK, 0, 0, UINT32_MAX, 100), 0);
	ck_assert_int_ne(mend(1, 0, version + 1), 0);
	ck_assert_uint_eq(info_of(1).committed, 0);
}
END_TEST

int
main(void)
{
	TCase *tc = tcase_create("mend");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, takes, 0, 2 * NODES);
	tcase_add_test(tc, takes_from_that_one);
	tcase_add_test(tc, refuses);
	return suite_run("storage_mend", tc);
}
