/* SPDX-License-Identifier: MIT */
/* raft_members.c - configurations: their bytes, and how far apart two of them are. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "conf/bytes.h"
#include "conf/err.h"
#include "meta/raft_impl.h"

#define HEAD_BYTES	4u
#define MEMBER_BYTES	40u

bool
raft_members_valid(const struct raft_members *m)
{
	unsigned voters = 0;

	if (m->n == 0 || m->n > RAFT_MEMBERS_MAX)
		return false;
	for (unsigned i = 0; i < m->n; i++) {
		if (m->m[i].id == 0)
			return false;
		for (unsigned j = 0; j < i; j++)
			if (m->m[j].id == m->m[i].id)
				return false;
		voters += m->m[i].voter;
	}
	return voters != 0;
}

const struct raft_member *
raft_members_find(const struct raft_members *m, uint64_t id)
{
	for (unsigned i = 0; i < m->n; i++)
		if (m->m[i].id == id)
			return &m->m[i];
	return NULL;
}

size_t
raft_members_encode(const struct raft_members *m, uint8_t *out)
{
	struct bytes_writer w;

	assert(raft_members_valid(m));
	memset(out, 0, HEAD_BYTES + m->n * MEMBER_BYTES);
	out[0] = (uint8_t)m->n;
	for (unsigned i = 0; i < m->n; i++) {
		const struct raft_member *p = &m->m[i];

		bytes_writer_init(&w, out + HEAD_BYTES + i * MEMBER_BYTES, MEMBER_BYTES);
		bytes_put_u64(&w, p->id);
		bytes_put_u8(&w, p->voter);
		bytes_put_u8(&w, p->addr.kind);
		bytes_put_u16(&w, p->addr.port);
		bytes_put_u32(&w, p->addr.id);
		bytes_put_raw(&w, p->addr.ip, sizeof(p->addr.ip));
	}
	return HEAD_BYTES + m->n * MEMBER_BYTES;
}

int
raft_members_decode(struct raft_members *m, const void *in, size_t len)
{
	const uint8_t *b = in;
	struct bytes_reader r;

	*m = (struct raft_members){ 0 };
	if (len < HEAD_BYTES || b[0] == 0 || b[0] > RAFT_MEMBERS_MAX ||
	    (b[1] | b[2] | b[3]) != 0 || len != HEAD_BYTES + b[0] * MEMBER_BYTES)
		return ERR_BAD_MESSAGE;
	m->n = b[0];
	bytes_reader_init(&r, b + HEAD_BYTES, len - HEAD_BYTES);
	for (unsigned i = 0; i < m->n; i++) {
		struct raft_member *p = &m->m[i];
		uint8_t voter;

		p->id = bytes_get_u64(&r);
		voter = bytes_get_u8(&r);
		p->voter = voter != 0;
		p->addr.kind = bytes_get_u8(&r);
		p->addr.port = bytes_get_u16(&r);
		p->addr.id = bytes_get_u32(&r);
		memcpy(p->addr.ip, bytes_get_raw(&r, sizeof(p->addr.ip)),
		    sizeof(p->addr.ip));
		if (bytes_get_u64(&r) != 0 || voter > 1 || p->addr.kind > NET_ADDR_SIM)
			return ERR_BAD_MESSAGE;
	}
	return raft_members_valid(m) ? 0 : ERR_BAD_MESSAGE;
}

enum { ABSENT, LEARNER, VOTER };

static int
role(const struct raft_members *m, uint64_t id)
{
	const struct raft_member *p = raft_members_find(m, id);

	return p == NULL ? ABSENT : p->voter ? VOTER : LEARNER;
}

bool
raft_members_step(const struct raft_members *from, const struct raft_members *to)
{
	unsigned steps = 0;

	if (!raft_members_valid(to))
		return false;
	for (unsigned i = 0; i < to->n; i++) {
		int was = role(from, to->m[i].id), is = role(to, to->m[i].id);

		if (was == ABSENT && is == VOTER)
			return false;	/* learns first */
		steps += was != is;
	}
	for (unsigned i = 0; i < from->n; i++)
		steps += role(to, from->m[i].id) == ABSENT;
	return steps <= 1;
}

/* ---- the one that holds ---- */

const struct raft_members *
raft_members(const struct raft *r)
{
	return &r->cur;
}

bool
raft_members_settled(const struct raft *r)
{
	return r->cur.index <= r->commit;
}

void
raft_members_moved(struct raft *r)
{
	struct raft_peer old[RAFT_MEMBERS_MAX];

	memcpy(old, r->peers, sizeof(old));
	for (unsigned i = 0; i < r->cur.n; i++) {
		struct raft_peer *p = &r->peers[i];

		*p = (struct raft_peer){ .id = r->cur.m[i].id, .beat = true,
			.next = r->last, .progress_ns = r->now_ns };
		for (unsigned j = 0; j < RAFT_MEMBERS_MAX; j++)
			if (old[j].id == p->id)
				*p = old[j];
	}
	for (unsigned i = r->cur.n; i < RAFT_MEMBERS_MAX; i++)
		r->peers[i] = (struct raft_peer){ 0 };
}

/* A new voter has the configuration that holds it as a learner: one that has nothing yet
 * gives no votes, and with it counted the others might be too few for ever. */
static bool
ready(struct raft *r, const struct raft_members *to)
{
	for (unsigned i = 0; i < to->n; i++) {
		const struct raft_peer *p = raft_peer(r, to->m[i].id);

		if (p != NULL && to->m[i].voter && !raft_voter(r, p->id) &&
		    p->match < r->cur.index)
			return false;
	}
	return true;
}

/* When one less is to vote, can those that are left elect?  Who needs a snapshot may have nothing
 * while it takes it, not even a configuration, and gives no votes then; of one that has not
 * answered lately that is not known.  Were too many like that, and we lost meanwhile, nobody
 * could lead ever again. */
static bool
enough(struct raft *r, const struct raft_members *to)
{
	unsigned voters = 0, whole = 0, now = 0;

	for (unsigned i = 0; i < r->cur.n; i++)
		now += r->cur.m[i].voter;
	for (unsigned i = 0; i < to->n; i++) {
		const struct raft_peer *p = raft_peer(r, to->m[i].id);

		if (!to->m[i].voter)
			continue;
		voters++;
		whole += to->m[i].id == r->conf.id || (p != NULL &&
		    p->match >= r->cur.index && p->match >= r->base_index &&
		    r->now_ns - p->acked_ns < r->conf.election_ns);
	}
	return voters >= now || whole > voters / 2;
}

int
raft_change(struct raft *r, uint64_t now_ns, const struct raft_members *to,
    uint64_t *index)
{
	size_t n;

	raft_begin(r, now_ns);
	if (r->role != RAFT_LEADER)
		return ERR_NOT_LEADER;
	if (!raft_members_step(&r->cur, to))
		return -EINVAL;
	if (r->transfer_to != 0 || !raft_members_settled(r) || r->commit < r->noop ||
	    !ready(r, to) || !enough(r, to))
		return ERR_BUSY;
	n = raft_members_encode(to, r->own_bytes);
	raft_log_own(r, RAFT_MEMBERS, (uint32_t)n);
	*index = r->last;
	raft_advance(r);
	return 0;
}
