/* SPDX-License-Identifier: MIT */
/* test_manager_chain.c - what becomes of replicas: named cases, then every chain of up to
 * four replicas under every combination of who is alive and every event, then long walks
 * with a model that knows which replica really has everything. */
#include "roles/manager_chain.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "conf/rand.h"
#include "tests/suite.h"

/* A chain as text: targets 1.. with S L Y W O A for its states, in chain order. */
static const char letters[] = "?SLYWOA";

static void
parse(const char *s, struct routing_chain *c)
{
	*c = (struct routing_chain){ .id = 1, .version = 7 };
	for (; *s != '\0'; s += 2 + (s[2] == ' ')) {
		c->targets[c->target_n] = (target_id)(s[0] - '0');
		c->states[c->target_n] = (uint8_t)(strchr(letters, s[1]) - letters);
		c->preferred[c->target_n] = c->target_n + 1;
		c->target_n++;
	}
	c->state = routing_serving_n(c) > 0 ? CHAIN_SERVING : CHAIN_RECOVERING;
}

static const char *
text(const struct routing_chain *c)
{
	static char out[64];
	char *p = out;

	for (unsigned i = 0; i < c->target_n; i++)
		p += sprintf(p, "%s%u%c", i > 0 ? " " : "", c->targets[i],
		    letters[c->states[i]]);
	return out;
}

/* Rows that routing would refuse. */
static bool
valid(const struct routing_chain *c)
{
	unsigned of[TARGET_APART + 1] = { 0 };

	for (unsigned i = 0; i < c->target_n; i++) {
		if (i > 0 && c->states[i] < c->states[i - 1])
			return false;
		for (unsigned k = 0; k < i; k++)
			if (c->targets[i] == c->targets[k])
				return false;
		of[c->states[i]]++;
	}
	return of[TARGET_SYNCING] <= (of[TARGET_SERVING] > 0) &&
	    of[TARGET_LASTSRV] <= (of[TARGET_SERVING] == 0) &&
	    c->state == (of[TARGET_SERVING] > 0 ? CHAIN_SERVING : CHAIN_RECOVERING);
}

#define LOOK	MANAGER_CHAIN_LOOK
#define SYNCED	MANAGER_CHAIN_SYNCED
#define ROTATE	MANAGER_CHAIN_ROTATE
#define PART	MANAGER_CHAIN_PART
#define JOIN	MANAGER_CHAIN_JOIN
#define ACCEPT	MANAGER_CHAIN_ACCEPT
#define REPLACE	MANAGER_CHAIN_REPLACE
#define UNFIT	MANAGER_CHAIN_UNFIT

