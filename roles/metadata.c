/* SPDX-License-Identifier: MIT */
/* metadata.c - the life of the metadata role: group, manager, listener; ready, stop, close.
 *
 *   open -> group replayed, root made, lease won -> ready -> serving
 *   stop -> requests drained -> lead handed over -> group flushed -> goodbye -> close
 *   the group breaks -> stops serving */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "conf/err.h"
#include "roles/metadata_impl.h"

STAT_DEFINE(metadata, METADATA_STATS)

#define RETRY_NS	(20 * NS_PER_MS)

static void stop_next(struct clock_defer *d);

/* ---- the group ---- */

/* A row does not parse: others may have it. */
static void
damaged(struct metadata *m, int rc)
{
	if (rc != ERR_LOG_DAMAGED || group_heal(m->group) != 0)
		group_break(m->group, rc);
}

bool
metadata_pass_on(struct metadata *m)
{
	if (m->passed_on || group_transfer(m->group) != 0)
		return false;
	m->passed_on = true;
	log_error(m->log, "a row is damaged: another member is to lead; see fsd check",
	    "node=%u", member_node(m->member));
	return true;
}

static size_t
apply(void *ctx, uint64_t index, const void *cmd, size_t len, void *result,
    size_t cap)
{
	struct metadata *m = ctx;
	size_t n;

	fs_at(m->fs, index);
	n = fs_apply(m->fs, cmd, len, result, cap);
	stat_set(&m->stat.repeats, fs_repeats(m->fs));
	if (fs_failed(m->fs) != 0)
		damaged(m, fs_failed(m->fs));
	return n;
}

static void init_start(struct metadata *m);

static void
init_again(struct clock_timer *t)
{
	struct metadata *m = container_of(t, struct metadata, ready_timer);

	if (m->leads)
		metadata_ready_check(m);
	else
		init_start(m);
}

static void
give_up(struct metadata *m, int rc)
{
	role_fn *fn = m->ready != NULL ? m->ready : m->watch;
	void *to = m->ready != NULL ? m->ready_ctx : m->watch_ctx;

	m->broken = rc;
	m->leads = false;
	m->ready = m->watch = NULL;
	if (fn != NULL)
		fn(to, rc);
}

static void
serving(struct metadata *m)
{
	int rc;

	m->leads = true;
	m->deaf = true;
	if ((rc = metadata_session_lead(m)) != 0) {
		damaged(m, rc);		/* comes back to broken() */
		m->leads = false;
		return;
	}
	metadata_ready_check(m);
}

static void
init_done(struct group_req *r, int rc, const void *result, size_t len)
{
	(void)result;
	(void)len;
	if (rc == 0)
		serving(container_of(r, struct metadata, init_req));
}

/* The first run makes the root. */
static void
init_start(struct metadata *m)
{
	uint8_t cmd[FS_HEAD_LEN];
	struct inode root;
	int n, rc;

	if (m->broken != 0 || !group_leads(m->group))
		return;
	if ((rc = fs_inode(m->fs, INO_ROOT, &root)) == 0) {
		serving(m);
		return;
	}
	if (rc != -ENOENT) {
		damaged(m, rc);
		return;
	}
	m->fresh = true;
	n = fs_cmd_init(clock_wall(m->clock), cmd, sizeof(cmd));
	assert(n > 0);
	if (group_propose(m->group, &m->init_req, cmd, (size_t)n, init_done) != 0)
		clock_timer_start(m->clock, &m->ready_timer,
		    metadata_now(m) + RETRY_NS, init_again);
}

/* Another member may lead already: whatever waits here is for it to do.  Commands on
 * their way are told by the group what became of them. */
static void
depose(struct metadata *m)
{
	bool led = m->leads;

	m->leads = false;
	m->deaf = true;
	m->fresh = false;
	clock_timer_stop(m->clock, &m->ready_timer);
	metadata_gc_depose(m);
	metadata_session_depose(m);
	list_for_each_safe(it, tmp, &m->ops) {
		struct metadata_op *op = list_entry(it, struct metadata_op, all);

		if (op->settle != NULL)
			metadata_length_cancel(op, ERR_NOT_LEADER);
	}
	if (led)
		log_info(m->log, "does not lead any more", "requests=%u",
		    m->ops_n);
}

void
metadata_lead(struct metadata *m, bool leads)
{
	if (leads) {
		metadata_relay_end(m, ERR_NOT_LEADER);
		init_start(m);
		metadata_members_look(m);
		member_beat_now(m->member);	/* to say so */
	} else {
		depose(m);
	}
}

static void stop_flush(struct metadata *m);

static void
leader(void *ctx, bool leads)
{
	struct metadata *m = ctx;

	metadata_lead(m, leads);
	if (!leads && m->stop_timer.pos != 0)
		stop_flush(m);			/* it was handed over */
}

