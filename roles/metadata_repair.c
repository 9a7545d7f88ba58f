/* SPDX-License-Identifier: MIT */
/* metadata_repair.c - rows that fsd check wants mended: one command of the log (meta/op_repair.h).
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
	rep.index = r->index;
	for (uint32_t i = 0; rc == 0 && i < rep.results.n; i++)
		if (rep.results.v[i].rc == 0)
			stat_add(&m->stat.repairs, 1);
	metadata_reply(op, rc, &rep);
	msg_arena_fini(&arena);
}

void
metadata_repair(struct metadata_op *op)
{
	const struct msg_repair *q = op->req->msg;
	struct metadata *m = op->m;
	struct msg_repair_row rows[META_REPAIRS_MAX];
	struct msg_repair held = { q->ctx, { rows, q->rows.n } };
	struct fs_cmd c = { .kind = FS_MESSAGE, .method = MSG_repair,
		.wall_ns = clock_wall(m->clock) };
	int n, rc = 0;

	op->changes = true;
	if (q->ctx.seq == 0 || q->rows.n == 0 || q->rows.n > META_REPAIRS_MAX)
		rc = -EINVAL;
	for (uint32_t i = 0; rc == 0 && i < q->rows.n; i++) {
		rows[i] = q->rows.v[i];
		if (metadata_gc_removing(m, rows[i].ino))
			rows[i].what = META_REPAIR_NONE;
	}
	if (rc == 0) {
		n = fs_cmd_message(&c, &held, m->cmd, sizeof(m->cmd));
		rc = n < 0 ? n : group_propose(m->group, &op->gr, m->cmd, (size_t)n,
		    repaired);
	}
	if (rc != 0) {
		metadata_reply(op, rc, NULL);
		return;
	}
	log_warn(m->log, "rows are repaired, as the operator wants", "rows=%u",
	    q->rows.n);
	metadata_gc_hold(m, true);
}
