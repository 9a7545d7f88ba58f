/* SPDX-License-Identifier: MIT */
/* fs_impl.h - what fs.c and fs_repair.c share; nobody else includes it. */
#ifndef META_FS_IMPL_H
#define META_FS_IMPL_H

#include "conf/bytes.h"
#include "meta/op.h"

void	fs_put_head(struct bytes_writer *w, const struct fs_cmd *c);
/* Bytes written; @o NULL: without effects. */
size_t	fs_put_result(void *out, size_t cap, int rc, const struct fs_op *o,
	    const struct msg_type *rep_type);
/* The body of FS_REPAIRED. */
size_t	fs_apply_repaired(struct fs *fs, struct bytes_reader *r, void *result, size_t cap);

#endif
