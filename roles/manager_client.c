/* SPDX-License-Identifier: MIT */
/* manager_client.c - which clients there are; known only to the leader's memory, learnt
 * again after a restart. */
#include "roles/manager_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

#define MISSED 4u			/* beats, then a client is forgotten */

struct client {
	struct manager_uid u;
	struct list	lease;		/* manager.client_leases */
	uint64_t	since_ns, seen_ns, pid;
	char		host[65], mount[257], release[65];
};

static uint64_t
beat_ms(const struct manager *m)
{
	return m->env.conf->manager_lease < 1000 ? 1000 :
	    m->env.conf->manager_lease;
}

static void
forget(struct manager *m, struct client *c)
{
	manager_uid_del(&m->clients, &c->u);
	list_remove(&c->lease);
	m->client_n--;
	free(c);
}

static void client_due(struct clock_timer *t);

static void
arm(struct manager *m)
{
	struct client *c;

	if (list_empty(&m->client_leases) || m->client_timer.pos != 0)
		return;
	c = list_entry(m->client_leases.next, struct client, lease);
	clock_timer_start(m->env.clock, &m->client_timer, c->seen_ns +
	    MISSED * beat_ms(m) * NS_PER_MS, client_due);
}

static void
client_due(struct clock_timer *t)
{
	struct manager *m = container_of(t, struct manager, client_timer);
	uint64_t now = clock_fresh(m->env.clock);

	while (!list_empty(&m->client_leases)) {
		struct client *c = list_entry(m->client_leases.next, struct client,
		    lease);

		if (c->seen_ns + MISSED * beat_ms(m) * NS_PER_MS > now)
			break;
		log_info(&m->env.log, "client gone", "host=%s mount=%s", c->host,
		    c->mount);
		forget(m, c);
	}
	stat_set(&m->stat.clients, m->client_n);
	arm(m);
}

static void
drop(struct manager_uid *u)
{
	free(container_of(u, struct client, u));
}

void
manager_client_stop(struct manager *m)
{
	clock_timer_stop(m->env.clock, &m->client_timer);
	manager_uid_drop(&m->clients, drop);
	list_init(&m->client_leases);
	m->client_n = 0;
}

/* Longer texts are cut: they are for people. */
static void
keep(char *out, size_t size, const struct msg_str *s)
{
	size_t n = s->n < size ? s->n : size - 1;

	if (n > 0)
		memcpy(out, s->p, n);
	out[n] = '\0';
}

static struct client *
add(struct manager *m, const struct uid128 *uid)
{
	struct client *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->u.uid = *uid;
	c->since_ns = clock_fresh(m->env.clock);
	list_init(&c->lease);
	if (manager_uid_put(&m->clients, &c->u) != 0) {
		free(c);
		return NULL;
	}
	m->client_n++;
	return c;
}

static int
beat(struct manager *m, const struct msg_client_beat *q)
{
	struct client *c = manager_uid_get(&m->clients, &q->client);

	if (uid128_zero(&q->client))
		return -EINVAL;
	if (q->leaving) {
		if (c != NULL)
			forget(m, c);
		return 0;
	}
	if (c == NULL && m->client_n >= MANAGER_CLIENTS_MAX)
		return ERR_BUSY;
	if (c == NULL && (c = add(m, &q->client)) == NULL)
		return ERR_BUSY;
	c->seen_ns = clock_fresh(m->env.clock);
	c->pid = q->pid;
	keep(c->host, sizeof(c->host), &q->host);
	keep(c->mount, sizeof(c->mount), &q->mount);
	keep(c->release, sizeof(c->release), &q->release);
	list_remove(&c->lease);
	list_push_back(&m->client_leases, &c->lease);
	arm(m);
	return 0;
}

void
manager_client_beat(struct manager *m, struct net_req *req)
{
	struct msg_client_beat_rep rep = { .beat_ms = (uint32_t)beat_ms(m),
		.routing = routing_version(m->state.routing),
		.config_version = m->state.config_version };

	int rc = beat(m, req->msg);

	stat_add(&m->stat.client_beats, 1);
	stat_set(&m->stat.clients, m->client_n);
	net_reply(req, rc, rc == 0 ? &rep : NULL, NULL, 0, NULL, NULL);
}

static int
by_id(const void *a, const void *b)
{
	const struct client *const *x = a, *const *y = b;

	return memcmp(&(*x)->u.uid, &(*y)->u.uid, sizeof((*x)->u.uid));
}

/* In the order of ids, which does not change while one page after the other is asked for; cut
 * where it would be longer than a message may be. */
void
manager_client_list(struct manager *m, struct net_req *req)
{
	const struct msg_clients *q = req->msg;
	uint64_t now = clock_fresh(m->env.clock);
	struct msg_clients_rep rep = { 0 };
	struct client **all = calloc(m->client_n + 1u, sizeof(*all));
	size_t bytes = 0;
	uint32_t n = 0;

	rep.clients.v = calloc(m->client_n + 1u, sizeof(*rep.clients.v));
	if (all == NULL || rep.clients.v == NULL) {
		net_reply(req, ERR_BUSY, NULL, NULL, 0, NULL, NULL);
		goto out;
	}
	list_for_each(it, &m->client_leases) {
		struct client *c = list_entry(it, struct client, lease);

		if (memcmp(&c->u.uid, &q->after, sizeof(q->after)) > 0)
			all[n++] = c;
	}
	qsort(all, n, sizeof(*all), by_id);
	for (uint32_t i = 0; i < n && bytes < MANAGER_LIST_BYTES; i++) {
		const struct client *c = all[i];

		rep.clients.v[rep.clients.n++] = (struct msg_client_row){
			.client = c->u.uid, .host = msg_str(c->host),
			.mount = msg_str(c->mount), .pid = c->pid,
			.release = msg_str(c->release),
			.since_ms = (now - c->since_ns) / NS_PER_MS,
			.seen_ms = (now - c->seen_ns) / NS_PER_MS };
		bytes += 64 + strlen(c->host) + strlen(c->mount) +
		    strlen(c->release);
	}
	rep.left = n - rep.clients.n;
	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
out:
	free(all);
	free(rep.clients.v);
}
