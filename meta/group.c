/* SPDX-License-Identifier: MIT */
/* group.c - log, consensus core, apply and table of one replicated state machine.
 *
 *   propose -> gathered for a turn -> core -> log (gathered, synced) -> core
 *                                      |                                  |
 *                                      +-> to followers, meanwhile        v
 *                              answer <- apply, in order <- committed <---+
 *                                          |
 *                                     table overlay -> flush -> log front is cut
 *
 * The core gets events and gives effects (group_pump); the owner is called from work()
 * (group_turn.c) only, which runs after the turn in which there is something to do.
 *
 * Invariants:
 *   1  applied rises by one per entry; an answer is given after its entry was applied,
 *      and an entry is applied after it is committed and durable here.
 *   2  The table's applied index is written in the batch that holds the changes of
 *      exactly the entries up to it.
 *   3  The log is cut only up to an index the table holds durably.
 *   4  No callback of the owner runs between an event of the core and its last effect. */
#include "meta/group_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/err.h"

STAT_DEFINE(group, GROUP_STATS)

#define DIRTY_FACTOR	4u		/* times flush_bytes, then busy */
#define PROPS_BYTES	(512u << 10)	/* proposals gathered, at most */
#define PROPS_MAX	1024u
#define LOG_RESERVE	(32u << 10)	/* room kept for what elections write */
#define SLOTS_RESERVE	16u		/* likewise */
#define FULL_NUM	95u		/* percent of table_bytes */
#define ELECTION_MS	1000u

_Static_assert(GROUP_CMD_MAX <= META_LOG_PAYLOAD_MAX, "a command is one entry");
_Static_assert(RAFT_MEMBERS_BYTES <= META_LOG_PAYLOAD_MAX, "and so is this");

/* Proposals and reads in flight end without an answer. */
void
group_fail_all(struct group *g)
{
	list_splice_back(&g->failed, &g->inflight);
	list_splice_back(&g->failed, &g->reads);
	g->prop_n = 0;
	g->props_len = 0;
	group_poke(g);
}

void
group_break(struct group *g, int rc)
{
	assert(rc != 0);
	if (g->rc != 0)
		return;
	g->rc = rc;
	g->leads = false;
	clock_timer_stop(g->conf.clock, &g->flush_timer);
	clock_timer_stop(g->conf.clock, &g->tick);
	log_error(g->conf.log, "group broken", "error=%s applied=%" PRIu64,
	    err_name(rc), g->applied.index);
	group_peers_stop_leading(g);
	group_fail_all(g);
}

/* ---- the core's effects ---- */

void
group_save_hard(struct group *g, uint64_t term, uint64_t vote)
{
	struct meta_log_hard h = { .term = term, .vote = vote };

	memcpy(h.owner, g->id.b, sizeof(h.owner));
	g->hard = (struct raft_hard){ .term = term, .vote = vote };
	g->hard_ticket = meta_log_save(g->log, &h);
}

static void
role_changed(struct group *g, const struct raft_effect *e)
{
	bool led = g->role == RAFT_LEADER;

	g->role = e->role;
	stat_set(&g->stat.term, e->term);
	if (e->role == RAFT_LEADER) {
		g->serve_index = e->index;
		stat_add(&g->stat.elections, 1);
		log_info(g->conf.log, "elected", "term=%" PRIu64 " index=%" PRIu64,
		    e->term, e->index);
	} else {
		if (led)
			log_info(g->conf.log, "leads no more", "term=%" PRIu64,
			    e->term);
		g->leads = false;
		group_peers_stop_leading(g);
		group_fail_all(g);
	}
	stat_set(&g->stat.leads, e->role == RAFT_LEADER);
	group_poke(g);
}

