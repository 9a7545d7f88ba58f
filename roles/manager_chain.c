/* SPDX-License-Identifier: MIT */
/* manager_chain.c - the table of what becomes of replicas, and its evaluation.
 *
 * Invariants (manager_chain_step asserts those of its result):
 *  1  The states never go down along the chain; at most one replica is SYNCING and only
 *     if one serves; at most one is LASTSRV and only if none serves.
 *  2  Who serves and stays alive goes on serving, in the same order, but for ROTATE, PART,
 *     UNFIT and REPLACE, which leave another one that does.
 *  3  A replica serves only if it did, by SYNCED, by ACCEPT, or as the LASTSRV that came
 *     back; so at any time each of them has every acknowledged write (but for ACCEPT).
 *  4  Looking again changes nothing.
 *  5  The version rises by one when anything was changed. */
#include "roles/manager_chain.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "conf/err.h"

/* What a line of the table asks of a replica and of the others. */
enum {
	ALIVE  = 1,
	GONE   = 2,
	NAMED  = 4,		/* by the event */
	OTHER  = 8,		/* another one that is alive serves */
	OTHERS = 16,		/* two others do */
	ALONE  = 32,		/* none does */
	TAIL   = 64,		/* it is the last that serves */
	TURN   = 128,		/* nobody syncs, and it is the first that could */
	FREE   = 256		/* it is not held, or nobody else serves */
};

/*	from     event    asks                    to       what */
#define TABLE(X) \
	X(SERVING, LOOK,    GONE | OTHER,           OFFLINE, "gone, others serve on") \
	X(SERVING, LOOK,    GONE | TAIL,            LASTSRV, "gone, the last one") \
	X(SERVING, LOOK,    GONE,                   OFFLINE, "gone together with the tail") \
	X(LASTSRV, LOOK,    ALIVE,                  SERVING, "back with everything") \
	X(SYNCING, LOOK,    GONE,                   OFFLINE, "gone while it synced") \
	X(SYNCING, LOOK,    ALONE,                  WAITING, "nobody to copy from") \
	X(WAITING, LOOK,    GONE,                   OFFLINE, "gone while it waited") \
	X(APART,   LOOK,    GONE,                   OFFLINE, "gone while apart") \
	X(APART,   LOOK,    ALONE,                  WAITING, "nobody to be apart from") \
	X(WAITING, LOOK,    ALIVE | TURN,           SYNCING, "its turn") \
	X(OFFLINE, LOOK,    ALIVE | TURN,           SYNCING, "back, its turn") \
	X(OFFLINE, LOOK,    ALIVE | FREE,           WAITING, "back") \
	X(SYNCING, SYNCED,  NAMED,                  SERVING, "has everything") \
	X(SYNCING, UNFIT,   NAMED,                  OFFLINE, "does not take it") \
	X(SERVING, UNFIT,   NAMED | OTHER,          OFFLINE, "has no space for what others have") \
	X(SERVING, ROTATE,  NAMED | OTHERS,         OFFLINE, "out of place") \
	X(SERVING, PART,    NAMED | OTHER,          APART,   "cut from a neighbour") \
	X(SYNCING, PART,    NAMED,                  APART,   "cut from who syncs it") \
	X(APART,   JOIN,    NAMED,                  OFFLINE, "can be reached again") \
	X(WAITING, ACCEPT,  NAMED | ALIVE | ALONE,  SERVING, "taken for everything") \
	X(LASTSRV, ACCEPT,  ALONE,                  OFFLINE, "given up") \
	X(SERVING, REPLACE, NAMED | OTHER,          OFFLINE, "replaced while it served") \
	X(SYNCING, REPLACE, NAMED,                  OFFLINE, "replaced while it synced") \
	X(WAITING, REPLACE, NAMED,                  OFFLINE, "replaced while it waited") \
	X(OFFLINE, REPLACE, NAMED,                  OFFLINE, "replaced") \
	X(APART,   REPLACE, NAMED,                  OFFLINE, "replaced while apart")

static const struct line {
	uint8_t event;
	uint16_t asks;
} lines[] = {
#define LINE(from, event, asks, to, what) { MANAGER_CHAIN_##event, asks },
	TABLE(LINE)
#undef LINE
};
/* Tests alone read the counts; they are of the one thread of a manager. */
static struct manager_chain_line public[] = {
#define LINE(from, event, asks, to, what) { TARGET_##from, TARGET_##to, what, 0 },
	TABLE(LINE)
#undef LINE
};
#define LINES (sizeof(lines) / sizeof(lines[0]))
_Static_assert(LINES <= 32, "chain.taken");

