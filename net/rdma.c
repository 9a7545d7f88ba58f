/* SPDX-License-Identifier: MIT */
/* rdma.c - the transport. */
#include "net/rdma_impl.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "conf/err.h"

STAT_DEFINE(net_rdma, NET_RDMA_STATS)

#define LOG_NS		(10 * NS_PER_S)

/* ---- what is said of it ---- */

/* Was it said a moment ago?  If not, it is now. */
static bool
was_said(struct rdma *r, const char *what)
{
	uint64_t now = clock_now(r->clock);
	unsigned n = sizeof(r->logged) / sizeof(r->logged[0]), at = n;

	for (unsigned i = 0; i < n && at == n; i++)
		if (r->logged[i].what == what)
			at = i;
	if (at < n && now - r->logged[at].ns < LOG_NS)
		return true;
	if (at == n)
		at = r->logged_at++ % n;
	r->logged[at].what = what;
	r->logged[at].ns = now;
	return false;
}

void
net_rdma_say_why(struct rdma *r, const char *what, const char *dev, const char *why)
{
	if (!was_said(r, what))
		log_warn(r->log, what, "device=%s why=\"%s\"", dev, why);
}

void
net_rdma_say(struct rdma *r, const char *what, const char *dev, int rc)
{
	if (!was_said(r, what))
		log_warn(r->log, what, "device=%s why=%s", dev, err_name(rc));
}

/* ---- the transport ---- */

void
net_rdma_release(struct rdma *r)
{
	if (--r->held > 0 || !r->closed)
		return;
	net_rdma_iw_close(r);
	net_rdma_devs_close(r);
	net_rdma_batches_free(r);
	free(r->mem);
	free(r);
}

/* Connections are made on TCP, and are handed over (net/rdma_cm.c). */
static bool
rdma_serves(const struct net_transport *t, uint8_t kind)
{
	(void)t;
	(void)kind;
	return false;
}

static void
rdma_close(struct net_transport *t)
{
	struct rdma *r = container_of(t, struct rdma, t);

	while (!list_empty(&r->lingering))
		net_rdma_linger_ends(list_entry(r->lingering.next, struct rdma_chan, linger));
	assert(r->open_n == 0 && r->mem_n == 0);
	clock_undefer(r->clock, &r->work);
	stat_remove(&r->stat_set);
	for (unsigned i = 0; i < r->ports_n; i++)
		stat_remove(&r->ports[i].stat_set);
	/* We may be in a callback of theirs: they are freed when that has returned. */
	for (unsigned i = 0; i < r->devs_n; i++)
		if (r->devs[i] != NULL)
			net_rdma_unwatch(r->devs[i]);
	clock_timer_stop(r->clock, &r->scan);
	clock_timer_stop(r->clock, &r->drop);
	loop_poll_stop(&r->cm_poll);
	r->closed = true;
	r->held++;
	net_rdma_release(r);
}

static const struct net_transport_ops rdma_ops = {
	.serves = rdma_serves, .mem_add = net_rdma_mem_add, .mem_del = net_rdma_mem_del,
	.close = rdma_close
};

bool
net_rdma_is(const struct net_transport *t)
{
	return t->ops == &rdma_ops;
}

bool
net_rdma_any(struct net_transport *t)
{
	struct rdma *r = container_of(t, struct rdma, t);

	net_rdma_rescan(r);
	for (unsigned i = 0; i < r->ports_n; i++)
		if (net_rdma_is_up(&r->ports[i]))
			return true;
	return false;
}

void
net_rdma_devices(const struct net_transport *t, char *out, size_t n)
{
	const struct rdma *r = (const struct rdma *)(const void *)t;
	size_t at = 0;

	*out = '\0';
	for (unsigned i = 0; i < r->ports_n && at < n; i++)
		if (r->ports[i].dev != NULL)
			at += (size_t)snprintf(out + at, n - at, "%s%s:%u",
			    at > 0 ? " " : "", r->ports[i].dev->name, r->ports[i].port);
}

void
net_rdma_traffic(const struct net_transport *t, struct net_rdma_port_stat *sum)
{
	const struct rdma *r = (const struct rdma *)(const void *)t;

	*sum = (struct net_rdma_port_stat){ 0 };
	for (unsigned i = 0; i < r->ports_n; i++)
		for (const struct stat_row *row = net_rdma_port_stat_rows;
		    row->name != NULL; row++)
			*(uint64_t *)(void *)((char *)sum + row->off) +=
			    *(const uint64_t *)(const void *)
			    ((const char *)&r->ports[i].stat + row->off);
}

/* Whoever mounts without being root forks, for fusermount(1): on kernels before 5.12 what we
 * write after that would not be what devices see. Before any other word to them. */
static void
allow_forks(void)
{
	(void)ibv_fork_init();
}

int
net_rdma_open(struct net_transport **out, struct loop *loop, const struct log *log,
    const struct net_rdma_conf *conf)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct rdma *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return -ENOMEM;
	pthread_once(&once, allow_forks);
	r->t.ops = &rdma_ops;
	r->loop = loop;
	r->clock = loop_clock(loop);
	r->log = log;
	r->conf = *conf;
	list_init(&r->dirty);
	list_init(&r->lingering);
	list_init(&r->batches);
	map_init(&r->tokens);
	net_rdma_devs_open(r);
	net_rdma_scan_start(r);
	stat_attach(conf->stats, &r->stat_set, "fsd_net_rdma",
	    log != NULL ? log->who : "", net_rdma_stat_rows, &r->stat);
	*out = &r->t;
	return 0;
}
