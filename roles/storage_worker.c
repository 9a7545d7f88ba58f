/* SPDX-License-Identifier: MIT */
/* storage_worker.c - one loop of a storage node: its listener, its disks, its targets. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "roles/storage_impl.h"

STAT_DEFINE(storage, STORAGE_STATS)

#define DRAIN_NS	NS_PER_S	/* requests may take this long to end at a stop */
#define DRAIN_POLL_NS	(2 * NS_PER_MS)
#define FLUSH_NS	(10 * NS_PER_S)	/* and a disk may take so long then */

int
storage_worker_init(struct storage_worker *w, struct storage *st, unsigned loop,
    const struct storage_conf *conf)
{
	const struct conf *c = conf->envs[loop].conf;
	int rc;

	w->st = st;
	w->env = &conf->envs[loop];
	w->clock = w->env->clock;
	w->loop = loop;
	w->ticks = 1;
	map_init(&w->targets);
	list_init(&w->ops);
	list_init(&w->free_ops);
	list_init(&w->reads);
	list_init(&w->fetches);
	list_init(&w->pieces);
	list_init(&w->relays);
	list_init(&w->cuts);
	list_init(&w->left);
	list_init(&w->left_trying);
	list_init(&w->scans);
	list_init(&w->settling);
	list_init(&w->syncs);
	list_init(&w->sync_queue);
	rc = mem_pool_open(&w->pool, c->storage_memory, c->storage_buffer_keep);
	if (rc == 0)
		rc = net_mem_pool(w->env->hub, w->pool);
	if (rc != 0)
		return rc;
	w->cut_row_n = conf->cuts > 0 ? (conf->cuts + STORAGE_CUT_WAYS - 1) /
	    STORAGE_CUT_WAYS * STORAGE_CUT_WAYS : STORAGE_CUTS;
	w->cut_rows = calloc(w->cut_row_n, sizeof(*w->cut_rows));
	if (w->cut_rows == NULL)
		return -ENOMEM;
	/* A request is at most one chunk in work, a cut CUT_OPS and more of them. */
	rc = chunk_craq_open(&w->craq, (unsigned)c->net_requests_max + 4096);
	if (rc != 0)
		return rc;
	if (conf->disk_n == 0)
		return 0;
	w->disks = calloc(conf->disk_n, sizeof(*w->disks));
	if (w->disks == NULL)
		return -ENOMEM;
	for (unsigned i = loop; i < conf->disk_n; i += conf->loop_n) {
		struct storage_disk *d = &w->disks[w->disk_n++];

		d->w = w;
		if ((d->path = strdup(conf->disks[i])) == NULL)
			return -ENOMEM;
	}
	return 0;
}

/* ---- requests ---- */

bool
storage_lease(const struct storage_worker *w)
{
	/* There is no view before there is a member.  A lease that was lost and won again
	 * comes with routing that may have taken chains from us. */
	return w->current && w->st->member != NULL &&
	    clock_fresh(w->clock) < member_lease_until_ns(w->st->member) &&
	    w->routing >= member_lease_routing(w->st->member);
}

bool
storage_memory(const struct storage_worker *w, unsigned pos, unsigned n,
    size_t bytes)
{
	size_t max = w->env->conf->storage_memory, limit = max;

	if (n > 1)
		limit = max / 2 + max / 2 / (n - 1) * pos;
	return mem_used_bytes(w->pool) + bytes <= limit;
}

void
storage_disk_failed(struct storage_disk *d, const char *what, int rc)
{
	if (atomic_exchange(&d->failed, true))
		return;
	log_error(&d->w->env->log, "disk failed, its targets are refused",
	    "disk=%s what=%s rc=%s", d->path, what, err_name(rc));
	storage_beat_now(d->w);
}

static void
serve(void *ctx, struct net_req *req)
{
	struct storage_worker *w = ctx;

	switch (req->method) {
	case MSG_read:
		storage_read_call(w, req);
		break;
	case MSG_write:
		storage_write_call(w, req);
		break;
	case MSG_update:
		storage_update_call(w, req);
		break;
	case MSG_committed:
		storage_committed_call(w, req);
		break;
	case MSG_cut:
		storage_cut_call(w, req);
		break;
	case MSG_last:
		storage_last_call(w, req);
		break;
	case MSG_list:
		storage_list_call(w, req);
		break;
	case MSG_fetch:
		storage_fetch_call(w, req);
		break;
	case MSG_mend:
		storage_mend_call(w, req);
		break;
	case MSG_storage_stats:
		role_stats_call(w->env, req);
		break;
	default:
		net_reply(req, ERR_BAD_METHOD, NULL, NULL, 0, NULL, NULL);
	}
}

