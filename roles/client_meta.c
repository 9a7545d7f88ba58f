/* SPDX-License-Identifier: MIT */
/* client_meta.c - calls to the metadata service: one engine that retries, and the
 * namespace operations over it.
 *
 *	new -> (waiting for a write-back) -> sent -> answered -> end
 *	                                      ^  |
 *	                                      pause
 * Every attempt has the same sequence number, so the server acts once. */
#include "roles/client_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the engine ---- */

static void	attempt(struct client_mcall *m);

/* Its memory is kept for the next one; what other objects know of it must be gone. */
static void
forget(struct client_mcall *m)
{
	struct client *c = m->c;

	if (m->in_changes)
		list_remove(&m->seq_node);
	list_remove(&m->node);
	c->mcall_n--;
	if (m->waiting)
		list_remove(&m->wait.node);
	if (m->inode != NULL)
		client_inode_put(m->inode);
	free(m->big);
	client_keep_put(&c->mcall_keep, &m->node);
	client_check_stopped(c);
}

struct client_mcall *
client_mcall_new(struct client *c, struct client_op *op, client_op_fn *fn,
    uint16_t method, const struct client_cred *cred, size_t text)
{
	struct client_mcall *m;
	uint32_t group_n = cred == NULL ? 0 : cred->group_n;

	if (op != NULL) {
		op->fn = fn;
		op->entry = NULL;
		op->ttl_ns = 0;
	}
	if (group_n > META_GROUPS_MAX)
		group_n = META_GROUPS_MAX;	/* the server knows no more */
	text += group_n * sizeof(uint32_t);
	m = client_keep_get(&c->mcall_keep, sizeof(*m));
	if (m != NULL) {
		memset(m, 0, offsetof(struct client_mcall, text));
		if (text > sizeof(m->text) &&
		    (m->big = malloc(text)) == NULL) {
			free(m);
			m = NULL;
		}
	}
	if (m == NULL) {
		if (op != NULL)
			client_op_finish(c, op, -ENOMEM);
		return NULL;
	}
	m->text_cap = m->big != NULL ? text : sizeof(m->text);
	m->c = c;
	m->op = op;
	m->method = method;
	m->start_ns = clock_now(c->clock);
	m->ext_mark = c->ext_id;
	list_init(&m->wait.node);
	list_init(&m->seq_node);
	list_push_back(&c->mcalls, &m->node);
	c->mcall_n++;
	m->req.ctx.client = c->id;
	if (cred != NULL) {
		m->req.ctx.uid = cred->uid;
		m->req.ctx.gid = cred->gid;
	}
	if (group_n > 0) {
		uint32_t *v = (uint32_t *)(void *)(m->big != NULL ? m->big :
		    m->text);

		memcpy(v, cred->groups, group_n * sizeof(*v));
		m->req.ctx.groups.v = v;
		m->req.ctx.groups.n = group_n;
		m->text_used = group_n * sizeof(*v);
	}
	return m;
}

struct msg_str
client_mcall_text(struct client_mcall *m, const char *s)
{
	size_t n = strlen(s);
	char *p = (m->big != NULL ? m->big : m->text) + m->text_used;

	assert(m->text_used + n <= m->text_cap);
	memcpy(p, s, n);
	m->text_used += n;
	return (struct msg_str){ p, (uint32_t)n };
}

static void
again(struct client_pause *p)
{
	stat_add(&p->c->stat.retries, 1);
	attempt(container_of(p, struct client_mcall, pause));
}

/* No attempt is in flight and none will be. */
static void
settle(struct client_mcall *m, int rc, const void *rep)
{
	if (m->in_changes) {
		list_remove(&m->seq_node);
		m->in_changes = false;
	}
	stat_add(&m->c->stat.calls, 1);
	stat_hist_add(&m->c->stat.call_ns, clock_now(m->c->clock) - m->start_ns);
	m->done(m, rc, rep);
}

static void
answered(struct net_call *call, int rc)
{
	struct client_mcall *m = container_of(call, struct client_mcall, call);
	struct client *c = m->c;

	if (client_where_answered(c, m->server, m->req.ctx.via, rc, &m->tries) &&
	    !client_expired(c, m->start_ns)) {
		stat_add(&c->stat.retries, 1);
		attempt(m);
		return;
	}
	if (rc != 0 && client_retryable(rc) &&
	    !client_expired(c, m->start_ns)) {
		if (rc == ERR_SESSION)
			client_session_lost(c);
		client_pause_start(c, &m->pause,
		    err_next(rc) != ERR_NEXT_RETRY, again);
		return;
	}
	settle(m, rc, rc == 0 ? call->rep : NULL);
}