static const struct {
	const char *what, *chain, *alive, *reborn;	/* target ids */
	enum manager_chain_event event;
	target_id   target, with;
	bool	    with_alive;
	int	    rc;
	const char *then;
} cases[] = {
	{ "all is well", "1S 2S 3S", "123", "", LOOK, 0, 0, 0, -EALREADY, NULL },
	{ "the head dies", "1S 2S 3S", "23", "", LOOK, 0, 0, 0, 0, "2S 3S 1O" },
	{ "the middle dies", "1S 2S 3S", "13", "", LOOK, 0, 0, 0, 0, "1S 3S 2O" },
	{ "the tail dies", "1S 2S 3S", "12", "", LOOK, 0, 0, 0, 0, "1S 2S 3O" },
	{ "two die", "1S 2S 3S", "2", "", LOOK, 0, 0, 0, 0, "2S 1O 3O" },
	{ "all die: the tail has everything", "1S 2S 3S", "", "", LOOK, 0, 0, 0, 0,
	  "3L 1O 2O" },
	{ "the last one dies", "2S 1O 3O", "13", "", LOOK, 0, 0, 0, 0,
	  "2L 1W 3W" },
	{ "who died last is before who died first", "2S 3S 1O", "3", "", LOOK, 0, 0,
	  0, 0, "3S 2O 1O" },
	{ "others wait for the last one", "3L 1O 2O", "12", "", LOOK, 0, 0, 0, 0,
	  "3L 1W 2W" },
	{ "the last one is back", "3L 1W 2W", "123", "", LOOK, 0, 0, 0, 0,
	  "3S 1Y 2W" },
	{ "all back at once", "3L 1O 2O", "123", "", LOOK, 0, 0, 0, 0, "3S 1Y 2W" },
	{ "one comes back", "2S 3S 1O", "123", "", LOOK, 0, 0, 0, 0, "2S 3S 1Y" },
	{ "two come back: one at a time", "2S 1O 3O", "123", "", LOOK, 0, 0, 0, 0,
	  "2S 1Y 3W" },
	{ "who syncs dies", "2S 1Y 3W", "23", "", LOOK, 0, 0, 0, 0, "2S 3Y 1O" },
	{ "who serves dies while one syncs", "2S 1Y 3W", "13", "", LOOK, 0, 0, 0, 0,
	  "2L 1W 3W" },
	{ "both die", "2S 1Y 3W", "3", "", LOOK, 0, 0, 0, 0, "2L 3W 1O" },
	{ "the tail dies while one syncs", "1S 2S 3Y", "13", "", LOOK, 0, 0, 0, 0,
	  "1S 3Y 2O" },
	{ "started again: has to sync", "1S 2S 3S", "123", "2", LOOK, 0, 0, 0, 0,
	  "1S 3S 2Y" },
	{ "started again, alone: serves on, in a new version", "1S", "1", "1", LOOK,
	  0, 0, 0, 0, "1S" },
	{ "all started again: as the last one", "1S 2S", "12", "12", LOOK, 0, 0, 0, 0,
	  "2S 1Y" },
	{ "started again and gone again", "1S 2S", "1", "2", LOOK, 0, 0, 0, 0,
	  "1S 2O" },
	{ "started again while it syncs", "1S 2Y", "12", "2", LOOK, 0, 0, 0, 0,
	  "1S 2Y" },
	{ "started again while it waits", "1S 2Y 3W", "123", "3", LOOK, 0, 0, 0, 0,
	  "1S 2Y 3W" },
	{ "synced", "2S 1Y 3W", "123", "", SYNCED, 1, 0, 0, 0, "2S 1S 3Y" },
	{ "synced, the last one", "2S 1S 3Y", "123", "", SYNCED, 3, 0, 0, 0,
	  "2S 1S 3S" },
	{ "synced, but is gone", "2S 1Y", "2", "", SYNCED, 1, 0, 0, ERR_STALE_CHAIN,
	  NULL },
	{ "synced, but the only source is gone", "2S 1Y", "1", "", SYNCED, 1, 0, 0,
	  ERR_STALE_CHAIN, NULL },
	{ "synced, but was started again", "2S 1Y", "12", "1", SYNCED, 1, 0,
	  0, ERR_STALE_CHAIN, NULL },
	{ "synced what is not in it", "2S 1Y", "12", "", SYNCED, 3, 0, 0, -ENOENT,
	  NULL },
	{ "synced twice", "2S 1S 3Y", "123", "", SYNCED, 1, 0, 0, ERR_STALE_CHAIN,
	  NULL },
	{ "who syncs does not take it: the next one's turn", "1S 2Y 3W", "123", "",
	  UNFIT, 2, 0, 0, 0, "1S 3Y 2O" },
	{ "who syncs does not take it, alone", "1S 3S 2Y", "123", "", UNFIT, 2, 0, 0,
	  0, "1S 3S 2O" },
	{ "has no space, and others serve", "1S 2S 3S", "123", "", UNFIT, 1, 0, 0, 0,
	  "2S 3S 1O" },
	{ "has no space while another syncs", "1S 2S 3Y", "123", "", UNFIT, 2, 0, 0, 0,
	  "1S 3Y 2O" },
	{ "has no space, but serves alone", "1S 2Y", "12", "", UNFIT, 1, 0, 0,
	  ERR_STALE_CHAIN, NULL },
	{ "has no space, but others are gone", "1S 2S", "2", "", UNFIT, 2, 0, 0,
	  ERR_STALE_CHAIN, NULL },
	{ "does not take it, but is gone", "1S 2Y", "1", "", UNFIT, 2, 0, 0,
	  ERR_STALE_CHAIN, NULL },
	{ "rotate", "2S 1S 3S", "123", "", ROTATE, 2, 0, 0, 0, "1S 3S 2Y" },
	{ "rotate, but too few would serve", "2S 1S", "12", "", ROTATE, 2, 0, 0,
	  -EBUSY, NULL },
	{ "rotate, but another is about to", "2S 1S 3Y", "123", "", ROTATE, 2, 0, 0,
	  -EBUSY, NULL },
	{ "cut from its predecessor", "1S 2S 3S", "123", "", PART, 2, 0, 0, 0,
	  "1S 3S 2A" },
	{ "cut, one of two", "1S 2S", "12", "", PART, 2, 0, 0, 0, "1S 2A" },
	{ "cut, but the only one that serves", "1S 2A", "12", "", PART, 1, 0, 0,
	  -EBUSY, NULL },
	{ "cut, but the others are gone", "1S 2S", "2", "", PART, 2, 0, 0, -EBUSY,
	  NULL },
	{ "cut while it syncs: the next one", "1S 2Y 3W", "123", "", PART, 2, 0, 0, 0,
	  "1S 3Y 2A" },
	{ "cut twice", "1S 2A", "12", "", PART, 2, 0, 0, -EBUSY, NULL },
	{ "it stays apart", "1S 2A", "12", "", LOOK, 0, 0, 0, -EALREADY, NULL },
	{ "reached again", "1S 2A", "12", "", JOIN, 2, 0, 0, 0, "1S 2Y" },
	{ "reached again, while another syncs", "1S 2Y 3A", "123", "", JOIN, 3, 0, 0,
	  0, "1S 2Y 3W" },
	{ "reached what is not apart", "1S 2Y", "12", "", JOIN, 2, 0, 0, -EBUSY,
	  NULL },
	{ "gone while apart", "1S 2A", "1", "", LOOK, 0, 0, 0, 0, "1S 2O" },
	{ "started again while apart", "1S 2A", "12", "2", LOOK, 0, 0, 0, 0,
	  "1S 2Y" },
	{ "who it is apart from is gone", "1S 2A", "2", "", LOOK, 0, 0, 0, 0,
	  "1L 2W" },
	{ "replaced while apart", "1S 2S 3A", "123", "", REPLACE, 3, 4, true, 0,
	  "1S 2S 4Y" },
	{ "loss is accepted", "3L 1W 2W", "12", "", ACCEPT, 2, 0, 0, 0,
	  "2S 1Y 3O" },
	{ "loss, but it serves", "3S 1Y 2W", "123", "", ACCEPT, 2, 0, 0, -EBUSY,
	  NULL },
	{ "loss, but it is back", "3L 1W 2W", "123", "", ACCEPT, 2, 0, 0, -EBUSY,
	  NULL },
	{ "loss, for one that is gone", "3L 1W 2O", "1", "", ACCEPT, 2, 0, 0, -EBUSY,
	  NULL },
	{ "loss, for the one that is awaited", "3L 1W 2O", "1", "", ACCEPT, 3, 0, 0,
	  -EBUSY, NULL },
	{ "nobody is known to have everything", "1W 2W", "12", "", ACCEPT, 1, 0, 0, 0,
	  "1S 2Y" },
	{ "the lost one is back after all", "2S 1Y 3O", "123", "", LOOK, 0, 0, 0, 0,
	  "2S 1Y 3W" },
	{ "a dead disk is replaced", "1S 2S 3O", "12", "", REPLACE, 3, 4, true, 0,
	  "1S 2S 4Y" },
	{ "by one that is away", "1S 2S 3O", "12", "", REPLACE, 3, 4, false, 0,
	  "1S 2S 4O" },
	{ "a disk that serves is replaced", "1S 2S 3S", "123", "", REPLACE, 1, 4,
	  true, 0, "2S 3S 4Y" },
	{ "one that syncs", "1S 2Y 3W", "123", "", REPLACE, 2, 4, true, 0,
	  "1S 3Y 4W" },
	{ "one that waits", "1S 2Y 3W", "123", "", REPLACE, 3, 4, true, 0,
	  "1S 2Y 4W" },
	{ "one that is away, behind the others", "1S 2O 3O", "1", "", REPLACE, 2, 4,
	  false, 0, "1S 3O 4O" },
	{ "not the only one that serves", "1S 2Y 3W", "123", "", REPLACE, 1, 4, true,
	  -EBUSY, NULL },
	{ "not the one that is awaited", "1L 2W 3W", "23", "", REPLACE, 1, 4, true,
	  -EBUSY, NULL },
	{ "not by itself", "1S 2S 3O", "12", "", REPLACE, 3, 3, true, -EINVAL, NULL },
	{ "not by another of the chain", "1S 2S 3O", "12", "", REPLACE, 3, 1, true,
	  -EINVAL, NULL },
	{ "not by nothing", "1S 2S 3O", "12", "", REPLACE, 3, 0, true, -EINVAL,
	  NULL },
	{ "what is not in it", "1S 2S 3O", "12", "", REPLACE, 5, 4, true, -ENOENT,
	  NULL },
};

