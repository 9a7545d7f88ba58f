/* SPDX-License-Identifier: MIT */
/* client.c - one client of the cluster: open, stop, close, its session with the
 * metadata service, pauses before retries, finished requests.
 *
 * Invariants of the client
 *  1. A user callback runs from a reply of the network or from done_defer, as the last
 *     thing its caller does; never from within a call of the user.
 *  2. Everything that waits is in a list of struct client, so that close finds it.
 *  3. A change of metadata has one sequence number in all its attempts; `done` is below
 *     the oldest one not answered (c->changes).
 *  4. A chunk has at most one write in flight; the sequence numbers of writes to a chunk
 *     rise in the order they were made. */
#include "roles/client_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAUSE_FIRST_NS	(2 * NS_PER_MS)
#define PAUSE_LAST_NS	(100 * NS_PER_MS)
#define SESSION_PAGE	2048u		/* opens told in one call */
#define SESSION_LEAVE_NS NS_PER_S	/* the goodbye need not arrive */

/* ---- life, pauses, free lists ---- */

STAT_DEFINE(client, CLIENT_STATS)

struct client_life *
client_life_get(struct client *c)
{
	c->life->refs++;
	return c->life;
}

bool
client_life_put(struct client_life *l)
{
	bool dead = l->dead;

	if (--l->refs == 0)
		free(l);
	return dead;
}

static void
pause_over(struct clock_timer *t)
{
	struct client_pause *p = container_of(t, struct client_pause, timer);

	list_remove(&p->node);
	p->fn(p);
}

void
client_pause_start(struct client *c, struct client_pause *p, bool refresh,
    void (*fn)(struct client_pause *))
{
	uint64_t version = routing_version(member_routing(c->member));
	uint64_t ns;

	/* What failed under older routing says little about the next attempt. */
	if (refresh && p->routing != version) {
		p->routing = version;
		p->attempts = 0;
	}
	ns = PAUSE_FIRST_NS << (p->attempts < 16 ? p->attempts : 16);
	if (ns > PAUSE_LAST_NS)
		ns = PAUSE_LAST_NS;
	ns = ns / 2 + rand_below(c->env.rand, ns / 2 + 1);
	client_pause_stop(c, p);
	p->c = c;
	p->fn = fn;
	p->attempts++;
	list_push_back(&c->paused, &p->node);
	clock_timer_start(c->clock, &p->timer, clock_now(c->clock) + ns,
	    pause_over);
	if (refresh)
		member_refresh(c->member);
}

void
client_pause_stop(struct client *c, struct client_pause *p)
{
	if (p->node.next == NULL)
		list_init(&p->node);
	list_remove(&p->node);
	clock_timer_stop(c->clock, &p->timer);
}

bool
client_expired(const struct client *c, uint64_t start_ns)
{
	uint64_t ms = c->conf->client_retry;

	return ms != 0 && clock_now(c->clock) - start_ns > ms * NS_PER_MS;
}

uint64_t
client_deadline(const struct client *c)
{
	return clock_now(c->clock) + c->conf->client_call * NS_PER_MS;
}

bool
client_retryable(int rc)
{
	switch (err_next(rc)) {
	case ERR_NEXT_RETRY:
	case ERR_NEXT_REFRESH:
	case ERR_NEXT_OTHER:
		return true;
	case ERR_NEXT_FAIL:
	case ERR_NEXT_HALT:
		break;
	}
	return rc == -ENOMEM;
}

void *
client_keep_get(struct client_keep *k, size_t bytes)
{
	struct list *n;

	if (k->n == 0)
		return calloc(1, bytes);
	n = list_pop_front(&k->list);
	k->n--;
	return n;
}

void
client_keep_put(struct client_keep *k, struct list *node)
{
	if (k->n >= CLIENT_KEEP_MAX) {
		free(node);
		return;
	}
	list_push_front(&k->list, node);
	k->n++;
}

void
client_keep_fini(struct client_keep *k)
{
	struct list *n;

	while ((n = list_pop_front(&k->list)) != NULL)
		free(n);
	k->n = 0;
}

/* ---- buffers ---- */

int
client_mem_get(struct client *c, size_t len, bool force, struct mem_buf *out)
{
	int rc;

	while ((rc = mem_get(c->pool, len, out)) == ERR_BUSY &&
	    client_ahead_shrink(c))
		continue;
	/* What must go on gets memory over the bound: of the pool, which devices know. */
	return rc == ERR_BUSY && force ? mem_get_over(c->pool, len, out) : rc;
}

void
client_mem_put(struct client *c, struct mem_buf *b)
{
	if (b->p == NULL)
		return;
	mem_put(b);
	client_mem_kick(c);
}

