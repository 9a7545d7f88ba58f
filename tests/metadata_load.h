/* SPDX-License-Identifier: MIT */
/* metadata_load.h - clients that make, rename and remove while metadata nodes die, stop and
 * are cut off: part of test_metadata_group.c and test_metadata_repair.c.
 *
 * Each client works on names of its own, one change after another, and knows what every
 * answer has to be: a change done twice, or forgotten, is an answer that does not fit.  It
 * asks any node; so a read that a deposed leader answers shows as well. */

enum step { MAKE, SEE, MOVE, SEE_GONE, SEE_MOVED, DROP, SEE_DROPPED, STEPS };

struct worker {
	struct net_call	   call;
	struct clock_timer timer;
	unsigned	   n;		/* which client */
	enum step	   step;
	unsigned	   round;
	uint64_t	   done;	/* steps in all */
	char		   a[24], b[24];
	struct msg_ctx	   ctx;
	bool		   stop, failed;
	unsigned	   to;		/* that answered last, mostly */
};

static struct worker loads[CLIENTS];

static void load_try(struct worker *l);
static void load_send(struct worker *l);

static void
load_again(struct clock_timer *x)
{
	load_try(container_of(x, struct worker, timer));
}

static void
load_next(struct worker *l)
{
	bool changes = l->step == MAKE || l->step == MOVE || l->step == DROP;

	if (l->stop)
		return;
	snprintf(l->a, sizeof(l->a), "a%u.%u", l->n, l->round);
	snprintf(l->b, sizeof(l->b), "b%u.%u", l->n, l->round);
	/* Reads come from another client than the one that changes. */
	l->ctx = ctx(changes ? l->n : CLIENTS, false);
	if (changes) {
		l->ctx.seq = ++seqs[l->n];
		l->ctx.done = l->ctx.seq - 1;
	}
	load_try(l);
}

static void
load_answered(struct net_call *c, int rc)
{
	struct worker *l = container_of(c, struct worker, call);
	int want = l->step == SEE_GONE || l->step == SEE_DROPPED ? -ENOENT : 0;

	l->failed = !final(rc);
	if (l->failed) {
		clock_timer_start(t.hosts[ASKER].clock, &l->timer,
		    clock_now(t.hosts[ASKER].clock) + 5 * NS_PER_MS, load_again);
		return;
	}
	ck_assert_msg(rc == want, "client %u round %u step %d: %s, at %llu ms", l->n,
	    l->round, l->step, rc == 0 ? "done" : err_name(rc),
	    (unsigned long long)(sim_clock_now(t.world) / NS_PER_MS));
	l->done++;
	if (++l->step == STEPS) {
		l->step = MAKE;
		l->round++;
	}
	load_next(l);
}

static void
load_try(struct worker *l)
{
	if (l->to == 0 || l->failed || rand_below(&t.rand, 8) == 0)
		l->to = META + (unsigned)rand_below(&t.rand, METAS - 1);
	load_send(l);
}

static void
load_send(struct worker *l)
{
	struct msg_mknod make = { l->ctx, INO_ROOT, msg_str(l->a), 0755, 0 };
	struct msg_lookup see = { l->ctx, INO_ROOT, msg_str(l->step == SEE ||
	    l->step == SEE_GONE ? l->a : l->b) };
	struct msg_rename move = { l->ctx, INO_ROOT, msg_str(l->a), INO_ROOT,
		msg_str(l->b), 0 };
	struct msg_name drop = { l->ctx, INO_ROOT, msg_str(l->b) };
	struct net_addr to = at(l->to);
	struct net_call_opts o = { .deadline_ns = clock_now(t.hosts[ASKER].clock) +
		(1 + rand_below(&t.rand, 400)) * NS_PER_MS };
	uint16_t method = l->step == MAKE ? MSG_mkdir : l->step == MOVE ? MSG_rename :
	    l->step == DROP ? MSG_rmdir : MSG_lookup;
	const void *q = l->step == MAKE ? (void *)&make : l->step == MOVE ?
	    (void *)&move : l->step == DROP ? (void *)&drop : (void *)&see;
	int rc = net_call_start(&l->call, t.hosts[ASKER].hub, &to, method, q, &o,
	    load_answered);

	if (rc != 0)
		load_answered(&l->call, rc);
}

