/* SPDX-License-Identifier: MIT */
/* disk_threads.c - disk requests by blocking calls in a few threads, for kernels and
 * containers without io_uring.  Slower by two thread switches a request, same meaning. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "chunk/disk_io.h"
#include "conf/clock.h"

#define THREADS 4u

/* A block of its own: a wake-up on its way outlives the pool. */
struct wake {
	struct clock_post    post;
	struct disk_threads *pool;	/* NULL: closed; free me */
};

/* What one thread works on: all that it touches but the bytes.  Whoever asked may have been
 * told that it is over, and be gone. */
struct work {
	struct disk_threads *t;
	pthread_t	 thread;
	struct disk_req	*r;		/* NULL: idle, or nobody waits for it any more */
	struct disk_file *f;
	bool		 busy;
	int		 fd;
	struct disk_req	 copy;
	struct iovec	 iov[DISK_IOV_MAX];
};

struct disk_threads {
	struct clock	*clock;
	disk_threads_fn *fn;
	void		*ctx;
	struct wake	*wake;
	struct work	 works[THREADS];
	unsigned	 thread_n;
	pthread_mutex_t	 lock;		/* over all that follows */
	pthread_cond_t	 work;		/* queue or stop changed */
	pthread_cond_t	 ended;		/* a request ended */
	struct list	 queue, done;
	bool		 woken;		/* the wake-up is on its way */
	bool		 stop;
	unsigned	 orphans;	/* threads that go on after the pool was closed; the
					 * last of them frees it */
};