int
client_data_get(struct client *c, size_t len, struct mem_buf *out)
{
	return client_mem_get(c, len, true, out);
}

void
client_data_put(struct client *c, struct mem_buf *b)
{
	client_mem_put(c, b);
}

/* ---- finished requests ---- */

static void
run_done(struct clock_defer *d)
{
	struct client *c = container_of(d, struct client, done_defer);
	struct client_life *l = client_life_get(c);
	struct list ios, ops, *n;

	list_init(&ios);
	list_init(&ops);
	list_splice_back(&ios, &c->io_done);
	list_splice_back(&ops, &c->op_done);
	while (!l->dead && (n = list_pop_front(&ios)) != NULL) {
		struct client_io *io = list_entry(n, struct client_io, node);

		io->fn(io, io->rc);
	}
	while (!l->dead && (n = list_pop_front(&ops)) != NULL) {
		struct client_op *op = list_entry(n, struct client_op, node);

		op->fn(op, op->rc);
	}
	client_life_put(l);
}

void
client_io_finish(struct client *c, struct client_io *io, int rc)
{
	io->rc = rc;
	list_push_back(&c->io_done, &io->node);
	clock_defer(c->clock, &c->done_defer, run_done);
}

void
client_op_finish(struct client *c, struct client_op *op, int rc)
{
	op->rc = rc;
	list_push_back(&c->op_done, &op->node);
	clock_defer(c->clock, &c->done_defer, run_done);
}

/* ---- ready ---- */

static void
run_ready(struct clock_defer *d)
{
	struct client *c = container_of(d, struct client, ready_defer);

	c->ready_fn(c->ready_ctx, c->ready_rc);
}

static void
check_ready(struct client *c)
{
	if (c->is_ready || !c->session.known ||
	    routing_table_at(member_routing(c->member), 0) == NULL)
		return;
	c->is_ready = true;
	c->ready_rc = 0;
	clock_timer_stop(c->clock, &c->ready_timer);
	log_info(c->log, "ready", "%s", "");
	clock_defer(c->clock, &c->ready_defer, run_ready);
}

/* client.retry bounds the start as well. */
static void
ready_late(struct clock_timer *t)
{
	struct client *c = container_of(t, struct client, ready_timer);

	c->is_ready = true;
	c->ready_rc = -ETIMEDOUT;
	log_error(c->log, "cluster does not answer", "%s", "");
	clock_defer(c->clock, &c->ready_defer, run_ready);
}

/* ---- session ---- */

static void	session_send(struct client *c);

static void
session_again(struct client_pause *p)
{
	session_send(p->c);
}

static void
session_beat(struct clock_timer *t)
{
	struct client *c = container_of(t, struct client, session.timer);

	mem_age(c->pool);	/* bursts come again: see conf/mem.h */
	session_send(c);
}

static void
run_left(void *ctx)
{
	struct client *c = ctx;

	c->stop_fn(c->stop_ctx, 0);
}

/* Tell all opens, from the first, to the server run we now know of. */
static void
announce(struct client *c)
{
	struct client_session *s = &c->session;

	s->announcing = true;
	s->next = list_empty(&c->files) ? NULL :
	    list_entry(c->files.next, struct client_file, node);
	session_send(c);
}

static void
session_answered(struct net_call *call, int rc)
{
	struct client *c = container_of(call, struct client, session.call);
	struct client_session *s = &c->session;
	const struct msg_session_rep *rep = call->rep;

	for (uint32_t k = 0; rc == 0 && k < rep->gone.n; k++) {
		struct client_inode *i = client_inode_find(c,
		    rep->gone.v[k].ino);

		if (i != NULL)
			client_inode_gone(i);
	}
	/* Before the opens are told again: what of them was not saved is lost. */
	if (rc == 0 && rep->ended && !s->leaving) {
		log_warn(c->log, "session ended", "%s",
		    "unheard for longer than metadata.session");
		list_for_each(n, &c->files)
			client_inode_lost(list_entry(n, struct client_file,
			    node)->inode);
		client_write_lost(c);
	}
	if (client_where_answered(c, s->server, s->via, rc, &s->tries)) {
		session_send(c);
		return;
	}
	if (s->leaving) {
		member_leave(c->member, run_left, c);
		return;
	}
	if (rc == 0 && rep->epoch != s->epoch) {
		s->pause.attempts = 0;
		s->epoch = rep->epoch;
		announce(c);
		return;
	}
	if (rc == 0) {
		uint64_t ns = (uint64_t)rep->lease_ms * NS_PER_MS / 3;

		s->pause.attempts = 0;
		if (s->announcing && (s->next = s->page_end) != NULL) {
			session_send(c);
			return;
		}
		s->announcing = false;
		s->known = true;
		s->sure_ns = s->sent_ns + (uint64_t)rep->lease_ms * NS_PER_MS;
		client_read_sure(c);
		clock_timer_start(c->clock, &s->timer, clock_now(c->clock) +
		    (ns < 10 * NS_PER_MS ? 10 * NS_PER_MS : ns), session_beat);
		check_ready(c);
		return;
	}
	/* The epoch stays: with it we are told whether that session has ended. */
	client_pause_start(c, &s->pause, true, session_again);
}

