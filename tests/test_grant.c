/* SPDX-License-Identifier: MIT */
/* test_grant.c - a receiver's window (net/grant.h): its bound, its fairness, and that whatever
 * ends leaves nothing behind. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "conf/rand.h"
#include "net/grant.h"

#define KIB	(1u << 10)
#define MIB	(1u << 20)
#define PEERS	200u
#define CALLS	2000u

static struct net_window w;
static struct net_grant_peer peers[PEERS];
static struct net_grant calls[CALLS];

static void
open_window(uint64_t size)
{
	net_window_init(&w, size);
	for (unsigned i = 0; i < PEERS; i++)
		net_grant_peer_init(&peers[i]);
	memset(calls, 0, sizeof(calls));
}

static void
ends_empty(void)
{
	net_grant_check(&w);
	ck_assert_uint_eq(w.charged, 0);
	ck_assert_uint_eq(w.early, 0);
	ck_assert_uint_eq(w.idle, 0);
	ck_assert_uint_eq(w.waiting, 0);
	ck_assert_uint_eq(w.peers, 0);
	ck_assert(list_empty(&w.ring));
	for (unsigned i = 0; i < PEERS; i++) {
		ck_assert_uint_eq(peers[i].held, 0);
		ck_assert_uint_eq(peers[i].early, 0);
		ck_assert_uint_eq(peers[i].idle, 0);
		ck_assert_uint_eq(peers[i].deficit, 0);
	}
}

static void
end_all(void)
{
	for (unsigned i = 0; i < CALLS; i++)
		net_grant_end(&w, &calls[i]);
	ends_empty();
}

/* Each of the first @n has had about its part of @sum. */
static void
shares_are_even(const char *what, const uint64_t *got, unsigned n, uint64_t sum)
{
	for (unsigned i = 0; i < n; i++)
		ck_assert_msg(got[i] * n > sum / 100 * 80 && got[i] * n < sum / 100 * 120,
		    "%s: server %u has %llu of %llu", what, i,
		    (unsigned long long)got[i], (unsigned long long)sum);
}

/* ---- with the request ---- */

static const struct {
	const char *what;
	uint64_t    size;
	unsigned    peers;		/* ask in turn */
	uint32_t    bytes;
	unsigned    good;		/* of 64 requests */
} earlies[] = {
	{ "half of the window", 32 * MIB, 32, MIB, 16 },
	{ "one server: half as much", 32 * MIB, 1, MIB, 8 },
	{ "two servers: a quarter each", 32 * MIB, 2, 256 * KIB, 64 },
	{ "nothing is too large for an empty one", MIB, 3, 64 * MIB, 1 },
	{ "larger than half, alone", 32 * MIB, 3, 20 * MIB, 1 },
	{ "no limit", 0, 2, 64 * MIB, 64 },
	{ "a small window", 64 * KIB, 64, 17 * KIB, 1 }
};

START_TEST(early)
{
	unsigned good = 0;

	open_window(earlies[_i].size);
	for (unsigned i = 0; i < 64; i++)
		good += net_grant_try(&w, &peers[i % earlies[_i].peers], &calls[i],
		    earlies[_i].bytes);
	ck_assert_msg(good == earlies[_i].good, "%s: %u", earlies[_i].what, good);
	ck_assert_uint_eq(w.charged, (uint64_t)good * earlies[_i].bytes);
	net_grant_check(&w);
	end_all();
}
END_TEST

/* What waits is before what comes. */
START_TEST(early_after_those_that_wait)
{
	open_window(8 * MIB);
	ck_assert(net_grant_try(&w, &peers[0], &calls[0], 6 * MIB));
	net_grant_wait(&w, &peers[1], &calls[1], 4 * MIB);
	ck_assert_ptr_null(net_grant_next(&w));
	ck_assert(!net_grant_try(&w, &peers[2], &calls[2], MIB));
	net_grant_end(&w, &calls[0]);
	ck_assert(!net_grant_try(&w, &peers[2], &calls[2], MIB));
	ck_assert_ptr_eq(net_grant_next(&w), &calls[1]);
	ck_assert(net_grant_try(&w, &peers[2], &calls[2], MIB));
	net_grant_end(&w, &calls[1]);
	net_grant_end(&w, &calls[2]);
	ends_empty();
}
END_TEST

