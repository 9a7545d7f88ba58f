/* SPDX-License-Identifier: MIT */
/* fault.c - what goes wrong during the load of a simulation.
 *
 * What is done stays within what is promised: whatever is durable stays on all servers, but
 * for one disk at a time that is replaced, one manager at a time that loses its data, and
 * the disks of one storage node that rot.  In such a seed nothing else takes a good replica
 * out of service, since the damaged one might be left alone. */
#include "tests/sim/sim_impl.h"

#include <assert.h>

#include "meta/group.h"
#include "roles/manager.h"
#include "roles/metadata.h"
#include "roles/storage.h"

/* May @n be stopped, cut off or slowed down in this seed? */
static bool
hits(const struct sim_node *n)
{
	const struct sim *s = n->s;

	return s->frail == SIM_NODES || n->id == s->frail || n->id >= SIM_CLIENT0 ||
	    (n->id >= SIM_METADATA0 && n->id < SIM_STORAGE0);
}

static struct sim_node *
pick(struct sim *s, unsigned ids)
{
	struct sim_node *n;

	do
		n = &s->nodes[rand_below(&s->rand, ids)];
	while (n->absent);
	return n;
}

/* ---- going and coming ---- */

static void
again(struct clock_timer *t)
{
	struct sim_node *n = container_of(t, struct sim_node, again);

	if (n->gone || n->absent || n->stopping)
		return;
	if (!n->up)
		sim_boot(n);
	else if (n->paused) {
		n->paused = false;
		sim_clock_node_pause(n->clock, false);
		sim_trace_line(n->s, n->env.log.who, "goes on", "");
	}
}

static void
later(struct sim_node *n, uint64_t ms)
{
	struct clock *w = sim_clock(n->s);

	if (!n->held)
		clock_timer_start(w, &n->again, clock_now(w) + ms * NS_PER_MS +
		    rand_below(&n->s->rand, NS_PER_MS), again);
}

static uint64_t
down_ms(struct sim *s)
{
	return rand_chance(&s->rand, 1, 3) ? 200 : rand_chance(&s->rand, 1, 8) ? 12000 :
	    2000;
}

void
sim_fault_crash(struct sim_node *n, bool power, uint64_t ms)
{
	if (!n->up || !hits(n))
		return;
	sim_die(n, power);
	later(n, ms);
}

static void
crash(struct sim_node *n)
{
	struct rand *r = &n->s->rand;

	sim_fault_crash(n, rand_chance(r, 1, 2), rand_below(r, down_ms(n->s)));
}

static void
blown(struct clock_timer *t)
{
	struct sim_node *n = container_of(t, struct sim_node, blow);

	if (n->fuse_down_ms > 0)
		sim_fault_crash(n, n->fuse_power, n->fuse_down_ms);
	else
		crash(n);
}

void
sim_fault_tick(struct sim_node *n)
{
	struct clock *w = sim_clock(n->s);

	if (n->fuse > 0 && --n->fuse == 0)
		clock_timer_start(w, &n->blow, clock_now(w), blown);
}

void
sim_fault_die(struct sim_node *n)
{
	struct clock *w = sim_clock(n->s);

	clock_timer_start(w, &n->blow, clock_now(w), blown);
}

void
sim_fault_fuse(struct sim_node *n, unsigned ticks, bool power, uint64_t down_ms)
{
	if (!n->up || !hits(n))
		return;
	n->fuse_power = power;
	n->fuse_down_ms = down_ms;
	if (ticks == 0)
		sim_fault_die(n);
	else
		n->fuse = ticks;
}

static void
light_fuse(struct sim *s)
{
	struct sim_node *n = pick(s, SIM_CLIENT0);

	if (n->up && n->fuse == 0)
		sim_fault_fuse(n, 1 + (unsigned)rand_below(&s->rand, 60), false, 0);
}

