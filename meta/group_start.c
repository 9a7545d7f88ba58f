/* SPDX-License-Identifier: MIT */
/* group_start.c - from a log and a table to a member that runs; how a group is founded.
 *
 *   opened -> entries scanned -> core ------------------------------+-> running
 *          \-> blank: waits for a snapshot, or is the only member --+
 *
 * What the log says later, that entries are durable and a vote is, goes to the core. */
#include "meta/group_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "conf/err.h"

static void founded(struct group *g, const struct meta_log_entry *e);

static int
core_open(struct group *g, uint64_t base_index, uint64_t base_term)
{
	const struct meta_log_hard *h = meta_log_hard(g->log);
	struct raft_conf rc = { .id = g->member, .rand = g->conf.rand,
		.election_ns = g->conf.election_ms * NS_PER_MS,
		.beat_ns = g->conf.beat_ms * NS_PER_MS,
		.entries_max = GROUP_ENTRIES, .bytes_max = GROUP_BYTES,
		.inflight_max = GROUP_INFLIGHT, .fit = group_fit, .ctx = g };

	/* A message fits into a batch of the log. */
	if (rc.bytes_max > meta_log_ring_bytes(g->log) / 32)
		rc.bytes_max = (uint32_t)(meta_log_ring_bytes(g->log) / 32);
	g->hard = (struct raft_hard){ .term = h->term, .vote = h->vote };
	return raft_open(&g->raft, &rc, &g->hard, &g->applied, base_index,
	    base_term);
}

/* Entries found at open are of the table that is there. */
static bool
log_fits(const struct group *g)
{
	return !g->half && meta_log_first(g->log) > g->snap_index;
}

static void
scanned(struct group *g, const struct meta_log_entry *e)
{
	int rc = 0;

	if (!log_fits(g))
		return;
	if (g->raft == NULL) {
		if (e->index > g->applied.index + 1)
			rc = ERR_LOG_DAMAGED;	/* begins too late */
		else
			rc = core_open(g, e->index - 1,
			    meta_log_first_term(g->log));
	}
	if (rc == 0)
		rc = raft_load(g->raft, e->index, &(struct raft_entry){
			.term = e->term, .type = e->type, .len = e->len,
			.payload = e->payload });
	if (rc != 0)
		group_break(g, rc);
}

static void
entry(void *ctx, const struct meta_log_entry *e)
{
	struct group *g = ctx;

	if (g->rc != 0)
		return;
	if (g->phase == GROUP_OPENING) {
		scanned(g, e);
		return;
	}
	if (g->phase == GROUP_FOUNDING) {
		founded(g, e);
		return;
	}
	g->sync_index = e->index;
	g->sync_term = e->term;
	g->sync = true;
	group_poke(g);
}

/* Become the only member of a new group: that is an entry of the log.  What a log of
 * version 1 has stays. */
static void
found(struct group *g)
{
	struct raft_members m = { .n = 1, .m[0] = { .id = g->member, .voter = true,
		.addr = g->conf.addr } };
	uint64_t index, term = meta_log_end_term(g->log);
	uint8_t buf[RAFT_MEMBERS_BYTES];
	char text[UID128_TEXT];
	int rc;

	if (uid128_zero(&g->id))
		rand_bytes(g->conf.rand, g->id.b, sizeof(g->id.b));
	uid128_text(&g->id, text);
	log_info(g->conf.log, "founds a group", "group=%s member=%016" PRIx64, text,
	    g->member);
	if (term < g->hard.term)
		term = g->hard.term;
	if (term == 0)
		term = 1;
	g->phase = GROUP_FOUNDING;
	group_save_hard(g, term, g->hard.vote);
	g->hard_ticket = 0;		/* durable before the entry is */
	rc = meta_log_append(g->log, term, RAFT_MEMBERS, buf,
	    raft_members_encode(&m, buf), &index);
	if (rc != 0)
		group_break(g, rc);
}

