/* SPDX-License-Identifier: MIT */
/* raft_sim.h - a group of Raft cores with disks and a network of its own, one step at a time;
 * what must hold is checked as the effects of each step are taken:
 *	one leader per term (election safety)
 *	what has the same index and term is the same, with all before it (log matching)
 *	a new leader has all that was committed in terms before (leader completeness)
 *	everybody commits the same (state machine safety)
 *	what is committed is on the disks of a majority
 *	a read, by round or by lease, sees all that was acknowledged before it began */
#ifndef TESTS_RAFT_SIM_H
#define TESTS_RAFT_SIM_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/rand.h"
#include "meta/raft_impl.h"

#define NODES		6u
#define LOG_MAX		8192u
#define EVENTS_MAX	16384u
#define CONFS_MAX	2048u
#define BATCH		6u
#define READS		16u
#define MS		1000000ull
#define T		(100 * MS)

#define MUST(cond) must(cond, #cond, __LINE__)

static void
must(bool ok, const char *what, int line)
{
	if (ok)
		return;
	fprintf(stderr, "line %d: %s\n", line, what);
	abort();
}

struct ent {
	uint64_t term, value;		/* RAFT_MEMBERS: value is a place in confs[] */
	uint16_t type;
};

struct table {				/* the state machine */
	struct raft_point at;
	uint64_t hash;
};

struct image {				/* of a log and a table */
	uint64_t base, base_term, last;
	struct table table;
	struct ent ent[LOG_MAX];
};

struct rd {
	uint64_t ticket, need, index;
};

struct node {
	uint64_t id, rate_ppm, skew;
	struct raft *r;			/* NULL: down */
	unsigned boot, epoch;		/* of its log: old writes do not count */
	uint64_t paused_until, slow_until, wake;
	struct raft_hard hard, hard_new;/* durable; being saved */
	struct image mem, disk;
	uint64_t dirty;			/* first entry that is not on disk as it is */
	bool	 restoring;
	bool	 led;			/* at the last look */
	struct rd reads[READS];
	unsigned reads_n;
	uint64_t read_served;
};

enum what { E_TICK, E_MSG, E_SAVED, E_LOGGED, E_RESTORED, E_SNAP, E_SNAP_SENT };

struct event {
	uint64_t at, order;
	enum what what;
	unsigned node, boot, epoch;
	uint64_t a, b;
	bool	 ok;
	struct raft_hard hard;
	struct raft_msg msg;
	struct ent ents[BATCH];
	struct table table;
};

struct sim {
	struct rand rand, raft_rand;
	uint64_t now, order, value;
	struct node nodes[NODES];
	bool	 calm;
	bool	 cut[NODES][NODES];
	uint64_t second;		/* when tempt() comes; 0: does not */
	unsigned rival;
	unsigned loss;			/* of 1000 */
	uint64_t delay_max;
	struct event *heap[EVENTS_MAX], *pool[EVENTS_MAX];
	unsigned heap_n, pool_n;
	uint8_t  confs[CONFS_MAX][RAFT_MEMBERS_BYTES];
	uint32_t conf_len[CONFS_MAX];
	unsigned confs_n;
	struct ent committed[LOG_MAX];
	uint64_t commit_hash[LOG_MAX];
	uint64_t commit_term[LOG_MAX];	/* in which it was committed */
	uint64_t commit_n;		/* last index */
	uint64_t seen;			/* acknowledged, or read */
	uint64_t leader_of[4096];
	struct { uint64_t term, chain; } chains[LOG_MAX][8];
	uint64_t trace;
};

/* What the seeds came through, so that a fault that never happens is noticed. */
static struct {
	uint64_t leaders, commits, reads, leases, restores, changes, transfers, crashes,
	    cuts;
} seen;

static void take(struct sim *s, struct node *n);

/* ---- events ---- */

