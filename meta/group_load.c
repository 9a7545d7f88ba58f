/* SPDX-License-Identifier: MIT */
/* group_load.c - our table is replaced by the leader's.
 *
 *   first piece -> core that knows nothing, table cleared + "loading" -> pieces, each
 *   durable before it is answered -> last piece -> the core says: restore ->
 *   "loading" goes, "snapshot" comes, with the applied index -> log restarts behind it
 *   -> the core is told, the owner is told, the leader is answered
 *
 * A table bigger than half of its bound has no room twice, so the old one goes first.  What
 * is left then after a crash is a member with its id, term and vote and with half a table:
 * it does not stand for election (its core has no members) and takes nothing but a
 * snapshot.
 *
 * The floor: others may have counted on entries that the log held when the table went.  As
 * long as the log does not reach that far again, we neither vote for a member whose log
 * does not, nor ask for votes: so no leader is elected that lacks one of them. */
#include "meta/group_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/crc32c.h"
#include "conf/err.h"

static void
reply(struct net_req *req, int rc, bool wanted, uint64_t next, bool done)
{
	struct msg_snapshot_rep rep = { .wanted = wanted, .next = next,
		.done = done };

	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
}

static void
answer(struct group *g, int rc, bool wanted, bool done)
{
	struct net_req *req = g->load.req;

	g->load.req = NULL;
	if (req != NULL)
		reply(req, rc, wanted, g->load.seq, done);
}

void
group_load_close(struct group *g)
{
	if (g->load.req != NULL)
		net_req_drop(g->load.req);
	g->load.req = NULL;
}

static void
failed(struct group *g, int rc)
{
	answer(g, rc, false, false);
	group_break(g, rc);
}

/* ---- restored ---- */

static void
table_done(struct table_commit *c)
{
	struct group *g = container_of(c, struct group, load.commit);
	struct load *l = &g->load;

	l->committing = false;
	if (g->rc != 0) {
		answer(g, g->rc, false, false);
		return;
	}
	if (c->rc != 0) {
		failed(g, c->rc);
		return;
	}
	g->snap_index = l->point.index;
	g->snap_term = l->point.term;
	l->ticket = meta_log_restart(g->log, l->point.index, l->point.term);
}

/* The core's RAFT_RESTORE: everything is in the table but the rows that say so. */
void
group_load_restore(struct group *g, const struct raft_point *p)
{
	struct load *l = &g->load;
	int rc;

	assert(g->half && l->active && !l->committing);
	l->point = *p;
	l->finishing = true;
	l->committing = true;
	g->half = false;
	g->members_durable = 0;
	rc = group_row_loaded(g, p);
	if (rc != 0) {
		failed(g, rc);
		return;
	}
	table_commit(g->table, &l->commit, table_done);
}

/* Both headers of the log say so too. */
void
group_load_saved(struct group *g)
{
	struct load *l = &g->load;

	if (l->ticket == 0 || meta_log_saved(g->log) < l->ticket)
		return;
	l->ticket = 0;
	l->active = l->finishing = false;
	g->applied = l->point;
	g->durable = g->commit = l->point.index;
	g->members_durable = l->point.members.index;
	g->restored = true;
	stat_add(&g->stat.snapshots_taken, 1);
	log_info(g->conf.log, "snapshot taken", "index=%" PRIu64 " term=%" PRIu64
	    " pieces=%" PRIu64, l->point.index, l->point.term, l->seq);
	raft_restored(g->raft, group_now(g), l->point.index);
	group_pump(g);
	group_poke(g);
	answer(g, 0, true, true);
}

/* ---- pieces ---- */

static int
rows_put(struct group *g, const struct msg_snapshot *m)
{
	struct bytes_reader r;

	bytes_reader_init(&r, m->data.p, m->data.n);
	while (bytes_left(&r) > 0) {
		uint16_t key_len = bytes_get_u16(&r);
		uint32_t len = bytes_get_u32(&r);
		const uint8_t *key, *value;
		int rc;

		if (key_len == 0 || key_len > TABLE_KEY_MAX ||
		    len > TABLE_VALUE_MAX ||
		    (key = bytes_get_raw(&r, key_len)) == NULL ||
		    (value = bytes_get_raw(&r, len)) == NULL || key[0] == 0)
			return ERR_BAD_MESSAGE;
		rc = table_put(g->table, key, key_len, value, len);
		if (rc != 0)
			return rc;
	}
	return r.failed ? ERR_BAD_MESSAGE : 0;
}

