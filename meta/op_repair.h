/* SPDX-License-Identifier: MIT */
/* op_repair.h - what op_repair.c and op_lost.c share; nobody else includes it. */
#ifndef META_OP_REPAIR_H
#define META_OP_REPAIR_H

#include "meta/op.h"

/* Rows that one command may walk over, beside those it names: some tens of milliseconds. */
#define OP_REPAIR_READS	16384u

struct op_repair {
	uint32_t reads;		/* that are left */
};

/* Damage is for the caller to tell: 0, -ENOENT, ERR_LOG_DAMAGED; else noted in @o. */
int	op_repair_inode(struct fs_op *o, ino_id ino, struct inode *in);

/* ---- op_lost.c: 0, -ESTALE, -EAGAIN, -EEXIST, -EPERM ---- */

/* q->ino has no entry as long as its change is q->change: it gets one in lost+found. */
int	op_lost_found(struct fs_op *o, const struct msg_repair_row *q);
/* Directory q->ino, to which the entry of @q leads, is below itself: it moves there. */
int	op_lost_cycle(struct fs_op *o, struct op_repair *r,
	    const struct msg_repair_row *q);

#endif