/* ---- every way in which a charge ends ---- */

enum step { TRY, WAIT, NEXT, CAME_ALL, CAME_HALF, CAME_NONE, END };

static const struct {
	const char *what;
	enum step   steps[6];
	unsigned    n;
	uint64_t    charged[6];		/* after each, in KiB */
} ways[] = {
	{ "granted early, came, over", { TRY, CAME_ALL, END }, 3, { 64, 64, 0 } },
	{ "less came", { TRY, CAME_HALF, END }, 3, { 64, 32, 0 } },
	{ "nothing came", { TRY, CAME_NONE, END }, 3, { 64, 0, 0 } },
	{ "failed before it came", { TRY, END }, 2, { 64, 0 } },
	{ "asked, granted, came", { WAIT, NEXT, CAME_ALL, END }, 4, { 0, 64, 64, 0 } },
	{ "granted, less came", { WAIT, NEXT, CAME_HALF, END }, 4, { 0, 64, 32, 0 } },
	{ "granted, failed", { WAIT, NEXT, END }, 3, { 0, 64, 0 } },
	{ "asked, cancelled", { WAIT, END }, 2, { 0, 0 } },
	{ "asked, the server gave up", { WAIT, CAME_NONE, END }, 3, { 0, 0, 0 } },
	{ "ended twice", { TRY, END, END }, 3, { 64, 0, 0 } },
	{ "again", { TRY, END, WAIT, NEXT, CAME_ALL, END }, 6, { 64, 0, 0, 64, 64, 0 } },
	{ "never asked for", { CAME_ALL, END }, 2, { 0, 0 } }
};

START_TEST(ways_to_end)
{
	struct net_grant *g = &calls[0];

	open_window(MIB);
	for (unsigned i = 0; i < ways[_i].n; i++) {
		switch (ways[_i].steps[i]) {
		case TRY:
			ck_assert(net_grant_try(&w, &peers[0], g, 64 * KIB));
			break;
		case WAIT:
			net_grant_wait(&w, &peers[0], g, 64 * KIB);
			break;
		case NEXT:
			ck_assert_ptr_eq(net_grant_next(&w), g);
			break;
		case CAME_ALL:
			net_grant_came(&w, g, 64 * KIB);
			break;
		case CAME_HALF:
			net_grant_came(&w, g, 32 * KIB);
			break;
		case CAME_NONE:
			net_grant_came(&w, g, 0);
			break;
		case END:
			net_grant_end(&w, g);
			break;
		}
		net_grant_check(&w);
		ck_assert_msg(w.charged == ways[_i].charged[i] * KIB, "%s, step %u: %llu",
		    ways[_i].what, i, (unsigned long long)w.charged);
		if (ways[_i].steps[i] >= CAME_ALL)
			ck_assert_uint_eq(w.early, 0);
	}
	ends_empty();
}
END_TEST

/* ---- fairness ---- */

/* Servers that always have more to send, each in calls of one size; what was granted arrives
 * in the order of the grants.  Each has its part, by bytes.  (When a call of some is larger
 * than a part of the window, while others have smaller ones, they get a bit more.) */
static const struct {
	const char *what;
	unsigned    peers;
	uint64_t    size;
	uint32_t    least, step, steps;	/* sizes: peer i has least + i % steps * step */
} crowds[] = {
	{ "alike", 16, 32 * MIB, MIB, 0, 1 },
	{ "alike, more than fit", 200, 32 * MIB, MIB, 0, 1 },
	{ "small and large", 16, 32 * MIB, 64 * KIB, 960 * KIB, 2 },
	{ "all sizes", 20, 64 * MIB, 32 * KIB, 100 * KIB, 20 },
	{ "some larger", 10, 64 * MIB, MIB, 3 * MIB, 3 },
	{ "larger than the window", 5, MIB, 2 * MIB, MIB, 2 },
	{ "a window of a few calls", 50, 256 * KIB, 64 * KIB, 32 * KIB, 2 }
};