static struct manager_chain_input
input(const struct routing_chain *c, const char *alive, const char *reborn,
    enum manager_chain_event event, target_id target)
{
	struct manager_chain_input in = { .event = event, .target = target };

	for (unsigned i = 0; i < c->target_n; i++) {
		in.alive[i] = strchr(alive, '0' + (int)c->targets[i]) != NULL;
		in.reborn[i] = strchr(reborn, '0' + (int)c->targets[i]) != NULL;
	}
	return in;
}

START_TEST(named_cases)
{
	struct manager_chain_input in;
	struct routing_chain c, was;
	int rc;

	parse(cases[_i].chain, &c);
	was = c;
	in = input(&c, cases[_i].alive, cases[_i].reborn, cases[_i].event,
	    cases[_i].target);
	in.with = cases[_i].with;
	in.with_alive = cases[_i].with_alive;
	rc = manager_chain_step(&c, &in);
	ck_assert_msg(rc == cases[_i].rc, "%s: %d, %s", cases[_i].what, rc, text(&c));
	if (rc != 0) {
		ck_assert_msg(memcmp(&c, &was, sizeof(c)) == 0, "%s",
		    cases[_i].what);
		return;
	}
	ck_assert_msg(strcmp(text(&c), cases[_i].then) == 0, "%s: %s",
	    cases[_i].what, text(&c));
	ck_assert_uint_eq(c.version, 8);
	ck_assert(valid(&c));
	for (unsigned i = 0; i < c.target_n; i++)
		ck_assert_msg(c.preferred[i] == (cases[_i].event == REPLACE &&
		    was.preferred[i] == cases[_i].target ? cases[_i].with :
		    was.preferred[i]), "%s", cases[_i].what);
}
END_TEST

