/* SPDX-License-Identifier: MIT */
/* table_lmdb.c - reads through one long read transaction on the owner's thread, batches
 * on a writer thread.
 *
 *   owner: write() --batch--> writer: one LMDB transaction, synced --post--> owner:
 *          renew the read transaction, call back
 *
 * LMDB syncs the data pages, then writes the meta page through a descriptor opened with
 * O_DSYNC: a batch is on disk as a whole or not at all, and is there when we call back.
 * Between batches the read transaction is at the newest state, so no old pages are kept
 * from reuse for longer than one batch.
 *
 * Invariants:
 *  1. The writer touches only env, dbi, writer_dead and the batch; the rest is the
 *     owner's, which looks at writer_dead after a batch.
 *  2. At most one batch is in flight (the table sees to that).
 *  3. Pages are touched under a guard (conf/fault.h) alone: what cannot be read is an
 *     error then, not the end of the process.  So results are copies, and after a fault
 *     nothing but closing is done with the environment.
 *  4. A completion on its way to the owner outlives the store: it is a block of its own,
 *     and finds store NULL when the store has been closed. */
#include "conf/table_lmdb.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "conf/err.h"
#include "conf/fault.h"
#include "conf/table_lmdb_file.h"

#define FULL_TRIES	50u		/* a batch that finds no space: 10 s */
#define PATIENCE_S	3	/* of who closes, with a batch under way */
#define FULL_PAUSE_NS	(200 * 1000 * 1000)

/* What a look-up found, out of the map. */
struct found {
	uint8_t	key[TABLE_KEY_MAX + 12];
	size_t	key_len;
	uint8_t	*value;			/* owned */
	size_t	value_len, value_max;
};

struct store;

/* A second read transaction, as old as the image. */
struct image {
	struct table_image image;
	struct store	  *store;
	struct list	   node;	/* in store->images */
	MDB_txn		  *txn;		/* NULL: stale */
	MDB_cursor	  *cursor;
	struct found	   found;
	uint64_t	   bytes, max_bytes;	/* kept for it, at most */
};

struct completion {
	struct clock_post post;
	struct store	 *store;	/* NULL: closed; free me */
	struct table_batch *batch;
};

struct store {
	struct table_store store;
	int		   fd;		/* holds the lock on the file; -1: not open */
	MDB_env		  *env;
	MDB_dbi		   dbi;
	MDB_txn		  *read;
	MDB_cursor	  *cursor;
	bool		   at_key;	/* the cursor stands on an entry */
	struct found	   found;
	int		   read_rc;	/* why reads fail, or 0 */
	bool		   dead;	/* a read was cut short by a fault */
	bool		   writer_dead;	/* the writer's: a batch was */
	bool		   no_space;	/* the writer's: the file system has none */
	uint64_t	   used;	/* bytes, as of the last batch */
	size_t		   page;
	struct list	   images;
	struct completion *done;	/* kept for the next batch, or on its way */
	bool		   done_posted;

	pthread_t	   thread;
	bool		   started;
	pthread_mutex_t	   lock;
	pthread_cond_t	   wake;
	struct completion *todo;	/* under lock */
	bool		   stop;	/* under lock, and so are the next two */
	bool		   writing;
	bool		   left;	/* nobody waits any more: touch nothing */
};

static struct store *
of(struct table_store *s)
{
	return container_of(s, struct store, store);
}

