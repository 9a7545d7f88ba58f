/* SPDX-License-Identifier: MIT */
/* run.c - the life of a process, in its main loop:
 *
 *   OPENING --all roles ready--> SERVING --signal, unmount, failure--> STOPPING
 *
 * and STOPPING goes through the roles in the opposite order of their dependence: mount, client,
 * metadata, storage, manager.  Roles live on loops of their own; every call to one is posted to
 * its loop, every answer is posted back here, so nothing below is touched by two threads. */
#include "roles/run.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/err.h"
#include "net/loop.h"
#include "roles/client.h"
#include "roles/client_fuse.h"
#include "roles/manager.h"
#include "roles/metadata.h"
#include "roles/process.h"
#include "roles/storage.h"

#define STOP_MAX_MS	30000u	/* a stop that takes longer is cut short */
#define CLOSE_MAX_S	30u	/* and so is closing, after it */

enum state { OPENING, SERVING, STOPPING };

/* In the order of stopping. */
enum which { MOUNT, CLIENT, METADATA, STORAGE, MANAGER, WHICH_N };

struct runner;

/* One role of this process, and the way of messages to and from its loop. */
struct part {
	struct runner	*r;
	enum which	 which;
	char		 name[64];
	struct role_env	*env;		/* of its (main) loop */
	/* One for each message: another may be sent before this one has arrived. */
	struct clock_post open_there, stop_there;
	struct clock_post ready_back, broken_back, unmounted_back, stopped_back;
	int		 rc, broken_rc;	/* carried by @ready_back, @broken_back */
	bool		 ready, stopping, stopped;
	bool		 announced;	/* on its loop: ready was passed on */
	bool		 ended;		/* on its loop: stop was passed on */
	union {
		struct manager	   *manager;
		struct metadata	   *metadata;
		struct storage	   *storage;
		struct client	   *client;
		struct client_fuse *fuse;
	};
	struct role_env *envs;		/* storage: one per loop; owned */
};

struct runner {
	const struct run_plan *plan;
	struct process	*process;
	struct log	*log;
	struct clock	*clock;
	enum state	 state;
	enum which	 stage;		/* STOPPING: what is being stopped */
	int		 rc;
	struct part	 parts[RUN_STORAGE_MAX + WHICH_N];
	unsigned	 part_n;
	struct part	*client;
	struct clock_timer patience;
	struct net_addr	 manager_addr;
	uint64_t	 told_ns;	/* to end, first; 0: not yet */
};

static void begin_stop(struct runner *r, int rc);
static void stop_stage(struct runner *r);

static struct part *
part_add(struct runner *r, enum which which, const char *name, struct role_env *env)
{
	struct part *p = &r->parts[r->part_n++];

	p->r = r;
	p->which = which;
	p->env = env;
	snprintf(p->name, sizeof(p->name), "%s", name);
	return p;
}

static bool
all_ready(const struct runner *r)
{
	for (unsigned i = 0; i < r->part_n; i++)
		if (!r->parts[i].ready)
			return false;
	return true;
}

/* ---- becoming ready ---- */

static void open_mount(struct clock_post *post);

static void
ready_here(struct clock_post *post)
{
	struct part *p = container_of(post, struct part, ready_back);
	struct runner *r = p->r;

	if (p->rc != 0) {
		log_error(r->log, "cannot start", "role=%s error=\"%s\"", p->name,
		    err_text(p->rc));
		begin_stop(r, p->rc);
		return;
	}
	p->ready = true;
	if (r->state != OPENING)
		return;
	if (p->which == CLIENT && r->plan->mount != NULL) {
		struct part *m = part_add(r, MOUNT, r->plan->mount, p->env);

		clock_post(m->env->clock, &m->open_there, open_mount);
	}
	if (all_ready(r)) {
		r->state = SERVING;
		r->plan->ready(r->plan->ctx, &r->manager_addr);
	}
}

static void
ready_there(void *ctx, int rc)
{
	struct part *p = ctx;

	if (p->announced)
		return;
	p->announced = true;
	p->rc = rc;
	clock_post(p->r->clock, &p->ready_back, ready_here);
}

/* Nobody but another process can find the disk better, or take its state from the others
 * anew: so all of this one ends, its other roles in their order, and says why.  Half a
 * process would look well to whoever supervises it. */