static uint32_t
first_size(const struct net_grant_peer *p)
{
	return list_entry(p->queue.next, struct net_grant, node)->bytes;
}

START_TEST(fair)
{
	unsigned n = crowds[_i].peers;
	struct net_grant *under_way[CALLS];
	unsigned head = 0, tail = 0;
	uint64_t got[PEERS] = { 0 }, sum = 0, largest = 0;

	open_window(crowds[_i].size);
	for (unsigned i = 0; i < CALLS / n * n; i++)
		net_grant_wait(&w, &peers[i % n], &calls[i], crowds[_i].least +
		    i % n % crowds[_i].steps * crowds[_i].step);
	for (unsigned i = 0; i < n; i++)
		if (first_size(&peers[i]) > largest)
			largest = first_size(&peers[i]);
	while (sum < 100 * n * (largest > MIB ? largest : MIB)) {
		struct net_grant *g;
		struct net_grant_peer *p;
		uint32_t bytes;

		while ((g = net_grant_next(&w)) != NULL) {
			ck_assert(w.charged <= w.size || w.charged == g->bytes);
			got[g->peer - peers] += g->bytes;
			sum += g->bytes;
			under_way[tail++ % CALLS] = g;
			ck_assert_uint_le(tail - head, CALLS);
		}
		net_grant_check(&w);
		ck_assert_msg(head < tail, "%s: all wait", crowds[_i].what);
		g = under_way[head++ % CALLS];
		p = g->peer;
		bytes = g->bytes;
		net_grant_came(&w, g, bytes);
		net_grant_end(&w, g);
		net_grant_wait(&w, p, g, bytes);
	}
	shares_are_even(crowds[_i].what, got, n, sum);
	end_all();
}
END_TEST

/* What is left beside all parts is given in turn too, and not to one as long as it may have more:
 * also where many end at once, in any order. */
START_TEST(spare_in_turn)
{
	enum { SERVERS = 16, EACH = 16, ROUNDS = 200 };
	struct net_grant *under_way[SERVERS * EACH], *g;
	uint64_t got[PEERS] = { 0 }, sum = 0;
	unsigned n = 0;
	struct rand r;

	rand_seed(&r, (uint64_t)_i);
	open_window(2 * MIB);
	for (unsigned i = 0; i < SERVERS * EACH; i++)
		net_grant_wait(&w, &peers[i % SERVERS], &calls[i], 64 * KIB);
	for (unsigned round = 0; round < ROUNDS; round++) {
		while ((g = net_grant_next(&w)) != NULL) {
			under_way[n++] = g;
			got[g->peer - peers] += g->bytes;
			sum += g->bytes;
		}
		for (unsigned i = 0; i < SERVERS && round == 0; i++)
			ck_assert_uint_eq(got[i], 2 * 64 * KIB);
		ck_assert_uint_gt(w.charged, w.size - 2 * 64 * KIB);
		for (uint64_t k = 1 + rand_below(&r, n); k > 0; k--) {
			unsigned i = (unsigned)rand_below(&r, n);
			struct net_grant_peer *p = under_way[i]->peer;

			g = under_way[i];
			under_way[i] = under_way[--n];
			net_grant_end(&w, g);
			net_grant_wait(&w, p, g, 64 * KIB);
		}
	}
	shares_are_even("in bursts", got, SERVERS, sum);
	end_all();
}
END_TEST

/* Some never send what they were granted: the others go on, with a part of the window that
 * is at least that of one server. */
START_TEST(the_dead_keep_little)
{
	for (unsigned dead = 1; dead <= 8; dead++) {
		unsigned next = 0, granted = 0;
		struct net_grant *g;

		open_window(32 * MIB);
		for (unsigned i = 0; i < dead * 40; i++)
			net_grant_wait(&w, &peers[i % dead], &calls[next++], MIB);
		while (net_grant_next(&w) != NULL)
			;
		ck_assert_uint_le(w.charged, w.size - w.size / (dead + 1) + 2 * MIB);
		for (unsigned i = 0; i < 100; i++) {
			net_grant_wait(&w, &peers[20], &calls[next], MIB);
			while ((g = net_grant_next(&w)) != NULL) {
				ck_assert_ptr_eq(g->peer, &peers[20]);
				net_grant_end(&w, g);
				granted++;
			}
			next++;
		}
		ck_assert_uint_eq(granted, 100);
		end_all();
	}
}
END_TEST