static void
attempt(struct client_mcall *m)
{
	struct client *c = m->c;
	struct net_call_opts opts = { .deadline_ns = client_deadline(c) };
	struct net_addr to;
	int rc;

	m->req.ctx.done = list_empty(&c->changes) ? c->meta_seq :
	    list_entry(c->changes.next, struct client_mcall,
	    seq_node)->req.ctx.seq - 1;
	m->sent_ns = clock_now(c->clock);
	/* Not of a repeat: that may be answered by what was found the first time. */
	if (m->routing == 0)
		m->routing = routing_version(member_routing(c->member));
	if ((m->server = client_where(c, &to, &m->req.ctx.via)) != 0) {
		rc = net_call_start(&m->call, c->env.hub, &to, m->method,
		    &m->req, &opts, answered);
		if (rc == 0) {
			client_where_watch(c);
			return;
		}
	} else
		rc = -EHOSTUNREACH;
	if (client_retryable(rc) && !client_expired(c, m->start_ns))
		client_pause_start(c, &m->pause,
		    err_next(rc) == ERR_NEXT_REFRESH, again);
	else
		settle(m, rc, NULL);
}

struct net_call *
client_mcall_oldest(struct client *c, node_id node, uint64_t *sent_ns)
{
	struct client_session *s = &c->session;
	struct net_call *oldest = NULL;

	if (net_call_active(&s->call) && s->server == node) {
		oldest = &s->call;
		*sent_ns = s->sent_ns;
	}
	list_for_each(n, &c->mcalls) {
		struct client_mcall *m = list_entry(n, struct client_mcall, node);

		if (net_call_active(&m->call) && m->server == node &&
		    (oldest == NULL || m->sent_ns < *sent_ns)) {
			oldest = &m->call;
			*sent_ns = m->sent_ns;
		}
	}
	return oldest;
}

void
client_mcall_resend(struct client *c, node_id node)
{
	list_for_each_safe(n, next, &c->mcalls) {
		struct client_mcall *m = list_entry(n, struct client_mcall,
		    node);

		if (!net_call_active(&m->call) || m->server != node)
			continue;
		net_call_cancel(&m->call);
		stat_add(&c->stat.retries, 1);
		attempt(m);
	}
}

bool
client_mcall_leave(struct client *c, node_id node, uint64_t patience_ns)
{
	struct client_session *s = &c->session;
	uint64_t now = clock_now(c->clock);
	bool waits = false;

	if (net_call_active(&s->call) && s->server != node) {
		waits = true;
		if (s->sent_ns + patience_ns <= now)
			client_session_resend(c, s->server);
	}
	list_for_each_safe(n, next, &c->mcalls) {
		struct client_mcall *m = list_entry(n, struct client_mcall,
		    node);

		if (!net_call_active(&m->call) || m->server == node)
			continue;
		waits = true;
		if (m->sent_ns + patience_ns > now)
			continue;
		net_call_cancel(&m->call);
		stat_add(&c->stat.retries, 1);
		attempt(m);
	}
	return waits;
}

void
client_mcall_send(struct client_mcall *m, bool changes)
{
	struct client *c = m->c;

	if (changes) {
		m->req.ctx.seq = ++c->meta_seq;
		list_push_back(&c->changes, &m->seq_node);
		m->in_changes = true;
	}
	attempt(m);
}

void
client_mcall_end_later(struct client_mcall *m, int rc)
{
	struct client_op *op = m->op;
	struct client *c = m->c;

	m->op = NULL;
	forget(m);
	if (op != NULL)
		client_op_finish(c, op, rc);
}

void
client_mcall_end(struct client_mcall *m, int rc)
{
	struct client *c = m->c;
	struct client_life *l;

	/* A failure may come from a timer or from within the user's call; the reply of a
	 * success is only there now, and only from a reply do we get one. */
	if (rc != 0 || m->op == NULL) {
		client_mcall_end_later(m, rc);
		return;
	}
	l = client_life_get(c);
	m->op->fn(m->op, 0);
	if (client_life_put(l))
		return;
	m->op = NULL;
	forget(m);
}

