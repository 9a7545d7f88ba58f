/* SPDX-License-Identifier: MIT */
/* check.c - fsd check from its start to its last line.
 *
 *   routing -> image of metadata -> its members compared (and healed, and again) -> tree
 *   -> chunks of every chain -> suspects again
 *   -> repairs of the tree -> image -> members -> tree -> repairs ... -> end */
#include "roles/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "roles/admin_show.h"
#include "roles/check_impl.h"

#define TEXT_MAX	(4u * 768u)

/* Names are any bytes: what a terminal or JSON would take for its own is told as \xNN. */
static void
print(char out[TEXT_MAX], const char *fmt, va_list ap)
{
	char text[768];
	size_t n = 0;

	vsnprintf(text, sizeof(text), fmt, ap);
	for (const char *p = text; *p != '\0'; p++)
		n += (size_t)sprintf(out + n, *p < ' ' || *p > '~' ? "\\x%02x" : "%c",
		    (unsigned char)*p);
	out[n] = '\0';
}

/* A line: {"kind": "text"}; with a number {"kind": 1, "does": "text"}. */
static void
say(struct check *c, const char *kind, uint64_t number, const char *fmt, va_list ap)
{
	char text[TEXT_MAX];

	print(text, fmt, ap);
	if (c->how.json) {
		fprintf(c->to, "{\"%s\": ", kind);
		if (number > 0)
			fprintf(c->to, "%" PRIu64 ", \"does\": ", number);
		admin_show_string(c->to, text);
		fputs("}\n", c->to);
	} else if (number > 0)
		fprintf(c->to, "%s %" PRIu64 ": %s\n", kind, number, text);
	else
		fprintf(c->to, "%s: %s\n", kind, text);
	fflush(c->to);
}

void
check_fault(struct check *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(c, "fault", 0, fmt, ap);
	va_end(ap);
}

void
check_still(struct check *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(c, "still", 0, fmt, ap);
	va_end(ap);
}

void
check_note(struct check *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(c, "note", 0, fmt, ap);
	va_end(ap);
}

uint64_t
check_repair(struct check *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(c, "repair", ++c->repairs, fmt, ap);
	va_end(ap);
	return c->repairs;
}

void
check_repaired(struct check *c, uint64_t number, int rc)
{
	const char *why = rc == -ESTALE ? "it has changed meanwhile" : rc == -EBUSY ?
	    "it is in use" : rc == -EAGAIN ? "something else has to be mended first" :
	    err_text(rc);

	if (c->how.json) {
		fprintf(c->to, "{\"repair\": %" PRIu64 ", \"result\": ", number);
		if (rc == 0)
			fputs("\"done\"}\n", c->to);
		else {
			fputs("\"not done\", \"why\": ", c->to);
			admin_show_string(c->to, why);
			fputs("}\n", c->to);
		}
	} else if (rc == 0)
		fprintf(c->to, "repair %" PRIu64 ": done\n", number);
	else
		fprintf(c->to, "repair %" PRIu64 ": not done: %s\n", number, why);
	fflush(c->to);
}

bool
check_silent(const struct check *c, uint64_t since_ns)
{
	return clock_now(c->env.clock) - since_ns > CHECK_GIVE_UP_NS;
}

void
check_later(struct check *c, uint64_t ns, clock_timer_fn *fn)
{
	clock_timer_start(c->env.clock, &c->timer, clock_now(c->env.clock) + ns, fn);
}

int
check_server(const struct check *c, struct net_addr *out)
{
	const struct routing_node *n;
	unsigned count = 0, want;

	for (unsigned i = 0; (n = routing_node_at(c->routing, i)) != NULL; i++)
		count += (n->roles & NODE_METADATA) != 0 && n->addr_n > 0;
	if (count == 0)
		return -ENOENT;
	want = c->meta_at % count;
	for (unsigned i = 0; (n = routing_node_at(c->routing, i)) != NULL; i++)
		if ((n->roles & NODE_METADATA) != 0 && n->addr_n > 0 && want-- == 0)
			*out = n->addrs[0];
	return 0;
}

/* ---- one step after the other ---- */

static void
last_words(struct check *c)
{
	/* Repairs can show what was hidden. */
	uint64_t tree = c->tree_left > c->tree_faults ? c->tree_left : c->tree_faults;
	uint64_t faults = c->faults + tree, mended = c->mended + tree - c->tree_left;

	if (c->rc != 0) {
		c->done(c->ctx, c->rc);
		return;
	}
	if (c->how.json)
		fprintf(c->to, "{\"inodes\": %" PRIu64 ", \"chunks\": %" PRIu64
		    ", \"faults\": %" PRIu64 ", \"mended\": %" PRIu64 "}\n", c->inodes,
		    c->chunks, faults, mended);
	else
		fprintf(c->to, "%" PRIu64 " inodes, %" PRIu64 " chunks of replicas: %"
		    PRIu64 " faults, %" PRIu64 " mended\n", c->inodes, c->chunks,
		    faults, mended);
	c->done(c->ctx, faults == mended ? 0 : -EUCLEAN);
}