static bool
before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static struct event *
event(struct sim *s, struct node *n, enum what what, uint64_t delay)
{
	struct event *e;
	unsigned i;

	MUST(s->heap_n < EVENTS_MAX);
	e = s->pool_n > 0 ? s->pool[--s->pool_n] : malloc(sizeof(*e));
	MUST(e != NULL);
	e->at = s->now + delay;
	e->order = s->order++;
	e->what = what;
	e->node = (unsigned)(n - s->nodes);
	e->boot = n->boot;
	e->epoch = n->epoch;
	for (i = s->heap_n++; i > 0 && before(e, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = e;
	return e;
}

static struct event *
pop(struct sim *s)
{
	struct event *top = s->heap[0], *e = s->heap[--s->heap_n];
	unsigned i = 0, c;

	for (; (c = 2 * i + 1) < s->heap_n; i = c) {
		if (c + 1 < s->heap_n && before(s->heap[c + 1], s->heap[c]))
			c++;
		if (!before(s->heap[c], e))
			break;
		s->heap[i] = s->heap[c];
	}
	s->heap[i] = e;
	return top;
}

static uint64_t
local(const struct sim *s, const struct node *n)
{
	return n->skew + s->now / 1000000 * n->rate_ppm +
	    s->now % 1000000 * n->rate_ppm / 1000000;
}

static void
plan_tick(struct sim *s, struct node *n)
{
	uint64_t wake = raft_wake_ns(n->r), now = local(s, n), in;

	if (n->wake == wake)
		return;
	n->wake = wake;
	in = wake > now ? (wake - now) * 1000000 / n->rate_ppm + 1 : 1;
	event(s, n, E_TICK, in)->a = wake;
}

/* ---- a node's disk ---- */

static uint64_t
disk_delay(struct sim *s, const struct node *n)
{
	return s->calm ? MS : (s->now < n->slow_until ? 60 * MS : 0) +
	    MS / 10 + rand_below(&s->rand, 8 * MS);
}

static void
write_log(struct node *n, uint64_t index)
{
	if (index < n->dirty)
		return;
	memcpy(&n->disk.ent[n->dirty], &n->mem.ent[n->dirty],
	    (index + 1 - n->dirty) * sizeof(struct ent));
	n->disk.last = index;
	n->dirty = index + 1;
}

static void
copy_image(struct image *to, const struct image *from)
{
	to->base = from->base;
	to->base_term = from->base_term;
	to->last = from->last;
	to->table = from->table;
	memcpy(&to->ent[from->base], &from->ent[from->base],
	    (from->last + 1 - from->base) * sizeof(struct ent));
}

static const void *
payload(const struct sim *s, const struct ent *e, uint32_t *len)
{
	*len = e->type == RAFT_MEMBERS ? s->conf_len[e->value] :
	    e->type == RAFT_COMMAND ? 8 : 0;
	return e->type == RAFT_MEMBERS ? (const void *)s->confs[e->value] : &e->value;
}

static struct raft_entry
entry_of(const struct sim *s, const struct ent *e)
{
	struct raft_entry x = { .term = e->term, .type = e->type };

	x.payload = payload(s, e, &x.len);
	return x;
}

static uint64_t
mix(uint64_t h, uint64_t x)
{
	h = (h ^ x) * 0x9e3779b97f4a7c15ull;
	return h ^ h >> 29;
}

static struct ent
ent_of(struct sim *s, const struct raft_entry *e)
{
	struct ent x = { .term = e->term, .type = e->type };

	if (e->type == RAFT_COMMAND)
		memcpy(&x.value, e->payload, 8);
	else if (e->type == RAFT_MEMBERS) {
		for (x.value = 0; x.value < s->confs_n; x.value++)
			if (s->conf_len[x.value] == e->len &&
			    memcmp(s->confs[x.value], e->payload, e->len) == 0)
				return x;
		MUST(s->confs_n < CONFS_MAX);
		memcpy(s->confs[s->confs_n], e->payload, e->len);
		s->conf_len[s->confs_n++] = e->len;
	}
	return x;
}

static void
open_node(struct sim *s, struct node *n)
{
	struct raft_conf conf = { .id = n->id, .election_ns = T, .beat_ns = T / 8,
		.rand = &s->raft_rand, .entries_max = BATCH, .bytes_max = 1000,
		.inflight_max = 4 };

	n->boot++;
	n->epoch++;
	copy_image(&n->mem, &n->disk);
	n->dirty = n->mem.last + 1;
	n->restoring = n->led = false;
	n->hard_new = n->hard;
	n->wake = 0;
	n->reads_n = 0;
	MUST(raft_open(&n->r, &conf, &n->hard, &n->mem.table.at, n->mem.base,
	    n->mem.base_term) == 0);
	for (uint64_t i = n->mem.base + 1; i <= n->mem.last; i++) {
		struct raft_entry e = entry_of(s, &n->mem.ent[i]);

		MUST(raft_load(n->r, i, &e) == 0);
	}
	MUST(raft_start(n->r, local(s, n)) == 0);
	take(s, n);
}

static void
crash(struct sim *s, struct node *n)
{
	seen.crashes++;
	raft_close(n->r);
	n->r = NULL;
	n->boot++;
	if (rand_chance(&s->rand, 1, 2))
		n->hard = n->hard_new;
	if (n->restoring) {
		if (rand_chance(&s->rand, 1, 2))
			copy_image(&n->disk, &n->mem);
	} else if (n->mem.last >= n->dirty && rand_chance(&s->rand, 1, 2))
		write_log(n, n->dirty + rand_below(&s->rand, n->mem.last + 1 - n->dirty));
}

/* Make the table durable, and perhaps forget the entries it has. */
static void
flush(struct sim *s, struct node *n)
{
	uint64_t to = n->mem.table.at.index, keep = rand_below(&s->rand, 12);

	if (n->restoring)
		return;
	n->disk.table = n->mem.table;
	to = to > keep ? to - keep : 0;
	if (to <= n->mem.base)
		return;
	n->disk.base_term = n->mem.base_term = n->mem.ent[to].term;
	n->disk.base = n->mem.base = to;
	raft_compacted(n->r, to);
	MUST(raft_first(n->r) >= to + 1);
}

/* ---- network ---- */

static struct node *
by_id(struct sim *s, uint64_t id)
{
	MUST(id >= 1 && id <= NODES);
	return &s->nodes[id - 1];
}

static uint64_t
net_delay(struct sim *s)
{
	return s->calm ? MS : rand_chance(&s->rand, 1, 50) ?
	    rand_below(&s->rand, 3 * T) : MS / 20 + rand_below(&s->rand, s->delay_max);
}

static bool
lost(struct sim *s, const struct node *from, const struct node *to)
{
	return s->cut[from - s->nodes][to - s->nodes] ||
	    (!s->calm && rand_chance(&s->rand, s->loss, 1000));
}

static void
send_msg(struct sim *s, struct node *n, const struct raft_msg *m)
{
	struct node *to = by_id(s, m->to);
	unsigned copies = !s->calm && rand_chance(&s->rand, 1, 30) ? 2 : 1;

	MUST(m->from == n->id);
	MUST(m->kind != RAFT_ENTRIES || (m->n >= 1 && m->n <= BATCH));
	/* Only what is durable may be promised. */
	MUST(n->hard.term >= m->term || m->kind == RAFT_PREVOTE ||
	    m->kind == RAFT_PREVOTE_REP);
	MUST(m->kind != RAFT_VOTE_REP || !m->ok || n->hard.vote == m->to);
	while (copies-- > 0) {
		struct event *e;

		if (lost(s, n, to))
			continue;
		e = event(s, to, E_MSG, net_delay(s));
		e->msg = *m;
		for (uint32_t i = 0; i < m->n; i++) {
			MUST(m->index + 1 + i <= n->mem.last);
			MUST(m->index + 1 + i > n->mem.base);
			e->ents[i] = n->mem.ent[m->index + 1 + i];
		}
	}
}

static void
send_snapshot(struct sim *s, struct node *n, const struct raft_effect *x)
{
	struct node *to = by_id(s, x->to);
	bool gone;
	struct event *e;

	flush(s, n);
	MUST(n->disk.table.at.index >= x->index);
	gone = lost(s, n, to) || to->r == NULL;
	if (!gone) {
		e = event(s, to, E_SNAP, net_delay(s) + (s->calm ? 0 :
		    rand_below(&s->rand, T)));
		e->table = n->disk.table;
		e->a = n->id;
		e->b = raft_term(n->r);
	}
	e = event(s, n, E_SNAP_SENT, 2 * T);
	e->a = x->to;
	e->b = n->disk.table.at.index;
	e->ok = !gone;
}

/* ---- what is checked ---- */

static uint64_t
chain_of(struct sim *s, uint64_t index, uint64_t term)
{
	for (unsigned i = 0; i < 8; i++)
		if (s->chains[index % LOG_MAX][i].term == term)
			return s->chains[index % LOG_MAX][i].chain;
	return 0;
}

/* (index, term) names one entry and all before it. */
static void
check_matching(struct sim *s, const struct node *n, uint64_t index)
{
	const struct ent *e = &n->mem.ent[index];
	uint64_t prev_term = index - 1 == n->mem.base ? n->mem.base_term :
	    index == 1 ? 0 : n->mem.ent[index - 1].term;
	uint64_t chain = mix(mix(mix(chain_of(s, index - 1, prev_term), e->term),
	    e->value), e->type) | 1;
	uint64_t had = chain_of(s, index, e->term);

	MUST(had == 0 || had == chain);
	if (had != 0)
		return;
	for (unsigned i = 0; i < 8; i++)
		if (s->chains[index][i].term == 0) {
			s->chains[index][i].term = e->term;
			s->chains[index][i].chain = chain;
			return;
		}
	MUST(!"more terms at one index than expected");
}

static bool
same(const struct ent *a, const struct ent *b)
{
	return a->term == b->term && a->value == b->value && a->type == b->type;
}

static bool
on_disk(struct sim *s, const struct node *n, uint64_t index)
{
	return n->disk.table.at.index >= index || (n->disk.last >= index &&
	    same(&n->disk.ent[index], &s->committed[index]));
}

static void
check_commit(struct sim *s, const struct node *n)
{
	const struct raft *r = n->r;
	unsigned voters = 0, have = 0;

	if (r->commit <= s->commit_n)
		return;
	MUST(r->role == RAFT_LEADER || n->led);	/* one that has removed itself */
	for (uint64_t i = s->commit_n + 1; i <= r->commit; i++) {
		s->committed[i] = n->mem.ent[i];
		s->commit_term[i] = r->term;
		s->commit_hash[i] = mix(s->commit_hash[i - 1], n->mem.ent[i].value);
		seen.commits++;
	}
	s->commit_n = r->commit;
	MUST(n->mem.ent[r->commit].term == r->term);
	for (unsigned i = 0; i < r->cur.n; i++)
		if (r->cur.m[i].voter) {
			voters++;
			have += on_disk(s, by_id(s, r->cur.m[i].id), r->commit);
		}
	MUST(have > voters / 2);
}

/* Who has the lease is the last that leads, and one that is not a member goes. */
static void
check_lease(const struct sim *s)
{
	uint64_t term = 0;

	for (unsigned i = 0; i < NODES; i++) {
		const struct raft *r = s->nodes[i].r;

		if (r == NULL || r->role != RAFT_LEADER)
			continue;
		if (term < r->term)
			term = r->term;
		MUST(raft_voter(r, r->conf.id) || r->cur.index > r->commit ||
		    r->commit < r->noop);
	}
	for (unsigned i = 0; i < NODES; i++) {
		const struct node *n = &s->nodes[i];

		if (n->r != NULL && raft_lease(n->r, local(s, n)))
			MUST(n->r->term == term);
	}
}

static void
check_leader(struct sim *s, const struct node *n, uint64_t term)
{
	MUST(term < 4096);
	MUST(s->leader_of[term] == 0);
	s->leader_of[term] = n->id;
	for (uint64_t i = 1; i <= s->commit_n && s->commit_term[i] < term; i++) {
		MUST(n->mem.last >= i);
		MUST(i <= n->mem.base || same(&n->mem.ent[i], &s->committed[i]));
	}
	seen.leaders++;
}

static void
serve_reads(struct sim *s, struct node *n)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < n->reads_n; i++) {
		struct rd *x = &n->reads[i];

		if (x->index != 0 && x->index <= n->mem.table.at.index &&
		    !n->restoring) {
			MUST(n->mem.table.at.index >= x->need);
			MUST(x->index >= x->need);
			if (s->seen < x->index)
				s->seen = x->index;
			n->read_served++;
			seen.reads++;
		} else
			n->reads[kept++] = *x;
	}
	n->reads_n = kept;
}

