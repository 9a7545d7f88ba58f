/* SPDX-License-Identifier: MIT */
/* test_arena.c - blocks out of pieces: they never overlap, come together again, and go back. */
#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "conf/arena.h"
#include "conf/mem.h"
#include "conf/rand.h"

#define HELD_MAX 512u

static unsigned pieces, refused;	/* refused: of so many bytes and more; 0: none */
static size_t biggest;

static int
add(void *ctx, void *p, size_t n, void **mark)
{
	(void)ctx;
	ck_assert(n >= ARENA_LEAST && n <= ARENA_MOST);
	ck_assert_uint_eq((uintptr_t)p % n, 0);
	if (refused > 0 && n >= refused)
		return -ENOMEM;
	biggest = n > biggest ? n : biggest;
	*mark = p;
	pieces++;
	return 0;
}

static void
del(void *ctx, void *mark)
{
	(void)ctx;
	memset(mark, 1, 1);		/* it is still there */
	pieces--;
}

static const struct arena_owner owner = { .add = add, .del = del };

/* Every block keeps what was written to its ends while others come and go. */
START_TEST(blocks_do_not_overlap)
{
	struct { uint64_t *p; size_t n; uint64_t mark; } held[HELD_MAX];
	struct rand rand;
	struct arena *a;
	unsigned n = 0;

	pieces = refused = 0;
	rand_seed(&rand, 7 + (uint64_t)_i);
	ck_assert_int_eq(arena_open(&a, &owner, 0), 0);
	for (uint64_t i = 1; i < 20000; i++) {
		if (n < HELD_MAX && (n == 0 || rand_below(&rand, 100) < 52)) {
			size_t size = (size_t)ARENA_MIN << rand_below(&rand, 11);
			uint64_t *p = arena_get(a, size);

			ck_assert_ptr_nonnull(p);
			ck_assert_uint_eq((uintptr_t)p % size, 0);
			held[n].p = p;
			held[n].n = size / sizeof(*p);
			held[n].mark = p[0] = p[size / sizeof(*p) - 1] = i;
			n++;
		} else {
			unsigned k = (unsigned)rand_below(&rand, n);

			ck_assert_uint_eq(held[k].p[0], held[k].mark);
			ck_assert_uint_eq(held[k].p[held[k].n - 1], held[k].mark);
			arena_put(a, held[k].p, held[k].n * sizeof(*held[k].p));
			held[k] = held[--n];
		}
	}
	while (n-- > 0)
		arena_put(a, held[n].p, held[n].n * sizeof(*held[n].p));
	/* All halves have found each other: nothing is kept, so all pieces have gone. */
	ck_assert_uint_eq(pieces, 0);
	arena_close(a);
}
END_TEST

START_TEST(a_whole_piece_splits_and_joins)
{
	struct arena *a;
	void *small[3], *whole;

	pieces = refused = 0;
	ck_assert_int_eq(arena_open(&a, &owner, ARENA_LEAST), 0);
	for (unsigned i = 0; i < 3; i++)
		small[i] = arena_get(a, ARENA_MIN);
	ck_assert_uint_eq(pieces, 1);
	whole = arena_get(a, ARENA_LEAST);
	ck_assert_uint_eq(pieces, 2);
	arena_put(a, whole, ARENA_LEAST);
	for (unsigned i = 0; i < 3; i++)
		arena_put(a, small[i], ARENA_MIN);
	ck_assert_uint_eq(pieces, 1);	/* one is kept */
	whole = arena_get(a, ARENA_LEAST);
	ck_assert_uint_eq(pieces, 1);
	refused = 1;
	ck_assert_ptr_null(arena_get(a, ARENA_MIN));
	arena_put(a, whole, ARENA_LEAST);
	arena_close(a);
	ck_assert_uint_eq(pieces, 0);
}
END_TEST

