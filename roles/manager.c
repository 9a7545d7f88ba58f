/* SPDX-License-Identifier: MIT */
/* manager.c - open, dispatch of calls, commands in flight, stop.
 *
 *   OPENING <-> FOLLOWING
 *      \  ^        /
 *       v  \      v
 *        SERVING      any -> STOPPING     any -> BROKEN
 *
 * Only the leader of the group of managers serves, and only while it is certain that
 * nobody else leads; what it holds besides the state dies with its leadership.
 *
 * Invariants:
 *   1  What an answer says is committed: it is given by the fn of its command, or read
 *      from state that was applied.
 *   2  Every request is answered once, or dropped by manager_close(). */
#include "roles/manager_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "net/msg_all.h"

#define SERVICE 0x01u

STAT_DEFINE(manager, MANAGER_STATS)

/* ---- commands ---- */

static void
call_done(struct group_req *r, int rc, const void *result, size_t len)
{
	struct manager_call *c = container_of(r, struct manager_call, group);
	struct bytes_reader in;
	uint64_t value = 0;

	if (rc == 0) {
		bytes_reader_init(&in, result, len);
		rc = (int)bytes_get_u32(&in);
		value = bytes_get_u64(&in);
		assert(bytes_reader_done(&in));
	} else if (rc != ERR_NOT_LEADER)
		rc = ERR_STOPPING;	/* our disk is not the caller's fault */
	list_remove(&c->node);
	c->fn(c, rc, value);		/* may close the manager */
	free(c);
}

int
manager_propose(struct manager *m, struct net_req *req, node_id id,
    const struct bytes_writer *w, manager_call_fn *fn)
{
	struct manager_call *c;
	int rc;

	if (w->failed)
		return -EMSGSIZE;
	if ((c = calloc(1, sizeof(*c))) == NULL)
		return ERR_BUSY;
	c->m = m;
	c->req = req;
	c->id = id;
	c->fn = fn;
	rc = group_propose(m->group, &c->group, w->start, bytes_written(w),
	    call_done);
	if (rc != 0) {
		free(c);
		return rc == -ENOMEM ? ERR_BUSY : rc;
	}
	list_push_back(&m->calls, &c->node);
	return 0;
}

void
manager_reply_rc(struct manager_call *c, int rc, uint64_t value)
{
	(void)value;
	net_reply(c->req, rc, NULL, NULL, 0, NULL, NULL);
}

/* ---- calls ---- */

static void
serve(void *ctx, struct net_req *req)
{
	struct manager *m = ctx;
	int rc = m->phase == MANAGER_STOPPING || m->phase == MANAGER_BROKEN ?
	    ERR_STOPPING : m->phase == MANAGER_SERVING && group_lease(m->group) ? 0 :
	    ERR_NOT_LEADER;

	if (req->method == MSG_manager_stats) {
		role_stats_call(&m->env, req);
		return;
	}
	if (rc != 0) {
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
		return;
	}
	switch (req->method) {
	case MSG_register:
		manager_node_register(m, req);
		break;
	case MSG_beat:
		manager_node_beat(m, req);
		break;
	case MSG_routing:
		manager_routing_get(m, req);
		break;
	case MSG_goodbye:
		manager_node_goodbye(m, req);
		break;
	case MSG_synced:
		manager_repair_synced(m, req);
		break;
	case MSG_metadata_change:
		manager_meta_change(m, req);
		break;
	case MSG_manager_change:
		manager_group_change(m, req);
		break;
	case MSG_managers:
		manager_group_list(m, req);
		break;
	case MSG_chain_resync:
		manager_repair_resync(m, req);
		break;
	case MSG_chain_accept:
		manager_repair_accept(m, req);
		break;
	case MSG_disk_replace:
		manager_repair_replace(m, req);
		break;
	case MSG_client_beat:
		manager_client_beat(m, req);
		break;
	case MSG_clients:
		manager_client_list(m, req);
		break;
	case MSG_status:
		manager_node_status(m, req);
		break;
	case MSG_config_get:
		manager_config_get(m, req);
		break;
	case MSG_config_set:
		manager_config_set(m, req);
		break;
	default:
		net_reply(req, ERR_BAD_METHOD, NULL, NULL, 0, NULL, NULL);
	}
}