static int
move_bytes(struct work *w)
{
	struct disk_req *r = &w->copy;
	bool whole = false;

	while (!whole) {
		const struct iovec *v = &r->iov[r->impl[DISK_IO_PIECE]];
		uint64_t inner = r->impl[DISK_IO_INNER];
		off_t off = (off_t)(r->off + r->impl[DISK_IO_DONE]);
		ssize_t n;

		if (inner > 0 && r->op == DISK_READ)
			n = pread(w->fd, (char *)v->iov_base + inner,
			    v->iov_len - inner, off);
		else if (inner > 0)
			n = pwrite(w->fd, (char *)v->iov_base + inner,
			    v->iov_len - inner, off);
		else if (r->op == DISK_READ)
			n = preadv(w->fd, v, (int)(r->iov_n -
			    (unsigned)r->impl[DISK_IO_PIECE]), off);
		else
			n = pwritev(w->fd, v, (int)(r->iov_n -
			    (unsigned)r->impl[DISK_IO_PIECE]), off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		whole = disk_io_advance(r, (uint64_t)n);
	}
	return 0;
}

static int
perform(struct work *w)
{
	switch (w->copy.op) {
	case DISK_READ:
	case DISK_WRITE:
		return move_bytes(w);
	case DISK_SYNC:
		return fdatasync(w->fd) != 0 ? -errno : 0;
	case DISK_DISCARD:
		return fallocate(w->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		    (off_t)w->copy.off, (off_t)w->copy.len) != 0 ? -errno : 0;
	}
	return -EINVAL;
}

static void
woken(struct clock_post *p)
{
	struct wake *w = container_of(p, struct wake, post);
	struct disk_threads *t = w->pool;

	if (t == NULL) {
		free(w);
		return;
	}
	pthread_mutex_lock(&t->lock);
	t->woken = false;
	pthread_mutex_unlock(&t->lock);
	t->fn(t->ctx);
}

static void
pool_free(struct disk_threads *t)
{
	pthread_cond_destroy(&t->work);
	pthread_cond_destroy(&t->ended);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

/* With the lock. */
static void
begin(struct work *w, struct disk_req *r)
{
	w->r = r;
	w->f = disk_io_file_of(r);
	w->fd = w->f->fd;
	w->busy = true;
	w->copy = *r;
	for (unsigned i = 0; i < r->iov_n && (r->op == DISK_READ ||
	    r->op == DISK_WRITE); i++)
		w->iov[i] = r->iov[i];
	w->copy.iov = w->iov;
}

/* With the lock. */
static void
end(struct work *w, int rc)
{
	struct disk_threads *t = w->t;

	w->busy = false;
	if (w->r == NULL)
		return;			/* it was left to us */
	w->r->rc = rc;
	list_push_back(&t->done, &w->r->node);
	w->r = NULL;
	pthread_cond_broadcast(&t->ended);
	if (!t->woken) {
		t->woken = true;
		clock_post(t->clock, &t->wake->post, woken);
	}
}

static void *
thread_main(void *arg)
{
	struct work *w = arg;
	struct disk_threads *t = w->t;
	struct list *n;
	bool last = false;

	pthread_setname_np(pthread_self(), "disk");
	pthread_mutex_lock(&t->lock);
	for (;;) {
		int rc;

		while ((n = list_pop_front(&t->queue)) == NULL && !t->stop)
			pthread_cond_wait(&t->work, &t->lock);
		if (n == NULL)
			break;
		begin(w, list_entry(n, struct disk_req, node));
		pthread_mutex_unlock(&t->lock);
		rc = perform(w);
		pthread_mutex_lock(&t->lock);
		end(w, rc);
	}
	last = t->orphans > 0 && --t->orphans == 0;
	pthread_mutex_unlock(&t->lock);
	if (last)
		pool_free(t);
	return NULL;
}

/* All that is under way belongs to nobody any more. */
void
disk_threads_close(struct disk_threads *t)
{
	bool left[THREADS] = { false };
	unsigned n = 0;

	if (t == NULL)
		return;
	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_broadcast(&t->work);
	for (unsigned i = 0; i < t->thread_n; i++)
		n += left[i] = t->works[i].busy;
	/* Those that end now count themselves as well. */
	t->orphans = n > 0 ? t->thread_n + 1 : 0;
	assert(list_empty(&t->queue));
	assert(list_empty(&t->done));
	if (t->woken)
		t->wake->pool = NULL;
	else
		free(t->wake);
	pthread_mutex_unlock(&t->lock);
	for (unsigned i = 0; i < t->thread_n; i++) {
		if (left[i])
			pthread_detach(t->works[i].thread);
		else
			pthread_join(t->works[i].thread, NULL);
	}
	if (n == 0) {
		pool_free(t);
		return;
	}
	pthread_mutex_lock(&t->lock);
	n = --t->orphans;
	pthread_mutex_unlock(&t->lock);
	if (n == 0)
		pool_free(t);
}

int
disk_threads_open(struct disk_threads **out, struct clock *clock,
    disk_threads_fn *wake, void *ctx)
{
	struct disk_threads *t = calloc(1, sizeof(*t));
	pthread_condattr_t attr;
	int rc = -ENOMEM;

	*out = NULL;
	if (t == NULL)
		return -ENOMEM;
	t->clock = clock;
	t->fn = wake;
	t->ctx = ctx;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->work, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&t->ended, &attr);
	pthread_condattr_destroy(&attr);
	list_init(&t->queue);
	list_init(&t->done);
	if ((t->wake = calloc(1, sizeof(*t->wake))) == NULL)
		goto fail;
	t->wake->pool = t;
	while (t->thread_n < THREADS) {
		struct work *w = &t->works[t->thread_n];

		w->t = t;
		rc = -pthread_create(&w->thread, NULL, thread_main, w);
		if (rc != 0)
			goto fail;
		t->thread_n++;
	}
	*out = t;
	return 0;
fail:
	disk_threads_close(t);
	return rc;
}

void
disk_threads_submit(struct disk_threads *t, struct list *reqs)
{
	pthread_mutex_lock(&t->lock);
	list_splice_back(&t->queue, reqs);
	pthread_cond_broadcast(&t->work);
	pthread_mutex_unlock(&t->lock);
}

void
disk_threads_reap(struct disk_threads *t, struct list *done)
{
	pthread_mutex_lock(&t->lock);
	list_splice_back(done, &t->done);
	pthread_mutex_unlock(&t->lock);
}

static bool
runs(const struct disk_threads *t, const struct disk_file *f)
{
	for (unsigned i = 0; i < THREADS; i++)
		if (t->works[i].r != NULL && t->works[i].f == f)
			return true;
	return false;
}

/* Those that still run belong to nobody from now on. */
static unsigned
leave(struct disk_threads *t, const struct disk_file *f)
{
	unsigned n = 0;

	for (unsigned i = 0; i < THREADS; i++) {
		if (t->works[i].r == NULL || t->works[i].f != f)
			continue;
		t->works[i].r = NULL;
		n++;
	}
	return n;
}

unsigned
disk_threads_cancel(struct disk_threads *t, struct disk_file *f,
    struct list *done)
{
	struct timespec until;
	unsigned left;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += (long)DISK_IO_PATIENCE_NS;
	until.tv_sec += until.tv_nsec / (long)NS_PER_S;
	until.tv_nsec %= (long)NS_PER_S;
	pthread_mutex_lock(&t->lock);
	list_for_each_safe(it, tmp, &t->queue) {
		struct disk_req *r = list_entry(it, struct disk_req, node);

		if (disk_io_file_of(r) != f)
			continue;
		r->rc = -ECANCELED;
		list_remove(&r->node);
		list_push_back(done, &r->node);
	}
	while (runs(t, f) && pthread_cond_timedwait(&t->ended, &t->lock, &until) == 0)
		;
	left = leave(t, f);
	pthread_mutex_unlock(&t->lock);
	return left;
}