/* All servers at once, or some. */
static void
power_cut(struct sim *s)
{
	bool all = rand_chance(&s->rand, 1, 2);

	for (unsigned i = 0; i < SIM_CLIENT0; i++) {
		struct sim_node *n = &s->nodes[i];

		if (!sim_serves(n) || !hits(n) || (!all && rand_chance(&s->rand, 1, 2)))
			continue;
		if (n->up)
			sim_die(n, true);
		later(n, rand_below(&s->rand, 1500));
	}
}

void
sim_fault_pause(struct sim_node *n, uint64_t ms)
{
	if (!n->up || n->paused || n->stopping || !hits(n))
		return;
	n->paused = true;
	sim_clock_node_pause(n->clock, true);
	sim_trace_line(n->s, n->env.log.who, "pauses", "");
	later(n, ms);
}

static void
pause_node(struct sim_node *n)
{
	struct rand *r = &n->s->rand;

	sim_fault_pause(n, 1 + rand_below(r, rand_chance(r, 1, 4) ?
	    rand_chance(r, 1, 4) ? 30000 : 7000 : 2000));
}

/* ---- a clean stop ---- */

static void
left(struct clock_timer *t)
{
	struct sim_node *n = container_of(t, struct sim_node, leave);

	sim_die(n, false);
	later(n, rand_below(&n->s->rand, 1000));
	if (n->s->healing)
		again(&n->again);
}

static void
stopped(void *ctx, int rc)
{
	struct sim_node *n = ctx;
	struct clock *w = sim_clock(n->s);

	sim_trace(n->s, "node %u has stopped: %d", n->id, rc);
	clock_timer_start(w, &n->leave, clock_now(w), left);
}

static void
stop_node(struct sim_node *n)
{
	if (!n->up || n->paused || n->stopping || !n->ready || !hits(n))
		return;
	sim_trace_line(n->s, n->env.log.who, "is stopped", "");
	n->stopping = true;
	if (n->id < SIM_METADATA0)
		manager_stop(n->manager, stopped, n);
	else if (n->id < SIM_STORAGE0)
		metadata_stop(n->metadata, stopped, n);
	else
		storage_stop(n->storage, stopped, n);
}

/* One server after the other, each once the one before is back. */
static void
roll(struct clock_timer *t)
{
	struct sim *s = container_of(t, struct sim, roll);
	struct clock *w = sim_clock(s);
	const struct sim_node *last = &s->nodes[s->roll_at - 1];

	if (last->up && last->ready && !last->stopping) {
		while (++s->roll_at <= SIM_CLIENT0 && !sim_serves(&s->nodes[s->roll_at - 1]))
			;
		if (s->roll_at > SIM_CLIENT0) {
			s->roll_at = 0;
			return;
		}
		stop_node(&s->nodes[s->roll_at - 1]);
	}
	clock_timer_start(w, t, clock_now(w) + 100 * NS_PER_MS, roll);
}

static void
stop_some(struct sim *s)
{
	struct clock *w = sim_clock(s);

	if (rand_chance(&s->rand, 3, 4) || s->roll_at != 0) {
		stop_node(pick(s, SIM_CLIENT0));
		return;
	}
	s->roll_at = 1;
	sim_trace(s, "rolling restart");
	stop_node(&s->nodes[0]);
	clock_timer_start(w, &s->roll, clock_now(w) + 100 * NS_PER_MS, roll);
}

/* ---- disks ---- */

void
sim_fault_speed(struct sim_node *n, unsigned times)
{
	struct sim_disk_conf *c = sim_box_conf(n->box);

	c->read_max_ns = c->read_min_ns * times;
	c->write_max_ns = c->write_min_ns * times;
	c->sync_max_ns = c->sync_min_ns * times;
	c->table.write_max_ns = c->table.write_min_ns * times;
}

static void
disk_mended(struct clock_timer *t)
{
	struct sim *s = container_of(t, struct sim, mend_disk);

	sim_fault_speed(&s->nodes[s->slow_box], 1);
}