static bool
alive_of(const struct routing_chain *c, const struct manager_chain_input *in,
    target_id id)
{
	for (unsigned i = 0; i < c->target_n; i++)
		if (c->targets[i] == id)
			return in->alive[i] && !in->reborn[i];
	return false;
}

static uint8_t
state_of(const struct routing_chain *c, target_id id)
{
	for (unsigned i = 0; i < c->target_n; i++)
		if (c->targets[i] == id)
			return c->states[i];
	return 0;
}

#define MUST(x) ck_assert_msg(x, "%s: %s -> %s, event %d of %u, alive %x reborn %x", \
	#x, before, text(c), in->event, in->target, mask(in->alive), mask(in->reborn))

static unsigned
mask(const bool *v)
{
	unsigned m = 0;

	for (unsigned i = 0; i < 4; i++)
		m |= (unsigned)v[i] << i;
	return m;
}

/* One step of one chain holds what the header promises. */
static void
promises(const struct routing_chain *was, const struct manager_chain_input *in)
{
	struct routing_chain row = *was, *c = &row;
	struct manager_chain_input again = { .event = LOOK };
	unsigned served = 0, tail = 0;
	char before[64];
	int rc;

	snprintf(before, sizeof(before), "%s", text(was));
	rc = manager_chain_step(c, in);
	if (rc != 0) {
		MUST(memcmp(c, was, sizeof(*c)) == 0);
		if (in->event == LOOK)
			MUST(rc == -EALREADY);
	} else
		MUST(c->version == was->version + 1);
	MUST(valid(c));
	MUST(c->target_n == was->target_n);
	if (rc != 0)
		return;
	for (unsigned i = 0; i < was->target_n; i++) {
		served += was->states[i] == TARGET_SERVING &&
		    alive_of(was, in, was->targets[i]);
		if (was->states[i] == TARGET_SERVING)
			tail = was->targets[i];
	}
	for (unsigned i = 0, last = 0; i < was->target_n; i++) {
		target_id id = was->targets[i];
		uint8_t now = state_of(c, id);
		bool alive = alive_of(was, in, id), moved = in->target == id &&
		    (in->event == ROTATE || in->event == PART ||
		    in->event == UNFIT || in->event == REPLACE);

		/* 2: stays, and in order */
		if (was->states[i] == TARGET_SERVING && alive && !moved) {
			unsigned at = 0;

			MUST(now == TARGET_SERVING);
			while (c->targets[at] != id)
				at++;
			MUST(at >= last);
			last = at;
		}
		/* 3: nobody serves who may lack something */
		if (now == TARGET_SERVING)
			MUST((was->states[i] == TARGET_SERVING && alive) ||
			    was->states[i] == TARGET_LASTSRV ||
			    (id == tail && served == 0) ||
			    (in->event == SYNCED && in->target == id &&
			    was->states[i] == TARGET_SYNCING && alive) ||
			    (in->event == ACCEPT && in->target == id));
		if (now == TARGET_LASTSRV)
			MUST(was->states[i] == TARGET_LASTSRV ||
			    (id == tail && served == 0));
		/* and whoever is gone takes no part */
		if (!in->alive[i])
			MUST(now == TARGET_OFFLINE || now == TARGET_LASTSRV ||
			    (in->event == REPLACE && now == 0));
		else if (in->held[i] || (in->event == UNFIT && in->target == id))
			MUST(now != TARGET_LASTSRV && (now != TARGET_SYNCING ||
			    was->states[i] == TARGET_SYNCING));
		else if (in->event != REPLACE)
			MUST(now != TARGET_OFFLINE && now != TARGET_LASTSRV);
		/* held in vain where nobody else has anything */
		if (in->alive[i] && served == 0 && in->event == LOOK &&
		    c->state != CHAIN_SERVING)
			MUST(now == TARGET_WAITING);
	}
	/* a chain that serves goes on serving as long as it can */
	if (served > 0)
		MUST(c->state == CHAIN_SERVING);
	/* what it needs is always known */
	if (served == 0 && tail != 0 && in->event != ACCEPT)
		MUST(state_of(c, tail) == TARGET_SERVING ||
		    state_of(c, tail) == TARGET_LASTSRV);
	/* 4 */
	for (unsigned i = 0; i < c->target_n; i++)
		for (unsigned k = 0; k < c->target_n; k++)
			if (c->targets[i] == was->targets[k]) {
				again.alive[i] = in->alive[k];
				again.held[i] = in->held[k] ||
				    (in->event == UNFIT &&
				    in->target == was->targets[k]);
			}
	for (unsigned i = 0; i < c->target_n; i++)
		if (c->targets[i] == in->with && in->event == REPLACE)
			again.alive[i] = in->with_alive;
	row.version = 0;
	MUST(manager_chain_step(c, &again) == -EALREADY);
}