struct replica {
	target_id id;
	uint8_t	  state;
	bool	  alive, reborn, held, named;
};

struct chain {
	struct replica r[ROUTING_REPLICAS_MAX];
	unsigned n;
	uint32_t taken;			/* a bit for every line */
};

/* ---- what there is to know ---- */

static unsigned
count(const struct chain *c, enum target_state state)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n; i++)
		n += c->r[i].state == state;
	return n;
}

static bool
could_sync(const struct replica *r)
{
	return r->alive && !r->held && (r->state == TARGET_WAITING || r->state == TARGET_OFFLINE);
}

static unsigned
facts(const struct chain *c, unsigned at)
{
	const struct replica *r = &c->r[at];
	unsigned f = r->alive ? ALIVE : GONE, others = 0;
	bool last = true, first = true;

	for (unsigned i = 0; i < c->n; i++) {
		others += i != at && c->r[i].alive && c->r[i].state == TARGET_SERVING;
		last &= i <= at || c->r[i].state != TARGET_SERVING;
		first &= i >= at || !could_sync(&c->r[i]);
	}
	f |= r->named ? NAMED : 0;
	f |= others > 0 ? OTHER : ALONE;
	f |= others > 1 ? OTHERS : 0;
	f |= others == 0 || !r->held ? FREE : 0;
	f |= last && r->state == TARGET_SERVING ? TAIL : 0;
	f |= first && could_sync(r) && others > 0 && count(c, TARGET_SYNCING) == 0 ?
	    TURN : 0;
	return f;
}

/* ---- steps ---- */

static void
sort(struct chain *c)
{
	for (unsigned i = 1; i < c->n; i++) {
		struct replica r = c->r[i];
		unsigned at = i;

		for (; at > 0 && c->r[at - 1].state > r.state; at--)
			c->r[at] = c->r[at - 1];
		c->r[at] = r;
	}
}

/* Every replica takes the first line that is about it, all at once.  Returns how many
 * did. */
static unsigned
take(struct chain *c, enum manager_chain_event event)
{
	uint8_t to[ROUTING_REPLICAS_MAX];
	unsigned taken = 0;

	for (unsigned i = 0; i < c->n; i++) {
		unsigned f = facts(c, i);

		to[i] = c->r[i].state;
		for (unsigned k = 0; k < LINES; k++) {
			if (lines[k].event != event ||
			    public[k].from != c->r[i].state ||
			    (lines[k].asks & ~f) != 0)
				continue;
			to[i] = (uint8_t)public[k].to;
			c->taken |= 1u << k;
			taken++;
			break;
		}
	}
	for (unsigned i = 0; i < c->n; i++)
		c->r[i].state = to[i];
	sort(c);
	return taken;
}

static void
look(struct chain *c)
{
	unsigned rounds = 0;

	while (take(c, MANAGER_CHAIN_LOOK) > 0)
		assert(++rounds <= 4);	/* gone; back; whose turn; and none */
}

static struct replica *
named(struct chain *c)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->r[i].named)
			return &c->r[i];
	return NULL;
}

/* What the event asks for, or why not. */
static int
happen(struct chain *c, const struct manager_chain_input *in)
{
	struct replica *r = named(c);
	uint8_t was;

	if (in->event == MANAGER_CHAIN_LOOK)
		return 0;
	if (r == NULL)
		return -ENOENT;
	if (in->event == MANAGER_CHAIN_REPLACE && in->with == 0)
		return -EINVAL;
	for (unsigned i = 0; i < c->n; i++)
		if (in->event == MANAGER_CHAIN_REPLACE && c->r[i].id == in->with)
			return -EINVAL;
	/* these are about the chain as it was */
	if ((in->event == MANAGER_CHAIN_SYNCED || in->event == MANAGER_CHAIN_UNFIT) &&
	    c->taken != 0)
		return ERR_STALE_CHAIN;
	if ((in->event == MANAGER_CHAIN_ROTATE || in->event == MANAGER_CHAIN_PART) &&
	    c->taken != 0)
		return -EBUSY;
	if (in->event == MANAGER_CHAIN_ACCEPT &&
	    (r->state != TARGET_WAITING || count(c, TARGET_SERVING) > 0))
		return -EBUSY;		/* or the LASTSRV alone would take a line */
	was = r->state;
	if (take(c, in->event) == 0)
		return in->event == MANAGER_CHAIN_SYNCED ||
		    in->event == MANAGER_CHAIN_UNFIT ? ERR_STALE_CHAIN : -EBUSY;
	r = named(c);
	r->held |= in->event == MANAGER_CHAIN_UNFIT;
	assert(r->state != was || in->event == MANAGER_CHAIN_REPLACE);
	if (in->event == MANAGER_CHAIN_REPLACE) {
		/* it has nothing that counts: behind all others */
		struct replica last = { .id = in->with, .state = TARGET_OFFLINE,
			.alive = in->with_alive };
		unsigned at = (unsigned)(r - c->r);

		memmove(r, r + 1, (c->n - 1 - at) * sizeof(*r));
		c->r[c->n - 1] = last;
	}
	return 0;
}

