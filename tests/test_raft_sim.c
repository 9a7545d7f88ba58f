/* SPDX-License-Identifier: MIT */
/* test_raft_sim.c - groups of Raft cores under faults: N=seeds, SEED=one, JOBS=processes (2).
 * Messages are lost, late, doubled and out of order, links break one way, clocks differ,
 * nodes pause and crash and keep a random part of what was not durable, disks are slow,
 * members come and go, leadership is handed over, logs are cut.  Once healed, all members
 * are equal, and writes and reads go through. */
#include "tests/raft_sim.h"
#include "tests/seeds.h"

/* ---- steps ---- */

static void
deliver(struct sim *s, struct node *n, struct event *e)
{
	struct raft_entry entries[BATCH];

	for (uint32_t i = 0; i < e->msg.n; i++)
		entries[i] = entry_of(s, &e->ents[i]);
	e->msg.entries = entries;
	raft_receive(n->r, local(s, n), &e->msg);
	take(s, n);
}

static void
snapshot_came(struct sim *s, struct node *n, const struct event *e)
{
	if (!raft_snapshot_piece(n->r, local(s, n), e->a, e->b, e->table.at.index)) {
		take(s, n);
		return;
	}
	take(s, n);
	raft_restore(n->r, local(s, n), e->a, e->b, &e->table.at);
	take(s, n);
}

static void
run_event(struct sim *s, struct event *e)
{
	struct node *n = &s->nodes[e->node];

	s->now = e->at;
	if (n->r == NULL || (e->what != E_MSG && e->what != E_SNAP && e->boot != n->boot))
		return;
	switch (e->what) {
	case E_TICK:
		if (n->wake != e->a)
			return;
		n->wake = 0;
		raft_tick(n->r, local(s, n));
		take(s, n);
		break;
	case E_MSG:
		deliver(s, n, e);
		break;
	case E_SAVED:
		if (e->hard.term < n->hard.term)
			return;
		if (e->hard.term == n->hard.term && e->hard.vote == 0)
			return;
		n->hard = e->hard;
		raft_saved(n->r, local(s, n), &e->hard);
		take(s, n);
		break;
	case E_LOGGED:
		if (e->epoch != n->epoch)
			return;
		write_log(n, e->a);
		raft_persisted(n->r, local(s, n), e->a, n->mem.ent[e->a].term);
		take(s, n);
		break;
	case E_RESTORED:
		n->restoring = false;
		copy_image(&n->disk, &n->mem);
		n->dirty = n->mem.last + 1;
		raft_restored(n->r, local(s, n), e->a);
		take(s, n);
		break;
	case E_SNAP:
		snapshot_came(s, n, e);
		break;
	case E_SNAP_SENT:
		raft_snapshot_sent(n->r, local(s, n), e->a, e->b, e->ok);
		take(s, n);
		break;
	}
}

static struct node *
leader(struct sim *s)
{
	struct node *best = NULL;

	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &s->nodes[i];

		if (n->r != NULL && raft_role(n->r) == RAFT_LEADER &&
		    (best == NULL || raft_term(n->r) > raft_term(best->r)))
			best = n;
	}
	return best;
}

static void
propose(struct sim *s, struct node *n)
{
	struct raft_entry e[3];
	uint64_t values[3], first;
	unsigned k = 1 + (unsigned)rand_below(&s->rand, 3);

	if (n->mem.last + 200 > LOG_MAX)
		return;
	for (unsigned i = 0; i < k; i++) {
		values[i] = ++s->value;
		e[i] = (struct raft_entry){ .len = 8, .payload = &values[i] };
	}
	if (raft_propose(n->r, local(s, n), e, k, &first) == 0)
		MUST(first == n->mem.last + 1);
	take(s, n);
}

