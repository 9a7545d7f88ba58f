/* SPDX-License-Identifier: MIT */
/* load_more.c - more actors, each with an oracle of its own:
 *
 *   orphan   writes a file, takes its name away (unlink, or a rename over it), goes on
 *	      writing and reading through the handle
 *   cutter   all clients write blocks of one file, fsync, truncate it, open it with O_TRUNC;
 *	      every block is a register in which a truncation writes zeros
 *   lister   a directory of some hundred names that stay, and some that come and go: a
 *	      listing shows each name that stays exactly once
 *   attrs    mode, times and hard links of a file against a model */
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
#define CUT_BLOCKS	48u		/* three chunks */
#define ORPHAN_MAX	(96u << 10)
#define STAY_MAX	400u
#define DATA_MAX	(CUT_BLOCKS * BLOCK)
#define LINKS		4u

static const struct client_cred root = { 0 };

enum more_kind { ORPHAN, CUTTER, LISTER, ATTRS, KINDS };

struct more {
	struct more_load *l;
	struct client_op  op;
	struct client_io  io;
	struct clock_timer think;
	struct rand	  rand;
	enum more_kind	  kind;
	unsigned	  id, client, left;
	bool		  dead, idle;
	void		(*then)(struct more *);
	int		  rc;
	char		  doing[64];
	struct client_file *file, *other;
	ino_id		  dir, ino;
	uint8_t		 *data;
	uint64_t	  begin_ns;
	/* orphan */
	uint8_t		 *model;
	uint32_t	  size, off, len;
	unsigned	  step, losses, round;
	/* cutter */
	unsigned	  block, blocks, first;	/* writes [first, first + blocks) of l->writes */
	/* lister */
	uint64_t	  cookie;
	unsigned	  made, pages;
	uint8_t		  seen[STAY_MAX];
	bool		  there[8];
	unsigned	  churn;
	/* attrs */
	uint32_t	  mode, nlink;
	int64_t		  mtime;
	unsigned	  link;
	bool		  linked[LINKS];
};

/* Value of a block: a stamp from 1, or 0 for zeros; one record a block that was written. */
struct cut_write {
	uint64_t begin_ns, end_ns;	/* end: UINT64_MAX while not acknowledged */
	uint32_t block;
	bool	 zeros;			/* of @block and all behind it */
};

struct more_load {
	struct sim	*s;
	struct more	*actors;
	unsigned	 n;
	ino_id		 cut_ino;
	bool		 cut_making;
	struct cut_write *writes;
	size_t		 write_n, write_cap;
};

static void act(struct more *a);

static void
begin(struct more *a, void (*then)(struct more *), const char *fmt, ...)
	    __attribute__((format(printf, 3, 4)));

static void
begin(struct more *a, void (*then)(struct more *), const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->doing, sizeof(a->doing), fmt, ap);
	va_end(ap);
	a->then = then;
	sim_trace(a->l->s, "more %u: %s", a->id, a->doing);
}

static struct client *
client_of(const struct more *a)
{
	return sim_client(a->l->s, a->client);
}

static void
op_done(struct client_op *op, int rc)
{
	struct more *a = container_of(op, struct more, op);

	a->rc = rc;
	sim_trace(a->l->s, "more %u: %s: %d", a->id, a->doing, rc);
	a->then(a);
}

static void
io_done(struct client_io *io, int rc)
{
	struct more *a = container_of(io, struct more, io);

	a->rc = rc;
	sim_trace(a->l->s, "more %u: %s: %d", a->id, a->doing, rc);
	a->then(a);
}

static void
thought(struct clock_timer *t)
{
	struct more *a = container_of(t, struct more, think);

	if (!a->dead)
		act(a);
}

static void
pause_ns(struct more *a, uint64_t max_ns)
{
	struct clock *c = sim_clock(a->l->s);

	clock_timer_start(c, &a->think, clock_now(c) + 
	    rand_below(&a->rand, sim_pace(a->l->s, max_ns)), thought);
}

static void
must(struct more *a, int want)
{
	if (a->rc != want)
		sim_fail(a->l->s, "more %u: %s: %d, not %d", a->id, a->doing, a->rc, want);
}

static void
next(struct more *a)
{
	must(a, 0);
	pause_ns(a, 30 * NS_PER_MS);
}

