/* SPDX-License-Identifier: MIT */
/* storage_target.c - our replica of one chain: from one chain version to the next, and who
 * may ask what of it.
 *
 *   a new version --> operations of older ones end (their disk requests have to)
 *     --> the reading tail commits all that is pending: a former tail may have shown it
 *     --> and makes sure that nobody who was dropped alive still answers readers: asks
 *         it, or the managers what it has heard, or waits for the end of its lease
 *     --> takes operations
 *
 * On the way it answers ERR_CHAIN_RECOVERING: askers come again in milliseconds.  A target
 * that is not active in a version rests: it takes nothing. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "roles/storage_impl.h"

#define COMMIT_STEP	256u		/* pending versions in one turn of the loop */
#define RETRY_NS	(5 * NS_PER_MS)
#define FENCE_CALL_NS	(100 * NS_PER_MS)

static void settle(struct storage_target *t);

/* ---- requests ---- */

/* There is a newer version than ours, others say.  It was committed before anybody heard of
 * it: when we have a lease by a beat that was sent after that, and all routing that its
 * answer spoke of, and the version is not there, it never was. */
static bool
heard_newer(struct storage_target *t)
{
	struct storage_worker *w = t->w;
	uint64_t until = member_lease_until_ns(w->st->member);

	if (t->heard <= t->v.version)
		return false;
	if (until <= t->heard_ns + w->lease_ms * NS_PER_MS ||
	    w->routing < member_lease_routing(w->st->member))
		return true;
	log_error(&w->env->log, "no such version of the chain, who spoke of it is wrong",
	    "chain=%u version=%u heard=%u", t->v.chain, t->v.version, t->heard);
	stat_add(&w->stat.false_versions, 1);
	t->heard = t->v.version;
	return false;
}

int
storage_check(struct storage_worker *w, enum storage_right right, target_id target,
    chain_id chain, uint32_t version, struct storage_target **out)
{
	struct storage_target *t = map_get(&w->targets, target);
	bool ok = false;

	*out = t;
	if (t == NULL || t->gone || t->v.chain != chain) {
		storage_refresh(w);
		return ERR_NOT_OWNER;
	}
	if (!storage_lease(w))
		return ERR_NO_LEASE;
	/* Once we have heard of a newer version we answer for the old one no more. */
	if (version != t->v.version || heard_newer(t)) {
		if (version > t->v.version)
			storage_refresh(w);
		return ERR_STALE_CHAIN;
	}
	switch (right) {
	case STORAGE_READ:
		ok = t->v.pos < t->v.serving_n;
		break;
	case STORAGE_WRITE:
		ok = t->v.pos == 0 && t->v.serving_n > 0;
		break;
	case STORAGE_UPDATE:
		ok = t->v.pos > 0 && t->v.pos < t->v.active_n;
		break;
	case STORAGE_TAIL:
		ok = t->v.pos + 1u == t->v.serving_n;
		break;
	case STORAGE_LIST:
		ok = t->v.pos < t->v.active_n;	/* serving: fsd check */
		break;
	}
	if (!ok)
		return ERR_NOT_OWNER;
	/* The chain goes on without us as soon as the manager knows. */
	if (atomic_load(&t->disk->failed))
		return right == STORAGE_READ ? ERR_CORRUPT : ERR_CHAIN_RECOVERING;
	return t->craq.serving ? 0 : ERR_CHAIN_RECOVERING;
}

void
storage_heard(struct storage_worker *w, target_id target, chain_id chain,
    uint32_t version)
{
	struct storage_target *t = map_get(&w->targets, target);

	if (t == NULL || t->v.chain != chain || version <= t->heard)
		return;
	t->heard = version;
	t->heard_ns = clock_fresh(w->clock);
}

/* ---- into a version ---- */

static void
wake(struct storage_target *t)
{
	if (list_empty(&t->in_settling))
		list_push_back(&t->w->settling, &t->in_settling);
}

