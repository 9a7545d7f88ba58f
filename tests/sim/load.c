/* SPDX-License-Identifier: MIT */
/* load.c - what clients do in a simulation, and what they must see.
 *
 * Three kinds of actors, each a loop of asynchronous operations with an oracle of its own:
 *
 *   shared   several clients write and read 4 KiB blocks of the same files directly; the
 *	      history of every block must be that of a linearizable register
 *   private  one file per actor, any offsets, buffered, truncates and fsync; reads must see
 *	      exactly what was written; what fsync acknowledged must survive the client
 *   names    one directory per actor with a model of it (every return code must match), and
 *	      one directory that all fight over (creates and removes must alternate)
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/sim/sim.h"

#define BLOCK		4096u
#define SHARED_FILES	2u
#define SHARED_BLOCKS	40u		/* 160 KiB: three chunks of 64 KiB */
#define PRIVATE_MAX	(200u << 10)
#define NAMES		6u		/* per directory of a names actor */
#define ARENA_NAMES	4u		/* names that all fight over */
#define IO_BLOCKS_MAX	20u

static const struct client_cred root = { 0 };

/* ---- oracle of the shared files ---- */
struct write_rec {
	uint64_t begin_ns;
	uint64_t known_ns;		/* when it was done for certain: acknowledged, or read */
	uint64_t over_ns;		/* and when something else had taken its place */
	uint32_t file, block;
};

enum kind { SHARED, PRIVATE, NAME };

struct actor {
	struct load	 *l;
	struct client_op  op;
	struct client_io  io;
	struct clock_timer think;
	struct rand	  rand;
	enum kind	  kind;
	unsigned	  id, client;
	unsigned	  left;		/* operations still to do */
	bool		  dead;		/* with its client */
	bool		  idle;		/* nothing in flight and nothing left */
	void		(*then)(struct actor *);	/* after the operation */
	int		  rc;
	struct client_file *file;
	unsigned	  losses;	/* of its client when the file was opened */
	bool		  told;		/* of a loss since then */
	/* shared */
	unsigned	  target, block, blocks;
	uint64_t	  begin_ns;
	uint64_t	  stamps[IO_BLOCKS_MAX];
	uint8_t		 *data;
	/* private */
	ino_id		  ino;
	uint8_t		 *model, *durable, *maybe;
	uint32_t	  size, durable_size;
	bool		  size_maybe;
	uint32_t	  off, len;
	uint32_t	  fill;
	/* names */
	ino_id		  dir, arena;
	struct {
		uint32_t type;		/* S_IF*, 0: not there */
		ino_id	 ino;
	} names[NAMES];
	unsigned	  a, b, what;
	uint64_t	  cached_until_ns[ARENA_NAMES];	/* a kernel may think it is there */
	char		  doing[48];
};

struct load {
	struct sim	*s;
	struct actor	*actors;
	unsigned	 n;
	struct write_rec *writes;	/* stamp i + 1 is writes[i] */
	size_t		 write_n, write_cap;
	ino_id		 shared_ino[SHARED_FILES], arena;
	unsigned	 span;		/* blocks of them that are used: few, so that actors
					 * meet, or all */
	int		 arena_made[ARENA_NAMES];	/* successful creates - removes */
	unsigned	 arena_flying[ARENA_NAMES];	/* of clients that died */
	bool		 started;
	struct actor	 checker;
	struct more_load *more;
	unsigned	 check_at;
	bool		 checked;
};

static void next(struct actor *a);
static void begin(struct actor *a, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));
static void act(struct actor *a);

static struct client *
client_of(struct actor *a)
{
	struct client *c = sim_client(a->l->s, a->client);

	assert(c != NULL);
	return c;
}

static void
op_done(struct client_op *op, int rc)
{
	struct actor *a = container_of(op, struct actor, op);

	a->rc = rc;
	sim_trace(a->l->s, "actor %u: %s: %d", a->id, a->doing, rc);
	sim_plot_acked(a->l->s);
	a->then(a);
}

static void
io_done(struct client_io *io, int rc)
{
	struct actor *a = container_of(io, struct actor, io);

	a->rc = rc;
	sim_trace(a->l->s, "actor %u: %s: %d", a->id, a->doing, rc);
	sim_plot_acked(a->l->s);
	a->then(a);
}

static void
thought(struct clock_timer *t)
{
	struct actor *a = container_of(t, struct actor, think);

	if (!a->dead)
		act(a);
}

/* Has the operation failed because the session of its client has ended?  No other error
 * is right. */
static bool
lost(struct actor *a)
{
	if (a->rc == 0)
		return false;
	if ((a->rc != -EIO && a->rc != -ESTALE) ||
	    sim_losses(a->l->s, a->client) == a->losses)
		sim_fail(a->l->s, "actor %u: %s: %d", a->id, a->doing, a->rc);
	a->told = true;
	return true;
}

/* Something may be lost of which nobody has heard yet. */
static bool
in_doubt(const struct actor *a)
{
	return sim_losses(a->l->s, a->client) != a->losses;
}