/* The bytes of a read that has ended, into a->data; how many. */
static size_t
take(struct more *a)
{
	size_t at = 0;

	for (unsigned i = 0; i < a->io.iov_n; i++) {
		assert(at + a->io.iov[i].iov_len <= DATA_MAX);
		memcpy(a->data + at, a->io.iov[i].iov_base, a->io.iov[i].iov_len);
		at += a->io.iov[i].iov_len;
	}
	assert(at == a->io.done);
	client_read_done(client_of(a), &a->io);
	return at;
}

static void
drop_files(struct more *a)
{
	if (a->file != NULL)
		client_release(a->file);
	if (a->other != NULL)
		client_release(a->other);
	a->file = a->other = NULL;
}

/* ---- orphan ---- */

/* The file may be gone for real when our session was over meanwhile; an error is right then,
 * wrong bytes never are. */
static bool
orphan_lost(struct more *a)
{
	if (a->rc == 0)
		return false;
	if (sim_losses(a->l->s, a->client) == a->losses)
		sim_fail(a->l->s, "more %u: %s: %d, and no session was lost", a->id,
		    a->doing, a->rc);
	a->step = 9;
	pause_ns(a, 30 * NS_PER_MS);
	return true;
}

static void
orphan_wrote(struct more *a)
{
	if (orphan_lost(a))
		return;
	pause_ns(a, rand_chance(&a->rand, 1, 8) ? 3 * NS_PER_S : 30 * NS_PER_MS);
}

static void
orphan_write(struct more *a)
{
	bool direct = rand_chance(&a->rand, 1, 2);

	a->len = 1 + (uint32_t)rand_below(&a->rand, 40000);
	a->off = (uint32_t)rand_below(&a->rand, ORPHAN_MAX - a->len);
	for (uint32_t i = 0; i < a->len; i++)
		a->data[i] = (uint8_t)(1 + (a->round * 31 + i * 7 + (i >> 8)) % 255);
	memcpy(a->model + a->off, a->data, a->len);
	if (a->off + a->len > a->size)
		a->size = a->off + a->len;
	begin(a, orphan_wrote, "orphan %s %u+%u", direct ? "write" : "buffer", a->off, a->len);
	client_write(a->file, &a->io, io_done, a->off, a->data, a->len, direct);
}

static void
orphan_was_read(struct more *a)
{
	size_t n;

	if (orphan_lost(a))
		return;
	n = take(a);
	if (sim_losses(a->l->s, a->client) != a->losses) {
		a->step = 9;		/* closing tells whether something is lost */
		pause_ns(a, 30 * NS_PER_MS);
		return;
	}
	if (n != a->size)
		sim_fail(a->l->s, "more %u: an open file without a name: %zu bytes of %u",
		    a->id, n, a->size);
	for (size_t i = 0; i < n; i++)
		if (a->data[i] != a->model[i])
			sim_fail(a->l->s, "more %u: an open file without a name: byte %zu "
			    "is %u, not %u", a->id, i, a->data[i], a->model[i]);
	pause_ns(a, 30 * NS_PER_MS);
}

static void
orphan_made(struct more *a)
{
	if (a->rc != 0)
		must(a, 0);
	a->losses = sim_losses(a->l->s, a->client);
	pause_ns(a, 30 * NS_PER_MS);
}

static void
orphan_ended(struct more *a)
{
	/* Write-back of what was lost fails, and is told of. */
	if (a->rc != 0 && sim_losses(a->l->s, a->client) == a->losses)
		must(a, 0);
	drop_files(a);
	a->step = 0;
	pause_ns(a, 30 * NS_PER_MS);
}

static void
orphan_act(struct more *a)
{
	struct client *c = client_of(a);
	char name[32], other[32];

	snprintf(name, sizeof(name), "o%u.%u", a->id, a->round);
	snprintf(other, sizeof(other), "t%u.%u", a->id, a->round);
	switch (a->step++) {
	case 0:
		a->round++;
		snprintf(name, sizeof(name), "o%u.%u", a->id, a->round);
		a->size = 0;
		memset(a->model, 0, ORPHAN_MAX);
		begin(a, orphan_made, "orphan create %s", name);
		client_file_create(c, &a->op, op_done, &root, INO_ROOT, name, 0644,
		    O_RDWR | O_CREAT | O_EXCL, &a->file);
		return;
	case 1: case 4:
		orphan_write(a);
		return;
	case 2:
		if (!rand_chance(&a->rand, 1, 2)) {
			begin(a, next, "orphan unlink %s", name);
			client_unlink(c, &a->op, op_done, &root, INO_ROOT, name);
			a->step = 4;
			return;
		}
		begin(a, next, "orphan create %s", other);
		client_file_create(c, &a->op, op_done, &root, INO_ROOT, other, 0644,
		    O_RDWR | O_CREAT | O_EXCL, &a->other);
		return;
	case 3:
		begin(a, next, "orphan rename over %s", name);
		client_rename(c, &a->op, op_done, &root, INO_ROOT, other, INO_ROOT, name, 0);
		return;
	case 5: case 7:
		begin(a, orphan_was_read, "orphan read");
		client_read(a->file, &a->io, io_done, 0, DATA_MAX);
		return;
	case 6:
		orphan_write(a);
		return;
	default:
		begin(a, orphan_ended, "orphan close");
		client_flush(a->file, &a->op, op_done);
		return;
	}
}

