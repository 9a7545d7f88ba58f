/* SPDX-License-Identifier: MIT */
/* storage.c - a storage node as a whole: opening, membership, routing, stopping.
 *
 *   OPENING -> JOINING -> SERVING -> LEAVING -> STOPPING -> STOPPED
 *   engines    register,             goodbye    drain,
 *              lease, routing                   flush
 *
 * The main loop alone speaks to the manager.  Whether this process may serve is judged by
 * every request: lease not run out, and routing names this very process (boot id) as the
 * node's, so that routing from before a restart is never acted upon. */
#include "roles/storage.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "roles/storage_impl.h"

#define VIEW_PAUSE_NS	NS_PER_S

/* ---- between loops ---- */

static void
gate_put(struct storage_gate *gate)
{
	if (atomic_fetch_sub(&gate->refs, 1) == 1)
		free(gate);
}

static void
post_run(struct clock_post *post)
{
	struct storage_post *p = container_of(post, struct storage_post, post);
	struct storage *st = atomic_load(&p->gate->st);

	if (st != NULL)
		p->fn(st, p);
	gate_put(p->gate);
	free(p->view);
	free(p->told);
	free(p->progress);
	free(p->heard);
	free(p);
}

struct storage_post *
storage_post_make(storage_post_fn *fn)
{
	struct storage_post *p = calloc(1, sizeof(*p));

	if (p != NULL)
		p->fn = fn;
	return p;
}

void
storage_post_send(struct storage *st, unsigned to, struct storage_post *p)
{
	p->gate = st->gate;
	atomic_fetch_add(&p->gate->refs, 1);
	clock_post(st->workers[to].clock, &p->post, post_run);
}

/* ---- routing ---- */

static void
refresh_posted(struct storage *st, struct storage_post *p)
{
	atomic_store(&st->workers[p->loop].refresh_asked, false);
	if (st->member != NULL)
		member_refresh(st->member);
}

void
storage_refresh(struct storage_worker *w)
{
	struct storage_post *p;

	if (w->loop == 0) {
		if (w->st->member != NULL)
			member_refresh(w->st->member);
		return;
	}
	if (atomic_exchange(&w->refresh_asked, true))
		return;
	if ((p = storage_post_make(refresh_posted)) == NULL) {
		atomic_store(&w->refresh_asked, false);
		return;
	}
	p->loop = w->loop;
	storage_post_send(w->st, 0, p);
}

/* A disk has failed; with the last one the node is of no use. */
static void
disk_lost(struct storage *st)
{
	role_fn *fn = st->watch;
	unsigned left = 0;

	if (st->member != NULL)
		member_beat_now(st->member);
	for (unsigned l = 0; l < st->loop_n; l++)
		for (unsigned i = 0; i < st->workers[l].disk_n; i++)
			left += st->workers[l].disks[i].open &&
			    !atomic_load(&st->workers[l].disks[i].failed);
	if (left > 0 || fn == NULL || st->phase != STORAGE_SERVING)
		return;
	st->watch = NULL;
	log_error(&st->env->log, "no disk is left", "name=%s", st->name);
	fn(st->watch_ctx, -EIO);
}

static void
beat_posted(struct storage *st, struct storage_post *p)
{
	(void)p;
	disk_lost(st);
}

void
storage_beat_now(struct storage_worker *w)
{
	struct storage_post *p;

	if (w->loop == 0) {
		disk_lost(w->st);
	} else if ((p = storage_post_make(beat_posted)) != NULL) {
		storage_post_send(w->st, 0, p);
	}					/* else the next beat tells it */
}

static bool
ours(const struct storage *st, const struct routing *r)
{
	const struct routing_node *n = routing_node(r, member_node(st->member));

	return n != NULL && uid128_eq(&n->boot, member_boot(st->member));
}

static void
view_row(const struct routing *r, const struct routing_chain *c,
    const struct routing_target *t, unsigned pos, struct storage_view_chain *v)
{
	*v = (struct storage_view_chain){ .target = t->id, .chain = c->id,
	    .version = c->version, .n = (uint8_t)c->target_n,
	    .serving_n = (uint8_t)routing_serving_n(c),
	    .active_n = (uint8_t)routing_active_n(c),
	    .pos = (uint8_t)pos, .disk = t->disk };
	for (unsigned i = 0; i < c->target_n; i++) {
		const struct routing_target *other = routing_target(r,
		    c->targets[i]);
		const struct routing_node *n = other == NULL ? NULL :
		    routing_node(r, other->node);

		v->replicas[i] = c->targets[i];
		v->nodes[i] = other != NULL ? other->node : 0;
		v->apart[i] = c->states[i] == TARGET_APART;
		v->up[i] = n != NULL && n->state == NODE_UP;
		if (routing_target_addr(r, c->targets[i], &v->addrs[i]) != 0)
			v->addrs[i] = (struct net_addr){ 0 };
	}
}

