/* SPDX-License-Identifier: MIT */
/* manager_form.c - make chains of free slots, some time after the last new disk came, so
 * that a cluster that is being switched on is seen whole. */
#include "roles/manager_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "conf/err.h"

#define RETRY_MS 1000u

static void form_due(struct clock_timer *t);

static void
start(struct manager *m, uint64_t wait_ms)
{
	clock_timer_start(m->env.clock, &m->form_timer,
	    clock_fresh(m->env.clock) + wait_ms * NS_PER_MS, form_due);
}

void
manager_form_poke(struct manager *m)
{
	bool grown = m->state.target_n != m->form_targets;

	m->form_targets = m->state.target_n;
	if (m->phase == MANAGER_SERVING && (grown || m->form_timer.pos == 0))
		start(m, m->env.conf->manager_form_delay);
}

void
manager_form_stop(struct manager *m)
{
	clock_timer_stop(m->env.clock, &m->form_timer);
}

/* Free slots of disks that work on nodes that are up, in order. */
static size_t
slots(const struct manager *m, struct manager_slot *out)
{
	const struct manager_state *s = &m->state;
	const struct routing_node *row;
	uint32_t disk = 0;
	size_t n = 0;

	for (unsigned i = 0; (row = routing_node_at(s->routing, i)) != NULL; i++) {
		const struct manager_node *node = map_get(&s->nodes, row->id);

		if (row->state != NODE_UP || !(row->roles & NODE_STORAGE))
			continue;
		list_for_each(it, &node->disks) {
			const struct manager_disk *d = list_entry(it,
			    struct manager_disk, node_link);
			uint32_t used = 0;

			disk++;
			for (uint32_t k = 0; k < d->target_n; k++)
				used += routing_target(s->routing,
				    d->targets[k])->chain != 0;
			for (uint32_t k = 0; k < d->target_n &&
			    d->health == DISK_WORKS && used < d->slots; k++) {
				if (routing_target(s->routing,
				    d->targets[k])->chain != 0)
					continue;
				out[n++] = (struct manager_slot){ .node = row->id,
					.disk = disk, .target = d->targets[k] };
				used++;
			}
		}
	}
	return n;
}

static size_t
chains(const struct manager_state *s, struct manager_place_nodes *out)
{
	const struct routing_chain *c;
	size_t n = 0;

	for (; (c = routing_chain_at(s->routing, (unsigned)n)) != NULL; n++) {
		out[n].n = c->target_n;
		for (uint32_t i = 0; i < c->target_n; i++)
			out[n].nodes[i] = routing_target(s->routing,
			    c->targets[i])->node;
	}
	return n;
}

static void form(struct manager *m);

static void
formed(struct manager_call *c, int rc, uint64_t value)
{
	struct manager *m = c->m;

	(void)value;
	m->forming = false;
	if (m->phase != MANAGER_SERVING)
		return;
	if (rc == 0) {
		log_info(&m->env.log, "chains made", "chains=%u routing=%" PRIu64,
		    m->state.chain_n, routing_version(m->state.routing));
		form(m);		/* more, or nothing */
	} else
		start(m, RETRY_MS);
}

static int
propose(struct manager *m, bool publish, const struct manager_plan *plan,
    size_t n)
{
	struct bytes_writer w;
	uint8_t *buf = malloc(GROUP_CMD_MAX);
	int rc;

	if (buf == NULL)
		return -ENOMEM;
	bytes_writer_init(&w, buf, GROUP_CMD_MAX);
	manager_cmd_form(&w, publish, (unsigned)m->env.conf->cluster_replicas, plan,
	    n);
	rc = manager_propose(m, NULL, 0, &w, formed);
	free(buf);
	m->forming = rc == 0;
	return rc;
}

/* Plan from what is applied now; the command is refused should that have changed. */
static void
form(struct manager *m)
{
	const struct manager_state *s = &m->state;
	const struct routing_table *t = routing_table(s->routing, MANAGER_TABLE, 0);
	struct manager_slot *slot = calloc(s->target_n + 1u, sizeof(*slot));
	struct manager_place_nodes *exist = calloc(s->chain_n + 1u, sizeof(*exist));
	struct manager_plan *plan = calloc(MANAGER_FORM_MAX, sizeof(*plan));
	size_t max = MANAGER_CHAINS_MAX - s->chain_n, n = 0;
	bool more = false, unlisted = s->chain_n > (t == NULL ? 0 : t->chain_n);
	int rc = -ENOMEM;

	if (max > MANAGER_FORM_MAX)
		max = MANAGER_FORM_MAX;
	if (slot != NULL && exist != NULL && plan != NULL)
		rc = manager_place(slot, slots(m, slot), exist,
		    chains(s, exist),
		    (unsigned)m->env.conf->cluster_replicas, plan, max, &n, &more);
	if (rc == 0 && (n > 0 || unlisted))
		rc = propose(m, !more || s->chain_n + n == MANAGER_CHAINS_MAX, plan,
		    n);
	free(slot);
	free(exist);
	free(plan);
	if (rc != 0)
		start(m, RETRY_MS);
}

static void
form_due(struct clock_timer *t)
{
	struct manager *m = container_of(t, struct manager, form_timer);

	if (!m->forming)
		form(m);		/* otherwise formed() looks again */
}