/* ---- cutter ---- */

/* The operation has failed, and may have been done: open the file again. */
static bool
cut_lost(struct more *a)
{
	if (a->rc == 0)
		return false;
	if ((a->rc != -EIO && a->rc != -ESTALE) ||
	    sim_losses(a->l->s, a->client) == a->losses)
		must(a, 0);
	drop_files(a);
	pause_ns(a, 30 * NS_PER_MS);
	return true;
}

static struct cut_write *
cut_note(struct more_load *l, uint32_t block, bool zeros)
{
	if (l->write_n == l->write_cap) {
		l->write_cap = l->write_cap == 0 ? 1024 : 2 * l->write_cap;
		l->writes = realloc(l->writes, l->write_cap * sizeof(*l->writes));
		assert(l->writes != NULL);
	}
	l->writes[l->write_n] = (struct cut_write){ sim_now(l->s), UINT64_MAX, block, zeros };
	return &l->writes[l->write_n++];
}

static bool
touches(const struct cut_write *w, uint32_t block)
{
	return w->zeros ? w->block <= block : w->block == block;
}

/* Was what @w wrote (NULL: the zeros of the beginning) replaced for certain before @begin? */
static bool
replaced(const struct more_load *l, const struct cut_write *w, uint32_t block, uint64_t from)
{
	for (size_t i = 0; i < l->write_n; i++) {
		const struct cut_write *x = &l->writes[i];

		if (x != w && touches(x, block) && x->end_ns < from &&
		    (w == NULL || w->end_ns < x->begin_ns))
			return true;
	}
	return false;
}

static void
cut_judge(struct more *a, uint32_t block, const uint8_t *p)
{
	struct more_load *l = a->l;
	uint64_t stamp, s;
	bool right = false;

	memcpy(&stamp, p, 8);
	for (unsigned i = 0; i < BLOCK; i += 8) {
		memcpy(&s, p + i, 8);
		if (s != stamp)
			sim_fail(l->s, "more %u: cut file, block %u: mixed content %" PRIu64
			    " and %" PRIu64 " at %u", a->id, block, stamp, s, i);
	}
	if (stamp > l->write_n || (stamp != 0 && (l->writes[stamp - 1].zeros ||
	    l->writes[stamp - 1].block != block)))
		sim_fail(l->s, "more %u: cut file, block %u: foreign stamp %" PRIu64, a->id,
		    block, stamp);
	if (stamp != 0) {
		if (replaced(l, &l->writes[stamp - 1], block, a->begin_ns))
			sim_fail(l->s, "more %u: cut file, block %u: %" PRIu64 " is back",
			    a->id, block, stamp);
		return;
	}
	right = !replaced(l, NULL, block, a->begin_ns);
	for (size_t i = 0; i < l->write_n && !right; i++)
		right = l->writes[i].zeros && touches(&l->writes[i], block) &&
		    !replaced(l, &l->writes[i], block, a->begin_ns);
	if (!right)
		sim_fail(l->s, "more %u: cut file, block %u: zeros at %" PRIu64
		    ", but something was acknowledged", a->id, block, a->begin_ns);
}

static void
cut_was_read(struct more *a)
{
	size_t n;

	if (cut_lost(a))
		return;
	n = take(a);
	memset(a->data + n, 0, DATA_MAX - n);
	for (unsigned i = 0; i < a->blocks; i++)
		cut_judge(a, a->block + i, a->data + i * BLOCK);
	pause_ns(a, 30 * NS_PER_MS);
}

