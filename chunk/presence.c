/* SPDX-License-Identifier: MIT */
/* presence.c - every CHUNK_CHECK_MS: is this still the disk that was opened?
 *
 *   wait -> names looked up, label read (both at once) -> wait
 *
 * A directory that is another one, or none, has failed at once; a label that cannot be
 * read or is not ours fails the disk when that was so CHUNK_CHECK_TRIES times running, and
 * so does an answer that does not come for CHUNK_CHECK_WAITS times CHUNK_CHECK_MS: in turns
 * of our own, since while this process stands still nobody takes answers. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/state.h"
#include "conf/err.h"

static void again(struct chunk_engine *e);

static void
wait_in(struct chunk_engine *e, clock_timer_fn *fn)
{
	clock_timer_start(e->conf.clock, &e->presence.timer,
	    clock_now(e->conf.clock) + CHUNK_CHECK_MS * NS_PER_MS, fn);
}

static void
judge(struct chunk_engine *e, int rc, const char *what)
{
	if (rc == 0) {
		e->presence.strikes = 0;
		return;
	}
	e->presence.strikes++;
	log_warn(e->conf.log, "disk is not as it should be", "disk=%s path=%s "
	    "what=\"%s\" error=%s times=%u", e->name,
	    e->conf.path != NULL ? e->conf.path : "?", what, err_name(rc),
	    e->presence.strikes);
	if (e->presence.strikes >= CHUNK_CHECK_TRIES || chunk_disk_gone(rc))
		chunk_engine_break(e, rc, what);
}

/* Both answers are there. */
static void
ended(struct chunk_engine *e)
{
	struct chunk_presence *p = &e->presence;
	struct chunk_label l;
	unsigned stale;
	int rc = p->label_req.rc;

	if (p->names || p->label)
		return;
	p->none = false;		/* and tried again, unless it is low */
	clock_timer_stop(e->conf.clock, &p->timer);
	/* Names that are gone or others'; what is short of something proves nothing. */
	if (p->check.rc == -ENOENT || p->check.rc == -ENOTDIR ||
	    chunk_disk_gone(p->check.rc)) {
		chunk_engine_break(e, p->check.rc, "names");
		return;
	}
	if (rc == 0 && (rc = chunk_label_choose(p->buf, &l, &stale)) == 0 &&
	    !uid128_eq(&l.disk_id, &e->label.disk_id))
		rc = ERR_DISK_FOREIGN;
	if (rc == 0 && p->check.rc == -EIO)
		judge(e, p->check.rc, "names");
	else
		judge(e, rc, "label");
	again(e);
}

static void
named(struct disk_check *c)
{
	struct chunk_engine *e = container_of(c, struct chunk_engine, presence.check);

	e->presence.names = false;
	if (c->rc == 0 && e->presence.low != (c->free_bytes < CHUNK_CHECK_LOW)) {
		e->presence.low = !e->presence.low;
		log_warn(e->conf.log, e->presence.low ?
		    "file system is full, new data is refused" :
		    "file system has space again", "disk=%s path=%s free=%" PRIu64,
		    e->name, e->conf.path != NULL ? e->conf.path : "?", c->free_bytes);
	}
	ended(e);
}

static void
label_read(struct disk_req *r)
{
	struct chunk_engine *e = container_of(r, struct chunk_engine,
	    presence.label_req);

	e->presence.label = false;
	ended(e);
}

static void
overdue(struct clock_timer *t)
{
	struct chunk_engine *e = container_of(t, struct chunk_engine, presence.timer);

	if (++e->presence.waits < CHUNK_CHECK_WAITS)
		wait_in(e, overdue);
	else
		chunk_engine_break(e, -ETIMEDOUT, e->presence.names ? "names" :
		    "label");
}

static void
look(struct clock_timer *t)
{
	struct chunk_engine *e = container_of(t, struct chunk_engine, presence.timer);
	struct chunk_presence *p = &e->presence;
	struct disk_dir *dir = e->conf.dir;

	if (e->broken != 0)
		return;
	p->check.fn = named;
	p->check.rc = 0;
	p->check.free_bytes = UINT64_MAX;
	p->names = dir->ops->check != NULL;
	if (p->names && dir->ops->check(dir, &p->check) != 0)
		p->names = false;		/* no thread, no memory: next time */
	p->iov = (struct iovec){ p->buf, CHUNK_LABEL_COPIES * CHUNK_LABEL_BYTES };
	p->label_req = (struct disk_req){ .op = DISK_READ, .len = p->iov.iov_len,
	    .iov = &p->iov, .iov_n = 1 };
	p->label = true;
	p->waits = 0;
	wait_in(e, overdue);
	disk_start(e->data, &p->label_req, label_read);
}

static void
again(struct chunk_engine *e)
{
	if (e->broken == 0)
		wait_in(e, look);
}

int
chunk_presence_open(struct chunk_engine *e)
{
	e->presence.buf = aligned_alloc(DISK_ALIGN,
	    CHUNK_LABEL_COPIES * CHUNK_LABEL_BYTES);
	return e->presence.buf == NULL ? -ENOMEM : 0;
}

void
chunk_presence_start(struct chunk_engine *e)
{
	again(e);
}

void
chunk_presence_close(struct chunk_engine *e)
{
	clock_timer_stop(e->conf.clock, &e->presence.timer);
	if (e->presence.names)
		e->conf.dir->ops->uncheck(e->conf.dir);
	free(e->presence.buf);
}