/* For a while a disk takes up to some hundred times as long. */
static void
slow_disk(struct sim *s)
{
	struct clock *w = sim_clock(s);

	if (s->mend_disk.pos != 0)
		return;
	s->slow_box = pick(s, SIM_CLIENT0)->id;
	sim_fault_speed(&s->nodes[s->slow_box], 10u << rand_below(&s->rand, 7));
	sim_trace(s, "disk of node %u is slow", s->slow_box);
	clock_timer_start(w, &s->mend_disk, clock_now(w) +
	    rand_below(&s->rand, 3 * NS_PER_S), disk_mended);
}

/* One of the frail disks gets another disease, or none. */
static void
rot(struct sim *s)
{
	struct sim_node *n = &s->nodes[s->frail];
	char path[] = "/disk0";
	struct sim_disk_faults *f;
	uint32_t ppm = (uint32_t)rand_below(&s->rand, 200000);

	path[5] = (char)('0' + rand_below(&s->rand, n->disk_n));
	f = sim_disk_faults(n->box, path);
	f->flip_ppm = f->read_eio_ppm = f->write_eio_ppm = f->sync_eio_ppm = 0;
	f->lost_ppm = f->astray_ppm = 0;
	f->dead = false;
	f->from = 1 << 20;		/* without its label it would be another disk */
	f->to = UINT64_MAX;
	switch (rand_below(&s->rand, 8)) {
	case 0:
		f->flip_ppm = ppm;
		break;
	case 1:
		f->read_eio_ppm = ppm;
		break;
	case 2:
		f->write_eio_ppm = ppm / 10;
		break;
	case 3:
		f->sync_eio_ppm = ppm / 10;
		break;
	case 4:
		f->lost_ppm = ppm;
		break;
	case 5:
		f->astray_ppm = ppm;
		break;
	case 6:
		f->dead = true;
		break;
	default:		/* as after a restart with a disk that works */
		crash(n);
		break;
	}
	sim_trace(s, "node %u %s: flip %u read %u write %u sync %u lost %u astray %u dead %d",
	    n->id, path, f->flip_ppm, f->read_eio_ppm, f->write_eio_ppm, f->sync_eio_ppm,
	    f->lost_ppm, f->astray_ppm, f->dead);
}

/* ---- the network ---- */

static void
path_set(struct sim_cut *c, enum sim_net_path how)
{
	sim_net_path(c->s->net, c->from, c->to, how);
	sim_trace(c->s, "path %u-%u %s", c->from, c->to, how == SIM_NET_CLEAR ? "mended" :
	    how == SIM_NET_SILENT ? "silent" : "resets");
}

static void
mended(struct clock_timer *t)
{
	struct sim_cut *c = container_of(t, struct sim_cut, mend);
	struct clock *w = sim_clock(c->s);

	c->clear = !c->clear;
	path_set(c, c->clear ? SIM_NET_CLEAR : c->how);
	if (!c->clear || c->flaps > 0) {
		c->flaps -= c->clear;
		clock_timer_start(w, &c->mend, clock_now(w) + 1 +
		    rand_below(&c->s->rand, 400 * NS_PER_MS), mended);
	}
}

/* One path swallows everything or breaks streams for a while. */
static void
cut_path(struct sim *s, unsigned from, unsigned to, enum sim_net_path how, uint64_t ns,
    unsigned flaps)
{
	struct sim_cut *c = &s->cuts[s->cut_at++ % SIM_CUTS_MAX];
	struct clock *w = sim_clock(s);

	if (from == to || c->mend.pos != 0)
		return;			/* still one from before */
	*c = (struct sim_cut){ .s = s, .from = from, .to = to, .how = how, .flaps = flaps };
	path_set(c, how);
	clock_timer_start(w, &c->mend, clock_now(w) + ns, mended);
}

void
sim_fault_cut(struct sim *s, unsigned from, unsigned to, enum sim_net_path how, uint64_t ns)
{
	cut_path(s, from, to, how, ns, 0);
}

static enum sim_net_path
some_way(struct sim *s)
{
	return rand_chance(&s->rand, 2, 3) ? SIM_NET_SILENT : SIM_NET_RESET;
}