/* The chains of @loop; two passes, counting first. NULL: no memory. */
static struct storage_view *
view_make(const struct storage *st, const struct routing *r, unsigned loop)
{
	node_id node = member_node(st->member);
	struct storage_view *view = NULL;
	uint32_t n = 0;

	for (int pass = 0; pass < 2; pass++) {
		const struct routing_chain *c;

		if (pass == 1) {
			view = calloc(1, sizeof(*view) +
			    n * sizeof(view->chains[0]));
			if (view == NULL)
				return NULL;
			view->current = ours(st, r);
			view->routing = routing_version(r);
			view->lease_ms = member_lease_ms(st->member);
		}
		n = 0;
		for (unsigned i = 0; (c = routing_chain_at(r, i)) != NULL; i++) {
			for (unsigned k = 0; k < c->target_n; k++) {
				const struct routing_target *t =
				    routing_target(r, c->targets[k]);

				if (t == NULL || t->node != node ||
				    t->loop != loop)
					continue;
				if (pass == 1)
					view_row(r, c, t, k, &view->chains[n]);
				n++;
			}
		}
	}
	view->n = n;
	return view;
}

static void
view_posted(struct storage *st, struct storage_post *p)
{
	struct storage_view *view = p->view;

	p->view = NULL;
	storage_worker_view(&st->workers[p->loop], view);
}

static void	view_again(struct clock_timer *timer);

/* Without memory for it a loop has no lease by routing that is newer: it has to get it. */
static void
view_missing(struct storage *st, unsigned loop)
{
	log_error(&st->env->log, "no memory for routing", "loop=%u", loop);
	clock_timer_start(st->env->clock, &st->view_timer,
	    clock_now(st->env->clock) + VIEW_PAUSE_NS, view_again);
}

static void
spread_views(struct storage *st, const struct routing *r)
{
	for (unsigned i = 0; i < st->loop_n; i++) {
		struct storage_view *view = view_make(st, r, i);
		struct storage_post *p;

		if (view == NULL) {
			view_missing(st, i);
			continue;
		}
		if (i == 0) {
			storage_worker_view(&st->workers[0], view);
			continue;
		}
		if ((p = storage_post_make(view_posted)) == NULL) {
			free(view);
			view_missing(st, i);
			continue;
		}
		p->view = view;
		p->loop = i;
		storage_post_send(st, i, p);
	}
}

static void
view_again(struct clock_timer *timer)
{
	struct storage *st = container_of(timer, struct storage, view_timer);

	if (st->phase < STORAGE_LEAVING)
		spread_views(st, member_routing(st->member));
}

/* Routing has changed, or a lease was won. */
static void
changed(void *ctx)
{
	struct storage *st = ctx;
	const struct routing *r = member_routing(st->member);

	if (st->phase >= STORAGE_LEAVING)
		return;
	spread_views(st, r);
	storage_told_check(st, r);
	if (st->phase == STORAGE_JOINING && ours(st, r) &&
	    member_lease_until_ns(st->member) > clock_now(st->env->clock)) {
		role_fn *fn = st->ready;

		log_info(&st->env->log, "serving", "node=%u name=%s",
		    member_node(st->member), st->name);
		st->phase = STORAGE_SERVING;
		st->ready = NULL;
		disk_lost(st);			/* all may be by now */
		fn(st->ready_ctx, 0);
	}
}

static unsigned
disk_rows(void *ctx, struct msg_disk_info *rows, unsigned max)
{
	struct storage *st = ctx;
	unsigned n = 0;

	for (unsigned l = 0; l < st->loop_n; l++) {
		struct storage_worker *w = &st->workers[l];

		for (unsigned i = 0; i < w->disk_n && n < max; i++) {
			struct storage_disk *d = &w->disks[i];

			if (!d->open)
				continue;
			rows[n++] = (struct msg_disk_info){ .disk = d->id,
			    .loop = l, .path = msg_str(d->path),
			    .capacity = atomic_load(&d->capacity),
			    .used = atomic_load(&d->used),
			    .targets = (uint32_t)
				st->env->conf->storage_targets_per_disk,
			    .failed = atomic_load(&d->failed),
			    .damaged = atomic_load(&d->damaged) };
		}
	}
	return n;
}