static void
broken_here(struct clock_post *post)
{
	struct part *p = container_of(post, struct part, broken_back);
	struct runner *r = p->r;

	log_error(r->log, "a role broke, the process ends", "role=%s error=\"%s\"",
	    p->name, err_text(p->broken_rc));
	if (r->rc == 0)
		r->rc = p->broken_rc;
	begin_stop(r, p->broken_rc);
}

static void
broken_there(void *ctx, int rc)
{
	struct part *p = ctx;

	p->broken_rc = rc;
	clock_post(p->r->clock, &p->broken_back, broken_here);
}

static void
unmounted_here(struct clock_post *post)
{
	struct part *p = container_of(post, struct part, unmounted_back);

	begin_stop(p->r, 0);
}

static void
unmounted_there(void *ctx)
{
	struct part *p = ctx;

	/* Before ready was passed on: the mount failed, which open_mount() tells. */
	if (p->ended)
		return;
	clock_post(p->r->clock, &p->unmounted_back, unmounted_here);
}

static void
open_mount(struct clock_post *post)
{
	struct part *p = container_of(post, struct part, open_there);
	const struct run_plan *plan = p->r->plan;
	struct client_fuse_opts opts = {
		.read_only = plan->mount_ro,
		.allow_other = plan->mount_allow_other,
		.fsname = plan->conf->cluster_name,
	};

	ready_there(p, client_fuse_open(&p->fuse, p->r->client->client,
	    process_loop(p->r->process, p->env), plan->mount, &opts, unmounted_there, p));
}

/* ---- stopping ---- */

static void
stopped_here(struct clock_post *post)
{
	struct part *p = container_of(post, struct part, stopped_back);

	p->stopped = true;
	stop_stage(p->r);
}

static void
stopped_there(void *ctx, int rc)
{
	struct part *p = ctx;

	if (rc != 0)
		log_warn(&p->env->log, "stopped with an error", "error=\"%s\"",
		    err_text(rc));
	clock_post(p->r->clock, &p->stopped_back, stopped_here);
}

static void
mount_closed(void *ctx)
{
	stopped_there(ctx, 0);
}

static void
stop_there(struct clock_post *post)
{
	struct part *p = container_of(post, struct part, stop_there);

	p->ended = true;
	switch (p->which) {
	case MOUNT:
		if (p->fuse != NULL)
			client_fuse_stop(p->fuse, mount_closed, p);
		else
			stopped_there(p, 0);
		break;
	case CLIENT:
		client_stop(p->client, stopped_there, p);
		break;
	case METADATA:
		metadata_stop(p->metadata, stopped_there, p);
		break;
	case STORAGE:
		storage_stop(p->storage, stopped_there, p);
		break;
	case MANAGER:
		manager_stop(p->manager, stopped_there, p);
		break;
	case WHICH_N:
		break;
	}
}

/* Stop all parts of the current stage; once they have, go to the next one. */
static void
stop_stage(struct runner *r)
{
	for (; r->stage < WHICH_N; r->stage++) {
		bool waiting = false;

		for (unsigned i = 0; i < r->part_n; i++) {
			struct part *p = &r->parts[i];

			if (p->which != r->stage || p->stopped)
				continue;
			waiting = true;
			if (!p->stopping) {
				p->stopping = true;
				clock_post(p->env->clock, &p->stop_there, stop_there);
			}
		}
		if (waiting)
			return;
	}
	clock_timer_stop(r->clock, &r->patience);
	process_quit(r->process);
}

static void
out_of_patience(struct clock_timer *t)
{
	struct runner *r = container_of(t, struct runner, patience);

	log_error(r->log, "stop takes too long, ending at once", "%s", "");
	_exit(1);
}

static void
begin_stop(struct runner *r, int rc)
{
	if (r->state == STOPPING)
		return;
	r->state = STOPPING;
	r->rc = rc;
	clock_timer_start(r->clock, &r->patience,
	    clock_now(r->clock) + STOP_MAX_MS * NS_PER_MS, out_of_patience);
	stop_stage(r);
}

static void
on_signal(void *ctx, int number)
{
	struct runner *r = ctx;

	(void)number;
	if (process_told_again(r->clock, &r->told_ns))
		_exit(1);
	begin_stop(r, 0);
}

