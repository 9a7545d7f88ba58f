/* SPDX-License-Identifier: MIT */
/* cover.c - counters of forked workers in memory that they share. */
#include "tests/sim/cover.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "roles/manager_chain.h"

#define ROWS_MAX	512u

/* Rows are static, so their addresses are the same in all workers. */
struct cover_row {
	const char *prefix;
	const void *row;
	const char *name, *help;
	uint64_t    n;
};
struct cover {
	unsigned	 n;
	struct cover_row rows[ROWS_MAX];
};

/* What no simulation does: there is no kernel, no lost memory, ... */
static const char *const never[] = {
	"fuse_requests",
	"rows mended for fsd check",	/* nobody damages metadata */
	"full_errors",		/* no disk gets full: tests/test_sim_full.c */
	"has no space for what others have",
	"false_versions",	/* nobody lies */
	"crc_failures", "payload_errors",	/* the network does not turn bits */
	"revoked_early",	/* who serves pulls at once: nothing stands behind a payload */
	"store_errors", "alone",	/* rare: within what is promised a good replica is left */
	/* Replacing a replica that takes part has it leave first. */
	"replaced while it served", "replaced while it synced", "replaced while it waited",
	"replaced while apart",
	"WAITING>SERVING",	/* the operator accepts a loss: tests/test_sim_loss.c */
	"LASTSRV>OFFLINE",	/* likewise */
};

static struct cover *all;		/* COVER_WORKERS of them */
static unsigned self;

void
cover_open(void)
{
	all = mmap(NULL, COVER_WORKERS * sizeof(*all), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert(all != MAP_FAILED);
}

void
cover_worker(unsigned i)
{
	assert(i < COVER_WORKERS);
	self = i;
}

static void
add(struct cover *c, const char *prefix, const void *row, const char *name,
    const char *help, uint64_t n)
{
	unsigned i = 0;

	while (i < c->n && c->rows[i].row != row)
		i++;
	assert(i < ROWS_MAX);
	if (i == c->n)
		c->rows[c->n++] = (struct cover_row){ prefix, row, name, help, 0 };
	c->rows[i].n += n;
}

void
cover_stats(struct stat_registry *r)
{
	if (all == NULL)
		return;
	list_for_each(it, &r->sets) {
		const struct stat_set *set = list_entry(it, struct stat_set, node);

		for (const struct stat_row *row = set->rows; row->name != NULL; row++) {
			const void *v = (const char *)set->values + row->off;

			if (row->kind == STAT_counter)
				add(&all[self], set->prefix, row, row->name, row->help,
				    *(const uint64_t *)v);
			else if (row->kind == STAT_hist)
				add(&all[self], set->prefix, row, row->name, row->help,
				    stat_hist_count(v));
		}
	}
}

void
cover_done(void)
{
	const struct manager_chain_line *l;

	for (unsigned i = 0; all != NULL && (l = manager_chain_line(i)) != NULL; i++)
		add(&all[self], "chain", l, NULL, l->what, l->taken);
}

static bool
expected(const char *name, const char *help)
{
	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		if (strcmp(never[i], name) == 0 || strcmp(never[i], help) == 0)
			return false;
	return true;
}

unsigned
cover_report(void)
{
	static const char *const states[] = { "?", "SERVING", "LASTSRV", "SYNCING", "WAITING",
		"OFFLINE", "APART" };
	static struct cover sum;
	unsigned bad = 0;

	for (unsigned w = 0; w < COVER_WORKERS; w++)
		for (unsigned i = 0; i < all[w].n; i++) {
			const struct cover_row *r = &all[w].rows[i];

			add(&sum, r->prefix, r->row, r->name, r->help, r->n);
		}
	for (unsigned i = 0; i < sum.n; i++) {
		const struct cover_row *r = &sum.rows[i];
		char name[64];

		if (r->name == NULL) {
			const struct manager_chain_line *l = r->row;

			snprintf(name, sizeof(name), "%s>%s", states[l->from],
			    states[l->to]);
		} else
			snprintf(name, sizeof(name), "%s", r->name);
		if (r->n == 0) {
			printf("never%s: %s %s: %s\n", expected(name, r->help) ? "" : " (as expected)",
			    r->prefix, name, r->help);
			bad += expected(name, r->help);
		} else if (getenv("COVER") != NULL)
			printf("%12llu %s %s: %s\n", (unsigned long long)r->n, r->prefix,
			    name, r->help);
	}
	return bad;
}