/* So that it can go back, or be had as one. */
START_TEST(a_whole_piece_is_split_last)
{
	struct arena *a;
	uint8_t *first, *small, *next;

	pieces = refused = 0;
	ck_assert_int_eq(arena_open(&a, &owner, ARENA_LEAST), 0);
	first = arena_get(a, ARENA_LEAST);
	small = arena_get(a, ARENA_MIN);
	ck_assert_uint_eq(pieces, 2);
	arena_put(a, first, ARENA_LEAST);
	next = arena_get(a, ARENA_MIN);
	ck_assert_uint_eq((uintptr_t)next / ARENA_LEAST, (uintptr_t)small / ARENA_LEAST);
	ck_assert_ptr_eq(arena_get(a, ARENA_LEAST), first);
	arena_put(a, first, ARENA_LEAST);
	arena_put(a, small, ARENA_MIN);
	arena_put(a, next, ARENA_MIN);
	ck_assert_uint_eq(pieces, 1);
	arena_close(a);
	ck_assert_uint_eq(pieces, 0);
}
END_TEST

/* Who uses little has little; who uses much tells of few pieces, or of smaller ones when large
 * ones are refused; a block that is larger has a piece of its own. */
START_TEST(pieces_grow)
{
	void *p[512], *more[64], *whole;
	struct arena *a;
	unsigned n = 0;

	biggest = pieces = refused = 0;
	ck_assert_int_eq(arena_open(&a, &owner, 0), 0);
	whole = arena_get(a, ARENA_MIN);
	ck_assert_uint_eq(biggest, ARENA_LEAST);
	arena_put(a, whole, ARENA_MIN);
	ck_assert_uint_eq(pieces, 0);
	whole = arena_get(a, ARENA_MOST);
	ck_assert_uint_eq(biggest, ARENA_MOST);
	memset(whole, 1, ARENA_MOST);
	arena_put(a, whole, ARENA_MOST);
	ck_assert_uint_eq(pieces, 0);
	biggest = 0;
	for (unsigned i = 0; i < 512; i++)
		ck_assert_ptr_nonnull(p[i] = arena_get(a, 1u << 20));
	ck_assert_uint_eq(biggest, ARENA_MOST);
	ck_assert_uint_lt(pieces, 24);
	refused = 2 * ARENA_LEAST;
	ck_assert_ptr_null(arena_get(a, ARENA_MOST));
	for (unsigned had = pieces; pieces == had && n < 64; n++)
		ck_assert_ptr_nonnull(more[n] = arena_get(a, ARENA_LEAST));
	ck_assert_uint_lt(n, 64);
	while (n-- > 0)
		arena_put(a, more[n], ARENA_LEAST);
	for (unsigned i = 0; i < 512; i++)
		arena_put(a, p[i], 1u << 20);
	ck_assert_uint_eq(pieces, 0);
	arena_close(a);
}
END_TEST

START_TEST(a_pool_over_an_arena)
{
	struct mem_pool *pool;
	struct mem_buf b, c;

	pieces = refused = 0;
	ck_assert_int_eq(mem_pool_open(&pool, 1u << 20, 0), 0);
	ck_assert_int_eq(mem_pool_arena(pool, &owner), 0);
	ck_assert_int_eq(mem_get(pool, 5000, &b), 0);
	ck_assert_uint_eq(b.size, 8192);
	ck_assert_int_eq(mem_get(pool, 512u << 10, &c), 0);
	ck_assert_uint_eq(pieces, 1);
	mem_put(&b);
	mem_put(&c);
	mem_pool_close(pool);
	ck_assert_uint_eq(pieces, 0);
}
END_TEST

/* Devices are not asked to forget what was in use lately, and will be again. */
START_TEST(pieces_age)
{
	struct mem_buf bufs[4];
	struct mem_pool *pool;

	pieces = refused = 0;
	ck_assert_int_eq(mem_pool_open(&pool, 8ul * ARENA_LEAST, ARENA_LEAST), 0);
	ck_assert_int_eq(mem_pool_arena(pool, &owner), 0);
	for (unsigned turn = 0; turn < 4; turn++) {
		for (unsigned i = 0; i < 4; i++)
			ck_assert_int_eq(mem_get(pool, ARENA_LEAST, &bufs[i]), 0);
		mem_age(pool);
		for (unsigned i = 0; i < 4; i++)
			mem_put(&bufs[i]);
		ck_assert_uint_eq(pieces, 4);
	}
	mem_age(pool);
	ck_assert_uint_eq(pieces, 4);
	mem_age(pool);
	ck_assert_uint_eq(pieces, 1);		/* as it was asked for */
	mem_pool_close(pool);
	ck_assert_uint_eq(pieces, 0);
}
END_TEST