static void
cut_sized(struct more *a)
{
	if (cut_lost(a))
		return;
	begin(a, cut_was_read, "cut read %u+%u", a->block, a->blocks);
	client_read(a->file, &a->io, io_done, (uint64_t)a->block * BLOCK,
	    (uint64_t)a->blocks * BLOCK);
}

static void
cut_synced(struct more *a)
{
	if (cut_lost(a))
		return;
	for (unsigned i = 0; i < a->blocks; i++)
		a->l->writes[a->first + i].end_ns = sim_now(a->l->s);
	pause_ns(a, 30 * NS_PER_MS);
}

static void
cut_wrote(struct more *a)
{
	if (cut_lost(a))
		return;
	begin(a, cut_synced, "cut fsync");
	client_fsync(a->file, &a->op, op_done);
}

static void
cut_truncated(struct more *a)
{
	if (cut_lost(a))
		return;
	a->l->writes[a->first].end_ns = sim_now(a->l->s);
	if (a->other != NULL) {		/* O_TRUNC */
		client_release(a->file);
		a->file = a->other;
		a->other = NULL;
	}
	pause_ns(a, 30 * NS_PER_MS);
}

static void
cut_opened(struct more *a)
{
	must(a, 0);
	if (a->l->cut_ino == 0)
		a->l->cut_ino = a->op.entry->attr.ino;
	pause_ns(a, 30 * NS_PER_MS);
}

static void
cut_act(struct more *a)
{
	struct msg_setattr set = { .valid = META_SET_SIZE };
	struct more_load *l = a->l;
	struct client *c = client_of(a);

	if (a->file == NULL)
		a->losses = sim_losses(l->s, a->client);
	if (a->file == NULL && l->cut_ino == 0) {
		if (l->cut_making) {
			a->left++;
			pause_ns(a, 100 * NS_PER_MS);
			return;
		}
		l->cut_making = true;
		begin(a, cut_opened, "cut create");
		client_file_create(c, &a->op, op_done, &root, INO_ROOT, "cut", 0644,
		    O_RDWR | O_CREAT, &a->file);
		return;
	}
	if (a->file == NULL) {
		begin(a, cut_opened, "cut open");
		client_file_open(c, &a->op, op_done, &root, l->cut_ino, O_RDWR, &a->file);
		return;
	}
	a->begin_ns = sim_now(l->s);
	a->first = (unsigned)l->write_n;
	a->blocks = 1 + (unsigned)rand_below(&a->rand, 6);
	a->block = (unsigned)rand_below(&a->rand, CUT_BLOCKS - a->blocks + 1);
	switch (rand_below(&a->rand, 8)) {
	case 0:
		cut_note(l, 0, true);
		begin(a, cut_truncated, "cut open O_TRUNC");
		client_file_open(c, &a->op, op_done, &root, l->cut_ino, O_RDWR | O_TRUNC,
		    &a->other);
		return;
	case 1:
		cut_note(l, a->block, true);
		set.size = (uint64_t)a->block * BLOCK;
		begin(a, cut_truncated, "cut truncate %u", a->block);
		client_setattr(c, &a->op, op_done, &root, l->cut_ino, &set);
		return;
	case 2: case 3: case 4:
		begin(a, cut_sized, "cut getattr");
		client_getattr(c, &a->op, op_done, &root, l->cut_ino);
		return;
	default:
		for (unsigned i = 0; i < a->blocks; i++) {
			uint64_t stamp;

			cut_note(l, a->block + i, false);
			stamp = l->write_n;
			for (unsigned k = 0; k < BLOCK; k += 8)
				memcpy(a->data + i * BLOCK + k, &stamp, 8);
		}
		begin(a, cut_wrote, "cut write %u+%u", a->block, a->blocks);
		client_write(a->file, &a->io, io_done, (uint64_t)a->block * BLOCK, a->data,
		    (uint64_t)a->blocks * BLOCK, true);
		return;
	}
}

/* ---- lister ---- */