static void
reopen(struct actor *a, ino_id ino, void (*then)(struct actor *))
{
	begin(a, "open again");
	if (a->file != NULL)
		client_release(a->file);
	a->file = NULL;
	a->losses = sim_losses(a->l->s, a->client);
	a->then = then;
	client_file_open(client_of(a), &a->op, op_done, &root, ino, O_RDWR, &a->file);
}

static void private_doubt(struct actor *a);

/* Others see what was written once its writer has closed it. */
static void
finished(struct actor *a)
{
	if (a->kind == PRIVATE && (lost(a) || in_doubt(a))) {
		private_doubt(a);
		return;
	}
	(void)lost(a);
	client_release(a->file);
	a->file = NULL;
	a->idle = true;
}

static void
begin(struct actor *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->doing, sizeof(a->doing), fmt, ap);
	va_end(ap);
	sim_trace(a->l->s, "actor %u: %s", a->id, a->doing);
}

/* One operation is over; go on after a random pause. */
static void
next(struct actor *a)
{
	struct clock *c = sim_clock(a->l->s);
	uint64_t most_ns = a->kind == SHARED && a->l->span < SHARED_BLOCKS &&
	    !sim_plotted(a->l->s) ? 2 * NS_PER_MS : 20 * NS_PER_MS;

	clock_timer_start(c, &a->think, clock_now(c) + rand_below(&a->rand, 4) *
	    rand_below(&a->rand, sim_pace(a->l->s, most_ns)), thought);
}

/* ---- shared files ---- */

static uint64_t
new_write(struct load *l, uint32_t file, uint32_t block, uint64_t now)
{
	if (l->write_n == l->write_cap) {
		l->write_cap = l->write_cap == 0 ? 1024 : l->write_cap * 2;
		l->writes = realloc(l->writes, l->write_cap * sizeof(*l->writes));
		assert(l->writes != NULL);
	}
	l->writes[l->write_n] = (struct write_rec){ now, UINT64_MAX, UINT64_MAX,
	    file, block };
	return ++l->write_n;
}

static void
fill_block(uint8_t *p, uint64_t stamp, uint32_t file, uint32_t block)
{
	uint64_t w[4] = { stamp, (uint64_t)file << 32 | block, ~stamp, stamp * 31 };

	for (unsigned i = 0; i < BLOCK; i += sizeof(w))
		memcpy(p + i, w, sizeof(w));
}

/* What a read of one block returned is one of the values the register could have.  Every
 * write is done once, between its begin and known_ns. */
static void
judge_block(struct actor *a, uint32_t file, uint32_t block, const uint8_t *p,
    uint64_t begin, uint64_t end)
{
	static uint8_t want[BLOCK];
	struct load *l = a->l;
	struct write_rec *w;
	uint64_t stamp;

	memcpy(&stamp, p, 8);
	if (stamp == 0)
		memset(want, 0, BLOCK);
	else {
		if (stamp > l->write_n || l->writes[stamp - 1].file != file ||
		    l->writes[stamp - 1].block != block)
			sim_fail(l->s, "file %u block %u: foreign stamp %" PRIu64, file,
			    block, stamp);
		fill_block(want, stamp, file, block);
	}
	if (memcmp(p, want, BLOCK) != 0)
		sim_fail(l->s, "file %u block %u: mixed content, stamp %" PRIu64, file,
		    block, stamp);
	w = stamp == 0 ? NULL : &l->writes[stamp - 1];
	if (w != NULL && w->begin_ns > end)
		sim_fail(l->s, "file %u block %u: read from the future", file, block);
	if (w != NULL && w->over_ns < begin)
		sim_fail(l->s, "file %u block %u: stamp %" PRIu64 " is back, which had been "
		    "replaced before %" PRIu64, file, block, stamp, begin);
	for (size_t i = 0; i < l->write_n; i++) {
		struct write_rec *x = &l->writes[i];

		if (x->file != file || x->block != block || x == w ||
		    x->known_ns >= begin)
			continue;
		/* Overwritten for certain before this read began? */
		if (w == NULL || w->known_ns < x->begin_ns)
			sim_fail(l->s, "file %u block %u: read stamp %" PRIu64
			    " at %" PRIu64 ", but %zu was acknowledged, or read, before",
			    file, block, stamp, begin, i + 1);
		if (end < x->over_ns)
			x->over_ns = end;
	}
	if (w != NULL && w->known_ns == UINT64_MAX)
		sim_plot_seen(l->s);
	if (w != NULL && end < w->known_ns)
		w->known_ns = end;
}

static void shared_opened(struct actor *a);

static void
shared_read_done(struct actor *a)
{
	struct load *l = a->l;
	uint32_t want = a->blocks * BLOCK;
	size_t at = 0;

	if (lost(a)) {
		reopen(a, l->shared_ino[a->target], shared_opened);
		return;
	}
	if (a->io.done != want)
		sim_fail(l->s, "actor %u: short read %" PRIu64, a->id, a->io.done);
	for (unsigned i = 0; i < a->io.iov_n; i++) {
		memcpy(a->data + at, a->io.iov[i].iov_base, a->io.iov[i].iov_len);
		at += a->io.iov[i].iov_len;
	}
	client_read_done(client_of(a), &a->io);
	for (unsigned i = 0; i < a->blocks; i++)
		judge_block(a, a->target, a->block + i, a->data + i * BLOCK,
		    a->begin_ns, sim_now(l->s));
	next(a);
}