static void
read_at(struct sim *s, struct node *n)
{
	struct rd *x = &n->reads[n->reads_n];
	bool lease = rand_chance(&s->rand, 1, 2);

	if (n->reads_n == READS)
		return;
	x->need = s->seen;
	raft_read(n->r, local(s, n), lease, &x->ticket, &x->index);
	MUST(x->ticket != 0 || lease);
	if (x->ticket == 0) {
		seen.leases++;
		MUST(x->index >= x->need);
	}
	n->reads_n++;
	take(s, n);
}

static void
change(struct sim *s, struct node *n)
{
	struct raft_members to = *raft_members(n->r);
	uint64_t id = 1 + rand_below(&s->rand, NODES), index;
	struct raft_progress p;
	unsigned i, voters = 0;

	for (i = 0; i < to.n; i++)
		voters += to.m[i].voter;
	for (i = 0; i < to.n && to.m[i].id != id; i++)
		;
	if (i == to.n) {
		if (to.n >= 5)
			return;
		to.m[to.n++] = (struct raft_member){ .id = id };
	} else if (!to.m[i].voter) {
		if (!raft_progress(n->r, local(s, n), id, &p) ||
		    (!p.caught_up && rand_chance(&s->rand, 9, 10)))
			return;
		to.m[i].voter = true;
	} else {
		if (voters < 2 || rand_chance(&s->rand, 1, 2))
			return;
		if (rand_chance(&s->rand, 1, 8))
			to.m[i].voter = false;
		else
			to.m[i] = to.m[--to.n];
	}
	if (raft_change(n->r, local(s, n), &to, &index) == 0) {
		seen.changes++;
		MUST(n->r->commit >= n->r->noop);
	}
	take(s, n);
}

static void
fault(struct sim *s)
{
	struct node *n = &s->nodes[rand_below(&s->rand, NODES)];
	unsigned a = (unsigned)rand_below(&s->rand, NODES);
	unsigned b = (unsigned)rand_below(&s->rand, NODES);

	switch (rand_below(&s->rand, 10)) {
	case 8:
	case 9:
		if ((n = leader(s)) == NULL || n == &s->nodes[a] || s->second != 0)
			break;
		s->cut[n - s->nodes][a] = s->cut[a][n - s->nodes] = true;
		s->second = s->now + T + rand_below(&s->rand, T);
		s->rival = a;
		break;
	case 0:
		if (n->r != NULL)
			crash(s, n);
		if (n->r == NULL && rand_chance(&s->rand, 1, 2))
			open_node(s, n);
		break;
	case 1:
	case 2:
		if (n->r == NULL)
			open_node(s, n);
		break;
	case 3:
		s->cut[a][b] = a != b;
		break;
	case 4:
		memset(s->cut, 0, sizeof(s->cut));
		break;
	case 5:
		n->paused_until = s->now + rand_below(&s->rand, 3 * T);
		break;
	case 6:
		n->slow_until = s->now + rand_below(&s->rand, 4 * T);
		break;
	case 7:				/* the leader, cut off from all others */
		if ((n = leader(s)) != NULL)
			for (a = 0; a < NODES; a++)
				if (&s->nodes[a] != n) {
					s->cut[a][n - s->nodes] = true;
					s->cut[n - s->nodes][a] |=
					    rand_chance(&s->rand, 3, 4);
				}
		break;
	}
}

/* One has missed the leader for long and asks for votes; now the leader, which holds its
 * lease, loses the others too, and these may start again: then they do not know that they
 * have heard it. */
static void
tempt(struct sim *s)
{
	struct node *l = leader(s);
	bool again = rand_chance(&s->rand, 1, 2);

	s->second = 0;
	memset(s->cut, 0, sizeof(s->cut));
	if (l == NULL || l == &s->nodes[s->rival])
		return;
	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &s->nodes[i];

		if (n == l)
			continue;
		s->cut[l - s->nodes][i] = s->cut[i][l - s->nodes] = true;
		if (i != s->rival && again && n->r != NULL) {
			crash(s, n);
			open_node(s, n);
		}
	}
}