/* From, to, or from and to all others. */
static void
isolate(struct sim_node *n)
{
	struct sim *s = n->s;
	enum sim_net_path how = some_way(s);
	uint64_t ns = 1 + rand_below(&s->rand, 4 * NS_PER_S);
	unsigned ways = 1 + (unsigned)rand_below(&s->rand, 3);

	if (!hits(n))
		return;
	sim_trace(s, "node %u alone", n->id);
	for (unsigned i = 0; i < SIM_NODES; i++) {
		if (s->nodes[i].absent)
			continue;
		if (ways & 1)
			cut_path(s, n->id, i, how, ns, 0);
		if (ways & 2)
			cut_path(s, i, n->id, how, ns, 0);
	}
}

/* Two islands: a few nodes of any kind reach each other, and none of the others. */
static void
split(struct sim *s)
{
	uint64_t ns = 1 + rand_below(&s->rand, 4 * NS_PER_S);
	unsigned odds = 2 + (unsigned)rand_below(&s->rand, 4);
	enum sim_net_path how = some_way(s);
	bool there[SIM_NODES];

	for (unsigned i = 0; i < SIM_NODES; i++)
		there[i] = rand_chance(&s->rand, 1, odds);
	for (unsigned i = 0; i < SIM_NODES; i++)
		for (unsigned j = 0; j < SIM_NODES; j++)
			if (there[i] != there[j] && !s->nodes[i].absent &&
			    !s->nodes[j].absent)
				cut_path(s, i, j, how, ns, 0);
}

static void
cut_some(struct sim *s, unsigned flaps)
{
	struct sim_node *a = pick(s, SIM_NODES), *b = pick(s, SIM_NODES);
	bool both = rand_chance(&s->rand, 1, 2);
	enum sim_net_path how = some_way(s);
	uint64_t ns = 1 + rand_below(&s->rand, flaps > 0 ? 400 * NS_PER_MS :
	    2500 * NS_PER_MS);

	if (flaps == 0 && rand_chance(&s->rand, 1, 3)) {
		isolate(a);
		return;
	}
	if (flaps == 0 && rand_chance(&s->rand, 1, 2) && s->frail == SIM_NODES) {
		split(s);
		return;
	}
	if (a == b || (!hits(a) && !hits(b)))
		return;
	cut_path(s, a->id, b->id, how, ns, flaps);
	if (both)
		cut_path(s, b->id, a->id, how, ns, flaps);
}

/* ---- who leads ---- */

static void
hit_leader(struct sim *s)
{
	bool manager = rand_chance(&s->rand, 1, 2);
	struct sim_node *n = NULL;
	struct group *g = NULL;

	for (unsigned i = manager ? SIM_MANAGER0 : SIM_METADATA0;
	    i < (manager ? SIM_METADATA0 : SIM_STORAGE0); i++) {
		if (!s->nodes[i].up)
			continue;
		g = manager ? manager_group(s->nodes[i].manager) :
		    metadata_group(s->nodes[i].metadata);
		if (group_leads(g)) {
			n = &s->nodes[i];
			break;
		}
	}
	if (n == NULL || !hits(n))
		return;
	switch (rand_below(&s->rand, 5)) {
	case 0:
		crash(n);
		break;
	case 1:
		pause_node(n);
		break;
	case 2:
		stop_node(n);
		break;
	case 3:
		if (!n->paused && !n->stopping)
			sim_trace(s, "node %u hands over: %d", n->id, group_transfer(g));
		break;
	default:
		isolate(n);
		break;
	}
}

static void
client_death(struct sim *s)
{
	unsigned i = SIM_CLIENTS - 1;
	struct sim_node *n = &s->nodes[SIM_CLIENT0 + i];

	if (!n->up || !n->ready || s->load == NULL || !rand_chance(&s->rand, 1, 4))
		return;
	load_client_died(s->load, i);
	sim_die(n, true);
	n->gone = true;
}