static void
shared_write_done(struct actor *a)
{
	struct load *l = a->l;

	/* It may have been done, or be done later. */
	if (lost(a)) {
		reopen(a, l->shared_ino[a->target], shared_opened);
		return;
	}
	for (unsigned i = 0; i < a->blocks; i++)
		if (l->writes[a->stamps[i] - 1].known_ns == UINT64_MAX)
			l->writes[a->stamps[i] - 1].known_ns = sim_now(l->s);
	next(a);
}

static void
shared_act(struct actor *a)
{
	struct load *l = a->l;

	a->blocks = 1 + (unsigned)rand_below(&a->rand,
	    rand_chance(&a->rand, 1, 5) ? IO_BLOCKS_MAX : 3);
	if (a->blocks > l->span)
		a->blocks = l->span;
	a->block = (unsigned)rand_below(&a->rand, l->span - a->blocks + 1);
	a->begin_ns = sim_now(l->s);
	if (rand_chance(&a->rand, 1, 2)) {
		begin(a, "read blocks %u+%u", a->block, a->blocks);
		a->then = shared_read_done;
		client_read(a->file, &a->io, io_done, (uint64_t)a->block * BLOCK,
		    (uint64_t)a->blocks * BLOCK);
		return;
	}
	for (unsigned i = 0; i < a->blocks; i++) {
		a->stamps[i] = new_write(l, a->target, a->block + i, a->begin_ns);
		fill_block(a->data + i * BLOCK, a->stamps[i], a->target, a->block + i);
	}
	begin(a, "write blocks %u+%u", a->block, a->blocks);
	a->then = shared_write_done;
	client_write(a->file, &a->io, io_done, (uint64_t)a->block * BLOCK, a->data,
	    (uint64_t)a->blocks * BLOCK, true);
}

static void
shared_opened(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "actor %u: open: %d", a->id, a->rc);
	next(a);
}

/* ---- a private file ---- */

static void
private_written(struct actor *a)
{
	if (lost(a))
		private_doubt(a);
	else
		next(a);
}

static void
private_synced(struct actor *a)
{
	if (lost(a)) {
		private_doubt(a);
		return;
	}
	if (in_doubt(a) && a->told) {
		private_doubt(a);
		return;
	}
	memcpy(a->durable, a->model, PRIVATE_MAX);
	a->durable_size = a->size;
	memset(a->maybe, 0, PRIVATE_MAX);
	a->size_maybe = false;
	next(a);
}

static void
private_compare(struct actor *a, const uint8_t *got, size_t n)
{
	uint32_t want = a->off >= a->size ? 0 :
	    a->len < a->size - a->off ? a->len : a->size - a->off;

	if (n != want)
		sim_fail(a->l->s, "actor %u: read %u+%u of %u: %zu bytes", a->id, a->off,
		    a->len, a->size, n);
	for (size_t i = 0; i < n; i++)
		if (got[i] != a->model[a->off + i])
			sim_fail(a->l->s, "actor %u: read %u+%u of %u: byte %zu is %u, "
			    "not %u", a->id, a->off, a->len, a->size, a->off + i,
			    got[i], a->model[a->off + i]);
}

/* After a loss: nothing of what fsync had acknowledged is missing. */
static void
private_survived(struct actor *p, const uint8_t *got, size_t n)
{
	struct load *l = p->l;

	if (!p->size_maybe && n != p->durable_size)
		sim_fail(l->s, "p%u: size %zu after a loss, fsync said %u", p->id, n,
		    p->durable_size);
	for (size_t i = 0; i < n && i < p->durable_size; i++)
		if (!p->maybe[i] && got[i] != p->durable[i])
			sim_fail(l->s, "p%u: byte %zu of what fsync acknowledged is wrong "
			    "after a loss", p->id, i);
}

static void
private_was_read(struct actor *a)
{
	size_t at = 0;

	if (lost(a)) {
		private_doubt(a);
		return;
	}
	for (unsigned i = 0; i < a->io.iov_n; i++) {
		memcpy(a->data + at, a->io.iov[i].iov_base, a->io.iov[i].iov_len);
		at += a->io.iov[i].iov_len;
	}
	assert(at == a->io.done);
	client_read_done(client_of(a), &a->io);
	if (in_doubt(a)) {
		private_doubt(a);
		return;
	}
	private_compare(a, a->data, at);
	next(a);
}

static void
private_truncated(struct actor *a)
{
	if (lost(a) || in_doubt(a)) {
		private_doubt(a);
		return;
	}
	if (a->op.entry->attr.size != a->size)
		sim_fail(a->l->s, "actor %u: truncate to %u gave %" PRIu64, a->id,
		    a->size, a->op.entry->attr.size);
	next(a);
}

