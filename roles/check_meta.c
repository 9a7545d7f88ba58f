/* SPDX-License-Identifier: MIT */
/* check_meta.c - what is wrong with the tree in the image, and what would mend it. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"
#include "meta/key.h"
#include "meta/op.h"
#include "meta/tree.h"
#include "roles/check_impl.h"

/* What c->nameless says of an inode: chunks of it were not seen, or were. */
static char seen_data[2];

/* Two faults in the numbers of one inode are mended at once. */
static bool
is_same(const struct check *c, const struct msg_repair_row *row)
{
	const struct check_fix *last;

	if (list_empty(&c->fixes) || row->name.n > 0)
		return false;
	last = list_entry(c->fixes.prev, struct check_fix, node);
	return last->row.what == row->what && last->row.ino == row->ino;
}

static int
add(struct check *c, const struct tree_fault *f)
{
	const struct msg_repair_row *row = &f->fix;
	struct check_fix *fix;

	if (is_same(c, row) || c->fix_n == CHECK_FIXES_MAX)
		return 0;		/* the next look finds what is left */
	fix = calloc(1, sizeof(*fix) + row->name.n + row->keep.n);
	if (fix == NULL)
		return -ENOMEM;
	fix->row = *row;
	fix->may_have_data = f->may_have_data;
	if (row->name.n > 0)
		memcpy(fix->names, row->name.p, row->name.n);
	if (row->keep.n > 0)
		memcpy(fix->names + row->name.n, row->keep.p, row->keep.n);
	fix->row.name.p = fix->names;
	fix->row.keep.p = fix->names + row->name.n;
	list_push_back(&c->fixes, &fix->node);
	c->fix_n++;
	return 0;
}

static int
tree_fault(void *ctx, const struct tree_fault *f)
{
	struct check *c = ctx;

	c->tree_left++;
	if (c->look == 0)
		check_fault(c, "metadata %s", f->why);
	else
		check_still(c, "metadata %s", f->why);
	if (f->may_have_data && c->look == 0 && map_put(&c->nameless, f->fix.ino,
	    &seen_data[0]) != 0)
		return -ENOMEM;
	return c->how.repair && f->fix.what != META_REPAIR_NONE ? add(c, f) : 0;
}

static int
count_inodes(struct check *c)
{
	uint8_t key[TABLE_KEY_MAX] = { KEY_INODE };
	const void *found, *row;
	size_t n = 1, len;
	int rc;

	c->inodes = 0;
	while ((rc = table_seek(c->table, key, n, n > 1, 1, &found, &n, &row,
	    &len)) == 0) {
		if (n > sizeof(key))
			return -EIO;
		memcpy(key, found, n);
		c->inodes += n == KEY_INO_LEN;
	}
	return rc == -ENOENT ? 0 : rc;
}

int
check_tree(struct check *c)
{
	struct op_counters n = { 0 };
	int rc;

	check_fixes_drop(c);
	c->tree_left = 0;
	rc = tree_check_all(c->table, tree_fault, c);
	if (rc == 0)
		rc = count_inodes(c);
	/* Not to be read: it was told, and no inode is taken for an old one. */
	if (rc == 0 && (rc = op_counters_get(c->table, &n)) == ERR_LOG_DAMAGED)
		rc = 0;
	if (c->look == 0) {
		c->tree_faults = c->tree_left;
		c->next_ino = n.next_ino;
	}
	return rc;
}

void
check_fixes_drop(struct check *c)
{
	struct list *it;

	while ((it = list_pop_front(&c->sent)) != NULL ||
	    (it = list_pop_front(&c->fixes)) != NULL)
		free(list_entry(it, struct check_fix, node));
	c->fix_n = c->sent_n = 0;
}

bool
check_may_mend(const struct check *c, const struct check_fix *fix)
{
	bool data = c->blind || fix->row.what == META_REPAIR_TARGET ||
	    map_get(&c->nameless, fix->row.ino) != &seen_data[0];

	/* What most members hold may be another thing: first they have to agree. */
	if (c->distrust)
		return false;
	return !fix->may_have_data || !data || c->how.discard;
}

void
check_data_seen(struct check *c, ino_id ino)
{
	if (check_is_named(c, ino))	/* in its place: that takes no memory */
		(void)map_put(&c->nameless, ino, &seen_data[1]);
}

bool
check_is_named(const struct check *c, ino_id ino)
{
	return map_get(&c->nameless, ino) != NULL;
}