/* All chains of @n replicas: every sorted row, who is alive, who was started again, every
 * event about every replica (and one that is not there). */
START_TEST(every_chain)
{
	unsigned n = (unsigned)_i, rows = 0;
	struct routing_chain c = { .id = 1, .version = 7, .target_n = n };

	for (unsigned code = 0; code < 1296; code++) {
		for (unsigned i = 0, v = code; i < n; i++, v /= 6) {
			c.states[i] = (uint8_t)(1 + v % 6);
			c.targets[i] = i + 1;
			c.preferred[i] = n - i;
		}
		c.state = c.states[0] == TARGET_SERVING ? CHAIN_SERVING :
		    CHAIN_RECOVERING;
		if ((n < 4 && code >= (n == 1 ? 6 : n == 2 ? 36 : 216)) || !valid(&c))
			continue;
		rows++;
		for (unsigned m = 0, held = 0; m < 1u << (2 * n); m++, held += 7)
			for (unsigned e = LOOK; e <= UNFIT; e++)
				for (target_id id = 1; id <= n + 1; id++) {
					struct manager_chain_input in = {
						.event = e, .target = id,
						.with = 9, .with_alive = m & 1 };

					for (unsigned i = 0; i < n; i++) {
						in.alive[i] = m >> i & 1;
						in.reborn[i] = m >> (n + i) & 1;
						in.held[i] = held >> i & 1;
					}
					promises(&c, &in);
				}
	}
	ck_assert_uint_gt(rows, n);
}
END_TEST