static void
session_send(struct client *c)
{
	struct client_session *s = &c->session;
	struct msg_open_row rows[SESSION_PAGE];
	struct msg_session req = { .client = c->id, .epoch = s->epoch,
		.leaving = s->leaving };
	struct net_call_opts opts = { .deadline_ns = client_deadline(c) };
	struct net_addr to;
	int rc;

	if (net_call_active(&s->call))
		return;
	client_pause_stop(c, &s->pause);
	clock_timer_stop(c->clock, &s->timer);
	s->page_end = NULL;
	if (s->announcing && !s->leaving && s->next != NULL) {
		struct list *n = &s->next->node;

		req.opens.v = rows;
		for (; n != &c->files && req.opens.n < SESSION_PAGE;
		    n = n->next) {
			const struct client_file *f = list_entry(n,
			    struct client_file, node);

			rows[req.opens.n++] = (struct msg_open_row){
				.ino = f->inode->ino, .handle = f->handle };
		}
		if (n != &c->files) {
			s->page_end = list_entry(n, struct client_file, node);
			req.more = 1;
		}
	}
	if (s->leaving)
		opts.deadline_ns = clock_now(c->clock) + SESSION_LEAVE_NS;
	s->sent_ns = clock_now(c->clock);
	rc = -EHOSTUNREACH;
	s->server = client_where(c, &to, &s->via);
	req.via = s->via;
	if (s->server != 0)
		rc = net_call_start(&s->call, c->env.hub, &to, MSG_session,
		    &req, &opts, session_answered);
	if (rc == 0) {
		client_where_watch(c);
		return;
	}
	if (s->leaving)
		member_leave(c->member, run_left, c);
	else
		client_pause_start(c, &s->pause, true, session_again);
}

void
client_session_resend(struct client *c, node_id node)
{
	struct client_session *s = &c->session;

	if (!net_call_active(&s->call) || s->server != node)
		return;
	net_call_cancel(&s->call);
	session_send(c);
}

void
client_session_lost(struct client *c)
{
	struct client_session *s = &c->session;

	if (net_call_active(&s->call) || s->leaving)
		return;			/* its answer will tell the epoch */
	/* Opens that are being told go on: it may be another server that forgot us. */
	session_send(c);
}

/* A server keeps opens that it was told of for a lease at least, and a new run of it that
 * was not yet told removes nothing for a lease either. */
bool
client_session_sure(const struct client *c)
{
	return clock_fresh(c->clock) < c->session.sure_ns;
}

void
client_session_forget(struct client *c, struct client_file *f)
{
	struct client_session *s = &c->session;
	struct client_file *after = f->node.next == &c->files ? NULL :
	    list_entry(f->node.next, struct client_file, node);

	if (s->next == f)
		s->next = after;
	if (s->page_end == f)
		s->page_end = after;
}

/* ---- routing ---- */

static void
routing_changed(void *ctx)
{
	struct client *c = ctx;
	struct list waking, *n;

	/* None of these calls back to the user (invariant 1). */
	client_fetch_reroute(c);
	client_write_reroute(c);
	list_init(&waking);
	list_splice_back(&waking, &c->paused);
	while ((n = list_pop_front(&waking)) != NULL) {
		struct client_pause *p = list_entry(n, struct client_pause,
		    node);

		clock_timer_stop(c->clock, &p->timer);
		p->fn(p);
	}
	if (!c->session.known && !net_call_active(&c->session.call))
		session_send(c);
	check_ready(c);
}

/* ---- open, stop, close ---- */