static void
append(struct group *g, const struct raft_effect *e)
{
	for (uint32_t i = 0; i < e->n && g->rc == 0; i++) {
		const struct raft_entry *x = &e->entries[i];
		uint64_t index = 0;
		int rc = meta_log_append(g->log, x->term, x->type, x->payload,
		    x->len, &index);

		if (rc == 0 && index != e->index + i)
			rc = ERR_LOG_DAMAGED;
		if (rc != 0) {
			log_error(g->conf.log, "cannot append",
			    "error=%s index=%" PRIu64 " end=%" PRIu64,
			    err_name(rc), e->index + i, meta_log_end(g->log));
			group_break(g, rc);
		}
	}
}

static void
truncate(struct group *g, uint64_t index)
{
	int rc = meta_log_cut_back(g->log, index - 1);

	log_info(g->conf.log, "takes entries back", "from=%" PRIu64, index);
	if (g->sync && g->sync_index >= index) {
		g->sync_index = index - 1;
		g->sync_term = meta_log_end_term(g->log);
	}
	if (rc != 0)
		group_break(g, rc);
}

static void
reads_released(struct group *g, uint64_t ticket, uint64_t index)
{
	list_for_each(it, &g->reads) {
		struct group_req *r = list_entry(it, struct group_req, node);

		if (r->ticket != 0 && r->ticket <= ticket) {
			r->ticket = 0;
			r->index = index;
		}
	}
	group_poke(g);
}

static void
effect(struct group *g, struct raft_effect *e)
{
	switch (e->kind) {
	case RAFT_SAVE:
		group_save_hard(g, e->hard.term, e->hard.vote);
		break;
	case RAFT_ROLE:
		role_changed(g, e);
		break;
	case RAFT_TRUNCATE:
		truncate(g, e->index);
		break;
	case RAFT_APPEND:
		append(g, e);
		break;
	case RAFT_RESTORE:
		group_load_restore(g, e->point);
		break;
	case RAFT_SEND:
		group_send(g, &e->msg);
		break;
	case RAFT_SNAPSHOT:
		group_snap_want(g, e->to, e->index);
		break;
	case RAFT_COMMIT:
		g->commit = e->index;
		group_poke(g);
		break;
	case RAFT_READ:
		reads_released(g, e->ticket, e->index);
		break;
	}
}

static void
ticked(struct clock_timer *t)
{
	struct group *g = container_of(t, struct group, tick);

	raft_tick(g->raft, group_now(g));
	group_pump(g);
	if (g->rc == 0)
		group_snap_missed(g);
	if (g->rc == 0)
		group_heal_drive(g);
	if (g->rc == 0) {
		group_want_drive(g);
		if (!list_empty(&g->reads))
			group_poke(g);
	}
}

void
group_pump(struct group *g)
{
	struct raft_effect e;

	if (g->raft == NULL)
		return;
	while (g->rc == 0 && g->raft != NULL && raft_next(g->raft, &e))
		effect(g, &e);
	if (g->rc != 0 || g->raft == NULL)
		return;
	clock_timer_start(g->conf.clock, &g->tick, raft_wake_ns(g->raft), ticked);
	if (raft_members(g->raft)->index != g->members_told ||
	    raft_leader(g->raft) != g->leader_told)
		group_poke(g);
}

/* ---- what the owner calls ---- */

static int
member_id(struct group *g)
{
	uint8_t b[8];
	int rc;

	do
		rand_bytes(g->conf.rand, b, sizeof(b));
	while (bytes_from_be64(b) == 0);
	rc = g->conf.dir->ops->blob(g->conf.dir, "member", b, sizeof(b), true);
	g->member = bytes_from_be64(b);
	return rc != 0 ? rc : g->member == 0 ? ERR_DISK_DAMAGED : 0;
}

static int
memory(struct group *g)
{
	g->props = malloc(PROPS_BYTES);
	g->prop = calloc(PROPS_MAX, sizeof(*g->prop));
	if (g->props == NULL || g->prop == NULL)
		return -ENOMEM;
	if (g->conf.hub == NULL)
		return 0;
	g->entries = calloc(GROUP_ENTRIES, sizeof(*g->entries));
	g->pack = malloc(GROUP_PACK);
	return g->entries == NULL || g->pack == NULL ? -ENOMEM : 0;
}

