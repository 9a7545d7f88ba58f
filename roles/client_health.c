/* SPDX-License-Identifier: MIT */
/* client_health.c - how well storage answers this client. */
#include "roles/client_health.h"

#include "conf/clock.h"

#define AVOID_NS	NS_PER_S	/* after the first failure; doubles ... */
#define AVOID_DOUBLINGS	3u		/* ... so often */
#define USUAL_PERCENT	90u
#define USUAL_EVERY	64u		/* answers between two looks */
#define KEEP		4096u		/* answers that count, about */
#define PAID		1u		/* by every answered read, of ... */
#define COST		20u		/* ... what an extra one costs, ... */
#define OWED_MAX	(16u * COST)	/* ... and the most that may be owed */

/* Times of 2^k us and up, in quarters of the next doubling. */
static unsigned
slot_of(uint64_t ns)
{
	uint64_t us = ns / NS_PER_US, k = 0;
	unsigned slot;

	if (us < 4)
		return (unsigned)us;
	while (us >> (k + 1) != 0)
		k++;
	slot = (unsigned)(4 * (k - 1) + (us >> (k - 2) & 3));
	return slot < CLIENT_HEALTH_SLOTS ? slot : CLIENT_HEALTH_SLOTS - 1;
}

/* The end of a slot. */
static uint64_t
slot_ns(unsigned slot)
{
	uint64_t k = slot / 4 + 1;

	if (slot < 4)
		return (slot + 1) * NS_PER_US;
	return ((4ull + slot % 4 + 1) << (k - 2)) * NS_PER_US;
}

static void
look(struct client_health *h)
{
	uint64_t want = (uint64_t)h->n * USUAL_PERCENT / 100, sum = 0;
	unsigned i = 0;

	while (i < CLIENT_HEALTH_SLOTS - 1 && (sum += h->slots[i]) <= want)
		i++;
	h->usual_ns = slot_ns(i);
	h->fresh = 0;
	if (h->n < KEEP)
		return;
	h->n = 0;
	for (i = 0; i < CLIENT_HEALTH_SLOTS; i++)
		h->n += h->slots[i] /= 2;
}

void
client_health_answered(struct client_health *h, struct client_target *t,
    uint64_t sent_ns, uint64_t now_ns)
{
	t->fails = 0;
	t->avoid_until_ns = 0;
	t->answered_ns = now_ns;
	h->slots[slot_of(now_ns - sent_ns)]++;
	h->n++;
	if (h->owed >= PAID)
		h->owed -= PAID;
	if (++h->fresh >= USUAL_EVERY)
		look(h);
}

void
client_health_failed(struct client_target *t, uint64_t now_ns)
{
	uint32_t n = t->fails < AVOID_DOUBLINGS ? t->fails : AVOID_DOUBLINGS;

	/* Reads that were under way together are one failure. */
	if (now_ns < t->avoid_until_ns)
		return;
	t->fails++;
	t->avoid_until_ns = now_ns + (AVOID_NS << n);
}

bool
client_health_avoid(const struct client_target *t, uint64_t now_ns)
{
	return now_ns < t->avoid_until_ns || (t->fails > 0 && t->inflight > 0);
}

uint64_t
client_health_late_ns(const struct client_health *h, uint64_t least_ns)
{
	return h->usual_ns > least_ns ? h->usual_ns : least_ns;
}

bool
client_health_extra(struct client_health *h)
{
	if (h->owed + COST > OWED_MAX)
		return false;
	h->owed += COST;
	return true;
}