/* One that hangs has let come what it can with requests, and what it asked for; others have half
 * of the window. */
START_TEST(who_hangs_keeps_half)
{
	struct net_grant *g;
	unsigned n = 0;

	open_window(32 * MIB);
	while (net_grant_try(&w, &peers[0], &calls[n], MIB))
		n++;
	for (unsigned i = 0; i < 100; i++)
		net_grant_wait(&w, &peers[0], &calls[n++], MIB);
	while (net_grant_next(&w) != NULL)
		;
	ck_assert_uint_le(peers[0].held, w.size / 2 + MIB);
	for (unsigned i = 0; i < 100; i++) {
		net_grant_wait(&w, &peers[1], &calls[n], 8 * MIB);
		g = net_grant_next(&w);
		ck_assert_ptr_eq(g, &calls[n++]);
		net_grant_end(&w, g);
	}
	end_all();
}
END_TEST

/* Some have to wait for a word before what they were granted moves, as long as it moves
 * afterwards: they get no less for it than the others do.  When all have to, as all. */
static const struct {
	const char *what;
	unsigned    peers, idlers;
	uint64_t    size;
} idlers[] = {
	{ "one", 64, 1, 160 * MIB },
	{ "some", 64, 8, 160 * MIB },
	{ "all", 64, 64, 160 * MIB },
	{ "one of few", 4, 1, 32 * MIB },
};

START_TEST(the_idle_lose_nothing)
{
	unsigned n = idlers[_i].peers, head = 0, tail = 0;
	struct net_grant *under_way[CALLS];
	uint64_t got[PEERS] = { 0 }, sum = 0;

	open_window(idlers[_i].size);
	for (unsigned i = 0; i < 10 * n; i++)
		net_grant_wait(&w, &peers[i % n], &calls[i], MIB);
	while (sum < 40ull * n * MIB) {
		struct net_grant *g;
		struct net_grant_peer *p;

		while ((g = net_grant_next(&w)) != NULL) {
			if (g->peer - peers < (long)idlers[_i].idlers)
				net_grant_idle(&w, g);
			under_way[tail++ % CALLS] = g;
		}
		net_grant_check(&w);
		ck_assert_uint_le(w.charged, w.size);
		ck_assert_uint_le(w.idle, w.size / 4);
		ck_assert_uint_lt(head, tail);
		g = under_way[head++ % CALLS];
		p = g->peer;
		if (g->idle) {
			net_grant_came(&w, g, MIB);
			under_way[tail++ % CALLS] = g;
			continue;
		}
		got[p - peers] += MIB;
		sum += MIB;
		net_grant_end(&w, g);
		net_grant_wait(&w, p, g, MIB);
	}
	shares_are_even(idlers[_i].what, got, n, sum);
	end_all();
}
END_TEST

/* One that needs the whole window gets it, however many small ones come all the time. */
START_TEST(large_ones_are_not_starved)
{
	static const uint32_t sizes[] = { 31 * MIB, 32 * MIB, 64 * MIB };

	for (unsigned k = 0; k < 3; k++) {
		struct net_grant *large = &calls[CALLS - 1], *g;
		unsigned waits = 0;
		bool done = false;

		open_window(32 * MIB);
		for (unsigned i = 0; i < 400; i++)
			net_grant_wait(&w, &peers[1 + i % 20], &calls[i], 256 * KIB);
		while (net_grant_next(&w) != NULL)
			;
		net_grant_wait(&w, &peers[0], large, sizes[k]);
		for (unsigned i = 0; !done && i < 20 * CALLS; i++) {
			struct net_grant *old = &calls[i % 400];
			struct net_grant_peer *p = old->peer;

			if (old->state == NET_GRANT_CHARGED) {
				net_grant_end(&w, old);
				net_grant_wait(&w, p, old, 256 * KIB);
			}
			while ((g = net_grant_next(&w)) != NULL && !done) {
				done = g == large;
				waits++;
			}
		}
		/* As many bytes as it has for each of the others. */
		ck_assert_uint_le(waits, (sizes[k] / (256 * KIB) + 2) * 20);
		ck_assert(done);
		end_all();
	}
}
END_TEST

