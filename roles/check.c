/* SPDX-License-Identifier: MIT */
/* check.c - fsd check from its start to its last line.
 *
 *   routing -> tables of metadata -> tree -> chunks of every chain -> suspects again -> end */
#include "roles/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "roles/admin_show.h"
#include "roles/check_impl.h"

static void
say(struct check *c, const char *kind, const char *text)
{
	if (c->json) {
		fprintf(c->to, "{\"%s\": ", kind);
		admin_show_string(c->to, text);
		fputs("}\n", c->to);
	} else
		fprintf(c->to, "%s: %s\n", kind, text);
	fflush(c->to);
}

void
check_fault(struct check *c, const char *fmt, ...)
{
	char text[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->faults++;
	say(c, "fault", text);
}

void
check_mended(struct check *c, const char *fmt, ...)
{
	char text[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->mended++;
	say(c, "mended", text);
}

bool
check_silent(const struct check *c)
{
	return clock_now(c->env.clock) - c->heard_ns > CHECK_GIVE_UP_NS;
}

void
check_later(struct check *c, uint64_t ns, clock_timer_fn *fn)
{
	clock_timer_start(c->env.clock, &c->timer, clock_now(c->env.clock) + ns, fn);
}

void
check_end(struct check *c, int rc)
{
	uint64_t left = c->faults - c->mended;

	if (rc != 0) {
		c->done(c->ctx, rc);
		return;
	}
	if (c->json)
		fprintf(c->to, "{\"inodes\": %" PRIu64 ", \"chunks\": %" PRIu64
		    ", \"faults\": %" PRIu64 ", \"mended\": %" PRIu64 "}\n", c->inodes,
		    c->chunks, c->faults, c->mended);
	else
		fprintf(c->to, "%" PRIu64 " inodes, %" PRIu64 " chunks of replicas: %"
		    PRIu64 " faults, %" PRIu64 " mended\n", c->inodes, c->chunks,
		    c->faults, c->mended);
	c->done(c->ctx, left == 0 ? 0 : -EUCLEAN);
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
	if (err_next(rc) == ERR_NEXT_FAIL || check_silent(c)) {
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
	c->repair = conf->repair;
	c->json = conf->json;
	c->to = conf->to;
	c->done = done;
	c->ctx = ctx;
	if (routing_open(&c->routing) != 0) {
		free(c);
		return -ENOMEM;
	}
	c->heard_ns = clock_now(c->env.clock);
	check_route(c, check_meta_start);
	*out = c;
	return 0;
}

void
check_close(struct check *c)
{
	if (c == NULL)
		return;
	net_call_cancel(&c->call);
	clock_timer_stop(c->env.clock, &c->timer);
	check_chunks_close(c);
	check_meta_close(c);
	routing_close(c->routing);
	free(c);
}