/* ---- effects ---- */

static void
apply(struct sim *s, struct node *n, uint64_t to)
{
	struct table *t = &n->mem.table;

	MUST(to <= n->mem.last && to <= n->disk.last);
	for (uint64_t i = t->at.index + 1; i <= to; i++) {
		const struct ent *e = &n->mem.ent[i];

		MUST(i <= s->commit_n);
		MUST(same(e, &s->committed[i]));
		MUST(same(&n->disk.ent[i], e));
		t->hash = mix(t->hash, e->value);
		t->at.index = i;
		t->at.term = e->term;
		if (e->type == RAFT_MEMBERS) {
			MUST(raft_members_decode(&t->at.members, s->confs[e->value],
			    s->conf_len[e->value]) == 0);
			t->at.members.index = i;
		}
	}
	if (raft_role(n->r) == RAFT_LEADER && s->seen < to)
		s->seen = to;
}

static void
effect(struct sim *s, struct node *n, const struct raft_effect *x)
{
	struct event *e;

	switch (x->kind) {
	case RAFT_SAVE:
		n->hard_new = x->hard;
		event(s, n, E_SAVED, disk_delay(s, n))->hard = x->hard;
		break;
	case RAFT_ROLE:
		if (x->role == RAFT_LEADER)
			check_leader(s, n, x->term);
		break;
	case RAFT_TRUNCATE:
		MUST(x->index > n->mem.table.at.index);
		MUST(x->index <= n->mem.last);
		n->mem.last = x->index - 1;
		if (n->dirty > x->index)
			n->dirty = x->index;
		n->epoch++;
		seen.cuts++;
		break;
	case RAFT_APPEND:
		MUST(!n->restoring);
		MUST(x->index == n->mem.last + 1);
		MUST(n->mem.last + x->n < LOG_MAX);
		for (uint32_t i = 0; i < x->n; i++) {
			n->mem.ent[++n->mem.last] = ent_of(s, &x->entries[i]);
			check_matching(s, n, n->mem.last);
		}
		event(s, n, E_LOGGED, disk_delay(s, n))->a = n->mem.last;
		break;
	case RAFT_RESTORE:
		n->restoring = true;
		n->epoch++;
		n->mem.base = n->mem.last = x->index;
		n->mem.base_term = x->point->term;
		n->mem.table.at = *x->point;
		n->mem.table.hash = s->commit_hash[x->index];
		e = event(s, n, E_RESTORED, disk_delay(s, n) * 2 +
		    (s->calm ? 0 : rand_below(&s->rand, T)));
		e->a = x->index;
		seen.restores++;
		break;
	case RAFT_SEND:
		send_msg(s, n, &x->msg);
		break;
	case RAFT_SNAPSHOT:
		send_snapshot(s, n, x);
		break;
	case RAFT_COMMIT:
		check_commit(s, n);
		apply(s, n, x->index);
		break;
	case RAFT_READ:
		for (unsigned i = 0; i < n->reads_n; i++)
			if (n->reads[i].index == 0 && n->reads[i].ticket <= x->ticket) {
				n->reads[i].index = x->index;
				MUST(x->index >= n->reads[i].need);
			}
		break;
	}
}

static void
take(struct sim *s, struct node *n)
{
	struct raft_effect x;
	unsigned i;

	raft_check(n->r);
	for (i = 0; raft_next(n->r, &x); i++) {
		MUST(i < 200);
		s->trace = mix(s->trace, (uint64_t)x.kind << 8 | x.msg.kind);
		s->trace = mix(s->trace, s->now + x.index + x.msg.index);
		effect(s, n, &x);
	}
	raft_check(n->r);
	check_commit(s, n);
	check_lease(s);
	n->led = raft_role(n->r) == RAFT_LEADER;
	serve_reads(s, n);
	plan_tick(s, n);
}

#endif
