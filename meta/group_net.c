/* SPDX-License-Identifier: MIT */
/* group_net.c - the core's messages over the network, and peers.
 *
 * A message is a call whose reply only says that it has come; what cannot be sent is
 * dropped, the core repeats what matters.  Entries that are not in memory any more are read
 * back first, in order, by one reader for each follower that lags. */
#include "meta/group_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/err.h"

#define WARN_NS		(10 * NS_PER_S)
#define VOTE_ROOM	(2 * META_LOG_BLOCK)

/* ---- peers ---- */

static void
peer_close(struct peer *p)
{
	group_snap_stop(p);
	for (unsigned i = 0; i < GROUP_CALLS && p->calls != NULL; i++)
		net_call_cancel(&p->calls[i].call);
	free(p->calls);
	meta_log_reader_close(p->reader);
	free(p->pack);
	free(p->snap.buf);
	memset(p, 0, sizeof(*p));
}

static bool
is_member(const struct group *g, uint64_t id)
{
	return g->raft != NULL &&
	    raft_members_find(raft_members(g->raft), id) != NULL;
}

/* The peer @id; with @make in a place of its own or that of a stranger. NULL: none. */
struct peer *
group_peer(struct group *g, uint64_t id, bool make)
{
	struct peer *best = NULL;

	for (unsigned i = 0; i < GROUP_PEERS; i++) {
		struct peer *p = &g->peers[i];

		if (p->id == id) {
			p->used = ++g->peer_uses;
			return p;
		}
		if (p->id != 0 && is_member(g, p->id))
			continue;
		if (best == NULL || p->used < best->used)
			best = p;
	}
	if (!make || best == NULL)
		return NULL;
	peer_close(best);
	if ((best->calls = calloc(GROUP_CALLS, sizeof(*best->calls))) == NULL)
		return NULL;
	for (unsigned i = 0; i < GROUP_CALLS; i++)
		best->calls[i].peer = best;
	best->g = g;
	best->id = id;
	best->used = ++g->peer_uses;
	return best;
}

void
group_peers_stop_leading(struct group *g)
{
	for (unsigned i = 0; i < GROUP_PEERS; i++) {
		struct peer *p = &g->peers[i];

		if (p->id == 0)
			continue;
		group_snap_stop(p);
		p->lag_n = 0;
		meta_log_reader_close(p->reader);
		p->reader = NULL;
		free(p->pack);
		p->pack = NULL;
	}
}

void
group_peers_close(struct group *g)
{
	for (unsigned i = 0; i < GROUP_PEERS; i++)
		peer_close(&g->peers[i]);
}

/* ---- sending ---- */

static void
call_done(struct net_call *c, int rc)
{
	(void)c;
	(void)rc;		/* silence is what the core notices */
}

static void
say(struct peer *p, const struct raft_msg *m, const void *data, size_t len)
{
	struct group *g = p->g;
	char addr[NET_ADDR_TEXT];
	struct msg_raft_step s = { .group = g->id, .number = g->conf.number,
		.kind = m->kind, .ok = m->ok, .force = m->force, .from = m->from,
		.to = m->to, .term = m->term, .index = m->index,
		.log_term = m->log_term, .hint = m->hint, .commit = m->commit,
		.seq = m->seq, .sent_ns = m->sent_ns, .partial = g->half,
		.n = m->n, .data = { data, (uint32_t)len } };
	struct net_call_opts o = { .deadline_ns = group_now(g) +
		g->conf.election_ms * NS_PER_MS };

	net_addr_text(&g->conf.addr, addr);
	s.addr = msg_str(addr);
	for (unsigned i = 0; i < GROUP_CALLS; i++)
		if (!net_call_active(&p->calls[i].call)) {
			(void)net_call_start(&p->calls[i].call, g->conf.hub,
			    &p->addr, MSG_raft_step, &s, &o, call_done);
			return;
		}
}

static size_t
pack(uint8_t *out, size_t at, const struct meta_log_entry *e)
{
	struct bytes_writer w;

	bytes_writer_init(&w, out + at, GROUP_PACK - at);
	bytes_put_u64(&w, e->term);
	bytes_put_u16(&w, e->type);
	bytes_put_u32(&w, e->len);
	bytes_put_raw(&w, e->payload, e->len);
	return w.failed ? 0 : bytes_written(&w);
}

/* All entries of @m are in memory: 0 and *len, else an error. */
static int
pack_memory(struct group *g, const struct raft_msg *m, size_t *len)
{
	struct meta_log_entry e;
	size_t n;
	int rc;

	*len = 0;
	for (uint32_t i = 1; i <= m->n; i++) {
		if ((rc = meta_log_get(g->log, m->index + i, &e)) != 0)
			return rc;
		if ((n = pack(g->pack, *len, &e)) == 0)
			return -EMSGSIZE;
		*len += n;
	}
	return 0;
}

static void lag_pump(struct peer *p);