/* Chains of five replicas live long; the model knows what each has.  A write reaches all
 * that serve and the one that syncs; when all have died the tail's is what counts, as the
 * others may lack what only it made durable last. */
START_TEST(long_lives)
{
	uint64_t has[6] = { 0 }, written = 0;
	bool alive[6];
	struct routing_chain c;
	struct rand rnd;

	rand_seed(&rnd, (uint64_t)_i);
	parse("1S 2S 3S 4S 5S", &c);
	for (unsigned i = 0; i < 6; i++)
		alive[i] = true;
	for (unsigned round = 0; round < 2000; round++) {
		struct manager_chain_input in = { .event = LOOK };
		unsigned serving;
		uint32_t version = c.version;
		int rc;

		for (unsigned k = (unsigned)rand_below(&rnd, 3); k > 0; k--) {
			unsigned id = 1 + (unsigned)rand_below(&rnd, 5);

			alive[id] = rand_chance(&rnd, 1, round % 500 < 100 ? 8 : 2);
		}
		if (rand_chance(&rnd, 1, 40))
			memset(alive, 0, sizeof(alive));
		for (unsigned i = 0; i < c.target_n; i++) {
			in.alive[i] = alive[c.targets[i]];
			in.reborn[i] = alive[c.targets[i]] && rand_chance(&rnd, 1, 20);
		}
		switch (rand_below(&rnd, 6)) {
		case 0:
			if (routing_active_n(&c) > routing_serving_n(&c)) {
				in.event = SYNCED;
				in.target = c.targets[routing_serving_n(&c)];
			}
			break;
		case 1:
			in.event = ROTATE;
			in.target = manager_chain_misplaced(&c);
			if (in.target == 0)
				in.event = LOOK;
			break;
		case 2:
			in.event = PART;
			in.target = 1 + (target_id)rand_below(&rnd, 5);
			break;
		case 3:
			in.event = JOIN;
			in.target = 1 + (target_id)rand_below(&rnd, 5);
			break;
		default:
			break;
		}
		if (in.event == SYNCED)		/* it is told the truth */
			has[in.target] = written;
		rc = manager_chain_step(&c, &in);
		ck_assert(valid(&c));
		ck_assert_uint_eq(c.version, version + (rc == 0));
		serving = routing_serving_n(&c);
		for (unsigned i = 0; i < serving; i++)
			ck_assert_msg(has[c.targets[i]] == written,
			    "%s: %u has %llu of %llu", text(&c), c.targets[i],
			    (unsigned long long)has[c.targets[i]],
			    (unsigned long long)written);
		if (serving > 0) {
			written++;
			for (unsigned i = 0; i < serving; i++)
				has[c.targets[i]] = written;
		}
	}
	/* in the end all come back */
	for (unsigned round = 0; round < 40; round++) {
		struct manager_chain_input in = { .event = LOOK };
		int rc;

		for (unsigned i = 0; i < c.target_n; i++)
			in.alive[i] = true;
		(void)manager_chain_step(&c, &in);
		in.event = JOIN;
		in.target = 1 + round % 5;
		(void)manager_chain_step(&c, &in);
		in.event = LOOK;
		if (routing_active_n(&c) > routing_serving_n(&c)) {
			in.event = SYNCED;
			in.target = c.targets[routing_serving_n(&c)];
		} else if ((in.target = manager_chain_misplaced(&c)) != 0)
			in.event = ROTATE;
		rc = manager_chain_step(&c, &in);
		ck_assert(rc == 0 || rc == -EALREADY);
	}
	ck_assert_str_eq(text(&c), "1S 2S 3S 4S 5S");
}
END_TEST