/* Every sample to the log, whatever its level: somebody asked. */
static void
log_counters(void *ctx, int number)
{
	struct runner *r = ctx;
	size_t n;
	char *text = stat_text(process_stats(r->process), SIZE_MAX, &n), *rest = text;

	(void)number;
	for (char *line; (line = strsep(&rest, "\n")) != NULL;)
		if (line[0] != '#' && line[0] != '\0')
			log_write(r->log, LOG_INFO, "counter", "%s", line);
	free(text);
}

/* ---- opening ---- */

static int
below(const char *dir, const char *name, char out[RUN_PATH_MAX])
{
	if ((size_t)snprintf(out, RUN_PATH_MAX, "%s/%s", dir, name) >= RUN_PATH_MAX)
		return -ENAMETOOLONG;
	return 0;
}

static int
listen_addr(const struct conf *c, uint64_t port, struct net_addr *out)
{
	int rc = net_addr_parse(c->node_address, strlen(c->node_address), out, NULL);
	char text[80];

	/* The option is an address without a port. */
	if (rc != 0) {
		snprintf(text, sizeof(text), strchr(c->node_address, ':') != NULL ?
		    "[%s]:1" : "%s:1", c->node_address);
		rc = net_addr_parse(text, strlen(text), out, NULL);
	}
	out->port = (uint16_t)port;
	return rc;
}

/* Before anything in it is opened: two processes with one identity would drive each other
 * out for ever. */
static int
own(struct runner *r, const char *dir)
{
	char err[CONF_ERR_MAX];
	int rc = process_own(r->process, dir, err);

	if (rc != 0)
		log_error(r->log, "cannot have the directory for itself", "error=\"%s\"",
		    err);
	return rc;
}

static int
open_manager(struct runner *r, struct role_env *env)
{
	struct part *p = part_add(r, MANAGER, "manager", env);
	const struct run_plan *plan = r->plan;
	char dir[RUN_PATH_MAX];
	struct net_addr at;
	int rc;

	if ((rc = below(plan->dir, "manager", dir)) != 0 || (rc = own(r, dir)) != 0 ||
	    (rc = listen_addr(plan->conf, plan->conf->manager_port, &at)) != 0)
		return rc;
	rc = manager_open(&p->manager, env, dir, &at, plan->managers,
	    at.port == 0 ? 0 : plan->manager_n, ready_there, p);
	if (rc == -EADDRINUSE && plan->any_port) {
		at.port = 0;
		rc = manager_open(&p->manager, env, dir, &at, NULL, 0, ready_there, p);
	}
	if (rc != 0) {
		if (rc == -EADDRINUSE)
			log_error(r->log, "another process listens there",
			    "manager.port=%u", at.port);
		return rc;
	}
	manager_watch(p->manager, broken_there, p);
	manager_addr(p->manager, &r->manager_addr);
	return 0;
}

static int
open_metadata(struct runner *r, const struct net_addr *managers, unsigned n)
{
	struct role_env *env = process_add(r->process, "metadata");
	char dir[RUN_PATH_MAX], name[80];
	struct net_addr at;
	struct part *p;
	int rc;

	if (env == NULL)
		return -ENOMEM;
	p = part_add(r, METADATA, "metadata", env);
	snprintf(name, sizeof(name), "%s-metadata", r->plan->name);
	if ((rc = below(r->plan->dir, "metadata", dir)) != 0 || (rc = own(r, dir)) != 0 ||
	    (rc = listen_addr(r->plan->conf, r->plan->conf->metadata_port, &at)) != 0)
		return rc;
	rc = metadata_open(&p->metadata, env, dir, &at, managers, n, name, ready_there, p);
	if (rc == 0)
		metadata_watch(p->metadata, broken_there, p);
	return rc;
}

static int
open_storage(struct runner *r, const struct run_storage *s,
    const struct net_addr *managers, unsigned n)
{
	const struct conf *c = r->plan->conf;
	unsigned loops = (unsigned)c->storage_loops;
	struct net_addr at[64];
	struct storage_conf sc = {
		.loop_n = loops, .listen = at, .dir_path = s->dir, .disks = s->disks,
		.disk_n = s->disk_n, .managers = managers, .manager_n = n,
		.name = s->name,
	};
	struct part *p;
	int rc;

	assert(loops >= 1 && loops <= 64);
	p = part_add(r, STORAGE, s->name, NULL);
	if ((rc = own(r, s->dir)) != 0)
		return rc;
	if ((p->envs = calloc(loops, sizeof(*p->envs))) == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < loops; i++) {
		char who[80];
		struct role_env *env;

		snprintf(who, sizeof(who), loops > 1 ? "%s.%u" : "%s", s->name, i);
		if ((env = process_add(r->process, who)) == NULL)
			return -ENOMEM;
		if (i == 0)
			p->env = env;
		p->envs[i] = *env;
		if ((rc = listen_addr(c, s->port == 0 ? 0 : s->port + i, &at[i])) != 0)
			return rc;
	}
	sc.envs = p->envs;
	rc = storage_open(&p->storage, &sc, ready_there, p);
	if (rc == 0)
		storage_watch(p->storage, broken_there, p);
	return rc;
}

