/* SPDX-License-Identifier: MIT */
/* metadata_length.c - the end of a file, asked of storage.
 *
 * Needed when a writer reports a length in an older truncation epoch: which of its writes
 * came before the cut only the chunks know.
 *
 *   sync refused (-EAGAIN) -> wait for a truncation that is pending -> ask all chains ->
 *   sync again, with the answer and the epoch it is of; refused again when yet another
 *   truncation came between. */
#include <errno.h>
#include <stdlib.h>

#include "conf/err.h"
#include "roles/metadata_impl.h"

struct settle {
	struct metadata_stripe stripe;
	struct metadata_op    *op;
	uint32_t	       epoch;	/* of the inode when it was asked */
};

static void
asked(struct metadata_stripe *s, int rc)
{
	struct settle *x = container_of(s, struct settle, stripe);
	struct metadata_op *op = x->op;

	op->m->settles--;
	op->settle = NULL;
	op->flags |= FS_LAST;
	op->last_epoch = x->epoch;
	op->last_end = s->end;
	free(x);
	if (rc != 0)
		metadata_reply(op, ERR_BUSY, NULL);	/* the client tries again */
	else
		metadata_change(op);
}

void
metadata_length_settle(struct metadata_op *op)
{
	const struct msg_sync *q = op->req->msg;
	struct metadata *m = op->m;
	struct settle *x = NULL;
	struct inode in;
	int rc;

	if (m->stopping || !m->leads) {
		metadata_reply(op, m->stopping ? ERR_STOPPING : ERR_NOT_LEADER,
		    NULL);
		return;
	}
	if ((rc = fs_inode(m->fs, q->ino, &in)) != 0) {
		metadata_reply(op, rc == -ENOENT ? -ESTALE : rc, NULL);
		return;
	}
	if (inode_cutting(&in)) {
		op->answered = false;
		if ((rc = metadata_gc_wait(m, op, in.ino)) != 0)
			metadata_reply(op, rc, NULL);
		return;
	}
	if (m->settles >= METADATA_SETTLE_MAX ||
	    (x = calloc(1, sizeof(*x))) == NULL) {
		metadata_reply(op, x == NULL ? ERR_BUSY : -ENOMEM, NULL);
		return;
	}
	x->op = op;
	x->epoch = in.epoch;
	x->stripe.ino = in.ino;
	x->stripe.last = true;
	x->stripe.deadline_ns = op->req->deadline_ns;
	inode_layout(&in, &x->stripe.layout);
	m->settles++;
	stat_add(&m->stat.settles, 1);
	op->settle = &x->stripe;
	metadata_stripe_start(op->settle, m, asked);
}

void
metadata_length_drop(struct metadata_op *op)
{
	if (op->settle == NULL)
		return;
	metadata_stripe_cancel(op->settle);
	free(container_of(op->settle, struct settle, stripe));
	op->settle = NULL;
	op->m->settles--;
}

void
metadata_length_cancel(struct metadata_op *op, int rc)
{
	metadata_length_drop(op);
	metadata_reply(op, rc, NULL);
}
