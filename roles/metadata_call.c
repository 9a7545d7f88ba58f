/* SPDX-License-Identifier: MIT */
/* metadata_call.c - requests in, reads of the applied state or commands of the group,
 * answers out.
 *
 *   request -> admitted? (lease, session) -> read  -> barrier -> answer
 *                |                        -> change -> log, apply -> answer
 *                '- held: another client may cache          |  |
 *                                     waits for a truncation <--'  '-> end of file from
 *                                     (metadata_gc.c)                  storage, again
 *
 *  1. Nothing is answered without being certain to lead the group, and that it is the one
 *     the manager knows.
 *  2. A change is answered after it is durable and applied; one that truncates, after
 *     storage has cut all chunks and that is committed, too.
 *  3. A request is answered exactly once, by metadata_reply(); it is in m->ops until
 *     then. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "conf/err.h"
#include "roles/metadata_impl.h"

#define CHAIN_TABLE	1u		/* that new files are striped over */
#define REPLY_ARENA	4096u

/* ---- requests ---- */

static struct metadata_op *
op_get(struct metadata *m, struct net_req *req)
{
	struct metadata_op *op;
	struct list *n;

	if ((n = list_pop_front(&m->ops_free)) != NULL) {
		m->ops_free_n--;
		op = list_entry(n, struct metadata_op, all);
	} else if ((op = malloc(sizeof(*op))) == NULL) {
		return NULL;
	}
	/* All but the reply, which is big, and set before it is read. */
	memset(op, 0, offsetof(struct metadata_op, rep));
	op->m = m;
	op->req = req;
	req->user = op;
	list_init(&op->wait);
	op->start_ns = metadata_now(m);
	list_push_back(&m->ops, &op->all);
	m->ops_n++;
	stat_set(&m->stat.requests, m->ops_n);
	return op;
}

static void
op_put(struct metadata_op *op)
{
	struct metadata *m = op->m;

	list_remove(&op->all);
	m->ops_n--;
	stat_set(&m->stat.requests, m->ops_n);
	if (m->ops_free_n < METADATA_OPS_KEEP) {
		m->ops_free_n++;
		list_push_front(&m->ops_free, &op->all);
	} else {
		free(op);
	}
	if (m->stopping && m->ops_n == 0)
		metadata_drained(m);
}

void
metadata_reply(struct metadata_op *op, int rc, const void *rep)
{
	struct metadata_stat *stat = &op->m->stat;

	if (rc == ERR_LOG_DAMAGED && metadata_pass_on(op->m))
		rc = ERR_NOT_LEADER;
	stat_add(op->changes ? &stat->changes : &stat->reads, 1);
	if (op->changes)
		stat_hist_add(&stat->change_ns, metadata_now(op->m) - op->start_ns);
	net_reply(op->req, rc, rc == 0 ? rep : NULL, NULL, 0, NULL, NULL);
	op_put(op);
}

const struct uid128 *
metadata_client(const struct metadata_op *op)
{
	const struct msg_ctx *ctx = op->req->msg;	/* first of all but one */

	if (op->req->method == MSG_session)
		return &((const struct msg_session *)op->req->msg)->client;
	return &ctx->client;
}

/* The last command by which the epoch that @attr names is surely the inode's: who writes in it
 * says so to storage. */
static uint64_t
epoch_at(struct metadata *m, const struct msg_attr *attr)
{
	struct inode in;

	/* What is told may be the record of an old answer, or a truncation under way. */
	if (!S_ISREG(attr->mode) || fs_inode(m->fs, attr->ino, &in) != 0 ||
	    in.epoch != attr->epoch || inode_cutting(&in))
		return 1;
	return group_applied(m->group);
}

void
metadata_reply_entry(struct metadata_op *op)
{
	op->rep.at = epoch_at(op->m, &op->rep.attr);
	op->rep.ttl_ms = metadata_session_grant(op->m, metadata_client(op));
	metadata_reply(op, 0, &op->rep);
}

/* ---- reads ---- */

/* An open that needs no command. */
static int
open_now(struct metadata_op *op, const struct msg_open *q, const struct inode *in)
{
	struct metadata *m = op->m;

	if (in->nlink == 0 && (metadata_gc_removing(m, in->ino) ||
	    !metadata_session_is_open(m, in->ino)))
		return -ESTALE;
	inode_attr(in, &op->rep.attr);
	return metadata_session_open(m, &q->ctx.client, in->ino, q->handle);
}

/* What attributes to tell while a truncation is pending?  Whoever may write next has to
 * wait for the epoch in which that is right. */
