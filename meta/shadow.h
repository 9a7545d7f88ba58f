/* SPDX-License-Identifier: MIT */
/* shadow.h - a table that shows another one, and keeps to itself what is changed in it: what
 * would an operation do? */
#ifndef META_SHADOW_H
#define META_SHADOW_H

#include "conf/table.h"

struct shadow;

/* @below is borrowed, and must not change before the end. 0 or -ENOMEM. */
int	shadow_open(struct shadow **out, struct table *below, struct clock *clock);
void	shadow_close(struct shadow *s);		/* NULL is fine */
struct table *shadow_table(struct shadow *s);
/* What was changed, in the order of keys; nothing more may be.  Borrowed until the end. */
const struct table_change *shadow_changes(struct shadow *s, size_t *n);

#endif