void
client_mcall_entry(struct client_mcall *m, const struct msg_entry_rep *rep)
{
	struct client *c = m->c;
	struct client_inode *i = m->inode != NULL ? m->inode :
	    client_inode_find(c, rep->attr.ino);
	uint64_t ttl_ns = (uint64_t)rep->ttl_ms * NS_PER_MS;
	uint64_t past_ns = clock_fresh(c->clock) - m->sent_ns;

	m->entry = *rep;
	if (i != NULL) {
		client_inode_adopt(i, &rep->attr);
		if (i->attr.epoch == rep->attr.epoch && m->routing > i->epoch_routing)
			i->epoch_routing = m->routing;
		if (i->attr.epoch == rep->attr.epoch && rep->at > i->epoch_at)
			i->epoch_at = rep->at;
		client_inode_merge(i, &m->entry.attr);
	}
	if (m->op != NULL) {
		m->op->entry = &m->entry;
		m->op->ttl_ns = ttl_ns > past_ns ? ttl_ns - past_ns : 0;
	}
}

void
client_mcall_close_all(struct client *c)
{
	struct list *n;

	while ((n = list_pop_front(&c->mcalls)) != NULL) {
		struct client_mcall *m = list_entry(n, struct client_mcall,
		    node);

		net_call_cancel(&m->call);
		client_pause_stop(c, &m->pause);
		if (m->waiting)
			list_remove(&m->wait.node);
		if (m->file != NULL && m->file_out != NULL) {
			struct client_inode *i = m->file->inode;

			free(m->file);
			if (i != NULL)
				client_inode_put(i);
		}
		if (m->inode != NULL)
			client_inode_put(m->inode);
		free(m->big);
		free(m);
	}
	client_keep_fini(&c->mcall_keep);
}

int
client_name_check(const char *name)
{
	size_t n = strnlen(name, META_NAME_MAX + 1);

	return n == 0 ? -ENOENT : n > META_NAME_MAX ? -ENAMETOOLONG : 0;
}

/* ---- namespace operations ---- */

static void
entry_done(struct client_mcall *m, int rc, const void *rep)
{
	if (rc == 0)
		client_mcall_entry(m, rep);
	client_mcall_end(m, rc);
}

/* unlink, rmdir, rename, readlink and statfs: the reply goes through as it is. */
static void
plain_done(struct client_mcall *m, int rc, const void *rep)
{
	if (rc == 0)
		m->op->unlink = rep;
	client_mcall_end(m, rc);
}

static void
readdir_done(struct client_mcall *m, int rc, const void *rep)
{
	const struct msg_readdir_rep *r = rep;
	struct client *c = m->c;

	if (rc == 0) {
		uint64_t ttl_ns = (uint64_t)r->ttl_ms * NS_PER_MS;
		uint64_t past_ns = clock_fresh(c->clock) - m->sent_ns;

		/* A listing must not take back the length of what we write. */
		for (uint32_t k = 0; c->inodes.n > 0 && k < r->entries.n; k++) {
			struct msg_dirent *d = &r->entries.v[k];
			struct client_inode *i = client_inode_find(c, d->ino);

			if (i != NULL && d->attr.ino == d->ino)
				client_inode_merge(i, &d->attr);
		}
		m->op->readdir = r;
		m->op->ttl_ns = ttl_ns > past_ns ? ttl_ns - past_ns : 0;
	}
	client_mcall_end(m, rc);
}

/* Begin an operation on @name in @parent; NULL: @op has been told. */
static struct client_mcall *
begin_name(struct client *c, struct client_op *op, client_op_fn *fn,
    uint16_t method, const struct client_cred *cred, const char *name,
    size_t more)
{
	int rc = client_name_check(name);

	if (rc != 0) {
		op->fn = fn;
		client_op_finish(c, op, rc);
		return NULL;
	}
	return client_mcall_new(c, op, fn, method, cred, strlen(name) + more);
}

void
client_lookup(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id parent, const char *name)
{
	struct client_mcall *m = begin_name(c, op, fn, MSG_lookup, cred, name,
	    0);

	if (m == NULL)
		return;
	m->req.lookup.parent = parent;
	m->req.lookup.name = client_mcall_text(m, name);
	m->done = entry_done;
	client_mcall_send(m, false);
}

void
client_getattr(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id ino)
{
	struct client_mcall *m = client_mcall_new(c, op, fn, MSG_getattr, cred,
	    0);

	if (m == NULL)
		return;
	m->req.ino.ino = ino;
	m->done = entry_done;
	client_mcall_send(m, false);
}

static void
mknod_start(struct client *c, struct client_op *op, client_op_fn *fn,
    uint16_t method, const struct client_cred *cred, ino_id parent,
    const char *name, uint32_t mode, uint64_t rdev)
{
	struct client_mcall *m = begin_name(c, op, fn, method, cred, name, 0);

	if (m == NULL)
		return;
	m->req.mknod.parent = parent;
	m->req.mknod.name = client_mcall_text(m, name);
	m->req.mknod.mode = mode;
	m->req.mknod.rdev = rdev;
	m->done = entry_done;
	client_mcall_send(m, true);
}