static void
settle_timer(struct clock_timer *timer)
{
	settle(container_of(timer, struct storage_target, settle_timer));
}

static void
settle_step(struct clock_defer *defer)
{
	settle(container_of(defer, struct storage_target, settle_step));
}

static void
settle_later(struct storage_target *t, uint64_t ns)
{
	clock_timer_start(t->w->clock, &t->settle_timer,
	    clock_now(t->w->clock) + ns, settle_timer);
}

/* A step of it.  True: all is committed. */
static bool
commit_pendings(struct storage_target *t)
{
	struct chunk_engine *e = t->disk->engine;
	struct chunk_info info;

	for (unsigned n = 0; n < COMMIT_STEP; n++) {
		int rc = chunk_engine_next_pending(e, t->v.target, t->settle_at,
		    t->settle_begun, &info);

		if (rc == -ENOENT)
			return true;
		if (rc == 0)
			rc = chunk_engine_commit(e, t->v.target, info.id,
			    info.pending);
		if (rc == -EIO) {
			storage_disk_failed(t->disk, "commit", rc);
			return false;		/* until the chain goes on without us */
		}
		if (rc != 0) {
			settle_later(t, RETRY_NS);
			return false;
		}
		stat_add(&t->w->stat.settled_chunks, 1);
		t->settle_at = info.id;
		t->settle_begun = true;
	}
	clock_defer(t->w->clock, &t->settle_step, settle_step);
	return false;
}

/* ---- those that were dropped alive ---- */

static void
fence_drop(struct storage_target *t, unsigned i)
{
	net_call_cancel(&t->fences[i].call);
	/* A call in flight stays where it is. */
	t->fences[i].target = 0;
	while (t->fence_n > 0 && t->fences[t->fence_n - 1].target == 0)
		t->fence_n--;
}

static void
fences_drop(struct storage_target *t)
{
	while (t->fence_n > 0)
		fence_drop(t, t->fence_n - 1);
}

/* Its answer may be anything as long as it is its own: it has heard of our version. */
static void
fence_answered(struct net_call *c, int rc)
{
	struct storage_fence *f = container_of(c, struct storage_fence, call);
	struct storage_target *t = f->t;

	if (rc == ERR_STALE_CHAIN || rc == ERR_NOT_OWNER || rc == ERR_NO_LEASE ||
	    rc == ERR_CHAIN_RECOVERING || rc == ERR_STOPPING) {
		fence_drop(t, (unsigned)(f - t->fences));
		settle(t);
	} else {
		storage_await(t->w);	/* the managers may hear it */
		settle_later(t, RETRY_NS);
	}
}

static void
fence_ask(struct storage_target *t)
{
	uint64_t now = clock_now(t->w->clock);

	for (unsigned i = 0; i < t->fence_n; i++) {
		struct storage_fence *f = &t->fences[i];
		struct msg_committed m = { .chain = t->v.chain,
		    .chain_version = t->v.version, .target = f->target,
		    .chunk = { 1, 0 } };
		struct net_call_opts opts = { .deadline_ns = now + FENCE_CALL_NS };

		if (f->target == 0 || net_call_active(&f->call))
			continue;
		f->t = t;
		if (net_call_start(&f->call, t->w->env->hub, &f->addr, MSG_committed,
		    &m, &opts, fence_answered) != 0) {
			storage_await(t->w);
			settle_later(t, RETRY_NS);
		}
	}
}

static unsigned
position(const struct storage_view_chain *v, target_id target)
{
	unsigned i = 0;

	while (i < v->n && v->replicas[i] != target)
		i++;
	return i;
}

/* How long who is up may still serve by older routing: its lease, counted from before this
 * version was made, and clocks may differ in speed by a tenth. */
static uint64_t
fence_ns(const struct storage_worker *w)
{
	uint64_t ms = w->env->conf->manager_lease;

	if (w->lease_ms > ms)
		ms = w->lease_ms;
	return (ms + ms / 10) * NS_PER_MS;
}