static void
lag_read(void *ctx, struct meta_log_reader *r, int rc)
{
	struct peer *p = ctx;
	struct group *g = p->g;

	(void)r;
	if (rc == ERR_LOG_DAMAGED || (rc != 0 && rc != -ENOENT)) {
		group_break(g, rc);
		return;
	}
	if (rc != 0) {			/* gone: the core will ask for a snapshot */
		p->lag_n = 0;
		return;
	}
	lag_pump(p);
}

/* Make lag[0] complete and send it, as far as what was read reaches. */
static void
lag_pump(struct peer *p)
{
	struct group *g = p->g;
	struct meta_log_entry e;
	size_t n;

	while (p->lag_n > 0) {
		struct raft_msg *m = &p->lag[0];
		uint64_t want = m->index + 1 + p->pack_n;

		if (p->pack_n == m->n) {
			say(p, m, p->pack, p->pack_len);
			memmove(p->lag, p->lag + 1,
			    --p->lag_n * sizeof(p->lag[0]));
			p->pack_n = 0;
			p->pack_len = 0;
			continue;
		}
		if (meta_log_get(g->log, want, &e) != 0) {
			if (!meta_log_reader_next(p->reader, &e) ||
			    e.index != want) {
				meta_log_reader_start(p->reader, want, lag_read,
				    p);
				return;
			}
		}
		if ((n = pack(p->pack, p->pack_len, &e)) == 0) {
			p->lag_n = 0;		/* cannot be: the core asked fit() */
			return;
		}
		p->pack_len += n;
		p->pack_n++;
	}
}

static void
send_entries(struct peer *p, const struct raft_msg *m)
{
	struct group *g = p->g;
	size_t len;

	if (p->lag_n == 0 && pack_memory(g, m, &len) == 0) {
		say(p, m, g->pack, len);
		return;
	}
	if (p->lag_n == GROUP_LAG)
		return;
	if (p->pack == NULL)
		p->pack = malloc(GROUP_PACK);
	if (p->reader == NULL)
		(void)meta_log_reader_open(&p->reader, g->log);
	if (p->pack == NULL || p->reader == NULL)
		return;				/* no memory: it is asked again */
	p->lag[p->lag_n++] = *m;
	if (p->lag_n > 1)
		return;
	p->pack_n = 0;
	p->pack_len = 0;
	if (!meta_log_reader_busy(p->reader))
		lag_pump(p);
}

void
group_send(struct group *g, const struct raft_msg *m)
{
	const struct raft_member *to;
	struct peer *p;

	if (g->conf.hub == NULL || (p = group_peer(g, m->to, true)) == NULL)
		return;
	if ((to = raft_members_find(raft_members(g->raft), m->to)) != NULL)
		p->addr = to->addr;
	if (p->addr.kind == NET_ADDR_NONE)
		return;
	/* Who leads begins with an entry: not while the table is behind and the log full. */
	if ((m->kind == RAFT_VOTE || m->kind == RAFT_PREVOTE) &&
	    (group_below_floor(g, m->log_term, m->index) ||
	    meta_log_room(g->log) < VOTE_ROOM))
		return;
	if (m->kind == RAFT_ENTRIES && m->n > 0)
		send_entries(p, m);
	else
		say(p, m, NULL, 0);
}

uint64_t
group_fit(void *ctx, uint64_t first, uint64_t last, uint32_t bytes)
{
	struct group *g = ctx;
	struct meta_log_entry e;
	uint64_t sum = 0, old = 0, i = first;

	for (; i <= last && i - first < GROUP_ENTRIES; i++) {
		if (meta_log_get(g->log, i, &e) == 0)
			sum += e.len;
		else
			old += META_LOG_PAYLOAD_MAX;	/* on disk, of unknown size */
		if (sum > bytes || old + sum > GROUP_BYTES)
			break;
	}
	return i == first ? first : i - 1;
}

/* ---- receiving ---- */

int
group_message_ok(struct group *g, const struct uid128 *id, uint32_t number,
    uint64_t from, uint64_t to)
{
	if (g->rc != 0 || g->raft == NULL || g->phase != GROUP_RUNNING)
		return ERR_STOPPING;
	if (number != g->conf.number || to != g->member || from == 0 ||
	    from == to)
		return ERR_NOT_OWNER;
	if (uid128_zero(id))
		return ERR_BAD_MESSAGE;
	if (uid128_zero(&g->id)) {
		char text[UID128_TEXT];

		/* Whoever knows our id was told it by us. */
		g->id = *id;
		group_save_hard(g, g->hard.term, g->hard.vote);
		uid128_text(id, text);
		log_info(g->conf.log, "joins a group", "group=%s", text);
	}
	if (!uid128_eq(id, &g->id)) {
		if (group_now(g) >= g->warned_ns) {
			char text[UID128_TEXT];

			uid128_text(id, text);
			g->warned_ns = group_now(g) + WARN_NS;
			log_warn(g->conf.log, "refuses a member of another group",
			    "group=%s member=%016" PRIx64, text, from);
		}
		return ERR_NOT_OWNER;
	}
	return 0;
}