static bool
waits(struct metadata_op *op, const struct inode *in)
{
	int rc;

	if (!inode_cutting(in))
		return false;
	op->answered = false;
	if ((rc = metadata_gc_wait(op->m, op, in->ino)) != 0)
		metadata_reply(op, rc, NULL);
	return true;
}

static void
read_open(struct metadata_op *op)
{
	const struct msg_open *q = op->req->msg;
	struct inode in;
	int rc = fs_open_check(op->m->fs, q, &in);

	if ((rc == 0 || rc == -EINPROGRESS) && (q->flags & O_TRUNC) == 0 &&
	    (q->flags & O_ACCMODE) != O_RDONLY && waits(op, &in))
		return;
	if (rc == -EINPROGRESS) {
		metadata_change(op);
		return;
	}
	if (rc == 0)
		rc = open_now(op, q, &in);
	if (rc != 0)
		metadata_reply(op, rc, NULL);
	else
		metadata_reply_entry(op);
}

static void
read_getattr(struct metadata_op *op)
{
	const struct msg_ino *q = op->req->msg;
	struct inode in;
	int rc = fs_inode(op->m->fs, q->ino, &in);

	if (rc != 0) {
		metadata_reply(op, rc == -ENOENT ? -ESTALE : rc, NULL);
		return;
	}
	if (waits(op, &in))
		return;
	inode_attr(&in, &op->rep.attr);
	metadata_reply_entry(op);
}

/* Sync and close of who has not written. */
static void
read_sync(struct metadata_op *op)
{
	const struct msg_sync *q = op->req->msg;
	struct inode in;
	int rc = fs_inode(op->m->fs, q->ino, &in);

	if (op->req->method == MSG_close)
		metadata_session_release(op->m, &q->ctx.client, q->handle);
	if (rc != 0) {
		metadata_reply(op, rc == -ENOENT ? -ESTALE : rc, NULL);
		return;
	}
	inode_attr(&in, &op->rep.attr);
	metadata_reply_entry(op);
}

static void
read_statfs(struct metadata_op *op)
{
	struct msg_statfs_rep rep = { 0 };
	int rc;

	member_space(op->m->member, &rep.total_bytes, &rep.used_bytes);
	rc = fs_inodes(op->m->fs, &rep.inodes);
	metadata_reply(op, rc, &rep);
}

static void
read_readdir(struct metadata_op *op)
{
	struct msg_readdir_rep rep = { 0 };
	int rc = fs_readdir(op->m->fs, op->req->msg, &rep);

	if (rc == 0)
		rep.ttl_ms = metadata_session_grant(op->m, metadata_client(op));
	metadata_reply(op, rc, &rep);
}

static void
read_ready(struct group_req *r, int rc, const void *result, size_t len)
{
	struct metadata_op *op = container_of(r, struct metadata_op, gr);
	struct msg_readlink_rep target = { { 0 } };

	(void)result;
	(void)len;
	if (rc != 0) {
		metadata_reply(op, rc, NULL);
		return;
	}
	op->rep = (struct msg_entry_rep){ 0 };
	switch (op->req->method) {
	case MSG_lookup:
		rc = fs_lookup(op->m->fs, op->req->msg, &op->rep);
		if (rc != 0)
			metadata_reply(op, rc, NULL);
		else
			metadata_reply_entry(op);
		break;
	case MSG_getattr:
		read_getattr(op);
		break;
	case MSG_open:
		read_open(op);
		break;
	case MSG_close:
	case MSG_sync:
		read_sync(op);
		break;
	case MSG_readlink:
		rc = fs_readlink(op->m->fs, op->req->msg, &target);
		metadata_reply(op, rc, &target);
		break;
	case MSG_readdir:
		read_readdir(op);
		break;
	case MSG_statfs:
		read_statfs(op);
		break;
	default:
		assert(op->req->method == MSG_session);
		metadata_session_serve(op);
		break;
	}
}

static void
read_start(struct metadata_op *op)
{
	int rc = group_read(op->m->group, &op->gr, read_ready);

	if (rc != 0)
		metadata_reply(op, rc, NULL);
}

/* ---- changes ---- */