void
client_mkdir(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id parent, const char *name,
    uint32_t mode)
{
	mknod_start(c, op, fn, MSG_mkdir, cred, parent, name, mode, 0);
}

void
client_mknod(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id parent, const char *name,
    uint32_t mode, uint64_t rdev)
{
	mknod_start(c, op, fn, MSG_mknod, cred, parent, name, mode, rdev);
}

void
client_symlink(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id parent, const char *name,
    const char *target)
{
	size_t n = strnlen(target, META_SYMLINK_MAX + 1);
	struct client_mcall *m;

	if (n == 0 || n > META_SYMLINK_MAX) {
		op->fn = fn;
		client_op_finish(c, op, n == 0 ? -ENOENT : -ENAMETOOLONG);
		return;
	}
	m = begin_name(c, op, fn, MSG_symlink, cred, name, n);
	if (m == NULL)
		return;
	m->req.symlink.parent = parent;
	m->req.symlink.name = client_mcall_text(m, name);
	m->req.symlink.target = client_mcall_text(m, target);
	m->done = entry_done;
	client_mcall_send(m, true);
}

void
client_readlink(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id ino)
{
	struct client_mcall *m = client_mcall_new(c, op, fn, MSG_readlink,
	    cred, 0);

	if (m == NULL)
		return;
	m->req.ino.ino = ino;
	m->done = plain_done;
	client_mcall_send(m, false);
}

static void
link_done(struct client_mcall *m, int rc, const void *rep)
{
	const struct msg_entry_rep *r = rep;

	if (rc == 0)
		client_seen_step(m->c, r->attr.ino, r->attr.change);
	entry_done(m, rc, rep);
}

void
client_link(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id ino, ino_id parent,
    const char *name)
{
	struct client_mcall *m = begin_name(c, op, fn, MSG_link, cred, name, 0);

	if (m == NULL)
		return;
	m->req.link.ino = ino;
	m->req.link.parent = parent;
	m->req.link.name = client_mcall_text(m, name);
	m->done = link_done;
	client_mcall_send(m, true);
}

static void
remove_start(struct client *c, struct client_op *op, client_op_fn *fn,
    uint16_t method, const struct client_cred *cred, ino_id parent,
    const char *name)
{
	struct client_mcall *m = begin_name(c, op, fn, method, cred, name, 0);

	if (m == NULL)
		return;
	m->req.name.parent = parent;
	m->req.name.name = client_mcall_text(m, name);
	m->done = plain_done;
	client_mcall_send(m, true);
}

void
client_unlink(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id parent, const char *name)
{
	remove_start(c, op, fn, MSG_unlink, cred, parent, name);
}

void
client_rmdir(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id parent, const char *name)
{
	remove_start(c, op, fn, MSG_rmdir, cred, parent, name);
}

void
client_rename(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id parent, const char *name,
    ino_id new_parent, const char *new_name, uint32_t flags)
{
	struct client_mcall *m;
	int rc = client_name_check(new_name);

	if (rc != 0) {
		op->fn = fn;
		client_op_finish(c, op, rc);
		return;
	}
	m = begin_name(c, op, fn, MSG_rename, cred, name, strlen(new_name));
	if (m == NULL)
		return;
	m->req.rename.parent = parent;
	m->req.rename.name = client_mcall_text(m, name);
	m->req.rename.new_parent = new_parent;
	m->req.rename.new_name = client_mcall_text(m, new_name);
	m->req.rename.flags = flags;
	m->done = plain_done;
	client_mcall_send(m, true);
}

void
client_readdir(struct client *c, struct client_op *op, client_op_fn *fn,
    const struct client_cred *cred, ino_id ino, uint64_t cookie,
    uint32_t max_bytes, bool plus)
{
	struct client_mcall *m = client_mcall_new(c, op, fn, MSG_readdir, cred,
	    0);

	if (m == NULL)
		return;
	m->req.readdir.ino = ino;
	m->req.readdir.cookie = cookie;
	m->req.readdir.max_bytes = max_bytes;
	m->req.readdir.plus = plus;
	m->done = readdir_done;
	client_mcall_send(m, false);
}

void
client_statfs(struct client *c, struct client_op *op, client_op_fn *fn)
{
	struct client_mcall *m = client_mcall_new(c, op, fn, MSG_statfs, NULL,
	    0);

	if (m == NULL)
		return;
	m->req.ino.ino = INO_ROOT;
	m->done = plain_done;
	client_mcall_send(m, false);
}