/* ---- opening ---- */

static void
publish(struct storage_worker *w)
{
	uint64_t capacities = 0, useds = 0;

	for (unsigned i = 0; i < w->disk_n; i++) {
		struct storage_disk *d = &w->disks[i];
		uint64_t capacity, used;

		if (!d->open)
			continue;
		if (chunk_engine_state(d->engine) != 0)
			storage_disk_failed(d, "engine",
			    chunk_engine_state(d->engine));
		chunk_engine_space(d->engine, &capacity, &used);
		atomic_store(&d->capacity, capacity);
		atomic_store(&d->used, used);
		atomic_store(&d->damaged, chunk_engine_damaged(d->engine));
		capacities += capacity;
		useds += used;
	}
	stat_set(&w->stat.capacity_bytes, capacities);
	stat_set(&w->stat.used_bytes, useds);
	stat_set(&w->stat.buffer_bytes, mem_used_bytes(w->pool));
}

static void
beat(struct clock_timer *timer)
{
	struct storage_worker *w = container_of(timer, struct storage_worker,
	    beat);
	bool news = storage_apart_tick(w);

	w->ticks++;
	publish(w);
	mem_age(w->pool);
	storage_ops_watch(w);
	storage_relay_watch(w);
	storage_progress(w);
	if (news)
		storage_beat_now(w);
	clock_timer_start(w->clock, timer, clock_now(w->clock) + STORAGE_TICK_NS,
	    beat);
}

static void
opened(struct clock_timer *timer)
{
	struct storage_worker *w = container_of(timer, struct storage_worker,
	    beat);

	beat(timer);
	storage_worker_opened(w, w->open_rc);
}

static void
disk_opened(void *ctx, int rc)
{
	struct storage_disk *d = ctx;
	struct storage_worker *w = d->w;

	if (rc == 0)
		rc = storage_care_open(d);
	if (rc == 0) {
		d->open = true;
		d->id = *chunk_engine_disk(d->engine);
	} else {
		log_error(&w->env->log, "disk not opened", "disk=%s rc=%s why=%s",
		    d->path, err_name(rc), err_text(rc));
		if (w->open_rc == 0)
			w->open_rc = rc;
	}
	if (--w->disks_opening == 0 && !w->stopping)
		clock_timer_start(w->clock, &w->beat, clock_now(w->clock),
		    opened);
}

static int
disk_open(struct storage_disk *d)
{
	const struct role_env *env = d->w->env;
	struct chunk_engine_conf conf = { .clock = env->clock, .log = &env->log,
	    .pool = d->w->pool, .index_bytes = env->conf->storage_index_size,
	    .full_percent = (uint32_t)env->conf->storage_full,
	    .stats = env->stats, .path = d->path,
	    .damaged = storage_care_damaged, .damaged_ctx = d };
	int rc = env->dir(env->ctx, d->path, false, &d->dir);

	if (rc != 0)
		return rc;
	conf.dir = d->dir;
	return chunk_engine_open(&d->engine, &conf, disk_opened, d);
}

int
storage_worker_start(struct storage_worker *w, const struct net_addr *listen)
{
	const struct conf *c = w->env->conf;
	struct net_server_conf sc = { .hub = w->env->hub, .listen = *listen,
	    .conns_max = (uint32_t)c->net_connections_max,
	    /* What is left is for writes: see storage_memory(). */
	    .replies_max = c->storage_memory / 8 * 5,
	    .reqs_max = (uint32_t)c->net_requests_max,
	    .conn_reqs_max = (uint32_t)c->net_client_requests_max,
	    .hello_ms = (uint32_t)c->net_hello,
	    .payload_ms = (uint32_t)c->net_payload };
	int rc = net_server_open(&w->server, &sc);

	if (rc != 0)
		return rc;
	stat_attach(w->env->stats, &w->stat_set, "fsd_storage", w->env->log.who,
	    storage_stat_rows, &w->stat);
	net_server_handle(w->server, 0x03, serve, w);
	net_server_addr(w->server, &w->addr);
	w->disks_opening = w->disk_n + 1;	/* one is ours */
	for (unsigned i = 0; i < w->disk_n; i++) {
		rc = disk_open(&w->disks[i]);
		if (rc != 0)
			disk_opened(&w->disks[i], rc);
	}
	if (--w->disks_opening == 0)
		clock_timer_start(w->clock, &w->beat, clock_now(w->clock),
		    opened);
	return 0;
}

