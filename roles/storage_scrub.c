/* SPDX-License-Identifier: MIT */
/* storage_scrub.c - one piece of one chunk after the other.
 *
 *   REST --time--> next chunk --> read a piece --> pause --> next piece ... --> REST
 *
 * A piece is of the version that is committed when it is read.  So a chunk that is written
 * to meanwhile is still verified: blocks that stay are read by one piece or another, and
 * what is new has just been written. */
#include "roles/storage_scrub.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "chunk/format.h"
#include "conf/err.h"

STAT_DEFINE(storage_scrub, STORAGE_SCRUB_STATS)

#define START_NS	(10 * NS_PER_S)	/* after the disk was opened */
#define SAVE_NS		(60 * NS_PER_S)
#define REST_NS		(10 * NS_PER_S)	/* how often a resting one looks up */
#define YIELD_NS	(10 * NS_PER_MS)
#define YIELDS_MAX	100u		/* then it takes its turn all the same */
#define TRY_NS		(100 * NS_PER_MS)
#define PIECE_MIN	(64u << 10)	/* the largest checksum block */
#define PIECE_MAX	(1u << 20)
#define RATE_MIN	(1u << 20)	/* bytes/s: a small disk is not spread out over days */

struct storage_scrub {
	struct storage_scrub_conf conf;
	struct clock_timer timer;
	struct chunk_scrub at;		/* all up to and with at.id is done */
	bool		after;		/* at.id is a chunk, not the beginning */
	bool		in_chunk;	/* the one at @target, @id is being read */
	target_id	target;
	struct chunk_id	id;
	uint32_t	off, len, sum;
	struct chunk_read r;
	bool		stopped;
	unsigned	yields;
	uint64_t	saved_ns;
	struct storage_scrub_stat stat;
	struct stat_set	set;
};

static void step(struct clock_timer *t);

static void
wait_for(struct storage_scrub *s, uint64_t ns)
{
	if (!s->stopped)
		clock_timer_start(s->conf.clock, &s->timer,
		    clock_now(s->conf.clock) + ns, step);
}

/* Bytes a second that end a pass in time, with something to spare. */
static uint64_t
rate(const struct storage_scrub *s)
{
	uint64_t capacity, used, n, time_ms = s->conf.conf->storage_scrub_time;

	chunk_engine_space(s->conf.engine, &capacity, &used);
	n = time_ms == 0 ? 0 : used / (time_ms / 1000 + 1) / 4 * 5;
	if (n < RATE_MIN)
		n = RATE_MIN;
	return n < s->conf.conf->storage_scrub_rate ? n :
	    s->conf.conf->storage_scrub_rate;
}

static void
pause_after(struct storage_scrub *s, uint64_t bytes)
{
	if (bytes < CHUNK_BLOCK)
		bytes = CHUNK_BLOCK;	/* looking for it costs something as well */
	wait_for(s, bytes * NS_PER_S / rate(s));
}

static void
tell(struct storage_scrub *s)
{
	uint64_t capacity, used, percent = 100;

	chunk_engine_space(s->conf.engine, &capacity, &used);
	if (s->at.running)
		percent = used == 0 || s->at.bytes >= used ? 99 :
		    s->at.bytes / (used / 100 + 1);
	stat_set(&s->stat.progress_percent, percent);
	stat_set(&s->stat.begun_time, (uint64_t)s->at.begun_ns / NS_PER_S);
	stat_set(&s->stat.ended_time, (uint64_t)s->at.ended_ns / NS_PER_S);
	stat_set(&s->stat.pass_errors, s->at.errors);
}

/* Kept with the next commit of the index; if it cannot be, more is read twice. */
static void
save(struct storage_scrub *s)
{
	s->saved_ns = clock_now(s->conf.clock);
	(void)chunk_engine_scrub_put(s->conf.engine, &s->at);
}

static void
pass_begin(struct storage_scrub *s)
{
	s->at = (struct chunk_scrub){ .running = true, .ended_ns = s->at.ended_ns,
	    .begun_ns = clock_wall(s->conf.clock) };
	s->after = s->in_chunk = false;
	save(s);
	log_info(s->conf.log, "scrub begins", "disk=%s", s->conf.path);
}

static void
pass_end(struct storage_scrub *s)
{
	s->at.running = false;
	s->at.ended_ns = clock_wall(s->conf.clock);
	stat_add(&s->stat.passes, 1);
	save(s);
	log_at(s->conf.log, s->at.errors > 0 ? LOG_WARN : LOG_INFO, "scrub ended",
	    "disk=%s bytes=%" PRIu64 " errors=%" PRIu64 " seconds=%" PRIi64,
	    s->conf.path, s->at.bytes, s->at.errors,
	    (s->at.ended_ns - s->at.begun_ns) / (int64_t)NS_PER_S);
}

/* A clock that was set back must not stop it for years. */
static bool
due(const struct storage_scrub *s)
{
	int64_t now = clock_wall(s->conf.clock);
	int64_t next = s->at.begun_ns + (int64_t)(s->conf.conf->storage_scrub_time *
	    NS_PER_MS);

	return s->at.begun_ns == 0 || now < s->at.begun_ns || now >= next;
}