/* Entries as they were packed, of those as many as there is room for; false: not what it
 * says. */
static bool
unpack(struct group *g, const struct msg_raft_step *s, struct raft_msg *m)
{
	uint64_t room = meta_log_room(g->log), bytes = META_LOG_BLOCK;
	uint64_t slots = meta_log_slots(g->log);
	struct bytes_reader r;

	bytes_reader_init(&r, s->data.p, s->data.n);
	if (s->n > GROUP_ENTRIES || (s->n > 0 && s->kind != RAFT_ENTRIES))
		return false;
	for (uint32_t i = 0; i < s->n; i++) {
		struct raft_entry *e = &g->entries[i];

		e->term = bytes_get_u64(&r);
		e->type = bytes_get_u16(&r);
		e->len = bytes_get_u32(&r);
		if (e->len > META_LOG_PAYLOAD_MAX ||
		    (e->payload = bytes_get_raw(&r, e->len)) == NULL)
			return false;
		bytes += META_LOG_ENTRY + 8 + e->len;
		if (bytes <= room && i < slots)
			m->n = i + 1;
	}
	m->entries = m->n > 0 ? g->entries : NULL;
	return bytes_reader_done(&r);
}

bool
group_below_floor(const struct group *g, uint64_t term, uint64_t index)
{
	return term < g->floor_term ||
	    (term == g->floor_term && index < g->floor_index);
}

/* A message that the core must not see now. */
static bool
held_back(struct group *g, const struct raft_msg *m)
{
	switch (m->kind) {
	case RAFT_PREVOTE:
	case RAFT_VOTE:
		return group_below_floor(g, m->log_term, m->index);
	case RAFT_TIMEOUT_NOW:
		return group_below_floor(g, meta_log_end_term(g->log),
		    g->half ? 0 : meta_log_end(g->log));
	case RAFT_ENTRIES:
		/* A half table cannot begin at the first entry; and what does not fit
		 * has to wait until there is room. */
		return (g->half && m->index == 0) || m->n == 0;
	default:
		return false;
	}
}

static int
received(struct group *g, const struct msg_raft_step *s)
{
	struct raft_msg m = { .kind = s->kind, .ok = s->ok != 0,
		.force = s->force != 0, .from = s->from, .to = s->to,
		.term = s->term, .index = s->index, .log_term = s->log_term,
		.hint = s->hint, .commit = s->commit, .seq = s->seq,
		.sent_ns = s->sent_ns };
	struct net_addr addr;
	struct peer *p;
	int rc;

	rc = group_message_ok(g, &s->group, s->number, s->from, s->to);
	if (rc != 0)
		return rc;
	if (!unpack(g, s, &m) ||
	    net_addr_parse(s->addr.p, s->addr.n, &addr, NULL) != 0)
		return ERR_BAD_MESSAGE;
	if ((p = group_peer(g, s->from, true)) != NULL)
		p->addr = addr;
	if (s->partial && g->role == RAFT_LEADER && raft_first(g->raft) <= 1) {
		g->cut_all = true;	/* it cannot take entries: a snapshot */
		if (g->durable == g->applied.index)
			group_cut(g);
		group_flush_maybe(g);
	}
	if (s->partial) {
		raft_peer_lost(g->raft, group_now(g), s->from);
		group_pump(g);
	}
	if (held_back(g, &m))
		return ERR_BUSY;
	raft_receive(g->raft, group_now(g), &m);
	group_pump(g);
	return 0;
}

static void
tell_who(struct group *g, struct net_req *req)
{
	const struct msg_who *w = req->msg;
	struct msg_who_rep rep = { .group = g->id, .member = g->member,
		.applied = g->applied.index, .blank = group_blank(g) };
	char text[NET_ADDR_TEXT];
	struct net_addr addr;

	if (w->number != g->conf.number) {
		net_reply(req, ERR_NOT_OWNER, NULL, NULL, 0, NULL, NULL);
		return;
	}
	if (g->phase != GROUP_RUNNING || g->rc != 0) {
		net_reply(req, ERR_STOPPING, NULL, NULL, 0, NULL, NULL);
		return;
	}
	rep.term = raft_term(g->raft);
	rep.leader = raft_leader(g->raft);
	if (group_leader(g, &addr)) {
		net_addr_text(&addr, text);
		rep.addr = msg_str(text);
	}
	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
}

void
group_serve(struct group *g, struct net_req *req)
{
	static const struct msg_none none;
	int rc;

	switch (req->method) {
	case MSG_who:
		tell_who(g, req);
		break;
	case MSG_raft_step:
		rc = g->entries == NULL ? ERR_NOT_OWNER : received(g, req->msg);
		net_reply(req, rc, rc == 0 ? &none : NULL, NULL, 0, NULL, NULL);
		break;
	case MSG_snapshot:
		group_load_piece(g, req);
		break;
	default:
		net_reply(req, ERR_BAD_METHOD, NULL, NULL, 0, NULL, NULL);
	}
}