static void
broken(void *ctx, int rc)
{
	struct metadata *m = ctx;

	log_error(m->log, "stops serving", "rc=%d reason=%s", rc, err_text(rc));
	m->leads = false;
	metadata_gc_stop(m);
	metadata_gc_flush_waiters(m, ERR_NOT_LEADER);
	give_up(m, rc);			/* may close us */
}

/* The table is another one: nothing that was read from it counts. */
static void
restored(void *ctx)
{
	struct metadata *m = ctx;
	int rc;

	m->passed_on = false;
	fs_close(m->fs);
	if ((rc = fs_open(&m->fs, group_table(m->group), m->log)) != 0)
		group_break(m->group, rc);
}

static void
members(void *ctx)
{
	metadata_ready_check(ctx);
}

static const struct group_ops group_ops = {
	.apply = apply, .leader = leader, .broken = broken,
	.restored = restored, .members = members,
};

/* What members of the group say to each other. */
static void
serve_group(void *ctx, struct net_req *req)
{
	struct metadata *m = ctx;

	if (m->group == NULL)
		net_reply(req, ERR_BUSY, NULL, NULL, 0, NULL, NULL);
	else
		group_serve(m->group, req);
}

/* ---- open ---- */

/* Serving: we lead and the log is replayed; or another one leads. */
void
metadata_ready_check(struct metadata *m)
{
	role_fn *fn = m->ready;
	bool hears = !m->stopping && metadata_hears(m);

	if (m->stopping || fn == NULL || (!hears && !metadata_members_idle(m)))
		return;
	m->ready = NULL;
	log_info(m->log, hears ? "serving" : "following", "node=%u term=%llu",
	    member_node(m->member), (unsigned long long)group_run(m->group));
	fn(m->ready_ctx, 0);		/* may close us */
}

static void
member_changed(void *ctx)
{
	metadata_members_look(ctx);
	metadata_ready_check(ctx);
}

static int
open_server(struct metadata *m, const struct net_addr *listen)
{
	const struct conf *c = m->env.conf;
	struct net_server_conf sc = {
		.hub = m->env.hub, .listen = *listen,
		.conns_max = (uint32_t)c->net_connections_max,
		.reqs_max = (uint32_t)c->net_requests_max,
		.conn_reqs_max = (uint32_t)c->net_client_requests_max,
		.hello_ms = (uint32_t)c->net_hello,
		.payload_ms = (uint32_t)c->net_payload,
	};
	int rc = net_server_open(&m->server, &sc);

	if (rc == 0) {
		net_server_handle(m->server, 0x02, metadata_serve, m);
		net_server_handle(m->server, GROUP_SERVICE, serve_group, m);
	}
	return rc;
}

static int
open_group(struct metadata *m)
{
	const struct conf *c = m->env.conf;
	struct group_conf gc = {
		.clock = m->clock, .log = m->log, .dir = m->dir,
		.log_bytes = c->metadata_log_size,
		.table_bytes = c->metadata_table_size,
		.inflight_max = (uint32_t)c->metadata_inflight_max,
		.flush_bytes = (uint32_t)c->metadata_flush_size,
		.flush_ms = (uint32_t)c->metadata_flush_time,
		.ops = &group_ops, .ctx = m, .stats = m->env.stats,
		.rand = m->env.rand, .hub = m->env.hub, .number = 1,
		.start = GROUP_JOIN,
		.election_ms = (uint32_t)c->cluster_election,
	};
	int rc;

	net_server_addr(m->server, &gc.addr);
	rc = group_open(&m->group, &gc);
	return rc != 0 ? rc : fs_open(&m->fs, group_table(m->group), m->log);
}

static int
open_member(struct metadata *m, const struct uid128 *node,
    const struct net_addr *managers, unsigned manager_n, const char *name)
{
	struct net_addr addr;
	struct member_conf mc = {
		.clock = m->clock, .rand = m->env.rand, .log = m->log,
		.hub = m->env.hub, .managers = managers, .manager_n = manager_n,
		.roles = NODE_METADATA, .node_uid = *node, .name = name,
		.addrs = &addr, .addr_n = 1, .changed = member_changed, .ctx = m,
		.member = group_member(m->group), .groups = metadata_members_told,
	};

	net_server_addr(m->server, &addr);
	m->env.random(m->env.ctx, &mc.boot, sizeof(mc.boot));
	return member_open(&m->member, &mc);
}