/* It serves in @v, so no read or write ends without it; or its lease has ended.  To sync is
 * not enough: writes do wait for it, but not those that were pending when this version began,
 * which the new reading tail shows by itself. */
static bool
harmless(const struct storage_view_chain *v, target_id target)
{
	unsigned at = position(v, target);

	return target == v->target || at < v->serving_n ||
	    (at < v->n && !v->up[at]);
}

static void
fence_add(struct storage_target *t, target_id target, node_id node,
    const struct net_addr *addr)
{
	unsigned f = 0;

	while (f < t->fence_n && t->fences[f].target != 0 &&
	    t->fences[f].target != target)
		f++;
	if (f == ROUTING_REPLICAS_MAX)
		return;			/* the time has to pass */
	net_call_cancel(&t->fences[f].call);
	t->fences[f].target = target;
	t->fences[f].node = node;
	t->fences[f].routing = t->w->routing;
	t->fences[f].addr = *addr;
	if (f == t->fence_n)
		t->fence_n++;
}

/* Who was active in the version we had, does not serve in @v, and may not know: it must not
 * answer readers any more once this chain commits without it.  A node that is down has lost its
 * lease; one that is up will know within a lease, since its beats tell it, or lose that.
 * When we have missed versions, or know of none, it may be anyone who does not serve.  Who
 * was SYNCING in the version right before this one has never answered a reader. */
static void
fence_dropped(struct storage_target *t, const struct storage_view_chain *v)
{
	const struct storage_view_chain *old = &t->v;
	uint64_t now = clock_fresh(t->w->clock);
	unsigned read_n = v->version == old->version + 1 ? old->serving_n :
	    old->n;

	if (now >= t->fence_until_ns)
		fences_drop(t);
	for (unsigned i = 0; i < t->fence_n; i++) {
		if (t->fences[i].target != 0 && harmless(v, t->fences[i].target)) {
			net_call_cancel(&t->fences[i].call);
			t->fences[i].target = 0;
		}
	}
	for (unsigned i = 0; i < read_n; i++) {
		unsigned at = position(v, old->replicas[i]);

		if (!harmless(v, old->replicas[i]))
			fence_add(t, old->replicas[i], old->nodes[i], at < v->n ?
			    &v->addrs[at] : &old->addrs[i]);
	}
	for (unsigned i = v->serving_n; v->version > old->version + 1 && i < v->n; i++)
		if (!harmless(v, v->replicas[i]))
			fence_add(t, v->replicas[i], v->nodes[i], &v->addrs[i]);
	while (t->fence_n > 0 && t->fences[t->fence_n - 1].target == 0)
		t->fence_n--;
	t->fence_until_ns = now + fence_ns(t->w);
}

/* Who is down by now has no lease. */
static void
fences_look(struct storage_target *t)
{
	for (unsigned i = t->fence_n; i-- > 0;) {
		unsigned at = position(&t->v, t->fences[i].target);

		if (i < t->fence_n && at < t->v.n && !t->v.up[at])
			fence_drop(t, i);
	}
	if (!list_empty(&t->in_settling))
		settle(t);
}

/* Nodes that fences wait for; each once. */
unsigned
storage_fence_nodes(struct storage_worker *w, node_id *nodes, unsigned max)
{
	unsigned n = 0;

	list_for_each(it, &w->settling) {
		const struct storage_target *t = list_entry(it,
		    struct storage_target, in_settling);

		for (unsigned i = 0; i < t->fence_n; i++) {
			unsigned k = 0;

			while (k < n && nodes[k] != t->fences[i].node)
				k++;
			if (t->fences[i].target != 0 && k == n && n < max)
				nodes[n++] = t->fences[i].node;
		}
	}
	return n;
}