static unsigned promised;		/* huge pages that are not there when touched */
static bool meddle;			/* there are none, and others map memory meanwhile */
static uint8_t *theirs;

/* Huge pages are refused when what was in their place is gone, and another thread is quick. */
static void *
too_late(void *at, size_t n, int flags)
{
	if ((flags & MAP_FIXED_NOREPLACE) != MAP_FIXED_NOREPLACE)
		munmap(at, n);
	theirs = (void *)syscall(SYS_mmap, at, n, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	ck_assert_ptr_eq(theirs, at);
	memset(theirs, 0x5a, n);
	errno = ENOMEM;
	return MAP_FAILED;
}

/* In place of the library's. */
void *
mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
	if (promised > 0 && (flags & MAP_HUGETLB)) {
		promised--;
		fd = memfd_create("nothing", 0);
		at = (void *)syscall(SYS_mmap, at, n, prot, MAP_SHARED | MAP_FIXED, fd, 0);
		close(fd);
		return at;
	}
	if (meddle && (flags & MAP_HUGETLB))
		return too_late(at, n, flags);
	return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, off);
}

/* Where a container may have no huge pages the system promises them, and kills who uses them. */
START_TEST(huge_pages_that_are_not_there)
{
	struct arena *a;
	uint8_t *p;

	pieces = refused = 0;
	promised = 1;
	ck_assert_int_eq(arena_open(&a, &owner, 0), 0);
	ck_assert_ptr_nonnull(p = arena_get(a, ARENA_LEAST));
	ck_assert_uint_eq(promised, 0);
	memset(p, 1, ARENA_LEAST);
	arena_put(a, p, ARENA_LEAST);
	arena_close(a);
}
END_TEST

/* Memory that another thread maps while huge pages are refused stays its own. */
START_TEST(others_map_memory_too)
{
	static uint8_t want[ARENA_LEAST];
	struct arena *a;
	uint8_t *p;

	pieces = refused = 0;
	memset(want, 0x5a, sizeof(want));
	meddle = true;
	ck_assert_int_eq(arena_open(&a, &owner, 0), 0);
	ck_assert_ptr_nonnull(p = arena_get(a, ARENA_LEAST));
	meddle = false;
	memset(p, 1, ARENA_LEAST);
	ck_assert_int_eq(memcmp(theirs, want, sizeof(want)), 0);
	arena_put(a, p, ARENA_LEAST);
	arena_close(a);
	ck_assert_int_eq(memcmp(theirs, want, sizeof(want)), 0);
	munmap(theirs, ARENA_LEAST);
}
END_TEST

/* What a dying disk may write to for ever is nobody else's, though devices forget it. */
START_TEST(a_pool_with_bytes_left)
{
	struct mem_pool *pool;
	struct mem_buf b, c;
	uint8_t *left;

	pieces = refused = 0;
	ck_assert_int_eq(mem_pool_open(&pool, 1u << 20, 0), 0);
	ck_assert_int_eq(mem_pool_arena(pool, &owner), 0);
	ck_assert_int_eq(mem_get(pool, 5000, &b), 0);
	left = b.p;
	mem_pool_leave(pool);
	mem_put(&b);
	ck_assert_uint_eq(mem_used_bytes(pool), 0);
	ck_assert_int_eq(mem_get(pool, 5000, &c), 0);
	ck_assert_ptr_ne(c.p, left);
	mem_put(&c);
	mem_pool_close(pool);
	ck_assert_uint_eq(pieces, 0);
	memset(left, 1, 5000);		/* it is still there */
	munmap((void *)((uintptr_t)left & ~(uintptr_t)(ARENA_LEAST - 1)), ARENA_LEAST);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("arena");
	TCase *t = tcase_create("arena");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_loop_test(t, blocks_do_not_overlap, 0, 4);
	tcase_add_test(t, a_whole_piece_splits_and_joins);
	tcase_add_test(t, a_whole_piece_is_split_last);
	tcase_add_test(t, pieces_grow);
	tcase_add_test(t, a_pool_over_an_arena);
	tcase_add_test(t, pieces_age);
	tcase_add_test(t, a_pool_with_bytes_left);
	tcase_add_test(t, huge_pages_that_are_not_there);
	tcase_add_test(t, others_map_memory_too);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