static void
chunk_done(struct storage_scrub *s)
{
	s->in_chunk = false;
	s->after = true;
	s->at.target = s->target;
	s->at.id = s->id;
}

static void
piece_read(struct chunk_read *r, int rc)
{
	struct storage_scrub *s = container_of(r, struct storage_scrub, r);

	if (rc == 0)
		mem_put(&r->buf);
	if (rc == -EIO || s->stopped)
		return;			/* the disk has failed: its owner says so */
	if (rc == ERR_BUSY || rc == -ENOMEM) {
		wait_for(s, TRY_NS);
		return;
	}
	if (rc == 0) {
		stat_add(&s->stat.bytes, r->got);
		stat_add(&s->stat.blocks, chunk_blocks(r->got, s->sum));
		s->at.bytes += r->got;
	} else if (rc != -ENOENT) {
		stat_add(&s->stat.errors, 1);
		s->at.errors++;
	}
	s->off += r->len;
	if (rc == -ENOENT || (rc == 0 && r->got < r->len) || s->off >= s->len) {
		stat_add(&s->stat.chunks, rc != -ENOENT);
		chunk_done(s);
	}
	if (clock_now(s->conf.clock) - s->saved_ns >= SAVE_NS)
		save(s);
	tell(s);
	pause_after(s, r->len);
}

static void
read_piece(struct storage_scrub *s)
{
	uint64_t piece = rate(s) / 4 / PIECE_MIN * PIECE_MIN;

	if (piece < PIECE_MIN)
		piece = PIECE_MIN;
	if (piece > PIECE_MAX)
		piece = PIECE_MAX;
	if (piece > s->len - s->off)
		piece = s->len - s->off;
	s->r = (struct chunk_read){ .target = s->target, .id = s->id,
	    .offset = s->off, .len = (uint32_t)piece };
	chunk_read_start(&s->r, s->conf.engine, piece_read);
}

static void
next_chunk(struct storage_scrub *s)
{
	int rc;

	s->target = s->at.target;
	s->id = s->at.id;
	rc = chunk_engine_walk(s->conf.engine, &s->target, &s->id, s->after, &s->len,
	    &s->sum);
	if (rc == -ENOENT) {
		pass_end(s);
		tell(s);
		wait_for(s, REST_NS);
	} else if (rc == -ENOMEM) {
		wait_for(s, TRY_NS);
	} else if (rc == 0 && s->len == 0) {
		stat_add(&s->stat.chunks, 1);
		chunk_done(s);
		pause_after(s, 0);
	} else if (rc == 0) {
		s->in_chunk = true;
		s->off = 0;
		read_piece(s);
	}
}

static void
step(struct clock_timer *t)
{
	struct storage_scrub *s = container_of(t, struct storage_scrub, timer);

	if (chunk_engine_state(s->conf.engine) != 0)
		return;
	if (s->conf.conf->storage_scrub_time == 0 || (!s->at.running && !due(s))) {
		wait_for(s, REST_NS);
		return;
	}
	if (!s->at.running)
		pass_begin(s);
	if (s->yields < YIELDS_MAX && s->conf.busy(s->conf.ctx)) {
		s->yields++;
		stat_add(&s->stat.yields, 1);
		wait_for(s, YIELD_NS);
		return;
	}
	s->yields = 0;
	if (s->in_chunk)
		read_piece(s);
	else
		next_chunk(s);
}

int
storage_scrub_open(struct storage_scrub **out, const struct storage_scrub_conf *conf)
{
	struct storage_scrub *s = calloc(1, sizeof(*s));

	*out = s;
	if (s == NULL)
		return -ENOMEM;
	s->conf = *conf;
	if (chunk_engine_scrub_get(conf->engine, &s->at) == 0 && s->at.running) {
		s->after = s->at.target != 0 || s->at.id.ino != 0;
		log_info(conf->log, "scrub goes on", "disk=%s done=%" PRIu64, conf->path,
		    s->at.bytes);
	}
	s->saved_ns = clock_now(conf->clock);
	stat_label(&s->set, "role", conf->log->who);
	stat_label(&s->set, "disk", conf->path);
	s->set.prefix = "fsd_scrub";
	s->set.rows = storage_scrub_stat_rows;
	s->set.values = &s->stat;
	if (conf->stats != NULL)
		stat_register(conf->stats, &s->set);
	tell(s);
	wait_for(s, START_NS);
	return 0;
}

void
storage_scrub_stop(struct storage_scrub *s)
{
	if (s == NULL || s->stopped)
		return;
	s->stopped = true;
	clock_timer_stop(s->conf.clock, &s->timer);
	if (s->at.running)
		save(s);
}

void
storage_scrub_close(struct storage_scrub *s)
{
	if (s == NULL)
		return;
	clock_timer_stop(s->conf.clock, &s->timer);
	stat_remove(&s->set);
	free(s);
}

const struct storage_scrub_stat *
storage_scrub_stats(const struct storage_scrub *s)
{
	return &s->stat;
}