static int
open_client(struct runner *r, const struct net_addr *managers, unsigned n)
{
	struct role_env *env = process_add(r->process, "client");

	if (env == NULL)
		return -ENOMEM;
	r->client = part_add(r, CLIENT, "client", env);
	return client_open(&r->client->client, env, managers, n, r->plan->mount,
	    ready_there, r->client);
}

static int
open_all(struct runner *r, struct role_env *env)
{
	const struct run_plan *plan = r->plan;
	const struct net_addr *managers = plan->managers;
	unsigned n = plan->manager_n;
	int rc;

	if (plan->manager) {
		if ((rc = open_manager(r, env)) != 0)
			return rc;
		if (n < 2) {
			managers = &r->manager_addr;
			n = 1;
		}
	}
	if (plan->metadata && (rc = open_metadata(r, managers, n)) != 0)
		return rc;
	for (unsigned i = 0; i < plan->storage_n; i++)
		if ((rc = open_storage(r, &plan->storage[i], managers, n)) != 0)
			return rc;
	return plan->mount == NULL ? 0 : open_client(r, managers, n);
}

static void
close_all(struct runner *r)
{
	for (int w = 0; w < WHICH_N; w++) {
		for (unsigned i = 0; i < r->part_n; i++) {
			struct part *p = &r->parts[i];

			if (p->which != (enum which)w)
				continue;
			switch (p->which) {
			case MOUNT:
				client_fuse_close(p->fuse);
				break;
			case CLIENT:
				client_close(p->client);
				break;
			case METADATA:
				metadata_close(p->metadata);
				break;
			case STORAGE:
				storage_close(p->storage);
				free(p->envs);
				break;
			case MANAGER:
				manager_close(p->manager);
				break;
			case WHICH_N:
				break;
			}
		}
	}
}

/* All that must be written was written when the roles stopped.  A device that does not
 * answer may hold up threads that are waited for, and with them a process that should be
 * started again. */
static void
close_hangs(int number)
{
	static const char text[] = "fsd: closing takes too long, ending at once\n";

	(void)number;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(2);
	_exit(1);
}

int
run(const struct run_plan *plan)
{
	struct runner *r = calloc(1, sizeof(*r));
	struct role_env *env;
	int rc;

	if (r == NULL)
		return -ENOMEM;
	r->plan = plan;
	if ((rc = process_open(&r->process, plan->conf, plan->key)) != 0 ||
	    (env = process_add(r->process, plan->manager ? "manager" : "fsd")) == NULL) {
		fprintf(stderr, "fsd: cannot start: %s\n", err_text(rc));
		free(r);
		return rc != 0 ? rc : -ENOMEM;
	}
	r->log = &env->log;
	r->clock = env->clock;
	rc = loop_on_signal(process_loop(r->process, env), SIGTERM, on_signal, r);
	if (rc == 0)
		rc = loop_on_signal(process_loop(r->process, env), SIGINT, on_signal, r);
	if (rc == 0)
		rc = loop_on_signal(process_loop(r->process, env), SIGUSR1, log_counters,
		    r);
	if (rc == 0)
		rc = open_all(r, env);
	if (rc == 0) {
		rc = process_run(r->process);
		if (rc == 0)
			rc = r->rc;
	} else
		log_error(r->log, "cannot start", "role=%s error=\"%s\"",
		    r->part_n > 0 ? r->parts[r->part_n - 1].name : "fsd", err_text(rc));
	signal(SIGALRM, close_hangs);
	(void)alarm(CLOSE_MAX_S);
	close_all(r);
	process_close(r->process);
	(void)alarm(0);
	free(r);
	return rc;
}