static void
private_size(struct actor *a)
{
	if (lost(a) || in_doubt(a)) {
		private_doubt(a);
		return;
	}
	if (a->op.entry->attr.size != a->size)
		sim_fail(a->l->s, "actor %u: size %" PRIu64 ", not %u", a->id,
		    a->op.entry->attr.size, a->size);
	next(a);
}

static void private_closed(struct actor *a);

static void
private_truncate(struct actor *a)
{
	struct msg_setattr set = { .valid = META_SET_SIZE };
	uint32_t to = (uint32_t)rand_below(&a->rand, PRIVATE_MAX / 2);

	if (to < a->size) {
		memset(a->model + to, 0, a->size - to);
		memset(a->maybe + to, 1, a->size - to);
	}
	a->size = to;
	a->size_maybe = true;
	set.size = to;
	begin(a, "truncate %u", to);
	a->then = private_truncated;
	client_setattr(client_of(a), &a->op, op_done, &root, a->ino, &set);
}

static void
private_act(struct actor *a)
{
	bool direct = rand_chance(&a->rand, 1, 6);

	switch (rand_below(&a->rand, 12)) {
	case 0:
		begin(a, "fsync");
		a->then = private_synced;
		client_fsync(a->file, &a->op, op_done);
		return;
	case 1:
		private_truncate(a);
		return;
	case 2:
		begin(a, "getattr");
		a->then = private_size;
		client_getattr(client_of(a), &a->op, op_done, &root, a->ino);
		return;
	case 3:
		begin(a, "close");
		a->then = private_closed;
		client_flush(a->file, &a->op, op_done);
		return;
	case 4: case 5: case 6: case 7:
		a->off = (uint32_t)rand_below(&a->rand, PRIVATE_MAX);
		a->len = 1 + (uint32_t)rand_below(&a->rand, 70000);
		begin(a, "read %u+%u", a->off, a->len);
		a->then = private_was_read;
		client_read(a->file, &a->io, io_done, a->off, a->len);
		return;
	default:
		a->len = 1 + (uint32_t)rand_below(&a->rand,
		    rand_chance(&a->rand, 1, 3) ? 66000 : 3000);
		a->off = rand_chance(&a->rand, 1, 3) && a->size + a->len < PRIVATE_MAX ?
		    a->size : (uint32_t)rand_below(&a->rand, PRIVATE_MAX - a->len);
		for (uint32_t i = 0; i < a->len; i++)
			a->data[i] = (uint8_t)(a->fill + i * 7 + (i >> 8));
		a->fill += 13;
		memcpy(a->model + a->off, a->data, a->len);
		memset(a->maybe + a->off, 1, a->len);
		if (a->off + a->len > a->size) {
			a->size = a->off + a->len;
			a->size_maybe = true;
		}
		begin(a, "%s %u+%u", direct ? "write" : "buffer", a->off, a->len);
		a->then = private_written;
		client_write(a->file, &a->io, io_done, a->off, a->data, a->len, direct);
		return;
	}
}

static void
private_opened(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "actor %u: open: %d", a->id, a->rc);
	if (a->op.entry->attr.size != a->size)
		sim_fail(a->l->s, "actor %u: open: size %" PRIu64 ", not %u", a->id,
		    a->op.entry->attr.size, a->size);
	a->ino = a->op.entry->attr.ino;
	next(a);
}

static void
private_closed(struct actor *a)
{
	if (lost(a) || in_doubt(a))
		private_doubt(a);
	else
		reopen(a, a->ino, private_opened);
}

static void
put_back_done(struct actor *a)
{
	if (lost(a) || in_doubt(a)) {
		a->told = true;
		private_doubt(a);
		return;
	}
	a->told = false;
	next(a);
}

static void
put_back_cut(struct actor *a)
{
	struct msg_setattr set = { .valid = META_SET_SIZE, .size = a->size };

	if (lost(a) || in_doubt(a)) {
		private_doubt(a);
		return;
	}
	begin(a, "cut to %u", a->size);
	a->then = put_back_done;
	client_setattr(client_of(a), &a->op, op_done, &root, a->ino, &set);
}

/* What had been sent may still arrive, long after its error.  Behind newer writes of the
 * same client it is not done any more. */
static void
put_back(struct actor *a)
{
	memset(a->maybe, 1, PRIVATE_MAX);
	a->size_maybe = true;
	begin(a, "put back %u", a->size);
	a->then = put_back_cut;
	client_write(a->file, &a->io, io_done, 0, a->model, PRIVATE_MAX, true);
}

/* The session has ended: what fsync had acknowledged is there, the rest may be.  When no
 * error has told of a loss, there was none. */