int
metadata_open(struct metadata **out, const struct role_env *env,
    const char *dir_path, const struct net_addr *listen,
    const struct net_addr *managers, unsigned manager_n, const char *name,
    role_fn *ready, void *ctx)
{
	struct metadata *m = calloc(1, sizeof(*m));
	struct uid128 node;
	int rc;

	*out = NULL;
	if (m == NULL)
		return -ENOMEM;
	m->env = *env;
	m->clock = env->clock;
	m->log = &m->env.log;
	m->ready = ready;
	m->ready_ctx = ctx;
	list_init(&m->ops);
	list_init(&m->ops_free);
	list_init(&m->relays);
	paths_init(&m->paths, m->clock, env->hub, m->log);
	metadata_session_init(m);
	stat_attach(env->stats, &m->stat_set, "fsd_metadata", env->log.who,
	    metadata_stat_rows, &m->stat);
	if ((rc = metadata_gc_open(m)) != 0 || (rc = metadata_image_open(m)) != 0 ||
	    (rc = env->dir(env->ctx, dir_path, true, &m->dir)) != 0 ||
	    (rc = role_uid_file(env, m->dir, "node", &node)) != 0 ||
	    (rc = open_server(m, listen)) != 0 ||
	    (rc = open_group(m)) != 0 ||
	    (rc = open_member(m, &node, managers, manager_n, name)) != 0) {
		m->ready = NULL;
		metadata_close(m);
		return rc;
	}
	*out = m;
	return 0;
}

void
metadata_addr(const struct metadata *m, struct net_addr *out)
{
	net_server_addr(m->server, out);
}

/* ---- stop and close ---- */

static void
left(void *ctx)
{
	struct metadata *m = ctx;
	role_fn *fn = m->stopped;

	m->stopped = NULL;
	log_info(m->log, "stopped", "%s", "");
	fn(m->stop_ctx, m->broken);	/* may close us */
}

static void
flushed(void *ctx)
{
	struct metadata *m = ctx;

	member_leave(m->member, left, m);
}

/* Another one leads, or nobody takes it: write what there is and go. */
static void
stop_flush(struct metadata *m)
{
	clock_timer_stop(m->clock, &m->stop_timer);
	net_server_drain(m->server);
	group_flush(m->group, flushed, m);
}

static void
stop_due(struct clock_timer *t)
{
	stop_flush(container_of(t, struct metadata, stop_timer));
}

static void
stop_next(struct clock_defer *d)
{
	struct metadata *m = container_of(d, struct metadata, stop_defer);
	int rc;

	if (m->ops_n != 0)
		return;
	/* Rather than let the others find out.  Who takes it has to have all we have, and to
	 * be elected: gone before that, we would be missed like one that was killed. */
	rc = group_transfer(m->group);
	if (rc != 0 && rc != ERR_BUSY)
		stop_flush(m);
	else
		clock_timer_start(m->clock, &m->stop_timer, metadata_now(m) +
		    m->env.conf->cluster_election * NS_PER_MS, stop_due);
}

void
metadata_drained(struct metadata *m)
{
	clock_defer(m->clock, &m->stop_defer, stop_next);
}

void
metadata_watch(struct metadata *m, role_fn *fn, void *ctx)
{
	m->watch = fn;
	m->watch_ctx = ctx;
}

void
metadata_stop(struct metadata *m, role_fn *fn, void *ctx)
{
	struct list *n;

	assert(!m->stopping);
	m->stopping = true;
	m->stopped = fn;
	m->stop_ctx = ctx;
	m->ready = NULL;
	metadata_image_stop(m);
	metadata_gc_stop(m);
	metadata_gc_flush_waiters(m, ERR_STOPPING);
	metadata_relay_end(m, ERR_STOPPING);
	while ((n = list_pop_front(&m->sessions.held)) != NULL)
		metadata_reply(list_entry(n, struct metadata_op, wait),
		    ERR_STOPPING, NULL);
	list_for_each_safe(it, tmp, &m->ops) {
		struct metadata_op *op = list_entry(it, struct metadata_op, all);

		if (op->settle != NULL)
			metadata_length_cancel(op, ERR_STOPPING);
	}
	if (m->ops_n == 0)
		metadata_drained(m);
}

void
metadata_close(struct metadata *m)
{
	struct list *n;

	if (m == NULL)
		return;
	stat_remove(&m->stat_set);
	metadata_image_close(m);
	group_close(m->group);
	metadata_gc_close(m);
	metadata_session_fini(m);
	metadata_relay_close(m);
	paths_fini(&m->paths);
	while ((n = list_pop_front(&m->ops)) != NULL) {
		struct metadata_op *op = list_entry(n, struct metadata_op, all);

		metadata_length_drop(op);
		net_req_drop(op->req);
		free(op);
	}
	while ((n = list_pop_front(&m->ops_free)) != NULL)
		free(list_entry(n, struct metadata_op, all));
	clock_timer_stop(m->clock, &m->ready_timer);
	clock_timer_stop(m->clock, &m->members_timer);
	clock_timer_stop(m->clock, &m->stop_timer);
	clock_undefer(m->clock, &m->stop_defer);
	fs_close(m->fs);
	net_server_close(m->server);
	member_close(m->member);
	if (m->dir != NULL)
		m->dir->ops->close(m->dir);
	free(m);
}

struct group *
metadata_group(struct metadata *m)
{
	return m->group;
}

struct table *
metadata_table(struct metadata *m)
{
	return group_table(m->group);
}