void
check_end(struct check *c, int rc)
{
	c->rc = rc;
	check_leave(c, last_words);
}

static void
mend_or_end(struct check *c)
{
	if (c->fix_n > 0 && c->distrust)
		check_note(c, "nothing is repaired in metadata as long as it is not known "
		    "that most of its nodes hold this");
	if (c->fix_n > 0)
		check_mend_start(c);
	else
		check_end(c, 0);
}

void
check_have_image(struct check *c)
{
	int rc = check_tree(c);

	c->heard_ns = clock_now(c->env.clock);	/* that took its time */
	if (rc != 0)
		check_end(c, rc);
	else if (c->look == 0)
		check_chunks_start(c);
	else if (c->look == CHECK_LOOKS_MAX)
		check_end(c, 0);
	else
		mend_or_end(c);
}

void
check_chunks_done(struct check *c)
{
	mend_or_end(c);
}

/* What was done may have brought more to light, and is looked at in any case. */
void
check_mend_done(struct check *c)
{
	if (c->fixed == 0) {
		check_end(c, 0);
		return;
	}
	c->fixed = 0;
	c->look++;
	check_image_close(c);
	check_image_start(c);
}

/* ---- routing ---- */

static void ask(struct clock_timer *t);

static void
answered(struct net_call *call, int rc)
{
	struct check *c = container_of(call, struct check, call);
	uint64_t was = routing_version(c->routing);

	if (rc == 0)
		rc = routing_apply(c->routing, call->rep);
	if (rc == 0) {
		c->heard_ns = clock_now(c->env.clock);
		if (routing_version(c->routing) != was)
			check_later(c, 0, ask);		/* it comes in pieces */
		else
			c->routed(c);
		return;
	}
	if (err_next(rc) == ERR_NEXT_FAIL || check_silent(c, c->heard_ns)) {
		check_end(c, rc);
		return;
	}
	c->manager_at = (c->manager_at + 1) % c->manager_n;
	check_later(c, CHECK_PAUSE_NS, ask);
}

static void
ask(struct clock_timer *t)
{
	struct check *c = container_of(t, struct check, timer);
	struct msg_routing q = { .have = routing_version(c->routing) };
	struct net_call_opts opts = {
		.deadline_ns = clock_now(c->env.clock) + CHECK_ATTEMPT_NS
	};
	int rc = net_call_start(&c->call, c->env.hub, &c->managers[c->manager_at],
	    MSG_routing, &q, &opts, answered);

	if (rc != 0)
		check_end(c, rc);
}

void
check_route(struct check *c, void (*fn)(struct check *c))
{
	c->routed = fn;
	check_later(c, 0, ask);
}

/* ---- open, close ---- */

int
check_open(struct check **out, const struct check_conf *conf, role_fn *done, void *ctx)
{
	struct check *c;

	*out = NULL;
	if (conf->manager_n == 0 || conf->manager_n > ROUTING_REPLICAS_MAX)
		return -EINVAL;
	if ((c = calloc(1, sizeof(*c))) == NULL)
		return -ENOMEM;
	c->env = *conf->env;
	memcpy(c->managers, conf->managers, conf->manager_n * sizeof(*conf->managers));
	c->manager_n = conf->manager_n;
	c->how = conf->how;
	c->to = conf->to;
	c->done = done;
	c->ctx = ctx;
	if (routing_open(&c->routing) != 0) {
		free(c);
		return -ENOMEM;
	}
	c->heard_ns = clock_now(c->env.clock);
	list_init(&c->fixes);
	list_init(&c->sent);
	map_init(&c->nameless);
	check_route(c, check_image_start);
	*out = c;
	return 0;
}

void
check_close(struct check *c)
{
	if (c == NULL)
		return;
	net_call_cancel(&c->call);
	for (unsigned i = 0; i < ROUTING_MEMBERS_MAX; i++)
		net_call_cancel(&c->members[i].call);
	clock_timer_stop(c->env.clock, &c->timer);
	check_chunks_close(c);
	check_image_close(c);
	check_fixes_drop(c);
	map_fini(&c->nameless);
	routing_close(c->routing);
	free(c);
}