/* ---- opening ---- */

static void
never(struct storage *st, int rc)
{
	role_fn *fn = st->ready;

	if (fn == NULL)
		return;
	st->ready = NULL;
	fn(st->ready_ctx, rc);
}

static int
join(struct storage *st)
{
	struct net_addr addrs[ROUTING_LOOPS_MAX];
	struct member_conf mc = { .clock = st->env->clock,
	    .rand = st->env->rand, .log = &st->env->log, .hub = st->env->hub,
	    .managers = st->managers, .manager_n = st->manager_n,
	    .roles = NODE_STORAGE, .node_uid = st->node_uid, .boot = st->boot,
	    .name = st->name, .addrs = addrs, .addr_n = st->loop_n,
	    .disks = disk_rows, .syncs = storage_progress_rows,
	    .neighbours = storage_neighbour_rows,
	    .awaited = storage_awaited_rows, .heard = storage_heard_rows,
	    .changed = changed, .ctx = st };

	for (unsigned i = 0; i < st->loop_n; i++)
		addrs[i] = st->workers[i].addr;
	return member_open(&st->member, &mc);
}

static void
loop_opened(struct storage *st, int rc)
{
	unsigned disks = 0;

	if (rc != 0 && st->open_rc == 0)
		st->open_rc = rc;
	if (--st->loops_busy > 0 || st->phase != STORAGE_OPENING)
		return;
	rc = 0;
	for (unsigned i = 0; i < st->loop_n; i++) {
		disks += storage_worker_disks(&st->workers[i]);
		/* A loop without its listener is no use: do not join half. */
		if (st->workers[i].server == NULL)
			rc = st->open_rc;
	}
	if (rc == 0 && disks == 0)
		rc = st->open_rc != 0 ? st->open_rc : -ENODEV;
	if (rc == 0) {
		st->phase = STORAGE_JOINING;
		rc = join(st);
	}
	if (rc != 0)
		never(st, rc);
}

static void
opened_posted(struct storage *st, struct storage_post *p)
{
	loop_opened(st, p->rc);
}

/* On the loop of @w; a post that cannot be made leaves the node opening for ever, which
 * the operator sees: there is no memory at start-up. */
void
storage_worker_opened(struct storage_worker *w, int rc)
{
	struct storage_post *p;

	if (w->loop == 0) {
		loop_opened(w->st, rc);
		return;
	}
	if ((p = storage_post_make(opened_posted)) == NULL) {
		log_error(&w->env->log, "no memory to start", "loop=%u",
		    w->loop);
		return;
	}
	p->rc = rc;
	storage_post_send(w->st, 0, p);
}

static void
start_posted(struct storage *st, struct storage_post *p)
{
	struct storage_worker *w = &st->workers[p->loop];
	int rc = storage_worker_start(w, &p->listen);

	if (rc != 0)
		storage_worker_opened(w, rc);
}

static int
start_loops(struct storage *st, const struct storage_conf *conf)
{
	int rc;

	st->loops_busy = st->loop_n;
	for (unsigned i = 1; i < st->loop_n; i++) {
		struct storage_post *p = storage_post_make(start_posted);

		if (p == NULL)
			return -ENOMEM;
		p->loop = i;
		p->listen = conf->listen[i];
		storage_post_send(st, i, p);
	}
	/* The main loop's at once, so that its address is known. */
	rc = storage_worker_start(&st->workers[0], &conf->listen[0]);
	return rc;
}

int
storage_open(struct storage **out, const struct storage_conf *conf,
    role_fn *ready, void *ctx)
{
	const struct role_env *env = &conf->envs[0];
	struct storage *st;
	int rc = -ENOMEM;

	*out = NULL;
	if (conf->loop_n == 0 || conf->loop_n > ROUTING_LOOPS_MAX ||
	    conf->disk_n > STORAGE_DISKS_MAX || conf->manager_n == 0)
		return -EINVAL;
	if ((st = calloc(1, sizeof(*st))) == NULL)
		return -ENOMEM;
	st->env = env;
	st->loop_n = conf->loop_n;
	list_init(&st->tolds);
	st->workers = calloc(st->loop_n, sizeof(*st->workers));
	st->progress = calloc(st->loop_n, sizeof(*st->progress));
	if ((st->gate = calloc(1, sizeof(*st->gate))) != NULL) {
		atomic_init(&st->gate->refs, 1);
		atomic_init(&st->gate->st, st);
	}
	st->name = strdup(conf->name);
	st->managers = calloc(conf->manager_n, sizeof(*st->managers));
	if (st->workers == NULL || st->progress == NULL || st->gate == NULL ||
	    st->name == NULL || st->managers == NULL)
		goto fail;
	memcpy(st->managers, conf->managers,
	    conf->manager_n * sizeof(*st->managers));
	st->manager_n = conf->manager_n;
	if ((rc = env->dir(env->ctx, conf->dir_path, true, &st->dir)) != 0)
		goto fail;
	rc = role_uid_file(env, st->dir, "node", &st->node_uid);
	if (rc != 0)
		goto fail;
	env->random(env->ctx, &st->boot, sizeof(st->boot));
	for (unsigned i = 0; i < st->loop_n; i++)
		if ((rc = storage_worker_init(&st->workers[i], st, i, conf)) != 0)
			goto fail;
	if ((rc = start_loops(st, conf)) != 0)
		goto fail;
	st->ready = ready;
	st->ready_ctx = ctx;
	*out = st;
	return 0;
fail:
	storage_close(st);
	return rc;
}