/* ---- rows ---- */

static void
read_row(struct chain *c, const struct routing_chain *row,
    const struct manager_chain_input *in)
{
	*c = (struct chain){ .n = row->target_n };
	for (unsigned i = 0; i < c->n; i++)
		c->r[i] = (struct replica){ .id = row->targets[i],
			.state = row->states[i],
			.alive = in->alive[i] && !in->reborn[i],
			.reborn = in->alive[i] && in->reborn[i],
			.held = in->held[i],
			.named = in->event != MANAGER_CHAIN_LOOK &&
			    row->targets[i] == in->target };
}

static void
write_row(const struct chain *c, struct routing_chain *row,
    const struct manager_chain_input *in)
{
	unsigned serving = count(c, TARGET_SERVING);

	for (unsigned i = 0; i < c->n; i++) {
		assert(i == 0 || c->r[i].state >= c->r[i - 1].state);	/* 1 */
		row->targets[i] = c->r[i].id;
		row->states[i] = c->r[i].state;
		if (in->event == MANAGER_CHAIN_REPLACE &&
		    row->preferred[i] == in->target)
			row->preferred[i] = in->with;
	}
	assert(count(c, TARGET_SYNCING) <= (serving > 0));		/* 1 */
	assert(count(c, TARGET_LASTSRV) <= (serving == 0));		/* 1 */
	row->state = serving > 0 ? CHAIN_SERVING : CHAIN_RECOVERING;
	row->version++;							/* 5 */
	for (unsigned k = 0; k < LINES; k++)
		public[k].taken += c->taken >> k & 1;
}

void
manager_chain_init(struct routing_chain *c, const target_id *targets, unsigned n)
{
	assert(n >= 1 && n <= ROUTING_REPLICAS_MAX);
	*c = (struct routing_chain){ .id = c->id, .version = 1,
		.state = CHAIN_SERVING, .target_n = n };
	for (unsigned i = 0; i < n; i++) {
		c->targets[i] = c->preferred[i] = targets[i];
		c->states[i] = TARGET_SERVING;
	}
}

static int
evaluate(struct chain *c, const struct routing_chain *row,
    const struct manager_chain_input *in)
{
	int rc;

	read_row(c, row, in);
	look(c);
	for (unsigned i = 0; i < c->n; i++)
		c->r[i].alive |= c->r[i].reborn;
	look(c);
	if ((rc = happen(c, in)) != 0)
		return rc;
	look(c);
	return c->taken != 0 ? 0 : -EALREADY;
}

int
manager_chain_step(struct routing_chain *row, const struct manager_chain_input *in)
{
	struct chain c;
	int rc = evaluate(&c, row, in);

	if (rc == 0)
		write_row(&c, row, in);
	return rc;
}

int
manager_chain_check(const struct routing_chain *row,
    const struct manager_chain_input *in)
{
	struct chain c;

	return evaluate(&c, row, in);
}

/* Coming back puts a replica behind all others, so those can stay that are the longest
 * beginning of the preferred order in this order; the next of it has to move.  With less
 * than two others to serve meanwhile the order is not worth the risk. */
target_id
manager_chain_misplaced(const struct routing_chain *c)
{
	unsigned want = 0;

	if (c->target_n < 3 || routing_serving_n(c) != c->target_n)
		return 0;
	for (unsigned i = 0; i < c->target_n; i++)
		want += c->targets[i] == c->preferred[want];
	return want == c->target_n ? 0 : c->preferred[want];
}

const struct manager_chain_line *
manager_chain_line(unsigned i)
{
	return i < LINES ? &public[i] : NULL;
}