int
client_open(struct client **out, const struct role_env *env,
    const struct net_addr *managers, unsigned manager_n, const char *mount,
    role_fn *ready, void *ctx)
{
	struct client *c = calloc(1, sizeof(*c));
	struct client_life *life = calloc(1, sizeof(*life));
	struct member_conf mc = { .clock = env->clock, .rand = env->rand,
		.hub = env->hub, .managers = managers, .manager_n = manager_n,
		.mount = mount, .name = env->conf->node_name, .pid = env->pid,
		.changed = routing_changed };
	int rc;

	*out = NULL;
	if (c == NULL || life == NULL) {
		free(c);
		free(life);
		return -ENOMEM;
	}
	life->refs = 1;
	c->life = life;
	c->env = *env;
	c->clock = env->clock;
	c->conf = env->conf;
	c->log = &c->env.log;
	c->ready_fn = ready;
	c->ready_ctx = ctx;
	c->next_handle = 1;
	list_init(&c->paused);
	list_init(&c->io_done);
	list_init(&c->op_done);
	list_init(&c->mcalls);
	list_init(&c->changes);
	list_init(&c->mcall_keep.list);
	map_init(&c->inodes);
	list_init(&c->files);
	map_init(&c->seen);
	list_init(&c->seen_lru);
	list_init(&c->age);
	list_init(&c->pending);
	list_init(&c->sending);
	list_init(&c->ready_chunks);
	list_init(&c->write_waits);
	list_init(&c->directs);
	list_init(&c->ext_keep.list);
	list_init(&c->chunk_keep.list);
	map_init(&c->targets);
	list_init(&c->rcalls);
	list_init(&c->leaving);
	list_init(&c->late);
	list_init(&c->rcall_keep.list);
	list_init(&c->read_keep.list);
	list_init(&c->reads);
	list_init(&c->read_waits);
	list_init(&c->read_unsure);
	list_init(&c->ahead);
	paths_init(&c->paths, c->clock, env->hub, c->log);
	env->random(env->ctx, &c->id, sizeof(c->id));
	mc.client = c->id;
	mc.log = c->log;
	mc.ctx = c;
	if ((rc = mem_pool_open(&c->pool, c->conf->client_memory,
	    c->conf->client_buffer_keep)) != 0 ||
	    (rc = net_mem_pool(env->hub, c->pool)) != 0 ||
	    (rc = member_open(&c->member, &mc)) != 0) {
		client_close(c);
		return rc;
	}
	stat_attach(env->stats, &c->stat_set, "fsd_client", env->log.who,
	    client_stat_rows, &c->stat);
	if (c->conf->client_retry != 0)
		clock_timer_start(c->clock, &c->ready_timer,
		    clock_now(c->clock) + c->conf->client_retry * NS_PER_MS,
		    ready_late);
	*out = c;
	return 0;
}

static void
stop_step(struct clock_defer *d)
{
	struct client *c = container_of(d, struct client, stop_defer);

	if (c->ext_n != 0 || c->mcall_n != 0 || c->left)
		return;
	c->left = true;
	c->session.leaving = true;
	client_pause_stop(c, &c->session.pause);
	net_call_cancel(&c->session.call);
	session_send(c);
}

void
client_check_stopped(struct client *c)
{
	if (c->stopping && c->ext_n == 0 && c->mcall_n == 0 && !c->left)
		clock_defer(c->clock, &c->stop_defer, stop_step);
}

void
client_stop(struct client *c, role_fn *fn, void *ctx)
{
	assert(!c->stopping);
	c->stopping = true;
	c->stop_fn = fn;
	c->stop_ctx = ctx;
	clock_timer_stop(c->clock, &c->ready_timer);
	clock_undefer(c->clock, &c->ready_defer);
	c->is_ready = true;
	client_write_all(c);
	while (!list_empty(&c->files))
		client_release(list_entry(c->files.next, struct client_file,
		    node));
	client_check_stopped(c);
}

void
client_close(struct client *c)
{
	if (c == NULL)
		return;
	stat_remove(&c->stat_set);
	c->life->dead = true;
	client_life_put(c->life);
	net_call_cancel(&c->session.call);
	client_pause_stop(c, &c->session.pause);
	clock_timer_stop(c->clock, &c->session.timer);
	clock_timer_stop(c->clock, &c->where.watch);
	clock_timer_stop(c->clock, &c->ready_timer);
	clock_undefer(c->clock, &c->ready_defer);
	clock_undefer(c->clock, &c->stop_defer);
	client_read_close_all(c);
	client_ahead_close_all(c);
	client_fetch_close_all(c);
	client_mcall_close_all(c);
	client_write_close_all(c);
	client_files_close_all(c);
	paths_fini(&c->paths);
	assert(c->inodes.n == 0);
	map_fini(&c->inodes);
	clock_undefer(c->clock, &c->done_defer);
	clock_undefer(c->clock, &c->mem_defer);
	member_close(c->member);
	mem_pool_close(c->pool);
	free(c);
}

struct client_stat *
client_stats(struct client *c)
{
	return &c->stat;
}

struct member *
client_member(struct client *c)
{
	return c->member;
}

const struct uid128 *
client_id(const struct client *c)
{
	return &c->id;
}

const struct conf *
client_conf(const struct client *c)
{
	return c->conf;
}