static void
private_doubt_read(struct actor *a)
{
	struct load *l = a->l;
	size_t at = 0;

	if (lost(a) || in_doubt(a)) {
		if (a->rc == 0)
			client_read_done(client_of(a), &a->io);
		private_doubt(a);
		return;
	}
	for (unsigned i = 0; i < a->io.iov_n; i++) {
		memcpy(a->data + at, a->io.iov[i].iov_base, a->io.iov[i].iov_len);
		at += a->io.iov[i].iov_len;
	}
	client_read_done(client_of(a), &a->io);
	if (!a->told) {
		a->off = 0;
		a->len = PRIVATE_MAX;
		private_compare(a, a->data, at);
	}
	private_survived(a, a->data, at);
	memset(a->data + at, 0, PRIVATE_MAX - at);
	if (a->size != at || memcmp(a->model, a->data, PRIVATE_MAX) != 0)
		sim_trace(l->s, "actor %u: goes on with what is left", a->id);
	a->size = (uint32_t)at;
	memcpy(a->model, a->data, PRIVATE_MAX);
	if (a->told)
		put_back(a);
	else
		next(a);
}

static void
private_doubt_opened(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "actor %u: opening again: %d", a->id, a->rc);
	begin(a, "read what is left");
	a->then = private_doubt_read;
	client_read(a->file, &a->io, io_done, 0, PRIVATE_MAX);
}

static void
private_doubt_closed(struct actor *a)
{
	(void)lost(a);
	reopen(a, a->ino, private_doubt_opened);
}

static void
private_doubt(struct actor *a)
{
	begin(a, "close in doubt");
	a->then = private_doubt_closed;
	client_flush(a->file, &a->op, op_done);
}

/* ---- names ---- */

static void
name_text(char out[16], unsigned i)
{
	snprintf(out, 16, "n%u", i);
}

/* What POSIX says the operation in flight returns, given the model. */
static int
name_expect(const struct actor *a)
{
	uint32_t ta = a->names[a->a].type, tb = a->names[a->b].type;

	switch (a->what) {
	case 0: case 1: case 2: case 3:		/* make */
		return ta != 0 ? -EEXIST : 0;
	case 4: case 5:				/* unlink */
		return ta == 0 ? -ENOENT : ta == S_IFDIR ? -EISDIR : 0;
	case 6:					/* rmdir */
		return ta == 0 ? -ENOENT : ta != S_IFDIR ? -ENOTDIR : 0;
	case 7: case 8:				/* rename a to b */
		if (ta == 0)
			return -ENOENT;
		if (a->a == a->b || tb == 0 || a->names[a->a].ino == a->names[a->b].ino)
			return 0;
		if (ta == S_IFDIR)
			return tb == S_IFDIR ? 0 : -ENOTDIR;
		return tb == S_IFDIR ? -EISDIR : 0;
	case 9:					/* link a to b */
		if (ta == 0)
			return -ENOENT;
		if (tb != 0)
			return -EEXIST;
		return ta == S_IFDIR ? -EPERM : 0;
	default:				/* lookup */
		return ta == 0 ? -ENOENT : 0;
	}
}

static void
name_apply(struct actor *a)
{
	switch (a->what) {
	case 0: case 1: case 2: case 3: {
		static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFDIR, S_IFLNK };

		a->names[a->a].type = types[a->what];
		a->names[a->a].ino = a->op.entry->attr.ino;
		break;
	}
	case 4: case 5: case 6:
		a->names[a->a].type = 0;
		break;
	case 7: case 8:
		if (a->a == a->b || (a->names[a->b].type != 0 &&
		    a->names[a->a].ino == a->names[a->b].ino))
			break;
		a->names[a->b] = a->names[a->a];
		a->names[a->a].type = 0;
		break;
	case 9:
		a->names[a->b] = a->names[a->a];
		break;
	default:
		if (a->op.entry->attr.ino != a->names[a->a].ino)
			sim_fail(a->l->s, "actor %u: lookup n%u: inode %" PRIu64
			    ", not %" PRIu64, a->id, a->a, a->op.entry->attr.ino,
			    a->names[a->a].ino);
		break;
	}
}

static void
name_done(struct actor *a)
{
	int want = name_expect(a);

	if (a->file != NULL) {
		client_release(a->file);
		a->file = NULL;
	}
	if (a->rc != want)
		sim_fail(a->l->s, "actor %u: operation %u on n%u, n%u: %d, not %d", a->id,
		    a->what, a->a, a->b, a->rc, want);
	if (a->rc == 0)
		name_apply(a);
	next(a);
}

/* Nobody else may still take that name for granted. */
static void
arena_removed(struct actor *a)
{
	const struct load *l = a->l;

	for (unsigned i = 0; i < l->n; i++) {
		const struct actor *b = &l->actors[i];

		if (b->kind == NAME && b->client != a->client && !b->dead &&
		    b->cached_until_ns[a->a] > sim_now(l->s))
			sim_fail(l->s, "actor %u removed n%u, but actor %u may cache it for "
			    "%" PRIu64 " ns more", a->id, a->a, b->id,
			    b->cached_until_ns[a->a] - sim_now(l->s));
	}
}

