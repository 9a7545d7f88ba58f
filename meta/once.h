/* SPDX-License-Identifier: MIT */
/* once.h - results of changes by (client, seq), so that a retry does not act twice.
 *
 * Row of a change: format u8 (1), then the result as fs_apply() gave it.
 * Row of seq 0: format u8 (1), low u64: every record up to it is gone, and a request
 * that is as old is a copy that nobody waits for any more.
 *
 * Records are dropped in bounded steps: a client says with each change up to where its
 * changes have been answered. */
#ifndef META_ONCE_H
#define META_ONCE_H

#include <stdbool.h>

#include "conf/table.h"
#include "net/msg_meta.h"

#define ONCE_RESULT_MAX	(8u << 10)	/* bytes of one result */
#define ONCE_DROP_LAG	16u		/* drop when so many have been answered */
#define ONCE_DROP_MAX	32u		/* and at most so many at a time */

/* 0 and the result of the first time (borrowed as table_get()); -ENOENT: it is new;
 * -ECANCELED: older than what is kept; -EIO, ERR_LOG_DAMAGED. *low is set with 0,
 * -ENOENT and -ECANCELED. */
int	once_get(struct table *t, const struct msg_ctx *who, uint64_t *low,
	    const void **result, size_t *len);
/* Keep @result (0..ONCE_RESULT_MAX bytes), and drop what who->done allows; @low as
 * once_get() gave it. 0, -ENOMEM, -EIO. */
int	once_put(struct table *t, const struct msg_ctx *who, uint64_t low,
	    const void *result, size_t len);
/* Drop records of a client that has gone, at most @max; *more when some are left. */
int	once_drop(struct table *t, const struct uid128 *client, unsigned max,
	    bool *more);
/* The first client after @after (NULL: of all) that has records. 0, -ENOENT, -EIO. */
int	once_next_client(struct table *t, const struct uid128 *after,
	    struct uid128 *out);

#endif