/* A command was applied that says yes to @op; its reply is in op->rep. */
static void
changed_entry(struct metadata_op *op, const struct fs_result *res)
{
	struct metadata *m = op->m;
	const struct uid128 *client = metadata_client(op);
	uint64_t handle = 0;
	int rc;

	if (op->req->method == MSG_create)
		handle = ((const struct msg_create *)op->req->msg)->handle;
	if (op->req->method == MSG_open)
		handle = ((const struct msg_open *)op->req->msg)->handle;
	if (op->req->method == MSG_close)
		metadata_session_release(m, client,
		    ((const struct msg_sync *)op->req->msg)->handle);
	if (handle != 0) {
		ino_id ino = op->rep.attr.ino;

		rc = metadata_gc_removing(m, ino) ? -ESTALE :
		    metadata_session_open(m, client, ino, handle);
		if (rc != 0) {
			metadata_reply(op, rc, NULL);
			return;
		}
	}
	if ((res->effects & FS_TRUNCATES) != 0) {
		struct inode in;

		/* The record of an old one says the same; it may have settled. */
		if (fs_inode(m->fs, res->ino, &in) == 0 && inode_cutting(&in)) {
			op->answered = true;
			rc = metadata_gc_wait(m, op, res->ino);
			if (rc != 0)
				metadata_reply(op, rc, NULL);
			return;
		}
	}
	metadata_reply_entry(op);
}

static void
changed(struct group_req *r, int rc, const void *result, size_t len)
{
	struct metadata_op *op = container_of(r, struct metadata_op, gr);
	const struct msg_method *method = msg_method(op->req->method);
	struct metadata *m = op->m;
	struct msg_unlink_rep unlinked;
	struct msg_arena arena;
	struct fs_result res;
	void *rep = &op->rep;

	if (rc == 0 && (rc = fs_result_decode(result, len, &res)) == 0)
		rc = res.rc;
	if (rc == -EAGAIN) {
		metadata_length_settle(op);
		return;
	}
	if (rc == 0) {
		if (method->reply == &msg_type_unlink_rep)
			rep = &unlinked;
		msg_arena_init(&arena, REPLY_ARENA);
		rc = msg_decode(method->reply, res.rep, res.rep_len, &arena, rep,
		    NULL);
		msg_arena_fini(&arena);
	}
	if (rc != 0) {
		/* The handle ends whatever became of the length. */
		if (op->req->method == MSG_close)
			metadata_session_release(m, metadata_client(op),
			    ((const struct msg_sync *)op->req->msg)->handle);
		metadata_reply(op, rc, NULL);
		return;
	}
	if ((res.effects & FS_REMOVES) != 0)
		metadata_gc_look(m, res.ino);
	if (rep == &unlinked)
		metadata_reply(op, 0, &unlinked);
	else
		changed_entry(op, &res);
}

/* The layout of a file that is made now; false: there is no chain table yet. */
static bool
pick_layout(const struct metadata *m, struct layout *out)
{
	const struct conf *conf = m->env.conf;
	const struct routing_table *t =
	    routing_table(member_routing(m->member), CHAIN_TABLE, 0);
	uint32_t stripe = (uint32_t)conf->cluster_stripe;
	uint8_t shift = 0;

	if (t == NULL || t->chain_n == 0)
		return false;
	if (stripe > t->chain_n)
		stripe = t->chain_n;
	if (stripe > LAYOUT_STRIPE_MAX)
		stripe = LAYOUT_STRIPE_MAX;
	while (shift < LAYOUT_SHIFT_MAX &&
	    (UINT64_C(1) << (shift + 1)) <= conf->cluster_chunk_size)
		shift++;
	*out = (struct layout){
		.table = t->id, .table_version = t->version,
		.chunk_shift = shift < LAYOUT_SHIFT_MIN ? LAYOUT_SHIFT_MIN : shift,
		.stripe = stripe,
	};
	return true;
}

/* Clients had the time to tell their opens to this run, and @client has. */
static bool
opens_known(const struct metadata *m, const struct uid128 *client)
{
	return metadata_session_told(m, client) && (m->fresh ||
	    metadata_now(m) >= m->start_ns +
	    m->env.conf->metadata_session * NS_PER_MS);
}

/* What only the leader knows about the request. */
static void
vouch(const struct metadata_op *op, struct fs_cmd *c)
{
	const struct metadata *m = op->m;
	const struct msg_setattr *set = op->req->msg;
	const struct msg_open *o = op->req->msg;

	switch (op->req->method) {
	case MSG_create:
	case MSG_mknod:
		if (pick_layout(m, &c->layout))
			c->flags |= FS_LAYOUT;
		/* Which inode, if any, is seen when it is applied. */
		c->flags |= FS_UNSETTLED;
		break;
	case MSG_setattr:
		/* Until all opens are known, a handle is taken at its word. */
		if (set->handle != 0 && (!opens_known(m, &set->ctx.client) ||
		    metadata_session_handle(op->m, &set->ctx.client,
		    set->handle) == set->ino))
			c->flags |= FS_HANDLE;
		if (!opens_known(m, &set->ctx.client) ||
		    metadata_session_is_open(m, set->ino))
			c->flags |= FS_UNSETTLED;
		break;
	case MSG_open:
		if (metadata_session_is_open(m, o->ino))
			c->flags |= FS_HANDLE | FS_UNSETTLED;
		if (!opens_known(m, &o->ctx.client))
			c->flags |= FS_UNSETTLED;
		break;
	default:
		break;
	}
}

