/* SPDX-License-Identifier: MIT */
/* storage_repair.c - walks over the list of damaged chunks.
 *
 *   IDLE --poke--> walk: every chunk on the list -> read whole --sound--> off the list
 *    ^                                                 `-damaged-> replace -> off the list
 *    `--list empty-- walk ended --some are left--> REST, longer each time --> walk
 */
#include "roles/storage_repair.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "conf/err.h"

STAT_DEFINE(storage_repair, STORAGE_REPAIR_STATS)

#define AT_ONCE		4u
#define PIECE		(1u << 20)
#define SOON_NS		(100 * NS_PER_MS)	/* between walks, when there is news */
#define REST_MIN_NS	NS_PER_S
#define REST_MAX_NS	(60 * NS_PER_S)

struct storage_repair_job {
	struct storage_repair *rep;
	bool		busy;
	struct chunk_damage what;
	struct chunk_read r;
	uint32_t	off;
};

struct storage_repair {
	struct storage_repair_conf conf;
	struct clock_timer timer;
	bool		walking, news, stopped;
	struct chunk_damage at;		/* the last one that was begun */
	bool		after;
	bool		some;		/* of this walk got whole */
	uint64_t	rest_ns, ended_ns;	/* of the last walk */
	unsigned	busy;
	struct storage_repair_job jobs[AT_ONCE];
	struct storage_repair_stat stat;
	struct stat_set	set;
};

static void go(struct storage_repair *rep);

static void
fired(struct clock_timer *t)
{
	go(container_of(t, struct storage_repair, timer));
}

static void
wake_in(struct storage_repair *rep, uint64_t ns)
{
	clock_timer_start(rep->conf.clock, &rep->timer,
	    clock_now(rep->conf.clock) + ns, fired);
}

/* One chunk less to do in this walk; its end comes from the loop, not from here, so that
 * whoever called may go on. */
static void
job_end(struct storage_repair_job *j, bool whole)
{
	struct storage_repair *rep = j->rep;

	assert(j->busy);
	j->busy = false;
	rep->busy--;
	rep->some |= whole;
	if (!rep->stopped)
		wake_in(rep, 0);
}

/* ---- one chunk ---- */

static void
log_job(const struct storage_repair_job *j, enum log_level level, const char *what, int rc)
{
	const struct chunk_damage *d = &j->what;

	log_at(j->rep->conf.log, level, what, "disk=%s target=%u ino=%" PRIx64
	    " index=%u block=%u rc=%s", j->rep->conf.path, d->target, d->id.ino,
	    d->id.index, d->block, err_name(rc));
}

void
storage_repair_ended(struct storage_repair_job *j, int rc)
{
	struct storage_repair *rep = j->rep;

	if (rc == 0) {
		stat_add(&rep->stat.repaired, 1);
		log_job(j, LOG_WARN, "block repaired from peer", rc);
	} else {
		stat_add(&rep->stat.failed, 1);
		log_job(j, LOG_DEBUG, "chunk not repaired yet", rc);
	}
	job_end(j, rc == 0);
}

static void
replace(struct storage_repair_job *j)
{
	struct storage_repair *rep = j->rep;
	struct chunk_info info;
	int rc = chunk_engine_info(rep->conf.engine, j->what.target, j->what.id, &info);

	if (rc == 0)
		rc = rep->conf.replace(rep->conf.ctx, j->what.target, j->what.id,
		    info.shift, j);
	if (rc == 0)
		return;
	stat_add(rc == -ENODEV ? &rep->stat.alone : &rep->stat.failed, 1);
	log_job(j, LOG_DEBUG, "chunk not repaired yet", rc);
	job_end(j, false);
}

static void piece_read(struct chunk_read *r, int rc);

static void
read_piece(struct storage_repair_job *j)
{
	j->r = (struct chunk_read){ .target = j->what.target, .id = j->what.id,
	    .offset = j->off, .len = PIECE };
	chunk_read_start(&j->r, j->rep->conf.engine, piece_read);
}