static void
loads_start(void)
{
	memset(loads, 0, sizeof(loads));
	for (unsigned i = 0; i < CLIENTS; i++) {
		loads[i].n = i;
		load_next(&loads[i]);
	}
}

static void
loads_stop(void)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		loads[i].stop = true;
	for (unsigned i = 0; i < CLIENTS; i++)
		while (net_call_active(&loads[i].call) || loads[i].timer.pos != 0)
			run_ms(10);
}

/* ---- faults ---- */

static unsigned
up_n(void)
{
	unsigned n = 0;

	for (unsigned i = META; i < META + 3; i++)
		n += t.hosts[i].up && !t.hosts[i].paused;
	return n;
}

static inline void
fault(void)
{
	unsigned id = META + (unsigned)rand_below(&t.rand, 3);
	struct host *h = &t.hosts[id];

	switch (rand_below(&t.rand, 10)) {
	case 0: case 1: case 2:
		if (h->up && up_n() > 1)
			die(id);
		break;
	case 3:
		if (h->up && !h->paused && up_n() > 1)
			pause_host(id, true);
		break;
	case 4:
		sim_net_cut(t.net, id, META + (unsigned)rand_below(&t.rand, 3),
		    rand_below(&t.rand, 2) ? SIM_NET_SILENT : SIM_NET_RESET);
		break;
	case 5:
		sim_net_path(t.net, id, META + (unsigned)rand_below(&t.rand, 3),
		    SIM_NET_SILENT);
		break;
	case 6:
		sim_net_heal(t.net);
		break;
	case 7:			/* everything loses power */
		if (rand_below(&t.rand, 4) == 0)
			for (unsigned i = META; i < META + 3; i++)
				die(i);
		break;
	case 8:
		if (h->up && !h->paused && h->metadata->leads)
			(void)group_transfer(h->metadata->group);
		break;
	default:
		break;
	}
	for (unsigned i = META; i < META + 3; i++) {
		h = &t.hosts[i];
		if (h->paused && rand_below(&t.rand, 4) == 0)
			pause_host(i, false);
		if (!h->up && rand_below(&t.rand, 3) == 0)
			boot(i);
	}
}

/* All that is in a table, but the group's own rows. */
static uint32_t
digest(unsigned id)
{
	struct table *tab = metadata_table(t.hosts[id].metadata);
	uint8_t key[TABLE_KEY_MAX] = { 1 };
	const void *k, *v;
	size_t n = 1, kn, vn;
	uint32_t crc = 0;

	for (bool after = false; table_seek(tab, key, n, after, 0, &k, &kn, &v,
	    &vn) == 0; after = true) {
		crc = crc32c(crc32c(crc, k, kn), v, vn);
		memcpy(key, k, n = kn);
	}
	return crc;
}

static void
all_equal(void)
{
	uint64_t applied[3];
	char why[256];
	int rc;

	for (unsigned i = 0; i < 100; i++) {
		for (unsigned k = 0; k < 3; k++)
			applied[k] = group_applied(t.hosts[META + k].metadata->group);
		if (applied[0] == applied[1] && applied[1] == applied[2])
			break;
		run_ms(100);
	}
	for (unsigned k = 0; k < 3; k++) {
		ck_assert_uint_eq(applied[k], applied[0]);
		rc = tree_check(metadata_table(t.hosts[META + k].metadata), why,
		    sizeof(why));
		ck_assert_msg(rc == 0, "host %u: %s", META + k, why);
		ck_assert_uint_eq(digest(META + k), digest(META));
	}
}