static void
listed(struct more *a)
{
	const struct msg_readdir_rep *rep = a->op.readdir;

	must(a, 0);
	for (uint32_t i = 0; i < rep->entries.n; i++) {
		const struct msg_dirent *d = &rep->entries.v[i];
		char name[16] = { 0 };
		unsigned k;

		if (d->name.n >= sizeof(name))
			sim_fail(a->l->s, "more %u: a long name in the list", a->id);
		memcpy(name, d->name.p, d->name.n);
		a->cookie = d->cookie;
		if (sscanf(name, "stay%u", &k) == 1 && k < a->made && a->seen[k]++ != 0)
			sim_fail(a->l->s, "more %u: %s is listed twice", a->id, name);
	}
	a->pages++;
	if (!rep->eof) {
		/* Names come and go between two pages. */
		pause_ns(a, 10 * NS_PER_MS);
		return;
	}
	for (unsigned k = 0; k < a->made; k++)
		if (a->seen[k] != 1)
			sim_fail(a->l->s, "more %u: stay%u is listed %u times in %u pages",
			    a->id, k, a->seen[k], a->pages);
	memset(a->seen, 0, sizeof(a->seen));
	a->cookie = 0;
	a->pages = 0;
	pause_ns(a, 30 * NS_PER_MS);
}

static void
lister_made(struct more *a)
{
	must(a, 0);
	if (a->dir == 0)
		a->dir = a->op.entry->attr.ino;
	else
		a->made++;
	pause_ns(a, NS_PER_MS);
}

static void
churned(struct more *a)
{
	must(a, 0);
	a->there[a->churn] = !a->there[a->churn];
	pause_ns(a, 5 * NS_PER_MS);
}

static void
lister_act(struct more *a)
{
	struct client *c = client_of(a);
	char name[16];

	if (a->dir == 0) {
		snprintf(name, sizeof(name), "list%u", a->id);
		begin(a, lister_made, "lister mkdir");
		client_mkdir(c, &a->op, op_done, &root, INO_ROOT, name, 0755);
		return;
	}
	/* No new names that stay in the middle of a listing. */
	if (a->cookie == 0 && a->made < STAY_MAX && (a->made < 20 ||
	    rand_chance(&a->rand, 4, 5))) {
		snprintf(name, sizeof(name), "stay%u", a->made);
		begin(a, lister_made, "lister makes %s", name);
		/* A command that takes more than one sector of the log. */
		if (a->made % 2 == 1) {
			memset(a->data, 'x', 3000);
			a->data[1 + rand_below(&a->rand, 2999)] = '\0';
			client_symlink(c, &a->op, op_done, &root, a->dir, name,
			    (const char *)a->data);
			return;
		}
		client_mknod(c, &a->op, op_done, &root, a->dir, name, S_IFREG | 0600, 0);
		return;
	}
	if (rand_chance(&a->rand, 1, 2)) {
		a->churn = (unsigned)rand_below(&a->rand, 8);
		snprintf(name, sizeof(name), "churn%u", a->churn);
		begin(a, churned, "lister %s %s", a->there[a->churn] ? "unlink" : "mknod",
		    name);
		if (a->there[a->churn])
			client_unlink(c, &a->op, op_done, &root, a->dir, name);
		else
			client_mknod(c, &a->op, op_done, &root, a->dir, name,
			    S_IFREG | 0600, 0);
		return;
	}
	begin(a, listed, "lister readdir %" PRIx64, a->cookie);
	client_readdir(c, &a->op, op_done, &root, a->dir, a->cookie,
	    256 + (uint32_t)rand_below(&a->rand, 4000), rand_chance(&a->rand, 1, 2));
}

/* ---- attrs ---- */

static void
attrs_same(struct more *a)
{
	const struct msg_attr *t;

	must(a, 0);
	t = &a->op.entry->attr;
	if ((t->mode & 07777) != a->mode || t->nlink != a->nlink ||
	    (a->mtime != 0 && t->mtime != a->mtime))
		sim_fail(a->l->s, "more %u: %s: mode %o links %u mtime %" PRId64 ", not %o %u %"
		    PRId64, a->id, a->doing, t->mode & 07777, t->nlink, t->mtime, a->mode,
		    a->nlink, a->mtime);
	pause_ns(a, 30 * NS_PER_MS);
}

static void
attrs_made(struct more *a)
{
	must(a, 0);
	a->ino = a->op.entry->attr.ino;
	a->mode = 0644;
	a->nlink = 1;
	pause_ns(a, 30 * NS_PER_MS);
}

static void
attrs_linked(struct more *a)
{
	must(a, 0);
	a->nlink += a->linked[a->link] ? -1u : 1u;
	a->linked[a->link] = !a->linked[a->link];
	pause_ns(a, 30 * NS_PER_MS);
}