static void
serve_group(void *ctx, struct net_req *req)
{
	struct manager *m = ctx;

	group_serve(m->group, req);
}

/* ---- the group's callbacks ---- */

static void
tell_ready(struct manager *m, int rc)
{
	role_fn *fn = m->ready;

	m->ready = NULL;
	if (fn != NULL)
		fn(m->ready_ctx, rc);
}

/* What the rows say, after they were loaded or changed. */
static void
set_gauges(struct manager *m)
{
	const struct manager_state *s = &m->state;

	stat_set(&m->stat.nodes, s->nodes.n);
	stat_set(&m->stat.nodes_up, s->up_n);
	stat_set(&m->stat.chains_serving, s->serving_n);
	stat_set(&m->stat.chains_degraded, s->serving_n - s->whole_n);
	stat_set(&m->stat.chains_syncing, s->syncing_n);
	stat_set(&m->stat.chains_recovering, s->chain_n - s->serving_n);
	stat_set(&m->stat.routing_version, routing_version(s->routing));
}

static int
load(struct manager *m)
{
	int rc;

	if (m->loaded)
		return 0;
	rc = manager_state_open(&m->state, group_table(m->group), &m->env.log);
	m->loaded = rc == 0;
	if (m->loaded)
		set_gauges(m);
	return rc;
}

static size_t
apply(void *ctx, uint64_t index, const void *cmd, size_t len, void *result,
    size_t cap)
{
	struct manager *m = ctx;
	uint64_t was;
	int rc;

	(void)index;
	assert(cap >= MANAGER_RESULT);
	if ((rc = load(m)) != 0) {
		group_break(m->group, rc);
		return 0;
	}
	was = routing_version(m->state.routing);
	if ((rc = manager_apply(&m->state, cmd, len, result)) != 0)
		group_break(m->group, rc);
	else if (routing_version(m->state.routing) != was) {
		set_gauges(m);
		manager_routing_changed(m);
	}
	return MANAGER_RESULT;
}

static void
begin_serving(struct manager *m)
{
	char text[UID128_TEXT];

	uid128_text(routing_cluster(m->state.routing), text);
	log_info(&m->env.log, "serving", "cluster=%s run=%" PRIu64
	    " routing=%" PRIu64 " nodes=%zu chains=%u", text,
	    group_run(m->group), routing_version(m->state.routing),
	    m->state.nodes.n, m->state.chain_n);
	m->phase = MANAGER_SERVING;
	stat_add(&m->stat.led, 1);
	manager_lease_start(m);
	manager_repair_start(m);
	manager_form_poke(m);
	manager_group_lead(m);
	manager_meta_poke(m);
	tell_ready(m, 0);
}

/* All that the leader's memory alone holds is forgotten; who waits gets @rc, 0: nothing. */
static void
stop_serving(struct manager *m, int rc)
{
	manager_lease_stop(m, rc);
	manager_group_follow(m, rc);
	manager_form_stop(m);
	manager_repair_stop(m);
	manager_meta_stop(m);
	manager_part_stop(m);
	manager_client_stop(m);
	manager_routing_stop(m, rc);
}

static void
inited(struct manager_call *c, int rc, uint64_t value)
{
	(void)value;
	if (rc == 0 && c->m->phase == MANAGER_OPENING)
		begin_serving(c->m);	/* otherwise broken() follows */
}

static void stop_flush(struct manager *m);

static void
lost(struct manager *m)
{
	if (m->phase == MANAGER_SERVING) {
		log_info(&m->env.log, "follows", "run=%" PRIu64,
		    group_run(m->group));
		m->phase = MANAGER_FOLLOWING;
		stop_serving(m, ERR_NOT_LEADER);
	} else if (m->phase == MANAGER_OPENING)
		m->phase = MANAGER_FOLLOWING;	/* before the cluster had its id */
	else if (m->phase == MANAGER_STOPPING && m->stop_timer.pos != 0)
		stop_flush(m);			/* it was handed over */
}

