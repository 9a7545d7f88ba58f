/* SPDX-License-Identifier: MIT */
/* craq_rig.h - one replication core, stepped by hand; what it wants done is written down, a
 * line for each effect, and compared. Static functions: each test is one program. */
#ifndef TESTS_CRAQ_RIG_H
#define TESTS_CRAQ_RIG_H

#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/craq.h"
#include "conf/err.h"
#include "tests/suite.h"

static struct {
	struct chunk_craq *c;
	struct chunk_craq_target t;
	struct chunk_craq_op ops[8];
	uint64_t now;
	uint32_t check;			/* of what is forced */
	char	 text[8192];
	size_t	 n;
} one;

static const struct chunk_id id7 = { 7, 0 };

static void
say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	one.n += (size_t)vsnprintf(one.text + one.n, sizeof(one.text) - one.n,
	    fmt, ap);
	va_end(ap);
	ck_assert_uint_lt(one.n, sizeof(one.text));
}

/* Versions are told by their low half, after the epoch's first. */
static void
drain(void)
{
	struct chunk_craq_effect e;

	while (chunk_craq_next(one.c, &e)) {
		say("%d: %s", (int)(e.op - one.ops), chunk_craq_eff_name(e.kind));
		switch (e.kind) {
		case CRAQ_STORE:
		case CRAQ_FORWARD:
			say(" kind%u v%llu on v%llu%s", e.update,
			    (unsigned long long)e.version,
			    (unsigned long long)e.base,
			    e.loaded ? " loaded" : "");
			if (e.kind == CRAQ_FORWARD && e.force)
				say(" forced%u", e.check);
			break;
		case CRAQ_COMMIT:
		case CRAQ_ABORT:
		case CRAQ_LOAD:
		case CRAQ_FETCH:
		case CRAQ_PURGE:
			say(" v%llu", (unsigned long long)e.version);
			break;
		case CRAQ_REPLY:
			say(" %s", e.rc == 0 ? "ok" : err_name(e.rc));
			if (e.rc == 0)
				say(" v%llu", (unsigned long long)e.version);
			if (e.no_space)
				say(" no space");
			break;
		case CRAQ_CANCEL:
		case CRAQ_LOOK:
		case CRAQ_WAKE:
			break;
		}
		say("\n");
	}
	chunk_craq_check(one.c);
}

/* To the next version, as @is says: Head, Tail, Reading tail, Syncing, Whole; "-": none. */
static void
move(const char *is)
{
	struct chunk_craq_place p = { .version = one.t.version + 1,
	    .head = strchr(is, 'H') != NULL, .tail = strchr(is, 'T') != NULL,
	    .read_tail = strchr(is, 'R') != NULL,
	    .syncing = strchr(is, 'S') != NULL,
	    .whole = strchr(is, 'W') != NULL };

	if (strcmp(is, "-") == 0)
		chunk_craq_rest(one.c, &one.t, p.version);
	else
		chunk_craq_move(one.c, &one.t, &p);
	drain();
}

static void
one_place(const char *is)
{
	memset(&one, 0, sizeof(one));
	ck_assert_int_eq(chunk_craq_open(&one.c, 8), 0);
	chunk_craq_target_init(&one.t, 3);
	move(is);
	if (strcmp(is, "-") != 0)
		chunk_craq_serve(one.c, &one.t);
	one.now = 1000;
}

static void
one_close(void)
{
	chunk_craq_close(one.c);
}

static int
admit(unsigned i, enum chunk_craq_kind kind, uint8_t update, uint64_t version,
    uint64_t base, uint64_t seq)
{
	struct chunk_craq_op *op = &one.ops[i];
	struct chunk_craq_event ev = { .kind = CRAQ_EV_ADMIT, .op = op,
	    .now_ns = one.now };
	int rc;

	*op = (struct chunk_craq_op){ .target = &one.t, .id = id7, .kind = kind,
	    .update = update, .chain_version = one.t.version, .version = version,
	    .base = base, .attempt = seq, .seq = seq, .client = { { 9 } },
	    .force = one.t.syncing, .check = one.check,
	    .deadline_ns = one.now + NS_PER_S };
	rc = chunk_craq_step(one.c, &ev);
	drain();
	return rc;
}

static void
event(unsigned i, enum chunk_craq_ev kind, int rc, uint64_t version,
    uint32_t check, const struct chunk_info *info)
{
	struct chunk_craq_event ev = { .kind = kind, .op = &one.ops[i],
	    .now_ns = one.now, .rc = rc, .version = version, .len = 4,
	    .check = check, .info = info, .room = true };

	ck_assert_int_eq(chunk_craq_step(one.c, &ev), 0);
	drain();
}

static void
expect(const char *what, const char *text)
{
	if (strcmp(one.text, text) != 0)
		ck_abort_msg("%s:\n%s\nnot\n%s", what, one.text, text);
	one.n = 0;
	one.text[0] = '\0';
}

#endif