/* Who is held does not sync, and waits when nobody serves. */
START_TEST(held)
{
	struct routing_chain c;
	struct manager_chain_input in;

	parse("1S 2O 3O", &c);
	in = input(&c, "123", "", LOOK, 0);
	in.held[1] = true;
	ck_assert_int_eq(manager_chain_step(&c, &in), 0);
	ck_assert_str_eq(text(&c), "1S 3Y 2O");
	in = input(&c, "2", "", LOOK, 0);
	in.held[2] = true;
	ck_assert_int_eq(manager_chain_step(&c, &in), 0);
	ck_assert_str_eq(text(&c), "1L 2W 3O");
	in = input(&c, "12", "", LOOK, 0);
	in.held[1] = true;
	ck_assert_int_eq(manager_chain_step(&c, &in), 0);
	ck_assert_str_eq(text(&c), "1S 2W 3O");
}
END_TEST

/* Every order of four becomes the preferred one, in at most three moves. */
START_TEST(order_comes_back)
{
	static const char *const orders[] = { "1S 2S 3S 4S", "2S 1S 3S 4S",
		"4S 3S 2S 1S", "3S 1S 4S 2S", "2S 3S 4S 1S", "1S 2S 4S 3S" };
	struct routing_chain c;
	unsigned moves = 0;
	target_id id;

	parse(orders[_i], &c);
	while ((id = manager_chain_misplaced(&c)) != 0) {
		struct manager_chain_input in = input(&c, "1234", "", ROTATE, id);

		ck_assert_int_eq(manager_chain_step(&c, &in), 0);
		ck_assert_uint_eq(manager_chain_misplaced(&c), 0);
		in = input(&c, "1234", "", SYNCED, id);
		ck_assert_int_eq(manager_chain_step(&c, &in), 0);
		ck_assert_uint_le(++moves, 3);
	}
	ck_assert_str_eq(text(&c), "1S 2S 3S 4S");
}
END_TEST

START_TEST(new_chains_serve)
{
	static const target_id targets[] = { 5, 3, 9 };
	struct routing_chain c = { .id = 4, .changed = 12 };

	manager_chain_init(&c, targets, 3);
	ck_assert_str_eq(text(&c), "5S 3S 9S");
	ck_assert(c.id == 4 && c.version == 1 && c.state == CHAIN_SERVING);
	ck_assert_mem_eq(c.preferred, targets, sizeof(targets));
	ck_assert_uint_eq(manager_chain_misplaced(&c), 0);
}
END_TEST

/* Runs last: the tests above have taken every line of the table. */
START_TEST(every_line_was_taken)
{
	const struct manager_chain_line *l;

	for (unsigned i = 0; (l = manager_chain_line(i)) != NULL; i++)
		ck_assert_msg(l->taken > 0, "%c: %s", letters[l->from], l->what);
}
END_TEST

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	TCase *t = tcase_create("pure");

	tcase_add_loop_test(t, named_cases, 0, N(cases));
	tcase_add_loop_test(t, every_chain, 1, 5);
	tcase_add_loop_test(t, long_lives, 0, 50);
	tcase_add_loop_test(t, order_comes_back, 0, 6);
	tcase_add_test(t, held);
	tcase_add_test(t, new_chains_serve);
	tcase_add_test(t, every_line_was_taken);
	tcase_set_timeout(t, 60);
	return suite_run("manager_chain", t);
}