static void
start(struct group *g)
{
	int rc = raft_start(g->raft, group_now(g));

	if (rc != 0) {
		log_error(g->conf.log, "log ends before the table",
		    "last=%" PRIu64 " applied=%" PRIu64, meta_log_end(g->log),
		    g->applied.index);
		group_break(g, rc);
		return;
	}
	g->phase = GROUP_RUNNING;
	g->commit = raft_commit(g->raft);
	log_info(g->conf.log, "group open", "term=%" PRIu64 " applied=%" PRIu64
	    " last=%" PRIu64 " members=%u member=%016" PRIx64,
	    raft_term(g->raft), g->applied.index, raft_last(g->raft),
	    raft_members(g->raft)->n, g->member);
	group_cut(g);
	group_pump(g);
	group_poke(g);
}

/* The entry that makes us a member is durable. */
static void
founded(struct group *g, const struct meta_log_entry *e)
{
	int rc = 0;

	if (e->index != meta_log_end(g->log))
		return;
	if (g->raft == NULL)
		rc = core_open(g, e->index - 1, meta_log_first_term(g->log));
	if (rc == 0)
		rc = raft_load(g->raft, e->index, &(struct raft_entry){
			.term = e->term, .type = e->type, .len = e->len,
			.payload = e->payload });
	if (rc != 0)
		group_break(g, rc);
	else
		start(g);
}

int
group_forget(struct group *g)
{
	clock_timer_stop(g->conf.clock, &g->tick);
	raft_close(g->raft);
	g->raft = NULL;
	memset(&g->applied, 0, sizeof(g->applied));
	g->commit = g->durable = g->members_durable = 0;
	g->sync = false;
	g->role = RAFT_FOLLOWER;
	return core_open(g, 0, 0);
}

static void
ready(void *ctx, int rc)
{
	struct group *g = ctx;

	if (rc != 0)
		group_break(g, rc);
	if (g->rc != 0)
		return;
	memcpy(g->id.b, meta_log_hard(g->log)->owner, sizeof(g->id.b));
	if (g->half) {
		rc = group_forget(g);
		log_warn(g->conf.log, "table is half replaced",
		    "floor=%" PRIu64 " member=%016" PRIx64, g->floor_index,
		    g->member);
	} else if (!log_fits(g)) {
		/* A crash between the table and the log of a snapshot. */
		if (g->applied.index != g->snap_index)
			rc = ERR_LOG_DAMAGED;
		else {
			meta_log_restart(g->log, g->snap_index, g->snap_term);
			rc = core_open(g, g->snap_index, g->snap_term);
		}
	} else if (g->raft == NULL && meta_log_end(g->log) != g->applied.index)
		rc = ERR_LOG_DAMAGED;
	else if (g->raft == NULL && (g->applied.index > 0 ||
	    g->conf.start == GROUP_JOIN))
		rc = core_open(g, g->applied.index, meta_log_end_term(g->log));
	if (rc != 0) {
		group_break(g, rc);
		return;
	}
	/* Entries without a configuration before them are those of a log of version 1: it
	 * is of a group of one, whatever this member is to do when it is blank. */
	if (!g->half && (g->conf.start == GROUP_FOUND || meta_log_end(g->log) > 0) &&
	    (g->raft == NULL || raft_members(g->raft)->index == 0))
		found(g);
	else
		start(g);
}

static void
saved(void *ctx)
{
	struct group *g = ctx;

	if (g->rc != 0 || g->raft == NULL)
		return;
	if (g->hard_ticket != 0 && meta_log_saved(g->log) >= g->hard_ticket) {
		g->hard_ticket = 0;
		raft_saved(g->raft, group_now(g), &g->hard);
		group_pump(g);
	}
	if (g->rc == 0)
		group_load_saved(g);
	if (g->rc == 0)
		group_heal_drive(g);
}

static void
broken(void *ctx, int rc)
{
	group_break(ctx, rc);
}

const struct meta_log_ops group_log_ops = {
	.entry = entry, .ready = ready, .saved = saved, .broken = broken,
};

int
group_found(struct group *g)
{
	if (!group_blank(g) || meta_log_end(g->log) != 0 || !uid128_zero(&g->id))
		return -EBUSY;
	clock_timer_stop(g->conf.clock, &g->tick);
	raft_close(g->raft);
	g->raft = NULL;
	found(g);
	return g->rc;
}