static void
leader(void *ctx, bool leads)
{
	struct manager *m = ctx;
	struct uid128 cluster;
	struct bytes_writer w;
	uint8_t buf[32];
	int rc;

	if (!leads) {
		lost(m);
		return;
	}
	if (m->phase == MANAGER_STOPPING || m->phase == MANAGER_BROKEN)
		return;
	m->phase = MANAGER_OPENING;
	if ((rc = load(m)) != 0) {
		group_break(m->group, rc);
		return;
	}
	if (!uid128_zero(routing_cluster(m->state.routing))) {
		begin_serving(m);
		return;
	}
	m->env.random(m->env.ctx, cluster.b, sizeof(cluster.b));
	bytes_writer_init(&w, buf, sizeof(buf));
	manager_cmd_init(&w, &cluster);
	rc = manager_propose(m, NULL, 0, &w, inited);
	if (rc != 0 && rc != ERR_NOT_LEADER)
		group_break(m->group, rc);
}

/* The table is another member's now: what was read from it is stale. */
static void
restored(void *ctx)
{
	struct manager *m = ctx;

	assert(m->phase != MANAGER_SERVING);
	manager_state_close(&m->state);
	m->loaded = false;
}

static void
broken(void *ctx, int rc)
{
	struct manager *m = ctx;
	role_fn *watch = m->ready == NULL ? m->watch : NULL;

	log_error(&m->env.log, "stopped serving", "error=%s", err_name(rc));
	m->phase = MANAGER_BROKEN;
	stop_serving(m, ERR_STOPPING);
	tell_ready(m, rc);
	m->watch = NULL;
	if (watch != NULL)
		watch(m->watch_ctx, rc);
}

static const struct group_ops group_ops = {
	.apply = apply, .leader = leader, .broken = broken, .restored = restored,
};

/* ---- open, stop, close ---- */

static int
open_server(struct manager *m, const struct net_addr *listen)
{
	const struct conf *c = m->env.conf;
	int rc;

	rc = net_server_open(&m->server, &(struct net_server_conf){
		.hub = m->env.hub, .listen = *listen,
		.conns_max = (uint32_t)c->net_connections_max,
		/* each connection may hold a long-poll besides */
		.reqs_max = (uint32_t)(c->net_requests_max +
		    c->net_connections_max),
		.conn_reqs_max = (uint32_t)c->net_client_requests_max,
		.hello_ms = (uint32_t)c->net_hello,
		.payload_ms = (uint32_t)c->net_payload });
	if (rc == 0)
		net_server_handle(m->server, SERVICE, serve, m);
	if (rc == 0)
		net_server_handle(m->server, GROUP_SERVICE, serve_group, m);
	return rc;
}

/* With several managers nobody serves before most of them have started, and who starts them
 * waits for each. */
static void
tell_part(struct clock_defer *d)
{
	tell_ready(container_of(d, struct manager, tell), 0);
}