static void
attrs_act(struct more *a)
{
	struct msg_setattr set = { 0 };
	struct client *c = client_of(a);
	char name[24];

	if (a->ino == 0) {
		snprintf(name, sizeof(name), "a%u", a->id);
		begin(a, attrs_made, "attrs mknod");
		client_mknod(c, &a->op, op_done, &root, INO_ROOT, name, S_IFREG | 0644, 0);
		return;
	}
	switch (rand_below(&a->rand, 4)) {
	case 0:
		set.valid = META_SET_MODE;
		set.mode = a->mode = (uint32_t)rand_below(&a->rand, 01000);
		begin(a, attrs_same, "attrs chmod %o", a->mode);
		client_setattr(c, &a->op, op_done, &root, a->ino, &set);
		return;
	case 1:
		set.valid = META_SET_MTIME;
		set.mtime = a->mtime = 1 + (int64_t)rand_below(&a->rand, 1u << 30);
		begin(a, attrs_same, "attrs mtime %" PRId64, a->mtime);
		client_setattr(c, &a->op, op_done, &root, a->ino, &set);
		return;
	case 2:
		a->link = (unsigned)rand_below(&a->rand, LINKS);
		snprintf(name, sizeof(name), "a%u.%u", a->id, a->link);
		begin(a, attrs_linked, "attrs %s %s", a->linked[a->link] ? "unlink" : "link",
		    name);
		if (a->linked[a->link])
			client_unlink(c, &a->op, op_done, &root, INO_ROOT, name);
		else
			client_link(c, &a->op, op_done, &root, a->ino, INO_ROOT, name);
		return;
	default:
		begin(a, attrs_same, "attrs getattr");
		client_getattr(c, &a->op, op_done, &root, a->ino);
		return;
	}
}

/* ---- all of them ---- */

static void
act(struct more *a)
{
	if (a->left == 0 && !(a->kind == ORPHAN && a->step > 0)) {
		drop_files(a);
		a->idle = true;
		return;
	}
	if (a->left > 0)
		a->left--;
	switch (a->kind) {
	case ORPHAN:
		orphan_act(a);
		break;
	case CUTTER:
		cut_act(a);
		break;
	case LISTER:
		lister_act(a);
		break;
	case ATTRS:
	case KINDS:
		attrs_act(a);
		break;
	}
}

struct more_load *
more_open(struct sim *s, unsigned ops)
{
	/* Two may cut where nothing is read ahead. */
	static const enum more_kind kinds[] = { ORPHAN, CUTTER, CUTTER, LISTER, ATTRS, ORPHAN,
		CUTTER };
	struct more_load *l = calloc(1, sizeof(*l));

	assert(l != NULL);
	l->s = s;
	l->n = sizeof(kinds) / sizeof(kinds[0]);
	l->actors = calloc(l->n, sizeof(*l->actors));
	assert(l->actors != NULL);
	for (unsigned i = 0; i < l->n; i++) {
		struct more *a = &l->actors[i];

		a->l = l;
		a->id = i;
		a->kind = kinds[i];
		if (a->kind == CUTTER && sim_conf(s)->client_read_ahead > 0)
			a->kind = ATTRS;
		a->client = i % SIM_CLIENTS;
		a->left = ops;
		rand_seed(&a->rand, rand_u64(sim_rand(s)));
		a->data = malloc(DATA_MAX);
		a->model = calloc(1, ORPHAN_MAX);
		assert(a->data != NULL && a->model != NULL);
		pause_ns(a, 50 * NS_PER_MS);
	}
	return l;
}

ino_id
more_cut_ino(const struct more_load *l)
{
	return l->cut_ino;
}

bool
more_done(const struct more_load *l)
{
	for (unsigned i = 0; i < l->n; i++)
		if (!l->actors[i].idle && !l->actors[i].dead)
			return false;
	return true;
}

void
more_client_died(struct more_load *l, unsigned client)
{
	for (unsigned i = 0; i < l->n; i++) {
		struct more *a = &l->actors[i];

		if (a->client != client)
			continue;
		if (a->kind == CUTTER && l->cut_ino == 0)
			l->cut_making = false;
		a->dead = true;
		a->file = a->other = NULL;
		clock_timer_stop(sim_clock(l->s), &a->think);
	}
}

void
more_close(struct more_load *l)
{
	if (l == NULL)
		return;
	for (unsigned i = 0; i < l->n; i++) {
		clock_timer_stop(sim_clock(l->s), &l->actors[i].think);
		free(l->actors[i].data);
		free(l->actors[i].model);
	}
	free(l->actors);
	free(l->writes);
	free(l);
}