/* A metadata node that was not there yet. */
static void
arrive(struct sim *s)
{
	for (unsigned i = SIM_METADATA0; s->metadata_late > 0 && i < SIM_STORAGE0; i++)
		if (s->nodes[i].absent) {
			s->metadata_late--;
			s->nodes[i].absent = false;
			sim_boot(&s->nodes[i]);
			return;
		}
}

/* ---- all of them ---- */

static void
fault(struct clock_timer *t)
{
	struct sim *s = container_of(t, struct sim, fault);
	unsigned kind = 1u << rand_below(&s->rand, 18);
	struct clock *w = sim_clock(s);

	if (rand_chance(&s->rand, 1, 12))
		arrive(s);
	switch (kind & s->faults) {
	case SIM_CUTS:
		cut_some(s, 0);
		break;
	case SIM_FLAPS:
		cut_some(s, 1 + (unsigned)rand_below(&s->rand, 12));
		break;
	case SIM_CRASHES:
		crash(pick(s, SIM_CLIENT0));
		break;
	case SIM_POWER:
		power_cut(s);
		break;
	case SIM_PAUSES:
		pause_node(pick(s, SIM_NODES));
		break;
	case SIM_CLIENT_DEATH:
		client_death(s);
		break;
	case SIM_FUSES:
		light_fuse(s);
		break;
	case SIM_SLOW_DISKS:
		if (s->frail == SIM_NODES)
			slow_disk(s);
		break;
	case SIM_STOPS:
		stop_some(s);
		break;
	case SIM_LEADERS:
		hit_leader(s);
		break;
	case SIM_DISKS_NEW:
		if (rand_chance(&s->rand, 1, 2))
			sim_admin_move(s);
		else
			sim_admin_disk(s);
		break;
	case SIM_MEMBERS:
		if (rand_chance(&s->rand, 1, 2))
			sim_admin_metadata(s);
		else
			sim_admin_manager(s);
		break;
	case SIM_ROT:
		rot(s);
		break;
	default:
		break;
	}
	clock_timer_start(w, &s->fault, clock_now(w) + 1 +
	    rand_below(&s->rand, s->fault_ns), fault);
}

void
sim_faults_start(struct sim *s)
{
	struct clock *w = sim_clock(s);

	if ((s->faults & SIM_SLOW_DISKS) && s->frail == SIM_NODES)
		for (unsigned i = 0; i < SIM_CLIENT0; i++)
			sim_fault_speed(&s->nodes[i], 1 +
			    (unsigned)rand_below(&s->rand, 20));
	clock_timer_start(w, &s->fault, clock_now(w) + rand_below(&s->rand,
	    500 * NS_PER_MS), fault);
	sim_plot_start(s);
}

void
sim_faults_stop(struct sim *s)
{
	struct clock *w = sim_clock(s);

	clock_timer_stop(w, &s->fault);
	clock_timer_stop(w, &s->mend_disk);
	clock_timer_stop(w, &s->roll);
	sim_plot_stop(s);
	for (unsigned i = 0; i < SIM_CUTS_MAX; i++)
		clock_timer_stop(w, &s->cuts[i].mend);
	while (s->metadata_late > 0)
		arrive(s);
	for (unsigned i = 0; i < SIM_NODES; i++) {
		struct sim_node *n = &s->nodes[i];

		clock_timer_stop(w, &n->again);
		clock_timer_stop(w, &n->blow);
		n->fuse = 0;
		if (n->box != NULL)
			sim_fault_speed(n, 1);
		if (i == s->frail) {
			for (unsigned k = 0; k < n->disk_n; k++) {
				char path[] = { '/', 'd', 'i', 's', 'k',
					(char)('0' + k), '\0' };

				*sim_disk_faults(n->box, path) =
				    (struct sim_disk_faults){ 0 };
			}
			if (n->up && !n->stopping)
				sim_die(n, false);	/* it tries its disks again */
		}
		if (!n->held)
			again(&n->again);
	}
}

void
sim_faults_close(struct sim *s)
{
	clock_timer_stop(sim_clock(s), &s->fault);
}