unsigned
storage_worker_disks(const struct storage_worker *w)
{
	unsigned n = 0;

	for (unsigned i = 0; i < w->disk_n; i++)
		n += w->disks[i].open;
	return n;
}

/* ---- stopping ---- */

static void
end_flush(struct storage_worker *w)
{
	clock_timer_stop(w->clock, &w->beat);
	storage_worker_stopped(w);
}

static void
flushed(void *ctx, int rc)
{
	struct storage_disk *d = ctx;

	if (d->w->flushing == 0)
		return;			/* too late */
	if (rc != 0)
		log_warn(&d->w->env->log, "disk not flushed", "disk=%s rc=%s",
		    d->path, err_name(rc));
	d->flushed = true;
	if (--d->w->flushing == 0)
		end_flush(d->w);
}

/* A disk that does not answer must not keep the process: what it was asked to make durable was
 * acknowledged to nobody. */
static void
flush_over(struct clock_timer *timer)
{
	struct storage_worker *w = container_of(timer, struct storage_worker,
	    beat);

	for (unsigned i = 0; i < w->disk_n; i++)
		if (w->disks[i].open && !w->disks[i].flushed)
			log_error(&w->env->log, "disk does not answer, stops without it",
			    "disk=%s", w->disks[i].path);
	w->flushing = 0;
	end_flush(w);
}

static void
flush_all(struct storage_worker *w)
{
	w->flushing = 1;
	for (unsigned i = 0; i < w->disk_n; i++) {
		if (!w->disks[i].open)
			continue;
		w->flushing++;
		chunk_engine_flush(w->disks[i].engine, flushed, &w->disks[i]);
	}
	clock_timer_start(w->clock, &w->beat, clock_now(w->clock) + FLUSH_NS,
	    flush_over);
	if (--w->flushing == 0)
		end_flush(w);
}

static void
drain(struct clock_timer *timer)
{
	struct storage_worker *w = container_of(timer, struct storage_worker,
	    beat);
	uint64_t now = clock_now(w->clock);
	bool idle = w->server == NULL || (net_server_inflight(w->server) == 0 &&
	    list_empty(&w->ops));

	if (idle || now >= w->stop_by_ns)
		flush_all(w);
	else
		clock_timer_start(w->clock, timer, now + DRAIN_POLL_NS, drain);
}

void
storage_worker_stop(struct storage_worker *w)
{
	w->stopping = true;
	for (unsigned i = 0; i < w->disk_n; i++)
		storage_care_stop(&w->disks[i]);
	if (w->server != NULL)
		net_server_drain(w->server);
	storage_targets_rest(w);
	w->stop_by_ns = clock_now(w->clock) + DRAIN_NS;
	clock_timer_start(w->clock, &w->beat, clock_now(w->clock), drain);
}

/* Requests first, so that nothing new comes; engines before buffers, so that nobody
 * writes into what is given back. */
void
storage_worker_close(struct storage_worker *w)
{
	if (w->env == NULL)
		return;
	stat_remove(&w->stat_set);
	clock_timer_stop(w->clock, &w->beat);
	for (unsigned i = 0; i < w->disk_n; i++) {
		chunk_engine_close(w->disks[i].engine);
		w->disks[i].engine = NULL;
		storage_care_close(&w->disks[i]);
	}
	storage_reads_close(w);
	storage_fetches_close(w);
	storage_relay_close(w);
	storage_cuts_close(w);
	storage_left_close(w);
	storage_ops_close(w);
	storage_pieces_close(w);
	storage_apart_close(w);
	storage_syncs_close(w);
	net_server_close(w->server);
	storage_targets_close(w);
	chunk_craq_close(w->craq);
	mem_pool_close(w->pool);
	for (unsigned i = 0; i < w->disk_n; i++) {
		if (w->disks[i].dir != NULL)
			w->disks[i].dir->ops->close(w->disks[i].dir);
		free(w->disks[i].path);
	}
	free(w->disks);
	free(w->cut_rows);
	w->env = NULL;
}