void
storage_addr(const struct storage *s, unsigned loop, struct net_addr *out)
{
	assert(loop < s->loop_n);
	*out = s->workers[loop].addr;
}

/* ---- stopping ---- */

void
storage_watch(struct storage *st, role_fn *fn, void *ctx)
{
	st->watch = fn;
	st->watch_ctx = ctx;
}

static void
loop_stopped(struct storage *st)
{
	if (--st->loops_busy > 0)
		return;
	st->phase = STORAGE_STOPPED;
	never(st, -ECANCELED);
	st->stopped(st->stopped_ctx, 0);
}

static void
stopped_posted(struct storage *st, struct storage_post *p)
{
	(void)p;
	loop_stopped(st);
}

void
storage_worker_stopped(struct storage_worker *w)
{
	struct storage_post *p;

	if (w->loop == 0)
		loop_stopped(w->st);
	else if ((p = storage_post_make(stopped_posted)) != NULL)
		storage_post_send(w->st, 0, p);
}

static void
stop_posted(struct storage *st, struct storage_post *p)
{
	storage_worker_stop(&st->workers[p->loop]);
}

/* The manager has our goodbye, or does not answer: the chains go on without us. */
static void
left(void *ctx)
{
	struct storage *st = ctx;

	st->phase = STORAGE_STOPPING;
	st->loops_busy = st->loop_n;
	for (unsigned i = 1; i < st->loop_n; i++) {
		struct storage_post *p = storage_post_make(stop_posted);

		if (p == NULL) {
			st->loops_busy--;	/* it is cut off at close */
			continue;
		}
		p->loop = i;
		storage_post_send(st, i, p);
	}
	storage_worker_stop(&st->workers[0]);
}

static void
tolds_free(struct storage *st)
{
	while (!list_empty(&st->tolds))
		storage_told_free(list_entry(st->tolds.next, struct storage_told,
		    node));
}

/* Goodbye first: leaving gives up the lease, so that nothing new is taken while the chains
 * move; what is under way may still end well until they have. */
void
storage_stop(struct storage *st, role_fn *fn, void *ctx)
{
	assert(st->phase < STORAGE_LEAVING);
	st->phase = STORAGE_LEAVING;
	st->stopped = fn;
	st->stopped_ctx = ctx;
	tolds_free(st);
	if (st->member != NULL)
		member_leave(st->member, left, st);
	else
		left(st);
}

void
storage_close(struct storage *st)
{
	if (st == NULL)
		return;
	if (st->gate != NULL) {
		atomic_store(&st->gate->st, NULL);
		gate_put(st->gate);
	}
	tolds_free(st);
	clock_timer_stop(st->env->clock, &st->view_timer);
	member_close(st->member);
	st->member = NULL;
	for (unsigned i = 0; st->workers != NULL && i < st->loop_n; i++)
		storage_worker_close(&st->workers[i]);
	if (st->dir != NULL)
		st->dir->ops->close(st->dir);
	free(st->workers);
	free(st->progress);
	free(st->managers);
	free(st->name);
	free(st);
}

struct chunk_engine *
storage_engine_at(struct storage *st, unsigned i)
{
	for (unsigned l = 0; l < st->loop_n; l++) {
		struct storage_worker *w = &st->workers[l];

		for (unsigned k = 0; k < w->disk_n; k++)
			if (w->disks[k].open && i-- == 0)
				return w->disks[k].engine;
	}
	return NULL;
}

const struct routing *
storage_routing(const struct storage *st)
{
	return st->member != NULL ? member_routing(st->member) : NULL;
}
