/* SPDX-License-Identifier: MIT */
/* storage_care.c - the scrubber and the repair of each disk, among its worker's other work. */
#include <errno.h>
#include <inttypes.h>

#include "conf/err.h"
#include "roles/storage_impl.h"

#define REPAIR_NS	(10 * NS_PER_S)	/* for one attempt */

/* Clients come first, and so does a replica that comes back. */
static bool
busy(void *ctx)
{
	const struct storage_disk *d = ctx;
	const struct storage_worker *w = d->w;

	return !list_empty(&w->reads) || !list_empty(&w->ops) ||
	    d->storing_bytes > 0 || !storage_memory(w, 0, 2, 0);
}

static void
replaced(struct storage_op *op, int rc)
{
	storage_repair_ended(op->ctx, rc);
}

static int
replace(void *ctx, target_id target, struct chunk_id id, uint8_t shift,
    struct storage_repair_job *job)
{
	struct storage_disk *d = ctx;
	struct storage_worker *w = d->w;
	struct storage_target *t = map_get(&w->targets, target);
	struct storage_op *op;

	if (t == NULL || t->gone || t->v.serving_n < 2)
		return -ENODEV;
	if (w->stopping || !t->craq.serving || t->craq.syncing)
		return ERR_BUSY;	/* a resync makes it whole, or a later version */
	if (!storage_lease(w))
		return ERR_NO_LEASE;
	if ((op = storage_op_get(w, t)) == NULL)
		return -ENOMEM;
	op->done = replaced;
	op->ctx = job;
	op->shift = shift;
	op->craq.kind = CRAQ_REPAIR;
	op->craq.id = id;
	op->craq.chain_version = t->v.version;
	op->craq.deadline_ns = clock_now(w->clock) + REPAIR_NS;
	return storage_op_start(op);
}

void
storage_mend_call(struct storage_worker *w, struct net_req *req)
{
	const struct msg_mend *m = req->msg;
	struct storage_op *op = NULL;
	struct storage_target *t;
	struct chunk_info info;
	int rc = storage_check(w, STORAGE_READ, m->target, m->chain,
	    m->chain_version, &t);

	if (rc == 0 && (m->from == m->target || m->from == 0))
		rc = -EINVAL;
	if (rc == 0)
		rc = storage_info_rc(t, chunk_engine_info(t->disk->engine, m->target,
		    m->chunk, &info));
	if (rc == 0 && (op = storage_op_get(w, t)) == NULL)
		rc = -ENOMEM;
	if (rc == 0) {
		op->req = req;
		op->shift = info.shift;
		op->fetch_from = m->from;
		op->craq.kind = CRAQ_REPAIR;
		op->craq.force = true;
		op->craq.id = m->chunk;
		op->craq.version = m->version;
		op->craq.chain_version = m->chain_version;
		op->craq.deadline_ns = req->deadline_ns;
		log_warn(&w->env->log, "chunk is taken from another replica, as the "
		    "operator wants", "chain=%u target=%u from=%u ino=%" PRIx64
		    " index=%u", m->chain, m->target, m->from, m->chunk.ino,
		    m->chunk.index);
		rc = storage_op_start(op);
	}
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}

void
storage_care_damaged(void *disk)
{
	struct storage_disk *d = disk;

	if (d->repair != NULL)
		storage_repair_poke(d->repair);
}

int
storage_care_open(struct storage_disk *d)
{
	const struct role_env *env = d->w->env;
	struct storage_scrub_conf sc = { .clock = env->clock, .log = &env->log,
	    .conf = env->conf, .engine = d->engine, .stats = env->stats,
	    .path = d->path, .busy = busy, .ctx = d };
	struct storage_repair_conf rc = { .clock = env->clock, .log = &env->log,
	    .engine = d->engine, .stats = env->stats, .path = d->path,
	    .replace = replace, .ctx = d };
	int err = storage_scrub_open(&d->scrub, &sc);

	return err != 0 ? err : storage_repair_open(&d->repair, &rc);
}

void
storage_care_stop(struct storage_disk *d)
{
	storage_scrub_stop(d->scrub);
	storage_repair_stop(d->repair);
}

void
storage_care_close(struct storage_disk *d)
{
	storage_scrub_close(d->scrub);
	storage_repair_close(d->repair);
	d->scrub = NULL;
	d->repair = NULL;
}