static void
piece_durable(struct table_commit *c)
{
	struct group *g = container_of(c, struct group, load.commit);
	struct load *l = &g->load;
	int rc;

	l->committing = false;
	if (g->rc != 0) {
		answer(g, g->rc, false, false);
		return;
	}
	if (c->rc != 0) {
		failed(g, c->rc);
		return;
	}
	l->seq++;
	if (!l->last) {
		answer(g, 0, true, false);
		return;
	}
	rc = raft_restore(g->raft, group_now(g), l->from, l->term, &l->point);
	if (rc != 0) {
		l->active = false;
		answer(g, 0, false, false);
	}
	group_pump(g);
}

int
group_half(struct group *g)
{
	uint64_t end = meta_log_end(g->log), term = meta_log_end_term(g->log);
	int rc;

	if (g->floor_index == 0 || !group_below_floor(g, term, end)) {
		g->floor_index = end;
		g->floor_term = term;
	}
	g->healing = false;
	group_fail_all(g);
	group_thaw(g);
	if ((rc = group_forget(g)) != 0 ||
	    (rc = raft_start(g->raft, group_now(g))) != 0) {
		group_break(g, rc);
		return rc;
	}
	g->half = true;
	group_pump(g);
	return 0;
}

/* The old table goes. 0, ERR_BUSY: not now, or an error. */
static int
begin(struct group *g, const struct msg_snapshot *m)
{
	int rc;

	if (g->hard_ticket != 0 || g->committing)
		return ERR_BUSY;	/* a new core takes these for durable */
	if (!g->half && (rc = group_half(g)) != 0)
		return rc;
	log_info(g->conf.log, "takes a snapshot", "from=%016" PRIx64
	    " index=%" PRIu64 " floor=%" PRIu64, m->from, m->index,
	    g->floor_index);
	g->load = (struct load){ .active = true, .from = m->from, .id = m->id };
	table_clear(g->table);
	rc = group_row_loading(g);
	if (rc != 0)
		group_break(g, rc);
	return rc;
}

static int
point_decode(const struct msg_snapshot *m, struct raft_point *p)
{
	*p = (struct raft_point){ .index = m->index, .term = m->log_term };
	if (m->index == 0 || m->log_term == 0 || m->members_index > m->index ||
	    m->members_index == 0 ||
	    raft_members_decode(&p->members, m->members.p, m->members.n) != 0)
		return ERR_BAD_MESSAGE;
	p->members.index = m->members_index;
	return 0;
}

static int
piece_check(struct group *g, const struct msg_snapshot *m, struct raft_point *p)
{
	int rc = group_message_ok(g, &m->group, m->number, m->from, m->to);

	if (rc == 0)
		rc = point_decode(m, p);
	if (rc == 0 && m->crc != crc32c(0, m->data.p, m->data.n))
		rc = ERR_PAYLOAD_CRC;
	return rc;
}

static bool
have(const struct group *g, const struct raft_point *p)
{
	return !g->half && !g->load.finishing && (g->applied.index >= p->index ||
	    raft_term_at(g->raft, p->index) == p->term);
}

void
group_load_piece(struct group *g, struct net_req *req)
{
	const struct msg_snapshot *m = req->msg;
	struct load *l = &g->load;
	struct raft_point point;
	bool wanted;
	int rc;

	if ((rc = piece_check(g, m, &point)) != 0) {
		reply(req, rc, false, 0, false);
		return;
	}
	wanted = raft_snapshot_piece(g->raft, group_now(g), m->from, m->term,
	    m->index);
	group_pump(g);
	if (g->rc != 0 || l->req != NULL || l->committing || l->finishing) {
		reply(req, g->rc != 0 ? g->rc : ERR_BUSY, false, 0, false);
		return;
	}
	if (have(g, &point)) {
		reply(req, 0, true, 0, true);
		return;
	}
	if (!wanted) {
		reply(req, 0, false, 0, false);
		return;
	}
	if (!l->active || l->from != m->from || l->id != m->id) {
		if (m->seq != 0) {
			reply(req, 0, true, 0, false);
			return;
		}
		if ((rc = begin(g, m)) != 0) {
			reply(req, rc, false, 0, false);
			return;
		}
	}
	if (m->seq != l->seq) {
		reply(req, 0, true, l->seq, false);
		return;
	}
	/* Also when the rest of a piece cannot be put: it comes again. */
	if ((rc = rows_put(g, m)) != 0) {
		reply(req, rc, false, 0, false);
		return;
	}
	/* Hear the leader with the core that may have been made just now. */
	(void)raft_snapshot_piece(g->raft, group_now(g), m->from, m->term, m->index);
	group_pump(g);
	l->point = point;
	l->term = m->term;
	l->last = m->last != 0;
	l->req = req;
	l->committing = true;
	table_commit(g->table, &l->commit, piece_durable);
}