static void
load(struct sim *s)
{
	struct node *n = &s->nodes[rand_below(&s->rand, NODES)];
	struct node *l = leader(s);
	uint64_t dice = rand_below(&s->rand, 100);

	if (s->second != 0 && s->now >= s->second)
		tempt(s);
	if (n->r == NULL || n->paused_until > s->now)
		n = l;
	if (n == NULL || n->paused_until > s->now)
		return;
	if (dice < 30)
		propose(s, l != NULL && l->paused_until <= s->now ? l : n);
	else if (dice < 70)
		read_at(s, n);
	else if (dice < 78)
		flush(s, n);
	else if (dice < 90 && raft_role(n->r) == RAFT_LEADER)
		change(s, n);
	else if (dice < 92 && l != NULL && l->paused_until <= s->now) {
		seen.transfers += raft_transfer(l->r, local(s, l), 0) == 0;
		take(s, l);
	} else if (dice < 93)
		fault(s);
}

/* Events up to @until, with something happening in between. */
static void
run_until(struct sim *s, uint64_t until, uint64_t every)
{
	uint64_t next = s->now + every;

	while (s->now < until) {
		struct event *e;

		if (s->heap_n == 0 || s->heap[0]->at > next) {
			s->now = next;
			next = s->now + 1 + rand_below(&s->rand, 2 * every);
			if (s->calm) {
				struct node *l = leader(s);

				if (l != NULL)
					propose(s, l);
				for (unsigned i = 0; i < NODES; i++)
					if (s->nodes[i].r != NULL)
						read_at(s, &s->nodes[i]);
			} else
				load(s);
			continue;
		}
		e = pop(s);
		if (!s->calm && s->nodes[e->node].paused_until > e->at) {
			struct event *later = event(s, &s->nodes[e->node], e->what,
			    s->nodes[e->node].paused_until - s->now);
			uint64_t at = later->at, order = later->order;
			*later = *e;
			later->at = at;
			later->order = order;
		} else
			run_event(s, e);
		s->pool[s->pool_n++] = e;
	}
}

static bool
settled(struct sim *s, uint64_t upto)
{
	struct node *l = leader(s);
	const struct raft_members *m;

	if (l == NULL || !raft_lease(l->r, local(s, l)) || s->commit_n < upto ||
	    !raft_members_settled(l->r))
		return false;
	m = raft_members(l->r);
	for (unsigned i = 0; i < m->n; i++) {
		struct node *n = by_id(s, m->m[i].id);

		if (n->mem.table.at.index < upto || n->read_served == 0)
			return false;
		MUST(n->mem.table.hash == s->commit_hash[n->mem.table.at.index]);
	}
	return true;
}

static void
describe(const struct sim *s)
{
	for (unsigned i = 0; i < NODES; i++) {
		const struct node *n = &s->nodes[i];
		const struct raft *r = n->r;

		fprintf(stderr, "node %" PRIu64 ": role %d term %" PRIu64 " leader %" PRIu64
		    " log %" PRIu64 "..%" PRIu64 " durable %" PRIu64 " commit %" PRIu64
		    " applied %" PRIu64 " reads %" PRIu64 "%s, members at %" PRIu64 ":",
		    n->id, r->role, r->term, r->leader, r->base_index, r->last,
		    r->durable, r->commit, n->mem.table.at.index, n->read_served,
		    r->restoring ? " restoring" : "", r->cur.index);
		for (unsigned j = 0; j < r->cur.n; j++)
			fprintf(stderr, " %" PRIu64 "%s", r->cur.m[j].id,
			    r->cur.m[j].voter ? "" : "?");
		fprintf(stderr, "\n");
	}
}

static void
heal(struct sim *s)
{
	uint64_t upto;

	s->calm = true;
	memset(s->cut, 0, sizeof(s->cut));
	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &s->nodes[i];

		if (n->r == NULL)
			open_node(s, n);
		n->read_served = 0;
	}
	upto = s->commit_n + 3;
	for (unsigned i = 0; !settled(s, upto); i++) {
		if (i == 60)
			describe(s);
		MUST(i < 60);
		run_until(s, s->now + T / 2, T / 8);
	}
}