void
metadata_change(struct metadata_op *op)
{
	struct metadata *m = op->m;
	const struct msg_ctx *ctx = op->req->msg;
	struct fs_cmd c = {
		.kind = FS_MESSAGE, .method = op->req->method,
		.flags = op->flags, .wall_ns = clock_wall(m->clock),
		.last_epoch = op->last_epoch, .last_end = op->last_end,
	};
	int n, rc;

	if (ctx->seq == 0 && (op->req->method != MSG_open ||
	    (((const struct msg_open *)op->req->msg)->flags & O_TRUNC) != 0)) {
		metadata_reply(op, -EINVAL, NULL);
		return;
	}
	op->changes = true;
	vouch(op, &c);
	n = fs_cmd_message(&c, op->req->msg, m->cmd, sizeof(m->cmd));
	if (n < 0)
		rc = n;
	else if (op->req->method == MSG_unlink || op->req->method == MSG_rmdir)
		rc = group_propose_freeing(m->group, &op->gr, m->cmd,
		    (size_t)n, changed);
	else
		rc = group_propose(m->group, &op->gr, m->cmd, (size_t)n,
		    changed);
	if (rc != 0)
		metadata_reply(op, rc, NULL);
}

void
metadata_dispatch(struct metadata_op *op)
{
	switch (op->req->method) {
	case MSG_setattr:
	case MSG_create:
	case MSG_mkdir:
	case MSG_mknod:
	case MSG_symlink:
	case MSG_link:
	case MSG_unlink:
	case MSG_rmdir:
	case MSG_rename:
		metadata_change(op);
		break;
	case MSG_repair:
		metadata_repair(op);
		break;
	case MSG_close:
	case MSG_sync:
		if (((const struct msg_sync *)op->req->msg)->wrote)
			metadata_change(op);
		else
			read_start(op);
		break;
	default:
		read_start(op);
		break;
	}
}

/* Unless we are sure to lead nobody is answered, so nobody's silence means anything: once
 * we are (again), clients get the time of a session to tell what they have open. */
bool
metadata_hears(struct metadata *m)
{
	if (!m->leads)
		return false;
	if (!m->known || !group_lease(m->group)) {
		m->deaf = true;
		return false;
	}
	if (!m->deaf)
		return true;
	m->deaf = false;
	m->fresh = m->fresh && m->start_ns == 0;
	m->start_ns = metadata_now(m);
	metadata_session_hears(m);
	metadata_gc_lead(m);
	return true;
}

static int
may_serve(struct metadata *m)
{
	if (m->stopping)
		return ERR_STOPPING;
	if (!m->leads || !group_leads(m->group))
		return ERR_NOT_LEADER;
	if (!metadata_hears(m))
		return ERR_NO_LEASE;
	return 0;
}

void
metadata_serve(void *ctx, struct net_req *req)
{
	struct metadata *m = ctx;
	struct metadata_op *op = NULL;
	int rc = may_serve(m);

	if (req->method == MSG_meta_stats) {
		role_stats_call(&m->env, req);
		return;
	}
	/* Of any member. */
	if (!m->stopping && m->group != NULL && (req->method == MSG_reload ||
	    (req->method == MSG_image &&
	    ((const struct msg_image *)req->msg)->image != 0))) {
		if (req->method == MSG_reload)
			metadata_reload_call(m, req);
		else
			metadata_image_call(m, req);
		return;
	}
	if (rc == ERR_NOT_LEADER && metadata_via(req) != 0 &&
	    metadata_via(req) == member_node(m->member)) {
		metadata_relay_call(m, req);
		return;
	}
	if (rc == 0 && !metadata_relay_from(m, metadata_via(req)))
		rc = ERR_NOT_OWNER;
	if (rc == 0 && req->method == MSG_image) {
		metadata_image_call(m, req);
		return;
	}
	if (rc == 0 && req->method != MSG_session &&
	    ((const struct msg_ctx *)req->msg)->groups.n > META_GROUPS_MAX)
		rc = -EINVAL;
	if (rc == 0 && (op = op_get(m, req)) == NULL)
		rc = -ENOMEM;
	if (rc != 0) {
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
		return;
	}
	rc = metadata_session_admit(m, op, metadata_client(op));
	if (rc == 0)
		metadata_dispatch(op);
	else if (rc < 0)
		metadata_reply(op, rc, NULL);
}