static void
piece_read(struct chunk_read *r, int rc)
{
	struct storage_repair_job *j = container_of(r, struct storage_repair_job, r);
	struct storage_repair *rep = j->rep;

	if (rc == 0)
		mem_put(&r->buf);
	j->off += r->len;
	if (rep->stopped) {
		job_end(j, false);
	} else if (rc == 0 && r->got == r->len) {
		read_piece(j);
	} else if (rc == 0 || rc == -ENOENT) {
		/* There is no committed version that is damaged (any more). */
		stat_add(&rep->stat.sound, 1);
		log_job(j, LOG_INFO, "chunk can be read after all", 0);
		chunk_engine_healed(rep->conf.engine, j->what.target, j->what.id);
		job_end(j, true);
	} else if (rc == ERR_CORRUPT) {
		replace(j);
	} else {
		job_end(j, false);	/* no memory; or the disk has failed */
	}
}

/* ---- a walk ---- */

static void
walk_end(struct storage_repair *rep)
{
	struct chunk_damage d;

	rep->walking = false;
	rep->ended_ns = clock_now(rep->conf.clock);
	if (chunk_engine_state(rep->conf.engine) != 0 || chunk_engine_next_damaged(
	    rep->conf.engine, 0, (struct chunk_id){ 0 }, false, &d) != 0) {
		rep->rest_ns = REST_MIN_NS;
		rep->news = false;
		return;
	}
	if (rep->news || rep->some)
		rep->rest_ns = REST_MIN_NS;
	wake_in(rep, rep->news ? SOON_NS : rep->rest_ns);
	rep->news = false;
	rep->rest_ns = rep->rest_ns * 2 < REST_MAX_NS ? rep->rest_ns * 2 : REST_MAX_NS;
}

static void
begin(struct storage_repair *rep)
{
	for (unsigned i = 0; i < AT_ONCE; i++) {
		struct storage_repair_job *j = &rep->jobs[i];

		if (j->busy)
			continue;
		j->busy = true;
		j->what = rep->at;
		j->off = 0;
		rep->busy++;
		read_piece(j);
		return;
	}
}

static void
go(struct storage_repair *rep)
{
	clock_timer_stop(rep->conf.clock, &rep->timer);
	if (!rep->walking) {
		rep->walking = true;
		rep->news = rep->some = rep->after = false;
		rep->at = (struct chunk_damage){ 0 };
	}
	while (rep->busy < AT_ONCE) {
		if (chunk_engine_next_damaged(rep->conf.engine, rep->at.target,
		    rep->at.id, rep->after, &rep->at) != 0) {
			if (rep->busy == 0)
				walk_end(rep);
			return;
		}
		rep->after = true;
		begin(rep);
	}
}

void
storage_repair_poke(struct storage_repair *rep)
{
	uint64_t now = clock_now(rep->conf.clock), at = rep->ended_ns + SOON_NS;

	rep->news = true;
	if (rep->stopped || rep->walking)
		return;
	/* At once, as somebody may wait; but walks do not follow each other closely. */
	if (at < now)
		at = now;
	if (rep->timer.pos == 0 || rep->timer.at_ns > at)
		wake_in(rep, at - now);
}

int
storage_repair_open(struct storage_repair **out, const struct storage_repair_conf *conf)
{
	struct storage_repair *rep = calloc(1, sizeof(*rep));

	*out = rep;
	if (rep == NULL)
		return -ENOMEM;
	rep->conf = *conf;
	rep->rest_ns = REST_MIN_NS;
	for (unsigned i = 0; i < AT_ONCE; i++)
		rep->jobs[i].rep = rep;
	stat_label(&rep->set, "role", conf->log->who);
	stat_label(&rep->set, "disk", conf->path);
	rep->set.prefix = "fsd_repair";
	rep->set.rows = storage_repair_stat_rows;
	rep->set.values = &rep->stat;
	if (conf->stats != NULL)
		stat_register(conf->stats, &rep->set);
	return 0;
}

void
storage_repair_stop(struct storage_repair *rep)
{
	if (rep == NULL)
		return;
	rep->stopped = true;
	clock_timer_stop(rep->conf.clock, &rep->timer);
}

void
storage_repair_close(struct storage_repair *rep)
{
	if (rep == NULL)
		return;
	clock_timer_stop(rep->conf.clock, &rep->timer);
	stat_remove(&rep->set);
	free(rep);
}

const struct storage_repair_stat *
storage_repair_stats(const struct storage_repair *rep)
{
	return &rep->stat;
}