static void
arena_done(struct actor *a)
{
	struct load *l = a->l;

	if (a->what == 2) {
		/* One in fifty for clocks that differ. */
		a->cached_until_ns[a->a] = a->rc != 0 ? 0 : sim_now(l->s) +
		    a->op.ttl_ns - a->op.ttl_ns / 50;
		if (a->rc != 0 && a->rc != -ENOENT)
			sim_fail(l->s, "actor %u: arena lookup: %d", a->id, a->rc);
		next(a);
		return;
	}
	if (a->rc == 0 && a->what == 1)
		arena_removed(a);
	if (a->rc == 0)
		l->arena_made[a->a] += a->what == 0 ? 1 : -1;
	else if (a->rc != (a->what == 0 ? -EEXIST : -ENOENT))
		sim_fail(l->s, "actor %u: arena operation %u: %d", a->id, a->what, a->rc);
	l->arena_flying[a->a]--;
	next(a);
}

static void
arena_act(struct actor *a)
{
	struct client *c = client_of(a);
	char name[16];

	a->a = (unsigned)rand_below(&a->rand, ARENA_NAMES);
	a->what = (unsigned)rand_below(&a->rand, 3);
	name_text(name, a->a);
	begin(a, "arena op %u on %s", a->what, name);
	a->then = arena_done;
	if (a->what == 2) {
		client_lookup(c, &a->op, op_done, &root, a->arena, name);
		return;
	}
	a->l->arena_flying[a->a]++;
	if (a->what == 0)
		client_mkdir(c, &a->op, op_done, &root, a->arena, name, 0755);
	else
		client_rmdir(c, &a->op, op_done, &root, a->arena, name);
}

static void
name_act(struct actor *a)
{
	struct client *c = client_of(a);
	char na[16], nb[16];

	if (rand_chance(&a->rand, 1, 3)) {
		arena_act(a);
		return;
	}
	a->a = (unsigned)rand_below(&a->rand, NAMES);
	a->b = (unsigned)rand_below(&a->rand, NAMES);
	a->what = (unsigned)rand_below(&a->rand, 12);
	/* A link needs an inode to start from. */
	if (a->what == 9 && a->names[a->a].type == 0)
		a->what = 10;
	name_text(na, a->a);
	name_text(nb, a->b);
	begin(a, "name op %u on %s, %s", a->what, na, nb);
	a->then = name_done;
	switch (a->what) {
	case 0:
		client_mknod(c, &a->op, op_done, &root, a->dir, na, S_IFREG | 0644, 0);
		return;
	case 1:
		client_file_create(c, &a->op, op_done, &root, a->dir, na, 0600,
		    O_RDWR | O_CREAT | O_EXCL, &a->file);
		return;
	case 2:
		client_mkdir(c, &a->op, op_done, &root, a->dir, na, 0755);
		return;
	case 3:
		client_symlink(c, &a->op, op_done, &root, a->dir, na, "somewhere/else");
		return;
	case 4: case 5:
		client_unlink(c, &a->op, op_done, &root, a->dir, na);
		return;
	case 6:
		client_rmdir(c, &a->op, op_done, &root, a->dir, na);
		return;
	case 7: case 8:
		client_rename(c, &a->op, op_done, &root, a->dir, na, a->dir, nb, 0);
		return;
	case 9:
		client_link(c, &a->op, op_done, &root, a->names[a->a].ino, a->dir, nb);
		return;
	default:
		client_lookup(c, &a->op, op_done, &root, a->dir, na);
		return;
	}
}

static void
act(struct actor *a)
{
	if (a->left == 0) {
		a->idle = a->file == NULL;
		if (a->file != NULL) {
			a->then = finished;
			client_flush(a->file, &a->op, op_done);
		}
		return;
	}
	a->left--;
	switch (a->kind) {
	case SHARED:
		shared_act(a);
		break;
	case PRIVATE:
		private_act(a);
		break;
	case NAME:
		name_act(a);
		break;
	}
}

/* ---- setting the stage, by one actor after the other ---- */

static void
made_dir(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "actor %u: mkdir: %d", a->id, a->rc);
	a->dir = a->op.entry->attr.ino;
	a->arena = a->l->arena;
	next(a);
}

static void
start_actors(struct load *l)
{
	l->started = true;
	for (unsigned i = 0; i < l->n; i++) {
		struct actor *a = &l->actors[i];
		struct client *c = sim_client(l->s, a->client);
		char name[24];

		if (a->dead)
			continue;
		snprintf(name, sizeof(name), "%c%u", "spn"[a->kind], a->id);
		a->losses = sim_losses(l->s, a->client);
		switch (a->kind) {
		case SHARED:
			a->target = i % SHARED_FILES;
			a->then = shared_opened;
			client_file_open(c, &a->op, op_done, &root,
			    l->shared_ino[a->target], O_RDWR, &a->file);
			break;
		case PRIVATE:
			a->then = private_opened;
			client_file_create(c, &a->op, op_done, &root, INO_ROOT, name,
			    0644, O_RDWR | O_CREAT, &a->file);
			break;
		case NAME:
			a->then = made_dir;
			client_mkdir(c, &a->op, op_done, &root, INO_ROOT, name, 0755);
			break;
		}
	}
}