/* A node that answers nobody by routing older than that of our version has heard of it. */
void
storage_fences_heard(struct storage_worker *w, const struct msg_heard *rows, unsigned n)
{
	list_for_each_safe(it, next, &w->settling) {
		struct storage_target *t = list_entry(it, struct storage_target,
		    in_settling);
		bool any = false;

		for (unsigned i = t->fence_n; i-- > 0;) {
			for (unsigned k = 0; k < n && i < t->fence_n; k++) {
				if (t->fences[i].target == 0 ||
				    t->fences[i].node != rows[k].node ||
				    rows[k].routing < t->fences[i].routing)
					continue;
				fence_drop(t, i);
				any = true;
			}
		}
		if (any)
			settle(t);
	}
}

/* ---- settling ---- */

static void
serve(struct storage_target *t)
{
	list_remove(&t->in_settling);
	clock_undefer(t->w->clock, &t->settle_step);
	clock_timer_stop(t->w->clock, &t->settle_timer);
	chunk_craq_serve(t->w->craq, &t->craq);
	stat_add(&t->w->stat.moves, 1);
	if (t->craq.head && !t->was_head) {
		t->head_since = t->v.version;
		storage_left_scan(t);
	}
	t->was_head = t->craq.head;
	if (t->craq.read_tail && t->v.active_n > t->v.serving_n && !t->w->stopping)
		storage_sync_start(t);
}

/* As far as it gets now; what it waits for calls again. */
static void
settle(struct storage_target *t)
{
	uint64_t now = clock_now(t->w->clock);

	if (list_empty(&t->in_settling) || t->craq.stale != 0 ||
	    atomic_load(&t->disk->failed))
		return;
	if (t->craq.read_tail) {
		if (!t->committed && !(t->committed = commit_pendings(t)))
			return;
		if (t->fence_n > 0 && now < t->fence_until_ns) {
			fence_ask(t);
			if (t->settle_timer.pos == 0)
				settle_later(t, t->fence_until_ns - now);
			return;
		}
		fences_drop(t);
	}
	serve(t);
}

void
storage_settle(struct storage_worker *w)
{
	struct list now, *it;

	list_init(&now);
	list_splice_back(&now, &w->settling);
	while ((it = list_pop_front(&now)) != NULL) {
		struct storage_target *t = list_entry(it, struct storage_target,
		    in_settling);

		list_push_back(&w->settling, it);
		if (t->settle_timer.pos == 0)
			settle(t);
	}
}

/* ---- views ---- */

static struct storage_target *
target_open(struct storage_worker *w, const struct storage_view_chain *v)
{
	struct storage_target *t;
	struct storage_disk *disk = NULL;

	for (unsigned i = 0; i < w->disk_n; i++)
		if (w->disks[i].open && uid128_eq(&w->disks[i].id, &v->disk))
			disk = &w->disks[i];
	if (disk == NULL)
		return NULL;		/* moved away, or failed to open */
	if ((t = calloc(1, sizeof(*t))) == NULL)
		return NULL;
	t->w = w;
	t->disk = disk;
	list_init(&t->attempts);
	list_init(&t->in_settling);
	list_init(&t->in_scans);
	chunk_craq_target_init(&t->craq, v->target);
	if (map_put(&w->targets, v->target, t) != 0) {
		free(t);
		return NULL;
	}
	return t;
}

/* A new chain is empty.  Where its place on our disk is not, the chunks are of another
 * cluster (which counts its targets from one, too): they would pass for what was written
 * here. */
static void
must_be_empty(struct storage_target *t, const struct storage_view_chain *v)
{
	struct chunk_info info;

	if (chunk_engine_next(t->disk->engine, v->target, (struct chunk_id){ 0, 0 },
	    false, &info) == 0)
		storage_disk_failed(t->disk, "chunks of another cluster", -EEXIST);
}