int
manager_open(struct manager **out, const struct role_env *env, const char *dir_path,
    const struct net_addr *listen, const struct net_addr *managers,
    unsigned manager_n, role_fn *ready, void *ctx)
{
	struct manager *m;
	int rc;

	*out = NULL;
	if (manager_n > MANAGER_MEMBERS_MAX)
		return -EINVAL;
	if ((m = calloc(1, sizeof(*m))) == NULL)
		return -ENOMEM;
	m->env = *env;
	m->ready = ready;
	m->ready_ctx = ctx;
	list_init(&m->calls);
	list_init(&m->leases);
	list_init(&m->dying);
	list_init(&m->expiring);
	list_init(&m->sync_list);
	list_init(&m->cuts);
	list_init(&m->client_leases);
	list_init(&m->waiters);
	stat_attach(env->stats, &m->stat_set, "fsd_manager", env->log.who,
	    manager_stat_rows, &m->stat);
	rc = env->dir(env->ctx, dir_path, true, &m->dir);
	if (rc == 0)
		rc = open_server(m, listen);
	if (rc == 0) {
		net_server_addr(m->server, &m->self);
		if (manager_n > 1 || (manager_n == 1 &&
		    !net_addr_eq(&managers[0], &m->self))) {
			memcpy(m->peers, managers, manager_n * sizeof(*managers));
			m->peer_n = manager_n;
		}
		rc = group_open(&m->group, &(struct group_conf){
			.clock = env->clock, .rand = env->rand, .hub = env->hub,
			.addr = m->self,
			.start = m->peer_n > 0 ? GROUP_JOIN : GROUP_FOUND,
			.election_ms = (uint32_t)env->conf->cluster_election,
			.log = &m->env.log, .dir = m->dir,
			.log_bytes = env->conf->manager_log_size,
			.table_bytes = env->conf->manager_table_size,
			.inflight_max = MANAGER_INFLIGHT_MAX,
			.flush_bytes = MANAGER_FLUSH_BYTES,
			.flush_ms = MANAGER_FLUSH_MS,
			.ops = &group_ops, .ctx = m, .stats = env->stats });
	}
	if (rc != 0) {
		manager_close(m);
		return rc;
	}
	if (m->peer_n > 0) {
		manager_group_open(m);
		clock_defer(env->clock, &m->tell, tell_part);
	}
	*out = m;
	return 0;
}

void
manager_addr(const struct manager *m, struct net_addr *out)
{
	net_server_addr(m->server, out);
}

void
manager_watch(struct manager *m, role_fn *fn, void *ctx)
{
	m->watch = fn;
	m->watch_ctx = ctx;
}

struct group *
manager_group(struct manager *m)
{
	return m->group;
}

const struct routing *
manager_routing(const struct manager *m)
{
	return m->loaded ? m->state.routing : NULL;
}

static void
flushed(void *ctx)
{
	struct manager *m = ctx;
	role_fn *fn = m->stopped;

	m->stopped = NULL;
	fn(m->stopped_ctx, 0);		/* closes us */
}

static void
stop_flush(struct manager *m)
{
	clock_timer_stop(m->env.clock, &m->stop_timer);
	net_server_drain(m->server);
	group_flush(m->group, flushed, m);	/* after what is in flight */
}

static void
stop_due(struct clock_timer *t)
{
	stop_flush(container_of(t, struct manager, stop_timer));
}

void
manager_stop(struct manager *m, role_fn *fn, void *ctx)
{
	int rc;

	assert(m->stopped == NULL);
	m->stopped = fn;
	m->stopped_ctx = ctx;
	m->ready = NULL;
	if (m->phase != MANAGER_BROKEN)
		m->phase = MANAGER_STOPPING;
	stop_serving(m, ERR_STOPPING);
	clock_timer_stop(m->env.clock, &m->found_timer);
	rc = group_transfer(m->group);
	if (rc != 0 && rc != ERR_BUSY) {	/* busy: it is being handed over already */
		stop_flush(m);
		return;
	}
	/* others speak to us until one of them leads */
	clock_timer_start(m->env.clock, &m->stop_timer, clock_fresh(m->env.clock) +
	    m->env.conf->cluster_election * NS_PER_MS, stop_due);
}

void
manager_close(struct manager *m)
{
	struct list *n;

	if (m == NULL)
		return;
	stat_remove(&m->stat_set);
	stop_serving(m, 0);
	clock_timer_stop(m->env.clock, &m->stop_timer);
	clock_undefer(m->env.clock, &m->tell);
	manager_group_close(m);
	while ((n = list_pop_front(&m->calls)) != NULL) {
		struct manager_call *c = list_entry(n, struct manager_call, node);

		if (c->req != NULL)
			net_req_drop(c->req);
		free(c);
	}
	net_server_close(m->server);
	group_close(m->group);
	manager_state_close(&m->state);
	if (m->dir != NULL)
		m->dir->ops->close(m->dir);
	free(m);
}