static void stage(struct actor *a);

static void
staged_size(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "setting the size: %d", a->rc);
	a->a++;
	stage(a);
}

static void
staged_file(struct actor *a)
{
	struct msg_setattr set = { .valid = META_SET_SIZE,
		.size = SHARED_BLOCKS * BLOCK };

	if (a->rc != 0)
		sim_fail(a->l->s, "making a shared file: %d", a->rc);
	a->l->shared_ino[a->a] = a->op.entry->attr.ino;
	a->then = staged_size;
	client_setattr(client_of(a), &a->op, op_done, &root, a->op.entry->attr.ino, &set);
}

static void
staged_arena(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "making the arena: %d", a->rc);
	a->l->arena = a->op.entry->attr.ino;
	start_actors(a->l);
}

static void
stage(struct actor *a)
{
	char name[16];

	if (a->a == SHARED_FILES) {
		a->then = staged_arena;
		client_mkdir(client_of(a), &a->op, op_done, &root, INO_ROOT, "arena",
		    0755);
		return;
	}
	snprintf(name, sizeof(name), "shared%u", a->a);
	a->then = staged_file;
	client_mknod(client_of(a), &a->op, op_done, &root, INO_ROOT, name,
	    S_IFREG | 0644, 0);
}

struct load *
load_open(struct sim *s, unsigned ops)
{
	struct load *l = calloc(1, sizeof(*l));
	/* What was read ahead may be a second old: no register then. */
	enum kind kinds[] = { sim_conf(s)->client_read_ahead > 0 ? PRIVATE : SHARED,
		PRIVATE, NAME };

	assert(l != NULL);
	l->s = s;
	l->n = SIM_CLIENTS * 3;
	l->span = rand_chance(sim_rand(s), 1, 2) ? SHARED_BLOCKS :
	    1 + (unsigned)rand_below(sim_rand(s), 20);
	l->actors = calloc(l->n, sizeof(*l->actors));
	assert(l->actors != NULL);
	for (unsigned i = 0; i < l->n; i++) {
		struct actor *a = &l->actors[i];

		a->l = l;
		a->id = i;
		a->client = i % SIM_CLIENTS;
		a->kind = kinds[i / SIM_CLIENTS];
		a->left = ops;
		rand_seed(&a->rand, rand_u64(sim_rand(s)));
		a->data = malloc(PRIVATE_MAX);
		if (a->kind == PRIVATE) {
			a->model = calloc(1, PRIVATE_MAX);
			a->durable = calloc(1, PRIVATE_MAX);
			a->maybe = calloc(1, PRIVATE_MAX);
		}
	}
	l->checker.l = l;
	l->checker.data = malloc(PRIVATE_MAX);
	stage(&l->checker);
	l->more = more_open(s, ops);
	return l;
}

bool
load_done(void *load)
{
	struct load *l = load;

	if (!l->started)
		return false;
	for (unsigned i = 0; i < l->n; i++)
		if (!l->actors[i].idle && !l->actors[i].dead)
			return false;
	return more_done(l->more);
}

struct more_load *
load_more(struct load *l)
{
	return l->more;
}

void
load_client_died(struct load *l, unsigned client)
{
	more_client_died(l->more, client);
	for (unsigned i = 0; i < l->n; i++) {
		struct actor *a = &l->actors[i];

		if (a->client != client)
			continue;
		a->dead = true;
		a->file = NULL;
		clock_timer_stop(sim_clock(l->s), &a->think);
	}
}

/* ---- after healing: everything is read back by client 0 ---- */

static void check_next(struct actor *a);

static void
check_private_read(struct actor *a)
{
	struct load *l = a->l;
	struct actor *p = &l->actors[l->check_at];
	size_t at = 0, n = a->io.done;

	if (a->rc != 0)
		sim_fail(l->s, "reading back p%u: %d", p->id, a->rc);
	for (unsigned i = 0; i < a->io.iov_n; i++) {
		memcpy(a->data + at, a->io.iov[i].iov_base, a->io.iov[i].iov_len);
		at += a->io.iov[i].iov_len;
	}
	client_read_done(client_of(a), &a->io);
	client_release(a->file);
	a->file = NULL;
	if (!p->dead) {
		p->off = 0;
		p->len = PRIVATE_MAX;
		private_compare(p, a->data, n);
	} else
		private_survived(p, a->data, n);
	l->check_at++;
	check_next(a);
}

static void
check_private_opened(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "opening p%u: %d", a->l->actors[a->l->check_at].id,
		    a->rc);
	a->then = check_private_read;
	client_read(a->file, &a->io, io_done, 0, PRIVATE_MAX);
}

static void
check_private_found(struct actor *a)
{
	struct actor *p = &a->l->actors[a->l->check_at];

	if (a->rc == -ENOENT && p->dead && p->ino == 0) {
		a->l->check_at++;
		check_next(a);
		return;
	}
	if (a->rc != 0)
		sim_fail(a->l->s, "looking up p%u: %d", p->id, a->rc);
	a->then = check_private_opened;
	client_file_open(client_of(a), &a->op, op_done, &root, a->op.entry->attr.ino,
	    O_RDONLY, &a->file);
}

