/* SPDX-License-Identifier: MIT */
/* group_snap.c - the table on its way to a follower that the log does not reach any more.
 *
 *   asked -> (flush) -> image -> piece 0 -> piece 1 ... last -> the core is told
 *              ^          |
 *              +-- stale -+
 *
 * One piece at a time, made when the one before was taken, so the loop is never held up.
 * The image is frozen at a flush and has its own applied index in it; keeping it costs
 * space, so it is given up and begun again when that becomes too much. */
#include "meta/group_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/crc32c.h"
#include "conf/err.h"

#define PIECE_NS	(20 * NS_PER_S)	/* for one to be taken */
#define AGAIN_NS	(100 * NS_PER_MS)
#define GIVE_UP_NS	(30 * NS_PER_S)	/* without progress */
#define PIECE_ROWS	1024u
#define IMAGE_PART	4u		/* of the table's bound, kept for an image */

static void
image_drop(struct snap *s)
{
	table_image_close(s->image);
	s->image = NULL;
}

void
group_snap_stop(struct peer *p)
{
	struct snap *s = &p->snap;

	if (p->g == NULL || !s->wanted)
		return;
	net_call_cancel(&s->call);
	clock_timer_stop(p->g->conf.clock, &s->timer);
	image_drop(s);
	free(s->buf);
	s->buf = NULL;
	s->wanted = false;
}

static void
ended(struct peer *p, bool ok)
{
	struct group *g = p->g;
	uint64_t index = p->snap.point.index;

	log_at(g->conf.log, ok ? LOG_INFO : LOG_WARN,
	    ok ? "snapshot sent" : "snapshot not taken", "to=%016" PRIx64
	    " index=%" PRIu64 " pieces=%" PRIu64, p->id, index, p->snap.seq + 1);
	if (ok)
		stat_add(&g->stat.snapshots_sent, 1);
	group_snap_stop(p);
	raft_snapshot_sent(g->raft, group_now(g), p->id, index, ok);
	group_pump(g);
}

bool
group_snap_waits(const struct group *g)
{
	for (unsigned i = 0; i < GROUP_PEERS; i++)
		if (g->peers[i].snap.wanted && g->peers[i].snap.image == NULL &&
		    g->peers[i].snap.need > g->durable)
			return true;
	return false;
}

uint64_t
group_snap_lowest(const struct group *g)
{
	uint64_t low = UINT64_MAX;

	for (unsigned i = 0; i < GROUP_PEERS; i++) {
		const struct snap *s = &g->peers[i].snap;

		if (s->wanted && s->image != NULL && s->point.index < low)
			low = s->point.index;
	}
	return low;
}

/* ---- pieces ---- */

static size_t
row(uint8_t *out, size_t at, const void *key, size_t key_len, const void *value,
    size_t len)
{
	struct bytes_writer w;

	bytes_writer_init(&w, out + at, GROUP_PIECE_MAX - at);
	bytes_put_u16(&w, (uint16_t)key_len);
	bytes_put_u32(&w, (uint32_t)len);
	bytes_put_raw(&w, key, key_len);
	bytes_put_raw(&w, value, len);
	assert(!w.failed);
	return bytes_written(&w);
}

/* Fill buf with the rows after key. 0, -ESTALE, -EIO. */
static int
piece_make(struct snap *s)
{
	static const uint8_t first[] = { 1 };	/* rows before it are the group's */
	const void *key, *value;
	size_t key_len, len;
	int rc = 0;

	s->len = 0;
	s->last = false;
	for (unsigned i = 0; i < PIECE_ROWS; i++) {
		if (s->key_len == 0)
			rc = table_image_seek(s->image, first, sizeof(first), false,
			    &key, &key_len, &value, &len);
		else
			rc = table_image_seek(s->image, s->key, s->key_len, true,
			    &key, &key_len, &value, &len);
		if (rc != 0)
			break;
		if (key_len > TABLE_KEY_MAX || len > TABLE_VALUE_MAX)
			return -EIO;
		if (s->len > 0 && s->len + GROUP_ROW_HEAD + key_len + len >
		    GROUP_PIECE)
			break;
		s->len += row(s->buf, s->len, key, key_len, value, len);
		memcpy(s->key, key, key_len);
		s->key_len = key_len;
	}
	s->last = rc == -ENOENT;
	return s->last ? 0 : rc;
}

static void piece_taken(struct net_call *c, int rc);
static void again(struct clock_timer *t);

static void
piece_send(struct peer *p)
{
	struct group *g = p->g;
	struct snap *s = &p->snap;
	struct msg_snapshot m = { .group = g->id, .number = g->conf.number,
		.from = g->member, .to = p->id, .term = raft_term(g->raft),
		.id = s->id, .index = s->point.index, .log_term = s->point.term,
		.members = { (const char *)s->members, s->members_len },
		.members_index = s->point.members.index, .seq = s->seq,
		.last = s->last, .crc = crc32c(0, s->buf, s->len),
		.data = { (const char *)s->buf, (uint32_t)s->len } };
	struct net_call_opts o = { .deadline_ns = group_now(g) + PIECE_NS };
	int rc;

	rc = net_call_start(&s->call, g->conf.hub, &p->addr, MSG_snapshot, &m, &o,
	    piece_taken);
	if (rc != 0)
		piece_taken(&s->call, rc);
}

