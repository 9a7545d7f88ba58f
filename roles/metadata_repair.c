/* SPDX-License-Identifier: MIT */
/* metadata_repair.c - rows that fsd check wants mended.
 *
 *   all that was proposed is applied -> worked out (meta/fs_repair.c) -> the next command
 *
 * What only the leader knows is which removals run against storage: such an inode must not
 * get its name back.  None begins while a repair is on its way. */
#include <errno.h>

#include "conf/err.h"
#include "roles/metadata_impl.h"

#define REPLY_ARENA	8192u

static void
repaired(struct group_req *r, int rc, const void *result, size_t len)
{
	struct metadata_op *op = container_of(r, struct metadata_op, gr);
	struct metadata *m = op->m;
	struct msg_repair_rep rep = { .index = 0 };
	struct msg_arena arena;
	struct fs_result res;

	metadata_gc_hold(m, false);
	msg_arena_init(&arena, REPLY_ARENA);
	if (rc == 0 && (rc = fs_result_decode(result, len, &res)) == 0)
		rc = res.rc;
	if (rc == 0)
		rc = msg_decode(&msg_type_repair_rep, res.rep, res.rep_len, &arena, &rep,
		    NULL);
	if (rc == -EAGAIN)
		rc = ERR_BUSY;		/* worked out for another place in the log */
	rep.index = r->index;
	for (uint32_t i = 0; rc == 0 && i < rep.results.n; i++)
		if (rep.results.v[i].rc == 0)
			stat_add(&m->stat.repairs, 1);
	metadata_reply(op, rc, &rep);
	msg_arena_fini(&arena);
}

/* Nothing is between what we see and the command. */
static void
work_out(struct group_req *r, int rc, const void *result, size_t len)
{
	struct metadata_op *op = container_of(r, struct metadata_op, gr);
	const struct msg_repair *q = op->req->msg;
	struct metadata *m = op->m;
	struct msg_repair_row rows[META_REPAIRS_MAX];
	struct msg_repair held = { .ctx = q->ctx, .rows = { rows, q->rows.n } };
	int n;

	(void)result;
	(void)len;
	for (uint32_t i = 0; i < q->rows.n; i++) {
		rows[i] = q->rows.v[i];
		if (metadata_gc_removing(m, rows[i].ino))
			rows[i].what = META_REPAIR_NONE;
	}
	if (rc == 0) {
		n = fs_cmd_repair(m->fs, &held, group_applied(m->group),
		    clock_wall(m->clock), m->clock, m->cmd, sizeof(m->cmd));
		rc = n < 0 ? n : group_propose(m->group, &op->gr, m->cmd, (size_t)n,
		    repaired);
	}
	if (rc != 0) {
		metadata_gc_hold(m, false);
		metadata_reply(op, rc, NULL);
	}
}

/* Our rows are what others have, or nobody asks. */
static bool
is_trusted(const struct metadata *m, const struct msg_repair *q)
{
	for (uint32_t i = 0; i < q->nodes.n; i++)
		if (q->nodes.v[i] == member_node(m->member))
			return true;
	return q->nodes.n == 0;
}

void
metadata_repair(struct metadata_op *op)
{
	const struct msg_repair *q = op->req->msg;
	struct metadata *m = op->m;
	int rc = -EINVAL;

	op->changes = true;
	if (q->ctx.seq != 0 && q->rows.n > 0 && q->rows.n <= META_REPAIRS_MAX)
		rc = !is_trusted(m, q) ? -ESTALE : group_quiet(m->group, &op->gr, work_out);
	if (rc != 0) {
		metadata_reply(op, rc, NULL);
		return;
	}
	log_warn(m->log, "rows are repaired, as the operator wants", "rows=%u",
	    q->rows.n);
	metadata_gc_hold(m, true);
}
