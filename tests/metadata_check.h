/* SPDX-License-Identifier: MIT */
/* metadata_check.h - fsd check against the group of tests/metadata_group_rig.h, and the rows that
 * are damaged for it. */
#ifndef TESTS_METADATA_CHECK_H
#define TESTS_METADATA_CHECK_H

#include "meta/dirent.h"
#include "roles/check.h"
#include "tests/metadata_group_rig.h"

static struct {
	struct check *check;
	bool	 done;
	int	 rc;
	FILE	*to;
	char	*out;			/* its words, until the next one */
	size_t	 out_n;
} C;

static void
on_checked(void *ctx, int rc)
{
	(void)ctx;
	ck_assert(!C.done);
	C.done = true;
	C.rc = rc;
}

static void
check_begin(bool repair)
{
	struct net_addr manager = at(MANAGER);
	struct check_conf cc = { .env = &t.hosts[ASKER].env, .managers = &manager,
		.manager_n = 1, .how = { .repair = repair } };

	free(C.out);
	C.out = NULL;
	C.to = cc.to = open_memstream(&C.out, &C.out_n);
	ck_assert_ptr_nonnull(C.to);
	C.done = false;
	ck_assert_int_eq(check_open(&C.check, &cc, on_checked, NULL), 0);
}

static void
check_end(void)
{
	check_close(C.check);
	fclose(C.to);
	if (getenv("TRACE") != NULL)
		printf("%s%s\n", C.out, C.done ? err_name(C.rc) : "broken off");
}

/* ---- the tree ---- */

static struct table *
table_of(unsigned id)
{
	return metadata_table(t.hosts[id].metadata);
}

static ino_id
ino_of(ino_id dir, const char *name)
{
	struct msg_str s = msg_str(name);
	struct entry e;

	ck_assert_int_eq(dirent_get(table_of(leader(5000)), dir, &s, &e), 0);
	return e.ino;
}

#endif