/* Take an image of what is durable, if that is far enough. 0, or why not. */
static int
image_take(struct peer *p)
{
	struct group *g = p->g;
	struct snap *s = &p->snap;
	int rc;

	if (g->durable < s->need || g->committing)
		return -EAGAIN;
	if (s->buf == NULL && (s->buf = malloc(GROUP_PIECE_MAX)) == NULL)
		return -ENOMEM;
	rc = table_image_open(g->table, g->conf.table_bytes / IMAGE_PART,
	    &s->image);
	if (rc == 0)
		rc = group_image_point(s->image, &s->point);
	if (rc == 0 && s->point.index < s->need)
		rc = -EAGAIN;
	if (rc != 0) {
		image_drop(s);
		return rc;
	}
	s->members_len = (uint32_t)raft_members_encode(&s->point.members,
	    s->members);
	s->id = rand_u64(g->conf.rand);
	s->seq = 0;
	s->key_len = 0;
	return 0;
}

/* Go on with the next piece, of a new image if need be. */
static void
go(struct peer *p)
{
	struct snap *s = &p->snap;
	int rc = 0;

	if (p->g->healing) {		/* not this table */
		clock_timer_start(p->g->conf.clock, &s->timer, group_now(p->g) + AGAIN_NS,
		    again);
		return;
	}
	if (s->image == NULL && (rc = image_take(p)) == -EAGAIN) {
		group_flush_maybe(p->g);	/* and then group_snap_flushed() */
		return;
	}
	if (rc == 0)
		rc = piece_make(s);
	if (rc == -ESTALE) {
		log_info(p->g->conf.log, "snapshot begins again",
		    "to=%016" PRIx64 " why=\"the table has changed too much\"",
		    p->id);
		image_drop(s);
		s->need = p->g->applied.index;
		go(p);
	} else if (rc != 0)
		ended(p, false);
	else
		piece_send(p);
}

static void
again(struct clock_timer *t)
{
	struct peer *p = container_of(t, struct peer, snap.timer);

	if (p->snap.image == NULL || p->g->healing)
		go(p);
	else
		piece_send(p);
}

static void
piece_taken(struct net_call *c, int rc)
{
	struct peer *p = container_of(c, struct peer, snap.call);
	struct group *g = p->g;
	struct snap *s = &p->snap;
	const struct msg_snapshot_rep *rep = c->rep;

	if (g->rc != 0 || !s->wanted)
		return;
	if (rc != 0) {
		if (group_now(g) - s->moved_ns >= GIVE_UP_NS) {
			ended(p, false);
			return;
		}
		clock_timer_start(g->conf.clock, &s->timer, group_now(g) +
		    AGAIN_NS, again);
		return;
	}
	s->moved_ns = group_now(g);
	if (rep->done)
		ended(p, true);
	else if (!rep->wanted)
		ended(p, false);
	else if (rep->next == s->seq + 1 && !s->last) {
		s->seq++;
		go(p);
	} else if (rep->next == s->seq)
		clock_timer_start(g->conf.clock, &s->timer, group_now(g) +
		    AGAIN_NS, again);
	else {
		image_drop(s);		/* it lost what it had */
		go(p);
	}
}

/* ---- what the rest of the group calls ---- */

void
group_snap_want(struct group *g, uint64_t to, uint64_t index)
{
	struct peer *p = group_peer(g, to, true);

	if (p == NULL || p->addr.kind == NET_ADDR_NONE || g->conf.hub == NULL) {
		const struct raft_member *m =
		    raft_members_find(raft_members(g->raft), to);

		if (p == NULL || m == NULL || g->conf.hub == NULL)
			return;		/* no memory: group_snap_missed() */
		p->addr = m->addr;
	}
	group_snap_stop(p);
	p->snap.wanted = true;
	p->snap.need = index;
	p->snap.moved_ns = group_now(g);
	log_info(g->conf.log, "sends a snapshot", "to=%016" PRIx64
	    " index=%" PRIu64, to, index);
	/* Not from inside an effect: the answer to failure is an event. */
	clock_timer_start(g->conf.clock, &p->snap.timer, group_now(g), again);
}

/* Not when it was asked for: that was inside an effect, and the answer is an event. */
void
group_snap_missed(struct group *g)
{
	const struct raft_members *all = raft_members(g->raft);

	for (unsigned i = 0; i < all->n; i++) {
		const struct peer *p = group_peer(g, all->m[i].id, false);
		struct raft_progress of;

		if ((p != NULL && p->snap.wanted) || !raft_progress(g->raft,
		    group_now(g), all->m[i].id, &of) || !of.snapshot)
			continue;
		raft_snapshot_sent(g->raft, group_now(g), all->m[i].id, 0, false);
		group_pump(g);
		return;			/* the next one at the next tick */
	}
}

void
group_snap_flushed(struct group *g)
{
	for (unsigned i = 0; i < GROUP_PEERS && g->rc == 0; i++) {
		struct peer *p = &g->peers[i];

		if (p->id != 0 && p->snap.wanted && p->snap.image == NULL &&
		    p->snap.timer.pos == 0)
			go(p);
	}
}