int
group_open(struct group **out, const struct group_conf *conf)
{
	struct table_store *store;
	struct group *g;
	int rc;

	*out = NULL;
	if (conf->rand == NULL)
		return -EINVAL;
	if ((g = calloc(1, sizeof(*g))) == NULL)
		return -ENOMEM;
	g->conf = *conf;
	if (g->conf.election_ms == 0)
		g->conf.election_ms = ELECTION_MS;
	if (g->conf.beat_ms == 0)
		g->conf.beat_ms = g->conf.election_ms / 5;
	list_init(&g->inflight);
	list_init(&g->failed);
	list_init(&g->reads);
	list_init(&g->reads_new);
	if ((rc = memory(g)) == 0 && (rc = member_id(g)) == 0)
		rc = conf->dir->ops->table(conf->dir, "table", conf->table_bytes,
		    &store);
	if (rc == 0)
		rc = table_open(&g->table, store, conf->clock);
	if (rc == 0)
		rc = group_rows_read(g);
	if (rc == 0)
		rc = meta_log_open(&g->log, &(struct meta_log_conf){
			.clock = conf->clock, .log = conf->log, .dir = conf->dir,
			.name = "log", .bytes = conf->log_bytes,
			.ops = &group_log_ops, .ctx = g,
			.batches = &g->stat.commits });
	if (rc != 0) {
		group_close(g);
		return rc;
	}
	stat_attach(conf->stats, &g->stat_set, "fsd_group",
	    conf->log != NULL ? conf->log->who : "", group_stat_rows, &g->stat);
	*out = g;
	return 0;
}

void
group_close(struct group *g)
{
	if (g == NULL)
		return;
	if (g->closed != NULL)
		*g->closed = true;
	stat_remove(&g->stat_set);
	clock_timer_stop(g->conf.clock, &g->flush_timer);
	clock_timer_stop(g->conf.clock, &g->tick);
	clock_undefer(g->conf.clock, &g->defer);
	net_call_cancel(&g->who);
	group_load_close(g);
	group_peers_close(g);
	group_thaw(g);
	meta_log_reader_close(g->reader);
	meta_log_close(g->log);
	table_close(g->table);
	raft_close(g->raft);
	free(g->entries);
	free(g->pack);
	free(g->props);
	free(g->prop);
	free(g);		/* requests are their owners', maybe gone */
}

static bool
table_full(const struct group *g)
{
	return table_used_bytes(g->table) + table_dirty_bytes(g->table) >=
	    g->conf.table_bytes / 100 * FULL_NUM;
}

/* Room in the log, and in its memory for what is not committed and may have to be taken
 * back. */
static bool
room(struct group *g, size_t len)
{
	size_t bytes = META_LOG_ENTRY + 8 + len;

	if (g->prop_n == PROPS_MAX || g->props_len + len > PROPS_BYTES) {
		group_order(g);
		if (!g->leads)
			return false;
	}
	return g->inflight_n < g->conf.inflight_max &&
	    meta_log_slots(g->log) > g->prop_n + SLOTS_RESERVE &&
	    table_dirty_bytes(g->table) / DIRTY_FACTOR <= g->conf.flush_bytes &&
	    meta_log_room(g->log) >= LOG_RESERVE + bytes + g->props_len +
	    g->prop_n * (META_LOG_ENTRY + 8) &&
	    meta_log_near(g->log, g->commit);
}

static int
propose(struct group *g, struct group_req *req, uint16_t type, const void *cmd,
    size_t len, bool freeing, group_fn *fn)
{
	struct raft_entry *e;

	if (!g->leads)
		return ERR_NOT_LEADER;
	if (len > GROUP_CMD_MAX)
		return -EMSGSIZE;
	if (!freeing && table_full(g))
		return -ENOSPC;
	if (g->quiet != NULL || !room(g, len))
		return g->leads ? ERR_BUSY : ERR_NOT_LEADER;
	if (g->prop_n == 0)
		g->prop_first = raft_last(g->raft) + 1;
	e = &g->prop[g->prop_n];
	*e = (struct raft_entry){ .type = type, .len = (uint32_t)len,
		.payload = (const void *)(uintptr_t)g->props_len };
	memcpy(g->props + g->props_len, cmd, len);
	g->props_len += len;
	g->prop_n++;
	*req = (struct group_req){ .index = g->prop_first + g->prop_n - 1,
		.ticket = UINT64_MAX, .fn = fn };
	list_push_back(&g->inflight, &req->node);
	g->inflight_n++;
	stat_set(&g->stat.inflight, g->inflight_n);
	group_poke(g);
	return 0;
}