/* What LMDB says, in our terms. */
static int
translate(int rc)
{
	switch (rc) {
	case 0:
		return 0;
	case MDB_NOTFOUND:
		return -ENOENT;
	case MDB_MAP_FULL:
	case ENOSPC:
	case EDQUOT:
		return -ENOSPC;
	case ENOMEM:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

/* ---- reads ---- */

static int
copy_out(struct found *f, const MDB_val *k, const MDB_val *v)
{
	if (v->mv_size > f->value_max || f->value == NULL) {
		size_t n = v->mv_size < 4096 ? 4096 : v->mv_size;
		uint8_t *p = realloc(f->value, n);

		if (p == NULL)
			return ENOMEM;
		f->value = p;
		f->value_max = n;
	}
	if (k != NULL) {
		if (k->mv_size > sizeof(f->key))
			return MDB_CORRUPTED;
		memcpy(f->key, k->mv_data, k->mv_size);
		f->key_len = k->mv_size;
	}
	memcpy(f->value, v->mv_data, v->mv_size);
	f->value_len = v->mv_size;
	return 0;
}

struct look {
	struct store *s;
	MDB_txn	     *txn;
	MDB_cursor   *cursor;
	struct found *f;
	const void   *key;
	size_t	      key_len;
	bool	      after;
	struct image *image;
};

/* What was cut short by a fault must not be gone on with. */
static int
look(struct look *l, int (*fn)(void *))
{
	int rc;

	if (l->s->read_rc != 0)
		return l->s->read_rc;
	if ((rc = fault_guard(fn, l)) != -EFAULT)
		return translate(rc);
	l->s->at_key = false;
	l->s->dead = true;
	return l->s->read_rc = -EIO;
}

static int
look_get(void *arg)
{
	struct look *l = arg;
	MDB_val k = { l->key_len, (void *)(uintptr_t)l->key }, v;
	int rc = mdb_get(l->txn, l->s->dbi, &k, &v);

	return rc != 0 ? rc : copy_out(l->f, NULL, &v);
}

static int
get(struct table_store *ts, const void *key, size_t key_len, const void **value,
    size_t *value_len)
{
	struct store *s = of(ts);
	struct look l = { .s = s, .txn = s->read, .f = &s->found, .key = key,
	    .key_len = key_len };
	int rc = look(&l, look_get);

	*value = s->found.value;
	*value_len = s->found.value_len;
	return rc;
}

static bool
stands_at(const struct store *s, const void *key, size_t key_len)
{
	MDB_val k, v;

	return s->at_key &&
	    mdb_cursor_get(s->cursor, &k, &v, MDB_GET_CURRENT) == 0 &&
	    k.mv_size == key_len && memcmp(k.mv_data, key, key_len) == 0;
}

static int
look_seek(void *arg)
{
	struct look *l = arg;
	MDB_val k = { l->key_len, (void *)(uintptr_t)l->key }, v;
	bool own = l->cursor == l->s->cursor;
	int rc;

	/* Walks ask for what follows the last answer: one step, no search. */
	if (own && l->after && stands_at(l->s, l->key, l->key_len))
		rc = mdb_cursor_get(l->cursor, &k, &v, MDB_NEXT);
	else {
		rc = mdb_cursor_get(l->cursor, &k, &v, l->key_len > 0 ?
		    MDB_SET_RANGE : MDB_FIRST);
		if (rc == 0 && l->after && k.mv_size == l->key_len &&
		    memcmp(k.mv_data, l->key, l->key_len) == 0)
			rc = mdb_cursor_get(l->cursor, &k, &v, MDB_NEXT);
	}
	if (own)
		l->s->at_key = rc == 0;
	return rc != 0 ? rc : copy_out(l->f, &k, &v);
}

static int
seek_with(struct look *l, const void **found, size_t *found_len, const void **value,
    size_t *value_len)
{
	int rc = look(l, look_seek);

	*found = l->f->key;
	*found_len = l->f->key_len;
	*value = l->f->value;
	*value_len = l->f->value_len;
	return rc;
}

static int
seek(struct table_store *ts, const void *key, size_t key_len, bool after,
    const void **found, size_t *found_len, const void **value, size_t *value_len)
{
	struct store *s = of(ts);
	struct look l = { .s = s, .cursor = s->cursor, .f = &s->found, .key = key,
	    .key_len = key_len, .after = after };

	return seek_with(&l, found, found_len, value, value_len);
}

/* Pages that hold rows; others in the file are used again first. */
static void
count_used(struct store *s)
{
	MDB_stat st;

	if (mdb_stat(s->read, s->dbi, &st) == 0)
		s->used = (st.ms_branch_pages + st.ms_leaf_pages +
		    st.ms_overflow_pages) * (uint64_t)st.ms_psize;
}

static uint64_t
used(struct table_store *ts)
{
	return of(ts)->used;
}

static int
look_renew(void *arg)
{
	struct look *l = arg;
	struct store *s = l->s;
	int rc;

	mdb_txn_reset(s->read);
	s->at_key = false;
	if ((rc = mdb_txn_renew(s->read)) == 0)
		rc = mdb_cursor_renew(s->read, s->cursor);
	if (rc == 0)
		count_used(s);
	return rc;
}

static void
renew(struct store *s)
{
	struct look l = { .s = s };

	s->dead |= s->writer_dead;
	s->read_rc = s->dead ? -EIO : 0;
	s->read_rc = look(&l, look_renew);
}

/* ---- images ---- */

static void
image_end(struct image *m)
{
	if (m->cursor != NULL)
		mdb_cursor_close(m->cursor);
	if (m->txn != NULL)
		mdb_txn_abort(m->txn);
	m->cursor = NULL;
	m->txn = NULL;
}

static int
image_seek(struct table_image *ti, const void *key, size_t key_len, bool after,
    const void **found, size_t *found_len, const void **value, size_t *value_len)
{
	struct image *m = container_of(ti, struct image, image);
	struct look l = { .s = m->store, .cursor = m->cursor, .f = &m->found, .key = key,
	    .key_len = key_len, .after = after };

	if (m->txn == NULL)
		return -ESTALE;
	return seek_with(&l, found, found_len, value, value_len);
}

static void
image_close(struct table_image *ti)
{
	struct image *m = container_of(ti, struct image, image);

	image_end(m);
	list_remove(&m->node);
	free(m->found.value);
	free(m);
}

static const struct table_image_ops image_ops = {
	.seek = image_seek, .close = image_close
};

static int
look_image(void *arg)
{
	struct look *l = arg;
	int rc = mdb_txn_begin(l->s->env, NULL, MDB_RDONLY, &l->image->txn);

	return rc != 0 ? rc : mdb_cursor_open(l->image->txn, l->s->dbi,
	    &l->image->cursor);
}

static int
image_open(struct table_store *ts, uint64_t max_bytes, struct table_image **out)
{
	struct store *s = of(ts);
	struct image *m = calloc(1, sizeof(*m));
	struct look l = { 0 };
	int rc;

	if (m == NULL)
		return -ENOMEM;
	m->image.ops = &image_ops;
	m->store = s;
	m->max_bytes = max_bytes;
	list_push_back(&s->images, &m->node);
	l.s = s;
	l.image = m;
	if ((rc = look(&l, look_image)) != 0) {
		image_close(&m->image);
		return rc == -ENOMEM ? -ENOMEM : -EIO;
	}
	*out = &m->image;
	return 0;
}

/* A batch goes out: old pages are kept for images, one for each change and level of the
 * tree at worst; count one for each change and some. */
static void
images_age(struct store *s, const struct table_batch *b)
{
	uint64_t bytes = b->clear ? s->used : 0;

	for (size_t i = 0; i < b->n; i++)
		bytes += s->page + b->changes[i].value_len;
	list_for_each(it, &s->images) {
		struct image *m = list_entry(it, struct image, node);

		m->bytes += bytes;
		if (m->bytes > m->max_bytes)
			image_end(m);
	}
}

/* ---- batches ---- */

static int
put_all(MDB_txn *txn, MDB_dbi dbi, const struct table_batch *b)
{
	int rc;

	for (size_t i = 0; i < b->n; i++) {
		const struct table_change *c = &b->changes[i];
		MDB_val k = { c->key_len, (void *)(uintptr_t)c->key };
		MDB_val v = { c->value_len, (void *)(uintptr_t)c->value };

		if (c->value != NULL)
			rc = mdb_put(txn, dbi, &k, &v, 0);
		else if ((rc = mdb_del(txn, dbi, &k, NULL)) == MDB_NOTFOUND)
			rc = 0;
		if (rc != 0)
			return rc;
	}
	return 0;
}

struct batch_write {
	struct store *s;
	const struct table_batch *b;
};

static int
write_guarded(void *arg)
{
	struct store *s = ((struct batch_write *)arg)->s;
	const struct table_batch *b = ((struct batch_write *)arg)->b;
	MDB_txn *txn;
	int rc;

	if ((rc = mdb_txn_begin(s->env, NULL, 0, &txn)) != 0)
		return rc;
	if ((b->clear && (rc = mdb_drop(txn, s->dbi, 0)) != 0) ||
	    (rc = put_all(txn, s->dbi, b)) != 0)
		mdb_txn_abort(txn);
	else
		rc = mdb_txn_commit(txn);	/* frees txn either way */
	if (rc == 0)
		(void)table_lmdb_file_fill(s->env, s->fd, 0);
	return rc;
}

/* The transaction that a fault cuts short is never ended, nor is another one begun: what
 * it holds goes with the environment. */
static int
write_batch(struct store *s, const struct table_batch *b)
{
	struct batch_write w = { s, b };
	int rc;

	if (s->writer_dead)
		return -EIO;
	rc = fault_guard(write_guarded, &w);
	s->writer_dead = rc == -EFAULT;
	s->no_space = rc == ENOSPC || rc == EDQUOT;
	rc = translate(rc);
	return rc == 0 || rc == -ENOSPC ? rc : -EIO;
}

/* On the owner's thread. */
static void
completed(struct clock_post *p)
{
	struct completion *c = container_of(p, struct completion, post);
	struct table_batch *b = c->batch;
	struct store *s = c->store;

	if (s == NULL) {
		free(c);
		return;
	}
	s->done_posted = false;
	renew(s);
	if (b->rc == 0)
		b->rc = s->read_rc;
	b->fn(b);
}

/* A file system without space has it again when something else is removed there: better
 * wait a little than fail for good.  True: we are to stop. */
static bool
pause_full(struct store *s)
{
	struct timespec until;
	bool stop;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += FULL_PAUSE_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&s->lock);
	if (!s->stop)
		pthread_cond_timedwait(&s->wake, &s->lock, &until);
	stop = s->stop;
	pthread_mutex_unlock(&s->lock);
	return stop;
}

static void *
writer(void *arg)
{
	struct store *s = arg;
	struct completion *c;

	pthread_setname_np(pthread_self(), "table");
	pthread_mutex_lock(&s->lock);
	for (;;) {
		while (s->todo == NULL && !s->stop)
			pthread_cond_wait(&s->wake, &s->lock);
		if ((c = s->todo) == NULL)
			break;			/* stopped, and nothing is left */
		s->todo = NULL;
		s->writing = true;
		pthread_mutex_unlock(&s->lock);
		c->batch->rc = write_batch(s, c->batch);
		for (unsigned i = 0; c->batch->rc == -ENOSPC && s->no_space &&
		    i < FULL_TRIES && !pause_full(s); i++)
			c->batch->rc = write_batch(s, c->batch);
		pthread_mutex_lock(&s->lock);
		s->writing = false;
		if (s->left)
			break;
		clock_post(c->batch->clock, &c->post, completed);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static void
start_write(struct table_store *ts, struct table_batch *b)
{
	struct store *s = of(ts);

	assert(!s->done_posted);
	images_age(s, b);
	s->done_posted = true;
	s->done->batch = b;
	pthread_mutex_lock(&s->lock);
	s->todo = s->done;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
}

/* ---- open and close ---- */

static int
close_env(void *arg)
{
	struct store *s = arg;

	if (s->cursor != NULL)
		mdb_cursor_close(s->cursor);
	if (s->read != NULL)
		mdb_txn_abort(s->read);
	if (s->env != NULL)
		mdb_env_close(s->env);
	return 0;
}

/* The thread has ended; false: it may never, and keeps all that it has. */
static bool
join(struct store *s)
{
	struct timespec until;
	bool left;

	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	if (pthread_timedjoin_np(s->thread, NULL, &until) == 0)
		return true;
	pthread_mutex_lock(&s->lock);
	left = s->left = s->writing;
	pthread_mutex_unlock(&s->lock);
	if (left)
		pthread_detach(s->thread);
	else
		pthread_join(s->thread, NULL);
	return !left;
}

static bool
close_store(struct table_store *ts)
{
	struct store *s = of(ts);

	if (s->started && !join(s))
		return false;
	if (s->done_posted)
		s->done->store = NULL;		/* it frees itself on arrival */
	else
		free(s->done);
	assert(list_empty(&s->images));
	(void)fault_guard(close_env, s);	/* what is left is lost memory */
	free(s->found.value);
	if (s->fd >= 0)
		close(s->fd);
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->lock);
	free(s);
	return true;
}

static const struct table_store_ops ops = {
	.get = get, .seek = seek, .write = start_write, .used = used,
	.image = image_open, .close = close_store
};

static int
open_env(struct store *s, const char *path, uint64_t max_bytes)
{
	struct table_lmdb_file f;
	int rc = table_lmdb_file_open(&f, path, max_bytes);

	s->fd = f.fd;
	s->env = f.env;
	s->dbi = f.dbi;
	s->read = f.read;
	s->cursor = f.cursor;
	s->page = (size_t)sysconf(_SC_PAGESIZE);
	if (rc != 0)
		return rc;
	renew(s);			/* counts what is used */
	return s->read_rc;
}

int
table_lmdb_open(struct table_store **out, const char *path, uint64_t max_bytes)
{
	struct store *s = calloc(1, sizeof(*s));
	int rc;

	*out = NULL;
	if (s == NULL)
		return -ENOMEM;
	s->store.ops = &ops;
	s->fd = -1;
	list_init(&s->images);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->wake, NULL);
	if ((s->done = calloc(1, sizeof(*s->done))) == NULL) {
		rc = -ENOMEM;
		goto fail;
	}
	s->done->store = s;
	if ((rc = open_env(s, path, max_bytes)) != 0)
		goto fail;
	if ((rc = -pthread_create(&s->thread, NULL, writer, s)) != 0)
		goto fail;
	s->started = true;
	*out = &s->store;
	return 0;
fail:
	close_store(&s->store);
	return rc;
}