static void
target_move(struct storage_target *t, const struct storage_view_chain *v)
{
	struct storage_worker *w = t->w;
	bool active = v->pos < v->active_n;
	bool dropped = t->v.pos < t->v.serving_n && v->pos >= v->serving_n;

	log_info(&w->env->log, "chain moved",
	    "chain=%u version=%u target=%u pos=%u serving=%u active=%u of=%u", v->chain,
	    v->version, v->target, v->pos, v->serving_n, v->active_n, v->n);
	storage_sync_stop(t);
	fence_dropped(t, v);
	if (v->version == 1)
		must_be_empty(t, v);
	t->v = *v;
	if (v->version > t->heard)
		t->heard = v->version;
	t->wait_ns = 0;
	t->committed = t->settle_begun = false;
	t->settle_at = (struct chunk_id){ 0, 0 };
	list_remove(&t->in_settling);
	clock_undefer(w->clock, &t->settle_step);
	clock_timer_stop(w->clock, &t->settle_timer);
	if (active) {
		struct chunk_craq_place place = { .version = v->version,
		    .head = v->pos == 0, .tail = v->pos + 1u == v->active_n,
		    .read_tail = v->pos + 1u == v->serving_n,
		    .syncing = v->pos >= v->serving_n,
		    .whole = v->pos + 1u == v->serving_n &&
			v->active_n > v->serving_n };

		chunk_craq_move(w->craq, &t->craq, &place);
		wake(t);
	} else {
		t->was_head = false;
		fences_drop(t);
		chunk_craq_rest(w->craq, &t->craq, v->version);
	}
	if (dropped)
		storage_dropped(w);
	storage_run(w);
}

static void
target_view(struct storage_target *t, const struct storage_view_chain *v)
{
	t->seen = true;
	t->gone = false;
	if (v->version > t->v.version) {
		target_move(t, v);
	} else if (v->version == t->v.version) {
		memcpy(t->v.addrs, v->addrs, sizeof(t->v.addrs));
		memcpy(t->v.up, v->up, sizeof(t->v.up));
		fences_look(t);
	}
}

/* It is not ours any more: its disk is another's, or so is the chain's place. */
static void
target_gone(struct storage_target *t)
{
	struct storage_worker *w = t->w;

	if (t->v.pos < t->v.serving_n && !w->stopping)
		storage_dropped(w);
	t->gone = true;
	t->was_head = false;
	storage_sync_stop(t);
	list_remove(&t->in_settling);
	clock_undefer(w->clock, &t->settle_step);
	clock_timer_stop(w->clock, &t->settle_timer);
	fences_drop(t);
	chunk_craq_rest(w->craq, &t->craq, t->v.version);
	storage_run(w);
}

/* Routing from before this process was registered says nothing about it. */
void
storage_worker_view(struct storage_worker *w, struct storage_view *view)
{
	struct storage_target *t;
	size_t it = 0;

	assert(!w->running);
	w->current = view->current;
	w->routing = view->routing;
	w->lease_ms = view->lease_ms;
	while ((t = map_next(&w->targets, &it, NULL)) != NULL)
		t->seen = false;
	for (uint32_t i = 0; view->current && i < view->n; i++) {
		const struct storage_view_chain *v = &view->chains[i];

		t = map_get(&w->targets, v->target);
		if (t == NULL)
			t = target_open(w, v);
		if (t != NULL)
			target_view(t, v);
	}
	it = 0;
	while ((t = map_next(&w->targets, &it, NULL)) != NULL) {
		if (!t->seen && !t->gone)
			target_gone(t);
	}
	storage_relay_moved(w);
	free(view);
}

/* ---- the end ---- */

void
storage_targets_rest(struct storage_worker *w)
{
	struct storage_target *t;
	size_t it = 0;

	while ((t = map_next(&w->targets, &it, NULL)) != NULL) {
		if (!t->gone)
			target_gone(t);
	}
	storage_relay_moved(w);
}

void
storage_targets_close(struct storage_worker *w)
{
	struct storage_target *t;
	size_t it = 0;

	while ((t = map_next(&w->targets, &it, NULL)) != NULL) {
		clock_undefer(w->clock, &t->settle_step);
		clock_timer_stop(w->clock, &t->settle_timer);
		fences_drop(t);
		free(t);
	}
	map_fini(&w->targets);
}