/* ---- anything ---- */

/* Random calls in random states: bounds hold, and once everything ends nothing waits. */
static void
run_seed(uint64_t seed)
{
	struct rand r;
	uint64_t size;
	unsigned n;

	rand_seed(&r, seed);
	n = 1 + (unsigned)rand_below(&r, 40);
	size = rand_chance(&r, 1, 10) ? 0 : 32 * KIB << rand_below(&r, 11);
	open_window(size);
	for (unsigned i = 0; i < 4000; i++) {
		struct net_grant *g = &calls[rand_below(&r, 300)];
		struct net_grant_peer *p = &peers[rand_below(&r, n)];
		uint32_t bytes = 1 + (uint32_t)rand_below(&r, 1u << rand_below(&r, 23));
		uint64_t what = rand_below(&r, 9);
		uint64_t sum = 0, soon = 0, idle = 0;
		unsigned charged = 0;

		if (g->state == NET_GRANT_IDLE && what < 3)
			net_grant_try(&w, p, g, bytes);
		else if (g->state == NET_GRANT_IDLE)
			net_grant_wait(&w, p, g, bytes);
		else if (what < 4 && bytes <= g->bytes)
			net_grant_came(&w, g, bytes);
		else if (what < 7)
			net_grant_end(&w, g);
		else if (what == 8)
			net_grant_idle(&w, g);
		if (rand_chance(&r, 1, 3))
			while (net_grant_next(&w) != NULL)
				;
		net_grant_check(&w);
		for (unsigned k = 0; k < 300; k++) {
			if (calls[k].state != NET_GRANT_CHARGED)
				continue;
			sum += calls[k].bytes;
			soon += calls[k].early ? calls[k].bytes : 0;
			idle += calls[k].idle ? calls[k].bytes : 0;
			charged++;
		}
		ck_assert_uint_eq(w.charged, sum);
		ck_assert_uint_eq(w.early, soon);
		ck_assert_uint_eq(w.idle, idle);
		ck_assert_msg(size == 0 || sum <= size || charged == 1,
		    "seed %llu: %u calls have %llu of %llu", (unsigned long long)seed,
		    charged, (unsigned long long)sum, (unsigned long long)size);
	}
	/* Each ends, in any order: all that wait are granted. */
	while (w.charged > 0 || w.waiting > 0) {
		unsigned at = (unsigned)rand_below(&r, 300), k;

		while (net_grant_next(&w) != NULL)
			;
		for (k = 0; k < 300; k++)
			if (calls[(at + k) % 300].state == NET_GRANT_CHARGED)
				break;
		ck_assert_msg(k < 300, "seed %llu: %u wait for nothing",
		    (unsigned long long)seed, w.waiting);
		net_grant_end(&w, &calls[(at + k) % 300]);
	}
	ends_empty();
}

START_TEST(any_seed)
{
	const char *only = getenv("SEED"), *more = getenv("N");
	uint64_t first = only != NULL && *only != '\0' ? strtoull(only, NULL, 0) : 1;
	uint64_t n = more != NULL && *more != '\0' ? strtoull(more, NULL, 0) : 100;

	for (uint64_t i = 0; i < n; i++)
		run_seed(first + i);
}
END_TEST

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	Suite *s = suite_create("grant");
	TCase *t = tcase_create("all");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, early, 0, N(earlies));
	tcase_add_test(t, early_after_those_that_wait);
	tcase_add_loop_test(t, ways_to_end, 0, N(ways));
	tcase_add_loop_test(t, fair, 0, N(crowds));
	tcase_add_loop_test(t, spare_in_turn, 0, 10);
	tcase_add_test(t, the_dead_keep_little);
	tcase_add_test(t, who_hangs_keeps_half);
	tcase_add_loop_test(t, the_idle_lose_nothing, 0, N(idlers));
	tcase_add_test(t, large_ones_are_not_starved);
	tcase_add_test(t, any_seed);
	suite_add_tcase(s, t);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