/* A listing of a names actor's directory is its model. */
static void
check_names_listed(struct actor *a)
{
	struct load *l = a->l;
	struct actor *p = &l->actors[l->check_at];
	unsigned seen = 0, want = 0;

	if (a->rc != 0)
		sim_fail(l->s, "listing n%u: %d", p->id, a->rc);
	for (uint32_t i = 0; i < a->op.readdir->entries.n; i++) {
		const struct msg_dirent *d = &a->op.readdir->entries.v[i];
		unsigned k = d->name.n == 2 ? (unsigned)(d->name.p[1] - '0') : NAMES;

		if (k >= NAMES || p->names[k].type != d->type ||
		    p->names[k].ino != d->ino)
			sim_fail(l->s, "n%u: entry %.*s should not be there", p->id,
			    (int)d->name.n, d->name.p);
		seen++;
	}
	for (unsigned k = 0; k < NAMES; k++)
		want += p->names[k].type != 0;
	if (seen != want)
		sim_fail(l->s, "n%u: %u entries, not %u", p->id, seen, want);
	l->check_at++;
	check_next(a);
}

static void
check_arena_listed(struct actor *a)
{
	struct load *l = a->l;
	int there[ARENA_NAMES] = { 0 };

	if (a->rc != 0)
		sim_fail(l->s, "listing the arena: %d", a->rc);
	for (uint32_t i = 0; i < a->op.readdir->entries.n; i++)
		there[a->op.readdir->entries.v[i].name.p[1] - '0'] = 1;
	for (unsigned k = 0; k < ARENA_NAMES; k++)
		if (l->arena_flying[k] == 0 && there[k] != l->arena_made[k])
			sim_fail(l->s, "arena: n%u is there %d times, but %d more creates "
			    "than removes succeeded", k, there[k], l->arena_made[k]);
	l->checked = true;
}

static void
check_shared_read(struct actor *a)
{
	a->target = (unsigned)(a->l->check_at - a->l->n);
	a->l->check_at++;
	a->block = 0;
	a->blocks = SHARED_BLOCKS;
	if (a->rc != 0 || a->io.done != SHARED_BLOCKS * BLOCK)
		sim_fail(a->l->s, "reading back shared%u: %d", a->target, a->rc);
	for (unsigned i = 0, at = 0; i < a->io.iov_n; i++) {
		memcpy(a->data + at, a->io.iov[i].iov_base, a->io.iov[i].iov_len);
		at += (unsigned)a->io.iov[i].iov_len;
	}
	client_read_done(client_of(a), &a->io);
	client_release(a->file);
	a->file = NULL;
	for (unsigned i = 0; i < SHARED_BLOCKS; i++)
		judge_block(a, a->target, i, a->data + i * BLOCK, a->begin_ns,
		    sim_now(a->l->s));
	check_next(a);
}

static void
check_shared_opened(struct actor *a)
{
	if (a->rc != 0)
		sim_fail(a->l->s, "opening a shared file: %d", a->rc);
	a->then = check_shared_read;
	a->begin_ns = sim_now(a->l->s);
	client_read(a->file, &a->io, io_done, 0, SHARED_BLOCKS * BLOCK);
}

static void
check_next(struct actor *a)
{
	struct load *l = a->l;
	struct client *c = client_of(a);
	char name[24];

	while (l->check_at < l->n) {
		struct actor *p = &l->actors[l->check_at];

		if (p->kind == PRIVATE) {
			snprintf(name, sizeof(name), "p%u", p->id);
			a->then = check_private_found;
			client_lookup(c, &a->op, op_done, &root, INO_ROOT, name);
			return;
		}
		if (p->kind == NAME && !p->dead) {
			a->then = check_names_listed;
			client_readdir(c, &a->op, op_done, &root, p->dir, 0, 65536, true);
			return;
		}
		l->check_at++;
	}
	if (l->check_at < l->n + SHARED_FILES) {
		a->then = check_shared_opened;
		client_file_open(c, &a->op, op_done, &root,
		    l->shared_ino[l->check_at - l->n], O_RDONLY, &a->file);
		return;
	}
	a->then = check_arena_listed;
	client_readdir(c, &a->op, op_done, &root, l->arena, 0, 65536, false);
}

void
load_check(struct load *l)
{
	check_next(&l->checker);
}

bool
load_checked(void *load)
{
	return ((struct load *)load)->checked;
}

void
load_close(struct load *l)
{
	if (l == NULL)
		return;
	for (unsigned i = 0; i < l->n; i++) {
		struct actor *a = &l->actors[i];

		clock_timer_stop(sim_clock(l->s), &a->think);
		free(a->data);
		free(a->model);
		free(a->durable);
		free(a->maybe);
	}
	more_close(l->more);
	free(l->checker.data);
	free(l->actors);
	free(l->writes);
	free(l);
}