int
group_propose(struct group *g, struct group_req *req, const void *cmd, size_t len,
    group_fn *fn)
{
	return propose(g, req, RAFT_COMMAND, cmd, len, false, fn);
}

int
group_propose_freeing(struct group *g, struct group_req *req, const void *cmd,
    size_t len, group_fn *fn)
{
	return propose(g, req, RAFT_COMMAND, cmd, len, true, fn);
}

int
group_quiet(struct group *g, struct group_req *req, group_fn *fn)
{
	if (!g->leads)
		return ERR_NOT_LEADER;
	if (g->quiet != NULL)
		return ERR_BUSY;
	*req = (struct group_req){ .fn = fn };
	g->quiet = req;
	group_poke(g);
	return 0;
}

/* Members of an older release pass over it, as over the first entry of a leader. */
int
group_mark(struct group *g, struct group_req *req, group_fn *fn)
{
	static const uint8_t mark[] = { 1 };

	return propose(g, req, RAFT_NOOP, mark, sizeof(mark), true, fn);
}

int
group_read(struct group *g, struct group_req *req, group_fn *fn)
{
	if (g->rc != 0 || g->raft == NULL || g->half ||
	    (g->role == RAFT_LEADER ? !g->leads : raft_leader(g->raft) == 0))
		return ERR_NOT_LEADER;
	*req = (struct group_req){ .fn = fn,
		.until_ns = group_now(g) + 2 * g->conf.election_ms * NS_PER_MS };
	list_push_back(&g->reads_new, &req->node);
	group_poke(g);
	return 0;
}

void
group_flush(struct group *g, void (*fn)(void *ctx), void *ctx)
{
	assert(g->flush_fn == NULL);
	g->flush_fn = fn;
	g->flush_ctx = ctx;
	group_poke(g);
}

bool
group_leads(const struct group *g)
{
	return g->leads;
}

bool
group_lease(const struct group *g)
{
	return g->leads && raft_lease(g->raft, group_now(g));
}

struct table *
group_table(struct group *g)
{
	return g->table;
}

uint64_t
group_applied(const struct group *g)
{
	return g->applied.index;
}

uint64_t
group_durable(const struct group *g)
{
	return g->durable;
}

uint64_t
group_run(const struct group *g)
{
	return g->raft == NULL ? 0 : raft_term(g->raft);
}

bool
group_blank(const struct group *g)
{
	return g->phase == GROUP_RUNNING && g->rc == 0 && !g->half &&
	    raft_members(g->raft)->index == 0;
}

uint64_t
group_member(const struct group *g)
{
	return g->member;
}

void
group_id(const struct group *g, struct uid128 *out)
{
	*out = g->id;
}

const struct raft_members *
group_members(const struct group *g)
{
	static const struct raft_members none;

	return g->raft == NULL ? &none : raft_members(g->raft);
}

bool
group_leader(const struct group *g, struct net_addr *out)
{
	const struct raft_member *m = g->raft == NULL ? NULL :
	    raft_members_find(raft_members(g->raft), raft_leader(g->raft));

	if (m == NULL)
		return false;
	*out = m->addr;
	return true;
}

int
group_transfer(struct group *g)
{
	int rc;

	if (!g->leads)
		return ERR_NOT_LEADER;
	group_order(g);
	if (g->rc != 0 || !g->leads)
		return ERR_NOT_LEADER;
	rc = raft_transfer(g->raft, group_now(g), 0);
	group_pump(g);
	return rc;
}