static uint64_t
run(uint64_t seed)
{
	static struct sim *s;
	struct raft_members first = { .n = 1 };
	uint64_t trace;

	running = seed;
	if (s == NULL)
		s = malloc(sizeof(*s));
	MUST(s != NULL);
	memset(s, 0, sizeof(*s));
	rand_seed(&s->rand, seed);
	rand_seed(&s->raft_rand, seed ^ 0x5eed);
	s->now = MS;
	s->loss = (unsigned)rand_below(&s->rand, 120);
	s->delay_max = MS + rand_below(&s->rand, 20 * MS);
	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &s->nodes[i];

		n->id = i + 1;
		n->rate_ppm = 950000 + rand_below(&s->rand, 100001);
		n->skew = rand_below(&s->rand, 1000 * T);
	}
	/* Founders alone, as a rule; or a group that has been there for long. */
	if (rand_chance(&s->rand, 4, 5))
		first.n = 1 + (unsigned)rand_below(&s->rand, 5);
	for (unsigned i = 0; i < first.n; i++)
		first.m[i] = (struct raft_member){ .id = i + 1, .voter = true };
	s->conf_len[0] = (uint32_t)raft_members_encode(&first, s->confs[0]);
	s->confs_n = 1;
	for (unsigned i = 0; i < first.n; i++) {
		s->nodes[i].disk.ent[1] = (struct ent){ .term = 1, .type = RAFT_MEMBERS };
		s->nodes[i].disk.last = 1;
	}
	s->chains[1][0].term = 1;
	s->chains[1][0].chain = mix(mix(mix(0, 1), 0), RAFT_MEMBERS) | 1;
	for (unsigned i = 0; i < NODES; i++)
		open_node(s, &s->nodes[i]);
	run_until(s, s->now + 40 * T, T / 40);
	heal(s);
	trace = s->trace;
	for (unsigned i = 0; i < NODES; i++)
		raft_close(s->nodes[i].r);
	while (s->heap_n > 0)
		free(s->heap[--s->heap_n]);
	while (s->pool_n > 0)
		free(s->pool[--s->pool_n]);
	return trace;
}

static void
share(const void *ctx, unsigned i, unsigned jobs)
{
	uint64_t n = *(const uint64_t *)ctx;

	for (uint64_t seed = i + 1; seed <= n; seed += jobs)
		run(seed);
	if (n > 200 + i) {		/* the faults are really there */
		MUST(seen.leaders > 100);
		MUST(seen.commits > 1000);
		MUST(seen.leases > 100);
		MUST(seen.restores > 20);
		MUST(seen.changes > 50);
		MUST(seen.transfers > 20);
		MUST(seen.cuts > 10);
	}
	if (i == 0 && getenv("VERBOSE") != NULL)
		fprintf(stderr, "leaders %" PRIu64 " commits %" PRIu64 " reads %" PRIu64
		    " leases %" PRIu64 " restores %" PRIu64 " changes %" PRIu64
		    " transfers %" PRIu64 " crashes %" PRIu64 " cuts %" PRIu64 "\n",
		    seen.leaders, seen.commits, seen.reads, seen.leases, seen.restores,
		    seen.changes, seen.transfers, seen.crashes, seen.cuts);
}

START_TEST(any_seed)
{
	uint64_t one = number("SEED", 0), n = number("N", 2000);

	if (one != 0) {
		signal(SIGABRT, died);
		printf("seed %" PRIu64 ": trace %016" PRIx64 "\n", one, run(one));
		return;
	}
	seeds_run(n, share, &n);
}
END_TEST

START_TEST(same_seed_same_trace)
{
	for (uint64_t seed = 1; seed <= 5; seed++)
		ck_assert_uint_eq(run(seed), run(seed));
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("raft_sim");
	TCase *tc = tcase_create("groups");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 0);
	if (number("SEED", 0) == 0)
		tcase_add_test(tc, same_seed_same_trace);
	tcase_add_test(tc, any_seed);
	suite_add_tcase(suite, tc);
	sr = srunner_create(suite);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
